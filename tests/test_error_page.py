"""docs/errors.md: every code has an example that really raises it, and the page shows the message word for word."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from kit.error_examples import EXAMPLES, GROUPS
from kit.error_page import page
from kit.layout import modules

from mlc.ir.errors import Code

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errors.md"


def test_every_code_has_one_example() -> None:
    assert [e.code for e in EXAMPLES] == list(Code)
    assert {code.code[:3] for code in Code} == set(GROUPS)


def test_the_page_shows_what_is_said(tmp_path: Path, update_golden: bool) -> None:
    """If this fails: pytest tests/test_error_page.py --update-golden"""
    shown = page(tmp_path)
    if update_golden:
        PAGE.write_text(shown, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == shown


def test_every_message_says_what_to_do() -> None:
    """A help, or a caret that says what could stand there."""
    for told in re.findall(r"^error\[.*?(?=^```|^error)", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        assert re.search(r"^ *= help: |\^+ \w", told, re.MULTILINE), told


def test_no_code_of_mlc_raises_without_advice() -> None:
    silent = [
        f"{name}:{call.lineno}"
        for name, file in modules().items()
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and _raises(call) and not _advises(call)
    ]
    assert silent == []


def _raises(call: ast.Call) -> bool:
    """Whether a call makes a diagnostic: its first argument is a code, or a choice of two."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    return name in ("error", "Diagnostic", "complain") and bool(call.args) and "Code." in ast.unparse(call.args[0])


def _advises(call: ast.Call) -> bool:
    given = {k.arg: k.value for k in call.keywords}
    advice = [given[name] for name in ("help", "label") if name in given]
    return any(not (isinstance(a, ast.Constant) and not a.value) for a in advice)
