"""What the cards in an executed notebook say."""

import re

from nbformat import NotebookNode

from deepnet_edu.checks import check

#: Lessons that have exercises, by their numbers.
WITH_EXERCISES = sorted(set(check.lesson_of.values()))


def exercises(lesson: str) -> list[str]:
    """The exercises of a lesson, by its number or its name."""
    return [name for name, home in check.lesson_of.items() if home == lesson[:2]]


def said(notebook: NotebookNode) -> str:
    """All that its cells printed and showed, as plain text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def states(text: str) -> dict[str, str]:
    """What the cards said, by exercise."""
    meaning = {"○": "open", "✗": "tried", "✓": "done"}
    return {name: meaning[sign] for sign, name in re.findall(r"^([○✗✓]) (\w+):", text, flags=re.MULTILINE)}


def goes_on_without(text: str) -> list[str]:
    """The exercises for which the reference answer was taken."""
    return re.findall(r"^(\w+): continuing with the reference answer", text, flags=re.MULTILINE)
