"""Lesson 03, attention and feed-forward: heads and masks, the variance of an average, what Xavier's fans do to a
feed-forward branch, the strength of an attention branch, sharp averages, and how ReLU makes tokens more alike."""

from math import acos, exp, pi, sqrt

import torch
from torch import Tensor
from torch.nn import functional

from deepnet_edu.checks.base import Judge, Misconception, Trial


def _heads(x: Tensor, n: int) -> Tensor:
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def attention(trial: Trial) -> None:
    """softmax(QKᵀ/√(d/h) + mask) V, head by head: (B, T, d)."""
    generator = torch.Generator().manual_seed(3)
    for B, T, d, h in [(2, 5, 12, 3), (3, 4, 8, 2)]:
        # Twice a normal draw: with a flat softmax most wrong answers are nearly right.
        q, k, v = (2 * torch.randn(3, B, T, d, generator=generator, dtype=torch.float64)).unbind()
        for causal in (False, True):
            got = trial.call(q, k, v, h, causal)
            parts = [_heads(x, h) for x in (q, k, v)]
            Q, K, V = parts
            expected = _merged(functional.scaled_dot_product_attention(Q, K, V, is_causal=causal))
            seen = torch.ones(T, T, dtype=torch.bool).tril() if causal else torch.ones(T, T, dtype=torch.bool)

            def by(scores: Tensor, seen: Tensor = seen, V: Tensor = V, dim: int = -1) -> Tensor:
                return _merged(scores.masked_fill(~seen, float("-inf")).softmax(dim) @ V)

            scores = Q @ K.mT / sqrt(d / h)
            cut = [x.reshape(B, h, T, d // h) for x in (q, k, v)]
            masked_late = _merged((scores.softmax(-1) * seen) @ V)
            wrong = [
                Misconception(
                    by(Q @ K.mT / sqrt(d)),
                    f"Each head compares vectors of length d/h: divide by √(d/h) = {sqrt(d / h):.3g}, not by √d.",
                ),
                Misconception(by(Q @ K.mT), "The scores are not divided by √(d/h)."),
                Misconception(by(Q @ K.mT / (d / h)), "Divide by the root, √(d/h): scores then have variance 1."),
                Misconception(
                    _merged(functional.scaled_dot_product_attention(cut[0], cut[1], cut[2], is_causal=causal)),
                    "You cut the sequence into pieces, not the features: split d into (h, d/h) first, then transpose.",
                ),
                Misconception(
                    functional.scaled_dot_product_attention(Q, K, V, is_causal=causal).reshape(B, T, d),
                    "Heads go back beside the features first: transpose, then merge.",
                ),
                Misconception(
                    functional.scaled_dot_product_attention(q, k, v, is_causal=causal),
                    "That is one head of width d: split it into n_heads.",
                ),
                Misconception(by(scores.mT), "Rows are queries, columns are keys: Q Kᵀ, not K Qᵀ."),
                Misconception(
                    _merged(functional.scaled_dot_product_attention(Q, K, K, is_causal=causal)),
                    "The weights average the values, not the keys.",
                ),
                Misconception(
                    by(scores, dim=-2),
                    "Each query distributes its attention over the keys: softmax over the last dimension.",
                ),
            ]
            if causal:
                wrong += [
                    Misconception(
                        masked_late,
                        "Masked after the softmax, the weights no longer sum to 1: put -∞ into the scores before it.",
                    ),
                    Misconception(
                        _merged(scores.softmax(-1) @ V),
                        "Nothing is masked: with causal=True a token must not see later ones.",
                    ),
                    Misconception(
                        by(scores, seen.mT), "The mask is the wrong way round: a token sees itself and earlier ones."
                    ),
                    Misconception(
                        _merged((scores * seen).softmax(-1) @ V),
                        "A score of 0 is not a weight of 0: masked scores must be -∞.",
                    ),
                ]
            else:
                wrong.append(Misconception(by(scores, seen.tril()), "With causal=False every token sees all others."))
            trial.require(
                not (isinstance(got, Tensor) and bool(got.isnan().any())),
                "There is NaN in the answer: a token may look at itself, so mask strictly above the diagonal.",
            )
            trial.equal(got, expected, wrong, "softmax(QKᵀ/√(d/h)) V in each head, then the heads side by side.", 1e-8)


def averaged_variance(trial: Trial) -> None:
    """r + (1 - r)/T; causal r + (1 - r)·H_T/T."""
    for T, r in [(7, 0.3), (12, 0.85), (5, 0.0)]:
        for causal in (False, True):
            got = trial.call(T, r, causal)
            # From the covariance itself: position i averages i tokens when causal, T otherwise.
            covariance = torch.full((T, T), r, dtype=torch.float64).fill_diagonal_(1.0)
            weights = torch.ones(T, T, dtype=torch.float64)
            weights = weights.tril() if causal else weights
            weights = weights / weights.sum(-1, keepdim=True)
            expected = (weights @ covariance @ weights.mT).diagonal().mean().item()
            harmonic = sum(1 / i for i in range(1, T + 1))
            wrong = [
                Misconception(
                    1.0, f"Lemma 4.1 bounds the magnitude, it is no equality: {T} independent tokens average to 1/{T}."
                ),
                Misconception(1 / sqrt(T), "That is the standard deviation of an average of independent tokens."),
                Misconception(sqrt(expected), "That is the standard deviation: asked is the variance."),
                Misconception(
                    r * (1 - 1 / T) + (1 - r) / T, "T of the T² pairs are a token with itself: correlation 1, not r."
                ),
                Misconception(
                    r / T + (1 - r),
                    "The other way round: what tokens share survives, what is their own is divided by T.",
                ),
                Misconception(r, "That is the limit of many tokens: what is each token's own still leaves (1 - r)/T."),
            ]
            if r:
                wrong.append(
                    Misconception(
                        1 / T, "Correlated tokens do not cancel: what they share survives the average in full."
                    )
                )
                wrong.append(
                    Misconception(
                        harmonic / T, "Correlated tokens do not cancel: what they share survives the average in full."
                    )
                )
            if causal:
                wrong += [
                    Misconception(
                        r + (1 - r) / T,
                        "Position i averages only i tokens: take the mean of r + (1 - r)/i over i = 1 … T.",
                    ),
                    Misconception(
                        r + (1 - r) * 2 / (T + 1), "Average the variances of the positions, not their number of tokens."
                    ),
                    Misconception(
                        r + (1 - r) * (harmonic - 1) / T,
                        "The first token averages itself alone: the sum begins with 1/1.",
                    ),
                ]
            else:
                wrong.append(
                    Misconception(r + (1 - r) * harmonic / T, "With causal=False every position averages all T tokens.")
                )
            trial.equal(got, expected, wrong, "An average of T tokens keeps r + (1 - r)/T of the variance.")


def ffn_variance_gain(trial: Trial) -> None:
    """2·gain⁴·d·d_ff/(d + d_ff)²."""
    for d, f, gain in [(6, 24, 0.7), (10, 15, 1.3), (16, 16, 0.5)]:
        got = trial.call(d, f, gain)
        xavier = gain**2 * 2 / (d + f)  # variance of every weight
        up, down = d * xavier, f * xavier
        expected = up * 0.5 * down
        wrong = [
            Misconception(
                gain**2 * 2 * d * f / (d + f) ** 2,
                "There are two matrices, and the gain of each counts squared in the variance: gain⁴.",
            ),
            Misconception(
                gain * 2 * d * f / (d + f) ** 2, "A gain multiplies weights, so it counts squared in a variance."
            ),
            Misconception(2 * expected, "ReLU keeps half of the second moment."),
            Misconception(
                up * down * (pi - 1) / (2 * pi),
                "That is ReLU's variance. W₂ passes the mean on too: take its second moment, 1/2.",
            ),
            Misconception(expected / 2, "ReLU halves once: there is one ReLU and not two."),
            Misconception(
                gain**4 * d * f / (d + f) ** 2 / 2, "Xavier's variance is gain²·2/(fan_in + fan_out), with a 2."
            ),
            Misconception(sqrt(expected), "That is the factor on a length: asked is the one on the variance."),
        ]
        if d != f:
            wrong.append(
                Misconception(
                    gain**4 / 2,
                    "Right where d_ff = d_model only. Xavier uses the mean of both fans: here "
                    f"{expected / gain**4:.2f}·gain⁴.",
                )
            )
        trial.equal(got, expected, wrong, "Var(W₁)·d, half of it behind ReLU, times Var(W₂)·d_ff.")


def attention_variance_gain(trial: Trial) -> None:
    """gain⁴·averaged_variance: value and output projection are square, and the average stands between them."""
    for T, r, causal, gain in [(6, 0.25, True, 0.6), (9, 0.7, False, 1.2), (4, 0.0, True, 0.8)]:
        got = trial.call(T, r, causal, gain)
        kept = sum(r + (1 - r) / (i if causal else T) for i in range(1, T + 1)) / T
        expected = gain**4 * kept
        wrong = [
            Misconception(
                gain**2 * kept, "Two matrices, value and output, carry the gain: each counts squared, gain⁴."
            ),
            Misconception(gain * kept, "A gain multiplies weights: squared for each of two matrices, gain⁴."),
            Misconception(
                gain**8 * kept, "Query and key have gain 1, and would not count anyway: softmax weights sum to 1."
            ),
            Misconception(
                gain**4, "The average between the two matrices is missing: times averaged_variance(T, r, causal)."
            ),
            Misconception(kept, "The gain is missing: value and output are drawn with it, gain⁴."),
            Misconception(gain**4 * kept**2, "There is one average: its variance counts once."),
            Misconception(gain**4 / 2 * kept, "There is no ReLU in attention."),
        ]
        trial.equal(got, expected, wrong, "Value and output have gain² each; the average between them keeps its part.")


def sharp_average(trial: Trial) -> None:
    """exp(s)/T: E[w²]·T for weights softmax(q), q ~ N(0, s)."""
    for T, s in [(1000, 0.6), (400, 1.3), (64, 0.0)]:
        got = trial.call(T, s)
        expected = exp(2 * s) / exp(s) / T  # E[exp(2q)]/E[exp(q)]²/T
        wrong = [
            Misconception(exp(2 * s) / T, "The weights are divided by their sum: E[e^q] = e^(s/2), squared e^s."),
            Misconception(exp(s / 2) / T, "A second moment is wanted: E[e^(2q)]/E[e^q]² = e^(2s)/e^s."),
            Misconception(1 / T, "That is for equal weights: uneven ones average over fewer tokens."),
            Misconception(
                exp(-s) / T, "Uneven weights average over fewer tokens, so the variance is larger, not smaller."
            ),
            Misconception(
                (exp(s) - 1) / T,
                "That is the variance of the weights (times T): the average needs their second moment.",
            ),
            Misconception(exp(s) / T**2, "T squared weights of this size add up: e^s/T in all."),
            Misconception(exp(s * s) / T, "s is a variance already: e^s, not e^(s²)."),
            Misconception(sqrt(expected), "That is the standard deviation: asked is the variance."),
        ]
        trial.equal(got, expected, wrong, "T times the mean squared weight: e^s/T.")


def relu_correlation(trial: Trial) -> None:
    """r + (√(1 - r²) - r·arccos r)/π, the cosine of ReLU(a) and ReLU(b) for normal a, b with correlation r."""
    for r in (-0.6, 0.0, 0.35, 0.9, 1.0):
        got = trial.call(r)
        # E[ReLU(a)ReLU(b)]/E[ReLU(a)²] by its angle (arc-cosine kernel).
        angle = acos(r)
        expected = (torch.sin(torch.tensor(angle, dtype=torch.float64)).item() + (pi - angle) * r) / pi
        root = sqrt(1 - r * r)
        centred = ((root + (pi - angle) * r) / (2 * pi) - 1 / (2 * pi)) / (0.5 - 1 / (2 * pi))
        wrong = [
            Misconception(centred, "You removed the means: the cosine keeps them, and what W₂ sees is the cosine."),
            Misconception(
                (root + (pi - angle) * r) / (2 * pi), "That is E[ReLU(a)·ReLU(b)]: divide by E[ReLU(a)²] = 1/2."
            ),
            Misconception(r + (root - angle) / pi, "arccos r comes with a factor r."),
            Misconception((root - r * angle) / pi, "The term r in front is missing."),
            Misconception(r + (root + r * angle) / pi, "Minus: r + (√(1 - r²) - r·arccos r)/π."),
        ]
        if 0 < r < 1:
            wrong += [
                Misconception(
                    r, "ReLU makes tokens more alike: what both lose, the negative side, was where they differed."
                ),
                Misconception(
                    max(r, 0.0) / 2, "Both parts are halved, the shared one and the whole: the ratio is not."
                ),
            ]
        trial.equal(got, expected, wrong, "The cosine behind ReLU is r + (√(1 - r²) - r·arccos r)/π.", tolerance=1e-8)


JUDGES: dict[str, Judge] = {
    "attention": attention,
    "averaged_variance": averaged_variance,
    "ffn_variance_gain": ffn_variance_gain,
    "attention_variance_gain": attention_variance_gain,
    "sharp_average": sharp_average,
    "relu_correlation": relu_correlation,
}
