"""Which operators of a pruned module are fitted to data, and in which order; which are not, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ....ir.core import Module, Op, Value
from ....ir.cost import cost_of
from ....ir.dims import evaluate
from ....ir.types import TensorType
from ...base import SkipCode, Skipped
from ...budget import allowed
from ...linear import Linear, linear_of


@dataclass(frozen=True, eq=False)
class FitSite:
    """A linear operator of the pruned module behind removed units. Sites of one level do not feed each other."""

    linear: Linear
    level: int

    @property
    def name(self) -> str:
        return self.linear.op.name or self.linear.op.results[0].name

    @property
    def memory(self) -> int:
        groups, outputs, depth = self.linear.shape
        return groups * depth * (2 * depth + outputs) * 8

    def rows(self, dims: Mapping[str, int]) -> int | None:
        """How many rows one sample makes; None where a size is not known."""
        groups, outputs, depth = self.linear.shape
        exposed = self.linear.exposed
        seen = self.linear.op.results[0].type if exposed else self.linear.data.type
        elements = evaluate(seen.elements, dims) if isinstance(seen, TensorType) else None
        return None if elements is None else elements // (groups * outputs if exposed else depth)


def fit_sites(
    module: Module, dense: Module, changed: Sequence[Value], memory: int | None
) -> tuple[list[FitSite], list[Skipped]]:
    """The operators of a pruned module that are to be fitted, front to back, and those that stay as they were cut.

    `changed` are the constants that lost units since `dense`. Operators behind them that read as much as before are
    not fitted: each level of them would take runs of its own.
    """
    walk = _Walk(dense, memory, set(changed))
    for op in module.graph.ops:
        walk.visit(op)
    return sorted(walk.sites, key=lambda s: s.level), walk.skipped


@dataclass
class _Walk:
    """What is known so far, in program order."""

    dense: Module
    memory: int | None
    cut: set[Value]  # constants that lost units, and what is computed from constants alone with one of them
    static: set[Value] = field(default_factory=set)
    level: dict[Value, int] = field(default_factory=dict)  # of values that depend on both the input and what is cut
    sites: list[FitSite] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def visit(self, op: Op) -> None:
        read = list(_read_by(op))
        touched = any(v in self.cut for v in read)
        if read and all(v.constant is not None or v in self.static for v in read):
            self.static.update(op.results)
            self.cut.update(op.results if touched else ())
            return
        behind = [self.level[v] for v in read if v in self.level]
        if touched or behind:
            self.level.update(dict.fromkeys(op.results, self._fitted(op) or max(behind, default=0)))

    def _fitted(self, op: Op) -> int | None:
        """The level at which an op is fitted; None if it is not."""
        linear = linear_of(op)
        if linear is None:
            self._tell(op)
            return None
        if not linear.exposed and self._axes_cut(op.operands[2]) > 1:
            told = f"the state that {op.kind} reads again is not watched"
            self.skipped.append(_not_fitted(op, SkipCode.NOT_FOLLOWED, told))
        if linear.data not in self.level or not self._lost_inputs(linear):
            return None
        site = FitSite(linear, self.level[linear.data] + 1)
        why = _refusal(site, self.memory)
        if why is not None:
            self.skipped.append(why)
            return None
        self.sites.append(site)
        return site.level

    def _tell(self, op: Op) -> None:
        bodies = [inner for region in op.regions.values() for inner in region.walk()]
        if any(self._reads_less(inner) for inner in bodies):
            why = f"what its {op.kind} bodies compute is not watched"
            self.skipped.append(_not_fitted(op, SkipCode.CONTROL_FLOW, why))
        elif self._reads_less(op):
            computed = any(v in self.static for v in op.operands)
            why = "its weight is quantized, or computed otherwise" if computed else f"{op.kind} is not fitted to data"
            self.skipped.append(_not_fitted(op, SkipCode.NOT_FOLLOWED, why))

    def _lost_inputs(self, linear: Linear) -> bool:
        return _shape(self.dense.constants[linear.weight.name])[linear.input_axis] != linear.shape[2] // linear.taps

    def _reads_less(self, op: Op) -> bool:
        """Whether the op computes with weights that lost units on values that did, or on its own state."""
        if op.regions or cost_of(op).macs == 0:
            return False
        weights = [v for v in op.operands if v is not None and v in self.cut and v.type.rank > 1]  # type: ignore[union-attr]
        behind = any(v in self.level for v in op.operands if v is not None)
        return any(behind or self._axes_cut(v) > 1 for v in weights)

    def _axes_cut(self, value: Value | None) -> int:
        if value is None or value.constant is None:
            return 0
        return sum(a != b for a, b in zip(_shape(value), _shape(self.dense.constants[value.name])))


def _read_by(op: Op) -> Iterator[Value]:
    """Operands, and for ops with bodies whatever those capture."""
    for inner in (op, *(o for region in op.regions.values() for o in region.walk())):
        yield from (v for v in inner.operands if v is not None)


def _shape(value: Value) -> tuple[int, ...]:
    assert value.constant is not None
    return value.constant.shape


def _refusal(site: FitSite, memory: int | None) -> Skipped | None:
    op, linear = site.linear.op, site.linear
    if len(linear.weight.uses) > 1:
        return _not_fitted(op, SkipCode.SHARED, "its weight is read by several operators")
    bias = op.operand(linear.bias_slot) if linear.bias_slot is not None else None
    if bias is not None and bias.constant is None:
        return _not_fitted(op, SkipCode.NOT_CONSTANT, "its bias is computed")
    if linear.exposed and bias is not None and any(n > 1 for n in _shape(bias)[:-1]):
        return _not_fitted(op, SkipCode.NOT_FOLLOWED, "its bias differs from row to row")
    most = allowed(memory)
    if site.memory > most:
        why = f"its moments take {site.memory / 2**20:.2g} MiB, more than {most / 2**20:.2g} MiB"
        return _not_fitted(op, SkipCode.NOT_FOLLOWED, why, "raise --max-memory")
    return None


def scarce(sites: Sequence[FitSite], samples: int, dims: Mapping[str, int]) -> list[str]:
    """A note where samples have fewer rows than an operator has inputs: what fits them says little of others."""
    found = [(s, n, d) for s in sites if (n := s.rows(dims)) is not None and n * samples < (d := s.linear.shape[2])]
    if not found:
        return []
    site, rows, depth = max(found, key=lambda f: f[2] / max(1, f[1]))
    return [
        f"{len(found)} of them see fewer rows than they have inputs, such as {site.name} ({rows * samples} rows, "
        f"{depth} inputs): give more samples, or a higher penalty"
    ]


def _not_fitted(op: Op, code: SkipCode, why: str, what_to_do: str = "") -> Skipped:
    return Skipped(op.name or op.kind, code, f"cut, not fitted: {why}", what_to_do)
