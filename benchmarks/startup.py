"""Start-up times: importing mlc, printing its help, and simplifying a 5 MB model; median of several runs.

python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import zoo

RUNS = 7


def seconds(command: list[str]) -> float:
    """Median wall time of a command in a process of its own; one run before the clock starts fills the caches."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    python = sys.executable
    nothing = seconds([python, "-c", "pass"])
    imported = seconds([python, "-c", "import mlc"])
    print(f"import mlc          {imported - nothing:.3f} s beyond Python itself ({nothing:.3f} s)")
    print(f"mlc --help          {seconds([python, '-m', 'mlc', '--help']):.3f} s")
    model = zoo.path("ppocrv4_det")
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", "mlc", "compile", str(model), "-r", "simplify", "-o", f"{folder}/out.mlc", "--force"]
        print(f"simplify {model.stat().st_size / 1e6:.1f} MB     {seconds(command):.2f} s")


if __name__ == "__main__":
    main()
