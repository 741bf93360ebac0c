"""Which form every reader of a weight gets."""

from __future__ import annotations

from collections.abc import Sequence

from ...base import Context, SkipCode, Skipped
from ...ports import Form
from ..weights import Reader, is_notable
from .sites import Candidate

Forms = dict[Reader, Form]
#: What a weight that is only stored must save: the error of a row that every sample reads adds up, and costs more than
#: its bytes are worth.
_LEAST_SHARE = 1e-4


def by_kernels(found: Sequence[Candidate], mode: str, ctx: Context, total: int) -> tuple[Forms, list[Skipped]]:
    """The first form each reader has (mode auto), or the form of the mode; weights whose readers cannot all have one
    are skipped. Static grids need data. `total` are the bytes of all weights."""
    forms: Forms = {}
    skipped: list[Skipped] = []
    for candidate in found:
        chosen = {r: _form(candidate, r, mode, ctx) for r in candidate.forms}
        problems = _problems(candidate, chosen, mode, total)
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


def _problems(candidate: Candidate, chosen: dict[Reader, Form | None], mode: str, total: int) -> list[Skipped]:
    """Why a weight keeps its floats, for every reader that a report should name."""
    weight = candidate.weight
    without = [r for r, form in chosen.items() if form is None]
    notable = [r for r in chosen if is_notable(weight, r)]
    if without:
        return [Skipped(r.site, *_without(candidate, r, without, mode)) for r in notable]
    saved = candidate.constant.nbytes - candidate.bytes_after
    if all(form == "stored" for form in chosen.values()) and saved <= _LEAST_SHARE * total:
        why = f"to store it would save {max(saved, 0)} bytes, not {_LEAST_SHARE:.2%} of the weights"
        return [Skipped(r.site, SkipCode.TOO_SMALL, why) for r in notable]
    return []


def _without(candidate: Candidate, reader: Reader, without: Sequence[Reader], mode: str) -> tuple[SkipCode, str, str]:
    if reader not in without:
        return SkipCode.SHARED, f"its weight {candidate.weight.name} is also read by {without[0].site}, in floats", ""
    why = candidate.refusals.get(reader) or f"{reader.op.kind} has no {mode} form"
    return SkipCode.UNSUPPORTED, why, "mode=auto stores such weights in 8 bits"
