"""The lower end of a model: tokens or image patches, and their positions."""

import warnings
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.fields import check_argument
from deepnet_edu.model.attention import check_mask, wavelengths
from deepnet_edu.model.shape import Position
from deepnet_edu.model.tracing import transformed


def sinusoidal(positions: Tensor, d_model: int) -> Tensor:
    """sin and cos of p / 10000^(2i/d_model), side by side for each i: (…, d_model), of mean square ½.

    Args:
        positions: (T,) or (B, T).
        d_model: even.

    Source: arXiv 1706.03762, Section 3.5.
    """
    angle = positions[..., None] * wavelengths(10_000.0, d_model, positions.device)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def position_ids(tokens: int, past: int, padding: Tensor | None, device: torch.device) -> Tensor:
    """The position of each of the last ``tokens`` tokens: (tokens,), or (B, tokens) where padding moves them.

    Padding does not count, so that a padded sequence gets the positions of the same sequence without it.
    """
    if padding is None:
        return torch.arange(past, past + tokens, device=device)
    return ((~padding).cumsum(-1) - 1).clamp_min(0)[:, -tokens:]


def may_look(x: Tensor) -> bool:
    """Whether the values of a tensor can be read: on a GPU that would wait for everything queued before it."""
    return x.device.type == "cpu" and not transformed()


def as_tokens(name: str, tokens: Tensor) -> Tensor:
    """Tokens, or targets, as int64, from whatever whole numbers they are kept in.

    Raises:
        ValueError: they are something else.
    """
    check_argument(tokens, Tensor, name)
    if tokens.dtype == torch.int64:
        return tokens
    if tokens.dtype == torch.bool or tokens.is_floating_point() or tokens.is_complex():
        raise ValueError(f"{name} of {tokens.dtype}: expected whole numbers, int64.")
    return tokens.long()


def check_inside(name: str, tokens: Tensor, size: int, of: str, ignored: int | None = None) -> None:
    """Raise a ValueError where a token is not from 0 to size - 1; where a look takes too long, say nothing.

    Args:
        name: of one of them.
        tokens: int64, of any shape.
        size: of the vocabulary.
        of: what they should be inside of.
        ignored: a value that is allowed besides.
    """
    if not may_look(tokens) or not tokens.numel():
        return
    least, most = (int(value) for value in tokens.aminmax())
    if least >= 0 and most < size:
        return
    wrong = tokens[(tokens < 0) | (tokens >= size)]
    wrong = wrong if ignored is None else wrong[wrong != ignored]
    if len(wrong):
        besides = "" if ignored is None else f", or {ignored} where no answer is wanted"
        raise ValueError(
            f"{name} {wrong[0].item()} is outside {of}: {name.lower()}s must be from 0 to {size - 1}{besides}."
        )


def _warn_of_an_inverted_mask(tokens: Tensor, padding: Tensor) -> None:
    """Say so where ``padding`` seems to be True where there is text: it hides all, or all but a token that repeats."""
    hidden, seen = tokens[padding], tokens[~padding]
    if len(hidden) and (not len(seen) or (seen.min() == seen.max() and hidden.min() != hidden.max())):
        what = "every token" if not len(seen) else f"every token but {seen[0].item()}, which may be what pads"
        warnings.warn(
            f"padding hides {what}: it is True where a token is padding, the opposite of Hugging Face's "
            "attention_mask; if that is what was given, say padding=attention_mask == 0.",
            stacklevel=2,
        )


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
        norm: LN of the sum, with which a segment is added too, as in BERT (arXiv 1810.04805, Section 3): the first of
            two, since a batch here holds texts of one segment. None for neither.
    """

    def __init__(
        self, table: nn.Embedding, positions: Positions, shared: bool, dropout: float, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.token, self.position, self.dropout = table, positions, dropout
        self.segment = None if norm is None else nn.Embedding(2, table.embedding_dim)
        self.norm = norm
        self.std = table.embedding_dim**-0.5 if shared else positions.token_variance**0.5
        self.scale = (positions.token_variance * table.embedding_dim) ** 0.5 if shared else 1.0

    def forward(self, tokens: Tensor, padding: Tensor | None = None, past: int = 0) -> Tensor:
        """(B, T) tokens → (B, T, d_model).

        Args:
            tokens: (B, T) whole numbers.
            padding: (B, past + T) bool, True where a token is padding.
            past: tokens of the sequence that were embedded before.

        Raises:
            ValueError: tokens are not (B, T) whole numbers, T ≥ 1, padding is not bool of that shape, the sequence is
                longer than a learned table of positions, or, on the CPU, a token is outside the vocabulary (on a GPU
                PyTorch's own assertion stops the program).
        """
        tokens = as_tokens("Tokens", tokens)
        if tokens.ndim != 2 or not tokens.shape[1]:
            raise ValueError(
                f"Tokens of shape {tuple(tokens.shape)}: expected (B, T) with at least one token; "
                "for one sequence, tokens[None]."
            )
        T, longest, size = past + tokens.shape[1], self.position.max_length, self.token.num_embeddings
        if self.position.kind == "learned" and longest < T:
            raise ValueError(
                f"The sequence has {T} tokens, the model has {longest} positions: "
                f"cut it, or build the model with max_length={T}."
            )
        check_inside("Token", tokens, size, "the vocabulary")
        if padding is not None:
            check_mask("padding", padding, (len(tokens), T))
            if not past and may_look(padding):
                _warn_of_an_inverted_mask(tokens, padding)
        x = self.token(tokens) if self.scale == 1.0 else self.scale * self.token(tokens)
        x = self.position(x, position_ids(tokens.shape[1], past, padding, tokens.device))
        if self.segment is not None and self.norm is not None:
            x = self.norm(x + self.segment.weight[0])
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
            ValueError: other channels than the model's, or sides that are not a multiple of the patch.
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
