"""What rounding does to the outputs of a model, measured on a few samples: one executable for all questions.

    probe = Probe(module, ctx, ["w1", "w2"], {"h": (0.02, 128)}, codes={"w3": Coded(made, spec)})
    probe.damage(weights={"w1": rounded})            # 1 - cosine of the worst output
    probe.damage(codes=["w3"])                       # with w3 as its codes say it
    probe.damage(activations=["h"])                  # with h rounded to 8 bits on the grid given above
    probe.damage(activations={"h": (0.03, 120)})     # ... on another grid
    probe.damage(dynamic=["h"])                      # with the grid found on the run, as DynamicQuantizeLinear does

The model is made ready once, with its weights in floats and those in codes beside them, and what is rounded are inputs
(probe_graph.py): a question costs a run per sample and no more, from where it changes something (stages.py). The
runtime holds the weights, mapped from a file where they are many; of what is rounded, one weight at a time is widened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...ir.core import Module
from ...ir.cost import module_cost
from ...ir.dims import evaluate
from ...ir.feeds import beside
from ..base import Context
from ..instruments import ABSENT, Angle, arrays
from ..ports import Array, Data, Feeds
from ..statistics import sources
from .kept import Shelf
from .probe_graph import Coded as Coded
from .probe_graph import ProbeGraph, Switch, refusal
from .stages import STAGES, Stages

#: Samples that a question about one site is asked of; what is decided on all sites together is seen on more.
SAMPLES = 8
#: Multiply-accumulates that questions may cost, about two minutes of one core: fewer samples for models with more.
_WORK = 2e12
_DEFAULT_BUDGET = 512 << 20


def affordable(module: Module, ctx: Context, questions: int, most: int = SAMPLES) -> int:
    """How many samples to ask so many questions of, by the work of the model: from 1 to `most`, the same on any
    machine."""
    macs = evaluate(module_cost(module).macs, ctx.dims)
    return max(1, min(most, int(_WORK / (max(macs or 1, 1) * max(1, questions)))))


ANGLE, SHARE = "1 - cosine", "share of the numbers that differ"
#: The scale and zero point of a u8 grid.
Grid = tuple[float, int]
Kept = Mapping[str, Callable[[], Array]]


class Probe:
    """Measures damage of rounded weights and activations of one module on `samples` of the calibration data (None: 8,
    fewer where a question for each weight and value would take minutes).

    `weights` are names of float constants, wherever they are read (bodies of If and Loop included), `codes` those of
    more of them. `activations` maps names of float values to the scale and zero point of their u8 grid. A value is
    rounded for the operators that apply a constant weight to it; where there is none, for all of its readers. Outputs
    are compared with those of the same executable with nothing rounded, so that damage of nothing is exactly 0. Errors:
    NO_DATA without calibration data (evaluation data judges, and is never used here), CANNOT_HONOUR for what is no
    float constant or value. `stages` is the number of places that a run may start from.
    """

    def __init__(
        self,
        module: Module,
        ctx: Context,
        weights: Sequence[str],
        activations: Mapping[str, Grid] | None = None,
        *,
        codes: Mapping[str, Coded] | None = None,
        glue: Collection[str] = (),
        samples: int | None = None,
        stages: int = STAGES,
    ) -> None:
        data, runner = sources(ctx)
        codes = codes or {}
        if samples is None:
            samples = affordable(module, ctx, 3 * (len(weights) + len(codes)) + 2 * len(activations or {}))
        twin = module.clone()
        graph = ProbeGraph(twin, glue)
        self._switches = {name: graph.switch(name, *grid) for name, grid in (activations or {}).items()}
        self._weights = {name: graph.open(name) for name in dict.fromkeys((*weights, *codes))}
        self._codes = {name: graph.code(name, coded) for name, coded in codes.items()}
        self._dtypes = {name: twin.defaults[slot].dtype.numpy for name, slot in self._weights.items()}
        flags = (n for s in self._switches.values() for n in (s.static, s.dynamic))
        self._off: Feeds = dict.fromkeys((*flags, *self._codes.values()), np.array(False))
        self._progress = ctx.progress
        self._stages = Stages(twin, runner, [v.name for v in module.graph.inputs], ctx.dims, stages)
        self._feeds: list[Feeds] = []
        self._expected: list[list[Kept]] = []  # the outputs of every stage
        self._handed: list[Kept] = []
        self._gather(data, samples, _DEFAULT_BUDGET if ctx.max_memory is None else ctx.max_memory // 4)

    def _gather(self, data: Data, samples: int, budget: int) -> None:
        """Some samples and what the model makes of them, as many as the memory allows; one in any case."""
        held, shelf, wanted = 0, Shelf(), min(samples, len(data))
        for feeds in _spread(data, samples):
            expected: list[Kept] = []
            handed: dict[str, Callable[[], Array]] = {}
            held += sum(a.nbytes for a in arrays(feeds).values())
            for made in self._stages.run(beside(feeds, self._off)):
                outputs = arrays(made.outputs)
                held += sum(a.nbytes for a in outputs.values())
                expected.append({name: shelf.put(array) for name, array in outputs.items()})
                handed |= {name: shelf.put(array) for name, array in made.handed.items()}
            if self._feeds and held > budget:
                return
            self._feeds.append(feeds)
            self._expected.append(expected)
            self._handed.append(handed)
            self._tell(len(self._feeds), wanted)

    def damage(
        self,
        weights: Mapping[str, Array] | None = None,
        activations: Collection[str] | Mapping[str, Grid] = (),
        dynamic: Collection[str] = (),
        *,
        codes: Collection[str] = (),
        samples: int | None = None,
        told: bool = False,
    ) -> float:
        """1 - cosine of the worst float output with these weights in place of the model's, or read from their codes,
        and these activations rounded to 8 bits, on their grid (or the one given with them) or on that of each sample.
        Without float outputs: the share of numbers that differ. Seen on all samples of the probe, or on so many, each
        of which progress is told if nobody counts questions."""
        changed = {**self._replaced(weights or {}), **self._rounded(activations, dynamic, codes)}
        seen = _Difference()
        picked = spread(len(self._feeds), samples or len(self._feeds))
        for done, index in enumerate(picked, start=1):
            self._compare(index, changed, seen)
            if told:
                self._tell(done, len(picked))
        return seen.damage

    def _tell(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress.advance("samples probed", done, total)

    def _compare(self, index: int, changed: Feeds, seen: _Difference) -> None:
        """Run one sample from where something changes; its outputs are not held any longer."""
        start, expected = self._stages.first(changed), self._expected[index]
        for stage in expected[:start]:
            for name, kept in stage.items():
                seen.update(name, wanted := kept(), wanted)
        feeds = beside(self._feeds[index], {**self._off, **changed})
        for stage, made in zip(expected[start:], self._stages.run(feeds, start, self._handed[index])):
            found = arrays(made.outputs)
            for name, kept in stage.items():
                seen.update(name, kept(), found.get(name, ABSENT))

    @property
    def samples(self) -> int:
        return len(self._feeds)

    @property
    def measure(self) -> str:
        """What damage is, for reports: it depends on whether the model has outputs of floats."""
        outputs = (kept() for stage in self._expected[0] for kept in stage.values())
        return ANGLE if any(np.issubdtype(o.dtype, np.floating) for o in outputs) else SHARE

    def _replaced(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """Weights by the inputs that hold them."""
        found = {}
        for name, array in weights.items():
            if name not in self._weights:
                raise refusal(f"the weight {name!r} was not opened for probing")
            found[self._weights[name]] = array.astype(self._dtypes[name], copy=False)
        return found

    def _rounded(
        self, activations: Collection[str] | Mapping[str, Grid], dynamic: Collection[str], codes: Collection[str]
    ) -> dict[str, Array]:
        """What turns the rounding of values and weights on, and the grids that were given."""
        on = [*(self._switch(n).static for n in activations), *(self._switch(n).dynamic for n in dynamic)]
        for name in codes:
            if name not in self._codes:
                raise refusal(f"the weight {name!r} has no codes to be probed with")
            on.append(self._codes[name])
        found = dict.fromkeys(on, np.array(True))
        for name, (scale, zero) in activations.items() if isinstance(activations, Mapping) else ():
            switch = self._switch(name)
            found |= {switch.scale: np.array(scale, np.float32), switch.zero: np.array(zero, np.uint8)}
        return found

    def _switch(self, name: str) -> Switch:
        if name not in self._switches:
            raise refusal(f"the value {name!r} has no grid to be probed with")
        return self._switches[name]


@dataclass
class _Difference:
    """How far outputs are from what they should be: floats by their angle; numbers where a model has no floats."""

    angles: dict[str, Angle] = field(default_factory=dict)
    different: int = 0
    total: int = 0

    def update(self, name: str, wanted: Array, found: Array) -> None:
        if np.issubdtype(wanted.dtype, np.floating):
            self.angles.setdefault(name, Angle()).update(wanted, found)
        else:
            same = found.shape == wanted.shape
            self.different += int(np.count_nonzero(found != wanted)) if same else int(wanted.size)
            self.total += wanted.size

    @property
    def damage(self) -> float:
        if self.angles:
            return max(1.0 - angle.cosine for angle in self.angles.values())
        return self.different / self.total if self.total else 0.0


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` positions, evenly spaced."""
    return [(i * count) // wanted for i in range(wanted)] if count > wanted else list(range(count))


def _spread(data: Data, samples: int) -> Iterator[Feeds]:
    """At most so many samples, evenly spaced: data is often sorted."""
    picked = set(spread(len(data), samples))
    last = max(picked, default=-1)
    for index, batch in enumerate(data.batches(1)):
        if index in picked:
            yield batch.inputs
        if index >= last:
            return
