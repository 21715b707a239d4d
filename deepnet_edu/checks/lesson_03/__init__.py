"""Lesson 03, attention and feed-forward: heads and masks (in heads.py), the variance of an average, what Xavier's fans
do to a feed-forward branch, the strength of an attention branch, sharp averages, and how ReLU makes tokens more
similar."""

from math import acos, exp, log, pi, sin, sqrt

import numpy as np

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_03.heads import attention
from deepnet_edu.checks.numbers import grows, holds, number, one_at_a_time


def averaged_variance(trial: Trial) -> None:
    """r + (1 - r)/T; with causal, the mean of r + (1 - r)/i over the positions i = 1 … T, which is r + (1 - r)·H_T/T
    with H_T = 1 + 1/2 + … + 1/T."""
    for T, r in [(7, 0.3), (12, 0.85), (5, 0.1)]:
        for causal in (False, True):
            got = trial.call(T, r, causal)
            expected = _kept(T, r, causal)
            trial.equal(got, expected, [*_of_an_average(T, r, causal, expected), *_of_a_mask(T, r, causal)])
    for T, r in [(64, np.float64(0.525)), (64, 0.0), (2, 0.5), (200, 0.02)]:
        for causal in (False, True):
            trial.equal(trial.call(T, r, causal), _kept(T, r, causal))
    one_at_a_time(trial, (6, 0.4, True), (8, 0.6, False), _kept)
    for causal in (True, False):
        said = "A single token is its own average: nothing is lost, whatever r is."
        holds(trial, number(trial, 1, 0.3, causal), 1.0, said)
        said = "Tokens that are all the same (r = 1) average to themselves: nothing is lost, whatever T is."
        holds(trial, number(trial, 9, 1.0, causal), 1.0, said)


def _kept(T: int, r: float, causal: bool) -> float:
    """Variance by counting pairs: position i averages i tokens if causal, else T; i of its pairs are a token twice."""
    averaged = range(1, T + 1) if causal else [T]
    return sum((i + i * (i - 1) * float(r)) / i**2 for i in averaged) / len(averaged)


def _harmonic(T: int) -> float:
    return sum(1 / i for i in range(1, T + 1))


def _of_an_average(T: int, r: float, causal: bool, expected: float) -> list[Misconception]:
    """What goes wrong with a mask and without one."""
    alone = _harmonic(T) / T if causal else 1 / T  # of independent tokens
    correlated = "Correlated tokens do not cancel: what they share survives the average in full."
    return [
        Misconception(1.0, "Lemma 4.1 bounds the magnitude, it is not an equality: independent tokens do cancel."),
        Misconception(1 / sqrt(T), "That is the standard deviation of an average of independent tokens."),
        Misconception(sqrt(expected), "That is the standard deviation: the variance is asked for."),
        Misconception(
            r + alone, "The pairs of a token with itself are counted twice: as 1, and among the pairs that have r."
        ),
        Misconception(r * (1 - alone), "The pairs of a token with itself are missing: their covariance is 1."),
        Misconception(
            r * alone + (1 - r), "The other way round: what tokens share survives, what is their own is divided."
        ),
        Misconception(r, "That is the limit of many tokens: each token's own part still counts a little."),
        Misconception((1 - r) * alone, "What the tokens share is missing: it survives the average."),
        Misconception(1 / T, correlated),
        Misconception(alone, correlated),
    ]


def _of_a_mask(T: int, r: float, causal: bool) -> list[Misconception]:
    """What goes wrong with the mask alone."""
    harmonic = _harmonic(T)
    if not causal:
        said = "With causal=False every position averages all T tokens."
        return [Misconception(r + (1 - r) * harmonic / T, said)]
    mean = "The mean over the positions is asked for: divide your sum over them by T."
    return [
        Misconception(r + (1 - r) / T, "With causal=True position i averages only i tokens: yours averages all T."),
        Misconception(r + (1 - r) * 2 / (T + 1), "Average the variances of the positions, not their number of tokens."),
        Misconception(r + (1 - r) * (harmonic - 1) / T, "The first token averages itself alone: its term is missing."),
        Misconception(
            r + (1 - r) * (harmonic - 1 / T) / T, "The last position averages T tokens: its term is missing."
        ),
        Misconception(r + (1 - r) * (harmonic + 1 / (T + 1)) / T, "There is one term too many: no position has T + 1."),
        Misconception(r + (1 - r) * log(T) / T, "The sum 1 + 1/2 + … is only near ln T: add its terms up."),
        Misconception(r + (1 - r) * harmonic, mean),
        Misconception(r * T + (1 - r) * harmonic, mean),
    ]


def ffn_variance_gain(trial: Trial) -> None:
    """2·gain⁴·d·d_ff/(d + d_ff)²: d·Var(W₁) through W₁, ½ through ReLU, d_ff·Var(W₂) through W₂, and every weight has
    the variance gain²·2/(d + d_ff)."""
    for d, f, gain in [(6, 21, 0.7), (10, 15, 0.7), (16, 16, 0.6), (21, 5, 0.8)]:
        got = trial.call(d, f, gain)
        xavier = gain**2 * 2 / (d + f)  # variance of every weight
        up, down = d * xavier, f * xavier
        expected = up * 0.5 * down
        once = "There are two matrices, and the gain of each counts squared in the variance."
        wrong = [
            Misconception(expected / gain**2, once),
            Misconception(expected / gain**3, "A gain multiplies weights, so it counts squared in a variance."),
            Misconception(expected / gain**4, "The gain is missing: both matrices are drawn with it."),
            Misconception(expected * gain**4, "The gain counts too often: squared for each of two matrices."),
            Misconception(2 * expected, "ReLU keeps half of the second moment."),
            Misconception(
                up * down * (pi - 1) / (2 * pi),
                "That is ReLU's variance. W₂ passes the mean on too: take its second moment.",
            ),
            Misconception(expected / 2, "ReLU halves once: there is one ReLU and not two."),
            Misconception(expected / 4, "The factor 2 of Xavier's variance is missing."),
            Misconception(up * 0.5 * up, "W₂ reads d_ff features: its fan-in is d_ff, not d_model."),
            Misconception(down * 0.5 * down, "W₁ reads d_model features: its fan-in is d_model, not d_ff."),
            Misconception(sqrt(expected), "That is the factor on a length: the factor on the variance is asked for."),
            Misconception(
                gain**4 / 2, "Right where d_ff = d_model only: elsewhere Xavier's rule takes the mean of both fans."
            ),
            Misconception(2 * gain**4, "That is He's rule: Xavier's takes the mean of both fans."),
        ]
        if d != f:
            wrong.append(Misconception(up * 0.5, "W₂ is missing: the branch has two matrices."))
        trial.equal(got, expected, wrong)
    for d, f, gain in [(128, 512, 0.3), (1, 4, 0.9), (4, 1, 0.9)]:
        trial.equal(trial.call(d, f, gain), 2 * gain**4 * d * f / (d + f) ** 2)
    one_at_a_time(trial, (8, 30, 0.9), (9, 40, 1.1), lambda d, f, gain: 2 * gain**4 * d * f / (d + f) ** 2)
    one, two = (number(trial, 6, 21, gain) for gain in (0.7, 1.4))
    grows(trial, one, two, 16, "With twice the gain of both matrices each value is 4 times, its variance 16 times.")
    said = "d_model and d_ff play the same part: exchanged, they give the same."
    grows(trial, one, number(trial, 21, 6, 0.7), 1, said)
    said = "Where d_ff = d_model, both matrices of gain 1 keep the variance, and ReLU half of it."
    holds(trial, number(trial, 12, 12, 1.0), 0.5, said)


def attention_variance_gain(trial: Trial) -> None:
    """gain⁴·averaged_variance(T, r, causal): value and output projection are square, so each multiplies the variance
    by gain², and the average between them keeps its part."""
    points = [(6, 0.25, 0.6), (9, 0.7, 1.2), (4, 0.1, 0.8), (9, 0.2, 0.7)]
    for T, r, gain, causal in [(*point, causal) for point in points for causal in (True, False)]:
        got = trial.call(T, r, causal, gain)
        kept = _kept(T, r, causal)
        expected = gain**4 * kept
        half = (
            "Half is lost. There is no ReLU in attention; and the value matrix is drawn by its own fans, d and d, not "
            "as a part of one matrix with queries and keys."
        )
        wrong = [
            Misconception(gain**2 * kept, "Two matrices, value and output, carry the gain: each counts squared."),
            Misconception(gain * kept, "A gain multiplies weights: in a variance it counts squared, for each matrix."),
            Misconception(
                gain**8 * kept, "Query and key have gain 1, and would not count anyway: softmax weights sum to 1."
            ),
            Misconception(gain**4, "The average between the two matrices is missing."),
            Misconception(kept, "The gain is missing: value and output are drawn with it."),
            Misconception(gain**4 * kept**2, "There is one average: its variance counts once."),
            Misconception(gain**4 / 2 * kept, half),
            Misconception(sqrt(expected), "That is the factor on a length: the factor on the variance is asked for."),
            Misconception(gain**4 / T, "Correlated tokens do not cancel: what they share survives the average."),
            Misconception(gain**4 * _kept(T, r, not causal), "That is the value for the other mask: look at causal."),
        ]
        trial.equal(got, expected, wrong)
    for T, r, causal, gain in [
        (64, 0.0, False, 1.0),
        (32, 0.0, True, 0.28),
        (64, 0.99, False, 1.0),
        (1, 0.3, True, 0.9),
    ]:
        trial.equal(trial.call(T, r, causal, gain), gain**4 * _kept(T, r, causal))
    base, others = (6, 0.4, True, 0.9), (8, 0.6, False, 1.1)
    one_at_a_time(trial, base, others, lambda T, r, causal, gain: gain**4 * _kept(T, r, causal))
    said = "Tokens that are all the same (r = 1) pass the average whole, and square matrices of gain 1 change nothing."
    holds(trial, number(trial, 9, 1.0, False, 1.0), 1.0, said)
    one, two = (number(trial, 5, 0.4, True, gain) for gain in (0.6, 1.2))
    grows(trial, one, two, 16, "With twice the gain of both matrices each value is 4 times, its variance 16 times.")


def sharp_average(trial: Trial) -> None:
    """e^s/T, which is T·E[w²] for the weights w = e^q/(T·E[e^q]) of scores q with variance s."""
    for T, s in [(1000, 0.6), (400, 1.3), (50, 2.1), (64, 1.0), (64, 0.0), (1000, 0.9)]:
        got = trial.call(T, s)
        expected = exp(2 * s) / exp(s) / T  # E[exp(2q)]/E[exp(q)]²/T
        wrong = [
            Misconception(exp(2 * s) / T, "The weights are divided by their sum: e^q alone is not a weight."),
            Misconception(exp(s / 2) / T, "That is the mean of e^q: a second moment is wanted, over the mean squared."),
            Misconception(exp(1.5 * s) / T, "The sum of e^q divides each weight: in a square it counts squared."),
            Misconception(exp(-s / 2) / T, "The sum of e^q divides each weight; the squares are those of e^q."),
            Misconception(1 / T, "That is for equal weights: uneven ones average over fewer tokens."),
            Misconception(
                exp(-s) / T, "Uneven weights average over fewer tokens, so the variance is larger, not smaller."
            ),
            Misconception(
                (exp(s) - 1) / T,
                "That is the variance of the weights (times T): the average needs their second moment.",
            ),
            Misconception(exp(s) / T**2, "That is one squared weight: T of them add up."),
            Misconception(exp(s), "That is how much stronger than an even average it is: the even one is missing."),
            Misconception(exp(s * s) / T, "s is a variance already: it is not to be squared."),
            Misconception(exp(sqrt(s)) / T, "s is a variance already: take no root of it."),
            Misconception(sqrt(expected), "That is the standard deviation: the variance is asked for."),
        ]
        trial.equal(got, expected, wrong if s not in (0.0, 1.0) else [])
    one_at_a_time(trial, (80, 0.7), (90, 0.8), lambda T, s: exp(s) / T)
    said = "Scores that are all equal (s = 0) give even weights: one T-th of the variance is left."
    holds(trial, number(trial, 50, 0.0), 1 / 50, said)
    few, many = number(trial, 200, 1.0), number(trial, 400, 1.0)
    grows(trial, few, many, 0.5, "Twice as many tokens leave half of the variance.")


def relu_correlation(trial: Trial) -> None:
    """r + (√(1 - r²) - r·arccos r)/π, the cosine of ReLU(a) and ReLU(b) for normal a, b with correlation r."""
    for r in (-0.6, 0.35, 0.9, 0.45, 0.5, 0.0, 1.0):
        got = trial.call(r)
        # E[ReLU(a)ReLU(b)]/E[ReLU(a)²] by its angle (arc-cosine kernel).
        angle = acos(r)
        expected = (sin(angle) + (pi - angle) * r) / pi
        root = sqrt(1 - r * r)
        centred = (expected / 2 - 1 / (2 * pi)) / (0.5 - 1 / (2 * pi))
        wrong = [
            Misconception(centred, "You removed the means: the cosine keeps them, and what W₂ sees is the cosine."),
            Misconception(expected / 2, "That is the mean of ReLU(a)·ReLU(b): what is it for a token with itself?"),
            Misconception(expected / 4, "The mean of ReLU(a)·ReLU(b) is divided by ½, not multiplied."),
            Misconception(
                (root + angle * r) / pi, "The angle is taken from π: π - φ is the part where both are positive."
            ),
            Misconception((root + (pi - r) * angle) / pi, "The cosine and the angle are exchanged."),
            Misconception(
                (r + (pi - angle) * root) / pi, "Sine and cosine are exchanged: the cosine of the angle is r."
            ),
            Misconception(r + (root - angle) / pi, "The arc cosine comes with a factor r."),
            Misconception((root - r * angle) / pi, "The term r in front is missing."),
            Misconception(r + (root + r * angle) / pi, "One sign is wrong: in (π - φ)·cos φ there is a minus."),
            Misconception(
                (1 - r * r + (pi - angle) * r) / pi, "The sine of the angle has a root: its square is 1 - r²."
            ),
        ]
        if r > 0:
            wrong += [
                Misconception(
                    r, "ReLU makes tokens more similar: what both lose, the negative side, was where they differed."
                ),
                Misconception(r / 2, "Both parts are halved, the shared one and the whole: the ratio is not."),
            ]
        # At the others several of them are equal.
        trial.equal(got, expected, wrong if r not in (0.5, 0.0, 1.0) else [])
    holds(trial, number(trial, 1.0), 1.0, "Two equal tokens are equal after ReLU, too: a cosine of 1.")
    said = "Of two opposite tokens (r = -1) one is 0 wherever the other is not: a cosine of 0."
    holds(trial, number(trial, -1.0), 0.0, said)


JUDGES: dict[str, Judge] = {
    "attention": attention,
    "averaged_variance": averaged_variance,
    "ffn_variance_gain": ffn_variance_gain,
    "attention_variance_gain": attention_variance_gain,
    "sharp_average": sharp_average,
    "relu_correlation": relu_correlation,
}
