"""Training: the step, the loop, the optimizer."""

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
