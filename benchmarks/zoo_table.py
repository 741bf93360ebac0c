"""The command line of benchmarks that print one row for every model of the zoo."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import markdown


def main(doc: str | None, marker: str, columns: Sequence[str], cells: Callable[[str], Iterable[object]]) -> None:
    """Print the table; with --write, put it between the markers of a page. `cells(name)` are those of one model."""
    import zoo  # found on the path that the benchmark has set

    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=("real", "slow", "all"), default="all")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args()
    lines = [markdown.head(*columns)]
    print(lines[0], flush=True)
    for name in chosen.names or [n for n, e in zoo.entries().items() if chosen.tier in ("all", e.tier)]:
        lines.append(markdown.row(cells(name)))
        print(lines[-1], flush=True)
    if chosen.write:
        markdown.write(chosen.write, marker, lines)
