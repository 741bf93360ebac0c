"""Whether a sample fits the inputs of a model: one error that names the sample, the input, what it is and should be."""

from __future__ import annotations

import numpy as np

from ...ir.dims import Sym
from ...ir.types import TensorType, Type
from .source import Array, Inputs, Sample, bad

_ONE = "this is one sample: where an array holds many, its axis 0 counts them"


def feedable(inputs: dict[str, Type]) -> Inputs:
    """The inputs of a model as tensors of known rank. Errors: BAD_DATA for an input that samples cannot feed."""
    for name, kind in inputs.items():
        if not isinstance(kind, TensorType):
            raise bad(f"input {name!r} is {kind}, which no sample can feed", "the model", "feed tensors of known rank")
        if kind.dtype.kind == "str":
            raise bad(f"input {name!r} holds strings, which no data source feeds", "the model", "feed numbers")
    return {name: kind for name, kind in inputs.items() if isinstance(kind, TensorType)}


def is_whole(array: Array, kind: TensorType) -> bool:
    """Whether a sample is a whole input, and not what lies at one place of its batch axis."""
    return array.ndim == kind.rank


def feeds_of(sample: Sample, inputs: Inputs) -> dict[str, Array]:
    """A sample as one run takes it: slices get their batch axis."""
    return {n: a if is_whole(a, inputs[n]) else a[None] for n, a in sample.inputs.items()}


def check(sample: Sample, inputs: Inputs) -> None:
    """Errors: BAD_DATA naming the first input of the sample that is wrong."""
    sizes: dict[Sym, tuple[int, str]] = {}
    for name, kind in inputs.items():
        array = sample.inputs[name]
        if array.dtype != kind.dtype.numpy:
            raise _wrong(sample, name, f"is {array.dtype}", f"{kind.dtype.numpy}", "convert the array")
        if array.ndim not in (kind.rank, kind.rank - 1):
            raise _wrong(sample, name, f"has shape {list(array.shape)}", _shapes(kind), _ONE)
        _check_sizes(sample, name, kind, sizes)
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise bad(f"input {name!r} holds NaN", sample.where, "leave such samples out")


def _check_sizes(sample: Sample, name: str, kind: TensorType, sizes: dict[Sym, tuple[int, str]]) -> None:
    array = sample.inputs[name]
    whole = is_whole(array, kind)
    lead = kind.shape[:1]
    if not whole and isinstance(lead[0], int) and lead[0] != 1:
        raise bad(
            f"input {name!r} is {kind}: one run takes {lead[0]} on axis 0, and the sample is a slice for 1",
            sample.where,
            f"give whole inputs, one axis more: [{', '.join(map(str, kind.shape))}]",
        )
    first = 0 if whole else 1
    for axis, (want, have) in enumerate(zip(kind.shape[first:], array.shape), start=first):
        if isinstance(want, int) and want != have:
            found = f"has {have} on axis {axis} (shape {list(array.shape)})"
            raise _wrong(sample, name, found, f"{want}: {kind}", "prepare samples as the model was trained")
        if isinstance(want, Sym):
            size, other = sizes.setdefault(want, (have, name))
            if size != have:
                raise bad(
                    f"input {name!r} has {have} on axis {axis}, and input {other!r} has {size}: both are {want}",
                    sample.where,
                    "give all inputs of a sample the same length",
                )


def _shapes(kind: TensorType) -> str:
    """What a sample may look like: `[3, 4] or the whole of f32[N, 3, 4]`."""
    inner = ", ".join(map(repr, kind.shape[1:]))
    return f"[{inner}] or the whole of {kind}" if kind.rank else "a single number"


def _wrong(sample: Sample, name: str, found: str, wanted: str, help: str) -> Exception:
    return bad(f"input {name!r} {found}; the model wants {wanted}", sample.where, help)
