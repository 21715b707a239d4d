"""Rules that remember what earlier layers gave: B2T, SpanNorm and DLCL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepnet_edu.residual.base import ONE_STACK, Residual, Role, Saved, State
from deepnet_edu.residual.later import operations, torch
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor, nn


@RESIDUALS.register("b2t")
class B2T(Residual):
    """B2T: x' ← LN(x + F(x)), and after the FFN x ← LN(x + x' + FFN(x')), x the layer's input (arXiv 2206.00330).

    A skip from the bottom of a layer to its last norm, around the others. The state is (x', x).
    """

    title = "B2T"
    formula = "x' ← LN(x + F(x)), and after the FFN x ← LN(x + x' + FFN(x'))"
    source = "arXiv 2206.00330; takase/b2t_connection, fairseq/modules/transformer_layer.py"
    init = "weights × layers^(-1/2)"
    saved = Saved(state=2)
    norms = (1, 0)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.norm = self.norm_layer()

    def start(self, x: Tensor) -> State:
        """(x, x)."""
        return (x, x)

    def write(self, state: State, branch: Tensor) -> State:
        """Attention keeps the layer's input beside its output; the FFN adds it and starts a new layer."""
        x, bottom = state
        if self.place.sublayer != "ffn":
            return (self.norm(x + branch), bottom)
        y = self.norm(bottom + x + branch)
        return (y, y)

    def gain(self, role: Role) -> float:
        """n_layers^(-1/2)."""
        return float(self.place.n_layers**-0.5)


@RESIDUALS.register("span_norm")
class SpanNorm(Residual):
    """SpanNorm: y ← LN(x + Attn(x)), and after it x ← LN(x + FFN(y)), x the layer's input (arXiv 2601.22580).

    The FFN reads attention's output y and is added to the layer's input: its skip spans the layer. The lowest attention
    reads LN(x), its skip stays x. Output matrices start 1/√L as large, L layers. The state is (y, x).
    """

    title = "SpanNorm"
    formula = "y ← LN(x + Attn(x)), x ← LN(x + FFN(y))"
    source = "arXiv 2601.22580, its Equations 5 to 8 as others' code quotes them"
    init = "output, FFN's last × 1/√L, L layers"
    sure = "secondary"
    architectures = ONE_STACK
    elsewhere = "the paper has no cross-attention."
    saved = Saved(state=2)
    norms = (1, 1)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.norm = self.norm_layer()
        self.first_norm = self.norm_layer() if place.is_first else None

    def start(self, x: Tensor) -> State:
        """(x, x)."""
        return (x, x)

    def read(self, state: State) -> Tensor:
        """y, which is x at the bottom of a layer; LN(x) at the bottom of the stack."""
        return state[0] if self.first_norm is None else self.first_norm(state[0])

    def write(self, state: State, branch: Tensor) -> State:
        """LN(x + F): beside x after attention, in its place after the FFN."""
        _, x = state
        y = self.norm(x + branch)
        return (y, y if self.place.sublayer == "ffn" else x)

    def gain(self, role: Role) -> float:
        """1/√L for the last matrix of a branch."""
        return float(self.place.n_layers**-0.5) if role in ("output", "ffn_out") else 1.0


@RESIDUALS.register("dlcl")
class DLCL(Residual):
    """DLCL: x_{l+1} = Σ_{k ≤ l} W_{lk} LN(y_k), y_k what layer k gave, W_{lk} = 1/(l+1) at first (arXiv 1906.01787).

    y_0, the stack's input, is taken as it is; the first layer reads W_{00} y_0. Inside a layer x ← x + F(LN(x)). What
    the last layer gives is mixed too, and LN(x) leaves the stack. The authors' LN on the embedding, off by default, is
    left out. The state is x, y_0 and all LN(y_k) so far: time grows with the square of the depth.
    """

    title = "DLCL"
    formula = "x_{l+1} = Σ_{k ≤ l} W_{lk} LN(y_k), x ← x + F(LN(x)) inside a layer, LN at the end"
    source = "arXiv 1906.01787; wangqiangneu/dlcl, fairseq/modules/layer_history.py, fairseq/models/dlcl_transformer.py"
    init = "W_{lk} = 1/(l+1), learned; y_0 without LN"
    growing = True
    saved = Saved(d=10, more=6, growth=1)
    own_products = True

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.norm = self.norm_layer()
        self.first_weight = torch.nn.Parameter(torch.ones(1)) if place.is_first else None
        self.final_norm = self.norm_layer() if place.is_last else None
        self.history_norm: nn.Module | None = None
        if place.sublayer == "ffn":
            known = place.layer + 2  # the input and the layers up to this one
            self.history_norm = self.norm_layer()
            self.history_weight = torch.nn.Parameter(torch.full((known,), 1 / known))

    def start(self, x: Tensor) -> State:
        """W₀₀y₀, the first layer's input, and y₀, the history."""
        return (x if self.first_weight is None else self.first_weight * x, x)

    def read(self, state: State) -> Tensor:
        """LN(x)."""
        return self.norm(state[0])

    def write(self, state: State, branch: Tensor) -> State:
        """x + F inside a layer; at its end the weighted sum of all layers so far."""
        x, *history = state
        x = x + branch
        if self.history_norm is None:
            return (x, *history)
        history.append(self.history_norm(x))
        return (operations.weighted_sum(self.history_weight, tuple(history)), *history)

    def finish(self, state: State) -> Tensor:
        """LN(x)."""
        if self.final_norm is None:
            raise RuntimeError("Only the last sub-layer of a stack can finish a DLCL state.")
        return self.final_norm(state[0])
