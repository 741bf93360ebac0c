"""Refinement of a quantized module against the float one: better codes for the same file, from calibration data.

Weights are taken front to back. What a weight sees, x', comes from the quantized model, whose earlier weights are
refined already; what its operator should yield, t = W x, from the float model (recipes of GPTQ and AdaRound; fitting
to the inputs of the compressed model is He, Zhang, Sun, "Channel Pruning", 2017). Where activations are codes, t is
W x': grids clip what is rare, and weights that make up for that on the samples where it happens are worse on all
others. Both models stream over the same samples, weights that do not depend on each other share a run, and of long
streams a random part of the rows is used (passes/budget.py): memory is that of the moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ....ir import errors
from ....ir.constants import Constant
from ....ir.core import Module
from ....ir.errors import Code
from ....ir.quant import QSpec
from ....ir.quant_blocks import packed
from ....ir.rewrite import Rewriter
from ...base import Context, Done, SkipCode, Skipped
from ...bias import add_bias
from ...budget import allowed, pick, rows_per_sample
from ...statistics import batch_size, runs, sources, stream
from .sites import Reader, Site, refinable
from .solvers import AdaRoundSolver, ClipSolver, GptqSolver, Options, Outcome, Solver

Array = np.ndarray[Any, Any]
SOLVERS: dict[str, Callable[[Site, Options, np.random.Generator], Solver]] = {
    "gptq": GptqSolver,
    "adaround": AdaRoundSolver,
}
#: The second half of AWQ is of no use on grids that have to stay: no rounding to choose, but a step of methods.
_EVERY = {**SOLVERS, "clip": ClipSolver}
_UNUSABLE = "no sample reaches it, or what it reads or makes is not finite on the calibration data"
#: Runs of both models, at most: deep models refine several layers in a row from the same run.
RUNS = 32


def refine(
    rw: Rewriter,
    source: Module,
    ctx: Context,
    method: str = "gptq",
    sites: Mapping[str, QSpec] | None = None,
    options: Options | None = None,
) -> list[Done | Skipped]:
    """Replace codes (and scales and zero points, where nothing relies on them) of `rw.module` by better ones.

    `source` is the float model: every weight `base` of it whose codes are called `{base}_quantized` can be refined.
    `sites` says which, and the grid of each (None: all). Needs `ctx.data` and `ctx.runner`. Every weight is told:
    its relative errors, or why its codes were kept. Errors: NO_DATA; CANNOT_HONOUR for an unknown method.
    """
    make = _EVERY.get(method)
    if make is None:
        raise errors.error(
            Code.CANNOT_HONOUR, f"there is no refinement called {method!r}", help=f"one of {', '.join(_EVERY)}"
        )
    found, skipped = refinable(rw.module, source, sites, ctx.max_memory)
    told: list[Done | Skipped] = list(skipped)
    for group in _groups(found, ctx.max_memory):
        solvers = [make(site, options or Options(), ctx.rng(method, site.name)) for site in group]
        with np.errstate(invalid="ignore", over="ignore"):  # Inf in the data: who sees it is kept
            _stream(rw.module, source, group, solvers, ctx)
        for site, solver in zip(group, solvers):
            if solver.usable:
                told.append(_store(rw, site, solver.solve(ctx.progress), method))
            else:
                told.append(Skipped(site.name, SkipCode.NO_DATA, _UNUSABLE))
            if ctx.progress is not None:
                ctx.progress.advance("weights refined", len(told) - len(skipped), len(found))
    return told


def told_together(rounded: Sequence[Done], refined: Sequence[Done | Skipped]) -> list[Done]:
    """One line for every weight: how it was rounded, and what refinement made of it or why it kept it."""
    told = {r.site: r.after if isinstance(r, Done) else f"kept: {r.why}" for r in refined}
    return [replace(d, after=f"{d.after}; {told[d.site]}") if d.site in told else d for d in rounded]


def _groups(sites: Sequence[Site], memory: int | None) -> Iterator[list[Site]]:
    """Sites that share a run: those of one level; of several levels in a row where there are more than `RUNS`."""
    levels = sorted({s.level for s in sites})
    joined = -(-len(levels) // RUNS)
    stage = {level: index // joined for index, level in enumerate(levels)} if levels else {}
    together: Callable[[Site, Site], bool] = lambda a, b: stage[a.level] == stage[b.level]  # noqa: E731
    return runs(sites, lambda s: s.memory, allowed(memory), together)


def _stream(module: Module, source: Module, sites: Sequence[Site], solvers: Sequence[Solver], ctx: Context) -> None:
    """Show every solver the rows of its readers.

    Behind the first level the weights in front are refined after this run, and what they do to x' changes: a weight
    fitted to make up for it would be fitted to errors that are gone. There t is W x', as where activations are codes.
    """
    samples, runner = sources(ctx)
    first = min(s.level for s in sites)
    readers: list[tuple[Reader, Solver, Array, bool]] = []
    for site, solver in zip(sites, solvers):
        turned = np.swapaxes(site.float_matrix(), 1, 2)
        own_target = site.fixed or site.level > first
        readers += [(reader, solver, turned, own_target) for reader in site.readers]
    own = tuple(dict.fromkeys(r.linear.data.name for r, *_ in readers))
    theirs = tuple(dict.fromkeys(r.whole.data.name for r, _, _, own_target in readers if not own_target))
    models = [runner.prepare(model, taps) for model, taps in ((module, own), (source, theirs)) if taps]
    rng = ctx.rng("refine", *(s.name for s in sites))
    batch = batch_size(ctx, module, source)
    for got, *wanted in stream(samples, batch, models, ctx.progress):
        for reader, solver, turned, own_target in readers:
            data = got[reader.linear.data.name]
            wish = rows_per_sample(turned.shape[1], len(samples)) * batch
            picked = pick(rng, reader.linear.count(data), wish)
            rows = reader.linear.rows(data, picked)
            before = rows if own_target else reader.whole.rows(wanted[0][reader.whole.data.name], picked)
            solver.update(rows, before.astype(np.float32, copy=False) @ turned)


def _store(rw: Rewriter, site: Site, outcome: Outcome, method: str) -> Done | Skipped:
    before, after = (f"error {100 * e:.3g} %" for e in (outcome.before, outcome.after))
    if not outcome.after < outcome.before:
        return Skipped(site.name, SkipCode.HURTS, f"{method} leaves {after}, it has {before}")
    rounded, spec = outcome.rounded, site.spec
    _replace_codes(rw, site, rounded.codes)
    if outcome.moved:
        scale = site.scale.constant
        assert scale is not None
        stored = _as_stored(site, rounded.scale, scale.shape)
        rw.set_constant(site.scale, Constant.of(stored.astype(scale.dtype.numpy), scale.dtype, scale.origin))
        if site.zero is not None:
            zero = site.zero.constant
            assert zero is not None
            points = _as_stored(site, rounded.zero, zero.shape).astype(np.int16).astype(np.uint8)
            rw.set_constant(site.zero, packed(points, zero.dtype, zero.origin))
    if outcome.bias is not None:
        weight = site.weight.constant
        assert weight is not None
        add_bias(rw, site.linear.op, outcome.bias.reshape(-1), weight.dtype)
    return Done(site.name, before, f"{after}, {method} in {spec.bits} bits")


def _replace_codes(rw: Rewriter, site: Site, codes: Array) -> None:
    old = site.codes.constant
    assert old is not None
    bytes_of_codes = site.linear.stored(codes).astype(np.int16).astype(np.uint8)
    rw.set_constant(site.codes, packed(bytes_of_codes, old.dtype, old.origin))


def _as_stored(site: Site, parameter: Array, shape: tuple[int, ...]) -> Array:
    """Scales or zero points [groups, outputs, blocks] as the graph holds them."""
    return site.linear.stored(parameter).reshape(shape) if site.depth_blocks else parameter.reshape(shape)
