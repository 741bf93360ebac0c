"""Every axis rule against ONNX's own conformance cases: permuted operands give the permuted result."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
from kit.conformance import cases
from kit.one_op import removable
from kit.permute import equivariant, with_constants
from kit.real import RealModel, all_models

from mlc.frontends.onnx import load
from mlc.ir import axis_types as ax
from mlc.ir.axes import analyse
from mlc.ir.axis_solver import Axis, Solver
from mlc.ir.core import Op
from mlc.ir.errors import MlcError
from mlc.ir.ops import coverage
from mlc.ir.ops.axes_rules import AXES, NOTHING_MOVES
from mlc.ir.ops.table import lookup

#: Ruled, but no conformance case permutes anything: covered by nets and by single ops in ONNX Runtime.
UNASKED = {
    "GlobalLpPool", "Loop", "MaxRoiPool", "QLinearConv", "Resize", "ReverseSequence", "STFT",
    "SimplifiedLayerNormalization", "Xor",
    *(kind for kind in AXES if "::" in kind),
    *(kind for kinds in NOTHING_MOVES.values() for kind in kinds.split()),
}  # fmt: skip


def _sweep(most: int) -> tuple[Counter[str], list[str]]:
    """Up to `most` cases of every kind: how many permuted something, and what went wrong."""
    asked: Counter[str] = Counter()
    permuted: Counter[str] = Counter()
    wrong: list[str] = []
    for case in cases(("node",)):
        kinds = {n.op_type for n in case.model.graph.node}
        if all(asked[k] >= most for k in kinds):
            continue
        outcome = equivariant(case)
        if outcome is not None:
            asked.update(kinds)
            permuted.update(kinds if outcome[0] else ())
            wrong += [outcome[1]] if outcome[1] else []
    return permuted, wrong


@pytest.mark.filterwarnings("ignore")
def test_rules_on_conformance_cases():
    with warnings.catch_warnings(action="ignore"):
        permuted, wrong = _sweep(2)
    assert wrong == []
    assert sum(permuted.values()) > 100


@pytest.mark.slow
def test_rules_on_all_conformance_cases():
    with warnings.catch_warnings(action="ignore"):
        permuted, wrong = _sweep(1 << 30)
    assert wrong == []
    assert set(AXES) - set(permuted) <= UNASKED


#: Forms that the first cases of their kind do not have.
FORMS = """
    spacetodepth_crd_mode_example simple_rnn_batchwise gru_batchwise lstm_batchwise dequantizelinear_blocked
    quantizelinear_blocked_symmetric depthtospace_crd_mode_example attention_4d_gqa_with_past_and_present
"""


@pytest.mark.filterwarnings("ignore")
def test_rules_on_rarer_forms():
    names = {f"test_{name}" for name in FORMS.split()}
    found = [case for case in cases(("node",)) if case.name in names]
    assert {case.name for case in found} == names
    assert [equivariant(case)[1] for case in found] == [""] * len(found)
    assert [removable(with_constants(case))[1] for case in found] == [""] * len(found)


# -- totality ------------------------------------------------------------------------------------------------------


def test_every_operator_has_a_rule():
    """Of ONNX and of the table: a rule, if only one that says why nothing may move."""
    assert [kind for kind in coverage.operators() if lookup(kind).axes is None] == []


class _Noting(Solver):
    """Remembers which operands the rules looked at."""

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.seen: set[tuple[Op, int]] = set()

    def operand(self, op: Op, slot: int) -> Axis | None:
        self.seen.add((op, slot))
        return super().operand(op, slot)


@pytest.mark.filterwarnings("ignore")
def test_what_no_rule_looks_at_is_pinned():
    """One case of every kind: each axis of each operand is ruled, or keeps its order."""
    kinds: set[str] = set()
    for case in cases(("node",)):
        new = {n.op_type for n in case.model.graph.node} - kinds
        proto = with_constants(case) if new else None
        if proto is None:
            continue
        try:
            module = load(proto)
        except MlcError:
            continue  # not importable: refused with a reason, see test_onnx_cases.py
        kinds |= new
        solver = _Noting(module)
        solver.run(module.graph)
        for op in module.graph.walk():
            for slot, value in enumerate(op.operands):
                types = () if value is None else solver.of(value) or ()
                assert (op, slot) in solver.seen or all(a.pin for t in types for a in ax.atoms(t)), f"{op.kind} {slot}"
    assert len(kinds & set(AXES)) > 150


@all_models()
def test_no_operator_of_a_real_model_is_unknown(model: RealModel):
    assert [str(c.pin) for c in analyse(load(model.path)).pinned if c.pin.code == "unknown-operator"] == []


# -- removal -------------------------------------------------------------------------------------------------------


def _removals(most: int) -> tuple[Counter[str], list[str]]:
    done: Counter[str] = Counter()
    wrong: list[str] = []
    for case in cases(("node",)):
        kinds = {n.op_type for n in case.model.graph.node}
        if all(done[k] >= most for k in kinds):
            continue
        proto = with_constants(case)
        outcome = None if proto is None else removable(proto)
        if outcome is not None:
            done.update(kinds if outcome[0] else ())
            wrong += [f"{case.name}: {outcome[1]}"] if outcome[1] else []
    return done, wrong


@pytest.mark.filterwarnings("ignore")
def test_units_can_be_removed_from_conformance_cases():
    """Sizes that operators state follow; what is left is what was there."""
    done, wrong = _removals(1)
    assert wrong == []
    assert len(done) > 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_units_can_be_removed_from_all_conformance_cases():
    assert _removals(1 << 30)[1] == []
