"""What the judges of lesson 09 share: random tensors, centred ones, layers that follow from a seed."""

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


def layer_of(seed: int) -> nn.Sequential:
    """Two matrices that follow from the seed; biases 0 and gains 1, as in every fresh model."""
    layer = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4), nn.LayerNorm(4)).double()
    with torch.no_grad():
        for i in range(2):
            linear = layer[i]
            assert isinstance(linear, nn.Linear)
            linear.weight.copy_(sample(*linear.weight.shape, seed=10 * seed + i))
            linear.bias.zero_()
    return layer


def is_truth(value: Any) -> bool:
    """Whether it is True or False, of Python, NumPy or PyTorch."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.dtype == torch.bool
    return isinstance(value, bool | np.bool_)
