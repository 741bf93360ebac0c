"""The generated cases of `onnx.backend.test` as round trips: exact, close, opaque, kept unrun, refused, or broken.

for case in cases("node"): outcome = round_trip(case)
"""

from __future__ import annotations

import enum
import functools
import importlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from kit.lossless import PLAIN_BOUND, RANDOM, difference, lost, nodes
from onnx import ModelProto, numpy_helper

from mlc.backends.onnx import to_proto
from mlc.backends.ort import Session
from mlc.frontends.onnx import load
from mlc.ir.errors import MlcError

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


class Status(enum.Enum):
    EXACT = "outputs bit for bit"
    CLOSE = "outputs within 1e-6"
    RANDOM = "random operators: outputs of the same types and shapes"
    EXPECTED = "ONNX Runtime runs the artifact only: outputs as the case expects them"
    KEPT = "nothing lost; ONNX Runtime does not run the source either"
    OPAQUE = "nothing lost; operators unknown to ONNX pass through"
    REFUSED = "refused with a reason"
    BROKEN = "something was lost"


GOOD = frozenset(Status) - {Status.BROKEN}


@dataclass(frozen=True)
class Outcome:
    name: str
    status: Status
    reason: str = ""


@functools.cache
def cases(kind: str) -> Sequence[Any]:
    """All cases of a kind. Making them takes some seconds."""
    from onnx.backend.test import loader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(loader.load_model_tests(kind=kind))


def cases_of(*operators: str) -> Sequence[Any]:
    """The cases of at least these operators (by the names of ONNX's modules), without making all others."""
    from onnx.backend.test.case import node as package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for operator in operators:
            importlib.import_module(f"{package.__name__}.{operator}")
    return tuple(package._NodeTestCases)


def round_trip(case: Any) -> Outcome:
    """Import, export, compare and run one case."""
    source = case.model if case.model is not None else onnx.load(str(Path(case.model_dir) / "model.onnx"))
    try:
        artifact = to_proto(load(source))
    except MlcError as problem:
        return Outcome(case.name, Status.REFUSED, problem.diagnostics[0].message)
    problems = lost(source, artifact)
    if problems:
        return Outcome(case.name, Status.BROKEN, problems[0])
    if any(not _known(n, source) for n in nodes(source.graph)):
        return Outcome(case.name, Status.OPAQUE)
    return _compare_runs(case, source, artifact)


def _known(node: onnx.NodeProto, model: ModelProto) -> bool:
    local = {(f.domain, f.name) for f in model.functions}
    return onnx.defs.has(node.op_type, domain=node.domain) or (node.domain, node.op_type) in local


def _compare_runs(case: Any, source: ModelProto, artifact: ModelProto) -> Outcome:
    try:
        feeds = _feeds(case, source)
        wanted = Session(source.SerializeToString(), optimize=False).run(feeds)
    except (MlcError, ValueError, RuntimeError, TypeError, NotImplementedError) as reason:
        return _expected(case, source, artifact, str(reason).splitlines()[0])
    try:
        found = Session(artifact.SerializeToString(), optimize=False).run(feeds)
    except MlcError as reason:
        return Outcome(case.name, Status.BROKEN, str(reason).splitlines()[0])
    if {n.op_type for n in nodes(source.graph)} & RANDOM:
        alike = all(np.asarray(wanted[k]).shape == np.asarray(found[k]).shape for k in wanted)
        return Outcome(case.name, Status.RANDOM if alike else Status.BROKEN)
    worst = max((difference(wanted[k], found[k]) for k in wanted), default=0.0)
    if worst == 0.0:
        return Outcome(case.name, Status.EXACT)
    return Outcome(case.name, Status.CLOSE if worst <= PLAIN_BOUND else Status.BROKEN, f"differs by {worst:.1e}")


def _expected(case: Any, source: ModelProto, artifact: ModelProto, why: str) -> Outcome:
    """The source does not run. If its opset is too old, the artifact does, and the case says what must come out."""
    try:
        found = list(Session(artifact.SerializeToString(), optimize=False).run(_feeds(case, source)).values())
        wanted = [_array(v) for v in _data(case, 1, "output")]
        fits = all(np.allclose(w, f, case.rtol, case.atol, equal_nan=True) for w, f in zip(wanted, found, strict=True))
    except (MlcError, ValueError, RuntimeError, TypeError, NotImplementedError):
        return Outcome(case.name, Status.KEPT, why)
    return Outcome(case.name, Status.EXPECTED if fits else Status.BROKEN, why)


def _feeds(case: Any, model: ModelProto) -> dict[str, Any]:
    names = [v.name for v in model.graph.input]
    return {name: _array(value) for name, value in zip(names, _data(case, 0, "input"))}


def _data(case: Any, index: int, stem: str) -> Any:
    """Inputs (0) or outputs (1) of a case's first data set, in memory or in its folder."""
    if case.data_sets:
        return case.data_sets[0][index]
    folder = Path(case.model_dir) / "test_data_set_0"
    count = len(list(folder.glob(f"{stem}_*.pb")))
    return [numpy_helper.to_array(onnx.load_tensor(str(folder / f"{stem}_{i}.pb"))) for i in range(count)]


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
