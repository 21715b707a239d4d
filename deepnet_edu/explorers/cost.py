"""Explorer 5: memory and time."""

from math import isqrt
from typing import Any, ClassVar

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Choice, Dial
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
    what = (
        "Every bar begins where the one above it ends, so the last one is their sum. The axis ends at the next of "
        "1, 2, 5, 10, …: look at its numbers when bars seem to jump.",
        "Activations grow with depth, width and batch; weights, gradients and the optimizer with depth and the square "
        "of the width. Checkpoints throw most activations away and compute them again, the bar “recomputation”.",
        "“Products” are the matrix products that no software can leave out, the floor of this library's time. The rest "
        "is attention, norms and copies, the optimizer and the start-up cost of Python's calls.",
    )
    presets: ClassVar[Any] = {
        "1,000 layers": {},
        "… with checkpoints": {"checkpoints": "root"},
        "12 layers, eight times as wide": {"depth": 12, "width": 512},
    }

    def __init__(self, depth: int = 1000, d_model: int = 64, **more: Any) -> None:
        self.depth = Dial("depth (layers)", DEPTHS, 1000, whole=True)
        self.width = Dial("width d", WIDTHS, 64, whole=True, note="a multiple of 16")
        self.batch = Dial("sequences", BATCHES, 4, whole=True, note=f"of {TOKENS} tokens each")
        ways = [("none", "none"), ("every √N layers", "root"), ("every layer", "each")]
        self.checkpoints = Choice("checkpoints", ways, "none")
        self.precision = Choice("precision", [(name, name) for name in PRECISIONS], "float32")
        order = ["depth", "width", "batch", "checkpoints", "precision"]
        super().__init__(order, CostFigure(tuple(MEMORY), tuple(SECONDS)), {"depth": depth, "width": d_model, **more})

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
        seconds = None
        note = "By formula; its constants were fitted to measured runs. Time was measured in float32 alone."
        if precision == "float32":
            plan = training_time(config, batch, TOKENS, checkpoint_every=every)
            found = plan.to_dict()
            seconds = {name: sum(found[part] for part in parts) for name, parts in SECONDS.items()}
            note = "By formula; its constants were fitted to measured runs, time on one thread of a CPU in float32."
        kept = (
            f"checkpoints every {every} layers"
            if every > 1
            else "a checkpoint in each layer"
            if every
            else "no checkpoints"
        )
        held = {name: sum(memory[part] for part in parts) for name, parts in MEMORY.items()}
        largest = max(held, key=lambda name: held[name])
        total = sum(held.values())
        said = f"A step takes {total / 1e9:.3g} GB, {held[largest] / total:.0%} of it for {largest}"
        if seconds is not None:
            spent = sum(seconds.values())
            said += f", and {spent:.3g} s, {seconds['products'] / spent:.0%} of it in matrix products"
        title = f"{depth:,} layers of width {d}, {batch} × {TOKENS} tokens, {precision}, {kept}"
        return CostView(title, f"{said}.", note, held, seconds)
