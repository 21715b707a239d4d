"""Training: the step, the loop, the optimizer."""

from deepnet_edu.training.loop import Task, TrainConfig, TrainingDiverged, train
from deepnet_edu.training.step import StepResult, TrainStep, learning_rate

__all__ = ["StepResult", "Task", "TrainConfig", "TrainStep", "TrainingDiverged", "learning_rate", "train"]
