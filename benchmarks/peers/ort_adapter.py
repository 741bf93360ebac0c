"""ONNX Runtime's own quantizers (onnxruntime.quantization) and the graph that its optimizer can write."""

from __future__ import annotations

import functools
from typing import Any

import adapter
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(adapter.Reader, CalibrationDataReader):
    """quantize_static checks the type."""


#: Histograms hold every activation of every sample, in one array: all of them would not fit, and they need one length.
HISTOGRAM_SAMPLES = 40


def static(job: adapter.Job, method: CalibrationMethod = CalibrationMethod.MinMax, **extra: Any) -> None:
    """u8 activations, s8 weights per channel, as the documentation recommends for x86, after its preprocessing."""
    prepared = str(job.out.with_suffix(".prepared.onnx"))
    quant_pre_process(str(job.raised(17)), prepared, skip_symbolic_shape=True)
    feeds = job.feeds() if method is CalibrationMethod.MinMax else adapter.padded(job.feeds(HISTOGRAM_SAMPLES))
    constant = {"MatMulConstBOnly": True} if job.transformer else {}
    quantize_static(
        prepared,
        str(job.out),
        Reader(feeds),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
        extra_options={**constant, **extra},
    )


def dynamic(job: adapter.Job) -> None:
    quantize_dynamic(str(job.raised(17)), str(job.out), per_channel=True, weight_type=QuantType.QInt8)


def nbits(job: adapter.Job, config: Any) -> None:
    quantizer = MatMulNBitsQuantizer(onnx.load(job.raised(17)), algo_config=config, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(job.out))


def graph(job: adapter.Job) -> None:
    """Basic optimizations only: those that do not tie the file to this machine."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(job.out)
    onnxruntime.InferenceSession(str(job.model), options, providers=["CPUExecutionProvider"])


adapter.main(
    {
        "optimized_model_filepath, basic": graph,
        "static u8s8, min-max": static,
        "static u8s8, moving average": functools.partial(static, CalibMovingAverage=True),
        "static u8s8, entropy": functools.partial(static, method=CalibrationMethod.Entropy),
        "dynamic s8 per channel": dynamic,
        "MatMulNBits, block 32": lambda job: nbits(job, DefaultWeightOnlyQuantConfig(block_size=32, accuracy_level=4)),
        "MatMulNBits, HQQ, block 32": lambda job: nbits(job, HQQWeightOnlyQuantConfig(block_size=32)),
    }
)
