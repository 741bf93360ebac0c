"""What `model`, `data` and `target` statements of a file bind, and which data calibrates and which judges."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..backends.targets import parse_target
from ..frontends.user_code import refusal
from ..ir.errors import Code, Diagnostic, MlcError, Span
from . import syntax as ast
from .data import Declared, declare_node
from .names import Names
from .print import expression
from .user_code import FILES
from .values import near, what


@dataclass(frozen=True)
class Bindings:
    """The bound names of a file. `bases` are the folders that paths in bindings are relative to, `folder` its own."""

    names: Names = field(default_factory=Names)
    bases: Mapping[str, Path] = field(default_factory=dict)
    folder: Path = Path()

    def check(self) -> list[Diagnostic]:
        """What is wrong with the values of bindings; nothing is opened."""
        found: list[Diagnostic] = []
        for binding in self.names.bindings.values():
            if binding.kind in _CHECKS:
                try:
                    _CHECKS[binding.kind](self, binding.name)
                except MlcError as e:
                    found += e.diagnostics
        return found

    def of_kind(self, kind: str) -> list[str]:
        return [name for name, binding in self.names.bindings.items() if binding.kind == kind]

    def model(self, node: ast.Expr) -> Path:
        """The model file that an expression means: a path, or the name of a binding."""
        if isinstance(node, ast.Ref) and node.name in self.of_kind("model"):
            return self._model(node.name)
        if isinstance(node, ast.String):
            return self.folder / node.value
        if isinstance(node, ast.Ref):
            help = f'a path stands in quotes: "{node.name}"' if node.name.endswith(".onnx") else ""
            help = help or near(node.name, self.of_kind("model")) or f'bind it: model {node.name} = "{node.name}.onnx"'
            raise MlcError(Diagnostic(Code.WRONG_KIND, f"'{node.name}' is bound to no model", node.span, help=help))
        raise MlcError(_no_model(node))

    def _model(self, name: str) -> Path:
        value = self.names.bindings[name].value
        if not isinstance(value, ast.String):
            raise MlcError(_no_model(value))
        return self._base(name) / value.value

    def target(self, name: str) -> str:
        """The target called so, as the command line writes it. Errors: BAD_TARGET."""
        value = self.names.bindings[name].value
        if not isinstance(value, ast.Ref | ast.Call):
            message, help = "a target is written like a call", f"write: target {name} = ort(cpu, threads=2)"
            raise MlcError(Diagnostic(Code.WRONG_KIND, message, value.span, label=f"this is {what(value)}", help=help))
        text = _target_text(value, self._base(name))
        try:
            parse_target(text)
        except MlcError as e:
            raise MlcError([dataclasses.replace(d, span=value.span) for d in e.diagnostics]) from None
        return text

    def data(self, name: str) -> Declared:
        """The data called so, not opened. Errors: everything wrong with how it was written; USER_CODE."""
        binding = self.names.bindings[name]
        declared = declare_node(binding.value, base=self._base(name), names=self.names)
        refused = refusal(declared.source.code, FILES, span=binding.span) if declared.source.code else None
        if refused is not None:
            raise MlcError(refused)
        return declared

    def present(self, name: str) -> Declared:
        """The data called so, whose files are there. Errors: NOT_FOUND at the statement that binds it."""
        data = self.data(name)
        paths = [
            getattr(data.source, field.name)
            for field in dataclasses.fields(data.source)  # type: ignore[arg-type]  # every source is a dataclass
            if field.metadata["unit"] == "path"
        ]
        lost = [path for path in paths if path is not None and not Path(path).exists()]
        if lost:
            span, help = self.names.bindings[name].span, "paths in a recipe file are relative to the file"
            raise MlcError(
                [Diagnostic(Code.NOT_FOUND, f"there is no data file {path!r}", span, help=help) for path in lost]
            )
        return data

    def _base(self, name: str) -> Path:
        return self.bases.get(name, self.folder)

    # ---- data and what it is for ----

    def roles(self, named: Sequence[tuple[str, Span | None]]) -> tuple[str | None, str | None]:
        """The names of the data that calibrates and of that which judges; `named` is what steps ask for.

        What steps name by `data=` calibrates. Where none does, the only data there is does (and a share of it judges),
        or the only one without labels. Of the rest, the only one judges, or the only one with labels.
        """
        asked = dict(named)
        if len(asked) > 1:
            first, second = list(asked)[:2]
            message = f"one run calibrates with one data set, and steps name '{first}' and '{second}'"
            raise MlcError(Diagnostic(Code.CANNOT_HONOUR, message, asked[second], help=f"write data={first} in both"))
        own = [name for name in self.of_kind("data") if "." not in name]
        calibrates = next(iter(asked), None) or (own[0] if len(own) == 1 else self._only(own, labels=False))
        rest = [name for name in own if name != calibrates]
        judges = rest[0] if len(rest) == 1 else self._only(rest, labels=True)
        unclear = rest[0] if rest and judges is None else own[0] if own and calibrates is None else None
        if unclear is not None:
            span = self.names.bindings[unclear].span
            help = "name what calibrates in the steps, int8(data=NAME), and keep one more that judges, with labels=KEY"
            message = f"it is not clear which of {', '.join(own)} calibrates and which judges"
            raise MlcError(Diagnostic(Code.NO_DATA, message, span, help=help))
        return calibrates, judges

    def _only(self, names: Sequence[str], *, labels: bool) -> str | None:
        found = [name for name in names if (self.data(name).selection.labels is not None) is labels]
        return found[0] if len(found) == 1 else None


_CHECKS: dict[str, Callable[[Bindings, str], object]] = {
    "model": Bindings._model,
    "data": Bindings.data,
    "target": Bindings.target,
}


def _target_text(value: ast.Expr, base: Path) -> str:
    """A target's expression as text; a cost table named in it is relative to the file."""
    if not isinstance(value, ast.Call):
        return expression(value)
    parts = []
    for argument in value.arguments:
        inner = argument.value
        if isinstance(inner, ast.String):
            text = str(base / inner.value) if inner.value.endswith(".json") else inner.value
        else:
            text = expression(inner)
        parts.append(f"{argument.name}={text}" if argument.name is not None else text)
    return f"{value.name}({', '.join(parts)})"


def _no_model(node: ast.Expr) -> Diagnostic:
    if isinstance(node, ast.Call | ast.Chain):
        message = "a model that steps make cannot be compiled yet"
        return Diagnostic(Code.NOT_YET, message, node.span, help="write the path of an .onnx file in quotes")
    message = "a model is the path of an .onnx file"
    return Diagnostic(
        Code.WRONG_KIND, message, node.span, label=f"this is {what(node)}", help='write: model m = "net.onnx"'
    )
