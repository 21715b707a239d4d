"""The judge of lesson 03's attention: heads, scale, softmax and mask, each by what it does."""

from collections.abc import Iterator
from functools import partial
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.numbers import one_at_a_time
from deepnet_edu.checks.values import as_array, close, show

#: PyTorch's own, which the text forbids.
_OWN = (
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_flash_attention_for_cpu",
    "multi_head_attention_forward",
    "_native_multi_head_attention",
)
_SHAPE = "The answer has the shape of the queries, (B, T, d): the heads go back side by side."


def attention(trial: Trial) -> None:
    """In each head softmax(QKᵀ/√(d/h) + M)·V, where M is -∞ where a key comes later than its query if causal, and else
    0; then the heads side by side, (B, T, d)."""
    draw = torch.Generator().manual_seed(3)
    # Twice a normal draw: with a flat softmax most wrong answers are nearly right.
    shapes = [(2, 5, 12, 3), (3, 4, 8, 2), (2, 17, 24, 3)]
    # One head, one sequence, one token; and scores so large that a mask of -100 is none.
    edges = [(1, 6, 8, 1, 2), (2, 1, 4, 2, 2), (2, 6, 8, 2, 8)]
    for B, T, d, h, size in [*((*shape, 2) for shape in shapes), *edges]:
        q, k, v = (size * torch.randn(3, B, T, d, generator=draw, dtype=torch.float64)).unbind()
        for causal in (False, True):
            got = _called(trial, q, k, v, h, causal)
            expected = _right(q, k, v, h, causal)
            wrong = list(_misconceptions(q, k, v, h, causal)) if (B, T, d, h) in shapes else []
            trial.equal(got, expected, wrong, tolerance=1e-4, shape_sentence=_SHAPE)
            _no_nan(trial, got, causal)
    draws = torch.randn(6, 2, 5, 12, generator=draw, dtype=torch.float64).unbind()
    with trial.without(*_OWN):
        one_at_a_time(trial, (*draws[:3], 3, True), (*draws[3:], 2, False), _right, 1e-4)
    same = _called(trial, q, k, v[:, :1].expand_as(v).contiguous(), h, False)
    _property(
        trial,
        same,
        v[:, :1].expand_as(v),
        "A token's weights sum to 1: where all values are equal, that value comes out.",
    )
    first = _called(trial, q, k, v, h, True)[:, 0]
    _property(
        trial,
        first,
        v[:, 0],
        "With causal=True the first token sees itself alone, however large other scores are: its own value comes out.",
    )
    leaves = [one.clone().requires_grad_() for one in draws[:3]]
    for causal in (False, True):
        trial.gradients(
            partial(_called, trial, *leaves, 3, causal),
            partial(_right, leaves[0], leaves[1], leaves[2], 3, causal),
            dict(zip("qkv", leaves, strict=True)),
        )


def _right(q: Tensor, k: Tensor, v: Tensor, n: int, causal: bool) -> Tensor:
    return _merged(_weights(_heads(q, n), _heads(k, n), causal) @ _heads(v, n))


def _called(trial: Trial, *arguments: Any) -> Any:
    with trial.without(*_OWN):
        return trial.call(*arguments)


def _property(trial: Trial, got: Any, wanted: Tensor, sentence: str) -> None:
    a, b = as_array(got), as_array(wanted)
    trial.require(close(a, b, 1e-3), sentence, *show(b, a))


def _no_nan(trial: Trial, got: Tensor, causal: bool) -> None:
    where = got.isnan().any(-1).any(0).tolist()  # by position
    if causal and where[0] and not any(where[1:]):
        trial.fail("The first token's output is NaN: it may look at itself, so mask strictly above the diagonal.")
    if causal and all(where):
        trial.fail("The answer is NaN: 0 times ∞ is, so fill in a mask of -∞ instead of multiplying by it.")
    trial.require(not any(where), "There is NaN in the answer.")


def _heads(x: Tensor, n: int) -> Tensor:
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _past(T: int, causal: bool = True) -> Tensor:
    every = torch.ones(T, T, dtype=torch.float64)
    return every.tril() if causal else every


def _softmax(scores: Tensor, seen: Tensor, dim: int = -1) -> Tensor:
    return scores.masked_fill(seen == 0, -torch.inf).softmax(dim)


def _weights(Q: Tensor, K: Tensor, causal: bool) -> Tensor:
    return _softmax(Q @ K.mT / sqrt(Q.shape[-1]), _past(Q.shape[-2], causal))


def _misconceptions(q: Tensor, k: Tensor, v: Tensor, h: int, causal: bool) -> Iterator[Misconception]:
    """Wrong values that people give, where there are several heads and tokens."""
    B, T, d = q.shape
    Q, K, V = (_heads(x, h) for x in (q, k, v))
    past = _past(T, causal)
    plain = Q @ K.mT
    scores = plain / sqrt(d / h)

    def by(scores: Tensor, seen: Tensor = past) -> Tensor:
        return _merged(_softmax(scores, seen) @ V)

    yield Misconception(
        by(plain / sqrt(d)), "The scale is that of one head of width d: each head compares shorter vectors."
    )
    yield Misconception(by(plain), "The scores are not divided by anything: they grow with the width of a head.")
    yield Misconception(by(plain / (d / h)), "You divide by d/h itself: scores then have a variance below 1.")
    yield Misconception(by(plain / sqrt(T)), "The scale has nothing to do with the number of tokens.")
    yield Misconception(by(plain * sqrt(d / h)), "You multiply by the scale: it divides.")

    cut = [x.reshape(B, h, T, d // h) for x in (q, k, v)]
    pieces = _weights(cut[0], cut[1], causal) @ cut[2]
    said = "You cut the sequence into pieces, not the features: split d into (h, d/h) first, then transpose."
    yield Misconception(_merged(pieces), said)
    yield Misconception(pieces.reshape(B, T, d), said)

    strided = [x.unflatten(-1, (-1, h)).permute(0, 3, 1, 2) for x in (q, k, v)]
    combed = _weights(strided[0], strided[1], causal) @ strided[2]
    said = "Your heads take every h-th feature: a head has d/h features side by side."
    yield Misconception(combed.permute(0, 2, 3, 1).flatten(2), said)
    yield Misconception(_merged(combed), said)

    right = _weights(Q, K, causal) @ V
    yield Misconception(right.reshape(B, T, d), "Move the heads beside the features first: transpose, then merge.")
    yield Misconception(right.permute(0, 2, 3, 1).flatten(2), "The heads are interleaved: put them side by side.")
    yield Misconception(_weights(q, k, causal) @ v, "That is one head of width d: split it into n_heads.")
    yield Misconception(by(scores.mT), "Rows are queries, columns are keys: yours are the other way round.")
    yield Misconception(_merged(_weights(Q, K, causal) @ K), "The weights average the values, not the keys.")
    yield Misconception(_merged(scores * past @ V), "There is no softmax: scores are not weights yet.")

    over_keys = "Each query distributes its attention over the keys: softmax over the last dimension."
    yield Misconception(_merged(_softmax(scores, past, -2) @ V), over_keys)
    yield Misconception(_merged(_softmax(scores, past, 1) @ V), over_keys)
    if not causal:
        yield Misconception(by(scores, _past(T)), "With causal=False every token sees all others.")
        return
    late = torch.ones(T, T).tril(1)
    yield Misconception(by(scores, late), "The mask begins one key too late: a token sees itself and earlier ones.")
    free = scores.softmax(-1)
    yield Misconception(
        _merged(free * past @ V), "Masked after the softmax, the weights no longer sum to 1: mask the scores before it."
    )
    yield Misconception(_merged(free @ V), "Nothing is masked: with causal=True a token must not see later ones.")
    yield Misconception(by(scores, past.mT), "The mask is the wrong way round: a token sees itself and earlier ones.")
    yield Misconception(
        _merged((scores * past).softmax(-1) @ V), "A score of 0 is not a weight of 0: a masked score must be -∞."
    )
