"""What a learner can set: numbers, by slider or typed, and choices. Plain values; the page draws them."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from deepnet_edu.figures.style import FIRST
from deepnet_edu.messages import UserError, unknown
from deepnet_edu.residual import DEFAULT, RESIDUALS, Residual


def spread(low: float, high: float, count: int, *special: float) -> list[float]:
    """``count`` numbers of three digits from ``low`` to ``high`` in equal ratios, and those in ``special``."""
    return sorted({*(float(f"{x:.3g}") for x in np.geomspace(low, high, count)), *special})


class Dial:
    """A number, by slider or typed. What cannot be is refused with a sentence.

    Args:
        label: its name on the page.
        stops: of the slider, ascending.
        value: to begin with, one of the stops or between the first and the last.
        whole: whether only whole numbers are taken.
        note: what the limits mean, for the sentence.

    Attributes:
        value: the number.
        disabled: whether it follows from other dials now.
    """

    kind: Literal["number"] = "number"

    def __init__(
        self, label: str, stops: Sequence[float], value: float, *, whole: bool = False, note: str = ""
    ) -> None:
        self.label, self.stops, self.whole, self.note = label, list(stops), whole, note
        self.value, self.disabled = value, False

    def slide(self, stop: int) -> None:
        """Take the value of a stop, counted from 0."""
        self.value = self.stops[stop]

    def put(self, given: Any) -> None:
        """Take a number, or what was typed.

        Raises:
            UserError: this dial cannot have such a number. The value stays.
        """
        text = f"{given}".strip()
        try:
            value = float(text.replace(",", "").replace("−", "-"))
        except ValueError:
            problem = "is not a number"
        else:
            if self.whole and not (np.isfinite(value) and value == int(value)):
                problem = "is not a whole number"
            elif not self.stops[0] <= value <= self.stops[-1]:
                problem = "is out of range"
            else:
                self.value = int(value) if self.whole else value
                return
        low, high = self.written(self.stops[0]), self.written(self.stops[-1])
        raise UserError(
            f"{self.label} = {text or 'nothing'} {problem}: type {'a whole number' if self.whole else 'a number'} from "
            f"{low} to {high}{f' ({self.note})' if self.note else ''}. It stays {self.written(self.value)}."
        )

    def written(self, value: float) -> str:
        """A value as the page shows it."""
        return f"{int(value):,}" if self.whole else f"{value:.4g}"

    def fixed(self) -> dict[str, Any]:
        """What the page is told once."""
        return {"kind": self.kind, "label": self.label, "stops": [self.written(stop) for stop in self.stops]}

    def now(self) -> dict[str, Any]:
        """What the page is told whenever it changes."""
        # The nearest by ratio, as the stops are spread.
        away = [abs(np.log(max(stop, 1e-9) / max(self.value, 1e-9))) for stop in self.stops]
        return {"at": int(np.argmin(away)), "text": self.written(self.value), "disabled": self.disabled}


class Choice:
    """One of several.

    Args:
        label: its name on the page.
        options: titles and values.
        value: to begin with.

    Attributes:
        value: what is chosen.
        disabled: whether there is nothing to choose now.
    """

    kind: Literal["choice"] = "choice"

    def __init__(self, label: str, options: Sequence[tuple[str, Any]], value: Any) -> None:
        self.label, self.options = label, list(options)
        self.value, self.disabled = value, False
        self.put(value)

    def slide(self, stop: int) -> None:
        """Take an option, counted from 0."""
        self.value = self.options[stop][1]

    def put(self, given: Any) -> None:
        """Take a value, or what it looks like in an address.

        Raises:
            UserError: it is none of the options.
        """
        values = [value for _, value in self.options]
        for value in values:
            if value == given or str(value) == given:
                self.value = value
                return
        raise UserError(unknown(self.label, str(given), [str(value) for value in values]))

    def fixed(self) -> dict[str, Any]:
        """What the page is told once."""
        return {"kind": self.kind, "label": self.label, "stops": [title for title, _ in self.options]}

    def now(self) -> dict[str, Any]:
        """What the page is told whenever it changes."""
        at = [value for _, value in self.options].index(self.value)
        return {"at": at, "text": self.options[at][0], "disabled": self.disabled}


def rules(known: Callable[[type[Residual]], bool] = lambda rule: True) -> list[tuple[str, str]]:
    """Titles and names of the rules for a decoder, those first that the course compares everywhere.

    Args:
        known: whether it is one to choose.
    """
    names = dict.fromkeys([DEFAULT, *FIRST, *RESIDUALS])
    return [(RESIDUALS[n].title, n) for n in names if "decoder" in RESIDUALS[n].architectures and known(RESIDUALS[n])]
