"""Where a recipe comes from: the command line itself, a file (`edge.mlc:small(r=70%)`), or standard input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from .files import accepted, read_file

STDIN = "<stdin>"
_FILE = re.compile(r"(?P<path>.*\.mlc)(?::(?P<choose>[\w.]+(?:\(.*)?))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a recipe, what to call it in messages, the recipe to choose (with its arguments), and the folder of
    its paths."""

    text: str
    name: str
    choose: str | None = None
    folder: Path | None = None


def read_source(argument: str, *, stdin: TextIO) -> Source:
    """The text behind `--recipe ARGUMENT`."""
    if argument == "-":
        return Source(accepted(stdin.read(), STDIN), STDIN, folder=Path())
    found = _FILE.match(argument)
    if found is None:
        return Source(argument, "--recipe")
    path = Path(found["path"])
    return Source(read_file(path), str(path), found["choose"], path.parent)
