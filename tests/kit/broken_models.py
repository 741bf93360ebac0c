"""Broken and hostile model files: each must end in exactly one clear error, whoever reads it.

for case in BROKEN: path = case.build(folder); ... expects case.code
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mlc.ir.protowire import length_delimited

F, I64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass(frozen=True)
class Broken:
    """One broken model: its name, the code of its error, a word the message must hold, and what writes it."""

    name: str
    code: str
    says: str
    write: Callable[[Path], Path]
    #: Weights are read only by those who compress them: `load` accepts the file, `check_weights` refuses it.
    weights_only: bool = False


BROKEN: list[Broken] = []


def case(code: str, says: str, *, weights_only: bool = False) -> Callable[[Callable[[Path], Any]], Any]:
    """Registers a builder: it writes into the folder and returns the path, or returns a model to be written."""

    def register(build: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def write(folder: Path) -> Path:
            made = build(folder)
            path = folder / "model.onnx"
            if isinstance(made, ModelProto):
                path.write_bytes(made.SerializeToString())
            elif isinstance(made, bytes):
                path.write_bytes(made)
            return made if isinstance(made, Path) else path

        BROKEN.append(Broken(build.__name__.replace("_", "-"), code, says, write, weights_only))
        return build

    return register


# -- pieces -----------------------------------------------------------------------------------------------------


def value(name: str, dtype: int = F, shape: Any = (2, 4)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def weight(name: str = "w", shape: tuple[int, ...] = (4, 4), fill: float = 1.0) -> TensorProto:
    return numpy_helper.from_array(np.full(shape, fill, np.float32), name)


def model(
    nodes: list[NodeProto],
    inputs: Any = None,
    outputs: Any = None,
    initializers: Any = (),
    *,
    opset: int = 21,
    ir: int = 10,
    **more: Any,
) -> ModelProto:
    graph = helper.make_graph(
        nodes, "g", inputs or [value("x")], [value("y")] if outputs is None else outputs, list(initializers)
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir, **more)


def good() -> ModelProto:
    """What the broken ones are made from: y = relu(x w)."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], "mm"), helper.make_node("Relu", ["m"], ["y"], "act")]
    return model(nodes, initializers=[weight()])


def external(location: str, *, offset: str = "0", length: str = "64", data: bytes | None = None) -> ModelProto:
    made = good()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=text)
    return made


# -- files that are no models -----------------------------------------------------------------------------------


@case("E0803", "does not exist")
def missing_file(folder: Path) -> Path:
    return folder / "nowhere.onnx"


@case("E0601", "is a directory")
def directory(folder: Path) -> Path:
    return folder


@case("E0601", "is empty")
def empty_file(folder: Path) -> bytes:
    return b""


@case("E0601", "cut short")
def truncated(folder: Path) -> bytes:
    data = good().SerializeToString()
    return data[: len(data) * 2 // 3]


@case("E0601", "cut short")
def truncated_weights(folder: Path) -> bytes:
    made = good()
    made.graph.initializer[0].CopyFrom(weight("w", (4, 4000)))
    return made.SerializeToString()[:-5000]


@case("E0601", "not an ONNX model")
def random_bytes(folder: Path) -> bytes:
    return np.random.default_rng(0).bytes(10_000)


@case("E0601", "is text")
def text_file(folder: Path) -> bytes:
    return b"this is not a model\n" * 100


@case("E0601", "Git LFS")
def lfs_pointer(folder: Path) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"


@case("E0601", "no ONNX graph")
def no_graph(folder: Path) -> ModelProto:
    return ModelProto(ir_version=10, opset_import=[helper.make_opsetid("", 21)])


@case("E0601", "")
def flipped_bytes(folder: Path) -> bytes:
    data = bytearray(good().SerializeToString())
    data[2:40] = bytes(255 - b for b in data[2:40])
    return bytes(data)


# -- versions ---------------------------------------------------------------------------------------------------


@case("E0604", "opset 999")
def opset_of_the_future(folder: Path) -> ModelProto:
    made = good()
    made.opset_import[0].version = 999
    return made


@case("E0602", "opset 0")
def opset_zero(folder: Path) -> ModelProto:
    made = good()
    made.opset_import[0].version = 0
    return made


@case("E0602", "no opset")
def opset_absent(folder: Path) -> ModelProto:
    made = good()
    del made.opset_import[:]
    return made


@case("E0604", "IR version 99")
def ir_version_of_the_future(folder: Path) -> ModelProto:
    made = good()
    made.ir_version = 99
    return made


@case("E0604", "no operator Frobnicate")
def unknown_operator(folder: Path) -> ModelProto:
    return model([helper.make_node("Frobnicate", ["x"], ["y"])])


@case("E0604", "Scan")
def scan_of_opset_8(folder: Path) -> ModelProto:
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["t"]), helper.make_node("Identity", ["t"], ["u"])],
        "body",
        [value("s", shape=(4,)), value("e", shape=(4,))],
        [value("t", shape=(4,)), value("u", shape=(4,))],
    )
    node = helper.make_node("Scan", ["", "s0", "x"], ["sn", "y"], body=body, num_scan_inputs=1)
    inputs = [value("s0", shape=(1, 4)), value("x", shape=(1, 3, 4))]
    return model([node], inputs, [value("y", shape=(1, 3, 4))], opset=8, ir=3)


# -- names and structure ----------------------------------------------------------------------------------------


@case("E0602", "cycle")
def cycle(folder: Path) -> ModelProto:
    return model([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]),
                  helper.make_node("Relu", ["b"], ["y"])])  # fmt: skip


@case("E0602", "'nothing'")
def undefined_input(folder: Path) -> ModelProto:
    return model([helper.make_node("Add", ["x", "nothing"], ["y"])])


@case("E0602", "'z'")
def undefined_output(folder: Path) -> ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], outputs=[value("z")])


@case("E0602", "no outputs")
def no_outputs(folder: Path) -> ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], outputs=[])


@case("E0602", "defined twice")
def duplicate_output(folder: Path) -> ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])])


@case("E0602", "two inputs")
def duplicate_input_names(folder: Path) -> ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], [value("x"), value("x")])


@case("E0602", "two initializers")
def duplicate_initializers(folder: Path) -> ModelProto:
    made = good()
    made.graph.initializer.append(weight(fill=2.0))
    return made


@case("E0602", "has no type")
def input_without_type(folder: Path) -> ModelProto:
    made = good()
    made.graph.input[0].ClearField("type")
    return made


@case("E0602", "calls itself")
def recursive_functions(folder: Path) -> ModelProto:
    made = model([helper.make_node("F", ["x"], ["y"], domain="local")])
    made.opset_import.append(helper.make_opsetid("local", 1))
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    for name, callee in (("F", "G"), ("G", "F")):
        node = helper.make_node(callee, ["a"], ["b"], domain="local")
        made.functions.append(helper.make_function("local", name, ["a"], ["b"], [node], imports))
    return made


@case("E0601", "nested")
def bodies_too_deep(folder: Path) -> bytes:
    def field(number: int, content: bytes) -> bytes:
        return length_delimited(number, len(content)) + content

    body = field(2, b"leaf") + field(10, b"long enough to be entered by whoever looks for weights" * 40)
    for _ in range(60):
        body = field(2, b"body") + field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(6, body)))
    opset = field(8, helper.make_opsetid("", 21).SerializeToString())
    return b"\x08\x0a" + field(7, body) + opset


@case("E0602", "not UTF-8")
def name_is_not_utf8(folder: Path) -> bytes:
    return good().SerializeToString().replace(b"\x0a\x01m", b"\x0a\x01\xff")


# -- operators --------------------------------------------------------------------------------------------------


@case("E0602", "MatMul")
def weights_do_not_fit(folder: Path) -> ModelProto:
    made = good()
    made.graph.initializer[0].CopyFrom(weight("w", (5, 4)))
    return made


@case("E0602", "Add")
def element_types_differ(folder: Path) -> ModelProto:
    return model([helper.make_node("Add", ["x", "i"], ["y"])], [value("x"), value("i", I64)])


@case("E0602", "f32")
def output_of_another_type(folder: Path) -> ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], outputs=[value("y", I64)])


@case("E0602", "axis")
def required_attribute_missing(folder: Path) -> ModelProto:
    return model([helper.make_node("Concat", ["x", "x"], ["y"])], outputs=[value("y", shape=None)])


@case("E0602", "frob")
def attribute_nobody_knows(folder: Path) -> ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"], frob=1)])


@case("E0602", "Relu")
def too_many_inputs(folder: Path) -> ModelProto:
    return model([helper.make_node("Relu", ["x", "x", "x"], ["y"])])


# -- tensors ----------------------------------------------------------------------------------------------------


@case("E0602", "takes 64 bytes")
def wrong_byte_count(folder: Path) -> ModelProto:
    made = good()
    made.graph.initializer[0].raw_data = bytes(60)
    return made


@case("E0602", "takes 64000 bytes")
def wrong_byte_count_in_a_large_tensor(folder: Path) -> ModelProto:
    made = good()
    made.graph.initializer[0].CopyFrom(TensorProto(name="w", data_type=F, dims=[4, 4000], raw_data=bytes(63_000)))
    return made


@case("E0602", "fit")
def too_few_elements(folder: Path) -> ModelProto:
    made = good()
    made.graph.initializer[0].CopyFrom(TensorProto(name="w", data_type=F, dims=[4, 4], float_data=[1, 2, 3]))
    return made


@case("E0602", "negative dimension")
def negative_dimension(folder: Path) -> ModelProto:
    made = good()
    made.graph.initializer[0].dims[0] = -4
    return made


@case("E0602", "beyond what memory can hold")
def huge_dimensions(folder: Path) -> ModelProto:
    made = good()
    made.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]
    return made


@case("E0602", "beyond what memory can hold")
def huge_input(folder: Path) -> ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], [value("x", shape=(1 << 40, 1 << 40))])


@case("E0604", "element type 99")
def unknown_element_type(folder: Path) -> ModelProto:
    made = good()
    made.graph.initializer[0].data_type = 99
    return made


@case("E0602", "stored twice")
def data_stored_twice(folder: Path) -> ModelProto:
    made = good()
    made.graph.initializer[0].float_data.extend([1.0] * 16)
    return made


@case("E0604", "sparse tensor")
def sparse_bomb(folder: Path) -> ModelProto:
    made = good()
    made.graph.ClearField("initializer")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    sparse = made.graph.sparse_initializer.add(dims=[1 << 20, 1 << 20])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    sparse.indices.CopyFrom(indices)
    return made


@case("E0605", "NaN", weights_only=True)
def nan_in_a_weight(folder: Path) -> ModelProto:
    made = good()
    array = np.ones((4, 4), np.float32)
    array[2, 3] = np.nan
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))
    return made


# -- external data ----------------------------------------------------------------------------------------------


@case("E0603", "is missing")
def external_data_missing(folder: Path) -> ModelProto:
    return external("weights.bin")


@case("E0603", "are needed")
def external_data_short(folder: Path) -> ModelProto:
    (folder / "weights.bin").write_bytes(bytes(32))
    return external("weights.bin")


@case("E0603", "are needed")
def external_offset_beyond_the_end(folder: Path) -> ModelProto:
    (folder / "weights.bin").write_bytes(bytes(64))
    return external("weights.bin", offset=str(1 << 60))


@case("E0603", "is not a number")
def external_length_negative(folder: Path) -> ModelProto:
    (folder / "weights.bin").write_bytes(bytes(64))
    return external("weights.bin", length="-64")


@case("E0603", "takes 64 bytes")
def external_length_wrong(folder: Path) -> ModelProto:
    (folder / "weights.bin").write_bytes(bytes(64))
    return external("weights.bin", length="32")


@case("E0603", "below the model's folder")
def external_path_escapes(folder: Path) -> ModelProto:
    (folder.parent / "outside.bin").write_bytes(bytes(64))
    return external("../outside.bin")


@case("E0603", "below the model's folder")
def external_path_absolute(folder: Path) -> ModelProto:
    return external("/etc/passwd")


@case("E0603", "outside the model's folder")
def external_path_is_a_link_out(folder: Path) -> ModelProto:
    (folder.parent / "outside.bin").write_bytes(bytes(64))
    (folder / "weights.bin").symlink_to(folder.parent / "outside.bin")
    return external("weights.bin")


@case("E0603", "is missing")
def external_data_is_a_directory(folder: Path) -> ModelProto:
    (folder / "weights.bin").mkdir()
    return external("weights.bin")
