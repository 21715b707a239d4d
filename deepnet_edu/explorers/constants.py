"""Explorer 3: which constants?"""

from html import escape
from typing import Any, ClassVar

from deepnet_edu.explorers.base import Explorer
from deepnet_edu.explorers.dials import Choice, Dial
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
            budget, condition = (N**4 * M / 27) ** 0.25, "(N⁴M/27)^(1/4) · 2β²/α² = 1"
            product = f"({N:,}⁴·{M:,})"
            formula = f"α = 0.81·{product}^(1/16) = {a:.4f}\nβ = 0.87·{product}^(−1/16) = {b:.4f}"
        else:
            budget, condition, formula = 2 * N, "2N · 2β²/α² = 1", _single(N, a, b)
        choices.append(StackChoice("encoder", a, b, budget, condition, formula))
    if found.decoder is not None:
        a, b = found.decoder.alpha, found.decoder.beta
        if both:
            formula = f"α = (3·{M:,})^(1/4) = {a:.4f}\nβ = (12·{M:,})^(−1/4) = {b:.4f}"
            choices.append(StackChoice("decoder", a, b, 3 * M, "3M · 2β²/α² = 1", formula))
        else:
            choices.append(StackChoice("decoder", a, b, 2 * M, "2M · 2β²/α² = 1", _single(M, a, b)))
    return choices


def _single(layers: int, a: float, b: float) -> str:
    return f"α = (2·{layers:,})^(1/4) = {a:.4f}\nβ = (8·{layers:,})^(−1/4) = {b:.4f}"


class ConstantsExplorer(Explorer):
    """Architecture, N and M → α and β of each stack, where they come from, and the code."""

    name = "constants"
    title = "Which constants?"
    about = "choose an architecture and its depths; see α and β of each stack, with formula and code."
    what = (
        "The paper bounds how far one step of training moves the output. That bound is one condition on α and β, the "
        "blue line: every point below it is bounded.",
        "One condition leaves one number free. The paper splits the work equally, α²β² = ½, the dashed line; its "
        "constants are where the two lines cross.",
        "An encoder's constants depend on the decoder as well, because every decoder layer reads the encoder's output. "
        "Post-LN, α = β = 1, is above the condition at every depth.",
    )
    presets: ClassVar[Any] = {
        "1,000 decoder layers": {"architecture": "decoder", "decoder": 1000},
        "12 + 12": {"architecture": "encoder_decoder", "encoder": 12, "decoder": 12},
        "12 + 3": {"architecture": "encoder_decoder", "encoder": 12, "decoder": 3},
        "The paper's 500 + 500": {"architecture": "encoder_decoder", "encoder": 500, "decoder": 500},
    }

    def __init__(self, encoder_layers: int = 0, decoder_layers: int = 1000, **more: Any) -> None:
        both = bool(encoder_layers and decoder_layers)
        kind = "encoder_decoder" if both else "encoder" if encoder_layers else "decoder"
        options = [("encoder only", "encoder"), ("decoder only", "decoder"), ("encoder-decoder", "encoder_decoder")]
        self.architecture = Choice("architecture", options, "decoder")
        self.encoder = Dial("N, encoder layers", DEPTHS, 12, whole=True)
        self.decoder = Dial("M, decoder layers", DEPTHS, 1000, whole=True)
        given = {"architecture": kind, "encoder": encoder_layers or 12, "decoder": decoder_layers or 12}
        super().__init__(["architecture", "encoder", "decoder"], ConstantsFigure(), given | more)

    def depths(self) -> tuple[int, int]:
        """N and M, 0 where the architecture has no such stack."""
        has = self.architecture.value
        return int(self.encoder.value) * ("encoder" in has), int(self.decoder.value) * ("decoder" in has)

    def follow(self) -> None:
        """A stack that the architecture does not have cannot be set."""
        N, M = self.depths()
        self.encoder.disabled, self.decoder.disabled = not N, not M

    def view(self, measured: Any) -> ConstantsView:
        """The stacks that there are."""
        N, M = self.depths()
        given = [f"encoder_layers={N}"] * bool(N) + [f"decoder_layers={M}"] * bool(M)
        choices = stack_choices(N, M)
        lines = [f"constants = deepnorm_constants({', '.join(given)})"]
        lines += [f"constants.{one.name}  # alpha = {one.alpha:.4f}, beta = {one.beta:.4f}" for one in choices]
        code = "\n".join(["from deepnet_edu import deepnorm_constants", *lines])
        self.extra = f"<pre>{escape(code)}</pre>"
        layers = " and ".join([f"N = {N:,} encoder layers"] * bool(N) + [f"M = {M:,} decoder layers"] * bool(M))
        said = " and ".join(f"α = {one.alpha:.2f} and β = {one.beta:.3f} in the {one.name}" for one in choices)
        return ConstantsView(f"DeepNorm with {layers}", f"The paper takes {said}.", "By formula.", choices)
