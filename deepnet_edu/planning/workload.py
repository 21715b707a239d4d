"""What a device computes in a step, and how: the two values that all of planning is about."""

from dataclasses import dataclass
from functools import cached_property

from deepnet_edu.fields import check_whole
from deepnet_edu.messages import unknown
from deepnet_edu.model.config import ModelConfig

#: Bytes of a number: weight, gradient, all that AdamW keeps for it, activation. "mixed": weights in bfloat16, and a
#: float32 copy of them beside both moments. "autocast": all in float32, but matrices are copied to bfloat16, and so is
#: what they multiply; with "autocast_half" the stream between sub-layers too.
PRECISIONS: dict[str, tuple[int, int, int, int]] = {
    "float32": (4, 4, 8, 4),
    "float64": (8, 8, 16, 8),
    "bfloat16": (2, 2, 4, 2),
    "mixed": (2, 2, 12, 2),
    "autocast": (4, 4, 8, 4),
    "autocast_half": (4, 4, 8, 4),
}


@dataclass(frozen=True)
class Workload:
    """A batch, the model that computes it, and in which numbers.

    Attributes:
        config: of the model.
        B: sequences.
        T: tokens, of the target where there are two languages; of an image, its patches.
        source_tokens: of the source; 0 for as many.
        precision: a name in ``PRECISIONS``.

    Raises:
        ValueError: a size is not positive, or there is no such precision.
    """

    config: ModelConfig
    B: int
    T: int
    source_tokens: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(unknown("precision", self.precision, PRECISIONS))
        check_whole("sequences", self.B)
        check_whole("tokens", self.T)
        check_whole("source_tokens", self.source_tokens, 0)

    @cached_property
    def S(self) -> int:
        """Tokens of the encoder, where there are two stacks."""
        return self.source_tokens or self.T

    @property
    def autocast(self) -> bool:
        """Whether products are in bfloat16, and all else, or all but the stream, in float32."""
        return self.precision.startswith("autocast")

    @property
    def stream(self) -> int:
        """Bytes of a number of the stream, between layers."""
        return 2 if self.precision == "autocast_half" else self.number

    @property
    def number(self) -> int:
        """Bytes of an activation."""
        return PRECISIONS[self.precision][3]

    @property
    def narrow(self) -> int:
        """Bytes of one that a product reads."""
        return 2 if self.autocast else self.number

    @property
    def vocabulary(self) -> int:
        """Classes or words."""
        return self.config.n_classes or self.config.vocab_size

    @property
    def answers(self) -> int:
        """Logits of a batch, numbers."""
        return self.B * (1 if self.config.n_classes else self.T) * self.vocabulary

    @property
    def embedded(self) -> int:
        """Numbers that leave embedding and position, of both stacks."""
        return 2 * self.B * (self.T + self.S) * self.config.d_model
