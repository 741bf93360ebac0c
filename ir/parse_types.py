"""Reads types and dimension expressions of the text form."""

from __future__ import annotations

from . import dims
from .dims import Dim, Sym
from .dtypes import BY_SHORT, DType
from .tokens import Scanner
from .types import OptionalType, SequenceType, TensorType, Type, UnrankedTensor

_DIVISIONS = {"floordiv": dims.floordiv, "ceildiv": dims.ceildiv}
_TYPE_WORDS = frozenset(("seq", "optional", *BY_SHORT))


class TypeParser:
    """Parses types from a scanner. Numbered unknowns (`?0`) become fresh symbols, the same one for a number."""

    def __init__(self, scanner: Scanner) -> None:
        self._scan = scanner
        self._known: dict[str, Type] = {}
        self._unknowns: list[Sym] = []

    def begins(self) -> bool:
        """Whether a type comes next."""
        scan = self._scan
        return scan.kind == "flat" or (scan.kind == "word" and scan.text in _TYPE_WORDS)

    def type(self) -> Type:
        scan = self._scan
        if scan.kind == "flat":
            found = self._known.get(scan.text)
            if found is not None:
                scan.step()
                return found
            spelled = scan.text
            found = self._known[spelled] = self._tensor(spelled[: spelled.index("[")])
            return found
        if scan.kind != "word":
            scan.fail("expected a type", help="for example f32[N, 3], i64[*] or seq<f32[*]>")
        if scan.text in ("seq", "optional") and scan.kind == "word":
            wrap = SequenceType if scan.step() == "seq" else OptionalType
            scan.take("<")
            element = self.type()
            scan.take(">")
            return wrap(element)
        return self._tensor(scan.text)

    def _tensor(self, spelled: str) -> TensorType | UnrankedTensor:
        """A tensor type whose element type is spelled by the beginning of the current token."""
        scan = self._scan
        dtype = BY_SHORT.get(spelled)
        if dtype is None:
            raise scan.error(
                f"unknown element type {spelled!r}",
                scan.start,
                scan.start + len(spelled),
                help=f"one of {', '.join(BY_SHORT)}",
            )
        scan.jump(scan.start + len(spelled))
        return self._shape(dtype)

    def _shape(self, dtype: DType) -> TensorType | UnrankedTensor:
        scan = self._scan
        if not scan.is_mark("["):
            scan.fail("expected '[' and a shape")
        if scan.source.startswith("[*]", scan.start):
            scan.jump(scan.start + 3)
            return UnrankedTensor(dtype)
        return TensorType(dtype, self.elements())

    def elements(self) -> tuple[Dim, ...]:
        """A list of dimension expressions in brackets."""
        scan = self._scan
        scan.take("[")
        found: list[Dim] = []
        while not scan.accept("]"):
            if found:
                scan.take(",")
            found.append(self.dim())
        return tuple(found)

    def dim(self) -> Dim:
        total = self._term()
        while self._scan.accept("+"):
            total = dims.add(total, self._term())
        return total

    def _term(self) -> Dim:
        total = self._factor()
        while self._scan.accept("*"):
            total = dims.mul(total, self._factor())
        return total

    def _factor(self) -> Dim:
        scan = self._scan
        if scan.kind == "number":
            return scan.integer()
        if scan.kind == "string":
            return Sym(scan.string())
        if scan.kind == "unknown":
            return self._unknown()
        if scan.kind != "word":
            scan.fail("expected a size", help="an integer, a name, ?0, or an expression of them")
        name = scan.step()
        divide = _DIVISIONS.get(name)
        if divide is None or not scan.is_mark("("):
            return Sym(name)
        start = scan.start
        scan.take("(")
        numerator = self.dim()
        scan.take(",")
        denominator = self.dim()
        if denominator == 0:
            raise scan.error("a size is divided by zero", start, scan.end)
        scan.take(")")
        return divide(numerator, denominator)

    def _unknown(self) -> Sym:
        """The symbol of a number. Lower numbers are older symbols, so that printing numbers them the same again."""
        scan = self._scan
        number = int(scan.text[1:])
        if number > len(scan.source):
            scan.fail("unknown sizes are numbered from 0 on")
        while len(self._unknowns) <= number:
            found = dims.fresh()
            assert isinstance(found, Sym)
            self._unknowns.append(found)
        scan.step()
        return self._unknowns[number]
