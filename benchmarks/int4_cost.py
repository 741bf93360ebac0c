"""What quantizing costs: MiniLM-L6 in 4 bits, matrices and embeddings, file to file, against ONNX Runtime's tool.

Both do the same tensors (MatMul and Gather, blocks of 32, asymmetric, round to nearest) and both write the file. Every
run is a process of its own with two threads; runs are interleaved and medians are told. CPU time is that of load,
pass and save, without imports; memory is the peak of the resident set beyond what it was after the imports.

    python benchmarks/int4_cost.py [rounds]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
THREADS = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
Work = Callable[[str, str], None]


def ours(method: str) -> Work:
    """The pass, lowering and saving of mlc; imports happen here."""
    from mlc.backends.legalize import legalize
    from mlc.backends.onnx import save
    from mlc.frontends.onnx import load
    from mlc.passes.quantize.int4 import Int4

    def run(source: str, out: str) -> None:
        step = Int4(block=32, embedding_block=32, scale="f32", method=method)
        save(legalize(step(load(source))).module, Path(out))

    return run


def theirs() -> Work:
    """ONNX Runtime's MatMulNBitsQuantizer with its default method (round to nearest in C++)."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    def run(source: str, out: str) -> None:
        tool = MatMulNBitsQuantizer(
            source, block_size=32, is_symmetric=False, accuracy_level=4, op_types_to_quantize=("MatMul", "Gather")
        )
        tool.process()
        tool.model.save_model_to_file(out, use_external_data_format=False)

    return run


WORKS: dict[str, Callable[[], Work]] = {
    "onnxruntime, rtn": theirs,
    "mlc, rtn": lambda: ours("rtn"),
    "mlc, grid (default)": lambda: ours("grid"),
}


def child(name: str, source: str, out: str) -> None:
    """One run in this process; prints what it cost."""
    work = WORKS[name]()
    before = status("VmRSS")
    reset_peak()
    start = time.process_time()
    work(source, out)
    seconds = time.process_time() - start
    print(json.dumps({"cpu": seconds, "peak": status("VmHWM") - before, "size": Path(out).stat().st_size / 2**20}))


def status(field: str) -> float:
    """MiB of a field of /proc/self/status."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def reset_peak() -> None:
    """Imports may have peaked higher than what stayed of them."""
    Path("/proc/self/clear_refs").write_text("5")


def main(rounds: int) -> None:
    import os

    sys.path.insert(0, str(ROOT / "examples"))
    import zoo

    source = str(zoo.path("minilm"))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WORKS}
    for _ in range(rounds):
        for name in WORKS:
            with tempfile.TemporaryDirectory() as folder:
                out = str(Path(folder) / "small.onnx")
                command = [sys.executable, __file__, "--child", name, source, out]
                told = subprocess.run(command, env=os.environ | THREADS, capture_output=True, text=True, check=True)
            found[name].append(json.loads(told.stdout.splitlines()[-1]))
    print(f"MiniLM-L6, 4 bits, blocks of 32, {rounds} runs each, medians\n")
    print("| tool, method | CPU s | x | peak MiB over imports | x | file MiB |\n|---|---|---|---|---|---|")
    base = {key: statistics.median(r[key] for r in found["onnxruntime, rtn"]) for key in ("cpu", "peak")}
    for name, runs in found.items():
        cpu, peak, size = (statistics.median(r[key] for r in runs) for key in ("cpu", "peak", "size"))
        print(f"| {name} | {cpu:.2f} | {cpu / base['cpu']:.2f} | {peak:.0f} | {peak / base['peak']:.2f} | {size:.1f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:5])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
