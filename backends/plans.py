"""Plans on a terminal: what each step would change and what it would skip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 12


class JsonPlan(Protocol):
    def to_json(self) -> dict[str, Any]: ...


def show(plans: Sequence[tuple[str, JsonPlan]], console: Console) -> None:
    """Print plans, lists shortened; `--json` has everything."""
    from rich.text import Text

    for step, plan in plans:
        console.print(Text(step, style="bold"))
        found = plan.to_json()
        skipped, notes = found.pop("skipped"), found.pop("notes")
        for key, value in found.items():
            if value in ([], ()):
                continue
            for line in _lines(key, value):
                console.print(Text(f"  {line}"))
        for skip in skipped[:_SHOWN]:
            console.print(Text(f"  skips {skip['site']}: {skip['code']}: {skip['why']}"))
        if len(skipped) > _SHOWN:
            console.print(Text(f"  ... and {len(skipped) - _SHOWN} more skips (--json lists them)"))
        for note in notes:
            console.print(Text(f"  note: {note}"))


def _lines(key: str, value: Any) -> list[str]:
    """One field of a plan: scalars on a line, the first items of a list below each other."""
    if isinstance(value, list) and len(value) == 2 and not any(isinstance(v, dict | list) for v in value):
        return [f"{key}: {_short(value[0])} -> {_short(value[1])}"]
    if not isinstance(value, list):
        return [f"{key}: {_short(value)}"]
    shown = [f"  {_short(item)}" for item in value[:_SHOWN]]
    more = [f"  ... and {len(value) - _SHOWN} more (--json lists them)"] if len(value) > _SHOWN else []
    return [f"{key}: {len(value)}", *shown, *more]


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items() if v not in ("", None, []))
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
