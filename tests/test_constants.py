"""Constants: every element type through memory, packed memory and a file, bit for bit and lazily."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlc.ir import constants
from mlc.ir.constants import ArrayPayload, Constant, FilePayload, PackedPayload
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.types import TensorType, tensor

NUMERIC = [d for d in DType if d is not DType.STR]


def every_code(dtype: DType, elements: int) -> np.ndarray:
    """Elements that together run through the bit patterns of a type (at random above 8 bits)."""
    if dtype.kind == "bool":
        return np.arange(elements) % 2 == 1
    if dtype.bits < 8:
        codes = np.arange(elements, dtype=np.uint8) % (1 << dtype.bits)
        return constants.unpack(np.frombuffer(constants.pack(codes, dtype), np.uint8), dtype, (elements,))
    raw = np.random.default_rng(0).integers(0, 256, elements * dtype.bits // 8).astype(np.uint8)
    return raw.view(dtype.numpy)


@pytest.mark.parametrize("dtype", NUMERIC)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3), (33,), (3, 0, 2)])
def test_every_home_holds_the_same_bits(dtype: DType, shape: tuple[int, ...], tmp_path: Path) -> None:
    elements = int(np.prod(shape))
    values = every_code(dtype, elements).reshape(shape)
    memory = Constant(TensorType(dtype, shape), ArrayPayload(values))
    data = memory.tobytes()
    assert len(data) == memory.nbytes == dtype.nbytes(elements)
    path = tmp_path / "weights"
    path.write_bytes(b"12345" + data)  # not aligned
    in_file = Constant(memory.type, FilePayload(path, 5, dtype, shape))
    packed = Constant(memory.type, PackedPayload(np.frombuffer(data, np.uint8), dtype, shape))
    for other in (in_file, packed):
        assert other.array().shape == shape
        assert other.array().dtype == dtype.numpy
        assert other.array().tobytes() == values.tobytes()
        assert other.tobytes() == data
        assert other.same(memory)
        half = elements // 2 // 8 * 8
        assert other.flat(half, elements).tobytes() == values.reshape(-1)[half:].tobytes()


@given(st.sampled_from([d for d in DType if d.bits < 8 and d.bits]), st.lists(st.integers(0, 255), max_size=20))
def test_unpack_undoes_pack(dtype: DType, codes: list[int]) -> None:
    flat = np.array(codes, np.uint8)
    packed = constants.pack(flat, dtype)
    assert len(packed) == dtype.nbytes(len(codes))
    back = constants.unpack(np.frombuffer(packed, np.uint8), dtype, (len(codes),))
    assert constants.pack(back, dtype) == packed
    assert back.dtype == dtype.numpy


def test_sub_byte_elements_lie_first_in_the_low_bits() -> None:
    assert constants.pack(np.array([1, 2, 3], np.uint8), DType.U4) == bytes([0x21, 0x03])
    assert constants.pack(np.array([1, 2, 3, 0, 1], np.uint8), DType.U2) == bytes([0b00111001, 1])
    assert constants.unpack(np.array([0xF8], np.uint8), DType.I4, (2,)).astype(int).tolist() == [-8, -1]


def test_a_constant_takes_the_type_of_its_array() -> None:
    assert Constant.of(np.float32(0.5)).type == tensor(DType.F32)
    assert Constant.of([1, 2]).type == tensor(DType.I64, 2)
    assert Constant.of([1, 2], DType.I8).array().dtype == np.int8
    assert Constant.of(np.arange(3, dtype=">f4")).tobytes() == np.arange(3, dtype="<f4").tobytes()
    assert Constant.of(["a", "ß"]).type == tensor(DType.STR, 2)
    assert Constant.of(["a", "ß"]).nbytes == 3


def test_digests_tell_apart_bits_types_and_shapes() -> None:
    values = [
        Constant.of(np.zeros(4, np.float32)),
        Constant.of(np.full(4, -0.0, np.float32)),
        Constant.of(np.zeros((2, 2), np.float32)),
        Constant.of(np.zeros(4, np.int32)),
        Constant.of(["ab", "c"]),
        Constant.of(["a", "bc"]),
    ]
    assert len({c.digest() for c in values}) == len(values)
    assert not any(a.same(b) for a in values for b in values if a is not b)
    assert values[0].same(Constant.of(np.zeros(4, np.float32)))


def test_elements_are_read_only(tmp_path: Path) -> None:
    mine = np.zeros(3, np.float32)
    held = Constant.of(mine)
    with pytest.raises(ValueError, match="read-only"):
        held.array()[0] = 1
    mine[0] = 1  # the caller's array is as writable as before


@pytest.mark.parametrize("loss", ["gone", "short"])
def test_a_file_lost_meanwhile_is_named(loss: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.data"
    path.write_bytes(bytes(64))
    constant = Constant(tensor(DType.F32, 16), FilePayload(path, 0, DType.F32, (16,)))
    assert constant.array().sum() == 0
    if loss == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes(60))
    for read in (constant.array, constant.digest, lambda: constant.flat(8, 16)):
        with pytest.raises(MlcError, match=r"E0603.*cannot read 64 bytes at 0 of .*weights.data"):
            read()


def test_a_stretch_of_a_file_costs_no_more_than_itself(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(256 << 20)
    constant = Constant(tensor(DType.F32, 64 << 20), FilePayload(path, 0, DType.F32, (64 << 20,)))
    tracemalloc.start()
    try:
        assert constant.flat(1 << 20, (1 << 20) + 1024).size == 1024
        assert constant.array()[-1] == 0
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        for _ in constant.chunks():
            pass
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
