"""The linter, the formatter and the type checker have nothing to say."""

import subprocess
import sys

import pytest

from deepnet_edu.course.places import ROOT


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy"])
def test_style(command: str) -> None:
    found = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
