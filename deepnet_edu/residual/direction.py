"""Rules in which a branch turns the stream, and its size is the rule's business: NAG and Deep Delta Learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepnet_edu.residual.base import ONE_STACK, Residual, Saved, Signal, State
from deepnet_edu.residual.classic import PreLN
from deepnet_edu.residual.later import torch
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor


@RESIDUALS.register("nag")
class NAG(Residual):
    """NAG: x ← x + ‖x‖·αm·u, u the unit vector along F(x/ρ) less its mean and its part along x (arXiv 2606.16112).

    ρ = ‖x‖/√d, so that the branch sees a vector of size √d. u is orthogonal to x: a branch turns the stream, and its
    length grows by exactly √(1 + α²m²), whatever F is. α is learned, l^(-1/2) at sub-layer l from 1. m in (0, 1) is
    learned and follows the direction: m = (Σ_c p_c·sigmoid(w_c·x/ρ + b_c))^β, p a softmax over C = 32 directions w_c,
    at first 0.02 times normal ones with b = 0, p = 1/C and β = 1, so m is near ½ (Equations 3 to 15, 23 and 24).
    """

    title = "NAG"
    formula = "x ← x + ‖x‖·αm·u, u = unit of F(x/ρ) less its mean and its part along x, LN at the end"
    source = "arXiv 2606.16112, Equations 3 to 24 as others' code quotes and recomputes them"
    init = "α = l^(-1/2), l the sub-layer from 1, learned; m near ½"
    sure = "secondary"
    departs = (
        "C = 32 and β = 1 at first are an implementation's. Its gains of embedding and logits are left out, and an LN "
        "is at the end instead."
    )
    architectures = ONE_STACK
    elsewhere = "the paper has no cross-attention."
    N_DIRECTIONS = 32
    saved = Saved(d=16, more=92)
    own_products = True

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """The first α: l^(-1/2)."""
        return {"alpha": (place.index + 1) ** -0.5}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        C = self.N_DIRECTIONS
        self.alpha = torch.nn.Parameter(torch.tensor([self.constants["alpha"]]))
        self.directions = torch.nn.Parameter(torch.zeros(C, d_model))
        self.bias = torch.nn.Parameter(torch.zeros(C))
        self.mixture = torch.nn.Parameter(torch.zeros(C))
        self.beta = torch.nn.Parameter(torch.ones(1))
        self.final_norm = self.norm_layer() if place.is_last else None

    def read(self, state: State) -> Tensor:
        """x/ρ."""
        return self.d_model**0.5 * torch.nn.functional.normalize(state[0], dim=-1)

    def write(self, state: State, branch: Tensor) -> State:
        """x + ‖x‖·αm·u."""
        (x,) = state
        along = self.read(state)
        f = branch - branch.mean(-1, keepdim=True)
        f = f - (torch.linalg.vecdot(f, along) / self.d_model).unsqueeze(-1) * along
        gates = (along @ self.directions.T + self.bias).sigmoid() @ self.mixture.softmax(0)
        size = torch.linalg.vector_norm(x, dim=-1) * self.alpha * gates**self.beta
        return (x + size.unsqueeze(-1) * torch.nn.functional.normalize(f, dim=-1),)

    def draw(self, generator: torch.Generator) -> None:
        """The directions, N(0, 0.02²)."""
        torch.nn.init.normal_(self.directions, std=0.02, generator=generator)

    def signal(self) -> Signal | None:
        """The first α times ½ of the stream's own size, whatever F is."""
        half = self.constants["alpha"] / 2
        return Signal(branch=half, norm_read=True, norm_branch=True, norm_finish=True, relative=True)

    def finish(self, state: State) -> Tensor:
        """LN(x)."""
        if self.final_norm is None:
            raise RuntimeError(f"Only the last sub-layer of a stack can finish a state of {self.title}.")
        return self.final_norm(state[0])


@RESIDUALS.register("deep_delta")
class DeepDelta(PreLN):
    """Deep Delta Learning: x ← x + β(v - kᵀx)k, k the unit vector along F(LN(x)) (arXiv 2601.00417).

    The stream's part along k is erased by β and v written there: β = 0 leaves x, 1 projects, 2 reflects.
    β = 2·sigmoid(wᵀLN(x) + b) and v = uᵀx + c are learned; at first w = u = 0, b = 0 and c = 2, so β = 1 and v = 2.
    """

    title = "Deep Delta Learning"
    formula = "x ← x + β(v - kᵀx)k, k = unit of F(LN(x)), LN at the end"
    source = "arXiv 2601.00417; yifanzhang-pro/deep-delta-learning, model/DDL-vdim1.py"
    init = "β = 1, v = 2, both learned"
    departs = (
        "The stream is a vector, d_v = 1 in the paper. The authors' v is 2 or a projection of x, by a switch: here the "
        "projection starts as 2; w and u start at 0, theirs at random."
    )
    architectures = ONE_STACK
    elsewhere = "the paper has no cross-attention."
    saved = Saved(d=14, more=20)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.beta_weight = torch.nn.Parameter(torch.zeros(d_model))
        self.beta_bias = torch.nn.Parameter(torch.zeros(1))
        self.value_weight = torch.nn.Parameter(torch.zeros(d_model))
        self.value_bias = torch.nn.Parameter(torch.full((1,), 2.0))

    def write(self, state: State, branch: Tensor) -> State:
        """x + β(v - kᵀx)k."""
        (x,) = state
        k = torch.nn.functional.normalize(branch, dim=-1)
        beta = 2 * (self.read(state) @ self.beta_weight + self.beta_bias).sigmoid()
        value = torch.linalg.vecdot(x, self.value_weight) + self.value_bias
        return (x + (beta * (value - torch.linalg.vecdot(k, x))).unsqueeze(-1) * k,)

    def only_adds(self) -> bool:
        """k follows from the branch."""
        return False
