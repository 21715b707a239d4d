"""What a run writes in its folder while it trains: a line per step, a line per profile, TensorBoard's events."""

import json
import os
import re
from contextlib import suppress
from io import TextIOWrapper
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from deepnet_edu import files
from deepnet_edu.fields import check
from deepnet_edu.files import parse_json, remedy
from deepnet_edu.messages import UserError
from deepnet_edu.profiles import DepthProfile, History

METRICS, PROFILES, TENSORBOARD = "metrics.csv", "profiles.jsonl", "tensorboard"
#: Of METRICS. loss: nats per token, before the update. gradient_norm: before clipping. scale: of the loss in fp16, else
#: empty. tokens: read so far. seconds: of this step.
COLUMNS = ("step", "loss", "gradient_norm", "learning_rate", "scale", "tokens", "seconds")
_HEADER = ",".join(COLUMNS) + "\n"
#: What of a profile is not by sub-layer.
_PROFILE: dict[str, Any] = {
    "label": str, "input_similarity": dict[str, float | None], "known_errors": dict[str, str],
}  # fmt: skip
#: How a line of either file starts.
_STEP = re.compile(rb'(?:\{"step":)?(\d{1,18}),')


class RunLog:
    """Writes ``metrics.csv``, ``profiles.jsonl`` and, where TensorBoard is installed, its events in ``tensorboard/``.

    Each line goes to the system as soon as it ends: a run that is killed loses the line that is being written at most.
    Use as a context manager.

    Args:
        folder: of the run; it is made if it is not there.
        resume_at: the first step that will be written, from 0, where a run is resumed: lines of that step and later
            ones, written after the checkpoint, are cut away. None for a new run.

    Attributes:
        gap: which of the steps before are not in ``metrics.csv``, a sentence; empty where all are.

    Raises:
        UserError: a new run, and the folder holds one already; ``metrics.csv`` is something else; or the folder cannot
            be written. Nothing was changed.
    """

    def __init__(self, folder: Path, resume_at: int | None = None) -> None:
        self.folder = folder
        self._files: dict[str, TextIOWrapper] = {}
        try:
            self._refuse(resume_at is None)
            folder.mkdir(parents=True, exist_ok=True)
            for name in (METRICS, PROFILES):
                _cut(folder / name, resume_at or 0)
            self.gap = _gap(folder / METRICS, resume_at or 0)
            self._open(METRICS, _HEADER)
        except OSError as error:
            raise _cannot(folder, error) from None
        self._board = _board(folder / TENSORBOARD, resume_at)

    def _refuse(self, new: bool) -> None:
        metrics, profiles = self.folder / METRICS, self.folder / PROFILES
        for path in (metrics, profiles):
            if path.exists() and not path.is_file():
                raise UserError(f"{path} is not a file: move it away, or choose another folder: --out FOLDER.")
        begun = next(metrics.open("rb"), b"") if metrics.is_file() else b""
        if not _HEADER.encode().startswith(begun):
            raise UserError(
                f"{metrics} is not the record of a run: expected a first line {_HEADER.strip()!r}. "
                "Move the file away, or choose another folder: --out FOLDER, or train(…, out=…)."
            )
        steps = metrics.stat().st_size > len(_HEADER) if begun else False
        if new and (steps or profiles.exists() or any(self.folder.glob("checkpoints/step-*"))):
            raise UserError(
                f"{self.folder} holds a run already, and nothing in it was changed: resume it with --resume, or "
                "train(…, resume=True); or choose another folder, --out FOLDER, or train(…, out=…)."
            )

    def write(
        self,
        step: int,
        *,
        loss: float,
        gradient_norm: float,
        learning_rate: float,
        tokens: int,
        seconds: float,
        scale: float | None = None,
    ) -> None:
        """Add a step, counted from 0; the numbers are those of ``COLUMNS``, kept to the last digit.

        Raises:
            UserError: the line cannot be written, for example because the disk is full.
        """
        numbers = {"loss": loss, "gradient_norm": gradient_norm, "learning_rate": learning_rate, "scale": scale}
        shown = ["" if number is None else repr(float(number)) for number in numbers.values()]
        self._add(METRICS, ",".join([str(step), *shown, str(tokens), f"{seconds:.6f}"]))
        if self._board is not None:
            try:
                for name, number in numbers.items():
                    if number is not None:
                        self._board.add_scalar(name, number, step)
            except OSError as error:
                raise _cannot(self.folder / TENSORBOARD, error) from None

    def write_profile(self, step: int, profile: DepthProfile) -> None:
        """Add the stack as it was at a step, to four digits.

        Raises:
            UserError: as :meth:`write`.
        """
        if PROFILES not in self._files:
            try:
                self._open(PROFILES)
            except OSError as error:
                raise _cannot(self.folder / PROFILES, error) from None
        self._add(PROFILES, json.dumps({"step": step, **profile.to_dict()}, separators=(",", ":")))

    def sync(self) -> None:
        """See that all lines are on the disk, as the checkpoint is that follows.

        Raises:
            UserError: as :meth:`write`.
        """
        for name, file in self._files.items():
            try:
                os.fsync(file.fileno())
            except OSError as error:
                raise _cannot(self.folder / name, error) from None

    def close(self) -> None:
        """Close all files."""
        # What could not be written then cannot be now, and was said.
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        if self._board is not None:
            with suppress(OSError):
                self._board.close()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _open(self, name: str, header: str = "") -> None:
        files.write_point(self.folder / name)
        # A line at a time goes to the system; what comes after a kill is then the system's to write.
        file = self._files[name] = (self.folder / name).open("a", buffering=1, encoding="utf-8", newline="\n")
        if header and not file.tell():
            file.write(header)

    def _add(self, name: str, line: str) -> None:
        try:
            files.write_point(self.folder / name)
            self._files[name].write(line + "\n")
        except OSError as error:
            raise _cannot(self.folder / name, error) from None


def _cut(path: Path, step: int) -> None:
    """Cut away the lines of ``step`` and later ones, and the last if it was not written to its end.

    Steps ascend, so the file gets shorter, in one go: it holds the old lines or those that stay, never anything else.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        stays = 0
        for line in file:
            found = _STEP.match(line)
            if not line.endswith(b"\n") or (found and int(found[1]) >= step):
                file.truncate(stays)
                return
            stays += len(line)


def _gap(path: Path, steps: int) -> str:
    """A sentence about the steps before ``steps`` that the file lacks."""
    there = set()
    if path.exists():
        with path.open("rb") as file:
            there = {int(found[1]) for line in file if (found := _STEP.match(line))}
    if len(there) >= steps:
        return ""
    first = next(step for step in count() if step not in there)
    return (
        f"{path} was changed: it lacks {steps - len(there):,} of the {steps:,} steps before the checkpoint, the first "
        f"of them {first}. The run is resumed without them."
    )


def _cannot(path: Path, error: OSError) -> UserError:
    why = error.strerror or str(error)
    return UserError(
        f"{path} cannot be written ({why}): {remedy(why)}, then resume from the last checkpoint with --resume, or "
        "train(…, resume=True); or choose another folder, --out FOLDER, or train(…, out=…)."
    )


def _board(folder: Path, resume_at: int | None) -> Any:
    """TensorBoard's writer, None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception:  # not installed, or broken, and then with errors of many kinds: the CSV is there in any case
        return None
    return SummaryWriter(str(folder), purge_step=resume_at, flush_secs=10)


def read_metrics(folder: Path | str, label: str = "") -> History:
    """The history that a run has written, finished, under way or killed.

    Args:
        folder: of the run.
        label: name of the run, for legends; the folder's own by default.

    Returns:
        The history with its profiles. What was not written to its end is left out.

    Raises:
        UserError: the folder holds no ``metrics.csv``, or it was changed and a line is not a step.
    """
    folder = Path(folder)
    if not (folder / METRICS).is_file():
        raise UserError(f"{folder} holds no {METRICS}: expected the folder of a run, as train(…, out=…) makes it.")
    history = History(label or folder.name)
    for number, line in _lines(folder / METRICS):
        if number == 1 and line + "\n" == _HEADER:
            continue
        try:
            row = dict(zip(COLUMNS, line.split(","), strict=True))
            for name in ("loss", "gradient_norm", "learning_rate", "seconds"):
                getattr(history, name).append(float(row[name]))
            history.tokens.append(int(row["tokens"]))
        except ValueError as error:
            raise _no_step(folder / METRICS, number, line) from error
    if (folder / PROFILES).is_file():
        for number, line in _lines(folder / PROFILES):
            try:
                values = parse_json(line)
                check(step := values.pop("step"), int, "step")
                for name, value in values.items():
                    check(value, _PROFILE.get(name, list[Any] | dict[str, list[Any]]), name)
                history.profiles[step] = DepthProfile.from_dict(values)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise _no_step(folder / PROFILES, number, line) from error
    return history


def _lines(path: Path) -> list[tuple[int, str]]:
    """Lines that were written to their end, numbered from 1."""
    return list(enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1], 1))


def _no_step(path: Path, number: int, line: str) -> UserError:
    return UserError(f"Line {number} of {path} is not what a run writes: {line[:60]!r}. Take the line out, or fix it.")
