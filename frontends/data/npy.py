"""Arrays of numpy.save: one file, or a folder with a file, or a folder of files, for each input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, ClassVar

from ...ir import errors
from ...ir.errors import Code
from ...ir.options import option
from .columns import Column, ColumnStream, Files, Stacked
from .source import Inputs, Source, Stream, bad, digest_of_files, match_keys, natural

_SUFFIX = ".npy"


@dataclass(frozen=True)
class Npy(Source):
    """Arrays of numpy.save: a file, or a folder with files or folders for the inputs.

    A file holds the samples of the only input on axis 0. In a folder, `INPUT.npy` holds those of an input, or
    `INPUT/*.npy` one sample each, in the order of their names; for the only input, any other `*.npy` are samples.
    """

    name: ClassVar[str] = "npy"
    path: str = option(unit="path", positional=True, doc="the file or the folder")

    def open(self, inputs: Inputs, labels: str | None) -> Stream:
        place = Path(self.path)
        if place.is_file():
            found = {place.stem: _Found((place,), stacked=True)}
        elif place.is_dir():
            found = _members(place, inputs, labels)
        else:
            raise errors.error(Code.NOT_FOUND, f"there is no data file or folder {self.path!r}", help="check the path")
        if not found:
            raise bad("the folder holds no .npy files", self.path, "save arrays with numpy.save")
        pairs = match_keys([*found], inputs, labels, self.path)
        used = {key: found[key] for key in (*pairs.values(), *([labels] if labels is not None else []))}
        _check_names({key: [f.name for f in each.files] for key, each in used.items() if not each.stacked}, self.path)
        columns = {key: each.column(key, self.path) for key, each in used.items()}
        files = [(str(f.relative_to(place.parent)), f) for each in used.values() for f in each.files]
        return ColumnStream(
            self.path,
            {name: columns[key] for name, key in pairs.items()},
            columns[labels] if labels is not None else None,
            partial(digest_of_files, sorted(files)),
            [f"not used: {key!r}" for key in found if key not in used],
        )


@dataclass(frozen=True)
class _Found:
    """The files of one key: a single one that holds all samples, or one for each sample."""

    files: tuple[Path, ...]
    stacked: bool

    def column(self, key: str, where: str) -> Column:
        return Stacked.of(key, partial(_opened, self.files[0]), where) if self.stacked else Files(self.files)


def _members(folder: Path, inputs: Inputs, labels: str | None) -> dict[str, _Found]:
    """The files of each key. Errors: BAD_DATA for a key that is a file and a folder as well."""
    stacked = {path.stem: _Found((path,), stacked=True) for path in _arrays(folder)}
    nested = [folder / name for name in inputs if "/" in name and (folder / name).is_dir()]
    subfolders = sorted({*(sub for sub in folder.iterdir() if sub.is_dir()), *nested})
    apart = {sub.relative_to(folder).as_posix(): _Found(_arrays(sub), stacked=False) for sub in subfolders}
    apart = {key: found for key, found in apart.items() if found.files}
    twice = sorted(stacked.keys() & apart.keys())
    if twice:
        raise bad(f"there is a file and a folder for {twice[0]!r}", str(folder), "remove one of them")
    both = stacked | apart
    loose = tuple(found.files[0] for key, found in stacked.items() if key != labels)
    if len(inputs) == 1 and loose and not inputs.keys() & both.keys():
        return {next(iter(inputs)): _Found(loose, stacked=False), **{k: v for k, v in both.items() if k == labels}}
    return both


def _arrays(folder: Path) -> tuple[Path, ...]:
    found = (f for f in folder.iterdir() if f.suffix == _SUFFIX and not f.name.startswith("."))
    return tuple(sorted(found, key=lambda f: natural(f.name)))


def _check_names(names: Mapping[str, Sequence[str]], where: str) -> None:
    """Samples that lie in folders go together by their names. Errors: BAD_DATA naming one that is missing."""
    for key, mine in names.items():
        for other, theirs in names.items():
            missing = next((name for name in theirs if name not in set(mine)), None)
            if missing is not None:
                raise bad(f"{other!r} has a sample {missing!r}, and {key!r} has none", where, f"add {key}/{missing}")


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    with file.open("rb") as stream:
        yield stream
