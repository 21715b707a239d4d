"""Odd answers: each its own sentence, never an exception, and the notebook continues."""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deepnet_edu.checks
from deepnet_edu.checks import Misconception, Result, Trial, check
from deepnet_edu.checks.base import judged

X = torch.arange(6, dtype=torch.float64).reshape(2, 3) + 1


def doubled(trial: Trial) -> None:
    """The exercise of these tests: 2x."""
    trial.equal(trial.call(X.clone()), 2 * X, [Misconception(X**2, "Twice, not squared.")], "It is 2x.")


def give(answer: Callable[..., Any], timeout: float = 10) -> Result:
    return judged("double", doubled, answer, timeout)


def forever(x: torch.Tensor) -> None:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def in_place(x: torch.Tensor) -> torch.Tensor:
    x *= 2
    return x


def not_attempted(x: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("answer", "state", "sentence"),
    [
        (lambda x: 2 * x, "done", ""),
        (not_attempted, "open", "Replace the line that raises NotImplementedError"),
        (lambda x: None, "tried", "returns nothing: is there a return"),
        (lambda x: 2.0, "tried", "The answer is a tensor"),
        (lambda x: "2x", "tried", "The answer is a tensor"),
        (lambda x: (2 * x).float(), "tried", "input's data type"),
        (lambda x: (2 * x).to("meta"), "tried", "not on the input's device"),
        (lambda x: (2 * x).T, "tried", "The shape is wrong"),
        (lambda x: x**2, "tried", "Twice, not squared."),
        (lambda x: 3 * x, "tried", "It is 2x."),
        (lambda x: 2 * x * torch.nan, "tried", "It is 2x."),
        (in_place, "tried", "changed its input in place"),
        (lambda x: 1 / 0, "tried", "raised ZeroDivisionError: division by zero"),
        (lambda: 1, "tried", "takes other arguments than the exercise's"),
        (3, "tried", "Pass the function itself"),
    ],
)
def test_odd_answers(answer: Any, state: str, sentence: str) -> None:
    result = give(answer)
    assert result.state == state
    assert sentence in result.sentence


def test_one_that_never_returns_is_left() -> None:
    assert "did not return within 0.3 s" in give(forever, timeout=0.3).sentence


def test_a_thousand_lines_are_swallowed(capsys: pytest.CaptureFixture) -> None:
    def chatty(x: torch.Tensor) -> torch.Tensor:
        for i in range(1000):
            print(i)
        return 2 * x

    result = give(chatty)
    assert result.state == "done"
    assert "printed 1,000 lines" in result.sentence
    assert capsys.readouterr().out == ""


def test_the_random_state_stays() -> None:
    before = torch.random.get_rng_state()
    give(lambda x: 2 * x + 0 * torch.randn(3, dtype=torch.float64))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_judge_that_stumbles_does_not_raise() -> None:
    result = judged("double", lambda trial: trial.call(X)[5], lambda x: [x])
    assert result.state == "tried"
    assert "of a kind that this exercise cannot use" in result.sentence


def test_the_card() -> None:
    result = give(lambda x: x**2)
    assert repr(result).splitlines()[0] == "✗ double: Not yet. Twice, not squared."
    assert "expected: [[ 2.," in repr(result)
    assert result.difference == pytest.approx(24)
    bundle = Result("f<g>", "tried", "a < b & c")._repr_mimebundle_()
    assert "<code>f&lt;g&gt;</code><br>a &lt; b &amp; c" in bundle["text/html"]
    assert bundle["text/plain"] == "✗ f<g>: Not yet. a < b & c"


def test_numbers_of_all_kinds_are_numbers() -> None:
    for value in (2, 2.0, np.float64(2), torch.tensor(2.0), np.array(2)):
        Trial(lambda: None).like(value, 1.0)
    with pytest.raises(deepnet_edu.checks.NotRight, match="one number"):
        Trial(lambda: None).like(True, 1.0)


def test_an_unknown_exercise_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match="did you mean 'input_share'"):
        check.input_shares  # noqa: B018
    assert "variance_by_depth" in dir(check)


def test_checks_are_instant() -> None:
    begin = time.process_time()  # of this process alone, however busy the machine is
    for exercise in check.judges:
        getattr(check, exercise)(not_attempted)
        getattr(check, exercise)(lambda *a, **k: 0.5)
    assert time.process_time() - begin < len(check.judges)


def test_checks_never_import_a_solution() -> None:
    for path in Path(deepnet_edu.checks.__file__).parent.glob("*.py"):
        assert "solutions" not in path.read_text(encoding="utf-8").replace("a solution", "")


def test_endless_printing_takes_no_memory_and_is_left() -> None:
    def chatty(x: torch.Tensor) -> None:
        while True:
            print("x" * 1000)

    assert "did not return within 0.3 s" in give(chatty, timeout=0.3).sentence


def test_a_program_that_ends_itself_does_not_end_the_notebook() -> None:
    def leave(x: torch.Tensor) -> None:
        sys.exit(0)

    assert "ended the program" in give(leave).sentence


def test_pytorchs_own_not_implemented_error_is_no_stub() -> None:
    result = give(lambda x: torch.nn.ModuleList()(x))
    assert result.state == "tried"
    assert "raised NotImplementedError: Module [ModuleList]" in result.sentence


def test_something_that_cannot_even_be_shown() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "The answer is a tensor" in give(lambda x: Odd()).sentence
    assert "Pass the function itself" in give(Odd()).sentence
