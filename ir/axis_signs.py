"""Unknown exponents and the equations between them: which values a transformation of a class reaches, and which way.

Every node stands for the exponent of T with which an axis is transformed: 1 for T, -1 for its inverse (transposed), 0
for not at all. Equations: a = b, a = -b, a = 0, and c = a + b (a product of two). `solve` finds a solution with
exponents in {-1, 0, 1} that leaves out as little as the zeros force; products that stay open scale one factor only.
`basis` gives all real solutions instead: what may be scaled independently of what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from .axis_types import Atom
from .core import Value

Node = tuple[Value, int, Atom]
Combination = dict[Node, Fraction]  # of representatives


@dataclass(slots=True)
class Exponents:
    """`signed` tells whether -1 differs from 1: not for transformations that are their own inverse transposed."""

    signed: bool = True
    _parent: dict[Node, tuple[Node, int]] = field(default_factory=dict)
    _zero: set[Node] = field(default_factory=set)
    _products: list[tuple[Node, Node, Node]] = field(default_factory=list)

    def same(self, a: Node, b: Node, sign: int = 1) -> None:
        """a = sign * b."""
        (ra, sa), (rb, sb) = self._root(a), self._root(b)
        sign = sign * sa * sb if self.signed else 1
        if ra == rb:
            if sign < 0:
                self._zero.add(ra)
            return
        self._parent[ra] = (rb, sign)
        if ra in self._zero:
            self._zero.discard(ra)
            self._zero.add(rb)

    def opposite(self, a: Node, b: Node) -> None:
        self.same(a, b, -1)

    def zero(self, a: Node) -> None:
        self._zero.add(self._root(a)[0])

    def product(self, c: Node, a: Node, b: Node) -> None:
        """c = a + b; where nothing else decides, b stays as it is."""
        for node in (a, b, c):
            self._root(node)
        self._products.append((c, a, b))

    def solve(self) -> dict[Node, int]:
        """The exponent of every node; the first node of each free part has 1."""
        while self._products:
            left = [p for p in self._products if not self._settle(*p)]
            if len(left) == len(self._products):
                self.zero(left[0][2])
            self._products = left
        lead: dict[Node, int] = {}
        found: dict[Node, int] = {}
        for node in list(self._parent):
            root, sign = self._root(node)
            found[node] = 0 if root in self._zero else sign * lead.setdefault(root, sign)
        return found

    def basis(self) -> list[dict[Node, float]]:
        """Independent solutions that span all real ones: for each the exponents of the nodes that it moves.

        Products that no zero decides give one of their three up, a factor that is a constant if there is one: the
        weights between two scales take the quotient (three layers around a depthwise convolution).
        """
        left = len(self._products) + 1
        while len(self._products) < left:
            left = len(self._products)
            self._products = [p for p in self._products if not self._settle(*p)]
        solved: dict[Node, Combination] = {}
        for c, a, b in self._products:
            self._eliminate(solved, (c, a, b))
        found: dict[Node, dict[Node, float]] = {}
        for node in list(self._parent):
            for lead, exponent in self._expressed(node, solved).items():
                found.setdefault(lead, {})[node] = float(exponent)
        return list(found.values())

    def _eliminate(self, solved: dict[Node, Combination], product: tuple[Node, Node, Node]) -> None:
        """Use c - a - b = 0 to express one representative by the others, here and wherever it occurs."""
        c, a, b = product
        left: Combination = {}
        for node, sign in ((c, 1), (a, -1), (b, -1)):
            _add(left, self._expressed(node, solved), Fraction(sign))
        if not left:
            return
        lead = next((r for r in (self._root(n)[0] for n in (b, c, a)) if r in left), next(iter(left)))
        share = left.pop(lead)
        solved[lead] = {node: -x / share for node, x in left.items()}
        for other in solved.values():
            if lead in other:
                _add(other, solved[lead], other.pop(lead))

    def _expressed(self, node: Node, solved: dict[Node, Combination]) -> Combination:
        root, sign = self._root(node)
        if root in self._zero:
            return {}
        return {n: sign * x for n, x in solved.get(root, {root: Fraction(1)}).items()}

    def _settle(self, c: Node, a: Node, b: Node) -> bool:
        """Use a product once one of its three is known to be zero."""
        if self.is_zero(a):
            self.same(c, b)
        elif self.is_zero(b):
            self.same(c, a)
        elif self.is_zero(c):
            self.opposite(a, b)
        else:
            return False
        return True

    def is_zero(self, node: Node) -> bool:
        return self._root(node)[0] in self._zero

    def _root(self, node: Node) -> tuple[Node, int]:
        """The representative of a node and its sign against it, with path compression."""
        if node not in self._parent:
            self._parent[node] = (node, 1)
        path, sign = [], 1
        while (above := self._parent[node])[0] != node:
            path.append((node, above[1]))
            node = above[0]
        for below, step in reversed(path):
            sign *= step
            self._parent[below] = (node, sign)
        return node, sign


def _add(total: Combination, more: Combination, times: Fraction) -> None:
    for node, x in more.items():
        total[node] = total.get(node, Fraction(0)) + times * x
        if not total[node]:
            del total[node]
