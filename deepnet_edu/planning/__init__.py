"""What a training run needs, from its configuration alone."""

from deepnet_edu.planning.flops import flops_per_token
from deepnet_edu.planning.memory import PRECISIONS, MemoryPlan, training_memory
from deepnet_edu.planning.parameters import count_parameters
from deepnet_edu.planning.shapes import SHAPES, find_shape
from deepnet_edu.planning.time import Operations, TimePlan, count_operations, training_time

__all__ = [
    "PRECISIONS",
    "SHAPES",
    "MemoryPlan",
    "Operations",
    "TimePlan",
    "count_operations",
    "count_parameters",
    "find_shape",
    "flops_per_token",
    "training_memory",
    "training_time",
]
