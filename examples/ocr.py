"""Render a line of text and read it back with a PP-OCR recognition model: what the demo and tests judge by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT = 48  # the model's input height; the width follows the text


def render(text: str, *, font_size: int = 30) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Black text on white as the model wants it: float32 [1, 3, 48, W], (x / 255 - 0.5) / 0.5."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=font_size)
    left, top, right, bottom = font.getbbox(text)
    width = int(right - left) + 24
    image = Image.new("RGB", (width, HEIGHT), "white")
    baseline = (HEIGHT - (bottom - top)) / 2 - top
    ImageDraw.Draw(image).text((12 - left, baseline), text, font=font, fill="black")
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None]
    return np.ascontiguousarray((pixels / 255.0 - 0.5) / 0.5)


def alphabet(model: Path) -> list[str]:
    """The characters of a recognition model, from its metadata: blank first, space last."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    characters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    return ["", *characters, " "]


def decode(scores: np.ndarray[Any, Any], characters: Sequence[str]) -> str:
    """Best-path CTC decoding of [1, T, classes]: drop repeats, then blanks."""
    best = scores[0].argmax(axis=-1)
    kept = [int(c) for i, c in enumerate(best) if c != 0 and (i == 0 or c != best[i - 1])]
    return "".join(characters[c] for c in kept)


def read(model: Path, texts: Sequence[str]) -> list[str]:
    """What the model at `model` reads when each text is rendered."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    characters = alphabet(model)
    return [decode(session.run(None, {name: render(text)})[0], characters).strip() for text in texts]
