"""What a finished recipe leaves undone that another step would have done."""

from __future__ import annotations

from collections.abc import Collection

from ..ir.core import Module
from ..passes.rewrite.cse import equal_constants

_WORTH = 0.01  # of the weights: less is not worth a line


def left_undone(module: Module, steps: Collection[str]) -> tuple[str, ...]:
    """Advice for a result of the steps with these names."""
    if "simplify" in steps:
        return ()
    nbytes = {name: v.constant.nbytes for name, v in module.constants.items() if v.constant is not None}
    repeated = [value.name for value, _ in equal_constants(module)]
    held = sum(nbytes[name] for name in repeated)
    if not held or held < _WORTH * sum(nbytes.values()):
        return ()
    first = f"{repeated[0]!r}" if len(repeated) == 1 else f"{repeated[0]!r} and {len(repeated) - 1} more"
    return (
        f"{held / sum(nbytes.values()):.0%} of the weights are copies of others ({first}): "
        "simplify as the first step keeps one of each",
    )
