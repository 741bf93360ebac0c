"""What functions of a model's outputs and the labels of all samples say of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .checks import Judge
from .ort import Session

#: `metric(outputs, labels)`: a list with one array a sample for each output, and a list of the samples' labels as the
#: source gives them (None without labels).
Function = Callable[[dict[str, list[Any]], list[Any] | None], float]


def score(functions: Mapping[str, Function], session: Session, judge: Judge) -> dict[str, float]:
    """What each function says of a model on the judge's samples, which are run one by one."""
    assert judge.samples is not None, "metrics need samples, which is checked before any work"
    outputs: dict[str, list[Any]] = {name: [] for name in session.output_names}
    labels: list[Any] = []
    for batch in judge.samples.batches(1):
        for name, array in session.run(batch.inputs).items():
            outputs[name].append(array)
        if batch.labels is not None:
            labels += list(batch.labels)
    return {name: call({k: list(v) for k, v in outputs.items()}, labels or None) for name, call in functions.items()}
