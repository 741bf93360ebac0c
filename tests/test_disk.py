"""Disks that are full, read-only or limited, and memory that runs out: one clear error, exit 4 (or 2), nothing left."""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kit.error_examples import EXAMPLES
from kit.net import Net

import mlc
from mlc.ir.dtypes import DType
from mlc.ir.errors import Code

_MOUNTED = 'mount -t tmpfs -o "$0" none "$1" && shift && "$@"; status=$?; ls -A "$PLACE"; exit $status'
SIDE = 256  # 256 KiB of floats


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    rng = np.random.default_rng(0)
    net = Net()
    x = net.input("x", DType.F32, "N", SIDE)
    w = net.const(rng.standard_normal((SIDE, SIDE)).astype(np.float32), "w")
    mlc.save(net.done(net.op("MatMul", [x, w])), folder / "net.onnx")
    np.savez(folder / "x.npz", x=rng.standard_normal((8, SIDE)).astype(np.float32))
    return folder / "net.onnx"


@functools.cache
def _mounts() -> bool:
    """Whether a small file system of one's own can be had here."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def on_disk(options: str, place: Path, arguments: list[str], **environment: str) -> tuple[int, str, list[str]]:
    """A command line with a file system of its own mounted at `place`: status, errors, and what is left there."""
    if not _mounts():
        pytest.skip("no file system can be mounted here")
    place.mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", _MOUNTED, options, str(place), sys.executable, "-m", "mlc", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PLACE": str(place)} | environment,
    )
    return done.returncode, done.stderr, [n for n in done.stdout.split() if n != ".ses"]  # of ONNX Runtime


def compiling(model: Path, out: Path, recipe: str = "simplify", *more: str) -> list[str]:
    return ["compile", str(model), "-r", recipe, "-o", str(out), "--quiet", *more]


@pytest.mark.parametrize("name", ["out.mlc", "out.onnx"])
def test_the_disk_of_the_output_is_full(name: str, model: Path, tmp_path: Path) -> None:
    place = tmp_path / "small"
    status, told, left = on_disk("size=100k", place, compiling(model, place / name, "simplify", "--check", "none"))
    assert (status, left) == (4, [])
    assert told == f"error[E0802]: the disk of '{place}' is full\n  = help: make room, or choose another place\n"


def test_the_disk_of_the_output_is_read_only(model: Path, tmp_path: Path) -> None:
    place = tmp_path / "small"
    status, told, left = on_disk("ro", place, compiling(model, place / "out.mlc"))
    assert (status, left) == (2, [])
    assert told.startswith(f"error[E0802]: the folder '{place}' is read-only\n")


@pytest.mark.parametrize(
    "recipe", ["weights([4, 8]) where size <= 0.3x", "int8"], ids=["written by mlc", "written by the runtime"]
)
def test_the_disk_of_temporary_files_is_full(recipe: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    more = ("--data", str(model.with_name("x.npz")))
    arguments = compiling(model, tmp_path / "out" / "net.mlc", recipe, *more)
    status, told, left = on_disk("size=20k", tmp_path / "small", arguments, TMPDIR=str(tmp_path / "small"))
    assert (status, left, list((tmp_path / "out").iterdir())) == (4, [], [])
    assert f"the disk of '{tmp_path / 'small'}' is full" in told
    assert "make room, or set TMPDIR to another place" in told


def test_files_must_not_be_so_large(model: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE, as batch systems set it."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    arguments = compiling(model, tmp_path / "out.mlc", "simplify", "--check", "none")
    command = [sys.executable, "-m", "mlc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 4
    assert f"a file in '{tmp_path}' would be larger than allowed" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_runtime_is_out_of_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mlc.cli import run

    next(e for e in EXAMPLES if e.code is Code.MEMORY).prepare(tmp_path)
    arguments = compiling(tmp_path / "outer.onnx", tmp_path / "out.mlc", "simplify", "--dims", "N=10000000")
    assert run(arguments) == 4
    assert "fewer or smaller samples" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["outer.onnx"]


def test_mlc_is_out_of_memory(model: Path, tmp_path: Path) -> None:
    """The samples themselves are too many for any memory."""
    arguments = compiling(model, tmp_path / "out.mlc", "simplify", "--dims", f"N={10**14}")
    done = subprocess.run([sys.executable, "-m", "mlc", *arguments], capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr.startswith("error[E0808]: out of memory\n")
    assert list(tmp_path.iterdir()) == []
