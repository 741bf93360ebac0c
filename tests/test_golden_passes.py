"""What lossy passes make of one small network, as text: two matrix products and an embedding.

Refresh with `pytest tests/test_golden_passes.py --update-golden` and read the difference.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
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
from mlc.passes.quantize.dequantize.step import Dequantize
from mlc.passes.quantize.equalize import Equalize
from mlc.passes.quantize.fp16 import Fp16
from mlc.passes.quantize.int4 import Int4
from mlc.passes.quantize.int8.int8 import Int8
from mlc.passes.quantize.smooth import Smooth
from mlc.passes.quantize.weight_only import Weights

GOLDEN = Path(__file__).parent / "golden" / "passes"
PASSES: dict[str, Pass] = {
    "dequantize": Dequantize(),
    "equalize": Equalize(),
    "fp16": Fp16(),
    "int4": Int4(),
    "int4_symmetric": Int4(block=64, symmetric=True, scale="f32"),
    "int8": Int8(),
    "int8_static": Int8(mode="static", observer="minmax"),
    "prune": Prune(ratio=0.5),
    "prune_exact": Prune(),
    "smooth": Smooth(alpha=0.5),
    "weights_mixed": Weights(bits=(4, 8), saving=0.95),
    "weights_three_bits": Weights(bits=3, block=64, method="rtn"),
}


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


def given(name: str) -> Context:
    """Samples for the pass that cannot do without."""
    if name not in ("smooth", "int8_static"):
        return Context()
    ids = np.random.default_rng(1).integers(0, 128, (32, 6))
    return Context(data=Samples({"ids": ids}), runner=OrtRunner())


@pytest.mark.parametrize("name", PASSES)
def test_golden(name: str, update_golden: bool) -> None:
    made = PASSES[name](Int4()(network()) if name == "dequantize" else network(), given(name))
    # Which clip is best depends on the order of float sums, scales on the last bits of powers: no digests of those.
    quantized, scaled = name.startswith(("int4", "int8", "weights", "dequantize")), name in ("smooth", "equalize")
    text = print_module(made, digests=not quantized and not scaled)
    if scaled:
        text += "".join(f"\n{d.site}: {d.before} > {d.after}" for d in made.history[-1].done)
        text += "".join(f"\n{s.site}: {s.code.value}, {s.why}" for s in made.history[-1].skipped) + "\n"
    if quantized:
        text += "\nlowered for ort(cpu):\n\n" + print_module(legalize(made).module)
    path = GOLDEN / f"{name}.ir"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
