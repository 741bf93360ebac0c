"""docs/recipe-reference.md is what the code says; each construct of the grammar has an example that parses to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.recipe_reference import EXAMPLES, PARTS, SECTIONS, STATEMENTS, TARGET, constructs, page

from mlc.backends.targets import parse_target
from mlc.dsl.parser import _grammar, parse, parse_file

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


def test_targets_take_what_is_listed() -> None:
    for name, (choices, _) in TARGET.items():
        for choice in choices or ("2",):
            assert f"{name}={choice}" in str(parse_target(f"ort(cpu, {name}={choice})")) or choice == "auto"
