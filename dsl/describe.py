"""What steps and data sources are and accept: the text behind `mlc passes`, `mlc data sources` and `mlc explain`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TextIO

from ..frontends.data.source import Selection
from ..frontends.data.table import SOURCES
from ..ir.errors import Code, MlcError, error
from ..ir.options import format_value
from ..passes import registry
from .executable import refusals
from .nearmiss import step_advice
from .recipe import check
from .source import read_source
from .syntax import Call, Ref, walk
from .values import near


def list_passes() -> Iterator[str]:
    """One line per pass: name and the first line of its documentation."""
    width = max(map(len, registry.names()))
    for name in registry.names():
        try:
            yield f"{name:<{width}}  {_summary(registry.find(name))}"
        except MlcError as broken:  # one package's mistake must not hide everybody else's passes
            yield f"{name:<{width}}  (unusable: {broken.diagnostics[0].message})"


def describe(name: str) -> Iterator[str]:
    """A pass with its arguments. Errors: UNKNOWN_STEP with the nearest name."""
    if name not in registry.names():
        advice = step_advice(name, registry.names()) or "see mlc passes"
        raise error(Code.UNKNOWN_STEP, f"unknown step '{name}'", help=advice)
    found = registry.find(name)
    yield name
    yield ""
    yield from (line.strip() for line in (found.__doc__ or "").strip().splitlines())
    yield ""
    yield f"effect: {'lossy' if found.effect.lossy else 'exact'}" + (", may grow" if found.effect.may_grow else "")
    if found.needs:
        yield f"needs: {', '.join(sorted(n.value for n in found.needs))}"
    if found.after:
        yield f"comes after: {', '.join(found.after)}"
    if dataclasses.fields(found):
        yield "arguments:"
    yield from _arguments(found, free="left to mlc")


def list_sources() -> Iterator[str]:
    """One line per data source: name and the first line of its documentation."""
    width = max(map(len, SOURCES))
    yield from (f"{name:<{width}}  {_summary(source)}" for name, source in SOURCES.items())


def describe_source(name: str) -> Iterator[str]:
    """A data source with its arguments and those of every source. Errors: WRONG_KIND with the nearest name."""
    if name not in SOURCES:
        raise error(Code.WRONG_KIND, f"'{name}' is no data source", help=near(name, SOURCES) or "see mlc data sources")
    yield name
    yield ""
    yield from (line.strip() for line in (SOURCES[name].__doc__ or "").strip().splitlines())
    yield ""
    yield "arguments:"
    yield from _arguments(SOURCES[name], free="none")
    yield "arguments of every source:"
    yield from _arguments(Selection, free="none")


def explain(recipe: str, *, stdin: TextIO) -> Iterator[str]:
    """The steps a recipe stands for, what each of them does, and what of it cannot be executed yet.

    Errors: everything wrong with the text.
    """
    source = read_source(recipe, stdin=stdin)
    checked = check(source.text, name=source.name, choose=source.choose, folder=source.folder)
    yield from checked.explain().splitlines()
    yield ""
    names = checked.bindings.names
    called = dict.fromkeys(n.name for n in walk(checked.expanded) if isinstance(n, Ref | Call))
    for name in called:
        if name in names.passes:
            yield f"{name}: {_summary(names.passes[name])} ({names.modules[name.rpartition('.')[0]].path})"
        elif name in registry.names():
            yield f"{name}: {_summary(registry.find(name))}"
    yield from (refused.message for refused in refusals(checked.expanded))


def _summary(found: type) -> str:
    return (found.__doc__ or "").strip().partition("\n")[0]


def _arguments(found: Any, *, free: str) -> Iterator[str]:
    """A line for each field; `free` says what it means that none is given."""
    fields = dataclasses.fields(found)
    width = max((len(f.name) for f in fields), default=0)
    yield from (f"  {field.name:<{width}}  {_argument(field, free)}" for field in fields)


def _argument(field: dataclasses.Field[Any], free: str) -> str:
    meta = field.metadata
    unit = meta["unit"]
    parts = [meta["doc"] + (" (needs no name)" if meta["positional"] else "")]
    if meta["choices"]:
        parts.append("one of " + ", ".join(map(str, meta["choices"])))
    if meta["low"] is not None and meta["high"] is not None:
        parts.append(f"{format_value(meta['low'], unit)} to {format_value(meta['high'], unit)}")
    if field.default is dataclasses.MISSING:
        return "; ".join([*parts, "required"])
    default = free if field.default is None else format_value(field.default, unit)
    return "; ".join([*parts, f"default {default}"])
