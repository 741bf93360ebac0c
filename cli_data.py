"""The commands about samples: data check, data sources."""

from __future__ import annotations

from typing import Annotated

import typer

from .cli_options import Events, Json, Labels, Mask, Model, NoUserCode, Quiet, Seed, json_text

app = typer.Typer(help="Look at the samples that calibrate and judge.", rich_markup_mode=None)


@app.command("check")
def check_data(
    model: Model,
    data: Annotated[str, typer.Option(help="the samples: x.npz, or a source: 'images(\"photos\", size=224)'")],
    eval: Annotated[str | None, typer.Option("--eval", help="the samples that judge")] = None,
    labels: Labels = None,
    mask: Mask = None,
    seed: Seed = 0,
    no_user_code: NoUserCode = False,
    quiet: Quiet = False,
    events: Events = None,
    json: Json = False,
) -> None:
    """Read every sample once and tell what is there; exit 2 at the first one that does not fit the model."""
    from . import commands
    from .backends.progress import listening

    with listening(quiet=quiet, events=events, model=str(model), data=data) as heard:
        found = commands.check_data(
            model,
            data,
            eval=eval,
            labels=labels,
            mask=mask,
            seed=seed,
            advance=heard.advance,
            user_code=not no_user_code,
        )
    if json:
        typer.echo(json_text(found))
    else:
        from .backends import data_view as view
        from .backends.report import terminal

        view.show(found, terminal())


@app.command("sources")
def data_sources(
    name: Annotated[str | None, typer.Argument(help="one source", show_default=False)] = None,
) -> None:
    """List what samples are read from, or describe one source with its arguments."""
    from . import commands

    for line in commands.describe_sources(name):
        typer.echo(line)
