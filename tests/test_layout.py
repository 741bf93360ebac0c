"""The house: floors, file sizes, names, one copy of every module, a wheel that works, and a light import."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest
from kit.layout import (
    FLOORS,
    OUTSIDE,
    ROOT,
    bare_imports,
    floor_violations,
    folder,
    import_time_imports,
    modules,
    packages,
    sources,
)

LINES = 500
BANNED_NAMES = {"utils.py", "helpers.py", "common.py"}
HEAVY = ("torch", "onnxruntime", "tvm", "onnx", "onnx_ir", "scipy", "networkx", "lark", "rich", "typer")
IMPORT_SECONDS = 0.1


def _python(*arguments: str, executable: Path | str = sys.executable) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, away from the repository, so that nothing is importable by accident."""
    done = subprocess.run([str(executable), "-P", *arguments], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done


def test_floors():
    wrong = []
    for module, file in modules().items():
        wrong += floor_violations(file.read_text(), module, is_package=file.stem == "__init__")
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mlc.passes.base", "from ..backends.ort import run"),
        ("mlc.passes.base", "def f():\n    from ..frontends import data"),
        ("mlc.passes.prune.magnitude", "from ...dsl import parser"),
        ("mlc.ir.core", "from .. import passes"),
        ("mlc.ir.core", "from .. import load"),
        ("mlc.ir.ops.conv", "from ...compiler import compile"),
        ("mlc.ir.core", "import mlc.ir.types"),
        ("mlc.ir.core", "if TYPE_CHECKING:\n    from mlc.dsl import parser"),
        ("mlc.ir.core", "from ...other import thing"),
        ("mlc.dsl.parser", "from ..cli import main"),
        ("mlc.compiler", "from .cli import main"),
        ("mlc.stray", "x = 1"),
    ],
)
def test_the_floor_check_sees(module: str, source: str):
    assert floor_violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mlc.passes.prune.magnitude", "from ..base import Pass\nfrom ...ir.core import Graph"),
        ("mlc.dsl.check", "from ..passes import registry"),
        ("mlc.cli", "from .compiler import compile"),
        ("mlc.cli", "import onnx"),
        ("mlc.compiler", "from . import __version__"),
    ],
)
def test_the_floor_check_allows(module: str, source: str):
    assert floor_violations(source, module) == []


def test_the_face_imports_nothing_of_ours_at_once():
    assert import_time_imports((ROOT / "__init__.py").read_text()) == []


def test_no_bare_imports():
    wrong = [f"{f.relative_to(ROOT)}:{line}" for f in sources() for line in bare_imports(f.read_text())]
    assert wrong == []
    assert bare_imports("import ir\nfrom passes.base import Pass\ndef f():\n    import dsl.parser") == [1, 2, 4]


def test_no_file_is_longer_than_the_ceiling():
    lengths = {f.relative_to(ROOT): f.read_bytes().count(b"\n") for f in sources()}
    assert {str(file): n for file, n in lengths.items() if n > LINES} == {}


def test_no_file_has_a_name_that_says_nothing():
    assert [str(f.relative_to(ROOT)) for f in sources() if f.name in BANNED_NAMES] == []


def test_the_listed_packages_are_those_on_disk():
    """A folder that is not listed is missing in the wheel only, where nobody looks."""
    tops = [f for f in ROOT.iterdir() if f.is_dir() and f.name not in OUTSIDE and f.name in FLOORS]
    on_disk = {f.parent for top in tops for f in top.rglob("*.py")} | {ROOT}
    assert {folder(package) for package in packages()} == on_disk
    assert [str(f) for f in on_disk if not (f / "__init__.py").is_file()] == []
    strangers = [f.parent.name for f in ROOT.glob("*/__init__.py") if f.parent.name not in FLOORS]
    assert strangers == []


def test_no_file_is_loaded_under_two_names():
    code = f"""
import collections, importlib, os, sys
for name in {[*modules()]!r}:
    importlib.import_module(name)
names = collections.defaultdict(set)
for name, module in list(sys.modules.items()):
    file = getattr(module, "__file__", None)
    path = os.path.realpath(file) if file else ""
    if path.startswith({str(ROOT)!r} + os.sep) and "{os.sep}.venv{os.sep}" not in path:
        names[os.path.realpath(file)].add(name)
assert len(names) >= {len(modules())}, len(names)
print(*(f"{{file}}: {{sorted(n)}}" for file, n in names.items() if len(n) > 1), sep="\\n", end="")
"""
    assert _python("-c", code).stdout == ""


def test_pytest_itself_loads_no_file_twice():
    """Whatever the session has imported so far, this very run included."""
    names = defaultdict(set)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).resolve().is_relative_to(ROOT) and ".venv" not in Path(file).parts:
            names[os.path.realpath(file)].add(name)
    assert {file: found for file, found in names.items() if len(found) > 1} == {}


def test_import_is_light():
    code = f"import sys, mlc; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert _python("-c", code).stdout.strip() == ""
    times = []
    for _ in range(5):
        report = _python("-X", "importtime", "-c", "import mlc").stderr
        times.append(int(re.search(r"\|\s+(\d+) \| mlc$", report, re.MULTILINE)[1]) / 1e6)
    assert min(times) < IMPORT_SECONDS


def test_doctests():
    failed = []
    for name in modules():
        result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
        failed += [name] * result.failed
    assert failed == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build folder left by an earlier build would put stale modules into the wheel."""
    tree = tmp_path_factory.mktemp("wheel") / "tree"
    tree.mkdir()
    for item in ROOT.iterdir():
        if item.is_file():
            shutil.copy(item, tree)
        elif item.name in FLOORS:
            shutil.copytree(item, tree / item.name, ignore=shutil.ignore_patterns("__pycache__"))
    _python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tree.parent), str(tree))
    (built,) = tree.parent.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path):
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {f"mlc/{f.name}" for f in (*ROOT.glob("*.py"), ROOT / "py.typed")}
    for package in packages():
        if package != "mlc":
            files = (f for f in folder(package).iterdir() if f.is_file())
            wanted |= {f"{package.replace('.', '/')}/{f.name}" for f in files if not f.name.startswith(".")}
    assert shipped == wanted


def test_every_module_imports_from_the_wheel(wheel: Path, tmp_path: Path):
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = next(home.glob("lib/python*/site-packages"))
    # Dependencies come from this environment. A path named in a .pth file is not searched for .pth files itself,
    # so the editable installation of mlc stays invisible.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    _python("-m", "pip", *install)
    code = f"""
import importlib, pathlib, mlc
for name in {[*modules()]!r}:
    module = importlib.import_module(name)
    assert pathlib.Path(module.__file__).is_relative_to({str(site)!r}), module.__file__
print(mlc.__version__)
"""
    assert _python("-c", code, executable=python).stdout.strip()
