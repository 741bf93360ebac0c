"""The equations of a module under one group: every op, every class, every axis (rules: axis_actions.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from .axis_actions import BEHAVIOUR, DIAGONAL, INVARIANT, RULES, UNSIGNED, Group, Node, Side, fixed
from .axis_labels import Labels, Row, labels_of
from .axis_signs import Exponents
from .axis_types import Atom, atoms
from .core import Op, Value

if TYPE_CHECKING:
    from .axes import Axes


def equations(axes: Axes, group: Group) -> Exponents:
    """All equations of a module under one group (a single flag)."""
    found = Equations(axes, group)
    for value in axes.module.constants.values():
        if value.constant is not None and value.constant.dtype.kind != "float" and group is not Group.PERM:
            found.zero(found.nodes(value))
    for op in axes.module.walk():
        found.visit(op)
    for graph in axes.module.graph.graphs():
        branch = graph.owner is not None and graph.owner.kind == "If"
        for value in (*graph.inputs, *(() if branch else graph.outputs)):
            found.zero(found.nodes(value))
    return found.unknown


class Equations:
    def __init__(self, axes: Axes, group: Group) -> None:
        self.axes, self.group = axes, group
        self.unknown = Exponents(signed=not group & UNSIGNED)
        self._nodes: dict[Value, list[Node]] = {}

    def nodes(self, value: Value | None) -> list[Node]:
        """The places of free classes in a value."""
        if value is None:
            return []
        if value not in self._nodes:
            types = self.axes.of(value) or ()
            found = [(value, i, a) for i, t in enumerate(types) for a in dict.fromkeys(atoms(t)) if a.pin is None]
            for node in found:
                self.unknown.same(node, node)
            self._nodes[value] = found
        return self._nodes[value]

    def zero(self, nodes: Iterable[Node]) -> None:
        if self.group is not Group.PERM:
            for node in nodes:
                self.unknown.zero(node)

    def equal(self, nodes: Iterable[Node]) -> None:
        first, *rest = nodes
        for node in rest:
            self.unknown.same(node, first)

    def visit(self, op: Op) -> None:
        every = [n for value in (*op.operands, *op.results) for n in self.nodes(value)]
        if not every:
            return
        if op.kind in ("Shape", "Size"):  # no element is read
            return
        if op.kind == "If":
            return self._branches(op)
        labels, behaviour = labels_of(op), BEHAVIOUR.get(op.kind)
        if labels is not None and labels.whole:
            return self._recurrent(op)
        if labels is None or not (labels.operands or labels.results):
            return self.zero(every)
        if labels.regroups:
            return self._regrouped(op)
        if labels.groups is not None:
            return self._grouped(op)
        rule = RULES[behaviour] if behaviour is not None else fixed
        for (_, label), sides in self._by_label(op, labels).items():
            mixed = label in labels.mixed
            if len({slot for slot, _ in sides}) < len(sides):  # a diagonal: one operand has the class twice here
                fixed(self, op, sides, mixed)
            elif mixed and INVARIANT.get(op.kind, Group(0)) & self.group:
                self.zero(n for slot, n in sides if slot < 0)
            else:
                rule(self, op, sides, mixed)

    def _by_label(self, op: Op, labels: Labels) -> dict[tuple[Atom, Hashable], list[Side]]:
        found: dict[tuple[Atom, Hashable], list[Side]] = defaultdict(list)
        for side in self._sides(op):
            found[side[1][2], self._label(op, labels, side)].append(side)
        return found

    def _sides(self, op: Op) -> list[Side]:
        operands = [(slot, n) for slot, v in enumerate(op.operands) for n in self.nodes(v)]
        return operands + [(-1 - i, n) for i, v in enumerate(op.results) for n in self.nodes(v)]

    def _label(self, op: Op, labels: Labels, side: Side) -> Hashable:
        """The label of an axis; one of its own where nothing is said."""
        slot, (_, axis, _) = side
        rows: tuple[Row | None, ...] = labels.operands if slot >= 0 else labels.results
        index = slot if slot >= 0 else -1 - slot
        row = rows[index] if index < len(rows) else None
        return row[axis] if row is not None and axis < len(row) else ("unsaid", slot, axis)

    def _regrouped(self, op: Op) -> None:
        """The data moves to other axes; every class has one exponent before and after."""
        if any(self.nodes(v) for v in op.operands[1:]):
            return self.zero(n for _, n in self._sides(op))
        by_class: dict[Atom, list[Node]] = defaultdict(list)
        for _, node in self._sides(op):
            by_class[node[2]].append(node)
        for nodes in by_class.values():
            if any(n[0] is op.operands[0] for n in nodes):
                self.equal(nodes)
            else:
                self.zero(nodes)

    def _branches(self, op: Op) -> None:
        """If: a result is either branch's output."""
        for i, result in enumerate(op.results):
            ends = [region.outputs[i] for region in op.regions.values()]
            if any(len(self.axes.of(end) or ()) != len(self.axes.of(result) or ()) for end in ends):
                self.zero(n for v in (result, *ends) for n in self.nodes(v))
                continue
            for _, axis, atom in self.nodes(result):
                self.equal([(v, axis, atom) for v in (result, *ends)])

    def _recurrent(self, op: Op) -> None:
        """Inputs are contracted with W, hidden units with R; these go through gates and admit permutations only."""
        inputs = {n[2]: n for n in self.nodes(op.operand(0))}
        weights = {n[2]: n for value in op.operands[1:3] for n in self.nodes(value) if n[1] == 2}
        hidden = {n[2]: n for n in self.nodes(op.results[0])}
        for atom, read in weights.items():
            made = hidden.get(atom) if read[0] is op.operands[2] else inputs.get(atom)
            if made is not None:
                self.unknown.opposite(read, made)
        self.zero(n for _, n in self._sides(op) if n[2] not in inputs or n[2] in hidden)

    def _grouped(self, op: Op) -> None:
        """Convolution in groups: x (g i), w (g o) i, y (g o). The bias is added to y."""
        if op.kind != "Conv":
            return self.zero(n for _, n in self._sides(op))
        at: dict[Atom, dict[tuple[int, int], Node]] = defaultdict(dict)
        for slot, node in self._sides(op):
            at[node[2]][slot, node[1]] = node
        for found in at.values():
            self._one_grouped(op, found)

    def _one_grouped(self, op: Op, found: dict[tuple[int, int], Node]) -> None:
        places = ((0, 1), (1, 0), (1, 1), (-1, 1), (2, 0))
        x, out, inner, y, bias = (found.get(place) for place in places)
        elsewhere = set(found) - set(places)
        if elsewhere or (inner and (not x or out)) or (x and not inner and not (out and y)):
            self.zero(found.values())  # a class in several of these roles, or in an axis that is not ruled
        elif inner and x:
            self.unknown.opposite(x, inner)
        elif x and out and y:  # the groups themselves
            self.product(y, x, out)
            self.added(op, [y], bias)
        else:
            self.added(op, [n for n in (out, y) if n], bias)

    def added(self, op: Op, nodes: list[Node], bias: Node | None) -> None:
        """A bias turns with the result; one that is there without the class does not, and nothing may turn."""
        if op.operand(2) is not None and bias is None:
            return self.zero(nodes)
        self.equal([*nodes, bias] if bias else nodes)

    def product(self, c: Node, a: Node, b: Node) -> None:
        """c = a * b, unit by unit. Constants are scales that stay, unless only they carry anything."""
        if self.group is Group.PERM:
            return self.equal((c, a, b))
        if not self.group & DIAGONAL:
            return self.zero((a, b, c))
        if a == b:
            return self.zero((c,)) if self.group is Group.SIGN else self.zero((a, c))
        if a[0].constant is not None and b[0].constant is None:
            a, b = b, a
        self.unknown.product(c, a, b)
