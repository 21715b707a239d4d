"""The judges of the learners' answers, a module per lesson, and ``check``, through which notebooks call them.

    from deepnet_edu.checks import check
    check.variance_by_depth(variance_by_depth)

What a check finds is noted in the learner's progress file, where there is one. The names below are loaded when they are
first used, so that whoever asks only which exercises there are (``names``) needs no PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepnet_edu.checks.base import Misconception, NotRight, Result, Trial
    from deepnet_edu.checks.by_name import check

__all__ = ["Misconception", "NotRight", "Result", "Trial", "check"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{'by_name' if name == 'check' else 'base'}"), name)
    globals()[name] = value
    return value
