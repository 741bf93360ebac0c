"""Prune a model from Python: which axes belong together, what would go, what it saves.

python examples/prune.py model.onnx small.onnx [samples.npz]
python examples/prune.py                      (MobileNetV2 from the zoo)

With samples, units are chosen by what their consumers lose, and what is left is fitted to the whole model.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import zoo

import mlc
from mlc.ir.axes import analyse


def main(source: Path, target: Path, samples: Path | None = None) -> None:
    module = mlc.load(source)

    # Which positions may be exchanged, or removed, together: derived from the graph.
    axes = analyse(module)
    print(f"{len(axes.free)} free classes, {len(axes.pinned)} pinned")
    widest = max(axes.free, key=lambda c: len(c.sites))
    print(f"the most connected one has {widest.size} units and occurs in {len(widest.sites)} places, such as")
    for site in widest.sites[:3]:
        print(f"    axis {site.axis} of {site.constant} as {site.path}")

    # Without a ratio only units go that change no output.
    exact = mlc.passes.Prune()(module)
    plan = exact.history[-1].plan
    print(f"exactly redundant: {sum(r.before - r.after for one in plan.rounds for r in one.removals)} units")

    # A plan reads and decides; nothing has changed yet.
    step = mlc.passes.Prune(ratio=0.5)
    plan = step.plan(module, mlc.Context())
    for group in plan.groups[:5]:
        print(f"{group.site[:60]:60} {group.before:>5} > {group.after:>5} units")
    print(f"... {len(plan.groups)} groups in all, {len(plan.skipped)} skipped")
    for skipped in plan.skipped[:3]:
        print(f"    {skipped.site}: {skipped.why}")
    print(f"parameters {plan.parameters[0]} > {plan.parameters[1]}")

    result = mlc.compile(module, [step], data=samples)
    mlc.save(result.module, target, overwrite=True)
    fitted = [d for d in result.module.history[-1].done if d.after.endswith("fitted")]
    for done in fitted[:3]:
        print(f"    {done.site}: {done.before} > {done.after}")

    from mlc.backends.ort import Session

    feeds = zoo.feeds(source, seed=0)
    shapes = [{k: v.shape for k, v in Session(path).run(feeds).items()} for path in (source, target)]
    print(f"outputs before {shapes[0]}, after {shapes[1]}")
    if samples is None:
        print("without samples nothing was fitted: accuracy is gone, this shows sizes only")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(*map(Path, sys.argv[1:4]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(zoo.path("mobilenet_v2"), Path(folder) / "small.onnx")
