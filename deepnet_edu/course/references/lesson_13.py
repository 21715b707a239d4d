"""Reference answers, cut from solutions/13_translation.py by `make build`. Do not edit."""

import re
from collections import Counter
from hashlib import sha256
from math import exp, log

import numpy as np


def corpus_bleu(hypotheses, references):
    """BLEU of lists of words against one reference each, in percent: one number."""

    def groups(words, n):
        return Counter(zip(*(words[i:] for i in range(n)), strict=False))

    logs = 0.0
    for n in range(1, 5):
        pairs = [(groups(h, n), groups(r, n)) for h, r in zip(hypotheses, references, strict=True)]
        matched = sum((h & r).total() for h, r in pairs)
        if not matched:
            return 0.0
        logs += log(matched / sum(h.total() for h, _ in pairs)) / 4
    h, r = sum(map(len, hypotheses)), sum(map(len, references))
    return 100 * exp(logs + min(0.0, 1 - r / h))


def one_word(text):
    """The message with each placeholder as the word XX."""
    return re.sub(r"%\(\w+\)[sdif]|%[sdif]\b|\{\w*\}|</?\w[^<>]*>", "XX", text)


def split_by_source(pairs, share):
    """Training and test part, two lists of pairs, which share no source."""

    def held_out(source):
        known = " ".join(source.lower().split())
        point = int.from_bytes(sha256(known.encode()).digest()[:8], "big")
        return point < share * 2**64

    train = [pair for pair in pairs if not held_out(pair[0])]
    test = [pair for pair in pairs if held_out(pair[0])]
    return train, test


def paired_interval(a, b, score, draws, generator):
    """Difference of two scores, and the ends of its 95% interval: three numbers."""
    rows = generator.integers(len(a), size=(draws, len(a)))
    differences = [score(a[drawn].sum(0)) - score(b[drawn].sum(0)) for drawn in rows]
    low, high = np.quantile(differences, [0.025, 0.975])
    return score(a.sum(0)) - score(b.sum(0)), low, high


def beam_search(step, end, longest, beams, power):
    """The best sequence that is found, and its score."""
    alive, finished = [(0.0, ())], []
    for length in range(1, longest + 1):
        longer = sorted(
            ((total + p, (*tokens, token)) for total, tokens in alive for token, p in enumerate(step(tokens))),
            reverse=True,
        )
        alive = []
        for total, tokens in longer:
            if tokens[-1] == end or length == longest:
                finished.append((total / length**power, tokens))
            elif len(alive) < beams:
                alive.append((total, tokens))
    score, tokens = max(finished)
    return tokens, float(score)
