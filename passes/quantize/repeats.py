"""Calibration samples that repeat others: they count, and say nothing new."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice

import numpy as np

from ..ports import Batch, Data

_LOOKED_AT = 64  # samples, the first ones


def repeats(data: Data | None) -> Iterator[str]:
    """A note if some of the first samples have the same inputs."""
    if data is None:
        return
    seen = [_digest(sample) for sample in islice(data.batches(1), _LOOKED_AT)]
    different = len(set(seen))
    if different < len(seen):
        among = f"{len(seen)} samples" if len(seen) == len(data) else f"the first {len(seen)} samples"
        yield f"{len(seen) - different} of {among} repeat others: all that is learned comes from {different}"


def _digest(sample: Batch) -> bytes:
    sha = hashlib.sha256()
    for name in sorted(sample.inputs):
        array = np.asarray(sample.inputs[name])
        sha.update(f"{name} {array.dtype} {array.shape}".encode())
        sha.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return sha.digest()
