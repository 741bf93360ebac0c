"""`int8`: weights and, where a kernel computes with them, activations in 8 bits.

    small = mlc.passes.Int8()(module, mlc.Context(data=..., runner=...))

Every weighted op gets one of three forms, all in standard ONNX (QuantizeLinear, DequantizeLinear):

    static   activations u8 per tensor with ranges from calibration data, weights s8 per output channel
    dynamic  the same with ranges found on the run, for products (DynamicQuantizeLinear)
    stored   weights s8 per channel, widened when the model is loaded: size only

Placement is in placement.py, grids of activations in grids.py. Without data products are dynamic and everything else
is stored: ranges are never made up. How 8-bit inference works: Jacob et al. 2018; the u8 s8 per-channel scheme:
Krishnamoorthi 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from ....ir.core import Module
from ....ir.errors import Code, MlcError, error
from ....ir.rewrite import Rewriter
from ...base import ROUNDING, Context, Done, Effect, Need, Pass, option
from ..observe import OBSERVERS
from ..prepare import Prepared, prepare
from ..refine.refine import refine, told_together
from ..refine.solvers import Options
from .codes import symmetric
from .decide import Settings, decide
from .emit import Emitter
from .forms import Forms
from .grids import CHOICES, grids
from .notes import notes
from .plan import Int8Plan, ReaderSite, WeightSite
from .sites import Candidate
from .unfold import unfold

_DAMAGE = 0.02  # where the recipe and its bounds do not say
_UNMEASURED = "'damage' limits nothing: it is measured on calibration data (give --data)"


@dataclass(frozen=True)
class Int8(Pass):
    """8-bit weights and activations, on grids from calibration data where there is any."""

    name: ClassVar[str] = "int8"
    effect: ClassVar[Effect] = ROUNDING
    after: ClassVar[tuple[str, ...]] = ("simplify", "prune", "absorb", "equalize", "smooth")

    mode: str = option(
        "auto",
        unit="name",
        choices=("auto", "static", "dynamic", "stored"),
        positional=True,
        doc=(
            "auto: the fastest form each op has; static, dynamic: that form, floats where there is none; "
            "stored: size only, computed in floats as before"
        ),
    )
    observer: str = option(
        "auto",
        unit="name",
        choices=("auto", *OBSERVERS),
        doc=f"how ranges of activations are chosen; auto: the one of {', '.join(CHOICES)} that damages outputs least",
    )
    rounding: str = option(
        "nearest",
        unit="name",
        choices=("nearest", "gptq", "adaround"),
        doc="how weights are rounded; with data: gptq (second order), adaround (learned)",
    )
    damage: float | None = option(
        None,
        unit="ratio",
        low=0,
        high=1,
        doc=(
            "what it may cost (1 - cosine of the worst output, on calibration data): above it, sites get slower forms; "
            f"none: {_DAMAGE:.0%}, less where a bound on quality asks for it"
        ),
    )
    per_channel: bool = option(True, unit="bool", doc="a scale for every output channel of a weight, not one for all")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode in ("dynamic", "stored") and self.observer != "auto":
            raise _ignored("observer", f"ranges are not calibrated with mode={self.mode}", "mode=auto or static")
        if self.mode != "auto" and self.damage is not None:
            raise _ignored("damage", f"mode={self.mode} says which form every op gets", "mode=auto")

    @property
    def free(self) -> tuple[str, ...]:
        return ()

    def gentler(self, share: float) -> Self:
        """Less damage, down to a hundredth geometrically: more sites in slower forms."""
        if self.damage is not None or self.mode != "auto":
            return self
        return replace(self, damage=_DAMAGE * 0.01 ** (1 - share))

    @property
    def learns(self) -> bool:
        return self.mode in ("auto", "static") or self.rounding != "nearest"

    def wants(self) -> frozenset[Need]:
        learns = self.mode == "static" or self.rounding != "nearest" or self.observer != "auto"
        return frozenset({Need.DATA}) if learns else frozenset()

    def plan(self, module: Module, ctx: Context) -> Int8Plan:
        """Find the weights, choose a form for every reader, place the codes and calibrate their grids."""
        prepared = Prepared.of(module, ctx, by=self.name, then=unfold)
        twin, within = prepared.module, prepared.ctx
        made = decide(
            twin,
            Settings(self.mode, self.observer, _DAMAGE if self.damage is None else self.damage, self.per_channel),
            within,
        )
        weights = [self._site(c, made.forms, within) for c in made.weights]
        return Int8Plan(
            skipped=made.skipped,
            notes=(
                *(prepared.notes if weights else ()),
                *notes(weights, made, self.mode, self.learns, within),
                *([_UNMEASURED] if self.damage is not None and ctx.data is None else ()),
            ),
            weights=tuple(weights),
            activations=grids(made.placement, made.calibration.ranges),
            glue=tuple(op.results[0].name for op in made.placement.glue),
            absorbed=tuple(op.results[0].name for head in made.placement.heads for op in head.absorbed),
        )

    def _site(self, candidate: Candidate, forms: Forms, ctx: Context) -> WeightSite:
        readers = tuple(ReaderSite(r.op.results[0].name, r.site, r.op.kind, forms[r]) for r in candidate.forms)
        integer = any(r.form != "stored" for r in readers)
        return WeightSite(
            constant=candidate.weight.name,
            shape=candidate.constant.shape,
            axis=candidate.axis if self.per_channel else None,
            bits=ctx.target.weight_bits if integer and ctx.target is not None else 8,
            readers=readers,
            bytes_before=candidate.constant.nbytes,
            bytes_after=candidate.bytes_after,
        )

    def apply(self, rw: Rewriter, plan: Int8Plan, ctx: Context) -> Sequence[Done]:
        """Fold as the plan did, then write codes and grids."""
        if not plan.weights:
            return []
        prepare(rw, ctx, then=unfold)
        source = rw.module.clone() if self.rounding != "nearest" else None
        done = Emitter(rw, plan).run()
        if source is not None:
            specs = {w.constant: symmetric(w.bits, w.axis) for w in plan.weights}
            # What clipped activations lack is no error of the weights: biases are left to `correct_bias`.
            done = told_together(done, refine(rw, source, ctx, self.rounding, specs, Options(bias=False)))
        return done


def _ignored(option: str, why: str, use: str) -> MlcError:
    return error(Code.CANNOT_HONOUR, f"'int8.{option}' would change nothing: {why}", help=f"use it with {use}")
