"""The data sources there are, by the name that recipes and the command line call them."""

from __future__ import annotations

from pathlib import Path

from ...ir import errors
from ...ir.errors import Code
from .npz import Npz
from .source import Source

SOURCES: dict[str, type[Source]] = {source.name: source for source in (Npz,)}


def source_at(path: str) -> Source:
    """The source that a bare path means. Errors: NOT_FOUND, BAD_DATA for files whose use must be declared."""
    file = Path(path)
    if file.suffix == ".npz":
        return Npz(path)
    raise errors.error(Code.NOT_FOUND, f"there is no data file {path!r}", help="check the path; arrays are .npz files")
