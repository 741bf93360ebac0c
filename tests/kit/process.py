"""Command lines of mlc in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_POLL = 0.002


def mlc_process(
    arguments: Sequence[str | Path],
    *,
    end: int | None = None,
    after: float = 0.0,
    when: Callable[[], bool] = lambda: True,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """One command line. It gets the signal `end` after so many seconds, as soon as `when` holds; its status is -9 if
    that killed it."""
    with subprocess.Popen(
        [sys.executable, "-m", "mlc", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict(environment or {}),
        cwd=folder,
    ) as process:
        if end is not None:
            _wait(process, after, when)
            process.send_signal(end)
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _wait(process: subprocess.Popen[str], seconds: float, when: Callable[[], bool]) -> None:
    """Until it is time, or the process has ended. What it prints in the meantime fits its pipes."""
    start = time.monotonic()
    while process.poll() is None and (time.monotonic() - start < seconds or not when()):
        time.sleep(_POLL)
