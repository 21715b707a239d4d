"""Lesson 09: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import copy
from collections.abc import Callable
from itertools import pairwise
from math import ceil, floor, log, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def tensor(g: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(g.normal(0.5, 1, shape))


def ln(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:])


def see_alpha(f: Callable, g: np.random.Generator) -> Any:
    torch.default_generator.manual_seed(int(g.integers(1000)))  # quicker than torch.manual_seed, and asked often
    a, b = g.uniform(0.3, 3, 2)
    return f(lambda x, fx: ln(a * x + b * fx), 6)


def see_join(f: Callable, g: np.random.Generator) -> Any:
    w, norm = tensor(g, 6, 6), nn.LayerNorm(6).double()
    norm.weight.data, norm.bias.data = tensor(g, 6), tensor(g, 6)
    return f(tensor(g, 2, 3, 6), lambda x: torch.tanh(x @ w), norm, g.uniform(0.5, 4)).detach()


class Light:
    """A layer, as far as a detector asks; modules take longer to make."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors

    def parameters(self) -> list[Tensor]:
        return self.tensors


def see_independent(f: Callable, g: np.random.Generator) -> Any:
    return f([Light([torch.full((2,) * rank, float(g.integers(4))) for rank in (2, 1)]) for _ in range(3)])


def see_copies(f: Callable, g: np.random.Generator) -> Any:
    torch.manual_seed(int(g.integers(1000)))
    layers = f(nn.Linear(2, 2), int(g.integers(1, 4)), lambda layer: layer.reset_parameters())
    return torch.cat([p.detach().flatten() for p in layers.parameters()])


def scaling_(weight: Tensor, scale: float) -> Tensor:
    return weight.data.normal_(0, sqrt(scale * 2 / sum(weight.shape)))


def see_draw(f: Callable, g: np.random.Generator) -> Any:
    torch.manual_seed(int(g.integers(1000)))
    weight = nn.Parameter(torch.zeros(6, 4))
    f(weight, g.uniform(0.1, 2), scaling_)
    return weight.detach()


def see_settings(f: Callable, g: np.random.Generator) -> Any:
    flags = {name: bool(g.integers(2)) for name in ("deepnorm", "norm_first", "sub_ln")}
    return list(f(int(g.integers(1, 50)), **flags).values())


OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "effective_alpha": see_alpha,
    "join": see_join,
    "layers_are_independent": see_independent,
    "fresh_copies": see_copies,
    "beta_of_depth": lambda f, g: f(int(g.integers(1, 1000))),
    "xavier_gain": lambda f, g: f(tensor(g, 3, 7)),
    "draw_with_gain_": see_draw,
    "decoder_settings": see_settings,
    "slice_gains": lambda f, g: f(tensor(g, 12, 4)),
    "overflow_depth": lambda f, g: f(g.uniform(1.1, 4), g.uniform(2, 1e9)),
}


# --- effective_alpha


def ask(combine, d, mean=0.0, dtype=torch.float64):
    x, fx = torch.randn(2, 32, d, dtype=dtype) + mean
    return x, fx, combine(x, fx)


def centred(x):
    return x - x.mean(-1, keepdim=True)


def by_numpy(combine, d=16):
    """One token after another, in single precision."""
    x, fx, out = (t.numpy() for t in ask(combine, d, dtype=torch.float32))
    ratios = []
    for one in zip(x, fx, out, strict=True):
        x1, f1, o1 = (v - v.mean() for v in one)
        a, b = np.linalg.lstsq(np.stack([x1, f1], 1), o1, rcond=None)[0]
        ratios.append(a / b)
    return np.mean(ratios)


def with_a_constant(combine, d=16):
    """The mean as a third column, one token."""
    x, fx = torch.randn(2, d, dtype=torch.float64) + 0.5
    columns = torch.stack([x, fx, torch.ones_like(x)], dim=1)
    a, b, _ = torch.linalg.lstsq(columns, combine(x, fx)[:, None]).solution.flatten()
    return a / b


def by_angles(combine, d=16):
    """F made to stand at right angles to x: then two projections do."""
    x, fx = (centred(t) for t in torch.randn(2, 2, 3, d, dtype=torch.float64))
    fx = fx - (fx * x).sum(-1, keepdim=True) / (x * x).sum(-1, keepdim=True) * x
    out = combine(x, fx)
    return (((out * x).sum(-1) / (x * x).sum(-1)) / ((out * fx).sum(-1) / (fx * fx).sum(-1))).mean()


def projections(combine, d=16):
    x, fx, out = ask(combine, d)
    return (((out * x).sum(-1) / (x * x).sum(-1)) / ((out * fx).sum(-1) / (fx * fx).sum(-1))).mean()


def solved(x, fx, out):
    return torch.linalg.lstsq(torch.stack([x, fx], -1), out.unsqueeze(-1)).solution.squeeze(-1).unbind(-1)


def fitted(work: Callable) -> Callable:
    def answer(combine, d=16):
        x, fx, out = ask(combine, d)
        return work(*solved(centred(x), centred(fx), out)).item()

    return answer


def not_centred(combine, d=16):
    a, b = solved(*ask(combine, d, mean=0.7))
    return (a / b).mean()


def one_fit(combine, d=16):
    x, fx, out = ask(combine, d)
    a, b = solved(centred(x).flatten(), centred(fx).flatten(), out.flatten())
    return a / b


def no_branch(combine, d=16):
    x = torch.randn(8, d, dtype=torch.float64)
    return (combine(x, torch.zeros_like(x)) / x).mean()


def along_x(combine, d=16):
    x = torch.randn(8, d, dtype=torch.float64)
    return (combine(x, 0.5 * x) / x).mean()


def never_asks(combine, d=16):
    return 2.2


def other_width(combine, d=16):
    return fitted(lambda a, b: (a / b).mean())(combine, 16)


# --- layers


def hashes(layers):
    seen = set()
    count = 0
    for layer in layers:
        for name, p in layer.named_parameters():
            if p.ndim > 1:
                seen.add((name, p.detach().numpy().tobytes()))
                count += 1
    return len(seen) == count


def matrices(layer):
    return [p for p in layer.parameters() if p.ndim == 2]


def same(a, b):
    return any(torch.equal(p, q) for p, q in zip(matrices(a), matrices(b), strict=True))


def all_pairs(layers):
    layers = list(layers)
    return not any(same(layers[i], layers[j]) for i in range(len(layers)) for j in range(i))


def everything_differs(layers):
    sets = [list(layer.parameters()) for layer in layers]
    return not any(
        torch.equal(p, q) for i in range(len(sets)) for j in range(i) for p, q in zip(sets[i], sets[j], strict=True)
    )


def any_tensor_differs(layers):
    whole = [tuple(torch.cat([p.flatten() for p in layer.parameters()]).tolist()) for layer in layers]
    return len(set(whole)) == len(whole)


def whole_layers_differ(layers):
    whole = [tuple(torch.cat([p.flatten() for p in matrices(layer)]).tolist()) for layer in layers]
    return len(set(whole)) == len(whole)


def neighbours(layers):
    return not any(same(a, b) for a, b in pairwise(layers))


def first_and_last(layers):
    return len(layers) < 2 or not same(layers[0], layers[-1])


def copies(before: bool = False, after: bool = True, wrap: Callable = nn.ModuleList) -> Callable:
    def answer(layer, n, draw_):
        if before:
            draw_(layer)
        made = [copy.deepcopy(layer) for _ in range(n)]
        for one in made if after else ():
            draw_(one)
        return wrap(made)

    return answer


def by_loop(layer, n, draw_):
    layers = nn.ModuleList()
    while len(layers) < n:
        layers.append(copy.deepcopy(layer))
        draw_(layers[-1])
    return layers


def first_as_it_is(layer, n, draw_):
    layers = copies(after=False)(layer, n, draw_)
    for one in layers[1:]:
        draw_(one)
    return layers


def drawing_the_original(layer, n, draw_):
    layers = nn.ModuleList()
    for _ in range(n):
        draw_(layer)
        layers.append(copy.deepcopy(layer))
    return layers


def appended_itself(layer, n, draw_):
    layers = nn.ModuleList()
    for _ in range(n):
        draw_(layer)
        layers.append(layer)
    return layers


def first_copy_only(layer, n, draw_):
    layers = copies(after=False)(layer, n, draw_)
    for _ in layers:
        draw_(layers[0])
    return layers


def newly_made(layer, n, draw_):
    layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4), nn.LayerNorm(4)).double() for _ in range(n))
    for one in layers:
        draw_(one)
    return layers


# --- settings


def settings(
    alpha: Callable = lambda layers, on: (2 * layers) ** 0.25 if on else 1.0,
    norm_first: Callable = lambda on, asked: asked and not on,
    sub_ln: Callable = lambda on, asked: asked and not on,
) -> Callable:
    def answer(layers, deepnorm=False, norm_first_=True, sub_ln_=True):
        return {
            "alpha": alpha(layers, deepnorm),
            "norm_first": norm_first(deepnorm, norm_first_),
            "sub_ln": sub_ln(deepnorm, sub_ln_),
        }

    def named(layers, deepnorm=False, norm_first=True, sub_ln=True):
        return answer(layers, deepnorm, norm_first, sub_ln)

    return named


def published(layers, deepnorm=False, norm_first=True, sub_ln=True, **others):
    return settings(norm_first=lambda on, asked: asked, sub_ln=lambda on, asked: asked)(
        layers, deepnorm, norm_first, sub_ln
    )


def swallows(layers, deepnorm=False, norm_first=True, sub_ln=True, **others):
    return settings()(layers, deepnorm, norm_first, sub_ln)


def refuses_by_hand(layers, **asked):
    unknown = asked.keys() - {"deepnorm", "norm_first", "sub_ln"}
    if unknown:
        raise ValueError(f"unknown: {unknown}")
    return settings()(layers, **asked)


def refuses_oddly(layers, deepnorm=False, norm_first=True, sub_ln=True, **others):
    assert not others
    return settings()(layers, deepnorm, norm_first, sub_ln)


def by_branches(layers, deepnorm=False, norm_first=True, sub_ln=True):
    if deepnorm:
        return {"sub_ln": False, "norm_first": False, "alpha": np.sqrt(np.sqrt(2 * layers))}
    return {"sub_ln": sub_ln, "norm_first": norm_first, "alpha": 1}


# --- gains


def rms(w: Tensor) -> float:
    return w.square().mean().sqrt().item()


def mean_fan(w: Tensor) -> float:
    return sum(w.shape) / 2


def drawn(scale: Callable[[float], float]) -> Callable:
    return lambda weight, gain, variance_scaling_: variance_scaling_(weight, scale(gain))


def seeded(weight, gain, variance_scaling_):
    torch.manual_seed(3)
    variance_scaling_(weight, gain**2)


RIGHT = [
    ("effective_alpha", fitted(lambda a, b: (a / b).mean())),
    ("effective_alpha", fitted(lambda a, b: a.mean() / b.mean())),
    ("effective_alpha", fitted(lambda a, b: (a / b).median())),
    ("effective_alpha", by_numpy),
    ("effective_alpha", with_a_constant),
    ("effective_alpha", by_angles),
    ("join", lambda x, f, norm, alpha: norm(x + f(x) / alpha)),
    ("join", lambda x, f, norm, alpha: norm(torch.add(f(x), x, alpha=alpha))),
    ("layers_are_independent", hashes),
    ("layers_are_independent", all_pairs),
    ("fresh_copies", copies()),
    ("fresh_copies", by_loop),
    ("fresh_copies", first_as_it_is),
    ("fresh_copies", copies(wrap=lambda made: nn.Sequential(*made))),
    ("beta_of_depth", lambda N: 1 / (8 * N) ** (1 / 4)),
    ("beta_of_depth", lambda N: np.sqrt(1 / np.sqrt(8 * N))),
    ("xavier_gain", lambda w: w.std() * (sum(w.shape) / 2) ** 0.5),
    ("xavier_gain", lambda w: float(np.std(w.detach().numpy()) / np.sqrt(2 / (w.shape[0] + w.shape[1])))),
    ("draw_with_gain_", drawn(lambda g: g * g)),
    ("draw_with_gain_", lambda w, g, v: nn.init.xavier_normal_(w, gain=g)),
    ("draw_with_gain_", lambda w, g, v: v(w, 1.0).mul_(g) if not w.requires_grad else v(w.data, 1.0).mul_(g)),
    ("decoder_settings", settings()),
    ("decoder_settings", by_branches),
    ("decoder_settings", refuses_by_hand),
    ("slice_gains", lambda w: [rms(part) * sqrt(len(part)) for part in w.detach().split(w.shape[1])]),
    ("slice_gains", lambda w: w.view(3, -1).std(-1) * sqrt(w.shape[1])),
    ("overflow_depth", lambda a, limit: floor(log(limit, a)) + 1),
    ("overflow_depth", lambda a, limit: ceil(np.log(limit) / np.log(a))),
]

WRONG = [
    ("effective_alpha", projections, "Solve for both coefficients together"),
    ("effective_alpha", not_centred, "remove it from x and fx too"),
    ("effective_alpha", one_fit, "fit token by token"),
    ("effective_alpha", no_branch, "there the norm hides α"),
    ("effective_alpha", along_x, "there the norm hides α"),
    ("effective_alpha", never_asks, "Ask the box"),
    ("effective_alpha", lambda combine, d=17: by_numpy(combine, d), "Without a second argument d is 16"),
    ("effective_alpha", other_width, "with d features in the last dimension"),
    ("effective_alpha", fitted(lambda a, b: (b / a).mean()), "Upside down"),
    ("effective_alpha", fitted(lambda a, b: a.mean()), "That is the skip alone"),
    ("effective_alpha", fitted(lambda a, b: (a / b).mean() ** 2), "Fit what came out"),
    ("effective_alpha", lambda combine, d: fitted(lambda a, b: (a / b).mean())(combine, d), "raised TypeError"),
    ("join", lambda x, f, norm, a: norm(x + a * f(x)), "as it was published: its effective α is 0.40"),
    ("join", lambda x, f, norm, a: norm(a * (x + f(x))), "this is Post-LN"),
    ("join", lambda x, f, norm, a: norm(x + f(x)), "this is Post-LN"),
    ("join", lambda x, f, norm, a: norm(f(x)), "The skip is missing"),
    ("join", lambda x, f, norm, a: norm(a * x + f(a * x)), "not what the branch reads"),
    ("join", lambda x, f, norm, a: norm(a * a * x + f(x)), "Too far: effective α is α²"),
    ("join", lambda x, f, norm, a: norm(x + f(x) / a**2), "Too far: effective α is α²"),
    ("join", lambda x, f, norm, a: norm(x / a + f(x)), "as it was published"),
    ("join", lambda x, f, norm, a: norm(a * x + a * a * f(x)), "as it was published"),
    ("join", lambda x, f, norm, a: norm(a * x + f(x) / a), "Too far: effective α is α²"),
    ("join", lambda x, f, norm, a: a * x + f(x), "The norm on the sum is lost"),
    ("join", lambda x, f, norm, a: a * x + f(norm(x)), "see room 5"),
    ("join", lambda x, f, norm, a: norm(a * x + f(x) + 0 * f(x)), "Call the branch once"),
    ("layers_are_independent", lambda layers: len({id(one) for one in layers}) == len(layers), "equal values"),
    ("layers_are_independent", neighbours, "Layers A, B, A, B"),
    ("layers_are_independent", everything_differs, "Zero biases and unit gains are equal"),
    ("layers_are_independent", any_tensor_differs, "whose biases and norms have moved apart"),
    ("layers_are_independent", whole_layers_differ, "Only one of the two matrices"),
    ("layers_are_independent", first_and_last, "Every pair counts"),
    ("layers_are_independent", lambda layers: True, "Copies are different objects"),
    ("layers_are_independent", lambda layers: not all_pairs(layers), "False alarm"),
    ("layers_are_independent", lambda layers: 1, "True or False"),
    ("fresh_copies", copies(after=False), "as it was published"),
    ("fresh_copies", lambda layer, n, draw_: nn.ModuleList([layer] * n), "One layer several times"),
    ("fresh_copies", copies(before=True, after=False), "first copy, then draw_ each"),
    ("fresh_copies", copies(wrap=list), "not registered"),
    ("fresh_copies", drawing_the_original, "it is the caller's"),
    ("fresh_copies", appended_itself, "One layer several times"),
    ("fresh_copies", first_copy_only, "there are equal layers"),
    ("fresh_copies", newly_made, "What draw_ leaves alone"),
    ("fresh_copies", lambda layer, n, draw_: copies()(layer, n + 1, draw_), "Another number of layers"),
    ("fresh_copies", lambda layer, n, draw_: copies()(layer, 5, draw_), "Another number of layers"),
    ("beta_of_depth", lambda N: (8 * N) ** -1 / 4, "as it was published"),
    ("beta_of_depth", lambda N: 8 * N**-0.25, "Now 8 stays outside of the power: 4.30"),
    ("beta_of_depth", lambda N: (8 * N) ** -(1 // 4), "to the power of 0 is 1"),
    ("beta_of_depth", lambda N: (8 * N) ** (-1 // 4), "rounds down"),
    ("beta_of_depth", lambda N: (8 * N) ** 0.25, "The sign is gone"),
    ("beta_of_depth", lambda N: (2 * N) ** -0.25, "Two matrices share the budget"),
    ("beta_of_depth", lambda N: (2 * N) ** 0.25, "That is α"),
    ("beta_of_depth", lambda N: 0.25, "at 32 layers alone"),
    ("beta_of_depth", lambda N: 0.3194715, "β is the fourth root of 1/(8N)"),
    ("xavier_gain", lambda w: rms(w) * sqrt(w.shape[1]), "Xavier uses both fans. With fan_in alone a 24 → 40"),
    ("xavier_gain", lambda w: rms(w) * sqrt(w.shape[0]), "their mean"),
    ("xavier_gain", lambda w: w.abs().max().item() * sqrt(mean_fan(w) / 3), "as if uniform"),
    ("xavier_gain", lambda w: rms(w) * sqrt(2 * mean_fan(w)), "not their sum"),
    ("xavier_gain", lambda w: rms(w) ** 2 * mean_fan(w), "the gain squared"),
    ("xavier_gain", lambda w: rms(w) * mean_fan(w), "The root of the mean fan"),
    ("xavier_gain", lambda w: rms(w) / sqrt(mean_fan(w)), "Upside down"),
    ("xavier_gain", lambda w: w.abs().mean().item() * sqrt(mean_fan(w)), "not the root mean square"),
    ("xavier_gain", lambda w: w.std().item(), "That is the standard deviation"),
    ("draw_with_gain_", drawn(lambda g: g), "as it was published: asked 0.334, measured √0.334 = 0.578"),
    ("draw_with_gain_", drawn(sqrt), "The other way"),
    ("draw_with_gain_", drawn(lambda g: g**4), "Squared once too often"),
    ("draw_with_gain_", drawn(lambda g: 2 * g), "not its double"),
    ("draw_with_gain_", drawn(lambda g: 1.0), "The gain did not arrive"),
    ("draw_with_gain_", drawn(lambda g: g**-2), "Upside down"),
    ("draw_with_gain_", lambda w, g, v: w.data.normal_(0, g), "That is the standard deviation itself"),
    ("draw_with_gain_", lambda w, g, v: v(torch.empty(w.shape), g * g), "fill the weight that you were given"),
    ("draw_with_gain_", seeded, "all layers would be clones"),
    ("decoder_settings", published, "as it was published: with deepnorm=True the stack stays Pre-LN, and at 24"),
    ("decoder_settings", settings(sub_ln=lambda on, asked: asked), "undoes what β is for"),
    ("decoder_settings", swallows, "deep_norm=True was accepted in silence"),
    ("decoder_settings", refuses_oddly, "not AssertionError"),
    ("decoder_settings", settings(norm_first=lambda on, asked: False), "are the caller's, as they were"),
    ("decoder_settings", settings(sub_ln=lambda on, asked: not on), "are the caller's, as they were"),
    ("decoder_settings", settings(alpha=lambda layers, on: (2 * layers) ** 0.25), "without deepnorm there is no α"),
    ("decoder_settings", settings(alpha=lambda layers, on: 2.828 if on else 1.0), "α is (2·layers)^(1/4)"),
    ("decoder_settings", lambda *a, **k: tuple(settings()(*a, **k).values()), "The answer is a dictionary"),
    ("slice_gains", lambda w: [rms(p) * sqrt(2 * w.shape[1]) for p in w.chunk(3)], "fan_out of a slice is d"),
    ("slice_gains", lambda w: [rms(w) * sqrt(mean_fan(w))] * 3, "One gain for the whole matrix"),
    ("slice_gains", lambda w: [rms(p) * sqrt(mean_fan(p)) for p in w.chunk(3)][::-1], "The order is"),
    ("slice_gains", lambda w: [rms(p) * sqrt(mean_fan(p)) for p in w.chunk(3, dim=1)], "The slices are rows"),
    ("slice_gains", lambda w: [rms(w[i::3]) * sqrt(w.shape[1]) for i in range(3)], "not every third row"),
    ("slice_gains", lambda w: rms(w), "The answer is an array"),
    ("overflow_depth", lambda a, limit: floor(log(limit, a)), "One short"),
    ("overflow_depth", lambda a, limit: floor(log(limit, a)) + 2, "One too many"),
    ("overflow_depth", lambda a, limit: log(limit, a), "Sub-layers are whole"),
    ("overflow_depth", lambda a, limit: ceil(log(limit, a * a)), "count the stream"),
    ("overflow_depth", lambda a, limit: limit / a, "The growth is a power"),
]
