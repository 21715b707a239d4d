"""Lesson 04, Post-LN or Pre-LN: both sub-layers, token similarity, two parts of a gradient and what attention does to
them, a whole Pre-LN stack, and what its late layers add."""

from collections.abc import Callable, Iterable
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepnet_edu.checks.base import Judge, Misconception, Trial

Branch = Callable[[Tensor], Tensor]
# Different numbers everywhere: B = T or T = d hides a wrong dimension.
_SHAPES = [(2, 5, 8), (3, 4, 12)]


def _drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _norm(d: int, seed: int) -> nn.LayerNorm:
    """With a gain and a bias of its own: at 1 and 0 two norms in a row are one."""
    norm = nn.LayerNorm(d, eps=1e-2).double()
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * _drawn(d, seed=seed))
        norm.bias.copy_(0.3 * _drawn(d, seed=seed + 1))
    return norm


def _ln(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LN written out."""
    c = x - x.mean(-1, keepdim=True)
    return (c / (c.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias).detach()


def _branch(d: int, seed: int) -> Branch:
    """Not linear, and not centred: otherwise F(LN x) and LN(F x) are hard to tell apart."""
    weight = _drawn(d, d, seed=seed)
    return lambda x: torch.tanh(x @ weight) + 0.3 * x[..., :1]


def _sublayer(trial: Trial, post: bool) -> None:
    for shape in _SHAPES:
        d = shape[-1]
        # Far from normalised: where it is already, Pre-LN's norm may be forgotten and its skip may be normalised.
        x, norm, branch = 3 * _drawn(*shape, seed=d) + 0.7, _norm(d, d + 2), _branch(d, d + 1)
        calls: list[Tensor] = []

        def f(x: Tensor, calls: list[Tensor] = calls, branch: Branch = branch) -> Tensor:
            calls.append(x)
            return branch(x)

        def ln(x: Tensor, norm: nn.LayerNorm = norm) -> Tensor:
            return _ln(norm, x)

        got = trial.call(x, f, norm)
        y, fx, fy = ln(x), branch(x), branch(ln(x))
        right = ln(x + fx) if post else x + fy
        skip = "The skip is missing: x itself is part of the sum."
        one = "One norm a sub-layer: this is a different published rule."
        alone = "The norm stands on the skip alone, the one place where no rule has it."
        # What was computed, what to say to who should have written Pre-LN, and Post-LN.
        table: list[tuple[Tensor, str, str]] = [
            (ln(x + fx), "That is Post-LN. Pre-LN moves the norm into the branch: F reads LN(x).", ""),
            (x + fy, "", "That is Pre-LN. Post-LN normalises the sum, and its branch reads x as it is."),
            (
                y + fy,
                "You normalised the skip too: the skip must carry the raw x, that is the whole point of Pre-LN.",
                "Both terms are normalised before the sum: Post-LN normalises the sum itself.",
            ),
            (
                x + ln(fx),
                "The norm stands before the branch, not behind it: F(LN(x)).",
                "You normalised the branch. Post-LN normalises the sum.",
            ),
            (x + fx, "The branch must see a normalised input: its norm is missing.", "The norm on the sum is missing."),
            (ln(x + ln(fx)), one, one),
            (
                ln(x + fy),
                "One norm a sub-layer: nothing normalises Pre-LN's sum, so the skip is free.",
                "One norm a sub-layer: the branch reads x as it is.",
            ),
            (y + fx, alone, alone),
            (ln(fx), skip, skip),
            (fy, skip, skip),
        ]
        wrong = [Misconception(value, sentences[post]) for value, *sentences in table if sentences[post]]
        trial.equal(got, right, wrong, "The sub-layer is LN(x + F(x))." if post else "The sub-layer is x + F(LN(x)).")
        trial.require(len(calls) == 1, "Call the branch once: it is the costly part.", "1 call", f"{len(calls)} calls")


def pre_ln(trial: Trial) -> None:
    """x + F(LN(x))."""
    _sublayer(trial, post=False)


def post_ln(trial: Trial) -> None:
    """LN(x + F(x))."""
    _sublayer(trial, post=True)


def _mean_of_pairs(x: Tensor, same: bool = False) -> float:
    """Mean cosine of the pairs of rows, pair by pair; ``same``: of a row with itself too."""
    pairs = [(i, j) for i in range(x.shape[1]) for j in range(x.shape[1]) if same or i != j]
    return float(torch.stack([functional.cosine_similarity(a[i], a[j], dim=0) for a in x for i, j in pairs]).mean())


def token_similarity(trial: Trial) -> None:
    """Mean cosine between different tokens of a sequence."""
    for B, T, d in [(2, 5, 8), (3, 4, 12), (1, 2, 6)]:
        # A part that the tokens share, of another direction in each sequence, and tokens of different lengths.
        x = _drawn(B, T, d, seed=d) + 1.2 * _drawn(B, 1, d, seed=d + 1)
        x = x * (0.5 + torch.arange(1, T + 1, dtype=x.dtype)[:, None])
        got = trial.call(x)
        expected = _mean_of_pairs(x)
        raw = ((x @ x.mT).sum((1, 2)) - x.square().sum((1, 2))) / (T * (T - 1))
        columns = functional.normalize(x, dim=1)
        neighbours = functional.cosine_similarity(x[:, 1:], x[:, :-1], dim=-1).mean()
        wrong = [
            Misconception(
                _mean_of_pairs(x, same=True), "A token is always similar to itself: leave out those T pairs."
            ),
            Misconception(
                _mean_of_pairs(x.reshape(1, B * T, d)),
                "You compared tokens of different sequences: collapse is about tokens of one sequence.",
            ),
            Misconception(
                _mean_of_pairs(x.transpose(0, 1)) if B > 1 else torch.nan,
                "You compared the same place of different sequences: tokens are the second dimension.",
            ),
            Misconception(raw.mean(), "Cosine has no length in it: bring each token to length 1 first."),
            Misconception(raw.mean() / d, "A dot product over d is no cosine, unless each token has length √d."),
            Misconception(
                _mean_of_pairs(x - x.mean(1, keepdim=True)),
                "What all tokens share is what you are to measure: do not take the mean token away.",
            ),
            Misconception(
                _mean_of_pairs(x - x.mean(-1, keepdim=True)), "That is a correlation: leave each token's own mean in."
            ),
            Misconception(
                ((columns @ columns.mT).sum((1, 2)) - columns.square().sum((1, 2))).mean() / (T * (T - 1)),
                "You normalised over the tokens: the length of a token is taken over its features, the last dimension.",
            ),
            Misconception(neighbours, "Those are neighbours only: every pair of different tokens counts."),
            Misconception(expected * (T - 1) / T, "T(T-1) pairs are left without the diagonal, not T²."),
            Misconception(expected / 2, "Each pair comes twice in the sum, so it counts twice in the number of pairs."),
            Misconception(expected * T * (T - 1), "A mean: divide by the number of pairs, T(T-1)."),
        ]
        trial.equal(got, expected, wrong, "Unit tokens, their dot products for i ≠ j, and the mean over all of them.")
    equal = _drawn(2, 1, 6, seed=3).expand(2, 4, 6).clone()
    trial.equal(trial.call(equal), 1.0, sentence="Tokens that are all equal have 1.")


def split_gradient(trial: Trial) -> None:
    """The mean over tokens, (B, 1, d), and what is left, (B, T, d)."""
    for shape in [*_SHAPES, (4, 2, 6)]:
        B, T, d = shape
        g = _drawn(*shape, seed=d) + 0.8 * _drawn(B, 1, d, seed=d + 1) + 0.3
        got = trial.call(g)
        trial.require(
            isinstance(got, tuple | list) and len(got) == 2 and all(isinstance(part, Tensor) for part in got),
            "The answer is two tensors: return shared, private.",
            "two tensors",
            type(got).__name__,
        )
        ones = torch.full((T, T), 1 / T, dtype=g.dtype)
        common = (ones @ g)[:, :1]
        shared, private = got
        trial.require(
            not (shared.shape == g.shape and private.shape == common.shape),
            "The other way round: shared first, then private.",
        )
        instead = {
            (0,): "The mean over tokens, not over the sequences of the batch: tokens are dimension 1.",
            (2,): "The mean over tokens, not over features: the answer keeps all d of them.",
            (0, 1): "Each sequence has a shared part of its own: do not average over the batch.",
        }
        for dims, sentence in instead.items():
            value = g.mean(dims, keepdim=True)
            trial.require(not (shared.shape == value.shape and torch.allclose(shared, value)), sentence)
        trial.equal(
            shared,
            common,
            [
                Misconception(T * common, "The mean over the tokens, not their sum: what each of them has."),
                Misconception(g[:, :1], "The first token's gradient also holds its private part: take the mean."),
            ],
            "The shared part is the mean over the tokens.",
            shape_sentence="The shared part is one vector per sequence: (B, 1, d), as keepdim=True leaves it.",
        )
        trial.equal(
            private,
            (torch.eye(T, dtype=g.dtype) - ones) @ g,
            [
                Misconception(g, "The shared part is still in the private one: subtract it."),
                Misconception(common - g, "The sign: private is the gradient minus what is shared."),
                Misconception(g + common, "Subtract the shared part, do not add it."),
            ],
            "The private part is what is left when the shared part is subtracted.",
            shape_sentence="The private part differs from token to token: (B, T, d).",
        )


def attention_gradient_factor(trial: Trial) -> None:
    """√((1 + (1 if shared else 1/T))/(1 + r + (1 - r)/T))."""
    for T, r in [(7, 0.35), (12, 0.8), (3, 0.0), (40, 1.0)]:
        for shared in (True, False):
            got = trial.call(T, r, shared=True) if shared else trial.call(T, r)
            # From the matrices themselves: an average of T tokens forward, its transpose on the way back.
            average = torch.full((T, T), 1 / T, dtype=torch.float64)
            tokens = torch.full((T, T), r, dtype=torch.float64).fill_diagonal_(1.0)
            gradients = torch.ones(T, T, dtype=torch.float64) if shared else torch.eye(T, dtype=torch.float64)
            forward = float((average @ tokens @ average.T).diagonal().mean())
            back = float((average.T @ gradients @ average).diagonal().mean())
            expected = sqrt((1 + back) / (1 + forward))
            wrong = [
                Misconception(
                    sqrt((1 + (1 / T if shared else 1)) / (1 + forward)),
                    "The two cases are exchanged: attention returns the whole of what is shared.",
                ),
                Misconception(
                    (1 + back) / (1 + forward), "That is the factor on its square: a factor of length is the root."
                ),
                Misconception(
                    1 / sqrt(2),
                    "Only when tokens are alike does attention add as much as the skip: r = 1 and many tokens.",
                ),
                Misconception(
                    1.0,
                    "What goes forward does not simply come back: forward keeps what tokens share, backward divides "
                    "the private part by T.",
                ),
                Misconception(
                    sqrt(2 / 3),
                    "That is Xiong et al.'s factor, of the norm behind a feed-forward branch. Here the branch is "
                    "attention, and it sends a gradient back too.",
                ),
                Misconception(
                    1 / sqrt(1 + forward),
                    "The branch sends something back too: 1/T of an independent gradient, all of a shared one.",
                ),
                Misconception(
                    sqrt((1 + back) / (1 + r)), "T independent parts do not cancel to 0: they leave (1 - r)/T."
                ),
                Misconception(
                    sqrt((1 + back) / (1 + 1 / T)), "Correlated tokens do not cancel: the average keeps r of them."
                ),
                Misconception(
                    (1 + sqrt(back)) / (1 + sqrt(forward)), "Independent signals add their squares, not their lengths."
                ),
                Misconception(sqrt(1 + back), "The norm behind the sum divides the gradient too, by √(1 + f)."),
            ]
            # Where two of these coincide the first would be said, and it might be the wrong one: r = 0 and 1 tell less.
            trial.equal(
                got,
                expected,
                wrong if 0 < r < 1 else (),
                "The norm divides by √(1 + f), f = r + (1 - r)/T; the branch adds 1/T of an independent gradient, all "
                "of a shared one.",
            )


def pre_ln_stack(trial: Trial) -> None:
    """x ← x + F(LN x) for each branch with its norm, then the final norm."""
    for shape, n in [((2, 5, 8), 3), ((3, 4, 12), 4)]:
        _stack(trial, shape, n)


def _stack(trial: Trial, shape: tuple[int, int, int], n: int) -> None:
    d = shape[-1]
    start = 3 * _drawn(*shape, seed=d) + 0.7
    branches = [_branch(d, d + 10 * k) for k in range(1, n + 1)]
    norms, final_norm = [_norm(d, d + 100 * k) for k in range(1, n + 1)], _norm(d, 7)
    got = trial.call(start, branches, norms, final_norm)
    up = range(n)

    def pre(x: Tensor, k: int) -> Tensor:
        return x + branches[k](_ln(norms[k], x))

    def post(x: Tensor, k: int) -> Tensor:
        return _ln(norms[k], x + branches[k](x))

    def final(x: Tensor) -> Tensor:
        return _ln(final_norm, x)

    def run(step: Callable[[Tensor, int], Tensor], order: Iterable[int] = up, x: Tensor = start) -> Tensor:
        for k in order:
            x = step(x, k)
        return x

    is_post = "Those are Post-LN sub-layers: Pre-LN's branch reads LN(x), and its sum is not normalised."
    wrong = [
        Misconception(
            run(pre),
            "The final norm is missing. Each sub-layer is right, but the stack's output grows with depth.",
        ),
        Misconception(
            run(lambda x, k: final(pre(x, k))), "One final norm for the whole stack, not one behind every sub-layer."
        ),
        Misconception(run(post), is_post),
        Misconception(final(run(post)), is_post),
        Misconception(final(run(lambda x, k: x + branches[k](x))), "The branches must see a normalised input."),
        Misconception(final(run(pre, up[::-1])), "From the bottom up: the first branch first."),
        Misconception(
            final(run(lambda x, k: x + branches[k](_ln(norms[0], x)))),
            "Each branch has a norm of its own: branch k goes with norms[k].",
        ),
        Misconception(run(pre, x=final(start)), "The final norm stands at the end, not at the start."),
        Misconception(final(run(pre, up[:-1])), "The last branch is left out."),
        Misconception(final(run(pre, up[1:])), "The first branch is left out."),
        Misconception(
            final(start + torch.stack([pre(start, k) - start for k in up]).sum(0)),
            "Each branch reads what the ones below it have written, not the stack's input.",
        ),
    ]
    sentence = "x ← x + F(LN(x)) for every branch with its norm, and the final norm once, at the end."
    trial.equal(got, final(run(pre)), wrong, sentence)


def pre_ln_share(trial: Trial) -> None:
    """c/(1 + c·l)."""
    for layer, c in [(1, 0.4), (7, 1.3), (50, 0.9)]:
        got = trial.call(layer, c)
        # Variance by variance: 1, then c more with each layer.
        v = [1.0]
        for _ in range(layer):
            v.append(v[-1] + c)
        wrong = [
            Misconception(c / v[-2], "The stream after layer l holds its own part too: divide by 1 + c·l."),
            Misconception(1 / layer, "The input itself counts, and a layer adds c: c/(1 + c·l)."),
            Misconception(1 / v[-1], "A layer adds c, not 1."),
            Misconception(1 / (1 + layer), "That is for c = 1."),
            Misconception(c / (1 + layer), "Each of the l layers has added c: the stream has 1 + c·l."),
            Misconception(c * layer / v[-1], "That is the share of all layers together: asked is that of layer l."),
            Misconception(sqrt(c / v[-1]), "A share of variance is a ratio of variances, without the root."),
        ]
        trial.equal(got, (v[-1] - v[-2]) / v[-1], wrong, "After layer l the variance is 1 + c·l; the layer added c.")


JUDGES: dict[str, Judge] = {
    "pre_ln": pre_ln,
    "post_ln": post_ln,
    "token_similarity": token_similarity,
    "split_gradient": split_gradient,
    "attention_gradient_factor": attention_gradient_factor,
    "pre_ln_stack": pre_ln_stack,
    "pre_ln_share": pre_ln_share,
}
