"""`mlc plan` on a terminal: tables and units instead of data, nothing said twice, and JSON as before."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from kit.two_layers import samples, two_layers
from rich.console import Console

import mlc
from mlc.backends import plans as view
from mlc.compiler import plans_to_json
from mlc.passes.base import Plan, SkipCode, Skipped


@dataclass(frozen=True)
class Reader:
    op: str
    site: str


@dataclass(frozen=True)
class Row:
    constant: str
    shape: tuple[int, ...]
    readers: tuple[Reader, ...]
    bits: int
    kernel: bool
    before: int
    after: int
    error: float | None
    bytes_before: int
    bytes_after: int
    nothing: str = ""


@dataclass(frozen=True)
class Everything(Plan):
    sites: tuple[Row, ...] = ()
    names: tuple[str, ...] = ()
    macs: tuple[str, str] = ("", "")
    weight_bytes: tuple[int, int] = (0, 0)
    parameters: tuple[int, int] = (0, 0)
    ops_before: int = 0
    ops_after: int = 0
    folded: bool = True
    empty: tuple[int, ...] = ()


def shown(*plans: tuple[str, Plan]) -> str:
    console = Console(file=io.StringIO(), width=160, highlight=False, markup=False)
    view.show(plans, console)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def everything(rows: int) -> Everything:
    readers = (Reader("a_out", "/a"), Reader("b_out", "/b"))
    return Everything(
        skipped=tuple(Skipped(f"/s{i}", SkipCode.TOO_SMALL, "it is small") for i in range(3)),
        notes=("a note [x]",),
        sites=tuple(Row(f"w{i}", (2, i), readers, 4, True, 32, 16, None, 3 << 20, 1 << 20) for i in range(rows)),
        names=("one", "two"),
        macs=("N*1000000", "N*500000"),
        weight_bytes=(1561640, 810792),
        parameters=(390410, 0),
        ops_before=362,
        ops_after=217,
    )


def test_every_kind_of_field() -> None:
    assert shown(("pass(x=1)", everything(2))) == (
        """pass(x=1)
  sites: 2, 6.0 MiB -> 2.0 MiB (33%) together; each readers /a (+1), bits 4, kernel yes
    constant  shape   before -> after                      size
    w0        [2, 0]   32 -> 16 (50%)  3.0 MiB -> 1.0 MiB (33%)
    w1        [2, 1]   32 -> 16 (50%)  3.0 MiB -> 1.0 MiB (33%)
  names: 2
    one
    two
  MACs: N*1000000 -> N*500000
  weights: 1.5 MiB -> 791.8 KiB (52%)
  parameters: 390.4 k -> 0 (0%)
  ops: 362 -> 217 (60%)
  folded: yes
  skips 3 sites, e.g. /s0: too-small: it is small
  note: a note [x]
"""
    )


def test_long_lists_are_shortened_and_counted_whole() -> None:
    text = shown(("pass", everything(40)))
    assert "sites: 40, 120.0 MiB -> 40.0 MiB (33%) together" in text
    assert "... and 28 more (--json lists them)" in text
    assert text.count("3.0 MiB -> 1.0 MiB") == 12


@pytest.mark.parametrize(
    "recipe",
    ["simplify + prune(30%) + int8", "prune", 'prune(50%, kind="unstructured")', "smooth + int8", "int4 + fp16"],
)
def test_no_data_on_a_terminal(recipe: str, tmp_path: Path) -> None:
    """Real plans: no Python, no bytes that nobody can read, and every table fits its names."""
    plans = mlc.plan(two_layers(tmp_path, width=256), recipe, data=str(samples(tmp_path)))
    text = shown(*plans)
    assert not re.search(r"[{}]|\['|_before|_after|True|False|None", text)
    assert not re.search(r"(?<![.\d])\d{6,}\b", text)
    assert json.loads(plans_to_json(plans))["steps"][0]["step"] in text
