"""Rules that scale the branch: with no norm at all, or in front of or behind Pre-LN's."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from deepnet_edu.residual.base import ONE_STACK, Residual, Role, Saved, Signal, State
from deepnet_edu.residual.classic import PreLN
from deepnet_edu.residual.later import torch
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor


@RESIDUALS.register("rezero")
class ReZero(Residual):
    """ReZero: x ← x + αF(x), α a learned scalar that starts at 0, and no norm (arXiv 2003.04887, Section 3).

    At the first step the stack is the identity and only α has a gradient. A layer has one α for its two or three
    sub-layers, as ``resweight`` in the authors' code.
    """

    title = "ReZero"
    formula = "x ← x + αF(x)"
    source = "arXiv 2003.04887, Section 3; majumderb/rezero, rezero/transformer/rztx.py"
    init = "α = 0, learned, one a layer"
    per_layer: ClassVar[tuple[str, ...]] = ("alpha",)
    saved = Saved(more=0, more_cross=0)

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """The first α: 0."""
        return {"alpha": 0.0}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.alpha = torch.nn.Parameter(torch.tensor(self.constants["alpha"]))

    def write(self, state: State, branch: Tensor) -> State:
        """x + αF(x)."""
        (x,) = state
        return (x + self.lowest.alpha * branch,)

    def signal(self) -> Signal | None:
        """The first α on the branch, no norm."""
        return Signal(branch=self.constants["alpha"])


@RESIDUALS.register("skip_init")
class SkipInit(ReZero):
    """SkipInit: x ← x + αF(x), α a learned scalar that starts at 1/√L for L sub-layers (arXiv 2002.10444).

    Made for residual networks without batch normalisation, and so with an α for each branch. Its other choice is
    α = 0, as in ReZero.
    """

    title = "SkipInit"
    source = "arXiv 2002.10444, as others quote it"
    init = "α = 1/√L, learned, one a sub-layer"
    sure = "secondary"
    per_layer = ()

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """The first α: 1/√L."""
        return {"alpha": place.count**-0.5}


@RESIDUALS.register("t_fixup")
class TFixup(Residual):
    """T-Fixup: x ← x + F(x), no norm, smaller weights instead (Huang et al., ICML 2020).

    Encoder: value, output and FFN × 0.67·N^(-1/4); decoder: × (9M)^(-1/4); embeddings × (9N)^(-1/4) and (9M)^(-1/4).
    The authors' code has another √2 on the value, which only undoes its library's default. A token starts at
    √½·(9N)^(-1/4), beside a position of variance ½; the authors' at (9N)^(-1/4), beside the same.
    """

    title = "T-Fixup"
    formula = "x ← x + F(x)"
    source = (
        "Huang et al., ICML 2020; layer6ai-labs/T-Fixup, fairseq/modules/transformer_layer.py, models/transformer.py"
    )
    init = "value, output, FFN × 0.67·N^(-1/4) or (9M)^(-1/4); embeddings × (9N)^(-1/4)"
    departs = (
        "With positions that are added, tokens start √½ smaller than the authors': here a token has variance ½ before "
        "the rule's factor and its position the other ½, under every rule."
    )
    architectures = ("encoder_decoder",)
    elsewhere = "its constants are derived for an encoder and the decoder that looks at it."
    saved = Saved(d=6, more=0, d_cross=3, more_cross=0)
    norms = (0, 0)

    def gain(self, role: Role) -> float:
        """1 for query and key."""
        if role in ("query", "key"):
            return 1.0
        N = self.place.n_layers
        return float(0.67 * N ** (-1 / 4) if self.place.stack == "encoder" else (9 * N) ** (-1 / 4))

    def ends_gain(self, role: Role) -> float:
        """(9N)^(-1/4) for embeddings."""
        return float((9 * self.place.n_layers) ** (-1 / 4)) if role == "embedding" else 1.0

    def signal(self) -> Signal | None:
        """The plain sum."""
        return Signal()

    def only_adds(self) -> bool:
        """x + F."""
        return True


@RESIDUALS.register("layer_scale")
class LayerScale(PreLN):
    """LayerScale: x ← x + λ ⊙ F(LN(x)), λ a learned vector that starts small (arXiv 2103.17239).

    λ = 0.1 up to 18 layers, 10⁻⁵ up to 24, 10⁻⁶ deeper. The authors' code has the last two (and 10⁻⁵ for its smallest
    model of 36 layers too); 0.1 is from memory of the paper.
    """

    title = "LayerScale"
    formula = "x ← x + λ ⊙ F(LN(x)), LN at the end"
    source = "arXiv 2103.17239; facebookresearch/deit, cait_models.py"
    init = "λ = 0.1 (≤ 18 layers), 1e-5 (≤ 24), 1e-6"
    sure = "secondary"
    architectures = ("encoder",)
    elsewhere = "its λ by depth were found for image encoders."
    saved = Saved(d=10)

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """The first λ."""
        return {"lambda": 0.1 if place.n_layers <= 18 else 1e-5 if place.n_layers <= 24 else 1e-6}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.scale = torch.nn.Parameter(torch.full((d_model,), self.constants["lambda"]))

    def write(self, state: State, branch: Tensor) -> State:
        """x + λ ⊙ F(LN(x))."""
        (x,) = state
        return (x + self.scale * branch,)

    def signal(self) -> Signal | None:
        """The first λ on the branch."""
        return Signal(branch=self.constants["lambda"], norm_read=True, norm_finish=True)

    def only_adds(self) -> bool:
        """λ's gradient reads the branch."""
        return False


@RESIDUALS.register("layernorm_scaling")
class LayerNormScaling(PreLN):
    """LayerNorm scaling: x ← x + F(LN(x)/√l), l the layer from 1 (arXiv 2502.05795).

    Its authors warn against smaller initial weights on top of it.
    """

    title = "LayerNorm scaling"
    formula = "x ← x + F(LN(x)/√l), LN at the end"
    source = "arXiv 2502.05795; lmsdss/LayerNorm-Scaling, peft_pretraining/modeling_llama.py, LNS"
    init = "1/√l, l the layer from 1"
    architectures = ONE_STACK
    elsewhere = "l counts the layers of one stack, and the paper has no cross-attention."
    norms = (1, 1)
    depth_scale: Tensor

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """1/√l."""
        return {"depth_scale": (place.layer + 1) ** -0.5}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.constant("depth_scale")

    def read(self, state: State) -> Tensor:
        """LN(x)/√l."""
        return super().read(state) * self.depth_scale

    def signal(self) -> Signal | None:
        """The branch sees LN(x)/√l."""
        return Signal(read=self.current("depth_scale"), norm_read=True, norm_finish=True)


@RESIDUALS.register("deepscale_lm")
class DeepScaleLM(PreLN):
    """DeepScaleLM: x ← λx + βF(LN(x)), λ² + β² = 1, β² = 2/L for L sub-layers (arXiv 2403.09635).

    The skip shrinks as the branch grows. Both FFN matrices start with variance √(2/(d_model·d_ff)), which keeps a
    variance of 1 through a ReLU, value and output with 1/d_model: the authors divide by the square root of the
    correlation between tokens, measured on their data, here taken as 1, its bound. Their variance stays 1 that way,
    forward and backward. Ours settles between 0.5 and 0.8 with independent tokens, which attention averages.
    """

    title = "DeepScaleLM"
    formula = "x ← λx + βF(LN(x)), LN at the end"
    source = "arXiv 2403.09635; akhilkedia/TranformersGetStable, megatron/model/utils.py, transformer.py"
    init = "β² = 2/L, λ² = 1 - β²; unit-variance weights for equal tokens"
    departs = (
        "The correlation of tokens in attention's initial weights is 1, not measured on the data: so the variance of "
        "independent tokens does not stay 1."
    )
    architectures = ONE_STACK
    elsewhere = "L counts the sub-layers of one stack."
    norms = (1, 1)
    skip: Tensor
    beta: Tensor

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """β, and λ, which follows from it."""
        beta = place.override.get("beta", (2 / place.count) ** 0.5)
        return {"beta": beta, "skip": max(0.0, 1 - beta**2) ** 0.5}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.constant("beta")
        self.constant("skip")

    def write(self, state: State, branch: Tensor) -> State:
        """λx + βF(LN(x))."""
        (x,) = state
        return (self.skip * x + self.beta * branch,)

    def signal(self) -> Signal | None:
        """λ on the skip, β on the branch."""
        return Signal(skip=self.current("skip"), branch=self.current("beta"), norm_read=True, norm_finish=True)

    def only_adds(self) -> bool:
        """βF keeps β, a tensor, and what is kept last is computed again up to there."""
        return False

    def std(self, role: Role, fan_in: int, fan_out: int) -> float:
        """(2/(fan_in·fan_out))^¼ in the FFN, fan_in^(-½) in attention."""
        return float((2 / (fan_in * fan_out)) ** 0.25 if role.startswith("ffn") else fan_in**-0.5)


@RESIDUALS.register("gpas")
class GPAS(PreLN):
    """GPAS: x ← (x + F(LN(x)))·(1 - SiLU(a)), the factor without a gradient to x (arXiv 2506.22049).

    x ← x - SiLU(a)·stopgrad(x) after each sum: activations shrink on the way up, gradients do not on the way down.
    a is a learned scalar that starts at 0, one a layer for both of its sums (``gpas_block`` in the authors' code).
    """

    title = "GPAS"
    formula = "x ← (x + F(LN(x)))·(1 - SiLU(a)), LN at the end"
    source = "arXiv 2506.22049; dandingsky/GPAS, peft_pretraining/modeling_llama.py, pre_gpas"
    init = "a = 0, learned, one a layer"
    per_layer = ("a",)
    architectures = ONE_STACK
    elsewhere = "the paper has no cross-attention."
    saved = Saved(d=10)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.a = torch.nn.Parameter(torch.zeros(()))

    def write(self, state: State, branch: Tensor) -> State:
        """x + F, less SiLU(a) of it."""
        x = state[0] + branch
        return (x - torch.nn.functional.silu(self.lowest.a) * x.detach(),)

    def signal(self) -> Signal | None:
        """Pre-LN's: the factor is 1 at first."""
        return Signal(norm_read=True, norm_finish=True)

    def only_adds(self) -> bool:
        """a's gradient reads the sum."""
        return False
