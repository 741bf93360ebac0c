"""The command line, a thin layer over mlc.compiler and mlc.commands; heavy modules load when a command runs.

Exit status: 0 done, 1 a bug of mlc, 2 the user's input or a missing extra, 3 a bound or --strict missed (the best
artifact is saved), 4 out of memory or disk, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from .cli_data import app as samples
from .cli_files import app as files
from .cli_options import (
    Check,
    Data,
    Dims,
    Eval,
    Events,
    External,
    Force,
    Json,
    Labels,
    Mask,
    MaxMemory,
    Metric,
    Model,
    NoUserCode,
    Opset,
    Out,
    PrintChanges,
    Quiet,
    Recipe,
    Seed,
    Strict,
    Threads,
    To,
    VerifyEval,
    bytes_of,
    dims_of,
    json_text,
    metrics_of,
    misused,
)
from .ir import errors
from .ir.errors import Code, Diagnostic, MlcError
from .ir.signals import end_like_interrupts


class _Commands(TyperGroup):
    """All commands. Typer reads some exceptions as wishes of ours, such as SystemExit and EOFError; those of user code
    are none."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (MlcError, KeyboardInterrupt, MemoryError):
            raise
        except BaseException as cause:
            if f"{__package__}.passes.registry" not in sys.modules:  # nothing was read that names code: --help
                raise
            from .frontends.user_code import fault
            from .passes.registry import packages

            theirs = fault(cause, packages())
            if theirs is None:
                raise
            raise theirs from cause


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="mlc compiles trained neural networks into smaller, faster ones.",
)
app.add_typer(files)
app.add_typer(samples, name="data")

_INTERRUPTED = 130  # typer turns Ctrl-C into this status


@app.command()
def compile(
    model: Model,
    recipe: Recipe,
    data: Data = None,
    eval: Eval = None,
    labels: Labels = None,
    mask: Mask = None,
    to: To = "ort(cpu)",
    output: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    max_memory: MaxMemory = None,
    dims: Dims = None,
    check: Check = "full",
    strict: Strict = False,
    force: Force = False,
    external_data: External = "auto",
    opset: Opset = None,
    metric: Metric = None,
    no_user_code: NoUserCode = False,
    print_changes: PrintChanges = False,
    quiet: Quiet = False,
    events: Events = None,
    json: Json = False,
) -> None:
    """Compile a model with a recipe and write the artifact."""
    from . import compiler
    from .backends.progress import listening

    out = output or Path(f"{model.stem}.mlc")
    with listening(
        quiet=quiet or print_changes, events=events, model=str(model), recipe=recipe, output=str(out)
    ) as heard:
        result = compiler.compile(
            model,
            recipe,
            output=out,
            data=data,
            eval=eval,
            labels=labels,
            mask=mask,
            to=to,
            seed=seed,
            threads=threads,
            max_memory=bytes_of(max_memory),
            dims=dims_of(dims),
            check=check,
            strict=strict,
            force=force,
            external=external_data,
            opset=opset,
            metrics=metrics_of(metric),
            user_code=not no_user_code,
            print_changes=sys.stderr if print_changes else None,
            progress=heard,
        )
        heard.status = result.report["status"]
    if json:
        typer.echo(result.to_json(), nl=False)
    else:
        result.show()
    if result.missed:
        raise errors.BoundError(result.missed)


@app.command()
def plan(
    model: Model,
    recipe: Recipe,
    data: Data = None,
    eval: Eval = None,
    labels: Labels = None,
    mask: Mask = None,
    to: To = "ort(cpu)",
    seed: Seed = 0,
    threads: Threads = None,
    max_memory: MaxMemory = None,
    dims: Dims = None,
    metric: Metric = None,
    no_user_code: NoUserCode = False,
    quiet: Quiet = False,
    events: Events = None,
    json: Json = False,
) -> None:
    """Show what a recipe would do to a model, step by step; nothing is written."""
    from . import compiler
    from .backends.progress import listening

    with listening(quiet=quiet, events=events, model=str(model), recipe=recipe) as heard:
        plans = compiler.plan(
            model,
            recipe,
            data=data,
            eval=eval,
            labels=labels,
            mask=mask,
            to=to,
            seed=seed,
            threads=threads,
            max_memory=bytes_of(max_memory),
            dims=dims_of(dims),
            metrics=metrics_of(metric),
            user_code=not no_user_code,
            progress=heard,
        )
    if json:
        typer.echo(compiler.plans_to_json(plans), nl=False)
    else:
        from .backends import plans as view
        from .backends.report import terminal

        view.show(plans, terminal())


@app.command()
def explain(recipe: Annotated[str, typer.Argument(help="a recipe")], no_user_code: NoUserCode = False) -> None:
    """Show the steps a recipe stands for, and what each of them does."""
    from . import commands

    for line in commands.explain(recipe, user_code=not no_user_code):
        typer.echo(line)


@app.command()
def passes(name: Annotated[str | None, typer.Argument(help="one pass", show_default=False)] = None) -> None:
    """List all passes, or describe one with its arguments."""
    from . import commands

    for line in commands.describe_passes(name):
        typer.echo(line)


@app.command()
def inspect(
    model: Model,
    text: Annotated[bool, typer.Option("--text", help="print the IR")] = False,
    axes: Annotated[bool, typer.Option("--axes", help="show which axes move together, and why others do not")] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="measure what few bits do to each weight; needs --data")
    ] = False,
    all: Annotated[bool, typer.Option("--all", help="with --axes, --sensitivity: every site")] = False,
    data: Data = None,
    mask: Mask = None,
    dims: Dims = None,
    max_memory: MaxMemory = None,
    no_user_code: NoUserCode = False,
    quiet: Quiet = False,
    events: Events = None,
    json: Json = False,
) -> None:
    """Show a model: inputs, outputs, operators, parameters, cost."""
    from . import commands, compiler
    from .backends.progress import listening

    _exclusive({"--text": text, "--axes": axes, "--dims": bool(dims)})
    _exclusive({"--text": text, "--axes": axes, "--sensitivity": sensitivity})
    _exclusive({"--text": text, "--json": json})
    _exclusive({"--all": all, "--json": json})
    _belongs("--all", all, {"--axes": axes, "--sensitivity": sensitivity})
    measuring = {"--data": data, "--mask": mask, "--max-memory": max_memory, "--events": events}
    for option, given in measuring.items():
        _belongs(option, given is not None, {"--sensitivity": sensitivity})
    _belongs("--quiet", quiet, {"--sensitivity": sensitivity})
    if text:
        from .ir.text import print_module

        typer.echo(print_module(compiler.load(model)))
        return
    if axes:
        _inspect_axes(model, all, json)
        return
    if sensitivity:
        if data is None:
            problem = "--sensitivity needs samples"
            raise errors.error(Code.NO_DATA, problem, where="--data", help="write --data samples.npz")
        memory = bytes_of(max_memory)
        with listening(quiet=quiet, events=events, model=str(model), data=data) as heard:
            found = commands.sensitivity(
                model,
                data,
                mask=mask,
                dims=dims_of(dims),
                max_memory=memory,
                advance=heard.advance,
                user_code=not no_user_code,
            )
        _show_sensitivity(found, all, json)
        return
    facts = commands.inspect(model, dims=dims_of(dims))
    if json:
        typer.echo(json_text(facts))
    else:
        from .backends import inspect as view
        from .backends.report import terminal

        view.show(facts, terminal())


def _inspect_axes(model: Path, all_sites: bool, json: bool) -> None:
    from . import compiler
    from .ir.axes import analyse
    from .ir.axis_table import axis_table

    table = axis_table(analyse(compiler.load(model)))
    if json:
        typer.echo(json_text({"format": 1, **table}))
    else:
        from .backends import inspect_axes as view
        from .backends.report import terminal

        view.show(table, terminal(), all_sites=all_sites)


def _show_sensitivity(found: dict[str, Any], all_sites: bool, json: bool) -> None:
    from .backends import inspect_sensitivity as view
    from .backends.report import terminal

    if json:
        typer.echo(json_text(found))
    else:
        view.show(found, terminal(), all_sites=all_sites)


def _belongs(option: str, given: bool, to: dict[str, bool]) -> None:
    """An option that only means something beside one of some others. Errors: USAGE."""
    if given and not any(to.values()):
        first = next(iter(to))
        raise errors.error(
            Code.USAGE, f"{option} goes with {' or '.join(to)}", where=option, help=f"write {first} {option}"
        )  # fmt: skip


def _exclusive(options: dict[str, bool]) -> None:
    """Options that mean different things to show. Errors: USAGE."""
    given = [name for name, is_given in options.items() if is_given]
    if len(given) > 1:
        raise errors.error(Code.USAGE, f"{' and '.join(given)} do not go together", help=f"leave out {given[-1]}")


@app.command()
def verify(
    a: Annotated[Path, typer.Argument(help="the reference model")],
    b: Annotated[Path, typer.Argument(help="the model to compare")],
    eval: VerifyEval = None,
    mask: Mask = None,
    dims: Dims = None,
    seed: Seed = 0,
    min_cosine: Annotated[float, typer.Option(help="exit 3 when the worst output agrees less", min=-1, max=1)] = 0.99,
    no_user_code: NoUserCode = False,
    json: Json = False,
) -> None:
    """Run two models on the same samples and compare their outputs."""
    from . import commands

    found = commands.verify(a, b, eval=eval, mask=mask, dims=dims_of(dims), seed=seed, user_code=not no_user_code)
    if json:
        typer.echo(json_text(found))
    else:
        from .backends.agreement_view import lines

        typer.echo("\n".join(lines(found)))
    if not found["integers_equal"] or (found["cosine"] is not None and found["cosine"] < min_cosine):
        worst = f"cosine {found['cosine']:.6f}" if found["cosine"] is not None else "different values"
        raise errors.BoundError(
            Diagnostic(
                Code.BOUND_MISSED,
                f"{str(b)!r} does not agree with {str(a)!r}: {worst}",
                where=str(b),
                help=f"--min-cosine asks for {min_cosine:g} or more",
            )
        )


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="an artifact: a folder, an .onnx file beside its report, or a report")],
    b: Annotated[Path, typer.Argument(help="the artifact to compare")],
    markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown, for a pull request")] = False,
    json: Json = False,
) -> None:
    """Show what differs between two artifacts, from their reports: size, speed, agreement, recipe, steps."""
    from . import commands
    from .backends import compare_view as view

    _exclusive({"--markdown": markdown, "--json": json})
    found = commands.compare(a, b)
    if json:
        typer.echo(json_text(found))
    elif markdown:
        typer.echo(view.to_markdown(found), nl=False)
    else:
        from .backends.report import terminal

        view.show(found, terminal())


@app.command()
def bench(
    a: Annotated[Path, typer.Argument(help="the baseline")],
    b: Annotated[Path, typer.Argument(help="the model to time")],
    threads: Annotated[int, typer.Option(help="threads of the runtime", min=1)] = 1,
    dims: Dims = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Time two models interleaved in one run: median CPU time and the ratio with its 95 % interval."""
    from . import commands

    found = commands.bench(a, b, threads=threads, dims=dims_of(dims), seed=seed)
    if json:
        typer.echo(json_text(found))
    else:
        typer.echo(
            f"{found['source_ms']:.3f} ms > {found['artifact_ms']:.3f} ms: "
            f"{found['speedup']:.2f}x [{found['low']:.2f}, {found['high']:.2f}]"
        )


@app.command()
def doctor(to: To = "ort(cpu)", json: Json = False) -> None:
    """Show what is installed, what this machine has, and what the runtime makes faster here."""
    from .backends.doctor import examine  # not through commands: it must run where others cannot be imported

    found = examine(to, version=__version__)
    if json:
        typer.echo(json_text(found))
    else:
        from .backends import doctor_view as view
        from .backends.report import terminal

        view.show(found, terminal())


@app.command()
def calibrate(
    to: To = "ort(cpu)",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="a file X.json  [default: where targets look for it]", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a coarser grid, in seconds rather than minutes")] = False,
    quiet: Quiet = False,
    events: Events = None,
    json: Json = False,
) -> None:
    """Measure once what operators cost on this machine; plans use it from then on."""
    from . import commands
    from .backends import costs_view as view
    from .backends.progress import listening

    with listening(quiet=quiet, events=events, target=to) as heard:
        path, table = commands.calibrate(to, output=output, quick=quick, advance=heard.advance)
    if json:
        typer.echo(json_text({"path": str(path), "digest": table.digest, "environment": dict(table.environment)}))
    else:
        from .backends.report import terminal

        view.show(table, path, terminal())


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        typer.echo(f"mlc {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    end_like_interrupts()
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """The exit status of one command line. A user's mistake never shows a traceback."""
    try:
        status = app(arguments or ["--help"], prog_name="mlc", standalone_mode=False)
        return _interrupted() if status == _INTERRUPTED else int(status or 0)
    except typer.TyperException as mistake:
        return _fail(MlcError(_usage(mistake.format_message(), arguments)))
    except MlcError as mistake:
        return _fail(mistake)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except MemoryError:
        return _fail(errors.ResourceError(Diagnostic(Code.MEMORY, "out of memory", help=errors.MEMORY_HELP)))


def _usage(message: str, arguments: list[str]) -> Diagnostic:
    commands = (*app.registered_commands, *files.registered_commands)
    known = {c.name or c.callback.__name__ for c in commands if c.callback is not None}
    return misused(message, arguments, known | {str(group.name) for group in app.registered_groups})


def _interrupted() -> int:
    typer.echo("interrupted: no output is half-written", err=True)
    return _INTERRUPTED


def _fail(mistake: MlcError) -> int:
    typer.echo(str(mistake), err=True)
    return mistake.exit_status
