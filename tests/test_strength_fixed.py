"""Bounds of recipes where nothing is free: one row of what was tried, and what could be free."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kit.two_layers import two_layers

import mlc
from mlc.cli import run
from mlc.dsl.fixed import SEARCHED, advice
from mlc.dsl.judge import Measured, judge
from mlc.dsl.program import Program


@pytest.mark.parametrize(
    ("recipe", "advice"),
    [
        ("int4 where size <= 0.01x", "a step that bounds choose for would be prune or weights([2, 4, 8])"),
        ("prune(30%) where params <= 0.01x", "leave out 'ratio' of prune(ratio=30%), and the bounds choose"),
        ("int8(damage=5%) where size <= 0.01x", "a step that bounds choose for would be prune"),
    ],
)
def test_a_miss_with_nothing_to_choose_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, advice: str
) -> None:
    out = tmp_path / "out.mlc"
    assert run(["compile", str(two_layers(tmp_path)), "-r", recipe, "-o", str(out), "--check", "fast"]) == 3
    told = " ".join(capsys.readouterr().out.split())
    assert "nothing in the recipe was free to change, so nothing else was tried" in told
    assert advice in told
    (trial,) = json.loads((out / "report.json").read_text())["trials"]
    assert trial["steps"] == recipe.split(" where")[0].replace("(30%)", "(ratio=30%)")
    assert not trial["held"]
    assert trial["bounds"][0]["found"] in told.partition("tried")[2]


def test_what_would_be_free_is_named_for_bounds_on_quality() -> None:
    program = Program.of("int8(damage=5%) where cosine >= 0.99")
    missed = judge(program.limits, {"cosine": Measured(0.5)})
    assert "leave out 'damage' of int8(damage=5%)" in advice(program, missed)
    assert "with --data" in advice(Program.of("int4 where cosine >= 0.99"), missed)
    assert all(Program.of(f"{recipe} where size <= 0.1x").free for recipe in SEARCHED)


def test_a_bound_that_holds_needs_no_trial(tmp_path: Path) -> None:
    report = mlc.compile(two_layers(tmp_path), "int4 where size <= 0.9x", check="fast").report
    assert report["trials"] == []
    assert not any("nothing in the recipe" in w for w in report["warnings"])
