"""The front door of the language: text in, a recipe that can be executed (or every mistake of the text) out."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.errors import Code, Diagnostic, MlcError, Span
from . import syntax as ast
from .build import Limit, Step, build_limits, build_steps
from .check import check_program, check_statement, unique
from .executable import refusals
from .expand import expand, expand_definition
from .names import Names, names_of
from .parser import is_file, parse, recover_file
from .print import layout, to_text
from .signature import Catalog, registered

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
    """A recipe ready to run: steps in order, and the bounds the result must meet."""

    checked: Checked
    steps: tuple[Step, ...]
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
    for statement in parsed.file.statements:
        if isinstance(statement, ast.Define):
            program, found = _definition(statement, names, catalog)
            needs = tuple(p for p in statement.params if p.default is None)
            results[statement.name] = Checked(statement.program, program, parsed.file, needs)
            diagnostics += found
        else:
            diagnostics += check_statement(statement, names)
    try:
        chosen = _choose(results, choose, text, name, lost=parsed.lost)
    except MlcError as e:
        return None, [*diagnostics, *e.diagnostics]
    return chosen, diagnostics


def _definition(recipe: ast.Define, names: Names, catalog: Catalog) -> tuple[ast.Program, list[Diagnostic]]:
    expanded = expand_definition(recipe, names, catalog)
    opaque = frozenset(p.name for p in recipe.params if p.default is None) | expanded.failed
    found = check_program(expanded.program, names, catalog, opaque=opaque)
    return expanded.program, [*expanded.diagnostics, *found]


def _choose(
    recipes: dict[str, Checked], choose: str | None, text: str, name: str, *, lost: frozenset[str]
) -> Checked | None:
    """The recipe to run; None if it is one that could not be read, which is reported already."""
    from .values import near

    if choose is not None and choose not in recipes and choose not in lost:
        held = f"the file holds {', '.join(recipes)}" if recipes else "the file holds no recipe"
        raise MlcError(
            Diagnostic(
                Code.UNKNOWN_RECIPE,
                f"there is no recipe '{choose}'",
                where=name,
                help=near(choose, recipes) or held,
            )
        )
    if choose is None and len(recipes) > 1:
        first = next(iter(recipes))
        raise MlcError(
            Diagnostic(
                Code.UNKNOWN_RECIPE,
                f"the file holds {len(recipes)} recipes: {', '.join(recipes)}",
                where=name,
                help=f"name one: {name}:{first}",
            )
        )
    if choose is None and not recipes:
        if lost:
            return None
        raise MlcError(
            Diagnostic(
                Code.UNKNOWN_RECIPE,
                "the file holds no recipe",
                Span(text, name, 0, 0),
                help="write one: recipe small = prune + int4",
            )
        )
    return recipes.get(choose) if choose is not None else next(iter(recipes.values()))
