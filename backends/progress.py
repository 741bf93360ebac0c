"""Listeners of progress (ir/progress.py): one line of a terminal that is redrawn, a line per step for logs, events for
programs."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ..ir.disk import write_error
from ..ir.errors import BoundError, MlcError

FORMAT = 1
STDERR = "-"
RATE = 10  # events, and redrawn lines, a second
TICK = 1.0  # seconds without news after which a line shows that time goes on
_NARROW = 80  # columns of a terminal that does not tell
Clock = Callable[[], float]


@dataclass
class Task:
    """A count that rises, and since when."""

    started: float
    first: int  # what was done when it was first heard of: that took no time that we know
    done: int
    total: int
    told: bool = False

    def left(self, now: float) -> float | None:
        """Seconds that are left if the rest goes on as fast; None while nothing was seen to be done."""
        seen = self.done - self.first
        return (now - self.started) / seen * (self.total - self.done) if seen > 0 else None


@dataclass
class Tasks:
    """What is under way, by name, and when each may be shown again: a quick inner count does not hide the outer one."""

    clock: Clock = time.monotonic
    open: dict[str, Task] = field(default_factory=dict)
    _due: dict[str, float] = field(default_factory=dict)

    def advance(self, what: str, done: int, total: int) -> tuple[Task, float] | None:
        """The task and the time if it is to be shown: `RATE` times a second, and at its end if it was before."""
        now = self.clock()
        task = self.open.get(what)
        if task is None or done < task.done:
            task = self.open[what] = Task(now, done, done, total)
        task.done, task.total = done, total
        last = done >= total
        if last:
            del self.open[what]
        if not task.told if last else now < self._due.get(what, now):
            return None
        self._due[what], task.told = now + 1 / RATE, True
        return task, now


class Silent:
    """Hears nothing."""

    status = "done"

    def advance(self, what: str, done: int, total: int) -> None:
        """Nothing to show."""

    def step(self, what: str, number: int = 0, total: int = 0) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Nothing to show."""

    def pause(self) -> None:
        """Something else is going to be shown."""

    def end(self, failure: BaseException | None = None) -> None:
        """The work is over."""


class Lines(Silent):
    """For logs: a line for every step of a recipe, and every trial, when it is done, and how long it took."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._step, self._since = "", 0.0

    def step(self, what: str, number: int = 0, total: int = 0) -> None:
        self._tell()
        self._step, self._since = _numbered(what, number, total) if number else "", self._clock()

    def pause(self) -> None:
        self._tell()

    def end(self, failure: BaseException | None = None) -> None:
        if failure is None:
            self._tell()

    def _tell(self) -> None:
        if self._step:
            self._stream.write(f"{self._step}: {self._clock() - self._since:.1f} s\n")
            self._stream.flush()
        self._step = ""


class Line(Silent):
    """For a terminal: one line that is redrawn, and gone at the end. It has no colours."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic, columns: Callable[[], int] | None = None) -> None:
        self._stream, self._columns = stream, columns or (lambda: _columns(stream))
        self._tasks, self._clock, self._lock = Tasks(clock), clock, threading.RLock()
        self._step, self._began = "", clock()
        self._told, self._drawn, self._at = "", False, 0.0  # the task that was told of last; when something was drawn

    def step(self, what: str, number: int = 0, total: int = 0) -> None:
        with self._lock:
            self._step, self._began = _numbered(what, number, total), self._clock()
            self._tasks.open.clear()
            self._draw(self._step)

    def advance(self, what: str, done: int, total: int) -> None:
        with self._lock:
            self._told = what
            shown = self._tasks.advance(what, done, total)
            if shown is not None:
                self._count(what, *shown)

    def tick(self) -> None:
        """Time goes on where nothing was told for a while: one call of a solver or of the runtime may take long."""
        with self._lock:
            now, task = self._clock(), self._tasks.open.get(self._told)
            if not self._drawn or now - self._at < TICK:
                return
            if task is not None:
                self._count(self._told, task, now)
            else:
                self._draw(self._step, _minutes(now - self._began))

    def pause(self) -> None:
        with self._lock:
            if self._drawn:
                self._stream.write("\r\x1b[K")
                self._stream.flush()
            self._drawn = False

    def end(self, failure: BaseException | None = None) -> None:
        self.pause()

    def _count(self, what: str, task: Task, now: float) -> None:
        left = task.left(now)
        more = f", {_minutes(left)} left" if left is not None else ""
        self._draw(self._step, f"{what} {task.done}/{task.total}  {_minutes(now - task.started)}{more}")

    def _draw(self, step: str, count: str = "") -> None:
        """Where there is no room for both, the step is cut, because counts are what changes."""
        room = max(0, self._columns() - 1 - (len(count) + 2 if count else 0))
        shown = step if len(step) <= room else f"{step[: max(0, room - 1)]}…"
        text = ": ".join(filter(None, (shown, count)))[: self._columns() - 1]
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()
        self._drawn, self._at = True, self._clock()


class Events(Silent):
    """For programs: JSON lines, each with `format`, `event`, and the seconds since the start."""

    def __init__(self, stream: TextIO, name: str, about: Mapping[str, Any], clock: Clock = time.monotonic) -> None:
        self._stream, self._name, self._clock = stream, name, clock
        self._tasks, self._start = Tasks(clock), clock()
        self._emit("started", about)

    def step(self, what: str, number: int = 0, total: int = 0) -> None:
        self._tasks.open.clear()
        self._emit("step", {"what": what, "number": number or None, "of": total or None})

    def advance(self, what: str, done: int, total: int) -> None:
        shown = self._tasks.advance(what, done, total)
        if shown is not None:
            left = shown[0].left(shown[1])
            told = {"what": what, "done": done, "total": total, "left": round(left, 3) if left is not None else None}
            self._emit("progress", told)

    def note(self, text: str) -> None:
        self._emit("note", {"text": text})

    def end(self, failure: BaseException | None = None) -> None:
        if failure is None or isinstance(failure, BoundError):
            self._emit("done", {"status": self.status})
        else:
            self._emit("failed", _failure(failure))

    def _emit(self, event: str, more: Mapping[str, Any]) -> None:
        seconds = round(self._clock() - self._start, 3)
        line = json.dumps({"format": FORMAT, "event": event, "seconds": seconds, **more}, ensure_ascii=False)
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except OSError as cause:
            raise write_error(Path(self._name).parent, cause, "choose another --events") from cause


class Both(Silent):
    """Tells two listeners."""

    def __init__(self, events: Events, other: Silent) -> None:
        self._all: tuple[Silent, ...] = (events, other)

    def advance(self, what: str, done: int, total: int) -> None:
        for listener in self._all:
            listener.advance(what, done, total)

    def step(self, what: str, number: int = 0, total: int = 0) -> None:
        for listener in self._all:
            listener.step(what, number, total)

    def note(self, text: str) -> None:
        for listener in self._all:
            listener.note(text)

    def pause(self) -> None:
        for listener in self._all:
            listener.pause()

    def end(self, failure: BaseException | None = None) -> None:
        for listener in self._all:
            listener.status = self.status
            listener.end(failure)


_EXITS: dict[type[BaseException], int] = {KeyboardInterrupt: 130, MemoryError: 4}


def _failure(failure: BaseException) -> dict[str, Any]:
    """The exit status and what was wrong."""
    if isinstance(failure, MlcError):
        found = [{"code": d.code.code, "message": d.message, "help": d.help} for d in failure.diagnostics]
        return {"exit": failure.exit_status, "errors": found}
    return {"exit": next((n for kind, n in _EXITS.items() if isinstance(failure, kind)), 1), "errors": []}


@contextmanager
def listening(*, quiet: bool = False, events: str | None = None, **about: Any) -> Iterator[Silent]:
    """Who hears of the work in the block: the stream of events, a terminal, or a log (all on stderr). `about` is told
    when it starts. Errors: OUTPUT when events cannot be written."""
    watching = Silent() if quiet or events == STDERR else _watching(sys.stderr)
    listener = watching if events is None else Both(_events(events, about), watching)
    try:
        with _ticking(watching):
            yield listener
    except BaseException as failure:
        listener.end(failure)
        raise
    listener.end()


@contextmanager
def _ticking(watching: Silent) -> Iterator[None]:
    """Keeps a line alive."""
    if not isinstance(watching, Line):
        yield
        return
    over = threading.Event()

    def tick() -> None:
        try:
            while not over.wait(TICK):
                watching.tick()
        except OSError:  # the terminal is gone: whoever tells something next finds out
            return

    thread = threading.Thread(target=tick, name="mlc-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _events(name: str, about: Mapping[str, Any]) -> Events:
    if name == STDERR:
        return Events(sys.stderr, name, about)
    try:
        stream = open(name, "w", encoding="utf-8")  # noqa: SIM115  (open as long as the process)
    except OSError as cause:
        raise write_error(Path(name).parent, cause, "choose another --events") from cause
    return Events(stream, name, about)


def _watching(stream: TextIO) -> Silent:
    return Line(stream) if stream.isatty() and os.environ.get("TERM") != "dumb" else Lines(stream)


def _numbered(what: str, number: int, total: int) -> str:
    return f"[{number}/{total}] {what}" if total else what


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _NARROW
    except (OSError, ValueError):
        return _NARROW
