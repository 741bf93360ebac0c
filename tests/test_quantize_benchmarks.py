"""What the benchmarks of quantization measure with, and that their data are disjoint and always the same."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import zoo

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import quantize_data as data
import quantize_measures as measures
import quantize_ocr


def test_intervals_cover_and_shrink_with_samples() -> None:
    draw = np.random.default_rng(0)
    few, many = (measures.mean(draw.normal(3, 1, n)) for n in (50, 5000))
    assert few.low < few.value < few.high
    assert few.low < 3 < few.high
    assert many.high - many.low < (few.high - few.low) / 5
    assert f"{measures.Interval(1, 0.5, 2):.1f}" == "1.0 [0.5, 2.0]"


def test_signal_to_noise_and_cosines() -> None:
    wanted = np.random.default_rng(0).normal(size=(400, 30))
    noise = np.random.default_rng(1).normal(size=(400, 30))
    assert measures.sqnr(wanted, wanted + 0.1 * noise).value == pytest.approx(20, abs=0.2)
    np.testing.assert_allclose(measures.cosines(wanted, -3 * wanted), -1)


@pytest.mark.parametrize(
    ("a", "b", "edits"), [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("flaw", "lawn", 2)]
)
def test_edit_distance(a: str, b: str, edits: int) -> None:
    assert quantize_ocr.distance(a, b) == quantize_ocr.distance(b, a) == edits


def test_characters_right_are_counted_over_all_lines() -> None:
    assert quantize_ocr.accuracy(["abcd", "ef"], ["abcx", "ef"]).value == pytest.approx(100 * 5 / 6)


@pytest.fixture
def news() -> None:
    try:
        zoo.weights("lee")
    except zoo.ZooUnavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.usefixtures("news")
def test_sentences_are_disjoint_and_seeded() -> None:
    parts = [data.sentences(part, 100) for part in data.PARTS]
    assert [len(p) for p in parts] == [100] * 3
    assert len({s for p in parts for s in p}) == 300
    assert all(6 <= len(s.split()) <= 60 for p in parts for s in p)
    assert data.sentences("judge", 50) == parts[2][:50]


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.usefixtures("news")
def test_lines_fit_their_canvas() -> None:
    found = {part: data.lines(part) for part in data.PARTS}
    assert {part: len(rows) for part, rows in found.items()} == {"calibrate": 64, "tune": 60, "judge": 200}
    assert not {t for t, _ in found["judge"]} & {t for t, _ in found["calibrate"] if len(t.split()) > 2}


@pytest.mark.slow
@pytest.mark.real
def test_photos_of_the_parts_are_different_ones() -> None:
    try:
        names = [{p.name for p in data.photos(part)} for part in data.PARTS]
    except zoo.ZooUnavailable as reason:
        pytest.skip(str(reason))
    assert [len(n) for n in names] == [20, 3, 5]
    assert len(set.union(*names)) == 28


def test_crops_are_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(data, "photos", lambda part: [tmp_path / "a.png"])
    found = data.crops("calibrate", 32)
    assert (found.shape, found.dtype) == ((4, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(found, data.crops("calibrate", 32))
    assert data.standardised(found).shape == (4, 3, 32, 32)


def test_samples_come_back_without_padding(tmp_path: Path) -> None:
    path = tmp_path / "text.npz"
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    np.savez(path, input_ids=np.array([[5, 6, 0], [7, 8, 9]]), attention_mask=mask)
    assert [feeds["input_ids"].tolist() for feeds in data.batches(path)] == [[[5, 6]], [[7, 8, 9]]]
