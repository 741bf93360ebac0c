"""Modules as ONNX files: `save(module, path)` and `to_proto(module)`. The same module gives the same bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Literal

from onnx import ModelProto

from ..ir.core import Module
from ..ir.disk import writing
from ..ir.errors import Code, error
from .onnx_graph import Stubs, light_proto
from .onnx_versions import change_opset, least_runtime, set_ir_version
from .onnx_write import fill, replace_files, write_external, write_inline

External = Literal["auto", "always", "never"]

_EXTERNAL_FROM = 3 << 29  # 1.5 GiB: from here on weights go to a file of their own
_MESSAGE_LIMIT = (1 << 31) - 1  # of protobuf
_SLACK = 1 << 20  # bytes of a message besides its stubs' data that are allowed for


def to_proto(module: Module, *, opset: int | None = None) -> ModelProto:
    """The module as one self-contained message (all weights are copied into it)."""
    proto, stubs = _light(module, opset)
    _check_message(proto, stubs)
    fill(proto, stubs)
    return proto


def save(
    module: Module,
    path: str | os.PathLike[str],
    *,
    external: External = "auto",
    opset: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write a module to `path`, streaming its weights; large models get `PATH.data` beside it.

    The file appears at once and whole, or not at all. `opset` asks for another version of the operators. Errors:
    OUTPUT_EXISTS, OUTPUT, CANNOT_HONOUR (an operator the opset lacks, one of mlc's own, or weights beyond 2 GiB
    with `external="never"`).
    """
    target = Path(path)
    with writing(target.parent):
        if target.exists() and not overwrite:
            raise error(Code.OUTPUT_EXISTS, f"{target} exists", help="choose another name, or give overwrite=True")
    proto, stubs = _light(module, opset)
    total = sum(c.nbytes for c in stubs.values())
    apart = external == "always" or (external == "auto" and total > _EXTERNAL_FROM)
    if not apart:
        _check_message(proto, stubs)
    with writing(target.parent):
        _write(proto, stubs, target, apart=apart)


def least_onnxruntime(module: Module, *, opset: int | None = None) -> str | None:
    """The first ONNX Runtime release that loads what `save` writes; None if there is none yet."""
    return least_runtime(_light(module, opset)[0])


def _light(module: Module, opset: int | None) -> tuple[ModelProto, Stubs]:
    proto, stubs = light_proto(module)
    at_least = module.source.ir_version if module.source is not None else 0
    set_ir_version(proto, at_least=at_least)
    if opset is not None:
        proto = change_opset(proto, opset)
        set_ir_version(proto, at_least=at_least)
    return proto, stubs


def _write(proto: ModelProto, stubs: Stubs, target: Path, *, apart: bool) -> None:
    if not apart:
        replace_files({target: lambda file: write_inline(proto, stubs, file)})
        return
    data = target.with_name(f"{target.name}.data")

    def write_data(file: BinaryIO) -> None:
        write_external(proto, stubs, file, data.name)

    # The model goes last: where it lies, its data lies complete.
    replace_files({data: write_data, target: lambda file: _write_message(proto, file)})


def _write_message(proto: ModelProto, file: BinaryIO) -> None:
    file.write(proto.SerializeToString(deterministic=True))


def _check_message(proto: ModelProto, stubs: Stubs) -> None:
    total = sum(c.nbytes for c in stubs.values()) + proto.ByteSize() + _SLACK
    if total > _MESSAGE_LIMIT:
        raise error(
            Code.CANNOT_HONOUR,
            f"the model takes {total / 2**30:.1f} GiB, but one ONNX file holds 2 GiB at most",
            help="let the weights go to a file of their own (external data)",
        )
