"""The axes column of the operator table: how axes of operands and results correspond, one rule for every kind.

A kind without a rule pins every axis it touches. Rules live by family in axes_rules_*.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..axis_solver import Opaque, Solver
from ..core import Op
from . import axes_rules_linear as linear
from . import axes_rules_move as move
from . import axes_rules_norm as norm
from . import axes_rules_pick as pick
from . import axes_rules_state as state
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
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Celu Cos
Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less
LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh
Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor com.microsoft::Gelu com.microsoft::FastGelu
com.microsoft::QuickGelu com.microsoft::BiasGelu
"""
_FIRST = "Clip CastLike DynamicQuantizeLinear"
_REDUCE = "ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare"
_POOL = "MaxPool AveragePool LpPool"
_GLOBAL_POOL = "GlobalAveragePool GlobalMaxPool GlobalLpPool"

AXES: Mapping[str, AxesRule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(_FIRST.split(), first_operand),
    **dict.fromkeys(_REDUCE.split(), norm.reduce),
    **dict.fromkeys(_POOL.split(), norm.pool),
    **dict.fromkeys(_GLOBAL_POOL.split(), norm.global_pool),
    **dict.fromkeys(("Softmax", "LogSoftmax"), norm.softmax),
    **dict.fromkeys(("ArgMax", "ArgMin"), norm.arg_reduce),
    **dict.fromkeys(("CumSum", "CumProd"), move.cumulate),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), state.quantize),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), norm.layer_norm),
    **dict.fromkeys(("Shape", "Size"), reads_shape),
    "BatchNormalization": norm.batch_norm,
    "Concat": move.concat,
    "ConstantOfShape": move.constant_of_shape,
    "Conv": linear.conv,
    "ConvInteger": linear.conv_integer,
    "ConvTranspose": linear.conv_transpose,
    "DepthToSpace": move.depth_to_space,
    "Dropout": dropout,
    "Einsum": linear.einsum,
    "Expand": move.expand,
    "Flatten": move.flatten,
    "GRU": state.gru,
    "Gather": pick.gather,
    "Gemm": linear.gemm,
    "GroupNormalization": norm.group_norm,
    "If": state.branch,
    "InstanceNormalization": norm.instance_norm,
    "LRN": norm.lrn,
    "LSTM": state.lstm,
    "Loop": state.loop,
    "LpNormalization": norm.lp_norm,
    "MatMul": linear.matmul,
    "MatMulInteger": linear.matmul_integer,
    "Pad": move.pad,
    "QLinearConv": linear.qlinear_conv,
    "QLinearMatMul": linear.qlinear_matmul,
    "RNN": state.rnn,
    "ReduceMean": norm.reduce_mean,
    "Reshape": move.reshape,
    "Resize": move.resize,
    "ReverseSequence": move.reverse_sequence,
    "Scan": state.scan,
    "Slice": pick.slice_,
    "SpaceToDepth": move.space_to_depth,
    "Split": move.split,
    "Squeeze": move.squeeze,
    "Tile": move.tile,
    "TopK": norm.top_k,
    "Transpose": move.transpose,
    "Trilu": move.upper_triangle,
    "Unsqueeze": move.unsqueeze,
    "com.microsoft::SkipLayerNormalization": norm.skip_layer_norm,
    "com.microsoft::SkipSimplifiedLayerNormalization": norm.skip_layer_norm,
}


def rule_of(op: Op) -> AxesRule | None:
    """The rule of an op: the table's, which a package may have added to, else the one above."""
    from .table import lookup

    return lookup(op.kind).axes or AXES.get(op.kind)
