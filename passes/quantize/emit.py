"""Putting stored forms of a weight into a graph: one op for every graph that reads it, constants once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...ir.core import Graph, Op, Value
from ...ir.dtypes import DType
from ...ir.quant_blocks import Quantized
from ...ir.rewrite import Rewriter
from ...ir.types import TensorType


def readers_by_graph(value: Value, but: Sequence[Op] = ()) -> Iterator[tuple[Graph, list[Op], Op | Graph]]:
    """(graph, its ops that read the value, where to insert in front of them); without the ops in `but`.

    Each graph gets an op of its own: runtimes do not look for patterns across the border of a body.
    """
    found: dict[Graph, list[Op]] = {}
    for op in value.users:
        if op not in but and op.parent is not None:
            found.setdefault(op.parent, []).append(op)
    for graph, readers in found.items():
        wanted = set(readers)
        yield graph, readers, next((op for op in graph.ops if op in wanted), graph)


class CodeEmitter:
    """Replaces a constant by codes behind a DequantizeLinear, in standard ONNX (opset 21 for blocks).

    `block` 0: one scale per index of `axis`.
    """

    def __init__(
        self, rw: Rewriter, base: str, made: Quantized, axis: int, block: int, meta: Mapping[str, str]
    ) -> None:
        self._rw, self._base, self._meta = rw, base, meta
        self._attrs = {"axis": axis, "block_size": block} if block else {"axis": axis}
        self._codes = rw.constant(made.codes, f"{base}_quantized")
        self._scale = rw.constant(made.scale, f"{base}_scale")
        self._zero = rw.constant(made.zero, f"{base}_zero_point") if made.zero is not None else None
        self._shape, self._scale_shape = made.codes.shape, made.scale.shape

    def replace(self, root: Value, but: Sequence[Op] = ()) -> None:
        """Let every reader of `root` (the constant, or a Cast of it) but those in `but` read the codes."""
        assert isinstance(root.type, TensorType)
        for _, readers, before in readers_by_graph(root, but):
            self._rw.replace_uses(root, self._dequantize(root.type.dtype, before), only=readers)

    def _dequantize(self, dtype: DType, before: Op | Graph) -> Value:
        operands = [self._codes, self._widened_scale(dtype, before)]
        op = self._rw.insert(
            "DequantizeLinear",
            operands if self._zero is None else [*operands, self._zero],
            self._attrs,
            before=before,
            names=[f"{self._base}_dq"],
            results=[TensorType(dtype, self._shape)],
        )
        op.meta.update(self._meta)
        return op.result

    def _widened_scale(self, dtype: DType, before: Op | Graph) -> Value:
        """The result of DequantizeLinear has the type of its scale: narrower stored scales get a Cast."""
        wanted = TensorType(dtype, self._scale_shape)
        if self._scale.type == wanted:
            return self._scale
        name = f"{self._base}_scale_{dtype.short}"
        made = self._rw.insert(
            "Cast", [self._scale], {"to": dtype.onnx}, before=before, names=[name], results=[wanted]
        )  # fmt: skip
        return made.result
