"""Many ranks: processes that meet, hold their part of a model and pass on what others need.

What they share out is said by a :class:`~deepnet_edu.planning.Plan`; its names are here, too.
"""

from deepnet_edu.planning import SCHEDULES, Estimate, Plan, Proposal, estimate
from deepnet_edu.training.distributed.ranks import Ranks, init_ranks

__all__ = ["SCHEDULES", "Estimate", "Plan", "Proposal", "Ranks", "estimate", "init_ranks"]
