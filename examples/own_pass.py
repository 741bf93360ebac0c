"""A pass of one's own in a recipe file: layers of a sentence encoder are left out (own_pass/layers.py, recipe.mlc).

python examples/own_pass.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import zoo

import mlc


def main() -> None:
    source = zoo.path("minilm")
    recipes = Path(__file__).resolve().parent / "own_pass" / "recipe.mlc"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("shallow", "careful([0, 1, 2, 4, 5])"):
            out = Path(folder) / f"{name[:7]}.mlc"
            result = mlc.compile(source, f"{recipes}:{name}", output=out)
            result.show()
            again = mlc.compile(source, str(out / "recipe.mlc"), check="none")  # what is stored runs again
            assert again.report["artifact"]["sha256"] == result.report["artifact"]["sha256"]


if __name__ == "__main__":
    main()
