"""Lesson 13: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import heapq
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from hashlib import md5
from itertools import product
from math import exp, inf, log, prod
from typing import Any
from zlib import crc32

import numpy as np


def _see_split(f: Callable, g: np.random.Generator) -> Any:
    texts = ["one file", "One  file", " two files", "TWO FILES", "three", "four", "five"]
    pairs = [(str(g.choice(texts)) + str(g.integers(4)), str(i), str(g.choice(["de", "fr"]))) for i in range(30)]
    train, test = f(pairs, float(g.uniform(0.1, 0.9)))
    return [pair in test for pair in pairs] + [pair in train for pair in pairs]


def _see_bleu(f: Callable, g: np.random.Generator) -> Any:
    def sentence() -> list[str]:
        return [str(word) for word in g.choice(list("abc"), int(g.integers(0, 12)))]

    references = [sentence() for _ in range(int(g.integers(1, 4)))]
    hypotheses = [[*r[1:], "c"] if g.integers(2) else [*r, *sentence()[:2]] for r in references]
    return [f(hypotheses, [*references[:-1], [*references[-1], "a"]])]


class _All:
    """In place of a generator: all draws there are, so that answers which draw them in another order are equal."""

    def integers(self, high: int, size: tuple[int, int]) -> Any:
        return np.array(list(product(range(high), repeat=size[1])))[: size[0]]


def _see_interval(f: Callable, g: np.random.Generator) -> Any:
    n, k = int(g.integers(2, 4)), int(g.integers(2, 4))
    a, b = g.uniform(1, 2, (n, k)), g.uniform(1, 2, (n, k))
    return f(a, b, lambda sums: sums[0] / sums[-1], n**n, _All())


def _see_beam(f: Callable, g: np.random.Generator) -> Any:
    words, longest, seed = int(g.integers(2, 5)), int(g.integers(1, 6)), int(g.integers(10_000))

    def step(tokens: Any) -> Any:
        return np.log(np.random.default_rng([seed, *(int(t) + 1 for t in tokens)]).dirichlet(np.ones(words)))

    power = float(g.choice([0, 0.6, 1, 2]))
    tokens, score = f(step, int(g.integers(words)), longest, int(g.integers(1, 5)), power)
    return [score, *tokens]


def _see_word(f: Callable, g: np.random.Generator) -> Any:
    parts = [
        "%(a)s",
        "%s",
        "%d",
        "{}",
        "{ab}",
        "<b>",
        "</b>",
        '<a href="x">',
        " ",
        "a",
        "%",
        "<",
        ">",
        "(",
        ")",
        "{",
        "sd",
    ]
    text = f("".join(g.choice(parts, int(g.integers(1, 9)))))
    return [ord(letter) for letter in text]


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "split_by_source": _see_split,
    "corpus_bleu": _see_bleu,
    "paired_interval": _see_interval,
    "beam_search": _see_beam,
    "one_word": _see_word,
}


def plain(text):
    return " ".join(text.lower().split())


def split_by(held_out, pairs):
    return [p for p in pairs if not held_out(p)], [p for p in pairs if held_out(p)]


def split(pairs, share, known=plain, of=0):
    return split_by(lambda p: crc32(known(p[of]).encode()) < share * 2**32, pairs)


def split_by_drawing(pairs, share):
    return split_by(lambda p: random.Random(plain(p[0])).random() < share, pairs)


def split_by_md5(pairs, share):
    train, test = [], []
    for pair in pairs:
        digest = md5(re.sub(r"\s+", " ", pair[0].strip().casefold()).encode()).hexdigest()
        (test if int(digest, 16) % 10_000 < 10_000 * share else train).append(pair)
    return train, test


def random_pairs(pairs, share):
    rows = np.random.default_rng(0).permutation(len(pairs))
    cut = int(share * len(pairs))
    return [pairs[i] for i in rows[cut:]], [pairs[i] for i in rows[:cut]]


def sampled_sources(pairs, share, order=lambda sources: list(dict.fromkeys(sources))):
    sources = order([plain(pair[0]) for pair in pairs])
    chosen = set(random.Random(0).sample(sources, round(share * len(sources))))
    return split_by(lambda p: plain(p[0]) in chosen, pairs)


def first_of_the_alphabet(pairs, share):
    sources = sorted({plain(pair[0]) for pair in pairs})
    chosen = set(sources[: round(share * len(sources))])
    return split_by(lambda p: plain(p[0]) in chosen, pairs)


def without_doubles(pairs, share):
    return split(list({p[0]: p for p in pairs}.values()), share)


def hashed(pairs, share):
    return split_by(lambda p: hash(plain(p[0])) % 2**32 < share * 2**32, pairs)


def grams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu(
    hypotheses, references, clip=True, mean="geometric", penalty=lambda h, r: min(1, exp(1 - r / h)), of=0, most=4
):
    found = []
    for n in range(1, most + 1):
        pairs = [(grams(h, n), grams(r, n)) for h, r in zip(hypotheses, references, strict=True)]
        matched = sum((h & r).total() if clip else sum(c for g, c in h.items() if g in r) for h, r in pairs)
        total = sum(pair[of].total() for pair in pairs)
        found.append(matched / total if total else 0.0)
    h, r = sum(map(len, hypotheses)), sum(map(len, references))
    if not h or not all(found):
        return 0.0
    average = np.mean(found) if mean == "arithmetic" else prod(found) ** (1 / most)
    return 100 * penalty(h, r) * average


def bleu_by_lists(hypotheses, references):
    """Takes out what has matched."""
    matched, written = [0] * 5, [0] * 5
    for h, r in zip(hypotheses, references, strict=True):
        for n in range(1, 5):
            left = [r[i : i + n] for i in range(len(r) - n + 1)]
            for i in range(len(h) - n + 1):
                written[n] += 1
                if h[i : i + n] in left:
                    left.remove(h[i : i + n])
                    matched[n] += 1
    if 0 in matched[1:]:
        return 0.0
    shorter = sum(map(len, references)) / sum(map(len, hypotheses))
    return 100 * exp(sum(log(matched[n] / written[n]) for n in range(1, 5)) / 4 + min(0, 1 - shorter))


def bleu_by_sacrebleu(hypotheses, references):
    from sacrebleu.metrics import BLEU

    scorer = BLEU(tokenize="none", smooth_method="none", force=True)
    lines = [" ".join(words) for words in hypotheses]
    return scorer.corpus_score(lines, [[" ".join(words) for words in references]]).score


def bleu_of_sets(hypotheses, references):
    def distinct(words, n):
        return Counter(set(grams(words, n)))

    logs = 0.0
    for n in range(1, 5):
        pairs = [(distinct(h, n), distinct(r, n)) for h, r in zip(hypotheses, references, strict=True)]
        matched, written = sum((h & r).total() for h, r in pairs), sum(h.total() for h, _ in pairs)
        if not matched:
            return 0.0
        logs += log(matched / written) / 4
    h, r = sum(map(len, hypotheses)), sum(map(len, references))
    return 100 * exp(logs + min(0, 1 - r / h))


def mean_of_sentences(hypotheses, references):
    return float(np.mean([bleu([h], [r]) for h, r in zip(hypotheses, references, strict=True)]))


def drawn(n, draws, generator):
    return generator.integers(n, size=(draws, n))


def interval(a, b, score, draws, generator, rows=drawn, ends=(0.025, 0.975), same=True, centre=False):
    mine = rows(len(a), draws, generator)
    theirs = mine if same else rows(len(a), draws, generator)
    found = [score(a[i].sum(0)) - score(b[j].sum(0)) for i, j in zip(mine, theirs, strict=True)]
    whole = float(np.mean(found)) if centre else score(a.sum(0)) - score(b.sum(0))
    return whole, *np.quantile(found, ends)


def interval_by_counts(a, b, score, draws, generator):
    n = len(a)
    counts = generator.multinomial(n, np.full(n, 1 / n), size=draws)
    found = sorted(score(one @ a) - score(one @ b) for one in counts)
    return [score(a.sum(0)) - score(b.sum(0)), np.quantile(found, 0.025), np.quantile(found, 0.975)]


def interval_by_halves(a, b, score, draws, generator):
    return interval(a, b, score, draws, generator, rows=lambda n, d, g: [g.permutation(n)[: n // 2] for _ in range(d)])


def interval_one_by_one(a, b, score, draws, generator):
    found = []
    for _ in range(draws):
        rows = generator.choice(len(a), len(a))
        found.append(score(np.sum(a[rows], axis=0)) - score(np.sum(b[rows], axis=0)))
    return np.array([score(a.sum(0)) - score(b.sum(0)), *np.percentile(found, [2.5, 97.5])])


def interval_over_root(a, b, score, draws, generator):
    whole, low, high = interval(a, b, score, draws, generator)
    return whole, whole + (low - whole) / draws**0.5, whole + (high - whole) / draws**0.5


def interval_normal(a, b, score, draws, generator):
    found = [score(a[i].sum(0)) - score(b[i].sum(0)) for i in drawn(len(a), draws, generator)]
    return (
        score(a.sum(0)) - score(b.sum(0)),
        np.mean(found) - 1.96 * np.std(found),
        np.mean(found) + 1.96 * np.std(found),
    )


def interval_of_sentences(a, b, score, draws, generator):
    each = np.array([score(x) - score(y) for x, y in zip(a, b, strict=True)])
    found = [each[i].mean() for i in drawn(len(a), draws, generator)]
    return each.mean(), *np.quantile(found, [0.025, 0.975])


def interval_by_numpy(a, b, score, draws, generator):
    return interval(a, b, score, draws, np.random.default_rng())


def search(step, end, longest, beams, power, over=lambda n, power, ended: n**power, cut=False, lost=False, own=False):
    alive, finished = [(0.0, ())], []
    for length in range(1, longest + 1):
        families = [[(total + float(p), (*tokens, t)) for t, p in enumerate(step(tokens))] for total, tokens in alive]
        every = sorted((one for family in families for one in family), reverse=True)
        for total, tokens in every:
            ended = tokens[-1] == end
            if ended or (length == longest and not lost):
                finished.append((total / over(length, power, ended), tokens))
        if cut and finished:
            break
        if own and length > 1:  # each beam keeps its best child
            every = [max(one for one in family if one[1][-1] != end) for family in families]
        alive = [one for one in every if one[1][-1] != end][:beams]
    score, tokens = max(finished, default=(-inf, (end,)))
    return tokens, score


def search_by_heap(step, end, longest, beams, power):
    finished: list = []
    alive = {(): 0.0}
    for length in range(1, longest + 1):
        longer: dict = defaultdict(float)
        for tokens, total in alive.items():
            for token, p in enumerate(step(list(tokens))):
                if token == end or length == longest:
                    heapq.heappush(finished, (-(total + p) / length**power, [*tokens, token]))
                else:
                    longer[*tokens, token] = total + p
        alive = dict(heapq.nlargest(beams, longer.items(), key=lambda item: item[1]))
    score, tokens = finished[0]
    return tokens, -score


def search_by_sorting(step, end, longest, beams, power):
    """Divides while it searches, which at one length changes no order."""
    alive, best = [((), 0.0)], ((), -inf)
    while alive:
        grown = [((*s, t), total + p) for s, total in alive for t, p in enumerate(np.asarray(step(s)).tolist())]
        done = [one for one in grown if one[0][-1] == end or len(one[0]) == longest]
        best = max([best, *((s, total / len(s) ** power) for s, total in done)], key=lambda one: one[1])
        alive = sorted((one for one in grown if one not in done), key=lambda one: -one[1])[:beams]
    return best


def search_products(step, end, longest, beams, power):
    tokens, _ = search(step, end, longest, beams, power)
    return tokens, exp(sum(float(step(tokens[:i])[t]) for i, t in enumerate(tokens))) / len(tokens) ** power


def search_beyond_the_end(step, end, longest, beams, power):
    alive = [(0.0, ())]
    for _ in range(longest):
        every = [(total + float(p), (*s, t)) for total, s in alive for t, p in enumerate(step(s))]
        alive = sorted(every, reverse=True)[:beams]
    return alive[0][1], alive[0][0] / longest**power


def search_all(step, end, longest, beams, power):
    return search(step, end, longest, 10**6, power)


PATTERN = r"%\(\w+\)[sdif]|%[sdif]\b|\{\w*\}|</?\w[^<>]*>"


def words_one_by_one(text):
    for pattern in PATTERN.split("|"):
        text = re.sub(pattern, "XX", text)
    return text


def words_by_scanner(text):
    found = re.compile(r"(?:%(?:\([^()]+\))?[sdif](?!\w)|\{[A-Za-z_0-9]*\}|<(?:/|(?=[A-Za-z]))[^<>]+>)")
    return "XX".join(found.split(text))


def sub(pattern, text, by="XX"):
    return re.sub(pattern, by, text)


RIGHT = [
    ("split_by_source", split),
    ("split_by_source", split_by_drawing),
    ("split_by_source", split_by_md5),
    ("corpus_bleu", bleu),
    ("corpus_bleu", bleu_by_lists),
    ("corpus_bleu", bleu_by_sacrebleu),
    ("paired_interval", interval),
    ("paired_interval", interval_by_counts),
    ("paired_interval", interval_by_halves),
    ("paired_interval", interval_one_by_one),
    ("beam_search", search),
    ("beam_search", search_by_heap),
    ("beam_search", search_by_sorting),
    ("one_word", words_one_by_one),
    ("one_word", words_by_scanner),
    ("one_word", lambda text: sub(PATTERN, text)),
]

WRONG = [
    ("split_by_source", random_pairs, "are in training too, with another language"),
    ("split_by_source", lambda pairs, share: split(pairs, share, of=1), "are in training too, with another language"),
    ("split_by_source", without_doubles, "Every pair must come out once"),
    ("split_by_source", lambda pairs, share: split(pairs, share, str), "in other letters or spaces"),
    ("split_by_source", lambda pairs, share: split(pairs, share, str.lower), "in other letters or spaces"),
    ("split_by_source", lambda pairs, share: split(pairs, share, lambda s: " ".join(s.split())), "other letters"),
    ("split_by_source", sampled_sources, "In another order the split changes"),
    ("split_by_source", lambda p, s: sampled_sources(p, s, lambda x: sorted(set(x))), "Other pairs in the list move"),
    ("split_by_source", first_of_the_alphabet, "Other pairs in the list move"),
    ("split_by_source", hashed, "changes with each start"),
    ("split_by_source", lambda pairs, share: split(pairs, 1 - share), "The share of the different sources"),
    ("split_by_source", lambda pairs, share: split(pairs, share)[0], "two lists"),
    ("split_by_source", lambda p, s: tuple([one[:2] for one in part] for part in split(p, s)), "as they were given"),
    ("corpus_bleu", mean_of_sentences, "added up over the corpus first"),
    ("corpus_bleu", lambda h, r: bleu(h, r, clip=False), "only as often as the reference has it"),
    ("corpus_bleu", bleu_of_sets, "a Counter, not a set"),
    ("corpus_bleu", lambda h, r: bleu(h, r, mean="arithmetic"), "through their logarithms"),
    ("corpus_bleu", lambda h, r: bleu(h, r, penalty=lambda h, r: 1), "the penalty is missing"),
    ("corpus_bleu", lambda h, r: bleu(h, r, penalty=lambda h, r: min(1, h / r)), "not by h/r"),
    ("corpus_bleu", lambda h, r: bleu(h, r, penalty=lambda h, r: min(1, exp(1 - h / r))), "are exchanged"),
    ("corpus_bleu", lambda h, r: bleu(h, r, penalty=lambda h, r: exp(1 - r / h)), "gets no bonus"),
    ("corpus_bleu", lambda h, r: bleu(h, r, of=1), "That is recall"),
    ("corpus_bleu", lambda h, r: bleu(h, r) / 100, "in percent"),
    ("corpus_bleu", lambda h, r: bleu(h, r, most=3), "n goes from 1 to 4"),
    ("corpus_bleu", lambda h, r: bleu(h, r, most=1), "single words alone"),
    ("paired_interval", lambda *a: interval(*a, same=False), "draw the same sentences for both"),
    (
        "paired_interval",
        lambda *a: interval(*a, rows=lambda n, d, g: [g.permutation(n) for _ in range(d)]),
        "draw with replacement",
    ),
    ("paired_interval", lambda *a: interval(*a, ends=(0.05, 0.95)), "leaves out 2.5%"),
    ("paired_interval", lambda *a: interval(*a, ends=(0, 1)), "leaves out 2.5%"),
    ("paired_interval", interval_over_root, "do not divide"),
    ("paired_interval", interval_normal, "assumes a normal distribution"),
    ("paired_interval", interval_of_sentences, "not a mean of its sentences"),
    ("paired_interval", lambda *a: interval(*a, centre=True), "not the mean of the draws"),
    ("paired_interval", lambda a, b, *rest: interval(b, a, *rest), "a minus b"),
    ("paired_interval", interval_by_numpy, "with the generator that is given"),
    ("paired_interval", lambda a, b, s, d, g: interval(a, b, s, d // 2, g), "as draws says"),
    (
        "paired_interval",
        lambda *a: interval(*a, rows=lambda n, d, g: g.integers(n, size=(d, n // 2))),
        "as large as the one at hand",
    ),
    ("paired_interval", lambda *a: interval(*a, rows=lambda n, d, g: g.integers(1, n, (d, n))), "as likely"),
    ("paired_interval", lambda *a: interval(*a)[1:], "three numbers"),
    ("beam_search", search_products, "Add logarithms"),
    ("beam_search", lambda *a: search(*a, over=lambda n, power, _: n**-power), "are negative"),
    ("beam_search", lambda *a: search(*a, over=lambda n, power, end: max(n - end, 1) ** power), "counts in the length"),
    ("beam_search", lambda *a: search(*a, over=lambda n, power, _: 1), "divided by length"),
    ("beam_search", lambda *a: search(*a, cut=True), "need not be the best"),
    ("beam_search", lambda *a: search(*a, lost=True), "without an end is finished too"),
    ("beam_search", search_beyond_the_end, "nothing comes after its end token"),
    ("beam_search", search_all, "sequences of a length are continued"),
    ("beam_search", lambda s, e, n, k, p: search(s, e, n, 1, p), "as if beams were 1"),
    ("beam_search", lambda *a: search(*a, own=True), "With a beam that holds every sequence"),
    ("beam_search", lambda *a: search(*a)[0], "two things"),
    ("one_word", lambda text: sub(r"%\(.*\)[sdif]|%[sdif]\b|\{.*\}|<.*>", text), "was swallowed"),
    ("one_word", lambda text: sub(r"%\(.*\)[sdif]|%[sdif]\b|\{\w*\}|</?\w[^<>]*>", text), "was swallowed"),
    ("one_word", lambda text: sub(r"%\(\w+\)s", text), "you found"),
    ("one_word", lambda text: sub(r"%\(\w+\)[sdif]|%[sdif]\b|\{\w+\}|</?\w[^<>]*>", text), "you found"),
    ("one_word", lambda text: sub(r"%\(?\w*\)?[sdif]?|\{\w*\}|</?\w[^<>]*>", text), "This message has no placeholder"),
    ("one_word", lambda text: sub(PATTERN + "|<", text), "This message has no placeholder"),
    ("one_word", lambda text: sub(r"% ?[sdif]|%\(\w+\)[sdif]|\{\w*\}|</?\w[^<>]*>", text), "This message has no"),
    ("one_word", lambda text: sub(PATTERN, text, " XX "), "Leave the spaces"),
    ("one_word", lambda text: sub(PATTERN, text, "XYZ"), "you found"),
    ("one_word", lambda text: re.sub(PATTERN, "XX", text).lower(), "This message has no placeholder"),
    ("one_word", lambda text: re.sub(PATTERN, "XX", text) + ".", "no placeholder"),
    ("one_word", lambda text: re.findall(PATTERN, text), "is a text"),
]
