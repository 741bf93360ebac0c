"""Every message that the code can make is held as golden text somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kit.error_cases import CASES, Case
from kit.error_templates import templates
from kit.golden import same, sections
from kit.told import told

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden" / "errors" / "messages.txt"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_message(case: Case, tmp_path: Path, update_golden: bool) -> None:
    status, text = told(case.run, tmp_path / "work", files=case.files, prepare=case.prepare)
    assert status in (2, 3), text
    assert text.startswith("error[E")
    same(GOLDEN, case.title, text, update=update_golden)


def test_titles_are_unique_and_no_golden_text_is_left_over() -> None:
    assert sorted(case.title for case in CASES) == sorted(sections(GOLDEN))


def test_every_message_is_golden_text_somewhere() -> None:
    shown = (*TESTS.glob("golden/*/*.txt"), TESTS.parent / "docs" / "errors.md")
    told = [m for file in shown for m in re.findall(r"^error\[E\d+\]: (.*)$", file.read_text("utf-8"), re.MULTILINE)]
    unseen = {t.place for t in templates() if not any(t.pattern.fullmatch(message) for message in told)}
    assert unseen - UNSEEN.keys() == set(), "give each an example in tests/kit/error_cases.py"
    assert UNSEEN.keys() - unseen == set(), "these are shown by now"


def test_every_golden_message_says_what_to_do() -> None:
    """A help, or a caret that says what could stand there."""
    for file in TESTS.glob("golden/*/*.txt"):
        for shown in re.findall(r"^error\[.*?(?=^===|^error|\Z)", file.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            assert re.search(r"^ *= help: |\^+ \S", shown, re.MULTILINE), f"{file.name}: {shown}"


#: Messages that no example makes, and why.
UNSEEN: dict[str, str] = {
    "cli: out of memory": "depends on the machine: tests/test_disk.py",
    "frontends.onnx: {} cannot be read": "tests may run as root, who reads everything",
    "frontends.data.images: the file of classes cannot be read: {}": "needs Pillow: tests/test_data_images.py",
    "frontends.data.text: the tokenizer does not say what pads": "needs tokenizers: tests/test_data_text.py",
    "frontends.data.text: the text has no tokens": "needs tokenizers: tests/test_data_text.py",
    "backends.artifact: the folder {} is read-only": "tests may run as root, who writes everywhere",
    "ir.scratch: another run has been putting {} in place for {} seconds": "two runs: tests/test_replacing.py",
    "backends.onnx: the model takes {} GiB, but one ONNX file holds 2 GiB at most": "tests/test_onnx_export.py",
    "backends.checks: the artifact is not what was promised: {}": "a fault that is injected: tests/test_compiler.py",
    "backends.memory: a process that runs {} to measure its memory ended with {}": "a fault of the machine",
    "backends.legalize: {} has no kernel for {} codes in blocks": "no pass makes such blocks",
    "backends.single_op: the runtime computes {} differently from its definition (cosine {})": "a fault of the runtime",
    "backends.single_op: {} has no known rank: its operator cannot be run alone": "no quantized operator has such data",
}
