"""The oracle of the axis analysis: permute free classes, run, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from kit.conformance import Case
from onnx import ModelProto, numpy_helper

from mlc.backends.ort import Session
from mlc.frontends.onnx import load
from mlc.ir.axes import Axes, analyse
from mlc.ir.constants import Constant
from mlc.ir.core import Module
from mlc.ir.errors import MlcError
from mlc.ir.evaluate import evaluate

Array = np.ndarray[Any, Any]

TOLERANCE = 1e-4  # of a float32 model, relative to an output's largest element
JITTER = 1e-6  # relative: a few roundings of float32
AMPLIFIED = 3.0  # how far beyond the noise of one jitter another rounding may fall


def run(module: Module, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs in ONNX Runtime, unoptimized: differences are the module's."""
    return [np.asarray(y) for y in Session(module, threads=1, optimize=False).run(dict(feeds)).values()]


def relative(a: Sequence[Array], b: Sequence[Array]) -> float:
    """The largest difference of any output, relative to its largest element; infinite for other shapes."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return float("inf")
        wide = np.promote_types(np.result_type(x, y), np.float64)
        gap = np.abs(x.astype(wide) - y.astype(wide)).max(initial=0)
        worst = max(worst, float(gap / (np.abs(x.astype(wide)).max(initial=0) + 1e-30)) if gap else 0.0)
    return worst


def jittered(module: Module, seed: int, scale: float = JITTER) -> Module:
    """A copy whose float constants are off by a relative `scale` (normal): as wrong as another order of sums is.

    Whole numbers stay: they are sizes, masks and steps, and exact in any order.
    """
    rng = np.random.default_rng(seed)
    twin = module.clone()
    for value in twin.constants.values():
        assert value.constant is not None
        array = value.constant.array()
        if array.dtype in (np.float16, np.float32, np.float64):
            noise = np.where(array == np.round(array), 0, scale * rng.standard_normal(array.shape))
            value.constant = Constant.of((array * (1 + noise)).astype(array.dtype))
    return twin


def noise_floor(module: Module, feeds: Mapping[str, Array], before: Sequence[Array], draws: int = 3) -> float:
    """How much the outputs move when weights move by their rounding: what no reordering can be held below."""
    return max(relative(before, run(jittered(module, seed), feeds)) for seed in range(draws))


def judged(
    module: Module, feeds: Mapping[str, Array], before: Sequence[Array], after: Sequence[Array]
) -> tuple[float, float]:
    """The error of outputs that should be the same, and its bar; the noise is only measured where it must be."""
    error = relative(before, after)
    return error, bar(noise_floor(module, feeds, before) if error >= TOLERANCE else 0.0)


def bar(floor: float) -> float:
    """What a permutation may change: the tolerance, or where the model amplifies rounding, a multiple of its noise."""
    return max(TOLERANCE, AMPLIFIED * floor)


def permutations(axes: Axes, seed: int) -> dict[int, Array]:
    """A random order for every free class, never the one that is there."""
    rng = np.random.default_rng(seed)
    return {c.id: _order(c.size, rng) for c in axes.free}


def _order(n: int, rng: np.random.Generator) -> Array:
    order = rng.permutation(n)
    return np.roll(order, 1) if np.array_equal(order, np.arange(n)) else order


def with_constants(case: Case) -> ModelProto | None:
    """The case's model with its inputs as initializers; None if an input is not an array."""
    if not all(isinstance(x, np.ndarray) and x.dtype.kind in "fiub" for x in case.feeds.values()):
        return None
    proto = ModelProto()
    proto.CopyFrom(case.model)
    del proto.graph.input[:]
    proto.graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in case.feeds.items())
    return proto


def equivariant(case: Case) -> tuple[int, str] | None:
    """Permute the operands of a case as its axes allow: the result must come out permuted as the rules say.

    The number of classes that were permuted and what is wrong (empty: nothing); None if the case cannot be asked.
    """
    proto = with_constants(case)
    if proto is None:
        return None
    try:
        module = load(proto)
        before = evaluate(module, {})
    except MlcError:
        return None  # not importable or no reference implementation: nothing to compare with
    axes = analyse(module, pin_outputs=False)
    chosen = permutations(axes, 1)
    after = evaluate(axes.permuted(chosen), {})
    for value, y, z in zip(module.graph.outputs, before, after):
        if not isinstance(y, np.ndarray):
            continue
        for axis, t in enumerate(axes.of(value) or ()):
            index = axes.expand(t, chosen)
            y = y if index is None else np.take(y, index, axis=axis)
        if y.shape != z.shape or not np.allclose(y.astype(float), z.astype(float), 1e-4, 1e-5, equal_nan=True):
            return len(chosen), f"{case.name}: {[axes.text(t) for t in axes.of(value) or ()]}"
    return len(chosen), ""
