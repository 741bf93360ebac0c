"""Types of values: tensors with dimension expressions, tensors of unknown rank, sequences, optionals."""

from __future__ import annotations

from dataclasses import dataclass

from . import dims as _dims
from .dims import Dim, Sym
from .dtypes import DType

Shape = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor of known rank. `shape` holds one dimension per axis; an unknown one is a fresh symbol."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> Dim:
        return _dims.product(self.shape)

    @property
    def static_shape(self) -> tuple[int, ...] | None:
        """The shape if every dimension is an integer."""
        ints = tuple(d for d in self.shape if isinstance(d, int))
        return ints if len(ints) == len(self.shape) else None

    def __str__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(repr, self.shape))}]"


@dataclass(frozen=True, slots=True)
class UnrankedTensor:
    """A tensor whose rank is unknown (it happens below If branches of different rank and Loop outputs)."""

    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype.short}[*]"


@dataclass(frozen=True, slots=True)
class SequenceType:
    element: Type

    def __str__(self) -> str:
        return f"seq<{self.element}>"


@dataclass(frozen=True, slots=True)
class OptionalType:
    element: Type

    def __str__(self) -> str:
        return f"optional<{self.element}>"


Type = TensorType | UnrankedTensor | SequenceType | OptionalType


def tensor(dtype: DType, *shape: Dim | str) -> TensorType:
    """Shorthand: `tensor(DType.F32, "N", 3, 224, 224)`."""
    return TensorType(dtype, tuple(Sym(d) if isinstance(d, str) else d for d in shape))


def problem_of(type: object) -> str:
    """What is wrong with something that should be a type; empty if it is one."""
    if isinstance(type, SequenceType | OptionalType):
        return problem_of(type.element)
    if not isinstance(type, TensorType | UnrankedTensor):
        return f"no type but {type!r}"
    if not isinstance(type.dtype, DType):
        return f"element type {type.dtype!r}"
    if isinstance(type, TensorType):
        if not isinstance(type.shape, tuple):
            return f"a shape that is a {type.shape.__class__.__name__}"
        for size in type.shape:
            if not _dims.is_dim(size):
                return f"size {size!r} ({size.__class__.__name__}) in its shape"
            if isinstance(size, int) and size < 0:
                return f"size {size} in its shape"
    return ""


def unify(a: Type, b: Type) -> Type | None:
    """The more exact of two descriptions of one value; None if they contradict each other."""
    if isinstance(a, TensorType) and isinstance(b, TensorType):
        if a.dtype is not b.dtype or a.rank != b.rank:
            return None
        shape = tuple(_dims.unify(x, y) for x, y in zip(a.shape, b.shape))
        known = tuple(d for d in shape if d is not None)
        return TensorType(a.dtype, known) if len(known) == len(shape) else None
    if isinstance(a, TensorType | UnrankedTensor) and isinstance(b, TensorType | UnrankedTensor):
        if a.dtype is not b.dtype:
            return None
        return a if isinstance(a, TensorType) else b
    if isinstance(a, SequenceType) and isinstance(b, SequenceType):
        inner = unify(a.element, b.element)
        return None if inner is None else SequenceType(inner)
    if isinstance(a, OptionalType) and isinstance(b, OptionalType):
        inner = unify(a.element, b.element)
        return None if inner is None else OptionalType(inner)
    return None


def compatible(a: Type, b: Type) -> bool:
    """Whether two types can describe one value: no two different integers, dtypes or ranks."""
    return unify(a, b) is not None


def join(a: Type, b: Type) -> Type | None:
    """The most exact type that covers both (what an If yields); None if dtypes or kinds differ."""
    if isinstance(a, TensorType) and isinstance(b, TensorType) and a.dtype is b.dtype and a.rank == b.rank:
        return TensorType(a.dtype, tuple(x if x == y else _dims.fresh() for x, y in zip(a.shape, b.shape)))
    if isinstance(a, TensorType | UnrankedTensor) and isinstance(b, TensorType | UnrankedTensor):
        return UnrankedTensor(a.dtype) if a.dtype is b.dtype else None
    if isinstance(a, SequenceType) and isinstance(b, SequenceType):
        inner = join(a.element, b.element)
        return None if inner is None else SequenceType(inner)
    if isinstance(a, OptionalType) and isinstance(b, OptionalType):
        inner = join(a.element, b.element)
        return None if inner is None else OptionalType(inner)
    return None
