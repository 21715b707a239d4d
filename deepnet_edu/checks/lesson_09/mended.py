"""Rooms 1, 3, 4 and 5 of lesson 09, which a learner repairs, each judged by what it does. Room 2 is in ``copies``.

Where a published bug is handed in as it was, its sentence says what it costs.
"""

from itertools import product
from math import log10, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.tensors import centred, is_truth, sample
from deepnet_edu.checks.trial import TYPE

# --- room 1


class _Branch(nn.Module):
    """A branch that counts its calls."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.__name__ = "f"
        self.weight = nn.Parameter(sample(d, d, seed=d + 3))
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(1)
        return torch.tanh(x @ self.weight) + 0.3 * x[..., :1]


def join(trial: Trial) -> None:
    """norm(alpha * x + f(x)): α on the skip, and the norm around the sum."""
    for shape, alpha, dtype in [
        ((2, 5, 8), 2.5, torch.float64),
        ((7, 12), 4.7, torch.float64),
        ((1, 4, 16), 1.6, torch.float32),
    ]:
        d = shape[-1]
        norm = nn.LayerNorm(d, eps=1e-12)
        with torch.no_grad():
            norm.weight.copy_(1 + 0.3 * sample(d, seed=d + 1))
            norm.bias.copy_(0.3 * sample(d, seed=d + 2))
        norm, f = norm.to(dtype), _Branch(d).to(dtype)
        x = (0.5 * sample(*shape, seed=d) + 0.7).to(dtype)
        theirs = [*norm.parameters(), f.weight]
        with trial.keeping(norm, f):
            got = trial.call(x, f, norm, alpha)
        same = all(a is b for a, b in zip(theirs, [*norm.parameters(), f.weight], strict=True))
        trial.require(same, "Your function gave a module new parameters: the optimizer has the old ones.")
        once = len(f.calls)
        with torch.no_grad():
            expected, wrong = _ln(alpha * x + f(x), norm), _wrong_joins(x, f, norm, alpha)
        # A norm divides by what may be small: float32 loses a digit there.
        trial.equal(got, expected, wrong, "The sub-layer's output is wrong.", tolerance=1e-5)
        trial.require(once == 1, "Call the branch once: it is the costly part.", "1 call", f"{once} calls")
        if dtype == torch.float64 and trial.verdict() is None:
            _goes_back(trial, x.clone().requires_grad_(), f, norm, alpha)


def _ln(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    c = centred(x)
    return c / c.square().mean(-1, keepdim=True).sqrt() * norm.weight + norm.bias


def _goes_back(trial: Trial, x: Tensor, f: _Branch, norm: nn.LayerNorm, alpha: float) -> None:
    trial.gradients(
        lambda: trial.call(x, f, norm, alpha),
        lambda: _ln(alpha * x + f(x), norm),
        {"x": x, "the branch's weights": f.weight, "the norm's gain": norm.weight, "the norm's bias": norm.bias},
    )


def _wrong_joins(x: Tensor, f: nn.Module, norm: nn.LayerNorm, alpha: float) -> list[Misconception]:
    def ln(x: Tensor) -> Tensor:
        return _ln(x, norm)

    fx = f(x)
    plain = (ln(alpha * x + fx) - norm.bias) / norm.weight
    published = (
        "This is the room as it was published: asked for α = 2.5 its effective α is 0.40, so the branch is α² = 6.2 "
        "times too strong."
    )
    one = "Effective α is 1: it is missing, or on both terms, where the norm hides it; this is Post-LN."
    twice = "Too far: effective α is α². It comes once, not on both terms."
    return [
        Misconception(ln(x + alpha * fx), published),
        Misconception(ln(x + fx), one),
        Misconception(ln(alpha**2 * x + fx), twice),
        Misconception(alpha * x + fx, "The norm on the sum is missing: the stream grows like α^(2N). See room 5."),
        Misconception(alpha * x + f(ln(x)), "The norm stays on the sum: with F reading it, see room 5."),
        Misconception(ln(alpha * x) + fx, "The norm is around the whole sum."),
        Misconception(alpha * ln(x) + fx, "The norm is around the whole sum."),
        Misconception(alpha * ln(x + fx), "The norm comes last: nothing multiplies its output."),
        Misconception(ln(alpha * x + f(alpha * x)), "α scales the skip, not what the branch reads."),
        Misconception(ln(x + f(alpha * x)), "α scales the skip, not what the branch reads."),
        Misconception(ln(alpha * x + f(ln(x))), "The branch reads the stream as it is: one norm is enough."),
        Misconception(ln(fx), "The skip is missing."),
        Misconception(ln(alpha * x - fx), "The branch is added, not subtracted."),
        Misconception(plain, "The norm has a gain and a bias of its own: call the norm that you were given."),
    ]


# --- room 3


def beta_of_depth(trial: Trial) -> None:
    """(8 * n_layers) ** -0.25: the exponent of 8N, with its sign, in one number."""
    depths = (12, 100, 7, 1, 1000)
    for n in depths:
        wrong = [
            Misconception(
                (8 * n) ** -1 / 4,
                "This is the room as it was published: ** binds before /, so the power is -1, and a quarter of that is "
                "taken. Put the exponent in parentheses.",
            ),
            Misconception((8 * n) ** 0.25, "The sign is missing: this β is above 1 and makes weights larger."),
            Misconception(8 * n**-0.25, "Now the 8 is outside the power: that gives 4.30 at 12 layers."),
            Misconception(1.0, "-(1//4) is 0, and anything to the power of 0 is 1: // divides whole numbers."),
            Misconception((8 * n) ** -1.0, "-1//4 is -1, not -0.25: // divides whole numbers and rounds down."),
            Misconception((2 * n) ** -0.25, "Two matrices share the budget: 8N, not 2N. Then α²β² is 1/2."),
            Misconception((2 * n) ** 0.25, "That is α, the factor on the skip."),
            Misconception((4 * n) ** -0.25, "Layers are counted here, not sub-layers: 8N, not 4N."),
            Misconception((8 * n) ** -0.5, "A quarter, not a half: the gain, not its square."),
            Misconception((8 * n) ** -0.125, "That is √β: the gain, not its root."),
            Misconception(0.25, "0.25 is right only at 32 layers: β depends on the depth."),
            Misconception(8 * n**-1 / 4, "Neither the 8 nor the 4 is where it should be."),
        ]
        trial.equal(trial.call(n), (1 / sqrt(8 * n)) ** 0.5, wrong, "For this depth β is wrong.")
    for n in depths:
        both = sqrt(2 * n) * float(trial.call(n)) ** 2
        held = abs(both - 0.5) < 1e-2
        trial.require(held, f"In a single stack α²β² is ½ at every depth, also at N = {n}.", "0.5", f"{both:.6g}")


# --- room 4


class _Scaling:
    """A library's initialiser, normal with variance scale/mean fan, and what it has drawn."""

    def __init__(self, weight: Tensor) -> None:
        self.__name__ = "variance_scaling_"
        self.weight = weight
        self.drawn: list[tuple[Tensor, float]] = []

    @torch.no_grad()
    def __call__(self, weight: Tensor, scale: float) -> Tensor:
        weight.normal_(0, sqrt(scale * 2 / sum(weight.shape)))
        inside = weight.untyped_storage().data_ptr() == self.weight.untyped_storage().data_ptr()
        if weight.numel() == self.weight.numel():
            self.drawn.append(((self.weight if inside else weight).detach().clone().flatten(), sqrt(scale)))
        return weight

    def gain(self) -> float | None:
        """The factor of the weight, if it is what was drawn times a number."""
        now = self.weight.detach().double().flatten()
        for drawn, gain in reversed(self.drawn):
            factor = float(now @ drawn.double() / drawn.double().square().sum().clamp_min(1e-30))
            if torch.allclose(now, factor * drawn.double(), rtol=1e-4, atol=1e-7):
                return factor * gain
        return None


def draw_with_gain_(trial: Trial) -> None:
    """variance_scaling_(weight, gain**2): numbers that are g times as large have g² times the variance."""
    for shape, gain in [((20, 12), 0.6), ((9, 16), 0.27), ((16, 16), 1.7)]:
        weights = []
        for _ in range(2):
            weights.append(nn.Parameter(torch.full(shape, torch.nan)))
            scaling = _Scaling(weights[-1])
            trial.change(weights[-1], gain, scaling)
            w = weights[-1].detach()
            trial.require(
                bool(w.isfinite().any()),
                "The underscore promises a change in place: fill the weight that you were given.",
            )
            trial.require(bool(w.isfinite().all()), "Not all of the weight was drawn.")
            trial.require(
                w.shape == shape and weights[-1].requires_grad and weights[-1].is_leaf,
                "The weight was replaced: it must keep its shape, and still be trained.",
            )
            trial.require(bool(scaling.drawn), "Draw with the library's function: variance_scaling_(weight, scale).")
            measured = scaling.gain()
            if measured is None:
                trial.fail("The weight is not what variance_scaling_ drew: at most multiply its numbers.")
            said = "The gain that xavier_gain reads is not the one asked for."
            trial.equal(measured, gain, _wrong_gains(gain, shape), said, tolerance=1e-4)
        trial.require(not torch.equal(*weights), "Two calls drew the same weights: all layers would be clones.")


def _wrong_gains(gain: float, shape: tuple[int, int]) -> list[Misconception]:
    fan = sum(shape) / 2
    published = (
        "This is the room as it was published: asked for 0.6, measured √0.6 = 0.775. scale multiplies the variance, "
        "gain the weights."
    )
    once = "Half right: what variance_scaling_ drew has the root of its scale as gain, and you multiplied that."
    return [
        Misconception(sqrt(gain), published),
        Misconception(gain**0.25, "The other way round: weights g times as large have g² times the variance, not √g."),
        Misconception(gain**2, "Squared once too often: the weights must be g times as large, not g² times."),
        Misconception(gain**1.5, once),
        Misconception(sqrt(2 * gain), "Take the square of the gain, not its double."),
        Misconception(gain * sqrt(2), "√2 too large: (fan_in + fan_out)/2 is in variance_scaling_ already."),
        Misconception(gain / sqrt(2), "√2 too small: (fan_in + fan_out)/2 is in variance_scaling_ already."),
        Misconception(1 / gain, "Upside down: β makes weights smaller."),
        Misconception(1 / sqrt(gain), "Upside down: β makes weights smaller."),
        Misconception(1.0, "The gain was not used: these are Xavier's weights with gain 1."),
        Misconception(gain / sqrt(fan), "variance_scaling_ divides by the fans already: pass it no fan."),
        Misconception(gain / fan, "variance_scaling_ divides by the fans already: pass it no fan."),
        Misconception(-gain, "The weights came out with the opposite sign."),
    ]


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
            f"{typo}={value} was accepted silently: a different model is trained than the one that was asked for."
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
        Misconception(2.828, "2.828 is right only at 32 layers: α depends on the depth."),
        Misconception(sqrt(2 * layers), "A quarter, not a half: that is α²."),
        Misconception((8 * layers) ** -0.25, "That is β, the gain of the weights."),
        Misconception((2 * layers) ** -0.25, "The exponent's sign is wrong: α strengthens the skip: it is above 1."),
        Misconception((2 * layers) ** 1 / 4, "** binds before /: put the exponent in parentheses."),
    ]
    if layers > 1:
        wrong.append(Misconception(1.0, "deepnorm=True has not reached α."))
    if not on:
        wrong = [Misconception(sqrt(sqrt(2 * layers)), "Without deepnorm there is no α: it is 1.")]
    trial.equal(got["alpha"], alpha, wrong, f"For {said} your α is wrong.")
    flags = (bool(got["norm_first"]), bool(got["sub_ln"]))
    growth = layers / 2 * log10(2 * layers)
    published = (
        f"This is the room as it was published: with deepnorm=True the stack stays Pre-LN, and at {layers} layers the "
        f"stream has grown 10^{growth:.0f}-fold. deepnorm must also switch norm_first off."
    )
    inside = (
        "deepnorm and sub_ln are both on: the norm inside the branch undoes what β did to the matrix before it. "
        "deepnorm must switch sub_ln off."
    )
    theirs = f"For {said}: without deepnorm the other settings stay as the caller gave them."
    sentence = theirs if not on else published if flags[0] else inside
    trial.require(flags == right, sentence, shown, str(got)[:100])
    return right
