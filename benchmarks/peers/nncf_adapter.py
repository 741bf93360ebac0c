"""NNCF on ONNX models: post-training quantization and weight compression."""

from __future__ import annotations

from typing import Any

import adapter
import nncf
import onnx


def _loaded(job: adapter.Job, opset: int) -> onnx.ModelProto:
    return onnx.load(job.raised(opset))


def quantize(job: adapter.Job, **settings: Any) -> None:
    feeds = job.feeds()
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if job.transformer else {}
    made = nncf.quantize(_loaded(job, 17), nncf.Dataset(feeds), subset_size=len(feeds), **kind, **settings)
    onnx.save(made, job.out)


def weights(job: adapter.Job, mode: nncf.CompressWeightsMode, **settings: Any) -> None:
    onnx.save(nncf.compress_weights(_loaded(job, 21), mode=mode, **settings), job.out)


def aware(job: adapter.Job) -> None:
    """With scales estimated from data."""
    feeds = job.feeds(32)
    data = nncf.Dataset(feeds)
    weights(job, nncf.CompressWeightsMode.INT4_SYM, group_size=32, dataset=data, subset_size=32, scale_estimation=True)


adapter.main(
    {
        "quantize": quantize,
        "quantize, mixed preset": lambda job: quantize(job, preset=nncf.QuantizationPreset.MIXED),
        "compress_weights int8": lambda job: weights(job, nncf.CompressWeightsMode.INT8_ASYM),
        "compress_weights int4, group 32": lambda job: weights(job, nncf.CompressWeightsMode.INT4_SYM, group_size=32),
        "compress_weights int4, scale estimation": aware,
    }
)
