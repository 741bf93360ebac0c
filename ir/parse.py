"""Reads the text form of a module (ir/text.py). Recursive descent; stops at the first mistake with a caret."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .constants import Constant
from .core import Graph, Loc, Meta, Module, Op, Value
from .parse_attrs import AttrParser
from .parse_types import TypeParser
from .text import FORMAT
from .tokens import Scanner
from .types import Type

_HEADERS = ("opset", "meta", "properties", "graph_properties")


def parse_module(text: str, constants: Mapping[str, Value | Constant], *, name: str = "<ir>") -> Module:
    """The module that `print_module` printed as `text`. `constants` holds what the text names (`payloads(module)`)."""
    parser = _Parser(Scanner(text, name), constants)
    try:
        return parser.module()
    except RecursionError:
        parser.scan.fail("the text is nested too deeply")


class _Parser:
    def __init__(self, scanner: Scanner, constants: Mapping[str, Value | Constant]) -> None:
        self.scan = scanner
        self._types = TypeParser(scanner)
        self._attrs = AttrParser(scanner, self._types, self._payload)
        self._constants = constants
        self._module = Module(Graph(), opset=0)
        self._scope: dict[str, Value] = {}
        self._names: set[str] = set()

    # -- the module ----------------------------------------------------------------------------------------------

    def module(self) -> Module:
        scan = self.scan
        self._format()
        while scan.kind == "word" and scan.text in _HEADERS:
            self._header(scan.step())
        if not self._module.opset:
            scan.fail("expected 'opset: N'")
        while scan.accept("const"):
            self._const()
        while scan.accept("default"):
            self._default()
        scan.take("graph")
        self._module.graph = self._graph()
        if scan.kind != "end":
            scan.fail("expected the end of the text")
        return self._module

    def _format(self) -> None:
        scan = self.scan
        scan.take("format")
        scan.take(":")
        if scan.kind == "number" and scan.text.isdigit() and int(scan.text) > FORMAT:
            scan.fail(
                f"format {scan.text} was written by a newer version of mlc; this one reads {FORMAT}",
                help="update mlc, or print the module with this version",
            )
        if scan.integer() != FORMAT:
            scan.fail(f"expected 'format: {FORMAT}'")

    def _header(self, kind: str) -> None:
        scan, module, meta = self.scan, self._module, self._module.meta
        if kind == "opset":
            domain = "" if scan.is_mark(":") else scan.word()
            scan.take(":")
            if domain:
                module.opsets[domain] = scan.integer()
            else:
                module.opset = scan.integer()
        elif kind == "meta":
            self._meta(meta)
        else:
            key = scan.string()
            scan.take(":")
            getattr(meta, kind)[key] = scan.string()

    def _meta(self, meta: Meta) -> None:
        scan = self.scan
        readers: Mapping[str, Callable[[], object]] = {
            "producer_name": scan.string,
            "producer_version": scan.string,
            "domain": scan.string,
            "model_version": scan.integer,
            "doc": scan.string,
        }
        if scan.text not in readers:
            scan.fail(f"expected one of {', '.join(readers)}")
        field = scan.step()
        scan.take(":")
        setattr(meta, field, readers[field]())

    def _payload(self, name: str, type: Type) -> Constant:
        """The constant that the text names; the scanner stands behind the name's type."""
        found = self._constants.get(name)
        constant = found.constant if isinstance(found, Value) else found
        if constant is None:
            self.scan.fail(f"constant {name!r} is not among those given", help="pass payloads(module) of its module")
        if constant.type != type:
            self.scan.fail(f"constant {name!r} is {constant.type}, not {type}")
        return constant

    def _const(self) -> None:
        scan = self.scan
        value = self._definition()
        value.constant = self._payload(value.name, value.type)
        if scan.accept("sha256") and scan.string() != value.constant.digest():
            scan.fail(f"the elements of constant {value.name!r} have another SHA-256")
        self._module.constants[value.name] = value
        self._scope[value.name] = value

    def _default(self) -> None:
        name = self.scan.string()
        self.scan.take("=")
        self.scan.take("tensor")
        self._module.defaults[name] = self._attrs.tensor()

    # -- graphs --------------------------------------------------------------------------------------------------

    def _graph(self) -> Graph:
        scan = self.scan
        graph = Graph(scan.word())
        scan.take("(")
        while not scan.accept(")"):
            if graph.inputs:
                scan.take(",")
            graph._add_input(self._definition())
        if scan.accept("doc"):
            graph.doc = scan.string()
        scan.take("{")
        visible = list(graph.inputs)
        self._scope.update((v.name, v) for v in visible)
        while not scan.accept("return"):
            op = self._op()
            graph._insert(op)
            visible += op.results
            self._scope.update((v.name, v) for v in op.results)
        if not scan.is_mark("}"):
            self._outputs(graph)
        scan.take("}")
        for value in visible:  # names of a body end with it
            self._scope.pop(value.name, None)
        return graph

    def _outputs(self, graph: Graph) -> None:
        scan = self.scan
        while True:
            value = self._operand()
            if value is None:
                scan.fail("an output cannot be left out")
            name = scan.string() if scan.accept("as") else value.name
            graph._add_output(value, name)
            if scan.accept("doc"):
                graph.output_docs[name] = scan.string()
            if not scan.accept(","):
                return

    def _definition(self) -> Value:
        """`%name : type`, and what else is known of the value where it is defined."""
        scan = self.scan
        name, start, end = "", scan.start, scan.end
        if scan.kind == "value" or not scan.accept("_"):
            name = scan.reference("value", "a value such as %x")
            if not name or name in self._names:
                problem = f"value {name!r} is defined twice" if name else "a value needs a name; _ is a result left out"
                raise scan.error(problem, start, end)
            self._names.add(name)
        scan.take(":")
        value = Value(self._types.type(), name)
        if scan.accept("is"):
            value.dims = self._types.elements()
        if scan.accept("declared"):
            value.declared = self._types.type() if self._types.begins() else value.type
        if scan.accept("doc"):
            value.doc = scan.string()
        return value

    def _operand(self) -> Value | None:
        scan = self.scan
        if scan.kind == "word" and scan.accept("none"):
            return None
        start, end = scan.start, scan.end
        name = scan.reference("value", "a value such as %x, or none")
        found = self._scope.get(name)
        if found is None:
            help = "values are defined before they are used" if name in self._names else ""
            raise scan.error(f"value {name!r} is not defined here", start, end, help=help)
        return found

    # -- ops -----------------------------------------------------------------------------------------------------

    def _op(self) -> Op:
        scan = self.scan
        results = self._results()
        scan.take("=")
        kind = scan.word()
        scan.take("(")
        operands: list[Value | None] = []
        while not scan.accept(")"):
            if operands:
                scan.take(",")
            operands.append(self._operand())
        attrs = self._attrs.attrs() if scan.is_mark("{") else {}
        name = scan.reference("node", "a node's name") if scan.kind == "node" else ""
        loc = self._loc() if scan.accept("loc") else Loc(name)
        overload = scan.string() if scan.accept("overload") else ""
        meta = self._op_meta() if scan.accept("meta") else {}
        doc = scan.string() if scan.accept("doc") else ""
        regions: dict[str, Graph] = {}
        while scan.accept("region"):
            key = scan.word()
            regions[key] = self._graph()
        op = Op(kind, operands, attrs, results, regions=regions, name=name, loc=loc)
        op.overload, op.meta, op.doc = overload, meta, doc
        return op

    def _results(self) -> list[Value]:
        scan = self.scan
        if scan.accept("("):
            scan.take(")")
            return []
        results = [self._definition()]
        while scan.accept(","):
            results.append(self._definition())
        return results

    def _loc(self) -> Loc:
        scan = self.scan
        scan.take("(")
        origin, passes = scan.string(), []
        while scan.accept(","):
            passes.append(scan.word())
        scan.take(")")
        return Loc(origin, tuple(passes))

    def _op_meta(self) -> dict[str, str]:
        scan = self.scan
        scan.take("{")
        found: dict[str, str] = {}
        while not scan.accept("}"):
            if found:
                scan.take(",")
            key = scan.string()
            scan.take(":")
            found[key] = scan.string()
        return found
