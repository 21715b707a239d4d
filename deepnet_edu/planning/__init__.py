"""What a training run needs, from its configuration alone."""

from deepnet_edu.planning.devices import peak_of
from deepnet_edu.planning.fit import explain, settings_that_fit
from deepnet_edu.planning.flops import flops_per_token
from deepnet_edu.planning.memory import PRECISIONS, MemoryPlan, training_memory
from deepnet_edu.planning.parameters import count_parameters
from deepnet_edu.planning.pipeline import Action, Slot, bubble, in_time, length, rank_order, stage_layers, timeline
from deepnet_edu.planning.ranks import RankMemory, RankTraffic, rank_memory, rank_traffic
from deepnet_edu.planning.shapes import SHAPES, find_shape
from deepnet_edu.planning.time import Operations, TimePlan, count_operations, training_time

__all__ = [
    "PRECISIONS",
    "SHAPES",
    "Action",
    "MemoryPlan",
    "Operations",
    "RankMemory",
    "RankTraffic",
    "Slot",
    "TimePlan",
    "bubble",
    "count_operations",
    "count_parameters",
    "explain",
    "find_shape",
    "flops_per_token",
    "in_time",
    "length",
    "peak_of",
    "rank_memory",
    "rank_order",
    "rank_traffic",
    "settings_that_fit",
    "stage_layers",
    "timeline",
    "training_memory",
    "training_time",
]
