"""Compile a real OCR model with prune+int4 and let it read a line before and after.

python examples/demo.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import ocr
import zoo

import mlc

LINE = "The same line, before and after 2026"


def main() -> int:
    source = zoo.path("ppocrv4_rec")
    print(f"model: PP-OCRv4 recognition, {source.stat().st_size / 2**20:.1f} MiB")
    before = ocr.read(source, [LINE])[0]
    print(f"before: {before!r}\n")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ocr.mlc"
        result = mlc.compile(source, "prune+int4", output=out)
        result.show()
        after = ocr.read(out / "model.onnx", [LINE])[0]
    print(f"\nafter:  {after!r}")
    return 0 if after == before else 1


if __name__ == "__main__":
    sys.exit(main())
