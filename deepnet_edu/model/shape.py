"""The sizes that a model's layers have in common, what they may be, and what a machine can hold. Needs no PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Literal, get_args

import psutil

from deepnet_edu.messages import shown
from deepnet_edu.residual.place import Norm

Activation = Literal["gelu", "relu", "swiglu", "geglu"]
#: Activations with a gate, and the function that the gate goes through.
GATES = {"swiglu": "silu", "geglu": "gelu"}
Position = Literal["learned", "sinusoidal", "rotary"]
POSITIONS: tuple[Position, ...] = get_args(Position)


@dataclass(frozen=True)
class Shape:
    """What all layers of a model have in common.

    Attributes:
        d_model: width of the stream.
        n_heads: number of attention heads.
        d_ff: width of the feed-forward branch.
        activation: of the feed-forward branch.
        norm: what LN stands for, ``"layer"`` or ``"rms"``.
        dropout: share of each branch's features that training sets to 0.
        override: constants of the residual rule that are given by hand.
        n_kv_heads: heads of keys and values; 0 for n_heads.
        bias: whether the branches' matrices add one.
        clones: all layers are one, a loop.
    """

    d_model: int
    n_heads: int
    d_ff: int
    activation: Activation = "gelu"
    norm: Norm = "layer"
    dropout: float = 0.0
    override: Mapping[str, float] = field(default_factory=dict)
    n_kv_heads: int = 0
    bias: bool = True
    clones: bool = False


def check_heads(d_model: int, n_heads: int) -> None:
    """Raise a ValueError that names the nearest number of heads unless ``n_heads`` ≥ 1 divides ``d_model``."""
    if n_heads >= 1 and d_model % n_heads == 0:
        return
    divisors = {h for i in range(1, isqrt(d_model) + 1) if d_model % i == 0 for h in (i, d_model // i)}
    near = min(divisors, key=lambda h: (abs(h - n_heads), h))
    raise ValueError(
        f"d_model={d_model} cannot be split into n_heads={n_heads} equal heads: "
        f"try n_heads={near}, or a d_model that is a multiple of {max(n_heads, 1)}."
    )


def check_kv_heads(n_heads: int, n_kv_heads: int) -> None:
    """Raise a ValueError that names the nearest number unless ``n_kv_heads`` divides ``n_heads`` or is 0."""
    if n_kv_heads == 0 or (n_kv_heads > 0 and n_heads % n_kv_heads == 0):
        return
    near = min((h for h in range(1, n_heads + 1) if n_heads % h == 0), key=lambda h: (abs(h - n_kv_heads), h))
    raise ValueError(
        f"n_kv_heads={n_kv_heads}: each head of keys and values serves as many queries as any other, so it must divide "
        f"n_heads={n_heads}: try n_kv_heads={near}, or 0 for as many as there are queries."
    )


def layers_together(every: int | str, n_layers: int) -> int:
    """How many layers a checkpoint computes again together: ``every``, or √n_layers, rounded, where it is ``"auto"``.

    With groups of k layers n/k states are kept, and the activations of k layers once they are computed again.

    Raises:
        ValueError: it is neither a whole number, 0 or more, nor ``"auto"``.
    """
    if every == "auto":
        return round(n_layers**0.5)
    if isinstance(every, bool) or not isinstance(every, int) or every < 0:
        raise ValueError(f"checkpoint_every={shown(every)}: expected a whole number of layers, 0 or more, or 'auto'.")
    return every


def layers_again(recompute: int | str, n_layers: int) -> int:
    """How many of a stack's layers have checkpoints: the lowest ``recompute``, or ``"all"``.

    Raises:
        ValueError: it is neither a whole number, 0 or more, nor ``"all"``.
    """
    if recompute == "all":
        return n_layers
    if isinstance(recompute, bool) or not isinstance(recompute, int) or recompute < 0:
        raise ValueError(f"recompute={shown(recompute)}: expected a whole number of layers, 0 or more, or 'all'.")
    return min(recompute, n_layers)


def check_memory(needed: int, what: str, instead: str) -> None:
    """Refuse what is larger than the machine's memory.

    Args:
        needed: bytes.
        what: needs them.
        instead: what to do.

    Raises:
        ValueError: it is.
    """
    there = psutil.virtual_memory().total
    if needed > there:
        raise ValueError(
            f"{what} needs {gigabytes(needed)} of memory or more, this machine has {gigabytes(there)}: {instead}."
        )


def gigabytes(count: int) -> str:
    """Bytes, as one reads them."""
    return f"{count // 10**8 / 10:,} GB" if count < 10**15 else f"{count / 1e9:.1e} GB"
