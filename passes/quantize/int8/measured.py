"""The forms of `int8` by what they do to the outputs: a probe of the float model, and the choice of choice.py.

What a form does alone: the damage of its rounded weight plus, with 8-bit activations, that of the values which are in
codes because of it, shared evenly between their owners (owners.py); both are found in groups (shares.py). All sites
together are measured at once and on more samples, with every value rounded that the placement would round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ....ir.core import Module, Op, Value
from ....ir.dims import evaluate
from ....ir.types import TensorType
from ...base import Context
from ...ports import Form
from ..choice import ASSUMED, ROUNDS, Choice, Option, choose
from ..probe import SAMPLES, Coded, Probe, affordable
from ..shares import shares
from ..weights import Reader
from .codes import quantize_channels, symmetric
from .forms import Forms
from .owners import owners
from .placement import ROUNDING, Placement
from .plan import ActivationGrid
from .sites import Candidate

Place = Callable[[Forms], Placement]

_TOGETHER = 32  # samples that all sites together are measured on, at most
_UNRESOLVED = 1 / 8  # of the budget: damage of weights, and of data, that may be shared evenly


@dataclass(frozen=True)
class Measured:
    """The forms of readers of weights (those in floats are missing), how they were chosen, and what damage means."""

    forms: Forms
    choice: Choice
    measure: str


def by_damage(
    module: Module,
    ctx: Context,
    found: Sequence[Candidate],
    place: Place,
    grids: Sequence[ActivationGrid],
    *,
    budget: float,
    per_channel: bool = True,
) -> Measured:
    """The fastest forms whose damage together is at most `budget` (1 - cosine of the worst output).

    `found` are the weights to choose for; `place` says which values hold codes for given forms, `grids` are those of
    all values that may (of the placement of the fastest forms). Errors: NO_DATA.
    """
    work = _Work(module, ctx, found, place, {g.value: (g.scale, g.zero) for g in grids}, budget, per_channel)
    choice = choose(work.options, budget, work.together, work.alone)
    return Measured(work.forms(choice.picked), choice, work.measure)


@dataclass
class _Work:
    module: Module
    ctx: Context
    found: Sequence[Candidate]
    place: Place
    grids: Mapping[str, tuple[float, int]]
    budget: float
    per_channel: bool

    @cached_property
    def ways(self) -> list[list[Forms]]:
        """For every weight the forms that its readers may take together; the last way is floats."""
        return [[*_ways(candidate), {}] for candidate in self.found]

    @cached_property
    def options(self) -> list[list[Option]]:
        return [[self._option(c, forms) for forms in ways] for c, ways in zip(self.found, self.ways)]

    @cached_property
    def probe(self) -> Probe:
        dynamic = {_data(r).name for ways in self.ways for forms in ways for r, f in forms.items() if f == "dynamic"}
        grids = {**dict.fromkeys(sorted(dynamic), (1.0, 0)), **self.grids}
        codes = {c.weight.name: self._coded(c) for c in self.found}
        glue = [op.results[0].name for op in self._fastest.glue]
        samples = max(self._few, affordable(self.module, self.ctx, 1 + ROUNDS, most=_TOGETHER))
        return Probe(self.module, self.ctx, (), grids, codes=codes, glue=glue, samples=samples)

    @property
    def measure(self) -> str:
        """What damage is here. The probe knows, which runs the model: it is not made for this alone."""
        if self.ctx.stats is None:
            return self.probe.measure
        return self.ctx.stats.remember(self.module, "measure of damage", lambda: self.probe.measure)

    @cached_property
    def _few(self) -> int:
        """Samples that are asked about single sites."""
        return affordable(self.module, self.ctx, len(self.found) + 2 * len(self.grids), most=SAMPLES)

    def _option(self, candidate: Candidate, forms: Forms) -> Option:
        form: Form = min(forms.values(), key=ASSUMED.__getitem__, default="float")  # a table may be a matrix as well
        timed = [
            r for r, possible in candidate.forms.items() if possible != ("stored",)
        ]  # the others are floats when run
        seconds = [self._seconds(r.op, forms.get(r, "float"), candidate.forms[r]) for r in timed or candidate.forms]
        known = [s for s in seconds if s is not None]
        nbytes = candidate.bytes_after if forms else candidate.constant.nbytes
        return Option(form, sum(known) if len(known) == len(seconds) else None, nbytes)

    def _seconds(self, op: Op, form: Form, possible: Sequence[Form]) -> float | None:
        """Of a convolution in floats with what it takes to leave the codes around it and to return to them."""
        if self.ctx.target is None:
            return None
        found = self.ctx.target.seconds(op, form, self.ctx.dims)
        if found is None or form in ("static", "dynamic") or op.kind not in ROUNDING or "static" not in possible:
            return found
        sizes = [self._elements(v) for v in (op.operands[0], op.results[0])]
        return found + sum(self.ctx.target.boundary(n) for n in sizes if n is not None)

    def _elements(self, value: Value | None) -> int | None:
        known = value is not None and isinstance(value.type, TensorType)
        return evaluate(value.type.elements, self.ctx.dims) if known else None  # type: ignore[union-attr]

    def forms(self, picked: Sequence[int]) -> Forms:
        return {r: form for ways, at in zip(self.ways, picked) for r, form in ways[at].items()}

    def together(self, picked: Sequence[int]) -> float:
        forms = self.forms(picked)
        codes = [c.weight.name for i, c in enumerate(self.found) if self.ways[i][picked[i]]]
        coded = [v.name for members in self.place(forms).classes for v in members.values if v.name in self.grids]
        dynamic = {_data(r).name for r, form in forms.items() if form == "dynamic"}
        return self._damage(codes, coded, dynamic - set(coded))

    def _damage(
        self,
        codes: Collection[str] = (),
        activations: Collection[str] = (),
        dynamic: Collection[str] = (),
        *,
        samples: int | None = None,
    ) -> float:
        """The damage of these weights and values together. It is measured once: another budget asks for much of it
        again."""
        question = (frozenset(codes), frozenset(activations), frozenset(dynamic), samples)
        if question not in self._known:
            self._known[question] = self.probe.damage(
                None, activations, dynamic, codes=codes, samples=samples, told=samples is None
            )
        return self._known[question]

    @cached_property
    def _known(self) -> dict[Hashable, float]:
        """What was measured of these weights and grids, whatever the budget was."""
        if self.ctx.stats is None:
            return {}
        weights = tuple((c.weight.name, *self._grid(c)) for c in self.found)
        glue = tuple(op.results[0].name for op in self._fastest.glue)
        question = ("damage of rounding", weights, *sorted(self.grids.items()), *sorted(self._dynamic_readers), glue)
        return self.ctx.stats.remember(self.module, question, dict)

    def alone(self, site: int, option: int) -> float:
        forms = self.ways[site][option]
        total = self._of_weights[site] if forms else 0.0
        for reader, form in forms.items():
            if form == "static":
                total += sum(self._static[name] / owners for name, owners in self._owned[reader.op].items())
            elif form == "dynamic":
                value = _data(reader)
                total += self._dynamic[value.name] / self._dynamic_readers[value.name]
        return total

    @cached_property
    def _fastest(self) -> Placement:
        """Where the codes are with every reader in its first form: that the grids are of."""
        return self.place({r: forms[0] for c in self.found for r, forms in c.forms.items()})

    @cached_property
    def _owned(self) -> Mapping[Op, Mapping[str, int]]:
        """For every op that may be static the values with grids that it owns, and how many own them."""
        static = [r.op for ways in self.ways for way in ways for r, form in way.items() if form == "static"]
        owned: dict[Op, dict[str, int]] = {op: {} for op in static}
        for value, found in owners(self._fastest, owned).items():
            for op in found if value.name in self.grids else ():
                owned[op][value.name] = len(found)
        return owned

    @cached_property
    def _dynamic_readers(self) -> Counter[str]:
        """How many weighted ops may read a value in codes found on the run."""
        readers = dict.fromkeys(r for ways in self.ways for way in ways for r, form in way.items() if form == "dynamic")
        return Counter(_data(r).name for r in readers)

    @cached_property
    def _of_weights(self) -> dict[int, float]:
        """The damage of every rounded weight."""

        def measure(sites: Sequence[int]) -> float:
            return self._damage([self.found[i].weight.name for i in sites], samples=self._few)

        return shares(range(len(self.found)), measure, self.budget * _UNRESOLVED, self._tell("damage of weights"))

    @cached_property
    def _static(self) -> dict[str, float]:
        """The damage of every value on its grid."""
        names = list(dict.fromkeys(name for owned in self._owned.values() for name in owned))
        measure = lambda some: self._damage(activations=some, samples=self._few)  # noqa: E731
        return shares(names, measure, self.budget * _UNRESOLVED, self._tell("damage of values"))

    @cached_property
    def _dynamic(self) -> dict[str, float]:
        """The damage of every value on grids found on the run."""
        measure = lambda some: self._damage(dynamic=some, samples=self._few)  # noqa: E731
        told = self._tell("damage of values, on the run")
        return shares(list(self._dynamic_readers), measure, self.budget * _UNRESOLVED, told)

    def _tell(self, what: str) -> Callable[[int, int], None]:
        progress = self.ctx.progress
        return lambda done, total: progress.advance(what, done, total) if progress is not None else None

    def _coded(self, candidate: Candidate) -> Coded:
        axis, bits = self._grid(candidate)
        return Coded(quantize_channels(candidate.constant, axis, bits), symmetric(bits, axis))

    def _grid(self, candidate: Candidate) -> tuple[int | None, int]:
        """The axis along which a weight has scales, and its bits."""
        integer = any(f in ("static", "dynamic") for forms in candidate.forms.values() for f in forms)
        bits = self.ctx.target.weight_bits if integer and self.ctx.target is not None else 8
        return candidate.axis if self.per_channel else None, bits


def _data(reader: Reader) -> Value:
    value = reader.op.operands[0]
    assert value is not None
    return value


def _ways(candidate: Candidate) -> list[Forms]:
    """One way for every form that a reader has: the others then take theirs that is most like it."""
    ways: list[Forms] = []
    for form in dict.fromkeys(f for forms in candidate.forms.values() for f in forms):
        way = {r: form if form in forms else forms[-1] for r, forms in candidate.forms.items()}
        if way not in ways:
            ways.append(way)
    return ways
