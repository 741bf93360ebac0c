"""The front door of the language: text in, a recipe that can be executed (or every mistake of the text) out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..ir.errors import Code, Diagnostic, MlcError
from . import syntax as ast
from .bindings import Bindings
from .build import Limit, Repeat, Step, build_limits, build_steps, steps_of
from .check import check_program, unique
from .executable import refusals
from .expand import expand
from .library import Checked, read_library
from .names import Names, names_of
from .parser import is_file, parse
from .signature import Catalog, registered
from .targeted import for_target
from .user_passes import extended

_EMPTY = ast.File(())


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe ready to run: steps and loops in order, and the bounds the result must meet."""

    checked: Checked
    steps: tuple[Step | Repeat, ...]
    limits: tuple[Limit, ...]

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        name: str = "<recipe>",
        choose: str | None = None,
        catalog: Catalog | None = None,
        folder: Path | None = None,
        metrics: Mapping[str, str] | None = None,
    ) -> Recipe:
        """The recipe that a text holds: a bare one (`prune + int4`), or the one called `choose` of a file's text.

        `choose` may be left out when there is only one, and may give arguments (`small(r=70%)`); paths are relative to
        `folder`. Raises one `MlcError` with every mistake and every feature that cannot be executed yet. `catalog` are
        the known passes, by default the registered ones; `metrics` are functions of the user's, `module:function`.
        """
        known = catalog if catalog is not None else registered()
        checked, diagnostics = _analyse(text, name, choose, known, folder, metrics)
        if checked is not None:
            diagnostics += _refused(checked)
        if diagnostics or checked is None:
            raise MlcError(unique(diagnostics))
        return build(checked, catalog=known)

    def __str__(self) -> str:
        return str(self.checked)

    def explain(self) -> str:
        """What runs: one step a line, in the recipe language."""
        return self.checked.explain()

    def on(self, target: str) -> tuple[Recipe, str]:
        """The recipe for a target (its text, or its name in the file) and that target's text: bounds for others are
        gone. Errors: BAD_TARGET when a bound is for a target, and which one is meant is not said."""
        targets = self.checked.bindings.of_kind("target")
        text = self.checked.bindings.target(target) if target in targets else target
        checked = for_target(self.checked, target if target in targets else None)
        return (self if checked is self.checked else build(checked)), text

    def metrics(self) -> dict[str, str]:
        """The functions behind metrics of the user's that its bounds name."""
        names = self.checked.bindings.names
        asked = (*self.limits, *(x for part in self.steps if isinstance(part, Repeat) for x in part.limits))
        return {x.metric: found for x in asked if (found := names.metric(x.metric)) is not None}

    def data_names(self) -> tuple[str | None, str | None]:
        """The names of the data of the file that calibrates, and of that which judges. Errors: NO_DATA if that is not
        clear."""
        return self.checked.bindings.roles([(s.data.name, s.data.span) for s in steps_of(self.steps) if s.data])


def check(
    text: str,
    *,
    name: str = "<recipe>",
    choose: str | None = None,
    catalog: Catalog | None = None,
    folder: Path | None = None,
) -> Checked:
    """Like `Recipe.parse`, for a recipe that is only to be read: features that cannot run yet are fine."""
    checked, diagnostics = _analyse(text, name, choose, catalog if catalog is not None else registered(), folder)
    if diagnostics or checked is None:
        raise MlcError(unique(diagnostics))
    return checked


def build(checked: Checked, *, catalog: Catalog | None = None) -> Recipe:
    """The executable form of a checked recipe; refuses what cannot be executed yet."""
    refused = _refused(checked)
    if refused:
        raise MlcError(unique(refused))
    known = extended(catalog if catalog is not None else registered(), checked.bindings.names.passes)
    return Recipe(checked, build_steps(checked.expanded.body, known), build_limits(checked.expanded.goal))


def _refused(checked: Checked) -> list[Diagnostic]:
    unbound = [
        Diagnostic(
            Code.MISSING_ARGUMENT,
            f"the parameter '{param.name}' of the recipe to run has no value",
            param.span,
            help=f"give it one, FILE:NAME({param.name}=...), or a default: {param.name} = ...",
        )
        for param in checked.needs
    ]
    return [*unbound, *checked.refused, *refusals(checked.expanded)]


def _analyse(
    text: str,
    name: str,
    choose: str | None,
    catalog: Catalog,
    folder: Path | None,
    metrics: Mapping[str, str] | None = None,
) -> tuple[Checked | None, list[Diagnostic]]:
    if is_file(text):
        library = read_library(text, name, folder or Path(), catalog, metrics)
        try:
            return library.choose(choose), list(library.diagnostics)
        except MlcError as e:
            return None, [*library.diagnostics, *e.diagnostics]
    if choose is not None:
        message = f"there is no recipe '{choose}': the text is one recipe without a name"
        return None, [Diagnostic(Code.UNKNOWN_RECIPE, message, where=name, help=f"leave ':{choose}' out")]
    try:
        written = parse(text, name)
    except MlcError as e:
        return None, list(e.diagnostics)
    names, _ = names_of(_EMPTY, metrics=metrics)
    expanded = expand(written, names, catalog)
    known = Names(names.recipes, lost=expanded.failed, metrics=names.metrics)
    found = [*expanded.diagnostics, *check_program(expanded.program, known, catalog)]
    return Checked(written, expanded.program, bindings=Bindings(names)), found
