"""What a step accepts, read from the fields of its pass; the checker knows passes only through this."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..ir.errors import Code, error

UNITS = ("ratio", "number", "int", "name", "str", "word", "path", "bool", "ints", "numbers", "size", "data")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument: its unit, range, choices, and whether it may be given without its name."""

    name: str
    unit: str
    optional: bool = True  # has a default
    nullable: bool = False  # `none` (left to mlc) is allowed
    low: float | None = None
    high: float | None = None
    choices: tuple[object, ...] = ()
    positional: bool = False
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """A step: its parameters in order and the names of steps that must not come later."""

    name: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    after: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.parameters)})"

    @property
    def positional(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters.values() if p.positional)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The steps that exist: their names, and a lookup that is asked only for names in the list."""

    names: tuple[str, ...]
    find: Callable[[str], Signature]

    @classmethod
    def of(cls, passes: Iterable[type]) -> Catalog:
        """A catalog of given pass classes."""
        found = {s.name: s for s in map(signature_of, passes)}
        return cls(tuple(found), found.__getitem__)


def registered() -> Catalog:
    """The catalog of every built-in and installed pass; a pass is imported when a recipe names it."""
    from ..passes import registry

    return Catalog(registry.names(), lambda name: signature_of(registry.find(name)))


def signature_of(pass_class: type) -> Signature:
    """The signature of a pass: a dataclass whose fields carry `unit`, `doc`, `low`, ... in their metadata."""
    name = str(getattr(pass_class, "name", pass_class.__name__))
    if not dataclasses.is_dataclass(pass_class):
        raise _unusable(name, "the class is not a dataclass")
    parameters = {f.name: _parameter(name, f) for f in dataclasses.fields(pass_class) if f.init}
    if "data" not in parameters and _learns(pass_class):
        parameters["data"] = Parameter("data", "data", doc="what calibrates: a data binding of the recipe's file")
    after = tuple(str(getattr(each, "name", each)) for each in getattr(pass_class, "after", ()))
    return Signature(name, parameters, after)


def _learns(pass_class: type) -> bool:
    """Whether the pass can take something from data."""
    from ..passes.base import Need, Pass

    if not issubclass(pass_class, Pass):
        return False
    asks = pass_class.learns is not Pass.learns or pass_class.wants is not Pass.wants
    return asks or Need.DATA in pass_class.needs


def _parameter(step: str, of: dataclasses.Field[object]) -> Parameter:
    meta = of.metadata
    unit = meta.get("unit")
    if unit not in UNITS:
        raise _unusable(step, f"the field '{of.name}' has no unit that recipes know ({', '.join(UNITS)})")
    required = of.default is dataclasses.MISSING and of.default_factory is dataclasses.MISSING
    return Parameter(
        of.name,
        unit,
        optional=not required,
        nullable=of.default is None,
        low=meta.get("low"),
        high=meta.get("high"),
        choices=tuple(meta.get("choices") or ()),
        positional=bool(meta.get("positional", False)),
        doc=str(meta.get("doc", "")),
    )


def _unusable(step: str, why: str) -> Exception:
    return error(
        Code.BROKEN_PASS,
        f"the pass '{step}' cannot be used in recipes: {why}",
        help="make every field with passes.base.option(default, unit=..., doc=...)",
    )
