"""The report of a compilation: one JSON document, and its view on a terminal (report_markdown.py has the other).

`format` is the version of the layout; readers refuse a newer major. Everything but `measurements` is the same for
the same inputs, seed, threads and machine type.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

FORMAT = 1
SCHEMA = "report.schema.json"  # beside this file: what a report holds, JSON Schema 2020-12
_SHOWN_SKIPS = 6
_LOG_WIDTH = 160
_LONGEST_EXPRESSION = 20
_LONGEST_SITE = 60
_DIGITS = 12  # of a hash: enough to tell files apart
_ROUNDING = 1e-9  # a drift below this is float rounding

#: Parts of checks.quantization (backends/fusion.py) and what they mean.
FUSION = {
    "widened": "weights in codes are widened on every run",
    "rounded": "values are rounded to codes that nothing computes with",
    "float_islands": "groups of operators compute in floats between codes",
}

Report = dict[str, Any]


def to_json(report: Mapping[str, Any]) -> str:
    """Canonical JSON text: keys in the order in which the compiler wrote them, two spaces, a final newline."""
    document = _finite({"format": FORMAT, **report})
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(data: Any) -> Any:
    """JSON has no infinity (the SQNR of equal outputs, the excess over a bound that was not measured): null."""
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def size(count: float) -> str:
    """Bytes for people: `10.9 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def count(number: float | str | None) -> str:
    """A count for people: `4.1 G`; symbolic counts as they are."""
    if number is None or isinstance(number, str):
        return number if number and len(number) <= _LONGEST_EXPRESSION else "symbolic" if number else "-"
    for unit in ("", " k", " M", " G", " T"):
        if abs(number) < 1000 or unit == " T":
            return f"{number:.0f}{unit}" if unit == "" else f"{number:.1f}{unit}"
        number /= 1000
    raise AssertionError("unreachable")


def terminal() -> Console:
    """Where reports are printed: as wide as the terminal, or wide enough for tables in a log. `[x]` is only text."""
    from rich.console import Console

    return Console(width=shutil.get_terminal_size((_LOG_WIDTH, 0)).columns, highlight=False, markup=False)


def change(before: object, after: object) -> str:
    """`before -> after`, or one value if nothing changed."""
    return str(after) if before == after else f"{before} -> {after}"


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print the report: steps, what was not done and why, and the totals."""
    from rich.text import Text

    source, artifact = report["source"], report["artifact"]
    written = f" -> {Path(artifact['path']).name}" if artifact["path"] is not None else ""
    console.print(Text.assemble(("mlc ", "bold"), f"{Path(source['path']).name} + {report['recipe']}{written}"))
    console.print(_steps(report["steps"]))
    for line in _not_done(report["steps"]):
        console.print(Text(line))
    for loop in report["loops"]:
        console.print(Text(f"loop '{loop['loop']}': {rounds(loop['kept'])}; {loop['ended']}"))
    for line in code_lines(report):
        console.print(Text(line))
    for line in report["lowering"]:
        console.print(Text(f"lowered: {line}"))
    for line in fusion_lines(report["checks"].get("quantization", {})):
        console.print(Text(f"in the runtime: {line}"))
    console.print(_totals(report))
    if report["status"] != "done" and report["trials"]:
        console.print(_tried(report["trials"]))
    for warning in (*report["warnings"], *report["measurements"]["warnings"]):
        console.print(Text(f"warning: {warning}", style="yellow"))
    if report["status"] != "done":
        console.print(Text(f"status: {report['status']}", style="bold red"))


def _steps(steps: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "changed", "skipped", "nodes", "params", "weights", "MACs", "drift"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for step in steps:
        before, after = step["before"], step["after"]
        table.add_row(
            step["text"],
            str(len(step["done"])),
            str(len(step["skipped"])),
            change(before["nodes"], after["nodes"]),
            change(count(before["params"]), count(after["params"])),
            change(size(before["bytes"]), size(after["bytes"])),
            change(count(before["macs"]), count(after["macs"])),
            drift_words(step["drift"]),
        )
    return table


def _not_done(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Skipped sites grouped by step and reason, the most frequent first."""
    lines = []
    for number, step in enumerate(steps, start=1):
        lines += [f"not done by {step['name']}: {line}" for line in skip_lines(step, "listed in the report file")]
        lines += [f"step {number}, {step['name']}: {note}" for note in step["notes"]]
    return lines


def skip_lines(step: Mapping[str, Any], where: str) -> list[str]:
    """What a step left alone, a line for every reason; `where` the rest can be read."""
    lines, groups = [], skip_groups(step)
    for group in groups[:_SHOWN_SKIPS]:
        site = group.sites[0]
        first = site if len(site) <= _LONGEST_SITE else f"{site[:_LONGEST_SITE]}..."
        example = first if len(group.sites) == 1 else f"{len(group.sites)} sites, e.g. {first}"
        advice = f" ({group.what_to_do})" if group.what_to_do else ""
        lines.append(f"{example}: {group.code}: {group.why}{advice}")
    rest = sum(len(group.sites) for group in groups[_SHOWN_SKIPS:])
    return [*lines, f"{rest} more sites, {where}"] if rest else lines


@dataclass(frozen=True)
class SkipGroup:
    """Sites that a step left alone for one reason."""

    code: str
    why: str
    what_to_do: str
    sites: tuple[str, ...]


def skip_groups(step: Mapping[str, Any]) -> list[SkipGroup]:
    """What a step left alone, by reason, the most frequent first."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for skip in step["skipped"]:
        groups.setdefault((skip["code"], skip["why"], skip["what_to_do"]), []).append(skip["site"])
    return [SkipGroup(*reason, tuple(sites)) for reason, sites in sorted(groups.items(), key=lambda g: -len(g[1]))]


def drift_words(drift: float | None) -> str:
    """The drift of a step for people."""
    return "-" if drift is None else "rounding" if abs(drift) < _ROUNDING else f"{drift:.2g}"


def _tried(trials: Sequence[Mapping[str, Any]]) -> RenderableType:
    """What was tried before a bound was given up: strengths and what was measured there."""
    from rich.table import Table

    bounds = list(dict.fromkeys(b["bound"] for trial in trials for b in trial["bounds"]))
    table = Table(box=None, pad_edge=False, header_style="bold", title="tried", title_justify="left")
    table.add_column("strength", justify="right")
    table.add_column("steps")
    for bound in bounds or ("drift",):
        table.add_column(bound, justify="right")
    for trial in trials:
        found = {b["bound"]: f"{b['found']}{'' if b['holds'] else ' *'}" for b in trial["bounds"]}
        cells = [found.get(bound, "-") for bound in bounds] or [f"{trial['measured']:.2g}"]
        damage = " of the damage" if trial["moved"] == "damage" else ""
        table.add_row(f"{trial['strength']:.3f}{damage}", trial["steps"], *cells)
    table.caption, table.caption_justify = "* missed", "left"
    return table


def code_lines(report: Mapping[str, Any]) -> list[str]:
    """The user's code that was run."""
    return [
        f"runs code of {told['path']}" + (f" (sha256 {told['sha256'][:_DIGITS]})" if told["sha256"] else "")
        for told in report.get("code", ())
    ]


def rounds(number: int) -> str:
    """So many rounds of a loop."""
    return f"{number or 'no'} round{'' if number == 1 else 's'}"


def fusion_lines(quantization: Mapping[str, Any]) -> list[str]:
    """What the runtime did not compute from codes, the costly first."""
    lines = []
    for key, what in FUSION.items():
        found = quantization.get(key, {"count": 0})
        if found["count"]:
            lines.append(f"{found['count']} {what}, e.g. {found['first'][0]}")
    return lines


def _speed(latency: Mapping[str, Any], binding: Mapping[str, int]) -> str:
    """The ratio with its interval, what it means, and for which sizes it was measured."""
    sizes = "".join(f", {name}={n}" for name, n in binding.items())
    return (
        f"{latency['speedup']:.2f}x [{latency['low']:.2f}, {latency['high']:.2f}], {latency['verdict']} "
        f"({latency['source_ms']:.2f} -> {latency['artifact_ms']:.2f} ms of CPU, {latency['threads']} thread(s){sizes})"
    )


def _totals(report: Mapping[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    sizes = report["size"]
    table.add_row(
        "size", f"{change(size(sizes['source']), size(sizes['artifact']))} ({sizes['ratio']:.3f}x of the source)"
    )
    checks = report["checks"]
    latency = report["measurements"].get("latency")
    if latency:
        table.add_row("speed", _speed(latency, checks["binding"]))
    if checks.get("cosine") is not None:
        same_class = "" if checks["top1"] is None else f", same best class on {checks['top1']:.0%}"
        table.add_row("agreement", f"cosine {checks['cosine']:.6f}{same_class}, judged on {checks['judged_on']}")
    if checks.get("accuracy"):
        table.add_row("accuracy", change(*(f"{checks['accuracy'][k]:.2%}" for k in ("source", "artifact"))))
    for bound in report["bounds"]:
        table.add_row("bound", f"{bound['bound']}: {bound['found']}, {'holds' if bound['holds'] else 'MISSED'}")
    for name, value in checks.items():
        if name == "loads" and value is not None:
            table.add_row(name, "yes" if value else "no")
    for kind, found in checks["changed_operators"].items():
        table.add_row("checked alone", f"{kind}: {found}")
    table.add_row("runs on", f"{report['target']}; needs ONNX Runtime >= {report['artifact']['least_onnxruntime']}")
    return table
