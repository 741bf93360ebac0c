"""Command lines in processes of their own that start at once: forked from one that has imported everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """
import json, os, sys
import mlc.commands
from mlc.cli import main

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        main(json.loads(line))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass
class Nursery:
    process: subprocess.Popen[str]

    def run(self, arguments: Sequence[str | Path], end: int | None = None, after: float = 0.0) -> int:
        """The exit status of one command line, which gets the signal `end` after so many seconds; -9 if that killed
        it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([str(a) for a in arguments]) + "\n")
        self.process.stdin.flush()
        pid = self._number()
        if end is not None:
            time.sleep(after)
            with suppress(ProcessLookupError):  # it was done by then
                os.kill(pid, end)
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@contextmanager
def nursery(temporary: Path, **environment: str) -> Iterator[Nursery]:
    """A place to start command lines from; their temporary files go to a folder of their own."""
    temporary.mkdir(exist_ok=True)
    variables = os.environ | {"TMPDIR": str(temporary)} | environment
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=variables,
    ) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()
