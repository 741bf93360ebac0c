"""Code blocks of the documents: found, and run as a reader would.

A block is fenced, or a line of four spaces and `mlc`. A comment in front of a fence says what is special:

<!-- not run: WHY -->      nobody runs it in tests
<!-- on NAME -->           the model is this one of the zoo

A command that ends with `# exit N` ends with that status. A block of text shows what the commands in front of it print;
`...` stands for anything, as do what is behind `speed` and the numbers behind `agreement`, which depend on the machine.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlc.cli import app, run

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"(?:^<!-- (?P<marker>.*?) -->\n)?^```(?P<info>.*)\n(?P<text>(?:.*\n)*?)^```$", re.MULTILINE)
_LINE = re.compile(r"^    (mlc .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it is (if any), its text and the marker in front."""

    page: Path
    line: int
    language: str
    file: str
    text: str
    marker: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its lines, without those that are only comments."""
        return [line for line in self.text.splitlines() if line.strip() and not line.startswith("#")]

    @property
    def model(self) -> str:
        """The model of the zoo that it is about, if any."""
        return self.marker.removeprefix("on ") if self.marker.startswith("on ") else ""


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, _, file = match["info"].partition(" ")
        line = text.count("\n", 0, match.start("info")) + 1
        found.append(Block(page, line, language, file.strip(), match["text"], match["marker"] or ""))
    return found


def indented(page: Path) -> list[str]:
    """Commands of mlc that stand alone, four spaces deep."""
    return _LINE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def accept(words: list[str]) -> Any:
    """What the command line makes of `mlc WORDS`; raises what it raises."""
    import typer.main

    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    return command.make_context(command.name, list(words))


def split(command: str) -> tuple[list[str], int]:
    """The words of a command, and the status that its comment says."""
    status = re.search(r"# exit (\d+)", command)
    return shlex.split(command, comments=True), int(status[1]) if status else 0


class Reader:
    """Does what a page says, block by block, in a folder that it may leave by `cd`."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, names: dict[str, Any] | None = None) -> None:
        self._patch, self._names, self.printed = patch, dict(names or {}), ""
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        patch.syspath_prepend(str(folder))

    def read(self, block: Block) -> None:
        if block.marker.startswith("not run: "):
            return
        match block.language:
            case "sh":
                self.printed = "".join(map(self.run, block.commands))
            case "text":
                self._compare(block)
            case _ if block.file:
                self._file(block)
            case "python":
                self._python(block)
            case _:
                raise AssertionError(f"{block}: nothing is known about blocks of {block.language!r}")

    def run(self, command: str) -> str:
        """What a command prints; it ends as it says."""
        words, wanted = split(command)
        if words[0] == "cd":
            self._patch.chdir(words[1])
            return ""
        if words[0] == "mlc":
            with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
                status = run(words[1:])
            printed, told = out.getvalue(), err.getvalue()
        else:
            assert words[0] == "python", command
            done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
            status, printed, told = done.returncode, done.stdout, done.stderr
        assert status == wanted, f"{command}: exit {status}\n{printed}{told}"
        return printed + told

    def _python(self, block: Block) -> None:
        named = re.match(r"# (\w+\.py)\n", block.text)
        if named:
            Path(named[1]).write_text(block.text, encoding="utf-8")
        exec(compile(block.text, str(block), "exec"), self._names)

    def _file(self, block: Block) -> None:
        """A file that is there already is what the page shows."""
        path = Path(block.file)
        if path.exists():
            assert path.read_text(encoding="utf-8") == block.text, f"{block}: {path} reads otherwise"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")

    def _compare(self, block: Block) -> None:
        lines = [_words(line) for line in self.printed.splitlines()]
        for line in block.text.splitlines():
            pattern = ".*".join(map(re.escape, _words(line).split("...")))
            assert any(re.fullmatch(pattern, found) for found in lines), f"{block}: {line}\n{self.printed}"


def _words(line: str) -> str:
    """Without what depends on room, time and machine."""
    joined = " ".join(line.split())
    if joined.startswith("agreement "):
        return re.sub(r"[\d.]+", "#", joined)
    return "speed" if joined.startswith("speed ") else joined


def pages() -> Iterator[Path]:
    yield ROOT / "README.md"
    yield ROOT / "CONTRIBUTING.md"
    yield from sorted(ROOT.glob("docs/**/*.md"))
