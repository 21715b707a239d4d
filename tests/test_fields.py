"""Plain data are checked field by field before anything uses them."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from deepnet_edu.fields import from_dict


@dataclass
class Sample:
    name: str
    count: int = 0
    rate: float | None = None
    on: bool = False
    words: list[str] = field(default_factory=list)
    table: dict[str, Any] = field(default_factory=dict)
    pair: tuple[float, float] = (0.0, 0.0)
    kind: Literal["a", "b"] = "a"


def test_what_fits_is_taken() -> None:
    content = {"name": "x", "count": 3, "rate": 2, "on": True, "words": ["a"], "table": {"k": [1]}, "pair": [1, 2.5]}
    assert from_dict(Sample, content).rate == 2
    assert from_dict(Sample, {"name": "x", "rate": None}).count == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "expected a table of fields, found []"),
        ({}, "name is missing"),
        ({"name": 1}, "name: expected text, found 1"),
        ({"name": "x", "other": 1}, "'other' is not a field"),
        ({"name": "x", "count": True}, "count: expected a whole number, found True"),
        ({"name": "x", "count": 1.0}, "count: expected a whole number"),
        ({"name": "x", "rate": "fast"}, "rate: expected a number or null, found 'fast'"),
        ({"name": "x", "on": 1}, "on: expected true or false, found 1"),
        ({"name": "x", "words": ["a", 1]}, "words: expected a list of text each"),
        ({"name": "x", "table": []}, "table: expected a table, found []"),
        ({"name": "x", "pair": [1]}, "pair: expected a list"),
        ({"name": "x", "kind": "c"}, "kind: expected 'a' or 'b', found 'c'"),
        ({"name": "x", "on": 10**5000}, "on: expected true or false, found a number of very many digits"),
    ],
)
def test_what_does_not_is_named(content: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        from_dict(Sample, content)
