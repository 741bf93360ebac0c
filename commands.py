"""What the command line does besides compiling: explaining, inspecting, verifying, timing and comparing models."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import __version__
from .backends import artifact
from .backends.calibrate import FULL, QUICK
from .backends.calibrate import calibrate as measure_costs
from .backends.checks import Judge, fits, memory_limit, time_files
from .backends.checks import compare as compare_files
from .backends.compare import compare as compare_reports
from .backends.costs import CostTable, cache_path, write
from .backends.doctor import examine
from .backends.inspect import facts
from .backends.measure import environment
from .backends.ort import Session
from .backends.runner import OrtRunner
from .backends.targets import parse_target
from .compiler import PathLike, Result, compile, load, model_path
from .dsl.data import Data, open_data
from .dsl.describe import describe, describe_source, list_passes, list_sources
from .dsl.describe import explain as explain_recipe
from .dsl.files import read_file
from .dsl.format import formatted
from .dsl.jobs import jobs_of
from .dsl.propose import propose
from .dsl.user_code import code_of_options
from .frontends.data.survey import Survey
from .frontends.onnx_weights import check_weights
from .frontends.user_code import user_code as may_run
from .ir import errors
from .ir.errors import Code
from .passes.base import Context
from .passes.quantize.sensitivity import sensitivity as measure_sensitivity


def explain(recipe: str, *, user_code: bool = True) -> list[str]:
    """The steps a recipe stands for, each with what it does. Errors: everything wrong with the text."""
    with may_run(allowed=user_code):
        return list(explain_recipe(recipe, stdin=sys.stdin))


def run_file(file: str, *, out: Path = Path(), **settings: Any) -> Iterator[Result]:
    """Compile what a recipe file says, one artifact for each target in the folder `out`; results as they are done.

    `file` may be `-`; `settings` are those of `Settings` but data and target, which the file names. Errors:
    every mistake of the file, and outputs that exist, before any work.
    """
    with may_run(allowed=settings.get("user_code", True)):
        jobs = jobs_of(file, stdin=sys.stdin, check=settings.get("check", "full"))
    if not out.exists() and out.parent.is_dir():
        out.mkdir()
    layouts = [artifact.Layout(out / f"{job.name}.mlc") for job in jobs]
    for layout in layouts:
        artifact.refuse_existing(layout, force=bool(settings.get("force")))
    for job, layout in zip(jobs, layouts):
        yield compile(job.model, job.recipe, output=layout.out, to=job.target, **settings)


def format_files(files: Sequence[Path], *, check: bool = False) -> list[Path]:
    """Write recipe files as `mlc fmt` does, or only look (`check`); the files that were not so.

    All are read before one is written, each is replaced at once. Errors: everything wrong with any of them.
    """
    old = {file: read_file(file) for file in files}
    new = {file: formatted(text, str(file)) for file, text in old.items()}
    changed = [file for file in old if old[file] != new[file]]
    for file in [] if check else changed:
        artifact.replace_text(file, new[file])
    return changed


def init(model: PathLike, output: Path | None = None, *, force: bool = False) -> Path:
    """Write a first recipe file for a model, by default STEM.recipe.mlc here; where it is.

    Errors: OUTPUT_EXISTS without `force`; whatever keeps the model from being read.
    """
    path = output or Path(f"{Path(model).stem}.recipe.mlc")
    if path.suffix != ".mlc" or os.path.isdir(path):
        raise errors.error(Code.USAGE, f"{str(path)!r} is no name for a recipe file", help="write -o NAME.mlc")
    artifact.refuse_file(path, force=force)
    if not path.parent.is_dir():
        help = "create it, or choose another -o"
        raise errors.error(Code.OUTPUT, f"there is no folder {str(path.parent)!r}", help=help)
    module = load(model)
    place = Path(os.path.relpath(model, path.parent)).as_posix()
    nbytes = module.source.nbytes if module.source is not None else 0
    artifact.replace_text(path, propose(module, place, nbytes))
    return path


def describe_sources(name: str | None) -> list[str]:
    return list(list_sources() if name is None else describe_source(name))


def describe_passes(name: str | None) -> list[str]:
    return list(list_passes() if name is None else describe(name))


def inspect(model: PathLike, *, dims: Mapping[str, int]) -> dict[str, Any]:
    """Facts about a model as plain data."""
    return facts(load(model), dims)


def sensitivity(
    model: PathLike,
    data: PathLike,
    *,
    mask: str | None = None,
    dims: Mapping[str, int] | None = None,
    threads: int = 1,
    max_memory: int | None = None,
    advance: Callable[[str, int, int], None] | None = None,
    user_code: bool = True,
) -> dict[str, Any]:
    """The damage of every weight at 8, 4 and 2 bits and of its data at 8, as plain data (`format` 1).

    `advance(what, done, total)` hears of every site. Errors: BAD_DATA for data that does not fit the model.
    """
    module = load(model)
    check_weights(module)
    with code_of_options(allowed=user_code, data={"--data": data}):
        samples = open_data(data, module, mask=mask, name="--data")
    judge = Judge.of(
        module, samples, dims=dims or {}, seed=0, threads=threads, level="none", max_memory=max_memory
    )  # fmt: skip
    ctx = Context(
        data=samples,
        runner=OrtRunner(threads=threads),
        dims=judge.binding,
        max_memory=max_memory,
        progress=_Advance(advance) if advance is not None else None,
    )
    return measure_sensitivity(module, ctx).to_json()


@dataclass(frozen=True)
class _Advance:
    """A function as the progress that passes report to."""

    advance: Callable[[str, int, int], None]


def compare(a: PathLike, b: PathLike) -> dict[str, Any]:
    """Two artifacts beside each other, from their reports: folders, .onnx files beside their reports, or reports."""
    return compare_reports(Path(a), Path(b))


def verify(
    a: PathLike,
    b: PathLike,
    *,
    eval: PathLike | None = None,
    mask: str | None = None,
    dims: Mapping[str, int],
    seed: int = 0,
    user_code: bool = True,
) -> dict[str, Any]:
    """Agreement of two models on the same samples."""
    if mask is not None and eval is None:
        raise errors.error(Code.USAGE, f"mask {mask!r} of no data", help="give --eval as well")
    with code_of_options(allowed=user_code, data={"--eval": eval}):
        return compare_files(model_path(a), model_path(b), _judge(a, eval, mask, dims, seed, threads=1))


def bench(a: PathLike, b: PathLike, *, threads: int = 1, dims: Mapping[str, int], seed: int = 0) -> dict[str, Any]:
    """Both models timed in turn; medians, speedup and its interval, and the environment."""
    judge = _judge(a, None, None, dims, seed, threads)
    compare_files(model_path(a), model_path(b), judge)
    found = time_files(model_path(b), judge, seed=seed)
    return {**found.to_json(), "environment": environment()}


def check_data(
    model: PathLike,
    data: Data,
    *,
    eval: Data | None = None,
    labels: str | None = None,
    mask: str | None = None,
    seed: int = 0,
    advance: Callable[[str, int, int], None] | None = None,
    user_code: bool = True,
) -> dict[str, Any]:
    """Read every sample once: counts, shapes, ranges, labels, duplicates and the split, as plain data (`format` 1).

    The model is run on the first sample of all shapes that there are, if it fits the memory. `advance(what, done,
    total)` hears of every sample. Errors: BAD_DATA for the first sample that is wrong.
    """
    module = load(model)
    run = Session(model_path(model)).run if fits(module, memory_limit()) else None

    def surveyed(source: Data, name: str) -> Survey:
        return Survey.of(open_data(source, module, labels=labels, mask=mask, name=name), name, run, advance)

    with code_of_options(allowed=user_code, data={"--data": data, "--eval": eval}):
        found = surveyed(data, "--data")
        other = surveyed(eval, "--eval") if eval is not None else None
    calibrates = found.facts()
    if run is None:
        calibrates["notes"].append("the model takes more than half of the memory, and was not run")
    return {
        "format": 1,
        "data": calibrates,
        "eval": other.facts() if other is not None else None,
        "split": found.split(seed) if other is None else None,
        "in_both": found.shared(other) if other is not None else None,
    }


def calibrate(
    to: str = "ort(cpu)",
    *,
    output: PathLike | None = None,
    quick: bool = False,
    advance: Callable[[str, int, int], None] | None = None,
) -> tuple[Path, CostTable]:
    """Measure what operators cost on this machine and keep it: where targets look for it, or in a file of its own.

    `advance(what, done, total)` hears of every step. Errors: BAD_TARGET for a target that is not this machine, USAGE.
    """
    target = parse_target(to)
    if target.costs_from != "auto" or target.isa not in ("auto", target.detected_isa):
        raise errors.error(
            Code.BAD_TARGET,
            f"target {to!r} cannot be measured here",
            help="measure ort(cpu), or ort(cpu, threads=N): costs are those of this machine",
        )
    path = Path(output) if output is not None else cache_path(target.threads)
    if path.suffix != ".json" or path.is_dir():
        raise errors.error(Code.USAGE, f"{str(path)!r} is no name for a cost table", help="write -o NAME.json")
    if not path.parent.is_dir() and output is not None:
        raise errors.error(Code.OUTPUT, f"there is no folder {str(path.parent)!r}", help="create it, or choose another")
    table = measure_costs(target, QUICK if quick else FULL, advance=advance)
    write(table, path)
    return path, table


def doctor(to: str = "ort(cpu)") -> dict[str, Any]:
    """What is installed, what this machine has, and what the runtime makes faster here, measured in about a second."""
    return examine(to, version=__version__)


def _judge(
    a: PathLike, eval: PathLike | None, mask: str | None, dims: Mapping[str, int], seed: int, threads: int
) -> Judge:
    module = load(a)
    samples = open_data(eval, module, mask=mask, name="--eval") if eval is not None else None
    return Judge.of(module, samples, dims=dims, seed=seed, threads=threads, level="full", max_memory=None)
