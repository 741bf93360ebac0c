"""Data as it is written: paths and sources with their arguments, each mistake with its place in the text."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlc
from mlc.dsl.data import CATALOG, declare, declare_node
from mlc.dsl.names import names_of
from mlc.dsl.parser import parse_file
from mlc.frontends.data.images import Images
from mlc.frontends.data.npy import Npy
from mlc.frontends.data.npz import Npz
from mlc.frontends.data.python import Python
from mlc.frontends.data.source import Selection
from mlc.frontends.data.table import SOURCES
from mlc.frontends.data.text import Text
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.types import tensor

MEAN = [0.485, 0.456, 0.406]


@pytest.mark.parametrize(
    ("text", "source", "selection"),
    [
        ("x.npz", Npz("x.npz"), Selection()),
        ('npz("x.npz")', Npz("x.npz"), Selection()),
        ("npz('x.npz', take=64, seed=0, labels=y)", Npz("x.npz"), Selection(take=64, seed=0, labels="y")),
        ('npz(path="x.npz", mask="m", batch=8)', Npz("x.npz"), Selection(mask="m", batch=8)),
        ("x.npy", Npy("x.npy"), Selection()),
        ("pkg.mod:rows", Python("pkg.mod:rows"), Selection()),
        ("dir/my data.py:rows", Python("dir/my data.py:rows"), Selection()),
        (' python( "a.py:b" ) ', Python("a.py:b"), Selection()),
        (
            f'images("p", size=[8, 9], mean={MEAN}, std=0.5, scale=1, fit=pad, fill=114, layout=nhwc)',
            Images("p", (8, 9), "pad", fill=114, scale=1, mean=tuple(MEAN), std=(0.5,), layout="nhwc"),
            Selection(),
        ),
        (
            'text("t.txt", tokenizer="t.json", max_length=64, padding=true)',
            Text("t.txt", "t.json", max_length=64, padding=True),
            Selection(),
        ),
        ('images("p", size=none)', Images("p"), Selection()),
    ],
)
def test_what_is_written_is_what_is_meant(text: str, source: object, selection: object) -> None:
    found = declare(text)
    assert (found.source, found.selection) == (source, selection)
    again = declare(found.text)  # the canonical text means the same
    assert (again.source, again.selection) == (source, selection)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nzp("x.npz")', "did you mean 'npz'?"),
        ('npz("x.npz", tak=3)', "did you mean 'take'?"),
        ("npz(x)", 'write "x"'),
        ("npz()", "needs the argument 'path'"),
        ('npz("x.npz", "y.npz")', "takes 1 argument without a name"),
        ('npz("x.npz", take=3, take=4)', "given twice"),
        ('npz("x.npz", take=0)', "out of range"),
        ('npz("x.npz", take=50%)', "wants a whole number"),
        ('npz("x.npz", take={8, 16})', "keep one value: 8"),
        ('npz("x.npz") + npz("y.npz")', "data is declared by a path or by a source"),
        ('npz("x.npz", take=3', "unexpected end"),
        ('npz("x.npz") where size <= 1MiB', "bounds and searches belong to the recipe"),
        ('npz("x.npz", seed=3)', "give take=N as well"),
        ('images("p", mean=[a])', "wants a plain number"),
        ('images("p", size=2.5)', "wants a whole number"),
        ('text("t.txt")', "needs the argument 'tokenizer'"),
    ],
)
def test_mistakes_show_their_place(text: str, message: str) -> None:
    with pytest.raises(MlcError) as caught:
        declare(text, name="--data")
    assert message in str(caught.value)
    assert caught.value.exit_status == 2
    if "seed" not in text:
        assert "--> --data:1:" in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(MlcError) as caught:
        declare('images("p", size=0, fit=cover, colour=rgb)')
    assert len(caught.value.diagnostics) == 3


def test_files_whose_names_look_like_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("npz(1).npz", x=np.zeros((2, 3), np.float32))
    assert declare("npz(1).npz").source == Npz("npz(1).npz")
    with pytest.raises(MlcError, match=r"no data file 'photos\(1\).npz'"):
        mlc.open_data("photos(1).npz", {})


def test_paths_are_relative_to_a_base_and_code_waits_until_it_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    np.savez(folder / "x.npz", x=np.zeros((2, 3), np.float32))
    (folder / "bad.py").write_text("raise SystemExit('executed')\n")
    kinds = {"x": tensor(DType.F32, "N", 3)}
    for text in ("x.npz", 'npz("x.npz")', f'npz("{folder}/x.npz")'):
        assert len(mlc.open_data(text, kinds, base=folder)) == 2
    declared = declare('python("bad.py:rows")', base=folder)  # nothing happens
    assert declared.source == Python(str(folder / "bad.py:rows"))
    assert declare("python('pkg.mod:rows')", base=folder).source == Python("pkg.mod:rows")
    assert declare('text("t.txt", tokenizer="t.json")', base=folder).source == Text(
        f"{folder}/t.txt", f"{folder}/t.json"
    )


def test_bindings_of_files_may_use_their_names() -> None:
    file = parse_file('let n = 64\ndata a = npz("x.npz", take=n)\ndata b = "y.npz"\ndata c = fp16\n')
    names, _ = names_of(file)
    values = {name: binding.value for name, binding in names.bindings.items()}
    assert declare_node(values["a"], names=names).selection == Selection(take=64)
    assert declare_node(values["b"], base=Path("dir")).source == Npz("dir/y.npz")
    with pytest.raises(MlcError, match="'fp16' is no data source") as caught:
        declare_node(values["c"])
    assert "<file>:4:10" in str(caught.value)


def test_labels_and_mask_beside_data_that_name_their_own(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.zeros((2, 3), np.float32), y=np.arange(2), z=np.arange(2))
    kinds: dict[str, Any] = {"x": tensor(DType.F32, "N", 3)}
    text = f'npz("{path}", labels=y)'
    assert mlc.open_data(text, kinds).selection.labels == "y"
    assert mlc.open_data(text, kinds, labels="y").has_labels
    assert mlc.open_data(str(path), kinds, labels="z").selection.labels == "z"
    with pytest.raises(MlcError, match="the data name their own labels, 'y', and 'z' is given beside them"):
        mlc.open_data(text, kinds, labels="z")


def test_sources_and_selection_share_no_argument() -> None:
    shared = {f.name for f in fields(Selection)}
    for name, source in SOURCES.items():
        own = [f.name for f in fields(source)]  # type: ignore[arg-type]
        assert not set(own) & shared
        assert set(CATALOG.find(name).parameters) == {*own, *shared}
        assert [p.name for p in CATALOG.find(name).positional] == own[:1]


def test_sources_from_python_are_checked_like_recipes() -> None:
    with pytest.raises(MlcError, match=r"'images.fit' is 'cover'"):
        Images("p", fit="cover")
    with pytest.raises(MlcError, match=r"'images.mean' wants numbers, not 0.5"):
        Images("p", mean=0.5)  # type: ignore[arg-type]
    with pytest.raises(MlcError, match=r"'data.take' = 0 is out of range"):
        Selection(take=0)
