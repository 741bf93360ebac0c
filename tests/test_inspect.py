"""`mlc inspect --axes`: the table of axis classes as text and as JSON, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from kit.nets import NETS
from kit.real import RealModel, real_models
from kit.two_layers import two_layers
from rich.console import Console

from mlc.backends import inspect_axes
from mlc.backends.onnx import to_proto
from mlc.cli import run
from mlc.ir.axes import analyse
from mlc.ir.axis_table import axis_table

GOLDEN = Path(__file__).parent / "golden" / "inspect"
ROW_KEYS = {"name", "size", "free", "pin", "sites", "marks", "depends_on", "admissible"}
#: A residual sum and a flatten; heads inside a product; groups; a concat; what TopK pins.
SHOWN = ("vgg_flatten", "gqa_decoder", "grouped", "densenet", "experts_top")


def shown(name: str, *, all_sites: bool = False) -> str:
    module, _ = NETS[name]()
    console = Console(file=io.StringIO(), width=120, highlight=False)
    inspect_axes.show(axis_table(analyse(module)), console, all_sites=all_sites)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


@pytest.mark.parametrize("name", SHOWN)
def test_golden(name: str, update_golden: bool) -> None:
    text = f"{shown(name)}\n--all\n\n{shown(name, all_sites=True)}"
    path = GOLDEN / f"{name}.txt"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_slots_of_a_fused_matrix_are_fixed_by_no_operator():
    """Queries, keys and values in one matrix: the reason is not said twice."""
    (row,) = (line for line in shown("vit").splitlines() if line.startswith("fixed-slots"))
    assert row.count("fixed-slots") == 1


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return two_layers(tmp_path)


def test_a_model_whose_weights_are_all_fixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kit.layers import Layers, rows

    net = Layers()
    x, _ = rows(net, 6)
    path = tmp_path / "one.onnx"
    path.write_bytes(to_proto(net.done(net.linear(x, 6, 3))).SerializeToString())
    assert run(["inspect", str(path), "--axes"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("2 pinned: only the identity keeps the outputs\n")
    assert "interface-input" in out
    assert "free" not in out


def test_text_and_json_say_the_same(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(source), "--axes"]) == 0
    text = capsys.readouterr().out
    assert "1 free" in text
    assert run(["inspect", str(source), "--axes", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["format"] == 1
    assert all(set(row) == ROW_KEYS for row in table["classes"])
    (free,) = (row for row in table["classes"] if row["free"])
    assert (free["size"], free["pin"]) == (64, None)
    assert [(s["constant"], s["axis"]) for s in free["sites"]] == [
        ("fc1.weight", 1),
        ("fc1.bias", 0),
        ("fc2.weight", 0),
    ]
    assert all(f"{s['constant']}[{s['axis']}]" in text for s in free["sites"])
    assert {row["pin"]["code"] for row in table["classes"] if not row["free"]} == {
        "interface-input",
        "interface-output",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--axes", "--text"], "--text and --axes do not go together"),
        (["--axes", "--dims", "N=2"], "--axes and --dims do not go together"),
        (["--axes", "--all", "--json"], "--all and --json do not go together"),
        (["--text", "--json"], "--text and --json do not go together"),
        (["--all"], "--all goes with --axes or --sensitivity"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    source: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(source), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "= help: " in err


def test_a_file_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("not a model")
    assert run(["inspect", str(path), "--axes"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error[E06")


@real_models("mnist_cnn", "silero_vad_op15")
def test_real_models(model: RealModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(model.path), "--axes", "--all"]) == 0
    listed = capsys.readouterr().out
    assert run(["inspect", str(model.path), "--axes"]) == 0
    assert 0 < len(capsys.readouterr().out) <= len(listed)
    assert all(f"[{axis}]" in listed for axis in range(2))
