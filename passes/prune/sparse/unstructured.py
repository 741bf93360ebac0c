"""Zeros in weights: the elements that are worth least anywhere, or N of every M neighbours (2:4) along the summed axis.

An element is worth its magnitude or, with calibration data, its magnitude times the root mean square of what it is
multiplied with (Wanda, Sun et al., 2023). Shapes stay. Weights are read and written in pieces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ....ir import errors
from ....ir.constants import ArrayPayload, Constant
from ....ir.core import Module
from ....ir.errors import Code
from ....ir.rewrite import Rewriter
from ...accumulators import Moments
from ...base import Context, Done, Plan, SkipCode, Skipped
from ...ports import Array, Request
from ...statistics import StreamingStatistics, sources
from ..overrides import resolve
from ..surgery import EAGER_BYTES
from .contracted import data_of, spread
from .masks import Above, Best, MaskedPayload, Rule, Scored, smallest, zeros
from .multiplied import Candidate, candidates

if TYPE_CHECKING:
    from ..structured import Prune

_PATTERN = re.compile(r"(\d+):(\d+)")
_LARGEST_GROUP = 64
CRITERIA = ("auto", "l2", "l1", "activation")
DENSE = (
    "size only: ONNX Runtime multiplies zeros like any other number: the model does not get faster, nor the file "
    "smaller, but the file compresses better"
)


@dataclass(frozen=True)
class TensorPlan:
    """What becomes of one weight. Elements worth less than `threshold` become zero, those worth as much before flat
    position `cut`; with a pattern the elements that are not among the best along `axis`."""

    constant: str
    site: str
    elements: int
    zeros_before: int
    zeros_after: int
    threshold: float | None = None
    cut: int | None = None
    axis: int | None = None


@dataclass(frozen=True)
class SparsePlan(Plan):
    kind: str = "unstructured"
    by_data: bool = False
    tensors: tuple[TensorPlan, ...] = ()
    elements: int = 0
    zeros: tuple[int, int] = (0, 0)  # before, after, in the weights above


def pattern_of(kind: str) -> tuple[int, int] | None:
    """(2, 4) of `2:4`; None if it is none. Errors: OUT_OF_RANGE unless 0 < N < M <= 64."""
    found = _PATTERN.fullmatch(kind)
    if found is None:
        return None
    n, m = int(found[1]), int(found[2])
    if not 0 < n < m <= _LARGEST_GROUP:
        raise errors.error(
            Code.OUT_OF_RANGE, f"'prune.kind' = {kind!r} keeps {n} of {m}",
            help=f"the first number is below the second, and that is at most {_LARGEST_GROUP}: 2:4, 4:8, 1:4",
        )  # fmt: skip
    return n, m


def check_options(step: Prune) -> None:
    """Refuse an unknown kind, and arguments that say nothing about the kind they are given with."""
    if step.kind == "structured":
        return
    pattern = pattern_of(step.kind)
    if pattern is None and step.kind != "unstructured":
        raise errors.error(
            Code.OUT_OF_RANGE, f"'prune.kind' is {step.kind!r}", help='structured, unstructured, or N:M such as "2:4"'
        )
    idle = [
        name for name in ("nested", "widths", "multiple", "penalty") if getattr(step, name) != getattr(type(step), name)
    ]
    idle += ["reconstruct"] if step.reconstruct == "lstsq" else []
    idle += ["criterion"] if step.criterion not in CRITERIA else []
    idle += ["allocation"] if step.allocation == "flops" or (pattern and step.allocation != "uniform") else []
    idle += ["ratio"] if pattern and step.ratio is not None else []
    idle += ["overrides"] if pattern and any(e.ratio > 0 for e in step.entries()) else []
    if idle:
        raise errors.error(
            Code.CANNOT_HONOUR, f"'{step.name}': {', '.join(idle)} cannot be given with kind={step.kind}",
            help=_HELP_PATTERN if pattern else _HELP,
        )  # fmt: skip


_HELP = f"shapes stay, and work with them; criteria are {', '.join(CRITERIA)}, allocations uniform and global"
_HELP_PATTERN = f"N:M says how much goes everywhere; overrides can only spare (0%); criteria are {', '.join(CRITERIA)}"


def plan_sparse(step: Prune, module: Module, ctx: Context) -> SparsePlan:
    """Which elements of which weights become zero."""
    found, skipped = candidates(module, ctx, pattern_of(step.kind))
    own = resolve(step.entries(), module, step.name)
    ratios = {c: own.ratio((r.op for r in c.weight.readers), c.weight.name) for c in found}
    scored, by_data = _scored(step, module, found, ctx)
    rules = _rules(step, found, scored, ratios)
    tensors = [_tensor(c, s, rules[c]) for c, s in zip(found, scored) if c in rules]
    changed = tuple(t for t in tensors if t.zeros_after > t.zeros_before)
    already = [t for t in tensors if t.zeros_after == t.zeros_before > 0]
    skipped += [Skipped(t.site, SkipCode.ALREADY, f"{t.zeros_before} of {t.elements} are zero") for t in already]
    elements = sum(t.elements for t in tensors)
    total = (sum(t.zeros_before for t in tensors), sum(t.zeros_after for t in tensors))
    asked = step.ratio is not None or pattern_of(step.kind) is not None
    notes = (*_notes(elements, total, by_data, len(found), ctx, asked=asked), *own.check(step.name))
    return SparsePlan(tuple(skipped), notes, step.kind, by_data > 0, changed, elements, total)


def apply_sparse(step: Prune, rw: Rewriter, plan: SparsePlan, ctx: Context) -> Sequence[Done]:
    """Put the zeros of a plan into the weights."""
    found = {c.weight.name: c for c in candidates(rw.module, ctx, pattern_of(plan.kind))[0]}
    chosen = [found[t.constant] for t in plan.tensors]
    scored, _ = _scored(step, rw.module, chosen, ctx)
    for t, candidate, tensor in zip(plan.tensors, chosen, scored):
        old = candidate.constant
        made = Constant(old.type, MaskedPayload(tensor, _rule(plan, t, candidate)), old.origin)
        if made.nbytes <= EAGER_BYTES:
            made.payload = ArrayPayload(made.payload.array())
        rw.set_constant(candidate.weight.value, made)
    return [Done(t.site, f"{t.zeros_before} zeros of {t.elements}", f"{t.zeros_after} zeros") for t in plan.tensors]


def _notes(
    elements: int, total: tuple[int, int], by_data: int, found: int, ctx: Context, *, asked: bool
) -> tuple[str, ...]:
    if not elements:
        return ("no operator multiplies with a weight of floats in scope", DENSE)
    told = [] if asked else ["nothing goes without a ratio: give one, or a bound or data to choose it by"]
    told += [f"{total[1] / elements:.1%} of {elements} weights are zero ({total[0] / elements:.1%} were)", DENSE]
    if by_data:
        told.append(f"{by_data} of {found} weights are scored with what they multiply in {len(ctx.data or ())} samples")
    return tuple(told)


# -- what elements are worth -------------------------------------------------------------------------------------


def _scored(step: Prune, module: Module, found: Sequence[Candidate], ctx: Context) -> tuple[list[Scored], int]:
    """The weights with what their elements are worth, and how many of them are judged with data."""
    plain = [Scored(c.constant) for c in found]
    if step.criterion in ("l1", "l2") or (ctx.data is None and ctx.stats is None and step.criterion == "auto"):
        return plain, 0
    stats = ctx.stats or StreamingStatistics(*sources(ctx), max_memory=ctx.max_memory, progress=ctx.progress)
    watched = {c: [data_of(r, h) for r, h in c.sums] for c in found if c.how is not None}
    requests = {
        c: [Request(w[0].name, Moments, w[1]) for w in seen if w is not None]
        for c, seen in watched.items()
        if all(w is not None for w in seen)
    }
    told = stats.get(module, [r for many in requests.values() for r in many]) if requests else {}
    factors = {c: _factors(c, [told[r][1] for r in many]) for c, many in requests.items()}
    return [replace(p, factors=factors.get(c)) for c, p in zip(found, plain)], len(factors)


def _factors(c: Candidate, squares: Sequence[Array]) -> Array:
    """The root mean square of what every element multiplies, over all readers. Squares: [n] of each reader."""
    total = sum(spread(np.asarray(s, np.float64), c.constant.shape, how) for s, (_, how) in zip(squares, c.sums))
    return np.sqrt(np.asarray(total) / len(squares)).astype(np.float32)


# -- which elements ----------------------------------------------------------------------------------------------


def _rules(
    step: Prune, found: Sequence[Candidate], scored: Sequence[Scored], ratios: dict[Candidate, float | None]
) -> dict[Candidate, Rule]:
    """What goes from each weight; weights that keep everything are left out."""
    pattern = pattern_of(step.kind)
    if pattern is not None:
        return {c: _best(c, pattern) for c in found if ratios[c] is None}
    ratio = step.ratio or 0.0
    pool = [(c, s) for c, s in zip(found, scored) if ratios[c] is None]
    own = [(c, s, r) for c, s in zip(found, scored) if (r := ratios[c]) is not None]
    if step.allocation == "uniform":
        own += [(c, s, ratio) for c, s in pool]
        pool = []
    rules: dict[Candidate, Rule] = {c: smallest([s], _count(s.constant.elements, r))[0] for c, s, r in own}
    together = smallest([s for _, s in pool], _count(sum(s.constant.elements for _, s in pool), ratio))
    return rules | {c: rule for (c, _), rule in zip(pool, together)}


def _count(elements: int, ratio: float) -> int:
    return int(elements * Fraction(str(ratio)))


def _best(c: Candidate, pattern: tuple[int, int]) -> Best:
    assert c.how is not None
    inner = int(np.prod(c.constant.shape[c.how.axis + 1 :], dtype=np.int64))
    return Best(*pattern, inner)


def _rule(plan: SparsePlan, t: TensorPlan, c: Candidate) -> Rule:
    pattern = pattern_of(plan.kind)
    if pattern is not None:
        return _best(c, pattern)
    assert t.threshold is not None
    assert t.cut is not None
    return Above(t.threshold, t.cut)


def _tensor(c: Candidate, scored: Scored, rule: Rule) -> TensorPlan:
    above = rule if isinstance(rule, Above) else None
    return TensorPlan(
        c.weight.name, c.site, c.constant.elements, zeros(scored), zeros(scored, rule),
        above.threshold if above else None, above.cut if above else None,
        c.how.axis if above is None and c.how is not None else None,
    )  # fmt: skip
