"""Models of other makes for the tests of ``review``: right ones in many forms, and everything that can be wrong."""

import copy
from dataclasses import dataclass, field
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

D, HEADS, FF, LAYERS = 48, 4, 96, 24
X = torch.randn(4, 16, D, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        q, k, v = (p(x).view(B, T, HEADS, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).reshape(B, T, D))


@dataclass
class Recipe:
    """What a repository does. The defaults are the paper's."""

    alpha: float = (2 * LAYERS) ** 0.25
    beta: float = (8 * LAYERS) ** -0.25
    alpha_on_branch: bool = False
    alpha_in_training: float | None = None
    pre_norm: bool = False
    detached: bool = False
    clones: int = 0
    inner_norm: bool = False
    init: str = "xavier"
    dropout: float = 0.0
    norm_weight: float = 1.0
    unscaled: tuple[str, ...] = ()
    also_scaled: tuple[str, ...] = ()
    gains: dict[str, float] = field(default_factory=dict)


class Layer(nn.Module):
    """A layer with fairseq's names."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.self_attn, self.fc1, self.fc2 = Attention(), nn.Linear(D, FF), nn.Linear(FF, D)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(D), nn.LayerNorm(D)
        self.ffn_norm = nn.LayerNorm(FF) if recipe.inner_norm else nn.Identity()
        self.dropout = nn.Dropout(recipe.dropout)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                self.draw(name.split(".")[-1], module)
        for norm in (self.self_attn_layer_norm, self.final_layer_norm):
            nn.init.constant_(norm.weight, recipe.norm_weight)

    @torch.no_grad()
    def draw(self, name: str, linear: nn.Linear) -> None:
        recipe = self.recipe
        scaled = (name not in ("q_proj", "k_proj") or name in recipe.also_scaled) and name not in recipe.unscaled
        gain = recipe.gains.get(name, recipe.beta if scaled else 1.0)
        if recipe.init == "default":  # nn.Linear's own, biases too
            linear.weight.mul_(gain)
            linear.bias.mul_(gain)
            return
        nn.init.xavier_normal_(linear.weight, gain=gain)
        nn.init.zeros_(linear.bias)
        if recipe.init == "packed" and name in ("q_proj", "k_proj", "v_proj"):  # fan_out is 3d
            linear.weight.mul_(sqrt(2 * D / (D + 3 * D)))

    def forward(self, x: Tensor) -> Tensor:
        recipe, attention, alpha = self.recipe, self.self_attn, self.recipe.alpha
        if self.training and recipe.alpha_in_training is not None:
            alpha = recipe.alpha_in_training

        def ffn(z: Tensor) -> Tensor:
            return self.fc2(self.ffn_norm(F.gelu(self.fc1(z))))

        for branch, norm in ((attention, self.self_attn_layer_norm), (ffn, self.final_layer_norm)):
            read = x.detach() if recipe.detached else x
            if recipe.pre_norm:
                x = alpha * x + self.dropout(branch(norm(read)))
            elif recipe.alpha_on_branch:
                x = norm(x + alpha * self.dropout(branch(read)))
            else:
                x = norm(alpha * x + self.dropout(branch(read)))
        return x


def stack(recipe: Recipe, layers: int = LAYERS) -> nn.Sequential:
    """Layers of a recipe; ``clones``: this many are drawn, and copied in turn."""
    torch.manual_seed(0)
    if recipe.clones:
        drawn = [Layer(recipe) for _ in range(recipe.clones)]
        return nn.Sequential(*(copy.deepcopy(drawn[i % recipe.clones]) for i in range(layers)))
    return nn.Sequential(*(Layer(recipe) for _ in range(layers)))


def run(model: nn.Module) -> Tensor:
    return model(X)
