"""Lesson 07, building DeepNet: the rule, packed initial weights, independent layers, constants, a decoder layer."""

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.constants import constants

Branch = Callable[[Tensor], Tensor]


def _drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _norm(d: int, seed: int) -> nn.LayerNorm:
    """With a gain and bias of its own: at 1 and 0 wrong answers are right. ε so small that LN(x + F/α) is right too."""
    norm = nn.LayerNorm(d, eps=1e-12).double()
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * _drawn(d, seed=seed))
        norm.bias.copy_(0.3 * _drawn(d, seed=seed + 1))
    return norm


def _normalized(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LN written out."""
    c = x - x.mean(-1, keepdim=True)
    return (c / c.square().mean(-1, keepdim=True).sqrt() * norm.weight + norm.bias).detach()


def deepnorm(trial: Trial) -> None:
    """LN(αx + F(x))."""
    for (B, T, d), alpha in [((2, 5, 8), 2.5), ((3, 4, 12), 0.6), ((1, 3, 16), 6.7)]:
        # Independent of each other and neither centred nor of unit length: each of these would hide α.
        x, weight, norm = 0.5 * _drawn(B, T, d, seed=d) + 0.7, _drawn(d, d, seed=d + 1), _norm(d, d + 2)
        calls = 0

        def f(x: Tensor, weight: Tensor = weight) -> Tensor:
            nonlocal calls
            calls += 1
            return torch.tanh(x @ weight) + 0.3 * x[..., :1]

        def ln(x: Tensor, norm: nn.LayerNorm = norm) -> Tensor:
            return _normalized(norm, x)

        got = trial.call(x, f, norm, alpha)
        once = calls
        fx = f(x)
        wrong = [
            Misconception(ln(x + alpha * fx), "α is on the wrong term: the branch is α² too strong."),
            Misconception(
                ln(x + fx),
                "This is LN(x + F(x)), Post-LN: α is missing, or stands before both terms, where the norm hides it.",
            ),
            Misconception(
                ln(alpha * x + fx / (sqrt(2) * alpha)),
                "β is used once, at initialisation, never in the forward pass.",
            ),
            Misconception(alpha * x + f(ln(x)), "Scaled skip without a norm on the sum: the stream grows like α^(2N)."),
            Misconception(alpha * x + fx, "The norm on the sum is missing: the stream grows like α^(2N)."),
            Misconception(ln(alpha * x) + fx, "The norm stands around the whole sum, not around the skip alone."),
            Misconception(alpha * x + ln(fx), "You normalised the branch. DeepNorm, as Post-LN, normalises the sum."),
            Misconception(ln(alpha * x + f(ln(x))), "The branch reads x as it is: the last sub-layer normalised it."),
            Misconception(ln(alpha * x + f(alpha * x)), "α scales the skip, not what the branch reads."),
            Misconception(ln(x + f(alpha * x)), "α scales the skip, not what the branch reads."),
            Misconception(ln(alpha**2 * x + fx), "α comes once: αx, not α²x."),
            Misconception(ln(x / alpha + fx), "α multiplies the skip, it does not divide it."),
            Misconception(ln(fx), "The skip is missing: this is a plain stack of branches."),
        ]
        trial.equal(got, ln(alpha * x + fx), wrong, "The sub-layer is LN(αx + F(x)).", tolerance=1e-8)
        trial.require(
            once == 1,
            "Call the branch once and keep what it returns: it is the costly part, and with dropout two calls differ.",
            "1 call",
            f"{once} calls",
        )


def init_qkv_(trial: Trial) -> None:
    """Xavier-normal slice by slice: gains 1, 1, β."""
    for d, beta in [(256, 0.25), (160, 0.6)]:
        # Not a number to begin with: whatever is left alone shows.
        weight = nn.Parameter(torch.full((3 * d, d), torch.nan))
        trial.change(weight, beta)
        slices = weight.detach().double().chunk(3)
        trial.require(
            not all(bool(part.isnan().any()) for part in slices),
            "The underscore promises a change in place: fill the weight that you were given.",
        )
        for name, part in zip(("query", "key", "value"), slices, strict=True):
            trial.require(bool(part.isfinite().all()), f"The {name} slice was left, or not all of it was drawn.")
        # Xavier: std = gain·√(2/(fan_in + fan_out)), and each slice is d×d.
        gains = np.array([part.std(correction=0).item() * sqrt(d) for part in slices])
        noise = 5 / sqrt(2 * d * d)
        half = 1 / sqrt(2)
        packed = (
            "fan_out of the packed matrix is 3d: every slice comes out √2 too small. Draw each d×d slice by itself."
        )
        order = "The order is query, key, value: β belongs to the last slice."
        default = "This is PyTorch's default for nn.Linear, gain 0.577: the paper draws with Xavier."
        wrong = [
            Misconception(np.array([half, half, half * beta]), packed),
            Misconception(np.array([half, half, half]), packed),
            Misconception(np.array([half, half, half]) * beta, packed),
            Misconception(
                np.array([beta, beta, beta]),
                "The softmax bounds what query and key can do (Lemma 4.1): their gain is 1.",
            ),
            Misconception(np.array([1, beta, 1.0]), order),
            Misconception(np.array([beta, 1.0, 1.0]), order),
            Misconception(np.array([beta, beta, 1.0]), "It is the other way round: gain 1, 1, and β for the value."),
            Misconception(np.array([1, 1, sqrt(beta)]), "Gain multiplies the weights. You scaled the variance."),
            Misconception(np.array([1, 1, beta**2]), "β came in twice: gain β is enough."),
            Misconception(np.array([1, 1, 1.0]), "All gains are 1: this is Post-LN's. The value slice takes β."),
            Misconception(np.array([1, 1, 1 / beta]), "β makes the branch smaller: multiply by it."),
            Misconception(np.array([1, 1, beta]) / sqrt(3), default),
            Misconception(np.array([1, 1, 1]) / sqrt(3), default),
        ]
        trial.equal(gains, np.array([1, 1, beta]), wrong, "The gains of the slices are 1, 1, β.", tolerance=noise)
        for name, part in zip(("query", "key", "value"), slices, strict=True):
            sigma = part.std().item()
            trial.require(
                abs(part.mean().item()) < 5 * sigma / d, f"The {name} slice is not centred on 0: its mean should be 0."
            )
            # E[w⁴]/σ⁴ is 3 for a normal distribution, 1.8 for a uniform one; its own noise is √24/d.
            trial.require(
                abs(part.pow(4).mean().item() / sigma**4 - 3) < 5 * sqrt(24) / d + 0.05,
                "The paper draws from a normal distribution; these have no tails: xavier_normal_, not _uniform_.",
            )
        for a, b, names in ((0, 1, "Query and key"), (0, 2, "Query and value"), (1, 2, "Key and value")):
            together = float(torch.corrcoef(torch.stack([slices[a].flatten(), slices[b].flatten()]))[0, 1])
            trial.require(abs(together) < 6 / d, f"{names} are not independent: draw each slice afresh.")
        again = nn.Parameter(torch.full((3 * d, d), torch.nan))
        trial.change(again, beta)
        trial.require(
            not torch.equal(again, weight),
            "Two calls drew the same weights: with a fixed seed inside, all layers become clones.",
        )


def build_layers(trial: Trial) -> None:
    """n modules, registered, each made by its own call."""
    for n in (5, 3):
        made: list[nn.Module] = []

        def make_layer(made: list[nn.Module] = made) -> nn.Module:
            made.append(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
            return made[-1]

        got = trial.call(make_layer, n)
        if not isinstance(got, nn.ModuleList | nn.Sequential):
            trial.require(
                not isinstance(got, list | tuple),
                "The optimizer cannot see parameters that are not registered: put the layers into an nn.ModuleList.",
                "nn.ModuleList",
                type(got).__name__,
            )
            trial.fail(f"The answer is an nn.ModuleList of layers, not {type(got).__name__}.")
        trial.require(len(got) == n, "Another number of layers was asked for.", f"{n} layers", f"{len(got)} layers")
        matrices = [next(layer.parameters()) for layer in got if isinstance(layer, nn.Sequential)]
        trial.require(len(matrices) == n, "Each layer is what make_layer() returns, as it is.")
        trial.require(
            len({id(layer) for layer in got}) == n,
            "One layer used several times: they share their weights.",
            f"{n} different layers",
            f"{len({id(layer) for layer in got})}",
        )
        distinct = len({tuple(matrix.flatten().tolist()) for matrix in matrices})
        trial.require(
            distinct == n,
            "Separate parameters, equal values: cloned layers, as in exercise 1.3. Call make_layer for each.",
            f"{n} different matrices",
            f"{distinct}",
        )
        trial.require(all(any(layer is own for own in made) for layer in got), "Use the layers that make_layer() made.")
        trial.require(len(made) == n, "make_layer was called more often than there are layers.", f"{n}", f"{len(made)}")
    trial.require(len(trial.call(make_layer, 0)) == 0, "A stack of no layers is an empty nn.ModuleList.")


def decoder_layer(trial: Trial) -> None:
    """Three DeepNorm sub-layers: self-attention, cross-attention to the memory, feed-forward."""
    # Equal lengths first: there an exchange of query and memory can be told from other mistakes.
    for shape, alpha in [((2, 4, 4, 8), 1.7), ((2, 5, 3, 12), 2.5)]:
        _decoder_layer(trial, shape, alpha)


def _decoder_layer(trial: Trial, shape: tuple[int, int, int, int], alpha: float) -> None:
    B, T, S, d = shape
    x, memory = 0.5 * _drawn(B, T, d, seed=d) + 0.7, _drawn(B, S, d, seed=d + 1) - 0.4
    weights = [_drawn(d, d, seed=d + k) / sqrt(d) for k in range(2, 5)]
    norms = nn.ModuleList(_norm(d, d + k) for k in (10, 20, 30))
    called: list[str] = []

    def self_attention(x: Tensor, w: Tensor = weights[0]) -> Tensor:
        called.append("self-attention")
        return torch.softmax(x @ w @ x.transpose(1, 2), -1) @ x @ w

    def cross_attention(x: Tensor, memory: Tensor, w: Tensor = weights[1]) -> Tensor:
        called.append("cross-attention")
        return torch.softmax(x @ w @ memory.transpose(1, 2), -1) @ memory @ w

    def ffn(x: Tensor, w: Tensor = weights[2]) -> Tensor:
        called.append("feed-forward")
        return torch.tanh(x @ w) + 0.2 * x[..., :1]

    def ln(k: int, x: Tensor, norms: nn.ModuleList = norms) -> Tensor:
        norm = norms[k]
        assert isinstance(norm, nn.LayerNorm)
        return _normalized(norm, x)

    got = trial.call(x, memory, self_attention, cross_attention, ffn, norms, alpha)
    seen = list(called)
    a = ln(0, alpha * x + self_attention(x))
    b = ln(1, alpha * a + cross_attention(a, memory))
    expected = ln(2, alpha * b + ffn(b))

    def through(b: Tensor, alpha: float = alpha, ffn: Branch = ffn) -> Tensor:
        return ln(2, alpha * b + ffn(b))

    post_a = ln(0, x + self_attention(x))
    post_b = ln(1, post_a + cross_attention(post_a, memory))
    first = ln(0, alpha * x + cross_attention(x, memory))
    same = ln(0, alpha * a + cross_attention(a, memory))
    wrong = [
        Misconception(
            through(ln(1, alpha * a + cross_attention(a, a))),
            "Cross-attention reads the memory: queries come from x, keys and values from the encoder.",
        ),
        Misconception(ln(2, post_b + ffn(post_b)), "α is missing: each of the three sub-layers is LN(αx + F(x))."),
        Misconception(ln(2, b + ffn(b)), "Each of the three sub-layers takes α, the feed-forward one too."),
        Misconception(through(ln(1, a + cross_attention(a, memory))), "Cross-attention takes α too."),
        Misconception(through(ln(1, cross_attention(a, memory))), "Cross-attention has a skip too."),
        Misconception(
            through(ln(1, alpha * x + cross_attention(a, memory))),
            "The skip carries what the last sub-layer wrote, not the layer's input.",
        ),
        Misconception(
            through(ln(1, alpha * a + cross_attention(x, memory))),
            "Each branch reads what the last sub-layer wrote, not the layer's input.",
        ),
        Misconception(through(same), "Three sub-layers, three norms: the second is norms[1]."),
        Misconception(ln(0, alpha * same + ffn(same)), "Three sub-layers, three norms: norms[0] to norms[2]."),
        Misconception(
            through(ln(1, alpha * first + self_attention(first))),
            "Self-attention comes first, then cross-attention, then feed-forward.",
        ),
        Misconception(through(a), "Cross-attention is missing: this decoder never looks at the encoder."),
    ]
    if T == S:
        wrong.append(
            Misconception(
                through(ln(1, alpha * a + cross_attention(memory, a))),
                "Cross-attention is exchanged: queries come from x, keys and values from the memory.",
            )
        )
    trial.equal(got, expected, wrong, "Three times LN(αx + F(x)): self-attention, cross-attention, feed-forward.", 1e-8)
    trial.require(len(seen) == 3, "Call each branch once.", "3 calls", f"{len(seen)} calls: {', '.join(seen)}")


def stack_parameters(trial: Trial) -> None:
    """n·(4(d² + d) + 2·d·d_ff + d_ff + d + 4d), as PyTorch's own encoder counts them."""
    for n, d, d_ff in [(3, 8, 20), (5, 12, 12), (1, 6, 30)]:
        got = trial.call(n, d, d_ff)
        with torch.device("meta"):
            layer = nn.TransformerEncoderLayer(d, 2, d_ff)
        expected = n * sum(parameter.numel() for parameter in layer.parameters())
        attention, ffn, norms = 4 * (d * d + d), 2 * d * d_ff + d_ff + d, 4 * d
        wrong = [
            Misconception(n * (4 * d * d + 2 * d * d_ff + norms), "Each matrix has a bias, with a number per output."),
            Misconception(n * (4 * d * d + 2 * d * d_ff), "Biases and norms are missing."),
            Misconception(n * (attention + ffn), "The two norms are missing: a gain and a bias of d numbers each."),
            Misconception(n * (attention + ffn + 2 * d), "A layer has two norms, and each has a gain and a bias."),
            Misconception(
                n * (3 * (d * d + d) + ffn + norms), "Attention has four matrices: query, key, value and output."
            ),
            Misconception(
                n * (attention + 2 * d * d_ff + 2 * d + norms),
                "The bias inside the feed-forward branch has d_ff numbers.",
            ),
            Misconception(
                n * (attention + d * d_ff + d_ff + norms),
                "The feed-forward branch has two matrices, one up and one down.",
            ),
            Misconception(attention + ffn + norms, "That is one layer: there are n of them."),
        ]
        trial.equal(got, expected, wrong, "n·(4(d² + d) + 2·d·d_ff + d_ff + d + 4d).", tolerance=0)


JUDGES: dict[str, Judge] = {
    "deepnorm": deepnorm,
    "constants": constants,
    "init_qkv_": init_qkv_,
    "build_layers": build_layers,
    "decoder_layer": decoder_layer,
    "stack_parameters": stack_parameters,
}
