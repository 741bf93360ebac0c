"""The user's code that a compilation runs: refused before any of it does, or told in the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..frontends.user_code import digest
from ..ir.errors import MlcError
from ..passes.base import Pass
from .data import declare
from .program import Program
from .recipe import Recipe
from .settings import Settings
from .stored import used_files
from .user_code import refused_files, refused_options, together


def read_program(recipe: str | Recipe | Pass | Sequence[Pass], options: Settings) -> Program:
    """The program of a recipe. Errors: everything wrong with it; USER_CODE for each place of it, and each option, that
    names code where none may run."""
    with together(refused_options({"--data": options.data, "--eval": options.eval}, options.metrics)):
        program = Program.of(recipe, options.to, options.metrics)
        refused = refused_files(used_files(program.recipe.checked)) if program.recipe is not None else []
        if refused:  # of a recipe that was read where code may run
            raise MlcError(refused)
        return program


def code_of(program: Program, options: Settings) -> dict[str, Any]:
    """`code` of a report: the files and modules that were run for a program, each with its SHA-256. Empty if none."""
    files = used_files(program.recipe.checked) if program.recipe is not None else ()
    functions = [*program.metrics.values()]
    functions += [declare(each).source.code for each in program.data(options.data, options.eval) if each is not None]
    names = [*(file.path for file in files), *(text.rpartition(":")[0] for text in functions if text)]
    found = [{"path": name, "sha256": digest(name)} for name in dict.fromkeys(names)]
    return {"code": found} if found else {}
