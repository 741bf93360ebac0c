"""Every option of every step of quantization changes the artifact, or is refused: none is read and forgotten."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from kit.layers import F32, Layers
from kit.samples import Samples

from mlc.backends.legalize import legalize
from mlc.backends.onnx import to_proto
from mlc.backends.runner import OrtRunner
from mlc.backends.targets import parse_target
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.passes.base import Context, Pass
from mlc.passes.execution import check_needs
from mlc.passes.quantize.absorb import Absorb
from mlc.passes.quantize.correct_bias import CorrectBias
from mlc.passes.quantize.dequantize.step import Dequantize
from mlc.passes.quantize.equalize import Equalize
from mlc.passes.quantize.int4 import Int4
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.smooth import Smooth
from mlc.passes.quantize.weight_only import Weights

TARGET = parse_target("ort(cpu, isa=vnni)")
METHODS = ("rtn", "grid", "hqq", "gptq", "adaround", "awq")
STATIC = ("minmax", "average", "ema", "percentile", "mse", "entropy")

#: Values of one option that give as many artifacts, and what else is asked for.
Case = tuple[type[Pass], str, Sequence[Any], dict[str, Any]]
WEIGHTS: dict[str, tuple[Sequence[Any], dict[str, Any]]] = {
    "block": ((32, 64, 128), {}),
    "embedding_block": ((32, 64, 128), {}),
    "symmetric": ((False, True), {}),
    "scale": (("f16", "f32"), {}),
    "accuracy_level": ((0, 1, 4), {}),
    "compute": (("codes", "floats"), {}),
    "stored": ((8, 4), {}),
    "method": (METHODS, {"block": 64}),
}
PLAIN = {"method": "rtn", "compute": "codes"}
CASES: list[Case] = [
    *((Int4, name, values, PLAIN | more) for name, (values, more) in WEIGHTS.items()),
    *((Weights, name, values, {"bits": 4} | PLAIN | more) for name, (values, more) in WEIGHTS.items()),
    (Weights, "bits", (2, 3, 4, 6, 8), PLAIN | {"stored": 2}),
    (Weights, "saving", (0.8, 0.9, 1.0), PLAIN | {"bits": (4, 8)}),
    (Int8, "mode", ("static", "dynamic", "stored"), {}),
    (Int8, "observer", STATIC, {"mode": "static"}),
    (Int8, "rounding", ("nearest", "gptq", "adaround"), {"mode": "static", "observer": "minmax"}),
    (Int8, "damage", (0.0, 1.0), {}),
    (Int8, "per_channel", (True, False), {"mode": "static", "observer": "minmax"}),
    (Smooth, "alpha", (0.2, 0.5, 0.8), {"mul": "always"}),
    (Smooth, "mul", ("always", "never"), {"alpha": 0.5}),
    (Absorb, "deviations", (0.5, 1.0), {}),
    (Dequantize, "activations", ("drop", "keep"), {}),
    (Dequantize, "ranges", ("folded", "all"), {}),
]


@cache
def network() -> Module:
    """Rows of a table and a picture: an embedding, two products, two convolutions with a norm and a ReLU between."""
    net = Layers()
    ids = net.input("ids", DType.I64, "N", 6)
    x = net.op("Gather", [net.const(net.draw(300, 128), "table"), ids], attrs={"axis": 0})
    x = net.dense(net.relu(net.dense(x, 128, 128)), 128, 64)
    picture = net.input("picture", F32, "N", 3, 8, 8)
    y = net.relu(net.norm(net.conv(picture, 3, 32), 32))
    return net.done(x, net.conv(y, 32, 32, 1))


@cache
def samples() -> Samples:
    rng = np.random.default_rng(0)
    return Samples({
        "ids": rng.integers(0, 300, (24, 6)),
        "picture": rng.standard_t(3, (24, 3, 8, 8)).astype(np.float32),
    })  # fmt: skip


def context() -> Context:
    return Context(target=TARGET, data=samples(), runner=OrtRunner(), source=network(), dims={"N": 64})


@cache
def start(kind: type[Pass]) -> Module:
    """What a step is given: `dequantize` something that is quantized."""
    return Int8(mode="static", observer="percentile")(network(), context()) if kind is Dequantize else network()


def artifact(step: Pass) -> bytes:
    made = step(start(type(step)), context())
    return to_proto(legalize(made, TARGET).module).SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("kind", "name", "values", "more"), CASES, ids=[f"{kind.name}({name})" for kind, name, *_ in CASES]
)
def test_every_value_gives_another_artifact(
    kind: type[Pass], name: str, values: Sequence[Any], more: dict[str, Any]
) -> None:
    made = {value: artifact(kind(**(more | {name: value}))) for value in values}
    same = [pair for pair in itertools.combinations(values, 2) if made[pair[0]] == made[pair[1]]]
    assert not same


@pytest.mark.parametrize("kind", [Absorb, CorrectBias, Dequantize, Equalize, Int4, Int8, Smooth, Weights])
def test_no_option_is_left_out_here(kind: type[Pass]) -> None:
    assert {f.name for f in dataclasses.fields(kind)} == {name for k, name, *_ in CASES if k is kind}


@pytest.mark.parametrize(
    "step",
    [
        Int8(mode="static"), Int8(rounding="gptq"), Int8(rounding="adaround", mode="stored"), Int4(method="gptq"),
        Weights(bits=8, method="adaround"), Weights(bits=(4, 8), method="awq"), Smooth(), CorrectBias(),
    ],
    ids=str,
)  # fmt: skip
def test_what_learns_from_data_is_refused_without(step: Pass) -> None:
    with pytest.raises(MlcError) as caught:
        check_needs(step, Context(target=TARGET, source=network()))
    assert caught.value.diagnostics[0].code is Code.NO_DATA


@pytest.mark.parametrize("step", [Int8(), Int8(mode="dynamic"), Int8(mode="stored"), Int4(), Weights()], ids=str)
def test_the_rest_works_without_data(step: Pass) -> None:
    check_needs(step, Context(target=TARGET))
    assert step(network(), Context(target=TARGET)).history[-1].done  # type: ignore[attr-defined]
