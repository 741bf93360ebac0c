"""Whether a model can work with a sample: its sizes, the numbers it holds, and whether its label is one of a class.

Each sample is looked at once, whoever reads it how often. What only a run can tell is left to the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...ir import classes
from ...ir.demands import Demands, Nearest, Shapes
from ...ir.errors import Diagnostic
from ...ir.picks import Beyond
from ...ir.types import Type
from .fit import feeds_of
from .source import Array, Inputs, Sample, Stream, bad


class Checker:
    """What the graph of a model says to samples. Shared by all parts of one source.

    `classes`: labels must be numbers of classes. Otherwise they are what the source gives, and `misfit` is what kept
    the first that is no such number from being one.
    """

    def __init__(self, demands: Demands, inputs: Inputs, stream: Stream, *, classes: bool) -> None:
        self._demands, self._inputs, self._stream = demands, inputs, stream
        self._classes = classes
        self.misfit: Diagnostic | None = None
        self._seen = bytearray()  # one byte a sample

    def check(self, sample: Sample) -> None:
        """Errors: BAD_DATA naming what of the sample the model cannot work with."""
        if self._seen[sample.index : sample.index + 1] == b"\1":
            return
        feeds = feeds_of(sample, self._inputs)
        shapes = tuple(feeds[name].shape for name in self._inputs)
        typed = self._demands.typed(shapes)
        if typed.refusal is not None:
            why = f"at {typed.refusal.where}, {typed.refusal.message}"
            raise self._wrong_sizes(sample, shapes, why)
        beyond = self._demands.beyond(feeds)
        if beyond is not None:
            raise _beyond(sample, feeds, beyond)
        if sample.label is not None:
            self._check_label(sample.label, typed.outputs, sample.where)
        self._seen.extend(bytes(max(0, sample.index + 1 - len(self._seen))))
        self._seen[sample.index] = 1

    def _check_label(self, label: Array, outputs: Mapping[str, Type], where: str) -> None:
        found = classes.misfit_of_types(label, outputs)
        if found is None:
            return
        told = bad(found.message, where, found.help, note=classes.USES)
        if self._classes:
            raise told
        self.misfit = self.misfit or told.diagnostics[0]

    def _wrong_sizes(self, sample: Sample, shapes: Shapes, why: str) -> Exception:
        nearest = self._demands.nearest(shapes)
        if nearest is None:
            told = ", ".join(f"{name!r} {list(shape)}" for name, shape in zip(self._inputs, shapes))
            message = f"the model does not run with inputs of these shapes: {told}"
            return bad(message, sample.where, "give samples as the model was made for", note=why)
        shape = shapes[[*self._inputs].index(nearest.input)]
        found, works = _told(shape, nearest)
        return bad(
            f"input {nearest.input!r} has {found}, with which the model does not run; with {works} it does",
            sample.where,
            self._stream.resized(nearest.shape),
            note=why,
        )


def _told(shape: tuple[int, ...], nearest: Nearest) -> tuple[str, str]:
    """The wrong sizes, and those that would do."""
    if nearest.axis is None:
        return f"shape {list(shape)}", f"{list(nearest.shape)}"
    return f"{shape[nearest.axis]} on axis {nearest.axis}", f"{nearest.shape[nearest.axis]}"


def _beyond(sample: Sample, feeds: Mapping[str, Array], found: Beyond) -> Exception:
    table = f"{found.table!r} has {found.rows} rows"
    if found.fed:
        (name,) = found.inputs
        place = [int(i) for i in np.argwhere(feeds[name] == found.number)[0]]
        message = f"input {name!r} holds {found.number} at {place}, and {table}"
        return bad(
            message, sample.where, f"give numbers from 0 to {found.rows - 1}: those that the model was trained with"
        )
    of = f"input {', '.join(map(repr, found.inputs))}" if found.inputs else "the sizes of the inputs"
    message = f"from {of} follows row {found.number}, and {table}"
    return bad(
        message,
        sample.where,
        "give shorter samples, or those that the model was trained with",
        note=f"at {found.op.loc}",
    )
