"""What a run keeps in its folder: metrics, profiles, checkpoints; one writer, whatever else is started there."""

import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

from deepnet_edu.files import remedy
from deepnet_edu.messages import UserError
from deepnet_edu.profiles import DepthProfile, History
from deepnet_edu.training.checkpoint import checkpoints, load, save, tidy
from deepnet_edu.training.claim import Claim, claimed
from deepnet_edu.training.distributed.ranks import Ranks
from deepnet_edu.training.integrity import FOLDER, SavedState, step_of, unfit
from deepnet_edu.training.log import METRICS, RunLog, read_metrics
from deepnet_edu.training.step import StepResult, TrainStep


class RunFolder:
    """The folder of a run; of many ranks the first writes it, but for checkpoints, of which each writes its part.

    Args:
        folder: of the run.
        step: of this process.
        task: the data; a checkpoint keeps its place, if it has one.
        generator: that batches are drawn from.
        ranks: None for one process.
        entered: what ends with the run.

    Attributes:
        history: of the run so far, where this process writes it; None elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        step: TrainStep,
        task: Any,
        generator: torch.Generator,
        ranks: Ranks | None,
        entered: ExitStack,
    ) -> None:
        self.folder, self.step, self.task, self.generator, self.ranks = folder, step, task, generator, ranks
        self.history: History | None = None
        self._entered = entered
        self._claim: Claim | None = None
        self._log: RunLog | None = None

    def begin(self, steps: int, resume: bool) -> int:
        """Claim the folder, load the last checkpoint where the run is resumed, and open the log.

        Returns:
            Tokens that were read so far.

        Raises:
            UserError: the folder holds a run already, or its checkpoint cannot be used; another process writes there.
        """
        tokens = 0
        self._on_first(lambda: self._claim_it(resume))
        if resume and (earlier := self._on_first(lambda: checkpoints(self.folder))):
            _ahead(earlier[-1], steps)
            tokens = self._load(earlier[-1]).tokens
        at = self.step.count if resume else None
        self._on_first(lambda: self._open(at))
        return tokens

    def write(self, i: int, result: StepResult, tokens: int, seconds: float, profile: DepthProfile | None) -> None:
        """A line for step ``i``, and its profile if it was watched."""
        if self._claim is not None:
            self._claim.hold()
        if self._log is not None:
            line = {name: value for name, value in asdict(result).items() if name != "skipped"}
            self._log.write(i, **line, tokens=tokens, seconds=seconds)
            if profile is not None:
                self._log.write_profile(i, profile)

    def save(self, tokens: int) -> Path:
        """A checkpoint of now, behind all lines so far."""
        if self._log is not None:
            self._log.sync()
        rest = self.generator, tokens, _state(self.task), identity(self.task)
        if self.step.sees_all:
            return save(self.folder, self.step, *rest)
        from deepnet_edu.training.distributed import checkpoint as shared  # as long to load as PyTorch itself

        return shared.save(self.folder, self.step, *rest)  # type: ignore[arg-type]

    def _on_first(self, work: Any) -> Any:
        """Call a function on the first rank alone, where there are many."""
        return work() if self.ranks is None else self.ranks.on_first(work)

    def _load(self, path: Path) -> SavedState:
        def place(state: dict[str, Any]) -> None:
            if (bool(state) and not hasattr(self.task, "load_state")) or (not state and _state(self.task)):
                remembers = "remember their place" if state else "do not remember their place"
                raise unfit(path, f"it is of data that {remembers}, unlike these")
            if state:
                self.task.load_state(state)

        step, reads = self.step, identity(self.task)
        if step.sees_all:
            found = load(path, step, self.generator, reads, place)
        else:
            from deepnet_edu.training.distributed import checkpoint as shared

            found = shared.load(path, step, self.generator, reads, place)  # type: ignore[arg-type]
        if found.reads is None:
            _say(f"{path} does not say which data it is of, as older ones do not: see that these are the same.")
        return found

    def _claim_it(self, resume: bool) -> None:
        """Be the only writer of the folder of a run, which has all that a run that is resumed must have."""
        folder = self.folder
        self._claim = self._entered.enter_context(claimed(folder, last=True))
        try:
            tidy(folder)
            steps = resume and not checkpoints(folder) and len((folder / METRICS).read_bytes().splitlines()) > 1
            if steps and (folder / FOLDER).exists():
                _say(f"{folder} has no checkpoint: the run begins at its first step again.")
            elif steps:
                raise UserError(
                    f"{folder / METRICS} has the steps of a run, and {folder / FOLDER} is gone: put it back, or begin "
                    "the run again in another folder, with --out FOLDER, or train(…, out=…)."
                )
        except FileNotFoundError:  # no step was taken yet
            pass
        except OSError as error:
            why = error.strerror or str(error)
            raise UserError(f"{error.filename or folder}: {why}: {remedy(why)}, or choose another folder.") from None

    def _open(self, at: int | None) -> None:
        """The log of a run whose first step to come is ``at``, None for a new one."""
        self._log = self._entered.enter_context(RunLog(self.folder, at))
        with suppress(OSError):  # then the first checkpoint will say it
            (self.folder / FOLDER).mkdir(exist_ok=True)
        if self._log.gap:
            _say(self._log.gap)
        self.history = read_metrics(self.folder, self.step.model.config.title)


def _ahead(path: Path, steps: int) -> None:
    """Refuse to resume a run at an end that it has passed."""
    if (done := step_of(path) or 0) > steps:
        raise UserError(f"{path} has {done} steps already, and steps={steps}: resume with steps={done} or more.")


def _say(sentence: str) -> None:
    with suppress(OSError):  # the terminal was closed
        print(sentence, file=sys.stderr)


def _state(task: Any) -> dict[str, Any]:
    state = getattr(task, "state", None)
    return {} if state is None else state()


def identity(task: Any) -> dict[str, Any]:
    """What the data are, plain JSON; empty where the task does not say."""
    if (said := getattr(task, "identity", None)) is not None:
        return dict(said)
    names: list[str] = [field.name for field in fields(task)] if is_dataclass(task) else []
    known = {name: getattr(task, name) for name in names}
    return {name: value for name, value in known.items() if isinstance(value, int | float | str | bool)}
