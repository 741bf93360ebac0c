"""docs/data.md: its code runs in order, and so does every command of it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlc.cli import run
from mlc.dsl.data import declare
from mlc.frontends.data.table import SOURCES

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")


def cnn(path: Path) -> None:
    """x -> Flatten -> MatMul -> y."""
    weight = np.random.default_rng(0).standard_normal((3 * 32 * 32, 10), dtype=np.float32) / 64
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"], name="fc")]
    _save(path, nodes, {"w": weight}, {"x": (TensorProto.FLOAT, ["N", 3, 32, 32])}, ["N", 10])


def bert(path: Path) -> None:
    """A table of embeddings, masked, and their mean."""
    table = np.random.default_rng(0).standard_normal((5, 8), dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["e"]),
        helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["u"]),
        helper.make_node("Mul", ["e", "u"], ["masked"]),
        helper.make_node("ReduceMean", ["masked", "words"], ["y"], keepdims=0),
    ]
    inputs = {name: (TensorProto.INT64, ["N", "S"]) for name in ("input_ids", "attention_mask")}
    _save(path, nodes, {"table": table, "last": np.array([-1]), "words": np.array([1])}, inputs, ["N", 8])


def clip(path: Path) -> None:
    """The mean of embeddings beside the mean of pixels."""
    table = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["e"]),
        helper.make_node("ReduceMean", ["e", "words"], ["m"], keepdims=0),
        helper.make_node("ReduceMean", ["pixels", "sides"], ["p"], keepdims=0),
        helper.make_node("Add", ["m", "p"], ["y"]),
    ]
    inputs = {"pixels": (TensorProto.FLOAT, ["N", 3, 32, 32]), "input_ids": (TensorProto.INT64, ["N", "S"])}
    _save(path, nodes, {"table": table, "words": np.array([1]), "sides": np.array([2, 3])}, inputs, ["N", 3])


def _save(path: Path, nodes: list[Any], tensors: dict[str, Any], inputs: dict[str, Any], output: list[Any]) -> None:
    value = helper.make_tensor_value_info
    weights = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    ends = [value(name, *kind) for name, kind in inputs.items()], [value("y", TensorProto.FLOAT, output)]
    graph = helper.make_graph(nodes, path.stem, *ends, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def commands() -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"^    mlc (data check .*)$", PAGE, re.MULTILINE)]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the code of the page leaves behind, in the folder where it ran."""
    pytest.importorskip("PIL")
    pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("cnn.onnx", "model.onnx"):
        cnn(tmp_path / name)
    bert(tmp_path / "bert.onnx")
    clip(tmp_path / "clip.onnx")
    found: dict[str, Any] = {}
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        exec(compile(code, f"data.md, block {number}", "exec"), found)
    return found


def test_the_page_runs_as_printed(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert names["result"].report["data"]["calibration"]["samples"] > 32
    found = commands()
    for command in found:
        assert run(command) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count("identical samples: ") == len(found)
    assert {declare(c[c.index("--data") + 1]).source.name for c in found} == set(SOURCES)
    for line in re.findall(r"^    mlc compile .*$", PAGE, re.MULTILINE):
        words = shlex.split(line)
        assert declare(words[words.index("--data") + 1])


def test_the_view_of_the_page_is_what_the_command_prints(
    names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(commands()[0]) == 0
    printed = re.sub(r"sha256 \w+", "sha256 ...", capsys.readouterr().out)  # an archive holds the time of writing
    shown = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert shown[0] == "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    (labelled,) = (c for c in commands() if c[-2:] == ["--labels", "text"])
    assert run(labelled) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert [" ".join(part.split()) in told for part in shown if part.startswith("labels:")] == [True]
