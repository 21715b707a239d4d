"""What is learned from, what chooses, what is reported: three parts of a data set that share nothing."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Generic, TypeVar

from deepnet_edu.data.placeholders import one_word

Item = TypeVar("Item")
Other = TypeVar("Other")
#: Of validation and of test; training has the rest.
SHARES = 0.1, 0.1
#: Documents that share a run of this many words belong together.
RUN = 12


@dataclass(frozen=True)
class Parts(Generic[Item]):
    """A data set in three parts.

    Attributes:
        train: to learn from.
        validation: to choose by, a learning rate for example.
        test: to report, once.
    """

    train: list[Item]
    validation: list[Item]
    test: list[Item]

    def items(self) -> Iterator[tuple[str, list[Item]]]:
        """Name and items of each part."""
        yield from (("train", self.train), ("validation", self.validation), ("test", self.test))

    def map(self, function: Callable[[Item], Other]) -> "Parts[Other]":
        """The same parts of what a function makes of each item."""
        return Parts(*([function(item) for item in part] for _, part in self.items()))


@lru_cache(maxsize=2**16)  # a multilingual set asks for each source in each language
def normal(text: str) -> str:
    """What a source is known by: its letters and digits alone.

    The same for texts that differ in capitals, accents, punctuation, spaces, the names of placeholders, or a plural's
    end: a model that has learned from one of them has seen the others.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", one_word(text)).casefold() if not unicodedata.combining(c))
    words = re.findall(r"[^\W_]+", plain)
    letters = "".join(word.rstrip("eiys") or word for word in words)  # day and days, address and addresses
    return letters or " ".join(text.split())


def split(items: Iterable[Item], key: Callable[[Item], str], shares: tuple[float, float] = SHARES) -> Parts[Item]:
    """Items with the same key go to the same part, whatever else there is, and in whatever order.

    Args:
        items: of the set.
        key: what one is known by, for example :func:`normal` of its source.
        shares: of the keys that go to validation and to test.
    """
    validation, test = shares
    parts: Parts[Item] = Parts([], [], [])
    for item in items:
        # Not Python's own hash, which changes with each start.
        point = int.from_bytes(sha256(key(item).encode()).digest()[:8], "big") / 2**64
        (parts.validation if point < validation else parts.test if point < validation + test else parts.train).append(
            item
        )
    return parts


def leaks(parts: Parts[Item], key: Callable[[Item], str]) -> list[str]:
    """Keys that more than one part has, sorted."""
    keys = [{key(item) for item in part} for _, part in parts.items()]
    return sorted((keys[0] & keys[1]) | (keys[0] & keys[2]) | (keys[1] & keys[2]))


def without_leaks(parts: Parts[Item], key: Callable[[Item], str]) -> Parts[Item]:
    """The parts without the items whose key another part has, too."""
    twice = {*leaks(parts, key)}
    return Parts(*([item for item in part if key(item) not in twice] for _, part in parts.items()))


def balanced(groups: Sequence[Sequence[int]], sizes: Sequence[int], shares: tuple[float, float] = SHARES) -> Parts[int]:
    """Groups that must stay whole, each in the part that lacks most, the largest first; numbers of a part in order.

    Args:
        groups: numbers of the items that belong together.
        sizes: of each item.
        shares: of all sizes that validation and test should have.
    """
    wanted = dict(zip(("train", "validation", "test"), (1 - sum(shares), *shares), strict=True))
    lacking = {name: share * sum(sizes) for name, share in wanted.items()}
    chosen: dict[str, list[int]] = {name: [] for name in lacking}
    for size, group in sorted(((sum(sizes[i] for i in group), group) for group in groups), key=lambda one: -one[0]):
        name = max(lacking, key=lambda name: lacking[name])
        chosen[name] += group
        lacking[name] -= size
    return Parts(**{name: sorted(numbers) for name, numbers in chosen.items()})


def split_documents(documents: Sequence[str], shares: tuple[float, float] = SHARES, run: int = RUN) -> Parts[str]:
    """Documents that share a passage go to the same part: sections of a manual often repeat each other.

    Args:
        documents: of the set, each once.
        shares: of all characters that validation and test should have.
        run: words in a row that make a passage.
    """
    chosen = balanced(_groups(documents, run), [len(document) for document in documents], shares)
    return chosen.map(lambda i: documents[i])


def shared_passages(parts: Parts[str], run: int = RUN) -> list[str]:
    """Passages of this many words that documents of more than one part have, sorted; spaces do not count."""
    passages = [{passage for document in part for passage in _passages(document, run)} for _, part in parts.items()]
    both = (passages[0] & passages[1]) | (passages[0] & passages[2]) | (passages[1] & passages[2])
    return sorted(" ".join(passage) for passage in both)


def _passages(document: str, run: int) -> Iterator[tuple[str, ...]]:
    words = document.split()
    # A shorter document is a passage as a whole.
    return zip(*(words[i:] for i in range(min(run, max(1, len(words))))), strict=False)


def _groups(documents: Sequence[str], run: int) -> list[list[int]]:
    """Numbers of documents that belong together, in order."""
    leader = list(range(len(documents)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    first: dict[int, int] = {}
    for i, document in enumerate(documents):
        for passage in _passages(document, run):
            # Hashes take a tenth of the memory; two equal ones would only put two documents together.
            other = find(first.setdefault(hash(passage), i))
            leader[max(find(i), other)] = min(find(i), other)
    groups = defaultdict(list)
    for i in range(len(documents)):
        groups[find(i)].append(i)
    return list(groups.values())
