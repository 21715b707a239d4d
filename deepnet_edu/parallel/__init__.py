"""Many ranks: processes that join, hold their part of a model and pass on what others need."""

from deepnet_edu.parallel.ranks import Ranks, joined
from deepnet_edu.planning import SCHEDULES, Estimate, Plan, Proposal, estimate

__all__ = ["SCHEDULES", "Estimate", "Plan", "Proposal", "Ranks", "estimate", "joined"]
