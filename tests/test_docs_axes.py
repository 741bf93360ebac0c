"""docs/axes.md says what is so: its examples run, its reasons are those of the rules, its pictures are drawn."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo
from kit.permute import relative, run
from kit.real import RealModel, real_models
from kit.two_layers import two_layers

from mlc.cli import run as main
from mlc.passes.prune.groups import MARKS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "axes.md").read_text(encoding="utf-8")
PICTURES = ROOT / "docs" / "img"
#: What rules raise for models that the verifier refuses, or for axes without positions to speak of.
INTERNAL = {"malformed", "empty-axis", "left-out"}


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On two layers with 64 hidden units; every `twin` that they make is the same function."""
    two_layers(tmp_path).rename(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    feeds, twins = {"x": np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)}, 0
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "axes.md", "exec"), names)
        if "twin = " in block:
            twins += 1
            assert names["twin"] is not names["module"]
            assert relative(run(names["module"], feeds), run(names.pop("twin"), feeds)) < 1e-5
    assert twins == 3
    assert "c1 64 [('fc1.weight', 1, 'c1')" in capsys.readouterr().out


@real_models("mnist_cnn")
def test_what_the_command_prints(
    model: RealModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["inspect", str(model.path), "--axes"]) == 0
    printed = "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())
    assert f"$ mlc inspect mnist_cnn.onnx --axes\n{printed}```" in PAGE


def test_every_reason_of_the_rules_is_explained() -> None:
    table = PAGE.split("## Why a class is pinned")[1].split("\n\n")[1]
    listed = set(re.findall(r"`([a-z-]+)`", table))
    found = set()
    for path in [*ROOT.glob("ir/axis_*.py"), *ROOT.glob("ir/axes.py"), *ROOT.glob("ir/ops/axes_*.py")]:
        found |= set(re.findall(r"(?:Opaque|Pin|pin|pinned|why)\([^()]*?\"([a-z]+(?:-[a-z]+)*)\"", path.read_text()))
    assert found - listed - INTERNAL - set(MARKS) == set()


def test_the_table_has_every_model_of_the_zoo() -> None:
    table = PAGE.split("<!-- axes-table -->")[1].split("<!-- end -->")[0]
    assert re.findall(r"^\| ([a-z]\w+) \| \d", table, re.MULTILINE) == list(zoo.entries())


def test_the_pictures_are_those_of_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PICTURES))
    spec = importlib.util.spec_from_file_location("draw", PICTURES / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    for name, (picture, title) in draw.PICTURES.items():
        assert f"img/axes-{name}.svg" in PAGE
        picture().save(tmp_path / name, title)
        assert (tmp_path / name).read_text() == (PICTURES / f"axes-{name}.svg").read_text()
    sys.modules.pop("canvas", None)
