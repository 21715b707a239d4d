"""Explorer 8: what a run would cost."""

from typing import Any, ClassVar

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Choice, Dial, spread
from deepnet_edu.explorers.signal import DEPTHS
from deepnet_edu.figures.budget import BudgetFigure, BudgetView, Ends
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning import (
    GPUS,
    Span,
    parameters_by_part,
    training_days,
    training_energy,
    training_flops,
    training_money,
    utilisation_of,
)

WIDTHS = [64, 128, 256, 512, 768, 1024, 2048, 4096, 8192]
BILLIONS = spread(0.01, 5000, 40, 1, 100, 1000)
COUNTS = [2**k for k in range(14)]
#: Numbers of GPUs that are always shown.
SHOWN = (1, 16, 256, 4096)
DOLLARS = spread(0.05, 20, 40, 1, 1.63, 2.5)
TOKENS, VOCABULARY = 2048, 32_000
#: Bytes a parameter that each GPU holds whole, and that are shared, as lesson 17 counts them.
HELD = {"all on each": (16, 0), "optimizer shared": (4, 12), "and gradients": (2, 14), "all shared": (0, 16)}


class BudgetExplorer(Explorer):
    """A model, its tokens, GPUs and their price → what a GPU holds, days and dollars."""

    name = "budget"
    title = "What a run would cost"
    about = "choose a model, tokens, GPUs and your price; see whether it fits, how long it takes, and the bill."
    what = (
        "Left: what one GPU holds of weights, gradients and optimizer, 16 bytes a parameter, for four ways of sharing "
        "them among all GPUs. Points left of the dashed line fit, before activations.",
        "Right: days against dollars, both logarithmic. A bar goes from the fastest run to the slowest that its share "
        "of the GPU's peak allows; grey bars are other numbers of GPUs.",
        "More GPUs move a bar to the left at the same height: the bill stays, the days fall. Waiting and sending are "
        "left out, so real runs are slower.",
    )
    presets: ClassVar[Any] = {
        "1,000 layers of width 512": {},
        "15 layers of width 4,096": {"depth": 15, "width": 4096},
        "… on 256 GPUs": {"depth": 15, "width": 4096, "count": 256},
    }

    def __init__(
        self, depth: int = 1000, d_model: int = 512, gpu: str = "h200", price: float = 2.5, **more: Any
    ) -> None:
        kinds = [("decoder", "decoder"), ("encoder and decoder, half each", "encoder_decoder")]
        self.kind = Choice("model", kinds, "decoder")
        self.depth = Dial("depth (layers)", DEPTHS, 1000, whole=True)
        self.width = Dial("width d", WIDTHS, 512, whole=True, note="a multiple of 64")
        self.billions = Dial("billion tokens", BILLIONS, 100, note="those of the whole run")
        self.gpu = Choice("GPU", [(one.title, name) for name, one in GPUS.items()], "h200")
        self.count = Dial("GPUs", COUNTS, 8, whole=True)
        self.price = Dial("dollars an hour", DOLLARS, 2.5, note="for one GPU")
        order = ["depth", "width", "billions", "count", "price", "kind", "gpu"]
        given = {"depth": depth, "width": d_model, "gpu": gpu, "price": price, **more}
        super().__init__(order, BudgetFigure(tuple(HELD), len(SHOWN)), given)

    def config(self) -> ModelConfig:
        """The model of the dials.

        Raises:
            ValueError: there is none of this shape.
        """
        depth, d = int(self.depth.value), int(self.width.value)
        if d % 64:
            raise ValueError(f"width d = {d}: heads have 64 features each, type a multiple of 64.")
        shape: dict[str, Any] = {
            "d_model": d, "n_heads": d // 64, "d_ff": 4 * d, "vocab_size": VOCABULARY, "max_length": TOKENS,
        }  # fmt: skip
        if self.kind.value == "decoder":
            return ModelConfig("decoder", "lm", depth, **shape)
        if depth < 2:
            raise ValueError("depth = 1: an encoder and a decoder have a layer each, type 2 or more.")
        return ModelConfig(
            "encoder_decoder", "translation", depth // 2, depth - depth // 2, shared_embeddings=True, **shape
        )

    def view(self, measured: Any) -> BudgetView:
        """By formula alone."""
        config, gpu, count = self.config(), GPUS[self.gpu.value], int(self.count.value)
        tokens = 1e9 * self.billions.value
        parameters = sum(parameters_by_part(config).values())
        flops, share = sum(training_flops(config, tokens).values()), utilisation_of(config)
        price = Span(self.price.value, self.price.value, "given")

        def ends(gpus: int) -> Ends:
            days = training_days(flops, gpu, gpus, share)
            money = training_money(days, gpus, price)
            return (days.low, money.low), (days.high, money.high)

        energy = training_energy(training_days(flops, gpu, count, share), count, gpu)
        shown = {gpus: ends(gpus) for gpus in sorted({*SHOWN, count})}
        (fast, cheap), (slow, dear) = shown[count]
        held = {name: parameters * (whole + shared / count) for name, (whole, shared) in HELD.items()}
        fitting = [name for name, value in held.items() if value <= gpu.memory]
        fits = "It fits a GPU, before activations" if fitting else "It does not fit a GPU, however it is shared"
        return BudgetView(
            f"{parameters / 1e9:,.3g} billion parameters, {self.billions.value:,.4g} billion tokens, {count:,} × "
            f"{gpu.title}",
            f"{fits}{f' ({fitting[0]})' if fitting else ''}; the run takes {_days(fast)} to {_days(slow)} days and "
            f"costs {_dollars(cheap)} to {_dollars(dear)}.",
            f"By formula, {share.low:.0%} to {share.high:.0%} of {gpu.peak / 1e12:,.0f} TFLOP/s, waiting and sending "
            f"left out; {energy.low / 1000:,.3g} to {energy.high / 1000:,.3g} MWh.",
            held,
            gpu.memory,
            shown,
            count,
        )


def _days(days: float) -> str:
    return f"{days:,.0f}" if days >= 10 else f"{days:.2g}"


def _dollars(dollars: float) -> str:
    return f"${dollars:,.0f}" if dollars < 1e6 else f"${dollars / 1e6:,.3g} million"
