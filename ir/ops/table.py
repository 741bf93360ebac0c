"""The operator table: one line for every operator mlc knows more about than ONNX's own tools do.

`_` is an operator's column left to its default. The axes column lives in `axes_rules.py`, beside the analysis that
reads it; `lookup` joins the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from ..dtypes import DType
from . import cost_rules as cost
from . import reference_contrib as ref
from . import shape_contraction as contraction
from . import shape_contrib as contrib
from . import shape_elementwise as element
from . import shape_index as index
from . import shape_movement as move
from . import shape_quantized as quantized
from . import shape_recurrent as recurrent
from . import shape_reduction as reduction
from . import shape_sizes as sizes
from . import shape_values as value
from . import shape_window as window
from .opdef import CostRule, Infer, OpDef, Reference, Trait
from .reference_flatten import flatten
from .reference_norm import group_norm
from .reference_optional import has_element, held
from .reference_pad import pad
from .reference_pool import global_average_pool
from .shape_values import Fold, valued
from .value_movement import moved

_E, _C, _V, _Q = Trait.ELEMENTWISE, Trait.COMMUTATIVE, Trait.VIEW, Trait.QUANTIZED
_MS = "com.microsoft::"


def _row(
    kind: str,
    infer: Infer | None = None,
    *traits: Trait,
    fold: Fold | None = None,
    macs: CostRule | None = None,
    weights: tuple[int, ...] = (),
    reference: Reference | None = None,
) -> OpDef:
    rule = valued(infer, fold) if infer is not None and fold is not None else infer
    return OpDef(kind, rule, reference, macs, None, frozenset(traits), weights)


_same = element.like()
_truth = element.like(element=DType.BOOL)
_lstm = recurrent.recurrent(gates=4, states=2)
_gru = recurrent.recurrent(gates=3, states=1)
_rnn = recurrent.recurrent(gates=1, states=1)

# fmt: off
_UNARY = (
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Gelu",
    "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid",
    "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)
_ALONG_AN_AXIS = (
    "Hardmax", "LogSoftmax", "Softmax", "LpNormalization", "CumSum", "CumProd", "LRN", "MeanVarianceNormalization",
)
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Mean", "SumSquare")
_DRAWING = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
# fmt: on

_ROWS: tuple[OpDef, ...] = (
    # elementwise
    *(_row(kind, _same, _E) for kind in _UNARY),
    _row("Abs", _same, _E, fold=value.magnitude),
    _row("Neg", _same, _E, fold=value.negative),
    _row("Sign", _same, _E, fold=value.sign),
    _row("Floor", _same, _E, fold=value.floor),
    _row("Ceil", _same, _E, fold=value.ceil),
    _row("Not", _truth, _E, fold=value.logical_not),
    _row("IsNaN", _truth, _E),
    _row("IsInf", _truth, _E),
    _row("Clip", _same, _E),
    _row("PRelu", _same, _E, weights=(1,)),
    _row("Cast", element.cast, _E, fold=value.cast),
    _row("CastLike", element.cast_like, _E),
    _row("BitCast", element.bit_cast, _E, _V),
    _row("Dropout", element.dropout, _E),
    _row("Add", element.broadcast, _E, _C, fold=value.add),
    _row("Sub", element.broadcast, _E, fold=value.subtract),
    _row("Mul", element.broadcast, _E, _C, fold=value.multiply),
    _row("Div", element.broadcast, _E, fold=value.divide),
    _row("Mod", element.broadcast, _E, fold=value.modulo),
    _row("Pow", element.broadcast, _E, fold=value.power),
    _row("Min", element.broadcast, _E, _C, fold=value.minimum),
    _row("Max", element.broadcast, _E, _C, fold=value.maximum),
    _row("Sum", element.broadcast, _E, _C, fold=value.add),
    _row("Mean", element.broadcast, _E, _C),
    _row("BitShift", element.broadcast, _E),
    *(_row(kind, element.broadcast, _E, _C) for kind in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    _row("And", element.compare, _E, _C, fold=value.logical_and),
    _row("Or", element.compare, _E, _C, fold=value.logical_or),
    _row("Xor", element.compare, _E, _C),
    _row("Equal", element.compare, _E, _C, fold=value.equal),
    _row("Less", element.compare, _E, fold=value.less),
    _row("LessOrEqual", element.compare, _E, fold=value.less_or_equal),
    _row("Greater", element.compare, _E, fold=value.greater),
    _row("GreaterOrEqual", element.compare, _E, fold=value.greater_or_equal),
    _row("Where", element.where, _E, fold=value.where),
    # sizes and generated tensors
    _row("Shape", sizes.shape_of_input),
    _row("Size", sizes.size),
    _row("ConstantOfShape", sizes.constant_of_shape, fold=value.filled),
    _row("Range", sizes.range_, fold=value.range_),
    _row("EyeLike", sizes.eye_like),
    _row("Resize", sizes.resize),
    _row("GridSample", sizes.grid_sample),
    _row("AffineGrid", sizes.affine_grid),
    _row("CenterCropPad", sizes.center_crop_pad),
    *(_row(kind, None, Trait.RANDOM) for kind in _DRAWING),
    # movement
    _row("Identity", element.identity, _E, _V),
    _row("Reshape", move.reshape, _V, fold=moved),
    _row("Flatten", move.flatten, _V, reference=flatten),
    _row("Squeeze", move.squeeze, _V, fold=moved),
    _row("Unsqueeze", move.unsqueeze, _V, fold=moved),
    _row("Transpose", move.transpose, _V, fold=moved),
    _row("Concat", move.concat, _V, fold=moved),
    _row("Split", value.with_parts(move.split), _V),
    _row("Expand", move.expand, _V, fold=moved),
    _row("Tile", move.tile, _V, fold=moved),
    _row("Pad", move.pad, _V, reference=pad),
    _row("DepthToSpace", move.depth_to_space, _V),
    _row("SpaceToDepth", move.space_to_depth, _V),
    _row("Slice", index.slice_, _V, fold=moved),
    _row("Gather", index.gather, _V, fold=moved, weights=(0,)),
    _row("GatherElements", index.gather_elements, _V),
    _row("GatherND", index.gather_nd, _V),
    _row("ScatterElements", _same, fold=moved),
    _row("ScatterND", _same, fold=moved),
    _row("TensorScatter", _same),
    _row("Trilu", _same),
    _row("ReverseSequence", index.reverse_sequence, _V),
    _row("TopK", index.top_k),
    _row("OneHot", index.one_hot),
    _row("NonZero", index.non_zero),
    # contractions
    _row("MatMul", contraction.matmul, macs=cost.matmul, weights=(0, 1)),
    _row("Gemm", contraction.gemm, macs=cost.gemm, weights=(0, 1, 2)),
    _row("Einsum", contraction.einsum, macs=cost.einsum, weights=(0, 1)),
    _row("Det", contraction.det),
    _row("Conv", window.conv, macs=cost.convolution(), weights=(1, 2)),
    _row("DeformConv", window.conv, macs=cost.convolution(), weights=(1, 3)),
    _row("ConvTranspose", window.conv_transpose, macs=cost.conv_transpose, weights=(1, 2)),
    _row("LSTM", _lstm, macs=cost.recurrent, weights=(1, 2, 3, 7)),
    _row("GRU", _gru, macs=cost.recurrent, weights=(1, 2, 3)),
    _row("RNN", _rnn, macs=cost.recurrent, weights=(1, 2, 3)),
    _row("Attention", None, macs=cost.attention),
    # windows and reductions
    *(_row(kind, window.pool) for kind in ("MaxPool", "AveragePool", "LpPool")),
    _row("GlobalAveragePool", window.global_pool, reference=global_average_pool),
    *(_row(kind, window.global_pool) for kind in ("GlobalMaxPool", "GlobalLpPool")),
    _row("MaxRoiPool", window.max_roi_pool),
    _row("RoiAlign", window.roi_align),
    _row("Col2Im", window.col2im),
    _row("STFT", window.stft),
    *(_row(f"Reduce{kind}", reduction.reduce) for kind in _REDUCTIONS),
    _row("ReduceSum", reduction.reduce, fold=value.reduce_sum),
    _row("ReduceProd", reduction.reduce, fold=value.reduce_product),
    _row("ReduceMax", reduction.reduce, fold=value.reduce_max),
    _row("ReduceMin", reduction.reduce, fold=value.reduce_min),
    _row("ArgMax", reduction.arg_reduce),
    _row("ArgMin", reduction.arg_reduce),
    # norms
    *(_row(kind, _same) for kind in _ALONG_AN_AXIS),
    _row("BatchNormalization", reduction.batch_norm, weights=(1, 2, 3, 4)),
    _row("InstanceNormalization", _same, weights=(1, 2)),
    _row("GroupNormalization", _same, weights=(1, 2), reference=group_norm),
    _row("LayerNormalization", reduction.layer_norm, weights=(1, 2)),
    _row("RMSNormalization", _same, weights=(1,)),
    _row("RotaryEmbedding", _same),
    # control flow (inferred and evaluated with their bodies, see infer_regions.py)
    *(_row(kind, None, Trait.CONTROL_FLOW) for kind in ("If", "Loop", "Scan", "SequenceMap")),
    _row("Optional", reference=held),
    _row("OptionalGetElement", reference=held),
    _row("OptionalHasElement", reference=has_element),
    # quantization
    _row("QuantizeLinear", quantized.quantize, _Q),
    _row("DequantizeLinear", quantized.dequantize, _Q, weights=(0,)),
    _row("DynamicQuantizeLinear", quantized.dynamic_quantize, _Q),
    _row("MatMulInteger", contraction.matmul_integer, _Q, macs=cost.matmul, weights=(0, 1)),
    _row("ConvInteger", window.conv_integer, _Q, macs=cost.convolution(), weights=(1,)),
    _row("QLinearMatMul", contraction.qlinear_matmul, _Q, macs=cost.matmul, weights=(0, 3)),
    _row("QLinearConv", window.qlinear_conv, _Q, macs=cost.convolution(3), weights=(3, 8)),
    # ONNX Runtime: quantized
    _row(_MS + "QuantizeLinear", quantized.quantize, _Q, reference=ref.as_onnx("QuantizeLinear")),
    _row(_MS + "DequantizeLinear", quantized.dequantize, _Q, weights=(0,), reference=ref.as_onnx("DequantizeLinear")),
    _row(_MS + "MatMulNBits", contrib.matmul_nbits, _Q, macs=cost.matmul, weights=(1, 5), reference=ref.matmul_nbits),
    _row(
        _MS + "GatherBlockQuantized",
        contrib.gather_block_quantized,
        _Q,
        weights=(0,),
        reference=ref.gather_block_quantized,
    ),
    _row(_MS + "DynamicQuantizeLSTM", contrib.dynamic_quantize_lstm, _Q, macs=cost.recurrent, weights=(1, 2, 3, 7)),
    _row(
        _MS + "DynamicQuantizeMatMul",
        contrib.matmul_as(0),
        _Q,
        macs=cost.matmul,
        weights=(1, 4),
        reference=ref.dynamic_quantize_matmul,
    ),
    _row(
        _MS + "MatMulIntegerToFloat",
        contrib.matmul_as(2),
        _Q,
        macs=cost.matmul,
        weights=(0, 1, 6),
        reference=ref.matmul_integer_to_float,
    ),
    _row(_MS + "QGemm", contrib.qgemm, _Q, macs=cost.gemm, weights=(3, 6)),
    _row(_MS + "QAttention", contrib.attention(8), _Q, macs=cost.fused_attention, weights=(1, 2)),
    _row(_MS + "QLinearAdd", quantized.qlinear_binary, _Q, _E),
    _row(_MS + "QLinearMul", quantized.qlinear_binary, _Q, _E),
    _row(_MS + "QLinearSigmoid", quantized.qlinear_like(4), _Q, _E),
    _row(_MS + "QLinearLeakyRelu", quantized.qlinear_like(4), _Q, _E),
    _row(_MS + "QLinearWhere", contrib.qlinear_where, _Q),
    _row(_MS + "QLinearSoftmax", quantized.qlinear_like(4), _Q),
    _row(_MS + "QLinearConcat", contrib.qlinear_concat, _Q, _V),
    _row(_MS + "QLinearAveragePool", contrib.qlinear_pool, _Q),
    _row(_MS + "QLinearGlobalAveragePool", contrib.qlinear_global_pool, _Q),
    # ONNX Runtime: fused
    _row(_MS + "Gelu", _same, _E, reference=ref.gelu),
    _row(_MS + "FastGelu", _same, _E, weights=(1,), reference=ref.fast_gelu),
    _row(_MS + "QuickGelu", _same, _E, reference=ref.quick_gelu),
    _row(_MS + "BiasGelu", _same, _E, weights=(1,), reference=ref.gelu),
    _row(_MS + "FusedMatMul", contrib.fused_matmul, macs=cost.fused_matmul, weights=(0, 1), reference=ref.fused_matmul),
    _row(
        _MS + "TransposeMatMul",
        contrib.fused_matmul,
        macs=cost.fused_matmul,
        weights=(0, 1),
        reference=ref.fused_matmul,
    ),
    _row(_MS + "FusedGemm", contraction.gemm, macs=cost.gemm, weights=(0, 1, 2)),
    _row(_MS + "FusedConv", window.conv, macs=cost.convolution(), weights=(1, 2)),
    _row(_MS + "NhwcConv", window.nhwc_conv, macs=cost.convolution(), weights=(1, 2)),
    _row(_MS + "SkipLayerNormalization", contrib.skip_norm, weights=(2, 3, 4), reference=ref.skip_layer_norm),
    _row(_MS + "SkipSimplifiedLayerNormalization", contrib.skip_norm, weights=(2, 3), reference=ref.skip_rms_norm),
    _row("SimplifiedLayerNormalization", reduction.layer_norm, weights=(1,), reference=ref.rms_norm),
    _row(_MS + "GroupNorm", _same, weights=(1, 2)),
    _row(_MS + "SkipGroupNorm", contrib.skip_group_norm, weights=(1, 2, 4)),
    _row(_MS + "BiasAdd", _same, weights=(1,)),
    _row(_MS + "BiasSplitGelu", contrib.split_gelu, weights=(1,)),
    _row(_MS + "Inverse", _same),
    _row(_MS + "EmbedLayerNormalization", contrib.embed_norm, weights=(2, 3, 4, 5, 6)),
    _row(_MS + "Attention", contrib.attention(4), macs=cost.fused_attention, weights=(1, 2)),
    _row(_MS + "MultiHeadAttention", contrib.multi_head_attention, macs=cost.multi_head_attention, weights=(3,)),
    _row(_MS + "GroupQueryAttention", contrib.group_query_attention, macs=cost.group_query_attention),
    _row(_MS + "RotaryEmbedding", _same),
)
_TABLE = {row.kind: row for row in _ROWS}


@cache
def lookup(kind: str, version: int | None = None) -> OpDef:
    """What is known of an operator; a row of defaults for one that is not in the table.

    `version` is the operator set's version, for operators whose meaning changed; none of those from version 21 on
    did so far, and older models are converted when they are read.
    """
    from .axes_rules import AXES  # late: the rules read the table

    return replace(_TABLE.get(kind) or OpDef(kind), axes=AXES.get(kind))


def known() -> Iterable[OpDef]:
    """Every row of the table."""
    return tuple(lookup(kind) for kind in _TABLE)
