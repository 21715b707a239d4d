"""Where to look in a model, and how to run it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.model import Batch, Model, random_batch
from deepnet_edu.residual import StackName

#: What a model is called with: ours with a Batch, others with a tensor, a tuple of them, or a dict of them by keyword.
Inputs = Batch | Tensor | tuple[Any, ...] | Mapping[str, Any]


@dataclass
class SubLayerView:
    """Where to look in one sub-layer of a model that we do not know.

    Attributes:
        branch: the module F: attention, or all of the feed-forward; its first argument is what F reads.
        norm: the sub-layer's LayerNorm or RMSNorm.
        weights: its matrices by role: query, key, value, output, ffn_in, ffn_gate, ffn_out; each (fan_out, fan_in),
            whole parameters or slices of them. Left empty, they are looked for.
        stack: ``"encoder"`` or ``"decoder"``; by default the attention mask tells.
        first: where F begins, if that is another module than where it ends.
    """

    branch: nn.Module
    norm: nn.Module | None
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    stack: StackName | None = None
    first: nn.Module | None = None


def views_of_ours(model: Model) -> list[SubLayerView]:
    """The sub-layers of a model of this package, which knows them."""
    return [
        SubLayerView(
            s.branch,
            getattr(s.residual, "norm", None),
            {str(role): weight for role, weight in s.branch.weights().items()},
            s.residual.place.stack,
        )
        for s in model.sublayers()
    ]


def run_on(model: nn.Module, batch: Inputs | None) -> Callable[[nn.Module], Any]:
    """How a model is run on a batch; without one, our models and torch.nn's encoders are run on random inputs.

    Raises:
        TypeError: the batch is not what such a model reads.
        ValueError: there is no batch, and the model is of another make.
    """
    if isinstance(model, Model):
        if batch is not None and not isinstance(batch, Batch):
            raise TypeError(f"A model of this package reads a Batch, and got {_named(batch)}: review(model, Batch(…)).")
        given = (batch or random_batch(model.config)).to(model.head.weight.device)
        return lambda _: model.logits(given)
    if batch is None and isinstance(model, nn.TransformerEncoder | nn.TransformerEncoderLayer):
        parameter = next(model.parameters())
        attention = next(module for module in model.modules() if isinstance(module, nn.MultiheadAttention))
        size = (4, 32) if attention.batch_first else (32, 4)
        batch = torch.randn(*size, attention.embed_dim, generator=torch.Generator().manual_seed(0)).to(parameter)
    if batch is None:
        raise ValueError(
            "How is this model run? review(model, x) with an x that it accepts, or review(model, run=lambda model: …)."
        )
    if isinstance(batch, Mapping) and batch and any(isinstance(one, Tensor) for one in batch.values()):
        by_name = dict(batch)
        return lambda model: model(**by_name)
    inputs = batch if isinstance(batch, tuple) else (batch,)
    if not inputs or not all(isinstance(one, Tensor) for one in inputs):
        raise TypeError(
            "A model of another make is called with a tensor, a tuple of tensors, or a dict of them by keyword, "
            f"not {_named(batch)}."
        )
    return lambda model: model(*inputs)


def _named(value: object) -> str:
    return f"a {type(value).__name__}"
