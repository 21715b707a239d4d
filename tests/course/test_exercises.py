"""Exercises from one source: stub for the learner, answer for the solution, reference for the kit, or a refusal."""

from pathlib import Path

import jupytext
import pytest

from deepnet_edu.course import answers, build, kit
from deepnet_edu.course.exercises import find_exercises
from deepnet_edu.messages import UserError
from tests.course.source import HEAD

PROMPT = """# %% [markdown] exercise="double" difficulty=2 importance=5 minutes=8
# ### Twice
#
# **Objective**: multiply.
#
# Some text.
#
# Hint: Think of
# addition.
#
# Hint: Add x to itself.
"""
CODE = '''# %% exercise="double"
def double(x):
    """2x."""
    ### BEGIN SOLUTION
    y = x + x
    return y
    ### END SOLUTION
'''
CHECK = "# %%\nprint(check.double(double))\n"
IMPORTS = '# %% tags=["imports"]\nimport math\n'
SOURCE = "\n".join([HEAD, IMPORTS, PROMPT, CODE, CHECK])


def read(source: str):
    return jupytext.reads(source, fmt="py:percent")


def test_an_exercise_is_read() -> None:
    (exercise,) = find_exercises(read(SOURCE), "01_x")
    assert (exercise.name, exercise.number, exercise.difficulty, exercise.minutes) == ("double", 1, 2, 8)
    assert exercise.hints == ("Think of\naddition.", "Add x to itself.")


@pytest.mark.parametrize(
    ("old", "new", "lacks"),
    [
        ("difficulty=2", "", "lacks difficulty."),
        ("difficulty=2", "difficulty=6", "lacks difficulty."),
        ("importance=5", "importance=true", "lacks importance."),
        ("minutes=8", "minutes=0", "lacks minutes."),
        ("# Hint: Add x to itself.\n", "", "lacks two paragraphs Hint:."),
        ("Hint: Add", "Hint: add", "lacks a capital letter at the beginning of each hint."),
        ("**Objective**", "Objective", r"lacks a line \*\*Objective\*\*."),
        ("### Twice", "Twice", "lacks a heading."),
        ("print(check.double(double))", "double(2)", r"lacks a cell check.double\(double\)."),
        ("### END SOLUTION", "", "one pair of ### BEGIN SOLUTION and ### END SOLUTION"),
        ("def double", "def twice", "lacks a definition of double in its code cell"),
        (CODE, "", 'lacks a code cell exercise="double"'),
        (PROMPT, "", "lacks its prompt"),
    ],
)
def test_an_incomplete_exercise_is_refused(old: str, new: str, lacks: str) -> None:
    assert old in SOURCE
    with pytest.raises(UserError, match=f"01_x: the exercise double.*{lacks}"):
        find_exercises(read(SOURCE.replace(old, new)), "01_x")


def test_stub_solution_and_reference(tmp_path: Path) -> None:
    path = tmp_path / "01_x.py"
    path.write_text(SOURCE)
    (built,) = build.convert_all([path])
    prompt, lesson, solution = (
        built.lesson.cells[2].source,
        built.lesson.cells[3].source,
        built.solution.cells[3].source,
    )
    assert prompt.startswith(
        "### Exercise 1.1 · Twice\n\n*difficulty ●●○○○ · importance ●●●●● · 8 minutes*\n\n**Objective**"
    )
    assert "<details><summary>Hint 2</summary>\n\nAdd x to itself.\n\n</details>" in prompt
    assert "Hint:" not in prompt
    assert lesson == 'def double(x):\n    """2x."""\n    # Your turn.\n    raise NotImplementedError("double")'
    assert solution == 'def double(x):\n    """2x."""\n    y = x + x\n    return y'
    assert built.solution.cells[2].source == prompt
    space: dict = {}
    exec(built.reference or "", space)
    assert space["double"](4) == 8
    assert space["math"]
    learner: dict = {}
    exec(lesson, learner)
    with pytest.raises(NotImplementedError):
        learner["double"](4)


def test_the_reference_module_is_kept_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LESSONS", "SOLUTIONS", "REFERENCES"):
        monkeypatch.setattr(build, name, tmp_path / name.lower())
    (tmp_path / "solutions").mkdir()
    source = tmp_path / "solutions" / "01_x.py"
    source.write_text(SOURCE.replace(CHECK, "# %%\nif False:\n    check.double(double)\n"))
    assert "built references/lesson_01.py" in build.build_all()
    assert build.build_all(check=True) == []
    source.write_text(source.read_text().replace("x + x\n", "2 * x\n"))
    with pytest.raises(UserError, match=r"references/lesson_01.py.*Run: deepnet-edu build"):
        build.build_all(check=True)


def test_mine_or_reference(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def input_share(n, f, alpha):
        return (alpha**2 / (alpha**2 + f)) ** n

    assert kit.mine_or_reference(input_share) is input_share
    assert capsys.readouterr().out == ""

    class Answers:
        @staticmethod
        def input_share(n, f, alpha):
            return "the reference"

    monkeypatch.setattr(answers, "import_module", lambda name: Answers)
    mine = input_share

    def input_share(n, f, alpha):
        raise NotImplementedError

    assert kit.mine_or_reference(input_share)(1, 1, 1) == "the reference"
    assert "input_share: continuing with the reference answer" in capsys.readouterr().out
    assert mine is not input_share
    with pytest.raises(AttributeError, match="Unknown exercise 'test_mine_or_reference'"):
        kit.mine_or_reference(test_mine_or_reference)
