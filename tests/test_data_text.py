"""Text through a tokenizer: what is fed, cut and padded; labels from JSON lines; one error per mistake."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import demanding
from kit.golden import same

import mlc
from mlc import open_data
from mlc.ir.dtypes import DType
from mlc.ir.errors import MlcError
from mlc.ir.types import tensor

tokenizers = pytest.importorskip("tokenizers")
GOLDEN = Path(__file__).parent / "golden" / "data" / "text.txt"
WORDS = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "a": 4, "b": 5, "c": 6}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save()


def save(**settings: Any) -> None:
    """tokenizer.json: words between spaces, [CLS] text [SEP]; pads by default to 128 with [PAD], as many exports do."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if settings.get("frame", True):
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    if settings.get("padding", True):
        made.enable_padding(length=128, pad_id=0, pad_token="[PAD]")
    if "truncation" in settings:
        made.enable_truncation(settings["truncation"])
    made.save("tokenizer.json")


def model(*names: str, length: Any = "S", dtype: DType = DType.I64) -> dict[str, Any]:
    return {name: tensor(dtype, "N", length) for name in names}


BERT = model("input_ids", "attention_mask", "token_type_ids")


def rows(arguments: str = "", inputs: Any = BERT, file: str = "t.txt") -> list[dict[str, list[int]]]:
    data = open_data(f'text("{file}", tokenizer="tokenizer.json"{arguments})', inputs)
    return [{name: a[0].tolist() for name, a in b.inputs.items()} for b in data.batches()]


def test_each_line_is_a_sample_of_its_own_length() -> None:
    Path("t.txt").write_bytes(b"\xef\xbb\xbfa b\r\n\n   \nc what a\n")
    assert rows() == [
        {"input_ids": [1, 4, 5, 2], "attention_mask": [1] * 4, "token_type_ids": [0] * 4},
        {"input_ids": [1, 6, 3, 4, 2], "attention_mask": [1] * 5, "token_type_ids": [0] * 5},
    ]
    assert rows("", model("position_ids", "input_ids"))[0] == {"input_ids": [1, 4, 5, 2], "position_ids": [0, 1, 2, 3]}
    assert rows(", ids=x, attention=m", model("m", "x"))[0] == {"m": [1] * 4, "x": [1, 4, 5, 2]}
    data = open_data('text("t.txt", tokenizer="tokenizer.json")', model("input_ids", dtype=DType.I32))
    assert next(iter(data.batches())).inputs["input_ids"].dtype == np.int32
    assert [s.where for s in data.read()] == ["sample 0 of 't.txt': line 1", "sample 1 of 't.txt': line 4"]


def test_samples_are_cut_and_padded() -> None:
    Path("t.txt").write_text("a b c a\nb\n")
    ids = model("input_ids", "attention_mask")
    assert [r["input_ids"] for r in rows(", max_length=4", ids)] == [[1, 4, 5, 2], [1, 5, 2]]
    padded = rows(", max_length=4, padding=true", ids)
    assert [r["input_ids"] for r in padded] == [[1, 4, 5, 2], [1, 5, 2, 0]]
    assert [r["attention_mask"] for r in padded] == [[1] * 4, [1, 1, 1, 0]]
    fixed = model("input_ids", "attention_mask", length=5)
    assert [r["input_ids"] for r in rows("", fixed)] == [[1, 4, 5, 6, 2], [1, 5, 2, 0, 0]]
    assert [r["input_ids"] for r in rows(', pad_token="c"', fixed)] == [[1, 4, 5, 6, 2], [1, 5, 2, 6, 6]]
    save(truncation=3)
    assert [r["input_ids"] for r in rows("", ids)] == [[1, 4, 2], [1, 5, 2]]
    masked = open_data(
        'text("t.txt", tokenizer="tokenizer.json", max_length=9, padding=true)', ids, mask="attention_mask"
    )
    assert [b.inputs["input_ids"].shape[1] for b in masked.batches()] == [6, 3]  # the mask cuts padding off again


def test_json_lines_have_fields_pairs_and_labels() -> None:
    Path("t.jsonl").write_text(
        "".join(json.dumps({"text": t, "other": o, "y": y}) + "\n" for t, o, y in [("a", "b", 1), ("b\nc", "c", 0)])
    )
    assert [r["input_ids"] for r in rows("", file="t.jsonl")] == [[1, 4, 2], [1, 5, 6, 2]]
    pairs = rows(", field=other, pair=text", file="t.jsonl")
    assert [r["input_ids"] for r in pairs] == [[1, 5, 2, 4, 2], [1, 6, 2, 5, 6, 2]]
    assert pairs[0]["token_type_ids"] == [0, 0, 0, 1, 1]
    data = open_data('text("t.jsonl", tokenizer="tokenizer.json", labels=y)', BERT)
    assert [b.labels.tolist() for b in data.batches()] == [[1], [0]]


@pytest.mark.parametrize("made", [["good", "very bad"], [[0.5, 2], [1, 3]], [["a", "b"], ["c", "d"]], [2.5, "text"]])
def test_labels_are_what_json_says(made: list[Any]) -> None:
    Path("t.jsonl").write_text("".join(json.dumps({"text": "a", "y": y}) + "\n" for y in made))
    data = open_data('text("t.jsonl", tokenizer="tokenizer.json", labels=y)', BERT)
    assert [y for b in data.batches(2) if b.labels is not None for y in b.labels.tolist()] == made


def test_lines_are_streamed() -> None:
    with Path("t.txt").open("w") as file:
        file.writelines(["a b c " * 200 + "\n"] * 4000)  # 5 MB
    tracemalloc.start()
    data = open_data('text("t.txt", tokenizer="tokenizer.json", take=50, seed=0)', BERT)
    assert sum(b.n for b in data.batches(4)) == 50
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


def test_the_hash_covers_text_tokenizer_and_settings() -> None:
    Path("t.txt").write_text("a\n")
    made = [open_data(f'text("t.txt", tokenizer="tokenizer.json"{x})', BERT).digest for x in ("", ", max_length=3")]
    save(truncation=3)
    made.append(open_data('text("t.txt", tokenizer="tokenizer.json")', BERT).digest)
    Path("t.txt").write_text("b\n")
    made.append(open_data('text("t.txt", tokenizer="tokenizer.json")', BERT).digest)
    assert len(set(made)) == 4


# -- mistakes --------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, str, Any, str]] = {
    "no text file": ("none.txt", "", BERT, ""),
    "a table": ("t.csv", "", BERT, "a,b\n"),
    "empty": ("t.txt", "", BERT, "\n\n"),
    "not UTF-8": ("t.txt", "", BERT, "a\nb\xff\n"),
    "not JSON": ("t.jsonl", "", BERT, '{"text": "a"}\n{text: 1}\n'),
    "no object": ("t.jsonl", "", BERT, "[1]\n"),
    "no such field": ("t.jsonl", ", field=body", BERT, '{"text": "a"}\n'),
    "a field of numbers": ("t.jsonl", "", BERT, '{"text": 3}\n'),
    "no label": ("t.jsonl", ", labels=y", BERT, '{"text": "a", "y": 1}\n{"text": "a"}\n'),
    "a label of nothing": ("t.jsonl", ", labels=y", BERT, '{"text": "a", "y": null}\n'),
    "a label of both": ("t.jsonl", ", labels=y", BERT, '{"text": "a", "y": ["good", 1]}\n'),
    "a label of uneven rows": ("t.jsonl", ", labels=y", BERT, '{"text": "a", "y": [[1], [2, 3]]}\n'),
    "labels of lines": ("t.txt", ", labels=y", BERT, "a\n"),
    "pairs of lines": ("t.txt", ", pair=b", BERT, "a\n"),
    "other inputs": ("t.txt", "", model("x", "m"), "a\n"),
    "one input too many": ("t.txt", "", model("input_ids", "past"), "a\n"),
    "no such input": ("t.txt", ", ids=x", BERT, "a\n"),
    "floats": ("t.txt", "", model("input_ids", dtype=DType.F32), "a\n"),
    "other length": ("t.txt", ", max_length=9", model("input_ids", length=5), "a\n"),
    "padding off": ("t.txt", ", padding=false", model("input_ids", length=5), "a\n"),
    "padding to nothing": ("t.txt", ", padding=true", BERT, "a\n"),
    "unknown pad token": ("t.txt", ', max_length=5, padding=true, pad_token="<p>"', BERT, "a\n"),
    "no tokenizer": ("t.txt", ', tokenizer="none.json"', BERT, "a\n"),
    "broken tokenizer": ("t.txt", ', tokenizer="t.txt"', BERT, "a\n"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_each_mistake_is_one_error(case: str, update_golden: bool) -> None:
    file, arguments, inputs, text = MISTAKES[case]
    if text:
        Path(file).write_bytes(text.encode("latin-1"))
    given = "" if "tokenizer=" in arguments else ', tokenizer="tokenizer.json"'
    with pytest.raises(MlcError) as caught:
        list(open_data(f'text("{file}"{given}{arguments})', inputs).batches())
    assert len(caught.value.diagnostics) == 1
    same(GOLDEN, case, str(caught.value), update=update_golden)


def test_text_without_tokens() -> None:
    save(frame=False)
    Path("t.txt").write_text("a\n\u3000\n", encoding="utf-8")  # a space that only Unicode knows
    with pytest.raises(MlcError, match=r"the text has no tokens[\s\S]*sample 1 of 't.txt': line 2"):
        rows()


def test_a_tokenizer_that_does_not_say_what_pads() -> None:
    save(padding=False)
    Path("t.txt").write_text("a\n")
    with pytest.raises(MlcError, match="the tokenizer does not say what pads"):
        rows("", model("input_ids", length=5))


def test_texts_that_are_too_long_are_told_the_length(tmp_path: Path) -> None:
    """And with it they are read."""
    module = mlc.load(demanding.write(tmp_path, demanding.sliced))
    Path("t.txt").write_text("a b c\n" + 18 * "a " + "\n")
    data = open_data('text("t.txt", tokenizer="tokenizer.json")', module)
    with pytest.raises(MlcError) as refusal:
        data.check()
    (told,) = refusal.value.diagnostics
    assert told.message == "input 'input_ids' has 20 on axis 1, with which the model does not run; with 16 it does"
    assert told.where == "sample 1 of 't.txt': line 2"
    assert told.help == "give max_length=16: longer samples are cut"
    open_data('text("t.txt", tokenizer="tokenizer.json", max_length=16)', module).check()
