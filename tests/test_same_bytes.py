"""Same inputs and seed: the same bytes, in another process, another folder and with another hash seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kit.process import mlc_process
from kit.real import RealModel, real_model

SAMPLES = 8
RECIPES = {
    "int8 with data": ("ppocr_cls", "int8", True),
    "int4": ("mnist_cnn", "int4", False),
    "prune with data": ("mnist_cnn", "prune(30%)", True),
    "smooth and int8": ("mnist_cnn", "smooth + int8", True),
    "gptq": ("ppocr_cls", "int4(method=gptq)", True),
}


def compiled(model: RealModel, recipe: str, data: Path | None, folder: Path, hash_seed: int) -> dict[str, bytes]:
    """What a run in a folder of its own writes."""
    folder.mkdir()
    arguments = ["compile", model.path, "-r", recipe, "-o", "out.mlc", *(["--data", data] if data else [])]
    done = mlc_process(arguments, environment={"PYTHONHASHSEED": str(hash_seed)}, folder=folder)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in (folder / "out.mlc").iterdir()}


@pytest.mark.real
@pytest.mark.parametrize("case", [pytest.param(n, marks=pytest.mark.slow) if n == "gptq" else n for n in RECIPES])
def test_same_bytes(case: str, tmp_path: Path) -> None:
    name, recipe, learns = RECIPES[case]
    model = real_model(name)
    feeds = [model.feeds(seed) for seed in range(SAMPLES)]
    data = tmp_path / "x.npz"
    np.savez(data, **{n: np.concatenate([f[n] for f in feeds]) for n in feeds[0]})
    first, again = (compiled(model, recipe, data if learns else None, tmp_path / str(i), i) for i in (1, 2))
    reports = [json.loads(found.pop("report.json")) for found in (first, again)]
    for found in (first, again):
        del found["report.md"]  # says how long everything took
    assert [n for n in first if first[n] != again[n]] == []
    for report in reports:
        del report["measurements"]
    assert reports[0] == reports[1]
