"""An archive of numpy.savez: one array per input, samples on axis 0."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, ClassVar

from ...ir import errors
from ...ir.errors import Code
from ...ir.options import option
from .columns import UNREADABLE, ColumnStream, Stacked
from .source import Inputs, Source, Stream, bad, digest_of_files, match_keys


@dataclass(frozen=True)
class Npz(Source):
    """A file of numpy.savez: keys are input names (any key for the only input), axis 0 counts the samples."""

    name: ClassVar[str] = "npz"
    path: str = option(unit="path", positional=True, doc="the file")

    def open(self, inputs: Inputs, labels: str | None) -> Stream:
        file = Path(self.path)
        if not file.is_file():
            raise errors.error(Code.NOT_FOUND, f"there is no data file {self.path!r}", help="check the path")
        try:
            with zipfile.ZipFile(file) as archive:
                keys = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        except UNREADABLE as cause:
            raise bad(f"not a readable .npz file: {cause}", self.path, "write it with numpy.savez") from cause
        pairs = match_keys(keys, inputs, labels, self.path)
        needed = {*pairs.values(), *([labels] if labels is not None else [])}
        columns = {key: Stacked.of(key, partial(_member, file, key), self.path) for key in needed}
        return ColumnStream(
            self.path,
            {name: columns[key] for name, key in pairs.items()},
            columns[labels] if labels is not None else None,
            lambda: digest_of_files([(file.name, file)]),
            [f"not used: {key!r}" for key in keys if key not in needed],
        )


@contextmanager
def _member(file: Path, key: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as member:
        yield member
