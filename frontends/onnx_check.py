"""Every node held against its operator's schema: attributes, number of inputs and outputs, the version it exists in."""

from __future__ import annotations

import functools

import onnx
import onnx.checker
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from ..ir.core import Module, Op, Value
from ..ir.dtypes import DType
from ..ir.errors import Code, error
from ..ir.types import TensorType, UnrankedTensor
from .onnx_structure import node_label
from .onnx_tensors import broken
from .onnx_upgrade import walk


def check_nodes(model: ModelProto) -> None:
    """Errors: BROKEN_MODEL for a node its schema forbids, UNSUPPORTED_MODEL for an operator nobody defines."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    versions = {o.domain: o.version for o in model.opset_import}
    context.opset_imports = versions
    standard = versions.get("", versions.get("ai.onnx", 1))
    for node in walk(model.graph.node):
        label = node_label(node, "")
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, standard, ""):
            raise error(
                Code.UNSUPPORTED_MODEL,
                f"opset {standard} has no operator {node.op_type}",
                where=label,
                help="state the right opset, or put the operator into its own domain",
            )
        try:
            onnx.checker.check_node(_bare(node), context)
        except (onnx.checker.ValidationError, UnicodeDecodeError) as reason:
            raise broken(f"the node is invalid: {_reason(reason)}", label) from reason


def _bare(node: NodeProto) -> NodeProto:
    """The node with empty bodies and tensors: those are checked elsewhere, in their own context."""
    if not any(a.type in _HEAVY for a in node.attribute):
        return node
    bare = NodeProto()
    bare.CopyFrom(node)
    for attribute in bare.attribute:
        if attribute.type == AttributeProto.GRAPH:
            attribute.g.CopyFrom(GraphProto(name="body"))
        elif attribute.type == AttributeProto.TENSOR and attribute.t.data_location == TensorProto.EXTERNAL:
            attribute.t.CopyFrom(TensorProto(data_type=TensorProto.INT64, int64_data=[0], dims=[1]))
    return bare


def check_types(module: Module) -> None:
    """Operands of the element types their operator takes, equal where its schema says so. Errors: BROKEN_MODEL."""
    for op in module.walk():
        schema = _schema(op.kind, module.opset if not op.domain else module.opsets.get(op.domain, 1))
        if schema is not None:
            _check_operands(op, schema)


@functools.lru_cache(maxsize=1024)
def _schema(kind: str, version: int) -> onnx.defs.OpSchema | None:
    domain, _, name = kind.rpartition("::")
    try:
        return onnx.defs.get_schema(name, version, domain)
    except onnx.defs.SchemaError:
        return None


def _check_operands(op: Op, schema: onnx.defs.OpSchema) -> None:
    bound: dict[str, tuple[str, DType]] = {}
    for slot, value in enumerate(op.operands):
        if value is None or not schema.inputs or not isinstance(value.type, TensorType | UnrankedTensor):
            continue
        formal = schema.inputs[min(slot, len(schema.inputs) - 1)]
        dtype = value.type.dtype
        if _is_guess(value):
            continue
        if f"tensor({_SPELLING[dtype]})" not in formal.types:
            raise broken(f"{op.kind} does not take {dtype.short} ({value.name!r}) as {formal.name!r}", str(op.loc))
        if not formal.is_homogeneous:
            continue
        first, known = bound.setdefault(formal.type_str, (value.name, dtype))
        if known is not dtype:
            raise broken(
                f"{op.kind} takes operands of one element type, but {first!r} is {known.short} and "
                f"{value.name!r} is {dtype.short}",
                str(op.loc),
            )


def _is_guess(value: Value) -> bool:
    """Whether the type may be the placeholder of a value that nobody could type (made by an unknown operator)."""
    return value.declared is None and value.type == UnrankedTensor(DType.F32)


_SPELLING = {
    d: onnx.TensorProto.DataType.Name(d.onnx).lower() if d is not DType.STR else "string" for d in DType
}  # as schemas spell element types: `float`, `uint8`, `bfloat16`
_HEAVY = (AttributeProto.GRAPH, AttributeProto.TENSOR)


def _reason(reason: Exception) -> str:
    text = str(reason).strip()
    return text.splitlines()[0][:300] if text else type(reason).__name__
