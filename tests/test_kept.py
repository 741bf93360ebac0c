"""Arrays that wait in a file: the same bits again, in no memory meanwhile, and nothing left behind."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest

from mlc.ir.errors import Code, MlcError
from mlc.passes.quantize.kept import Shelf

LARGE = np.random.default_rng(0).normal(size=(300, 7, 512)).astype(np.float32)


@pytest.mark.parametrize(
    "arrays",
    [
        [LARGE, LARGE.astype(np.float16), LARGE.transpose(2, 0, 1), (LARGE * 100).astype(np.int8), LARGE],
        [np.zeros(0, np.float32), np.float32(3).reshape(()), np.array(["a", "b"], object), LARGE],
        [np.array(["text"] * 200_000, object), LARGE],
    ],
)
def test_what_is_kept_comes_back(arrays: list[np.ndarray]) -> None:
    shelf = Shelf()
    kept = [shelf.put(array) for array in arrays]
    for array, again in zip(arrays, kept):
        for found in (again(), again()):
            assert found.dtype == array.dtype
            assert found.shape == array.shape
            assert np.array_equal(found, array)


def test_large_arrays_are_mapped_and_have_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    again = Shelf().put(LARGE)
    assert isinstance(again(), np.memmap)
    assert not list(tmp_path.iterdir())


def test_no_room_to_write() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(MlcError) as caught:
            Shelf().put(LARGE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.diagnostics[0].code is Code.OUTPUT
