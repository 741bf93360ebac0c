"""Refinement of quantized weights against the float model: same graph, better numbers, a line for every weight."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from kit.layers import Layers
from kit.nets import NETS
from kit.permute import relative, run
from kit.samples import Samples

from mlc.backends.onnx import to_proto
from mlc.backends.runner import OrtRunner
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.quant import QSpec
from mlc.ir.rewrite import Rewriter
from mlc.ir.verify import verify
from mlc.passes.base import Context, Done, Skipped
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.prepare import Prepared
from mlc.passes.quantize.refine import refine as refining
from mlc.passes.quantize.refine.adaround import Training
from mlc.passes.quantize.refine.refine import refine
from mlc.passes.quantize.refine.sites import refinable
from mlc.passes.quantize.refine.solvers import Options
from mlc.passes.quantize.weight_only import Weights

F32 = DType.F32
QUICK = Options(training=Training(60))
METHODS = ("gptq", "adaround")


def context(feeds, count=24, seed=0, **more) -> Context:
    """Samples like the feeds, from inputs that are correlated as those of trained layers are."""
    rng = np.random.default_rng(seed)

    def one(a):
        if a.dtype.kind == "f":
            return (rng.standard_normal(a.shape) + rng.standard_normal()).astype(a.dtype)
        return rng.permuted(a, axis=-1) if a.ndim else a

    drawn = {name: np.stack([one(a) for _ in range(count)]) for name, a in feeds.items()}
    return Context(data=Samples(drawn, whole=True), runner=OrtRunner(), **more)


def mlp(width: int = 64, bias: bool = True, seed: int = 0) -> Module:
    net = Layers(seed)
    x = net.input("x", F32, "N", 32)
    make = net.dense if bias else lambda v, i, o: net.op("MatMul", [v, net.weight(i, o)])
    return net.done(make(net.relu(make(net.relu(make(x, 32, width)), width, width)), width, 16))


def inputs(count=200, seed=5):
    rng = np.random.default_rng(seed)
    return {"x": (rng.standard_normal((count, 32)) + rng.standard_normal((count, 1))).astype(np.float32)}


def rounded(module: Module, bits: int = 4, **options) -> Module:
    return Weights(bits=bits, method="rtn", block=32, **options)(module)


def refined(quantized: Module, source: Module, ctx: Context, *args, **options):
    twin = quantized.clone()
    done = refine(Rewriter(twin), source, ctx, *args, **options)
    verify(twin)
    return twin, done


def errors(done) -> list[tuple[float, float]]:
    """Before and after, of what was changed."""
    return [(float(d.before.split()[1]), float(d.after.split()[1])) for d in done if isinstance(d, Done)]


@pytest.mark.parametrize(
    ("name", "method"), [*((n, "gptq") for n in NETS), *((n, "adaround") for n in list(NETS)[::6])]
)
def test_codes_change_and_nothing_else(name: str, method: str) -> None:
    module, feeds = NETS[name]()
    ctx = context(feeds, 8)
    quantized = rounded(module)
    twin, done = refined(quantized, module, ctx, method, options=QUICK)
    assert [op.kind for op in twin.walk()] == [op.kind for op in quantized.walk()]
    changed = {n for n, v in twin.constants.items() if not v.constant.same(quantized.constants[n].constant)}
    assert all(twin.constants[n].type == quantized.constants[n].type for n in changed)
    bases = {d.site for d in done if isinstance(d, Done)}
    assert {n.removesuffix("_quantized") for n in changed if n.endswith("_quantized")} <= bases
    assert all(after < before for before, after in errors(done))
    assert [y.shape for y in run(twin, feeds)] == [y.shape for y in run(module, feeds)]
    every = {n.removesuffix("_quantized") for n in quantized.constants if n.endswith("_quantized")}
    assert {d.site for d in done} == every


@pytest.mark.parametrize("name", [n for n in NETS if "conv" in n or "net" in n.lower() or n in ("bert", "lstm", "vit")])
def test_static_codes_are_refined_on_their_grids(name: str) -> None:
    module, feeds = NETS[name]()
    ctx = context(feeds, 8)
    quantized = Int8()(module, ctx)
    source = Prepared.of(module, ctx, by="int8").module
    twin, done = refined(quantized, source, ctx)
    for constant, value in twin.constants.items():
        if constant.endswith("_scale"):
            assert value.constant.same(quantized.constants[constant].constant)
    assert all(after < before for before, after in errors(done))
    run(twin, feeds)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_outputs_come_closer(symmetric: bool, bias: bool, method: str) -> None:
    module = mlp(bias=bias)
    quantized = rounded(module, symmetric=symmetric)
    ctx = Context(data=Samples(inputs(400, 0)), runner=OrtRunner())
    twin, done = refined(quantized, module, ctx, method)
    assert len(errors(done)) == 3
    feeds = inputs()
    wanted = run(module, feeds)
    assert relative(wanted, run(twin, feeds)) < 0.75 * relative(wanted, run(quantized, feeds))


def test_later_weights_make_up_for_earlier_ones() -> None:
    """Fitted on the quantized model's own inputs, the end is closer than layer by layer on float inputs."""
    module = mlp()
    quantized = rounded(module, bits=3)
    ctx = Context(data=Samples(inputs(2000, 0)), runner=OrtRunner())
    feeds = inputs()
    wanted = run(module, feeds)
    plain, fitted = (
        relative(wanted, run(refined(quantized, module, ctx, options=Options(least_squares=ls))[0], feeds))
        for ls in (False, True)
    )
    assert fitted < plain


def test_two_bits() -> None:
    """The runtime has kernels for them and no DequantizeLinear: what is watched is lowered first."""
    module, feeds = mlp(), inputs()
    quantized = rounded(module, bits=2)
    ctx = Context(data=Samples(inputs(400, 0)), runner=OrtRunner())
    twin, done = refined(quantized, module, ctx)
    assert len(errors(done)) == 3
    (wanted,) = run(module, feeds)
    plain, fitted = (next(iter(OrtRunner().prepare(m).run(feeds).values())) for m in (quantized, twin))
    assert np.square(fitted - wanted).sum() < 0.5 * np.square(plain - wanted).sum()


def test_the_result_is_reproducible() -> None:
    module = mlp()
    quantized = rounded(module)
    texts = []
    for _ in range(2):
        ctx = Context(data=Samples(inputs(100, 0)), runner=OrtRunner())
        texts.append(to_proto(refined(quantized, module, ctx)[0]).SerializeToString(deterministic=True))
    assert texts[0] == texts[1]


def test_chosen_sites_and_their_bits() -> None:
    """Three bits are stored in four: the codes stay below 8."""
    module = mlp()
    quantized = rounded(module, bits=3)
    names = [n.removesuffix("_quantized") for n in quantized.constants if n.endswith("_quantized")]
    ctx = Context(data=Samples(inputs(100, 0)), runner=OrtRunner())
    chosen = {names[1]: QSpec(3, False, False, 0, 32)}
    twin, done = refined(quantized, module, ctx, "gptq", chosen)
    assert [d.site for d in done] == [names[1]]
    codes = twin.constants[f"{names[1]}_quantized"].constant.array()
    assert int(codes.astype(np.int32).max()) == 7
    assert twin.constants[f"{names[0]}_quantized"].constant.same(quantized.constants[f"{names[0]}_quantized"].constant)
    _, done = refined(quantized, module, ctx, "gptq", {"no such weight": QSpec(3, False, False, 0, 32)})
    assert [s.why for s in done] == ["no operator of the main graph reads its codes"]


def test_a_weight_that_two_operators_read_is_fitted_to_both() -> None:
    net = Layers()
    x = net.input("x", F32, "N", 32)
    shared = net.weight(32, 32)
    first = net.relu(net.op("MatMul", [x, shared]))
    module = net.done(net.op("MatMul", [first, shared]))
    quantized = rounded(module)
    ctx = Context(data=Samples(inputs(400, 0)), runner=OrtRunner())
    sites, _ = refinable(quantized, module, None, None)
    assert [len(s.readers) for s in sites] == [2]
    twin, done = refined(quantized, module, ctx)
    assert len(errors(done)) == 1
    feeds = inputs()
    wanted = run(module, feeds)
    assert relative(wanted, run(twin, feeds)) < relative(wanted, run(quantized, feeds))


def test_levels_share_runs_in_deep_models(monkeypatch: pytest.MonkeyPatch) -> None:
    module = mlp()
    quantized = rounded(module)
    sites, _ = refinable(quantized, module, None, None)
    assert [s.level for s in sites] == [1, 2, 3]
    assert [len(g) for g in refining._groups(sites, None)] == [1, 1, 1]
    monkeypatch.setattr(refining, "RUNS", 2)
    assert [len(g) for g in refining._groups(sites, None)] == [2, 1]


@pytest.mark.parametrize("runs", [1, 2, 1000])
def test_weights_that_share_a_run_do_not_make_up_for_errors_that_go(runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deep residual net: fitted to what weights in front of them did before these were refined, later weights would
    add that error instead of taking it off."""
    monkeypatch.setattr(refining, "RUNS", runs)
    net = Layers(3)
    h = net.input("x", F32, "N", 32)
    for _ in range(12):
        h = net.op("Add", [h, net.linear(net.relu(net.linear(h, 32, 32)), 32, 32)])
    module = net.done(net.linear(h, 32, 8))
    quantized = rounded(module)
    feeds, ctx = inputs(), Context(data=Samples(inputs(600, 0)), runner=OrtRunner())
    wanted = run(module, feeds)
    twin, _ = refined(quantized, module, ctx)
    assert relative(wanted, run(twin, feeds)) < 0.5 * relative(wanted, run(quantized, feeds))


def test_samples_that_grids_clip_do_not_spoil_the_others() -> None:
    """One image in thirty is huge; ranges of the average image clip it. Weights do not make up for that."""
    net = Layers()
    x = net.input("x", F32, "N", 3, 8, 8)
    y = net.relu(net.conv(net.relu(net.conv(x, 3, 16)), 16, 16))
    module = net.done(net.head(y, 16))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((60, 3, 8, 8)).astype(np.float32)
    images[::30] *= 40
    ctx = Context(data=Samples({"x": images}), runner=OrtRunner())
    quantized = Int8(mode="static", observer="average")(module, ctx)
    source = Prepared.of(module, ctx, by="int8").module
    usual = {"x": images[1:30]}
    wanted = run(module, usual)
    for method in METHODS:
        twin, done = refined(quantized, source, ctx, method)
        assert errors(done)
        assert relative(wanted, run(twin, usual)) < 1.05 * relative(wanted, run(quantized, usual))


def test_what_does_not_improve_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    module = mlp()
    quantized = rounded(module)
    ctx = Context(data=Samples(inputs(100, 0)), runner=OrtRunner())
    solve = refining.SOLVERS["gptq"].solve
    monkeypatch.setattr(
        refining.SOLVERS["gptq"],
        "solve",
        lambda self, progress=None: dataclasses.replace(solve(self), after=1.0, before=0.5),
    )
    twin, done = refined(quantized, module, ctx)
    assert all(s.why == "gptq leaves error 100 %, it has error 50 %" for s in done)
    assert all(v.constant.same(quantized.constants[n].constant) for n, v in twin.constants.items())


def test_what_is_kept_says_why() -> None:
    net = Layers()
    ids = net.input("ids", DType.I64, "N", 6)
    table = net.const(np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32), "table")
    rows = net.op("Gather", [table, ids])
    module = net.done(net.op("MatMul", [rows, net.weight(64, 64)]))
    quantized = rounded(module)
    ctx = Context(data=Samples({"ids": np.random.default_rng(0).integers(0, 64, (50, 6))}), runner=OrtRunner())
    _, done = refined(quantized, module, ctx)
    assert [s.why for s in done if s.site == "table"] == ["Gather does not multiply with it, or not as a matrix"]
    assert len(errors(done)) == 1
    _, done = refined(quantized, module, Context(data=ctx.data, runner=ctx.runner, max_memory=1 << 16))
    assert any(isinstance(s, Skipped) and "more than" in s.why for s in done)


def test_what_cannot_be_asked_for() -> None:
    module = mlp()
    quantized = rounded(module)
    with pytest.raises(MlcError) as caught:
        refined(quantized, module, Context(data=Samples(inputs(4)), runner=OrtRunner()), "nearest")
    assert caught.value.diagnostics[0].code is Code.CANNOT_HONOUR
    with pytest.raises(MlcError) as caught:
        refined(quantized, module, Context())
    assert caught.value.diagnostics[0].code is Code.NO_DATA


@pytest.mark.parametrize("method", refining.SOLVERS)
@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_what_sees_inf_is_kept_and_told(method: str, bad: float) -> None:
    module, samples = mlp(), inputs(60)
    samples["x"][7, 3] = bad
    ctx = Context(data=Samples(samples), runner=OrtRunner())
    quantized = rounded(module)
    twin, done = refined(quantized, module, ctx, method, options=QUICK)
    assert len(done) == 3
    assert all("not finite" in s.why for s in done)
    assert all(v.constant.same(quantized.constants[n].constant) for n, v in twin.constants.items())
