"""A small detector in the manner of YOLO: split blocks, a feature pyramid, two scales of anchors, decoded boxes."""

from __future__ import annotations

import numpy as np
from kit.layers import Built, Layers, image

from mlc.ir.core import Value

ANCHORS, CLASSES = 2, 3
FIELDS = 5 + CLASSES  # x, y, width, height, objectness, classes


def _block(net: Layers, x: Value, inputs: int, half: int, outputs: int) -> Value:
    """Split, a residual convolution on one half, concat of all three (C2f)."""
    kept, y = net.split(net.relu(net.conv(x, inputs, 2 * half, 1)), (half, half), 1)
    z = net.op("Add", [y, net.relu(net.conv(y, half, half))])
    return net.relu(net.conv(net.concat([kept, y, z], 1), 3 * half, outputs, 1))


def _boxes(net: Layers, x: Value, channels: int, size: int, stride: int) -> Value:
    """[N, anchors * fields, H, W] as [N, anchors * H * W, fields], positions in pixels."""
    cells = size * size
    x = net.conv(net.relu(net.conv(x, channels, channels)), channels, ANCHORS * FIELDS, 1)
    x = net.transpose(net.reshape(x, 0, ANCHORS, FIELDS, cells), 0, 1, 3, 2)
    x = net.op("Sigmoid", [net.reshape(x, 0, ANCHORS * cells, FIELDS)])
    place, extent, rest = net.split(x, (2, 2, FIELDS - 4), 2)
    rows, columns = np.divmod(np.arange(cells), size)
    grid = np.tile(np.stack([columns, rows], -1), (ANCHORS, 1)).astype(np.float32)
    place = net.scaled(net.op("Add", [place, net.const(grid, net.fresh("grid"))]), stride)
    return net.concat([place, net.op("Mul", [extent, extent]), rest], 2)


def yolo() -> Built:
    net = Layers()
    x, feeds = image(net, size=16)
    x = net.relu(net.conv(x, 3, 8, stride=2))
    fine = _block(net, x, 8, 6, 10)
    coarse = net.relu(net.conv(fine, 10, 14, stride=2))
    scales = net.const(np.array([1, 1, 2, 2], np.float32))
    up = net.op("Resize", [coarse, None, scales], attrs={"mode": "nearest"})
    fine = net.relu(net.conv(net.concat([up, fine], 1), 24, 9, 1))
    return net.done(net.concat([_boxes(net, fine, 9, 8, 2), _boxes(net, coarse, 14, 4, 4)], 1)), feeds
