"""What all explorers share: sliders, a line for messages, a picture; theory at once, measurement when it is there."""

import base64
import threading
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, ClassVar

import ipywidgets
from IPython.display import display

from deepnet_edu.explorers import grid
from deepnet_edu.explorers.background import WAITING, Background
from deepnet_edu.explorers.dials import Dial
from deepnet_edu.explorers.settings import Tick
from deepnet_edu.figures.moving import Moving
from deepnet_edu.figures.picture import with_palette
from deepnet_edu.messages import FAULT, UserError

#: ipywidgets' Image takes no alt text: it stands behind the picture, for screen readers only.
_HIDDEN = '<p style="position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)">{}</p>'
# Mid-tones that can be read on white and on black.
_COLORS = {"say": "#2a7ab9", "refuse": "#d1495b", FAULT: "#d1495b"}


_LIVE, _STILL = "deepnet-edu-explorer", "deepnet-edu-still"
_ONE_OF_TWO = (
    f".jp-OutputArea:has(.{_LIVE}) .{_STILL} {{ display: none }} "
    f".jp-OutputArea:has(.{_STILL}) .jupyter-widgets:not(:has(*)):not(img) {{ display: none }}"
)


class Explorer(ipywidgets.VBox):
    """Sliders and a picture. Live where a kernel runs; elsewhere its picture with alt text.

    A notebook that is opened again has a kernel that knows nothing of its widgets, and JupyterLab writes an error where
    they were. So a picture is kept beside the widget, and style sheets show one of both.

    Subclasses make their dials, then call ``super().__init__``; they give :meth:`view`, and :meth:`measurement` where
    there is something to measure. Attributes of the class: ``name``, as ``deepnet-edu explore`` takes it, ``title`` and
    ``about``, a sentence.

    Args:
        controls: the dials, top to bottom.
        figure: draws views.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]
    _grid: grid.Grid | None = None
    _problem = ""

    def __init__(self, controls: Sequence[ipywidgets.Widget], figure: Moving[Any]) -> None:
        self.figure = figure
        self.fault: Exception | None = None
        self._background = Background()
        self._drawing = threading.RLock()  # a measurement is drawn from its own thread
        self._message = ipywidgets.HTML()
        self._image = ipywidgets.Image(format="png", layout={"max_width": "100%", "align_self": "flex-start"})
        self._words = ipywidgets.HTML()
        self._dials = [control for control in controls if isinstance(control, Dial)]
        dials = ipywidgets.Box(list(controls), layout={"flex_flow": "row wrap", "width": "100%"})
        super().__init__([dials, self._message, self._image, self._words])
        self.add_class(_LIVE)
        self.refresh()

    def view(self, measured: Any) -> Any:
        """What the picture shows now.

        Args:
            measured: what :meth:`measurement` found, None before that. It may come when the dials have just moved on,
                so it says itself to which settings it belongs.
        """
        raise NotImplementedError

    def measurement(self) -> Callable[[Tick], Any] | None:
        """What to measure now, None where nothing has to be. It returns the settings and what it found for them."""
        return None

    @property
    def grid(self) -> grid.Grid | None:
        """What was measured beforehand; None, with a message, if the file cannot be read."""
        if self._grid is None and not self._problem:
            try:
                self._grid = grid.load()
            except UserError as error:
                self._problem = str(error)
        return self._grid

    def refresh(self) -> None:
        """Draw for what the dials say, and measure when they rest. Nothing that goes wrong leaves the explorer."""
        self._background.cancel()
        try:
            self.draw(None)
            for dial in self._dials:  # those that follow another: after the picture, which is what is looked at
                dial.show()
            self.say(self._problem)
            measure = self.measurement()
            if measure is not None:
                self._background.start(measure, self.draw, self._measuring, self._failed)
        except Exception as error:
            self._failed(error)

    def draw(self, measured: Any) -> None:
        """Draw the picture of now."""
        with self._drawing:
            png = self.figure.png(self.view(measured))
            self._image.value = png
            self._words.value = _HIDDEN.format(escape(self.figure.alt))
            if measured is not None:
                self.say(self._problem)

    def say(self, text: str, kind: str = "say") -> None:
        """A line above the picture, read out by screen readers; nothing if ``text`` is empty."""
        said = (
            f'<div role="status" class="{kind}" style="border-left: 4px solid {_COLORS[kind]}; padding: 0 0.8em">'
            f"{escape(text)}</div>"
        )
        self._message.value = said if text else ""

    def refuse(self, text: str) -> None:
        """Say that something cannot be."""
        self._background.cancel()
        self.say(text, "refuse")

    def _measuring(self, share: float) -> None:
        self.say("waiting for another explorer, which measures" if share == WAITING else f"measuring … {share:.0%}")

    def _failed(self, error: Exception) -> None:
        """Settings that no model can have are the learner's to change; anything else is ours to mend."""
        if isinstance(error, UserError | ValueError):
            self.refuse(str(error))
            return
        self.fault = error
        self.say(
            f"This explorer has a fault, please report it: {type(error).__name__}: {str(error)[:200]}. Your work and "
            "the kernel are well; moving a slider tries again.",
            FAULT,
        )

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until what is measured has been drawn; whether it has."""
        return self._background.wait(seconds)

    def close(self) -> None:
        """Stop measuring, and take the widget away."""
        self._background.cancel()
        super().close()

    def _ipython_display_(self) -> None:
        """The widget, and behind it the picture of now, which shows wherever the widget does not live."""
        bundle = super()._repr_mimebundle_()
        data = dict(bundle[0] if isinstance(bundle, tuple) else bundle)
        display({**data, "text/plain": f"[explorer] {self.title}: {self.about}"}, raw=True)
        display(self.still(), raw=True)

    def still(self) -> dict[str, str]:
        """The picture of now as a notebook output."""
        source = f"data:image/png;base64,{base64.b64encode(with_palette(self._image.value)).decode()}"
        picture = f'<img class="{_STILL}" alt="{escape(self.figure.alt)}" src="{source}">'
        return {"text/html": f"<style>{_ONE_OF_TWO}</style>{picture}", "text/plain": f"[picture] {self.figure.alt}"}
