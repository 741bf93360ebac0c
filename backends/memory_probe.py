"""Run as a script in a process of its own: open a model in ONNX Runtime, run it, tell the largest memory that took.

    python memory_probe.py MODEL FEEDS.npz THREADS RUNS

Prints `{"before": bytes, "peak": bytes}`: before the session was made, and at the end. Imports nothing of mlc, so that
the process holds what a deployed one holds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak() -> int:
    """The largest memory this process ever held, in bytes.

    Linux hands `ru_maxrss` down through fork and exec, so that a child would be told its parent's: VmHWM is its own.
    """
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def main(model: str, feeds: str, threads: int, runs: int) -> dict[str, int]:
    """Open and run the model; the peaks before and after."""
    import numpy as np
    import onnxruntime as ort

    with np.load(feeds) as arrays:
        inputs = {name: a.astype(object) if a.dtype.kind == "U" else a for name, a in arrays.items()}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    before = peak()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for _ in range(runs):
        session.run(None, inputs)
    return {"before": before, "peak": peak()}


if __name__ == "__main__":
    found = main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(json.dumps(found))
