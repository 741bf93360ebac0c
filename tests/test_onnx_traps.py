"""What real model files do: each trap is imported, exported, and runs as the source does (where it runs at all)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kit.broken_models import good, model, value, weight
from kit.lossless import difference, lost
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mlc.backends.onnx import save, to_proto
from mlc.backends.ort import Session
from mlc.frontends.onnx import load
from mlc.ir.dims import Sym
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.types import SequenceType, TensorType

F, I64, BOOL, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
node = helper.make_node
X = np.arange(8, dtype=np.float32).reshape(2, 4) - 3

Trap = tuple[ModelProto, dict[str, Any]]
TRAPS: dict[str, Callable[[], Trap]] = {}


def trap(build: Callable[[], Trap]) -> Callable[[], Trap]:
    TRAPS[build.__name__] = build
    return build


def constant(name: str, array: Any) -> onnx.NodeProto:
    return node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array)))


def branch(name: str, nodes: list[Any], output: str, initializers: Any = ()) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [value(output)], list(initializers))


@trap
def initializer_is_an_input() -> Trap:
    made = good()
    made.graph.input.append(value("w", shape=(4, 4)))
    return made, {"x": X}


@trap
def initializer_is_an_input_and_is_overridden() -> Trap:
    made = good()
    made.graph.input.append(value("w", shape=(4, 4)))
    return made, {"x": X, "w": np.full((4, 4), 3, np.float32)}


@trap
def initializer_had_to_be_an_input() -> Trap:
    made = good()
    made.graph.input.append(value("w", shape=(4, 4)))
    made.ir_version, made.opset_import[0].version = 3, 8
    return made, {"x": X}


@trap
def output_is_an_input() -> Trap:
    return model([node("Relu", ["x"], ["y"])], outputs=[value("y"), value("x")]), {"x": X}


@trap
def output_is_an_initializer() -> Trap:
    made = good()
    made.graph.output.append(value("w", shape=(4, 4)))
    return made, {"x": X}


@trap
def output_is_a_constant_node() -> Trap:
    nodes = [node("Relu", ["x"], ["y"]), constant("c", X)]
    return model(nodes, outputs=[value("y"), value("c")]), {"x": X}


@trap
def the_same_output_twice() -> Trap:
    return model([node("Relu", ["x"], ["y"])], outputs=[value("y"), value("y")]), {"x": X}


@trap
def nothing_but_an_input() -> Trap:
    return model([], outputs=[value("x")]), {"x": X}


@trap
def optional_inputs_left_out() -> Trap:
    nodes = [constant("hi", np.float32(1)), node("Clip", ["x", "", "hi"], ["y"])]
    return model(nodes), {"x": X}


@trap
def outputs_left_out() -> Trap:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(1, 8, n)).astype(np.float32), name) for name, n in (("w", 4), ("r", 2))
    ]
    nodes = [node("LSTM", ["x", "w", "r"], ["", "y"], hidden_size=2)]
    made = model(nodes, [value("x", shape=(3, 2, 4))], [value("y", shape=(1, 2, 2))], weights)
    return made, {"x": rng.normal(size=(3, 2, 4)).astype(np.float32)}


@trap
def nodes_out_of_order() -> Trap:
    nodes = [node("Relu", ["b"], ["y"]), node("Neg", ["a"], ["b"]), node("Abs", ["x"], ["a"])]
    return model(nodes), {"x": X}


@trap
def bodies_capture() -> Trap:
    nodes = [
        node("Abs", ["x"], ["a"]),
        node("If", ["c"], ["y"], then_branch=branch("t", [node("Add", ["a", "x"], ["t"])], "t"),
             else_branch=branch("e", [node("Mul", ["a", "w"], ["e"])], "e")),
    ]  # fmt: skip
    return model(nodes, [value("x"), value("c", BOOL, ())], initializers=[weight(shape=(2, 4))]), {
        "x": X,
        "c": np.array(False),
    }


@trap
def bodies_out_of_order_capture() -> Trap:
    made, feeds = bodies_capture()
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend(reversed(nodes))
    return made, feeds


@trap
def names_are_shadowed_in_siblings() -> Trap:
    def body(kind: str) -> onnx.GraphProto:
        return branch(
            kind, [node(kind, ["x"], ["t"]), node("Add", ["t", "w2"], ["out"])], "out", [weight("w2", (2, 4))]
        )

    nodes = [
        node("If", ["c"], ["a"], then_branch=body("Abs"), else_branch=body("Neg")),
        node("If", ["c"], ["b"], then_branch=body("Exp"), else_branch=body("Sin")),
        node("Add", ["a", "b"], ["y"]),
    ]
    return model(nodes, [value("x"), value("c", BOOL, ())]), {"x": X, "c": np.array(True)}


@trap
def loop_whose_output_is_its_input() -> Trap:
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), constant("one", np.float32(1)), node("Add", ["s", "one"], ["t"])],
        "body",
        [value("i", I64, ()), value("go", BOOL, ()), value("k"), value("s")],
        [value("on", BOOL, ()), value("k"), value("t")],
    )
    nodes = [constant("n", np.array(3)), node("Loop", ["n", "", "x", "x"], ["kept", "y"], body=body)]
    return model(nodes, outputs=[value("kept"), value("y")]), {"x": X}


@trap
def constants_of_every_form() -> Trap:
    forms: dict[str, Any] = {
        "a": {"value_float": 1.5},
        "b": {"value_floats": [1.0, 2.0, 3.0, 4.0]},
        "i": {"value_int": 3},
        "j": {"value_ints": [1, 2]},
        "s": {"value_string": "text"},
        "t": {"value_strings": ["a", "\u00e9"]},
    }
    nodes = [node("Constant", [], [name], **form) for name, form in forms.items()]
    nodes.append(node("Sum", ["x", "a", "b"], ["y"]))
    outputs = [value("y"), value("i", I64, ()), value("j", I64, (2,)), value("s", STRING, ()), value("t", STRING, (2,))]
    return model(nodes, outputs=outputs), {"x": X}


@trap
def sparse_tensors() -> Trap:
    indices = numpy_helper.from_array(np.array([1, 6], np.int64), "i")
    values = numpy_helper.from_array(np.array([5, 7], np.float32), "w")
    made = model([node("Add", ["x", "w"], ["y"])])
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 4]))
    return made, {"x": X}


@trap
def text_in_and_out() -> Trap:
    nodes = [node("StringConcat", ["s", "w"], ["y"])]
    tensor = helper.make_tensor("w", STRING, [2], [b"-1", b"-\xc3\xa9"])
    made = model(nodes, [value("s", STRING, ("N",))], [value("y", STRING, ("N",))], [tensor])
    return made, {"s": np.array(["a", "b"], object)}


@trap
def sequences() -> Trap:
    nodes = [
        constant("at", np.array(1)),
        node("SequenceConstruct", ["x", "x"], ["q"]),
        node("SequenceAt", ["q", "at"], ["y"]),
    ]
    outputs = [value("y"), helper.make_tensor_sequence_value_info("q", F, (2, 4))]
    return model(nodes, outputs=outputs), {"x": X}


@trap
def wrong_value_info() -> Trap:
    nodes = [node("Relu", ["x"], ["m"]), node("Neg", ["m"], ["y"])]
    made = model(nodes, [value("x", shape=("N", 4))], [value("y", shape=("N", 4))])
    made.graph.value_info.append(value("m", shape=(17, 4)))
    return made, {"x": X}


@trap
def domains_nobody_uses() -> Trap:
    made = good()
    made.opset_import.append(helper.make_opsetid("org.pytorch.aten", 1))
    made.opset_import.append(helper.make_opsetid("Paddle", 1))
    return made, {"x": X}


@trap
def operators_of_the_runtime() -> Trap:
    made = model([node("Gelu", ["x"], ["y"], domain="com.microsoft")])
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made, {"x": X}


@trap
def duplicate_node_names() -> Trap:
    nodes = [node("Relu", ["x"], ["a"], "same"), node("Neg", ["a"], ["y"], "same")]
    return model(nodes), {"x": X}


@trap
def half_precision() -> Trap:
    array = np.array([[1.5, -2, np.inf, 0]], np.float16)
    made = model([node("Cast", ["w"], ["v"], to=F), node("Add", ["x", "v"], ["y"])])
    made.graph.initializer.append(numpy_helper.from_array(array, "w"))
    return made, {"x": X}


@trap
def typed_fields() -> Trap:
    made = good()
    made.graph.initializer[0].CopyFrom(helper.make_tensor("w", F, [4, 4], [float(i) for i in range(16)]))
    return made, {"x": X}


@trap
def large_typed_field() -> Trap:
    made = model([node("MatMul", ["x", "w"], ["y"])], outputs=[value("y", shape=(2, 500))])
    made.graph.initializer.append(helper.make_tensor("w", F, [4, 500], np.arange(2000, dtype=np.float32)))
    return made, {"x": X}


@trap
def zero_size_and_rank_0() -> Trap:
    made = model([node("Concat", ["x", "z"], ["m"], axis=1), node("Add", ["m", "s"], ["y"])])
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((2, 0), np.float32), "z"))
    made.graph.initializer.append(numpy_helper.from_array(np.float32(2), "s"))
    return made, {"x": X}


@trap
def local_functions() -> Trap:
    made = model([node("Twice", ["x"], ["m"], domain="local"), node("Twice", ["m"], ["y"], domain="local")])
    made.opset_import.append(helper.make_opsetid("local", 1))
    body = [node("Plus", ["a"], ["t"], domain="local"), node("Add", ["t", "a"], ["b"])]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    made.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, imports))
    made.functions.append(helper.make_function("local", "Plus", ["a"], ["b"], [node("Abs", ["a"], ["b"])], imports[:1]))
    return made, {"x": X}


@trap
def old_softmax_in_the_middle() -> Trap:
    made = model(
        [node("Softmax", ["x"], ["y"], "soft", axis=1)], [value("x", shape=(2, 4, 1))], [value("y", shape=(2, 4, 1))]
    )
    made.opset_import[0].version, made.ir_version = 11, 6
    return made, {"x": X.reshape(2, 4, 1)}


@pytest.mark.parametrize("name", TRAPS)
def test_runs_as_before(name: str, tmp_path: Path) -> None:
    made, feeds = TRAPS[name]()
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    source.write_bytes(made.SerializeToString())
    module = load(source)
    save(module, out)
    written = onnx.load(out)
    onnx.checker.check_model(written, full_check="microsoft" not in str(written.opset_import))
    if name not in {"sparse_tensors", "nodes_out_of_order", "duplicate_node_names", "wrong_value_info"}:
        assert lost(made, written) == []
    results = Session(out, optimize=False)
    found = results.run(feeds)
    if name != "duplicate_node_names":  # which ONNX Runtime refuses
        wanted = Session(source, optimize=False).run(feeds)
        assert list(found) == list(wanted)
        assert [difference(wanted[k], found[k]) for k in wanted] == [0.0] * len(wanted)
    assert out.read_bytes() == (save(load(source), out, overwrite=True), out.read_bytes())[1], "same bytes each time"
    again = to_proto(load(out))
    assert lost(written, again) == [], "a second trip changes nothing"


def test_a_default_is_an_argument_and_no_constant() -> None:
    module = load(TRAPS["initializer_is_an_input"]()[0])
    assert list(module.defaults) == ["w"]
    assert not module.constants
    assert [v.name for v in module.graph.inputs] == ["x", "w"]


def test_before_ir_version_4_such_an_initializer_is_a_constant() -> None:
    module = load(TRAPS["initializer_had_to_be_an_input"]()[0])
    assert not module.defaults
    assert list(module.constants) == ["w"]


def test_old_softmax_is_one_operator_again() -> None:
    module = load(TRAPS["old_softmax_in_the_middle"]()[0])
    (op,) = module.graph.ops
    assert (op.kind, dict(op.attrs), op.name, op.result.name) == ("Softmax", {"axis": 1}, "soft", "y")


def test_old_softmax_over_two_axes_stays_flattened() -> None:
    made = model([node("Softmax", ["x"], ["y"], axis=1)], [value("x", shape=(2, 3, 4))], [value("y", shape=None)])
    made.opset_import[0].version, made.ir_version = 11, 6
    assert [op.kind for op in load(made).graph.ops] == ["Shape", "Flatten", "Softmax", "Reshape"]


def test_values_without_value_info_are_typed() -> None:
    nodes = [node("Shape", ["x"], ["s"]), node("Cast", ["s"], ["f"], to=F), node("SequenceConstruct", ["f"], ["q"])]
    outputs = [helper.make_tensor_sequence_value_info("q", F, None)]
    module = load(model(nodes, [value("x", shape=("N", 4))], outputs))
    types = {v.name: v.type for op in module.graph.ops for v in op.results}
    assert types["s"] == TensorType(DType.I64, (2,))
    assert types["f"] == TensorType(DType.F32, (2,))
    assert isinstance(types["q"], SequenceType)


def test_a_question_mark_is_no_name() -> None:
    made = model([node("Relu", ["x"], ["y"])], [value("x", shape=("?", "?"))], [value("y", shape=("?", "?"))])
    module = load(made)
    (x,) = module.graph.inputs
    assert isinstance(x.type, TensorType)
    assert x.type.shape[0] != x.type.shape[1], "two unknown sizes are not one"
    assert lost(made, to_proto(module)) == [], "yet the file keeps them"


def test_dim_names_are_shared() -> None:
    made = model([node("Add", ["x", "z"], ["y"])], [value("x", shape=("N", 4)), value("z", shape=("N", 4))])
    x, z = load(made).graph.inputs
    assert isinstance(x.type, TensorType)
    assert x.type.shape == (Sym("N"), 4)
    assert x.type == z.type


def test_unknown_domains_are_opaque_and_kept() -> None:
    frob = node("Frob", ["x", ""], ["m"], "f", domain="my.ops", strength=2.5, axes=[1, 2], mode="fast")
    frob.attribute.append(helper.make_attribute("empty", [], attr_type=onnx.AttributeProto.INTS))
    made = model([frob, node("Relu", ["m"], ["y"])])
    made.opset_import.append(helper.make_opsetid("my.ops", 7))
    module = load(made)
    assert module.opsets == {"my.ops": 7}
    assert lost(made, to_proto(module)) == []


def test_metadata_and_docs_survive() -> None:
    made = good()
    helper.set_model_props(made, {"character": "0\n1\n2", "author": "somebody"})
    made.graph.metadata_props.add(key="g", value="1")
    made.producer_name, made.producer_version, made.domain, made.model_version = "tool", "1.2", "org.x", 7
    made.doc_string, made.graph.doc_string = "a model", "a graph"
    made.graph.input[0].doc_string, made.graph.output[0].doc_string = "in", "out"
    made.graph.node[0].doc_string = "a node"
    made.graph.node[0].metadata_props.add(key="k", value="v")
    for opset in (21, 13):
        made.opset_import[0].version = opset
        written = to_proto(load(made))
        assert lost(made, written) == []
        assert written.graph.node[0].doc_string == "a node"
        assert [(p.key, p.value) for p in written.graph.node[0].metadata_props] == [("k", "v")]


def test_value_info_of_the_file_and_no_other() -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("Neg", ["a"], ["b"]), node("Exp", ["b"], ["y"])]
    for opset in (21, 11):
        made = model(nodes, opset=opset)
        made.graph.value_info.append(value("b"))
        assert [v.name for v in to_proto(load(made)).graph.value_info] == ["b"]


def test_bytes_protos_and_paths_are_one(tmp_path: Path) -> None:
    made, _ = TRAPS["large_typed_field"]()
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    written = [to_proto(load(m)) for m in (made, made.SerializeToString(), path)]
    assert written[0] == written[1] == written[2]


def test_names_of_constants_in_bodies_are_unique() -> None:
    module = load(TRAPS["names_are_shadowed_in_siblings"]()[0])
    names = [v.name for v in module.values()]
    assert len(set(names)) == len(names)
    written = to_proto(module)
    homes = [[t.name for t in a.g.initializer] for n in written.graph.node for a in n.attribute]
    assert homes == [["w2"], ["w2_1"], ["w2_2"], ["w2_3"]], "each stays in the body that reads it"


@pytest.mark.parametrize("wrap", [helper.make_sequence_type_proto, helper.make_optional_type_proto])
def test_what_holds_maps_is_refused(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    """A ZipMap makes a sequence of maps, of which there is no type here."""
    made = good()
    inner = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    made.graph.output[0].type.CopyFrom(wrap(inner))
    onnx.save(made, str(tmp_path / "m.onnx"))
    with pytest.raises(MlcError, match="the value is a map"):
        load(tmp_path / "m.onnx")


def test_a_group_norm_with_one_scale_for_each_group_is_refused(tmp_path: Path) -> None:
    """Opset 21 reads the scale channel by channel, and the version converter leaves it as it was."""
    built = model(
        [node("GroupNormalization", ["x", "s", "b"], ["y"], name="norm", num_groups=2)],
        [value("x", shape=(1, 4, 3))],
        [value("y", shape=(1, 4, 3))],
        [weight("s", (2,)), weight("b", (2,))],
        opset=18,
    )
    onnx.save(built, tmp_path / "old.onnx")
    with pytest.raises(MlcError, match="GroupNormalization of opset 18 has another meaning than from 21 on"):
        load(tmp_path / "old.onnx")
