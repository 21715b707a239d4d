"""Explorer 7: plans for many GPUs."""

from typing import Any

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.cost import TOKENS
from deepnet_edu.explorers.dials import Dial, choice
from deepnet_edu.explorers.signal import DEPTHS
from deepnet_edu.figures.plans import PlanFigure, PlanView
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning import SCHEDULES, Plan, bubble, rank_memory, rank_traffic, timeline

WIDTHS = [64, 128, 256, 512, 768, 1024, 2048]
POWERS = [1, 2, 4, 8]
GIGABYTES = [8, 16, 24, 32, 40, 48, 80, 141, 192]
SEQUENCES = 512
#: Parts of the picture, and what of a rank's memory they are made of.
PARTS = {
    "weights": ("weights",),
    "gradients": ("gradients",),
    "optimizer": ("optimizer",),
    "activations": ("activations",),
    "temporaries": ("temporaries",),
}


class PlansExplorer(Explorer):
    """Copies, shards and stages → memory of each GPU, who waits for whom, and what is sent."""

    name = "plans"
    title = "Plans for many GPUs"
    about = "cut a model into copies, shards and stages; see what each GPU holds, and who waits for whom."

    def __init__(self, depth: int = 1000, d_model: int = 512) -> None:
        said: dict[str, Any] = {"changed": self.refresh, "refuse": self.refuse}
        self.depth = Dial("depth (layers)", [n for n in DEPTHS if n >= 2 * max(POWERS)], depth, whole=True, **said)
        self.width = Dial("width d", WIDTHS, d_model, whole=True, note="a multiple of 64", **said)
        self.kind = choice("ranks see", [("copies", "data"), ("shards", "shard")], "data", self.refresh)
        self.shares = Dial("copies, shards", POWERS, 2, whole=True, **said)
        self.pipeline = Dial("stage ranks p", POWERS, 4, whole=True, **said)
        self.schedule = choice("schedule", [(name, name) for name in SCHEDULES], "1f1b", self.refresh)
        self.pieces = Dial("m / p", POWERS, 2, whole=True, note="micro-batches for each rank of the pipeline", **said)
        self.checkpoints = choice("checkpoints", [("none", 0), ("every √N layers", "auto")], 0, self.refresh)
        self.gigabytes = Dial("GPU (GB)", GIGABYTES, 80, whole=True, **said)
        dials = [self.depth, self.width, self.shares, self.pipeline, self.pieces, self.gigabytes]
        super().__init__([*dials, self.kind, self.schedule, self.checkpoints], PlanFigure(tuple(PARTS)))

    def plan(self) -> Plan:
        """What the dials say.

        Raises:
            ValueError: there is no such plan.
        """
        p = int(self.pipeline.value)
        cut: dict[str, Any] = {self.kind.value: int(self.shares.value)}
        if p > 1:
            cut |= {"pipeline": p, "schedule": self.schedule.value, "microbatches": p * int(self.pieces.value)}
        return Plan(**cut)

    def view(self, measured: Any) -> PlanView:
        """By formula alone."""
        depth, d = int(self.depth.value), int(self.width.value)
        if d % 64:
            raise ValueError(f"width d = {d}: heads have 64 features each, type a multiple of 64.")
        config = ModelConfig(
            "decoder", "lm", depth, d_model=d, n_heads=d // 64, d_ff=4 * d, vocab_size=32_000, max_length=TOKENS
        )
        plan = self.plan()
        cut: dict[str, Any] = {
            "data": plan.data, "shard": plan.shard, "pipeline": plan.pipeline, "schedule": plan.schedule,
            "microbatches": plan.microbatches,
        }  # fmt: skip
        memory = rank_memory(config, SEQUENCES, TOKENS, **cut, device="cuda", checkpoint_every=self.checkpoints.value)
        sent = max(rank.total for rank in rank_traffic(config, SEQUENCES, TOKENS, **cut))
        fullest, capacity = max(rank.total for rank in memory) / 1e9, self.gigabytes.value
        fits = "fits" if fullest <= capacity else "does not fit"
        words = [f"{plan.shares} {'copies' if self.kind.value == 'data' else 'shards'}", f"{plan.pipeline} stage ranks"]
        waits = bubble(plan.schedule, plan.pipeline, plan.n_microbatches)
        return PlanView(
            f"{depth:,} layers of width {d} on {plan.ranks} GPUs: {' × '.join(words)}",
            [{name: sum(getattr(rank, part) for part in parts) for name, parts in PARTS.items()} for rank in memory],
            1e9 * capacity,
            timeline(plan.schedule, plan.pipeline, plan.n_microbatches),
            3.0 * plan.n_microbatches,
            f"by formula, fp32, {SEQUENCES} × {TOKENS} tokens: the fullest GPU {fits}, {fullest:.3g} of "
            f"{capacity:g} GB; bubble {waits:.0%}; a GPU sends up to {sent / 1e9:.2g} GB a step",
        )
