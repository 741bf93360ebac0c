"""docs/recipe-reference.md is what the code says; each construct of the grammar has an example that parses to it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from kit.recipe_reference import EXAMPLES, PARTS, SECTIONS, STATEMENTS, TARGET, constructs, page
from kit.two_layers import samples, two_layers

from mlc.backends.targets import parse_target
from mlc.dsl.jobs import jobs_of
from mlc.dsl.parser import _grammar, parse, parse_file
from mlc.dsl.recipe import Recipe
from mlc.ir.errors import Code, MlcError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipe-reference.md"


def test_the_page_is_up_to_date(update_golden: bool) -> None:
    """If this fails: pytest tests/test_recipe_reference.py --update-golden"""
    shown = page()
    if update_golden:
        PAGE.write_text(shown, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == shown


def test_every_construct_of_the_grammar_has_an_example() -> None:
    made = {str(rule.alias or rule.origin.name) for rule in _grammar().rules}
    assert {name for name in made if not name.startswith("_")} - PARTS == set(constructs()) == set(EXAMPLES)
    assert sorted(EXAMPLES) == sorted(name for names in SECTIONS.values() for name in names)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_parses_to_its_construct(name: str) -> None:
    is_statement = name in STATEMENTS
    tree = _grammar().parse(EXAMPLES[name], start="file" if is_statement else "oneliner")
    assert name in {str(node.data) for node in tree.iter_subtrees()}
    (parse_file if is_statement else parse)(EXAMPLES[name])


#: What is understood and cannot be executed yet; everything else of the grammar can.
NOT_YET = {"choice", "oneof", "range", "minimize", "maximize", "search", "optimizer"}


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - set(STATEMENTS)))
def test_a_construct_is_executed_or_refused(name: str) -> None:
    text = f"target phone = ort(cpu)\nrecipe r = {EXAMPLES[name]}\n"
    if name not in NOT_YET:
        assert Recipe.parse(text).steps
        return
    with pytest.raises(MlcError) as caught:
        Recipe.parse(text)
    assert {d.code for d in caught.value.diagnostics} == {Code.NOT_YET}
    assert all(d.help and d.span is not None for d in caught.value.diagnostics)


def test_statements_are_executed_or_refused(tmp_path: Path) -> None:
    two_layers(tmp_path)
    samples(tmp_path)
    (tmp_path / "shared.mlc").write_text("recipe cut = prune(50%)\n")
    file = tmp_path / "all.mlc"
    file.write_text("".join(f"{EXAMPLES[name]}\n" for name in STATEMENTS if name not in NOT_YET))
    (job,) = jobs_of(str(file), stdin=io.StringIO())
    assert (job.name, job.target, len(job.recipe.steps)) == ("net-phone", "phone", 2)
    file.write_text("".join(f"{EXAMPLES[name]}\n" for name in STATEMENTS))
    with pytest.raises(MlcError) as caught:
        jobs_of(str(file), stdin=io.StringIO())
    assert [d.code for d in caught.value.diagnostics] == [Code.NOT_YET]


def test_targets_take_what_is_listed() -> None:
    for name, (choices, _) in TARGET.items():
        for choice in choices or ("2",):
            assert f"{name}={choice}" in str(parse_target(f"ort(cpu, {name}={choice})")) or choice == "auto"
