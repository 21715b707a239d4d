"""Runs that have a name: a laptop's, a GPU's, and those of the paper.

Each is three tables, ``model``, ``train`` and ``data``, whose keys are the fields of
:class:`~deepnet_edu.model.config.ModelConfig`, :class:`~deepnet_edu.training.config.TrainConfig` and
:class:`~deepnet_edu.experiment.data.DataConfig`; what a table leaves out is those classes' default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deepnet_edu.planning import SHAPES

Table = Mapping[str, Any]

#: The 99 languages that OPUS-100 pairs with English (Zhang et al. 2020, arXiv 2004.11867).
OPUS_100 = (
    "af am an ar as az be bg bn br bs ca cs cy da de dz el eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu hy id ig "
    "is it ja ka kk km kn ko ku ky li lt lv mg mk ml mn mr ms mt my nb ne nl nn no oc or pa pl ps pt ro ru rw se sh si "
    "sk sl sq sr sv ta te tg th tk tr tt ug uk ur uz vi wa xh yi yo zh zu"
)
#: Sentence pairs of OPUS-100 by its own description, "approximately 55M".
OPUS_PAIRS = 55_000_000
#: Assumed: tokens of a sentence with its padding. No table gives it.
OPUS_TOKENS = 25
#: Both from the tables: tokens of a batch, and batches of a step.
PAPER_TOKENS, PAPER_BATCHES = 4096, 128
OPUS_EPOCHS = 4
#: Each pair is read in both directions.
OPUS_STEPS = OPUS_EPOCHS * 2 * OPUS_PAIRS * OPUS_TOKENS // (PAPER_TOKENS * PAPER_BATCHES)


@dataclass(frozen=True)
class Preset:
    """A run that has a name.

    Attributes:
        source: where its numbers come from, and which of them are assumed.
        model: fields of ModelConfig.
        train: fields of TrainConfig.
        data: fields of DataConfig.
    """

    source: str
    model: Table
    train: Table
    data: Table


#: What Tables 4 to 8 of arXiv 2203.00555 have in common.
_PAPER: Table = {
    "schedule": "inverse_sqrt",
    "warmup": 4000,
    "warmup_start": 1e-7,
    "betas": (0.9, 0.98),
    "label_smoothing": 0.1,
    "clip": 0.0,
    "accumulate": PAPER_BATCHES,
    # Not of the paper, which does not name its precision: what lets a deep model fit, and a run continue.
    "precision": "bf16",
    "checkpoint_every": "auto",
    "save_every": 1000,
}


def _wmt17(layers: int) -> Preset:
    return Preset(
        source="arXiv 2203.00555, Table 1 and the hyper-parameters of WMT-17 En-De, base (Tables 4 to 8). "
        "Assumed: one vocabulary of 32,768 byte pairs shared by all embeddings, ReLU, learned positions, pairs of at "
        "most 256 tokens, bf16.",
        model={
            "architecture": "encoder_decoder",
            "task": "translation",
            "encoder_layers": layers,
            "decoder_layers": layers,
            "d_model": 512,
            "n_heads": 8,
            "d_ff": 2048,
            "vocab_size": 32_768,
            "shared_embeddings": True,
            "activation": "relu",
            "dropout": 0.4,
        },
        train={**_PAPER, "steps": 100_000, "learning_rate": 1.5e-3, "epsilon": 1e-8, "weight_decay": 1e-4},
        data={
            "source": "translation",
            "name": "wmt17-en-de",
            "directions": ("en-de",),
            "tokenizer": "bpe",
            "length": 256,
            "max_tokens": PAPER_TOKENS,
        },
    )


def _opus100(layers: int) -> Preset:
    shape = SHAPES["deepnet_200_opus"]
    return Preset(
        source="arXiv 2203.00555, Table 2 and the hyper-parameters of OPUS-100 (Tables 4 to 8). "
        f"Assumed: {OPUS_EPOCHS} epochs are {OPUS_STEPS:,} steps, with {OPUS_PAIRS:,} pairs read in both directions "
        f"and {OPUS_TOKENS} tokens a sentence; a vocabulary of {shape.vocab_size:,}, inferred from the paper's "
        "parameters; languages as often as they occur in the data; ReLU, learned positions, bf16.",
        model={
            "architecture": "encoder_decoder",
            "task": "translation",
            "encoder_layers": layers,
            "decoder_layers": layers,
            "d_model": shape.d_model,
            "n_heads": shape.n_heads,
            "d_ff": shape.d_ff,
            "vocab_size": shape.vocab_size,
            "shared_embeddings": shape.shared_embeddings,
            "activation": shape.activation,
            "dropout": 0.1,
        },
        train={**_PAPER, "steps": OPUS_STEPS, "learning_rate": 5e-4, "epsilon": 1e-8},
        data={
            "source": "translation",
            "name": "opus-100",
            "directions": tuple(f"{a}-{b}" for other in OPUS_100.split() for a, b in ((other, "en"), ("en", other))),
            "tokenizer": "bpe",
            "length": 256,
            "max_tokens": PAPER_TOKENS,
        },
    )


PRESETS: dict[str, Preset] = {
    "laptop-1000": Preset(
        source="A decoder of 1,000 layers on Python's documentation, byte by byte, for two cores of a CPU.",
        model={
            "architecture": "decoder",
            "task": "lm",
            "decoder_layers": 1000,
            "d_model": 64,
            "n_heads": 4,
            "d_ff": 256,
            "vocab_size": 128,
            "max_length": 64,
        },
        train={"steps": 200, "learning_rate": 5e-4, "warmup": 40, "save_every": 50},
        data={"source": "python_docs", "sequences": 8, "length": 64},
    ),
    "gpu-1000": Preset(
        source="A decoder of 1,000 layers, d = 512, 32,768 tokens a step: case (b) of benchmarks/gpu_depth.py. "
        "Python's documentation is short for it, a few steps are an epoch: it shows that the stack trains, and how "
        "fast. Learning rate and steps are a choice.",
        model={
            "architecture": "decoder",
            "task": "lm",
            "decoder_layers": 1000,
            "d_model": 512,
            "n_heads": 8,
            "d_ff": 2048,
            "vocab_size": 8192,
            "max_length": 256,
        },
        train={
            "steps": 500,
            "learning_rate": 3e-4,
            "warmup": 100,
            "precision": "bf16",
            "checkpoint_every": "auto",
            "compile": "layer",
            "save_every": 100,
        },
        data={"source": "python_docs", "tokenizer": "bpe", "sequences": 128, "length": 256},
    ),
    **{f"wmt17-{n}x{n}": _wmt17(n) for n in (18, 50, 100)},
    **{f"opus100-{n}x{n}": _opus100(n) for n in (100, 500)},
}
