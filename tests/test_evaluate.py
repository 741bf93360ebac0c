"""The numpy reference: single ops, bodies, whole models against ONNX Runtime."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from kit.real import RealModel, real_models
from kit.single import make

from mlc.backends.ort import Session
from mlc.frontends.onnx import load
from mlc.ir.constants import Constant
from mlc.ir.core import Ints, Module
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError
from mlc.ir.evaluate import evaluate, evaluate_op
from mlc.ir.types import tensor


def module(text: str) -> Module:
    return load(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]>\n{text}'))


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_one_op() -> None:
    np.testing.assert_array_equal(evaluate_op(make("Add", [(2, 3), (3,)]), [X, X[0]])[0], X + X[0])
    op = make("TopK", [(2, 3), tensor(DType.I64, 1)], {"axis": 1}, results=2)
    values, indices = evaluate_op(op, [X, np.array([1])])
    assert values.tolist() == [[2], [5]]
    assert indices.tolist() == [[2], [2]]


def test_optional_operands_and_attributes() -> None:
    op = make("Clip", [(2, 3), None, ()])
    assert evaluate_op(op, [X, None, np.float32(2)])[0].max() == 2
    (found,) = evaluate_op(
        make("ConstantOfShape", [np.array([2])], {"value": Constant.of(np.array([7]))}), [np.array([2])]
    )
    assert found.tolist() == [7, 7]
    assert found.dtype == np.int64


def test_pads_that_cut() -> None:
    (found,) = evaluate_op(make("Pad", [(2, 3), np.array([0, -1, 0, 1])]), [X, np.array([0, -1, 0, 1])])
    assert found.tolist() == [[1, 2, 0], [4, 5, 0]]
    (found,) = evaluate_op(make("Pad", [(2, 3)], {"mode": "edge"}), [X, np.array([1, 1]), None, np.array([-1])])
    assert found[0].tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4), (2, 3, 0, 4), (2, 3, 4, 5)])
def test_averages_of_nothing(shape: tuple[int, ...]) -> None:
    """ONNX's own reference divides by zero."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (found,) = evaluate_op(make("GlobalAveragePool", [shape]), [x])
    assert found.shape == (*shape[:2], *(1 for _ in shape[2:]))
    assert found.dtype == np.float32
    if 0 in shape[2:]:
        assert np.isnan(found).all()
    else:
        np.testing.assert_allclose(found, x.mean(axis=tuple(range(2, x.ndim)), keepdims=True), rtol=1e-5)


def test_version_matters() -> None:
    """Reductions took their axes as an attribute once."""
    op = make("ReduceMean", [(2, 3)], {"axes": Ints((1,)), "keepdims": 0})
    old = load(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 13]> g (float[N] x) => (float[N] y) { y = Relu (x) }'
        )
    )
    old.opset = 13
    assert evaluate_op(op, [X], module=old)[0].tolist() == [1, 4]


def test_random_and_unknown_operators_are_refused() -> None:
    for kind, message in (("RandomUniformLike", "random"), ("com.acme::Mystery", "no reference")):
        with pytest.raises(MlcError, match=message) as caught:
            evaluate_op(make(kind, [(2, 3)]), [X])
        assert caught.value.diagnostics[0].code is Code.UNSUPPORTED_MODEL


def test_it_is_quick_enough_to_fold_with() -> None:
    op = make("Add", [(3,), (3,)])
    evaluate_op(op, [X[0], X[0]])
    start = time.process_time()
    for _ in range(200):
        evaluate_op(op, [X[0], X[0]])
    assert (time.process_time() - start) / 200 < 2e-3


BRANCH = """g (bool c, float[2, 3] x) => (float[2, 3] y) {
    z = Neg (x)
    y = If (c) <then_branch = t () => (float[2, 3] a) { a = Add (x, z) },
                else_branch = e () => (float[2, 3] b) { b = Mul (x, z) }> }"""


@pytest.mark.parametrize(("flag", "wanted"), [(True, X - X), (False, -X * X)])
def test_branches_see_what_is_around_them(flag: bool, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(evaluate(module(BRANCH), {"c": np.array(flag), "x": X})[0], wanted)


LOOP = """g (int64 n, bool c, float[2, 3] x) => (float[2, 3] y, float[R, 2, 3] s) {
    y, s = Loop (n, c, x) <body = b (int64 i, bool on, float[2, 3] v) => (bool still, float[2, 3] w, float[2, 3] u) {
        limit = Constant <value_int = 2> ()
        still = Less (i, limit)
        w = Add (v, x)
        u = Identity (v) }> }"""


@pytest.mark.parametrize(("trips", "start", "rounds"), [(2, True, 2), (9, True, 3), (9, False, 0), (0, True, 0)])
def test_loops_stop_at_the_count_or_the_condition(trips: int, start: bool, rounds: int) -> None:
    y, s = evaluate(module(LOOP), {"n": np.array(trips), "c": np.array(start), "x": X})
    np.testing.assert_array_equal(y, X * (rounds + 1))
    assert s.shape == (rounds, 2, 3)
    assert s.dtype == np.float32


def test_scan_runs_backwards_along_any_axis() -> None:
    m = module(
        """g (float[3] h, float[3, T] x) => (float[3] last, float[3, T] all) {
             last, all = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
                 scan_input_directions = [1], body = b (float[3] s, float[3] r) => (float[3] t, float[3] o) {
                     t = Add (s, r)
                     o = Identity (t) }> (h, x) }"""
    )
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    last, every = evaluate(m, {"h": np.zeros(3, np.float32), "x": x})
    np.testing.assert_array_equal(last, x.sum(1))
    np.testing.assert_array_equal(every, np.cumsum(x[:, ::-1], 1))


def test_nested_bodies_and_odd_outputs() -> None:
    """An output that is an input, one that is a constant, one twice; a loop inside a branch."""
    m = module(
        """g (bool c, float[3] x) => (float[3] x2, float[2] k, float[3] y, float[3] y2) {
             k = Constant <value_floats = [1.0, 2.0]> ()
             x2 = Identity (x)
             y = If (c) <then_branch = t () => (float[3] a) {
                     n = Constant <value_int = 3> ()
                     a = Loop (n, , x) <body = b (int64 i, bool on, float[3] v) => (bool on2, float[3] w) {
                         on2 = Identity (on)
                         w = Add (v, x) }> },
                 else_branch = e () => (float[3] z) { z = Identity (x) }>
             y2 = Identity (y) }"""
    )
    x = np.array([1, 2, 3], np.float32)
    found = evaluate(m, {"c": np.array(True), "x": x})
    assert [f.tolist() for f in found] == [[1, 2, 3], [1, 2], [4, 8, 12], [4, 8, 12]]


def test_a_missing_input_is_named() -> None:
    with pytest.raises(MlcError, match="'x' is missing") as caught:
        evaluate(module(BRANCH), {"c": np.array(True)})
    assert caught.value.diagnostics[0].code is Code.BAD_DATA


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@real_models("silero_vad", "silero_vad_op15", "mnist_cnn", "mobilenet_v2", "ppocr_cls", "khmersm", "minilm_int8")
def test_real_models_agree_with_the_runtime(model: RealModel) -> None:
    feeds = model.feeds(seed=0)
    wanted = Session(model.path, optimize=False).run(feeds)
    for ours, theirs in zip(evaluate(load(model.path), feeds), wanted.values(), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
