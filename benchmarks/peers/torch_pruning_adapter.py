"""Torch-Pruning (DepGraph): half of the units of every group of a torch module, exported as ONNX."""

from __future__ import annotations

import adapter
import torch
import torch_pruning


def pruned(job: adapter.Job, multiple: int) -> None:
    """The importance is the package's default, the group norm with p = 2; the last linear layer keeps its classes."""
    net = torch.load(job.network, weights_only=False)
    (example,) = (torch.from_numpy(array) for array in job.feeds(1)[0].values())
    head = [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)][-1]
    torch_pruning.pruner.BasePruner(
        net,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        round_to=multiple,
        ignored_layers=[head],
    ).step()
    names = {"input_names": ["input"], "output_names": ["output"]}
    axes = {"input": {0: "batch"}, "output": {0: "batch"}}
    torch.onnx.export(net.eval(), (example,), str(job.out), opset_version=17, dynamic_axes=axes, dynamo=False, **names)


adapter.main({"50 %, widths in multiples of 16": lambda job: pruned(job, 16)})
