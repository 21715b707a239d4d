"""The layers: attention and feed-forward branches, joined to the stream by a residual rule."""

from collections.abc import Callable
from typing import cast, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.messages import unknown
from deepnet_edu.model.attention import NOTHING, Context, MultiHeadAttention
from deepnet_edu.model.fused.join import Join, joined, last
from deepnet_edu.model.shape import GATES, Activation
from deepnet_edu.model.stream import narrowed, widened
from deepnet_edu.residual import Residual, Role, State, itself, modules_inside, through

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


class FeedForward(nn.Module):
    """W₂ φ(W₁x + b₁) + b₂, on each token alone.

    φ is GELU or ReLU. SwiGLU has two matrices below: W₂ (SiLU(W_g x) ⊙ W₁x), biases as above (arXiv 2002.05202); they
    are packed in one weight, ffn_in before ffn_gate. GEGLU is the same with GELU for SiLU.

    Args:
        d_model: width of the stream.
        d_ff: width between the matrices.
        activation: ``"gelu"``, ``"relu"``, ``"swiglu"`` or ``"geglu"``.
        rule: the residual rule around this branch, which may put modules of its own inside.
        bias: whether the matrices add one.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: Activation = "gelu",
        rule: Residual | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if activation not in get_args(Activation):
            raise ValueError(unknown("activation", activation, get_args(Activation)))
        self.gated = activation in GATES
        self.activation = FUNCTIONS[GATES.get(activation, activation)]
        self.ffn_in = nn.Linear(d_model, 2 * d_ff if self.gated else d_ff, bias=bias)
        self.ffn_out = nn.Linear(d_ff, d_model, bias=bias)
        self.before = modules_inside(rule, ("ffn_in",), self.ffn_in.out_features)
        self.after = modules_inside(rule, ("hidden",), d_ff)

    @property
    def last(self) -> nn.Linear:
        """The matrix that ends the branch."""
        return self.ffn_out

    def weights(self, of: Callable[[Tensor], Tensor] = itself) -> dict[Role, Tensor]:
        """The weights by role: ffn_in and, with a gate, ffn_gate (d_ff, d_model), ffn_out (d_model, d_ff).

        Args:
            of: what is wanted of each parameter, of the same shape: the parameter itself, or its gradient.
        """
        if not self.gated:
            return {"ffn_in": of(self.ffn_in.weight), "ffn_out": of(self.ffn_out.weight)}
        ffn_in, ffn_gate = of(self.ffn_in.weight).chunk(2)
        return {"ffn_in": ffn_in, "ffn_gate": ffn_gate, "ffn_out": of(self.ffn_out.weight)}

    def forward(self, x: Tensor, context: Context = NOTHING) -> Tensor:
        """(B, T, d_model) → (B, T, d_model). Of the context only ``bare`` matters: no token sees another."""
        h = through(self.before, "ffn_in", self.ffn_in(x))
        if self.gated:
            up, gate = h.chunk(2, dim=-1)
            h = self.activation(gate) * up
        else:
            h = self.activation(h)
        return last(self.ffn_out, through(self.after, "hidden", h), context.bare)


class SubLayer(nn.Module):
    """One branch F and the rule that joins it to the stream: the unit that the paper counts.

    Attributes:
        branch: :class:`MultiHeadAttention` or :class:`FeedForward`; has ``weights()`` by role.
        residual: the rule made for this place.
        dropout: share of the branch's features that training sets to 0.
        join: how one kernel may do what the rule's ``write`` does, or None: see :mod:`deepnet_edu.model.fused`.
    """

    join: Join | None

    def __init__(
        self,
        branch: MultiHeadAttention | FeedForward,
        residual: Residual,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.residual = residual
        self.dropout = dropout
        self.join = None

    def matrices(self) -> list[nn.Parameter]:
        """The weights of the branch as they are stored, packed ones whole."""
        linear = [module for module in self.branch.children() if isinstance(module, nn.Linear)]
        return [cast(nn.Parameter, module.weight) for module in linear]

    def forward(self, state: State, context: Context = NOTHING) -> State:
        """state ← write(state, F(read(state)))."""
        if context.fused is not None and (self.join is not None or len(state) > 1):
            return joined(self, state, context)
        state = self.residual.enter(widened(state, context.half))
        return narrowed(self.residual.write(state, self.branched(state, context)), context.half)

    def branched(self, state: State, context: Context = NOTHING) -> Tensor:
        """F(read(state)), with what training drops: (B, T, d_model)."""
        f = cast(Tensor, self.branch(self.residual.read(state), context))
        if self.training and self.dropout:
            f = F.dropout(f, self.dropout)
        return f


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention where there is a memory, then feed-forward, each a :class:`SubLayer`.

    What a rule has once per layer belongs to the lowest sub-layer (:meth:`~deepnet_edu.residual.Residual.share`).
    """

    self_attention: SubLayer
    ffn: SubLayer

    def __init__(self, *sublayers: SubLayer) -> None:
        super().__init__()
        for sublayer in sublayers:
            self.add_module(sublayer.residual.place.sublayer, sublayer)
        for other in sublayers[1:]:
            other.residual.share(sublayers[0].residual)

    def forward(self, state: State, context: Context = NOTHING) -> State:
        """The state after all sub-layers."""
        for sublayer in self.children():
            state = sublayer(state, context)
        return state
