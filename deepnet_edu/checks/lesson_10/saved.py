"""The judge of lesson 10's checkpoints: a small run is saved and killed, and another process must resume it exactly.

What was forgotten is said piece by piece, before the runs are compared bit for bit.
"""

import contextlib
import operator
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import NotRight, Trial
from deepnet_edu.checks.lesson_10.optimizer import Optimizer

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
        self.optimizer = Optimizer(self.model.parameters())
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


class _Watch:
    """What is done to the file at a path, by the names in the calls that Python makes of the system.

    Attributes:
        removed: whether it was removed or given another name.
        sources: what was given its name.
    """

    def __init__(self, path: Path) -> None:
        self.path = _place(path)
        self.removed = False
        self.sources: list[Path] = []

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An event that changes names."""
        names = [_place(one) for one in arguments[:2] if isinstance(one, str | bytes | os.PathLike)]
        self.removed |= event in ("os.remove", "os.rename") and names[:1] == [self.path]
        if event in ("os.rename", "os.link") and names[1:] == [self.path]:
            self.sources += names[:1]


def _place(path: Any) -> Path:
    """A path by its folder's real name."""
    folder, name = os.path.split(os.fsdecode(path))
    return Path(os.path.realpath(folder), name)


_watches: list[_Watch] = []
_hooked: list[bool] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watches and event in ("os.remove", "os.rename", "os.link"):
        _watches[-1].see(event, arguments)


@contextlib.contextmanager
def _watching(path: Path) -> Iterator[_Watch]:
    """Python has such hooks for ever, so there is one, which does nothing at other times."""
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked.append(True)
    _watches.append(_Watch(path))
    try:
        yield _watches[-1]
    finally:
        _watches.pop()


def checkpoints(trial: Trial) -> None:
    """save: put model.state_dict(), optimizer.state_dict(), data.get_state(), torch.get_rng_state() and step into one
    dictionary, torch.save it under another name beside path, then os.replace(part, path). load: torch.load(path,
    weights_only=True), hand each of the five back to where it came from, and return the step.
    """
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


def _save(trial: Trial, save: Callable[..., Any], path: Path, step: int) -> None:
    with _watching(path) as watch:
        Trial(save, "save").change(path, step)
    others = sorted(file.name for file in path.parent.iterdir() if file != path)
    trial.require(
        path.exists(),
        "There is no file at the path after save(path, step): rename the finished one to it.",
        path.name,
        ", ".join(others),
    )
    trial.require(
        not others,
        "Something was left beside the file: the temporary one is renamed, not copied, and all is in one file.",
        path.name,
        ", ".join([path.name, *others]),
    )
    trial.require(
        not watch.removed,
        "For a moment there was no file at the path: a run killed then would have none under its name. "
        "os.replace puts the new file in the place of the old one at once.",
    )
    trial.require(
        bool(watch.sources),
        "The file was written under its own name: a run killed half-way leaves half a file. Write to another name "
        "beside it, then os.replace.",
    )
    trial.require(
        watch.path.parent in watch.sources[-1].parents,
        "The temporary file was in another folder: that may be on another disk, where a file cannot be renamed to "
        "the path, and two runs would share it. Write beside the path.",
        str(watch.path.parent),
        str(watch.sources[-1].parent),
    )


def _load(trial: Trial, load: Callable[..., Any], path: Path) -> int:
    """The step that it returns."""
    try:
        step = Trial(load, "load").change(path)
    except NotRight as wrong:
        if "UnpicklingError" in wrong.sentence:
            trial.fail(
                "torch.load with weights_only=True takes tensors, numbers and texts, and your save has written whole "
                "objects: save the state_dict() of the model and of the optimizer."
            )
        raise
    trial.require(
        step is not None, "load returns the step from which the run resumes: yours returned None.", "a number", "None"
    )
    trial.like(step, 0)
    try:
        return operator.index(step)
    except TypeError:
        trial.fail("load returns a whole number, at which range can continue.")


def _kill_and_resume(trial: Trial, path: Path, seed: int, at: int) -> None:
    whole = _Run(seed)
    whole.go(0, at + 2)

    killed = _Run(seed)
    save, _ = _functions(trial, killed)
    killed.go(0, at - 1)
    _save(trial, save, path, at - 1)  # an earlier one, which the next replaces
    earlier = Path(shutil.copy(path, path.parent.with_suffix(".earlier")))
    killed.go(at - 1, at)
    _save(trial, save, path, at)
    state = {key: value.clone() for key, value in killed.model.state_dict().items()}
    moments = [value.clone() for value in killed.moments()]
    data, random = killed.data.get_state(), torch.get_rng_state()
    killed.go(at, at + 2)
    trial.require(
        killed.losses == whole.losses,
        "Saving changed the run: save must only read, and draw no random numbers.",
    )

    resumed = _Run(seed + 1000)  # another process: other weights, other random numbers
    resumed.data.manual_seed(77)
    _, load = _functions(trial, resumed)
    torch.manual_seed(99)
    step = _load(trial, load, path)
    trial.require(
        step == at,
        "The count of steps is wrong: the schedule would begin elsewhere, perhaps with a new warm-up.",
        f"step {at}",
        f"step {step}",
    )
    found = resumed.model.state_dict()
    names = dict(resumed.model.named_parameters())
    for name, value in state.items():
        if not torch.equal(found[name], value):
            trial.fail(
                f"The weight {name} is not the saved one: model.load_state_dict puts it back."
                if name in names
                else f"{name} is not a parameter, but part of the model: state_dict() has it, parameters() does not."
            )
    memory = resumed.moments()
    trial.require(
        len(memory) == len(moments) and all(map(torch.equal, memory, moments)),
        "The optimizer has lost its memory: its running means belong to the run.",
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
        "All seems restored, and still the losses differ from the uninterrupted run: does the optimizer still have the "
        "model's own parameters?",
    )
    step = _load(trial, load, earlier)
    trial.require(
        step == at - 1,
        "An earlier file was loaded, and the step is not that of the file: load has to read what is in the file.",
        f"step {at - 1}",
        f"step {step}",
    )


def _atomic(trial: Trial, path: Path) -> None:
    """The old file, seen through a second name, must stay whole while the new one is written."""
    run = _Run(1)
    save, _ = _functions(trial, run)
    run.go(0, 2)
    _save(trial, save, path, 2)
    old, second = path.read_bytes(), path.parent.parent / "second"
    try:
        os.link(path, second)
    except OSError:  # a file system without second names
        return
    run.go(2, 3)
    _save(trial, save, path, 3)
    trial.require(
        second.read_bytes() == old,
        "The new file was written over the old one: a run killed half-way would have neither.",
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
            "Your load ran a program that was in the file, as a pickle may: torch.load(path, weights_only=True).",
        )
