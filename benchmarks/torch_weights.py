"""Weights of a pruned ONNX file, back in the torch network that the file was exported from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from mlc.ir.core import Module


def restored(net: nn.Module, pruned: Module) -> nn.Module:
    """A copy of `net` with the tensors of `pruned`, found by name, and the sizes that follow from their shapes.

    `net`: convolutions, linear layers and batch norms. Errors: KeyError names a tensor that the file lacks.
    """
    twin, tensors = copy.deepcopy(net), dict(_tensors(pruned))
    for name, layer in twin.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            _fill(layer, name, tensors)
            _resize(layer)
    return twin


def _tensors(module: Module) -> Iterator[tuple[str, np.ndarray]]:
    """Every constant by name, and by the other names it has: the exporter keeps one of equal tensors."""
    for name, value in module.constants.items():
        if value.constant is not None:
            yield name, value.constant.array()
    for op in module.walk():
        source = op.operands[0] if op.kind == "Identity" else None
        if source is not None and source.constant is not None:
            yield op.results[0].name, source.constant.array()


def _fill(layer: nn.Module, name: str, tensors: Mapping[str, np.ndarray]) -> None:
    for own, old in (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)):
        if old.ndim == 0:  # the count of batches, which inference does not have
            continue
        new = torch.from_numpy(np.array(tensors[f"{name}.{own}"]))
        setattr(layer, own, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)


def _resize(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        outputs, inputs = layer.weight.shape[:2]
        if layer.groups > 1:
            if layer.groups != layer.in_channels:
                raise ValueError(f"{layer.groups} groups of a convolution: how many are left is not in its weight")
            layer.groups = outputs * layer.groups // layer.out_channels  # depthwise
        layer.out_channels, layer.in_channels = outputs, inputs * layer.groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.BatchNorm2d):
        layer.num_features = layer.weight.shape[0]
