"""docs/ir.md says what is so: its example parses, its table of invariants is complete, its expressions hold."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mlc.ir.constants import Constant
from mlc.ir.dims import Sym, ceildiv, exact_div
from mlc.ir.parse import parse_module
from mlc.ir.rewrite import Rewriter
from mlc.ir.text import print_module
from mlc.ir.verify import INVARIANTS, verify

PAGE = (Path(__file__).parent.parent / "docs" / "ir.md").read_text(encoding="utf-8")


def test_the_example_of_the_text_form_parses_prints_and_verifies() -> None:
    (example,) = re.findall(r"```\n(format: 1.*?)```", PAGE, re.DOTALL)
    given = {
        "conv1.weight": Constant.of(np.zeros((8, 3, 3, 3), np.float32)),
        "axes": Constant.of(np.array([1])),
    }
    module = parse_module(example, given)
    verify(module)
    assert print_module(module) == example


def test_every_invariant_is_listed() -> None:
    listed = re.findall(r"^\| ([a-z-]+(?:, [a-z-]+)*) \|", PAGE, re.MULTILINE)
    names = [n for entry in listed for n in entry.split(", ")]
    assert [name for name, _ in INVARIANTS] == [n for n in names if n in dict(INVARIANTS)]


def test_the_expressions_hold() -> None:
    n = Sym("N")
    assert (n - 1) // 2 + 1 is ceildiv(n, 2)
    assert repr(exact_div(n * n - 1, n - 1)) == "N + 1"


def test_the_methods_of_the_rewriter_exist() -> None:
    section = PAGE.split("## Changing a module")[1].split("## ")[0]
    named = {name for name in re.findall(r"`([a-z_]+)(?:\(only=\.\.\.\))?`", section) if name not in ("infer_module",)}
    assert named - {"retype"} <= set(dir(Rewriter))
    assert {"erase", "inline", "set_constant"} <= named
