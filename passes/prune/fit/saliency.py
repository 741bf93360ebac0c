"""What units are worth on calibration data: criteria that look at what the consumers of a group make of them.

All of them see second moments of the inputs of every consumer (a linear operator that sums over the units,
passes/linear.py), from one streaming run of the whole model:

* `activation`: variance of the unit's columns times the norm of the weights that read them, C_ii |W_i|^2;
* `redundancy`: the variance of the unit's columns that the other columns do not explain, 1 / [C^-1]_ii, times |W_i|^2;
* `obs`: what the consumers lose when the other units make up for it (passes/prune/fit/elimination.py).

Scores of `activation` and `redundancy` have mean 1 in a group; `obs` is the relative error of the consumers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....ir.axes import Axes, AxisClass
from ....ir.core import Module
from ...base import Context
from ...budget import allowed, pick, rows_per_sample
from ...linear import Linear, linear_of
from ...regression import CrossMoments
from ...statistics import batch_size, runs, sources, stream
from ..criteria import Scores, normalised
from ..exact.flow import unit_positions
from ..groups import Group
from .elimination import Problem, elimination_scores

Array = np.ndarray[Any, Any]
DAMPING = 1e-4  # of the mean variance; what it adds to the cost of inputs that are always off must stay small


@dataclass(frozen=True, eq=False)
class Consumer:
    """A linear operator that sums over the units of a class; [units, m]: its columns that belong to each."""

    linear: Linear
    columns: Array

    @property
    def memory(self) -> int:
        depth = self.linear.shape[2]
        return 3 * depth * depth * 8


def consumers_of(module: Module, axes: Axes, c: AxisClass) -> list[Consumer]:
    """The consumers of a class in the main graph whose units occupy equally many columns. Grouped ones have none."""
    found = []
    for name in dict.fromkeys(s.constant for s in c.sites):
        value = module.constants[name]
        types = axes.of(value)
        for op in value.users:
            linear = linear_of(op)
            if linear is None or linear.weight is not value or linear.groups > 1 or op.parent is not module.graph:
                continue
            assert types is not None
            units = axes.units(types[linear.input_axis], c)
            if (units >= 0).any():
                positions = unit_positions(units)
                columns = (positions[:, :, None] * linear.taps + np.arange(linear.taps)).reshape(len(positions), -1)
                found.append(Consumer(linear, columns))
    return found


def data_scores(
    criterion: str, module: Module, axes: Axes, groups: Sequence[Group], ctx: Context
) -> tuple[dict[int, Scores], list[Group]]:
    """Scores of every group by id, and the groups that have no consumer that can be watched."""
    watched = {g.id: consumers_of(module, axes, g.axis_class) for g in groups}
    scores: dict[int, Scores] = {}
    seen = [g for g in groups if watched[g.id]]
    for part in runs(seen, lambda g: sum(c.memory for c in watched[g.id]), allowed(ctx.max_memory)):
        moments = _moments([c for g in part for c in watched[g.id]], module, ctx)
        for g in part:
            problems = [_problem(c, moments[c.linear.op.name]) for c in watched[g.id]]
            scores[g.id] = DATA_CRITERIA[criterion](problems, g.size)
            if ctx.progress is not None:
                ctx.progress.advance("groups scored", len(scores), len(seen))
    return scores, [g for g in groups if not watched[g.id]]


def _moments(consumers: Sequence[Consumer], module: Module, ctx: Context) -> dict[str, CrossMoments]:
    samples, runner = sources(ctx)
    linears = {c.linear.op.name: c.linear for c in consumers}
    found = {name: CrossMoments() for name in linears}
    run = runner.prepare(module, tuple(dict.fromkeys(x.data.name for x in linears.values())))
    rng = ctx.rng("saliency", *linears)
    batch = batch_size(ctx, module)
    for (values,) in stream(samples, batch, [run], ctx.progress):
        for name, linear in linears.items():
            data = values[linear.data.name]
            rows = rows_per_sample(linear.shape[2], len(samples)) * batch
            x = linear.rows(data, pick(rng, linear.count(data), rows))
            found[name].update(x, np.zeros((*x.shape[:2], 0), np.float32))
    return found


def _problem(consumer: Consumer, moments: CrossMoments) -> Problem:
    weight = consumer.linear.weight.constant
    assert weight is not None
    return Problem(consumer.linear.matrix(weight.array())[0], moments.covariance[0], consumer.columns)


def activation(problems: Sequence[Problem], units: int) -> Scores:
    total = np.zeros(units)
    for p in problems:
        energy = np.diag(p.moments)[p.columns].sum(axis=1)
        norms = np.square(p.weight, dtype=np.float64).sum(axis=0)[p.columns].sum(axis=1)
        total += normalised(np.sqrt(energy * norms))
    return normalised(total)


def redundancy(problems: Sequence[Problem], units: int) -> Scores:
    from scipy import linalg  # slow to import; most runs need none of it

    total = np.zeros(units)
    for p in problems:
        unexplained = 1.0 / np.diag(linalg.inv(p.damped(DAMPING), check_finite=False))
        total += (unexplained[p.columns] * np.square(p.weight, dtype=np.float64).sum(axis=0)[p.columns]).sum(axis=1)
    return normalised(np.sqrt(total))


def obs(problems: Sequence[Problem], units: int) -> Scores:
    return elimination_scores(problems, units, DAMPING)


DataCriterion = Callable[[Sequence[Problem], int], Scores]
DATA_CRITERIA: Mapping[str, DataCriterion] = {"obs": obs, "activation": activation, "redundancy": redundancy}
