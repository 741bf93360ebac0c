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

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ....ir.core import Module, Op, Value
from ....ir.rewrite import Rewriter
from ...base import LOSSY, Context, Done, Effect, Need, Pass, SkipCode, Skipped, option
from ...ports import Form
from ..observe import OBSERVERS
from ..prepare import Prepared, prepare
from .emit import Emitter
from .forms import Forms, by_kernels
from .grids import CHOICES, Calibration, calibrate, grids, probed
from .measured import by_damage
from .placement import Placement, place, touches
from .plan import Int8Plan, ReaderSite, WeightSite
from .sites import Candidate, candidates
from .unfold import unfold

_NO_DATA = "no calibration data: products find their ranges on the run, other weights are only stored in 8 bits"
_NARROW = "weights use 7 bits where activations are codes: the target's products of 8 bits may saturate"
_KEPT = "its 8-bit forms would do more damage to the outputs than the option 'damage' allows"
_NOT_FINITE = "what it reads or makes is not finite, or was always empty, on the calibration data"


@dataclass(frozen=True)
class Int8(Pass):
    """8-bit weights and activations, on grids from calibration data where there is any."""

    name: ClassVar[str] = "int8"
    effect: ClassVar[Effect] = LOSSY
    after: ClassVar[tuple[str, ...]] = ("simplify", "prune")

    mode: str = option(
        "auto",
        unit="name",
        choices=("auto", "static", "dynamic", "stored"),
        positional=True,
        doc="auto: the fastest form each op has; static, dynamic, stored: that form, floats where there is none",
    )
    observer: str = option(
        "auto",
        unit="name",
        choices=("auto", *OBSERVERS),
        doc=f"how ranges of activations are chosen; auto: the one of {', '.join(CHOICES)} that damages outputs least",
    )
    damage: float = option(
        0.01,
        unit="number",
        low=0,
        doc="what 8 bits may cost (1 - cosine of the worst output, on calibration data): "
        "above it, sites get slower forms",
    )
    per_channel: bool = option(True, unit="bool", doc="a scale for every output channel of a weight, not one for all")

    @property
    def learns(self) -> bool:
        return self.mode in ("auto", "static")

    def wants(self) -> frozenset[Need]:
        return frozenset({Need.DATA}) if self.mode == "static" else frozenset()

    def plan(self, module: Module, ctx: Context) -> Int8Plan:
        """Find the weights, choose a form for every reader, place the codes and calibrate their grids."""
        prepared = Prepared.of(module, ctx, by=self.name, then=unfold)
        twin, within = prepared.module, prepared.ctx
        found = list(candidates(twin, within))
        chosen = [c for c in found if isinstance(c, Candidate)]
        forms, skipped = by_kernels(chosen, self.mode, within)
        placed = self._place(twin, chosen, forms, within)
        forms, placed, choice = self._choose(twin, chosen, forms, placed, within)
        weights = [self._site(c, forms, within) for c in chosen if forms.keys() & c.forms.keys()]
        return Int8Plan(
            skipped=(*(s for s in found if isinstance(s, Skipped)), *skipped, *placed.skipped),
            notes=(*prepared.notes, *_notes(weights, within), *_observed(placed.calibration), *choice),
            weights=tuple(weights),
            activations=grids(placed.placement, placed.calibration.ranges),
            glue=tuple(op.results[0].name for op in placed.placement.glue),
            absorbed=tuple(op.results[0].name for head in placed.placement.heads for op in head.absorbed),
        )

    def _choose(
        self, module: Module, found: Sequence[Candidate], forms: Forms, fastest: _Placed, ctx: Context
    ) -> tuple[Forms, _Placed, tuple[str, ...]]:
        """The forms that are best by time and damage, in place of those that have kernels; and what to tell."""
        free = [c for c in found if c.forms.keys() <= forms.keys()]
        if self.mode != "auto" or not free or ctx.data is None or ctx.runner is None:
            return forms, fastest, ()
        known = probed(fastest.placement, fastest.calibration.ranges)

        def place_for(chosen: Forms) -> Placement:
            return self._codes(module, chosen, ctx, fastest.beyond)

        made = by_damage(module, ctx, free, place_for, known, budget=self.damage, per_channel=self.per_channel)
        if made.forms == forms:
            return forms, fastest, made.choice.notes
        chosen = dict(made.forms)
        kept = tuple(Skipped(r.site, SkipCode.HURTS, _KEPT) for r in forms if r not in chosen)
        placed = self._place(module, found, chosen, ctx, fastest.calibration.observer, fastest.beyond)
        tried = replace(placed.calibration, tried=fastest.calibration.tried)
        return chosen, replace(placed, calibration=tried, skipped=(*fastest.skipped, *kept)), made.choice.notes

    def _place(
        self,
        module: Module,
        found: Sequence[Candidate],
        forms: Forms,
        ctx: Context,
        observer: str = "",
        beyond: frozenset[Value] = frozenset(),
    ) -> _Placed:
        """Where codes are and what they cover. Readers of values that no grid covers get their next form in `forms`."""
        skipped: list[Skipped] = []
        while True:
            placement = self._codes(module, forms, ctx, beyond)
            if not placement.classes:
                return _Placed(placement, Calibration(self.observer, ()), beyond, tuple(skipped))
            calibration = calibrate(module, placement, observer or self.observer, ctx)
            unknown = {v for c, r in zip(placement.classes, calibration.ranges) if not r.known for v in c.values}
            beyond |= unknown
            if not unknown:
                return _Placed(placement, calibration, beyond, tuple(skipped))
            for candidate in found:
                for reader in candidate.forms:
                    if forms.get(reader) == "static" and touches(reader.op, beyond):
                        forms[reader] = _next(candidate.forms[reader], self.mode)
                        skipped.append(Skipped(reader.site, SkipCode.HURTS, _NOT_FINITE, f"it is {forms[reader]} now"))

    def _codes(self, module: Module, forms: Forms, ctx: Context, beyond: Collection[Value]) -> Placement:
        static = [reader.op for reader, form in forms.items() if form == "static"]
        return place(module.graph, static, lambda op: _works(op, ctx), beyond)

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
        return Emitter(rw, plan).run()


@dataclass(frozen=True)
class _Placed:
    """Where the codes are, what they cover, and the values (and their readers) that no grid covers."""

    placement: Placement
    calibration: Calibration
    beyond: frozenset[Value]
    skipped: tuple[Skipped, ...]


def _works(op: Op, ctx: Context) -> bool:
    """Whether an op between weighted ones may work on codes."""
    return ctx.scope.allows(op) and (ctx.target is None or bool(ctx.target.supports(op, "static")))


def _next(forms: Sequence[Form], mode: str) -> Form:
    return forms[1] if mode == "auto" else "stored"


def _observed(found: Calibration) -> tuple[str, ...]:
    """Which observer was chosen, and what the others would have done."""
    if not found.tried:
        return ()
    told = ", ".join(f"{name} {damage:.2g}" for name, damage in found.tried.items())
    return (f"ranges of activations: {found.observer} (1 - cosine with activations rounded: {told})",)


def _notes(weights: Sequence[WeightSite], ctx: Context) -> tuple[str, ...]:
    """What the user should know of how it was done."""
    counts = Counter(r.form for w in weights for r in w.readers)
    notes = [f"forms: {', '.join(f'{count} {form}' for form, count in counts.items())}"] if counts else []
    if ctx.data is None and ctx.stats is None and weights:
        notes.append(_NO_DATA)
    if any(w.bits < 8 for w in weights):
        notes.append(_NARROW)
    return tuple(notes)
