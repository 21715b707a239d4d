"""Finding the sub-layers of a model of a known make: ours, torch.nn's, fairseq's and TorchScale's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.models import Batch, Model, random_batch
from deepnet_edu.residual import StackName


@dataclass
class SubLayerView:
    """Where to look in one sub-layer of a model that we do not know.

    Attributes:
        branch: the module F: attention, or all of the feed-forward; its first argument is what F reads.
        norm: the sub-layer's LayerNorm or RMSNorm.
        weights: its matrices by role: query, key, value, output, ffn_in, ffn_out; each (fan_out, fan_in).
        stack: ``"encoder"`` or ``"decoder"``.
        first: where F begins, if that is another module than where it ends.
    """

    branch: nn.Module
    norm: nn.Module | None
    weights: Mapping[str, Tensor]
    stack: StackName = "decoder"
    first: nn.Module | None = None


def find_sublayers(model: nn.Module) -> list[SubLayerView]:
    """The sub-layers of a model of a known make, from the bottom up; an empty list for others."""
    if isinstance(model, Model):
        return [
            SubLayerView(
                s.branch,
                getattr(s.residual, "norm", None),
                {str(role): weight for role, weight in s.branch.weights().items()},
                s.residual.place.stack,
            )
            for s in model.sublayers()
        ]
    views: list[SubLayerView] = []
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
            views += _of_torch(module)
        elif all(hasattr(module, name) for name in ("self_attn", "self_attn_layer_norm", "final_layer_norm")):
            views += _of_fairseq(module)
    return views


def _of_torch(layer: Any) -> list[SubLayerView]:
    decoder = isinstance(layer, nn.TransformerDecoderLayer)
    stack: StackName = "decoder" if decoder else "encoder"
    attentions = [(layer.self_attn, layer.norm1)] + ([(layer.multihead_attn, layer.norm2)] if decoder else [])
    views = []
    for attention, norm in attentions:
        query, key, value = attention.in_proj_weight.chunk(3)
        weights = {"query": query, "key": key, "value": value, "output": attention.out_proj.weight}
        views.append(SubLayerView(attention, norm, weights, stack))
    ffn = {"ffn_in": layer.linear1.weight, "ffn_out": layer.linear2.weight}
    last = layer.norm3 if decoder else layer.norm2
    return [*views, SubLayerView(layer.linear2, last, ffn, stack, first=layer.linear1)]


def _of_fairseq(layer: Any) -> list[SubLayerView]:
    decoder = hasattr(layer, "encoder_attn")
    stack: StackName = "decoder" if decoder else "encoder"
    attentions = [(layer.self_attn, layer.self_attn_layer_norm)]
    if decoder and layer.encoder_attn is not None:
        attentions.append((layer.encoder_attn, layer.encoder_attn_layer_norm))
    views = []
    for attention, norm in attentions:
        names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
        weights = {role: getattr(attention, name).weight for role, name in names.items()}
        views.append(SubLayerView(attention, norm, weights, stack))
    ffn = getattr(layer, "ffn", layer)
    matrices = {"ffn_in": ffn.fc1.weight, "ffn_out": ffn.fc2.weight}
    return [*views, SubLayerView(ffn.fc2, layer.final_layer_norm, matrices, stack, first=ffn.fc1)]


def run_on(model: nn.Module, batch: Batch | Tensor | tuple[Tensor, ...] | None) -> Callable[[nn.Module], Tensor]:
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
        width = next(module.embed_dim for module in model.modules() if isinstance(module, nn.MultiheadAttention))
        batch = torch.randn(4, 32, width, generator=torch.Generator().manual_seed(0)).to(parameter)
    if batch is None:
        raise ValueError("How is this model run? review(model, run=lambda model: model(x)) with an x that it accepts.")
    inputs = batch if isinstance(batch, tuple) else (batch,)
    if not inputs or not all(isinstance(one, Tensor) for one in inputs):
        raise TypeError(f"A model of another make is called with a tensor or a tuple of tensors, not {_named(batch)}.")
    return lambda model: model(*inputs)


def _named(value: object) -> str:
    return f"a {type(value).__name__}"
