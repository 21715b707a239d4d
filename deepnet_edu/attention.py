"""Multi-head attention on PyTorch's scaled_dot_product_attention."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.residual import Role


def check_heads(d_model: int, n_heads: int) -> None:
    """Raise a ValueError that names the nearest number of heads unless ``n_heads`` ≥ 1 divides ``d_model``."""
    if n_heads >= 1 and d_model % n_heads == 0:
        return
    near = min((h for h in range(1, d_model + 1) if d_model % h == 0), key=lambda h: abs(h - n_heads))
    raise ValueError(
        f"d_model={d_model} cannot be split into n_heads={n_heads} equal heads: "
        f"try n_heads={near}, or a d_model that is a multiple of {max(n_heads, 1)}."
    )


class MultiHeadAttention(nn.Module):
    """Self-attention: softmax(QKᵀ/√(d_model/n_heads)) V, heads side by side, then the output projection.

    Query, key and value are one packed weight of shape (3·d_model, d_model), in this order: one matrix product for
    three. Each third is a matrix of its own for initialisation (:mod:`deepnet_edu.initialization`).

    Args:
        d_model: width of the stream.
        n_heads: number of heads; divides d_model.
        causal: whether a token sees only itself and earlier ones.

    Raises:
        ValueError: n_heads does not divide d_model.

    Source: arXiv 1706.03762, Section 3.2.
    """

    def __init__(self, d_model: int, n_heads: int, causal: bool) -> None:
        super().__init__()
        check_heads(d_model, n_heads)
        self.n_heads = n_heads
        self.causal = causal
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)

    def weights(self) -> dict[Role, Tensor]:
        """The weights by role, each (d_model, d_model); query, key and value are views of the packed one."""
        query, key, value = self.qkv.weight.chunk(3)
        return {"query": query, "key": key, "value": value, "output": self.output.weight}

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, T, d_model).
            padding: (B, T) bool, True where a token is padding and must not be seen; None if there is none.

        Returns:
            (B, T, d_model). A token that sees no token at all gets the output projection's bias.
        """
        B, T, d_model = x.shape
        q, k, v = (
            self.qkv(x).view(B, T, 3, self.n_heads, d_model // self.n_heads).permute(2, 0, 3, 1, 4)
        )  # each (B, n_heads, T, head_dim)
        if padding is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            visible = ~padding[:, None, None, :]  # (B, 1, 1, T), True where a key may be seen
            if self.causal:
                visible = visible & torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return cast(Tensor, self.output(y.transpose(1, 2).reshape(B, T, d_model)))
