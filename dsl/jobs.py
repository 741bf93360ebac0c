"""What `mlc run FILE` does: each `compile MODEL with RECIPE to TARGETS` of a file is one compilation a target."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..ir.errors import Code, Diagnostic, MlcError, error
from . import syntax as ast
from .check import unique
from .library import Library, read_library
from .parser import is_file
from .print import expression
from .program import Program
from .recipe import Recipe, build
from .signature import registered
from .source import read_source

_TARGET = "ort(cpu)"  # where a statement names none


@dataclass(frozen=True)
class Job:
    """One compilation. `name` is that of its artifact, without a suffix."""

    model: Path
    recipe: Recipe
    target: str  # its name in the file, or its text
    name: str
    statement: ast.Compile


def jobs_of(argument: str, *, stdin: TextIO) -> tuple[Job, ...]:
    """The compilations of a file (`-` is standard input), in order; everything that can be seen without work is
    checked. Errors: every mistake of the file; NOT_FOUND for models that are not there."""
    source = read_source(argument, stdin=stdin)
    if source.folder is None:
        help = "name a file that ends in .mlc; a recipe alone is compiled with: mlc compile MODEL -r RECIPE"
        raise error(Code.USAGE, f"{argument!r} is no recipe file", help=help)
    if source.choose is not None:
        help = f"leave ':{source.choose}' out: the compile statements of the file name their recipes"
        raise error(Code.USAGE, "a whole file is run, not one of its recipes", where=argument, help=help)
    if not is_file(source.text):
        raise _nothing(source.name)
    library = read_library(source.text, source.name, source.folder, registered())
    if library.diagnostics or library.refused:
        raise MlcError(unique([*library.diagnostics, *library.refused]))
    jobs, found = _jobs(library)
    if found:
        raise MlcError(unique(found))
    if not jobs:
        raise _nothing(source.name)
    return _named(jobs)


def _nothing(name: str) -> MlcError:
    help = 'add a line such as: compile "net.onnx" with small'
    return error(Code.UNKNOWN_RECIPE, "the file holds no compile statement", where=name, help=help)


def _jobs(library: Library) -> tuple[list[Job], list[Diagnostic]]:
    jobs: list[Job] = []
    found: list[Diagnostic] = []
    for statement in library.file.statements:
        if not isinstance(statement, ast.Compile):
            continue
        try:
            model = library.bindings.model(statement.source)
            recipe = build(library.call(statement.recipe))
            recipe.data()
            for target in statement.targets or (_TARGET,):
                Program.of(recipe, target)
                jobs.append(Job(model, recipe, target, "", statement))
            if not model.exists():
                help = "paths in a recipe file are relative to the file"
                message = f"there is no model {str(model)!r}"
                found.append(Diagnostic(Code.NOT_FOUND, message, statement.source.span, help=help))
        except MlcError as e:
            found += e.diagnostics
    return jobs, found


def _named(jobs: list[Job]) -> tuple[Job, ...]:
    """Each with a name of its own: that of the model, with its target if the statement names one, and with its recipe
    where that is not enough. Errors: DUPLICATE."""
    for parts in (("model", "target"), ("model", "recipe", "target")):
        names = ["-".join(filter(None, (_part(job, part) for part in parts))) for job in jobs]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if not twice:
            return tuple(dataclasses.replace(job, name=name) for job, name in zip(jobs, names))
    job = jobs[len(names) - 1 - names[::-1].index(twice[0])]
    message = f"two statements would write the artifact '{twice[0]}'"
    help = "give their recipes or their targets different names"
    raise MlcError(Diagnostic(Code.DUPLICATE, message, job.statement.span, help=help))


def _part(job: Job, part: str) -> str:
    statement = job.statement
    if part == "model":
        return statement.source.name if isinstance(statement.source, ast.Ref) else job.model.stem
    if part == "target":
        return job.target if statement.targets else ""
    recipe = statement.recipe
    name = recipe.name if isinstance(recipe, ast.Ref | ast.Call) else expression(recipe)
    return "".join(c if c.isalnum() or c in "._" else "_" for c in name)
