"""mlc: compiles trained neural networks into smaller, faster ones.

    import mlc

    result = mlc.compile("model.onnx", "prune+int4", output="model.mlc")
    module = mlc.load("model.onnx")
    smaller = mlc.passes.Int4(block=32)(module)
    mlc.save(smaller, "smaller.onnx")

Importing this module imports nothing else: names are found on first use.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

#: Public name -> where it is found.
_PUBLIC = {
    "compile": ("mlc.compiler", "compile"),
    "plan": ("mlc.compiler", "plan"),
    "load": ("mlc.compiler", "load"),
    "save": ("mlc.compiler", "save"),
    "open_data": ("mlc.dsl.data", "open_data"),
    "Result": ("mlc.compiler", "Result"),
    "Recipe": ("mlc.dsl.recipe", "Recipe"),
    "Module": ("mlc.ir.core", "Module"),
    "Context": ("mlc.passes.base", "Context"),
    "Pass": ("mlc.passes.base", "Pass"),
    "MlcError": ("mlc.ir.errors", "MlcError"),
    "passes": ("mlc.passes", None),
    "commands": ("mlc.commands", None),
}

__all__ = ["Context", "MlcError", "Module", "Pass", "Recipe", "Result", "__version__", "commands", "compile", "load"]
__all__ += ["open_data", "passes", "plan", "save"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mlc' has no attribute {name!r}")
    import importlib

    module, attribute = _PUBLIC[name]
    found = importlib.import_module(module)
    return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
