"""What judges share: random tensors, centred ones, layers that follow from a seed."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def sample(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def centred(x: Tensor) -> Tensor:
    """x without its mean over features."""
    return x - x.mean(-1, keepdim=True)


class Layer(nn.Module):
    """Two matrices of one layer; biases 0 and gains 1, as in every fresh model. Its matrices are not at the top."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.feed_forward = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)).double()
        self.norm = nn.LayerNorm(4).double()

    def matrices(self) -> list[Tensor]:
        """A layer's weights of two dimensions, in order."""
        return [parameter for parameter in self.parameters() if parameter.ndim == 2]


@torch.no_grad()
def layer_of(seed: int) -> Layer:
    """A layer whose matrices follow from the seed."""
    layer = Layer(2.5)
    for i, parameter in enumerate(layer.parameters()):
        if parameter.ndim == 2:
            parameter.copy_(sample(*parameter.shape, seed=10 * seed + i))
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            module.bias.zero_()
    return layer


def is_truth(value: Any) -> bool:
    """Whether it is True or False, of Python, NumPy or PyTorch."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.dtype == torch.bool
    return isinstance(value, bool | np.bool_)
