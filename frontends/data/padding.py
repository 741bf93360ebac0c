"""Cutting padded samples to what they really hold.

Padding has outliers of its own: ranges and Hessians measured on it describe tokens that no user ever looks at. An
input that marks real positions by 1 and padding by 0 (an attention mask) says where every sample ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir import errors
from ...ir.dims import Sym
from ...ir.errors import Code
from ...ir.types import TensorType, Type

Array = np.ndarray[Any, Any]
_TRAILING = "move the padding to the end of each sample, or save samples of one length without a mask"


@dataclass(frozen=True)
class Padding:
    """`mask` is the input that marks padding along its last axis; `axes` are the axes of every input of that size."""

    mask: str
    axes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, mask: str, inputs: Mapping[str, Type]) -> Padding:
        """The padding of a model with these inputs. Errors: BAD_DATA when `mask` cannot mark padding."""
        kind = inputs.get(mask)
        if not isinstance(kind, TensorType):
            raise errors.error(
                Code.BAD_DATA, f"the model has no input {mask!r} that masks", help=f"its inputs: {', '.join(inputs)}"
            )
        length = kind.shape[-1] if kind.rank else None
        if not isinstance(length, Sym):
            raise errors.error(
                Code.BAD_DATA,
                f"the mask {mask!r} is {kind}: its last axis is of fixed size, so samples cannot be cut",
                help="export the model with a free sequence length, or leave the mask out",
            )
        shapes = {name: t.shape for name, t in inputs.items() if isinstance(t, TensorType)}
        axes = {name: tuple(i for i, d in enumerate(shape) if d == length) for name, shape in shapes.items()}
        if not any(found for name, found in axes.items() if name != mask):
            raise errors.error(
                Code.BAD_DATA,
                f"no other input has an axis of the size {length} that {mask!r} masks",
                help=f"the inputs: {', '.join(f'{n} {t}' for n, t in inputs.items())}",
            )
        return cls(mask, axes)

    def check(self, whole: Mapping[str, bool], where: str) -> None:
        """Errors: BAD_DATA when samples of an input are slices along the very axis that is masked."""
        for name, is_whole in whole.items():
            if not is_whole and 0 in self.axes[name]:
                raise errors.error(
                    Code.BAD_DATA,
                    f"the samples of {name!r} lie along the axis that {self.mask!r} masks",
                    where=where,
                    help="give the array one axis more: one whole input per sample",
                )

    def cut(self, name: str, sample: Array, length: int, *, whole: bool) -> Array:
        """What a sample of an input holds up to `length`; samples that are not whole lack axis 0 of the input."""
        keep = [slice(None)] * sample.ndim
        for axis in self.axes[name]:
            keep[axis if whole else axis - 1] = slice(length)
        return sample[tuple(keep)]

    def length(self, mask: Array, where: str) -> int:
        """Real positions of one sample's mask. Errors: BAD_DATA when it marks anything but an end."""
        rows = mask.reshape(-1, mask.shape[-1])
        if not np.isin(rows, (0, 1)).all():
            raise errors.error(
                Code.BAD_DATA, f"the mask of {where} holds more than 0 and 1", help="write 1 for real positions"
            )
        real = rows[0] != 0
        count = int(real.sum())
        if (rows != rows[0]).any() or not real[:count].all():
            raise errors.error(Code.BAD_DATA, f"the padding of {where} is not one end of it", help=_TRAILING)
        if not count:
            raise errors.error(Code.BAD_DATA, f"{where} is nothing but padding", help="leave such samples out")
        return count
