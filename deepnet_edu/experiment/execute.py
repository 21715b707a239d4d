"""A run from its tables to its end, in a folder of its own: what the command does, by one process or by many ranks."""

import platform
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

import deepnet_edu
from deepnet_edu.experiment.config import FILE, Experiment, check_same, find_run, is_ours, keep
from deepnet_edu.experiment.data import make_task
from deepnet_edu.files import remedy
from deepnet_edu.messages import UserError
from deepnet_edu.model import build_model
from deepnet_edu.planning import Plan
from deepnet_edu.training.checkpoint import checkpoints
from deepnet_edu.training.claim import LOCK, claimed
from deepnet_edu.training.diagnosis import TrainingDiverged
from deepnet_edu.training.distributed.ranks import Ranks, init_ranks
from deepnet_edu.training.interruption import Interrupted
from deepnet_edu.training.log import METRICS
from deepnet_edu.training.loop import Task, train

#: Beside run.toml: the byte pairs that the run has learned.
TOKENIZER = "tokenizer.json"
T = TypeVar("T")


def carry_out(
    run: Experiment,
    folder: Path,
    device: str,
    resume: bool,
    go_on: str,
    *,
    plan: Plan | None = None,
    progress: bool = True,
    take_over: bool = False,
) -> dict[str, Any]:
    """Train, and keep everything in ``folder``.

    Args:
        run: from ``find_run``.
        folder: of the run; all ranks see it.
        device: ``"cpu"`` or ``"cuda"``.
        resume: resume after the last checkpoint.
        go_on: what to type for that.
        plan: of the ranks, of which this is one.
        progress: show a bar.
        take_over: from a process on a machine that is gone, see :func:`~deepnet_edu.training.claim.claimed`.

    Returns:
        What there is to say of it: folder, steps, loss, tokens, whether it was stopped, and by which signal.

    Raises:
        UserError: the folder holds another run or something else, or another process writes there, the data cannot be
            had, the run diverged, or the ranks do not agree.
        OSError: the disk is full.
    """
    many = plan is not None and plan.ranks > 1
    with ExitStack() as entered:
        ranks = entered.enter_context(init_ranks(plan, device) if plan is not None and many else nullcontext())
        if ranks is not None:
            ranks.agree(_facts(run, ranks.plan, resume))

        def claim() -> None:
            _refuse(run, folder, resume, go_on)  # before there is anything of ours in a folder that is not
            entered.enter_context(claimed(folder, take_over=take_over))

        _on_first(ranks, folder, claim)
        written: list[Path] = []
        entered.callback(_withdraw, folder, written)
        task = _task(run, folder, resume, go_on, ranks, written)
        # What is cut need not fit on one GPU.
        model = build_model(run.model, seed=run.train.seed, device="cpu" if many else device)
        result = {"folder": str(folder), "go_on": go_on, "stopped": False, "chance": getattr(task, "chance", None)}
        result["signal"] = None
        try:
            history = train(model, task, run.train, out=folder, resume=resume, progress=progress, ranks=ranks)
        except Interrupted as stop:
            how = {"stopped": True, "signal": int(stop.signal)}
            return {**result, "steps": stop.step, "loss": None, "tokens": None, **how}
        except (TrainingDiverged, ValueError) as error:  # a ValueError: the data have changed since the run was begun
            raise UserError(str(error)) from None
        if not history.loss:  # resumed at its end, on another rank than the first
            return {**result, "steps": run.train.steps, "loss": None, "tokens": None}
        return {**result, "steps": run.train.steps, "loss": history.final_loss(), "tokens": history.tokens[-1]}


def check_plan(plan: Plan, run: Experiment, ranks: int) -> None:
    """See that ``plan`` fits the run and this many ranks.

    Raises:
        UserError: it does not.
    """
    # Batches of translations have as many sequences as fit: some are there twice, without answers, where it must be.
    sequences = plan.shares * plan.n_microbatches if run.model.task == "translation" else run.data.sequences
    plan.check(run.model, ranks, sequences)


def find_plan(text: str | None, run: Experiment, gpus: int | None, device: str) -> tuple[Plan, str]:
    """A plan, and why it is this one where none was given.

    Args:
        text: as :meth:`Plan.parse` reads it; None for copies; ``"auto"`` for what fits the GPUs of this machine, or
            processes that share its memory.
        run: from ``find_run``.
        gpus: how many; None for those of the plan.
        device: ``"cpu"`` or ``"cuda"``.

    Raises:
        UserError: there is no such plan, or none that fits.
    """
    if text is None:
        return Plan(data=gpus or 1), ""
    if text != "auto":
        return Plan.parse(text), ""
    if gpus is None:
        raise UserError("--plan auto needs the number of GPUs: add --gpus 4, for example.")
    if device == "cuda":
        there = torch.cuda.device_count()
        memory = min(torch.cuda.get_device_properties(gpu).total_memory for gpu in range(min(gpus, there)))
    else:
        memory = psutil.virtual_memory().total // gpus
    sequences, tokens = run.data.batch_shape
    return Plan.auto(
        run.model,
        gpus,
        memory,
        sequences=0 if run.model.task == "translation" else sequences,  # a batch of translations is cut at any place
        tokens=tokens,
        precision=run.train.planned,
        checkpoint_every=run.train.checkpoint_every,
        device=device,
    )


def find_device(given: str) -> str:
    """``"cpu"`` or ``"cuda"``; ``"auto"`` is the GPU where there is one.

    Raises:
        UserError: there is no such device here.
    """
    if given not in ("cpu", "cuda", "auto"):
        raise UserError(f"--device {given}: expected cpu, cuda or auto.")
    there = torch.cuda.is_available()
    if given == "cuda" and not there:
        raise UserError(
            "--device cuda: PyTorch finds no GPU here; use --device cpu, or see what deepnet-edu doctor says."
        )
    return "cuda" if there and given != "cpu" else "cpu"


def say_end(result: dict[str, Any]) -> str:
    """The last words of a run."""
    if result["stopped"]:
        return f"Stopped after {result['steps']} steps; they are saved. Resume with: {result['go_on']}"
    best = result["chance"] and f", beside {result['chance']:.3f} of the best guess that sees no other token"
    return (
        f"{result['steps']} steps, {result['tokens']:,} tokens: {result['folder']}\n"
        f"Loss of the last steps: {result['loss']:.3f} nats a token{best or ''}."
    )


def folder_of(what: str, out: Path | None) -> Path:
    """Where a run goes: the file that a run keeps of itself is in the run's folder."""
    return out or (Path(what).parent if Path(what).name == FILE else Path("runs") / Path(what).stem)


def unwritten(error: OSError, folder: Path, go_on: str) -> UserError:
    """The sentence for a disk that is full, say."""
    again, why = "run the same again", error.strerror or str(error)
    try:
        if (folder / FILE).exists():
            again = f"resume with {go_on}"
    except OSError:  # a name that is too long
        pass
    where = str(error.filename or folder)
    where = where if len(where) <= 200 else where[:200] + "…"
    return UserError(f"{where}: {why}. What was saved before is as it was: {remedy(why)}, then {again}")


def _facts(run: Experiment, plan: Plan, resume: bool) -> dict[str, Any]:
    """What must be the same on all ranks."""
    tables = {f"{table}.{key}": value for table, content in run.to_dict().items() for key, value in content.items()}
    versions = {"deepnet_edu": deepnet_edu.__version__, "torch": torch.__version__, "Python": platform.python_version()}
    return {**versions, "plan": plan.title, "resume": resume, **tables}


def _withdraw(folder: Path, written: list[Path]) -> None:
    """Remove what was written for a run that came to no step, so that it is not in the way of the next one."""
    if not (folder / METRICS).exists():
        for path in written:
            path.unlink(missing_ok=True)


def _task(run: Experiment, folder: Path, resume: bool, go_on: str, ranks: Ranks | None, written: list[Path]) -> Task:
    """The data, once the folder is known to be the run's. The first rank learns byte pairs, the others read them.

    What is written for a run that begins is added to ``written``.
    """
    made: list[Task] = []
    learned = folder / TOKENIZER

    def make(tokenizer: Path | None) -> Task:
        return make_task(run.data, run.model.vocab_size, run.model.task, seed=run.train.seed, tokenizer=tokenizer)

    def begin() -> None:
        _refuse(run, folder, resume, go_on)
        known = learned if resume and learned.exists() else None
        made.append(make(known))
        if keep(run, folder) and not resume:
            written.append(folder / FILE)
        if known is None and (tokenizer := getattr(made[0], "tokenizer", None)) is not None:
            tokenizer.save(learned)
            if not resume:
                written.append(learned)

    def follow() -> None:
        if not made:
            known = learned if learned.exists() else None
            made.append(make(known))

    _on_first(ranks, folder, begin)
    if ranks is not None:
        ranks.together(follow)
    return made[0]


def _on_first(ranks: Ranks | None, folder: Path, work: Callable[[], None]) -> None:
    """Call a function on the first rank alone, where there are many."""
    if ranks is None:
        _said(work)
    else:
        ranks.on_first(lambda: _said(work), partial(_failed, folder))


def _failed(folder: Path, why: str) -> UserError:
    return UserError(f"{folder}: {why}: {remedy(why)}, then run it again.")


def _said(work: Callable[[], T]) -> T:
    try:
        return work()
    except ValueError as error:
        raise UserError(str(error)) from None


def _refuse(run: Experiment, folder: Path, resume: bool, go_on: str) -> None:
    """Raise a UserError where the folder holds anything but this run, or, to begin one, anything at all."""
    file, begun = folder / FILE, bool(checkpoints(folder)) or (folder / METRICS).exists()
    if resume:
        if not file.exists() or not (begun or is_ours(folder)):
            raise UserError(f"{folder} holds no run to resume: leave --resume out.")
        check_same(run, folder)
        return
    if begun:
        raise UserError(f"{folder} holds a run already: resume it, {go_on}, or begin another one with --out.")
    if not folder.exists():
        return
    left = (f".{FILE}.", f".{TOKENIZER}.")  # half written by a process that was killed
    if not folder.is_dir() or any(
        path.name not in (FILE, LOCK) and not path.name.startswith(left) for path in folder.iterdir()
    ):
        raise UserError(f"{folder} is not an empty folder: begin the run in another one with --out.")
    if file.exists() and not (is_ours(folder) and find_run(str(file)) == run):
        raise UserError(
            f"A run keeps a {FILE} of its own in its folder, and {file} is another: begin the run in another folder "
            "with --out."
        )
