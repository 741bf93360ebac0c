"""The data sources there are, by the name that recipes and the command line call them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from ...ir import errors
from ...ir.errors import Code
from .images import Images
from .images_advice import Undeclared
from .npy import Npy
from .npz import Npz
from .python import Python
from .source import Source, bad
from .text import Text

SOURCES: dict[str, type[Source]] = {source.name: source for source in (Npz, Npy, Images, Text, Python)}

_FUNCTION = re.compile(r"(?:[\w.]+|.*\.py):[A-Za-z_]\w*\Z", re.DOTALL)
_TEXT = (".jsonl", ".ndjson", ".txt")


def source_at(path: str) -> Source:
    """The source that a bare path means: arrays, or a function.

    Errors: NOT_FOUND; BAD_DATA for what cannot be read without saying how (a folder without arrays: when it is opened,
    because the model says how images would have to be).
    """
    place = Path(path)
    if place.suffix == ".npz":
        return Npz(path)
    if place.suffix == ".npy":
        return Npy(path)
    if place.is_dir():
        return Npy(path) if any(place.rglob("*.npy")) else Undeclared(path)
    if _FUNCTION.match(path) and not place.exists():
        return Python(path)
    if not place.exists():
        raise errors.error(Code.NOT_FOUND, f"there is no data file {path!r}", help="check the path")
    if place.suffix == ".py":
        raise bad("a Python file is data by one of its functions", path, f"write {path}:{_function_in(place)}")
    if place.suffix == ".onnx":
        raise bad("a model is no data", path, "give samples: a .npz file with an array for each input")
    if place.suffix in _TEXT:
        raise bad("text needs a tokenizer", path, f'write text("{path}", tokenizer="tokenizer.json")')
    raise bad("data of unknown kind", path, f"give an .npz file, or write one of {', '.join(SOURCES)}")


def _function_in(file: Path) -> str:
    """The first function of a file that takes no arguments, by its text; nothing is executed."""
    try:
        found = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return "FUNCTION"
    names = (f.name for f in found if isinstance(f, ast.FunctionDef) and not (f.args.args or f.name.startswith("_")))
    return next(names, "FUNCTION")
