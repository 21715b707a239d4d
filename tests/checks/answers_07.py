"""Lesson 07: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import copy
from collections.abc import Callable
from decimal import Decimal
from math import sqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepnet_edu
from deepnet_edu.residual import RESIDUALS, Place


def tensor(g: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(g.normal(0.5, 1, shape))


def norm_of(g: np.random.Generator, d: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(d).double()
    norm.weight.data, norm.bias.data = tensor(g, d), tensor(g, d)
    return norm


def with_gradients(y: Tensor, *leaves: Tensor) -> Tensor:
    """What a function returns, and what comes back through it."""
    back = torch.autograd.grad(y.square().sum(), leaves)
    return torch.cat([one.detach().flatten() for one in (y, *back)])


def see_deepnorm(f: Callable, g: np.random.Generator) -> Any:
    x, w, norm = tensor(g, 2, 3, 6).requires_grad_(), tensor(g, 6, 6).requires_grad_(), norm_of(g, 6)
    return with_gradients(f(x, lambda x: torch.tanh(x @ w), norm, g.choice([1, g.uniform(0.5, 4)])), x, w, norm.bias)


def see_init(f: Callable, g: np.random.Generator) -> Any:
    torch.manual_seed(int(g.integers(1000)))
    weight = nn.Parameter(torch.zeros(12, 4))
    f(weight, g.choice([1, g.uniform(0.1, 2)]))
    return [*weight.flatten().tolist(), weight.requires_grad]


def see_layers(f: Callable, g: np.random.Generator) -> Any:
    torch.manual_seed(0)
    layers = f(lambda: nn.Linear(2, 2), int(g.integers(0, 4)))
    return [x for p in layers.parameters() for x in (*p.flatten().tolist(), p.requires_grad)]


def see_constants(f: Callable, g: np.random.Generator) -> Any:
    N, M = (int(n) for n in g.integers(0, 100, 2) * g.choice([[1, 1], [1, 0], [0, 1]]))
    return [x for pair in f(max(N, M == 0), M) for x in (pair or (-1, -1))]


def see_decoder_layer(f: Callable, g: np.random.Generator) -> Any:
    a, b, c = (tensor(g, 6, 6).requires_grad_() for _ in range(3))
    x, memory = tensor(g, 2, 3, 6).requires_grad_(), tensor(g, 2, 5, 6).requires_grad_()
    norms = [norm_of(g, 6) for _ in range(3)]
    y = f(
        x,
        memory,
        lambda x: torch.tanh(x @ a).cumsum(1),
        lambda x, y: torch.softmax(x @ b @ y.mT, -1) @ y,
        lambda x: torch.tanh(x @ c),
        norms,
        g.choice([1, g.uniform(0.5, 4)]),
    )
    return with_gradients(y, x, memory, a, b, c, norms[0].weight)


OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "deepnorm": see_deepnorm,
    "init_qkv_": see_init,
    "build_layers": see_layers,
    "constants": see_constants,
    "decoder_layer": see_decoder_layer,
    "stack_parameters": lambda f, g: f(int(g.integers(0, 9)), int(g.integers(1, 99)), int(g.integers(1, 99))),
}


def library_rule(x, f, norm, alpha):
    rule = RESIDUALS["deepnorm"](Place("decoder", 0, "ffn", 0, 2, 0, 1), x.shape[-1]).double()
    rule.norm = norm
    rule.alpha.fill_(alpha)
    return rule.write((x,), f(x))[0]


def in_place_on_what_the_branch_returned(x, f, norm, alpha):
    y = f(x)
    y += alpha * x
    return norm(y)


def by_weights(x, f, norm, alpha):
    y = alpha * x + f(x)
    return F.layer_norm(y, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def under_no_grad(x, f, norm, alpha):
    with torch.no_grad():
        fx = f(x)
    return norm(alpha * x + fx)


def without_epsilon(x, f, norm, alpha):
    norm.eps = 0.0
    norm.epsilon = 0.0
    return norm(alpha * x + f(x))


def of_first_call(answer: Callable) -> Callable:
    """Keeps what it computed for a shape."""
    kept: dict[Any, Any] = {}

    def keeping(x, *rest):
        key = (*x.shape, x.dtype)
        if key not in kept:
            kept[key] = answer(x, *rest)
        return kept[key]

    return keeping


def filled(*gains: Callable[[float], float]) -> Callable[[Tensor, float], None]:
    def init(weight, beta):
        for part, gain in zip(weight.data.chunk(3), gains, strict=True):
            nn.init.xavier_normal_(part, gain=gain(beta))

    return init


def one(beta: float) -> float:
    return 1.0


def same(beta: float) -> float:
    return beta


def by_hand(weight, beta):
    d = weight.shape[1]
    with torch.no_grad():
        weight.copy_(torch.randn(3 * d, d) / sqrt(d))
        weight[2 * d :] *= beta


def packed(weight, beta):
    nn.init.xavier_normal_(weight)
    with torch.no_grad():
        weight[2 * weight.shape[1] :] *= beta


def uniform(weight, beta):
    for part, gain in zip(weight.data.chunk(3), (1, 1, beta), strict=True):
        nn.init.xavier_uniform_(part, gain=gain)


def default_times_beta(weight, beta):
    d = weight.shape[1]
    weight.data = nn.Linear(d, 3 * d).weight.data
    weight.data[2 * d :] *= beta


def with_a_row_of_zeros(weight, beta):
    filled(one, one, same)(weight, beta)
    weight.data[0] = 0


def frozen(weight, beta):
    weight.requires_grad_(False)
    filled(one, one, same)(weight, beta)


def replaced(weight, beta):
    d = weight.shape[1]
    slices = [nn.init.xavier_normal_(torch.empty(d, d), gain=gain) for gain in (1, 1, beta)]
    weight.data = torch.cat(slices)


@torch.no_grad()
def copied(weight, beta):
    d = weight.shape[1]
    weight.copy_(torch.cat([nn.init.xavier_normal_(torch.empty(d, d), gain=gain) for gain in (1, 1, beta)]))


def by_rows(weight, beta):
    d = weight.shape[1]
    with torch.no_grad():
        for i in range(3):
            weight[i * d : (i + 1) * d].normal_(0, (beta if i == 2 else 1) * (2 / (d + d)) ** 0.5)


def by_numpy(weight, beta):
    d = weight.shape[1]
    draw = np.random.default_rng()
    for part, gain in zip(weight.detach().chunk(3), (1, 1, beta), strict=True):
        part.copy_(torch.from_numpy(draw.normal(0, gain / np.sqrt(d), (d, d))))


def by_one_draw(weight, beta):
    """√2 larger than Xavier for the packed matrix."""
    with torch.no_grad():
        nn.init.xavier_normal_(weight, gain=sqrt(2))
        weight.chunk(3)[2].mul_(beta)


def recorded(weight, beta):
    d = weight.shape[1]
    weight[:d].normal_(0, d**-0.5)
    weight[d : 2 * d].normal_(0, d**-0.5)
    weight[2 * d :].normal_(0, beta * d**-0.5)


def as_fairseq(weight, beta):
    filled(lambda _: 1 / sqrt(2), lambda _: 1 / sqrt(2), lambda beta: beta / sqrt(2))(weight, beta)


def query_and_key_as_one(weight, beta):
    d = weight.shape[1]
    nn.init.xavier_normal_(weight.data[: 2 * d])
    nn.init.xavier_normal_(weight.data[2 * d :], gain=beta)


def kaiming(weight, beta):
    for part, gain in zip(weight.data.chunk(3), (1, 1, beta), strict=True):
        nn.init.kaiming_normal_(part).mul_(gain)


def orthogonal(weight, beta):
    for part, gain in zip(weight.data.chunk(3), (1, 1, beta), strict=True):
        nn.init.orthogonal_(part, gain=gain)


def key_is_turned_query(weight, beta):
    query, key, value = weight.data.chunk(3)
    nn.init.xavier_normal_(query)
    key.copy_(query.T)
    value.copy_(beta * query.roll(1))


def once(weight, beta, seen=[]):  # noqa: B006
    if not seen:
        seen.append(weight)
        filled(one, one, same)(weight, beta)


def nearly(weight, beta):
    filled(one, one, lambda beta: 1.06 * beta)(weight, beta)


def query_is_key(weight, beta):
    filled(one, one, same)(weight, beta)
    query, key, _ = weight.data.chunk(3)
    key.copy_(query)


def seeded(weight, beta):
    torch.manual_seed(42)
    filled(one, one, same)(weight, beta)


def by_loop(make_layer, n):
    layers = nn.ModuleList()
    for _ in range(n):
        layers.append(make_layer())
    return layers


def by_insert(make_layer, n):
    layers = nn.ModuleList()
    while len(layers) < n:
        layers.insert(0, make_layer())
    return layers


def by_recursion(make_layer, n):
    return nn.ModuleList([*by_recursion(make_layer, n - 1), make_layer()]) if n else nn.ModuleList()


def seeded_in_the_loop(make_layer, n):
    layers = []
    for _ in range(n):
        torch.manual_seed(0)
        layers.append(make_layer())
    return nn.ModuleList(layers)


def seeded_before(make_layer, n):
    torch.manual_seed(0)
    return by_loop(make_layer, n)


def tied(make_layer, n):
    layers = by_loop(make_layer, n)
    for layer in layers:
        layer[0].weight = layers[0][0].weight
    return layers


def tied_by_data(make_layer, n):
    layers = by_loop(make_layer, n)
    for layer in layers:
        layer[0].weight.data = layers[0][0].weight.data
    return layers


def norms_tied(make_layer, n):
    layers = by_loop(make_layer, n)
    for layer in layers:
        layer[1] = layers[0][1]
    return layers


def loaded(make_layer, n):
    layers = by_loop(make_layer, n)
    for layer in layers:
        layer.load_state_dict(layers[0].state_dict())
    return layers


def frozen_layers(make_layer, n):
    return by_loop(make_layer, n).requires_grad_(False)


def halved(make_layer, n):
    layers = by_loop(make_layer, n)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter /= 2
    return layers


def collecting(make_layer, n, layers=nn.ModuleList()):  # noqa: B008
    for _ in range(n):
        layers.append(make_layer())
    return layers


def kept_by_number(make_layer, n, kept={}):  # noqa: B006
    return kept.setdefault(n, by_loop(make_layer, n))


def at_least_one_layer(make_layer, n):
    return nn.ModuleList([make_layer(), *(make_layer() for _ in range(n - 1))])


def copied_with_noise(make_layer, n):
    layers = cloned(make_layer, n)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter += 1e-3 * torch.randn_like(parameter)
    return layers


def cloned(make_layer, n):
    layer = make_layer()
    return nn.ModuleList(copy.deepcopy(layer) for _ in range(n))


def by_table(N, M):
    c = deepnet_edu.deepnorm_constants(N, M)
    return [s and (s.alpha, s.beta) for s in (c.encoder, c.decoder)]


def single(L):
    return (2 * L) ** 0.25, (8 * L) ** -0.25


def paper(N, M):
    return 0.81 * (N**4 * M) ** (1 / 16), 0.87 * (N**4 * M) ** (-1 / 16)


def constants(
    alone: Callable[[int], tuple[float, float]] = single,
    encoder: Callable[[int, int], tuple[float, float]] = paper,
    decoder: Callable[[int], tuple[float, float]] = lambda M: ((3 * M) ** 0.25, (12 * M) ** -0.25),
) -> Callable[[int, int], Any]:
    def answer(N, M):
        if not N or not M:
            return (None, alone(M)) if M else (alone(N), None)
        return encoder(N, M), decoder(M)

    return answer


def unrounded(N, M):
    root = (N**4 * M / 27) ** (1 / 16)
    return root, 1 / (sqrt(2) * root)


def in_single(N, M):
    """Tensors in float32."""
    return tuple(pair and torch.tensor(pair) for pair in constants()(N, M))


def in_numpy(N, M):
    return tuple(pair and np.array(pair) for pair in constants(encoder=unrounded)(N, M))


def in_decimals(N, M):
    return [pair and [Decimal(x) for x in pair] for pair in constants()(N, M)]


def in_single_unrounded(N, M):
    return tuple(pair and tuple(map(np.float32, pair)) for pair in constants(encoder=unrounded)(N, M))


def by_roots(N, M):
    def fourth(x: float) -> float:
        return sqrt(sqrt(x))

    if N and M:
        root = fourth(fourth(N * N * N * N * M))
        return [[0.81 * root, 0.87 / root], [fourth(3 * M), 1 / fourth(12 * M)]]
    pair = [fourth(2 * (N + M)), 1 / fourth(8 * (N + M))]
    return [pair, None] if N else [None, pair]


def layer(
    a: Callable = lambda x, m, sa, ca, ffn, n, alpha: n[0](alpha * x + sa(x)),
    b: Callable = lambda x, a, m, ca, n, alpha: n[1](alpha * a + ca(a, m)),
    c: Callable = lambda x, b, ffn, n, alpha: n[2](alpha * b + ffn(b)),
) -> Callable[..., Any]:
    def answer(x, memory, self_attention, cross_attention, ffn, norms, alpha):
        first = a(x, memory, self_attention, cross_attention, ffn, norms, alpha)
        return c(x, b(x, first, memory, cross_attention, norms, alpha), ffn, norms, alpha)

    return answer


def by_list(x, memory, self_attention, cross_attention, ffn, norms, alpha):
    branches = [self_attention, lambda y: cross_attention(y, memory), ffn]
    for norm, branch in zip(norms, branches, strict=True):
        x = norm(x + branch(x) / alpha)
    return x


def by_addition(x, memory, self_attention, cross_attention, ffn, norms, alpha):
    first, second, third = norms
    x = first(torch.add(self_attention(x), x, alpha=alpha))
    x = second(torch.add(cross_attention(x, memory=memory), x, alpha=alpha))
    return third(torch.add(ffn(x), x, alpha=alpha))


def by_pop(x, memory, self_attention, cross_attention, ffn, norms, alpha):
    x = norms.pop(0)(alpha * x + self_attention(x))
    x = norms.pop(0)(alpha * x + cross_attention(x, memory))
    return norms.pop(0)(alpha * x + ffn(x))


def cross_last(x, memory, self_attention, cross_attention, ffn, norms, alpha):
    x = norms[0](alpha * x + self_attention(x))
    x = norms[1](alpha * x + ffn(x))
    return norms[2](alpha * x + cross_attention(x, memory))


def on_the_branches(x, memory, self_attention, cross_attention, ffn, norms, alpha):
    x = norms[0](x + alpha * self_attention(x))
    x = norms[1](x + alpha * cross_attention(x, memory))
    return norms[2](x + alpha * ffn(x))


def parts(x, memory, self_attention, cross_attention, ffn, norms, alpha):
    return {"x": x, "memory": memory, "sa": self_attention, "ca": cross_attention, "ffn": ffn, "n": norms, "a": alpha}


def with_detached(**how: Callable) -> Callable[..., Any]:
    """A right layer of which some parts are changed first."""

    def answer(*given):
        p = {name: how.get(name, lambda one: one)(one) for name, one in parts(*given).items()}
        return by_list(p["x"], p["memory"], p["sa"], p["ca"], p["ffn"], p["n"], p["a"])

    return answer


def detached(one: Any) -> Any:
    if isinstance(one, Tensor):
        return one.detach()
    return lambda *given: one(*given).detach()


def by_pytorch(n, d, d_ff):
    return n * sum(p.numel() for p in nn.TransformerEncoderLayer(d, 1, d_ff).parameters())


def by_shapes(n, d, d_ff):
    shapes = [(d, d)] * 4 + [(d,)] * 4 + [(d_ff, d), (d_ff,), (d, d_ff), (d,)] + [(d,)] * 4
    return sum(int(np.prod(shape)) for shape in shapes) * n


def cross_first(x, memory, self_attention, cross_attention, ffn, norms, alpha):
    x = norms[0](alpha * x + cross_attention(x, memory))
    x = norms[1](alpha * x + self_attention(x))
    return norms[2](alpha * x + ffn(x))


RIGHT = [
    ("deepnorm", lambda x, f, norm, alpha: norm(x + f(x) / alpha)),
    ("deepnorm", lambda x, f, norm, alpha: norm(torch.add(f(x), x, alpha=alpha))),
    ("deepnorm", library_rule),
    ("deepnorm", in_place_on_what_the_branch_returned),
    ("deepnorm", lambda x, f, norm, alpha: norm.forward(f(x).add(x, alpha=alpha))),
    ("deepnorm", lambda x, f, norm, alpha: norm(torch.stack([alpha * x, f(x)]).sum(0))),
    (
        "deepnorm",
        lambda x, f, norm, alpha: norm(torch.stack([one + alpha * x[:, t] for t, one in enumerate(f(x).unbind(1))], 1)),
    ),
    ("deepnorm", lambda x, f, norm, alpha: norm((alpha * x.float() + f(x).float()).to(x.dtype))),
    ("init_qkv_", by_hand),
    ("init_qkv_", lambda weight, beta: filled(one, one, same)(weight, beta)),
    ("init_qkv_", copied),
    ("init_qkv_", by_rows),
    ("init_qkv_", by_numpy),
    ("init_qkv_", by_one_draw),
    ("build_layers", by_insert),
    ("build_layers", by_recursion),
    ("build_layers", by_loop),
    ("build_layers", lambda make_layer, n: nn.ModuleList([make_layer() for i in range(n)])),
    ("build_layers", lambda make_layer, n: nn.Sequential(*(make_layer() for i in range(n)))),
    ("constants", by_table),
    ("constants", by_roots),
    ("constants", in_single),
    ("constants", in_numpy),
    ("constants", in_decimals),
    ("constants", in_single_unrounded),
    ("constants", constants(encoder=unrounded)),
    ("constants", constants(lambda L: (np.sqrt(np.sqrt(2 * L)), 1 / np.sqrt(np.sqrt(8 * L))))),
    ("constants", constants(lambda L: np.float32([2 * L, 8 * L]) ** np.float32([0.25, -0.25]))),
    ("constants", lambda N, M: tuple(pair and torch.tensor(pair) for pair in constants()(N, M))),
    ("decoder_layer", layer()),
    ("decoder_layer", by_list),
    ("decoder_layer", by_addition),
    ("stack_parameters", by_pytorch),
    ("stack_parameters", by_shapes),
    ("stack_parameters", lambda n, d, f: torch.tensor(n * (4 * d**2 + 2 * d * f + 9 * d + f))),
    ("stack_parameters", lambda n, d, f: n * (4 * d**2 + 2 * d * f + 9 * d + f)),
    ("stack_parameters", lambda n, d, f: sum((d + 1) * (4 * d + f) + (f + 5) * d for _ in range(n))),
]

WRONG = [
    ("deepnorm", lambda x, f, norm, a: norm(x + a * f(x)), "α is on the wrong term"),
    ("deepnorm", lambda x, f, norm, a: norm(a * (x + f(x))), "where the norm hides it"),
    ("deepnorm", lambda x, f, norm, a: norm(x + f(x)), "Post-LN"),
    ("deepnorm", lambda x, f, norm, a: norm(a * x + f(x) / (a * sqrt(2))), "never in the forward pass"),
    ("deepnorm", lambda x, f, norm, a: a * x + f(norm(x)), "grows like α^(2N)"),
    ("deepnorm", lambda x, f, norm, a: a * x + f(x), "The norm on the sum is missing"),
    ("deepnorm", lambda x, f, norm, a: norm(a * x) + f(x), "around the whole sum"),
    ("deepnorm", lambda x, f, norm, a: a * x + norm(f(x)), "You normalised the branch"),
    ("deepnorm", lambda x, f, norm, a: norm(a * x + f(norm(x))), "reads x as it is"),
    ("deepnorm", lambda x, f, norm, a: norm(a * x + f(a * x)), "not what the branch reads"),
    ("deepnorm", lambda x, f, norm, a: norm(f(x)), "The skip is missing"),
    ("deepnorm", lambda x, f, norm, a: norm(a * x + f(x) + 0 * f(x)), "Call the branch once"),
    ("deepnorm", lambda x, f, norm, a: norm(x.mul_(a) + f(x)), "changed its input in place"),
    ("deepnorm", lambda x, f, norm, a: norm(2.5 * x + f(x)), "With α = 1 it is Post-LN"),
    ("deepnorm", lambda x, f, norm, a: norm(a * x + f(x).detach()), "gradient that comes back to"),
    ("deepnorm", lambda x, f, norm, a: norm(a * x.detach() + f(x)), "gradient that comes back to x"),
    ("deepnorm", lambda x, f, norm, a: norm(a * x.data + f(x)), "gradient that comes back to x"),
    ("deepnorm", lambda x, f, norm, a: norm(a * x + f(x.detach())), "gradient that comes back to x"),
    ("deepnorm", lambda x, f, norm, a: norm((a * x + f(x)).detach()), "gradient that comes back to x"),
    ("deepnorm", under_no_grad, "gradient that comes back to"),
    ("deepnorm", torch.no_grad()(lambda x, f, norm, a: norm(a * x + f(x))), "No gradient passes"),
    ("deepnorm", without_epsilon, "changed a module"),
    ("deepnorm", by_weights, "can only be called"),
    ("deepnorm", lambda x, f, norm, a: F.layer_norm(a * x + f(x), x.shape[-1:]), "a norm of your own"),
    ("deepnorm", lambda x, f, norm, a: a * norm(x + f(x)), "outside it scales the stream"),
    ("deepnorm", lambda x, f, norm, a: a * norm(a * x + f(x)), "nothing scales what the norm returns"),
    ("deepnorm", lambda x, f, norm, a: a * norm(x) + f(x), "around the whole sum"),
    ("deepnorm", lambda x, f, norm, a: norm(sqrt(a) * x + f(x)), "it scales values, not variances"),
    ("deepnorm", lambda x, f, norm, a: norm(a * a * x + f(x)), "α comes once"),
    ("deepnorm", lambda x, f, norm, a: norm(x / a + f(x)), "α is on the wrong term"),
    ("deepnorm", lambda x, f, norm, a: norm(a * x - f(x)), "not subtracted"),
    ("deepnorm", lambda x, f, norm, a: norm(round(a) * x + f(x)), "the value is wrong"),
    ("deepnorm", of_first_call(lambda x, f, norm, a: norm(a * x + f(x))), "The branch was not called"),
    ("init_qkv_", frozen, "a weight without a gradient"),
    ("init_qkv_", lambda w, b: (copied(w, b), w.requires_grad_(True)), "a weight without a gradient"),
    ("init_qkv_", replaced, "you replaced it by another"),
    ("init_qkv_", recorded, "PyTorch must not record this change"),
    ("init_qkv_", with_a_row_of_zeros, "or only in part"),
    ("init_qkv_", as_fairseq, "a gain of 1/√2 came in"),
    ("init_qkv_", query_and_key_as_one, "one matrix of shape (2d, d)"),
    ("init_qkv_", kaiming, "He's (Kaiming) draw"),
    ("init_qkv_", orthogonal, "depend on each other"),
    ("init_qkv_", key_is_turned_query, "The same numbers come in two places"),
    ("init_qkv_", once, "fill the weight that you were given"),
    ("init_qkv_", nearly, "The slices have other gains"),
    ("init_qkv_", lambda w, b: nn.init.normal_(w, std=0.02), "GPT-2's std"),
    ("init_qkv_", lambda w, b: filled(one, one, same)(w[: w.shape[1] * 3 // 2], b), "The key slice was not drawn"),
    ("init_qkv_", packed, "fan_out of the packed matrix is 3d"),
    ("init_qkv_", lambda w, b: nn.init.xavier_normal_(w), "fan_out of the packed matrix is 3d"),
    ("init_qkv_", lambda w, b: nn.init.xavier_normal_(w, gain=b), "fan_out of the packed matrix is 3d"),
    ("init_qkv_", filled(same, same, same), "their gain is 1"),
    ("init_qkv_", filled(one, same, one), "The order is query, key, value"),
    ("init_qkv_", filled(same, one, one), "The order is query, key, value"),
    ("init_qkv_", filled(one, one, sqrt), "You scaled the variance"),
    ("init_qkv_", filled(one, one, one), "The value slice takes β"),
    ("init_qkv_", filled(one, one, lambda b: b * b), "β came in twice"),
    ("init_qkv_", filled(one, one, lambda b: 1 / b), "β makes the branch smaller"),
    ("init_qkv_", filled(same, same, one), "the other way round"),
    ("init_qkv_", default_times_beta, "PyTorch's default"),
    ("init_qkv_", uniform, "have no tails"),
    ("init_qkv_", query_is_key, "Query and key are not independent"),
    ("init_qkv_", seeded, "all layers become clones"),
    ("init_qkv_", lambda w, b: torch.randn(w.shape), "fill the weight that you were given"),
    ("init_qkv_", lambda w, b: nn.init.xavier_normal_(w.data.chunk(3)[2], gain=b), "The query slice was not drawn"),
    ("build_layers", lambda make, n: nn.ModuleList([make()] * n), "One layer is used several times"),
    ("build_layers", cloned, "cloned layers"),
    ("build_layers", lambda make, n: [make() for _ in range(n)], "not registered"),
    ("build_layers", lambda make, n: nn.ModuleList(make() for _ in range(n - 1)), "The number of layers is wrong"),
    ("build_layers", lambda make, n: nn.ModuleList(make() for _ in range(5)), "The number of layers is wrong"),
    ("build_layers", lambda make, n: nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(n)), "that make"),
    ("build_layers", lambda make, n: make(), "The number of layers is wrong"),
    ("build_layers", seeded_in_the_loop, "there is a fixed seed inside"),
    ("build_layers", seeded_before, "Two stacks came out equal"),
    ("build_layers", tied, "The layers share parameters"),
    ("build_layers", tied_by_data, "The layers share parameters"),
    ("build_layers", lambda make, n: nn.ModuleList(make(i) for i in range(n)), "takes no arguments"),
    ("build_layers", norms_tied, "The layers share parameters"),
    ("build_layers", loaded, "cloned layers"),
    ("build_layers", lambda make, n: by_loop(make, n).double(), "were changed afterwards"),
    ("build_layers", lambda make, n: nn.ModuleList([make] * n), "make_layer is not a Module"),
    ("build_layers", frozen_layers, "leave requires_grad"),
    ("build_layers", halved, "were changed afterwards"),
    ("build_layers", collecting, "The number of layers is wrong"),
    ("build_layers", kept_by_number, "Use the layers that make_layer() made"),
    ("build_layers", at_least_one_layer, "The number of layers is wrong"),
    ("build_layers", copied_with_noise, "Use the layers that make_layer() made"),
    ("build_layers", lambda make, n: nn.ModuleList(nn.Sequential(make()) for _ in range(n)), "that make_layer() made"),
    ("build_layers", lambda make, n: (make(), by_loop(make, n))[1], "more often than there are layers"),
    (
        "build_layers",
        lambda make, n: nn.ModuleDict({str(i): make() for i in range(n)}),
        "The answer is an nn.ModuleList",
    ),
    ("constants", constants(lambda L: (L**0.25, (4 * L) ** -0.25)), "N layers are 2N sub-layers"),
    ("constants", constants(lambda L: ((2 * L) ** 0.25, (2 * L) ** -0.25)), "Two matrices share the budget"),
    ("constants", constants(lambda L: ((2 * L) ** 0.5, (2 * L) ** -0.5)), "GLM-130B"),
    ("constants", constants(lambda L: ((2 * L) ** 0.25, (8 * L) ** 0.25)), "the exponent is negative"),
    ("constants", constants(lambda L: ((8 * L) ** -0.25, (2 * L) ** 0.25)), "are exchanged"),
    ("constants", constants(lambda L: ((2 * L) ** 0.25, (8 * L) ** -1 / 4)), "(x**1)/4"),
    ("constants", constants(lambda L: ((2 * L) ** 1 / 4, (8 * L) ** -1 / 4)), "put the exponent in parentheses"),
    ("constants", constants(lambda L: ((2 * L) ** 0.25, 8 * L**-0.25)), "The 8 belongs inside"),
    ("constants", constants(lambda L: ((3 * L) ** 0.25, (12 * L) ** -0.25)), "a decoder with cross-attention"),
    ("constants", constants(encoder=lambda N, M: single(N), decoder=single), "two separate"),
    ("constants", constants(decoder=single), "3M, not 2M"),
    ("constants", constants(encoder=lambda N, M: single(N)), "depend on M too"),
    ("constants", constants(encoder=lambda N, M: paper(M, N)), "(N⁴M)^(1/16)"),
    ("constants", constants(encoder=lambda N, M: (0.81 * (N**4 * M) ** 1 / 16, paper(N, M)[1])), "(x**1)/16"),
    ("constants", lambda N, M: constants()(M, N), "The arguments are exchanged"),
    ("constants", constants(encoder=lambda N, M: paper(N, N)), "the pairs are wrong"),
    ("constants", constants(decoder=lambda M: ((3 * M) ** 0.25, (3 * M) ** -0.25)), "For the decoder's β two matrices"),
    ("constants", constants(lambda L: tuple(map(str, single(L)))), "a pair (α, β) of numbers"),
    ("constants", constants(lambda L: single(min(L, 100))), "For a stack alone the pair is wrong"),
    ("constants", constants(encoder=lambda N, M: (paper(N, M)[0], 1.15 / 0.87 * paper(N, M)[1])), "A published bug"),
    ("constants", constants(lambda L: paper(L, 1)), "an encoder under a decoder"),
    ("constants", constants(encoder=lambda N, M: (unrounded(N, M)[0], paper(N, M)[1])), "take both from one pair"),
    (
        "constants",
        constants(encoder=lambda N, M: (0.81 * (N**4 * M) ** 1 / 16, 0.87 * (N**4 * M) ** -1 / 16)),
        "(x**1)/16",
    ),
    ("constants", constants(encoder=lambda N, M: paper(N**0.25, M)), "counts four times as much"),
    (
        "constants",
        constants(encoder=lambda N, M: (0.81 * (N**4 * M) ** (1 / 16), 0.87 * (N**4 * M) ** (1 / 16))),
        "The encoder's β",
    ),
    ("constants", constants(decoder=lambda M: ((3 * M) ** 0.25, (12 * M) ** 0.25)), "The decoder's β"),
    ("constants", constants(decoder=lambda M: ((3 * M) ** 0.25, (3 * M) ** -0.25)), "For the decoder's β two matrices"),
    ("constants", lambda N, M: constants()(N, M) if N != M else constants()(N, M + 1), "the pairs are wrong"),
    ("constants", lambda N, M: [pair and [round(x, 3) for x in pair] for pair in constants()(N, M)], "is rounded"),
    ("constants", lambda N, M: tuple(pair or (1.0, 1.0) for pair in constants()(N, M)), "has no constants for it"),
    ("constants", lambda N, M: tuple(map(np.float32, single(N or M))), "Say whose"),
    ("constants", lambda N, M: constants()(N, M)[:: -1 if N * M == 0 else 1], "the encoder comes first"),
    ("constants", lambda N, M: constants()(N, M)[:: -1 if N * M else 1], "the encoder comes first"),
    ("constants", lambda N, M: constants()(N or 1, M or 1), "has no constants for it"),
    ("constants", lambda N, M: ((2 * N) ** 0.25, None), "The encoder's constants are a pair"),
    ("constants", lambda N, M: [*constants()(N, M), 0], "The answer is a pair"),
    ("constants", lambda N, M: single(N or M), "Say whose"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](alpha * a + ca(a, a))), "reads the memory"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](alpha * a + ca(m, a))), "memory are exchanged"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: a), "Cross-attention is missing"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](ca(a, m))), "Cross-attention has a skip too"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](a + ca(a, m))), "Cross-attention takes α too"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](alpha * a + ca(x, m))), "Each branch reads"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](alpha * x + ca(a, m))), "The skip carries"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[0](alpha * a + ca(a, m))), "three norms"),
    ("decoder_layer", layer(c=lambda x, b, ffn, n, alpha: n[2](b + ffn(b))), "the feed-forward one too"),
    ("decoder_layer", lambda x, m, sa, ca, ffn, n, alpha: layer()(x, m, sa, ca, ffn, n, 1.0), "α is missing"),
    ("decoder_layer", with_detached(memory=detached), "gradient that comes back to the memory"),
    ("decoder_layer", with_detached(x=detached), "gradient that comes back to x"),
    ("decoder_layer", with_detached(sa=detached), "gradient that comes back to"),
    ("decoder_layer", with_detached(ca=detached), "gradient that comes back to"),
    ("decoder_layer", with_detached(ffn=detached), "gradient that comes back to"),
    ("decoder_layer", torch.no_grad()(by_list), "No gradient passes"),
    ("decoder_layer", of_first_call(by_list), "The branch was not called"),
    ("decoder_layer", by_pop, "changed its input in place"),
    ("decoder_layer", lambda x, m, *rest: by_list(x, m[:, : max(x.shape[1], 4)], *rest), "the value is wrong"),
    ("decoder_layer", cross_last, "Self-attention comes first"),
    ("decoder_layer", on_the_branches, "α is on the wrong term"),
    ("decoder_layer", layer(c=lambda x, b, ffn, n, alpha: b), "The feed-forward sub-layer is missing"),
    ("decoder_layer", layer(a=lambda x, m, sa, ca, ffn, n, alpha: n[0](x + sa(x))), "Self-attention takes α too"),
    (
        "decoder_layer",
        lambda x, m, sa, ca, ffn, n, alpha: layer()(x, m, lambda x: sa(x, x, x), ca, ffn, n, alpha),
        "TypeError",
    ),
    (
        "decoder_layer",
        layer(c=lambda x, b, ffn, n, alpha: n[2](alpha * b + (ffn(b) + ffn(b)) / 2)),
        "Call the branch once",
    ),
    ("decoder_layer", lambda x, m, sa, ca, ffn, n, alpha: layer()(x, m, sa, ca, ffn, [n[0]] * 3, alpha), "three norms"),
    ("decoder_layer", cross_first, "Self-attention comes first"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 4 * d), "The biases are missing"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f), "Only the matrices are counted"),
    (
        "stack_parameters",
        lambda n, d, f: n * (4 * d * d + 2 * d * f + 5 * d + f),
        "attention's four biases, or the two norms",
    ),
    (
        "stack_parameters",
        lambda n, d, f: n * (4 * d * d + 2 * d * f + d + f + 4 * d),
        "attention's four biases, or the two",
    ),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 7 * d + f), "a gain and a bias"),
    (
        "stack_parameters",
        lambda n, d, f: n * (4 * d * d + d + d + 2 * d * f + f + d + 4 * d),
        "query, key and value have d",
    ),
    ("stack_parameters", lambda n, d, f: n * (3 * d * d + 2 * d * f + 8 * d + f), "four matrices"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 10 * d), "a number for each of its units"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + d * f + 8 * d + f), "one up and one down"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 8 * d), "The feed-forward biases are missing"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 11 * d + f), "a third one comes"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 9 * d + f) + 2 * d, "no norm after the last one"),
    ("stack_parameters", lambda n, d, f: max(n, 1) * (4 * d * d + 2 * d * f + 9 * d + f), "A stack of no layers"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 9 * d + f) + 1, "A stack of no layers"),
    ("stack_parameters", lambda n, d, f: by_shapes(n, d, max(d, f)), "the value is wrong"),
    ("stack_parameters", lambda n, d, f: by_shapes(n, f, d), "the value is wrong"),
    ("stack_parameters", lambda n, d, f: 4 * d * d + 2 * d * f + 9 * d + f, "That is one layer"),
]  # fmt: skip
