"""Pre-LN whose branch, learning rate and ε shrink with the depth: CompleteP and Depth-μP."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from deepnet_edu.residual.base import Signal, State
from deepnet_edu.residual.classic import PreLN
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor


def _hidden(name: str) -> bool:
    """Whether a parameter is of a block: its matrices, biases and norm."""
    return name.startswith(("branch.", "residual.norm."))


class _DepthScaled(PreLN):
    """x ← x + m^(-a)·F(LN(x)), m = n_layers / 2: at the base depth 2 it is Pre-LN; the width is the base's."""

    BASE_LAYERS = 2
    norms = (1, 1)
    exponent: ClassVar[float]
    branch_scale: Tensor

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """m^(-a)."""
        return {"branch_scale": (place.n_layers / cls.BASE_LAYERS) ** -cls.exponent}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.constant("branch_scale")

    @property
    def m(self) -> float:
        """n_layers / 2."""
        return self.place.n_layers / self.BASE_LAYERS

    def write(self, state: State, branch: Tensor) -> State:
        """x + m^(-a)·F(LN(x))."""
        (x,) = state
        return (x + self.branch_scale * branch,)

    def signal(self) -> Signal | None:
        """m^(-a) on the branch."""
        return Signal(branch=self.current("branch_scale"), norm_read=True, norm_finish=True)

    def only_adds(self) -> bool:
        """As DeepScaleLM's β."""
        return False

    def learning_rate_factor(self, name: str) -> float:
        """m^(a-1), for AdamW; 1 for the norm at the end."""
        return float(self.m ** (self.exponent - 1)) if _hidden(name) else 1.0

    def epsilon_factor(self, name: str) -> float:
        """m^(-a); 1 for the norm at the end."""
        return float(self.m**-self.exponent) if _hidden(name) else 1.0


@RESIDUALS.register("complete_p")
class CompleteP(_DepthScaled):
    """CompleteP: x ← x + m^(-1)·F(LN(x)), m = n_layers/2, AdamW's ε × 1/m (arXiv 2505.01618, Table 1).

    Depth-μP with exponent a = 1: the best learning rate stays where it is, at any depth. Width is not scaled here.
    The factors are for matrices, biases and norms of the blocks, not for the last norm, embeddings and head, as in the
    authors' code since it was fixed (arXiv 2512.22382 found that it scaled every ε).
    """

    title = "CompleteP"
    formula = "x ← x + m^(-1)·F(LN(x)), LN at the end"
    source = "arXiv 2505.01618, Table 1; EleutherAI/nanoGPT-mup, branch completep, model.py"
    init = "m = layers/2; learning rate × 1, ε × 1/m"
    architectures = ("decoder",)
    elsewhere = "its table is for a decoder-only language model."
    exponent = 1.0


@RESIDUALS.register("depth_mup")
class DepthMuP(_DepthScaled):
    """Depth-μP: x ← x + m^(-1/2)·F(LN(x)), m = n_layers/2, AdamW's learning rate × m^(-1/2) (arXiv 2310.02244).

    CompleteP with exponent a = 1/2, as that paper's table and code have it (``depth_alpha_exp``); ε × m^(-1/2).
    """

    title = "Depth-μP"
    formula = "x ← x + m^(-1/2)·F(LN(x)), LN at the end"
    source = "arXiv 2310.02244, as in 2505.01618, Table 1; EleutherAI/nanoGPT-mup, branch completep, model.py"
    init = "m = layers/2; learning rate and ε × m^(-1/2)"
    architectures = ("decoder",)
    elsewhere = "the table that we follow is for a decoder-only language model."
    exponent = 0.5
