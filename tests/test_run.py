"""`mlc run`: what a file says is compiled, each target's artifact is there with its own report, and how it ends."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from kit.two_layers import samples, two_layers

import mlc
from mlc.cli import run
from mlc.dsl.data import Declared
from mlc.frontends.data.npz import Npz

FILE = """
use "lib/shared.mlc" as our
model  net = "net.onnx"
data   cal = npz("data.npz", take=20)
data   val = npz("data.npz")
target one = ort(cpu)
target two = ort(cpu, threads=2)
recipe r(x = 25%) = our.cut(x) + int8(data=cal)
  where size <= 2x, latency <= 10s for two, params <= 0.01x for one
compile net with r to two
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    two_layers(tmp_path, width=256)
    samples(tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "shared.mlc").write_text("recipe cut(r) = prune(r)\n", encoding="utf-8")
    (tmp_path / "f.mlc").write_text(FILE, encoding="utf-8")
    return tmp_path


def report(folder: Path, name: str) -> dict:
    return json.loads((folder / "out" / f"{name}.mlc" / "report.json").read_text())


def test_the_artifact_is_what_was_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(folder / "f.mlc"), "--out", str(folder / "out")]) == 0
    assert "net-two.mlc" in capsys.readouterr().out
    found = report(folder, "net-two")
    assert found["target"] == "ort(cpu, threads=2)"
    assert [b["bound"] for b in found["bounds"]] == ["size <= 2x", "latency <= 10s"]
    assert [s["text"] for s in found["steps"]] == ["prune(ratio=25%)", "int8"]
    assert found["checks"]["judged_on"] == "40 samples of the data"  # all of `val`
    stored = mlc.Recipe.parse((folder / "out" / "net-two.mlc" / "recipe.mlc").read_text())
    assert [s.text for s in stored.steps] == ["prune(ratio=25%)", "int8"]


def test_several_targets_and_a_bound_that_one_of_them_misses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "f.mlc"
    path.write_text(FILE.replace("to two", "to one, two"), encoding="utf-8")
    assert run(["run", str(path), "--out", str(folder / "out"), "--json"]) == 3
    told = capsys.readouterr()
    artifacts = json.loads(told.out)["artifacts"]
    assert [a["status"] for a in artifacts] == ["missed", "done"]
    assert "params <= 0.01x" in told.err
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["net-one.mlc", "net-two.mlc"]


def test_outputs_are_refused_before_any_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "f.mlc"
    path.write_text(FILE.replace("to two", "to one, two"), encoding="utf-8")
    (folder / "out").mkdir()
    (folder / "out" / "net-two.mlc").mkdir()
    assert run(["run", str(path), "-o", str(folder / "out")]) == 2
    assert "net-two.mlc' exists" in capsys.readouterr().err
    assert [p.name for p in (folder / "out").iterdir()] == ["net-two.mlc"]
    assert run(["run", str(path), "-o", str(folder / "far" / "out")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_standard_input_and_wrong_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.StringIO('compile "net.onnx" with fp16\n'))
    assert run(["run", "-", "--out", "out", "--check", "none"]) == 0
    assert report(folder, "net")["steps"][0]["text"] == "fp16"
    for argument, message in (("prune", "is no recipe file"), ("f.mlc:r", "a whole file is run")):
        assert run(["run", argument]) == 2
        assert message in capsys.readouterr().err
    assert run(["run"]) == 2
    assert "mlc run --help" in capsys.readouterr().err


def test_compile_takes_data_and_targets_from_the_file(folder: Path) -> None:
    recipe = f"{folder / 'f.mlc'}:r(50%)"
    found = mlc.compile(folder / "net.onnx", recipe, to="two").report
    assert found["target"] == "ort(cpu, threads=2)"
    assert found["checks"]["judged_on"] == "40 samples of the data"
    other = mlc.compile(
        folder / "net.onnx", recipe, to="two", eval=folder / "data.npz", data=folder / "data.npz"
    ).report
    assert [s["text"] for s in other["steps"]] == [s["text"] for s in found["steps"]]
    declared = mlc.dsl.program.Program.of(recipe, "two").data("mine.npz", None)
    assert declared[0] == "mine.npz"
    assert isinstance(declared[1], Declared)
    assert isinstance(declared[1].source, Npz)
