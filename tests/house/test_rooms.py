"""A room imports only from rooms above it, and only the last ones know that notebooks exist."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import deepnet_edu

PACKAGE = Path(deepnet_edu.__file__).parent
ORDER = [
    "messages", "files", "fields", "lock", "lazy", "moved", "scaling", "residual", "verdict", "profiles", "model",
    "theory", "planning", "probing", "review", "data", "training", "experiment", "figures", "progress", "serving",
    "explorers", "checks", "course", "batch", "cli", "__main__",
]  # fmt: skip
NOTEBOOKS = {"IPython", "anywidget", "ipywidgets", "jupytext", "nbformat", "nbclient", "papermill", "jupyterlab"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room_of(path: Path) -> str:
    """The first folder or file; what is started by ``python -m`` is below all."""
    return path.stem if path.stem == "__main__" else path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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


def loaded_with(path: Path) -> Iterator[ast.stmt]:
    """The statements that run when a module is loaded."""
    waiting: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [inside for inside in ast.iter_child_nodes(node) if isinstance(inside, ast.stmt)]


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    graph = TopologicalSorter[str]()
    for name, path in modules.items():
        needed = set()
        for node in loaded_with(path):
            if isinstance(node, ast.Import):
                needed |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                needed |= inside & modules.keys() or {node.module or ""}
        graph.add(name, *(needed & modules.keys() - {name}))
    graph.prepare()


def test_only_the_last_rooms_know_notebooks() -> None:
    knowing = {room_of(path) for path in FILES if {name.split(".")[0] for name in imports(path)} & NOTEBOOKS}
    assert knowing <= {"course", "explorers", "batch", "cli"}


def test_the_page_for_contributors_has_the_same_order() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = text.split("a test holds that:")[1].split(".")[0]
    assert [room.strip() for room in listed.split(",")] == [room for room in ORDER if room != "__main__"]


NUMBERS = """
import sys
from deepnet_edu import ModelConfig, RESIDUALS, deepnorm_constants, predict
from deepnet_edu.checks.names import lesson_of
from deepnet_edu.explorers import _CLASSES, _load

from deepnet_edu.planning import GPUS, count_parameters, find_shape, flops_per_token, rank_memory, training_memory
from deepnet_edu.residual import place_at
from deepnet_edu.theory import mixing_matrix
config = find_shape("small_1000")
count_parameters(config), training_memory(config, 4, 64), flops_per_token(config, 64), rank_memory(config, 4, 64)
for name, rule in RESIDUALS.items():
    if "decoder" in rule.architectures:
        one = ModelConfig("decoder", "lm", 48, d_model=16, n_heads=2, d_ff=32, vocab_size=9, residual=name)
        one.rule_constants(), rule.facts(), rule.at(place_at(0, "decoder", 0, 48)).signal()
        if rule.norms and rule.says("norms"):  # others are built to be counted
            training_memory(one, 4, 64)
predict(config, 64), mixing_matrix(config, 64), deepnorm_constants(decoder_layers=1000), lesson_of()
for name in ("signal", "map", "constants", "cost", "plans", "mixing", "budget", "race"):
    assert _load(_CLASSES[name])().figure.alt  # theory at once; a measurement would begin when no slider moves
assert "torch._C" not in sys.modules, "PyTorch was loaded"
"""


def test_the_rule_speaks_for_itself() -> None:
    """A rule's name is in its own file, in lessons and their checks, in figures: no lists of rules elsewhere.

    A theorem about two of them (Xiong et al.) is called by their names.
    """
    free = [PACKAGE / room for room in ("residual", "figures", "checks", "course/references")]
    free.append(PACKAGE / "theory" / "bounds.py")
    naming = {
        f"{path.relative_to(PACKAGE)}: {node.value}"
        for path in FILES
        if not any(path == room or room in path.parents for room in free)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in set(deepnet_edu.RESIDUALS)
    }
    assert not naming


def test_the_fast_path_is_named_in_one_place() -> None:
    """So that its folder can be deleted: tests/model/test_paths.py does without it."""
    fast = "deepnet_edu.model.fast"
    outside = [path for path in FILES if PACKAGE / "model" / "fast" not in path.parents]
    assert not {str(path.relative_to(PACKAGE)) for path in outside if any(fast in name for name in imports(path))}


@pytest.mark.fast
def test_what_is_arithmetic_needs_no_torch() -> None:
    """Numbers of rules, theory and planning: a third of PyTorch's own import is all the time that they may take."""
    done = subprocess.run([sys.executable, "-c", NUMBERS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["plan", "small_1000"],
        ["models"],
        ["models", "--residuals"],
        ["progress"],
        ["plan", "deepnet-1000", "--gpu", "h200", "--count", "8", "--tokens", "100e9"],
    ],
)
def test_commands_that_count_need_no_torch(command: list[str], tmp_path: Path) -> None:
    code = "import sys; from deepnet_edu.cli import app; app(sys.argv[1:], standalone_mode=False)"
    code += "; assert 'torch._C' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_notebooks_first_line_loads_pytorch_and_little_else() -> None:
    """Pictures, widgets and training come when a lesson uses them."""
    code = "import sys; from deepnet_edu.course import kit; print([m for m in %s if m in sys.modules])"
    code %= ["matplotlib", "ipywidgets", "IPython", "deepnet_edu.training", "deepnet_edu.checks.base"]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_can_be_read_in_one_sitting() -> None:
    assert not [path for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 350]


def test_the_first_names_load() -> None:
    for name in deepnet_edu.__all__:
        assert getattr(deepnet_edu, name) is not None
    assert set(deepnet_edu.__all__) <= set(dir(deepnet_edu))
