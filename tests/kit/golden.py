"""Golden text of many cases in one file: sections headed `=== title`."""

from __future__ import annotations

import re
from pathlib import Path

_SECTION = re.compile(r"^=== (?P<title>.*)\n(?P<text>(?:(?!=== ).*\n)*)", re.MULTILINE)


def same(path: Path, title: str, text: str, *, update: bool) -> None:
    """Assert that a section of a golden file says `text`; with `update`, write it instead."""
    found = sections(path)
    shown = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if update and found.get(title) != shown:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = (f"=== {name}\n{body}" for name, body in sorted({**found, title: shown}.items()))
        path.write_text("".join(written), encoding="utf-8")
        return
    assert found.get(title) == shown


def sections(path: Path) -> dict[str, str]:
    """Title to text of every section; nothing for a file that is not there."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return {m["title"]: m["text"] for m in _SECTION.finditer(text)}
