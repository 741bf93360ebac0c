"""Data that a model cannot work with: every command says the same of it, with the sample and the input."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import demanding, error_models
from kit.two_layers import two_layers

import mlc
from mlc import open_data
from mlc.cli import run
from mlc.ir.errors import Code, MlcError

COMMANDS = {
    "data check": "data check m.onnx --data samples.npz",
    "calibration": "compile m.onnx -r int8 --data samples.npz -o a.mlc",
    "evaluation": "compile m.onnx -r fp16 --eval samples.npz -o a.mlc",
    "plan": "plan m.onnx -r prune(50%) --data samples.npz",
    "verify": "verify m.onnx m.onnx --eval samples.npz",
    "sensitivity": "inspect m.onnx --sensitivity --data samples.npz",
    "run": "run all.mlc",
}
WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "token": (error_models.tokens(demanding.sliced, length=9, last=50), "input 'input_ids' holds 50 at [0, 8]"),
    "length": (error_models.tokens(demanding.counted_by_length, length=20), "row 19, and 'table' has 16 rows"),
    "sides": (error_models.sides(8, 31), "input 'x' has 31 on axis 3"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The error, without the lines of steps."""
    assert run([w.replace("~", " ") for w in command.split()]) == 2, command
    return re.sub(r"^\[\d+/\d+\] .*\n", "", capsys.readouterr().err, flags=re.MULTILINE)


@pytest.mark.parametrize("wrong", WRONG)
def test_all_commands_say_the_same(wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, words = WRONG[wrong]
    prepare(tmp_path)
    Path("all.mlc").write_text('model m = "m.onnx"\ndata d = npz("samples.npz")\ncompile m with int8\n')
    said = {name: told(command, capsys) for name, command in COMMANDS.items()}
    assert len(set(said.values())) == 1, said
    assert words in said["verify"]
    assert re.search(r"--> sample \d of 'samples.npz'", said["verify"])
    assert "ONNXRuntime" not in said["verify"]


def test_what_only_the_runtime_knows_names_the_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error_models.zeros(tmp_path)
    for command in ("calibration", "evaluation", "verify", "sensitivity"):
        said = told(COMMANDS[command], capsys)
        assert said.startswith("error[E0502]: the model does not run with inputs of these shapes: 'x' [1, 8]\n"), said
        assert "--> sample 4 of 'samples.npz'" in said
        assert "note: ONNX Runtime says of " in said


def test_the_check_runs_the_model_on_every_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demanding.write(tmp_path, demanding.three)
    x = np.ones((3, 8), np.float32)
    np.savez("samples.npz", x=x)
    assert "--> sample 0 of 'samples.npz'" in told(COMMANDS["data check"], capsys)
    Path("rows.py").write_text(
        "import numpy as np\n"
        "def rows():\n"
        "    row = np.array([0, 1, 1, 1, 0, 0, 0, 0], np.float32)\n"
        "    return [{'x': row}, {'x': row}, {'x': np.stack([row, row])}]\n"
    )
    said = told("data check m.onnx --data rows.py:rows", capsys)
    assert "these shapes: 'x' [2, 8]\n  --> sample 2 of 'rows.py:rows'" in said


LABELS: dict[str, tuple[Any, int, str]] = {
    "one-hot": (np.eye(10)[np.arange(12) % 10], 0, "10 labels do not fit output 'y' of shape (1, 10)"),
    "beyond": (np.append(np.arange(11) % 10, 10), 11, "there is a label 10, and output 'y' has 10 classes"),
    "negative": (np.append(np.arange(11) % 10, -1), 11, "there is a label -1, and output 'y' has 10 classes"),
    "between": (np.append(np.arange(11) % 10, 2.5), 11, "the label 2.5 is no whole number"),
    "NaN": (np.append(np.arange(11) % 10, np.nan), 11, "the label holds NaN"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_are_judged_before_any_work(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those of samples that only judge: the last one of these is set aside by the split, or not."""
    labels, sample, words = LABELS[case]
    two_layers(Path())
    np.savez("samples.npz", x=np.random.default_rng(0).standard_normal((12, 64), np.float32), y=labels)
    said = {
        told(f"{command} --labels y", capsys)
        for command in (
            "compile net.onnx -r int8 --data samples.npz --seed 0",
            "compile net.onnx -r int8 --data samples.npz --seed 3",
            "compile net.onnx -r fp16 --eval samples.npz",
        )
    }
    assert len(said) == 1, said
    assert f"{words}\n  --> sample {sample} of 'samples.npz'" in said.pop()
    # No recipe says what they are for:
    assert run(["data", "check", "net.onnx", "--data", "samples.npz", "--labels", "y"]) == 0
    assert f"(sample {sample} of 'samples.npz': {words})" in " ".join(capsys.readouterr().out.split())


def test_labels_of_classes_that_only_a_run_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demanding.write(tmp_path, demanding.unsized)
    np.savez("samples.npz", x=np.ones((3, demanding.WIDTH), np.float32), y=np.array([0, 3, 4]))
    said = told("compile m.onnx -r fp16 --eval samples.npz --labels y", capsys)
    assert "there is a label 4, and output 'y' has 4 classes\n  --> sample 2 of 'samples.npz'" in said


def test_labels_of_whole_batches_are_one_for_each_row() -> None:
    module = mlc.load(two_layers(Path()))
    x = np.ones((3, 64), np.float32)
    assert len(open_data(lambda: [{"x": x, "y": [0, 9, 3]}], module, labels="y", classes=True)) == 1
    with pytest.raises(MlcError, match="2 labels do not fit output 'y' of shape \\(3, 10\\)"):
        open_data(lambda: [{"x": x, "y": [0, 9]}], module, labels="y", classes=True)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_function_that_is_not_seeded_is_told(shuffle: bool, capsys: pytest.CaptureFixture[str]) -> None:
    two_layers(Path())
    Path("mine.py").write_text(
        "import numpy as np\n"
        "FIXED = np.random.default_rng(0).standard_normal((9, 64), np.float32)\n"
        "class Loader:\n"
        "    def __iter__(self):\n"
        "        return iter([{'x': FIXED[0]}] + [{'x': FIXED[i]} for i in np.random.permutation(8) + 1])\n"
        "    def __len__(self):\n"
        "        return 9\n"
        "def rows():\n"
        + (
            "    return Loader()\n"
            if shuffle
            else "    return ({'x': np.random.rand(64).astype('f4')} for _ in range(9))\n"
        )
    )
    said = {
        told(f"{command} mine.py:rows", capsys).partition("\n")[0]
        for command in (
            "data check net.onnx --data",
            "compile net.onnx -r int8 --data",
            "verify net.onnx net.onnx --eval",
        )
        if not (shuffle and command.startswith("verify"))  # it reads them once
    }
    assert said == {
        "error[E0502]: the function yields another sample here than it did before: every pass must give the same"
    }


def test_a_sample_is_looked_at_once(tmp_path: Path) -> None:
    """What costs an evaluation is not done again in every pass over the data; the parts of a split share it."""
    module = mlc.load(demanding.write(tmp_path, demanding.counted_by_tokens))
    data = open_data({"input_ids": np.full((20, 9), 5)}, module)
    assert data.checker is not None
    asked = []
    beyond = data.checker._demands.beyond
    data.checker._demands.beyond = lambda feeds: asked.append(1) or beyond(feeds)  # type: ignore
    for part in (data, *data.split(0), data):
        part.check()
    assert len(asked) == 19  # the first was looked at when it was opened


def test_inputs_alone_demand_nothing() -> None:
    module = mlc.load(two_layers(Path()))
    inputs = {v.name: v.type for v in module.graph.inputs}
    data = open_data({"x": np.ones((2, 64), np.float32), "y": np.array([5, 99])}, inputs, labels="y")
    assert [int(b.labels[0]) for b in data.batches()] == [5, 99]
    arrays = {"x": np.ones((2, 64), np.float32), "y": np.array([99, 5])}
    assert [int(b.labels[0]) for b in open_data(arrays, module, labels="y").batches()] == [99, 5]
    with pytest.raises(MlcError) as refusal:
        open_data(arrays, module, labels="y", classes=True)
    assert refusal.value.diagnostics[0].code is Code.BAD_DATA
