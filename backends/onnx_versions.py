"""Versions of a written file: the opset asked for, the IR version it needs, the least ONNX Runtime that loads it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx
import onnx.checker
import onnx.shape_inference
import onnx.version_converter
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from ..ir.errors import Code, MlcError, error

NEWEST_IR = 13  # the newest ONNX Runtime reads no newer one

#: The least IR version in which an element type exists.
_IR_OF_TYPE = {
    **dict.fromkeys((17, 18, 19, 20), 9),  # float8
    **dict.fromkeys((21, 22), 10),  # int4
    23: 11,  # float4
    24: 12,  # float8e8m0
    **dict.fromkeys((25, 26), 13),  # int2
}


#: (opset, IR version) up to which an ONNX Runtime loads files, measured on each release named.
_RUNTIMES = (
    ("1.16", 19, 9),
    ("1.17", 20, 9),
    ("1.18", 21, 10),
    ("1.21", 22, 10),
    ("1.23", 23, 11),
    ("1.24", 25, 13),
    ("1.25", 26, 13),
)


def least_runtime(proto: ModelProto) -> str | None:
    """The first ONNX Runtime release that loads a file of this opset and IR version; None if there is none yet."""
    opset = max((o.version for o in proto.opset_import if o.domain == ""), default=1)
    return next((name for name, newest, ir in _RUNTIMES if opset <= newest and proto.ir_version <= ir), None)


def set_ir_version(proto: ModelProto, *, at_least: int) -> None:
    """Give the model the least IR version that fits its opset and element types, and is no older than the source's."""
    wanted = onnx.helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    types = [_IR_OF_TYPE.get(code, 0) for code in _element_types(proto.graph)]
    proto.ir_version = max(wanted, min(at_least, NEWEST_IR), *types, 4)


def _element_types(graph: GraphProto) -> Iterator[int]:
    yield from (t.data_type for t in graph.initializer)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.type.tensor_type.elem_type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t.data_type
            elif attribute.type == AttributeProto.GRAPH:
                yield from _element_types(attribute.g)
            elif attribute.name in ("to", "dtype", "output_dtype"):
                yield attribute.i


def change_opset(proto: ModelProto, opset: int) -> ModelProto:
    """The model at another opset of the standard domain.

    Errors: CANNOT_HONOUR, naming the operator that stands in the way.
    """
    current = next(o.version for o in proto.opset_import if o.domain == "")
    if current == opset:
        return proto
    if not 7 <= opset <= onnx.defs.onnx_opset_version():
        raise error(
            Code.CANNOT_HONOUR,
            f"opset {opset} cannot be written",
            help=f"choose one from 7 to {onnx.defs.onnx_opset_version()}",
        )
    for node in _nodes(proto.graph):
        if node.domain == "":
            _check_known(node, opset)
    try:
        changed: ModelProto = onnx.version_converter.convert_version(proto, opset)
    except (RuntimeError, ValueError, IndexError, TypeError, onnx.version_converter.ConvertError) as reason:
        raise _refused(opset, _converter_reason(reason), "") from reason
    _check_nodes(changed, opset)
    _restore(changed, proto)
    return changed


def _converter_reason(reason: Exception) -> str:
    """What the converter says, in words: it has no way for some operators that could be written."""
    text = str(reason).strip().splitlines()[0].rpartition("failed: ")[2]
    found = re.search(r"No Adapter (?:From|To) Version \$(\d+) for (\w+)", text)
    return f"{found[2]} of opset {found[1]} has no known older or newer form" if found else text


def _check_known(node: NodeProto, opset: int) -> None:
    if onnx.defs.has(node.op_type, domain="") and not onnx.defs.has(node.op_type, opset, ""):
        raise _refused(opset, f"{node.op_type} does not exist there", node.name or node.op_type)


def _check_nodes(proto: ModelProto, opset: int) -> None:
    """What the converter leaves in place it may have left wrong: an attribute or a type the older operator lacks."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = {o.domain: o.version for o in proto.opset_import}
    for node in _nodes(proto.graph):
        if node.domain or any(a.type == AttributeProto.GRAPH for a in node.attribute):
            continue
        bare = NodeProto()
        bare.CopyFrom(node)
        for attribute in bare.attribute:
            if attribute.t.data_location == TensorProto.EXTERNAL:
                attribute.t.Clear()
        try:
            onnx.checker.check_node(bare, context)
        except onnx.checker.ValidationError as reason:
            raise _refused(opset, str(reason).strip().splitlines()[0], node.name or node.op_type) from reason
    try:
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as reason:
        raise _refused(opset, str(reason).strip().splitlines()[-1], "") from reason


def _restore(changed: ModelProto, proto: ModelProto) -> None:
    """Interface, docs and metadata as they were; the converter adds value_info of its own."""
    for field in ("input", "output", "value_info"):
        entries = getattr(changed.graph, field)
        del entries[:]
        entries.extend(getattr(proto.graph, field))
    changed.graph.doc_string = proto.graph.doc_string
    del changed.graph.metadata_props[:]
    changed.graph.metadata_props.extend(proto.graph.metadata_props)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _refused(opset: int, why: str, where: str) -> MlcError:
    return error(
        Code.CANNOT_HONOUR,
        f"the model cannot be written at opset {opset}: {why}",
        where=where,
        help="leave --opset out, or choose a later one",
    )
