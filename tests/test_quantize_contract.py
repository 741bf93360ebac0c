"""What every step of quantization keeps to on every kind of network: plans only read, every weight is done or skipped
with a reason, scopes hold, outputs keep their names and types, twice is once."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from kit.nets import NETS
from kit.samples import Samples

from mlc.backends.onnx import to_proto
from mlc.backends.runner import OrtRunner
from mlc.ir.core import Module, Op
from mlc.ir.ops.table import lookup
from mlc.ir.verify import verify
from mlc.passes.base import Context, Pass, Scope
from mlc.passes.linear import RECURRENT
from mlc.passes.quantize.absorb import Absorb
from mlc.passes.quantize.correct_bias import CorrectBias
from mlc.passes.quantize.dequantize.step import Dequantize
from mlc.passes.quantize.equalize import Equalize
from mlc.passes.quantize.int4 import Int4
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.prepare import Prepared
from mlc.passes.quantize.smooth import Smooth
from mlc.passes.quantize.weight_only import Weights
from mlc.passes.quantize.weights import is_stored

#: Convolutions, attention, recurrence, bodies, weights that several read, and what is quantized already.
NAMES = ("multiplier", "transposed", "bert", "gqa_decoder", "lstm", "gru", "captured", "loops", "tied", "dynamic_int8")


@dataclass(frozen=True)
class Case:
    """A step; `quantized`: it is for networks in 8 bits. `again`: a second run may find more."""

    step: Pass
    quantized: bool = False
    again: bool = False


CASES = {
    "absorb": Case(Absorb()),
    "equalize": Case(Equalize()),
    "smooth": Case(Smooth(alpha=0.5, mul="always"), again=True),
    "int4": Case(Int4()),
    "weights": Case(Weights(bits=(4, 8), saving=0.9), again=True),
    "int8": Case(Int8()),
    "int8_dynamic": Case(Int8(mode="dynamic")),
    "int8_stored": Case(Int8(mode="stored")),
    "correct_bias": Case(CorrectBias(), quantized=True),
    "dequantize": Case(Dequantize(), quantized=True),
}


@cache
def given(name: str, quantized: bool) -> tuple[Module, Context]:
    module, feeds = NETS[name]()
    rng = np.random.default_rng(0)

    def drawn(a: np.ndarray) -> np.ndarray:
        return rng.standard_normal(a.shape).astype(a.dtype) if a.dtype.kind == "f" else a

    samples = Samples({n: np.stack([drawn(a) for _ in range(6)]) for n, a in feeds.items()}, whole=True)
    ctx = Context(data=samples, runner=OrtRunner(), source=module)
    return (Int8()(module, ctx) if quantized else module), ctx


def file_of(module: Module) -> bytes:
    return to_proto(module).SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", CASES)
def test_contract(kind: str, name: str) -> None:
    case = CASES[kind]
    module, ctx = given(name, case.quantized)
    before = file_of(module)
    plan = case.step.plan(module, ctx)
    assert plan == case.step.plan(module, ctx)
    json.dumps(plan.to_json())
    assert all(s.site and s.why for s in plan.skipped)

    made = case.step(module, ctx)
    verify(made)
    assert file_of(module) == before, "the module that is given stays as it is"
    assert [(v.name, v.type) for v in made.graph.inputs] == [(v.name, v.type) for v in module.graph.inputs]
    assert made.graph.output_names == module.graph.output_names
    assert [v.type for v in made.graph.outputs] == [v.type for v in module.graph.outputs]

    everything = frozenset(op.name or op.loc.origin for op in module.walk())
    left = case.step(module, replace(ctx, scope=Scope(but=everything)))
    assert file_of(left) == before, "nothing outside the scope is touched"

    if not case.again:
        twice = case.step(made, ctx)
        assert not twice.history[-1].done  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("kind", ["int4", "weights", "int8_dynamic", "int8_stored"])
def test_every_weight_is_done_or_skipped_with_a_reason(kind: str, name: str) -> None:
    """Of the operators that the table says have weights: the weight is in codes, or the report names the operator."""
    module, ctx = given(name, False)
    if kind.startswith("int8"):
        module = Prepared.of(module, ctx, by=kind).module
    made = CASES[kind].step(module, ctx)
    told = {s.site for s in made.history[-1].skipped}  # type: ignore[attr-defined]
    assert not [op for op in made.walk() if _has_float_weight(op) and op.name not in told]


def _has_float_weight(op: Op) -> bool:
    """Biases and peepholes of recurrent operators are few numbers, whatever their rank."""
    values = [op.operand(slot) for slot in lookup(op.kind).weights if op.kind not in RECURRENT or slot <= 2]
    return any(v is not None and v.constant is not None and v.constant.dtype.is_float and v.constant.type.rank >= 2
               and not is_stored(v) for v in values)  # fmt: skip
