"""Which paths there are. Without the folder ``fast`` there is the plain one, and nothing else changes.

This is the only file outside that folder that names it.
"""

from importlib import import_module
from typing import Any


def _fast() -> Any:
    name = f"{__package__}.fast"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


#: The package :mod:`deepnet_edu.model.fast`, or None.
fast: Any = _fast()


def run(stack: Any, x: Any, context: Any) -> tuple[Any, str]:
    """A stack's output by the fast path and how it was made, or None and why only the plain path can make it.

    Args:
        stack: a :class:`~deepnet_edu.model.stack.Stack` with layers.
        x: (B, T, d_model).
        context: as the stack got it.
    """
    if stack.compiled is not None:
        return None, "a compiled layer was asked for"
    if fast is None:
        return None, "the fast path is not installed"
    result: tuple[Any, str] = fast.run(stack, x, context)
    return result


def native() -> Any:
    """The module that compiles the fast path's functions; None where there is no fast path."""
    return None if fast is None else import_module(f"{fast.__name__}.native")


def new_step_buffers() -> Any:
    """What a training run keeps from step to step for the fast path; None where there is none."""
    return None if fast is None else fast.StepBuffers()


def knows(residual: str, encoder_layers: int, decoder_layers: int, longest: int = 1) -> bool:
    """Whether the fast path can compute the layers of a model with this rule, as it is built, for this many tokens."""
    return fast is not None and longest <= fast.LONGEST and bool(fast.knows(residual, encoder_layers, decoder_layers))


def compiled_sizes(d_ff: int, head_dim: int) -> str:
    """Which sizes of a head and of d_ff the fast path's compiled functions know, a clause; empty if these are."""
    if fast is None or (head_dim in fast.HEAD_DIMS and d_ff % fast.MULTIPLE == 0):
        return ""
    return f"heads of {', '.join(map(str, fast.HEAD_DIMS))} features and a d_ff that is a multiple of {fast.MULTIPLE}"
