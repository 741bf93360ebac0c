"""What passes make of two small networks, as text: an embedding with two matrix products, and three convolutions.

Refresh with `pytest tests/test_golden_passes.py --update-golden` and read the difference.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from kit.layers import Layers
from kit.net import Net
from kit.samples import Samples

from mlc.backends.legalize import legalize
from mlc.backends.runner import OrtRunner
from mlc.ir.core import Module
from mlc.ir.dtypes import DType
from mlc.ir.text import print_module
from mlc.ir.types import tensor
from mlc.passes.base import Context, Pass
from mlc.passes.prune.structured import Prune
from mlc.passes.quantize.absorb import Absorb
from mlc.passes.quantize.correct_bias import CorrectBias
from mlc.passes.quantize.dequantize.step import Dequantize
from mlc.passes.quantize.equalize import Equalize
from mlc.passes.quantize.fp16 import Fp16
from mlc.passes.quantize.int4 import Int4
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.smooth import Smooth
from mlc.passes.quantize.weight_only import Weights

GOLDEN = Path(__file__).parent / "golden" / "passes"
PASSES: dict[str, Pass] = {
    "absorb": Absorb(),
    "correct_bias": CorrectBias(),
    "dequantize": Dequantize(),
    "equalize": Equalize(),
    "fp16": Fp16(),
    "int4": Int4(),
    "int4_symmetric": Int4(block=64, symmetric=True, scale="f32"),
    "int8": Int8(),
    "int8_convolutions": Int8(mode="static", observer="minmax"),
    "int8_static": Int8(mode="static", observer="minmax"),
    "prune": Prune(ratio=0.5),
    "prune_exact": Prune(),
    "smooth": Smooth(alpha=0.5),
    "weights_mixed": Weights(bits=(4, 8), saving=0.95),
    "weights_three_bits": Weights(bits=3, block=64, method="rtn"),
}


QUANTIZING = ("int4", "int8", "weights", "dequantize", "correct_bias")
CODED_BIASES = ("int8_convolutions", "correct_bias")  # in steps of a hundred thousandth


def network() -> Module:
    """ids -> rows of a table -> two linear layers with a Relu between; channels 40 to 63 of the first are unread."""
    rng = np.random.default_rng(0)
    net = Net()
    ids = net.input("ids", DType.I64, "N", 6)
    table = net.const(rng.standard_normal((128, 64)).astype(np.float32))
    first = net.const(rng.standard_normal((64, 64)).astype(np.float32))
    unread = (np.arange(64) < 40).astype(np.float32)[:, None]
    second = net.const(rng.standard_normal((64, 32)).astype(np.float32) * unread)
    rows = net.op("Gather", [table, ids], [tensor(DType.F32, "N", 6, 64)], {"axis": 0})
    hidden = net.op("MatMul", [rows, first], [tensor(DType.F32, "N", 6, 64)])
    active = net.op("Relu", [hidden], [hidden.type])
    return net.done(net.op("MatMul", [active, second], [tensor(DType.F32, "N", 6, 32)]))


def convolutions() -> Module:
    """A normalized convolution whose channels mostly lie above zero, and two that meet in an addition."""
    net = Layers()
    x = net.input("x", DType.F32, "N", 3, 8, 8)
    shift = net.const(np.arange(8, dtype=np.float32))
    rest = [net.const(np.full(8, value, np.float32)) for value in (0.5, 0, 1)]
    normal = net.op("BatchNormalization", [net.conv(x, 3, 8), rest[0], shift, *rest[1:]])
    y = net.relu(normal)
    return net.done(net.op("Add", [net.conv(y, 8, 4, 1), net.conv(y, 8, 4, 1, group=4)]))


def given(name: str) -> tuple[Module, Context]:
    """The network for a pass, and samples if it cannot do without."""
    rng = np.random.default_rng(1)
    if name in ("absorb", "correct_bias", "int8_convolutions"):
        module, samples = convolutions(), Samples({"x": rng.standard_normal((32, 3, 8, 8)).astype(np.float32)})
    else:
        module, samples = network(), Samples({"ids": rng.integers(0, 128, (32, 6))})
    with_data = name in ("smooth", "int8_static", "int8_convolutions", "correct_bias")
    ctx = Context(data=samples, runner=OrtRunner(), source=module) if with_data else Context()
    if name == "correct_bias":
        return Int8(mode="static", observer="minmax")(module, ctx), ctx
    return Int4()(module) if name == "dequantize" else module, ctx


@pytest.mark.parametrize("name", PASSES)
def test_golden(name: str, update_golden: bool) -> None:
    made = PASSES[name](*given(name))
    # Which clip is best depends on the order of float sums, scales on the last bits of powers: no digests of those.
    quantized, scaled = name.startswith(QUANTIZING), name in ("smooth", "equalize")
    text = print_module(made, digests=not quantized and not scaled)
    if scaled:
        text += "".join(f"\n{d.site}: {d.before} > {d.after}" for d in made.history[-1].done)
        text += "".join(f"\n{s.site}: {s.code.value}, {s.why}" for s in made.history[-1].skipped) + "\n"
    if quantized:
        text += "\nlowered for ort(cpu):\n\n" + print_module(legalize(made).module)
    if name == "correct_bias":
        text += "".join(f"\n{d.site}: {d.after.rpartition(', ')[2]}" for d in made.history[-1].done) + "\n"
    if name in CODED_BIASES:
        text = re.sub(r"(_quantized : i32\[\d+\]) is \[.*\]", r"\1", text)
    path = GOLDEN / f"{name}.ir"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
