"""What a notebook imports: ``from deepnet_edu.course import kit``.

Pictures, widgets and training are loaded when a lesson first uses them, so that its first cell answers soon.
"""

import contextlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from deepnet_edu.course.places import BENCHMARKS, CLONE, NEEDS_CLONE, PROFILES, RECORD_MIME, RECORDS
from deepnet_edu.files import read_json
from deepnet_edu.lazy import lazily
from deepnet_edu.messages import unknown
from deepnet_edu.progress import next_step, note_opened, progress_file

if TYPE_CHECKING:
    from deepnet_edu.course.answers import earlier, mine_or_reference, shipped
    from deepnet_edu.course.finding import finding
    from deepnet_edu.course.guess import Guess
    from deepnet_edu.course.live import LiveLoss, LivePicture, train_live

__all__ = [
    "Guess",
    "LiveLoss",
    "LivePicture",
    "Results",
    "course_progress",
    "earlier",
    "finding",
    "mine_or_reference",
    "profile",
    "record",
    "setup",
    "shipped",
    "train_live",
]

_NAMES = {
    "answers": ["earlier", "mine_or_reference", "shipped"],
    "finding": ["finding"],
    "guess": ["Guess"],
    "live": ["LiveLoss", "LivePicture", "train_live"],
}
__getattr__ = lazily(__name__, {name: home for home, names in _NAMES.items() for name in names}, package=__package__)


def profile() -> str:
    """The size at which a lesson runs: the environment variable DEEPNET_EDU_PROFILE, else ``"cpu"``.

    ``smoke``: seconds, for tests; ``cpu``: about two minutes on two cores; ``gpu``: the real size on one GPU;
    ``record``: up to an hour, and what :class:`Results` reads is made first.

    Raises:
        ValueError: the variable names no profile.
    """
    name = os.environ.get("DEEPNET_EDU_PROFILE", "cpu")
    if name not in PROFILES:
        raise ValueError(unknown("DEEPNET_EDU_PROFILE", name, PROFILES))
    return name


def setup(seed: int, profile: str) -> torch.device:
    """Make a notebook repeatable and quick: seed, threads, denormal numbers, figure style. Returns the device to use.

    On the CPU one thread: the lessons' matrices are small, and sharing one between threads costs more than it saves.
    Numbers below 1e-38 become 0: the vanished gradients of a Post-LN stack would otherwise take five times as long.
    A warning is its sentence, without the kernel's file of that cell.

    Raises:
        RuntimeError: the profile is ``"gpu"`` and there is none.
    """
    if profile == "gpu" and not torch.cuda.is_available():
        raise RuntimeError(
            "The profile is 'gpu', but PyTorch sees no CUDA device: run deepnet-edu doctor, or use 'cpu'."
        )
    from deepnet_edu.figures.style import use

    use()
    if file := progress_file():
        with contextlib.suppress(OSError):  # a folder that cannot be written must not keep anybody from learning
            note_opened(file)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    warnings.formatwarning = _sentence
    return torch.device("cuda" if profile in ("gpu", "record") and torch.cuda.is_available() else "cpu")


def _sentence(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
    return f"{category.__name__}: {message}\n"


def record(**values: float | int | str | bool | Sequence[float]) -> None:
    """Put numbers into the notebook where programs find them: ``kit.record(final_loss=0.28)``.

    They are an output with a MIME type of its own, shown as text. ``deepnet-edu run`` collects them.

    Args:
        values: numbers, texts, truth values, or lists of numbers, by name. Tensors and arrays are taken as numbers.

    Raises:
        ValueError: no value was given, or one that JSON cannot hold, such as NaN.
    """
    if not values:
        raise ValueError("There is nothing to record: give values by name, for example kit.record(final_loss=0.28).")
    plain = {name: _plain(value) for name, value in values.items()}
    for name, value in plain.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(f"{name}={value!r} cannot be recorded: expected a finite number, text or list.") from None
    shown = ", ".join(f"{name} = {_short(value)}" for name, value in plain.items())
    from IPython.display import display

    display({RECORD_MIME: plain, "text/plain": f"recorded: {shown}"}, raw=True)


def _short(value: Any) -> str:
    """As a page shows it: four significant digits, in lists too."""
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """A value without tensors, arrays and NumPy's numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


class CourseProgress:
    """How far you are: a line per lesson, and what is next. Shows itself as a table, or as plain text in a terminal."""

    def __init__(self) -> None:
        from deepnet_edu.checks import check

        self.lessons = check.progress()

    def __repr__(self) -> str:
        return "\n".join([*map(str, self.lessons), next_step(self.lessons)])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("lesson", "done", "tried", "open", "minutes", "next"))
        rows = [
            (one.lesson, len(one.done), len(one.tried), len(one.open), round(one.seconds / 60), one.next)
            for one in self.lessons
        ]
        body = "".join("<tr>" + "".join(f"<td>{value}</td>" for value in row) + "</tr>" for row in rows)
        return f"<table><tr>{head}</tr>{body}</table><p>{next_step(self.lessons)}</p>"


def course_progress() -> CourseProgress:
    """What is done, tried and open in every lesson, the time spent, and what to do next.

    It is read from the file that ``deepnet-edu lab`` names to its notebooks; elsewhere it is what this notebook has
    seen.
    """
    return CourseProgress()


class Results:
    """Committed results of runs that take too long for a lesson.

    Under the profile ``record`` their script runs first: it makes what is missing.

    Attributes:
        head: what, command, date, device, versions, shape and recipe.
        runs: a row per run.

    Args:
        name: its file in the package, without the ending.

    Raises:
        FileNotFoundError: no such record; the sentence says which command makes it.
        subprocess.CalledProcessError: under the profile ``record``: the script failed.
    """

    def __init__(self, name: str) -> None:
        script = BENCHMARKS / f"{name}.py"
        if profile() == "record":
            if not script.exists():
                raise FileNotFoundError(f"There is no {script} to make the record with. {NEEDS_CLONE}")
            subprocess.run([sys.executable, str(script)], check=True)
        path = RECORDS / f"{name}.json"
        if not path.exists():
            remedy = f"Make it with python benchmarks/{name}.py" if CLONE else NEEDS_CLONE
            raise FileNotFoundError(f"There is no record {name}.json. {remedy}")
        self.head: dict[str, Any] = read_json(path)
        self.runs: list[dict[str, Any]] = self.head.pop("runs")

    def select(self, **wanted: Any) -> list[dict[str, Any]]:
        """The runs whose settings equal ``wanted``.

        Raises:
            ValueError: there is none; the sentence names the settings.
        """
        rows = [run for run in self.runs if all(run.get(name) == value for name, value in wanted.items())]
        if not rows:
            raise ValueError(f"The record has no run with {wanted}: make it with {self.head['command']}")
        return rows

    def source(self) -> str:
        """A line for under a picture: where the curves come from."""
        versions = ", ".join(f"{name} {version}" for name, version in self.head["versions"].items())
        return f"recorded {self.head['date']}, {self.head['device']}, {versions}; remake with: {self.head['command']}"
