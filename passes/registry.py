"""The list of passes: recipe name to "module:Class", imported on first use.

Packages add theirs through the entry-point group `mlc.passes` (name = recipe name, value = "module:Class").
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from functools import cache
from importlib.metadata import entry_points

from ..ir.errors import Code, MlcError, error
from .base import Effect, Pass

BUILTIN: dict[str, str] = {
    "simplify": "mlc.passes.rewrite.simplify:Simplify",
    "prune": "mlc.passes.prune.structured:Prune",
    "dequantize": "mlc.passes.quantize.dequantize.step:Dequantize",
    "absorb": "mlc.passes.quantize.absorb:Absorb",
    "equalize": "mlc.passes.quantize.equalize:Equalize",
    "smooth": "mlc.passes.quantize.smooth:Smooth",
    "int4": "mlc.passes.quantize.int4:Int4",
    "weights": "mlc.passes.quantize.weight_only:Weights",
    "int8": "mlc.passes.quantize.int8.int8:Int8",
    "correct_bias": "mlc.passes.quantize.correct_bias:CorrectBias",
    "fp16": "mlc.passes.quantize.fp16:Fp16",
}


@cache
def _entries() -> dict[str, str]:
    found = {e.name: e.value for e in entry_points(group="mlc.passes")}
    shadowed = sorted(found.keys() & BUILTIN.keys())
    if shadowed:
        name = shadowed[0]
        raise error(
            Code.BROKEN_PASS,
            f"an installed package calls its pass '{name}', which is one of mlc's own",
            where=found[name],
            help="give it another name, or uninstall the package",
        )
    return {**found, **BUILTIN}


def packages() -> dict[str, str]:
    """The installed packages that have passes: what Python calls each, to the name that it was installed by."""
    added = (e for e in entry_points(group="mlc.passes") if e.name not in BUILTIN)
    top = ((e.value.partition(":")[0].partition(".")[0].strip(), e.dist) for e in added)
    return {module: dist.name if dist is not None else module for module, dist in top}


def names() -> tuple[str, ...]:
    """All step names, built-in and installed."""
    return tuple(sorted(_entries()))


def find(name: str) -> type[Pass]:
    """The pass called `name`. KeyError if there is none (recipes report it with near names).

    Errors: BROKEN_PASS when an installed package registers something that cannot be used.
    """
    where = _entries()[name]
    module, _, attribute = where.partition(":")
    if name in BUILTIN:
        return _usable(name, where, getattr(importlib.import_module(module), attribute))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as cause:
        raise _broken(name, where, f"importing it fails: {type(cause).__name__}: {cause}") from cause
    return _usable(name, where, found)


def _usable(name: str, where: str, found: object) -> type[Pass]:
    why = flaw(found)
    if why:
        raise _broken(name, where, why)
    assert isinstance(found, type)
    assert issubclass(found, Pass)
    if found.name != name:
        raise _broken(name, where, f"its class is called {found.name!r}; both names must be equal")
    return found


def flaw(found: object) -> str:
    """Why something cannot be used as a pass; nothing if it can."""
    if not (isinstance(found, type) and issubclass(found, Pass)):
        return "it is not a subclass of mlc.Pass"
    if "__dataclass_fields__" not in vars(found):
        return "its class is no dataclass: decorate it with @dataclass(frozen=True)"
    if inspect.isabstract(found):
        return f"its class has no {' and no '.join(sorted(found.__abstractmethods__))}"
    name = getattr(found, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        return f"its class is called {name!r}: write name: ClassVar[str] = 'a_name'"
    if not isinstance(getattr(found, "effect", None), Effect):
        return "its class does not say what it does: write effect: ClassVar[Effect] = LOSSY (or EXACT, ROUNDING)"
    unmade = [f.name for f in dataclasses.fields(found) if "unit" not in f.metadata]
    return f"its field {unmade[0]!r} is not made by option(..., unit=..., doc=...)" if unmade else ""


def _broken(name: str, where: str, why: str) -> MlcError:
    help = "correct the package that registers it, or uninstall that package"
    return error(Code.BROKEN_PASS, f"the installed pass '{name}' cannot be used: {why}", where=where, help=help)


def by_class_name(name: str) -> type[Pass] | None:
    """The built-in pass whose class is called `name` (for `mlc.passes.Prune`)."""
    for step, where in BUILTIN.items():
        if where.endswith(f":{name}"):
            return find(step)
    return None
