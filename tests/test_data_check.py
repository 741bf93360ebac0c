"""`mlc data check`: every sample once, what is there, exit 2 at the first that is wrong; --data of other commands."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kit.golden import same
from kit.two_layers import two_layers
from onnx import TensorProto, helper

from mlc.backends.checks import memory_limit
from mlc.cli import run
from mlc.frontends.data.source import Selection
from mlc.frontends.data.table import SOURCES

GOLDEN = Path(__file__).parent / "golden" / "data" / "check.txt"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    two_layers(tmp_path)


def put(name: str, count: int = 20, *, seed: int = 0, **more: Any) -> None:
    x = np.random.default_rng(seed).integers(-8, 8, (count, 64)).astype(np.float32)
    np.savez(name, x=x, **more)


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["data", "check", "net.onnx", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    put("d.npz", y=np.arange(20) % 3)
    found = checked(capsys, "--data", 'npz("d.npz", take=15, labels=y)')
    part = found["data"]
    x = np.load("d.npz")["x"][:15]
    assert part["samples"] == 15
    assert part["inputs"]["x"] == {
        "type": "f32[N, 64]",
        "shapes": [{"shape": [64], "samples": 15}],
        "other_shapes": 0,
        "min": x.min(),
        "max": x.max(),
        "mean": pytest.approx(x.mean()),
        "samples_with_infinity": 0,
    }
    assert part["classes"] == {"distinct": 3, "counts": [[0, 5], [1, 5], [2, 5]]}
    assert part["identical"] == 0
    assert found["split"]["calibrates"] + found["split"]["judges"] == 15
    assert found["in_both"] is None


def test_what_deserves_a_second_look(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.zeros((40, 64), np.float32)
    x[30:, 0] = np.arange(10)
    x[3, 5] = np.inf
    np.savez("d.npz", x=x, other=np.zeros(3))
    found = checked(capsys, "--data", "d.npz")
    assert found["data"]["identical"] == 29  # zeros: 29 of the first 30, and one of the others
    assert found["split"]["on_both_sides"] > 0
    assert found["data"]["inputs"]["x"]["samples_with_infinity"] == 1
    assert found["data"]["notes"] == ["not used: 'other'", "sample 1 is the same as sample 0"]
    np.savez("zero.npz", x=x[:2])
    found = checked(capsys, "--data", "zero.npz", "--eval", "d.npz")
    assert found["data"]["notes"][0] == "input 'x' is 0 everywhere, which says nothing about its range"
    assert found["in_both"] == 1
    assert found["split"] is None


@pytest.mark.parametrize("case", ["split", "eval", "few", "labels", "labels of text"])
def test_the_view(case: str, capsys: pytest.CaptureFixture[str], update_golden: bool) -> None:
    put("d.npz", y=np.arange(20) % 10, text=["a line", "another"] * 10)
    put("e.npz", 5, seed=1)
    arguments = {
        "split": ["--data", "d.npz"],
        "eval": ["--data", "d.npz", "--eval", "e.npz"],
        "few": ["--data", 'npz("d.npz", take=1)'],
        "labels": ["--data", "d.npz", "--labels", "y"],
        "labels of text": ["--data", "d.npz", "--labels", "text"],
    }[case]
    assert run(["data", "check", "net.onnx", *arguments]) == 0
    shown = capsys.readouterr().out
    for name in ("d.npz", "e.npz"):  # archives hold the time of writing
        shown = shown.replace(_sha(name), "<sha256>")
    same(GOLDEN, case, shown, update=update_golden)


def _sha(name: str) -> str:
    import hashlib

    return hashlib.sha256(Path(name).read_bytes()).hexdigest()[:12]


def test_the_first_wrong_sample_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    put("d.npz")
    x = np.load("d.npz")["x"]
    x[17, 3] = np.nan
    np.savez("d.npz", x=x)
    assert run(["data", "check", "net.onnx", "--data", "d.npz"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "input 'x' holds NaN\n  --> sample 17 of 'd.npz'" in captured.err


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_no_class_has(label: int, capsys: pytest.CaptureFixture[str]) -> None:
    put("d.npz", y=np.append(np.arange(19) % 10, label))
    told = f"there is a label {label}, and output 'y' has 10 classes"
    assert run(["data", "check", "net.onnx", "--data", "d.npz", "--labels", "y"]) == 0
    assert told in " ".join(capsys.readouterr().out.split())
    assert run(["compile", "net.onnx", "-r", "fp16", "--eval", "d.npz", "--labels", "y", "-o", "a.mlc"]) == 2
    assert told in capsys.readouterr().err


def test_a_model_beyond_the_memory_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its weights are a file full of holes. Everything that the graph tells is checked all the same."""
    width = memory_limit() // (64 * 4 * 2)
    value = helper.make_tensor_value_info
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, width], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="holes.bin")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("ReduceMean", ["h"], ["y"], keepdims=0)]
    ends = [value("x", TensorProto.FLOAT, ["N", 64])], [value("y", TensorProto.FLOAT, [])]
    graph = helper.make_graph(nodes, "large", *ends, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), "large.onnx")
    with open("holes.bin", "wb") as file:
        file.truncate(64 * width * 4)
    put("d.npz")
    assert run(["data", "check", "large.onnx", "--data", "d.npz"]) == 0
    assert "note: the model takes more than half of the memory, and was not run" in capsys.readouterr().out


def test_sources_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "sources"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(SOURCES)
    for name, source in SOURCES.items():
        assert run(["data", "sources", name]) == 0
        shown = capsys.readouterr().out
        for field in (*fields(source), *fields(Selection)):  # type: ignore[arg-type]
            (line,) = (line for line in shown.splitlines() if line.startswith(f"  {field.name} "))
            assert field.metadata["doc"] in line
            assert ("required" in line) == (field.default is MISSING)
    assert run(["data", "sources", "image"]) == 2
    assert "did you mean 'images'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["chek"], ["check"], ["check", "net.onnx"], ["check", "net.onnx", "--dta", "x"]]
)
def test_a_wrong_command_line_is_told_where_to_read(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", *arguments]) == 2
    assert "= help: see mlc data --help" in capsys.readouterr().err


def test_every_command_that_takes_data_takes_sources(capsys: pytest.CaptureFixture[str]) -> None:
    put("d.npz")
    Path("rows.py").write_text(
        "import numpy as np\ndef rows():\n    return [{'x': x} for x in np.load('d.npz')['x']]\n"
    )
    for data in ('npz("d.npz", take=16)', "rows.py:rows"):
        assert run(["compile", "net.onnx", "-r", "int8", "--data", data, "-o", "a.mlc", "--force"]) == 0
        assert run(["plan", "net.onnx", "-r", "prune:50%", "--data", data]) == 0
        assert run(["verify", "net.onnx", "a.mlc", "--eval", data, "--min-cosine", "0.9"]) == 0
        assert run(["inspect", "net.onnx", "--sensitivity", "--data", data]) == 0
        report = json.loads(Path("a.mlc/report.json").read_text())["data"]
        assert report["calibration"]["source"].startswith(("npz(", "rows.py"))
        assert [report[name]["part"] for name in ("calibration", "evaluation")] == ["calibrate", "judge"]
    capsys.readouterr()
    assert run(["compile", "net.onnx", "-r", "int8", "--data", 'npz("d.npz", tak=2)', "-o", "b.mlc"]) == 2
    assert "--> --data:1:" in capsys.readouterr().err
    assert not Path("b.mlc").exists()
