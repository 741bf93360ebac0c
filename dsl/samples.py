"""The samples of a compilation: what calibrates and what judges, from the command line or from the recipe's file."""

from __future__ import annotations

from collections.abc import Iterator

from ..frontends.data.samples import Samples
from ..ir.core import Module
from ..ir.progress import Progress
from .data import Data, open_data
from .program import Program

#: Fewer samples than these say little of how a model does on others.
FEW = 8


def open_samples(
    program: Program,
    module: Module,
    data: Data | None,
    judges: Data | None,
    *,
    labels: str | None,
    mask: str | None,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Samples | None, Samples | None]:
    """(what calibrates, what judges): `data` and `judges`, else what the recipe's file binds; without data that judges
    a seeded split of what calibrates, or all of it for both when no step learns from it.

    Every sample is read and checked once, so that no work is lost on the last one. Errors: BAD_DATA for one that is
    wrong.
    """
    given = program.data(data, judges)
    names = ("--data", "--eval")
    calibrate, judge = (
        open_data(each, module, labels=labels, mask=mask, name=name, classes=program.wants_classes)
        if each is not None
        else None
        for each, name in zip(given, names)
    )
    for samples in filter(None, (calibrate, judge)):
        samples.check(progress)
    if judge is not None or calibrate is None or not program.learns:
        return calibrate, judge or calibrate
    first, second = calibrate.split(seed)
    return (first, second) if len(second) and len(first) else (calibrate, None)


def doubts(calibrate: Samples | None, judge: Samples | None) -> Iterator[str]:
    """What to say of samples that judge little: those that calibrate, too, unless a split has set them apart; few."""
    if judge is None:
        return
    if calibrate is not None and calibrate.digest == judge.digest and calibrate.part == judge.part:
        yield (
            "the samples that judge are of the data that calibrate: agreement on others may be worse "
            "(--eval held_out.npz)"
        )
    if len(judge) < FEW:
        some = "1 sample judges" if len(judge) == 1 else f"{len(judge)} samples judge"
        yield f"{some}, which says little of others: give dozens (more --data, or --eval held_out.npz)"
