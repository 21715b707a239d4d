"""One pytest session in two processes: what they share out, and in which order. Loaded by ``-p tests.plugin``.

A unit of work is a file. In a file of more than ten seconds, each test of more than one is a unit of its own. All tests
of one ``pytest.mark.xdist_group``, of whichever files, are one unit; so is a notebook, which is one kernel.

The longest unit begins first, by what tests/durations.json says, so that both processes end together; a unit that it
does not know begins before all. Whatever is left out or selected, a test does not depend on another's having run.

No conftest could do this: those of tests/ do not see the notebooks in solutions/.
"""

import json
import random
from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

#: Seconds.
LONG_FILE, LONG_TEST = 10, 1
SHOWN = 15


@dataclass(frozen=True)
class Durations:
    """Seconds of each file, and of the long tests of long files, where they are units of their own."""

    files: dict[str, float] = field(default_factory=dict)
    tests: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, seconds: dict[str, float]) -> "Durations":
        """From the seconds of each test, given as xdist names it."""
        files: Counter[str] = Counter()
        for item, length in seconds.items():
            files[file_of(item)] += length
        tests = {
            item: round(length, 1)
            for item, length in sorted(seconds.items())
            if length > LONG_TEST and files[file_of(item)] > LONG_FILE
            if not split(item)[1] and not is_notebook(file_of(item))
        }
        return cls({file: round(length, 1) for file, length in sorted(files.items())}, tests)

    @classmethod
    def read(cls, root: Path) -> "Durations":
        """What is known in this repository."""
        path = root / "tests" / "durations.json"
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else cls()

    def write(self, root: Path) -> None:
        """Keep them, a line each."""
        text = json.dumps({"files": self.files, "tests": self.tests}, indent=1, ensure_ascii=False)
        (root / "tests" / "durations.json").write_text(text + "\n", encoding="utf-8")

    def rest(self, file: str) -> float:
        """Seconds of a file without the tests that are units of their own; infinite for a file that is not known."""
        if file not in self.files:
            return inf
        return max(0.0, self.files[file] - sum(length for test, length in self.tests.items() if file_of(test) == file))

    def unit(self, item: str) -> str:
        """The unit of a test, given as xdist names it."""
        test, group = split(item)
        return group or (test if test in self.tests else file_of(test))

    def units(self, items: Iterable[str]) -> dict[str, float]:
        """All units of these tests with their seconds."""
        names = {item: split(item)[0] for item in items}
        short = Counter(file_of(test) for test in names.values() if test not in self.tests)
        each = {file: self.rest(file) / many for file, many in short.items()}
        lengths: Counter[str] = Counter()
        for item, test in names.items():
            lengths[self.unit(item)] += self.tests.get(test, each.get(file_of(test), 0))
        return lengths


def file_of(test: str) -> str:
    """The path in a test's name."""
    return test.partition("::")[0]


def is_notebook(file: str) -> bool:
    """Whether nbval runs it."""
    return file.endswith(".ipynb")


def split(item: str) -> tuple[str, str]:
    """A test's name and its group, which follows the name after an @: see :func:`name_group`."""
    if item.rfind("@") > item.rfind("]"):
        test, _, group = item.rpartition("@")
        return test, group
    return item, ""


class LongestFirst(LoadScopeScheduling):
    """xdist's scheduler of units that stay together, with our units."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        self.known = Durations.read(config.rootpath)

    def _split_scope(self, nodeid: str) -> str:
        return self.known.unit(nodeid)


class Times:
    """What took how long, at the end; and a process that was lost is a failure, even if it had nothing left to do."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.seconds: Counter[str] = Counter()
        self.lost = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the seconds of a test's setup, call or teardown."""
        self.seconds[report.nodeid] += getattr(report, "duration", 0)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object, error: object) -> None:
        """Remember that a process was lost."""
        self.lost |= bool(error)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the slowest units."""
        if not self.seconds:
            return
        known = Durations.read(self.config.rootpath)
        units: Counter[str] = Counter()
        for item, length in self.seconds.items():
            units[known.unit(item)] += length
        terminalreporter.section("slowest units")
        for unit, length in units.most_common(SHOWN):
            terminalreporter.write_line(f"{length:7.1f} s  {unit}")
        terminalreporter.write_line(f"{sum(units.values()):7.1f} s  in {len(units)} units")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Keep the durations of a session that has passed."""
        if self.lost and not exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif not exitstatus and self.config.option.keep_durations:
            Durations.of(self.seconds).write(self.config.rootpath)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--keep-durations`` and ``--order``."""
    parser.addoption("--keep-durations", action="store_true", help="write tests/durations.json, if all tests pass")
    parser.addoption("--order", help="of the tests: reversed, or by chance, from this seed", metavar="reversed|SEED")


def pytest_configure(config: pytest.Config) -> None:
    """Times are taken where all reports arrive."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Times(config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LongestFirst:
    """Ours."""
    config.option.loadscopereorder = False  # in the order of the tests, not by how many a unit has
    return LongestFirst(config, log)


def name_group(item: pytest.Item) -> None:
    """Write a test's group behind its name, which is all that the process that shares out knows of it.

    xdist 3.8 does so for ``--dist loadgroup``, but in an attribute that pytest 9.2 does not read any more.
    """
    group = item.get_closest_marker("xdist_group")
    if group is not None:
        item._id = type(item._id).parse(f"{item.nodeid}@{group.args[0]}")  # type: ignore[attr-defined]


@pytest.hookimpl(trylast=True)  # when conftests have given their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests of the longest unit first, or in the order that was asked for: one that depends on it fails there."""
    shared = hasattr(config, "workerinput")
    for item in items if shared else ():
        name_group(item)
    if order := config.option.order:
        items.reverse() if order == "reversed" else random.Random(order).shuffle(items)
    elif shared:
        known = Durations.read(config.rootpath)
        lengths = known.units(item.nodeid for item in items)
        items.sort(key=lambda item: -lengths[known.unit(item.nodeid)])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A notebook's kernel, which starts with its first cell, runs it at the size of a smoke test."""
    with pytest.MonkeyPatch.context() as patch:
        if is_notebook(item.path.name):
            patch.setenv("DEEPNET_EDU_PROFILE", "smoke")
        return (yield)
