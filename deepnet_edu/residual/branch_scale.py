"""Rules that scale the branch: with no norm at all, or in front of or behind Pre-LN's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.residual.base import ONE_STACK, RESIDUALS, Residual, Role, Signal, State
from deepnet_edu.residual.classic import PreLN
from deepnet_edu.residual.place import Place


@RESIDUALS.register("rezero")
class ReZero(Residual):
    """ReZero: x ← x + αF(x), α a learned scalar that starts at 0, and no norm (arXiv 2003.04887, Section 3).

    At the first step the stack is the identity and only α has a gradient.
    """

    title = "ReZero"
    formula = "x ← x + αF(x)"
    source = "arXiv 2003.04887, Section 3"
    init = "α = 0, learned"

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.alpha = nn.Parameter(torch.tensor(self.number("alpha", self.first_alpha())))

    def first_alpha(self) -> float:
        """0."""
        return 0.0

    def write(self, state: State, branch: Tensor) -> State:
        """x + αF(x)."""
        (x,) = state
        return (x + self.alpha * branch,)

    def signal(self) -> Signal | None:
        """The first α on the branch, no norm."""
        return Signal(branch=self.constants["alpha"])


@RESIDUALS.register("skip_init")
class SkipInit(ReZero):
    """SkipInit: x ← x + αF(x), α a learned scalar that starts at 1/√L for L sub-layers (arXiv 2002.10444).

    Made for residual networks without batch normalisation. Its other choice, α = 0, is ReZero.
    """

    title = "SkipInit"
    source = "arXiv 2002.10444"
    init = "α = 1/√L, learned"
    sure = "secondary"

    def first_alpha(self) -> float:
        """1/√L."""
        return float(self.place.count**-0.5)


@RESIDUALS.register("t_fixup")
class TFixup(Residual):
    """T-Fixup: x ← x + F(x), no norm, smaller weights instead (Huang et al., ICML 2020).

    Encoder: value, output and FFN × 0.67·N^(-1/4); decoder: × (9M)^(-1/4); embeddings × (9N)^(-1/4) and (9M)^(-1/4).
    The authors' code has another √2 on the value, which only undoes its library's default.
    """

    title = "T-Fixup"
    formula = "x ← x + F(x)"
    source = "Huang et al., ICML 2020"
    init = "value, output, FFN × 0.67·N^(-1/4) or (9M)^(-1/4); embeddings × (9N)^(-1/4)"
    architectures = ("encoder_decoder",)
    elsewhere = "its constants are derived for an encoder and the decoder that looks at it."

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


@RESIDUALS.register("layer_scale")
class LayerScale(PreLN):
    """LayerScale: x ← x + λ ⊙ F(LN(x)), λ a learned vector that starts small (arXiv 2103.17239).

    λ = 0.1 up to 18 layers, 10⁻⁵ up to 24, 10⁻⁶ deeper; the authors' code has 10⁻⁵ for its small 36-layer model too.
    """

    title = "LayerScale"
    formula = "x ← x + λ ⊙ F(LN(x)), LN at the end"
    source = "arXiv 2103.17239"
    init = "λ = 0.1 (≤ 18 layers), 1e-5 (≤ 24), 1e-6"
    architectures = ("encoder",)
    elsewhere = "its λ by depth were found for image encoders."

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        first = 0.1 if place.n_layers <= 18 else 1e-5 if place.n_layers <= 24 else 1e-6
        self.scale = nn.Parameter(torch.full((d_model,), self.number("lambda", first)))

    def write(self, state: State, branch: Tensor) -> State:
        """x + λ ⊙ F(LN(x))."""
        (x,) = state
        return (x + self.scale * branch,)

    def signal(self) -> Signal | None:
        """The first λ on the branch."""
        return Signal(branch=self.constants["lambda"], norm_read=True, norm_finish=True)


@RESIDUALS.register("layernorm_scaling")
class LayerNormScaling(PreLN):
    """LayerNorm scaling: x ← x + F(LN(x)/√l), l the layer from 1 (arXiv 2502.05795).

    Its authors warn against smaller initial weights on top of it.
    """

    title = "LayerNorm scaling"
    formula = "x ← x + F(LN(x)/√l), LN at the end"
    source = "arXiv 2502.05795"
    init = "1/√l, l the layer from 1"
    architectures = ONE_STACK
    elsewhere = "l counts the layers of one stack, and the paper has no cross-attention."
    depth_scale: Tensor

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.constant("depth_scale", (place.layer + 1) ** -0.5)

    def read(self, state: State) -> Tensor:
        """LN(x)/√l."""
        return super().read(state) * self.depth_scale

    def signal(self) -> Signal | None:
        """The branch sees LN(x)/√l."""
        return Signal(read=self.current("depth_scale"), norm_read=True, norm_finish=True)


@RESIDUALS.register("deepscale_lm")
class DeepScaleLM(PreLN):
    """DeepScaleLM: x ← λx + βF(LN(x)), λ² + β² = 1, β² = 2/L for L sub-layers (arXiv 2403.09635).

    The skip shrinks as the branch grows, so that the variance stays 1 forward and backward. Both FFN matrices start
    with variance √(2/(d_model·d_ff)), which keeps it through a ReLU, value and output with 1/d_model: the authors
    divide by the square root of the correlation between tokens, measured on their data, here taken as 1, its bound.
    """

    title = "DeepScaleLM"
    formula = "x ← λx + βF(LN(x)), LN at the end"
    source = "arXiv 2403.09635"
    init = "β² = 2/L, λ² = 1 - β²; unit-variance weights"
    sure = "secondary"
    architectures = ONE_STACK
    elsewhere = "L counts the sub-layers of one stack."
    skip: Tensor
    beta: Tensor

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.constant("beta", (2 / place.count) ** 0.5)
        self.constant("skip", max(0.0, 1 - self.constants["beta"] ** 2) ** 0.5)

    def write(self, state: State, branch: Tensor) -> State:
        """λx + βF(LN(x))."""
        (x,) = state
        return (self.skip * x + self.beta * branch,)

    def signal(self) -> Signal | None:
        """λ on the skip, β on the branch."""
        return Signal(skip=self.current("skip"), branch=self.current("beta"), norm_read=True, norm_finish=True)

    def std(self, role: Role, fan_in: int, fan_out: int) -> float:
        """(2/(fan_in·fan_out))^¼ in the FFN, fan_in^(-½) in attention."""
        return float((2 / (fan_in * fan_out)) ** 0.25 if role.startswith("ffn") else fan_in**-0.5)


@RESIDUALS.register("gpas")
class GPAS(PreLN):
    """GPAS: x ← (x + F(LN(x)))·(1 - SiLU(a)), the factor without a gradient to x (arXiv 2506.22049).

    x ← x - SiLU(a)·stopgrad(x) after each sum: activations shrink on the way up, gradients do not on the way down.
    a is a learned scalar that starts at 0.
    """

    title = "GPAS"
    formula = "x ← (x + F(LN(x)))·(1 - SiLU(a)), LN at the end"
    source = "arXiv 2506.22049"
    init = "a = 0, learned"
    architectures = ONE_STACK
    elsewhere = "the paper has no cross-attention."

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.a = nn.Parameter(torch.zeros(()))

    def write(self, state: State, branch: Tensor) -> State:
        """x + F, less SiLU(a) of it."""
        x = state[0] + branch
        return (x - F.silu(self.a) * x.detach(),)

    def signal(self) -> Signal | None:
        """Pre-LN's: the factor is 1 at first."""
        return Signal(norm_read=True, norm_finish=True)


class _DepthScaled(PreLN):
    """x ← x + m^(-a)·F(LN(x)), m = n_layers / 2: at the base depth 2 it is Pre-LN; the width is the base's."""

    BASE_LAYERS = 2
    exponent: float
    branch_scale: Tensor

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.m = place.n_layers / self.BASE_LAYERS
        self.constant("branch_scale", self.m**-self.exponent)

    def write(self, state: State, branch: Tensor) -> State:
        """x + m^(-a)·F(LN(x))."""
        (x,) = state
        return (x + self.branch_scale * branch,)

    def signal(self) -> Signal | None:
        """m^(-a) on the branch."""
        return Signal(branch=self.current("branch_scale"), norm_read=True, norm_finish=True)

    def learning_rate_factor(self, matrix: bool) -> float:
        """m^(a-1), for AdamW."""
        return float(self.m ** (self.exponent - 1))

    def epsilon_factor(self) -> float:
        """m^(-a)."""
        return float(self.m**-self.exponent)


@RESIDUALS.register("complete_p")
class CompleteP(_DepthScaled):
    """CompleteP: x ← x + m^(-1)·F(LN(x)), m = n_layers/2, AdamW's ε × 1/m (arXiv 2505.01618, Table 1).

    Depth-μP with exponent a = 1: the best learning rate stays where it is, at any depth. Width is not scaled here.
    """

    title = "CompleteP"
    formula = "x ← x + m^(-1)·F(LN(x)), LN at the end"
    source = "arXiv 2505.01618, Table 1"
    init = "m = layers/2; learning rate × 1, ε × 1/m"
    architectures = ("decoder",)
    elsewhere = "its table is for a decoder-only language model."
    exponent = 1.0


@RESIDUALS.register("depth_mup")
class DepthMuP(_DepthScaled):
    """Depth-μP: x ← x + m^(-1/2)·F(LN(x)), m = n_layers/2, AdamW's learning rate × m^(-1/2) (arXiv 2310.02244).

    CompleteP with exponent a = 1/2; ε × m^(-1/2).
    """

    title = "Depth-μP"
    formula = "x ← x + m^(-1/2)·F(LN(x)), LN at the end"
    source = "arXiv 2310.02244"
    init = "m = layers/2; learning rate and ε × m^(-1/2)"
    architectures = ("decoder",)
    elsewhere = "the table that we follow is for a decoder-only language model."
    exponent = 0.5
