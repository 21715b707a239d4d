"""A slider with a field beside it: the slider for looking around, the field for a number of one's own."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import numpy as np

from deepnet_edu.figures.style import FIRST
from deepnet_edu.residual import DEFAULT, RESIDUALS, Residual

LABEL = {"description_width": "110px"}


def spread(low: float, high: float, count: int, *special: float) -> list[float]:
    """``count`` numbers of three digits from ``low`` to ``high`` in equal ratios, and those in ``special``."""
    return sorted({*(float(f"{x:.3g}") for x in np.geomspace(low, high, count)), *special})


class Dial(ipywidgets.HBox):
    """A number, by slider or typed. What cannot be is refused with a sentence, and the number stays.

    Args:
        label: what stands before it.
        values: the stops of the slider, ascending.
        value: to begin with, one of them or between the first and the last.
        changed: called after the learner has changed the number.
        refuse: called with a sentence when something else was typed.
        whole: whether only whole numbers are taken.
        note: what the limits mean, for the sentence.
    """

    def __init__(
        self,
        label: str,
        values: Sequence[float],
        value: float,
        *,
        changed: Callable[[], None],
        refuse: Callable[[str], None],
        whole: bool = False,
        note: str = "",
    ) -> None:
        self.label, self.stops, self.whole, self.note = label, list(values), whole, note
        self._changed, self._refuse = changed, refuse
        self._setting = False
        self._value = value
        self._slider = ipywidgets.IntSlider(
            self._nearest(value), 0, len(self.stops) - 1, description=label, readout=False, style=LABEL,
            layout={"width": "330px"},
        )  # fmt: skip
        self._field = ipywidgets.Text(
            self._text(value), continuous_update=False, placeholder=label, layout={"width": "84px"}
        )
        self._slider.tooltip = self._field.tooltip = label
        self._slider.observe(self._slid, "value")
        self._field.observe(self._typed, "value")
        super().__init__([self._slider, self._field])

    @property
    def value(self) -> float:
        """The number."""
        return self._value

    @value.setter
    def value(self, value: float) -> None:
        """Set the number without calling ``changed``: what follows from other dials. :meth:`show` shows it."""
        self._value = value

    def show(self) -> None:
        """Bring slider and field to the number: two messages to the browser, for which no picture has to wait."""
        self._setting = True
        try:
            self._slider.value, self._field.value = self._nearest(self._value), self._text(self._value)
        finally:
            self._setting = False

    @property
    def disabled(self) -> bool:
        """Whether it cannot be moved."""
        return bool(self._slider.disabled)

    @disabled.setter
    def disabled(self, disabled: bool) -> None:
        self._slider.disabled = self._field.disabled = disabled

    def _slid(self, change: Any) -> None:
        if not self._setting:
            self.value = self.stops[change["new"]]
            self._changed()
            self.show()

    def _typed(self, change: Any) -> None:
        if self._setting:
            return
        text = change["new"].strip()
        try:
            value = float(text.replace(",", "").replace("−", "-"))
        except ValueError:
            problem = "is no number"
        else:
            whole = value == int(value) if np.isfinite(value) else False
            if self.whole and not whole:
                problem = "is no whole number"
            elif not self.stops[0] <= value <= self.stops[-1]:
                problem = "is out of range"
            else:
                self.value = int(value) if self.whole else value
                self._changed()
                self.show()
                return
        low, high = self._text(self.stops[0]), self._text(self.stops[-1])
        self.show()
        self._refuse(
            f"{self.label} = {text or 'nothing'} {problem}: type {'a whole number' if self.whole else 'a number'} from "
            f"{low} to {high}{f' ({self.note})' if self.note else ''}. It stays {self._text(self._value)}."
        )

    def _nearest(self, value: float) -> int:
        # By ratio, as the stops are spread.
        return int(np.argmin([abs(np.log(max(stop, 1e-9) / max(value, 1e-9))) for stop in self.stops]))

    def _text(self, value: float) -> str:
        return f"{int(value):,}" if self.whole else f"{value:.4g}"


def rules(known: Callable[[type[Residual]], bool] = lambda rule: True) -> list[tuple[str, str]]:
    """Titles and names of the rules for a decoder, those first that the course compares everywhere.

    Args:
        known: whether it is one to choose.
    """
    names = dict.fromkeys([DEFAULT, *FIRST, *RESIDUALS])
    return [(RESIDUALS[n].title, n) for n in names if "decoder" in RESIDUALS[n].architectures and known(RESIDUALS[n])]


def choice(label: str, options: Sequence[tuple[str, Any]], value: Any, changed: Callable[[], None]) -> Any:
    """A drop-down list; ``changed`` is called after the learner has chosen."""
    widget = ipywidgets.Dropdown(
        options=list(options), value=value, description=label, style=LABEL, layout={"width": "424px"}
    )
    widget.tooltip = label
    widget.observe(lambda _: changed(), "value")
    return widget
