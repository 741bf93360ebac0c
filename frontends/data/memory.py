"""Samples from Python itself: arrays that are there already, or a function. Recipes cannot write these sources."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from .columns import ColumnStream
from .python import PythonStream
from .source import Array, Inputs, Source, Stream, Wanted, bad, match_keys

ARRAYS = "arrays from Python"


class _Given(Source):
    """A source whose only field comes from Python, where nothing is relative to a folder."""

    def __post_init__(self) -> None:
        pass

    def based(self, folder: Path) -> Self:
        return self


@dataclass(frozen=True)
class Arrays(_Given):
    """One array per input, samples on axis 0, as in an .npz file."""

    name: ClassVar[str] = "arrays"
    arrays: Mapping[str, Any]

    def open(self, inputs: Inputs, labels: str | None) -> Stream:
        pairs = match_keys([*self.arrays], inputs, labels, ARRAYS)
        columns = {key: _held(key, self.arrays[key]) for key in (*pairs.values(), *([labels] if labels else []))}
        return ColumnStream(
            ARRAYS,
            {name: columns[key] for name, key in pairs.items()},
            columns[labels] if labels is not None else None,
            lambda: _digest({key: column.array for key, column in columns.items()}),
        )


@dataclass(frozen=True)
class Function(_Given):
    """What a function yields: a dict of arrays for each sample, anew at every call."""

    name: ClassVar[str] = "function"
    function: Callable[[], Iterable[Mapping[str, Any]]]

    def open(self, inputs: Inputs, labels: str | None) -> Stream:
        return PythonStream(title_of(self.function), self.function, inputs, labels)


def title_of(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__name__)}"


@dataclass(frozen=True)
class _Held:
    """A column that lies in memory."""

    array: Array

    def __len__(self) -> int:
        return len(self.array)

    def detail(self, index: int) -> str:
        return ""

    def read(self, wanted: Wanted, stream: Stream) -> Generator[Array, None, None]:
        for index in wanted:
            yield self.array[index, ...]  # an array also where it is a single number or text


def _held(key: str, value: Any) -> _Held:
    array = np.asarray(value)
    if array.ndim == 0 or array.dtype.hasobject:
        found = "a single number" if array.ndim == 0 else "no array of numbers"
        raise bad(f"{key!r} is {found}; axis 0 of an array counts the samples", ARRAYS, "give a numpy array")
    return _Held(array)


def _digest(arrays: Mapping[str, Array]) -> str:
    sha = hashlib.sha256()
    for key, array in sorted(arrays.items()):
        sha.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
        for row in array:  # a piece at a time: views need not be contiguous
            sha.update(np.ascontiguousarray(row).tobytes())
    return sha.hexdigest()
