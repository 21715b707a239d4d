"""docs/exercises.md, for teachers: every exercise, the wrong answers that its check knows, and what the card says.

Remake it with: python -m tests.checks.table
"""

import ast
import inspect
from collections.abc import Iterable
from types import ModuleType

from deepnet_edu.checks import check
from deepnet_edu.course.exercises import Exercise, exercises_of
from deepnet_edu.course.places import ROOT, SOLUTIONS, lesson_names
from deepnet_edu.files import write_atomic
from tests.checks.answers import fresh

PAGE = ROOT / "docs" / "exercises.md"
_HEAD = """# The exercises, and what their checks say to wrong answers

Made from tests/checks by `python -m tests.checks.table`; a test holds it to them. Whenever the tests run, each
wrong answer below is given to its check and must get this sentence, and two right answers or more, written in another
way than the solution, must pass. Then a program changes one operator, number, argument or line of the solution at a
time, takes the gradient away, keeps what an earlier call gave, or makes 0 and 1 alone wrong: every answer that is
wrong then must be caught. `python -m tests.checks.report` counts them all.
"""


def page() -> str:
    """The whole page."""
    by_lesson = exercises_of(lesson_names(SOLUTIONS, "py"))
    every = [(name[:2], exercise) for name, exercises in by_lesson.items() for exercise in exercises]
    options = sum(exercise.optional for _, exercise in every)
    parts = [_HEAD, f"{len(every) - options} core exercises, {options} optional ones.\n"]
    last = ""
    for lesson, exercise in every:
        if lesson != last:
            parts += [f"## Lesson {lesson}\n", _rubric(exercises for name, exercises in every if name == lesson)]
            last = lesson
        answers = fresh(lesson)
        right = sum(name == exercise.name for name, _ in answers.RIGHT)
        kind = "optional" if exercise.optional else "core"
        parts.append(
            f"### {int(lesson)}.{exercise.number} `{exercise.name}`\n\n"
            f"{kind}, difficulty {exercise.difficulty}, importance {exercise.importance}, {exercise.minutes} minutes; "
            f"{right} right answers written differently pass\n\n"
            "| wrong answer | what the card says |\n|---|---|\n" + "\n".join(_rows(exercise.name, answers))
        )
        parts.append("")
    return "\n".join(parts)


def _rubric(exercises: Iterable[Exercise]) -> str:
    """A lesson's points."""
    listed = [*exercises]
    core, rest = (sum(one.importance for one in listed if one.optional == kind) for kind in (False, True))
    optional = f", {rest} more for optional exercises" if rest else ""
    rows = [
        f"| {one.number} `{one.name}` | {one.importance} | {'optional' if one.optional else 'core'} "
        f"| {one.difficulty} of 5 | {one.minutes} |"
        for one in listed
    ]
    head = "| exercise | points | kind | difficulty | minutes |\n|---|---|---|---|---|"
    return "\n".join([f"{core} points{optional}.\n", head, *rows, ""])


def _bound(node: ast.Assign | ast.AnnAssign) -> str:
    """The name that a statement binds."""
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return target.id if isinstance(target, ast.Name) else ""


def _rows(exercise: str, module: ModuleType) -> list[str]:
    """A row per wrong answer: its source, and the sentence of the check."""
    tree = ast.parse(inspect.getsource(module))
    (listed,) = [
        node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and _bound(node) == "WRONG"
    ]
    assert isinstance(listed, ast.List)
    assert len(listed.elts) == len(module.WRONG), f"{module.__name__}: WRONG must be one list of tuples"
    rows = []
    for node, (name, answer, _) in zip(listed.elts, module.WRONG, strict=True):
        if name == exercise:
            assert isinstance(node, ast.Tuple)
            code = _cell(ast.unparse(node.elts[1]))
            rows.append(f"| `{code}` | {_cell(check.judge(name, answer).sentence)} |")
    return rows


def _cell(text: str, limit: int = 200) -> str:
    """Text that does not end a table's cell, on one line."""
    text = " ".join(text.split())
    return (text if len(text) <= limit else text[: limit - 1] + "…").replace("|", "\\|")


if __name__ == "__main__":
    write_atomic(PAGE, page())
