"""Control flow that is decided: an If with a constant condition is the body that runs."""

from __future__ import annotations

from ...ir.core import Value
from .facts import uniform
from .pattern import const, node
from .rule import Rule, Site


def _decided(value: Value) -> bool:
    return uniform(value) is not None


def _inline(site: Site) -> list[Value | None]:
    """The ops of the chosen body, moved in front of the If; they keep reading what the body captured."""
    body = site.op.regions["then_branch" if uniform(site["condition"]) else "else_branch"]
    return list(site.rw.inline(body, (), before=site.op))


RULES: tuple[Rule, ...] = (
    Rule(
        "known-if", "If with a constant condition is the body that runs.",
        node("If", const("condition", where=_decided)), _inline,
    ),
)  # fmt: skip
