"""A model cut into the stages of a pipeline: each a run of layers, with the ends of the model that belong to it."""

from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepnet_edu.model import Batch, Model
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning.pipeline import stage_layers
from deepnet_edu.residual import StackName

#: What a model reads of a batch; every stage has its own copy, so that only the stream goes from rank to rank.
READ = tuple(field.name for field in fields(Batch) if field.name != "targets")


class Elsewhere(nn.Module):
    """In the place of a module that another rank holds."""


@dataclass(frozen=True)
class LayerRange:
    """Layers ``first`` … ``last - 1`` of a stack of ``layers``."""

    stack: StackName
    first: int
    last: int
    layers: int


def runs(config: ModelConfig, stages: int) -> list[list[LayerRange]]:
    """What each stage holds: layers from the bottom up, encoder before decoder, as equal in number as can be.

    Args:
        config: of the model.
        stages: not more than it has layers.
    """
    encoder, layers = config.encoder_layers, config.encoder_layers + config.decoder_layers
    found = []
    for own in stage_layers(layers, stages):
        low = LayerRange("encoder", own.start, min(own.stop, encoder), encoder)
        high = LayerRange("decoder", max(own.start - encoder, 0), own.stop - encoder, config.decoder_layers)
        found.append([run for run in (low, high) if run.first < run.last])
    return found


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    """What a model reads of ``batch``, by name."""
    return {name: tensor for name in READ if (tensor := getattr(batch, name)) is not None}


class Whole(nn.Module):
    """A whole model as one module from the tensors of a batch to logits, by whatever path its stacks take."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, **tensors: Tensor) -> Tensor:
        """(…, classes)."""
        return self.model.logits(Batch(targets=tensors["inputs"], **tensors))


class Stage(nn.Module):
    """Some layers of a model, from the state that leaves the stage below to the one that enters the next; from tokens
    or pixels where it is the lowest, to logits where it is the highest.

    What crosses is the state of the residual rule and, in a decoder that has an encoder, before it the encoder's
    output. Modules are the model's own.

    Args:
        model: that has these layers.
        runs: those of this stage.
        top: whether the head belongs to it.
        autocast: dtype of products, None for that of the weights.
    """

    def __init__(self, model: Model, runs: list[LayerRange], top: bool, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self._beside = (model,)  # in a tuple, and so no part of this module
        self.runs, self.top, self.autocast = runs, top, autocast
        stacks, ends = model.stacks(), dict(zip(model.stacks(), model.embeddings(), strict=True))
        self.ends = nn.ModuleDict({run.stack: ends[run.stack] for run in runs if run.first == 0})
        self.layers = nn.ModuleList(layer for run in runs for layer in stacks[run.stack].layers[run.first : run.last])
        if top:
            self.before_head, self.head, self.rescale = model.before_head, model.head, model.rescale

    def forward(self, *received: Tensor, **tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The next stage's ``received``, or logits.

        Args:
            received: from the stage below, nothing at the lowest.
            tensors: what :func:`tensors_of` gives, of these sequences.
        """
        (model,) = self._beside
        batch = Batch(targets=tensors["inputs"], **tensors)
        state = tuple(cast(Tensor, _Crossing.apply(tensor)) for tensor in received)
        memory: Tensor | None = None
        with torch.autocast(batch.inputs.device.type, self.autocast, enabled=self.autocast is not None):
            for run in self.runs:
                reads_memory = run.stack == "decoder" and model.config.architecture == "encoder_decoder"
                if reads_memory:
                    memory, *rest = state
                    state = tuple(rest)
                tokens = cast(Tensor, batch.target_inputs) if reads_memory else batch.inputs
                padding = batch.target_padding if reads_memory else batch.padding
                stack = model.stacks()[run.stack]
                if run.first == 0:
                    end = self.ends[run.stack]
                    image = model.config.task == "classification"
                    state = stack.start(end(tokens) if image else end(tokens, padding))
                context = model.context(padding, None, state[0].shape[1], tokens.device)
                if reads_memory:
                    context = replace(context, memory=memory, memory_padding=batch.padding)
                state = stack.between(state, context, run.first, run.last)
                if run.last == run.layers:
                    state = (stack.finish(state),)
            if self.top:
                return model.answer(state[0].mean(1) if model.config.task == "classification" else state[0])
        crossing = state if memory is None else (memory, *state)
        return tuple(tensor.contiguous() for tensor in crossing)  # n streams are one tensor seen n times, at first


class _Crossing(torch.autograd.Function):
    """What has come from another rank: itself, and its gradient in one piece, as it must be to be sent."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.clone()  # a view would hide from fully_shard

    @staticmethod
    def backward(_ctx: Any, *gradient: Tensor) -> Tensor:
        return gradient[0].contiguous()


def cut(model: Model, stages: int, held: list[int], autocast: torch.dtype | None = None) -> list[Stage]:
    """The stages ``held``, and of the model nothing else: what belongs to others becomes :class:`Elsewhere`.

    Args:
        model: whole; names and places of what stays are as before.
        stages: of the pipeline.
        held: those of this rank, from 0, in order.
        autocast: see :class:`Stage`.
    """
    plan = runs(model.config, stages)
    found = [Stage(model, plan[index], index == stages - 1, autocast) for index in held]
    kept = {(run.stack, layer) for stage in found for run in stage.runs for layer in range(run.first, run.last)}
    ends = {name for stage in found for name in stage.ends}
    for (name, stack), end in zip(model.stacks().items(), model.embeddings(), strict=True):
        for layer in range(len(stack.layers)):
            if (name, layer) not in kept:
                stack.layers[layer] = Elsewhere()
        if name not in ends:
            attribute = next(key for key, module in model.named_children() if module is end)
            setattr(model, attribute, Elsewhere())
    if not any(stage.top for stage in found):
        model.head, model.rescale, model.before_head = Elsewhere(), None, None  # type: ignore[assignment]
    return found


def owners(config: ModelConfig, stages: int) -> list[int]:
    """Stages that hold the one matrix of embeddings and head, where it is shared."""
    lowest = [index for index, held in enumerate(runs(config, stages)) if any(run.first == 0 for run in held)]
    return sorted({*lowest, stages - 1})


def layers_of(part: nn.Module) -> list[nn.Module]:
    """All layers of a :class:`Whole` or :class:`Stage`, from the bottom up."""
    if isinstance(part, Stage):
        return list(part.layers)
    return [layer for stack in cast(Whole, part).model.own_stacks().values() for layer in stack.layers]
