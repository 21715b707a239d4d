"""What all tests share: one thread, so that sums do not change, a seed, float64 on request, and the path of stacks.

With DEEPNET_EDU_TEST_PATH=plain in the environment every stack goes by the plain path, layer after layer.
"""

import os
import warnings
from collections.abc import Iterator

import pytest
import torch

from deepnet_edu.stack import Stack


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def chosen_path() -> None:
    Stack.path = os.environ.get("DEEPNET_EDU_TEST_PATH", "auto")  # type: ignore[assignment]


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
