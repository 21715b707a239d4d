"""A Transformer: its configuration, parts, layers, stacks, whole models by task, and generation.

The names below are loaded when they are first used: a configuration alone needs no PyTorch.
"""

from typing import TYPE_CHECKING

from deepnet_edu.lazy import lazily

if TYPE_CHECKING:
    from deepnet_edu.model.base import IGNORED, Batch, Model, broken_weights, check_trainable, evaluating
    from deepnet_edu.model.build import build_empty, build_model, random_batch
    from deepnet_edu.model.config import Group, ModelConfig
    from deepnet_edu.model.mode import Mode
    from deepnet_edu.model.shape import check_memory
    from deepnet_edu.model.sizes import least_parameters
    from deepnet_edu.model.tasks import Classifier, LanguageModel, Translator

__all__ = [
    "IGNORED",
    "Batch",
    "Classifier",
    "Group",
    "LanguageModel",
    "Mode",
    "Model",
    "ModelConfig",
    "Translator",
    "broken_weights",
    "build_empty",
    "build_model",
    "check_memory",
    "check_trainable",
    "evaluating",
    "least_parameters",
    "random_batch",
]

_NAMES = {
    "base": ["IGNORED", "Batch", "Model", "broken_weights", "check_trainable", "evaluating"],
    "build": ["build_empty", "build_model", "random_batch"],
    "config": ["Group", "ModelConfig"],
    "mode": ["Mode"],
    "shape": ["check_memory"],
    "sizes": ["least_parameters"],
    "tasks": ["Classifier", "LanguageModel", "Translator"],
}
__getattr__ = lazily(__name__, {name: home for home, names in _NAMES.items() for name in names})
