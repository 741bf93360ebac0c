"""Invariants of operators: attributes, bodies, quantization parameters, and types as inference sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from . import dims
from .core import TERMINATOR, Graph, Op, Value, is_attr
from .errors import MlcError
from .survey import Fault, Survey
from .types import TensorType, Type, UnrankedTensor, compatible


def attributes(survey: Survey) -> Iterator[Fault]:
    """Attributes are plain immutable data of the kinds in `Attr` (a bool or a numpy number is not), under names that
    the operator's schema has."""
    from .onnx_attrs import attribute_names

    module = survey.module
    for op in survey.ops:
        known = attribute_names(op, module.opset, module.opsets) if op._attrs else None
        strange = sorted(op._attrs.keys() - known) if known is not None else []
        if strange:
            yield Fault(f"{op.kind} has no attribute {strange[0]!r}", op, f"one of {', '.join(sorted(known or ()))}")
        for name, attr in op._attrs.items():
            if not name or not is_attr(attr):
                kind = attr.__class__.__name__
                message = f"attribute {name!r} of {op.kind} is {attr!r} ({kind})"
                yield Fault(message, op, "int, float, str, bytes, Constant, a type, Ints, Floats, Strings, ...")


def mlc_operators(survey: Survey) -> Iterator[Fault]:
    """Operators of the domain `mlc` are those of the operator table."""
    from .ops.table import known

    ours: set[str] | None = None
    for op in survey.ops:
        if op.kind.startswith("mlc::") and op.kind != TERMINATOR:
            ours = {row.kind for row in known() if row.kind.startswith("mlc::")} if ours is None else ours
            if op.kind not in ours:
                yield Fault(f"operator {op.kind} is not known", op, f"one of {', '.join(sorted(ours)) or 'none'}")


# -- bodies ----------------------------------------------------------------------------------------------------------


def bodies(survey: Survey) -> Iterator[Fault]:
    """If, Loop and Scan have the bodies they need, which take and yield what the operator passes and returns."""
    for op in survey.ops:
        check = _BODIES.get(op.kind)
        if check is not None:
            yield from check(op)


def _has(op: Op, names: Sequence[str]) -> Iterator[Fault]:
    if sorted(op.regions) != sorted(names):
        given = ", ".join(op.regions) or "no bodies"
        yield Fault(f"{op.kind} has {given}", op, f"the bodies {', '.join(names)}")


def _counts(op: Op, name: str, takes: int, yields: int) -> Iterator[Fault]:
    body = op.regions[name]
    found = (len(body.inputs), len(body.ret._operands))
    if found != (takes, yields):
        message = f"body {name!r} of {op.kind} takes {found[0]} values and yields {found[1]}"
        yield Fault(message, op, f"a body that takes {takes} and yields {yields}")


def _if(op: Op) -> Iterator[Fault]:
    branches = ("then_branch", "else_branch")
    yield from (missing := list(_has(op, branches)))
    for name in () if missing else branches:
        yield from (wrong := list(_counts(op, name, 0, len(op.results))))
        yield from () if wrong or _is_constant(op.operand(0)) else _yields(op, op.regions[name], op.results, 0)


def _is_constant(value: Value | None) -> bool:
    """Whether an If is decided: then its results are those of one branch."""
    return value is not None and value.dims is not None and len(value.dims) == 1 and isinstance(value.dims[0], int)


def _loop(op: Op) -> Iterator[Fault]:
    carried = len(op.operands) - 2
    yield from (missing := list(_has(op, ("body",))))
    if missing:
        return
    if carried < 0 or len(op.results) < carried:
        message = f"Loop has {len(op.operands)} operands and {len(op.results)} results"
        yield Fault(message, op, "a trip count, a condition, and a result for every carried value")
        return
    yield from (wrong := list(_counts(op, "body", carried + 2, len(op.results) + 1)))
    if not wrong:
        yield from _takes(op, op.regions["body"].inputs[2:], op.operands[2:])
        yield from _yields(op, op.regions["body"], op.results[:carried], 1)


def _scan(op: Op) -> Iterator[Fault]:
    yield from (missing := list(_has(op, ("body",))))
    scanned = op.attrs.get("num_scan_inputs")
    states = len(op.operands) - scanned if isinstance(scanned, int) else -1
    if missing:
        return
    if states < 0 or len(op.results) < states:
        message = f"Scan with num_scan_inputs {scanned!r} has {len(op.operands)} operands and {len(op.results)} results"
        yield Fault(message, op, "at least as many operands, and a result for every state")
        return
    yield from (wrong := list(_counts(op, "body", len(op.operands), len(op.results))))
    if not wrong:
        yield from _takes(op, op.regions["body"].inputs[:states], op.operands[:states])
        yield from _yields(op, op.regions["body"], op.results[:states], 0)


def _takes(op: Op, formals: Sequence[Value], actuals: Sequence[Value | None]) -> Iterator[Fault]:
    for formal, actual in zip(formals, actuals):
        if actual is not None and not compatible(formal.type, actual.type):
            message = f"the body of {op.kind} takes {formal!r}, but is given {actual!r}"
            yield Fault(message, op, "types that agree")


def _yields(op: Op, body: Graph, results: Sequence[Value], skip: int) -> Iterator[Fault]:
    for result, inner in zip(results, body.outputs[skip:]):
        if not compatible(result.type, inner.type):
            message = f"body {body.name!r} yields {inner!r} for {result!r} of {op.kind}"
            yield Fault(message, op, "results that cover what the body yields")


_BODIES: dict[str, Callable[[Op], Iterator[Fault]]] = {"If": _if, "Loop": _loop, "Scan": _scan}


# -- quantization ----------------------------------------------------------------------------------------------------


def quantization(survey: Survey) -> Iterator[Fault]:
    """Scales and zero points of QuantizeLinear and DequantizeLinear fit the axis or blocks, and the storage type."""
    for op in survey.ops:
        if op.kind in ("QuantizeLinear", "DequantizeLinear"):
            yield from _parameters(op)


def _parameters(op: Op) -> Iterator[Fault]:
    x, scale, zero = op.operand(0), op.operand(1), op.operand(2)
    if x is None or scale is None or not op.results:
        yield Fault(f"{op.kind} lacks an operand or a result", op, "x, scale and a result")
        return
    if zero is not None:
        stored = op.result if op.kind == "QuantizeLinear" else x
        pair = (zero.type, stored.type)
        if all(isinstance(t, TensorType | UnrankedTensor) for t in pair) and pair[0].dtype is not pair[1].dtype:  # type: ignore[union-attr]
            yield Fault(f"the zero point is {zero.type}, but the storage is {stored.type}", op, "one element type")
        if not _same_shape(zero.type, scale.type):
            yield Fault(f"the zero point is {zero.type}, but the scale is {scale.type}", op, "one shape")
    if isinstance(x.type, TensorType) and isinstance(scale.type, TensorType):
        problem, expected = _scale_problem(op, x.type, scale.type)
        if problem:
            yield Fault(problem, op, expected)


def _same_shape(a: Type, b: Type) -> bool:
    if not isinstance(a, TensorType) or not isinstance(b, TensorType):
        return True
    if a.shape in ((), (1,)) and b.shape in ((), (1,)):
        return True  # one number for the whole tensor, in either form
    return a.rank == b.rank and all(dims.unify(x, y) is not None for x, y in zip(a.shape, b.shape))


def _scale_problem(op: Op, x: TensorType, scale: TensorType) -> tuple[str, str]:
    axis, block = op.attrs.get("axis", 1), op.attrs.get("block_size", 0)
    assert isinstance(axis, int)
    assert isinstance(block, int)
    given = f"the scale is {scale} for {x} with axis {axis} and block size {block}"
    if not block and (scale.rank == 0 or scale.shape == (1,)):
        return "", ""
    if not -x.rank <= axis < x.rank:
        return given, f"an axis within rank {x.rank}"
    axis %= x.rank
    if not block:
        wanted: tuple[dims.Dim, ...] = (x.shape[axis],)
    else:
        wanted = (*x.shape[:axis], dims.ceildiv(x.shape[axis], block), *x.shape[axis + 1 :])
    fits = scale.rank == len(wanted) and all(dims.unify(a, b) is not None for a, b in zip(scale.shape, wanted))
    return ("", "") if fits else (given, f"a scale of shape {list(wanted)}")


# -- types -----------------------------------------------------------------------------------------------------------


def result_types(survey: Survey) -> Iterator[Fault]:
    """The type of a result does not contradict what inference says of it. (Bodies are compared by `bodies`.)"""
    from .infer import infer_op

    for op in survey.ops:
        if op.kind in _BODIES or not op.results:
            continue
        try:
            found = infer_op(op, survey.module, require=False)
        except MlcError as problem:
            yield Fault(problem.diagnostics[0].message, op, "operands that fit the operator")
            continue
        for value, inferred in zip(op.results, found):
            if value.name and not compatible(value.type, inferred.type):
                message = f"result {value.name!r} of {op.kind} is typed {value.type}"
                yield Fault(message, op, f"{inferred.type}, which follows from the operands")


INVARIANTS: tuple[tuple[str, Callable[[Survey], Iterator[Fault]]], ...] = (
    ("attributes", attributes),
    ("mlc-operators", mlc_operators),
    ("quantization", quantization),
    ("result-types", result_types),
    ("bodies", bodies),
)
