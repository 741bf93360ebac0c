"""Multiply-accumulates of one execution, per operator. All other arithmetic counts as none."""

from __future__ import annotations

from .. import dims as _dims
from ..core import Op
from ..dims import Dim
from ..types import Shape, TensorType
from .access import Unranked, attr_int, attr_ints, operand, shape, shape_of
from .opdef import CostRule
from .shape_contraction import einsum_sizes, einsum_terms


def _result(op: Op) -> Shape:
    kind = op.results[0].type
    if not isinstance(kind, TensorType):
        raise Unranked
    return kind.shape


def convolution(weight: int = 1) -> CostRule:
    """Every output element sums the weight's input channels and kernel."""
    return lambda op: _dims.product((*_result(op), *shape(op, weight)[1:]))


def conv_transpose(op: Op) -> Dim:
    """Every input element is spread over the weight's output channels and kernel."""
    return _dims.product((*shape(op), *shape(op, 1)[1:]))


def matmul(op: Op) -> Dim:
    return _dims.mul(_dims.product(_result(op)), shape(op)[-1])


def fused_matmul(op: Op) -> Dim:
    source = shape(op)
    inner = source[-1] if not attr_int(op, "transA") else source[0 if attr_int(op, "transBatchA") else -2]
    return _dims.mul(_dims.product(_result(op)), inner)


def gemm(op: Op) -> Dim:
    return _dims.mul(_dims.product(_result(op)), shape(op)[0 if attr_int(op, "transA") else 1])


def einsum(op: Op) -> Dim:
    """All index letters once, for each product of two factors; one input alone is a sum, not a product."""
    inputs, _ = einsum_terms(op)
    sizes = einsum_sizes(op, inputs)
    return _dims.mul(_dims.product(sizes.values()), len(inputs) - 1)


def recurrent(op: Op) -> Dim:
    """Every step multiplies with W and R of every direction."""
    time, batch, _ = shape(op)
    weights = _dims.add(_dims.product(shape(op, 1)), _dims.product(shape(op, 2)))
    return _dims.product((time, batch, weights))


def attention(op: Op) -> Dim:
    """ONNX's Attention: scores and their sum over the values, heads first or folded into the last axis."""
    query, key, value = shape(op), shape(op, 1), shape(op, 2)
    length = key[-2] if op.operand(4) is None else _dims.add(key[-2], shape(op, 4)[-2])
    if len(query) == 4:
        batch_heads, rows, head, value_head = query[:2], query[2], query[3], value[3]
    else:
        heads, kv_heads = attr_int(op, "q_num_heads", 1), attr_int(op, "kv_num_heads", 1)
        batch_heads, rows = (query[0], heads), query[1]
        head, value_head = _dims.floordiv(query[2], heads), _dims.floordiv(value[2], kv_heads)
    return _dims.product((*batch_heads, rows, length, _dims.add(head, value_head)))


def fused_attention(op: Op) -> Dim:
    """com.microsoft Attention and QAttention: the projection of q, k and v, then attention over the sequence."""
    batch, sequence, width = shape(op)
    columns = shape(op, 1)[-1]
    sizes = attr_ints(op, "qkv_hidden_sizes")
    key_width, value_width = (sizes[1], sizes[2]) if sizes else (_dims.floordiv(columns, 3),) * 2
    projection = _dims.product((batch, sequence, width, columns))
    scores = _dims.product((batch, sequence, sequence, _dims.add(key_width, value_width)))
    return _dims.add(projection, scores)


def multi_head_attention(op: Op) -> Dim:
    """com.microsoft MultiHeadAttention: the key's length is its second axis, or its third behind a head axis."""
    query = shape(op)
    if len(query) == 5:
        return _dims.product((2, query[0], query[1], query[1], query[2], query[4]))
    key = operand(op, 1)
    length = shape_of(op, key)[2 if len(shape_of(op, key)) == 4 else 1]
    return _dims.product((query[0], query[1], length, _dims.add(query[2], _result(op)[2])))


def group_query_attention(op: Op) -> Dim:
    """com.microsoft GroupQueryAttention: the length is that of the present key, if that is a result."""
    batch, sequence, hidden = _result(op)
    present = op.results[1].type if len(op.results) > 1 else None
    length = present.shape[2] if isinstance(present, TensorType) else sequence
    return _dims.product((2, batch, sequence, length, hidden))
