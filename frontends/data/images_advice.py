"""A folder of images that was given as a bare path: refused, with what the inputs of the model suggest to write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...ir.options import option
from ...ir.types import TensorType
from .images import holds_images
from .source import Inputs, Source, Stream, bad

_USUAL = 224  # where the model leaves the size open
_CHANNELS = {1: ", channels=gray", 3: ""}


@dataclass(frozen=True)
class Undeclared(Source):
    """A folder without arrays. What its images become is never guessed: training decided it."""

    name: ClassVar[str] = "folder"
    path: str = option(unit="path", positional=True, doc="the folder")

    def open(self, inputs: Inputs, labels: str | None) -> Stream:
        if not holds_images(Path(self.path)):
            help = "save arrays with numpy.save, or give a folder of images: images(FOLDER, size=...)"
            raise bad("the folder holds no .npy files and no images", self.path, help)
        found = [(name, text) for name, kind in inputs.items() if (text := _arguments(kind)) is not None]
        if not found:
            told = ", ".join(f"{name!r} {kind}" for name, kind in inputs.items())
            raise bad(f"the model takes no images: {told}", self.path, 'give arrays, or python("file.py:function")')
        name, arguments = found[0]
        which = f", input={name}" if len(inputs) > 1 else ""
        raise bad(
            "images are declared: what becomes of them is what the model was trained with",
            self.path,
            f"write 'images(\"{self.path}\"{arguments}{which})', with mean=... and std=... if it was trained with them",
        )


def _arguments(kind: TensorType) -> str | None:
    """Size, channels and layout that an input of images has; None for one of something else."""
    if kind.rank != 4 or not (kind.dtype.is_float or kind.dtype.short == "u8"):
        return None
    shape = kind.shape
    for layout, channels, sides in (("", shape[1], shape[2:]), (", layout=nhwc", shape[3], shape[1:3])):
        if isinstance(channels, int) and channels in _CHANNELS:
            height, width = (side if isinstance(side, int) else _USUAL for side in sides)
            size = f"{height}" if height == width else f"[{height}, {width}]"
            return f", size={size}{_CHANNELS[channels]}{layout}"
    return None
