"""Arrays that wait in a file: outputs of language models are hundreds of megabytes, and are needed once a question."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import IO

import numpy as np

from ...ir.disk import TMPDIR, writing
from ..ports import Array

_SMALL = 1 << 20  # bytes that stay in memory


class Shelf:
    """Holds arrays in a file without a name, which is gone with the process however that ends.

    Errors: OUTPUT where temporary files cannot be written.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def put(self, array: Array) -> Callable[[], Array]:
        """Keep an array; what is returned yields it, mapped for as long as the result is held."""
        if array.nbytes <= _SMALL or array.dtype.hasobject:
            return lambda: array
        with writing(tempfile.gettempdir(), TMPDIR):
            self._file = file = self._file or tempfile.TemporaryFile(prefix=".mlc-")  # noqa: SIM115
            offset, shape, dtype = file.seek(0, 2), array.shape, array.dtype
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            file.flush()
        return lambda: np.memmap(file, dtype, "r", offset, shape)
