"""Measuring: agreement of outputs, interleaved timing, synthetic samples, and the target table in the docs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.net import Net
from kit.real import RealModel, real_models

from mlc.backends.agreement import Agreement, AgreementMeter
from mlc.backends.machine import cpu_flags, detect_isa
from mlc.backends.measure import PAIRS, environment, interleaved, opened
from mlc.backends.ort import Session
from mlc.backends.probe import synthetic
from mlc.backends.targets import ORT_CPU
from mlc.frontends.onnx import load
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code, MlcError

F32, I64 = DType.F32, DType.I64


def met(*pairs: tuple[Mapping[str, Any], Mapping[str, Any]]) -> Agreement:
    meter = AgreementMeter()
    for reference, found in pairs:
        meter.update(reference, found)
    return meter.result()


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# -- agreement ---------------------------------------------------------------------------------------------------------


def test_equal_outputs_agree() -> None:
    y = {"a": noise(0, 4, 10), "n": np.arange(3), "zero": np.zeros(3, np.float32)}
    found = met((y, {k: v.copy() for k, v in y.items()}))
    assert (found.cosine, found.max_relative, found.top1, found.integers_equal) == (1.0, 0.0, 1.0, True)
    assert found.sqnr_db == math.inf
    assert found.to_json()["sqnr_db"] is None


def test_outputs_that_cannot_be_compared_are_still_json() -> None:
    found = met(({"y": noise(0, 2, 3)}, {"y": noise(0, 3, 2)})).to_json()
    assert (found["cosine"], found["sqnr_db"], found["max_relative"]) == (0.0, None, None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_known_distances() -> None:
    a, b = np.array([[3.0, 4.0]], np.float32), np.array([[4.0, 3.0]], np.float32)
    found = met(({"y": a}, {"y": b}))
    assert found.cosine == pytest.approx(24 / 25)
    assert found.sqnr_db == pytest.approx(10 * math.log10(25 / 2))
    assert found.max_relative == pytest.approx(1 / 4)
    assert found.top1 == 0.0


def test_the_worst_output_counts() -> None:
    y = {"good": noise(0, 4, 8), "bad": noise(1, 4, 8)}
    found = met((y, {"good": y["good"], "bad": noise(2, 4, 8)}))
    assert found.cosine is not None
    assert found.cosine < 0.9


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_wrong_scale_is_seen(scale: float) -> None:
    y = noise(0, 4, 8)
    found = met(({"y": y}, {"y": y * np.float32(scale)}))
    assert found.cosine == pytest.approx(1)
    assert found.sqnr_db is not None
    assert found.sqnr_db < 7


def test_samples_are_summed() -> None:
    y, z = noise(0, 20, 8), noise(1, 20, 8)
    whole = met(({"y": y}, {"y": z}))
    parts = met(*(({"y": y[i : i + 5]}, {"y": z[i : i + 5]}) for i in range(0, 20, 5)))
    assert parts.samples == 4
    assert parts.cosine == pytest.approx(whole.cosine)
    assert parts.top1 == whole.top1


@pytest.mark.parametrize(
    "found",
    [{}, {"y": noise(0, 3, 8)}, {"y": np.full((4, 8), np.nan, np.float32)}, {"y": np.full((4, 8), np.inf, np.float32)}],
)
def test_broken_outputs_do_not_agree(found: Mapping[str, Any]) -> None:
    result = met(({"y": noise(0, 4, 8)}, found))
    assert result.cosine == 0.0
    assert result.sqnr_db == -math.inf


def test_the_same_infinities_agree() -> None:
    y = noise(0, 4, 8)
    y[0, 0], y[1, 1] = -np.inf, np.nan
    assert met(({"y": y}, {"y": y.copy()})).cosine == 1.0


def test_integer_outputs_are_exact() -> None:
    assert not met(({"n": np.arange(3)}, {"n": np.array([0, 1, 3])})).integers_equal


# -- timing ------------------------------------------------------------------------------------------------------------


class Busy:
    """Burns CPU time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.runs = 0

    def run(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        self.runs += 1
        start = time.process_time()
        while time.process_time() - start < self.seconds:
            pass
        return {}


def test_a_ratio_is_found() -> None:
    slow, fast = Busy(0.004), Busy(0.001)
    found = interleaved(slow, fast, {}, blocks=20)
    assert 3.3 < found.speedup < 4.5
    assert found.low <= found.speedup <= found.high
    assert found.a_ms == pytest.approx(4, rel=0.2)
    assert min(slow.runs, fast.runs) >= 25
    same = interleaved(fast, fast, {}, blocks=20)
    assert 0.9 < same.low <= same.high < 1.1


def test_one_unlucky_session_decides_nothing() -> None:
    """Of sessions of one file one may lie badly in memory: with a pair only it would make the other look faster."""
    orders: list[str] = []

    def open_as(name: str, seconds: list[float]) -> Busy:
        orders.append(name)
        return Busy(seconds[(len(orders) - 1) // 2])

    unlucky = [0.002] * PAIRS
    unlucky[0] = 0.004
    found = opened(lambda: open_as("a", unlucky), lambda: open_as("b", [0.002] * PAIRS), {})
    assert 0.9 < found.speedup < 1.1
    assert "".join(orders) == ("abba" * PAIRS)[: 2 * PAIRS], "each is opened first in turn"


def test_sleeping_is_not_work() -> None:
    class Sleepy(Busy):
        def run(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
            time.sleep(0.002)
            return super().run(feeds)

    assert 0.8 < interleaved(Busy(0.002), Sleepy(0.002), {}, blocks=20).speedup < 1.25


def test_the_environment_is_described() -> None:
    found = environment()
    assert {"cpu", "isa", "cores", "python", "onnxruntime", "numpy"} <= found.keys()


@pytest.mark.parametrize(
    ("text", "isa"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_vnni\n", "vnni"),
        ("flags\t\t: fpu sse2 avx2 avx_vnni\n", "vnni"),
        ("flags\t\t: fpu sse2 avx2\n", "avx2"),
        ("Features\t: fp asimd asimddp\n", "neon"),
        ("flags\t\t: fpu sse2\n", "portable"),
    ],
)
def test_instruction_sets_are_read(tmp_path: Path, text: str, isa: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{text}")
    assert detect_isa(cpu_flags(tmp_path / "cpuinfo")) == isa
    assert cpu_flags(tmp_path / "none") == frozenset()


# -- synthetic samples -------------------------------------------------------------------------------------------------


def encoder() -> Module:
    """Ids into a table of 7 rows, a mask, floats of the same length."""
    net = Net()
    ids, mask = net.input("ids", I64, "N", "T"), net.input("mask", I64, "N", "T")
    x = net.input("x", F32, "N", "T", 4)
    table = net.op("Gather", [net.const(noise(0, 7, 4)), ids])
    weight = net.op("Unsqueeze", [net.op("Cast", [mask], attrs={"to": F32.onnx}), net.ints(2)])
    return net.done(net.op("Mul", [net.op("Add", [table, x]), weight]))


def probes(module: Module, **dims: int) -> Any:
    return synthetic(module, Session(module).run, dims=dims, rng=np.random.default_rng(0))


def test_samples_fit_the_model() -> None:
    found = probes(encoder())
    assert found.binding["N"] == 1
    for feed in found.feeds:
        assert feed["ids"].min() >= 0
        assert feed["ids"].max() < 7
        assert (feed["mask"] == 1).all()
        assert feed["x"].dtype == np.float32
        assert feed["x"].shape == (1, found.binding["T"], 4)
    assert len({feed["x"].tobytes() for feed in found.feeds}) == len(found.feeds) > 1
    again = probes(encoder())
    assert all(np.array_equal(a[k], b[k]) for a, b in zip(found.feeds, again.feeds) for k in a)


def test_given_sizes_hold() -> None:
    assert probes(encoder(), T=5, N=2).feeds[0]["x"].shape == (2, 5, 4)
    with pytest.raises(MlcError) as caught:
        probes(encoder(), S=5)
    assert caught.value.diagnostics[0].code is Code.BAD_DIMS


def test_a_size_is_found_by_trying() -> None:
    net = Net()
    x = net.input("x", F32, "N", "T")
    module = net.done(net.op("MatMul", [x, net.const(noise(0, 48, 3))]))
    assert probes(module).binding == {"N": 1, "T": 48}


@pytest.mark.real
@real_models()
def test_samples_run_through_real_models(model: RealModel) -> None:
    session = Session(model.path)
    found = synthetic(load(model.path), session.run, dims={}, rng=np.random.default_rng(0))
    outputs = [y for feed in found.feeds[:1] for y in session.run(feed).values()]
    assert all(np.isfinite(y).all() for y in outputs)


# -- docs --------------------------------------------------------------------------------------------------------------


def test_the_target_table_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "targets.md").read_text()
    shown = {tuple(cell.strip(" `") for cell in line.strip("|").split("|")) for line in text.splitlines()}
    for row in ORT_CPU:
        assert (row.op, row.form, row.level, row.kernel, row.needs or row.reason) in shown
