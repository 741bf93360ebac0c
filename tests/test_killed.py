"""Runs that are killed or interrupted at any moment: the output is the old one, the new one or none, never half of one,
and the next run clears up."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from kit.process import mlc_process
from kit.real import RealModel, real_models
from kit.two_layers import two_layers

import mlc
from mlc.ir.scratch import sweep

FEW, SOME, MANY = 4, 6, 20
INTERRUPTED = 130

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, model: RealModel) -> Run:
    """A compilation with everything: data, trials of a strength, checks, timing."""
    feeds = model.feeds()
    np.savez(tmp_path / "x.npz", **{n: np.repeat(a, 8, axis=0) for n, a in feeds.items()})
    return runs(model.path, tmp_path)


def runs(model: Path, tmp_path: Path, *more: str) -> Run:
    for name in ("out", "temporary"):
        (tmp_path / name).mkdir()
    recipe = "weights([4, 8]) where size <= 0.3x"

    def run(out: Path, end: int | None = None, after: float = 0.0) -> int:
        arguments = ["compile", model, "-r", recipe, "--data", tmp_path / "x.npz", "--force", "-o", out, *more]
        return mlc_process(
            arguments, end=end, after=after, environment={"TMPDIR": str(tmp_path / "temporary")}
        ).returncode

    return run


def complete(out: Path) -> bool:
    """Whether an artifact is there; what is there must be whole."""
    folder = out.suffix != ".onnx"
    report, model = (out / "report.json", out / "model.onnx") if folder else (out.with_suffix(".report.json"), out)
    if not out.exists():
        assert not report.exists()
        return False
    mlc.load(model)
    assert json.loads(report.read_text("utf-8"))["artifact"]["sha256"] == sha256(model.read_bytes()).hexdigest()
    return True


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def litter(folder: Path) -> list[str]:
    """What is left of ours among temporary files; ONNX Runtime keeps a file `.ses` there."""
    return [n for n in names(folder / "temporary") if n != ".ses"]


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


@real_models("mnist_cnn")
@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "moments"),
    [("net.mlc", FEW), *(pytest.param(n, MANY, marks=pytest.mark.slow) for n in ("net.mlc", "net.onnx"))],
)
def test_kill_9(name: str, moments: int, run: Run, tmp_path: Path) -> None:
    kill_at_random(run, tmp_path, tmp_path / "out" / name, moments)


def test_kill_9_of_a_small_model(tmp_path: Path) -> None:
    """Several files; what happens between them is killed one by one in test_replacing.py."""
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((8, 64), dtype=np.float32))
    run = runs(two_layers(tmp_path), tmp_path, "--check", "fast")
    kill_at_random(run, tmp_path, tmp_path / "out" / "net.onnx", SOME)


def kill_at_random(run: Run, tmp_path: Path, out: Path, moments: int) -> None:
    """Every second kill meets an older artifact that is being replaced."""
    start = time.monotonic()
    assert run(out) == 0
    whole = time.monotonic() - start
    left = names(out.parent)
    draw = random.Random(moments)
    for moment in range(moments):
        replaces = moment % 2 == 0
        if not replaces:
            emptied(out.parent)
        assert run(out, signal.SIGKILL, draw.uniform(0.1, 1.0) * whole) in (0, -signal.SIGKILL)
        sweep(out.parent)
        assert complete(out) or not replaces
        assert run(out) == 0
        assert complete(out)
        assert names(out.parent) == left
        assert litter(tmp_path) == []


@real_models("mnist_cnn")
@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_signals_leave_nothing(
    number: signal.Signals, run: Run, model: RealModel, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Sent when the output is being built: that is when there is something to clear up."""
    if number != signal.SIGINT:  # tests may run under nohup: what is ignored here, the process would ignore as well
        before = signal.signal(number, signal.SIG_DFL)
        request.addfinalizer(lambda: signal.signal(number, before))
    out = tmp_path / "out" / "net.mlc"
    arguments = ["compile", model.path, "-r", "int8", "--data", tmp_path / "x.npz", "-o", out]
    begun = lambda: any(".mlc-tmp-" in n for n in names(out.parent))  # noqa: E731
    found = mlc_process(arguments, end=number, when=begun, environment={"TMPDIR": str(tmp_path / "temporary")})
    assert found.returncode == INTERRUPTED
    assert found.stderr.endswith("interrupted: no output is half-written\n")
    assert names(out.parent) == litter(tmp_path) == []
