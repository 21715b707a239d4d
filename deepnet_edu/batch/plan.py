"""What a batch will run: notebooks × parameters × seeds, checked against the notebooks before anything starts.

A run is identified by the hashes of its notebook, of what goes along with it and of the package's source, by its
profile and its parameters, and by kernel and working folder where those were chosen: what has the same identity need
not run again.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deepnet_edu.batch.notebook import Notebook, read_notebook
from deepnet_edu.batch.state import Status
from deepnet_edu.batch.values import defaults_of, split, value_of
from deepnet_edu.course import places
from deepnet_edu.course.places import PROFILES
from deepnet_edu.fields import from_dict
from deepnet_edu.lock import now
from deepnet_edu.messages import UserError, shown, unknown

#: Runs of a batch: each is a folder, and a line of its table.
MOST_RUNS = 10_000


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        notebooks: numbers or names of lessons, or paths of notebooks.
        profile: one of ``places.PROFILES``.
        given: parameters as ``NAME=VALUE``.
        sweeps: parameters as ``NAME=VALUE,VALUE``; several sweeps are multiplied.
        seeds: how many values SEED takes, from 0 on; 0 leaves it alone.
        working: folder from which paths of notebooks start; the current one if empty.
        kernel: that runs the notebooks; if empty, the one that each of them names.
        cwd: folder in which the notebooks run, or ``"notebook"`` for the one that each of them is in; if empty,
            the folder of its run.
    """

    notebooks: tuple[str, ...]
    profile: str = "cpu"
    given: tuple[str, ...] = ()
    sweeps: tuple[str, ...] = ()
    seeds: int = 0
    working: str = ""
    kernel: str = ""
    cwd: str = ""

    @classmethod
    def from_dict(cls, found: Any) -> "Request":
        """A request from JSON, which knows no tuples.

        Raises:
            ValueError: something is missing, unknown, or of another type.
        """
        read = from_dict(cls, found)
        if not 0 <= read.seeds <= MOST_RUNS:
            raise ValueError(f"seeds: expected a number from 0 to {MOST_RUNS}")
        return replace(read, notebooks=tuple(read.notebooks), given=tuple(read.given), sweeps=tuple(read.sweeps))

    def texts(self) -> dict[str, list[str]]:
        """Values by parameter, as they were typed.

        Raises:
            UserError: one cannot be read, or names a parameter twice.
        """
        found: dict[str, list[str]] = {}
        for option, example, texts in (
            ("--set", "NAME=VALUE, for example --set DEPTH=100", self.given),
            ("--sweep", "NAME=VALUE,VALUE, for example --sweep DEPTH=100,200", self.sweeps),
            ("--seeds", "a number", [f"SEED={','.join(map(str, range(self.seeds)))}"] if self.seeds else []),
        ):
            for text in texts:
                name, equals, value = text.partition("=")
                if not equals or not name:
                    raise UserError(f"Cannot read the parameter {shown(text)}: expected {example}.")
                if name in found:
                    raise UserError(f"{option} {text}: {name} has a value already: say it once.")
                found[name] = [value] if option == "--set" else split(value)
        return found


@dataclass
class BatchPlan:
    """What a batch will run.

    Attributes:
        request: what was asked for.
        package: hash of the package's source.
        notebooks: by the id of their runs.
        runs: in order; what cannot run at all is failed already, with the sentence why.
        notes: what the user should know of them, a sentence each.
    """

    request: Request
    package: str
    notebooks: dict[str, Notebook] = field(default_factory=dict)
    runs: list[Status] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_plan(
    request: Request, working: Path | None = None, kept: Mapping[str, tuple[Path, Path]] | None = None
) -> BatchPlan:
    """The runs of a request.

    Args:
        request: what the user asked for.
        working: folder from which paths of notebooks start; the current one by default.
        kept: by what was given, notebooks that are gone from their places: where each was, and a copy of it.

    Raises:
        UserError: a profile that does not exist, a parameter that cannot be read, too many runs, or nothing that can
            run at all. Where only some notebooks cannot run, each of them becomes a failed run with its sentence.
    """
    if request.profile not in PROFILES:
        raise UserError(unknown("profile", request.profile, PROFILES))
    if request.seeds < 0:
        raise UserError(f"--seeds {request.seeds}: expected 1 or more.")
    if request.cwd not in ("", "notebook") and not (folder := (working or Path.cwd()) / request.cwd).is_dir():
        raise UserError(f"--cwd {request.cwd}: there is no folder {folder}.")
    _refuse_too_many(request)
    texts, plan, told = request.texts(), BatchPlan(request, places.package_digest()), now()
    sentences: list[str] = []
    for given in dict.fromkeys(request.notebooks):
        try:
            path, copy = (kept or {}).get(given) or (find_notebook(given, working or Path.cwd()), None)
            notebook = read_notebook(path, request.kernel, _working(request.cwd, path, working or Path.cwd()), copy)
            twin = next((one for one in plan.notebooks.values() if one.data == notebook.data), notebook)
            if twin.path != notebook.path and twin.name == notebook.name:  # there may be other modules beside it
                raise UserError(f"{given} is the same notebook as {_shown(twin.path)}: give it a batch of its own.")
            known = defaults_of(notebook) if texts else {}  # a notebook as it is, is papermill's matter
            choices = {
                name: [value_of(notebook.name, known, name, text) for text in values]
                for name, values in sorted(texts.items(), key=lambda item: item[0] == "SEED")  # seeds of a run together
            }
        except UserError as error:
            sentences.append(str(error))
            stem = Path(given).name.removesuffix(".ipynb")
            run = Status(_id(stem, "", plan.package, request.profile, {"": given}), stem, source=given)
            run.state, run.problems = "failed", [str(error)]
            combinations: Iterable[tuple[Any, ...]] = []
            plan.runs.append(run)
        else:
            combinations = itertools.product(*choices.values())
            free = [name for name in choices if known[name][1] is None and name != "PROFILE"]
            if free:
                shown = ", ".join(f"{name} = {known[name][0]}" for name in free)
                plan.notes.append(f"{notebook.name}: types of what is computed there cannot be checked: {shown}.")
            plan.notes += [notebook.note] if notebook.note else []
        for values in combinations:
            parameters = dict(zip(choices, values, strict=True))
            chosen = {"kernel": request.kernel, "cwd": request.cwd, "beside": notebook.beside}
            identity = _id(notebook.name, notebook.sha256, plan.package, request.profile, parameters, chosen)
            if identity not in plan.notebooks:
                plan.notebooks[identity] = notebook
                hashes = {"notebook": notebook.sha256, "package": plan.package}
                hashes |= {"beside": notebook.beside} if notebook.beside else {}
                run = Status(
                    identity, notebook.name, source=_shown(notebook.path), parameters=parameters, hashes=hashes
                )
                run.seed = parameters.get("SEED", 0) if type(parameters.get("SEED", 0)) is int else 0
                plan.runs.append(run)
    for run in plan.runs:
        run.profile, run.queued = request.profile, told
    if sentences and not plan.notebooks:
        raise UserError(sentences[0])
    return plan


def _refuse_too_many(request: Request) -> None:
    """Count the runs before they are planned."""
    values = [len(split(text.partition("=")[2])) for text in request.sweeps]
    runs = len(set(request.notebooks)) * math.prod(values) * max(request.seeds, 1)
    if runs > MOST_RUNS:
        raise UserError(
            f"That makes {runs:,} runs, each with a folder of its own; one after the other, at ten seconds each, they "
            f"take {runs / 8640:,.0f} days. A batch has {MOST_RUNS:,} at most: use fewer --seeds or values of --sweep."
        )


def find_notebook(given: str, working: Path) -> Path:
    """The solution of a lesson, or a notebook by its path.

    Raises:
        UserError: there is none, or its path leads nowhere.
    """
    path = working / given
    try:
        if given.endswith(".ipynb") and (path.exists() or given.removesuffix(".ipynb") not in places.lesson_names()):
            real = path.resolve()
            if not real.is_file():
                raise UserError(f"There is no notebook {given} in {working}.")
            return real
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a link to itself, a zero in the name
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{given} cannot be opened ({why}): expected the path of a notebook.") from None
    lesson = places.find_lesson(given)
    solution = places.SOLUTIONS / f"{lesson}.ipynb"
    if not solution.exists():
        raise UserError(f"{lesson} has no solution yet: make it with deepnet-edu build {lesson[:2]}.")
    return solution


def _shown(path: Path) -> str:
    """A path as people read it: from the clone on if it is there."""
    return str(path.relative_to(places.ROOT)) if path.is_relative_to(places.ROOT) else str(path)


def _working(cwd: str, notebook: Path, working: Path) -> Path | None:
    """The folder in which a notebook runs, if not its run's."""
    return None if not cwd else notebook.parent if cwd == "notebook" else (working / cwd).resolve()


def _id(
    stem: str,
    notebook: str,
    package: str,
    profile: str,
    parameters: Mapping[str, Any],
    chosen: Mapping[str, str] | None = None,
) -> str:
    """A readable name that differs where anything differs that a run depends on."""
    others = {name: one for name, one in (chosen or {}).items() if one}
    text = json.dumps([notebook, package, profile, parameters, *([others] if others else [])], sort_keys=True)
    safe = "".join(letter if letter.isalnum() or letter in "._-+" else "_" for letter in stem)[:60]
    return f"{safe}.{hashlib.sha256(text.encode()).hexdigest()[:12]}"
