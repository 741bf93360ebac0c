"""Sessions: files, bytes and modules run alike; whatever ONNX Runtime refuses is one error of the user's kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kit.broken_models import good, model, value
from kit.net import Net
from onnx import TensorProto, helper

from mlc.backends import ort
from mlc.backends.onnx import save, to_proto
from mlc.backends.ort import Session
from mlc.frontends.onnx import load
from mlc.ir.constants import Constant
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError

X = np.float32([[-1, 2], [3, -4]])


def net() -> Net:
    made = Net()
    x = made.input("x", DType.F32, "N", 2)
    made.output(made.op("MatMul", [x, made.const(np.float32([[1, 2], [3, 4]]), "w")]), "second")
    made.output(made.op("Neg", [x]), "first")
    return made


def test_large_modules_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of constants and of defaults lie in a file that the runtime maps, and that has no name any more."""
    monkeypatch.setattr(ort, "_LARGE", 1 << 20)
    made = Net()
    x, w = made.input("x", DType.F32, "N", 512), made.input("w", DType.F32, 512, 512)
    made.output(made.op("MatMul", [x, w]), "y")
    values = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    made.module.defaults["w"] = Constant.of(values)
    before = _mapped()
    session = Session(made.module)
    assert _mapped() - before >= values.nbytes
    rows = values[:3]
    assert np.array_equal(session.run({"x": rows})["y"], session.run({"x": rows, "w": values})["y"])
    assert not session.run({"x": rows, "w": np.zeros_like(values)})["y"].any(), "a default can be replaced"


def _mapped() -> int:
    """Bytes of files of ours that are mapped and deleted."""
    lines = [x.split() for x in Path("/proc/self/maps").read_text().splitlines() if "mlc-ort" in x and "deleted" in x]
    ends = [x[0].split("-") for x in lines]
    return sum(int(end, 16) - int(start, 16) for start, end in ends)


def test_paths_bytes_and_modules_are_one(tmp_path: Path) -> None:
    module = net().module
    save(module, tmp_path / "m.onnx")
    save(module, tmp_path / "apart.onnx", external="always")
    sources: list[Any] = [
        module,
        tmp_path / "m.onnx",
        str(tmp_path / "apart.onnx"),
        to_proto(module).SerializeToString(),
    ]
    for source in sources:
        for optimize in (True, False):
            session = Session(source, threads=1, optimize=optimize)
            found = session.run({"x": X})
            assert list(found) == session.output_names == ["second", "first"]
            assert np.array_equal(found["first"], -X)
            assert session.input_types == {"x": "tensor(float)"}
            assert session.input_shapes == {"x": ["N", 2]}


def test_some_outputs_only() -> None:
    assert list(Session(net().module).run({"x": X}, ["first"])) == ["first"]


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "no data for the inputs x"),
        ({"x": X.astype(np.float64)}, "float"),
        ({"x": np.zeros((2, 3), np.float32)}, "x"),
        ({"x": X, "other": X}, "other"),
    ],
)
def test_feeds_that_do_not_fit(feeds: dict[str, Any], says: str) -> None:
    with pytest.raises(MlcError, match=says) as caught:
        Session(net().module).run(feeds)
    assert caught.value.diagnostics[0].code.code == "E0502"


def test_a_model_the_runtime_refuses(tmp_path: Path) -> None:
    made = good()
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    for source in (path, made.SerializeToString()):
        with pytest.raises(MlcError, match=r"E0805.*refuses"):
            Session(source)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MlcError, match="E0803"):
        Session(tmp_path / "nowhere.onnx")


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The runtime writes its warnings past Python's streams."""
    made = model([helper.make_node("Relu", ["x"], ["y"])], [value("x", shape=("N", 4))], [value("y", shape=(7, 4))])
    Session(made.SerializeToString()).run({"x": np.zeros((2, 4), np.float32)})
    with pytest.raises(MlcError):
        Session(b"nonsense")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_element_types_that_numpy_lacks(dtype: Any) -> None:
    made = Net()
    x = made.input("x", next(d for d in DType if d.numpy == np.dtype(dtype)), 3)
    y = made.input("y", DType.F32, 2)
    module = made.done(made.op("Identity", [x]), made.op("Neg", [y]))
    data = np.array([1, -2, 0.5]).astype(dtype)
    found = list(Session(module).run({"x": data, "y": np.float32([1, 2])}).values())
    assert found[0].dtype == dtype
    assert found[0].tobytes() == data.tobytes()
    assert found[1].tolist() == [-1, -2]


def test_text_and_sequences() -> None:
    nodes = [
        helper.make_node("StringConcat", ["s", "s"], ["t"]),
        helper.make_node("SequenceConstruct", ["s", "t"], ["q"]),
    ]
    outputs = [
        value("t", TensorProto.STRING, (1,)),
        helper.make_tensor_sequence_value_info("q", TensorProto.STRING, None),
    ]
    module = load(model(nodes, [value("s", TensorProto.STRING, (1,))], outputs))
    found = Session(module).run({"s": np.array(["ab"], object)})
    assert found["t"].tolist() == ["abab"]
    assert [list(x) for x in found["q"]] == [["ab"], ["abab"]]


def test_the_optimized_graph_is_written_when_asked(tmp_path: Path) -> None:
    Session(net().module, optimized_path=tmp_path / "optimized.onnx")
    assert load(tmp_path / "optimized.onnx").graph.output_names == ["second", "first"]
