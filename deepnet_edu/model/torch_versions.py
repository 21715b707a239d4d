"""PyTorch versions that compute wrong numbers without a word. Needs no PyTorch."""

#: By the beginning of their number: what is wrong, and where it is reported.
WRONG = {
    "2.10": "gradients of compiled norms in a chain that share a scale or shift are silently wrong "
    "(github.com/pytorch/pytorch/issues/193061)"
}


def wrong(version: str) -> str:
    """What is known to be wrong in this version of PyTorch, a clause; empty if nothing.

    Args:
        version: as ``torch.__version__`` has it, with or without the label of its build.
    """
    release = ".".join(version.split("+")[0].split(".")[:2])
    return WRONG.get(release, "")
