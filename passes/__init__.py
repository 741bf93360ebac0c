"""Passes, found by class name on first use: `mlc.passes.Prune(ratio=0.5)(module)`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    from .registry import by_class_name

    found = by_class_name(name) if name[:1].isupper() else None
    if found is None:
        raise AttributeError(f"mlc.passes has no pass {name!r}")
    return found
