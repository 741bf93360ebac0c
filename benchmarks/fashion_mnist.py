"""Fashion-MNIST and two small networks trained on it: what the accuracy benchmarks share.

Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017: 60,000 training and 10,000 test images, 28 x 28 grey, 10 classes. It comes
from the Debian package `dataset-fashion-mnist`, pinned by version and sha256, into ~/.cache/mlc-datasets. Trained
networks are cached there, too.

python benchmarks/fashion_mnist.py [NET ...] [--seeds 0 1 2]      trains what is not cached, prints test accuracies
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

PACKAGE = "dataset-fashion-mnist"
PINNED = "0.0~git20200523.55506a9-1"
SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
CACHE = Path.home() / ".cache" / "mlc-datasets"
MEAN, DEVIATION = 0.2860, 0.3530  # of the training pixels
CLASSES = 10
BATCH = 128
RECIPE = 1  # part of the cache key: raise it when a network or the training below changes


class DatasetUnavailable(Exception):
    """The package cannot be had here (no apt, no network). Never raised for a wrong file."""


@dataclass(frozen=True)
class Images:
    """images: float32 [N, 1, 28, 28], zero mean and unit deviation; labels: int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, positions: slice | np.ndarray) -> Images:
        return Images(self.images[positions], self.labels[positions])


@functools.cache
def load() -> tuple[Images, Images]:
    """(train, test), downloaded on first use."""
    folder = _unpacked()
    return _images(folder, "train"), _images(folder, "t10k")


def _images(folder: Path, part: str) -> Images:
    pixels = _idx(folder / f"{part}-images-idx3-ubyte.gz").astype(np.float32) / 255
    labels = _idx(folder / f"{part}-labels-idx1-ubyte.gz").astype(np.int64)
    return Images(((pixels - MEAN) / DEVIATION)[:, None], labels)


def _idx(path: Path) -> np.ndarray:
    """An array of the idx format: two zero bytes, type (8: uint8), rank, big-endian sizes, data."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an idx file of uint8")
    sizes = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def _unpacked() -> Path:
    folder = CACHE / f"fashion-mnist-{SHA256[:12]}"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            archive = _downloaded(Path(scratch))
            subprocess.run(["dpkg-deb", "-x", archive, scratch], check=True)
            os.replace(Path(scratch) / "usr/share/datasets/fashion-mnist", folder)
    return folder


def _downloaded(folder: Path) -> Path:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DatasetUnavailable(f"{PACKAGE} is a Debian package, and there is no {tool} here to fetch it")
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", f"{PACKAGE}={PINNED}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.deb"))
    if done.returncode or not found:
        raise DatasetUnavailable(f"{' '.join(command)}: {done.stderr.strip()} (apt-get update may help)")
    if hashlib.sha256(found[0].read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{PACKAGE} {PINNED} is not the pinned file")
    return found[0]


def cnn() -> nn.Sequential:
    """Four convolutions and two linear layers, no normalization: 140 k parameters, 320 hidden units."""

    def conv(inputs: int, outputs: int, *, pool: bool) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), *([nn.MaxPool2d(2)] if pool else [])]

    features = [*conv(1, 32, pool=True), *conv(32, 32, pool=False), *conv(32, 64, pool=True), *conv(64, 64, pool=True)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(64 * 9, 128), nn.ReLU(), nn.Linear(128, CLASSES))


class Block(nn.Module):
    """The basic block of "Deep residual learning" (He et al., 2016), with a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR form: three stages of n blocks, widths 16, 32, 64 at 28, 14 and 7 pixels; 6n + 2 layers."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        widths = [16] * n + [32] * n + [64] * n
        strides = [2 if k in (n, 2 * n) else 1 for k in range(3 * n)]
        self.blocks = nn.Sequential(*(Block(i, o, s) for i, o, s in zip([16, *widths], widths, strides)))
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(functional.relu(self.bn(self.conv(x))))
        return self.fc(x.mean((2, 3)))


@dataclass(frozen=True)
class Net:
    make: Callable[[], nn.Module]
    epochs: int
    rate: float


NETS = {
    "cnn": Net(cnn, 5, 2e-3),
    "resnet8": Net(lambda: ResNet(1), 4, 6e-3),
    "resnet14": Net(lambda: ResNet(2), 4, 6e-3),
}


def train(name: str, seed: int = 0, epochs: int | None = None, *, data: Images | None = None) -> nn.Module:
    """The network of NETS, trained on all training images (or on `data`) and in eval mode.

    Cached by name, seed and epochs when trained on all of them: the same numbers as long as torch and the number of
    threads stay the same.
    """
    spec = NETS[name]
    epochs = spec.epochs if epochs is None else epochs
    torch.manual_seed(seed)
    net = spec.make()
    if data is not None:
        return fit(net, data, epochs, spec.rate, seed)
    path = CACHE / f"{name}-seed{seed}-epochs{epochs}-{RECIPE}.pt"
    if not path.exists():
        fit(net, load()[0], epochs, spec.rate, seed)
        partial = path.with_suffix(f".{os.getpid()}")
        torch.save(net.state_dict(), partial)
        partial.replace(path)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.eval()


def fit(net: nn.Module, data: Images, epochs: int, rate: float, seed: int) -> nn.Module:
    """Adam under a one-cycle schedule, cross-entropy, batches drawn from `seed`; returns the net in eval mode."""
    draw = np.random.default_rng(seed)
    steps = len(data) // BATCH
    optimizer = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    net.train()
    for _ in range(epochs):
        order = torch.from_numpy(draw.permutation(len(data)))
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            loss = functional.cross_entropy(net(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def accuracy(net: Callable[[torch.Tensor], torch.Tensor], data: Images) -> float:
    """Percent of the images whose largest logit is the label's."""
    hits = 0
    with torch.inference_mode():
        for start in range(0, len(data), 1000):
            logits = net(torch.from_numpy(data.images[start : start + 1000]))
            hits += int((logits.argmax(1).numpy() == data.labels[start : start + 1000]).sum())
    return 100 * hits / len(data)


def export(net: nn.Module, path: Path, *, fold: bool = False, shape: tuple[int, ...] = (1, 28, 28)) -> Path:
    """Writes the net as ONNX, batch size free. Initializers keep torch's names, unless `fold` folds batch norms."""
    mode = torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without onnxscript warns that it is the old one
        torch.onnx.export(
            net.eval(),
            (torch.zeros(1, *shape),),
            str(path),
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=17,
            training=mode,
            do_constant_folding=fold,
            dynamo=False,
        )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=["cnn", "resnet8"], metavar="NET", help=", ".join(NETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    chosen = parser.parse_args()
    for name in chosen.nets:
        for seed in chosen.seeds:
            start = time.perf_counter()
            net = train(name, seed)
            weights = sum(p.numel() for p in net.parameters())
            percent = accuracy(net, load()[1])
            print(f"{name} seed {seed}: {percent:.2f} % test, {weights} weights, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
