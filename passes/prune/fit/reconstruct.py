"""Least-squares reconstruction: what is left is fitted to what the whole model computed, layer by layer, closed form.

After units are gone, every linear operator that read them (passes/linear.py) gets the weight and the bias that
reproduce its old result best on the calibration data, from the inputs that the pruned model really gives it:

    min over W, b of  E |y - W x' - b|^2 + penalty * d * |W - W_cut|^2

y is the result in the whole model (before any activation, for recurrent layers before the gates), x' the input in the
pruned one, whose earlier layers are
fitted already; W_cut is the sliced weight, d the mean variance of x' (He, Zhang, Sun, "Channel Pruning", 2017; the
ridge is centred as in passes/regression.py). The bias is not penalised, so what removed units added on average moves
into it. Layers that do not depend on each other share one streaming run of both models.

A BatchNormalization right behind a fitted operator has its variance scaled by what the fit lost of it: a ridge
solution explains less variance than there was (REPAIR, Jordan et al., 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....ir.axes import Axes, Index
from ....ir.constants import Constant
from ....ir.core import Module, Value
from ....ir.rewrite import Rewriter
from ...base import Context, Done
from ...bias import add_bias
from ...budget import allowed, pick, rows_per_sample
from ...linear import Linear, linear_of
from ...regression import CrossMoments, Fit
from ...statistics import batch_size, runs, sources, stream
from .fit_sites import FitSite, fit_sites

Array = np.ndarray[Any, Any]


def reserve_biases(rw: Rewriter, sites: Sequence[FitSite]) -> None:
    """Give every site the bias that a fit will fill: what a plan counts has its final sizes."""
    for site in sites:
        constant = site.linear.weight.constant
        assert constant is not None
        groups, outputs, _ = site.linear.shape
        add_bias(rw, site.linear.op, np.zeros(groups * outputs), constant.dtype)


def outputs_kept(axes: Axes, kept: Mapping[int, Index]) -> dict[str, Index]:
    """For every weight of a linear operator whose own outputs are cut: which rows of its matrices stay."""
    found = {}
    for op in axes.module.graph.ops:
        linear = linear_of(op)
        types = axes.of(linear.weight) if linear is not None else None
        if linear is not None and types is not None:
            index = axes.expand(types[linear.output_axis], kept)
            if index is not None:
                found[linear.weight.name] = linear.outputs(index)
    return found


def reconstruct(
    rw: Rewriter,
    dense: Module,
    changed: Sequence[Value],
    cut: Mapping[str, Index],
    penalty: float,
    ctx: Context,
) -> list[Done]:
    """Fit every site of the pruned module `rw.module` against `dense`; one entry per site with its relative error.

    `cut` is `outputs_kept` of the module before. Needs `ctx.data` and `ctx.runner`.
    """
    sites, _ = fit_sites(rw.module, dense, changed, ctx.max_memory)
    done: list[Done] = []
    for group in runs(sites, lambda s: s.memory, allowed(ctx.max_memory), lambda a, b: a.level == b.level):
        fits = _fit(group, rw.module, dense, cut, penalty, ctx)
        for site, (fit, moments) in zip(group, fits):
            _store(rw, site.linear, fit)
            _rescale_norms(rw, site.linear, fit, moments)
            before, after = (f"error {100 * e:.3g} %" for e in (fit.before, fit.after))
            done.append(Done(site.name, before, f"{after}, fitted"))
            if ctx.progress is not None:
                ctx.progress.advance("operators fitted", len(done), len(sites))
    return done


def _fit(
    sites: Sequence[FitSite],
    pruned: Module,
    dense: Module,
    cut: Mapping[str, Index],
    penalty: float,
    ctx: Context,
) -> list[tuple[Fit, CrossMoments]]:
    samples, runner = sources(ctx)
    moments = [CrossMoments() for _ in sites]
    whole = [_of_name(dense, s.linear) for s in sites]
    models = [
        runner.prepare(module, tuple(dict.fromkeys(x.data.name for x in linears)))
        for module, linears in ((pruned, [s.linear for s in sites]), (dense, whole))
    ]
    maps = [_kept_map(linear, cut.get(linear.weight.name)) for linear in whole]
    rng = ctx.rng("reconstruct", *(x.weight.name for x in whole))
    batch = batch_size(ctx, pruned, dense)
    share = [rows_per_sample(s.linear.shape[2], len(samples)) for s in sites]
    for got, wanted in stream(samples, batch, models, ctx.progress):
        for site, old, (groups, matrix), collected, rows in zip(sites, whole, maps, moments, share):
            data = got[site.linear.data.name]
            picked = pick(rng, site.linear.count(data), rows * batch)
            before = old.rows(wanted[old.data.name], picked)[groups].astype(np.float32, copy=False)
            collected.update(site.linear.rows(data, picked), before @ matrix)
    return [(m.solve(_matrix(s.linear), penalty), m) for s, m in zip(sites, moments)]


def _of_name(module: Module, linear: Linear) -> Linear:
    """The same operator in another copy of the module."""
    op = module.constants[linear.weight.name].users[0]
    found = linear_of(op)
    assert found is not None, "a weight that is fitted has one reader"
    return found


def _kept_map(linear: Linear, kept: Index | None) -> tuple[Index, Array]:
    """The groups of which outputs stay, and their maps [groups, depth, outputs] to those."""
    matrix = _matrix(linear)
    groups, outputs, depth = matrix.shape
    rows = np.arange(groups * outputs) if kept is None else kept
    left = np.unique(rows // outputs)
    chosen = matrix.reshape(-1, depth)[rows].reshape(len(left), -1, depth)
    return left, np.swapaxes(chosen, 1, 2).astype(np.float32)


def _matrix(linear: Linear) -> Array:
    assert linear.weight.constant is not None
    return linear.matrix(linear.weight.constant.array())


def _store(rw: Rewriter, linear: Linear, fit: Fit) -> None:
    constant = linear.weight.constant
    assert constant is not None
    rw.set_constant(linear.weight, Constant.of(linear.stored(fit.matrix), constant.dtype))
    add_bias(rw, linear.op, fit.bias.reshape(-1), constant.dtype)


def _rescale_norms(rw: Rewriter, linear: Linear, fit: Fit, moments: CrossMoments) -> None:
    """Let batch norms right behind see the variance that the fit has left."""
    followers = [op for op in linear.op.results[0].users if op.kind == "BatchNormalization"]
    if not followers or not linear.exposed:
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
