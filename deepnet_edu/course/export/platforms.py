"""Assignments for nbgrader and for Otter-Grader: the lessons, with the marks by which these programs know answers,
checks and points."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from deepnet_edu.course.exercises import BEGIN, END, Exercise, exercises_of, find_exercises
from deepnet_edu.course.export import converted, new_folder, with_pages
from deepnet_edu.messages import UserError

_CONFIG = '''"""What nbgrader is told: {name}. An answer's place in a student's copy is the stub that the course has."""

import os

# Lessons are graded at their smallest size, in seconds. It is set before notebooks run, which inherit it.
os.environ.setdefault("DEEPNET_EDU_PROFILE", "smoke")

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "deepnet_edu"
c.ClearSolutions.code_stub = {{"python": "# Your turn.\\nraise NotImplementedError()"}}
c.ClearSolutions.begin_solution_delimeter = "{begin}"
c.ClearSolutions.end_solution_delimeter = "{end}"
c.ExecutePreprocessor.timeout = 900
c.Exchange.path_includes_course = True
'''


def export_nbgrader(folder: Path, lessons: Sequence[str], hide_checks: bool) -> list[str]:
    """source/NN_name/NN_name.ipynb for nbgrader, and its settings.

    Args:
        folder: new or empty.
        lessons: their names.
        hide_checks: the checks are hidden tests, which students do not see.

    Returns:
        What was made, and what to type next, in lines.
    """
    with new_folder(folder) as made:
        lessons = _with_exercises(lessons)
        (made / "nbgrader_config.py").write_text(
            _CONFIG.format(
                name="this folder is a course", begin=BEGIN.removeprefix("### "), end=END.removeprefix("### ")
            ),
            encoding="utf-8",
        )
        for built, sources in converted(lessons):
            exercises = _exercises(built.name, sources)
            notebook = built.lesson
            for cell, source in zip(notebook.cells, sources, strict=True):
                name = source.metadata.get("exercise", "")
                if name and source.cell_type == "code":
                    cell.source = source.source
                    cell.metadata["nbgrader"] = _marks(f"answer-{name}", solution=True)
                elif one := _checked(source, exercises):
                    test = _raising(one, card=True)
                    if hide_checks:
                        test = f"### BEGIN HIDDEN TESTS\n{test}\n### END HIDDEN TESTS"
                    cell.source = source.source.replace(f"check.{one.name}({one.name})", test)
                    cell.metadata["nbgrader"] = _marks(f"check-{one.name}", points=one.importance)
            place = made / "source" / built.name
            place.mkdir(parents=True)
            nbformat.write(with_pages(notebook, place), place / f"{built.name}.ipynb")
    first = lessons[0]
    return [
        f"{folder}: {len(lessons)} assignments for nbgrader",
        f"next: cd {folder} && nbgrader generate_assignment {first} --create",
    ]


def export_otter(folder: Path, lessons: Sequence[str], hide_checks: bool) -> list[str]:
    """NN_name/NN_name.ipynb for ``otter assign``.

    Args:
        folder: new or empty.
        lessons: their names.
        hide_checks: the checks are hidden tests, which students do not see.

    Returns:
        What was made, and what to type next, in lines.
    """
    with new_folder(folder) as made:
        lessons = _with_exercises(lessons)
        for built, sources in converted(lessons):
            exercises = _exercises(built.name, sources)
            config = f"# ASSIGNMENT CONFIG\nname: {built.name}\nexport_cell: false\ntests:\n    ok_format: false\n"
            cells = [_raw(config)]
            for cell, source in zip(built.lesson.cells, sources, strict=True):
                name = source.metadata.get("exercise", "")
                if name and source.cell_type == "markdown":
                    question = f"# BEGIN QUESTION\nname: {name}\npoints: {exercises[name].importance}"
                    cells += [_raw(question), cell]
                elif name:
                    cell.source = _prompted(source.source, name)
                    cells += [_raw("# BEGIN SOLUTION"), cell, _raw("# END SOLUTION")]
                elif one := _checked(source, exercises):
                    body = textwrap.indent(_raising(one), "    ")
                    test = f"def test_{one.name}({one.name}, check):\n{body}"
                    if hide_checks:
                        test = f"# HIDDEN\n{test}"
                    else:
                        cells.append(cell)
                    tests = nbformat.v4.new_code_cell(test)
                    cells += [_raw("# BEGIN TESTS"), tests, _raw("# END TESTS"), _raw("# END QUESTION")]
                else:
                    cells.append(cell)
            for number, cell in enumerate(cells):
                cell["id"] = f"{built.name[:2]}-{number}"
            built.lesson.cells = cells
            place = made / built.name
            place.mkdir(parents=True)
            nbformat.write(with_pages(built.lesson, place), place / f"{built.name}.ipynb")
    first = lessons[0]
    return [
        f"{folder}: {len(lessons)} assignments for Otter-Grader",
        f"next: cd {folder}/{first} && otter assign --no-run-tests {first}.ipynb dist",
    ]


def _with_exercises(lessons: Sequence[str]) -> list[str]:
    found = list(exercises_of(lessons))
    if not found:
        raise UserError(f"There are no exercises in {', '.join(lessons)}: choose other lessons.")
    return found


def _exercises(lesson: str, sources: Sequence[NotebookNode]) -> dict[str, Exercise]:
    return {one.name: one for one in find_exercises(NotebookNode(cells=list(sources)), lesson)}


def _checked(source: NotebookNode, exercises: dict[str, Exercise]) -> Exercise | None:
    """The exercise whose check a cell is."""
    if source.cell_type != "code":
        return None
    return next((one for one in exercises.values() if f"check.{one.name}({one.name})" in source.source), None)


def _raising(one: Exercise, *, card: bool = False) -> str:
    """The check as these programs want it: it raises unless the answer is right.

    Args:
        one: the exercise.
        card: it shows its card first, which takes a notebook.
    """
    shown = "display(found)\n" if card else ""
    says = 'assert found.state == "done", found.sentence or "not right yet"'
    return f"found = check.{one.name}({one.name})\n{shown}{says}"


def _marks(name: str, *, solution: bool = False, points: int = 0) -> dict[str, object]:
    """nbgrader's marks of a cell: an answer, or a check that students cannot change."""
    marks: dict[str, object] = {
        "schema_version": 3,
        "grade_id": name,
        "solution": solution,
        "grade": not solution,
        "locked": not solution,
        "task": False,
    }
    return marks if solution else {**marks, "points": points}


def _prompted(source: str, name: str) -> str:
    """An answer between Otter's marks, and the stub that students get for it."""
    lines = []
    for line in source.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        if line.strip() == BEGIN:
            lines.append(f"{indent}# BEGIN SOLUTION NO PROMPT")
        elif line.strip() == END:
            lines += [
                f"{indent}# END SOLUTION",
                f'{indent}""" # BEGIN PROMPT',
                f"{indent}# Your turn.",
                f'{indent}raise NotImplementedError("{name}")',
                f'{indent}"""; # END PROMPT',
            ]
        else:
            lines.append(line)
    return "\n".join(lines)


def _raw(source: str) -> NotebookNode:
    return nbformat.v4.new_raw_cell(source)
