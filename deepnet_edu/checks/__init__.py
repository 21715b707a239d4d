"""The judges of the learners' answers by lesson, and ``check``, through which notebooks call them.

    from deepnet_edu.checks import check
    check.variance_by_depth(variance_by_depth)

What a check finds is noted in the learner's progress file, where there is one. The names below are loaded when they are
first used, so that asking only which exercises there are (``names``) needs no PyTorch.
"""

from typing import TYPE_CHECKING

from deepnet_edu.lazy import lazily

if TYPE_CHECKING:
    from deepnet_edu.checks.base import Misconception, NotRight, Result, Trial
    from deepnet_edu.checks.by_name import check

__all__ = ["Misconception", "NotRight", "Result", "Trial", "check"]

__getattr__ = lazily(__name__, {name: "by_name" if name == "check" else "base" for name in __all__})
