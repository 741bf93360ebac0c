"""What `int8` tells: the data that ranges come from, and what is missing without any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kit.layers import Layers
from kit.nets import NETS
from kit.samples import Samples

import mlc
from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.ir.core import Ints, Module
from mlc.ir.dtypes import DType
from mlc.ir.types import TensorType
from mlc.passes.base import Context
from mlc.passes.quantize.equalize import Equalize
from mlc.passes.quantize.int8.int8 import Int8

TARGET = parse_target("ort(cpu, isa=vnni)")
RNG = np.random.default_rng(3)


def dense() -> Module:
    net = Layers()
    x = net.input("x", DType.F32, "N", 16)
    return net.done(net.dense(net.op("Relu", [net.dense(x, 16, 64)]), 64, 8))


def notes(module: Module, ctx: Context, step: Int8 | None = None) -> str:
    return "\n".join((step or Int8())(module, ctx).history[-1].notes)  # type: ignore[attr-defined]


def of(rows: np.ndarray) -> Context:
    return Context(target=TARGET, data=Samples({"x": rows.astype(np.float32)}), runner=OrtRunner())


def test_the_number_of_samples_is_told_and_few_are_too_few() -> None:
    assert "come from 8 samples" in (told := notes(dense(), of(RNG.standard_normal((8, 16)))))
    assert "too few" not in told
    assert "come from 1 sample: too few" in notes(dense(), of(RNG.standard_normal((1, 16))))


def test_a_limit_that_nothing_is_measured_for_is_told() -> None:
    rows = of(RNG.standard_normal((8, 16)))
    assert "'damage' limits nothing" in notes(dense(), Context(target=TARGET), Int8(damage=0.01))
    assert "'damage' limits nothing" not in notes(dense(), Context(target=TARGET))
    assert "'damage' limits nothing" not in notes(dense(), rows, Int8(damage=0.01))


@pytest.mark.parametrize("classes", [False, True])
def test_what_damage_means_is_told(classes: bool) -> None:
    """A model that only says which class it is has no angle: its answers are counted."""
    net, weight = Layers(), RNG.standard_normal((16, 8)).astype(np.float32)
    weight[0] = 0
    y = net.op("MatMul", [net.input("x", DType.F32, "N", 16), net.const(weight, "w")])
    if classes:
        y = net.op("ArgMax", [y], [TensorType(DType.I64, y.type.shape[:1])], {"axis": 1, "keepdims": 0})  # type: ignore[union-attr]
    rows = RNG.standard_normal((32, 16))
    rows[:, 0] *= 1000  # the grid that covers this rounds what matters away
    told = notes(net.done(y), of(rows), Int8(damage=1.0))
    measure = "share of the numbers that differ" if classes else "1 - cosine"
    assert f"({measure}); damage=1%" in told
    assert f"({measure} with activations rounded" in told


@pytest.mark.parametrize("held", [0.0, 0.5])
def test_inputs_that_never_vary_are_told(held: float) -> None:
    assert f"'x' is always {held:g}" in notes(dense(), of(np.full((8, 16), held)))
    assert "always" not in notes(dense(), of(RNG.standard_normal((8, 16))))


def test_values_that_were_always_zero_are_told() -> None:
    rows = RNG.standard_normal((8, 16))
    net = Layers()
    x = net.input("x", DType.F32, "N", 16)
    dead = net.op("Relu", [net.op("Neg", [net.op("Exp", [x])])])
    module = net.done(net.dense(dead, 16, 64))
    assert "1 values in codes were always 0" in notes(module, of(rows), Int8(mode="static"))


@pytest.mark.parametrize(
    ("name", "said", "unsaid"),
    [
        ("unet", "convolutions are only stored", "products"),
        ("bert", "products find", "stored in"),
        ("lstm", "products find", "stored in"),
    ],
)
def test_without_data_it_tells_what_they_would_change(name: str, said: str, unsaid: str) -> None:
    told = notes(NETS[name]()[0], Context(target=TARGET))
    assert said in told
    assert unsaid not in told


def test_what_was_asked_for_needs_no_excuse() -> None:
    assert "no calibration data" not in notes(NETS["unet"]()[0], Context(target=TARGET), Int8(mode="stored"))


def uneven() -> Module:
    """Channels of very different sizes, which the next layer undoes."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 16)
    spread = np.geomspace(1, 300, 64, dtype=np.float32)
    hidden = net.op("MatMul", [x, net.const(net.draw(16, 64) * spread)])
    return net.done(net.op("MatMul", [hidden, net.const(net.draw(64, 8) / spread[:, None])]))


def test_damage_beyond_what_verify_accepts_is_told() -> None:
    rows = of(RNG.standard_normal((8, 16)))
    assert "damage to the worst output on probed samples" in notes(uneven(), rows, Int8(damage=0.5))
    assert "damage to the worst output" not in notes(uneven(), rows, Int8(damage=0.01))


def test_an_artifact_that_verify_would_refuse_is_warned_of(tmp_path: Path) -> None:
    module = uneven()
    np.savez(tmp_path / "x.npz", x=RNG.standard_normal((40, 16)).astype(np.float32))
    settings = {"data": tmp_path / "x.npz", "to": "ort(cpu, isa=vnni)"}
    report = mlc.compile(module, "int8(static, per_channel=false)", **settings).report
    assert report["checks"]["cosine"] < 0.99
    assert any("mlc verify wants 0.99" in warning for warning in report["warnings"])
    good = mlc.compile(module, "fp16", **settings).report
    assert good["checks"]["cosine"] > 0.99
    assert not any("mlc verify" in warning for warning in good["warnings"])


@pytest.mark.parametrize("equalized", [False, True])
def test_uneven_channels_are_named_where_they_hurt(equalized: bool) -> None:
    """Channels of one layer that differ by 1000x share the grid of their activations: `equalize` is what helps."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 3, 8, 8)
    spread = np.geomspace(1, 1e4, 16).astype(np.float32)
    uneven = net.const(net.draw(16, 3, 3, 3) * spread[:, None, None, None], "uneven")
    attrs = {"kernel_shape": Ints((3, 3)), "pads": Ints((1,) * 4)}
    h = net.relu(net.op("Conv", [x, uneven], attrs=attrs))
    after = net.const(net.draw(16, 16, 3, 3) / spread[None, :, None, None], "after")
    module = net.done(net.op("Conv", [h, after], attrs=attrs))
    images = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    ctx = Context(data=Samples({"x": images}), runner=OrtRunner(), dims={"N": 1})
    ready = Equalize()(module, ctx) if equalized else module
    notes = " ".join(Int8()(ready, ctx).history[-1].notes)  # type: ignore[attr-defined]
    assert ("more than 100x: 1, e.g. uneven;" in notes) == (not equalized)
