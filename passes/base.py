"""The contract of a pass: options as fields, `plan` reads, `apply` mutates, everything skipped has a reason.

A pass is a frozen dataclass. Its fields are at once the Python API, the arguments in a recipe, the help of the
command line and the documentation. A field whose value is None is *free*: mlc may choose it (`Pass.at`).

    pruned = mlc.passes.Prune(ratio=0.5)(module)

What a pass may see of the world is the `Context`; the objects in it satisfy the protocols of passes/ports.py.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ..ir import errors
from ..ir.core import Module, Op
from ..ir.errors import Code
from ..ir.options import check_field, format_value
from ..ir.options import option as option  # pass authors find the whole contract here
from ..ir.rewrite import Rewriter
from .batching import Batching
from .ports import Data, Progress, Runner, Statistics, Target

if TYPE_CHECKING:
    from .cache import StepCache


class Need(enum.Enum):
    """What a pass cannot work without; checked before any work."""

    DATA = "data"
    LABELS = "labels"
    TORCH = "torch"


@dataclass(frozen=True, slots=True)
class Effect:
    """What the checks after a step may demand of it."""

    lossy: bool  # False: outputs stay equal within float rounding
    may_grow: bool = False  # the file may become larger
    changes_io: bool = False  # inputs or outputs may change their type
    rounds: bool = False  # numbers are stored in fewer bits, and stand for the same values


EXACT = Effect(lossy=False)
LOSSY = Effect(lossy=True)
ROUNDING = Effect(lossy=True, rounds=True)


class SkipCode(enum.Enum):
    """Why a site was left alone; stable names in reports."""

    PINNED_AXIS = "pinned-axis"
    UNSUPPORTED = "unsupported-by-target"
    HURTS = "hurts"
    TOO_SMALL = "too-small"
    SCOPE = "scope"
    NO_DATA = "no-data"
    CONTROL_FLOW = "control-flow"
    NOT_FOLLOWED = "not-followed"
    NOT_CONSTANT = "not-constant"
    SHARED = "shared"
    GROWS = "grows"
    ALREADY = "already-done"
    DTYPE = "dtype"


@dataclass(frozen=True, slots=True)
class Done:
    """A site that was changed: what it was, what it is now, and the bytes of weights that saved."""

    site: str
    before: str
    after: str
    saved_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A site that was not changed: which, why, and what the user can do about it."""

    site: str
    code: SkipCode
    why: str
    what_to_do: str = ""


@dataclass(frozen=True)
class Plan:
    """What a pass will do: plain data, equal for equal inputs, printable as JSON. Passes extend it."""

    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON data."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def plain(value: Any) -> Any:
    """JSON form of plan data: dataclasses to objects, enums to their value, tuples to lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no place in a plan")


@dataclass(frozen=True)
class Scope:
    """Which ops a step may touch: those in `on` (None: all) and not in `but`. Built from recipe selectors.

    For group passes a group is in scope when every producer of it is in `on` and none is in `but`.
    """

    on: frozenset[str] | None = None  # names of nodes
    but: frozenset[str] = frozenset()
    text: str = ""

    @property
    def explicit(self) -> bool:
        """Whether the user named sites: then a site that cannot be served is an error, not a skip."""
        return self.on is not None

    def allows(self, op: Op) -> bool:
        return (self.on is None or node_name(op) in self.on) and not self.excludes(op)

    def excludes(self, op: Op) -> bool:
        """Whether `except` names the op: a group that touches it is left alone."""
        return node_name(op) in self.but

    def allows_group(self, producers: Iterable[Op]) -> bool:
        return all(self.allows(op) for op in producers)


def node_name(op: Op) -> str:
    """What selectors call an op: nodes without a name go by where they come from."""
    return op.name or op.loc.origin


def site_name(op: Op) -> str:
    """What plans and reports call an op, which is unique: nodes without a name go by their first result."""
    return op.name or op.results[0].name


EVERYWHERE = Scope()


@dataclass(frozen=True)
class Context:
    """What a pass may use. Closed: no globals, no environment variables."""

    target: Target | None = None  # None: any runtime that reads standard ONNX
    data: Data | None = None  # calibrates and trains; never judges
    eval: Data | None = None  # judges; never calibrates
    source: Module | None = None  # the model before anything was rounded: what rounding did is seen against it
    scope: Scope = EVERYWHERE
    stats: Statistics | None = None
    runner: Runner | None = None
    progress: Progress | None = None
    seed: int = 0
    max_memory: int | None = None  # bytes
    dims: Mapping[str, int] = field(default_factory=dict)  # sizes of symbolic dimensions at which work is counted
    step: int = 0  # position in the recipe
    batching: Batching = field(default_factory=Batching, compare=False, repr=False)  # sizes of batches, tried once
    tentative: bool = False  # a trial, or a round of a loop: that nothing was done is found out, it is no error
    draft: bool = False  # only costs of the result will be looked at: numbers of the same size need not be the best
    cache: StepCache | None = field(default=None, compare=False, repr=False)  # what steps made before

    def rng(self, *tag: str | int) -> np.random.Generator:
        """A generator keyed by seed, step and `tag`: adding a step never changes another's draws."""
        key = "/".join(str(t) for t in (self.seed, self.step, *tag)).encode()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(key)[:16], "little")))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@dataclass
class PassReport:
    """What one pass did to one module; appended to `Module.history`."""

    name: str
    text: str  # the step as recipe text
    done: tuple[Done, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    plan: Plan | None = None
    seconds: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict)  # filled by instruments: nodes, bytes, drift, ...

    @property
    def changed(self) -> bool:
        return bool(self.done)


@dataclass(frozen=True)
class Pass(ABC):
    """Base of all passes. Subclasses are frozen dataclasses whose fields are made by `option`."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    effect: ClassVar[Effect]
    after: ClassVar[tuple[str, ...]] = ()  # names of passes that must come earlier when both are in a recipe
    drafts: ClassVar[bool] = False  # whether it does less work for a draft; others never see that there is one

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            check_field(self.name, f, getattr(self, f.name))

    @abstractmethod
    def plan(self, module: Module, ctx: Context) -> Plan:
        """Decide; reads only."""

    @abstractmethod
    def apply(self, rw: Rewriter, plan: Any, ctx: Context) -> Sequence[Done | Skipped]:
        """Carry out a plan; the only mutation; deterministic given the plan. What only turns out now to be better left
        alone is skipped."""

    def wants(self) -> frozenset[Need]:
        """What this pass needs as it is configured."""
        return self.needs

    @property
    def learns(self) -> bool:
        """Whether it takes something from calibration data, if there is any."""
        return Need.DATA in self.wants()

    @property
    def free(self) -> tuple[str, ...]:
        """The fields left to mlc."""
        return tuple(f.name for f in dataclasses.fields(self) if getattr(self, f.name) is None)

    def at(self, strength: float) -> Self:
        """This pass with its free fields set for a strength in [0, 1]; 0 is the identity. Explicit ones stay."""
        if self.free:
            raise errors.error(
                Code.CANNOT_HONOUR, f"'{self.name}' has no strength to search", help=f"set {', '.join(self.free)}"
            )
        return self

    def gentler(self, share: float) -> Self:
        """This pass where it may do less harm than it allows itself by default: all of it at 1, least at 0. Explicit
        fields stay; passes without such a default are as they are."""
        return self

    def __call__(self, module: Module, ctx: Context | None = None) -> Module:
        """Run on a copy of `module` (constants are shared): plan, apply, verify, report."""
        from .execution import check_needs, run_in_place

        context = ctx or Context()
        check_needs(self, context)
        twin = module.clone()
        twin.history.append(run_in_place(self, twin, context))
        return twin

    def __str__(self) -> str:
        """The pass as recipe text: name and the arguments that differ from their defaults."""
        given = [
            f"{f.name}={format_value(getattr(self, f.name), f.metadata['unit'])}"
            for f in dataclasses.fields(self)
            if getattr(self, f.name) != f.default
        ]
        return f"{self.name}({', '.join(given)})" if given else self.name
