"""The layers and the stack: attention and feed-forward branches, joined to the stream by a residual rule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepnet_edu.attention import NOTHING, Context, MultiHeadAttention
from deepnet_edu.messages import unknown
from deepnet_edu.residual import (
    RESIDUALS,
    Calibrated,
    Norm,
    Place,
    Residual,
    Role,
    StackName,
    State,
    itself,
    modules_inside,
    places,
    through,
)

Activation = Literal["gelu", "relu", "swiglu"]


class FeedForward(nn.Module):
    """W₂ φ(W₁x + b₁) + b₂, on each token alone.

    φ is GELU or ReLU. SwiGLU has two matrices below: W₂ (SiLU(W_g x) ⊙ W₁x), biases as above (arXiv 2002.05202); they
    are packed in one weight, ffn_in before ffn_gate.

    Args:
        d_model: width of the stream.
        d_ff: width between the matrices.
        activation: ``"gelu"``, ``"relu"`` or ``"swiglu"``.
        rule: the residual rule around this branch, which may put modules of its own inside.
    """

    def __init__(self, d_model: int, d_ff: int, activation: Activation = "gelu", rule: Residual | None = None) -> None:
        super().__init__()
        if activation not in get_args(Activation):
            raise ValueError(unknown("activation", activation, get_args(Activation)))
        self.gated = activation == "swiglu"
        self.activation: Callable[[Tensor], Tensor] = F.relu if activation == "relu" else F.gelu
        self.ffn_in = nn.Linear(d_model, 2 * d_ff if self.gated else d_ff)
        self.ffn_out = nn.Linear(d_ff, d_model)
        self.before = modules_inside(rule, ("ffn_in",), self.ffn_in.out_features)
        self.after = modules_inside(rule, ("hidden",), d_ff)

    def weights(self, of: Callable[[Tensor], Tensor] = itself) -> dict[Role, Tensor]:
        """The weights by role: ffn_in and, with SwiGLU, ffn_gate (d_ff, d_model), ffn_out (d_model, d_ff).

        Args:
            of: what is wanted of each parameter, of the same shape: the parameter itself, or its gradient.
        """
        if not self.gated:
            return {"ffn_in": of(self.ffn_in.weight), "ffn_out": of(self.ffn_out.weight)}
        ffn_in, ffn_gate = of(self.ffn_in.weight).chunk(2)
        return {"ffn_in": ffn_in, "ffn_gate": ffn_gate, "ffn_out": of(self.ffn_out.weight)}

    def forward(self, x: Tensor, context: Context = NOTHING) -> Tensor:
        """(B, T, d_model) → (B, T, d_model). The context does not matter here: no token sees another."""
        h = through(self.before, "ffn_in", self.ffn_in(x))
        if self.gated:
            up, gate = h.chunk(2, dim=-1)
            h = F.silu(gate) * up
        else:
            h = self.activation(h)
        return cast(Tensor, self.ffn_out(through(self.after, "hidden", h)))


class SubLayer(nn.Module):
    """One branch F and the rule that joins it to the stream: the unit that the paper counts.

    Attributes:
        branch: :class:`MultiHeadAttention` or :class:`FeedForward`; has ``weights()`` by role.
        residual: the rule made for this place.
        dropout: share of the branch's features that training sets to 0.
        drop_branch: share of the samples whose branch training leaves out (stochastic depth, arXiv 1603.09382).
    """

    def __init__(
        self,
        branch: MultiHeadAttention | FeedForward,
        residual: Residual,
        dropout: float = 0.0,
        drop_branch: float = 0.0,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.residual = residual
        self.dropout = dropout
        self.drop_branch = drop_branch

    def matrices(self) -> list[nn.Parameter]:
        """The weights of the branch as they are stored, packed ones whole."""
        linear = [module for module in self.branch.children() if isinstance(module, nn.Linear)]
        return [cast(nn.Parameter, module.weight) for module in linear]

    def forward(self, state: State, context: Context = NOTHING) -> State:
        """state ← write(state, F(read(state)))."""
        return self.residual.write(state, self.branched(state, context))

    def branched(self, state: State, context: Context = NOTHING) -> Tensor:
        """F(read(state)), with what training drops: (B, T, d_model)."""
        f = cast(Tensor, self.branch(self.residual.read(state), context))
        if self.training and self.dropout:
            f = F.dropout(f, self.dropout)
        if self.training and self.drop_branch:
            kept = torch.rand(len(f), 1, 1, device=f.device, dtype=f.dtype) >= self.drop_branch
            f = f * kept / (1 - self.drop_branch)
        return f


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention where there is a memory, then feed-forward, each a :class:`SubLayer`."""

    self_attention: SubLayer
    ffn: SubLayer

    def __init__(self, *sublayers: SubLayer) -> None:
        super().__init__()
        for sublayer in sublayers:
            self.add_module(sublayer.residual.place.sublayer, sublayer)

    def forward(self, state: State, context: Context = NOTHING) -> State:
        """The state after all sub-layers."""
        for sublayer in self.children():
            state = sublayer(state, context)
        return state


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
        stochastic_depth: share of samples for which training leaves out the last branch; linearly less below it.
        override: constants of the residual rule that are given by hand.
    """

    d_model: int
    n_heads: int
    d_ff: int
    activation: Activation = "gelu"
    norm: Norm = "layer"
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    override: Mapping[str, float] = field(default_factory=dict)


class Stack(nn.Module):
    """An encoder (each token sees all) or a decoder (each token sees the past): ``n_layers`` independent layers.

    The decoder of a model that has an encoder looks at its output between self-attention and feed-forward.
    With no layers a stack is the identity.

    Args:
        stack: ``"encoder"`` or ``"decoder"``.
        residual: a name in ``RESIDUALS``.
        encoder_layers: N of the whole model.
        decoder_layers: M of the whole model.
        shape: widths, heads, norm, dropout.

    Attributes:
        checkpoint_every: layers whose activations are thrown away together and computed again when the gradient comes
            by; 0 keeps all. About √n_layers needs the least memory.
    """

    def __init__(
        self, stack: StackName, residual: str, *, encoder_layers: int, decoder_layers: int, shape: Shape
    ) -> None:
        super().__init__()
        rule = RESIDUALS[residual]
        n_layers = encoder_layers if stack == "encoder" else decoder_layers
        all_places = list(places(stack, encoder_layers, decoder_layers, shape.norm, shape.override))
        kinds = len(all_places) // n_layers if n_layers else 0
        self.checkpoint_every = 0

        def sublayer(place: Place) -> SubLayer:
            residual = rule(place, shape.d_model)
            branch: MultiHeadAttention | FeedForward
            if place.sublayer == "ffn":
                branch = FeedForward(shape.d_model, shape.d_ff, shape.activation, residual)
            else:
                cross = place.sublayer == "cross_attention"
                branch = MultiHeadAttention(
                    shape.d_model, shape.n_heads, stack == "decoder" and not cross, cross=cross, rule=residual
                )
            return SubLayer(branch, residual, shape.dropout, shape.stochastic_depth * (place.index + 1) / place.count)

        # Each layer is made anew: copies of one layer would add up in amplitude, and no rule survives that.
        self.layers = nn.ModuleList(
            TransformerLayer(*map(sublayer, all_places[kinds * layer : kinds * (layer + 1)]))
            for layer in range(n_layers)
        )

    def sublayers(self) -> list[SubLayer]:
        """All sub-layers from the bottom up."""
        return [module for module in self.modules() if isinstance(module, SubLayer)]

    def forward(
        self,
        x: Tensor,
        padding: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """(B, T, d_model) → (B, T, d_model).

        Args:
            x: (B, T, d_model).
            padding: (B, T) bool, True where a token is padding, or None.
            context: everything that branches need, padding included, where that is more.
        """
        if not self.layers:
            return x
        context = Context(padding) if context is None else context
        bottom, top = cast(TransformerLayer, self.layers[0]), cast(TransformerLayer, self.layers[-1])
        state = bottom.self_attention.residual.start(x)
        every = self.checkpoint_every
        if every and torch.is_grad_enabled() and context.cache is None:
            for first in range(0, len(self.layers), every):
                state = checkpoint(self._run, first, every, context, *state, use_reentrant=False)
        else:
            for layer in self.layers:
                state = layer(state, context)
        return top.ffn.residual.finish(state)

    def _run(self, first: int, count: int, context: Context, *state: Tensor) -> State:
        """The state after ``count`` layers from ``first`` on."""
        for layer in self.layers[first : first + count]:
            state = layer(state, context)
        return state


@torch.no_grad()
def calibrate(stack: Stack, x: Tensor, context: Context = NOTHING) -> Tensor:
    """Set the constants of rules that measure them: one forward pass, each sub-layer before its own ``write``.

    Args:
        stack: its rules, if of a :class:`~deepnet_edu.residual.Calibrated` kind, are changed; others only computed.
        x: (B, T, d_model), the stack's input.
        context: padding and memory.

    Returns:
        The stack's output, (B, T, d_model).
    """
    if not stack.layers:
        return x
    sublayers = stack.sublayers()
    state = sublayers[0].residual.start(x)
    below: float | None = None
    for sublayer in sublayers:
        rule, f = sublayer.residual, sublayer.branched(state, context)
        if isinstance(rule, Calibrated):
            below = rule.calibrate(state, f, below)
        state = rule.write(state, f)
    return sublayers[-1].residual.finish(state)
