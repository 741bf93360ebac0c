"""docs/guides: every block in order, on the real model, in a folder that `prepare.py` makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from kit.doc_blocks import ROOT, Reader, accept, blocks, split
from kit.real import real_model

from mlc.dsl.format import formatted

GUIDES = {
    "ocr": "ppocrv4_rec",
    "embeddings": "minilm",
    "digits": "mnist_cnn",
    "vad": "silero_vad_op15",
    "ci": "mnist_cnn",
}


def page(name: str) -> Path:
    return ROOT / "docs" / "guides" / f"{name}.md"


def test_every_guide_is_here() -> None:
    assert {p.stem for p in (ROOT / "docs" / "guides").glob("*.md")} == set(GUIDES)
    assert {p.name for p in (ROOT / "examples" / "guides").iterdir() if (p / "recipe.mlc").exists()} == set(GUIDES)


@pytest.mark.real
@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_works_as_printed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("tokenizers")
    real_model(GUIDES[name])
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    reader = Reader(tmp_path, monkeypatch)
    for block in blocks(page(name)):
        reader.read(block)


@pytest.mark.parametrize("name", GUIDES)
def test_recipe_files_of_guides_are_in_canonical_form(name: str) -> None:
    for path in (ROOT / "examples" / "guides" / name).glob("*.mlc"):
        text = path.read_text(encoding="utf-8")
        assert formatted(text) == text


def test_the_workflow_says_what_mlc_understands() -> None:
    (workflow,) = (yaml.safe_load(b.text) for b in blocks(page("ci")) if b.language == "yaml")
    runs = [step["run"] for step in workflow["jobs"]["budget"]["steps"] if "run" in step]
    commands = [line for run in runs for line in run.splitlines() if re.match("mlc ", line)]
    assert len(commands) == 4
    for command in commands:
        accept(split(command.split(">>")[0])[0][1:])
