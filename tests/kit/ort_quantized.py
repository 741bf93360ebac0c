"""Networks of the kit as ONNX Runtime's own tools quantize them: every format that models come in."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from kit.nets import NETS, Feeds

from mlc.backends.onnx import to_proto

FORMATS = ("qdq", "qdq_s8", "qoperator", "dynamic", "dynamic_u8", "nbits")


def quantized(name: str, how: str, folder: Path) -> tuple[Path, list[Feeds]]:
    """The file that the tool writes for a network, and some inputs in the range it was calibrated on."""
    from onnxruntime import quantization as tool

    module, feeds = NETS[name]()
    source, target = folder / "source.onnx", folder / f"{how}.onnx"
    onnx.save(to_proto(module), source)
    samples = [_around(feeds, seed) for seed in range(4)]
    logging.disable(logging.CRITICAL)
    try:
        if how == "nbits":
            _in_blocks(source, target)
        elif how.startswith("dynamic"):
            kind = tool.QuantType.QUInt8 if how.endswith("u8") else tool.QuantType.QInt8
            tool.quantize_dynamic(source, target, weight_type=kind, per_channel=how.endswith("u8"))
        else:
            tool.quantize_static(
                source, target, _reader(samples),
                quant_format=tool.QuantFormat.QDQ if how.startswith("qdq") else tool.QuantFormat.QOperator,
                per_channel=True, weight_type=tool.QuantType.QInt8,
                activation_type=tool.QuantType.QInt8 if how.endswith("s8") else tool.QuantType.QUInt8,
            )  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return target, samples[:2]


def _in_blocks(source: Path, target: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    made = MatMulNBitsQuantizer(
        onnx.load(source), block_size=16, is_symmetric=False, op_types_to_quantize=("MatMul", "Gather")
    )
    made.process()
    onnx.save(made.model.model, target)


def _reader(samples: list[Feeds]) -> object:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[Feeds] = iter(samples)

        def get_next(self) -> Feeds | None:
            return next(self.rest, None)

    return Reader()


def _around(feeds: Feeds, seed: int) -> Feeds:
    """Other floats of the same spread; ids stay."""
    rng = np.random.default_rng(seed)
    return {
        name: x + 0.3 * x.std() * rng.standard_normal(x.shape).astype(x.dtype) if x.dtype == np.float32 else x
        for name, x in feeds.items()
    }
