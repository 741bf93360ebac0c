"""Models, data and Python that error_cases.py needs."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from kit import demanding
from kit.broken_models import I64, F, good, model, value, weight
from kit.two_layers import two_layers
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

Prepare = Callable[[Path], object]


def text(name: str, content: str) -> Prepare:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")

    return write


def samples(folder: Path) -> None:
    np.savez(folder / "samples.npz", x=np.random.default_rng(0).standard_normal((8, 64), np.float32))


def _save(folder: Path, made: ModelProto) -> None:
    (folder / "m.onnx").write_bytes(made.SerializeToString())


def other_inputs(folder: Path) -> None:
    x, y, z = (value(name, shape=("N", 64)) for name in "xyz")
    made = model([helper.make_node("Add", ["x", "z"], ["y"])], [x, z], [y])
    (folder / "other.onnx").write_bytes(made.SerializeToString())


def far(folder: Path) -> None:
    """The same network with its outputs turned around."""
    made = onnx.load(folder / "net.onnx")
    (last,) = (t for t in made.graph.initializer if t.name == "fc2.weight")
    last.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(last), last.name))
    onnx.save(made, folder / "far.onnx")


def wide(folder: Path) -> None:
    two_layers(folder, width=2048)


# -- models that are refused -------------------------------------------------------------------------------------------


def internal_domain(folder: Path) -> None:
    made = model([helper.make_node("Dequantize", ["x"], ["y"], domain="mlc")])
    made.opset_import.append(helper.make_opsetid("mlc", 1))
    _save(folder, made)


def training(folder: Path) -> None:
    made = good()
    made.training_info.add()
    _save(folder, made)


def zipmap(folder: Path) -> None:
    made = good()
    made.graph.output[0].type.CopyFrom(helper.make_map_type_proto(I64, helper.make_tensor_type_proto(F, [])))
    _save(folder, made)


def graphs_attribute(folder: Path) -> None:
    made = good()
    attribute = made.graph.node[0].attribute.add(name="bodies", type=AttributeProto.GRAPHS)
    attribute.graphs.add(name="body")
    made.graph.node[0].domain = "my.domain"
    made.opset_import.append(helper.make_opsetid("my.domain", 1))
    _save(folder, made)


def segments(folder: Path) -> None:
    made = good()
    made.graph.initializer[0].segment.begin = 0
    _save(folder, made)


def ancient(folder: Path) -> None:
    made = good()
    made.ir_version = 2
    del made.opset_import[:]
    made.opset_import.append(helper.make_opsetid("", 6))
    _save(folder, made)


def surplus(folder: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y", "z"], "product")
    _save(folder, model([node], initializers=[weight()]))


def wrong_rank(folder: Path) -> None:
    node = helper.make_node("Det", ["x"], ["y"], "det")
    _save(folder, model([node], [value("x", shape=(4,))], [value("y", shape=None)]))


def picky(folder: Path) -> None:
    """A reshape that no size of N fits."""
    shape = numpy_helper.from_array(np.asarray([7, 11, 13], np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape")
    _save(folder, model([node], [value("x", shape=("N", 2))], [value("y", shape=(7, 11, 13))], [shape]))


def sequence_input(folder: Path) -> None:
    kind = helper.make_tensor_sequence_value_info("x", F, None)
    joined = helper.make_node("ConcatFromSequence", ["x"], ["c"], axis=0)
    nodes = [joined, helper.make_node("MatMul", ["c", "w"], ["y"])]
    _save(folder, model(nodes, [kind], [value("y", shape=None)], [weight()]))


def spatial(folder: Path) -> None:
    node = helper.make_node("BatchNormalization", ["x", "a", "a", "a", "a"], ["y"], "norm", spatial=0)
    shape = (2, 4, 3, 3)
    _save(
        folder, model([node], [value("x", shape=shape)], [value("y", shape=shape)], [weight("a", (4,))], opset=7, ir=4)
    )


def integers(folder: Path) -> None:
    _save(folder, model([helper.make_node("ArgMax", ["x"], ["y"])], outputs=[value("y", I64, (1, 4))]))


def images(folder: Path) -> None:
    """An output that holds no classes."""
    node = helper.make_node("Mul", ["x", "w"], ["y"], "scale")
    _save(folder, model([node], [value("x", shape=("N", 3, 4, 4))], [value("y", shape=("N", 3, 4, 4))], [weight()]))


# -- data --------------------------------------------------------------------------------------------------------------


def labelled_images(folder: Path) -> None:
    images(folder)
    np.savez(folder / "images.npz", x=np.ones((4, 3, 4, 4), np.float32), y=np.zeros(4, np.int64))


def odd_labels(folder: Path) -> None:
    np.savez(folder / "labels.npz", x=np.ones((4, 64), np.float32), y=np.zeros((4, 3), np.int64))


def high_label(folder: Path) -> None:
    np.savez(folder / "labels.npz", x=np.ones((4, 64), np.float32), y=np.asarray([0, 1, 12, 3]))


def strings(folder: Path) -> None:
    node = helper.make_node("StringNormalizer", ["x"], ["y"])
    _save(folder, model([node], [value("x", TensorProto.STRING, (4,))], [value("y", TensorProto.STRING, None)]))
    samples(folder)


def sequence_data(folder: Path) -> None:
    sequence_input(folder)
    samples(folder)


def fixed_batch(folder: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    _save(folder, model([node], [value("x", shape=(2, 4))], [value("y", shape=(2, 4))], [weight()]))
    np.savez(folder / "slices.npz", x=np.ones((6, 4), np.float32))


def archive(folder: Path) -> None:
    (folder / "d").mkdir()
    np.savez(folder / "d" / "0.npz", x=np.ones(64, np.float32))
    (folder / "d" / "0.npz").rename(folder / "d" / "0.npy")


def no_array(folder: Path) -> None:
    text("d/0.npy", "not an array")(folder)


def masked(what: str) -> Prepare:
    """A model with a mask over T, and samples whose mask is wrong in one way."""

    def write(folder: Path) -> None:
        width = 8 if what == "alone" else "T"
        inputs = [value("x", shape=("T",) if what == "slices" else ("N", width)), value("mask", I64, ("N", "T"))]
        nodes = [helper.make_node("Cast", ["mask"], ["m"], to=F), helper.make_node("Add", ["x", "m"], ["y"])]
        if what == "alone":
            nodes = [helper.make_node("Add", ["x", "w"], ["y"]), helper.make_node("Neg", ["mask"], ["n"])]
        made = model(nodes, inputs, [value("y", shape=None)], [weight(shape=(8,))])
        _save(folder, made)
        x = np.ones((4,) if what == "slices" else (4, 8), np.float32)
        marks = np.ones((4, 8), np.int64)
        marks[:, {"values": 0, "holes": 1}.get(what, 0)] = {"values": 2, "holes": 0}.get(what, 1)
        np.savez(folder / "m.npz", x=x, mask=marks * 0 if what == "nothing" else marks)

    return write


# -- Python ------------------------------------------------------------------------------------------------------------

GONE = """
import mlc
from pathlib import Path

module = mlc.load("net.onnx")
Path("net.onnx").write_bytes(b"")
module.constants["fc1.weight"].constant.array()
"""
RANDOM = """
from kit.single import make
from mlc.ir.evaluate import evaluate_op

evaluate_op(make("RandomNormal", [], attrs={"shape": (2,)}), [])
"""
UNKNOWN = """
import mlc
from mlc.ir.evaluate import evaluate_op
from mlc.ir.rewrite import Rewriter

module = mlc.load("net.onnx")
x = module.graph.inputs[0]
evaluate_op(Rewriter(module).insert("my.domain::Frob", [x], before=module.graph, results=[x.type]), [None])
"""
INSERT = """
import mlc
from mlc.ir.rewrite import Rewriter

module = mlc.load("net.onnx")
Rewriter(module).insert("my.domain::Frob", [module.graph.inputs[0]], before=module.graph)
"""
BFLOATS = """
import ml_dtypes
import numpy as np
from pathlib import Path
from mlc.backends.memory import measure_memory

measure_memory(Path("net.onnx"), Path("net.onnx"), {"x": np.ones((1, 64), ml_dtypes.bfloat16)}, threads=1)
"""
SOURCES = """
from mlc.passes.base import Context
from mlc.passes.statistics import sources

sources(Context())
"""
COSTS = """
from pathlib import Path
from mlc.backends.costs import assumed_costs, write

write(assumed_costs("vnni"), Path("NAMENAME.json"))
"""
INTERNAL = """
import mlc
from mlc.ir.rewrite import Rewriter

module = mlc.load("net.onnx")
x = module.graph.inputs[0]
rewriter = Rewriter(module)
op = rewriter.insert("mlc::Frob", [x], before=next(iter(module.graph.ops)), results=[x.type])
rewriter.replace_uses(x, op.result, only=[next(o for o in module.walk() if o.kind == "MatMul")])
mlc.save(module, "out.onnx")
"""
LESS = """
import mlc
import numpy as np

calls = []


def some():
    calls.append(1)
    for _ in range(8 if len(calls) < 3 else 4):
        yield {"x": np.ones(64, np.float32)}


mlc.compile("net.onnx", "int8", data=some)
"""
OBJECTS = """
import mlc


class Odd:
    def __array__(self, *_, **__):
        raise RuntimeError("no array of it")


mlc.compile("net.onnx", "int8", data=lambda: iter([{"x": Odd()}]))
"""
SHADOW = """
from mlc.passes import registry

registry._entries.cache_clear()
registry.names()
"""
UNITS = """
from dataclasses import dataclass, field
from mlc.dsl.signature import signature_of


@dataclass
class Odd:
    name = "odd"
    ratio: float = field(default=0.5, metadata={"unit": "furlongs"})


signature_of(Odd)
"""
PRINT_NAME = """
from mlc.dsl.print import expression
from mlc.dsl.syntax import Ref

print(expression(Ref("two words")))
"""
PRINT_TEXT = r"""
from mlc.dsl.print import expression
from mlc.dsl.syntax import String

print(expression(String("one\ntwo")))
"""
REFINE = """
import mlc
from mlc.ir.rewrite import Rewriter
from mlc.passes.base import Context
from mlc.passes.quantize.refine.refine import refine

module = mlc.load("net.onnx")
refine(Rewriter(module), module, Context(), "magic")
"""
WRONG_FEED = """
import numpy as np
from mlc.backends.ort import Session

Session("net.onnx").run({"x": np.ones((1, 3), np.float32)})
"""


def shadow(folder: Path) -> None:
    """A package that calls its pass `prune`."""
    info = folder / "greedy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greedy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mlc.passes]\nprune = greedy:Prune\n")


# -- data that a model does not take -----------------------------------------------------------------------------------


def tokens(build: demanding.Build, *, length: int, last: int = 5) -> Prepare:
    """A model of token ids, and eight samples, of which the one before the last ends with another id."""

    def write(folder: Path) -> None:
        demanding.write(folder, build)
        ids = np.full((8, length), 5)
        ids[6, -1] = last
        np.savez(folder / "samples.npz", input_ids=ids)

    return write


def sides(height: int, width: int) -> Prepare:
    def write(folder: Path) -> None:
        demanding.write(folder, demanding.halved)
        np.savez(folder / "samples.npz", x=np.ones((8, 3, height, width), np.float32))

    return write


def labelled(labels: Sequence[object]) -> Prepare:
    def write(folder: Path) -> None:
        x = np.random.default_rng(0).standard_normal((len(labels), 64), np.float32)
        np.savez(folder / "labels.npz", x=x, y=np.asarray(labels))

    return write


def zeros(folder: Path) -> None:
    """Rows of which the fifth is wrong for a reason that only the runtime knows."""
    demanding.write(folder, demanding.three)
    x = np.eye(demanding.WIDTH, dtype=np.float32)[:6] + np.eye(demanding.WIDTH, k=1, dtype=np.float32)[:6]
    x[:, 7] = np.arange(1, 7)
    x[4] = 1
    np.savez(folder / "samples.npz", x=x)


def photos(folder: Path) -> None:
    """A folder of photos for a model of images that are wider than high."""
    text("photos/a.jpg", "")(folder)
    x, y = value("x", shape=("N", 3, 96, 128)), value("y", shape=("N", 3, 96, 128))
    _save(folder, model([helper.make_node("Relu", ["x"], ["y"])], [x], [y]))


def checkpoint(folder: Path) -> None:
    """What torch.save writes."""
    with zipfile.ZipFile(folder / "net.pt", "w") as archive:
        archive.writestr("net/data.pkl", b"")
        archive.writestr("net/version", b"3")
