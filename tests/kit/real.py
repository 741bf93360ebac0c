"""Real models for tests: parametrizes over the zoo and skips, with the reason, what cannot be had here.

@real_models()                       # every model of the tier that `make test` runs
def test_something(model): model.path, model.name, model.feeds(seed=0)

@real_models("silero_vad", "dnsmos") # these, whichever their tier
@all_models()                        # the whole zoo; those outside the small tier are marked slow
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zoo


@dataclass(frozen=True)
class RealModel:
    """A model of the zoo that is in the cache."""

    name: str
    path: Path

    def feeds(self, seed: int = 0) -> dict[str, np.ndarray]:
        return zoo.feeds(self.path, seed, name=self.name)


def real_models(*names: str) -> pytest.MarkDecorator:
    """Parametrizes `model` over the named models, or over the tier that is part of `make test`."""
    chosen = names or [entry.name for entry in zoo.entries().values() if entry.tier == "real"]
    return pytest.mark.parametrize("model", [_param(name) for name in chosen], indirect=True)


def all_models() -> pytest.MarkDecorator:
    """Parametrizes `model` over the whole zoo."""
    return pytest.mark.parametrize("model", [_param(name) for name in zoo.entries()], indirect=True)


def real_model(name: str) -> RealModel:
    """The model by name; skips the running test when it cannot be had."""
    found = _locate(name)
    if isinstance(found, str):
        pytest.skip(found)
    return RealModel(name, found)


@functools.cache
def _locate(name: str) -> Path | str:
    """The path, or the reason why there is none."""
    entry = zoo.entries()[name]
    refusal = _refusal(entry.package, entry.version)
    if refusal:
        return refusal
    try:
        return zoo.path(name)
    except zoo.ZooUnavailable as reason:
        return f"{name}: {reason}"


@functools.cache
def _refusal(package: str, version: str) -> str:
    """Why a package cannot be had: asked once a package, so that an offline run does not wait for every model."""
    name = next(e.name for e in zoo.entries().values() if (e.package, e.version) == (package, version))
    try:
        zoo.weights(name)
    except zoo.ZooUnavailable as reason:
        return str(reason)
    return ""


def _param(name: str) -> object:
    tier = zoo.entries()[name].tier
    marks = [pytest.mark.real, *([pytest.mark.slow] if tier == "slow" else [])]
    return pytest.param(name, id=name, marks=marks)
