"""Lesson 13, translation: a split that does not leak, and BLEU. And ``intervals``, ``beams``, ``placeholders``."""

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from math import exp, log
from typing import Any

import numpy as np

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_13.beams import beam_search
from deepnet_edu.checks.lesson_13.intervals import paired_interval
from deepnet_edu.checks.lesson_13.placeholders import one_word
from deepnet_edu.checks.numbers import apart
from deepnet_edu.checks.trial import TYPE
from deepnet_edu.checks.values import describe

Pair = tuple[str, str, str]
Sentences = list[list[str]]


def split_by_source(trial: Trial) -> None:
    """Let a hash of the source decide, and nothing else: lower() and split() first, so that capitals and spaces do not
    count, then sha256, which is the same at each start of Python; a source whose hash, as a share of the largest
    possible one, is less than ``share`` goes to the test part with all its pairs.
    """
    pairs = _pairs(0, 400)
    said = "Python's own hash of a text changes with each start: tomorrow the split would be different. Try hashlib."
    for share in (0.2, 0.5):
        _, test = _parts(trial, pairs, share)
        sources = {_plain(pair[0]) for pair in pairs}
        found = len({_plain(pair[0]) for pair in test}) / len(sources)
        off = 4 * float(np.sqrt(share * (1 - share) / len(sources)))
        told = "The share of the different sources that are in the test part is wrong."
        trial.require(abs(found - share) < off, told, f"about {share:g} of the sources", f"{found:.2f}")
    trial.require(not _uses_hash(trial.function), said)
    once = {_plain(pair[0]) for pair in test}
    for others, told in (
        (pairs[::-1], "In another order the split changes: the order must not decide."),
        (_pairs(1, 300) + pairs, _MOVED),
        (pairs[: len(pairs) // 2], _MOVED),
    ):
        _, again = _parts(trial, others, 0.5)
        there = {_plain(pair[0]) for pair in others}
        moved = len((once ^ {_plain(pair[0]) for pair in again}) & there & {_plain(pair[0]) for pair in pairs})
        trial.require(not moved, told, "the same sources in test", f"{moved} sources have moved")


_MOVED = "Other pairs in the list move old sources: last year's training becomes this year's test."
_WORDS = ["save", "file", "delete", "user", "open", "close", "page", "first", "last", "entry", "text", "date", "list"]


def _pairs(seed: int, count: int) -> list[Pair]:
    """Messages in one to four languages, some in other letters and spaces, one pair twice, in any order."""
    draw = np.random.default_rng(seed)
    found: list[Pair] = []
    for i in range(count):
        source = f"{' '.join(draw.choice(_WORDS, 3))} {1000 * seed + i}"
        for language in draw.permutation(["de", "es", "fr", "ja"])[: draw.integers(1, 5)]:
            written = [source, source, source.title(), source.upper(), f" {source} ", source.replace(" ", "  ")]
            found.append((str(draw.choice(written)), f"{language} {i % 97}", str(language)))
    found.append(found[3])
    return [found[i] for i in draw.permutation(len(found))]


def _plain(source: str) -> str:
    return " ".join(source.lower().split())


def _parts(trial: Trial, pairs: list[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """What the learner's function makes of the pairs, once nothing is lost and nothing leaks."""
    got = trial.call(pairs, share)
    two = isinstance(got, Sequence) and not isinstance(got, str) and len(got) == 2
    trial.require(two, "The answer is two lists: train, test.", got=describe(got), rung=TYPE)
    parts: list[list[Pair]] = []
    for part in got:
        said = "Each part is a list of pairs as they were given: (source, target, language)."
        trial.require(isinstance(part, Sequence | set | np.ndarray), said, got=describe(part), rung=TYPE)
        rows = [tuple(map(str, row)) if isinstance(row, Sequence | np.ndarray) else () for row in part]
        trial.require(all(len(row) == 3 for row in rows), said, got=describe(part), rung=TYPE)
        parts.append(rows)  # type: ignore[arg-type]
    train, test = parts
    both = len(train) + len(test)
    said = "Every pair must come out once, in one part or the other."
    trial.require(Counter(train) + Counter(test) == Counter(pairs), said, f"{len(pairs)} pairs", f"{both} pairs")
    for known, told in (
        (str, "{} of {} test sources are in training too, with another language or once more."),
        (_plain, "{} of {} test sources are in training too, in other letters or spaces."),
    ):
        sources = {known(pair[0]) for pair in test}
        both = len(sources & {known(pair[0]) for pair in train})
        trial.require(not both, told.format(both, len(sources)))
    return train, test


def _uses_hash(function: Any) -> bool:
    """Whether Python's own hash is called, in the function or what it defines inside."""
    codes = [getattr(inspect.unwrap(function), "__code__", None)]
    while codes:
        code = codes.pop()
        if code is not None and "hash" in code.co_names:
            return True
        codes += [one for one in getattr(code, "co_consts", ()) if inspect.iscode(one)]
    return False


def corpus_bleu(trial: Trial) -> None:
    """For n from 1 to 4 add up over all sentences how many n-grams of the hypothesis the reference has, each at most as
    often as the reference has it, and how many the hypothesis has; their ratio is a precision. Multiply the geometric
    mean of the four by min(1, exp(1 - r/h)), h and r the words of all hypotheses and all references, and by 100.
    """
    for hypotheses, references in _corpora():
        wrong = [Misconception(value, said) for value, said in _wrong_scores(hypotheses, references)]
        said = "For these sentences BLEU is wrong."
        trial.equal(trial.call(hypotheses, references), _bleu(hypotheses, references), apart(wrong), said)
    same = [text.split() for text in ("the cat sat on the mat", "a b c d e f g")]
    cases: tuple[tuple[list[list[str]], list[list[str]], float, str], ...] = (
        (same, same, 100.0, "A corpus that is its reference has BLEU 100."),
        (
            [["a", "b", "c", "x"]],
            [["a", "b", "c", "d"]],
            0.0,
            "Where a precision is 0, as of four words here, BLEU is 0.",
        ),
        ([[]], [["a", "b", "c", "d"]], 0.0, "Where nothing is written, BLEU is 0."),
        (
            [[], same[0]],
            [["a"], same[0]],
            100 * exp(-1 / 6),
            "An empty sentence counts by the length of its reference.",
        ),
        ([["a"], same[1]], [["a"], same[1]], 100.0, "A sentence of one word has one 1-gram, and none of two words."),
    )
    for hypotheses, references, right, said in cases:
        got = trial.call(hypotheses, references)
        trial.like(got, 0.0)
        trial.require(abs(float(got) - right) < 1e-3 * max(right, 1), said, f"{right:.6g}", f"{float(got):.6g}")


def _corpora() -> Iterator[tuple[Sentences, Sentences]]:
    """References, and hypotheses that lose, repeat and exchange words of them; shorter and longer than they. A longer
    one comes first: it alone tells a penalty that is missing from one that is upside down."""
    for seed, (lose, repeat, length) in enumerate([(0, 2, 9), (1, 0, 9), (2, 1, 8), (1, 3, 7), (2, 0, 11), (0, 1, 8)]):
        draw = np.random.default_rng(seed)
        hypotheses, references = [], []
        for i in range(5):
            words = [str(word) for word in draw.choice(list("abcdefg"), length + i % 3)]
            said = list(words)
            if i % 2:
                said[int(draw.integers(len(said)))] = "x"
            for _ in range(lose):
                said.pop(0 if i % 2 else -1)
            hypotheses.append([*said, *[said[-1]] * (repeat * (i % 3))])
            references.append(words)
        yield hypotheses, references
    yield (
        [s.split() for s in ("a cat sat on the mat", "there is a dog")],
        [s.split() for s in ("the cat sat on the mat", "there is a small dog")],
    )


def _counts(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _sums(hypotheses: Sentences, references: Sentences, most: int = 4) -> list[list[float]]:
    """For each n: matched, matched without a limit, different ones that match, written, different ones, in the
    references."""
    rows = [[0.0] * 6 for _ in range(most)]
    for h, r in zip(hypotheses, references, strict=True):
        for n in range(1, most + 1):
            mine, theirs = _counts(h, n), _counts(r, n)
            clipped = sum(min(count, theirs[gram]) for gram, count in mine.items())
            loose = sum(count for gram, count in mine.items() if gram in theirs)
            different = sum(gram in theirs for gram in mine)
            for i, value in enumerate((clipped, loose, different, sum(mine.values()), len(mine), sum(theirs.values()))):
                rows[n - 1][i] += value
    return rows


def _geometric(ratios: Sequence[float]) -> float:
    return exp(sum(map(log, ratios)) / len(ratios)) if all(ratio > 0 for ratio in ratios) else 0.0


def _bleu(hypotheses: Sentences, references: Sentences) -> float:
    ratios = [row[0] / row[3] if row[3] else 0.0 for row in _sums(hypotheses, references)]
    return 100 * _brevity(hypotheses, references) * _geometric(ratios)


def _brevity(hypotheses: Sentences, references: Sentences) -> float:
    h, r = sum(map(len, hypotheses)), sum(map(len, references))
    return min(1.0, exp(1 - r / h)) if h else 0.0


def _wrong_scores(hypotheses: Sentences, references: Sentences) -> Iterator[tuple[float, str]]:
    h, r = sum(map(len, hypotheses)), sum(map(len, references))
    rows, penalty = _sums(hypotheses, references), 100 * _brevity(hypotheses, references)
    ratios = [row[0] / row[3] for row in rows]
    pairs = list(zip(hypotheses, references, strict=True))
    short = "A corpus that is too short is multiplied by exp(1 - r/h), not by h/r."
    yield (
        float(np.mean([_bleu([a], [b]) for a, b in pairs])),
        "Matches and lengths are added up over the corpus first: a mean of sentences' scores is not a corpus score.",
    )
    yield (
        penalty * _geometric([row[1] / row[3] for row in rows]),
        "An n-gram matches only as often as the reference has it: Counter & Counter.",
    )
    yield (
        penalty * _geometric([row[2] / row[4] for row in rows]),
        "An n-gram that occurs twice counts twice: use a Counter, not a set.",
    )
    yield penalty * sum(ratios) / 4, "Precisions are averaged through their logarithms, the geometric mean."
    yield 100 * _geometric(ratios), "A corpus that is too short is not penalised: the penalty is missing."
    yield 100 * _geometric(ratios) * min(1.0, h / r), short
    if h > r:  # else it takes nothing off
        yield 100 * _geometric(ratios) * exp(1 - h / r), "The penalty is exp(1 - r/h): h and r are exchanged."
    yield (
        100 * _geometric(ratios) * exp(1 - r / h),
        "A corpus that is longer than its reference gets no bonus: min(1, …).",
    )
    each = [len(a) * _brevity([a], [b]) for a, b in pairs]
    once = "There is one penalty for the whole corpus, not one for each sentence."
    yield 100 * _geometric(ratios) * sum(each) / h, once
    yield (
        penalty * _geometric([row[0] / row[5] for row in rows]),
        "That is recall: matches are divided by what was written, not by what the references have.",
    )
    yield penalty * _geometric(ratios) / 100, "BLEU is given in percent: multiply by 100."
    yield penalty * _geometric(ratios[:3]), "n goes from 1 to 4: that is 3."
    yield penalty * _geometric(ratios[:1]), "n goes from 1 to 4: single words alone do not see their order."
    yield penalty * _geometric(ratios) ** 4, "That is the product of the four precisions: take its fourth root."


JUDGES: dict[str, Judge] = {
    "corpus_bleu": corpus_bleu,
    "one_word": one_word,
    "split_by_source": split_by_source,
    "paired_interval": paired_interval,
    "beam_search": beam_search,
}
