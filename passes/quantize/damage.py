"""What rounding one weight does to the outputs of the model, measured: the values of mixed precision (mixed.py)."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.core import Module
from ...ir.dtypes import BY_SHORT
from ...ir.progress import counted
from ...ir.quant import dequantize
from ...ir.quant_blocks import Array, Quantized, Search, quantize_constant
from ..base import Context
from .probe import Probe
from .sites import Site


def measured(
    module: Module, options: Sequence[Sequence[Site]], search: Search, method: str, ctx: Context
) -> list[list[float]]:
    """1 - cosine of the worst output with one weight rounded, for every option of every weight.

    Runs the model on a few samples of the calibration data for each; remembered for this version of the module.
    """

    def measure() -> list[list[float]]:
        probe = Probe(module, ctx, [sites[0].constant for sites in options])
        told = counted(options, "damage of weights", ctx.progress)
        return [[_damage(probe, module, site, search) for site in sites] for sites in told]

    if ctx.stats is None:
        return measure()
    return ctx.stats.remember(module, (method, tuple(tuple(sites) for sites in options)), measure)


def _damage(probe: Probe, module: Module, site: Site, search: Search) -> float:
    constant = module.constants[site.constant].constant
    assert constant is not None
    made = quantize_constant(constant, site.spec, scale_type=BY_SHORT[site.scale], search=search)
    return probe.damage({site.constant: widened(made, site).astype(constant.dtype.numpy)})


def widened(made: Quantized, site: Site) -> Array:
    """The values that codes stand for, in float32."""
    zero = made.zero.array() if made.zero is not None else None
    return dequantize(made.codes.array(), made.scale.array().astype("f4"), zero, site.spec)
