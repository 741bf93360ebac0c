"""The allocator: equal to brute force, golden instances, budgets kept to the last bit, infeasible ones refused."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlc.ir.errors import Code, MlcError
from mlc.passes.quantize.allocate import Allocation, allocate

# HAWQ-V3 on ResNet18 (Yao et al. 2021, and its code): parameters, average Hessian traces, |dW|^2 at 8 and 4 bits.
PARAMETERS = [36864] * 4 + [73728, 147456, 8192, 147456, 147456, 294912, 589824, 32768, 589824, 589824]
PARAMETERS += [1179648, 2359296, 131072, 2359296, 2359296]
TRACES = [
    6.857826, 3.162379, 3.298575, 1.205663, 2.222431, 0.596336, 6.931772, 0.807129, 0.372905, 0.530698,
    0.209011, 0.737569, 0.210454, 0.151197, 0.158041, 0.078146, 0.451841, 0.098745, 0.072944,
]  # fmt: skip
AT_8 = [
    0.0235, 0.0125, 0.0102, 0.0082, 0.0145, 0.0344, 0.0023, 0.0287, 0.0148, 0.0333, 0.0682, 0.0027, 0.0448, 0.0336,
    0.0576, 0.1130, 0.0102, 0.0947, 0.0532,
]  # fmt: skip
AT_4 = [
    6.7430, 3.9691, 3.3281, 2.6796, 4.7277, 10.5966, 0.6827, 9.0942, 4.8857, 10.7599, 21.7546, 0.8603, 14.5324,
    10.9651, 18.7706, 36.4044, 3.1572, 29.6994, 17.4016,
]  # fmt: skip
MACS = [57.802752 if i in (4, 9, 14) else 6.422528 if i in (6, 11, 16) else 115.605504 for i in range(19)]
TIED = [(4, 6), (9, 11), (14, 16)]

VALUES = [[t * 1e-2 * four, t * 1e-2 * eight] for t, four, eight in zip(TRACES, AT_4, AT_8)]
COSTS = {
    "size": [[0.5 * p / 2**20, 1.0 * p / 2**20] for p in PARAMETERS],
    "bops": [[m / 64, m / 16] for m in MACS],
}


def spans(*ranges: tuple[int, int]) -> set[int]:
    return {i for a, b in ranges for i in range(a, b + 1)}


@pytest.mark.parametrize(
    ("limit", "share", "optimum", "eight"),
    [
        ("size", 0.25, 0.11830, spans((0, 13))),
        ("size", 0.50, 0.07451, spans((0, 14), (16, 16))),
        ("size", 0.75, 0.03344, spans((0, 12), (14, 17))),
        ("bops", 0.25, 0.46042, {0, 1, 2, 4, 6}),
        ("bops", 0.50, 0.21569, {0, 1, 2, 4, 5, 6, 7, 9, 10, 11}),
        ("bops", 0.75, 0.07996, spans((0, 7), (9, 12), (14, 14), (16, 17))),
    ],
)
def test_published_instance(limit: str, share: float, optimum: float, eight: set[int]) -> None:
    costs = COSTS[limit]
    low, high = (sum(row[j] for row in costs) for j in (0, 1))
    found = allocate(costs, VALUES, low + share * (high - low), TIED)
    assert found.value == pytest.approx(optimum, abs=6e-6)
    assert {i for i, j in enumerate(found.options) if j == 1} == eight
    assert found.exact


def test_the_ends_of_the_published_instance() -> None:
    costs = COSTS["size"]
    low, high = (sum(row[j] for row in costs) for j in (0, 1))
    assert allocate(costs, VALUES, low, TIED).value == pytest.approx(1.30771, abs=6e-6)
    assert allocate(costs, VALUES, high, TIED).value == pytest.approx(0.004258, abs=6e-7)
    assert allocate(costs, VALUES, math.inf, TIED).options == (1,) * 19


def brute_force(costs: list[list[float]], values: list[list[float]], budget: float, tied: list[list[int]]) -> float:
    best = math.inf
    for options in itertools.product(*(range(len(row)) for row in costs)):
        if all(len({options[i] for i in group}) == 1 for group in tied):
            cost = sum(row[j] for row, j in zip(costs, options))
            if cost <= budget:
                best = min(best, sum(row[j] for row, j in zip(values, options)))
    return best


@pytest.mark.parametrize("seed", range(120))
def test_equal_to_brute_force(seed: int) -> None:
    """Damages and sizes of very different magnitude among them, as real models have."""
    rng = np.random.default_rng(seed)
    items, options = int(rng.integers(1, 8)), int(rng.integers(2, 5))
    spread = (0.5, 3.0)[seed % 2]
    costs = np.exp(spread * rng.normal(size=(items, options))).tolist()
    values = np.exp(spread * rng.normal(size=(items, options)) - 6).tolist()
    if seed % 3 == 0:
        costs = [[float(round(100 * c)) for c in row] for row in costs]
    tied = [[0, items - 1]] if items > 2 and seed % 4 == 0 else []
    low, high = (sum(f(row) for row in costs) for f in (min, max))
    budget = low + float(rng.uniform(0, 1)) * (high - low)
    wanted = brute_force(costs, values, budget, tied)
    if wanted == math.inf:
        with pytest.raises(MlcError, match="the least is"):
            allocate(costs, values, budget, tied)
        return
    found = allocate(costs, values, budget, tied)
    assert found.value == pytest.approx(wanted, rel=1e-9)
    assert found.cost <= budget * (1 + 1e-12)
    assert found == allocate(costs, values, budget, tied)


rows = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(table=st.lists(rows, min_size=1, max_size=6), budgets=st.tuples(st.integers(0, 200), st.integers(0, 200)))
def test_more_budget_is_never_worse(table: list[list[tuple[int, int]]], budgets: tuple[int, int]) -> None:
    costs, values = ([[float(o[k]) for o in row] for row in table] for k in (0, 1))
    low, high = sorted(budgets)
    assume(low >= sum(min(row) for row in costs))
    small, large = allocate(costs, values, low), allocate(costs, values, high)
    assert large.value <= small.value
    assert small.value == brute_force(costs, values, low, [])


def test_a_budget_of_bytes_is_kept_to_the_byte() -> None:
    """Solvers are content with a millionth: the budget is not."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(1_000_000, 9_000_000, 12)
    costs = [[float(s // 2), float(s)] for s in sizes]
    values = [[float(v), 0.0] for v in rng.uniform(0.5, 1, 12) * sizes / 1e6]
    subset = [0, 3, 4, 7, 9]
    exactly = sum(costs[i][1 if i in subset else 0] for i in range(12))
    for budget in (exactly, exactly - 1):
        found = allocate(costs, values, budget)
        assert found.cost <= budget
        assert found.value == pytest.approx(brute_force(costs, values, budget, []))


def dynamic_programme(costs: np.ndarray, values: np.ndarray, budget: int) -> float:
    """The least value for every whole cost up to the budget, item by item."""
    best = np.zeros(budget + 1)
    for cost, value in zip(costs, values):
        rows = [np.concatenate([np.full(c, math.inf), best[: budget + 1 - c]]) + v for c, v in zip(cost, value)]
        best = np.min(rows, axis=0)
    return float(best[-1])


@pytest.mark.parametrize("seed", range(4))
def test_many_items(seed: int) -> None:
    """Bits of 120 layers; damages fall fourfold a bit and differ by orders of magnitude between layers."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(5, 200, 120)
    costs = np.stack([blocks * bits for bits in (2, 3, 4, 8)], axis=1)
    values = np.exp(2 * rng.normal(size=(120, 1))) * 4.0 ** -np.array([2, 3, 4, 8])
    budget = int(3.7 * blocks.sum())
    found = allocate(costs.tolist(), values.tolist(), budget)
    assert found.exact
    assert found.cost <= budget
    assert found.value == pytest.approx(dynamic_programme(costs, values, budget), rel=1e-9)


def test_small_damages_count_beside_large_ones() -> None:
    """One hopeless layer does not make the choice among the others arbitrary."""
    rng = np.random.default_rng(0)
    values = [[1.0, 0.9]] + [[float(v), 0.0] for v in rng.uniform(1e-8, 2e-8, 14)]
    costs = [[0.0, 9.0]] + [[0.0, float(c)] for c in rng.uniform(0.5, 1.5, 14)]
    for budget in (2.3, 4.1, 5.7):
        assert allocate(costs, values, budget).value == pytest.approx(brute_force(costs, values, budget, []), rel=1e-12)


@pytest.mark.parametrize("seed", [1, 4, 9, 11, 70])
def test_a_tiny_excess_is_an_excess(seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Budgets a hair below what a set of layers takes: the solver's tolerance would let it through."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.5, 1, 15)
    subset = rng.random(15) < 0.5
    costs = [[0.0, float(s)] for s in sizes]
    values = [[float(s * (1 + 1e-3 * rng.random())), 0.0] for s in sizes]
    budget = float(sizes[subset].sum()) - 1e-8
    found = allocate(costs, values, budget)
    assert found.exact
    assert found.cost <= budget
    assert found.value == pytest.approx(brute_force(costs, values, budget, []), rel=1e-12)
    assert capfd.readouterr().out == "", "stdout is for results"


def test_what_cannot_be_had() -> None:
    with pytest.raises(MlcError) as caught:
        allocate([[2.0, 3.0], [1.0, 5.0]], [[1.0, 0.0], [1.0, 0.0]], 2.5)
    assert caught.value.diagnostics[0].code is Code.CANNOT_HONOUR
    assert "the least is 3" in str(caught.value)
    assert allocate([[0.0, 1.0]], [[math.inf, 2.0]], 5).options == (1,)
    with pytest.raises(MlcError, match="no option"):
        allocate([[0.0]], [[math.inf]], 5)
    with pytest.raises(MlcError, match="the least is 1"):
        allocate([[0.0, 1.0]], [[math.inf, 2.0]], 0.5)
    assert allocate([], [], 0) == Allocation((), 0.0, 0.0)


def test_dominated_options_and_zero_values() -> None:
    assert allocate([[1.0, 1.0, 2.0]], [[3.0, 3.0, 3.0]], 9).options == (0,)
    assert allocate([[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], 0).options == (0, 0)
    assert allocate([[0.0, 2.0], [0.0, 2.0]], [[1.0, 0.0], [3.0, 0.0]], 2).options == (0, 1)


def test_chains_of_ties_are_one_group() -> None:
    costs, values = [[0.0, 1.0]] * 4, [[1.0, 0.0]] * 4
    assert allocate(costs, values, 3, [(0, 1), (1, 2)]).options in ((1, 1, 1, 0),)
    assert allocate(costs, values, 2, [(0, 1), (1, 2)]).options == (0, 0, 0, 1)


@pytest.mark.skipif(os.name != "posix", reason="asks the C library of the process")
def test_what_c_prints_does_not_reach_stdout() -> None:
    """Not even later: into a file or pipe, the C library writes when its buffer is full or the process ends."""
    code = (
        "import ctypes; from mlc.passes.quantize.allocate import _stdout_kept\n"
        "print('before')\n"
        "with _stdout_kept(): ctypes.CDLL(None).puts(b'solver')\n"
        "print('after')"
    )
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=buffered)
    assert done.stdout == "before\nafter\n"
    assert done.stderr == ""
