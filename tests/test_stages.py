"""A chain of executables is the module: whole, and from any stage on; cuts are where few bytes cross."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from kit.layers import Layers
from kit.net import Net
from kit.nets import NETS
from kit.real import RealModel, real_models

from mlc.backends.runner import OrtRunner
from mlc.frontends.onnx import load
from mlc.ir.constants import Constant
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.passes.instruments import arrays
from mlc.passes.quantize import stages as unit
from mlc.passes.quantize.stages import Made, Stages

Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of tests are cut as often as real ones."""
    monkeypatch.setattr(unit, "_OPS", 1)


def chain(module: Module, most: int = 4, runner: Any = None) -> Stages:
    return Stages(module, runner or OrtRunner(), [v.name for v in module.graph.inputs], {"N": 1}, most)


def joined(made: Sequence[Made]) -> dict[str, Any]:
    return arrays({name: value for part in made for name, value in part.outputs.items()})


def later(made: Sequence[Made]) -> dict[str, Any]:
    return {name: (lambda a=a: a) for part in made for name, a in part.handed.items()}


def deep(depth: int = 8) -> tuple[Module, Arrays]:
    net = Layers()
    made = net.input("x", DType.F32, "N", 16)
    for _ in range(depth):
        made = net.op("Add", [made, net.op("Tanh", [net.linear(made, 16, 16)])])
    return net.done(made), {"x": np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)}


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_kind_of_network(name: str) -> None:
    """The outputs are those of the module, and again from each stage on with what those in front handed over."""
    module, feeds = NETS[name]()
    wanted = arrays(OrtRunner().prepare(module).run(feeds))
    stages = chain(module)
    made = list(stages.run(feeds))
    assert len(made) == len(stages)
    assert joined(made).keys() == wanted.keys()
    for key, value in joined(made).items():
        np.testing.assert_allclose(value, wanted[key], rtol=1e-4, atol=1e-5)
    for start in range(len(stages) + 1):
        again = list(stages.run(feeds, start, later(made[:start])))
        assert joined(again).keys() == joined(made[start:]).keys()
        for key, value in joined(again).items():
            assert np.array_equal(value, joined(made)[key], equal_nan=value.dtype.kind == "f")


def test_deep_networks_are_cut_into_even_parts() -> None:
    module, feeds = deep()
    stages = chain(module)
    assert len(stages) == 4
    handed = [sorted(part.handed) for part in stages.run(feeds)]
    assert [len(names) for names in handed] == [1, 1, 1, 0], "the sum crosses, and nothing beside it"
    assert len(chain(module, most=1)) == 1


def test_shallow_networks_are_one_executable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert len(chain(deep(3)[0])) == 1
    assert len(chain(deep(8)[0])) == 2


def test_what_is_large_crosses_no_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "_MOST_CROSSING", 16 * 4 - 1)
    assert len(chain(deep()[0])) == 1
    monkeypatch.setattr(unit, "_MOST_CROSSING", 16 * 4)
    assert len(chain(deep()[0])) == 4


class Noting:
    """The modules that were made ready."""

    def __init__(self) -> None:
        self.modules: list[Module] = []

    def prepare(self, module: Module, taps: Sequence[str] = ()) -> Any:
        self.modules.append(module)
        return OrtRunner().prepare(module, taps)


def test_every_weight_is_in_the_stage_that_reads_it() -> None:
    """Defaults, and what is computed from them, cross no cut; a run is from the first stage that reads what changed."""
    net = Net()
    x, switch = net.input("x", DType.F32, "N", 4), net.input("switch", DType.F32)
    made, names = x, []
    for index in range(4):
        w = net.input(f"w{index}", DType.F32, 4, 4)
        net.module.defaults[w.name] = Constant.of(np.eye(4, dtype=np.float32))
        names.append(w.name)
        made = net.op("MatMul", [made, net.op("Mul", [w, switch])])
    net.output(made, "y")
    runner = Noting()
    stages = Stages(net.module, runner, ["x"], {"N": 1}, 4)
    assert [[n for n in names if n in module.defaults] for module in runner.modules] == [[n] for n in names]
    assert [stages.first([name]) for name in names] == [0, 1, 2, 3]
    assert stages.first(["w3", "w2"]) == 2
    assert (stages.first(["switch"]), stages.first([])) == (0, 4)
    feeds = {"x": np.ones((2, 4), np.float32), "switch": np.array(2, np.float32)}
    whole = list(stages.run(feeds))
    changed = {**feeds, "w2": np.zeros((4, 4), np.float32)}
    (*_, end) = stages.run(changed, stages.first(["w2"]), later(whole))
    assert not end.outputs["y"].any()
    assert (whole[-1].outputs["y"] == 16).all()


@real_models("minilm", "ppocrv4_rec")
def test_real_models(model: RealModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    module, feeds = load(model.path), model.feeds(0)
    wanted = arrays(OrtRunner().prepare(module).run(feeds))
    stages = Stages(module, OrtRunner(), list(feeds), {}, 8)
    assert len(stages) > 4
    made = list(stages.run(feeds))
    for key, value in joined(made).items():
        np.testing.assert_allclose(value, wanted[key], rtol=1e-3, atol=1e-4)
    again = list(stages.run(feeds, 3, later(made[:3])))
    assert all(np.array_equal(value, joined(made)[key]) for key, value in joined(again).items())
