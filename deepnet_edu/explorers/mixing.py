"""Explorer 8: who hears whom over depth."""

from collections.abc import Callable
from typing import Any

import numpy as np

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Dial, choice, rules
from deepnet_edu.explorers.settings import Tick
from deepnet_edu.figures.mixing import SHADES, MixingFigure, MixingView
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

    def __init__(self, residual: str = DEFAULT, depth: int = 12) -> None:
        self.residual = choice("rule", rules(), residual, self.refresh)
        self.depth = Dial("depth (layers)", DEPTHS, depth, whole=True, changed=self.refresh, refuse=self.refuse)
        self.shades = choice("shades", [(words, name) for name, words in SHADES.items()], "weights", self.refresh)
        super().__init__([self.residual, self.depth, self.shades], MixingFigure())

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
        config, source = self.config, "by formula, at initialisation"
        matrix = self.formula()
        if matrix is None and measured is not None and measured[0] == config:
            matrix, source = measured[1], "a real model at initialisation, measured just now, seed 0"
        if matrix is None:
            n = 2 * config.decoder_layers + 1
            matrix = DepthMixing("", np.zeros((n, n)), np.zeros((n, n)), tuple(range(n)))
            source = "no formula, not measured yet"
        layers = f"{config.decoder_layers} layer{'s' * (config.decoder_layers > 1)}"
        return MixingView(matrix, self.shades.value, f"{RESIDUALS[config.residual].title}, {layers}", source)

    def measurement(self) -> Callable[[Tick], Any] | None:
        """A real model, where there is no formula."""
        if self.formula() is not None:
            return None
        config = self.config

        def measured(_: Tick) -> Any:
            from deepnet_edu.model import build_model, random_batch
            from deepnet_edu.probing import depth_mixing

            return config, depth_mixing(build_model(config), random_batch(config, 2, TOKENS))

        return measured
