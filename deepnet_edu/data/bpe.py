"""Byte pair encoding: text to numbers and back, exactly, whatever the text."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from operator import index
from pathlib import Path
from typing import Any

from deepnet_edu.fields import checked
from deepnet_edu.files import read_json, write_atomic
from deepnet_edu.messages import UserError, shown, unknown

_FORMAT = "deepnet_edu.BytePairs 1"
_BYTES = 256
#: Texts that are handed over together, so that every core of the machine encodes some.
_TOGETHER = 1024


class BytePairs:
    """Byte pair encoding over bytes (Sennrich et al. 2016, arXiv 1508.07909; bytes as in GPT-2).

    Tokens are numbered: the special ones, a tag for each language, the 256 bytes, then one for each merge. The special
    tokens and tags exist as numbers only: no text, whatever it contains, is ever read as one of them.

    Args:
        merges: the pairs of pieces that become one, most frequent first, each ``"left right"`` in GPT-2's alphabet of
            256 printable characters; none: every byte is a token.
        languages: those that have a tag, for example ``["de", "en"]``.

    Raises:
        ValueError: a merge is not of two pieces that exist by then, or a language occurs twice.
    """

    pad, start, end = range(3)

    @checked()
    def __init__(self, merges: Sequence[str] = (), languages: Sequence[str] = ()) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        if isinstance(languages, str) or len(set(languages)) < len(languages):
            raise ValueError(f"languages={languages!r}: expected a list of different names, for example ['de', 'en'].")
        self.merges, self.languages = tuple(merges), tuple(languages)
        pieces = {piece: i for i, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        pairs = []
        for merge in self.merges:
            left, _, right = merge.partition(" ")
            if left not in pieces or right not in pieces:
                raise ValueError(f"merge {merge!r}: expected two pieces that exist before it, for example 'Ġ t'.")
            pairs.append((left, right))
            pieces.setdefault(left + right, len(pieces))
        self._tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=pairs))
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = decoders.ByteLevel()
        self._first = _reserved(self.languages)
        self.vocab_size = self._first + len(pieces)

    @classmethod
    @checked()
    def train(cls, text: str | Iterable[str], vocab_size: int, languages: Sequence[str] = ()) -> "BytePairs":
        """Learn the merges from text, one string or many.

        Args:
            text: what to learn from.
            vocab_size: number of tokens, special ones included; fewer are made where no pair is left that occurs twice.
            languages: those that get a tag.

        Raises:
            ValueError: ``vocab_size`` has no room for the special tokens and the bytes.
        """
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        reserved = _reserved(languages)
        if vocab_size >= 2**31:
            raise ValueError(f"vocab_size={shown(vocab_size)}: expected less than 2**31.")
        if vocab_size < reserved + _BYTES:
            raise ValueError(
                f"vocab_size={vocab_size!r}: expected {reserved + _BYTES} or more, "
                f"{reserved} for special tokens and tags, {_BYTES} for the bytes."
            )
        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - reserved,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        try:
            learner.train_from_iterator([text] if isinstance(text, str) else text, trainer)
        except TypeError:
            raise ValueError("text: expected Unicode text, one str or a list of them.") from None
        merges = json.loads(learner.to_str())["model"]["merges"]
        return cls([" ".join(pair) for pair in merges], languages)

    @classmethod
    @checked()
    def cached(
        cls, folder: Path | str, texts: Iterable[str], vocab_size: int, languages: Sequence[str] = ()
    ) -> "BytePairs":
        """The pairs of :meth:`train`, kept in a folder, the workspace for example; they are learned the first time.

        The file's name changes with the texts, the size and the languages, so that a file is never of other data. One
        that is damaged is learned again.

        Raises:
            ValueError: as :meth:`train`.
            OSError: the folder cannot be written.
        """
        known = list(texts)
        digest = sha256(json.dumps([vocab_size, list(languages)]).encode())
        for text in known:
            digest.update(b"\0" + text.encode())
        path = Path(folder) / f"byte_pairs_{digest.hexdigest()[:16]}.json"
        with suppress(UserError):
            return cls.load(path)
        found = cls.train(known, vocab_size, languages)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        found.save(path)
        return found

    @property
    def text_tokens(self) -> range:
        """The tokens that stand for text: all but the special ones and the tags."""
        return range(self._first, self.vocab_size)

    def encode(self, text: str) -> list[int]:
        """The tokens of ``text``, without any special one.

        Raises:
            ValueError: ``text`` is not Unicode text.
        """
        return next(self.encode_many([text]))

    @checked()
    def encode_many(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """The tokens of one text after the other, on all cores.

        Raises:
            ValueError: one of them is not Unicode text.
        """
        rest = iter(texts)
        while some := list(islice(rest, _TOGETHER)):
            try:
                encoded = self._tokenizer.encode_batch_fast(some)
            except TypeError:
                raise ValueError("Expected Unicode text: a str, and no half of a surrogate pair in it.") from None
            for encoding in encoded:
                yield [self._first + token for token in encoding.ids]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ``tokens``. Special tokens, tags and ignored targets give nothing, broken UTF-8 gives �.

        Raises:
            ValueError: a token is beyond the vocabulary.
        """
        try:
            known = [number - self._first for number in map(index, tokens) if number >= self._first]
        except TypeError:
            raise ValueError(f"tokens={shown(tokens)}: expected a list of whole numbers.") from None
        if known and max(known) >= self.vocab_size - self._first:
            raise ValueError(f"token {max(known) + self._first}: expected less than vocab_size, {self.vocab_size}.")
        return self._tokenizer.decode(known)

    @checked()
    def tag(self, language: str) -> int:
        """The token that names ``language``.

        Raises:
            ValueError: there is no tag for it.
        """
        if language not in self.languages:
            raise ValueError(
                unknown("language", language, self.languages)
                if self.languages
                else f"No tag for {language!r}: give the languages when training, BytePairs.train(…, languages=[…])."
            )
        return _reserved(()) + self.languages.index(language)

    @checked()
    def save(self, path: Path | str) -> None:
        """Write everything into one JSON file.

        Raises:
            UserError: ``path`` is there already and is not such a file.
            OSError: the folder cannot be written; what was there is as it was.
        """
        path = Path(path)
        if path.exists():
            try:
                self.load(path)
            except UserError:
                raise UserError(
                    f"{path} is there already and holds no byte pairs: it is left alone; give another file."
                ) from None
        content = {"format": _FORMAT, "languages": self.languages, "merges": self.merges}
        write_atomic(path, json.dumps(content | {"sha256": _digest(content)}, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    @checked()
    def load(cls, path: Path | str) -> "BytePairs":
        """Read what :meth:`save` wrote.

        Raises:
            UserError: the file is missing, damaged, or something else.
        """
        try:
            content = read_json(Path(path))
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            if content.pop("sha256") != _digest(content):
                raise ValueError("its content is not what was written")
            return cls(content["merges"], content["languages"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"{path} holds no byte pairs ({why}): train them again and save them, BytePairs.train(…).save(…)."
            ) from None


def _reserved(languages: Sequence[str]) -> int:
    """Tokens that stand for no text: pad, start, end, and the tags."""
    return 3 + len(languages)


def _digest(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
