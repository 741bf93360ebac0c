"""Where a recipe comes from: the command line itself, a file (`edge.mlc`, `edge.mlc:small`), or standard input."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..ir.errors import Code, error
from .print import layout
from .recipe import Checked

FORMAT = 1
_FILE = re.compile(r"(?P<path>.*\.mlc)(?::(?P<choose>\w+))?\Z", re.DOTALL)
_HEADER = re.compile(r"#\s*format:\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a recipe, what to call it in messages, the recipe to choose, and the folder of its paths."""

    text: str
    name: str
    choose: str | None = None
    folder: Path | None = None


def read_source(argument: str, *, stdin: TextIO) -> Source:
    """The text behind `--recipe ARGUMENT`."""
    if argument == "-":
        return _accepted(Source(stdin.read(), "<stdin>"))
    found = _FILE.match(argument)
    if found is None:
        return Source(argument, "--recipe")
    path = Path(found["path"])
    return _accepted(Source(_read(path), str(path), found["choose"], path.parent))


def file_text(checked: Checked) -> str:
    """What is stored beside an artifact: the expanded recipe, with the format's number."""
    return f"# mlc recipe\n# format: {FORMAT}\n{layout(checked.expanded)}\n"


def _read(path: Path) -> str:
    if path.is_dir():
        inside = path / "recipe.mlc"
        advice = f"give the recipe in it: {inside}" if inside.is_file() else "give a recipe file"
        raise error(Code.NOT_FOUND, "the recipe is a folder", where=str(path), help=advice)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error(Code.NOT_FOUND, "the recipe file was not found", where=str(path), help="check the path") from None
    except UnicodeDecodeError:
        raise error(Code.CHARACTER, "the recipe file is not text", where=str(path), help="save it as UTF-8") from None
    except OSError as e:
        message = f"the recipe file cannot be read: {e.strerror}"
        raise error(Code.NOT_FOUND, message, where=str(path), help="check its permissions") from None


def _accepted(source: Source) -> Source:
    for line in source.text.splitlines():
        if not line.startswith("#"):
            break
        found = _HEADER.match(line)
        if found is not None and int(found[1]) > FORMAT:
            raise error(
                Code.FORMAT,
                f"the recipe has format {found[1]}, and this mlc reads up to {FORMAT}",
                where=source.name,
                help="update mlc: pip install -U mlc-compress",
            )
    return source
