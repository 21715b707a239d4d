"""A lesson's head: what its source says of itself, as the first cell, and the way to its neighbours.

The YAML head of solutions/NN_name.py holds it, under ``jupyter:``:

    lesson:
      question: What does x + f(x) do to a signal, a thousand times?
      opening: Two or three sentences that make one want to know.
      objectives: predict the size of a signal at any depth, and …
      prerequisites: lesson 00's first picture.
      minutes: 40
      paper: Section 4, where …

All are Markdown but ``minutes``, the time to work through the lesson. The time to run and the memory are measured:
they come from docs/timings.json, which ``make course`` writes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from nbformat import NotebookNode

from deepnet_edu.course.places import TIMINGS
from deepnet_edu.messages import UserError

_CORES = {2: "two", 4: "four", 8: "eight"}
#: The README's table of lessons starts so, and ends with an empty line.
TABLE = "| | lesson | to run | memory | to work |\n|---|---|---|---|---|\n"
PAPER = "[DeepNet: Scaling Transformers to 1,000 Layers](https://arxiv.org/abs/2203.00555)"


@dataclass(frozen=True)
class Header:
    """What a lesson says of itself.

    Attributes:
        name: of its file without the ending, for example ``01_residual_arithmetic``.
        question: its one question, the title.
        opening: the first paragraphs, Markdown.
        objectives: what the learner will be able to do, Markdown.
        prerequisites: what to know first, Markdown.
        minutes: to work through it.
        paper: where the paper speaks of it, Markdown.
    """

    name: str
    question: str
    opening: str
    objectives: str
    prerequisites: str
    minutes: int
    paper: str

    @property
    def number(self) -> str:
        """For example ``01``."""
        return self.name[:2]


def read_header(notebook: NotebookNode, name: str) -> Header:
    """The head of a lesson's source.

    Raises:
        UserError: it lacks something, or has something that no lesson has; the sentence says what.
    """
    given: dict[str, Any] = dict(notebook.metadata.get("lesson") or {})
    wanted = [field.name for field in fields(Header) if field.name != "name"]
    wrong = [
        key
        for key in wanted
        if not (given.get(key) if key != "minutes" else type(given.get(key)) is int and given[key] > 0)
    ]
    if wrong:
        raise UserError(f"{name}: the head of its source lacks {', '.join(f'lesson.{key}' for key in wrong)}.")
    if odd := sorted(given.keys() - set(wanted)):
        raise UserError(f"{name}: the head of its source has lesson.{odd[0]}; expected only {', '.join(wanted)}.")
    values: dict[str, Any] = {key: value.strip() if isinstance(value, str) else value for key, value in given.items()}
    return Header(name, **values)


def timings() -> dict[str, dict[str, Any]]:
    """What was measured, by lesson and profile: ``seconds`` and ``memory_gb``. Empty if nothing was."""
    lessons: dict[str, dict[str, Any]] = (
        json.loads(TIMINGS.read_text(encoding="utf-8"))["lessons"] if TIMINGS.exists() else {}
    )
    return lessons


def spoken(seconds: float) -> str:
    """A time as people say it, rounded up."""
    for limit, said in ((10, "seconds"), (30, "half a minute"), (60, "a minute")):
        if seconds <= limit:
            return said
    return f"{-(-int(seconds) // 30) / 2:g} minutes".replace(".5", "½")


def measured(name: str) -> str:
    """Time and memory of a lesson as its head says it; says less where less was measured."""
    runs = timings().get(name, {})
    parts = [
        f"{spoken(run['seconds'])} on {_CORES.get(run['cores'], run['cores'])} CPU cores"
        if profile == "cpu"
        else f"{spoken(run['seconds'])} on one {run['device']}"
        for profile, run in runs.items()
        if profile in ("cpu", "gpu")
    ]
    if not parts:
        return ""
    memory = runs.get("cpu", {}).get("memory_gb")
    return f"{' or '.join(parts)} to run{f', {memory:.1f} GB of memory' if memory else ''}; "


def table(headers: Sequence[Header]) -> str:
    """The README's rows: question, what was measured under ``cpu``, and minutes to work."""
    rows = []
    for header in headers:
        run = timings().get(header.name, {}).get("cpu", {})
        time, memory = (spoken(run["seconds"]), f"{run['memory_gb']:.1f} GB") if run else ("not measured", "")
        rows.append(f"| {header.number} | {header.question} | {time} | {memory} | {header.minutes} min |\n")
    return TABLE + "".join(rows)


def first_cell(header: Header) -> str:
    """Title, opening, and the five lines that every lesson has."""
    return f"""# {header.number} · {header.question}

{header.opening}

- **You will be able to** {header.objectives}
- **You need** {header.prerequisites}
- **It takes** {measured(header.name)}about {header.minutes} minutes to work through.
- **The paper**: {PAPER}, {header.paper}"""


def navigation(header: Header, headers: Sequence[Header]) -> str:
    """The last cell: the lessons before and after, as links between files that lie side by side."""
    before = [other for other in headers if other.name < header.name][-1:]
    after = [other for other in headers if other.name > header.name][:1]
    links = [f"← [{other.number} · {other.question}]({other.name}.ipynb)" for other in before]
    links += [f"[{other.number} · {other.question}]({other.name}.ipynb) →" for other in after]
    return "---\n\n" + " &nbsp;·&nbsp; ".join(links)
