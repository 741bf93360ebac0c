"""Images: declared preprocessing against a plain reading of the words, labels from folders, one error per mistake."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import demanding
from kit.golden import same

import mlc
from mlc import open_data
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.types import tensor

Image = pytest.importorskip("PIL.Image")
GOLDEN = Path(__file__).parent / "golden" / "data" / "images.txt"
RGB = {"x": tensor(DType.F32, "N", 3, "H", "W")}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pixels(height: int = 8, width: int = 8, *, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def put(name: str, array: np.ndarray[Any, Any]) -> None:
    path = Path("photos", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def read(arguments: str = "", inputs: Any = RGB, **settings: Any) -> np.ndarray[Any, Any]:
    """The first sample."""
    (array,) = next(iter(open_data(f'images("photos"{arguments})', inputs, **settings).batches())).inputs.values()
    return array[0]


def test_pixels_are_scaled_and_laid_out_as_declared() -> None:
    raw = pixels()
    put("a.png", raw)
    np.testing.assert_array_equal(read(), raw.transpose(2, 0, 1).astype(np.float32) / 255)
    np.testing.assert_array_equal(read(", scale=1"), raw.transpose(2, 0, 1).astype(np.float32))
    np.testing.assert_array_equal(read(", channels=bgr, scale=1"), raw[:, :, ::-1].transpose(2, 0, 1))
    nhwc = {"x": tensor(DType.F32, "N", 8, 8, 3)}
    np.testing.assert_array_equal(read(", layout=nhwc, scale=2, mean=1", nhwc), raw * np.float32(2) - 1)
    half = read(f", mean={MEAN}, std={STD}", {"x": tensor(DType.F16, 1, 3, 8, 8)})
    wanted = (raw.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_array_equal(half, wanted.transpose(2, 0, 1).astype(np.float16))
    np.testing.assert_array_equal(read("", {"x": tensor(DType.U8, "N", 3, 8, 8)}), raw.transpose(2, 0, 1))
    gray = read(", channels=gray, scale=1", {"x": tensor(DType.F32, "N", 1, 8, 8)})
    np.testing.assert_array_equal(gray[0], np.asarray(Image.fromarray(raw).convert("L")))
    assert all(read(text).flags.c_contiguous for text in ("", ", channels=bgr"))


def test_sizes_are_made_as_declared() -> None:
    """A picture that is black on the left and white on the right shows where it was cut, squeezed or padded."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 30:] = 255
    put("a.png", wide)
    crop = read(", size=10")
    assert crop.shape == (3, 10, 10)
    assert (crop[0, :, :4] == 0).all()
    assert (crop[0, :, 6:] == 1).all()
    inner = read(", size=10, resize=40, interpolation=nearest")  # the 10 pixels in the middle of 120 x 40
    assert (inner[0, :, :5] == 0).all()
    assert (inner[0, :, 5:] == 1).all()
    stretch = read(", size=[10, 30], fit=stretch, interpolation=nearest")
    np.testing.assert_array_equal(stretch[0], np.repeat([[0.0] * 15 + [1.0] * 15], 10, axis=0))
    padded = read(", size=30, fit=pad, fill=51, interpolation=nearest")
    np.testing.assert_allclose(padded[0, [0, 9, 20, 29]], 0.2)
    np.testing.assert_array_equal(padded[0, 10:20], np.repeat([[0.0] * 15 + [1.0] * 15], 10, axis=0))
    assert read(", size=[10, 40]").shape == (3, 10, 40)
    assert read(", size=[40, 10]").shape == (3, 40, 10)


@pytest.mark.parametrize(("height", "width"), [(20, 60), (61, 37), (256, 255), (33, 33)])
def test_a_center_crop_is_that_of_torchvision(height: int, width: int) -> None:
    """Its formula: shorter side to 32, longer side rounded down, corners of the crop rounded half to even."""
    raw = pixels(height, width)
    put("a.png", raw)
    short, long = 32, int(32 * max(height, width) / min(height, width))
    size = (short, long) if width <= height else (long, short)
    resized = np.asarray(Image.fromarray(raw).resize(size, Image.Resampling.BILINEAR))
    top, left = (int(round((n - 28) / 2.0)) for n in resized.shape[:2])  # noqa: RUF046 (as it is written there)
    cut = resized[top : top + 28, left : left + 28].astype(np.float32) / 255
    wanted = (cut - np.float32(MEAN)) / np.float32(STD)
    found = read(f", size=28, resize=32, mean={MEAN}, std={STD}")
    np.testing.assert_array_equal(found, wanted.transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_exif_says(orientation: int) -> None:
    """Stored as a camera held askew stores it, read as people see it."""
    upright = np.kron(np.arange(6, dtype=np.uint8).reshape(3, 2) * 40, np.ones((16, 16), np.uint8))
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    Path("photos").mkdir()
    image.save("photos/a.png", exif=image.getexif())
    found = read(", channels=gray, scale=1", {"x": tensor(DType.F32, "N", 1, "H", "W")})
    np.testing.assert_array_equal(found[0], upright)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (tensor(DType.F32, "N", 3, 96, 128), 'images("photos", size=[96, 128])'),
        (tensor(DType.F32, "N", 3, 640, 640), 'images("photos", size=640)'),
        (tensor(DType.F32, "N", 3, "H", "W"), 'images("photos", size=224)'),
        (tensor(DType.U8, 1, 48, 48, 3), 'images("photos", size=48, layout=nhwc)'),
        (tensor(DType.F32, "N", 1, 28, 28), 'images("photos", size=28, channels=gray)'),
    ],
)
def test_a_bare_folder_is_told_what_to_write(kind: Any, says: str) -> None:
    """And what is told runs."""
    put("a.png", pixels())
    with pytest.raises(MlcError) as refusal:
        open_data("photos", {"x": kind})
    assert f"write '{says}'" in refusal.value.diagnostics[0].help
    assert len(open_data(says, {"x": kind})) == 1


def test_labels_are_the_folders_of_images() -> None:
    for name in ("cat/2.png", "cat/10.png", "dog/1.png", "dog/old/3.png"):
        put(name, pixels())
    data = open_data('images("photos", labels=class)', RGB)
    assert [int(b.labels[0]) for b in data.batches()] == [0, 1, 1, 0]
    assert [s.where.rpartition(": ")[2] for s in data.read()] == [
        "cat/2.png",
        "dog/1.png",
        "dog/old/3.png",
        "cat/10.png",  # one of each folder in turn, as people count
    ]
    Path("names.txt").write_text("dog\nfish\ncat\n")
    ordered = open_data('images("photos", labels=class, classes="names.txt")', RGB)
    assert [int(b.labels[0]) for b in ordered.batches()] == [2, 0, 0, 2]
    assert data.digest != ordered.digest
    Path("photos/ape").mkdir()  # a class without images has a number, too
    assert [int(b.labels[0]) for b in open_data('images("photos", labels=class)', RGB).batches()] == [1, 2, 2, 1]


def test_what_is_no_image_is_told_and_links_are_followed_once() -> None:
    put("a.png", pixels())
    Path("photos/readme.txt").write_text("hello")
    Path("photos/.hidden.png").write_text("no image")
    Path("photos/loop").symlink_to(Path("photos").resolve(), target_is_directory=True)
    data = open_data('images("photos")', RGB)
    assert len(data) == 1
    assert data.stream.notes == ["not used: 1 files that are no images, e.g. 'readme.txt'"]


def test_images_are_decoded_one_by_one() -> None:
    for index in range(24):
        put(f"{index}.png", np.full((300, 300, 3), index, np.uint8))  # 1 MB each as floats
    data = open_data('images("photos", scale=1)', RGB)
    tracemalloc.start()
    assert [int(b.inputs["x"][0, 0, 0, 0]) for b in data.batches()] == list(range(24))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_the_hash_covers_pixels_and_preprocessing() -> None:
    put("a.png", pixels())
    texts = ["", ", scale=1", f", mean={MEAN}"]
    digests = {open_data(f'images("photos"{text})', RGB).digest for text in texts}
    put("a.png", pixels(seed=1))
    digests.add(open_data('images("photos")', RGB).digest)
    assert len(digests) == 4


# -- mistakes --------------------------------------------------------------------------------------------------


def _truncated() -> None:
    raw = Path("photos/0.png").read_bytes()
    Path("photos/7.png").write_bytes(raw[: len(raw) // 2])


def _deep() -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save("photos/7.png")


def _foreign() -> None:
    Path("photos").rename("ape")
    Path("photos").mkdir()
    Path("ape").rename("photos/ape")
    Path("c.txt").write_text("cat\n")


FIXED = {"x": tensor(DType.F32, "N", 3, 16, 16)}
BYTES = {"x": tensor(DType.U8, "N", 3, 8, 8)}
MISTAKES: dict[str, tuple[str, Any, Any]] = {
    "truncated": ("", RGB, _truncated),
    "no image": ("", RGB, lambda: Path("photos/7.jpg").write_text("<html>")),
    "16 bits": ("", RGB, _deep),
    "wrong size": ("", FIXED, None),
    "wrong layout": (", size=16, layout=nhwc", FIXED, None),
    "no images": ("", RGB, lambda: [f.unlink() for f in Path("photos").iterdir()]),
    "no folder": ("", RGB, lambda: Path("photos").rename("other")),
    "no class folder": (", labels=class", RGB, None),
    "unknown class": (', labels=class, classes="c.txt"', RGB, _foreign),
    "no file of classes": (', labels=class, classes="c.txt"', RGB, None),
    "classes without labels": (', classes="c.txt"', RGB, None),
    "other labels": (", labels=y", RGB, None),
    "two inputs": ("", {**RGB, "y": RGB["x"]}, None),
    "no such input": (", input=z", RGB, None),
    "integers": ("", {"x": tensor(DType.I64, "N", 3, 8, 8)}, None),
    "scaled bytes": (", scale=1", BYTES, None),
    "resize below size": (", size=16, resize=12", RGB, None),
    "resize alone": (", resize=12", RGB, None),
    "fill without pad": (", size=16, fill=3", RGB, None),
    "fit without size": (", fit=pad", RGB, None),
    "three sizes": (", size=[1, 2, 3]", RGB, None),
    "two means": (", mean=[1, 2]", RGB, None),
    "std of zero": (", std=0", RGB, None),
    "unknown fit": (", fit=cover", RGB, None),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_each_mistake_is_one_error(case: str, update_golden: bool) -> None:
    text, inputs, spoil = MISTAKES[case]
    for index in range(7):
        put(f"{index}.png", pixels())
    if spoil is not None:
        spoil()
    with pytest.raises(MlcError) as caught:
        list(open_data(f'images("photos"{text})', inputs).batches())
    assert len(caught.value.diagnostics) == 1
    same(GOLDEN, case, str(caught.value), update=update_golden)


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    put("a.png", pixels())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MlcError, match=r"error\[E0504\]: 'images' needs PIL[\s\S]*pip install 'mlc-compress\[images\]'"
    ):
        open_data('images("photos")', RGB)


def test_photos_that_do_not_fit_are_told_a_size(tmp_path: Path) -> None:
    """And with it they are read."""
    module = mlc.load(demanding.write(tmp_path, demanding.halved))
    put("a.png", pixels(33, 46))
    for size, says in (("", "give size=[32, 44]"), (", size=46", "give size=44")):
        with pytest.raises(MlcError) as refusal:
            open_data(f'images("photos"{size})', module)
        assert refusal.value.diagnostics[0].help == says
        assert len(open_data(f'images("photos", {says.removeprefix("give ")})', module)) == 1
