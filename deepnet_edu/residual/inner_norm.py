"""Rules with a norm inside the branch: before the last matrix, after it, or on query, key and value."""

from __future__ import annotations

from math import log, sqrt
from typing import TYPE_CHECKING

from deepnet_edu.residual.base import ONE_STACK, BranchSlot, Residual, Role, Saved, Signal, State
from deepnet_edu.residual.classic import PreLN
from deepnet_edu.residual.later import operations, torch
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor, nn


@RESIDUALS.register("normformer")
class NormFormer(PreLN):
    """NormFormer: x ← x + LN(Attn(LN(x))), x ← x + W₂LN(φ(W₁LN(x))), LN at the end (arXiv 2110.09456).

    Each attention head also has a learned factor, 1 at first, before the output projection, as the paper has it; the
    authors' code multiplies after that projection, when a feature no longer belongs to one head.
    """

    title = "NormFormer"
    formula = "x ← x + LN(Attn(LN(x))), x ← x + W₂LN(φ(W₁LN(x))), LN at the end"
    source = "arXiv 2110.09456, as others quote it; facebookresearch/fairseq, its layer, as microsoft/ResiDual has it"
    init = "head factors 1, learned"
    sure = "secondary"
    departs = "The paper's learned scale on the skip, for small models only, is left out."
    architectures = ONE_STACK
    elsewhere = "the paper has no cross-attention."
    saved = Saved(d=10, ff=3, more=8)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.output_norm = None if place.sublayer == "ffn" else self.norm_layer()

    def write(self, state: State, branch: Tensor) -> State:
        """x + LN(F) behind attention, x + F behind the FFN."""
        (x,) = state
        return (x + (branch if self.output_norm is None else self.output_norm(branch)),)

    def inside(self, slot: BranchSlot, width: int, heads: int) -> nn.Module | None:
        """Head factors, and the norm behind the activation."""
        return {"mixed": lambda: operations.HeadScale(heads), "hidden": lambda: self.norm_layer(width)}.get(
            slot, lambda: None
        )()

    def signal(self) -> Signal | None:
        """A norm behind attention, and one inside the FFN."""
        ffn = self.place.sublayer == "ffn"
        return Signal(norm_read=True, norm_inside=ffn, norm_branch=not ffn, norm_finish=True)

    def only_adds(self) -> bool:
        """Behind the FFN."""
        return self.place.sublayer == "ffn"


@RESIDUALS.register("sub_ln")
class SubLN(PreLN):
    """Sub-LN: x ← x + W₂LN(φ(W₁LN(x))), self-attention likewise, LN at the end (Magneto, arXiv 2210.06423).

    Cross-attention has the first norm only. Value, output and FFN are drawn with gain γ: √ln(2N) in a single stack; in
    an encoder-decoder √(⅓ ln(3M) ln(2N)) in the encoder, √ln(3M) in the decoder. Query, key and cross-attention keep 1.
    """

    title = "Sub-LN"
    formula = "x ← x + W₂LN(φ(W₁LN(x))), LN at the end"
    source = "arXiv 2210.06423, Sections 2 and 3.1; TorchScale 0.3.0, component/multihead_attention.py"
    init = "gain γ = √ln(2N) of value, output and FFN"
    saved = Saved(d=9, ff=3, more=8)

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """γ."""
        N, M = place.encoder_layers, place.decoder_layers
        if place.architecture != "encoder_decoder":
            squared = log(2 * place.n_layers)
        else:
            squared = log(3 * M) * log(2 * N) / 3 if place.stack == "encoder" else log(3 * M)
        return {"gamma": sqrt(squared)}

    def gain(self, role: Role) -> float:
        """γ, 1 for query, key and cross-attention."""
        cross = self.place.sublayer == "cross_attention"
        return 1.0 if role in ("query", "key") or cross else self.constants["gamma"]

    def inside(self, slot: BranchSlot, width: int, heads: int) -> nn.Module | None:
        """A norm before the last matrix of each branch but cross-attention."""
        cross = self.place.sublayer == "cross_attention"
        return self.norm_layer(width) if slot in ("mixed", "hidden") and not cross else None

    def signal(self) -> Signal | None:
        """Norms before the branch and, but for cross-attention, before its last matrix."""
        return Signal(norm_read=True, norm_inside=self.place.sublayer != "cross_attention", norm_finish=True)


@RESIDUALS.register("peri_ln")
class PeriLN(PreLN):
    """Peri-LN: x ← x + LN(F(LN(x))), and LN at both ends of the stack (arXiv 2502.02732).

    The lower of those two, on the embedding, is optional in the paper, as we were told; here it is always there.
    """

    title = "Peri-LN"
    formula = "x ← x + LN(F(LN(x))), LN at both ends"
    source = "arXiv 2502.02732, its abstract, and Eq. 3 as others quote it; allenai/OLMo-core, PeriNormTransformerBlock"
    sure = "secondary"
    saved = Saved(d=10, more=8, d_cross=5, more_cross=4)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.output_norm = self.norm_layer()
        self.first_norm = self.norm_layer() if place.is_first else None

    def start(self, x: Tensor) -> State:
        """LN(x)."""
        return (x if self.first_norm is None else self.first_norm(x),)

    def write(self, state: State, branch: Tensor) -> State:
        """x + LN(F)."""
        (x,) = state
        return (x + self.output_norm(branch),)

    def signal(self) -> Signal | None:
        """Norms before and behind the branch."""
        return Signal(norm_read=True, norm_branch=True, norm_finish=True)

    def only_adds(self) -> bool:
        """A norm reads the branch."""
        return False


@RESIDUALS.register("hybrid_norm")
class HybridNorm(Residual):
    """HybridNorm: x ← LN(x + Attn(LN(Q), LN(K), LN(V))), x ← x + FFN(x), LN at the end (arXiv 2503.04598).

    Query, key and value are normalised head by head, over head_dim features, with one gain for all heads. The paper's
    variant * with a Pre-LN first layer is left out.
    """

    title = "HybridNorm"
    formula = "x ← LN(x + Attn(LN(Q), LN(K), LN(V))), x ← x + FFN(x), LN at the end"
    source = (
        "arXiv 2503.04598; BryceZhuo/HybridNorm, dense_model/olmo/model.py, configs/exps/1.2B-dense-HybriedNorm.yaml"
    )
    departs = (
        "Weights are Xavier-normal, as under every rule, so that rules can be compared; the authors' configuration has "
        "Megatron's, whose output matrices shrink with depth."
    )
    architectures = ONE_STACK
    elsewhere = "the paper has no cross-attention, so no norms of its query, key and value."
    saved = Saved(d=10, more=2, by_head=6)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.norm = None if place.sublayer == "ffn" else self.norm_layer()
        self.final_norm = self.norm_layer() if place.is_last else None

    def write(self, state: State, branch: Tensor) -> State:
        """LN(x + F) behind attention, x + F behind the FFN."""
        x = state[0] + branch
        return (x if self.norm is None else self.norm(x),)

    def finish(self, state: State) -> Tensor:
        """LN(x)."""
        if self.final_norm is None:
            raise RuntimeError("Only the last sub-layer of a stack can finish a HybridNorm state.")
        return self.final_norm(state[0])

    def inside(self, slot: BranchSlot, width: int, heads: int) -> nn.Module | None:
        """Norms of query, key and value, of one head's features."""
        return self.norm_layer(width // heads) if slot in ("query", "key", "value") else None

    def signal(self) -> Signal | None:
        """Norms of the values and around attention's sum; the FFN has none."""
        attention = self.place.sublayer != "ffn"
        return Signal(norm_value=attention, norm_sum=attention, norm_finish=True)

    def only_adds(self) -> bool:
        """Behind the FFN."""
        return self.place.sublayer == "ffn"


@RESIDUALS.register("rl_1000")
class ThousandLayersRL(Residual):
    """1000 Layer Networks: x ← x + Swish(LN(F(x))), F's first matrix with LN after it, too (arXiv 2503.14858).

    The residual block of that paper's networks for reinforcement learning, up to 1,024 Dense layers: h = x, four times
    h ← Swish(LN(Dense(h))), x ← x + h. No norm on the stream, not even at its end, no α, no special weights. Here the
    feed-forward's two matrices have LN after them, and so has attention's last one.
    """

    title = "1000 Layer Networks"
    formula = "x ← x + Swish(LN(F(x))), F's first matrix with LN after it, too"
    source = "arXiv 2503.14858; wang-kevin3290/scaling-crl, train.py, residual_block"
    departs = (
        "Its branch is four Dense layers, of networks without attention. Here it is a Transformer's, whose "
        "feed-forward has two matrices and the activation that the model has."
    )
    architectures = ONE_STACK
    elsewhere = "the paper has no attention, so no cross-attention either."
    saved = Saved(ff=3, d=10, more=6)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.output_norm = self.norm_layer()

    def write(self, state: State, branch: Tensor) -> State:
        """x + Swish(LN(F))."""
        (x,) = state
        return (x + torch.nn.functional.silu(self.output_norm(branch)),)

    def inside(self, slot: BranchSlot, width: int, heads: int) -> nn.Module | None:
        """The norm in front of the feed-forward's activation."""
        return self.norm_layer(width) if slot == "ffn_in" else None


@RESIDUALS.register("stable")
class Stable(PreLN):
    """Stable-Transformer: x ← x + F(SN(x)), SN(x) = γ ⊙ d^a·x/‖x‖, a = 0.375, SN at the end (OpenReview lkRjnNW0gb).

    Weights are drawn from N(0, 1/(√fan_in + √fan_out)²), so that their largest singular value is about 1. These are
    the two of its three parts that are known, StableInit and StableNorm. StableAtten, Equation 3 of its Section 3.3, is
    a form of query-key normalisation whose formula is in no text that we could read: attention is the ordinary one. The
    abstract names 1 billion parameters and 200 layers; its reviews found no such experiment in the paper.
    """

    title = "Stable-Transformer"
    formula = "x ← x + F(SN(x)), SN at the end"
    source = "OpenReview lkRjnNW0gb, its page and reviews"
    init = "σ = 1/(√fan_in + √fan_out); StableAtten not found"
    sure = "secondary"
    departs = "Attention is the ordinary one: StableAtten's formula, its Equation 3, is in no text that we could read."
    architectures = ONE_STACK
    elsewhere = "the paper has a GPT-2 and a ViT, and no cross-attention."
    saved = Saved(d=10)
    norms = None

    def norm_layer(self, width: int | None = None) -> nn.Module:
        """StableNorm, whatever LN stands for elsewhere."""
        return operations.StableNorm(self.d_model if width is None else width)

    def std(self, role: Role, fan_in: int, fan_out: int) -> float:
        """1/(√fan_in + √fan_out)."""
        return 1 / (sqrt(fan_in) + sqrt(fan_out))

    def signal(self) -> Signal | None:
        """StableNorm leaves a variance of d^(2a - 1)."""
        return Signal(read=float(self.d_model ** (0.375 - 0.5)), norm_read=True)
