"""Commands of a teacher: export, grade, slides."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepnet_edu.cli.app import Json, app, print_table
from deepnet_edu.messages import UserError

if TYPE_CHECKING:
    from deepnet_edu.course.grading.report import Row


@app.command()
def export(
    lessons: Annotated[
        list[str] | None, typer.Argument(help="Numbers or names of the lessons; all with exercises by default.")
    ] = None,
    withheld: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A copy for students without answers, and one for the teacher.")
    ] = None,
    nbgrader: Annotated[Path | None, typer.Option(metavar="DIR", help="Assignments for nbgrader.")] = None,
    otter: Annotated[Path | None, typer.Option(metavar="DIR", help="Assignments for Otter-Grader.")] = None,
    hide_checks: Annotated[
        bool, typer.Option("--hide-checks", help="Checks, too, are the teacher's alone: students see no verdict.")
    ] = False,
) -> None:
    """Make the course for a class, in a new folder: answers are stripped, checks kept or hidden.

    Example: deepnet-edu export --withheld class 01 02
    """
    given = {"--withheld": withheld, "--nbgrader": nbgrader, "--otter": otter}
    asked = {option: folder for option, folder in given.items() if folder is not None}
    if len(asked) != 1:
        said = " and ".join(asked) or "nothing"
        raise UserError(f"Give one of {', '.join(given)} DIR; given was {said}.")
    names = _lessons(lessons)
    ((kind, folder),) = asked.items()
    if kind == "--withheld":
        from deepnet_edu.course.export.withheld import export_withheld as made
    elif kind == "--nbgrader":
        from deepnet_edu.course.export.platforms import export_nbgrader as made
    else:
        from deepnet_edu.course.export.platforms import export_otter as made
    for line in made(folder, names, hide_checks):
        print(line)


@app.command()
def grade(
    submissions: Annotated[
        list[Path], typer.Argument(help="Notebooks, progress files, a student's folder, or a folder of students'.")
    ],
    lesson: Annotated[
        list[str] | None, typer.Option(help="A lesson that was set, once for each; by default all that came in.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Also a line per student and exercise.")] = None,
    as_json: Json = False,
) -> None:
    """Judge what students handed in, in a sandbox without a network, and report on the class.

    Example: deepnet-edu grade submissions --csv class.csv
    """
    from deepnet_edu.course.exercises import exercises_of
    from deepnet_edu.course.grading.submissions import find_students
    from deepnet_edu.course.grading.table import as_csv, is_ours
    from deepnet_edu.course.places import SOLUTIONS, lesson_names
    from deepnet_edu.files import check_output, json_text, write_output

    every = lesson_names(SOLUTIONS, "py")
    chosen = _lessons(lesson) if lesson else None
    students = find_students(submissions, every)
    if csv:
        check_output("--csv", csv, "deepnet-edu grade's", is_ours)
    came = {name for student in students for name in student.notebooks}
    names = chosen or [name for name in every if name in came or any(student.progress for student in students)]
    course = exercises_of(names)
    if not course:
        raise UserError(f"There are no exercises to grade in {', '.join(names) or 'what came in'}: choose --lesson.")
    from deepnet_edu.course.grading.judging import judging
    from deepnet_edu.course.grading.report import as_plain, graded

    trouble = [sentence for student in students for sentence in student.trouble]
    with judging(any(student.notebooks for student in students)) as (judgement, sandbox):
        rows = list(graded(students, course, judgement))
    if csv:
        write_output("--csv", csv, "deepnet-edu grade's", is_ours, as_csv(rows))
    if as_json:
        print(json_text(as_plain(rows, trouble, sandbox), indent=1, ensure_ascii=False))
    else:
        _show(rows, [*trouble, sandbox])


@app.command()
def slides(
    what: Annotated[str, typer.Argument(metavar="LESSON|lecture", help="A lesson, or the lecture of 90 minutes.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for index.html and all that it needs.")],
) -> None:
    """Make slides that need no network, with presenter's notes: a lesson's marked cells, or the lecture on DeepNorm.

    Example: deepnet-edu slides 06 slides
    """
    from deepnet_edu.course.slides import export_slides

    for line in export_slides(folder, what):
        print(line)


def _lessons(given: Sequence[str] | None) -> list[str]:
    """Names of lessons as typed, each once and in order; all by default."""
    from deepnet_edu.course.places import SOLUTIONS, find_lesson, lesson_names

    every = lesson_names(SOLUTIONS, "py")
    chosen = {find_lesson(one, SOLUTIONS, "py") for one in given or every}
    return [name for name in every if name in chosen]


def _show(rows: "Sequence[Row]", notes: Sequence[str]) -> None:
    """The points of each student; each exercise with its commonest sentence; how it was judged."""
    from deepnet_edu.course.grading.report import EVIDENCE, by_exercise, by_student

    print_table(
        ["student", "points", "optional", "done", "tried", "open"],
        [
            [
                one["student"],
                f"{one['points']} of {one['out_of']}",
                *(str(one[name]) for name in ("optional", "done", "tried", "open")),
            ]
            for one in by_student(rows)
        ],
    )
    print()
    print_table(
        ["lesson", "exercise", "done", "tried", "open", "said most"],
        [
            [
                one["lesson"],
                one["exercise"],
                *(str(one[state]) for state in ("done", "tried", "open")),
                "".join(f"{said['students']}× {said['sentence']}" for said in one["misconceptions"][:1]),
            ]
            for one in by_exercise(rows)
        ],
    )
    print()
    counts = Counter(row.evidence for row in rows)
    for evidence, meaning in EVIDENCE.items():
        if counts[evidence]:
            print(f"{counts[evidence]} answers: {meaning}.")
    for note in filter(None, notes):
        print(note)
