"""The verifier: named invariants, checked after every pass. A failure says what, where, what was expected, and shows
the op between its neighbours.

    verify(module)      # returns, or raises MlcError(VERIFY) for the first invariant that does not hold

`INVARIANTS` lists them in the order in which they rely on each other: structure first, then values and names
(ir/verify_values.py), then what operators demand (ir/verify_ops.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from . import verify_ops, verify_values
from .core import Graph, Module, Op, Use, Value
from .errors import Code, Diagnostic, MlcError
from .survey import Fault, Survey
from .text import print_op

_SHOWN = 5  # faults of one invariant that are reported

Invariant = Callable[[Survey], Iterator[Fault]]


def verify(module: Module) -> None:
    """Check every invariant. Errors: VERIFY, with up to five faults of the first invariant that does not hold."""
    survey = Survey(module)
    for name, check in INVARIANTS:
        faults = list(islice(check(survey), _SHOWN))
        if faults:
            raise MlcError([_diagnostic(name, fault) for fault in faults])


def _diagnostic(name: str, fault: Fault) -> Diagnostic:
    op = fault.op
    return Diagnostic(
        Code.VERIFY,
        f"{name}: {fault.message}",
        where=fault.where or (str(op.loc) if op is not None else "the module"),
        help=f"expected {fault.expected}",
        note=_neighbourhood(op) if op is not None else "",
    )


def _neighbourhood(op: Op) -> str:
    """The op and the ops before and after it, one a line."""
    before, after = op._prev, op._next
    if op.is_terminator and op.parent is not None:
        before, after = op.parent._last, None
    rows = [("   ", before), ("-> ", op), ("   ", after)]
    return "in\n" + "\n".join(f"      {mark}{print_op(o)}" for mark, o in rows if o is not None)


def linked_graphs(survey: Survey) -> Iterator[Fault]:
    """Ops know their graph and their neighbours; bodies know their owner."""
    for graph in survey.graphs:
        previous: Op | None = None
        for op in graph.ops:
            if op._prev is not previous:
                yield Fault("the links between neighbouring ops disagree", op, "each op to be linked both ways")
            previous = op
        if graph._last is not previous:
            yield Fault(f"the last op of graph {graph.name!r} is not the last in its list", previous, "it to be last")
        if graph.ret.parent is not graph or not graph.ret.is_terminator or graph.ret.results:
            yield Fault(f"graph {graph.name!r} has a broken terminator", graph.ret, "a terminator of its own")
    for op in survey.ops:
        if op.is_terminator and op.parent is not None and op is not op.parent.ret:
            yield Fault("a terminator stands among the ops", op, "one terminator at the end of a graph")
        for name, region in op.regions.items():
            if region.owner is not op:
                yield Fault(f"body {name!r} belongs to {region.owner!r}", op, "a body to know the op that owns it")
    if survey.module.graph.owner is not None:
        yield Fault("the main graph is the body of an op", survey.module.graph.owner, "a main graph without owner")


def single_definition(survey: Survey) -> Iterator[Fault]:
    """Every value is defined once and knows where."""
    seen: set[Value] = set()
    for value, op, graph, index in _definitions(survey):
        if value in seen:
            yield Fault(f"value {value.name!r} is defined twice", op, "one definition of every value", _in(graph))
        seen.add(value)
        knows = (
            value.op is op and value.graph is graph and (value.constant is not None) == (op is None and graph is None)
        )
        if not knows or (value.constant is None and value.index != index):
            expected = "a value to know the op, graph or constant that defines it"
            yield Fault(f"value {value.name!r} does not know its definition", op, expected, _in(graph))


def _definitions(survey: Survey) -> Iterator[tuple[Value, Op | None, Graph | None, int]]:
    for value in survey.module.constants.values():
        yield value, None, None, 0
    for graph in survey.graphs:
        for index, value in enumerate(graph.inputs):
            yield value, None, graph, index
    for op in survey.ops:
        for index, value in enumerate(op.results):
            yield value, op, None, index


def _in(graph: Graph | None) -> str:
    return "" if graph is None else f"graph {graph.name!r}"


def defined_before_use(survey: Survey) -> Iterator[Fault]:
    """Operands are constants of the module, or defined earlier in the graph or in one around it."""
    yield from _visible(survey.module.graph, set(survey.module.constants.values()))


def _visible(graph: Graph, scope: set[Value]) -> Iterator[Fault]:
    own = list(graph.inputs)
    scope.update(own)
    for op in (*graph.ops, graph.ret):
        for slot, value in enumerate(op._operands):
            if value is not None and value not in scope and value.constant is None:
                yield Fault(_unseen(op, slot, value), op, "operands defined earlier in this graph or one around it")
        for region in op.regions.values():
            yield from _visible(region, scope)
        own += op.results
        scope.update(op.results)
    scope.difference_update(own)


def _unseen(op: Op, slot: int, value: Value) -> str:
    what = f"operand {slot} of {op.kind}, {value.name!r}, "
    if value.op is not None and value.op.parent is None:
        return what + "is a result of an op that was erased"
    return what + "is not defined before this op"


def use_lists(survey: Survey) -> Iterator[Fault]:
    """Operands and use lists agree both ways, within this module."""
    ops = set(survey.ops)
    for op in survey.ops:
        for slot, value in enumerate(op._operands):
            if value is not None and Use(op, slot) not in value._uses:
                yield Fault(f"{value.name!r} does not know its use as operand {slot}", op, "operands in the use lists")
    for value in survey.values:
        for use in value._uses:
            if use.op not in ops:
                expected = "values used within their own module, by ops that are in it"
                yield Fault(f"{value.name!r} is used by {use.op!r}, which is not in this module", value.op, expected)
            elif use.op.operand(use.slot) is not value:
                expected = "use lists that say what the operands say"
                yield Fault(f"{value.name!r} claims a use as operand {use.slot} that is not there", use.op, expected)


INVARIANTS: tuple[tuple[str, Invariant], ...] = (
    ("linked-graphs", linked_graphs),
    ("single-definition", single_definition),
    ("defined-before-use", defined_before_use),
    ("use-lists", use_lists),
    *verify_values.INVARIANTS,
    *verify_ops.INVARIANTS,
)
