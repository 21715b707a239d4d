"""The five rooms of lesson 09 that a learner mends, each judged by what it does.

Where a published bug is handed in as it was, its sentence says what it costs.
"""

from math import log10, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Misconception, NotRight, Trial
from deepnet_edu.checks.parts import centred, is_truth, layer_of, sample


def join(trial: Trial) -> None:
    """LN(αx + F(x)), by its effective α."""
    for (B, T, d), alpha in [((2, 5, 8), 2.5), ((1, 4, 12), 4.7)]:
        norm = nn.LayerNorm(d, eps=1e-12).double()
        with torch.no_grad():
            norm.weight.copy_(1 + 0.3 * sample(d, seed=d + 1))
            norm.bias.copy_(0.3 * sample(d, seed=d + 2))
        x, weight = 0.5 * sample(B, T, d, seed=d) + 0.7, sample(d, d, seed=d + 3)
        calls: list[Tensor] = []

        def f(x: Tensor, weight: Tensor = weight, calls: list[Tensor] = calls) -> Tensor:
            calls.append(x)
            return torch.tanh(x @ weight) + 0.3 * x[..., :1]

        got = trial.call(x, f, norm, alpha)
        once = len(calls)

        def ln(x: Tensor, norm: nn.LayerNorm = norm) -> Tensor:
            c = centred(x)
            return (c / c.square().mean(-1, keepdim=True).sqrt() * norm.weight + norm.bias).detach()

        fx = f(x)
        wrong = [
            Misconception(
                ln(x + alpha * fx),
                f"This is the room as it was published: its effective α is {1 / alpha:.2f}, asked was {alpha}, so the "
                f"branch is α² = {alpha**2:.1f} times too strong.",
            ),
            Misconception(
                ln(x + fx),
                "Effective α is 1: it is missing, or on both terms, where the norm hides it; this is Post-LN.",
            ),
            Misconception(
                ln(alpha**2 * x + fx),
                "Too far: effective α is α². α comes once: on the skip, or, dividing, on the branch, not on both.",
            ),
            Misconception(alpha * x + fx, "The norm on the sum is lost: the stream grows like α^(2N). See room 5."),
            Misconception(alpha * x + f(ln(x)), "The norm stays on the sum: with F reading it, see room 5."),
            Misconception(ln(alpha * x) + fx, "The norm stands around the whole sum."),
            Misconception(ln(alpha * x + f(alpha * x)), "α scales the skip, not what the branch reads."),
            Misconception(ln(x + f(alpha * x)), "α scales the skip, not what the branch reads."),
            Misconception(ln(fx), "The skip is missing."),
        ]
        trial.equal(got, ln(alpha * x + fx), wrong, "Asked is a sub-layer LN(αx + F(x)).", tolerance=1e-8)
        trial.require(once == 1, "Call the branch once: it is the costly part.", "1 call", f"{once} calls")


def fresh_copies(trial: Trial) -> None:
    """n deep copies, each drawn afresh, in an nn.ModuleList."""
    for n in (5, 3):
        layer = layer_of(n)
        with torch.no_grad():
            layer[2].weight.fill_(0.7)  # type: ignore[operator]
        before = [parameter.detach().clone() for parameter in layer.parameters()]
        generator = torch.Generator().manual_seed(n)
        drawn: list[nn.Module] = []

        def draw_(
            module: nn.Module, drawn: list[nn.Module] = drawn, generator: torch.Generator = generator
        ) -> nn.Module:
            drawn.append(module)
            with torch.no_grad():
                for parameter in module.parameters():
                    if parameter.ndim == 2:
                        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            return module

        got = trial.call(layer, n, draw_)
        if not isinstance(got, nn.ModuleList | nn.Sequential):
            trial.require(
                not isinstance(got, list | tuple),
                "The optimizer cannot see parameters that are not registered: put the layers into an nn.ModuleList.",
                "nn.ModuleList",
                type(got).__name__,
            )
            trial.fail(f"The answer is an nn.ModuleList of layers, not {type(got).__name__}.")
        trial.require(len(got) == n, "Another number of layers was asked for.", f"{n} layers", f"{len(got)} layers")
        trial.require(
            len({id(one) for one in got}) == n, "One layer several times: they share their weights. Copy it n times."
        )
        distinct = [len({tuple(p.flatten().tolist()) for p in place}) for place in _matrices(got)]
        trial.require(
            min(distinct, default=0) == n,
            "This is the room as it was published: separate parameters, equal values. Draw each copy afresh."
            if not drawn
            else "You drew once and copied what you drew: first copy, then draw_ each of the copies."
            if len(drawn) == 1
            else "draw_ was called, and still there are equal layers: it is each copy that has to be drawn.",
            f"{n} different layers",
            f"{min(distinct, default=0)}",
        )
        trial.require(
            all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True)),
            "The layer that you were given has changed: it is the caller's. Copy it first, then draw the copy.",
        )
        trial.require(
            all(any(bool(p.eq(0.7).all()) for p in one.parameters()) for one in got),
            "What draw_ leaves alone, here the gain of a norm, must be as in the given layer: deep copies have it.",
        )
    trial.require(len(trial.call(layer_of(1), 0, draw_)) == 0, "A stack of no layers is an empty nn.ModuleList.")


def _matrices(layers: Any) -> list[tuple[Tensor, ...]]:
    """By place in a layer, the matrices of all layers."""
    return list(zip(*([p for p in layer.parameters() if p.ndim == 2] for layer in layers), strict=False))


def beta_of_depth(trial: Trial) -> None:
    """(8N)^(-1/4)."""
    for N in (12, 100, 7):
        got = trial.call(N)
        wrong = [
            Misconception(
                (8 * N) ** -1 / 4,
                f"This is the room as it was published: ** binds before /, so it is (1/(8·{N}))/4. Put the exponent in "
                "parentheses.",
            ),
            Misconception((8 * N) ** 0.25, "The sign is gone: β = (8N)^(+1/4) makes weights larger, above 1."),
            Misconception(
                8 * N**-0.25, f"Now 8 stays outside of the power: {8 * N**-0.25:.2f}. It is 8N that is raised."
            ),
            Misconception(1.0, "-(1//4) is 0, and anything to the power of 0 is 1: // divides whole numbers."),
            Misconception((8 * N) ** -1.0, "-1//4 is -1, not -0.25: // divides whole numbers and rounds down."),
            Misconception((2 * N) ** -0.25, "Two matrices share the budget: 8N, not 2N. Then α²β² is 1/2."),
            Misconception((2 * N) ** 0.25, "That is α, the factor on the skip."),
            Misconception((8 * N) ** -0.5, "A quarter, not a half: the gain, not its square."),
            Misconception((8 * N) ** -0.125, "That is √β: the gain, not its root."),
            Misconception(0.25, "0.25 is right at 32 layers alone: β follows the depth."),
            Misconception(8 * N**-1 / 4, "Neither the 8 nor the 4 is where it should be: (8 * N) ** -0.25."),
            Misconception(0.32, "It may look right at 12 layers: β follows the depth."),
        ]
        trial.equal(got, (1 / sqrt(8 * N)) ** 0.5, wrong, "β is the fourth root of 1/(8N): then α²β² is 1/2.")


def _scaling_(weight: Tensor, scale: float) -> Tensor:
    """A library's initialiser: normal, with variance scale/mean fan."""
    with torch.no_grad():
        return weight.normal_(0, sqrt(scale * 2 / sum(weight.shape)))


def draw_with_gain_(trial: Trial) -> None:
    """Variance scaling with scale = gain²: the gain that was asked."""
    for shape, gain in [((200, 120), 0.334), ((96, 160), 0.6), ((128, 128), 1.7)]:
        weight = nn.Parameter(torch.full(shape, torch.nan))
        trial.change(weight, gain, _scaling_)
        w = weight.detach().double()
        trial.require(
            bool(w.isfinite().any()), "The underscore promises a change in place: fill the weight that you were given."
        )
        trial.require(bool(w.isfinite().all()), "Not all of the weight was drawn.")
        fan = sum(shape) / 2
        measured = w.square().mean().sqrt().item() * sqrt(fan)
        noise = 5 / sqrt(2 * w.numel())
        wrong = [
            Misconception(
                sqrt(gain),
                f"This is the room as it was published: asked {gain}, measured √{gain} = {sqrt(gain):.3f}. scale "
                "multiplies the variance, gain the weights.",
            ),
            Misconception(gain**0.25, "The other way: weights g times as large have g² times the variance, not √g."),
            Misconception(gain**2, "Squared once too often: the variance takes gain², so the weights take gain."),
            Misconception(sqrt(2 * gain), "The square of the gain, not its double."),
            Misconception(gain * sqrt(2), "√2 too large: (fan_in + fan_out)/2 is in variance_scaling_ already."),
            Misconception(1 / gain, "Upside down: β makes weights smaller."),
            Misconception(1 / sqrt(gain), "Upside down: β makes weights smaller."),
            Misconception(1.0, "The gain did not arrive: these are Xavier's weights with gain 1."),
            Misconception(gain / sqrt(3), "This is nn.Linear's default times the gain: not Xavier."),
            Misconception(gain * sqrt(fan), "That is the standard deviation itself: Xavier divides by the fans."),
        ]  # fmt: skip
        trial.equal(
            measured, gain, wrong, "The gain that xavier_gain reads is not the one asked for.", noise * max(1.0, gain)
        )
        again = nn.Parameter(torch.full(shape, torch.nan))
        trial.change(again, gain, _scaling_)
        trial.require(not torch.equal(again, weight), "Two calls drew the same weights: all layers would be clones.")


def decoder_settings(trial: Trial) -> None:
    """deepnorm=True: α, no Pre-LN, no Sub-LN; unknown keywords refused."""
    for layers in (24, 6):
        _settings(trial, layers, {"deepnorm": True}, (2 * layers) ** 0.25, False, False)
        _settings(trial, layers, {}, 1.0, True, True)
        _settings(trial, layers, {"norm_first": False}, 1.0, False, True)
        _settings(trial, layers, {"sub_ln": False}, 1.0, True, False)
        _settings(trial, layers, {"deepnorm": True, "sub_ln": True}, (2 * layers) ** 0.25, False, False)
        _settings(trial, layers, {"deepnorm": True, "norm_first": True}, (2 * layers) ** 0.25, False, False)
    for typo in ("deep_norm", "norm_frist"):
        try:
            trial.function(6, **{typo: True})
        except (TypeError, ValueError, KeyError):
            continue
        except Exception as error:
            raise NotRight(
                f"For an unknown keyword raise a TypeError, as Python does by itself, not {type(error).__name__}."
            ) from None
        trial.fail(
            f"{typo}=True was accepted in silence, and another model is trained than the one that was asked for."
        )


def _settings(trial: Trial, layers: int, asked: dict[str, bool], alpha: float, norm_first: bool, sub_ln: bool) -> None:
    said = ", ".join(f"{name}={value}" for name, value in asked.items()) or "nothing"
    got = trial.call(layers, **asked)
    expected = {"alpha": alpha, "norm_first": norm_first, "sub_ln": sub_ln}
    if not isinstance(got, dict) or got.keys() != expected.keys():
        trial.require(
            False, "The answer is a dictionary with alpha, norm_first and sub_ln.", str(expected), str(got)[:80]
        )
    trial.like(got["alpha"], 1.0)
    trial.require(
        all(is_truth(got[name]) for name in ("norm_first", "sub_ln")), "norm_first and sub_ln are True or False."
    )
    factor, flags = float(got["alpha"]), (bool(got["norm_first"]), bool(got["sub_ln"]))
    sentence = f"Asked for {said}, other settings came out."
    if "deepnorm" in asked:
        if flags[0]:
            sentence = (
                f"This is the room as it was published: with deepnorm=True the stack stays Pre-LN, and at {layers} "
                f"layers the stream has grown 10^{layers / 2 * log10(2 * layers):.0f}-fold. deepnorm must also "
                "switch norm_first off."
            )
        elif flags[1]:
            sentence = (
                "deepnorm and sub_ln are both on: the norm inside the branch undoes what β is for. deepnorm must "
                "switch sub_ln off."
            )
        elif abs(factor - alpha) > 1e-9 * alpha:
            sentence = f"With deepnorm=True α is (2·layers)^(1/4) = {alpha:.4f}."
    elif factor != 1:
        sentence = f"Asked for {said}: without deepnorm there is no α, it is 1."
    else:
        sentence = f"Asked for {said}: without deepnorm the other settings are the caller's, as they were."
    right = abs(factor - alpha) < 1e-9 * alpha and flags == (norm_first, sub_ln)
    trial.require(right, sentence, str(expected), str(got))
