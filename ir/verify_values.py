"""Invariants of values: types, constants, outputs, names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .constants import ArrayPayload, FilePayload, PackedPayload
from .core import Value
from .dims import Dim, is_dim
from .survey import Fault, Survey
from .types import TensorType, Type, UnrankedTensor, compatible, problem_of

_COUNTING = ("int", "uint", "bool", "float")  # a size may be cast to float on its way
_MAX_ELEMENTS = 64  # of a tensor whose elements are known


def typed_values(survey: Survey) -> Iterator[Fault]:
    """Every value has a well-formed type, and known elements that fit it."""
    for value in survey.values:
        problem = problem_of(value.type)
        if problem:
            yield Fault(f"value {value.name!r} has {problem}", value.op, "a type with sizes >= 0", _where(value))
        elif value.dims is not None:
            problem = _elements_problem(value.type, value.dims)
            if problem:
                expected = f"known elements only of tensors of numbers of rank <= 1 with <= {_MAX_ELEMENTS} elements"
                yield Fault(f"value {value.name!r} {problem}", value.op, expected, _where(value))


def _where(value: Value) -> str:
    return str(value.op.loc) if value.op is not None else f"value {value.name!r}"


def _elements_problem(type: Type, elements: tuple[Dim, ...]) -> str:
    if not isinstance(type, TensorType):
        return "" if isinstance(type, UnrankedTensor) else f"of type {type} has known elements"
    if not all(map(is_dim, elements)):
        return f"has elements {elements!r} that are no sizes"
    if type.rank > 1 or type.dtype.kind not in _COUNTING or len(elements) > _MAX_ELEMENTS:
        return f"of type {type} has {len(elements)} known elements"
    count = type.shape[0] if type.shape else 1
    if isinstance(count, int) and count != len(elements):
        return f"of type {type} has {len(elements)} known elements"
    return ""


def constants(survey: Survey) -> Iterator[Fault]:
    """Constants are filed under their name, have their payload's type, and serve this module only."""
    for name, value in survey.module.constants.items():
        constant, where = value.constant, f"constant {name!r}"
        if constant is None or name != value.name:
            yield Fault(f"{name!r} is no constant of that name", None, "constants under their own names", where)
            continue
        if value.type != constant.type:
            message = f"constant {name!r} is typed {value.type}, but is {constant.type}"
            yield Fault(message, None, "a constant's value to have its type", where)
        payload = constant.payload
        if isinstance(payload, ArrayPayload):
            held: tuple[object, ...] = (payload.array().dtype, payload.array().shape)
            agrees = held == (constant.dtype.numpy, constant.shape)
        elif isinstance(payload, FilePayload | PackedPayload):
            held = (payload.dtype, payload.shape)
            agrees = held == (constant.dtype, constant.shape)
        else:
            continue  # other kinds are made from the type itself, and looking would read them
        if not agrees:
            message = f"constant {name!r} is {constant.type}, but its elements are {held[0]!r} of shape {held[1]}"
            yield Fault(message, None, "elements of the type of their constant", where)


def no_orphan_constants(survey: Survey) -> Iterator[Fault]:
    """A constant that is read belongs to this module."""
    for op in survey.ops:
        for slot, value in enumerate(op._operands):
            if value is None or value.constant is None:
                continue
            if survey.module.constants.get(value.name) is not value:
                message = f"operand {slot} of {op.kind}, {value.name!r}, is no constant of this module"
                yield Fault(message, op, "constants that the module lists")


def outputs(survey: Survey) -> Iterator[Fault]:
    """Every output is a value and has a name; the main graph's names differ, and one that an input has is the input."""
    for graph in survey.graphs:
        where = f"graph {graph.name!r}"
        if None in graph.ret._operands:
            yield Fault("an output is left out", graph.ret, "every output to be a value", where)
        if len(graph.ret._operands) != len(graph.output_names):
            message = f"{len(graph.ret._operands)} outputs have {len(graph.output_names)} names"
            yield Fault(message, graph.ret, "one name for each output", where)
    names = survey.module.graph.output_names
    for name in {n: None for n in names if names.count(n) > 1 or not n}:
        message = f"output name {name!r} is given to several outputs" if name else "an output has no name"
        yield Fault(message, survey.module.graph.ret, "outputs with names of their own")
    inputs = {v.name: v for v in survey.module.graph.inputs}
    for name, value in zip(names, survey.module.graph.outputs):
        if inputs.get(name, value) is not value:
            message = f"output {name!r} has the name of an input, but is {value.name!r}"
            yield Fault(message, survey.module.graph.ret, "that input, or another name")


def defaults(survey: Survey) -> Iterator[Fault]:
    """Defaults belong to inputs of the main graph and fit them."""
    inputs = {v.name: v for v in survey.module.graph.inputs}
    for name, constant in survey.module.defaults.items():
        if name not in inputs:
            yield Fault(f"there is a default for {name!r}, which is no input", None, "defaults of inputs only")
        elif not compatible(inputs[name].type, constant.type):
            message = f"input {name!r} is {inputs[name].type}, but its default is {constant.type}"
            yield Fault(message, None, "a default that fits its input", f"input {name!r}")


def value_names(survey: Survey) -> Iterator[Fault]:
    """Values have names, each its own. Only an optional result that is left out has none, and nobody reads it."""
    seen: set[str] = set()
    for value in survey.values:
        if not value.name:
            if value.op is None or value._uses:
                yield Fault("a value has no name", value.op, "every value that can be read to have a name")
        elif value.name in seen:
            yield Fault(f"two values are called {value.name!r}", value.op, "unique names of values", _where(value))
        seen.add(value.name)


def node_names(survey: Survey) -> Iterator[Fault]:
    """No two nodes have one name (runtimes refuse that)."""
    seen: set[str] = set()
    for op in survey.ops:
        if op.name and op.name in seen:
            yield Fault(f"two nodes are called {op.name!r}", op, "unique names of nodes")
        seen.add(op.name)


INVARIANTS: tuple[tuple[str, Callable[[Survey], Iterator[Fault]]], ...] = (
    ("typed-values", typed_values),
    ("constants", constants),
    ("no-orphan-constants", no_orphan_constants),
    ("outputs", outputs),
    ("defaults", defaults),
    ("value-names", value_names),
    ("node-names", node_names),
)
