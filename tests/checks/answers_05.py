"""Lesson 05: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import contextlib
import copy
from bisect import bisect
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from math import hypot, sqrt
from typing import Any

import numpy as np
import torch
from torch import nn


def _see_update(f: Callable, g: np.random.Generator) -> Any:
    torch.manual_seed(int(g.integers(1000)))
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).double().train(bool(g.integers(2)))
    rate = float(g.choice([0.0, g.uniform(-2, 2)]))
    parameters = list(model.parameters())

    def step(model: nn.Module) -> None:
        trained = list(model.parameters())
        gradients = torch.autograd.grad(trained[0].square().sum() + trained[1].sum(), trained)
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter -= rate * gradient

    found = f(model, torch.tensor(g.normal(size=(4, 3))), step)
    after = [value for parameter in model.parameters() for value in parameter.flatten().tolist()]
    same = [mine is theirs for mine, theirs in zip(model.parameters(), parameters, strict=True)]
    return [found, *after, *same, *(parameter.requires_grad for parameter in parameters), model.training]


def _layer(g: np.random.Generator) -> tuple[int, int]:
    n = int(g.integers(1, 30))
    return int(g.choice([1, n, g.integers(1, n + 1)])), n


def _schedule(g: np.random.Generator) -> tuple[int, float, int, float]:
    warmup = int(g.integers(1, 20))
    step = int(g.choice([0, 1, warmup - 1, warmup, warmup + 1, g.integers(0, 60)]))
    return step, g.uniform(0.1, 1), warmup, float(g.choice([0, g.uniform(0, 0.1)]))


def _see_claim(f: Callable, g: np.random.Generator) -> Any:
    """A mark for each arm that a list names."""
    arms = {f"arm {i}": {"a": g.uniform(), "b": g.uniform()} for i in range(int(g.integers(0, 7)))}
    first, second = f(arms, lambda arm: arm["a"] > 0.5, lambda arm: arm["b"] > 0.5)
    return [[name in one for name in arms] for one in (list(first), list(second))]


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "post_ln_init_divisor": lambda f, g: f(*_layer(g)),
    "learning_rate": lambda f, g: f(*_schedule(g)),
    "model_update": _see_update,
    "counterexamples": _see_claim,
    "update_factor": lambda f, g: f(*g.uniform(0.3, 3, 3), str(g.choice(["sgd", "adam"]))),
    "warmup_distance": lambda f, g: 1e6 * f(int(g.integers(0, 40)), g.uniform(1e-6, 1e-5), int(g.integers(1, 20))),
}


def counted(layer, n):
    return 1 if layer == n else 1 + counted(layer + 1, n)


def rate(step, peak, warmup, initial=1e-7):
    return initial + (peak - initial) * step / warmup if step < warmup else peak * (warmup / step) ** 0.5


def interpolated(step, peak, warmup, initial=1e-7):
    return min(np.interp(step, [0, warmup], [initial, peak]), peak / np.sqrt(max(1, step / warmup)))


def rising(ramp):
    """Something else, then the right fall."""
    return lambda t, peak, w, initial=1e-7: ramp(t, peak, w, initial) if t < w else rate(t, peak, w)


def after(falling):
    """The right rise, then something else."""
    return lambda t, peak, w, initial=1e-7: rate(t, peak, w, initial) if t <= w else falling(t, peak, w)


def by_copy(model, x, step):
    """The model that was given is not even touched."""
    other = copy.deepcopy(model).eval()
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


def by_vector(model, x, step):
    """Both passes after the step, with a graph: the old weights are handed in."""
    training, old = model.training, copy.deepcopy(model.state_dict())
    try:
        step(model.train(False))
        return (torch.func.functional_call(model, old, (x,)) - model(x)).flatten().norm()
    finally:
        model.load_state_dict(old)
        model.train(training)


def by_one_vector(model, x, step):
    """All parameters in one tensor, and the step in training mode."""
    training, old = model.training, nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    outputs = []
    for _ in range(2):
        model.eval()
        outputs.append(model(x).detach().numpy())
        model.train(training)
        if len(outputs) == 1:
            step(model)
    nn.utils.vector_to_parameters(old, model.parameters())
    return np.sqrt(np.sum((outputs[1] - outputs[0]) ** 2))


def with_inference_mode(model, x, step):
    was = model.training
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    model.eval()
    with torch.inference_mode():
        y = model(x).flatten().tolist()
    step(model)
    with torch.inference_mode():
        z = model(x).flatten().tolist()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter[...] = before[name]
    return np.linalg.norm(np.subtract(z, y)) if model.train(was) else None


def update(
    measure=lambda z, y: (z - y).norm().item(),
    clone=True,
    evaluate=True,
    restore=True,
    mode=True,
    around=torch.enable_grad,
    also=lambda model: None,
    steps=1,
    late=False,
):
    """The usual answer, one part of it changed."""

    def answer(model, x, step):
        before = {k: v.clone() if clone else v for k, v in model.state_dict().items()}
        training = model.training
        if evaluate:
            model.eval()
        with torch.no_grad():
            y = model(x)
        with around():
            for _ in range(steps):
                step(model)
        model.eval()
        with torch.no_grad():
            y = model(x) if late else y
            found = measure(model(x), y)
        if restore:
            model.load_state_dict(before)
        if mode:
            model.train(training)
        also(model)
        return found

    return answer


def parameters_moved(model, x, step):
    other = copy.deepcopy(model)
    step(other)
    return sqrt(sum((a - b).square().sum().item() for a, b in zip(other.parameters(), model.parameters(), strict=True)))


def swallows(model, x, step):
    """Where no gradient can be taken, nothing is said."""
    with torch.no_grad():
        try:
            return update(around=contextlib.nullcontext)(model, x, step)
        except Exception:
            return 0.0


def replaced(model, x, step):
    """The model gets the parameters of a copy."""
    backup, training = copy.deepcopy(model), model.training
    with torch.no_grad():
        y = model.eval()(x)
    step(model)
    found = (model(x) - y).norm().item()
    model.__dict__.update(backup.__dict__)
    return found if model.train(training) else None


def assigned(model, x, step):
    before, training = copy.deepcopy(model.state_dict()), model.training
    y = model.eval()(x)
    step(model)
    found = (model(x) - y).norm().item()
    model.load_state_dict(before, assign=True)
    return found if model.train(training) else None


def frozen(value):
    def freeze(model):
        for parameter in model.parameters():
            parameter.requires_grad_(value)

    return freeze


def in_double(model, x, step):
    """For the sake of precision."""
    model.double()
    found = update()(model, x.double() if x.is_floating_point() else x, step)
    model.float()
    return found


def with_gradients(model):
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)


def no_dropout_for_good(model, x, step):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return update()(model, x, step)


def mode_of_the_first(seen, model, x, step):
    seen.append(model.training)
    return update(also=lambda model: model.train(seen[0]))(model, x, step)


def remembers(function, key):
    """It keeps what it gave for a key that leaves out an argument."""
    kept = {}
    return lambda *given: kept.setdefault(key(*given), function(*given))


def by_sets(arms, cause, effect):
    have, show = ({name for name in arms if one(arms[name])} for one in (cause, effect))
    return [name for name in arms if name in have - show], [name for name in arms if name in show - have]


def by_loop(arms, cause, effect):
    first, second = [], []
    for name, values in arms.items():
        a, b = bool(cause(values)), bool(effect(values))
        if a != b:
            (first if a else second).append(name)
    return first, second


def by_filter(arms, cause, effect):
    return [
        tuple(filter(lambda name: one(arms[name]) and not other(arms[name]), arms))
        for one, other in ((cause, effect), (effect, cause))
    ]


def by_values(rule):
    """Both lists by a rule of whether cause and effect are there."""
    return lambda arms, cause, effect: tuple(
        [name for name, one in arms.items() if rule(i, bool(cause(one)), bool(effect(one)))] for i in (0, 1)
    )


def growing(kept, arms, cause, effect):
    """Its lists are the same ones at every call."""
    for i, names in enumerate(by_loop(arms, cause, effect)):
        kept[i].extend(names)
    return kept[0], kept[1]


def in_two_steps(alpha, gain, rate, optimizer):
    slope = gain / alpha
    step = {"sgd": slope, "adam": 1.0}[optimizer] * rate
    return slope * step


def total(rate, first=0, last=0):
    """A sum of rates, whose ends can be moved."""
    return lambda n, peak, w: sum(rate(t, peak, w) for t in range(first, n + last))


def in_order(n, peak, w, done=0.0, t=0):
    return done if t == n else in_order(n, peak, w, done + rate(t, peak, w), t + 1)


RIGHT = [
    ("post_ln_init_divisor", lambda layer, n: 1 + n - layer),
    ("post_ln_init_divisor", lambda layer, n: len(range(layer, n + 1))),
    ("post_ln_init_divisor", lambda layer, n: torch.arange(n, 0, -1)[layer - 1]),
    ("post_ln_init_divisor", lambda layer, n: list(range(1, n + 1))[-layer]),
    ("post_ln_init_divisor", lambda layer, n: sum(1 for one in range(1, n + 1) if one >= layer)),
    ("post_ln_init_divisor", lambda layer, n: float(-(layer - n) + 1)),
    ("post_ln_init_divisor", counted),
    ("post_ln_init_divisor", lambda layer, n: Fraction(n + 1) - layer),
    ("learning_rate", rate),
    ("learning_rate", interpolated),
    ("learning_rate", rising(lambda t, p, w, i: p * t / w + i * (1 - t / w))),
    ("learning_rate", lambda t, p, w, initial=1e-7: torch.tensor(rate(t, p, w, initial))),
    ("learning_rate", lambda t, p, w, i=1e-7: np.linspace(i, p, w + 1)[t] if t <= w else p * np.sqrt(w) / np.sqrt(t)),
    (
        "learning_rate",
        lambda t, p, w, i=1e-7: [lambda: i + (p - i) * (t / w), lambda: p / (t / w) ** 0.5][bisect([w], t)](),
    ),
    ("learning_rate", after(lambda t, peak, w: peak / sqrt(1 + (t - w) / w))),
    ("learning_rate", lambda t, p, w, i=1e-7: Decimal(rate(t, p, w, i))),
    ("model_update", update()),
    ("model_update", by_copy),
    ("model_update", by_parameters),
    ("model_update", by_vector),
    ("model_update", with_inference_mode),
    ("model_update", by_one_vector),
    ("model_update", update(lambda z, y: torch.dist(z, y))),
    ("model_update", update(lambda z, y: sqrt(((z - y) ** 2).sum()))),
    ("model_update", update(lambda z, y: torch.linalg.norm(z.float() - y.float()).item())),
    ("counterexamples", by_sets),
    ("counterexamples", by_loop),
    ("counterexamples", by_filter),
    ("counterexamples", by_values(lambda i, a, b: a != b and (b if i else a))),
    ("update_factor", in_two_steps),
    ("update_factor", lambda a, g, r, o: r * (g / a) ** (2 if o == "sgd" else 1)),
    ("update_factor", lambda a, g, r, o: torch.tensor(r * g * (g / a if o == "sgd" else 1) / a)),
    ("update_factor", lambda a, g, r, o: np.exp(np.log(r) + (1 + (o == "sgd")) * (np.log(g) - np.log(a)))),
    ("warmup_distance", lambda n, peak, w: sum(rate(t, peak, w) for t in range(n))),
    ("warmup_distance", lambda n, peak, w: np.sum([interpolated(t, peak, w) for t in np.arange(n)])),
    ("warmup_distance", in_order),
    ("warmup_distance", lambda n, peak, w: torch.tensor([rate(t, peak, w) for t in range(n)]).sum()),
    (
        "warmup_distance",
        lambda n, p, w: (
            1e-7 * min(n, w)
            + (p - 1e-7) * min(n, w) * (min(n, w) - 1) / 2 / w
            + p * sum(sqrt(w / t) for t in range(w, n))
        ),
    ),
    ("warmup_distance", lambda n, peak, w: np.cumsum([rate(t, peak, w) for t in range(n)])[-1]),
    ("warmup_distance", lambda steps, peak, warmup: sum(map(partial(rate, peak=peak, warmup=warmup), range(steps)))),
]

WRONG = [
    ("post_ln_init_divisor", lambda layer, n: -7, "The top layer is left as it is"),
    ("post_ln_init_divisor", lambda layer, n: layer, "That shrinks the top"),
    ("post_ln_init_divisor", lambda layer, n: sqrt(layer), "That is DS-Init"),
    ("post_ln_init_divisor", lambda layer, n: n - layer, "its divisor is 1, not 0"),
    ("post_ln_init_divisor", lambda layer, n: max(1, n - layer), "the layer itself is counted"),
    ("post_ln_init_divisor", lambda layer, n: n - layer + 2, "One too large"),
    ("post_ln_init_divisor", lambda layer, n: sqrt(n - layer + 1), "not their variance"),
    ("post_ln_init_divisor", lambda layer, n: (n - layer + 1) ** 2, "divides the variance"),
    ("post_ln_init_divisor", lambda layer, n: 1 / (n - layer + 1), "not the factor"),
    ("post_ln_init_divisor", lambda layer, n: 2 ** (n - layer), "doubles from layer to layer"),
    ("post_ln_init_divisor", lambda layer, n: n, "its own divisor"),
    ("post_ln_init_divisor", lambda layer, n: n + layer - 1, "yours grows"),
    ("post_ln_init_divisor", lambda layer, n: min(n - layer + 1, 18), "For these arguments"),
    ("post_ln_init_divisor", lambda layer, n: n - layer + 1 if layer > 1 else n + 1, "For these arguments"),
    ("post_ln_init_divisor", lambda layer, n: n / layer, "divided by 2"),
    ("post_ln_init_divisor", lambda layer, n: str(n - layer + 1), "one number"),
    ("post_ln_init_divisor", lambda layer, n: [n - layer + 1], "one number"),
    ("learning_rate", lambda t, p, w, i=1e-7: -7, "At step 0"),
    ("learning_rate", after(lambda t, peak, w: peak / sqrt(t)), "At the seam"),
    ("learning_rate", after(lambda t, peak, w: peak * w / t), "falls with the step itself"),
    ("learning_rate", after(lambda t, peak, w: peak * (w / t) ** 2), "falls with its square"),
    ("learning_rate", after(lambda t, peak, w: peak * sqrt(t / w)), "yours rises"),
    ("learning_rate", after(lambda t, peak, w: peak), "After warm-up the rate falls"),
    ("learning_rate", after(lambda t, peak, w: peak / sqrt(t - w)), "The count of steps continues"),
    ("learning_rate", after(lambda t, peak, w: peak * sqrt(w / (t - w))), "The count of steps continues"),
    ("learning_rate", after(lambda t, peak, w: peak / sqrt(t - w + 1)), "The count of steps continues"),
    ("learning_rate", after(lambda t, peak, w: peak * sqrt(w / (t + 1))), "one ahead"),
    ("learning_rate", after(lambda t, peak, w: 0.0), "half of the peak is left"),
    ("learning_rate", lambda t, p, w, i=1e-7: p * min(t / w, sqrt(w / max(t, 1))), "not at 0"),
    ("learning_rate", lambda t, p, w, i=1e-7: p * sqrt(w / max(t, w)), "in a straight line"),
    ("learning_rate", lambda t, p, w, i=1e-7: p * sqrt(w / max(t, 1)), "That is for after warm-up"),
    ("learning_rate", lambda t, p, w, i=1e-7: i + (p - i) * t / w, "Warm-up ends"),
    ("learning_rate", lambda t, p, w, i=0.01: rate(t, p, w, i), "Without a fourth argument"),
    ("learning_rate", lambda t, p, w, i=0.0: rate(t, p, w, i), "Without a fourth argument"),
    ("learning_rate", lambda t, p, w, i=1e-7: rate(t, p, w, i or 1e-7), "For these arguments"),
    ("learning_rate", rising(lambda t, p, w, i: i + p * t / w), "not peak + initial"),
    ("learning_rate", rising(lambda t, p, w, i: i + (p - i) * (t + 1) / w), "one step ahead"),
    ("learning_rate", rising(lambda t, p, w, i: p * (t + 1) / w), "one step ahead"),
    ("learning_rate", rising(lambda t, p, w, i: i + (p - i) * t / max(w - 1, 1)), "a step early"),
    ("learning_rate", rising(lambda t, p, w, i: i + (p - i) * t / (w + 1)), "a step late"),
    ("learning_rate", rising(lambda t, p, w, i: i), "yours stays"),
    ("learning_rate", rising(lambda t, p, w, i: p + (i - p) * t / w), "yours falls"),
    ("learning_rate", rising(lambda t, p, w, i: i * (p / (i or 1)) ** (t / w)), "a constant factor"),
    ("learning_rate", rising(lambda t, p, w, i: i + (p - i) * (t // w)), "yours stays"),
    ("learning_rate", lambda t, p, w, i=1e-7: rate(t, p, w, i) if t != w else p - i, "At step warmup"),
    ("learning_rate", lambda t, p, w, i=1e-7: rate(min(t, 4 * w), p, w, i), "For these arguments"),
    ("learning_rate", lambda t, p, w, i=1e-7: max(rate(t, p, w, i), i), "For these arguments"),
    ("learning_rate", lambda t, p, w, i=1e-7: np.array([rate(t, p, w, i)]), "one number"),
    ("learning_rate", lambda t, p, w, i=1e-7: round(rate(t, p, w, i), 5), "rounded"),
    ("learning_rate", lambda step, peak, warmup: rate(step, peak, warmup), "takes other arguments"),
    ("model_update", update(clone=False), "state_dict() holds references"),
    ("model_update", update(restore=False), "the step is still in it"),
    ("model_update", update(evaluate=False), "must give 0"),
    ("model_update", update(mode=False), "in another mode"),
    ("model_update", update(also=lambda model: model.train()), "in another mode"),
    ("model_update", update(also=lambda model: model.eval()), "in another mode"),
    ("model_update", update(around=torch.no_grad), "The step takes gradients"),
    ("model_update", update(also=frozen(False)), "leave requires_grad"),
    ("model_update", update(also=frozen(True)), "leave requires_grad"),
    ("model_update", torch.no_grad()(update(around=contextlib.nullcontext)), "The step takes gradients"),
    ("model_update", swallows, "The step takes gradients"),
    ("model_update", replaced, "an optimizer would lose them"),
    ("model_update", assigned, "an optimizer would lose them"),
    ("model_update", no_dropout_for_good, "other settings"),
    ("model_update", partial(mode_of_the_first, []), "in another mode"),
    ("model_update", update(also=lambda model: torch.set_grad_enabled(False)), "switched off"),
    ("model_update", in_double, "another data type"),
    ("model_update", update(also=with_gradients), "came back with gradients"),
    ("model_update", update(also=lambda model: model.register_forward_hook(print)), "A hook is still on"),
    ("model_update", update(lambda z, y: (z + y).norm().item()), "the change of the output"),
    ("model_update", update(steps=2), "Take the step once"),
    ("model_update", update(steps=0), "Take the step once"),
    ("model_update", update(late=True), "compute it before the step"),
    ("model_update", parameters_moved, "how far the parameters moved"),
    ("model_update", update(lambda z, y: (z - y).square().mean().sqrt().item()), "root of the mean square"),
    ("model_update", update(lambda z, y: (z - y).square().mean().item()), "That is the mean square"),
    ("model_update", update(lambda z, y: (z - y).square().sum().item()), "square of the norm"),
    ("model_update", update(lambda z, y: abs(z.norm() - y.norm()).item()), "difference of norms"),
    ("model_update", update(lambda z, y: (z - y).abs().max().item()), "largest change"),
    ("model_update", update(lambda z, y: (z - y).abs().sum().item()), "the 2-norm is asked for"),
    ("model_update", update(lambda z, y: (z - y).sum().abs().item()), "must not cancel"),
    ("model_update", update(lambda z, y: z.norm().item() * (not torch.equal(z, y))), "after the step"),
    ("model_update", update(lambda z, y: ((z - y).norm() / y.norm()).item()), "relative to the output"),
    ("model_update", update(lambda z, y: (z - y).norm(dim=-1).mean().item()), "a mean over tokens"),
    ("model_update", update(lambda z, y: 1 - torch.cosine_similarity(z.flatten(), y.flatten(), 0)), "directions alone"),
    ("model_update", update(lambda z, y: torch.linalg.norm(z - y, 2).item()), "flatten it first"),
    ("model_update", update(lambda z, y: (z - y).norm(dim=-1)), "one number"),
    ("model_update", update(lambda z, y: round((z - y).norm().item(), 3)), "rounded"),
    ("counterexamples", lambda arms, c, e: by_loop(arms, e, c), "The lists are exchanged"),
    ("counterexamples", by_values(lambda i, a, b: not a and not b if i else a and b), "agree with the sentence"),
    ("counterexamples", by_values(lambda i, a, b: a and b), "Those have both"),
    ("counterexamples", by_values(lambda i, a, b: a != b), "Both lists hold all arms"),
    ("counterexamples", by_values(lambda i, a, b: not (a if i else b)), "ask for the other half"),
    ("counterexamples", by_values(lambda i, a, b: b if i else a), "with cause and effect agrees"),
    ("counterexamples", by_values(lambda i, a, b: not a and not b if i else a and not b), "but without the cause"),
    ("counterexamples", by_values(lambda i, a, b: not i and a and not b), "The second list stays empty"),
    ("counterexamples", by_values(lambda i, a, b: i and b and not a), "The first list stays empty"),
    ("counterexamples", lambda *given: tuple(one[::-1] for one in by_loop(*given)), "their order is wrong"),
    ("counterexamples", lambda *given: tuple(one[:1] for one in by_loop(*given)), "the lists are others"),
    ("counterexamples", lambda *given: by_loop(*given)[0], "two lists of names"),
    ("counterexamples", lambda *given: tuple(map(len, by_loop(*given))), "two lists of names"),
    ("counterexamples", lambda *given: tuple(map(set, by_loop(*given))), "two lists of names"),
    ("counterexamples", lambda a, c, e: ([v for v in a.values() if c(v)], []), "not their values"),
    ("counterexamples", partial(growing, [[], []]), "another answer the second time"),
    ("update_factor", lambda a, g, r, o: -7, "the factor is 1"),
    ("update_factor", lambda a, g, r, o: r * g / a, "it comes in twice"),
    ("update_factor", lambda a, g, r, o: r * (g / a) ** 2, "the slope comes in once"),
    ("update_factor", lambda a, g, r, o: r * (g / a) ** (1 if o == "sgd" else 2), "it comes in twice"),
    ("update_factor", lambda a, g, r, o: r * (g * a) ** (2 if o == "sgd" else 1), "A larger α makes the sum smaller"),
    ("update_factor", lambda a, g, r, o: in_two_steps(a, g, r, o) * sqrt(2), "was in the sum before"),
    ("update_factor", lambda a, g, r, o: in_two_steps(a, g, 1, o), "a factor of every step"),
    ("update_factor", lambda a, g, r, o: in_two_steps(a, g, r**2, o), "in the step alone"),
    ("update_factor", lambda a, g, r, o: 1 / in_two_steps(a, g, r, o), "turn it over"),
    ("update_factor", lambda a, g, r, o: in_two_steps(a, 1, r, o), "a gain on the root"),
    ("update_factor", lambda a, g, r, o: [in_two_steps(a, g, r, o)], "one number"),
    ("update_factor", lambda a, g, r, o: round(in_two_steps(a, g, r, o), 3), "rounded"),
    ("update_factor", lambda a, g, r, o: in_two_steps(max(a, 1), g, r, o), "For these arguments"),
    ("warmup_distance", lambda n, p, w: -7, "In no step"),
    ("warmup_distance", lambda n, p, w: in_order(max(n, 1), p, w), "In no step"),
    ("warmup_distance", lambda n, p, w: n * p, "without warm-up"),
    ("warmup_distance", total(rate, first=1, last=1), "Steps count from 0"),
    ("warmup_distance", total(rate, last=1), "one step too many"),
    ("warmup_distance", total(rate, last=-1), "one step too few"),
    ("warmup_distance", total(lambda t, p, w: rate(t, p, w, 0.0)), "starts at 0"),
    ("warmup_distance", total(lambda t, p, w: p * t / w if t < w else rate(t, p, w)), "starts at 0"),
    ("warmup_distance", total(lambda t, p, w: rate(min(t, w), p, w)), "stays at the peak"),
    ("warmup_distance", total(lambda t, p, w: 1e-7 + (p - 1e-7) * t / w), "Warm-up ends"),
    ("warmup_distance", lambda n, p, w: rate(n, p, w), "That is one rate"),
    ("warmup_distance", lambda n, p, w: rate(n - 1, p, w), "That is the last rate"),
    ("warmup_distance", lambda n, p, w: p * n * n / (2 * w), "A triangle is close"),
    ("warmup_distance", lambda n, p, w: sum(rate(t, p, w) for t in range(n)) / max(n, 1), "mean rate"),
    ("warmup_distance", lambda n, p, w: hypot(*(rate(t, p, w) for t in range(n))), "random directions"),
    ("warmup_distance", lambda n, p, w: sum(rate(t, p, w) for t in range(min(n, 30))), "For these arguments"),
    ("warmup_distance", lambda n, p, w: [rate(t, p, w) for t in range(n)], "one number"),
    ("warmup_distance", lambda n, p, w: round(in_order(n, p, w), 8) if n > 1 else n * 1e-7, "rounded"),
    ("learning_rate", remembers(rate, lambda t, p, w, i=1e-7: (t, w)), "For these arguments"),
]  # fmt: skip
