"""The two classic rules: the norm after the sum, and the norm inside the branch."""

from torch import Tensor

from deepnet_edu.residual.base import RESIDUALS, Place, Residual, State


@RESIDUALS.register("post_ln")
class PostLN(Residual):
    """Post-LN: x ← LN(x + F(x)). The rule of the first Transformer (arXiv 1706.03762, Section 3.1)."""

    title = "Post-LN"
    formula = "x ← LN(x + F(x))"
    source = "arXiv 1706.03762, Section 3.1"

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.norm = self.norm_layer()

    def write(self, state: State, branch: Tensor) -> State:
        """LN(x + F(x))."""
        (x,) = state
        return (self.norm(x + branch),)


@RESIDUALS.register("pre_ln")
class PreLN(Residual):
    """Pre-LN: x ← x + F(LN(x)), and one LN after the last sub-layer (arXiv 2002.04745, Section 3)."""

    title = "Pre-LN"
    formula = "x ← x + F(LN(x)), LN at the end"
    source = "arXiv 2002.04745, Section 3"

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.norm = self.norm_layer()
        self.final_norm = self.norm_layer() if place.is_last else None

    def read(self, state: State) -> Tensor:
        """LN(x): the branch sees a normalised input, the skip keeps the raw x."""
        (x,) = state
        return self.norm(x)

    def finish(self, state: State) -> Tensor:
        """LN(x) of the sum of all branches."""
        if self.final_norm is None:
            raise RuntimeError("Only the last sub-layer of a stack can finish a Pre-LN state.")
        return self.final_norm(state[0])
