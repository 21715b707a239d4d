"""How to train: one dataclass, checked on creation."""

import math
import sys
from dataclasses import MISSING, dataclass, fields
from typing import Literal, get_args

from deepnet_edu.fields import check_fields, check_whole
from deepnet_edu.messages import shown, unknown
from deepnet_edu.model.config import Group
from deepnet_edu.model.mode import Backend, Compile, NormKernel, StreamPrecision

Schedule = Literal["constant", "inverse_sqrt", "cosine"]
Optimizer = Literal["adamw", "sgd"]
Precision = Literal["fp32", "bf16", "fp16"]

_CHOICES = {
    "schedule": get_args(Schedule),
    "optimizer": get_args(Optimizer),
    "precision": get_args(Precision),
    "compile": get_args(Compile),
    "attention": get_args(Backend),
    "stream": get_args(StreamPrecision),
    "norm_kernel": get_args(NormKernel),
}
#: Least and greatest. A run of more steps than a billion would never end.
_WHOLE = {
    "steps": (1, 10**9),
    "warmup": (0, 10**9),
    "accumulate": (1, 10**6),
    "seed": (0, 2**63 - 1),
    "profile_every": (0, 10**9),
    "save_every": (0, 10**9),
    "keep": (1, 10**6),
}
#: Options of earlier versions, as files may still say them, and what is done now.
FORMER = {"tf32": False, "momentum": 0.0}
_NOT_NEGATIVE = ("warmup_start", "final_learning_rate", "weight_decay", "clip", "label_smoothing")


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Everything is checked on creation.

    Attributes:
        steps: number of updates.
        learning_rate: behind the warm-up, the largest.
        schedule: what follows the warm-up: ``"constant"``, ``"inverse_sqrt"`` (the paper's) or ``"cosine"``.
        warmup: steps of linear warm-up, 0 for none.
        warmup_start: the learning rate that the warm-up starts from (the paper: 1e-7).
        final_learning_rate: where the cosine ends.
        optimizer: ``"adamw"`` or ``"sgd"``.
        betas: AdamW's.
        epsilon: AdamW's.
        weight_decay: on matrices and embeddings only, unless the residual rule says otherwise.
        clip: largest 2-norm of the whole gradient, 0 for no clipping.
        label_smoothing: share of each answer that is spread over all classes (the paper: 0.1).
        accumulate: batches whose gradients make one step, weighted by their answers: as one large batch would.
        precision: ``"fp32"`` (the precision of the weights), or autocast in ``"bf16"`` or, with loss scaling,
            ``"fp16"``. Weights, gradients and optimizer stay as they are.
        checkpoint_every: layers whose activations are thrown away and computed again together; ``"auto"`` for the
            square root of the depth; 0 leaves the model as it is set.
        recompute: how many layers of each stack, the lowest, are computed again so; ``"auto"`` for the fewest that the
            device's memory allows by formula, counted at the first step; ``"all"`` by default.
        keep_attention: what attention gave is kept there, and not computed again.
        offload: what checkpoints keep waits in the CPU's memory.
        compile: ``"layer"`` for one compiled layer that all layers use.
        autotune: its kernels are chosen by measuring, with what follows a product (bias, GELU) fused into it.
        attention: PyTorch's implementation that is asked first: ``"flash"``, ``"cudnn"``, ``"efficient"``, ``"math"``.
        stream: in what the stream is kept under autocast, see :class:`~deepnet_edu.model.mode.Mode`.
        norm_kernel: whether one kernel does what a rule's norm and sum do, likewise.
        cuda_graph: record the whole step once and replay it, on CUDA.
        parameters: what is trained: ``"all"``, the ``"stack"`` alone, or its ``"ends"`` (embeddings and head).
        seed: of the data and of dropout; the model has its own.
        profile_every: steps between two DepthProfiles of the stack, 0 for none.
        save_every: steps between two checkpoints on disk, 0 for none but the last.
        keep: checkpoints on disk that stay.

    Raises:
        ValueError: one sentence that says what was given and what is valid.
    """

    steps: int
    learning_rate: float = 3e-4
    schedule: Schedule = "constant"
    warmup: int = 20
    warmup_start: float = 0.0
    final_learning_rate: float = 0.0
    optimizer: Optimizer = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0
    label_smoothing: float = 0.0
    accumulate: int = 1
    precision: Precision = "fp32"
    checkpoint_every: int | Literal["auto"] = 0
    recompute: int | Literal["all", "auto"] = "all"
    keep_attention: bool = False
    offload: bool = False
    compile: Compile = "no"
    autotune: bool = False
    attention: Backend = "auto"
    stream: StreamPrecision = "float32"
    norm_kernel: NormKernel = "auto"
    cuda_graph: bool = False
    parameters: Group = "all"
    seed: int = 0
    profile_every: int = 0
    save_every: int = 0
    keep: int = 3

    def __post_init__(self) -> None:
        check_fields(self, leave=(*_WHOLE, "checkpoint_every", "recompute", "learning_rate", "epsilon", *_NOT_NEGATIVE))
        for name, (least, most) in _WHOLE.items():
            check_whole(name, getattr(self, name), least, most)
        if not (isinstance(self.checkpoint_every, str) and self.checkpoint_every == "auto"):
            check_whole("checkpoint_every", self.checkpoint_every, 0, 10**9, " or 'auto'")
        if not (isinstance(self.recompute, str) and self.recompute in ("all", "auto")):
            check_whole("recompute", self.recompute, 0, 10**9, ", 'all' or 'auto'")
        for name, valid in _CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(unknown(name, getattr(self, name), valid))
        if self.parameters not in get_args(Group):
            raise ValueError(unknown("group of parameters", self.parameters, get_args(Group)))
        for name in ("learning_rate", "epsilon"):
            if not (_is_number(value := getattr(self, name)) and value > 0):
                raise ValueError(f"{name}={shown(value)}: expected a positive number, for example 3e-4.")
        for name in _NOT_NEGATIVE:
            if not (_is_number(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"{name}={shown(value)}: expected 0 or more.")
        if self.label_smoothing >= 1:
            raise ValueError(f"label_smoothing={self.label_smoothing!r}: expected less than 1.")
        betas = self.betas if isinstance(self.betas, tuple | list) else ()
        if len(betas) != 2 or not all(_is_number(beta) and 0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"betas={shown(self.betas)}: expected two numbers from 0 to below 1, for example (0.9, 0.999)."
            )
        self._check_together()

    @property
    def planned(self) -> str:
        """The precision by the name that :mod:`deepnet_edu.planning` has for it."""
        if self.precision == "fp32":
            return "float32"
        return "autocast_half" if self.stream == "half" else "autocast"

    def _check_together(self) -> None:
        """What contradicts something else, instead of being ignored."""
        if self.final_learning_rate and self.schedule != "cosine":
            raise ValueError(f"final_learning_rate={self.final_learning_rate}: only schedule='cosine' has an end.")
        if self.final_learning_rate > self.learning_rate or self.warmup_start > self.learning_rate:
            raise ValueError(
                f"learning_rate={self.learning_rate} is the largest: warmup_start={self.warmup_start} and "
                f"final_learning_rate={self.final_learning_rate} must not exceed it."
            )
        if self.schedule == "cosine" and self.warmup >= self.steps:
            raise ValueError(f"warmup={self.warmup} of steps={self.steps}: nothing is left for schedule='cosine'.")
        if self.autotune and self.compile == "no":
            raise ValueError("autotune=True chooses among the kernels of a compiled layer: say compile='layer' too.")
        if self.cuda_graph and (self.precision == "fp16" or self.offload):
            other = "offload=True" if self.offload else "precision='fp16'"
            raise ValueError(
                f"cuda_graph=True cannot record {other}: leave one of them out; precision='bf16' can be recorded."
            )


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step, counted from 0: a linear warm-up, then the schedule.

    With t = step + 1, W = warmup, T = steps: t/W of the way from warmup_start to learning_rate, then learning_rate
    (constant), learning_rate·√(W/t) (inverse_sqrt, as in arXiv 2203.00555, Tables 4-8), or half a cosine down to
    final_learning_rate at T.
    """
    t, peak, warmup = step + 1, config.learning_rate, config.warmup
    if t <= warmup:
        return config.warmup_start + (peak - config.warmup_start) * t / warmup
    if config.schedule == "inverse_sqrt":
        return peak * math.sqrt(max(warmup, 1) / t)
    if config.schedule == "cosine":
        done = min(1.0, (t - warmup) / (config.steps - warmup))
        return config.final_learning_rate + (peak - config.final_learning_rate) * (1 + math.cos(math.pi * done)) / 2
    return peak


def _is_number(value: object) -> bool:
    """Whether it is a number that a float can hold; Python's whole numbers may have any size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


#: What a recipe has where nothing is said, by field.
DEFAULTS = {one.name: one.default for one in fields(TrainConfig) if one.default is not MISSING}
