"""The league: mlc and its peers on the same models, each peer in an environment of its own.

    python benchmarks/league.py                                         # everything; prints every row as it is found
    python benchmarks/league.py --models minilm --peers nncf own --tasks int8
    python benchmarks/league.py --write docs/league.md                  # and the page
    python benchmarks/league.py --render --write docs/league.md         # the page of the rows that are there

Who takes part, with which settings, is in league.toml; the models and their judges are in league_contests.py. A peer is
installed from its pinned requirements into ~/.cache/mlc-peers. It gets the model file and the calibration samples and
has 15 minutes to leave a file. The file is then judged here, always in the same way: it has to load in ONNX Runtime
(CPU), its outputs are compared with those of the float model on samples that nobody calibrated with, its size is read
from the disk, and its CPU time is measured against the float model's, interleaved, over fresh sessions.

Rows are kept in ~/.cache/mlc-peers/league.jsonl; `--resume` measures only those that are missing there.
Exit 1: a peer is ahead somewhere and league.toml has no reason and plan for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import league_page
import league_run
import markdown
import onnx
import quantize_measures as measures
from league_contests import MAKERS, Contest
from league_page import Entry

from mlc.backends.measure import environment, opened
from mlc.backends.ort import Session
from mlc.ir.errors import MlcError

RESULTS = league_run.CACHE / "league.jsonl"
OWN = "own"


@dataclass(frozen=True)
class Event:
    """One run to make."""

    task: str
    peer: str
    setting: str


def table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text())


def events(contest: Contest, plan: Mapping[str, Any], tasks: Sequence[str], peers: Sequence[str]) -> Iterator[Event]:
    for task in contest.tasks:
        if task not in tasks:
            continue
        for name, settings in [(OWN, plan["own"]), *plan["peers"].items()]:
            if name in peers and (contest.network or not settings.get("needs_network")):
                yield from (Event(task, name, s) for s in settings.get(task, ()) if _meant(s, contest.name, settings))


def _meant(setting: str, model: str, settings: Mapping[str, Any]) -> bool:
    """Settings that take too long are limited to some models."""
    limited = settings.get("limited", {})
    return setting not in limited or model in limited[setting]


def entry(contest: Contest, event: Event, plan: Mapping[str, Any], folder: Path) -> Entry:
    """One run, judged."""
    shutil.rmtree(folder / "made", ignore_errors=True)
    out = folder / "made" / "out.onnx"
    out.parent.mkdir()
    known = Entry(contest.name, event.task, event.peer, event.setting)
    if event.peer == OWN:
        ran = league_run.own(event.setting, contest, out)
    else:
        try:
            python = league_run.installed(event.peer, plan["peers"][event.peer]["requirements"])
        except RuntimeError as error:
            return dataclasses.replace(known, why=str(error))
        ran = league_run.peer(python, event.peer, event.setting, contest, folder, out)
    known = dataclasses.replace(known, cpu=ran.cpu, peak=ran.peak, why=ran.why)
    return known if ran.why else judged(contest, known, out)


def judged(contest: Contest, known: Entry, out: Path) -> Entry:
    """Size, number of nodes, quality and speed of a file."""
    size = _size(out)
    known = dataclasses.replace(known, size=size / 2**20, ratio=size / _size(contest.source), nodes=_nodes(out))
    try:
        judge = contest.exact if known.task == "simplify" else contest.judge
        quality = judge(out)
        feeds = contest.feeds
        timing = opened(lambda: Session(contest.source), lambda: Session(out), _renamed(contest.source, out, feeds))
    except (MlcError, ValueError, KeyError) as error:
        return dataclasses.replace(known, why=f"the file does not run: {league_run.short(str(error))}")
    if not math.isfinite(quality.value):
        return dataclasses.replace(known, why="its outputs are not finite")
    speed = measures.Interval(timing.speedup, timing.low, timing.high)
    return dataclasses.replace(known, quality=quality, speed=speed)


def _renamed(source: Path, out: Path, feeds: measures.Feeds) -> measures.Feeds:
    """The feeds; refused where the file asks for other inputs."""
    wanted, found = (list(Session(path).input_types) for path in (source, out))
    if set(wanted) != set(found):
        raise ValueError(f"it asks for {', '.join(found)} instead of {', '.join(wanted)}")
    return feeds


def _size(out: Path) -> int:
    """Bytes of the file and of the external data that it names."""
    stored = _tensors(onnx.load(out, load_external_data=False).graph)
    located = {e.value for t in stored for e in t.external_data if e.key == "location"}
    return sum(path.stat().st_size for path in (out, *(out.parent / name for name in sorted(located))))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The initializers of a graph and of the bodies in it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _nodes(path: Path) -> int:
    return len(onnx.load(path, load_external_data=False).graph.node)


def kept(path: Path) -> dict[tuple[str, ...], Entry]:
    """The rows of earlier runs; the last of each counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = (Entry.from_json(json.loads(line)) for line in lines)
    return {e.key: e for e in found}


def play(chosen: argparse.Namespace, plan: Mapping[str, Any]) -> None:
    """Run what is asked for, print and keep every row."""
    chosen.results.parent.mkdir(parents=True, exist_ok=True)
    done = kept(chosen.results) if chosen.resume else {}
    print(markdown.head(*league_page.COLUMNS), flush=True)
    for name in chosen.models:
        with tempfile.TemporaryDirectory(prefix="mlc-league-") as scratch:
            contest = MAKERS[name](Path(scratch))
            for event in events(contest, plan, chosen.tasks, chosen.peers):
                if (name, event.task, event.peer, event.setting) in done:
                    continue
                found = entry(contest, event, plan, Path(scratch))
                with chosen.results.open("a") as stream:
                    stream.write(json.dumps(found.to_json() | {"environment": environment()}) + "\n")
                print(markdown.row([name, event.task, *league_page.cells(found, plan)]), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    plan = table()
    peers, tasks = [OWN, *plan["peers"]], [*plan["floors"]]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MAKERS), choices=MAKERS)
    parser.add_argument("--peers", nargs="*", default=peers, choices=peers, metavar="PEER", help=", ".join(peers))
    parser.add_argument("--tasks", nargs="*", default=tasks, choices=tasks)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows are kept")
    parser.add_argument("--resume", action="store_true", help="measure only what is missing there")
    parser.add_argument("--render", action="store_true", help="measure nothing: judge the rows that are there")
    parser.add_argument("--write", type=Path, help="the page to write")
    chosen = parser.parse_args(arguments)
    if not chosen.render:
        play(chosen, plan)
    page = league_page.Page(league_page.ordered(kept(chosen.results).values(), plan, list(MAKERS)), plan, environment())
    if chosen.write is not None:
        chosen.write.write_text(page.text())
    for missing in page.unexplained():
        print(f"no reason and plan: {missing}", file=sys.stderr)
    return 1 if page.unexplained() else 0


if __name__ == "__main__":
    sys.exit(main())
