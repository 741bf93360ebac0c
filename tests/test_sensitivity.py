"""`mlc inspect --sensitivity`: what few bits do to each site, as a table and as JSON, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.layers import Layers
from kit.nets import NETS
from kit.real import RealModel, real_models
from kit.samples import Samples
from rich.console import Console

from mlc.backends import inspect_sensitivity
from mlc.backends.onnx import save
from mlc.backends.runner import OrtRunner
from mlc.cli import run
from mlc.frontends.onnx import load
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.passes.base import Context, Scope
from mlc.passes.quantize.probe import Probe
from mlc.passes.quantize.sensitivity import COLUMNS, DYNAMIC, STATIC, WEIGHT_8, Sensitivity, sensitivity

GOLDEN = Path(__file__).parent / "golden" / "inspect" / "sensitivity.txt"
BITS_8, BITS_4, BLOCKS_4, BITS_2, BLOCKS_2, _, _ = COLUMNS


def context(feeds: dict[str, np.ndarray], **more: Any) -> Context:
    return Context(data=Samples(feeds), runner=OrtRunner(), **more)


def network() -> tuple[Module, dict[str, np.ndarray]]:
    """A table, a matrix and a Gemm; the table's width is less than a block."""
    net = Layers()
    ids = net.input("ids", DType.I64, "N")
    x = net.op("Gather", [net.const(net.draw(20, 16), "table"), ids], attrs={"axis": 0})
    h = net.relu(net.op("MatMul", [x, net.const(net.draw(16, 64), "w1")]))
    gemm = [h, net.const(net.draw(10, 64), "w2"), net.const(net.draw(10), "b2")]
    return net.done(net.op("Gemm", gemm, attrs={"transB": 1})), {"ids": np.arange(12) % 20}


def table(module: Module, feeds: dict[str, np.ndarray], **more: Any) -> Sensitivity:
    return sensitivity(module, context(feeds, **more))


def test_fewer_bits_do_more_damage() -> None:
    found = table(*network())
    assert {s.weight for s in found.sites} == {"table", "w1", "w2"}
    assert found.samples == 8
    for site in found.sites:
        d = site.damage
        assert 0 < d[BITS_8] < d[BITS_4] < d[BITS_2]
        assert d[BLOCKS_4] < d[BLOCKS_2]
        assert d[BITS_8] < d[BLOCKS_4] < d[BITS_2]
    ranked = [min(s.damage[BITS_4], s.damage[BLOCKS_4]) for s in found.sites]
    assert ranked == sorted(ranked, reverse=True)


def test_data_are_rounded_where_they_are_multiplied() -> None:
    sites = {s.weight: s for s in table(*network()).sites}
    assert sites["table"].data == ()
    assert STATIC not in sites["table"].damage
    for name in ("w1", "w2"):
        assert len(sites[name].data) == 1
        assert 0 < sites[name].damage[DYNAMIC] < sites[name].damage[STATIC] * 2
        assert sites[name].damage[STATIC] < 1e-3


def test_damage_is_that_of_the_codes_of_the_pass() -> None:
    """The 8-bit column against codes made by hand: symmetric, one scale for each output."""
    module, feeds = network()
    constant = module.constants["w2"].constant
    assert constant is not None
    weight = constant.array()
    scale = np.abs(weight).max(axis=1, keepdims=True) / np.float32(127)
    rounded = (np.rint(weight / scale) * scale).astype(np.float32)
    ctx = context(feeds)
    wanted = Probe(module, ctx, ["w2"]).damage({"w2": rounded})
    (site,) = (s for s in sensitivity(module, ctx).sites if s.weight == "w2")
    assert site.damage[WEIGHT_8] == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_kind_of_network(name: str) -> None:
    module, feeds = NETS[name]()
    whole = Samples({k: np.asarray(v)[None] for k, v in feeds.items()}, whole=True)
    found = sensitivity(module, Context(data=whole, runner=OrtRunner()))
    json.dumps(found.to_json())
    for site in found.sites:
        assert set(site.damage) <= set(COLUMNS)
        assert all(0 <= d <= 2 for d in site.damage.values())
        assert site.damage[BITS_8] <= max(site.damage[BITS_2], 1e-9)


def test_a_scope_limits_the_sites() -> None:
    module, feeds = network()
    op = next(op for op in module.walk() if op.kind == "Gemm")
    found = table(module, feeds, scope=Scope(on=frozenset({op.name})))
    assert [s.weight for s in found.sites] == ["w2"]


def test_what_has_no_form_is_said() -> None:
    net = Layers()
    x = net.input("x", DType.F32, "N", 8)
    both = net.const(net.draw(8, 8), "both")
    infinite = net.const(np.full((8, 8), np.inf, np.float32), "infinite")
    y = net.op("MatMul", [net.op("Add", [net.op("MatMul", [x, both]), both]), net.const(net.draw(8, 8), "fine")])
    module = net.done(net.op("Max", [y, net.op("MatMul", [x, infinite])]))
    found = table(module, {"x": np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)})
    assert [s.weight for s in found.sites] == ["fine"]
    reasons = {left.weight: left.why for left in found.left}
    assert "operand 1 of Add" in reasons["both"]
    assert "Inf" in reasons["infinite"]


def test_data_are_needed() -> None:
    with pytest.raises(MlcError) as caught:
        sensitivity(network()[0], Context())
    assert caught.value.diagnostics[0].code is Code.NO_DATA


# -- the command -------------------------------------------------------------------------------------------------------


def shown(found: dict[str, Any], **options: Any) -> str:
    console = Console(file=io.StringIO(), width=140, highlight=False)
    inspect_sensitivity.show(found, console, **options)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"  # type: ignore[attr-defined]


def row(name: str, damage: float, **more: float) -> dict[str, Any]:
    damages = {column: damage * 4**i for i, column in enumerate(COLUMNS[:5])} | more
    return {
        "weight": name, "readers": [name], "kinds": ["Conv"], "shape": [8, 4, 3, 3], "nbytes": 1152, "data": ["x"],
        "damage": damages,
    }  # fmt: skip


def test_ops_are_named_where_weights_tell_nothing() -> None:
    rows = [row("onnx::Conv_118", 1e-3) | {"readers": ["/a/a.0/Conv", "/b/Conv"]}, row("w", 1e-4)]
    text = shown({"format": 1, "samples": 8, "sites": rows, "left": []})
    assert "/a/a.0/Conv, 1 more" in text
    assert " op " in text.splitlines()[1]
    for weight, op in (("a.0.weight", "/a/a.0/Conv"), ("a/kernel:0", "a/MatMul")):
        told = [row(weight, 1e-3) | {"readers": [op]}]
        assert op not in shown({"format": 1, "samples": 8, "sites": told, "left": []})
    rows[0]["readers"] = ["Conv"]  # an op without a name goes by its kind
    assert " op " not in shown({"format": 1, "samples": 8, "sites": rows, "left": []}).splitlines()[1]


def test_golden(update_golden: bool) -> None:
    rows = [row(f"layer{i}.weight", 1e-4 / (i + 1)) for i in range(30)]
    rows[0]["damage"] |= {STATIC: 2e-3, DYNAMIC: 1e-3}
    rows.append(row("never", 0.0))
    found = {"format": 1, "samples": 8, "sites": rows, "left": [{"weight": "odd", "why": "operand 1 of Add has none"}]}
    empty = {"format": 1, "samples": 1, "sites": [], "left": []}
    text = f"{shown(found)}\n--all\n\n{shown(found, all_sites=True)}\n--\n\n{shown(empty)}"
    if update_golden:
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    module, feeds = network()
    model, data = tmp_path / "net.onnx", tmp_path / "data.npz"
    save(module, model)
    np.savez(data, **feeds)
    return str(model), str(data)


def test_table_and_json(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model, data = files
    assert run(["inspect", model, "--sensitivity", "--data", data, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == 1
    assert {s["weight"] for s in found["sites"]} == {"table", "w1", "w2"}
    assert set(found["sites"][0]) == {"weight", "readers", "kinds", "shape", "nbytes", "data", "damage"}
    assert run(["inspect", model, "--sensitivity", "--data", data]) == 0
    text = capsys.readouterr().out
    assert "one site at a time, on 8 samples" in text
    assert "w1" in text
    assert run(["inspect", model, "--sensitivity", "--data", data, "--max-memory", "1MiB", "--dims", "N=1"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sensitivity"], "--sensitivity needs samples"),
        (["--sensitivity", "--axes", "--data", "x.npz"], "--axes and --sensitivity do not go together"),
        (["--sensitivity", "--text", "--data", "x.npz"], "--text and --sensitivity do not go together"),
        (["--sensitivity", "--data", "x.npz"], "there is no data file 'x.npz'"),
        (["--data", "x.npz"], "--data goes with --sensitivity"),
        (["--axes", "--mask", "m"], "--mask goes with --sensitivity"),
        (["--sensitivity", "--data", "DATA", "--dims", "Q=3"], "Q"),
        (["--sensitivity", "--data", "DATA", "--mask", "nothing"], "nothing"),
    ],
)
def test_mistakes(
    files: tuple[str, str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = files
    assert run(["inspect", model, *(data if a == "DATA" else a for a in arguments)]) == 2
    assert message in capsys.readouterr().err


@real_models("mnist_cnn", "silero_vad")
def test_real_models(model: RealModel) -> None:
    """silero_vad keeps a network for 8 kHz in a branch that no sample takes: its sites are measured, and are 0."""
    module = load(model.path)
    feeds = [model.feeds(seed) for seed in range(4)]
    data = Samples({k: np.stack([f[k] for f in feeds]) for k in feeds[0]}, whole=True)
    found = sensitivity(module, Context(data=data, runner=OrtRunner()))
    moved = [s for s in found.sites if any(s.damage.values())]
    assert moved
    for site in moved:
        assert 0 < site.damage[BITS_8] < site.damage[BITS_2]
    if model.name == "silero_vad":
        assert len(moved) < len(found.sites)
        text = shown(found.to_json())
        assert "which the samples do not reach" in text
