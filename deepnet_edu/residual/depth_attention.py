"""Attention over depth: each sub-layer weighs the outputs of all below it, or of blocks of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepnet_edu.residual.base import ONE_STACK, Residual, Saved, State
from deepnet_edu.residual.later import operations, torch
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor


@RESIDUALS.register("attention_residuals")
class AttentionResiduals(Residual):
    """Attention residuals: h ← Σ_k a_k v_k, v₀ the stack's input and v_k = F_k(LN(h_k)) (arXiv 2603.15031).

    a is the softmax of wᵀRMSNorm(v_k) over all outputs below (Equations 1 to 4). Each sub-layer has a query w, 0 at
    first, so that it reads the plain mean, and the gain of its own RMSNorm. One more query weighs what leaves the
    stack, before a last LN. The state is all v_k so far: time grows with the square of the depth.
    """

    title = "Attention residuals"
    formula = "h ← Σ_k a_k v_k, v_k = F_k(LN(h_k)), a = softmax of wᵀRMSNorm(v), LN at the end"
    source = "arXiv 2603.15031, Equations 1 to 4; MoonshotAI/Attention-Residuals, README.md"
    init = "w = 0: the mean of all outputs"
    departs = "That one more query weighs what leaves the stack, and an LN follows, is as a later model's code has it."
    architectures = ONE_STACK
    elsewhere = "the paper has no cross-attention."
    growing = True
    saved = Saved(d=10, more=19, weights=12, growth=2)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.norm = self.norm_layer()
        self.query = torch.nn.Parameter(torch.zeros(d_model))
        self.key_gain = torch.nn.Parameter(torch.ones(d_model))
        last = place.is_last
        self.final_query = torch.nn.Parameter(torch.zeros(d_model)) if last else None
        self.final_key_gain = torch.nn.Parameter(torch.ones(d_model)) if last else None
        self.final_norm = self.norm_layer() if last else None

    def read(self, state: State) -> Tensor:
        """LN(Σ a_k v_k)."""
        return self.norm(self.stream(state))

    def write(self, state: State, branch: Tensor) -> State:
        """One output more."""
        return (*state, branch)

    def only_adds(self) -> bool:
        """The output is kept as it is, and its reader is above."""
        return True

    def finish(self, state: State) -> Tensor:
        """LN(Σ a_k v_k), weighed by the last query."""
        if self.final_norm is None or self.final_query is None or self.final_key_gain is None:
            raise RuntimeError(f"Only the last sub-layer of a stack can finish a state of {self.title}.")
        return self.final_norm(_attend(self.final_query * self.final_key_gain, state))

    def stream(self, state: State) -> Tensor:
        """Σ a_k v_k, as this place weighs them."""
        return _attend(self.query * self.key_gain, state)


def _attend(query: Tensor, values: State) -> Tensor:
    """Σ_k softmax_k(qᵀRMSNorm(v_k)) v_k."""
    return operations.weighted_sum(operations.scores(query, values).softmax(0), values)


@RESIDUALS.register("block_attention_residuals")
class BlockAttentionResiduals(AttentionResiduals):
    """Block attention residuals: h ← Σ_k a_k b_k, b_k the sum of F(LN(h)) in block k, b₀ the input (arXiv 2603.15031).

    At most N = 8 blocks of whole layers, about as long as each other. Within a block outputs are added, and from its
    second sub-layer on their sum so far is one more of the b_k (Equations 5 and 6). Memory no longer grows with the
    square of the depth.
    """

    title = "Block attention residuals"
    formula = "h ← Σ_k a_k b_k, b_k = Σ of F(LN(h)) in block k, a = softmax of wᵀRMSNorm(b), LN at the end"
    source = "arXiv 2603.15031, Equations 5 and 6; MoonshotAI/Attention-Residuals, README.md"
    init = "w = 0: the mean of 8 blocks"
    N_BLOCKS = 8
    saved = Saved(d=10, more=16, weights=6, growth=1, blocks=8)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        layers = -(-place.n_layers // self.N_BLOCKS)
        self.starts_block = place.sublayer == "self_attention" and place.layer % layers == 0

    def write(self, state: State, branch: Tensor) -> State:
        """A block more, or the last one continued."""
        return (*state, branch) if self.starts_block else (*state[:-1], state[-1] + branch)

    def only_adds(self) -> bool:
        """Within a block; the first output of one is kept as it is."""
        return True
