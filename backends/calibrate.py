"""`mlc calibrate`: measures what operators cost on this machine, once.

Every point of a grid times all forms of one operator in turn (blocks of each, medians, CPU time), so that what the
machine does meanwhile hits all of them alike. Convolutions are timed in chains of two lengths, whose difference is free
of what the ends of a model cost; of everything else the time of an almost empty model is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from . import calibrate_models as models
from .costs import CostTable, Key, Series, machine
from .measure import medians
from .ort import Session
from .targets import OrtTarget

_LEAST = 2e-7  # seconds: below this, differences are noise
_CHAIN = 3
Advance = Callable[[str, int, int], None]
Axes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Grid:
    """Which sizes are measured, and how carefully."""

    rows: tuple[int, ...]
    depths: tuple[int, ...]
    channels: tuple[int, ...]  # multiples of 16
    sides: tuple[int, ...]  # of images
    elements: tuple[int, ...]  # multiples of 1024
    products: tuple[Key, ...]
    blocks: int
    seconds: float  # of a block


def _nbits(bits: int, block: int) -> Key:
    return Key("MatMul", "blocks", bits, block)


_FLOAT, _STATIC, _DYNAMIC = (Key("MatMul", form) for form in ("float", "static", "dynamic"))
_BLOCKS = tuple(_nbits(*n) for n in ((2, 32), (4, 32), (4, 64), (4, 128), (8, 32), (8, 128)))
_SIGNED = Key("MatMul", "static_s8s8")  # for the record: no pass chooses it

FULL = Grid(
    rows=(1, 8, 32, 128, 512),
    depths=(64, 384, 1536, 3072),
    channels=(16, 32, 128, 384),
    sides=(7, 28, 56),
    elements=(4 << 10, 64 << 10, 1 << 20),
    products=(_FLOAT, _STATIC, _SIGNED, _DYNAMIC, *_BLOCKS),
    blocks=7,
    seconds=3e-3,
)
QUICK = Grid(
    rows=(1, 32, 256),
    depths=(256, 1536),
    channels=(16, 128),
    sides=(7, 28),
    elements=(4 << 10, 256 << 10),
    products=(_FLOAT, _STATIC, _DYNAMIC, _nbits(4, 32), _nbits(4, 128), _nbits(8, 32)),
    blocks=5,
    seconds=2e-3,
)


def calibrate(target: OrtTarget, grid: Grid = FULL, *, advance: Advance | None = None) -> CostTable:
    """Measure the costs of `target` on this machine. Takes one to two minutes with `FULL`, about 20 s with `QUICK`."""
    work = _Calibration(grid, target.threads, advance or (lambda what, done, total: None))
    series = {**work.products(), **work.convolutions(), **work.glue()}
    return CostTable(series, machine(target.threads))


class _Calibration:
    def __init__(self, grid: Grid, threads: int, advance: Advance) -> None:
        self.grid, self.threads, self.advance = grid, threads, advance
        self._done = 0
        pairs = len(grid.depths) ** 2
        self._total = pairs + 6 * len(grid.channels) + len(models.GLUE) + 2

    def products(self) -> dict[Key, Series]:
        """Matrix products of all forms, rows x depth x width."""
        axes: Axes = (("M", self.grid.rows), ("K", self.grid.depths), ("N", self.grid.depths))
        found = {key: np.zeros([len(sizes) for _, sizes in axes]) for key in self.grid.products}
        for k, depth in enumerate(self.grid.depths):
            for n, width in enumerate(self.grid.depths):
                sessions = [self._session(_product(key, depth, width)) for key in found]
                for m, rows in enumerate(self.grid.rows):
                    feed = {"x": models.random(0, rows, depth)}
                    for key, seconds in zip(found, self._alone(sessions, [feed] * len(sessions))):
                        found[key][m, k, n] = seconds
                self._step()
        return {key: Series(axes, _rising(seconds)) for key, seconds in found.items()}

    def convolutions(self) -> dict[Key, Series]:
        """Convolutions as floats and as codes, by pairs of channels (depthwise: by channels) and positions.

        As codes also where the number of channels keeps the runtime from its fast kernels.
        """
        found: dict[Key, Series] = {}
        for kind, area, more in (("pointwise", 1, 2), ("dense", 9, 2), ("depthwise", 9, 8)):
            name = f"Conv/{kind}"
            found |= self._conv_series(kind, area, {"float": Key(name, "float"), "static": Key(name, "static")})
            found |= self._conv_series(kind, area, {"static": Key(f"{name}/odd", "static")}, more=more)
        return found

    def _conv_series(self, kind: str, area: int, keys: Mapping[str, Key], *, more: int = 0) -> dict[Key, Series]:
        """Series of one kind; `more` channels than the grid has."""
        grid = tuple(c + more for c in self.grid.channels)
        channels = ("channels", grid) if kind == "depthwise" else ("pairs", tuple(c * c for c in grid))
        axes: Axes = (channels, ("positions", tuple(side * side for side in self.grid.sides)))
        times = {form: np.zeros([len(sizes) for _, sizes in axes]) for form in ("float", "static")}
        for c, count in enumerate(grid):
            for p, (floats, codes) in enumerate(self._convs(count, area, count if kind == "depthwise" else 1)):
                times["float"][c, p], times["static"][c, p] = floats, codes
            self._step()
        return {key: Series(axes, _rising(_rising(times[form]).T).T) for form, key in keys.items()}

    def _convs(self, channels: int, area: int, groups: int) -> Iterator[tuple[float, float]]:
        """Seconds of one convolution as floats and as codes, for images of each size."""
        forms = (models.float_convs, models.static_convs)
        sessions = [self._session(made(channels, area, groups, n)) for made in forms for n in (1, _CHAIN)]
        for side in self.grid.sides:
            x = models.random(0, 1, channels, side, side)
            feeds = [{"x": x}] * 2 + [{"x": _to_codes(x)}] * 2
            short_float, long_float, short_codes, long_codes = self._times(sessions, feeds)
            floats, codes = long_float - short_float, long_codes - short_codes
            yield max(_LEAST, floats / (_CHAIN - 1)), max(_LEAST, codes / (_CHAIN - 1))

    def glue(self) -> dict[Key, Series]:
        """Everything else by its elements."""
        axes: Axes = (("elements", self.grid.elements),)
        found: dict[Key, Series] = {}
        for kind in (*models.GLUE, "QuantizeLinear", "DequantizeLinear"):
            keys = (Key(kind, "float"), Key(kind, "static")) if kind in models.GLUE else (Key(kind, "static"),)
            graphs = [_glue(key) for key in keys]
            sessions = [self._session(g) for g in graphs]
            times = []
            for elements in self.grid.elements:
                x = models.random(0, 1, 16, 64, elements // 1024)
                typed = [x if s.input_types["x"] == "tensor(float)" else _to_codes(x) for s in sessions]
                times.append(self._alone(sessions, [{"x": t} for t in typed]))
            found |= {key: Series(axes, _rising(np.array(column))) for key, column in zip(keys, zip(*times))}
            self._step()
        return found

    def _session(self, model: bytes) -> Session:
        return Session(model, threads=self.threads)

    def _times(self, sessions: Sequence[Session], feeds: Sequence[Mapping[str, Any]]) -> list[float]:
        return medians(sessions, feeds, blocks=self.grid.blocks, seconds=self.grid.seconds)

    def _alone(self, sessions: Sequence[Session], feeds: Sequence[Mapping[str, Any]]) -> list[float]:
        """Seconds of each session without what a call costs."""
        empty = self._session(models.nothing())
        call, *found = self._times([empty, *sessions], [{"x": models.random(0, 1, 1)}, *feeds])
        return [max(_LEAST, seconds - call) for seconds in found]

    def _step(self) -> None:
        self._done += 1
        self.advance("measurements", self._done, self._total)


def _product(key: Key, depth: int, width: int) -> bytes:
    made: Mapping[str, Callable[[int, int], bytes]] = {
        "float": models.float_product,
        "static": models.static_product,
        "static_s8s8": partial(models.static_product, signed=True),
        "dynamic": models.dynamic_product,
        "blocks": partial(models.blocks_product, bits=key.bits, block=key.block),
    }
    return made[key.form](depth, width)


def _glue(key: Key) -> bytes:
    if key.op not in models.GLUE:
        return models.boundary(key.op)
    return models.float_glue(key.op) if key.form == "float" else models.static_glue(key.op)


def _to_codes(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    codes: np.ndarray[Any, Any] = np.clip(np.rint(x * 50) + 128, 0, 255).astype(np.uint8)
    return codes


def _rising(seconds: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Times that do not fall as the first axis grows: more rows are never less work, whatever the clock says."""
    rising: np.ndarray[Any, Any] = np.maximum.accumulate(seconds, axis=0)
    return rising
