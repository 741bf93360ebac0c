"""report.md: golden text, made from the report alone, and nothing in it that names could break."""

from __future__ import annotations

import copy
import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from kit.real import RealModel, real_models
from kit.two_layers import samples, two_layers
from markdown_it import MarkdownIt

import mlc
from mlc.backends.report import SCHEMA, skip_groups
from mlc.backends.report_markdown import code, command, items, plain, table, to_markdown
from mlc.cli import run

GOLDEN = Path(__file__).parent / "golden" / "reports"
GFM = MarkdownIt("gfm-like", {"linkify": False})
SCHEMA_TEXT = (files("mlc.backends") / SCHEMA).read_text("utf-8")
VALIDATOR = Draft202012Validator(json.loads(SCHEMA_TEXT))
#: Fields whose values are among a few, or have a form.
FIXED = set(re.findall(r'"(\w+)": \{[^{}]*"(?:enum|pattern)":', SCHEMA_TEXT))
EVIL = "a|b`c``<img src=x onerror=alert(1)>[l](http://x.y) **b** @octocat #1\n# no heading &amp; www.x.y \\ ~~s~~"
MEASURED = {
    "environment": {"cpu": "Some CPU", "isa": ["avx2"], "cores": 2, "system": "Linux x86_64", "python": "3.11.0"},
    "seconds": {"1": 0.1},
    "latency": {
        "source_ms": 12.3456, "artifact_ms": 4.0, "speedup": 3.09, "low": 3.01, "high": 3.2, "blocks": 20, "threads": 1,
        "verdict": "faster",
    },
    "warnings": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A report with bounds, a missed one, skips, notes and kernels; what is measured is fixed."""
    folder = tmp_path_factory.mktemp("net")
    source, data = two_layers(folder), samples(folder)
    recipe = 'prune(1%) + int4 except "fc1" where size <= 0.1x, cosine >= 0.9'
    result = mlc.compile(source, recipe, data=data, dims={"N": 2}, seed=7)
    found = json.loads(result.to_json())
    found["source"]["path"], found["options"]["data"] = "models/net.onnx", "data.npz"
    found["data"]["calibration"]["source"] = found["data"]["evaluation"]["source"] = "'data.npz'"
    found["mlc"], found["artifact"]["sha256"] = "0.0.0", "0" * 64  # the artifact names the version that made it
    found["checks"]["cosine"], found["bounds"][1]["found"] = 0.995, "0.995"
    found["steps"][1]["drift"] = 0.005
    return {**found, "measurements": MEASURED}


def test_golden(report: dict[str, Any], update_golden: bool) -> None:
    path = GOLDEN / "missed.md"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(to_markdown(report), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == to_markdown(report)


def test_names_cannot_break_the_page(report: dict[str, Any]) -> None:
    """Every text of the report is replaced by one that is full of Markdown and HTML."""
    evil = _poisoned(report, "")
    VALIDATOR.validate(evil)
    tokens = GFM.parse(to_markdown(evil))
    inner = [child.type for token in tokens for child in token.children or ()]
    assert not {"link_open", "image", "html_inline", "s_open"} & set(inner)
    assert not [t for t in tokens if t.type == "html_block"]
    tame = [t.type for t in GFM.parse(to_markdown(report))]
    assert [t.type for t in tokens if t.type in ("heading_open", "table_open", "th_open")] == [
        t for t in tame if t in ("heading_open", "table_open", "th_open")
    ]
    assert len([t for t in tokens if t.type == "fence"]) == 1
    rows = "".join("r" if t.type == "tr_open" else "c" for t in tokens if t.type in ("tr_open", "td_open", "th_open"))
    tame_rows = "".join("r" if t == "tr_open" else "c" for t in tame if t in ("tr_open", "td_open", "th_open"))
    assert rows == tame_rows
    assert not re.search(r"[@#]\w", "".join(_texts(tokens)))


@given(st.text())
@example(EVIL)
@example("1. one")
@example("- minus")
@example("www.example.org")
@example("https://example.org")
@example("&lt;")
def test_plain_text_comes_out_as_it_went_in(text: str) -> None:
    words = " ".join(text.split())
    blocks = GFM.parse(items("title", [plain(text)]))[3:]
    shown = "".join(c.content for t in blocks for c in t.children or ())
    assert shown.replace("\u200b", "") == words.replace(chr(0), chr(0xFFFD)).replace("\u200b", "")
    kinds = {t.type for t in blocks}
    assert kinds <= {"bullet_list_open", "list_item_open", "paragraph_open", "inline", "paragraph_close"} | {
        "list_item_close",
        "bullet_list_close",
    }


@given(st.text(min_size=1))
@example(EVIL)
@example("`")
@example("``|`")
def test_code_comes_out_as_it_went_in(text: str) -> None:
    words = " ".join(text.split()).replace(chr(0), chr(0xFFFD))
    tokens = GFM.parse(table(("a", "b"), [(code(text), "x")]))
    cells = [t for t in tokens if t.type == "inline"][2:]
    assert len(cells) == 2
    (child,) = cells[0].children or ()
    assert (child.type, child.content.replace("\u200b", "").strip()) == ("code_inline", words.replace("\u200b", ""))


def test_every_reason_is_named(report: dict[str, Any]) -> None:
    page = to_markdown(report)
    reasons = [group for step in report["steps"] for group in skip_groups(step)]
    assert reasons
    for group in reasons:
        assert group.code in page
        assert plain(group.why) in page


def test_the_command_makes_the_same_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    two_layers(tmp_path)
    samples(tmp_path)
    options = {"data": "data.npz", "seed": 3, "threads": 2, "dims": {"N": 2}, "max_memory": 10**9, "external": "always"}
    mlc.compile("net.onnx", "prune(30%) + int8", output="a.mlc", **options, to="ort(cpu, costs=assumed)", force=True)
    report = json.loads(Path("a.mlc/report.json").read_text())
    line = command(report)
    assert line in Path("a.mlc/report.md").read_text()
    assert run([*shlex.split(line)[1:], "-o", "b.mlc"]) == 0
    for name in ("model.onnx", "model.onnx.data", "plan.json"):
        assert Path("a.mlc", name).read_bytes() == Path("b.mlc", name).read_bytes()
    again = json.loads(Path("b.mlc/report.json").read_text())
    assert again["options"] == report["options"]


def test_objects_of_python_have_no_command(tmp_path: Path) -> None:
    source, arrays = two_layers(tmp_path), {"x": np.ones((4, 64), np.float32)}
    for model, data in ((source, arrays), (mlc.load(source), None)):
        if not isinstance(model, Path):
            model.source = None
        report = json.loads(mlc.compile(model, "fp16", data=data, check="none").to_json())
        assert command(report) is None
        assert "no command line" in to_markdown(report)
    assert "no command line" not in to_markdown(json.loads(mlc.compile(source, "fp16", check="none").to_json()))


def test_what_bounds_measure_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    two_layers(tmp_path)
    samples(tmp_path)
    Path("m.py").write_text("def largest(outputs, labels):\n    return max(float(y.max()) for y in outputs['y'])\n")
    recipe = "fp16 where latency.p95 <= 100x, peak_memory <= 100x, largest <= 100"
    result = mlc.compile("net.onnx", recipe, data="data.npz", metrics={"largest": "m.py:largest"})
    report = json.loads(result.to_json())
    page = to_markdown(report)
    assert "| latency, slow runs |" in page
    assert "| memory of a process |" in page
    assert "| `largest` |" in page
    assert "--metric largest=m.py:largest" in page


def test_pages_of_equal_runs_are_equal_but_for_what_is_measured(tmp_path: Path) -> None:
    source = two_layers(tmp_path)
    pages = []
    for name in ("a.onnx", "b.onnx"):
        mlc.compile(source, "prune(25%) + int4", output=tmp_path / name)
        pages.append((tmp_path / name).with_suffix(".report.md").read_text())
    first, second = (re.sub(r"^\| latency .*$", "", page, flags=re.MULTILINE) for page in pages)
    assert first == second


@real_models("mnist_cnn", "ppocrv4_rec")
def test_pages_of_real_models_are_short(model: RealModel) -> None:
    page = to_markdown(json.loads(mlc.compile(model.path, "simplify + int4").to_json()))
    assert len(page.splitlines()) < 100
    assert all(len(line) < 600 for line in page.splitlines())


def _poisoned(part: Any, key: str) -> Any:
    """The document with every free text replaced."""
    if isinstance(part, dict):
        return {k: _poisoned(v, k) for k, v in part.items()}
    if isinstance(part, list):
        return [_poisoned(v, key) for v in part]
    return copy.copy(part) if key in FIXED or not isinstance(part, str) else EVIL


def _texts(tokens: list[Any]) -> list[str]:
    return [c.content for t in tokens for c in t.children or () if c.type == "text"]
