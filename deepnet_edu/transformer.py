"""The layers and the stack: attention and feed-forward branches, joined to the stream by a residual rule."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.attention import MultiHeadAttention
from deepnet_edu.residual import RESIDUALS, Place, Residual, Role, StackName, State


class FeedForward(nn.Module):
    """W₂ GELU(W₁x + b₁) + b₂, on each token alone.

    Args:
        d_model: width of the stream.
        d_ff: width between the two matrices.
    """

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.ffn_in = nn.Linear(d_model, d_ff)
        self.ffn_out = nn.Linear(d_ff, d_model)

    def weights(self) -> dict[Role, Tensor]:
        """The weights by role: ffn_in (d_ff, d_model), ffn_out (d_model, d_ff)."""
        return {"ffn_in": self.ffn_in.weight, "ffn_out": self.ffn_out.weight}

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, d_model) → (B, T, d_model). Padding does not matter here: no token sees another."""
        return cast(Tensor, self.ffn_out(F.gelu(self.ffn_in(x))))


class SubLayer(nn.Module):
    """One branch F and the rule that joins it to the stream: the unit that the paper counts.

    Attributes:
        branch: :class:`MultiHeadAttention` or :class:`FeedForward`; has ``weights()`` by role.
        residual: the rule made for this place.
    """

    def __init__(self, branch: MultiHeadAttention | FeedForward, residual: Residual) -> None:
        super().__init__()
        self.branch = branch
        self.residual = residual

    def forward(self, state: State, padding: Tensor | None = None) -> State:
        """state ← write(state, F(read(state)))."""
        return self.residual.write(state, self.branch(self.residual.read(state), padding))


class TransformerLayer(nn.Module):
    """Self-attention, then feed-forward, each a :class:`SubLayer`."""

    def __init__(self, attention: SubLayer, ffn: SubLayer) -> None:
        super().__init__()
        self.self_attention = attention
        self.ffn = ffn

    def forward(self, state: State, padding: Tensor | None = None) -> State:
        """The state after both sub-layers."""
        return cast(State, self.ffn(self.self_attention(state, padding), padding))


class Stack(nn.Module):
    """An encoder (each token sees all) or a decoder (each token sees the past): ``n_layers`` independent layers.

    With no layers it is the identity.

    Args:
        stack: ``"encoder"`` or ``"decoder"``.
        residual: a name in ``RESIDUALS``.
        encoder_layers: N of the whole model.
        decoder_layers: M of the whole model.
        d_model: width of the stream.
        n_heads: number of attention heads.
        d_ff: width of the feed-forward branch.
    """

    def __init__(
        self,
        stack: StackName,
        residual: str,
        *,
        encoder_layers: int,
        decoder_layers: int,
        d_model: int,
        n_heads: int,
        d_ff: int,
    ) -> None:
        super().__init__()
        rule = RESIDUALS[residual]
        n_layers = encoder_layers if stack == "encoder" else decoder_layers
        sublayers = ("self_attention", "ffn")
        count = len(sublayers) * n_layers

        def place(layer: int, position: int) -> Place:
            index = len(sublayers) * layer + position
            return Place(stack, layer, sublayers[position], index, count, encoder_layers, decoder_layers)

        # Each layer is made anew: copies of one layer would add up in amplitude, and no rule survives that.
        self.layers = nn.ModuleList(
            TransformerLayer(
                SubLayer(
                    MultiHeadAttention(d_model, n_heads, causal=stack == "decoder"), rule(place(layer, 0), d_model)
                ),
                SubLayer(FeedForward(d_model, d_ff), rule(place(layer, 1), d_model)),
            )
            for layer in range(n_layers)
        )

    def sublayers(self) -> list[SubLayer]:
        """All sub-layers from the bottom up."""
        return [module for module in self.modules() if isinstance(module, SubLayer)]

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, d_model) → (B, T, d_model). padding: (B, T) bool, True where a token is padding, or None."""
        if not self.layers:
            return x
        bottom, top = cast(TransformerLayer, self.layers[0]), cast(TransformerLayer, self.layers[-1])
        state = bottom.self_attention.residual.start(x)
        for layer in self.layers:
            state = layer(state, padding)
        return top.ffn.residual.finish(state)
