"""What the source tree looks like, read from the files alone: modules, their imports, and the floors of the house."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A unit may import units of lower floors only: neighbours on one floor do not know each other.
FLOORS = {
    "__init__": 9,
    "__main__": 9,
    "cli": 8,
    "cli_data": 7,
    "cli_files": 7,
    "cli_options": 6,
    "commands": 5,
    "compiler": 4,
    "dsl": 3,
    "passes": 2,
    "backends": 2,
    "frontends": 2,
    "ir": 1,
}
OUTSIDE = ("tests", "examples", "benchmarks", "docs")


def packages() -> list[str]:
    """The packages that pyproject.toml lists."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        return list(tomllib.load(stream)["tool"]["setuptools"]["packages"])


def folder(package: str) -> Path:
    return ROOT.joinpath(*package.split(".")[1:])


def modules() -> dict[str, Path]:
    """Every module that ships: its dotted name, and its file."""
    found = {}
    for package in packages():
        for file in sorted(folder(package).glob("*.py")):
            found[package if file.stem == "__init__" else f"{package}.{file.stem}"] = file
    return found


def sources() -> list[Path]:
    """Every Python file of the repository."""
    return [*modules().values(), *(file for name in OUTSIDE for file in sorted((ROOT / name).rglob("*.py")))]


def imports(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Line, level and absolute target of every import, those inside functions included.

    `package` is the dotted name of the package that holds the source, in parts. A name that is imported from a
    package may be a module: `from .. import ir` yields mlc.ir, `from ..ir import core` yields mlc.ir.core.
    """
    for node in ast.walk(ast.parse(source, filename=".".join(package))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, 0, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield node.lineno, node.level, (*stem, alias.name)


def floor_violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Imports of `module` that go up or sideways, or that are not relative."""
    parts = tuple(module.split("."))
    unit = parts[1] if len(parts) > 1 else "__init__"
    if unit not in FLOORS:
        return [f"{module}: {unit} has no floor"]
    wrong = []
    for line, level, target in imports(source, parts if is_package else parts[:-1]):
        if level and target[0] != "mlc":
            wrong.append(f"{module}:{line}: a relative import leaves the package")
        if target[0] != "mlc":
            continue
        if not level:
            wrong.append(f"{module}:{line}: imports inside the package are relative")
        if target[1:] == ("__version__",):
            continue  # set before anything else in the face: every floor may name it
        # `from . import x` in the root, where x is no unit, is a name of the face itself.
        other = target[1] if len(target) > 1 and target[1] in FLOORS else "__init__"
        if other != unit and FLOORS[other] >= FLOORS[unit]:
            wrong.append(f"{module}:{line}: {unit} (floor {FLOORS[unit]}) imports {other} (floor {FLOORS[other]})")
    return wrong


def bare_imports(source: str) -> list[int]:
    """Lines that import a unit of mlc without its package, which would load a second copy."""
    return [line for line, level, target in imports(source, ()) if not level and target[0] in FLOORS]


def import_time_imports(source: str) -> list[int]:
    """Lines of imports that run when the module is imported, relative ones only."""
    body = ast.parse(source).body
    return [node.lineno for node in body if isinstance(node, ast.ImportFrom) and node.level]
