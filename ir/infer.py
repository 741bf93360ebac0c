"""Type and shape inference: what the results of an op are, from its operands.

An operator's own rule (ir/ops/table.py) comes first: it keeps dimension expressions and the elements of small
integer tensors. Where there is none, or an operand has no known rank, ONNX's inference of one node answers. Bodies
of If, Loop and Scan are inferred with the types of what flows into them (ir/infer_regions.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from . import dims as _dims
from . import types
from .constants import Constant
from .core import Graph, Module, Op, Value
from .dims import Dim, Sym
from .errors import Code, error
from .ops.opdef import Infer, Inferred
from .types import TensorType, Type, UnrankedTensor

MAX_DIMS = 64  # the longest integer tensor whose elements are tracked


def constant_dims(constant: Constant) -> tuple[Dim, ...] | None:
    """The elements of an integer or boolean constant of rank <= 1 and <= 64 elements; None for others."""
    if constant.dtype.kind not in ("int", "uint", "bool") or constant.type.rank > 1 or constant.elements > MAX_DIMS:
        return None
    return tuple(int(x) for x in constant.array().reshape(-1))


def infer_op(op: Op, module: Module, *, require: bool = True) -> list[Inferred]:
    """Types (and elements, for small integer tensors) of an op's results, from what its operands are.

    Values inside the op's regions are typed on the way. For an operator nobody knows, `require` raises
    UNSUPPORTED_MODEL; otherwise the results keep the types they have. Errors: BROKEN_MODEL for operands that do not
    fit the operator.
    """
    from .infer_regions import RULES, infer_regions
    from .ops.table import lookup

    if not op.results:
        return []
    if op.kind in RULES:
        return infer_regions(op, module)
    found = _by_rule(op, lookup(op.kind).infer)
    if found is None:
        return _default(op, module, require=require)
    _check_count(op, found)
    return found[: len(op.results)]


def _by_rule(op: Op, rule: Infer | None) -> list[Inferred] | None:
    """What the operator's own rule says; None without a rule, or when an operand has no rank (ONNX's inference then
    says what can still be said)."""
    from .ops.access import Unranked

    try:
        return None if rule is None else list(rule(op))
    except Unranked:
        return None


def _check_count(op: Op, found: Sequence[Inferred]) -> None:
    if len(found) < len(op.results):
        message = f"{op.kind} has {len(op.results)} results, but the operator has {len(found)} at most"
        raise error(Code.BROKEN_MODEL, message, where=str(op.loc), help="remove the surplus outputs")


def _default(op: Op, module: Module, *, require: bool) -> list[Inferred]:
    from .infer_onnx import infer_with_onnx

    found = infer_with_onnx(op, module)
    if found is not None and all(t is not None for t in found):
        return [Inferred(t) for t in found if t is not None]
    if require:
        raise error(
            Code.UNSUPPORTED_MODEL,
            f"the result types of {op.kind} cannot be inferred",
            where=str(op.loc),
            help="give the result types explicitly; the operator is unknown, or needs ranks that are not known",
        )
    known = found or [None] * len(op.results)
    return [Inferred(value.type if t is None else t) for value, t in zip(op.results, known)]


def infer_module(module: Module, *, keep: bool = True) -> None:
    """Infer every value of the module in program order and write `type` and `dims` on the results.

    With `keep`, what a value's type says already stays wherever inference knows less; where both know and differ, the
    computed shape wins. Errors: BROKEN_MODEL when element types or ranks contradict each other, or operands do not
    fit an operator.
    """
    for value in module.constants.values():
        assert value.constant is not None
        if value.dims is None:
            value.dims = constant_dims(value.constant)
    infer_graph(module.graph, module, keep=keep)


def infer_graph(graph: Graph, module: Module, *, keep: bool = True) -> None:
    """Infer the results of a graph's ops in order; the types of its arguments are taken as they are."""
    for op in graph.ops:
        for value, found in zip(op.results, infer_op(op, module, require=False)):
            settle(value, found, keep=keep)


def settle(value: Value, found: Inferred, *, keep: bool = True) -> None:
    """Write what inference found onto a value, refined by what was known of it."""
    value.type = refine(value, found.type) if keep else found.type
    value.dims = found.dims


def refine(value: Value, found: Type) -> Type:
    """The computed type, made more exact where the known one says more. The computed shape wins a contradiction.

    Of what is only declared, numbers and ranks are taken over, but not names: that two sizes are one is a claim that
    files often get wrong.
    """
    known = value.type
    if isinstance(known, TensorType) and isinstance(found, TensorType | UnrankedTensor) and found.dtype is known.dtype:
        if isinstance(found, UnrankedTensor):
            return TensorType(found.dtype, tuple(_declared(k) for k in known.shape))
        if found.rank != known.rank:
            return found
        carried = _carried_symbols(value.op)
        return TensorType(found.dtype, tuple(_refine_dim(f, k, carried) for f, k in zip(found.shape, known.shape)))
    joined = types.unify(found, known)
    if joined is None and value.declared is None and isinstance(known, UnrankedTensor):
        return found  # the placeholder of a value that no file and no pass has typed
    if joined is None:
        raise error(
            Code.BROKEN_MODEL,
            f"value {value.name!r} is {found}, but is declared as {known}",
            where=str(value.op.loc) if value.op is not None else "",
            help="correct the declared element type, or remove it",
        )
    return joined


def _declared(known: Dim) -> Dim:
    return known if isinstance(known, int) or _dims.is_fresh(known) else _dims.fresh()


def _carried_symbols(op: Op | None) -> frozenset[Sym]:
    """The symbols an op's operands speak of."""
    if op is None:
        return frozenset()
    shapes = (v.type.shape for v in op.operands if v is not None and isinstance(v.type, TensorType))
    given = (v.dims for v in op.operands if v is not None and v.dims is not None)
    return frozenset(s for row in (*shapes, *given) for d in row for s in _dims.symbols(d))


def _refine_dim(found: Dim, known: Dim, carried: frozenset[Sym]) -> Dim:
    """The more exact of a computed and a known size.

    A computed name beats a declared number (value_info that grew stale). An unknown that first appears here keeps the
    symbol it was given before, so that inferring twice changes nothing.
    """
    if isinstance(found, int) or (isinstance(found, Sym) and not _dims.is_fresh(found)):
        return found
    if isinstance(known, int):
        return known
    born_here = isinstance(found, Sym) and found not in carried
    return known if born_here and isinstance(known, Sym) and _dims.is_fresh(known) else found
