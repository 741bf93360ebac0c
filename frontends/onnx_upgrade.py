"""One opset for everything behind the importer: local functions inlined, old operators raised to opset 21.

Works on a model whose large tensors are stubs. The version converter adds value_info and refines declared types;
runtimes choose fusions by those, so what the file did not say itself is taken out again.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter
from onnx import GraphProto, ModelProto, NodeProto, TypeProto

from ..ir.errors import Code, error
from .onnx_structure import bodies, node_label
from .onnx_tensors import broken

OPSET = 21  # the least opset of a module
#: Operators that the version converter carries over although they changed: the first opset with today's meaning.
#: Scan lost its batch axis; GroupNormalization had one scale for each group, now it has one for each channel.
_NOT_RAISED = {"Scan": 9, "GroupNormalization": 21}
_ERRORS = (
    RuntimeError,
    ValueError,
    IndexError,
    TypeError,
    OverflowError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
)


def inline_functions(model: ModelProto) -> ModelProto:
    """The model with every call of a local function replaced by the function's nodes."""
    if not model.functions:
        return model
    _check_recursion(model)
    try:
        inlined: ModelProto = onnx.inliner.inline_local_functions(model, convert_version=True)
    except (*_ERRORS, onnx.version_converter.ConvertError) as reason:
        raise broken(f"the local functions cannot be inlined: {_first_line(reason)}", "functions") from reason
    return inlined


def _check_recursion(model: ModelProto) -> None:
    calls = {
        (f.domain, f.name, f.overload): {(n.domain, n.op_type, n.overload) for n in walk(f.node)}
        for f in model.functions
    }
    if len(calls) < len(model.functions):
        raise broken("two local functions have one name", "functions")
    done: set[tuple[str, str, str]] = set()
    for start in calls:
        _descend(start, calls, [], done)


def _descend(
    key: tuple[str, str, str],
    calls: dict[tuple[str, str, str], set[tuple[str, str, str]]],
    path: list[tuple[str, str, str]],
    done: set[tuple[str, str, str]],
) -> None:
    if key in path:
        names = " -> ".join(f"{d}::{n}" for d, n, _ in [*path[path.index(key) :], key])
        raise broken("a local function calls itself", names)
    if key in done or key not in calls:
        return
    if len(path) > 100:
        raise broken("local functions are nested more than 100 deep", "functions")
    for callee in sorted(calls[key]):
        _descend(callee, calls, [*path, key], done)
    done.add(key)


def upgrade(model: ModelProto, opset: int) -> ModelProto:
    """The model at opset max(opset, 21), with the types its file declared and no others."""
    if opset >= OPSET:
        return model
    for node in walk(model.graph.node):
        first = _NOT_RAISED.get(node.op_type, 0)
        if opset < first and node.domain in ("", "ai.onnx"):
            raise error(
                Code.UNSUPPORTED_MODEL,
                f"{node.op_type} of opset {opset} has another meaning than from {first} on and cannot be raised",
                where=node_label(node, ""),
                help=f"export the model again with opset {first} or later",
            )
    _check_ir_version(model)
    try:
        raised = onnx.version_converter.convert_version(model, OPSET)
    except (*_ERRORS, onnx.version_converter.ConvertError) as reason:
        raise error(
            Code.UNSUPPORTED_MODEL,
            f"the model cannot be raised from opset {opset} to {OPSET}: {_first_line(reason)}",
            help=f"export the model again with opset {OPSET} or later",
        ) from reason
    _restore(raised.graph, model.graph)
    raised.ir_version = max(raised.ir_version, model.ir_version)
    return raised


def _check_ir_version(model: ModelProto) -> None:
    if model.ir_version < 3:
        raise error(
            Code.UNSUPPORTED_MODEL,
            f"IR version {model.ir_version} is older than 3, the first one that is supported",
            help="export the model again",
        )


def _restore(graph: GraphProto, source: GraphProto) -> None:
    """Put the declared types, docs and metadata of `source` back onto the converted `graph` and its bodies."""
    graph.doc_string = source.doc_string
    del graph.metadata_props[:]
    graph.metadata_props.extend(source.metadata_props)
    for field in ("input", "output", "value_info"):
        known = {v.name: v for v in getattr(source, field)}
        entries = getattr(graph, field)
        kept = [known[v.name] for v in entries if v.name in known]
        del entries[:]
        entries.extend(kept if field != "value_info" else source.value_info)
    originals = {name: node for node in source.node for name in node.output if name}
    names = {node.name for node in graph.node}
    for node in graph.node:
        twin = next((originals[n] for n in node.output if n in originals), None)
        if twin is None:
            continue
        node.doc_string, node.overload = twin.doc_string, twin.overload
        if not node.name and twin.name not in names:
            node.name = twin.name
        if not node.metadata_props:
            node.metadata_props.extend(twin.metadata_props)
        for (_, body), (_, original) in zip(bodies(node), bodies(twin)):
            _restore(body, original)


def walk(nodes: object) -> Iterator[NodeProto]:
    """All nodes, those in bodies included."""
    for node in nodes:  # type: ignore[attr-defined]
        yield node
        for _, body in bodies(node):
            yield from walk(body.node)


def declared_types(graph: GraphProto) -> dict[str, TypeProto]:
    """What a graph says of its values' types."""
    entries = (*graph.value_info, *graph.output, *graph.input)
    return {v.name: v.type for v in entries if v.HasField("type")}


def _first_line(reason: Exception) -> str:
    text = str(reason).strip() or type(reason).__name__
    return text.splitlines()[0][:300]
