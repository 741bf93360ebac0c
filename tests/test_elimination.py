"""Backward elimination on least squares: its costs are those of fitting again without the unit."""

from __future__ import annotations

import numpy as np
import pytest

from mlc.passes.prune.fit.elimination import Problem, elimination_scores


def problem(seed, units=6, m=2, outputs=3, others=0):
    rng = np.random.default_rng(seed)
    depth = units * m + others
    basis = rng.standard_normal((200, depth)) @ rng.standard_normal((depth, depth))
    columns = rng.permutation(depth)[: units * m].reshape(units, m)
    return Problem(rng.standard_normal((outputs, depth)), basis.T @ basis / 200, columns)


def refit_error(p: Problem, damped, gone) -> float:
    """tr(W H W^T) that is lost when the best weights on the other columns take over; direct."""
    keep = np.setdiff1d(np.arange(p.weight.shape[1]), p.columns[gone].ravel())
    whole = np.einsum("od,de,oe->", p.weight, damped, p.weight)
    if not len(keep):
        return float(whole)
    cross = p.weight @ damped[:, keep]
    return float(whole - np.einsum("ok,ko->", cross, np.linalg.solve(damped[np.ix_(keep, keep)], cross.T)))


@pytest.mark.parametrize("others", [0, 4])
@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_greedy_elimination_with_refits(seed, m, others):
    """`others`: columns of no unit, which make up for units and never leave."""
    p = problem(seed, m=m, others=others)
    damped = p.damped(1e-2)
    scores = elimination_scores([p], 6, 1e-2)
    energy = np.einsum("od,de,oe->", p.weight, p.moments, p.weight)
    gone: list[int] = []
    for unit in np.argsort(scores, kind="stable"):
        alive = [u for u in range(6) if u not in gone]
        costs = [refit_error(p, damped, [*gone, u]) for u in alive]
        assert unit == alive[int(np.argmin(costs))]
        assert scores[unit] == pytest.approx(min(costs) / energy, rel=1e-6)
        gone.append(int(unit))


def test_a_unit_that_others_reproduce_costs_little_and_goes_first():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 5))
    x[:, 3] = x[:, 0] - 2 * x[:, 1]
    p = Problem(np.full((2, 5), 10.0), x.T @ x / 500, np.arange(5)[:, None])
    scores = elimination_scores([p], 5, 1e-6)
    assert np.argmin(scores) in (0, 1, 3)
    assert scores.min() < 1e-4 < np.sort(scores)[1]


def test_several_consumers_add_up_relative_to_their_energy():
    a, b = problem(1), problem(2)
    loud = Problem(b.weight * 1e3, b.moments, b.columns)
    np.testing.assert_allclose(elimination_scores([a, b], 6, 1e-2), elimination_scores([a, loud], 6, 1e-2), rtol=1e-8)
    assert elimination_scores([a, a], 6, 1e-2).max() == pytest.approx(2 * elimination_scores([a], 6, 1e-2).max())


def test_dead_inputs_do_not_break_it():
    p = problem(3)
    moments = p.moments.copy()
    moments[p.columns[2]] = 0
    moments[:, p.columns[2]] = 0
    scores = elimination_scores([Problem(p.weight, moments, p.columns)], 6, 1e-2)
    assert np.isfinite(scores).all()
    assert np.isfinite(elimination_scores([Problem(p.weight, moments * 0, p.columns)], 6, 1e-2)).all()


@pytest.mark.parametrize("units", [300, 129])
def test_of_many_units_several_leave_together(units):
    """Inputs that say nothing of each other: every unit costs its own share, whoever left before or with it."""
    p = problem(4, units=units, others=3)
    energies = np.random.default_rng(5).random(len(p.moments)) + 0.1
    lone = Problem(p.weight, np.diag(energies), p.columns)
    damped = energies + 1e-2 * energies.mean()
    shares = (np.square(p.weight).sum(axis=0) * damped)[p.columns].sum(axis=1)
    shares /= float((np.square(p.weight).sum(axis=0) * energies).sum())
    scores, order = elimination_scores([lone], units, 1e-2), np.argsort(shares)
    np.testing.assert_allclose(scores[order], np.cumsum(shares[order]), rtol=1e-9)
