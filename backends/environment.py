"""What is installed and what this machine has: packages and extras against what mlc asks for, memory and disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from .machine import cache_folder

DISTRIBUTION = "mlc-compress"
_MEMORY_INFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Package:
    """A package that mlc asks for: the versions it takes, and the one that is installed."""

    name: str
    wanted: str
    version: str | None

    @property
    def fits(self) -> bool:
        wanted = Requirement(f"{self.name}{self.wanted}").specifier
        return self.version is not None and wanted.contains(self.version, prereleases=True)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "fits": self.fits}


@dataclass(frozen=True)
class Extra:
    """Optional packages that are installed together; no name: those that mlc always needs."""

    name: str
    packages: tuple[Package, ...]

    @property
    def installed(self) -> bool:
        return all(package.fits for package in self.packages)

    @property
    def install(self) -> str:
        return f"pip install '{DISTRIBUTION}[{self.name}]'" if self.name else f"pip install {DISTRIBUTION}"

    def to_json(self) -> dict[str, Any]:
        packages = [package.to_json() for package in self.packages]
        return {"name": self.name, "installed": self.installed, "install": self.install, "packages": packages}


def extras(distribution: str = DISTRIBUTION) -> list[Extra]:
    """What an installed distribution asks for: first what it always needs, then its extras. Empty if it is not
    installed as one."""
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return []
    needed = [Requirement(text) for text in found.requires or ()]
    names = ["", *(found.metadata.get_all("Provides-Extra") or ())]
    return [Extra(name, tuple(_packages(needed, name))) for name in names]


def _packages(needed: list[Requirement], extra: str) -> Iterator[Package]:
    """Those that belong to an extra, and to nothing else."""
    for one in needed:
        always, asked = (one.marker is None or one.marker.evaluate({"extra": name}) for name in ("", extra))
        if asked and (not extra or not always):
            yield Package(one.name, str(one.specifier), version_of(one.name))


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def memory() -> dict[str, int | None]:
    """Bytes of memory in all, and of what is available now (None where the system does not tell)."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = (line.partition(":") for line in _MEMORY_INFO.read_text().splitlines())
        free = {name: int(rest.split()[0]) << 10 for name, _, rest in lines if rest.strip()}
    except (OSError, ValueError):
        free = {}
    return {"total": total, "available": free.get("MemAvailable")}


def disks() -> dict[str, dict[str, Any]]:
    """Free bytes of where artifacts, work in progress and measured costs go."""
    places = {"here": Path.cwd(), "temporary files": Path(tempfile.gettempdir()), "cache": cache_folder()}
    return {name: {"path": str(path), "free": shutil.disk_usage(_existing(path)).free} for name, path in places.items()}


def _existing(path: Path) -> Path:
    """A folder, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def usable_cores() -> int:
    """Processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
