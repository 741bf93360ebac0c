"""Samples from a function of the user's, which returns an iterable of dicts of arrays.

What can be iterated again (a list, a data loader) is kept; for anything else the function is called for every pass.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np

from ...ir import errors
from ...ir.errors import Code
from ...ir.options import option
from ..user_code import blamed, import_module
from .source import Array, Inputs, Sample, Source, Stream, Wanted, bad, match_keys

_MARK = 8  # bytes of a hash that are kept
_DICTS = "yield a dict of arrays for each sample, with the input names as keys"


@dataclass(frozen=True)
class Python(Source):
    """What a function yields: a dict of arrays for each sample."""

    name: ClassVar[str] = "python"
    function: str = option(unit="str", positional=True, doc="`module:function` or `file.py:function`; it is executed")

    @property
    def code(self) -> str:
        return self.function

    def based(self, folder: Path) -> Self:
        module, _, _ = self.function.rpartition(":")
        return replace(self, function=str(folder / self.function)) if module.endswith(".py") else self

    def open(self, inputs: Inputs, labels: str | None) -> Stream:
        return PythonStream(self.function, function_at(self.function, "no arguments"), inputs, labels)


def function_at(text: str, takes: str) -> Callable[..., Any]:
    """The function called `module:function` or `file.py:function`; its module is executed. `takes` is what a function
    for this purpose takes. Errors: BAD_DATA, NOT_FOUND."""
    module, _, name = text.rpartition(":")
    if not module or not name.isidentifier():
        raise errors.error(
            Code.BAD_DATA, f"{text!r} names no function", help="write module:function or file.py:function"
        )
    found = getattr(_import(module, text), name, None)
    if not callable(found):
        what = "has no function" if found is None else f"has no function but a {type(found).__name__} called"
        raise bad(f"{module!r} {what} {name!r}", text, f"name a function that takes {takes}")
    return found  # type: ignore[no-any-return]


class PythonStream(Stream):
    """The samples that a function yields."""

    def __init__(self, title: str, function: Callable[[], Any], inputs: Inputs, labels: str | None) -> None:
        self.title = title
        self._function, self._inputs, self._labels = function, inputs, labels
        self._counted: dict[int | None, int] = {}
        self._kept: Iterable[Any] | None = None
        self._marks = bytearray()  # a hash of each sample that was read, in its place

    def count(self, limit: int | None = None) -> int:
        """Counted in one pass over the samples, if what the function returns has no length."""
        if limit not in self._counted:
            with self._blamed(0):
                total = _length(self._call())
            if total is None:
                total = sum(1 for _ in self._items(range(limit) if limit is not None else None))
            self._counted[limit] = total if limit is None else min(total, limit)
        return self._counted[limit]

    def read(self, wanted: Wanted) -> Iterator[Sample]:
        position = -1
        for position, item in enumerate(self._items(range(wanted.stop))):
            if wanted.keeps(position):
                sample = self._sample(position, item)
                self._check_same(sample)
                yield sample
        if position + 1 < wanted.stop:
            raise bad(
                f"the function yields {position + 1} samples now, and yielded {wanted.stop} before",
                self.title,
                "let every call start anew: return a list, or write a generator function",
            )

    def digest(self, limit: int | None = None) -> str:
        """SHA-256 of the samples themselves: code says too little about what it yields."""
        sha = hashlib.sha256()
        for sample in self.read(Wanted(self.count(limit), lambda _: True)):
            sha.update(sample.digest())
        return sha.hexdigest()

    def _check_same(self, sample: Sample) -> None:
        """Errors: BAD_DATA for a sample that is another one than in the pass before."""
        place = slice(sample.index * _MARK, (sample.index + 1) * _MARK)
        mark = sample.digest()[:_MARK]
        known = self._marks[place]
        if any(known) and known != mark:
            raise bad(
                "the function yields another sample here than it did before: every pass must give the same",
                sample.where,
                "seed what is random inside the function, and do not shuffle",
            )
        self._marks.extend(bytes(max(0, place.stop - len(self._marks))))
        self._marks[place] = mark

    def _items(self, limit: range | None) -> Iterator[Any]:
        """What the function yields; an exception in it is the user's, and is told with its place."""
        at = 0
        with self._blamed(at):
            found = iter(self._call())
        for at in limit if limit is not None else itertools.count():
            with self._blamed(at):
                item = next(found, _END)
            if item is _END:
                return
            yield item

    def _call(self) -> Iterable[Any]:
        found = self._kept if self._kept is not None else self._function()
        if not isinstance(found, Iterable) and isinstance(found, Sized) and hasattr(found, "__getitem__"):
            found = _Indexed(found)
        if not isinstance(found, Iterable) or isinstance(found, Mapping | str | bytes):
            raise bad(
                f"the function returns a {type(found).__name__}, which is no iterable of samples", self.title, _DICTS
            )
        self._kept = None if isinstance(found, Iterator) else found
        return found

    def _blamed(self, index: int) -> AbstractContextManager[None]:
        return blamed(lambda why: bad(f"the function raises {why}", self.where(index), "correct the function"))

    def _sample(self, index: int, item: Any) -> Sample:
        where = self.where(index)
        if not isinstance(item, Mapping):
            raise bad(f"the sample is a {type(item).__name__}, not a dict", where, _DICTS)
        pairs = match_keys([str(key) for key in item], self._inputs, self._labels, where)
        inputs = {name: _array(item[key], f"input {name!r}", where) for name, key in pairs.items()}
        label = None if self._labels is None else _array(item[self._labels], "the label", where)
        return Sample(index, where, inputs, label)


@dataclass(frozen=True)
class _Indexed:
    """A data set that is read by number, as those of PyTorch are."""

    items: Any

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return (self.items[number] for number in range(len(self.items)))


def _length(found: Iterable[Any]) -> int | None:
    """The number of samples; None if only counting tells."""
    try:
        return len(found) if isinstance(found, Sized) else None
    except TypeError:  # a loader has a length only if what it loads has one
        return None


class _End:
    """Marks the end of an iterator."""


_END = _End()


def _array(value: Any, what: str, where: str) -> Array:
    with blamed(lambda why: bad(f"{what} is no array: {why}", where, _DICTS)):  # tensors of others raise what they like
        found = np.asarray(value)
    if found.dtype.hasobject:
        raise bad(f"{what} is a {type(value).__name__} that is no array of numbers", where, _DICTS)
    return found


def _import(module: str, function: str) -> ModuleType:
    """The module of a function: a file, or a module that Python finds, also from the working directory."""
    file = Path(module)
    if file.suffix == ".py" and not file.is_file():
        raise errors.error(Code.NOT_FOUND, f"there is no file {module!r}", where=function, help="check the path")
    help = "a file is written folder/file.py:function"
    with blamed(lambda why: bad(f"{module!r} cannot be imported: {why}", function, help)):
        return import_module(module)
