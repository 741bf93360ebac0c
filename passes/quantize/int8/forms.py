"""Which form every reader of a weight gets."""

from __future__ import annotations

from collections.abc import Sequence

from ...base import Context, SkipCode, Skipped
from ...ports import Form
from ..weights import Reader, is_notable
from .sites import Candidate

Forms = dict[Reader, Form]


def by_kernels(found: Sequence[Candidate], mode: str, ctx: Context) -> tuple[Forms, list[Skipped]]:
    """The first form each reader has (mode auto), or the form of the mode; weights whose readers cannot all have one
    are skipped. Static grids need data."""
    forms: Forms = {}
    skipped: list[Skipped] = []
    for candidate in found:
        chosen = {r: _form(candidate, r, mode, ctx) for r in candidate.forms}
        problems = _problems(candidate, chosen, mode)
        if problems:
            skipped += problems
        else:
            forms |= {r: form for r, form in chosen.items() if form is not None}
    return forms, skipped


def _form(candidate: Candidate, reader: Reader, mode: str, ctx: Context) -> Form | None:
    possible = [f for f in candidate.forms[reader] if f != "static" or ctx.data is not None or ctx.stats is not None]
    wanted = possible if mode == "auto" else [f for f in possible if f == mode]
    return wanted[0] if wanted else None


def next_form(possible: Sequence[Form], mode: str) -> Form:
    """The form after the static one; where a mode asks for one form, what is left is to store the codes."""
    return possible[1] if mode == "auto" else "stored"


def _problems(candidate: Candidate, chosen: dict[Reader, Form | None], mode: str) -> list[Skipped]:
    """Why a weight keeps its floats, for every reader that a report should name."""
    weight = candidate.weight
    without = [r for r, form in chosen.items() if form is None]
    notable = [r for r in chosen if is_notable(weight, r)]
    if without:
        return [Skipped(r.site, *_without(candidate, r, without, mode)) for r in notable]
    if all(form == "stored" for form in chosen.values()) and candidate.bytes_after >= candidate.constant.nbytes:
        why = f"{candidate.constant.nbytes} bytes now, {candidate.bytes_after} in codes"
        return [Skipped(r.site, SkipCode.TOO_SMALL, why) for r in notable]
    return []


def _without(candidate: Candidate, reader: Reader, without: Sequence[Reader], mode: str) -> tuple[SkipCode, str, str]:
    if reader not in without:
        return SkipCode.SHARED, f"its weight {candidate.weight.name} is also read by {without[0].site}, in floats", ""
    why = candidate.refusals.get(reader) or f"{reader.op.kind} has no {mode} form"
    return SkipCode.UNSUPPORTED, why, "mode=auto stores such weights in 8 bits"
