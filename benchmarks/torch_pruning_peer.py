"""Torch-Pruning 1.6.1 (DepGraph, Fang et al., 2023), installed into a folder of its own, beside the same torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

PINNED = "torch-pruning==1.6.1"
SHA256 = "5cb619e55bb4d1b7ce71be9782865ad4977bfe99c148fdce9c3822eab08a9c08"
FOLDER = Path.home() / ".cache" / "mlc-peers" / SHA256[:12]


class PeerUnavailable(Exception):
    """The package cannot be had here."""


def installed() -> Path:
    """The folder to import torch_pruning from."""
    if not FOLDER.is_dir():
        FOLDER.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
            listed, target = Path(scratch) / "requirements.txt", Path(scratch) / "installed"
            listed.write_text(f"{PINNED} --hash=sha256:{SHA256}\n")
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
            done = subprocess.run(
                [*command, "--target", str(target), "-r", str(listed)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise PeerUnavailable(f"{PINNED} cannot be installed: {done.stderr.strip()}")
            os.replace(target, FOLDER)
    return FOLDER


def pruned(net: nn.Module, ratio: float, multiple: int, shape: tuple[int, ...]) -> nn.Module:
    """`net` without `ratio` of the units of every group, in place; the last linear layer keeps its classes.

    The importance is the package's default, the group norm with p = 2; `shape`: of one input.
    """
    if str(installed()) not in sys.path:
        sys.path.append(str(installed()))
    import torch_pruning

    head = [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1]
    torch_pruning.pruner.BasePruner(
        net,
        torch.zeros(1, *shape),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        round_to=multiple if multiple > 1 else None,
        ignored_layers=[head],
    ).step()
    return net
