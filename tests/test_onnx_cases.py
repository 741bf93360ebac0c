"""ONNX's generated cases through import and export: nothing is lost, and what runs runs the same.

A sample by default; all of them (half a minute) with `-m slow`.
"""

from __future__ import annotations

import pytest
from kit.node_cases import GOOD, KINDS, Status, cases, cases_of, round_trip

SAMPLE = (
    "batch_normalization",
    "cast",
    "clip",
    "concat",
    "conv",
    "dequantizelinear",
    "dropout",
    "einsum",
    "expand",
    "gather",
    "gemm",
    "gru",
    "if_",
    "loop",
    "lstm",
    "optionalgetelement",
    "qlinearmatmul",
    "reshape",
    "resize",
    "scan",
    "sequenceinsert",
    "slice",
    "softmax",
    "split",
    "string_concat",
    "topk",
)
REFUSED = {"test_scan_sum"}  # Scan of opset 8


@pytest.fixture(scope="module")
def sample() -> list[object]:
    return list(cases_of(*SAMPLE))


def test_a_sample_of_operators(sample: list[object]) -> None:
    outcomes = [round_trip(case) for case in sample]
    assert len(outcomes) > 100
    assert [o for o in outcomes if o.status not in GOOD] == []
    assert {o.name for o in outcomes if o.status is Status.REFUSED} <= REFUSED
    assert sum(o.status is Status.EXACT for o in outcomes) > 150, "most of the others are newer than the runtime"


@pytest.mark.parametrize("kind", ["simple", "pytorch-operator"])
def test_cases_on_disk(kind: str) -> None:
    outcomes = [round_trip(case) for case in cases(kind)]
    assert [o for o in outcomes if o.status not in GOOD or o.status is Status.REFUSED] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_cases(kind: str) -> None:
    outcomes = [round_trip(case) for case in cases(kind)]
    assert [o for o in outcomes if o.status not in GOOD] == []
    assert {o.name for o in outcomes if o.status is Status.REFUSED} <= REFUSED
