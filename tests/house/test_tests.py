"""tests/ mirrors the package, and shares itself out over two processes so that none waits for the other."""

import os
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest

from deepnet_edu.course.places import PACKAGE, ROOT
from tests import check
from tests.plugin import Durations

TESTS = ROOT / "tests"
KNOWN = Durations(
    {"tests/a.py": 20.0, "tests/b.py": 3.0, "tests/c.py": 30.0, "tests/d.py": 5.0, "solutions/x.ipynb": 40.0},
    {"tests/a.py::long": 12.0, "tests/a.py::test[x@y]": 2.0},
)


def test_each_folder_is_a_room() -> None:
    found = {path.name for path in TESTS.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert found - rooms == {"browser", "house", "notebooks", "peers"}


def test_each_file_outside_a_folder_is_a_room() -> None:
    found = {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")}
    assert found <= {path.stem for path in PACKAGE.iterdir()}


def test_durations_are_of_files_that_exist() -> None:
    known = Durations.read(ROOT)
    there = [
        file for file in known.files if not file.startswith("tests/model/fast/") or (ROOT / "tests/model/fast").exists()
    ]
    assert [file for file in there if not (ROOT / file).is_file()] == []
    assert {test.partition("::")[0] for test in known.tests} <= known.files.keys()
    assert known == Durations(dict(sorted(known.files.items())), dict(sorted(known.tests.items())))


def test_units_are_files_groups_and_long_tests() -> None:
    items = [
        "tests/a.py::short", "tests/a.py::long", "tests/a.py::test[x@y]", "tests/b.py::one@both",
        "tests/d.py::two@both", "tests/c.py::Class::test",
        "solutions/x.ipynb::Cell 0", "solutions/x.ipynb::Cell 1", "tests/new.py::test",
    ]  # fmt: skip
    assert KNOWN.units(items) == {
        "tests/a.py": 6, "tests/a.py::long": 12, "tests/a.py::test[x@y]": 2, "both": 8, "tests/c.py": 30,
        "solutions/x.ipynb": 40, "tests/new.py": inf,
    }  # fmt: skip


def test_long_tests_of_long_files_are_kept_by_themselves() -> None:
    seconds = {"tests/a.py::y": 0.26, "tests/a.py::x": 10.0, "tests/b.py::x": 9.0, "solutions/x.ipynb::Cell 0": 11.0}
    known = Durations.of({**seconds, "tests/c.py::x@group": 12.0})
    assert known.files == {"solutions/x.ipynb": 11.0, "tests/a.py": 10.3, "tests/b.py": 9.0, "tests/c.py": 12.0}
    assert known.tests == {"tests/a.py::x": 10.0}


#: A conftest.
BEGUN = """
import os

def pytest_runtest_setup(item):
    with open(os.environ["PYTEST_XDIST_WORKER"], "a") as file:
        print(item.nodeid, file=file)
"""


def in_two_processes(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a session of the tests in a folder says."""
    return session(folder, "-n", "2", *arguments)


def session(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same, in one process."""
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-p", "tests.plugin"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [*command, "--max-worker-restart=0", "-p", "no:cacheprovider", *arguments, "tests"], cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with three test files, whose tests write down in which process they began."""
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "tests").mkdir()
    (tmp_path / "conftest.py").write_text(BEGUN)
    for name in "abc":
        (tmp_path / "tests" / f"test_{name}.py").write_text("def test_1(): pass\ndef test_2(): pass\n")
    return tmp_path


def test_the_longest_begins_first_and_what_it_took_is_kept(folder: Path) -> None:
    files = {f"tests/test_{name}.py": seconds for name, seconds in zip("abc", (1.0, 50.0, 20.0), strict=True)}
    Durations(files, {"tests/test_b.py::test_2": 15.0}).write(folder)
    found = in_two_processes(folder, "--keep-durations")
    assert found.returncode == 0, found.stdout + found.stderr
    begun = [(folder / f"gw{which}").read_text().split() for which in (0, 1)]
    assert {tests[0] for tests in begun} == {"tests/test_b.py::test_1", "tests/test_c.py::test_1"}
    assert sorted(begun[0] + begun[1]) == [f"tests/test_{name}.py::test_{which}" for name in "abc" for which in (1, 2)]
    measured = Durations.read(folder)
    assert measured.files.keys() == files.keys()
    assert not measured.tests


def test_another_order_is_the_same_twice(folder: Path) -> None:
    (folder / "conftest.py").unlink()

    def order(*asked: str) -> list[str]:
        found = session(folder, "--collect-only", "-q", *asked)
        assert found.returncode == 0, found.stdout + found.stderr
        return [line for line in found.stdout.splitlines() if "::" in line]

    forward = order()
    assert order("--order=reversed") == forward[::-1]
    assert sorted(by_chance := order("--order=7")) == forward
    assert by_chance == order("--order=7") not in (forward, forward[::-1], order("--order=8"))


def test_a_group_stays_on_one_process(folder: Path) -> None:
    marked = 'import pytest\npytestmark = pytest.mark.xdist_group("pair")\n'
    for name in "ac":
        path = folder / "tests" / f"test_{name}.py"
        path.write_text(marked + path.read_text())
    found = in_two_processes(folder)
    assert found.returncode == 0, found.stdout + found.stderr
    begun = [(folder / f"gw{which}").read_text().split() for which in (0, 1)]
    pair = {f"tests/test_{name}.py::test_{which}@pair" for name in "ac" for which in (1, 2)}
    assert pair in [{*tests} for tests in begun]


def test_a_process_that_dies_fails_the_session(folder: Path) -> None:
    (folder / "tests" / "test_d.py").write_text("import os\ndef test_dies(): os._exit(0)\n")
    found = in_two_processes(folder)
    assert found.returncode != 0
    assert "crashed while running 'tests/test_d.py::test_dies'" in found.stdout


def test_a_process_that_dies_at_its_end_fails_the_session(folder: Path) -> None:
    (folder / "conftest.py").write_text(
        "import os\ndef pytest_sessionfinish(session):\n    if hasattr(session.config, 'workerinput'): os._exit(0)\n"
    )
    found = in_two_processes(folder)
    assert "6 passed" in found.stdout
    assert found.returncode == 1


def test_since_when_files_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "ROOT", tmp_path)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def commit(name: str) -> None:
        (tmp_path / name).write_text(name)
        assert check.git("add", ".") is not None
        assert check.git("-c", "user.name=x", "-c", "user.email=x", "commit", "-m", name) is not None

    assert check.changed() == ([], "There is no git history here, so that nothing is known to have changed")
    check.git("init", "--initial-branch=main")
    commit("first")
    assert check.changed() == ([], "Nothing is changed, and git knows no commit before the last")
    commit("second")
    assert check.changed()[0] == ["second"]
    (tmp_path / "new").touch()
    (tmp_path / "first").write_text("edited")
    assert check.changed() == (["first", "new"], "Not committed")
    check.git("checkout", "-b", "branch")
    commit("third")
    (tmp_path / "fourth").touch()
    files, since = check.changed()
    assert files == ["first", "new", "third", "fourth"]
    assert since.startswith("Since main, ")
    check.git("branch", "-m", "main", "trunk")
    assert check.changed() == (["fourth"], "Not committed")


def test_what_is_checked_after_a_change() -> None:
    nearest, rooms, further = check.by_nearness(["deepnet_edu/planning/time.py", "tests/test_lock.py", "README.md"])
    assert nearest == ["tests/planning/test_time.py", "tests/test_lock.py"]
    assert "tests/planning/test_memory.py" in rooms
    assert "tests/house/test_docs.py" in rooms
    assert "tests/training/test_step.py" in further
    assert not {*nearest} & {*rooms, *further, *check.ALWAYS}


def test_what_does_not_fit_is_left_to_make_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "LIMIT", 20)
    monkeypatch.setattr(check, "ALWAYS", [])
    monkeypatch.setattr(Path, "exists", lambda path: True)
    chosen, late, left_out = check.choose([["tests/new.py", "tests/a.py"], ["tests/c.py", "tests/b.py"]], KNOWN)
    assert chosen == ["tests/new.py", "tests/a.py", "tests/b.py"]
    assert late == []
    assert left_out == ["tests/c.py (30 s)"]
