"""Recipe files as a whole: every statement read and checked, and the recipe in them that is to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..ir.errors import Code, Diagnostic, MlcError
from . import syntax as ast
from .bindings import Bindings
from .check import check_program, check_statement, flat
from .executable import refusals
from .expand import Budget, expand, expand_definition
from .names import names_of
from .parser import parse, recover_file
from .print import layout, to_text
from .signature import Catalog
from .user_passes import extended, passes_of
from .uses import used_by
from .values import near


@dataclass(frozen=True, slots=True)
class Checked:
    """A recipe without mistakes: as written, and with every name written out. It may not be executable yet."""

    written: ast.Program
    expanded: ast.Program
    needs: tuple[ast.Param, ...] = ()  # parameters that have no default
    bindings: Bindings = field(default_factory=Bindings)  # of the file it stands in
    refused: tuple[Diagnostic, ...] = ()  # what of that file cannot be executed yet

    def __str__(self) -> str:
        return to_text(self.written)

    def explain(self) -> str:
        """What runs: one step a line, in the recipe language."""
        return layout(self.expanded)


@dataclass(frozen=True)
class Library:
    """A recipe file, checked. `recipes` are those of the file, and those it uses under their names in it."""

    name: str
    file: ast.File
    bindings: Bindings
    catalog: Catalog
    recipes: Mapping[str, Checked]
    diagnostics: tuple[Diagnostic, ...]
    refused: tuple[Diagnostic, ...]
    lost: frozenset[str]
    faulty: frozenset[str]  # recipes with mistakes

    @property
    def own(self) -> dict[str, Checked]:
        return {name: checked for name, checked in self.recipes.items() if "." not in name}

    def choose(self, choose: str | None) -> Checked | None:
        """The recipe to run: the one asked for, perhaps with arguments, or the only one that needs none.

        None if it could not be read, which is reported already. Errors: everything wrong with what was asked for.
        """
        if choose is not None and (choose in self.recipes or choose in self.lost):
            return self.recipes.get(choose)
        if choose is not None and "(" in choose:
            written = parse(choose, "--recipe")
            if not isinstance(written.body, ast.Call) or written.goal != ast.Goal():
                message, help = "one recipe of a file is chosen here, with its arguments", f"write into {self.name}: "
                help += f"recipe NAME = {choose}, and choose NAME"
                raise MlcError(Diagnostic(Code.WRONG_KIND, message, written.span, help=help))
            if written.body.name in (*self.recipes, *self.lost):
                return self.call(written.body)
            choose = written.body.name
        own = self.own
        able = [name for name, checked in own.items() if not checked.needs] or list(own)
        if choose is None and (len(able) == 1 or self.lost):
            return own[able[0]] if able else None
        if choose is not None:
            message, advice = f"there is no recipe '{choose}'", near(choose, self.recipes)
            advice = advice or (f"the file holds {', '.join(own)}" if own else "the file holds no recipe")
        elif able:
            message, advice = (
                f"the file holds {len(able)} recipes: {', '.join(able)}",
                f"name one: {self.name}:{able[0]}",
            )
        else:
            message, advice = "the file holds no recipe", "write one: recipe small = prune + int4"
        raise MlcError(Diagnostic(Code.UNKNOWN_RECIPE, message, where=self.name, help=advice))

    def is_sound(self, checked: Checked) -> bool:
        """Whether a recipe can be built: it has no mistakes, and no part of it is lost."""
        steps = flat(checked.expanded.body)
        wrong = any(checked is self.recipes[name] for name in self.faulty)
        return not wrong and all(step.name in self.catalog.names for step in steps)

    def call(self, recipe: ast.Expr) -> Checked:
        """What an expression of steps and recipes means in this file. Errors: everything wrong with it."""
        if isinstance(recipe, ast.Ref) and recipe.name in self.recipes:
            return self.recipes[recipe.name]
        written = ast.Program(recipe, span=recipe.span)
        expanded = expand(written, self.bindings.names, self.catalog)
        found = check_program(expanded.program, self.bindings.names, self.catalog, opaque=expanded.failed)
        if expanded.diagnostics or found:
            raise MlcError([*expanded.diagnostics, *found])
        return Checked(expanded.program, expanded.program, (), self.bindings, self.refused)


def read_library(
    text: str, name: str, folder: Path, catalog: Catalog, metrics: Mapping[str, str] | None = None
) -> Library:
    """Read and check the text of a file. Paths in it are relative to `folder`; `metrics` are those of the user."""
    parsed = recover_file(text, name)
    above = (Path(name).resolve(),) if name.endswith(".mlc") else ()
    used = used_by(parsed.file, folder, above)
    statements = (*used.statements, *parsed.file.statements)
    own = passes_of(used.modules, statements)
    catalog = extended(catalog, own.passes)
    lost = parsed.lost | used.lost | own.lost
    names, twice = names_of(
        parsed.file,
        passes=catalog.names,
        lost=lost,
        used=used.statements,
        modules=used.modules,
        own_passes=own.passes,
        metrics=metrics,
    )
    bindings = Bindings(names, used.bases, folder)
    diagnostics = [*parsed.diagnostics, *used.diagnostics, *own.diagnostics, *twice]
    unbound = bindings.check()
    diagnostics += [d for d in unbound if d.code is not Code.NOT_YET]
    refused = [d for s in parsed.file.statements if not isinstance(s, ast.Define | ast.Let) for d in refusals(s)[:1]]
    refused += [d for d in unbound if d.code is Code.NOT_YET]
    recipes: dict[str, Checked] = {}
    faulty = set()
    budget = Budget()
    for statement in statements:
        if not isinstance(statement, ast.Define):
            diagnostics += check_statement(statement, names)
            continue
        expanded = expand_definition(statement, names, catalog, budget)
        needs = tuple(p for p in statement.params if p.default is None)
        opaque = frozenset(p.name for p in needs) | expanded.failed
        found = [*expanded.diagnostics, *check_program(expanded.program, names, catalog, opaque=opaque)]
        if found:
            diagnostics += found
            faulty.add(statement.name)
        recipes[statement.name] = Checked(statement.program, expanded.program, needs, bindings, tuple(refused))
    return Library(
        name, parsed.file, bindings, catalog, recipes, tuple(diagnostics), tuple(refused), lost, frozenset(faulty)
    )
