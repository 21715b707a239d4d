"""The memory of a training run, part by part, from the configuration alone.

Everything is counted but five constants, which were fitted to seven measured runs and judged on sixteen others:
benchmarks/memory.py, benchmarks/results/memory.json.
"""

from dataclasses import asdict, dataclass
from typing import Any, get_args

from deepnet_edu.fields import checked
from deepnet_edu.messages import unknown
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.model.mode import Mode, PathName
from deepnet_edu.model.paths import compiled_sizes, knows
from deepnet_edu.model.shape import layers_again, layers_together
from deepnet_edu.planning.parameters import count_parameters
from deepnet_edu.planning.saved import SavedNumbers
from deepnet_edu.planning.workload import PRECISIONS, Workload

#: Fitted. Bytes of Python and PyTorch with an optimizer (Linux, CPU build), and a sub-layer's of modules and views.
PROCESS, OBJECTS = 356_000_000, 17_500
#: Fitted. The share of activations lost in gaps between tensors that came and went: by the fast path tensors stay
#: where they are. By the plain path it depends on the order of their sizes, and on luck; rotary positions add to it,
#: since tensors of more sizes come and go.
GAPS, ROTARY_GAPS = 0.153, 0.129
#: Fitted. Bytes a sub-layer that PyTorch's checkpointing takes for its bookkeeping, by the plain path.
BOOKS = 44_700


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part at the peak of a training run.

    Attributes:
        path: ``"fast"`` or ``"plain"``, the one that was counted.
        parameters: how many.
        process: Python and PyTorch, before there is a model; 0 on a GPU, where they are not.
        weights, gradients, optimizer: of AdamW over flat buffers; weights with their copies under autocast.
        activations: what the backward pass reads.
        temporaries: what comes and goes in it.
        objects: Python's, and gaps between tensors; 0 on a GPU.
        entering: the peak before the first step, when weights move to the optimizer's buffer: rarely the larger one.
    """

    path: str
    parameters: int
    process: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    temporaries: int
    objects: int
    entering: int

    @property
    def total(self) -> int:
        """The peak, bytes."""
        step = self.weights + self.gradients + self.optimizer + self.activations + self.temporaries
        return max(self.process + self.objects + step, self.entering)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, bytes."""
        return {**asdict(self), "total": self.total}


@checked()
def training_memory(
    config: ModelConfig,
    sequences: int,
    tokens: int,
    *,
    source_tokens: int = 0,
    checkpoint_every: int | str = 0,
    recompute: int | str = "all",
    keep_attention: bool = False,
    offload: bool = False,
    path: str = "auto",
    precision: str = "float32",
    compiled: bool = True,
    device: str = "cpu",
) -> MemoryPlan:
    """The peak memory of training ``config`` with this library on one device.

    Args:
        config: any.
        sequences: B.
        tokens: T, of the target where there are two languages; of an image, its patches.
        source_tokens: of the source; 0 for as many.
        checkpoint_every: layers whose activations are computed again together; ``"auto"`` is √n_layers of each stack; 0
            keeps all.
        recompute: how many layers of each stack, the lowest, are computed again; ``"all"`` of them by default.
        keep_attention: what attention gave is kept at checkpoints.
        offload: what checkpoints keep is in the CPU's memory, which makes a difference on a GPU only.
        path: ``"plain"``, ``"fast"`` or ``"auto"``, see :class:`deepnet_edu.model.stack.Stack`.
        precision: a name in ``PRECISIONS``. In float32 and float64 it was measured on a CPU; "mixed" is arithmetic
            (facts of Korthikanti et al., arXiv 2205.05198), this library does not train so. "autocast" is PyTorch's, to
            bfloat16: what a layer keeps is counted for Post-LN, Pre-LN and DeepNorm, and estimated for others;
            "autocast_half" with ``stream="half"``, where checkpoints keep half as much.
        compiled: whether there is a C compiler.
        device: ``"cpu"``, or ``"cuda"``, whose memory holds tensors alone: Python and PyTorch are not counted, nor
            gaps between tensors, which were fitted on a CPU, nor workspaces of libraries. With checkpoints it was
            compared with two models on an H200 (benchmarks/results/gpu_depth.json).

    Raises:
        ValueError: a size is not positive, there is no such precision, path or device, or path is ``"fast"`` where it
            is not.
    """
    for kind, given, valid in (("path", path, get_args(PathName)), ("device", device, ("cpu", "cuda"))):
        if given not in valid:
            raise ValueError(unknown(kind, given, valid))
    work = Workload(config, sequences, tokens, source_tokens, precision)
    mode = Mode(checkpoint_every=checkpoint_every, recompute=recompute, keep_attention=keep_attention, offload=offload)
    on_cpu = device == "cpu"
    chosen = recompute != "all" or keep_attention
    fast = path != "plain" and on_cpu and not offload and not chosen and _fast_knows(work)
    if path == "fast" and not fast:
        raise ValueError("path='fast': the fast path does not know this model, length or precision; use path='auto'.")
    weight, gradient, optimizer, _ = PRECISIONS[precision]
    count = count_parameters(config)["all"]
    sizes = not compiled_sizes(config.d_ff, config.d_model // config.n_heads)
    saved = SavedNumbers(work, fast, compiled and precision == "float32" and sizes)
    copies, activations, temporaries = max(_moments(saved, mode, on_cpu), key=sum)
    sublayers = 2 * config.encoder_layers + (3 if config.encoder_layers else 2) * config.decoder_layers
    process = PROCESS if on_cpu else 0
    objects = sublayers * OBJECTS + round(gaps(config, fast) * activations)
    objects += sublayers * BOOKS * bool(checkpoint_every and not fast)
    return MemoryPlan(
        path="fast" if fast else "plain",
        parameters=count,
        process=process,
        weights=weight * count + copies,
        gradients=gradient * count,
        optimizer=optimizer * count,
        activations=activations,
        temporaries=temporaries,
        objects=objects if on_cpu else 0,
        entering=process + on_cpu * sublayers * OBJECTS + (2 * weight + gradient) * count,
    )


def _moments(saved: SavedNumbers, mode: Mode, on_cpu: bool) -> list[tuple[int, ...]]:
    """Copies of weights, activations and temporaries, bytes, at the times at which there may be the most of them: with
    logits, of two bytes under autocast, and their log-softmax."""
    work, config = saved.work, saved.work.config
    held, upper, again, kept = 0, 0, [], []
    for stack, n in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        if not n:
            continue
        every, low = layers_together(mode.checkpoint_every, n), layers_again(mode.recompute, n)
        moved = mode.offload and not on_cpu
        every = min(every, low - 1) if 1 < low < n else every  # one group of them all is still computed again
        if low:
            held += saved.held(stack, low, every, moved, keep_attention=mode.keep_attention)
        upper += n - low
        again.append(saved.again(stack, low, every))
        kept.append(saved.kept(stack, n - low, low))
    number, narrow, answers = work.number, work.narrow, work.answers
    entered = number * work.embedded
    d = config.d_model
    largest = max(3 * d**2, 2 * d * config.d_ff, work.vocabulary * d)
    layers = config.encoder_layers + config.decoder_layers
    high = upper / max(layers, 1)  # the narrow copies that kept layers read stay with them
    at_work = number * (saved.temporaries() + largest)
    copies = work.autocast * 2 * _matrices(config, work.vocabulary)
    if not on_cpu and any(again):
        # Memory that was given back is free at once: while the loss is computed, no group of layers is computed again;
        # and when one is, logits, copies, and the other stack's groups are gone. On a CPU the sum was fitted.
        return [
            (copies, narrow * (held + sum(kept)) + entered + number * answers, number * (answers + largest)),
            (round(copies * high), narrow * (held + sum(kept)) + entered, at_work if high else 0),
            # A stack's kept layers are free before its first group is computed again, those of the encoder are not.
            (0, narrow * (held + max(again[-1] + sum(kept[:-1]), again[0])) + entered, at_work),
        ]
    together = narrow * (held + max(sum(again), sum(kept)) + answers) + entered + number * answers
    return [(copies, together, number * (saved.temporaries() + answers + largest))]


def gaps(config: ModelConfig, fast: bool) -> float:
    """The share of activations that is lost between tensors."""
    return 0.0 if fast else GAPS + ROTARY_GAPS * (config.position == "rotary")


def _matrices(config: ModelConfig, vocabulary: int) -> int:
    """Numbers in the matrices of branches and head."""
    d, layers = config.d_model, config.encoder_layers + config.decoder_layers
    attention = 2 * d * (d + config.kv_width)
    layer = attention + config.ffn_matrices * d * config.d_ff
    cross = config.decoder_layers * attention if config.encoder_layers else 0
    return layers * layer + cross + vocabulary * d


def _fast_knows(work: Workload) -> bool:
    config = work.config
    plain = config.dropout == 0 and config.position != "rotary"
    parts = config.norm == "layer" and config.ffn_matrices == 2 and work.precision in ("float32", "float64")
    parts = parts and config.bias and config.kv_width == config.d_model
    known = knows(config.residual, config.encoder_layers, config.decoder_layers, max(work.T, work.S))
    return known and plain and parts
