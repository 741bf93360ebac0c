"""Halve the file of an image classifier by storing its weights in 16 bits.

python examples/fp16.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import zoo

import mlc


def main() -> None:
    source = zoo.path("mobilenet_v2")
    with tempfile.TemporaryDirectory() as folder:
        result = mlc.compile(source, "simplify+fp16", output=Path(folder) / "mobilenet.mlc")
        result.show()
        print(f"\n{result.report['size']['source']} > {result.report['size']['artifact']} bytes")


if __name__ == "__main__":
    main()
