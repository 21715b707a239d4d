"""Lesson 04, Post-LN or Pre-LN: a Pre-LN sub-layer and a whole stack. rules.py judges the rules, tokens.py the rest."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_04.rules import rule_of
from deepnet_edu.checks.lesson_04.tokens import (
    attention_gradient_factor,
    pre_ln_share,
    split_gradient,
    token_similarity,
)
from deepnet_edu.checks.sublayers import Branch, bare, branch_of, call_with_functions, called_once, ln, norm_of
from deepnet_edu.checks.tensors import sample

# Different numbers everywhere: B = T or T = d hides a wrong dimension. The first shape comes again with other numbers.
_SHAPES = [(2, 5, 8), (3, 4, 12), (2, 5, 8)]


def pre_ln(trial: Trial) -> None:
    """x + F(LN(x)): the branch reads the normalised stream, the skip carries the raw one."""
    backward: list[Callable[[], None]] = []
    for seed, shape in enumerate(_SHAPES):
        d = shape[-1]
        calls: list[str] = []
        # Far from normalised: where it is already, the norm may be forgotten and the skip may be normalised.
        x, norm = 3 * sample(*shape, seed=d + seed) + 0.7, norm_of(d, 100 * seed + d + 2, eps=1e-2)
        f, weight = branch_of(d, d + 10 * seed + 1, calls)

        def right(x: Tensor, f: Branch = f, norm: nn.LayerNorm = norm) -> Tensor:
            return x + f(ln(norm, x))

        with trial.keeping(norm):
            got = call_with_functions(trial, x, f, norm)
        once = len(calls)
        y, fx, fy = ln(norm, x), f(x), f(ln(norm, x))
        own = "That is a norm of your own: use the one that you were given, which has a gain and a bias."
        wrong = [
            Misconception(ln(norm, x + fx), "That is Post-LN: its norm is on the sum."),
            Misconception(
                y + fy, "You normalised the skip too: the skip must carry the raw x, that is the whole point of Pre-LN."
            ),
            Misconception(
                x + ln(norm, fx),
                "You normalised what the branch returns: the norm comes before the branch, not after it.",
            ),
            Misconception(x + fx, "The branch must see a normalised input: its norm is missing."),
            Misconception(ln(norm, x + ln(norm, fx)), "One norm a sub-layer: this is a different published rule."),
            Misconception(
                ln(norm, x + fy), "One norm a sub-layer: nothing normalises Pre-LN's sum, so the skip is free."
            ),
            Misconception(y + fx, "The norm is on the skip alone, the one place where no rule has it."),
            *(Misconception(one, "The skip is missing: x itself is part of the sum.") for one in (ln(norm, fx), fy)),
            Misconception(x - fy, "The branch is added to the skip, not subtracted."),
            *(Misconception(x + f(bare(x, eps)), own) for eps in (0, 1e-5, norm.eps)),
        ]
        trial.equal(got, right(x), wrong)
        called_once(trial, once)
        leaf = x.clone().requires_grad_()
        operands = {"x": leaf, "the branch's weight": weight, "the norm's gain": norm.weight}
        answer = partial(trial.call, leaf, f, norm)
        backward.append(partial(trial.gradients, answer, partial(right, leaf), operands))
    _as_the_lesson_calls_it(trial)
    for compare in backward:
        compare()


def _as_the_lesson_calls_it(trial: Trial) -> None:
    """In float32, with a branch that adds nothing and one whose answer is the same for all tokens."""
    x, norm = (2 * sample(2, 4, 6, seed=5) + 0.4).float(), norm_of(6, 3, eps=1e-5).float()

    def mean_token(x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True) + torch.zeros_like(x)

    got = call_with_functions(trial, x, torch.zeros_like, norm)
    trial.like(got, x)
    trial.require(torch.equal(got, x), "Where the branch adds nothing, the stream stays exactly as it is.")
    got = call_with_functions(trial, x, mean_token, norm)
    said = "With a branch that gives all tokens the same output, the value is wrong."
    trial.equal(got, x + mean_token(ln(norm, x)), sentence=said)


def pre_ln_stack(trial: Trial) -> None:
    """x ← x + F(LN(x)) for each branch with its own norm, from the first to the last; then the final norm, once."""
    backward = [_stack(trial, shape, n, seed) for seed, (shape, n) in enumerate(zip(_SHAPES, (3, 4, 3), strict=True))]
    for n in (0, 1):
        _short_stack(trial, n)
    for compare in backward:
        compare()


def _stack(trial: Trial, shape: tuple[int, int, int], n: int, seed: int) -> Callable[[], None]:
    """The values. Returns what compares the gradients."""
    d = shape[-1]
    calls: list[str] = []
    start = 3 * sample(*shape, seed=d + seed) + 0.7
    branches, weights = map(list, zip(*(branch_of(d, d + 10 * k + seed, calls) for k in range(n)), strict=True))
    norms, final_norm = [norm_of(d, d + 100 * k + seed, eps=1e-2) for k in range(n)], norm_of(d, 7, eps=1e-2)
    given = [*branches], [*norms]
    with trial.keeping(*norms, final_norm):
        got = trial.call(start, branches, norms, final_norm)
    trial.require((branches, norms) == given, "Your function changed the lists: the caller still needs them.")
    branches, norms = given
    once = len(calls)
    up = range(n)

    def pre(x: Tensor, k: int) -> Tensor:
        return x + branches[k](ln(norms[k], x))

    def post(x: Tensor, k: int) -> Tensor:
        return ln(norms[k], x + branches[k](x))

    def final(x: Tensor) -> Tensor:
        return ln(final_norm, x)

    def run(step: Callable[[Tensor, int], Tensor], order: Iterable[int] = up, x: Tensor = start) -> Tensor:
        for k in order:
            x = step(x, k)
        return x

    def through(norm: nn.LayerNorm) -> Tensor:
        return final(run(lambda x, k: x + branches[k](ln(norm, x))))

    is_post = "Those are Post-LN sub-layers: Pre-LN does not normalise its sums."
    behind = "One final norm for the whole stack, not one after every sub-layer."
    skip = "The skip carries the raw stream in every sub-layer: yours is normalised on the way."
    wrong = [
        Misconception(
            run(pre), "The final norm is missing. Each sub-layer is right, but the stack's output grows with depth."
        ),
        Misconception(run(lambda x, k: final(pre(x, k))), behind),
        Misconception(final(run(lambda x, k: final(pre(x, k)))), behind),
        Misconception(final(final(run(pre))), "The final norm comes once, at the end."),
        Misconception(run(post), is_post),
        Misconception(final(run(post)), is_post),
        Misconception(final(run(lambda x, k: x + branches[k](x))), "The branches must see a normalised input."),
        Misconception(final(run(lambda x, k: pre(x, k) - x + ln(norms[k], x))), skip),
        Misconception(final(run(lambda x, k: pre(x, k) - x)), "The skips are missing: each branch adds to the stream."),
        Misconception(final(run(pre, up[::-1])), "From the bottom up: the first branch first."),
        *(
            Misconception(
                through(norm),
                "Each branch has a norm of its own: branch k goes with norms[k].",
            )
            for norm in (norms[0], norms[-1], final_norm)
        ),
        Misconception(run(pre, x=final(start)), "The final norm comes at the end, not at the start."),
        Misconception(final(run(pre, up[:-1])), "The last branch is left out."),
        Misconception(final(run(pre, up[1:])), "The first branch is left out."),
        Misconception(ln(norms[-1], run(pre)), "At the end comes final_norm, not the last branch's norm once more."),
        Misconception(
            final(start + torch.stack([pre(start, k) - start for k in up]).sum(0)),
            "Each branch reads what the ones below it have written, not the stack's input.",
        ),
    ]
    trial.equal(got, final(run(pre)), wrong)
    called_once(trial, once, n)
    leaf = start.clone().requires_grad_()
    operands = {"x": leaf, "the first norm's gain": norms[0].weight, "the final norm's gain": final_norm.weight}
    operands |= {f"the weight of branches[{k}]": weight for k, weight in enumerate(weights)}

    def right() -> Tensor:
        return final(run(pre, x=leaf))

    answer = partial(trial.call, leaf, branches, norms, final_norm)
    return partial(trial.gradients, answer, right, operands)


def _short_stack(trial: Trial, n: int) -> None:
    """In float32."""
    x, norm, final = (2 * sample(2, 3, 6, seed=4) + 0.4).float(), *(norm_of(6, k, 1e-2).float() for k in (1, 2))
    f, _ = branch_of(6, 3)
    got = trial.call(x, [f] * n, [norm] * n, final)
    right = ln(final, x + f(ln(norm, x)) if n else x)
    trial.like(got, right)
    what = "one branch" if n else "no branches: only the final norm is left"
    trial.require(torch.allclose(got, right, rtol=1e-4, atol=1e-5), f"This is a stack of {what}.")


JUDGES: dict[str, Judge] = {
    "pre_ln": pre_ln,
    "rule_of": rule_of,
    "token_similarity": token_similarity,
    "split_gradient": split_gradient,
    "attention_gradient_factor": attention_gradient_factor,
    "pre_ln_stack": pre_ln_stack,
    "pre_ln_share": pre_ln_share,
}
