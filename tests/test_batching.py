"""How many samples a model takes at once: tried, not believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.layers import Layers
from kit.samples import Samples

import mlc
from mlc.backends.runner import OrtRunner
from mlc.ir.core import Module, Value
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError, error
from mlc.passes.base import Context
from mlc.passes.statistics import batch_size

ROWS = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)


def honest(net: Layers, x: Value) -> Value:
    return x


def baked(net: Layers, x: Value) -> Value:
    """[1, 8] left behind by an exporter: the declared batch cannot be run."""
    return net.op("Add", [x, net.reshape(x, 1, 8)])


def mixing(net: Layers, x: Value) -> Value:
    """All samples become one row: every answer depends on its neighbours."""
    return net.op("Add", [x, net.op("ReduceMean", [net.reshape(x, 1, -1), net.ints(1)])])


def model(inner: Callable[[Layers, Value], Value]) -> Module:
    net = Layers()
    x = net.input("x", DType.F32, "N", 8)
    h = net.op("Relu", [net.dense(inner(net, x), 8, 96)])
    return net.done(net.dense(h, 96, 8))


class Counting(OrtRunner):
    def __init__(self) -> None:
        super().__init__()
        self.prepared = 0

    def prepare(self, module: Module, taps: Sequence[str] = ()) -> Any:
        self.prepared += 1
        return super().prepare(module, taps)


def context(rows: np.ndarray = ROWS) -> Context:
    return Context(data=Samples({"x": rows}), runner=Counting())


def test_models_that_keep_their_promise_run_in_batches_and_are_tried_once() -> None:
    ctx, module = context(), model(honest)
    assert batch_size(ctx, module, module.clone()) == 16
    assert batch_size(ctx, module) == 16
    assert ctx.runner.prepared == 1  # type: ignore[union-attr]
    assert ctx.batching.notes() == ()


@pytest.mark.parametrize(("inner", "why"), [(baked, "two samples fail where one runs"), (mixing, "changes with the")])
def test_models_that_break_it_run_one_sample_at_a_time(inner: Callable[..., Value], why: str) -> None:
    ctx, module = context(), model(inner)
    assert batch_size(ctx, module) == 1
    (note,) = ctx.batching.notes()
    assert why in note
    assert ctx.batching.notes() == (), "told once"


def test_another_model_is_tried_as_well() -> None:
    ctx, module = context(), model(baked)
    other = model(honest)
    other.graph.inputs[0].name = "other"
    assert batch_size(ctx, module) == 1
    assert batch_size(Context(data=Samples({"other": ROWS}), runner=ctx.runner, batching=ctx.batching), other) == 16


@pytest.mark.parametrize(("limit", "size"), [(None, 1), (64 << 30, 16)])
def test_large_samples_run_alone_and_are_not_tried_together(limit: int | None, size: int) -> None:
    """What a run makes of sixteen language-model windows is gigabytes, whether or not a limit was given."""
    net = Layers()
    x = net.reshape(net.input("x", DType.F32, "N", 8), -1, 8, 1)
    wide = net.op("Expand", [x, net.ints(1, 8, 20_000_000)])
    module = net.done(net.op("ReduceMax", [wide, net.ints(1, 2)], attrs={"keepdims": 0}))
    ctx = dataclasses.replace(context(ROWS[:1]), max_memory=limit, dims={"N": 1})
    assert batch_size(ctx, module) == size
    assert ctx.runner.prepared == 0  # type: ignore[union-attr]


def test_what_one_sample_fails_with_is_raised() -> None:
    with pytest.raises(MlcError, match="ONNX Runtime cannot run"):
        batch_size(context(ROWS[:, :5]), model(honest))


def test_other_errors_are_no_reason_for_small_batches() -> None:
    class Failing:
        def prepare(self, module: Module, taps: Sequence[str] = ()) -> Any:
            return self

        def run(self, feeds: Any) -> Any:
            if len(feeds["x"]) > 1:
                raise error(Code.CANNOT_HONOUR, "no")
            return {}

    with pytest.raises(MlcError, match="no"):
        batch_size(Context(data=context().data, runner=Failing()), model(honest))


@pytest.mark.parametrize("recipe", ["smooth(mul=always) + weights(4, method=gptq)", "prune(ratio=25%)"])
def test_every_step_that_streams_copes(tmp_path: Path, recipe: str) -> None:
    np.savez(tmp_path / "x.npz", x=ROWS)
    result = mlc.compile(model(baked), recipe, data=tmp_path / "x.npz")
    notes = [note for step in result.report["steps"] for note in step["notes"] if "one sample at a time" in note]
    assert len(notes) == 1
    assert result.report["artifact"] is not None
