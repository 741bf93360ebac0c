"""Scopes on a model: the operators that a step's `on` and `except` select."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from ..ir.errors import MlcError
from ..passes.base import EVERYWHERE, Scope
from . import syntax as ast
from .build import Step
from .nearmiss import no_match, unmatched
from .print import selector as selector_text
from .selectors import Site, predicate

_S = TypeVar("_S", bound=Site)


def select(selector: ast.Selector, sites: Iterable[_S]) -> tuple[_S, ...]:
    """The sites that match; an `MlcError` with the nearest names if there are none."""
    everything = tuple(sites)
    test = predicate(selector)
    found = tuple(site for site in everything if test(site))
    if not found:
        raise MlcError(unmatched(selector, everything) or no_match(selector, everything))
    return found


def check_parts(step: Step, sites: Iterable[Site]) -> None:
    """Refuse a selector with a part that matches nothing in the model as it came.

    `A or B` where nothing is called B is a mistyped B, and so is `not B`: what they select is not what was meant. Later
    steps may well use up all that a part selects, which is no mistake.
    """
    everything = tuple(sites)
    idle = [d for s in (step.scope.on, step.scope.but) if s is not None for d in unmatched(s, everything)]
    if idle:
        raise MlcError(idle)


def resolve(step: Step, sites: Iterable[Site]) -> Scope:
    """The scope of a step on a model. The first name of a site is the operator's own.

    A selector that matches nothing is an error, for `on` and for `except`: neither may silently miss.
    """
    if step.scope.everywhere:
        return EVERYWHERE
    everything = tuple(sites)
    on, but = step.scope.on, step.scope.but
    words = [f"{word} {selector_text(s)}" for word, s in (("on", on), ("except", but)) if s is not None]
    return Scope(
        on=None if on is None else frozenset(site.names[0] for site in select(on, everything)),
        but=frozenset() if but is None else frozenset(site.names[0] for site in select(but, everything)),
        text=" ".join(words),
    )
