"""Whether labels are numbers of classes, as accuracy needs them: one for each row of an output of class scores.

What a graph tells of the outputs and what a run gives are held to the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .types import TensorType, Type, UnrankedTensor

Array = np.ndarray[Any, Any]
Matrix = tuple[str, tuple[Any, Any]]  # the name of an output, its rows and its columns: numbers, or unknown sizes

SCORES = "a float matrix of two or more columns"
#: What else labels are good for.
USES = "a metric of yours takes labels of any kind: bound it, not acc_drop, and give --metric NAME=FILE.py:FUNCTION"
TEXT = "US"  # kinds of element types
_NUMBER = "give the number of the class"


@dataclass(frozen=True)
class Misfit:
    """Why labels are no numbers of classes, and what would be."""

    message: str
    help: str


def matrices(outputs: Mapping[str, Type]) -> list[Matrix]:
    """The outputs of a model that may hold class scores: float matrices."""
    kinds = ((n, k) for n, k in outputs.items() if isinstance(k, TensorType))
    return [(n, (k.shape[0], k.shape[1])) for n, k in kinds if k.rank == 2 and k.dtype.is_float]


def may_classify(outputs: Mapping[str, Type]) -> bool:
    """Whether an output holds class scores, or may."""
    return scores_of(matrices(outputs)) is not None or _unknown(outputs)


def _unknown(outputs: Mapping[str, Type]) -> bool:
    """Whether only a run tells which outputs are matrices."""
    return any(isinstance(kind, UnrankedTensor) for kind in outputs.values())


def scores_of(found: Iterable[Matrix]) -> Matrix | None:
    """The class scores: the first float matrix with more than one column. (One column has no best class.)"""
    return next((each for each in found if not isinstance(each[1][1], int) or each[1][1] > 1), None)


def misfit_of_types(labels: Array, outputs: Mapping[str, Type]) -> Misfit | None:
    """What keeps labels from being numbers of classes, as far as the types of a model's outputs tell."""
    return misfit(labels, matrices(outputs), open=_unknown(outputs))


def misfit(labels: Array, found: Iterable[Matrix], *, open: bool = False) -> Misfit | None:
    """What keeps labels from being numbers of classes. `found` are the float matrices of a model's outputs; `open`:
    there may be more."""
    scores = scores_of(found)
    if scores is None and not open:
        told = f"labels were given, but the model has no output of class scores ({SCORES})"
        return Misfit(told, "leave --labels out, and bound cosine or sqnr instead")
    name, (rows, classes) = scores or ("", (None, None))
    if isinstance(rows, int) and labels.size != rows:
        one_hot = isinstance(classes, int) and labels.size == rows * classes
        help = f"{_NUMBER}: numpy.argmax(labels, axis=-1)" if one_hot else "give one label per sample"
        return Misfit(f"{labels.size} labels do not fit output {name!r} of shape ({rows}, {classes})", help)
    if labels.dtype.kind not in "iufb":
        kind = "text" if labels.dtype.kind in TEXT else f"of type {labels.dtype}"
        return Misfit(f"the label is {kind}, not a number", _NUMBER)
    return _outside(labels.astype(np.float64).ravel(), name, classes)


def _outside(values: Array, name: str, classes: Any) -> Misfit | None:
    """A number that no class has."""
    if np.isnan(values).any():
        return Misfit("the label holds NaN", "leave such samples out")
    broken = values[values != np.floor(values)]
    if broken.size:
        return Misfit(f"the label {broken[0]:g} is no whole number", _NUMBER)
    wrong = values[(values < 0) | (values >= classes)] if isinstance(classes, int) else values[values < 0]
    if wrong.size:
        known = f"output {name!r} has {classes} classes" if name else "classes are numbered from 0"
        return Misfit(
            f"there is a label {wrong[0]:g}, and {known}",
            "number the classes from 0, in the order of the model's outputs",
        )
    return None
