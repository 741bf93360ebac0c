"""Agreement, synthetic probes and single-operator checks: what artifacts are judged by."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kit.real import RealModel, all_models
from kit.two_layers import samples, two_layers
from onnx import TensorProto, helper, numpy_helper

import mlc
from mlc.backends.agreement import AgreementMeter
from mlc.backends.legalize import legalize
from mlc.backends.ort import Session
from mlc.backends.probe import synthetic
from mlc.backends.single_op import check_changed_ops
from mlc.frontends.onnx import load
from mlc.ir.errors import Code, MlcError, error

RNG = np.random.default_rng(0)


def meter(*pairs: tuple[dict[str, Any], dict[str, Any]]) -> AgreementMeter:
    found = AgreementMeter()
    for reference, other in pairs:
        found.update(reference, other)
    return found


def test_large_outputs_are_compared_in_pieces() -> None:
    """As a whole they would be widened to eight times their size; what a later piece holds counts like the first."""
    a = RNG.standard_normal((1, 1 << 21)).astype(np.float32)
    b = a.copy()
    b[0, -1] = 9
    meter(({"y": a}, {"y": b}))
    tracemalloc.start()
    found = meter(({"y": a}, {"y": b})).result()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < a.nbytes
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    assert found.cosine == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)), abs=1e-12)
    assert found.max_relative == pytest.approx(float(abs(a[0, -1] - 9) / np.abs(a).max()), rel=1e-6)
    b[0, -1] = np.nan
    assert meter(({"y": a}, {"y": b})).result().cosine == 0.0


def test_equal_outputs_agree_fully() -> None:
    y = RNG.standard_normal((4, 5))
    result = meter(({"y": y, "i": np.arange(3)}, {"y": y, "i": np.arange(3)})).result()
    assert (result.cosine, result.max_relative, result.top1, result.integers_equal) == (1.0, 0.0, 1.0, True)
    assert result.sqnr_db == math.inf
    assert result.to_json()["sqnr_db"] is None


def test_sums_over_samples_equal_the_whole() -> None:
    a, b = RNG.standard_normal((10, 6)), RNG.standard_normal((10, 6))
    result = meter(*(({"y": a[i : i + 1]}, {"y": b[i : i + 1]}) for i in range(10))).result()
    assert result.cosine == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    assert result.sqnr_db == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()))
    assert result.max_relative == pytest.approx(np.abs(a - b).max() / np.abs(a).max())
    assert result.top1 == (a.argmax(1) == b.argmax(1)).mean()


def test_the_worst_output_counts_and_masks_may_be_infinite() -> None:
    good, bad = np.array([[1.0, -np.inf, 2.0]]), np.array([[1.0, 2.0]])
    result = meter(({"a": good, "b": bad}, {"a": good.copy(), "b": bad[:, ::-1]})).result()
    assert result.cosine == pytest.approx(0.8)
    assert result.top1 == 0.0


@pytest.mark.parametrize(
    "other",
    [np.array([[1.0, np.nan]]), np.array([[1.0]]), np.array([[1.0, np.inf]]), None],
    ids=["nan", "shape", "inf", "missing"],
)
def test_broken_outputs_count_as_nothing_in_common(other: Any) -> None:
    result = meter(({"y": np.array([[1.0, 2.0]])}, {"y": other} if other is not None else {})).result()
    assert result.cosine == 0.0
    assert result.max_relative == math.inf


def test_equal_nans_are_no_agreement() -> None:
    nothing = np.full((2, 3), np.nan)
    result = meter(({"y": nothing}, {"y": nothing.copy()})).result()
    assert result.cosine == 0.0
    assert meter(({"y": np.zeros((0, 3))}, {"y": np.zeros((0, 3))})).result().cosine == 1.0


def test_integers_must_be_equal() -> None:
    assert not meter(({"i": np.arange(3)}, {"i": np.arange(3) + 1})).result().integers_equal


def embedding_model(path: Path) -> Path:
    """ids [B, T] -> Gather of 7 rows; a mode that must be 3; a mask."""
    value, integers = helper.make_tensor_value_info, TensorProto.INT64
    nodes = [
        helper.make_node("Cast", ["ids"], ["cast"], to=TensorProto.INT32),
        helper.make_node("Gather", ["table", "cast"], ["rows"], axis=0),
        helper.make_node("Equal", ["mode", "three"], ["is_three"]),
        helper.make_node("Cast", ["mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["masked"]),
        helper.make_node("Cast", ["is_three"], ["gate"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["masked", "gate"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [value("ids", integers, ["B", "T"]), value("mask", integers, ["B", "T"]), value("mode", integers, [])],
        [value("y", TensorProto.FLOAT, ["B", "T", 4])],
        [
            numpy_helper.from_array(RNG.standard_normal((7, 4)).astype(np.float32), "table"),
            numpy_helper.from_array(np.array(3), "three"),
            numpy_helper.from_array(np.array([-1]), "last"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_probes_follow_from_what_the_graph_does_with_its_inputs(tmp_path: Path) -> None:
    path = embedding_model(tmp_path / "m.onnx")
    probes = synthetic(load(path), Session(path).run, dims={"T": 9}, rng=np.random.default_rng(0), samples=3)
    assert probes.binding == {"B": 1, "T": 9}
    for feed in probes.feeds:
        assert feed["ids"].shape == (1, 9)
        assert 0 <= feed["ids"].min() <= feed["ids"].max() < 7
        assert (feed["mask"] == 1).all()
        assert int(feed["mode"]) == 3
    assert any(not np.array_equal(probes.feeds[0]["ids"], f["ids"]) for f in probes.feeds[1:])


def test_probes_reach_every_branch_and_amplitude(tmp_path: Path) -> None:
    value, shape = helper.make_tensor_value_info, [1, 3]

    def branch(name: str, kind: str) -> onnx.GraphProto:
        node = helper.make_node(kind, ["x"], [f"{name}_y"])
        return helper.make_graph([node], name, [], [value(f"{name}_y", TensorProto.FLOAT, shape)])

    nodes = [
        helper.make_node("Equal", ["rate", "fast"], ["is_fast"]),
        helper.make_node("Equal", ["rate", "slow"], ["is_slow"]),
        helper.make_node("Or", ["is_fast", "is_slow"], ["known"]),
        helper.make_node("If", ["is_fast"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Tanh")),
    ]
    inputs = [value("x", TensorProto.FLOAT, shape), value("rate", TensorProto.INT64, [])]
    outputs = [value("y", TensorProto.FLOAT, shape), value("known", TensorProto.BOOL, [])]
    rates = [numpy_helper.from_array(np.array(r), n) for r, n in ((16000, "fast"), (8000, "slow"))]
    graph = helper.make_graph(nodes, "net", inputs, outputs, rates)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    probes = synthetic(load(path), Session(path).run, dims={}, rng=np.random.default_rng(0))
    assert {int(f["rate"]) for f in probes.feeds} == {16000, 8000}
    sizes = [float(np.abs(f["x"]).mean()) for f in probes.feeds]
    assert max(sizes[1::2]) < min(sizes[::2])


def test_probes_that_cannot_run_are_refused_with_advice(tmp_path: Path) -> None:
    path = embedding_model(tmp_path / "m.onnx")

    def refuse(feeds: object) -> None:
        raise error(Code.RUNTIME, "no")

    with pytest.raises(MlcError, match="no synthetic input runs") as caught:
        synthetic(load(path), refuse, dims={}, rng=RNG)
    assert "--dims B=...,T=..." in str(caught.value)
    with pytest.raises(MlcError, match="no dimension 'Q'") as caught:
        synthetic(load(path), Session(path).run, dims={"Q": 3}, rng=RNG)
    assert "B, T" in str(caught.value)


def quantized() -> Any:
    weights = RNG.standard_normal((64, 48)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 48])],
        [numpy_helper.from_array(weights, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return legalize(mlc.passes.Int4()(load(proto))).module


def test_changed_operators_are_run_alone() -> None:
    (line,) = check_changed_ops(quantized(), seed=0).values()
    assert "cosine 0.99" in line or "cosine 1.0" in line


def test_an_operator_that_computes_something_else_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault injection: the runtime's results arrive in another order."""
    from mlc.backends import single_op

    class Reversing(Session):
        def run(self, feeds: Any, outputs: Any = None) -> dict[str, Any]:
            return {name: value[..., ::-1] for name, value in super().run(feeds, outputs).items()}

    monkeypatch.setattr(single_op, "Session", Reversing)
    with pytest.raises(MlcError, match="differently from its definition"):
        check_changed_ops(quantized(), seed=0)


@all_models()
def test_every_real_model_gets_probes_that_run(model: RealModel) -> None:
    session = Session(model.path)
    probes = synthetic(load(model.path), session.run, dims={}, rng=np.random.default_rng(1), samples=2)
    assert all(np.isfinite(a).all() for a in session.run(probes.feeds[1]).values() if a.dtype.kind == "f")


def test_samples_that_calibrate_and_judge_are_told_of(tmp_path: Path) -> None:
    """One file for both says little of others; a split of it, or a recipe that learns nothing, says what it says."""
    model, data = two_layers(tmp_path), samples(tmp_path, 24)
    said = "the samples that judge are of the data that calibrate"
    options = {"data": data, "check": "fast"}
    assert any(said in w for w in mlc.compile(model, "int8", eval=data, **options).report["warnings"])
    assert not any(said in w for w in mlc.compile(model, "int8", **options).report["warnings"])
    assert not any(said in w for w in mlc.compile(model, "simplify", eval=data, **options).report["warnings"])


def test_few_samples_that_judge_are_told_of(tmp_path: Path) -> None:
    """A split of 24 leaves 3 of them to judge; recipes that learn nothing are no worse on others."""
    (more := tmp_path / "more").mkdir()
    model, few, many = two_layers(tmp_path), samples(tmp_path, 24), samples(more, 80)

    def told(recipe: str, **data: Path) -> list[str]:
        return [w for w in mlc.compile(model, recipe, check="fast", **data).report["warnings"] if "samples judge" in w]

    (said,) = told("int8", data=few)
    assert "which says little of others" in said
    assert not told("int8", data=few, eval=many)
    assert not told("int8", data=many)
    assert not told("simplify", data=few)
