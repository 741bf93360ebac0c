"""What ONNX Runtime made of a quantized model, read from the graph it has optimized.

A Q/DQ model is a wish: the runtime fuses the pairs that it has 8-bit kernels for, and computes the rest from floats
that it rounds, widens and rounds again. Three things are worth knowing:

    rounded   values that are rounded to codes which nothing computes with: a Q/DQ pair that was not fused
    widened   constant codes that are widened on every run, because neither a kernel nor constant folding took them
    islands   connected ops on floats that stand between codes: every one costs a DequantizeLinear and a QuantizeLinear
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

_QUANTIZE, _WIDEN = "QuantizeLinear", "DequantizeLinear"
_KERNELS = frozenset(
    {
        "QGemm", "QAttention", "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM", "MatMulNBits", "GatherBlockQuantized",
    }
)  # fmt: skip
_SHAPES = ("Shape", "Size")
_FIRST = 4  # sites that are named


@dataclass(frozen=True, slots=True)
class Island:
    """Ops on floats between codes: the first one's name, and the kinds of all."""

    site: str
    kinds: tuple[str, ...]

    def __str__(self) -> str:
        counts = Counter(self.kinds)
        return f"{self.site} ({', '.join(k if n == 1 else f'{n} {k}' for k, n in sorted(counts.items()))})"


@dataclass(frozen=True)
class Fusion:
    """What the runtime computes from codes, and where it does not."""

    kernels: Mapping[str, int]
    rounded: tuple[str, ...] = ()
    widened: tuple[str, ...] = ()
    islands: tuple[Island, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Counts, and the first sites of each."""
        parts = {"rounded": self.rounded, "widened": self.widened, "float_islands": self.islands}
        found = {
            name: {"count": len(sites), "first": [str(s) for s in sites[:_FIRST]]} for name, sites in parts.items()
        }
        return {"kernels": dict(self.kernels), **found}


def read_fusion(optimized: Path) -> Fusion:
    """The facts of a graph that ONNX Runtime wrote after optimizing it. Its weights are not read."""
    main = onnx.load(str(optimized), load_external_data=False).graph
    parts = [_Graph(graph) for graph in _graphs(main)]
    kernels = Counter(node.op_type for part in parts for node in part.nodes if _is_kernel(node))
    return Fusion(
        dict(sorted(kernels.items())),
        tuple(name for part in parts for name in part.rounded()),
        tuple(name for part in parts for name in part.widened()),
        tuple(island for part in parts for island in part.islands()),
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _is_kernel(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("QLinear") or node.op_type in _KERNELS


class _Graph:
    """One graph as nodes with their neighbours."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.places = {id(node): place for place, node in enumerate(self.nodes)}
        self.outputs = {o.name for o in graph.output}
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.computed = set(self.maker) | {i.name for i in graph.input}
        self.sizes = self._sizes()

    def _sizes(self) -> set[str]:
        """Values that are computed from nothing but shapes (and constants)."""
        found: set[str] = set()
        for node in self.nodes:  # in order
            read = [name for name in node.input if name in self.computed]
            if node.op_type in _SHAPES or (read and all(name in found for name in read)):
                found.update(node.output)
        return found

    def rounded(self) -> Iterator[str]:
        for node in self.nodes:
            if node.op_type == _QUANTIZE and node.output[0] not in self.outputs:
                readers = self.readers.get(node.output[0], [])
                if readers and all(reader.op_type == _WIDEN for reader in readers):
                    yield _name(node, node.input[0])

    def widened(self) -> Iterator[str]:
        for node in self.nodes:
            if node.op_type == _WIDEN and node.input[0] not in self.computed:
                yield _name(node, node.input[0])

    def islands(self) -> Iterator[Island]:
        """Connected float ops that read a DequantizeLinear of computed codes and feed a QuantizeLinear."""
        seen: set[int] = set()
        for node in self.nodes:
            if self._is_float(node) and id(node) not in seen:
                group = self._connected(node, seen)
                if any(self._reads_codes(n) for n in group) and any(self._makes_codes(n) for n in group):
                    yield Island(_name(group[0], group[0].output[0]), tuple(n.op_type for n in group))

    def _connected(self, start: onnx.NodeProto, seen: set[int]) -> list[onnx.NodeProto]:
        group, open_nodes = [], [start]
        seen.add(id(start))
        while open_nodes:
            node = open_nodes.pop()
            group.append(node)
            for other in self._neighbours(node):
                if self._is_float(other) and id(other) not in seen:
                    seen.add(id(other))
                    open_nodes.append(other)
        return sorted(group, key=lambda node: self.places[id(node)])

    def _neighbours(self, node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        yield from (self.maker[name] for name in node.input if name in self.maker)
        for name in node.output:
            yield from self.readers.get(name, [])

    def _is_float(self, node: onnx.NodeProto) -> bool:
        return node.op_type not in (_QUANTIZE, _WIDEN) and not _is_kernel(node) and node.output[0] not in self.sizes

    def _reads_codes(self, node: onnx.NodeProto) -> bool:
        makers = (self.maker.get(name) for name in node.input)
        return any(m is not None and m.op_type == _WIDEN and m.input[0] in self.computed for m in makers)

    def _makes_codes(self, node: onnx.NodeProto) -> bool:
        return any(r.op_type == _QUANTIZE for name in node.output for r in self.readers.get(name, []))


def _name(node: onnx.NodeProto, value: str) -> str:
    return str(node.name or value)
