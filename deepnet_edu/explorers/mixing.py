"""Explorer 9: who hears whom over depth."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Choice, Dial, rules
from deepnet_edu.explorers.settings import Tick
from deepnet_edu.figures.mixing import SHADES, MixingFigure, MixingView
from deepnet_edu.figures.style import FIRST
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.profiles import DepthMixing
from deepnet_edu.residual import DEFAULT, RESIDUALS
from deepnet_edu.theory import mixing_matrix

DEPTHS = [*range(1, 13), 16, 20, 24, 32, 40, 48]
TOKENS = 16


class MixingExplorer(Explorer):
    """Rule and depth → the depth-mixing matrix, by formula where there is one, else measured."""

    name = "mixing"
    title = "Who hears whom over depth"
    about = "choose a rule and a depth; see how much of each sub-layer's output is in what each one above reads."
    what = (
        "A row is a sub-layer that reads, a column an output that it may read: the input at the left, the lowest "
        "sub-layers next to it. The upper right is empty, because nothing reads what comes later.",
        "Right: the last row, the model's output, in shares of its variance. A flat line hears all sub-layers equally; "
        "one that rises to the right hears its last ones, and the input is forgotten.",
        "Weights are divided by the largest of their row. Shares say how much of the variance that is.",
    )
    presets: ClassVar[Any] = {
        "Post-LN": {"residual": FIRST[0]},
        "Pre-LN": {"residual": FIRST[1]},
        "DeepNorm": {"residual": DEFAULT},
        "DeepNorm, 48 layers": {"residual": DEFAULT, "depth": 48},
    }

    def __init__(self, residual: str = DEFAULT, depth: int = 12, **more: Any) -> None:
        self.residual = Choice("rule", rules(), DEFAULT)
        self.depth = Dial("depth (layers)", DEPTHS, 12, whole=True)
        self.shades = Choice("shades", [("weights", "weights"), ("shares of the variance", "shares")], "weights")
        given = {"residual": residual, "depth": depth, **more}
        super().__init__(["residual", "depth", "shades"], MixingFigure(), given)

    @property
    def config(self) -> ModelConfig:
        """What the dials say."""
        sizes: dict[str, Any] = {"d_model": 32, "n_heads": 2, "d_ff": 128, "vocab_size": 64, "max_length": TOKENS}
        return ModelConfig("decoder", "lm", int(self.depth.value), residual=self.residual.value, **sizes)

    def formula(self) -> DepthMixing | None:
        """The matrix by formula, None where the rule has none."""
        try:
            return mixing_matrix(self.config, TOKENS)
        except ValueError:
            return None

    def view(self, measured: Any) -> MixingView:
        """By formula at once; else what was measured for exactly these settings."""
        config, source = self.config, "By formula, at initialisation"
        matrix = self.formula()
        if matrix is None and measured is not None and measured[0] == config:
            matrix, source = measured[1], "A real model at initialisation, measured just now, seed 0"
        if matrix is None:
            n = 2 * config.decoder_layers + 1
            matrix = DepthMixing("", np.zeros((n, n)), np.zeros((n, n)), tuple(range(n)))
            source = "No formula, not measured yet"
        layers = f"{config.decoder_layers} layer{'s' * (config.decoder_layers > 1)}"
        last = matrix.shares[-1]
        return MixingView(
            f"{RESIDUALS[config.residual].title}, {layers}",
            f"Of the output's variance {last[0]:.2g} comes from the input and {last[-1]:.2g} from the last sub-layer."
            if last.any()
            else "Not measured yet.",
            f"Shades: {SHADES[self.shades.value]}. {source}.",
            matrix,
            self.shades.value,
        )

    def measurement(self) -> Callable[[Tick], Any] | None:
        """A real model, where there is no formula."""
        if self.formula() is not None:
            return None
        config = self.config
        if self._found is not None and self._found[0] == config:
            return None

        def measured(_: Tick) -> Any:
            from deepnet_edu.model import build_model, random_batch
            from deepnet_edu.probing import depth_mixing

            return config, depth_mixing(build_model(config), random_batch(config, 2, TOKENS))

        return measured
