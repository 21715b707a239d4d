"""What all explorers share: dials, presets, a picture and its words; theory at once, measurement when it is there."""

import base64
import threading
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any, ClassVar

import anywidget
import traitlets
from IPython.display import display

from deepnet_edu.explorers import grid
from deepnet_edu.explorers.background import WAITING, Background
from deepnet_edu.explorers.dials import Choice, Dial
from deepnet_edu.explorers.settings import Tick
from deepnet_edu.figures.scene import Scene, dark_colors
from deepnet_edu.messages import FAULT, UserError, unknown

_LIVE, _STILL = "deepnet-edu-explorer", "deepnet-edu-still"
_ONE_OF_TWO = (
    f".jp-OutputArea:has(.{_LIVE}) .{_STILL} {{ display: none }} "
    f".jp-OutputArea:has(.{_STILL}) .jupyter-widgets:not(:has(*)):not(img) {{ display: none }}"
)
_HERE = resources.files(__package__)
SCRIPT = _HERE.joinpath("front.js").read_text("utf-8")
STYLE = f"{_HERE.joinpath('front.css').read_text('utf-8')}\n.{_LIVE}.dark {{ {dark_colors()} }}"
#: Inches that a page may ask for.
_LEAST, _MOST = 3.0, 20.0


class Explorer(anywidget.AnyWidget):
    """Dials and a picture. Live where a kernel runs; elsewhere its picture with alt text.

    A notebook that is opened again has a kernel that knows nothing of its widgets, and JupyterLab writes an error where
    they were. So a picture is kept beside the widget, and style sheets show one of both.

    Subclasses make their dials as attributes, then call ``super().__init__``; they give :meth:`view`, and
    :meth:`measurement` where there is something to measure. All settings of a learner are those of the dials, by the
    names of their attributes: the constructor takes them, and so does :meth:`put`.

    Attributes of the class: ``name``, as ``deepnet-edu explore`` takes it, ``title`` and ``about``, a sentence;
    ``what``, sentences about what the picture shows; ``presets``, by the words on their buttons, the dials that differ
    from the class's own beginning; ``in_address``, whether the page's address keeps the settings.

    Args:
        order: attributes of the dials, as the page shows them.
        figure: draws views.
        given: what dials are set to at the beginning, by attribute.
        buttons: by name, the words on a button, a sentence, and what to do when it is pressed.

    Raises:
        UserError: there is no such dial, or it cannot have such a value.
    """

    _esm = traitlets.Unicode(SCRIPT).tag(sync=True)
    _css = traitlets.Unicode(STYLE).tag(sync=True)
    fixed = traitlets.Dict().tag(sync=True)
    backdrop = traitlets.Unicode().tag(sync=True)
    #: Where it may be cut apart on a narrow page.
    panels: Any = traitlets.List().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)
    #: The line of the moment; the audit of a run looks for faults in it.
    value = traitlets.Unicode().tag(sync=True)

    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]
    what: ClassVar[Sequence[str]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    in_address: ClassVar[bool] = False
    #: What is said of settings that no measurement is known for.
    unmeasured: ClassVar[str] = "not measured yet"
    _grid: grid.Grid | None = None
    _problem = ""

    def __init__(
        self,
        order: Sequence[str],
        figure: Scene[Any],
        given: Mapping[str, Any],
        buttons: Mapping[str, tuple[str, str, Callable[[], None]]] | None = None,
    ) -> None:
        self.dials: dict[str, Dial | Choice] = {name: getattr(self, name) for name in order}
        self.figure, self.extra = figure, ""
        self.fault: Exception | None = None
        self._buttons = dict(buttons or {})
        self._background = Background()
        self._drawing = threading.RLock()  # a measurement is drawn from its own thread
        self._found: Any = None
        self._view: Any = None
        self._picture: dict[str, Any] = {"drawn": 0}
        self._answered = 0
        self._refused = False
        super().__init__()
        self._begin = self._values()
        self._take(given)
        self._opening = self._values()
        self.fixed = {
            "name": self.name,
            "title": self.title,
            "dials": [{"name": name, **dial.fixed()} for name, dial in self.dials.items()],
            "buttons": [
                {"name": name, "label": label, "about": about} for name, (label, about, _) in self._buttons.items()
            ],
            "presets": list(self.presets),
            "what": list(self.what),
            "address": self.in_address,
        }  # fmt: skip
        self.on_msg(self._asked)
        self.refresh()

    # --- for subclasses

    def follow(self) -> None:
        """Set the dials that follow from others; called before each view."""

    def view(self, measured: Any) -> Any:
        """What the picture shows now.

        Args:
            measured: what :meth:`measurement` found last, None before that. The dials may have moved on, so it says
                itself to which settings it belongs.
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

    # --- settings

    def put(self, **settings: Any) -> None:
        """Set dials, by the names of their attributes, and draw.

        Raises:
            UserError: there is no such dial, or it cannot have such a value.
        """
        self._take(settings)
        self.refresh()

    @property
    def state(self) -> dict[str, Any]:
        """The dials that can be moved and are not as the class begins."""
        return {
            name: dial.value
            for name, dial in self.dials.items()
            if not dial.disabled and dial.value != self._begin[name]
        }

    @property
    def code(self) -> str:
        """The line that shows this again."""
        kind = type(self).__name__
        settings = ", ".join(f"{name}={value!r}" for name, value in self.state.items())
        return f"from deepnet_edu.explorers import {kind}; {kind}({settings})"

    def _values(self) -> dict[str, Any]:
        return {name: dial.value for name, dial in self.dials.items()}

    def _take(self, settings: Mapping[str, Any]) -> None:
        for name in settings:
            if name not in self.dials:
                raise UserError(unknown(f"dial of {type(self).__name__}", name, self.dials))
        before = self._values()
        try:
            for name, value in settings.items():
                self.dials[name].put(value)
        except UserError:
            self._set(before)
            raise
        self.follow()

    def _set(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.dials[name].value = value

    # --- what the page asks for

    def _asked(self, _: Any, content: dict[str, Any], __: Any) -> None:
        """One question of the page; whatever it is, it is answered."""
        try:
            do, name = content.get("do"), content.get("name", "")
            with self._drawing, self.hold_sync():  # code, picture and dials change together
                self._answered = int(content.get("number", 0))
                if do == "fit":
                    width, height = (min(max(float(content[key]), _LEAST), _MOST) for key in ("width", "height"))
                    self.figure.fit(width, height)
                    self.draw()
                elif do == "press":
                    self._buttons[name][2]()
                else:
                    if do == "slide":
                        self.dials[name].slide(int(content["stop"]))
                    elif do == "type":
                        self.dials[name].put(content["text"])
                    elif do == "preset":
                        self._set(self._begin)
                        self._take(self.presets[name])
                    elif do == "reset":
                        self._set(self._opening)
                    elif do == "restore":
                        self._take(content["state"])
                    self.refresh()
                self._tell()
        except Exception as error:
            self._failed(error)
            self._tell()

    def refresh(self) -> None:
        """Draw for what the dials say, and measure when they rest. Nothing that goes wrong leaves the explorer."""
        self._background.cancel()
        try:
            with self._drawing, self.hold_sync():
                self.follow()
                self.draw()
                self.say(self._problem)
                measure = self.measurement()
            if measure is not None:
                self._background.start(measure, self.draw, self._measuring, self._failed)
        except Exception as error:
            self._failed(error)

    def draw(self, measured: Any = None) -> None:
        """Draw the picture of now."""
        with self._drawing, self.hold_sync():
            if measured is not None:
                self._found = measured
            self._view = view = self.view(self._found)
            svg = self.figure.svg(view)
            if self.backdrop != self.figure.backdrop:
                self.panels = self.figure.panels
                self.backdrop = self.figure.backdrop
            self._picture = {
                "drawn": self._picture["drawn"] + 1, "svg": svg, "alt": self.figure.alt, "title": view.title,
                "said": view.said, "note": view.note,
            }  # fmt: skip
            self._tell()
            if measured is not None and not self._refused:
                self.say(self._problem)

    def _tell(self) -> None:
        with self._drawing:
            self.shown = {
                **self._picture,
                "answered": self._answered,
                "dials": {name: dial.now() for name, dial in self.dials.items()},
                "state": self.state,
                "code": self.code,
                "extra": self.extra,
            }

    def say(self, text: str, kind: str = "say") -> None:
        """A line above the picture; screen readers are not told how far a measurement is. Nothing if it is empty."""
        self._refused = kind != "say"
        hidden = ' aria-hidden="true"' if kind == "say" else ""
        self.value = f'<span class="{kind}"{hidden}>{escape(text)}</span>' if text else ""

    def refuse(self, text: str) -> None:
        """Say that something cannot be. It stays until a dial moves, and what is measured is measured to its end."""
        self.say(text, "refuse")

    def _measuring(self, share: float) -> None:
        if self._refused:
            return
        self.say("waiting for another explorer, which is measuring" if share == WAITING else f"measuring … {share:.0%}")

    def _failed(self, error: Exception) -> None:
        """Settings that no model can have are the learner's to change; anything else is ours to fix."""
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

    # --- in a notebook

    def _ipython_display_(self) -> None:
        """The widget, and after it the picture of now, which shows wherever the widget does not live."""
        bundle: Any = super()._repr_mimebundle_()
        data = dict(bundle[0] if isinstance(bundle, tuple) else bundle)
        display({**data, "text/plain": f"[explorer] {self.title}: {self.about}"}, raw=True)
        if not self.in_address:
            display(self.still(), raw=True)

    def still(self) -> dict[str, str]:
        """The picture of now as a notebook output."""
        with self._drawing:
            png = self.figure.still(self._view)
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        title, said, note = (escape(text) for text in (self._view.title, self._view.said, self._view.note))
        picture = (
            f'<figure class="{_STILL}"><figcaption><strong>{title}</strong> {said}</figcaption>'
            f'<img alt="{escape(self.figure.alt)}" src="{source}"><p>{note}</p></figure>'
        )
        return {"text/html": f"<style>{_ONE_OF_TWO}</style>{picture}", "text/plain": f"[picture] {self.figure.alt}"}
