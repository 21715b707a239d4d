"""Grade submitted answers: each runs in a sandbox, and where it can be, apart from the judge, which it cannot touch."""

from typing import Any


def untouched(function: Any, name: str) -> bool:
    """Whether a function is the stub: all that it does is raise NotImplementedError with its own name.

    Args:
        function: as the learner's notebook has it.
        name: of the exercise.
    """
    code = getattr(function, "__code__", None)
    return code is not None and code.co_names == ("NotImplementedError",) and name in code.co_consts
