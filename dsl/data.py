"""Data as recipes and the command line write it: a path, or a source with its arguments.

    --data samples.npz
    --data 'images("photos", size=224, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], take=64)'

The arguments are the fields of the source (frontends/data/table.py) and those that every source takes (`Selection`).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..frontends.data.memory import ARRAYS, Arrays, Function, title_of
from ..frontends.data.samples import Samples
from ..frontends.data.source import TWO_SOURCES, Selection, Source
from ..frontends.data.table import SOURCES, source_at
from ..ir.core import Module
from ..ir.demands import Demands
from ..ir.errors import Code, Diagnostic, MlcError, error
from ..ir.types import Type
from . import syntax as ast
from .build import Step, build_steps
from .check import check_program, unique
from .executable import refusals
from .expand import expand
from .names import Names
from .parser import parse
from .print import expression
from .signature import Catalog, Signature, signature_of
from .values import near, what

_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*\(")


@dataclass(frozen=True)
class Declared:
    """Data that was declared and not yet opened: a source, which of its samples are used, and how it was written."""

    source: Source
    selection: Selection
    text: str

    def with_defaults(self, labels: str | None, mask: str | None) -> Declared:
        """With labels and a mask from elsewhere, if it names none. Errors: USAGE when it names others."""
        given = {"labels": labels, "mask": mask}
        for name, value in given.items():
            own = getattr(self.selection, name)
            if None not in (own, value) and own != value:
                raise error(
                    Code.USAGE,
                    f"the data name their own {name}, {own!r}, and {value!r} is given beside them",
                    where=self.text,
                    help=f"leave --{name} out, and name {name} in each source",
                )
        own = self.selection
        merged = dataclasses.replace(own, labels=own.labels or labels, mask=own.mask or mask)
        return dataclasses.replace(self, selection=merged)

    def open(self, model: Module | Mapping[str, Type], *, classes: bool = False) -> Samples:
        """The samples for a model; with `classes`, labels must be numbers of its classes. Errors: NOT_FOUND,
        BAD_DATA."""
        if not isinstance(model, Module):
            return Samples.open(self.source, self.selection, model, self.text, classes=classes)
        inputs = {v.name: v.type for v in model.graph.inputs}
        return Samples.open(self.source, self.selection, inputs, self.text, Demands(model), classes=classes)


#: What data may be given as: a path or the text of a source, or from Python a source, arrays, or a function.
Data = (
    str | os.PathLike[str] | Declared | Source | Mapping[str, Any] | Callable[[], Iterable[Mapping[str, Any]]]
)  # fmt: skip


def open_data(
    data: Data,
    model: Module | Mapping[str, Type],
    *,
    labels: str | None = None,
    mask: str | None = None,
    base: Path | None = None,
    name: str = "<data>",
    classes: bool = False,
) -> Samples:
    """Open samples for a model (or for inputs of these types).

    `data` is a path, or the text of a source: `npz("x.npz", take=64)`; relative paths are taken from `base`, by default
    the working directory. It may also be a dict of arrays as in an .npz, or a function that returns dicts. `labels` and
    `mask` are for data that do not name their own. `name` is for messages. With `classes`, labels must be numbers of
    the model's classes; otherwise they are what the source gives: numbers of any shape, or text.
    Errors: everything wrong with the text; NOT_FOUND, BAD_DATA naming the sample and the input that are wrong.
    """
    declared = declare(data, base=base, name=name)
    return declared.with_defaults(labels, mask).open(model, classes=classes)


def declare(data: Data, *, base: Path | None = None, name: str = "<data>") -> Declared:
    """The data that is meant; nothing is opened or executed. Errors: everything wrong with the text; USAGE."""
    if not isinstance(data, str | os.PathLike):
        return _from_python(data, name)
    text = os.fspath(data)
    if isinstance(data, str) and _is_call(text) and not Path(base or "", text).exists():
        program = parse(text, name)
        if program.goal != ast.Goal():
            raise MlcError(_no_source(program.body, "bounds and searches belong to the recipe"))
        return declare_node(program.body, base=base)
    return Declared(_based(source_at(text), base), Selection(), text)


def declare_node(node: ast.Expr, *, base: Path | None = None, names: Names | None = None) -> Declared:
    """The data that an expression of a recipe means: a call of a source, or a path in quotes.

    `names` are what its arguments may refer to. Errors: everything wrong with it, with its place in the text.
    """
    if isinstance(node, ast.String):
        return Declared(_based(source_at(node.value), base), Selection(), expression(node))
    if not isinstance(node, ast.Call) or node.name not in SOURCES:
        raise MlcError(_no_source(node))
    visible = Names(lets=names.lets) if names is not None else Names()
    expanded = expand(ast.Program(node, ast.Goal()), visible, CATALOG)
    found = [*expanded.diagnostics, *check_program(expanded.program, visible, CATALOG)]
    found = found or refusals(expanded.program)
    if found:
        raise MlcError(unique(found))
    (step,) = build_steps(expanded.program.body, CATALOG)
    assert isinstance(step, Step), "a call is one step"
    own = {f.name for f in dataclasses.fields(Selection)}
    source = SOURCES[step.name](**{k: v for k, v in step.arguments.items() if k not in own})
    selection = Selection(**{k: v for k, v in step.arguments.items() if k in own})  # type: ignore[arg-type]
    return Declared(_based(source, base), selection, step.text)


def _from_python(data: object, name: str) -> Declared:
    if isinstance(data, Declared):
        return data
    if isinstance(data, Source):
        return Declared(data, Selection(), repr(data))
    if isinstance(data, Mapping):
        return Declared(Arrays(data), Selection(), ARRAYS)
    if callable(data) and not isinstance(data, type):
        return Declared(Function(data), Selection(), title_of(data))
    raise error(
        Code.USAGE,
        f"{name} is a {type(data).__name__}, which is no data",
        help="give a path, the text of a source such as npz('x.npz', take=64), a dict of arrays, or a function",
    )


def _is_call(text: str) -> bool:
    found = _CALL.match(text)
    return found is not None and (found[1] in SOURCES or text.rstrip().endswith(")"))


def _based(source: Source, base: Path | None) -> Source:
    return source if base is None else source.based(base)


def _signature(name: str) -> Signature:
    """The arguments of a source: those without a name first, then its own, then those that all sources take."""
    own, shared = (signature_of(c).parameters.values() for c in (SOURCES[name], Selection))
    ordered = sorted((*own, *shared), key=lambda p: not p.positional)
    return Signature(name, {p.name: p for p in ordered})


#: The sources as a catalog, so that the checker of recipes reads their arguments as those of passes.
CATALOG = Catalog(tuple(SOURCES), _signature)


def _no_source(node: ast.Expr, help: str = "") -> Diagnostic:
    known = ", ".join(SOURCES)
    if isinstance(node, ast.Call | ast.Ref):
        advice = help or near(node.name, SOURCES) or f"write one of {known}, with its arguments in parentheses"
        span = node.name_span if isinstance(node, ast.Call) else node.span
        return Diagnostic(Code.WRONG_KIND, f"'{node.name}' is no data source", span or node.span, help=advice)
    if isinstance(node, ast.Chain):
        help = help or f"samples have one source: {TWO_SOURCES}"
    message = f"data is declared by a path or by a source ({known})"
    return Diagnostic(Code.WRONG_KIND, message, node.span, label=f"this is {what(node)}", help=help)
