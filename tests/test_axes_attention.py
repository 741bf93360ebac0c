"""Attention as one operator, in every form: its classes, permuted in ONNX Runtime, and heads and widths removed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.net import Net
from kit.one_op import Alone
from kit.permute import permutations, relative, run

from mlc.ir.axes import analyse
from mlc.ir.core import Ints, Module
from mlc.ir.dtypes import DType
from mlc.ir.ops.axes_resizer import CannotResize
from mlc.ir.rewrite import Rewriter
from mlc.passes.prune.surgery import remove_units

MS = "com.microsoft::"
Array = np.ndarray[Any, Any]
B, T, P = 2, 5, 3  # batch, sequence, past


def f32(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def tables(length: int, pairs: int) -> list[Array]:
    angles = np.random.default_rng(1).uniform(0, 6, (length, pairs)).astype(np.float32)
    return [np.cos(angles), np.sin(angles)]


def u8(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def i32(*values: Any) -> Array:
    return np.array(values, np.int32)


PAST = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
S, Z = np.array(0.05, np.float32), np.array(128, np.uint8)
GQA = [i32(T - 1, T - 1), np.array(T, np.int32)]
GQA_PAST = [i32(P, P), np.array(P + 1, np.int32)]
Q, K, V = f32(B, T, 24), f32(B, T, 8), f32(B, T, 12)  # six heads of 4, two of 4, two of 6
#: kind, operands, attributes, results, sizes of the free classes.
ROWS: dict[str, tuple[str, list[Array | None], dict[str, Any], int, list[int]]] = {
    # B, T, T: batch, queries, keys; then heads of keys, queries for each, their width, that of the values
    "standard": ("Attention", [Q, K, V], {"q_num_heads": 6, "kv_num_heads": 2}, 1, [6, 5, 5, 4, 3, 2, 2]),
    "standard_causal": (
        "Attention",
        [Q, K, V],
        {"q_num_heads": 6, "kv_num_heads": 2, "is_causal": 1},
        1,
        [6, 4, 3, 2, 2],
    ),
    "standard_heads_first": (
        "Attention",
        [f32(B, 6, T, 4), f32(B, 2, 7, 4), f32(B, 2, 7, 6)],
        {},
        1,
        [7, 6, 5, 4, 3, 2, 2],
    ),
    "standard_cached": (
        "Attention",
        [Q, K, V, f32(6, T, T + P), f32(B, 2, P, 4), f32(B, 2, P, 6)],
        {"q_num_heads": 6, "kv_num_heads": 2},
        3,
        [6, 5, 5, 4, 3, 3, 2, 2],
    ),
    "rotary": (
        "RotaryEmbedding",
        [f32(B, T, 24), *(t.reshape(B, T, 2) for t in tables(B * T, 2))],
        {"num_heads": 6},
        1,
        [6, 5, 2, 2],
    ),
    "rotary_positions": (
        "RotaryEmbedding",
        [f32(B, 6, T, 8), *tables(16, 3), np.tile(np.arange(T), (B, 1))],
        {"rotary_embedding_dim": 6, "interleaved": 1},
        1,
        [6, 5, 3, 2, 2],
    ),
    "fused": (MS + "Attention", [f32(B, T, 10), f32(10, 24), f32(24)], {"num_heads": 2}, 1, [10, 5, 4, 4, 2, 2]),
    "fused_sizes": (
        MS + "Attention",
        [f32(B, T, 10), f32(10, 28), f32(28), PAST],
        {"num_heads": 2, "qkv_hidden_sizes": Ints((8, 8, 12)), "scale": 0.4},
        1,
        [10, 6, 5, 4, 2, 2],
    ),
    "fused_causal": (
        MS + "Attention",
        [f32(B, T, 10), f32(10, 24), f32(24)],
        {"num_heads": 2, "unidirectional": 1},
        1,
        [10, 4, 4, 2, 2],
    ),
    "fused_biased": (
        MS + "Attention",
        [f32(B, T, 10), f32(10, 24), f32(24), None, None, f32(1, 2, T, T)],
        {"num_heads": 2},
        1,
        [10, 5, 4, 4, 2, 2],
    ),
    "fused_present": (
        MS + "Attention",
        [f32(B, T, 10), f32(10, 24), f32(24)],
        {"num_heads": 2},
        2,
        [10, 5, 4, 2, 2],
    ),
    "fused_cached": (
        MS + "Attention",
        [f32(B, T, 10), f32(10, 24), f32(24), None, f32(2, B, 2, P, 4)],
        {"num_heads": 2, "unidirectional": 1},
        2,
        [10, 4, 2, 2],
    ),
    "quantized": (
        MS + "QAttention",
        [u8(B, T, 10), u8(10, 24), f32(24), S, S, None, Z, Z],
        {"num_heads": 2},
        1,
        [10, 5, 4, 4, 2, 2],
    ),
    "multi": (
        MS + "MultiHeadAttention",
        [f32(B, T, 8), f32(B, 7, 8), f32(B, 7, 12), f32(28)],
        {"num_heads": 2},
        1,
        [7, 6, 5, 4, 2, 2],
    ),
    "multi_masked": (
        MS + "MultiHeadAttention",
        [f32(B, T, 8), f32(B, T, 8), f32(B, T, 12), f32(28), PAST, f32(1, 2, T, T)],
        {"num_heads": 2},
        1,
        [6, 5, 5, 4, 2, 2],
    ),
    "multi_heads_first": (
        MS + "MultiHeadAttention",
        [f32(B, T, 8), f32(B, 2, 7, 4), f32(B, 2, 7, 4)],
        {"num_heads": 2},
        1,
        [7, 5, 4, 4, 2, 2],
    ),
    "multi_cached": (
        MS + "MultiHeadAttention",
        [f32(B, T, 8), f32(B, T, 8), f32(B, T, 8), None, None, None, f32(B, 2, P, 4), f32(B, 2, P, 4)],
        {"num_heads": 2},
        3,
        [5, 5, 4, 4, 3, 2, 2],
    ),
    "group": (
        MS + "GroupQueryAttention",
        [f32(B, T, 96), f32(B, T, 32), f32(B, T, 32), None, None, *GQA],
        {"num_heads": 6, "kv_num_heads": 2},
        3,
        [16, 16, 3, 2, 2],
    ),
    "group_packed": (
        MS + "GroupQueryAttention",
        [f32(B, T, 160), None, None, None, None, *GQA],
        {"num_heads": 6, "kv_num_heads": 2},
        3,
        [16, 16, 3, 2, 2],
    ),
    "group_rotary": (
        MS + "GroupQueryAttention",
        [f32(B, T, 192), f32(B, T, 64), f32(B, T, 64), None, None, *GQA, *tables(16, 16)],
        {"num_heads": 6, "kv_num_heads": 2, "do_rotary": 1},
        3,
        [32, 16, 3, 2, 2],
    ),
    "group_cached": (
        MS + "GroupQueryAttention",
        [f32(B, 1, 96), f32(B, 1, 32), f32(B, 1, 32), f32(B, 2, P, 16), f32(B, 2, P, 16), *GQA_PAST],
        {"num_heads": 6, "kv_num_heads": 2},
        3,
        [16, 16, 3, 2, 2],
    ),
    "turned": (
        MS + "RotaryEmbedding",
        [f32(B, T, 24), np.tile(np.arange(T), (B, 1)), *tables(16, 2)],
        {"num_heads": 6},
        1,
        [6, 5, 2, 2],
    ),
}


def _alone(name: str) -> Alone:
    kind, operands, attrs, results, _ = ROWS[name]
    return Alone(kind, operands, attrs, results, opset=23 if "::" not in kind else 21)


@pytest.mark.parametrize("name", ROWS)
def test_permuted(name: str) -> None:
    alone = _alone(name)
    assert alone.sizes == ROWS[name][4]
    for seed in range(3):
        assert alone.permuted(seed) == (len(alone.sizes), "")


@pytest.mark.parametrize("name", ROWS)
def test_removed(name: str) -> None:
    """Heads leave the rest as it is; of what scores and softmax run over, only the shapes are known."""
    alone = _alone(name)
    done = 0
    for c in alone.axes.free:
        try:
            assert alone.removed(only=[c.id]) == (1, "")
            done += 1
        except CannotResize as reason:
            refused = str(reason)
            assert name in ONE_WIDTH and "one width" in refused, refused  # noqa: PT018
    assert len(alone.axes.free) - done == ONE_WIDTH.get(name, 0)


#: Forms in which keys and values have one width, so that neither may shrink alone: how many classes that holds.
ONE_WIDTH = {
    "quantized": 2, "multi_heads_first": 2, "multi_cached": 2,
    "group": 2, "group_packed": 2, "group_rotary": 2, "group_cached": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ONE_WIDTH))
def test_both_widths_shrink_together(name: str) -> None:
    """The same number of positions from keys and values."""
    alone = _alone(name)
    widths = [c for c in alone.axes.free if c.size in (4, 16, 32)]
    assert len(widths) == 2
    kept = {c.id: np.arange(c.size // 2) for c in widths}
    assert alone.without(kept)[1] == ""


def test_what_a_kernel_cannot_run_is_refused() -> None:
    alone = _alone("group")
    with pytest.raises(CannotResize, match="multiple of 8"):
        alone.without({c.id: np.arange(6) for c in alone.axes.free if c.size == 16})


@pytest.mark.parametrize("keys_alone", [False, True])
def test_packed_forms(keys_alone: bool) -> None:
    """No kernel of the CPU takes queries, keys and values in one tensor; unpacked, it is the same function."""
    packed = f32(B, 7, 2, 2 if keys_alone else 3, 4)
    operands = [f32(B, T, 8), packed] if keys_alone else [packed]
    alone = Alone(MS + "MultiHeadAttention", operands, {"num_heads": 2})
    assert alone.sizes == ([7, 5, 4, 2, 2] if keys_alone else [7, 4, 2, 2])
    chosen = {c.id: np.random.default_rng(0).permutation(c.size) for c in alone.axes.free}
    moved = [v.constant.array() for v in alone.axes.permuted(chosen).constants.values()]
    before, after = _unpacked(operands), _unpacked(moved)
    for axis, t in enumerate(alone.axes.of(alone.op.result)):
        index = alone.axes.expand(t, chosen)
        before = before if index is None else np.take(before, index, axis=axis)
    np.testing.assert_allclose(after, before, atol=1e-5)


def _unpacked(operands: list[Array]) -> Array:
    last = operands[-1]
    parts = [last[:, :, :, i].reshape(*last.shape[:2], -1) for i in range(last.shape[3])]
    return Alone(MS + "MultiHeadAttention", [*operands[:-1], *parts], {"num_heads": 2}).run()[0]


@pytest.mark.parametrize(
    ("name", "extra", "code"),
    [
        ("multi_cached", {8: np.array([3], np.int32)}, "beam-search"),
        ("group", {12: f32(8)}, "unknown-option"),
    ],
)
def test_what_has_no_rule_is_pinned_with_its_reason(name: str, extra: dict[int, Array], code: str) -> None:
    kind, operands, attrs, results, _ = ROWS[name]
    longest = max(extra) + 1
    given = [extra.get(i, operands[i] if i < len(operands) else None) for i in range(longest)]
    alone = Alone(kind, given, attrs, results)
    assert alone.sizes == []
    assert {c.pin.code for c in alone.axes.pinned if c.pin is not None} == {code}


def test_the_scale_of_the_trained_width_is_kept() -> None:
    alone = Alone("Attention", [Q, K, V], {"q_num_heads": 6, "kv_num_heads": 2}, opset=23)
    inner = next(c for c in alone.axes.free if "attention-inner" in c.marks)
    _, twin = alone.cut({inner.id: np.arange(2)})
    op = next(iter(twin.graph.ops))
    assert op.attrs["scale"] == pytest.approx(0.5)  # 1 / sqrt(4)
    assert op.operand(0).type.shape == (B, T, 12)


def _layer(kind: str, *, heads: int, kv: int, width: int, causal: dict[str, Any]) -> Module:
    """Projections of an input, attention, and the projection back."""
    net = Net(opset=23)
    net.module.opsets["com.microsoft"] = 1
    x = net.input("x", DType.F32, B, T, 10)
    counts = {"q": heads, "k": kv, "v": kv}
    q, k, v = (net.op("MatMul", [x, net.const(f32(10, n * width), name)]) for name, n in counts.items())
    if kind == "Attention":
        y = net.op(kind, [q, k, v], None, {"q_num_heads": heads, "kv_num_heads": kv, **causal})
    elif kind == MS + "MultiHeadAttention":
        y = net.op(kind, [q, k, v], None, {"num_heads": heads, **causal})
    else:
        y = net.op(kind, [q, k, v, None, None, *map(net.const, GQA)], None, {"num_heads": heads, "kv_num_heads": kv})
    return net.done(net.op("MatMul", [y, net.const(f32(heads * width, 10), "o")]))


@pytest.mark.parametrize(
    ("kind", "heads", "kv", "causal", "sizes"),
    [
        ("Attention", 6, 2, {"is_causal": 1}, [8, 8, 3, 2]),
        (MS + "MultiHeadAttention", 4, 4, {"unidirectional": 1}, [8, 8, 4]),
        (MS + "GroupQueryAttention", 6, 2, {}, [8, 8, 3, 2]),
    ],
)
def test_a_layer_has_the_classes_of_its_primitive_form(
    kind: str, heads: int, kv: int, causal: dict[str, Any], sizes: list[int]
) -> None:
    """Heads, queries for each of them, two widths; and heads can be removed."""
    module = _layer(kind, heads=heads, kv=kv, width=8, causal=causal)
    axes, feeds = analyse(module), {"x": f32(B, T, 10)}
    assert sorted((c.size for c in axes.free), reverse=True) == sizes
    before = run(module, feeds)
    assert relative(before, run(axes.permuted(permutations(axes, 0)), feeds)) < 1e-5
    group = next(c for c in axes.free if c.size == kv)
    small = module.clone()
    remove_units(Rewriter(small), analyse(small), {group.id: np.arange(kv - 1)})
    left = _layer(kind, heads=heads * (kv - 1) // kv, kv=kv - 1, width=8, causal=causal)
    for name, value in left.constants.items():
        if name in "qkvo":
            value.constant = small.constants[name].constant
    assert relative(run(left, feeds), run(small, feeds)) == 0
