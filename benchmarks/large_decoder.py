"""Memory of compiling a model that is larger than the memory it may use.

    python benchmarks/large_decoder.py                # 4 GB of weights, int4, bar: 1.5 GB
    python benchmarks/large_decoder.py --layers 1     # a smaller one

Writes a synthetic decoder with external data (largest tensor 0.5 GiB), compiles it with `--check fast` in a process
of its own, and prints the largest resident set of the process tree. Exit status 1 if the bar is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY, WIDTH, HIDDEN, HEADS, KV_WIDTH = 32768, 4096, 12800, 32, 1024
BAR_BYTES = 1.5e9
_CHUNK = 1 << 22  # elements written at once
_POLL_SECONDS = 0.01


class Writer:
    """Streams random weights to one file and remembers where they lie."""

    def __init__(self, data: Path, seed: int) -> None:
        self.file, self.location = data.open("wb"), data.name
        self.tensors: list[TensorProto] = []
        self._rng = np.random.default_rng(seed)
        self._noise = self._rng.standard_normal(_CHUNK).astype(np.float32)

    def weight(self, name: str, *shape: int) -> str:
        start = -(-self.file.tell() // 4096) * 4096
        self.file.seek(start)
        left = int(np.prod(shape))
        while left:
            count = min(left, _CHUNK)
            scale = np.float32(self._rng.uniform(0.5, 2) / np.sqrt(shape[0]))
            self.file.write((np.roll(self._noise, int(self._rng.integers(_CHUNK)))[:count] * scale).tobytes())
            left -= count
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        length = 4 * int(np.prod(shape))
        for key, value in (("location", self.location), ("offset", str(start)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        self.tensors.append(tensor)
        return name

    def small(self, name: str, array: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(array, name))
        return name


def write_decoder(path: Path, layers: int, seed: int = 0) -> int:
    """Write the model and its data; the bytes of the weights."""
    out = Writer(path.with_name(f"{path.name}.data"), seed)
    nodes: list[onnx.NodeProto] = []

    def op(kind: str, *inputs: str, **attributes: object) -> str:
        result = f"v{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [result], name=f"{kind}_{len(nodes)}", **attributes))
        return result

    def heads(x: str, width: int) -> str:
        split = out.small(f"split{len(nodes)}", np.array([0, 0, -1, WIDTH // HEADS], np.int64))
        turned = op("Transpose", op("Reshape", x, split), perm=[0, 2, 1, 3])
        if width == WIDTH:
            return turned
        shared = out.small(f"repeat{len(nodes)}", np.array([1, WIDTH // width, 1, 1], np.int64))
        return op("Tile", turned, shared)

    def norm(x: str, name: str) -> str:
        return op("LayerNormalization", x, out.small(f"{name}.weight", np.ones(WIDTH, np.float32)), epsilon=1e-5)

    x = op("Gather", out.weight("embed.weight", VOCABULARY, WIDTH), "input_ids", axis=0)
    joined = out.small("joined", np.array([0, 0, WIDTH], np.int64))
    for layer in range(layers):
        p = f"layers.{layer}"
        y = norm(x, f"{p}.norm1")
        widths = {"q": WIDTH, "k": KV_WIDTH, "v": KV_WIDTH}
        q, k, v = (heads(op("MatMul", y, out.weight(f"{p}.{n}.weight", WIDTH, w)), w) for n, w in widths.items())
        scores = op("Softmax", op("MatMul", q, op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
        mixed = op("Reshape", op("Transpose", op("MatMul", scores, v), perm=[0, 2, 1, 3]), joined)
        x = op("Add", x, op("MatMul", mixed, out.weight(f"{p}.o.weight", WIDTH, WIDTH)))
        y = norm(x, f"{p}.norm2")
        gate = op("MatMul", y, out.weight(f"{p}.gate.weight", WIDTH, HIDDEN))
        up = op("MatMul", y, out.weight(f"{p}.up.weight", WIDTH, HIDDEN))
        hidden = op("Mul", op("Mul", gate, op("Sigmoid", gate)), up)
        x = op("Add", x, op("MatMul", hidden, out.weight(f"{p}.down.weight", HIDDEN, WIDTH)))
    logits = op("MatMul", norm(x, "norm"), out.weight("head.weight", WIDTH, VOCABULARY))
    nodes[-1].output[0] = "logits"
    assert logits
    out.file.close()
    graph = helper.make_graph(
        nodes,
        "decoder",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", VOCABULARY])],
        out.tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path.with_name(out.location).stat().st_size


@dataclass
class Run:
    """A finished command: its exit status, seconds, and the largest resident set of its process tree."""

    status: int
    seconds: float
    peak_bytes: int
    output: str


def run_measured(command: list[str]) -> Run:
    """Run a command and watch the resident memory of it and its descendants together."""
    start, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, _tree_bytes(process.pid))
            time.sleep(_POLL_SECONDS)
        log.seek(0)
        return Run(process.returncode, time.monotonic() - start, peak, log.read())


def _tree_bytes(pid: int) -> int:
    """Resident bytes of a process and its children; the kernel's own high-water mark of the process if larger."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it ended meanwhile
        return 0
    high = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return high + sum(_tree_bytes(int(child)) for child in children)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="0.74 GiB of weights each, besides 1 GiB of tables")
    parser.add_argument("--recipe", default="int4")
    parser.add_argument("--folder", type=Path, default=None, help="where to write (default: a temporary folder)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="large-decoder-") as folder:
        model, artifact = Path(folder) / "decoder.onnx", Path(folder) / "small.onnx"
        size = write_decoder(model, chosen.layers)
        command = [sys.executable, "-m", "mlc", "compile", str(model), "--recipe", chosen.recipe]
        found = run_measured([*command, "--check", "fast", "-o", str(artifact)])
        written = sum(f.stat().st_size for f in Path(folder).glob("small.onnx*"))
    result = {
        "weights_bytes": size,
        "artifact_bytes": written,
        "status": found.status,
        "seconds": round(found.seconds, 1),
        "max_rss_bytes": found.peak_bytes,
        "bar_bytes": int(BAR_BYTES),
    }
    if found.status:
        print(found.output, file=sys.stderr)
    print(json.dumps(result, indent=2))
    return 0 if found.status == 0 and found.peak_bytes < BAR_BYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
