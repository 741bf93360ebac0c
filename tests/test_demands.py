"""What a graph demands of its inputs: refused is what the runtime refuses, and nothing that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import demanding
from kit.real import RealModel, real_models

import mlc
from mlc.backends.ort import Session
from mlc.backends.probe import synthetic
from mlc.ir.demands import Demands
from mlc.ir.dims import Sym
from mlc.ir.errors import MlcError
from mlc.ir.types import TensorType

TEXTS = [demanding.sliced, demanding.counted_by_length, demanding.buffered, demanding.counted_by_tokens]


def refused(demands: Demands, feeds: dict[str, Any]) -> bool:
    typed = demands.typed(tuple(array.shape for array in feeds.values()))
    return typed.refusal is not None or demands.beyond(feeds) is not None


def runs(session: Session, feeds: dict[str, Any]) -> bool:
    try:
        session.run(feeds)
    except MlcError:
        return False
    return True


@pytest.mark.parametrize("build", TEXTS, ids=lambda b: b.__name__)
def test_numbers_and_lengths_are_judged_as_the_runtime_does(build: demanding.Build, tmp_path: Path) -> None:
    path = demanding.write(tmp_path, build)
    demands, session = Demands(mlc.load(path)), Session(path)
    rng = np.random.default_rng(0)
    outcomes = set()
    for length in (1, 2, 13, 14, 15, 16, 17, 40):
        for high in (2, 50, 51, 60):
            ids = rng.integers(0, high, (2, length))
            ids[0, 0] = high - 1
            for feeds in ({"input_ids": ids}, {"input_ids": np.where(ids > 30, 1, ids)}, {"input_ids": -ids}):
                assert refused(demands, feeds) is not runs(session, feeds), (length, high, feeds)
                outcomes.add(refused(demands, feeds))
    assert outcomes == {True, False}


def test_sides_are_judged_as_the_runtime_does(tmp_path: Path) -> None:
    path = demanding.write(tmp_path, demanding.halved)
    demands, session = Demands(mlc.load(path)), Session(path)
    for height in range(1, 14):
        for width in (4, 5, 8):
            feeds = {"x": np.ones((1, 3, height, width), np.float32)}
            assert refused(demands, feeds) is not runs(session, feeds), (height, width)


def test_sizes_that_would_do(tmp_path: Path) -> None:
    text = Demands(mlc.load(demanding.write(tmp_path, demanding.sliced)))
    for length in (17, 20, 33, 100, 5000):
        nearest = text.nearest(((1, length),))
        assert nearest is not None
        assert (nearest.input, nearest.shape, nearest.axis) == ("input_ids", (1, 16), 1)
    image = Demands(mlc.load(demanding.write(tmp_path, demanding.halved)))
    side = image.nearest(((1, 3, 8, 31),))
    assert side is not None
    assert (side.shape, side.axis) == ((1, 3, 8, 28), 3)
    both = image.nearest(((1, 3, 33, 46),))
    assert both is not None
    assert (both.shape, both.axis) == ((1, 3, 32, 44), None)


def test_what_is_told_of_a_number(tmp_path: Path) -> None:
    demands = Demands(mlc.load(demanding.write(tmp_path, demanding.counted_by_tokens)))
    beyond = demands.beyond({"input_ids": np.array([[3, 50]])})
    assert beyond is not None
    assert (beyond.inputs, beyond.fed, beyond.number, beyond.rows, beyond.table) == (
        ("input_ids",), True, 50, 50, "words",
    )  # fmt: skip
    beyond = demands.beyond({"input_ids": np.full((1, 15), 49)})
    assert beyond is not None
    assert (beyond.inputs, beyond.fed, beyond.number, beyond.rows, beyond.table) == (
        ("input_ids",), False, 16, 16, "table",
    )  # fmt: skip


@real_models("minilm", "ppocr_cls", "ppocrv4_det", "ppocrv4_rec", "t5_encoder_int8", "ddddocr_ocr")
def test_what_runs_is_not_refused(model: RealModel) -> None:
    """Sizes around those that synthetic samples have, on real models: never refused where the runtime runs."""
    path = model.path
    module, session = mlc.load(path), Session(path)
    demands = Demands(module)
    probes = synthetic(module, session.run, dims={}, rng=np.random.default_rng(0), samples=1)
    kinds = {v.name: v.type for v in module.graph.inputs}
    for change in (0, -1, 1, 3, -16):
        feeds = {name: _resized(array, kinds[name], change) for name, array in probes.feeds[0].items()}
        if runs(session, feeds):
            assert not refused(demands, feeds), change


def _resized(array: Any, kind: Any, change: int) -> Any:
    """An input with its free axes but the first so much longer; ids and numbers are repeated."""
    assert isinstance(kind, TensorType)
    for axis, dim in enumerate(kind.shape):
        if axis and isinstance(dim, Sym):
            array = np.take(array, range(max(1, array.shape[axis] + change)), axis=axis, mode="wrap")
    return array
