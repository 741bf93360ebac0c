"""What `mlc verify` prints: how far two models agree, one fact a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The agreement of two models (`commands.verify`) for people; facts that do not apply are left out."""
    if found["cosine"] is not None:
        yield f"cosine: {found['cosine']:.6f}"
        yield f"SQNR: {_sqnr(found)}"
    if found["max_relative"] is not None:
        yield f"largest difference: {found['max_relative']:.3g} of the largest output"
    if found["top1"] is not None:
        yield f"same best class: {found['top1']:.2%}"
    yield f"integer outputs: {'equal' if found['integers_equal'] else 'different'}"
    yield f"samples: {found['samples']}, judged on {found['judged_on']}"


def _sqnr(found: Mapping[str, Any]) -> str:
    if found["sqnr_db"] is not None:
        return f"{found['sqnr_db']:.1f} dB"
    return "infinite, the outputs are equal" if found["max_relative"] == 0 else "undefined: outputs cannot be compared"
