"""What a run reads: text or translations, by which tokenizer, in which batches."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from deepnet_edu.data import (
    BytePairs,
    MaskedText,
    PackedText,
    Pair,
    PythonDocs,
    Translations,
    load_text,
    load_translation,
    python_documents,
)
from deepnet_edu.fields import check, check_whole
from deepnet_edu.messages import unknown
from deepnet_edu.training.loop import Task

Source = Literal["python_docs", "text", "translation"]
_HUB = ("text", "translation")
#: Sources that have a use for a field, where not all have.
_ONLY = {
    **dict.fromkeys(("name", "config", "streaming", "limit"), _HUB),
    **dict.fromkeys(("directions", "max_tokens"), ("translation",)),
    "column": ("text",),
    "sequences": ("python_docs", "text"),
}
#: Texts that byte pairs are learned from, at most: more of them hardly change which pairs are frequent.
_LEARNED_FROM = 1_000_000
#: Sequences, tokens or documents: beyond it no index of PyTorch's kernels reaches.
_MOST = 2**31 - 1


@dataclass(frozen=True)
class DataConfig:
    """What a run reads. Everything is checked on creation; nothing is loaded.

    Attributes:
        source: ``"python_docs"`` (the language's own documentation, there without a download), ``"text"`` or
            ``"translation"`` (any Hugging Face set, or files in such a form).
        name: of the set, or a path; see :mod:`deepnet_edu.data.hub`. Not for python_docs.
        config: the part of the set, where it has several.
        column: the one that has the text.
        directions: of a translation, ``"en-de"`` for English to German; with more than one, a tag before each source
            names the target's language.
        tokenizer: ``"bytes"``, ``"bpe"`` (byte pairs, as many as the model's vocabulary has room for, learned from the
            data), or a JSON file that ``BytePairs.save`` wrote.
        sequences: B, sequences per batch; not for translation.
        length: T, tokens per sequence; of a translation the most of them.
        max_tokens: of a translation, most tokens of a batch on either side, padding included.
        limit: most documents, or pairs of each direction, that are read; 0 for all.
        streaming: read the set over the network as it is needed, instead of downloading it first.

    Raises:
        ValueError: one sentence that says what was given and what is valid.
    """

    source: Source = "python_docs"
    name: str = ""
    config: str = ""
    column: str = "text"
    directions: tuple[str, ...] = ()
    tokenizer: str = "bytes"
    sequences: int = 8
    length: int = 64
    max_tokens: int = 4096
    limit: int = 0
    streaming: bool = False

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ValueError(unknown("source", self.source, get_args(Source)))
        for name, kind in get_type_hints(DataConfig).items():
            if kind is not int and name != "source":
                check(getattr(self, name), kind, name)
        for name, least in (("sequences", 1), ("length", 2), ("max_tokens", 2), ("limit", 0)):
            check_whole(name, getattr(self, name), least, _MOST)
        if self.tokenizer not in ("bytes", "bpe") and not self.tokenizer.endswith(".json"):
            raise ValueError(unknown("tokenizer", self.tokenizer, ("bytes", "bpe", "a file, for example bpe.json")))
        for field in fields(self):
            value, has = getattr(self, field.name), _ONLY.get(field.name, get_args(Source))
            if self.source not in has and value != field.default:
                raise ValueError(f"{field.name}={value!r}: source={self.source!r} has no {field.name}.")
        if self.source != "python_docs" and not self.name:
            raise ValueError(f"source={self.source!r} needs the name of a set, or a path, for example name='my.jsonl'.")
        if self.source != "translation":
            return
        for direction in self.directions or ("",):
            if len(direction.split("-")) != 2:
                raise ValueError(f"directions={list(self.directions)!r}: expected, for example, ['en-de'].")
        if self.length > self.max_tokens:
            raise ValueError(f"length={self.length} is more than a batch holds, max_tokens={self.max_tokens}.")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that batches are made for: ``"lm"`` and ``"mlm"``, or ``"translation"``."""
        return ("translation",) if self.source == "translation" else ("lm", "mlm")

    @property
    def title(self) -> str:
        """What is read, in a few words."""
        of = "Python's documentation" if self.source == "python_docs" else self.name
        return f"{of} by {'byte pairs' if self.tokenizer != 'bytes' else 'bytes'}"

    @property
    def languages(self) -> list[str]:
        """Languages that need a tag: the targets', where there is more than one direction."""
        targets = {direction.split("-")[1] for direction in self.directions}
        return sorted(targets) if len(self.directions) > 1 else []

    def least_vocab_size(self, task: str) -> int:
        """Tokens that a model for this task must know at least, the mask token of ``"mlm"`` among them."""
        of_text = PythonDocs.vocab_size if self._is_plain else BytePairs(languages=self.languages).vocab_size
        return of_text + (task == "mlm")

    @property
    def batch_shape(self) -> tuple[int, int]:
        """Sequences and tokens per sequence, (B, T). Of a translation: as many of the longest as a batch holds."""
        if self.source == "translation":
            return self.max_tokens // self.length, self.length
        return self.sequences, self.length

    @property
    def _is_plain(self) -> bool:
        return self.source == "python_docs" and self.tokenizer == "bytes"


def make_task(
    data: DataConfig, vocab_size: int, task: str = "", *, seed: int = 0, tokenizer: Path | None = None
) -> Task:
    """Load what ``data`` names, and make batches of it.

    Args:
        data: what to read.
        vocab_size: the model's: this many byte pairs are learned, special tokens and tags included.
        task: of the model, one of ``data.tasks``; the first of them where it is left out.
        seed: of the order.
        tokenizer: a file with the byte pairs of an earlier run, instead of what ``data.tokenizer`` says.

    Returns:
        :class:`~deepnet_edu.data.PythonDocs`, or, with the attribute ``tokenizer``,
        :class:`~deepnet_edu.data.PackedText` or :class:`~deepnet_edu.data.Translations`; for ``"mlm"`` a
        :class:`~deepnet_edu.data.MaskedText` of one of the first two.

    Raises:
        UserError: the set cannot be loaded, or the tokenizer's file cannot be read.
        ValueError: the data are too short, or have more tokens than the model, or there are none for this task.
    """
    if task and task not in data.tasks:
        raise ValueError(unknown("task", task, data.tasks))
    mask = int(task == "mlm")  # a token more than the text has
    text: PythonDocs | PackedText
    if data._is_plain:
        text = PythonDocs(data.length, data.sequences)
    else:
        pairs = _byte_pairs(data, vocab_size - mask, tokenizer)
        if pairs.vocab_size + mask > vocab_size:
            besides = " and the mask token" if mask else ""
            raise ValueError(
                f"The tokenizer has {pairs.vocab_size} tokens{besides} and the model vocab_size={vocab_size}: "
                f"use --set vocab_size={pairs.vocab_size + mask}."
            )
        if data.source == "translation":
            sentences = (pair for direction in data.directions for pair in _translation(data, direction))
            return Translations(sentences, pairs, max_tokens=data.max_tokens, max_length=data.length, seed=seed)
        text = PackedText(_documents(data), pairs, length=data.length, batch_size=data.sequences, seed=seed)
    return MaskedText(text) if mask else text


def _byte_pairs(data: DataConfig, vocab_size: int, file: Path | None) -> BytePairs:
    if file is not None:
        return BytePairs.load(file)
    if data.tokenizer == "bytes":
        return BytePairs(languages=data.languages)
    if data.tokenizer != "bpe":
        return BytePairs.load(data.tokenizer)
    return BytePairs.train(_some_texts(data), vocab_size, data.languages)


def _some_texts(data: DataConfig) -> Iterator[str]:
    """Texts to learn byte pairs from: as many of each direction, both sides."""
    if data.source != "translation":
        yield from islice(_documents(data), _LEARNED_FROM)
        return
    for direction in data.directions:
        for pair in islice(_translation(data, direction), max(1, _LEARNED_FROM // (2 * len(data.directions)))):
            yield pair.source
            yield pair.target


def _documents(data: DataConfig) -> Iterable[str]:
    if data.source == "python_docs":
        return python_documents()
    return load_text(data.name, column=data.column, **_settings(data))


def _translation(data: DataConfig, direction: str) -> Iterable[Pair]:
    source, target = direction.split("-")
    return load_translation(data.name, source, target, tagged=bool(data.languages), **_settings(data))


def _settings(data: DataConfig) -> dict[str, Any]:
    return {"config": data.config or None, "streaming": data.streaming, "limit": data.limit or None}
