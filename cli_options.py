"""What several commands take: options with their help, how they are read, and what a wrong command line is told."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .ir import errors
from .ir.errors import Code, Diagnostic

Model = Annotated[Path, typer.Argument(help="the model: an .onnx file", show_default=False)]
Recipe = Annotated[
    str, typer.Option("--recipe", "-r", help="steps joined by '+', or a file: recipe.mlc[:name]", show_default=False)
]
Data = Annotated[str | None, typer.Option(help="calibration samples: x.npz, or a source: 'npz(\"x.npz\", take=64)'")]
Eval = Annotated[str | None, typer.Option("--eval", help="samples that judge the result  [default: a share of --data]")]
VerifyEval = Annotated[str | None, typer.Option("--eval", help="samples to compare on  [default: synthetic ones]")]
Labels = Annotated[str | None, typer.Option(help="the key of the labels in the data")]
Mask = Annotated[str | None, typer.Option(help="the input that marks padding: samples are cut to their real length")]
To = Annotated[str, typer.Option("--to", help="the target, e.g. 'ort(cpu, threads=2)'")]
Out = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="a folder, or a file X.onnx  [default: STEM.mlc]", show_default=False),
]
Seed = Annotated[int, typer.Option(help="seed of every random draw")]
Threads = Annotated[int | None, typer.Option(help="threads of the runtime  [default: the target's]", min=1)]
MaxMemory = Annotated[str | None, typer.Option(help="memory for samples and checks, e.g. 2GiB  [default: half of RAM]")]
Dims = Annotated[str | None, typer.Option(help="sizes of symbolic dimensions, e.g. N=1,T=128")]
Check = Annotated[
    Literal["full", "fast", "none"],
    typer.Option(help="full: load, agree and time; fast: structure and changed ops; none"),
]
Strict = Annotated[bool, typer.Option("--strict", help="any skipped site is an error (exit 3)")]
Force = Annotated[bool, typer.Option("--force", help="overwrite the output")]
Json = Annotated[bool, typer.Option("--json", help="print JSON on stdout")]
External = Annotated[
    Literal["auto", "always", "never"],
    typer.Option(help="weights in a file of their own: auto (above 1.5 GiB), always, never"),
]
Opset = Annotated[
    int | None, typer.Option(help="the opset of the emitted file  [default: the one the model was raised to]")
]
Metric = Annotated[
    list[str] | None,
    typer.Option(help="a metric of yours for bounds: NAME=FILE.py:FUNCTION or NAME=module:function; may be repeated"),
]
NoUserCode = Annotated[
    bool, typer.Option("--no-user-code", help="refuse Python code that recipes, data and metrics name")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="show no progress")]
Events = Annotated[
    str | None,
    typer.Option(
        "--events", help="a file for events as JSON lines, '-' for stderr", metavar="FILE", show_default=False
    ),
]
PrintChanges = Annotated[bool, typer.Option("--print-changes", help="print the IR after every step that changed it")]


def json_text(data: Any) -> str:
    """Plain data as indented JSON."""
    import json

    return json.dumps(data, indent=2, ensure_ascii=False)


def dims_of(text: str | None) -> dict[str, int]:
    """`N=1,T=128` as a mapping. Errors: BAD_DIMS naming the part that is wrong."""
    found: dict[str, int] = {}
    for part in filter(None, (text or "").split(",")):
        name, _, size = part.partition("=")
        if not name.strip() or not size.strip().isdigit() or int(size) < 1:
            raise errors.error(
                Code.BAD_DIMS,
                f"{part!r} is not NAME=SIZE with a size of at least 1",
                where="--dims",
                help="write N=1,T=128",
            )
        found[name.strip()] = int(size)
    return found


def bytes_of(text: str | None) -> int | None:
    """A size with its unit as bytes."""
    if text is None:
        return None
    units = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
    for unit in sorted(units, key=len, reverse=True):
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit() and float(number) > 0:
            return int(float(number) * units[unit])
    raise errors.error(Code.WRONG_UNIT, f"{text!r} is not a size", where="--max-memory", help="write 2GiB or 500MB")


def metrics_of(options: list[str] | None) -> dict[str, str]:
    """`NAME=module:function` options as a mapping. Errors: USAGE."""
    found: dict[str, str] = {}
    for text in options or ():
        name, _, function = (part.strip() for part in text.partition("="))
        if not name or ":" not in function:
            raise errors.error(
                Code.USAGE, f"{text!r} names no metric", where="--metric", help="write --metric wer=metrics.py:wer"
            )
        found[name] = function
    return found


def misused(message: str, arguments: list[str], commands: Collection[str]) -> Diagnostic:
    """A wrong command line, with advice for what people most often mean."""
    command = next((a for a in arguments if not a.startswith("-")), "")
    help = f"see mlc {command} --help" if command in commands else "see mlc --help"
    message = message.replace(" Value error, ", " ")  # what checks the value says of itself
    models = [a for a, before in zip(arguments, ["", *arguments]) if a.endswith(".onnx") and before not in _OUT]
    if "unexpected extra argument" in message and command in ("compile", "plan") and len(models) > 1:
        message = "several models are given, and a recipe starts from one: no step makes one model of several yet"
        help = f"compile each by itself: mlc {command} {models[0]} -r RECIPE; or list them in a file: mlc run FILE.mlc"
    elif "'--recipe'" in message:
        help = "the recipe goes after -r: mlc compile model.onnx -r prune+int4"
    elif "unexpected extra argument" in message and "-r" in arguments:
        help = "quote the recipe: -r 'prune + int4 on \"encoder\"'"
    elif (option := next((o for c, o in _ELSEWHERE if c == command and f"option: {o}" in message), None)) is not None:
        help = _ELSEWHERE[command, option]
    return Diagnostic(Code.USAGE, message, help=help)


_OUT = ("-o", "--output")
#: Options that a command does not have, and what to write instead.
_ELSEWHERE = {
    ("verify", "--data"): "samples that judge go after --eval: mlc verify A B --eval samples.npz",
    ("verify", "--labels"): "two models are compared with each other: leave labels out",
    ("bench", "--data"): "models are timed on synthetic input: give its sizes, --dims N=1,T=128",
    ("bench", "--eval"): "models are timed on synthetic input: give its sizes, --dims N=1,T=128",
}
