"""DeepNorm, the rule of this course."""

from torch import Tensor

from deepnet_edu.residual.base import RESIDUALS, Place, Residual, Role, State
from deepnet_edu.scaling import deepnorm_constants


@RESIDUALS.register("deepnorm")
class DeepNorm(Residual):
    """DeepNorm: x ← LN(αx + F(x)), with the branch's value, output and feed-forward weights drawn with Xavier gain β.

    α and β come from :func:`deepnet_edu.scaling.deepnorm_constants` for the stack at hand (arXiv 2203.00555, Figure 2).
    β is used at initialisation and never again.
    """

    title = "DeepNorm"
    formula = "x ← LN(αx + F(x))"
    source = "arXiv 2203.00555, Figure 2"
    alpha: Tensor

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        constants = getattr(deepnorm_constants(place.encoder_layers, place.decoder_layers), place.stack)
        self.constant("alpha", constants.alpha)
        self.beta = self.number("beta", constants.beta)
        self.norm = self.norm_layer()

    def write(self, state: State, branch: Tensor) -> State:
        """LN(αx + F(x))."""
        (x,) = state
        return (self.norm(self.alpha * x + branch),)

    def gain(self, role: Role) -> float:
        """1 for query and key, which cannot change the size of the output (Lemma 4.1); β for all other weights."""
        return 1.0 if role in ("query", "key") else self.beta
