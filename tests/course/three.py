"""Three students of lesson 01: one with all answers right, one with some, one who has not begun."""

import ast
import inspect
import json
from pathlib import Path
from typing import Any

from deepnet_edu.course.exercises import BEGIN, exercises_of
from tests.checks import answers_01

LESSON = "01_residual_arithmetic"
EXERCISES = exercises_of([LESSON])[LESSON]
POINTS = {one.name: one.importance for one in EXERCISES if not one.optional}
#: What the second one has: a right answer, two known wrong ones, the rest as it came.
RIGHT, WRONG = "variance_by_depth", ("input_share", "cloned_growth")
FULL = {one.name: one.solution for one in EXERCISES}


def known_wrong(exercise: str) -> tuple[str, str]:
    """The source of a wrong answer of tests/checks, with all that it uses, and a part of its sentence."""
    tree = ast.parse(inspect.getsource(answers_01))
    (listed,) = [
        one.value for one in tree.body if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "WRONG"
    ]
    rows = [one for one in listed.elts if ast.literal_eval(one.elts[0]) == exercise]  # type: ignore[attr-defined]
    before = tree.body[: next(i for i, one in enumerate(tree.body) if getattr(one, "value", None) is listed)]
    helpers = "\n\n".join(map(ast.unparse, (one for one in before if not isinstance(one, ast.Assign | ast.AnnAssign))))
    _, answer, sentence = rows[0].elts
    return f"{helpers}\n\n{exercise} = {ast.unparse(answer)}", ast.literal_eval(sentence)


PARTIAL = {RIGHT: FULL[RIGHT], **{name: known_wrong(name)[0] for name in WRONG}}
STUDENTS: dict[str, dict[str, str]] = {"full": FULL, "none": {}, "partial": PARTIAL}


def answered(notebook: Path, answers: dict[str, str]) -> dict[str, Any]:
    """A lesson in which a student has written ``answers``, by exercise, over what was there."""
    content: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    for name, answer in answers.items():
        (cell,) = [one for one in content["cells"] if is_place(one, name)]
        cell["source"] = answer
    return content


def is_place(cell: dict[str, Any], name: str) -> bool:
    """Whether a cell is where the answer to an exercise goes."""
    source = "".join(cell["source"])
    stub = "raise NotImplementedError" in source or BEGIN in source
    return cell["cell_type"] == "code" and f"def {name}(" in source and stub


def hand_in(notebook: Path, folder: Path) -> None:
    """A folder per student, with their notebook."""
    for student, answers in STUDENTS.items():
        (folder / student).mkdir(parents=True)
        (folder / student / notebook.name).write_text(json.dumps(answered(notebook, answers)))
