"""nGPT: everything of length one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from deepnet_edu.residual.base import BranchSlot, Projected, Role, Saved, State
from deepnet_edu.residual.later import operations, torch
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor, nn


@RESIDUALS.register("ngpt")
class NGPT(Projected):
    """nGPT: h ← norm(h + |α| ⊙ (norm(F(h)) - norm(h))), norm to length 1, α learned from 0.05 (arXiv 2410.01131).

    Every row or column of a weight that meets the stream has length 1, after each step too. Query and key have length
    s, one s for both, softmax's factor is √head_dim, what enters the activation is scaled by s·√d_model, and so are
    logits by s (values of s and of their units as in the authors' code). Nothing decays, and the authors train without
    warm-up (Section 2.6, step 7). Use it with ``position="rotary"`` and ``activation="swiglu"``, as the paper does.
    Ordinary biases stay, at 0 at first.
    """

    title = "nGPT"
    formula = "h ← norm(h + |α| ⊙ (norm(F(h)) - norm(h)))"
    source = "arXiv 2410.01131, Section 2; NVIDIA/ngpt, model.py"
    init = "α = 0.05, learned; all weights of length 1; no weight decay"
    architectures = ("decoder",)
    elsewhere = "it normalises one embedding, one head and causal self-attention."

    saved = Saved(d=16, ff=3, more=10)
    own_products = True

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """The first α."""
        return {"alpha": 0.05}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.unit = d_model**-0.5
        self.alpha = torch.nn.Parameter(torch.full((d_model,), self.unit))
        self.alpha_factor = self.constants["alpha"] / self.unit

    def start(self, x: Tensor) -> State:
        """norm(x)."""
        return (operations.unit(x),)

    def write(self, state: State, branch: Tensor) -> State:
        """norm(h + |α| ⊙ (norm(F) - norm(h)))."""
        (h,) = state  # of length 1 already
        rate = (self.alpha_factor * self.alpha).abs()
        return (
            operations.unit(torch.lerp(h, operations.unit(branch).to(h.dtype), rate)),
        )  # under autocast a branch is narrower

    def score_scale(self, head_dim: int) -> float:
        """√head_dim, since query and key have length 1."""
        return float(head_dim**0.5)

    def inside(self, slot: BranchSlot, width: int, heads: int) -> nn.Module | None:
        """Lengths of query and key, and scales of what enters the activation and of the logits."""
        if slot == "rotated":
            return operations.Scaled((heads, width // heads), 1.0, self.unit, unit_length=True)
        if slot == "ffn_in":
            return operations.Scaled((width,), self.d_model**0.5, 1.0)
        return operations.Scaled((width,), 1.0, self.unit) if slot == "logits" else None

    @classmethod
    def decays(cls, name: str, parameter: nn.Parameter) -> bool:
        """Nothing does: lengths are fixed, and a smaller s is another model."""
        return False

    def project(self, weights: Mapping[Role, Tensor]) -> None:
        """Length 1 along d_model."""
        for role, weight in weights.items():
            weight.copy_(operations.unit(weight, dim=0 if role in ("output", "ffn_out") else 1))
