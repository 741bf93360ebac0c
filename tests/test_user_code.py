"""User code runs where recipes, data and metrics name it, is told in the report, and --no-user-code refuses it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from click import Command, Group
from kit.two_layers import samples, two_layers

import mlc
from mlc.cli import app, run
from mlc.frontends.user_code import import_module, user_code
from mlc.ir.errors import Code, MlcError

MARK = "from pathlib import Path\n\n(Path(__file__).parent / 'ran').write_text('x')\n"
PASSES = f'''{MARK}
from dataclasses import dataclass
from typing import ClassVar

from mlc.passes.base import EXACT, Effect, Pass, Plan


@dataclass(frozen=True)
class Mark(Pass):
    """Does nothing."""

    name: ClassVar[str] = "mark"
    effect: ClassVar[Effect] = EXACT

    def plan(self, module, ctx):
        return Plan()

    def apply(self, rw, plan, ctx):
        return ()


def one(outputs, labels):
    return 1.0
'''
FEED = f"""{MARK}
import numpy as np

def feed():
    return list(np.load(Path(__file__).parent / "data.npz")["x"])

def named():
    return [{{"x": x}} for x in feed()]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    two_layers(tmp_path)
    samples(tmp_path)
    (tmp_path / "passes.py").write_text(PASSES)
    (tmp_path / "feed.py").write_text(FEED)
    (tmp_path / "steps.mlc").write_text('use "passes.py" as mine\nrecipe r = simplify + mine.mark\n')
    (tmp_path / "bound.mlc").write_text('use "passes.py" as mine\nrecipe r = fp16 where mine.one >= 1\n')
    (tmp_path / "far.mlc").write_text('use "steps.mlc" as far\nrecipe r = far.r\ncompile "net.onnx" with r\n')
    (tmp_path / "data.mlc").write_text(
        'data d = python("feed.py:named")\nrecipe r = int8(data=d)\ncompile "net.onnx" with r\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = [
    "compile net.onnx -r steps.mlc --check none -o o.mlc",
    "compile net.onnx -r bound.mlc --eval data.npz -o o.mlc",
    "compile net.onnx -r data.mlc --check none -o o.mlc",
    "compile net.onnx -r int8 --data python('feed.py:named') --check none -o o.mlc",
    "compile net.onnx -r fp16 --eval python('feed.py:named') -o o.mlc",
    "compile net.onnx -r 'fp16 where share >= 1' --metric share=passes.py:one --eval data.npz -o o.mlc",
    "plan net.onnx -r steps.mlc",
    "plan net.onnx -r int8 --data python('feed.py:named')",
    "plan net.onnx -r 'prune where share >= 1' --metric share=passes.py:one --eval data.npz",
    "explain steps.mlc",
    "run far.mlc",
    "run data.mlc",
    "inspect net.onnx --sensitivity --data python('feed.py:named')",
    "verify net.onnx net.onnx --eval python('feed.py:named')",
    "data check net.onnx --data data.npz --eval python('feed.py:named')",
]


def words(line: str) -> list[str]:
    """A command line; sources keep their quotes."""
    import shlex

    return [w.replace("(feed.py:named)", '("feed.py:named")') for w in shlex.split(line)]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_refuse_user_code_before_it_runs(folder: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    assert run([*words(line), "--no-user-code"]) == 2
    told = capsys.readouterr().err
    assert told.count("error[") == told.count("error[E0809]") == 1
    assert "leave --no-user-code (user_code=False) out" in told
    assert "--> " in told, "its place is told"
    assert "do without it" not in told, "the importer need not say it"
    assert sorted(folder.iterdir()) == before
    assert run(words(line)) == 0, "the case shows something"
    assert (folder / "ran").exists()


def test_every_command_that_names_code_has_the_option() -> None:
    def commands(group: Group) -> list[Command]:
        return [
            c for found in group.commands.values() for c in (commands(found) if hasattr(found, "commands") else [found])
        ]

    group = typer.main.get_command(app)
    naming = {"recipe", "data", "eval", "metric", "file"}
    found = {c.name: {p.name for p in c.params} for c in commands(group)}  # type: ignore[arg-type]
    with_code = {name for name, params in found.items() if params & naming}
    assert with_code == {name for name, params in found.items() if "no_user_code" in params}
    assert with_code == {"compile", "plan", "explain", "run", "inspect", "verify", "check"}


def test_every_place_is_told_at_once_with_its_span_or_option(folder: Path) -> None:
    (folder / "all.mlc").write_text(
        'use "far.mlc" as far\nuse "passes.py" as own\ndata d = python("feed.py:named")\n'
        "recipe r = far.r + own.mark + prune(500%) where own.one >= 1\n"
    )
    with pytest.raises(MlcError) as caught:
        mlc.compile("net.onnx", "all.mlc", eval='python("feed.py:named")', metrics={"m": "a:b"}, user_code=False)
    told = [
        (d.code, d.span.name if d.span else d.where, d.span.line_column() if d.span else ())
        for d in caught.value.diagnostics
    ]
    user = Code.USER_CODE
    assert (user, "--eval", ()) in told
    assert (user, "--metric m", ()) in told
    assert (user, "steps.mlc", (1, 1)) in told
    assert (user, "all.mlc", (2, 1)) in told
    assert (user, "all.mlc", (3, 1)) in told
    assert (Code.OUT_OF_RANGE, "all.mlc", (4, 37)) in told
    assert len(told) == 6
    assert not (folder / "ran").exists()


def test_the_importer_itself_refuses(folder: Path) -> None:
    """Whatever nobody asked about beforehand; a block inside cannot allow it again."""
    for name in ("passes.py", "os.path"):
        with pytest.raises(MlcError, match=r"^error\[E0809\]"), user_code(allowed=False), user_code(allowed=True):
            import_module(name)
    with user_code(allowed=False):
        with pytest.raises(MlcError, match=r"^error\[E0809\]"):
            mlc.open_data('python("feed.py:named")', mlc.load("net.onnx"))
        with pytest.raises(MlcError, match=r"^error\[E0809\]"):
            mlc.Recipe.parse(Path("steps.mlc").read_text())
    assert not (folder / "ran").exists()
    assert import_module("os.path")


def test_a_recipe_that_was_read_before_is_refused_too(folder: Path) -> None:
    read = mlc.Recipe.parse(Path("steps.mlc").read_text())
    (folder / "ran").unlink()
    with pytest.raises(MlcError, match=r"^error\[E0809\]"):
        mlc.compile("net.onnx", read, user_code=False)
    assert mlc.compile("net.onnx", read, check="none")


def test_what_python_holds_is_no_code_that_is_named(folder: Path) -> None:
    """Passes and functions that the caller has are the caller's."""
    import numpy as np

    result = mlc.compile(
        "net.onnx",
        [mlc.passes.Int8()],
        data=lambda: [{"x": x} for x in np.load("data.npz")["x"]],
        check="none",
        user_code=False,
    )
    assert "code" not in result.report
    assert "user_code" not in result.report["options"]


def test_the_report_tells_what_was_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "all.mlc").write_text(
        'use "passes.py" as mine\ndata d = python("feed.py:named")\n'
        'recipe r = simplify + mine.mark + int8(data=d) where mine.one >= 1\ncompile "net.onnx" with r\n'
    )
    assert run(["run", "all.mlc", "-o", "out", "--events", "events"]) == 0
    report = json.loads((folder / "out" / "net.mlc" / "report.json").read_text())
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("passes.py", "feed.py")}
    assert {told["path"]: told["sha256"] for told in report["code"]} == sums
    line = f"runs code of passes.py (sha256 {sums['passes.py'][:12]})"
    assert line in capsys.readouterr().out
    assert line in (folder / "events").read_text()
    assert "passes.py" in (folder / "out" / "net.mlc" / "report.md").read_text()
    assert [step["name"] for step in report["steps"]] == ["simplify", "mine.mark", "int8"]
    assert [step["text"] for step in report["steps"]][1] == report["steps_text"][1] == "mine.mark"


@pytest.mark.parametrize(
    ("recipe", "metrics"), [("bound.mlc", {}), ("fp16 where share >= 1", {"share": "passes.py:one"})]
)
def test_files_that_only_measure_are_told_and_refused(folder: Path, recipe: str, metrics: dict[str, str]) -> None:
    result = mlc.compile("net.onnx", recipe, eval="data.npz", metrics=metrics)
    assert [told["path"] for told in result.report["code"]] == ["passes.py"]
    read = mlc.Recipe.parse(Path("bound.mlc").read_text())
    with pytest.raises(MlcError, match=r"^error\[E0809\].*\n --> "):
        mlc.compile("net.onnx", read, eval="data.npz", user_code=False)


# -- installed packages --------------------------------------------------------------------------------------------


def installed(folder: Path, passes: str) -> None:
    """A package on the path, as pip leaves it: it registers the pass `mark`."""
    info = folder / "my_passes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-passes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mlc.passes]\nmark = my_passes.marks:Mark\n")
    (folder / "my_passes").mkdir()
    (folder / "my_passes" / "__init__.py").write_text("")
    (folder / "my_passes" / "marks.py").write_text(passes)


def mlc_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, '.'); from mlc.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder)


def test_passes_of_installed_packages_stay_allowed(folder: Path) -> None:
    installed(folder, PASSES)
    done = mlc_in(folder, "compile", "net.onnx", "-r", "mark", "--check", "none", "-o", "o.mlc", "--no-user-code")
    assert done.returncode == 0, done.stderr
    assert "code" not in json.loads((folder / "o.mlc" / "report.json").read_text())


def test_what_an_installed_pass_raises_is_told_with_its_package(folder: Path) -> None:
    broken = PASSES.replace("        return ()\n", "        return [1 / 0]\n")
    installed(folder, broken)
    done = mlc_in(folder, "compile", "net.onnx", "-r", "mark", "--check", "none", "-o", "o.mlc")
    assert done.returncode == 2, done.stderr
    assert "error[E0807]: the installed package 'my-passes' raises ZeroDivisionError: division by zero" in done.stderr
    line = broken.splitlines().index("        return [1 / 0]") + 1
    assert f"marks.py:{line}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "o.mlc").exists()
    shutil.rmtree(folder / "my_passes-1.0.dist-info")
    gone = mlc_in(folder, "compile", "net.onnx", "-r", "mark", "-o", "o.mlc")
    assert "unknown step 'mark'" in gone.stderr
