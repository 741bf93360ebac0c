"""Least-squares reconstruction: what is left is fitted to what the whole model computed, layer by layer, closed form.

After units are gone, every linear operator that read them (passes/linear.py) gets the weight and the bias that
reproduce its old result best on the calibration data, from the inputs that the pruned model really gives it:

    min over W, b of  E |y - W x' - b|^2 + penalty * d * |W - W_cut|^2

y is the result in the whole model (before any activation), x' the input in the pruned one, whose earlier layers are
fitted already; W_cut is the sliced weight, d the mean variance of x' (He, Zhang, Sun, "Channel Pruning", 2017; the
ridge is centred as in passes/regression.py). The bias is not penalised, so what removed units added on average moves
into it. Layers that do not depend on each other share one streaming run of both models.

A BatchNormalization right behind a fitted operator has its variance scaled by what the fit lost of it: a ridge
solution explains less variance than there was (REPAIR, Jordan et al., 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir.axes import Axes, Index
from ...ir.constants import Constant
from ...ir.core import Module, Op, Value
from ...ir.cost import cost_of
from ...ir.rewrite import Rewriter
from ..base import Context, Done, SkipCode, Skipped
from ..bias import add_bias
from ..linear import Linear, linear_of
from ..regression import CrossMoments, Fit
from ..statistics import batch_size, sources, stream

Array = np.ndarray[Any, Any]

ROWS_PER_COLUMN = 64  # of a fit; more cost time and no longer help
FEWEST_ROWS = 1 << 15
DEFAULT_MEMORY = 4 << 30
SHARE = 4  # of the memory that moments may take: one in so many


@dataclass(frozen=True, eq=False)
class FitSite:
    """A linear operator of the pruned module behind removed units. Sites of one level do not feed each other."""

    linear: Linear
    level: int

    @property
    def name(self) -> str:
        return self.linear.op.name or self.linear.op.result.name

    @property
    def memory(self) -> int:
        groups, outputs, depth = self.linear.shape
        return groups * depth * (2 * depth + outputs) * 8


def fit_sites(
    module: Module, dense: Module, changed: Sequence[Value], memory: int | None
) -> tuple[list[FitSite], list[Skipped]]:
    """The operators of a pruned module that are to be fitted, front to back, and those that stay as they were cut.

    `changed` are the constants that lost units since `dense`. Operators behind them that read as much as before are
    not fitted: it costs several times more runs and gains little (docs/passes/prune.md).
    """
    level: dict[Value, int] = dict.fromkeys(changed, 0)
    sites: list[FitSite] = []
    skipped: list[Skipped] = []
    for op in module.graph.ops:
        found = max((level[v] for v in _read_by(op) if v in level), default=None)
        if found is None:
            continue
        linear = linear_of(op)
        if linear is not None and linear.data in level and _lost_inputs(linear, dense):
            site = FitSite(linear, level[linear.data] + 1)
            why = _refusal(site, memory)
            if why is None:
                sites.append(site)
                found = site.level
            else:
                skipped.append(why)
        elif op.regions and any(
            _reads_less(inner, dense, level) for region in op.regions.values() for inner in region.walk()
        ):
            skipped.append(_not_fitted(op, SkipCode.CONTROL_FLOW, f"what its {op.kind} bodies compute is not watched"))
        elif linear is None and _reads_less(op, dense, level):
            skipped.append(_not_fitted(op, SkipCode.NOT_FOLLOWED, f"{op.kind} is not fitted to the data"))
        level.update(dict.fromkeys(op.results, found))
    return sorted(sites, key=lambda s: s.level), skipped


def _lost_inputs(linear: Linear, dense: Module) -> bool:
    before, after = _shape(dense.constants[linear.weight.name]), _shape(linear.weight)
    return before[linear.input_axis] != after[linear.input_axis]


def _read_by(op: Op) -> Iterator[Value]:
    """Operands, and for ops with bodies whatever those capture."""
    for inner in (op, *(o for region in op.regions.values() for o in region.walk())):
        yield from (v for v in inner.operands if v is not None)


def _reads_less(op: Op, dense: Module, level: Mapping[Value, int]) -> bool:
    """Whether the op computes with weights that lost units on values that did, or on its own state."""
    if op.regions or cost_of(op).macs == 0:
        return False
    cut = [v for v in op.operands if v is not None and v in level and v.constant is not None and len(_shape(v)) > 1]
    computed = any(v is not None and v in level and v.constant is None for v in op.operands)
    return any(computed or sum(a != b for a, b in zip(_shape(v), _shape(dense.constants[v.name]))) > 1 for v in cut)


def _shape(value: Value) -> tuple[int, ...]:
    assert value.constant is not None
    return value.constant.shape


def _refusal(site: FitSite, memory: int | None) -> Skipped | None:
    op, linear = site.linear.op, site.linear
    if len(linear.weight.uses) > 1:
        return _not_fitted(op, SkipCode.SHARED, "its weight is read by several operators")
    bias = op.operand(linear.bias_slot) if linear.bias_slot is not None else None
    if bias is not None and bias.constant is None:
        return _not_fitted(op, SkipCode.NOT_CONSTANT, "its bias is computed")
    allowed = (memory or DEFAULT_MEMORY) // SHARE
    if site.memory > allowed:
        why = f"its moments take {site.memory >> 20} MiB, more than {allowed >> 20} MiB"
        return _not_fitted(op, SkipCode.NOT_FOLLOWED, why, "raise --max-memory")
    return None


def _not_fitted(op: Op, code: SkipCode, why: str, what_to_do: str = "") -> Skipped:
    return Skipped(op.name or op.kind, code, f"cut, not fitted: {why}", what_to_do)


def reserve_biases(rw: Rewriter, sites: Sequence[FitSite]) -> None:
    """Give every site the bias that a fit will fill: what a plan counts has its final sizes."""
    for site in sites:
        constant = site.linear.weight.constant
        assert constant is not None
        add_bias(rw, site.linear.op, np.zeros(constant.shape[site.linear.output_axis]), constant.dtype)


def results_kept(axes: Axes, kept: Mapping[int, Index]) -> dict[str, tuple[int, Index]]:
    """For every linear operator whose own outputs are cut: (axis, positions that stay) of its result, by name."""
    found = {}
    for op in axes.module.graph.ops:
        linear = linear_of(op)
        types = axes.of(op.result) if linear is not None else None
        if linear is not None and types is not None:
            index = axes.expand(types[linear.result_axis], kept)
            if index is not None:
                found[op.result.name] = (linear.result_axis, index)
    return found


def reconstruct(
    rw: Rewriter,
    dense: Module,
    changed: Sequence[Value],
    cut: Mapping[str, tuple[int, Index]],
    penalty: float,
    ctx: Context,
) -> list[Done]:
    """Fit every site of the pruned module `rw.module` against `dense`; one entry per site with its relative error.

    `cut` is `results_kept` of the module before. Needs `ctx.data` and `ctx.runner`.
    """
    sites, _ = fit_sites(rw.module, dense, changed, ctx.max_memory)
    done: list[Done] = []
    for group in _runs(sites, (ctx.max_memory or DEFAULT_MEMORY) // SHARE):
        fits = _fit(group, rw.module, dense, cut, penalty, ctx)
        for site, (fit, moments) in zip(group, fits):
            _store(rw, site.linear, fit)
            _rescale_norms(rw, site.linear, fit, moments)
            done.append(Done(site.name, f"error {fit.before:.3g}", f"error {fit.after:.3g}, fitted"))
    return done


def _runs(sites: Sequence[FitSite], memory: int) -> Iterator[list[FitSite]]:
    """Sites of one level that share a run: as many as the memory allows."""
    group: list[FitSite] = []
    for site in sites:
        full = sum(s.memory for s in group) + site.memory > memory
        if group and (full or site.level != group[0].level):
            yield group
            group = []
        group.append(site)
    if group:
        yield group


def _fit(
    sites: Sequence[FitSite],
    pruned: Module,
    dense: Module,
    cut: Mapping[str, tuple[int, Index]],
    penalty: float,
    ctx: Context,
) -> list[tuple[Fit, CrossMoments]]:
    samples, runner = sources(ctx)
    moments = [CrossMoments() for _ in sites]
    runs = [
        runner.prepare(pruned, tuple(dict.fromkeys(s.linear.data.name for s in sites))),
        runner.prepare(dense, tuple(s.linear.op.result.name for s in sites)),
    ]
    rng = ctx.rng("reconstruct", *(s.linear.op.result.name for s in sites))
    batch = min(batch_size(pruned), batch_size(dense))
    share = [max(ROWS_PER_COLUMN * s.linear.shape[2], FEWEST_ROWS) / len(samples) for s in sites]
    for got, wanted in stream(samples, batch, runs, ctx.progress):
        for site, collected, rows in zip(sites, moments, share):
            data, result = got[site.linear.data.name], wanted[site.linear.op.result.name]
            if site.linear.op.result.name in cut:
                axis, index = cut[site.linear.op.result.name]
                result = np.take(result, index, axis)
            picked = pick(rng, site.linear.count(data), rows * batch)
            collected.update(site.linear.rows(data, picked), site.linear.targets(result, picked))
    return [(m.solve(_matrix(s.linear), penalty, _bias(s.linear)), m) for s, m in zip(sites, moments)]


def pick(rng: np.random.Generator, count: int, wanted: float) -> np.ndarray[Any, np.dtype[np.intp]] | None:
    """Which of `count` rows a batch gives to the moments: all, or a random part of about `wanted`."""
    if count <= wanted:
        return None
    return np.sort(rng.choice(count, max(1, round(wanted)), replace=False)).astype(np.intp)


def _matrix(linear: Linear) -> Array:
    assert linear.weight.constant is not None
    return linear.matrix(linear.weight.constant.array())


def _bias(linear: Linear) -> Array:
    """[groups, outputs]: what the operator itself adds."""
    groups, outputs, _ = linear.shape
    value = linear.op.operand(linear.bias_slot) if linear.bias_slot is not None else None
    if value is None or value.constant is None:
        return np.zeros((groups, outputs))
    numbers = value.constant.array().astype(np.float64).reshape(-1)
    return np.broadcast_to(numbers, (groups * outputs,)).reshape(groups, outputs)


def _store(rw: Rewriter, linear: Linear, fit: Fit) -> None:
    constant = linear.weight.constant
    assert constant is not None
    delta = (fit.bias - _bias(linear)).reshape(-1)
    rw.set_constant(linear.weight, Constant.of(linear.stored(fit.matrix), constant.dtype))
    add_bias(rw, linear.op, delta, constant.dtype)


def _rescale_norms(rw: Rewriter, linear: Linear, fit: Fit, moments: CrossMoments) -> None:
    """Let batch norms right behind see the variance that the fit has left."""
    followers = [op for op in linear.op.result.users if op.kind == "BatchNormalization"]
    if not followers:
        return
    made = np.einsum("god,gde,goe->go", fit.matrix, moments.covariance, fit.matrix, optimize=True).reshape(-1)
    wanted = moments.variance_t.reshape(-1)
    factor = np.where(wanted > 0, made / np.where(wanted > 0, wanted, 1.0), 1.0)
    for op in followers:
        variance = op.operand(4)
        if variance is None or variance.constant is None or len(variance.uses) > 1:
            continue
        old = variance.constant
        rw.set_constant(variance, Constant.of(old.array().astype(np.float64) * factor, old.dtype))
