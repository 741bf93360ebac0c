"""The lossless law: what must survive import and export, and how it is measured.

verdict = compare(source, artifact, feeds)
verdict.problems        # what was lost (names, tensors, metadata, nodes, fusions); empty if nothing
verdict.plain           # worst relative difference of an output, runtime optimizations off (0.0: bit-equal)
verdict.optimized       # the same with them on
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from mlc.backends.ort import Session

PLAIN_BOUND, OPTIMIZED_BOUND = 1e-6, 1e-5  # relative to max |y|
RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)


@dataclass
class Verdict:
    plain: float = 0.0
    optimized: float = 0.0
    problems: list[str] = field(default_factory=list)
    fusions: tuple[Counter[str], Counter[str]] = (Counter(), Counter())

    @property
    def holds(self) -> bool:
        return not self.problems and self.plain <= PLAIN_BOUND and self.optimized <= OPTIMIZED_BOUND


def compare(source: Path, artifact: Path, feeds: Mapping[str, Any]) -> Verdict:
    """Everything the law says of one model file and what became of it."""
    verdict = Verdict(problems=lost(onnx.load(str(source)), onnx.load(str(artifact))))
    counts = []
    for optimize in (False, True):
        outputs = []
        for path in (source, artifact):
            with tempfile.TemporaryDirectory() as folder:
                written = Path(folder) / "optimized.onnx" if optimize else None
                outputs.append(Session(path, optimize=optimize, optimized_path=written).run(feeds))
                if written is not None:
                    counts.append(kinds(onnx.load(str(written), load_external_data=False).graph))
        if list(outputs[0]) != list(outputs[1]):
            verdict.problems.append(f"outputs {list(outputs[0])} became {list(outputs[1])}")
        worst = max((difference(a, b) for a, b in zip(outputs[0].values(), outputs[1].values())), default=0.0)
        verdict.optimized, verdict.plain = (worst, verdict.plain) if optimize else (verdict.optimized, worst)
    verdict.fusions = (counts[0], counts[1])
    verdict.problems += lost_fusions(*counts)
    return verdict


def lost_fusions(source: Counter[str], artifact: Counter[str]) -> list[str]:
    """Fused kernels (the runtime's own operators) of which the artifact has fewer."""
    return [
        f"{source[kind] - artifact[kind]} of {source[kind]} {kind} are no longer fused"
        for kind in sorted(source)
        if "." in kind and artifact[kind] < source[kind]
    ]


def kinds(graph: GraphProto) -> Counter[str]:
    """How many nodes of which operator, bodies included."""
    return Counter(f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in nodes(graph))


def difference(a: Any, b: Any) -> float:
    """Largest difference relative to the largest magnitude; 0.0 exactly when all bits agree; inf for another kind."""
    if isinstance(a, list) and isinstance(b, list):
        return max((difference(x, y) for x, y in zip(a, b)), default=0.0) if len(a) == len(b) else np.inf
    if a is None or b is None:
        return 0.0 if a is b else np.inf
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape or x.dtype != y.dtype:
        return np.inf
    if x.dtype == object or x.dtype.kind in "US":
        return 0.0 if (x == y).all() else np.inf
    if x.tobytes() == y.tobytes():
        return 0.0
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    x, y = x.astype(wide), y.astype(wide)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    delta = np.abs(x - y)[~same]
    if not delta.size:
        return float(np.finfo(np.float32).tiny)  # the bits differ (-0.0, another NaN), the numbers do not
    scale = np.abs(x[np.isfinite(x)]).max(initial=0.0)
    return float(delta.max() / scale) if scale and np.isfinite(delta).all() else np.inf


# -- what a file says ---------------------------------------------------------------------------------------------


def lost(source: ModelProto, artifact: ModelProto) -> list[str]:
    """What the source says and the artifact does not: interface, tensors, metadata, docs; from opset 21 on nodes."""
    problems = [
        f"{what} differ: {_short(a)} became {_short(b)}"
        for what, a, b in (
            ("inputs", _inputs(source), _inputs(artifact)),
            ("outputs", _values(source.graph.output), _values(artifact.graph.output)),
            ("metadata", _metadata(source), _metadata(artifact)),
            ("docs", _docs(source), _docs(artifact)),
        )
        if a != b
    ]
    problems += _lost_tensors(source, artifact)
    if opset(source) >= 21 and not source.functions:
        problems += _lost_nodes(source.graph, artifact.graph)
    return problems


def opset(model: ModelProto) -> int:
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=21)


def _short(value: Any) -> str:
    return repr(value)[:300]


def _inputs(model: ModelProto) -> list[Any]:
    constant = {t.name for t in model.graph.initializer} if model.ir_version < 4 else set()
    return _values([v for v in model.graph.input if v.name not in constant])


def _values(values: Any) -> list[Any]:
    return [(v.name, _type(v.type)) for v in values]


def _type(proto: onnx.TypeProto) -> Any:
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        tensor = proto.tensor_type
        dims = [d.dim_value if d.dim_value > 0 else d.dim_param for d in tensor.shape.dim]
        return tensor.elem_type, dims if tensor.HasField("shape") else None
    return (kind, _type(getattr(proto, kind).elem_type)) if kind in ("sequence_type", "optional_type") else kind


def _metadata(model: ModelProto) -> Any:
    return (
        {p.key: p.value for p in model.metadata_props},
        {p.key: p.value for p in model.graph.metadata_props},
        (model.producer_name, model.producer_version, model.domain, model.model_version),
    )


def _docs(model: ModelProto) -> Any:
    values = (*model.graph.input, *model.graph.output)
    return model.doc_string, model.graph.doc_string, {v.name: v.doc_string for v in values if v.doc_string}


def tensors(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Named tensors (initializers and what Constant nodes hold), bodies included."""
    yield from ((t.name, t) for t in graph.initializer)
    for node in nodes(graph):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], attribute.t
            elif attribute.type == AttributeProto.GRAPH:
                yield from ((t.name, t) for t in attribute.g.initializer)


def _lost_tensors(source: ModelProto, artifact: ModelProto) -> list[str]:
    """Names are exact in the main graph; in bodies, where they may be reused, a suffix is allowed."""
    kept: dict[str, list[bytes]] = {}
    for name, tensor in tensors(artifact.graph):
        kept.setdefault(name, []).append(content(tensor))
    main = {t.name for t in source.graph.initializer}
    everything = {c for contents in kept.values() for c in contents}
    problems = []
    for name, tensor in tensors(source.graph):
        if opset(source) < 21 and name not in main:
            continue  # the version converter may have replaced a Constant node
        bits = content(tensor)
        if bits not in kept.get(name, []) and (name in main or bits not in everything):
            problems.append(f"tensor {name!r} was changed or lost")
    return problems


def content(tensor: TensorProto) -> bytes:
    """Type, shape and bits of a tensor however it is stored."""
    array = onnx.numpy_helper.to_array(tensor)
    bits = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return repr((tensor.data_type, tuple(tensor.dims))).encode() + bits


def nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from nodes(attribute.g)


def _lost_nodes(source: GraphProto, artifact: GraphProto) -> list[str]:
    before, after = (Counter(_node(n) for n in graph.node if n.op_type != "Constant") for graph in (source, artifact))
    inner = [kinds(graph) for graph in (source, artifact)]
    for counts in inner:
        counts.pop("Constant", None)
    problems = [f"node {_short(n[:3])} was changed or lost" for n in before - after]
    extra = sum((after - before).values())
    if extra and not problems:
        problems.append(f"{extra} nodes were added: {_short(next(iter(after - before))[:3])}")
    if not problems and inner[0] != inner[1]:
        problems.append(f"the bodies differ: {inner[0] - inner[1]} became {inner[1] - inner[0]}")
    return problems


def _node(node: NodeProto) -> tuple[Any, ...]:
    inputs, outputs = list(node.input), list(node.output)
    for names in (inputs, outputs):
        while names and not names[-1]:
            names.pop()
    domain = "" if node.domain == "ai.onnx" else node.domain
    attributes = tuple(sorted((a.name, _attribute(a)) for a in node.attribute))
    return node.op_type, tuple(inputs), tuple(outputs), domain, node.name, node.doc_string, attributes


def _attribute(attribute: AttributeProto) -> bytes:
    if attribute.type == AttributeProto.TENSOR:
        return content(attribute.t)
    if attribute.type == AttributeProto.GRAPH:
        return b""  # bodies rename freely: their operators are counted instead
    bare = AttributeProto()
    bare.CopyFrom(attribute)
    bare.doc_string = ""
    data: bytes = bare.SerializeToString(deterministic=True)
    return data
