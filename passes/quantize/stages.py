"""A module as a chain of executables: a run starts where something has changed, from values that an earlier run made.

    stages = Stages(module, runner, ["input_ids"], dims)
    for made in stages.run(feeds): ...                       # outputs, and what later stages read
    for made in stages.run(changed, stages.first(["w"]), before): ...

Questions about single weights or values change a model at one place, and half of its work, on average, comes before.
Cuts are where few bytes cross. What does not depend on data (weights that are widened, masks) crosses none: each stage
makes what it reads of it, so that every weight is held by the stages that read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...ir.cleanup import drop_dead
from ...ir.core import Graph, Module, Op, Value
from ...ir.cost import cost_of
from ...ir.dims import evaluate, symbols
from ...ir.feeds import Feeds as Located
from ...ir.feeds import beside
from ...ir.rewrite import Rewriter
from ...ir.types import TensorType
from ..ports import Array, Executable, Feeds, Runner

STAGES = 8  # at most: more of them save little more, and each is a session with memory of its own
_OPS = 4  # that a stage has at least
_MOST_CROSSING = 32 << 20  # bytes that are kept of a sample at a cut
_UNKNOWN_BYTES = 1 << 20


@dataclass(frozen=True)
class Made:
    """What a stage made of a sample: outputs of the module, and values that later stages read."""

    outputs: Mapping[str, Array]
    handed: Mapping[str, Array]


@dataclass(frozen=True)
class _Stage:
    executable: Executable
    inputs: frozenset[str]  # of the module
    reads: Mapping[str, str]  # inputs that hold values of earlier stages
    outputs: Mapping[str, str]  # results that are outputs of the module
    hands: Mapping[str, str]  # results that later stages read

    def run(self, feeds: Feeds, known: Callable[[str], Array]) -> Made:
        found = self.executable.run(beside(self._needed(feeds), {n: known(value) for n, value in self.reads.items()}))
        outputs, handed = ({n: found[r] for r, n in names.items()} for names in (self.outputs, self.hands))
        return Made(outputs, handed)

    def _needed(self, feeds: Feeds) -> Feeds:
        needed = {name: array for name, array in feeds.items() if name in self.inputs}
        if not isinstance(feeds, Located):
            return needed
        found = Located(needed, feeds.where)
        found.shapes = feeds.shapes
        return found


class Stages:
    """Executables that together are the module. `data` are the inputs that samples come from; other inputs may
    change what operators do from one run to the next. `most` stages, fewer for small models."""

    def __init__(
        self, module: Module, runner: Runner, data: Collection[str], dims: Mapping[str, int], most: int = STAGES
    ) -> None:
        flow = _Flow(module, data, dims)
        ends = flow.cuts(most)
        made = (_stage(flow, runner, a, b) for a, b in zip([0, *ends], [*ends, len(flow.ops)]))
        self._stages = [stage for stage in made if stage is not None]

    def __len__(self) -> int:
        return len(self._stages)

    def first(self, changed: Collection[str]) -> int:
        """The first stage that reads one of these inputs; their number if none does."""
        return next((i for i, stage in enumerate(self._stages) if not stage.inputs.isdisjoint(changed)), len(self))

    def run(
        self, feeds: Feeds, start: int = 0, before: Mapping[str, Callable[[], Array]] | None = None
    ) -> Iterator[Made]:
        """What the stages from `start` on make; `before` has what those in front handed on."""
        handed: dict[str, Array] = {}

        def known(name: str) -> Array:
            return handed[name] if name in handed else (before or {})[name]()

        for at in range(start, len(self)):
            made = self._stages[at].run(feeds, known)
            later = {value for stage in self._stages[at + 1 :] for value in stage.reads.values()}
            handed = {name: array for name, array in {**handed, **made.handed}.items() if name in later}
            yield made


class _Flow:
    """What depends on data, in program order, and what is alive between two operators."""

    def __init__(self, module: Module, data: Collection[str], dims: Mapping[str, int]) -> None:
        self.module, self._dims = module, dims
        self.ops = list(module.graph.ops)
        self._at = {op: index for index, op in enumerate(self.ops)}
        marked: set[Op] = set()
        for value in module.graph.inputs:
            if value.name in data:
                marked.update(self._readers(value))
        self.read: dict[Value, list[int]] = {}  # where
        self.made: dict[Value, int] = {}  # by an operator that depends on data, and where
        for index, op in enumerate(self.ops):
            if op in marked:
                self.made |= dict.fromkeys(op.results, index)
                for result in op.results:
                    self.read[result] = [self._at[reader] for reader in self._readers(result)]
                    marked.update(self._readers(result))

    def _readers(self, value: Value) -> Iterator[Op]:
        """Operators of the main graph that read a value, themselves or in a body."""
        for use in value.uses:
            if use.op is not self.module.graph.ret:
                yield _in_main(use.op, self.module.graph)

    def cuts(self, most: int) -> list[int]:
        """Positions that divide the work evenly, nearly, where few bytes cross."""
        work = [self._work(op) for op in self.ops]
        total, count = sum(work), min(most, sum(w > 0 for w in work) // _OPS)
        crossing, done = self._crossing(), [0.0]
        for share in work:
            done.append(done[-1] + share / max(1, total))
        found: list[int] = []
        for k in range(1, count):
            near = [p for p in range(1, len(self.ops)) if abs(done[p] - k / count) <= 0.5 / count]
            best = min(near, key=lambda p: (crossing[p], abs(done[p] - k / count)), default=0)
            if best > (found[-1] if found else 0) and crossing[best] <= _MOST_CROSSING:
                found.append(best)
        return found

    def _work(self, op: Op) -> int:
        """Multiply-accumulates, with unknown sizes as 1; nothing where it does not depend on data."""
        if not any(result in self.made for result in op.results):
            return 0
        macs = cost_of(op).macs
        return evaluate(macs, {**{s.name: 1 for s in symbols(macs)}, **self._dims}) or 0

    def _crossing(self) -> list[float]:
        """The bytes that are alive in front of every operator; infinite where something is that is no tensor."""
        change, barred = ([0] * (len(self.ops) + 1) for _ in range(2))
        for value, index in self.made.items():
            last = max(self.read[value], default=index)
            if last > index:
                tensor = isinstance(value.type, TensorType)
                for changes, amount in ((change, self._bytes(value) if tensor else 0), (barred, int(not tensor))):
                    changes[index + 1] += amount
                    changes[last + 1] -= amount
        alive = blocked = 0.0
        found = []
        for amount, bar in zip(change, barred):
            alive, blocked = alive + amount, blocked + bar
            found.append(math.inf if blocked else alive)
        return found

    def _bytes(self, value: Value) -> int:
        assert isinstance(value.type, TensorType)
        elements = evaluate(value.type.elements, self._dims)
        return _UNKNOWN_BYTES if elements is None else value.type.dtype.nbytes(elements)


def _in_main(op: Op, main: Graph) -> Op:
    while op.parent is not main:
        assert op.parent is not None
        assert op.parent.owner is not None
        op = op.parent.owner
    return op


def _stage(flow: _Flow, runner: Runner, start: int, stop: int) -> _Stage | None:
    """The operators from `start` to `stop`, and what they need that does not depend on data; None if nobody needs what
    they make."""
    twin = flow.module.clone()
    values = {value.name: value for value in twin.values()}
    rw, graph = Rewriter(twin, by="stages"), twin.graph
    reads = {}
    for value, index in flow.made.items():
        if index < start and any(start <= at < stop for at in flow.read[value]):
            made = Value(value.type, rw.fresh_name(f"{value.name}__stage"))
            graph._add_input(made)
            rw.replace_uses(values[value.name], made)
            reads[made.name] = value.name
    last = stop == len(flow.ops)
    outputs = [
        (name, value.name)
        for name, value in zip(flow.module.graph.output_names, flow.module.graph.outputs)
        if start <= flow.made.get(value, stop - 1 if last else stop) < stop
    ]
    hands = [
        value.name
        for value, index in flow.made.items()
        if start <= index < stop and any(at >= stop for at in flow.read[value])
    ]
    ends = [
        *((values[value], f"{name}__output") for name, value in outputs),
        *((values[v], f"{v}__handed") for v in hands),
    ]
    if not ends and not last:
        return None
    graph._clear_outputs()
    for value, name in ends:
        graph._add_output(value, name)
    drop_dead(rw)
    _drop_inputs(twin)
    return _Stage(
        runner.prepare(twin),
        frozenset(value.name for value in graph.inputs) - reads.keys(),
        reads,
        {f"{name}__output": name for name, _ in outputs},
        {f"{name}__handed": name for name in hands},
    )


def _drop_inputs(module: Module) -> None:
    """Inputs that nothing reads any more, with their defaults."""
    kept: Sequence[Value] = [value for value in module.graph.inputs if value.uses]
    module.graph.inputs.clear()
    for value in kept:
        module.graph._add_input(value)
    names = {value.name for value in kept}
    module.defaults = {name: constant for name, constant in module.defaults.items() if name in names}
