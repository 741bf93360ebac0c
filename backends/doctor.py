"""`mlc doctor`: what there is, what is missing, and what the runtime really makes faster on this machine.

Everything is looked up or measured; nothing is assumed. What is wrong becomes an entry of `problems` with its fix: a
doctor does not fall ill.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..ir.errors import MlcError
from .costs import cache_path, read
from .environment import Extra, disks, extras, memory, usable_cores
from .machine import cache_folder, cpu_name, detect_isa, kernel_flags
from .targets import OrtTarget, parse_target

FORMAT = 1
_LITTLE_DISK = 2 << 30
_LITTLE_MEMORY = 1 << 30


def examine(target: str = "ort(cpu)", *, version: str) -> dict[str, Any]:
    """The findings as plain data (`format` 1). Errors: BAD_TARGET for text that is no target."""
    asked = parse_target(target)
    wanted = extras()
    found = {
        "format": FORMAT,
        "mlc": {"version": version, "path": str(Path(__file__).resolve().parents[1])},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": [package.to_json() for extra in wanted if not extra.name for package in extra.packages],
        "extras": [extra.to_json() for extra in wanted if extra.name],
        "machine": {
            "cpu": cpu_name(),
            "isa": kernel_flags(),
            "cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "memory": memory(),
            "disks": disks(),
        },
        "target": _target(asked),
        "calibrations": list(_calibrations(asked)),
        **_measured(asked.threads),
    }
    problems = (*_problems(found, wanted), *_cost_problems(found, asked))
    return {**found, "problems": [{"what": what, "fix": fix} for what, fix in problems]}


def _target(target: OrtTarget) -> dict[str, Any]:
    """What plans for a target go by."""
    return {
        "text": str(target),
        "isa": target.known_isa,
        "detected_isa": detect_isa(),
        "weight_bits": target.weight_bits,
        "threads": target.threads,
        "costs": _origin(target),
    }


def _origin(target: OrtTarget) -> str | None:
    """Where the costs that plans go by come from; None if the table of this machine is broken, which is told apart."""
    try:
        return target.costs.origin
    except MlcError:
        if target.costs_from != "auto":
            raise
        return None


def _calibrations(target: OrtTarget) -> Iterator[dict[str, Any]]:
    """The cost tables in the cache folder: for which machine each was measured, and whether it is this one."""
    here = cache_path(target.threads)
    for path in sorted(cache_folder().glob("costs-*.json")):
        try:
            table = read(path, "measured")
        except MlcError as broken:
            yield {"path": str(path), "here": path == here, "broken": broken.diagnostics[0].message}
        else:
            about = dict(table.environment)
            yield {"path": str(path), "here": path == here, "digest": table.digest, "environment": about}


def _measured(threads: int) -> dict[str, Any]:
    """What the runtime is and makes faster; where it cannot even be loaded, or lacks a kernel, that is the finding."""
    found: dict[str, Any] = {"runtime": None, "acceleration": [], "exact_products": None, "refused": None}
    try:
        import onnxruntime

        from .accelerated import accelerations, exact_products

        found["runtime"] = {"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}
        found["acceleration"] = [form.to_json() for form in accelerations(threads)]
        found["exact_products"] = exact_products(threads)
    except ImportError as missing:
        found["refused"] = f"ONNX Runtime cannot be loaded: {missing}"
    except MlcError as refused:
        found["refused"] = refused.diagnostics[0].message
    return found


def _problems(found: Mapping[str, Any], wanted: Sequence[Extra]) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) of everything that stands in the way."""
    if not wanted:
        yield "mlc runs from a folder that is not installed: versions of its packages are unknown", "pip install -e ."
    for package in found["packages"]:
        if not package["fits"]:
            there = f"is {package['version']}" if package["version"] else "is missing"
            yield f"{package['name']} {there}, {package['wanted']} is needed", wanted[0].install
    if found["refused"] is not None:
        yield found["refused"], "pip install -U onnxruntime"
    yield from _machine_problems(found)


def _cost_problems(found: Mapping[str, Any], target: OrtTarget) -> Iterator[tuple[str, str]]:
    """Whether plans go by costs of this machine; a target that asks for others gets them."""
    for table in found["calibrations"]:
        if "broken" in table:
            yield table["broken"], f"remove {table['path']}, then mlc calibrate"
    here = target.costs_from == "auto" and target.known_isa == detect_isa()
    if here and found["target"]["costs"] == "assumed":
        asked = f' --to "{target}"' if str(target) != "ort(cpu)" else ""
        yield (
            f"mlc calibrate has not run on this machine with this ONNX Runtime and {target.threads} thread(s): plans "
            "go by the costs of another machine",
            f"mlc calibrate{asked}",
        )


def _machine_problems(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    target, machine = found["target"], found["machine"]
    if found["exact_products"] is False and target["weight_bits"] == 8:
        yield (
            "products of 8-bit codes saturate here, and weights use all 8 bits",
            'compile with --to "ort(cpu, isa=avx2)"',
        )
    if target["isa"] != target["detected_isa"]:
        yield (
            f"the target assumes {target['isa']}, this machine has {target['detected_isa']}",
            "measure and compare on the machine that the artifact is for",
        )
    available = machine["memory"]["available"]
    if available is not None and available < _LITTLE_MEMORY:
        yield "less than 1 GiB of memory is available", "close programs, or lower --max-memory"
    for name, disk in machine["disks"].items():
        if disk["free"] < _LITTLE_DISK:
            yield f"less than 2 GiB of disk are free for {name} ({disk['path']})", "make room, or set TMPDIR"
