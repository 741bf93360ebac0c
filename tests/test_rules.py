"""Every rule of simplify, on random typed instances: it fires, outputs stay equal, nothing grows, and it ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import rules, rules_weights
from kit.graphs import feeds
from kit.rules_draw import INSTANCES, Draw, Generator

from mlc.backends.onnx import to_proto
from mlc.backends.ort import Session
from mlc.ir.cleanup import drop_dead
from mlc.ir.core import Module
from mlc.ir.rewrite import Rewriter
from mlc.ir.verify import verify
from mlc.passes.base import Context
from mlc.passes.rewrite.catalogue import RULES
from mlc.passes.rewrite.driver import Driver
from mlc.passes.rewrite.simplify import Simplify

#: Names of fresh nodes are longer than those of an instance's nodes, which are a few letters.
SLACK = 32

NAMES = tuple(dict.fromkeys(rule.name for rule in RULES))
CASES = [
    pytest.param(name, generator, id=f"{name}-{number}")
    for name, generators in INSTANCES.items()
    for number, generator in enumerate(generators)
]


def test_every_rule_has_instances() -> None:
    assert {rules.__name__, rules_weights.__name__} == {g.__module__ for found in INSTANCES.values() for g in found}
    assert set(NAMES) == set(INSTANCES)


def test_rules_of_one_name_say_the_same() -> None:
    for name in NAMES:
        same = [rule for rule in RULES if rule.name == name]
        assert len({(rule.doc, rule.asks, rule.exact) for rule in same}) == 1, name


@pytest.mark.parametrize(("name", "generator"), CASES)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_rule(name: str, generator: Generator, data: st.DataObject) -> None:
    before = generator(Draw(data.draw))
    verify(before)
    oracle = Oracle(before, seed=data.draw(st.integers(0, 99)))

    alone = before.clone()
    assert apply_rule(alone, name) > 0
    oracle.check(alone, exact=all(rule.exact for rule in RULES if rule.name == name))

    asked = any(rule.asks for rule in RULES if rule.name == name)
    whole = Simplify(fold_affine=asked)(before)
    oracle.check(whole, exact=False)
    assert Simplify(fold_affine=asked).plan(whole, Context()).rewrites == ()


def apply_rule(module: Module, name: str) -> int:
    """Apply the rules of one name until they do not fit any more; how often they did."""
    rw = Rewriter(module, by="test")
    driver = Driver(rw, [rule for rule in RULES if rule.name == name], lambda op: True)
    driver.settle()
    driver.close()
    drop_dead(rw)
    verify(module)
    return driver.tally[name].times if name in driver.tally else 0


class Oracle:
    """What a module says of itself and computes, to hold a rewritten one against."""

    def __init__(self, module: Module, seed: int) -> None:
        self.proto = to_proto(module)
        self.inputs = [(v.name, v.type) for v in module.graph.inputs]
        self.feeds = [feeds(module, seed=seed, sizes={"N": n}) for n in (2, 3)]
        session = Session(self.proto.SerializeToString(), optimize=False)
        self.outputs = [session.run(feed) for feed in self.feeds]

    def check(self, module: Module, *, exact: bool) -> None:
        """Same interface, equal outputs (bit for bit but for the sign of zero, if `exact`), and no larger file."""
        proto = to_proto(module)
        assert [(v.name, v.type) for v in module.graph.inputs] == self.inputs
        assert [str(o) for o in proto.graph.output] == [str(o) for o in self.proto.graph.output]
        assert proto.ByteSize() <= self.proto.ByteSize() + SLACK
        session = Session(proto.SerializeToString(), optimize=False)
        for feed, expected in zip(self.feeds, self.outputs):
            for key, got in session.run(feed).items():
                assert (got.dtype, got.shape) == (expected[key].dtype, expected[key].shape)
                if exact:
                    np.testing.assert_array_equal(got, expected[key])
                else:
                    np.testing.assert_allclose(got, expected[key], rtol=1e-4, atol=1e-5)
