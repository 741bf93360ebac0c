"""ONNX Runtime's own quantizers with the settings that people use: what the benchmarks compare with."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import onnx
import onnx.version_converter
import quantize_data as data
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process


@dataclass(frozen=True)
class Static:
    """One setting of quantize_static: types of activations and weights, granularity, how ranges are found."""

    activations: QuantType
    per_channel: bool
    method: CalibrationMethod = CalibrationMethod.MinMax
    extra: Mapping[str, Any] = field(default_factory=dict)
    samples: int | None = None  # histograms hold every activation of every sample: all of them would not fit


STATIC: Mapping[str, Static] = {
    "s8s8 per tensor, min-max": Static(QuantType.QInt8, per_channel=False),
    "u8s8 per channel, min-max": Static(QuantType.QUInt8, per_channel=True),
    "u8s8 per channel, percentile 99.99": Static(
        QuantType.QUInt8, True, CalibrationMethod.Percentile, {"CalibPercentile": 99.99}, 40
    ),
    "u8s8 per channel, entropy": Static(QuantType.QUInt8, True, CalibrationMethod.Entropy, {}, 40),
    "u8s8 per channel, min-max, moving average": Static(
        QuantType.QUInt8, True, CalibrationMethod.MinMax, {"CalibMovingAverage": True}
    ),
}


class _Reader(CalibrationDataReader):
    def __init__(self, samples: Path, most: int | None) -> None:
        self._rows = iter(list(islice(data.batches(samples), most)) if most is not None else data.batches(samples))

    def get_next(self) -> dict[str, Any] | None:
        row = next(self._rows, None)
        return None if row is None else dict(row)


def _raised(model: Path, out: Path) -> str:
    """The model in an opset that knows scales per channel (13): the quantizer does not raise it by itself."""
    found = onnx.load(model)
    if next(o.version for o in found.opset_import if not o.domain) >= 13:
        return str(model)
    raised = out.with_suffix(".raised.onnx")
    onnx.save(onnx.version_converter.convert_version(found, 17), raised)
    return str(raised)


def static(model: Path, samples: Path, out: Path, setting: Static, exclude: Sequence[str] = ()) -> Path:
    """Quantized by `quantize_static` after its `quant_pre_process`."""
    logging.getLogger().setLevel(logging.ERROR)
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(_raised(model, out), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(out),
        _Reader(samples, setting.samples),
        quant_format=QuantFormat.QDQ,
        per_channel=setting.per_channel,
        activation_type=setting.activations,
        weight_type=QuantType.QInt8,
        calibrate_method=setting.method,
        nodes_to_exclude=list(exclude),
        extra_options=dict(setting.extra),
    )
    prepared.unlink()
    return out


def dynamic(model: Path, out: Path) -> Path:
    """Quantized by `quantize_dynamic`: s8 weights per channel, activations on the run."""
    logging.getLogger().setLevel(logging.ERROR)
    quantize_dynamic(str(model), str(out), per_channel=True, weight_type=QuantType.QInt8)
    return out
