"""What a training run needs, from its configuration alone."""

from deepnet_edu.planning.cost import (
    UTILISATIONS,
    Span,
    Utilisation,
    price_of,
    sending_seconds,
    training_days,
    training_energy,
    training_money,
    utilisation_of,
)
from deepnet_edu.planning.counts import parameters_by_part, training_flops
from deepnet_edu.planning.devices import GPUS, Gpu, Price, find_gpu, peak_of
from deepnet_edu.planning.estimation import Estimate, estimate
from deepnet_edu.planning.fit import explain, fewest_recomputed, settings_that_fit
from deepnet_edu.planning.flops import flops_per_token
from deepnet_edu.planning.memory import MemoryPlan, training_memory
from deepnet_edu.planning.parameters import count_parameters
from deepnet_edu.planning.pipeline import Action, Slot, bubble, in_time, length, rank_order, stage_layers, timeline
from deepnet_edu.planning.plan import SCHEDULES, Plan
from deepnet_edu.planning.proposal import Proposal, propose
from deepnet_edu.planning.published import PUBLISHED, Published, features
from deepnet_edu.planning.ranks import RankMemory, RankTraffic, rank_memory, rank_traffic
from deepnet_edu.planning.shapes import SHAPES, find_shape
from deepnet_edu.planning.time import Operations, TimePlan, count_operations, training_time
from deepnet_edu.planning.workload import PRECISIONS

__all__ = [
    "GPUS",
    "PRECISIONS",
    "PUBLISHED",
    "SCHEDULES",
    "SHAPES",
    "UTILISATIONS",
    "Action",
    "Estimate",
    "Gpu",
    "MemoryPlan",
    "Operations",
    "Plan",
    "Price",
    "Proposal",
    "Published",
    "RankMemory",
    "RankTraffic",
    "Slot",
    "Span",
    "TimePlan",
    "Utilisation",
    "bubble",
    "count_operations",
    "count_parameters",
    "estimate",
    "explain",
    "features",
    "fewest_recomputed",
    "find_gpu",
    "find_shape",
    "flops_per_token",
    "in_time",
    "length",
    "parameters_by_part",
    "peak_of",
    "price_of",
    "propose",
    "rank_memory",
    "rank_order",
    "rank_traffic",
    "sending_seconds",
    "settings_that_fit",
    "stage_layers",
    "timeline",
    "training_days",
    "training_energy",
    "training_flops",
    "training_memory",
    "training_money",
    "training_time",
    "utilisation_of",
]
