"""The grammar, the parser and the printer: one language, without surprises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import recipes

import mlc.dsl
from mlc.dsl import syntax as ast
from mlc.dsl.parser import is_file, parse, parse_file
from mlc.dsl.print import layout, to_text
from mlc.ir.errors import Code, Diagnostic, MlcError

EXAMPLES = sorted((Path(__file__).parent / "golden" / "dsl" / "examples").glob("*.mlc"))


def test_grammar_is_lalr_in_strict_mode() -> None:
    """Strict mode proves that neither the LR tables nor the terminals collide."""
    pytest.importorskip("interegular", reason="lark's strict mode needs interegular")
    import lark

    grammar = (Path(next(iter(mlc.dsl.__path__))) / "recipe.lark").read_text()
    lark.Lark(grammar, parser="lalr", start=["oneliner", "file"], strict=True)
    clash = grammar.replace("CMP:", "CLASH: /[a-z]+/\nCMP:").replace("?atom: STRING", "?atom: CLASH -> clash | STRING")
    with pytest.raises(lark.exceptions.LexError):
        lark.Lark(clash, parser="lalr", start=["oneliner", "file"], strict=True)


@settings(deadline=None)
@given(recipes.programs)
def test_parse_inverts_print_for_recipes(program: ast.Program) -> None:
    assert parse(to_text(program)) == program
    assert parse(layout(program)) == program


@settings(deadline=None)
@given(recipes.files)
def test_parse_inverts_print_for_files(file: ast.File) -> None:
    assert parse_file(to_text(file)) == file


@settings(deadline=None)
@given(recipes.expressions, recipes.expressions, recipes.expressions)
def test_then_and_or_else_are_associative(a: ast.Expr, b: ast.Expr, c: ast.Expr) -> None:
    for join in (ast.chain, ast.choice):
        assert join([a, join([b, c])]) == join([join([a, b]), c])


def test_nested_chains_are_flat_in_text_too() -> None:
    assert parse("a + (b + c)") == parse("(a + b) + c") == parse("a+b+c")
    assert parse("a | (b | c)") == parse("a | b | c")
    assert parse("(a on X) except Y") == parse("a on X except Y")
    assert parse("a + (b | c)") != parse("a + b | c")
    assert parse("a on not not X") == parse("a on X")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_round_trip(path: Path) -> None:
    text = path.read_text()
    assert is_file(text)
    file = parse_file(text, path.name)
    printed = to_text(file)
    assert parse_file(printed) == file
    assert to_text(parse_file(printed)) == printed  # canonical text is a fixed point


def test_there_are_ten_examples() -> None:
    assert len(EXAMPLES) == 10


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("prune+int4", "prune + int4"),
        ("prune:50%", "prune(50%)"),
        ("prune( ratio =0.50 )", "prune(ratio=0.5)"),
        ("a(1e3, 1.0, 1e-05, -0)", "a(1000, 1, 1e-05, 0)"),
        ("a on 'x' and (B or C)", 'a on "x" and (B or C)'),
        ("a('say \"hi\"')", "a('say \"hi\"')"),
        ("a on (B)", "a on B"),
        ("((a))", "a"),
        ("(a + b) times 2", "(a + b) times 2"),
        ("a where size<=0.3x,latency.p95<8ms for edge minimize size", None),
        ("a + b # a comment\n  where size <= 4MiB", "a + b where size <= 4MiB"),
        ("a(data=x, model=y, search=z, use=w)", "a(data=x, model=y, search=z, use=w)"),
        ("a(2..8 by 2, {1, [2, 3]})", "a(2..8 by 2, {1, [2, 3]})"),
    ],
)
def test_canonical_text(text: str, canonical: str | None) -> None:
    printed = to_text(parse(text))
    if canonical is not None:
        assert printed == canonical
    assert parse(printed) == parse(text)


def test_long_recipes_are_broken_at_their_steps() -> None:
    file = parse_file("recipe r = " + " + ".join(f"step{i}(argument={i})" for i in range(9)) + " where size <= 1x")
    lines = to_text(file).splitlines()
    assert lines[:3] == ["recipe r =", "    step0(argument=0)", "  + step1(argument=1)"]
    assert lines[-1] == "  where size <= 1x"


def test_spans_point_into_the_text() -> None:
    program = parse("prune(50%) + int4 on Conv")
    assert isinstance(program.body, ast.Chain)
    for step, text in zip(program.body.steps, ["prune(50%)", "int4 on Conv"], strict=True):
        assert step.span is not None
        assert step.span.text[step.span.start : step.span.end] == text


@pytest.mark.parametrize(
    "unprintable",
    [ast.Ref("on"), ast.Ref("two words"), ast.Ref("a.b c"), ast.String("both \" and '"), ast.String("two\nlines")],
)
def test_what_cannot_be_written_is_refused_by_the_printer(unprintable: ast.Expr) -> None:
    with pytest.raises(MlcError, match="cannot be written"):
        to_text(ast.Program(unprintable))


_snippets = st.sampled_from([
    "prune", "+", "|", "(", ")", "50%", "[", "]", "{", "}", ",", "=", "on", "except", "where", "size", "<=", "0.3x",
    "~", '"', "'", ":", "..", "by", "times", "until", "not", "and", "recipe", "let", "1e999", "#", ".", "for",
    "é", "\n",
])  # fmt: skip


def _read(read: Callable[[str], ast.Program | ast.File], text: str) -> tuple[Diagnostic, ...]:
    """Parse and print a text: no diagnostics, or those of the only error that may be raised."""
    try:
        to_text(read(text))
    except MlcError as e:
        return e.diagnostics or pytest.fail("an error without a diagnostic")
    return ()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.lists(_snippets, max_size=14).map(" ".join))
def test_any_text_is_a_recipe_or_a_clear_error(text: str) -> None:
    for read in (parse, parse_file):
        for diagnostic in _read(read, text):
            assert diagnostic.code in (Code.SYNTAX, Code.CHARACTER)
            assert str(diagnostic)


HOSTILE = {
    "open parentheses": "(" * 5000,
    "brackets": "[" * 5000 + "]" * 5000,
    "calls": "a(" * 33 + ")" * 33,
    "negations": "a on " + "not " * 5000 + "B",
    "chain": "+".join("a" * 5000),
    "digits": "a(" + "9" * 5000 + ")",
    "file": "recipe a = " + "(" * 100,
    "regex": 'a on ~"' + "(" * 500 + '"',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_no_crash(text: str) -> None:
    for read in (parse, parse_file):
        _read(read, text)
