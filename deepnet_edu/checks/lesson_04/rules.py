"""The judge of lesson 04's rule_of: which of three rules a sub-layer follows that can only be called."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from deepnet_edu.checks.base import Trial
from deepnet_edu.checks.sublayers import plainly
from deepnet_edu.checks.trial import TYPE

_Function = Callable[[Tensor], Tensor]
_Sublayer = Callable[[Tensor, _Function, _Function], Tensor]
_RULES: dict[str, Callable[[Tensor, _Function, _Function], Tensor]] = {
    "post_ln": lambda x, f, norm: norm(x + f(x)),
    "pre_ln": lambda x, f, norm: x + f(norm(x)),
    "norm_on_branch": lambda x, f, norm: x + norm(f(x)),
}
#: Each rule comes more than once, and in no order that could be counted.
_ASKED = ("pre_ln", "norm_on_branch", "post_ln", "norm_on_branch", "pre_ln", "post_ln", "post_ln", "pre_ln")


def black_box(rule: str) -> _Sublayer:
    """A sub-layer of this rule that does not say which."""
    work = _RULES[rule]

    def sublayer(x: Tensor, f: _Function, norm: _Function) -> Tensor:
        return work(x, f, norm)

    return plainly(sublayer)


def rule_of(trial: Trial) -> None:
    """Call it with a norm that returns zeros and a branch that returns ones: Post-LN gives 0, Pre-LN x + 1, and a norm
    on the branch x.
    """
    got = [_word(trial, trial.call(black_box(rule))) for rule in _ASKED]
    if got == list(_ASKED):
        return
    said: dict[str, set[str]] = {
        rule: {word for asked, word in zip(_ASKED, got, strict=True) if asked == rule} for rule in _RULES
    }
    one = len(set(got)) == 1
    trial.require(not one, "Your answer is the same for all three rules: look at what the sub-layer returns.")
    trial.require(
        all(len(words) == 1 for words in said.values()),
        "The same rule gets different answers: is something kept between calls, or does a random x decide?",
    )
    names = {rule: next(iter(words)) for rule, words in said.items()}
    trial.require(
        names["post_ln"] == "post_ln",
        "Post-LN is not recognised: its norm comes last, so the output shows whatever the norm does to everything.",
    )
    pair = names["pre_ln"], names["norm_on_branch"]
    trial.require(
        pair != ("norm_on_branch", "pre_ln"),
        "Pre-LN and the norm on the branch are exchanged: in Pre-LN the branch comes last before the sum.",
    )
    trial.require(
        len({*pair}) == 2,
        "Pre-LN and the norm on the branch get the same answer: a branch of zeros, or one that returns its input, "
        "gives the same in both.",
    )
    failed = next(rule for rule in _RULES if names[rule] != rule)
    trial.require(False, "One rule is taken for another.", f'"{failed}"', f'"{names[failed]}"')


def _word(trial: Trial, got: Any) -> str:
    words = ", ".join(f'"{rule}"' for rule in _RULES)
    known = isinstance(got, str) and got in _RULES
    trial.require(known, f"The answer is one of three words: {words}.", got=f"{got!r}"[:40], rung=TYPE)
    return str(got)
