"""Rules with several streams: ResiDual, SiameseNorm, hyper-connections and mHC."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from deepnet_edu.residual.base import ONE_STACK, Residual, Role, Saved, State
from deepnet_edu.residual.later import operations, torch
from deepnet_edu.residual.place import Place
from deepnet_edu.residual.registry import RESIDUALS

if TYPE_CHECKING:
    from torch import Tensor, nn


@RESIDUALS.register("resi_dual")
class ResiDual(Residual):
    """ResiDual: x ← LN(x + F(x)) beside r ← r + F(x), and y = x + LN(r) at the end (arXiv 2304.14802, Section 3).

    The Post-LN stream x feeds the branches; the second stream r keeps their plain sum, so that its gradient does not
    pass through the norms. Both start as the stack's input.
    """

    title = "ResiDual"
    formula = "x ← LN(x + F(x)), r ← r + F(x), y = x + LN(r)"
    source = "arXiv 2304.14802, Section 3; microsoft/ResiDual, resi_dual"
    saved = Saved(state=2)
    norms = (1, 1)

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
            raise RuntimeError(f"Only the last sub-layer of a stack can finish a state of {self.title}.")
        x, r = state
        return x + self.final_norm(r)

    def stream(self, state: State) -> Tensor:
        """x + LN(r), as if the stack ended here; the norm's own parameters exist only at its end."""
        x, r = state
        norms, shape = torch.nn.functional, (self.d_model,)
        return x + (norms.layer_norm(r, shape) if self.place.norm == "layer" else norms.rms_norm(r, shape, eps=1e-5))


@RESIDUALS.register("siamese_norm")
class SiameseNorm(ResiDual):
    """SiameseNorm: x ← LN(x + F/√l), y ← y + F with F = F(x + LN(y)), and x + LN(y) at the end (arXiv 2602.08064).

    As ResiDual, but the plain stream y feeds the branches too, and the normalised one takes less of them on the way up;
    l is the layer from 1.
    """

    title = "SiameseNorm"
    formula = "x ← LN(x + F/√l), y ← y + F, F = F(x + LN(y)), x + LN(y) at the end"
    source = "arXiv 2602.08064, its Algorithm 1 as others quote it; Qwen-Applications/SiameseNorm, model_hybrid_pre.py"
    init = "1/√l, l the layer from 1"
    sure = "secondary"
    departs = (
        "1/√l is the algorithm as others quote it; the authors' code has 1/√(2l). Its norms of query, key and value, "
        "and on what the branch reads, are variants, left out."
    )
    architectures = ONE_STACK
    elsewhere = "the paper has no cross-attention."
    saved = Saved(d=10, more=8, state=2)
    depth_scale: Tensor

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """1/√l."""
        return {"depth_scale": (place.layer + 1) ** -0.5}

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.constant("depth_scale")
        self.plain_norm = self.norm_layer()

    def read(self, state: State) -> Tensor:
        """x + LN(y)."""
        x, y = state
        return x + self.plain_norm(y)

    def write(self, state: State, branch: Tensor) -> State:
        """LN(x + F/√l), y + F."""
        x, y = state
        return (self.norm(x + self.depth_scale * branch), y + branch)


class Streams(Residual):
    """n streams X, (B, T, n, d_model), all the stack's input at first: X ← H_res X + H_postᵀ F(LN(H_pre X)).

    H_res is (n, n), H_pre and H_post are (n,); each is a learned constant and a small part that depends on the token's
    own streams. At the end LN(Σ X).
    """

    N_STREAMS = 4
    STATIC = ("residual.pre", "residual.post", "residual.res")
    DYNAMIC = ("residual.dynamic", "residual.scale")
    own_products = True
    architectures = ONE_STACK
    elsewhere = "the paper has no cross-attention."

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        self.norm = self.norm_layer()
        self.final_norm = self.norm_layer() if place.is_last else None

    @classmethod
    def decays(cls, name: str, parameter: nn.Parameter) -> bool:
        """Of H, what depends on the token decays, and not the constants: they hold the skip (2409.19606, Section 4)."""
        return name in cls.DYNAMIC or (name not in cls.STATIC and super().decays(name, parameter))

    def maps(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """H_res above H_pre, what each stream and the branch get of all streams, (B, T, n + 1, n); H_post, what each
        stream gets of the branch, (B, T, n)."""
        raise NotImplementedError

    def start(self, x: Tensor) -> State:
        """n times x."""
        return (x.unsqueeze(-2).expand(*x.shape[:-1], self.N_STREAMS, self.d_model),)

    def enter(self, state: State) -> State:
        """H_res X and H_pre X, by one product, and H_post."""
        if len(state) > 1:
            return state
        (X,) = state
        H, post = self.maps(X)
        return (*(H @ X).split((self.N_STREAMS, 1), -2), post)

    def read(self, state: State) -> Tensor:
        """LN(H_pre X)."""
        _, read, _ = self.enter(state)
        return self.norm(read.squeeze(-2).contiguous())  # a copy, or the norm would keep the whole product

    def write(self, state: State, branch: Tensor) -> State:
        """H_res X + H_postᵀ F."""
        mixed, _, post = self.enter(state)
        return (torch.addcmul(mixed, post.unsqueeze(-1), branch.unsqueeze(-2)),)

    def finish(self, state: State) -> Tensor:
        """LN(Σ X)."""
        if self.final_norm is None:
            raise RuntimeError(f"Only the last sub-layer of a stack can finish a state of {self.title}.")
        return self.final_norm(state[0].sum(-2))

    def stream(self, state: State) -> Tensor:
        """The sum of the streams over n: the stack's input at first."""
        return state[0].mean(-2)


@RESIDUALS.register("hyper_connections")
class HyperConnections(Streams):
    """Hyper-connections: X ← H_res X + H_postᵀ F(LN(H_pre X)), n = 4 streams, LN(Σ X) at the end (arXiv 2409.19606).

    H = constant + s·tanh(LN(X)w), stream by stream. At first H_res = I, H_post = 1, H_pre reads stream i mod n at
    sub-layer i, and w = 0, s = 0.01. Output projection and last FFN matrix start √n times as large, since n streams are
    summed at the end, and the constants do not decay (both Section 4, "Implementation").
    """

    title = "Hyper-connections"
    formula = "X ← H_res X + H_postᵀ F(LN(H_pre X)), LN(Σ X) at the end"
    source = "arXiv 2409.19606, Sections 2 and 4, Algorithm 2"
    init = "n = 4; H_res = I, H_post = 1, H_pre one stream in turn; output, FFN's last × √n"
    saved = Saved(d=26, more=116, state=4, cast=(-4, -88))

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        n = self.N_STREAMS
        self.stream_norm = self.norm_layer()
        self.pre = torch.nn.Parameter(torch.eye(n)[place.index % n].clone())
        self.post = torch.nn.Parameter(torch.ones(n))
        self.res = torch.nn.Parameter(torch.eye(n))
        self.dynamic = torch.nn.Parameter(torch.zeros(d_model, n + 2))  # columns: res, pre, post
        self.scale = torch.nn.Parameter(torch.full((2,), 0.01))  # of res and pre, of post

    def maps(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """constant + s·tanh(LN(X)w), all three."""
        h, h_post = (self.stream_norm(X) @ self.dynamic).tanh().split((self.N_STREAMS + 1, 1), -1)
        s, s_post = self.scale
        H = torch.cat((self.res, self.pre.unsqueeze(0))) + s * h.mT
        return H, self.post + s_post * h_post.squeeze(-1)

    def gain(self, role: Role) -> float:
        """√n for the last matrix of a branch."""
        return float(self.N_STREAMS**0.5) if role in ("output", "ffn_out") else 1.0


def sinkhorn(logits: Tensor, steps: int = 20) -> Tensor:
    """exp(logits) with its columns, then its rows divided by their sums, again and again: (…, n, n) → the same.

    Rows sum to 1, columns almost (arXiv 2512.24880, Equation 9). A released kernel of a later model ends on columns.
    """
    found: Tensor = operations.sinkhorn(logits, steps)
    return found


@RESIDUALS.register("mhc")
class ManifoldHyperConnections(Streams):
    """mHC: X ← H_res X + H_postᵀ F(LN(H_pre X)), n = 4 streams, H_res doubly stochastic (arXiv 2512.24880).

    h = constant + s·RMSNorm(all streams)w; H_pre = sigmoid(h), H_post = 2·sigmoid(h), H_res = 20 Sinkhorn steps on
    exp(h) (Equations 7 to 9). A doubly stochastic matrix has norm 1, and so have products of them, at any depth.
    LN(Σ X) at the end. At first w = 0, s = 0.01, H_pre = 1/n, H_post = 1, and H_res is near I.
    """

    title = "mHC"
    formula = "X ← H_res X + H_postᵀ F(LN(H_pre X)), H_res doubly stochastic, LN(Σ X) at the end"
    source = "arXiv 2512.24880, version 2, Equations 7 to 9, Table 5"
    init = "n = 4; H_res near I, H_post = 1, H_pre = 1/n"
    departs = (
        "Where the paper is silent: constants that give the fixed H_pre and H_post of its Table 1 and, by 4 on the "
        "diagonal, an H_res near I; w = 0 at first and no weight decay of the constants, as in hyper-connections."
    )
    saved = Saved(d=18, more=520, state=4, cast=(13, -88))

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__(place, d_model)
        n = self.N_STREAMS
        self.pre = torch.nn.Parameter(torch.full((n,), -log(n - 1)))  # sigmoid gives 1/n
        self.post = torch.nn.Parameter(torch.zeros(n))
        self.res = torch.nn.Parameter(4 * torch.eye(n))
        self.dynamic = torch.nn.Parameter(torch.zeros(n * d_model, n * n + 2 * n))  # columns: res, pre, post
        self.scale = torch.nn.Parameter(torch.full((3,), 0.01))  # of res, pre, post

    def maps(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Sinkhorn's of exp(h), sigmoid(h) and 2·sigmoid(h), of h = constant + s·RMSNorm(all streams)w."""
        n = self.N_STREAMS
        flat = X.flatten(-2)
        rms = torch.linalg.vector_norm(flat, dim=-1, keepdim=True) / flat.shape[-1] ** 0.5
        res, pre, post = (flat @ self.dynamic / (rms + 1e-10)).split((n * n, n, n), -1)
        s_res, s_pre, s_post = self.scale
        H_res = sinkhorn(self.res + s_res * res.unflatten(-1, (n, n)))
        H_pre = (self.pre + s_pre * pre).sigmoid()
        return torch.cat((H_res, H_pre.unsqueeze(-2)), -2), 2 * (self.post + s_post * post).sigmoid()
