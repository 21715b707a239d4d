"""Published models: their shapes as data, what they are known from, and how sure that is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deepnet_edu.fields import from_dict
from deepnet_edu.files import parse_toml
from deepnet_edu.model.config import NO_RESIDUAL, ModelConfig
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.residual.layer_units import in_a_row

#: How a shape is known: read in a configuration or in code; recalled, where the count of all parameters then agrees
#: with the published one; or inferred in part, from a published size.
Sure = Literal["read", "recalled", "inferred"]


@dataclass(frozen=True)
class Published:
    """A published model.

    Attributes:
        title: as it is called.
        config: its shape, in this library's terms.
        parameters: of all of it, what counting must give.
        source: paper, configuration or code.
        sure: how the shape is known, see ``Sure``.
        published: its size as its authors state it.
        note: what else to know, empty if nothing.
        others: parameters of it with other ends, by name.
    """

    title: str
    config: ModelConfig
    parameters: int
    source: str
    sure: Sure
    published: str
    note: str = ""
    others: dict[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """A row of the table that compares them: plain JSON values. Layers are blocks; connections those in a row."""
        c = self.config
        return {
            "model": self.title,
            "architecture": c.architecture,
            "layers": c.encoder_layers + c.decoder_layers,
            "encoder_layers": c.encoder_layers,
            "decoder_layers": c.decoder_layers,
            "connections": in_a_row(c.encoder_layers, c.decoder_layers),
            "parameters": self.parameters,
            "heads": c.n_heads,
            "kv_heads": c.n_kv_heads or c.n_heads,
            "width": c.d_model,
            "features": features(c),
            "published": self.published,
            "sure": self.sure,
            "source": self.source,
            "note": self.note,
            "others": self.others,
        }


def features(config: ModelConfig) -> str:
    """What distinguishes a shape from others, in words."""
    norm = "RMSNorm" if config.norm == "rms" else "LayerNorm"
    rule = "no layers" if config.residual == NO_RESIDUAL else RESIDUALS[config.residual].title
    activation = {"gelu": "GELU", "relu": "ReLU", "swiglu": "SwiGLU", "geglu": "GEGLU"}[config.activation]
    found = [f"{rule} with {norm}", f"{activation} of {config.d_ff:,}", f"{config.position} positions"]
    if config.n_kv_heads not in (0, config.n_heads):
        found.append(f"{config.n_kv_heads} key-value heads")
    if not config.bias:
        found.append("no biases")
    if config.vocab_size:
        found.append(f"vocabulary {config.vocab_size:,}{', tied' if config.shared_embeddings else ''}")
    return ", ".join(found)


def _read() -> dict[str, Published]:
    found = {}
    for name, told in parse_toml(FILE.read_text(encoding="utf-8")).items():
        found[name] = Published(config=from_dict(ModelConfig, told.pop("shape")), **told)
    return found


FILE = Path(__file__).with_suffix(".toml")
#: By the name to type.
PUBLISHED: dict[str, Published] = _read()
