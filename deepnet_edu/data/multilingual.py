"""One set of translations from English into many languages, from what the course has installed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepnet_edu.data.bpe import BytePairs
from deepnet_edu.data.catalogs import catalogs, django_pairs, django_root
from deepnet_edu.data.cldr import DAYS, date_pairs, name_pairs, unit_pairs
from deepnet_edu.data.epochs import check_numbers
from deepnet_edu.data.parts import Parts, normal, split
from deepnet_edu.data.placeholders import protect
from deepnet_edu.data.translation import Pair, Translations
from deepnet_edu.fields import checked
from deepnet_edu.messages import UserError, unknown

SOURCES = ("messages", "names", "dates", "units")
LICENCES = {
    "messages": "Django's catalogs: BSD-3-Clause, Django Software Foundation and individual contributors",
    "names": "Unicode CLDR in Babel: Unicode License v3",
    "dates": "Unicode CLDR in Babel: Unicode License v3",
    "units": "Unicode CLDR in Babel: Unicode License v3",
}


@dataclass(frozen=True)
class Multilingual:
    """Translations in three parts that share no English source.

    Attributes:
        parts: pairs, each with its target's language.
        languages: those that have a tag.
        skipped: entries of catalogs that were left out, by reason.
    """

    parts: Parts[Pair]
    languages: tuple[str, ...]
    skipped: Counter[str]

    def byte_pairs(self, vocab_size: int, folder: Path | str | None = None) -> BytePairs:
        """One vocabulary for all languages, of the training part.

        Args:
            vocab_size: number of tokens.
            folder: keep it there, in the workspace for example; None to learn it each time.
        """
        if folder is None:
            return BytePairs.train(self.texts(), vocab_size, self.languages)
        return BytePairs.cached(folder, self.texts(), vocab_size, self.languages)

    def texts(self) -> list[str]:
        """Both sides of the training part, with their placeholders as a model reads them, each once."""
        pairs = list(map(protect, self.parts.train))
        return list(dict.fromkeys([*(pair.source for pair in pairs), *(pair.target for pair in pairs)]))

    def task(self, tokenizer: BytePairs, part: str = "train", **settings: Any) -> Translations:
        """Batches of a part, placeholders protected.

        Args:
            tokenizer: of all languages.
            part: ``"train"``, ``"validation"`` or ``"test"``.
            settings: as :class:`Translations` has them.

        Raises:
            ValueError: there is no such part.
        """
        parts = dict(self.parts.items())
        if part not in parts:
            raise ValueError(unknown("part", part, parts))
        return Translations(map(protect, parts[part]), tokenizer, **settings)


@checked()
def multilingual(
    languages: Sequence[str] = (), sources: Sequence[str] = SOURCES, *, sentences: int = 300, seed: int = 0
) -> Multilingual:
    """Messages of a program, names, dates and units, from English; nothing is fetched.

    A source has one translation into a language, the first that is found. Which part a pair is in depends on its
    source alone, so that a source is in the same part for all languages, in whatever capitals, punctuation and accents
    (see :func:`~deepnet_edu.data.parts.normal`).

    Args:
        languages: targets, as Django calls them, for example ``["de", "pt_BR"]``; none: all but English.
        sources: any of ``"messages"``, ``"names"``, ``"dates"`` and ``"units"``.
        sentences: dates, and units, that are made, each in all languages; 36,525 at most.
        seed: of the sentences.

    Raises:
        UserError: there is no such language or source, or Django or Babel is not installed.
        ValueError: a number is out of range.
    """
    check_numbers(0, sentences=sentences, seed=seed)
    if sentences > DAYS:
        raise ValueError(f"sentences={sentences}: expected {DAYS} at most, the days of 1950 to 2049.")
    known = list(catalogs(django_root()))
    if "en" in languages:
        raise UserError("Language 'en' is that of all sources: name those to translate into, for example 'de'.")
    for kind, given, valid in (("language", languages, known), ("source", sources, SOURCES)):
        if isinstance(given, str):
            raise ValueError(f"{kind}s={given!r}: expected a list, for example [{given!r}].")
        for name in given:
            if name not in valid:
                raise UserError(unknown(kind, name, valid))
    wanted = tuple(dict.fromkeys(languages)) or tuple(known)
    pairs, skipped = django_pairs(wanted) if "messages" in sources else ([], Counter[str]())
    if "names" in sources:
        pairs += name_pairs(wanted)
    if "dates" in sources:
        pairs += date_pairs(wanted, sentences, seed)
    if "units" in sources:
        pairs += unit_pairs(wanted, sentences, seed)
    once: dict[tuple[str, str | None], Pair] = {}
    for pair in pairs:
        once.setdefault((pair.source, pair.language), pair)
    return Multilingual(split(once.values(), source_key), wanted, skipped)


def source_key(pair: Pair) -> str:
    """What the parts are split by."""
    return normal(pair.source)
