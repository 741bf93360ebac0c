"""Random typed graphs for hypothesis: `modules()` draws a module, `feeds()` makes inputs for one.

    @given(modules())                                   # anything: If, Loop, symbolic and zero sizes, odd outputs
    @given(modules(kinds=("Conv", "Relu"), bodies=False, zero=False))

Every drawn op carries its exact type, so that a graph needs no inference. Values stay finite on `feeds`: inputs
lie in [-1, 1] and no template divides or takes roots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from kit.net import Net

from mlc.ir import dims
from mlc.ir.core import Ints, Module, Value
from mlc.ir.dims import Dim, Sym
from mlc.ir.dtypes import DType
from mlc.ir.types import Shape, TensorType, tensor

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL


@dataclass
class Scene:
    """What a template may use: the drawing function, the graph under construction and the values in scope."""

    draw: DrawFn
    net: Net
    values: list[Value]
    zero: bool = True
    depth: int = 0  # of regions
    kinds: Iterable[str] = field(default_factory=tuple)

    def pick(self, wanted: Callable[[TensorType], bool]) -> Value | None:
        """A value whose tensor type fits, or None if there is none."""
        found = [v for v in self.values if isinstance(v.type, TensorType) and wanted(v.type)]
        return self.draw(st.sampled_from(found)) if found else None

    def size(self, low: int = 0, high: int = 5) -> int:
        return self.draw(st.integers(low if self.zero else max(low, 1), high))

    def weights(self, *shape: int) -> Value:
        return self.net.const(floats(self.draw(st.integers(0, 999)), shape))


Template = Callable[[Scene], Iterable[Value] | None]


def floats(seed: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def shape_of(value: Value) -> Shape:
    assert isinstance(value.type, TensorType)
    return value.type.shape


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """Numpy's rule on dimension expressions; None where they do not certainly broadcast."""
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b)
    result: list[Dim] = []
    for x, y in pairs:
        if x != y and x != 1 and y != 1:
            return None
        result.append(y if x == 1 else x)
    return tuple(result)


# -- templates: each adds one op (or region op) to the scene's net and returns its results ---------------------------


def _unary(kind: str) -> Template:
    def build(s: Scene) -> Iterable[Value] | None:
        x = s.pick(lambda t: t.dtype is F32)
        return None if x is None else [s.net.op(kind, [x], [x.type])]

    return build


def _binary(kind: str, dtype: DType = F32) -> Template:
    def build(s: Scene) -> Iterable[Value] | None:
        x = s.pick(lambda t: t.dtype is dtype)
        if x is None:
            return None
        y = s.pick(lambda t: t.dtype is dtype and broadcast(shape_of(x), t.shape) is not None)
        if y is None or (dtype is F32 and s.draw(st.booleans())):
            y = s.weights(*(d if isinstance(d, int) else 1 for d in shape_of(x)))
        shape = broadcast(shape_of(x), shape_of(y))
        assert shape is not None
        operands = [x, y] if s.draw(st.booleans()) else [y, x]
        return [s.net.op(kind, operands, [TensorType(dtype, shape)])]

    return build


def _matmul(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32 and t.rank >= 2 and isinstance(t.shape[-1], int))
    if x is None:
        return None
    shape, width = shape_of(x), s.size()
    return [s.net.op("MatMul", [x, s.weights(int(shape[-1]), width)], [TensorType(F32, (*shape[:-1], width))])]


def _gemm(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32 and t.rank == 2 and isinstance(t.shape[1], int))
    if x is None:
        return None
    rows, inner = shape_of(x)
    width, transposed = s.size(1), s.draw(st.booleans())
    weight = s.weights(width, int(inner)) if transposed else s.weights(int(inner), width)
    bias = s.weights(width) if s.draw(st.booleans()) else None
    attrs = {"alpha": s.draw(st.sampled_from([1.0, 0.5])), "transB": int(transposed)}
    return [
        s.net.op("Gemm", [x, weight, *([bias] if bias is not None else [])], [TensorType(F32, (rows, width))], attrs)
    ]


def _images(t: TensorType) -> bool:
    """Four axes, none of them empty (ONNX's reference of pooling divides by the batch)."""
    return t.dtype is F32 and t.rank == 4 and t.shape[0] != 0 and all(isinstance(d, int) and d for d in t.shape[1:])


def _conv(s: Scene) -> Iterable[Value] | None:
    x = s.pick(_images)
    if x is None:
        return None
    n, c, h, w = shape_of(x)
    assert isinstance(c, int)
    out, k, group = s.draw(st.integers(1, 4)), s.draw(st.sampled_from([1, 3])), 1
    if s.draw(st.booleans()):
        out = group = c  # depthwise
    pad = k // 2
    bias = s.weights(out) if s.draw(st.booleans()) else None
    attrs = {"group": group, "kernel_shape": Ints((k, k)), "pads": Ints((pad,) * 4)}
    operands = [x, s.weights(out, c // group, k, k), *([bias] if bias is not None else [])]
    return [s.net.op("Conv", operands, [TensorType(F32, (n, out, h, w))], attrs)]


def _batch_norm(s: Scene) -> Iterable[Value] | None:
    x = s.pick(_images)
    if x is None:
        return None
    c = int(shape_of(x)[1])  # type: ignore[arg-type]
    variance = s.net.const(np.abs(floats(s.draw(st.integers(0, 99)), (c,))) + np.float32(0.5))
    operands = [x, s.weights(c), s.weights(c), s.weights(c), variance]
    return [s.net.op("BatchNormalization", operands, [x.type], {"epsilon": 1e-5})]


def _pool(s: Scene) -> Iterable[Value] | None:
    x = s.pick(_images)
    if x is None:
        return None
    shape = shape_of(x)
    return [s.net.op("GlobalAveragePool", [x], [TensorType(F32, (*shape[:2], 1, 1))])]


def _transpose(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32 and t.rank >= 1)
    if x is None:
        return None
    shape = shape_of(x)
    perm = s.draw(st.permutations(range(len(shape))))
    return [s.net.op("Transpose", [x], [TensorType(F32, tuple(shape[i] for i in perm))], {"perm": Ints(perm)})]


def _flatten(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32)
    if x is None:
        return None
    shape = shape_of(x)
    axis = s.draw(st.integers(0, len(shape)))
    result = TensorType(F32, (dims.product(shape[:axis]), dims.product(shape[axis:])))
    return [s.net.op("Flatten", [x], [result], {"axis": axis})]


def _reshape(s: Scene) -> Iterable[Value] | None:
    """Joins the last two axes, or splits off a 1; the batch is kept by a 0 in the shape."""
    x = s.pick(lambda t: t.dtype is F32 and t.rank >= 2 and all(isinstance(d, int) and d > 0 for d in t.shape[1:]))
    if x is None:
        return None
    shape = shape_of(x)
    known = [int(d) for d in shape[1:]]  # type: ignore[arg-type]
    tail = [*known[:-2], known[-2] * known[-1]] if len(known) > 1 and s.draw(st.booleans()) else [*known, 1]
    return [s.net.op("Reshape", [x, s.net.ints(0, *tail)], [TensorType(F32, (shape[0], *tail))])]


def _unsqueeze(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32 and t.rank < 4)
    if x is None:
        return None
    shape = shape_of(x)
    axis = s.draw(st.integers(0, len(shape)))
    return [s.net.op("Unsqueeze", [x, s.net.ints(axis)], [TensorType(F32, (*shape[:axis], 1, *shape[axis:]))])]


def _concat(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32 and t.rank >= 1)
    if x is None:
        return None
    shape = shape_of(x)
    axis = s.draw(st.integers(0, len(shape) - 1))

    def joins(t: TensorType) -> bool:
        same_rank = t.dtype is F32 and t.rank == len(shape)
        return same_rank and t.shape[:axis] == shape[:axis] and t.shape[axis + 1 :] == shape[axis + 1 :]

    y = s.pick(joins)
    assert y is not None
    total = dims.add(shape[axis], shape_of(y)[axis])
    written = axis - len(shape) if s.draw(st.booleans()) else axis
    return [
        s.net.op("Concat", [x, y], [TensorType(F32, (*shape[:axis], total, *shape[axis + 1 :]))], {"axis": written})
    ]


def _split(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32 and any(isinstance(d, int) and d >= 2 for d in t.shape))
    if x is None:
        return None
    shape = shape_of(x)
    axis = s.draw(st.sampled_from([i for i, d in enumerate(shape) if isinstance(d, int) and d >= 2]))
    cut = s.draw(st.integers(0 if s.zero else 1, int(shape[axis]) - 1))  # type: ignore[arg-type]
    parts = (cut, int(shape[axis]) - cut)  # type: ignore[arg-type]
    made = [TensorType(F32, (*shape[:axis], part, *shape[axis + 1 :])) for part in parts]
    return s.net.node("Split", [x, s.net.ints(*parts)], made, {"axis": axis}).results


def _slice(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32 and any(isinstance(d, int) and d >= 1 for d in t.shape))
    if x is None:
        return None
    shape = shape_of(x)
    axis = s.draw(st.sampled_from([i for i, d in enumerate(shape) if isinstance(d, int) and d >= 1]))
    end = s.draw(st.integers(1, int(shape[axis])))  # type: ignore[arg-type]
    start = s.draw(st.integers(0, end - 1))
    operands = [x, s.net.ints(start), s.net.ints(end), s.net.ints(axis)]
    return [s.net.op("Slice", operands, [TensorType(F32, (*shape[:axis], end - start, *shape[axis + 1 :]))])]


def _gather(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32 and t.rank >= 1 and isinstance(t.shape[0], int) and t.shape[0] > 0)
    if x is None:
        return None
    shape = shape_of(x)
    rows = int(shape[0])  # type: ignore[arg-type]
    wanted = s.draw(st.lists(st.integers(-rows, rows - 1), min_size=0 if s.zero else 1, max_size=4))
    return [s.net.op("Gather", [x, s.net.ints(*wanted)], [TensorType(F32, (len(wanted), *shape[1:]))], {"axis": 0})]


def _softmax(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32 and t.rank >= 1)
    return None if x is None else [s.net.op("Softmax", [x], [x.type], {"axis": -1})]


def _layer_norm(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32 and t.rank >= 2 and isinstance(t.shape[-1], int) and t.shape[-1] > 0)
    if x is None:
        return None
    width = int(shape_of(x)[-1])  # type: ignore[arg-type]
    return [s.net.op("LayerNormalization", [x, s.weights(width), s.weights(width)], [x.type], {"axis": -1})]


def _clip(s: Scene) -> Iterable[Value] | None:
    """With an absent lower bound: an operand that is None."""
    x = s.pick(lambda t: t.dtype is F32)
    return None if x is None else [s.net.op("Clip", [x, None, s.net.const(np.float32(0.5))], [x.type])]


def _reduce_sum(s: Scene) -> Iterable[Value] | None:
    """Never of a tensor without elements: ONNX Runtime 1.31 returns that as it is, axes and all."""
    x = s.pick(lambda t: t.dtype is F32 and t.rank >= 1 and 0 not in t.shape)
    if x is None:
        return None
    shape, keep = shape_of(x), s.draw(st.integers(0, 1))
    result = shape[:-1] + ((1,) if keep else ())
    return [s.net.op("ReduceSum", [x, s.net.ints(-1)], [TensorType(F32, result)], {"keepdims": keep})]


def _shape(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.rank >= 1)
    if x is None:
        return None
    value = s.net.op("Shape", [x], [tensor(I64, len(shape_of(x)))])
    value.dims = shape_of(x)
    return [value]


def _cast(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is I64)
    return None if x is None else [s.net.op("Cast", [x], [TensorType(F32, shape_of(x))], {"to": F32.onnx})]


def _less(s: Scene) -> Iterable[Value] | None:
    x = s.pick(lambda t: t.dtype is F32)
    return None if x is None else [s.net.op("Less", [x, s.weights()], [TensorType(BOOL, shape_of(x))])]


def _where(s: Scene) -> Iterable[Value] | None:
    mask = s.pick(lambda t: t.dtype is BOOL)
    if mask is None:
        return None
    x = s.pick(lambda t: t.dtype is F32 and t.shape == shape_of(mask))
    return None if x is None else [s.net.op("Where", [mask, x, s.weights()], [x.type])]


# -- control flow ----------------------------------------------------------------------------------------------------


def _within(s: Scene, net: Net, values: Iterable[Value]) -> Scene:
    return Scene(s.draw, net, [*s.values, *values], s.zero, s.depth + 1, s.kinds)


def _if(s: Scene) -> Iterable[Value] | None:
    """Both branches yield a value of the picked type, computed from captured values (or the captured value itself)."""
    x = s.pick(lambda t: t.dtype is F32)
    if x is None or s.depth >= 2:
        return None
    condition = s.pick(lambda t: t.dtype is BOOL and t.rank == 0)
    if condition is None:
        condition = s.net.const(np.bool_(s.draw(st.booleans())))
    regions = {}
    for name in ("then_branch", "else_branch"):
        inner = _within(s, s.net.body(name), ())
        grow(inner, s.draw(st.integers(0, 2)))
        same = inner.pick(lambda t: t == x.type)
        assert same is not None
        inner.net.output(same)
        regions[name] = inner.net.graph
    return s.net.node("If", [condition], [x.type], regions=regions).results


def _loop(s: Scene) -> Iterable[Value] | None:
    """Carries one value of the picked type and collects it at every turn."""
    x = s.pick(lambda t: t.dtype is F32)
    if x is None or s.depth >= 2:
        return None
    trips = s.draw(st.integers(0 if s.zero else 1, 3))
    body = s.net.body("body")
    body.argument(tensor(I64))
    going = body.argument(tensor(BOOL))
    carried = body.argument(x.type)
    inner = _within(s, body, (going, carried))
    grow(inner, s.draw(st.integers(0, 2)))
    following = inner.pick(lambda t: t == x.type)
    assert following is not None
    for value in (going, following, carried):
        body.output(value)
    stacked = TensorType(F32, (dims.fresh(), *shape_of(x)))
    operands = [s.net.const(np.int64(trips)), None, x]
    return s.net.node("Loop", operands, [x.type, stacked], regions={"body": body.graph}).results


TEMPLATES: Mapping[str, Template] = {
    **{kind: _unary(kind) for kind in ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Identity")},
    **{kind: _binary(kind) for kind in ("Add", "Sub", "Mul", "Max")},
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "GlobalAveragePool": _pool,
    "Transpose": _transpose,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Softmax": _softmax,
    "LayerNormalization": _layer_norm,
    "Clip": _clip,
    "ReduceSum": _reduce_sum,
    "Shape": _shape,
    "Cast": _cast,
    "Less": _less,
    "Where": _where,
}
BODIES: Mapping[str, Template] = {"If": _if, "Loop": _loop}


def grow(scene: Scene, count: int) -> None:
    """Add up to `count` random ops to the scene (a template that finds no fitting operand adds nothing)."""
    for _ in range(count):
        kind = scene.draw(st.sampled_from(sorted(scene.kinds)))
        made = (BODIES.get(kind) or TEMPLATES[kind])(scene)
        scene.values.extend(made or ())


def input_shapes(*, symbolic: bool = True, zero: bool = True) -> st.SearchStrategy[Shape]:
    """Rank 0 to 4; the first axis may be a symbol, sizes may be zero."""
    size = st.integers(0 if zero else 1, 4)
    first: st.SearchStrategy[Dim] = st.one_of(st.just(Sym("N")), size) if symbolic else size
    ranked = st.tuples(first, st.lists(size, max_size=3)).map(lambda t: (t[0], *t[1]))
    images = st.tuples(first, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
    return st.one_of(ranked, images, st.just(()))


@st.composite
def modules(
    draw: DrawFn,
    *,
    kinds: Iterable[str] = tuple(TEMPLATES),
    max_ops: int = 8,
    bodies: bool = True,
    symbolic: bool = True,
    zero: bool = True,
    odd_outputs: bool = True,
) -> Module:
    """A random module. `odd_outputs`: an output may be an input, a constant, or the same value twice."""
    net = Net()
    every = (*kinds, *(BODIES if bodies else ()))
    count = draw(st.integers(1, 3))
    values = [
        net.argument(TensorType(F32, draw(input_shapes(symbolic=symbolic, zero=zero))), f"x{i}") for i in range(count)
    ]
    if draw(st.booleans()):
        values.append(net.input("flag", BOOL))
    scene = Scene(draw, net, values, zero, kinds=every)
    grow(scene, draw(st.integers(0, max_ops)))
    made = [r for op in net.graph.ops for r in op.results]
    pool = [*scene.values, *net.module.constants.values()] if odd_outputs else (made or scene.values)
    outputs = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3, unique=not odd_outputs))
    return net.done(*outputs)


def feeds(module: Module, *, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """Random inputs in [-1, 1] (true or false for bool, 0 to 3 for integers); symbols take `sizes`, else 2."""
    rng = np.random.default_rng(seed)
    made: dict[str, np.ndarray[Any, Any]] = {}
    for value in module.graph.inputs:
        assert isinstance(value.type, TensorType)
        binding = {s.name: (sizes or {}).get(s.name, 2) for d in value.type.shape for s in dims.symbols(d)}
        shape = tuple(dims.evaluate(d, binding) for d in value.type.shape)
        dtype = value.type.dtype
        if dtype is BOOL:
            made[value.name] = rng.integers(0, 2, shape).astype(np.bool_)
        elif dtype.is_integer:
            made[value.name] = rng.integers(0, 4, shape).astype(dtype.numpy)
        else:
            made[value.name] = np.asarray(rng.uniform(-1, 1, shape)).astype(dtype.numpy)
    return made
