"""What `--strict` makes of sites that were skipped."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.errors import Code, Diagnostic
from ..passes.base import PassReport, SkipCode

_UNSTRICT = "leave such sites out with 'except', or --strict"


def unserved(reports: Sequence[PassReport]) -> tuple[Diagnostic, ...]:
    """One diagnostic per step and reason; sites that the user left out do not count."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for outcome in reports:
        for skip in outcome.skipped:
            if skip.code is not SkipCode.SCOPE:
                groups.setdefault((outcome.name, skip.why, skip.what_to_do or _UNSTRICT), []).append(skip.site)
    return tuple(
        Diagnostic(Code.SKIPPED_STRICT, f"'{name}' skipped {_several(sites)}: {why}", where=sites[0], help=help)
        for (name, why, help), sites in groups.items()
    )


def _several(sites: Sequence[str]) -> str:
    return sites[0] if len(sites) == 1 else f"{len(sites)} sites, e.g. {sites[0]}"
