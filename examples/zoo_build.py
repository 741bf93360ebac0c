"""Builds ONNX models from pinned weights: a small torch network of the same parameter names, loaded strictly.

The files are what torch's exporter gives, untouched: their clutter is part of what mlc has to cope with.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nets_text
import nets_vision
import torch
from torch import nn

# Part of the cache key: raise it whenever a network or the export below changes.
VERSION = "1"

Axes = Mapping[str, Mapping[int, str]]


def _export(net: nn.Module, sample: Sequence[torch.Tensor], inputs: Axes, outputs: Axes, target: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without onnxscript warns that it is the old one
        torch.onnx.export(
            net.eval(),
            tuple(sample),
            str(target),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={**inputs, **outputs},
            opset_version=17,
            dynamo=False,
        )


def _classifier(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> Callable[[Path, Path], None]:
    def build(weights: Path, target: Path) -> None:
        net = make()
        net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        batch = {0: "batch"}
        _export(net, [torch.zeros(1, *shape)], {"input": batch}, {"logits": batch}, target)

    return build


def _minilm(weights: Path, target: Path) -> None:
    net = nets_text.minilm(weights)
    ids = torch.ones(2, 8, dtype=torch.int64)
    axes = {0: "batch", 1: "sequence"}
    inputs = {"input_ids": axes, "attention_mask": axes, "token_type_ids": axes}
    _export(net, [ids, ids, torch.zeros_like(ids)], inputs, {"last_hidden_state": axes}, target)


def _smollm2(weights: Path, target: Path) -> None:
    net = nets_text.smollm2(weights)
    axes = {0: "batch", 1: "sequence"}
    _export(net, [torch.ones(2, 8, dtype=torch.int64)], {"input_ids": axes}, {"logits": axes}, target)


BUILDERS: Mapping[str, Callable[[Path, Path], None]] = {
    "mobilenet_v2": _classifier(nets_vision.mobilenet_v2, (3, 224, 224)),
    "efficientnet_lite0": _classifier(nets_vision.EfficientNetLite0, (3, 224, 224)),
    "mnist_digit_recognizer": _classifier(nets_vision.DigitRecognizer, (1, 28, 28)),
    "mnist_ccexam": _classifier(nets_vision.DigitExam, (1, 28, 28)),
    "minilm": _minilm,
    "smollm2": _smollm2,
}
