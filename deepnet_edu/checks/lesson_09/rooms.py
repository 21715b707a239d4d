"""Rooms 3 and 5 of lesson 09, each judged by what the answer does: for which depth constants are right, whether a
stream can grow, settings that arrive.

Where a published bug is handed in as it was, its sentence says what it costs.
"""

from collections.abc import Callable
from itertools import product
from math import log10, sqrt
from typing import Any

from torch import Tensor
from torch.nn import functional

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.tensors import is_truth, sample
from deepnet_edu.checks.trial import TYPE
from deepnet_edu.checks.values import describe

# --- room 3


def depths_of(trial: Trial) -> None:
    """(alpha**4 / 2, beta**-4 / 8): raise both sides of α = (2N)^¼ to the power of 4, and of β = (8N)^(-¼) to the power
    of -4, and solve for N.
    """
    for alpha, beta in [(3.1, 0.21), (2.828, 0.3), (1.7, 0.5), (6.687, 0.12)]:
        a, b = alpha**4 / 2, 1 / (8 * beta**4)
        wrong = [
            Misconception((b, a), "The order is α's depth, then β's."),
            Misconception((2 * a, b), "α counts sub-layers, 2N: asked for are layers, half as many."),
            Misconception((2 * a, 4 * b), "α counts 2N, β 8N: divide each by the number before N."),
            Misconception((a, 4 * b), "It is 8N in β, where α has 2N."),
            Misconception((a, 8 * b), "It is 8N in β: divide by 8."),
            Misconception((2 * a, 8 * b), "α counts 2N, β 8N: divide each by the number before N."),
            Misconception((a, beta**4 / 8), "The exponent of β is negative: a smaller β belongs to a deeper stack."),
            Misconception((a, 8 / beta**4), "Divide by 8: β⁻⁴ is 8N, not N/8."),
            Misconception((alpha**2 / 2, 1 / (8 * beta**2)), "A fourth root is undone by a fourth power."),
            Misconception((alpha**4 / 16, 1 / (8 * beta**4)), "The 2 is inside the root: divide after the power."),
            Misconception(((alpha / 2) ** 4, (8 * beta) ** -4), "2 and 8 are in the roots: divide after the power."),
            Misconception((a, (8 * beta) ** -4), "The 8 is inside the root: divide after the power."),
            Misconception(
                ((2 * alpha) ** 0.25, (8 * beta) ** -0.25), "That is the way from N to the constants: go back."
            ),
        ]
        got = trial.call(alpha, beta)
        trial.equal(got, (a, b), wrong, "For these constants the depths are others.", shape_sentence=_TWO)
    for alpha, beta in [(2.828, 3.1302), (11.832, 0.0026)]:
        far = [float(one) for one in trial.call(alpha, beta)]
        right = (alpha**4 / 2, 1 / (8 * beta**4))
        held = all(abs(one / wanted - 1) < 1e-2 for one, wanted in zip(far, right, strict=True))
        trial.require(held, "A constant may be that of a thousandth of a layer: do not round the depths.")
    for n in (12, 1000):
        got = trial.call(sqrt(sqrt(2 * n)), 1 / sqrt(sqrt(8 * n)))
        both = [float(one) for one in got]
        held = all(abs(one / n - 1) < 1e-2 for one in both)
        trial.require(held, f"The paper's own constants for {n} layers belong to {n} layers, both.", str(n), str(both))


_TWO = "Two depths are asked for: that of α, then that of β."

# --- room 5, as a detector

_Combine = Callable[[Tensor, Tensor], Tensor]


def _ln(x: Tensor, gain: float = 1.0, bias: float = 0.0) -> Tensor:
    return gain * functional.layer_norm(x, x.shape[-1:]) + bias


def _rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


_BOXES: list[tuple[_Combine, bool, str]] = [
    (lambda x, fx: _ln(2.5 * x + fx), True, "False alarm: a norm on the sum keeps its size, up to rounding."),
    (lambda x, fx: 2.5 * x + fx, False, "This is a sum without a norm: larger inputs make it larger."),
    (lambda x, fx: _ln(2.5 * x) + fx, False, "The norm is around the skip alone: a larger branch makes it larger."),
    (lambda x, fx: 1.6 * x + _ln(fx), False, "The norm is around the branch alone: a larger stream stays larger."),
    (lambda x, fx: -0.6 * _ln(x - 2 * fx), True, "False alarm: a norm on the sum, times -0.6, cannot grow."),
    (lambda x, fx: _ln(x + fx, gain=40.0, bias=7.0), True, "False alarm: a norm with a gain of 40 is large, and yet "
     "always as large: compare with what smaller inputs give."),
    (lambda x, fx: 0.01 * (x + fx), False, "0.01·(x + F) is small, and it grows all the same: larger inputs make it "
     "larger."),
    (lambda x, fx: _rms(3.3 * x + fx), True, "False alarm: RMSNorm keeps the mean, and the size does not grow."),
    (lambda x, fx: _ln(x) + _ln(fx), True, "False alarm: two norms, one on each term, and what comes out cannot grow."),
]  # fmt: skip
_READINGS: list[tuple[Callable[[_Combine, Tensor, Tensor], bool], str]] = [
    (
        lambda combine, x, fx: _size(combine(1e3 * x, fx)) < 10 * _size(combine(x, fx)),
        "Only the stream was made larger, and a sum may grow by its branch: make both larger.",
    ),
    (
        lambda combine, x, fx: _size(combine(x, 1e3 * fx)) < 10 * _size(combine(x, fx)),
        "Only the branch was made larger, and a sum grows by its stream: make both larger.",
    ),
    (
        lambda combine, x, fx: abs(_size(combine(x, fx)) - 1) < 0.1,
        "A norm may have a gain, and a sum without one may happen to have the size 1: compare what two inputs "
        "give, one much larger than the other.",
    ),
    (
        lambda combine, x, fx: combine(x, fx).mean(-1).abs().max().item() < 1e-6,
        "A mean of 0 is the mark of one kind of norm: RMSNorm, or a bias, has another. Compare sizes.",
    ),
]


def _size(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def stream_is_bounded(trial: Trial) -> None:
    """Draw x and fx, call combine on them and on both times 1,000: it is bounded if what the second call gives is
    about as large as what the first gives.
    """
    answers = []
    for d, (box, *_) in zip((16, 24, 16, 12, 16, 24, 16, 12, 16), _BOXES, strict=True):
        asked: list[tuple[Tensor, Tensor]] = []

        def combine(x: Tensor, fx: Tensor, box: _Combine = box, asked: Any = asked) -> Tensor:
            asked.append((x, fx))
            return box(x, fx)

        got = trial.call(combine, d)
        trial.require(is_truth(got), "The answer is True or False.", "True or False", describe(got), TYPE)
        trial.require(bool(asked), "Ask the box: call combine(x, fx) with x and fx that you drew, and look at it.")
        shapes = [tuple(one.shape) for pair in asked for one in pair]
        said = "Draw x and fx of the same shape, with d features in the last dimension."
        trial.require(all(one == shapes[0] and one[-1:] == (d,) for one in shapes), said, f"(…, {d})", str(shapes[0]))
        answers.append(bool(got))
    right = [bounded for _, bounded, _ in _BOXES]
    if answers != right:
        x, fx = sample(6, 16, seed=1), sample(6, 16, seed=2)
        never = (
            "Your answer is False for every box. Did you ask for equal numbers? A norm's ε and rounding change the "
            "last digits."
        )
        trial.require(any(answers), never)
        trial.require(not all(answers), "Your answer is True, whatever the box does.")
        opposite = "It is the other way round: True where the stream cannot grow."
        trial.require(answers != [not one for one in right], opposite)
        for reading, sentence in _READINGS:
            trial.require(answers != [reading(box, x, fx) for box, *_ in _BOXES], sentence)
    for got, (_, bounded, sentence) in zip(answers, _BOXES, strict=True):
        trial.require(got is bounded, sentence, str(bounded), str(got))
    widths: list[int] = []

    def plain(x: Tensor, fx: Tensor) -> Tensor:
        widths.append(x.shape[-1])
        return _ln(x + fx)

    trial.call(plain)
    trial.require(set(widths) == {16}, "Without a second argument d is 16.")


# --- room 5

_FLAGS = ("deepnorm", "norm_first", "sub_ln")


def decoder_settings(trial: Trial) -> None:
    """With deepnorm, alpha is (2 * layers) ** 0.25 and both other settings are False; without, alpha is 1 and they are
    what was asked. Without **others in its first line a function raises a TypeError for unknown keywords by itself.
    """
    asked: list[dict[str, bool]] = [{}, {"deepnorm": True}]
    for chosen in product((None, True, False), repeat=3):
        asked.append({name: flag for name, flag in zip(_FLAGS, chosen, strict=True) if flag is not None})
    held = []
    for layers in (24, 6, 1):
        for flags in asked:
            got = trial.call(layers, **flags)
            held.append((got, _settings(trial, layers, flags, got)))
    for got, expected in held:
        kept = (got["norm_first"], got["sub_ln"]) == expected
        trial.require(kept, "Each call returns a dictionary of its own: an earlier one has changed.")
    for typo, value in [("deep_norm", True), ("norm_frist", True), ("deep_norm", False), ("subln", True)]:
        try:
            trial.function(6, **{typo: value})
        except TypeError:
            continue
        except (Exception, SystemExit) as error:
            trial.fail(
                f"For an unknown keyword raise a TypeError, as Python does by itself, not {type(error).__name__}."
            )
        trial.fail(
            f"{typo}={value} was accepted in silence, and another model is trained than the one that was asked for."
        )


def _settings(trial: Trial, layers: int, asked: dict[str, bool], got: Any) -> tuple[bool, bool]:
    """Judge the settings of one call; the two flags that are right."""
    said = ", ".join(f"{name}={value}" for name, value in asked.items()) or "nothing"
    on = asked.get("deepnorm", False)
    right = (asked.get("norm_first", True) and not on, asked.get("sub_ln", True) and not on)
    alpha = sqrt(sqrt(2 * layers)) if on else 1.0
    shown = str({"alpha": round(alpha, 4), "norm_first": right[0], "sub_ln": right[1]})
    keys = "The answer is a dictionary with alpha, norm_first and sub_ln."
    trial.require(
        isinstance(got, dict) and got.keys() == {"alpha", "norm_first", "sub_ln"}, keys, shown, str(got)[:80], TYPE
    )
    trial.require(
        is_truth(got["norm_first"]) and is_truth(got["sub_ln"]), "norm_first and sub_ln are True or False.", rung=TYPE
    )
    wrong = [
        Misconception(layers**0.25, "A layer has two sub-layers: α counts both."),
        Misconception(2.828, "2.828 is right at 32 layers alone: α follows the depth."),
        Misconception(sqrt(2 * layers), "A quarter, not a half: that is α²."),
        Misconception((8 * layers) ** -0.25, "That is β, the gain of the weights."),
        Misconception((2 * layers) ** -0.25, "The sign of the exponent: α strengthens the skip, so it is above 1."),
        Misconception((2 * layers) ** 1 / 4, "** binds before /: put the exponent in parentheses."),
    ]
    if layers > 1:
        wrong.append(Misconception(1.0, "deepnorm=True has not reached α."))
    if not on:
        wrong = [Misconception(sqrt(sqrt(2 * layers)), "Without deepnorm there is no α: it is 1.")]
    trial.equal(got["alpha"], alpha, wrong, f"Asked for {said}, another α came out.")
    flags = (bool(got["norm_first"]), bool(got["sub_ln"]))
    growth = layers / 2 * log10(2 * layers)
    published = (
        f"This is the room as it was published: with deepnorm=True the stack stays Pre-LN, and at {layers} layers the "
        f"stream has grown 10^{growth:.0f}-fold. deepnorm must also switch norm_first off."
    )
    inside = (
        "deepnorm and sub_ln are both on: the norm inside the branch takes back what β did to the matrix before it. "
        "deepnorm must switch sub_ln off."
    )
    theirs = f"Asked for {said}: without deepnorm the other settings are the caller's, as they were."
    sentence = theirs if not on else published if flags[0] else inside
    trial.require(flags == right, sentence, shown, str(got)[:100])
    return right
