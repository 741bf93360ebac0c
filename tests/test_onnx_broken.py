"""Every broken model ends in one MlcError that says what, where and what to do; nothing else ever escapes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from kit.broken_models import BROKEN, Broken, good

from mlc.frontends.onnx import load
from mlc.frontends.onnx_weights import check_weights
from mlc.ir.errors import MlcError


@pytest.mark.parametrize("case", BROKEN, ids=lambda c: c.name)
def test_one_clear_error(case: Broken, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = case.write(folder)
    if case.weights_only:
        module = load(path)
        with pytest.raises(MlcError) as caught:
            check_weights(module)
    else:
        with pytest.raises(MlcError) as caught:
            load(path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code.code == case.code, str(caught.value)
    assert case.says in str(caught.value)
    assert diagnostic.help, "what to do is said"
    assert len(str(caught.value)) < 1000
    if not case.weights_only and path.exists():
        assert str(path) in str(caught.value), "the file is named"


def test_there_are_enough() -> None:
    assert len({case.name for case in BROKEN}) == len(BROKEN) >= 25


def test_the_model_they_are_made_from_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "good.onnx"
    path.write_bytes(good().SerializeToString())
    check_weights(load(path))


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_never_escape_as_anything_else(seed: int, tmp_path: Path) -> None:
    """Random damage: the file loads, or an MlcError is raised."""
    rng = np.random.default_rng(seed)
    data = bytearray(good().SerializeToString())
    for _ in range(int(rng.integers(1, 8))):
        data[rng.integers(len(data))] = rng.integers(256)
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
    with contextlib.suppress(MlcError):
        load(path)
