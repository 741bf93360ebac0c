"""Residual networks whose parameter names are those of torchvision's."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

#: Depth -> (blocks of each stage, bottleneck or basic).
DEPTHS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True), 101: ((3, 4, 23, 3), True)}


class Block(nn.Module):
    """A chain of convolutions beside a shortcut. The stride sits in the 3 x 3 convolution (ResNet v1.5)."""

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * 4 if bottleneck else width
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        widths = (inputs, *[width] * (len(kernels) - 1), outputs)
        self.depth = len(kernels)
        strided = 2 if bottleneck else 1
        for k, (kernel, a, b) in enumerate(zip(kernels, widths, widths[1:]), 1):
            conv = nn.Conv2d(a, b, kernel, stride if k == strided else 1, kernel // 2, bias=False)
            self.add_module(f"conv{k}", conv)
            self.add_module(f"bn{k}", nn.BatchNorm2d(b))
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for k in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{k}")(self.get_submodule(f"conv{k}")(y))
            y = F.relu(y) if k < self.depth else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet for 224 x 224 images (He et al., "Deep residual learning for image recognition", 2016)."""

    def __init__(self, depth: int, classes: int = 1000) -> None:
        super().__init__()
        stages, bottleneck = DEPTHS[depth]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, blocks in enumerate(stages):
            width = 64 << stage
            layer = nn.Sequential()
            for index in range(blocks):
                stride = 2 if stage and not index else 1
                layer.append(Block(inputs, width, stride, bottleneck=bottleneck))
                inputs = width * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", layer)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def resnet(depth: int, *, seed: int = 0) -> nn.Module:
    """With random weights: He's initialization, drawn from `seed`.

    Batch norms are random, too: exporters merge equal tensors, and a tensor that several layers share ties them.
    """
    torch.manual_seed(seed)
    net = ResNet(depth)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()
