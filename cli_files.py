"""The commands about recipe files: run, fmt, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_options import (
    Check,
    Dims,
    External,
    Force,
    Json,
    MaxMemory,
    Opset,
    Seed,
    Strict,
    Threads,
    bytes_of,
    dims_of,
    json_text,
)
from .ir import errors

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
    json: Json = False,
) -> None:
    """Run every compile statement of a recipe file: one artifact for each of its targets."""
    from . import commands

    results = []
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
    ):
        results.append(result)
        if not json:
            result.show()
    if json:
        typer.echo(json_text({"format": 1, "artifacts": [result.report for result in results]}))
    missed = [diagnostic for result in results for diagnostic in result.missed]
    if missed:
        raise errors.BoundError(missed)
