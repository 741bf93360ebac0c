"""One example for each error code: what it means, what causes it, and the fix. docs/errors.md is made from it.

An example is a command line or a piece of Python that runs in a folder of its own, where `net.onnx` is a network of
two dense layers and `prepare` has written whatever else there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from kit.broken_models import good, model
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mlc.ir.errors import Code

GROUPS = {
    "E01": "Recipes: syntax",
    "E02": "Recipes: names and values",
    "E03": "Bounds",
    "E04": "Selectors and requests",
    "E05": "Data, targets and needs",
    "E06": "Model files",
    "E07": "The IR",
    "E08": "Files and the environment",
}


@dataclass(frozen=True)
class Example:
    """`run` raises `code`. `given` says in words what `prepare` writes; `files` are text files, shown as they are."""

    code: Code
    means: str
    run: str
    fix: str
    given: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda folder: None
    status: int = 2

    @property
    def is_command(self) -> bool:
        return self.run.startswith("mlc ")


def _recipe(text: str) -> str:
    return f"mlc compile net.onnx -r '{text}'"


def _onnx(name: str, made: Callable[[], ModelProto]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(made().SerializeToString())


def _future() -> ModelProto:
    made = good()
    made.opset_import[0].version = 999
    return made


def _diverged() -> ModelProto:
    made = good()
    made.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((4, 4), np.nan, np.float32), "w"))
    return made


def _undefined() -> ModelProto:
    return model([helper.make_node("Add", ["x", "missing"], ["y"], "sum")])


def _apart() -> ModelProto:
    """Weights in a file that is not there."""
    made = good()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    for key, text in (("location", "weights.bin"), ("offset", "0"), ("length", "64")):
        tensor.external_data.add(key=key, value=text)
    return made


def _unrunnable() -> ModelProto:
    """Well-formed, but of an operator whose library the runtime does not have."""
    made = model([helper.make_node("Frobnicate", ["x"], ["y"], "custom", domain="my.domain")])
    made.opset_import.append(helper.make_opsetid("my.domain", 1))
    return made


def _outer() -> ModelProto:
    """A small model with an output of any size."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("a", ["N", 1]), ("b", [1, "N"]))]
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "N"])
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"], "outer")], "outer", ends, [made])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _installed(folder: Path) -> None:
    """A package that registers a pass and cannot be imported."""
    info = folder / "thin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mlc.passes]\nthin = thin_passes:Thin\n")
    (folder / "thin_passes.py").write_text("import a_package_that_is_not_installed\n")


EXAMPLES: tuple[Example, ...] = (
    # -- recipes: syntax ---------------------------------------------------------------------------------------------
    Example(
        Code.SYNTAX,
        "The text is not a recipe: something stands where the language has no place for it, or something is missing.",
        _recipe("prune(50% + int4"),
        "Look at the caret: it is where reading stopped, with what could have followed. Steps are joined by `+`, "
        "arguments stand in parentheses ([recipes](recipes.md)).",
    ),
    Example(
        Code.CHARACTER,
        "A character that recipes do not use, a string without its end, or a recipe file that is not text.",
        _recipe("prune & int4"),
        "Join steps by `+`; quote patterns that hold other characters.",
    ),
    # -- recipes: names and values -----------------------------------------------------------------------------------
    Example(
        Code.UNFORMATTED,
        "`mlc fmt --check` found a file that `mlc fmt` would write otherwise.",
        "mlc fmt --check small.mlc",
        "Run `mlc fmt` on it: the recipes stay what they are, and comments stay.",
        files={"small.mlc": "recipe small=prune:50%+int4 # half\n"},
    ),
    Example(
        Code.UNKNOWN_STEP,
        "No pass and no recipe has this name.",
        _recipe("prun + int4"),
        "Take a name from `mlc passes`, or define it in a recipe file.",
    ),
    Example(
        Code.UNKNOWN_ARGUMENT,
        "The step has no argument of this name, or takes fewer without a name.",
        _recipe("int4(blok=64)"),
        "`mlc passes int4` lists the arguments of a step.",
    ),
    Example(
        Code.WRONG_KIND,
        "A value, a selector or something else stands where a step is wanted, or the other way round.",
        _recipe("prune + 50%"),
        "Give values to steps as arguments; scopes follow `on`.",
    ),
    Example(
        Code.WRONG_UNIT,
        "The value has another unit or type than the argument takes.",
        _recipe("prune(ratio=50ms)"),
        "Write the unit that the message asks for: `50%`, `4KiB`, `3ms`, `1pp`.",
    ),
    Example(
        Code.OUT_OF_RANGE,
        "The value has the right type, and the step does not take it.",
        _recipe("prune(150%)"),
        "Stay in the range that the message names; `mlc passes STEP` shows it, too.",
    ),
    Example(
        Code.EMPTY_RANGE,
        "A range that holds no value: it ends before it starts, or its step is not positive.",
        _recipe("prune(60%..20% by 10%)"),
        "Write the smaller end first.",
    ),
    Example(
        Code.DUPLICATE,
        "A name, an argument or a bound is given twice.",
        _recipe("prune(ratio=50%, ratio=30%)"),
        "Keep one of the two.",
    ),
    Example(
        Code.ORDER,
        "A step must see the result of another one that comes later.",
        _recipe("int4 + prune(50%)"),
        "Exchange the steps.",
    ),
    Example(
        Code.NOT_YET,
        "The language has this feature, and the compiler cannot execute it yet.",
        _recipe("int4 | fp16"),
        "Write what the message proposes; the [roadmap](roadmap.md) says what is planned.",
    ),
    Example(
        Code.CYCLE,
        "A recipe that contains itself, directly or through others.",
        "mlc compile net.onnx -r loops.mlc:first",
        "Break the circle; to repeat steps write `times N`.",
        files={"loops.mlc": "recipe first = prune(50%) + second\nrecipe second = first + int4\n"},
    ),
    Example(
        Code.MISSING_ARGUMENT,
        "A step or a recipe needs an argument that was not given.",
        "mlc compile net.onnx -r half.mlc:all",
        "Give it, or give the parameter a default: `recipe half(share = 50%) = ...`.",
        files={"half.mlc": "recipe half(share) = prune(share)\nrecipe all = half + int4\n"},
    ),
    Example(
        Code.UNKNOWN_RECIPE,
        "The recipe file holds no recipe of this name, none at all, or several of which none was chosen.",
        "mlc compile net.onnx -r two.mlc",
        "Name one of them after a colon: `-r two.mlc:small`.",
        files={"two.mlc": "recipe small = prune + int4\nrecipe half = fp16\n"},
    ),
    # -- bounds ------------------------------------------------------------------------------------------------------
    Example(
        Code.UNKNOWN_METRIC,
        "Nothing of this name is measured.",
        _recipe("int4 where sise <= 0.3x"),
        "Take a metric from the table in [recipes](recipes.md).",
    ),
    Example(
        Code.METRIC_UNIT,
        "A bound without its unit could mean two things.",
        _recipe("int4 where size <= 0.3"),
        "Write `0.3x` for a share of the source, `300KiB` for an amount.",
    ),
    Example(
        Code.BOUND_MISSED,
        "The emitted file does not keep a bound, or outputs do not agree as promised. The best artifact was saved "
        "(exit 3).",
        _recipe("fp16 where size <= 0.1x"),
        "Loosen the bound, or let steps do more: the message proposes which.",
        status=3,
    ),
    Example(
        Code.BOUND_SENSE,
        "A bound or objective that asks for the worse side, which is nearly always a slip.",
        _recipe("int4 where size >= 0.3x"),
        "Turn the comparison around.",
    ),
    # -- selectors and requests --------------------------------------------------------------------------------------
    Example(
        Code.BAD_METRIC,
        "A function of yours that a bound names raises, or returns no finite number.",
        "mlc compile net.onnx -r 'int8 where share <= 0.1' --metric share=metrics.py:share --eval samples.npz",
        "Correct the function. It takes the outputs (for each a list with one array a sample) and the labels, a list, "
        "and returns a number ([metrics of your own](recipes.md#metrics-of-your-own)).",
        given="`samples.npz` without labels",
        files={"metrics.py": "def share(outputs, labels):\n    return sum(labels) / len(labels)\n"},
        prepare=lambda folder: np.savez(folder / "samples.npz", x=np.zeros((8, 64), np.float32)),
    ),
    Example(
        Code.NO_MATCH,
        "A selector (or an entry of an argument that holds patterns) matches nothing in this model.",
        _recipe('int4 on "fc3"'),
        "`mlc inspect MODEL --text` shows the names; `*` stands for part of one, `**` for any path.",
    ),
    Example(
        Code.BAD_SELECTOR,
        "A selector that cannot be read: an empty pattern, a broken regular expression, an unknown property.",
        _recipe('int4 on ~"("'),
        "Correct it as the message says; [recipes](recipes.md) lists patterns and properties.",
    ),
    Example(
        Code.CANNOT_HONOUR,
        "You asked for something by name that cannot be done here. What nobody asked for would only be skipped.",
        _recipe("int4 on Relu"),
        "Leave the request out, or take what the message offers.",
    ),
    Example(
        Code.SKIPPED_STRICT,
        "A step left sites alone, and `--strict` forbids that. The artifact was saved (exit 3).",
        _recipe("prune(1%)") + " --strict",
        "Change the step as the message says, take the sites out with `except`, or leave `--strict` out.",
        status=3,
    ),
    # -- data, targets and needs -------------------------------------------------------------------------------------
    Example(
        Code.NO_DATA,
        "A step, a bound or a command needs samples (or their labels), and none were given.",
        _recipe("smooth + int8"),
        "Give some dozens of real samples: `--data samples.npz`, one array per input under its name.",
    ),
    Example(
        Code.BAD_DATA,
        "The samples do not fit the inputs of the model, or cannot be read.",
        _recipe("int8") + " --data samples.npz",
        "Save them as the model takes them: names, exact types, shapes, samples on the first axis.",
        given="`samples.npz` holds an array `x` of shape [8, 32]; the input of the model is f32[N, 64].",
        prepare=lambda folder: np.savez(folder / "samples.npz", x=np.zeros((8, 32), np.float32)),
    ),
    Example(
        Code.BAD_TARGET,
        "There is no such target, it has no such argument, or its cost table cannot be used.",
        _recipe("int4") + " --to tensorrt",
        "Write a target of [targets](targets.md).",
    ),
    Example(
        Code.MISSING_EXTRA,
        "A step needs a package that does not come with mlc itself.",
        'from mlc.ir.extras import require\n\nrequire("torch", "torch", "finetune")',
        "Run the line that the message shows.",
        given="PyTorch is not installed, and a pass `finetune` asks for it.",
    ),
    Example(
        Code.BAD_DIMS,
        "A symbolic dimension has no size, or a size was given for one that the inputs do not have.",
        _recipe("int4") + " --dims T=128",
        "Write the names that the message lists: `--dims N=1`.",
    ),
    # -- model files -------------------------------------------------------------------------------------------------
    Example(
        Code.NOT_A_MODEL,
        "The file is no ONNX model: empty, cut short, text, a pointer of Git LFS, or another format.",
        "mlc inspect page.onnx",
        "Download or export the model again.",
        given="`page.onnx` is the HTML page of a failed download.",
        prepare=lambda folder: (folder / "page.onnx").write_text("<html><body>404 not found</body></html>\n"),
    ),
    Example(
        Code.BROKEN_MODEL,
        "An ONNX file that contradicts itself: a value that nothing makes, sizes that do not fit, a cycle, ...",
        "mlc inspect broken.onnx",
        "Export the model again, or correct the node that the message names.",
        given="In `broken.onnx` the node `sum` reads a value that nothing makes.",
        prepare=_onnx("broken.onnx", _undefined),
    ),
    Example(
        Code.EXTERNAL_DATA,
        "Weights that lie in a file beside the model are missing, too short, or outside of the model's folder.",
        "mlc inspect apart.onnx",
        "Copy that file beside the model, under the name it had at export.",
        given="`apart.onnx` keeps its weights in `weights.bin`, which was not copied along.",
        prepare=_onnx("apart.onnx", _apart),
    ),
    Example(
        Code.UNSUPPORTED_MODEL,
        "A valid model with something that mlc does not read or cannot compute.",
        "mlc inspect future.onnx",
        "Export it with what the message names: an older opset, other operators, dense tensors.",
        given="`future.onnx` says opset 999.",
        prepare=_onnx("future.onnx", _future),
    ),
    Example(
        Code.BAD_WEIGHTS,
        "A weight holds NaN. Infinities are fine: masks are made of them.",
        "mlc compile diverged.onnx -r fp16",
        "Take a checkpoint from before the training diverged.",
        given="A weight of `diverged.onnx` holds NaN.",
        prepare=_onnx("diverged.onnx", _diverged),
    ),
    # -- the IR ------------------------------------------------------------------------------------------------------
    Example(
        Code.VERIFY,
        "A pass left a graph behind that breaks an invariant. In a recipe of built-in passes this is a bug of mlc.",
        "import mlc\n"
        "from mlc.ir.rewrite import Rewriter\n"
        "\n"
        'module = mlc.load("net.onnx")\n'
        'relu = next(op for op in module.walk() if op.kind == "Relu")\n'
        'Rewriter(module, by="my_pass").replace(relu, [module.constants["fc2.weight"]])',
        "Correct the pass ([writing a pass](writing-a-pass.md)); report it if the pass is one of mlc's.",
    ),
    Example(
        Code.TEXT,
        "The text of an IR, or a report, that does not read as one.",
        'from mlc.ir.parse import parse_module\n\nparse_module("format: 1\\nopset 21\\n", {})',
        "Correct the text where the caret points ([the IR](ir.md) has the grammar), or write it anew.",
    ),
    # -- files and the environment -----------------------------------------------------------------------------------
    Example(
        Code.OUTPUT_EXISTS,
        "The output is there already, is the source itself, or holds files that mlc did not write.",
        _recipe("fp16"),
        "Choose another `-o`, or replace an older artifact with `--force`.",
        given="`net.mlc` is the artifact of an earlier run.",
        prepare=lambda folder: (folder / "net.mlc").mkdir(),
    ),
    Example(
        Code.OUTPUT,
        "The output, or a temporary file, cannot be written: no such folder, no permission; a full disk, a used quota "
        "and a file that is too large exit with 4. Nothing is left behind.",
        _recipe("fp16") + " -o build/small.onnx",
        "Create the folder, make room, or choose another `-o`.",
    ),
    Example(
        Code.NOT_FOUND,
        "A model, a recipe, a data file or a cost table does not exist or cannot be read.",
        "mlc inspect nett.onnx",
        "Check the path and the permissions.",
    ),
    Example(
        Code.USAGE,
        "A command line or a call that means nothing: unknown options, options that exclude each other.",
        "mlc compile net.onnx -r prune + int4",
        "`mlc COMMAND --help` lists what there is.",
    ),
    Example(
        Code.RUNTIME,
        "ONNX Runtime refuses the model, or computes something else than the operator says.",
        "mlc compile custom.onnx -r fp16",
        "Try the source itself in the runtime you have; a newer one may load it. For custom operators use "
        "`--check none`.",
        given="`custom.onnx` has an operator of a library that is not installed.",
        prepare=_onnx("custom.onnx", _unrunnable),
    ),
    Example(
        Code.FORMAT,
        "A file that a newer mlc wrote: a recipe, a report or a cost table.",
        "mlc compile net.onnx -r newer.mlc",
        "Update mlc, or write the file with this version.",
        files={"newer.mlc": "# mlc recipe\n# format: 2\nprune + int4\n"},
    ),
    Example(
        Code.BROKEN_PASS,
        "A package registers a pass that cannot be used, or a recipe uses such a file. The passes of mlc and of "
        "others still work.",
        "mlc passes thin",
        "Correct that package, or uninstall it; correct the file ([writing a pass](writing-a-pass.md)).",
        given="A package registers `thin`, and importing it fails.",
        prepare=_installed,
    ),
    Example(
        Code.MEMORY,
        "Memory ran out, in mlc or in the runtime (exit 4). Nothing is left behind.",
        "mlc compile outer.onnx -r simplify --dims N=10000000",
        "Lower `--max-memory` (it bounds what calibration and checks hold), give fewer or smaller samples, or run no "
        "whole model with `--check fast`.",
        given="`outer.onnx` multiplies a column by a row: its output is as large as both lengths multiplied.",
        prepare=_onnx("outer.onnx", _outer),
        status=4,
    ),
    Example(
        Code.USER_CODE,
        "`--no-user-code` was given, and a recipe, data or a metric names Python code. None of it was executed.",
        "mlc compile net.onnx -r edge.mlc --no-user-code --metric wer=scores.py:wer",
        "Read that code and leave the option out, or write what it shows instead "
        "([code of others](runs.md#code-of-others)).",
        files={
            "edge.mlc": 'use "my_passes.py" as mine\ndata d = python("feed.py:rows")\n'
            "recipe edge = mine.thin + int8(data=d)\n",
            "my_passes.py": "raise SystemExit('this never runs')\n",
        },
    ),
)
