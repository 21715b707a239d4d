"""ResiDual: a rule with two streams."""

import torch.nn.functional as F
from torch import Tensor

from deepnet_edu.residual.base import RESIDUALS, Place, Residual, State


@RESIDUALS.register("resi_dual")
class ResiDual(Residual):
    """ResiDual: x ← LN(x + F(x)) beside r ← r + F(x), and y = x + LN(r) at the end (arXiv 2304.14802, Section 3).

    The Post-LN stream x feeds the branches; the second stream r keeps their plain sum, so that its gradient does not
    pass through the norms. Both start as the stack's input.
    """

    title = "ResiDual"
    formula = "x ← LN(x + F(x)), r ← r + F(x), y = x + LN(r)"
    source = "arXiv 2304.14802, Section 3"

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.norm = self.norm_layer()
        self.final_norm = self.norm_layer() if place.is_last else None

    def start(self, x: Tensor) -> State:
        """Both streams start as x."""
        return (x, x)

    def write(self, state: State, branch: Tensor) -> State:
        """LN(x + F(x)), r + F(x)."""
        x, r = state
        return (self.norm(x + branch), r + branch)

    def finish(self, state: State) -> Tensor:
        """x + LN(r)."""
        if self.final_norm is None:
            raise RuntimeError("Only the last sub-layer of a stack can finish a ResiDual state.")
        x, r = state
        return x + self.final_norm(r)

    def stream(self, state: State) -> Tensor:
        """x + LN(r), as if the stack ended here; the norm's own parameters exist only at its end."""
        x, r = state
        return x + F.layer_norm(r, (self.d_model,))
