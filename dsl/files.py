"""Reading recipe files: text in UTF-8, of a format that this version knows."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..ir.errors import Code, error

FORMAT = 1
_HEADER = re.compile(r"#\s*format:\s*(\d+)")


def read_file(path: Path) -> str:
    """The text of a recipe file. Errors: NOT_FOUND, CHARACTER, FORMAT."""
    if os.path.isdir(path):
        inside = path / "recipe.mlc"
        advice = f"give the recipe in it: {inside}" if inside.is_file() else "give a recipe file"
        raise error(Code.NOT_FOUND, "the recipe is a folder", where=str(path), help=advice)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error(Code.NOT_FOUND, "the recipe file was not found", where=str(path), help="check the path") from None
    except UnicodeDecodeError:
        raise error(Code.CHARACTER, "the recipe file is not text", where=str(path), help="save it as UTF-8") from None
    except OSError as e:
        message = f"the recipe file cannot be read: {e.strerror}"
        raise error(Code.NOT_FOUND, message, where=str(path), help="check its permissions") from None
    return accepted(text, str(path))


def accepted(text: str, name: str) -> str:
    """The text, if its format is known. Errors: FORMAT."""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        found = _HEADER.match(line)
        if found is not None and int(found[1]) > FORMAT:
            raise error(
                Code.FORMAT,
                f"the recipe has format {found[1]}, and this mlc reads up to {FORMAT}",
                where=name,
                help="update mlc: pip install -U mlc-compress",
            )
    return text
