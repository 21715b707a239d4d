"""Sentences for bad input: what was given, what was expected, what to type."""

from collections.abc import Iterable
from difflib import get_close_matches

#: Class of the sentence that an explorer shows where it has a fault; ``deepnet-edu run`` looks for it.
FAULT = "deepnet-edu-fault"


def unknown(kind: str, given: object, valid: Iterable[str]) -> str:
    """The sentence for a name that does not exist.

    Args:
        kind: what the name should have named, for example ``"residual"``.
        given: what the user typed.
        valid: the names that exist.

    Returns:
        One sentence that names the nearest valid name, or all of them when none is near.
    """
    names = list(valid)
    near = get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "expected one of " + ", ".join(map(repr, names)) + "."
    return f"Unknown {kind} {given!r}: {hint}"


class UserError(Exception):
    """Something that the user can mend. The message is the sentence to show, without a stack trace."""
