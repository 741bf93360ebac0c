"""What rounding does to the outputs of a model, measured on a few samples: one executable for all questions.

    probe = Probe(module, ctx, ["w1", "w2"], {"h": (0.02, 128)})
    probe.damage(weights={"w1": rounded})            # 1 - cosine of the worst output
    probe.damage(activations=["h"])                  # with h rounded to 8 bits on the grid given above
    probe.damage(dynamic=["h"])                      # with the grid found on the run, as DynamicQuantizeLinear does

The model is made ready once. Weights are inputs of it, and activations pass through an If that rounds them or does not,
so that a question costs a run per sample and no more; the weights that are not asked about stay where they are, mapped
from their file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ir import errors
from ...ir.constants import Constant
from ...ir.core import Graph, Module, Op, Value
from ...ir.cost import module_cost
from ...ir.dims import evaluate
from ...ir.dtypes import DType
from ...ir.errors import Code
from ...ir.rewrite import Rewriter
from ...ir.types import TensorType, tensor
from ..base import Context
from ..instruments import ABSENT, Angle, arrays
from ..linear import linear_of
from ..ports import Array, Data, Executable, Feeds
from ..statistics import sources

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


@dataclass(frozen=True)
class _Switch:
    """Names of the inputs that turn the rounding of a value on."""

    static: str
    dynamic: str


class Probe:
    """Measures damage of rounded weights and activations of one module on `samples` of the calibration data (None: 8,
    fewer where a question for each weight and value would take minutes).

    `weights` are names of float constants, wherever they are read (bodies of If and Loop included). `activations` maps
    names of float values to the scale and zero point of their u8 grid. A value is rounded for the operators that apply
    a constant weight to it; where there is none, for all of its readers. Outputs are compared with those of the same
    executable with nothing rounded, so that damage of nothing is exactly 0. Errors: NO_DATA without calibration data
    (evaluation data judges, and is never used here), CANNOT_HONOUR for what is no float constant or value.
    """

    def __init__(
        self,
        module: Module,
        ctx: Context,
        weights: Sequence[str],
        activations: Mapping[str, tuple[float, int]] | None = None,
        *,
        glue: Collection[str] = (),
        samples: int | None = None,
    ) -> None:
        data, runner = sources(ctx)
        if samples is None:
            samples = affordable(module, ctx, 3 * len(weights) + 2 * len(activations or {}))
        twin = module.clone()
        builder = _Builder(twin, glue)
        self._switches = {name: builder.switch(name, *grid) for name, grid in (activations or {}).items()}
        self._weights = {name: builder.open(name) for name in dict.fromkeys(weights)}
        budget = _DEFAULT_BUDGET if ctx.max_memory is None else ctx.max_memory // 4
        self._constants = {name: _constant(module, name) for name in self._weights}
        self._held = _within(self._constants, budget)
        self._off: Feeds = {n: np.array(False) for s in self._switches.values() for n in (s.static, s.dynamic)}
        self._executable: Executable = runner.prepare(twin)
        self._feeds: list[Feeds] = []
        self._expected: list[Mapping[str, Array]] = []
        self._gather(data, samples, budget)

    def _gather(self, data: Data, samples: int, budget: int) -> None:
        """Some samples and what the model makes of them, as many as the memory allows; one in any case."""
        held = 0
        for feeds in _spread(data, samples):
            found = arrays(self._executable.run({**feeds, **self._inputs({}), **self._off}))
            held += sum(a.nbytes for a in (*arrays(feeds).values(), *found.values()))
            if self._feeds and held > budget:
                return
            self._feeds.append(feeds)
            self._expected.append(found)

    def damage(
        self,
        weights: Mapping[str, Array] | None = None,
        activations: Collection[str] = (),
        dynamic: Collection[str] = (),
        *,
        samples: int | None = None,
    ) -> float:
        """1 - cosine of the worst float output with these weights in place of the model's, and these activations
        rounded to 8 bits, on their grid or on that of each sample. Without float outputs: the share of numbers that
        differ. Seen on all samples of the probe, or on so many of them."""
        given = self._inputs(weights or {})
        on = {self._switch(n).static for n in activations} | {self._switch(n).dynamic for n in dynamic}
        modes = {**self._off, **dict.fromkeys(on, np.array(True))}
        angles: dict[str, Angle] = {}
        different = total = 0
        for index in spread(len(self._feeds), samples or len(self._feeds)):
            feeds, expected = self._feeds[index], self._expected[index]
            found = arrays(self._executable.run({**feeds, **given, **modes}))
            for name, wanted in expected.items():
                if np.issubdtype(wanted.dtype, np.floating):
                    angles.setdefault(name, Angle()).update(wanted, found.get(name, ABSENT))
                else:
                    different += _differing(wanted, found.get(name, ABSENT))
                    total += wanted.size
        if angles:
            return max(1.0 - angle.cosine for angle in angles.values())
        return different / total if total else 0.0

    @property
    def samples(self) -> int:
        return len(self._feeds)

    def _inputs(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        unknown = [n for n in weights if n not in self._weights]
        if unknown:
            raise _refusal(f"the weight {unknown[0]!r} was not opened for probing")
        found = {}
        for name, slot in self._weights.items():
            own = self._constants[name]
            if name in weights:
                found[slot] = weights[name].astype(own.dtype.numpy, copy=False)
            else:
                found[slot] = self._held[name] if name in self._held else own.array()
        return found

    def _switch(self, name: str) -> _Switch:
        if name not in self._switches:
            raise _refusal(f"the value {name!r} has no grid to be probed with")
        return self._switches[name]


def _constant(module: Module, name: str) -> Constant:
    constant = module.constants[name].constant
    assert constant is not None
    return constant


def _within(constants: Mapping[str, Constant], budget: int) -> dict[str, Array]:
    """The arrays of so many constants as fit the budget: those whose bytes are not aligned in their file are copies."""
    held: dict[str, Array] = {}
    for name, constant in constants.items():
        budget -= constant.nbytes
        if budget >= 0:
            held[name] = constant.array()
    return held


def _differing(wanted: Array, found: Array) -> int:
    if found.shape != wanted.shape:
        return int(wanted.size)
    return int(np.count_nonzero(found != wanted))


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` positions, evenly spaced."""
    return [(i * count) // wanted for i in range(wanted)] if count > wanted else list(range(count))


def _spread(data: Data, samples: int) -> Iterator[Feeds]:
    """At most so many samples, evenly spaced: data is often sorted."""
    picked = set(spread(len(data), samples))
    last = max(picked, default=-1)
    for index, batch in enumerate(data.batches(1)):
        if index in picked:
            yield dict(batch.inputs)
        if index >= last:
            return


def _refusal(message: str) -> errors.MlcError:
    return errors.error(Code.CANNOT_HONOUR, message, help="a probe knows float constants, and float values of a graph")


class _Builder:
    """Turns constants into inputs, and values into values that can be rounded."""

    def __init__(self, module: Module, glue: Collection[str]) -> None:
        self._rw = Rewriter(module, by="probe")
        self._glue = frozenset(glue)
        self._graph = module.graph
        self._values = {v.name: v for v in module.values() if v.constant is None}
        self._next: dict[Op, Op | Graph] = {}
        for graph in module.graph.graphs():
            ops = list(graph.ops)
            self._next |= dict(zip(ops, [*ops[1:], graph]))

    def open(self, name: str) -> str:
        """Make a constant an input of the graph; the name of the input."""
        value = self._rw.module.constants.get(name)
        if value is None or value.constant is None or not value.constant.dtype.is_float:
            raise _refusal(f"there is no constant of floats {name!r}")
        made = self._input(name, value.constant.type)
        if value.uses:
            self._rw.replace_uses(value, made)
        return made.name

    def switch(self, name: str, scale: float, zero: int) -> _Switch:
        """Let the readers of a value read it rounded when one of two inputs says so."""
        value = self._values.get(name)
        if value is None or not isinstance(value.type, TensorType) or not value.type.dtype.is_float:
            raise _refusal(f"there is no float value {name!r}")
        readers = [op for op in value.users if not op.is_terminator]
        on_codes = [op for op in readers if self._works_on_codes(op, value)]
        if not readers:
            raise _refusal(f"no operator reads the value {name!r}")
        static, dynamic = (self._input(f"{name}_{mode}", tensor(DType.BOOL)) for mode in ("static", "dynamic"))
        anchor = self._after(value)
        inner = Graph("not_static")
        on_the_run = self._branch("dynamic", value, lambda x, g: self._dynamic(x, g))
        plain = self._branch("float", value, lambda x, g: x)
        self._leave(inner, self._choose(dynamic, on_the_run, plain, value, inner))
        rounded = self._branch("static", value, lambda x, g: self._static(x, g, scale, zero))
        made = self._choose(static, rounded, inner, value, anchor)
        self._rw.replace_uses(value, made, only=on_codes or readers)
        return _Switch(static.name, dynamic.name)

    def _works_on_codes(self, op: Op, value: Value) -> bool:
        linear = linear_of(op)
        return (linear is not None and linear.data is value) or (bool(op.results) and op.results[0].name in self._glue)

    def _after(self, value: Value) -> Op | Graph:
        """What comes after the producer of a value: whatever reads it comes later."""
        if value.op is not None:
            return self._next[value.op]
        home = value.home
        assert home is not None
        return next(iter(home.ops), home)

    def _input(self, stem: str, type: TensorType) -> Value:
        value = Value(type, self._rw.fresh_name(f"{stem}__probe"))
        self._graph._add_input(value)
        return value

    def _choose(self, condition: Value, then: Graph, other: Graph, like: Value, before: Op | Graph) -> Value:
        regions = {"then_branch": then, "else_branch": other}
        return self._rw.insert("If", [condition], before=before, results=[like.type], regions=regions).result

    def _branch(self, name: str, value: Value, build: Any) -> Graph:
        graph = Graph(name)
        assert isinstance(value.type, TensorType)
        wide = self._cast(value, DType.F32, graph)
        self._leave(graph, self._cast(build(wide, graph), value.type.dtype, graph))
        return graph

    def _leave(self, graph: Graph, value: Value) -> None:
        """Make a value the result of a body, which must have made it itself."""
        if value.home is not graph:
            value = self._rw.insert("Identity", [value], before=graph).result
        graph._add_output(value, value.name)

    def _cast(self, value: Value, dtype: DType, graph: Graph) -> Value:
        assert isinstance(value.type, TensorType)
        if value.type.dtype is dtype:
            return value
        return self._rw.insert("Cast", [value], {"to": dtype.onnx}, before=graph).result

    def _static(self, x: Value, graph: Graph, scale: float, zero: int) -> Value:
        grid = [self._rw.constant(np.float32(scale), "probe_scale"), self._rw.constant(np.uint8(zero), "probe_zero")]
        codes = self._rw.insert("QuantizeLinear", [x, *grid], before=graph).result
        return self._rw.insert("DequantizeLinear", [codes, *grid], before=graph).result

    def _dynamic(self, x: Value, graph: Graph) -> Value:
        parts = self._rw.insert("DynamicQuantizeLinear", [x], before=graph, count=3).results
        return self._rw.insert("DequantizeLinear", parts, before=graph).result
