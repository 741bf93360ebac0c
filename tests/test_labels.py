"""What labels are for: accuracy wants numbers of classes; metrics of the user's take what the source gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kit import demanding
from kit.real import RealModel, real_models
from kit.two_layers import two_layers
from onnx import TensorProto, helper, numpy_helper

import mlc
from mlc.backends.ort import Session
from mlc.cli import run
from mlc.ir.errors import Code, MlcError

COUNT = 20
LETTERS = "-abcdef"
SCORES = """
import numpy as np

def read(scores):
    best = scores[0].argmax(axis=-1)
    return "".join("-abcdef"[c] for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1]))

def wrong(outputs, labels):
    assert all(isinstance(label, str) for label in labels)
    return np.mean([read(scores) != label for scores, label in zip(outputs["y"], labels)])

def mae(outputs, labels):
    assert all(np.shape(label) == np.shape(found)[1:] for found, label in zip(outputs["y"], labels)), labels
    return np.mean([np.abs(found[0] - label).mean() for found, label in zip(outputs["y"], labels)])

def count(outputs, labels):
    return len(labels)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores.py").write_text(SCORES)


def dense(shape: tuple[int, ...], out: tuple[int, ...]) -> None:
    """`net.onnx`: samples of a shape times a matrix, to outputs of a shape."""
    weight = np.random.default_rng(3).standard_normal((shape[-1], out[-1])).astype(np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        "net",
        [value("x", TensorProto.FLOAT, ["N", *shape])],
        [value("y", TensorProto.FLOAT, ["N", *out])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), "net.onnx")


def answers(x: np.ndarray) -> np.ndarray:
    return np.asarray(Session(Path("net.onnx")).run({"x": x})["y"])


@pytest.fixture
def reader() -> Mapping[str, Any]:
    """A reader of text like those of OCR, and samples whose labels it reads but for the last two."""
    dense((9, 16), (9, len(LETTERS)))
    x = np.random.default_rng(1).standard_normal((COUNT, 9, 16)).astype(np.float32)
    best = answers(x).argmax(axis=-1)
    y = ["".join(LETTERS[c] for i, c in enumerate(row) if c and (i == 0 or c != row[i - 1])) for row in best]
    y[-2:] = ["xyz", ""]
    np.savez("d.npz", x=x, y=y)
    return {"x": x, "y": np.array(y)}


@pytest.fixture
def regression() -> Mapping[str, Any]:
    """A model of three numbers, and measured ones, which are off by 0.25 each."""
    dense((32,), (3,))
    x = np.random.default_rng(1).standard_normal((COUNT, 32)).astype(np.float32)
    arrays = {"x": x, "y": answers(x) + np.float32(0.25)}
    np.savez("d.npz", **arrays)
    return arrays


def compiled(recipe: str, **settings: Any) -> dict[str, Any]:
    name = next(n for n in ("wrong", "mae", "count") if n in recipe)
    given = {"eval": "d.npz", "labels": "y", "metrics": {name: f"scores.py:{name}"}}
    return mlc.compile("net.onnx", recipe, **given | settings).report


def refused(recipe: str, **settings: Any) -> str:
    with pytest.raises(MlcError) as caught:
        compiled(recipe, **settings)
    (told,) = caught.value.diagnostics
    assert told.code is Code.BAD_DATA
    assert told.where == "sample 0 of 'd.npz'"
    return told.message


# -- what functions see ------------------------------------------------------------------------------------------


def test_text_reaches_a_metric(reader: Mapping[str, Any]) -> None:
    report = compiled("fp16 where wrong <= 20%")
    assert report["checks"]["metrics"]["wrong"]["source"] == pytest.approx(2 / COUNT)
    assert report["bounds"][0]["holds"]
    assert "accuracy" not in report["checks"]
    assert report["data"]["evaluation"]["labels"] == "y"


def test_numbers_of_any_shape_reach_a_metric(regression: Mapping[str, Any]) -> None:
    report = compiled("fp16 where mae <= 0.5")
    assert report["checks"]["metrics"]["mae"]["source"] == pytest.approx(0.25, rel=1e-3)
    assert "accuracy" not in report["checks"]


def test_a_model_of_one_number(capsys: pytest.CaptureFixture[str]) -> None:
    """One column has no best class: labels of 0 alone are no accuracy of 100 %."""
    dense((32,), (1,))
    np.savez("d.npz", x=np.ones((COUNT, 32), np.float32), y=np.zeros((COUNT, 1)))
    assert "accuracy" not in compiled("fp16 where mae <= 100")["checks"]
    assert "no output of class scores" in refused("fp16 where count >= 1, acc_drop <= 1pp")
    with pytest.raises(MlcError, match="'agreement' needs an output of class scores"):
        mlc.compile("net.onnx", "fp16 where agreement >= 1%", eval="d.npz")


def test_strengths_are_chosen_by_labels(reader: Mapping[str, Any]) -> None:
    loose, strict = (compiled(f"weights([2, 8]) where wrong <= {n}%") for n in (99, 15))
    assert [r["bounds"][0]["holds"] for r in (loose, strict)] == [True, True]
    assert loose["size"]["artifact"] <= strict["size"]["artifact"]


PASS = """
from dataclasses import dataclass
from typing import ClassVar
from mlc.passes.base import LOSSY, Need, Pass, Plan

@dataclass(frozen=True)
class Mine(Pass):
    name: ClassVar[str] = "mine"
    effect: ClassVar = LOSSY
    needs: ClassVar = frozenset({Need.LABELS})

    def plan(self, module, ctx):
        return Plan()

    def apply(self, rw, plan, ctx):
        given = [str(label) for batch in ctx.data.batches(4) for label in batch.labels]
        assert given[-2:] == ["xyz", ""], given
        return ()
"""


def test_a_pass_of_the_users_takes_them(reader: Mapping[str, Any]) -> None:
    Path("mine.py").write_text(PASS)
    Path("x.mlc").write_text('use "mine.py" as m\nrecipe a = m.mine\nrecipe b = m.mine where acc_drop <= 1pp\n')
    given = {"data": "d.npz", "eval": "d.npz", "labels": "y"}
    assert mlc.compile("net.onnx", "x.mlc:a", **given).report["status"] == "done"
    with pytest.raises(MlcError, match="no output of class scores"):
        mlc.compile("net.onnx", "x.mlc:b", **given)


def test_all_commands_take_them(reader: Mapping[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    metric = ["--metric", "wrong=scores.py:wrong"]
    command = ["net.onnx", "-r", "weights where wrong <= 30%", "--eval", "d.npz", "--labels", "y", *metric]
    assert run(["compile", *command, "-o", "a.mlc"]) == 0, capsys.readouterr().err
    assert run(["plan", *command]) == 0, capsys.readouterr().err
    Path("all.mlc").write_text(
        'use "scores.py" as s\nmodel m = "net.onnx"\ndata d = npz("d.npz", labels=y)\n'
        "recipe r = weights(8) where s.wrong <= 30%\ncompile m with r\n"
    )
    assert run(["run", "all.mlc", "--out", "out"]) == 0, capsys.readouterr().err
    (found,) = Path("out").rglob("report.json")
    assert json.loads(found.read_text())["checks"]["metrics"]["s.wrong"]["artifact"] <= 0.3
    assert run(["verify", "net.onnx", "a.mlc", "--eval", 'npz("d.npz", labels=y)', "--min-cosine", "0"]) == 0


READER = """
import ocr

LINES = ["mlc compiles networks", "Invoice 2026-11-21 total 42.50", "small and fast"]
LETTERS = ocr.alphabet("{model}")

def rows():
    return [{{"{input}": ocr.render(text), "text": text}} for text in LINES]

def errors(outputs, labels):
    assert labels == LINES
    (scores,) = outputs.values()
    return sum(ocr.decode(s, LETTERS).strip() != text for s, text in zip(scores, labels))
"""


def test_arrays_of_whole_inputs_have_text() -> None:
    two_layers(Path())
    data = mlc.open_data({"x": np.ones((2, 3, 64), np.float32), "y": ["a", "bc"]}, mlc.load("net.onnx"), labels="y")
    assert [batch.labels.tolist() for batch in data.batches()] == [["a"], ["bc"]]


@real_models("ppocrv4_rec")
def test_a_real_reader_is_judged_by_what_was_written(model: RealModel) -> None:
    pytest.importorskip("PIL")
    (name,) = Session(model.path).inputs
    Path("lines.py").write_text(READER.format(model=model.path, input=name))
    given = {"eval": "lines.py:rows", "labels": "text", "metrics": {"errors": "lines.py:errors"}}
    checks = mlc.compile(model.path, "int4 where errors <= 0", **given).report["checks"]
    assert checks["metrics"]["errors"] == {"source": 0, "artifact": 0}
    assert "accuracy" not in checks


# -- where they must be classes ----------------------------------------------------------------------------------


def test_accuracy_wants_classes_also_beside_a_metric(
    reader: Mapping[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no output of class scores" in refused("fp16 where wrong <= 20%, acc_drop <= 1pp")
    with pytest.raises(MlcError, match="no output of class scores") as caught:
        mlc.compile("net.onnx", "fp16", eval="d.npz", labels="y")
    assert "--metric NAME=" in caught.value.diagnostics[0].note


def test_text_is_no_class() -> None:
    two_layers(Path())
    np.savez("d.npz", x=np.ones((COUNT, 64), np.float32), y=["cat", "dog"] * (COUNT // 2))
    assert refused("fp16 where count >= 1, acc_drop <= 1pp") == "the label is text, not a number"
    assert "not a number" in refused("prune(10%) until acc_drop <= 1pp where count >= 1")
    assert "accuracy" not in compiled(f"fp16 where count >= {COUNT}")["checks"]


@pytest.mark.parametrize(("label", "counted"), [(3, True), (-100, False), (10, False), (2.5, False), (np.nan, False)])
def test_accuracy_is_told_where_all_labels_are_classes(label: float, counted: bool) -> None:
    two_layers(Path())
    y = np.append(np.arange(COUNT - 1) % 10, label)
    np.savez("d.npz", x=np.random.default_rng(0).standard_normal((COUNT, 64)).astype(np.float32), y=y)
    assert ("accuracy" in compiled(f"fp16 where count >= {COUNT}")["checks"]) is counted


@pytest.mark.parametrize("label", [3, 4])
def test_classes_that_only_a_run_counts(label: int) -> None:
    demanding.write(Path(), demanding.unsized, "net.onnx")
    np.savez("d.npz", x=np.ones((3, demanding.WIDTH), np.float32), y=np.array([0, 3, label]))
    assert ("accuracy" in compiled("fp16 where count >= 3")["checks"]) is (label == 3)


# -- data check --------------------------------------------------------------------------------------------------


def checked(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["data", "check", "net.onnx", "--data", "d.npz", "--labels", "y", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]
    return found


def test_the_check_says_what_labels_are_good_for(
    regression: Mapping[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = checked(capsys)
    assert found["classes"] is None
    assert found["labels"] == {
        "types": ["float32"],
        "shapes": [{"shape": [3], "samples": COUNT}],
        "other_shapes": 0,
    }
    (note,) = found["notes"]
    assert "sample 0 of 'd.npz': 3 labels do not fit output 'y' of shape (1, 3)" in note
    assert "a metric of yours can use them" in note
    assert "acc_drop cannot" in note
    np.savez("d.npz", x=regression["x"], y=np.arange(COUNT) % 3)
    found = checked(capsys)
    assert found["classes"]["distinct"] == 3
    assert found["labels"] is None
    assert not found["notes"]
