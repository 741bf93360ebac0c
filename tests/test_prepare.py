"""What rounding and scaling passes fold first: the same in a plan and in its application, scopes kept, never silent."""

from __future__ import annotations

import numpy as np
import pytest
from kit.net import Net
from kit.nets import NETS

from mlc.backends.ort import Session
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.rewrite import Rewriter
from mlc.ir.text import print_module
from mlc.ir.verify import verify
from mlc.passes.base import Context, Scope
from mlc.passes.quantize.prepare import Prepared, prepare


def floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def normalized() -> Module:
    """Two convolutions, a batch normalization behind each."""
    net = Net()
    x = net.input("x", DType.F32, "N", 3, 8, 8)
    for index in range(2):
        x = net.op("Conv", [x, net.const(floats(index, 3, 3, 3, 3))])
        statistics = [net.const(floats(i, 3)) for i in (7, 8, 9)]
        x = net.op("BatchNormalization", [x, *statistics, net.const(np.abs(floats(10, 3)) + 1)])
    return net.done(x)


@pytest.mark.parametrize("name", NETS)
def test_a_plan_sees_what_its_application_makes(name: str) -> None:
    module, feeds = NETS[name]()
    before = print_module(module)
    planned = Prepared.of(module, Context(), by="int8")
    assert print_module(module) == before
    applied = module.clone()
    prepare(Rewriter(applied, by="int8"), Context())
    assert print_module(applied) == print_module(planned.module)
    verify(applied)
    found = Session(applied, optimize=False).run(feeds)
    for output, wanted in Session(module, optimize=False).run(feeds).items():
        np.testing.assert_allclose(found[output], wanted, rtol=1e-3, atol=1e-4)
    again = Prepared.of(planned.module, Context(), by="int8")
    assert not again.notes


def test_batch_normalizations_are_folded_and_it_says_so() -> None:
    prepared = Prepared.of(normalized(), Context(), by="int8")
    assert [op.kind for op in prepared.module.walk()] == ["Conv", "Conv"]
    assert prepared.notes == ("folded first, 4 -> 2 ops: fold-affine x2",)


def test_what_replaces_an_op_is_in_the_scope_of_that_op() -> None:
    module = normalized()
    first, norm, second, last = (op.name for op in module.walk())
    on = Prepared.of(module, Context(scope=Scope(on=frozenset({first, norm}))), by="int8")
    assert [op.kind for op in on.module.walk()] == ["Conv", "Conv", "BatchNormalization"]
    assert [on.ctx.scope.allows(op) for op in on.module.walk()] == [True, False, False]
    but = Prepared.of(module, Context(scope=Scope(but=frozenset({second, last}))), by="int8")
    assert [but.ctx.scope.allows(op) for op in but.module.walk()] == [True, False, False]
    assert [but.ctx.scope.excludes(op) for op in but.module.walk()] == [False, True, True]
