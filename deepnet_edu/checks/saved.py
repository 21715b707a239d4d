"""The judge of lesson 10's checkpoints: a small run is saved and killed, another process goes on, and both must be one.

What was forgotten is told piece by piece, before the runs are compared bit for bit.
"""

import contextlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import NotRight, Trial
from deepnet_edu.checks.steps import Descent

#: What a file with a program in it would have run.
_ran: list[str] = []


def _program() -> str:
    _ran.append("it ran")
    return "it ran"


class _Trap:
    """Unpickling it runs a program, as any pickle may."""

    def __reduce__(self) -> tuple[Callable[[], str], tuple[()]]:
        return _program, ()


class _Run:
    """Dropout, running means, moments, data: everything that a run can lose."""

    def __init__(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also writes down who called it
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)).double()
        self.optimizer = Descent(self.model.parameters())
        self.data = torch.Generator().manual_seed(seed + 1)
        self.losses: list[float] = []

    def go(self, first: int, last: int) -> list[float]:
        """Steps first … last - 1, each with a learning rate of its own."""
        for step in range(first, last):
            self.optimizer.param_groups[0]["lr"] = 0.02 / (1 + step)
            x = torch.randn(6, 4, generator=self.data, dtype=torch.float64)
            loss = (self.model(x).squeeze(-1) - x.sum(-1)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
        return self.losses

    def moments(self) -> list[Tensor]:
        """The optimizer's memory."""
        return [value for state in self.optimizer.state.values() for value in state.values()]


def checkpoints(trial: Trial) -> None:
    """save(path, step) and load(path) → step: the resumed run is the uninterrupted one, bit for bit."""
    with TemporaryDirectory() as name:
        for seed, at in ((3, 3), (8, 2)):
            folder = Path(name, str(seed))
            folder.mkdir()
            path = folder / "run.pt"
            _kill_and_resume(trial, path, seed, at)
        _atomic(trial, path)
        _no_programs(trial, path)


def _functions(trial: Trial, run: _Run) -> tuple[Callable[..., Any], Callable[..., Any]]:
    got = trial.change(run.model, run.optimizer, run.data)
    trial.require(got is not None, "Your function returns nothing: is there a return at its end?", got="None")
    trial.require(
        isinstance(got, tuple | list) and len(got) == 2 and all(map(callable, got)),
        "The answer is two functions, save and load.",
        "(save, load)",
        type(got).__name__,
    )
    return got[0], got[1]


def _save(save: Callable[..., Any], path: Path, step: int) -> None:
    Trial(save).change(path, step)
    others = sorted(file.name for file in path.parent.iterdir() if file != path)
    if not path.exists():
        raise NotRight(
            "There is no file at the path after save(path, step): rename the finished one to it.", str(path.name)
        )
    if others:
        raise NotRight(
            "Something was left beside the file: the temporary one is renamed, not copied, and all is in one file.",
            path.name,
            ", ".join([path.name, *others]),
        )


def _kill_and_resume(trial: Trial, path: Path, seed: int, at: int) -> None:
    whole = _Run(seed)
    whole.go(0, at + 2)

    killed = _Run(seed)
    save, _ = _functions(trial, killed)
    killed.go(0, at - 1)
    _save(save, path, at - 1)  # an earlier one, which the next replaces
    killed.go(at - 1, at)
    _save(save, path, at)
    state = {key: value.clone() for key, value in killed.model.state_dict().items()}
    moments = [value.clone() for value in killed.moments()]
    data, random = killed.data.get_state(), torch.get_rng_state()
    killed.go(at, at + 2)
    trial.require(
        killed.losses == whole.losses,
        "The run that saves is not the run that does not: save must only look, and draw no random numbers.",
    )

    resumed = _Run(seed + 1000)  # another process: other weights, other random numbers
    resumed.data.manual_seed(77)
    _, load = _functions(trial, resumed)
    torch.manual_seed(99)
    step = Trial(load).change(path)
    trial.require(step is not None, "load returns the step from which the run goes on: None came.", str(at), "None")
    trial.like(step, 0)
    trial.require(
        int(step) == at,
        "The count of steps is another: the schedule would begin elsewhere, with a new warm-up perhaps.",
        f"step {at}",
        f"step {step}",
    )
    found = resumed.model.state_dict()
    names = dict(resumed.model.named_parameters())
    for name, value in state.items():
        if not torch.equal(found[name], value):
            trial.fail(
                f"The weight {name} is not the saved one: model.load_state_dict(model.state_dict() as it was saved)."
                if name in names
                else f"{name} is no parameter, yet part of the model: model.state_dict() has it, parameters() has not."
            )
    memory = resumed.moments()
    trial.require(
        len(memory) == len(moments) and all(map(torch.equal, memory, moments)),
        "The optimizer has lost its memory: its running means belong to the run, optimizer.state_dict() has them.",
    )
    trial.require(
        torch.equal(resumed.data.get_state(), data),
        "The data begin elsewhere: the resumed run reads other batches. data.get_state() is where they are.",
    )
    trial.require(
        torch.equal(torch.get_rng_state(), random),
        "Dropout draws other masks than it would have: its random numbers are PyTorch's own, torch.get_rng_state().",
    )
    resumed.go(at, at + 2)
    trial.require(
        resumed.losses == whole.losses[at:],
        "All seems restored, and still the losses differ from the uninterrupted run.",
    )


def _atomic(trial: Trial, path: Path) -> None:
    """The old file, seen through a second name, must stay whole while the new one is written."""
    run = _Run(1)
    save, _ = _functions(trial, run)
    run.go(0, 2)
    _save(save, path, 2)
    old, second = path.read_bytes(), path.parent.parent / "second"
    try:
        os.link(path, second)
    except OSError:  # a file system without second names
        return
    run.go(2, 3)
    _save(save, path, 3)
    trial.require(
        second.read_bytes() == old,
        "The new file was written over the old one: killed half-way, the run would have neither. Write to another name "
        "beside it, then os.replace.",
    )


def _no_programs(trial: Trial, path: Path) -> None:
    """A file that holds a program is refused, and the program does not run."""
    run = _Run(2)
    _, load = _functions(trial, run)
    for content in ("torch", "pickle"):
        _ran.clear()
        if content == "torch":
            torch.save({"model": _Trap()}, path)
        else:
            path.write_bytes(pickle.dumps(_Trap(), protocol=2))
        with contextlib.suppress(Exception):  # it refuses, as it should
            load(path)
        trial.require(
            not _ran,
            "Your load ran a program that stood in the file, as a pickle may: torch.load(path, weights_only=True).",
        )
