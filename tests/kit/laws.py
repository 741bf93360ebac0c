"""How a real model is asked whether a reordering keeps its function: on which input, and in which arithmetic.

Almost all run as they are on their synthetic input. Rounding hides the answer in two kinds of models: those that round
activations to integers (a last bit decides which way), and a detector that finds nothing in noise (outputs next to
zero have no relative error to speak of).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zoo
from kit.dequantize import dequantized
from kit.permute import Array, noise_floor, permutations, relative, run

from mlc.ir.axes import Axes
from mlc.ir.core import Module

#: Models whose activations are rounded: they are run in floating point, weights as they are.
ROUNDED = frozenset({"smart_turn", "t5_encoder_int8", "t5_decoder_int8"})


def arithmetic(name: str, module: Module) -> Module:
    return dequantized(module) if name in ROUNDED else module


def feeds(name: str, path: Path) -> dict[str, Array]:
    drawn = zoo.feeds(path, 0, name=name)
    return {key: page(x.shape) for key, x in drawn.items()} if name == "ppocrv4_det" else drawn


def page(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Dark blocks in rows on a light ground [N, C, H, W], normalized: what a text detector takes for lines of text."""
    rng, found = np.random.default_rng(seed), np.full(shape, 2.2, np.float32)
    for top in range(8, shape[2] - 16, 24):
        for left in range(8, shape[3] - 12, 10):
            if rng.random() < 0.7:
                found[:, :, top : top + 12, left : left + rng.integers(3, 8)] = -1.8
    return found


def permutation_error(name: str, path: Path, module: Module, axes: Axes, seed: int = 0) -> float:
    """What permuting every free class at once changes, relative."""
    given = feeds(name, path)
    before = run(arithmetic(name, module), given)
    return relative(before, run(arithmetic(name, axes.permuted(permutations(axes, seed))), given))


def noise(name: str, path: Path, module: Module) -> float:
    """What moving every weight by its rounding changes, relative."""
    exact, given = arithmetic(name, module), feeds(name, path)
    return noise_floor(exact, given, run(exact, given))
