"""Zeros in weights: which elements go, how many, what stays; in pieces as at once."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.layers import Layers
from kit.nets import NETS
from kit.permute import run
from kit.real import real_models

from mlc.backends.onnx import to_proto
from mlc.backends.runner import OrtRunner
from mlc.dsl.program import Program
from mlc.dsl.recipe import Recipe
from mlc.frontends.onnx import load
from mlc.ir.constants import ArrayPayload, Constant
from mlc.ir.core import Ints, Module
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.passes.accumulators import Moments
from mlc.passes.base import Context, Scope, SkipCode
from mlc.passes.prune.sparse import masks
from mlc.passes.prune.sparse.masks import Best, MaskedPayload, Scored, smallest
from mlc.passes.prune.sparse.unstructured import SparsePlan
from mlc.passes.prune.structured import Prune
from mlc.passes.statistics import StreamingStatistics

FEW = settings(max_examples=40, deadline=None)
PATTERNS = ["2:4", "4:8", "1:4", "3:4", "1:2"]


def plan_of(module: Module) -> SparsePlan:
    plan = module.history[-1].plan
    assert isinstance(plan, SparsePlan)
    return plan


def array(module: Module, name: str) -> np.ndarray:
    return module.constants[name].constant.array()


def changed(before: Module, after: Module) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    pairs = {name: (array(before, name), array(after, name)) for name in after.constants}
    return {name: pair for name, pair in pairs.items() if not np.array_equal(*pair)}


def mlp(width: int = 16, seed: int = 0) -> tuple[Module, dict]:
    net = Layers(seed)
    x = net.input("x", DType.F32, "N", 8)
    module = net.done(net.dense(net.relu(net.dense(x, 8, width)), width, 8))
    return module, {"x": np.random.default_rng(seed).standard_normal((4, 8)).astype(np.float32)}


# -- the threshold -----------------------------------------------------------------------------------------------

numbers = st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 3.25, -7.0, 1e-30, 1e30, float("inf")]), min_size=1)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "PIECE", 5)


@pytest.mark.usefixtures("small_pieces")
@FEW
@given(st.lists(numbers, min_size=1, max_size=3), st.floats(0, 1))
def test_exactly_so_many_go_and_they_are_the_smallest(tensors, part):
    scored = [Scored(Constant.of(np.array(t, np.float32))) for t in tensors]
    total = sum(s.constant.elements for s in scored)
    count = int(total * part)
    rules = smallest(scored, count)
    kept = [rule.keep(s.scores(0, s.constant.array()), 0) for s, rule in zip(scored, rules)]
    flat, mask = np.concatenate([np.abs(t) for t in tensors]), np.concatenate(kept)
    assert int((~mask).sum()) == count
    if 0 < count < total:
        assert flat[~mask].max() <= flat[mask].min()
    wanted = np.argsort(flat, kind="stable")[:count]  # of equals the first
    assert sorted(np.flatnonzero(~mask)) == sorted(wanted)


@pytest.mark.usefixtures("small_pieces")
@FEW
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([(2, 4), (1, 4), (3, 4), (1, 2)]),
    st.data(),
)
def test_pieces_and_the_whole_are_one(outer, groups, inner, pattern, data):
    n, m = pattern
    shape = (outer, groups * m, inner)
    values = np.array(
        data.draw(st.lists(st.integers(-9, 9), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    )
    constant = Constant.of(values.reshape(shape).astype(np.float32))
    payload = MaskedPayload(Scored(constant), Best(n, m, inner))
    whole = payload.array()
    lazy = Constant(constant.type, payload)
    raw = np.frombuffer(
        b"".join(payload.raw(s, min(s + 12, constant.nbytes)).tobytes() for s in range(0, constant.nbytes, 12)),
        np.float32,
    )
    assert np.array_equal(raw.reshape(shape), whole)
    assert lazy.tobytes() == whole.tobytes()
    by_group = np.moveaxis(constant.array(), 1, -1).reshape(-1, m)
    left = np.moveaxis(whole, 1, -1).reshape(-1, m)
    for old, new in zip(by_group, left):
        best = np.argsort(-np.abs(old), kind="stable")[:n]
        assert np.array_equal(new[best], old[best])
        assert (np.delete(new, best) == 0).all()


# -- laws of the pass --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NETS if n != "quantized"])
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_kept_values_are_unchanged_and_counts_are_exact(name, allocation):
    module, feeds = NETS[name]()
    step = Prune(ratio=0.5, kind="unstructured", allocation=allocation)
    sparse = step(module)
    plan = plan_of(sparse)
    assert plan.tensors
    for old, new in changed(module, sparse).values():
        assert ((new == old) | (new == 0)).all()
        assert old.shape == new.shape
        assert old.ndim >= 2
    assert {t.constant for t in plan.tensors} == set(changed(module, sparse))
    if allocation == "uniform":
        assert all(t.zeros_after == t.elements // 2 for t in plan.tensors)
    assert plan.zeros[1] == sum(int((array(sparse, t.constant) == 0).sum()) for t in plan.tensors)
    assert [y.shape for y in run(sparse, feeds)] == [y.shape for y in run(module, feeds)]
    assert step(sparse).history[-1].done == ()
    assert json.dumps(plan.to_json()) == json.dumps(step.plan(module.clone(), Context()).to_json())


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ["mlp", "vgg16", "bert", "lstm", "unet", "gqa_decoder"])
def test_n_of_every_m_along_the_summed_axis(name, pattern):
    module, feeds = NETS[name]()
    n, m = map(int, pattern.split(":"))
    sparse = Prune(kind=pattern)(module)
    plan = plan_of(sparse)
    for t in plan.tensors:
        old, new = (np.moveaxis(array(x, t.constant), t.axis, -1).reshape(-1, m) for x in (module, sparse))
        assert ((new != 0).sum(axis=1) <= n).all()
        kept = np.sort(np.abs(old), axis=1)[:, -n:].sum(axis=1)
        assert np.allclose(np.abs(new).sum(axis=1), kept)
    odd = [s for s in plan.skipped if "multiple" in s.why]
    assert plan.tensors or odd
    assert all(s.code is SkipCode.UNSUPPORTED for s in odd)
    assert Prune(kind=pattern)(sparse).history[-1].done == ()
    assert [y.shape for y in run(sparse, feeds)] == [y.shape for y in run(module, feeds)]


@FEW
@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["uniform", "global"]))
def test_more_is_a_superset(one, two, allocation):
    module, _ = NETS["mobilenet"]()
    few, many = (Prune(ratio=r, kind="unstructured", allocation=allocation)(module) for r in sorted((one, two)))
    for name in module.constants:
        assert (array(many, name)[array(few, name) == 0] == 0).all()


def test_nothing_is_the_identity():
    module, _ = mlp()
    assert changed(module, Prune(ratio=0.0, kind="unstructured")(module)) == {}
    bare = Prune(kind="unstructured")(module)
    assert changed(module, bare) == {}
    assert "nothing goes without a ratio" in plan_of(bare).notes[0]
    assert plan_of(bare).skipped == ()


def test_zeros_are_left_alone():
    """They count, and keep their sign; the others lose what is left to lose."""
    module, _ = mlp()
    name = next(v.name for v in module.constants.values() if len(v.constant.shape) == 2)
    signed = array(module, name).copy()
    signed[::2] = -0.0
    module.constants[name].constant = Constant.of(signed)
    half, more = (array(Prune(ratio=r, kind="unstructured")(module), name) for r in (0.5, 0.75))
    assert np.array_equal(half, signed)
    assert np.signbit(half[::2]).all()
    assert np.signbit(more[::2]).all()
    assert (more == 0).sum() == signed.size * 3 // 4


def test_weights_that_are_equal_go_first_come_first():
    """Weights rounded to a few levels: the count is exact all the same."""
    module, _ = mlp()
    for value in module.constants.values():
        if len(value.constant.shape) == 2:
            value.constant = Constant.of(np.where(value.constant.array() > 0, 1, -1).astype(np.float32))
    for allocation in ("uniform", "global"):
        plan = Prune(ratio=0.3, kind="unstructured", allocation=allocation).plan(module, Context())
        assert plan.zeros == (
            0,
            int(0.3 * plan.elements) if allocation == "global" else sum(int(0.3 * t.elements) for t in plan.tensors),
        )


# -- data --------------------------------------------------------------------------------------------------------


class Samples:
    """Calibration data in memory."""

    has_labels = False

    def __init__(self, **inputs: np.ndarray) -> None:
        self.inputs = inputs
        self.names = tuple(inputs)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self, size: int = 1):
        for start in range(0, len(self), size):
            inputs = {name: x[start : start + size] for name, x in self.inputs.items()}
            yield type("Batch", (), {"inputs": inputs, "labels": None, "n": len(next(iter(inputs.values())))})

    def fingerprint(self) -> str:
        return "fixed"


def context(samples: Samples) -> Context:
    runner = OrtRunner(threads=1)
    return Context(data=samples, runner=runner, stats=StreamingStatistics(samples, runner))


def test_data_says_which_weights_matter():
    """An input that is nearly silent: its weights go first, however large they are."""
    module, _ = mlp()
    weight = next(v for v in module.constants.values() if v.constant.shape == (8, 16))
    x = np.random.default_rng(1).standard_normal((32, 8)).astype(np.float32)
    x[:, [2, 5]] *= 1e-4
    sparse = Prune(ratio=0.25, kind="unstructured")(module, context(Samples(x=x)))
    new = array(sparse, weight.name)
    assert (new[[2, 5]] == 0).all()
    assert int((new == 0).sum()) == 32
    assert plan_of(sparse).by_data
    assert any("32 samples" in note for note in plan_of(sparse).notes)
    plain = Prune(ratio=0.25, kind="unstructured", criterion="l1")(module, context(Samples(x=x)))
    assert not plan_of(plain).by_data
    by_magnitude = Prune(ratio=0.25, kind="unstructured")(module)
    assert np.array_equal(array(plain, weight.name), array(by_magnitude, weight.name))


def test_data_without_statistics_is_streamed_and_without_a_runner_refused():
    module, _ = mlp()
    samples = Samples(x=np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32))
    step = Prune(ratio=0.25, kind="unstructured")
    assert step.plan(module, Context(data=samples, runner=OrtRunner(threads=1))) == step.plan(module, context(samples))
    for ctx in (Context(data=samples), Context()):
        with pytest.raises(MlcError) as caught:
            Prune(ratio=0.25, kind="unstructured", criterion="activation").plan(module, ctx)
        assert caught.value.diagnostics[0].code is Code.NO_DATA


@pytest.mark.parametrize("name", ["vgg16", "grouped", "unet", "bert", "gqa_decoder"])
def test_scores_are_magnitude_times_what_is_multiplied(name):
    """The oracle: |w| times the root mean square of the data, computed here from taps, dense."""
    module, feeds = NETS[name]()
    ctx = context(Samples(**feeds))
    sparse = Prune(ratio=0.4, kind="unstructured")(module, ctx)
    assert plan_of(sparse).by_data
    checked = 0
    for op in module.walk():
        if op.kind != "Conv" or op.operand(1).constant is None:
            continue
        x, w = op.operand(0), array(module, op.operand(1).name)
        request = Moments(1)
        for values in [OrtRunner(threads=1).prepare(module, (x.name,)).run(f)[x.name] for f in (feeds,)]:
            request.update(values)
        norm = np.sqrt(request.result()[1])
        groups = op.attrs.get("group", 1)
        per_output = np.repeat(norm.reshape(groups, -1), w.shape[0] // groups, axis=0)
        worth = np.abs(w) * per_output[:, :, None, None]
        gone = array(sparse, op.operand(1).name) == 0
        assert worth[gone].max() <= worth[~gone].min() * (1 + 1e-5)
        checked += 1
    assert checked or name not in ("vgg16", "grouped", "unet")


# -- what is left alone, what is refused -------------------------------------------------------------------------


def test_tables_norms_and_biases_stay_unless_selected():
    module, _ = NETS["bert"]()
    sparse = Prune(ratio=0.5, kind="unstructured")(module)
    assert not {"embedding", "positions"} & set(changed(module, sparse))
    assert all(new.ndim >= 2 for _, new in changed(module, sparse).values())
    gather = next(op.name for op in module.walk() if op.kind == "Gather")
    chosen = Prune(ratio=0.5, kind="unstructured")(module, Context(scope=Scope(on=frozenset({gather}))))
    assert set(changed(module, chosen)) == {"embedding"}


def test_two_readers_that_sum_over_different_axes_have_no_groups():
    module, _ = NETS["tied"]()
    plan = Prune(kind="2:4").plan(module, Context())
    assert [s.why for s in plan.skipped] == ["no axis is summed over by all of its readers"]
    assert Prune(ratio=0.5, kind="unstructured").plan(module, Context()).zeros == (0, 30)


def test_quantized_weights_are_none():
    module, _ = NETS["quantized"]()
    plan = Prune(ratio=0.5, kind="unstructured").plan(module, Context())
    assert [t.site for t in plan.tensors] == [op.name for op in module.walk() if op.kind == "Gemm"]
    net = Layers()
    nothing = Prune(ratio=0.5, kind="unstructured").plan(net.done(net.relu(net.input("x", DType.F32, 4))), Context())
    assert any("no operator multiplies with a weight of floats" in note for note in nothing.notes)


def test_a_tied_table_is_shared():
    net = Layers()
    ids = net.input("ids", DType.I64, "N", 5)
    table = net.const(net.draw(600, 16), "table")
    x = net.dense(net.op("Gather", [table, ids], attrs={"axis": 0}), 16, 16)
    module = net.done(net.op("MatMul", [x, net.op("Transpose", [table], attrs={"perm": Ints((1, 0))})]))
    plan = Prune(ratio=0.5, kind="unstructured").plan(module, Context())
    assert [(s.site, s.code) for s in plan.skipped] == [("table", SkipCode.SHARED)]
    everything = Context(scope=Scope(on=frozenset(op.name for op in module.walk())))
    assert "table" in {t.constant for t in Prune(ratio=0.5, kind="unstructured").plan(module, everything).tensors}


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        ({"kind": "4:2"}, "keeps 4 of 2", Code.OUT_OF_RANGE),
        ({"kind": "0:4"}, "keeps 0 of 4", Code.OUT_OF_RANGE),
        ({"kind": "2:400"}, "keeps 2 of 400", Code.OUT_OF_RANGE),
        ({"kind": "sparse"}, "structured, unstructured, or N:M", Code.OUT_OF_RANGE),
        ({"kind": "2:4", "ratio": 0.5}, "ratio cannot be given with kind=2:4", Code.CANNOT_HONOUR),
        ({"kind": "2:4", "allocation": "global"}, "allocation cannot be given with kind", Code.CANNOT_HONOUR),
        ({"kind": "2:4", "overrides": "fc: 20%"}, "overrides cannot be given with kind", Code.CANNOT_HONOUR),
        ({"kind": "unstructured", "allocation": "flops"}, "allocation cannot be given with kind", Code.CANNOT_HONOUR),
        ({"kind": "unstructured", "criterion": "fpgm"}, "criterion cannot be given with kind", Code.CANNOT_HONOUR),
        ({"kind": "unstructured", "multiple": 8}, "multiple cannot be given with kind", Code.CANNOT_HONOUR),
        ({"kind": "unstructured", "nested": "both"}, "nested cannot be given with kind", Code.CANNOT_HONOUR),
        ({"kind": "unstructured", "widths": True}, "widths cannot be given with kind", Code.CANNOT_HONOUR),
    ],
)
def test_arguments_that_say_nothing_are_refused(options, message, code):
    with pytest.raises(MlcError, match=message) as caught:
        Prune(**options)
    assert caught.value.diagnostics[0].code is code


def test_recipes_name_the_kind():
    for text in ("prune(50%, kind=unstructured)", 'prune(kind="2:4")'):
        recipe = Recipe.parse(text)
        (step,) = Program.of(recipe).steps
        assert str(Recipe.parse(str(step))) == str(step)
    assert Program.of("prune(kind=unstructured)").free
    assert not Program.of('prune(kind="2:4")').free


def test_strength_is_monotone():
    module, _ = mlp()
    zero = [Prune(kind="unstructured").at(s).plan(module, Context()).zeros[1] for s in (0.0, 0.3, 0.6, 1.0)]
    assert zero == sorted(zero)
    assert zero[0] == 0 < zero[1]


def test_overrides_are_per_weight():
    module, _ = mlp()
    first, second = (v.name for v in module.constants.values() if len(v.constant.shape) == 2)
    plan = Prune(ratio=0.5, kind="unstructured", overrides={first: 0.25}).plan(module, Context())
    assert {t.constant: t.zeros_after / t.elements for t in plan.tensors} == {first: 0.25, second: 0.5}
    spared = Prune(kind="2:4", overrides={second: 0}).plan(module, Context())
    assert [t.constant for t in spared.tensors] == [first]


def test_the_report_says_that_it_is_no_faster():
    module, _ = mlp()
    notes = " ".join(Prune(kind="2:4").plan(module, Context()).notes)
    assert "does not get faster" in notes
    assert "50.0% of 256 weights are zero (0.0% were)" in notes


def test_large_weights_are_made_in_pieces(tmp_path):
    """A weight of 64 MiB in a file: deciding and making its zeros takes less than half of that."""
    import mlc

    net = Layers()
    x = net.input("x", DType.F32, "N", 4096)
    module = net.done(net.op("MatMul", [x, net.const(net.rng.standard_normal((4096, 4096), np.float32), "w")]))
    mlc.save(module, tmp_path / "big.onnx")
    loaded = load(tmp_path / "big.onnx")
    del module, net
    tracemalloc.start()
    constant = Prune(ratio=0.5, kind="unstructured")(loaded).constants["w"].constant
    assert not isinstance(constant.payload, ArrayPayload)
    found = sum(int((constant.flat(i, i + (1 << 20)) == 0).sum()) for i in range(0, constant.elements, 1 << 20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == constant.elements // 2
    assert peak < 32 << 20


@real_models("mobilenet_v2", "dnsmos", "ppocrv4_rec", "silero_vad_sequence")
@pytest.mark.parametrize("options", [{"ratio": 0.3, "kind": "unstructured", "allocation": "global"}, {"kind": "2:4"}])
def test_real_models_load_and_run(model, options):
    module, feeds = load(model.path), model.feeds(0)
    sparse = Prune(**options)(module)
    plan = plan_of(sparse)
    before, after = run(module, feeds), run(load(to_proto(sparse)), feeds)
    assert [(y.shape, y.dtype) for y in before] == [(y.shape, y.dtype) for y in after]
    assert all(np.isfinite(y).all() for y in after)
    total = plan.zeros[1] / plan.elements
    assert total == pytest.approx(0.3 if "ratio" in options else 0.5, abs=0.01)
