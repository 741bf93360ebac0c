"""Compile every model of the zoo with recipes, as a user would, and print one table.

python benchmarks/recipes.py                                   # every model, simplify and prune+int4
python benchmarks/recipes.py --recipe fp16 --models minilm
python benchmarks/recipes.py --write docs/results.md           # replaces the table between the markers there
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import zoo

RECIPES = ("simplify", "prune+int4")
_HEAD = (
    "| model | recipe | exit | nodes | MiB | ratio | MACs | cosine | speedup [95 %] | done | skipped | seconds |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def compile_one(model: Path, recipe: str, extra: list[str]) -> tuple[int, dict[str, Any], str, float]:
    """(exit status, report, message, wall seconds) of one run of the command line in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.mlc")
        command = [sys.executable, "-m", "mlc", "compile", str(model), "--recipe", recipe, "-o", out, "--json", *extra]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
    report = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return done.returncode, report, done.stderr.strip(), seconds


def row(name: str, recipe: str, status: int, report: dict[str, Any], message: str, seconds: float) -> str:
    """One line of the table; of a failed run the last line of its message."""
    if not report:
        last = message.splitlines()[-1] if message else ""
        return f"| {name} | {recipe} | {status} | {last[:120]} | | | | | | | | {seconds:.1f} |"
    first, last_step = report["steps"][0]["before"], report["steps"][-1]["after"]
    size, checks, timing = report["size"], report["checks"], report["measurements"]["latency"]
    cosine = checks.get("cosine")
    speed = f"{timing['speedup']:.2f} [{timing['low']:.2f}, {timing['high']:.2f}]" if timing else "-"
    done = sum(len(s["done"]) for s in report["steps"])
    skipped = sum(len(s["skipped"]) for s in report["steps"])
    return (
        f"| {name} | {recipe} | {status} | {first['nodes']} > {last_step['nodes']} "
        f"| {size['source'] / 2**20:.2f} > {size['artifact'] / 2**20:.2f} | {size['ratio']:.3f} "
        f"| {macs(first)} > {macs(last_step)} | {'-' if cosine is None else f'{cosine:.6f}'} | {speed} "
        f"| {done} | {skipped} | {seconds:.1f} |"
    )


def macs(metrics: dict[str, Any]) -> str:
    """Millions of multiply-accumulates; `-` when a size is known only at run time."""
    return f"{metrics['macs'] / 1e6:.1f} M" if isinstance(metrics["macs"], int) else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", action="append", help="may be given several times")
    parser.add_argument("--models", nargs="*", help="names of the zoo (default: all)")
    parser.add_argument("--write", type=Path, help="a Markdown file with the markers <!-- recipes --> ... <!-- end -->")
    parser.add_argument("extra", nargs="*", help="further options of mlc compile, after --")
    options = parser.parse_args()
    rows, failed = [_HEAD], 0
    for name in options.models or zoo.entries():
        for recipe in options.recipe or RECIPES:
            outcome = compile_one(zoo.path(name), recipe, options.extra)
            failed += outcome[0] != 0
            rows.append(row(name, recipe, *outcome))
            print(rows[-1], flush=True)
    if options.write is not None:
        text = options.write.read_text()
        before, rest = text.split("<!-- recipes -->")
        after = rest.split("<!-- end -->", 1)[1]
        table = "\n".join(rows)
        options.write.write_text(f"{before}<!-- recipes -->\n{table}\n<!-- end -->{after}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
