"""The operators of a module as selectors see them: names, kind and properties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..ir.core import Module, Op
from ..ir.cost import cost_of
from ..ir.patterns import names_of_op
from ..ir.types import TensorType


@dataclass(frozen=True)
class OpSite:
    """One operator. Its names are its own, that of the node it comes from, and those of its constants; what a scope
    knows the operator by comes first."""

    op: Op

    @property
    def kind(self) -> str:
        return self.op.kind.replace("::", ".")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return names_of_op(self.op)

    @cached_property
    def properties(self) -> dict[str, float | str]:
        """size (bytes of weights), params, bits, rank and dtype of the largest weight; macs if they are known."""
        constants = [v.constant for v in self.op.operands if v is not None and v.constant is not None]
        found: dict[str, float | str] = {
            "size": sum(c.nbytes for c in constants),
            "params": sum(c.elements for c in constants),
        }
        if constants:
            largest = max(constants, key=lambda c: c.elements)
            found |= {"bits": largest.dtype.bits, "rank": len(largest.shape), "dtype": largest.dtype.short}
        elif self.op.results and isinstance(self.op.results[0].type, TensorType):
            kind = self.op.results[0].type
            found |= {"bits": kind.dtype.bits, "rank": kind.rank, "dtype": kind.dtype.short}
        macs = cost_of(self.op).macs
        if isinstance(macs, int):
            found["macs"] = macs
        return found


def sites_of(module: Module) -> Iterator[OpSite]:
    """Every operator, those in bodies included, in program order."""
    return map(OpSite, module.walk())
