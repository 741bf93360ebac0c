"""ONNX Runtime sessions over files, modules and bytes: quiet, deterministic settings, one kind of error."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto

from ..ir.core import Module
from ..ir.disk import write_error
from ..ir.dtypes import DType
from ..ir.errors import MEMORY_HELP, Code, Diagnostic, MlcError, ResourceError, error
from ..ir.feeds import Feeds
from ..ir.scratch import scratch

_FATAL = 4  # log severity: what goes wrong is raised
_ROOM = 1 << 20  # free bytes below which a disk counts as full
_LARGE = 64 << 20  # modules from this size on are handed over as a file


class Session:
    """A model ready to run on the CPU.

    `model` is a path (best for large models), bytes or a module. `optimize=False` switches all graph optimizations
    of the runtime off, which is what numerical comparisons need. `planned=False` takes less memory: what a run needs is
    not reserved as a whole beside what the first run took piece by piece. Errors: RUNTIME when the runtime refuses the
    model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | Module,
        *,
        threads: int = 1,
        optimize: bool = True,
        planned: bool = True,
        optimized_path: str | os.PathLike[str] | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = planned
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        if optimized_path is not None:
            options.optimized_model_filepath = str(optimized_path)
            weights = f"{Path(optimized_path).name}.data"  # apart, so that the graph can be read alone
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        self.name = str(model) if isinstance(model, str | os.PathLike) else "the model"
        try:
            self._session = _open(model, options, self.name)
        except MlcError as refusal:
            raise _no_room(optimized_path, refusal) from refusal
        self.inputs: dict[str, ort.NodeArg] = {i.name: i for i in self._session.get_inputs()}
        self.output_names: list[str] = [o.name for o in self._session.get_outputs()]
        self._exotic = any(t in _EXOTIC_TYPES for t in self.output_types.values())

    @property
    def input_types(self) -> dict[str, str]:
        """ONNX Runtime's spelling of each input's type, `tensor(float)` for example."""
        return {name: str(arg.type) for name, arg in self.inputs.items()}

    @property
    def input_shapes(self) -> dict[str, list[int | str | None]]:
        return {name: list(arg.shape) for name, arg in self.inputs.items()}

    @property
    def output_types(self) -> dict[str, str]:
        return {o.name: str(o.type) for o in self._session.get_outputs()}

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name (all, or those asked for). Errors: BAD_DATA for feeds that do not fit the inputs."""
        missing = sorted(self.inputs.keys() - feeds.keys())
        if missing:
            raise error(
                Code.BAD_DATA,
                f"no data for the inputs {', '.join(missing)}",
                where=self.name,
                help=f"the model's inputs are {', '.join(self.inputs)}",
            )
        wanted = list(self.output_names if outputs is None else outputs)
        try:
            if self._exotic or any(_exotic(value) is not None for value in feeds.values()):
                values = {name: _ort_value(value) for name, value in feeds.items()}
                found = [_array(v) for v in self._session.run_with_ort_values(wanted, values)]
            else:
                found = self._session.run(wanted, {name: _fed(value) for name, value in feeds.items()})
        except _FAILURES as reason:
            if _out_of_memory(reason):
                raise _no_memory(self.name, reason) from reason
            if isinstance(feeds, Feeds):
                raise _no_run(self.name, feeds, reason) from reason
            raise error(
                Code.BAD_DATA if _is_feed_error(reason) else Code.RUNTIME,
                f"ONNX Runtime cannot run {self.name}: {_reason(reason)}",
                help="check that the data fits the model's inputs",
            ) from reason
        return dict(zip(wanted, found))


def _open(model: str | os.PathLike[str] | bytes | Module, options: ort.SessionOptions, name: str) -> Any:
    if isinstance(model, Module):
        return _open_module(model, options, name)
    source = model if isinstance(model, bytes) else str(model)
    if isinstance(source, str) and not Path(source).is_file():
        raise error(Code.NOT_FOUND, f"{source} does not exist", help="check the path")
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except _FAILURES as reason:
        raise _refusal(name, reason) from reason


def _open_module(module: Module, options: ort.SessionOptions, name: str) -> Any:
    from .onnx import save, to_proto

    stored = (*(v.constant for v in module.constants.values() if v.constant is not None), *module.defaults.values())
    if sum(constant.nbytes for constant in stored) < _LARGE:
        return _open(to_proto(module).SerializeToString(deterministic=True), options, name)
    with scratch("mlc-ort") as folder:
        path = folder / "model.onnx"
        save(module, path, external="always")  # the runtime maps weights that lie apart, and reads others into memory
        return _open(path, options, name)


def _fed(value: Any) -> Any:
    """Feeds as the runtime takes them: arrays in C order; text, lists (sequences) and None as they are."""
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) and value.ndim else value


#: Element types that the runtime has and numpy has not: handed over as raw bits.
_EXOTIC = {d.numpy: d for d in DType if d.is_float and d.bits in (8, 16) and d is not DType.F16}
_EXOTIC_TYPES = {
    f"tensor({name})": d for d in _EXOTIC.values() for name in (TensorProto.DataType.Name(d.onnx).lower(),)
}


def _exotic(value: Any) -> DType | None:
    return _EXOTIC.get(value.dtype) if isinstance(value, np.ndarray) else None


def _ort_value(value: Any) -> Any:
    array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
    dtype = _exotic(array)
    if dtype is None:
        return ort.OrtValue.ortvalue_from_numpy(array)
    bits = array.view(np.uint8 if dtype.bits == 8 else np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, dtype.onnx)


def _array(value: Any) -> Any:
    """The result as an array of its own."""
    dtype = _EXOTIC_TYPES.get(value.data_type())
    if dtype is None:
        return value.numpy()
    size = value.tensor_size_in_bytes()
    bits = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(bits, dtype.numpy).reshape(value.shape())


_STATE = ort.capi.onnxruntime_pybind11_state
_FAILURES: tuple[type[Exception], ...] = (
    *(v for v in vars(_STATE).values() if isinstance(v, type) and issubclass(v, Exception)),
    RuntimeError,
    ValueError,
)


def _is_feed_error(reason: Exception) -> bool:
    return isinstance(reason, _STATE.InvalidArgument | ValueError)


def _out_of_memory(reason: Exception) -> bool:
    """The runtime has no exception of its own for this."""
    return any(words in str(reason) for words in ("Failed to allocate memory", "bad_alloc", "bad allocation"))


def _no_memory(name: str, reason: Exception) -> ResourceError:
    wanted = re.search(r"buffer of size (\d+)", str(reason))
    asked = f": it asked for {int(wanted[1]) / 2**20:,.0f} MiB" if wanted else ""
    message = f"ONNX Runtime ran out of memory on {Path(name).name}{asked}"
    return ResourceError(Diagnostic(Code.MEMORY, message, help=MEMORY_HELP))


def _no_run(name: str, feeds: Feeds, reason: Exception) -> MlcError:
    """The error for samples of the user's: which, and what the runtime says of them."""
    shapes = ", ".join(f"{key!r} {list(shape)}" for key, shape in feeds.shapes.items())
    return error(
        Code.BAD_DATA,
        f"the model does not run with inputs of these shapes: {shapes}",
        where=feeds.where,
        help="give samples as the model was made for",
        note=f"ONNX Runtime says of {name}: {_reason(reason)}",
    )


def _no_room(written: str | os.PathLike[str] | None, refusal: MlcError) -> MlcError:
    """The error for a model that the runtime could not write: it does not say whether that was for want of room."""
    folder = Path(written).parent if written is not None else None
    if folder is None or os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize >= _ROOM:
        return refusal
    return write_error(folder, OSError(errno.ENOSPC, ""))


def _refusal(name: str, reason: Exception) -> MlcError:
    if _out_of_memory(reason):
        return _no_memory(name, reason)
    return error(
        Code.RUNTIME,
        f"ONNX Runtime {ort.__version__} refuses {name}: {_reason(reason)}",
        help="see docs/lossless.md for what it can run",
    )


def _reason(reason: Exception) -> str:
    text = str(reason).strip() or type(reason).__name__
    return text.splitlines()[0][:400]
