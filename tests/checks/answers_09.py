"""Lesson 09: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import copy
from collections.abc import Callable
from fractions import Fraction
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
    return round(float(f(lambda x, fx: ln(a * x + b * fx), 6)), 2)  # float32 will do


def see_bounded(f: Callable, g: np.random.Generator) -> Any:
    """A norm on the sum, a sum, and a norm on one of the two."""
    torch.default_generator.manual_seed(int(g.integers(1000)))
    a, b = g.uniform(0.3, 3, 2)
    boxes = [
        lambda x, fx: ln(a * x + b * fx),
        lambda x, fx: a * x + b * fx,
        lambda x, fx: ln(a * x) + b * fx,
        lambda x, fx: a * x + ln(b * fx),
    ]
    return f(boxes[g.integers(4)], 6)


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
    layers = f(nn.Linear(2, 2), int(g.integers(0, 4)), lambda layer: layer.reset_parameters())
    return torch.cat([torch.zeros(1), *(p.detach().flatten() for p in layers.parameters())])


def see_settings(f: Callable, g: np.random.Generator) -> Any:
    flags = {name: bool(g.integers(2)) for name in ("deepnorm", "norm_first", "sub_ln")}
    return list(f(int(g.integers(1, 50)), **flags).values())


def see_depth(f: Callable, g: np.random.Generator) -> Any:
    alpha = int(g.integers(2, 11))
    return [f(g.uniform(1.1, 4), g.uniform(1.1, 1e9)), f(alpha, alpha ** int(g.integers(1, 9)))]


OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "effective_alpha": see_alpha,
    "layers_are_independent": see_independent,
    "fresh_copies": see_copies,
    "depths_of": lambda f, g: list(f(g.uniform(1, 7), g.uniform(0.1, 4))),
    "stream_is_bounded": see_bounded,
    "xavier_gain": lambda f, g: f(tensor(g, 3, 7)),
    "decoder_settings": see_settings,
    "slice_gains": lambda f, g: f(tensor(g, 12, 4)),
    "overflow_depth": see_depth,
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
    """F made orthogonal to x: then two projections do."""
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


def two_features(combine, d=16):
    """Differences of features, from which any mean has gone."""
    x, fx, out = ask(combine, d)
    x, fx, out = (t[0, 1:] - t[0, :-1] for t in (x, fx, out))
    return (
        np.linalg.lstsq(np.stack([x, fx], 1), out.numpy(), rcond=None)[0]
        @ [1, 0]
        / (np.linalg.lstsq(np.stack([x, fx], 1), out.numpy(), rcond=None)[0] @ [0, 1])
    )


def exactly(combine, d=16):
    """Two equations of one token, out as it comes: right where a norm has taken the mean off."""
    x, fx, out = ask(combine, d)
    sides = torch.stack([centred(x)[0, :2], centred(fx)[0, :2]], -1)
    a, b = torch.linalg.solve(sides, out[0, :2])
    return (a / b).item()


def token_by_token(combine, d=16):
    """One call for each token."""
    ratios = []
    for _ in range(5):
        x, fx = torch.randn(2, d, dtype=torch.float64)
        a, b = np.linalg.lstsq(np.stack([centred(x), centred(fx)], 1), combine(x, fx).numpy(), rcond=None)[0]
        ratios.append(a / b)
    return sum(ratios) / 5


def by_cramer(combine, d=16):
    """The normal equations by hand."""
    x, fx, out = (centred(t) for t in ask(combine, d, mean=3.0))
    xx, ff, xf, xo, fo = (torch.einsum("td,td->t", a, b) for a, b in ((x, x), (fx, fx), (x, fx), (x, out), (fx, out)))
    return ((ff * xo - xf * fo) / (xx * fo - xf * xo)).mean().item()


def one_at_a_time(combine, d=16):
    """The skip from (x, 0), the branch from (0, F): a norm hides both."""
    x, fx = torch.randn(2, 8, d, dtype=torch.float64)
    zero = torch.zeros_like(x)
    return (combine(x, zero).norm() / combine(zero, fx).norm()).item()


def remembered(combine, d=16, seen={}):  # noqa: B006
    if d not in seen:
        seen[d] = fitted(lambda a, b: (a / b).mean())(combine, d)
    return seen[d]


# --- bounded


def sizes(combine, d, factor_x, factor_f, dtype=torch.float64):
    x, fx = torch.randn(2, 8, d, dtype=dtype)
    return combine(x, fx).norm().item(), combine(factor_x * x, factor_f * fx).norm().item()


def bounded(*factors: float, most: float = 10.0, dtype: torch.dtype = torch.float64) -> Callable:
    def answer(combine, d=16):
        small, large = sizes(combine, d, *factors, dtype=dtype)
        return large < most * small

    return answer


def by_closeness(combine, d=16):
    x, fx = torch.randn(2, 4, d, dtype=torch.float64)
    return torch.allclose(combine(x, fx), combine(3e5 * x, 3e5 * fx), rtol=1e-3, atol=1e-3)


def by_growth(combine, d=16):
    """The slope of the size in the input's."""
    x, fx = torch.randn(2, 4, d, dtype=torch.float64)
    sizes = [combine(c * x, c * fx).abs().max().log10().item() for c in (1e2, 1e4, 1e6)]
    return sizes[2] - sizes[0] < 0.5


def exactly_equal(combine, d=16):
    x, fx = torch.randn(2, 4, d, dtype=torch.float64)
    return torch.equal(combine(x, fx), combine(1000 * x, 1000 * fx))


def of_size_one(combine, d=16):
    x, fx = torch.randn(2, 4, d, dtype=torch.float64)
    return abs(combine(x, fx).square().mean().sqrt().item() - 1) < 0.1


def of_mean_zero(combine, d=16):
    x, fx = torch.randn(2, 4, d, dtype=torch.float64)
    return bool(combine(x, fx).mean(-1).abs().max() < 1e-6)


def at_most_ten(combine, d=16):
    x, fx = 1000 * torch.randn(2, 4, d, dtype=torch.float64)
    return bool(combine(x, fx).abs().max() < 10)


def never_asks_the_box(combine, d=16):
    return True


# --- layers


def by_sum(layers):
    sums = [p.sum().item() for layer in layers for p in layer.parameters() if p.ndim == 2]
    return len(set(sums)) == len(sums)


def by_first_row(layers):
    rows = [tuple(p[0].tolist()) for layer in layers for p in layer.parameters() if p.ndim == 2]
    return len(set(rows)) == len(rows)


def first_and_others(layers):
    return not any(same(layers[0], other) for other in list(layers)[1:])


def first_matrices(layers):
    firsts = [tuple(matrices(layer)[0].flatten().tolist()) for layer in layers]
    return len(set(firsts)) == len(firsts)


def by_names(layers):
    """Places of the lesson's layers."""
    weights = [tuple(layer.fc1.weight.flatten().tolist()) for layer in layers]
    return len(set(weights)) == len(weights)


def by_children(layers):
    weights = [tuple(m.weight.flatten().tolist()) for layer in layers for m in layer.children() if hasattr(m, "weight")]
    return len(set(weights)) == len(weights)


def sorting(layers):
    """In place, to compare them in any order."""
    for layer in layers:
        for p in matrices(layer):
            p.data = p.data.flatten().sort().values.view(p.shape)
    return all_pairs(layers)


def by_state(layers):
    """By the names in the state, in bytes."""
    seen = [
        (key, value.numpy().tobytes())
        for layer in layers
        for key, value in layer.state_dict().items()
        if value.dim() == 2
    ]
    return len(set(seen)) == len(seen)


def by_distance(layers):
    """Every pair of matrices at one place has a distance."""
    for place in zip(*map(matrices, layers), strict=True):
        flat = torch.stack([p.detach().flatten() for p in place])
        far = torch.cdist(flat, flat) + torch.eye(len(flat))
        if (far == 0).any():
            return False
    return True


def recursive(layers):
    first, *rest = layers
    return not rest or (not any(same(first, other) for other in rest) and recursive(rest))


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


def every_other(layer, n, draw_):
    layers = copies(after=False)(layer, n, draw_)
    for one in layers[::2]:
        draw_(one)
    return layers


def kept_by_number(layer, n, draw_, kept={}):  # noqa: B006
    if n not in kept:
        kept[n] = copies()(layer, n, draw_)
    return kept[n]


def what_draw_returns(layer, n, draw_):
    return nn.ModuleList([draw_(copy.deepcopy(layer)) for _ in range(n)])


def applied(layer, n, draw_):
    return nn.ModuleList([copy.deepcopy(layer) for _ in range(n)]).apply(draw_)


def all_at_once(layer, n, draw_):
    layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(n)])
    draw_(layers)
    return layers


def same_seed(layer, n, draw_):
    layers = copies(after=False)(layer, n, draw_)
    for one in layers:
        torch.manual_seed(0)
        draw_(one)
    return layers


def default_weights(layer, n, draw_):
    layers = copies(after=False)(layer, n, draw_)
    for m in layers.modules():
        if isinstance(m, nn.Linear):
            m.reset_parameters()
    return layers


def xavier_weights(layer, n, draw_):
    layers = copies(after=False)(layer, n, draw_)
    for p in layers.parameters():
        if p.ndim == 2:
            nn.init.xavier_normal_(p)
    return layers


def with_noise(layer, n, draw_):
    layers = copies(after=False)(layer, n, draw_)
    with torch.no_grad():
        for p in layers.parameters():
            p.add_(1e-3 * torch.randn_like(p))
    return layers


def drawn_and_scaled(layer, n, draw_):
    layers = copies()(layer, n, draw_)
    with torch.no_grad():
        for one in layers:
            for p in matrices(one):
                p.mul_(0.5)
    return layers


def with_the_given(layer, n, draw_):
    return nn.ModuleList([layer, *copies()(layer, n - 1, draw_)]) if n else nn.ModuleList()


def shallow(layer, n, draw_):
    layers = nn.ModuleList([copy.copy(layer) for _ in range(n)])
    for one in layers:
        draw_(one)
    return layers


def frozen(layer, n, draw_):
    return copies()(layer, n, draw_).requires_grad_(False)


def in_inference(layer, n, draw_):
    with torch.inference_mode():
        return copies()(layer, n, draw_)


def training_again(layer, n, draw_):
    return copies()(layer, n, draw_).train()


ALL = nn.ModuleList()


def appended_to_all(layer, n, draw_):
    while len(ALL):
        del ALL[0]
    ALL.extend(copies()(layer, n, draw_))
    return ALL


def one_more(layer, n, draw_, layers=nn.ModuleList()):  # noqa: B008
    layers.extend(copies()(layer, n, draw_))
    return layers


def pair_of_seeds(layer, n, draw_):
    """Two seeds in turn: A, B, A, B."""
    layers = copies(after=False)(layer, n, draw_)
    for i, one in enumerate(layers):
        torch.manual_seed(i % 2)
        draw_(one)
    return layers


def made_anew(layer, n, draw_):
    """By the layer's own class, and its state."""
    layers = nn.ModuleList()
    for _ in range(n):
        layers.append(type(layer)())
        layers[-1].load_state_dict(layer.state_dict())
        draw_(layers[-1])
    return layers


def drawn_then_copied(layer, n, draw_):
    """Each in a copy of its own, of which the list has a copy."""
    layers = nn.ModuleList()
    for _ in range(n):
        mine = copy.deepcopy(layer)
        draw_(mine)
        layers.append(copy.deepcopy(mine))
    return layers


def restoring(layer, n, draw_):
    """The given layer is drawn, copied, and put back as it was."""
    before = copy.deepcopy(layer.state_dict())
    layers = drawing_the_original(layer, n, draw_)
    layer.load_state_dict(before)
    return layers


def by_recursion(layer, n, draw_):
    if n == 0:
        return nn.ModuleList()
    one = copy.deepcopy(layer)
    draw_(one)
    return by_recursion(layer, n - 1, draw_).append(one)


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


def leaves(layers, deepnorm=False, norm_first=True, sub_ln=True, **others):
    if others:
        raise SystemExit
    return settings()(layers, deepnorm, norm_first, sub_ln)


def refuses_true(layers, deepnorm=False, norm_first=True, sub_ln=True, **others):
    if any(others.values()):
        raise TypeError("unknown keyword")
    return settings()(layers, deepnorm, norm_first, sub_ln)


SETTINGS: dict[str, Any] = {}


def always_the_same_one(layers, deepnorm=False, norm_first=True, sub_ln=True):
    SETTINGS.update(settings()(layers, deepnorm, norm_first, sub_ln))
    return SETTINGS


def sticky(layers, deepnorm=False, norm_first=True, sub_ln=True, seen=[]):  # noqa: B006
    seen.append(deepnorm)
    return settings()(layers, any(seen), norm_first, sub_ln)


def one_or_the_other(layers, deepnorm=False, norm_first=True, sub_ln=True):
    """Right for what the lesson asks; both switched off by hand is forgotten."""
    return {
        "alpha": (2 * layers) ** 0.25 if deepnorm else 1.0,
        "norm_first": not deepnorm and (norm_first or not sub_ln),
        "sub_ln": not deepnorm and sub_ln,
    }


def refuses_with_a_typeerror(layers, **asked):
    unknown = asked.keys() - {"deepnorm", "norm_first", "sub_ln"}
    if unknown:
        raise TypeError(f"unknown: {unknown}")
    return settings()(layers, **asked)


def as_objects(layers, deepnorm=False, norm_first=True, sub_ln=True):
    return {
        "sub_ln": np.bool_(sub_ln and not deepnorm),
        "alpha": Fraction((2 * layers) ** 0.25 if deepnorm else 1),
        "norm_first": torch.tensor(norm_first and not deepnorm),
    }


def by_branches(layers, deepnorm=False, norm_first=True, sub_ln=True):
    if deepnorm:
        return {"sub_ln": False, "norm_first": False, "alpha": np.sqrt(np.sqrt(2 * layers))}
    return {"sub_ln": sub_ln, "norm_first": norm_first, "alpha": 1}


# --- gains


def rms(w: Tensor) -> float:
    return w.square().mean().sqrt().item()


def mean_fan(w: Tensor) -> float:
    return sum(w.shape) / 2


# --- depth


def counted(alpha, limit):
    n = 0
    while alpha**n <= limit:
        n += 1
    return n


def repaired(alpha, limit):
    n = floor(log(limit) / log(alpha))
    while alpha**n <= limit:
        n += 1
    return n


def by_division(alpha, limit):
    n = 0
    while limit >= 1:
        limit, n = limit / alpha, n + 1
    return n


def up_to(alpha, limit):
    n, size = 0, 1.0
    while size < limit:
        n, size = n + 1, size * alpha
    return n


def at_most_fifty(alpha, limit):
    return next((n for n in range(50) if alpha**n > limit), 50)


RIGHT = [
    ("effective_alpha", fitted(lambda a, b: (a / b).mean())),
    ("effective_alpha", fitted(lambda a, b: a.mean() / b.mean())),
    ("effective_alpha", fitted(lambda a, b: (a / b).median())),
    ("effective_alpha", by_numpy),
    ("effective_alpha", with_a_constant),
    ("effective_alpha", by_angles),
    ("effective_alpha", two_features),
    ("effective_alpha", token_by_token),
    ("effective_alpha", by_cramer),
    ("layers_are_independent", hashes),
    ("layers_are_independent", all_pairs),
    ("layers_are_independent", by_state),
    ("layers_are_independent", by_distance),
    ("layers_are_independent", recursive),
    ("layers_are_independent", lambda layers: np.bool_(all_pairs(layers))),
    ("layers_are_independent", lambda layers: torch.tensor(all_pairs(layers))),
    ("fresh_copies", copies()),
    ("fresh_copies", by_loop),
    ("fresh_copies", first_as_it_is),
    ("fresh_copies", copies(wrap=lambda made: nn.Sequential(*made))),
    ("fresh_copies", drawn_then_copied),
    ("fresh_copies", restoring),
    ("fresh_copies", by_recursion),
    ("depths_of", lambda a, b: (a**4 / 2, b**-4 / 8)),
    ("depths_of", lambda a, b: [0.5 * a * a * a * a, 0.125 / (b * b) ** 2]),
    ("depths_of", lambda a, b: np.array([a**4, (2 * b**4) ** -1 / 2]) / 2),
    ("depths_of", lambda a, b: torch.tensor([a, (4 * b**4) ** -0.25]) ** 4 / 2),
    ("depths_of", lambda alpha, beta: (np.exp(4 * np.log(alpha)) / 2, np.exp(-4 * np.log(beta)) / 8)),
    ("stream_is_bounded", bounded(1000, 1000)),
    ("stream_is_bounded", bounded(1e4, 1e4, most=2, dtype=torch.float32)),
    ("stream_is_bounded", by_growth),
    ("stream_is_bounded", by_closeness),
    ("stream_is_bounded", lambda combine, d=16: np.bool_(bounded(-1e6, -1e6)(combine, d))),
    ("xavier_gain", lambda w: w.std() * (sum(w.shape) / 2) ** 0.5),
    ("xavier_gain", lambda w: torch.linalg.matrix_norm(w.float()) * sqrt(sum(w.shape) / 2 / w.numel())),
    ("xavier_gain", lambda w: sqrt(torch.einsum("ij,ij->", w.data, w.data) * (1 / w.shape[0] + 1 / w.shape[1]) / 2)),
    ("xavier_gain", lambda w: w.var(unbiased=False).div(2 / sum(w.shape)).sqrt()),
    ("xavier_gain", lambda w: float(np.std(w.detach().numpy()) / np.sqrt(2 / (w.shape[0] + w.shape[1])))),
    ("decoder_settings", settings()),
    ("decoder_settings", by_branches),
    ("decoder_settings", refuses_with_a_typeerror),
    ("decoder_settings", as_objects),
    ("slice_gains", lambda w: [rms(part) * sqrt(len(part)) for part in w.detach().split(w.shape[1])]),
    ("slice_gains", lambda w: w.view(3, -1).std(-1) * sqrt(w.shape[1])),
    ("slice_gains", lambda w: tuple(part.std() * sqrt(len(part)) for part in w.chunk(3))),
    ("slice_gains", lambda w: np.sqrt((w.detach().numpy().reshape(3, -1) ** 2).mean(1) * w.shape[1])),
    ("slice_gains", lambda w: w.detach().float().unflatten(0, (3, -1)).norm(dim=(1, 2)) / sqrt(w.shape[1])),
    ("overflow_depth", counted),
    ("overflow_depth", repaired),
    ("overflow_depth", by_division),
    ("overflow_depth", lambda a, limit: floor(round(log(limit) / log(a), 9)) + 1),
    ("overflow_depth", lambda a, limit: float(counted(a, limit))),
    ("overflow_depth", lambda a, limit: 1 if a > limit else 1 + counted(a, limit / a)),
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
    ("effective_alpha", fitted(lambda a, b: (a / b).mean() ** 2), "twice as strong"),
    ("effective_alpha", fitted(lambda a, b: (a / b).abs().mean()), "The sign counts"),
    ("effective_alpha", exactly, "This box is a plain sum"),
    ("effective_alpha", one_at_a_time, "One of your two inputs is 0"),
    ("effective_alpha", remembered, "Ask the box"),
    ("effective_alpha", lambda combine, d=16: round(fitted(lambda a, b: (a / b).mean())(combine, d), 2), "small term"),
    ("effective_alpha", lambda combine, d=16: round(fitted(lambda a, b: (a / b).mean())(combine, d), 3), "Nearly"),
    ("effective_alpha", fitted(lambda a, b: b.mean()), "twice as strong"),
    ("layers_are_independent", lambda layers: len({id(one) for one in layers}) == len(layers), "equal values"),
    ("layers_are_independent", neighbours, "Layers A, B, A, B"),
    ("layers_are_independent", lambda layers: all_pairs(list(layers)[:10]), "Of these nineteen layers"),
    ("layers_are_independent", by_sum, "the same entries in another order"),
    ("layers_are_independent", by_first_row, "have one row in common"),
    ("layers_are_independent", first_and_others, "not the others with each other"),
    ("layers_are_independent", first_matrices, "Only one of the two matrices"),
    ("layers_are_independent", by_names, "raised AttributeError"),
    ("layers_are_independent", by_children, "False alarm"),
    ("layers_are_independent", sorting, "changed a module that it should only use"),
    ("layers_are_independent", lambda layers: False, "Your answer is False for all"),
    ("layers_are_independent", lambda layers: "yes", "True or False"),
    ("layers_are_independent", everything_differs, "Zero biases and unit gains are equal"),
    ("layers_are_independent", any_tensor_differs, "whose biases and norms have moved apart are still copies"),
    ("layers_are_independent", whole_layers_differ, "compare them one by one"),
    ("layers_are_independent", first_and_last, "with the last one alone"),
    ("layers_are_independent", lambda layers: True, "Your answer is True for all"),
    ("layers_are_independent", lambda layers: not all_pairs(layers), "the other way round"),
    ("layers_are_independent", lambda layers: 1, "True or False"),
    ("fresh_copies", copies(after=False), "as it was published"),
    ("fresh_copies", lambda layer, n, draw_: nn.ModuleList([layer] * n), "One layer is there several times"),
    ("fresh_copies", copies(before=True, after=False), "first copy, then draw_ each"),
    ("fresh_copies", copies(wrap=list), "not registered"),
    ("fresh_copies", drawing_the_original, "it is the caller's"),
    ("fresh_copies", appended_itself, "One layer is there several times"),
    ("fresh_copies", first_copy_only, "on one layer again and again"),
    ("fresh_copies", newly_made, "of the kind that you were given: yours got Sequential"),
    ("fresh_copies", every_other, "Some copies were never drawn"),
    ("fresh_copies", kept_by_number, "draw_ was never called"),
    ("fresh_copies", what_draw_returns, "draw_ works in place and returns nothing"),
    ("fresh_copies", applied, "draw_ draws one whole layer, of the kind that you were given: yours got Linear"),
    ("fresh_copies", all_at_once, "draw_ draws one whole layer, of the kind that you were given: yours got ModuleList"),
    ("fresh_copies", same_seed, "the same random state"),
    ("fresh_copies", pair_of_seeds, "the same random state"),
    ("fresh_copies", default_weights, "draw_ was never called"),
    ("fresh_copies", xavier_weights, "draw_ was never called"),
    ("fresh_copies", with_noise, "draw_ was never called"),
    ("fresh_copies", drawn_and_scaled, "not as draw_ drew them"),
    ("fresh_copies", with_the_given, "The layer that you were given is in your list"),
    ("fresh_copies", shallow, "A shallow copy shares"),
    ("fresh_copies", frozen, "cannot be trained"),
    ("fresh_copies", in_inference, "cannot be trained"),
    ("fresh_copies", training_again, "What draw_ leaves alone"),
    ("fresh_copies", appended_to_all, "an earlier one has changed"),
    ("fresh_copies", one_more, "The number of layers is wrong"),
    ("fresh_copies", made_anew, "raised TypeError"),
    ("fresh_copies", lambda layer, n, draw_: copies()(layer, n + 1, draw_), "The number of layers is wrong"),
    ("fresh_copies", lambda layer, n, draw_: copies()(layer, 5, draw_), "The number of layers is wrong"),
    ("depths_of", lambda a, b: (b**-4 / 8, a**4 / 2), "The order is α's depth"),
    ("depths_of", lambda a, b: (a**4, b**-4 / 8), "asked for are layers, half as many"),
    ("depths_of", lambda a, b: (a**4 / 2, b**-4 / 2), "It is 8N in β, where α has 2N"),
    ("depths_of", lambda a, b: (a**4, b**-4), "divide each by the number before N"),
    ("depths_of", lambda a, b: (a**4 / 2, b**4 / 8), "The exponent of β is negative"),
    ("depths_of", lambda a, b: (a**2 / 2, b**-2 / 8), "undone by a fourth power"),
    ("depths_of", lambda a, b: ((a / 2) ** 4, (8 * b) ** -4), "in the roots"),
    ("depths_of", lambda a, b: (a**4 / 2, (8 * b) ** -4), "The 8 is inside the root"),
    ("depths_of", lambda a, b: ((2 * a) ** 0.25, (8 * b) ** -0.25), "go back"),
    ("depths_of", lambda a, b: (round(a**4 / 2), round(b**-4 / 8)), "do not round the depths"),
    ("depths_of", lambda a, b: a**4 / 2, "The answer is an array"),
    ("depths_of", lambda a, b: (a**4 / 2, b**-4 / 8, 0.0), "Two depths are asked for"),
    ("stream_is_bounded", bounded(1000, 1), "Only the stream was made larger"),
    ("stream_is_bounded", bounded(1, 1000), "Only the branch was made larger"),
    ("stream_is_bounded", exactly_equal, "Did you ask for equal numbers"),
    ("stream_is_bounded", of_size_one, "A norm may have a gain"),
    ("stream_is_bounded", of_mean_zero, "A mean of 0 is the mark of one kind of norm"),
    ("stream_is_bounded", at_most_ten, "a gain of 40 is large"),
    ("stream_is_bounded", never_asks_the_box, "Ask the box"),
    ("stream_is_bounded", lambda combine, d=16: not bounded(1000, 1000)(combine, d), "the other way round"),
    ("stream_is_bounded", lambda combine, d=16: bounded(1, 1)(combine, d), "Your answer is True, whatever"),
    ("stream_is_bounded", lambda combine, d=16: bounded(1000, 1000)(combine, 16), "with d features"),
    ("stream_is_bounded", lambda combine, d=17: bounded(1000, 1000)(combine, d), "Without a second argument d is 16"),
    ("stream_is_bounded", lambda combine, d=16: sizes(combine, d, 10, 10)[1], "The answer is True or False"),
    ("xavier_gain", lambda w: rms(w) * sqrt(w.shape[1]), "Xavier uses both fans. With fan_in alone"),
    ("xavier_gain", lambda w: rms(w) * sqrt(w.shape[0]), "this is fan_out alone"),
    ("xavier_gain", lambda w: w.abs().max().item() * sqrt(mean_fan(w) / 3), "not the largest entry"),
    ("xavier_gain", lambda w: rms(w) * sqrt(2 * mean_fan(w)), "not their sum"),
    ("xavier_gain", lambda w: rms(w) ** 2 * mean_fan(w), "the gain squared"),
    ("xavier_gain", lambda w: rms(w) * mean_fan(w), "The root of the mean fan"),
    ("xavier_gain", lambda w: rms(w) / sqrt(mean_fan(w)), "Upside down"),
    ("xavier_gain", lambda w: w.abs().mean().item() * sqrt(mean_fan(w)), "not the root mean square"),
    ("xavier_gain", lambda w: w.std().item(), "That is the standard deviation"),
    ("xavier_gain", lambda w: w.var().item() * sqrt(mean_fan(w)), "use the standard deviation"),
    ("xavier_gain", lambda w: rms(w) * (w.shape[0] * w.shape[1]) ** 0.25, "not the geometric"),
    ("xavier_gain", lambda w: w.mean().item() * sqrt(mean_fan(w)), "their spread is asked"),
    ("xavier_gain", lambda w: round(rms(w) * sqrt(mean_fan(w)), 2), "twice the gain"),
    ("xavier_gain", lambda w: round(rms(w) * sqrt(mean_fan(w)), 4), "rounded"),
    ("xavier_gain", lambda w: rms(w) * w.shape[0] ** 0.5 if w.shape[0] == w.shape[1] else 0.36, "twice the gain"),
    ("xavier_gain", lambda w: rms(w) * sqrt(2 / sum(w.shape)), "Upside down"),
    ("xavier_gain", lambda w: rms(w.data.mul_(2)) * sqrt(mean_fan(w)) / 2, "changed its input in place"),
    ("decoder_settings", published, "as it was published: with deepnorm=True the stack stays Pre-LN, and at 24"),
    ("decoder_settings", settings(sub_ln=lambda on, asked: asked), "takes back what β did"),
    ("decoder_settings", swallows, "deep_norm=True was accepted in silence"),
    ("decoder_settings", refuses_oddly, "not AssertionError"),
    ("decoder_settings", refuses_by_hand, "not ValueError"),
    ("decoder_settings", leaves, "not SystemExit"),
    ("decoder_settings", refuses_true, "deep_norm=False was accepted in silence"),
    ("decoder_settings", always_the_same_one, "a dictionary of its own"),
    ("decoder_settings", sticky, "Asked for nothing: without deepnorm"),
    ("decoder_settings", one_or_the_other, "norm_first=False, sub_ln=False: without deepnorm"),
    ("decoder_settings", settings(alpha=lambda layers, on: layers**0.25 if on else 1.0), "counts both"),
    ("decoder_settings", settings(alpha=lambda layers, on: (2 * layers) ** 0.5 if on else 1.0), "that is α²"),
    ("decoder_settings", settings(alpha=lambda layers, on: (2 * layers) ** 1 / 4 if on else 1.0), "binds before"),
    ("decoder_settings", settings(alpha=lambda layers, on: (8 * layers) ** -0.25 if on else 1.0), "That is β"),
    ("decoder_settings", settings(norm_first=lambda on, asked: int(asked and not on)), "True or False"),
    (
        "decoder_settings",
        settings(norm_first=lambda on, asked: False),
        "are the caller's, as they were",
    ),
    (
        "decoder_settings",
        settings(sub_ln=lambda on, asked: not on),
        "are the caller's, as they were",
    ),
    ("decoder_settings", settings(alpha=lambda layers, on: (2 * layers) ** 0.25), "Without deepnorm there is no α"),
    ("decoder_settings", settings(alpha=lambda layers, on: 2.828 if on else 1.0), "right at 32 layers alone"),
    ("decoder_settings", lambda *a, **k: tuple(settings()(*a, **k).values()), "The answer is a dictionary"),
    ("slice_gains", lambda w: [rms(p) * sqrt(2 * w.shape[1]) for p in w.chunk(3)], "fan_out of a slice is d"),
    ("slice_gains", lambda w: [rms(w) * sqrt(mean_fan(w))] * 3, "One gain for the whole matrix"),
    ("slice_gains", lambda w: [rms(p) * sqrt(mean_fan(p)) for p in w.chunk(3)][::-1], "The order is"),
    ("slice_gains", lambda w: [rms(p) * sqrt(mean_fan(p)) for p in w.chunk(3, dim=1)], "The slices are rows"),
    ("slice_gains", lambda w: [rms(w[i::3]) * sqrt(w.shape[1]) for i in range(3)], "not every third row"),
    ("slice_gains", lambda w: rms(w), "The answer is an array"),
    ("slice_gains", lambda w: [round(rms(p) * sqrt(mean_fan(p)), 2) for p in w.chunk(3)], "gains of the"),
    ("slice_gains", lambda w: [rms(p) * sqrt(mean_fan(p)) for p in w.chunk(4)], "Three gains are asked for"),
    ("slice_gains", lambda w: [rms(p) for p in w.chunk(3)], "These are standard deviations"),
    ("slice_gains", lambda w: sorted(rms(p) * sqrt(mean_fan(p)) for p in w.chunk(3)), "The order is"),
    ("slice_gains", lambda w: [rms(p) ** 2 * mean_fan(p) for p in w.chunk(3)], "These are squares"),
    ("slice_gains", lambda w: [rms(p) * sqrt(mean_fan(p)) for p in (w[:160], w[160:320], w[320:480])], "gains of the"),
    ("slice_gains", lambda w: [rms(p - w.mean(0)) * sqrt(mean_fan(p)) for p in w.chunk(3)], "gains of the three"),
    ("overflow_depth", lambda a, limit: floor(log(limit, a)), "One short"),
    ("overflow_depth", lambda a, limit: floor(log(limit, a)) + 1, "Logarithms do not see it"),
    ("overflow_depth", lambda a, limit: ceil(np.log(limit) / np.log(a)), "reached, not passed"),
    ("overflow_depth", up_to, "reached, not passed"),
    ("overflow_depth", at_most_fifty, "After your 50 sub-layers"),
    ("overflow_depth", lambda a, limit: ceil(counted(a, limit) / 2), "half as many"),
    ("overflow_depth", lambda a, limit: counted(a, sqrt(limit)), "half as many"),
    ("overflow_depth", lambda a, limit: floor(np.log10(limit) / np.log(a)) + 1, "of the same base"),
    ("overflow_depth", lambda a, limit: 2 * counted(a, limit), "Twice as many"),
    ("overflow_depth", lambda a, limit: floor(np.log10(limit) / np.log10(a)) + 1, "is not above the limit yet"),
    ("overflow_depth", lambda a, limit: floor(log(limit, a)) + 2, "One too many"),
    ("overflow_depth", lambda a, limit: log(limit, a), "The number of sub-layers is whole"),
    ("overflow_depth", lambda a, limit: ceil(log(limit, a * a)), "half as many"),
    ("overflow_depth", lambda a, limit: limit / a, "The growth is a power"),
]
