"""AIMET on ONNX models: simulated quantization, exported as QDQ with stored integer weights."""

from __future__ import annotations

from collections.abc import Callable

import adapter
import aimet_onnx
import onnx
from aimet_onnx import QuantizationSimModel
from aimet_onnx.cross_layer_equalization import equalize_model
from aimet_onnx.quantsim import set_blockwise_quantization_for_weights

Tune = Callable[[QuantizationSimModel, list], None]


def simulated(job: adapter.Job, tune: Tune | None = None, *, equalize: bool = False) -> None:
    """Weights and activations in 8 bits."""
    feeds = job.feeds()
    model = onnx.load(job.raised(17))
    if equalize:
        equalize_model(model)
    sim = QuantizationSimModel(model, param_type="int8", activation_type="int8", dummy_input=feeds[0])
    _export(job, sim, tune, feeds)


def weights(job: adapter.Job, tune: Tune | None = None) -> None:
    """Weights in 4 bits, matrices in blocks of 32 inputs (with blocks of a convolution no file runs); activations stay
    floats."""
    feeds = job.feeds()
    sim = QuantizationSimModel(onnx.load(job.raised(21)), param_type="int4", dummy_input=feeds[0])
    set_blockwise_quantization_for_weights(sim, ("MatMul", "Gemm"), bitwidth=4, symmetric=True, block_size=32)
    for name in sim.activation_names:
        sim.qc_quantize_op_dict[name].enabled = False
    _export(job, sim, tune, feeds)


def _export(job: adapter.Job, sim: QuantizationSimModel, tune: Tune | None, feeds: list) -> None:
    if tune is not None:
        tune(sim, feeds)
    sim.compute_encodings(feeds)
    onnx.save(sim.to_onnx_qdq(prequantize_constants=True), job.out)


def adaround(sim: QuantizationSimModel, feeds: list) -> None:
    aimet_onnx.apply_adaround(sim, feeds, num_iterations=1000)


adapter.main(
    {
        "W8A8": simulated,
        "W8A8, equalized": lambda job: simulated(job, equalize=True),
        "W8A8, AdaRound": lambda job: simulated(job, adaround),
        "W4, block 32": weights,
    }
)
