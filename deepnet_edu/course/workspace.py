"""The learner's own copy of the lessons and of the pages to which they link: renewed while untouched, never overwritten
once edited."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepnet_edu.course.places import DOCS, LESSONS, PAGES
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError

MANIFEST = ".manifest.json"


@dataclass
class Update:
    """What happened to the workspace.

    Attributes:
        new: lessons copied for the first time.
        renewed: untouched copies that got a newer version.
        beside: edited copies that were kept, with the file that holds the newer version.
    """

    new: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    beside: list[tuple[str, str]] = field(default_factory=list)


def update(workspace: Path, lessons: Path = LESSONS) -> Update:
    """Bring the learner's copies up to date and lose nothing of theirs.

    A copy is untouched if its cells have the sources of the version that was copied, and no outputs. The manifest
    holds the digest of that version. Without a manifest every copy that differs counts as edited.

    Args:
        workspace: the learner's folder; created if missing.
        lessons: the folder of the current lessons. The pages to which they link stand in docs/ beside it; in the
            workspace they lie with the lessons.

    Raises:
        UserError: the workspace cannot be written; every file is whole, old or new.
    """
    result = Update()
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        manifest = _read_manifest(workspace)
        pages = [page for name in PAGES if (page := lessons.parent / DOCS.name / name).exists()]
        for source in [*sorted(lessons.glob("[0-9][0-9]_*.ipynb")), *pages]:
            content = source.read_bytes().replace(f"](../{DOCS.name}/".encode(), b"](")
            current = digest(content)
            copy = workspace / source.name
            known = manifest.get(source.name, {})
            if not copy.exists():
                write_atomic(copy, content)
                result.new.append(source.stem)
            elif digest(copy.read_bytes()) == current:
                pass
            elif digest(copy.read_bytes()) == known.get("copied"):
                write_atomic(copy, content)
                result.renewed.append(source.stem)
            else:
                if current not in (known.get("copied"), known.get("offered")):
                    beside = workspace / f"{source.stem}.new-{current[:8]}{source.suffix}"
                    if not beside.exists():  # by now it may hold the learner's work
                        write_atomic(beside, content)
                    result.beside.append((source.stem, beside.name))
                    manifest[source.name] = {**known, "offered": current}
                continue
            manifest[source.name] = {"copied": current}
        write_atomic(workspace / MANIFEST, json.dumps(manifest, indent=1))
    except OSError as error:
        raise UserError(
            f"The workspace {workspace} cannot be written ({error.strerror}): give yourself the right to write there, "
            "or choose another folder with --workspace."
        ) from error
    return result


def digest(notebook: bytes) -> str:
    """A hash of the cells' sources and outputs; what JupyterLab changes by saving alone (metadata) does not count.

    A file that is not a notebook is hashed as it is.
    """
    try:
        cells = json.loads(notebook)["cells"]
        content = [[cell["cell_type"], "".join(cell["source"]), cell.get("outputs", [])] for cell in cells]
    except (ValueError, KeyError, TypeError):
        return hashlib.sha256(notebook).hexdigest()
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _read_manifest(workspace: Path) -> dict[str, dict[str, Any]]:
    """The manifest, or an empty one if it is missing or damaged: then nothing counts as untouched."""
    try:
        manifest = json.loads((workspace / MANIFEST).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(manifest, dict):
        return {}
    return {name: known for name, known in manifest.items() if isinstance(known, dict)}
