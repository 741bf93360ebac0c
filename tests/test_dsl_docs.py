"""docs/recipes.md is true: its recipes run with the registered passes, its tables name what there is."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from kit.two_layers import two_layers

from mlc.cli_options import metrics_of
from mlc.dsl.jobs import jobs_of
from mlc.dsl.metrics import METRICS
from mlc.dsl.names import standard
from mlc.dsl.program import Program
from mlc.dsl.quantity import UNITS
from mlc.dsl.recipe import Recipe
from mlc.dsl.selectors import PROPERTIES
from mlc.ir.errors import MlcError

PAGE = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text(encoding="utf-8")


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", _blocks("recipe"))
def test_each_recipe_of_the_page_can_be_executed(text: str) -> None:
    assert Recipe.parse(text).steps


def test_the_file_of_the_page_can_be_executed() -> None:
    (text,) = _blocks("file")
    for name in ("small", "smaller"):
        assert Recipe.parse(text, choose=name).limits


def test_the_file_with_bindings_runs(tmp_path: Path) -> None:
    (text,) = _blocks("run")
    two_layers(tmp_path)
    np.savez(tmp_path / "data.npz", x=np.zeros((40, 64), np.float32), label=np.arange(40) % 10)
    (tmp_path / "shared.mlc").write_text("recipe cut(r) = prune(r)\n", encoding="utf-8")
    (tmp_path / "edge.mlc").write_text(text, encoding="utf-8")
    jobs = jobs_of(str(tmp_path / "edge.mlc"), stdin=io.StringIO())
    assert [job.name for job in jobs] == ["net-phone", "net-tiny"]
    assert [len(Program.of(job.recipe, job.target).limits) for job in jobs] == [2, 1]


def _commands() -> list[tuple[str, list[str]]]:
    """The recipes of all command lines in the README and in docs, but files, examples of refusals and user's passes;
    and the metrics that they name."""
    root = Path(__file__).parent.parent
    pages = (root / "README.md", *(p for p in (root / "docs").rglob("*.md") if p.name not in _OTHER))
    lines = (line for page in pages for line in page.read_text(encoding="utf-8").splitlines())
    commands = [shlex.split(line, comments=True) for line in lines if re.match(r" *mlc (compile|plan) ", line)]
    given = [[c[i + 1] for i, w in enumerate(c) if w == "--metric"] for c in commands]
    found = [c[next(i for i, w in enumerate(c) if w in ("-r", "--recipe")) + 1] for c in commands]
    return [(recipe, metrics) for recipe, metrics in zip(found, given) if ".mlc" not in recipe]


_OTHER = ("roadmap.md", "writing-a-pass.md")


def test_each_command_line_of_the_docs_can_be_executed() -> None:
    recipes = _commands()
    assert len(recipes) > 10
    for recipe, metrics in recipes:
        assert Recipe.parse(recipe, metrics=metrics_of(metrics)).steps


def test_tables_are_complete() -> None:
    for word in (*METRICS, *filter(None, UNITS), *PROPERTIES, *standard()):
        assert re.search(rf"[`, ]{re.escape(word)}[`, .;]", PAGE), word


def test_the_error_of_the_page_is_what_is_said() -> None:
    with pytest.raises(MlcError) as caught:
        Recipe.parse("prun + int4(blok=64)", name="--recipe")
    shown = PAGE.split("what to do:\n\n", 1)[1]
    assert "\n".join(line.removeprefix("    ") for line in shown.rstrip().splitlines()) == str(caught.value)
