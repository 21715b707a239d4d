"""The lower end of a model: tokens or image patches, and where they stand."""

from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Position = Literal["learned", "sinusoidal", "rotary"]
POSITIONS: tuple[Position, ...] = get_args(Position)


def sinusoidal(positions: Tensor, d_model: int) -> Tensor:
    """sin and cos of p / 10000^(2i/d_model), side by side for each i: (…, d_model), of mean square ½.

    Args:
        positions: (T,) or (B, T).
        d_model: even.

    Source: arXiv 1706.03762, Section 3.5.
    """
    frequency = 10_000.0 ** (-torch.arange(0, d_model, 2, device=positions.device) / d_model)
    angle = positions[..., None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def position_ids(tokens: int, past: int, padding: Tensor | None, device: torch.device) -> Tensor:
    """The position of each of the last ``tokens`` tokens: (tokens,), or (B, tokens) where padding moves them.

    Padding does not count, so that a padded sequence gets the positions of the same sequence without it.
    """
    if padding is None:
        return torch.arange(past, past + tokens, device=device)
    return ((~padding).cumsum(-1) - 1).clamp_min(0)[:, -tokens:]


class Positions(nn.Module):
    """What is added to an embedding so that it knows its place: a learned table, sinusoids, or nothing (rotary).

    Args:
        kind: ``"learned"``, ``"sinusoidal"`` or ``"rotary"``, which acts inside attention and adds nothing here.
        max_length: positions that a learned table has; the others know no limit.
        d_model: width of the stream.

    Attributes:
        token_variance: what is left for the token's own part so that the sum has variance 1.
    """

    def __init__(self, kind: Position, max_length: int, d_model: int) -> None:
        super().__init__()
        self.kind, self.max_length, self.d_model = kind, max_length, d_model
        self.token_variance = 1.0 if kind == "rotary" else 0.5
        if kind == "learned":
            self.table = nn.Embedding(max_length, d_model)

    def draw(self, generator: torch.Generator) -> None:
        """Draw a learned table from N(0, ½)."""
        if self.kind == "learned":
            nn.init.normal_(self.table.weight, std=0.5**0.5, generator=generator)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x + position. x: (B, T, d_model), positions: (T,) or (B, T)."""
        if self.kind == "learned":
            return x + cast(Tensor, self.table(positions))
        return x + sinusoidal(positions, self.d_model).to(x.dtype) if self.kind == "sinusoidal" else x


class TokenEmbedding(nn.Module):
    """Token and position embedding whose sum has variance 1, where the paper's Lemma 4.1 starts.

    Args:
        table: (vocab_size, d_model) weights, maybe shared with a head.
        positions: of this sequence.
        shared: whether the table is also a head's weight. Then it is drawn from N(0, 1/d_model), as a head needs it,
            and scaled up by √d_model on the way in (arXiv 1706.03762, Section 3.4).
        dropout: share of features that training sets to 0.
    """

    def __init__(self, table: nn.Embedding, positions: Positions, shared: bool, dropout: float) -> None:
        super().__init__()
        self.token, self.position, self.dropout = table, positions, dropout
        self.std = table.embedding_dim**-0.5 if shared else positions.token_variance**0.5
        self.scale = (positions.token_variance * table.embedding_dim) ** 0.5 if shared else 1.0

    def forward(self, tokens: Tensor, padding: Tensor | None = None, past: int = 0) -> Tensor:
        """(B, T) tokens → (B, T, d_model).

        Args:
            tokens: (B, T) int64.
            padding: (B, past + T) bool, True where a token is padding.
            past: tokens of the sequence that were embedded before.

        Raises:
            ValueError: tokens are not (B, T), the sequence is longer than a learned table of positions, or, on the
                CPU, a token is outside the vocabulary (on a GPU PyTorch's own assertion stops the program).
        """
        if tokens.ndim != 2:
            raise ValueError(f"Tokens of shape {tuple(tokens.shape)}: expected (B, T); for one sequence, tokens[None].")
        T, longest, size = past + tokens.shape[1], self.position.max_length, self.token.num_embeddings
        if self.position.kind == "learned" and longest < T:
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
        x = self.token(tokens) if self.scale == 1.0 else self.scale * self.token(tokens)
        x = self.position(x, position_ids(tokens.shape[1], past, padding, tokens.device))
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


class PatchEmbedding(nn.Module):
    """An image cut into squares, each a token: a linear map of its pixels, and its position.

    Args:
        channels: of the image.
        patch_size: side of a square, in pixels.
        d_model: width of the stream.
        positions: of the squares, row by row.
        dropout: share of features that training sets to 0.

    Source: arXiv 2010.11929, Section 3.1, without a class token.
    """

    def __init__(self, channels: int, patch_size: int, d_model: int, positions: Positions, dropout: float) -> None:
        super().__init__()
        self.channels, self.patch_size, self.dropout = channels, patch_size, dropout
        self.patch = nn.Linear(channels * patch_size**2, d_model)
        self.position = positions
        # Pixels of variance 1 then give a token of the same variance as an embedding's.
        self.std = (positions.token_variance / self.patch.in_features) ** 0.5

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, height, width) → (B, patches, d_model).

        Raises:
            ValueError: other channels than the model's, or sides that are no multiple of the patch.
        """
        P = self.patch_size
        if images.ndim != 4 or images.shape[1] != self.channels or images.shape[2] % P or images.shape[3] % P:
            raise ValueError(
                f"Images of shape {tuple(images.shape)}: expected (B, {self.channels}, height, width) "
                f"with sides that are multiples of patch_size={P}."
            )
        x = self.patch(F.unfold(images, P, stride=P).transpose(1, 2))
        if self.position.kind == "learned" and x.shape[1] > self.position.max_length:
            raise ValueError(
                f"The image has {x.shape[1]} patches, the model has {self.position.max_length} positions: "
                f"cut it, or build the model with max_length={x.shape[1]}."
            )
        x = self.position(x, position_ids(x.shape[1], 0, None, images.device))
        return F.dropout(x, self.dropout) if self.training and self.dropout else x
