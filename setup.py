"""The one step of a build that pyproject.toml cannot say: lessons, solutions and docs, which are at the top of a clone,
go into the wheel beside the code that reads them (deepnet_edu/course/places.py). An editable installation skips it.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
CARRIED = ("lessons/*.ipynb", "solutions/*.ipynb", "docs/**/*")


class WithMaterial(build_py):
    """Setuptools' step, and then the course's material."""

    def run(self) -> None:
        """Copy what there is: a course whose answers are withheld has no solutions."""
        super().run()
        if self.editable_mode:
            return
        material = Path(self.build_lib) / "deepnet_edu" / "course" / "material"
        shutil.rmtree(material, ignore_errors=True)
        for path in sorted(path for pattern in CARRIED for path in ROOT.glob(pattern) if path.is_file()):
            to = material / path.relative_to(ROOT)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)


setup(cmdclass={"build_py": WithMaterial})
