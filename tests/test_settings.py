"""Settings are honoured or refused, never ignored; what `plan` shows is what `compile` does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kit.two_layers import samples, two_layers
from onnx import TensorProto, helper, numpy_helper

import mlc
from mlc.cli import run
from mlc.ir.errors import MlcError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return two_layers(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return samples(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"threads": 0},
        {"threads": -1},
        {"seed": -1},
        {"max_memory": 0},
        {"dims": {"N": 0}},
        {"dims": {"N": "4"}},
        {"dims": {"Q": 4}},
        {"dims": {"Q": 4}, "check": "none"},
        {"labels": "y"},
        {"mask": "m"},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(settings: dict[str, Any], model: Path) -> None:
    with pytest.raises(MlcError) as caught:
        mlc.compile(model, "int4", **settings)
    assert caught.value.exit_status == 2


def test_dims_are_checked_with_data_too(model: Path, data: Path) -> None:
    with pytest.raises(MlcError, match="'Q'"):
        mlc.compile(model, "int4", eval=data, dims={"Q": 4})
    macs = [
        mlc.compile(model, "simplify", eval=data, dims=d).report["steps"][0]["before"]["macs"] for d in ({}, {"N": 3})
    ]
    assert macs[1] == 3 * macs[0]


@pytest.mark.parametrize("command", ["inspect", "plan"])
def test_other_commands_check_dims(command: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["-r", "int4"] if command == "plan" else []
    assert run([command, str(model), *recipe, "--dims", "Q=3"]) == 2
    assert "'Q'" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", [3, None, mlc.passes.Int4, [mlc.passes.Int4], ["int4"]], ids=str)
def test_what_is_no_recipe_is_refused(recipe: Any, model: Path) -> None:
    with pytest.raises(MlcError, match="is not a recipe"):
        mlc.compile(model, recipe)


@pytest.mark.parametrize("check", ["fast", "none"])
def test_without_a_judge_strength_stays_free(check: str, model: Path, data: Path) -> None:
    report = mlc.compile(model, "prune", data=data, check=check).report
    assert report["trials"] == []
    assert report["steps"][0]["before"]["params"] == report["steps"][0]["after"]["params"]
    assert any("strengths were left alone" in w for w in report["warnings"])


@pytest.mark.parametrize(
    ("recipe", "with_data"),
    [("simplify+prune:50%+int4 where flops <= 0.9x", False), ("prune", True), ("prune+fp16 where size <= 0.4x", False)],
)
def test_the_plan_is_what_compile_does(
    recipe: str, with_data: bool, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(data)] if with_data else []
    out = tmp_path / "out.mlc"
    assert run(["compile", str(model), "-r", recipe, "-o", str(out), *given]) == 0
    capsys.readouterr()
    assert run(["plan", str(model), "-r", recipe, "--json", *given]) == 0
    assert capsys.readouterr().out == (out / "plan.json").read_text()


def test_a_module_without_output_has_no_path(model: Path) -> None:
    result = mlc.compile(model, "int4")
    assert result.path is None
    assert result.report["artifact"]["path"] is None
    result.show()


def test_fast_checks_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mlc.compile(two_layers(tmp_path, width=2048), "int4", check="fast").show()
    assert "MatMulNBits: " in capsys.readouterr().out


def test_help_without_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    captured = capsys.readouterr()
    assert "compile" in captured.out
    assert captured.err == ""


def test_a_terminated_run_leaves_nothing(model: Path, tmp_path: Path) -> None:
    """The signal comes while the artifact is being built."""
    out = tmp_path / "out"
    out.mkdir()
    script = (
        "import os, signal; from mlc import compiler\n"
        "compiler.check_emitted = lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"from mlc.cli import main; main(['compile', {str(model)!r}, '-r', 'int4', '-o', {str(out / 'o.mlc')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert list(out.iterdir()) == []


def test_a_bound_without_a_finite_measure_is_reported(model: Path, tmp_path: Path) -> None:
    """Equal outputs have an infinite SQNR."""
    out = tmp_path / "o.mlc"
    assert run(["compile", str(model), "-r", "prune where sqnr >= 20dB", "-o", str(out)]) == 0
    (found,) = json.loads((out / "report.json").read_text())["bounds"]
    assert found == {"bound": "sqnr >= 20dB", "measured": None, "found": "inf dB", "holds": True}


def test_a_bound_on_work_of_unknown_size_is_refused(model: Path) -> None:
    with pytest.raises(MlcError, match="depends on sizes that are not known: N"):
        mlc.compile(model, "prune where flops <= 0.5x", check="none")
    (found,) = mlc.compile(model, "prune where flops <= 0.5x", check="none", dims={"N": 1}).report["bounds"]
    assert found["holds"]


@pytest.mark.parametrize("least", [0.9, 0.9999])
def test_bounds_on_quality_are_met_by_strength(least: float, model: Path, data: Path) -> None:
    """Looser than the drift allowed by default: further; tighter: less far."""
    usual = mlc.compile(model, "prune(multiple=1)", eval=data)
    bound = mlc.compile(model, f"prune(multiple=1) where cosine >= {least}", eval=data)
    assert bound.missed == ()
    assert bound.report["checks"]["cosine"] >= least
    params = [r.report["steps"][0]["after"]["params"] for r in (bound, usual)]
    assert (params[0] < params[1]) == (least < 0.99)
    assert params[0] != params[1]


def text_model(path: Path, output: str) -> Path:
    """r = relu(x) of sequences, and y = r where the mask is 1; `output` says which of them is returned."""
    value, f32 = helper.make_tensor_value_info, TensorProto.FLOAT
    inputs = [value("x", f32, ["N", "S", 2]), value("mask", TensorProto.INT64, ["N", "S"])]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Cast", ["mask"], ["m"], to=f32),
        helper.make_node("Unsqueeze", ["m", "last"], ["c"]),
        helper.make_node("Mul", ["r", "c"], ["y"]),
        helper.make_node("Identity", [output], ["out"]),
    ]
    constants = [numpy_helper.from_array(np.array([2]), "last")]
    graph = helper.make_graph(nodes, "net", inputs, [value("out", f32, ["N", "S", 2])], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_what_judges_is_cut_to_real_positions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masked, plain = text_model(tmp_path / "a.onnx", "y"), text_model(tmp_path / "b.onnx", "r")
    mask, data = (np.arange(6) < np.array([[2], [4], [6]])).astype(np.int64), tmp_path / "text.npz"
    np.savez(data, x=np.ones((3, 6, 2), np.float32), mask=mask)
    for setting, length in (({}, 6), ({"mask": "mask"}, 2)):
        assert mlc.compile(masked, "simplify", data=data, **setting).report["checks"]["binding"] == {
            "N": 1,
            "S": length,
        }
    compared = ["verify", str(masked), str(plain)]  # they differ on padding alone
    assert run([*compared, "--eval", str(data)]) == 3
    assert run([*compared, "--eval", str(data), "--mask", "mask"]) == 0
    assert run([*compared, "--mask", "mask"]) == 2
    assert "give --eval as well" in capsys.readouterr().err
