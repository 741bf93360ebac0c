"""Progress: counts rise and end at their totals, what is shown is limited, and it never changes what is written."""

from __future__ import annotations

import io
import json
import math
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from kit.two_layers import two_layers

import mlc
from mlc.backends import progress
from mlc.backends.progress import RATE, Events, Line, Lines, Silent, listening
from mlc.cli import run
from mlc.ir.errors import BoundError, Code, Diagnostic, error
from mlc.ir.progress import counted


class Recorder(Silent):
    """Everything that is heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, int]] = []
        self.steps: list[tuple[str, int, int]] = []
        self.notes: list[str] = []

    def advance(self, what: str, done: int, total: int) -> None:
        self.heard.append((what, done, total))

    def step(self, what: str, number: int = 0, total: int = 0) -> None:
        self.steps.append((what, number, total))

    def note(self, text: str) -> None:
        self.notes.append(text)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_layers(tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    (value,) = mlc.load(model).graph.inputs
    width = value.type.shape[-1]  # type: ignore[union-attr]
    path = model.with_name("x.npz")
    np.savez(path, **{value.name: np.random.default_rng(0).standard_normal((40, width)).astype(np.float32)})
    return path


#: Recipe -> tasks that it must tell of.
TASKS = {
    "int8(damage=0.0001%)": {"samples", "samples probed", "damage of weights", "samples judged", "blocks timed"},
    "smooth + int8 + correct_bias": {"sites searched", "levels corrected"},
    "prune(50%)": {"groups scored", "operators fitted"},
    "int4(method=gptq)": {"weights", "weights refined"},
    "int8(rounding=adaround)": {"iterations of fc1.weight", "weights refined"},
    "weights([4, 8]) where size <= 0.5x": {"samples", "samples probed", "damage of weights"},
}


@pytest.mark.parametrize("recipe", TASKS)
def test_counts_rise_and_end_at_their_totals(recipe: str, model: Path, data: Path) -> None:
    heard = Recorder()
    mlc.compile(model, recipe, data=data, progress=heard)
    assert {what for what, *_ in heard.heard} >= TASKS[recipe]
    last: dict[str, tuple[int, int]] = {}
    for what, done, total in heard.heard:
        assert 1 <= done <= total
        before = last.get(what)
        if before is not None and before[0] < before[1]:
            assert (done > before[0], total) == (True, before[1]), f"{what} began anew in the middle"
        last[what] = done, total
    assert all(done == total for done, total in last.values()), last
    numbered = [(number, total) for _, number, total in heard.steps if total]
    assert numbered == [(n, len(numbered)) for n in range(1, len(numbered) + 1)]


def test_progress_changes_nothing(model: Path, data: Path, tmp_path: Path) -> None:
    for name, more in (("a", {}), ("b", {"progress": Recorder()})):
        mlc.compile(model, "int8", data=data, output=tmp_path / name, **more)
    for name in ("model.onnx", "plan.json", "recipe.mlc"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    options = [json.loads((tmp_path / n / "report.json").read_text())["options"] for n in "ab"]
    assert options[0] == options[1]


def test_counted_tells_when_an_item_is_done() -> None:
    heard = Recorder()
    for item in counted("abc", "letters", heard):
        assert len(heard.heard) == "abc".index(item)
    assert heard.heard == [("letters", n, 3) for n in (1, 2, 3)]
    assert list(counted("abc", "letters", None)) == ["a", "b", "c"]


def test_the_line_of_a_terminal() -> None:
    clock, stream = Clock(), io.StringIO()
    line = Line(stream, clock, columns=lambda: 56)
    line.step("source")
    line.step("prune(50%)", 1, 2)
    for done, clock.now in ((1, 10.0), (2, 12.0), (3, 12.01), (50, 110.0), (100, 4000.0)):
        line.advance("samples", done, 100)
    line.step("smooth(alpha=0.5, mul=never) with more than there is room for", 2, 2)
    clock.now = 4001.0
    line.advance("sites searched", 1, 3)
    line.end()
    assert stream.getvalue().replace("\r\x1b[K", "\n").split("\n")[1:] == [
        "source",
        "[1/2] prune(50%)",
        "[1/2] prune(50%): samples 1/100  0:00",
        "[1/2] prune(50%): samples 2/100  0:02, 3:16 left",
        "[1/2] prune(50%): samples 50/100  1:40, 1:42 left",
        "[1/2] prune(50%): samples 100/100  1:06:30, 0:00 left",
        "[2/2] smooth(alpha=0.5, mul=never) with more than ther…",
        "[2/2] smooth(alpha=0.5, mul=…: sites searched 1/3  0:00",
        "",
    ]
    assert "\x1b[" not in stream.getvalue().replace("\x1b[K", ""), "no colours"


def test_time_goes_on_where_nothing_is_told() -> None:
    clock, stream = Clock(), io.StringIO()
    line = Line(stream, clock, columns=lambda: 80)
    line.tick()
    line.step("int8", 1, 1)
    for clock.now in (0.5, 1.0, 1.5, 2.0):
        line.tick()
    line.advance("weights", 1, 4)
    clock.now = 10.0
    line.advance("weights", 2, 4)
    for clock.now in (10.5, 11.0):
        line.tick()
    line.advance("weights", 4, 4)
    clock.now = 12.0
    line.tick()
    line.pause()
    clock.now = 20.0
    line.tick()
    assert stream.getvalue().replace("\r\x1b[K", "\n").split("\n")[1:] == [
        "[1/1] int8",
        "[1/1] int8: 0:01",
        "[1/1] int8: 0:02",
        "[1/1] int8: weights 1/4  0:00",
        "[1/1] int8: weights 2/4  0:08, 0:16 left",
        "[1/1] int8: weights 2/4  0:09, 0:18 left",
        "[1/1] int8: weights 4/4  0:09, 0:00 left",
        "[1/1] int8: 0:12",
        "",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_that_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the main thread is in: nothing is told in the block."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "TICK", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    with listening() as heard:
        heard.step("int8", 1, 1)
        time.sleep(0.3)
        assert terminal.getvalue().count("[1/1] int8: 0:00") > 3
    ended = terminal.getvalue()
    time.sleep(0.05)
    assert terminal.getvalue() == ended
    assert not [thread for thread in threading.enumerate() if thread.name == "mlc-progress"]


def test_lines_for_logs() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    lines.step("source")
    for number, clock.now in ((1, 1.0), (2, 3.5)):
        lines.step("int8", number, 2)
        lines.advance("samples", 1, 2)
    clock.now = 4.0
    lines.step("write and check")
    lines.end()
    assert stream.getvalue() == "[1/2] int8: 2.5 s\n[2/2] int8: 0.5 s\n"


def test_events_are_few_and_the_time_left_is_finite() -> None:
    clock, stream = Clock(), io.StringIO()
    events = Events(stream, "-", {"model": "m"}, clock)
    for done in range(1, 1001):
        clock.now = done / 100
        events.advance("samples", done, 1000)
    for _ in range(1000):  # tasks that are over at once
        events.advance("others", 1, 1)
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {e["format"] for e in found} == {1}
    told = [e for e in found if e["event"] == "progress"]
    assert [e["done"] for e in told] == sorted(e["done"] for e in told if e["what"] == "samples")
    assert told[-1]["done"] == told[-1]["total"]
    assert len(told) <= 10 * RATE + 2
    assert told[0]["left"] is None
    assert all(math.isfinite(e["left"]) and e["left"] >= 0 for e in told[1:])


def test_a_count_inside_another_hides_it_not() -> None:
    clock, stream = Clock(), io.StringIO()
    events = Events(stream, "-", {}, clock)
    for outer in (1, 2, 3):
        for inner in (1, 2):
            clock.now += 1
            events.advance("samples", inner, 2)
        events.advance("weights", outer, 4)
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(e["what"], e["done"]) for e in found if e["event"] == "progress"] == [
        (what, done) for n in (1, 2, 3) for what, done in (("samples", 1), ("samples", 2), ("weights", n))
    ]


@pytest.mark.parametrize(
    ("failure", "last"),
    [
        (None, {"event": "done", "status": "done"}),
        (BoundError(Diagnostic(Code.BOUND_MISSED, "m")), {"event": "done", "status": "done"}),
        (KeyboardInterrupt(), {"event": "failed", "exit": 130, "errors": []}),
        (MemoryError(), {"event": "failed", "exit": 4, "errors": []}),
        (ZeroDivisionError(), {"event": "failed", "exit": 1, "errors": []}),
        (
            error(Code.USAGE, "wrong", help="right"),
            {"event": "failed", "exit": 2, "errors": [{"code": "E0804", "message": "wrong", "help": "right"}]},
        ),
    ],
    ids=lambda given: type(given).__name__,
)
def test_the_last_event(failure: BaseException | None, last: dict[str, object]) -> None:
    stream = io.StringIO()
    Events(stream, "-", {}, Clock()).end(failure)
    assert json.loads(stream.getvalue().splitlines()[-1]) == {"format": 1, "seconds": 0.0, **last}


def test_the_command_line(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["compile", str(model), "-r", "simplify + int8 where size <= 0.01x", "--data", str(data), "--force"]
    options += ["-o", str(tmp_path / "o.mlc")]
    assert run([*options, "--events", str(tmp_path / "e.jsonl"), "--json"]) == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["status"] == "missed"
    assert [line.partition(":")[0] for line in told.err.splitlines()[:2]] == ["[1/2] simplify", "[2/2] int8"]
    found = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text("utf-8").splitlines()]
    assert found[0]["event"] == "started"
    assert found[0]["model"] == str(model)
    assert found[-1]["event"] == "done"
    assert found[-1]["status"] == "missed"
    assert [e["text"] for e in found if e["event"] == "note"] == json.loads(told.out)["warnings"]
    assert run([*options, "--quiet"]) == 3
    assert capsys.readouterr().err.startswith("error[E0303]")
    assert run([*options, "--events", str(tmp_path / "none" / "e")]) == 2
    assert "choose another --events" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        (["inspect", "NET", "--sensitivity", "--data", "DATA"], "samples"),
        (["data", "check", "NET", "--data", "DATA"], "--data"),
        (["calibrate", "--quick", "-o", "OUT"], "measurements"),
    ],
    ids=lambda a: a[0],
)
def test_other_long_commands_tell_as_compile_does(
    arguments: list[str], task: str, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"NET": str(model), "DATA": str(data), "OUT": str(tmp_path / "costs.json")}
    command = [names.get(a, a) for a in arguments]
    assert run([*command, "--events", "-", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)
    events = [json.loads(line) for line in told.err.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["started", "done"]
    assert task in {e["what"] for e in events if e["event"] == "progress"}
    assert run([*command, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_what_is_quick_has_no_progress(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--quiet"], ["--events", "-"]):
        assert run(["inspect", str(model), *option]) == 2
        assert f"{option[0]} goes with --sensitivity" in capsys.readouterr().err
