"""Writing artifacts: built in a temporary sibling, flushed to disk, then renamed into place; never half-written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..ir import errors
from ..ir.errors import Code, Diagnostic, ResourceError


@dataclass(frozen=True)
class Layout:
    """Where an artifact goes: a folder with fixed names, or one .onnx file with its report beside it."""

    out: Path

    @property
    def is_file(self) -> bool:
        return self.out.suffix == ".onnx"

    @property
    def model_name(self) -> str:
        return self.out.name if self.is_file else "model.onnx"

    @property
    def report_name(self) -> str:
        return f"{self.out.stem}.report.json" if self.is_file else "report.json"

    @property
    def extras(self) -> bool:
        """Whether plan.json and recipe.mlc are written too."""
        return not self.is_file

    @property
    def targets(self) -> tuple[Path, ...]:
        """What may not exist yet (without --force)."""
        return (self.out, self.out.with_name(self.report_name)) if self.is_file else (self.out,)


def refuse_existing(layout: Layout, *, force: bool) -> None:
    """Fail before any work when the output cannot be written."""
    parent = layout.out.absolute().parent
    if not parent.is_dir():
        raise errors.error(Code.OUTPUT, f"there is no folder {str(parent)!r}", help="create it, or choose another -o")
    if not os.access(parent, os.W_OK):
        raise errors.error(Code.OUTPUT, f"the folder {str(parent)!r} is read-only", help="choose another -o")
    for path in layout.targets:
        if path.exists() and not force:
            raise errors.error(
                Code.OUTPUT_EXISTS, f"{str(path)!r} exists", help="choose another -o, or overwrite it with --force"
            )


@contextmanager
def staged(layout: Layout) -> Iterator[Path]:
    """A temporary sibling folder to build in; moved into place when the block ends well, removed otherwise."""
    parent = layout.out.absolute().parent
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{layout.out.name}.", dir=parent))
    except OSError as cause:
        raise errors.error(Code.OUTPUT, f"cannot write in {str(parent)!r}: {cause.strerror}") from cause
    try:
        yield folder
        _flush(folder)
        if layout.is_file:
            # The report goes last: where it lies, the model lies complete.
            for path in sorted(folder.iterdir(), key=lambda p: p.name == layout.report_name):
                os.replace(path, layout.out.with_name(path.name))
        else:
            os.chmod(folder, 0o755)
            _swap(folder, layout.out)
    except OSError as cause:
        if cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(Diagnostic(Code.OUTPUT, f"the disk of {str(parent)!r} is full")) from cause
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, out: Path) -> None:
    """Rename `folder` to `out`; an older `out` is kept until the new one is in place."""
    if not out.exists():
        os.rename(folder, out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.absolute().parent)) / out.name
    os.rename(out, old)
    os.rename(folder, out)
    shutil.rmtree(old.parent, ignore_errors=True)


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
