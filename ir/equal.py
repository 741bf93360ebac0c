"""Structural equality of modules, up to the names of symbols that inference made up.

Compared: graphs with names, types, known elements, declared types, documentation, locations, attributes bit for bit,
constants by their bits, opsets, metadata. Not compared: history, the source file, the order in which uses were made.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import zip_longest

from . import dims
from .constants import Constant
from .core import Attr, Graph, Module, Op, Value
from .dims import Dim, Sym
from .types import OptionalType, SequenceType, TensorType, Type


def equal(a: Module, b: Module) -> bool:
    """Whether two modules are the same."""
    return difference(a, b) is None


def difference(a: Module, b: Module) -> str | None:
    """The first difference in words; None if the modules are equal."""
    return next(_Comparison().modules(a, b), None)


class _Comparison:
    """Walks two modules side by side and yields differences. Pairs unknown symbols as it meets them."""

    def __init__(self) -> None:
        self._there: dict[Sym, Sym] = {}
        self._back: dict[Sym, Sym] = {}
        self._values: dict[Value, Value] = {}

    def modules(self, a: Module, b: Module) -> Iterator[str]:
        yield from _plain("opset", a.opset, b.opset)
        yield from _plain("opsets", a.opsets, b.opsets)
        yield from _plain("metadata", a.meta, b.meta)
        yield from _plain("the names of constants", list(a.constants), list(b.constants))
        for x, y in zip(a.constants.values(), b.constants.values()):
            yield from self.definition(x, y)
            if x.constant is None or y.constant is None or not x.constant.same(y.constant):
                yield f"constant {x.name!r}: the elements differ"
        yield from _plain("the names of defaults", set(a.defaults), set(b.defaults))
        for name, constant in a.defaults.items():
            if name in b.defaults and not constant.same(b.defaults[name]):
                yield f"default {name!r}: the elements differ"
        yield from self.graphs(a.graph, b.graph)

    def graphs(self, a: Graph, b: Graph) -> Iterator[str]:
        where = f"graph {a.name!r}: "
        yield from _plain("the graph's name", a.name, b.name)
        yield from _plain(where + "doc", a.doc, b.doc)
        yield from _plain(where + "the number of inputs", len(a.inputs), len(b.inputs))
        for x, y in zip(a.inputs, b.inputs):
            yield from self.definition(x, y)
        for op, twin in zip_longest(a.ops, b.ops):
            if op is None or twin is None:
                yield f"{where}{op or twin!r} has no counterpart"
                return
            yield from self.ops(op, twin)
        yield from _plain(where + "the names of outputs", a.output_names, b.output_names)
        yield from _plain(where + "docs of outputs", _docs(a), _docs(b))
        yield from self.operands(a.ret, b.ret)

    def ops(self, a: Op, b: Op) -> Iterator[str]:
        where = f"{a!r}: "
        for field in ("kind", "name", "loc", "doc", "meta", "overload"):
            yield from _plain(where + field, getattr(a, field), getattr(b, field))
        yield from self.attributes(where, a.attrs, b.attrs)
        yield from self.operands(a, b)
        yield from _plain(where + "regions", list(a.regions), list(b.regions))
        for x, y in zip(a.regions.values(), b.regions.values()):
            yield from self.graphs(x, y)
        yield from _plain(where + "the number of results", len(a.results), len(b.results))
        for v, w in zip(a.results, b.results):
            yield from self.definition(v, w)

    def operands(self, a: Op, b: Op) -> Iterator[str]:
        yield from _plain(f"{a!r}: the number of operands", len(a.operands), len(b.operands))
        for slot, (x, y) in enumerate(zip(a.operands, b.operands)):
            if (self._values.get(x) if x is not None else None) is not y:
                yield f"{a!r}: operand {slot} is {x!r} against {y!r}"

    def attributes(self, where: str, a: Mapping[str, Attr], b: Mapping[str, Attr]) -> Iterator[str]:
        yield from _plain(where + "attributes", set(a), set(b))
        for name, x in a.items():
            if name in b and not self.attrs(x, b[name]):
                yield f"{where}attribute {name!r}: {x!r} against {b[name]!r}"

    def attrs(self, a: Attr, b: Attr) -> bool:
        if type(a) is not type(b):
            return False
        if isinstance(a, float) and isinstance(b, float):
            return struct.pack("d", a) == struct.pack("d", b) or (a != a and b != b)  # text has one word for NaN
        if isinstance(a, Constant) and isinstance(b, Constant):
            return a.same(b)
        if isinstance(a, TensorType | SequenceType | OptionalType) and not isinstance(b, int | str | bytes | tuple):
            return self.types(a, b)  # type: ignore[arg-type]
        if isinstance(a, tuple) and isinstance(b, tuple):
            return len(a) == len(b) and all(self.attrs(x, y) for x, y in zip(a, b))
        return bool(a == b)

    def definition(self, a: Value, b: Value) -> Iterator[str]:
        self._values[a] = b
        where = f"{a!r}: "
        yield from _plain(where + "name", a.name, b.name)
        yield from _plain(where + "doc", a.doc, b.doc)
        if not self.types(a.type, b.type):
            yield f"{where}type {a.type} against {b.type}"
        if not self.declared(a.declared, b.declared):
            yield f"{where}declared {a.declared} against {b.declared}"
        if not self.elements(a.dims, b.dims):
            yield f"{where}elements {a.dims} against {b.dims}"

    def declared(self, a: Type | None, b: Type | None) -> bool:
        return a is b if a is None or b is None else self.types(a, b)

    def types(self, a: Type, b: Type) -> bool:
        if isinstance(a, TensorType) and isinstance(b, TensorType):
            return a.dtype is b.dtype and self.elements(a.shape, b.shape)
        if isinstance(a, SequenceType | OptionalType) and isinstance(b, SequenceType | OptionalType):
            return type(a) is type(b) and self.types(a.element, b.element)
        return a == b

    def elements(self, a: tuple[Dim, ...] | None, b: tuple[Dim, ...] | None) -> bool:
        if a is None or b is None:
            return a is b
        return len(a) == len(b) and all(self.dims(x, y) for x, y in zip(a, b))

    def dims(self, a: Dim, b: Dim) -> bool:
        """Equal once the unknowns of both are paired; those that appear for the first time, oldest first."""
        if a == b and not dims.is_fresh(a):
            return True
        mine, theirs = _new(a, self._there), _new(b, self._back)
        if len(mine) != len(theirs):
            return False
        self._there.update(zip(mine, theirs))
        self._back.update(zip(theirs, mine))
        return dims.substitute(a, lambda s: self._there.get(s, s)) == b


def _new(dim: Dim, paired: Mapping[Sym, Sym]) -> list[Sym]:
    found = {s: n for s in dims.symbols(dim) if s not in paired and (n := dims.fresh_number(s)) is not None}
    return sorted(found, key=lambda s: found[s])


def _docs(graph: Graph) -> dict[str, str]:
    return {name: doc for name, doc in graph.output_docs.items() if doc and name in graph.output_names}


def _plain(what: str, a: object, b: object) -> Iterator[str]:
    if a != b:
        yield f"{what}: {a!r} against {b!r}"
