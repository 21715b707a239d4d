"""Explorer 7: plans for many GPUs."""

from typing import Any, ClassVar

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.cost import TOKENS
from deepnet_edu.explorers.dials import Choice, Dial
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
    what = (
        "Left: what one GPU of each rank of the pipeline holds, in shares of its memory; the number is "
        "in GB. A bar above the dashed line does not fit.",
        "Right: time goes to the right, a box is one micro-batch on one rank. White is waiting, the pipeline's bubble; "
        "without any waiting all rows would end at the dashed line.",
        "More micro-batches make the bubble smaller. With `gpipe` every rank keeps the activations of all of them "
        "until its backward passes begin; `1f1b` keeps only as many as there are stages.",
        "Copies hold the whole model each and add memory nowhere; shards divide weights, gradients and optimizer, and "
        "send more.",
    )
    presets: ClassVar[Any] = {
        "Fits GPUs of 80 GB": {},
        "GPUs of 24 GB": {"gigabytes": 24},
        "… with checkpoints": {"gigabytes": 24, "checkpoints": "auto"},
        "gpipe": {"schedule": "gpipe"},
    }

    def __init__(self, depth: int = 1000, d_model: int = 512, **more: Any) -> None:
        self.depth = Dial("depth (layers)", [n for n in DEPTHS if n >= 2 * max(POWERS)], 1000, whole=True)
        self.width = Dial("width d", WIDTHS, 512, whole=True, note="a multiple of 64")
        self.kind = Choice("between pipelines", [("copies of the model", "data"), ("shards of it", "shard")], "data")
        self.shares = Dial("copies or shards", POWERS, 2, whole=True)
        self.pipeline = Dial("stages", POWERS, 4, whole=True, note="GPUs that one pipeline goes through")
        self.schedule = Choice("schedule", [(name, name) for name in SCHEDULES], "1f1b")
        self.pieces = Dial("micro-batches per stage", POWERS, 4, whole=True, note="of one pipeline")
        self.checkpoints = Choice("checkpoints", [("none", 0), ("every √N layers", "auto")], 0)
        self.gigabytes = Dial("GPU (GB)", GIGABYTES, 80, whole=True)
        order = ["depth", "width", "shares", "pipeline", "pieces", "gigabytes", "kind", "schedule", "checkpoints"]
        super().__init__(order, PlanFigure(tuple(PARTS)), {"depth": depth, "width": d_model, **more})

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
        words = [f"{plan.shares} {'copies' if self.kind.value == 'data' else 'shards'}", f"{plan.pipeline} stages"]
        waits = bubble(plan.schedule, plan.pipeline, plan.n_microbatches)
        return PlanView(
            f"{depth:,} layers of width {d} on {plan.ranks} GPU{'s' * (plan.ranks > 1)}: {' × '.join(words)}",
            f"The plan {fits}: the fullest GPU holds {fullest:.3g} of {capacity:g} GB, {waits:.0%} of the time is "
            "waiting.",
            f"By formula, float32, {SEQUENCES} × {TOKENS} tokens; a GPU sends up to {sent / 1e9:.2g} GB a step.",
            [{name: sum(getattr(rank, part) for part in parts) for name, parts in PARTS.items()} for rank in memory],
            1e9 * capacity,
            timeline(plan.schedule, plan.pipeline, plan.n_microbatches),
            3.0 * plan.n_microbatches,
        )
