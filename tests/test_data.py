"""Streamed samples: shapes, splits, padding, and one clear error per mistake."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlc import open_data
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.types import tensor

IMAGE = {"x": tensor(DType.F32, "N", 3, 4)}


def archive(folder: Path, **arrays: Any) -> Path:
    path = folder / "d.npz"
    np.savez(path, **arrays)
    return path


def test_batches_keep_order_and_cover_everything(tmp_path: Path) -> None:
    values = np.arange(10 * 12, dtype=np.float32).reshape(10, 3, 4)
    data = open_data(archive(tmp_path, x=values, y=np.arange(10)), IMAGE, labels="y")
    batches = list(data.batches(4))
    assert [b.n for b in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([b.inputs["x"] for b in batches]), values)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches if b.labels is not None]), np.arange(10))


def test_the_only_array_feeds_the_only_input_whatever_its_key(tmp_path: Path) -> None:
    data = open_data(archive(tmp_path, anything=np.zeros((2, 3, 4), np.float32)), IMAGE)
    assert data.names == ("x",)
    assert len(data) == 2


def test_samples_that_are_whole_inputs(tmp_path: Path) -> None:
    types = {"x": tensor(DType.F32, 1, "T"), "rate": tensor(DType.I64)}
    path = archive(tmp_path, x=np.zeros((5, 1, 7), np.float32), rate=np.full(5, 16000))
    batches = list(open_data(path, types).batches(3))
    assert [b.n for b in batches] == [1] * 5
    assert batches[0].inputs["x"].shape == (1, 7)
    assert batches[0].inputs["rate"].shape == ()


def test_the_split_is_seeded_disjoint_and_complete(tmp_path: Path) -> None:
    values = np.arange(400, dtype=np.float32).reshape(400, 1)
    data = open_data(archive(tmp_path, x=values), {"x": tensor(DType.F32, "N", 1)})

    def samples(part: Any) -> set[float]:
        return {float(v) for b in part.batches(7) for v in b.inputs["x"].ravel()}

    calibrate, judge = data.split(seed=3)
    assert samples(calibrate) | samples(judge) == set(values.ravel())
    assert not samples(calibrate) & samples(judge)
    assert 0.12 < len(judge) / 400 < 0.28
    assert samples(data.split(seed=4)[1]) != samples(judge)
    assert len(judge) == len(samples(judge))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = archive(tmp_path, x=np.zeros((400, 3, 4000), np.float32))  # 19 MB
    data = open_data(path, {"x": tensor(DType.F32, "N", 3, 4000)})
    tracemalloc.start()
    assert sum(b.n for b in data.batches(2)) == 400
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros((2, 3, 4), np.float32), "w": np.zeros(2)}, "no array for input 'x'"),
        ({"x": np.zeros((2, 3, 4))}, "is float64; the model wants float32"),
        ({"x": np.zeros((2, 3), np.float32)}, "has shape [3]; the model wants [3, 4] or the whole of f32[N, 3, 4]"),
        ({"x": np.zeros((2, 5, 4), np.float32)}, "has 5 on axis 1 (shape [5, 4]); the model wants 3"),
        ({"x": np.zeros((0, 3, 4), np.float32)}, "holds no samples"),
        ({"x": np.array([object()])}, "not a readable array: object arrays"),
        ({"x": np.asfortranarray(np.zeros((2, 3, 4), np.float32))}, "column-major"),
    ],
)
def test_mistakes_in_the_data(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(MlcError) as caught:
        open_data(archive(tmp_path, **arrays), IMAGE)
    assert message in str(caught.value)


def test_models_of_a_fixed_batch_take_whole_inputs(tmp_path: Path) -> None:
    types = {"x": tensor(DType.F32, 4, 3)}
    with pytest.raises(MlcError, match=r"one run takes 4 on axis 0") as caught:
        open_data(archive(tmp_path, x=np.zeros((8, 3), np.float32)), types)
    assert "whole inputs, one axis more: [4, 3]" in str(caught.value)
    whole = open_data(archive(tmp_path, x=np.zeros((2, 4, 3), np.float32)), types)
    assert [b.inputs["x"].shape for b in whole.batches(8)] == [(4, 3)] * 2


def test_nan_is_refused_naming_the_sample(tmp_path: Path) -> None:
    values = np.zeros((4, 3, 4), np.float32)
    values[2, 1, 1] = np.nan
    data = open_data(archive(tmp_path, x=values), IMAGE)
    with pytest.raises(MlcError, match=r"input 'x' holds NaN\n  --> sample 2 of '.*d.npz'"):
        list(data.batches(1))


def test_missing_broken_and_unlabelled_files(tmp_path: Path) -> None:
    with pytest.raises(MlcError, match="there is no data file"):
        open_data(tmp_path / "none.npz", IMAGE)
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK not really")
    with pytest.raises(MlcError, match=r"not a readable \.npz"):
        open_data(broken, IMAGE)
    good = archive(tmp_path, x=np.zeros((2, 3, 4), np.float32))
    with pytest.raises(MlcError, match="there are no labels 'y'"):
        open_data(good, IMAGE, labels="y")


# -- padding ---------------------------------------------------------------------------------------------------

TEXT = {"ids": tensor(DType.I64, "N", "S"), "mask": tensor(DType.I64, "N", "S"), "scale": tensor(DType.F32, "N", 4)}
LENGTHS = [3, 5, 3, 1, 5, 3, 2]


def padded(lengths: list[int], width: int = 6) -> dict[str, Any]:
    """Samples of these lengths: ids count from 100 * the sample's number, padding is -1."""
    mask = np.array([[int(i < n) for i in range(width)] for n in lengths], np.int64)
    ids = np.where(mask == 1, 100 * np.arange(len(lengths))[:, None] + np.arange(width), -1)
    return {"ids": ids, "mask": mask, "scale": np.zeros((len(lengths), 4), np.float32)}


def test_a_mask_cuts_samples_to_their_real_length(tmp_path: Path) -> None:
    data = open_data(archive(tmp_path, **padded(LENGTHS)), TEXT, mask="mask")
    rows = [b.inputs for b in data.batches()]
    assert [r["ids"].shape[1] for r in rows] == LENGTHS  # one by one, in file order
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(row["ids"][0], 100 * index + np.arange(LENGTHS[index]))
        assert row["mask"].all()
        assert row["mask"].shape == row["ids"].shape
        assert row["scale"].shape == (1, 4)


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_batches_hold_samples_of_one_length_and_cover_everything(size: int, tmp_path: Path) -> None:
    data = open_data(archive(tmp_path, **padded(LENGTHS), y=np.arange(7)), TEXT, mask="mask", labels="y")
    batches = list(data.batches(size))
    assert all(b.n == len(b.inputs["ids"]) <= size for b in batches)
    assert sorted(int(v) for b in batches for v in b.inputs["ids"][:, 0]) == [100 * i for i in range(7)]
    for b in batches:
        assert b.labels is not None
        np.testing.assert_array_equal(b.inputs["ids"][:, 0], 100 * b.labels)
    if size == 2:
        assert [b.n for b in batches].count(2) == 2  # two of the threes, the fives


def test_few_samples_wait_for_others_of_their_length(tmp_path: Path) -> None:
    lengths = [1 + i % 40 for i in range(400)]
    data = open_data(archive(tmp_path, **padded(lengths, 40)), TEXT, mask="mask")
    seen: list[int] = []
    for batch in data.batches(4):
        seen += [int(v) // 100 for v in batch.inputs["ids"][:, 0]]
        assert max(seen) - len(seen) < 4 * 8
    assert sorted(seen) == list(range(400))


def test_whole_samples_are_cut_too(tmp_path: Path) -> None:
    types = {"x": tensor(DType.F32, 1, "S", 2), "mask": tensor(DType.BOOL, 1, 1, "S", "S")}
    mask = np.zeros((2, 1, 1, 4, 4), bool)
    mask[0, ..., :3] = mask[1, ..., :2] = True
    data = open_data(archive(tmp_path, x=np.zeros((2, 1, 4, 2), np.float32), mask=mask), types, mask="mask")
    shapes = [(b.inputs["x"].shape, b.inputs["mask"].shape) for b in data.batches(2)]
    assert shapes == [((1, 3, 2), (1, 1, 3, 3)), ((1, 2, 2), (1, 1, 2, 2))]


def test_the_mask_is_part_of_what_the_samples_are(tmp_path: Path) -> None:
    path = archive(tmp_path, **padded(LENGTHS))
    whole, cut = open_data(path, TEXT), open_data(path, TEXT, mask="mask")
    assert whole.fingerprint() != cut.fingerprint()
    assert all(b.inputs["mask"].all() for part in cut.split(seed=0) for b in part.batches(3))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[0, 1, 1], [1, 1, 1]], "sample 0 .* is not one end of it"),
        ([[1, 1, 1], [1, 0, 1]], "sample 1 .* is not one end of it"),
        ([[1, 1, 1], [0, 0, 0]], "sample 1 .* is nothing but padding"),
        ([[2, 1, 0], [1, 1, 1]], "sample 0 .* holds more than 0 and 1"),
    ],
)
def test_masks_that_mark_no_end(mask: list[list[int]], message: str, tmp_path: Path) -> None:
    types = {"ids": tensor(DType.I64, "N", "S"), "mask": tensor(DType.I64, "N", "S")}
    path = archive(tmp_path, ids=np.zeros((2, 3), np.int64), mask=np.array(mask))
    with pytest.raises(MlcError, match=message):
        list(open_data(path, types, mask="mask").batches())


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ({"ids": tensor(DType.I64, "N", "S")}, "no input 'mask' that masks"),
        ({"ids": tensor(DType.I64, "N", 3), "mask": tensor(DType.I64, "N", 3)}, "its last axis is of fixed size"),
        ({"ids": tensor(DType.I64, "N", "T"), "mask": tensor(DType.I64, "N", "S")}, "no other input has an axis"),
        ({"ids": tensor(DType.I64, "S"), "mask": tensor(DType.I64, "N", "S")}, "along the axis that 'mask' masks"),
    ],
)
def test_inputs_that_no_mask_cuts(types: dict[str, Any], message: str, tmp_path: Path) -> None:
    ids = np.zeros((2, 3) if types["ids"].rank == 2 else 2, np.int64)
    with pytest.raises(MlcError, match=message):
        open_data(archive(tmp_path, ids=ids, mask=np.ones((2, 3), np.int64)), types, mask="mask")
