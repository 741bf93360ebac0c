"""What the user should know of how `int8` was done: forms, calibration data, and what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from ...base import Context
from ...ports import Array, Data
from ..repeats import repeats
from .decide import Decision
from .grids import Calibration
from .plan import WeightSite

_NARROW = "weights use 7 bits where activations are codes: the target's products of 8 bits may saturate"
_FEW = 8  # samples: with fewer, ranges are a matter of luck
_LOOKED_AT = 8  # samples in which inputs that never vary are looked for


def notes(weights: Sequence[WeightSite], made: Decision, mode: str, learns: bool, ctx: Context) -> Iterator[str]:
    """Lines for the report, in the order in which things were decided; `learns`: forms, ranges or codes are chosen by
    what data there is."""
    counts = Counter(r.form for w in weights for r in w.readers)
    if counts:
        yield f"forms: {', '.join(f'{count} {form}' for form, count in counts.items())}"
    if ctx.data is None and ctx.stats is None and mode == "auto":
        yield from _without_data(made)
    if any(w.bits < 8 for w in weights):
        yield _NARROW
    if ctx.data is not None and counts["static"]:
        yield _samples(len(ctx.data))
        yield from _constant_inputs(ctx.data)
        yield from _always_zero(made)
    if learns and weights:
        yield from repeats(ctx.data)
    yield from _observed(made.calibration)
    yield from made.notes


def _without_data(made: Decision) -> Iterator[str]:
    """What data would change; nothing is said where they would change nothing."""
    chosen = [(r, possible, made.forms[r]) for c in made.weights for r, possible in c.forms.items()]
    said = ["products find their ranges on the run"] if any(form == "dynamic" for *_, form in chosen) else []
    waiting = {r.op.kind for r, possible, form in chosen if form == "stored" and "static" in possible}
    if waiting:
        who = "convolutions" if waiting == {"Conv"} else "other weights"
        said.append(f"{who} are only stored in 8 bits, which makes nothing faster (give --data)")
    if said:
        yield f"no calibration data: {', '.join(said)}"


def _samples(count: int) -> str:
    told = f"ranges of activations come from {count} sample{'' if count == 1 else 's'}"
    return told if count >= _FEW else f"{told}: too few to know them, give {_FEW} or more that differ"


def _constant_inputs(data: Data) -> Iterator[str]:
    """Float inputs that hold one number in all of the first samples: nothing was calibrated on them."""
    ends: dict[str, tuple[float, float]] = {}
    for batch in islice(data.batches(1), _LOOKED_AT):
        for name, array in batch.inputs.items():
            if array.dtype.kind == "f" and array.size:
                ends[name] = _joined(ends.get(name), array)
    for name, (low, high) in ends.items():
        if low == high:
            yield f"input {name!r} is always {low:g} in the calibration data: the ranges say nothing of other inputs"


def _joined(so_far: tuple[float, float] | None, array: Array) -> tuple[float, float]:
    low, high = float(np.min(array)), float(np.max(array))
    return (low, high) if so_far is None else (min(low, so_far[0]), max(high, so_far[1]))


def _always_zero(made: Decision) -> Iterator[str]:
    """Values whose range is a point: whatever else they hold later is cut off."""
    ranges = zip(made.placement.classes, made.calibration.ranges)
    flat = [v.name for members, found in ranges if found.low == found.high for v in members.values]
    if flat:
        yield f"{len(flat)} values in codes were always 0 on the calibration data, e.g. {flat[0]}"


def _observed(found: Calibration) -> Iterator[str]:
    """Which observer was chosen, and what the others would have done."""
    if found.tried:
        told = ", ".join(f"{name} {damage:.2g}" for name, damage in found.tried.items())
        yield f"ranges of activations: {found.observer} ({found.measure} with activations rounded: {told})"
