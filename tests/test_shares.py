"""Shares of damage by groups: right about who is guilty, frugal with questions, and never off by more than told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mlc.passes.quantize.shares import shares


class Suspects:
    """Damages that add up, as those of independent noise do; counts what is asked."""

    def __init__(self, damage: Sequence[float]) -> None:
        self.damage = np.array(damage, np.float64)
        self.asked = 0

    def measure(self, group: Sequence[int]) -> float:
        self.asked += 1
        return float(self.damage[list(group)].sum())

    def shares(self, tolerated: float) -> np.ndarray:
        found = shares(range(len(self.damage)), self.measure, tolerated)
        assert sorted(found) == list(range(len(self.damage)))
        return np.array([found[i] for i in range(len(self.damage))])


def test_one_of_many_is_found_with_few_questions() -> None:
    world = Suspects([0.0] * 128)
    world.damage[77] = 0.5
    assert np.array_equal(world.shares(0.01), world.damage)
    assert world.asked <= 1 + 4 * 4


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 64])
def test_all_of_them_are_found(count: int) -> None:
    world = Suspects(np.linspace(1, 2, count).tolist())
    assert np.allclose(world.shares(0.01), world.damage)
    assert world.asked <= max(1, round(1.7 * count))


def test_little_damage_is_one_question() -> None:
    world = Suspects([1e-5] * 50)
    assert np.allclose(world.shares(0.01), world.damage)
    assert world.asked == 1


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_and_no_share_is_off_by_more_than_is_tolerated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    world = Suspects(np.exp(rng.normal(-6, 2, int(rng.integers(1, 90)))).tolist())
    tolerated = float(rng.uniform(0, 1)) * float(world.damage.sum())
    found = world.shares(tolerated)
    assert found.sum() == pytest.approx(world.damage.sum())
    wrong = found != pytest.approx(world.damage)
    assert not wrong or np.abs(found - world.damage).max() <= tolerated


def test_noise_below_zero_is_no_damage() -> None:
    assert shares(["a", "b"], lambda group: -1e-9, 0.1) == {"a": 0.0, "b": 0.0}


def test_nobody() -> None:
    assert shares([], lambda group: 1.0, 0.1) == {}
