"""A class report: who solved what, how many points, and what went wrong most."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from deepnet_edu.course.exercises import Exercise
from deepnet_edu.course.grading.judging import Judgement, Verdict
from deepnet_edu.course.grading.submissions import Student, cells_of
from deepnet_edu.course.grading.table import Row
from deepnet_edu.progress import read

EVIDENCE = {
    "apart": "judged in another process than the answer's",
    "beside": "judged in the answer's own process, since what it computes with cannot leave it: weaker",
    "progress": "the student's own file says so, and nothing was judged: weakest",
}


def graded(
    students: Sequence[Student], course: Mapping[str, Sequence[Exercise]], judgement: Judgement | None
) -> Iterator[Row]:
    """Grade every student on every exercise.

    Args:
        students: with notebooks or a progress file.
        course: the exercises that were set, by lesson.
        judgement: that judges notebooks; None where there are progress files alone.
    """
    for student in students:
        known = read(student.progress) if student.progress else {}
        for lesson, exercises in course.items():
            path = student.notebooks.get(lesson)
            cells = cells_of(path) if path else []
            for one in exercises:
                if student.progress:
                    state = known.get(one.name, {}).get("state", "open")
                    verdict = Verdict(state, "", "progress")
                elif cells and judgement:
                    verdict = judgement.of(one.name, cells)
                else:
                    verdict = Verdict("open")
                yield Row(
                    student.name,
                    lesson[:2],
                    one.name,
                    verdict.state,
                    one.importance if verdict.state == "done" else 0,
                    one.importance,
                    one.optional,
                    verdict.evidence,
                    "" if verdict.state == "done" else verdict.sentence,
                )


def by_student(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line per student: points of core exercises and what they are out of, points of optional ones, counts."""
    lines = []
    for name in dict.fromkeys(row.student for row in rows):
        own = [row for row in rows if row.student == name]
        core = [row for row in own if not row.optional]
        states = Counter(row.state for row in own)
        lines.append(
            {
                "student": name,
                "points": sum(row.points for row in core),
                "out_of": sum(row.out_of for row in core),
                "optional": sum(row.points for row in own if row.optional),
                **{state: states[state] for state in ("done", "tried", "open")},
            }
        )
    return lines


def by_exercise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line per exercise: who solved it, how many tried or left it, and the sentences that cards said, commonest
    first."""
    lines = []
    for lesson, name in dict.fromkeys((row.lesson, row.exercise) for row in rows):
        own = [row for row in rows if row.exercise == name]
        states = Counter(row.state for row in own)
        said = Counter(row.sentence for row in own if row.sentence)
        lines.append(
            {
                "lesson": lesson,
                "exercise": name,
                **{state: states[state] for state in ("done", "tried", "open")},
                "solved_by": [row.student for row in own if row.state == "done"],
                "misconceptions": [{"sentence": one, "students": n} for one, n in said.most_common()],
            }
        )
    return lines


def as_plain(rows: Sequence[Row], trouble: Sequence[str], sandbox: str) -> dict[str, Any]:
    """All of it for a script."""
    return {
        "students": by_student(rows),
        "exercises": by_exercise(rows),
        "rows": [asdict(row) for row in rows],
        "trouble": list(trouble),
        "sandbox": sandbox,
    }
