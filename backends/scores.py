"""Metrics of the user's: functions of a model's outputs and the labels of all samples that return a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..ir.errors import Code, MlcError, error
from .checks import Judge
from .ort import Session

#: `metric(outputs, labels)`: a list with one array a sample for each output, and a list of the samples' labels as the
#: source gives them (None without labels).
Function = Callable[[dict[str, list[Any]], list[Any] | None], float]


def score(functions: Mapping[str, Function], session: Session, judge: Judge) -> dict[str, float]:
    """What each function says of a model on the judge's samples, which are run one by one.

    Errors: BAD_METRIC when a function raises or returns no number.
    """
    assert judge.samples is not None, "metrics need samples, which is checked before any work"
    outputs: dict[str, list[Any]] = {name: [] for name in session.output_names}
    labels: list[Any] = []
    for batch in judge.samples.batches(1):
        for name, array in session.run(batch.inputs).items():
            outputs[name].append(array)
        if batch.labels is not None:
            labels += list(batch.labels)
    return {name: _call(name, function, outputs, labels or None) for name, function in functions.items()}


def _call(name: str, function: Function, outputs: dict[str, list[Any]], labels: list[Any] | None) -> float:
    try:
        found = float(function({k: list(v) for k, v in outputs.items()}, labels))
    except MlcError:
        raise
    except Exception as cause:  # whatever the user's code raises
        raise _bad(name, f"its function raises {type(cause).__name__}: {cause}") from cause
    if not math.isfinite(found):
        raise _bad(name, f"its function returns {found}")
    return found


def _bad(name: str, why: str) -> MlcError:
    help = "a metric takes (outputs, labels) and returns a finite number; see docs/recipes.md"
    return error(Code.BAD_METRIC, f"the metric '{name}' cannot be used: {why}", where=name, help=help)
