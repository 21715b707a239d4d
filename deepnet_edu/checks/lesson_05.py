"""Lesson 05, exploding updates: Post-LN-init, the warm-up schedule, the model update, Theorem 4.2 and its slopes, and
how far warm-up lets a weight go."""

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Judge, Misconception, Trial


def learning_rate(trial: Trial) -> None:
    """initial + (peak - initial)·step/warmup, then peak·√(warmup/step)."""
    for peak, warmup, initial in [(3e-3, 40, 1e-5), (0.5, 9, 0.02)]:
        for step in (0, 1, warmup // 2, warmup - 1, warmup, 4 * warmup, warmup + 1):
            got = trial.call(step, peak, warmup, initial)
            rising = np.interp(step, [0, warmup], [initial, peak])
            expected = float(rising if step <= warmup else peak / sqrt(step / warmup))
            wrong = [Misconception(initial + (peak - initial) * (step + 1) / warmup, "Step 0 has the initial rate.")]
            if step > warmup:
                since = step - warmup
                wrong += [
                    Misconception(
                        peak / sqrt(step),
                        f"At the seam the rate jumps from {peak:g} to {peak / sqrt(warmup):.2g}: peak·√(warmup/step).",
                    ),
                    Misconception(peak * warmup / step, "It falls with the root of the step: peak·√(warmup/step)."),
                    Misconception(peak, "After warm-up the rate falls: peak·√(warmup/step)."),
                    Misconception(
                        peak * sqrt(warmup / since),
                        "The count goes on after warm-up: √(warmup/step), not since warm-up.",
                    ),
                    Misconception(peak / sqrt(since), "The count goes on after warm-up: peak·√(warmup/step)."),
                    Misconception(peak / sqrt(1 + since), "The count goes on after warm-up: peak·√(warmup/step)."),
                    Misconception(
                        initial + (peak - initial) * step / warmup, "Warm-up ends at step warmup: then the rate falls."
                    ),
                    Misconception(
                        initial + (peak - initial) * sqrt(warmup / step),
                        "After warm-up initial has no part: peak·√(warmup/step).",
                    ),
                ]
            else:
                wrong += [
                    Misconception(peak * step / warmup, "Warm-up starts at the initial rate, not at 0."),
                    Misconception(
                        initial + peak * step / warmup, "At step warmup the rate is peak, not peak + initial."
                    ),
                    Misconception(peak, "During warm-up the rate rises from initial to peak in a straight line."),
                    Misconception(initial, "During warm-up the rate rises: initial + (peak - initial)·step/warmup."),
                ]
                if step:
                    wrong.append(
                        Misconception(
                            peak * sqrt(warmup / step), "That is for after warm-up: before it the rate rises."
                        )
                    )
            trial.equal(
                got, expected, wrong, "A straight line from initial to peak, then peak·√(warmup/step).", tolerance=1e-9
            )
    trial.equal(
        trial.call(0, 1.0, 10), 1e-7, sentence="Without a fourth argument the initial rate is 1e-7.", tolerance=1e-12
    )


def _small_model(d: int, seed: int, training: bool) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(d, d), nn.Dropout(0.5)).double()
    return model.train(training)


def _scale(factor: float) -> Callable[[nn.Module], None]:
    def step(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)

    return step


def model_update(trial: Trial) -> None:
    """‖F(x; θ') - F(x; θ)‖ without dropout, and the model as before."""
    for d, factor, training in [(6, 1.3, True), (9, 0.4, False)]:
        model = _small_model(d, d, training)
        x = torch.randn(4, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
        kept = {name: value.clone() for name, value in model.state_dict().items()}
        linear = model[0]
        assert isinstance(linear, nn.Linear)
        y = (x @ linear.weight.mT + linear.bias).detach()
        change = (factor - 1) * y
        expected = change.norm().item()
        moved = abs(factor - 1) * torch.cat([p.flatten() for p in model.parameters()]).norm().item()

        def unchanged(model: nn.Sequential = model, kept: dict[str, Tensor] = kept, training: bool = training) -> None:
            trial.require(
                all(torch.equal(value, kept[name]) for name, value in model.state_dict().items()),
                "Your model is not the one that was given: the step is still in it. state_dict() holds references, so "
                "clone each value before the step, and load them afterwards.",
            )
            trial.require(
                all(module.training == training for module in model.modules()),
                "The model came back in another mode: training or evaluation, leave it as it was.",
            )

        still = trial.call(model, x, lambda model: None)
        trial.like(still, 0.0)
        trial.require(
            float(still) == 0.0,
            "A step that does nothing must give exactly 0. Two passes with dropout differ without any step: "
            "model.eval() first.",
            "0",
            f"{float(still):.3g}",
        )
        unchanged()
        got = trial.call(model, x, _scale(factor))
        wrong = [
            Misconception(
                moved, "That is how far the parameters moved: the same step may do very different things to F."
            ),
            Misconception(
                change.square().mean().sqrt().item(), "That is the root of the mean square: asked is the norm."
            ),
            Misconception(expected**2, "That is the square of the norm."),
            Misconception(change.abs().sum().item(), "Asked is the 2-norm: root of the sum of squares."),
            Misconception(
                change.abs().max().item(), "That is the largest change of one number: asked is the norm of all."
            ),
            Misconception(
                change.sum().abs().item(), "Changes of both signs must not cancel: the norm of the difference."
            ),
            Misconception(0.0, "The output before the step is F(x) with the old weights: compute it before the step."),
        ]
        trial.equal(got, expected, wrong, "‖F(x) after the step - F(x) before it‖, over all numbers of the output.")
        unchanged()
        trial.equal(
            trial.call(model, x, _scale(factor)),
            expected,
            sentence="The second call gives another number than the first.",
        )

    # Two numbers whose norms are equal and whose difference is not 0.
    model = _small_model(5, 1, True)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        y = model[0](x)
    trial.equal(
        trial.call(model, x, _scale(-1.0)),
        2 * y.norm().item(),
        [Misconception(0.0, "The norm of a difference, not the difference of norms.")],
        "‖F(x) after the step - F(x) before it‖.",
    )


def post_ln_init_divisor(trial: Trial) -> None:
    """n_layers - layer + 1, layers counted from 1."""
    for n in (7, 18):
        for layer in (2, n, 1, (n + 1) // 2, n - 1):  # a wrong answer may be right at 1 or in the middle
            got = trial.call(layer, n)
            k = n - layer + 1
            wrong = [
                Misconception(layer, "That shrinks the top. Post-LN-init shrinks the bottom: layer 1 most."),
                Misconception(sqrt(layer), "That is DS-Init, which goes the other way: it shrinks the top."),
                Misconception(
                    n - layer, "The top layer is not scaled: its divisor is 1, not 0. Layers are counted from 1."
                ),
                Misconception(sqrt(k), "k divides the weights, not their variance: no root."),
                Misconception(k**2, "k² divides the variance; the weights are divided by k."),
                Misconception(n + layer - 1, "The divisor falls on the way up."),
                Misconception(1 / k, "Asked is the divisor, not the factor."),
                Misconception(n, "Every layer has its own divisor: n_layers at the bottom, 1 at the top."),
            ]
            trial.equal(got, float(k), wrong, "n_layers at the bottom (layer 1), 1 at the top (layer n_layers).")


def update_bound(trial: Trial) -> None:
    """Σ √(v² + w²)/α·‖Δθ‖ over the sub-layers."""
    for n, alpha, seed in [(6, 2.5, 1), (1, 1.7, 2), (10, 1.3, 3)]:
        v, w, dtheta = np.random.default_rng(seed).uniform(0.2, 1.5, (3, n))
        got = trial.call(v, w, alpha, dtheta)
        length = np.hypot(v, w)
        terms = length / alpha * dtheta
        expected = float(sum(terms))
        wrong = [
            Misconception(
                ((v + w) / alpha * dtheta).sum(), "Two matrices of one branch: their lengths combine as √(v² + w²)."
            ),
            Misconception(
                (length / alpha**2 * dtheta).sum(),
                "One α comes from this sub-layer's norm. The second one is in the gradient, inside Δθ: see lesson 06.",
            ),
            Misconception(
                sqrt((terms**2).sum()), "A bound assumes that the layers' updates add up, not that they cancel."
            ),
            Misconception((length * dtheta).sum(), "α is missing: the norm on the sum divides by it."),
            Misconception((length * alpha * dtheta).sum(), "A larger skip makes the update smaller: divide by α."),
            Misconception(terms[::2].sum(), "There are 2N sub-layers, not N: take every entry."),
            Misconception(
                (v * w / alpha * dtheta).sum(),
                "v·w is the size of the branch. The update differentiates it, by v and by w: √(v² + w²).",
            ),
            Misconception((length**2 / alpha * dtheta).sum(), "The root is missing: √(v² + w²)."),
            Misconception((length / alpha).sum(), "Each term is multiplied by how far its weights moved, ‖Δθ‖."),
            Misconception((length / alpha).sum() * dtheta.sum(), "Term by term: each sub-layer has its own Δθ."),
            Misconception(terms.mean(), "A sum over the sub-layers, not a mean."),
        ]
        trial.equal(got, expected, wrong, "The sum over all sub-layers of √(v² + w²)/α·‖Δθ‖.")


def sublayer_slopes(trial: Trial) -> None:
    """(∂f/∂v, ∂f/∂w) of f = (α + vw)x/√(α² + v²w²), from autograd."""
    for x, v, w, alpha in [(1.7, 0.4, 0.9, 2.2), (-0.6, 0.8, 0.3, 1.4), (2.1, 0.5, 0.6, 3.1)]:
        got = trial.call(x, v, w, alpha)
        a, b = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (v, w))
        with torch.enable_grad():
            f = (alpha + a * b) * x / (alpha**2 + (a * b) ** 2).sqrt()
            expected = np.array([g.item() for g in torch.autograd.grad(f, (a, b))])
        u, size = v * w, alpha**2 + (v * w) ** 2
        factor = alpha * x * (alpha - u) / size**1.5
        wrong = [
            Misconception(
                [factor * v, factor * w], "Crosswise: the slope along v is a multiple of w, and along w of v."
            ),
            Misconception(
                [x * w / sqrt(size), x * v / sqrt(size)],
                "The norm's denominator depends on v and w too: the quotient rule has a second term.",
            ),
            Misconception(
                [alpha * x * (alpha + u) / size**1.5 * w, alpha * x * (alpha + u) / size**1.5 * v],
                "Minus: as the branch grows, so does the denominator, (α - vw).",
            ),
            Misconception([factor, factor], "That is the slope along u = vw: multiply by ∂u/∂v = w and ∂u/∂w = v."),
            Misconception(
                [factor / x * w, factor / x * v], "x is missing: the sub-layer's output is proportional to it."
            ),
            Misconception(
                [factor / alpha * w, factor / alpha * v], "A factor α is missing: α·x·(α - vw)/(α² + v²w²)^(3/2)."
            ),
            Misconception(
                [factor * sqrt(size) * w, factor * sqrt(size) * v], "The exponent of the denominator is 3/2."
            ),
        ]
        trial.equal(got, expected, wrong, "α·x·(α - vw)/(α² + v²w²)^(3/2), times w for v and times v for w.", 1e-8)


def warmup_distance(trial: Trial) -> None:
    """The sum of the learning rates of the first steps."""
    for steps, peak, warmup in [(5, 0.4, 20), (20, 0.3, 8), (1, 0.7, 3), (12, 0.2, 12)]:
        got = trial.call(steps, peak, warmup)

        def rate(t: int, peak: float = peak, warmup: int = warmup) -> float:
            return 1e-7 + (peak - 1e-7) * t / warmup if t < warmup else peak * sqrt(warmup / t)

        expected = sum(rate(t) for t in range(steps))
        wrong = [
            Misconception(steps * peak, "That is without warm-up: each step has its own rate."),
            Misconception(
                sum(rate(t) for t in range(1, steps + 1)), "Steps count from 0: the first has the initial rate."
            ),
            Misconception(sum(rate(t) for t in range(steps + 1)), "Steps 0 to steps - 1: one too many."),
            Misconception(rate(steps), "That is one rate: the distance is the sum over the steps."),
            Misconception(rate(steps - 1), "That is the last rate: the distance is the sum over the steps."),
            Misconception(expected / steps, "That is the mean rate: the distance is the sum."),
            Misconception(
                peak * steps**2 / (2 * warmup), "A triangle is close while warm-up lasts: add the steps up exactly."
            ),
            Misconception(
                sqrt(sum(rate(t) ** 2 for t in range(steps))),
                "That is for steps in random directions: the farthest is when all go the same way.",
            ),
        ]
        trial.equal(
            got, expected, wrong, "Adam moves a weight by about the rate: add the rates of steps 0 … steps - 1."
        )


JUDGES: dict[str, Judge] = {
    "post_ln_init_divisor": post_ln_init_divisor,
    "learning_rate": learning_rate,
    "model_update": model_update,
    "update_bound": update_bound,
    "sublayer_slopes": sublayer_slopes,
    "warmup_distance": warmup_distance,
}
