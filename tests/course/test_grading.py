"""Answers judged in a sandbox: right is right, and nothing that an answer does gets it points or hurts the grader."""

import inspect
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepnet_edu.checks import check
from deepnet_edu.checks.base import judged
from deepnet_edu.checks.forms import as_asked, signature_of
from deepnet_edu.course.grading import wire
from deepnet_edu.course.grading.judging import ALTERED, Judgement, Verdict
from deepnet_edu.course.grading.report import as_plain, by_exercise, by_student, graded
from deepnet_edu.course.grading.sandbox import Sandbox
from deepnet_edu.course.grading.submissions import cells_of, find_students
from deepnet_edu.course.grading.table import Row, as_csv
from deepnet_edu.course.places import LESSONS, lesson_names
from deepnet_edu.messages import UserError
from tests.checks.answers import fresh
from tests.course.three import EXERCISES, LESSON, POINTS, hand_in, known_wrong
from tests.course.three import WRONG as TRIED

if sys.platform == "win32":
    pytest.skip("Windows has no sandbox for answers", allow_module_level=True)
pytestmark = pytest.mark.xdist_group("sandbox")

SHARE = "(alpha**2 / (alpha**2 + f)) ** n"
NORM = (
    "def layer_norm(x, gamma, beta, eps):\n    c = x - x.mean(-1, keepdim=True)\n"
    "    return c / (c.square().mean(-1, keepdim=True) + eps).sqrt() * gamma + beta"
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def judgement(sandbox: Sandbox) -> Judgement:
    return Judgement(sandbox, timeout=20)


def share(*body: str, before: str = "") -> list[str]:
    """An answer to lesson 01's input_share."""
    return [f"{before}\ndef input_share(n, f, alpha):\n" + "\n".join(f"    {line}" for line in body)]


def norm(*body: str, before: str = "") -> list[str]:
    """An answer to lesson 02's layer_norm, whose judge looks at gradients."""
    return [f"{before}\ndef layer_norm(x, gamma, beta, eps):\n" + "\n".join(f"    {line}" for line in body)]


FORMS = {
    "plain": share(f"return {SHARE}"),
    "a helper of another cell": [
        "def power(x, n):\n    return x**n",
        *share("return power(alpha**2 / (alpha**2 + f), n)"),
    ],
    "a lambda with other names": ["input_share = lambda a, b, c: (c**2 / (c**2 + b)) ** a"],
    "by keyword alone": [f"def input_share(*, n, f, alpha):\n    return {SHARE}"],
    "a broken cell beside it": ["def (", "1 / 0", *share(f"return {SHARE}")],
}


@pytest.mark.parametrize("form", FORMS)
def test_a_right_answer_is_right_in_any_form(form: str, judgement: Judgement) -> None:
    assert judgement.of("input_share", FORMS[form]) == Verdict("done", "", "apart")


def test_a_judge_that_needs_gradients_is_beside_the_answer(judgement: Judgement) -> None:
    assert judgement.of("layer_norm", [NORM]) == Verdict("done", "", "beside")


def test_what_is_not_there_or_not_begun_is_open(judgement: Judgement) -> None:
    stub = share("# Your turn.", 'raise NotImplementedError("input_share")')
    for cells in ([], ["x = 1"], ["print(input_share)"], stub):
        assert judgement.of("input_share", cells).state == "open"
    assert judgement.of("layer_norm", norm('raise NotImplementedError("layer_norm")')).state == "open"


def test_a_known_wrong_answer_gets_its_sentence(judgement: Judgement) -> None:
    for exercise in TRIED:
        source, sentence = known_wrong(exercise)
        found = judgement.of(exercise, [source])
        assert found.state == "tried"
        assert sentence in found.sentence


SAYS = {
    "an error": (share("return 1 / 0"), "raised ZeroDivisionError"),
    "an error in the cell": (["input_share = 1 / 0"], "Your cells raised ZeroDivisionError"),
    "not Python": (["def input_share(n, f, alpha:\n    return 1"], "Your cells raised SyntaxError"),
    "the end of the program": (share("import os", "os._exit(0)"), "ended the program"),
    "the end in the cell": (["import os", "input_share = os._exit(0)"], "ended the program"),
    "another process": (share("import os", "os.fork()", "return 1.0"), "PermissionError"),
    "a signal": (share("import os", "os.kill(os.getppid(), 9)", "return 1.0"), "PermissionError"),
    "a program": (share("import subprocess", "subprocess.run(['true'])", "return 1.0"), "PermissionError"),
    "the network": (share("import socket", "socket.create_connection(('127.0.0.1', 9))"), "PermissionError"),
    "all memory": (share("return b'x' * 10**11"), "MemoryError"),
    "the reference answer": (["from deepnet_edu.course.references.lesson_01 import input_share"], "ImportError"),
    "the judge": (share("from deepnet_edu.checks.lesson_01 import input_share as j", "return j"), "ImportError"),
}


@pytest.mark.parametrize("deed", SAYS)
def test_what_an_answer_may_not_do_is_said(deed: str, judgement: Judgement) -> None:
    cells, said = SAYS[deed]
    found = judgement.of("input_share", cells)
    assert found.state == "tried"
    assert said in found.sentence
    assert "judging.py" not in found.sentence
    assert judgement.of("input_share", FORMS["plain"]).state == "done"  # nothing is left of it


def test_an_answer_writes_in_its_own_folder_alone(judgement: Judgement, tmp_path: Path) -> None:
    target = tmp_path / "there"
    for write in (f"open({str(target)!r}, 'w')", f"__import__('numpy').array([1.0]).tofile({str(target)!r})"):
        judgement.of("input_share", share(write, f"return {SHARE}"))
        assert not target.exists()
    assert judgement.of("input_share", share("open('mine', 'w').write('x')", f"return {SHARE}")).state == "done"


def test_an_answer_sees_nothing_of_the_teachers_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPNET_EDU_SECRET", "word")
    with Sandbox() as other:
        found = Judgement(other).of(
            "input_share", share("import os", "raise ValueError(dict(os.environ), os.getcwd())")
        )
    assert "word" not in found.sentence
    assert "raised ValueError" in found.sentence
    assert os.getcwd() not in found.sentence


@pytest.mark.parametrize("exercise", ["input_share", "layer_norm"])
@pytest.mark.parametrize("where", ["function", "cell"])
def test_a_loop_without_end_is_left(exercise: str, where: str, sandbox: Sandbox) -> None:
    quick, begun = Judgement(sandbox, timeout=2), time.monotonic()
    loop = f"def {exercise}(*a):\n    while True: pass" if where == "function" else f"while True: {exercise} = 1"
    found = quick.of(exercise, [loop])
    assert found.state == "tried"
    assert "2 s" in found.sentence
    assert time.monotonic() - begun < 60
    assert quick.of("input_share", FORMS["plain"]).state == "done"


PATCHES = {
    "the trial": "import deepnet_edu.checks.trial as t\n    t.Trial.verdict = lambda *a: None\n"
    "    t.Trial.equal = t.Trial.require = t.Trial.gradients = lambda *a, **k: None",
    "the judge": "import sys\n    m = sys.modules['deepnet_edu.checks.lesson_02.norms']\n"
    "    m.steady = m.heeds = m._independent = m._float32 = m._gradients = lambda *a, **k: None",
    "how values are compared": "import deepnet_edu.checks.trial as t\n    t.close = lambda *a: True",
    "a name that hides Python's": "import deepnet_edu.checks.trial as t\n    t.any = lambda *a: False",
    "NumPy": "import numpy as np\n    np.abs = np.max = lambda *a, **k: 0",
    "the code of a function": "import deepnet_edu.checks.values as v\n"
    "    v.close.__code__ = (lambda a, b, c: True).__code__",
    "the line": "import os\n    for fd in range(3, 60):\n        try: os.write(fd, b'x\\0done\\0\\0\\0')\n"
    "        except OSError: pass",
}


@pytest.mark.parametrize("patch", PATCHES)
def test_an_answer_that_changes_what_judges_it_gets_no_points(patch: str, judgement: Judgement) -> None:
    found = judgement.of("layer_norm", norm(PATCHES[patch], "return x * 0"))
    assert found == Verdict("tried", ALTERED, "beside")
    if "lesson_02" not in PATCHES[patch] and "fd" not in PATCHES[patch]:
        apart = judgement.of("input_share", share(PATCHES[patch], "return 0.5"))
        assert (apart.state, apart.evidence) == ("tried", "apart")


def test_a_line_that_is_written_on_gets_no_points(judgement: Judgement) -> None:
    found = judgement.of("input_share", share(PATCHES["the line"], "return 0.5"))
    assert found.state == "tried"


def test_the_sandbox_says_what_holds_it(sandbox: Sandbox) -> None:
    assert set(sandbox.held) == {"network", "files", "signals", "answers"}
    assert sandbox.in_words().startswith("Sandbox: ")
    sandbox.held, held = dict.fromkeys(sandbox.held, False), sandbox.held
    assert sandbox.in_words().startswith("Sandbox: Python alone keeps them from the network, ")
    sandbox.held = held


def test_a_sandbox_that_was_killed_is_started_again(judgement: Judgement) -> None:
    assert judgement.sandbox._process is not None
    judgement.sandbox._process.kill()
    for i in range(50):  # what the killed one has left is not in the way
        (judgement.sandbox._folder / str(i)).mkdir(exist_ok=True)
    for _ in range(3):
        assert judgement.of("input_share", FORMS["plain"]).state == "done"


class Loop:
    """An answer as the judge sees it from the other process, without one."""

    def __init__(self, function: Any, exercise: str) -> None:
        self.function = as_asked(function, check._reference(exercise))
        self.earlier: list[list[Any]] = []
        own = wire.signature(wire.first_line(signature_of(self.function)))
        if own is not None:
            self.__signature__ = own

    def __call__(self, *given: Any, **named: Any) -> Any:
        theirs = wire.unpack(wire.pack([given, named]))
        before = wire.pack(theirs)
        result = self.function(*theirs[0], **theirs[1])
        if wire.pack(theirs) != before:
            wire.put([given, named], theirs)
        for one in self.earlier:
            if wire.pack(one[0]) != one[2]:
                wire.put(one[1], wire.unpack(wire.pack(one[0])))
        mine = wire.unpack(wire.pack(result))
        self.earlier = [[own, there, wire.pack(own)] for own, there, _ in self.earlier]
        self.earlier.append([result, mine, wire.pack(result)])
        return mine


#: Right answers that return what cannot cross; they are judged beside.
BESIDE = {("sublayer_slopes", "by_autograd"), ("outcome", "<lambda>")}


@pytest.mark.parametrize("lesson", sorted(set(check.lesson_of.values())))
def test_nothing_is_lost_on_the_way(lesson: str) -> None:
    """Every right answer of tests/checks is right from the other process, too, and every wrong one wrong."""
    here = Judgement.__new__(Judgement)
    here.timeout, here._crosses = 20, {}
    wrong = []
    answers = fresh(lesson)
    for rows, wanted in ((answers.RIGHT, "done"), ([row[:2] for row in answers.WRONG], "tried")):
        for exercise, answer in rows:
            if here.crosses(exercise):
                found = judged(exercise, check.judges[exercise], Loop(answer, exercise), 20)
                name = getattr(answer, "__name__", "?")
                if found.state != wanted and "NotPlainError" not in found.sentence:
                    wrong.append((exercise, name, found.sentence))
                elif wanted == "done" and found.state != wanted:
                    assert (exercise, name) in BESIDE
    assert not wrong


VALUES = [
    None, True, 3, -(2**70), 1.5, float("inf"), 2 + 1j, "text", [1, (2.0, "a")], {"a": [1], 2: None}, {1, 2}, range(3),
    np.float32(0.1), np.arange(6.0).reshape(2, 3), np.array(["a", "bc"]), np.zeros((0, 2)), torch.arange(3),
    torch.ones(2, 0, dtype=torch.bfloat16), torch.tensor(1.5, dtype=torch.float64), torch.bfloat16,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_cross_as_they_are(value: Any) -> None:
    found = wire.unpack(wire.pack(value))
    assert type(found) is type(value)
    assert wire.pack(found) == wire.pack(value)
    assert str(found) == str(value)


@pytest.mark.parametrize(
    "value", [print, object(), torch.nn.Linear(1, 1), torch.ones(1, requires_grad=True), np.array([None])]
)
def test_what_cannot_cross_is_refused(value: Any) -> None:
    with pytest.raises(wire.NotPlainError):
        wire.pack(value)


def test_a_forged_message_is_refused() -> None:
    good = wire.pack([1, np.arange(3.0)])
    texts = ['{"array": ["<f8", [9], [0, 24]]}', '{"array": ["O", [3], [0, 24]]}', '{"eval": 1}', "{}", "[" * 9999, "3"]
    forged = [wire._HEAD.pack(len(text), 0) + text.encode() for text in texts]
    for message in (b"", good[:-1], good[:9], good + b"x", *forged):
        with pytest.raises(ValueError, match=r".+"):
            wire.unpack(message)


def test_a_class_of_three(judgement: Judgement, tmp_path: Path) -> None:
    hand_in(LESSONS / f"{LESSON}.ipynb", tmp_path)
    students = find_students([tmp_path], lesson_names())
    assert [one.name for one in students] == ["full", "none", "partial"]
    rows = list(graded(students, {LESSON: EXERCISES}, judgement))
    full, none, partial = by_student(rows)
    assert (full["points"], full["out_of"], full["open"]) == (sum(POINTS.values()), sum(POINTS.values()), 0)
    assert (none["points"], none["done"], none["tried"]) == (0, 0, 0)
    assert (partial["points"], partial["done"], partial["tried"]) == (POINTS["variance_by_depth"], 1, 2)
    line = next(one for one in by_exercise(rows) if one["exercise"] == "input_share")
    assert line["solved_by"] == ["full"]
    assert known_wrong("input_share")[1] in line["misconceptions"][0]["sentence"]
    assert json.loads(json.dumps(as_plain(rows, [], "")))["students"][0] == full
    assert as_csv(rows).splitlines()[1].startswith("full,01,variance_by_depth,done,5,5,False,apart,")


def test_a_table_holds_no_formula_of_a_spreadsheet() -> None:
    row = Row("=HYPERLINK(1)", "01", "input_share", "tried", 0, 5, False, "apart", "-1 is wrong")
    assert as_csv([row]).splitlines()[1] == "'=HYPERLINK(1),01,input_share,tried,0,5,False,apart,'-1 is wrong"


def test_progress_files_are_weaker_evidence(tmp_path: Path) -> None:
    known = {"input_share": {"state": "done", "attempts": 2}, "cloned_growth": {"state": "tried", "attempts": 1}}
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / ".progress.json").write_text(json.dumps({"version": 1, "exercises": known}))
    students = find_students([tmp_path], lesson_names())
    rows = {row.exercise: row for row in graded(students, {LESSON: EXERCISES}, None)}
    assert {row.evidence for row in rows.values()} == {"progress"}
    assert (rows["input_share"].state, rows["cloned_growth"].state) == ("done", "tried")
    assert (rows["input_share"].points, rows["cloned_growth"].points) == (POINTS["input_share"], 0)


def empty(path: Path, content: str = '{"cells": []}') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_students_by_folder_file_and_nbgraders_way(tmp_path: Path) -> None:
    lessons, name = lesson_names(), "02_layer_norm.ipynb"
    empty(tmp_path / "class" / "anna" / name)
    empty(tmp_path / "class" / "anna" / ".ipynb_checkpoints" / name)
    empty(tmp_path / "class" / "anna" / "notes.ipynb")
    empty(tmp_path / "class" / "bo" / "02_layer_norm" / name)
    assert [(one.name, [*one.notebooks]) for one in find_students([tmp_path / "class"], lessons)] == [
        ("anna", ["02_layer_norm"]),
        ("bo", ["02_layer_norm"]),
    ]
    for one in ("anna", "bo"):
        assert [found.name for found in find_students([tmp_path / "class" / one], lessons)] == [one]
    files = [empty(tmp_path / f"carl_{name}"), empty(tmp_path / "carl_01_residual_arithmetic.ipynb")]
    (carl,) = find_students(files, lessons)
    assert (carl.name, sorted(carl.notebooks)) == ("carl", ["01_residual_arithmetic", "02_layer_norm"])


def test_what_cannot_be_graded_is_refused_before_work_starts(tmp_path: Path) -> None:
    lessons, name = lesson_names(), "02_layer_norm.ipynb"
    a, b = empty(tmp_path / "a" / "anna" / name), empty(tmp_path / "b" / "Anna" / name)
    twice = empty(tmp_path / "c" / "carl" / name)
    empty(tmp_path / "c" / "carl" / "02_layer_norm (1).ipynb")
    cases = {
        "Two students are called Anna": [a.parent, b.parent],
        "carl has two notebooks of lesson 02": [twice.parent],
        "There is no file or folder": [tmp_path / "nothing"],
        "holds no notebook of a lesson": [LESSONS.parent / "docs"],
        "names no lesson": [empty(tmp_path / "mine.ipynb")],
        "is not a notebook or a progress file": [empty(tmp_path / f"{name}.txt")],
        "is not a notebook (not JSON": [empty(tmp_path / name, "no")],
        "is not a notebook (it has no cells)": [empty(tmp_path / f"x_{name}", "[]")],
    }
    for said, paths in cases.items():
        with pytest.raises(UserError) as refused:
            find_students(paths, lessons)
        assert said in str(refused.value)


def test_a_damaged_notebook_in_a_class_is_said_and_the_others_are_graded(tmp_path: Path) -> None:
    empty(tmp_path / "anna" / "02_layer_norm.ipynb", "{")
    empty(tmp_path / "bo" / "02_layer_norm.ipynb")
    anna, bo = find_students([tmp_path], lesson_names())
    assert "02_layer_norm.ipynb is not a notebook" in anna.trouble[0]
    assert not anna.notebooks
    assert bo.notebooks


def test_a_link_in_a_students_folder_is_not_followed(tmp_path: Path) -> None:
    secret = empty(tmp_path / "secret.ipynb")
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "02_layer_norm.ipynb").symlink_to(secret)
    with pytest.raises(UserError, match="holds no notebook"):
        find_students([tmp_path / "anna"], lesson_names())
    with pytest.raises(ValueError, match=r".+"):
        cells_of(tmp_path / "anna" / "02_layer_norm.ipynb")


def test_every_reference_answer_is_right_in_the_sandbox(judgement: Judgement) -> None:
    """Of each exercise, apart or beside."""
    for exercise in check.judges:
        module = inspect.getmodule(check._reference(exercise))
        assert module is not None
        found = judgement.of(exercise, [inspect.getsource(module)])
        assert found == Verdict("done", "", "apart" if judgement.crosses(exercise) else "beside"), (
            exercise,
            found.sentence,
        )
    page = (LESSONS.parent / "docs" / "teach.md").read_text(encoding="utf-8")
    apart = sum(map(judgement.crosses, check.judges))
    assert f"| `apart` | {apart} |" in page
    assert f"| `beside` | {len(check.judges) - apart} |" in page
