"""What learners have written still works when rooms move, and is one module, not two."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import deepnet_edu
from deepnet_edu.moved import MOVED, name_today

ROOT = Path(__file__).parents[1]
#: What lessons, README and docs had learners import before rooms moved.
WRITTEN = """
from deepnet_edu.models import IGNORED, Batch, random_batch
from deepnet_edu.record import Curve
from deepnet_edu.initialization import measured_gains
from deepnet_edu.generation import greedy, sample
from deepnet_edu import RESIDUALS, Batch, ModelConfig, TrainConfig, build_model, generation, train
from deepnet_edu.embedding import Positions
from deepnet_edu.attention import NOTHING, Cache
from deepnet_edu.parallel import Plan
from deepnet_edu.parallel import Ranks, estimate
from deepnet_edu.training.sources import DataConfig
from deepnet_edu.transformer import TransformerLayer
from deepnet_edu.stack import Stack
from deepnet_edu.compiled import CompiledLayer
import deepnet_edu.models.base
from deepnet_edu.model.base import Model
assert deepnet_edu.models.base.Model is Model and deepnet_edu.models is deepnet_edu.model
"""


def test_what_learners_wrote_still_runs() -> None:
    """In a process of its own, in which nothing is loaded yet."""
    done = subprocess.run([sys.executable, "-c", WRITTEN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("former", MOVED)
def test_a_former_name_is_the_same_module(former: str) -> None:
    module = import_module(f"deepnet_edu.{former}")
    assert module is import_module(f"deepnet_edu.{MOVED[former]}")
    assert module.__name__ == module.__spec__.name == f"deepnet_edu.{MOVED[former]}"


def test_what_never_stood_anywhere_is_not_found() -> None:
    assert [name_today(name) for name in ("deepnet_edu.scaling", "models")] == [None, None]
    assert name_today("deepnet_edu.models.base") == "deepnet_edu.model.base"
    with pytest.raises(ModuleNotFoundError, match=r"deepnet_edu\.model\.nothing"):
        import_module("deepnet_edu.models.nothing")


def test_the_project_uses_the_names_of_today() -> None:
    files = [p for room in ("deepnet_edu", "tests", "benchmarks", "solutions") for p in (ROOT / room).rglob("*.py")]
    former = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            former |= {f"{path.relative_to(ROOT)}: {name}" for name in names if name_today(name)}
    assert not former


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys, deepnet_edu; print(sorted(m for m in sys.modules if m.startswith('deepnet_edu')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['deepnet_edu', 'deepnet_edu.lazy', 'deepnet_edu.moved']"
    assert Path(deepnet_edu.__file__).name == "__init__.py"
