"""What is meant by words that name nothing here, and why a selector matched nothing: the nearest names, and what a
slightly wider pattern would match."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..ir.errors import Code, Diagnostic
from ..ir.patterns import glob_regex, nearest, normal
from . import syntax as ast
from .habits import ARGUMENTS, ARGUMENTS_OF, SCOPES, STEPS
from .names import Names
from .print import selector as selector_text
from .selectors import Predicate, Site, leaves, match_names, predicate
from .values import near


def step_advice(word: str, known: Iterable[str]) -> str:
    """What to write instead of a step that there is not, or nothing."""
    plain = word.lower()
    return f"write {STEPS[plain]}" if plain in STEPS else near(word, known)


def unknown_advice(word: str, known: Iterable[str], names: Names) -> str:
    """What to write instead of a step that a recipe does not know: a name of a used file, or the `use` it lacks."""
    pool = tuple(known)
    alias, dot, _ = word.rpartition(".")
    within = word if word in names.modules else alias
    if within in names.modules:
        own = sorted(name for name in names.passes if name.rpartition(".")[0] == within)
        return (near(word, own) if alias else "") or f"{names.modules[within].written!r} holds {', '.join(own)}"
    if not dot:
        return step_advice(word, pool)
    if names.through_alias(word):
        return near(word, [name for name in pool if "." in name])
    space = alias if word.endswith(".py") else alias.partition(".")[0]
    return f'passes of a Python file need a recipe file: use "{space}.py" as {space}, then {space}.NAME'


def argument_advice(step: str, word: str, known: Iterable[str]) -> str:
    """What to write instead of an argument that the step does not take, or nothing."""
    pool = tuple(known)
    if (step, word) in ARGUMENTS_OF:
        return ARGUMENTS_OF[step, word]
    if word in SCOPES:
        return f"where a step works is written behind it: {step} {SCOPES[word]}"
    called = next((name for name in ARGUMENTS.get(word, ()) if name in pool), None)
    return f"here it is called '{called}'" if called is not None else near(word, pool)


def unmatched(selector: ast.Selector, sites: Sequence[Site]) -> list[Diagnostic]:
    """One diagnostic for each part of a selector that matches nothing by itself."""
    alone = [part for part in leaves(selector) if not any(map(predicate(part), sites))]
    return [_nothing(part, sites) for part in dict.fromkeys(alone)]


def no_match(selector: ast.Selector, sites: Sequence[Site]) -> list[Diagnostic]:
    """Why nothing matches all of a selector although each of its parts matches something."""
    return [
        Diagnostic(
            Code.NO_MATCH,
            f"nothing matches {selector_text(selector)}",
            selector.span,
            label="no operator matches all of this",
            help="loosen one of its parts",
            note="; ".join(
                f"{selector_text(part)} alone matches {sum(map(predicate(part), sites))}" for part in leaves(selector)
            ),
        )
    ]


# ---- explaining ------------------------------------------------------------------------------------------


def _nothing(part: ast.Selector, sites: Sequence[Site]) -> Diagnostic:
    help_text, note = "", ""
    if isinstance(part, ast.KindName):
        kinds = sorted({site.kind for site in sites})
        help_text = near(part.name, kinds) or _some("the model has", kinds)
        if any(part.name in name for site in sites for name in site.names):
            note = f'names contain it: write "**{part.name}**" to match names'
    elif isinstance(part, ast.Glob | ast.Regex):
        names = sorted({name for site in sites for name in site.names if name})
        help_text = _some("the nearest names are", nearest(part.pattern, names))
        note = _loosened(part, sites)
    elif isinstance(part, ast.Test):
        values = [site.properties[part.subject] for site in sites if part.subject in site.properties]
        help_text = _seen(part.subject, values)
    return Diagnostic(
        Code.NO_MATCH,
        f"nothing matches {selector_text(part)}",
        part.span,
        label="no operator of the model",
        help=help_text,
        note=note,
    )


def _loosened(part: ast.Glob | ast.Regex, sites: Sequence[Site]) -> str:
    """What the pattern would match if it were a little wider."""
    if isinstance(part, ast.Regex):
        wider: list[tuple[str, Predicate]] = [
            (f'~"(?i){part.pattern}"', match_names(re.compile(part.pattern, re.IGNORECASE).search, str))
        ]
    else:
        everywhere, within = f"**.{part.pattern}", f"**{part.pattern}**"
        wider = [
            (f'"{everywhere}"', match_names(glob_regex(everywhere).match, normal)),
            (f'"{within}"', match_names(glob_regex(within).match, normal)),
            ("upper and lower case ignored, it", match_names(glob_regex(within, flags=re.IGNORECASE).match, normal)),
        ]
    for text, test in wider:
        count = sum(map(test, sites))
        if count:
            return f"{text} would match {count} of {len(sites)} operators"
    return ""


def _seen(subject: str, values: Sequence[float | str]) -> str:
    if not values:
        return f"no operator has the property '{subject}'"
    numbers = [v for v in values if not isinstance(v, str)]
    if numbers:
        return f"in this model '{subject}' goes from {min(numbers):g} to {max(numbers):g}"
    return _some(f"in this model '{subject}' is", sorted({str(v) for v in values}))


def _some(lead: str, items: Sequence[str]) -> str:
    shown = ", ".join(items[:6])
    return f"{lead} {shown}{', ...' if len(items) > 6 else ''}" if items else "the model has no operators to select"
