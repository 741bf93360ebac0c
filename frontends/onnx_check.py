"""Every node held against its operator's schema: attributes, number of inputs and outputs, the version it exists in."""

from __future__ import annotations

import onnx
import onnx.checker
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from ..ir.errors import Code, error
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


_HEAVY = (AttributeProto.GRAPH, AttributeProto.TENSOR)


def _reason(reason: Exception) -> str:
    text = str(reason).strip()
    return text.splitlines()[0][:300] if text else type(reason).__name__
