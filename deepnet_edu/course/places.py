"""Where things are in a clone of the project and in a notebook, and lessons by name."""

import hashlib
import json
from pathlib import Path

from deepnet_edu.messages import UserError, unknown

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "deepnet_edu"
#: Whether the package is used from a clone, or was installed alone.
CLONE = (ROOT / "install.py").is_file() and (ROOT / "solutions").is_dir()
#: What an installed package has of a clone's top: setup.py puts it there.
MATERIAL = Path(__file__).with_name("material")
_TOP = MATERIAL if MATERIAL.is_dir() else ROOT
LESSONS = _TOP / "lessons"
DOCS = _TOP / "docs"
#: Pages to which lessons link by name alone: they are in docs/, and in a workspace beside the lessons.
PAGES = ("glossary.md", "notation.md")
SOLUTIONS = _TOP / "solutions"
BENCHMARKS = ROOT / "benchmarks"
#: The records that lessons read; they are in the package, so that a lesson needs no clone.
RECORDS = Path(__file__).with_name("records")
RESULTS = BENCHMARKS / "results" if CLONE else RECORDS
REFERENCES = Path(__file__).with_name("references")
IMAGES = DOCS / "images"
TIMINGS = DOCS / "timings.json"
RUNS = (ROOT if CLONE else Path()) / "runs"
#: What ``kit.record`` writes and ``deepnet-edu run`` collects.
RECORD_MIME = "application/vnd.deepnet-edu.record+json"
WORKSPACE = (ROOT if CLONE else Path()) / "workspace"
#: The sentence for what only a clone has.
NEEDS_CLONE = "The package is installed alone: clone the project, and run python install.py in the clone."
#: Sizes at which a lesson runs.
PROFILES = ("smoke", "cpu", "gpu", "record")
#: Modules of the room ``course`` that no notebook imports.
_APART = (
    "build", "connection", "doctor", "exercises", "glossary", "header", "lab", "mathjax", "slides", "workspace",
)  # fmt: skip


def lesson_names(folder: Path = LESSONS, ending: str = "ipynb") -> list[str]:
    """Names of all lessons in order, for example ``00_a_thousand_layers``.

    Args:
        folder: where to look.
        ending: of the files that count.

    Raises:
        UserError: there are none; an installed package has no sources of lessons.
    """
    names = sorted(path.stem for path in folder.glob(f"[0-9][0-9]_*.{ending}"))
    if not names:
        what = "sources of lessons" if ending == "py" else "lessons"
        raise UserError(f"There are no {what} in {folder}. {NEEDS_CLONE}")
    return names


def find_lesson(given: str, folder: Path = LESSONS, ending: str = "ipynb") -> str:
    """The lesson that ``given`` names: its number, its name, or its file name.

    Raises:
        UserError: there is no such lesson; the sentence names the nearest.
    """
    names = lesson_names(folder, ending)
    stem = given.removesuffix(f".{ending}")
    for name in names:
        if stem in (name, name[:2]):
            return name
    raise UserError(unknown("lesson", given, names))


def benchmark_names() -> list[str]:
    """The scripts in benchmarks/ that can be started; none where the package is installed without its clone."""
    scripts = sorted(BENCHMARKS.glob("*.py")) if CLONE else []
    return [path.stem for path in scripts if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]


def find_benchmark(given: str) -> Path:
    """The script of a benchmark.

    Raises:
        UserError: there is none of this name, or the package is installed without its clone.
    """
    names = benchmark_names()
    if not names:
        raise UserError(f"There are no benchmarks here. {NEEDS_CLONE}")
    if given not in names:
        raise UserError(unknown("benchmark", given, names))
    return BENCHMARKS / f"{given}.py"


def package_digest() -> str:
    """SHA-256 of all that a notebook's outputs may depend on besides its own cells: what it can import, and the
    records."""
    apart = [path for room in ("batch", "cli") for path in (PACKAGE / room).glob("*.py")]
    apart += [PACKAGE / "course" / f"{name}.py" for name in _APART]
    apart += [path for room in ("export", "grading") for path in (PACKAGE / "course" / room).glob("*.py")]
    apart += RESULTS.glob("batch_*.json")  # which no notebook reads
    files = sorted({*PACKAGE.rglob("*.py"), *RECORDS.glob("*.json"), *RESULTS.glob("*.json")} - {*apart})
    lines = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()
