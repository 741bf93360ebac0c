"""Every axis rule against ONNX's own conformance cases: permuted operands give the permuted result."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
from kit.conformance import cases
from kit.permute import equivariant

from mlc.ir.ops.axes_rules import AXES

#: Ruled, but no conformance case permutes anything: covered by the nets of test_axes.py, or of other domains.
UNASKED = {
    "GlobalLpPool", "Loop", "QLinearConv", "ReverseSequence", "SimplifiedLayerNormalization", "Xor",
    "com.microsoft::BiasGelu", "com.microsoft::FastGelu", "com.microsoft::Gelu", "com.microsoft::QuickGelu",
    "com.microsoft::SkipLayerNormalization", "com.microsoft::SkipSimplifiedLayerNormalization",
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
