"""deepnet_edu: DeepNorm Transformers (DeepNet, arXiv 2203.00555), from residual arithmetic to a thousand layers.

The names below are loaded when they are first used, so that ``import deepnet_edu`` is instant and
``deepnet_edu.scaling`` needs no torch.
"""

from typing import TYPE_CHECKING

from deepnet_edu import moved
from deepnet_edu.lazy import lazily

if TYPE_CHECKING:
    from deepnet_edu.model import Batch, ModelConfig, build_model
    from deepnet_edu.probing import probe
    from deepnet_edu.residual import RESIDUALS
    from deepnet_edu.scaling import deepnorm_constants
    from deepnet_edu.theory import predict
    from deepnet_edu.training import TrainConfig, train

__version__ = "0.1.0"

_HOME = {
    "deepnorm_constants": "scaling",
    "RESIDUALS": "residual",
    "ModelConfig": "model",
    "Batch": "model",
    "build_model": "model",
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

moved.install()
__getattr__ = lazily(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
