"""Explorer 3: which constants?"""

from html import escape
from typing import Any

import ipywidgets

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Dial, choice
from deepnet_edu.explorers.signal import DEPTHS
from deepnet_edu.figures.constants import ConstantsFigure, ConstantsView, StackChoice
from deepnet_edu.scaling import deepnorm_constants


def stack_choices(encoder_layers: int, decoder_layers: int) -> list[StackChoice]:
    """The constants of a model's stacks, with condition and formula.

    Args:
        encoder_layers: N, 0 for none.
        decoder_layers: M, 0 for none.
    """
    N, M = encoder_layers, decoder_layers
    found = deepnorm_constants(N, M)
    both = bool(N and M)
    choices = []
    if found.encoder is not None:
        a, b = found.encoder.alpha, found.encoder.beta
        if both:
            budget, condition = (N**4 * M / 27) ** 0.25, "(N⁴M/27)^¼ · 2β²/α² = 1"
            text = rf"{N}^4\cdot {M}"
            formula = (
                rf"$\alpha = 0.81\,({text})^{{1/16}} = {a:.4f}$"
                + "\n"
                + rf"$\beta = 0.87\,({text})^{{-1/16}} = {b:.4f}$"
            )
        else:
            budget, condition, formula = 2 * N, "2N · 2β²/α² = 1", _single(N, a, b)
        choices.append(StackChoice("encoder", a, b, budget, condition, formula))
    if found.decoder is not None:
        a, b = found.decoder.alpha, found.decoder.beta
        if both:
            formula = (
                rf"$\alpha = (3\cdot {M})^{{1/4}} = {a:.4f}$" + "\n" + rf"$\beta = (12\cdot {M})^{{-1/4}} = {b:.4f}$"
            )
            choices.append(StackChoice("decoder", a, b, 3 * M, "3M · 2β²/α² = 1", formula))
        else:
            choices.append(StackChoice("decoder", a, b, 2 * M, "2M · 2β²/α² = 1", _single(M, a, b)))
    return choices


def _single(layers: int, a: float, b: float) -> str:
    return (
        rf"$\alpha = (2\cdot {layers})^{{1/4}} = {a:.4f}$" + "\n" + rf"$\beta = (8\cdot {layers})^{{-1/4}} = {b:.4f}$"
    )


class ConstantsExplorer(Explorer):
    """Architecture, N and M → α and β of each stack, where they come from, and the code."""

    name = "constants"
    title = "Which constants?"
    about = "choose an architecture and its depths; see α and β of each stack, with formula and code."

    def __init__(self, encoder_layers: int = 0, decoder_layers: int = 1000) -> None:
        both = bool(encoder_layers and decoder_layers)
        kind = "encoder_decoder" if both else "encoder" if encoder_layers else "decoder"
        said: dict[str, Any] = {"changed": self.refresh, "refuse": self.refuse}
        options = [("encoder only", "encoder"), ("decoder only", "decoder"), ("encoder-decoder", "encoder_decoder")]
        self.architecture = choice("architecture", options, kind, self.refresh)
        self.encoder = Dial("N, encoder layers", DEPTHS, encoder_layers or 12, whole=True, **said)
        self.decoder = Dial("M, decoder layers", DEPTHS, decoder_layers or 12, whole=True, **said)
        self.code = ipywidgets.HTML()
        super().__init__([self.architecture, self.encoder, self.decoder, self.code], ConstantsFigure())

    def depths(self) -> tuple[int, int]:
        """N and M, 0 where the architecture has no such stack."""
        has = self.architecture.value
        return int(self.encoder.value) * ("encoder" in has), int(self.decoder.value) * ("decoder" in has)

    def view(self, measured: Any) -> ConstantsView:
        """The stacks that there are."""
        N, M = self.depths()
        self.encoder.disabled, self.decoder.disabled = not N, not M
        given = [f"encoder_layers={N}"] * bool(N) + [f"decoder_layers={M}"] * bool(M)
        choices = stack_choices(N, M)
        lines = [f"constants = deepnorm_constants({', '.join(given)})"]
        lines += [f"constants.{one.name}  # alpha = {one.alpha:.4f}, beta = {one.beta:.4f}" for one in choices]
        code = "\n".join(["from deepnet_edu import deepnorm_constants", *lines])
        self.code.value = f'<pre style="line-height: 1.4; user-select: all; overflow-x: auto">{escape(code)}</pre>'
        layers = " and ".join([f"N = {N:,} encoder layers"] * bool(N) + [f"M = {M:,} decoder layers"] * bool(M))
        return ConstantsView(f"DeepNorm with {layers}", choices)
