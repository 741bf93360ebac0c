"""The list of passes: recipe name to "module:Class", imported on first use.

Packages add theirs through the entry-point group `mlc.passes` (name = recipe name, value = "module:Class").
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points

from .base import Pass

BUILTIN: dict[str, str] = {
    "simplify": "mlc.passes.rewrite.simplify:Simplify",
    "prune": "mlc.passes.prune.structured:Prune",
    "int4": "mlc.passes.quantize.int4:Int4",
    "fp16": "mlc.passes.quantize.fp16:Fp16",
}


@cache
def _entries() -> dict[str, str]:
    found = {e.name: e.value for e in entry_points(group="mlc.passes")}
    return {**found, **BUILTIN}


def names() -> tuple[str, ...]:
    """All step names, built-in and installed."""
    return tuple(sorted(_entries()))


def find(name: str) -> type[Pass]:
    """The pass called `name`. KeyError if there is none (recipes report it with near names)."""
    module, _, attribute = _entries()[name].partition(":")
    found: type[Pass] = getattr(importlib.import_module(module), attribute)
    assert issubclass(found, Pass), f"{_entries()[name]} is not a Pass"
    return found


def by_class_name(name: str) -> type[Pass] | None:
    """The built-in pass whose class is called `name` (for `mlc.passes.Prune`)."""
    for step, where in BUILTIN.items():
        if where.endswith(f":{name}"):
            return find(step)
    return None
