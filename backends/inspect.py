"""Facts about a module for people and scripts: what `mlc inspect` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..ir.core import Module, Op
from ..ir.cost import cost_of, module_cost
from ..ir.dims import evaluate
from ..ir.types import UnrankedTensor
from .probe import check_dims
from .report import count, size

if TYPE_CHECKING:
    from rich.console import Console


def facts(module: Module, dims: Mapping[str, int]) -> dict[str, Any]:
    """Inputs, outputs, operator counts, parameters, weight bytes and MACs, as plain data."""
    check_dims(module, dims)
    cost = module_cost(module)
    macs = evaluate(cost.macs, dims)
    ops = list(module.walk())
    dtypes: Counter[str] = Counter()
    for value in module.constants.values():
        assert value.constant is not None
        dtypes[value.constant.dtype.short] += value.constant.nbytes
    return {
        "format": 1,
        "opset": module.opset,
        "domains": dict(module.opsets),
        "inputs": {v.name: str(v.type) for v in module.graph.inputs},
        "outputs": {name: str(v.type) for name, v in zip(module.graph.output_names, module.graph.outputs)},
        "nodes": len(ops),
        "operators": dict(Counter(op.kind for op in ops).most_common()),
        "params": cost.parameters,
        "weight_bytes": cost.weight_bytes,
        "weight_bytes_by_type": dict(dtypes.most_common()),
        "macs": macs if macs is not None else str(cost.macs),
        "unranked": [v.name for v in module.values() if isinstance(v.type, UnrankedTensor)],
        "metadata": dict(module.meta.properties),
        "heaviest": _heaviest(ops, dims),
    }


def _heaviest(ops: list[Op], dims: Mapping[str, int], shown: int = 10) -> list[dict[str, Any]]:
    """The ops with most MACs (known ones), with their share of weights."""
    rows = [(evaluate(cost_of(op).macs, dims), op) for op in ops]
    known = sorted(((m, op) for m, op in rows if m), key=lambda r: -r[0])
    return [{"name": op.name, "kind": op.kind, "macs": m, "type": str(op.results[0].type)} for m, op in known[:shown]]


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print facts as tables."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for title, values in (("inputs", found["inputs"]), ("outputs", found["outputs"])):
        for name, kind in values.items():
            table.add_row(title, Text(f"{name}: {kind}"))
            title = ""
    table.add_row("opset", f"{found['opset']} {found['domains'] or ''}")
    table.add_row(
        "nodes", f"{found['nodes']}: " + ", ".join(f"{k} {n}" for k, n in list(found["operators"].items())[:12])
    )
    table.add_row("parameters", f"{count(found['params'])} in {size(found['weight_bytes'])}")
    table.add_row("by type", ", ".join(f"{k} {size(n)}" for k, n in found["weight_bytes_by_type"].items()))
    symbolic = " (sizes: --dims)" if isinstance(found["macs"], str) else ""
    table.add_row("MACs", f"{count(found['macs'])}{symbolic}")
    if found["unranked"]:
        table.add_row("unranked", f"{len(found['unranked'])} values have no known rank")
    console.print(table)
    if not found["heaviest"]:
        return
    heavy = Table(title="most work", box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in ("op", "kind", "MACs", "result"):
        heavy.add_column(column)
    for row in found["heaviest"]:
        heavy.add_row(Text(row["name"]), row["kind"], count(row["macs"]), Text(row["type"]))
    console.print(heavy)
