"""AIMET on ONNX models: simulated quantization, exported as QDQ with stored integer weights."""

from __future__ import annotations

from collections.abc import Callable

import adapter
import aimet_onnx
import onnx
from aimet_onnx import QuantizationSimModel
from aimet_onnx.cross_layer_equalization import equalize_model

Tune = Callable[[QuantizationSimModel, list], None]


def simulated(
    job: adapter.Job, weights: str, activations: str, tune: Tune | None = None, *, equalize: bool = False
) -> None:
    feeds = job.feeds()
    model = onnx.load(job.raised(17 if weights == "int8" else 21))
    if equalize:
        equalize_model(model)
    sim = QuantizationSimModel(model, param_type=weights, activation_type=activations, dummy_input=feeds[0])
    if tune is not None:
        tune(sim, feeds)
    sim.compute_encodings(feeds)
    onnx.save(sim.to_onnx_qdq(prequantize_constants=True), job.out)


def adaround(sim: QuantizationSimModel, feeds: list) -> None:
    aimet_onnx.apply_adaround(sim, feeds, num_iterations=1000)


def sequential_mse(sim: QuantizationSimModel, feeds: list) -> None:
    aimet_onnx.apply_seq_mse(sim, feeds[:32])


adapter.main(
    {
        "W8A8": lambda job: simulated(job, "int8", "int8"),
        "W8A8, equalized": lambda job: simulated(job, "int8", "int8", equalize=True),
        "W8A8, AdaRound": lambda job: simulated(job, "int8", "int8", adaround),
        "W4A16": lambda job: simulated(job, "int4", "int16"),
        "W4A16, SeqMSE": lambda job: simulated(job, "int4", "int16", sequential_mse),
    }
)
