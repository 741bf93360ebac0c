"""Samples whose inputs lie in columns of their own: arrays with the samples on axis 0, or folders of a file each.

An array is streamed: its rows are read one after the other, and those that nobody wants are skipped, so that memory
does not grow with the file.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from .source import Array, Sample, Stream, Wanted, bad

Header = tuple[np.dtype[Any], tuple[int, ...]]
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading an array that is broken raises."""


class Column(Protocol):
    """The values of one input (or the labels) for all samples."""

    def __len__(self) -> int: ...

    def read(self, wanted: Wanted, stream: Stream) -> Generator[Array, None, None]: ...

    def detail(self, index: int) -> str:
        """Where a sample is, beyond its number; may be empty."""


@dataclass(frozen=True)
class Stacked:
    """One array whose axis 0 counts the samples. `open` yields its bytes from the header on."""

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, open: Callable[[], AbstractContextManager[IO[bytes]]], where: str) -> Stacked:
        """Errors: BAD_DATA for what cannot be streamed."""
        try:
            with open() as stream:
                dtype, shape = read_header(stream)
        except UNREADABLE as cause:
            raise bad(f"{name!r} is not a readable array: {cause}", where, "write it with numpy.savez") from cause
        if not shape:
            raise bad(
                f"{name!r} is a single number; axis 0 of an array counts the samples", where, "give one more axis"
            )
        return cls(name, open, dtype, shape)

    def __len__(self) -> int:
        return self.shape[0]

    def detail(self, index: int) -> str:
        return ""

    def read(self, wanted: Wanted, stream: Stream) -> Generator[Array, None, None]:
        shape = self.shape[1:]
        nbytes = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        index = at = 0
        try:
            with self.open() as file:
                read_header(file)
                for index in wanted:
                    file.seek((index - at) * nbytes, 1)
                    raw = file.read(nbytes)
                    if len(raw) != nbytes:
                        raise EOFError("the array ends too early")
                    at = index + 1
                    yield np.frombuffer(raw, self.dtype).reshape(shape)
        except UNREADABLE as cause:
            raise bad(f"{self.name!r} cannot be read: {cause}", stream.where(index), "write the file again") from cause


@dataclass(frozen=True)
class Files:
    """A .npy file for each sample, in the order of their names."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def detail(self, index: int) -> str:
        path = self.paths[index]
        return f"{path.parent.name}/{path.name}"

    def read(self, wanted: Wanted, stream: Stream) -> Generator[Array, None, None]:
        for index in wanted:
            try:
                found: Array = np.load(self.paths[index], allow_pickle=False)
            except UNREADABLE as cause:
                told = f"the file is not a readable array: {cause}"
                raise bad(told, self._where(stream, index), "save it with numpy.save") from cause
            if not isinstance(found, np.ndarray):
                raise bad(
                    "the file is an archive, not one array", self._where(stream, index), "save it with numpy.save"
                )
            yield found

    def _where(self, stream: Stream, index: int) -> str:
        return stream.where(index, self.detail(index))


class ColumnStream(Stream):
    """The columns of some inputs and, perhaps, of the labels, read side by side."""

    def __init__(
        self,
        title: str,
        columns: Mapping[str, Column],
        labels: Column | None,
        digest: Callable[[], str],
        notes: Sequence[str] = (),
    ) -> None:
        self.title, self.notes = title, tuple(notes)
        self._columns, self._labels, self._digest = columns, labels, digest
        counts = {f"input {name!r}": len(c) for name, c in columns.items()}
        counts |= {"the labels": len(labels)} if labels is not None else {}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{count} for {name}" for name, count in counts.items())
            raise bad(f"the numbers of samples differ: {told}", title, "give each input as many samples as the others")
        self._count = next(iter(counts.values()), 0)
        if not self._count:
            raise bad("it holds no samples: axis 0 counts them, and is 0", title, "save some dozens")

    def count(self, limit: int | None = None) -> int:
        return self._count if limit is None else min(self._count, limit)

    def read(self, wanted: Wanted) -> Iterator[Sample]:
        with ExitStack() as stack:
            readers = {n: _opened(stack, c, wanted, self) for n, c in self._columns.items()}
            labels = None if self._labels is None else _opened(stack, self._labels, wanted, self)
            for index in wanted:
                inputs = {name: next(reader) for name, reader in readers.items()}
                yield Sample(index, self._place(index), inputs, None if labels is None else next(labels))

    def _place(self, index: int) -> str:
        details = dict.fromkeys(filter(None, (column.detail(index) for column in self._columns.values())))
        return self.where(index, ", ".join(details))

    def digest(self, limit: int | None = None) -> str:
        return self._digest()


def _opened(stack: ExitStack, column: Column, wanted: Wanted, stream: Stream) -> Iterator[Array]:
    return stack.enter_context(closing(column.read(wanted, stream)))


def read_header(stream: IO[bytes]) -> Header:
    """The element type and shape of an array in a .npy file; the stream stands at its first element then."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if fortran and len(shape) > 1:
        raise ValueError("arrays in column-major order cannot be streamed; save a C-contiguous copy")
    if dtype.hasobject:
        raise ValueError("object arrays are not read (they would execute code)")
    return dtype, tuple(shape)
