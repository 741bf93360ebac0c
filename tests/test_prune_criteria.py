"""Criteria by weights against their definitions, on units whose consumer holds other units as well."""

from __future__ import annotations

import numpy as np
import pytest
from kit.layers import Layers

from mlc.ir.axes import analyse
from mlc.ir.dtypes import DType
from mlc.passes.prune.criteria import CRITERIA


def joined():
    """Two layers whose units lie side by side in the input of a third; (module, class of the first, its slices)."""
    net = Layers(3)
    x = net.input("x", DType.F32, "N", 12)
    made = [net.relu(net.op("MatMul", [x, net.weight(12, 16)])) for _ in range(2)]
    module = net.done(net.op("MatMul", [net.op("Concat", made, attrs={"axis": 1}), net.weight(32, 5)]))
    first, _, last = (op.operand(1) for op in module.graph.ops if op.kind == "MatMul")
    axes = analyse(module)
    (c,) = [k for k in axes.classes if any(s.constant == first.name and s.axis == 1 for s in k.sites)]
    return module, axes, c, (first.constant.array().T, last.constant.array()[:16])


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
def test_norms_weigh_sites_alike(name, power):
    module, axes, c, slices = joined()
    norms = [np.linalg.norm(s.astype(np.float64), power, axis=1) for s in slices]
    wanted = np.mean([n / n.mean() for n in norms], axis=0)
    got = CRITERIA[name](module, axes, c, np.random.default_rng(0))
    np.testing.assert_allclose(got, wanted / wanted.mean(), rtol=1e-6)


def test_fpgm_is_the_distance_from_all_others():
    module, axes, c, slices = joined()
    scaled = np.hstack([s / np.linalg.norm(s.astype(np.float64), axis=1).mean() for s in slices])
    wanted = np.linalg.norm(scaled[:, None] - scaled[None], axis=2).sum(axis=1)
    got = CRITERIA["fpgm"](module, axes, c, np.random.default_rng(0))
    np.testing.assert_allclose(got, wanted / wanted.mean(), rtol=1e-5)
