"""`mlc compare`: what two reports say beside each other, and when their numbers may not be compared."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from kit.two_layers import samples, two_layers
from markdown_it import MarkdownIt
from rich.console import Console

import mlc
from mlc.backends import compare_view
from mlc.cli import run
from mlc.commands import compare
from mlc.ir.errors import MlcError

GOLDEN = Path(__file__).parent / "golden" / "reports"
Report = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three artifacts of one network: a.mlc, b.onnx, and c.mlc of another one."""
    folder = tmp_path_factory.mktemp("artifacts")
    source, data = two_layers(folder), samples(folder)
    mlc.compile(source, "prune(30%) + int4 where size <= 0.3x", output=folder / "a.mlc", data=data)
    recipe = 'simplify + prune(50%) + int4 except "fc2" where size <= 0.1x, cosine >= 0.5'
    mlc.compile(source, recipe, output=folder / "b.onnx", data=data)
    other = two_layers(folder, seed=1)
    mlc.compile(other, "fp16", output=folder / "c.mlc", dims={"N": 4})
    return folder


def changed(folder: Path, name: str, tmp_path: Path, edit: Any) -> Path:
    report = json.loads((folder / name).read_text())
    edit(report)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    return path


def facts(found: Report) -> dict[str, Report]:
    return {fact["name"]: fact for fact in found["facts"]}


def test_an_artifact_is_found_by_folder_file_and_report(folder: Path) -> None:
    ways = ["a.mlc", "a.mlc/model.onnx", "a.mlc/report.json"]
    found = [compare(folder / way, folder / "b.onnx") for way in ways]
    for one in found:
        del one["a"]["path"]
    assert found[0] == found[1] == found[2]
    assert compare(folder / "b.onnx", folder / "b.report.json")["equal_files"]


def test_an_artifact_is_equal_to_itself(folder: Path) -> None:
    found = compare(folder / "a.mlc", folder / "a.mlc")
    assert found["equal_files"]
    assert all(fact["better"] is None and fact["ratio"] in (None, 1.0) for fact in found["facts"])
    assert found["settings"] == []
    assert found["warnings"] == {"a": [], "b": []}
    assert all(step["only_a_count"] == step["only_b_count"] == 0 for step in found["steps"])


def test_turning_the_sides_turns_everything(folder: Path) -> None:
    turned = {"a": "b", "b": "a", None: None}
    ahead, back = compare(folder / "a.mlc", folder / "b.onnx"), compare(folder / "b.onnx", folder / "a.mlc")
    for one, other in zip(ahead["facts"], back["facts"], strict=True):
        assert (one["a"], one["b"], turned[one["better"]]) == (other["b"], other["a"], other["better"])
        assert one["ratio"] is None or one["ratio"] * other["ratio"] == pytest.approx(1)
    assert [(s["a"], s["only_a"]) for s in ahead["steps"]] == [(s["b"], s["only_b"]) for s in back["steps"]]


def test_what_differs_is_told(folder: Path) -> None:
    found = compare(folder / "a.mlc", folder / "b.onnx")
    steps = [tuple(s and s["text"] for s in (step["a"], step["b"])) for step in found["steps"]]
    assert steps == [(None, "simplify"), ("prune(ratio=30%)", "prune(ratio=50%)"), ("int4", "int4")]
    assert found["steps"][2]["only_a"] == ("fc2.weight",)
    assert [b["bound"] for b in found["bounds"]] == ["size <= 0.3x", "size <= 0.1x", "cosine >= 0.5"]
    assert found["bounds"][0]["b"] is None
    assert not found["bounds"][1]["b"]["holds"]
    size = facts(found)["size"]
    assert size["ratio"] == pytest.approx(size["b"] / size["a"])
    assert size["better"] == "b"
    assert [w for w in found["notes"] if "mlc bench" in w]


def test_other_sources_and_samples_are_not_compared(folder: Path) -> None:
    found = compare(folder / "a.mlc", folder / "c.mlc")
    assert any("the sources differ" in note for note in found["notes"])
    assert any("different samples" in note for note in found["notes"])
    known = facts(found)
    for name in ("cosine", "share of the source", "speedup", "macs"):
        assert (known[name]["ratio"], known[name]["better"]) == (None, None), name
    assert known["size"]["better"] == "a"
    assert found["settings"][0]["name"] == "data"


def test_times_of_other_machines_are_not_compared(folder: Path, tmp_path: Path) -> None:
    def slow(report: Report) -> None:
        report["measurements"]["environment"]["cpu"] = "Some other CPU"
        report["measurements"]["latency"]["artifact_ms"] *= 10

    found = compare(folder / "a.mlc", changed(folder, "a.mlc/report.json", tmp_path, slow))
    assert any("different machines" in note and "Some other CPU" in note for note in found["notes"])
    assert facts(found)["latency_ms"]["ratio"] is None
    assert facts(found)["speedup"]["better"] is None


@pytest.mark.parametrize(("low", "high", "better"), [(5.0, 6.0, "b"), (0.01, 6.0, None), (0.01, 0.02, "a")])
def test_one_is_faster_where_intervals_lie_apart(
    folder: Path, tmp_path: Path, low: float, high: float, better: str | None
) -> None:
    def edit(report: Report) -> None:
        report["measurements"]["latency"] |= {"speedup": (low + high) / 2, "low": low, "high": high}

    found = compare(folder / "a.mlc", changed(folder, "a.mlc/report.json", tmp_path, edit))
    assert facts(found)["speedup"]["better"] == better


def test_what_bounds_measure_is_compared(folder: Path, tmp_path: Path) -> None:
    def measured(report: Report) -> None:
        tail = {"source_ms": 2.0, "artifact_ms": 1.0, "artifact_high_ms": 1.1, "ratio_high": 0.6, "runs": 100}
        report["measurements"]["latency_p95"] = tail
        report["measurements"]["memory"] = {"source": 200, "artifact": 2 << 20, "runtime": 10, "processes": 3}
        report["checks"]["metrics"] = {"wer": {"source": 0.1, "artifact": 0.2}}

    path = changed(folder, "a.mlc/report.json", tmp_path, measured)
    known = facts(compare(path, path))
    assert known["memory"]["ratio"] == known["latency_p95_ms"]["ratio"] == 1
    assert (known["wer"]["a"], known["wer"]["better"]) == (0.2, None)
    text = shown(compare(folder / "a.mlc", path))
    assert "2.0 MiB" in text
    assert "wer" in text


def test_what_was_not_measured_is_left_out(folder: Path, tmp_path: Path) -> None:
    source = two_layers(tmp_path)
    for name in ("x.onnx", "y.onnx"):
        mlc.compile(source, "fp16", output=tmp_path / name, check="none")
    found = compare(tmp_path / "x.onnx", tmp_path / "y.onnx")
    assert facts(found)["cosine"]["a"] is None
    assert "cosine" not in shown(found)
    assert "| cosine" not in compare_view.to_markdown(found)


def shown(found: Report) -> str:
    console = Console(file=io.StringIO(), width=160, highlight=False)
    compare_view.show(found, console)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


@pytest.fixture
def fixed(folder: Path) -> Report:
    """A comparison without what depends on the machine."""
    found = copy.deepcopy(compare(folder / "a.mlc", folder / "b.onnx"))
    found["a"]["path"], found["b"]["path"] = "a.mlc", "b.onnx"
    for fact in found["facts"]:
        if fact["name"] in ("latency_ms", "speedup"):
            fact.update(a=1.5, b=2.0, ratio=4 / 3, better=None)
        if fact["name"] in ("cosine", "sqnr_db"):
            fact.update(a=0.99, b=0.995)
    found["bounds"][2]["b"]["found"] = "0.995"
    for side in [step[name] for step in found["steps"] for name in ("a", "b") if step[name] is not None]:
        side["drift"] = 0.01
    for setting in found["settings"]:
        setting.update(a="data.npz", b="other.npz")
    for side in ("a", "b"):
        found["warnings"][side] = [w for w in found["warnings"][side] if "slower" not in w]
    return found


@pytest.mark.parametrize("form", ["txt", "md"])
def test_golden(fixed: Report, form: str, update_golden: bool) -> None:
    text = shown(fixed) if form == "txt" else compare_view.to_markdown(fixed)
    path = GOLDEN / f"compare.{form}"
    if update_golden:
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_names_cannot_break_the_page(fixed: Report) -> None:
    evil = "a|b`c<img src=x>[l](http://x.y) **b** @me"
    parser = MarkdownIt("gfm-like", {"linkify": False})
    tame = [t.type for t in parser.parse(compare_view.to_markdown(fixed))]
    fixed["b"] |= {"path": evil.replace("/", ""), "recipe": evil}
    fixed["bounds"][0] |= {"bound": evil}
    fixed["steps"][2]["only_a"] = (evil,)
    fixed["steps"][1]["b"]["text"] = evil
    fixed["warnings"]["b"] = [evil for _ in fixed["warnings"]["b"]]
    tokens = parser.parse(compare_view.to_markdown(fixed))
    assert [t.type for t in tokens] == tame
    inner = {child.type for token in tokens for child in token.children or ()}
    assert inner <= {"text", "text_special", "code_inline"}


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = [str(folder / "a.mlc"), str(folder / "b.onnx")]
    assert run(["compare", *sides, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(compare(*sides)))
    assert run(["compare", *sides]) == 0
    assert "B / A" in capsys.readouterr().out
    assert run(["compare", *sides, "--markdown"]) == 0
    assert capsys.readouterr().out == compare_view.to_markdown(compare(*sides))
    assert run(["compare", *sides, "--markdown", "--json"]) == 2


def test_what_is_no_artifact_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MlcError, match=r"there is no report .*net\.report\.json"):
        compare(folder / "a.mlc", folder / "net.onnx")
    with pytest.raises(MlcError, match="there is no report"):
        compare(folder / "a.mlc", tmp_path)
    with pytest.raises(MlcError, match="is not a report of mlc: there is no mlc"):
        compare(folder / "a.mlc", folder / "a.mlc" / "plan.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(MlcError, match="is not a report of mlc"):
        compare(folder / "a.mlc", tmp_path / "x.json")


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda r: r["checks"].pop("judged_on"), "there is no checks.judged_on"),
        (lambda r: r["steps"][0].pop("after"), "there is no steps.after"),
        (lambda r: r["steps"][0]["after"].pop("macs"), "there is no steps.after.macs"),
        (lambda r: r["measurements"]["latency"].pop("low"), "there is no measurements.latency"),
        (lambda r: r["size"].update(artifact="small"), "there is no size.artifact"),
        (lambda r: r.update(bounds={}), "there is no bounds"),
        (lambda r: r.update(format="1"), "is not a report of mlc"),
        (lambda r: r.update(format=2), "has format 2"),
    ],
)
def test_a_damaged_report_is_refused(folder: Path, tmp_path: Path, edit: Any, told: str) -> None:
    with pytest.raises(MlcError, match=told):
        compare(folder / "a.mlc", changed(folder, "a.mlc/report.json", tmp_path, edit))


def test_fields_of_later_versions_do_no_harm(folder: Path, tmp_path: Path) -> None:
    path = changed(folder, "a.mlc/report.json", tmp_path, lambda r: r.update(surplus=1))
    assert compare(folder / "a.mlc", path)["equal_files"]
