"""The findings of `mlc doctor` on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .report import size

if TYPE_CHECKING:
    from rich.console import Console


#: Where the costs that plans go by come from.
_ORIGINS = {
    "measured": "measured on this machine",
    "assumed": "assumed: the table that comes with mlc, of another machine",
    "given": "of the file that the target names",
    None: "the table of this machine cannot be read",
}


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print what there is, what is missing and what is faster here; problems last, where they are seen."""
    from rich.text import Text

    for name, text in _facts(found):
        console.print(Text.assemble((f"{name:<10} ", "bold"), text))
    _extras(found, console)
    _speeds(found, console)
    for problem in found["problems"]:
        console.print(Text(f"problem: {problem['what']}", style="yellow"))
        console.print(Text(f"    fix: {problem['fix']}"))
    if not found["problems"]:
        console.print(Text("no problems", style="green"))


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine, target, memory = found["machine"], found["target"], found["machine"]["memory"]
    packages = ", ".join(f"{p['name']} {p['version'] or 'missing'}" for p in found["packages"])
    free = size(memory["available"]) if memory["available"] is not None else "unknown"
    disks = ", ".join(f"{size(disk['free'])} {name} ({disk['path']})" for name, disk in machine["disks"].items())
    assumed = "detected" if target["isa"] == target["detected_isa"] else f"the machine has {target['detected_isa']}"
    return [
        ("mlc", f"{found['mlc']['version']} in {found['mlc']['path']}"),
        ("python", f"{found['python']['version']} ({found['python']['executable']})"),
        ("system", found["system"]),
        ("packages", packages or "unknown"),
        ("cpu", f"{machine['cpu']}; {machine['usable_cores']} of {machine['cores']} processors"),
        ("features", " ".join(machine["isa"]) or "none that kernels are known to use"),
        ("memory", f"{free} of {size(memory['total'])} available"),
        ("disk", f"free: {disks}"),
        ("runtime", _runtime(found["runtime"])),
        ("target", f"{target['text']}: {target['isa']} ({assumed}), weights in {target['weight_bits']} bits"),
        ("costs", _costs(found)),
    ]


def _runtime(runtime: Mapping[str, Any] | None) -> str:
    return "none" if runtime is None else f"ONNX Runtime {runtime['version']} ({', '.join(runtime['providers'])})"


def _costs(found: Mapping[str, Any]) -> str:
    """Which cost table plans go by here, and which others there are."""
    here = [table for table in found["calibrations"] if table["here"]]
    others = len(found["calibrations"]) - len(here)
    origin = found["target"]["costs"]
    parts = [_ORIGINS[origin], *(f"mlc calibrate wrote {t['path']}" for t in here)]
    return "; ".join([*parts, f"{others} table(s) of other machines or versions"] if others else parts)


def _extras(found: Mapping[str, Any], console: Console) -> None:
    from rich.table import Table

    view = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("extra", "", "packages"):
        view.add_column(name)
    for extra in found["extras"]:
        packages = ", ".join(f"{p['name']} {p['version'] or 'missing'}" for p in extra["packages"])
        view.add_row(extra["name"], "installed" if extra["installed"] else extra["install"], packages)
    if found["extras"]:
        console.print(view)


def _speeds(found: Mapping[str, Any], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    view = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("timed just now", "kernel", "sizes", "floats", "this form", "", ""):
        view.add_column(name, justify="right" if name in ("floats", "this form", "") else "left")
    for form in found["acceleration"]:
        times = f"{form['float_us']:.0f} us", f"{form['us']:.0f} us", f"{form['speedup']:.2f}x", form["verdict"]
        view.add_row(Text(form["what"]), form["kernel"], Text(form["sizes"]), *times)
    if found["acceleration"]:
        console.print(view)
        console.print(
            Text("one size of each, to see what this machine can do; plans go by the costs above, not by these times")
        )
    if found["exact_products"] is not None:
        told = "exact" if found["exact_products"] else "saturate: weights want 7 bits"
        console.print(Text(f"products of the largest 8-bit codes: {told}"))
