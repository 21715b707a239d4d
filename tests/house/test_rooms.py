"""A room imports only from rooms above it, and only the last ones know that notebooks exist."""

import ast
from pathlib import Path

import deepnet_edu

PACKAGE = Path(deepnet_edu.__file__).parent
ORDER = [
    "messages", "files", "fields", "lock", "scaling", "residual", "attention", "transformer", "fast", "compiled",
    "stack", "initialization", "embedding", "config", "models", "generation", "verdict", "record", "planning",
    "parallel", "theory", "probing", "review", "data", "training", "figures", "progress", "serving", "explorers",
    "checks", "course", "batch", "cli", "__main__",
]  # fmt: skip
NOTEBOOKS = {"IPython", "ipywidgets", "jupytext", "nbformat", "nbclient", "papermill", "jupyterlab"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def test_every_file_is_in_a_room() -> None:
    assert {room_of(path) for path in FILES} <= set(ORDER)


def test_imports_go_upwards() -> None:
    wrong = []
    for path in FILES:
        room = room_of(path)
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "deepnet_edu" and len(parts) > 1 and ORDER.index(parts[1]) > ORDER.index(room):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_only_the_last_rooms_know_notebooks() -> None:
    knowing = {room_of(path) for path in FILES if {name.split(".")[0] for name in imports(path)} & NOTEBOOKS}
    assert knowing <= {"course", "explorers", "batch", "cli"}


def test_scaling_needs_no_torch() -> None:
    assert not any(name.startswith("torch") for name in imports(PACKAGE / "scaling.py"))


def test_a_file_can_be_read_in_one_sitting() -> None:
    assert not [path for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 350]


def test_the_first_names_load() -> None:
    for name in deepnet_edu.__all__:
        assert getattr(deepnet_edu, name) is not None
    assert set(deepnet_edu.__all__) <= set(dir(deepnet_edu))
