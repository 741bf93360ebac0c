"""`mlc fmt`: laws of the formatter, where comments go, files that are replaced at once."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import recipes

from mlc.cli import run
from mlc.dsl import syntax as ast
from mlc.dsl.format import formatted
from mlc.dsl.parser import comments, parse, parse_file
from mlc.dsl.print import to_text

_remark = st.from_regex(r"#[ -~]{0,12}", fullmatch=True)
_space = st.sampled_from([" ", "\n", "\n\n", "\n\n\n", "  \n\t"])


def _told(text: str) -> list[str]:
    return [text[start:end].rstrip() for start, end in comments(text)]


@st.composite
def commented(draw: st.DrawFn) -> str:
    """A random file with comments and blank space wherever a token may end."""
    printed = to_text(draw(recipes.files.filter(lambda f: bool(f.statements))))
    tokens = re.findall(r"\"[^\"\n]*\"|'[^'\n]*'|~\"[^\"\n]*\"|~'[^'\n]*'|[ \n]+|[^ \n\"'~]+|~", printed)
    out = []
    for token in tokens:
        if not token.isspace() or draw(st.integers(0, 3)):
            out.append(token)
        elif "\n" in token:
            out.append(draw(st.builds(" {}\n{}{}\n".format, _remark, _space, _remark)))
        else:
            out.append(draw(_space | st.builds(" {}\n".format, _remark)))
    return "".join(out)


@settings(deadline=None, max_examples=150)
@given(commented())
def test_formatting_keeps_recipes_and_comments_and_is_idempotent(text: str) -> None:
    file = parse_file(text)
    once = formatted(text) if file.statements else text
    assert parse_file(once) == file
    assert sorted(_told(once)) == sorted(_told(text))
    assert formatted(once) == once
    assert not re.search(r"\n\n\n|[ \t]\n|\A\n", once)


@settings(deadline=None)
@given(recipes.programs)
def test_bare_recipes(program: ast.Program) -> None:
    text = f"# first\n\n\n{to_text(program)} # last"
    once = formatted(text)
    assert parse(once) == program
    assert once.startswith("# first\n\n")
    assert once.endswith("  # last\n")
    assert formatted(once) == once


BEFORE = """

# mlc recipe
# format: 1
use 'b.mlc'   as x # shared
let big=on size>4KiB


# Half of it,
  #   then four bits.
recipe small(r=50%)=prune:30%  # a third
   + int4(64) # blocks

   where size<=0.50x # tight
let a = int4 let b = fp16 # two
# the end"""

AFTER = """\
# mlc recipe
# format: 1
use "b.mlc" as x  # shared
let big = on size > 4KiB

# Half of it,
#   then four bits.
# a third
# blocks
recipe small(r = 50%) = prune(30%) + int4(64)
  where size <= 0.5x  # tight
let a = int4
let b = fp16  # two
# the end
"""


def test_where_comments_go() -> None:
    assert formatted(BEFORE) == AFTER


def test_files_are_replaced_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, fine = (tmp_path / name for name in ("good.mlc", "bad.mlc", "fine.mlc"))
    good.write_text(BEFORE, encoding="utf-8")
    good.chmod(0o640)
    link = tmp_path / "link.mlc"
    link.symlink_to(good)
    bad.write_text("recipe a = ((\n", encoding="utf-8")
    fine.write_text(AFTER, encoding="utf-8")
    assert run(["fmt", "--check", str(good), str(fine)]) == 2
    told = capsys.readouterr().err
    assert f"error[E0103]: this is not how mlc fmt writes it\n  --> {good}" in told
    assert str(fine) not in told
    assert run(["fmt", str(link), str(bad)]) == 2
    assert good.read_text() == BEFORE  # nothing is written when one cannot be read
    assert run(["fmt", str(link), str(fine)]) == 0
    assert capsys.readouterr().out == f"formatted {link}\n"
    assert good.read_text() == AFTER
    assert link.is_symlink()
    assert stat.S_IMODE(os.stat(good).st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.mlc", "fine.mlc", "good.mlc", "link.mlc"]
    assert run(["fmt", "--check", str(good)]) == 0
    assert run(["fmt", str(tmp_path / "missing.mlc")]) == 2


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status in ((["-"], 0), (["-", "--check"], 2), (["-", "a.mlc"], 2)):
        monkeypatch.setattr("sys.stdin", io.StringIO("prune:50%+int4"))
        assert run(["fmt", *arguments]) == status
        assert capsys.readouterr().out == ("prune(50%) + int4\n" if arguments == ["-"] else "")


def test_the_standard_recipes_are_formatted() -> None:
    path = Path(__file__).parent.parent / "dsl" / "standard.mlc"
    assert formatted(path.read_text(encoding="utf-8"), str(path)) == path.read_text(encoding="utf-8")
