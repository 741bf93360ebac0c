"""Multiple-choice knapsack, solved exactly: one option for every item, least value, within a budget.

    minimise  sum of values[i][j_i]   subject to   sum of costs[i][j_i] <= budget

What mixed precision allots: bits to layers (value: damage, cost: bytes; HAWQ-V3, Yao et al. 2021, sec. 3.4) and forms
to operators (value: seconds, cost: damage). The mixed-integer program is given to HiGHS, without a gap.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir import errors
from ...ir.errors import Code

Array = np.ndarray[Any, Any]
Table = Sequence[Sequence[float]]

_LARGEST = 1e5  # that objective coefficients are scaled to: HiGHS stops within 1e-6 of the optimum
_NODES = 200_000  # of branch and bound: minutes at most, and the same on every machine
_TOLERANCE = 1e-6  # by which HiGHS may exceed the budget, in units of the largest cost
_CUTS = 16  # solutions within that tolerance that are forbidden one by one before the budget is tightened
_ROUNDING = 1e-12  # of the budget: sums of floats are compared


@dataclass(frozen=True)
class Allocation:
    """The option of every item, their total value and cost; `exact`: nothing has less value within the budget."""

    options: tuple[int, ...]
    value: float
    cost: float
    exact: bool = True


def allocate(costs: Table, values: Table, budget: float, tied: Sequence[Sequence[int]] = ()) -> Allocation:
    """One option for every item: least total value with total cost at most `budget`.

    `costs[i][j]` and `values[i][j]` are those of option j of item i; items may have different numbers of options. An
    option that cannot be had has value or cost infinity. Items of a group of `tied` take the same option. Equal inputs
    give equal results, and options that are no better than a cheaper one are never taken. Errors: CANNOT_HONOUR
    stating the least cost there is, when the budget is below it.
    """
    groups = _groups(len(costs), tied)
    problem = [_item([costs[i] for i in group], [values[i] for i in group]) for group in groups]
    least = sum(float(item.cost[0]) for item in problem)
    if not least <= _room(budget):
        raise errors.error(
            Code.CANNOT_HONOUR,
            f"no choice costs at most {budget:g}: the least is {least:g}",
            help="allow more, or offer cheaper options",
        )
    picked, exact = _solve(problem, budget)
    options = [0] * len(costs)
    for group, item, at in zip(groups, problem, picked):
        for member in group:
            options[member] = int(item.option[at])
    return Allocation(tuple(options), _total(values, options), _total(costs, options), exact)


@dataclass(frozen=True)
class _Item:
    """Options on the lower hull of dominance: cost rises, value falls."""

    option: Array
    cost: Array
    value: Array


def _groups(items: int, tied: Sequence[Sequence[int]]) -> list[list[int]]:
    """Every item once: the tied ones together, in the order of their first members."""
    home = {i: i for i in range(items)}
    for group in tied:
        first = min(home[i] for i in group)
        joined = {home[i] for i in group}
        home = {i: first if at in joined else at for i, at in home.items()}
    found: dict[int, list[int]] = {}
    for i in range(items):
        found.setdefault(home[i], []).append(i)
    return list(found.values())


def _item(costs: Table, values: Table) -> _Item:
    """One item of tied ones: sums by option, without the options that a cheaper one is as good as."""
    assert len({*map(len, costs), *map(len, values)}) == 1, "tied items have the same options"
    cost, value = np.sum(np.asarray(costs, np.float64), axis=0), np.sum(np.asarray(values, np.float64), axis=0)
    kept: list[int] = []
    for at in np.lexsort((np.arange(cost.size), value, cost)):
        if math.isfinite(cost[at]) and math.isfinite(value[at]) and (not kept or value[at] < value[kept[-1]]):
            kept.append(int(at))
    if not kept:
        raise errors.error(Code.CANNOT_HONOUR, "an item has no option that can be had", help="offer one more form")
    return _Item(np.array(kept), cost[kept], value[kept])


def _solve(problem: Sequence[_Item], budget: float) -> tuple[list[int], bool]:
    """The position of every item's choice among its options, and whether it is proven to be the best."""
    richest = [item.option.size - 1 for item in problem]
    if sum(float(item.cost[-1]) for item in problem) <= _room(budget):
        return richest, True
    cuts: list[list[int]] = []
    for attempt in range(_CUTS + 1):
        careful = attempt == _CUTS
        picked, exact = _milp(problem, budget, cuts, _TOLERANCE if careful else 0.0)
        spent = sum(float(item.cost[at]) for item, at in zip(problem, picked))
        if spent <= _room(budget):
            return picked, exact and not careful
        cuts.append(picked)
    return [0] * len(problem), False


def _milp(
    problem: Sequence[_Item], budget: float, cuts: Sequence[Sequence[int]], reserve: float
) -> tuple[list[int], bool]:
    """The best choice but those in `cuts`; `reserve` is kept of the budget, in units of the largest cost."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    sizes = [item.option.size for item in problem]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    spare = np.concatenate([item.cost - item.cost[0] for item in problem])  # beyond the cheapest choice
    worth = np.concatenate([item.value - item.value[-1] for item in problem])
    room = budget - sum(float(item.cost[0]) for item in problem)
    unit = max(float(spare.max()), 1e-300)
    columns = np.arange(starts[-1])
    one_each = csr_array((np.ones(starts[-1]), columns, starts), shape=(len(problem), starts[-1]))
    limits = [
        LinearConstraint(one_each, 1, 1),
        LinearConstraint(csr_array((spare / unit)[None]), -np.inf, room / unit - reserve),
    ]
    for cut in cuts:
        chosen = np.isin(columns, starts[:-1] + cut).astype(np.float64)
        limits.append(LinearConstraint(csr_array(chosen[None]), -np.inf, len(problem) - 1))
    with _stdout_kept():
        found = milp(
            worth * (_LARGEST / max(float(worth.max()), 1e-300)),
            integrality=np.ones(starts[-1]),
            bounds=Bounds(0, 1),
            constraints=limits,
            options={"mip_rel_gap": 0.0, "node_limit": _NODES},
        )
    if found.x is None:
        return [0] * len(problem), False
    picked = [int(found.x[a:b].argmax()) for a, b in itertools.pairwise(starts)]
    return picked, found.status == 0


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Drop what the solver prints, from C and whatever it was told: stdout may carry JSON."""
    sys.stdout.flush()
    _flush_c()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
        _flush_c()  # what C still holds would come out later
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _flush_c() -> None:
    """Write out what the C library holds back, where it can be asked to."""
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)


def _room(budget: float) -> float:
    return budget + abs(budget) * _ROUNDING


def _total(table: Table, options: Sequence[int]) -> float:
    return float(sum(row[at] for row, at in zip(table, options)))
