"""ONNX files as modules: `load(path)`.

The order of work: scan the file for its large tensors without reading them, check names and order, inline local
functions, raise the opset, build the IR, infer types. Weights are never read; constants map the file on access.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from dataclasses import replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from ..ir.core import Graph, Meta, Module, Source
from ..ir.errors import Code, MlcError, error
from ..ir.infer import infer_module
from .onnx_check import check_nodes, check_types
from .onnx_graph import GraphBuilder
from .onnx_softmax import restore_softmax
from .onnx_structure import check_and_sort, check_text
from .onnx_tensors import TensorReader, broken
from .onnx_upgrade import OPSET, inline_functions, upgrade, walk
from .onnx_wire import WireError, lighten
from .other_formats import other_format

_DEFAULT = ("", "ai.onnx")
_HEAD = 4096


def load(model: str | os.PathLike[str] | bytes | ModelProto, *, name: str = "") -> Module:
    """The module of an ONNX model given as a path, as bytes or as a ModelProto.

    `name` stands for the model in errors (default: the path). Errors: NOT_FOUND, NOT_A_MODEL, BROKEN_MODEL,
    EXTERNAL_DATA, UNSUPPORTED_MODEL.
    """
    if isinstance(model, ModelProto):
        model = model.SerializeToString(deterministic=True)
    if isinstance(model, bytes):
        return _load(memoryview(model), None, name or "the model")
    path = Path(model)
    _check_file(path)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        return _load(view, path, name or str(path))


def _load(data: memoryview, path: Path | None, name: str) -> Module:
    try:
        proto = _parse(data, name)
        check_text(proto)
        source_opset = _check_header(proto)
        reader = TensorReader(path, None if path is not None else data)
        module = _build(proto, source_opset, reader)
    except MlcError as problem:
        raise _named(problem, name) from problem.__cause__
    if path is not None:
        module.source = _source(path, reader, source_opset, proto.ir_version)
    return module


def _check_file(path: Path) -> None:
    if os.path.isdir(path):  # False for names that no file can have
        raise error(Code.NOT_A_MODEL, f"{path} is a directory", help="name the .onnx file in it")
    try:
        size = path.stat().st_size
    except OSError as reason:
        raise error(Code.NOT_FOUND, f"{path} does not exist", help="check the path") from reason
    if size == 0:
        raise error(Code.NOT_A_MODEL, f"{path} is empty", help="download or export the model again")
    if not os.access(path, os.R_OK):
        raise error(Code.NOT_FOUND, f"{path} cannot be read", help="check its permissions")


def _parse(data: memoryview, name: str) -> ModelProto:
    """The model without its large tensors. Errors: NOT_A_MODEL."""
    help = "give an .onnx file; if it is one, download or export it again"
    head = bytes(data[:_HEAD])
    if head.startswith(b"version https://git-lfs"):
        raise error(Code.NOT_A_MODEL, f"{name} is a Git LFS pointer", help="run `git lfs pull` to get the file itself")
    try:
        proto: ModelProto = ModelProto.FromString(lighten(data))
    except (WireError, DecodeError) as reason:
        if (other := other_format(data, name)) is not None:
            raise error(Code.NOT_A_MODEL, f"{name} is {other[0]}", help=other[1]) from reason
        what = "text" if _is_text(head) else "damaged, cut short or not an ONNX model"
        raise error(Code.NOT_A_MODEL, f"{name} is {what} ({reason})", help=help) from reason
    if not proto.HasField("graph") or proto.ir_version <= 0:
        other = other_format(data, name)
        what, help = (f"is {other[0]}", other[1]) if other is not None else ("holds no ONNX graph", help)
        raise error(Code.NOT_A_MODEL, f"{name} {what}", help=help)
    return proto


def _is_text(head: bytes) -> bool:
    printable = sum(32 <= b < 127 or b in b"\t\r\n" for b in head)
    return printable > 0.95 * len(head)


def _check_header(proto: ModelProto) -> int:
    """Versions that can be read; the opset of the standard domain."""
    versions = {"" if o.domain in _DEFAULT else o.domain: o.version for o in proto.opset_import}
    newest = onnx.defs.onnx_opset_version()
    if proto.ir_version > onnx.IR_VERSION:
        raise error(
            Code.UNSUPPORTED_MODEL,
            f"IR version {proto.ir_version} is newer than {onnx.IR_VERSION}, the newest one known",
            help="export with an older ONNX, or install a newer `onnx`",
        )
    used = {"" if n.domain in _DEFAULT else n.domain for n in walk(proto.graph.node)}
    local = {f.domain for f in proto.functions}
    absent = sorted(d or "ai.onnx" for d in used - versions.keys() - local)
    if absent and proto.ir_version >= 3:
        raise broken(f"no opset is imported for the domains in use: {', '.join(absent)}", "opset_import")
    if "mlc" in used:
        raise error(
            Code.UNSUPPORTED_MODEL,
            "the domain 'mlc' is internal to mlc and is not read from files",
            where="nodes",
            help="compile the model again: what mlc emits has no such operators",
        )
    opset = versions.get("", 1 if "" in used else OPSET)
    if opset < 1:
        raise broken(f"opset {opset} does not exist", "opset_import")
    if opset > newest:
        raise error(
            Code.UNSUPPORTED_MODEL,
            f"opset {opset} is newer than {newest}, the newest one known",
            where="opset_import",
            help=f"export with opset {newest} or older, or install a newer `onnx`",
        )
    if proto.training_info:
        raise error(Code.UNSUPPORTED_MODEL, "the file holds training graphs", where="training_info", help="remove them")
    return int(opset)


def _build(proto: ModelProto, source_opset: int, reader: TensorReader) -> Module:
    check_and_sort(proto.graph)
    if not proto.graph.output:
        raise broken("the graph has no outputs", "the main graph")
    proto = inline_functions(proto)
    proto = upgrade(proto, source_opset)
    check_and_sort(proto.graph)
    check_nodes(proto)
    module = Module(Graph(), opset=max(source_opset, OPSET))
    # Before IR version 4 every initializer had to be listed as an input, which did not make it overridable.
    builder = GraphBuilder(module, reader, overridable=proto.ir_version >= 4)
    module.graph = builder.main(proto.graph)
    used = {op.domain for op in module.walk()}
    module.opsets = {o.domain: o.version for o in proto.opset_import if o.domain in used - {""}}
    module.meta = _meta(proto)
    infer_module(module)
    check_types(module)
    if source_opset < 13:
        restore_softmax(module)
    return module


def _meta(proto: ModelProto) -> Meta:
    return Meta(
        producer_name=proto.producer_name,
        producer_version=proto.producer_version,
        domain=proto.domain,
        model_version=proto.model_version,
        doc=proto.doc_string,
        properties={e.key: e.value for e in proto.metadata_props},
        graph_properties={e.key: e.value for e in proto.graph.metadata_props},
    )


def _named(problem: MlcError, name: str) -> MlcError:
    """The same error, saying which model it is about."""
    found = [replace(d, where=f"{name}: {d.where}" if d.where else name) for d in problem.diagnostics]
    return type(problem)(found)


def _source(path: Path, reader: TensorReader, opset: int, ir_version: int) -> Source:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    nbytes = path.stat().st_size + sum(reader.external_files.values())
    return Source(str(path), digest, nbytes, opset, ir_version)
