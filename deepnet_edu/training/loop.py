"""The training loop: batches in, a history out; saved, resumed, interrupted, and a diagnosis when it diverges."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from deepnet_edu.fields import checked
from deepnet_edu.messages import UserError
from deepnet_edu.model import Batch, Model
from deepnet_edu.model.compiled import trainable
from deepnet_edu.planning import Plan, flops_per_token, peak_of
from deepnet_edu.probing import Watch
from deepnet_edu.profiles import DepthProfile, History
from deepnet_edu.training.bar import Bar
from deepnet_edu.training.config import TrainConfig
from deepnet_edu.training.diagnosis import TrainingDiverged, diagnose
from deepnet_edu.training.distributed.ranks import Ranks, init_ranks
from deepnet_edu.training.interruption import Interrupted, Stop
from deepnet_edu.training.memory import answered, lengths
from deepnet_edu.training.run_folder import RunFolder
from deepnet_edu.training.step import StepResult, TrainStep


@runtime_checkable
class Task(Protocol):
    """Anything that makes batches from a generator: the classes of :mod:`deepnet_edu.data`.

    A task that remembers where it is has ``state()``, plain JSON, and ``load_state(state)``: checkpoints keep it. They
    keep ``identity``, too, plain JSON that tells these data from others; a dataclass has it in its fields.
    """

    def batch(self, generator: torch.Generator) -> Batch:
        """A batch, (B, T), on the CPU."""
        ...


@checked(model=trainable)
def train(
    model: Model,
    task: Task,
    config: TrainConfig,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    on_step: Callable[[History], None] | None = None,
    progress: bool = True,
    plan: Plan | None = None,
    ranks: Ranks | None = None,
) -> History:
    """Train ``model`` in place.

    Args:
        model: from build_model, on the device that trains it; a wrapper such as torch.compile's is taken off.
        task: makes the batches.
        config: steps, learning rate and so on.
        out: folder of the run: its metrics and checkpoints; None to keep nothing.
        resume: resume after the last checkpoint in ``out``, to the same bits as a run that was never stopped; from the
            beginning where there is none yet.
        on_step: called after every step with the history so far, for example to redraw a picture.
        progress: show a bar with loss and tokens per second.
        plan: how the ranks that torchrun has started share the work; each of them calls this with the same arguments,
            and the model may be on the CPU still. The first one writes. A model that is cut is afterwards what the rank
            had of it: the checkpoint has all.
        ranks: those of the plan, where the caller has brought them together already.

    Returns:
        The history of the run; of a resumed one, on other ranks than the first, from there on.

    Raises:
        ValueError: an argument is of another type, or the group of parameters to train is empty.
        UserError: ``out`` holds a run already, another process writes there, its disk is full, its checkpoint cannot be
            used, the device cannot do what is asked, or (OutOfMemory) it has not enough memory; the plan does not fit
            the ranks, or cannot do what is asked.
        TrainingDiverged: the loss or the gradient is not finite; the model keeps the weights from before that step.
        Interrupted: SIGTERM, SIGHUP, SIGUSR1 or Ctrl-C; the run is saved (with ``out`` only).
    """
    folder = _folder(config, out, resume)
    generator = torch.Generator().manual_seed(config.seed)
    device = next(model.parameters()).device
    history, tokens, kept = History(model.config.title), 0, None
    with ExitStack() as entered:
        entered.enter_context(torch.inference_mode(False))  # wherever it is called, what is trained needs gradients
        if ranks is None and plan is not None and plan.ranks > 1:
            ranks = entered.enter_context(init_ranks(plan, device.type))
        device, plan = (device, None) if ranks is None else (ranks.device, ranks.plan)
        entered.enter_context(_seeded(config.seed, device))
        step = entered.enter_context(_step(model, config, ranks))
        stop = entered.enter_context(Stop(enabled=folder is not None, patient=ranks is not None))
        if folder is not None:
            kept = RunFolder(folder, step, task, generator, ranks, entered)
            tokens = kept.begin(config.steps, resume)
            history = kept.history or history
        peak = _peak(device, config, 1 if plan is None else plan.ranks)
        shown = progress and (ranks is None or ranks.first)
        bar = entered.enter_context(Bar(config.steps, start=step.count, progress=shown, peak=peak))
        while step.count < config.steps:
            i = step.count
            batches = [task.batch(generator).to(device) for _ in range(config.accumulate)]
            begin = time.perf_counter()
            result, profile = _take(step, batches, plan)
            seconds, (read, flops) = time.perf_counter() - begin, _read(model, batches)
            tokens += read
            _note(history, i, result, seconds, tokens, profile)
            if kept is not None:
                kept.write(i, result, tokens, seconds, profile)
            if step.count == i:
                raise TrainingDiverged(diagnose(step, batches, history), i, history)
            bar.update(result.loss, read, flops)
            if on_step is not None:
                on_step(history)
            if kept is None:
                continue
            due = config.save_every > 0 and step.count % config.save_every == 0
            asked = stop.asked if ranks is None else ranks.any(bool(stop.asked)) and (stop.asked or signal.SIGTERM)
            if due or asked or step.count == config.steps:
                path = kept.save(tokens)
                if asked and step.count < config.steps:
                    raise Interrupted(step.count, path, asked)
    return history


def _take(step: TrainStep, batches: list[Batch], plan: Plan | None) -> tuple[StepResult, DepthProfile | None]:
    """A step, and what was seen in it where ``profile_every`` asks for that."""
    model, config, i = step.model, step.config, step.count
    watched = config.profile_every > 0 and (i % config.profile_every == 0 or i == config.steps - 1)
    if not watched:
        with answered(model, config, batches[0], plan):
            return step(*batches), None
    with Watch(model) as watch, answered(model, config, batches[0], plan):
        result = step(*batches)
    return result, _profile(model, watch, result, config.clip)


# What is for many ranks alone takes as long to load as PyTorch itself.


def _step(model: Model, config: TrainConfig, ranks: Ranks | None) -> TrainStep:
    if ranks is None:
        return TrainStep(model, config)
    from deepnet_edu.training.distributed.step import ParallelStep

    return ParallelStep(model, config, ranks)


def _folder(config: TrainConfig, out: Path | str | None, resume: bool) -> Path | None:
    """The folder of the run, or a sentence why it cannot be that."""
    if out is None:
        for asked, said in ((resume, "resume=True"), (config.save_every, f"save_every={config.save_every}")):
            if asked:
                raise UserError(f"{said} needs the folder of the run: say out='runs/my_run'.")
        return None
    return Path(out)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from a seed of its own, and PyTorch's global random state is afterwards what it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _read(model: Model, batches: list[Batch]) -> tuple[int, float | None]:
    """Tokens of the batches, of source and target or patches of images; and the operations that the model needs."""
    total, flops = 0, 0.0
    for batch in batches:
        sequences, tokens, source_tokens = lengths(model, batch)
        read = sequences * (tokens + source_tokens)
        each = flops_per_token(model.config, tokens, source_tokens=source_tokens)
        total, flops = total + read, flops + read * (each or 0.0)
    return total, flops or None


def _peak(device: torch.device, config: TrainConfig, devices: int) -> float | None:
    """Peak of all devices together."""
    known = peak_of(torch.cuda.get_device_name(device), config.precision) if device.type == "cuda" else None
    return known and known * devices


def _note(
    history: History, i: int, result: StepResult, seconds: float, tokens: int, profile: DepthProfile | None
) -> None:
    if profile is not None:
        history.profiles[i] = profile
    history.seconds.append(seconds)
    history.loss.append(result.loss)
    history.gradient_norm.append(result.gradient_norm)
    history.learning_rate.append(result.learning_rate)
    history.tokens.append(tokens)


def _profile(model: Model, watch: Watch, result: StepResult, clip: float) -> DepthProfile:
    """What the watched step saw; the gradient, as before clipping, is known only where the stack is trained."""
    clipped = clip and math.isfinite(result.gradient_norm) and result.gradient_norm > clip
    factor = result.gradient_norm / clip if clipped else 1.0
    gradients = {weight: weight.grad for sublayer in model.sublayers() for weight in sublayer.matrices()}
    known = {weight: gradient for weight, gradient in gradients.items() if gradient is not None}
    return watch.profile(known if known and len(known) == len(gradients) else None, factor)
