"""What several tests of the rules share: every (rule, architecture) that is claimed, small models and random stacks."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from deepnet_edu.model import ModelConfig
from deepnet_edu.model.shape import Shape
from deepnet_edu.model.stack import Stack
from deepnet_edu.residual import RESIDUALS, Architecture, StackName

TASK = {"encoder": "mlm", "decoder": "lm", "encoder_decoder": "translation"}
CLAIMS: list[tuple[str, Architecture]] = [
    (name, architecture) for name, rule in RESIDUALS.items() for architecture in rule.architectures
]
SHAPE = Shape(d_model=12, n_heads=3, d_ff=20)


def depths(architecture: Architecture, layers: int) -> dict[str, int]:
    """encoder_layers and decoder_layers of a model whose stacks have ``layers`` each."""
    return {
        "encoder_layers": layers if "encoder" in architecture else 0,
        "decoder_layers": layers if "decoder" in architecture else 0,
    }


def small_config(residual: str, architecture: Architecture, layers: int = 2, **changes: int) -> ModelConfig:
    """A model of width 12 on 11 tokens."""
    sizes = {"d_model": 12, "n_heads": 3, "d_ff": 20, "vocab_size": 11, **changes}
    return ModelConfig(architecture, TASK[architecture], residual=residual, **depths(architecture, layers), **sizes)


def random_stack(
    residual: str, architecture: Architecture, layers: int, name: StackName | None = None, other: int = 0, **shape: Any
) -> Stack:
    """A stack of a model, the last one if no other is named, all parameters random, norms too: a gain of 1 or a bias of
    0 would hide mistakes. Other: layers of the model's other stack, where it is not as deep."""
    torch.manual_seed(1)
    name = name or ("encoder" if architecture == "encoder" else "decoder")
    sizes = depths(architecture, layers)
    if other:
        sizes["decoder_layers" if name == "encoder" else "encoder_layers"] = other
    stack = Stack(name, residual, shape=replace(SHAPE, **shape), **sizes)
    for parameter in stack.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.4)
    return stack
