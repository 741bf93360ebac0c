"""Types of contractions: MatMul and its relatives, Gemm, Einsum."""

from __future__ import annotations

from ..core import Op
from ..dims import Dim
from ..dtypes import DType
from ..types import Shape, TensorType
from .access import attr_int, attr_text, broken, dtype, same, shape, shape_or_unknown
from .opdef import Inferred
from .shape_elementwise import broadcast_dims, broadcast_shapes


def matmul(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(dtype(op), multiplied(op, shape(op), shape(op, 1))))]


def matmul_integer(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(DType.I32, multiplied(op, shape(op), shape(op, 1))))]


def qlinear_matmul(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(dtype(op, 7), multiplied(op, shape(op), shape(op, 3))))]


def multiplied(op: Op, a: Shape, b: Shape) -> Shape:
    """numpy.matmul: batch axes broadcast; a vector loses the axis it was given."""
    if not a or not b:
        raise broken(op, "a factor is a scalar")
    left, right = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
    same(op, left[-1], right[-2], "the inner sizes")
    batch = broadcast_shapes(op, (left[:-2], right[:-2]))
    rows = left[-2:-1] if len(a) > 1 else ()
    columns = right[-1:] if len(b) > 1 else ()
    return (*batch, *rows, *columns)


def gemm(op: Op) -> list[Inferred]:
    return [Inferred(TensorType(dtype(op), gemm_shape(op, shape_or_unknown(op, 0, 2), shape(op, 1))))]


def gemm_shape(op: Op, a: Shape, b: Shape) -> Shape:
    if len(a) != 2 or len(b) != 2:
        raise broken(op, f"the factors have ranks {len(a)} and {len(b)}, not 2")
    m, k = reversed(a) if attr_int(op, "transA") else a
    inner, n = reversed(b) if attr_int(op, "transB") else b
    same(op, k, inner, "the inner sizes")
    return m, n


def einsum(op: Op) -> list[Inferred]:
    inputs, output = einsum_terms(op)
    sizes = einsum_sizes(op, inputs)
    return [Inferred(TensorType(dtype(op), tuple(sizes[letter] for letter in output)))]


def einsum_terms(op: Op) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The index letters of every input and of the output; the axes under `...` become `.0`, `.1`, from the right."""
    equation = attr_text(op, "equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(op.operands):
        raise broken(op, f"equation {equation!r} has {len(terms)} terms for {len(op.operands)} inputs")
    inputs = [_letters(op, term, len(shape(op, slot))) for slot, term in enumerate(terms)]
    hidden = max((sum(x.startswith(".") for x in term) for term in inputs), default=0)
    if arrow:
        return inputs, _letters(op, right, len(right.replace("...", "")) + (hidden if "..." in right else 0))
    counts: dict[str, int] = {}
    for term in inputs:
        for letter in term:
            counts[letter] = counts.get(letter, 0) + 1
    once = sorted(x for x, n in counts.items() if n == 1 and not x.startswith("."))
    return inputs, (*(f".{i}" for i in reversed(range(hidden))), *once)


def _letters(op: Op, term: str, rank: int) -> tuple[str, ...]:
    head, dots, tail = term.partition("...")
    hidden = rank - len(head) - len(tail)
    if hidden < 0 or (hidden and not dots):
        raise broken(op, f"term {term!r} does not fit an input of rank {rank}")
    return (*head, *(f".{i}" for i in reversed(range(hidden))), *tail)


def einsum_sizes(op: Op, inputs: list[tuple[str, ...]]) -> dict[str, Dim]:
    sizes: dict[str, Dim] = {}
    for slot, term in enumerate(inputs):
        for letter, size in zip(term, shape(op, slot)):
            sizes[letter] = broadcast_dims(op, (sizes.get(letter, 1), size))
    return sizes


def det(op: Op) -> list[Inferred]:
    source = shape(op)
    if len(source) < 2:
        raise broken(op, f"the input has rank {len(source)}")
    return [Inferred(TensorType(dtype(op), source[:-2]))]
