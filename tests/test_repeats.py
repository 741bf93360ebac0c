"""Samples that repeat others are told by every step that learns from them."""

from __future__ import annotations

import numpy as np
import pytest
from kit.layers import Layers
from kit.samples import Samples

from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.passes.base import Context, Pass
from mlc.passes.quantize.correct_bias import CorrectBias
from mlc.passes.quantize.int4 import Int4
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.repeats import repeats
from mlc.passes.quantize.smooth import Smooth
from mlc.passes.quantize.weight_only import Weights

TARGET = parse_target("ort(cpu, isa=vnni)")
RNG = np.random.default_rng(0)
VARIED = RNG.standard_normal((16, 32)).astype(np.float32)
SAME = np.repeat(VARIED[:1], 16, axis=0)
STEPS = [
    Int8(),
    Int8(mode="stored", rounding="gptq"),
    Int4(),
    Weights(bits=(4, 8), saving=0.9),
    Weights(bits=(4, 8), saving=0.9, method="grid"),
    CorrectBias(),
]


def dense() -> Module:
    net = Layers()
    return net.done(net.dense(net.relu(net.dense(net.input("x", DType.F32, "N", 32), 32, 64)), 64, 8))


def told(step: Pass, rows: np.ndarray) -> list[str]:
    module = dense()
    data = Samples({"x": rows})
    ctx = Context(target=TARGET, data=data, runner=OrtRunner(), source=module)
    return [note for note in step(module, ctx).history[-1].notes if "repeat" in note]  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_steps_that_learn_tell_of_samples_that_repeat(step: Pass) -> None:
    assert told(step, SAME) == ["15 of 16 samples repeat others: all that is learned comes from 1"]
    assert not told(step, VARIED)


def test_smooth_tells_too() -> None:
    loud = SAME * np.where(np.arange(32) == 3, 100, 1).astype(np.float32)
    assert told(Smooth(alpha=0.5, mul="always"), loud)


def test_steps_that_take_nothing_from_data_do_not_tell() -> None:
    assert not told(Int4(method="grid"), SAME)
    assert not told(Weights(bits=8), SAME)
    assert not told(Int8(mode="dynamic"), SAME)
    assert not told(Int8(mode="stored"), SAME)


def test_what_counts_as_the_same() -> None:
    assert not list(repeats(None))
    ids, mask = np.array([[1, 2], [1, 2], [3, 4]]), np.array([[1, 1], [1, 0], [1, 1]])
    assert list(repeats(Samples({"ids": ids})))
    assert not list(repeats(Samples({"ids": ids, "mask": mask})))
    assert not list(repeats(Samples({"x": np.zeros((1, 0), np.float32)})))
    long = np.concatenate([np.arange(64), [0, 0]])[:, None]
    assert not list(repeats(Samples({"x": long})))  # beyond those that are looked at
    long[1] = 0
    (note,) = repeats(Samples({"x": long}))
    assert note.startswith("1 of the first 64 samples")
