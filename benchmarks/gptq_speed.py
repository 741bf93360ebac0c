"""GPTQ of one layer given its second moments: time and error, side by side with what else can be installed.

A layer of 4096 inputs and 4096 outputs in 4-bit blocks of 128, asymmetric, grids from the range of each block, damping
1 %. Every run is a process of its own with two threads that rounds a small layer first; runs of all sides alternate,
and medians are shown. `mlc, searched` takes grids of least weighted error, as refinement does.

    python benchmarks/gptq_speed.py [--size 4096] [--rounds 3] [--peers PYTHON]

ONNX Runtime brings a GPTQ of its own (numpy). LLM Compressor is another; it lives in an environment that has it
(`pip install llmcompressor`), whose interpreter `--peers` names. AutoGPTQ 0.7.1 does not import with the transformers
that exist for this torch; GPTQModel only builds beside CUDA.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = "2"
BLOCK, BITS, DAMPING = 128, 4, 0.01
ROOT = Path(__file__).resolve().parents[1]

Round = Callable[[Any, Any], Any]


def problem(size: int) -> tuple[Any, Any]:
    """(weights [outputs, inputs], second moments) of inputs that are correlated as hidden states are."""
    import numpy as np

    rng = np.random.default_rng(0)
    factors = rng.standard_normal((size, size // 8), dtype=np.float32)
    rows = rng.standard_normal((size + 512, size // 8), dtype=np.float32) @ factors.T / np.float32(np.sqrt(size // 8))
    rows += rng.standard_normal(rows.shape, dtype=np.float32)
    weights = rng.standard_normal((size, size), dtype=np.float32) / np.float32(np.sqrt(size))
    return weights, rows.T @ rows / np.float32(len(rows))


def ours(clips: tuple[float, ...] | None) -> Round:
    from mlc.ir.quant import QSpec
    from mlc.ir.quant_blocks import CLIPS
    from mlc.passes.quantize.refine.gptq import Settings, gptq

    settings = Settings(QSpec(BITS, False, False, None, BLOCK), clips=clips or CLIPS, damping=DAMPING)
    return lambda weights, moments: gptq(weights[None], moments[None], settings).matrix[0]


def onnx_runtime() -> Round:
    from onnxruntime.quantization.neural_compressor.weight_only import gptq

    return lambda weights, moments: gptq(weights.T.copy(), moments.copy(), BITS, BLOCK, percdamp=DAMPING).T


def llm_compressor() -> Round:
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.utils import calculate_qparams
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight

    torch.set_num_threads(int(THREADS))
    settings = QuantizationArgs(num_bits=BITS, symmetric=False, strategy="group", group_size=BLOCK)

    def run(weights: Any, moments: Any) -> Any:
        matrix = torch.from_numpy(weights)
        groups = matrix.reshape(len(matrix), -1, BLOCK)
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), settings)
        hessian = torch.from_numpy(moments.copy())
        with torch.no_grad():
            found, *_ = quantize_weight(
                matrix[None].clone(), hessian[None], scale[None], zero[None], None, settings, 128, DAMPING
            )
        return found[0].numpy()

    return run


SIDES: dict[str, Callable[[], Round]] = {
    "mlc": lambda: ours((1.0,)),
    "mlc, searched": lambda: ours(None),
    "ONNX Runtime": onnx_runtime,
    "LLM Compressor": llm_compressor,
}


def measure(side: str, size: int) -> None:
    """One run, in this process; prints wall time, CPU time and the relative error of the outputs."""
    run = SIDES[side]()
    run(*problem(256))
    weights, moments = problem(size)
    wall, cpu = time.perf_counter(), time.process_time()
    found = run(weights, moments)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    off = found - weights
    error = float((off @ moments * off).sum() / (weights @ moments * weights).sum())
    print(json.dumps({"wall": wall, "cpu": cpu, "error": error}))


def once(side: str, size: int, python: str) -> dict[str, float]:
    quiet = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), THREADS)
    command = [python, str(Path(__file__).resolve()), "--side", side, "--size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet}, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{side} fails: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="", help="an interpreter that has llmcompressor")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side:
        return measure(chosen.side, chosen.size)
    pythons = {side: sys.executable for side in SIDES if side != "LLM Compressor"}
    if chosen.peers:
        pythons["LLM Compressor"] = chosen.peers
    found: dict[str, list[dict[str, float]]] = {side: [] for side in pythons}
    for _ in range(chosen.rounds):
        for side, python in pythons.items():
            found[side].append(once(side, chosen.size, python))
    print("| side | wall s | CPU s | error |\n|---|---|---|---|")
    for side, runs in found.items():
        middle = {key: statistics.median(r[key] for r in runs) for key in ("wall", "cpu", "error")}
        print(f"| {side} | {middle['wall']:.2f} | {middle['cpu']:.2f} | {middle['error']:.3%} |")


if __name__ == "__main__":
    main()
