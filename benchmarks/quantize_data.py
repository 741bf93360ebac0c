"""What quantization is calibrated with, tuned on and judged by: three disjoint sets of samples for each model.

    python benchmarks/quantize_data.py minilm [FOLDER]      writes minilm-{calibrate,tune,judge}.npz

Settings are chosen on `tune`; `judge` is looked at once, for the numbers that are published. The three come from
different documents or photos, by fixed seeds, and only from pinned files (examples/zoo.toml, fashion_mnist.py):

sentences   MiniLM. News: documents 1-200 of the Lee background corpus calibrate, 201-300 tune, the Lee corpus judges.
windows     SmolLM2, 512 tokens. The background corpus: documents 1-150 calibrate, 151-180 tune, 181-300 judge.
photos      classifiers, random square crops: 20 photos calibrate, 3 others tune, 5 others judge.
lines       PP-OCRv4 recognition: rendered pieces of the same news, on a canvas of 48 x 320.
fashion     training images calibrate and tune, the test images judge.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import ocr
import zoo

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

PARTS = ("calibrate", "tune", "judge")
CACHE = Path.home() / ".cache" / "mlc-datasets"
RECIPE = 1  # part of the cache key: raise it when anything below changes
WINDOW = 512
CANVAS = 320


@dataclass(frozen=True)
class Sets:
    """The files of one model; `mask` is the input that marks padding, if there is one."""

    calibrate: Path
    tune: Path
    judge: Path
    mask: str | None


def sets(name: str, folder: Path | None = None) -> Sets:
    """The three sets of a model, made when they are not there yet."""
    root = folder or CACHE / f"quantize-{RECIPE}"
    root.mkdir(parents=True, exist_ok=True)
    files = {part: root / f"{name}-{part}.npz" for part in PARTS}
    for part, path in files.items():
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}.npz")
            np.savez(partial, **MODELS[name](part))
            partial.replace(path)
    return Sets(**files, mask="attention_mask" if name in MASKED else None)


def batches(path: Path) -> Iterator[Arrays]:
    """The samples of a set one by one, cut to their real length."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "labels"}
    for index in range(len(next(iter(arrays.values())))):
        row = {name: a[index : index + 1] for name, a in arrays.items()}
        real = int(row["attention_mask"].sum()) if "attention_mask" in row else None
        yield {name: a if real is None else a[:, :real] for name, a in row.items()}


# -- text ------------------------------------------------------------------------------------------------------


def documents(part: str, bounds: tuple[int, int]) -> list[str]:
    """News documents: of the background corpus up to bounds[0] and bounds[1], and of the Lee corpus to judge."""
    folder = zoo.weights("lee").parent
    lines = (folder / "lee_background.cor").read_text(encoding="latin-1").splitlines()
    others = (folder / "lee.cor").read_text(encoding="latin-1").splitlines()
    return {"calibrate": lines[: bounds[0]], "tune": lines[bounds[0] : bounds[1]], "judge": others}[part]


def sentences(part: str, count: int) -> list[str]:
    """Sentences of 6 to 60 words, in random order; none of the judges is in the other parts."""
    known = {s for other in PARTS[: PARTS.index(part)] for s in _sentences(documents(other, (200, 300)))}
    found = [s for s in _sentences(documents(part, (200, 300))) if s not in known]
    order = np.random.default_rng(PARTS.index(part)).permutation(len(found))
    return [found[i] for i in order[:count]]


def license_sentences() -> list[str]:
    """Text of another kind than all the news: sentences of the LICENSE file."""
    return _sentences([(Path(__file__).resolve().parents[1] / "LICENSE").read_text()])


def _sentences(texts: Sequence[str]) -> list[str]:
    found = (s for text in texts for s in re.split(r"(?<=[.!?;:])\s+", re.sub(r"\s+", " ", text).strip()))
    return list(dict.fromkeys(s for s in found if 6 <= len(s.split()) <= 60))


def minilm_inputs(texts: Sequence[str]) -> dict[str, Array]:
    """Token ids of sentences, padded to the longest."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(zoo.weights("minilm").with_name("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    rows = [tokenizer.encode(t).ids for t in texts]
    width = max(map(len, rows))
    ids = np.array([r + [0] * (width - len(r)) for r in rows], np.int64)
    mask = np.array([[1] * len(r) + [0] * (width - len(r)) for r in rows], np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _minilm(part: str) -> Arrays:
    return minilm_inputs(sentences(part, {"calibrate": 150, "tune": 100, "judge": 100}[part]))


@functools.cache
def smollm2_tokenizer() -> Any:
    """The byte-pair encoding inside the GGUF file: digits one by one, then GPT-2's splitting."""
    from gguf import GGUFReader
    from tokenizers import Tokenizer, models, pre_tokenizers

    fields = GGUFReader(str(zoo.weights("smollm2_135m"))).fields
    tokens, merges = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "merges"))
    pairs = [tuple(merge.split(" ")) for merge in merges]
    found = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=pairs))
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    found.pre_tokenizer = pre_tokenizers.Sequence(split)
    return found


def _smollm2(part: str) -> Arrays:
    lines = (zoo.weights("lee").parent / "lee_background.cor").read_text(encoding="latin-1").splitlines()
    first, last, count = {"calibrate": (0, 150, 16), "tune": (150, 180, 8), "judge": (180, 300, 24)}[part]
    ids = smollm2_tokenizer().encode("\n".join(lines[first:last])).ids
    if len(ids) < count * WINDOW:
        raise ValueError(f"{part} has {len(ids)} tokens, not {count * WINDOW}")
    return {"input_ids": np.array(ids[: count * WINDOW], np.int64).reshape(count, WINDOW)}


# -- photos ----------------------------------------------------------------------------------------------------

TUNE = ("chelsea.png", "coffee.png", "motorcycle_left.png")
JUDGE = ("astronaut.png", "camera.png", "rocket.jpg", "china.jpg", "flower.jpg")
CROPS = {"calibrate": 4, "tune": 20, "judge": 20}


def photos(part: str) -> list[Path]:
    """The photos of a part."""
    if part == "calibrate":
        return sorted(zoo.weights("photos_imagenet").parent.glob("*.jpg"))
    folders = [zoo.weights(name).parent for name in ("photos_skimage", "photos_sklearn")]
    wanted = TUNE if part == "tune" else JUDGE
    return [path for folder in folders for path in sorted(folder.iterdir()) if path.name in wanted]


def crops(part: str, size: int = 224) -> Array:
    """Random square crops of half to all of the short side, half of them mirrored: uint8 [n, size, size, 3]."""
    from PIL import Image

    draw = np.random.default_rng(10 + PARTS.index(part))
    found = []
    for path in photos(part):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        for _ in range(CROPS[part]):
            side = int(min(image.size) * draw.uniform(0.5, 1))
            left, top = (int(draw.integers(0, have - side + 1)) for have in image.size)
            piece = image.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
            pixels = np.asarray(piece)
            found.append(pixels[:, ::-1] if draw.random() < 0.5 else pixels)
    return np.stack(found)


def standardised(pixels: Array) -> Array:
    """As torchvision's classifiers want them: [n, 3, h, w], zero mean and unit deviation over ImageNet."""
    mean, deviation = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return np.ascontiguousarray(((pixels.astype(np.float32) / 255 - mean) / deviation).transpose(0, 3, 1, 2))


def centred(pixels: Array) -> Array:
    """As the EfficientNet-Lite models want them: [n, 3, h, w] of about -1 to 1."""
    return np.ascontiguousarray(((pixels.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2))


def blue_first(pixels: Array) -> Array:
    """As Caffe's ResNet-50 wants them: [n, h, w, 3], blue first, minus the mean colour."""
    return np.ascontiguousarray(pixels[..., ::-1].astype(np.float32) - np.float32([104, 117, 123]))


def _photos(name: str, prepare: Callable[[Array], Array]) -> Callable[[str], Arrays]:
    return lambda part: {name: prepare(crops(part))}


# -- lines of text ---------------------------------------------------------------------------------------------


def lines(part: str) -> list[tuple[str, int]]:
    """(text, font size) of the lines to render: one to seven words of the news that fit the canvas."""
    draw = np.random.default_rng(20 + PARTS.index(part))
    found = []
    for sentence in sentences(part, 152) * 2:
        words, size = sentence.split(), int(draw.integers(22, 35))
        start = int(draw.integers(0, len(words) - 3))
        pieces = [" ".join(words[start : start + n]) for n in range(int(draw.integers(1, 8)), 0, -1)]
        fitting = (text for text in pieces if ocr.render(text, font_size=size).shape[-1] <= CANVAS)
        text = next(fitting, "")
        if len(text) > 3:
            found.append((text, size))
    return found[: {"calibrate": 64, "tune": 60, "judge": 200}[part]]


def _ocr(part: str) -> Arrays:
    rendered = [ocr.render(text, font_size=size) for text, size in lines(part)]
    canvas = np.ones((len(rendered), 3, ocr.HEIGHT, CANVAS), np.float32)  # white, as all around the letters
    for row, image in zip(canvas, rendered):
        row[..., : image.shape[-1]] = image[0]
    return {"x": canvas}


# -- images of clothes -----------------------------------------------------------------------------------------


def _fashion(part: str) -> Arrays:
    import fashion_mnist

    train, test = fashion_mnist.load()
    order = np.random.default_rng(30).permutation(len(train))
    chosen = {"calibrate": train.part(order[:512]), "tune": train.part(order[512:5512]), "judge": test}[part]
    return {"input": chosen.images, "labels": chosen.labels}


MODELS: Mapping[str, Callable[[str], Arrays]] = {
    "minilm": _minilm,
    "smollm2_135m": _smollm2,
    "mobilenet_v2": _photos("input", standardised),
    "efficientnet_lite0": _photos("input", centred),
    "opennsfw": _photos("input:0", blue_first),
    "ppocrv4_rec": _ocr,
    "fashion": _fashion,
}
MASKED = ("minilm",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("folder", type=Path, nargs="?", help="default: the cache")
    chosen = parser.parse_args()
    found = sets(chosen.name, chosen.folder)
    for path in (found.calibrate, found.tune, found.judge):
        with np.load(path) as archive:
            print(path, {name: archive[name].shape for name in archive.files})


if __name__ == "__main__":
    main()
