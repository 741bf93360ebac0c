"""Observers: exact under growth and merge, the laws of range estimators, golden numbers, memory that is bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.net import Net
from kit.real import RealModel, real_models
from kit.samples import Samples

from mlc.backends.runner import OrtRunner
from mlc.frontends.onnx import load
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.quant import QSpec, dequantize, grid, quantize
from mlc.passes.accumulators import AverageRange, Channels, MinMax, MovingRange
from mlc.passes.histogram import BINS, Histogram
from mlc.passes.linear import linear_of
from mlc.passes.ports import Accumulator, Request
from mlc.passes.quantize.observe import OBSERVERS
from mlc.passes.quantize.observe.base import Observer
from mlc.passes.quantize.observe.mse import squared_error
from mlc.passes.quantize.observe.percentile import Percentile
from mlc.passes.quantize.observe.ranges import MovingAverage
from mlc.passes.statistics import StreamingStatistics

U8, S8, U4 = QSpec(8, False, False), QSpec(8, True, True), QSpec(4, False, False)
CHANNELS_U8 = QSpec(8, False, False, axis=0)
EVERY = pytest.mark.parametrize("name", list(OBSERVERS))

#: Shapes of distributions; draws of a generator.
DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(-1, 1, n),
    "relu": lambda rng, n: np.maximum(rng.normal(size=n), 0),
    "laplace": lambda rng, n: rng.laplace(size=n),
    "negative": lambda rng, n: -np.abs(rng.normal(size=n)),
    "few values": lambda rng, n: rng.integers(-3, 9, n) * 0.125,
    "far from zero": lambda rng, n: 100 + rng.normal(size=n),
    "tiny": lambda rng, n: rng.normal(size=n) * 1e-30,
    "outliers": lambda rng, n: rng.standard_t(2, n),
}


def draw(kind: str, n: int = 20000, seed: int = 0) -> np.ndarray:
    return DRAWS[kind](np.random.default_rng(seed), n).astype(np.float32)


def gathered(kind: type[Accumulator], parts: Sequence[np.ndarray], axis: int | None = None) -> Any:
    accumulator = kind(axis)
    for part in parts:
        accumulator.update(part)
    return accumulator.result()


def bounds(observer: Observer, data: np.ndarray, spec: QSpec, *, parts: int = 5) -> tuple[np.ndarray, np.ndarray]:
    result = gathered(observer.accumulator, np.array_split(data, parts))
    return observer.bounds(result, spec)


def error(data: np.ndarray, ends: tuple[np.ndarray, np.ndarray], spec: QSpec) -> float:
    scale, zero = grid(*ends, spec)
    found = dequantize(quantize(data, scale, zero, spec), scale, zero, spec)
    return float(np.square(found.astype(np.float64) - data).mean())


def equal_bins(a: Any, b: Any) -> None:
    for name in ("counts", "width", "first", "zeros", "low", "high"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


# -- the histogram -----------------------------------------------------------------------------------------------------

scales = st.sampled_from([1e-38, 1e-3, 0.7, 1.0, 300.0, 1e30])


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.tuples(st.sampled_from(list(DRAWS)), scales, st.integers(0, 99)), min_size=2, max_size=5),
    split=st.integers(1, 4),
    order=st.randoms(use_true_random=False),
)
def test_a_histogram_depends_on_the_values_only(kinds: list[Any], split: int, order: Any) -> None:
    """Whatever the order of updates and however runs are merged: the same bins."""
    parts = [(draw(kind, 200, seed) * np.float32(scale)).reshape(2, -1) for kind, scale, seed in kinds]
    for axis in (None, 0):
        whole = gathered(Histogram, [np.concatenate(parts, axis=1)], axis)
        equal_bins(gathered(Histogram, order.sample(parts, len(parts)), axis), whole)
        first, second = Histogram(axis), Histogram(axis)
        for part in parts[:split]:
            first.update(part)
        for part in parts[split:]:
            second.update(part)
        first.merge(second)
        first.merge(Histogram(axis))
        equal_bins(first.result(), whole)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(list(DRAWS)), scale=scales, n=st.integers(1, 400))
def test_bins_count_what_lies_in_them(kind: str, scale: float, n: int) -> None:
    data = draw(kind, n) * np.float32(scale)
    bins = gathered(Histogram, np.array_split(data, 3))
    edges = (bins.first[0] + np.arange(BINS + 1)) * bins.width[0]
    wanted = np.histogram(data[data != 0].astype(np.float64), np.append(edges[:-1], edges[-1]))[0]
    assert int(bins.total[0]) == n
    assert int(bins.zeros[0]) == int((data == 0).sum())
    np.testing.assert_array_equal(bins.counts[0], wanted)
    assert (bins.low[0], bins.high[0]) == (data.min(), data.max())
    if data.any():  # at least half of the bins are of use
        assert max(data.max(), 0) - min(data.min(), 0) > bins.width[0] * (BINS // 2 - 1)


def test_a_histogram_of_nothing_and_of_what_is_not_finite() -> None:
    for parts in ([], [np.zeros(0, np.float32)]):
        assert np.isnan(gathered(Histogram, parts).low).all()
        assert np.isnan(gathered(MinMax, parts)[0]).all()
    zeros = gathered(Histogram, [np.zeros(7, np.float32)])
    assert (zeros.low[0], zeros.high[0], int(zeros.total[0])) == (0, 0, 7)
    rows = np.array([[1, np.inf, 2], [1, np.nan, 2], [1, 3, 2], [np.nan, np.inf, -np.inf]], np.float32)
    bins = gathered(Histogram, [rows], axis=0)
    np.testing.assert_array_equal(np.isnan(bins.low), [True, True, False, True])
    np.testing.assert_array_equal(bins.total, [2, 2, 3, 0])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.float32])
def test_a_histogram_takes_every_kind_of_number(dtype: Any) -> None:
    data = np.array([-3, 0, 1, 1, 5], dtype)
    bins = gathered(Histogram, [data])
    assert int(bins.total[0]) == 5
    assert int(bins.counts[0, int(1 / bins.width[0]) - int(bins.first[0])]) == 2


def test_averages_and_moving_averages_merge() -> None:
    parts = [draw("normal", 50, seed).reshape(5, 10) for seed in range(7)]
    ends = np.stack([[p.min(axis=1), p.max(axis=1)] for p in parts]).astype(np.float64)
    for split in (0, 1, 4, 7):
        for kind, wanted in ((AverageRange, ends.mean(axis=0)), (MovingRange, moving(ends, 0.99))):
            first, second = kind(0), kind(0)
            for part in parts[:split]:
                first.update(part)
            for part in parts[split:]:
                second.update(part)
            first.merge(second)  # type: ignore[arg-type]
            np.testing.assert_allclose(np.stack(first.result()), wanted, rtol=1e-12)
    assert MovingAverage(0.9).accumulator is MovingAverage(0.9).accumulator, "requests of the same momentum are equal"
    found = gathered(MovingAverage(0.5).accumulator, parts, 0)
    np.testing.assert_allclose(np.stack(found), moving(ends, 0.5), rtol=1e-12)


def moving(ends: np.ndarray, momentum: float) -> np.ndarray:
    state = ends[0]
    for end in ends[1:]:
        state = momentum * state + (1 - momentum) * end
    return state


# -- laws --------------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("kind", list(DRAWS))
@pytest.mark.parametrize("spec", [U8, S8, U4])
def test_ranges_hold_zero_and_lie_within_the_data(name: str, kind: str, spec: QSpec) -> None:
    data = draw(kind)
    low, high = bounds(OBSERVERS[name], data, spec)
    assert low.shape == high.shape == spec.scale_shape(data.shape)
    assert low.dtype == high.dtype == np.float32
    assert min(data.min(), 0) <= low <= 0 <= high <= max(data.max(), 0)
    assert high > low


@EVERY
@pytest.mark.parametrize("kind", ["normal", "relu", "outliers"])
@pytest.mark.parametrize("spec", [U8, S8])
def test_equivariant_under_scale(name: str, kind: str, spec: QSpec) -> None:
    data = draw(kind)
    low, high = bounds(OBSERVERS[name], data, spec)
    double = bounds(OBSERVERS[name], data * 1024, spec)
    np.testing.assert_array_equal(np.stack(double), np.stack([low, high]) * 1024)
    if name != "entropy":  # a divergence of sparse bins is noisy in its minimum
        third = bounds(OBSERVERS[name], data * np.float32(3), spec)  # bins fall otherwise
        np.testing.assert_allclose(np.stack(third), np.stack([low, high]) * 3, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("name", ["percentile", "mse", "entropy"])
def test_equivariant_under_sign_when_symmetric(name: str) -> None:
    data = draw("outliers")
    most = [max(high, -low) for low, high in (bounds(OBSERVERS[name], d, S8) for d in (data, -data))]
    assert most[0] == pytest.approx(most[1], rel=2e-3)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(DRAWS)),
    spec=st.sampled_from([U8, S8, U4, QSpec(2, True, True)]),
    seed=st.integers(0, 99),
    n=st.integers(2, 5000),
)
def test_least_squares_is_never_worse_than_min_max(kind: str, spec: QSpec, seed: int, n: int) -> None:
    data = draw(kind, n, seed)
    bins = gathered(Histogram, [data])
    found, full = (OBSERVERS[k].window(r, spec) for k, r in (("mse", bins), ("minmax", gathered(MinMax, [data]))))
    wide = np.minimum(full[0], 0), np.maximum(full[1], 0)
    assert squared_error(bins, *found, spec) <= squared_error(bins, *wide, spec)
    if n >= 1000 and kind != "few values":  # on the values themselves, where bins say something of them
        assert error(data, bounds(OBSERVERS["mse"], data, spec), spec) <= 1.02 * error(data, wide, spec)


@pytest.mark.parametrize("spec", [U8, S8, U4])
@pytest.mark.parametrize("kind", ["normal", "uniform", "relu", "laplace"])
def test_the_error_on_bins_is_the_error_on_values(kind: str, spec: QSpec) -> None:
    data = draw(kind, 100_000)
    bins = gathered(Histogram, [data])
    for share in (1.0, 0.6):
        ends = tuple(np.array([share * e], np.float32) for e in (min(0, data.min()), data.max()))
        found = float(squared_error(bins, *ends, spec)[0]) / data.size
        plain = tuple(e.reshape(()) for e in ends)
        assert found == pytest.approx(error(data, plain, spec), rel=0.01)  # type: ignore[arg-type]


def test_entropy_keeps_a_clean_uniform_distribution() -> None:
    for spec in (U8, S8):
        low, high = bounds(OBSERVERS["entropy"], draw("uniform", 200_000), spec)
        assert max(high, -low) > 0.99


@pytest.mark.parametrize(("name", "spec"), [("entropy", U8), ("entropy", S8), ("percentile", U8), ("mse", U4)])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_outlier_is_clipped(name: str, spec: QSpec, sign: int) -> None:
    data = np.append(draw("normal"), np.float32(sign * 100))
    low, high = bounds(OBSERVERS[name], data, spec)
    assert max(high, -low) < 15
    minmax = bounds(OBSERVERS["minmax"], data, spec)
    assert max(minmax[1], -minmax[0]) == 100


def test_least_squares_clips_an_outlier_when_that_pays() -> None:
    """At 8 bits one value in a thousand is worth the range, one in ten million is not."""
    many = np.append(draw("normal", 3_000_000), np.float32(20))
    assert bounds(OBSERVERS["mse"], many, S8)[1] < 8
    few = np.append(draw("normal", 1000), np.float32(20))
    assert bounds(OBSERVERS["mse"], few, S8)[1] > 15


@pytest.mark.parametrize("percent", [99.0, 99.9, 99.99])
@pytest.mark.parametrize("kind", ["normal", "relu", "outliers", "negative", "far from zero"])
def test_percentiles_are_exact_to_a_bin(percent: float, kind: str) -> None:
    data = draw(kind, 50_000)
    observer, outside = Percentile(percent), 1 - percent / 100
    width = 1.001 * float(gathered(Histogram, [data]).width[0])
    low, high = bounds(observer, data, S8)
    most = max(high, -low)
    assert (np.abs(data) > most).mean() <= outside + 1e-9 < (np.abs(data) >= most - width).mean()
    low, high = bounds(observer, data, U8)
    if high > 0:
        assert (data > high).mean() <= outside / 2 + 1e-9 < (data >= high - width).mean()
    if low < 0:
        assert (data < low).mean() <= outside / 2 + 1e-9 < (data <= low + width).mean()


@EVERY
def test_constant_and_empty_tensors(name: str) -> None:
    observer = OBSERVERS[name]
    assert [float(e) for e in bounds(observer, np.full(9, 3, np.float32), U8)] == [0, 3]
    assert [float(e) for e in bounds(observer, np.zeros(9, np.float32), U8)] == [0, 0]
    assert not np.isfinite(bounds(observer, np.zeros(0, np.float32), U8)).all()
    assert not np.isfinite(bounds(observer, np.array([1, np.nan], np.float32), U8)).all()
    assert not np.isfinite(bounds(observer, np.array([1, -np.inf], np.float32), S8)).all()


@EVERY
def test_channels_are_independent(name: str) -> None:
    """Ranges of an axis are those of the channels by themselves."""
    kinds = list(DRAWS)
    data = np.stack([draw(kind, 3000) for kind in kinds])
    low, high = OBSERVERS[name].bounds(gathered(OBSERVERS[name].accumulator, [data], 0), CHANNELS_U8)
    for i, kind in enumerate(kinds):
        alone = bounds(OBSERVERS[name], draw(kind, 3000), U8, parts=1)
        np.testing.assert_array_equal([low[i], high[i]], alone)


#: (low, high) of 20,000 draws in five parts.
GOLDEN = {
    "normal": {
        "minmax": (-4.02316, 3.94555), "average": (-3.56513, 3.5058), "ema": (-3.88295, 3.26952),
        "percentile": (-3.92188, 3.82422), "mse": (-3.78834, 3.78834), "entropy": (-4.02316, 3.94555),
    },
    "relu": {
        "minmax": (0, 3.94555), "average": (0, 3.5058), "ema": (0, 3.26952),
        "percentile": (0, 3.82422), "mse": (0, 3.90844), "entropy": (0, 3.94555),
    },
    "outliers": {
        "minmax": (-126.242, 165.856), "average": (-104.159, 80.8106), "ema": (-118.423, 161.685),
        "percentile": (-119.25, 140.5), "mse": (-119.57, 157.39), "entropy": (-39.125, 39.125),
    },
}  # fmt: skip


@EVERY
@pytest.mark.parametrize("kind", list(GOLDEN))
def test_golden(name: str, kind: str) -> None:
    np.testing.assert_allclose(bounds(OBSERVERS[name], draw(kind), U8), GOLDEN[kind][name], rtol=1e-4)


# -- streaming ---------------------------------------------------------------------------------------------------------


@dataclass
class Counting:
    """Counts how often models are made ready."""

    runner: OrtRunner = field(default_factory=OrtRunner)
    prepared: int = 0

    def prepare(self, module: Module, taps: Sequence[str] = ()) -> Any:
        self.prepared += 1
        return self.runner.prepare(module, taps)


def wide_net(width: int = 64) -> tuple[Module, dict[str, np.ndarray]]:
    net = Net()
    x = net.input("x", DType.F32, "N", 8)
    y = net.op("Relu", [net.op("MatMul", [x, net.const(draw("normal", 8 * width).reshape(8, width), "w")])])
    return net.done(y), {"x": draw("normal", 80).reshape(10, 8)}


def test_histograms_of_channels_keep_to_the_memory_limit() -> None:
    """A statistic larger than the budget is gathered in ranges of channels, with the same result."""
    module, feeds = wide_net()
    (y,) = module.graph.outputs
    request = OBSERVERS["mse"].request(y.name, axis=1)
    free, tight = Counting(), Counting()
    whole = StreamingStatistics(Samples(feeds), free).get(module, [request])[request]
    budget = 4 * 20 * Histogram.nbytes(1)  # a quarter of it holds 20 of 64 channels
    parts = StreamingStatistics(Samples(feeds), tight, max_memory=budget).get(module, [request])[request]
    equal_bins(whole, parts)
    assert (free.prepared, tight.prepared) == (1, 4)


def test_every_bulky_accumulator_says_how_much_it_holds() -> None:
    data = np.ones((40, 3), np.float32)
    for observer in OBSERVERS.values():
        kind = observer.accumulator
        assert issubclass(kind, Channels)
        accumulator = kind(0)
        accumulator.update(data)
        held = sum(a.nbytes for v in vars(accumulator).values() for a in (v if isinstance(v, tuple) else (v,))
                   if isinstance(a, np.ndarray))  # fmt: skip
        assert held <= kind.nbytes(40)


@real_models("minilm", "silero_vad")
def test_every_observer_on_every_weighted_operator(model: RealModel) -> None:
    """Where ONNX Runtime's own entropy calibration stops with 'too many bins', among others."""
    module = load(model.path)
    found = [linear_of(op) for op in module.graph.ops]
    inputs = list(dict.fromkeys(x.data.name for x in found if x is not None))
    observers = [OBSERVERS[n] for n in OBSERVERS]
    requests = [o.request(v) for o in observers for v in inputs]
    feeds = [model.feeds(seed) for seed in range(3)]
    data = Samples({k: np.stack([f[k] for f in feeds]) for k in feeds[0]}, whole=True)
    results = StreamingStatistics(data, OrtRunner()).get(module, requests)
    widest = {v: results[OBSERVERS["minmax"].request(v)] for v in inputs}
    for observer in observers:
        for value in inputs:
            low, high = observer.bounds(results[Request(value, observer.accumulator)], U8)
            assert min(0, widest[value][0][0]) <= low <= 0 <= high <= max(0, widest[value][1][0])
            assert high > low
