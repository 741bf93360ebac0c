"""Recipe files: what they use of each other, what they bind, which data does what, what is compiled."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from kit.two_layers import samples, two_layers

from mlc.dsl.build import steps_of
from mlc.dsl.jobs import Job, jobs_of
from mlc.dsl.program import Program
from mlc.dsl.recipe import Recipe
from mlc.dsl.source import read_source
from mlc.dsl.stored import file_text
from mlc.ir.errors import Code, MlcError

NOTHING = io.StringIO("")


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def recipe(argument: str) -> Recipe:
    source = read_source(argument, stdin=NOTHING)
    return Recipe.parse(source.text, name=source.name, choose=source.choose, folder=source.folder)


def texts(argument: str) -> list[str]:
    return [step.text for step in steps_of(recipe(argument).steps)]


def jobs(path: str) -> tuple[Job, ...]:
    return jobs_of(path, stdin=NOTHING)


def codes(path: str) -> list[Code]:
    with pytest.raises(MlcError) as caught:
        jobs(path)
    return [d.code for d in caught.value.diagnostics]


# -- use ---------------------------------------------------------------------------------------------------------


def test_names_of_a_used_file_mean_what_they_mean_there(tmp_path: Path) -> None:
    """Its recipes see its own lets and those it uses itself; parameters hide names; nothing leaks."""
    write(tmp_path / "far" / "base.mlc", "let big = on size > 4KiB\nrecipe cut(r) = prune(r) on big\n")
    write(
        tmp_path / "far" / "mid.mlc",
        'use "base.mlc"\nlet r = int4\nrecipe half(r = 50%) = base.cut(r) + r2\nlet r2 = r\n',
    )
    mine = write(tmp_path / "mine.mlc", 'use "far/mid.mlc" as m\nlet r = fp16\nrecipe a = m.half(30%) + r\n')
    with pytest.raises(MlcError, match="the parameter 'r' has the name of a statement"):
        recipe(mine)  # a mistake of that file: `r` is a let of it, too
    write(tmp_path / "far" / "mid.mlc", 'use "base.mlc"\nrecipe half(r = 50%) = base.cut(r) + r2\nlet r2 = int4\n')
    assert texts(mine) == ["prune(ratio=30%) on size > 4KiB", "int4", "fp16"]
    assert texts(f"{mine}:m.half(60%)") == ["prune(ratio=60%) on size > 4KiB", "int4"]


def test_mistakes_of_used_files_are_shown_where_they_are(tmp_path: Path) -> None:
    write(tmp_path / "b.mlc", "recipe x = prun\nrecipe y = ((\n")
    mine = write(tmp_path / "a.mlc", 'use "b.mlc"\nrecipe a = b.x + b.y + b.z\n')
    with pytest.raises(MlcError) as caught:
        recipe(mine)
    told = str(caught.value)
    assert f"--> {tmp_path / 'b.mlc'}:1:12" in told
    assert "did you mean 'prune'?" in told
    assert "unknown step 'b.z'" in told
    assert "'b.y'" not in told  # it could not be read, which is told already


def test_files_that_use_each_other(tmp_path: Path) -> None:
    write(tmp_path / "b.mlc", 'use "a.mlc"\nrecipe x = a.y\n')
    mine = write(tmp_path / "a.mlc", 'use "b.mlc"\nrecipe y = b.x\n')
    with pytest.raises(MlcError, match=r"it uses itself \(a.mlc -> b.mlc -> a.mlc\)"):
        recipe(mine)


def test_arguments_on_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path / "e.mlc", "let half = 50%\nrecipe small(r) = prune(r)\nrecipe other = fp16\n")
    assert texts(f"{path}:small(70%)") == ["prune(ratio=70%)"]
    assert texts(f"{path}:small(r=half)") == ["prune(ratio=50%)"]
    for wrong, message in (
        ("small(q=1)", "takes no argument 'q'"),
        ("smal(1%)", "did you mean 'small'"),
        ("small", "no value"),
        ("small(70%", "unexpected end of the recipe"),
        ("small(70%) + fp16", "one recipe of a file is chosen here"),
        ("small(70%) where size <= 1x", "one recipe of a file is chosen here"),
    ):
        with pytest.raises(MlcError, match=message):
            recipe(f"{path}:{wrong}")


# -- data --------------------------------------------------------------------------------------------------------

BOTH = 'data cal = npz("data.npz", take=16)\ndata val = npz("data.npz", labels="y")\n'


@pytest.mark.parametrize(
    ("text", "calibrates", "judges"),
    [
        ("recipe a = int8\n", None, None),
        ('data d = npz("data.npz")\nrecipe a = int8\n', "d", None),
        (f"{BOTH}recipe a = int8\n", "cal", "val"),
        (f"{BOTH}recipe a = int8(data=val)\n", "val", "cal"),
        (f'{BOTH}data more = npz("data.npz")\nrecipe a = int8(data=more)\n', "more", "val"),
        ('data v = npz("data.npz", labels="y")\nrecipe a = prune(50%)\n', "v", None),
    ],
)
def test_which_data_calibrates_and_which_judges(
    tmp_path: Path, text: str, calibrates: str | None, judges: str | None
) -> None:
    samples(tmp_path)
    path = write(tmp_path / "a.mlc", text)
    assert recipe(path).data_names() == (calibrates, judges)
    found = Program.of(path).data(None, None)
    assert [d is None for d in found] == [name is None for name in (calibrates, judges)]
    assert all(d is None or str(tmp_path / "data.npz") in str(d.source) for d in found)  # type: ignore[union-attr]
    assert Program.of(path).data("mine.npz", None)[0] == "mine.npz"
    (tmp_path / "data.npz").unlink()
    if calibrates is not None:
        with pytest.raises(MlcError, match="there is no data file") as caught:
            Program.of(path).data(None, None)
        assert caught.value.diagnostics[0].span is not None
    assert Program.of(path).data("mine.npz", "mine.npz") == ("mine.npz", "mine.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{BOTH}data more = npz("data.npz")\nrecipe a = int8\n', "it is not clear which"),
        (f"{BOTH}recipe a = smooth(data=cal) + int8(data=val)\n", "one run calibrates with one data set"),
    ],
)
def test_data_whose_part_is_not_clear(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(MlcError, match=message):
        recipe(write(tmp_path / "a.mlc", text)).data_names()


def test_steps_that_take_nothing_from_data_refuse_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mlc", f"{BOTH}recipe a = int8(mode=stored, data=cal)\n")
    with pytest.raises(MlcError, match="takes nothing from data"):
        Program.of(path)
    with pytest.raises(MlcError, match="takes no argument 'data'"):
        Recipe.parse("simplify(data=x)")


def test_what_is_stored_needs_no_data_bindings(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mlc", f"{BOTH}recipe a = smooth(data=cal) + int8(data=cal, damage=1%)\n")
    stored = file_text(recipe(path).checked)
    assert [s.text for s in steps_of(Recipe.parse(stored).steps)] == ["smooth", "int8(damage=1%)"]


# -- targets -----------------------------------------------------------------------------------------------------

TARGETS = "target a = ort(cpu)\ntarget b = ort(cpu, threads=2)\n"


def test_bounds_for_a_target_are_its_own(tmp_path: Path) -> None:
    text = f"{TARGETS}recipe r = fp16 where size <= 1x, latency <= 1ms for a, latency <= 2ms for b\n"
    path = write(tmp_path / "a.mlc", text)
    found = {name: [x.text for x in Program.of(path, name).limits] for name in ("a", "b")}
    assert found == {"a": ["size <= 1x", "latency <= 1ms"], "b": ["size <= 1x", "latency <= 2ms"]}
    assert Program.of(path, "b").target == "ort(cpu, threads=2)"
    with pytest.raises(MlcError, match="runs on a target without a name") as caught:
        Program.of(path)
    assert caught.value.diagnostics[0].code is Code.BAD_TARGET
    loop = write(tmp_path / "loop.mlc", f"{TARGETS}recipe r = prune(5%) until latency <= 1ms for a\n")
    assert Program.of(loop, "a").loops
    with pytest.raises(MlcError, match="this loop is judged on the target 'a'"):
        Program.of(loop, "b")


# -- compile statements ------------------------------------------------------------------------------------------


def test_one_job_for_each_statement_and_target(tmp_path: Path) -> None:
    two_layers(tmp_path)
    text = f'model m = "net.onnx"\n{TARGETS}recipe r(x = 10%) = prune(x)\ncompile m with r to a, b\n'
    path = write(tmp_path / "a.mlc", text + 'compile "net.onnx" with r(20%) + fp16\n')
    found = jobs(path)
    assert [(j.name, j.target, j.model) for j in found] == [
        ("m-a", "a", tmp_path / "net.onnx"),
        ("m-b", "b", tmp_path / "net.onnx"),
        ("net", "ort(cpu)", tmp_path / "net.onnx"),
    ]
    assert [s.text for s in steps_of(found[2].recipe.steps)] == ["prune(ratio=20%)", "fp16"]
    again = write(tmp_path / "b.mlc", text + "compile m with fp16 to a\n")
    assert [j.name for j in jobs(again)] == ["m-r-a", "m-r-b", "m-fp16-a"]
    twice = write(tmp_path / "c.mlc", text + "compile m with r to a\n")
    assert codes(twice) == [Code.DUPLICATE]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("recipe a = fp16\n", [Code.UNKNOWN_RECIPE]),
        ("fp16\n", [Code.UNKNOWN_RECIPE]),
        ('compile "missing.onnx" with fp16\n', [Code.NOT_FOUND]),
        ('compile m with fp16\ncompile "none.onnx" with nix\n', [Code.WRONG_KIND, Code.NOT_FOUND, Code.UNKNOWN_STEP]),
        ('compile rebasin([a]) with fp16\ncompile 3 with fp16\n', [Code.NOT_YET, Code.WRONG_KIND]),
        (f'{TARGETS}recipe r = fp16 where latency <= 1ms for a\ncompile "net.onnx" with r\n', [Code.BAD_TARGET]),
        ('recipe r(x) = prune(x)\ncompile "net.onnx" with r\n', [Code.MISSING_ARGUMENT]),
        ('optimizer o = sgd(1)\ncompile "net.onnx" with fp16\n', [Code.NOT_YET]),
    ],
)  # fmt: skip
def test_what_cannot_run_is_told_before_any_work(tmp_path: Path, text: str, found: list[Code]) -> None:
    two_layers(tmp_path)
    assert codes(write(tmp_path / "a.mlc", text)) == found


MANY = """
data d = npz("none.npz")
target phone = ort(cpu)
recipe small(r = 50%) = prune(r) + int8(data=d)
recipe bad = prune(50)
recipe acc = fp16 where acc_drop <= 1pp
recipe cos = fp16 where cosine >= 0.9
recipe lost = (((
compile "none.onnx" with smal
compile "net.onnx" with small(r=10) to phone, phoe
compile nett with bad
compile "net.onnx" with acc
compile "net.onnx" with lost + fp16
compile "net.onnx" with cos
compile "none.onnx" with correct_bias + fp16
"""


def test_all_mistakes_of_a_file_are_told_in_one_run(tmp_path: Path) -> None:
    """Each once, with its line; what follows from another one is not told."""
    two_layers(tmp_path)
    path = write(tmp_path / "a.mlc", MANY)
    with pytest.raises(MlcError) as caught:
        jobs_of(path, stdin=NOTHING, check="fast")
    told = [(d.span.line_column()[0], d.message) for d in caught.value.diagnostics if d.span is not None]
    assert told == [
        (2, f"there is no data file '{tmp_path / 'none.npz'}'"),
        (5, "'prune.ratio' = 50 is out of range 0%..100%"),
        (6, "'acc_drop' needs labels"),
        (7, "'cosine' is not measured under --check fast"),
        (8, "unexpected end of the recipe"),
        (9, f"there is no model '{tmp_path / 'none.onnx'}'"),
        (9, "unknown step 'smal'"),
        (10, "unknown target 'phoe'"),
        (10, "'prune.ratio' = 10 is out of range 0%..100%"),
        (11, "'nett' is bound to no model"),
        (15, f"there is no model '{tmp_path / 'none.onnx'}'"),
        (15, "'correct_bias' must come after 'fp16', and 'fp16' comes later"),
    ]
    assert len(told) == len(caught.value.diagnostics)


def test_data_that_a_file_lacks_is_told_with_its_line(tmp_path: Path) -> None:
    two_layers(tmp_path)
    needy = 'compile "net.onnx" with int8 + correct_bias\n'
    for text, line, code, message in (
        (needy, 1, Code.NO_DATA, "'correct_bias' needs calibration data, and the file has none"),
        (f'data d = npz("none.npz")\n{needy}', 1, Code.NOT_FOUND, f"there is no data file '{tmp_path / 'none.npz'}'"),
        ('recipe r = fp16 where acc_drop <= 1pp\ncompile "net.onnx" with r\n', 1, Code.NO_DATA, "needs labels"),
    ):
        with pytest.raises(MlcError) as caught:
            jobs(write(tmp_path / "a.mlc", text))
        (found,) = caught.value.diagnostics
        assert found.span is not None
        assert (found.span.line_column()[0], found.code) == (line, code)
        assert message in found.message
        assert "--eval" not in str(caught.value)  # which mlc run does not take
    samples(tmp_path)
    write(tmp_path / "b.mlc", f'data d = npz("data.npz", labels="y")\n{needy}')
    assert len(jobs(str(tmp_path / "b.mlc"))) == 1


def test_metrics_that_are_not_there_are_told_before_any_work(tmp_path: Path) -> None:
    two_layers(tmp_path)
    samples(tmp_path)
    write(tmp_path / "scores.py", "def wer(outputs, labels):\n    return 0.0\n")
    write(tmp_path / "broken.py", "import nothing_of_this_name\n")
    text = 'use "scores.py" as s\nuse "broken.py" as b\ndata d = npz("data.npz")\n'
    text += 'recipe r = fp16 where s.wer <= 1, s.were <= 1, b.x >= 1\ncompile "net.onnx" with r\n'
    with pytest.raises(MlcError) as caught:
        jobs(write(tmp_path / "a.mlc", text))
    told = [d.message for d in caught.value.diagnostics if d.span is not None and d.span.line_column()[0] == 4]
    assert [("'were'" in m, "cannot be imported" in m) for m in told] == [(True, False), (False, True)]
    assert len(told) == len(caught.value.diagnostics)


def test_standard_input_is_a_file_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_layers(tmp_path)
    samples(tmp_path)
    monkeypatch.chdir(tmp_path)
    (job,) = jobs_of("-", stdin=io.StringIO('data d = npz("data.npz")\ncompile "net.onnx" with fp16\n'))
    assert job.model == Path("net.onnx")
    with pytest.raises(MlcError, match="is no recipe file"):
        jobs_of("fp16", stdin=NOTHING)
