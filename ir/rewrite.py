"""The rewriter: the only way to change a module. Every change is an event that listeners hear.

    rw = Rewriter(module, by="simplify")
    y = rw.insert("Relu", [x], before=op).result
    rw.replace(op, [y])

Inserted ops are typed by the operator table at once; ops keep the location of what they replace, with the pass's
name appended (`Loc.passes`), so that errors and reports can name the original node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import types
from .constants import Constant
from .core import Attr, Graph, Loc, Module, Op, Value
from .dtypes import DType
from .types import Type

EventKind = Literal["insert", "erase", "set_operand", "set_attr", "retype", "rename", "add_constant", "drop_constant"]


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `op` or `value` is what changed; for operands the old and new value are given."""

    kind: EventKind
    op: Op | None = None
    value: Value | None = None
    old: Value | None = None


Listener = Callable[[Event], None]


class Rewriter:
    """Mutates `module` on behalf of the pass called `by`."""

    def __init__(self, module: Module, by: str = "") -> None:
        self.module = module
        self.by = by
        self.changed = 0  # number of events so far
        self._listeners: list[Listener] = []
        self._names: set[str] | None = None
        self._node_names: set[str] | None = None

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def _emit(self, event: Event) -> None:
        self.changed += 1
        for listener in self._listeners:
            listener(event)

    # -- ops ---------------------------------------------------------------------------------------------------

    def insert(
        self,
        kind: str,
        operands: Sequence[Value | None],
        attrs: Mapping[str, Attr] | None = None,
        *,
        before: Op | Graph,
        origin: Op | None = None,
        results: Sequence[Type] | None = None,
        count: int = 1,
        names: Sequence[str] = (),
        regions: Mapping[str, Graph] | None = None,
    ) -> Op:
        """A new op in front of `before` (an op, or a graph: at its end).

        `origin` is the op it stands for (names and location; default: `before`). Result types are inferred unless
        given; `names` are used for the results if free. Errors: VERIFY when the operands do not fit the operator.
        """
        anchor = before if isinstance(before, Op) else None
        graph = anchor.parent if anchor is not None else before
        assert isinstance(graph, Graph), "the anchor is not in a graph"
        source = origin or anchor
        loc = (source.loc if source is not None else Loc()).touched(self.by)
        base = source.name or source.op_type if source is not None else kind.rpartition("::")[2]
        node_name = self.fresh_node_name(f"{base}__{self.by}" if self.by else base)
        made = [Value(types.UnrankedTensor(DType.F32)) for _ in range(len(results) if results else count)]
        op = Op(kind, operands, attrs, made, regions=regions, name=node_name, loc=loc)
        if results is not None:
            for value, known in zip(made, results):
                value.type = known
        try:
            self._infer(op, require=results is None)
        except Exception:
            op._drop_operands()
            raise
        for index, value in enumerate(made):
            wanted = names[index] if index < len(names) else (node_name if index == 0 else f"{node_name}_{index}")
            value.name = self.fresh_name(wanted)
        graph._insert(op, anchor)
        self._emit(Event("insert", op=op))
        return op

    def _infer(self, op: Op, *, require: bool) -> None:
        from .infer import infer_op

        for value, found in zip(op.results, infer_op(op, self.module, require=require)):
            value.type = found.type if require else (types.unify(value.type, found.type) or value.type)
            value.dims = found.dims

    def erase(self, op: Op) -> None:
        """Remove an op whose results nobody uses."""
        assert not op.is_terminator, "a terminator stays"
        used = [v for v in op.results if v._uses]
        assert not used, f"{used[0]!r} of {op!r} still has uses"
        graph = op.parent
        assert graph is not None, "the op is not in a graph"
        for region in op.regions.values():
            self._clear(region)
        op._drop_operands()
        graph._unlink(op)
        self._emit(Event("erase", op=op))

    def _clear(self, graph: Graph) -> None:
        graph.ret._drop_operands()
        for op in reversed(list(graph.ops)):
            for region in op.regions.values():
                self._clear(region)
            op._drop_operands()

    def replace(self, op: Op, values: Sequence[Value | None]) -> None:
        """Use `values` in place of an op's results and erase it (None: that result has no uses)."""
        assert len(values) == len(op.results)
        for old, new in zip(op.results, values):
            if new is not None:
                self.replace_uses(old, new)
        self.erase(op)

    def replace_uses(self, old: Value, new: Value, *, only: Iterable[Op] | None = None) -> None:
        """Let every use of `old` (or those by the ops in `only`) read `new`."""
        assert old is not new
        allowed = None if only is None else set(only)
        for use in old.uses:
            if allowed is None or use.op in allowed:
                self.set_operand(use.op, use.slot, new)

    def set_operand(self, op: Op, slot: int, value: Value | None) -> None:
        """Change one operand; a slot just beyond the end appends."""
        if slot == len(op._operands):
            old = None
            op._append_operand(value)
        else:
            old = op._operands[slot]
            if old is value:
                return
            op._set_operand(slot, value)
        op.loc = op.loc.touched(self.by)
        self._emit(Event("set_operand", op=op, value=value, old=old))

    def set_attr(self, op: Op, name: str, value: Attr | None) -> None:
        """Set an attribute, or remove it with None."""
        if value is None:
            op._attrs.pop(name, None)
        else:
            op._attrs[name] = value
        op.loc = op.loc.touched(self.by)
        self._emit(Event("set_attr", op=op))

    # -- values ------------------------------------------------------------------------------------------------

    def retype(self, value: Value, type: Type) -> None:
        """Give a value another type. What the source file declared of it no longer holds."""
        if value.type != type:
            value.type = type
            value.declared = None
            self._emit(Event("retype", value=value))

    def rename(self, value: Value, name: str) -> None:
        """Give a value a free name; constants keep their place under the new one."""
        assert name == value.name or name not in self._taken(), f"the name {name!r} is taken"
        if value.constant is not None:
            self.module.constants = {(name if v is value else n): v for n, v in self.module.constants.items()}
        value.name = name
        self._taken().add(name)
        self._emit(Event("rename", value=value))

    # -- constants ---------------------------------------------------------------------------------------------

    def constant(self, data: Constant | Any, name: str, *, dtype: DType | None = None) -> Value:
        """A new constant of the module under `name`, or `name_1`, ... if that is taken."""
        constant = data if isinstance(data, Constant) else Constant.of(data, dtype)
        if not constant.origin:
            constant.origin = self.by
        value = self.module._add_constant(self.fresh_name(name), constant)
        from .infer import constant_dims

        value.dims = constant_dims(constant)
        self._emit(Event("add_constant", value=value))
        return value

    def drop_constant(self, value: Value) -> None:
        """Remove a constant that nobody uses."""
        assert value.constant is not None
        assert not value._uses, f"constant {value.name!r} still has uses"
        del self.module.constants[value.name]
        self._emit(Event("drop_constant", value=value))

    # -- names -------------------------------------------------------------------------------------------------

    def fresh_name(self, wanted: str) -> str:
        """`wanted`, or the first of `wanted_1`, `wanted_2`, ... that no value bears. Reserved at once."""
        return _reserve(wanted, self._taken())

    def fresh_node_name(self, wanted: str) -> str:
        if self._node_names is None:
            self._node_names = {op.name for op in self.module.walk()}
        return _reserve(wanted, self._node_names)

    def _taken(self) -> set[str]:
        if self._names is None:
            self._names = {v.name for v in self.module.values()} | set(self.module.graph.output_names)
        return self._names


def _reserve(wanted: str, taken: set[str]) -> str:
    name, n = wanted, 0
    while name in taken:
        n += 1
        name = f"{wanted}_{n}"
    taken.add(name)
    return name
