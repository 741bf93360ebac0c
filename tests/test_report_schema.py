"""report.json keeps to its published schema: reports of real compilations, and documents that lie."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from kit.real import RealModel, real_models
from kit.two_layers import samples, two_layers

import mlc
from mlc.backends.report import SCHEMA
from mlc.dsl.settings import Settings
from mlc.passes.base import SkipCode

TEXT = (files("mlc.backends") / SCHEMA).read_text("utf-8")
DOCUMENT = json.loads(TEXT)
VALIDATOR = Draft202012Validator(DOCUMENT)
RECIPES = {
    "ppocr_cls": "prune(30%) + fp16 where size <= 0.1x",
    "mnist_cnn": "int8",
    "silero_vad": "simplify + int4",
    "ppocrv4_rec": "fp16",  # its metadata holds the alphabet
}
#: Objects whose keys are names of the model: anything may be a key.
OPEN = {"metadata", "binding", "files", "domains", "kernels", "changed_operators", "seconds", "dims", "metrics"}


def labelled(folder: Path) -> Path:
    path = folder / "labelled.npz"
    rng = np.random.default_rng(1)
    np.savez(path, x=rng.standard_normal((40, 64), dtype=np.float32), label=rng.integers(0, 10, 40))
    return path


def scores(folder: Path) -> Path:
    path = folder / "scores.py"
    path.write_text(
        "def right(outputs, labels):\n    return sum(y.argmax() == t for y, t in zip(outputs['y'], labels))\n"
    )
    return path


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Recipes that reach every part of a report."""
    folder = tmp_path_factory.mktemp("reports")
    source = two_layers(folder)
    data, labels = samples(folder), labelled(folder)
    wide = two_layers(tmp_path_factory.mktemp("wide"), width=2048)
    settings = {"to": "ort(cpu, costs=assumed)", "seed": 1, "threads": 2, "max_memory": 10**9}
    settings |= {"external": "always", "opset": 22}
    made = [
        mlc.compile(source, "simplify + int4", output=folder / "a.mlc", force=True, print_changes=io.StringIO()),
        mlc.compile(source, "prune + int8", data=data),
        mlc.compile(
            source,
            "prune(75%) where acc_drop <= 1pp, latency.p95 <= 9x, peak_memory <= 9x, right >= 0.5x",
            eval=labels,
            labels="label",
            metrics={"right": f"{scores(folder)}:right"},
        ),
        mlc.compile(source, "weights([2, 4, 8]) where size <= 0.4x", data=data, eval=data),
        mlc.compile(source, "fp16 where size <= 0.01x", check="none"),
        mlc.compile(wide, "int4", data=f'npz("{data}", take=16, seed=1, batch=4)'),
        mlc.compile(wide, "int4", check="fast"),
        mlc.compile(wide, "prune(30%) until params <= 0.6x", check="none"),
        mlc.compile(source, "prune(1%)", strict=True),
        mlc.compile(mlc.load(source), [mlc.passes.Simplify()], dims={"N": 3}, **settings),
    ]
    return [json.loads(result.to_json()) for result in made]


def test_the_schema_is_one_and_describes_every_field() -> None:
    Draft202012Validator.check_schema(DOCUMENT)
    silent = [path for path, part in _schemas(DOCUMENT, "") if not part.get("description") and "oneOf" not in path]
    assert silent == []


def test_reports_are_valid(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        VALIDATOR.validate(report)


@real_models(*RECIPES)
def test_reports_of_real_models_are_valid(model: RealModel) -> None:
    VALIDATOR.validate(json.loads(mlc.compile(model.path, RECIPES[model.name]).to_json()))


def test_a_field_too_many_is_refused(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        for path, _ in _objects(report, ()):
            if path and path[-1] in OPEN:
                continue
            changed = copy.deepcopy(report)
            _at(changed, path)["surplus"] = 1
            assert not VALIDATOR.is_valid(changed), path


def test_a_missing_field_is_refused(reports: list[dict[str, Any]]) -> None:
    optional = _optional()
    for report in reports:
        for path, part in _objects(report, ()):
            for key in part if not (path and path[-1] in OPEN) else ():
                changed = copy.deepcopy(report)
                del _at(changed, path)[key]
                assert not VALIDATOR.is_valid(changed) or key in optional, (*path, key)


def test_what_may_be_missing() -> None:
    """Only what the user did not ask for, or what a check did not look at."""
    settings = set(DOCUMENT["properties"]["options"]["properties"])
    selected = {"labels", "mask", "take", "seed", "batch", "part"}
    agreement = {"cosine", "sqnr_db", "max_relative", "top1", "integers_equal", "samples", "accuracy", "quantization"}
    versions = {"onnxruntime", "onnx", "onnx-ir", "numpy"}
    written = {"code"}  # what the user wrote
    bounded = {"latency_p95", "memory", "metrics"}  # measured where a bound asks for it
    assert _optional() - settings - selected - agreement - versions - written - bounded == set()


def test_every_field_is_in_some_report(reports: list[dict[str, Any]]) -> None:
    seen = {key for report in reports for _, part in _objects(report, ()) for key in part}
    assert _properties() - seen == UNSEEN


def test_names_of_reasons_are_those_of_the_code() -> None:
    code = DOCUMENT["$defs"]["step"]["properties"]["skipped"]["items"]["properties"]["code"]
    assert code["enum"] == [c.value for c in SkipCode]


def test_options_are_the_settings() -> None:
    names = {f.name for f in dataclasses.fields(Settings)} - {"force", "print_changes", "progress", "user_code"}
    assert set(DOCUMENT["properties"]["options"]["properties"]) == names


#: Fields of reports that are made elsewhere: of padded samples.
UNSEEN = {"mask"}


def _schemas(part: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of a field, with its path."""
    if isinstance(part, dict):
        for name, field in part.get("properties", {}).items():
            yield f"{path}/{name}", field
        for name, below in part.items():
            yield from _schemas(below, f"{path}/{name}")
    elif isinstance(part, list):
        for below in part:
            yield from _schemas(below, path)


def _properties() -> set[str]:
    return {path.rpartition("/")[2] for path, _ in _schemas(DOCUMENT, "")}


def _optional() -> set[str]:
    """Names that some object may leave out."""
    holders = [DOCUMENT, *DOCUMENT["$defs"].values(), *(part for _, part in _schemas(DOCUMENT, ""))]
    return {n for holder in holders for n in set(holder.get("properties", {})) - set(holder.get("required", []))}


def _objects(part: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Every object of a document, with its path."""
    if isinstance(part, dict):
        yield path, part
    below = part.items() if isinstance(part, dict) else enumerate(part[:2]) if isinstance(part, list) else ()
    for key, value in below:
        yield from _objects(value, (*path, key))


def _at(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        document = document[key]
    return document
