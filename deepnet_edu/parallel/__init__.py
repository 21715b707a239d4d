"""Plans for many GPUs: which rank holds what, and in which order the stages of a pipeline work."""

from deepnet_edu.parallel.auto import Proposal
from deepnet_edu.parallel.estimation import Estimate, estimate
from deepnet_edu.parallel.plan import SCHEDULES, Plan
from deepnet_edu.parallel.ranks import Ranks, joined

__all__ = ["SCHEDULES", "Estimate", "Plan", "Proposal", "Ranks", "estimate", "joined"]
