"""What this machine is: its CPU, the instruction sets that matter to kernels, and where users keep caches."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Isa = Literal["auto", "vnni", "avx2", "neon", "portable"]

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "sve2")
_CPU_INFO = Path("/proc/cpuinfo")


def cpu_flags(cpuinfo: Path = _CPU_INFO) -> frozenset[str]:
    """The instruction-set flags of this CPU; empty where the system does not list them."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def kernel_flags() -> list[str]:
    """Those of the CPU's flags that decide which kernels run."""
    flags = cpu_flags()
    return [f for f in _FLAGS if f in flags]


def detect_isa(flags: frozenset[str] | None = None) -> Isa:
    """The fastest instruction set for 8-bit dot products that this machine has."""
    known = cpu_flags() if flags is None else flags
    if known & {"avx512_vnni", "avx_vnni"}:
        return "vnni"
    if "avx2" in known:
        return "avx2"
    if "asimd" in known or (flags is None and platform.machine() in ("aarch64", "arm64")):
        return "neon"
    return "portable"


def cpu_name() -> str:
    found = {}
    if _CPU_INFO.exists():
        lines = (line.partition(":") for line in _CPU_INFO.read_text().splitlines())
        found = {key.strip(): value.strip() for key, _, value in lines}
    family = f"family {found['cpu family']} model {found['model']}" if "cpu family" in found else ""
    return f"{found.get('model name') or platform.processor() or 'unknown'} {family}".strip()


def cache_folder(system: str = sys.platform, variables: Mapping[str, str] = os.environ) -> Path:
    """Where this platform's programs keep what can be made again."""
    home = Path.home()
    if system == "darwin":
        return home / "Library" / "Caches" / "mlc"
    if system == "win32":
        return Path(variables.get("LOCALAPPDATA") or home / "AppData" / "Local") / "mlc" / "Cache"
    return Path(variables.get("XDG_CACHE_HOME") or home / ".cache") / "mlc"
