"""The operator table: one line for every operator mlc knows more about than ONNX's own tools do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .opdef import OpDef, Trait

_ROWS: tuple[OpDef, ...] = (OpDef("Identity", traits=frozenset({Trait.VIEW})),)
_TABLE = {row.kind: row for row in _ROWS}


def lookup(kind: str, version: int | None = None) -> OpDef:
    """What is known of an operator; a row of defaults for one that is not in the table."""
    return _TABLE.get(kind) or OpDef(kind)


def known() -> Iterable[OpDef]:
    """Every row of the table."""
    return _TABLE.values()
