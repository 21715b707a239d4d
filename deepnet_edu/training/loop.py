"""The training loop: batches in, a history out; saved, resumed, interrupted, and a diagnosis when it diverges."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from deepnet_edu.fields import checked
from deepnet_edu.files import remedy
from deepnet_edu.messages import UserError
from deepnet_edu.model import Batch, Model
from deepnet_edu.model.compiled import trainable
from deepnet_edu.planning import Plan, flops_per_token, peak_of
from deepnet_edu.probing import Watch
from deepnet_edu.profiles import DepthProfile, History
from deepnet_edu.training.bar import Bar
from deepnet_edu.training.checkpoint import checkpoints, load, save, tidy
from deepnet_edu.training.claim import Claim, claimed
from deepnet_edu.training.config import TrainConfig
from deepnet_edu.training.diagnosis import TrainingDiverged, diagnose
from deepnet_edu.training.distributed.ranks import Ranks, init_ranks
from deepnet_edu.training.integrity import FOLDER, SavedState, step_of, unfit
from deepnet_edu.training.interruption import Interrupted, Stop
from deepnet_edu.training.log import METRICS, RunLog, read_metrics
from deepnet_edu.training.memory import answered, lengths
from deepnet_edu.training.step import StepResult, TrainStep

T = TypeVar("T")


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
    history, tokens, ranks, writes = History(model.config.title), 0, None, True
    with ExitStack() as entered:
        entered.enter_context(torch.inference_mode(False))  # wherever it is called, what is trained needs gradients
        if plan is not None and plan.ranks > 1:
            ranks = entered.enter_context(init_ranks(plan, device.type))
            device, writes = ranks.device, ranks.first
        else:
            plan = None
        entered.enter_context(_seeded(config.seed, device))
        step = entered.enter_context(_step(model, config, ranks))
        stop = entered.enter_context(Stop(enabled=folder is not None, patient=ranks is not None))
        log = claim = None
        if folder is not None:
            claims: list[Claim] = []
            logs: list[RunLog] = []
            _on_first(ranks, lambda: claims.append(_claim(entered, folder, resume)))
            if resume and (earlier := _on_first(ranks, lambda: checkpoints(folder))):
                _ahead(earlier[-1], config.steps)
                tokens = _load(earlier[-1], step, generator, task).tokens
            at = step.count if resume else None
            _on_first(ranks, lambda: logs.append(_open(entered, folder, at)))
            if logs:
                (claim,), (log,), history = claims, logs, read_metrics(folder, model.config.title)
        peak = _peak(device, config, 1 if plan is None else plan.ranks)
        bar = entered.enter_context(Bar(config.steps, start=step.count, progress=progress and writes, peak=peak))
        while step.count < config.steps:
            i = step.count
            batches = [task.batch(generator).to(device) for _ in range(config.accumulate)]
            watched = config.profile_every > 0 and (i % config.profile_every == 0 or i == config.steps - 1)
            begin = time.perf_counter()
            if watched:
                with Watch(model) as watch, answered(model, config, batches[0], plan):
                    result = step(*batches)
                history.profiles[i] = _profile(model, watch, result, config.clip)
            else:
                with answered(model, config, batches[0], plan):
                    result = step(*batches)
            seconds, (read, flops) = time.perf_counter() - begin, _read(model, batches)
            tokens += read
            if claim is not None:
                claim.hold()
            _note(history, result, seconds, tokens)
            if log is not None:
                log.write(i, **_line(result), tokens=tokens, seconds=seconds)
                if watched:
                    log.write_profile(i, history.profiles[i])
            if step.count == i:
                raise TrainingDiverged(diagnose(step, batches, history), i, history)
            bar.update(result.loss, read, flops)
            if on_step is not None:
                on_step(history)
            if folder is None:
                continue
            due = config.save_every > 0 and step.count % config.save_every == 0
            asked = stop.asked if ranks is None else ranks.any(bool(stop.asked)) and (stop.asked or signal.SIGTERM)
            if due or asked or step.count == config.steps:
                if log is not None:
                    log.sync()
                kept = _save(folder, step, generator, tokens, _state(task), _identity(task))
                if asked and step.count < config.steps:
                    raise Interrupted(step.count, kept, asked)
    return history


def _on_first(ranks: Ranks | None, work: Callable[[], T]) -> T:
    """By the first rank, where there are many."""
    return work() if ranks is None else ranks.on_first(work)


# What is for many ranks alone takes as long to load as PyTorch itself.


def _step(model: Model, config: TrainConfig, ranks: Ranks | None) -> TrainStep:
    if ranks is None:
        return TrainStep(model, config)
    from deepnet_edu.training.distributed.step import ParallelStep

    return ParallelStep(model, config, ranks)


def _save(run: Path, step: TrainStep, *rest: Any) -> Path:
    if step.sees_all:
        return save(run, step, *rest)
    from deepnet_edu.training.distributed import checkpoint as shared

    return shared.save(run, step, *rest)  # type: ignore[arg-type]


def _load(path: Path, step: TrainStep, generator: torch.Generator, task: Task) -> SavedState:
    def place(state: dict[str, Any]) -> None:
        if (bool(state) and not hasattr(task, "load_state")) or (not state and _state(task)):
            remembers = "remember their place" if state else "do not remember their place"
            raise unfit(path, f"it is of data that {remembers}, unlike these")
        if state:
            task.load_state(state)  # type: ignore[attr-defined]

    reads = _identity(task)
    if step.sees_all:
        found = load(path, step, generator, reads, place)
    else:
        from deepnet_edu.training.distributed import checkpoint as shared

        found = shared.load(path, step, generator, reads, place)  # type: ignore[arg-type]
    if found.reads is None:
        _say(f"{path} does not say which data it is of, as older ones do not: see that these are the same.")
    return found


def _ahead(path: Path, steps: int) -> None:
    """Refuse to resume a run at an end that it has passed."""
    if (done := step_of(path) or 0) > steps:
        raise UserError(f"{path} has {done} steps already, and steps={steps}: resume with steps={done} or more.")


def _claim(entered: ExitStack, folder: Path, resume: bool) -> Claim:
    """Be the only writer of the folder of a run, which has all that a run that is resumed must have."""
    claim = entered.enter_context(claimed(folder, last=True))
    try:
        tidy(folder)
        steps = resume and not checkpoints(folder) and len((folder / METRICS).read_bytes().splitlines()) > 1
        if steps and (folder / FOLDER).exists():
            _say(f"{folder} has no checkpoint: the run begins at its first step again.")
        elif steps:
            raise UserError(
                f"{folder / METRICS} has the steps of a run, and {folder / FOLDER} is gone: put it back, or begin the "
                "run anew in another folder, with --out FOLDER, or train(…, out=…)."
            )
    except FileNotFoundError:  # no step was taken yet
        pass
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{error.filename or folder}: {why}: {remedy(why)}, or choose another folder.") from None
    return claim


def _open(entered: ExitStack, folder: Path, at: int | None) -> RunLog:
    """The log of a run whose first step to come is ``at``, None for a new one."""
    log = entered.enter_context(RunLog(folder, at))
    with suppress(OSError):  # then the first checkpoint will say it
        (folder / FOLDER).mkdir(exist_ok=True)
    if log.gap:
        _say(log.gap)
    return log


def _say(sentence: str) -> None:
    with suppress(OSError):  # the terminal was closed
        print(sentence, file=sys.stderr)


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
    """Of all devices together."""
    known = peak_of(torch.cuda.get_device_name(device), config.precision) if device.type == "cuda" else None
    return known and known * devices


def _state(task: Task) -> dict[str, Any]:
    state = getattr(task, "state", None)
    return {} if state is None else state()


def _identity(task: Task) -> dict[str, Any]:
    """What the data are, plain JSON; empty where the task does not say."""
    if (said := getattr(task, "identity", None)) is not None:
        return dict(said)
    names: list[str] = [field.name for field in fields(task)] if is_dataclass(task) else []
    known = {name: getattr(task, name) for name in names}
    return {name: value for name, value in known.items() if isinstance(value, int | float | str | bool)}


def _line(result: StepResult) -> dict[str, Any]:
    return {name: value for name, value in asdict(result).items() if name != "skipped"}


def _note(history: History, result: StepResult, seconds: float, tokens: int) -> None:
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
