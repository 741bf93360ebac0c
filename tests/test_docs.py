"""The documents keep their word: links lead somewhere, the pass of the guide works as printed, examples run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.real import real_model
from test_compiler import two_layers

import mlc
from mlc.backends.ort import Session

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")])
EXAMPLES = {
    "demo": "ppocrv4_rec",
    "simplify": "opennsfw_unfolded",
    "prune": "mnist_cnn",
    "dequantize": "smart_turn",
    "absorb": "ppocr_cls",
    "equalize": "mnist_cnn",
    "smooth": "minilm",
    "int8": "mnist_cnn",
    "int4": "",
    "weights": "ppocrv4_rec",
    "correct_bias": "mnist_cnn",
    "fp16": "mobilenet_v2",
    "sensitivity": "mnist_cnn",
    "own_pass": "minilm",
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_named_in_the_text_exist(page: Path) -> None:
    for name in re.findall(
        r"`((?:tests|examples|benchmarks|docs|ir|passes|backends|frontends|dsl)/[\w/]+\.\w+)`", page.read_text()
    ):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_pruning_with_data_from_python_works_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_layers(tmp_path).rename(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).standard_normal((200, 64), dtype=np.float32)
    np.savez("samples.npz", x=x)
    names: dict[str, Any] = {"mlc": mlc}
    for code in blocks(ROOT / "docs" / "passes" / "prune.md", "python")[1:3]:
        exec(compile(code, "prune.md", "exec"), names)
    dense = Session(mlc.load("model.onnx")).run({"x": x})["y"]
    for small in (names["small"], mlc.load("small.onnx")):
        assert small.constants["fc1.weight"].constant.shape == (64, 32)
        y = Session(small).run({"x": x})["y"]
        assert np.linalg.norm(y - dense) < 0.1 * np.linalg.norm(dense)  # half of the units are weak


def test_int8_from_python_works_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_layers(tmp_path).rename(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).standard_normal((16, 64), dtype=np.float32)
    np.savez("samples.npz", x=x)
    exec(compile(blocks(ROOT / "docs" / "passes" / "int8.md", "python")[0], "int8.md", "exec"), {"mlc": mlc})
    dense, small = (Session(mlc.load(name)).run({"x": x})["y"] for name in ("model.onnx", "small.onnx"))
    assert 0 < np.linalg.norm(small - dense) < 0.1 * np.linalg.norm(dense)


def test_the_pass_of_the_guide_works_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, use, *_ = blocks(ROOT / "docs" / "writing-a-pass.md", "python")
    (tmp_path / "my_passes.py").write_text(code)
    two_layers(tmp_path).rename(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    exec(compile(use, "writing-a-pass.md", "exec"), {})
    before = mlc.load(tmp_path / "model.onnx")
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 64), dtype=np.float32)}
    expected, found = (Session(m).run(feeds)["y"] for m in (before, mlc.load(tmp_path / "rounded.onnx")))
    assert not np.array_equal(expected, found)
    np.testing.assert_allclose(expected, found, atol=0.05 * float(np.abs(expected).max()))
    sys.modules.pop("my_passes", None)
    used, *_ = blocks(ROOT / "docs" / "writing-a-pass.md", "text")
    (tmp_path / "edge.mlc").write_text(used)
    report = mlc.compile(tmp_path / "model.onnx", str(tmp_path / "edge.mlc")).report
    assert [step["text"] for step in report["steps"]][1] == "mine.round_weights(bits=6)"


def test_every_pass_has_its_page_and_its_example() -> None:
    from mlc.passes import registry

    listed = (ROOT / "docs" / "passes.md").read_text()
    for name in registry.BUILTIN:
        assert (ROOT / "docs" / "passes" / f"{name}.md").exists(), name
        assert f"| `{name}` |" in listed
        assert name in EXAMPLES


@pytest.mark.real
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str) -> None:
    if EXAMPLES[name]:
        real_model(EXAMPLES[name])
    if name == "demo" and importlib.util.find_spec("PIL") is None:
        pytest.skip("the demo renders text with Pillow, which is not installed")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout
