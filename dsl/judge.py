"""Whether the bounds of a recipe hold, given what was measured on the emitted file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..ir.classes import SCORES
from ..ir.errors import Code, Diagnostic, MlcError
from .build import Limit
from .metrics import METRICS
from .quantity import spoken

#: Metrics that more compression improves; the others get worse by it.
COSTS = frozenset({"size", "params", "flops", "latency", "peak_memory"})
#: Costs that hardly depend on what data says.
FORESEEN = frozenset({"size", "params", "flops"})

_SMALLER = "let a step go further: prune(ratio), weights([2, 4, 8]), stored=4"
#: What else helps where a bound is missed, by metric.
_FURTHER = {"size": _SMALLER, "params": "let prune go further", "flops": "let prune go further",
            "latency": "let a step go further: prune, int8 with --data",
            "peak_memory": "let a step go further: prune, int8 with --data; the runtime has its share"}  # fmt: skip
_LESS = "let a step do less: more bits, a smaller ratio, except the layers that suffer (mlc inspect --sensitivity)"


@dataclass(frozen=True)
class Measured:
    """A metric of the artifact, and of the source for bounds with `x`. Intervals count with their worse end."""

    value: float
    source: float | None = None


@dataclass(frozen=True)
class Verdict:
    limit: Limit
    measured: float | None  # in the terms of the bound; None: it could not be measured
    holds: bool

    @property
    def excess(self) -> float:
        """By how much the bound is missed; at most 0 where it holds. Infinite if it was not measured."""
        if self.measured is None:
            return math.inf
        over = self.measured - self.limit.value
        return -over if self.limit.comparison.startswith(">") else over

    @property
    def found(self) -> str:
        """What was measured, with its unit."""
        return "not measured" if self.measured is None else spoken(self.measured, self.limit.kind)

    def to_json(self) -> dict[str, Any]:
        return {"bound": self.limit.text, "measured": self.measured, "found": self.found, "holds": self.holds}

    def __str__(self) -> str:
        return f"{self.limit.text}: {self.found}{'' if self.holds else ' (missed)'}"


def check_measurable(limits: Iterable[Limit], *, check: str, samples: bool, labels: bool, classes: bool) -> None:
    """Refuse, before any work, bounds that nothing could measure. `classes`: the model has class scores to compare."""
    give = "give --eval samples.npz, with --labels KEY for labels"
    found = list(unmeasurable(limits, check=check, samples=samples, labels=labels, classes=classes, give=give))
    if found:
        raise MlcError(found)


def unmeasurable(
    limits: Iterable[Limit], *, check: str, samples: bool, labels: bool, classes: bool, give: str
) -> Iterator[Diagnostic]:
    """What keeps bounds from being measured; `give` says how to give samples and labels."""
    for limit in limits:
        if limit.metric not in METRICS and not samples:
            yield Diagnostic(Code.NO_DATA, f"'{limit.metric}' needs samples", limit.span, help=give)
        elif limit.metric in ("agreement", "acc_drop") and not classes:
            message = f"'{limit.metric}' needs an output of class scores ({SCORES}), and the model has none"
            yield Diagnostic(Code.CANNOT_HONOUR, message, limit.span, help="bound cosine or sqnr instead")
        elif limit.metric == "acc_drop" and not labels:
            help = f"{give}; or bound cosine or agreement"
            yield Diagnostic(Code.NO_DATA, "'acc_drop' needs labels", limit.span, help=help)
        elif limit.metric not in ("size", "params", "flops") and check != "full":
            message = f"'{limit.metric}' is not measured under --check {check}"
            yield Diagnostic(Code.CANNOT_HONOUR, message, limit.span, help="use --check full")


def check_sizes(limits: Iterable[Limit], macs: int | str) -> None:
    """Refuse a bound on work that depends on sizes nobody knows; `macs` is then the formula."""
    for limit in limits:
        if limit.metric == "flops" and isinstance(macs, str):
            names = ", ".join(dict.fromkeys(re.findall(r"[A-Za-z_][\w.]*", macs)))
            message = f"'flops' depends on sizes that are not known: {names}"
            raise MlcError(Diagnostic(Code.BAD_DIMS, message, limit.span, help="give them: --dims NAME=SIZE,..."))


def judge(limits: Iterable[Limit], facts: Mapping[str, Measured]) -> tuple[Verdict, ...]:
    """One verdict per bound; a metric that was not measured does not hold."""
    return tuple(_judge(limit, facts.get(limit.key)) for limit in limits)


def _judge(limit: Limit, found: Measured | None) -> Verdict:
    if found is None:
        return Verdict(limit, None, holds=False)
    if not limit.relative:
        return Verdict(limit, found.value, limit.holds(found.value))
    if found.source is None or found.source <= 0:  # nothing to be a part of
        return Verdict(limit, None, holds=False)
    ratio = found.value / found.source
    return Verdict(limit, ratio, limit.holds(ratio))


def missed(verdicts: Iterable[Verdict]) -> tuple[Diagnostic, ...]:
    """A diagnostic for every bound that does not hold."""
    return tuple(
        Diagnostic(
            Code.BOUND_MISSED,
            f"the bound was missed: {verdict}",
            verdict.limit.span,
            help=f"the best artifact was saved; loosen the bound, or {_FURTHER.get(verdict.limit.metric, _LESS)}",
        )
        for verdict in verdicts
        if not verdict.holds
    )
