"""Reading report.json: what the schema demands is there, so that whoever shows or compares reports can rely on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..ir import errors
from ..ir.errors import Code
from .report import FORMAT, SCHEMA, Report

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def read(path: Path) -> Report:
    """A report from a file. Errors: TEXT for something else than a report, FORMAT for a newer one.

    Fields that this version does not know are left in: they are no reason to refuse what else is there.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        newer = found["format"] > FORMAT
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise _no_report(path, "") from cause
    if newer:
        raise errors.error(
            Code.FORMAT,
            f"{str(path)!r} has format {found['format']}; this mlc reads up to {FORMAT}",
            help="update mlc: pip install -U mlc-compress",
        )
    schema = json.loads((files(__package__) / SCHEMA).read_text("utf-8"))
    fault = next(_faults(found, schema, schema["$defs"]), None)
    if fault is not None:
        raise _no_report(path, f": there is no {fault}" if fault else "")
    return dict(found)


def _no_report(path: Path, why: str) -> errors.MlcError:
    message = f"{str(path)!r} is not a report of mlc{why}"
    return errors.error(Code.TEXT, message, help="give the report.json of an artifact")


def _faults(part: Any, schema: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    """Where a document lacks a field that the schema demands, or holds another type there."""
    if "$ref" in schema:
        schema = known[schema["$ref"].rpartition("/")[2]]
    if "oneOf" in schema:
        yield from min(([*_faults(part, choice, known)] for choice in schema["oneOf"]), key=len)
    names = schema.get("type", ())
    types = [t for name in ([names] if isinstance(names, str) else names) for t in _TYPES[name]]
    if types and not isinstance(part, tuple(types)):
        yield ""
    elif isinstance(part, dict):
        yield from (key for key in schema.get("required", ()) if key not in part)
        for key, below in schema.get("properties", {}).items():
            faults = _faults(part[key], below, known) if key in part else ()
            yield from (f"{key}.{path}".rstrip(".") for path in faults)
    elif isinstance(part, list):
        for item in part:
            yield from _faults(item, schema.get("items", {}), known)
