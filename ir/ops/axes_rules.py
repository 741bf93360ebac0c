"""The axes column of the operator table: how axes of operands and results correspond, one rule for every kind.

A kind without a rule pins every axis it touches. Rules live by family in axes_rules_*.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..axis_solver import Opaque, Solver
from ..core import Op
from . import axes_rules_attention as attention
from . import axes_rules_attention_contrib as attention_contrib
from . import axes_rules_fused as fused
from . import axes_rules_index as indexing
from . import axes_rules_linear as linear
from . import axes_rules_move as move
from . import axes_rules_norm as norm
from . import axes_rules_pick as pick
from . import axes_rules_quant as quantized
from . import axes_rules_recurrent as recurrent
from . import axes_rules_state as state
from . import axes_rules_window as window
from .axes_rules_operands import nothing_moves
from .opdef import AxesRule


def elementwise(op: Op, s: Solver) -> None:
    """Any number of operands that broadcast to one shape; every result has it."""
    types = linear.broadcast(op, s, [s.need(op, slot) for slot, v in enumerate(op.operands) if v is not None])
    for index in range(len(op.results)):
        s.out(op, types, index)


def first_operand(op: Op, s: Solver) -> None:
    """Element by element on operand 0; the other operands are scalars (whatever they are, they are pinned)."""
    s.out(op, s.need(op, 0))


def dropout(op: Op, s: Solver) -> None:
    """Passes at inference; while training, which positions are dropped depends on their order."""
    training = op.operand(2)
    if training is not None and (training.constant is None or training.constant.array().any()):
        raise Opaque("random")
    types = s.need(op, 0)
    for index in range(len(op.results)):
        s.out(op, types, index)


def reads_shape(op: Op, s: Solver) -> None:
    """Shape, Size: the elements are not read; the result is a list in order."""
    s.operand(op, 0)


_ELEMENTWISE = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Celu
Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu
Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin
Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
"""
_FIRST = "Clip CastLike DynamicQuantizeLinear"
_REDUCE = "ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare"
_POOL = "MaxPool AveragePool LpPool"
_GLOBAL_POOL = "GlobalAveragePool GlobalMaxPool GlobalLpPool"
#: Operators of which every axis keeps its order, by the reason.
NOTHING_MOVES = {
    "generated-order": "Range EyeLike HannWindow HammingWindow BlackmanWindow MelWeightMatrix Constant ImageDecoder",
    "random": "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial",
    "index-leaks": "NonZero Unique NonMaxSuppression MaxUnpool TfIdfVectorizer",
    "sequence": """SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap
        SplitToSequence ConcatFromSequence Optional OptionalGetElement OptionalHasElement""",
    "text": "StringConcat StringNormalizer StringSplit RegexFullMatch",
}

_STANDARD: Mapping[str, AxesRule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(_FIRST.split(), first_operand),
    **dict.fromkeys(_REDUCE.split(), norm.reduce),
    **dict.fromkeys(_POOL.split(), window.pool),
    **dict.fromkeys(_GLOBAL_POOL.split(), window.global_pool),
    **dict.fromkeys(("Softmax", "LogSoftmax"), norm.softmax),
    **dict.fromkeys(("ArgMax", "ArgMin"), indexing.arg_reduce),
    **dict.fromkeys(("CumSum", "CumProd"), move.cumulate),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), quantized.quantize),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), norm.layer_norm),
    **dict.fromkeys(("Shape", "Size"), reads_shape),
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), window.regions),
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), indexing.loss),
    **{kind: nothing_moves(why) for why, kinds in NOTHING_MOVES.items() for kind in kinds.split()},
    "Attention": attention.attention,
    "AffineGrid": window.affine_grid,
    "BatchNormalization": norm.batch_norm,
    "CenterCropPad": window.crop_or_pad,
    "Col2Im": window.columns_to_image,
    "Compress": indexing.compress,
    "Concat": move.concat,
    "ConstantOfShape": move.constant_of_shape,
    "Conv": linear.conv,
    "ConvInteger": linear.conv_integer,
    "ConvTranspose": linear.conv_transpose,
    "DFT": window.fourier,
    "DeformConv": linear.deform_conv,
    "DepthToSpace": move.depth_to_space,
    "Det": window.determinant,
    "Dropout": dropout,
    "Einsum": linear.einsum,
    "Expand": move.expand,
    "Flatten": move.flatten,
    "GRU": recurrent.gru,
    "Gather": pick.gather,
    "GatherElements": indexing.gather_elements,
    "GatherND": indexing.gather_nd,
    "Gemm": linear.gemm,
    "GridSample": window.grid_sample,
    "GroupNormalization": norm.group_norm,
    "Hardmax": indexing.hardmax,
    "If": state.branch,
    "InstanceNormalization": norm.instance_norm,
    "LRN": norm.lrn,
    "LSTM": recurrent.lstm,
    "Loop": state.loop,
    "LpNormalization": norm.lp_norm,
    "MatMul": linear.matmul,
    "MatMulInteger": quantized.matmul_integer,
    "MeanVarianceNormalization": norm.mean_variance_norm,
    "OneHot": indexing.one_hot,
    "Pad": move.pad,
    "QLinearConv": linear.qlinear_conv,
    "QLinearMatMul": quantized.qlinear_matmul,
    "RNN": recurrent.rnn,
    "ReduceMean": norm.reduce_mean,
    "Reshape": move.reshape,
    "Resize": move.resize,
    "ReverseSequence": move.reverse_sequence,
    "RotaryEmbedding": attention.rotary,
    "STFT": window.short_fourier,
    "Scan": state.scan,
    "ScatterElements": indexing.scatter_elements,
    "ScatterND": indexing.scatter_nd,
    "Slice": pick.slice_,
    "SpaceToDepth": move.space_to_depth,
    "Split": move.split,
    "Squeeze": move.squeeze,
    "TensorScatter": indexing.tensor_scatter,
    "Tile": move.tile,
    "TopK": indexing.top_k,
    "Transpose": move.transpose,
    "Trilu": move.upper_triangle,
    "Unsqueeze": move.unsqueeze,
}
_CONTRIB: Mapping[str, AxesRule] = {
    **dict.fromkeys(("FusedMatMul", "TransposeMatMul"), linear.fused_matmul),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), quantized.qlinear_binary),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu"), first_operand),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), quantized.quantize),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), fused.skip_layer_norm),
    **dict.fromkeys(("BiasGelu", "FastGelu", "Gelu", "QuickGelu"), elementwise),
    "Attention": attention_contrib.fused,
    "BiasAdd": fused.bias_add,
    "BiasSplitGelu": fused.split_gelu,
    "DynamicQuantizeLSTM": recurrent.dynamic_quantize_lstm,
    "DynamicQuantizeMatMul": quantized.dynamic_quantize_matmul,
    "EmbedLayerNormalization": fused.embed_layer_norm,
    "FusedConv": linear.fused_conv,
    "FusedGemm": linear.gemm,
    "GatherBlockQuantized": quantized.gather_block_quantized,
    "GroupNorm": fused.group_norm,
    "GroupQueryAttention": attention_contrib.group_query,
    "Inverse": window.inverse,
    "MatMulIntegerToFloat": quantized.matmul_integer_to_float,
    "MatMulNBits": quantized.matmul_nbits,
    "MultiHeadAttention": attention_contrib.multi_head,
    "NhwcConv": linear.nhwc_conv,
    "QAttention": attention_contrib.quantized,
    "QGemm": quantized.qgemm,
    "QLinearAveragePool": window.pool,
    "QLinearConcat": quantized.qlinear_concat,
    "QLinearGlobalAveragePool": window.global_pool,
    "QLinearSoftmax": quantized.qlinear_softmax,
    "QLinearWhere": quantized.qlinear_where,
    "RotaryEmbedding": attention.rotary_contrib,
    "SkipGroupNorm": fused.skip_group_norm,
}
AXES: Mapping[str, AxesRule] = {**_STANDARD, **{f"com.microsoft::{name}": rule for name, rule in _CONTRIB.items()}}


def rule_of(op: Op) -> AxesRule | None:
    """The rule of an op: the table's, which a package may have added to, else the one above."""
    from .table import lookup

    return lookup(op.kind).axes or AXES.get(op.kind)
