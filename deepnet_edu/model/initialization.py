"""Initial weights by role, and the measurement that proves them.

Every matrix of a branch is drawn with literal Xavier-normal, N(0, 2g²/(fan_in + fan_out)), where the gain g is what the
residual rule asks for this role (arXiv 2203.00555, Figure 2: β, and 1 for query and key); a few rules have another
standard deviation altogether. A slice of a packed weight is
a matrix of its own. Biases start at 0, norms as identity, and every layer is drawn afresh.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import nn

from deepnet_edu.model.layer import SubLayer
from deepnet_edu.residual import Place, Role


@torch.no_grad()
def initialize(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all branch weights of ``model`` by role, set its biases to 0, and draw what a rule has at random.

    Args:
        model: holds :class:`SubLayer` modules; other parameters are left alone.
        generator: the only source of randomness.
    """
    for sublayer in model.modules():
        if not isinstance(sublayer, SubLayer):
            continue
        for role, weight in sublayer.branch.weights().items():
            fan_out, fan_in = weight.shape
            nn.init.normal_(weight, std=sublayer.residual.std(role, fan_in, fan_out), generator=generator)
        for module in sublayer.branch.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        sublayer.residual.draw(generator)


@dataclass(frozen=True)
class MeasuredGain:
    """The Xavier gain of one weight, as found.

    Attributes:
        place: the sub-layer.
        role: the weight's role in it.
        measured: std · √((fan_in + fan_out)/2), which undoes Xavier's formula.
        expected: what the residual rule asks for.
        relative_error: standard error of ``measured`` relative to it, 1/√(2·entries): a sample has this much noise.
    """

    place: Place
    role: Role
    measured: float
    expected: float
    relative_error: float


@torch.no_grad()
def measured_gains(model: nn.Module) -> list[MeasuredGain]:
    """The gain of every branch weight of ``model``, a row each, from the bottom up.

    Args:
        model: holds :class:`SubLayer` modules; a model without any gives an empty list.
    """
    rows = []
    for sublayer in model.modules():
        if not isinstance(sublayer, SubLayer):
            continue
        for role, weight in sublayer.branch.weights().items():
            fan_out, fan_in = weight.shape
            std = weight.double().std(correction=0).item()
            rows.append(
                MeasuredGain(
                    place=sublayer.residual.place,
                    role=role,
                    measured=std * sqrt((fan_in + fan_out) / 2),
                    expected=sublayer.residual.std(role, fan_in, fan_out) * sqrt((fan_in + fan_out) / 2),
                    relative_error=1 / sqrt(2 * weight.numel()),
                )
            )
    return rows
