"""What a ratio makes of every real model: bytes, MACs and time, as planned and as emitted; and what is left alone, why.

Every model is compiled at 30 and 50 %. The emitted file is read again: its parameters, weight bytes and MACs must be
those of the plan, it must run, and its outputs must have the shapes of the source's. Time: one thread, CPU time,
interleaved with the source on the inputs that the catalogue of models gives, 95 % interval.

python benchmarks/prune_table.py [NAME ...] [--write docs/passes/prune.md]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import markdown
import numpy as np
import zoo

import mlc
from mlc.backends.measure import Timing, interleaved
from mlc.backends.ort import Session
from mlc.ir import dims
from mlc.ir.axes import analyse
from mlc.ir.core import Module
from mlc.ir.cost import module_cost
from mlc.ir.types import TensorType
from mlc.passes.base import Context, SkipCode
from mlc.passes.prune.groups import find_groups
from mlc.passes.prune.plans import amount

RATIOS = ("30%", "50%")
#: Beside the models that `make test` runs.
LARGE = ("efficientnet_lite0", "minilm", "smollm2_135m", "ddddocr_det")
SIZES = ("model", *(f"{what} at {ratio}" for ratio in RATIOS for what in ("bytes", "MACs", "speed")))
ALONE = ("model", "prunable groups", "redundant units", "left alone")

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Pruned:
    """What one compilation left: shares of the source, and the time against it."""

    bytes: float
    macs: float | None  # None where a size is only known at run time
    timing: Timing

    def cells(self) -> list[str]:
        t = self.timing
        macs = "-" if self.macs is None else f"{self.macs:.0%}"
        return [f"{self.bytes:.0%}", macs, f"{t.speedup:.2f} [{t.low:.2f}, {t.high:.2f}]"]


def pruned(source: Path, ratio: str, feeds: Feeds) -> Pruned:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.mlc"
        report = mlc.compile(source, f"prune({ratio})", output=out, check="none").report
        whole, emitted = mlc.load(source), mlc.load(out)
        check_plan(json.loads((out / "plan.json").read_text())["steps"][0], emitted)
        before, after = Session(source), Session(out / "model.onnx")
        check_outputs(before.run(feeds), after.run(feeds))
        spent, left = macs(whole, feeds), macs(emitted, feeds)
        share = left / spent if spent and left is not None else None
        return Pruned(report["size"]["ratio"], share, interleaved(before, after, feeds))


def check_plan(plan: Mapping[str, Any], emitted: Module) -> None:
    """The emitted file is what the plan said. Errors: ValueError with both."""
    cost = module_cost(emitted)
    found = cost.parameters, cost.weight_bytes, terms(amount(cost.macs))
    planned = plan["parameters"][1], plan["weight_bytes"][1], terms(plan["macs"][1])
    if found != planned:
        raise ValueError(f"planned {planned}, emitted {found}")


def terms(macs: str) -> list[str]:
    """The terms of a sum. Sizes that nobody knows have no names, so their order is not that of another run."""
    return sorted(macs.split(" + "))


def check_outputs(whole: Feeds, small: Feeds) -> None:
    wanted, got = ({name: np.shape(v) for name, v in outputs.items()} for outputs in (whole, small))
    if wanted != got or not all(np.isfinite(v).all() for v in small.values()):
        raise ValueError(f"outputs {got}, or not finite, where the source has {wanted}")


def macs(module: Module, feeds: Feeds) -> int | None:
    """The MACs of one run on the feeds; None where a size is only known at run time."""
    binding: dict[str, int] = {}
    for value in module.graph.inputs:
        if isinstance(value.type, TensorType) and value.name in feeds:
            sizes = zip(value.type.shape, feeds[value.name].shape)
            binding.update({d.name: n for d, n in sizes if isinstance(d, dims.Sym)})
    return dims.evaluate(module_cost(module).macs, binding)


def left_alone(name: str, module: Module) -> str:
    """How many groups may lose units, how many units are redundant, and the other classes of weights by reason.

    Kernels, the interface and gates are apart: every model has them.
    """
    axes = analyse(module)
    groups, skipped = find_groups(module, axes, Context().scope)
    classes = {c.name: c for c in axes.classes}
    reasons: Counter[str] = Counter()
    for skip in skipped:
        c = classes[skip.site.rpartition(":")[2]]
        reasons[c.pin.code if c.pin else next(iter(c.marks)) if skip.code is SkipCode.HURTS else skip.code.value] += 1
    exact = mlc.passes.Prune(multiple=1)(module).history[-1].plan
    redundant = sum(r.before - r.after for round_ in exact.rounds for r in round_.removals)
    listed = ", ".join(f"{code} {n}" for code, n in reasons.most_common())
    return markdown.row([name, len(groups), redundant, listed or "-"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--write", type=Path, help="a page with the markers <!-- pruned --> and <!-- left alone -->")
    chosen = parser.parse_args()
    names = chosen.names or [*(n for n, e in zoo.entries().items() if e.tier == "real"), *LARGE]
    sizes, alone = [markdown.head(*SIZES)], [markdown.head(*ALONE)]
    for name in names:
        path = zoo.path(name)
        feeds = zoo.feeds(path, 0, name=name)
        alone.append(left_alone(name, mlc.load(path)))
        sizes.append(markdown.row([name, *(cell for ratio in RATIOS for cell in pruned(path, ratio, feeds).cells())]))
        print(sizes[-1], alone[-1], flush=True)
    if chosen.write is not None:
        markdown.write(chosen.write, "pruned", sizes)
        markdown.write(chosen.write, "left alone", alone)


if __name__ == "__main__":
    main()
