"""All ways through a lesson, in one process: nothing solved, and each exercise alone.

    python -m tests.notebooks.substitute 03 FOLDER

Prints, as JSON, a line for each way: the exercise solved, "" for none, and what the cells said.

A lesson that is solved at one exercise is, up to there, the untouched one. So the untouched lesson is run, and at each
exercise the process forks: the child takes the solution's cell and goes on to the end, the parent the open cell.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image
from traitlets.config import Config

from deepnet_edu.course.places import LESSONS, SOLUTIONS
from deepnet_edu.figures import picture


def main(lesson: str, folder: Path) -> None:
    """Run them, the untouched one last."""
    lesson_file, solution_file = (next(where.glob(f"{lesson}_*.ipynb")) for where in (LESSONS, SOLUTIONS))
    cells, answers = (nbformat.read(path, as_version=4).cells for path in (lesson_file, solution_file))
    # Figures are made and thrown away: every other run of a notebook draws them.
    picture.draw = lambda figure: Image.new("RGB", (2, 2))
    home = folder / "home"
    home.mkdir()
    os.chdir(home)
    settings = Config()
    settings.HistoryManager.enabled = False  # one database would be written by parent and children
    shell = InteractiveShell.instance(config=settings)
    case, said = "", ""
    for cell, answer in zip(cells, answers, strict=True):
        if cell.cell_type != "code":
            continue
        source = cell.source
        exercise = re.search(r'raise NotImplementedError\("(\w+)"\)', source)
        if exercise and not case:
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
            sys.exit(f"{case or 'nothing'} solved: {result.error_before_exec or result.error_in_exec!r} in\n{source}")
        said += captured.stdout  # what is displayed as well, as plain text
    print(json.dumps({"solved": case, "said": said}), flush=True)
    os._exit(0)  # without the farewell of libraries that the parent still uses


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
