"""The classes of an analysis as plain data, for people and for other programs (`mlc inspect --axes --json`).

    {"classes": [{"name", "size", "free", "pin": {"code", "op", "kind"} | None,
                  "sites": [{"constant", "axis", "path"}], "marks": [...], "depends_on": [...], "admissible": [...]}]}

Everything is a JSON type; classes come in the order of their numbers. `path` shows how the class sits in the axis;
`depends_on` names the classes each of whose units may order this one in its own way, outermost first; `admissible` what
a class admits beyond the permutations that every free one does.
"""

from __future__ import annotations

from typing import Any

from .axes import Axes, AxisClass, Site
from .axis_admissible import Group
from .axis_types import Pin

__all__ = ["BEYOND", "axis_table"]

BEYOND = {
    Group.POSITIVE_DIAGONAL: "positive-diagonal",
    Group.SIGN: "sign",
    Group.ORTHOGONAL: "orthogonal",
    Group.GL: "invertible",
}


def axis_table(axes: Axes) -> dict[str, Any]:
    """All classes, free and pinned."""
    return {"classes": [_row(axes, c) for c in axes.classes]}


def _row(axes: Axes, c: AxisClass) -> dict[str, Any]:
    return {
        "name": c.name,
        "size": c.size,
        "free": c.free,
        "pin": None if c.pin is None else _pin(c.pin),
        "sites": [_site(site) for site in c.sites],
        "marks": sorted(c.marks),
        "depends_on": [u.name for u in axes.depends(c)],
        "admissible": [name for group, name in BEYOND.items() if group in axes.admissible(c)],
    }


def _pin(pin: Pin) -> dict[str, Any]:
    return {"code": pin.code, "op": pin.where, "kind": pin.kind}


def _site(site: Site) -> dict[str, Any]:
    return {"constant": site.constant, "axis": site.axis, "path": site.path}
