"""Explorer 5: memory and time."""

from math import isqrt
from typing import Any

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Dial, choice
from deepnet_edu.explorers.signal import DEPTHS
from deepnet_edu.figures.cost import CostFigure, CostView
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning import PRECISIONS, training_memory, training_time

WIDTHS = [32, 64, 128, 256, 512, 768, 1024]
BATCHES = [1, 2, 4, 8, 16, 32, 64, 128]
TOKENS = 64
#: Parts of the picture, and what of the plan they are made of.
MEMORY = {
    "weights": ("weights",),
    "gradients": ("gradients",),
    "optimizer": ("optimizer",),
    "activations": ("activations",),
    "temporaries": ("temporaries",),
    "Python, PyTorch": ("process", "objects"),
}
SECONDS = {
    "products": ("products",),
    "recomputation": ("recomputation",),
    "attention": ("attention",),
    "norms, copies": ("between",),
    "optimizer": ("optimizer",),
    "Python": ("overhead",),
}


class CostExplorer(Explorer):
    """Depth, width, batch, checkpoints and precision → memory and time of a step, part by part."""

    name = "cost"
    title = "Memory and time of a step"
    about = "choose depth, width, batch, checkpoints and precision; see what a training step takes, part by part."

    def __init__(self, depth: int = 1000, d_model: int = 64) -> None:
        said: dict[str, Any] = {"changed": self.refresh, "refuse": self.refuse}
        self.depth = Dial("depth (layers)", DEPTHS, depth, whole=True, **said)
        self.width = Dial("width d", WIDTHS, d_model, whole=True, note="a multiple of 16", **said)
        self.batch = Dial("sequences", BATCHES, 4, whole=True, note=f"of {TOKENS} tokens each", **said)
        self.checkpoints = choice(
            "checkpoints",
            [("none", "none"), ("every √N layers", "root"), ("every layer", "each")],
            "none",
            self.refresh,
        )
        self.precision = choice("precision", [(name, name) for name in PRECISIONS], "float32", self.refresh)
        dials = [self.depth, self.width, self.batch, self.checkpoints, self.precision]
        super().__init__(dials, CostFigure(tuple(MEMORY), tuple(SECONDS)))

    def view(self, measured: Any) -> CostView:
        """By formula alone: constants were fitted to measured runs."""
        depth, d, batch = int(self.depth.value), int(self.width.value), int(self.batch.value)
        if d % 16:
            raise ValueError(f"width d = {d}: heads have 16 features each, type a multiple of 16.")
        config = ModelConfig(
            "decoder", "lm", depth, d_model=d, n_heads=d // 16, d_ff=4 * d, vocab_size=128, max_length=TOKENS
        )
        every = {"none": 0, "root": isqrt(depth), "each": 1}[self.checkpoints.value]
        precision = self.precision.value
        memory = training_memory(config, batch, TOKENS, checkpoint_every=every, precision=precision).to_dict()
        seconds, floor = None, 1.0
        note = "by formula; time on one thread of a CPU, as measured in float32"
        if precision == "float32":
            plan = training_time(config, batch, TOKENS, checkpoint_every=every)
            found, floor = plan.to_dict(), plan.floor
            seconds = {name: sum(found[part] for part in parts) for name, parts in SECONDS.items()}
            note += f": {plan.share:.0%} of it are products"
        else:
            note = "by formula; time was measured in float32 alone, so none is shown"
        kept = (
            f"checkpoints every {every} layers"
            if every > 1
            else "a checkpoint in each layer"
            if every
            else "no checkpoints"
        )
        return CostView(
            f"{depth:,} layers of width {d}, {batch} × {TOKENS} tokens, {precision}, {kept}",
            {name: sum(memory[part] for part in parts) for name, parts in MEMORY.items()},
            seconds,
            floor,
            note,
        )
