"""The typed SSA core: Module, Graph, Op, Value.

    Module(graph, constants, opset, ...)
      Graph: arguments, a doubly linked list of ops, one terminator (`ret`) whose operands are the outputs
        Op(kind, operands, attrs, results, regions, loc)
          Value: every operand and result; has a type and knows its uses

`kind` is ONNX's operator name, with `domain::` in front for other domains (`com.microsoft::MatMulNBits`); what
ONNX lacks lives in domain `mlc`. Graph outputs are operands of the terminator, so that "all uses" needs no
special case. If/Loop/Scan bodies are `regions` (by attribute name) and may use values of the graphs around
them. Constants belong to the module whatever graph uses them.

Only `ir/rewrite.py` mutates a module once it is built; the underscore methods here are its primitives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Union, get_args

from .constants import Constant
from .dims import Dim
from .types import Type


class Ints(tuple[int, ...]):
    """An attribute that is a list of integers (a class of its own, so that an empty list keeps its kind)."""

    __slots__ = ()


class Floats(tuple[float, ...]):
    __slots__ = ()


class Strings(tuple[Union[str, bytes], ...]):  # noqa: UP007  (a class base)
    __slots__ = ()


class Constants(tuple[Constant, ...]):
    __slots__ = ()


class Types(tuple[Type, ...]):
    __slots__ = ()


#: Attribute values: immutable plain data. Graph attributes are regions instead. `bytes` is text that is not UTF-8.
Attr = int | float | str | bytes | Constant | Type | Ints | Floats | Strings | Constants | Types


_ITEMS: dict[type, tuple[type, ...]] = {
    Ints: (int,),
    Floats: (float,),
    Strings: (str, bytes),
    Constants: (Constant,),
    Types: get_args(Type),
}
_SINGLE = frozenset((int, float, str, bytes, Constant, *get_args(Type)))


def is_attr(value: object) -> bool:
    """Whether a value is an attribute of exactly one of those kinds (a bool, a list or a numpy number is not)."""
    if type(value) in _SINGLE:
        return True
    members = _ITEMS.get(type(value))
    return members is not None and all(type(item) in members for item in value)  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Loc:
    """Where an op comes from: the node's name in the source and the passes that made or changed it."""

    origin: str = ""
    passes: tuple[str, ...] = ()

    def touched(self, by: str) -> Loc:
        return self if not by or self.passes[-1:] == (by,) else Loc(self.origin, (*self.passes, by))

    def __str__(self) -> str:
        return " < ".join((self.origin or "?", *self.passes))


class Use(NamedTuple):
    """Operand `slot` of `op`."""

    op: Op
    slot: int


class Value:
    """One SSA value: the result of an op, an argument of a graph, or a constant of the module.

    `type` is what analysis knows; `declared` is what the source file says of it (written back on export, because
    runtimes fuse by it). `dims` holds the elements of small integer tensors as dimension expressions.
    """

    __slots__ = ("_uses", "constant", "declared", "dims", "doc", "graph", "index", "name", "op", "type")

    def __init__(self, type: Type, name: str = "") -> None:
        self.type = type
        self.name = name
        self.doc = ""
        self.declared: Type | None = None
        self.dims: tuple[Dim, ...] | None = None
        self.op: Op | None = None  # exactly one of op, graph, constant says where it comes from
        self.graph: Graph | None = None
        self.constant: Constant | None = None
        self.index = 0  # among the op's results or the graph's arguments
        self._uses: dict[Use, None] = {}

    @property
    def uses(self) -> tuple[Use, ...]:
        """Every operand slot that reads this value, in the order in which they were made."""
        return tuple(self._uses)

    @property
    def users(self) -> tuple[Op, ...]:
        """The distinct ops that read this value (terminators included)."""
        return tuple(dict.fromkeys(use.op for use in self._uses))

    @property
    def home(self) -> Graph | None:
        """The graph in which the value is defined; None for constants, which are visible everywhere."""
        return self.op.parent if self.op is not None else self.graph

    @property
    def is_output(self) -> bool:
        return any(use.op.is_terminator for use in self._uses)

    def __repr__(self) -> str:
        return f"%{self.name or '?'}: {self.type}"


TERMINATOR = "mlc::Return"


class Op:
    """One operation. `operands` may hold None for an optional input left out."""

    __slots__ = (
        "_attrs",
        "_next",
        "_operands",
        "_prev",
        "doc",
        "kind",
        "loc",
        "meta",
        "name",
        "overload",
        "parent",
        "regions",
        "results",
    )

    def __init__(
        self,
        kind: str,
        operands: Iterable[Value | None] = (),
        attrs: Mapping[str, Attr] | None = None,
        results: Iterable[Value] = (),
        *,
        regions: Mapping[str, Graph] | None = None,
        name: str = "",
        loc: Loc | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.loc = loc or Loc(name)
        self.doc = ""
        self.meta: dict[str, str] = {}
        self.overload = ""
        self.parent: Graph | None = None
        self._prev: Op | None = None
        self._next: Op | None = None
        self._attrs: dict[str, Attr] = dict(attrs or {})
        self._operands: list[Value | None] = []
        self.results: tuple[Value, ...] = tuple(results)
        self.regions: dict[str, Graph] = dict(regions or {})
        for index, result in enumerate(self.results):
            result.op, result.index = self, index
        for region in self.regions.values():
            region.owner = self
        for operand in operands:
            self._append_operand(operand)

    @property
    def operands(self) -> tuple[Value | None, ...]:
        return tuple(self._operands)

    @property
    def attrs(self) -> Mapping[str, Attr]:
        return self._attrs

    @property
    def domain(self) -> str:
        return self.kind.rpartition("::")[0]

    @property
    def op_type(self) -> str:
        return self.kind.rpartition("::")[2]

    @property
    def is_terminator(self) -> bool:
        return self.kind == TERMINATOR

    @property
    def result(self) -> Value:
        """The only result."""
        (result,) = self.results
        return result

    def operand(self, index: int) -> Value | None:
        """Operand `index`, or None if it is left out or beyond the end."""
        return self._operands[index] if index < len(self._operands) else None

    def _append_operand(self, value: Value | None) -> None:
        self._operands.append(value)
        if value is not None:
            value._uses[Use(self, len(self._operands) - 1)] = None

    def _set_operand(self, index: int, value: Value | None) -> None:
        old = self._operands[index]
        if old is not None:
            del old._uses[Use(self, index)]
        self._operands[index] = value
        if value is not None:
            value._uses[Use(self, index)] = None

    def _drop_operands(self, keep: int = 0) -> None:
        while len(self._operands) > keep:
            self._set_operand(len(self._operands) - 1, None)
            self._operands.pop()

    def __repr__(self) -> str:
        outs = ", ".join(map(repr, self.results))
        ins = ", ".join("none" if v is None else f"%{v.name}" for v in self._operands)
        return f"{outs} = {self.kind}({ins})"


class Graph:
    """A list of ops with arguments and outputs: the main graph of a module, or a body of an If/Loop/Scan."""

    __slots__ = ("_first", "_last", "doc", "inputs", "name", "output_docs", "output_names", "owner", "ret")

    def __init__(self, name: str = "", inputs: Iterable[Value] = ()) -> None:
        self.name = name
        self.doc = ""
        self.owner: Op | None = None  # the op whose region this is
        self.inputs: list[Value] = []
        self._first: Op | None = None
        self._last: Op | None = None
        self.ret = Op(TERMINATOR)
        self.ret.parent = self
        self.output_names: list[str] = []  # parallel to outputs; the interface, whatever the values are called
        self.output_docs: dict[str, str] = {}
        for value in inputs:
            self._add_input(value)

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple(v for v in self.ret._operands if v is not None)

    @property
    def ops(self) -> Iterator[Op]:
        """The ops in order, without the terminator.

        Erasing, inserting and moving away while iterating is safe: what is inserted behind the current op is
        visited, what is erased or moved away is not.
        """
        op = self._first
        while op is not None:
            following = op._next
            yield op
            if op.parent is not None and op.parent is not self:
                op = following  # moved to another graph: its neighbours are of that graph
            else:
                op = op._next  # erased ops keep the neighbour they had
            while op is not None and op.parent is not self:
                op = op._next

    def __len__(self) -> int:
        return sum(1 for _ in self.ops)

    def _add_input(self, value: Value) -> None:
        value.graph, value.index = self, len(self.inputs)
        self.inputs.append(value)

    def _add_output(self, value: Value, name: str) -> None:
        self.ret._append_operand(value)
        self.output_names.append(name)

    def _clear_outputs(self) -> None:
        self.ret._drop_operands()
        self.output_names.clear()
        self.output_docs.clear()

    def _insert(self, op: Op, before: Op | None = None) -> None:
        """Link an op in front of `before`, or at the end."""
        assert op.parent is None, "the op is in a graph already"
        op.parent = self
        if before is None or before is self.ret:
            op._prev, op._next = self._last, None
        else:
            assert before.parent is self, "the anchor is in another graph"
            op._prev, op._next = before._prev, before
        if op._prev is None:
            self._first = op
        else:
            op._prev._next = op
        if op._next is None:
            self._last = op
        else:
            op._next._prev = op

    def _unlink(self, op: Op) -> None:
        assert op.parent is self
        if op._prev is None:
            self._first = op._next
        else:
            op._prev._next = op._next
        if op._next is None:
            self._last = op._prev
        else:
            op._next._prev = op._prev
        op.parent = None  # _next stays, so that an iterator standing here finds its way

    def walk(self) -> Iterator[Op]:
        """Every op of this graph and of the bodies below, outer before inner, in program order."""
        for op in self.ops:
            yield op
            if op.parent is not None:  # not erased meanwhile
                for region in op.regions.values():
                    yield from region.walk()

    def graphs(self) -> Iterator[Graph]:
        """This graph and all bodies below it."""
        yield self
        for op in self.ops:
            for region in op.regions.values():
                yield from region.graphs()

    def encloses(self, other: Graph | None) -> bool:
        """Whether `other` is this graph or a body below it."""
        while other is not None and other is not self:
            other = other.owner.parent if other.owner is not None else None
        return other is self

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self)} ops)"


@dataclass
class Meta:
    """What a model file says about itself; survives from source to artifact."""

    producer_name: str = ""
    producer_version: str = ""
    domain: str = ""
    model_version: int = 0
    doc: str = ""
    properties: dict[str, str] = field(default_factory=dict)  # metadata_props of the model
    graph_properties: dict[str, str] = field(default_factory=dict)  # metadata_props of the main graph


class Module:
    """A model: the main graph, the constants it and its bodies use, opset versions, metadata and history.

    `constants` maps names to the values of constants. `defaults` are arguments of the main graph that carry a
    default (an initializer that is also an input: overridable at run time, so never folded).
    """

    __slots__ = ("constants", "defaults", "graph", "history", "meta", "opset", "opsets", "source")

    def __init__(self, graph: Graph, *, opset: int, opsets: Mapping[str, int] | None = None) -> None:
        self.graph = graph
        self.constants: dict[str, Value] = {}
        self.defaults: dict[str, Constant] = {}
        self.opset = opset
        self.opsets: dict[str, int] = dict(opsets or {})  # versions of the other domains
        self.meta = Meta()
        self.history: list[object] = []  # one report per pass that ran (passes/base.py)
        self.source: Source | None = None

    def _add_constant(self, name: str, constant: Constant) -> Value:
        assert name not in self.constants, f"constant {name!r} exists"
        value = Value(constant.type, name)
        value.constant = constant
        self.constants[name] = value
        return value

    def walk(self) -> Iterator[Op]:
        return self.graph.walk()

    def values(self) -> Iterator[Value]:
        """Every value: constants, arguments and results, bodies included."""
        yield from self.constants.values()
        for graph in self.graph.graphs():
            yield from graph.inputs
            for op in graph.ops:
                yield from op.results

    def clone(self) -> Module:
        """An independent copy that shares the (immutable) constants' payloads."""
        from .clone import clone_module

        return clone_module(self)

    def become(self, other: Module) -> None:
        """Take over what another module is, which is not used any more; the history stays."""
        self.graph, self.constants, self.defaults = other.graph, other.constants, other.defaults
        self.opset, self.opsets, self.meta, self.source = other.opset, other.opsets, other.meta, other.source

    def __repr__(self) -> str:
        return f"Module({self.graph!r}, opset {self.opset}, {len(self.constants)} constants)"


@dataclass(frozen=True)
class Source:
    """The file a module came from: what sizes are compared with and reports name."""

    path: str
    sha256: str
    nbytes: int  # the file and its external data
    opset: int
    ir_version: int
