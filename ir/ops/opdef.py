"""What mlc knows of an operator: one `OpDef` per kind, the only place that does.

A pass never switches on an operator's name for what the table can answer. Columns left None take the default:
ONNX's own per-node inference and reference implementation, no arithmetic cost, every axis pinned.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Op
from ..dims import Dim
from ..types import Type

if TYPE_CHECKING:
    from ..axes import Solver


class Trait(enum.Enum):
    """Facts about an operator that passes and analyses ask for."""

    ELEMENTWISE = "elementwise"  # result element i depends on operand elements i only (after broadcasting)
    COMMUTATIVE = "commutative"  # the first two operands may be swapped
    RANDOM = "random"  # draws: two runs differ, never folded or merged
    VIEW = "view"  # moves or renames elements, computes nothing
    CONTROL_FLOW = "control-flow"
    QUANTIZED = "quantized"  # works on quantized data (integer matmuls, Q/DQ, packed weights)


@dataclass(frozen=True, slots=True)
class Inferred:
    """What inference says of one result: its type and, for small integer tensors, its elements."""

    type: Type
    dims: tuple[Dim, ...] | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Work of one execution of an op. Dimensions may be symbolic; unknown ones make a cost symbolic."""

    macs: Dim = 0  # multiply-accumulates
    bytes_read: Dim = 0  # operands, weights included, at their stored width
    bytes_written: Dim = 0
    bit_ops: Dim = 0  # macs x weight bits x activation bits


Infer = Callable[[Op], Sequence[Inferred]]
Reference = Callable[[Op, Sequence[np.ndarray[Any, Any] | None]], Sequence[np.ndarray[Any, Any]]]
CostRule = Callable[[Op], Dim]  # the MACs; bytes and bit-ops follow from types
AxesRule = Callable[[Op, "Solver"], None]


@dataclass(frozen=True, slots=True)
class OpDef:
    """One operator. `weights` are the operand slots that hold trained parameters when constant."""

    kind: str
    infer: Infer | None = None
    reference: Reference | None = None
    macs: CostRule | None = None
    axes: AxesRule | None = None
    traits: frozenset[Trait] = field(default_factory=frozenset)
    weights: tuple[int, ...] = ()

    def has(self, trait: Trait) -> bool:
        return trait in self.traits
