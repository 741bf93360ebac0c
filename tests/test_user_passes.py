"""Passes of the user's in recipe files: checked, planned, bounded and scoped as those of mlc, and stored so that they
run again."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from kit.two_layers import samples, two_layers

import mlc
from mlc.cli import run
from mlc.dsl.jobs import jobs_of
from mlc.dsl.recipe import Recipe
from mlc.frontends.user_code import fault
from mlc.ir.errors import Code, MlcError

HEAD = """
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mlc.passes.base import EXACT, LOSSY, Done, Effect, Pass, Plan, SkipCode, Skipped, option
"""
SHRINK = (
    HEAD
    + '''

@dataclass(frozen=True)
class Shrink(Pass):
    """Sets the smallest part of every weight to zero."""

    name: ClassVar[str] = "shrink"
    effect: ClassVar[Effect] = LOSSY
    after: ClassVar[tuple[str, ...]] = ("mark", "simplify")

    part: float | None = option(None, unit="ratio", low=0, high=1, doc="how many become zero", positional=True)
    least: int = option(0, unit="size", low=0, doc="smaller weights stay")
    only: tuple[int, ...] = option((0, 1), unit="ints", low=0, doc="which layers, counted from 0")

    def at(self, strength):
        return self if self.part is not None else replace(self, part=strength)

    def plan(self, module, ctx):
        sites = [op for op in module.walk() if op.kind in ("Gemm", "MatMul")]
        picked = [op.name for i, op in enumerate(sites) if i in self.only and ctx.scope.allows(op)]
        return ShrinkPlan(names=tuple(picked if self.part else ()))

    def apply(self, rw, plan, ctx):
        for op in list(rw.module.walk()):
            if op.name in plan.names:
                old = op.operands[1]
                array = old.constant.array().copy()
                array[np.abs(array) <= np.quantile(np.abs(array), self.part)] = 0
                rw.replace_uses(old, rw.constant(array, f"{old.name}_shrunk"), only=[op])
                yield Done(op.name, "dense", f"{self.part:.0%} zeros")


@dataclass(frozen=True)
class ShrinkPlan(Plan):
    names: tuple[str, ...] = ()


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
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "my_passes", raising=False)  # of other tests, where files import it by its name
    two_layers(tmp_path)
    samples(tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "my_passes.py").write_text(SHRINK)
    return tmp_path


def written(folder: Path, recipe: str, passes: str | None = None) -> str:
    if passes is not None:
        (folder / "lib" / "my_passes.py").write_text(passes)
    (folder / "x.mlc").write_text(f'use "lib/my_passes.py" as mine\n{recipe}\n')
    return str(folder / "x.mlc")


def wrong(path: str) -> MlcError:
    with pytest.raises(MlcError) as caught:
        Recipe.parse(Path(path).read_text(), name=path, folder=Path(path).parent)
    return caught.value


# -- they run ----------------------------------------------------------------------------------------------------


def test_a_recipe_with_passes_of_a_file_runs(folder: Path) -> None:
    """With parameters, loops, a scope on a chain, and the names of what a used file uses."""
    written(folder, 'recipe two(r = 10%) = simplify + (mine.mark + mine.shrink(r)) on "fc2" + prune(20%) times 2')
    (folder / "y.mlc").write_text('use "x.mlc" as far\ncompile "net.onnx" with far.mine.mark + far.two(40%)\n')
    assert run(["run", str(folder / "y.mlc"), "-o", str(folder / "out"), "--check", "none"]) == 0
    weights = mlc.load(folder / "out" / "net.mlc").constants
    zeros = {name: (v.constant.array() == 0).mean() for name, v in weights.items() if v.constant.array().ndim == 2}
    assert [share > 0.3 for share in zeros.values()] == [name.startswith("fc2") for name in zeros]
    assert any(share > 0.3 for share in zeros.values())


def test_what_is_stored_runs_again(folder: Path) -> None:
    """Paths are relative to the artifact; aliases of aliases get a name; metrics of the file come along."""
    written(folder, "recipe r = simplify + mine.shrink(30%) except fc1 where mine.one >= 1".replace("fc1", '"fc1"'))
    (folder / "y.mlc").write_text('use "x.mlc" as far\nrecipe r = far.r\n')
    first = mlc.compile(
        folder / "net.onnx", f"{folder / 'y.mlc'}:r", output=folder / "one.mlc", eval=folder / "data.npz"
    )
    stored = folder / "one.mlc" / "recipe.mlc"
    assert 'use "../lib/my_passes.py" as far_mine_0' in stored.read_text()
    again = mlc.compile(folder / "net.onnx", str(stored), output=folder / "two.mlc", eval=folder / "data.npz")
    texts = [[s["text"] for s in r.report["steps"]] for r in (first, again)]
    assert texts == [["simplify", f"{alias}.shrink(part=30%)"] for alias in ("far.mine", "far_mine_0")]
    assert [r.report["bounds"][0]["bound"] for r in (first, again)] == ["far.mine.one >= 1", "far_mine_0.one >= 1"]
    assert again.report["bounds"][0]["holds"]
    assert (folder / "two.mlc" / "recipe.mlc").read_text() == stored.read_text()


def test_bounds_choose_the_free_fields_of_passes_of_a_file(folder: Path) -> None:
    path = written(folder, "recipe r = mine.shrink(least=1KiB) where cosine >= 0.9")
    result = mlc.compile(folder / "net.onnx", path, eval=folder / "data.npz")
    assert len(result.report["trials"]) > 1
    assert not result.missed
    text = result.report["steps"][0]["text"]
    assert text.startswith("mine.shrink(part=")
    assert Recipe.parse(
        f'use "lib/my_passes.py" as mine\nrecipe r = {text}', folder=folder
    ).steps  # what a report calls a step can be written
    loop = written(folder, "recipe r = mine.shrink(5%) times 3 while cosine >= 0.5")
    assert mlc.compile(folder / "net.onnx", loop, eval=folder / "data.npz").report["loops"]


def test_a_file_is_executed_once_and_only_for_its_passes(folder: Path) -> None:
    counting = f"{SHRINK}\nwith open({str(folder / 'runs')!r}, 'a') as f:\n    f.write('x')\n"
    path = written(folder, "recipe r = mine.mark + fp16\nrecipe q = mine.shrink(1%)", counting)
    for _ in range(3):
        Recipe.parse(Path(path).read_text(), name=path, folder=folder, choose="r")
    assert (folder / "runs").read_text() == "x"
    written(folder, "recipe r = mine.mark", counting + "# changed\n")
    Recipe.parse(Path(path).read_text(), name=path, folder=folder)
    assert (folder / "runs").read_text() == "xx"
    written(folder, "recipe r = fp16 where mine.one >= 1", "raise SystemExit('never')")
    assert Recipe.parse(Path(path).read_text(), name=path, folder=folder).metrics()


def test_explain_tells_what_they_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(folder, "recipe r = mine.shrink(10%)")
    assert run(["explain", path]) == 0
    told = capsys.readouterr().out
    assert "mine.shrink(part=10%)" in told
    assert f"mine.shrink: Sets the smallest part of every weight to zero. ({folder / 'lib' / 'my_passes.py'})" in told


def test_public_names_decide_where_a_file_lists_them(folder: Path) -> None:
    (folder / "lib" / "more.py").write_text("from my_passes import Mark, Shrink\n\n__all__ = ['Mark']\n")
    (folder / "x.mlc").write_text('use "lib/more.py"\nrecipe r = more.mark + more.shrink(1%)\n')
    told = wrong(str(folder / "x.mlc"))
    assert [d.message for d in told.diagnostics] == ["unknown step 'more.shrink'"]
    assert told.diagnostics[0].help == "did you mean 'more.mark'?"


# -- their options are checked -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "code", "told"),
    [
        ("mine.shrink(200%)", Code.OUT_OF_RANGE, "'mine.shrink.part' = 200%"),
        ("mine.shrink(only=0.5)", Code.WRONG_UNIT, "'mine.shrink.only' wants"),
        ("mine.shrink(prat=10%)", Code.UNKNOWN_ARGUMENT, "did you mean 'part'"),
        ("mine.shrnk", Code.UNKNOWN_STEP, "did you mean 'mine.shrink'"),
        ("mine", Code.UNKNOWN_STEP, "'lib/my_passes.py' holds mine.mark, mine.shrink"),
        ("mine.shrink(1%) + mine.mark", Code.ORDER, "write mine.mark + mine.shrink"),
        ("mine.shrink(1%) + simplify", Code.ORDER, "write simplify + mine.shrink"),
        ("mine.mark(1)", Code.UNKNOWN_ARGUMENT, "'mine.mark' takes no arguments without a name"),
    ],
)
def test_their_options_and_their_order_are_checked(folder: Path, recipe: str, code: Code, told: str) -> None:
    found = wrong(written(folder, f"recipe r = {recipe}"))
    assert [d.code for d in found.diagnostics] == [code]
    assert told in str(found)


# -- files that cannot be used -----------------------------------------------------------------------------------

_BARE = "\nclass A(Pass):\n    name = 'a'\n    effect = EXACT\n    plan = apply = lambda *_: Plan()\n"
_MARK = SHRINK[SHRINK.index("@dataclass(frozen=True)\nclass Mark") : SHRINK.index("def one")]


@pytest.mark.parametrize(
    ("passes", "told"),
    [
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("x = 1\n1 / 0\n", "ZeroDivisionError: division by zero (my_passes.py, line 2)"),
        ("def f(:\n", "cannot be imported: SyntaxError"),
        ("raise SystemExit(3)", "ends the program"),
        ("x = 3\n", "holds no pass"),
        (HEAD + "class Mine:\n    plan = apply = name = None\n", "Mine: it is not a subclass of mlc.Pass"),
        (HEAD + _BARE, "A: its class is no dataclass"),
        (HEAD + _MARK.replace("def apply", "def aply"), "Mark: its class has no apply"),
        (HEAD + _MARK.replace('"mark"', '"prune"'), "Mark: its class is called 'prune', which is a pass"),
        (HEAD + _MARK.replace('"mark"', '"until"'), "Mark: its class is called 'until'"),
        (HEAD + _MARK.replace('"mark"', '"not a name"'), "Mark: its class is called 'not a name'"),
        (HEAD + _MARK.replace(" = EXACT", ""), "Mark: its class does not say what it does"),
        (HEAD + _MARK.replace("= EXACT\n", "= EXACT\n    x: int = 3\n"), "Mark: its field 'x' is not made by option"),
        (HEAD + _MARK + _MARK.replace("class Mark", "class Two"), "has two passes called 'mark': Mark and Two"),
        (
            HEAD + _MARK.replace("= EXACT\n", "= EXACT\n    x: int = option(3, unit='furlong', doc='')\n"),
            "has no unit that recipes know",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error_at_its_use(folder: Path, passes: str, told: str) -> None:
    found = wrong(written(folder, "recipe r = mine.mark + mine.other(3) + simplify", passes))
    (diagnostic,) = found.diagnostics
    assert diagnostic.code is Code.BROKEN_PASS
    assert told in diagnostic.message
    assert diagnostic.span is not None
    assert diagnostic.span.line_column() == (1, 1)
    (folder / "y.mlc").write_text('use "x.mlc" as far\nrecipe r = far.r + prune(50)\n')
    again = wrong(str(folder / "y.mlc"))  # what another file cannot use is told there, and only once
    assert sorted(d.code.code for d in again.diagnostics) == ["E0205", "E0807"]


def test_all_flaws_of_a_file_are_told(folder: Path) -> None:
    passes = HEAD + _MARK.replace("def apply", "def aply") + _MARK.replace('"mark"', '"int8"').replace("Mark", "Two")
    assert len(wrong(written(folder, "recipe r = mine.mark", passes)).diagnostics) == 2


def test_recipes_on_the_command_line_have_no_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for recipe in ("mine.shrink(10%)", "mine.py:shrink"):
        assert run(["compile", str(folder / "net.onnx"), "-r", recipe]) == 2
        assert 'use "mine.py" as mine, then mine.NAME' in capsys.readouterr().err


def test_a_file_for_metrics_alone_may_hold_no_pass(folder: Path) -> None:
    recipe = 'data d = npz("data.npz")\nrecipe r = fp16 where mine.one >= 1\ncompile "net.onnx" with r'
    path = written(folder, recipe, "def one(outputs, labels):\n    return 1\n")
    assert len(jobs_of(path, stdin=io.StringIO(""))) == 1


def test_what_a_pass_raises_is_told_with_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line; in Python the exception comes as it is, and bugs of mlc always do."""
    passes = SHRINK.replace("        return ()\n", "        return [1 / 0]\n")
    path = written(folder, "recipe r = mine.mark", passes)
    assert run(["compile", str(folder / "net.onnx"), "-r", path, "-o", str(folder / "o.mlc"), "-q"]) == 2
    told = capsys.readouterr().err
    line = passes.splitlines().index("        return [1 / 0]") + 1
    assert "error[E0807]: 'my_passes.py' raises ZeroDivisionError: division by zero" in told
    assert f"--> {folder / 'lib' / 'my_passes.py'}:{line}" in told
    assert not (folder / "o.mlc").exists()
    with pytest.raises(ZeroDivisionError) as theirs:
        mlc.compile(folder / "net.onnx", path)
    assert fault(theirs.value, {}) is not None
    with pytest.raises(TypeError) as ours:
        mlc.compile(3, "fp16")  # type: ignore[arg-type]
    assert fault(ours.value, {"my_package": "my-package"}) is None


@pytest.mark.parametrize("raised", ["SystemExit(0)", "SystemExit", "EOFError", "__import__('typer').Exit(0)"])
def test_a_pass_that_ends_the_program_is_a_mistake(folder: Path, raised: str) -> None:
    """Typer reads these as ways to end a command line."""
    path = written(folder, "recipe r = mine.mark", SHRINK.replace("        return ()\n", f"        raise {raised}\n"))
    assert run(["compile", str(folder / "net.onnx"), "-r", path, "-o", str(folder / "o.mlc"), "-q"]) == 2
    assert not (folder / "o.mlc").exists()


@pytest.mark.parametrize(("kind", "told"), [("ResourceError", True), ("MlcError", True), ("none", False)])
def test_an_estimate_hides_no_lack_of_resources(folder: Path, kind: str, told: bool) -> None:
    """Costs are estimated without data; what a step may refuse then is that, and nothing else."""
    code = "MEMORY" if told else "NO_DATA"
    raised = f"errors.{'MlcError' if kind == 'none' else kind}(errors.Diagnostic(errors.Code.{code}, 'it is full'))"
    passes = SHRINK.replace(
        "        return Plan()\n", f"        if ctx.data is None: raise {raised}\n        return Plan()\n"
    )
    path = written(folder, "recipe r = mine.mark + prune where size <= 0.5x", passes + "\nfrom mlc.ir import errors\n")
    if told:
        with pytest.raises(MlcError, match="it is full"):
            mlc.compile(folder / "net.onnx", path, data=folder / "data.npz")
    else:
        assert mlc.compile(folder / "net.onnx", path, data=folder / "data.npz").report["status"] == "done"
