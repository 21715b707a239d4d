"""Lesson 07, building DeepNet: the rule, a decoder layer, and its size. Fresh weights are judged in building.py."""

from collections.abc import Callable
from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_07.building import build_layers, init_qkv_
from deepnet_edu.checks.lesson_07.constants import constants
from deepnet_edu.checks.sublayers import (
    Branch,
    bare,
    branch_of,
    call_with_functions,
    called_once,
    ln,
    norm_of,
    plainly,
)
from deepnet_edu.checks.tensors import sample

# So small that LN(x + F/α) is right, too.
_EPS = 1e-12


class Norm(nn.Module):
    """A norm as the lesson's own: it has other parameters than nn.LayerNorm."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.gain, self.shift, self.epsilon = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """x, normalised."""
        return bare(x, self.epsilon) * self.gain + self.shift


def deepnorm(trial: Trial) -> None:
    """LN(αx + F(x)): α multiplies the skip, and the norm is taken of the sum."""
    backward: list[Callable[[], None]] = []
    cases = [((2, 5, 8), 2.5), ((3, 4, 12), 0.6), ((1, 3, 16), 6.7), ((2, 5, 8), 1.9)]
    for seed, ((B, T, d), alpha) in enumerate(cases):
        # Independent of each other and neither centred nor of unit length: each of these would hide α.
        calls: list[str] = []
        x, norm = 0.5 * sample(B, T, d, seed=d + seed) + 0.7, norm_of(d, d + 2 + 10 * seed, _EPS)
        f, weight = branch_of(d, d + 1 + 10 * seed, calls)
        given = Norm(norm) if seed % 2 else norm
        with trial.keeping(given):
            got = call_with_functions(trial, x, f, given, alpha)
        once = len(calls)
        trial.equal(got, ln(norm, alpha * x + f(x)), _deepnorm_misconceptions(x, f, norm, alpha))
        called_once(trial, once)

        def right(x: Tensor, f: Branch = f, norm: nn.LayerNorm = norm, alpha: float = alpha) -> Tensor:
            return ln(norm, alpha * x + f(x))

        leaf = x.clone().requires_grad_()
        operands = {"x": leaf, "the branch's weight": weight, "the norm's gain": norm.weight}
        answer = partial(trial.call, leaf, f, given, alpha)
        backward.append(partial(trial.gradients, answer, partial(right, leaf), operands))
    _as_the_lesson_calls_it(trial)
    for compare in backward:
        compare()


def _deepnorm_misconceptions(x: Tensor, f: Branch, norm: nn.LayerNorm, alpha: float) -> list[Misconception]:
    fx, over = f(x), partial(ln, norm)
    own = "That is a norm of your own: use the one that you were given, which has a gain and a bias."
    return [
        # LN(x/α + F) is the same.
        Misconception(over(x + alpha * fx), "α is on the wrong term: the branch is α² times too strong."),
        Misconception(
            over(x + fx),
            "This is LN(x + F(x)), Post-LN: α is missing, or multiplies both terms, where the norm hides it.",
        ),
        Misconception(
            over(alpha * x + fx / (sqrt(2) * alpha)), "β is used once, at initialisation, never in the forward pass."
        ),
        Misconception(alpha * x + f(over(x)), "Scaled skip without a norm on the sum: the stream grows like α^(2N)."),
        Misconception(alpha * x + fx, "The norm on the sum is missing: the stream grows like α^(2N)."),
        Misconception(over(alpha * x) + fx, "The norm goes around the whole sum, not around the skip alone."),
        Misconception(alpha * over(x) + fx, "The norm goes around the whole sum, not around the skip alone."),
        Misconception(alpha * x + over(fx), "You normalised the branch. DeepNorm, as Post-LN, normalises the sum."),
        Misconception(over(alpha * x + over(fx)), "One norm a sub-layer, on the sum: you normalised the branch, too."),
        Misconception(over(alpha * x + f(over(x))), "The branch reads x as it is: the last sub-layer normalised it."),
        Misconception(over(alpha * x + f(alpha * x)), "α scales the skip, not what the branch reads."),
        Misconception(over(x + f(alpha * x)), "α scales the skip, not what the branch reads."),
        Misconception(over(alpha**2 * x + fx), "α comes once: α² makes the skip too strong."),
        Misconception(over(sqrt(alpha) * x + fx), "α itself multiplies the skip: it scales values, not variances."),
        Misconception(alpha * over(x + fx), "α belongs inside the norm, on the skip: outside it scales the stream."),
        Misconception(alpha * over(alpha * x + fx), "α comes once: nothing scales what the norm returns."),
        Misconception(over(alpha * x - fx), "The branch is added to the skip, not subtracted."),
        Misconception(over(fx), "The skip is missing: this is a plain stack of branches."),
        *(Misconception(bare(alpha * x + fx, eps), own) for eps in (0, 1e-5, norm.eps)),
    ]


def _as_the_lesson_calls_it(trial: Trial) -> None:
    """In float32, with α = 1 and with a branch that adds nothing."""
    x, norm = (2 * sample(2, 4, 6, seed=5) + 0.4).float(), norm_of(6, 3, 1e-5).float()
    f, _ = branch_of(6, 4)
    for branch, alpha, sentence in [
        (f, 1.0, "With α = 1 it is Post-LN."),
        (torch.zeros_like, 3.0, "Where the branch adds nothing, α makes no difference: only the norm is left."),
    ]:
        got, right = call_with_functions(trial, x, branch, Norm(norm), alpha), ln(norm, x + branch(x))
        trial.like(got, right)
        trial.require(torch.allclose(got, right, rtol=1e-3, atol=1e-4), sentence)


def decoder_layer(trial: Trial) -> None:
    """Three DeepNorm sub-layers, each LN(αx + F(x)) of what the last one wrote: self-attention with norms[0],
    cross-attention to the memory with norms[1], feed-forward with norms[2]."""
    # Equal lengths first: there exchanged query and memory can be told from other mistakes.
    cases = [((2, 4, 4, 8), 1.7), ((2, 5, 3, 12), 2.5), ((2, 4, 4, 8), 3.1), ((3, 2, 6, 8), 0.7), ((3, 2, 6, 8), 1.0)]
    backward = [_decoder_layer(trial, shape, alpha, seed) for seed, (shape, alpha) in enumerate(cases)]
    for compare in backward:
        compare()


def _decoder_layer(trial: Trial, shape: tuple[int, int, int, int], alpha: float, seed: int) -> Callable[[], None]:
    """The values. Returns what compares the gradients."""
    B, T, S, d = shape
    x, memory = 0.5 * sample(B, T, d, seed=d + seed) + 0.7, sample(B, S, d, seed=d + seed + 1) - 0.4
    u, v, w = ((sample(d, d, seed=d + k + seed) / sqrt(d)).requires_grad_() for k in range(2, 5))
    norms = [norm_of(d, d + k + seed, _EPS) for k in (10, 20, 30)]
    called: list[str] = []

    def self_attention(x: Tensor) -> Tensor:
        called.append("self-attention")
        return torch.softmax(x @ u @ x.transpose(1, 2), -1) @ x @ u

    def cross_attention(x: Tensor, memory: Tensor) -> Tensor:
        called.append("cross-attention")
        return torch.softmax(x @ v @ memory.transpose(1, 2), -1) @ memory @ v

    def ffn(x: Tensor) -> Tensor:
        called.append("feed-forward")
        return torch.tanh(x @ w) + 0.2 * x[..., :1]

    def ln_k(k: int, x: Tensor) -> Tensor:
        return ln(norms[k], x)

    def right(x: Tensor, memory: Tensor, alpha: float = alpha) -> Tensor:
        a = ln_k(0, alpha * x + self_attention(x))
        b = ln_k(1, alpha * a + cross_attention(a, memory))
        return ln_k(2, alpha * b + ffn(b))

    for branch in (self_attention, cross_attention, ffn):
        plainly(branch)
    with trial.keeping(*norms):
        got = call_with_functions(trial, x, memory, self_attention, cross_attention, ffn, norms, alpha)
    seen = list(called)
    a = ln_k(0, alpha * x + self_attention(x))
    b = ln_k(1, alpha * a + cross_attention(a, memory))

    def through(b: Tensor) -> Tensor:
        return ln_k(2, alpha * b + ffn(b))

    bare_a = ln_k(0, x + self_attention(x))
    first = ln_k(0, alpha * x + cross_attention(x, memory))
    same = ln_k(0, alpha * a + cross_attention(a, memory))
    turned = ln_k(2, alpha * x + self_attention(x))
    turned = ln_k(1, alpha * turned + cross_attention(turned, memory))
    late = ln_k(1, alpha * a + ffn(a))
    three = "Three sub-layers, three norms: one for each, in order."
    wrong_term = ln_k(0, x + alpha * self_attention(x))
    wrong_term = ln_k(1, wrong_term + alpha * cross_attention(wrong_term, memory))
    order = "Self-attention comes first, then cross-attention, then feed-forward."
    wrong = [
        Misconception(
            through(ln_k(1, alpha * a + cross_attention(a, a))),
            "Cross-attention reads the memory: queries come from x, keys and values from the encoder.",
        ),
        Misconception(right(x, memory, 1.0), "α is missing in all three sub-layers."),
        Misconception(
            ln_k(2, wrong_term + alpha * ffn(wrong_term)), "α is on the wrong term: it belongs to the skips."
        ),
        Misconception(ln_k(2, b + ffn(b)), "Each of the three sub-layers takes α, the feed-forward one too."),
        Misconception(through(ln_k(1, a + cross_attention(a, memory))), "Cross-attention takes α too."),
        Misconception(
            through(ln_k(1, alpha * bare_a + cross_attention(bare_a, memory))), "Self-attention takes α too."
        ),
        Misconception(through(ln_k(1, cross_attention(a, memory))), "Cross-attention has a skip too."),
        Misconception(
            through(ln_k(1, alpha * x + cross_attention(a, memory))),
            "The skip carries what the last sub-layer wrote, not the layer's input.",
        ),
        Misconception(
            through(ln_k(1, alpha * a + cross_attention(x, memory))),
            "Each branch reads what the last sub-layer wrote, not the layer's input.",
        ),
        Misconception(
            ln_k(2, alpha * b + ffn(a)), "Each branch reads what the last sub-layer wrote, not the one before."
        ),
        Misconception(through(same), three),
        Misconception(ln_k(0, alpha * same + ffn(same)), three),
        Misconception(ln_k(0, alpha * turned + ffn(turned)), three),
        Misconception(through(ln_k(1, alpha * first + self_attention(first))), order),
        Misconception(ln_k(2, alpha * late + cross_attention(late, memory)), order),
        Misconception(through(a), "Cross-attention is missing: this decoder never looks at the encoder."),
        Misconception(b, "The feed-forward sub-layer is missing."),
    ]
    if T == S:
        wrong.append(
            Misconception(
                through(ln_k(1, alpha * a + cross_attention(memory, a))),
                "Query and memory are exchanged: queries come from x, keys and values from the memory.",
            )
        )
    trial.equal(got, right(x, memory), wrong)
    called_once(trial, len(seen), 3)
    leaves = x.clone().requires_grad_(), memory.clone().requires_grad_()
    operands = {"x": leaves[0], "the memory": leaves[1]}
    names = ("self-attention's weight", "cross-attention's weight", "the feed-forward weight")
    operands |= dict(zip(names, (u, v, w), strict=True))
    operands |= {f"the gain of norms[{k}]": norm.weight for k, norm in enumerate(norms)}
    answer = partial(trial.call, *leaves, self_attention, cross_attention, ffn, norms, alpha)
    return partial(trial.gradients, answer, partial(right, *leaves), operands)


def stack_parameters(trial: Trial) -> None:
    """n·(4(d² + d) + 2·d·d_ff + d_ff + d + 4d): four matrices of attention and two of the feed-forward branch, with
    their biases, and a gain and a bias for each of two norms."""
    for n, d, d_ff in [(3, 8, 21), (3, 12, 50), (4, 6, 31), (100, 64, 300), (7, 11, 5)]:
        got = trial.call(n, d, d_ff)
        with torch.device("meta"):
            layer = nn.TransformerEncoderLayer(d, 1, d_ff)
        expected = n * sum(parameter.numel() for parameter in layer.parameters())
        matrices, in_all = 4 * d * d + 2 * d * d_ff, expected // n
        wrong = [
            Misconception(n * (matrices + 4 * d), "The biases are missing: each matrix has one number per output."),
            Misconception(n * matrices, "Only the matrices are counted: biases and norms are missing."),
            Misconception(
                n * (in_all - 4 * d),
                "4·d numbers a layer are missing: attention's four biases, or the two norms with a gain and a bias.",
            ),
            Misconception(
                n * (in_all - 2 * d),
                "2·d numbers a layer are missing: a norm has a gain and a bias, and a layer has two norms; packed or "
                "not, query, key and value have d biases each.",
            ),
            Misconception(n * (in_all - d - d_ff), "The feed-forward biases are missing: one inside, one at its end."),
            Misconception(
                n * (in_all - d),
                "d numbers a layer are missing: attention's output and the feed-forward one have a bias.",
            ),
            Misconception(n * (in_all - d_ff), "The bias inside the feed-forward branch is missing."),
            Misconception(n * (in_all - d * d - d), "Attention has four matrices: query, key, value and output."),
            Misconception(n * (in_all - d * d), "Attention's fourth matrix is missing: only its bias is counted."),
            Misconception(
                n * (in_all + d - d_ff), "The bias inside the feed-forward branch has a number for each of its units."
            ),
            Misconception(n * (in_all + d_ff - d), "The bias at the end of the feed-forward branch has d numbers."),
            Misconception(
                n * (in_all - d * d_ff - d), "The feed-forward branch has two matrices, one up and one down."
            ),
            Misconception(n * (in_all - d * d_ff), "One of the two feed-forward matrices is missing."),
            Misconception(n * (in_all + 2 * d), "A layer has two norms: a third one comes with cross-attention alone."),
            Misconception(n * in_all + 2 * d, "The layers alone are asked for: there is no norm after the last one."),
            Misconception(in_all, "That is one layer: there are n of them."),
        ]
        trial.equal(got, expected, wrong, tolerance=0)
    for n, d, d_ff in [(3, 9, 21), (3, 8, 1), (1, 8, 21), (2, 1, 1), (2, 1, 4)]:
        expected = n * (4 * d * d + 2 * d * d_ff + 9 * d + d_ff)
        trial.equal(trial.call(n, d, d_ff), expected, tolerance=0)
    empty, one, two = (float(trial.call(n, 7, 9)) for n in (0, 1, 2))
    trial.require(empty == 0, "A stack of no layers has no parameters.", "0", f"{empty:g}")
    trial.require(two == 2 * one, "Two layers have twice as many parameters as one.", f"{2 * one:g}", f"{two:g}")


JUDGES: dict[str, Judge] = {
    "deepnorm": deepnorm,
    "constants": constants,
    "init_qkv_": init_qkv_,
    "build_layers": build_layers,
    "decoder_layer": decoder_layer,
    "stack_parameters": stack_parameters,
}
