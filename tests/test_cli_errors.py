"""Wrong uses of the command line: one clear error each, exit 2, no traceback, nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kit.broken_models import BROKEN, Broken
from kit.golden import same
from kit.two_layers import two_layers

from mlc.cli import run

Golden = Callable[[str], None]

#: Recipe -> what its message must say.
RECIPES = {
    "prun+int4": "unknown step 'prun'",
    "prune++int4": "unexpected",
    "prune+": "unexpected end",
    "": "the recipe is empty",
    "prune(150%)": "150%",
    "prune(ratio=-5%)": "out of range",
    "prune(ratio=50ms)": "'prune.ratio'",
    "prune(ratios=50%)": "'ratios'",
    "prune(ratio=50%, ratio=30%)": "twice",
    "prune(50%": "unexpected end",
    "int4(block=-32)": "'int4.block'",
    "int4(block=33)": "'int4.block'",
    "int4(block=32.5)": "'int4.block'",
    "int4(symmetric=maybe)": "'int4.symmetric'",
    "int4+prune(50%)": "write prune + int4",
    'int4 on "no.such.layer"': "no.such.layer",
    'int4 except "no.such.layer"': "no.such.layer",
    "int4 on Convolution": "Convolution",
    "int4 on sise > 3KiB": "unknown property 'sise'",
    'int4 on ~"("': "regular expression",
    "int4 where size <= 0.3": "'size' needs a unit",
    "int4 where sise <= 0.3x": "unknown metric 'sise'",
    "int4 where size >= 0.3x": "better when smaller",
    "int4 | fp16": "|",
    "int4(block={32, 64})": "{",
    "prune(20%..60% by 10%)": "..",
    "prune & int4": "unexpected character",
    "nowhere.mlc": "not found",
}


GOLDEN = Path(__file__).parent / "golden" / "errors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_layers(tmp_path_factory.mktemp("net"))


@pytest.fixture
def golden(request: pytest.FixtureRequest, tmp_path: Path, update_golden: bool) -> Callable[[str], None]:
    """Holds a message against tests/golden/errors, under the name of the test; paths are those in its folder."""

    def check(message: str) -> None:
        group, _, case = request.node.name.partition("[")
        shown = message.replace(f"{tmp_path}/", "").replace(str(tmp_path), ".")
        same(GOLDEN / f"{group.removeprefix('test_')}.txt", case.removesuffix("]"), shown, update=update_golden)

    return check


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    """The message of a run that must fail with exit 2 and leave nothing in `folder`."""
    before = sorted(folder.iterdir())
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error[E"), captured.err
    assert "Traceback" not in captured.err
    assert sorted(folder.iterdir()) == before, "something was left behind"
    return captured.err


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe or "nothing")
def test_recipes(recipe: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], golden: Golden) -> None:
    out = tmp_path / "out.mlc"
    message = refused(["compile", str(model), "--recipe", recipe, "-o", str(out)], capsys, tmp_path)
    assert RECIPES[recipe] in message
    golden(message)


@pytest.mark.parametrize("case", BROKEN, ids=lambda c: c.name)
def test_models(case: Broken, tmp_path: Path, capsys: pytest.CaptureFixture[str], golden: Golden) -> None:
    path = case.write(tmp_path)
    out = tmp_path / "out.mlc"
    message = refused(["compile", str(path), "--recipe", "simplify", "-o", str(out)], capsys, tmp_path)
    assert message.count("error[E") == 1
    assert f"error[{case.code}]" in message
    golden(message)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "the recipe goes after -r"),
        (["--recipe"], "requires an argument"),
        (["-r", "prune", "+", "int4"], "quote the recipe"),
        (["--recipe", "int4", "--recpe", "int4"], "No such option"),
        (["--recipe", "int4", "--dims", "N=zero"], "write N=1,T=128"),
        (["--recipe", "int4", "--dims", "Q=3"], "'Q'"),
        (["--recipe", "int4", "--max-memory", "2"], "not a size"),
        (["--recipe", "int4", "--check", "maybe"], "'full', 'fast', 'none'"),
        (["--recipe", "int4", "--external-data", "maybe"], "'auto', 'always', 'never'"),
        (["--recipe", "int4", "--to", "ort(gpu)"], "target"),
        (["--recipe", "int4", "--to", "tensorrt"], "target"),
        (["--recipe", "int4", "--data", "none.npz"], "no data file"),
        (["--recipe", "int4", "--threads", "0"], "threads"),
        (["--recipe", "int4", "--seed", "x"], "seed"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_flags(
    arguments: list[str],
    expected: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    golden: Golden,
) -> None:
    message = refused(["compile", str(model), "-o", str(tmp_path / "o.mlc"), *arguments], capsys, tmp_path)
    assert expected in message
    golden(message)


def test_an_output_that_exists_is_kept(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mlc"
    out.mkdir()
    assert "--force" in refused(["compile", str(model), "-r", "simplify", "-o", str(out)], capsys, tmp_path)
    assert run(["compile", str(model), "-r", "simplify", "-o", str(out), "--force"]) == 0
    assert (out / "model.onnx").exists()


def test_a_missed_bound_saves_the_artifact_and_exits_3(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mlc"
    assert run(["compile", str(model), "-r", "fp16 where size <= 0.01x", "-o", str(out)]) == 3
    assert "the bound was missed" in capsys.readouterr().err
    assert '"status": "missed"' in (out / "report.json").read_text()
    assert (out / "model.onnx").exists()


def test_strict_turns_skips_into_exit_3(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compile", str(model), "-r", "prune(1%)", "--strict", "-o", str(tmp_path / "o.mlc")]) == 3
    assert "rounds to none" in capsys.readouterr().err


def test_strict_does_not_mind_what_the_user_left_out(model: Path, tmp_path: Path) -> None:
    assert run(["compile", str(model), "-r", 'int4 except "fc1"', "--strict", "-o", str(tmp_path / "o.mlc")]) == 0


def test_a_selector_that_cannot_be_served_is_an_error(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(["compile", str(model), "-r", "int4 on Relu", "-o", str(tmp_path / "o")], capsys, tmp_path)
    assert "'int4' can change nothing of what 'on Relu' names" in message


def test_an_interrupt_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlc.backends import checks

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checks, "Session", interrupt)
    assert run(["compile", str(model), "-r", "int4", "-o", str(tmp_path / "o.mlc")]) == 130
    assert list(tmp_path.iterdir()) == []
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "inspect"])
def test_other_commands_explain_a_broken_model(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("not a model")
    recipe = ["--recipe", "simplify"] if command == "plan" else []
    assert "text" in refused([command, str(path), *recipe], capsys, tmp_path)


def test_unknown_commands_and_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such command" in refused(["compil"], capsys, tmp_path)
    assert "did you mean 'prune'" in refused(["passes", "prun"], capsys, tmp_path)
    assert "unknown step 'prun'" in refused(["explain", "prun"], capsys, tmp_path)
