"""Two tasks on random tokens: one that each token can solve alone, one that needs attention."""

from dataclasses import dataclass
from math import log

import torch

from deepnet_edu.models import IGNORED, Batch


@dataclass(frozen=True)
class TokenMap:
    """y = (5x + 3) mod vocab_size at every position. Needs no attention: a plain table solves it.

    Attributes:
        vocab_size: number of tokens.
        length: T, tokens per sequence.
        batch_size: B, sequences per batch.
    """

    vocab_size: int = 16
    length: int = 16
    batch_size: int = 16

    @property
    def chance(self) -> float:
        """Loss of a model that knows nothing, ln(vocab_size), in nats per token."""
        return log(self.vocab_size)

    def batch(self, generator: torch.Generator) -> Batch:
        """A fresh random batch on the CPU, (B, T)."""
        x = torch.randint(self.vocab_size, (self.batch_size, self.length), generator=generator)
        return Batch(inputs=x, targets=(5 * x + 3) % self.vocab_size)


@dataclass(frozen=True)
class PreviousToken:
    """y_t = x_{t-1}, and at the first position, which has no previous token, no answer is asked for.

    Tokens are independent and uniform, so a model whose tokens cannot see each other stays at ln(vocab_size).

    Attributes:
        vocab_size: number of tokens.
        length: T, tokens per sequence.
        batch_size: B, sequences per batch.
    """

    vocab_size: int = 16
    length: int = 8
    batch_size: int = 32

    @property
    def chance(self) -> float:
        """Least loss without attention, ln(vocab_size), in nats per answered token."""
        return log(self.vocab_size)

    def batch(self, generator: torch.Generator) -> Batch:
        """A fresh random batch on the CPU, (B, T)."""
        x = torch.randint(self.vocab_size, (self.batch_size, self.length), generator=generator)
        return Batch(inputs=x, targets=torch.cat([torch.full((self.batch_size, 1), IGNORED), x[:, :-1]], dim=1))
