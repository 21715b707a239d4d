"""Published models: their shapes as data, what they are known from, and how sure that is."""

from dataclasses import dataclass, field
from typing import Any, Literal

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


def _bert(layers: int, d: int, total: int, **others: int) -> Published:
    config = ModelConfig(
        "encoder", "mlm", 0, layers, d_model=d, n_heads=d // 64, d_ff=4 * d, vocab_size=30_522, max_length=512,
        residual="post_ln", shared_embeddings=True, embedding="bert", head="bert",
    )  # fmt: skip
    return Published(
        f"BERT {'base' if layers == 12 else 'large'}", config, total, "arXiv 1810.04805, Section 3", "recalled",
        "110M" if layers == 12 else "340M",
        "with the head that predicts hidden tokens; a pooler and a classifier of sentence pairs make the others",
        others,
    )  # fmt: skip


def _gpt(title: str, layers: int, d: int, heads: int, context: int, total: int, size: str, more: str = "") -> Published:
    config = ModelConfig(
        "decoder", "lm", layers, d_model=d, n_heads=heads, d_ff=4 * d, vocab_size=50_257, max_length=context,
        residual="pre_ln", shared_embeddings=True,
    )  # fmt: skip
    source = "arXiv 2005.14165, Table 2.1" if title.startswith("GPT-3") else "openai.com, GPT-2 (2019), and its code"
    return Published(title, config, total, source, "recalled", size, more)


#: What the LLaMA family has in common.
_LLAMA: dict[str, Any] = {
    "residual": "pre_ln", "norm": "rms", "activation": "swiglu", "position": "rotary", "bias": False,
}  # fmt: skip


def _llama(
    title: str, layers: int, d: int, heads: int, ff: int, vocabulary: int, total: int, *, source: str, size: str,
    kv: int = 0, context: int = 4096, base: float = 10_000.0, sure: Sure = "recalled", note: str = "",
) -> Published:  # fmt: skip
    config = ModelConfig(
        "decoder", "lm", layers, d_model=d, n_heads=heads, n_kv_heads=kv, d_ff=ff, vocab_size=vocabulary,
        max_length=context, rotary_base=base, **_LLAMA,
    )  # fmt: skip
    return Published(title, config, total, source, sure, size, note)


def _deepnet(layers: int, d: int, total: int, size: str, what: str) -> Published:
    config = ModelConfig(
        "encoder_decoder", "translation", layers, layers,
        d_model=d, n_heads=d // 64, d_ff=4 * d, vocab_size=250_000, shared_embeddings=True, activation="relu",
    )  # fmt: skip
    return Published(
        f"DeepNet {2 * layers:,} layers{what}", config, total, "arXiv 2203.00555, Sections 5 and 6", "inferred", size,
        "the paper states neither vocabulary nor positions: about 250,000 follows from its sizes, the rest is a choice",
    )  # fmt: skip


_ONE, _TWO, _THREE = "arXiv 2302.13971, Table 2", "arXiv 2307.09288", "arXiv 2407.21783, Table 3"
_DEEPSEEK = "arXiv 2401.02954, and the README of github.com/deepseek-ai/DeepSeek-LLM"
_L1: dict[str, Any] = {"source": _ONE, "context": 2048}
_L3: dict[str, Any] = {"source": _THREE, "kv": 8, "context": 8192, "base": 500_000.0}

#: By the name to type.
PUBLISHED: dict[str, Published] = {
    "bert-base": _bert(
        12, 768, 109_514_298, **{"with a pooler, without a head": 109_482_240, "for pretraining": 110_106_428}
    ),
    "bert-large": _bert(
        24, 1024, 335_174_458, **{"with a pooler, without a head": 335_141_888, "for pretraining": 336_226_108}
    ),
    "gpt2-small": _gpt("GPT-2 small", 12, 768, 12, 1024, 124_439_808, "117M, later 124M"),
    "gpt2-xl": _gpt("GPT-2 XL", 48, 1600, 25, 1024, 1_557_611_200, "1.5B"),
    "gpt3-175b": _gpt(
        "GPT-3 175B", 96, 12_288, 96, 2048, 174_604_259_328, "175B",
        "every other layer attends to a band only, which changes no count",
    ),
    "llama-7b": _llama("LLaMA 7B", 32, 4096, 32, 11_008, 32_000, 6_738_415_616, size="6.7B", **_L1),
    "llama-13b": _llama("LLaMA 13B", 40, 5120, 40, 13_824, 32_000, 13_015_864_320, size="13.0B", **_L1),
    "llama-65b": _llama("LLaMA 65B", 80, 8192, 64, 22_016, 32_000, 65_285_660_672, size="65.2B", **_L1),
    "llama2-7b": _llama("Llama 2 7B", 32, 4096, 32, 11_008, 32_000, 6_738_415_616, size="7B", source=_TWO),
    "llama2-13b": _llama("Llama 2 13B", 40, 5120, 40, 13_824, 32_000, 13_015_864_320, size="13B", source=_TWO),
    "llama2-70b": _llama("Llama 2 70B", 80, 8192, 64, 28_672, 32_000, 68_976_648_192, size="70B", source=_TWO, kv=8),
    "llama3-8b": _llama("Llama 3 8B", 32, 4096, 32, 14_336, 128_256, 8_030_261_248, size="8B", **_L3),
    "llama3-70b": _llama("Llama 3 70B", 80, 8192, 64, 28_672, 128_256, 70_553_706_496, size="70B", **_L3),
    "llama3-405b": _llama(
        "Llama 3 405B", 126, 16_384, 128, 53_248, 128_256, 405_853_388_800, size="405B", **_L3,
        note="the weights that were first released had 16 key-value heads: 410,081,247,232",
    ),
    "deepseek-7b": _llama(
        "DeepSeek LLM 7B", 30, 4096, 32, 11_008, 102_400, 6_910_365_696, size="7B", source=_DEEPSEEK, sure="read"
    ),
    "deepseek-67b": _llama(
        "DeepSeek LLM 67B", 95, 8192, 64, 22_016, 102_400, 67_425_001_472, size="67B", source=_DEEPSEEK, kv=8,
        sure="read",
    ),
    "glm-130b": Published(
        "GLM-130B",
        ModelConfig(
            "decoder", "lm", 70, d_model=12_288, n_heads=96, d_ff=32_768, vocab_size=150_528, max_length=2048,
            residual="deepnorm_glm", activation="geglu", position="rotary", shared_embeddings=True, head="norm",
        ),
        128_697_794_560,
        "arXiv 2210.02414; github.com/THUDM/GLM-130B, configs/model_glm_130b.sh",
        "read",
        "130B",
        "DeepNorm with exponents of its own; tokens of a prefix see each other, here only the past",
    ),
    "m2m100-12b": Published(
        "M2M-100 12B",
        ModelConfig(
            "encoder_decoder", "translation", 24, 24, d_model=4096, n_heads=16, d_ff=16_384, vocab_size=128_112,
            max_length=1024, residual="pre_ln", activation="relu", position="sinusoidal", shared_embeddings=True,
        ),
        11_802_198_016,
        "arXiv 2010.11125; the configuration of huggingface.co/Didier/m2m100-12B-avg-5-ckpt",
        "read",
        "12B",
    ),
    "deepnet-200-opus": _deepnet(100, 512, 863_903_744, "863M", " (OPUS-100)"),
    "deepnet-200": _deepnet(100, 1024, 3_195_813_888, "3.2B", " (102 languages)"),
    "deepnet-1000": _deepnet(500, 512, 3_806_470_144, "3.8B", ""),
}  # fmt: skip
