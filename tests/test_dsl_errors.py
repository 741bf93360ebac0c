"""What the language says to each mistake, as golden text: `pytest tests/test_dsl_errors.py --update-golden`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.recipes import PASSES

from mlc.dsl import habits, nearmiss, slips
from mlc.dsl.recipe import Recipe
from mlc.dsl.signature import registered
from mlc.ir.errors import Code, MlcError
from mlc.passes import registry

GOLDEN = Path(__file__).parent / "golden" / "dsl" / "errors.txt"
_CASE = re.compile(r"^=== (?P<title>.*)\n(?P<text>(?:.*\n)*?)---\n(?P<message>(?:(?!=== ).*\n)*)", re.MULTILINE)


def _cases() -> list[re.Match[str]]:
    return list(_CASE.finditer(GOLDEN.read_text(encoding="utf-8")))


def _message(text: str) -> str:
    with pytest.raises(MlcError) as caught:
        Recipe.parse(text, catalog=PASSES)
    assert caught.value.exit_status == 2
    return "".join(line.rstrip() + "\n" for line in f"{caught.value}".splitlines())


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case["title"])
def test_message(case: re.Match[str], update_golden: bool) -> None:
    message = _message(case["text"].removesuffix("\n"))
    if not update_golden:
        assert message == case["message"]
        return
    whole = GOLDEN.read_text(encoding="utf-8")
    section = f"=== {case['title']}\n{case['text']}---\n"
    start = whole.index(section) + len(section)
    end = whole.find("\n=== ", start - 1) + 1 or len(whole)
    GOLDEN.write_text(whole[:start] + message + whole[end:], encoding="utf-8")


def test_the_golden_file_covers_every_code_of_the_language() -> None:
    shown = set(re.findall(r"^error\[(E0[123]\d\d)\]", GOLDEN.read_text(encoding="utf-8"), re.MULTILINE))
    elsewhere = {Code.BOUND_MISSED, Code.UNFORMATTED, Code.BAD_METRIC}  # the compiler; mlc fmt; a function
    language = {code.code for code in Code if code.code < "E04" and code not in elsewhere}
    assert language - shown == set()
    assert len(_cases()) >= 60


def test_every_message_says_where() -> None:
    for block in re.split(r"\n(?=error\[)", GOLDEN.read_text(encoding="utf-8")):
        if block.startswith("error["):
            assert "-->" in block


_pieces = st.sampled_from([
    "prune", "int4", "nest", "+", "|", "(", ")", "50%", "50", "-3", "4KiB", "[8, 4]", "{1, 2}", "1..3", "ratio=",
    "block=", ",", "on", "except", "Conv", "conv", "size >", '~"("', '"a"', "times", "2", "until", "while", "where",
    "size <= 0.3x", "cosine >= 0.9", "foo <= 1", "minimize size", "search tpe(n=1)", "none", "w4a16", "small",
    "\nrecipe a = ", "\nlet q = ", "\nrecipe b(r = 3) = ", "q", "a", "b(r)", "\nmodel m = ", "for t",
    "latency.p95 < 3ms",
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(_pieces, max_size=12).map(" ".join))
def test_any_text_runs_or_is_refused(text: str) -> None:
    try:
        recipe = Recipe.parse(text, catalog=PASSES)
    except MlcError as e:
        assert str(e)  # noqa: PT017  (most texts are wrong; the point is that nothing else is raised)
        return
    assert recipe.steps


def _advised(text: str) -> list[str]:
    """The recipes or bounds that advice names."""
    plain = re.sub(r" \((activations, too|needs labels)\)", "", text).replace("BITS", "4")
    return re.split(r",? or |, (?!method|kind|\d)", plain)


@pytest.mark.parametrize("word", sorted(habits.STEPS))
def test_what_is_advised_instead_of_a_step_is_a_recipe(word: str) -> None:
    assert word not in registry.names()
    for written in (word, word.upper()):
        with pytest.raises(MlcError, match=re.escape(f"write {habits.STEPS[word]}")):
            Recipe.parse(written)
    for advised in _advised(habits.STEPS[word]):
        assert Recipe.parse(advised).steps


@pytest.mark.parametrize("word", sorted(habits.METRICS))
def test_what_is_advised_instead_of_a_metric_is_a_bound(word: str) -> None:
    with pytest.raises(MlcError, match=re.escape(f"write {habits.METRICS[word]}")):
        Recipe.parse(f"fp16 where {word} <= 1")
    for advised in _advised(habits.METRICS[word]):
        assert Recipe.parse(f"fp16 where {advised}").limits


def test_arguments_with_advice_do_not_exist() -> None:
    for step, argument in habits.ARGUMENTS_OF:
        with pytest.raises(MlcError, match="takes no argument"):
            Recipe.parse(f"{step}({argument}=8)")


@pytest.mark.parametrize("word", sorted({**habits.ARGUMENTS, **habits.SCOPES}))
def test_what_is_advised_instead_of_an_argument_is_one(word: str) -> None:
    """Of some pass; and of every pass that does not take the word itself something is said that it takes."""
    catalog = registered()
    told = 0
    for name in registry.BUILTIN:
        taken = catalog.find(name).parameters
        if word in taken:
            continue
        advice = nearmiss.argument_advice(name, word, taken)
        if word in habits.SCOPES:
            assert Recipe.parse(advice.rpartition(": ")[2]).steps
        elif advice.startswith("here it is called"):
            assert advice.split("'")[1] in taken
        told += bool(advice)
    assert told


#: A text with a slip, and its advice.
SLIPS = {
    "prune where cosine >= .99": "a number starts with a digit: 0.99",
    "// a comment\nrecipe a = prune": "comments begin with #",
    "prune -> int4": "steps are joined by '+'",
    'import "x.mlc"\nrecipe a = prune': 'other files are used: use "other.mlc" as NAME',
    "recipe a = prune\nuse 'x.mlc'\nuse lib/x.mlc": 'a path stands in quotes: use "lib/x.mlc" as NAME',
    'use "x.mlc" y\nrecipe a = prune': "a name is given with as: as y",
    "let f(x) = prune(x)": "what has parameters is a recipe: recipe f(...) = ...",
    "recipe a = prune\nlet b: int4": "a name is bound with '=': b = ...",
    'compile "n.onnx" with prune minimize size': (
        "goals belong to recipes: recipe NAME = ... minimize ..., then compile ... with NAME"
    ),
    'compile "n.onnx" with prune to ort(cpu)': "a target is named: target NAME = ort(...), then to NAME",
    'compile "n.onnx" with prune for phone': "targets stand behind to: compile ... to TARGET",
    'compile "n.onnx" prune': "write: compile MODEL with RECIPE to TARGET",
    "prune where size <= 1x & cosine >= 0.9": slips._BOUNDS,
    "prune until size <= 1x and cosine >= 0.9": "a loop is judged by one bound",
    "prune where size <= 30 MB": "a unit follows its number without a space: 30MB, 0.3x",
    "prune where size =< 30MB": "bounds compare with <=, >=, < or >",
    "prune where cosine >= 0.9, 0.3x >= size": "the metric comes first: where size <= 0.3x",
    "prune where (size <= 1x)": f"without parentheses; {slips._BOUNDS}",
    'prune on "a", "b"': 'selectors are joined by or: on "a" or "b"',
    'prune except ["a", "b"]': 'selectors are joined by or: on "a" or "b"',
    "prune on *.weight": 'a pattern stands in quotes: "*.weight"',
    "prune(criterion=l1, ratio 50%)": "an argument is given with '=': ratio=50%",
    "simplify + prune 50%": "arguments stand in parentheses: prune(50%)",
    "simplify + prune[50%]": "arguments stand in parentheses: prune(...)",
    "prune when size <= 1x": "bounds begin with where: where size <= 0.3x",
    "prune if Conv": "a scope is written: step on SELECTOR",
    "prune for phone": "bounds are for targets: where latency <= 8ms for phone",
    "prune & int4": "steps are joined by '+'",
    "prune; int4": "steps are joined by '+', statements of a file by a new line",
    "prune, int4": "steps are joined by '+'; commas separate arguments and bounds",
    "prune(ratio==50%)": "an argument is given with one '='",
    "a = prune": "a recipe is given a name in a file: recipe NAME = ...",
    "prune @ Conv": 'a scope is written: step on "pattern"',
    "$prune": "names use letters, digits and underscores",
    "prune:50 %": "a unit follows its number without a space: 50%",
    "correct-bias": "names use underscores, not dashes",
}


@pytest.mark.parametrize("text", SLIPS)
def test_slips_have_advice(text: str) -> None:
    with pytest.raises(MlcError) as caught:
        Recipe.parse(text, catalog=PASSES)
    assert SLIPS[text] in [d.help for d in caught.value.diagnostics]


def test_every_slip_has_its_example() -> None:
    """In the order of the rules: none is hidden by another."""
    shown = [re.escape(advice).replace(r"\{0\}", ".*").replace(r"\{1\}", ".*") for _, _, advice in slips._RULES]
    assert len(shown) == len(SLIPS)
    for pattern, advice in zip(shown, SLIPS.values()):
        assert re.fullmatch(pattern, advice)
