"""Compiling a model with a recipe: the only place that wires frontends, passes and backends.

load -> check weights -> probe set -> steps (with strength and instruments) -> lower -> write -> check -> report
"""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .backends import artifact, report
from .backends.checks import Emitted, Judge, check_emitted
from .backends.legalize import Lowered, legalize
from .backends.measure import environment
from .backends.onnx import save as _save
from .backends.probe import guessed_dims
from .backends.report_markdown import to_markdown
from .backends.runner import OrtRunner
from .backends.size_only import size_only
from .backends.targets import OrtTarget, parse_target
from .dsl.advice import left_undone
from .dsl.build import Limit
from .dsl.code import code_of, read_program
from .dsl.fixed import advice, only
from .dsl.functions import functions
from .dsl.judge import COSTS, FORESEEN, Verdict, check_measurable, check_sizes, judge, missed
from .dsl.loops import Looped, Parts, Unrolled, flat, unroll
from .dsl.measuring import Measuring
from .dsl.program import Program
from .dsl.recipe import Recipe
from .dsl.samples import doubts, open_samples
from .dsl.settings import Settings
from .dsl.strengths import Tried, alone, choose, excess
from .dsl.strict import unserved
from .frontends.data.samples import Samples
from .frontends.onnx import load as _load_onnx
from .frontends.onnx_weights import check_weights
from .frontends.user_code import user_code
from .ir.classes import may_classify
from .ir.core import Module
from .ir.errors import Code, Diagnostic, MlcError
from .passes.base import Context, Need, Pass, PassReport, Plan, plain
from .passes.budget import allowed
from .passes.cache import StepCache
from .passes.instruments import Drift, PrintChanged, SizeDelta, Steps, first_diverging, sizes
from .passes.pipeline import Instrument, PlannedStep, run
from .passes.statistics import StreamingStatistics

if TYPE_CHECKING:
    from rich.console import Console

_UNMOVED = 1e-12
#: What a step may refuse where nothing is learnt from data, and serve in a trial.
_UNFORESEEN = (Code.CANNOT_HONOUR, Code.NO_DATA)
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Result:
    """A finished compilation: the module, the report, where it was written, and the bounds that were missed."""

    module: Module = field(repr=False)
    report: dict[str, Any] = field(repr=False)
    path: Path | None
    missed: tuple[Diagnostic, ...] = ()

    def to_json(self) -> str:
        return report.to_json(self.report)

    def show(self, console: Console | None = None) -> None:
        """Print the report."""
        report.show(self.report, console or report.terminal())


def load(path: PathLike) -> Module:
    """Read an ONNX model, or that of an artifact folder. Weights stay in the file until they are needed."""
    return _load_onnx(model_path(path))


def model_path(path: PathLike) -> Path:
    """A model file; for the folder of an artifact the model in it."""
    inside = Path(path) / artifact.MODEL_NAME
    return inside if os.path.isfile(inside) else Path(path)


def save(module: Module, path: PathLike, *, target: str | None = None, overwrite: bool = False) -> None:
    """Write a module as an ONNX file; with `target`, lowered to the kernels that target has."""
    lowered = module if target is None else legalize(module, parse_target(target)).module
    _save(lowered, Path(path), overwrite=overwrite)


def compile(
    model: PathLike | Module,
    recipe: str | Recipe | Pass | Sequence[Pass],
    *,
    output: PathLike | None = None,
    **settings: Any,
) -> Result:
    """Compile `model` with `recipe`; write the artifact to `output` (a folder, or a .onnx file) if one is given.

    `recipe` is recipe text, a parsed recipe, or a list of passes. The other arguments are the fields of `Settings`.
    A missed bound does not raise: the artifact is complete and `Result.missed` says what was missed.
    """
    options = Settings(**settings)
    with ExitStack() as stack:
        stack.enter_context(user_code(allowed=options.user_code))
        program = read_program(recipe, options)
        layout = artifact.Layout(Path(output)) if output is not None else None
        source = model if isinstance(model, Module) else load(model)
        if layout is not None and source.source is not None:
            artifact.refuse_source(layout, Path(source.source.path))
        check_weights(source)
        program.check_scopes(source)
        work = _Compilation(source, program, options, level=options.check)
        if layout is not None:  # last of all checks: --force does not help what else is wrong
            artifact.refuse_existing(layout, force=options.force)
        else:
            layout = artifact.Layout(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model.mlc")
        return work.run(layout, keep=output is not None)


class _Compilation:
    """One run; methods in the order in which they are called."""

    def __init__(self, source: Module, program: Program, options: Settings, *, level: str) -> None:
        self.source, self.program, self.options = source, program, options
        target = parse_target(program.target)
        self.threads = options.threads or target.threads
        self.target: OrtTarget = dataclasses.replace(target, threads=self.threads)
        self.warnings: list[str] = []
        self.trials: tuple[Tried, ...] = ()
        self.unrolled = 0
        options.progress.step("source")
        self.loops: tuple[Looped, ...] = ()
        self.data, self.eval = open_samples(
            program,
            source,
            options.data,
            options.eval,
            labels=options.labels,
            mask=options.mask,
            seed=options.seed,
            progress=options.progress,
        )
        if program.learns:
            self.warnings += doubts(self.data, self.eval)
        check_measurable(
            program.limits + program.loops,
            check=options.check,
            samples=self.eval is not None,
            labels=self.eval is not None and self.eval.has_labels,
            classes=may_classify({v.name: v.type for v in source.graph.outputs}),
        )
        self.judge = Judge.of(
            source,
            self.eval,
            dims=options.dims,
            seed=options.seed,
            threads=self.threads,
            level=level,
            max_memory=options.max_memory,
            progress=options.progress,
        )
        if self.judge.too_large and self.data is not None:
            self.warnings.append("calibration runs the whole model, which takes more than --max-memory")
        dims = {**guessed_dims(source, options.dims), **self.judge.binding}
        self.context = _context(source, self.target, self.data, self.eval, options, dims)
        if program.decides or program.limits:  # steps are tried before they are run
            self.context = dataclasses.replace(self.context, cache=StepCache(allowed(options.max_memory)))
        self.measuring = Measuring(
            emit=lambda module, path: self._emit(module, path, check="none")[0],
            sizes=lambda module: sizes(module, self.judge.binding),
            source=source,
            source_bytes=lambda: self.source_bytes,
            examiner=self.judge,
            seed=options.seed,
            metrics=functions(program.metrics),
        )

    def run(self, layout: artifact.Layout, *, keep: bool) -> Result:
        self._check_sizes()
        steps = self._settle()
        module, reports = self._transform(steps)
        out = layout.out if keep else None
        with artifact.staged(layout, force=self.options.force) as folder:
            self.options.progress.step("write and check")
            self._tell_costs()
            emitted, lowered = self._emit(module, folder / layout.model_name)
            emitted = self.measuring.measured(emitted, self.program.limits)
            self.warnings += [f"size only: {x}" for x in size_only(module, lowered, self.target, self.context.dims)]
            self.warnings += left_undone(module, [outcome.name for outcome in reports])
            verdicts = self._verdicts(emitted)
            self._tell_untried(verdicts)
            self._locate(module, emitted)
            diagnostics = (*missed(verdicts), *emitted.broken, *(unserved(reports) if self.options.strict else ()))
            diagnostics += tuple(d for loop in self.loops for d in loop.diagnostics())
            document = self._report(out, reports, emitted, lowered, verdicts, diagnostics)
            self._write(folder, layout, document, reports)
        for note in (*report.code_lines(document), *document["warnings"]):
            self.options.progress.note(note)
        return Result(module, document, out, diagnostics)

    def _check_sizes(self) -> None:
        check_sizes(self.program.limits + self.program.loops, sizes(self.source, self.judge.binding)["macs"])

    # -- strength and loops ------------------------------------------------------------------------------------

    def _settle(self) -> tuple[PlannedStep, ...]:
        """The steps that will run: strengths chosen, loops written out."""
        choice = choose(
            self.program,
            verdicts=self._trial,
            drift=lambda parts: self.judge.drift(self._unrolled(parts).module),
            can_run=self.judge.can_run,
            samples=self.eval is not None,
            calibrates=self.data is not None,
            foreseen=self._foreseen if self._foresees else None,
        )
        self.trials = choice.trials
        self.warnings += choice.warnings
        if not self.program.loops:
            return tuple(flat(choice.steps))
        unrolled = self._unrolled(choice.steps, tentative=False)
        self.loops = unrolled.loops
        return unrolled.steps

    def _trial(self, parts: Parts, limits: Sequence[Limit]) -> tuple[Verdict, ...]:
        """The bounds judged on the file that some steps make."""
        draft = {x.metric for x in (*limits, *self.program.loops)} <= COSTS
        return self.measuring.of_module(self._unrolled(parts, draft=draft).module, limits)

    @property
    def _foresees(self) -> bool:
        """Whether costs can be foreseen without data, and with less work than with it."""
        metrics = {x.metric for x in self.program.limits} & COSTS
        learns = any(Need.DATA in step.action.wants() for step in self.program.steps)
        return self.data is not None and not learns and not self.program.loops and metrics <= FORESEEN

    def _foreseen(self, parts: Parts, limits: Sequence[Limit]) -> float:
        """About how much bounds on cost are missed: as if nothing were learnt from data. NaN where steps fail then."""
        self.options.progress.step(f"estimate: {' + '.join(str(step) for step in flat(parts))}")
        context = dataclasses.replace(self.context, data=None, stats=None, cache=None, draft=True, tentative=True)
        try:
            module = unroll(parts, self.source, context, self.measuring.of_module).module
        except MlcError as e:
            if any(d.code not in _UNFORESEEN for d in e.diagnostics):
                raise
            return math.nan
        return excess(self.measuring.of_module(module, limits))

    def _check_served(self, steps: Sequence[PlannedStep], reports: Sequence[PassReport]) -> None:
        """Refuse selectors that no strength serves. A step that was chosen to do nothing is tried at its full strength,
        alone; one that did something needs no trial."""
        idle = [step for step, outcome in zip(steps, reports) if step.may_idle and not outcome.changed]
        if any(step.scope is not None and step.scope(self.source).explicit for step in idle):
            for parts in alone(self.program.parts):
                self._unrolled(parts, draft=True, tentative=False)

    def _unrolled(self, parts: Parts, *, draft: bool = False, tentative: bool = True) -> Unrolled:
        self.unrolled += 1
        text = " + ".join(str(step) for step in flat(parts))
        self.options.progress.step(f"trial {self.unrolled}: {text}", self.unrolled)
        context = dataclasses.replace(self.context, draft=draft, tentative=tentative)
        return unroll(parts, self.source, context, self.measuring.of_module)

    def plan(self) -> list[tuple[str, Plan]]:
        """The plans of all steps, with the strengths and the rounds that `run` would choose."""
        if self.program.decides:  # else bounds choose nothing, and the sizes they need may be unknown
            self._check_sizes()
        steps = self._settle()
        reports = run(steps, self.source.clone(), self.context)
        self._check_served(steps, reports)
        return _plans(reports)

    # -- transform and emit ------------------------------------------------------------------------------------

    def _transform(self, steps: tuple[PlannedStep, ...]) -> tuple[Module, tuple[PassReport, ...]]:
        module = self.source.clone()
        instruments: list[Instrument] = [SizeDelta(self.judge.binding), Steps(self.options.progress, len(steps))]
        if self.options.check == "full" and self.judge.can_run:
            instruments.append(Drift(OrtRunner(threads=self.threads), self.judge.feeds, self.judge.reference))
        if self.options.print_changes is not None:
            instruments.append(PrintChanged(self.options.print_changes))
        reports = run(steps, module, self.context, instruments)
        self._check_served(steps, reports)
        for step, outcome in zip(steps, reports):
            if not outcome.changed:
                self.warnings.append(f"'{step}' changed nothing")
            elif _unmoved(step, outcome):
                self.warnings.append(
                    f"no output moved when '{step}' changed {len(outcome.done)} sites: the samples do not reach them, "
                    "or something saturates; give --data or --eval"
                )
        return module, reports

    def _tell_untried(self, verdicts: Sequence[Verdict]) -> None:
        """Say so when bounds are missed and there was nothing to choose."""
        if not all(v.holds for v in verdicts) and not (self.trials or self.program.decides):
            self.trials = (only(self.program, verdicts),)
            self.warnings.append(advice(self.program, verdicts))

    def _tell_costs(self) -> None:
        """Say so when steps decided by costs that nobody measured here."""
        if self.target.asked_costs is not None and self.target.costs.origin == "assumed":
            self.warnings.append(
                "steps decided by assumed costs: measure those of this machine once, with mlc calibrate"
            )

    def _emit(self, module: Module, path: Path, *, check: str | None = None) -> tuple[Emitted, Lowered]:
        lowered = legalize(module, self.target)
        if any(outcome.changed for outcome in module.history if isinstance(outcome, PassReport)):
            lowered.module.meta.properties |= {
                "mlc.version": __version__,
                "mlc.recipe": self.program.text,
                "mlc.source_sha256": self.source.source.sha256 if self.source.source is not None else "",
            }
        _save(lowered.module, path, external=self.options.external, opset=self.options.opset)  # type: ignore[arg-type]
        emitted = check_emitted(
            path,
            lowered.module,
            self.source_bytes,
            self.judge,
            level=check or self.options.check,
            exact=self.program.exact,
            seed=self.options.seed,
            opset=self.options.opset,
        )
        return emitted, lowered

    def _locate(self, module: Module, emitted: Emitted) -> None:
        """Name the operator where broken outputs start to differ: the first thing anyone will ask."""
        if emitted.broken and self.judge.can_run:
            found = first_diverging(OrtRunner(threads=self.threads), self.source, module, self.judge.feeds[0])
            where = "every operator agrees before lowering" if found is None else f"{found[0]} (by {found[1]:.2g})"
            self.warnings.append(f"the first operator whose result differs: {where}")

    # -- judge and report --------------------------------------------------------------------------------------

    def _verdicts(self, emitted: Emitted) -> tuple[Verdict, ...]:
        return judge(self.program.limits, self.measuring.facts(emitted))

    @cached_property
    def source_bytes(self) -> int:
        """What sizes are compared with: the source file, or the file that a module from Python would make."""
        if self.source.source is not None:
            return self.source.source.nbytes
        with tempfile.TemporaryDirectory(prefix="mlc-source-") as folder:
            _save(self.source, Path(folder) / "model.onnx")
            return sum(f.stat().st_size for f in Path(folder).iterdir())

    def _report(
        self,
        out: Path | None,
        reports: Sequence[PassReport],
        emitted: Emitted,
        lowered: Lowered,
        verdicts: Sequence[Verdict],
        diagnostics: Sequence[Diagnostic],
    ) -> dict[str, Any]:
        source = self.source.source
        return {
            "mlc": __version__,
            "status": "missed" if diagnostics else "done",
            "source": dataclasses.asdict(source) if source is not None else {"path": "a module from Python"},
            "recipe": self.program.text,
            "steps_text": [str(step) for step in self.program.steps],
            "target": str(self.target),
            "seed": self.options.seed,
            "threads": self.threads,
            "options": self.options.given(),
            "data": {
                "calibration": self.data.facts() if self.data is not None else None,
                "evaluation": self.eval.facts() if self.eval is not None else None,
            },
            **code_of(self.program, self.options),
            "steps": [_step_json(r) for r in reports],
            "loops": [loop.to_json() for loop in self.loops],
            "trials": [tried.to_json() for tried in self.trials],
            "lowering": list(lowered.lines),
            "costs": self.target.asked_costs.describe() if self.target.asked_costs is not None else None,
            "artifact": {"path": str(out) if out is not None else None, **emitted.facts()},
            "size": {
                "source": self.source_bytes,
                "artifact": emitted.nbytes,
                "ratio": emitted.nbytes / self.source_bytes,
            },
            "checks": emitted.checks(self.judge),
            "bounds": [v.to_json() for v in verdicts],
            "missed": [d.message for d in diagnostics],
            "warnings": [*self.warnings, *self.judge.warnings, *emitted.warnings],
            "metadata": dict(self.source.meta.properties),
            "measurements": {
                "environment": environment(),
                "seconds": {str(i + 1): round(r.seconds, 4) for i, r in enumerate(reports)},
                **emitted.measurements(),
                "warnings": [emitted.slower] if emitted.slower else [],
            },
        }

    def _write(
        self, folder: Path, layout: artifact.Layout, document: Mapping[str, Any], reports: Sequence[PassReport]
    ) -> None:
        (folder / layout.report_name).write_text(report.to_json(document), encoding="utf-8")
        (folder / layout.summary_name).write_text(to_markdown(document), encoding="utf-8")
        if layout.extras:
            (folder / "recipe.mlc").write_text(self.program.file_text(layout.out), encoding="utf-8")
            (folder / "plan.json").write_text(plans_to_json(_plans(reports)), encoding="utf-8")


def _unmoved(step: PlannedStep, outcome: PassReport) -> bool:
    """Whether outputs stayed equal although a step was told to change numbers: then they prove nothing."""
    drift = outcome.metrics.get("drift")
    return step.action.effect.lossy and not step.action.free and drift is not None and abs(drift) < _UNMOVED


def _context(
    source: Module,
    target: OrtTarget,
    data: Samples | None,
    judges: Samples | None,
    options: Settings,
    dims: Mapping[str, int],
) -> Context:
    runner = OrtRunner(threads=options.threads or target.threads)
    stats = None
    if data is not None:
        stats = StreamingStatistics(data, runner, max_memory=options.max_memory, progress=options.progress)
    return Context(
        target=target,
        data=data,
        eval=judges,
        stats=stats,
        runner=runner,
        seed=options.seed,
        max_memory=options.max_memory,
        progress=options.progress,
        dims=dims,
    )


def _step_json(outcome: PassReport) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "text": outcome.text,
        "done": plain(outcome.done),
        "skipped": plain(outcome.skipped),
        "notes": list(outcome.notes),
        "before": outcome.metrics.get("before", {}),
        "after": outcome.metrics.get("after", {}),
        "drift": outcome.metrics.get("drift"),
    }


# -- plan ------------------------------------------------------------------------------------------------------


def plan(
    model: PathLike | Module, recipe: str | Recipe | Pass | Sequence[Pass], **settings: Any
) -> list[tuple[str, Plan]]:
    """What each step would do: (step, plan) in order. Steps are applied to a copy, because later ones depend on it."""
    options = Settings(**settings)
    with user_code(allowed=options.user_code):
        program = read_program(recipe, options)
        source = model if isinstance(model, Module) else load(model)
        check_weights(source)
        program.check_scopes(source)
        # The model is run only to choose strengths.
        judged = program.limits or any(program.data(options.data, options.eval))
        chosen = program.loops or (program.free and judged)
        return _Compilation(source, program, options, level=options.check if chosen else "none").plan()


def _plans(reports: Sequence[PassReport]) -> list[tuple[str, Plan]]:
    return [(r.text, r.plan) for r in reports if r.plan is not None]


def plans_to_json(plans: Sequence[tuple[str, Plan]]) -> str:
    """Plans as JSON text with a format number."""
    return report.to_json({"steps": [{"step": text, **found.to_json()} for text, found in plans]})
