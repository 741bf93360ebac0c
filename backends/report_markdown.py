"""A report as Markdown, short enough for a pull request: what changed, what was not done, how to make it again.

Made from the document of report.json alone. Names and messages come from models and users: they are escaped, so that
none of them can become a link, a heading, a mention or another cell of a table.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .report import change, code_lines, count, drift_words, fusion_lines, rounds, size, skip_groups

_SHOWN_SITES = 3  # of a reason
_SHOWN_LINES = 12  # of a list
_LONGEST_SITE = 80
#: Options of the command line that are not called as the fields they set.
_FLAGS = {"external": "--external-data", "metrics": "--metric"}
_OBJECTS = ("arrays from Python", "__main__:")  # how data that no command line names begin
_VERSIONS = ("onnxruntime", "onnx", "numpy", "python")


def to_markdown(report: Mapping[str, Any]) -> str:
    """The whole page; equal documents make equal pages."""
    source, status = Path(report["source"]["path"]).name, report["status"]
    parts = [
        f"## {code(source)}: {code(report['recipe'])}",
        "" if status == "done" else f"**{status.upper()}**: " + "; ".join(map(plain, report["missed"])),
        _summary(report),
        _bounds(report["bounds"]),
        _listed("Warnings", [*report["warnings"], *report["measurements"]["warnings"]]),
        "### Steps\n\n" + _steps(report["steps"]),
        items("Not done", [line for step in report["steps"] for line in _skipped(step)]),
        _listed("Notes", [*_notes(report["steps"]), *_loops(report["loops"]), *code_lines(report)]),
        _listed("Kernels", [*report["lowering"], *fusion_lines(report["checks"].get("quantization", {}))]),
        _again(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# -- text --------------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text that means nothing to Markdown inside of a line: no markup, links, mentions and references."""
    escaped = re.sub(r"([\\`*_\[\]<>~&])", r"\\\1", " ".join(text.split()))
    escaped = re.sub(r"\b(?:(www)(\.)|(https?|ftp)(:)(?=//))", r"\1\3\\\2\4", escaped, flags=re.IGNORECASE)
    return re.sub(r"([@#])(?=\w)", "\\1\u200b", escaped)  # no space is seen, and nobody is called


def code(text: str) -> str:
    """Text as code, on one line, whatever it holds."""
    inner = " ".join(text.split())
    ticks = _ticks(inner)
    pad = " " if inner.startswith("`") or inner.endswith("`") or not inner else ""
    return f"{ticks}{pad}{inner}{pad}{ticks}"


def _ticks(text: str, least: int = 1) -> str:
    """A fence that the text does not hold."""
    return "`" * max(least, *(len(run) + 1 for run in re.findall("`+", text)), 0)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A table whose first `left` columns are text, the others numbers."""
    lines = (head, ["-"] * left + ["-:"] * (len(head) - left), *rows)
    return "\n".join(f"| {' | '.join(map(_cell, cells))} |" for cells in lines)


def _cell(text: str) -> str:
    """A pipe ends a cell, in code as well; one behind a backslash cannot be escaped, and is moved away from it."""
    return text.replace("\\|", "\\\u200b|").replace("|", "\\|")


def items(title: str, lines: Sequence[str]) -> str:
    """A list under a title; the rest of a long one is in report.json."""
    if not lines:
        return ""
    rest = len(lines) - _SHOWN_LINES
    shown = [f"* {_started(line)}" for line in lines[:_SHOWN_LINES]] + [f"* {rest} more in the .json report"] * (
        rest > 0
    )
    return "\n".join([f"### {title}", "", *shown])


def _started(line: str) -> str:
    """A line that does not start with what makes a heading, a rule or another list."""
    return re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", line)


def _listed(title: str, lines: Iterable[str]) -> str:
    return items(title, [plain(line) for line in lines])


# -- parts -------------------------------------------------------------------------------------------------------------


def _summary(report: Mapping[str, Any]) -> str:
    sizes, checks, steps = report["size"], report["checks"], report["steps"]
    rows = [("size", size(sizes["source"]), size(sizes["artifact"]), f"{sizes['ratio']:.3f}x")]
    measured = report["measurements"]
    latency = measured["latency"]
    if latency is not None:
        times = milliseconds(latency["source_ms"]), milliseconds(latency["artifact_ms"])
        interval = f"{latency['speedup']:.2f}x [{latency['low']:.2f}, {latency['high']:.2f}], {latency['verdict']}"
        rows.append(("latency", *times, interval))
    if "latency_p95" in measured:
        slow = measured["latency_p95"]
        rows.append(("latency, slow runs", milliseconds(slow["source_ms"]), milliseconds(slow["artifact_ms"]), "p95"))
    if "memory" in measured:
        used = measured["memory"]
        ratio = _ratio(used["source"], used["artifact"])
        rows.append(("memory of a process", size(used["source"]), size(used["artifact"]), ratio))
    if steps:
        before, after = steps[0]["before"], steps[-1]["after"]
        rows += [
            (name, plain(count(before[key])), plain(count(after[key])), _ratio(before[key], after[key]))
            for name, key in (("parameters", "params"), ("MACs", "macs"))
        ]
    if checks.get("accuracy"):
        known = checks["accuracy"]
        moved = 100 * (known["artifact"] - known["source"])
        rows.append(("accuracy", f"{known['source']:.2%}", f"{known['artifact']:.2%}", f"{moved:+.2f} pp"))
    for name, found in checks.get("metrics", {}).items():
        rows.append((code(name), f"{found['source']:.4g}", f"{found['artifact']:.4g}", ""))
    if checks.get("cosine") is not None:
        same_class = "" if checks["top1"] is None else f"; same best class on {checks['top1']:.0%}"
        rows.append(("agreement", "", "", f"cosine {checks['cosine']:.6f}{same_class}"))
    return table(("", "source", "artifact", "change"), rows) + f"\n\nJudged on {_judged(report)}."


def milliseconds(number: float) -> str:
    return f"{number:.3g} ms" if number < 100 else f"{number:.0f} ms"


def _judged(report: Mapping[str, Any]) -> str:
    binding = ", ".join(f"{name}={n}" for name, n in report["checks"]["binding"].items())
    latency = report["measurements"]["latency"]
    timed = "" if latency is None else f"; CPU time, {latency['threads']} thread(s)"
    return plain(report["checks"]["judged_on"]) + (f", {code(binding)}" if binding else "") + timed


def _ratio(before: int | str, after: int | str) -> str:
    if isinstance(before, str) or isinstance(after, str) or not before:
        return ""
    return f"{after / before:.3f}x"


def _bounds(bounds: Sequence[Mapping[str, Any]]) -> str:
    rows = [(code(b["bound"]), plain(b["found"]), "holds" if b["holds"] else "**MISSED**") for b in bounds]
    return table(("bound", "found", ""), rows, left=3) if rows else ""


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            code(step["text"]),
            str(len(step["done"])),
            str(len(step["skipped"])),
            change(step["before"]["nodes"], step["after"]["nodes"]),
            change(size(step["before"]["bytes"]), size(step["after"]["bytes"])),
            drift_words(step["drift"]),
        )
        for step in steps
    ]
    return table(("step", "changed", "skipped", "nodes", "weights", "drift"), rows)


def _skipped(step: Mapping[str, Any]) -> list[str]:
    """One line for each reason, the most frequent first."""
    lines = []
    for group in skip_groups(step):
        sites = ", ".join(code(_short(site)) for site in group.sites[:_SHOWN_SITES])
        rest = len(group.sites) - _SHOWN_SITES
        more = f" and {rest} more" if rest > 0 else ""
        advice = f" ({plain(group.what_to_do)})" if group.what_to_do else ""
        lines.append(f"{code(step['name'])}, {group.code}: {plain(group.why)}{advice}: {sites}{more}")
    return lines


def _short(site: str) -> str:
    return site if len(site) <= _LONGEST_SITE else f"{site[:_LONGEST_SITE]}..."


def _notes(steps: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    return (f"{step['name']}: {note}" for step in steps for note in step["notes"])


def _loops(loops: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    return (f"loop '{loop['loop']}': {rounds(loop['kept'])}; {loop['ended']}" for loop in loops)


# -- how to make it again ----------------------------------------------------------------------------------------------


def _again(report: Mapping[str, Any]) -> str:
    source, artifact, costs = report["source"], report["artifact"], report["costs"]
    environment = report["measurements"]["environment"]
    versions = [f"mlc {report['mlc']}", *(f"{name} {environment[name]}" for name in _VERSIONS if name in environment)]
    facts = [
        f"source: sha256 `{source['sha256']}`" if "sha256" in source else "source: a module from Python",
        f"artifact: sha256 `{artifact['sha256']}`, opset {artifact['opset']}, "
        + f"ONNX Runtime >= {plain(artifact['least_onnxruntime'] or 'none yet')}",
        f"target: {code(report['target'])}, seed {report['seed']}",
        *(f"{kind} data: {_samples(used)}" for kind, used in report["data"].items() if used is not None),
        *([f"costs: {costs['costs']}, digest {code(costs['digest'])}"] if costs is not None else []),
        f"versions: {plain(', '.join(versions))}",
        f"machine: {plain(environment['cpu'])} ({plain(' '.join(environment['isa']) or 'no vector sets known')})",
    ]
    line = command(report)
    fence = _ticks(line or "", least=3)
    shown = f"{fence}sh\n{line}\n{fence}" if line else "Model or data came from Python: no command line makes it."
    return f"### Make it again\n\n{shown}\n\n" + "\n".join(f"* {fact}" for fact in facts)


def _samples(used: Mapping[str, Any]) -> str:
    return f"{used['samples']} samples of {code(used['source'])}, sha256 `{used['sha256']}`"


def command(report: Mapping[str, Any]) -> str | None:
    """The command line that a compilation stands for, without its output; None if it was fed with objects of Python."""
    source, options = report["source"], report["options"]
    if "sha256" not in source or any(str(options.get(name, "")).startswith(_OBJECTS) for name in ("data", "eval")):
        return None
    words = ["mlc", "compile", source["path"], "-r", " ".join(report["recipe"].split())]
    for name, value in options.items():
        words += _words(name, value)
    return " ".join(shlex.quote(word) for word in words)


def _words(name: str, value: Any) -> list[str]:
    """An option as words of a command line."""
    flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
    if value is True:
        return [flag]
    if name == "metrics":
        return [word for metric, function in value.items() for word in (flag, f"{metric}={function}")]
    if isinstance(value, Mapping):
        return [flag, ",".join(f"{key}={n}" for key, n in value.items())]
    return [flag, f"{value}B" if name == "max_memory" else str(value)]
