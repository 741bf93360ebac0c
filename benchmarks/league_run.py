"""Running one setting of one peer, or of mlc, in a process of its own: what it left, what it cost, or why it failed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from league_contests import Contest, samples

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "mlc-peers"
LIMIT = 900  # seconds that one run may take


@dataclass(frozen=True)
class Ran:
    """`why` is empty when a file was left at the asked path."""

    cpu: float  # seconds of the process and its children
    peak: float  # MiB of resident memory
    why: str = ""


def installed(name: str, requirements: Sequence[str]) -> Path:
    """The Python of the peer's own environment, made when it is not there. Errors: RuntimeError with pip's words."""
    key = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{key}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
            raise RuntimeError(f"cannot be installed: {lines[-1]}")
    (folder / "complete").touch()
    return python


def peer(python: Path, adapter: str, setting: str, contest: Contest, folder: Path, out: Path) -> Ran:
    """One setting of a peer. Its environment is its own: nothing of this project can be imported there.

    So is its copy of the model: some peers write to the file that they are given.
    """
    model = folder / "model.onnx"
    shutil.copyfile(contest.source, model)
    command = [str(python), str(HERE / "peers" / f"{adapter}_adapter.py"), setting]
    command += [str(model), str(shared(contest, folder)), str(out)]
    command += ["--transformer"] if contest.transformer else []
    command += ["--network", str(contest.network)] if contest.network else []
    paths = os.pathsep.join((str(HERE), str(HERE.parent / "examples"))) if contest.network else ""
    return measured(command, out, {"PYTHONPATH": paths, "DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"})


def own(recipe: str, contest: Contest, out: Path) -> Ran:
    """mlc's command line as a user types it, checks and timing of the artifact included."""
    command = [sys.executable, "-m", "mlc", "compile", str(contest.source), "-r", recipe, "-o", str(out)]
    command += ["--data", str(contest.calibrate), "--json"]
    command += ["--mask", contest.mask] if contest.mask else []
    return measured(command, out, {})


def shared(contest: Contest, folder: Path) -> Path:
    """The folder of samples, one file each, that every peer reads."""
    found = folder / f"{contest.name}-samples"
    if not found.is_dir():
        found.mkdir()
        for index, feeds in enumerate(samples(contest)):
            np.savez(found / f"{index:05}.npz", **{name: np.asarray(a) for name, a in feeds.items()})
    return found


#: Runs a command and says what it used. A process of its own, because the peak of memory of a process that this one
#: forks starts at the size of this one.
_LAUNCHER = """
import json, os, sys
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def measured(command: Sequence[str], out: Path, settings: Mapping[str, str]) -> Ran:
    log = out.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", _LAUNCHER, *command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | settings,
            start_new_session=True,
        )
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return Ran(0, 0, f"not done in {LIMIT} s")
    *lines, last = log.read_text(errors="replace").splitlines()
    status, cpu, peak = json.loads(last)
    return Ran(cpu, peak, _why(status, lines, out))


def _why(status: int, log: Sequence[str], out: Path) -> str:
    if status == 0 and out.exists():
        return ""
    if status == 0:
        return "exit 0, but no file"
    lines = [line.strip() for line in log if line.strip()]
    told = [line for line in lines if re.match(r"^(\w+\.)*\w*(Error|Exception|Fail)\b|^error", line)] or lines or [""]
    return f"exit {status}: {short(told[-1])}"


#: What says nothing that the table does not: where an error was raised, by whom, and our own advice.
_PREAMBLE = re.compile(
    r"^error\[\w+\]: ONNX Runtime cannot \w+ \S+ |\[ONNXRuntimeError\] : \d+ : \w+ : | = help: .*$"
    r"|Non-zero status code returned while running (?=\w+ node)|Name:'[^']*' Status Message: (\S+\.(cc|h):\d+ [^)]*\))?"
)


def short(text: str, most: int = 200) -> str:
    """A message on one line of a table, without paths of this machine."""
    text = re.sub(r"\s+", " ", re.sub(r"(/[\w.+-]+){2,}/", ".../", text).replace("|", "/"))
    text = _PREAMBLE.sub("", text).strip()
    return text if len(text) <= most else f"{text[: most - 1]}…"
