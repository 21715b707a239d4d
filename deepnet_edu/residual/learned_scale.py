"""Post-LN whose scale is measured or scheduled: Admin and BranchNorm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepnet_edu.residual.base import Calibrated, Scheduled, Signal, State
from deepnet_edu.residual.later import torch
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor


@RESIDUALS.register("admin")
class Admin(Calibrated):
    """Admin: x ← LN(ω ⊙ x + F(x)), ω a learned vector that starts as measured (arXiv 2004.08249).

    ω₁ = 1 and ω_{i+1}² = Var[ω_i x] + Var[F_i] = 1 + Σ_{j ≤ i} Var[F_j], from one forward pass before training, in each
    stack from its bottom up.
    """

    title = "Admin"
    formula = "x ← LN(ω ⊙ x + F(x))"
    source = "arXiv 2004.08249; LiyuanLucasLiu/Transformer-Clinic, fairseq/fairseq/modules/transformer_layer.py"
    init = "ω² = 1 + Σ Var F below, measured in one pass"
    departs = "The pass that measures has no dropout; the authors' has."

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.omega = torch.nn.Parameter(torch.ones(d_model))
        self.norm = self.norm_layer()

    def calibrate(self, state: State, branch: Tensor, below: float | None) -> float:
        """Set ω = √below; returns Var[ωx] + Var[F]."""
        (x,) = state
        with torch.no_grad():
            self.omega.fill_(1.0 if below is None else below**0.5)
            return float((self.omega * x).var() + branch.var())

    def write(self, state: State, branch: Tensor) -> State:
        """LN(ω ⊙ x + F(x))."""
        (x,) = state
        return (self.norm(self.omega * x + branch),)


@RESIDUALS.register("branch_norm")
class BranchNorm(Scheduled):
    """BranchNorm: x ← LN(x + aF(x)), a = min(1, t/T) at training step t = 1, 2, … (arXiv 2305.02790).

    T = 4,000. Only the abstract was read, and others' notes: they name the formula and a largest step T. That a grows
    in proportion to t, and to 1 at T = 4,000, is from memory.
    """

    title = "BranchNorm"
    formula = "x ← LN(x + aF(x))"
    source = "arXiv 2305.02790, its abstract; the formula as others quote it, the schedule from memory"
    init = "a = min(1, t/4000) at step t"
    sure = "secondary"
    T = 4000
    norms = (1, 0)
    a: Tensor

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        # A state_dict keeps it: it follows from how long the model was trained.
        self.register_buffer("a", torch.tensor(1 / self.T))
        self.norm = self.norm_layer()

    def at_step(self, step: int) -> None:
        """a = min(1, (step + 1)/T)."""
        self.a.fill_(min(1.0, (step + 1) / self.T))

    def write(self, state: State, branch: Tensor) -> State:
        """LN(x + aF(x))."""
        (x,) = state
        return (self.norm(x + self.a * branch),)

    def signal(self) -> Signal | None:
        """a on the branch, as at the first step."""
        return Signal(branch=1 / self.T, norm_sum=True)
