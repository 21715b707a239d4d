"""Judges of lesson 04 on tokens: how similar they are, what their gradients share, what attention does to each part,
and how much of the stream a layer has written."""

from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.tensors import sample
from deepnet_edu.checks.values import as_array, close


def _mean_of_pairs(x: Tensor, same: bool = False) -> float:
    """Mean cosine of the pairs of rows, pair by pair; ``same``: of a row with itself too."""
    pairs = [(i, j) for i in range(x.shape[1]) for j in range(x.shape[1]) if same or i != j]
    return float(torch.stack([functional.cosine_similarity(a[i], a[j], dim=0) for a in x for i, j in pairs]).mean())


def token_similarity(trial: Trial) -> None:
    """Bring each token to length 1. The answer is the mean dot product of all T(T-1) pairs of different tokens
    of a sequence, over all sequences."""
    for seed, (B, T, d) in enumerate([(3, 5, 8), (4, 3, 12), (3, 5, 8), (1, 6, 7)]):
        # A part that the tokens share, of another direction in each sequence, and tokens of different lengths.
        x = sample(B, T, d, seed=d + seed) + 1.2 * sample(B, 1, d, seed=d + seed + 1)
        x = x * (0.5 + torch.arange(1, T + 1, dtype=x.dtype)[:, None])
        trial.equal(trial.call(x), _mean_of_pairs(x), _similarity_misconceptions(x), tolerance=1e-5)
    _similarity_properties(trial)


def _similarity_misconceptions(x: Tensor) -> list[Misconception]:
    B, T, d = x.shape
    expected, pairs = _mean_of_pairs(x), T * (T - 1)
    raw = ((x @ x.mT).sum((1, 2)) - x.square().sum((1, 2))) / pairs
    columns = functional.normalize(x, dim=1)
    down = functional.cosine_similarity(x[:, 1:], x[:, :-1], dim=-1)
    itself = "A token is always similar to itself: leave out those T pairs."
    first = functional.cosine_similarity(x[:, 1:], x[:, :1], dim=-1).mean()
    cosines = functional.cosine_similarity(x[:, :, None], x[:, None], dim=-1)
    wrong = [
        Misconception(_mean_of_pairs(x, same=True), itself),
        Misconception((expected * pairs / 2 + T) / (pairs / 2 + T), itself),
        Misconception((expected * pairs + T) / pairs, itself),
        Misconception(raw.mean(), "Cosine has no length in it: bring each token to length 1 first."),
        Misconception(raw.mean() / d, "A dot product over d is not a cosine, unless each token has length √d."),
        Misconception(
            _mean_of_pairs(x - x.mean(1, keepdim=True)),
            "What all tokens share is what you measure: do not subtract the mean token.",
        ),
        Misconception(
            _mean_of_pairs(x - x.mean(-1, keepdim=True)), "That is a correlation: leave each token's own mean in."
        ),
        Misconception(
            ((columns @ columns.mT).sum((1, 2)) - columns.square().sum((1, 2))).mean() / pairs,
            "You normalised over the tokens: the length of a token is taken over its features, the last dimension.",
        ),
        Misconception(down.mean(), "Those are neighbours only: every pair of different tokens counts."),
        Misconception(first, "Those are the first token and each other one: every pair of different tokens counts."),
        Misconception((cosines.abs().sum() / B - T) / pairs, "Opposite tokens have cosine -1: leave the sign in."),
        Misconception(expected * (T - 1) / T, "T(T-1) pairs are left without the diagonal, not T²."),
        Misconception(expected / 2, "Each pair comes twice in the sum, so it counts twice in the number of pairs."),
        Misconception(expected * 2, "The sum over i ≠ j holds each pair twice: divide by T(T-1)."),
        Misconception(expected * pairs, "A mean: divide by the number of pairs, T(T-1)."),
        Misconception(1 - expected, "That is a distance: the cosine itself is asked for."),
    ]
    if B == 1:
        return wrong
    return [
        *wrong,
        Misconception(
            _mean_of_pairs(x.reshape(1, B * T, d)),
            "You compared tokens of different sequences: collapse is about tokens of one sequence.",
        ),
        Misconception(
            _mean_of_pairs(x.transpose(0, 1)),
            "You compared the same place of different sequences: tokens are the second dimension.",
        ),
        Misconception(
            expected + (B - 1) / (B * (T - 1)), "Each of the B sequences has T pairs of a token with itself."
        ),
        Misconception(expected * B, "One number for all sequences: their mean, not their sum."),
        Misconception(_mean_of_pairs(x[:1]), "That is the first sequence alone: take the mean over all of them."),
    ]


def _similarity_properties(trial: Trial) -> None:
    def say(x: Tensor, expected: float, sentence: str) -> None:
        got = trial.call(x)
        trial.like(got, 0.0)
        trial.require(
            bool(close(as_array(got), np.array(expected), 1e-5)), sentence, f"{expected:.6g}", f"{float(got):.6g}"
        )

    equal = sample(2, 1, 6, seed=3)
    say(equal.expand(2, 4, 6).clone(), 1.0, "Tokens that are all equal have similarity 1.")
    say(torch.cat([equal, -2 * equal], 1), -1.0, "Two tokens that point in opposite directions have similarity -1.")
    single = (sample(2, 7, 6, seed=4) + 0.5).float()
    trial.equal(trial.call(single), _mean_of_pairs(single.double()), sentence="In float32 the value is wrong.")


def split_gradient(trial: Trial) -> None:
    """The shared part is the mean over the tokens, g.mean(1, keepdim=True), of shape (B, 1, d). The private part is g
    minus the shared part, (B, T, d)."""
    for seed, (B, T, d) in enumerate([(2, 5, 8), (3, 4, 12), (4, 3, 6), (2, 5, 8)]):
        g = sample(B, T, d, seed=d + seed) + 0.8 * sample(B, 1, d, seed=d + seed + 1) + 0.3
        _parts(trial, g)
    _parts(trial, (sample(2, 6, 4, seed=9) + 0.6).float())


def _parts(trial: Trial, g: Tensor) -> None:
    T = g.shape[1]
    got = trial.call(g)
    trial.require(
        isinstance(got, tuple | list) and len(got) == 2 and all(isinstance(part, Tensor) for part in got),
        "The answer is two tensors: return shared, private.",
        "two tensors",
        type(got).__name__,
    )
    common = (torch.full((T, T), 1 / T, dtype=g.dtype) @ g)[:, :1]
    shared, private = got
    trial.require(
        not (shared.shape == g.shape and private.shape == common.shape),
        "The other way round: shared first, then private.",
    )
    instead = {
        (0,): "The mean over tokens, not over the sequences of the batch: tokens are dimension 1.",
        (2,): "The mean over tokens, not over features: the answer keeps all d of them.",
        (0, 1): "Each sequence has a shared part of its own: do not average over the batch.",
    }
    for dims, sentence in instead.items():
        for keep in (True, False):
            value = g.mean(dims, keepdim=keep)
            trial.require(
                not (shared.shape == value.shape and close(as_array(shared), as_array(value), 1e-5)), sentence
            )
    length = g.norm(dim=1, keepdim=True)
    trial.equal(
        shared,
        common,
        [
            Misconception(T * common, "The mean over the tokens, not their sum: what each of them has."),
            Misconception(T / (T - 1) * common, "A mean of T tokens is divided by T, not by T - 1."),
            Misconception(g[:, :1], "The first token's gradient also holds its private part: take the mean."),
            Misconception(g[:, -1:], "The last token's gradient also holds its private part: take the mean."),
            Misconception(g.median(1, True).values, "The mean, not the median."),
            Misconception(length, "That is a length: the shared part is a vector, and has signs."),
            Misconception(torch.zeros_like(common), "The tokens share something: their mean is not 0."),
        ],
        "The shared part is wrong.",
        shape_sentence="The shared part is one vector per sequence: (B, 1, d), as keepdim=True leaves it.",
    )
    trial.equal(
        private,
        g - common,
        [
            Misconception(g, "The shared part is still in the private one: subtract it."),
            Misconception(common - g, "The sign: private is the gradient minus what is shared."),
            Misconception(g + common, "Subtract the shared part, do not add it."),
            Misconception(g - T * common, "The sum over the tokens was subtracted: subtract their mean."),
            Misconception(g - g[:, :1], "The first token's gradient was subtracted: subtract the mean."),
        ],
        "The private part is wrong.",
        shape_sentence="The private part differs from token to token: (B, T, d).",
    )
    trial.require(close(as_array(shared + private), as_array(g), 1e-5), "Together both parts are the gradient g.")
    rest = private.sum(1).abs().max().item()
    trial.require(rest < 1e-4, "The private parts of a sequence sum to 0.", "0", f"{rest:.3g}")


def attention_gradient_factor(trial: Trial) -> None:
    """√((1 + back)/(1 + f)) with f = r + (1 - r)/T, the variance of the branch, and back = 1 with shared=True, 1/T with
    shared=False: what the branch returns of the gradient's square."""
    for T, r in [(7, 0.35), (19, 0.35), (12, 0.8), (5, 0.6), (3, 0.0), (40, 1.0), (33, np.float64(0.15))]:
        answers = []
        for shared in (True, False):
            got = trial.call(T, r, shared=True) if shared else trial.call(T, r)
            answers.append(got)
            _factor(trial, got, T, float(r), shared)
        for shared in (True, False):
            answers.append(trial.call(T, r, shared))
        values = [float(one) for one in answers]
        trial.require(np.allclose(values[:2], values[2:], rtol=1e-6), "The same arguments gave two different results.")
        trial.require(
            abs(values[0] / values[1] - 1) > 1e-9 if values[1] else values[0] != 0,
            "Your function gives both kinds of gradient the same factor: `shared` changes what comes back.",
        )
    alike = [float(trial.call(1, 0.4, shared=shared)) for shared in (True, False)]
    trial.require(
        abs(alike[0] - alike[1]) < 1e-5,
        "With one token there is nothing to tell apart: both kinds of gradient have the same factor.",
        f"{alike[0]:.6g}",
        f"{alike[1]:.6g}",
    )


def _factor(trial: Trial, got: Any, T: int, r: float, shared: bool) -> None:
    # From the matrices themselves: an average of T tokens forward, its transpose on the way back.
    average = torch.full((T, T), 1 / T, dtype=torch.float64)
    tokens = torch.full((T, T), r, dtype=torch.float64).fill_diagonal_(1.0)
    gradients = torch.ones(T, T, dtype=torch.float64) if shared else torch.eye(T, dtype=torch.float64)
    forward = float((average @ tokens @ average.T).diagonal().mean())
    back = float((average.T @ gradients @ average).diagonal().mean())
    expected = sqrt((1 + back) / (1 + forward))
    wrong = [
        Misconception(
            sqrt((1 + (1 / T if shared else 1)) / (1 + forward)),
            "The two cases are exchanged: attention returns the whole of what is shared.",
        ),
        Misconception((1 + back) / (1 + forward), "That is the factor on the square: a factor of length is its root."),
        Misconception(1 / expected, "Upside down: the length below over the length above is asked for."),
        Misconception(
            1 / sqrt(2), "Only when tokens are equal does attention add as much as the skip: r = 1 and many tokens."
        ),
        Misconception(
            1.0,
            "What goes forward does not simply come back: forward keeps what tokens share, backward divides the "
            "private part by T.",
        ),
        Misconception(
            sqrt(2 / 3),
            "That is Xiong et al.'s factor, of the norm after a feed-forward branch. Here the branch is attention, and "
            "it sends a gradient back too.",
        ),
        Misconception(1 / sqrt(1 + forward), "The branch sends something back too: not only the skip counts."),
        Misconception(
            sqrt((1 + back) / (1 + r)), "The independent parts of T tokens do not cancel to 0 in their mean."
        ),
        Misconception(
            (1 + sqrt(back)) / (1 + sqrt(forward)), "Independent signals add their squares, not their lengths."
        ),
        Misconception(sqrt(1 + back), "The norm after the sum divides the gradient too."),
        Misconception(sqrt(back / forward), "The skip is missing: it counts in the sum and on the way back."),
    ]
    # Each of these equals one above in the other case.
    if shared:
        value = sqrt((1 + back) / (1 + 1 / T))
        wrong.append(Misconception(value, "Correlated tokens do not cancel: the average keeps what they share."))
    else:
        value = sqrt((1 + 1 / T**2) / (1 + forward))
        wrong.append(Misconception(value, "The square of a mean of T independent things is 1/T, not 1/T²."))
        value = sqrt(back / (1 + forward))
        wrong.append(Misconception(value, "The skip sends the gradient back as well: the branch is not alone."))
    # Where two of these are equal the first would be said, and it might be the wrong one: r = 0 and 1 tell less.
    trial.equal(got, expected, wrong if 0 < r < 1 else ())


def pre_ln_share(trial: Trial) -> None:
    """c/(1 + c·l): after layer l the variance is 1 + c·l, and of it the layer has added c."""
    for layer, c in [(7, 1.3), (50, 0.9), (3, 0.4), (1000, 0.25), (4, 0.7), (7, 0.6), (50, 1.3)]:
        # Variance by variance: 1, then c more with each layer.
        v = [1.0]
        for _ in range(layer):
            v.append(v[-1] + c)
        wrong = [
            Misconception(c / v[-2], "The stream after this layer holds the layer's own part, too."),
            Misconception(1 / layer, "The input itself counts: the stream starts with variance 1."),
            Misconception(c / layer, "The input itself counts, and every layer adds c."),
            Misconception(1 / v[-1], "A layer adds c, not 1."),
            Misconception(1 / (1 + layer), "That is for c = 1."),
            Misconception(c / (1 + layer), "Each of the layers has added c, not 1: the stream is larger or smaller."),
            Misconception(
                c * layer / v[-1], "That is the share of all layers together: the share of one layer is asked for."
            ),
            Misconception(layer / v[-1], "A layer adds c once, whatever its number is."),
            Misconception(
                v[-2] / v[-1], "That is the share of what was there before: what the layer added is asked for."
            ),
            Misconception(c / (1 + c), "Layers add their variances: they do not multiply what is there."),
            Misconception(c / (v[-1] + c), "Layers are counted from 1: after layer 1 the variance is 1 + c."),
            Misconception(sqrt(c / v[-1]), "A share of variance is a ratio of variances, without the root."),
            Misconception(v[-1] / c, "Upside down: a share is at most 1."),
        ]
        trial.equal(trial.call(layer, c), (v[-1] - v[-2]) / v[-1], wrong)
    for layer, c, share, sentence in [
        (1, 1.0, 0.5, "The first layer with c = 1 adds as much as was there: half."),
        (10, 1e9, 0.1, "Where c is so large that the input does not count, ten layers share equally."),
    ]:
        got = trial.call(layer, c)
        trial.require(abs(float(got) - share) < 1e-5, sentence, f"{share:g}", f"{float(got):.6g}")
