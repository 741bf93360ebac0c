"""The rewriter: the only way to change a module. Every change is an event that listeners hear.

    rw = Rewriter(module, by="simplify")
    y = rw.insert("Relu", [x], before=op).result
    rw.replace(op, [y])

Inserted ops are typed by the operator table at once; ops keep the location of what they replace, with the pass's
name appended (`Loc.passes`), so that errors and reports can name the original node. Nothing else is re-typed: who
changes an attribute, or an operand for one of another type, calls `retype` or `infer_module` afterwards.

Wrong types raise VERIFY or BROKEN_MODEL and leave the module as it was. What only a wrong pass can do (erase an op in
use, read an erased value) is an assertion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import types
from .constants import Constant
from .core import Attr, Graph, Loc, Module, Op, Use, Value
from .dims import Dim
from .dtypes import DType
from .errors import Code, MlcError, error
from .names import Names
from .types import Type

EventKind = Literal[
    "insert", "move", "erase", "set_operand", "set_attr", "retype", "rename", "add_constant", "drop_constant"
]


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `op` or `value` is what changed; for operands the old and new value are given.

    An erased op comes with the operands it had (those of the ops in its bodies included).
    """

    kind: EventKind
    op: Op | None = None
    value: Value | None = None
    old: Value | None = None
    operands: tuple[Value, ...] = ()


Listener = Callable[[Event], None]


class Rewriter:
    """Mutates `module` on behalf of the pass called `by`."""

    def __init__(self, module: Module, by: str = "") -> None:
        self.module = module
        self.by = by
        self.changed = 0  # number of events so far
        self._listeners: list[Listener] = []
        self._names: Names | None = None
        self._handed_out: set[str] = set()  # names that `fresh_name` gave and nothing bears yet
        self._node_names: Names | None = None

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        self._listeners.remove(listener)

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
        given (then checked against what can be inferred); `names` are used for the results if free. `regions` belong
        to the op from here on; they are emptied if it is refused.
        """
        anchor = before if isinstance(before, Op) else None
        graph = anchor.parent if anchor is not None else before
        assert isinstance(graph, Graph), "the anchor is not in a graph"
        for operand in operands:
            self._check_readable(operand, graph)
        source = origin or (anchor if anchor is not None and not anchor.is_terminator else None)
        loc = (source.loc if source is not None else Loc()).touched(self.by)
        made = [Value(t) for t in results] if results is not None else [_untyped() for _ in range(count)]
        op = Op(kind, operands, attrs, made, regions=regions, loc=loc)
        try:
            self._infer(op, given=results is not None)
        except BaseException:
            self._release(op)
            raise
        base = loc.origin or kind.rpartition("::")[2]
        op.name = self.fresh_node_name(f"{base}__{self.by}" if self.by else base)
        for index, value in enumerate(made):
            wanted = names[index] if index < len(names) else (op.name if index == 0 else f"{op.name}_{index}")
            value.name = self._taken().reserve(wanted)
        graph._insert(op, anchor)
        self._emit(Event("insert", op=op))
        return op

    def _infer(self, op: Op, *, given: bool) -> None:
        from .infer import infer_op

        for index, (value, found) in enumerate(zip(op.results, infer_op(op, self.module, require=not given))):
            both = types.unify(value.type, found.type) if given else found.type
            if both is None:
                message = f"result {index} of {op.kind} is {found.type}, but {value.type} was asked for"
                raise self._refusal(message, str(op.loc))
            value.type, value.dims = both, found.dims

    def _refusal(self, message: str, where: str) -> MlcError:
        return error(Code.VERIFY, message, where=where, help=f"correct the pass {self.by!r}" if self.by else "")

    def _check_readable(self, value: Value | None, graph: Graph) -> None:
        """Assert that ops of `graph` may read the value (order aside, which the verifier checks)."""
        if value is None:
            return
        if value.constant is not None:
            assert self.module.constants.get(value.name) is value, f"{value!r} is no constant of this module"
            return
        assert value.op is None or value.op.parent is not None, f"{value!r} is a result of an erased op"
        home, main = value.home, self.module.graph
        # A body under construction hangs nowhere yet and may read anything.
        assert home is graph or not main.encloses(graph) or (home is not None and home.encloses(graph)), (
            f"{value!r} is not visible there"
        )

    def erase(self, op: Op) -> None:
        """Remove an op whose results nobody uses, with its bodies."""
        assert not op.is_terminator, "a terminator stays"
        used = [v for v in op.results if v._uses]
        assert not used, f"{used[0]!r} of {op!r} still has uses"
        graph = op.parent
        assert graph is not None, "the op is not in a graph"
        operands = self._release(op)
        graph._unlink(op)
        self._emit(Event("erase", op=op, operands=operands))

    def _release(self, op: Op) -> tuple[Value, ...]:
        """Let go of all operands of an op and of the ops in its bodies; what they were."""
        released = dict.fromkeys(v for v in op.operands if v is not None)
        for region in op.regions.values():
            released.update(dict.fromkeys(v for inner in (region.ret, *region.ops) for v in self._release(inner)))
        op._drop_operands()
        return tuple(released)

    def replace(self, op: Op, values: Sequence[Value | None], *, retype: bool = False) -> None:
        """Use `values` in place of an op's results and erase it (None: that result has no uses)."""
        assert len(values) == len(op.results), f"{len(values)} values for {len(op.results)} results of {op!r}"
        pairs = [(old, new) for old, new in zip(op.results, values) if new is not None]
        for old, new in pairs:
            assert new.op is not op, "a value cannot take its own place"
            if not retype:
                self._check_fit(old, new)
        for old, new in pairs:
            self.replace_uses(old, new, retype=retype)
        self.erase(op)

    def replace_uses(self, old: Value, new: Value, *, only: Iterable[Op] | None = None, retype: bool = False) -> None:
        """Let every use of `old` (or those by the ops in `only`) read `new`.

        The two are taken to be equal at run time, so their types must agree, and `new` learns what was known of
        `old`. With `retype` they may differ: then the caller re-types what follows. An output that passes an input on
        under the input's own name goes on doing so (a file cannot say anything else).
        """
        assert old is not new, "a value cannot take its own place"
        if not retype:
            self._check_fit(old, new)
        allowed = None if only is None else set(only)
        uses = [use for use in old.uses if (allowed is None or use.op in allowed) and not self._passes_on(use)]
        for use in uses:
            assert use.op.parent is not None
            self._check_readable(new, use.op.parent)
        if not retype and uses:
            self._refine(new, old, output=any(use.op is self.module.graph.ret for use in uses))
        for use in uses:
            self.set_operand(use.op, use.slot, new)

    def _passes_on(self, use: Use) -> bool:
        """Whether a use is an output of the model with the name of an input, which must be that input."""
        graph = self.module.graph
        return use.op is graph.ret and any(v.name == graph.output_names[use.slot] for v in graph.inputs)

    def _check_fit(self, old: Value, new: Value) -> None:
        if not types.compatible(old.type, new.type):
            user = old.users[0].loc if old.users else ""
            raise self._refusal(f"{new!r} cannot stand in for {old!r}: the types contradict each other", str(user))

    def _refine(self, value: Value, known: Value, *, output: bool) -> None:
        """Carry over what is known of an equal value. Arguments and constants keep their own type, and what a body
        says of a value around it holds only where the body runs."""
        if value.op is None or value.home is not known.home:
            return
        both = types.unify(value.type, known.type)
        if both is not None and both != value.type:
            value.type = both
            self._emit(Event("retype", value=value))
        if value.dims is None:
            value.dims = known.dims
        if output and value.declared is None:
            value.declared = known.declared  # the interface as the file states it

    def set_operand(self, op: Op, slot: int, value: Value | None) -> None:
        """Change one operand; a slot just beyond the end appends. The types of the results stay as they are."""
        assert op.parent is not None, "the op is not in a graph"
        self._check_readable(value, op.parent)
        if op.is_terminator:
            assert value is not None, "a graph's output cannot be left out"
            assert slot < len(op._operands), "the outputs of a graph are fixed"
            assert not self._passes_on(Use(op, slot)), "an output with the name of an input is that input"
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

    # -- bodies ------------------------------------------------------------------------------------------------

    def body(self, arguments: Sequence[Type] = (), name: str = "body") -> Graph:
        """An empty graph with arguments of the given types, to be filled with `insert(..., before=graph)`, ended with
        `yields` and handed to `insert` as a region."""
        return Graph(name, [Value(t, self._taken().reserve(f"{name}_in{i}")) for i, t in enumerate(arguments)])

    def yields(self, graph: Graph, values: Sequence[Value]) -> Graph:
        """End a body under construction: its outputs."""
        assert graph.owner is None, "the body is in use: its outputs are changed with set_operand"
        assert graph is not self.module.graph, "the outputs of a module are fixed"
        assert not graph.output_names, "the body has outputs already"
        for index, value in enumerate(values):
            graph._add_output(value, f"{graph.name}_out{index}")
        return graph

    def inline(self, region: Graph, arguments: Sequence[Value], *, before: Op) -> tuple[Value, ...]:
        """Move the ops of a body in front of the op `before`, with `arguments` for the body's; what it yields.

        The body stays behind empty, for its owner to be erased.
        """
        assert len(arguments) == len(region.inputs), f"{len(arguments)} arguments for {len(region.inputs)}"
        target = before.parent
        assert target is not None, "the anchor is not in a graph"
        for formal, actual in zip(region.inputs, arguments):
            self.replace_uses(formal, actual)
        for op in list(region.ops):
            region._unlink(op)
            target._insert(op, before)
            op.loc = op.loc.touched(self.by)
            self._emit(Event("move", op=op))
        return region.outputs

    # -- values ------------------------------------------------------------------------------------------------

    def retype(self, value: Value, type: Type, *, dims: tuple[Dim, ...] | None = None) -> None:
        """Give a value another type, or new elements. What the source file declared of it no longer holds."""
        assert value.constant is None, "a constant has the type of its elements"
        if value.type == type and dims in (None, value.dims):
            return
        if value.type != type:
            value.declared = None
        value.type, value.dims = type, dims
        self._emit(Event("retype", value=value))

    def rename(self, value: Value, name: str) -> None:
        """Give a value a free name, or one from `fresh_name`; constants keep their place under the new one."""
        if name == value.name:
            return
        assert value.graph is not self.module.graph, "the names of the model's inputs are its interface"
        assert name, "a value has a name"
        assert name in self._handed_out or name not in self._taken().taken, f"the name {name!r} is taken"
        self._handed_out.discard(name)
        if value.constant is not None:
            self.module.constants = {(name if v is value else n): v for n, v in self.module.constants.items()}
        value.name = name
        self._taken().taken.add(name)
        self._emit(Event("rename", value=value))

    # -- constants ---------------------------------------------------------------------------------------------

    def constant(self, data: Constant | Any, name: str, *, dtype: DType | None = None) -> Value:
        """A new constant of the module under `name`, or `name_1`, ... if that is taken."""
        constant = data if isinstance(data, Constant) else Constant.of(data, dtype)
        if not constant.origin:
            constant.origin = self.by
        value = self.module._add_constant(self._taken().reserve(name), constant)
        from .infer import constant_dims

        value.dims = constant_dims(constant)
        self._emit(Event("add_constant", value=value))
        return value

    def set_constant(self, value: Value, constant: Constant) -> None:
        """Give a constant other elements, of any shape, under its name. The caller re-types what follows."""
        from .infer import constant_dims

        assert self.module.constants.get(value.name) is value, f"{value!r} is no constant of this module"
        if not constant.origin:
            constant.origin = self.by
        value.constant, value.type, value.declared = constant, constant.type, None
        value.dims = constant_dims(constant)
        self._emit(Event("retype", value=value))

    def drop_constant(self, value: Value) -> None:
        """Remove a constant that nobody uses."""
        assert self.module.constants.get(value.name) is value, f"{value!r} is no constant of this module"
        assert not value._uses, f"constant {value.name!r} still has uses"
        del self.module.constants[value.name]
        self._emit(Event("drop_constant", value=value))

    # -- names -------------------------------------------------------------------------------------------------

    def fresh_name(self, wanted: str) -> str:
        """`wanted`, or the first of `wanted_1`, `wanted_2`, ... that no value bears. Reserved at once."""
        name = self._taken().reserve(wanted)
        self._handed_out.add(name)
        return name

    def fresh_node_name(self, wanted: str) -> str:
        """The same for the names of nodes."""
        if self._node_names is None:
            self._node_names = Names(op.name for op in self.module.walk())
        return self._node_names.reserve(wanted)

    def _taken(self) -> Names:
        if self._names is None:
            self._names = Names((*(v.name for v in self.module.values()), *self.module.graph.output_names))
        return self._names


def _untyped() -> Value:
    """A value that inference is about to type."""
    return Value(types.UnrankedTensor(DType.F32))
