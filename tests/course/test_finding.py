"""A measured number, what was expected of it, and whether it holds."""

import configparser
import re

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from deepnet_edu.course import kit
from deepnet_edu.course.places import ROOT


@pytest.mark.parametrize(
    ("value", "expected", "said"),
    [
        (0.9876, {"above": 0.7}, "x: ≈ 0.988; above 0.7: yes"),
        (torch.tensor([0.36, 0.61]), {"below": 0.5}, "x: ≈ 0.36, 0.61; below 0.5: no"),
        (
            {"Post-LN": [2.8, 2.79], "Keel": 2},
            {"near": 2.77, "by": 0.1},
            "x: Post-LN ≈ 2.8, 2.79; Keel ≈ 2; within 0.1 of 2.77: no",
        ),
        (0.973, {"above": 2 / 3, "below": 1.5}, "x: ≈ 0.973; between 0.667 and 1.5: yes"),
        (0.973, {"above": 0.7, "form": ".0%"}, "x: ≈ 97%; above 70%: yes"),
        (float("nan"), {"near": 1.0, "by": 9.0}, "x: ≈ nan; within 9 of 1: no"),
        (12345.6, {"says": "rising", "holds": torch.tensor(True)}, "x: ≈ 12,300; rising: yes"),
        (1.234e-12, {"below": 1e-9, "says": "falling", "holds": False}, "x: ≈ 1.2e-12; below 1e-09, falling: no"),
    ],
)
def test_a_finding_shows_value_expectation_and_verdict(
    value: object, expected: dict, said: str, capsys: pytest.CaptureFixture
) -> None:
    assert kit.finding("x", value, **expected) == said.endswith("yes")
    assert capsys.readouterr().out == said + "\n"


def test_the_last_line_of_a_cell_shows_no_true_after_it() -> None:
    shell = InteractiveShell.instance()
    data, _ = shell.display_formatter.format(kit.finding("x", 1.0, above=0.5))
    assert data == {}


@pytest.mark.parametrize(("value", "expected"), [(1.0, {}), ([], {"above": 0.0})])
def test_a_finding_without_value_or_expectation_is_refused(value: object, expected: dict) -> None:
    with pytest.raises(ValueError, match=r"x: give a value and what to expect of it"):
        kit.finding("x", value, **expected)


def test_nbval_compares_all_but_the_numbers() -> None:
    """Another processor and another number of seeds print the same; another verdict or limit does not."""
    rules = configparser.ConfigParser(interpolation=None)
    rules.read(ROOT / "tests" / "nbval.cfg", encoding="utf-8")
    rule = rules["measured"]

    def compared(line: str) -> str:
        return re.sub(rule["regex"], rule["replace"], line)

    one = compared("x: Post-LN ≈ 2.8, 2.79, 1,234.5; Keel ≈ -1.2e-12; above 0.7: yes")
    assert one == "x: Post-LN ≈ N; Keel ≈ N; above 0.7: yes"
    assert one == compared("x: Post-LN ≈ nan; Keel ≈ 97%; above 0.7: yes")
    assert one != compared("x: Post-LN ≈ 2.8; Keel ≈ 97%; above 0.7: no")
    assert one != compared("x: Post-LN ≈ 2.8; Keel ≈ 97%; above 0.8: yes")
