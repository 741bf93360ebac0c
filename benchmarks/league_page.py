"""Rows of the league, who is ahead where, and the page that says so.

A row counts when its file runs, keeps the floor of its task (league.toml) and, unless nothing may change, is smaller
than the float model by more than a tenth: doing nothing is no result. A peer's row is *met* when one row of mlc, of
the same model and task, is as good in every respect at once: quality (not above the upper end of our interval), size
(within 2 %), speed (not more than 3 % faster, side by side where the two rows leave a doubt) and, for exact tasks,
nodes. What is not met is ahead; league.toml then has to say why and what follows.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import markdown
from quantize_measures import Interval

OWN = "own"
SAME_SIZE, SAME_SPEED = 0.98, 1.03
SMALLER = 0.9  # of the float model
COLUMNS = ("model", "task", "tool", "setting", "quality", "speedup", "MiB", "nodes", "CPU s", "peak MiB", "verdict")
TITLES = {"simplify": "Nothing may change", "int8": "8 bits", "int4": "4-bit weights", "prune": "Half of the units"}


@dataclass(frozen=True)
class Entry:
    """One setting of one tool on one model; `why` says why there is no result."""

    model: str
    task: str
    peer: str
    setting: str
    size: float = 0.0  # MiB
    ratio: float = 0.0  # of the size of the float model
    nodes: int = 0
    quality: Interval | None = None
    speed: Interval | None = None
    cpu: float = 0.0
    peak: float = 0.0
    why: str = ""
    duels: Mapping[str, Interval] = field(default_factory=dict)  # by our setting: how much faster it is side by side

    @property
    def key(self) -> tuple[str, ...]:
        return self.model, self.task, self.peer, self.setting

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Entry:
        names = {f.name for f in dataclasses.fields(Entry)}
        known = {name: value for name, value in found.items() if name in names}
        for name in ("quality", "speed"):
            known[name] = Interval(**known[name]) if known[name] else None
        known["duels"] = {name: Interval(**value) for name, value in known.get("duels", {}).items()}
        return Entry(**known)


@dataclass(frozen=True)
class Lead:
    """Where a row of a peer is ahead of the nearest row of ours."""

    entry: Entry
    against: Entry | None
    respects: tuple[str, ...]

    def __str__(self) -> str:
        e = self.entry
        return f"{e.peer} ({e.setting}) on {e.model}, {e.task}: {', '.join(self.respects)}"


def floor(plan: Mapping[str, Any], entry: Entry) -> float:
    floors = plan["floors"][entry.task]
    return float(floors.get(entry.model, floors.get("*", float("-inf"))))


def ordered(entries: Iterable[Entry], plan: Mapping[str, Any], models: Sequence[str]) -> list[Entry]:
    """As in the tables of models and settings; rows whose setting is no longer there are left out."""
    everyone = {OWN: plan["own"], **plan["peers"]}
    places = [(m, t, p, s) for m in models for t in TITLES for p in everyone for s in everyone[p].get(t, ())]
    found = {e.key: e for e in entries}
    return [found[key] for key in places if key in found]


def counts(plan: Mapping[str, Any], entry: Entry) -> bool:
    """Whether the row is a result at all."""
    return not fault(plan, entry)


def fault(plan: Mapping[str, Any], entry: Entry) -> str:
    """Why a row is no result; empty where it is one."""
    if entry.quality is None or entry.speed is None:
        return entry.why
    if entry.task != "simplify" and entry.ratio > SMALLER:
        return "not smaller"
    return "" if entry.quality.value >= floor(plan, entry) else "below the floor"


def ahead(entry: Entry, own: Entry) -> tuple[str, ...]:
    """The respects in which a row is better than one of ours; both count."""
    exact = entry.task == "simplify"
    found = {
        "quality": not exact and entry.quality.value > own.quality.high,
        "size": entry.size < SAME_SIZE * own.size,
        "speed": _faster(entry, own),
        "nodes": exact and entry.nodes < own.nodes,
    }
    return tuple(name for name, better in found.items() if better)


def _gap(entry: Entry, own: Entry) -> float:
    """How far a row is ahead, as the sum of its relative leads."""
    duel = entry.duels.get(own.setting)
    shares = {
        "quality": entry.quality.value / own.quality.value if own.quality.value else float("inf"),
        "size": own.size / entry.size,
        "speed": duel.value if duel else entry.speed.value / own.speed.value,
        "nodes": own.nodes / entry.nodes,
    }
    return sum(abs(shares[name] - 1) for name in ahead(entry, own))


def _faster(entry: Entry, own: Entry) -> bool:
    """By both files side by side where that was measured, else by what each makes of the float model's time."""
    duel = entry.duels.get(own.setting)
    if duel is not None:
        return duel.low > 1 and duel.value > SAME_SPEED
    return entry.speed.low > own.speed.high and entry.speed.value > SAME_SPEED * own.speed.value


def lead(entry: Entry, entries: Sequence[Entry], plan: Mapping[str, Any]) -> Lead | None:
    """None where one row of ours is as good in every respect."""
    ours = [e for e in entries if e.peer == OWN and (e.model, e.task) == (entry.model, entry.task) and counts(plan, e)]
    if not ours:
        return Lead(entry, None, ("result",))
    nearest = min(ours, key=lambda own: (len(ahead(entry, own)), _gap(entry, own)))
    respects = ahead(entry, nearest)
    return Lead(entry, nearest, respects) if respects else None


def reason(found: Lead, plan: Mapping[str, Any]) -> Mapping[str, str] | None:
    """What league.toml says of a lead: the first entry whose patterns fit and whose respects cover it."""
    e = found.entry
    named = {"model": e.model, "task": e.task, "peer": e.peer, "setting": e.setting}
    for known in plan.get("reasons", ()):
        fits = all(fnmatch.fnmatchcase(value, known.get(key, "*")) for key, value in named.items())
        if fits and set(found.respects) <= set(known["respects"]):
            return dict(known)
    return None


def cells(entry: Entry, plan: Mapping[str, Any]) -> list[str]:
    """A row from the tool on, without the verdict on others."""
    title = "mlc" if entry.peer == OWN else plan["peers"][entry.peer]["title"]
    setting = f"`{entry.setting}`"
    spent = [f"{entry.cpu:.1f}", f"{entry.peak:.0f}"]
    found = fault(plan, entry)
    if entry.quality is None or entry.speed is None:
        size = [f"{entry.size:.2f}", str(entry.nodes)] if entry.size else ["", ""]
        return [title, setting, "", "", *size, *spent, found]
    digits = ".4f" if entry.model == "minilm" and entry.task != "simplify" else ".2f"
    return [title, setting, f"{entry.quality:{digits}}", f"{entry.speed:.2f}", f"{entry.size:.2f}", str(entry.nodes),
            *spent, found]  # fmt: skip


@dataclass(frozen=True)
class Page:
    entries: Sequence[Entry]
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]

    def unexplained(self) -> list[str]:
        return [str(found) for found in self.leads().values() if reason(found, self.plan) is None]

    def leads(self) -> dict[tuple[str, ...], Lead]:
        peers = [e for e in self.entries if e.peer != OWN and counts(self.plan, e)]
        found = {e.key: lead(e, self.entries, self.plan) for e in peers}
        return {key: one for key, one in found.items() if one is not None}

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from self.plan["page"]["intro"].strip().splitlines()
        yield from ("", "## In short", "", *self._summary(), "", "## Where a peer is ahead", "", *self._behind())
        for task, title in TITLES.items():
            yield from ("", f"## {title}: `{task}`")
            for model in dict.fromkeys(e.model for e in self.entries if e.task == task):
                yield from ("", f"### {model}", "", *self._table(model, task))
        yield from ("", "## How it was measured", "", *self._method(), "")
        yield from (f"- {peer['title']}: {', '.join(peer['requirements'])}" for peer in self.plan["peers"].values())
        yield from ("", " ".join(f"{name} {value};" for name, value in self.environment.items()).rstrip(";"))

    def _method(self) -> list[str]:
        said = [f"`{task}` {', '.join(f'{m} {v:g}' for m, v in models.items())}" for task, models in self._floors()]
        return str(self.plan["page"]["method"]).strip().replace("{floors}", "; ".join(said)).splitlines()

    def _floors(self) -> Iterator[tuple[str, Mapping[str, float]]]:
        for task, models in self.plan["floors"].items():
            yield task, {"all" if model == "*" else model: value for model, value in models.items()}

    def _table(self, model: str, task: str) -> Iterator[str]:
        leads = self.leads()
        yield markdown.head(*COLUMNS[2:])
        for entry in (e for e in self.entries if (e.model, e.task) == (model, task)):
            shown = cells(entry, self.plan)
            found = leads.get(entry.key)
            if found is not None:
                shown[-1] = f"ahead: {', '.join(found.respects)}"
            yield markdown.row(shown)

    def _summary(self) -> Iterator[str]:
        kinds = ("no file that runs", "not smaller", "below the floor")
        yield markdown.head("tool", "runs", *kinds, "met by one row of mlc", "ahead")
        leads = self.leads()
        for name, title in {OWN: "mlc", **{n: p["title"] for n, p in self.plan["peers"].items()}}.items():
            faults = {e.key: fault(self.plan, e) for e in self.entries if e.peer == name}
            known = [sum(f == kind for f in faults.values()) for kind in kinds[1:]]
            fine, over = sum(not f for f in faults.values()), sum(key in leads for key in faults)
            compared = ["", ""] if name == OWN else [fine - over, over]
            yield markdown.row([title, len(faults), len(faults) - fine - sum(known), *known, *compared])

    def _behind(self) -> Iterator[str]:
        yield markdown.head("model, task", "who", "ahead in", "than", "reason", "plan")
        for found in self.leads().values():
            said = reason(found, self.plan) or {"reason": "", "plan": ""}
            e, nearest = found.entry, found.against
            title = self.plan["peers"][e.peer]["title"]
            than = f"`{nearest.setting}`" if nearest else "no row of ours"
            if nearest and "speed" in found.respects and nearest.setting in e.duels:
                than += f", {e.duels[nearest.setting]:.2f} side by side"
            yield markdown.row(
                [f"{e.model}, {e.task}", f"{title}, `{e.setting}`", ", ".join(found.respects), than, said["reason"],
                 said["plan"]]
            )  # fmt: skip
