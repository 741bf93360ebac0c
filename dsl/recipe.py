"""The front door of the language: text in, a recipe that can be executed (or every mistake of the text) out."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.errors import Code, Diagnostic, MlcError
from . import syntax as ast
from .build import Limit, Repeat, Step, build_limits, build_steps
from .check import check_program, check_statement, unique
from .executable import refusals
from .expand import Budget, expand, expand_definition
from .names import Names, names_of
from .parser import is_file, parse, recover_file
from .print import layout, to_text
from .signature import Catalog, registered
from .values import near

_EMPTY = ast.File(())


@dataclass(frozen=True, slots=True)
class Checked:
    """A recipe without mistakes: as written, and with every name written out. It may not be executable yet."""

    written: ast.Program
    expanded: ast.Program
    file: ast.File = _EMPTY  # the file it stands in
    needs: tuple[ast.Param, ...] = ()  # parameters that have no default

    def __str__(self) -> str:
        return to_text(self.written)

    def explain(self) -> str:
        """What runs: one step a line, in the recipe language."""
        return layout(self.expanded)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe ready to run: steps and loops in order, and the bounds the result must meet."""

    checked: Checked
    steps: tuple[Step | Repeat, ...]
    limits: tuple[Limit, ...]

    @classmethod
    def parse(
        cls, text: str, *, name: str = "<recipe>", choose: str | None = None, catalog: Catalog | None = None
    ) -> Recipe:
        """The recipe that a text holds: a bare one (`prune + int4`), or the one called `choose` of a file's text.

        `choose` may be left out when there is only one. Raises one `MlcError` with every mistake and every feature
        that cannot be executed yet. `catalog` are the known passes, by default the registered ones.
        """
        known = catalog if catalog is not None else registered()
        checked, diagnostics = _analyse(text, name, choose, known)
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


def check(text: str, *, name: str = "<recipe>", choose: str | None = None, catalog: Catalog | None = None) -> Checked:
    """Like `Recipe.parse`, for a recipe that is only to be read: features that cannot run yet are fine."""
    checked, diagnostics = _analyse(text, name, choose, catalog if catalog is not None else registered())
    if diagnostics or checked is None:
        raise MlcError(unique(diagnostics))
    return checked


def build(checked: Checked, *, catalog: Catalog | None = None) -> Recipe:
    """The executable form of a checked recipe; refuses what cannot be executed yet."""
    refused = _refused(checked)
    if refused:
        raise MlcError(unique(refused))
    known = catalog if catalog is not None else registered()
    return Recipe(checked, build_steps(checked.expanded.body, known), build_limits(checked.expanded.goal))


def _refused(checked: Checked) -> list[Diagnostic]:
    others = [s for s in checked.file.statements if not isinstance(s, ast.Define | ast.Let)]
    unbound = [
        Diagnostic(
            Code.MISSING_ARGUMENT,
            f"the parameter '{param.name}' of the recipe to run has no value",
            param.span,
            help=f"give it a default: {param.name} = ...",
        )
        for param in checked.needs
    ]
    return unbound + [d for statement in others for d in refusals(statement)[:1]] + refusals(checked.expanded)


def _analyse(text: str, name: str, choose: str | None, catalog: Catalog) -> tuple[Checked | None, list[Diagnostic]]:
    if is_file(text):
        return _analyse_file(text, name, choose, catalog)
    if choose is not None:
        message = f"there is no recipe '{choose}': the text is one recipe without a name"
        return None, [Diagnostic(Code.UNKNOWN_RECIPE, message, where=name, help=f"leave ':{choose}' out")]
    try:
        written = parse(text, name)
    except MlcError as e:
        return None, list(e.diagnostics)
    names, _ = names_of(_EMPTY)
    expanded = expand(written, names, catalog)
    known = Names(names.recipes, lost=expanded.failed)
    found = [*expanded.diagnostics, *check_program(expanded.program, known, catalog)]
    return Checked(written, expanded.program), found


def _analyse_file(
    text: str, name: str, choose: str | None, catalog: Catalog
) -> tuple[Checked | None, list[Diagnostic]]:
    parsed = recover_file(text, name)
    names, twice = names_of(parsed.file, passes=catalog.names, lost=parsed.lost)
    diagnostics = [*parsed.diagnostics, *twice]
    results: dict[str, Checked] = {}
    budget = Budget()
    for statement in parsed.file.statements:
        if isinstance(statement, ast.Define):
            program, found = _definition(statement, names, catalog, budget)
            needs = tuple(p for p in statement.params if p.default is None)
            results[statement.name] = Checked(statement.program, program, parsed.file, needs)
            diagnostics += found
        else:
            diagnostics += check_statement(statement, names)
    try:
        chosen = _choose(results, choose, name, lost=parsed.lost)
    except MlcError as e:
        return None, [*diagnostics, *e.diagnostics]
    return chosen, diagnostics


def _definition(
    recipe: ast.Define, names: Names, catalog: Catalog, budget: Budget
) -> tuple[ast.Program, list[Diagnostic]]:
    expanded = expand_definition(recipe, names, catalog, budget)
    opaque = frozenset(p.name for p in recipe.params if p.default is None) | expanded.failed
    found = check_program(expanded.program, names, catalog, opaque=opaque)
    return expanded.program, [*expanded.diagnostics, *found]


def _choose(recipes: dict[str, Checked], choose: str | None, name: str, *, lost: frozenset[str]) -> Checked | None:
    """The recipe to run: the one asked for, or the only one that runs without arguments.

    None if it could not be read, which is reported already.
    """
    if choose is not None and (choose in recipes or choose in lost):
        return recipes.get(choose)
    able = [key for key, checked in recipes.items() if not checked.needs] or list(recipes)
    if choose is None and (len(able) == 1 or lost):
        return recipes[able[0]] if able else None
    if choose is not None:
        message, advice = f"there is no recipe '{choose}'", near(choose, recipes)
        advice = advice or (f"the file holds {', '.join(recipes)}" if recipes else "the file holds no recipe")
    elif able:
        message, advice = f"the file holds {len(able)} recipes: {', '.join(able)}", f"name one: {name}:{able[0]}"
    else:
        message, advice = "the file holds no recipe", "write one: recipe small = prune + int4"
    raise MlcError(Diagnostic(Code.UNKNOWN_RECIPE, message, where=name, help=advice))
