"""The commands about recipe files: run, fmt, init."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .cli_options import (
    Check,
    Dims,
    Events,
    External,
    Force,
    Json,
    MaxMemory,
    Model,
    NoUserCode,
    Opset,
    Quiet,
    Seed,
    Strict,
    Threads,
    bytes_of,
    dims_of,
    json_text,
)
from .ir import errors
from .ir.errors import Code, Diagnostic, MlcError

app = typer.Typer()


@app.command("run")
def run_file(
    file: Annotated[str, typer.Argument(help="a recipe file with compile statements; '-' is standard input")],
    out: Annotated[Path, typer.Option("-o", "--out", help="the folder for the artifacts")] = Path(),
    seed: Seed = 0,
    threads: Threads = None,
    max_memory: MaxMemory = None,
    dims: Dims = None,
    check: Check = "full",
    strict: Strict = False,
    force: Force = False,
    external_data: External = "auto",
    opset: Opset = None,
    no_user_code: NoUserCode = False,
    quiet: Quiet = False,
    events: Events = None,
    json: Json = False,
) -> None:
    """Run every compile statement of a recipe file: one artifact for each of its targets."""
    from . import commands
    from .backends.progress import listening

    results = []
    with listening(quiet=quiet, events=events, recipe=file, output=str(out)) as heard:
        for result in commands.run_file(
            file,
            out=out,
            seed=seed,
            threads=threads,
            max_memory=bytes_of(max_memory),
            dims=dims_of(dims),
            check=check,
            strict=strict,
            force=force,
            external=external_data,
            opset=opset,
            user_code=not no_user_code,
            progress=heard,
        ):
            results.append(result)
            heard.pause()
            if not json:
                result.show()
            if result.missed:
                heard.status = "missed"
    if json:
        typer.echo(json_text({"format": 1, "artifacts": [result.report for result in results]}))
    missed = [diagnostic for result in results for diagnostic in result.missed]
    if missed:
        raise errors.BoundError(missed)


@app.command("fmt")
def fmt(
    files: Annotated[list[str], typer.Argument(help="recipe files; '-' formats standard input to standard output")],
    check: Annotated[bool, typer.Option("--check", help="write nothing; exit 2 if a file would change")] = False,
) -> None:
    """Write recipe files in canonical form, in place; comments stay."""
    from . import commands

    if "-" in files:
        _fmt_stdin(files, check)
        return
    changed = commands.format_files([Path(file) for file in files], check=check)
    if check and changed:
        raise MlcError([_unformatted(str(file)) for file in changed])
    for file in changed:
        typer.echo(f"formatted {file}")


def _fmt_stdin(files: list[str], check: bool) -> None:
    from .dsl.format import formatted
    from .dsl.source import STDIN

    if len(files) > 1:
        raise errors.error(Code.USAGE, "'-' and files do not go together", help="give files, or - alone")
    text = sys.stdin.read()
    new = formatted(text, STDIN)
    if not check:
        typer.echo(new, nl=False)
    elif new != text:
        raise MlcError(_unformatted(STDIN))


def _unformatted(name: str) -> Diagnostic:
    return Diagnostic(Code.UNFORMATTED, "this is not how mlc fmt writes it", where=name, help=f"run: mlc fmt {name}")


@app.command("init")
def init(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="the file to write  [default: STEM.recipe.mlc]", show_default=False),
    ] = None,
    force: Force = False,
) -> None:
    """Write a first recipe file for a model: what is in it, a recipe, a goal, data to fill in."""
    from . import commands

    path = commands.init(model, output, force=force)
    typer.echo(f"wrote {path}: mlc run {path}")
