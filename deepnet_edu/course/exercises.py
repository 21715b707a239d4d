"""Exercises in a lesson's source: read, refused if incomplete, and turned into stub, solution and reference.

An exercise is three cells of solutions/NN_name.py that name the same function:

- a prompt, ``# %% [markdown] exercise="f" difficulty=1 importance=5 minutes=8``, with a heading, a line that starts
  with ``**Objective**``, and two paragraphs or more that start with ``Hint:``, of rising strength;
- the code, ``# %% exercise="f"``, with what the learner writes between ``### BEGIN SOLUTION`` and ``### END SOLUTION``;
- a check, a code cell that calls ``check.f(f)``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

from deepnet_edu.course.places import SOLUTIONS
from deepnet_edu.messages import UserError

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
SCALE = 5
_NUMBERS = ("difficulty", "importance", "minutes")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lesson.

    Attributes:
        name: of the function to write, unique in the course.
        number: place in the lesson, from 1.
        difficulty: 1 to 5.
        importance: 1 to 5.
        minutes: for a student who has read the lesson once.
        optional: whether its heading says so.
        hints: of rising strength, Markdown.
        solution: source of the whole code cell.
    """

    name: str
    number: int
    difficulty: int
    importance: int
    minutes: int
    hints: tuple[str, ...]
    solution: str
    optional: bool = False


def find_exercises(notebook: NotebookNode, lesson: str) -> list[Exercise]:
    """All exercises of a lesson's source, in order.

    Args:
        notebook: as jupytext reads it, cell metadata included.
        lesson: its name, for messages.

    Raises:
        UserError: an exercise is incomplete; the sentence says what it lacks.
    """
    prompts = {cell.metadata["exercise"]: cell for cell in _named(notebook, "markdown")}
    codes = {cell.metadata["exercise"]: cell for cell in _named(notebook, "code")}
    for name in codes.keys() - prompts.keys():
        raise UserError(f'{lesson}: the exercise {name} lacks its prompt, a cell # %% [markdown] exercise="{name}" …')
    return [
        _exercise(notebook, lesson, number, name, prompt, codes)
        for number, (name, prompt) in enumerate(prompts.items(), 1)
    ]


def exercises_of(lessons: Sequence[str]) -> dict[str, list[Exercise]]:
    """The exercises of the course by lesson, in order; a lesson without any is left out.

    Args:
        lessons: names of lessons, such as ``"02_layer_norm"``.

    Raises:
        UserError: an exercise is incomplete.
    """
    import jupytext  # which takes a second

    sources = {name: jupytext.read(SOLUTIONS / f"{name}.py") for name in lessons}
    found = {name: find_exercises(source, name) for name, source in sources.items()}
    return {name: exercises for name, exercises in found.items() if exercises}


def _named(notebook: NotebookNode, kind: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == kind and "exercise" in cell.metadata]


def _exercise(
    notebook: NotebookNode, lesson: str, number: int, name: str, prompt: NotebookNode, codes: dict[str, NotebookNode]
) -> Exercise:
    lacks = [key for key in _NUMBERS if not _is_count(prompt.metadata.get(key), None if key == "minutes" else SCALE)]
    hints = tuple(_paragraphs(prompt.source)[1])
    if not re.search(r"^#+ \S", prompt.source, re.MULTILINE):
        lacks.append("a heading")
    if not re.search(r"^\*\*Objective\*\*", prompt.source, re.MULTILINE):
        lacks.append("a line **Objective**")
    if len(hints) < 2:
        lacks.append("two paragraphs Hint:")
    if any(hint[:1].isascii() and hint[:1].islower() for hint in hints):
        lacks.append("a capital letter at the beginning of each hint")
    solution = codes[name].source if name in codes else ""
    if name not in codes:
        lacks.append(f'a code cell exercise="{name}"')
    elif not re.search(rf"^(def|class) {name}\b", solution, re.MULTILINE):
        lacks.append(f"a definition of {name} in its code cell")
    elif solution.count(BEGIN) != 1 or solution.count(END) != 1 or solution.index(BEGIN) > solution.index(END):
        lacks.append(f"one pair of {BEGIN} and {END}")
    if not any(f"check.{name}({name})" in cell.source for cell in notebook.cells if cell.cell_type == "code"):
        lacks.append(f"a cell check.{name}({name})")
    if lacks:
        raise UserError(f"{lesson}: the exercise {name} lacks {', '.join(lacks)}.")
    numbers = {key: prompt.metadata[key] for key in _NUMBERS}
    heading = next(line for line in prompt.source.splitlines() if line.startswith("#"))
    optional = "(optional)" in heading
    return Exercise(name, number, hints=hints, solution=without_markers(solution), optional=optional, **numbers)


def _is_count(value: Any, most: int | None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1 and (most is None or value <= most)


def _paragraphs(source: str) -> tuple[list[str], list[str]]:
    """Paragraphs of a prompt: the text, and the hints without their word."""
    text: list[str] = []
    hints: list[str] = []
    for paragraph in re.split(r"\n\s*\n", source):
        (hints if paragraph.startswith("Hint:") else text).append(paragraph.removeprefix("Hint:").strip())
    return text, hints


def rendered_prompt(source: str, exercise: Exercise, lesson_number: str) -> str:
    """The prompt as a learner reads it: numbered, rated, hints folded."""
    text, hints = _paragraphs(source)
    label = f"Exercise {int(lesson_number)}.{exercise.number}"
    text[0] = re.sub(r"^(#+) ", rf"\1 {label} · ", text[0], count=1)

    def dots(n: int) -> str:
        return "●" * n + "○" * (SCALE - n)

    rating = (
        f"difficulty {dots(exercise.difficulty)} · importance {dots(exercise.importance)} · {exercise.minutes} minutes"
    )
    folded = [
        f"<details><summary>Hint {number}</summary>\n\n{hint}\n\n</details>" for number, hint in enumerate(hints, 1)
    ]
    return "\n\n".join([text[0], f"*{rating}*", *text[1:], *folded])


def stub(source: str, exercise: Exercise) -> str:
    """The code cell as a learner gets it: what was between the markers is theirs to write."""
    before, rest = source.split(BEGIN)
    after = rest.split(END)[1]
    indent = before[before.rindex("\n") + 1 :]
    return f'{before}# Your turn.\n{indent}raise NotImplementedError("{exercise.name}"){after}'


def without_markers(source: str) -> str:
    """The code cell as the solution shows it: the markers' lines are gone."""
    return "\n".join(line for line in source.split("\n") if line.strip() not in (BEGIN, END))


def reference_module(lesson: str, imports: str, exercises: list[Exercise]) -> str:
    """Source of the module from which ``kit.mine_or_reference`` takes what a learner has not solved."""
    head = f'"""Reference answers, cut from solutions/{lesson}.py by `make build`. Do not edit."""\n'
    return (
        "\n\n\n".join([head + ("\n" + imports if imports else "").rstrip(), *(e.solution.strip() for e in exercises)])
        + "\n"
    )
