"""Streaming statistics and instruments: equal to the direct computation, one run per group, memoised."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from mlc.backends.runner import OrtRunner
from mlc.ir.core import Graph, Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.rewrite import Rewriter
from mlc.ir.types import tensor
from mlc.passes.accumulators import MinMax, Moments
from mlc.passes.base import Context
from mlc.passes.instruments import Drift, PrintChanged, SizeDelta, bisect, cosine, drift, first_diverging
from mlc.passes.pipeline import PlannedStep, run
from mlc.passes.ports import Feeds, Request
from mlc.passes.quantize.fp16 import Fp16
from mlc.passes.rewrite.simplify import Simplify
from mlc.passes.statistics import StreamingStatistics

RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Samples:
    """Rows in memory, handed out in batches."""

    rows: np.ndarray
    names: tuple[str, ...] = ("x",)
    has_labels: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, size: int = 1) -> Iterator[Any]:
        for start in range(0, len(self.rows), size):
            part = self.rows[start : start + size]
            yield _Batch({"x": part}, None, len(part))

    def fingerprint(self) -> str:
        return "rows"


@dataclass(frozen=True)
class _Batch:
    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    n: int


@dataclass
class CountingRunner:
    """Counts how often modules are made ready."""

    inner: OrtRunner = field(default_factory=OrtRunner)
    prepared: list[tuple[str, ...]] = field(default_factory=list)

    def prepare(self, module: Module, taps: Sequence[str] = ()) -> Any:
        self.prepared.append(tuple(taps))
        return self.inner.prepare(module, taps)


def net(scale: float = 1.0) -> Module:
    """x [N, 8] -> MatMul -> Relu -> MatMul -> y [N, 4]."""
    x = Value(tensor(DType.F32, "N", 8), "x")
    module = Module(Graph("g", [x]), opset=21)
    rw = Rewriter(module)
    rng = np.random.default_rng(5)
    first = rw.constant(rng.standard_normal((8, 96), dtype=np.float32), "w1")
    second = rw.constant(rng.standard_normal((96, 4), dtype=np.float32) * np.float32(scale), "w2")
    h = rw.insert("MatMul", [x, first], before=module.graph, names=["h"]).result
    r = rw.insert("Relu", [h], before=module.graph, names=["r"]).result
    y = rw.insert("MatMul", [r, second], before=module.graph, names=["y"]).result
    module.graph._add_output(y, "y")
    return module


@pytest.mark.parametrize("axis", [None, 1])
def test_accumulators_equal_the_direct_computation_and_merge(axis: int | None) -> None:
    rows = RNG.standard_normal((30, 5)).astype(np.float32)
    whole = rows if axis is not None else rows.reshape(-1, 1)
    for split in (7, 15):
        parts = MinMax(axis), MinMax(axis), Moments(axis), Moments(axis)
        for accumulator, values in zip(parts, (rows[:split], rows[split:]) * 2):
            accumulator.update(values)
        parts[0].merge(parts[1])
        parts[2].merge(parts[3])
        low, high = parts[0].result()
        np.testing.assert_array_equal(low, whole.min(axis=0))
        np.testing.assert_array_equal(high, whole.max(axis=0))
        mean, square = parts[2].result()
        np.testing.assert_allclose(mean, whole.mean(axis=0, dtype=np.float64), atol=1e-12)
        np.testing.assert_allclose(square, np.square(whole.astype(np.float64)).mean(axis=0), rtol=1e-12)


def test_all_requests_share_a_run_and_are_memoised() -> None:
    module, rows = net(), RNG.standard_normal((20, 8)).astype(np.float32)
    runner = CountingRunner()
    stats = StreamingStatistics(Samples(rows), runner, batch=6)
    requests = [Request("h", MinMax), Request("r", Moments, axis=1), Request("x", MinMax)]
    found = stats.get(module, requests)
    w1 = module.constants["w1"].constant
    assert w1 is not None
    hidden = rows @ w1.array()
    np.testing.assert_allclose(found[requests[0]][1], hidden.max(), rtol=1e-5)
    np.testing.assert_allclose(found[requests[1]][0], np.maximum(hidden, 0).mean(axis=0), rtol=1e-5)
    assert len(runner.prepared) == 1
    stats.get(module, requests)
    assert len(runner.prepared) == 1, "the memo answers"
    stats.get(net(scale=2.0), requests)
    assert len(runner.prepared) == 2, "another version of the module is run again"


def test_taps_are_chunked_by_memory() -> None:
    runner = CountingRunner()
    module = net()
    stats = StreamingStatistics(Samples(np.zeros((2, 8), np.float32)), runner, max_memory=4)
    stats.get(module, [Request("h", MinMax), Request("r", MinMax)])
    assert runner.prepared == [("h",), ("r",)]


def test_a_tap_that_does_not_exist_is_refused() -> None:
    with pytest.raises(MlcError, match="no value 'nothing'"):
        OrtRunner().prepare(net(), ["nothing"])


def test_instruments_report_sizes_drift_and_changes() -> None:
    module, feeds = net(), [{"x": RNG.standard_normal((3, 8)).astype(np.float32)}]
    runner, stream = OrtRunner(), io.StringIO()
    reference = [runner.prepare(module).run(f) for f in feeds]
    watchers = [SizeDelta(), Drift(runner, feeds, reference), PrintChanged(stream)]
    quiet, loud = run([PlannedStep(Simplify()), PlannedStep(Fp16(min_elements=1))], module, Context(), watchers)
    assert quiet.metrics["before"] == quiet.metrics["after"]
    assert loud.metrics["after"]["bytes"] < loud.metrics["before"]["bytes"]
    assert 0 < loud.metrics["drift"] < 1e-4
    assert stream.getvalue().startswith("// after step 2: fp16")


def test_drift_sees_what_differs() -> None:
    feeds = [{"x": RNG.standard_normal((3, 8)).astype(np.float32)}]
    runner = OrtRunner()
    reference = [runner.prepare(net()).run(f) for f in feeds]
    assert drift(runner, net(), feeds, reference) == pytest.approx(0, abs=1e-12)
    assert drift(runner, net(scale=-1.0), feeds, reference) == pytest.approx(2, abs=1e-6)
    assert cosine(np.zeros(3), np.zeros(3)) == 1.0
    assert cosine(np.ones(3), np.ones(4)) == 0.0
    assert cosine(np.array([1.0, np.inf]), np.array([1.0, 2.0])) == 0.0
    with np.errstate(over="ignore"):
        assert cosine(np.array([1e200, 1.0]), np.array([1e200, 2.0])) == 0.0, "squares that overflow tell nothing"


def test_drift_sees_outputs_of_one_number() -> None:
    """Two numbers of the same sign always have cosine 1: the samples together are the vector."""

    class Scalars:
        def __init__(self, *outputs: float) -> None:
            self._outputs = iter(outputs)

        def prepare(self, module: Module, taps: Sequence[str] = ()) -> Scalars:
            return self

        def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
            return {"y": np.array([[next(self._outputs)]], np.float32)}

    reference: list[dict[str, np.ndarray]] = [{"y": np.array([[v]], np.float32)} for v in (3.0, 4.0)]
    feeds: list[dict[str, np.ndarray]] = [{}, {}]
    assert drift(Scalars(4.0, 3.0), net(), feeds, reference) == pytest.approx(1 - 24 / 25)
    assert drift(Scalars(3.0, 4.0), net(), feeds, reference) == 0.0
    assert drift(Scalars(3.0, np.nan), net(), feeds, reference) == 1.0


def test_the_first_diverging_op_is_named() -> None:
    feeds = {"x": RNG.standard_normal((3, 8)).astype(np.float32)}
    before, after = net(), net()
    rw = Rewriter(after, by="test")
    flipped = rw.constant(-1 * np.ones((96, 4), np.float32), "flipped")
    (last,) = (u.op for u in after.constants["w2"].uses)
    rw.set_operand(last, 1, flipped)
    found = first_diverging(OrtRunner(), before, after, feeds)
    assert found is not None
    assert found[0] == last.name
    assert first_diverging(OrtRunner(), before, net(), feeds) is None


def test_bisect_names_the_step_that_breaks_a_condition() -> None:
    steps = [PlannedStep(Simplify()), PlannedStep(Simplify(fold_affine=True)), PlannedStep(Fp16(min_elements=1))]

    def untouched(module: Module) -> bool:
        return all(v.constant is not None and v.constant.dtype is DType.F32 for v in module.constants.values())

    assert bisect(steps, net(), Context(), untouched) == 2
    assert bisect(steps[:1], net(), Context(), untouched) is None
