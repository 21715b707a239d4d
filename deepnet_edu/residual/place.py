"""The place that a residual rule is made for: which sub-layer of which stack."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

StackName = Literal["encoder", "decoder"]
Architecture = Literal["encoder", "decoder", "encoder_decoder"]
Norm = Literal["layer", "rms"]


@dataclass(frozen=True)
class Place:
    """Where in a model a rule sits.

    Attributes:
        stack: ``"encoder"`` or ``"decoder"``.
        layer: index of the layer, from 0.
        sublayer: ``"self_attention"``, ``"cross_attention"`` or ``"ffn"``.
        index: index of the sub-layer within its stack, from 0.
        count: number of sub-layers in the stack.
        encoder_layers: N, depth of the model's encoder, 0 if it has none.
        decoder_layers: M, depth of the model's decoder, 0 if it has none.
        norm: what LN stands for: ``"layer"`` (LayerNorm) or ``"rms"`` (RMSNorm).
        override: constants, by name, that are given by hand and no longer the paper's.
    """

    stack: StackName
    layer: int
    sublayer: str
    index: int
    count: int
    encoder_layers: int
    decoder_layers: int
    norm: Norm = "layer"
    override: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Whether the stack starts here."""
        return self.index == 0

    @property
    def is_last(self) -> bool:
        """Whether the stack ends here: a rule with a final norm makes it at this place only."""
        return self.index == self.count - 1

    @property
    def n_layers(self) -> int:
        """Layers of this stack."""
        return self.encoder_layers if self.stack == "encoder" else self.decoder_layers

    @property
    def architecture(self) -> Architecture:
        """What model the stack belongs to."""
        if self.encoder_layers and self.decoder_layers:
            return "encoder_decoder"
        return "encoder" if self.encoder_layers else "decoder"


def sublayer_kinds(stack: StackName, encoder_layers: int) -> list[str]:
    """The sub-layers of a layer; a decoder beside an encoder has a cross-attention."""
    cross = ["cross_attention"] if stack == "decoder" and encoder_layers else []
    return ["self_attention", *cross, "ffn"]


def place_at(
    index: int,
    stack: StackName,
    encoder_layers: int,
    decoder_layers: int,
    norm: Norm = "layer",
    override: Mapping[str, float] | None = None,
) -> Place:
    """The place of one sub-layer, counted from 0 at the bottom of its stack."""
    kinds = sublayer_kinds(stack, encoder_layers)
    count = len(kinds) * (encoder_layers if stack == "encoder" else decoder_layers)
    layer, kind = divmod(index, len(kinds))
    return Place(stack, layer, kinds[kind], index, count, encoder_layers, decoder_layers, norm, override or {})


def places(
    stack: StackName,
    encoder_layers: int,
    decoder_layers: int,
    norm: Norm = "layer",
    override: Mapping[str, float] | None = None,
) -> Iterator[Place]:
    """The places of a stack from the bottom up."""
    layers = encoder_layers if stack == "encoder" else decoder_layers
    for index in range(layers * len(sublayer_kinds(stack, encoder_layers))):
        yield place_at(index, stack, encoder_layers, decoder_layers, norm, override)
