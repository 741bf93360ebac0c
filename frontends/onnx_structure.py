"""The shape of a graph before anything trusts it: every name defined once, defined before use, no cycles.

Nodes are put into an order in which every value is defined before it is read (ONNX asks for it, many files do not
keep it). Bodies of If, Loop and Scan see the names of the graphs around them and may shadow them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from google.protobuf.message import Message
from onnx import AttributeProto, GraphProto, NodeProto

from ..ir.errors import Code, Diagnostic, MlcError
from .onnx_tensors import broken

_SHOWN = 5  # mistakes of one kind listed in full


def check_text(message: Message, where: str = "") -> None:
    """Protobuf hands out text that is not UTF-8 as bytes, which nothing behind this point expects."""
    for field, content in message.ListFields():
        repeated = field.is_repeated
        if field.type == field.TYPE_STRING:
            for text in content if repeated else (content,):
                if not isinstance(text, str):
                    raise broken(f"the text {text[:40]!r} is not UTF-8", where or field.full_name)
        elif field.type == field.TYPE_MESSAGE:
            for inner in content if repeated else (content,):
                check_text(inner, where)


def check_and_sort(graph: GraphProto, outer: frozenset[str] = frozenset(), where: str = "the main graph") -> None:
    """Check names and sort the nodes of a graph and of all bodies below it. Errors: BROKEN_MODEL."""
    given = _given_names(graph, where)
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.output:
            if name and (name in producer or name in given):
                raise broken(f"value {name!r} is defined twice", node_label(node, where))
            if name:
                producer[name] = index
    needs = [set(free_names(node)) for node in graph.node]
    _check_defined(graph, needs, given | producer.keys() | outer, where)
    _sort(graph, needs, producer, where)
    visible = outer | given | producer.keys()
    for node in graph.node:
        for name, body in bodies(node):
            check_and_sort(body, visible, f"{name} of {node_label(node, where)}")


def _given_names(graph: GraphProto, where: str) -> set[str]:
    """Names defined without a node: inputs and initializers (one name may be both: a default)."""
    inputs = _distinct((i.name for i in graph.input), "input", where)
    dense = (t.name for t in graph.initializer)
    sparse = (t.values.name for t in graph.sparse_initializer)
    return inputs | _distinct([*dense, *sparse], "initializer", where)


def _distinct(names: Iterable[str], what: str, where: str) -> set[str]:
    found: set[str] = set()
    for name in names:
        if not name:
            raise broken(f"an {what} has no name", where)
        if name in found:
            raise broken(f"there are two {what}s called {name!r}", where)
        found.add(name)
    return found


def _check_defined(graph: GraphProto, needs: list[set[str]], known: frozenset[str] | set[str], where: str) -> None:
    missing = [
        (name, node_label(node, where)) for node, names in zip(graph.node, needs) for name in sorted(names - known)
    ]
    missing += [(o.name, f"the outputs of {where}") for o in graph.output if o.name not in known]
    if missing:
        more = f"and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise MlcError(
            [
                Diagnostic(
                    Code.BROKEN_MODEL,
                    f"value {name!r} is used but nothing defines it",
                    where=place,
                    help="export the model again; a node, an input or an initializer is missing",
                    note=more,
                )
                for name, place in missing[:_SHOWN]
            ]
        )


def _sort(graph: GraphProto, needs: list[set[str]], producer: dict[str, int], where: str) -> None:
    """A stable topological order: the file's own wherever it is one already."""
    waits = [{producer[n] for n in names if n in producer} for names in needs]
    if all(w < i for i, before in enumerate(waits) for w in before):
        return
    ready = [i for i, before in enumerate(waits) if not before]  # a heap: the least index goes first
    followers: list[list[int]] = [[] for _ in waits]
    for index, before in enumerate(waits):
        for w in before:
            followers[w].append(index)
    open_needs = [len(before) for before in waits]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for follower in followers[index]:
            open_needs[follower] -= 1
            if not open_needs[follower]:
                heapq.heappush(ready, follower)
    if len(order) < len(waits):
        stuck = [node_label(node, "") for node, count in zip(graph.node, open_needs) if count]
        names = ", ".join(stuck[:_SHOWN]) + (", ..." if len(stuck) > _SHOWN else "")
        raise broken("the nodes form a cycle", f"{where}: {names}")
    copies = [NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
    del graph.node[:]
    graph.node.extend(copies)


def free_names(node: NodeProto) -> Iterator[str]:
    """What a node reads: its inputs, and what its bodies capture from outside."""
    yield from (name for name in node.input if name)
    for _, body in bodies(node):
        yield from _captured(body)


def _captured(graph: GraphProto) -> set[str]:
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {t.values.name for t in graph.sparse_initializer}
    own |= {name for node in graph.node for name in node.output}
    read = {name for node in graph.node for name in free_names(node)} | {o.name for o in graph.output}
    return read - own


def bodies(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """The graphs among a node's attributes, with the attributes' names."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from ((f"{attribute.name}[{i}]", g) for i, g in enumerate(attribute.graphs))


def node_label(node: NodeProto, where: str) -> str:
    """How an error names a node."""
    name = node.name or next((o for o in node.output if o), "")
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"{kind} {name!r}" + (f" in {where}" if where and where != "the main graph" else "")
