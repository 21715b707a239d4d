"""No way through a lesson meets a name that is not there, whichever of its exercises are solved.

Two of the ways are run: none solved by papermill, all by nbval. That the others can differ from them in nothing but the
answers themselves is proved here without a run; `make course` runs each exercise solved alone.
"""

import nbformat
import pytest

from deepnet_edu.course.exercises import BEGIN, END, Exercise, stub, without_markers
from deepnet_edu.course.places import LESSONS, REFERENCES, SOLUTIONS, lesson_names
from tests.notebooks.cards import WITH_EXERCISES, exercises
from tests.notebooks.names import faults, names

Cells = list[tuple[str, str]]


def both_forms(lesson: str) -> Cells:
    """Each code cell, of the lesson and of the solution."""
    paths = [next(folder.glob(f"{lesson}*.ipynb")) for folder in (LESSONS, SOLUTIONS)]
    pair = [nbformat.read(path, as_version=4).cells for path in paths]
    return [(one.source, other.source) for one, other in zip(*pair, strict=True) if one.cell_type == "code"]


@pytest.mark.parametrize("lesson", lesson_names())
def test_all_ways_through_a_lesson_find_their_names(lesson: str) -> None:
    cells = both_forms(lesson)
    assert sum(one != other for one, other in cells) == len(exercises(lesson))
    assert faults(cells) == []


@pytest.mark.parametrize("lesson", WITH_EXERCISES)
def test_reference_answers_find_their_names(lesson: str) -> None:
    """They see nothing of the notebook."""
    source = (REFERENCES / f"lesson_{lesson}.py").read_text(encoding="utf-8")
    assert faults([(source, source)]) == []
    assert {*exercises(lesson)} <= names(source).bound


FUNCTION = f"def f(x):\n    {BEGIN}\n    return x\n    {END}\n"
#: The same function, with what else an answer may bring along.
WITH = "def f(x):\n    ### BEGIN SOLUTION\n    return x\n\n\n{}\n    ### END SOLUTION\n"
HELPER = WITH.format("def helper(x):\n    return x")
IMPORT = WITH.format("import math")
READ = "of cell 1 in one form alone"
NOBODY = "which nothing before it binds"


def cells_of(*sources: str) -> Cells:
    """Both forms of cells, made from their sources as `make build` makes them."""
    exercise = Exercise("f", 1, 1, 1, 1, (), "")
    return [(stub(one, exercise), without_markers(one)) if BEGIN in one else (one, one) for one in sources]


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        # What only the answer leaves behind, by the ways in which a cell can read it.
        ([HELPER, "helper(1)"], f"cell 2 needs helper, {READ}"),
        ([HELPER, "1", "def later():\n    return helper(1)"], f"cell 3 needs helper, {READ}"),
        ([HELPER, "print(lambda _: helper(1))"], f"cell 2 needs helper, {READ}"),
        ([HELPER, "[helper(x) for x in (1, 2)]"], f"cell 2 needs helper, {READ}"),
        ([HELPER, "class Own:\n    kind = helper"], f"cell 2 needs helper, {READ}"),
        ([HELPER, "class Own:\n    def go(self):\n        return helper(1)"], f"cell 2 needs helper, {READ}"),
        ([HELPER, "@helper\ndef later():\n    pass"], f"cell 2 needs helper, {READ}"),
        ([HELPER, "def later(x=helper):\n    pass"], f"cell 2 needs helper, {READ}"),
        ([HELPER, "print(f'{helper(1):.3f}')"], f"cell 2 needs helper, {READ}"),
        ([HELPER, "helper += 1"], f"cell 2 needs helper, {READ}"),
        ([HELPER, "for helper.x in (1, 2):\n    pass"], f"cell 2 needs helper, {READ}"),
        ([HELPER, "del helper.x"], f"cell 2 needs helper, {READ}"),
        ([HELPER, FUNCTION.replace("return x", "return helper(x)")], f"cell 2 needs helper, {READ}"),
        # By the ways in which it can come to be.
        ([IMPORT, "math.pi"], f"cell 2 needs math, {READ}"),
        ([WITH.format("from math import pi as π"), "π"], f"cell 2 needs π, {READ}"),
        ([WITH.format("class Own:\n    pass"), "Own()"], f"cell 2 needs Own, {READ}"),
        ([WITH.format("limit = 3"), "limit"], f"cell 2 needs limit, {READ}"),
        ([WITH.format("one, (two, *three) = 1, (2, 3)"), "three"], f"cell 2 needs three, {READ}"),
        ([WITH.format("for i in (1, 2):\n    pass"), "i"], f"cell 2 needs i, {READ}"),
        ([WITH.format("with open('x') as file:\n    pass"), "file"], f"cell 2 needs file, {READ}"),
        ([WITH.format("[seen := x for x in (1, 2)]"), "seen"], f"cell 2 needs seen, {READ}"),
        ([FUNCTION.replace("return", "global last\n    last = x\n    return"), "last"], f"cell 2 needs last, {READ}"),
        # In place of what another cell means, or in its place no longer.
        (["limit = 3", WITH.format("limit = 4"), "limit"], "cell 3 needs limit, of cell 2 in one form alone"),
        ([WITH.format("def sum(x):\n    return x"), "sum([1])"], f"cell 2 needs sum, {READ}"),
        (["limit = 3", WITH.format("del limit"), "limit"], "cell 3 needs limit, of cell 2 in one form alone"),
        # What the open cell lacks.
        ([WITH.format("from math import pi").replace("(x)", "(x, y=pi)")], f"cell 1 needs pi, {NOBODY}"),
        # What is not there in any way, or not yet.
        ([WITH.format("[i for i in (1, 2)]"), "i"], f"cell 2 needs i, {NOBODY}"),
        ([FUNCTION.replace("return x", "return later()"), "def later():\n    pass"], f"cell 1 needs later, {NOBODY}"),
        (["later(1)\n\n\ndef later(x):\n    return x"], f"cell 1 needs later, {NOBODY}"),
        (["try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    pass", "error"], f"cell 2 needs error, {NOBODY}"),
        (["model = 1", "del model", "def later():\n    return model"], f"cell 3 needs model, {NOBODY}"),
        # What cannot be followed.
        (["from math import *", "pi"], f"cell 1 needs *, {NOBODY}"),
        (["exec('x = 1')"], f"cell 1 needs exec, {NOBODY}"),
        (["%matplotlib inline"], f"cell 1 needs get_ipython, {NOBODY}"),
        (["%%time\nx = 1"], f"cell 1 needs get_ipython, {NOBODY}"),
        # What an answer does, besides to be one.
        (["seen = []", WITH.format("seen.append(1)")], "cell 2 does something in one form alone"),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(sources: list[str], said: str) -> None:
    assert said in faults(cells_of(*sources))


@pytest.mark.parametrize(
    "sources",
    [
        [HELPER, "f(1)"],  # it is the answer's own
        [IMPORT.replace("return x", "return math.pi"), "import math\nmath.pi"],
        [f"import math\n\n\n{FUNCTION}".replace("return x", "return math.pi * x"), "math.pi"],  # both have it
        ["def later(x):\n    return last(x)\n\n\ndef last(x):\n    return x\n\n\nlater(1)"],
        ["[x for x in (1, 2)]\n{x: y for x, y in ()}\n(lambda x: x)(1)"],
        ["class Own:\n    a = 1\n    b = a\n\n    def go(self) -> 'Own':\n        return super().__init__()"],
        ["class Own:\n    limit: int = 3\n\n\nsize: int = 3"],
        ["def outer():\n    inner = 1\n    return lambda: inner"],
        ["import asyncio\n\nawait asyncio.sleep(0)"],
        ["i = 0\ndel i\ni = 1", "display(i)"],
        ["try:\n    import fast\nexcept ImportError:\n    fast = None", "fast"],
    ],
)
def test_no_fault_is_found_where_there_is_none(sources: list[str]) -> None:
    assert faults(cells_of(*sources)) == []


@pytest.mark.parametrize("lesson", WITH_EXERCISES)
def test_a_fault_in_a_lesson_is_found(lesson: str) -> None:
    """A helper of an answer that the lesson's last cell calls."""
    cells = both_forms(lesson)
    for number, (unsolved, solved) in enumerate(cells):
        if unsolved != solved:
            planted = [*cells, ("helper()", "helper()")]
            planted[number] = unsolved, f"{solved}\n\n\ndef helper():\n    pass\n"
            assert faults(planted) == [f"cell {len(planted)} needs helper, of cell {number + 1} in one form alone"]
