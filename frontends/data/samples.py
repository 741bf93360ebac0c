"""Samples from an .npz file, streamed: no member is ever held in memory as a whole.

Keys are the model's input names (or one key for the only input); axis 0 counts the samples. An array of the
input's rank is cut along its batch axis; an array with one axis more holds one whole input per sample. With a mask,
samples are cut to their real lengths (padding.py), and batches hold samples of one length.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...ir import errors
from ...ir.errors import Code
from ...ir.types import TensorType, Type
from .padding import Padding

Array = np.ndarray[Any, Any]
_HASH_CHUNK = 1 << 20
_HELD_OUT = 5  # one sample in five judges when there is no evaluation set
_WAITING = 8  # batches' worth of samples that may wait for others of their length


@dataclass(frozen=True, slots=True)
class Batch:
    """Some samples; satisfies the protocol of the passes."""

    inputs: Mapping[str, Array]
    labels: Array | None
    n: int


@dataclass(frozen=True, slots=True)
class Member:
    """One array of the archive: its key, element type, shape, and the input it feeds ('' for labels)."""

    key: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    feeds: str
    whole: bool  # every sample is a whole input, not a slice along the batch axis


@dataclass(frozen=True)
class NpzData:
    """Samples of one archive. `part` keeps a seeded share: 'calibrate', 'judge', or None for all of them."""

    path: Path
    members: tuple[Member, ...]
    labels: str | None = None
    take: int | None = None
    part: str | None = None
    seed: int = 0
    padding: Padding | None = None

    @property
    def names(self) -> Sequence[str]:
        return tuple(m.feeds for m in self.members if m.feeds)

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    @property
    def total(self) -> int:
        count = self.members[0].shape[0]
        return count if self.take is None else min(count, self.take)

    def __len__(self) -> int:
        return sum(1 for i in range(self.total) if self._kept(i))

    def _kept(self, index: int) -> bool:
        if self.part is None:
            return True
        draw = hashlib.sha256(f"{self.seed}/{index}".encode()).digest()[0] % _HELD_OUT
        return (draw == 0) == (self.part == "judge")

    def split(self, seed: int) -> tuple[NpzData, NpzData]:
        """A seeded 80/20 split: (calibrates, judges)."""
        return replace(self, part="calibrate", seed=seed), replace(self, part="judge", seed=seed)

    def batches(self, size: int = 1) -> Iterator[Batch]:
        """Batches of up to `size` samples of one shape, in file order as far as shapes allow."""
        size = 1 if any(m.whole for m in self.members) else size
        waiting: dict[tuple[tuple[int, ...], ...], list[dict[str, Array]]] = {}
        held = 0
        for row in self._rows():
            rows = waiting.setdefault(tuple(a.shape for a in row.values()), [])
            rows.append(row)
            held += 1
            if len(rows) < size:
                if held < size * _WAITING:
                    continue
                rows = max(waiting.values(), key=len)  # not full, but memory stays bounded
            yield self._batch(rows)
            held -= len(rows)
            rows.clear()
        for rows in filter(None, waiting.values()):
            yield self._batch(rows)

    def _batch(self, rows: list[dict[str, Array]]) -> Batch:
        inputs = {
            m.feeds: rows[0][m.key] if m.whole else np.stack([r[m.key] for r in rows]) for m in self.members if m.feeds
        }
        labels = None if self.labels is None else np.stack([r[self.labels] for r in rows])
        return Batch(inputs, labels, len(rows))

    def _rows(self) -> Iterator[dict[str, Array]]:
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self.path))
            streams = {m.key: stack.enter_context(archive.open(f"{m.key}.npy")) for m in self.members}
            for stream in streams.values():
                _read_header(stream)
            for index in range(self.total):
                row = {m.key: _read_row(streams[m.key], m, self.path, index) for m in self.members}
                if self._kept(index):
                    yield row if self.padding is None else self._cut(row, self.padding, index)

    def _cut(self, row: dict[str, Array], padding: Padding, index: int) -> dict[str, Array]:
        mask = next(m for m in self.members if m.feeds == padding.mask)
        length = padding.length(row[mask.key], f"sample {index} in {str(self.path)!r}")
        return {
            m.key: padding.cut(m.feeds, row[m.key], length, whole=m.whole) if m.feeds else row[m.key]
            for m in self.members
        }

    def fingerprint(self) -> str:
        """SHA-256 of the file and of what selects its samples."""
        mask = self.padding.mask if self.padding is not None else None
        sha = hashlib.sha256(f"{self.labels}/{self.take}/{self.part}/{self.seed}/{mask}".encode())
        with self.path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK):
                sha.update(chunk)
        return sha.hexdigest()


def load_npz(
    path: str | os.PathLike[str],
    inputs: Mapping[str, Type],
    *,
    labels: str | None = None,
    mask: str | None = None,
    take: int | None = None,
) -> NpzData:
    """Open an archive for a model with these inputs; `mask` is the input that marks padding.

    Errors: NOT_FOUND, BAD_DATA naming the input that is wrong.
    """
    padding = Padding.of(mask, inputs) if mask is not None else None
    file = Path(path)
    if not file.is_file():
        raise errors.error(Code.NOT_FOUND, f"there is no data file {str(path)!r}")
    try:
        with zipfile.ZipFile(file) as archive:
            found = {n.removesuffix(".npy"): archive.open(n) for n in archive.namelist() if n.endswith(".npy")}
            headers = {key: _read_header(stream) for key, stream in found.items()}
    except (zipfile.BadZipFile, ValueError, OSError) as cause:
        raise errors.error(
            Code.BAD_DATA, f"{str(path)!r} is not a readable .npz file: {cause}", help="write it with numpy.savez"
        ) from cause
    members = _match(str(path), headers, inputs, labels)
    counts = {m.key: m.shape[0] for m in members}
    if len(set(counts.values())) != 1:
        raise errors.error(Code.BAD_DATA, f"the arrays of {str(path)!r} differ in their number of samples: {counts}")
    if not min(counts.values()):
        raise errors.error(Code.BAD_DATA, f"{str(path)!r} holds no samples: axis 0 counts them, and is 0")
    if padding is not None:
        padding.check({m.feeds: m.whole for m in members if m.feeds})
    return NpzData(file, members, labels, take, padding=padding)


def _match(
    path: str,
    headers: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]],
    inputs: Mapping[str, Type],
    labels: str | None,
) -> tuple[Member, ...]:
    keys = [k for k in headers if k != labels]
    if labels is not None and labels not in headers:
        raise errors.error(Code.BAD_DATA, f"{path!r} has no labels {labels!r}", help=f"its keys: {', '.join(headers)}")
    if len(inputs) == 1 and len(keys) == 1:
        pairs = {next(iter(inputs)): keys[0]}
    else:
        pairs = {name: name for name in inputs}
    missing = [name for name, key in pairs.items() if key not in headers]
    if missing:
        raise errors.error(
            Code.BAD_DATA,
            f"{path!r} has no array for input {', '.join(map(repr, missing))}",
            help=f"its keys are {', '.join(headers) or 'none'}; the inputs are {', '.join(inputs)}",
        )
    members = [_member(path, key, *headers[key], name, inputs[name]) for name, key in pairs.items()]
    if labels is not None:
        members.append(Member(labels, *headers[labels], feeds="", whole=False))
    return tuple(members)


def _member(path: str, key: str, dtype: np.dtype[Any], shape: tuple[int, ...], name: str, type: Type) -> Member:
    where = f"array {key!r} of {path!r}"
    if not isinstance(type, TensorType):
        raise errors.error(Code.BAD_DATA, f"input {name!r} is {type}, which no .npz can hold", where=where)
    if dtype != type.dtype.numpy:
        raise errors.error(
            Code.BAD_DATA,
            f"input {name!r} wants {type.dtype.numpy}, not {dtype}",
            where=where,
            help="convert the array",
        )
    if len(shape) not in (type.rank, type.rank + 1) or not shape:
        raise errors.error(Code.BAD_DATA, f"input {name!r} is {type}; the array has shape {list(shape)}", where=where)
    whole = len(shape) == type.rank + 1
    wanted, got = (type.shape, shape[1:]) if whole else (type.shape[1:], shape[1:])
    for axis, (want, have) in enumerate(zip(wanted, got), start=0 if whole else 1):
        if isinstance(want, int) and want != have:
            raise errors.error(Code.BAD_DATA, f"input {name!r} wants {want} on axis {axis}, not {have}", where=where)
    if not whole and isinstance(type.shape[0], int) and type.shape[0] != 1:
        raise errors.error(
            Code.BAD_DATA,
            f"input {name!r} is {type}: one run takes {type.shape[0]} on axis 0, and a slice of the array holds 1",
            where=where,
            help=f"give whole inputs, one axis more: [runs, {', '.join(map(str, type.shape))}]",
        )
    return Member(key, dtype, shape, name, whole)


def _read_header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if fortran and len(shape) > 1:
        raise ValueError("arrays in column-major order cannot be streamed; save a C-contiguous copy")
    if dtype.hasobject:
        raise ValueError("object arrays are not read (they would execute code)")
    return dtype, tuple(shape)


def _read_row(stream: IO[bytes], member: Member, path: Path, index: int) -> Array:
    shape = member.shape[1:]
    wanted = int(np.prod(shape, dtype=np.int64)) * member.dtype.itemsize
    raw = stream.read(wanted)
    if len(raw) != wanted:
        raise errors.error(Code.BAD_DATA, f"array {member.key!r} of {str(path)!r} ends too early")
    row = np.frombuffer(raw, member.dtype).reshape(shape)
    if member.dtype.kind == "f" and np.isnan(row).any():
        raise errors.error(Code.BAD_DATA, f"sample {index} of array {member.key!r} in {str(path)!r} holds NaN")
    return row
