"""All ways through a lesson, in one process: nothing solved, and each exercise alone; or one way with other answers.

    python -m tests.notebooks.substitute 03 FOLDER [FORM | NUMBER]

Prints, as JSON, a line for each way: the exercise solved, "" for none, and what the cells said.

A lesson that is solved at one exercise is, up to there, the untouched one. So the untouched lesson is run, and at each
exercise the process forks: the child takes the solution's cell and runs to the end, the parent the open cell.

With a form of tests/checks/forms.py all exercises are solved by their reference answers in that form, with a number by
the right answer of tests/checks/answers_NN.py with that number, where there is one.
"""

import importlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image
from traitlets.config import Config

from deepnet_edu.course.build import convert_all
from deepnet_edu.course.places import ROOT, SOLUTIONS
from deepnet_edu.figures import picture
from tests.checks.forms import forms, written

_STUB = re.compile(r'raise NotImplementedError\("(\w+)"\)')


def main(lesson: str, folder: Path, way: str) -> None:
    """Run them, the untouched one last; or the one ``way``."""
    (built,) = [one for one in convert_all(sorted(SOLUTIONS.glob("[0-9]*.py"))) if one.name.startswith(lesson)]
    cells, answers = built.lesson.cells, built.solution.cells
    # Figures are made and thrown away: every other run of a notebook draws them.
    picture.draw = lambda figure: Image.new("RGB", (2, 2))
    home = folder / "home"
    home.mkdir()
    os.chdir(home)
    settings = Config()
    settings.HistoryManager.enabled = False  # one database would be written by parent and children
    shell = InteractiveShell.instance(config=settings)
    # As in a kernel, what other processes are sent is in the notebook alone; our own answers need tests/.
    os.environ["PYTHONPATH"] = str(ROOT)
    case, said = "", ""
    for cell, answer in zip(cells, answers, strict=True):
        if cell.cell_type != "code":
            continue
        source = cell.source
        exercise = _STUB.search(source)
        if exercise and way:
            source = other_answer(lesson, exercise[1], answer.source, way)
        elif exercise and not case:
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                case, source = exercise[1], answer.source
                os.chdir(shutil.copytree(home, folder / case))  # what it writes, the others do not see
            elif os.waitpid(child, 0)[1]:
                sys.exit(1)
        with capture_output() as captured:
            result = shell.run_cell(source, store_history=True)
        if not result.success:
            error = result.error_before_exec or result.error_in_exec
            sys.exit(f"{way or case or 'nothing'} solved: {error!r} in\n{source}")
        said += captured.stdout  # what is displayed as well, as plain text
    print(json.dumps({"solved": case, "said": said}), flush=True)
    os._exit(0)  # without the farewell of libraries that the parent still uses


def other_answer(lesson: str, exercise: str, solution: str, way: str) -> str:
    """The cell of an exercise with its answer in a form, or with another right one; else the solution's."""
    if way.isdigit():
        module = f"tests.checks.answers_{lesson}"
        right = [answer for name, answer in importlib.import_module(module).RIGHT if name == exercise]
        if int(way) >= len(right):
            return solution
        chosen = f"[answer for name, answer in RIGHT if name == {exercise!r}][{way}]"
        return f"from {module} import RIGHT\n\n{exercise} = {chosen}\n"
    if way not in forms(exercise):
        return solution
    references = importlib.import_module(f"deepnet_edu.course.references.lesson_{lesson}")
    return written(exercise, solution, way, getattr(references, exercise))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
