"""The zoo: a catalogue that is sound, downloads that are checked, and feeds that every model accepts."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import zoo
from feeds import synthetic
from kit.real import RealModel, all_models, real_model
from onnx import TensorProto, helper

REAL_TIER_BYTES = 120e6


def test_catalogue_is_sound():
    for entry in (*zoo.entries().values(), *zoo.datasets().values()):
        assert entry.tier in {"real", "slow"}, entry.name
        assert entry.notes, entry.name
        for file in entry.files:
            assert len(file.sha256) == 64, entry.name
            assert file.size > 0, entry.name


def test_no_file_is_listed_twice():
    files = [(f.sha256, e.build) for e in (*zoo.entries().values(), *zoo.datasets().values()) for f in e.files]
    assert len(files) == len(set(files))


def test_the_real_tier_stays_small():
    assert sum(entry.size for entry in zoo.entries().values() if entry.tier == "real") <= REAL_TIER_BYTES


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path):
    archive = tmp_path / "pack-1-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("pack/model.onnx", b"other bytes")
    pinned = zoo.File("pack/model.onnx", hashlib.sha256(b"the bytes").hexdigest(), 9)
    with pytest.raises(zoo.ZooCorrupt, match=r"pack/model\.onnx"):
        zoo._extract(archive, pinned, tmp_path / "out")
    with pytest.raises(zoo.ZooCorrupt, match="no file pack/gone"):
        zoo._extract(archive, zoo.File("pack/gone", pinned.sha256, 9), tmp_path / "out")
    right = zoo.File("pack/model.onnx", hashlib.sha256(b"other bytes").hexdigest(), 11)
    zoo._extract(archive, right, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"other bytes"


def test_the_first_download_wins_a_race(tmp_path: Path):
    for content in ("first", "second"):
        staged = tmp_path / f"staged-{content}"
        staged.mkdir()
        (staged / "model.onnx").write_text(content)
        zoo._publish(staged, tmp_path / "model")
    assert (tmp_path / "model" / "model.onnx").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_offline_is_a_reason_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    cache = tmp_path / "cache"
    with pytest.raises(zoo.ZooUnavailable, match=r"rapidocr-onnxruntime==1\.4\.4 cannot be downloaded"):
        zoo.path("ppocrv4_rec", cache=cache)
    assert list(cache.iterdir()) == []
    command = [sys.executable, zoo.__file__, "--cache", str(cache), "path", "ppocrv4_rec"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be downloaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_feeds_respect_tables_masks_and_hints(tmp_path: Path):
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["n", "t"]),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, "w"]),
        helper.make_tensor_value_info("rate", TensorProto.INT64, []),
    ]
    table = helper.make_tensor("table", TensorProto.FLOAT, [5, 2], [0.0] * 10)
    nodes = [
        helper.make_node("Cast", ["ids"], ["ids32"], to=TensorProto.INT32),
        helper.make_node("Gather", ["table", "ids32"], ["y"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", inputs, [output], [table])), path)
    feed = synthetic(path, 3, dims={"t": 400}, shapes={"x": [2, 3, 7]}, values={"rate": 8000})
    assert feed["ids"].shape == (1, 400)
    assert (feed["ids"].min(), feed["ids"].max()) == (0, 4)
    assert (feed["attention_mask"] == 1).all()
    assert feed["x"].shape == (2, 3, 7)
    assert feed["rate"] == 8000
    again = synthetic(path, 3, dims={"t": 400}, shapes={"x": [2, 3, 7]}, values={"rate": 8000})
    assert all(np.array_equal(feed[name], again[name]) for name in feed)


@all_models()
def test_every_model_runs_on_its_feed(model: RealModel):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    first, *others = (session.run(None, model.feeds(seed)) for seed in range(4))  # quantized outputs may coincide
    assert all(np.isfinite(value).all() for value in first)
    moved = [not np.array_equal(a, b) for other in others for a, b in zip(first, other)]
    assert any(moved), "the outputs do not depend on the inputs"


@pytest.mark.real
def test_both_exports_of_one_net_agree():
    import onnxruntime

    outputs = []
    for name in ("opennsfw", "opennsfw_unfolded"):
        model = real_model(name)
        session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, dict(zip([session.get_inputs()[0].name], model.feeds().values())))[0])
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-4
