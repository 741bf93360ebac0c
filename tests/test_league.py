"""The league's own judgement: who is ahead of whom, what has to be explained, and that its table is consistent."""

from __future__ import annotations

import ast
import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "examples")]

import league  # noqa: E402
import league_page  # noqa: E402
import league_run  # noqa: E402
from league_page import Entry, Page  # noqa: E402
from quantize_measures import Interval  # noqa: E402

OURS = Entry(
    "cnn", "int8", "own", "int8", size=1.0, ratio=0.25, nodes=20,
    quality=Interval(-0.1, -0.2, 0.0), speed=Interval(1.5, 1.45, 1.55), cpu=1, peak=100,
)  # fmt: skip
THEIRS = dataclasses.replace(OURS, peer="ort", setting="static u8s8, min-max")


def plan(**more: Any) -> dict[str, Any]:
    return league.table() | {"reasons": []} | more


@pytest.mark.parametrize(
    ("change", "respects"),
    [
        ({}, ()),
        ({"quality": Interval(0.01, -0.1, 0.1)}, ("quality",)),
        ({"quality": Interval(-0.01, -0.1, 0.1)}, ()),  # inside our interval
        ({"size": 0.97}, ("size",)),
        ({"size": 0.99}, ()),
        ({"speed": Interval(1.7, 1.65, 1.75)}, ("speed",)),
        ({"speed": Interval(1.56, 1.56, 1.57)}, ("speed",)),
        ({"speed": Interval(1.6, 1.5, 1.7)}, ()),  # the intervals meet
        ({"nodes": 3}, ()),  # counts where nothing may change only
    ],
)
def test_in_which_respects_a_row_is_ahead(change: dict[str, Any], respects: tuple[str, ...]) -> None:
    assert league_page.ahead(dataclasses.replace(THEIRS, **change), OURS) == respects


def test_exact_tasks_compare_nodes_and_not_decibels() -> None:
    ours = dataclasses.replace(OURS, task="simplify")
    better = dataclasses.replace(ours, peer="onnxsim", nodes=19, quality=Interval(200, 200, 200))
    assert league_page.ahead(better, ours) == ("nodes",)


def test_one_row_of_ours_has_to_be_as_good_in_every_respect() -> None:
    """A small row and a fast row of ours do not add up to one that is both."""
    small = dataclasses.replace(OURS, setting="smooth + int8", size=0.5, speed=Interval(1.0, 0.9, 1.1))
    both = dataclasses.replace(THEIRS, size=0.5)
    found = league_page.lead(both, [OURS, small, both], plan())
    assert found is not None
    assert len(found.respects) == 1
    assert league_page.lead(THEIRS, [OURS, small, THEIRS], plan()) is None


def test_of_rows_that_are_behind_in_as_much_the_nearest_is_named() -> None:
    slow = dataclasses.replace(OURS, setting="int8(mode=stored)", speed=Interval(1, 0.99, 1.01))
    faster = dataclasses.replace(THEIRS, speed=Interval(1.7, 1.65, 1.75))
    found = league_page.lead(faster, [slow, OURS, faster], plan())
    assert found is not None
    assert found.against == OURS


def test_rows_below_the_floor_count_neither_for_us_nor_against() -> None:
    broken = dataclasses.replace(THEIRS, quality=Interval(-50, -51, -49), size=0.1)
    assert not league_page.counts(plan(), broken)
    assert Page([OURS, broken], plan(), {}).unexplained() == []
    lost = dataclasses.replace(OURS, quality=Interval(-50, -51, -49))
    (told,) = Page([lost, THEIRS], plan(), {}).unexplained()
    assert "result" in told


def test_files_side_by_side_decide_on_speed() -> None:
    faster = dataclasses.replace(THEIRS, speed=Interval(1.7, 1.65, 1.75))
    for duel, respects in ((Interval(1.0, 0.99, 1.01), ()), (Interval(1.1, 1.05, 1.15), ("speed",))):
        settled = dataclasses.replace(faster, duels={"int8": duel})
        assert league_page.ahead(settled, OURS) == respects
        assert Entry.from_json(settled.to_json()) == settled
    assert league_page.ahead(dataclasses.replace(faster, duels={"other": Interval(1, 1, 1)}), OURS) == ("speed",)


def test_doing_nothing_is_no_result() -> None:
    same = dataclasses.replace(THEIRS, quality=Interval(200, 200, 200), ratio=1.0)
    assert league_page.fault(plan(), same) == "not smaller"
    assert Page([OURS, same], plan(), {}).unexplained() == []
    assert league_page.counts(plan(), dataclasses.replace(same, task="simplify"))


def test_a_lead_without_a_reason_is_named_and_one_with_it_is_on_the_page() -> None:
    smaller = dataclasses.replace(THEIRS, size=0.5)
    (told,) = Page([OURS, smaller], plan(), {}).unexplained()
    assert told == "ort (static u8s8, min-max) on cnn, int8: size"
    known = {"peer": "ort", "task": "int8", "respects": ["size"], "reason": "because", "plan": "later"}
    page = Page([OURS, smaller], plan(reasons=[known]), {"cpu": "x"})
    assert page.unexplained() == []
    assert "| cnn, int8 | ONNX Runtime, `static u8s8, min-max` | size | `int8` | because | later |" in page.text()
    fast = dataclasses.replace(smaller, speed=Interval(3, 2.9, 3.1))
    assert Page([OURS, fast], plan(reasons=[known]), {}).unexplained(), "a reason for the size explains no speed"


def test_rows_are_read_as_they_were_written() -> None:
    failed = Entry("cnn", "int8", "nncf", "quantize", why="exit 1: no")
    for entry in (OURS, failed):
        assert Entry.from_json(entry.to_json() | {"environment": {}}) == entry


def test_every_setting_of_the_table_is_one_of_its_adapter() -> None:
    for name, peer in league.table()["peers"].items():
        source = (ROOT / "benchmarks" / "peers" / f"{name}_adapter.py").read_text()
        keys = [key for table in ast.walk(ast.parse(source)) if isinstance(table, ast.Dict) for key in table.keys]
        known = {key.value for key in keys if isinstance(key, ast.Constant)}
        for task in league_page.TITLES:
            assert set(peer.get(task, ())) <= known, (name, task)
        assert all("==" in r for r in peer["requirements"]), name


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("open(sys.argv[1], 'w').close()", ""),
        ("pass", "exit 0, but no file"),
        ("raise ValueError('at /usr/lib/python3/x.py')", "exit 1: ValueError: at .../x.py"),
        ("import os; os.kill(os.getpid(), 9)", "exit -9: "),
    ],
)
def test_a_run_says_what_it_left_and_what_it_used(tmp_path: Path, code: str, why: str) -> None:
    out = tmp_path / "out.onnx"
    ran = league_run.measured([sys.executable, "-c", f"import sys\n{code}", str(out)], out, {})
    assert ran.why == why
    assert 0 < ran.cpu < 10
    assert 1 < ran.peak < 60, "the process alone, not the one that starts it"


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(league_run, "LIMIT", 0.5)
    ran = league_run.measured([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "out.onnx", {})
    assert ran.why == "not done in 0.5 s"
