"""In less than three minutes: ruff, mypy, and the quick tests of what changed since main; `make check` calls this.

Which tests: first the changed test files and those named as a changed file of the package; then the quick tests of the
rooms in which something changed, or of the house for what is in no room; then those of the rooms that import these. Of
each the shortest first, until two processes are busy for LIMIT seconds, by tests/durations.json. The rest is named.

Since main: since the branch left it. On main itself, or without it: what is not committed, or else the last commit.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.plugin import Durations, file_of
from tests.run import ROOT, session, where

#: Seconds; with the start of the processes and mypy without its cache, three minutes.
LIMIT = 100
ALWAYS = ["tests/house/test_style.py", "tests/house/test_rooms.py"]


def main() -> None:
    """Choose, say what was chosen, and run it."""
    print(where())
    paths, since = changed()
    print(f"{since}: {len(paths)} files.")
    known = Durations.read(ROOT)
    chosen, late, left_out = choose(by_nearness(paths), known)
    print(f"Tests: {', '.join(chosen)}.")
    if left_out or late:
        print("Left to make test:", ", ".join([*left_out, *by_file(late, known)]) + ".")
    sys.exit(session([*chosen, *(f"--deselect={test}" for test in late)]))


def git(*arguments: str) -> list[str] | None:
    """The lines that git prints; none where it has no answer."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def changed() -> tuple[list[str], str]:
    """Paths, and since when."""
    head, now = git("rev-parse", "HEAD"), git("diff", "--name-only", "HEAD")
    if head is None or now is None:
        return [], "There is no git history here, so that nothing is known to have changed"
    new = git("ls-files", "--others", "--exclude-standard") or []
    base = git("merge-base", "HEAD", "main") or git("merge-base", "HEAD", "origin/main")
    if base and base != head:
        return [*(git("diff", "--name-only", base[0]) or []), *new], f"Since main, {base[0][:7]}"
    if now or new:
        return [*now, *new], "Not committed"
    last = git("diff", "--name-only", "HEAD~1", "HEAD")
    if last is None:
        return [], "Nothing is changed, and git knows no commit before the last"
    return last, f"In the last commit, {head[0][:7]}"


def by_nearness(paths: Iterable[str]) -> list[list[str]]:
    """The test files of these paths, the nearest first; none twice."""
    nearest: list[str] = []
    rooms, all_rooms = set(), False
    for path in map(Path, paths):
        match path.parts:
            case ("tests", *_, name) if name.startswith("test_"):
                nearest.append(str(path))
            case ("tests", room, _, *_):  # what the tests of a room share
                rooms.add(room)
            case ("tests", _):  # what all share
                all_rooms = True
            case ("deepnet_edu", *folders, name):
                nearest.append(str(Path("tests", *folders, f"test_{name}")))
                rooms.add(folders[0] if folders else path.stem)
            case ("solutions", _):
                nearest.append(str(path.with_suffix(".ipynb")))
                rooms.add("house")
            case _:
                rooms.add("house")
    further = importing(rooms)
    if all_rooms:
        further = {room_of(path) for path in (ROOT / "deepnet_edu").rglob("*.py")}
    levels: list[list[str]] = []
    seen = {*ALWAYS}
    for files in (nearest, tests_of(rooms), tests_of(further)):
        levels.append([file for file in dict.fromkeys(files) if file not in seen])
        seen |= {*files}
    return levels


def room_of(path: Path) -> str:
    """The room of a file of the package."""
    return path.relative_to(ROOT / "deepnet_edu").parts[0].removesuffix(".py")


def tests_of(rooms: Iterable[str]) -> list[str]:
    """The test files of rooms."""
    found = [path for room in rooms for path in (ROOT / "tests").glob(f"{room}/**/test_*.py")]
    found += [ROOT / "tests" / f"test_{room}.py" for room in rooms]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def importing(rooms: Iterable[str]) -> set[str]:
    """The rooms with a file that names one of these."""
    files = {path: path.read_text(encoding="utf-8") for path in (ROOT / "deepnet_edu").rglob("*.py")}
    named = re.compile(rf"deepnet_edu\.({'|'.join(rooms) or '-'})\b")
    return {room_of(path) for path, text in files.items() if named.search(text)}


def choose(levels: Sequence[Sequence[str]], known: Durations) -> tuple[list[str], list[str], list[str]]:
    """Test files, those of their long tests that are left out, and test files that are, with their seconds."""
    left = 2.0 * LIMIT - sum(known.files.get(file, 0) for file in ALWAYS)
    chosen, late, left_out = [*ALWAYS], [], []

    def quick(file: str) -> float:
        return known.rest(file) if file in known.files else 0

    for level in levels:
        for file in sorted((file for file in level if (ROOT / file).exists()), key=quick):
            if quick(file) > left:
                left_out.append(f"{file} ({known.files[file]:.0f} s)")
                continue
            chosen.append(file)
            left -= quick(file)
            for test, seconds in known.tests.items():
                if file_of(test) == file:
                    if level is levels[0] and seconds <= left:
                        left -= seconds
                    else:
                        late.append(test)
    return chosen, late, left_out


def by_file(tests: Iterable[str], known: Durations) -> Iterator[str]:
    """The files of long tests, with the seconds of these."""
    seconds: Counter[str] = Counter()
    for test in tests:
        seconds[file_of(test)] += known.tests[test]
    for file, together in seconds.items():
        yield f"long tests of {file} ({together:.0f} s)"


if __name__ == "__main__":
    main()
