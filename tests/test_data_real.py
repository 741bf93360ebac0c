"""Declared preprocessing on real models: right words give right answers, wrong ones do not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zoo
from kit.real import RealModel, real_models

import mlc
from mlc.backends.ort import Session
from mlc.cli import run

IMAGENET = (
    'size=224, resize=256, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], labels=class, classes="names.txt"'
)
SENTENCES = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """20 photos of ImageNet in folders of their classes, and the names of all classes."""
    pytest.importorskip("PIL")
    try:
        found = sorted(zoo.weights("photos_imagenet").parent.glob("*.jpg"))
    except zoo.ZooUnavailable as reason:
        pytest.skip(str(reason))
    monkeypatch.chdir(tmp_path)
    for photo in found:
        folder = Path("photos", f"class{photo.stem.rpartition('_')[2]}")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder)
    Path("names.txt").write_text("".join(f"class{number}\n" for number in range(1000)))
    return "photos"


@pytest.mark.slow
@real_models("mobilenet_v2")
def test_photos_are_recognized_when_they_are_prepared_as_in_training(model: RealModel, photos: str) -> None:
    def accuracy(arguments: str) -> float:
        result = mlc.compile(model.path, "fp16", eval=f'images("{photos}", {arguments})')
        return float(result.report["checks"]["accuracy"]["source"])

    assert accuracy(IMAGENET) == 0.9
    assert accuracy(IMAGENET + ", channels=bgr") < 0.8
    assert accuracy(IMAGENET + ", scale=1") < 0.2


@real_models("minilm")
def test_sentences_are_near_what_they_mean(
    model: RealModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES))
    tokenizer = zoo.weights("minilm").with_name("tokenizer.json")
    text = f'text("{tmp_path}/lines.txt", tokenizer="{tokenizer}")'
    assert run(["data", "check", str(model.path), "--data", text]) == 0
    assert "identical samples: 0" in capsys.readouterr().out
    session = Session(model.path)
    rows = [next(iter(session.run(b.inputs).values())) for b in mlc.open_data(text, mlc.load(model.path)).batches()]
    means = [np.atleast_2d(row.reshape(-1, row.shape[-1])).mean(axis=0) for row in rows]
    first, second, third = (mean / np.linalg.norm(mean) for mean in means)
    assert first @ second > 0.6
    assert first @ third < 0.3
