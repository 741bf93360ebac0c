"""Lines of text through the tokenizer of a model: ids, their mask, segments and positions, where the model has them."""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...ir import errors
from ...ir.errors import Code
from ...ir.extras import require
from ...ir.options import option
from .source import TWO_SOURCES, Array, Inputs, Sample, Source, Stream, Wanted, bad, digest_of_files

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_JSON = (".jsonl", ".ndjson")
_TABLES = (".csv", ".json", ".parquet", ".tsv")
_ROLES: dict[str, tuple[str, Callable[[Encoding], Any]]] = {
    "ids": ("input_ids", lambda e: e.ids),
    "attention": ("attention_mask", lambda e: e.attention_mask),
    "types": ("token_type_ids", lambda e: e.type_ids),
    "positions": ("position_ids", lambda e: np.maximum(np.cumsum(e.attention_mask) - 1, 0)),
}
"""Argument: the usual name of the input, and what feeds it."""


@dataclass(frozen=True)
class Text(Source):
    """A text file, one sample a line (or one a JSON object), through the tokenizer of the model."""

    name: ClassVar[str] = "text"
    path: str = option(unit="path", positional=True, doc="a text file in UTF-8, or a .jsonl file")
    tokenizer: str = option(unit="path", doc="a tokenizer.json; its own padding is left out")
    field: str = option("text", unit="word", doc="the field of a .jsonl file that holds the text")
    pair: str | None = option(None, unit="word", doc="the field of a .jsonl file that holds a second text")
    max_length: int | None = option(
        None, unit="int", low=1, doc="longer samples are cut; none: as the tokenizer says, or the model's fixed length"
    )
    padding: bool | None = option(
        None, unit="bool", doc="pad to `max_length`; none: only if the length of the model's input is fixed"
    )
    pad_token: str | None = option(None, unit="str", doc="what pads; none: as the tokenizer says")
    ids: str | None = option(None, unit="word", doc="the input of token ids; none: input_ids")
    attention: str | None = option(None, unit="word", doc="the input that marks tokens; none: attention_mask, if any")
    types: str | None = option(None, unit="word", doc="the input of segments; none: token_type_ids, if any")
    positions: str | None = option(None, unit="word", doc="the input of positions; none: position_ids, if any")

    def open(self, inputs: Inputs, labels: str | None) -> Stream:
        require("tokenizers", "text", "text")
        file = Path(self.path)
        if not file.is_file():
            raise errors.error(Code.NOT_FOUND, f"there is no text file {self.path!r}", help="check the path")
        if file.suffix in _TABLES:
            raise bad(f"{file.suffix} is not read as text", self.path, "save one JSON object a line as .jsonl")
        if file.suffix not in _JSON and (self.pair is not None or labels is not None):
            told = f"labels {labels!r}" if labels is not None else f"field {self.pair!r}"
            raise bad(f"lines of text have no {told}", self.path, "save one JSON object a line as .jsonl")
        feeds = self._feeds(inputs)
        return TextStream(self, feeds, inputs, labels, self._tokenizer(inputs[feeds["ids"]].shape[-1:]))

    def _feeds(self, inputs: Inputs) -> dict[str, str]:
        """The input for each role that the model has. Errors: BAD_DATA for inputs that nothing feeds."""
        found: dict[str, str] = {}
        for role, (usual, _) in _ROLES.items():
            given = getattr(self, role)
            if given is not None and given not in inputs:
                raise bad(f"the model has no input {given!r}", self.path, f"its inputs: {', '.join(inputs)}")
            if given is not None or usual in inputs:
                found[role] = given if given is not None else usual
        rest = [name for name in inputs if name not in found.values()]
        if "ids" not in found or rest:
            missing = ", ".join(map(repr, rest))
            left = [f"{role}=NAME" for role in _ROLES if role not in found]
            advice = ", or ".join([*(["name the input of each: " + ", ".join(left)] if left else []), TWO_SOURCES])
            raise bad(f"text feeds token ids and their mask, and nothing feeds input {missing}", self.path, advice)
        for name in found.values():
            if inputs[name].dtype.kind not in ("int", "uint") or not inputs[name].rank:
                raise bad(f"input {name!r} is {inputs[name]}: tokens feed integers", self.path, "name another input")
        return found

    def _tokenizer(self, last: tuple[object, ...]) -> Tokenizer:
        from tokenizers import Tokenizer

        file = Path(self.tokenizer)
        if not file.is_file():
            raise errors.error(
                Code.NOT_FOUND, f"there is no tokenizer {self.tokenizer!r}", help="give a tokenizer.json"
            )
        try:
            found = Tokenizer.from_file(str(file))
        except Exception as cause:  # the library raises nothing more exact
            raise bad(f"not a readable tokenizer: {cause}", self.tokenizer, "give a tokenizer.json") from cause
        fixed = next((size for size in last if isinstance(size, int)), None)
        own = (found.truncation or {}).get("max_length")
        length = self.max_length if self.max_length is not None else fixed if fixed is not None else own
        self._check_length(fixed, length)
        if length is not None:
            found.enable_truncation(length)
        pads = found.padding or {}
        found.no_padding()
        if self.padding or (self.padding is None and fixed is not None):
            found.enable_padding(length=length, **self._pad(found, pads))
        return found

    def _check_length(self, fixed: int | None, length: int | None) -> None:
        if fixed is not None and length != fixed:
            raise bad(f"max_length is {length}, and the model takes {fixed} tokens", self.path, "leave max_length out")
        if fixed is not None and self.padding is False:
            raise bad(f"the model takes {fixed} tokens, and padding is off", self.path, "leave padding out")
        if self.padding and length is None:
            raise bad("padding=true needs a length", self.path, "give max_length=...")

    def _pad(self, tokenizer: Tokenizer, own: Mapping[str, Any]) -> dict[str, Any]:
        token = self.pad_token if self.pad_token is not None else own.get("pad_token")
        number = None if token is None else tokenizer.token_to_id(token)
        if token is None or number is None:
            told = "the tokenizer does not say what pads" if token is None else f"the tokenizer has no token {token!r}"
            raise bad(told, self.tokenizer, 'give pad_token="..."')
        kept: dict[str, Any] = {key: value for key, value in own.items() if key in ("direction", "pad_type_id")}
        return {**kept, "pad_token": token, "pad_id": number}


class TextStream(Stream):
    """The lines of a file, tokenized one by one. Empty lines are no samples."""

    def __init__(
        self, source: Text, feeds: dict[str, str], inputs: Inputs, labels: str | None, tokenizer: Tokenizer
    ) -> None:
        self.title = source.path
        self._source, self._feeds, self._inputs, self._labels = source, feeds, inputs, labels
        self._tokenizer = tokenizer
        self._file = Path(source.path)
        self._json = self._file.suffix in _JSON
        self._count: int | None = None

    def count(self, limit: int | None = None) -> int:
        if self._count is None:
            self._count = sum(1 for _ in self._lines())
        return self._count if limit is None else min(self._count, limit)

    def read(self, wanted: Wanted) -> Iterator[Sample]:
        for index, (number, line) in enumerate(self._lines()):
            if index >= wanted.stop:
                return
            if wanted.keeps(index):
                yield self._sample(index, self.where(index, f"line {number}"), line)

    def resized(self, shape: Sequence[int]) -> str:
        return f"give max_length={shape[-1]}: longer samples are cut"

    def digest(self, limit: int | None = None) -> str:
        """SHA-256 of the text, the tokenizer, and of what is done with them."""
        settings = {f.name: getattr(self._source, f.name) for f in dataclasses.fields(self._source)}
        settings |= {"path": None, "tokenizer": None}
        return digest_of_files([("text", self._file), ("tokenizer", Path(self._source.tokenizer))], settings)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self._file.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield number, text.rstrip(b"\r\n")

    def _sample(self, index: int, where: str, line: bytes) -> Sample:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise bad(f"the line is not UTF-8: {cause}", where, "save the file as UTF-8") from cause
        first, second, label = self._fields(text, where) if self._json else (text, None, None)
        encoded = self._tokenizer.encode(first, second)
        if not encoded.ids:
            raise bad("the text has no tokens", where, "leave such samples out")
        inputs = {name: self._array(role, name, encoded) for role, name in self._feeds.items()}
        return Sample(index, where, {name: inputs[name] for name in self._inputs}, label)

    def _array(self, role: str, name: str, encoded: Encoding) -> Array:
        return np.asarray(_ROLES[role][1](encoded), self._inputs[name].dtype.numpy)

    def _fields(self, line: str, where: str) -> tuple[str, str | None, Array | None]:
        try:
            found = json.loads(line)
        except ValueError as cause:
            raise bad(f"the line is not JSON: {cause}", where, "write one JSON object a line") from cause
        if not isinstance(found, dict):
            raise bad(f"the line is no JSON object but a {type(found).__name__}", where, "write one object a line")
        first = self._text(found, self._source.field, where)
        second = None if self._source.pair is None else self._text(found, self._source.pair, where)
        if self._labels is None:
            return first, second, None
        return first, second, _label(_member(found, self._labels, where), where)

    def _text(self, found: dict[str, Any], field: str, where: str) -> str:
        text = _member(found, field, where)
        if not isinstance(text, str):
            raise bad(f"the field {field!r} is no text but a {type(text).__name__}", where, "write a string")
        return text


def _label(value: Any, where: str) -> Array:
    """A label as an array: a number, a text, or lists of them."""
    try:
        label = np.asarray(value)
    except ValueError:  # lists of different lengths
        label = np.asarray(None)
    if label.dtype.hasobject or _kinds(value) > {str}:
        help = "give a number, a text, or a list of numbers or of texts, with rows of one length"
        raise bad(f"the label {reprlib.repr(value)} is no number and no text", where, help)
    return label


def _kinds(value: Any) -> set[type]:
    """The types of what a JSON value holds."""
    return set[type]().union(*map(_kinds, value)) if isinstance(value, list) else {type(value)}


def _member(found: dict[str, Any], field: str, where: str) -> Any:
    if field not in found:
        raise bad(f"there is no field {field!r}", where, f"there is {', '.join(map(repr, found)) or 'nothing'}")
    return found[field]
