"""Tasks on random tokens: one that each token can solve alone, one that needs attention, one that needs it across
two stacks."""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from deepnet_edu.fields import check_fields
from deepnet_edu.model import IGNORED, Batch


@dataclass(frozen=True)
class _RandomTokens:
    """Independent uniform tokens, and an answer to each.

    Attributes:
        vocab_size: number of tokens.
        length: T, tokens per sequence.
        batch_size: B, sequences per batch.
    """

    vocab_size: int = 16
    length: int = 16
    batch_size: int = 16

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("vocab_size", "length", "batch_size"):
            least = 1 if name == "batch_size" else 2
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected {least} or more.")

    @property
    def chance(self) -> float:
        """Least loss of a model whose answers do not depend on what it reads: ln(vocab_size), nats per token."""
        return log(self.vocab_size)

    def answers(self, x: Tensor) -> Tensor:
        """What should be said to x, both (B, T)."""
        raise NotImplementedError

    def batch(self, generator: torch.Generator) -> Batch:
        """A fresh random batch on the CPU, (B, T)."""
        x = torch.randint(self.vocab_size, (self.batch_size, self.length), generator=generator, device="cpu")
        return Batch(inputs=x, targets=self.answers(x))


@dataclass(frozen=True)
class TokenMap(_RandomTokens):
    """y = (5x + 3) mod vocab_size at every position. Needs no attention: a plain table solves it."""

    def answers(self, x: Tensor) -> Tensor:
        """(5x + 3) mod vocab_size."""
        return (5 * x + 3) % self.vocab_size


@dataclass(frozen=True)
class PreviousToken(_RandomTokens):
    """y_t = x_{t-1}, and at the first position, which has no previous token, no answer is asked for.

    A model whose tokens cannot see each other stays at ln(vocab_size).
    """

    length: int = 8
    batch_size: int = 32

    def answers(self, x: Tensor) -> Tensor:
        """x moved one position to the right."""
        return torch.cat([torch.full_like(x[:, :1], IGNORED), x[:, :-1]], dim=1)


@dataclass(frozen=True)
class SourceMap(_RandomTokens):
    """y = (5x + 3) mod vocab_size for an encoder-decoder: x is the source, and the decoder reads start tokens alone.

    The decoder's own input says nothing, so a model whose cross-attention carries nothing stays at ln(vocab_size).
    """

    length: int = 8
    batch_size: int = 32

    def answers(self, x: Tensor) -> Tensor:
        """(5x + 3) mod vocab_size."""
        return (5 * x + 3) % self.vocab_size

    def batch(self, generator: torch.Generator) -> Batch:
        """A fresh random batch on the CPU, (B, T), whose target_inputs are token 0 everywhere."""
        batch = super().batch(generator)
        return Batch(inputs=batch.inputs, targets=batch.targets, target_inputs=torch.zeros_like(batch.inputs))
