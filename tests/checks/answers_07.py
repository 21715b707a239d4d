"""Lesson 07: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import copy
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import deepnet_edu
from deepnet_edu.residual import RESIDUALS, Place


def tensor(g: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(g.normal(0.5, 1, shape))


def norm_of(g: np.random.Generator, d: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(d).double()
    norm.weight.data, norm.bias.data = tensor(g, d), tensor(g, d)
    return norm


def see_deepnorm(f: Callable, g: np.random.Generator) -> Any:
    w = tensor(g, 6, 6)
    return f(tensor(g, 2, 3, 6), lambda x: torch.tanh(x @ w), norm_of(g, 6), g.uniform(0.5, 4)).detach()


def see_init(f: Callable, g: np.random.Generator) -> Any:
    torch.manual_seed(int(g.integers(1000)))
    weight = nn.Parameter(torch.zeros(12, 4))
    f(weight, g.uniform(0.1, 2))
    return weight.detach()


def see_layers(f: Callable, g: np.random.Generator) -> Any:
    torch.manual_seed(0)
    layers = f(lambda: nn.Linear(2, 2), int(g.integers(1, 4)))
    return torch.cat([p.detach().flatten() for p in layers.parameters()])


def see_constants(f: Callable, g: np.random.Generator) -> Any:
    N, M = (int(n) for n in g.integers(0, 100, 2) * g.choice([[1, 1], [1, 0], [0, 1]]))
    return [x for pair in f(max(N, M == 0), M) for x in (pair or (-1, -1))]


def see_decoder_layer(f: Callable, g: np.random.Generator) -> Any:
    a, b, c = tensor(g, 6, 6), tensor(g, 6, 6), tensor(g, 6, 6)
    return f(
        tensor(g, 2, 3, 6),
        tensor(g, 2, 5, 6),
        lambda x: torch.tanh(x @ a).cumsum(1),
        lambda x, y: torch.softmax(x @ b @ y.mT, -1) @ y,
        lambda x: torch.tanh(x @ c),
        [norm_of(g, 6) for _ in range(3)],
        g.uniform(0.5, 4),
    ).detach()


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


def cross_first(x, memory, self_attention, cross_attention, ffn, norms, alpha):
    x = norms[0](alpha * x + cross_attention(x, memory))
    x = norms[1](alpha * x + self_attention(x))
    return norms[2](alpha * x + ffn(x))


RIGHT = [
    ("deepnorm", lambda x, f, norm, alpha: norm(x + f(x) / alpha)),
    ("deepnorm", lambda x, f, norm, alpha: norm(torch.add(f(x), x, alpha=alpha))),
    ("deepnorm", library_rule),
    ("init_qkv_", by_hand),
    ("init_qkv_", lambda weight, beta: filled(one, one, same)(weight, beta)),
    ("build_layers", by_loop),
    ("build_layers", lambda make_layer, n: nn.ModuleList([make_layer() for i in range(n)])),
    ("build_layers", lambda make_layer, n: nn.Sequential(*(make_layer() for i in range(n)))),
    ("constants", by_table),
    ("constants", constants(encoder=unrounded)),
    ("constants", constants(lambda L: (np.sqrt(np.sqrt(2 * L)), 1 / np.sqrt(np.sqrt(8 * L))))),
    ("constants", constants(lambda L: np.float32([2 * L, 8 * L]) ** np.float32([0.25, -0.25]))),
    ("constants", lambda N, M: tuple(pair and torch.tensor(pair) for pair in constants()(N, M))),
    ("decoder_layer", layer()),
    ("decoder_layer", by_list),
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
    ("deepnorm", lambda x, f, norm, a: norm(2.5 * x + f(x)), "The sub-layer is LN(αx + F(x))"),
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
    ("init_qkv_", lambda w, b: nn.init.xavier_normal_(w.data.chunk(3)[2], gain=b), "The query slice was left"),
    ("build_layers", lambda make, n: nn.ModuleList([make()] * n), "One layer used several times"),
    ("build_layers", cloned, "cloned layers"),
    ("build_layers", lambda make, n: [make() for _ in range(n)], "not registered"),
    ("build_layers", lambda make, n: nn.ModuleList(make() for _ in range(n - 1)), "Another number of layers"),
    ("build_layers", lambda make, n: nn.ModuleList(make() for _ in range(5)), "Another number of layers"),
    ("build_layers", lambda make, n: nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(n)), "that make"),
    ("build_layers", lambda make, n: make(), "Another number of layers"),
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
    ("constants", constants(decoder=single), "three sub-layers: 3M"),
    ("constants", constants(encoder=lambda N, M: single(N)), "depend on M too"),
    ("constants", constants(encoder=lambda N, M: paper(M, N)), "(N⁴M)^(1/16)"),
    ("constants", constants(encoder=lambda N, M: (0.81 * (N**4 * M) ** 1 / 16, paper(N, M)[1])), "(x**1)/16"),
    ("constants", lambda N, M: constants()(M, N), "The arguments are exchanged"),
    ("constants", constants(encoder=lambda N, M: paper(N, N)), "the pairs are others"),
    ("constants", constants(decoder=lambda M: ((3 * M) ** 0.25, (3 * M) ** -0.25)), "For the decoder's β two matrices"),
    ("constants", constants(lambda L: tuple(map(str, single(L)))), "a pair (α, β) of numbers"),
    ("constants", constants(lambda L: single(min(L, 100))), "For a stack alone the pair is another one"),
    ("constants", constants(encoder=lambda N, M: (paper(N, M)[0], 1.15 / 0.87 * paper(N, M)[1])), "A published bug"),
    ("constants", lambda N, M: constants()(N, M)[:: -1 if N * M else 1], "the encoder comes first"),
    ("constants", lambda N, M: constants()(N or 1, M or 1), "has no constants for it"),
    ("constants", lambda N, M: ((2 * N) ** 0.25, None), "The encoder's constants are a pair"),
    ("constants", lambda N, M: [*constants()(N, M), 0], "The answer is a pair"),
    ("constants", lambda N, M: single(N or M), "Say whose"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](alpha * a + ca(a, a))), "reads the memory"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](alpha * a + ca(m, a))), "is exchanged"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: a), "Cross-attention is missing"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](ca(a, m))), "Cross-attention has a skip too"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](a + ca(a, m))), "Cross-attention takes α too"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](alpha * a + ca(x, m))), "Each branch reads"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[1](alpha * x + ca(a, m))), "The skip carries"),
    ("decoder_layer", layer(b=lambda x, a, m, ca, n, alpha: n[0](alpha * a + ca(a, m))), "three norms"),
    ("decoder_layer", layer(c=lambda x, b, ffn, n, alpha: n[2](b + ffn(b))), "the feed-forward one too"),
    ("decoder_layer", lambda x, m, sa, ca, ffn, n, alpha: layer()(x, m, sa, ca, ffn, n, 1.0), "α is missing"),
    ("decoder_layer", lambda x, m, sa, ca, ffn, n, alpha: layer()(x, m, sa, ca, ffn, [n[0]] * 3, alpha), "three norms"),
    ("decoder_layer", cross_first, "Self-attention comes first"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 4 * d), "Each matrix has a bias"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f), "Biases and norms are missing"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 5 * d + f), "The two norms are missing"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 7 * d + f), "a gain and a bias"),
    ("stack_parameters", lambda n, d, f: n * (3 * d * d + 2 * d * f + 8 * d + f), "four matrices"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + 2 * d * f + 10 * d), "has d_ff numbers"),
    ("stack_parameters", lambda n, d, f: n * (4 * d * d + d * f + 8 * d + f), "one up and one down"),
    ("stack_parameters", lambda n, d, f: 4 * d * d + 2 * d * f + 9 * d + f, "That is one layer"),
]  # fmt: skip
