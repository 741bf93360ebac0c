"""What the runtime makes faster on this machine: small models in each form, timed against floats in less than a second.

`mlc calibrate` measures costs over a grid of sizes, which plans use; this is one point of each form, for `mlc doctor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from . import calibrate_models as models
from .measure import medians
from .ort import Session

_BLOCKS, _SECONDS = 5, 1.5e-3
_DEPTH = 512  # of products, and their width
_CHANNELS, _SIDE, _CHAIN = 64, 14, 2
_CERTAIN = 1.1  # a ratio nearer to 1 says nothing after so few blocks
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Probe:
    """A form of an operator: its model, that of floats, and what both are fed."""

    what: str
    kernel: str
    sizes: str
    form: Callable[[], bytes]
    floats: Callable[[], bytes]
    feed: Mapping[str, Any]
    float_feed: Mapping[str, Any]


@dataclass(frozen=True)
class Acceleration:
    """Microseconds of CPU time in floats and in a form, and how often faster the form is."""

    what: str
    kernel: str
    sizes: str
    float_us: float
    us: float
    speedup: float
    verdict: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def accelerations(threads: int = 1) -> list[Acceleration]:
    """Every form measured on this machine. Errors: RUNTIME where the runtime lacks a kernel altogether."""
    return [_measure(probe, threads) for probe in _probes()]


def exact_products(threads: int = 1) -> bool:
    """Whether products of the largest 8-bit codes come out right: without VNNI they saturate on x86."""
    data, expected = models.loud_product(_DEPTH, 64)
    (found,) = Session(data, threads=threads).run({"x": np.full((4, _DEPTH), 1e3, np.float32)}).values()
    return bool(np.allclose(found, expected, rtol=_TOLERANCE))


def _measure(probe: Probe, threads: int) -> Acceleration:
    sessions = [Session(make(), threads=threads) for make in (probe.floats, probe.form)]
    feeds = [probe.float_feed, probe.feed]
    base, seconds = medians(sessions, feeds, blocks=_BLOCKS, seconds=_SECONDS)
    ratio = base / seconds
    verdict = "faster" if ratio > _CERTAIN else "slower" if ratio < 1 / _CERTAIN else "as fast"
    return Acceleration(probe.what, probe.kernel, probe.sizes, base * 1e6, seconds * 1e6, ratio, verdict)


def _probes() -> list[Probe]:
    convolutions = _convolution("8-bit convolution", groups=1), _convolution("8-bit depthwise", groups=_CHANNELS)
    int8, dynamic = models.static_product, models.dynamic_product
    blocks = partial(models.blocks_product, bits=4, block=32)
    return [
        *convolutions,
        _product("8-bit product, ranges known", "MatMulIntegerToFloat", 64, int8),
        _product("8-bit product, ranges found on the run", "DynamicQuantizeMatMul", 64, dynamic),
        _product("4-bit weights, one row", "MatMulNBits", 1, blocks),
        _product("4-bit weights, many rows", "MatMulNBits", 64, blocks),
    ]


def _product(what: str, kernel: str, rows: int, form: Callable[[int, int], bytes]) -> Probe:
    feed = {"x": models.random(0, rows, _DEPTH)}
    made, floats = partial(form, _DEPTH, _DEPTH), partial(models.float_product, _DEPTH, _DEPTH)
    return Probe(what, kernel, f"[{rows}, {_DEPTH}] x [{_DEPTH}, {_DEPTH}]", made, floats, feed, feed)


def _convolution(what: str, *, groups: int) -> Probe:
    x = models.random(0, 1, _CHANNELS, _SIDE, _SIDE)
    codes = np.clip(x * 50 + 128, 0, 255).astype(np.uint8)
    form, floats = (partial(make, _CHANNELS, 9, groups, _CHAIN) for make in (models.static_convs, models.float_convs))
    sizes = f"{_CHAIN} of 3x3, {_CHANNELS} channels, {_SIDE}x{_SIDE}"
    return Probe(what, "QLinearConv", sizes, form, floats, {"x": codes}, {"x": x})
