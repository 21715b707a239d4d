"""What goes along with a notebook: modules that it imports from its folder, and data there that it names.

A run works in a folder of its own. Modules are found beside the notebook; files that its text names are lent: copied
into the run's folder before it begins, and taken back afterwards unless the run has changed them.
"""

import ast
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: All that is lent to a run; what does not fit is left to --cwd.
MOST_BYTES, MOST_FILES = 100 * 2**20, 1000
#: What the runner itself keeps in a run's folder.
_RESERVED = {"status.json", "claim.json", "lock.json", "log.txt", "notebook.ipynb", "partial.ipynb"}
#: Marks of folders that are not data: a batch, batches, a package.
_APART = ("batch.json", "*/batch.json", "__init__.py")
_RUN = re.compile(r"^\s*%run\s+(?:-\S+\s+)*(\S+)", re.MULTILINE)


def modules(sources: Sequence[str], folders: Sequence[Path]) -> dict[str, Path]:
    """Modules in some folders that cells import, and what those import from there in turn.

    Args:
        sources: of the cells.
        folders: the first one that has a module counts.

    Returns:
        Files by their paths from their folder. Of a package that is imported, all modules.
    """
    found: dict[str, Path] = {}
    waiting, seen = [*sources], {"deepnet_edu"}
    while waiting:
        for name in _imported(waiting.pop()) - seen:
            seen.add(name)
            for folder in folders:
                new = {one.relative_to(folder).as_posix(): one for one in _module(folder, name)}
                if new:
                    waiting += texts({key: one for key, one in new.items() if key not in found})
                    found |= new
                    break
    return dict(sorted(found.items()))


def files(sources: Sequence[str], notebook: Path) -> dict[str, Path]:
    """Files beside a notebook that a text in it names, directly or by a folder that they are in.

    Args:
        sources: of the cells and of its modules.
        notebook: its path.

    Returns:
        Files by their paths from the notebook's folder.
    """
    found: dict[str, Path] = {}
    size = 0
    named = {os.path.normpath(text) for source in sources for text in _names(source)}
    for name in sorted(named):
        first = next(iter(Path(name).parts), "..")
        if first in _RESERVED or first == ".." or os.path.isabs(name):
            continue
        new = {one.relative_to(notebook.parent).as_posix(): one for one in _readable(notebook.parent / name, notebook)}
        new = {key: one for key, one in new.items() if key not in found}
        needed = sum(one.stat().st_size for one in new.values())
        if len(found) + len(new) <= MOST_FILES and size + needed <= MOST_BYTES:
            found |= new
            size += needed
    return found


def digest(together: Mapping[str, Path]) -> str:
    """SHA-256 of names and contents; empty if there are none."""
    if not together:
        return ""
    lines = []
    for name, path in sorted(together.items()):
        try:
            lines.append([name, hashlib.sha256(path.read_bytes()).hexdigest()])
        except OSError:  # it has gone
            lines.append([name, ""])
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def texts(together: Mapping[str, Path]) -> list[str]:
    """The sources of modules that can be read."""
    found = []
    for path in together.values():
        if path.suffix == ".py":
            with suppress(OSError, ValueError):
                found.append(path.read_text(encoding="utf-8"))
    return found


def lend(lent: Mapping[str, Path], folder: Path) -> None:
    """Copy files into a run's folder, in place of what an earlier attempt has left there.

    Raises:
        OSError: the disk is full, or one cannot be read.
    """
    for first in {Path(name).parts[0] for name in lent}:
        left = folder / first  # it may be a link that leads anywhere
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink(missing_ok=True)
    for name, path in lent.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
        times = path.stat()
        os.utime(folder / name, ns=(times.st_atime_ns, times.st_mtime_ns))


def take_back(lent: Mapping[str, Path], folder: Path) -> None:
    """Remove copies that a run has not changed, and folders that are empty then."""
    for name, path in lent.items():
        copy = folder / name
        with suppress(OSError):  # the run may have put anything there
            mine, theirs = copy.lstat(), path.stat()
            if (mine.st_size, mine.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns):
                copy.unlink()
                for parent in list(Path(name).parents)[:-1]:
                    (folder / parent).rmdir()


def _python(source: str) -> ast.Module | None:
    """The Python of a cell, without its magics; None if it cannot be read."""
    lines = [re.sub(r"^(\s*)(?:[%!?].*|.*\?)$", r"\1pass", line) for line in source.splitlines()]
    lines = [re.sub(r"^(\s*[\w, ]+=\s*)[%!].*", r"\1None", line) for line in lines]
    try:
        return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _imported(source: str) -> set[str]:
    """Names of the modules that are imported, the first part of each; a script of %run counts as one."""
    found = {Path(name.strip("'\"")).name.removesuffix(".py") for name in _RUN.findall(source)}
    if (tree := _python(source)) is None:
        found |= {*re.findall(r"^\s*(?:import|from)\s+(\w+)", source, re.MULTILINE)}
    for node in ast.walk(tree or ast.Module([], [])):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return {name for name in found if name.isidentifier()}


def _module(folder: Path, name: str) -> Iterator[Path]:
    with suppress(OSError):
        if (folder / name).is_dir():
            yield from sorted(one for one in (folder / name).rglob("*.py") if one.is_file())[:MOST_FILES]
        yield from (one for one in folder.glob(f"{name}.*") if one.suffix in (".py", ".so", ".pyd") and one.is_file())


def _names(source: str) -> Iterator[str]:
    """Texts that can name a file: those of Python, and the words of magics and of what they hand to a shell."""
    tree = _python(source)
    for node in ast.walk(tree or ast.Module([], [])):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value.strip()
            if 0 < len(text) < 200 and text.isprintable():
                yield text
    lines = source.splitlines()
    for line in lines if tree is None or source.startswith("%%") else filter(re.compile(r"[^#]*[%!]").match, lines):
        yield from re.findall(r"[\w./-]{1,200}", line)


def _readable(path: Path, notebook: Path) -> Iterator[Path]:
    """The file, or the files in the folder; not the notebook itself."""
    with suppress(OSError, ValueError):
        if path.is_file() and path != notebook and os.access(path, os.R_OK):
            yield path
        elif path.is_dir() and not any(one for pattern in _APART for one in path.glob(pattern)):
            for number, one in enumerate(path.rglob("*")):
                if number > 10 * MOST_FILES:
                    return
                if one.is_file() and "__pycache__" not in one.parts and os.access(one, os.R_OK):
                    yield one
