"""Lesson 06, deriving DeepNorm: slopes, the condition and its split, sums for two optimizers, two stacks."""

from math import exp, log, sqrt

import numpy as np

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_06.powers import depth_slope
from deepnet_edu.checks.lesson_06.splits import NEARLY, even_split, solve_deepnorm, solve_encoder


def branch_over_skip(trial: Trial) -> None:
    """β⁴/α²: the branch has the variance β⁴, the skip α²."""
    for alpha, beta in [(2.5, 0.6), (1.3, 0.9), (0.8, 1.4), (6.7, 0.1)]:
        got = trial.call(alpha, beta)
        expected = exp(4 * log(beta) - 2 * log(alpha))
        wrong = [
            Misconception(beta**2 / alpha, "Those are lengths. A variance is a square: square both."),
            Misconception(beta**2 / alpha**2, "The skip is right. But a branch has two matrices, and each counts."),
            Misconception(beta / alpha, "A variance is a square, and a branch has two matrices."),
            Misconception(beta**4 / alpha, "The branch is right. The skip is αx: what does α do to its variance?"),
            Misconception(beta**4, "The branch is right. The skip carries αx: divide by its variance."),
            Misconception(
                beta**4 / (alpha**2 + beta**4), "That is the branch's share in the sum: divide by the skip alone."
            ),
            Misconception(alpha**2 / beta**4, "That is skip over branch: turn it over."),
            Misconception(
                2 * beta**2 / alpha**2,
                "Matrices in a row multiply, they do not add. (v² + w² is what the update feels.)",
            ),
            Misconception((2 * beta) ** 2 / alpha**2, "Matrices in a row multiply, they do not add."),
            Misconception(beta**4 * alpha**2, "α strengthens the skip: it makes the ratio smaller."),
            Misconception(beta**4 / alpha**4, "The branch is right. But the skip has one factor α, not two."),
            Misconception(beta**8 / alpha**2, "The skip is right. A matrix of gain β passes β² of the variance."),
        ]
        trial.equal(got, expected, wrong)
    got = float(trial.call(1, 1))
    trial.require(abs(got - 1) < NEARLY, "With α = β = 1 branch and skip have the same variance.", "1", f"{got:.4g}")
    # By name, as the lesson gives them.
    got = float(trial.call(alpha=5.0, beta=0.6)) / float(trial.call(alpha=2.5, beta=0.6))
    trial.require(
        abs(got - 0.25) < NEARLY,
        "Twice the α is four times the variance of the skip.",
        "a quarter",
        f"{got:.4g} times",
    )


def update_sum(trial: Trial) -> None:
    """2N·√2·β/α times the length of the step: √2·β/α for SGD, 1 for fixed steps."""
    for N, alpha, beta in [(12, 2.5, 0.45), (5, 1.3, 0.7), (1, 1.9, 0.3), (1000, 3.0, 0.05)]:
        felt = sqrt(beta**2 + beta**2) / alpha
        for step in ("sgd", "fixed"):
            got = trial.call(N, alpha, beta, step)
            # Term by term, as the theorem has it.
            expected = float(np.sum(np.full(2 * N, felt) * (felt if step == "sgd" else 1.0)))
            if step == "sgd":
                known = [
                    (
                        2 * N * felt,
                        'For "sgd" you give what belongs to "fixed". SGD\'s step is as long as the gradient, so the '
                        "factor comes once more. (The words are in small letters.)",
                    ),
                    (2 * N * (2 * beta / alpha) ** 2, "v and w add as squares: √(v² + w²) is √2·β, not 2β."),
                    (2 * N * 2 * beta**2 / alpha, "Each factor has its α: one of the theorem, one of the step."),
                    (2 * N * 2 * beta / alpha**2, "Each factor has its β: one of the theorem, one of the step."),
                    (expected / 2, "A factor of 2 is missing: N layers are 2N sub-layers, and v² + w² is 2β²."),
                    (expected / 4, "N layers are 2N sub-layers, and v² + w² is 2β²: both 2s are missing."),
                    (2 * N * alpha**2 / (2 * beta**2), "α makes the network feel less: divide by it, multiply by β."),
                ]
            else:
                known = [
                    (
                        2 * N * felt**2,
                        "Adam divides the gradient by its size: how large it was does not lengthen a fixed step.",
                    ),
                    (
                        2 * N * 2 * beta / alpha,
                        "For fixed steps yours is √2 too large: √(v² + w²) is √2·β, and the step is 1 long.",
                    ),
                    (2 * N * beta / alpha, "Two matrices of size β: √(v² + w²) is √2·β."),
                    (2 * N * sqrt(2 * beta) / alpha, "v and w come as squares: v² + w² is 2β², not 2β."),
                    (2 * N * felt / alpha, "One α only: the other one belonged to SGD's step."),
                    (expected / 2, "N layers are 2N sub-layers: a 2 is missing."),
                    (2 * N * 1.0, "A fixed step is 1 long, but the network feels it by √(v² + w²)/α."),
                ]
            known += [
                (expected / (2 * N), "The sum has one term a sub-layer: 2N of them."),
                (expected / sqrt(2 * N), "The theorem adds lengths: the terms may all point the same way."),
                (expected / sqrt(N), "The theorem adds lengths: the terms may all point the same way."),
            ]
            # A layer alone has as many sub-layers as matrices in each of them.
            wrong = [Misconception(*one) for one in known] if N > 1 else []
            trial.equal(got, expected, wrong)
    got = float(trial.call(700, 1400**0.25, 5600**-0.25, "sgd"))
    trial.require(abs(got - 1) < NEARLY, "DeepNorm's α and β make SGD's sum 1, at 700 layers, too.", "1", f"{got:.4g}")
    got = float(trial.call(6, 2.0, 0.5, "fixed")) / float(trial.call(3, 2.0, 0.5, "fixed"))
    trial.require(abs(got - 2) < NEARLY, "Twice the layers are twice the terms.", "2 times", f"{got:.4g} times")


def predicted_slope(trial: Trial) -> None:
    """1 + felt for fixed steps, 1 + 2·felt for SGD, where felt is -a - b for matrices, -a for biases, 0 for norms."""
    groups = (("matrices", 1, 1), ("biases", 1, 0), ("norms", 0, 0))
    for a, b in [(0.37, 0.11), (0.07, 0.45), (0.64, 0.83), (0.37, 0.83)]:
        for group, of_a, of_b in groups:
            for step, times in (("sgd", 2), ("fixed", 1)):
                got = trial.call(group, step, a, b)
                # As the slope of the sum itself between 10 and 1,000 layers.
                low, high = (log(n * (n ** (-b * of_b) / n ** (a * of_a)) ** times) for n in (10.0, 1000.0))
                expected = (high - low) / log(100.0)
                known = _wrong_slopes(group, -a * of_a - b * of_b, times, a, b)
                wrong = [Misconception(value, sentence) for value, sentence in known]
                # As a difference of powers: what cancels leaves its rounding.
                trial.equal(got, expected, wrong, tolerance=1e-5)
    for group, *_ in groups:
        for step in ("sgd", "fixed"):
            got = float(trial.call(group, step, 0, 0))
            trial.require(
                abs(got - 1) < NEARLY,
                "Where α and β are the same at every depth (a = b = 0), only the number of sub-layers grows.",
                "1",
                f"{got:.4g}",
            )
    got = float(trial.call("matrices", "sgd", 0.25, 0.25))
    trial.require(
        abs(got) < NEARLY,
        "DeepNorm (a = b = ¼) was made so that SGD on its matrices moves the logits equally far at all depths.",
        "0",
        f"{got:.4g}",
    )


def _wrong_slopes(group: str, felt: float, times: int, a: float, b: float) -> list[tuple[float, str]]:
    known = [
        (times * felt, "The number of sub-layers grows, too, and alone gives a slope of 1."),
        (2 + times * felt, "The number of sub-layers is 2N: a power of 1, whatever the factor of 2."),
    ]
    if group != "norms":
        counts = (
            "With SGD the step is as long as the gradient, so what the network feels counts twice."
            if times == 2
            else "A fixed step is as long at every depth: what the network feels counts once."
        )
        known += [
            (1 + (3 - times) * felt, counts),
            (1 - times * felt, "α divides and β shrinks: both make the slope smaller."),
        ]
        if 1 + times * felt < 0:
            known.append((-1 - times * felt, "A slope may be negative: then the update falls with depth."))
    if group == "matrices":
        return [
            *known,
            (1 + times * (b - a), "β = N^(-b) shrinks with depth: it makes the slope smaller."),
            (1 + times * (a - b), "α is in the denominator: it makes the slope smaller."),
            (1 - times * a, "A matrix is multiplied by the other one in its branch: β counts too."),
            (1 - times * b, "The norm after the sum divides by about α: it counts too."),
            (1 + times * (-a - 2 * b), "A change of one matrix is multiplied by the other one only: β counts once."),
            (1.0, "Only the number of sub-layers is counted here. (The words given are in small letters.)"),
            (1 - times * a * b, "Powers of N add when factors multiply: a and b do not multiply."),
        ]
    if group == "biases":
        return [
            *known,
            (1 - times * (a + b), "The output's bias is added after both matrices: no β."),
            (1 - times * b, "The output's bias is added after both matrices: no β, but α."),
            (1.0, "A bias is added before the norm, which divides by about α."),
        ]
    return [
        *known,
        (1 - times * a, "A norm's gain and bias act after the division: no α."),
        (1 - times * b, "A norm's gain and bias act after the division and pass no matrix: no β."),
        (1 - times * (a + b), "A norm's gain and bias act after the division: no α, no β."),
        (1 + times * a, "On the skip the norm divides by as much as α multiplies: the signal arrives unchanged."),
    ]


def encoder_condition(trial: Trial) -> None:
    """2N·(M·β_d²/α_d)·(2β_e²/α_e²): the entrance in the middle, the encoder's own sum around it."""
    for N, M, alpha_e, beta_e, alpha_d, beta_d in [
        (12, 5, 1.7, 0.4, 2.1, 0.3),
        (7, 9, 2.2, 0.6, 1.4, 0.55),
        (1, 6, 1.3, 0.8, 1.6, 0.7),
    ]:
        got = trial.call(N, M, alpha_e, beta_e, alpha_d, beta_d)
        # Term by term: 2N sub-layers of the encoder, each seen through M cross-attentions.
        own = float(np.sum(np.full(2 * N, 2 * beta_e**2 / alpha_e**2)))
        expected = float(np.sum(np.full(M, beta_d * beta_d) / alpha_d * own))
        known = [
            (expected / M, "Each of M cross-attentions injects the encoder's change: M times."),
            (expected * M, "Each of M cross-attentions injects the encoder's change once: M times, not M²."),
            (3 * expected, "Three sub-layers a decoder layer, but only one of them looks at the encoder."),
            (2 * expected, "One cross-attention a decoder layer, and it passes v·w = β_d², not 2β_d²."),
            (expected / alpha_d, "Forward through one norm is one division by α_d."),
            (expected * alpha_d, "Forward through the norm after a cross-attention: a division by α_d is missing."),
            (expected / 2, "A factor of 2 is missing: N layers are 2N sub-layers, and v² + w² is 2β²."),
            (expected / 4, "N layers are 2N sub-layers, and v² + w² is 2β²: both 2s are missing."),
            (expected * alpha_e, "The encoder's factor is squared, α too: one of the theorem, one of the step."),
            (expected / beta_e, "The encoder's factor is squared, β too: one of the theorem, one of the step."),
            (
                2 * N * (M * beta_e**2 / alpha_e) * (2 * beta_d**2 / alpha_d**2),
                "The constants are exchanged: cross-attention belongs to the decoder.",
            ),
            (own, "That is the encoder alone: the entrance through the decoder is missing."),
            (M * beta_d**2 / alpha_d, "That is the entrance alone: the encoder's own sum is missing."),
            (own + M * beta_d**2 / alpha_d, "What enters is multiplied on its way: a product of both, not a sum."),
            (expected / beta_d, "A cross-attention passes v·w: two matrices, two β_d."),
        ]
        if N > 1:
            known += [
                (2 * N * own * beta_d**2 / alpha_d, "The entrances are the decoder's cross-attentions: M, not 2N."),
                (expected * N / M, "The entrances are the decoder's cross-attentions: M of them, not N."),
                (expected * M / N, "The encoder has 2N sub-layers: N is its depth, M the decoder's."),
                (expected / N, "The sum has one term a sub-layer of the encoder: 2N of them."),
            ]
        trial.equal(got, expected, [Misconception(value, sentence) for value, sentence in known])
    for N, M in [(3, 1), (1, 1)]:
        trial.equal(trial.call(N, M, 1.3, 0.8, 1.6, 0.7), 4 * N * M * 0.64 / 1.69 * 0.49 / 1.6)
    alpha, beta = even_split((12**4 * 5 / 27) ** 0.25)
    got = float(trial.call(12, 5, float(alpha), float(beta), 15**0.25, 60**-0.25))
    trial.require(abs(got - 1) < NEARLY, "With DeepNorm's constants, not rounded, it is 1.", "1", f"{got:.4g}")
    once, twice = (float(trial.call(4, M, 1.5, 0.5, 1.8, 0.4)) for M in (3, 6))
    trial.require(
        abs(twice / once - 2) < NEARLY,
        "Twice as many decoder layers are twice as many entrances.",
        "2 times",
        f"{twice / once:.4g} times",
    )


JUDGES: dict[str, Judge] = {
    "depth_slope": depth_slope,
    "solve_deepnorm": solve_deepnorm,
    "branch_over_skip": branch_over_skip,
    "update_sum": update_sum,
    "predicted_slope": predicted_slope,
    "encoder_condition": encoder_condition,
    "solve_encoder": solve_encoder,
}
