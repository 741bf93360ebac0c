"""Arrays from archives, folders and functions: the same samples whatever holds them, streamed; one error a mistake."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.golden import same
from kit.two_layers import two_layers

import mlc
from mlc import open_data
from mlc.frontends.data.source import natural
from mlc.frontends.data.table import SOURCES
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.types import SequenceType, tensor

GOLDEN = Path(__file__).parent / "golden" / "data" / "errors.txt"
ONE = {"x": tensor(DType.F32, "N", 3, 4)}
TWO = {"ids": tensor(DType.I64, "N", "S"), "mask": tensor(DType.I64, "N", "S")}
COUNT = 12


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def values(count: int = COUNT) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((count, 3, 4), dtype=np.float32), "y": np.arange(count)}


def put_npz(arrays: dict[str, Any]) -> str:
    np.savez("d.npz", **arrays)
    return "d.npz"


def put_stacked(arrays: dict[str, Any]) -> str:
    Path("stacked").mkdir()
    for key, array in arrays.items():
        np.save(f"stacked/{key}.npy", array)
    return "stacked"


def put_apart(arrays: dict[str, Any]) -> str:
    """A file per sample; `10.npy` comes after `9.npy`."""
    for key, array in arrays.items():
        Path("apart", key).mkdir(parents=True)
        for index, row in enumerate(array):
            np.save(f"apart/{key}/{index}.npy", row)
    return "apart"


def put_loose(arrays: dict[str, Any]) -> str:
    """For the only input: its samples lie in the folder itself, and one array holds the labels."""
    Path("loose").mkdir()
    np.save("loose/y.npy", arrays["y"])
    for index, row in enumerate(next(iter(arrays.values()))):
        np.save(f"loose/sample{index}.npy", row)
    return "loose"


def put_function(arrays: dict[str, Any]) -> str:
    np.savez("of_function.npz", **arrays)
    Path("mine.py").write_text(
        "import numpy as np\n"
        "def rows():\n"
        "    arrays = np.load('of_function.npz')\n"
        "    for values in zip(*arrays.values()):\n"
        "        yield dict(zip(arrays, values))\n"
    )
    return "mine.py:rows"


def put_list(arrays: dict[str, Any]) -> str:
    """A module of the working directory whose function returns a list."""
    put_function(arrays)
    Path("listed.py").write_text("import mine\ndef rows():\n    return list(mine.rows())\n")
    return 'python("listed:rows")'


WRITERS = [put_npz, put_stacked, put_apart, put_loose, put_function, put_list]


def in_memory(arrays: dict[str, Any]) -> Any:
    return arrays


def from_function(arrays: dict[str, Any]) -> Any:
    return lambda: [dict(zip(arrays, rows)) for rows in zip(*arrays.values())]


everywhere = pytest.mark.parametrize("put", WRITERS, ids=lambda w: w.__name__)
Put = Callable[[dict[str, Any]], str]


@pytest.mark.parametrize("put", [*WRITERS, in_memory, from_function], ids=lambda w: w.__name__)
@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("labels", ["numbers", "rows", "text"])
def test_every_source_gives_the_same_batches(put: Put, size: int, labels: str) -> None:
    arrays = values()
    more = {"rows": np.random.default_rng(1).random((COUNT, 2, 3)), "text": np.array([f"{n:b}" for n in range(COUNT)])}
    arrays["y"] = more.get(labels, arrays["y"])
    data = open_data(put(arrays), ONE, labels="y")
    assert (len(data), data.names, data.has_labels) == (COUNT, ("x",), True)
    for _ in range(2):  # read anew
        batches = list(data.batches(size))
        np.testing.assert_array_equal(np.concatenate([b.inputs["x"] for b in batches]), arrays["x"])
        np.testing.assert_array_equal(np.concatenate([b.labels for b in batches if b.labels is not None]), arrays["y"])


@everywhere
def test_selection_and_split_are_the_same_for_every_source(put: Put) -> None:
    def numbers(data: Any) -> list[int]:
        return [int(v) for b in data.batches(3) for v in b.labels]

    path = put(values())
    text = (
        path if "(" in path else f'{"python" if ":" in path else "npz" if path.endswith(".npz") else "npy"}("{path}")'
    )
    first = open_data(f"{text[:-1]}, take=5, labels=y)", ONE)
    assert numbers(first) == [0, 1, 2, 3, 4]
    drawn = open_data(f"{text[:-1]}, take=5, seed=7, labels=y)", ONE)
    assert numbers(drawn) == [1, 2, 5, 8, 9]
    assert max(b.n for b in open_data(f"{text[:-1]}, batch=2, labels=y)", ONE).batches(8)) == 2
    calibrates, judges = open_data(path, ONE, labels="y").split(seed=0)
    assert numbers(judges) == [0, 7]
    assert sorted(numbers(calibrates) + numbers(judges)) == list(range(COUNT))
    assert (len(calibrates), len(judges)) == (COUNT - 2, 2)


@pytest.mark.parametrize("put", [put_stacked, put_apart, put_function])
def test_compiled_models_are_equal_to_the_byte(put: Put) -> None:
    source = two_layers(Path())
    rows = {"x": np.random.default_rng(1).standard_normal((24, 64), dtype=np.float32)}
    written = []
    for number, data in enumerate((put_npz(rows), put(rows))):
        mlc.compile(source, "int8", data=data, output=f"{number}.mlc")
        written.append(Path(f"{number}.mlc/model.onnx").read_bytes())
    assert written[0] == written[1]
    known = json.loads(Path("1.mlc/report.json").read_text())["data"]
    assert known["calibration"]["samples"] + known["evaluation"]["samples"] == 24
    assert known["calibration"]["sha256"] == known["evaluation"]["sha256"]


@everywhere
def test_the_hash_follows_the_content(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name, change in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        arrays = values()
        arrays["x"][-1, 0, 0] += change
        data = open_data(put(arrays), ONE, labels="y")
        found.append((data.digest, data.fingerprint()))
    if put is not put_npz:  # an archive holds the time of writing
        assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] != found[2][1]


@pytest.mark.parametrize("put", [put_npz, put_stacked])
def test_memory_does_not_grow_with_the_samples(put: Put) -> None:
    data = open_data(put({"x": np.zeros((2000, 3, 400), np.float32)}), {"x": tensor(DType.F32, "N", 3, 400)})  # 9 MB
    tracemalloc.start()
    assert sum(b.n for b in data.batches(2)) == 2000
    assert data.fingerprint()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 << 20


def test_a_function_is_streamed_and_may_never_end() -> None:
    Path("endless.py").write_text(
        "import itertools\nimport numpy as np\n"
        "def rows():\n"
        "    return ({'x': np.full((3, 4000), i, np.float32)} for i in itertools.count())\n"
    )
    tracemalloc.start()
    data = open_data('python("endless.py:rows", take=200)', {"x": tensor(DType.F32, "N", 3, 4000)})  # 9 MB
    assert [b.inputs["x"][0, 0, 0] for b in data.batches()] == list(range(200))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


def test_what_is_not_wanted_is_not_loaded() -> None:
    """A broken file that `take` leaves out is nobody's business; one that it takes is."""
    path = put_apart({"x": values()["x"]})
    Path(path, "x", "9.npy").write_bytes(b"broken")
    assert len(list(open_data(f'npy("{path}", take=9)', ONE).batches())) == 9
    with pytest.raises(MlcError, match=r"not a readable array[\s\S]*sample 9 of 'apart': x/9.npy"):
        list(open_data(path, ONE).batches())


def test_inputs_whose_names_are_paths() -> None:
    for key in ("in/ids", "in/mask"):
        Path("d", key).mkdir(parents=True)
        np.save(Path("d", key, "0.npy"), np.ones(3, np.int64))
    kinds = {f"in/{name}": kind for name, kind in TWO.items()}
    (batch,) = open_data("d", kinds).batches()
    assert {name: array.shape for name, array in batch.inputs.items()} == {"in/ids": (1, 3), "in/mask": (1, 3)}


def test_names_are_sorted_as_people_count() -> None:
    assert sorted(["b1", "a10", "a9", "a09x"], key=natural) == ["a9", "a09x", "a10", "b1"]


def test_every_source_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    for name, source in SOURCES.items():
        assert source.name == name
        for field in fields(source):  # type: ignore[arg-type]
            assert f"`{field.name}`" in page, f"{name}.{field.name}"


# -- mistakes --------------------------------------------------------------------------------------------------


def _rows(**arrays: Any) -> Callable[[], str]:
    return lambda: put_npz(arrays)


def _function(body: str) -> Callable[[], str]:
    def write() -> str:
        Path("mine.py").write_text(f"import numpy as np\ndef rows():\n{body}")
        return "mine.py:rows"

    return write


def _folder(**files: Any) -> Callable[[], str]:
    def write() -> str:
        for name, array in files.items():
            path = Path("d", name.replace("__", "/") + ".npy")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
        return "d"

    return write


def _cut() -> str:
    """A file that ends in the middle of a sample."""
    put_stacked({"x": values()["x"]})
    path = Path("stacked/x.npy")
    path.write_bytes(path.read_bytes()[:-100])
    return "stacked"


def _corrupt() -> str:
    """An archive whose compressed bytes were changed."""
    np.savez_compressed("d.npz", x=values(400)["x"])
    raw = bytearray(Path("d.npz").read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    Path("d.npz").write_bytes(raw)
    return "d.npz"


def _archive() -> str:
    """A file that is named like an array and is an archive."""
    path = put_apart({"x": X})
    np.savez("other.npz", x=X)
    Path("other.npz").rename(Path(path, "x", "4.npy"))
    return path


def _nan(index: int) -> dict[str, Any]:
    arrays = values()
    arrays["x"][index, 1, 1] = np.nan
    return arrays


X = values()["x"]
IDS = np.ones((4, 3), np.int64)
MISTAKES: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "no array for an input": (ONE, _rows(z=X, w=X)),
    "wrong dtype": (ONE, _rows(x=X.astype(np.float64))),
    "wrong rank": (ONE, _rows(x=X[:, 0])),
    "wrong size": (ONE, _rows(x=X[:, :, :2])),
    "no samples": (ONE, _rows(x=X[:0])),
    "a single number": (ONE, _rows(x=np.float32(1))),
    "objects": (ONE, _rows(x=np.array([object()]))),
    "NaN": (ONE, lambda: put_npz(_nan(7))),
    "numbers of samples": (TWO, _rows(ids=IDS, mask=IDS[:3])),
    "lengths": (TWO, _rows(ids=IDS, mask=IDS[:, :2])),
    "labels missing": (ONE, _rows(x=X)),
    "no file": (ONE, lambda: "none.npz"),
    "no folder": (ONE, lambda: 'npy("none")'),
    "empty folder": (ONE, lambda: str(Path("empty").mkdir() or "empty")),
    "empty folder of arrays": (ONE, lambda: str(Path("empty").mkdir() or 'npy("empty")')),
    "unknown kind": (ONE, lambda: str(Path("x.bin").write_bytes(b"x") and "x.bin")),
    "no archive": (ONE, lambda: str(Path("x.npz").write_bytes(b"PK") and "x.npz")),
    "ends early": (ONE, _cut),
    "corrupt": (ONE, _corrupt),
    "file and folder": (TWO, _folder(ids=IDS, mask=IDS, ids__0=IDS[0])),
    "a name is missing": (TWO, _folder(ids__a=IDS[0], ids__b=IDS[0], mask__a=IDS[0], mask__c=IDS[0])),
    "no function": (ONE, lambda: _function("    pass\n")().replace("rows", "other")),
    "function file": (ONE, lambda: "none.py:rows"),
    "arrays: objects": (ONE, lambda: {"x": [None]}),
    "arrays: a number": (ONE, lambda: {"x": 3.0}),
    "arrays: no input": (ONE, lambda: {"z": X, "w": X}),
    "an input of strings": ({"x": tensor(DType.STR, "N")}, _rows(x=X)),
    "an input of sequences": ({"x": SequenceType(ONE["x"])}, _rows(x=X)),
    "a sample that is an archive": (ONE, _archive),
    "function module": (ONE, lambda: 'python("no.such.module:rows")'),
    "function name": (ONE, lambda: 'python("rows")'),
    "function returns nothing": (ONE, _function("    pass\n")),
    "function returns a dict": (ONE, _function("    return {'x': np.zeros((3, 4), 'f')}\n")),
    "function yields tuples": (ONE, _function("    yield 1, 2\n")),
    "function forgets an input": (TWO, _function("    yield {'ids': np.ones(3, int)}\n")),
    "function raises": (ONE, _function("    yield {'x': np.zeros((3, 4), 'f')}\n    raise KeyError('lost')\n")),
    "function gives objects": (ONE, _function("    yield {'x': ['a', None]}\n")),
    "function gives other samples": (
        ONE,
        _function("    yield {'x': np.zeros((3, 4), 'f')}\n    yield {'y': 1, 'z': 2}\n"),
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_each_mistake_is_one_error(case: str, update_golden: bool) -> None:
    inputs, write = MISTAKES[case]
    path = write()
    with pytest.raises(MlcError) as caught:
        list(open_data(path, inputs, labels="y" if case.startswith("labels") else None).batches(4))
    assert caught.value.exit_status == 2
    assert len(caught.value.diagnostics) == 1
    same(GOLDEN, case, str(caught.value), update=update_golden)


def test_an_iterator_that_is_used_up_is_told() -> None:
    Path("mine.py").write_text(
        "import numpy as np\nONCE = iter([{'x': np.zeros((3, 4), 'f')}] * 3)\ndef rows():\n    return ONCE\n"
    )
    with pytest.raises(MlcError, match="yields 0 samples now, and yielded 3 before"):
        open_data("mine.py:rows", ONE)


def test_what_can_be_iterated_again_is_kept_and_generators_are_called_again() -> None:
    Path("mine.py").write_text(
        "import numpy as np\nCALLS = []\n"
        "def rows():\n    CALLS.append('list')\n    return [{'x': np.zeros((3, 4), 'f')}] * 3\n"
        "def stream():\n    CALLS.append('stream')\n    yield from rows()\n"
    )
    for name in ("rows", "stream"):
        data = open_data(f"mine.py:{name}", ONE)
        for _ in range(4):
            assert len(list(data.batches())) == 3
        calls = data.stream._function.__globals__["CALLS"]  # type: ignore[attr-defined]
        assert len(calls) == 1 if name == "rows" else calls.count("stream") > 4
        before = calls.count("stream")
        assert len({part.facts()["sha256"] for part in data.split(seed=0)}) == 1
        assert calls.count("stream") == before + (name == "stream")  # both parts have one digest


def test_data_sets_and_loaders_of_pytorch() -> None:
    torch = pytest.importorskip("torch")

    class Set(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"x": torch.full((3, 4), float(index)), "y": index}

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Any:
            return (Set()[i] for i in range(7))

    load = torch.utils.data.DataLoader
    for function, rows in ((Set, 1), (lambda: load(Set(), batch_size=3), 3), (lambda: load(Stream(), batch_size=3), 3)):
        data = open_data(lambda made=function: made(), ONE, labels="y")
        assert len(data) == -(-7 // rows)
        batches = list(data.batches())
        assert [int(v) for b in batches for v in b.inputs["x"][:, 0, 0]] == list(range(7))
        assert [int(v) for b in batches if b.labels is not None for v in b.labels.ravel()] == list(range(7))


def test_a_file_may_define_dataclasses_and_import_its_neighbours(tmp_path: Path) -> None:
    Path("code").mkdir()
    Path("code/beside.py").write_text("import numpy as np\nROW = np.zeros((3, 4), 'f')\n")
    Path("code/mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom beside import ROW\n"
        "@dataclass\nclass Row:\n    x: object\n"
        "def rows():\n    return [vars(Row(ROW))]\n"
    )
    assert len(open_data("code/mine.py:rows", ONE)) == 1
    assert len(open_data('python("mine.py:rows")', ONE, base=tmp_path / "code")) == 1
