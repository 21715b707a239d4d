"""The learner's own copy of the lessons and of the pages to which they link: renewed while untouched, never overwritten
once edited."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepnet_edu.course.places import DOCS, LESSONS, PAGES
from deepnet_edu.files import parse_json, read_bytes, read_json, write_atomic
from deepnet_edu.messages import UserError
from deepnet_edu.progress import locked

MANIFEST = ".manifest.json"
#: Another update takes less, in seconds.
_PATIENCE = 30.0
#: What git leaves in a file that two people changed.
_CONFLICT = re.compile(rb"^(<<<<<<< .*|>>>>>>> .*)$", re.MULTILINE)


@dataclass
class Update:
    """What happened to the workspace.

    Attributes:
        new: lessons copied for the first time.
        renewed: untouched copies that got a newer version.
        beside: edited copies that were kept, with the file that holds the newer version.
        broken: copies that JupyterLab cannot open, each with a sentence that says why and what to do.
    """

    new: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    beside: list[tuple[str, str]] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)


def update(workspace: Path, lessons: Path = LESSONS) -> Update:
    """Bring the learner's copies up to date and lose nothing of theirs.

    A copy is untouched if its cells have the sources, tags and attachments of the version that was copied, and no
    outputs. The manifest holds the digest of that version. Without a manifest every copy that differs counts as edited.

    Args:
        workspace: the learner's folder; created if missing.
        lessons: the folder of the current lessons. The pages to which they link are in docs/ beside it; in the
            workspace they are beside the lessons.

    Raises:
        UserError: the workspace cannot be written; every file is whole, old or new.
    """
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        with locked(workspace / MANIFEST, _PATIENCE):
            return _update(workspace, lessons)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room there" if full else "give yourself the right to write there"
        raise UserError(
            f"The workspace {workspace} cannot be written ({error.strerror}): {remedy}, "
            "or choose another folder with --workspace."
        ) from error


def _update(workspace: Path, lessons: Path) -> Update:
    result = Update()
    manifest = _read_manifest(workspace)
    pages = [page for name in PAGES if (page := lessons.parent / DOCS.name / name).exists()]
    for source in [*sorted(lessons.glob("[0-9][0-9]_*.ipynb")), *pages]:
        content = source.read_bytes().replace(f"](../{DOCS.name}/".encode(), b"](")
        copy, known = workspace / source.name, manifest.get(source.name, {})
        _finish(copy)
        if problem := trouble(copy):
            result.broken.append((source.stem, problem))
            if not copy.is_file():
                continue
        current = digest(content)
        if not copy.exists():
            write_atomic(copy, content)
            result.new.append(source.stem)
        elif digest(copy.read_bytes()) == current:
            pass
        elif _untouched(copy, known) and _renew(copy, content, known):
            result.renewed.append(source.stem)
        else:
            if not {current, digest(content, marks=False)} & {known.get("copied"), known.get("offered")}:
                beside = workspace / f"{source.stem}.new-{current[:8]}{source.suffix}"
                if not beside.exists():  # by now it may hold the learner's work
                    write_atomic(beside, content)
                result.beside.append((source.stem, beside.name))
                manifest[source.name] = {**known, "offered": current}
            continue
        manifest[source.name] = {"copied": current, "marks": True}
    write_atomic(workspace / MANIFEST, json.dumps(manifest, indent=1))
    return result


def trouble(copy: Path) -> str:
    """Why JupyterLab cannot open a learner's copy, and what to do, in a sentence; empty if it can, or there is none."""
    fresh = f"Or move {copy.name} away: deepnet-edu lab then gives you a fresh copy."
    if copy.is_symlink() and not copy.exists():
        return f"{copy.name} is a link to {os.readlink(copy)}, which is not there: is its disk connected? {fresh}"
    if not copy.exists():
        return ""
    try:
        content = read_bytes(copy)
        if found := _CONFLICT.search(content):
            line = content[: found.start()].count(b"\n") + 1
            return (
                f"{copy.name} has git's conflict markers (line {line}: {found[0].decode(errors='replace')[:40]}), so "
                "JupyterLab cannot open it: in a text editor, keep one of the two versions between <<<<<<< and "
                f">>>>>>>. {fresh}"
            )
        if copy.suffix == ".ipynb":
            notebook = parse_json(content.decode())
            if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
                raise ValueError("it has no cells")
    except UnicodeDecodeError:
        return f"{copy.name} is not UTF-8, so JupyterLab cannot open it: restore it from a backup. {fresh}"
    except ValueError as error:
        return f"{copy.name} is not a notebook that JupyterLab can open: {error}. Restore it from a backup. {fresh}"
    return ""


def digest(notebook: bytes, marks: bool = True) -> str:
    """A hash of the cells' sources and outputs; what JupyterLab changes by saving alone (metadata) does not count.

    A file that is not a notebook is hashed as it is.

    Args:
        notebook: the file's content.
        marks: tags and attachments of cells count too; older manifests are without them.
    """
    try:
        cells = parse_json(notebook.decode())["cells"]
        content = [[cell["cell_type"], "".join(cell["source"]), cell.get("outputs", [])] for cell in cells]
        if marks:
            content = [
                [*one, cell.get("metadata", {}).get("tags", []), cell.get("attachments", {})]
                for one, cell in zip(content, cells, strict=True)
            ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return hashlib.sha256(notebook).hexdigest()
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _untouched(copy: Path, known: dict[str, Any]) -> bool:
    return digest(copy.read_bytes(), marks=known.get("marks") is True) == known.get("copied")


def _parts(copy: Path) -> tuple[Path, Path]:
    """Where a newer version waits, and where the old one does, while one replaces the other."""
    return copy.with_name(f".{copy.name}.new.part"), copy.with_name(f".{copy.name}.old.part")


def _renew(copy: Path, content: bytes, known: dict[str, Any]) -> bool:
    """Replace an untouched copy. What JupyterLab saves at this moment is not lost: the old version is moved away,
    compared once more, and the new one put only where nothing is.

    Returns:
        Whether it was replaced.
    """
    copy = Path(os.path.realpath(copy))  # a learner's link leads to where they keep it
    new, old = _parts(copy)
    write_atomic(new, content)
    shutil.copymode(copy, new)
    os.replace(copy, old)
    put = _put(new, copy) if _untouched(old, known) else _put(old, copy) and False
    new.unlink(missing_ok=True)
    old.unlink(missing_ok=True)
    return put


def _put(source: Path, to: Path) -> bool:
    """Give a file another name, unless there is one of that name."""
    try:
        os.link(source, to)
    except FileExistsError:
        return False
    except OSError:  # a disk without hard links
        if to.exists():
            return False
        os.rename(source, to)
    return True


def _finish(copy: Path) -> None:
    """Tidy up after an update that was killed: an old version whose place is empty goes back there."""
    copy = Path(os.path.realpath(copy))
    new, old = _parts(copy)
    if old.exists() and not copy.exists():
        os.replace(old, copy)
    left = [new, old, *copy.parent.glob(f".{copy.name}.*.part"), *copy.parent.glob(f".{new.name}.*.part")]
    for path in left:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _read_manifest(workspace: Path) -> dict[str, dict[str, Any]]:
    """The manifest, or an empty one if it is missing or damaged: then nothing counts as untouched."""
    try:
        manifest = read_json(workspace / MANIFEST)
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(manifest, dict):
        return {}
    return {name: known for name, known in manifest.items() if isinstance(known, dict)}
