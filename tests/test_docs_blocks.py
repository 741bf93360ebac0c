"""Every code block of the README and of docs is run, or says why not; every command is one that mlc understands."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kit.doc_blocks import ROOT, Block, Reader, accept, blocks, indented, pages, split
from kit.real import real_model
from kit.two_layers import two_layers

import mlc
from mlc.backends.runner import OrtRunner
from mlc.ir.dims import Sym, ceildiv, exact_div
from mlc.ir.rewrite import Rewriter
from mlc.passes.base import SkipCode

#: The test that runs blocks of a page, and of which languages, where it is not this one.
ELSEWHERE = {
    "docs/errors.md": ("test_error_page.py", {"python", "text"}),
    "docs/axes.md": ("test_docs_axes.py", {"python"}),
    "docs/data.md": ("test_docs_data.py", {"python", "text"}),
    "docs/recipes.md": ("test_dsl_docs.py", {"recipe", "file", "run"}),
    **{
        f"docs/guides/{p.name}": ("test_guides.py", {"sh", "python", "mlc", "yaml", "text"})
        for p in (ROOT / "docs" / "guides").glob("*.md")
    },
}


def _is_here(block: Block) -> bool:
    _, languages = ELSEWHERE.get(str(block.page.relative_to(ROOT)), ("", set[str]()))
    return block.language not in languages


ALL = [block for page in pages() for block in blocks(page)]
HERE = [block for block in ALL if _is_here(block)]


def _commands() -> list[str]:
    shell = [line for block in ALL if block.language == "sh" for line in block.commands]
    return [line for line in (*shell, *(c for page in pages() for c in indented(page))) if line.startswith("mlc ")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages speak of: a model with an op `head`, samples for it, a quantized model, two artifacts."""
    folder = tmp_path_factory.mktemp("docs")
    model = onnx.load(two_layers(folder, width=256))
    model.graph.node[-1].name = "head"
    onnx.save(model, folder / "model.onnx")
    rng = np.random.default_rng(0)
    for name in ("samples", "held_out"):
        np.savez(folder / f"{name}.npz", x=rng.standard_normal((64, 64), dtype=np.float32))
    mlc.compile(folder / "model.onnx", "int8", output=folder / "a.mlc")
    mlc.compile(folder / "model.onnx", "int4", output=folder / "b.mlc")
    shutil.copy(folder / "a.mlc" / "model.onnx", folder / "small.onnx")
    return folder


def names(folder: Path) -> dict[str, Any]:
    """What snippets take for granted."""
    module = mlc.load(folder / "model.onnx")
    samples = mlc.open_data(folder / "samples.npz", module)
    relu = next(op for op in module.walk() if op.kind == "Relu")
    found = {"mlc": mlc, "module": module, "model": module, "samples": samples, "OrtRunner": OrtRunner}
    found |= {"quantized": mlc.passes.Int8()(module), "op": relu, "x": relu.operands[0], "Rewriter": Rewriter}
    return found | {"Sym": Sym, "ceildiv": ceildiv, "exact_div": exact_div}


def _by_page(language: str) -> list[Any]:
    found: dict[Path, list[Block]] = {}
    for block in HERE:
        if block.language == language:
            found.setdefault(block.page, []).append(block)
    return [pytest.param(group, id=str(page.relative_to(ROOT))) for page, group in found.items()]


def _alone(block: Block) -> bool:
    return block.language == "sh" and not block.marker


def test_no_block_is_forgotten() -> None:
    known = {"sh", "python", "toml", "text", ""}  # the last two are output and pictures
    for block in HERE:
        assert block.language in known, f"{block}: who runs it?"
        assert not block.marker or block.model or block.marker.startswith("not run: "), f"{block}: {block.marker}"
    for page, (test, _) in ELSEWHERE.items():
        assert (ROOT / page).exists()
        text = (ROOT / "tests" / test).read_text(encoding="utf-8")
        assert Path(page).name in text or Path(page).parent.name in text, f"{test} does not speak of {page}"


def test_every_command_is_understood() -> None:
    commands = _commands()
    assert len(commands) > 80
    for command in commands:
        accept(split(command)[0][1:])


@pytest.mark.parametrize("group", _by_page("python"))
def test_python_runs(group: list[Block], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model.onnx", "samples.npz", "held_out.npz"):
        shutil.copy(prepared / name, tmp_path)
    reader = Reader(tmp_path, monkeypatch, names(prepared))
    for block in group:
        reader.read(block)


@pytest.mark.parametrize("command", [c for b in HERE if _alone(b) for c in b.commands])
def test_a_command_runs(command: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(prepared, tmp_path / "work")
    Reader(tmp_path / "work", monkeypatch).run(command)


@pytest.mark.real
@pytest.mark.parametrize("block", [pytest.param(b, id=b.model) for b in HERE if b.model])
def test_a_report_is_what_is_printed(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of text behind the commands."""
    shutil.copy(real_model(block.model).path, tmp_path / "model.onnx")
    reader = Reader(tmp_path, monkeypatch)
    reader.read(block)
    reader.read(next(b for b in HERE if b.page == block.page and b.line > block.line and b.language == "text"))


@pytest.mark.parametrize("block", [pytest.param(b, id=str(b)) for b in HERE if b.language == "toml"])
def test_settings_parse(block: Block) -> None:
    assert tomllib.loads(block.text)


def test_every_part_of_a_report_is_explained() -> None:
    """Labels of the terminal report, read from its source, and the codes of what was skipped."""
    source = (ROOT / "backends" / "report.py").read_text(encoding="utf-8")
    labels = set(re.findall(r'add_row\(\s*f?"([a-z ]+)"', source))
    labels |= set(re.findall(r'Text\(f"([a-z ]+)[: ][^"]*\{', source)) | set(
        re.findall(r'f"(not done by|step) ', source)
    )
    assert {"size", "lowered", "loop", "warning", "in the runtime"} <= labels
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("| part | how to read it |")[1].split("\n\n")[0]
    assert [label for label in sorted(labels) if f"`{label}" not in table] == []
    codes = (ROOT / "docs" / "passes.md").read_text(encoding="utf-8")
    assert [code.value for code in SkipCode if f"| `{code.value}` |" not in codes] == []
