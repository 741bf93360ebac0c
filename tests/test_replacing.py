"""Files put in place together: killed before any change of the disk, all are old, or all new, once somebody looks."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlc.backends.artifact import Layout, staged
from mlc.ir import scratch
from mlc.ir.errors import MlcError
from mlc.ir.scratch import put_in_place, sweep

# Kills itself before the N-th change; with a fork for each, in one process.
_SCRIPT = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from mlc.backends.artifact import Layout, staged
from mlc.ir.scratch import sweep

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}
folders = Path(sys.argv[1])

def killed_before(number, work):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    left = itertools.count(1)
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(lambda event, _: event in CHANGES and next(left) == number and die())
    work()
    os._exit(0)

def put(out):
    with staged(Layout(out), force=True) as folder:
        for name in sys.argv[3:]:
            (folder / name).write_text("new")

if sys.argv[2] == "sweep":
    for folder in sorted(folders.iterdir()):
        killed_before(int(sys.argv[3]), lambda: sweep(folder))
else:
    for folder in sorted(folders.iterdir()):
        if not killed_before(int(folder.name), lambda: put(folder / sys.argv[2])):
            break
    for rest in folders.iterdir():
        rest.name > folder.name and shutil.rmtree(rest)
"""
_MOST = 60  # changes of the disk that putting files in place takes at most
_FILES = ("net.onnx", "net.report.md", "net.report.json")
_DATA = ("net.onnx.data", *_FILES)


def killing(*arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def held(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("out", "before", "built"),
    [
        ("net.onnx", (), _DATA),
        ("net.onnx", _FILES, _DATA),
        ("net.onnx", _DATA, _FILES),
        ("net.onnx", ("net.onnx.data",), _FILES),
        ("net.mlc", (), ("model.onnx", "report.json")),
        ("net.mlc", ("net.mlc/model.onnx", "net.mlc/recipe.mlc"), ("model.onnx", "report.json")),
    ],
)
def test_a_kill_before_every_change(out: str, before: tuple[str, ...], built: tuple[str, ...], tmp_path: Path) -> None:
    """And one more in the run that clears up, at every second change."""
    old = dict.fromkeys(before, "old")
    new = {name if out == "net.onnx" else f"net.mlc/{name}": "new" for name in built}
    for number in range(1, _MOST):
        for name in (f"{number:02}/mine.txt", *(f"{number:02}/{name}" for name in before)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("mine" if name.endswith("mine.txt") else "old")
    killing(tmp_path, out, *built)
    assert 10 < len(list(tmp_path.iterdir())) < _MOST - 1  # the kills met everything that happens
    decides = out if out == "net.mlc" else "net.report.json"
    for folder in tmp_path.iterdir():
        if (folder / decides).exists():  # before anybody looks: where the report lies, all is there
            kept = {name: text for name, text in held(folder).items() if ".mlc-tmp-" not in name}
            assert kept in ({"mine.txt": "mine"} | old, {"mine.txt": "mine"} | new)
    killing(tmp_path, "sweep", "2")
    killing(tmp_path, "sweep", "3")
    found = []
    for folder in sorted(tmp_path.iterdir()):
        sweep(folder)
        content = held(folder)
        assert content.pop("mine.txt") == "mine"
        found.append(content)
    assert [p.name for f in tmp_path.iterdir() for p in f.iterdir() if ".mlc-tmp-" in p.name] == []
    assert all(content in (old, new) for content in found)
    assert found == sorted(found, key=lambda content: content == new)  # first the old ones, then the new ones
    assert found[0] == old
    assert found[-1] == new


def test_what_others_put_there_in_the_meantime_stays(tmp_path: Path) -> None:
    for number in range(1, _MOST):
        (tmp_path / f"{number:02}").mkdir()
    killing(tmp_path, "net.onnx", *_DATA)
    half = [f for f in tmp_path.iterdir() if (f / "net.onnx").exists() and not (f / "net.report.json").exists()]
    assert half
    for folder in half:
        (folder / "net.report.json").write_text("mine")
        sweep(folder)
        assert (folder / "net.report.json").read_text() == "mine"
        assert not [p for p in folder.iterdir() if ".mlc-tmp-" in p.name]


@pytest.mark.parametrize("before", [(), ("a", "b"), ("a", "b", "c")])
def test_a_failure_while_files_are_replaced(
    before: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses each of the renames once: what was there is there again, and nothing else."""
    rename, home = os.rename, tmp_path / "home"

    def put(fails: int) -> dict[str, str]:
        calls = itertools.count(1)

        def refusing(source: Path, target: Path) -> None:
            if next(calls) == fails:
                raise OSError(5, "Input/output error")
            rename(source, target)

        shutil.rmtree(home, ignore_errors=True)
        (home / "built").mkdir(parents=True)
        for name in before:
            (home / name).write_text("old")
        for name in ("a", "b"):
            (home / "built" / name).write_text("new")
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", refusing)
            put_in_place({home / name: home / "built" / name for name in ("c", "a", "b")})
        return held(home)

    renames = 2 + len(before) + 1 + 2  # the new ones into the journal, the old ones, the decision, the new ones
    for number in range(1, renames + 1):
        with pytest.raises(OSError, match="Input/output error"):
            put(number)
        assert held(home).items() >= dict.fromkeys(before, "old").items()
        assert sorted(p.name for p in home.iterdir()) == sorted([*before, "built"])
    assert put(renames + 1) == {"a": "new", "b": "new"}


def test_names_as_long_as_names_can_be(tmp_path: Path) -> None:
    layout = Layout(tmp_path / ("n" * 255))
    for text in ("old", "new"):
        with staged(layout, force=True) as folder:
            (folder / "model.onnx").write_text(text)
    assert held(tmp_path) == {f"{'n' * 255}/model.onnx": "new"}


def test_what_cannot_be_finished_stays_for_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, _MOST):
        (tmp_path / f"{number:02}").mkdir()
    killing(tmp_path, "net.onnx", *_DATA)
    half = next(f for f in tmp_path.iterdir() if (f / "net.onnx").exists() and not (f / "net.report.json").exists())

    def refused(source: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    before = held(half)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refused)
        sweep(half)
    assert held(half) == before
    sweep(half)
    assert held(half) == dict.fromkeys(_DATA, "new")


# -- several runs --------------------------------------------------------------------------------------------------


def made(home: Path, tag: str) -> dict[Path, Path]:
    """Files that are to be put in place."""
    built = home.parent / f"built-{tag}"
    built.mkdir(parents=True)
    for name in _DATA:
        (built / name).write_text(tag)
    return {home / name: built / name for name in _DATA}


@pytest.mark.parametrize("place", _DATA)
@pytest.mark.parametrize("before", [False, True])
def test_runs_with_the_same_output_take_turns(
    before: bool, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one begins when one of the files was put in place, and would be done before the next."""
    rename, home = os.rename, tmp_path / "home"
    home.mkdir()
    if before:
        put_in_place(made(home, "old"))
    first = made(home, "first")
    other = threading.Thread(target=put_in_place, args=[made(home, "second")])

    def slowly(source: Path, target: Path) -> None:
        rename(source, target)
        if Path(target) == home / place and not other.ident:
            other.start()
            other.join(0.1)

    monkeypatch.setattr(os, "rename", slowly)
    put_in_place(first)
    other.join()
    assert held(home) == dict.fromkeys(_DATA, "second")
    assert sorted(os.listdir(home)) == sorted(_DATA)


def half_done(folder: Path) -> Path:
    """A folder where a run was killed while it put files in place."""
    for number in range(1, _MOST):
        (folder / f"{number:02}").mkdir(parents=True)
    killing(folder, "net.onnx", *_DATA)
    return next(f for f in folder.iterdir() if (f / "net.onnx").exists() and not (f / "net.report.json").exists())


def test_what_a_killed_run_began_is_left_to_whoever_is_busy_there(tmp_path: Path) -> None:
    half = half_done(tmp_path / "runs")
    before = held(half)
    with scratch._turn(half, "net.report.json"):
        sweep(half)
        assert held(half) == before
    seen: list[dict[str, str]] = []
    put_in_place(made(half, "next"), lambda: seen.append(held(half)))
    assert seen == [dict.fromkeys(_DATA, "new")]  # finished before anybody asks what lies there
    assert held(half) == dict.fromkeys(_DATA, "next")
    assert sorted(os.listdir(half)) == sorted(_DATA)


def test_a_run_that_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_PATIENCE", 0.1)
    home = tmp_path / "home"
    home.mkdir()
    with (
        scratch._turn(home, "net.report.json"),
        pytest.raises(MlcError, match=r"another run has been putting 'net\.report\.json' in place"),
    ):
        put_in_place(made(home, "late"))
    assert os.listdir(home) == []


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes turns there, and nothing waits for ever."""

    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    home = tmp_path / "home"
    home.mkdir()
    for tag in ("one", "two"):
        put_in_place(made(home, tag))
        assert held(home) == dict.fromkeys(_DATA, tag)
    assert sorted(os.listdir(home)) == sorted(_DATA)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, mkdir = tmp_path / "home", os.mkdir
    home.mkdir()
    built = made(home, "new")

    def refused(path: Path, mode: int = 0o777) -> None:
        if Path(path).parent == home:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(MlcError, match=r"E0802.*cannot write in .*home': Read-only file system"):
        put_in_place(built)
    assert os.listdir(home) == []
