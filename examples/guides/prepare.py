"""What a guide of docs/guides starts from: a folder with the model, its data and the recipe file of the guide.

    python examples/guides/prepare.py ocr|embeddings|digits|vad|ci FOLDER

Data are made here (rendered text, drawn digits, sung vowels, sentences of the LICENSE), so that everybody has the same.
They show how a guide works, not how good a model is on data of yours.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ocr as reading
import zoo

HERE = Path(__file__).resolve().parent
MODELS = {
    "ocr": "ppocrv4_rec",
    "embeddings": "minilm",
    "digits": "mnist_cnn",
    "vad": "silero_vad_op15",
    "ci": "mnist_cnn",
}
RATE, WINDOW, CONTEXT = 16000, 512, 64
#: The digits as lines through points xy on a grid of 10 by 10.
LINES = (
    "50 12 07 39 69 97 92 50",
    "50 49",
    "12 30 70 82 75 19 99",
    "10 60 82 74 44 74 86 69 19",
    "20 15 95 / 70 69",
    "90 20 24 74 87 69 19",
    "70 33 17 39 79 86 64 16",
    "10 90 49",
    "54 22 40 60 82 54 27 39 69 87 54",
    "82 64 34 12 30 70 82 69",
)
#: The resonances of four vowels in Hz.
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))


def ocr(folder: Path) -> None:
    """Rendered lines as images in `lines/` and `unseen/`, and `unseen.txt`: what stands on the latter."""
    from PIL import Image

    words = " ".join(sentences()).split()
    texts = [" ".join(words[i : i + 2]) for i in range(0, 2 * 36, 2)]
    for part, chosen in {"lines": texts[:8], "unseen": texts[8:24]}.items():
        (folder / part).mkdir()
        for number, text in enumerate(chosen):
            pixels = (reading.render(text)[0].transpose(1, 2, 0) * 0.5 + 0.5) * 255
            Image.fromarray(pixels.round().astype(np.uint8)).save(folder / part / f"{number:02}.png")
    (folder / "unseen.txt").write_text("\n".join(texts[8:24]), encoding="utf-8")
    (folder / "alphabet.txt").write_text("\n".join(reading.alphabet(folder / "ocr.onnx")[1:]), encoding="utf-8")


def embeddings(folder: Path) -> None:
    """Sentences, one a line, and the tokenizer of the model."""
    texts = sentences()
    (folder / "sentences.txt").write_text("\n".join(texts[:32]), encoding="utf-8")
    (folder / "unseen.txt").write_text("\n".join(texts[32:48]), encoding="utf-8")
    shutil.copy(zoo.weights("minilm").with_name("tokenizer.json"), folder)


def digits(folder: Path) -> None:
    """Drawn digits: 250 that calibrate, 200 that judge, with what they are."""
    for seed, (name, count) in enumerate({"digits.npz": 250, "unseen.npz": 200}.items()):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 10
        x = np.stack([_digit(int(label), rng) for label in labels])
        np.savez(folder / name, **{_only_input(folder / "digits.onnx"): x, "label": labels})


def vad(folder: Path) -> None:
    """A recording: vowels between pauses."""
    rng = np.random.default_rng(0)
    parts = [part for _ in range(3) for part in (np.zeros(RATE // 2), _voice(rng, 1.0))]
    sound = np.concatenate(parts)
    np.save(folder / "sound.npy", (sound + rng.normal(0, 0.003, len(sound))).astype(np.float32))


def sentences() -> list[str]:
    text = re.sub(r"\s+", " ", (HERE.parents[1] / "LICENSE").read_text(encoding="utf-8"))
    found = re.split(r"(?<=[.;:,])\s+", text)
    return [s for s in dict.fromkeys(found) if 4 <= len(s.split()) <= 40]


def _digit(label: int, rng: np.random.Generator) -> np.ndarray:
    """Lines by an unsteady hand, white on black, [1, 28, 28], scaled as MNIST was in training."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (112, 112))
    turn, size, place = rng.uniform(-0.15, 0.15), rng.uniform(6.5, 8), 56 + rng.uniform(-6, 6, 2)
    turned = size * np.array([[np.cos(turn) * 0.8, -np.sin(turn)], [np.sin(turn) * 0.8, np.cos(turn)]])
    for line in LINES[label].split(" / "):
        points = np.array([[int(digit) for digit in pair] for pair in line.split()]) - 4.5
        smooth = _curve(points + rng.normal(0, 0.25, points.shape)) @ turned.T + place
        ImageDraw.Draw(image).line([tuple(p) for p in smooth], fill=255, width=9, joint="curve")
    pixels = np.asarray(image.resize((28, 28), Image.Resampling.BOX), np.float32)[None] / 255
    return ((pixels - 0.1307) / 0.3081).astype(np.float32)


def _curve(points: np.ndarray) -> np.ndarray:
    """Corners cut twice (Chaikin); the ends stay."""
    for _ in range(2):
        a, b = points[:-1], points[1:]
        corners = np.stack([0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b], axis=1).reshape(-1, 2)
        points = np.concatenate([points[:1], corners, points[-1:]])
    return points


def _voice(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Vowels of a fifth of a second: harmonics of a voice of about 120 Hz, loud near the resonances."""
    time = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 3 * time)) / RATE
    sound, length = np.zeros_like(time), RATE // 5
    for start in range(0, len(time), length):
        piece, vowel = slice(start, start + length), VOWELS[int(rng.integers(4))]
        for harmonic in range(1, 40):
            near = sum(np.exp(-(((harmonic * 120 - f) / 120) ** 2)) for f in vowel)
            sound[piece] += (near + 0.02) * np.sin(harmonic * phase[piece]) * np.hanning(len(time[piece]))
    return sound / np.abs(sound).max() / 2


def _only_input(model: Path) -> str:
    import onnx

    return str(onnx.load(str(model)).graph.input[0].name)


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in MODELS:
        sys.exit(__doc__)
    name, folder = sys.argv[1], Path(sys.argv[2])
    shutil.copytree(HERE / name, folder)
    stem = "digits" if name == "ci" else name
    shutil.copy(zoo.path(MODELS[name]), folder / f"{stem}.onnx")
    {"ocr": ocr, "embeddings": embeddings, "digits": digits, "vad": vad, "ci": digits}[name](folder)


if __name__ == "__main__":
    main()
