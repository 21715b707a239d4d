"""The two classic rules, the norm after the sum and the norm inside the branch, and what is between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from deepnet_edu.residual.base import ONE_STACK, Residual, Role, Signal, State
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor


@RESIDUALS.register("post_ln")
class PostLN(Residual):
    """Post-LN: x ← LN(x + F(x)). The rule of the first Transformer (arXiv 1706.03762, Section 3.1)."""

    title = "Post-LN"
    formula = "x ← LN(x + F(x))"
    source = "arXiv 1706.03762, Section 3.1"
    norms = (1, 0)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.norm = self.norm_layer()

    def write(self, state: State, branch: Tensor) -> State:
        """LN(x + F(x))."""
        (x,) = state
        return (self.norm(x + branch),)

    def signal(self) -> Signal | None:
        """One norm, around the sum."""
        return Signal(norm_sum=True)


@RESIDUALS.register("pre_ln")
class PreLN(Residual):
    """Pre-LN: x ← x + F(LN(x)), and one LN after the last sub-layer (arXiv 2002.04745, Section 3)."""

    title = "Pre-LN"
    formula = "x ← x + F(LN(x)), LN at the end"
    source = "arXiv 2002.04745, Section 3, Table 1"
    norms: ClassVar[tuple[int, int] | None] = (1, 1)

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
            raise RuntimeError(f"Only the last sub-layer of a stack can finish a {self.title} state.")
        return self.final_norm(state[0])

    def signal(self) -> Signal | None:
        """One norm, before the branch."""
        return Signal(norm_read=True, norm_finish=True)

    def only_adds(self) -> bool:
        """x + F."""
        return True


@RESIDUALS.register("ds_init")
class DSInit(PostLN):
    """DS-Init: x ← LN(x + F(x)), the weights of layer l smaller by 1/√l (arXiv 1908.11365).

    The paper draws from U(-γ/√l, γ/√l) with γ = √(6/(fan_in + fan_out)); here from the normal distribution of the same
    variance, as for every rule. The authors' code scales the variance by 1/√l instead, which makes γ/l^¼.
    """

    title = "DS-Init"
    formula = "x ← LN(x + F(x)), weights × 1/√l"
    source = (
        "arXiv 1908.11365; bzhangGo/zero, docs/depth_scale_init_and_merged_attention/README.md, models/transformer.py"
    )
    init = "all weights × 1/√l, l the layer from 1"
    departs = (
        "Normal weights of the variance that the paper's uniform ones have; std × 1/√l as in the paper, not l^(-1/4)."
    )

    def gain(self, role: Role) -> float:
        """1/√l."""
        return float((self.place.layer + 1) ** -0.5)


@RESIDUALS.register("mix_ln")
class MixLN(PreLN):
    """Mix-LN: x ← LN(x + F(x)) in the first quarter of the layers, x ← x + F(LN(x)) in the others (arXiv 2412.13795).

    With less than four layers no quarter is left, and the rule is Pre-LN.
    """

    title = "Mix-LN"
    formula = "x ← LN(x + F(x)) in the first quarter of the layers, x ← x + F(LN(x)) above, LN at the end"
    source = "arXiv 2412.13795; pixeli99/MixLN, peft_pretraining/modeling_llama.py"
    init = "a = 1/4 of the layers are Post-LN"
    architectures = ONE_STACK
    elsewhere = "its quarter is of one stack, and the paper has no cross-attention."

    norms = (1, 1)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.is_post = self.in_first_quarter()

    def in_first_quarter(self) -> bool:
        """Whether the layer is."""
        return self.place.layer < int(0.25 * self.place.n_layers)

    def read(self, state: State) -> Tensor:
        """x or LN(x)."""
        return state[0] if self.is_post else super().read(state)

    def write(self, state: State, branch: Tensor) -> State:
        """LN(x + F) or x + F."""
        x = state[0] + branch
        return (self.norm(x) if self.is_post else x,)

    def signal(self) -> Signal | None:
        """Post-LN's or Pre-LN's."""
        is_post = self.in_first_quarter()
        return Signal(norm_read=not is_post, norm_sum=is_post, norm_finish=True)

    def only_adds(self) -> bool:
        """In Pre-LN's layers."""
        return not self.in_first_quarter()
