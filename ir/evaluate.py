"""Reference evaluation with numpy: one op, or a whole module.

An operator's own `reference` comes first, then ONNX's reference implementation at the module's opset. Meant for
constant folding and for tests: exact in what it says, slow on big models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .core import Graph, Module, Op, Value
from .errors import Code, MlcError, error
from .onnx_attrs import node_proto
from .ops.access import attr_int, attr_ints
from .ops.opdef import Trait
from .types import TensorType, UnrankedTensor

Array = np.ndarray[Any, Any]
_DEFAULT_OPSET = 21


def evaluate_op(op: Op, arrays: Sequence[Array | None], *, module: Module | None = None) -> list[Array]:
    """The results of one op without regions; `arrays` are its operands (None where left out).

    Without `module`, opset 21. Errors: UNSUPPORTED_MODEL when there is no reference implementation, or the op draws
    random numbers.
    """
    from .ops.table import lookup

    row = lookup(op.kind)
    if row.has(Trait.RANDOM):
        message = f"{op.kind} draws random numbers and has no fixed value"
        raise error(Code.UNSUPPORTED_MODEL, message, where=str(op.loc), help="compare models that draw none")
    if row.reference is not None:
        return list(row.reference(op, arrays))
    return _with_onnx(op, arrays, module)


def _with_onnx(op: Op, arrays: Sequence[Array | None], module: Module | None) -> list[Array]:
    from onnx import GraphProto
    from onnx.reference import ReferenceEvaluator

    versions = {"": module.opset, **module.opsets} if module is not None else {"": _DEFAULT_OPSET}
    versions.setdefault(op.domain, 1)
    node = node_proto(op)
    used = [a is not None or op.operand(i) is not None for i, a in enumerate(arrays)]
    del node.input[:]
    node.input.extend(f"x{i}" if present else "" for i, present in enumerate(used))
    graph = GraphProto(name="op", node=[node])
    for name in filter(None, node.input):
        graph.input.add(name=name)
    for name in node.output:
        graph.output.add(name=name)
    feeds = {f"x{i}": array for i, array in enumerate(arrays) if used[i]}
    try:
        runner = ReferenceEvaluator(graph, opsets=versions)
    except NotImplementedError as problem:
        raise _no_reference(op) from problem
    return [as_value(a) for a in runner.run(None, feeds)]


def _no_reference(op: Op) -> MlcError:
    message = f"{op.kind} has no reference implementation"
    return error(Code.UNSUPPORTED_MODEL, message, where=str(op.loc), help="run the model in ONNX Runtime instead")


def evaluate(module: Module, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of a module for the given inputs, in order. Inputs with a default may be left out."""
    scope: dict[Value, Array] = {}
    for value in module.graph.inputs:
        if value.name in feeds:
            scope[value] = as_value(feeds[value.name])
        elif value.name in module.defaults:
            scope[value] = module.defaults[value.name].array()
        else:
            raise error(Code.BAD_DATA, f"input {value.name!r} is missing", help="feed every input of the model")
    return evaluate_graph(module.graph, module, scope)


def evaluate_graph(graph: Graph, module: Module, scope: dict[Value, Array]) -> list[Array]:
    """The outputs of a graph. `scope` holds its arguments and what it captures; results are added, and dropped again
    after their last use."""
    last = _last_uses(graph)
    for op in graph.ops:
        arrays = [None if v is None else read(v, scope) for v in op.operands]
        if op.regions:
            found = _with_bodies(op, arrays, module, scope)
        else:
            found = evaluate_op(op, arrays, module=module)
        scope.update(zip(op.results, found))
        for value in last.get(op, ()):
            scope.pop(value, None)
    return [read(v, scope) for v in graph.outputs]


def as_value(value: Any) -> Any:
    """Scalars as arrays; sequences stay lists, and an empty optional stays None."""
    return value if value is None or isinstance(value, list) else np.asarray(value)


def read(value: Value, scope: Mapping[Value, Array]) -> Array:
    return value.constant.array() if value.constant is not None else scope[value]


def _last_uses(graph: Graph) -> dict[Op, list[Value]]:
    """For each op of a graph: the results of this graph that nothing reads after it."""
    last: dict[Value, Op] = {}
    for op in graph.ops:
        last.update((v, op) for v in op.results)
        for reader in (op, *(o for r in op.regions.values() for g in r.graphs() for o in (*g.ops, g.ret))):
            last.update((v, op) for v in reader.operands if v is not None and v.home is graph and v.op is not None)
    kept = set(graph.outputs)
    dying: dict[Op, list[Value]] = {}
    for value, op in last.items():
        if value not in kept:
            dying.setdefault(op, []).append(value)
    return dying


def _run_body(body: Graph, arguments: Sequence[Array], module: Module, scope: dict[Value, Array]) -> list[Array]:
    return evaluate_graph(body, module, {**scope, **dict(zip(body.inputs, arguments))})


def _with_bodies(op: Op, arrays: Sequence[Array | None], module: Module, scope: dict[Value, Array]) -> list[Array]:
    if op.kind not in BODIES:
        raise _no_reference(op)
    return BODIES[op.kind](op, arrays, module, scope)


def _if(op: Op, arrays: Sequence[Array | None], module: Module, scope: dict[Value, Array]) -> list[Array]:
    condition = arrays[0]
    assert condition is not None
    return _run_body(op.regions["then_branch" if bool(np.all(condition)) else "else_branch"], (), module, scope)


def _loop(op: Op, arrays: Sequence[Array | None], module: Module, scope: dict[Value, Array]) -> list[Array]:
    body = op.regions["body"]
    limit = None if arrays[0] is None else int(arrays[0].item())
    going = arrays[1] is None or bool(arrays[1].item())
    state = [a for a in arrays[2:] if a is not None]
    rows: list[list[Array]] = [[] for _ in range(len(body.outputs) - 1 - len(state))]
    step = 0
    while going and (limit is None or step < limit):
        found = _run_body(body, (np.array(step, np.int64), np.array(True), *state), module, scope)
        going, state = bool(found[0].item()), found[1 : 1 + len(state)]
        for row, item in zip(rows, found[1 + len(state) :]):
            row.append(item)
        step += 1
    return state + [_stack(row, v, 0) for row, v in zip(rows, op.results[len(state) :])]


def _scan(op: Op, arrays: Sequence[Array | None], module: Module, scope: dict[Value, Array]) -> list[Array]:
    body = op.regions["body"]
    given = [a for a in arrays if a is not None]
    count = attr_int(op, "num_scan_inputs")
    state, scanned = given[:-count], given[-count:]
    axes = attr_ints(op, "scan_input_axes") or (0,) * count
    backwards = attr_ints(op, "scan_input_directions") or (0,) * count
    lines = [np.moveaxis(a, axis, 0)[:: -1 if flip else 1] for a, axis, flip in zip(scanned, axes, backwards)]
    rows: list[list[Array]] = [[] for _ in range(len(body.outputs) - len(state))]
    for step in range(len(lines[0])):
        found = _run_body(body, (*state, *(line[step] for line in lines)), module, scope)
        state = found[: len(state)]
        for row, item in zip(rows, found[len(state) :]):
            row.append(item)
    out_axes = attr_ints(op, "scan_output_axes") or (0,) * len(rows)
    reverse = attr_ints(op, "scan_output_directions") or (0,) * len(rows)
    results = op.results[len(state) :]
    return state + [
        _stack(row[:: -1 if flip else 1], v, axis) for row, axis, flip, v in zip(rows, out_axes, reverse, results)
    ]


def _sequence_map(op: Op, arrays: Sequence[Array | None], module: Module, scope: dict[Value, Array]) -> list[Array]:
    """The body on every item of the first sequence; other sequences advance with it, tensors stay."""
    first: Any = arrays[0]
    rounds = [[a[i] if isinstance(a, list) else a for a in arrays] for i in range(len(first))]
    found = [_run_body(op.regions["body"], row, module, scope) for row in rounds]  # type: ignore[arg-type]
    columns: list[Any] = [list(column) for column in zip(*found)] if found else [[] for _ in op.results]
    return columns


def _stack(row: list[Array], value: Value, axis: int) -> Array:
    """The scanned items of all rounds; without a round, an empty tensor of the inferred type."""
    if row:
        return np.stack(row, axis)
    if isinstance(value.type, TensorType):
        inner = tuple(d if isinstance(d, int) else 0 for d in value.type.shape)
        return np.zeros((*inner[:axis], 0, *inner[axis + 1 :]), value.type.dtype.numpy)
    return np.zeros(0, value.type.dtype.numpy if isinstance(value.type, UnrankedTensor) else np.float32)


BODIES = {"If": _if, "Loop": _loop, "Scan": _scan, "SequenceMap": _sequence_map}
