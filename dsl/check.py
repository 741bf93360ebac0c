"""The checker: names, kinds, units, ranges, duplicates and order of an expanded recipe, all mistakes in one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..ir.errors import Code, Diagnostic
from . import syntax as ast
from .bounds import check_goal, check_loop_bound
from .names import Names
from .nearmiss import argument_advice, unknown_advice
from .print import expression
from .quantity import unknown_unit
from .selectors import check_selector
from .signature import Catalog, Parameter, Signature
from .values import MisfitError, check_range, convert, members, near, what


def check_program(
    program: ast.Program, names: Names, catalog: Catalog, *, opaque: frozenset[str] = frozenset()
) -> list[Diagnostic]:
    """Every mistake of an expanded program. `opaque` are names that may stand for anything (parameters)."""
    worker = _Checker(names, catalog, opaque)
    found = [*_units(program), *worker.steps(program.body), *check_goal(program.goal, names)]
    found += worker.order(list(flat(program.body)))
    return unique(found)


def check_statement(statement: ast.Binding | ast.Compile | ast.Use | ast.Let, names: Names) -> list[Diagnostic]:
    """Mistakes of a statement that holds no recipe: units, duplicate arguments, ranges, selectors, targets."""
    found = _units(statement)
    for node in ast.walk(statement):
        if isinstance(node, ast.Call):
            found += _duplicates(node)
        elif isinstance(node, ast.Range):
            found += check_range(node)
        elif isinstance(node, ast.On | ast.Except):
            found += check_selector(node.selector) + _kind_names(node.selector, names)
    if isinstance(statement, ast.Compile):
        known = [name for name, b in names.bindings.items() if b.kind == "target"]
        found += [
            Diagnostic(
                Code.BAD_TARGET,
                f"unknown target '{name}'",
                statement.span,
                help=near(name, known) or f"bind it with: target {name} = ort(cpu)",
            )
            for name in statement.targets
            if name not in known and name not in names.lost
        ]
    return unique(found)


def flat(body: ast.Expr) -> Iterator[ast.Ref | ast.Call]:
    """The steps of an expression in the order they run, choices left out; those of a loop twice."""
    match body:
        case ast.Chain(steps):
            for step in steps:
                yield from flat(step)
        case ast.Scoped(inner, modifiers):
            yield from flat(inner)
            if any(isinstance(m, ast.Until | ast.While) for m in modifiers):
                yield from flat(inner)
        case ast.Ref() | ast.Call():
            yield body


def unique(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Without repetitions: a body that is used twice tells its mistakes once."""
    seen: dict[object, Diagnostic] = {}
    for each in diagnostics:
        where = (each.span.name, each.span.start, each.span.end) if each.span is not None else None
        seen.setdefault((each.code, each.message, where), each)
    return sorted(seen.values(), key=lambda d: (d.span is None, d.span.start if d.span is not None else 0))


class _Checker:
    def __init__(self, names: Names, catalog: Catalog, opaque: frozenset[str]) -> None:
        self.names = names
        self.catalog = catalog
        self.opaque = opaque | names.lost

    def steps(self, node: ast.Expr) -> list[Diagnostic]:
        match node:
            case ast.Chain(parts) | ast.Choice(parts):
                return [d for part in parts for d in self.steps(part)]
            case ast.Scoped(body, modifiers):
                return self.steps(body) + [d for m in modifiers for d in self.modifier(m)]
            case ast.Ref(name):
                return self.step(ast.Call(name, span=node.span, name_span=node.span))
            case ast.Call():
                return self.step(node)
        return [
            Diagnostic(
                Code.WRONG_KIND,
                "a recipe is made of steps",
                node.span,
                label=f"this is {what(node)}, not a step",
                help=_as_steps(node) or "values are given to steps as arguments: prune(50%)",
            )
        ]

    def modifier(self, node: ast.Modifier) -> list[Diagnostic]:
        match node:
            case ast.On(selector) | ast.Except(selector):
                return self.selector(selector)
            case ast.Until(bound) | ast.While(bound):
                return check_loop_bound(bound, self.names)
        return []

    def selector(self, node: ast.Selector) -> list[Diagnostic]:
        parts = list(ast.walk(node))
        if any(isinstance(n, ast.Test) and n.value in self.opaque for n in parts):
            return []  # a parameter without a value, which is checked where it gets one
        return check_selector(node) + _kind_names(node, self.names, self.opaque)

    def step(self, call: ast.Call) -> list[Diagnostic]:
        name = call.name
        if name in self.opaque or self.names.is_lost(name):
            return _duplicates(call)
        if name not in self.catalog.names:
            return [] if name in self.names.steps else [self.unknown(call)]
        signature = self.catalog.find(name)
        found = [d for argument in call.arguments for d in self.argument(signature, argument)]
        given = {argument.name for argument in call.arguments}
        found += [
            Diagnostic(
                Code.MISSING_ARGUMENT,
                f"'{name}' needs the argument '{p.name}'",
                call.span,
                help=p.doc,
                note=str(signature),
            )
            for p in signature.parameters.values()
            if not p.optional and p.name not in given
        ]
        return found

    def unknown(self, call: ast.Call) -> Diagnostic:
        span = call.name_span or call.span
        kind = self.names.kind(call.name)
        if kind is not None:
            article = "an" if kind[0] in "AEIO" else "a"
            return Diagnostic(
                Code.WRONG_KIND,
                f"cannot chain {article} {kind} with steps",
                span,
                label=f"this is {article} {kind}",
                help=f"'+' joins steps; give it to a step as an argument: step({kind.lower()}={call.name})",
            )
        return Diagnostic(
            Code.UNKNOWN_STEP,
            f"unknown step '{call.name}'",
            span,
            label="no pass or recipe of this name",
            help=unknown_advice(call.name, (*self.catalog.names, *self.names.steps), self.names),
            note="'mlc passes' lists what there is",
        )

    def argument(self, signature: Signature, argument: ast.Argument) -> list[Diagnostic]:
        parameter = signature.parameters.get(argument.name or "")
        if parameter is None:
            return [
                Diagnostic(
                    Code.UNKNOWN_ARGUMENT,
                    f"'{signature.name}' takes no argument '{argument.name}'",
                    argument.span,
                    help=argument_advice(signature.name, argument.name or "", signature.parameters) or "leave it out",
                    note=str(signature),
                )
            ]
        ranges = [d for n in ast.walk(argument.value) if isinstance(n, ast.Range) for d in check_range(n)]
        return ranges + [d for node in members(argument.value) for d in self.value(signature, parameter, node)]

    def value(self, signature: Signature, parameter: Parameter, node: ast.Expr) -> list[Diagnostic]:
        if any(isinstance(n, ast.Ref) and n.name in self.opaque for n in ast.walk(node)):
            return []
        if any(isinstance(n, ast.Number) and unknown_unit(n) for n in ast.walk(node)):
            return []  # reported already, and nothing follows from it
        try:
            value = convert(signature.name, parameter, node)
        except MisfitError as e:
            return [e.diagnostic]
        if parameter.unit == "data" and self.names.kind(str(value)) != "Data":
            return [
                Diagnostic(
                    Code.NO_DATA,
                    f"'{value}' is not bound to data",
                    node.span,
                    help=f'leave it out and give --data, or bind it in a file: data {value} = npz("samples.npz")',
                )
            ]
        return []

    def order(self, steps: list[ast.Ref | ast.Call]) -> list[Diagnostic]:
        """Steps that must come after another one of the recipe, but come before it."""
        last = {step.name: place for place, step in enumerate(steps)}
        first = {step.name: place for place, step in reversed(list(enumerate(steps)))}
        found = []
        for place, step in enumerate(steps):
            for name in self.constrained(step):
                if last.get(name, -1) <= place:
                    continue
                advice = f"write {name} + {step.name}"
                if first[name] < place:
                    advice = f"repeat each step by itself: {name} times N + {step.name}"
                message = f"'{step.name}' must come after '{name}', and '{name}' comes later"
                found.append(Diagnostic(Code.ORDER, message, step.span, help=advice))
        return found

    def constrained(self, step: ast.Ref | ast.Call) -> tuple[str, ...]:
        return self.catalog.find(step.name).after if step.name in self.catalog.names else ()


def _as_steps(node: ast.Expr) -> str:
    """Advice for steps in brackets or quotes."""
    if isinstance(node, ast.ListOf) and node.items:
        return f"steps are joined by '+': {expression(ast.chain(node.items))}"
    return f"write {node.value} without quotes" if isinstance(node, ast.String) and node.value.isidentifier() else ""


def _units(node: ast.Node) -> list[Diagnostic]:
    found = (unknown_unit(n) for n in ast.walk(node) if isinstance(n, ast.Number))
    return [d for d in found if d is not None]


def _duplicates(call: ast.Call) -> list[Diagnostic]:
    seen: set[str] = set()
    found = []
    for argument in call.arguments:
        if argument.name is None:
            continue
        if argument.name in seen:
            message = f"the argument '{argument.name}' is given twice"
            found.append(Diagnostic(Code.DUPLICATE, message, argument.span, help="keep one of them"))
        seen.add(argument.name)
    return found


def _kind_names(selector: ast.Selector, names: Names, opaque: frozenset[str] = frozenset()) -> list[Diagnostic]:
    """Operator kinds start with a capital or carry their domain; another name is a mistyped `let`."""
    return [
        Diagnostic(
            Code.BAD_SELECTOR,
            f"'{node.name}' is neither an operator kind nor bound by 'let'",
            node.span,
            help=near(node.name, [*names.lets, *_COMMON_KINDS]) or f'to select by name, quote it: "{node.name}"',
        )
        for node in ast.walk(selector)
        if isinstance(node, ast.KindName)
        and (names.through_alias(node.name) or not (node.name[0].isupper() or "." in node.name))
        and node.name not in names.lets
        and node.name not in opaque
        and not names.is_lost(node.name)
    ]


_COMMON_KINDS = (
    "Conv",
    "Gemm",
    "MatMul",
    "Gather",
    "LayerNormalization",
    "BatchNormalization",
    "LSTM",
    "GRU",
    "Softmax",
)
