"""A training step of many ranks: the same loss, gradients and update as one process would have."""

import warnings
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import set_checkpoint_early_stop

from deepnet_edu.messages import UserError
from deepnet_edu.model import IGNORED, Batch, Model
from deepnet_edu.residual import RESIDUALS, Projected, Residual
from deepnet_edu.training.config import TrainConfig
from deepnet_edu.training.distributed.ranks import PIPELINE, SHARE, Ranks
from deepnet_edu.training.distributed.stages import Whole, cut, layers_of, owners, tensors_of
from deepnet_edu.training.step import AUTOCAST, StepResult, TrainStep, seed_of

_SCHEDULES = {"1f1b": Schedule1F1B, "gpipe": ScheduleGPipe}
#: Shapes of batches for which a pipeline keeps the memory where it receives.
_SHAPES = 4


class ParallelStep(TrainStep):
    """:class:`TrainStep` on many ranks. Every rank makes it and calls it at the same time, with the same whole batches,
    and takes its share of them.

    The loss is the mean over all targets of all ranks, and the gradient its gradient, so that a run does not depend on
    the plan. Dropout is drawn again at every step from seed, step and rank. With ``shard`` or ``pipeline`` the model
    has afterwards what this rank holds of it; a checkpoint has all.

    Args:
        model: from build_model, the same on every rank; it may be on the CPU still.
        config: how to train.
        ranks: from :func:`deepnet_edu.training.distributed.init_ranks`.

    Raises:
        ValueError: there is nothing to train.
        UserError: the plan, or the residual rule, cannot do what ``config`` asks for.
    """

    sees_all = False

    def __init__(self, model: Model, config: TrainConfig, ranks: Ranks) -> None:
        self.ranks, self.plan, self._plain = ranks, ranks.plan, ExitStack()
        refuse(model, config, ranks)
        whole = {parameter: name for name, parameter in model.named_parameters()}
        self._alias = {name: whole[parameter] for name, parameter in model.named_parameters(remove_duplicate=False)}
        autocast = AUTOCAST.get(config.precision)
        self.parts: list[nn.Module] = [Whole(model)]
        if self.plan.pipeline > 1:
            self.parts = list(cut(model, self.plan.stages, ranks.held, autocast))
        if self.plan.shard > 1:
            # The fast one reads weights where they are not, while others hold them.
            self._plain.enter_context(model.running(path="plain"))
            trained = set(model.group(config.parameters))
            for parameter in model.parameters():  # shards are made as what they are
                parameter.requires_grad_(parameter in trained)
            for part in self.parts:
                _shard(part, ranks)
        else:
            model.to(ranks.device)
        super().__init__(model, config)
        self._compiled = _compile_inside(model) if self.plan.shard > 1 else []
        self._step_buffers.clear()  # gradients must come by where DistributedDataParallel waits for them
        if self.plan.data > 1:
            group = ranks.mesh.get_group(SHARE)
            self.parts = [DistributedDataParallel(part, process_group=group) for part in self.parts]
        self._answers = torch.ones((), device=ranks.device)
        self._pipelines: dict[Any, Any] = {}
        self._share_embeddings()

    def __exit__(self, *_: Any) -> None:
        super().__exit__()
        self._pipelines.clear()
        for layer in self._compiled:
            del layer.forward
        self._plain.close()

    def __call__(self, *batches: Batch) -> StepResult:
        """Take one step on whole batches, the same on all ranks."""
        torch.manual_seed(seed_of(self.config.seed, self.count, self.ranks.rank))
        return super().__call__(*batches)

    def last_update(self) -> float | None:
        """The last update, which is not known: no rank has all of it."""
        return None

    def tensors(self) -> dict[str, Tensor]:
        """Weights and saved buffers of this rank, by the names of the whole model; shards are DTensors."""
        state = self.model.state_dict()
        return {self._alias.get(name, name): tensor for name, tensor in state.items()}

    def names(self) -> dict[nn.Parameter, str]:
        """Names of the parameters that this rank holds, as the whole model has them."""
        return {parameter: self._alias[name] for name, parameter in self.model.named_parameters()}

    def _gradients(self, batches: tuple[Batch, ...]) -> tuple[Tensor, Tensor]:
        """The loss and the gradient's norm over all ranks; gradients lie in the buffers, or in the shards."""
        for flat in self.flats:
            flat.zero()
        # Each rank has all targets, so that none has to ask how many answers the others have.
        self._answers = torch.stack([(batch.targets != IGNORED).sum() for batch in batches]).sum().clamp_min(1)
        losses = []
        for i, batch in enumerate(batches):
            mine = share_of(batch, self.ranks.share, self.plan.shares, self.plan.n_microbatches)
            if self.plan.pipeline > 1:
                losses.append(self._through_pipeline(mine))
            else:
                losses.append(self._through_copy(mine, last=i == len(batches) - 1))
        self.scaler.unscale_(self.optimizer)
        self._sum_shared()
        seen = torch.stack([torch.stack(losses).sum().double(), self._squares() / self.plan.data])
        loss, squares = self.ranks.sum(seen)
        return loss, squares.sqrt()

    def _through_copy(self, batch: Batch, last: bool) -> Tensor:
        """Forward and backward of a share; the sum over ranks of what is returned is the loss."""
        (part,) = self.parts
        waits = isinstance(part, DistributedDataParallel) and not last
        with part.no_sync() if waits else nullcontext(), set_checkpoint_early_stop(self.plan.shard == 1):  # type: ignore[operator]
            with self.autocast():
                loss = self._loss(part(**tensors_of(batch)), batch.targets)
            self.scaler.scale(loss).backward()
        return loss.detach() / self.plan.shares

    def _through_pipeline(self, batch: Batch) -> Tensor:
        """The same, in micro-batches through all stages."""
        losses: list[Tensor] = []
        schedule = self._pipeline(batch)
        top = self.plan.stages - 1 in self.ranks.held
        with ExitStack() as entered:
            for part in self.parts:
                if isinstance(part, DistributedDataParallel):  # a stage says itself when its last gradient comes
                    entered.enter_context(part.no_sync())
            target = batch.targets if top else None
            schedule.step(**tensors_of(batch), target=target, losses=losses, return_outputs=False)
        found = torch.stack([loss.detach() for loss in losses]).sum() if top else self._answers.new_zeros(())
        return found.to(self._answers.device) / self.plan.shares

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """This share of the loss, times the number of shares, by which gradients are divided when they are averaged."""
        with self.autocast():
            loss = Model.loss_to(logits, targets, self.config.label_smoothing, self._answers)
        return loss * self.plan.shares

    def _pipeline(self, batch: Batch) -> Any:
        """The schedule for batches of this shape: it has memory of that shape to receive in."""
        shapes = tuple((name, tensor.shape) for name, tensor in tensors_of(batch).items())
        if shapes not in self._pipelines:
            if len(self._pipelines) == _SHAPES:
                self._pipelines.pop(next(iter(self._pipelines)))
            group, device = self.ranks.mesh.get_group(PIPELINE), self.ranks.device
            stages = [
                PipelineStage(part, index, self.plan.stages, device, group=group)
                for part, index in zip(self.parts, self.ranks.held, strict=True)
            ]
            settings: dict[str, Any] = {"loss_fn": self._loss, "scale_grads": False}
            if self.plan.schedule == "interleaved":
                schedule: Any = ScheduleInterleaved1F1B(cast(Any, stages), self.plan.n_microbatches, **settings)
            else:
                schedule = _SCHEDULES[self.plan.schedule](stages[0], self.plan.n_microbatches, **settings)
            self._pipelines[shapes] = schedule
        return self._pipelines[shapes]

    def _share_embeddings(self) -> None:
        """Find who else holds the one matrix of embeddings and head, where several stages do."""
        self._shared, self._sharers, self._counts = None, None, True
        config = self.model.config
        if not config.shared_embeddings or self.plan.pipeline == 1:
            return
        places = sorted({stage % self.plan.pipeline for stage in owners(config, self.plan.stages)})
        self._sharers = self.ranks.group_of(places)
        self._counts = self.ranks.place == places[0]
        if self._sharers is not None:
            once = self._alias["head.weight"]
            self._shared = next(parameter for parameter, name in self.names().items() if name == once)

    def _sum_shared(self) -> None:
        if self._shared is not None and self._shared.grad is not None:
            dist.all_reduce(_local(self._shared.grad), group=self._sharers)

    def _squares(self) -> Tensor:
        """Sum of squares of the gradients that this rank answers for."""
        found = [
            torch.linalg.vector_norm(gradient, dtype=torch.float64).square()
            for flat in self.flats
            for gradient in flat.gradients()
        ]
        total = torch.stack(found).sum()
        if self._shared is not None and self._shared.grad is not None and not self._counts:
            total = total - torch.linalg.vector_norm(_local(self._shared.grad), dtype=torch.float64).square()
        return total


def share_of(batch: Batch, share: int, shares: int, n_microbatches: int = 1) -> Batch:
    """One of ``shares`` equal parts of a batch, which can be cut into ``n_microbatches`` again.

    Where sequences are too few for that, some are there once more, and no answer is asked of them.
    """
    sequences = len(batch.inputs)
    rows = -(-sequences // (shares * n_microbatches)) * n_microbatches
    index = torch.arange(share * rows, (share + 1) * rows, device=batch.inputs.device)
    again = index >= sequences
    index = index % sequences
    tensors = {name: tensor[index] for name, tensor in tensors_of(batch).items()}
    targets = batch.targets[index]
    targets[again] = IGNORED
    return Batch(targets=targets, **tensors)


def refuse(model: Model, config: TrainConfig, ranks: Ranks) -> None:
    """What cannot be done by this plan, in one sentence.

    Raises:
        UserError: it is asked for.
    """
    plan, rule = ranks.plan, RESIDUALS.get(model.config.residual, Residual)
    said = f"The plan {plan.title}"
    if config.cuda_graph:
        raise UserError(f"{said} has ranks that wait for each other within a step, and cuda_graph=True records none.")
    if plan.shard == plan.pipeline == 1:
        return
    if model.config.clones:
        raise UserError(f"{said} cuts a stack by its layers, and with clones=True they are all one: use data=….")
    if model.own_stacks() != model.stacks():
        raise UserError(f"{said} cuts a stack by its layers, and this one is not a deepnet_edu Stack: use data=….")
    if config.precision == "fp16":
        raise UserError(
            f"{said} cuts the model, and no rank sees all overflows of fp16: use precision=bf16, or data=…."
        )
    if config.profile_every:
        raise UserError(f"{said} cuts the model, and a profile looks at all of it: leave profile_every out.")
    if plan.pipeline > 1 and config.parameters == "ends":
        raise UserError(f"{said} has stages with nothing to train where parameters=ends: use data=… or shard=….")
    if plan.shard == 1:
        return
    if issubclass(rule, Projected):
        raise UserError(
            f"residual={model.config.residual!r} puts whole rows and columns of weights back to a length after each "
            f"step, and {said[0].lower()}{said[1:]} leaves each rank a part of them: use data=… or pipeline=…."
        )
    if any(parameter.ndim == 0 for parameter in model.parameters()):
        raise UserError(
            f"residual={model.config.residual!r} learns single numbers, and {said[0].lower()}{said[1:]} cannot cut "
            "a number into shards: use data=… or pipeline=…."
        )
    if plan.schedule == "interleaved" and model.config.shared_embeddings and model.config.encoder_layers:
        raise UserError(
            f"shared_embeddings=True puts one matrix into two stages of a rank of {said[0].lower()}{said[1:]}, and a "
            "matrix can be cut once: use schedule=1f1b."
        )


def _shard(part: nn.Module, ranks: Ranks) -> None:
    """Cut every layer over the ranks that share a batch, then what is not in a layer."""
    settings: dict[str, Any] = {"mesh": ranks.mesh[SHARE]}
    if ranks.plan.pipeline > 1:  # a pipeline keeps them whole from its first micro-batch to its last
        settings["reshard_after_forward"] = False
    # States that pass a layer unchanged, as DLCL's do, are safe: nothing here is changed in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    layers = layers_of(part)
    for norm in _norms_at_the_ends(layers):
        fully_shard(norm, **settings)
    for layer in layers:
        fully_shard(layer, **settings)
    fully_shard(part, **settings)


def _compile_inside(model: Model) -> list[nn.Module]:
    """Let each layer call what its stack has compiled, and not the stack: a layer's call is what gathers its weights.

    Returns:
        The layers, which have a ``forward`` of their own now.
    """
    changed: list[nn.Module] = []
    for stack in model.own_stacks().values():
        if stack.compiled is not None:
            compiled = stack.compiled.ready(stack.layers)
            for layer in stack.layers:
                if "forward" not in vars(layer):  # one of the user's own stays, and runs as it is
                    layer.forward = partial(compiled.inside, layer)
                    changed.append(layer)
            stack.set_mode(replace(stack.mode, compile="no"))
    return changed


def _norms_at_the_ends(layers: Iterable[nn.Module]) -> list[nn.Module]:
    rules = [module for layer in layers for module in layer.modules() if isinstance(module, Residual)]
    found = [getattr(rule, name, None) for rule in rules for name in rule.at_the_ends]
    return [norm for norm in found if norm is not None]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
