"""What a check found, as a card in a notebook and as plain text in a terminal."""

from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from deepnet_edu.progress import ExerciseState

#: What a check finds; ``"noted"`` where it is withheld, so that it finds nothing.
State = ExerciseState | Literal["noted"]

_SYMBOLS = {"open": "○", "tried": "✗", "done": "✓", "noted": "…"}
_WORDS = {"open": "Not attempted yet", "tried": "Not yet", "done": "Right", "noted": "Noted"}
# Mid-tones that can be read on white and on black.
_COLORS = {"open": "#7f7f7f", "tried": "#d1495b", "done": "#2a9d5c", "noted": "#5b84b1"}


@dataclass(frozen=True)
class Result:
    """What a check found. Shows itself as a card in a notebook and as plain text in a terminal.

    Attributes:
        exercise: name of the function that was asked for.
        state: ``"open"``: not attempted; ``"tried"``: not right yet; ``"done"``; ``"noted"``: checked
            later, by a teacher who has the checks.
        sentence: what to know next, one sentence.
        expected: the value that was expected, as text, or empty.
        got: the value that came, as text, or empty.
        difference: largest absolute difference, or None where there is none.
        rung: what did not hold, and what did, or empty.
        call: the call that gave ``got``, as text, or empty.
        formula: the answer in words, if the learner asked for it, or empty.
        ask: what to do next where the answer is not right, or empty.
        bar: how far the lesson is, drawn and in words, or empty.
    """

    exercise: str
    state: State
    sentence: str = ""
    expected: str = ""
    got: str = ""
    difference: float | None = None
    rung: str = ""
    call: str = ""
    formula: str = ""
    ask: str = ""
    bar: str = ""

    def __repr__(self) -> str:
        lines = [f"{_SYMBOLS[self.state]} {self.exercise}: {_WORDS[self.state]}. {self.sentence}".rstrip()]
        lines += [f"  {name + ':':9} {value}" for name, value in self._rows()]
        lines += [f"  {line}" for line in (self.ask, self.bar) if line]
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, str]]:
        difference = "" if self.difference is None else f"{self.difference:.3g}"
        rows = [
            ("failed", self.rung),
            ("call", self.call),
            ("expected", self.expected),
            ("got", self.got),
            ("largest difference", difference),
            ("formula", self.formula),
        ]
        return [(name, value) for name, value in rows if value]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        color = _COLORS[self.state]
        words = ("failed", "formula")  # all else is code
        rows = "".join(
            f"<tr><td>{name}</td><td>{escape(value) if name in words else f'<code>{escape(value)}</code>'}</td></tr>"
            for name, value in self._rows()
        )
        table = f"<table>{rows}</table>" if rows else ""
        lines = "".join(
            f'<br><small style="opacity: {opacity}">{escape(line)}</small>'
            for line, opacity in ((self.ask, 1), (self.bar, 0.75))
            if line
        )
        html = (
            f'<div style="border-left: 4px solid {color}; padding: 0.3em 0.8em; margin: 0.3em 0">'
            f'<b style="color: {color}">{_SYMBOLS[self.state]} {_WORDS[self.state]}</b> '
            f"<code>{escape(self.exercise)}</code><br>{escape(self.sentence)}{table}{lines}</div>"
        )
        return {"text/html": html, "text/plain": repr(self)}
