"""Types of ONNX Runtime's operators (domain com.microsoft), for which ONNX has no schema."""

from __future__ import annotations

from .. import dims as _dims
from ..core import Op
from ..dims import Dim
from ..dtypes import DType
from ..types import Shape, TensorType
from .access import attr_int, attr_ints, axis_in, broken, dtype, operand, same, shape, shape_or_unknown
from .opdef import Infer, Inferred
from .shape_contraction import gemm_shape, multiplied
from .shape_elementwise import broadcast_shapes
from .shape_recurrent import directions
from .shape_window import global_pool, pool


def matmul_nbits(op: Op) -> list[Inferred]:
    """A [.., K] times packed B [N, K / block_size, block bytes], unpacked along K."""
    source, packed = shape(op), shape(op, 1)
    inner, columns = attr_int(op, "K"), attr_int(op, "N")
    same(op, source[-1], inner, "the inner sizes")
    same(op, packed[0], columns, "the columns and the rows of the packed weight")
    return [Inferred(TensorType(dtype(op), (*source[:-1], columns)))]


def gather_block_quantized(op: Op) -> list[Inferred]:
    """Gather along `gather_axis`; u8 data holds several narrow elements a byte along its last axis."""
    data, indices = packed_shape(op), shape(op, 1)
    axis = axis_in(op, attr_int(op, "gather_axis"), len(data))
    return [Inferred(TensorType(dtype(op, 2), (*data[:axis], *indices, *data[axis + 1 :])))]


def packed_shape(op: Op) -> Shape:
    """The shape of GatherBlockQuantized's data, counted in elements."""
    data = shape(op)
    per_byte = 8 // attr_int(op, "bits", 4) if dtype(op) is DType.U8 else 1
    return (*data[:-1], _dims.mul(data[-1], per_byte))


def dynamic_quantize_lstm(op: Op) -> list[Inferred]:
    """As LSTM, but W [D, in, 4H] and R [D, H, 4H] are stored transposed."""
    source, weight, recurrence = shape_or_unknown(op, 0, 3), shape(op, 1), shape(op, 2)
    if len(source) != 3 or len(weight) != 3 or len(recurrence) != 3:
        raise broken(op, f"X, W and R have ranks {len(source)}, {len(weight)}, {len(recurrence)}, not 3")
    time, batch, _ = source
    same(op, source[2], weight[1], "the input sizes of X and W")
    hidden = same(op, attr_int(op, "hidden_size") or recurrence[1], recurrence[1], "hidden sizes")
    ways, element = directions(op), dtype(op)
    state = Inferred(TensorType(element, (ways, batch, hidden)))
    return [Inferred(TensorType(element, (time, ways, batch, hidden))), state, state]


def matmul_as(slot: int, weight: int = 1) -> Infer:
    """A matrix product whose result has the element type of operand `slot`."""

    def infer(op: Op) -> list[Inferred]:
        return [Inferred(TensorType(dtype(op, slot), multiplied(op, shape(op), shape(op, weight))))]

    return infer


def fused_matmul(op: Op) -> list[Inferred]:
    left, right = shape(op), shape(op, 1)
    left = _transposed(left, batch=attr_int(op, "transBatchA"), last=attr_int(op, "transA"))
    right = _transposed(right, batch=attr_int(op, "transBatchB"), last=attr_int(op, "transB"))
    return [Inferred(TensorType(dtype(op), multiplied(op, left, right)))]


def _transposed(source: Shape, *, batch: int, last: int) -> Shape:
    if len(source) < 2:
        return source
    if batch:
        source = (*source[1:-1], source[0], source[-1])
    return (*source[:-2], source[-1], source[-2]) if last else source


def skip_norm(op: Op) -> list[Inferred]:
    """The normalised sum, two statistics, and the sum itself."""
    source = shape(op)
    result = Inferred(TensorType(dtype(op), source))
    stats = Inferred(TensorType(DType.F32, (*source[:-1], 1)))
    return [result, stats, stats, result]


def skip_group_norm(op: Op) -> list[Inferred]:
    """The normalised sum and the sum itself."""
    return [Inferred(TensorType(dtype(op), shape(op))) for _ in range(2)]


def split_gelu(op: Op) -> list[Inferred]:
    """BiasSplitGelu: half of the last axis is left."""
    source = shape(op)
    return [Inferred(TensorType(dtype(op), (*source[:-1], _dims.floordiv(source[-1], 2))))]


def qlinear_where(op: Op) -> list[Inferred]:
    """Condition, X, scale, zero, Y, scale, zero, those of the result."""
    return [Inferred(TensorType(dtype(op, 1), broadcast_shapes(op, (shape(op), shape(op, 1), shape(op, 4)))))]


def embed_norm(op: Op) -> list[Inferred]:
    """Ids [B, S] to embeddings [B, S, H]; then the mask index [B] and the sum before the norm."""
    batch, sequence = shape(op)
    made = Inferred(TensorType(dtype(op, 2), (batch, sequence, shape(op, 2)[-1])))
    return [made, Inferred(TensorType(DType.I32, (batch,))), made]


def attention(past: int) -> Infer:
    """Attention, QAttention: input [B, S, in], weight [in, q + k + v], past [2, B, heads, P, head] in its own slot.

    Results: [B, S, v], and present [2, B, heads, P + S, head].
    """

    def infer(op: Op) -> list[Inferred]:
        batch, sequence, _ = shape(op)
        sizes = attr_ints(op, "qkv_hidden_sizes")
        hidden = sizes[2] if sizes else _dims.floordiv(shape(op, 1)[-1], 3)
        heads = attr_int(op, "num_heads", 1)
        element = dtype(op) if dtype(op).is_float else DType.F32
        cached = 0 if op.operand(past) is None else shape(op, past)[3]
        length = cached if attr_int(op, "past_present_share_buffer") else _dims.add(cached, sequence)
        present = (2, batch, heads, length, _dims.floordiv(hidden, heads))
        return [Inferred(TensorType(element, (batch, sequence, hidden))), Inferred(TensorType(element, present))]

    return infer


def multi_head_attention(op: Op) -> list[Inferred]:
    """Query [B, S, H] (or packed [B, S, heads, 3, head]), key and value; then present key and value."""
    query, element, heads = shape(op), dtype(op), attr_int(op, "num_heads", 1)
    if len(query) == 5:
        key_width = value_width = query[4]
        length, count = query[1], query[2]
    else:
        key = shape(op, 1)
        length, count = key[2] if len(key) == 4 else key[1], heads
        key_width = value_width = _dims.floordiv(query[2], heads)
        if op.operand(2) is not None:
            value = shape(op, 2)
            value_width = value[3] if len(value) == 4 else _dims.floordiv(value[2], heads)
    if op.operand(8) is not None:  # the caches are buffers of another length
        length = _dims.fresh()
    elif op.operand(6) is not None:
        length = _dims.add(length, shape(op, 6)[2])
    present = [Inferred(TensorType(element, (query[0], heads, length, w))) for w in (key_width, value_width)]
    return [Inferred(TensorType(element, (query[0], query[1], _dims.mul(count, value_width)))), *present]


def group_query_attention(op: Op) -> list[Inferred]:
    """Query [B, S, H], or q, k and v packed in it; then present key and value [B, kv heads, T, head]."""
    batch, sequence, width = shape(op)
    heads, kv_heads = attr_int(op, "num_heads", 1), attr_int(op, "kv_num_heads", 1)
    packed = op.operand(1) is None
    head = _dims.floordiv(width, heads + 2 * kv_heads if packed else heads)
    present = Inferred(TensorType(dtype(op), (batch, kv_heads, _dims.fresh(), head)))
    return [Inferred(TensorType(dtype(op), (batch, sequence, _dims.mul(head, heads)))), present, present]


def qgemm(op: Op) -> list[Inferred]:
    """A, its scale and zero, B, ...; f32 unless the result has a zero point."""
    element = DType.F32 if op.operand(8) is None else dtype(op, 8)
    return [Inferred(TensorType(element, gemm_shape(op, shape(op), shape(op, 3))))]


def qlinear_concat(op: Op) -> list[Inferred]:
    """y_scale, y_zero, then (x, scale, zero) for every part."""
    parts = [shape(op, slot) for slot in range(2, len(op.operands), 3)]
    if not parts:
        raise broken(op, "nothing to concatenate")
    axis = axis_in(op, attr_int(op, "axis"), len(parts[0]))
    total: Dim = 0
    for part in parts:
        total = _dims.add(total, part[axis])
    return [Inferred(TensorType(dtype(op, 1), (*parts[0][:axis], total, *parts[0][axis + 1 :])))]


def qlinear_pool(op: Op) -> list[Inferred]:
    _channels_first(op)
    return pool(op)[:1]


def qlinear_global_pool(op: Op) -> list[Inferred]:
    source = shape(op)
    if attr_int(op, "channels_last"):
        sizes = (source[0], *(1,) * (len(source) - 2), source[-1])
        return [Inferred(TensorType(dtype(op), sizes))]
    return global_pool(op)


def _channels_first(op: Op) -> None:
    if attr_int(op, "channels_last"):
        raise broken(op, f"{operand(op, 0).name!r} has its channels last, which is not supported")
