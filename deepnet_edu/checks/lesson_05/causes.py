"""The judge of lesson 05's counterexamples: which arms contradict a claim about a cause and its effect."""

from collections.abc import Callable, Mapping
from typing import Any

from deepnet_edu.checks.base import Trial
from deepnet_edu.checks.trial import TYPE, VALUE

_Arm = Mapping[str, float]
_Claim = Callable[[_Arm], bool]
_Case = tuple[dict[str, _Arm], _Claim, _Claim]
_Rule = Callable[[bool, bool], bool]


def _arms(values: str) -> dict[str, _Arm]:
    """An arm for each pair of digits: the first is its step, the second its loss."""
    names = ("wide", "deep", "slow", "held", "bold", "calm", "late")
    pairs = values.split()
    return {name: {"step": float(two[0]), "loss": float(two[1])} for name, two in zip(names, pairs, strict=False)}


def _above(key: str, limit: float) -> _Claim:
    def claim(arm: _Arm) -> bool:
        return arm[key] > limit

    claim.__qualname__, claim.__module__ = "claim", "__main__"
    return claim


def _cases() -> list[_Case]:
    """All four kinds of arms, in other orders; then claims that nothing contradicts, and no arms at all."""
    all_kinds, other = _arms("93 17 82 28 91 15 49"), _arms("16 94 27 81 39")
    step, loss = _above("step", 5), _above("loss", 5)
    return [
        (all_kinds, step, loss),
        (other, step, loss),
        (all_kinds, loss, step),
        (all_kinds, _above("step", 8), loss),
        (all_kinds, step, _above("loss", 2)),
        (_arms("99 18"), step, loss),
        (_arms("29 98"), step, loss),
        (_arms("78 12 86"), step, loss),
        ({}, step, loss),
    ]


def _by(first: _Rule, second: _Rule) -> Callable[[_Case], tuple[list[str], list[str]]]:
    """Both lists by rules of whether cause and effect are there."""

    def lists(case: _Case) -> tuple[list[str], list[str]]:
        arms, cause, effect = case
        one, other = ([name for name, arm in arms.items() if rule(cause(arm), effect(arm))] for rule in (first, second))
        return one, other

    return lists


_RIGHT = _by(lambda c, e: c and not e, lambda c, e: e and not c)
_WRONG: list[tuple[_Rule, _Rule, str]] = [
    (
        lambda c, e: e and not c,
        lambda c, e: c and not e,
        "The lists are exchanged: first the arms with the cause without the effect.",
    ),
    (
        lambda c, e: c and e,
        lambda c, e: not c and not e,
        "Those are the arms that agree with the sentence: asked are those that contradict it.",
    ),
    (
        lambda c, e: c and e,
        lambda c, e: e and c,
        "Those have both, so they agree with the sentence: asked are those that have one without the other.",
    ),
    (
        lambda c, e: c != e,
        lambda c, e: c != e,
        "Both lists hold all arms that contradict the sentence: the first only those that have the cause.",
    ),
    (
        lambda c, e: not e,
        lambda c, e: not c,
        "An arm without cause and effect agrees with the sentence: ask for the other half, too.",
    ),
    (
        lambda c, e: c,
        lambda c, e: e,
        "An arm with cause and effect agrees with the sentence: it must have one without the other.",
    ),
    (
        lambda c, e: c and not e,
        lambda c, e: not c and not e,
        "The second list holds arms with the effect, but without the cause.",
    ),
    (lambda c, e: c and not e, lambda c, e: False, "The second list stays empty: look for effects without the cause."),
    (lambda c, e: False, lambda c, e: e and not c, "The first list stays empty: look for causes without the effect."),
]


def counterexamples(trial: Trial) -> None:
    """First the arms for which cause(arm) is true and effect(arm) is not, then those for which effect(arm) is true and
    cause(arm) is not; names, in the order of arms.
    """
    cases = _cases()
    got = [_lists(trial, trial.call(*case)) for case in cases]
    again = _lists(trial, trial.call(*cases[0]))
    trial.require(again == got[0], "The same call gives another answer the second time: make new lists in each call.")
    expected = [_RIGHT(case) for case in cases]
    if got == expected:
        return
    for first, second, sentence in _WRONG:
        trial.require(got != [_by(first, second)(case) for case in cases], sentence)
    trial.require(
        [tuple(map(sorted, pair)) for pair in got] != [tuple(map(sorted, pair)) for pair in expected],
        "The names are right, and their order is wrong: keep that of arms.",
    )
    wanted, found = next((a, b) for a, b in zip(expected, got, strict=True) if a != b)
    trial.require(False, "For these arms the lists are others.", str(wanted), str(found), rung=VALUE)


def _lists(trial: Trial, got: Any) -> tuple[list[str], list[str]]:
    said = "The answer is two lists of names: first of those with the cause, then of those with the effect."
    pair = isinstance(got, tuple | list) and len(got) == 2 and all(isinstance(one, tuple | list) for one in got)
    trial.require(pair, said, "two lists", type(got).__name__, rung=TYPE)
    texts = all(isinstance(name, str) for one in got for name in one)
    trial.require(texts, "The lists hold the arms' names, not their values.", "names", rung=TYPE)
    return list(got[0]), list(got[1])
