"""What counts as a layer: papers count blocks, residual connections or matrices, and compare their numbers.

Models of different papers are compared by residual connections in a row, which are counted here alone.
"""

from dataclasses import dataclass
from typing import Literal

from deepnet_edu.residual.place import Architecture

#: A block is attention and feed-forward, in a decoder beside an encoder cross-attention too; a connection is one
#: residual sum, our sub-layer; four Dense layers are one residual block of 1000 Layer Networks.
Unit = Literal["block", "connection", "dense"]
_DENSE_PER_CONNECTION = 4


def in_a_row(encoder_layers: int, decoder_layers: int) -> int:
    """Residual connections on the longest path through this many blocks: two in each, three beside an encoder."""
    return 2 * encoder_layers + (3 if encoder_layers and decoder_layers else 2) * decoder_layers


@dataclass(frozen=True)
class LayerUnit:
    """What a paper calls a layer.

    Attributes:
        paper: its name.
        source: where that is said.
        unit: what it counts.
        layers: its deepest, as it counts; 0 where we know of none.
        connections: residual connections of that on the longest path from input to output.
        note: what the number means.
    """

    paper: str
    source: str
    unit: Unit
    layers: int
    connections: int
    note: str

    def connections_of(self, layers: int, architecture: Architecture = "decoder") -> int:
        """Residual connections on the longest path through this many of this paper's layers.

        Args:
            layers: as the paper counts; of an encoder-decoder both stacks together, equally deep.
            architecture: of the model, where blocks are counted.

        Raises:
            ValueError: the number is not positive, or does not come out even.
        """
        by = 2 if self.unit == "block" and architecture == "encoder_decoder" else 1
        by = _DENSE_PER_CONNECTION if self.unit == "dense" else by
        if layers < 1 or layers % by:
            raise ValueError(
                f"layers={layers}: {self.paper} counts {self.unit}s, expected a positive multiple of {by}."
            )
        if self.unit == "block":
            return in_a_row(layers // by, layers // by) if by == 2 else in_a_row(0, layers)
        return layers // by


#: By residual rule; every other rule of ours counts blocks, as DeepNet does.
LAYER_UNITS: dict[str, LayerUnit] = {
    "deepnorm": LayerUnit(
        "DeepNet", "arXiv 2203.00555", "block", 1000, 2500, "500 + 500 blocks: 500·2 and 500·3 connections in a row"
    ),
    "keel": LayerUnit("Keel", "arXiv 2601.19895", "connection", 1024, 1024, "512 blocks of a decoder"),
    "mhc": LayerUnit("mHC", "arXiv 2512.24880", "connection", 60, 60, "in its figures: 30 blocks of its 27B model"),
    "attention_residuals": LayerUnit("Attention Residuals", "arXiv 2603.15031", "connection", 0, 0, "two in a block"),
    "block_attention_residuals": LayerUnit(
        "Attention Residuals", "arXiv 2603.15031", "connection", 0, 0, "two in a block"
    ),
    "rl_1000": LayerUnit(
        "1000 Layer Networks", "arXiv 2503.14858", "dense", 1024, 256, "Dense layers, four in a residual block"
    ),
}


def layer_unit(residual: str) -> LayerUnit:
    """What the paper of a rule counts: of rules that are not listed, blocks."""
    return LAYER_UNITS.get(residual, LayerUnit("this course", "CONTRIBUTING.md", "block", 0, 0, "as DeepNet counts"))


def connections(residual: str, layers: int, architecture: Architecture = "decoder") -> int:
    """Residual connections on the longest path, where a rule's paper says this many layers; depths are compared by it.

    Raises:
        ValueError: as :meth:`LayerUnit.connections_of`.
    """
    return layer_unit(residual).connections_of(layers, architecture)
