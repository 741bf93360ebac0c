"""The choice of forms: fastest within a budget that holds on what is measured, few questions, honest notes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mlc.passes.ports import Form
from mlc.passes.quantize.choice import Choice, Option, choose, prices

FORMS: tuple[Form, ...] = ("static", "dynamic", "stored", "float")


class World:
    """Sites with known damages; counts what is asked. `joint` turns the sum of damages into what is measured."""

    def __init__(
        self, seed: int, sites: int = 6, *, joint: Callable[[float], float] = lambda total: total, known: bool = True
    ) -> None:
        rng = np.random.default_rng(seed)
        self.seconds = np.exp(rng.normal(size=(sites, 1))) * np.array([0.35, 0.5, 1.0, 1.0])
        self.damage = np.exp(rng.normal(size=(sites, 1)) - 6) * np.array([1.0, 0.8, 0.3, 0.0])
        nbytes = rng.integers(1000, 9000, (sites, 1)) * np.array([1, 1, 1, 4])
        self.options = [
            [Option(form, float(s) if known else None, int(b)) for form, s, b in zip(FORMS, times, sizes)]
            for times, sizes in zip(self.seconds, nbytes)
        ]
        self.joint = joint
        self.asked: list[tuple[int, int]] = []
        self.measured = 0
        self.seen: set[tuple[int, ...]] = set()

    def alone(self, site: int, option: int) -> float:
        self.asked.append((site, option))
        return float(self.damage[site, option])

    def together(self, picked: Sequence[int]) -> float:
        self.measured += 1
        self.seen.add(tuple(picked))
        return self.joint(float(sum(row[j] for row, j in zip(self.damage, picked))))

    def choose(self, budget: float) -> Choice:
        return choose(self.options, budget, self.together, self.alone)

    def time(self, picked: Sequence[int]) -> float:
        return float(sum(row[j] for row, j in zip(self.seconds, picked)))


def test_the_fastest_forms_are_measured_once_when_they_do_little() -> None:
    world = World(0)
    found = world.choose(1.0)
    assert found.picked == (0,) * 6
    assert (world.measured, world.asked, found.notes) == (1, [], ())
    assert found.damage == pytest.approx(world.damage[:, 0].sum())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_within_the_budget_nothing_is_faster(seed: int, share: float) -> None:
    world = World(seed, 5)
    budget = share * float(world.damage[:, 0].sum())
    found = world.choose(budget)
    assert found.damage <= budget
    values, _ = prices(world.options)
    best = min(
        sum(row[j] for row, j in zip(values, picked))
        for picked in itertools.product(range(4), repeat=5)
        if sum(row[j] for row, j in zip(world.damage, picked)) <= budget
    )
    assert sum(row[j] for row, j in zip(values, found.picked)) == pytest.approx(best)
    assert len(set(world.asked)) == len(world.asked), "a site is measured once"
    assert all(world.options[i][j].form != "float" for i, j in world.asked)
    assert "got a slower one" in found.notes[-1]


@pytest.mark.parametrize("joint", [lambda t: 3 * t, lambda t: t + 0.3 * math.sqrt(t) * 0.1, lambda t: 0.5 * t])
def test_the_budget_holds_on_what_is_measured(joint: Callable[[float], float]) -> None:
    """Sums of damages may be wrong: what counts is the measurement of all sites together."""
    for seed in range(6):
        world = World(seed, joint=joint)
        budget = 0.4 * world.joint(float(world.damage[:, 0].sum()))
        found = world.choose(budget)
        assert found.damage == world.together(found.picked) <= budget
        assert world.time(found.picked) < world.time((3,) * 6)


def test_nothing_is_done_when_nothing_is_allowed() -> None:
    world = World(1, joint=lambda total: 0.5 if total else 0.0)
    found = world.choose(1e-3)
    assert found.picked == (3,) * 6
    assert found.damage == 0.0
    assert world.measured == len(world.seen), "the same forms are not measured again"


@pytest.mark.parametrize("budget", [0.0, 1e-3])
def test_no_sites(budget: float) -> None:
    assert choose([], budget, lambda picked: 0.0, lambda i, j: 1.0) == Choice((), 0.0)


def test_a_budget_of_nothing_takes_what_does_nothing() -> None:
    world = World(3)
    world.damage[2] = 0.0
    assert world.choose(0.0).picked == tuple(0 if site == 2 else 3 for site in range(6))


def test_damage_that_is_no_number_is_too_much() -> None:
    world = World(3, joint=lambda total: math.nan if total else 0.0)
    assert world.choose(0.1).picked == (3,) * 6


def test_stored_weights_are_preferred_to_floats_of_equal_speed() -> None:
    options = [[Option("stored", 1.0, 1000), Option("float", 1.0, 4000)]] * 2
    assert choose(options, 0.1, lambda p: 0.0, lambda i, j: 0.0).picked == (0, 0)


def test_unknown_times_are_assumed_and_noted() -> None:
    world = World(2, known=False)
    found = world.choose(0.5 * float(world.damage[:, 0].sum()))
    assert "no times for 6 of 6 sites" in found.notes[0]
    some = World(2)
    some.options[3] = [Option(o.form, None, o.nbytes) for o in some.options[3]]
    values, notes = prices(some.options)
    assert "no times for 1 of 6 sites" in notes[0]
    assert values[3][0] < values[3][1] < values[3][2] < values[3][3]
    assert prices(World(2).options)[1] == ()


def test_equal_measurements_give_equal_choices() -> None:
    assert World(4).choose(1e-3) == World(4).choose(1e-3)
