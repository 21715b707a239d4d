"""What all tests share: one thread, so that sums do not change, a seed, float64 on request, and the path of stacks."""

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import setuptools  # noqa: F401  before a test has anything look for pip: then it refuses, and PyTorch compiles with it
import torch

from deepnet_edu.model import ModelConfig, paths
from deepnet_edu.model.mode import Mode
from deepnet_edu.model.paths import knows
from deepnet_edu.model.stack import Stack
from deepnet_edu.residual import RESIDUALS


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def random_numbers() -> None:
    """The same in each test, whichever ran before it: with two processes, that depends on how fast each test is.

    No model is drawn from this seed: its weights would be a test's own numbers.
    """
    torch.manual_seed(67280421310721)


@pytest.fixture(autouse=True)
def outside_lessons() -> Iterator[None]:
    """Denormal numbers and warnings are as they were after a test that set up a lesson."""
    form = warnings.formatwarning
    yield
    torch.set_flush_denormal(False)
    warnings.formatwarning = form


@pytest.fixture
def double() -> Iterator[None]:
    """New tensors and modules are float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=["auto", "plain"])
def both_paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs twice: by the path that stacks take by themselves, fast where it can be, and by the plain one."""
    monkeypatch.setattr(Stack, "mode", Mode(path=request.param))
    return str(request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the plain form of a test whose parameters name something that goes by the plain path by itself, and
    what is of the fast path where its folder was deleted."""
    for item in items:
        if paths.fast is None and item.get_closest_marker("fast"):
            item.add_marker(pytest.mark.skip(reason="the fast path is not installed"))
    again = [item for item in items if _repeats(getattr(item, "callspec", None))]
    if again:
        config.hook.pytest_deselected(items=again)
        items[:] = [item for item in items if not _repeats(getattr(item, "callspec", None))]


def _repeats(call: Any) -> bool:
    return call is not None and call.params.get("both_paths") == "plain" and _unknown(call.params)


def _unknown(value: Any) -> bool:
    """Whether the fast path does not know what a parameter names: a rule, a part, a model or its settings."""
    if isinstance(value, ModelConfig):
        value = vars(value)
    if isinstance(value, dict):
        return any(map(_unknown, value.values()))
    return isinstance(value, str) and value in _names_unknown()


@cache
def _names_unknown() -> set[str]:
    depths = {"encoder": (4, 0), "decoder": (0, 4), "encoder_decoder": (4, 4)}
    rules = {
        name
        for name, rule in RESIDUALS.items()
        if not any(knows(name, *depths[architecture]) for architecture in rule.architectures)
    }
    return {"rotary", "swiglu", "geglu", "rms", "none"} | rules
