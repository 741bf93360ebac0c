"""--max-memory holds for a whole process: what is kept of many large samples does not grow beyond it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kit.net import Net
from kit.samples import Samples

import mlc
from mlc.backends.runner import OrtRunner
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.passes.statistics import batch_size

SIDE = 512
SAMPLES = 24  # of 3 MiB, which become 48 MiB of activations each
LIMIT = 256 << 20
_PEAK = """
import sys
from mlc.backends.memory_probe import peak
from mlc.cli import run
status = run(sys.argv[1:])
print(peak(), file=sys.stderr)
sys.exit(status)
"""


def wide() -> Module:
    rng = np.random.default_rng(0)
    net = Net()
    x = net.input("x", DType.F32, "N", 3, SIDE, SIDE)
    w = [net.const(rng.standard_normal((16, n, 1, 1)).astype(np.float32), f"w{n}") for n in (3, 16)]
    hidden = net.op("Relu", [net.op("Conv", [x, w[0]])])
    return net.done(net.op("Conv", [hidden, w[1]]))


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def peak_of(*arguments: str | Path) -> int:
    """The largest memory of a process that runs a command line."""
    command = [sys.executable, "-c", _PEAK, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks of a process are read from Linux's /proc")
def test_a_process_stays_within_the_limit(tmp_path: Path) -> None:
    """Without the limit it is a gigabyte more: samples that are run together, and outputs that are kept."""
    mlc.save(wide(), tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=samples(SAMPLES))
    common = ("--max-memory", f"{LIMIT}B", "--force", "-o", tmp_path / "o.mlc")
    base = peak_of("compile", tmp_path / "net.onnx", "-r", "simplify", "--dims", "N=1", *common)
    recipe = "prune(50%, multiple=1) + int8"
    found = peak_of("compile", tmp_path / "net.onnx", "-r", recipe, "--data", tmp_path / "x.npz", *common)
    assert found <= base + LIMIT


def test_samples_are_run_together_while_they_fit() -> None:
    module, data = wide(), Samples({"x": samples(2)})

    def together(limit: int | None) -> int:
        ctx = mlc.Context(data=data, runner=OrtRunner(), max_memory=limit, dims={"N": 1})
        return batch_size(ctx, module)

    one = 4 * SIDE * SIDE * (3 + 16 + 16 + 16)
    assert together(None) > 1
    assert [together(4 * one * n) for n in (0.5, 1, 3)] == [1, 1, 3]  # type: ignore[arg-type]


def test_the_report_says_what_did_not_fit() -> None:
    settings = {"data": {"x": samples(10)}, "check": "full"}
    report = mlc.compile(wide(), "fp16", max_memory=LIMIT // 4, **settings).report
    assert "steps are judged on 1 of 8 samples: more do not fit --max-memory" in report["warnings"]
    tight = mlc.compile(wide(), "int8", max_memory=1000, **settings).report
    assert "calibration runs the whole model, which takes more than --max-memory" in tight["warnings"]
