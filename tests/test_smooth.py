"""`smooth`: outputs stay, outliers go, and what would not help is left alone, with the numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from kit import laws
from kit.layers import F32, Layers, image, rows, tokens
from kit.nets import NETS
from kit.permute import judged, relative, run
from kit.real import RealModel, real_models
from kit.samples import Samples
from kit.widen import run_wide, widened

from mlc.backends.runner import OrtRunner
from mlc.backends.targets import OrtTarget, Support, parse_target
from mlc.frontends.onnx import load
from mlc.ir.core import Module
from mlc.ir.errors import Code, MlcError
from mlc.ir.verify import verify
from mlc.passes.base import Context, Scope, SkipCode
from mlc.passes.execution import check_needs
from mlc.passes.quantize import smooth_samples, smooth_search
from mlc.passes.quantize.prepare import Prepared
from mlc.passes.quantize.scaling import axes_of, scaling_sites
from mlc.passes.quantize.smooth import Smooth

Feeds = dict[str, np.ndarray]


def context(feeds: Feeds, count: int = 16, seed: int = 0, **more) -> Context:
    """Samples like the feeds: floats are drawn, everything else is shuffled along its last axis."""
    rng = np.random.default_rng(seed)

    def one(a):
        if a.dtype.kind == "f":
            return rng.standard_normal(a.shape).astype(a.dtype)
        return rng.permuted(a, axis=-1) if a.ndim else a

    drawn = {name: np.stack([one(a) for _ in range(count)]) for name, a in feeds.items()}
    return Context(data=Samples(drawn, whole=True), runner=OrtRunner(), **more)


def given(x: np.ndarray, **more) -> Context:
    return Context(data=Samples({"x": x}), runner=OrtRunner(), **more)


def report(module: Module):
    return module.history[-1]


def rounded_error(module: Module, feeds: Feeds, outputs: int = 1) -> float:
    """The relative squared error of the last linear operators, with inputs u8 per tensor and weights s8 per output."""
    found = []
    for op in module.graph.ops:
        if op.kind not in ("MatMul", "Gemm", "Conv") or op.operands[1].constant is None:
            continue
        x = OrtRunner().prepare(module, (op.operands[0].name,)).run(feeds)[op.operands[0].name]
        low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
        step = (high - low) / 255
        zero = np.rint(-low / step)
        xq = (np.clip(np.rint(x / step) + zero, 0, 255) - zero) * step
        w = op.operands[1].constant.array()
        axis = 0 if op.kind == "Conv" else 1
        most = np.abs(w).max(axis=tuple(i for i in range(w.ndim) if i != axis), keepdims=True) / 127
        wq = np.rint(w / most) * most
        y, yq = (np.einsum("...i,io->...o", a, b) if op.kind != "Conv" else _conv(a, b) for a, b in ((x, w), (xq, wq)))
        found.append(float(np.square(yq - y).sum() / np.square(y).sum()))
    return float(np.mean(found[-outputs:]))


def _conv(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    assert w.shape[2:] == (1, 1)
    return np.einsum("nihw,oi->nohw", x, w[:, :, 0, 0])


def outlier(kind: str) -> tuple[Module, Feeds]:
    """A layer whose input has one channel 50 times as large as the others, which do not drown in its product."""
    net = Layers()
    quiet = np.where(np.arange(16) == 3, 0.05, 1.0).astype(np.float32)[:, None]
    last = net.const(net.draw(16, 8) * quiet)
    loud = np.where(np.arange(16) == 3, 50.0, 1.0).astype(np.float32)
    if kind == "norm":  # a scale behind a norm, which is read once
        x, feeds = tokens(net, 16, 6)
        h = net.dense(x, 16, 16)
        h = net.op("Add", [h, net.dense(h, 16, 16)])
        h = net.op("LayerNormalization", [h, net.const(loud), net.const(np.zeros(16, np.float32))], attrs={"axis": -1})
        return net.done(net.op("MatMul", [h, last])), feeds
    if kind == "layer":
        x, feeds = rows(net, 16, 64)
        h = net.relu(net.op("MatMul", [x, net.const(net.draw(16, 16) * loud)]))
        return net.done(net.op("MatMul", [h, last])), feeds
    if kind == "conv":
        x, feeds = image(net, 4)
        h = net.relu(net.op("Conv", [x, net.const(net.draw(16, 4, 1, 1) * loud[:, None, None, None])]))
        return net.done(net.op("Conv", [h, net.const(net.draw(8, 16, 1, 1) * quiet[None, :, :, None])])), feeds
    x, feeds = tokens(net, 16, 6)  # an input of the model: nothing before it
    feeds = {"x": feeds["x"] * loud}
    return net.done(net.op("MatMul", [x, last])), feeds


def like(feeds: Feeds, count: int = 32) -> Context:
    """Other samples of the same spread."""
    rng = np.random.default_rng(7)
    spread = np.abs(feeds["x"]).max(axis=tuple(range(feeds["x"].ndim - 1)))
    drawn = rng.standard_normal((count, *feeds["x"].shape[1:])).astype(np.float32)
    return given(drawn * spread / np.abs(drawn).max(axis=tuple(range(drawn.ndim - 1))))


@pytest.mark.parametrize("kind", ["norm", "layer", "conv", "input"])
@pytest.mark.parametrize("alpha", [None, 0.5, 0.8])
def test_an_outlier_channel_costs_five_times_less(kind, alpha):
    module, feeds = outlier(kind)
    smooth = Smooth(alpha=alpha, mul="always" if kind == "input" else "never")(module, like(feeds))
    verify(smooth)
    assert relative(run(module, feeds), run(smooth, feeds)) < 1e-5
    assert rounded_error(smooth, feeds) < rounded_error(module, feeds) / 5
    muls = [sum(op.kind == "Mul" for op in m.graph.ops) for m in (module, smooth)]
    assert muls[1] - muls[0] == (kind == "input")


@pytest.mark.parametrize("name", [n for n in NETS if n not in ("block_quantized", "dynamic_int8", "quantized")])
def test_outputs_stay_on_every_kind_of_network(name):
    """Forced at every site that can take numbers, in double precision where there are kernels."""
    module, feeds = NETS[name]()
    smooth = Smooth(alpha=0.5, mul="always")(module, context(feeds))
    verify(smooth)
    wide = name not in ("group_norm", "transposed")
    before, after = ((run_wide(widened(m), feeds) if wide else run(m, feeds)) for m in (module, smooth))
    assert relative(before, after) < 1e-5
    sites = {s.site for s in (*report(smooth).done, *report(smooth).skipped)}
    ready = Prepared.of(module, Context(), by="smooth").module
    assert sites == {s.name for s in scaling_sites(axes_of(ready))}, "every site is done or skipped"


def test_the_formula_with_a_given_alpha():
    net = Layers()
    x, feeds = rows(net, 6, 64)
    feeds["x"] *= np.array([1, 30, 1, 2, 0.1, 1], np.float32)
    w = net.draw(6, 4)
    module = net.done(net.op("MatMul", [x, net.const(w, "w")]))
    (site,) = Smooth(alpha=0.3, mul="always").plan(module, given(feeds["x"])).sites
    wanted = np.abs(feeds["x"]).max(0) ** 0.3 / np.abs(w).max(1) ** 0.7
    np.testing.assert_allclose(site.numbers, wanted / np.exp(np.log(wanted).mean()), rtol=1e-6)


def test_a_grouped_convolution_has_numbers_for_every_channel():
    net = Layers()
    x, _ = image(net, 8)
    module = net.done(net.conv(x, 8, 8, group=4))
    samples = np.random.default_rng(0).standard_normal((6, 8, 8, 8)).astype(np.float32)
    samples *= np.arange(1, 9, dtype=np.float32)[:, None, None]
    (site,) = Smooth(alpha=1.0, mul="always").plan(module, given(samples)).sites
    wanted = np.abs(samples).max((0, 2, 3))
    np.testing.assert_allclose(site.numbers, wanted / np.exp(np.log(wanted).mean()), rtol=1e-6)
    smooth = Smooth(alpha=1.0, mul="always")(module, given(samples))
    assert relative(run(module, {"x": samples}), run(smooth, {"x": samples})) < 1e-5


def test_readers_of_one_input_share_the_numbers():
    """Queries, keys and values behind a norm that the residual stream reads as well: one Mul for all."""
    module, feeds = NETS["bert"]()
    shared = [s for s in scaling_sites(axes_of(module)) if len(s.readers) > 1]
    smooth = Smooth(alpha=0.5, mul="always")(module, context(feeds))
    assert len(shared) == 1
    assert [len(s.readers) for s in report(smooth).plan.sites if s.name == shared[0].name] == [3]


def massive() -> tuple[Module, np.ndarray]:
    """One channel is huge on one token in ten, others are large now and then: ranges say little of most tokens."""
    rng = np.random.default_rng(0)
    net = Layers()
    x = net.input("x", F32, "N", 10, 64)
    module = net.done(net.op("MatMul", [x, net.weight(64, 32)]))
    samples = rng.standard_normal((24, 10, 64)).astype(np.float32)
    samples[rng.integers(0, 24, 32), rng.integers(0, 10, 32), rng.permutation(64)[:32]] = 15.0
    samples[:, 0, 5] = 300.0
    return module, samples


def test_massive_activations_are_cut_down_instead():
    """And the squared error over all tokens, which the massive one dominates, would have chosen otherwise."""
    module, samples = massive()
    (site,) = Smooth().plan(module, given(samples)).sites
    assert site.choice.startswith("threshold")
    chosen = np.array(site.numbers)
    assert chosen[5] > 8 * np.delete(chosen, 5).max()
    assert len(set(np.delete(chosen, 5))) == 1
    fixed = min(Smooth(alpha=a, mul="always").plan(module, given(samples)).sites[0].after for a in smooth_search.ALPHAS)
    assert site.after < fixed


def test_tokens_count_alike():
    """The error is the mean of the tokens' own: tokens a thousand times as large do not decide."""
    net = Layers()
    x, w = net.input("x", F32, "N", 8), net.draw(8, 4)
    module = net.done(net.op("MatMul", [x, net.const(w)]))
    samples = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    samples[::10] *= 1000
    (site,) = scaling_sites(axes_of(module))
    ((_, seen),) = smooth_samples.watch(module, [site], given(samples))
    step = (samples.max() - samples.min()) / 255
    zero = np.rint(-samples.min() / step)
    rounded = (np.clip(np.rint(samples / step) + zero, 0, 255) - zero) * step
    most = np.abs(w).max(0) / 127
    off = np.square(rounded @ (np.rint(w / most) * most) - samples @ w).sum(1)
    energy = np.square(samples @ w).sum(1)
    wanted = (off / np.maximum(energy, 0.1 * np.median(energy))).mean()
    before, _ = smooth_search.Search(site, seen, 8).best(0.5)
    assert before == pytest.approx(wanted, rel=1e-3)
    assert before > 10 * off.sum() / energy.sum()


def test_numbers_stay_where_half_precision_can_follow():
    net = Layers()
    x = net.input("x", F32, "N", 8)
    module = net.done(net.op("MatMul", [x, net.weight(8, 4)]))
    samples = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
    samples[:, 2] *= 1e8
    samples[:, 3] *= 1e-8
    numbers = Smooth(alpha=1.0, mul="always").plan(module, given(samples)).sites[0].numbers
    assert max(numbers) <= 4096
    assert min(numbers) >= 1 / 4096


def test_a_site_that_gains_nothing_is_left_with_the_numbers():
    net = Layers()
    x, feeds = rows(net, 16, 256)
    module = net.done(net.op("MatMul", [x, net.weight(16, 8)]))
    (skipped,) = Smooth().plan(module, given(feeds["x"])).skipped
    assert skipped.code is SkipCode.HURTS
    assert "error in 8 bits" in skipped.why
    assert "not worth a Mul" in skipped.why
    assert Smooth(mul="always")(module, given(feeds["x"]))


@pytest.mark.parametrize("kind", ["input", "conv_input"])
def test_a_mul_goes_where_it_is_wanted(kind):
    if kind == "input":
        module, feeds = outlier("input")
    else:
        net = Layers()
        x, feeds = image(net, 8)
        feeds["x"][:, 2] *= 50
        module = net.done(net.conv(x, 8, 4))
    found = {
        mul: Smooth(mul=mul).plan(module, given(np.repeat(feeds["x"], 8, 0))) for mul in ("auto", "always", "never")
    }
    assert [len(found[mul].sites) for mul in ("auto", "always", "never")] == [kind == "input", 1, 0]
    (skipped,) = found["never"].skipped
    assert skipped.code is SkipCode.PINNED_AXIS
    assert "mul=always" in skipped.what_to_do


def test_weights_that_others_read_are_skipped():
    net = Layers()
    x, other = net.input("x", F32, 4, 6), net.input("other", F32, 4, 6)
    w = net.weight(6, 3)
    module = net.done(net.op("MatMul", [x, w]), net.op("MatMul", [other, w]))
    ctx = Context(data=Samples({"x": np.ones((4, 6)), "other": np.ones((4, 6))}), runner=OrtRunner())
    assert {s.code for s in Smooth(mul="always").plan(module, ctx).skipped} == {SkipCode.SHARED}


def test_a_value_made_in_a_body_is_skipped():
    module, feeds = NETS["loops"]()
    codes = {s.code for s in Smooth(mul="always").plan(module, context(feeds)).skipped}
    assert SkipCode.CONTROL_FLOW in codes


@pytest.mark.parametrize(("bad", "why"), [(np.nan, "NaN"), (0.0, "are zero")])
def test_samples_that_say_nothing(bad, why):
    module, _ = outlier("input")
    (skipped,) = Smooth(mul="always").plan(module, given(np.full((3, 6, 16), bad, np.float32))).skipped
    assert skipped.code is SkipCode.HURTS
    assert why in skipped.why


def test_samples_that_are_empty():
    net = Layers()
    x = net.input("x", F32, "N", "T", 16)
    module = net.done(net.op("MatMul", [x, net.weight(16, 8)]))
    (skipped,) = Smooth(mul="always").plan(module, given(np.zeros((3, 0, 16), np.float32))).skipped
    assert skipped.code is SkipCode.NO_DATA


def test_channels_that_are_silent_or_unread_are_not_scaled():
    net = Layers()
    x, feeds = rows(net, 8, 64)
    w = net.draw(8, 4)
    feeds["x"] *= np.array([0, 1, 30, 1, 1, 1, 2, 1], np.float32)
    w[4] = 0
    module = net.done(net.op("MatMul", [x, net.const(w)]))
    for alpha in (0.0, 0.5, 1.0):
        plan = Smooth(alpha=alpha, mul="always").plan(module, given(feeds["x"]))
        assert all(site.numbers[0] == site.numbers[4] == 1 for site in plan.sites)
    assert plan.sites


def test_what_the_target_keeps_in_floats_is_skipped():
    class Floats(OrtTarget):
        def supports(self, op, form, **more):
            return Support("no", "it has no kernel")

    module, feeds = outlier("layer")
    plan = Smooth(mul="always").plan(module, replace(like(feeds), target=Floats()))
    assert [(s.code, s.why) for s in plan.skipped] == [(SkipCode.UNSUPPORTED, "it has no kernel")] * 2


def test_the_scope_is_kept():
    module, feeds = outlier("layer")
    first, second = (op.name for op in module.graph.ops if op.kind == "MatMul")
    alone = Smooth(mul="always").plan(module, like(feeds))
    assert {s.name for s in alone.sites} == {first, second} or {s.name for s in alone.sites} == {second}
    for scope in (Scope(on=frozenset({first})), Scope(but=frozenset({second})), Scope(but=frozenset({first}))):
        plan = Smooth(mul="always").plan(module, replace(like(feeds), scope=scope))
        assert second not in {s.name for s in plan.sites}, "its numbers would change the layer before it, too"
        assert SkipCode.SCOPE in {s.code for s in plan.skipped}


def test_seven_bits_of_weights_are_judged_as_such():
    module, feeds = outlier("layer")
    errors = [
        Smooth(alpha=0.5)
        .plan(module, replace(like(feeds), target=parse_target(f"ort(cpu, isa={isa})")))
        .sites[-1]
        .after
        for isa in ("vnni", "avx2")
    ]
    assert errors[1] > 1.5 * errors[0]


def test_data_is_needed_before_any_work():
    with pytest.raises(MlcError) as found:
        check_needs(Smooth(), Context())
    assert found.value.diagnostics[0].code is Code.NO_DATA


def test_the_plan_is_data_and_deterministic():
    module, feeds = NETS["bert"]()
    plan, again = (Smooth(mul="always").plan(module, context(feeds)) for _ in range(2))
    assert plan == again
    site = json.loads(json.dumps(plan.to_json()))["sites"][0]
    assert site["count"] == len(plan.sites[0].numbers)
    assert site["least"] < 1 < site["most"]
    assert "numbers" not in site


@pytest.mark.parametrize("count", [3, 20000])
def test_rows_do_not_grow_with_the_samples(count):
    net = Layers()
    x = net.input("x", F32, "N", 8)
    module = net.done(net.op("MatMul", [x, net.weight(8, 4)]))
    (site,) = scaling_sites(axes_of(module))
    samples = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
    ((_, seen),) = smooth_samples.watch(module, [site], given(samples))
    kept = seen.sample(site.readers[0]).shape[1]
    assert kept == count if count < smooth_samples.ROWS else 0.7 < kept / smooth_samples.ROWS < 1.4
    np.testing.assert_array_equal(seen.bounds(x)[1], samples.max(0))


def test_sites_are_watched_in_parts_under_little_memory(monkeypatch):
    module, feeds = NETS["vgg16"]()
    prepared = []
    plain = OrtRunner.prepare
    monkeypatch.setattr(OrtRunner, "prepare", lambda self, *a: prepared.append(a) or plain(self, *a))
    few = Smooth(alpha=0.5, mul="always").plan(module, context(feeds))
    assert len(prepared) == 1
    many = Smooth(alpha=0.5, mul="always").plan(module, context(feeds, max_memory=1 << 20))
    assert len(prepared) > 3
    assert [s.numbers for s in few.sites] == [s.numbers for s in many.sites]


@real_models("silero_vad_sequence", "ppocrv4_rec", "mobilenet_v2", "khmersm")
def test_real_models_keep_their_outputs(model: RealModel):
    module, feeds = load(model.path), laws.feeds(model.name, model.path)
    drawn = [model.feeds(seed) for seed in range(3)]
    same = all(d[n].shape == drawn[0][n].shape for d in drawn for n in d)
    samples = Samples({n: np.stack([d[n] for d in (drawn if same else drawn[:1])]) for n in drawn[0]}, whole=True)
    ctx = Context(data=samples, runner=OrtRunner(), target=parse_target("ort(cpu)"))
    smooth = Smooth(alpha=0.7, mul="always")(module, ctx)
    verify(smooth)
    assert report(smooth).done
    error, bar = judged(module, feeds, run(module, feeds), run(smooth, feeds))
    assert error < bar
    assert all(s.after < s.before for s in report(smooth).plan.sites)
