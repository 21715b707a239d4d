"""Training: the step, the loop, the optimizer. Names are loaded when they are first used."""

from typing import TYPE_CHECKING

from deepnet_edu.lazy import lazily

if TYPE_CHECKING:
    from deepnet_edu.training.config import TrainConfig, learning_rate
    from deepnet_edu.training.diagnosis import TrainingDiverged
    from deepnet_edu.training.interruption import Interrupted
    from deepnet_edu.training.log import read_metrics
    from deepnet_edu.training.loop import Task, train
    from deepnet_edu.training.memory import OutOfMemory
    from deepnet_edu.training.step import StepResult, TrainStep

__all__ = [
    "Interrupted",
    "OutOfMemory",
    "StepResult",
    "Task",
    "TrainConfig",
    "TrainStep",
    "TrainingDiverged",
    "learning_rate",
    "read_metrics",
    "train",
]

_NAMES = {
    "config": ["TrainConfig", "learning_rate"],
    "diagnosis": ["TrainingDiverged"],
    "interruption": ["Interrupted"],
    "log": ["read_metrics"],
    "loop": ["Task", "train"],
    "memory": ["OutOfMemory"],
    "step": ["StepResult", "TrainStep"],
}
__getattr__ = lazily(__name__, {name: home for home, names in _NAMES.items() for name in names})
