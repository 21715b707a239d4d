"""A guess before the answer."""

from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets


class Guess(ipywidgets.VBox):
    """A question with options that a learner answers before the picture that answers it.

    Args:
        question: plain text.
        options: what can be chosen.
    """

    def __init__(self, question: str, options: Sequence[str]) -> None:
        self.question, self.options = question, list(options)
        self._buttons = ipywidgets.RadioButtons(options=self.options, value=None, layout={"width": "auto"})
        # HTML, since a Label never wraps: a narrow cell would cut the question's end.
        super().__init__([ipywidgets.HTML(escape(question), layout={"width": "auto"}), self._buttons])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """Live where a kernel runs, the question as text elsewhere."""
        bundle = super()._repr_mimebundle_(include=include, exclude=exclude)
        data = dict(bundle[0] if isinstance(bundle, tuple) else bundle)
        data["text/plain"] = f"{self.question}\n" + "\n".join(f"( ) {option}" for option in self.options)
        return data

    def compare(self, answer: str) -> None:
        """Print the guess beside the answer; a guess that was not made is said to be open."""
        guess = self._buttons.value
        if guess is None:
            print(f"You have not guessed. It is: {answer}")
        else:
            print(f"You guessed: {guess}. {'Right' if guess == answer else 'It is'}: {answer}")
