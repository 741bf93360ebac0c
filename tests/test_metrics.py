"""Bounds on slow runs, memory and functions of the user's: what is measured, on what, and what is refused. No time is
asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.two_layers import two_layers

import mlc
from mlc.backends.measure import tails
from mlc.backends.memory import measure_memory
from mlc.backends.memory_probe import peak
from mlc.backends.ort import Session
from mlc.cli import run
from mlc.dsl.functions import functions
from mlc.ir.errors import BoundError, Code, MlcError

SCORES = """
import numpy as np

def top1(outputs, labels):
    y = np.concatenate(outputs["y"])
    assert all(o.shape == (1, 10) for o in outputs["y"]) and len(labels) == len(outputs["y"])
    return (y.argmax(axis=1) == np.array(labels)).mean()

def unlabelled(outputs, labels):
    return 1.0 if labels is None else 0.0

def broken(outputs, labels):
    return 1 / 0

def nothing(outputs, labels):
    return float("nan")

def ends(outputs, labels):
    raise SystemExit(3)

def cancelled(outputs, labels):
    import asyncio
    raise asyncio.CancelledError

def compiled(outputs, labels):
    exec(compile("1 / 0", "", "exec"))

def interrupted(outputs, labels):
    raise KeyboardInterrupt
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    two_layers(tmp_path, width=256)
    x = np.random.default_rng(1).standard_normal((40, 64), dtype=np.float32)
    labels = Session(tmp_path / "net.onnx").run({"x": x})["y"].argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 10  # the source is right on 30 of 40
    np.savez(tmp_path / "labelled.npz", x=x, label=labels)
    np.savez(tmp_path / "plain.npz", x=x)
    (tmp_path / "scores.py").write_text(SCORES)
    return tmp_path


# -- functions of the user's -------------------------------------------------------------------------------------


def compiled(folder: Path, recipe: str, name: str, data: str = "labelled.npz", **settings: Any) -> mlc.Result:
    labels = {"labels": "label"} if data == "labelled.npz" else {}
    metrics = {name: f"{folder / 'scores.py'}:{name}"}
    return mlc.compile(folder / "net.onnx", recipe, eval=folder / data, metrics=metrics, **labels, **settings)


def test_a_function_sees_the_outputs_of_both_models_and_the_labels(folder: Path) -> None:
    report = compiled(folder, "prune(75%) where top1 >= 0.999x", "top1").report
    found = report["checks"]["metrics"]["top1"]
    accuracy = report["checks"]["accuracy"]
    assert found == pytest.approx(accuracy)
    (bound,) = report["bounds"]
    assert bound["measured"] == pytest.approx(found["artifact"] / found["source"])
    assert bound["holds"] is (bound["measured"] >= 0.999)
    assert report["options"]["metrics"]
    ratio = compiled(folder, "fp16 where top1 >= 0%", "top1").report["bounds"][0]
    assert ratio["measured"] == accuracy["source"]


def test_a_missed_metric_exits_3(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compile", str(folder / "net.onnx"), "-r", "fp16 where top1 >= 101%", "--labels", "label"]
    command += ["--eval", str(folder / "labelled.npz"), "--metric", f"top1={folder / 'scores.py'}:top1"]
    assert run([*command, "-o", str(folder / "out.mlc")]) == 3
    assert "the bound was missed: top1 >= 101%" in capsys.readouterr().err
    assert json.loads((folder / "out.mlc" / "report.json").read_text())["status"] == "missed"


def test_strength_goes_as_far_as_a_metric_allows(folder: Path) -> None:
    result = compiled(folder, "prune where top1 >= 0.9x", "top1")
    assert len(result.report["trials"]) > 1
    assert result.report["bounds"][0]["holds"]
    assert not result.missed


def test_files_use_python_for_metrics(folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "scores.py").rename(folder / "lib" / "scores.py")
    (folder / "lib" / "goals.mlc").write_text('use "scores.py" as s\nrecipe r = fp16 where s.unlabelled >= 1\n')
    (folder / "m.mlc").write_text(
        'use "lib/goals.mlc" as g\nuse "lib/scores.py"\ndata d = npz("plain.npz")\n'
        "recipe a = g.r\nrecipe b = prune(10%) until scores.unlabelled >= 1\n"
    )
    for name in "ab":
        report = mlc.compile(folder / "net.onnx", f"{folder / 'm.mlc'}:{name}").report
        assert report["status"] == "done"
    assert report["loops"][0]["ended"].startswith("scores.unlabelled >= 1 holds at the start")


@pytest.mark.parametrize(
    ("recipe", "name", "data", "code", "message"),
    [
        ("fp16 where broken <= 1", "broken", "plain.npz", Code.BAD_METRIC, "raises ZeroDivisionError"),
        ("fp16 where ends <= 1", "ends", "plain.npz", Code.BAD_METRIC, r"SystemExit: 3 \(scores.py, line 19\)"),
        ("fp16 where cancelled <= 1", "cancelled", "plain.npz", Code.BAD_METRIC, "raises CancelledError"),
        ("fp16 where compiled <= 1", "compiled", "plain.npz", Code.BAD_METRIC, r"by zero \(scores.py, line 26\)"),
        ("fp16 where nothing <= 1", "nothing", "plain.npz", Code.BAD_METRIC, "returns nan"),
        ("fp16 where missing <= 1", "missing", "plain.npz", Code.BAD_DATA, "has no function 'missing'"),
        ("fp16 where top1 < 1", "top1", "plain.npz", Code.BOUND_SENSE, "says which side is better"),
        ("fp16 where top1 <= 1ms", "top1", "plain.npz", Code.METRIC_UNIT, "not measured in this unit"),
        ("fp16", "top1", "plain.npz", Code.USAGE, "no bound of the recipe names it"),
        ("fp16 where size <= 1x", "size", "plain.npz", Code.USAGE, "there is a metric 'size'"),
        ("fp16 where f >= 1", "top1", "plain.npz", Code.UNKNOWN_METRIC, "--metric f="),
        ("fp16 where top2 >= 1", "top1", "plain.npz", Code.UNKNOWN_METRIC, "did you mean 'top1'"),
    ],
)
def test_metrics_that_cannot_be_used(folder: Path, recipe: str, name: str, data: str, code: Code, message: str) -> None:
    with pytest.raises(MlcError, match=message) as caught:
        compiled(folder, recipe, name, data)
    assert not isinstance(caught.value, BoundError)
    assert caught.value.diagnostics[0].code is code


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ("'0.9'", "returns a str, which is no real number"),
        ("None", "returns a NoneType"),
        ("True", "returns a bool"),
        ("np.bool_(True)", "returns a bool"),
        ("[0.9]", "returns a list"),
        ("np.array([0.9])", "returns a ndarray"),
        ("np.array('0.9')", "returns a ndarray"),
        ("0.9j", "returns a complex"),
        ("10 ** 400", "raises OverflowError"),
        ("0.9", ""),
        ("1", ""),
        ("fractions.Fraction(9, 10)", ""),
        ("np.float16(0.9)", ""),
        ("np.int8(1)", ""),
        ("np.array(0.9, np.float32)", ""),
    ],
)
def test_a_metric_returns_a_real_number(tmp_path: Path, result: str, told: str) -> None:
    file = tmp_path / "m.py"
    file.write_text(f"import fractions\nimport numpy as np\n\ndef m(outputs, labels):\n    return {result}\n")
    called = functions({"m": f"{file}:m"})["m"]
    if not told:
        assert called({}, None) in (1.0, pytest.approx(0.9, abs=1e-3))
        return
    with pytest.raises(MlcError, match=told) as caught:
        called({}, None)
    assert caught.value.diagnostics[0].code is Code.BAD_METRIC


def test_a_metric_that_ends_the_program_is_no_missed_bound(folder: Path) -> None:
    command = ["compile", str(folder / "net.onnx"), "-r", "fp16 where m <= 1", "--eval", str(folder / "plain.npz")]
    command += ["-o", str(folder / "out.mlc")]
    assert run([*command, "--metric", f"m={folder / 'scores.py'}:ends"]) == 2
    assert run([*command, "--metric", f"m={folder / 'scores.py'}:interrupted"]) == 130
    assert not (folder / "out.mlc").exists()


def test_metrics_need_samples(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", str(folder / "net.onnx"), "-r", "prune where m <= 1", "--metric"]
    assert run([*command, "m=scores.py:top1"]) == 2
    assert "'m' needs samples" in capsys.readouterr().err
    assert run([*command, "m"]) == 2
    assert "write --metric wer=metrics.py:wer" in capsys.readouterr().err


# -- memory ------------------------------------------------------------------------------------------------------


def test_a_process_is_measured_not_its_parent(tmp_path: Path) -> None:
    """This process holds more than the child ever does; a large weight shows in the child's peak."""
    ballast = np.ones(600 << 17)  # 600 MiB
    feeds = {"x": np.zeros((1, 64), np.float32)}
    small, large = (tmp_path / name for name in "ab")
    for path, width in ((small, 64), (large, 400_000)):
        path.mkdir()
        two_layers(path, width=width)
    found = measure_memory(small / "net.onnx", large / "net.onnx", feeds, threads=1)
    assert peak() > ballast.nbytes > found.artifact
    weights = (large / "net.onnx").stat().st_size
    assert weights > 100 << 20
    assert found.artifact - found.source > 0.8 * weights
    assert 0 < found.runtime <= found.source


def test_a_bound_on_memory(folder: Path) -> None:
    result = mlc.compile(folder / "net.onnx", "fp16 where peak_memory <= 1B, latency.p95 <= 60s")
    memory, tail = (result.report["measurements"][k] for k in ("memory", "latency_p95"))
    bounds = result.report["bounds"]
    assert [b["holds"] for b in bounds] == [False, True]
    assert bounds[0]["measured"] == memory["artifact"]
    assert bounds[1]["measured"] == pytest.approx(tail["artifact_high_ms"] / 1e3)
    assert len(result.missed) == 1
    module = mlc.load(folder / "net.onnx")
    module.source = None
    relative = mlc.compile(module, "fp16 where peak_memory <= 9x, latency.p95 <= 99x").report
    memory, tail = (relative["measurements"][k] for k in ("memory", "latency_p95"))
    assert relative["bounds"][0]["measured"] == pytest.approx(memory["artifact"] / memory["source"])
    assert relative["bounds"][1]["measured"] == pytest.approx(tail["ratio_high"])
    assert relative["status"] == "done"


def test_a_child_that_fails_is_told(folder: Path) -> None:
    with pytest.raises(MlcError, match="to measure its memory ended with") as caught:
        measure_memory(folder / "net.onnx", folder / "net.onnx", {"y": np.zeros(1)}, threads=1)
    assert "Invalid input name" in str(caught.value) or "y" in caught.value.diagnostics[0].note
    with pytest.raises(MlcError, match="is not measured for the input"):
        measure_memory(folder / "net.onnx", folder / "net.onnx", {"x": np.zeros(1, "V2")}, threads=1)


# -- slow runs ---------------------------------------------------------------------------------------------------


class Model:
    """A model whose every tenth run takes longer: more than one in twenty."""

    def __init__(self, slow: float) -> None:
        self.slow, self.runs = slow, 0

    def run(self, feeds: Any) -> dict[str, Any]:
        self.runs += 1
        work = 20_000 * (self.slow if self.runs % 10 == 0 else 1)
        sum(i * i for i in range(int(work)))
        return {}


def test_the_tail_sees_what_the_median_does_not() -> None:
    even, odd = Model(1), Model(6)
    found = tails(even, odd, {})
    assert found.b_ms > 3 * found.a_ms
    assert found.ratio_high >= found.b_ms / found.a_ms * 0.8
    assert found.b_high_ms >= found.b_ms * 0.9
    assert found.runs >= 60
