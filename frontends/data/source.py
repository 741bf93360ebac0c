"""What a data source is: declared by its fields, opened for the inputs of a model, read anew for every pass over it.

A source yields its samples one by one. Which of them are used, how they are put into batches, cut, checked and split is
the same for all sources (samples.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ...ir import errors
from ...ir.errors import Code, MlcError
from ...ir.options import check_field, option
from ...ir.types import TensorType

Array = np.ndarray[Any, Any]
Inputs = Mapping[str, TensorType]
_HASH_CHUNK = 1 << 20
BY_FUNCTION = 'feed it by a function: python("file.py:function")'
TWO_SOURCES = f"{BY_FUNCTION}; docs/data.md shows one that reads two sources"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: an array for each input, its label if one was asked for, and where it is in words."""

    index: int
    where: str  # `sample 3 of 'photos': cat/003.jpg`
    inputs: Mapping[str, Array]
    label: Array | None = None

    def digest(self) -> bytes:
        """SHA-256 of the inputs and the label."""
        sha = hashlib.sha256()
        for name, array in (*self.inputs.items(), *([] if self.label is None else [("", self.label)])):
            sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        return sha.digest()


@dataclass(frozen=True)
class Wanted:
    """The numbers of the samples that one pass over the data reads, in order: those below `stop` that are kept."""

    stop: int
    keeps: Callable[[int], bool]

    def __iter__(self) -> Iterator[int]:
        return filter(self.keeps, range(self.stop))


class Stream(ABC):
    """A source that was opened for a model."""

    title: str  # what messages call it
    notes: Sequence[str] = ()  # what of it is not used

    @abstractmethod
    def count(self, limit: int | None = None) -> int:
        """The number of samples, or `limit` if there are more."""

    @abstractmethod
    def read(self, wanted: Wanted) -> Iterator[Sample]:
        """The wanted samples in order. Errors: BAD_DATA for one that cannot be read."""

    @abstractmethod
    def digest(self, limit: int | None = None) -> str:
        """SHA-256 of what the samples (or the first `limit`) are made from; the data is streamed."""

    def sha256(self, limit: int | None = None) -> str:
        """The digest, computed once: the parts of a split share their stream."""
        known: dict[int | None, str] = vars(self).setdefault("_known", {})
        if limit not in known:
            known[limit] = self.digest(limit)
        return known[limit]

    def resized(self, shape: Sequence[int]) -> str:
        """How samples get this shape (of a whole input), which the model works with."""
        return "cut or resize the samples: the shapes of a model's operators decide what it takes"

    def where(self, index: int, detail: str = "") -> str:
        return f"sample {index} of {self.title!r}" + (f": {detail}" if detail else "")


class Source(ABC):
    """A data source as declared: a frozen dataclass whose fields are the arguments that recipes give it."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every source is a dataclass
            check_field(self.name, field, getattr(self, field.name))

    @abstractmethod
    def open(self, inputs: Inputs, labels: str | None) -> Stream:
        """The samples for a model with these inputs, with the labels of this name.

        Errors: NOT_FOUND, BAD_DATA for what is wrong with all of them.
        """

    @property
    def code(self) -> str:
        """The user's code that opening it executes, as it is written; nothing for most sources."""
        return ""

    def based(self, folder: Path) -> Self:
        """The same source with relative paths taken from a folder."""
        paths = {
            f.name: str(folder / value)
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.metadata["unit"] == "path" and (value := getattr(self, f.name)) is not None
        }
        return dataclasses.replace(self, **paths)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which samples of a source are used, and how; the same arguments for every source."""

    labels: str | None = option(None, unit="word", doc="what holds the labels: a key, or what the source says")
    mask: str | None = option(None, unit="word", doc="the input that marks padding: samples are cut to their length")
    take: int | None = option(None, unit="int", low=1, doc="use at most so many samples: the first, or drawn by `seed`")
    seed: int | None = option(None, unit="int", low=0, doc="draw the samples of `take` from all of them by this seed")
    batch: int | None = option(None, unit="int", low=1, doc="at most so many samples are run at once")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_field("data", field, getattr(self, field.name))
        if self.seed is not None and self.take is None:
            raise errors.error(
                Code.USAGE,
                f"the data's seed = {self.seed} draws nothing: it says which samples `take` takes",
                help="give take=N as well, or leave seed out (the split has the seed of --seed)",
            )


def bad(message: str, where: str, help: str, *, note: str = "") -> MlcError:
    """The one form of an error about data."""
    return errors.error(Code.BAD_DATA, message, where=where, help=help, note=note)


def match_keys(keys: Sequence[str], inputs: Inputs, labels: str | None, where: str) -> dict[str, str]:
    """The key that feeds each input: its own name, or the only key there is for the only input.

    Errors: BAD_DATA when an input or the labels are missing.
    """
    if labels is not None and labels not in keys:
        raise bad(f"there are no labels {labels!r}", where, f"there is {', '.join(map(repr, keys)) or 'nothing'}")
    others = [key for key in keys if key != labels]
    if len(inputs) == 1 and len(others) == 1:
        return dict(zip(inputs, others))
    missing = [name for name in inputs if name not in others]
    if missing:
        raise bad(
            f"there is no array for input {', '.join(map(repr, missing))}",
            where,
            f"there is {', '.join(map(repr, others)) or 'nothing'}; the inputs are {', '.join(map(repr, inputs))}",
        )
    return {name: name for name in inputs}


def natural(name: str) -> list[str | int]:
    """A key that sorts names as people count: `9.npy` before `10.npy`."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))]


def hash_file(sha: Any, path: Path) -> None:
    """Feed a file to a hash, a piece at a time."""
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            sha.update(chunk)


def digest_of_files(files: Sequence[tuple[str, Path]], settings: object = None) -> str:
    """SHA-256 of named files and of what is done with them; of a single file without settings, that of its bytes."""
    if len(files) == 1 and settings is None:
        sha = hashlib.sha256()
        hash_file(sha, files[0][1])
        return sha.hexdigest()
    sha = hashlib.sha256(repr(settings).encode())
    for name, path in files:
        inner = hashlib.sha256()
        hash_file(inner, path)
        sha.update(f"\n{name}\n{inner.hexdigest()}".encode())
    return sha.hexdigest()
