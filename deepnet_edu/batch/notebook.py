"""A notebook as it is read before anything runs: its cells, its kernel, and what goes along with it."""

import hashlib
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepnet_edu.batch import beside
from deepnet_edu.batch.parameters import INJECTED, TAG
from deepnet_edu.batch.worker import OWN_KERNEL
from deepnet_edu.files import parse_json, read_bytes
from deepnet_edu.messages import UserError, unknown

_PYTHON = ("python", "ipython")
_CONFLICT = re.compile(rb"^(<<<<<<< |=======\r?$|>>>>>>> )", re.MULTILINE)


@dataclass
class Notebook:
    """A notebook that runs are made of.

    Attributes:
        name: its stem.
        path: where it is.
        data: the file, as it was when the batch was planned.
        sha256: of ``data``.
        kernel: that runs it.
        parameters: source of the cell tagged ``parameters``; None if there is no such cell.
        cells: how many.
        working: folder in which it runs; None for the folder of its run.
        modules: what it imports from beside it, directly or not, by the path from there.
        files: data beside it that it names, lent to its runs.
        beside: hash of both; empty if there are none.
        note: a sentence that the user should read; empty if there is none.
    """

    name: str
    path: Path
    data: bytes = field(repr=False)
    sha256: str
    kernel: str = OWN_KERNEL
    parameters: str | None = field(default=None, repr=False)
    cells: int = 0
    working: Path | None = None
    modules: dict[str, Path] = field(default_factory=dict, repr=False)
    files: dict[str, Path] = field(default_factory=dict, repr=False)
    beside: str = ""
    note: str = ""

    def changed(self) -> str:
        """What has changed beside it since it was read: a name, or empty."""
        together = {**self.modules, **self.files}
        if beside.digest(together) == self.beside:
            return ""
        return f"{', '.join(list(together)[:3])} beside {self.path.name}"


def read_notebook(path: Path, kernel: str = "", working: Path | None = None, copy: Path | None = None) -> Notebook:
    """What must be known of a notebook before it runs.

    Args:
        path: of the file.
        kernel: that shall run it; by default the one that its metadata name.
        working: folder in which it shall run; None for the folder of its run.
        copy: where its content is, if it is no longer in its place.

    Raises:
        UserError: it is not a notebook that can run; the sentence says why, and what to do.
    """
    try:
        data = read_bytes(copy or path)
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"{path.name} cannot be read: {error}.") from None
    data, content = _parse(path.name, data)
    try:
        cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        sources = ["".join(cell["source"]) for cell in cells]
        tagged = [TAG in cell["metadata"].get("tags", []) for cell in cells]
        stale = [INJECTED in cell["metadata"].get("tags", []) for cell in cells]
        metadata, cells_in_all = content["metadata"], len(content["cells"])
        spec = metadata.get("kernelspec", {})
        language = metadata.get("language_info", {}).get("name") or spec.get("language")
        named = spec.get("name", OWN_KERNEL)
        if not isinstance(named, str) or not isinstance(language, str | None):
            raise TypeError("a name is a text")
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{path.name} is not a notebook of format 4: its cells or its metadata are not as Jupyter writes them."
        ) from None
    if language and language.lower() not in _PYTHON:
        raise UserError(f"{path.name} is a notebook for {language}: expected one for Python.")
    chosen, note = _kernel(path.name, kernel, named, bool(language))
    parameters = sources[tagged.index(True)] if True in tagged else None
    if parameters is not None:  # what an earlier run of papermill has left goes
        sources = [source for source, old in zip(sources, stale, strict=True) if not old]
        cells_in_all -= sum(stale)
    sha256 = hashlib.sha256(data).hexdigest()
    found = Notebook(path.stem, path, data, sha256, chosen, parameters, cells_in_all, working, note=note)
    found.modules = beside.modules(sources, [path.parent, *([working] if working else [])])
    if working is None:
        found.files = beside.files([*sources, *beside.texts(found.modules)], path)
    found.beside = beside.digest({**found.modules, **found.files})
    return found


def _parse(name: str, data: bytes) -> tuple[bytes, dict[str, Any]]:
    """A notebook's content, and the file as UTF-8 without a mark of its encoding."""
    try:
        text = data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 (at byte {error.start}): save it as UTF-8.") from None
    if not text.strip():
        raise UserError(f"{name} is empty: expected a notebook.")
    try:
        content = parse_json(text)
    except ValueError as error:
        if found := _CONFLICT.search(data):
            file, line = shlex.quote(name), data.count(b"\n", 0, found.start()) + 1
            raise UserError(
                f"{name} has a merge conflict of git at line {line}: keep one side, with git checkout --ours {file} or "
                f"git checkout --theirs {file}, or resolve it in a text editor."
            ) from None
        raise UserError(f"{name} {_damage(text, error)}") from None
    version = content.get("nbformat") if isinstance(content, dict) else None
    if isinstance(version, int) and version < 4:
        raise UserError(
            f"{name} is a notebook of format {version}: expected 4. Convert it: jupyter nbconvert --to notebook "
            f"--inplace {shlex.quote(name)}"
        )
    if isinstance(version, int) and version > 4:
        raise UserError(f"{name} is a notebook of format {version}, and this version of Jupyter knows 4 at most.")
    if not isinstance(content, dict) or "cells" not in content:
        raise UserError(f"{name} is not a notebook: it has no cells.")
    return text.encode(), content


def _damage(text: str, error: ValueError) -> str:
    end = isinstance(error.__context__, json.JSONDecodeError) and error.__context__.pos >= len(text.rstrip())
    if end or "Unterminated string" in str(error):
        return f"is cut off: it ends at line {text.rstrip().count(chr(10)) + 1}. Restore it from a copy."
    return f"is not a notebook: it is {error}."


def _kernel(file: str, chosen: str, named: str, python: bool) -> tuple[str, str]:
    """The kernel that runs a notebook, and a sentence if it is not the one that its metadata name."""
    if (chosen or named).lower() == OWN_KERNEL:
        return OWN_KERNEL, ""
    from jupyter_client.kernelspec import KernelSpecManager

    name, known = (chosen or named).lower(), KernelSpecManager().get_all_specs()
    if name in known:
        language = str(known[name]["spec"].get("language", "python"))
        if language.lower() not in _PYTHON:
            raise UserError(f"{file}: the kernel {name!r} is for {language}: expected one for Python.")
        return name, ""
    if chosen:
        raise UserError(f"--kernel {chosen}: {unknown('kernel', chosen, {OWN_KERNEL: None, **known})}")
    if not python:
        raise UserError(
            f"{file} names the kernel {named!r}, which is not installed here, and no language: expected a notebook for "
            f"Python. If it is one, say --kernel {OWN_KERNEL}."
        )
    return OWN_KERNEL, (
        f"{file} names the kernel {named!r}, which is not installed here: this environment's Python runs it. --kernel "
        "NAME chooses another."
    )
