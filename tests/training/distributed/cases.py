"""What ranks are asked to do: plans, models and settings by name, for the ranks and for the tests that look at them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from deepnet_edu.data import TokenMap
from deepnet_edu.model import IGNORED, Batch, ModelConfig, random_batch
from deepnet_edu.planning import Plan
from deepnet_edu.training import TrainConfig

STEPS = 10
ARCHITECTURES = ("decoder", "encoder_decoder")
#: One stream; one with a norm at its end, which the last stage alone has; two streams.
RULES = ("deepnorm", "pre_ln", "resi_dual")
PLANS = {
    2: ("data=2", "shard=2", "pipeline=2", "pipeline=2,schedule=gpipe", "pipeline=2,schedule=interleaved"),
    4: ("data=2,pipeline=2,microbatches=2", "shard=2,pipeline=2,microbatches=2"),
}


@dataclass(frozen=True)
class Case:
    """A plan on a model, trained for ``STEPS`` steps of ``accumulate`` batches."""

    plan: str
    architecture: str
    residual: str
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        given = {**self.model, **self.train}
        return " ".join([self.plan, self.architecture, self.residual, *(f"{k}={v}" for k, v in given.items())])

    @property
    def config(self) -> ModelConfig:
        """As few layers as there are stages."""
        layers = max(Plan.parse(self.plan).stages, 2)
        sizes = {"d_model": 8, "n_heads": 2, "d_ff": 12, "vocab_size": 11, "max_length": 8, "residual": self.residual}
        if self.architecture == "encoder_decoder":
            depth = {"encoder_layers": layers // 2, "decoder_layers": layers // 2}
            return ModelConfig("encoder_decoder", "translation", **depth, **{**sizes, **self.model})
        return ModelConfig("decoder", "lm", layers, **{**sizes, **self.model})

    @property
    def recipe(self) -> TrainConfig:
        defaults = {"learning_rate": 1e-2, "warmup": 3, "clip": 0.5, "weight_decay": 0.1}
        return TrainConfig(steps=STEPS, **{**defaults, **self.train})

    def batches(self, step: int) -> list[Batch]:
        """Of this step: padded on both sides, with unequal numbers of answers, in one sequence none; later longer."""
        many, length = self.recipe.accumulate, 5 + step // 5
        return [padded(self.config, 100 * step + i, 8 if many == 1 else 6, length) for i in range(many)]


def padded(config: ModelConfig, seed: int, sequences: int, length: int) -> Batch:
    batch = random_batch(config, sequences, length, seed)
    generator = torch.Generator().manual_seed(seed)
    targets = batch.targets.masked_fill(torch.rand(batch.targets.shape, generator=generator) < 0.3, IGNORED)
    targets[1] = IGNORED
    padding = torch.zeros_like(batch.inputs, dtype=torch.bool)
    padding[::2, 4:] = True
    target_padding = None
    if batch.target_inputs is not None:
        target_padding = torch.zeros_like(batch.target_inputs, dtype=torch.bool)
        target_padding[1::3, 3:] = True
    return Batch(batch.inputs, targets, padding, batch.target_inputs, target_padding)


def _more(ranks: int) -> list[Case]:
    """Beside the table of plans, architectures and rules."""
    if ranks == 4:
        return [
            Case("data=2,pipeline=2,schedule=interleaved,microbatches=2", "decoder", "deepnorm"),
            Case("shard=2,pipeline=2,microbatches=2", "decoder", "deepnorm", {"shared_embeddings": True}),
        ]
    tied = {"shared_embeddings": True}
    # Six sequences in four micro-batches: two more are made up, of which nothing is asked.
    twice = {"accumulate": 2, "label_smoothing": 0.1}
    return [
        # What else a stage sends, holds or does; in one process test_stages.py cuts the models of all rules.
        Case("pipeline=2", "decoder", "dlcl", train={"checkpoint_every": 1}),  # one tensor more with each layer
        Case("pipeline=2", "decoder", "hyper_connections"),  # streams as one tensor of four dimensions
        Case("pipeline=2", "decoder", "ngpt", {"position": "rotary", "activation": "swiglu"}),  # puts weights back
        Case("pipeline=2", "encoder_decoder", "rezero"),  # learns numbers without a dimension
        Case("pipeline=2", "decoder", "branch_norm", train=twice),  # follows the step
        Case("pipeline=2", "decoder", "deepnorm", tied),
        Case("pipeline=2", "decoder", "pre_ln", {"head": "norm", "activation": "geglu", "bias": False}),
        Case("pipeline=2", "encoder_decoder", "deepnorm", tied),
        Case("pipeline=2,schedule=interleaved", "encoder_decoder", "deepnorm", tied, twice),
        Case("pipeline=2", "encoder_decoder", "deepnorm", train={"parameters": "stack"}),
        Case("shard=2", "encoder_decoder", "deepnorm", tied),
        Case("shard=2", "decoder", "peri_ln", train={"checkpoint_every": 2, "optimizer": "sgd"}),
        Case("shard=2", "decoder", "deepnorm", train={**twice, "parameters": "ends"}),
        Case("data=2", "decoder", "deepnorm", tied, twice),
        Case("data=2", "decoder", "rezero", train={"optimizer": "sgd"}),
    ]


CASES = {
    ranks: [
        # Each plan with each rule, and both with each architecture.
        *(Case(plan, ARCHITECTURES[(i + j) % 2], rule) for i, plan in enumerate(plans) for j, rule in enumerate(RULES)),
        *_more(ranks),
    ]
    for ranks, plans in PLANS.items()
}

#: Asked of two ranks, and refused: the plan, the residual rule, what is asked for, and what the sentence says.
REFUSED = [
    ("shard=2", "ngpt", {}, "residual='ngpt' puts whole rows and columns of weights back"),
    ("shard=2", "rezero", {}, "residual='rezero' learns single numbers, and the plan shard=2 cannot cut a number"),
    ("shard=2", "deepnorm", {"precision": "fp16"}, "use precision=bf16"),
    ("pipeline=2", "deepnorm", {"precision": "fp16"}, "use precision=bf16"),
    ("pipeline=2", "deepnorm", {"profile_every": 2}, "leave profile_every out"),
    ("pipeline=2", "deepnorm", {"parameters": "ends"}, "stages with nothing to train"),
    ("data=2", "deepnorm", {"cuda_graph": True}, "cuda_graph=True records none"),
    ("data=3", "deepnorm", {}, "The plan data=3 is for 3 ranks, and there are 2"),
]

#: Runs in folders, with checkpoints: without dropout, so that all plans have the same losses.
SHAPE = {"d_model": 8, "n_heads": 2, "d_ff": 12, "vocab_size": 16, "max_length": 16, "shared_embeddings": True}
MODEL = ModelConfig("decoder", "lm", 4, residual="resi_dual", **SHAPE)
RECIPE = TrainConfig(steps=6, learning_rate=1e-2, warmup=2, save_every=3, weight_decay=0.1, accumulate=2)
TASK = TokenMap(batch_size=8, length=6)
#: The process that wrote three steps of a run in that folder.
WRITTEN = {"single": None, "four": "shard=2,pipeline=2", "two": "shard=2"}


def run_of(folder: Path, name: str) -> Path:
    """Where a run is."""
    return folder / "runs" / name
