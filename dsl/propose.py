"""A first recipe file for a model: what `mlc init` writes. It says what is in the model, and runs as it stands."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..backends.targets import OrtTarget
from ..ir.core import Module, Op
from ..ir.ops.opdef import Trait
from ..ir.ops.table import lookup
from ..ir.types import TensorType
from . import syntax as ast
from .format import formatted
from .print import expression
from .products import Products, products

_LEAST = 1024  # elements of a weight that is worth its scales
_SPARE = 0.12  # of the source's size: what scales and weights that stay as they are may take
_MEAN, _STD = ("0.485", "0.456", "0.406"), ("0.229", "0.224", "0.225")  # what most image models were trained with
_PRODUCTS = ("MatMul", "Gemm", "Gather")
_QUANTIZED = ("The model is quantized already. To choose other bits: dequantize + int4, or dequantize + int8.",)
_STRUCTURE = ("There is little in it but structure: fewer operators is what is left.",)
_CONVOLUTIONS = (
    "Most weights stand in convolutions and the like: 8 bits. With samples they compute in 8 bits, too, and faster.",
)
_TABLES = ("Most weights stand in tables that are looked up: 4 bits cost no time there.",)
_STORED = "For a smaller file that computes in floats as before: recipe small = simplify + int8(mode=stored)"


@dataclass(frozen=True)
class _Weights:
    """Bytes of floats in constants, by the kind of their reader, and what of them quantization reaches."""

    nbytes: Counter[str]
    quantized: bool

    @property
    def total(self) -> int:
        return sum(self.nbytes.values())

    def share(self, kinds: tuple[str, ...]) -> float:
        return sum(self.nbytes[kind] for kind in kinds) / max(1, self.total)


@dataclass(frozen=True)
class _Proposal:
    why: tuple[str, ...]
    steps: str
    size: float  # of the source, at most
    with_data: str  # the steps to write once there are samples; empty: the same
    others: tuple[str, ...] = ()  # lines about other wishes


def propose(module: Module, model: str, file_bytes: int) -> str:
    """The text of a recipe file for a model whose path is `model`, seen from the file."""
    weights, target = _weights(module), OrtTarget()
    proposal = _proposal(weights, file_bytes, products(module, target))
    lines = [
        f"# A recipe for {model}, made by mlc init: change it as you like.",
        "#   mlc plan MODEL -r THIS_FILE   shows what it would do",
        "#   mlc run THIS_FILE             does it",
        "#",
        *(f"# input   {_one_line(v.name)}: {_one_line(str(v.type))}" for v in module.graph.inputs),
        *(f"# output  {_one_line(v.name)}: {_one_line(str(v.type))}" for v in module.graph.outputs),
        f"# weights {_mib(weights.total)} of floats{_readers(weights)}",
        "",
        "# Samples tell which numbers matter. Fill this in, and take the '#' away:",
        f"# data samples = npz({expression(ast.String('samples.npz'))}, take=100)  # its keys: {_keys(module)}",
        *_image(module),
        "# Data with labels make accuracy a bound: acc_drop <= 1pp",
        '# data judged = npz("judged.npz", labels="label")',
        "",
        f"target cpu = {target}",
        "",
        *(f"# {line}" for line in proposal.why),
        *([f"# With samples: recipe small = {proposal.with_data}"] if proposal.with_data else []),
        *(f"# {line}" for line in proposal.others),
        "# More goals, once the samples are real: cosine >= 0.99, latency <= 0.8x",
        f"recipe small = {proposal.steps} where size <= {proposal.size:g}x",
        "",
        f"compile {expression(ast.String(model))} with small to cpu",
    ]
    return formatted("\n".join(lines), "a proposal")


def _proposal(weights: _Weights, file_bytes: int, found: Products | None) -> _Proposal:
    reached = weights.total / max(1, file_bytes)  # the rest of the file stays
    if weights.quantized:
        return _Proposal(_QUANTIZED, "simplify", 1.2, "")
    if reached < 0.5:
        return _Proposal(_STRUCTURE, "simplify", 1.2, "")
    if weights.share(_PRODUCTS) > 0.5:
        return _of_products(weights, reached, found)
    return _Proposal(_CONVOLUTIONS, "simplify + int8", _goal(reached, 8), "simplify + prune(25%) + int8", (_STORED,))


def _of_products(weights: _Weights, reached: float, found: Products | None) -> _Proposal:
    """4 bits where they are as fast as 8, which is where few rows meet many weights; else 8."""
    share = weights.share(_PRODUCTS)
    small = _goal(reached, 4 * share + 8 * (1 - share))
    with_data = "simplify + smooth + int8"
    if found is None:
        return _Proposal(_TABLES, "simplify + int4", small, with_data, (_STORED,))
    why = (
        f"Most weights stand in matrix products, with {_one_line(found.rows)}.",
        f"By {found.costs} costs, 8 bits take {found.int8:.2f}x the time of floats there, 4 bits {found.int4:.2f}x:",
    )
    if found.int4 <= found.int8:
        return _Proposal((*why, "so 4 bits, and 8 for the others."), "simplify + int4", small, with_data, (_STORED,))
    smallest = f"For the smallest file: recipe small = simplify + int4 where size <= {small:g}x"
    others = smallest, _STORED
    return _Proposal((*why, "so 8 bits."), "simplify + int8", _goal(reached, 8), with_data, others)


def _goal(reached: float, bits: float) -> float:
    """A bound on the size with something to spare, in steps of 5 %."""
    return min(1.2, math.ceil((1 - reached * (1 - bits / 32) + _SPARE) * 20) / 20)


def _weights(module: Module) -> _Weights:
    found: Counter[str] = Counter()
    seen: set[str] = set()
    quantized = False
    for op in module.walk():
        quantized = quantized or lookup(op.kind).has(Trait.QUANTIZED)
        for name, nbytes in _floats(op):
            if name not in seen:
                found[op.kind] += nbytes
            seen.add(name)
    return _Weights(found, quantized)


def _floats(op: Op) -> Iterator[tuple[str, int]]:
    for value in op.operands:
        constant = value.constant if value is not None else None
        if value is not None and constant is not None and constant.dtype.is_float and constant.elements >= _LEAST:
            yield value.name, constant.nbytes


def _readers(weights: _Weights) -> str:
    shown = ", ".join(f"{kind} {nbytes / weights.total:.0%}" for kind, nbytes in weights.nbytes.most_common(4))
    return f": {shown}" if shown else ""


def _keys(module: Module) -> str:
    return ", ".join(_one_line(v.name) for v in module.graph.inputs) or "none"


def _image(module: Module) -> Iterator[str]:
    """The line for a folder of pictures, if an input looks like one."""
    for value in module.graph.inputs:
        shape = value.type.shape if isinstance(value.type, TensorType) else ()
        if len(shape) == 4 and shape[1] in (1, 3):
            size = shape[2] if isinstance(shape[2], int) else 224
            mean, std = (f"[{', '.join(v[: shape[1]])}]" for v in (_MEAN, _STD))
            yield f'# data samples = images("photos", size={size}, mean={mean}, std={std})  # or a folder of pictures'
            return


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.2f} MiB"
