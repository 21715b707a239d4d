"""What a judge can ask, and which sentence is chosen of all that is found."""

import functools
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepnet_edu.checks import Misconception, Result, Trial, check
from deepnet_edu.checks.base import judged
from deepnet_edu.checks.values import argument, show


def root_of_sum(trial: Trial) -> None:
    """The root of a² + b²."""
    for a, b in [(3.0, 4.0), (1.5, 2.0), (0.6, 0.25)]:
        wrong = [
            Misconception(a + b, "Lengths do not add."),
            Misconception(a * a + b * b, "The root is missing."),
            Misconception(max(a, b), "That is the longer side."),
        ]
        trial.equal(trial.call(a, b), (a * a + b * b) ** 0.5, wrong)
    trial.require(trial.call(0.0, 2.0) == 2.0, "Without a first side the second is all.", "2")


def give(answer: Callable[..., Any], judge: Callable[[Trial], None] = root_of_sum) -> Result:
    return judged("side", judge, answer)


def test_a_misconception_fits_at_every_point_that_knows_it() -> None:
    assert give(lambda a, b: a + b).sentence == "Lengths do not add."
    # At the first point alone 7 is a + b: the learner has not added anything.
    result = give(lambda a, b: 7.0 if a == 3 else max(a, b) / 2 if a else b)
    assert result.sentence == "For these arguments the value is wrong."
    assert result.call == "side(3, 4)"
    assert (result.expected, result.got) == ("5.", "7.")
    assert result.rung == "the value; type, shape and properties are right"


def test_a_property_says_more_than_another_value() -> None:
    result = give(lambda a, b: a * b)
    assert result.sentence == "Without a first side the second is all."
    assert result.rung == "a property; type and shape are right"


@pytest.mark.parametrize("nothing", [float("nan"), np.nan, torch.tensor(float("nan"))])
def test_not_a_number_says_more_than_a_property(nothing: Any) -> None:
    assert give(lambda a, b: nothing).sentence.startswith("The answer is not a number: 0/0")
    assert "not a number" in check.judge("input_share", lambda n, f, alpha: nothing).sentence


def test_the_named_misconception_says_more_than_a_property() -> None:
    assert give(lambda a, b: a * a + b * b).sentence == "The root is missing."


@pytest.mark.parametrize(
    "kind",
    [
        np.float32,
        np.float64,
        lambda x: torch.tensor(x),
        lambda x: torch.tensor(x).item(),
        Fraction,
        lambda x: Decimal(repr(x)),
        lambda x: torch.tensor(x, dtype=torch.bfloat16),
    ],
)
def test_a_value_is_judged_at_its_own_precision(kind: Callable[[float], Any]) -> None:
    def judge(trial: Trial) -> None:
        trial.equal(trial.call(), 2 / 3)

    assert give(lambda: kind(2 / 3), judge).state == "done"
    result = give(lambda: kind(2 / 3 * 1.0009), judge)
    assert (result.state == "done") == (kind(1.0) == 1 and "bfloat16" in str(getattr(kind(1.0), "dtype", "")))
    if result.state == "tried":
        assert result.sentence.startswith("Nearly: something is rounded")


def test_whole_numbers_are_judged_to_the_last_digit() -> None:
    def judge(trial: Trial) -> None:
        trial.equal(trial.call(), 6_738_415_616)

    assert give(lambda: 6_738_415_616, judge).state == "done"
    assert give(lambda: float(6_738_415_616), judge).state == "done"
    assert give(lambda: 6_738_415_617, judge).state == "tried"
    assert give(lambda: np.float32(6_738_415_616), judge).state == "done"


def test_expected_and_got_have_digits_enough_to_differ() -> None:
    assert show(np.array(0.2), np.array(0.2 + 1e-9)) == ("0.2", "0.200000001")
    assert show(np.array(3.4099), np.array(2.0)) == ("3.4099", "2.")


class Ended(Exception):
    """With colours, as PyTorch has them."""


def raising(error: BaseException) -> Callable[..., Any]:
    def answer(*_: Any) -> None:
        raise error

    return answer


async def later(*_: Any) -> float:
    return 1.0


def bit_by_bit(*_: Any) -> Any:
    yield 1.0


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (raising(Ended("\x1b[1mnot\x1b[0m now")), "Your function raised Ended: not now The line: raise error"),
        (raising(KeyboardInterrupt()), "Your function raised KeyboardInterrupt"),
        (raising(OverflowError(34, "Numerical result out of range")), "too large for a float, though the answer is"),
        (lambda a, b: torch.ones(2, 3) / torch.ones(2), "keepdim=True keeps it"),
        (later, "begin it with def alone"),
        (bit_by_bit, "return it whole"),
        (lambda a: a, "other arguments than the exercise"),
        (lambda a, b: [1, "two"], "The answer is one number."),
        (lambda a, b: 1j, "The answer is one number."),
    ],
)
def test_each_slip_has_its_sentence(answer: Callable[..., Any], sentence: str) -> None:
    result = give(answer)
    assert result.state == "tried"
    assert sentence in result.sentence
    assert result.sentence.isprintable()


def scaled_tanh(trial: Trial) -> None:
    """x + tanh(w·x)."""
    x = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([1.5, 0.4, -0.8], dtype=torch.float64, requires_grad=True)
    trial.equal(trial.call(x, w), x + torch.tanh(w * x))
    trial.gradients(lambda: trial.call(x, w), lambda: x + torch.tanh(w * x), {"x": x, "w": w})


@torch.no_grad()
def without_gradients(x: Tensor, w: Tensor) -> Tensor:
    return x + torch.tanh(w * x)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda x, w: x + torch.tanh(w * x), ""),
        (lambda x, w: x.detach() + torch.tanh(w * x), "comes back to x is wrong"),
        (lambda x, w: x + torch.tanh(w.data * x), "comes back to w is wrong"),
        (lambda x, w: (x + torch.tanh(w * x)).detach(), "No gradient passes through your answer"),
        (without_gradients, "No gradient passes through your answer"),
        (lambda x, w: x.requires_grad_(False) + torch.tanh(w * x), "changed its input in place"),
    ],
)
def test_gradients_count(answer: Callable[..., Any], sentence: str) -> None:
    result = give(answer, scaled_tanh)
    assert sentence in result.sentence
    assert result.state == ("tried" if sentence else "done")


def norm_by_hand(trial: Trial) -> None:
    """The norm, without PyTorch's, and its gradient without autograd."""
    x = torch.tensor([[0.3, -1.2, 0.7]], dtype=torch.float64)
    with trial.without("layer_norm", "native_layer_norm", autograd=True):
        got = trial.call(x)
    trial.equal(got, (x - x.mean()) / x.std(correction=0))


def by_autograd(x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        torch.autograd.grad(leaf.square().sum(), leaf)
    return nn.functional.layer_norm(x, (3,), eps=0)


def swallowed(x: Tensor) -> Tensor:
    try:
        return nn.functional.layer_norm(x, (3,), eps=0)
    except Exception:
        return (x - x.mean()) / x.std(correction=0)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: nn.functional.layer_norm(x, (3,), eps=0),
        lambda x: torch.layer_norm(x, (3,), eps=0),
        nn.LayerNorm(3, eps=0, elementwise_affine=False).double(),
        lambda x: torch.native_layer_norm(x, (3,), None, None, 0)[0],
        by_autograd,
        swallowed,
    ],
)
def test_what_is_forbidden_is_refused(answer: Callable[..., Any]) -> None:
    assert "the function that you are to write" in give(answer, norm_by_hand).sentence
    leaf = torch.ones(2, requires_grad=True)
    assert torch.autograd.grad(leaf.sum(), leaf)[0].sum() == 2  # everybody else has it


def test_by_hand_is_accepted() -> None:
    assert give(lambda x: (x - x.mean()) / x.std(correction=0), norm_by_hand).state == "done"


@pytest.mark.parametrize(
    "change",
    [
        lambda norm: setattr(norm, "eps", 0.0),
        lambda norm: norm.weight.requires_grad_(False),
        lambda norm: norm.weight.data.mul_(2),
        lambda norm: norm.eval(),
    ],
)
def test_a_module_that_is_only_used_stays_as_it_is(change: Callable[[nn.LayerNorm], Any]) -> None:
    def judge(trial: Trial) -> None:
        """The norm of x."""
        norm, x = nn.LayerNorm(3), torch.ones(2, 3)
        with trial.keeping(norm):
            trial.call(x, norm)

    def answer(x: Tensor, norm: nn.LayerNorm) -> Tensor:
        change(norm)
        return x

    assert "changed a module" in give(answer, judge).sentence
    assert give(lambda x, norm: norm(x), judge).state == "done"


def test_arguments_are_named_shortly() -> None:
    given = [3, 0.1, True, None, "sum", torch.ones(2, 3), np.ones(4), [1, 2.5], (0.5,), torch.tensor(2.0), len]
    shown = [argument(one) for one in given]
    assert shown == ["3", "0.1", "True", "None", "'sum'", "tensor[2,3]", "array[4]", "[1, 2.5]", "(0.5)", "2", "len"]


def test_the_answer_in_words_is_for_who_asks() -> None:
    wrong = check.input_share(lambda n, f, alpha: 0.5)
    assert not wrong.formula
    again = check.input_share(lambda n, f, alpha: 0.5)
    assert "check.input_share(input_share, show_me=True)" in again.ask
    shown = check.input_share(lambda n, f, alpha: 0.5, show_me=True)
    assert shown.formula
    assert shown.formula not in repr(again)
    assert shown.formula in repr(shown)
    assert shown.formula in shown._repr_mimebundle_()["text/html"]


@functools.cache
def cached(n: int, f: float, alpha: float) -> list[float]:
    return [(alpha**2 / (alpha**2 + f)) ** n]


def test_a_form_of_its_own_is_kept_where_it_serves() -> None:
    def input_share(n: int, f: float, alpha: float) -> float:
        return float((alpha**2 / (alpha**2 + f)) ** n)

    assert check.answer("input_share", input_share) is input_share
    assert check.answer("input_share", functools.cache(input_share)) is input_share
    assert check.answer("input_share", cached) is None
    assert check.answer("input_share", 3) is None
    taken = check.answer("input_share", lambda n, f, alpha: torch.tensor(input_share(n, f, alpha)))
    assert taken is not None
    assert isinstance(taken(3, alpha=2.0, f=1.0), float)
