"""The names a recipe can see: the statements of its file and the standard recipes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources

from ..ir.errors import Code, Diagnostic, Span
from ..passes.base import Pass
from .kinds import unknown_kind
from .syntax import KEYWORDS, Binding, Define, File, Let, Statement, Use
from .uses import PythonFile, alias_of, spaces

STANDARD = "standard.mlc"
_KINDS = {"model": "Model", "data": "Data", "target": "Target", "optimizer": "Optimizer"}


@dataclass(frozen=True, slots=True)
class Names:
    """What names mean outside of the passes. `lost` are names of statements that could not be read."""

    recipes: Mapping[str, Define] = field(default_factory=dict)
    lets: Mapping[str, Let] = field(default_factory=dict)
    bindings: Mapping[str, Binding] = field(default_factory=dict)
    aliases: frozenset[str] = frozenset()  # of `use "x.mlc" as alias`
    lost: frozenset[str] = frozenset()
    modules: Mapping[str, PythonFile] = field(default_factory=dict)  # of `use "x.py" as alias`, by alias
    passes: Mapping[str, type[Pass]] = field(default_factory=dict)  # of those files: `alias.name`
    metrics: Mapping[str, str] = field(default_factory=dict)  # of the user's, by name: module:function

    def metric(self, name: str) -> str | None:
        """The function behind a metric of the user's, as `module:function`; None if the name is none."""
        alias, _, function = name.rpartition(".")
        return f"{self.modules[alias].path}:{function}" if alias in self.modules else self.metrics.get(name)

    def kind(self, name: str) -> str | None:
        """The kind of a bound name (`Data`, `Optimizer`, ...) that is no step."""
        return _KINDS[self.bindings[name].kind] if name in self.bindings else None

    @property
    def steps(self) -> tuple[str, ...]:
        """Names that can stand where a step stands."""
        return (*self.recipes, *self.lets)

    def is_lost(self, name: str) -> bool:
        """Whether the name, or the file it is used from, could not be read: nothing can be said of it."""
        return name in self.lost or any(space in self.lost for space in spaces(name))

    def through_alias(self, name: str) -> bool:
        """Whether the name is one of a used file (`other.small`)."""
        return "." in name and name.split(".")[0] in self.aliases


@functools.cache
def standard() -> Mapping[str, Define]:
    """The standard recipes: sugar, shipped as recipe text."""
    from .parser import parse_file

    text = resources.files(__package__).joinpath(STANDARD).read_text(encoding="utf-8")
    return {s.name: s for s in parse_file(text, STANDARD).statements if isinstance(s, Define)}


def names_of(
    file: File,
    *,
    passes: Iterable[str] = (),
    lost: frozenset[str] = frozenset(),
    used: Iterable[Statement] = (),
    modules: Mapping[str, PythonFile] | None = None,
    own_passes: Mapping[str, type[Pass]] | None = None,
    metrics: Mapping[str, str] | None = None,
) -> tuple[Names, list[Diagnostic]]:
    """The names of a file over the standard recipes, and names that are bound twice or shadow a pass.

    `used` are the statements of files that it uses, under their names in this one, `modules` the Python files and
    `own_passes` what those hold.
    """
    recipes: dict[str, Define] = {}
    lets: dict[str, Let] = {}
    bindings: dict[str, Binding] = {}
    taken: dict[str, Span | None] = {}
    diagnostics: list[Diagnostic] = []
    known = frozenset(passes)
    for statement in (*used, *file.statements):
        if not isinstance(statement, Define | Let | Binding):
            continue
        name, span = statement.name, statement.name_span
        diagnostics += _word(name, span)
        if name in taken:
            diagnostics.append(_twice(name, span, taken[name]))
            continue
        if name in known:
            diagnostics.append(
                Diagnostic(Code.DUPLICATE, f"'{name}' is a built-in step", span, help="choose another name")
            )
            continue
        taken[name] = span
        if isinstance(statement, Define):
            recipes[name] = statement
            diagnostics += _parameters(statement)
        elif isinstance(statement, Let):
            lets[name] = statement
        else:
            bindings[name] = statement
    diagnostics += _shadowing(recipes.values(), {*recipes, *lets, *bindings})
    visible = {name: d for name, d in standard().items() if name not in taken} | recipes
    found = Names(visible, lets, bindings, _aliases(file), lost, modules or {}, own_passes or {}, metrics or {})
    return found, diagnostics


def _aliases(file: File) -> frozenset[str]:
    return frozenset(alias_of(s) for s in file.statements if isinstance(s, Use))


def _parameters(recipe: Define) -> list[Diagnostic]:
    seen: set[str] = set()
    found = []
    for param in recipe.params:
        if param.name in seen:
            found.append(_twice(param.name, param.span, None))
        seen.add(param.name)
        found += [*unknown_kind(param), *_word(param.name, param.span)]
    return found


def _word(name: str, span: Span | None) -> Iterator[Diagnostic]:
    """A name that is a word of the language: what it names could not be said."""
    if name in KEYWORDS:
        yield Diagnostic(Code.SYNTAX, f"'{name}' is a word of the language", span, help="choose another name")


def _shadowing(recipes: Iterable[Define], taken: set[str]) -> list[Diagnostic]:
    return [
        Diagnostic(
            Code.DUPLICATE,
            f"the parameter '{param.name}' has the name of a statement",
            param.span,
            help="choose another name",
        )
        for recipe in recipes
        for param in recipe.params
        if _beside(recipe, param.name) in taken
    ]


def _beside(recipe: Define, name: str) -> str:
    """A name of the file that the recipe comes from, as it is called here."""
    space, dot, _ = recipe.name.rpartition(".")
    return f"{space}{dot}{name}"


def _twice(name: str, span: Span | None, first: Span | None) -> Diagnostic:
    note = f"first bound in line {first.line_column()[0]}" if first is not None else ""
    return Diagnostic(Code.DUPLICATE, f"'{name}' is bound twice", span, note=note, help="choose another name")
