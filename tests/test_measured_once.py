"""What trials ask of a model again is not measured again, and the answer is that of a first trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kit.two_layers import samples, two_layers

import mlc
from mlc.backends.runner import OrtRunner
from mlc.ir.core import Module
from mlc.passes import Int8, Prune
from mlc.passes.base import Context, Pass
from mlc.passes.ports import Array, Executable, Feeds
from mlc.passes.statistics import StreamingStatistics, version


@dataclass
class Counting:
    """Runs models in ONNX Runtime and counts the runs."""

    runner: OrtRunner = field(default_factory=OrtRunner)
    runs: int = 0

    def prepare(self, module: Module, taps: Sequence[str] = ()) -> Executable:
        return _Counted(self, self.runner.prepare(module, taps))


@dataclass
class _Counted:
    owner: Counting
    executable: Executable

    def run(self, feeds: Feeds) -> dict[str, Array]:
        self.owner.runs += 1
        return self.executable.run(feeds)


def context(folder: Path, source: Module) -> tuple[Context, Counting]:
    data, runner = mlc.open_data(samples(folder), source), Counting()
    return Context(data=data, runner=runner, stats=StreamingStatistics(data, runner)), runner


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Prune(ratio=0.25), Prune(ratio=0.5)),
        (Prune(ratio=0.5, criterion="redundancy"), Prune(ratio=0.75, criterion="redundancy")),
        (Int8(damage=1e-9), Int8(damage=1e-7)),
        (Int8(damage=0.02), Int8(damage=0.0002)),
    ],
    ids=str,
)
def test_a_second_trial_asks_less_and_finds_the_same(tmp_path: Path, first: Pass, second: Pass) -> None:
    source = mlc.load(two_layers(tmp_path))
    shared, both = context(tmp_path, source)
    first(source, shared)
    before = both.runs
    again = second(source, shared)
    fresh, alone = context(tmp_path, source)
    assert version(again) == version(second(source, fresh))
    assert 0 <= both.runs - before < alone.runs


def test_other_questions_are_asked(tmp_path: Path) -> None:
    """Of another criterion, another model, other grids."""
    source = mlc.load(two_layers(tmp_path))
    shared, runner = context(tmp_path, source)
    pruned = Prune(ratio=0.5, reconstruct="off")(source, shared)
    for step, module in (
        (Prune(ratio=0.5, criterion="activation", reconstruct="off"), source),
        (Prune(ratio=0.5, reconstruct="off"), pruned),
        (Int8(mode="static", observer="minmax"), source),
        (Int8(mode="static", observer="percentile"), source),
        (Int8(damage=1e-9, observer="percentile", per_channel=False), source),
    ):
        before = runner.runs
        made = step(module, shared)
        assert runner.runs > before, str(step)
        fresh, _ = context(tmp_path, source)
        assert version(made) == version(step(module, fresh)), str(step)


def test_a_ratio_of_nothing_runs_nothing(tmp_path: Path) -> None:
    source = mlc.load(two_layers(tmp_path))
    shared, runner = context(tmp_path, source)
    for step in (Prune(ratio=0.0), Prune(ratio=0.0, allocation="global"), Prune(ratio=0.0, allocation="flops")):
        assert version(step(source, shared)) == version(source)
    assert runner.runs == 0
    Prune(ratio=0.0, overrides="fc1: 50%")(source, shared)
    assert runner.runs > 0


def test_a_budget_that_was_asked_for_before_runs_nothing(tmp_path: Path) -> None:
    source = mlc.load(two_layers(tmp_path))
    shared, runner = context(tmp_path, source)
    first = Int8(damage=1e-7)(source, shared)
    Int8(damage=1e-9)(source, shared)
    before = runner.runs
    assert version(Int8(damage=1e-7)(source, shared)) == version(first)
    assert runner.runs == before
