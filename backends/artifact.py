"""Writing artifacts: built in a temporary sibling, flushed to disk, then renamed into place; never half-written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..ir import errors
from ..ir.disk import writing
from ..ir.errors import Code
from ..ir.scratch import put_in_place, scratch, sweep

# Everything that an artifact's folder holds.
_WRITTEN = frozenset({"model.onnx", "model.onnx.data", "report.json", "report.md", "recipe.mlc", "plan.json"})


MODEL_NAME = "model.onnx"
_SUFFIXES = ("", ".mlc", ".onnx")
_ELSEWHERE = "choose another -o"


@dataclass(frozen=True)
class Layout:
    """Where an artifact goes: a folder with fixed names, or one .onnx file with its reports beside it."""

    out: Path

    @property
    def is_file(self) -> bool:
        return self.out.suffix == ".onnx"

    @property
    def model_name(self) -> str:
        return self.out.name if self.is_file else MODEL_NAME

    @property
    def report_name(self) -> str:
        return f"{self.out.stem}.report.json" if self.is_file else "report.json"

    @property
    def summary_name(self) -> str:
        return f"{self.out.stem}.report.md" if self.is_file else "report.md"

    @property
    def extras(self) -> bool:
        """Whether plan.json and recipe.mlc are written too."""
        return not self.is_file

    @property
    def targets(self) -> tuple[Path, ...]:
        """What may not exist yet (without --force)."""
        if not self.is_file:
            return (self.out,)
        return tuple(sorted(self.parts, key=lambda path: path != self.out))

    @property
    def parts(self) -> tuple[Path, ...]:
        """The files of a `.onnx` output in the order in which they appear: where the report lies, all are complete."""
        return tuple(
            self.out.with_name(name)
            for name in (f"{self.out.name}.data", self.out.name, self.summary_name, self.report_name)
        )

    @property
    def place(self) -> Path:
        """`out` without `.` and `..`: what can be renamed."""
        return Path(os.path.abspath(self.out))


def refuse_source(layout: Layout, source: Path) -> None:
    """Fail before any work when the output would replace the model it is made from, --force or not."""
    for path in layout.targets:
        for part in (source, source.with_name(f"{source.name}.data")):
            if os.path.exists(path) and part.exists() and path.samefile(part):
                raise errors.error(
                    Code.OUTPUT_EXISTS,
                    f"{str(path)!r} is the source itself",
                    help="choose another -o: the source is never overwritten",
                )


def refuse_existing(layout: Layout, *, force: bool) -> None:
    """Fail before any work when the output cannot be written, or would replace what mlc did not write."""
    parent = layout.place.parent
    if layout.out.suffix not in _SUFFIXES:
        raise errors.error(
            Code.USAGE,
            f"{str(layout.out)!r}: an output has no suffix {layout.out.suffix!r}",
            help="name a folder (NAME without a dot, or NAME.mlc), or a file NAME.onnx",
        )
    if not parent.is_dir():
        shown = str(layout.out.parent)  # as the user wrote it
        raise errors.error(Code.OUTPUT, f"there is no folder {shown!r}", help=f"create it, or {_ELSEWHERE}")
    if not os.access(parent, os.W_OK):
        raise errors.error(Code.OUTPUT, f"the folder {str(parent)!r} is read-only", help=_ELSEWHERE)
    sweep(parent)  # a killed run may have been about to put in place what is looked at now
    _refuse_present(layout, force=force)


def _refuse_present(layout: Layout, *, force: bool) -> None:
    for path in layout.targets:
        refuse_file(path, force=force)
    with writing(layout.place.parent, _ELSEWHERE):
        _refuse_foreign(layout)


def refuse_file(path: Path, *, force: bool) -> None:
    """Fail when a file is there, or cannot be by the length of its name."""
    with writing(path.parent, _ELSEWHERE):
        if path.exists() and not force:
            help = "choose another -o, or overwrite it with --force"
            raise errors.error(Code.OUTPUT_EXISTS, f"{str(path)!r} exists", help=help)


def _refuse_foreign(layout: Layout) -> None:
    """--force replaces artifacts, nothing else: a whole folder goes when it is replaced."""
    if layout.is_file:
        problem = next((f"{str(p)!r} is a folder" for p in layout.targets if p.is_dir()), None)
    elif layout.out.is_dir():
        foreign = sorted(p.name for p in layout.out.iterdir() if p.name not in _WRITTEN)
        problem = f"the folder {str(layout.out)!r} holds {foreign[0]!r}, which mlc did not write" if foreign else None
    else:
        problem = f"{str(layout.out)!r} is a file" if layout.out.exists() else None
    if problem is not None:
        raise errors.error(
            Code.OUTPUT_EXISTS,
            f"{problem}: it is not replaced",
            help="choose another -o: a folder for the artifact, or a file X.onnx",
        )


@contextmanager
def staged(layout: Layout, *, force: bool = False) -> Iterator[Path]:
    """A temporary sibling folder to build in; moved into place when the block ends well, removed otherwise. Signals
    that end a run find the old output, or the new one. Errors: OUTPUT_EXISTS when something else lies there by then
    (with `force`: what mlc did not write)."""
    parent = layout.place.parent
    with writing(parent, _ELSEWHERE), scratch(layout.place.name, parent) as folder:
        yield folder
        _flush(folder)
        _publish(folder, layout, force=force)


def replace_text(path: Path, text: str) -> None:
    """Write a text file at once: whoever reads it sees the old text or the new. Its mode stays, a link stays a link.

    Errors: OUTPUT when it cannot be written.
    """
    place = path.resolve()
    with scratch(place.name, place.parent) as folder:
        new = folder / place.name
        with new.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.copymode(place, new)
        os.replace(new, place)


def _publish(folder: Path, layout: Layout, *, force: bool) -> None:
    """Move what was built into place, and the older artifact out of the way: at once, for whatever ends the run. Other
    runs may have put theirs there since this one began."""
    os.chmod(folder, 0o755)
    built = {path: folder / path.name for path in layout.parts} if layout.is_file else {layout.place: folder}
    put_in_place(built, lambda: _refuse_present(layout, force=force))


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
