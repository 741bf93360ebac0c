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
import re
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


def made(contest: Contest, event: Event, plan: Mapping[str, Any], folder: Path) -> tuple[league_run.Ran, Path]:
    """What one run used or why it failed, and where its file is, in a folder that is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    out = folder / "out.onnx"
    folder.mkdir()
    if event.peer == OWN:
        return league_run.own(event.setting, contest, out), out
    try:
        python = league_run.installed(event.peer, plan["peers"][event.peer]["requirements"])
    except RuntimeError as error:
        return league_run.Ran(0, 0, str(error)), out
    return league_run.peer(python, event.peer, event.setting, contest, folder.parent, out), out


def entry(contest: Contest, event: Event, plan: Mapping[str, Any], folder: Path) -> Entry:
    """One run, judged."""
    ran, out = made(contest, event, plan, folder / "made")
    known = Entry(contest.name, event.task, event.peer, event.setting, cpu=ran.cpu, peak=ran.peak, why=ran.why)
    return known if ran.why else judged(contest, known, out)


def duel(contest: Contest, lead: league_page.Lead, plan: Mapping[str, Any], folder: Path) -> Entry | None:
    """Both files of a lead in speed made again and timed in turn: rows are of different times, and machines are not
    always as quiet. None where there is nothing to settle, or no second file."""
    theirs, ours = lead.entry, lead.against
    if ours is None or "speed" not in lead.respects or ours.setting in theirs.duels:
        return None
    files = []
    for row in (ours, theirs):
        place = folder / re.sub(r"\W+", "_", "-".join(row.key))
        if not (place / "out.onnx").exists():
            made(contest, Event(row.task, row.peer, row.setting), plan, place)
        files.append(place / "out.onnx")
    if not all(file.exists() for file in files):
        return None
    timing = opened(lambda: Session(files[0]), lambda: Session(files[1]), contest.feeds)
    found = measures.Interval(timing.speedup, timing.low, timing.high)
    return dataclasses.replace(theirs, duels={**theirs.duels, ours.setting: found})


def duels(chosen: argparse.Namespace, plan: Mapping[str, Any]) -> None:
    """Settle every lead in speed; the nearest row of ours may be another one then, which is met in its turn."""
    for name in chosen.models:
        page = _page(chosen, plan)
        if not any(lead.entry.model == name and "speed" in lead.respects for lead in page.leads().values()):
            continue
        with tempfile.TemporaryDirectory(prefix="mlc-league-") as scratch:
            contest, open_ = MAKERS[name](Path(scratch)), True
            while open_:
                leads = [lead for lead in _page(chosen, plan).leads().values() if lead.entry.model == name]
                settled = [e for e in (duel(contest, lead, plan, Path(scratch)) for lead in leads) if e is not None]
                for found in settled:
                    keep(chosen.results, found)
                    print(found.model, found.task, found.peer, found.setting, "side by side:", flush=True)
                    for setting, speed in found.duels.items():
                        print(f"    {speed:.2f} as fast as {setting}", flush=True)
                open_ = bool(settled)


def keep(path: Path, found: Entry) -> None:
    with path.open("a") as stream:
        stream.write(json.dumps(found.to_json() | {"environment": environment()}) + "\n")


def _page(chosen: argparse.Namespace, plan: Mapping[str, Any]) -> league_page.Page:
    entries = league_page.ordered(kept(chosen.results).values(), plan, list(MAKERS))
    return league_page.Page(entries, plan, environment())


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
    graphs = _graphs(onnx.load(out, load_external_data=False).graph)
    located = {e.value for g in graphs for t in g.initializer for e in t.external_data if e.key == "location"}
    return sum(path.stat().st_size for path in (out, *(out.parent / name for name in sorted(located))))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _nodes(path: Path) -> int:
    return sum(len(graph.node) for graph in _graphs(onnx.load(path, load_external_data=False).graph))


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
                keep(chosen.results, found)
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
        duels(chosen, plan)
    page = _page(chosen, plan)
    if chosen.write is not None:
        chosen.write.write_text(page.text())
    for missing in page.unexplained():
        print(f"no reason and plan: {missing}", file=sys.stderr)
    return 1 if page.unexplained() else 0


if __name__ == "__main__":
    sys.exit(main())
