"""The cost table: interpolation, files, which table answers, and a real calibration of a tiny grid."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.net import Net

from mlc import commands
from mlc.backends import costs as costs_module
from mlc.backends.calibrate import QUICK, calibrate
from mlc.backends.costs import FORMAT, CostTable, Key, Series, assumed_costs, cache_path, known_costs, machine, read
from mlc.backends.costs_of_ops import job_of
from mlc.backends.machine import cache_folder
from mlc.backends.targets import OrtTarget, parse_target
from mlc.cli import run
from mlc.ir.core import Ints, Op
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError

F32 = DType.F32
TINY = replace(
    QUICK, rows=(1, 4), depths=(8, 16), channels=(16,), sides=(4, 6), elements=(1024, 4096), blocks=1, seconds=0.0
)


def table(seconds: float = 1e-3) -> CostTable:
    times = np.array([[[1.0], [2.0], [4.0]], [[3.0], [3.0], [9.0]]]) * seconds
    axes = (("M", (1, 8)), ("K", (16, 64, 256)), ("N", (4,)))
    series, near = Series(axes, times), Series(axes, times / 2)
    return CostTable(
        {
            Key("MatMul", "float"): series,
            Key("MatMul", "blocks", 4, 32): near,
            Key("MatMul", "blocks", 4, 128): replace(near, seconds=times / 4),
        },
        machine(1),
    )


# -- interpolation -----------------------------------------------------------------------------------------------------


def test_points_of_the_grid_are_exact() -> None:
    series = table().series[Key("MatMul", "float")]
    for m, rows in enumerate((1, 8)):
        for k, depth in enumerate((16, 64, 256)):
            assert series.at({"M": rows, "K": depth, "N": 4}) == pytest.approx(series.seconds[m, k, 0], rel=1e-12)


def test_between_points_logarithms_are_linear() -> None:
    series = Series((("M", (1, 100)),), np.array([2.0, 8.0]))
    assert series.at({"M": 10}) == pytest.approx(4.0)


def test_above_the_grid_time_grows_with_the_work_and_below_it_stays() -> None:
    series = Series((("M", (4, 100)), ("K", (10, 20))), np.array([[2.0, 3.0], [8.0, 9.0]]))
    assert series.at({"M": 1, "K": 1}) == pytest.approx(2.0)
    assert series.at({"M": 200, "K": 10}) == pytest.approx(16.0)
    assert series.at({"M": 200, "K": 60}) == pytest.approx(9.0 * 2 * 3)
    assert series.at({"M": 0, "K": 10}) == pytest.approx(2.0)


@given(a=st.integers(1, 5000), b=st.integers(1, 5000), depth=st.integers(1, 9000), width=st.integers(1, 9000))
def test_more_rows_never_cost_less(a: int, b: int, depth: int, width: int) -> None:
    known = assumed_costs("vnni")
    for key, series in known.series.items():
        if key.op == "MatMul":
            less, more = (series.at({"M": rows, "K": depth, "N": width}) for rows in sorted((a, b)))
            assert less <= more * (1 + 1e-9)


def test_blocks_that_were_not_measured_cost_what_the_nearest_do() -> None:
    known = table()
    sizes = {"M": 1, "K": 64, "N": 4}
    for block, nearest in ((16, 32), (64, 32), (96, 128), (256, 128)):
        found = known.seconds(Key("MatMul", "blocks", 4, block), sizes)
        assert found == known.seconds(Key("MatMul", "blocks", 4, nearest), sizes)
    assert known.seconds(Key("MatMul", "blocks", 8, 32), sizes) is None
    assert known.seconds(Key("Conv/dense", "float"), sizes) is None


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(table().to_json())
    found = read(path, "given")
    assert found.digest == table().digest
    assert found.environment == machine(1)
    assert found.to_json() == table().to_json()
    for key, series in table().series.items():
        assert found.series[key].axes == series.axes
        assert np.allclose(found.series[key].seconds, series.seconds, rtol=1e-3)


def test_the_digest_names_the_contents() -> None:
    assert table().digest == table().digest != table(2e-3).digest
    assert assumed_costs("vnni").digest != assumed_costs("avx2").digest


def with_series(document: dict[str, Any], key: str, rows: list[int], seconds: list[float]) -> str:
    return json.dumps(document | {"series": {key: {"axes": {"elements": rows}, "seconds": seconds}}})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda d: "{", Code.BAD_TARGET),
        (lambda d: "[]", Code.BAD_TARGET),
        (lambda d: json.dumps({"some": "file"}), Code.BAD_TARGET),
        (lambda d: json.dumps(d | {"kind": "report"}), Code.BAD_TARGET),
        (lambda d: json.dumps(d | {"format": FORMAT + 1}), Code.FORMAT),
        (lambda d: json.dumps(d | {"format": "1"}), Code.BAD_TARGET),
        (lambda d: with_series(d, "Add float", [1, 2], [1.0]), Code.BAD_TARGET),
        (lambda d: with_series(d, "Add float", [2, 1], [1.0, 2.0]), Code.BAD_TARGET),
        (lambda d: with_series(d, "Add float", [1], [-1.0]), Code.BAD_TARGET),
        (lambda d: with_series(d, "MatMul float", [1], [1.0]), Code.BAD_TARGET),
        (lambda d: with_series(d, "Add", [1], [1.0]), Code.BAD_TARGET),
    ],
)  # fmt: skip
def test_broken_and_foreign_files_are_refused(tmp_path: Path, change: Callable[[Any], str], code: Code) -> None:
    path = tmp_path / "costs.json"
    path.write_text(change(json.loads(table().to_json())))
    with pytest.raises(MlcError) as caught:
        read(path, "given")
    diagnostic = caught.value.diagnostics[0]
    assert diagnostic.code is code
    assert str(path) in diagnostic.message


def test_files_that_are_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(MlcError) as caught:
        read(tmp_path / "none.json", "given")
    assert caught.value.diagnostics[0].code is Code.NOT_FOUND
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(MlcError) as caught:
        read(tmp_path / "bytes.json", "given")
    assert caught.value.diagnostics[0].code is Code.BAD_TARGET


# -- which table answers -----------------------------------------------------------------------------------------------


def test_measured_costs_are_found_again_on_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_costs(1, "vnni", tmp_path).origin == "assumed"
    path = cache_path(1, tmp_path)
    path.write_text(table().to_json())
    found = known_costs(1, "vnni", tmp_path)
    assert (found.origin, found.digest) == ("measured", table().digest)
    assert known_costs(2, "vnni", tmp_path).origin == "assumed"
    monkeypatch.setattr(costs_module, "cpu_name", lambda: "another CPU")
    assert known_costs(1, "vnni", tmp_path).origin == "assumed"


def test_assumed_costs_follow_the_instruction_set() -> None:
    sizes = {"M": 8, "K": 384, "N": 384}
    vnni, avx2 = assumed_costs("vnni"), assumed_costs("avx2")
    for form, factor in (("float", 1.0), ("static", 2.0), ("dynamic", 2.0)):
        ratio = avx2.seconds(Key("MatMul", form), sizes) / vnni.seconds(Key("MatMul", form), sizes)
        assert ratio == pytest.approx(factor)


def test_the_target_names_its_costs(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(table().to_json())
    target = parse_target(f"ort(cpu, costs={path})")
    assert target.asked_costs is None
    assert target.costs.describe() == {"costs": "given", "digest": table().digest}
    assert target.asked_costs is target.costs
    assert parse_target(str(target)) == target
    assert parse_target("ort(cpu, costs=assumed)").costs.origin == "assumed"
    with pytest.raises(MlcError) as caught:
        parse_target("ort(cpu, costs=table.csv)")
    assert caught.value.diagnostics[0].code is Code.BAD_TARGET
    with pytest.raises(MlcError) as caught:
        _ = parse_target("ort(cpu, costs=nowhere.json)").costs
    assert caught.value.diagnostics[0].code is Code.NOT_FOUND


def test_costs_of_another_instruction_set_are_assumed() -> None:
    assert OrtTarget(isa="portable").costs.origin == "assumed"
    assert OrtTarget(isa="portable").costs.isa == "portable"


def test_caches_lie_where_the_platform_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert cache_folder("linux", {}) == Path("/home/me/.cache/mlc")
    assert cache_folder("linux", {"XDG_CACHE_HOME": "/fast"}) == Path("/fast/mlc")
    assert cache_folder("darwin", {}) == Path("/home/me/Library/Caches/mlc")
    assert cache_folder("win32", {"LOCALAPPDATA": "/local"}) == Path("/local/mlc/Cache")
    assert cache_folder("win32", {}) == Path("/home/me/AppData/Local/mlc/Cache")


# -- ops ---------------------------------------------------------------------------------------------------------------


def product(rows: int | str, depth: int, width: int, kind: str = "MatMul", **attrs: int) -> Op:
    net = Net()
    shape = (depth, rows) if attrs.get("transA") else (rows, depth)
    weight = (width, depth) if attrs.get("transB") else (depth, width)
    y = net.op(kind, [net.input("x", F32, *shape), net.const(np.zeros(weight, np.float32))], attrs=attrs)
    assert y.op is not None
    return y.op


def convolution(inputs: int, outputs: int, kernel: int, side: int, groups: int = 1) -> Op:
    net = Net()
    w = net.const(np.zeros((outputs, inputs // groups, kernel, kernel), np.float32))
    attrs = {"pads": Ints([kernel // 2] * 4), "group": groups}
    y = net.op("Conv", [net.input("x", F32, 1, inputs, side, side), w], attrs=attrs)
    assert y.op is not None
    return y.op


def test_products_are_rows_depth_and_width() -> None:
    wanted = {"M": 5, "K": 8, "N": 3}
    assert job_of(product(5, 8, 3), {}).sizes == wanted
    assert job_of(product("n", 8, 3), {"n": 5}).sizes == wanted
    assert job_of(product("n", 8, 3), {}) is None
    for attrs in ({"transA": 1}, {"transB": 1}, {}):
        assert job_of(product(5, 8, 3, "Gemm", **attrs), {}).sizes == wanted


def test_convolutions_are_known_by_kind_and_scaled_by_work() -> None:
    pointwise = job_of(convolution(16, 64, 1, 7), {})
    assert (pointwise.series, pointwise.sizes, pointwise.factor) == (
        "Conv/pointwise", {"pairs": 1024, "positions": 49}, 1
    )  # fmt: skip
    assert job_of(convolution(16, 64, 5, 7), {}).factor == pytest.approx(25 / 9)
    assert job_of(convolution(16, 16, 3, 7, 16), {}).series == "Conv/depthwise"
    grouped = job_of(convolution(16, 64, 3, 7, 4), {})
    assert (grouped.series, grouped.sizes["pairs"], grouped.factor) == ("Conv/dense", 64.0, 4)


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "series", "channels"),
    [
        (16, 64, 1, "Conv/dense", 16 * 64),
        (3, 64, 1, "Conv/dense", 4 * 64),  # lowering pads its inputs
        (16, 18, 1, "Conv/dense/odd", 16 * 18),
        (16, 8, 1, "Conv/dense/odd", 16 * 8),
        (12, 32, 2, "Conv/dense/odd", 6 * 16),
        (32, 32, 32, "Conv/depthwise", 32),
        (24, 24, 24, "Conv/depthwise/odd", 24),
    ],
)
def test_static_convolutions_without_a_fast_kernel_are_known(
    inputs: int, outputs: int, groups: int, series: str, channels: int
) -> None:
    op = convolution(inputs, outputs, 3, 7, groups)
    job = job_of(op, {}, "static")
    assert (job.series, next(iter(job.sizes.values()))) == (series, channels)
    assert "/odd" not in job_of(op, {}, "float").series


def test_the_target_answers_by_form() -> None:
    target = parse_target("ort(cpu, costs=assumed, isa=vnni)")
    op = product(128, 384, 1536)
    seconds = {
        form: target.seconds(op, form, {}, bits=4, block=32) for form in ("float", "static", "dynamic", "blocks")
    }
    assert all(s is not None and s > 0 for s in seconds.values())
    assert target.seconds(op, "stored", {}) == target.seconds(op, "fp16", {}) == seconds["float"]
    assert target.seconds(op, "blocks", {}, bits=3, block=32) == seconds["blocks"]  # stored in 4
    assert target.seconds(op, "blocks", {}, bits=5, block=32) is None
    assert target.seconds(convolution(16, 16, 3, 7), "dynamic", {}) is None
    net = Net()
    relu = net.op("Relu", [net.input("x", F32, 4)])
    assert target.seconds(relu.op, "float", {}) is None
    assert target.boundary(1 << 20) > target.boundary(1 << 12) > 0


# -- measuring ---------------------------------------------------------------------------------------------------------


def test_a_calibration_measures_every_form(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = calibrate(OrtTarget(), TINY, advance=lambda *step: seen.append(step))
    assert [done for _, done, _ in seen] == list(range(1, seen[-1][2] + 1))
    for key in (*TINY.products, Key("Conv/dense", "static"), Key("Conv/depthwise", "float"), Key("Add", "static")):
        assert (found.series[key].seconds > 0).all()
    for key, series in found.series.items():
        assert (np.diff(series.seconds, axis=0) >= 0).all(), key
    (tmp_path / "costs.json").write_text(found.to_json())
    assert read(tmp_path / "costs.json", "given").digest == found.digest


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "QUICK", TINY)


@pytest.mark.usefixtures("quickly")
def test_the_command_keeps_its_table_where_targets_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert OrtTarget().costs.origin == "assumed"
    assert run(["calibrate", "--quick"]) == 0
    shown = capsys.readouterr().out
    assert "MatMul" in shown
    assert OrtTarget().costs.describe()["costs"] == "measured"
    assert OrtTarget().costs.digest in shown
    assert OrtTarget(threads=2).costs.origin == "assumed"
    cache_path(1).write_text("{")
    with pytest.raises(MlcError) as caught:
        _ = OrtTarget().costs
    assert caught.value.diagnostics[0].code is Code.BAD_TARGET


@pytest.mark.usefixtures("quickly")
def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.json"
    assert run(["calibrate", "--quick", "-o", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    target = parse_target(f"ort(cpu, costs={path})")
    assert shown["digest"] == target.costs.digest
    assert shown["environment"] == machine(1)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--to", "ort(gpu)"], "no argument 'gpu'"),
        (["--to", "ort(cpu, costs=assumed)"], "cannot be measured here"),
        (["--to", "ort(cpu, isa=portable)"], "cannot be measured here"),
        (["-o", "costs"], "write -o NAME.json"),
        (["-o", "nowhere/costs.json"], "no folder 'nowhere'"),
        (["--quik"], "No such option"),
    ],
)
def test_wrong_uses_of_the_command(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in captured.err
    assert "Traceback" not in captured.err


def test_the_shipped_table_knows_all_forms() -> None:
    known = assumed_costs("vnni")
    sizes = {"M": 128, "K": 384, "N": 1536}
    assert known.environment["isa"]
    for key in (
        Key("MatMul", "float"),
        Key("MatMul", "static"),
        Key("MatMul", "dynamic"),
        Key("MatMul", "blocks", 4, 128),
    ):
        assert known.seconds(key, sizes) is not None
