"""What `int8` does to a model: forms of all readers, where the codes are, and on which grids.

kernels -> time (regions.py) -> grids (grids.py) -> damage (measured.py) -> grids of what is left in codes
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from ....ir.core import Module, Op, Value
from ...base import Context, PassReport, SkipCode, Skipped
from ...ports import Form
from ..weights import Reader
from .codes import largest_of_channels
from .forms import Forms, by_kernels, next_form
from .grids import Calibration, calibrate, probed
from .measured import by_damage
from .placement import Placement, place, touches
from .regions import slower_in_codes
from .sites import Candidate, candidates

_KEPT = "its 8-bit forms would do more damage to the outputs than the option 'damage' allows"
_NO_GAIN = "codes would be neither faster nor smaller"
_NOTABLE = 0.01  # what other steps may do to the outputs, and what `mlc verify` accepts
_TOLD = "damage to the worst output on probed samples: {:.2%} ({}); damage=1% would leave more in floats"
_UNEVEN = 100.0  # times the largest number of another channel
_EQUALIZE = (
    "weights whose channels differ by more than 100x: {}, e.g. {}; activations of such channels share one grid: "
    "'equalize' in front of int8 evens out what it can"
)
_NOT_FINITE = "what it reads or makes is not finite, or was always empty, on the calibration data"


@dataclass(frozen=True)
class Settings:
    """The options of the pass that decisions depend on."""

    mode: str
    observer: str
    damage: float
    per_channel: bool


@dataclass(frozen=True)
class Decision:
    """The weights that become codes, the form of each of their readers, and the values in codes with their ranges."""

    weights: tuple[Candidate, ...]
    forms: Forms
    placement: Placement
    calibration: Calibration
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def decide(module: Module, settings: Settings, ctx: Context) -> Decision:
    """Decide for a module that is folded already; reads only."""
    return _Decider(module, settings, ctx).run()


@dataclass
class _Decider:
    module: Module
    settings: Settings
    ctx: Context
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    slow: set[Op] = field(default_factory=set)  # ops that had better have floats
    beyond: set[Value] = field(default_factory=set)  # values that no grid covers

    def run(self) -> Decision:
        listed = list(candidates(self.module, self.ctx))
        self.skipped += [s for s in listed if isinstance(s, Skipped)]
        found = [c for c in listed if isinstance(c, Candidate)]
        total = sum(v.constant.nbytes for v in self.module.constants.values() if v.constant is not None)
        forms, refused = by_kernels(found, self.settings.mode, self.ctx, total)
        self.skipped += refused
        found = [c for c in found if c.forms.keys() <= forms.keys()]
        if self.settings.mode == "auto":
            found = self._by_time(found, forms)
        placement, calibration = self._calibrated(found, forms, self.settings.observer)
        if self.settings.mode == "auto" and found and self.ctx.data is not None and self.ctx.runner is not None:
            chosen = self._by_damage(found, placement, calibration)
            if chosen != forms:
                forms, first = chosen, calibration
                placement, calibration = self._calibrated(found, forms, first.observer)
                calibration = replace(calibration, tried=first.tried, measure=first.measure)
        weights = tuple(c for c in found if c.forms.keys() <= forms.keys())
        return Decision(weights, forms, placement, calibration, tuple(self.skipped), tuple(self.notes))

    # -- time --------------------------------------------------------------------------------------------------

    def _by_time(self, found: Sequence[Candidate], forms: Forms) -> list[Candidate]:
        """Take the static form from ops that are slower in it, and put them into their next in `forms`."""
        static = [reader.op for reader, form in forms.items() if form == "static"]
        if self.ctx.target is None or not static:
            return list(found)
        self.slow = slower_in_codes(self.module.graph, static, self._works, self.ctx.target, self.ctx.dims)
        away = {r for r, form in forms.items() if form == "static" and r.op in self.slow}
        if away:
            self.notes.append(
                f"{len(away)} of {len(static)} ops are no faster with static codes, by the target's times: they "
                "have their next form"
            )
        left = []
        for candidate in found:
            possible = {
                reader: tuple(f for f in listed if f != "static" or reader not in away)
                for reader, listed in candidate.forms.items()
            }
            forms |= {reader: possible[reader][0] for reader in possible if reader in away}
            left.append(replace(candidate, forms=possible))
        return left

    def _works(self, op: Op) -> bool:
        """Whether an op between weighted ones may work on codes."""
        if op in self.slow or not self.ctx.scope.allows(op):
            return False
        return self.ctx.target is None or bool(self.ctx.target.supports(op, "static"))

    # -- codes and grids ---------------------------------------------------------------------------------------

    def _place(self, forms: Forms) -> Placement:
        static = [reader.op for reader, form in forms.items() if form == "static"]
        return place(self.module.graph, static, self._works, self.beyond)

    def _calibrated(self, found: Collection[Candidate], forms: Forms, observer: str) -> tuple[Placement, Calibration]:
        """Where codes are and what they cover. Readers of values that no grid covers get their next form in `forms`."""
        while True:
            placement = self._place(forms)
            if not placement.classes:
                return placement, Calibration(observer, ())
            calibration = calibrate(self.module, placement, observer, self.ctx)
            unknown = {v for c, r in zip(placement.classes, calibration.ranges) if not r.known for v in c.values}
            if not unknown:
                return placement, calibration
            self.beyond |= unknown
            for candidate in found:
                for reader, possible in candidate.forms.items():
                    if forms.get(reader) == "static" and touches(reader.op, self.beyond):
                        forms[reader] = next_form(possible, self.settings.mode)
                        advice = f"it is {forms[reader]} now"
                        self.skipped.append(Skipped(reader.site, SkipCode.HURTS, _NOT_FINITE, advice))

    # -- damage ------------------------------------------------------------------------------------------------

    def _by_damage(self, found: Sequence[Candidate], placement: Placement, calibration: Calibration) -> Forms:
        """The fastest forms whose damage together is within what the options allow."""
        settings = self.settings
        covered = [replace(c, forms=self._covered(c)) for c in found]
        made = by_damage(
            self.module,
            self.ctx,
            covered,
            self._place,
            probed(placement, calibration.ranges),
            budget=settings.damage,
            per_channel=settings.per_channel,
        )
        self.notes += made.choice.notes
        if made.choice.damage > _NOTABLE:
            self.notes.append(_TOLD.format(made.choice.damage, made.measure))
        if made.choice.damage > _NOTABLE or len(made.forms) < sum(len(c.forms) for c in found):
            self._advise(found)
        for candidate in found:
            saves = candidate.bytes_after < candidate.constant.nbytes
            code, why = (SkipCode.HURTS, _KEPT) if saves else (SkipCode.TOO_SMALL, _NO_GAIN)
            self.skipped += [Skipped(r.site, code, why) for r in candidate.forms if r not in made.forms]
        return dict(made.forms)

    def _advise(self, found: Sequence[Candidate]) -> None:
        """Where damage is felt, say what evens out channels that cause it."""
        equalized = any(isinstance(r, PassReport) and r.name == "equalize" for r in self.module.history)
        uneven = [c.weight.name for c in found if _may_be_static(c) and _spread(c) > _UNEVEN]
        if uneven and not equalized:
            self.notes.append(_EQUALIZE.format(len(uneven), uneven[0]))

    def _covered(self, candidate: Candidate) -> dict[Reader, tuple[Form, ...]]:
        """The forms of a candidate's readers, without the static one where no grid covers the data."""
        return {
            reader: tuple(f for f in possible if f != "static" or not touches(reader.op, self.beyond))
            for reader, possible in candidate.forms.items()
        }


def _may_be_static(candidate: Candidate) -> bool:
    return any("static" in forms for forms in candidate.forms.values())


def _spread(candidate: Candidate) -> float:
    """The largest magnitude of the widest channel over that of the narrowest; channels of zeros do not count."""
    most = largest_of_channels(candidate.constant, candidate.axis)
    seen = most[most > 0]
    return float(seen.max()) / float(seen.min()) if seen.size else 1.0
