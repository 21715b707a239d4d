"""What a batch will run: notebooks × parameters × seeds, checked against the notebooks before anything starts.

A run is identified by the hashes of its notebook and of the package's source, by its profile and its parameters: what
has the same identity need not run again.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepnet_edu.batch.parameters import defaults_of, split, value_of
from deepnet_edu.batch.state import Status
from deepnet_edu.course import places
from deepnet_edu.course.places import PROFILES
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
        working: folder from which paths of notebooks start, and in which they stand; the current one if empty.
    """

    notebooks: tuple[str, ...]
    profile: str = "cpu"
    given: tuple[str, ...] = ()
    sweeps: tuple[str, ...] = ()
    seeds: int = 0
    working: str = ""

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "Request":
        """From JSON, which knows no tuples.

        Raises:
            KeyError: something is missing.
            TypeError: something is of another type.
        """
        notebooks, given, sweeps = (tuple(found[name]) for name in ("notebooks", "given", "sweeps"))
        working = str(found.get("working", ""))
        return cls(notebooks, str(found["profile"]), given, sweeps, int(found["seeds"]), working)

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
class Notebook:
    """A notebook that runs are made of.

    Attributes:
        name: its stem.
        path: where it stands.
        data: the file, as it was when the batch was planned.
        sha256: of ``data``.
        kernel: what its metadata name.
        parameters: source of the cell tagged ``parameters``; None if there is no such cell.
        cells: how many.
    """

    name: str
    path: Path
    data: bytes = field(repr=False)
    sha256: str
    kernel: str = "python3"
    parameters: str | None = field(default=None, repr=False)
    cells: int = 0


@dataclass
class Plan:
    """What a batch will run.

    Attributes:
        request: what was asked for.
        package: hash of the package's source.
        notebooks: by the id of their runs.
        runs: in order; what cannot run at all is failed already, with the sentence why.
    """

    request: Request
    package: str
    notebooks: dict[str, Notebook] = field(default_factory=dict)
    runs: list[Status] = field(default_factory=list)


def make_plan(request: Request, working: Path | None = None) -> Plan:
    """The runs of a request.

    Args:
        request: what the user asked for.
        working: folder in which, besides the clone, notebooks may stand; the current one by default.

    Raises:
        UserError: a profile that does not exist, a parameter that cannot be read, or nothing that can run at all. Where
            only some notebooks cannot run, each of them becomes a failed run with its sentence.
    """
    if request.profile not in PROFILES:
        raise UserError(unknown("profile", request.profile, PROFILES))
    if request.seeds < 0:
        raise UserError(f"--seeds {request.seeds}: expected 1 or more.")
    _refuse_too_many(request)
    texts, plan, told = request.texts(), Plan(request, places.package_digest()), now()
    sentences: list[str] = []
    for given in dict.fromkeys(request.notebooks):
        try:
            notebook = read_notebook(find_notebook(given, working or Path.cwd()))
            twin = next((one for one in plan.notebooks.values() if one.data == notebook.data), notebook)
            if twin.path != notebook.path and twin.name == notebook.name:  # beside it may stand other modules
                raise UserError(f"{given} is the same notebook as {_shown(twin.path)}: give it a batch of its own.")
            defaults = {}
            if texts:  # as it stands, a notebook is papermill's matter
                defaults = defaults_of(notebook.name, notebook.path.name, notebook.parameters)
            choices = {
                name: [value_of(notebook.name, defaults, name, text) for text in values]
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
        for values in combinations:
            parameters = dict(zip(choices, values, strict=True))
            identity = _id(notebook.name, notebook.sha256, plan.package, request.profile, parameters)
            if identity not in plan.notebooks:
                plan.notebooks[identity] = notebook
                hashes = {"notebook": notebook.sha256, "package": plan.package}
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
    """The solution of a lesson, or a notebook inside the working folder or the clone.

    Raises:
        UserError: there is none, it stands elsewhere, or its path leads nowhere.
    """
    path = working / given
    try:
        if given.endswith(".ipynb") and (path.exists() or given.removesuffix(".ipynb") not in places.lesson_names()):
            if not inside(path, working):
                raise UserError(f"{given} stands outside the working folder {working}: change to its folder first.")
            if not path.is_file():
                raise UserError(f"There is no notebook {given} in {working}.")
            return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a link to itself, a zero in the name
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{given} cannot be opened ({why}): expected the path of a notebook.") from None
    lesson = places.find_lesson(given)
    solution = places.SOLUTIONS / f"{lesson}.ipynb"
    if not solution.exists():
        raise UserError(f"{lesson} has no solution yet: make it with deepnet-edu build {lesson[:2]}.")
    return solution


def inside(path: Path, working: Path) -> bool:
    """Whether a path, its links followed, lies in the working folder or in the clone."""
    real = path.resolve()
    return any(real.is_relative_to(folder.resolve()) for folder in (working, places.ROOT))


def read_notebook(path: Path) -> Notebook:
    """What must be known of a notebook before it runs.

    Raises:
        UserError: it is no notebook, not one for Python, or its kernel is not installed.
    """
    try:
        data = path.read_bytes()
        content = json.loads(data)
        cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        sources = ["".join(cell["source"]) for cell in cells]
        tagged = ["parameters" in cell["metadata"].get("tags", []) for cell in cells]
        metadata, cells_in_all = content["metadata"], len(content["cells"])
        spec = metadata.get("kernelspec", {})
        language = metadata.get("language_info", {}).get("name") or spec.get("language", "python")
        if not isinstance(kernel := spec.get("name", "python3"), str):
            raise TypeError("a name is a text")
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
        raise UserError(f"{path.name} is no notebook of format 4: open it in JupyterLab and save it again.") from None
    if language != "python":
        raise UserError(f"{path.name} is a notebook for {language}: expected one for Python.")
    if kernel != "python3":  # which always comes along
        from jupyter_client.kernelspec import find_kernel_specs

        if kernel not in (known := find_kernel_specs()):
            raise UserError(f"{path.name}: {unknown('kernel', kernel, known)}")
    parameters = sources[tagged.index(True)] if True in tagged else None
    return Notebook(path.stem, path, data, hashlib.sha256(data).hexdigest(), kernel, parameters, cells_in_all)


def _shown(path: Path) -> str:
    """A path as people read it: from the clone on if it stands there."""
    return str(path.relative_to(places.ROOT)) if path.is_relative_to(places.ROOT) else str(path)


def _id(stem: str, notebook: str, package: str, profile: str, parameters: Mapping[str, Any]) -> str:
    """A readable name that differs where anything differs that a run depends on."""
    text = json.dumps([notebook, package, profile, parameters], sort_keys=True)
    safe = "".join(letter if letter.isalnum() or letter in "._-+" else "_" for letter in stem)[:60]
    return f"{safe}.{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def table(runs: Sequence[Status]) -> list[list[str]]:
    """A row per run: id, notebook, profile, parameters, state."""
    return [
        [run.id, run.notebook, run.profile, " ".join(f"{k}={v}" for k, v in run.parameters.items()), run.state]
        for run in runs
    ]
