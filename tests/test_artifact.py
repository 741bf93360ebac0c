"""Artifacts appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mlc.backends.artifact import Layout, refuse_existing, staged
from mlc.ir.errors import MlcError, ResourceError


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "net.mlc")
    with staged(layout) as folder:
        (folder / layout.model_name).write_bytes(b"model")
        assert not layout.out.exists()
    assert (layout.out / "model.onnx").read_bytes() == b"model"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.mlc"]


def test_a_file_appears_with_its_report(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "small.onnx")
    with staged(layout) as folder:
        (folder / layout.model_name).write_bytes(b"model")
        (folder / layout.report_name).write_text("{}")
        (folder / layout.summary_name).write_text("#")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.onnx", "small.report.json", "small.report.md"]


@pytest.mark.parametrize("failure", [ValueError("bug"), KeyboardInterrupt(), MemoryError()])
def test_nothing_is_left_when_the_work_fails(tmp_path: Path, failure: BaseException) -> None:
    def work() -> None:
        with staged(Layout(tmp_path / "net.mlc")) as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise failure

    with pytest.raises(type(failure)):
        work()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_exit_4(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="is full") as caught, staged(Layout(tmp_path / "net.mlc")):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_status == 4
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_kept_until_the_new_one_is_complete(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "net.mlc")
    layout.out.mkdir()
    (layout.out / "plan.json").write_text("old")
    with pytest.raises(MlcError, match="exists"):
        refuse_existing(layout, force=False)
    refuse_existing(layout, force=True)
    with pytest.raises(ValueError, match="bug"), staged(layout):
        raise ValueError("bug")
    assert (layout.out / "plan.json").exists()
    with staged(layout, force=True) as folder:
        (folder / "new").write_text("new")
    assert [p.name for p in layout.out.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["net.mlc"]


def test_a_missing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(MlcError, match="there is no folder"):
        refuse_existing(Layout(tmp_path / "none" / "net.mlc"), force=True)


@pytest.mark.parametrize("name", ["net.mlc", "net.onnx", ".", "sub/.."])
def test_force_never_replaces_what_mlc_did_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    layout = Layout(Path(name))
    layout.out.mkdir(exist_ok=True)
    (layout.out / "thesis.txt").write_text("mine")
    with pytest.raises(MlcError, match="is not replaced") as caught:
        refuse_existing(layout, force=True)
    assert caught.value.exit_status == 2
    assert (layout.out / "thesis.txt").read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "net").write_text("mine")
    with pytest.raises(MlcError, match="is a file: it is not replaced"):
        refuse_existing(Layout(tmp_path / "net"), force=True)


def test_weights_of_another_model_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "net.onnx.data").write_text("mine")
    with pytest.raises(MlcError, match=r"net.onnx.data' exists"):
        refuse_existing(Layout(tmp_path / "net.onnx"), force=False)


def test_notes_of_others_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "net.report.md").write_text("mine")
    with pytest.raises(MlcError, match=r"net.report.md' exists"):
        refuse_existing(Layout(tmp_path / "net.onnx"), force=False)


def test_weights_of_the_artifact_before_do_not_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "net.onnx")
    for names in (("net.onnx", "net.onnx.data", "net.report.json"), ("net.onnx", "net.report.json")):
        refuse_existing(layout, force=True)
        with staged(layout, force=True) as folder:
            for name in names:
                (folder / name).write_text("x")
        assert sorted(p.name for p in tmp_path.iterdir()) == list(names)


def test_the_working_folder_can_be_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    layout = Layout(Path())
    refuse_existing(layout, force=True)
    with staged(layout, force=True) as folder:
        (folder / "model.onnx").write_text("x")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["here", "here/model.onnx"]


def test_what_was_there_returns_when_the_last_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path / "net.mlc")
    layout.out.mkdir()
    (layout.out / "report.json").write_text("old")
    rename = os.rename

    def interrupted(source: Path, target: Path) -> None:
        if target == layout.out and "/new/" in str(source):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), staged(layout, force=True) as folder:
        (folder / "report.json").write_text("new")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["net.mlc", "net.mlc/report.json"]
    assert (layout.out / "report.json").read_text() == "old"


def test_the_suffix_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MlcError, match=r"no suffix '\.tflite'"):
        refuse_existing(Layout(tmp_path / "net.tflite"), force=False)
    refuse_existing(Layout(tmp_path / "net"), force=False)


@pytest.mark.parametrize("name", ["net.mlc", "net.onnx"])
def test_an_artifact_that_appeared_during_the_run_is_not_replaced(tmp_path: Path, name: str) -> None:
    layout = Layout(tmp_path / name)
    refuse_existing(layout, force=False)

    def build(text: str, *, force: bool = False) -> None:
        with staged(layout, force=force) as folder:
            (folder / layout.model_name).write_text(text)
            (folder / layout.report_name).write_text(text)
            if text == "first":
                build("other")

    def lies() -> set[str]:
        return {p.read_text() for p in tmp_path.rglob("*") if p.is_file()}

    with pytest.raises(MlcError, match=f"{name}' exists"):
        build("first")
    assert lies() == {"other"}
    build("forced", force=True)
    assert lies() == {"forced"}
    assert not [p for p in tmp_path.iterdir() if ".mlc-tmp-" in p.name]


def test_files_of_others_that_appeared_during_the_run_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "net.mlc")

    def late() -> None:
        with staged(layout, force=True):
            layout.out.mkdir()
            (layout.out / "thesis.txt").write_text("mine")

    with pytest.raises(MlcError, match="which mlc did not write"):
        late()
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["net.mlc", "net.mlc/thesis.txt"]
