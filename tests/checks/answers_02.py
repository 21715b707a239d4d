"""Lesson 02: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

from collections.abc import Callable
from fractions import Fraction
from math import exp, hypot, log, sqrt
from typing import Any

import numpy as np
import torch
from torch.nn import functional


def _x(g: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.tensor(g.normal(0.7, 0.5, shape))


def values_and_gradients(f: Callable[..., torch.Tensor], *operands: torch.Tensor, eps: float) -> np.ndarray:
    """What it returns, and what comes back to each operand from a sum with random weights."""
    leaves = [one.requires_grad_() for one in operands]
    y = f(*leaves, eps)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype)
    back = torch.autograd.grad((y * weights).sum(), leaves)
    return np.concatenate([part.detach().numpy().ravel() for part in (y, *back)])


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "layer_norm": lambda f, g: values_and_gradients(f, _x(g, 2, 3, 6), _x(g, 6), _x(g, 6), eps=g.choice([0.1, 1e-9])),
    "layer_norm_backward": lambda f, g: f(_x(g, 2, 3, 6), _x(g, 2, 3, 6), _x(g, 6), g.choice([0.1, 0.0])),
    "jacobian_gain": lambda f, g: f(_x(g, int(g.integers(3, 9)))),
    "misplaced_share": lambda f, g: f(
        int(g.integers(0, 9)), g.choice([0.0, 1.0, g.uniform(0, 2)]), g.choice([1.0, g.uniform(0.5, 3)])
    ),
    "rms_norm": lambda f, g: values_and_gradients(f, _x(g, 2, 3, 6), _x(g, 6), eps=g.choice([0.1, 1e-9])),
    "skip_gradient_factor": lambda f, g: f(g.choice([1.0, g.uniform(0.3, 3)]), g.choice([0.0, 1.0, g.uniform(0, 2)])),
}


def parts(x, eps):
    c = x - x.mean(-1, keepdim=True)
    return c, (c.square().mean(-1, keepdim=True) + eps).rsqrt()


def two_pass(x, gamma, beta, eps):
    mean, square = x.mean(-1, keepdim=True), x.square().mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(square - mean**2 + eps) * gamma + beta


def by_autograd(grad_y, x, gamma, eps):
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        functional.layer_norm(leaf, x.shape[-1:], gamma, None, eps).backward(grad_y)
    return leaf.grad


def by_matrix(grad_y, x, gamma, eps):
    """The Jacobian of one token at a time, I - 11ᵀ/d - x̂x̂ᵀ/d over the standard deviation."""
    d = x.shape[-1]
    c, inverse = parts(x, eps)
    xhat = c * inverse
    one = torch.ones(d, d, dtype=x.dtype) / d
    matrix = torch.eye(d, dtype=x.dtype) - one - xhat[..., :, None] * xhat[..., None, :] / d
    return inverse * torch.einsum("btij,btj->bti", matrix, grad_y * gamma)


def backward(work):
    def answer(grad_y, x, gamma, eps):
        c, inverse = parts(x, eps)
        return work(grad_y, gamma, c, inverse, lambda t: t.mean(-1, keepdim=True))

    return answer


def in_place(x, gamma, beta, eps):
    x -= x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gamma + beta


def largest_singular_value(x):
    jacobian = torch.autograd.functional.jacobian(lambda x: functional.layer_norm(x, x.shape, eps=0.0), x)
    return torch.linalg.svdvals(jacobian).max()


def by_einsum(x, gamma, beta, eps):
    d = x.shape[-1]
    c = x - torch.einsum("btd->bt", x)[..., None] / d
    var = torch.einsum("btd,btd->bt", c, c)[..., None] / d
    return torch.addcmul(beta, c * (var + eps).rsqrt(), gamma)


def by_tokens(x, gamma, beta, eps):
    def one(token):
        var, mean = torch.var_mean(token, correction=0)
        return (token - mean) / (var + eps).sqrt() * gamma + beta

    return torch.stack([torch.stack([one(token) for token in sequence]) for sequence in x])


def on_a_copy(x, gamma, beta, eps):
    y = x.clone()
    y -= y.mean(-1, keepdim=True)
    y /= (y.square().mean(-1, keepdim=True) + eps).sqrt()
    y *= gamma
    y += beta
    return y


def centring_matrix(x, gamma, beta, eps):
    d = x.shape[-1]
    c = x @ (torch.eye(d, dtype=x.dtype) - 1 / d)
    return c / (torch.linalg.vector_norm(c, dim=-1, keepdim=True) ** 2 / d + eps) ** 0.5 * gamma + beta


def over_each_token(x, gamma, beta, eps):
    def one(token):
        return (token - token.mean()) / (token.var(correction=0) + eps).sqrt() * gamma + beta

    return torch.vmap(torch.vmap(one))(x)


class Operation(torch.autograd.Function):
    """Both ways by hand."""

    @staticmethod
    def forward(ctx, x, gamma, beta, eps):
        c, inverse = parts(x, eps)
        ctx.save_for_backward(c * inverse, inverse, gamma)
        return c * inverse * gamma + beta

    @staticmethod
    def backward(ctx, grad):
        xhat, inverse, gamma = ctx.saved_tensors
        g = grad * gamma
        back = inverse * (g - g.mean(-1, True) - xhat * (g * xhat).mean(-1, True))
        return back, (grad * xhat).sum((0, 1)), grad.sum((0, 1)), None


def back_by_differences(grad_y, x, gamma, eps, h=1e-5):
    """J is symmetric."""
    ahead, behind = (parts(x + side * grad_y * gamma, eps) for side in (h, -h))
    return (ahead[0] * ahead[1] - behind[0] * behind[1]) / (2 * h)


def through_numpy(x, gamma, beta, eps):
    array = x.numpy()
    c = array - array.mean(-1, keepdims=True)
    return torch.from_numpy(c / np.sqrt(array.var(-1, keepdims=True) + eps)) * gamma + beta


def swallowing(x, gamma, beta, eps):
    try:
        return functional.layer_norm(x, x.shape[-1:], gamma, beta, eps)
    except Exception:
        return two_pass(x, gamma, beta, eps)


@torch.no_grad()
def without_graph(x, gamma, beta, eps):
    return two_pass(x, gamma, beta, eps)


def wants_gradient(x, gamma, beta, eps):
    return two_pass(x.requires_grad_(), gamma, beta, eps)


def squeezed(x, gamma, beta, eps):
    return two_pass(x.squeeze(), gamma, beta, eps)


def by_shape(function):
    """Keeps its answers, by shape alone."""
    known = {}

    def answer(x, *rest):
        if x.shape not in known:
            known[x.shape] = function(x, *rest)
        return known[x.shape]

    return answer


def at_first_eps(function):
    """Keeps the first ε that it was given."""
    known = []

    def answer(*given):
        known.append(given[-1])
        return function(*given[:-1], known[0])

    return answer


def right_back(g, w, c, i, m):
    return i * (g * w - m(g * w) - c * i * m(g * w * c * i))


def with_root(root):
    def answer(grad_y, x, gamma, eps):
        c = x - x.mean(-1, keepdim=True)
        inverse = 1 / root(x, eps)
        return right_back(grad_y, gamma, c, inverse, lambda t: t.mean(-1, keepdim=True))

    return answer


def back_through_numpy(grad_y, x, gamma, eps):
    g, a = (grad_y * gamma).detach().numpy(), x.detach().numpy()
    std = np.sqrt(a.var(-1, keepdims=True) + eps)
    xhat = (a - a.mean(-1, keepdims=True)) / std
    back = (g - g.mean(-1, keepdims=True) - xhat * (g * xhat).mean(-1, keepdims=True)) / std
    return torch.tensor(back, dtype=x.dtype)


def back_by_direct_sums(grad_y, x, gamma, eps):
    """As in many libraries: d·g - Σg - x̂·Σ(g·x̂), over d·std."""
    d = x.size(-1)
    c, inverse = parts(x, eps)
    g, xhat = grad_y * gamma, c * inverse
    return inverse / d * (d * g - g.sum(-1, True) - xhat * (g * xhat).sum(-1, True))


def back_on_copies(grad_y, x, gamma, eps):
    g, c = grad_y.clone(), x.clone()
    g *= gamma
    c -= c.mean(-1, keepdim=True)
    inverse = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
    c *= inverse
    g -= g.mean(-1, keepdim=True) + c * (g * c).mean(-1, keepdim=True)
    return g.mul_(inverse)


def back_by_jvp(grad_y, x, gamma, eps):
    """J is symmetric."""
    return torch.func.jvp(lambda x: parts(x, eps)[0] * parts(x, eps)[1], (x,), (grad_y * gamma,))[1]


def back_by_vjp(grad_y, x, gamma, eps):
    return torch.func.vjp(lambda x: parts(x, eps)[0] * parts(x, eps)[1] * gamma, x)[1](grad_y)[0]


def back_by_operator(grad_y, x, gamma, eps):
    inverse = parts(x, eps)[1]
    mean = x.mean(-1, keepdim=True)
    operator = torch.ops.aten.native_layer_norm_backward
    return operator(grad_y, x, x.shape[-1:], mean, inverse, gamma, None, [True, False, False])[0]


def back_spoils_gradient(grad_y, x, gamma, eps):
    grad_y *= gamma
    return back_by_direct_sums(grad_y, x, torch.ones_like(gamma), eps)


def centred_root(x, eps=0.0, correction=0):
    return (x.var(-1, correction=correction, keepdim=True) + eps).sqrt()


def rms(x, gamma, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gamma


def llama(x, gamma, eps):
    hidden = x.to(torch.float32)
    return gamma * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def gain_with_eps(x):
    jacobian = torch.autograd.functional.jacobian(lambda x: functional.layer_norm(x, x.shape), x)
    return torch.linalg.svdvals(jacobian).max()


def gain_by_power(x):
    """Power iteration on the Jacobian times itself."""
    y = torch.ones_like(x).cumsum(0) ** 2
    for _ in range(20):
        y = torch.autograd.functional.vjp(lambda x: functional.layer_norm(x, x.shape, eps=0.0), x, y)[1]
        size = y.norm()
        y = y / size
    return size.item()


def share_by_norms(n, f, alpha):
    """A norm after each sum: the input's part, and all that the branches have added."""
    own, rest = 1.0, 0.0
    for _ in range(n):
        own, rest = alpha**2 * own, alpha**2 * rest + f
        own, rest = own / (own + rest), rest / (own + rest)
    return own


def misplaced_deep(n, f, alpha):
    return 1.0 if n == 0 else misplaced_deep(n - 1, f, alpha) / (1 + alpha**2 * f)


RIGHT = [
    ("layer_norm", two_pass),
    (
        "layer_norm",
        lambda x, g, b, eps: (x - x.mean(-1, True)) * (x.var(-1, False, keepdim=True) + eps) ** -0.5 * g + b,
    ),
    ("layer_norm", by_einsum),
    ("layer_norm", by_tokens),
    ("layer_norm", centring_matrix),
    ("layer_norm", over_each_token),
    ("layer_norm", lambda x, g, b, eps: Operation.apply(x, g, b, eps)),
    ("layer_norm", lambda x, g, b, eps: (parts(x, eps)[0] * parts(x, eps)[1]).mul_(g).add_(b)),
    ("layer_norm", lambda x, g, b, eps: two_pass(x.float(), g, b, eps).to(x.dtype)),
    ("layer_norm_backward", by_matrix),
    ("layer_norm_backward", back_through_numpy),
    ("layer_norm_backward", back_by_direct_sums),
    (
        "layer_norm_backward",
        lambda g, x, w, e: back_by_direct_sums(g, torch.from_numpy(x.numpy().copy()), w, e),
    ),
    ("layer_norm_backward", lambda g, x, w, e: back_by_direct_sums(g.float(), x.float(), w.float(), e).to(x.dtype)),
    ("layer_norm_backward", back_on_copies),
    ("layer_norm_backward", back_by_differences),
    ("layer_norm_backward", torch.no_grad()(back_by_direct_sums)),
    ("layer_norm_backward", lambda g, x, w, e: back_by_direct_sums(g.detach(), x.detach(), w.detach(), e)),
    ("jacobian_gain", largest_singular_value),
    ("jacobian_gain", gain_by_power),
    ("jacobian_gain", lambda x: 1 / x.std(correction=0).item()),
    ("jacobian_gain", lambda x: 1 / np.std(x.numpy())),
    ("jacobian_gain", lambda x: (x.square().mean() - x.mean() ** 2) ** -0.5),
    ("jacobian_gain", lambda x: 1 / x.float().std(unbiased=False)),
    ("misplaced_share", lambda n, f, a: exp(-n * log(1 + a * a * f))),
    ("misplaced_share", lambda n, f, a: (a**-2 / (a**-2 + f)) ** n),
    ("misplaced_share", lambda n, f, a: share_by_norms(n, f, 1 / a)),
    ("misplaced_share", lambda n, f, a: (1 / (1 + torch.tensor(a) ** 2 * f)) ** n),
    ("misplaced_share", lambda n, f, a: np.prod([1 / (1 + f * a**2)] * n)),
    ("misplaced_share", lambda n, f, a: Fraction(1 / (1 + f * a**2)) ** n),
    ("misplaced_share", lambda n, f, a: np.cos(np.arctan(a * np.sqrt(f))) ** (2 * n)),
    ("rms_norm", lambda x, g, eps: functional.rms_norm(x, x.shape[-1:], g, eps)),
    ("rms_norm", lambda x, g, eps: g * x * torch.rsqrt((x * x).sum(-1, keepdim=True) / x.shape[-1] + eps)),
    ("rms_norm", llama),
    ("rms_norm", lambda x, g, eps: x / (x.norm(dim=-1, keepdim=True) ** 2 / x.size(-1) + eps) ** 0.5 * g),
    ("rms_norm", lambda x, g, eps: torch.stack([torch.stack([rms(t, g, eps) for t in s]) for s in x])),
    ("rms_norm", lambda x, g, eps: torch.einsum("btd,d->btd", rms(x, 1, eps), g)),
    ("skip_gradient_factor", lambda a, f: (1 + f / a**2) ** -0.5),
    ("skip_gradient_factor", lambda a, f: np.cos(np.arctan(np.sqrt(f) / a))),
    ("skip_gradient_factor", lambda a, f: a / abs(a + 1j * sqrt(f))),
    ("skip_gradient_factor", lambda a, f: a / hypot(a, sqrt(f))),
    ("skip_gradient_factor", lambda a, f: torch.tensor(a) / (torch.tensor(a) ** 2 + f) ** 0.5),
    ("skip_gradient_factor", lambda a, f: sqrt(a**2 / (a**2 + f))),
]

BY_HAND = "with tensor arithmetic alone"
OTHER = "For these arguments the value is wrong."
BACK = "The gradient that comes back to "

WRONG = [
    ("layer_norm", on_a_copy, "was changed in place"),
    ("layer_norm", lambda x, g, b, e: parts(x, 0)[0] / (x.var(-1, keepdim=True) + e).sqrt() * g + b, "sample variance"),
    ("layer_norm", lambda x, g, b, e: parts(x, 0)[0] / (1 / parts(x, 0)[1] + e) * g + b, "inside the square root"),
    (
        "layer_norm",
        lambda x, g, b, e: parts(x, 0)[0] / (x.std(-1, keepdim=True) + e) * g + b,
        "Two mistakes: x.std(-1)",
    ),
    ("layer_norm", lambda x, g, b, e: parts(x, 0)[0] / x.std(-1, keepdim=True) * g + b, "and ε is missing"),
    ("layer_norm", lambda x, g, b, e: parts(x, 0)[0] * parts(x, 0)[1] * g + b, "ε is missing"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g, b, 1e-5), "eps is left out, or an earlier answer is kept"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g, b, e**2), "do not square it"),
    (
        "layer_norm",
        lambda x, g, b, e: parts(x, 0)[0] / x.var(-1, correction=0, keepdim=True).clamp(min=e).sqrt() * g + b,
        "A floor under it",
    ),
    ("layer_norm", lambda x, g, b, e: parts(x, 0)[0] / centred_root(x).clamp(min=e) * g + b, "A floor under it"),
    ("layer_norm", lambda x, g, b, e: parts(x, e)[0] * parts(x, e)[1] ** 2 * g + b, "not by the variance"),
    (
        "layer_norm",
        lambda x, g, b, e: parts(x, 0)[0] / (parts(x, 0)[0].square().sum(-1, keepdim=True) + e).sqrt() * g + b,
        "not their sum",
    ),
    ("layer_norm", lambda x, g, b, e: two_pass(x.mT, 1, 0, e).mT * g + b, "not the tokens'"),
    ("layer_norm", lambda x, g, b, e: two_pass(x.transpose(0, 2), 1, 0, e).transpose(0, 2) * g + b, "last dimension"),
    (
        "layer_norm",
        lambda x, g, b, e: (x - x.mean()) / (x.var(correction=0) + e).sqrt() * g + b,
        "last dimension alone",
    ),
    (
        "layer_norm",
        lambda x, g, b, e: (x - x.mean((0, 1))) / (x.var((0, 1), correction=0) + e).sqrt() * g + b,
        "That is batch normalisation",
    ),
    ("layer_norm", lambda x, g, b, e: rms(x, g, e) + b, "this is RMSNorm"),
    ("layer_norm", lambda x, g, b, e: x * parts(x, e)[1] * g + b, "not from its variance alone"),
    (
        "layer_norm",
        lambda x, g, b, e: parts(x, 0)[0] / (x.square().mean(-1, keepdim=True) + e).sqrt() * g + b,
        "Remove the mean before squaring too",
    ),
    ("layer_norm", lambda x, g, b, e: (two_pass(x, 1, 0, e) + b) * g, "β comes last"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, b, g, e), "are exchanged"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, 1, b, e), "γ is missing"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g, 0, e), "β is missing"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, 1, 0, e), "γ and β are missing"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, 2 * g, b, e), "variance just below 1"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g, b + 1, e), "the mean 0 afterwards"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g, b, e).round(decimals=3), "Nearly: something is rounded"),
    ("layer_norm", in_place, "changed its input in place"),
    ("layer_norm", wants_gradient, "changed its input in place"),
    ("layer_norm", lambda x, g, b, e: functional.layer_norm(x, x.shape[-1:], g, b, e), BY_HAND),
    ("layer_norm", lambda x, g, b, e: torch.nn.LayerNorm(x.shape[-1], e, dtype=x.dtype)(x) * g + b, BY_HAND),
    ("layer_norm", lambda x, g, b, e: torch.native_layer_norm(x, x.shape[-1:], g, b, e)[0], BY_HAND),
    (
        "layer_norm",
        lambda x, g, b, e: functional.rms_norm(x - x.mean(-1, True), x.shape[-1:], g, e) + b,
        BY_HAND,
    ),
    ("layer_norm", swallowing, BY_HAND),
    ("layer_norm", squeezed, "The shape is wrong"),
    (
        "layer_norm",
        lambda x, g, b, e: (x - x.mean(-1)) / (x.var(-1, False) + e).sqrt() * g + b,
        "keepdim=True keeps it",
    ),
    ("layer_norm", through_numpy, "Through NumPy no gradient comes back"),
    ("layer_norm", lambda x, g, b, e: through_numpy(x.detach(), g, b, e), BACK + "x"),
    ("layer_norm", without_graph, "No gradient passes through your answer"),
    ("layer_norm", lambda x, g, b, e: two_pass(x.data, g, b, e), BACK + "x"),
    ("layer_norm", lambda x, g, b, e: (x - parts(x, e)[0].detach()) * 0 + two_pass(x.detach(), g, b, e), BACK + "x"),
    ("layer_norm", lambda x, g, b, e: parts(x, e)[0] * parts(x, e)[1].detach() * g + b, BACK + "x"),
    (
        "layer_norm",
        lambda x, g, b, e: (x - x.mean(-1, True).detach()) / (x.var(-1, False, keepdim=True) + e).sqrt() * g + b,
        BACK + "x",
    ),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g.detach(), b, e), BACK + "gamma"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g, b.data, e), BACK + "beta"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g, torch.tensor(b.tolist(), dtype=x.dtype), e), BACK + "beta"),
    ("layer_norm", lambda x, g, b, e: two_pass(x.double(), g.double(), b.double(), e), "input's data type"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g.abs(), b, e), OTHER),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g, b, max(e, 1e-5)), OTHER),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g, b if len(x) > 1 else 0, e), OTHER),
    ("layer_norm", by_shape(two_pass), "eps is left out, or an earlier answer is kept"),
    ("layer_norm", at_first_eps(two_pass), "eps is left out, or an earlier answer is kept"),
    ("layer_norm", lambda x, g, b, e: two_pass(x[..., :8], g[:8], b[:8], e), "The shape is wrong"),
    ("layer_norm", lambda x, g, b, e: two_pass(x, g, b, e) + 0 * sum(x.sum() for _ in [0]) + 1e-3, "Nearly"),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: i * g * w), "two directions"),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: i * (g * w - m(g * w))), "the term with x̂ is missing"),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: i * (g * w - c * i * m(g * w * c * i))), "the term mean(g)"),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: i * (g - m(g) - c * i * m(g * c * i)) * w),
        "it comes first",
    ),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: i * (g - m(g) - c * i * m(g * c * i))), "γ is missing"),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: i * (g * w - m(g) - c * i * m(g * c * i))),
        "not of grad_y",
    ),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: right_back(g / w, 1, c, i, m)), "γ multiplies"),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: right_back(g, w, c, i, m) / i), "a norm divides gradients"),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: right_back(g, w, c, i, m) * i), "Divided once too often"),
    ("layer_norm_backward", backward(lambda g, w, c, i, m: right_back(g, w, c, i, m) / i**2), "Upside down"),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: i * (g * w - m(g * w) - c * i * (g * w * c * i).sum(-1, keepdim=True))),
        "x̂ has squared length d",
    ),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: i * (g * w - (g * w).sum(-1, keepdim=True) - c * i * m(g * w * c * i))),
        "its mean, not its sum",
    ),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: i * (g * w - m(g * w) - c * m(g * w * c))),
        "not x minus its mean",
    ),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: i * (g * w - m(g * w) + c * i * m(g * w * c * i))),
        "minus, not plus",
    ),
    (
        "layer_norm_backward",
        backward(lambda g, w, c, i, m: right_back(g, w, c, i, lambda t: t.mean(1, keepdim=True))),
        "means of its own",
    ),
    ("layer_norm_backward", with_root(lambda x, e: centred_root(x, e, 1)), "divides by d - 1"),
    ("layer_norm_backward", with_root(lambda x, e: centred_root(x)), "ε is missing"),
    ("layer_norm_backward", with_root(lambda x, e: centred_root(x) + e), "not added to the deviation"),
    ("layer_norm_backward", with_root(lambda x, e: centred_root(x, e or 1e-2)), "at right angles to x - mean"),
    ("layer_norm_backward", lambda g, x, w, e: back_by_direct_sums(g, x, w, e).sum((0, 1)), "nothing is summed"),
    ("layer_norm_backward", lambda g, x, w, e: back_by_direct_sums(g, x, w, e) + 1, "no constant part"),
    ("layer_norm_backward", lambda g, x, w, e: back_by_direct_sums(g * g.abs(), x, w, e), "Twice the gradient above"),
    ("layer_norm_backward", by_autograd, BY_HAND),
    ("layer_norm_backward", back_by_jvp, BY_HAND),
    ("layer_norm_backward", back_by_vjp, BY_HAND),
    ("layer_norm_backward", back_by_operator, BY_HAND),
    ("layer_norm_backward", back_spoils_gradient, "changed its input in place"),
    ("layer_norm_backward", lambda g, x, w, e: back_by_direct_sums(g.double(), x, w, e), "input's data type"),
    ("layer_norm_backward", lambda g, x, w, e: back_by_direct_sums(g, x, w.abs(), e), OTHER),
    ("layer_norm_backward", lambda g, x, w, e: back_by_direct_sums(g, x, w, e).float(), "input's data type"),
    ("layer_norm_backward", by_shape(back_by_direct_sums), "two different grad_y"),
    ("layer_norm_backward", at_first_eps(back_by_direct_sums), "eps is left out, or an earlier answer is kept"),
    ("layer_norm_backward", lambda g, x, w, e: back_by_direct_sums(g, x, w, e) * (len(x) > 1), OTHER),
    ("jacobian_gain", lambda x: sqrt(len(x)) / x.norm(), "That is RMSNorm's gain"),
    ("jacobian_gain", lambda x: 1 / (x - x.mean()).norm(), "length √d, not 1"),
    ("jacobian_gain", lambda x: 1 / x.var(correction=0), "not 1/var"),
    ("jacobian_gain", lambda x: sqrt(len(x) - 2) / x.std(correction=0), "the largest is asked for"),
    ("jacobian_gain", lambda x: (len(x) - 2) / x.std(correction=0), "the sum of all singular values"),
    ("jacobian_gain", lambda x: x.std(correction=0), "Upside down"),
    ("jacobian_gain", lambda x: 1 / x.std(), "correction=0"),
    ("jacobian_gain", lambda x: sqrt(len(x)) / (x - x.mean()).square().sum(), "One length too many"),
    ("jacobian_gain", gain_with_eps, "usual ε = 1e-5"),
    ("jacobian_gain", lambda x: 1 / (x.std(correction=0) + 1e-5), OTHER),
    ("jacobian_gain", lambda x: 1.0, "a nudge of it moves the output a tenth as far"),
    ("jacobian_gain", lambda x: 1 / (x.max() - x.min()), OTHER),
    ("jacobian_gain", lambda x: 2 / x.norm(), "A constant added to all features"),
    ("jacobian_gain", lambda x: round(1 / x.std(correction=0).item(), 3), "Nearly: something is rounded"),
    ("jacobian_gain", lambda x: min(1 / x.std(correction=0).item(), 300), OTHER),
    ("jacobian_gain", by_shape(lambda x: 1 / x.std(correction=0)), "a nudge of it moves"),
    ("jacobian_gain", lambda x: (1 / x.std(correction=0)).reshape(1), "The answer is one number"),
    ("jacobian_gain", lambda x: 1 / x.sub_(x.mean()).square().mean().sqrt(), "changed its input in place"),
    ("misplaced_share", lambda n, f, a: (a**2 / (a**2 + f)) ** n, "with α on the skip"),
    ("misplaced_share", lambda n, f, a: (1 / (1 + a * f)) ** n, "scales its variance by α²"),
    ("misplaced_share", lambda n, f, a: (1 / (1 + f)) ** n, "on the branch alone"),
    ("misplaced_share", lambda n, f, a: (1 / (1 + a**4 * f)) ** n, "α² too many"),
    ("misplaced_share", lambda n, f, a: (1 / (1 + f / a)) ** n, "makes it stronger"),
    ("misplaced_share", lambda n, f, a: (1 / (1 + (a * f) ** 2)) ** n, "only α has to be squared"),
    ("misplaced_share", lambda n, f, a: (1 / (1 + a * sqrt(f))) ** n, "not of lengths"),
    ("misplaced_share", lambda n, f, a: 1 / (1 + n * a**2 * f), "shares multiply"),
    ("misplaced_share", lambda n, f, a: (1 / (1 + a**2 * f)) ** (n / 2), "counts n times"),
    ("misplaced_share", lambda n, f, a: (1 / (1 + a**2 * f)) ** (2 * n), "there are n norms"),
    ("misplaced_share", lambda n, f, a: 1 / (1 + a**2 * f), "after one sub-layer"),
    ("misplaced_share", lambda n, f, a: 1 - (1 / (1 + a**2 * f)) ** n, "of the branches"),
    ("misplaced_share", lambda n, f, a: round((1 / (1 + a**2 * f)) ** n, 4), "Nearly: something is rounded"),
    ("misplaced_share", lambda n, f, a: (1 / (1 + a**2 * f)) ** n if n else 0.0, OTHER),
    ("misplaced_share", lambda n, f, a: str((1 / (1 + a**2 * f)) ** n), "The answer is one number"),
    ("misplaced_share", lambda n, f, a: [(1 / (1 + a**2 * f)) ** k for k in range(n + 1)], "The answer is one number"),
    ("misplaced_share", lambda n, f, a: misplaced_deep(n, f, a), "cannot call a function within itself"),
    (
        "rms_norm",
        lambda x, g, e: (x - x.mean(-1, True)) * parts(x, e)[1] * g,
        "That is LayerNorm",
    ),
    ("rms_norm", lambda x, g, e: x * parts(x, e)[1] * g, "not the standard deviation"),
    ("rms_norm", lambda x, g, e: x / centred_root(x, e, 1) * g, "and divides by d - 1"),
    ("rms_norm", lambda x, g, e: parts(x, 0)[0] * rms(x, g, e) / x, "the numerator is x itself"),
    ("rms_norm", lambda x, g, e: x / (x.square().sum(-1, keepdim=True) + e).sqrt() * g, "not their sum"),
    ("rms_norm", lambda x, g, e: x / (x.abs().mean(-1, keepdim=True) + e) * g, "not of the lengths"),
    ("rms_norm", lambda x, g, e: x / (x.square().mean(-1, keepdim=True).sqrt() + e) * g, "inside the square root"),
    ("rms_norm", lambda x, g, e: x / x.square().mean(-1, keepdim=True).sqrt() * g, "ε is missing"),
    (
        "rms_norm",
        lambda x, g, e: x / x.square().mean(-1, keepdim=True).clamp(min=e).sqrt() * g,
        "A floor under it",
    ),
    ("rms_norm", lambda x, g, e: rms(x, g, e**2), "do not square it"),
    ("rms_norm", lambda x, g, e: functional.rms_norm(x, x.shape[-1:], None, e), "γ is missing"),
    ("rms_norm", lambda x, g, e: rms(x, 1 + g, e), "another library's convention"),
    ("rms_norm", lambda x, g, e: rms(x, 1, e) + g, "there is no bias"),
    ("rms_norm", lambda x, g, e: x / (x.square().mean(-1, keepdim=True) + e) * g, "the root of the mean square"),
    ("rms_norm", lambda x, g, e: x / (x.square().mean(1, keepdim=True) + e).sqrt() * g, "a mean square of its own"),
    ("rms_norm", lambda x, g, e: x / (x.square().mean() + e).sqrt() * g, "last dimension alone"),
    ("rms_norm", lambda x, g, e: x / (x.square().mean(-1) + e).sqrt() * g, "keepdim=True keeps it"),
    ("rms_norm", lambda x, g, e: rms(x, 2 * g, e), "is 1 afterwards"),
    ("rms_norm", lambda x, g, e: rms(x, g, e).round(decimals=3), "Nearly: something is rounded"),
    ("rms_norm", lambda x, g, e: x.div_((x.square().mean(-1, keepdim=True) + e).sqrt()) * g, "changed its input"),
    ("rms_norm", lambda x, g, e: rms(x.squeeze(), g, e), "The shape is wrong"),
    ("rms_norm", lambda x, g, e: rms(x.detach(), g, e), BACK + "x"),
    ("rms_norm", lambda x, g, e: rms(x, g.data, e), BACK + "gamma"),
    ("rms_norm", lambda x, g, e: x / (x.data.square().mean(-1, keepdim=True) + e).sqrt() * g, BACK + "x"),
    ("rms_norm", torch.no_grad()(rms), "No gradient passes through your answer"),
    ("rms_norm", lambda x, g, e: torch.tensor(rms(x, g, e).tolist(), dtype=x.dtype), "No gradient passes"),
    ("rms_norm", lambda x, g, e: rms(x.double(), g.double(), e), "input's data type"),
    ("rms_norm", lambda x, g, e: rms(x, g.abs(), e), OTHER),
    ("rms_norm", lambda x, g, e: rms(x, g, max(e, 1e-3)), OTHER),
    ("rms_norm", by_shape(rms), "eps is left out, or an earlier answer is kept"),
    ("rms_norm", at_first_eps(rms), "eps is left out, or an earlier answer is kept"),
    ("skip_gradient_factor", lambda a, f: a, "divides the gradient too"),
    ("skip_gradient_factor", lambda a, f: 1 / sqrt(a * a + f), "The skip multiplies by α"),
    ("skip_gradient_factor", lambda a, f: a * a / (a * a + f), "its root"),
    ("skip_gradient_factor", lambda a, f: a / (a + sqrt(f)), "not their standard deviations"),
    ("skip_gradient_factor", lambda a, f: a / sqrt(a + f), "scales its variance by α²"),
    ("skip_gradient_factor", lambda a, f: a / (a * a + f), "not by the variance"),
    ("skip_gradient_factor", lambda a, f: 1.0, "Only where the branch adds nothing"),
    ("skip_gradient_factor", lambda a, f: a / sqrt(a * a + f * f), "do not square it"),
    ("skip_gradient_factor", lambda a, f: sqrt(a * a + f) / a, "Upside down"),
    ("skip_gradient_factor", lambda a, f: sqrt(f / (a * a + f)), "the way along the skip"),
    ("skip_gradient_factor", lambda a, f: a / sqrt(1 + f), "and not x + F"),
    ("skip_gradient_factor", lambda a, f: 1 / sqrt(1 + f), "do not forget α"),
    ("skip_gradient_factor", lambda a, f: a / (a + f), "the factor stays"),
    ("skip_gradient_factor", lambda a, f: 0.5 * a / sqrt(a * a + f), "the factor is 1"),
    ("skip_gradient_factor", lambda a, f: 1.0 if f < 1e-3 else a / sqrt(a * a + f), "the power of 2,000"),
    ("skip_gradient_factor", lambda a, f: 1.0 if a == 1 else a / sqrt(a * a + f), OTHER),
    ("skip_gradient_factor", lambda a, f: round(a / sqrt(a * a + f), 2), "Nearly: something is rounded"),
    ("skip_gradient_factor", lambda a, f: np.array([a / sqrt(a * a + f)]), "The answer is one number"),
]
