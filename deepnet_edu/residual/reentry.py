"""Rules that bring the stack's input in again at every layer: x₀ skips and Parcae's loop."""

from __future__ import annotations

from math import exp, log
from typing import TYPE_CHECKING

from deepnet_edu.residual.base import Role, Saved, State
from deepnet_edu.residual.classic import PreLN
from deepnet_edu.residual.later import torch
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor


class _Reentry(PreLN):
    """Pre-LN on the state (x, e); before a layer's attention x becomes ``entered(x, e)``, e from the stack's input."""

    architectures = ("decoder",)

    def entered(self, x: Tensor, e: Tensor) -> Tensor:
        """What a layer starts from."""
        raise NotImplementedError

    def start(self, x: Tensor) -> State:
        """(x, x)."""
        return (x, x)

    def read(self, state: State) -> Tensor:
        """LN of what the layer starts from, or of x within a layer."""
        return self.norm(self._before(state))

    def write(self, state: State, branch: Tensor) -> State:
        """The same plus F."""
        return (self._before(state) + branch, state[1])

    def only_adds(self) -> bool:
        """Whether the rule only adds; what it adds to is kept anyway."""
        return True

    def _before(self, state: State) -> Tensor:
        x, e = state
        return self.entered(x, e) if self.place.sublayer == "self_attention" else x


@RESIDUALS.register("x0_skips")
class X0Skips(_Reentry):
    """x₀ skips: x ← λx + μx₀ before each layer, x₀ the stack's input, then x ← x + F(LN(x)) (karpathy/nanochat).

    λ and μ are learned, one a layer, from 1.15 down to 1.05 and from 0.20 down to 0.05 at first. Output projections and
    the FFN's last matrices start at 0.
    """

    title = "x₀ skips"
    formula = "x ← λx + μx₀ before each layer, x ← x + F(LN(x)), LN at the end"
    source = "karpathy/nanochat, nanochat/gpt.py, resid_lambdas and x0_lambdas"
    init = "λ from 1.15 to 1.05, μ from 0.20 to 0.05; output, FFN's last = 0"
    departs = "nanochat's norms of the embedding and of query and key, and its value embeddings, are left out."
    elsewhere = "nanochat is one decoder."
    saved = Saved(d=9, state=2)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        if place.sublayer == "self_attention":
            depth = place.layer / max(1, place.n_layers - 1)
            self.skip = torch.nn.Parameter(torch.tensor([1.15 - 0.10 * depth]))
            self.first = torch.nn.Parameter(torch.tensor([0.20 - 0.15 * depth]))

    def entered(self, x: Tensor, e: Tensor) -> Tensor:
        """λx + μx₀."""
        return self.skip * x + self.first * e

    def gain(self, role: Role) -> float:
        """0 for the last matrix of a branch."""
        return 0.0 if role in ("output", "ffn_out") else 1.0


@RESIDUALS.register("parcae")
class Parcae(_Reentry):
    """Parcae: h ← Āh + B̄e before each layer, e = LN(input), then h ← h + F(LN(h)), a decoder (arXiv 2604.12946).

    A loop over one layer: ``clones=True`` makes all layers the same one, and then this is h ← Āh + B̄e + R(h, e).
    Ā = exp(-Δ·exp(a)), diagonal, below 1 whatever is learned, so that the loop forgets; B̄ = ΔB. At first a = 0, B = 1
    and Ā = √(1/5).
    """

    title = "Parcae"
    formula = "h ← Āh + B̄e before each layer, e = LN(input), h ← h + F(LN(h)), LN at the end"
    source = "arXiv 2604.12946, its abstract and code as others have them, parcae_lm/modules/injection.py"
    init = "Ā = √(1/5) = exp(-Δ), B̄ = Δ"
    sure = "secondary"
    departs = (
        "The loop is over one layer of attention and FFN, with no layers of their own below and above it; it starts "
        "from h = e, and its length is fixed. B̄ is diagonal; the authors' is a matrix that starts as the identity."
    )
    elsewhere = "the paper's loop is a decoder."
    saved = Saved(d=9, state=2)
    at_the_ends = ("input_norm", "final_norm")

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.input_norm = self.norm_layer() if place.is_first else None
        if place.sublayer == "self_attention":
            step = 0.5 * log(5)  # exp(-step) is √(1/5)
            self.a = torch.nn.Parameter(torch.zeros(d_model))
            self.step = torch.nn.Parameter(torch.full((d_model,), log(exp(step) - 1)))  # softplus gives the step
            self.b = torch.nn.Parameter(torch.ones(d_model))

    def start(self, x: Tensor) -> State:
        """(e, e)."""
        e = x if self.input_norm is None else self.input_norm(x)
        return (e, e)

    def entered(self, x: Tensor, e: Tensor) -> Tensor:
        """Āh + B̄e."""
        step = torch.nn.functional.softplus(self.step)
        return (-step * self.a.exp()).exp() * x + step * self.b * e
