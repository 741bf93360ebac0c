"""Examples of the messages that docs/errors.md has no room for: what is run, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kit import demanding
from kit import error_models as models


@dataclass(frozen=True)
class Case:
    """A command line (`mlc ...`) or Python that ends in a message."""

    title: str
    run: str
    files: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda folder: None


def _recipe(title: str, text: str, options: str = "", prepare: Callable[[Path], object] = lambda folder: None) -> Case:
    quoted = text.replace("'", "'\"'\"'")
    return Case(title, f"mlc compile net.onnx -r '{quoted}' {options}".strip(), prepare=prepare)


def _file(title: str, text: str, run: str = "mlc compile net.onnx -r x.mlc") -> Case:
    return Case(title, run, {"x.mlc": text})


def _model(title: str, run: str, prepare: Callable[[Path], object]) -> Case:
    return Case(title, run, prepare=prepare)


def _data(title: str, source: str, prepare: Callable[[Path], object] = models.samples, run: str = "") -> Case:
    made = run or "mlc compile net.onnx -r int8"
    return Case(title, f"{made} --data '{source}'", prepare=prepare)


_LOAD = 'import mlc\nmodule = mlc.load("net.onnx")\n'
_SIZES = "from mlc.ir.cost import bind\nfrom mlc.ir.dims import Sym, fresh\n"
_ALLOCATE = "from mlc.passes.quantize.allocate import allocate\n"
_RUNNER = "from mlc.backends.runner import OrtRunner\n"
_DOUBLE = "recipe a0 = fp16\n" + "".join(f"recipe a{i + 1} = a{i} + a{i}\n" for i in range(13))
_LONG = "x" * 252  # with a suffix no file has such a name
_TWO = "graph, count=2)"
_PASS = """
from dataclasses import dataclass
from typing import ClassVar
from mlc.passes.base import LOSSY, Need, Pass, Plan, option

@dataclass(frozen=True)
class Mine(Pass):
    name: ClassVar[str] = "mine"
    effect: ClassVar = LOSSY
    needs: ClassVar = frozenset({NEEDS})
    ratio: float | None = option(None, unit="ratio", doc="how much")

    def plan(self, module, ctx):
        return Plan()

    def apply(self, rw, plan, ctx):
        return ()
"""

_METRIC = {"m.py": "def wer(wanted, found):\n    return 0.0\n"}


def _metric(title: str, recipe: str, option: str) -> Case:
    return Case(f"metric: {title}", f"mlc compile net.onnx -r '{recipe}' --metric {option}", _METRIC)


COMMANDS = (
    Case("command: axes without their option", "mlc inspect net.onnx --all"),
    Case("command: options that exclude each other", "mlc inspect net.onnx --text --axes"),
    Case("command: sensitivity without samples", "mlc inspect net.onnx --sensitivity"),
    Case("command: mask without data", "mlc verify net.onnx net.onnx --mask m"),
    Case("command: other inputs", "mlc verify net.onnx other.onnx", prepare=models.other_inputs),
    Case("command: models that differ", "mlc verify net.onnx far.onnx", prepare=models.far),
    Case("command: calibrate another machine", "mlc calibrate --to 'ort(cpu, costs=assumed)'"),
    Case("command: name of a cost table", "mlc calibrate -o costs.txt"),
    Case("command: folder of a cost table", "mlc calibrate -o none/costs.json"),
    Case("command: several models", "mlc compile net.onnx other.onnx -r fp16", prepare=models.other_inputs),
    Case("command: a check that there is not", "mlc run x.mlc --check maybe", {"x.mlc": "recipe a = fp16\n"}),
    Case("command: fmt of - and files", "mlc fmt - x.mlc"),
    Case("command: init of no recipe", "mlc init net.onnx -o recipe.txt"),
    Case("command: labels without data", "mlc compile net.onnx -r fp16 --labels y"),
    Case("command: no report", "mlc compare net.onnx net.onnx"),
    Case("command: not a report", "mlc compare x.json x.json", {"x.json": "{}"}),
    Case("command: part of a report", "mlc compare x.json x.json", {"x.json": '{"format": 1}'}),
    Case("command: a newer report", "mlc compare x.json x.json", {"x.json": '{"format": 2}'}),
    _recipe("target: not a cost table", "int4", "--to 'ort(cpu, costs=x.json)'", models.text("x.json", "{}")),
    _recipe(
        "target: a newer cost table", "int4", "--to 'ort(cpu, costs=x.json)'",
        models.text("x.json", '{"format": 2, "kind": "costs of ort(cpu)"}'),
    ),
    _recipe("output: the source", "fp16", "-o net.onnx --force"),
    Case("output: a name that no folder has", f"mlc compile net.onnx -r fp16 -o {_LONG}.mlc"),
    Case("output: a name that no recipe has", f"mlc init net.onnx -o {_LONG}.mlc"),
    Case("recipe: a name that no file has", f"mlc compile net.onnx -r {_LONG}{_LONG}.mlc"),
    Case("model: a name that no file has", f"mlc inspect {_LONG}{_LONG}.onnx"),
    _recipe("output: suffix", "fp16", "-o net.tflite"),
    _recipe("output: files of others", "fp16", "-o out --force", models.text("out/thesis.txt", "mine")),
    _recipe("output: opset", "fp16", "--opset 99"),
    _recipe("output: opset too old for an operator", "int4(block=32)", "--opset 9", models.wide),
)  # fmt: skip

METRICS = (
    _metric("no function", "fp16", "wer"),
    _metric("which side", "fp16 where wer == 3", "wer=m.py:wer"),
    _metric("no samples", "fp16 where wer <= 3", "wer=m.py:wer"),
    _metric("in no bound", "fp16 where size <= 1x", "wer=m.py:wer"),
    _metric("a name that is taken", "fp16 where size <= 1x", "size=m.py:wer"),
    Case(
        "metric: ends the program",
        "mlc compile net.onnx -r 'fp16 where wer <= 3' --eval samples.npz --metric wer=ends.py:wer",
        {"ends.py": "import sys\n\ndef wer(outputs, labels):\n    sys.exit(3)\n"},
        models.samples,
    ),
    Case("metric: memory of numbers that no file holds", models.BFLOATS),
)

_MARK = _PASS.replace("NEEDS", "")


def _passes(title: str, text: str, recipe: str = "recipe a = m.mine + simplify") -> Case:
    files = {"x.mlc": f'use "p.py" as m\n{recipe}\n', "p.py": text}
    return Case(f"passes: {title}", "mlc compile net.onnx -r x.mlc", files)


PASSES = (
    _passes("raises", "import a_package_that_is_not_installed\n"),
    _passes("none in the file", "x = 1\n"),
    _passes("no subclass", "class Mine:\n    name = 'mine'\n    plan = apply = print\n"),
    _passes("a flaw", _MARK.replace("def apply", "def aply")),
    _passes("two of one name", _MARK + _MARK[_MARK.index("@") :].replace("class Mine", "class Other")),
    _passes("a bug", _MARK.replace("return ()", "return [1 / 0]")),
    _passes("ends the program in plan", _MARK.replace("return Plan()", "raise SystemExit")),
    _passes("ends the program in apply", _MARK.replace("return ()", "raise SystemExit(3)")),
    _passes("ends as a command line does", _MARK.replace("return ()", "import typer; raise typer.Exit(0)")),
    _passes("reads from a terminal", _MARK.replace("return ()", "raise EOFError('no terminal')")),
    _passes("mistyped", _MARK, "recipe a = m.min(10%)"),
    _passes("the file itself", _MARK, "recipe a = m"),
    _passes("no such file", _MARK, 'use "q.py"\nrecipe b = q.mine'),
    _recipe("passes: without a file", "m.mine + fp16"),
)

MODELS = (
    _model("model: domain mlc", "mlc inspect m.onnx", models.internal_domain),
    _model("model: training graphs", "mlc inspect m.onnx", models.training),
    _model("model: a map", "mlc inspect m.onnx", models.zipmap),
    _model("model: attribute with graphs", "mlc inspect m.onnx", models.graphs_attribute),
    _model("model: tensor in segments", "mlc inspect m.onnx", models.segments),
    _model("model: IR version 2", "mlc inspect m.onnx", models.ancient),
    _model("model: surplus results", "mlc inspect m.onnx", models.surplus),
    _model("model: operands that are not accepted", "mlc inspect m.onnx", models.wrong_rank),
    _model("model: runs with no synthetic input", "mlc compile m.onnx -r fp16", models.picky),
    _model("model: an input of a kind nobody makes up", "mlc compile m.onnx -r fp16", models.sequence_input),
    _model("model: cannot be raised", "mlc inspect m.onnx", models.spatial),
    _model("loop: what no model can tell", "mlc compile m.onnx -r 'simplify until cosine <= 0.5'", models.integers),
    _model("bound: classes of a model without", "mlc compile m.onnx -r 'fp16 where agreement >= 99%'", models.images),
)  # fmt: skip

RECIPES = (
    _recipe("bound: not measured", "fp16 where cosine >= 0.9", "--check fast"),
    _recipe("bound: flops of unknown sizes", "fp16 where flops <= 1x", "--check none"),
    _recipe("bound: accuracy without labels", "fp16 where acc_drop <= 1pp"),
    _recipe("loop: ended early", "fp16 until size <= 0.1x"),
    _recipe("prune: override without ratio", 'prune(50%, overrides="fc1")'),
    _recipe("prune: override without pattern", 'prune(50%, overrides=": 20%")'),
    _recipe("prune: override out of range", 'prune(50%, overrides="fc1: 200%")'),
    _recipe("prune: override of nothing", 'prune(50%, overrides="fc3: 20%")'),
    _recipe("prune: override of what stays", 'prune(50%, overrides="fc2: 20%")'),
    _recipe("prune: penalty without a fit", "prune(50%, reconstruct=off, penalty=0.1)"),
    _recipe("prune: nothing to remove", 'prune(50%) on "fc2"'),
    _recipe("prune: widths without a ratio", "prune(widths=true)"),
    _recipe("prune: zeros that are none", 'prune(kind="4:2")'),
    _recipe("prune: unknown kind", 'prune(50%, kind="blocks")'),
    _recipe("prune: zeros and widths", 'prune(50%, kind="2:4", widths=true)'),
    _recipe("correct_bias alone", "correct_bias", "--data samples.npz", models.samples),
    _recipe("int4: precision of floats", "int4(accuracy_level=0, compute=floats)"),
    _recipe("weights: no bits", "weights([])"),
    _recipe("weights: saving of one number of bits", "weights(4, saving=50%)"),
    _recipe("int8: observer without ranges", "int8(mode=dynamic, observer=entropy)"),
    _recipe("recipe: data for a step that takes none", "fp16(data=d)"),
    Case(
        "recipe: data for a rounding that takes none",
        "mlc compile net.onnx -r x.mlc",
        {"x.mlc": 'data d = npz("samples.npz")\nrecipe a = int4(method=rtn, data=d)\n'},
        models.samples,
    ),
    _file("data: a number in a file", "data d = 3\nrecipe a = int8\n"),
    _file("bound: of a target without a name", "target t = ort(cpu)\nrecipe a = fp16 where size <= 1x for t\n"),
    _file(
        "loop: of another target",
        "target t = ort(cpu)\ntarget u = ort(cpu, threads=2)\nrecipe a = fp16 until latency < 1ms for t\n"
        'compile "net.onnx" with a to u\n',
        "mlc run x.mlc",
    ),
    _recipe("recipe: deep brackets", "(" * 40 + "fp16" + ")" * 40),
    _recipe("recipe: repeats too often", "(fp16 times 900) times 900"),
    _file("recipe: grows too large", _DOUBLE, "mlc compile net.onnx -r x.mlc:a13"),
    _file("recipe: two objectives", "recipe a = fp16 minimize size\nrecipe b = a minimize size\n"),
    _file("recipe: let with arguments", "let q = int4\nrecipe a = q(block=32)\n"),
    _file("recipe: selector as a value", 'let s = on "fc1"\nrecipe a = int4(block=s)\n'),
    _file("recipe: parameter called like a statement", "let q = int4\nrecipe a(q) = int4(block=q)\n"),
    _file("recipe: more than one recipe of a file", "recipe small(r) = prune(r)\n",
          "mlc compile net.onnx -r 'x.mlc:small(50%) + fp16'"),
    _file("data: a file that is not there", 'data d = npz("none.npz")\nrecipe a = int8\n'),
    _file("recipe: no such recipe", "recipe small = fp16\n", "mlc compile net.onnx -r x.mlc:smal"),
    _file("recipe: one without a name", "fp16\n", "mlc compile net.onnx -r x.mlc:small"),
    _model("recipe: a folder", "mlc compile net.onnx -r folder.mlc", lambda f: (f / "folder.mlc").mkdir()),
    _model(
        "recipe: not text", "mlc compile net.onnx -r x.mlc", lambda f: (f / "x.mlc").write_bytes(b"\xff\xfe\x00")
    ),
    Case("run: a recipe", "mlc run fp16"),
    _file("run: one recipe of a file", "recipe a = fp16\n", "mlc run x.mlc:a"),
    _file("run: nothing to run", "recipe a = fp16\n", "mlc run x.mlc"),
    _file("run: no model", 'recipe a = fp16\ncompile "none.onnx" with a\n', "mlc run x.mlc"),
    _file("run: unbound model", "recipe a = fp16\ncompile nett with a\n", "mlc run x.mlc"),
    _file(
        "run: two of one name",
        'recipe a = fp16\ncompile "net.onnx" with a\ncompile "net.onnx" with a\n',
        "mlc run x.mlc",
    ),
    _file(
        "run: many mistakes",
        'data d = npz("none.npz")\nrecipe a(r) = prune(r) + int8(data=d)\nrecipe b = fp16 where acc_drop <= 1pp\n'
        'compile "none.onnx" with a(50)\ncompile "net.onnx" with aa to phone\ncompile "net.onnx" with b\n',
        "mlc run x.mlc",
    ),
    _file("run: no data", 'compile "net.onnx" with int8 + correct_bias\n', "mlc run x.mlc"),
    Case(
        "run: no labels",
        "mlc run x.mlc",
        {"x.mlc": 'use "p.py" as m\ncompile "net.onnx" with m.mine\n', "p.py": _PASS.replace("NEEDS", "Need.LABELS")},
    ),
    _file("run: a goal in a statement", 'compile "net.onnx" with fp16 where size <= 1x\n', "mlc run x.mlc"),
    Case(
        "run: two data sets calibrate",
        "mlc compile net.onnx -r x.mlc",
        {"x.mlc": 'data d = npz("s.npz")\ndata e = npz("s.npz")\nrecipe a = smooth(data=d) + int8(data=e)\n'},
    ),
    Case(
        "run: who calibrates",
        "mlc compile net.onnx -r x.mlc",
        {"x.mlc": 'data d = npz("s.npz")\ndata e = npz("s.npz")\nrecipe a = int8\n'},
    ),
)  # fmt: skip

_CHECK = "mlc data check m.onnx"
_INT8 = "mlc compile m.onnx -r int8"

_PHOTO = models.text("photos/a.jpg", "")
_WRITTEN = "def _load(): ...\ndef one(x): ...\ndef rows(): ...\n"

OTHER_FILES = (
    _data("data: a Python file", "mine.py", models.text("mine.py", _WRITTEN)),
    _data("data: a Python file without a function", "mine.py", models.text("mine.py", "x = 1\n")),
    _data("data: a model", "net.onnx"),
    _data("data: a folder of photos", "photos", models.photos, "mlc data check m.onnx"),
    _data("data: a folder of photos for no images", "photos", _PHOTO),
    _data("data: sources joined", 'images("a") + text("b", tokenizer="c")'),
    _model("model: an archive of arrays", "mlc compile samples.npz -r int8", models.samples),
    _model("model: a PyTorch file", "mlc compile net.pt -r int8", models.checkpoint),
    Case("command: data of verify", "mlc verify net.onnx net.onnx --data samples.npz"),
    Case("command: labels of verify", "mlc verify net.onnx net.onnx --labels y"),
    Case("command: data of bench", "mlc bench net.onnx net.onnx --eval samples.npz"),
)

_UNSEEDED = """
import numpy as np

def rows():
    for _ in range(8):
        yield {"x": np.random.default_rng().standard_normal(64, np.float32)}
"""

DEMANDS = (
    _data("data: a token beyond the table", "samples.npz", models.tokens(demanding.sliced, length=9, last=50), _CHECK),
    _data("data: a token beyond it: int8", "samples.npz", models.tokens(demanding.sliced, length=9, last=50), _INT8),
    _data("data: samples longer than positions", "samples.npz", models.tokens(demanding.sliced, length=20), _CHECK),
    _data("data: positions by length", "samples.npz", models.tokens(demanding.counted_by_length, length=20), _CHECK),
    _data("data: positions by tokens", "samples.npz", models.tokens(demanding.counted_by_tokens, length=20), _INT8),
    _data("data: sides that do not fit", "samples.npz", models.sides(33, 46), _CHECK),
    _data("data: a side that does not fit", "samples.npz", models.sides(32, 46), _INT8),
    _data("data: sides too small", "samples.npz", models.sides(3, 3), _INT8),
    _data("data: labels that are one-hot", "labels.npz", models.labelled([[0, 1] + 8 * [0]] * 8),
          "mlc compile net.onnx -r int8 --labels y"),
    _data("data: labels between classes", "labels.npz", models.labelled([0, 1, 2.5, 3]),
          "mlc compile net.onnx -r int8 --labels y"),
    _data("data: a function that ends the program", "ends.py:rows",
          models.text("ends.py", "import sys\n\ndef rows():\n    sys.exit(0)\n    yield {}\n")),
    _data("data: a function that is not seeded", "mine.py:rows", models.text("mine.py", _UNSEEDED),
          "mlc data check net.onnx"),
)  # fmt: skip

DATA = (
    _data("data: seed of nothing", 'npz("samples.npz", seed=1)'),
    _data("data: no source", 'nzp("samples.npz")'),
    _data("data: a number", "[1, 2]"),
    _data("data: labels twice", 'npz("samples.npz", labels="a")', run="mlc compile net.onnx -r int8 --labels b"),
    _data("data: text without a tokenizer", "x.txt", models.text("x.txt", "one\n")),
    _data("data: labels without classes", "images.npz", models.labelled_images,
          run="mlc compile m.onnx -r fp16 --labels y"),
    _data("data: labels that do not fit", "labels.npz", models.odd_labels,
          run="mlc compile net.onnx -r fp16 --labels y"),
    _data("data: a label without a class", "labels.npz", models.high_label,
          run="mlc compile net.onnx -r fp16 --labels y"),
    _data("data: labels of text beside accuracy", "labels.npz", models.labelled(["a line", "another"]),
          run="mlc compile net.onnx -r 'fp16 where wer <= 5%, acc_drop <= 1pp' --metric wer=m.py:wer --labels y"),
    _data("data: strings", "samples.npz", models.strings, run="mlc compile m.onnx -r int8"),
    _data("data: a sequence", "samples.npz", models.sequence_data, run="mlc compile m.onnx -r int8"),
    _data("data: slices of a fixed batch", "slices.npz", models.fixed_batch, run="mlc compile m.onnx -r int8"),
    _data("data: an archive for an array", "d", models.archive, run="mlc compile net.onnx -r int8"),
    _data("data: no array", "d", models.no_array, run="mlc compile net.onnx -r int8"),
    _data("mask: no such input", "samples.npz", run="mlc compile net.onnx -r int8 --mask m"),
    _data("mask: fixed length", "samples.npz", run="mlc compile net.onnx -r int8 --mask x"),
    *(
        _data(f"mask: {name}", "m.npz", models.masked(name), run="mlc compile m.onnx -r int8 --mask mask")
        for name in ("alone", "slices", "values", "holes", "nothing")
    ),
    Case("data: an object", f"{_LOAD}mlc.compile(module, 'int8', data=3)"),
    Case("data: a function that yields less", models.LESS),
    Case("data: no array from a function", models.OBJECTS),
)  # fmt: skip

PYTHON = (
    Case("python: weights that went away", models.GONE),
    Case("python: a size that nobody knows", f"{_SIZES}bind(fresh(), {{}})"),
    Case("python: a size without a number", f'{_SIZES}bind(Sym("N"), {{}})'),
    Case("python: evaluating random numbers", models.RANDOM),
    Case("python: evaluating an unknown operator", models.UNKNOWN),
    Case("python: evaluating without inputs", f"{_LOAD}from mlc.ir.evaluate import evaluate\nevaluate(module, {{}})"),
    Case("python: types that cannot be inferred", models.INSERT),
    Case("python: too many results", models.INSERT.replace("my.domain::Frob", "Relu").replace("graph)", _TWO)),
    Case("python: operands that are not accepted", models.INSERT.replace("my.domain::Frob", "StringNormalizer")),
    Case("python: no calibration data", models.SOURCES),
    Case("python: a model that cannot be written", f'{_LOAD}mlc.save(module, "{_LONG}{_LONG}.onnx")'),
    Case("python: costs that cannot be written", models.COSTS.replace("NAME", _LONG)),
    Case("python: a check that there is not", f"{_LOAD}mlc.compile(module, 'fp16', check='maybe')"),
    Case("python: a place of weights that there is not", f"{_LOAD}mlc.compile(module, 'fp16', external='maybe')"),
    Case("python: a field of the wrong type", 'import mlc\nmlc.passes.Prune(ratio="half")'),
    Case("python: a field that is NaN", 'import mlc\nmlc.passes.Prune(ratio=float("nan"))'),
    Case("python: overrides", 'import mlc\nmlc.passes.Prune(ratio=0.5, overrides={"a,b": 0.2})'),
    Case("python: no strength", f"{_PASS.replace('NEEDS', '')}\nMine().at(0.5)"),
    Case("python: labels", f"{_LOAD}{_PASS.replace('NEEDS', 'Need.LABELS')}\nmlc.compile(module, [Mine()])"),
    Case("python: order", f"{_LOAD}mlc.compile(module, [mlc.passes.Int4(), mlc.passes.Prune(ratio=0.5)])"),
    Case("python: a pass without data", f"{_LOAD}mlc.passes.Smooth()(module)"),
    Case("python: a pass of the same name", models.SHADOW, prepare=models.shadow),
    Case("python: a pass without units", models.UNITS),
    Case("python: a recipe that is none", f"{_LOAD}mlc.compile(module, 3)"),
    Case("python: a name that is no name", models.PRINT_NAME),
    Case("python: a text with line breaks", models.PRINT_TEXT),
    Case("python: a refinement that is none", models.REFINE),
    Case("python: a budget too small", f"{_ALLOCATE}allocate([[2.0]], [[1.0]], 1.0)"),
    Case("python: no option", f'{_ALLOCATE}allocate([[float("inf")]], [[1.0]], 1.0)'),
    Case("python: no such value", f'{_LOAD}{_RUNNER}OrtRunner().prepare(module, ["none"])'),
    Case("python: a session without inputs", 'from mlc.backends.ort import Session\nSession("net.onnx").run({})'),
    Case("python: a session with wrong shapes", models.WRONG_FEED),
    Case("python: an operator of mlc in a file", models.INTERNAL),
)  # fmt: skip

CASES = (*COMMANDS, *METRICS, *PASSES, *MODELS, *RECIPES, *DEMANDS, *OTHER_FILES, *DATA, *PYTHON)
