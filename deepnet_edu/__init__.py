"""deepnet_edu: DeepNorm Transformers (DeepNet, arXiv 2203.00555), from residual arithmetic to a thousand layers.

The names below are loaded when they are first used, so that ``import deepnet_edu`` is instant and
``deepnet_edu.scaling`` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepnet_edu.config import ModelConfig
    from deepnet_edu.models import Batch, build_model
    from deepnet_edu.probing import probe
    from deepnet_edu.residual import RESIDUALS
    from deepnet_edu.scaling import deepnorm_constants
    from deepnet_edu.theory import predict
    from deepnet_edu.training import TrainConfig, train

__version__ = "0.1.0"

_HOME = {
    "deepnorm_constants": "scaling",
    "RESIDUALS": "residual",
    "ModelConfig": "config",
    "Batch": "models",
    "build_model": "models",
    "probe": "probing",
    "predict": "theory",
    "train": "training",
    "TrainConfig": "training",
}

__all__ = [
    "RESIDUALS",
    "Batch",
    "ModelConfig",
    "TrainConfig",
    "build_model",
    "deepnorm_constants",
    "predict",
    "probe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
