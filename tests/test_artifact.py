"""Artifacts appear whole or not at all."""

from __future__ import annotations

import errno
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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.onnx", "small.report.json"]


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
    (layout.out / "old").write_text("old")
    with pytest.raises(MlcError, match="exists"):
        refuse_existing(layout, force=False)
    refuse_existing(layout, force=True)
    with pytest.raises(ValueError, match="bug"), staged(layout):
        raise ValueError("bug")
    assert (layout.out / "old").exists()
    with staged(layout) as folder:
        (folder / "new").write_text("new")
    assert [p.name for p in layout.out.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["net.mlc"]


def test_a_missing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(MlcError, match="there is no folder"):
        refuse_existing(Layout(tmp_path / "none" / "net.mlc"), force=True)
