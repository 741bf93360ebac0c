"""The usual slips behind a syntax error: what stands in front of it, what stands there, and what to write instead."""

from __future__ import annotations

import re

_LINE = r"(?:\A|\n)[ \t]*"
_UNITS = r"(?:%|pp|x|[num]?s|[KMG]i?B|B|mJ|dB)"
_BOUNDS = "bounds are separated by commas: where size <= 0.3x, cosine >= 0.99"
#: A name where a step stands, and one of an argument.
_STEP, _ARGUMENT = r"(?:\A|[+|=]|(?<!\w)\()\s*([A-Za-z_][\w.]*)\s*", r"\w\((?:[^()]*,)?\s*(\w+)\s*"
_IN_GOAL = r"\b(?:where|until|while)\s[^\n]*"
_SCOPE = r"\b(?:on|except)\s"

#: (in front, there, advice), the first that fits; {0} is what stands there, {1} what is remembered from in front of it.
_RULES: tuple[tuple[str, str, str], ...] = (
    ("", r"\.\d+", "a number starts with a digit: 0{0}"),
    ("", "//|/[*]|--(?![\\d])", "comments begin with #"),
    ("", "->", "steps are joined by '+'"),
    (rf"{_LINE}", r"(?:import|include|from)\b", 'other files are used: use "other.mlc" as NAME'),
    (rf"{_LINE}use\s+", r"[\w./]+", 'a path stands in quotes: use "{0}" as NAME'),
    (rf"{_LINE}use\s+[\"'][^\"'\n]*[\"']\s+", r"\w+", "a name is given with as: as {0}"),
    (rf"{_LINE}let\s+(\w+)\s*", r"\(", "what has parameters is a recipe: recipe {1}(...) = ..."),
    (rf"{_LINE}(?:recipe|let|data|model|target)\s+(\w+)\s*", ":", "a name is bound with '=': {1} = ..."),
    (
        rf"{_LINE}compile\s[^\n]*", "where|minimize|maximize|search",
        "goals belong to recipes: recipe NAME = ... {0} ..., then compile ... with NAME",
    ),
    (rf"{_LINE}compile\s[^\n]*\bto\s+(\w+)", r"\(", "a target is named: target NAME = {1}(...), then to NAME"),
    (rf"{_LINE}compile\s[^\n]*\bwith\s[^\n]*", r"for\b", "targets stand behind to: compile ... to TARGET"),
    (rf"{_LINE}compile\s(?:(?!\bwith\b)[^\n])*", r"\w+|,", "write: compile MODEL with RECIPE to TARGET"),
    (r"\bwhere\s[^\n+|)]*[<>]=?\s*[^\s,+|)]+\s*", r"and\b|or\b|&|;", _BOUNDS),
    (r"\b(?:until|while)\s[^\n+|)]*[<>]=?\s*[^\s,+|)]+\s*", r"and\b|or\b|&|;", "a loop is judged by one bound"),
    (rf"{_IN_GOAL}\d\s+", rf"{_UNITS}\b", "a unit follows its number without a space: 30MB, 0.3x"),
    (rf"{_IN_GOAL}", "=+", "bounds compare with <=, >=, < or >"),
    (r"\bwhere\s(?:[^\n]*,)?\s*", r"-?\d\S*", "the metric comes first: where size <= 0.3x"),
    (r"\bwhere\s(?:[^\n]*,)?\s*", r"\(", f"without parentheses; {_BOUNDS}"),
    (rf"{_SCOPE}[^\n+|,]*[\"'\w]\s*", ",", 'selectors are joined by or: on "a" or "b"'),
    (rf"{_SCOPE}\s*", r"\[", 'selectors are joined by or: on "a" or "b"'),
    (rf"{_SCOPE}\s*", r"[*/][\w.*/]*", 'a pattern stands in quotes: "{0}"'),
    (_ARGUMENT, r"-?\d[\w.%]*|[A-Za-z]\w*", "an argument is given with '=': {1}={0}"),
    (_STEP, r"-?\d[\w.%]*", "arguments stand in parentheses: {1}({0})"),
    (_STEP, r"\[", "arguments stand in parentheses: {1}(...)"),
    (r"\S\s+", r"(?:when|with|if|given|such)\b(?=[^\n]*[<>])", "bounds begin with where: where size <= 0.3x"),
    ("", r"if\b", "a scope is written: step on SELECTOR"),
    ("", r"for\b", "bounds are for targets: where latency <= 8ms for phone"),
    ("", "&|>|and\\b", "steps are joined by '+'"),
    ("", ";", "steps are joined by '+', statements of a file by a new line"),
    ("", ",", "steps are joined by '+'; commas separate arguments and bounds"),
    (r"\w=", "=", "an argument is given with one '='"),
    ("", "=", "a recipe is given a name in a file: recipe NAME = ..."),
    ("", "@", 'a scope is written: step on "pattern"'),
    ("", r"\$", "names use letters, digits and underscores"),
    ("", "%", "a unit follows its number without a space: 50%"),
    ("", "-", "names use underscores, not dashes"),
)  # fmt: skip
_COMPILED = tuple((re.compile(rf"(?:{front})\Z"), re.compile(there), advice) for front, there, advice in _RULES)


def slip(text: str, start: int) -> str:
    """Advice for what stands at `start`, where it cannot stand; nothing if it is no usual slip."""
    before = text[:start]
    for front, there, advice in _COMPILED:
        found = there.match(text, start)
        known = front.search(before) if found is not None else None
        if found is not None and known is not None:
            remembered = known[1] if known.re.groups else ""
            return advice.replace("{0}", found[0]).replace("{1}", remembered)
    return ""
