"""Two artifacts beside each other, from their reports alone: what differs, and whether the numbers may be compared.

Nothing is run. Sizes and digests are facts; times and agreements hold for the machine and the samples that they were
measured with, so every comparison says whether those are the same.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..ir import errors
from ..ir.errors import Code
from .artifact import Layout
from .report import Report
from .report_read import read

FORMAT = 1
_SHOWN_SITES = 5
#: What times depend on.
_MACHINE = ("cpu", "isa", "cores", "system", "onnxruntime")
_DIGITS = 5e-4  # equal in the digits that are shown
_NAMES = ("source", "labels")  # of data: how samples are called, not which they are

Side = Literal["a", "b"]


@dataclass(frozen=True)
class Fact:
    """One number of both artifacts. `ratio` is b / a and `better` the better side, where that can be said."""

    name: str
    a: float | str | None
    b: float | str | None
    ratio: float | None = None
    better: Side | None = None


@dataclass(frozen=True)
class StepDifference:
    """A step of both recipes (or of one): what it says and what it did. Sites are those that only one side changed."""

    a: Mapping[str, Any] | None
    b: Mapping[str, Any] | None
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    only_a_count: int = 0
    only_b_count: int = 0


def find_report(path: Path) -> Path:
    """The report of an artifact: in its folder, beside its .onnx file, or the .json file itself. Errors: NOT_FOUND."""
    found = path
    if path.is_dir():
        found = path / Layout(path).report_name
    elif path.suffix == ".onnx":
        found = path.with_name(Layout(path).report_name)
        if path.is_file() and not found.is_file():
            beside = path.with_name("report.json")
            found = beside if path.name == Layout(path.parent).model_name and beside.is_file() else found
    if not found.is_file():
        raise errors.error(
            Code.NOT_FOUND,
            f"there is no report {str(found)!r}",
            where=str(path),
            help="give what mlc compile wrote; other models are compared by mlc verify and mlc bench",
        )
    return found


def compare(a: Path, b: Path) -> dict[str, Any]:
    """The comparison as plain data (`format` 1). Errors: NOT_FOUND, TEXT, FORMAT."""
    first, second = (read(find_report(path)) for path in (a, b))
    return {
        "format": FORMAT,
        "a": _artifact(a, first),
        "b": _artifact(b, second),
        "equal_files": first["artifact"]["sha256"] == second["artifact"]["sha256"],
        "notes": list(_notes(first, second)),
        "facts": [asdict(fact) for fact in _facts(first, second)],
        "bounds": _bounds(first, second),
        "steps": [asdict(step) for step in _steps(first["steps"], second["steps"])],
        "settings": _settings(first, second),
        "warnings": _only(_warnings(first), _warnings(second)),
    }


def _artifact(path: Path, found: Report) -> dict[str, Any]:
    return {
        "path": str(path),
        "status": found["status"],
        "source": found["source"]["path"],
        "recipe": found["recipe"],
        "target": found["target"],
        "mlc": found["mlc"],
        "sha256": found["artifact"]["sha256"],
    }


# -- what may be compared ----------------------------------------------------------------------------------------------


def _notes(a: Report, b: Report) -> Iterator[str]:
    """Why numbers of the two are not, or not quite, comparable."""
    if not _same_source(a, b):
        yield "the sources differ: sizes and agreement are relative to different models"
    if _latency(a) and _latency(b):
        machine = _machine_differences(a, b)
        if machine:
            yield f"times were measured on different machines: {', '.join(machine)}"
        elif not _same_timing(a, b):
            yield "times were measured with different threads or input sizes"
        else:
            yield "times were measured in different runs: mlc bench A B times both in turn"
    if not _same_judge(a, b):
        yield f"agreement was judged on different samples: {_judged(a)}; {_judged(b)}"
    if a["mlc"] != b["mlc"]:
        yield f"made by different versions of mlc: {a['mlc']}; {b['mlc']}"


def _same_source(a: Report, b: Report) -> bool:
    return bool(a["source"].get("sha256") == b["source"].get("sha256"))


def _machine_differences(a: Report, b: Report) -> list[str]:
    first, second = (r["measurements"]["environment"] for r in (a, b))
    return [f"{k} {first.get(k)} and {second.get(k)}" for k in _MACHINE if first.get(k) != second.get(k)]


def _same_timing(a: Report, b: Report) -> bool:
    return bool(a["threads"] == b["threads"] and a["checks"]["binding"] == b["checks"]["binding"])


def _same_judge(a: Report, b: Report) -> bool:
    """Whether both were judged on the same samples: the same data, or synthetic input of one seed."""
    facts = [(r["data"]["evaluation"] or {"seed": r["seed"]}) for r in (a, b)]
    samples = [{key: value for key, value in found.items() if key not in _NAMES} for found in facts]
    equal = all(a["checks"][key] == b["checks"][key] for key in ("judged_on", "binding"))
    return equal and samples[0] == samples[1]


def _judged(found: Report) -> str:
    sizes = "".join(f", {name}={n}" for name, n in found["checks"]["binding"].items())
    return f"{found['checks']['judged_on']}{sizes}"


def _latency(found: Report) -> Mapping[str, Any] | None:
    latency: Mapping[str, Any] | None = found["measurements"]["latency"]
    return latency


# -- numbers -----------------------------------------------------------------------------------------------------------


def _facts(a: Report, b: Report) -> Iterator[Fact]:
    yield _number("size", a["size"]["artifact"], b["size"]["artifact"])
    yield _number("share of the source", a["size"]["ratio"], b["size"]["ratio"], comparable=_same_source(a, b))
    sizes = a["checks"]["binding"] == b["checks"]["binding"]
    for key in ("params", "macs", "nodes"):
        counts = (r["steps"][-1]["after"][key] if r["steps"] else None for r in (a, b))
        yield _number(key, *counts, comparable=sizes or key != "macs")
    yield from _times(a, b)
    agreed = _same_source(a, b) and _same_judge(a, b)
    for key in ("cosine", "sqnr_db", "top1"):
        yield _number(key, a["checks"].get(key), b["checks"].get(key), more=True, comparable=agreed, ratio=False)
    accuracies = [(r["checks"].get("accuracy") or {}).get("artifact") for r in (a, b)]
    yield _number("accuracy", *accuracies, more=True, comparable=_same_judge(a, b), ratio=False)
    for name in dict.fromkeys(n for r in (a, b) for n in r["checks"].get("metrics", {})):
        found = (r["checks"].get("metrics", {}).get(name, {}).get("artifact") for r in (a, b))
        yield _number(name, *found, comparable=_same_judge(a, b), ratio=False, better=False)
    yield Fact("least ONNX Runtime", a["artifact"]["least_onnxruntime"], b["artifact"]["least_onnxruntime"])


def _times(a: Report, b: Report) -> Iterator[Fact]:
    """Times, and speed-ups over the source. One side is faster only where the intervals lie apart."""
    first, second = _latency(a), _latency(b)
    here = not _machine_differences(a, b) and _same_timing(a, b)
    times = [found["artifact_ms"] if found else None for found in (first, second)]
    yield _number("latency_ms", *times, comparable=here, better=False)
    for name, section, key in (("latency_p95_ms", "latency_p95", "artifact_ms"), ("memory", "memory", "artifact")):
        measured = (r["measurements"].get(section, {}).get(key) for r in (a, b))
        yield _number(name, *measured, comparable=here, better=name == "memory")
    ups = [found["speedup"] if found else None for found in (first, second)]
    fact = _number("speedup", *ups, more=True, comparable=here and _same_source(a, b), better=False)
    if first is None or second is None or fact.ratio is None:
        yield fact
    else:
        apart: Side | None = "a" if first["low"] > second["high"] else "b" if second["low"] > first["high"] else None
        yield Fact(fact.name, fact.a, fact.b, fact.ratio, apart)


def _number(
    name: str, a: Any, b: Any, *, more: bool = False, comparable: bool = True, ratio: bool = True, better: bool = True
) -> Fact:
    """A fact of two numbers; `more` of it is better, or less. Formulas and missing numbers are only shown."""
    if not comparable or any(isinstance(x, str) or x is None for x in (a, b)):
        return Fact(name, a, b)
    side: Side | None = None
    if better and abs(a - b) > _DIGITS * max(abs(a), abs(b)):
        side = "a" if (a > b) == more else "b"
    return Fact(name, a, b, b / a if ratio and a else None, side)


# -- lists -------------------------------------------------------------------------------------------------------------


def _bounds(a: Report, b: Report) -> list[dict[str, Any]]:
    known: list[dict[str, Any]] = [{v["bound"]: v for v in found["bounds"]} for found in (a, b)]
    rows = []
    for text in dict.fromkeys([*known[0], *known[1]]):
        sides = zip(("a", "b"), (of.get(text) for of in known))
        rows.append({"bound": text, **{s: v and {"found": v["found"], "holds": v["holds"]} for s, v in sides}})
    return rows


def _steps(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> Iterator[StepDifference]:
    """Steps of the same pass are put side by side, in order."""
    matcher = difflib.SequenceMatcher(a=[s["name"] for s in a], b=[s["name"] for s in b], autojunk=False)
    for _, start_a, end_a, start_b, end_b in matcher.get_opcodes():
        first, second = list(a[start_a:end_a]), list(b[start_b:end_b])
        for index in range(max(len(first), len(second))):
            pair = [side[index] if index < len(side) else None for side in (first, second)]
            if pair[0] is not None and pair[1] is not None and pair[0]["name"] != pair[1]["name"]:
                yield _step(pair[0], None)
                yield _step(None, pair[1])
            else:
                yield _step(pair[0], pair[1])


def _step(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> StepDifference:
    if a is None or b is None:
        return StepDifference(_told(a), _told(b))
    sites = [{done["site"]: None for done in step["done"]} for step in (a, b)]
    only_a = [s for s in sites[0] if s not in sites[1]]
    only_b = [s for s in sites[1] if s not in sites[0]]
    shown = tuple(only_a[:_SHOWN_SITES]), tuple(only_b[:_SHOWN_SITES])
    return StepDifference(_told(a), _told(b), *shown, len(only_a), len(only_b))


def _told(step: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if step is None:
        return None
    return {
        "text": step["text"],
        "done": len(step["done"]),
        "skipped": dict(Counter(skip["code"] for skip in step["skipped"])),
        "bytes": step["after"]["bytes"],
        "drift": step["drift"],
    }


def _settings(a: Report, b: Report) -> list[dict[str, Any]]:
    """Options that were not given alike."""
    names = dict.fromkeys([*a["options"], *b["options"]])
    found = ((name, a["options"].get(name), b["options"].get(name)) for name in names)
    return [{"name": name, "a": first, "b": second} for name, first, second in found if first != second]


def _warnings(found: Report) -> list[str]:
    return [*found["warnings"], *found["measurements"]["warnings"]]


def _only(a: Sequence[str], b: Sequence[str]) -> dict[str, list[str]]:
    return {"a": [x for x in a if x not in b], "b": [x for x in b if x not in a]}
