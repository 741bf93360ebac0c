"""The metrics that bounds speak of: accepted units, sensible ranges, and which way is better."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .quantity import Quantity


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `kinds` maps each accepted kind of number to its largest sensible base value."""

    kinds: dict[Quantity, float]
    less_is_better: bool
    doc: str
    advice: str  # how to write a bound whose unit is missing; {n} stands for the number
    statistics: tuple[str, ...] = ()
    executable: bool = True  # False: understood, but not measured yet
    zero_makes_sense: bool = False  # whether the bound may be 0


METRICS = {
    "size": Metric(
        {Quantity.FACTOR: math.inf, Quantity.SIZE: math.inf},
        True,
        "size in bytes of the emitted model with its external data",
        "write {n}x to compare with the input model, or a size such as {n}MiB",
    ),
    "params": Metric(
        {Quantity.FACTOR: math.inf, Quantity.NUMBER: math.inf},
        True,
        "number of stored weights",
        "write {n}x to compare with the input model",
    ),
    "flops": Metric(
        {Quantity.FACTOR: math.inf, Quantity.NUMBER: math.inf},
        True,
        "multiply-accumulates of one run",
        "write {n}x to compare with the input model",
    ),
    "latency": Metric(
        {Quantity.TIME: math.inf, Quantity.FACTOR: math.inf},
        True,
        "time of one run on the target",
        "write {n}ms, or {n}x to compare with the input model",
        statistics=("p50", "p95"),
    ),
    "agreement": Metric(
        {Quantity.RATIO: 1.0},
        False,
        "share of samples on which the best class is that of the input model",
        "write {n}%",
    ),
    "cosine": Metric(
        {Quantity.NUMBER: 1.0}, False, "cosine of the outputs to those of the input model", "write a number up to 1"
    ),
    "sqnr": Metric({Quantity.LEVEL: math.inf}, False, "signal-to-noise ratio of the outputs", "write {n}dB"),
    "acc_drop": Metric(
        {Quantity.POINTS: 1.0, Quantity.RATIO: 1.0},
        True,
        "loss of accuracy against the input model; needs labels",
        "write {n}pp for points of accuracy or {n}% for a relative drop",
        zero_makes_sense=True,
    ),
    "peak_memory": Metric(
        {Quantity.SIZE: math.inf, Quantity.FACTOR: math.inf},
        True,
        "largest memory of a process that runs the model, the runtime included",
        "write {n}MiB, or {n}x to compare with the input model",
    ),
    "bitops": Metric(
        {Quantity.FACTOR: math.inf, Quantity.NUMBER: math.inf},
        True,
        "multiply-accumulates weighted by the bits of both operands",
        "write {n}x to compare with the input model",
        executable=False,
    ),
    "energy": Metric(
        {Quantity.ENERGY: math.inf, Quantity.FACTOR: math.inf},
        True,
        "energy of one run on the target",
        "write {n}mJ, or {n}x to compare with the input model",
        executable=False,
    ),
}

#: A function of the user's: what is better is said by the bound.
USER = Metric(
    {Quantity.NUMBER: math.inf, Quantity.RATIO: math.inf, Quantity.FACTOR: math.inf},
    True,
    "metric of a function of yours",
    "write {n}, {n}% or {n}x to compare with the input model",
    zero_makes_sense=True,
)
