"""A measured number, what was expected of it, and whether it holds."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

#: What a lesson may pass: one number, one for each seed or depth, or either of these by name.
Values = float | Sequence[float] | Mapping[str, "float | Sequence[float]"]


class Held(int):
    """True or False, of which a notebook shows nothing as a cell's last line: what was printed has said it."""

    def _ipython_display_(self) -> None:
        return


def finding(
    what: str,
    value: Values,
    *,
    above: float | None = None,
    below: float | None = None,
    near: float | None = None,
    by: float = 0.0,
    says: str = "",
    holds: bool = True,
    form: str = "",
) -> Held:
    """Print a measured value, what was expected of it, and yes or no. Returns whether it holds of every value.

    ``kit.finding("token similarity", {"Post-LN": 0.998, "Keel": 0.993}, above=0.99)`` prints::

        token similarity: Post-LN ≈ 0.998; Keel ≈ 0.993; above 0.99: yes

    nbval compares everything but the numbers after ≈, which differ between processors and profiles. A finding never
    stops a notebook: with other dials it says no, and the number beside it says why.

    Args:
        what: the quantity, with its unit.
        value: one number, a list (of seeds, say), or either by name. Tensors and arrays are taken as numbers.
        above: every value must be above it, and ``below`` below.
        near: every value must be at most this far from it, ``by``.
        says: a further claim, in words, that ``holds`` judges: ``says="rising", holds=a < b``.
        form: format of the values, such as ``".0%"``; three significant digits if it is empty.

    Raises:
        ValueError: nothing is expected of the value, or there is no value.
    """
    parts = value if isinstance(value, Mapping) else {"": value}
    lists = {name: _list(one) for name, one in parts.items()}
    every = [one for values in lists.values() for one in values]
    expected = []
    if above is not None and below is not None:
        expected.append((f"between {_plain(above, form)} and {_plain(below, form)}", _all(every, above, below)))
    elif above is not None:
        expected.append((f"above {_plain(above, form)}", _all(every, above, float("inf"))))
    elif below is not None:
        expected.append((f"below {_plain(below, form)}", _all(every, float("-inf"), below)))
    if near is not None:
        inside = all(abs(one - near) <= by for one in every)  # False for NaN
        expected.append((f"within {_plain(by, form)} of {_plain(near, form)}", inside))
    if says:
        expected.append((says, bool(holds)))
    if not expected or not every:
        raise ValueError(f"{what}: give a value and what to expect of it: above=, below=, near= and by=, or says=.")
    shown = "; ".join(
        f"{name} ≈ {', '.join(_plain(one, form) for one in one_of)}".lstrip() for name, one_of in lists.items()
    )
    verdict = all(held for _, held in expected)
    print(f"{what}: {shown}; {', '.join(words for words, _ in expected)}: {'yes' if verdict else 'no'}")
    return Held(verdict)


def _list(value: Any) -> list[float]:
    value = value.tolist() if hasattr(value, "tolist") else value
    return [float(one) for one in value] if isinstance(value, list | tuple) else [float(value)]


def _all(values: list[float], low: float, high: float) -> bool:
    return all(low < one < high for one in values)


def _plain(value: float, form: str) -> str:
    """Three significant digits, without an exponent where that can be read."""
    if form or not isfinite(value):
        return format(value, form)
    short = float(f"{value:.3g}")
    return f"{short:,.10g}" if short == 0 or 1e-4 <= abs(short) < 1e7 else f"{short:.2g}"
