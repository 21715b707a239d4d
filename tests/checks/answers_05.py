"""Lesson 05: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import copy
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import nn


def _see_update(f: Callable, g: np.random.Generator) -> Any:
    torch.manual_seed(int(g.integers(1000)))
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).double().train(bool(g.integers(2)))
    factor = g.uniform(-2, 2)

    def step(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)

    found = f(model, torch.tensor(g.normal(size=(4, 3))), step)
    after = [value for parameter in model.parameters() for value in parameter.flatten().tolist()]
    return [found, *after, model.training]


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "post_ln_init_divisor": lambda f, g: f(int(g.integers(1, 9)), int(g.integers(9, 30))),
    "learning_rate": lambda f, g: f(
        int(g.integers(0, 60)), g.uniform(0.1, 1), int(g.integers(1, 20)), g.uniform(0, 0.1)
    ),
    "model_update": _see_update,
    "update_bound": lambda f, g: f(*g.uniform(0, 2, (2, 6)), g.uniform(1, 3), g.uniform(0, 1, 6)),
    "sublayer_slopes": lambda f, g: np.array(f(g.normal(), g.uniform(0, 1), g.uniform(0, 1), g.uniform(1, 3))),
    "warmup_distance": lambda f, g: f(int(g.integers(1, 40)), g.uniform(0.1, 1), int(g.integers(1, 20))),
}


def rate(step, peak, warmup, initial=1e-7):
    return initial + (peak - initial) * step / warmup if step < warmup else peak * (warmup / step) ** 0.5


def interpolated(step, peak, warmup, initial=1e-7):
    return min(np.interp(step, [0, warmup], [initial, peak]), peak / np.sqrt(max(1, step / warmup)))


def after(falling):
    """The right rise, then something else."""
    return lambda t, peak, w, initial=1e-7: rate(t, peak, w, initial) if t <= w else falling(t, peak, w)


def by_copy(model, x, step):
    """The model that was given is not even touched."""
    other = copy.deepcopy(model).eval()
    with torch.no_grad():
        before = other(x)
        step(other)
        return torch.linalg.vector_norm(other(x) - before).item()


def by_parameters(model, x, step):
    modes = {module: module.training for module in model.modules()}
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    model.eval()
    y = model(x).detach()
    step(model)
    change = (model(x).detach() - y).square().sum() ** 0.5
    for parameter, value in zip(model.parameters(), kept, strict=True):
        parameter.data.copy_(value)
    for module, mode in modes.items():
        module.training = mode
    return float(change)


def update(measure=lambda z, y: (z - y).norm().item(), clone=True, evaluate=True, restore=True, mode=True):
    def answer(model, x, step):
        before = {k: v.clone() if clone else v for k, v in model.state_dict().items()}
        training = model.training
        if evaluate:
            model.eval()
        with torch.no_grad():
            y = model(x)
            step(model)
            found = measure(model(x), y)
        if restore:
            model.load_state_dict(before)
        if mode:
            model.train(training)
        return found

    return answer


def parameters_moved(model, x, step):
    other = copy.deepcopy(model)
    step(other)
    return sqrt(sum((a - b).square().sum().item() for a, b in zip(other.parameters(), model.parameters(), strict=True)))


def slopes(x, v, w, a):
    u = v * w
    return a * x * (a - u) / (a * a + u * u) ** 1.5


RIGHT = [
    ("post_ln_init_divisor", lambda layer, n: 1 + n - layer),
    ("post_ln_init_divisor", lambda layer, n: len(range(layer, n + 1))),
    ("learning_rate", rate),
    ("learning_rate", interpolated),
    ("model_update", by_copy),
    ("model_update", by_parameters),
    ("update_bound", lambda v, w, a, d: np.hypot(v, w) @ d / a),
    ("update_bound", lambda v, w, a, d: sum(sqrt(p * p + q * q) * s for p, q, s in zip(v, w, d, strict=True)) / a),
    ("sublayer_slopes", lambda x, v, w, a: (w * slopes(x, v, w, a), v * slopes(x, v, w, a))),
    (
        "sublayer_slopes",
        lambda x, v, w, a: tuple(
            x * p / sqrt(a * a + (v * w) ** 2) * (1 - (a + v * w) * v * w / (a * a + (v * w) ** 2)) for p in (w, v)
        ),
    ),
    ("warmup_distance", lambda n, peak, w: sum(rate(t, peak, w) for t in range(n))),
    ("warmup_distance", lambda n, peak, w: np.sum([interpolated(t, peak, w) for t in np.arange(n)])),
]

WRONG = [
    ("post_ln_init_divisor", lambda layer, n: layer, "That shrinks the top"),
    ("post_ln_init_divisor", lambda layer, n: sqrt(layer), "That is DS-Init"),
    ("post_ln_init_divisor", lambda layer, n: n - layer, "its divisor is 1, not 0"),
    ("post_ln_init_divisor", lambda layer, n: sqrt(n - layer + 1), "not their variance"),
    ("post_ln_init_divisor", lambda layer, n: (n - layer + 1) ** 2, "k² divides the variance"),
    ("post_ln_init_divisor", lambda layer, n: 1 / (n - layer + 1), "not the factor"),
    ("learning_rate", after(lambda t, peak, w: peak / sqrt(t)), "At the seam"),
    ("learning_rate", after(lambda t, peak, w: peak * w / t), "root of the step"),
    ("learning_rate", after(lambda t, peak, w: peak), "After warm-up the rate falls"),
    ("learning_rate", after(lambda t, peak, w: peak / sqrt(t - w)), "The count goes on"),
    ("learning_rate", lambda t, p, w, i=1e-7: p * min(t / w, sqrt(w / max(t, 1))), "not at 0"),
    ("learning_rate", lambda t, p, w, i=1e-7: p * sqrt(w / max(t, w)), "in a straight line"),
    ("learning_rate", lambda t, p, w, i=1e-7: i + (p - i) * t / w, "Warm-up ends"),
    ("learning_rate", lambda t, p, w, i=0.01: rate(t, p, w, i), "Without a fourth argument"),
    ("model_update", update(clone=False), "state_dict() holds references"),
    ("model_update", update(restore=False), "the step is still in it"),
    ("model_update", update(evaluate=False), "must give exactly 0"),
    ("model_update", update(mode=False), "in another mode"),
    ("model_update", parameters_moved, "how far the parameters moved"),
    ("model_update", update(lambda z, y: (z - y).square().mean().sqrt().item()), "root of the mean square"),
    ("model_update", update(lambda z, y: abs(z.norm() - y.norm()).item()), "difference of norms"),
    ("model_update", update(lambda z, y: (z - y).abs().max().item()), "largest change"),
    ("update_bound", lambda v, w, a, d: ((v + w) / a * d).sum(), "√(v² + w²)"),
    ("update_bound", lambda v, w, a, d: (np.hypot(v, w) / a**2 * d).sum(), "The second one is in the gradient"),
    ("update_bound", lambda v, w, a, d: sqrt(((np.hypot(v, w) / a * d) ** 2).sum()), "not that they cancel"),
    ("update_bound", lambda v, w, a, d: (np.hypot(v, w) / a * d)[::2].sum(), "2N sub-layers"),
    ("update_bound", lambda v, w, a, d: (v * w / a * d).sum(), "differentiates it"),
    ("update_bound", lambda v, w, a, d: (np.hypot(v, w) * d).sum(), "α is missing"),
    ("update_bound", lambda v, w, a, d: (np.hypot(v, w) / a).sum(), "how far its weights moved"),
    ("sublayer_slopes", lambda x, v, w, a: (v * slopes(x, v, w, a), w * slopes(x, v, w, a)), "Crosswise"),
    (
        "sublayer_slopes",
        lambda x, v, w, a: (x * w / sqrt(a * a + v * v * w * w), x * v / sqrt(a * a + v * v * w * w)),
        "quotient rule",
    ),
    ("sublayer_slopes", lambda x, v, w, a: (slopes(x, v, w, a), slopes(x, v, w, a)), "slope along u"),
    ("sublayer_slopes", lambda x, v, w, a: (slopes(1, v, w, a) * w, slopes(1, v, w, a) * v), "x is missing"),
    ("warmup_distance", lambda n, p, w: n * p, "without warm-up"),
    ("warmup_distance", lambda n, p, w: sum(rate(t, p, w) for t in range(1, n + 1)), "Steps count from 0"),
    ("warmup_distance", lambda n, p, w: rate(n, p, w), "That is one rate"),
    ("warmup_distance", lambda n, p, w: p * n * n / (2 * w), "A triangle is close"),
    ("warmup_distance", lambda n, p, w: sum(rate(t, p, w) for t in range(n)) / n, "mean rate"),
]
