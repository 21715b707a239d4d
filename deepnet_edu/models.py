"""Whole models: the configuration, the batch, and build_model."""

from dataclasses import dataclass, fields
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.attention import check_heads
from deepnet_edu.initialization import initialize
from deepnet_edu.messages import unknown
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.transformer import Stack

#: Targets with this value do not count in the loss (PyTorch's own default).
IGNORED = -100
Group = Literal["all", "stack", "ends"]


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. Everything is checked on creation.

    Attributes:
        architecture: ``"decoder"``: a stack of causal layers.
        task: ``"lm"``: predict a token at each position.
        decoder_layers: M, layers of two sub-layers each; 0 is allowed, the control with no stack at all.
        d_model: width of the stream.
        n_heads: attention heads; divides d_model.
        d_ff: width inside the feed-forward branch.
        vocab_size: number of tokens.
        residual: a name in ``RESIDUALS``.
        max_length: longest sequence, the number of learned positions.

    Raises:
        ValueError: one sentence that says what was given and what is valid.
    """

    architecture: str
    task: str
    decoder_layers: int
    d_model: int
    n_heads: int
    d_ff: int
    vocab_size: int
    residual: str = "deepnorm"
    max_length: int = 256

    def __post_init__(self) -> None:
        if self.architecture != "decoder":
            raise ValueError(unknown("architecture", self.architecture, ["decoder"]))
        if self.task != "lm":
            raise ValueError(unknown("task", self.task, ["lm"]))
        if self.residual not in RESIDUALS:
            raise ValueError(unknown("residual", self.residual, RESIDUALS))
        for field in fields(self):
            if field.type not in (int, "int"):
                continue
            value, least = getattr(self, field.name), 0 if field.name == "decoder_layers" else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{field.name}={value!r}: expected a whole number, {least} or more.")
        check_heads(self.d_model, self.n_heads)


@dataclass(frozen=True)
class Batch:
    """What a model reads and what it should answer.

    Attributes:
        inputs: (B, T) int64 tokens.
        targets: (B, T) int64 tokens; -100 where no answer is wanted.
        padding: (B, T) bool, True where an input is padding; None if there is none.
    """

    inputs: Tensor
    targets: Tensor
    padding: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on ``device``."""
        padding = None if self.padding is None else self.padding.to(device)
        return Batch(self.inputs.to(device), self.targets.to(device), padding)


class LanguageModel(nn.Module):
    """Token and position embedding, a decoder stack, and a linear head of its own.

    The sum of both embeddings has variance 1, which is where the paper's Lemma 4.1 starts. The head is drawn from
    N(0, 1/d_model), so logits start with variance 1 and the loss a little above ln(vocab_size).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position = nn.Embedding(config.max_length, config.d_model)
        self.stack = Stack(
            "decoder",
            config.residual,
            encoder_layers=0,
            decoder_layers=config.decoder_layers,
            d_model=config.d_model,
            n_heads=config.n_heads,
            d_ff=config.d_ff,
        )
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def embed(self, tokens: Tensor) -> Tensor:
        """(B, T) tokens → (B, T, d_model).

        Raises:
            ValueError: tokens are not (B, T), the sequence is longer than ``max_length``, or, on the CPU, a token is
                outside the vocabulary (on a GPU PyTorch's own assertion stops the program).
        """
        if tokens.ndim != 2:
            raise ValueError(f"Tokens of shape {tuple(tokens.shape)}: expected (B, T); for one sequence, tokens[None].")
        T, longest, size = tokens.shape[1], self.config.max_length, self.config.vocab_size
        if longest < T:
            raise ValueError(
                f"The sequence has {T} tokens, the model has {longest} positions: "
                f"cut it, or build the model with max_length={T}."
            )
        # On a GPU this look would wait for everything queued before it.
        if tokens.device.type == "cpu" and tokens.numel() and not 0 <= tokens.min() <= tokens.max() < size:
            wrong = tokens[(tokens < 0) | (tokens >= size)][0].item()
            raise ValueError(
                f"Token {wrong} is outside the vocabulary: tokens must be from 0 to {size - 1} (vocab_size={size})."
            )
        return cast(Tensor, self.embedding(tokens) + self.position.weight[:T])

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T) tokens → logits (B, T, vocab_size). padding: (B, T) bool, True where a token is padding."""
        return cast(Tensor, self.head(self.stack(self.embed(tokens), padding)))

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy per answered token, in nats."""
        logits = self(batch.inputs, batch.padding)
        return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)

    def group(self, name: Group) -> list[nn.Parameter]:
        """The parameters of ``"all"``, of the ``"stack"`` alone, or of its ``"ends"`` (embeddings and head)."""
        stack = list(self.stack.parameters())
        ends = [*self.embedding.parameters(), *self.position.parameters(), *self.head.parameters()]
        groups: dict[str, list[nn.Parameter]] = {"all": [*stack, *ends], "stack": stack, "ends": ends}
        if name not in groups:
            raise ValueError(unknown("group of parameters", name, groups))
        return groups[name]


def build_model(config: ModelConfig, seed: int = 0, device: torch.device | str = "cpu") -> LanguageModel:
    """A freshly initialised model.

    Args:
        config: its shape.
        seed: the same seed gives the same weights on every device; PyTorch's global random state is left alone.
        device: where the model goes, for example ``"cuda"``.
    """
    with torch.random.fork_rng(devices=[]):
        model = LanguageModel(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        nn.init.normal_(model.embedding.weight, std=0.5**0.5, generator=generator)
        nn.init.normal_(model.position.weight, std=0.5**0.5, generator=generator)
        nn.init.normal_(model.head.weight, std=config.d_model**-0.5, generator=generator)
    initialize(model, generator)
    return model.to(device)
