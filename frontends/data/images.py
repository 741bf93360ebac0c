"""A folder of images with declared preprocessing; they are decoded one by one, when they are read.

The order is: decode to 8 bits, turn as EXIF says, resize and cut, scale, subtract the mean, divide by the deviation,
lay out.
"""

from __future__ import annotations

import dataclasses
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...ir import errors
from ...ir.errors import Code
from ...ir.extras import require
from ...ir.options import option
from ...ir.types import TensorType
from .source import (
    BY_FUNCTION,
    TWO_SOURCES,
    Array,
    Inputs,
    Sample,
    Source,
    Stream,
    Wanted,
    bad,
    digest_of_files,
    natural,
)

if TYPE_CHECKING:
    from PIL.Image import Image

LABELS = "class"
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}
_DEEP = ("I", "F")  # modes of more than 8 bits, which a conversion would cut off


@dataclass(frozen=True)
class Images(Source):
    """The images of a folder and of the folders in it, one of each in turn, as one input of a model."""

    name: ClassVar[str] = "images"
    path: str = option(unit="path", positional=True, doc="the folder")
    size: tuple[int, ...] | None = option(
        None, unit="ints", low=1, doc="height and width of the input, or both in one number; none: as the images are"
    )
    fit: str = option(
        "crop",
        unit="name",
        choices=("crop", "stretch", "pad"),
        doc="crop: resize the shorter side, cut the center; stretch: the aspect may change; pad: fill the shorter side",
    )
    resize: int | None = option(
        None,
        unit="int",
        low=1,
        doc="the shorter side before `fit=crop` cuts `size` out of it; none: as short as can be",
    )
    interpolation: str = option(
        "bilinear", unit="name", choices=("nearest", "bilinear", "bicubic", "lanczos"), doc="how sizes are changed"
    )
    fill: int | None = option(None, unit="int", low=0, high=255, doc="the pixel value around `fit=pad`; none: 0")
    scale: float | None = option(
        None, unit="number", doc="what pixels of 0 to 255 are multiplied by; none: divided by 255 for inputs of floats"
    )
    mean: tuple[float, ...] | None = option(None, unit="numbers", doc="subtracted after scaling; one, or one a channel")
    std: tuple[float, ...] | None = option(None, unit="numbers", doc="divided by after that; one, or one a channel")
    channels: str = option("rgb", unit="name", choices=("rgb", "bgr", "gray"), doc="the channels and their order")
    layout: str = option("nchw", unit="name", choices=("nchw", "nhwc"), doc="where the model has the channels")
    input: str | None = option(None, unit="word", doc="the input that is fed; none: the only one")
    classes: str | None = option(
        None, unit="path", doc="a file of folder names, one a line, in the order of the model's classes; none: by name"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and len(self.size) > 2:
            raise _wrong("size", f"{len(self.size)} numbers", "give [height, width], or one number for both")
        for name, needs, holds in (
            ("resize", "a size and fit=crop", self.size is not None and self.fit == "crop"),
            ("fill", "a size and fit=pad", self.size is not None and self.fit == "pad"),
        ):
            if getattr(self, name) is not None and not holds:
                raise _wrong(name, f"a value without {needs}", f"leave {name} out, or give {needs}")
        if self.fit != "crop" and self.size is None:
            raise _wrong("fit", "a value without a size", "give size=...")
        if self.resize is not None and self.resize < max(self.box or (0,)):
            raise _wrong("resize", "less than the size that is cut out", f"give at least {max(self.box or (0,))}")
        count = 1 if self.channels == "gray" else 3
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) not in (1, count):
                raise _wrong(name, f"{len(values)} numbers for {count} channels", "give one, or one a channel")
        if self.std is not None and 0 in self.std:
            raise _wrong("std", "0, and nothing can be divided by it", "leave std out")

    @property
    def box(self) -> tuple[int, int] | None:
        """Height and width."""
        return None if self.size is None else (self.size[0], self.size[-1])

    def open(self, inputs: Inputs, labels: str | None) -> Stream:
        require("PIL", "images", "images")
        if not Path(self.path).is_dir():
            raise errors.error(Code.NOT_FOUND, f"there is no folder {self.path!r}", help="give a folder of images")
        if labels not in (None, LABELS):
            raise bad(f"images have no labels {labels!r}", self.path, f"the folder of an image is its {LABELS!r}")
        if self.classes is not None and labels is None:
            raise _wrong("classes", "a file, and no labels are asked for", f"give labels={LABELS}")
        return ImageStream(self, *self._input(inputs), labels)

    def _input(self, inputs: Inputs) -> tuple[str, TensorType]:
        name = self.input if self.input is not None else next(iter(inputs), "")
        if name not in inputs:
            raise bad(f"the model has no input {name!r}", self.path, f"its inputs: {', '.join(inputs)}")
        others = [other for other in inputs if other != name]
        if others:
            told = ", ".join(map(repr, others))
            raise bad(f"images feed one input, and the model has {told} besides {name!r}", self.path, TWO_SOURCES)
        kind = inputs[name]
        if kind.dtype.kind != "float" and kind.dtype.short != "u8":
            raise bad(f"input {name!r} is {kind}: images feed floats or u8", self.path, BY_FUNCTION)
        if kind.dtype.short == "u8" and {self.scale, self.mean, self.std} != {None}:
            told = "scale, mean and std make floats of pixels"
            raise bad(f"input {name!r} is {kind}, and {told}", self.path, "leave them out")
        return name, kind

    def array(self, image: Image, kind: TensorType) -> Array:
        """The input that an image becomes."""
        pixels = np.asarray(self._resized(image), np.uint8)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        pixels = pixels[:, :, ::-1] if self.channels == "bgr" else pixels
        if kind.dtype.short != "u8":
            pixels = self._scaled(pixels).astype(kind.dtype.numpy)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) if self.layout == "nchw" else pixels)

    def _scaled(self, pixels: Array) -> Array:
        found = pixels.astype(np.float32)
        found = found / np.float32(255) if self.scale is None else found * np.float32(self.scale)
        found = found if self.mean is None else found - np.asarray(self.mean, np.float32)
        return found if self.std is None else found / np.asarray(self.std, np.float32)

    def _resized(self, image: Image) -> Image:
        from PIL import Image as pil

        if self.box is None:
            return image
        height, width = self.box
        resample = pil.Resampling[self.interpolation.upper()]
        if self.fit == "stretch":
            return image.resize((width, height), resample)
        if self.fit == "pad":
            ratio = min(width / image.width, height / image.height)
            inner = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
            around = pil.new(image.mode, (width, height), (self.fill or 0,) * len(image.getbands()))
            around.paste(image.resize(inner, resample), ((width - inner[0]) // 2, (height - inner[1]) // 2))
            return around
        inner = _covering(image.size, (width, height), self.resize)
        left, top = round((inner[0] - width) / 2), round((inner[1] - height) / 2)
        return image.resize(inner, resample).crop((left, top, left + width, top + height))


class ImageStream(Stream):
    """The images of a folder, decoded one by one."""

    def __init__(self, source: Images, input: str, kind: TensorType, labels: str | None) -> None:
        self.title = source.path
        self._source, self._input, self._kind = source, input, kind
        self._folder = Path(source.path)
        found = [path.relative_to(self._folder).as_posix() for path in _files(self._folder)]
        self._names = _in_turn(n for n in found if n.lower().endswith(_SUFFIXES))
        if not self._names:
            raise bad("the folder holds no images", self.title, f"images end in {', '.join(_SUFFIXES)}")
        others = sorted(set(found) - set(self._names))
        self.notes = [f"not used: {len(others)} files that are no images, e.g. {others[0]!r}"] if others else []
        self._classes = self._numbered() if labels is not None else None

    def count(self, limit: int | None = None) -> int:
        return len(self._names) if limit is None else min(len(self._names), limit)

    def read(self, wanted: Wanted) -> Iterator[Sample]:
        for index in wanted:
            where = self.where(index, self._names[index])
            inputs = {self._input: self._source.array(self._decoded(index, where), self._kind)}
            yield Sample(index, where, inputs, self._label(index, where))

    def resized(self, shape: Sequence[int]) -> str:
        height, width = shape[-2:] if self._source.layout == "nchw" else shape[-3:-1]
        return f"give size={height}" if height == width else f"give size=[{height}, {width}]"

    def digest(self, limit: int | None = None) -> str:
        """SHA-256 of the files and of what is done with them."""
        settings = {f.name: getattr(self._source, f.name) for f in dataclasses.fields(self._source)}
        settings |= {"path": None, "classes": self._classes}
        return digest_of_files([(name, self._folder / name) for name in self._names], settings)

    def _decoded(self, index: int, where: str) -> Image:
        from PIL import Image as pil
        from PIL.ImageOps import exif_transpose

        broken = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, pil.DecompressionBombError)
        try:
            with pil.open(self._folder / self._names[index]) as image:
                if image.mode.split(";")[0] in _DEEP:
                    raise bad(f"the image has more than 8 bits (mode {image.mode})", where, "convert it to 8 bits")
                return exif_transpose(image).convert(_MODES[self._source.channels])
        except broken as cause:
            raise bad(f"the image cannot be read: {cause}", where, "replace it, or leave it out") from cause

    def _label(self, index: int, where: str) -> Array | None:
        if self._classes is None:
            return None
        name, _, rest = self._names[index].partition("/")
        if not rest:
            raise bad("the image lies in no class folder", where, "put it into a folder named after its class")
        if name not in self._classes:
            raise bad(f"the class {name!r} is not in {self._source.classes!r}", where, "add it, in the model's order")
        return np.asarray(self._classes[name], np.int64)

    def _numbered(self) -> dict[str, int]:
        """Classes and their numbers: as the file of classes has them, or the folders in the order of their names."""
        if self._source.classes is None:
            names = sorted(f.name for f in self._folder.iterdir() if f.is_dir() and not f.name.startswith("."))
        else:
            names = _lines(Path(self._source.classes))
        return {name: number for number, name in enumerate(names)}


def holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in _SUFFIXES for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones; links are followed, once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _in_turn(names: Iterable[str]) -> list[str]:
    """The first image of each folder, then the second of each: whoever takes the first samples sees all classes."""
    count: Counter[str] = Counter()
    found: list[tuple[int, str]] = []
    for name in sorted(names, key=natural):
        folder = name.rpartition("/")[0]
        found.append((count[folder], name))
        count[folder] += 1
    return [name for _, name in sorted(found, key=lambda item: item[0])]


def _covering(image: tuple[int, int], box: tuple[int, int], shorter: int | None) -> tuple[int, int]:
    """The width and height to which an image is resized before a box is cut out of it."""
    width, height = image
    if shorter is None and box[0] == box[1]:
        shorter = box[0]
    if shorter is not None:  # as torchvision's Resize rounds
        if width <= height:
            return shorter, int(shorter * height / width)
        return int(shorter * width / height), shorter
    ratio = max(box[0] / width, box[1] / height)
    return max(box[0], round(width * ratio)), max(box[1], round(height * ratio))


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise errors.error(
            Code.NOT_FOUND, f"there is no file of classes {str(file)!r}", help="check the path"
        ) from None
    except (OSError, UnicodeDecodeError) as cause:
        raise bad(f"the file of classes cannot be read: {cause}", str(file), "save it as UTF-8") from cause


def _wrong(name: str, found: str, help: str) -> Exception:
    return errors.error(Code.OUT_OF_RANGE, f"'images.{name}' is {found}", help=help)
