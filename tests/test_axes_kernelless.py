"""Axis rules of operators that ONNX Runtime runs on other devices only, against what they compute, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erf
from typing import Any

import numpy as np
import pytest
from kit.one_op import Alone

from mlc.ir.core import Op

MS = "com.microsoft::"
Array = np.ndarray[Any, Any]


def f32(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def nhwc_conv(op: Op, x: Array, w: Array, b: Array) -> Sequence[Array]:
    """The same convolution with its channels first."""
    first = [np.moveaxis(t, -1, 1).copy() for t in (x, w)]
    found = Alone("Conv", [*first, b], dict(op.attrs)).run()[0]
    return [np.moveaxis(found, 1, -1)]


def group_norm(op: Op, x: Array, scale: Array, shift: Array) -> Sequence[Array]:
    groups = op.attrs["groups"]
    n, *space, c = x.shape
    split = x.reshape(n, -1, groups, c // groups)
    mean, variance = (f(split, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    normed = ((split - mean) / np.sqrt(variance + 1e-5)).reshape(n, *space, c)
    return [normed * scale + shift]


def skip_group_norm(op: Op, x: Array, scale: Array, shift: Array, skip: Array, bias: Array) -> Sequence[Array]:
    skip = skip[:, None, None, :] if skip.ndim == 2 else skip
    total = x + skip + bias
    return [*group_norm(op, total, scale, shift), total]


def split_gelu(op: Op, x: Array, bias: Array) -> Sequence[Array]:
    value, gate = np.split(x + bias, 2, axis=-1)
    return [value * gate * 0.5 * (1 + np.vectorize(erf)(gate / np.sqrt(2)))]


def bias_add(op: Op, x: Array, bias: Array, skip: Array) -> Sequence[Array]:
    return [x + bias + skip]


def einsum(op: Op, a: Array, b: Array) -> Sequence[Array]:
    return [np.einsum(str(op.attrs["equation"]), a, b)]


def gru_batch_first(op: Op, x: Array, w: Array, r: Array, b: Array, lengths: Array, state: Array) -> Sequence[Array]:
    """The same layer with time first."""
    attrs = {k: v for k, v in op.attrs.items() if k != "layout"}
    x, state = (np.swapaxes(t, 0, 1).copy() for t in (x, state))
    y, last = Alone("GRU", [x, w, r, b, lengths, state], attrs, 2).run()
    return [np.moveaxis(y, 2, 0), np.swapaxes(last, 0, 1)]


ROWS: dict[str, tuple[str, list[Array], dict[str, Any], int, Callable[..., Sequence[Array]], list[int]]] = {
    "conv": (MS + "NhwcConv", [f32(2, 5, 5, 4), f32(8, 3, 3, 4), f32(8)], {}, 1, nhwc_conv, [8, 4, 2]),
    "conv_groups": (
        MS + "NhwcConv",
        [f32(2, 5, 5, 6), f32(4, 3, 3, 3), f32(4)],
        {"group": 2},
        1,
        nhwc_conv,
        [3, 2, 2, 2],
    ),
    "norm": (MS + "GroupNorm", [f32(2, 4, 5, 6), f32(6), f32(6)], {"groups": 3}, 1, group_norm, [5, 4, 3, 2, 2]),
    "skip_norm": (
        MS + "SkipGroupNorm",
        [f32(2, 4, 5, 6), f32(6), f32(6), f32(2, 6), f32(6)],
        {"groups": 3},
        2,
        skip_group_norm,
        [5, 4, 3, 2, 2],
    ),
    "skip_norm_whole": (
        MS + "SkipGroupNorm",
        [f32(2, 4, 5, 6), f32(6), f32(6), f32(2, 4, 5, 6), f32(6)],
        {"groups": 2},
        2,
        skip_group_norm,
        [5, 4, 3, 2, 2],
    ),
    "split_gelu": (MS + "BiasSplitGelu", [f32(2, 3, 8), f32(8)], {}, 1, split_gelu, [4, 3, 2]),
    # the runtime wants the same number of axes under every ellipsis
    "einsum": (
        "Einsum",
        [f32(6, 2, 3, 4), f32(2, 4, 5)],
        {"equation": "...ij,...jk->...ik"},
        1,
        einsum,
        [6, 5, 4, 3, 2],
    ),
    "gru": (
        "GRU",
        [f32(3, 6, 5), f32(2, 12, 5), f32(2, 12, 4), f32(2, 24), np.array([6, 2, 4], np.int32), f32(3, 2, 4)],
        {"hidden_size": 4, "layout": 1, "direction": "bidirectional"},
        2,
        gru_batch_first,
        [5, 4, 3],
    ),
    "bias_add": (MS + "BiasAdd", [f32(2, 3, 8), f32(8), f32(2, 3, 8)], {}, 1, bias_add, [8, 3, 2]),
}


def _alone(name: str) -> Alone:
    kind, operands, attrs, results, oracle, _ = ROWS[name]
    return Alone(kind, operands, attrs, results, oracle=oracle)


@pytest.mark.parametrize("name", ROWS)
def test_permuted(name: str) -> None:
    alone = _alone(name)
    assert alone.sizes == ROWS[name][-1]
    for seed in range(3):
        assert alone.permuted(seed) == (len(alone.sizes), "")


@pytest.mark.parametrize("name", ROWS)
def test_removed(name: str) -> None:
    alone = _alone(name)
    for c in alone.axes.free:
        assert alone.removed(only=[c.id], shapes=name == "gru") == (1, "")
