"""Where recipes come from: the command line, files, folders, standard input."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from kit.recipes import PASSES

from mlc.dsl.files import FORMAT
from mlc.dsl.recipe import Recipe, check
from mlc.dsl.source import read_source
from mlc.dsl.stored import file_text
from mlc.ir.errors import Code, MlcError

NOTHING = io.StringIO("")


def test_a_bare_recipe_is_its_own_text() -> None:
    source = read_source("prune + int4", stdin=NOTHING)
    assert (source.text, source.name, source.choose) == ("prune + int4", "--recipe", None)


def test_a_file_with_and_without_a_choice(tmp_path: Path) -> None:
    path = tmp_path / "edge.mlc"
    path.write_text("recipe a = prune\nrecipe b = int4\n", encoding="utf-8")
    source = read_source(f"{path}:b", stdin=NOTHING)
    assert (source.name, source.choose, source.folder) == (str(path), "b", tmp_path)
    assert [s.name for s in Recipe.parse(source.text, choose=source.choose, catalog=PASSES).steps] == ["int4"]
    source = read_source(str(path), stdin=NOTHING)
    with pytest.raises(MlcError) as caught:
        Recipe.parse(source.text, name=source.name, catalog=PASSES)
    assert f"name one: {path}:a" in str(caught.value)


def test_standard_input_may_hold_a_recipe_or_a_file() -> None:
    for text in ("prune", "recipe a = prune\n"):
        source = read_source("-", stdin=io.StringIO(text))
        assert source.name == "<stdin>"
        assert [s.name for s in Recipe.parse(source.text, catalog=PASSES).steps] == ["prune"]


def test_what_is_stored_reads_back(tmp_path: Path) -> None:
    checked = check("prune:50% + w4a16 on Conv where size <= 0.5x", catalog=PASSES)
    path = tmp_path / "recipe.mlc"
    path.write_text(file_text(checked), encoding="utf-8")
    source = read_source(str(path), stdin=NOTHING)
    again = check(source.text, catalog=PASSES)
    assert again.expanded == checked.expanded
    assert file_text(again) == file_text(checked)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("missing.mlc", None, Code.NOT_FOUND),
        ("binary.mlc", b"\xff\xfe\x00\x01", Code.CHARACTER),
        ("newer.mlc", f"# mlc recipe\n# format: {FORMAT + 1}\nprune\n".encode(), Code.FORMAT),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, code: Code) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MlcError) as caught:
        read_source(str(path), stdin=NOTHING)
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_an_artifact_folder_points_to_its_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "model.mlc"
    folder.mkdir()
    (folder / "recipe.mlc").write_text("prune\n", encoding="utf-8")
    with pytest.raises(MlcError, match=r"recipe\.mlc"):
        read_source(str(folder), stdin=NOTHING)


def test_a_file_with_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "w.mlc"
    path.write_bytes("\ufeffrecipe a = prune\r\n  + int4\r\n".encode())
    source = read_source(str(path), stdin=NOTHING)
    assert [s.name for s in Recipe.parse(source.text, catalog=PASSES).steps] == ["prune", "int4"]
