"""Axis types: what the positions along one axis of a tensor are, and which of them may be exchanged.

    AxisType ::= Atom               n interchangeable positions
               | Prod(T1, ..., Tk)  row-major mixed radix, outermost first (a reshaped axis)
               | Sum(T1, ..., Tk)   segments one after the other (a concatenated axis)
               | ONE                size 1

Unification in the manner of type inference, with refinement: an atom that meets a structured type is bound to it,
cutting an atom binds it to a Sum, reshaping it to a Prod. Refinement only ever shrinks the group of permutations
an axis admits, so the analysis is monotone and ends. A *pinned* atom admits the identity only; it is never
bound, because any part of it is pinned as well. The rules follow DepGraph (Fang et al., 2023) and the
permutation specifications of Git Re-Basin (Ainsworth et al., 2022), derived instead of written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .dims import Dim, add, exact_div, mul, product


@dataclass(frozen=True, slots=True)
class Pin:
    """Why an axis admits the identity only: a stable code, and the op that says so (its name in the source)."""

    code: str
    where: str = ""
    kind: str = ""  # of the op

    def __str__(self) -> str:
        place = " ".join(filter(None, (self.kind, self.where)))
        return f"{self.code} ({place})" if place else self.code


class Atom:
    """A class variable: `size` positions that one permutation governs. `bound`, once set, stands in its place."""

    __slots__ = ("bound", "marks", "pin", "size")

    def __init__(self, size: Dim, pin: Pin | None = None) -> None:
        self.size = size
        self.pin = pin
        self.bound: AxisType | None = None
        self.marks: dict[str, Pin] = {}  # facts that matter when units are removed, by code

    def __repr__(self) -> str:
        return f"{'!' if self.pin else '~'}{self.size}"


class One:
    """The only position of an axis of size 1."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "1"


class Prod:
    __slots__ = ("factors", "size")

    def __init__(self, factors: tuple[AxisType, ...]) -> None:
        self.factors = factors
        self.size: Dim = product(size(f) for f in factors)

    def __repr__(self) -> str:
        return f"Prod{self.factors}"


class Sum:
    __slots__ = ("parts", "size")

    def __init__(self, parts: tuple[AxisType, ...]) -> None:
        self.parts = parts
        self.size: Dim = total(size(p) for p in parts)

    def __repr__(self) -> str:
        return f"Sum{self.parts}"


AxisType = Atom | Prod | Sum | One
ONE = One()
SLOTS = Pin("fixed-slots")
REFINE = "cannot-refine"


def atom(size: Dim, pin: Pin | None = None) -> AxisType:
    """A new class variable; sizes that are not positive integers can only be pinned."""
    if size == 1:
        return ONE
    if pin is None and not (isinstance(size, int) and size > 0):
        pin = Pin("symbolic-size" if not isinstance(size, int) else "empty-axis")
    return Atom(size, pin)


def size(t: AxisType) -> Dim:
    return 1 if isinstance(t, One) else t.size


def total(sizes: Iterable[Dim]) -> Dim:
    found: Dim = 0
    for n in sizes:
        found = add(found, n)
    return found


def resolve(t: AxisType) -> AxisType:
    """The type with every bound atom replaced by what it stands for, in normal form.

    What two atoms share is normalized once: a chain of bindings is shortened to its last atom (path compression), and
    that one keeps the normal form. Nesting of one kind is opened by a loop, so that recursion is as deep as products
    are nested in sums, never as deep as the graph.
    """
    if isinstance(t, Atom):
        last = _representative(t)
        if last.bound is None:
            return last
        last.bound = resolve(last.bound)
        return last.bound
    if isinstance(t, Prod):
        return _product(t.factors, t)
    if isinstance(t, Sum):
        return _concatenation(t.parts, t)
    return t


def _representative(a: Atom) -> Atom:
    """The last atom of a chain of atoms bound to atoms: unbound, or bound to a structure."""
    last = a
    while isinstance(last.bound, Atom):
        last = last.bound
    while isinstance(a.bound, Atom):
        following, a.bound = a.bound, last
        a = following
    return last


def is_pinned(t: AxisType) -> bool:
    return isinstance(t, Atom) and t.pin is not None


def _reason(t: AxisType) -> Pin:
    return t.pin if isinstance(t, Atom) and t.pin is not None else SLOTS


def prod(factors: Iterable[AxisType]) -> AxisType:
    """The product in normal form: nested products opened, ones dropped, neighbouring pinned factors joined."""
    return _product(tuple(factors), None)


def _product(factors: tuple[AxisType, ...], known: Prod | None) -> AxisType:
    flat: list[AxisType] = []
    for item in _opened(factors, Prod):
        if item is ONE:
            continue
        if flat and is_pinned(flat[-1]) and is_pinned(item):
            flat[-1] = Atom(mul(size(flat[-1]), size(item)), _reason(flat[-1]))
        else:
            flat.append(item)
    if not flat:
        return ONE
    if len(flat) == 1:
        return flat[0]
    return known if known is not None and _same(flat, factors) else Prod(tuple(flat))


def concat(parts: Iterable[AxisType]) -> AxisType:
    """The sum in normal form: nested sums opened, empty parts dropped, runs of fixed positions joined."""
    return _concatenation(tuple(parts), None)


def _concatenation(parts: tuple[AxisType, ...], known: Sum | None) -> AxisType:
    flat: list[AxisType] = []
    for item in _opened(parts, Sum):
        if size(item) == 0:
            continue
        if flat and _fixed(flat[-1]) and _fixed(item):
            pin = _reason(flat[-1] if is_pinned(flat[-1]) else item)
            flat[-1] = Atom(add(size(flat[-1]), size(item)), pin)
        else:
            flat.append(item)
    if not flat:
        return Atom(0, Pin("empty-axis"))
    if len(flat) == 1:
        return flat[0]
    return known if known is not None and _same(flat, parts) else Sum(tuple(flat))


def _opened(items: tuple[AxisType, ...], kind: type[Prod] | type[Sum]) -> Iterator[AxisType]:
    """The items resolved, with what is of this kind itself replaced by its own items."""
    stack = list(reversed(items))
    while stack:
        item = stack.pop()
        found = _representative(item).bound if isinstance(item, Atom) else item
        if not isinstance(found, kind):
            found = resolve(item)
        if isinstance(found, kind):
            stack.extend(reversed(found.factors if isinstance(found, Prod) else found.parts))
        else:
            yield found


def _same(new: Sequence[AxisType], old: Sequence[AxisType]) -> bool:
    return len(new) == len(old) and all(a is b for a, b in zip(new, old))


def _fixed(t: AxisType) -> bool:
    return t is ONE or is_pinned(t)


def atoms(t: AxisType) -> Iterator[Atom]:
    """The class variables in a resolved type, outermost and first ones first; repeated if they occur twice."""
    if isinstance(t, Atom):
        yield t
    elif isinstance(t, Prod):
        for factor in t.factors:
            yield from atoms(factor)
    elif isinstance(t, Sum):
        for part in t.parts:
            yield from atoms(part)


def pin(t: AxisType, why: Pin) -> None:
    """Allow the identity only. The first reason is kept."""
    for found in atoms(resolve(t)):
        if found.pin is None:
            found.pin = why


def mark(t: AxisType, why: Pin) -> None:
    """Note a fact about the classes of a type that matters when units are removed."""
    for found in atoms(resolve(t)):
        found.marks.setdefault(why.code, why)


def _bind(a: Atom, to: AxisType) -> None:
    a.bound = to
    for found in atoms(to):
        for why in a.marks.values():
            found.marks.setdefault(why.code, why)


# -- refinement ------------------------------------------------------------------------------------------------


def split(t: AxisType, sizes: Sequence[Dim]) -> list[AxisType] | None:
    """Cut an axis into consecutive segments of these sizes; None if its structure does not allow the cuts."""
    t = resolve(t)
    if len(sizes) == 1:
        return [t]
    if isinstance(t, Atom):
        if t.pin is not None:
            return [atom(n, t.pin) for n in sizes]
        pieces = [atom(n) for n in sizes]
        _bind(t, concat(pieces))
        return pieces
    if isinstance(t, Prod):
        inner = prod(t.factors[1:])
        counts = [exact_div(n, size(inner)) for n in sizes]
        known = [n for n in counts if n is not None]
        cut = split(t.factors[0], known) if len(known) == len(counts) else None
        return None if cut is None else [prod((piece, inner)) if size(piece) != 0 else piece for piece in cut]
    if isinstance(t, Sum):
        return _split_sum(t, sizes)
    return [ONE if n == 1 else Atom(0, Pin("empty-axis")) for n in sizes]


def _split_sum(t: Sum, sizes: Sequence[Dim]) -> list[AxisType] | None:
    queue = list(reversed(t.parts))
    result = []
    for wanted in sizes:
        got: list[AxisType] = []
        need = wanted
        while need != 0:
            if not queue:
                return None
            part = resolve(queue.pop())
            n = size(part)
            if n == need:
                got.append(part)
                need = 0
            elif not (isinstance(n, int) and isinstance(need, int)):
                return None
            elif n < need:
                got.append(part)
                need -= n
            else:
                cut = split(part, [need, n - need])
                if cut is None:
                    return None
                got.append(cut[0])
                queue.append(cut[1])
                need = 0
        result.append(concat(got))
    return result


def regroup(factors: Sequence[AxisType], sizes: Sequence[Dim]) -> list[AxisType] | None:
    """Reshape: distribute row-major factors over axes of these sizes; None if there is no common mixed radix."""
    flat = prod(factors)
    queue: list[AxisType] = (
        list(reversed(flat.factors)) if isinstance(flat, Prod) else [flat] if flat is not ONE else []
    )
    result = []
    for wanted in sizes:
        got: list[AxisType] = []
        need = wanted
        while need != 1:
            if not queue:
                return None
            factor = resolve(queue.pop())
            if isinstance(factor, Prod):
                queue.extend(reversed(factor.factors))
                continue
            n = size(factor)
            quotient = exact_div(need, n)
            if quotient is not None:
                got.append(factor)
                need = quotient
                continue
            rest = exact_div(n, need)
            cut = None if rest is None else _factor(factor, need, rest)
            if cut is None:
                return None
            got.append(cut[0])
            queue.append(cut[1])
            need = 1
        result.append(prod(got))
    return None if queue else [resolve(t) for t in result]


def _factor(t: AxisType, outer: Dim, inner: Dim) -> tuple[AxisType, AxisType] | None:
    """View an axis as outer x inner positions."""
    if isinstance(t, Atom):
        if t.pin is not None:
            return atom(outer, t.pin), atom(inner, t.pin)
        u, v = atom(outer), atom(inner)
        _bind(t, prod((u, v)))
        return u, v
    if isinstance(t, Sum):
        counts = [exact_div(size(part), inner) for part in t.parts]
        outers: list[AxisType] = []
        shared: AxisType | None = None
        for part, count in zip(t.parts, counts):
            if count is None:
                return None
            cut = regroup([part], [count, inner])
            if cut is None:
                return None
            if shared is not None:
                unify(shared, cut[1])
            shared = cut[1]
            outers.append(cut[0])
        return (concat(outers), resolve(shared)) if shared is not None else None
    return None


# -- unification -----------------------------------------------------------------------------------------------


def unify(x: AxisType, y: AxisType, why: Pin = Pin(REFINE)) -> None:
    """Make two axes the same: whatever permutes one permutes the other. What cannot be matched is pinned."""
    x, y = resolve(x), resolve(y)
    if x is y or x is ONE or y is ONE:
        if size(x) != size(y):
            _pin_both(x, y, why)
        return
    if size(x) != size(y):
        _pin_both(x, y, why)
    elif is_pinned(x):
        pin(y, _reason(x))
    elif is_pinned(y):
        pin(x, _reason(y))
    elif isinstance(x, Atom):  # it cannot occur in y: the normal form of the same size would be the atom itself
        _bind(x, y)
    elif isinstance(y, Atom):
        _bind(y, x)
    else:
        _unify_structures(x, y, why)


def _pin_both(x: AxisType, y: AxisType, why: Pin) -> None:
    pin(x, why)
    pin(y, why)


def _unify_structures(x: AxisType, y: AxisType, why: Pin) -> None:
    if isinstance(x, Sum) or isinstance(y, Sum):
        sizes = _common_cuts(x, y)
        divide = split
    else:
        sizes = _common_radix(x, y)
        divide = _regroup_one
    if sizes is None:
        return _pin_both(x, y, why)
    xs = divide(x, sizes)
    ys = divide(y, sizes) if xs is not None else None
    if xs is None or ys is None:
        return _pin_both(x, y, why)
    for a, b in zip(xs, ys):
        unify(a, b, why)


def _regroup_one(t: AxisType, sizes: Sequence[Dim]) -> list[AxisType] | None:
    return regroup([t], sizes)


def _common_cuts(x: AxisType, y: AxisType) -> list[Dim] | None:
    """The segment sizes of the finest common cutting."""
    ends: set[int] = set()
    lists = [[size(p) for p in t.parts] for t in (x, y) if isinstance(t, Sum)]
    if len(lists) == 2 and lists[0] == lists[1]:
        return lists[0]
    for sizes in lists:
        end = 0
        for n in sizes:
            if not isinstance(n, int):
                return None
            end += n
            ends.add(end)
    return [b - a for a, b in pairwise([0, *sorted(ends)])]


def _common_radix(x: AxisType, y: AxisType) -> list[Dim] | None:
    """The factor sizes of the coarsest mixed radix that refines both products."""
    lists = [[size(f) for f in t.factors] for t in (x, y) if isinstance(t, Prod)]
    if lists[0] == lists[1]:
        return lists[0]
    strides: set[int] = set()
    for sizes in lists:
        stride = 1
        for n in reversed(sizes):
            if not isinstance(n, int):
                return None
            stride *= n
            strides.add(stride)
    chain = [1, *sorted(strides)]
    if any(b % a for a, b in pairwise(chain)):
        return None
    return [b // a for a, b in reversed(list(pairwise(chain)))]


def static(t: AxisType) -> int | None:
    """The size if it is an integer."""
    n = size(t)
    return n if isinstance(n, int) else None


def describe(t: AxisType, name: Mapping[Atom, str]) -> str:
    """A resolved type as text: `c3`, `8` (pinned), `(c3 x 49)`, `[c1 | c2]`."""
    if isinstance(t, Atom):
        return name.get(t) or str(t.size)
    if isinstance(t, Prod):
        return "(" + " x ".join(describe(f, name) for f in t.factors) + ")"
    if isinstance(t, Sum):
        return "[" + " | ".join(describe(p, name) for p in t.parts) + "]"
    return "1"
