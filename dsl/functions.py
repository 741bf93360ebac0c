"""Metrics of the user's: functions of a model's outputs and the labels of all samples that return a number."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..backends.scores import Function
from ..frontends.data.python import function_at
from ..frontends.user_code import blamed
from ..ir.errors import Code, MlcError, error


def functions(metrics: Mapping[str, str]) -> dict[str, Function]:
    """The functions behind metrics of the user's; their modules are executed. Errors: NOT_FOUND, BAD_DATA.

    When one of them raises, or returns no finite number, that is the error BAD_METRIC.
    """
    return {name: _checked(name, function_at(text, "(outputs, labels)")) for name, text in metrics.items()}


def _checked(name: str, function: Callable[..., Any]) -> Function:
    def checked(outputs: dict[str, list[Any]], labels: list[Any] | None) -> float:
        with blamed(lambda why: _bad(name, f"its function raises {why}")):
            result = function(outputs, labels)
            found = _number(result)
        if found is None:
            raise _bad(name, f"its function returns a {type(result).__name__}, which is no real number")
        if not math.isfinite(found):
            raise _bad(name, f"its function returns {found}")
        return found

    return checked


def _number(result: Any) -> float | None:
    """A real number, of Python or without axes in an array of any library; None for all else. Truth values are none:
    they do not say how far a bound is missed."""
    if isinstance(result, numbers.Real) and not isinstance(result, bool):
        return float(result)
    array = np.asarray(result)
    return float(array) if array.ndim == 0 and array.dtype.kind in "iuf" else None


def _bad(name: str, why: str) -> MlcError:
    help = "a metric takes (outputs, labels) and returns a finite number; see docs/recipes.md"
    return error(Code.BAD_METRIC, f"the metric '{name}' cannot be used: {why}", where=name, help=help)
