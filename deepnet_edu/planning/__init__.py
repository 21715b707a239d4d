"""What a training run needs, from its configuration alone."""

from deepnet_edu.planning.devices import peak_of
from deepnet_edu.planning.fit import explain, settings_that_fit
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
    "explain",
    "find_shape",
    "flops_per_token",
    "peak_of",
    "settings_that_fit",
    "training_memory",
    "training_time",
]
