"""The data sources there are, by the name that recipes and the command line call them."""

from __future__ import annotations

import re
from pathlib import Path

from ...ir import errors
from ...ir.errors import Code
from .images import Images
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

    Errors: NOT_FOUND; BAD_DATA for what cannot be read without saying how.
    """
    place = Path(path)
    if place.suffix == ".npz":
        return Npz(path)
    if place.suffix == ".npy":
        return Npy(path)
    if place.is_dir():
        if any(place.rglob("*.npy")):
            return Npy(path)
        raise bad(
            "the folder holds no .npy files",
            path,
            f'images are declared: images("{path}", size=224, mean=..., std=...)',
        )
    if _FUNCTION.match(path) and not place.exists():
        return Python(path)
    if not place.exists():
        raise errors.error(Code.NOT_FOUND, f"there is no data file {path!r}", help="check the path")
    if place.suffix in _TEXT:
        raise bad("text needs a tokenizer", path, f'write text("{path}", tokenizer="tokenizer.json")')
    raise bad("data of unknown kind", path, f"give an .npz file, or write one of {', '.join(SOURCES)}")
