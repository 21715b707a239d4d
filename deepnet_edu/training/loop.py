"""The training loop: batches in, a history out, and a diagnosis when the loss is no longer a number."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, get_args

import torch
from tqdm.auto import tqdm

from deepnet_edu.messages import unknown
from deepnet_edu.models import Batch, Group, Model
from deepnet_edu.probing import Watch
from deepnet_edu.record import DepthProfile, History
from deepnet_edu.training.step import TrainStep


class Task(Protocol):
    """Anything that makes batches from a generator: the classes of :mod:`deepnet_edu.data`."""

    def batch(self, generator: torch.Generator) -> Batch:
        """A batch, (B, T), on the CPU."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Everything is checked on creation.

    Attributes:
        steps: number of updates.
        learning_rate: AdamW's, after warm-up.
        warmup: steps of linear warm-up, 0 for none.
        clip: largest 2-norm of the whole gradient, 0 for no clipping.
        weight_decay: AdamW's, on matrices and embeddings only.
        betas: AdamW's.
        parameters: what is trained: ``"all"``, the ``"stack"`` alone, or its ``"ends"`` (embeddings and head).
        seed: of the data; the model has its own.
        profile_every: keep a DepthProfile of the stack every so many steps, 0 for none.

    Raises:
        ValueError: one sentence that says what was given and what is valid.
    """

    steps: int
    learning_rate: float = 3e-4
    warmup: int = 20
    clip: float = 1.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    parameters: Group = "all"
    seed: int = 0
    profile_every: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("warmup", 0), ("profile_every", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: expected a whole number, {least} or more.")
        if self.parameters not in get_args(Group):
            raise ValueError(unknown("group of parameters", self.parameters, get_args(Group)))
        rate = self.learning_rate
        if not (isinstance(rate, int | float) and math.isfinite(rate) and rate > 0):
            raise ValueError(f"learning_rate={self.learning_rate!r}: expected a positive number, for example 3e-4.")
        for name in ("clip", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected 0 or more.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas!r}: expected two numbers from 0 to below 1, for example (0.9, 0.999).")


class TrainingDiverged(RuntimeError):
    """The loss or its gradient is not a number any more. The message is the diagnosis.

    Attributes:
        step: at which it happened, from 0.
        history: everything up to that step.
    """

    def __init__(self, message: str, step: int, history: History) -> None:
        super().__init__(message)
        self.step = step
        self.history = history

    def __reduce__(self) -> tuple[type["TrainingDiverged"], tuple[str, int, History]]:
        # An exception with arguments of its own cannot come back from another process otherwise.
        return type(self), (str(self), self.step, self.history)


def train(
    model: Model,
    task: Task,
    config: TrainConfig,
    *,
    on_step: Callable[[History], None] | None = None,
    progress: bool = True,
) -> History:
    """Train ``model`` in place.

    Args:
        model: from build_model.
        task: makes the batches.
        config: steps, learning rate and so on.
        on_step: called after every step with the history so far, for example to redraw a picture.
        progress: show a bar with loss and tokens per second.

    Returns:
        The history of the run.

    Raises:
        ValueError: the group of parameters to train is empty.
        TrainingDiverged: the loss or the gradient is not finite; the model keeps the weights from before that step.
    """
    generator = torch.Generator().manual_seed(config.seed)
    device = next(model.parameters()).device
    history = History(model.config.title)
    with (
        TrainStep(
            model,
            model.group(config.parameters),
            peak=config.learning_rate,
            warmup=config.warmup,
            clip=config.clip,
            weight_decay=config.weight_decay,
            betas=config.betas,
        ) as step,
        tqdm(total=config.steps, disable=not progress, unit="step") as bar,
    ):
        for i in range(config.steps):
            batch = task.batch(generator).to(device)
            watched = config.profile_every > 0 and (i % config.profile_every == 0 or i == config.steps - 1)
            begin = time.perf_counter()
            if watched:
                with Watch(model) as watch:
                    result = step(batch)
                clipped = bool(config.clip) and result.gradient_norm > config.clip
                history.profiles[i] = _profile(model, watch, result.gradient_norm / config.clip if clipped else 1.0)
            else:
                result = step(batch)
            history.seconds.append(time.perf_counter() - begin)
            history.loss.append(result.loss)
            history.gradient_norm.append(result.gradient_norm)
            history.learning_rate.append(result.learning_rate)
            history.tokens.append(batch.inputs.numel() + (history.tokens[-1] if history.tokens else 0))
            if not (math.isfinite(result.loss) and math.isfinite(result.gradient_norm)):
                raise TrainingDiverged(_diagnosis(model, batch, config, history), i, history)
            bar.update()
            bar.set_postfix_str(f"loss {result.loss:.3f}, {history.tokens[-1] / sum(history.seconds):,.0f} tokens/s")
            if on_step is not None:
                on_step(history)
    return history


def _profile(model: Model, watch: Watch, clipped_by: float) -> DepthProfile:
    """What the watched step saw; the gradient, as before clipping, is known only where the stack is trained."""
    gradients = {weight: weight.grad for sublayer in model.sublayers() for weight in sublayer.matrices()}
    known = {weight: clipped_by * gradient for weight, gradient in gradients.items() if gradient is not None}
    return watch.profile(known if known and len(known) == len(gradients) else None)


@torch.no_grad()
def _diagnosis(model: Model, batch: Batch, config: TrainConfig, history: History) -> str:
    """Step, place and remedies, in a few sentences."""
    step = len(history.loss) - 1
    with Watch(model) as watch:
        model.loss(batch)
    variance = watch.profile().variance
    bad = [] if variance is None else [i for i, value in enumerate(variance) if not math.isfinite(value)]
    weights = [name for name, parameter in model.named_parameters() if not torch.isfinite(parameter).all()]
    if weights:
        where = f"the weights of {weights[0]} are not finite"
    elif bad:
        sublayer = model.sublayers()[bad[0]].residual.place
        where = f"the first value that is not finite leaves layer {sublayer.layer + 1} ({sublayer.sublayer})"
    elif not math.isfinite(history.loss[-1]):
        where = "the stack's output is finite, so it is the head or the loss"
    else:
        where = "the forward pass is finite, the gradient is not"
    advice = [
        f"a lower learning_rate ({config.learning_rate / 3:.1g} for {config.learning_rate:.1g})",
        f"a longer warmup ({max(2 * config.warmup, 20)} steps for {config.warmup})",
        "clip=1.0"
        if not config.clip
        else "residual='deepnorm'"
        if model.config.residual != "deepnorm"
        else "model.double(), to tell an overflow from a divergence",
    ]
    return (
        f"Stopped at step {step}: loss {history.loss[-1]}, gradient norm {history.gradient_norm[-1]}; {where}. "
        f"The weights are those of before this step. Try {advice[0]}, {advice[1]}, or {advice[2]}."
    )
