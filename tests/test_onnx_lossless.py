"""The lossless law on real models: import and export lose nothing, and what runs is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.lossless import compare
from kit.real import RealModel, all_models, real_models

from mlc.backends.onnx import save
from mlc.frontends.onnx import load


@pytest.fixture
def model(request: pytest.FixtureRequest) -> RealModel:
    from kit.real import real_model

    return real_model(request.param)


@real_models()
def test_real_models(model: RealModel, tmp_path: Path) -> None:
    _holds(model, tmp_path)


@pytest.mark.slow
@all_models()
def test_the_whole_zoo(model: RealModel, tmp_path: Path) -> None:
    _holds(model, tmp_path)


def _holds(model: RealModel, folder: Path) -> None:
    out = folder / "out.onnx"
    save(load(model.path), out)
    verdict = compare(model.path, out, model.feeds())
    assert verdict.holds, verdict
