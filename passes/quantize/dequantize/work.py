"""The walk: every value of codes gets a *real*, the floats behind the codes; operators are rebuilt on those.

The graph is read in order. Rules (one per operator, `Work.rules`) replace what ends in floats and note the real of what
ends in codes; operators that only move codes are repeated on reals. Codes that something else still needs (an output
of the model) are made from their real again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ....ir.cleanup import drop_dead
from ....ir.constants import Constant
from ....ir.core import Attr, Graph, Op, Value
from ....ir.dtypes import DType
from ....ir.ops.opdef import Trait
from ....ir.ops.table import lookup
from ....ir.rewrite import Rewriter
from ....ir.types import TensorType
from ...base import Done, Scope, SkipCode, Skipped
from .grids import Grid, codes_behind, dtype_of, reach
from .intervals import interval
from .movers import moved, repeat

_ROUNDS = 8  # walks; the second one rarely finds anything


@dataclass(frozen=True)
class Why:
    """Why an operator stays as it is."""

    code: SkipCode
    text: str
    what_to_do: str = ""


Rule = Callable[["Work", Op], Why | None]


@dataclass(frozen=True, eq=False)
class Real:
    """The floats behind a value of codes on a grid; `codes` are those that were made anew, if any."""

    grid: Grid
    value: Value
    codes: Value | None = None


class Work:
    """One run over a module. `keep`: activations stay rounded. `saturate`: both ends of every range stay."""

    def __init__(self, rw: Rewriter, rules: Mapping[str, Rule], scope: Scope, *, keep: bool, saturate: bool) -> None:
        self.rw, self.rules, self.scope, self.keep, self.saturate = rw, rules, scope, keep, saturate
        self.reals: dict[Value, Real] = {}
        self.done: list[Done] = []
        self._made: set[Op] = set()  # quantizing operators that are meant to be there afterwards
        self._constants: dict[Value, list[tuple[Grid, Value]]] = {}
        self._why: dict[Op, Why] = {}
        self._borders: dict[Op, Why] = {}

    def run(self) -> tuple[Skipped, ...]:
        """Rewrite the module; what had to stay, and why. Ends when a walk finds nothing: a rounding that goes may have
        stood between a sum of products and its factors."""
        for _ in range(_ROUNDS):
            done = len(self.done)
            self.reals.clear()
            self._why.clear()
            self._walk()
            self._make_codes_again()
            if self.rw.changed:
                drop_dead(self.rw)
            if done == len(self.done):
                break
        return tuple(self._left())

    def _walk(self) -> None:
        for op in list(self.rw.module.walk()):
            rule = self.rules.get(op.kind)
            if op.parent is None:
                continue
            if rule is None:
                moved(self, op)
            elif self.scope.allows(op):
                why = rule(self, op)
                if why is not None:
                    self._why[op] = why
            elif lookup(op.kind).has(Trait.QUANTIZED):
                self._why[op] = Why(SkipCode.SCOPE, "outside the scope of the step")

    # -- reals -------------------------------------------------------------------------------------------------------

    def real(self, codes: Value, grid: Grid, before: Op) -> Value | None:
        """The floats that codes stand for; None where they come from something that is not followed."""
        known = self.reals.get(codes)
        if known is not None:
            return known.value if known.grid.same(grid) else self._read_otherwise(codes, known, grid, before)
        return self._widened(codes, grid, before, depth=16)

    def _read_otherwise(self, codes: Value, known: Real, grid: Grid, before: Op) -> Value | None:
        """Codes that are read on another grid than they were made on: x' = (clip(x / s + z) - z') s'.

        Quantizers write a product with a number, or a hard sigmoid, that way: there the ends of the range count.
        """
        made, read, dtype = known.grid.numbers(), grid.numbers(), dtype_of(known.value)
        if made is None or read is None or dtype is None or not (known.grid.is_whole and grid.is_whole):
            return None
        scale, zero, new_scale, new_zero = (x.astype(np.float64).reshape(()) for x in (*made, *read))
        value = self._saturated(known.value, known.grid, codes, before, always=True)
        if new_scale != scale:
            value = self.new("Mul", [value, self.number(new_scale / scale, dtype, "factor")], before)
        if zero != new_zero:
            value = self.new("Add", [value, self.number((zero - new_zero) * new_scale, dtype, "shift")], before)
        return value

    def dequantized(self, codes: Value, grid: Grid, before: Op) -> Value:
        """A DequantizeLinear that stays."""
        made = self.rw.insert("DequantizeLinear", _operands(codes, grid), _attrs(grid), before=before)
        self._made.add(made)
        return made.result

    def _widened(self, codes: Value, grid: Grid, before: Op, depth: int) -> Value | None:
        """Floats for constant codes, and for what only moves constant codes."""
        constant = codes_behind(codes)
        if constant is not None:
            found = self.constant(codes, constant, grid)
            return found if isinstance(found, Value) else None
        if codes.op is None or depth == 0 or not grid.is_whole:
            return None
        return moved_constant(self, codes, grid, before, depth)

    def constant(self, codes: Value, constant: Constant, grid: Grid) -> Value | str:
        """The constant of floats that constant codes stand for; made once for each grid."""
        for known, value in self._constants.setdefault(codes, []):
            if known.same(grid) and self.rw.module.constants.get(value.name) is value:
                return value
        dtype = dtype_of(grid.scale)
        assert dtype is not None
        floats = grid.floats(constant, dtype)
        if isinstance(floats, str):
            return floats
        value = self.rw.constant(floats, float_name(codes))
        self._constants[codes].append((grid, value))
        return value

    def note(self, codes: Value, grid: Grid, real: Value, before: Op) -> Value:
        """Say what the floats behind the result of a quantizing operator are, given them before rounding."""
        if not self.keep:
            made = self._saturated(real, grid, codes, before)
            self.reals[codes] = Real(grid, made)
            return made
        again = self._codes(real, grid, before)
        made = self.dequantized(again, grid, before)
        self.reals[codes] = Real(grid, made, again)
        return made

    def note_moved(self, codes: Value, grid: Grid, real: Value) -> None:
        """Say what the floats behind moved codes are."""
        self.reals[codes] = Real(grid, real)

    def stays(self, op: Op) -> None:
        """A quantizing operator is meant to be there afterwards."""
        self._made.add(op)

    def is_meant(self, op: Op) -> bool:
        """Whether an operator was put there, or left there on purpose."""
        return op in self._made

    def _codes(self, real: Value, grid: Grid, before: Op) -> Value:
        made = self.rw.insert("QuantizeLinear", _operands(real, grid), _attrs(grid), before=before)
        self._made.add(made)
        return made.result

    def _saturated(self, real: Value, grid: Grid, codes: Value, before: Op, *, always: bool = False) -> Value:
        """Where rounding cut off, so does a Clip: quantizers drop a Relu whose work the range does."""
        kind, floats = dtype_of(codes), dtype_of(real)
        rank = real.type.rank if isinstance(real.type, TensorType) else 1
        ends = reach(grid, kind, rank) if kind is not None and not grid.block else None
        if ends is None or floats is None:
            return real
        low, high = ends
        least, most = interval(real)
        if not (self.saturate or always) and (low.max() < 0 or least >= 0):
            return real
        cuts_low, cuts_high = least < low.max(), most > high.min()
        if low.size > 1 or high.size > 1:
            kinds = (("Max", low, cuts_low), ("Min", high, cuts_high))
            for operator, end, cuts in kinds:
                if cuts:
                    real = self.new(operator, [real, self.number(end, floats, "end")], before)
            return real
        if cuts_low and not cuts_high and low.max() == 0:
            return self.new("Relu", [real], before)
        if not cuts_low and not cuts_high:
            return real
        first, last = (
            self.number(end, floats, "end") if cuts else None for end, cuts in ((low, cuts_low), (high, cuts_high))
        )
        return self.new("Clip", [real, first, last] if last is not None else [real, first], before)

    # -- building ----------------------------------------------------------------------------------------------------

    def new(
        self, kind: str, operands: Sequence[Value | None], before: Op, attrs: Mapping[str, Attr] | None = None
    ) -> Value:
        """The result of a new operator of floats."""
        return self.rw.insert(kind, operands, attrs, before=before).result

    def number(self, array: object, dtype: DType, name: str) -> Value:
        return self.rw.constant(np.asarray(array).astype(dtype.numpy), name)

    def cast(self, value: Value, dtype: DType | None, before: Op) -> Value:
        """A value in an element type."""
        if dtype is None or dtype_of(value) is dtype:
            return value
        return self.new("Cast", [value], before, {"to": dtype.onnx})

    def replace(self, op: Op, value: Value, after: str, site: str = "") -> None:
        """Let `value` stand for the only used result of an operator, and report it."""
        result = op.results[0]
        value = self.cast(value, dtype_of(result), op)
        self.report(op, after, site)
        self.rw.replace(op, [value, *(None for _ in op.results[1:])])

    def report(self, op: Op, after: str, site: str = "", before: str = "") -> None:
        self.done.append(Done(site or op.name or op.kind, before or op.op_type, after))

    # -- what is left ------------------------------------------------------------------------------------------------

    def _make_codes_again(self) -> None:
        """Codes whose operator became floats but that something still reads as codes; readers before operators."""
        live = _live(self.rw.module.graph)
        for codes, real in reversed(self.reals.items()):
            op = codes.op
            if op is None or op.kind not in self.rules or op in self._made or live.isdisjoint(codes.users):
                continue
            if op.kind.endswith("QuantizeLinear"):  # it makes them from floats already
                self._why.setdefault(op, _wanted(codes, live))
                continue
            again = real.codes or self._codes(real.value, real.grid, op)
            assert again.op is not None
            self._borders[again.op] = _wanted(codes, live)
            self.rw.replace_uses(codes, again)

    def _left(self) -> list[Skipped]:
        found = []
        for op in self.rw.module.walk():
            why = self._borders.get(op) or self._why.get(op)
            if why is None and (op in self._made or not _is_quantized(op)):
                continue
            why = why or Why(SkipCode.UNSUPPORTED, f"there is no rule that turns {op.op_type} back")
            found.append(Skipped(op.name or op.kind, why.code, why.text, why.what_to_do))
        return found


def _live(graph: Graph) -> set[Op]:
    """Operators that outputs depend on, terminators included."""
    live = {g.ret for g in graph.graphs()}
    for inner in reversed(list(graph.graphs())):
        for op in reversed(list(inner.ops)):
            if any(not live.isdisjoint(v.users) for v in op.results):
                live.add(op)
    return live


def _is_quantized(op: Op) -> bool:
    """Whether an operator works on codes; unknown ones of a runtime do if they read constants of narrow integers."""
    row = lookup(op.kind)
    if row.has(Trait.QUANTIZED):
        return True
    constants = (v.constant for v in op.operands if v is not None and v.constant is not None)
    narrow = any(c.dtype.is_integer and c.dtype.bits <= 8 and c.elements > 1 for c in constants)
    return narrow and bool(op.domain) and row.infer is None


def _wanted(codes: Value, live: set[Op]) -> Why:
    readers = sorted({"an output of the graph" if u.is_terminator else u.op_type for u in codes.users if u in live})
    return Why(SkipCode.DTYPE, f"{', '.join(readers)} wants codes")


def moved_constant(work: Work, codes: Value, grid: Grid, before: Op, depth: int) -> Value | None:
    """The floats behind codes that are moved out of a constant, such as the rows of a table."""
    assert codes.op is not None

    def real(value: Value) -> Value | None:
        return work._widened(value, grid, before, depth - 1)

    twin = repeat(work, codes.op, grid, real, before)
    return twin.results[codes.index] if twin is not None else None


def float_name(codes: Value) -> str:
    """What the floats behind constant codes are called."""
    for suffix in ("_quantized", "_Q4", "_Q8", "_blocks"):
        if codes.name.endswith(suffix):
            return codes.name.removesuffix(suffix)
    return f"{codes.name}_floats"


def _operands(value: Value, grid: Grid) -> list[Value | None]:
    return [value, grid.scale] if grid.zero is None else [value, grid.scale, grid.zero]


def _attrs(grid: Grid) -> dict[str, Attr]:
    attrs: dict[str, Attr] = {} if grid.is_whole else {"axis": grid.axis}
    return attrs | ({"block_size": grid.block} if grid.block else {})
