"""The judge of lesson 12's attention with a cache: chunk by chunk it gives what all tokens at once give."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.trial import PROPERTY, TYPE, Array
from deepnet_edu.checks.values import as_array, close, describe, same, show

#: Width of the stream and of the head, and the chunks in which tokens come. With more than one new token beside a cache
#: a mask is needed.
_CHUNKS = [(6, 3, (3, 2, 2)), (5, 2, (2, 3, 1, 2)), (4, 4, (1, 3, 4)), (6, 3, (4, 3))]
_EDGES = [(6, 3, (7,)), (6, 3, (1, 1, 1, 1)), (3, 3, (1,)), (4, 1, (5, 1)), (5, 2, (2, 1, 5))]

_UNMASKED = "No token may look at later ones: where is the mask?"


def cached_attention(trial: Trial) -> None:
    """Queries, keys and values are x @ w_q, x @ w_k, x @ w_v. With a cache its keys and values come in front of the new
    ones. Scores are q @ k.T over the root of the head's width; key j is hidden from new token i if j > past + i. Return
    softmax(scores) @ v, and keys and values as the new cache.
    """
    draw = torch.Generator().manual_seed(0)
    for d, head, chunks in (*_CHUNKS, *_EDGES):
        x, *weights = _drawn(draw, sum(chunks), d, head)
        wrong = _wrong_outputs(x, weights, chunks) if (d, head, chunks) in _CHUNKS else {}
        cache, begin = None, 0
        for count, chunk in enumerate(x.split(chunks)):
            y, cache = _call(trial, chunk, weights, cache)
            these = slice(begin, begin + len(chunk))
            right = _token_by_token(x, weights)[these]
            # Beside a cache a mask that is missing everywhere looks like one that is missing there.
            known = [
                Misconception(torch.tensor(values[these]), said)
                for said, values in wrong.items()
                if not count or said != _UNMASKED
            ]
            where = "of the first call" if not count else f"that come after {begin} cached ones"
            shape = "The answer is a row for each new token, as wide as the head: (t, head)."
            said = f"The outputs of tokens {where} are wrong."
            trial.equal(y, torch.tensor(right), known, said, 1e-5, shape)
            begin += len(chunk)
    if trial.verdict() is None:  # of one that is wrong anyway they would say the wrong thing
        _two_ways(trial, draw)
        _other_weights(trial, draw)
    x, *weights = (one.requires_grad_() for one in _drawn(draw, 5, 4, 3))

    def chunked() -> Tensor:
        first, cache = _call(trial, x[:3], weights, None)
        return torch.cat([first, _call(trial, x[3:], weights, cache)[0]])

    def whole() -> Tensor:
        q, k, v = (x @ w for w in weights)
        hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
        return (q @ k.T / 3**0.5).masked_fill(hidden, -torch.inf).softmax(-1) @ v

    trial.gradients(chunked, whole, dict(zip(("x", "w_q", "w_k", "w_v"), (x, *weights), strict=True)))


def _drawn(draw: torch.Generator, tokens: int, d: int, head: int) -> list[Tensor]:
    """Tokens and three weights, large enough that attention is far from flat."""
    sizes = [(tokens, d), (d, head), (d, head), (d, head)]
    return [1.5 * torch.randn(*size, generator=draw, dtype=torch.float64) for size in sizes]


def _call(trial: Trial, x: Tensor, weights: list[Tensor], cache: Any) -> tuple[Any, Any]:
    """One call. What it does to its cache is for :func:`_two_ways` to see."""
    if cache is None and not x.requires_grad:
        got = trial.call(x, *weights)
    else:
        before = [one.detach().clone() for one in (x, *weights)]
        got = trial.change(x, *weights, cache)
        trial.require(got is not None, "Your function returns nothing: is there a return at its end?", rung=TYPE)
        kept = all(same(a, b.detach()) for a, b in zip(before, (x, *weights), strict=True))
        trial.require(kept, "Your function changed its input in place: work on a new tensor.", rung=TYPE)
    two = isinstance(got, tuple | list) and len(got) == 2
    said = "The answer is two things: the outputs of the new tokens, and the cache for the next call."
    trial.require(two, said, got=describe(got), rung=TYPE)
    trial.require(got[1] is not None, "There is no cache to hand to the next call.", rung=TYPE)
    return got[0], got[1]


def _two_ways(trial: Trial, draw: torch.Generator) -> None:
    """A cache that is continued in two ways, as beams with a common beginning do."""
    x, *weights = _drawn(draw, 9, 4, 2)
    _, cache = _call(trial, x[:4], weights, None)
    _, longer = _call(trial, x[4:6], weights, cache)
    for begin, known in ((6, cache), (7, cache), (6, longer)):
        beginning = x[:4] if known is cache else x[:6]
        both = torch.cat([beginning, x[begin : begin + 2]])
        got = as_array(_call(trial, x[begin : begin + 2], weights, known)[0])
        right = _token_by_token(both, weights)[-2:]
        said = "One cache was continued in two ways, and the first changed the second: leave the old cache as it is."
        trial.require(close(got, right, 1e-4), said, *show(right, got))


def _other_weights(trial: Trial, draw: torch.Generator) -> None:
    x, *weights = _drawn(draw, 4, 4, 2)
    for factor in (1.0, 0.5):
        halved = [factor * one for one in weights]
        got, right = as_array(_call(trial, x, halved, None)[0]), _token_by_token(x, halved)
        trial.require(close(got, right, 1e-4), "With other weights the outputs are wrong.", *show(right, got), PROPERTY)


def _token_by_token(
    x: Tensor, weights: list[Tensor], sees: Any = None, width: float | None = None, start: Array | None = None
) -> Array:
    """In NumPy. Token i sees the tokens j of ``range(len(x))`` for which ``sees(i, j)``: those up to itself."""
    q, k, v = (x.detach().numpy() @ w.detach().numpy() for w in weights)
    rows = []
    for i in range(len(q)):
        seen = [j for j in range(len(q)) if (sees(i, j) if sees else j <= i)]
        scores = k[seen] @ q[i] / np.sqrt(width or k.shape[1])
        share = np.exp(scores - scores.max())
        rows.append(share @ v[seen] / share.sum())
    return np.array(rows)


def _wrong_outputs(x: Tensor, weights: list[Tensor], chunks: tuple[int, ...]) -> dict[str, Array]:
    """Outputs of all tokens by what would be said; a chunk of them is what a call would return."""
    begins = np.repeat(np.cumsum([0, *chunks[:-1]]), chunks)  # where the chunk of a token begins
    ends = np.repeat(np.cumsum(chunks), chunks)
    before = np.repeat([0, 0, *np.cumsum(chunks)[:-2]][: len(chunks)], chunks)  # and where the chunk before it does
    d = x.shape[1]
    early = "A new token comes after all cached ones, so it may look further than its row says: too little is seen."
    ahead = "The first of several new tokens sees later ones: they need a mask among themselves."
    alone = "The new tokens see only each other: what the cache holds comes in front."
    short = "The cache that you return holds the newest tokens only: it must hold all tokens so far."
    return {
        early: _token_by_token(x, weights, lambda i, j: j <= i - begins[i]),
        ahead: _token_by_token(x, weights, lambda i, j: j <= i if not begins[i] else j < ends[i]),
        _UNMASKED: _token_by_token(x, weights, lambda i, j: j < ends[i]),
        alone: _token_by_token(x, weights, lambda i, j: begins[i] <= j <= i),
        short: _token_by_token(x, weights, lambda i, j: before[i] <= j <= i),
        "Scores are divided by the root of the head's own width.": _token_by_token(x, weights, width=d)
        if d != weights[1].shape[1]
        else _token_by_token(x, weights),
        "Scores are divided by the root of the head's width: they are not divided here.": _token_by_token(
            x, weights, width=1.0
        ),
    }
