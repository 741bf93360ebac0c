"""Image classifiers whose parameter names are those of published weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def _conv_bn(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def _conv_bn_relu6(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(*_conv_bn(inputs, outputs, kernel, stride=stride, groups=groups), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Expand, depthwise, project (MobileNetV2)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        widen = [_conv_bn_relu6(inputs, hidden, 1)] if expand > 1 else []
        depthwise = _conv_bn_relu6(hidden, hidden, 3, stride=stride, groups=hidden)
        self.conv = nn.Sequential(*widen, depthwise, *_conv_bn(hidden, outputs, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0, 224 x 224 (Sandler et al., 2018)."""

    # expansion, channels, repeats, stride of the first
    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(3, 32, 3, stride=2)]
        width = 32
        for expand, channels, repeats, stride in self.STAGES:
            for index in range(repeats):
                layers.append(InvertedResidual(width, channels, 1 if index else stride, expand))
                width = channels
        layers.append(_conv_bn_relu6(width, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


def mobilenet_v2() -> nn.Module:
    return MobileNetV2()


class SameConv(nn.Conv2d):
    """TensorFlow's SAME padding: the odd pixel goes right and below, as a Pad of its own."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, size: int, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        before, after = total // 2, total - total // 2
        self.pads = (before, after, before, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, self.pads) if any(self.pads) else x)


class MBConv(nn.Module):
    """The inverted residual of EfficientNet-Lite: ReLU6, no squeeze and excitation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int, size: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.expands = expand > 1
        if self.expands:
            self._expand_conv = SameConv(inputs, hidden, 1, 1, size)
            self._bn0 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._depthwise_conv = SameConv(hidden, hidden, kernel, stride, size, groups=hidden)
        self._bn1 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._project_conv = SameConv(hidden, outputs, 1, 1, -(-size // stride))
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0, 224 x 224."""

    # repeats, kernel, stride of the first, expansion, channels
    STAGES = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2, 224)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.ModuleList()
        width, size = 32, 112
        for repeats, kernel, first, expand, channels in self.STAGES:
            for index in range(repeats):
                stride = 1 if index else first
                self._blocks.append(MBConv(width, channels, kernel, stride, expand, size))
                width, size = channels, -(-size // stride)
        self._conv_head = SameConv(width, 1280, 1, 1, size)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return self._fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def _conv_relu_pool(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]


class DigitRecognizer(nn.Module):
    """Three convolutions and two dense layers on 28 x 28 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layers = nn.Sequential(*_conv_relu_pool(1, 32), *_conv_relu_pool(32, 64), *_conv_relu_pool(64, 128))
        self.fc_layers = nn.Sequential(nn.Linear(128 * 3 * 3, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc_layers(torch.flatten(self.conv_layers(x), 1))


class DigitExam(nn.Module):
    """Two convolutions and two dense layers on 28 x 28 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_conv_relu_pool(1, 32), *_conv_relu_pool(32, 64))
        self.classifier = nn.Sequential(nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))
