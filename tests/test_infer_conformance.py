"""ONNX's conformance cases: inferred types are those of the expected outputs, and the reference computes them.

The fast tier takes the cases that lie in files; all of them, with the totals, are the slow tier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
from kit.conformance import STORED, Case, agrees, cases

from mlc.frontends.onnx import load
from mlc.ir.core import Module
from mlc.ir.errors import MlcError
from mlc.ir.evaluate import evaluate
from mlc.ir.types import TensorType

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

#: Cases that cannot agree, and why. Everything else has to.
REFUSED = {
    "test_scan_sum": "Scan of opset 8",
    "test_flexattention": "bodies inside an attention, preview domain",
    "test_gradient_of_add": "training",
    "test_bernoulli": "draws random numbers",
}


def _is_refused(name: str) -> bool:
    return any(name.startswith(prefix) for prefix in REFUSED)


def _wrong_types(module: Module, case: Case) -> list[str]:
    """Outputs whose inferred type contradicts the expected array."""
    pairs = zip(module.graph.outputs, case.expected)
    return [f"{v!r}: {w.shape}" for v, w in pairs if isinstance(w, np.ndarray) and not _fits(v.type, w)]


def _fits(kind: object, array: np.ndarray) -> bool:
    if not isinstance(kind, TensorType):
        return not array.ndim  # every output of the cases has a rank
    sizes = zip(kind.shape, array.shape, strict=True) if kind.rank == array.ndim else [(0, 1)]
    same = all(real == said for said, real in sizes if isinstance(said, int))
    return same and (array.dtype.kind in "OUS" or kind.dtype.numpy == array.dtype)


def _judge(chosen: Iterable[Case]) -> tuple[Counter[str], list[str]]:
    """Totals, and what went wrong."""
    totals, wrong = Counter[str](), []
    for case in chosen:
        totals["cases"] += 1
        try:
            module = load(case.model)
            results = evaluate(module, case.feeds)
        except MlcError as problem:
            totals["refused"] += 1
            if not _is_refused(case.name):
                wrong.append(f"{case.name}: {problem}")
            continue
        wrong += [f"{case.name}: {text}" for text in _wrong_types(module, case)]
        static = [v.type for v in module.graph.outputs if isinstance(v.type, TensorType)]
        totals["exact shapes"] += sum(t.static_shape is not None for t in static)
        totals["open shapes"] += sum(t.static_shape is None for t in static)
        if all(agrees(r, w, case.rtol, case.atol) for r, w in zip(results, case.expected, strict=True)):
            totals["evaluated"] += 1
        else:
            wrong.append(f"{case.name}: other results")
    return totals, wrong


def test_stored_cases() -> None:
    totals, wrong = _judge(cases(STORED))
    assert wrong == []
    assert totals["evaluated"] == totals["cases"] - totals["refused"] >= 138


@pytest.mark.slow
def test_all() -> None:
    totals, wrong = _judge(cases())
    print(dict(totals))
    assert wrong == []
    assert totals["cases"] >= 2000
    assert totals["refused"] <= 14
    assert totals["open shapes"] <= 30
