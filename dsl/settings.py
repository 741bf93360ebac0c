"""Everything that is said about a compilation beside the model, the recipe and where the output goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from ..backends.progress import Silent
from ..ir import errors
from ..ir.errors import Code
from ..ir.progress import Listener
from ..passes.base import plain
from .data import Data, declare

CHECKS = ("full", "fast", "none")
_UNTOLD = ("force", "print_changes", "progress", "user_code")  # settings that decide nothing about the result


@dataclass(frozen=True)
class Settings:
    """Everything about a compilation but the model, the recipe and the output.

    `data` and `eval` are paths, or sources as recipes write them (`npz("x.npz", take=64)`), dicts of arrays, functions.
    """

    data: Data | None = None
    eval: Data | None = None
    labels: str | None = None
    mask: str | None = None  # the input that marks padding
    to: str = "ort(cpu)"
    seed: int = 0
    threads: int | None = None  # default: the target's
    max_memory: int | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    check: str = "full"
    strict: bool = False
    force: bool = False
    external: str = "auto"
    opset: int | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)  # yours, for bounds: NAME to module:function
    user_code: bool = True  # whether code that recipes, data and metrics name may run
    print_changes: TextIO | None = None
    progress: Listener = field(default_factory=Silent)  # hears how far the work is

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise errors.error(Code.USAGE, f"--check {self.check!r} is unknown", help=f"choose {', '.join(CHECKS)}")
        if self.external not in ("auto", "always", "never"):
            raise errors.error(
                Code.USAGE, f"--external-data {self.external!r} is unknown", help="choose auto, always, never"
            )
        whole = {"seed": (self.seed, 0), "threads": (self.threads, 1), "max_memory": (self.max_memory, 1)}
        for name, (value, low) in (whole | {f"dims[{n!r}]": (size, 1) for n, size in self.dims.items()}).items():
            if value is not None and (not isinstance(value, int) or value < low):
                raise errors.error(Code.USAGE, f"{name} = {value!r}", help=f"give a whole number from {low}")
        for name, given in (("--data", self.data), ("--eval", self.eval)):
            if given is not None:
                declare(given, name=name)
        for name, key in (("labels", self.labels), ("mask", self.mask)):
            if key is not None and self.data is None and self.eval is None:
                raise errors.error(Code.USAGE, f"{name} {key!r} of no data", help="give --data or --eval as well")

    def given(self) -> dict[str, Any]:
        """What differs from the defaults and decides about the result, as JSON data."""
        usual = vars(Settings())
        told = {name: value for name, value in vars(self).items() if value != usual[name] and name not in _UNTOLD}
        told |= {name: declare(told[name]).text for name in ("data", "eval") if name in told}
        return {name: plain(value) for name, value in told.items()}
