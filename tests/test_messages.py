"""A sentence stays one, and short, whatever it repeats."""

from typing import Any

import pytest

from deepnet_edu.fields import whole_number
from deepnet_edu.messages import MOST_SHOWN, UserError, shown, unknown, without_long


def nested() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


VALUES = ["x" * 10**6, 10**5000, -(10**5000), [0] * 10**5, nested(), "a\nb", None, 1.5]


@pytest.mark.parametrize("value", VALUES, ids=map(str, range(len(VALUES))))
def test_a_value_is_shown_on_one_short_line(value: object) -> None:
    said = shown(value)
    assert 0 < len(said) <= 100
    assert said.isprintable()


def test_what_is_short_is_shown_whole() -> None:
    assert [shown(value) for value in ("a b", 3, None, [1, "x"])] == ["'a b'", "3", "None", "[1, 'x']"]
    assert unknown("key", "stpes", ["steps"]) == "Unknown key 'stpes': did you mean 'steps'?"
    assert unknown("language", "pt-br", ["pt", "pt_BR", "tr"]) == "Unknown language 'pt-br': did you mean 'pt_BR'?"
    assert len(unknown("key", "s" * 10**5, ["steps"])) < 2 * MOST_SHOWN + 50


def test_an_error_is_one_line_without_control_characters() -> None:
    assert str(UserError("a\nb \x1b[31mred \udcff")) == "a\\nb \\x1b[31mred \\udcff"
    assert len(str(UserError("x" * 5000))) < 100
    assert len(str(UserError("x " * 5000))) < 1100
    path = "/" + "folder/" * 20 + "run.toml"
    assert str(UserError(f"{path} is damaged.")) == f"{path} is damaged."


def test_of_what_was_typed_a_sentence_repeats_the_beginning() -> None:
    long = "a, b " * 1000
    assert without_long(f"--out {long}: no.", ["run", long]) == f"--out {long[:MOST_SHOWN]}…: no."
    assert without_long(f"X is {long}", [f"X={long}"]) == f"X is {long[:MOST_SHOWN]}…"
    assert without_long("--out short: no.", ["short"]) == "--out short: no."


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("-3", -3), ("+4", 4), ("", None), (" 1", None), ("1_0", None), ("\u0663", None), ("1.0", None),
     pytest.param("9" * 5000, None, id="5,000 digits"), ("1\n", None), ("0x10", None)],
)  # fmt: skip
def test_whole_numbers_are_read_strictly(text: str, number: int | None) -> None:
    assert whole_number(text) == number
