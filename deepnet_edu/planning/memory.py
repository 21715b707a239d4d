"""The memory of a training run, part by part, from the configuration alone.

Everything is counted but five constants, which were fitted to seven measured runs and judged on sixteen others:
benchmarks/memory.py, benchmarks/results/memory.json.
"""

from dataclasses import asdict, dataclass
from typing import Any

from deepnet_edu.fields import check_whole, checked
from deepnet_edu.messages import unknown
from deepnet_edu.model.config import NO_RESIDUAL, ModelConfig
from deepnet_edu.model.paths import compiled_sizes, knows
from deepnet_edu.model.shape import layers_together
from deepnet_edu.planning.parameters import count_parameters
from deepnet_edu.residual import RESIDUALS, Saved

#: Bytes of a number: weight, gradient, all that AdamW keeps for it, activation. "mixed": weights in bfloat16, and a
#: float32 copy of them beside both moments. "autocast": all in float32, but matrices are copied to bfloat16, and so is
#: what they multiply.
PRECISIONS: dict[str, tuple[int, int, int, int]] = {
    "float32": (4, 4, 8, 4),
    "float64": (8, 8, 16, 8),
    "bfloat16": (2, 2, 4, 2),
    "mixed": (2, 2, 12, 2),
    "autocast": (4, 4, 8, 4),
}


#: Fitted. Bytes of Python and PyTorch with an optimizer (Linux, CPU build), and a sub-layer's of modules and views.
PROCESS, OBJECTS = 356_000_000, 17_500
#: Fitted. The share of activations that lies in gaps between tensors that came and went: by the fast path tensors stay
#: where they are. By the plain path it depends on the order of their sizes, and on luck; rotary positions add to it,
#: since tensors of more sizes come and go.
GAPS, ROTARY_GAPS = 0.153, 0.129
#: Fitted. Bytes a sub-layer that PyTorch's checkpointing takes for its own books, by the plain path.
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
        offload: what checkpoints keep lies in the CPU's memory, which makes a difference on a GPU only.
        path: ``"plain"``, ``"fast"`` or ``"auto"``, see :class:`deepnet_edu.model.stack.Stack`.
        precision: a name in ``PRECISIONS``. In float32 and float64 it was measured on a CPU; "mixed" is arithmetic
            (facts of Korthikanti et al., arXiv 2205.05198), this library does not train so. "autocast" is PyTorch's, to
            bfloat16: what a layer keeps is counted for Post-LN, Pre-LN and DeepNorm, and estimated for others.
        compiled: whether there is a C compiler.
        device: ``"cpu"``, or ``"cuda"``, whose memory holds tensors alone: Python and PyTorch are not counted, nor
            gaps between tensors, which were fitted on a CPU, nor workspaces of libraries. With checkpoints it was
            compared with two models on an H200 (benchmarks/results/gpu_depth.json).

    Raises:
        ValueError: a size is not positive, there is no such precision, path or device, or path is ``"fast"`` where it
            is not.
    """
    for kind, given, valid in (
        ("precision", precision, PRECISIONS),
        ("path", path, ("auto", "plain", "fast")),
        ("device", device, ("cpu", "cuda")),
    ):
        if given not in valid:
            raise ValueError(unknown(kind, given, valid))
    for name, value, least in (("sequences", sequences, 1), ("tokens", tokens, 1), ("source_tokens", source_tokens, 0)):
        check_whole(name, value, least)
    S, autocast, on_cpu = source_tokens or tokens, precision == "autocast", device == "cpu"
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    every = {stack: layers_together(checkpoint_every, n) for stack, n in depths.items()}
    if offload and not any(every.values()):
        raise ValueError("offload=True moves what checkpoints keep: give checkpoint_every='auto' too.")
    fast = path != "plain" and on_cpu and not offload and _fast_knows(config, max(tokens, S), precision)
    if path == "fast" and not fast:
        raise ValueError("path='fast': the fast path does not know this model, length or precision; use path='auto'.")
    weight, gradient, optimizer, number = PRECISIONS[precision]
    count = count_parameters(config)["all"]
    sizes = not compiled_sizes(config.d_ff, config.d_model // config.n_heads)
    one = _Layers(config, sequences, tokens, S, fast, compiled and precision == "float32" and sizes, autocast)
    moved = offload and not on_cpu
    held = sum(one.held(stack, n, every[stack], moved) for stack, n in depths.items() if n)
    again = [one.again(stack, n, every[stack]) for stack, n in depths.items() if n]
    vocabulary = config.n_classes or config.vocab_size
    answers = sequences * (1 if config.n_classes else tokens) * vocabulary
    sublayers = 2 * config.encoder_layers + (3 if config.encoder_layers else 2) * config.decoder_layers
    narrow = 2 if autocast else number
    entered = number * 2 * sequences * (tokens + S) * config.d_model  # both embeddings' outputs
    largest = max(3 * config.d_model**2, 2 * config.d_model * config.d_ff, vocabulary * config.d_model)
    process = PROCESS if on_cpu else 0
    copies = autocast * 2 * _matrices(config, vocabulary)
    # Copies of weights, activations and temporaries at a time: with logits, of two bytes under autocast, and their
    # log-softmax.
    moments = [
        (
            copies,
            narrow * (held + sum(again) + answers) + entered + number * answers,
            number * (one.temporaries() + answers + largest),
        )
    ]
    if not on_cpu and any(again):
        # Memory that was given back is free at once: while the loss is computed, no group of layers is computed again;
        # and when one is, logits, copies, and the other stack's groups are gone. On a CPU the sum was fitted.
        moments = [
            (copies, narrow * held + entered + number * answers, number * (answers + largest)),
            (0, narrow * (held + max(again)) + entered, number * (one.temporaries() + largest)),
        ]
    copies, activations, temporaries = max(moments, key=sum)
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


def saved_by(config: ModelConfig) -> Saved:
    """What autograd keeps of a layer, as the rule says; where a subclass of it changed what it computes, as Post-LN."""
    rule = RESIDUALS.get(config.residual)
    said = rule is not None and rule.says("saved")
    return rule.saved if rule is not None and said else Saved()


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


def _fast_knows(config: ModelConfig, longest: int, precision: str) -> bool:
    plain = config.dropout == 0 and config.position != "rotary"
    parts = config.norm == "layer" and config.ffn_matrices == 2 and precision in ("float32", "float64")
    parts = parts and config.bias and config.kv_width == config.d_model
    known = knows(config.residual, config.encoder_layers, config.decoder_layers, longest)
    return known and plain and parts


@dataclass(frozen=True)
class _Layers:
    """Numbers that are kept, layer by layer; under autocast in units of two bytes, half a float32."""

    config: ModelConfig
    B: int
    T: int
    S: int
    fast: bool
    compiled: bool
    autocast: bool = False

    def held(self, stack: str, n: int, every: int, moved: bool = False, first: int = 0) -> int:
        """Of n layers of a stack, from ``first`` on, until the backward pass comes to them: all, or the states between
        groups of them; but one state where these are moved away."""
        if not every or every >= n:
            return self._layers(stack, first, n)
        saved = saved_by(self.config)
        d, rows = self.config.d_model, self.B * (self.S if stack == "encoder" else self.T)
        groups, last = -(-n // every), first + n
        below = saved.below(last, max(self._depth(stack), last))
        states = saved.state * (1 if moved else groups) + saved.growth * below
        return (2 if self.autocast else 1) * states * d * rows

    def again(self, stack: str, n: int, every: int, first: int = 0) -> int:
        """Of the group of layers that is computed again, the highest one; 0 where all is held."""
        if not every or every >= n:
            return 0
        return self._layers(stack, first + n - every, every)

    def _layers(self, stack: str, first: int, n: int) -> int:
        """Of n layers together, in closed form: from each to the next they grow by the same number."""
        return n * (self.layer(stack, first) + self.layer(stack, first + n - 1)) // 2

    def _depth(self, stack: str) -> int:
        return self.config.encoder_layers if stack == "encoder" else self.config.decoder_layers

    def layer(self, stack: str, i: int) -> int:
        """Of layer i."""
        c, d, H, ff = self.config, self.config.d_model, self.config.n_heads, self.config.d_ff
        T = self.S if stack == "encoder" else self.T
        rows, looks_up, kv = self.B * T, stack == "decoder" and bool(c.encoder_layers), c.kv_width
        if self.fast:
            weights = H if self.compiled else H * T
            numbers = rows * (6 * d + ff + weights)
            return numbers + looks_up * (
                rows * (3 * d + (H if self.compiled else H * self.S)) + 2 * kv * self.B * self.S
            )
        saved = saved_by(c)
        per_norm = d - 1 if c.norm == "rms" else 0  # RMSNorm keeps one d_model more than LayerNorm, and one number less
        dropped = d if c.dropout else 0
        inside = {"gelu": 0, "relu": -ff, "swiglu": 2 * ff, "geglu": 2 * ff}[c.activation] - 2 * (d - kv)
        inside += d + kv if c.position == "rotary" else 0
        numbers = saved.d * d + saved.ff * ff + saved.more + H + inside + 2 * dropped
        numbers += saved.weights * saved.below(i, max(self._depth(stack), i + 1))
        numbers += saved.more // 2 * per_norm + saved.by_head * H
        if c.norm == "rms":
            numbers += saved.by_head // 2 * (d - H)
        # What matrices and attention read is narrow, what norms and sums read is not.
        narrow = 6 * d + saved.ff * ff + inside + 2 * dropped
        narrow -= saved.cast[0] * d + saved.cast[1]  # the streams in both widths
        if not looks_up:
            return rows * (2 * numbers - narrow if self.autocast else numbers)
        cross = saved.d_cross * d + saved.more_cross + H + saved.more_cross // 2 * per_norm + dropped
        if not self.autocast:
            return rows * (numbers + cross) + 2 * kv * self.B * self.S
        # Each layer makes its own narrow copy of the memory.
        return rows * (2 * (numbers + cross) - narrow - 3 * d - dropped) + (2 * kv + d) * self.B * self.S

    def temporaries(self) -> int:
        """Of the layer that is at work in the backward pass."""
        if self.config.residual == NO_RESIDUAL:
            return 0
        c, rows = self.config, self.B * max(self.T, self.S)
        if self.fast:
            scores = 0 if self.compiled else c.n_heads * rows * max(self.T, self.S)
            return rows * (2 * c.d_ff + 16 * c.d_model) + scores
        return rows * max(3 * c.d_ff, 8 * c.d_model)
