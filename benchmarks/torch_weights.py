"""Weights of a pruned ONNX file, back in the torch network that the file was exported from."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from mlc.ir.core import Module


def restored(net: nn.Module, pruned: Module) -> nn.Module:
    """A copy of `net` with the tensors of `pruned`, found by name, and the sizes that follow from their shapes.

    `net`: convolutions, linear layers and batch norms. Errors: KeyError names a tensor that the file lacks.
    """
    twin = copy.deepcopy(net)
    tensors = {name: value.constant.array() for name, value in pruned.constants.items() if value.constant is not None}
    for name, layer in twin.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            _fill(layer, name, tensors)
            _resize(layer)
    return twin


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
