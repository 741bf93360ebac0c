"""Which criterion scores which group: by name, with what data allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...ir.axes import Axes
from ...ir.core import Module
from ..base import Context
from .criteria import CRITERIA, Scores
from .fit.saliency import DATA_CRITERIA, data_scores
from .groups import Group

AUTO = "auto"
WITH_DATA, WITHOUT_DATA = "obs", "group"
CHOICES = (AUTO, *CRITERIA, *DATA_CRITERIA)


def chosen(criterion: str, *, data: bool) -> str:
    """What `auto` stands for: the best criterion that can be computed."""
    return criterion if criterion != AUTO else WITH_DATA if data else WITHOUT_DATA


def score(
    criterion: str, module: Module, axes: Axes, groups: Sequence[Group], ctx: Context
) -> tuple[Mapping[int, Scores], list[str]]:
    """Scores of every group by id, and notes. Groups that data cannot judge take the norm of their slices, in the
    mean as high as what data says of the others."""
    name = chosen(criterion, data=ctx.data is not None)
    if name in CRITERIA:
        return _plain(name, module, axes, groups, ctx), []
    scores, blind = _told_by_data(name, module, axes, groups, ctx)
    if not blind:
        return scores, []
    level = float(np.mean(np.concatenate(list(scores.values())))) if scores else 1.0
    rest = _plain(WITHOUT_DATA, module, axes, blind, ctx)
    told = f"{len(blind)} groups have no linear consumer to watch, such as {blind[0].site}: scored by {WITHOUT_DATA}"
    return {**scores, **{g: s * level for g, s in rest.items()}}, [told]


def _told_by_data(
    name: str, module: Module, axes: Axes, groups: Sequence[Group], ctx: Context
) -> tuple[Mapping[int, Scores], list[Group]]:
    """Scores of the groups that data judges, and the others. They do not depend on how many units leave: trials of
    other ratios on the same model ask no more."""

    def find() -> tuple[Mapping[int, Scores], frozenset[int]]:
        scores, blind = data_scores(name, module, axes, groups, ctx)
        return scores, frozenset(g.id for g in blind)

    question = ("scores of units", name, ctx.step, *(g.id for g in groups))
    scores, blind = find() if ctx.stats is None else ctx.stats.remember(module, question, find)
    return scores, [g for g in groups if g.id in blind]


def _plain(name: str, module: Module, axes: Axes, groups: Sequence[Group], ctx: Context) -> dict[int, Scores]:
    return {g.id: CRITERIA[name](module, axes, g.axis_class, ctx.rng("prune", g.id)) for g in groups}
