"""The weights that may get zeros: those that operators multiply with."""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.constants import Constant
from ....ir.core import Module
from ...base import Context, SkipCode, Skipped
from ...quantize.weights import Reader, Weight, describe, float_weights
from .contracted import Contraction, contraction

_NOTABLE_BYTES = 16 << 10  # tables of this size are worth a line in the report when they stay as they are


@dataclass(frozen=True, eq=False)
class Candidate:
    """A weight that may get zeros."""

    weight: Weight
    how: Contraction | None  # None: nothing sums over it (a table that was selected by name)

    @property
    def constant(self) -> Constant:
        assert self.weight.value.constant is not None
        return self.weight.value.constant

    @property
    def site(self) -> str:
        return ", ".join(dict.fromkeys(r.site for r in self.weight.readers))

    @property
    def sums(self) -> list[tuple[Reader, Contraction]]:
        """The readers that sum over an axis, and how."""
        found = ((r, contraction(r, len(self.constant.shape))) for r in self.weight.readers)
        return [(r, how) for r, how in found if how is not None]


def candidates(module: Module, ctx: Context, pattern: tuple[int, int] | None) -> tuple[list[Candidate], list[Skipped]]:
    """The weights that operators multiply with; tables that are only looked up if they are selected by name."""
    found, skipped = [], []
    for weight in float_weights(module):
        reason = _refusal(weight, ctx)
        how = None if reason is not None else _how(weight)
        reason = reason or (_misfit(weight, how, pattern) if pattern else None)
        if reason is None:
            found.append(Candidate(weight, how))
        elif _is_notable(weight):
            skipped.append(reason)
    return found, skipped


def _is_notable(weight: Weight) -> bool:
    constant = weight.value.constant
    assert constant is not None
    return any(contraction(r, constant.type.rank) for r in weight.readers) or constant.nbytes >= _NOTABLE_BYTES


def _refusal(weight: Weight, ctx: Context) -> Skipped | None:
    constant = weight.value.constant
    assert constant is not None
    if constant.dtype.bits < 16:
        return Skipped(
            weight.name, SkipCode.DTYPE, f"its elements are {constant.dtype.short}", "prune before quantizing"
        )
    others = [r for r in weight.readers if contraction(r, constant.type.rank) is None]
    if not weight.readers or any(r.op.is_terminator for r in weight.readers):
        return Skipped(weight.name, SkipCode.SHARED, "it is an output of the graph, or nobody reads it")
    if others and not ctx.scope.explicit:
        return Skipped(
            weight.name, SkipCode.SHARED if len(others) < len(weight.readers) else SkipCode.UNSUPPORTED,
            f"{describe(others[0])} takes it as it is", "select every reader with `on` to prune it all the same",
        )  # fmt: skip
    if not all(ctx.scope.allows(r.op) for r in weight.readers):
        return Skipped(weight.name, SkipCode.SCOPE, "not every reader is in scope")
    return None


def _how(weight: Weight) -> Contraction | None:
    """The axis that all readers sum over."""
    rank = weight.value.type.rank  # type: ignore[union-attr]  # a constant is a tensor
    found = [contraction(r, rank) for r in weight.readers]
    first = found[0]
    return first if first is not None and all(f is not None and f.axis == first.axis for f in found) else None


def _misfit(weight: Weight, how: Contraction | None, pattern: tuple[int, int]) -> Skipped | None:
    """Why groups of M do not fit a weight."""
    constant = weight.value.constant
    assert constant is not None
    if how is None:
        return Skipped(weight.name, SkipCode.SHARED, "no axis is summed over by all of its readers")
    n = constant.shape[how.axis]
    if n % pattern[1] == 0:
        return None
    return Skipped(
        weight.name, SkipCode.UNSUPPORTED, f"{n} positions along the summed axis are no multiple of {pattern[1]}"
    )
