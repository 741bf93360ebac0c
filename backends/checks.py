"""Checks of what was emitted: it loads, agrees with the source, keeps what the recipe promised, and how fast it is.

Levels: `full` loads and runs the whole file and times it; `fast` reads the file back and runs changed operators alone
against the reference (what a model beyond the memory limit gets in any case); `none` looks at sizes only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..ir.core import Module
from ..ir.errors import Code, Diagnostic, MlcError
from ..ir.ops.opdef import Trait
from ..ir.ops.table import lookup
from ..ir.progress import Progress
from ..ir.scratch import scratch
from .agreement import AccuracyMeter, Agreement, AgreementMeter
from .fusion import Fusion, read_fusion
from .measure import Tail, Timing, opened, tails
from .memory import Memory, measure_memory
from .onnx import least_onnxruntime
from .ort import Session
from .probe import Feeds, check_dims, synthetic
from .single_op import check_changed_ops

_DRIFT_SAMPLES = 8
_SHARE = 4  # of the memory: one in so many is for samples and what the source makes of them
_NO_ROOM = "more do not fit --max-memory"
_RUN_FACTOR = 3  # a session holds the file, the weights and packed copies of them
_EXACT_TOLERANCE = 1e-4  # relative to the largest output: what exact steps may differ by through float rounding
_ROUNDING_FACTOR = 8  # exact steps may also differ by so many times what the runtime's own optimizations change
_HASH_CHUNK = 1 << 20
_GOOD_COSINE = 0.99  # the default of `mlc verify`
_LOW_COSINE = 0.9


class Samples(Protocol):
    """Evaluation data (frontends/data). `classes`: labels must be numbers of classes."""

    @property
    def classes(self) -> bool: ...

    def batches(self, size: int = 1) -> Iterator[Any]: ...

    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...


@dataclass
class Judge:
    """What an artifact is judged by: samples, what the source model answers to them, and the sizes they bind."""

    source: Path | Module
    samples: Samples | None
    judged_on: str
    feeds: tuple[Feeds, ...] = ()
    reference: tuple[Mapping[str, Any], ...] = ()
    binding: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    threads: int = 1
    progress: Progress | None = None
    too_large: bool = False  # to be run within the memory

    @property
    def can_run(self) -> bool:
        """Whether the whole model is run; otherwise changed operators are checked alone."""
        return bool(self.feeds)

    @classmethod
    def of(
        cls,
        module: Module,
        samples: Samples | None,
        *,
        dims: Mapping[str, int],
        seed: int,
        threads: int,
        level: str,
        max_memory: int | None,
        progress: Progress | None = None,
    ) -> Judge:
        """The judge of a compilation of `module`. Runs the source once per probe sample."""
        check_dims(module, dims)
        source = Path(module.source.path) if module.source is not None else module
        limit = max_memory if max_memory is not None else memory_limit()
        on = f"{len(samples)} samples of the data" if samples is not None else "synthetic input"
        known = {} if samples is None else _binding(module, next(iter(samples.batches(1))).inputs)
        judge = cls(source, samples, on, binding={**known, **dims}, threads=threads, progress=progress)
        if level != "full":
            judge.judged_on = "changed operators alone" if level == "fast" else "nothing"
        elif not fits(module, limit):
            judge.too_large = True
            judge.judged_on = "changed operators alone"
            judge.warnings.append(
                f"the model is too large to run within {limit >> 20} MiB: changed operators were checked alone"
            )
        else:
            judge._gather(module, dims, seed, limit)
        return judge

    def _gather(self, module: Module, dims: Mapping[str, int], seed: int, limit: int) -> None:
        session = self.open_source()
        feeds: Iterator[Feeds]
        if self.samples is not None:
            feeds = (b.inputs for b in islice(self.samples.batches(1), _DRIFT_SAMPLES))
            wanted = min(_DRIFT_SAMPLES, len(self.samples))
        else:
            rng = np.random.default_rng(seed)
            probes = synthetic(module, session.run, dims=dims, rng=rng)
            feeds, self.binding, wanted = iter(probes.feeds), probes.binding, len(probes.feeds)
            self.warnings.append("judged on synthetic input: give --data or --eval to judge by what the model will see")
        held = 0
        for feed in feeds:
            found = session.run(feed)
            held += _held(feed) + _held(found)
            if self.feeds and held > limit // _SHARE:
                self.warnings.append(f"steps are judged on {len(self.feeds)} of {wanted} samples: {_NO_ROOM}")
                break
            self.feeds, self.reference = (*self.feeds, feed), (*self.reference, found)
            if self.progress is not None:
                self.progress.advance("samples", len(self.feeds), wanted)

    def open_source(self) -> Session:
        return Session(self.source, threads=self.threads)

    def drift(self, module: Module) -> float:
        """1 - cosine of the worst float output of a module on the first samples."""
        session = Session(module, threads=self.threads)
        meter = AgreementMeter()
        for feed, expected in zip(self.feeds, self.reference):
            meter.update(expected, session.run(feed))
        cosine = meter.result().cosine
        return 0.0 if cosine is None else 1.0 - cosine

    def rounding_floor(self) -> float:
        """By how much the source's outputs change when the runtime's optimizations are off: pure float rounding.

        A detector fed with noise answers with numbers near zero, where rounding is a large part of the largest output.
        """
        session = Session(self.source, threads=self.threads, optimize=False)
        meter = AgreementMeter()
        for feed, expected in zip(self.feeds, self.reference):
            meter.update(expected, session.run(feed))
        return meter.result().max_relative or 0.0

    def agreement(self, session: Session) -> tuple[Agreement, tuple[float, float] | None]:
        """Agreement on all samples and, with labels of classes, the accuracies of source and artifact. The data is
        streamed."""
        meter = AgreementMeter()
        if self.samples is None:
            for feed, expected in zip(self.feeds, self.reference):
                meter.update(expected, session.run(feed))
            return meter.result(), None
        source, accuracy = self.open_source(), AccuracyMeter(required=self.samples.classes)
        for seen, batch in enumerate(self.samples.batches(1), start=1):
            expected, found = source.run(batch.inputs), session.run(batch.inputs)
            meter.update(expected, found)
            if batch.labels is not None:
                accuracy.update(expected, found, batch.labels, batch.inputs.where)
            if self.progress is not None:
                self.progress.advance("samples judged", seen, len(self.samples))
        return meter.result(), accuracy.result()


@dataclass(frozen=True)
class Emitted:
    """A written file and what its checks found. `broken` are promises that do not hold."""

    path: Path
    module: Module
    nbytes: int
    opset: int | None = None  # the one asked for; None: that of the module
    loads: bool | None = None  # None: not tried
    agreement: Agreement | None = None
    accuracy: tuple[float, float] | None = None  # of source and artifact, with labels of classes
    latency: Timing | None = None
    tail: Tail | None = None  # measured where a bound asks for it, as the next two are
    memory: Memory | None = None
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # the user's: of source and artifact
    fusion: Fusion | None = None  # of quantized artifacts that were run
    changed_ops: Mapping[str, str] = field(default_factory=dict)
    broken: tuple[Diagnostic, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def slower(self) -> str:
        """A warning when the artifact is certainly slower than the source; empty otherwise."""
        if self.latency is None or self.latency.verdict != "slower":
            return ""
        return f"the artifact is slower than the source: {self.latency.speedup:.2f}x"

    def facts(self) -> dict[str, Any]:
        """What the report says of the files."""
        files = sorted(self.path.parent.glob(f"{self.path.name}*"))
        return {
            "files": {f.name: f.stat().st_size for f in files},
            "sha256": _sha256(self.path),
            "opset": self.opset or self.module.opset,
            "domains": dict(self.module.opsets),
            "least_onnxruntime": least_onnxruntime(self.module, opset=self.opset),
        }

    def checks(self, judge: Judge) -> dict[str, Any]:
        """What the report says of the checks."""
        agreement = self.agreement.to_json() if self.agreement is not None else {}
        return {
            "judged_on": judge.judged_on,
            "loads": self.loads,
            **agreement,
            **({"accuracy": dict(zip(("source", "artifact"), self.accuracy))} if self.accuracy is not None else {}),
            **({"quantization": self.fusion.to_json()} if self.fusion is not None else {}),
            **({"metrics": _both(self.metrics)} if self.metrics else {}),
            "changed_operators": dict(self.changed_ops),
            "binding": {k: v for k, v in judge.binding.items() if not k.startswith("?")},
        }

    def measurements(self) -> dict[str, Any]:
        """What the report says of time and memory: `latency` always, the others where bounds ask for them."""
        found = {"latency_p95": self.tail, "memory": self.memory}
        return {
            "latency": self.latency.to_json() if self.latency is not None else None,
            **{name: part.to_json() for name, part in found.items() if part is not None},
        }


def _both(metrics: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    return {name: dict(zip(("source", "artifact"), values)) for name, values in metrics.items()}


def check_emitted(
    path: Path,
    module: Module,
    source_bytes: int,
    judge: Judge,
    *,
    level: str,
    exact: bool,
    seed: int,
    opset: int | None = None,
) -> Emitted:
    """Check the file at `path`, written from `module`. Errors: RUNTIME when the runtime refuses it."""
    nbytes = sum(f.stat().st_size for f in path.parent.glob(f"{path.name}*"))
    warnings = []
    if source_bytes and nbytes > source_bytes:
        warnings.append(f"the file is larger than the source: {nbytes} > {source_bytes} bytes")
    if level == "none":
        return Emitted(path, module, nbytes, opset, warnings=tuple(warnings))
    if not judge.can_run:
        changed = check_changed_ops(module, seed=seed)
        return Emitted(path, module, nbytes, opset, changed_ops=changed, warnings=tuple(warnings))
    session, fusion = _open_emitted(path, module, judge.threads)
    agreement, accuracy = judge.agreement(session)
    del session  # timed are sessions of their own
    latency = time_files(path, judge, seed=seed)
    broken = _broken(agreement, judge, exact=exact)
    if agreement.cosine is not None and agreement.cosine < _GOOD_COSINE:
        warnings.append(_differs(agreement.cosine))
    return Emitted(
        path,
        module,
        nbytes,
        opset,
        loads=True,
        agreement=agreement,
        accuracy=accuracy,
        latency=latency,
        fusion=fusion,
        broken=broken,
        warnings=tuple(warnings),
    )


def _open_emitted(path: Path, module: Module, threads: int) -> tuple[Session, Fusion | None]:
    """A session of the written file and, if it is quantized, what the runtime fused in it."""
    if not any(lookup(op.kind).has(Trait.QUANTIZED) for op in module.walk()):
        return Session(path, threads=threads), None
    with scratch("mlc-optimized") as folder:
        optimized = folder / "optimized.onnx"
        return Session(path, threads=threads, optimized_path=optimized), read_fusion(optimized)


def _differs(cosine: float) -> str:
    """What to say of outputs that `mlc verify` would not accept."""
    how = " strongly" if cosine < _LOW_COSINE else ""
    return (
        f"the outputs differ{how} from the source's (cosine {cosine:.3f}; mlc verify wants {_GOOD_COSINE}): do less, "
        "or fine-tune; 'where cosine >= 0.99' makes it a bound"
    )


def _broken(agreement: Agreement, judge: Judge, *, exact: bool) -> tuple[Diagnostic, ...]:
    """Promises of the recipe's effect that the outputs do not keep."""
    found = []
    difference = agreement.max_relative
    if exact and difference is not None and not difference <= _EXACT_TOLERANCE:
        floor = judge.rounding_floor()
        if not difference <= _ROUNDING_FACTOR * floor:
            found.append(
                f"the steps are exact, but outputs differ by {difference:.2g} of the largest "
                f"(the runtime's own rounding: {floor:.2g})"
            )
    if exact and not agreement.integers_equal:
        found.append("the steps are exact, but integer outputs differ")
    if agreement.cosine == 0.0:
        found.append("the outputs have nothing in common with the source's (shape, non-finite values or noise)")
    help = "do not use this artifact; the warnings name the first operator that differs: leave it out with 'except'"
    return tuple(Diagnostic(Code.BOUND_MISSED, f"the artifact is not what was promised: {f}", help=help) for f in found)


def memory_limit() -> int:
    """Half of the machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def fits(module: Module, limit: int) -> bool:
    """Whether a module can be run within so many bytes."""
    return _RUN_FACTOR * _weight_bytes(module) <= limit


def _weight_bytes(module: Module) -> int:
    return sum(v.constant.nbytes for v in module.constants.values() if v.constant is not None)


def _held(arrays: Mapping[str, Any]) -> int:
    return sum(getattr(array, "nbytes", 0) for array in arrays.values())


def _binding(module: Module, feeds: Feeds) -> dict[str, int]:
    """Sizes of named dimensions, read off a sample."""
    found: dict[str, int] = {}
    for value in module.graph.inputs:
        shape = getattr(value.type, "shape", ())
        for dim, size in zip(shape, np.shape(feeds.get(value.name, 0))):
            if hasattr(dim, "name"):
                found[dim.name] = int(size)
    return found


def _sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def compare(a: Path, b: Path, judge: Judge) -> dict[str, Any]:
    """Agreement of two files on the judge's samples, as plain data."""
    session = Session(b, threads=judge.threads)
    missing = _missing_inputs(session, judge.feeds)
    if missing:
        raise MlcError(
            Diagnostic(
                Code.BAD_DATA,
                f"the models have different inputs: {str(b)!r} also wants {', '.join(missing)}",
                where=str(b),
                help=f"compare models with the inputs of {str(a)!r}",
            )
        )
    return {**judge.agreement(session)[0].to_json(), "judged_on": judge.judged_on}


def _missing_inputs(session: Session, feeds: Sequence[Feeds]) -> list[str]:
    return [name for name in session.inputs if feeds and name not in feeds[0]]


def time_files(b: Path, judge: Judge, *, seed: int) -> Timing:
    """The file at `b` timed against the judge's source."""
    return opened(
        judge.open_source,
        lambda: Session(b, threads=judge.threads),
        judge.feeds[0],
        threads=judge.threads,
        seed=seed,
        progress=judge.progress,
    )


def time_tails(b: Path, judge: Judge, *, seed: int) -> Tail:
    """The slow runs of the file at `b` against those of the judge's source."""
    session = Session(b, threads=judge.threads)
    return tails(judge.open_source(), session, judge.feeds[0], seed=seed, progress=judge.progress)


def weigh(b: Path, judge: Judge) -> Memory:
    """The memory of processes that run the judge's source and the file at `b`."""
    return measure_memory(judge.source, b, judge.feeds[0], threads=judge.threads)
