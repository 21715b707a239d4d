"""What a data set has and a run does not read: rows without a text, pairs that are too long. It is counted and said."""

import warnings

#: What this process has left out so far, a sentence each, in order. A batch run tells it at its end.
SAID: list[str] = []


def leave_out(sentence: str) -> None:
    """Warn, at the caller's caller, that something was left out, and remember it: warnings can be switched off."""
    SAID.append(sentence)
    warnings.warn(sentence, stacklevel=3)
