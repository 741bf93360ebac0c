"""A recipe with its passes built: what the compiler runs, under which scopes and bounds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..ir import errors
from ..ir.core import Module
from ..ir.errors import Code
from ..passes import registry
from ..passes.base import EVERYWHERE, Pass, Scope
from ..passes.pipeline import PlannedStep, check_order
from .build import Limit, Step
from .recipe import Recipe
from .scopes import resolve
from .sites import sites_of
from .source import file_text, read_source


@dataclass(frozen=True)
class Program:
    """A recipe with its passes built: what runs, under which scopes and bounds."""

    steps: tuple[tuple[Pass, Step | None], ...]
    recipe: Recipe | None
    text: str

    @classmethod
    def of(cls, recipe: str | Recipe | Pass | Sequence[Pass]) -> Program:
        if isinstance(recipe, str):
            source = read_source(recipe, stdin=sys.stdin)
            recipe = Recipe.parse(source.text, name=source.name, choose=source.choose)
        if isinstance(recipe, Recipe):
            steps = tuple((registry.find(s.name)(**s.arguments), s) for s in recipe.steps)
            program = cls(steps, recipe, str(recipe))
        else:
            passes = _passes([recipe] if isinstance(recipe, Pass) else recipe)
            program = cls(tuple((p, None) for p in passes), None, " + ".join(map(str, passes)))
        check_order([step for step, _ in program.steps])
        return program

    @property
    def limits(self) -> tuple[Limit, ...]:
        return self.recipe.limits if self.recipe is not None else ()

    @property
    def exact(self) -> bool:
        """Whether every step promises equal outputs."""
        return not any(step.effect.lossy for step, _ in self.steps)

    @property
    def free(self) -> bool:
        """Whether a strength is left to choose."""
        return any(step.free and step.effect.lossy for step, _ in self.steps)

    @property
    def learns(self) -> bool:
        """Whether a step takes something from the data: then the samples that judge must be others."""
        return self.free or any(step.learns for step, _ in self.steps)

    def planned(self) -> tuple[PlannedStep, ...]:
        return tuple(PlannedStep(action, partial(_scope, step)) for action, step in self.steps)

    def check_scopes(self, module: Module) -> None:
        """Refuse a selector that matches nothing in the model, before any work."""
        for _, step in self.steps:
            _scope(step, module)

    def file_text(self) -> str:
        return file_text(self.recipe.checked) if self.recipe is not None else f"# passes from Python\n{self.text}\n"


def _passes(recipe: object) -> tuple[Pass, ...]:
    """A recipe given as passes."""
    if isinstance(recipe, Sequence):
        found = tuple(p for p in recipe if isinstance(p, Pass))
        if len(found) == len(recipe):
            return found
    raise errors.error(
        Code.USAGE, f"{recipe!r} is not a recipe", help="give recipe text, a Recipe, or a list of passes"
    )


def _scope(step: Step | None, module: Module) -> Scope:
    return EVERYWHERE if step is None or step.scope.everywhere else resolve(step, sites_of(module))
