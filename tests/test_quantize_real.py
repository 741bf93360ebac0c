"""Rounding with data on real models: a convolutional network, a transformer, a recurrent one."""

from __future__ import annotations

import functools

import numpy as np
from kit.real import RealModel, real_models
from kit.samples import Samples

from mlc.backends.legalize import legalize
from mlc.backends.ort import Session
from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.frontends.onnx import load
from mlc.ir.core import Module
from mlc.ir.verify import verify
from mlc.passes.base import Context
from mlc.passes.quantize.correct_bias import CorrectBias
from mlc.passes.quantize.weight_only import Weights
from mlc.passes.statistics import StreamingStatistics

TARGET = parse_target("ort(cpu, isa=vnni)")
CALIBRATING, JUDGING = range(12), range(100, 106)


@functools.cache
def loaded(model: RealModel) -> tuple[Module, Context]:
    module = load(model.path)
    drawn = [model.feeds(seed) for seed in CALIBRATING]
    samples = Samples({name: np.stack([feeds[name] for feeds in drawn]) for name in drawn[0]}, whole=True)
    runner = OrtRunner()
    stats = StreamingStatistics(samples, runner)
    return module, Context(target=TARGET, data=samples, runner=runner, stats=stats, source=module)


def miss(model: RealModel, made: Module) -> float:
    """The relative squared error of the artifact's outputs, on inputs that nothing was calibrated on."""
    verify(made)
    whole, small = Session(model.path), Session(legalize(made, TARGET).module)
    noise = power = 0.0
    for seed in JUDGING:
        feeds = model.feeds(seed)
        wanted, found = whole.run(feeds), small.run(feeds)
        for name, y in wanted.items():
            if y.dtype.kind == "f":
                noise += float(np.square(found[name].astype(np.float64) - y).sum())
                power += float(np.square(y, dtype=np.float64).sum())
    return noise / power


def check(model: RealModel, method: str) -> None:
    module, ctx = loaded(model)
    plain, refined = (Weights(bits=3, stored=3, method=m, accuracy_level=0)(module, ctx) for m in ("rtn", method))
    sites = [{d.site for d in made.history[-1].done} for made in (plain, refined)]  # type: ignore[attr-defined]
    assert sites[0] <= sites[1]
    assert miss(model, refined) < miss(model, plain)


@real_models("mnist_cnn", "khmersm", "silero_vad")
def test_second_order_rounding(model: RealModel) -> None:
    """The weights of silero_vad are in bodies, where nothing is watched: those keep the grids of least error."""
    check(model, "gptq")


@real_models("mnist_cnn")
def test_learned_rounding(model: RealModel) -> None:
    check(model, "adaround")


@real_models("khmersm")
def test_scaled_inputs(model: RealModel) -> None:
    check(model, "awq")


@real_models("mnist_cnn", "khmersm")
def test_corrected_biases(model: RealModel) -> None:
    module, ctx = loaded(model)
    rounded = Weights(bits=3, stored=3, method="rtn", accuracy_level=0)(module, ctx)
    corrected = CorrectBias()(rounded, ctx)
    assert corrected.history[-1].done  # type: ignore[attr-defined]
    assert miss(model, corrected) < miss(model, rounded)
