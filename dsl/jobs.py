"""What `mlc run FILE` does: each `compile MODEL with RECIPE to TARGETS` of a file is one compilation a target."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..ir.errors import Code, Diagnostic, MlcError, error
from . import syntax as ast
from .check import unique
from .data import Declared
from .lacking import lacking
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


def jobs_of(argument: str, *, stdin: TextIO, check: str = "full") -> tuple[Job, ...]:
    """The compilations of a file (`-` is standard input), in order; everything that can be seen without work is
    checked. `check` is how the artifacts will be. Errors: every mistake of the file, each with its line."""
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
    found = [*library.diagnostics, *library.refused]
    statements = [_Statement(library, s, check, found) for s in library.file.statements if isinstance(s, ast.Compile)]
    jobs = [job for statement in statements for job in statement.jobs()]
    if found:
        raise MlcError(unique(found))
    if not jobs:
        raise _nothing(source.name)
    return _named(jobs)


def _nothing(name: str) -> MlcError:
    help = 'add a line such as: compile "net.onnx" with small'
    return error(Code.UNKNOWN_RECIPE, "the file holds no compile statement", where=name, help=help)


@dataclass(frozen=True)
class _Statement:
    """One `compile` statement; its mistakes are added to `found`, part by part: one does not hide another."""

    library: Library
    statement: ast.Compile
    check: str
    found: list[Diagnostic]

    def jobs(self) -> Iterator[Job]:
        model, recipe = self._model(), self._recipe()
        if recipe is None:
            return
        data = self._data(recipe)
        known = [t for t in self.statement.targets if t in self.library.bindings.of_kind("target")]
        for target in known if self.statement.targets else (_TARGET,):
            with self._collected():
                self.found.extend(lacking(Program.of(recipe, target), data, self.statement.span, check=self.check))
                if model is not None:
                    yield Job(model, recipe, target, "", self.statement)

    def _model(self) -> Path | None:
        source = self.statement.source
        if isinstance(source, ast.Ref) and self.library.bindings.names.is_lost(source.name):
            return None
        with self._collected():
            model = self.library.bindings.model(source)
            if model.exists():
                return model
            help = "paths in a recipe file are relative to the file"
            self.found.append(Diagnostic(Code.NOT_FOUND, f"there is no model {str(model)!r}", source.span, help=help))
        return None

    def _recipe(self) -> Recipe | None:
        """The recipe, unless something in it could not be read or is wrong, which is told already."""
        with self._collected():
            checked = self.library.call(self.statement.recipe)
            if checked.needs:
                raise MlcError(self._unbound(checked.needs))
            if self.library.is_sound(checked):
                return build(checked)
        return None

    def _unbound(self, needs: Sequence[ast.Param]) -> Diagnostic:
        written, names = self.statement.recipe, [param.name for param in needs]
        name = written.name if isinstance(written, ast.Ref) else ""
        message = f"'{name}' needs the argument{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
        help = f"write {name}({', '.join(f'{each}=...' for each in names)}), or give defaults: {names[0]} = ..."
        return Diagnostic(Code.MISSING_ARGUMENT, message, written.span, help=help)

    def _data(self, recipe: Recipe) -> tuple[Declared | None, Declared | None]:
        """What calibrates and what judges."""
        bindings = self.library.bindings
        with self._collected():
            names = recipe.data_names()
            for name in filter(None, names):
                with self._collected():
                    bindings.present(name)
            calibrates, judges = (bindings.data(name) if name is not None else None for name in names)
            return calibrates, judges
        return None, None

    @contextmanager
    def _collected(self) -> Iterator[None]:
        try:
            yield
        except MlcError as e:
            self.found.extend(e.diagnostics)


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
