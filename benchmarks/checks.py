"""How long each exercise's check takes, for right and wrong answers of tests/checks; the slowest first.

A learner waits for it, so none may take a second on two cores. Run with: python benchmarks/checks.py (ten seconds)
"""

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/ is not part of the package

from deepnet_edu.checks import check

MOST_S = 1.0


def seconds(exercise: str, answer: Callable[..., Any]) -> float:
    """Wall time of one check."""
    begin = time.perf_counter()
    check.judge(exercise, answer)
    return time.perf_counter() - begin


def main() -> None:
    """Print a line per exercise; exit status 1 if one is slower than a second."""
    torch.set_num_threads(1)
    worst = {}
    for lesson in sorted(set(check.lesson_of.values())):
        answers = importlib.import_module(f"tests.checks.answers_{lesson}")
        for exercise, answer in [(name, answer) for name, answer, *_ in (*answers.RIGHT, *answers.WRONG)]:
            worst[exercise] = max(worst.get(exercise, 0.0), min(seconds(exercise, answer) for _ in range(2)))
    for exercise, longest in sorted(worst.items(), key=lambda item: -item[1]):
        print(f"{longest:6.3f} s  lesson {check.lesson_of[exercise]}  {exercise}")
    if max(worst.values()) > MOST_S:
        sys.exit(f"A check takes more than {MOST_S:g} s.")


if __name__ == "__main__":
    main()
