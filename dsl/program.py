"""A recipe with its passes built: what the compiler runs, under which scopes and bounds."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..ir import errors
from ..ir.core import Module
from ..ir.errors import Code, Diagnostic, MlcError
from ..passes import registry
from ..passes.base import EVERYWHERE, Need, Pass, Scope
from ..passes.pipeline import PlannedStep, check_order
from .build import Limit, Repeat, Step, steps_of
from .data import Data
from .loops import Loop, Part, Parts, flat
from .metrics import METRICS
from .recipe import Recipe
from .scopes import check_parts, resolve
from .sites import sites_of
from .source import read_source
from .stored import file_text


@dataclass(frozen=True)
class Program:
    """A recipe with its passes built: what runs, under which scopes and bounds."""

    parts: Parts
    recipe: Recipe | None
    text: str
    target: str  # as text

    @classmethod
    def of(
        cls,
        recipe: str | Recipe | Pass | Sequence[Pass],
        to: str = "ort(cpu)",
        metrics: Mapping[str, str] | None = None,
    ) -> Program:
        """The program of a recipe on a target: its text, or its name in the recipe's file. `metrics` are functions
        (`module:function`) that bounds may name."""
        if isinstance(recipe, str):
            source = read_source(recipe, stdin=sys.stdin)
            recipe = Recipe.parse(
                source.text, name=source.name, choose=source.choose, folder=source.folder, metrics=metrics
            )
        if isinstance(recipe, Recipe):
            _check_metrics(metrics or {}, recipe)
            aimed, target = recipe.on(to)
            own = aimed.checked.bindings.names.passes
            program = cls(tuple(_planned(step, own) for step in aimed.steps), aimed, str(recipe), target)
        else:
            passes = _passes([recipe] if isinstance(recipe, Pass) else recipe)
            program = cls(tuple(map(PlannedStep, passes)), None, " + ".join(map(str, passes)), to)
        check_order([step.action for step in flat(program.parts, rounds=2)])
        return program

    @property
    def steps(self) -> tuple[PlannedStep, ...]:
        """The steps in order, those of loops once."""
        return tuple(flat(self.parts))

    @property
    def metrics(self) -> dict[str, str]:
        """The functions behind metrics of the user's that bounds name."""
        return self.recipe.metrics() if self.recipe is not None else {}

    @property
    def loops(self) -> tuple[Limit, ...]:
        """The bounds of loops."""
        return tuple(x for part in self.parts if isinstance(part, Loop) for x in part.repeat.limits)

    @property
    def limits(self) -> tuple[Limit, ...]:
        return self.recipe.limits if self.recipe is not None else ()

    @property
    def wants_classes(self) -> bool:
        """Whether labels must be numbers of classes: a bound is on accuracy, or accuracy is all that they are for, as
        nothing of the user's (a metric that bounds name, a pass) takes them."""
        if any(limit.metric == "acc_drop" for limit in self.limits + self.loops):
            return True
        return not (self.metrics or any(Need.LABELS in step.action.wants() for step in self.steps))

    def data(self, data: Data | None, judges: Data | None) -> tuple[Data | None, Data | None]:
        """What calibrates and what judges: what is given, else what the recipe's file binds.

        Errors: NO_DATA if it is not clear which, NOT_FOUND for files that are not there.
        """
        if self.recipe is None or None not in (data, judges):
            return data, judges
        present = self.recipe.checked.bindings.present
        calibrates, judging = (
            present(name) if given is None and name is not None else given
            for given, name in zip((data, judges), self.recipe.data_names())
        )
        return calibrates, judging

    @property
    def exact(self) -> bool:
        """Whether every step promises equal outputs."""
        return not any(step.action.effect.lossy for step in self.steps)

    @property
    def free(self) -> bool:
        """Whether a strength is left to choose."""
        return any(step.action.free and step.action.effect.lossy for step in self.steps)

    @property
    def decides(self) -> bool:
        """Whether bounds choose what is done."""
        return self.free or bool(self.loops)

    @property
    def learns(self) -> bool:
        """Whether a step takes something from the data: then the samples that judge must be others."""
        return self.decides or any(step.action.learns for step in self.steps)

    def check_scopes(self, module: Module) -> None:
        """Refuse a selector that matches nothing in the model, or has a part that does, before any work."""
        sites = tuple(sites_of(module))
        for step in steps_of(self.recipe.steps) if self.recipe is not None else ():
            check_parts(step, sites)
            resolve(step, sites)

    def file_text(self, folder: Path) -> str:
        """What is stored beside the artifact in `folder`."""
        if self.recipe is None:
            return f"# passes from Python\n{self.text}\n"
        return file_text(self.recipe.checked, folder)


def _check_metrics(metrics: Mapping[str, str], recipe: Recipe) -> None:
    """Refuse metrics of the user's that no bound names, or that have the name of a metric there is."""
    for name in metrics:
        if name.partition(".")[0] in METRICS:
            raise errors.error(Code.USAGE, f"--metric {name}: there is a metric '{name}'", help="choose another name")
        if name not in recipe.metrics():
            help = f"write it into the recipe: where {name} <= 0.1"
            raise errors.error(Code.USAGE, f"--metric {name}: no bound of the recipe names it", help=help)


def _passes(recipe: object) -> tuple[Pass, ...]:
    """A recipe given as passes."""
    if isinstance(recipe, Sequence):
        found = tuple(p for p in recipe if isinstance(p, Pass))
        if len(found) == len(recipe):
            return found
    raise errors.error(
        Code.USAGE, f"{recipe!r} is not a recipe", help="give recipe text, a Recipe, or a list of passes"
    )


def _planned(step: Step | Repeat, own: Mapping[str, type[Pass]]) -> Part:
    """A step with its pass; `own` are passes of the user's."""
    if isinstance(step, Repeat):
        return Loop(tuple(_planned(part, own) for part in step.body), step)
    alias = step.name.rpartition(".")[0] if step.name in own else ""
    action = (own.get(step.name) or registry.find(step.name))(**step.arguments)
    if step.data is not None and not (action.learns or action.free):
        message, help = f"'{action}' takes nothing from data", f"leave 'data={step.data.name}' out"
        raise MlcError(Diagnostic(Code.CANNOT_HONOUR, message, step.data.span, help=help))
    return PlannedStep(action, partial(_scope, step), alias)


def _scope(step: Step, module: Module) -> Scope:
    return EVERYWHERE if step.scope.everywhere else resolve(step, sites_of(module))
