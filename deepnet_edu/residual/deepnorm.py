"""DeepNorm, the rule of this course, and its relatives: a constant on the skip, inside the norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepnet_edu.residual.base import ONE_STACK, Residual, Role, Saved, Signal, State
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS
from deepnet_edu.scaling import deepnorm_constants

if TYPE_CHECKING:
    from torch import Tensor


@RESIDUALS.register("deepnorm")
class DeepNorm(Residual):
    """DeepNorm: x ← LN(αx + F(x)), with the branch's value, output and feed-forward weights drawn with Xavier gain β.

    α and β come from :func:`deepnet_edu.scaling.deepnorm_constants` for the stack at hand (arXiv 2203.00555, Figure 2).
    β is used at initialisation and never again.
    """

    title = "DeepNorm"
    formula = "x ← LN(αx + F(x))"
    source = "arXiv 2203.00555, Figure 2, Appendix B"
    init = "gain β of value, output and FFN"
    norms = (1, 0)
    on_skip = "alpha"
    alpha: Tensor

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """α and β of this stack, from the depths of the whole model."""
        constants = getattr(deepnorm_constants(place.encoder_layers, place.decoder_layers), place.stack)
        return {"alpha": constants.alpha, "beta": constants.beta}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.constant("alpha")
        self.norm = self.norm_layer()

    def write(self, state: State, branch: Tensor) -> State:
        """LN(αx + F(x))."""
        (x,) = state
        return (self.norm(self.alpha * x + branch),)

    def signal(self) -> Signal | None:
        """α on the skip, the norm around the sum."""
        return Signal(skip=self.current("alpha"), norm_sum=True)

    def gain(self, role: Role) -> float:
        """1 for query and key, which cannot change the size of the output (Lemma 4.1); β for all other weights."""
        return 1.0 if role in ("query", "key") else self.constants["beta"]


@RESIDUALS.register("deepnorm_glm")
class DeepNormGLM(DeepNorm):
    """GLM-130B's constants: x ← LN(αx + F(x)) with α = (2N)^(1/2) and β = (2N)^(-1/2) (arXiv 2210.02414).

    Called DeepNorm there, but with twice the paper's exponents. Under Adam-like steps the sum of Theorem 4.2 then is
    √2 at every depth, where DeepNorm's own constants give √(2N). GLM-130B's code also normalises the stack's input.
    """

    title = "DeepNorm (GLM-130B)"
    source = "arXiv 2210.02414; THUDM/SwissArmyTransformer, sat/model/official/glm130B_model.py"
    departs = (
        "GLM-130B has one more norm, at the stack's input. It is left out so that the rule differs from DeepNorm by "
        "two constants alone; the input has variance 1 here anyway."
    )
    architectures = ONE_STACK
    elsewhere = "GLM-130B is one stack of N layers, and says nothing of two."

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """(2N)^(1/2), (2N)^(-1/2)."""
        N = place.n_layers
        return {"alpha": (2 * N) ** (1 / 2), "beta": (2 * N) ** (-1 / 2)}


@RESIDUALS.register("keel")
class Keel(Residual):
    """Keel: x ← LN(αx + F(LN(x))), α = L, the number of sub-layers (arXiv 2601.19895, Section 3.1).

    The bottom is another: the first attention adds plainly, x ← x + F(LN(x)), and the first feed-forward has α = 1. The
    paper's norms have a gain and no bias: ``norm="rms"``.
    """

    title = "Keel"
    formula = "x ← LN(αx + F(LN(x)))"
    source = "arXiv 2601.19895, version 2, Section 3.1"
    init = "α = L sub-layers, 1 in the first layer, whose attention has no outer LN"
    departs = "The paper has decoders only: an encoder is ours. LN is what norm says, and the paper's is norm='rms'."
    architectures = ONE_STACK
    elsewhere = "α = L counts the sub-layers of one stack."
    saved = Saved(d=10, more=8)
    on_skip = "alpha"
    alpha: Tensor

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """α = L."""
        return {"alpha": place.count}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.constant("alpha")
        self.bottom = place.layer == 0
        self.branch_norm = self.norm_layer()
        self.norm = None if place.is_first else self.norm_layer()

    def read(self, state: State) -> Tensor:
        """LN(x)."""
        return self.branch_norm(state[0])

    def write(self, state: State, branch: Tensor) -> State:
        """LN(αx + F(LN(x))), at the very bottom x + F(LN(x))."""
        (x,) = state
        x = (x if self.bottom else self.alpha * x) + branch
        return (x if self.norm is None else self.norm(x),)

    def signal(self) -> Signal | None:
        """As DeepNorm's, with a norm before the branch too; at the bottom no α, and no norm around attention's sum."""
        skip = 1.0 if self.place.layer == 0 else self.current("alpha")
        return Signal(skip=skip, norm_read=True, norm_sum=not self.place.is_first)
