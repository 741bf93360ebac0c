"""All rules, in the order in which they are tried at an op."""

from __future__ import annotations

from . import rules_algebra, rules_chain, rules_control, rules_conv, rules_identity, rules_linear, rules_shape
from .fold import FOLD
from .rule import Rule

RULES: tuple[Rule, ...] = (
    *rules_identity.RULES,
    *rules_shape.RULES,
    FOLD,
    *rules_chain.RULES,
    *rules_conv.RULES,
    *rules_linear.RULES,
    *rules_algebra.RULES,
    *rules_control.RULES,
)
