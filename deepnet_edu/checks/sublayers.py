"""What the judges of lessons 04 and 07 give to a learner's sub-layer: streams, branches and norms.

All are drawn so that no mistake hides: x is far from normalised, a branch is neither linear nor centred, a norm has a
gain and a bias of its own. Branches are plain functions, as an exercise has them; their weights want a gradient.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import NotRight, Trial
from deepnet_edu.checks.tensors import sample

Branch = Callable[[Tensor], Tensor]
Function = TypeVar("Function", bound=Callable[..., Any])


def norm_of(d: int, seed: int, eps: float) -> nn.LayerNorm:
    """A norm with a gain and a bias of its own: at 1 and 0 two norms in a row are one."""
    norm = nn.LayerNorm(d, eps=eps).double()
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * sample(d, seed=seed))
        norm.bias.copy_(0.3 * sample(d, seed=seed + 1))
    return norm


def bare(x: Tensor, eps: float = 1e-5) -> Tensor:
    """A norm without gain and bias, written out."""
    c = x - x.mean(-1, keepdim=True)
    return c / (c.square().mean(-1, keepdim=True) + eps).sqrt()


def ln(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """A norm written out."""
    return bare(x, norm.eps) * norm.weight + norm.bias


def branch_of(d: int, seed: int, calls: list[str] | None = None) -> tuple[Branch, Tensor]:
    """A branch and its weight; each call is noted in ``calls``."""
    weight = sample(d, d, seed=seed).requires_grad_()

    def f(x: Tensor) -> Tensor:
        if calls is not None:
            calls.append("f")
        return torch.tanh(x @ weight.to(x.dtype)) + 0.3 * x[..., :1]

    return plainly(f), weight


def plainly(f: Function) -> Function:
    """The function under its own name alone: Python's messages about it must not speak of the check."""
    f.__qualname__, f.__module__ = f.__name__, "__main__"
    return f


def call_with_functions(trial: Trial, *arguments: Any) -> Any:
    """A call with functions of a tensor: nothing may be done with them but to call them."""
    try:
        return trial.call(*arguments)
    except NotRight as wrong:
        if "'function' object has no attribute" in wrong.sentence or "'Norm' object has no attribute" in wrong.sentence:
            trial.fail("The branch and the norm can only be called: f(…), norm(…).")
        raise


def called_once(trial: Trial, calls: int, branches: int = 1) -> None:
    """Each branch, in one call of the learner's function."""
    if not calls:
        sentence = "The branch was not called: the answer needs what it returns for this x."
    elif calls < branches:
        sentence = "Not every branch was called."
    else:
        sentence = (
            "Call the branch once and keep what it returns: it is the costly part, and with dropout two calls differ."
        )
    trial.require(calls == branches, sentence, f"calls of a branch: {branches}", f"{calls}")
