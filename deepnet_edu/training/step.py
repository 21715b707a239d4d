"""One training step: forward, backward, unscale, clip, schedule, update."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.model import IGNORED, Batch, Model, paths
from deepnet_edu.model.compiled import plain_name
from deepnet_edu.training.config import TrainConfig, learning_rate
from deepnet_edu.training.graph import GraphedStep
from deepnet_edu.training.optimizer import FlatParameters, buffer, make_optimizer, parameter_groups
from deepnet_edu.training.preparation import decide, prepared, refuse

#: What autocast computes products in.
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: What optimizers count and scale in; bfloat16, where that is PyTorch's default, cannot count beyond 256.
FLOAT = torch.float32
#: Where loss scaling begins, and where a gradient that still overflows is no matter of scale any more.
FIRST_SCALE, LEAST_SCALE = 2.0**16, 2.0**-10


@dataclass(frozen=True)
class StepResult:
    """What one step saw.

    Attributes:
        loss: before the update, nats per token.
        gradient_norm: 2-norm over all trained parameters, before clipping.
        learning_rate: of the update.
        scale: of the loss, in fp16; None otherwise.
        skipped: the scaled gradient overflowed, so nothing was updated and the scale was halved.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    scale: float | None = None
    skipped: bool = False


class TrainStep:
    """A step of AdamW or SGD on some of a model's parameters; the others are frozen meanwhile.

    Use as a context manager: on leaving, the parameters own their memory again, and the model is set as before.

    Args:
        model: from build_model.
        config: how to train.
        parameters: those to train, where it is another choice than ``config.parameters``.

    Raises:
        ValueError: there is nothing to train.
        UserError: the device, or the residual rule, cannot do what ``config`` asks for.
    """

    #: Whether this process has the whole model and the whole batch, and can look for what went wrong.
    sees_all = True

    def __init__(self, model: Model, config: TrainConfig, parameters: Iterable[nn.Parameter] | None = None) -> None:
        chosen = list(model.group(config.parameters) if parameters is None else parameters)
        self.model, self.config = model, config
        self.device = next(model.parameters()).device
        refuse(model, config, self.device)
        self.groups = parameter_groups(model, chosen, config.weight_decay)
        self.count = 0
        self.undecided = config.recompute == "auto"
        self._recorded = GraphedStep(self.on_device) if config.cuda_graph else None
        self._entered = ExitStack()
        self._entered.enter_context(prepared(model, config))
        self._frozen = {parameter: parameter.requires_grad for parameter in model.parameters()}
        self._owners = [
            (module._parameters, name, parameter)
            for module in model.modules()
            for name, parameter in module._parameters.items()
        ]
        self.flats = [buffer(group.parameters) for group in self.groups]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)
        self.optimizer = make_optimizer(self.flats, self.groups, config)
        self.scaler = torch.amp.GradScaler(self.device.type, FIRST_SCALE, enabled=config.precision == "fp16")
        # For the time of a step the fast path may use its memory again, and add gradients where they belong.
        trained = set(chosen)
        self._step_buffers = {
            stack: paths.new_step_buffers()
            for stack in model.own_stacks().values()
            if stack.layers and trained.issuperset(stack.parameters())
        }

    def __enter__(self) -> "TrainStep":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._step_buffers.clear()
        self._entered.close()
        for flat in self.flats:
            flat.release()
        for parameter, required in self._frozen.items():
            parameter.requires_grad_(required)

    def __call__(self, *batches: Batch) -> StepResult:
        """Take one step, on one batch or on as many as ``config.accumulate`` says.

        With a loss or gradient that is not finite nothing is updated; in fp16 the next step has half the scale.

        Raises:
            ValueError: there are more or fewer batches, or none of their targets counts.
            RuntimeError: the model's parameters were replaced, moved or cast since the last step.
        """
        if len(batches) != self.config.accumulate:
            raise ValueError(f"{len(batches)} batches for accumulate={self.config.accumulate}: expected as many.")
        if self.undecided:
            decide(self.model, self.config, batches[0])
            self.undecided = False
        watched = any(stack.observer is not None for stack in self.model.own_stacks().values())
        if self._recorded is not None and not watched:  # a graph cannot be looked into
            return self._replay(batches)
        self._hold()
        self.model.at_step(self.count)
        with torch.enable_grad():
            loss, norm = self._gradients(batches)
        if not norm:
            _refuse_silence(batches)
        rate = learning_rate(self.count, self.config)
        scale = self.scaler.get_scale() if self.scaler.is_enabled() else None
        finite = bool(torch.isfinite(loss) and torch.isfinite(norm))
        overflow = scale is not None and bool(torch.isfinite(loss)) and not finite and scale > LEAST_SCALE
        if finite:
            self._clip(norm)
            self.set_rate(rate)
            self.scaler.step(self.optimizer)
            self.model.project()
        self.scaler.update()
        self.count += finite or overflow
        return StepResult(loss.item(), norm.item(), rate, scale, overflow)

    def _replay(self, batches: tuple[Batch, ...]) -> StepResult:
        assert self._recorded is not None
        rate = learning_rate(self.count, self.config)
        self.set_rate(rate)
        loss, norm = (value.item() for value in self._recorded(batches))
        if not norm:
            _refuse_silence(batches)
        self.count += math.isfinite(loss) and math.isfinite(norm)
        return StepResult(loss, norm, rate)

    def on_device(self, batches: tuple[Batch, ...]) -> tuple[Tensor, Tensor]:
        """The same step without a look at any number, as a CUDA graph needs it: loss and gradient norm.

        The learning rate must have been set, and the count is the caller's.
        """
        loss, norm = self._gradients(batches)
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        if self.config.clip:
            factor = (self.config.clip / (norm + 1e-6)).clamp(max=1.0)
            self._scale(factor)
        # The fused optimizers leave everything as it is where this is not 0: it is how loss scaling skips a step.
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        del self.optimizer.found_inf  # type: ignore[attr-defined]
        self.model.project()
        return loss, norm

    def _hold(self) -> None:
        """See that the parameters are still in the buffers."""
        if not all(owner.get(name) is parameter for owner, name, parameter in self._owners):
            raise RuntimeError(
                "Parameters of the model were replaced by others while it was trained, as "
                "load_state_dict(…, assign=True) does: load weights in place, load_state_dict(…), or start a new run."
            )
        for flat in self.flats:
            if flat.hold():
                # The old ones know where weights were.
                self._step_buffers = {stack: paths.new_step_buffers() for stack in self._step_buffers}

    def _gradients(self, batches: tuple[Batch, ...]) -> tuple[Tensor, Tensor]:
        """The loss and the gradient's norm, without the scale; gradients lie in the buffers."""
        for flat in self.flats:
            flat.zero()
        # As in one large batch, each answer counts once, whichever batch it is in.
        answers: list[Any] = [(batch.targets != IGNORED).sum() for batch in batches] if len(batches) > 1 else [1]
        total = sum(answers) if len(batches) == 1 else torch.stack(answers).sum().clamp_min(1)
        losses = []
        with self._with_buffers():
            for batch, count in zip(batches, answers, strict=True):
                with self.autocast():
                    loss = self.model.loss(batch, self.config.label_smoothing)
                if len(batches) > 1:
                    loss = loss * count / total  # in this order, to keep the precision of the loss
                self.scaler.scale(loss).backward()
                losses.append(loss.detach())
        self.scaler.unscale_(self.optimizer)
        norms = [torch.linalg.vector_norm(gradient) for flat in self.flats for gradient in flat.gradients()]
        return torch.stack(losses).sum(), torch.linalg.vector_norm(torch.stack(norms))

    def autocast(self) -> torch.autocast:
        """The context in which the model computes."""
        dtype = AUTOCAST.get(self.config.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    @contextmanager
    def _with_buffers(self) -> Iterator[None]:
        with ExitStack() as entered:
            for stack, step_buffers in self._step_buffers.items():
                entered.enter_context(stack.running(step_buffers=step_buffers))
            yield

    def _clip(self, norm: Tensor) -> None:
        """As torch.nn.utils.clip_grad_norm_ has it."""
        if self.config.clip and norm > self.config.clip:
            self._scale(self.config.clip / (norm + 1e-6))

    def _scale(self, factor: Tensor) -> None:
        for flat in self.flats:
            for gradient in flat.gradients():
                gradient.mul_(factor)

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next update; where it is a tensor, as a CUDA graph reads it, in place."""
        for settings, group in zip(self.optimizer.param_groups, self.groups, strict=True):
            if isinstance(settings["lr"], Tensor):
                settings["lr"].fill_(rate * group.learning_rate_factor)
            else:
                settings["lr"] = rate * group.learning_rate_factor

    def names(self) -> dict[nn.Parameter, str]:
        """Names of the parameters, as checkpoints have them: those of the plain model, where a part was compiled."""
        return {parameter: plain_name(name) for name, parameter in self.model.named_parameters()}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of moments, as the optimizer names them."""
        return ("exp_avg", "exp_avg_sq") if self.config.optimizer == "adamw" else ()

    def tensors(self) -> dict[str, Tensor]:
        """Weights and saved buffers, without the names that share another's memory, as tied embeddings do."""
        seen: set[tuple[int, torch.Size]] = set()
        found = {}
        for name, tensor in self.model.state_dict().items():
            key = (tensor.data_ptr(), tensor.shape)
            if key not in seen or not tensor.numel():
                found[plain_name(name)] = tensor
            seen.add(key)
        return found

    def moments(self) -> dict[str, Tensor]:
        """What the optimizer remembers of each parameter, as views: ``exp_avg/stack.layers.0.…``.

        Before the first step it is made, all zeros, to be filled.
        """
        names, found = self.names(), {}
        for flat in self.flats:
            for kind in self.kinds:
                buffers = {}
                for tensor in flat.tensors:
                    state = self.optimizer.state[tensor]
                    buffers[tensor] = state.setdefault(kind, torch.zeros_like(tensor, requires_grad=False))
                for parameter, piece in flat.pieces(buffers):
                    found[f"{kind}/{names[parameter]}"] = piece
        return found

    @property
    def updates(self) -> int:
        """How often the optimizer has changed the weights: not at steps that a loss scale skipped."""
        state = self.optimizer.state.get(self.flats[0].tensors[0], {})
        return int(state["step"].item()) if "step" in state else self.count

    @updates.setter
    def updates(self, count: int) -> None:
        for flat in self.flats if self.config.optimizer == "adamw" else ():
            for tensor in flat.tensors:
                # Where the fused AdamW keeps it.
                self.optimizer.state[tensor]["step"] = torch.tensor(float(count), dtype=FLOAT, device=tensor.device)

    def last_update(self) -> float | None:
        """How far the last update moved the trained weights, in shares of their 2-norm; None if that is not known.

        From AdamW's moments, weight decay left out.
        """
        moved = weights = 0.0
        for flat, settings in zip(self.flats, self.optimizer.param_groups, strict=True):
            state = self.optimizer.state.get(flat.tensors[0])
            if not isinstance(flat, FlatParameters) or not state or "exp_avg" not in state:
                return None
            first, second = (1 - beta ** state["step"].item() for beta in settings["betas"])
            step = state["exp_avg"] / first / ((state["exp_avg_sq"] / second).sqrt() + settings["eps"])
            moved += (settings["lr"] * step.norm().item()) ** 2
            weights += flat.flat.detach().norm().item() ** 2
        return (moved / weights) ** 0.5 if weights else None


def seed_of(seed: int, step: int, rank: int) -> int:
    """A seed for what a rank draws at a step, 63 bits that have nothing to do with those of others."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()[:8]) >> 1


def _refuse_silence(batches: tuple[Batch, ...]) -> None:
    """Say so where nothing was learned because nothing was asked."""
    if not any((batch.targets != IGNORED).any() for batch in batches):
        raise ValueError(
            f"None of the step's targets counts, all are {IGNORED}: nothing can be learned. "
            "Give batches with at least one target that counts."
        )
