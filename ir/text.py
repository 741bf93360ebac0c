"""The text form of a module: canonical, deterministic, and read back by ir/parse.py.

    equal(parse_module(print_module(m), payloads(m)), m)

Constants are printed by name and type, never by value: printing a 10 GB model reads nothing. Attributes that are
tensors, and defaults of arguments, are small as a rule and printed in full; beyond 64 KiB they go by name too (see
`payloads`). Symbols that inference made up are numbered in order of appearance. docs/ir.md shows the grammar.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping

import numpy as np

from . import dims
from .constants import Constant
from .core import Attr, Constants, Floats, Graph, Ints, Loc, Meta, Module, Op, Strings, Types, Value, is_attr
from .dims import Dim, Div, Expr, Sym
from .dtypes import DType
from .types import SequenceType, TensorType, Type, UnrankedTensor, problem_of

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9_./]+")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*(?:::[A-Za-z0-9_.]+)*")
_MAX_READABLE = 16  # elements of a tensor printed as numbers; more are base64
_MAX_INLINE = 64 << 10  # bytes of a tensor printed at all; more go by name
_PLACEHOLDER = "\0?"  # names the numbered symbols while an expression is put in order


def print_module(module: Module, *, digests: bool = False) -> str:
    """The module as text. `digests` adds the SHA-256 of every constant (which reads them all)."""
    return "\n".join(_Printer(digests).module(module)) + "\n"


def print_op(op: Op) -> str:
    """One line for messages: results and operands with their types; bodies are left out. Prints broken ops too."""
    printer = _LenientPrinter()
    operands = ", ".join("none" if v is None else printer.typed(v) for v in op.operands)
    if op.is_terminator:
        return f"return {operands}".rstrip()
    results = ", ".join(printer.typed(v) for v in op.results)
    regions = "".join(f" region {_word(name)} {{...}}" for name in op.regions)
    return f"{results or '()'} = {_word(op.kind)}({operands}){''.join(printer.suffix(op))}{regions}"


def payloads(module: Module) -> dict[str, Constant]:
    """Every constant that the text names: the module's, and tensors of attributes and defaults too big to print."""
    found = {name: v.constant for name, v in module.constants.items() if v.constant is not None}
    for name, constant in module.defaults.items():
        if not _is_inline(constant):
            found[name] = constant
    for op in module.walk():
        for key, attr in op.attrs.items():
            for name, constant in attribute_constants(op, key, attr):
                if not _is_inline(constant):
                    found[name] = constant
    return found


def attribute_constants(op: Op, key: str, attr: Attr) -> Iterator[tuple[str, Constant]]:
    """The tensors in an attribute and the names they would go by."""
    base = f"{op.results[0].name if op.results else op.name}@{key}"
    if isinstance(attr, Constant):
        yield base, attr
    elif isinstance(attr, Constants):
        for index, constant in enumerate(attr):
            yield f"{base}.{index}", constant


def _is_inline(constant: Constant) -> bool:
    return constant.nbytes <= _MAX_INLINE


def quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _word(text: str) -> str:
    return text if _WORD.fullmatch(text) else quote(text)


def _ref(value: Value) -> str:
    if not value.name:
        return "_"  # an optional result that is left out
    return f"%{value.name}" if _NAME.fullmatch(value.name) else f"%{quote(value.name)}"


def _text(item: str | bytes) -> str:
    return quote(item) if isinstance(item, str) else f'x"{item.hex()}"'


class _Printer:
    def __init__(self, digests: bool = False) -> None:
        self._digests = digests
        self._numbers: dict[Sym, Sym] = {}
        self._dims: dict[Dim, str] = {}
        self._types: dict[Type, str] = {}

    # -- types ---------------------------------------------------------------------------------------------------

    def type(self, type: Type) -> str:
        found = self._types.get(type)
        if found is None:
            found = self._types[type] = self._type(type)
        return found

    def _type(self, type: Type) -> str:
        if isinstance(type, TensorType):
            return f"{type.dtype.short}{self.elements(type.shape)}"
        if isinstance(type, UnrankedTensor):
            return f"{type.dtype.short}[*]"
        return f"{'seq' if isinstance(type, SequenceType) else 'optional'}<{self.type(type.element)}>"

    def elements(self, sizes: tuple[Dim, ...]) -> str:
        return f"[{', '.join(self.dim(d) for d in sizes)}]"

    def dim(self, dim: Dim) -> str:
        if type(dim) is int:
            return str(dim)
        found = self._dims.get(dim)
        if found is None:
            found = self._dims[dim] = self._render(self._numbered(dim))
        return found

    def _numbered(self, dim: Dim) -> Dim:
        """The expression with unknowns numbered. Those that appear together for the first time: oldest first."""
        fresh = {s: n for s in dims.symbols(dim) if (n := dims.fresh_number(s)) is not None}
        for symbol in sorted(fresh, key=lambda s: fresh[s]):
            self._numbers.setdefault(symbol, Sym(f"{_PLACEHOLDER}{len(self._numbers)}"))
        return dims.substitute(dim, lambda s: self._numbers.get(s, s)) if fresh else dim

    def _render(self, dim: Dim) -> str:
        if isinstance(dim, int):
            return str(dim)
        if isinstance(dim, Sym):
            return dim.name[1:] if dim.name.startswith(_PLACEHOLDER) else repr(dim)
        if isinstance(dim, Div):
            return f"{dim.kind}({self._render(dim.numerator)}, {self._render(dim.denominator)})"
        return self._polynomial(dim)

    def _polynomial(self, dim: Expr) -> str:
        terms = []
        for monomial, coefficient in dim.terms:
            factors = [self._render(atom) for atom in monomial]
            terms.append("*".join(factors if factors and coefficient == 1 else [str(coefficient), *factors]))
        return " + ".join(terms)

    # -- values and ops ------------------------------------------------------------------------------------------

    def typed(self, value: Value) -> str:
        return f"{_ref(value)} : {self.type(value.type)}"

    def definition(self, value: Value) -> str:
        """A value where it is defined: name, type, known elements, declared type, documentation."""
        parts = [_ref(value), ":", self.type(value.type)]
        if value.dims is not None:
            parts += ["is", self.elements(value.dims)]
        if value.declared is not None:
            parts.append("declared")
            if value.declared != value.type:
                parts.append(self.type(value.declared))
        if value.doc:
            parts += ["doc", quote(value.doc)]
        return " ".join(parts)

    def op(self, op: Op, indent: str) -> Iterator[str]:
        results = ", ".join(self.definition(v) for v in op.results)
        operands = ", ".join("none" if v is None else _ref(v) for v in op.operands)
        yield f"{indent}{results or '()'} = {_word(op.kind)}({operands}){''.join(self.suffix(op))}"
        for name, region in op.regions.items():
            yield from self.graph(region, f"region {_word(name)} ", indent + "  ")

    def suffix(self, op: Op) -> Iterator[str]:
        if op.attrs:
            listed = (f"{_word(k)} = {self.attr(op, k, v)}" for k, v in sorted(op.attrs.items()))
            yield f" {{{', '.join(listed)}}}"
        if op.name:
            yield f" @{op.name}" if _NAME.fullmatch(op.name) else f" @{quote(op.name)}"
        if op.loc != Loc(op.name):
            yield f" loc({', '.join((quote(op.loc.origin), *map(_word, op.loc.passes)))})"
        if op.overload:
            yield f" overload {quote(op.overload)}"
        if op.meta:
            yield f" meta {{{', '.join(f'{quote(k)}: {quote(v)}' for k, v in sorted(op.meta.items()))}}}"
        if op.doc:
            yield f" doc {quote(op.doc)}"

    def attr(self, op: Op, key: str, attr: Attr) -> str:
        if isinstance(attr, Constant | Constants):
            listed = [self.tensor(constant, name) for name, constant in attribute_constants(op, key, attr)]
            return listed[0] if isinstance(attr, Constant) else self._list("tensors", listed)
        if isinstance(attr, int | float):
            return repr(attr)
        if isinstance(attr, str | bytes):
            return _text(attr)
        if isinstance(attr, Ints):
            return self._list("ints", list(map(repr, attr)))
        if isinstance(attr, Floats):
            return self._list("floats", list(map(repr, attr)))
        if isinstance(attr, Strings):
            return self._list("strings", list(map(_text, attr)))
        if isinstance(attr, Types):
            return self._list("types", [f"type {self.type(t)}" for t in attr])
        return f"type {self.type(attr)}"

    def _list(self, kind: str, items: list[str]) -> str:
        return f"[{', '.join(items)}]" if items else f"{kind}[]"

    def tensor(self, constant: Constant, name: str) -> str:
        """A constant by value: numbers if they are few, else base64 of the file form; by name if it is big."""
        head = f"tensor {self.type(constant.type)}"
        if not _is_inline(constant):
            return f"{head} named {quote(name)}"
        array = constant.array().reshape(-1)
        if constant.dtype is DType.STR:
            return f"{head} [{', '.join(_text(x if isinstance(x, bytes) else str(x)) for x in array)}]"
        if constant.elements > _MAX_READABLE or constant.dtype.kind == "complex":
            return f'{head} b64"{base64.b64encode(constant.tobytes()).decode()}"'
        numbers = array.astype(np.float64) if constant.dtype.is_float else array.astype(object)
        if constant.dtype.is_float and np.isnan(numbers).any():  # NaN has many bit patterns
            return f'{head} b64"{base64.b64encode(constant.tobytes()).decode()}"'
        spelled = (repr(float(x)) if constant.dtype.is_float else str(int(x)) for x in numbers)
        return f"{head} [{', '.join(spelled)}]"

    # -- graphs --------------------------------------------------------------------------------------------------

    def graph(self, graph: Graph, head: str, indent: str) -> Iterator[str]:
        inputs = ", ".join(self.definition(v) for v in graph.inputs)
        doc = f" doc {quote(graph.doc)}" if graph.doc else ""
        yield f"{indent}{head}{_word(graph.name)}({inputs}){doc} {{"
        for op in graph.ops:
            yield from self.op(op, indent + "  ")
        outputs = (self._output(graph, v, n) for v, n in zip(graph.outputs, graph.output_names))
        yield f"{indent}  return {', '.join(outputs)}".rstrip()
        yield f"{indent}}}"

    def _output(self, graph: Graph, value: Value, name: str) -> str:
        doc = graph.output_docs.get(name, "")
        return (
            _ref(value) + ("" if name == value.name else f" as {quote(name)}") + (f" doc {quote(doc)}" if doc else "")
        )

    def module(self, module: Module) -> Iterator[str]:
        yield f"format: {FORMAT}"
        yield f"opset: {module.opset}"
        yield from (f"opset {_word(d)}: {v}" for d, v in sorted(module.opsets.items()))
        yield from self._meta(module.meta)
        yield ""
        for value in module.constants.values():
            assert value.constant is not None
            digest = f" sha256 {quote(value.constant.digest())}" if self._digests else ""
            yield f"const {self.definition(value)}{digest}"
        for name, constant in sorted(module.defaults.items()):
            yield f"default {quote(name)} = {self.tensor(constant, name)}"
        if module.constants or module.defaults:
            yield ""
        yield from self.graph(module.graph, "graph ", "")

    def _meta(self, meta: Meta) -> Iterator[str]:
        for field in dataclasses.fields(meta):
            value = getattr(meta, field.name)
            if isinstance(value, Mapping):
                head = field.name
                yield from (f"{head} {quote(k)}: {quote(v)}" for k, v in sorted(value.items()))
            elif value:
                yield f"meta {field.name}: {quote(value) if isinstance(value, str) else value}"


class _LenientPrinter(_Printer):
    """For messages about modules that do not hold together: what is no type or attribute is shown as it is."""

    def type(self, type: Type) -> str:
        return repr(type) if problem_of(type) else super().type(type)

    def attr(self, op: Op, key: str, attr: Attr) -> str:
        return super().attr(op, key, attr) if is_attr(attr) else repr(attr)
