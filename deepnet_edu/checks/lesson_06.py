"""Lesson 06, deriving DeepNorm: slopes, the condition and its split, sums for two optimizers, two stacks."""

from math import exp, log, sqrt
from typing import Any

import numpy as np
import torch

from deepnet_edu.checks.base import Judge, Misconception, Trial

_DEPTHS = [6, 12, 24, 48, 96]
#: Factors on a power law whose ends lie off it: what listens to the ends alone is then wrong.
_NOISE = np.array([1.25, 0.9, 0.95, 1.05, 0.85])


def depth_slope(trial: Trial) -> None:
    """Least squares of ln(updates) on ln(depths)."""
    cases = [(_DEPTHS, 0.3, power, np.ones(5)) for power in (0.5, 0.0, 1.0, -1.0)]
    cases += [(_DEPTHS, 20.0, 0.5, _NOISE), ([3, 7, 40, 100], 0.02, 1.8, _NOISE[1:]), ([9, 4], 5.0, 0.7, _NOISE[:2])]
    for depths, scale, power, noise in cases:
        d = np.array(depths, dtype=float)
        u = scale * d**power * noise
        got = trial.call(depths, u.tolist())
        x, y = np.log(d), np.log(u)
        # As a covariance over a variance, the form that an answer will hardly have.
        expected = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())

        def fitted(a: Any, b: Any, coefficient: int = 0) -> float:
            return float(np.polyfit(a, b, 1)[coefficient])

        ends = float((y[-1] - y[0]) / (x[-1] - x[0]))
        wrong = [
            Misconception(ends, "Those are the two ends alone: their noise passes for growth. Use all points."),
            Misconception(fitted(d, u), "Take the logarithm of both: depth to a power is a straight line only then."),
            Misconception(
                fitted(d, y),
                "The depths need a logarithm too. On a linear axis it would be exponential growth.",
            ),
            Misconception(fitted(x, u), "The updates need a logarithm too: c·depth^p becomes ln c + p·ln depth."),
            Misconception(fitted(x, y, 1), "That is the intercept. np.polyfit gives the slope first."),
            Misconception(float(u[-1] / u[0]), "A factor between the ends is not a power: compare logarithms."),
            Misconception(
                float(np.mean(np.diff(y) / np.diff(x))),
                "A mean of slopes between neighbours comes down to the two ends. Use all points.",
            ),
        ]
        if len(set(u)) > 1 and abs(power) > 0.1:
            wrong.append(Misconception(fitted(y, x), "The axes are exchanged: depth is x, the update is y."))
            wrong.append(Misconception(1 / expected, "The axes are exchanged: depth is x, the update is y."))
        trial.equal(got, expected, wrong, "The power is the slope of ln(updates) against ln(depths).")


def _pair(trial: Trial, got: Any) -> np.ndarray[Any, Any]:
    """(α, β) as two numbers, or a sentence."""
    holds = isinstance(got, tuple | list | np.ndarray | torch.Tensor) and len(got) == 2
    trial.require(holds, "The answer is a pair: α, then β.", "(α, β)", repr(got)[:80])
    try:
        return np.array([float(got[0]), float(got[1])])
    except (TypeError, ValueError):
        trial.fail("The answer is a pair of numbers: α, then β.")


def _solved(
    trial: Trial, pair: np.ndarray[Any, Any], K: float, wrong: list[Misconception], name: str, split: str
) -> None:
    """The condition K·2β²/α² = 1, then the even split α² = √K, each with a sentence of its own."""
    even = np.array([exp(log(K) / 4), exp(-log(K) / 4 - log(2) / 2)])
    met = np.isfinite(pair).all() and pair[0] != 0 and abs(K * 2 * pair[1] ** 2 / pair[0] ** 2 - 1) < 1e-9
    if met and (pair > 0).all():
        trial.equal(
            pair,
            even,
            [
                *wrong,
                Misconception(
                    np.array([1.0, 1 / sqrt(2 * K)]),
                    f"The condition holds, for it fixes only β/α. But with α = 1 the weights do all the work. "
                    f"Split it evenly: α² = {split}.",
                ),
            ],
            f"The condition holds, for it fixes only β/α. The split is another one: evenly, α² is {split}.",
        )
    value = K * 2 * pair[1] ** 2 / pair[0] ** 2 if np.isfinite(pair).all() and pair[0] != 0 else float("nan")
    trial.equal(pair, even, wrong, f"The condition does not hold: {name}·2β²/α² is {value:.4g} here, not 1.")


def solve_deepnorm(trial: Trial) -> None:
    """((2N)^(1/4), (8N)^(-1/4))."""
    for N in (12, 5, 700):
        pair = _pair(trial, trial.call(N))
        n = 2 * N
        a, b = float(np.exp(np.log(n) / 4)), float(np.exp(-np.log(4 * n) / 4))

        def said(alpha: float, beta: float, sentence: str) -> Misconception:
            return Misconception(np.array([alpha, beta]), sentence)

        wrong = [
            said(N**0.25, (4 * N) ** -0.25, "N layers are 2N sub-layers: the sum has 2N terms, and yours comes to 2."),
            said(a, 1 / a, "Two matrices share the budget: 2β² = (2N)^(-1/2). Your sum comes to 2."),
            said(
                n**0.5,
                n**-0.5,
                "Those are GLM-130B's constants: the sum falls like 1/N. Here α² = (2N)^(1/2), so α is a fourth root.",
            ),
            said(n**0.5, (2 * sqrt(n)) ** -1.0, "That is α². One more root gives α, and the same for β."),
            said(n**0.5, b, "That is α² = (2N)^(1/2). One more root gives α."),
            said(a, 0.5 * n**-0.5, "That is β² = (2N)^(-1/2)/2. One more root gives β."),
            said(a, 1 / b, "β shrinks with depth: the exponent is negative."),
            said(b, a, "α and β are exchanged: α grows with depth, β shrinks."),
            said(a, 0.5 / a, "Under the root 2β² = (2N)^(-1/2) has β² = (2N)^(-1/2)/2: β is 1/(√2·α), not 1/(2α)."),
            said(n / 4, 1 / (8 * N) / 4, "Python reads x**1/4 as (x**1)/4: put the exponent in parentheses."),
            said(a, 1 / (8 * N) / 4, "Python reads x**-1/4 as (x**-1)/4: put the exponent in parentheses."),
        ]
        _solved(trial, pair, float(n), wrong, "2N", "(2N)^(1/2)")


def branch_over_skip(trial: Trial) -> None:
    """β⁴/α²."""
    for alpha, beta in [(2.5, 0.6), (1.3, 0.9), (0.8, 1.4), (6.7, 0.1)]:
        got = trial.call(alpha, beta)
        expected = exp(4 * log(beta) - 2 * log(alpha))
        wrong = [
            Misconception(beta**2 / alpha, "Those are lengths. A variance is a square: square both."),
            Misconception(beta**2 / alpha**2, "A branch has two matrices, and each multiplies the variance by β²."),
            Misconception(beta / alpha, "A variance is a square, and a branch has two matrices: β enters four times."),
            Misconception(beta**4 / alpha, "Scaling x by α scales its variance by α²."),
            Misconception(beta**4, "The skip carries αx: divide by its variance, α²."),
            Misconception(
                beta**4 / (alpha**2 + beta**4), "That is the branch's share in the sum: divide by the skip alone."
            ),
            Misconception(alpha**2 / beta**4, "That is skip over branch: turn it over."),
            Misconception(
                2 * beta**2 / alpha**2,
                "Matrices in a row multiply: β²·β², not β² + β². (v² + w² is what the update feels.)",
            ),
        ]
        trial.equal(got, expected, wrong, "The branch has variance β⁴, the skip α².")


def update_sum(trial: Trial) -> None:
    """2N·(√2·β/α)² for SGD, 2N·√2·β/α for fixed steps."""
    for N, alpha, beta in [(12, 2.5, 0.4), (5, 1.3, 0.7), (96, 3.0, 0.05)]:
        felt = sqrt(beta**2 + beta**2) / alpha
        for step in ("sgd", "fixed"):
            got = trial.call(N, alpha, beta, step)
            length = felt if step == "sgd" else 1.0
            # Term by term, as the theorem has it.
            expected = float(np.sum(np.full(2 * N, felt) * length))
            if step == "sgd":
                wrong = [
                    Misconception(
                        2 * N * felt, "With SGD a sub-layer moves by its gradient, √2·β/α: that factor comes twice."
                    ),
                    Misconception(2 * N * (2 * beta / alpha) ** 2, "√(v² + w²) is √2·β, not 2β."),
                    Misconception(felt**2, "The sum has one term a sub-layer: 2N of them."),
                    Misconception(
                        2 * N * 2 * beta**2 / alpha, "Each factor has its α: one of the theorem, one of the step."
                    ),
                ]
            else:
                wrong = [
                    Misconception(
                        2 * N * felt**2,
                        "Adam divides the gradient by its size, so a step has the length 1 and the second β/α is lost.",
                    ),
                    Misconception(2 * N * 2 * beta / alpha, "√(v² + w²) is √2·β, not 2β."),
                    Misconception(2 * N * beta / alpha, "Two matrices of size β: √(v² + w²) is √2·β."),
                    Misconception(felt, "The sum has one term a sub-layer: 2N of them."),
                    Misconception(2 * N * felt / alpha, "One α only: the other one belonged to SGD's step."),
                ]
            twice = "N layers are 2N sub-layers" + (", and v² + w² is 2β²: a 2 is missing." if step == "sgd" else ".")
            wrong += [
                Misconception(expected / 2, twice),
                Misconception(
                    expected / sqrt(2 * N), "The theorem adds lengths: the terms may all point the same way."
                ),
            ]
            trial.equal(got, expected, wrong, "2N equal terms: √2·β/α times the length of the step.")


def predicted_slope(trial: Trial) -> None:
    """1 + felt for fixed steps, 1 + 2·felt for SGD; felt is -a - b, -a or 0."""
    for a, b in [(0.3, 0.05), (0.1, 0.45), (0.25, 0.25), (0.5, 0.5), (0.0, 0.0)]:
        for group, of_a, of_b in (("matrices", 1, 1), ("biases", 1, 0), ("norms", 0, 0)):
            for step, times in (("sgd", 2), ("fixed", 1)):
                got = trial.call(group, step, a, b)
                # As the slope of the sum itself between 10 and 1,000 layers.
                low, high = (log(n * (n ** (-b * of_b) / n ** (a * of_a)) ** times) for n in (10.0, 1000.0))
                expected = (high - low) / log(100.0)
                felt = -a * of_a - b * of_b
                wrong = [
                    Misconception(times * felt, "There are 2N sub-layers, and their number alone gives a slope of 1."),
                ]
                if group != "norms":
                    other = 1 + (3 - times) * felt
                    wrong.append(
                        Misconception(
                            other,
                            "With SGD the step is as long as the gradient, so what the network feels counts twice."
                            if step == "sgd"
                            else "A fixed step is as long at every depth: what the network feels counts once.",
                        )
                    )
                    wrong.append(
                        Misconception(1 - times * felt, "α divides and β shrinks: both make the slope smaller.")
                    )
                if group == "matrices":
                    wrong += [
                        Misconception(
                            1 + times * (b - a), "β = N^(-b) shrinks with depth: it makes the slope smaller."
                        ),
                        Misconception(1 + times * (a - b), "α stands in the denominator: it makes the slope smaller."),
                        Misconception(1 - times * a, "A matrix has another one beside it in its branch: β counts too."),
                        Misconception(1 - times * b, "The norm behind the sum divides by about α: it counts too."),
                        Misconception(
                            1 + times * (-a - 2 * b), "A nudge of one matrix meets the other one only: β counts once."
                        ),
                    ]
                if group == "biases":
                    wrong += [
                        Misconception(1 - times * (a + b), "The output's bias is added behind both matrices: no β."),
                        Misconception(1 - times * b, "The output's bias is added behind both matrices: no β, but α."),
                        Misconception(1.0, "A bias is added before the norm, which divides by about α."),
                    ]
                if group == "norms":
                    wrong += [
                        Misconception(1 - times * a, "A norm's gain and bias act behind the division: no α."),
                        Misconception(
                            1 - times * (a + b), "A norm's gain and bias act behind the division: no α, no β."
                        ),
                        Misconception(2.0, "Each norm acts with strength 1, a slope of 0; only their number grows."),
                    ]
                trial.equal(
                    got,
                    expected,
                    wrong,
                    f"Add powers: 1 for the number of sub-layers, and {times} times that of what the network feels of "
                    f"the {group}.",
                )


def encoder_condition(trial: Trial) -> None:
    """2N·(M·β_d²/α_d)·(2β_e²/α_e²)."""
    for N, M, alpha_e, beta_e, alpha_d, beta_d in [(12, 3, 1.7, 0.4, 2.1, 0.3), (4, 9, 2.2, 0.6, 1.4, 0.5)]:
        got = trial.call(N, M, alpha_e, beta_e, alpha_d, beta_d)
        # Term by term: 2N sub-layers of the encoder, each seen through M cross-attentions.
        entrance = float(np.sum(np.full(M, beta_d * beta_d) / alpha_d))
        expected = float(np.sum(np.full(2 * N, 2 * beta_e**2 / alpha_e**2) * entrance))
        swapped = 2 * M * (N * beta_d**2 / alpha_d) * (2 * beta_e**2 / alpha_e**2)
        wrong = [
            Misconception(expected / M, "Each of M cross-attentions injects the encoder's change: M times."),
            Misconception(3 * expected, "Three sub-layers a decoder layer, but only one of them looks at the encoder."),
            Misconception(2 * expected, "One cross-attention a decoder layer, and it passes v·w = β_d², not 2β_d²."),
            Misconception(expected / alpha_d, "Forward through one norm is one division by α_d."),
            Misconception(
                2 * N * (N * beta_d**2 / alpha_d) * (2 * beta_e**2 / alpha_e**2),
                "The entrances are the decoder's cross-attentions: M of them, not N.",
            ),
            Misconception(
                2 * M * (M * beta_d**2 / alpha_d) * (2 * beta_e**2 / alpha_e**2),
                "The encoder has 2N sub-layers: N is its depth, M the decoder's.",
            ),
            Misconception(expected / 2, "N layers are 2N sub-layers, and v² + w² is 2β²: a factor 2 is missing."),
            Misconception(
                expected * alpha_e, "The encoder's factor is squared, α too: one of the theorem, one of the step."
            ),
            Misconception(
                2 * N * (M * beta_e**2 / alpha_e) * (2 * beta_d**2 / alpha_d**2),
                "The constants are exchanged: cross-attention belongs to the decoder.",
            ),
            Misconception(
                2 * N * 2 * beta_e**2 / alpha_e**2, "That is a single stack: the entrance M·β_d²/α_d is missing."
            ),
            Misconception(expected / beta_d, "A cross-attention passes v·w: β_d squared."),
        ]
        if abs(swapped - expected) > 1e-9:
            wrong.append(Misconception(swapped, "N and M are exchanged."))
        trial.equal(got, expected, wrong, "The entrance M·β_d²/α_d, times 2N sub-layers of 2β_e²/α_e².")


def solve_encoder(trial: Trial) -> None:
    """(K^(1/4), K^(-1/4)/√2) for K = (N⁴M/27)^(1/4)."""
    for N, M in [(12, 3), (3, 12), (40, 7)]:
        pair = _pair(trial, trial.call(N, M))
        root, swapped = (float(np.exp((4 * log(n) + log(m)) / 16)) for n, m in ((N, M), (M, N)))
        c = exp(log(27) / 16)

        def said(alpha: float, beta: float, sentence: str) -> Misconception:
            return Misconception(np.array([alpha, beta]), sentence)

        a, b = root / c, c / sqrt(2) / root
        wrong = [
            said(
                0.81 * root,
                0.87 / root,
                "Those are the paper's rounded constants: with them the condition is 1.012, not 1. Keep 27^(±1/16).",
            ),
            said(
                0.81 * root,
                1.15 / root,
                "0.87, not 1.15 = 1/0.87: the exponent -1/16 has turned the root over already. (A published bug; the "
                "condition becomes 1.77.)",
            ),
            said(
                a, 1.15 / root, "1.15 = 1/0.87: the exponent -1/16 has turned the root over already. (A published bug.)"
            ),
            said(
                swapped / c,
                c / sqrt(2) / swapped,
                "N and M are exchanged: the encoder has (N⁴M)^(1/16), four parts its own depth.",
            ),
            said((2 * N) ** 0.25, (8 * N) ** -0.25, "That is an encoder alone: the decoder's M entrances are missing."),
            said((3 * M) ** 0.25, (12 * M) ** -0.25, "Those are the decoder's constants."),
            said(a, 1 / a, "Two matrices share the budget: 2β² = K^(-1/2), so β is 1/(√2·α)."),
            said(root, 1 / root, "The factors 27^(-1/16) and 27^(1/16)/√2 are missing."),
            said(root, 1 / (sqrt(2) * root), "The 27 is missing: it comes from the decoder's constants."),
            said(b, a, "α and β are exchanged: α grows with depth, β shrinks."),
            said(a**2, b**2, "Those are α² and β². One more root gives the constants."),
            said(a**2, 1 / (sqrt(2) * a**2), "That is α² = K^(1/2). One more root gives α, and the same for β."),
        ]
        _solved(trial, pair, (N**4 * M / 27) ** 0.25, wrong, "(N⁴M/27)^(1/4)", "(N⁴M/27)^(1/8)")


JUDGES: dict[str, Judge] = {
    "depth_slope": depth_slope,
    "solve_deepnorm": solve_deepnorm,
    "branch_over_skip": branch_over_skip,
    "update_sum": update_sum,
    "predicted_slope": predicted_slope,
    "encoder_condition": encoder_condition,
    "solve_encoder": solve_encoder,
}
