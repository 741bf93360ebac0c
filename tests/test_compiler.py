"""Compilations from end to end: artifacts, reports, bounds, strength, determinism."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from kit.net import Net
from kit.real import RealModel, real_models
from kit.two_layers import samples, two_layers
from onnx import helper, numpy_helper

import mlc
from mlc.backends.ort import Session
from mlc.cli import run
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError


def test_the_artifact_is_complete_and_says_what_was_done(tmp_path: Path) -> None:
    source = two_layers(tmp_path)
    result = mlc.compile(source, "simplify + int4(block=64)", output=tmp_path / "out.mlc")
    assert sorted(p.name for p in (tmp_path / "out.mlc").iterdir()) == [
        "model.onnx",
        "plan.json",
        "recipe.mlc",
        "report.json",
        "report.md",
    ]
    report = json.loads((tmp_path / "out.mlc" / "report.json").read_text())
    assert report == {"format": 1, **json.loads(json.dumps(result.report))}
    assert report["status"] == "done"
    assert report["size"]["artifact"] == (tmp_path / "out.mlc" / "model.onnx").stat().st_size
    assert report["size"]["ratio"] < 0.6
    assert report["checks"]["loads"] is True
    assert report["checks"]["cosine"] > 0.98
    assert [s["name"] for s in report["steps"]] == ["simplify", "int4"]
    assert {d["site"] for d in report["steps"][1]["done"]}
    assert report["measurements"]["environment"]["onnxruntime"]
    metadata = onnx.load(tmp_path / "out.mlc" / "model.onnx").metadata_props
    assert {p.key for p in metadata} >= {"mlc.version", "mlc.recipe", "mlc.source_sha256"}
    again = mlc.Recipe.parse((tmp_path / "out.mlc" / "recipe.mlc").read_text())
    assert [s.name for s in again.steps] == ["simplify", "int4"]


def test_an_onnx_output_is_one_file_with_its_report(tmp_path: Path) -> None:
    mlc.compile(two_layers(tmp_path), "fp16", output=tmp_path / "small.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "net.onnx",
        "small.onnx",
        "small.report.json",
        "small.report.md",
    ]


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    source = two_layers(tmp_path)
    outs = [tmp_path / name for name in ("a.mlc", "b.mlc")]
    for out in outs:
        mlc.compile(source, "prune(25%) + int4", output=out)
    for name in ("model.onnx", "plan.json", "recipe.mlc"):
        first, second = ((out / name).read_bytes() for out in outs)
        assert first == second, name
    reports = [json.loads((out / "report.json").read_text()) for out in outs]
    for report in reports:
        del report["measurements"], report["artifact"]["path"]
    assert reports[0] == reports[1]


def test_passes_from_python_and_a_module_as_source(tmp_path: Path) -> None:
    module = mlc.load(two_layers(tmp_path))
    result = mlc.compile(module, [mlc.passes.Simplify(), mlc.passes.Fp16()])
    assert result.path is None
    assert result.report["recipe"] == "simplify + fp16"
    mlc.save(mlc.passes.Prune(ratio=0.5)(module), tmp_path / "pruned.onnx")
    assert Session(tmp_path / "pruned.onnx").run({"x": np.zeros((2, 64), np.float32)})["y"].shape == (2, 10)


def test_prune_without_data_leaves_the_function_alone(tmp_path: Path) -> None:
    result = mlc.compile(two_layers(tmp_path), "prune", output=tmp_path / "out.mlc")
    assert result.report["checks"]["cosine"] == pytest.approx(1.0, abs=1e-6)


def test_strength_is_searched_when_data_can_judge(tmp_path: Path) -> None:
    """Half of the hidden units are weak: with data a bare prune removes many and stays within 1 % drift."""
    source, data = two_layers(tmp_path), samples(tmp_path)
    result = mlc.compile(source, "prune", data=data, output=tmp_path / "out.mlc")
    step = result.report["steps"][0]
    assert result.report["trials"]
    assert len(result.report["trials"]) <= 8
    assert step["after"]["params"] < 0.8 * step["before"]["params"]
    assert result.report["checks"]["cosine"] >= 0.99 - 0.005  # judged on all held-out samples, chosen on eight
    assert "samples" in result.report["checks"]["judged_on"]


def test_a_size_bound_is_met_with_the_least_strength(tmp_path: Path) -> None:
    source = two_layers(tmp_path)
    result = mlc.compile(source, "prune where params <= 0.6x", output=tmp_path / "out.mlc")
    (bound,) = result.report["bounds"]
    assert bound["holds"]
    assert 0.4 < bound["measured"] <= 0.6
    assert not result.missed


def test_an_impossible_bound_is_reported_and_the_best_is_saved(tmp_path: Path) -> None:
    result = mlc.compile(two_layers(tmp_path), "int4 where size <= 0.01x", output=tmp_path / "out.mlc")
    assert result.report["status"] == "missed"
    assert "size <= 0.01x" in str(result.missed[0])
    assert (tmp_path / "out.mlc" / "model.onnx").exists()


def test_accuracy_is_judged_with_labels(tmp_path: Path) -> None:
    source = two_layers(tmp_path)
    x = np.random.default_rng(1).standard_normal((40, 64), dtype=np.float32)
    labels = Session(source).run({"x": x})["y"].argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 10  # the source is right on 30 of 40
    np.savez(tmp_path / "labelled.npz", x=x, label=labels)
    recipe = "prune(75%) where acc_drop <= 1pp"
    result = mlc.compile(source, recipe, eval=tmp_path / "labelled.npz", labels="label", output=tmp_path / "o.mlc")
    accuracy = result.report["checks"]["accuracy"]
    assert accuracy["source"] == 0.75
    assert accuracy["artifact"] < 0.7
    (bound,) = result.report["bounds"]
    assert bound["measured"] == pytest.approx(0.75 - accuracy["artifact"])
    assert not bound["holds"]
    relaxed = mlc.compile(source, "prune(75%) where acc_drop <= 99%", eval=tmp_path / "labelled.npz", labels="label")
    assert relaxed.report["bounds"][0]["measured"] == pytest.approx(bound["measured"] / 0.75)
    with pytest.raises(MlcError, match="needs labels"):
        mlc.compile(source, "int4 where acc_drop <= 1pp")


@real_models("ppocrv4_det")
def test_bounds_that_need_classes_are_refused_without_them(model: RealModel) -> None:
    with pytest.raises(MlcError, match="needs an output of class scores"):
        mlc.compile(model.path, "fp16 where agreement >= 99%")


def test_a_change_that_moves_no_output_is_no_proof(tmp_path: Path) -> None:
    """The weights that fp16 rounds are never reached: the samples saturate everything behind them."""
    source = two_layers(tmp_path)
    proto = onnx.load(source)
    (last,) = (n for n in proto.graph.node if n.name == "fc2")
    last.output[0] = "scores"
    proto.graph.node.append(helper.make_node("Mul", ["scores", "nothing"], ["y"], name="gate"))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
    proto.graph.node.append(helper.make_node("Add", ["y", "one"], ["z"], name="one_more"))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    proto.graph.output[0].name = "z"
    onnx.save(proto, source)
    warnings = mlc.compile(source, "fp16").report["warnings"]
    assert any("no output moved when 'fp16' changed" in w for w in warnings)
    assert not any("no output moved" in w for w in mlc.compile(source, "simplify").report["warnings"])


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    source = two_layers(tmp_path)
    before = source.read_bytes()
    with pytest.raises(MlcError, match="is the source itself"):
        mlc.compile(source, "int4", output=source, force=True)
    assert source.read_bytes() == before


def test_a_step_that_changes_nothing_adds_nothing(tmp_path: Path) -> None:
    source = two_layers(tmp_path)
    report = mlc.compile(source, "prune", output=tmp_path / "o.mlc").report
    assert not report["steps"][0]["done"]
    assert report["size"]["artifact"] <= report["size"]["source"]


def test_sizes_of_a_module_from_python_are_those_of_its_file(tmp_path: Path) -> None:
    source = two_layers(tmp_path)
    module = mlc.load(source)
    module.source = None
    report = mlc.compile(module, "int4 where size <= 0.9x").report
    assert report["size"]["source"] == pytest.approx(source.stat().st_size, rel=0.02)
    assert report["bounds"][0]["holds"]


def test_an_exact_recipe_that_changes_the_outputs_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault injection: what `simplify` writes is damaged on its way to the file."""
    from mlc import compiler

    write = compiler._save

    def damaged(module: Any, path: Path, **options: Any) -> None:
        twin = mlc.passes.Prune(ratio=0.5, multiple=1)(module)
        write(twin, path, **options)

    monkeypatch.setattr(compiler, "_save", damaged)
    result = mlc.compile(two_layers(tmp_path), "simplify", output=tmp_path / "out.mlc")
    assert result.report["status"] == "missed"
    assert "the steps are exact, but outputs differ" in str(result.missed[0])
    assert "every operator agrees before lowering" in result.report["warnings"][-2]


def test_check_levels(tmp_path: Path) -> None:
    source = two_layers(tmp_path, width=2048)  # wide enough for blocks to be faster
    fast = mlc.compile(source, "int4", check="fast").report
    assert "cosine" not in fast["checks"]
    assert list(fast["checks"]["changed_operators"]) == ["com.microsoft::MatMulNBits"]
    assert fast["measurements"]["latency"] is None
    none = mlc.compile(source, "int4", check="none").report
    assert none["checks"]["judged_on"] == "nothing"
    limited = mlc.compile(source, "int4", max_memory=1).report
    assert limited["checks"]["judged_on"] == "changed operators alone"
    assert any("too large to run" in warning for warning in limited["warnings"])


def test_plan_and_explain_do_no_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = two_layers(tmp_path)
    assert run(["plan", str(source), "--recipe", "prune:50%+int4", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [s["step"] for s in plan["steps"]] == ["prune(ratio=50%)", "int4"]
    assert run(["plan", str(source), "--recipe", "int4"]) == 0
    assert "fc1.weight" in capsys.readouterr().out
    assert run(["explain", "prune+int4"]) == 0
    assert "prune" in capsys.readouterr().out
    assert run(["explain", "prune({10%, 20%}) | fp16"]) == 0
    explained = capsys.readouterr().out
    assert "fp16: Stores" in explained
    assert "a choice of steps ('|') cannot be executed yet" in explained
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_numbers_are_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = two_layers(tmp_path)
    arguments = ["compile", str(source), "-r", "fp16 where size <= 1KiB, cosine >= 0.9", "-o", str(tmp_path / "o.onnx")]
    assert run(arguments) == 3
    told = capsys.readouterr()
    assert re.search(r"size <= 1KiB: \d+\.?\d* KiB, MISSED", told.out)
    assert re.search(r"size <= 1KiB: \d+\.?\d* KiB \(missed\)", told.err)
    assert "weights([2, 4, 8])" in told.err
    assert re.search(r"cosine >= 0.9: (1|0\.9\d*), holds", told.out)
    assert run(["verify", str(source), str(tmp_path / "o.onnx")]) == 0
    assert re.search(r"^cosine: \d\.\d{6}\nSQNR: \d+\.\d dB\nlargest difference: .*\n", capsys.readouterr().out)
    assert run(["verify", str(source), str(source)]) == 0
    assert "SQNR: infinite, the outputs are equal" in capsys.readouterr().out
    assert run(["verify", "--help"]) == 0
    assert "--data" not in capsys.readouterr().out


def test_one_pass_is_a_recipe(tmp_path: Path) -> None:
    source = two_layers(tmp_path)
    one = mlc.compile(source, mlc.passes.Fp16(), check="none")
    assert one.report["recipe"] == mlc.compile(source, [mlc.passes.Fp16()], check="none").report["recipe"] == "fp16"
    assert [text for text, _ in mlc.plan(source, mlc.passes.Fp16())] == ["fp16"]
    assert mlc.commands.inspect(source, dims={})["operators"]


def test_inspect_verify_and_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = two_layers(tmp_path)
    mlc.compile(source, "fp16", output=tmp_path / "half.onnx")
    mlc.compile(source, "prune(75%)", output=tmp_path / "pruned.onnx")
    assert run(["inspect", str(source), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["operators"] == {"MatMul": 2, "Add": 1, "Relu": 1}
    assert run(["inspect", str(source), "--text"]) == 0
    assert "MatMul(%x, %fc1.weight)" in capsys.readouterr().out
    assert run(["verify", str(source), str(tmp_path / "half.onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cosine"] > 0.999
    assert run(["verify", str(source), str(tmp_path / "pruned.onnx"), "--min-cosine", "0.9999"]) == 3
    assert "does not agree" in capsys.readouterr().err
    assert run(["bench", str(source), str(tmp_path / "half.onnx"), "--json"]) == 0
    timing = json.loads(capsys.readouterr().out)
    assert timing["low"] <= timing["speedup"] <= timing["high"]


def test_samples_may_be_a_file_arrays_or_a_function(tmp_path: Path) -> None:
    source, path = two_layers(tmp_path), samples(tmp_path)
    x = np.load(path)["x"]
    given: list[Any] = [path, {"x": x}, lambda: ({"x": row} for row in x)]
    made = [mlc.compile(source, "int8", data=data, output=tmp_path / f"{i}.onnx") for i, data in enumerate(given)]
    assert len({(tmp_path / f"{i}.onnx").read_bytes() for i in range(3)}) == 1
    told = [result.report["options"]["data"] for result in made]
    assert told[:2] == [str(path), "arrays from Python"]
    assert told[2].startswith("test_compiler:")
    for wrong in ([x], 3, dict):
        with pytest.raises(MlcError, match=r"--data is a .*, which is no data"):
            mlc.compile(source, "int8", data=wrong)


def test_settings_are_checked() -> None:
    with pytest.raises(MlcError, match="full, fast, none"):
        mlc.compile("x.onnx", "simplify", check="quick")
    with pytest.raises(TypeError):
        mlc.compile("x.onnx", "simplify", chek="full")


@real_models("ppocrv4_rec")
def test_the_compiled_ocr_model_still_reads(model: RealModel, tmp_path: Path) -> None:
    import ocr

    pytest.importorskip("PIL")
    lines = ["mlc compiles networks", "Invoice 2026-11-21 total 42.50", "small and fast"]
    mlc.compile(model.path, "prune+int4", output=tmp_path / "ocr.mlc")
    assert ocr.read(tmp_path / "ocr.mlc" / "model.onnx", lines) == lines


@real_models("mobilenet_v2", "silero_vad", "khmersm", "smart_turn")
def test_real_models_compile_from_end_to_end(model: RealModel, tmp_path: Path) -> None:
    result = mlc.compile(model.path, "simplify+int4", output=tmp_path / "out.mlc")
    report = result.report
    assert report["status"] == "done", report["missed"]
    assert report["checks"]["loads"]
    assert report["checks"]["cosine"] > 0.95
    assert report["size"]["ratio"] <= 1.0
    assert all(s["why"] for step in report["steps"] for s in step["skipped"])
    feeds = model.feeds(seed=3)
    expected, found = Session(model.path).run(feeds), Session(tmp_path / "out.mlc" / "model.onnx").run(feeds)
    assert expected.keys() == found.keys()
    assert all(expected[k].shape == found[k].shape for k in expected)


def test_how_a_number_is_stored_does_not_change_how_many_there_are(tmp_path: Path) -> None:
    """16-bit weights and 16-bit scales stand behind a Cast: the first are parameters, the second are not."""
    source = two_layers(tmp_path)
    for recipe in ("fp16", "int4"):
        (step,) = mlc.compile(source, f"{recipe} where params <= 1x", check="fast").report["steps"]
        assert step["after"]["params"] == step["before"]["params"], recipe


def test_copies_of_weights_are_told_where_nothing_merges_them(tmp_path: Path) -> None:
    """`int4` takes weights as they are: a step that merges equal constants is named."""
    net = Net()
    x = net.input("x", DType.F32, "N", 256)
    weight = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    for number in range(3):
        x = net.op("MatMul", [x, net.const(weight.copy(), f"w{number}")])
    mlc.save(net.done(x), tmp_path / "net.onnx")
    told = {
        recipe: mlc.compile(tmp_path / "net.onnx", recipe, check="none").report
        for recipe in ("int4", "simplify + int4")
    }
    (line,) = (w for w in told["int4"]["warnings"] if "copies of others" in w)
    assert line.startswith("59% of the weights are copies of others ('w1_quantized' and ")
    assert line.endswith("simplify as the first step keeps one of each")
    assert not [w for w in told["simplify + int4"]["warnings"] if "copies of others" in w]
    assert told["simplify + int4"]["size"]["artifact"] < 0.4 * told["int4"]["size"]["artifact"]
