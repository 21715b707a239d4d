"""The time of a training step on one thread of a CPU, part by part, from the configuration alone.

Floating point operations and bytes are counted. Two constants were fitted to the matrix products alone and five to the
step, by half of the measured runs, and judged on the others: benchmarks/step_time.py, its results/step_time.json.
"""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from deepnet_edu.fields import checked
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.model.paths import compiled_sizes
from deepnet_edu.model.shape import layers_again
from deepnet_edu.planning.flops import end_operations, has_own_products, layer_operations
from deepnet_edu.planning.memory import training_memory
from deepnet_edu.planning.saved import SavedNumbers
from deepnet_edu.planning.workload import PRECISIONS, Workload
from deepnet_edu.residual import DEFAULT, RESIDUALS, StackName, place_at, sublayer_kinds

#: Fitted to the floor alone, the matrix products of half of the runs: operations a second of one thread in large ones,
#: and seconds that each product takes beside its operations. Measured: bytes a second of one thread that adds vectors.
RATE, LAUNCH, BANDWIDTH = 72e9, 6.24e-6, 17e9


@dataclass(frozen=True)
class Fitted:
    """What cannot be counted; the time is linear in each.

    Attributes:
        passes: how often what the backward pass reads is moved in a step, with all that comes and goes around it.
        attention: how much longer than in a large product an operation takes in PyTorch's attention. Compiled attention
            counts at the products' own rate.
        overhead_fast: seconds of Python and PyTorch for a sub-layer of the fast path, forward and backward.
        overhead_plain: the same for each of autograd's nodes, by the plain path.
        books: seconds more for a node between checkpoints, which hand every tensor to Python; by the plain path.
    """

    passes: float
    attention: float
    overhead_fast: float
    overhead_plain: float
    books: float


FITTED = Fitted(passes=14.8, attention=1.5, overhead_fast=72.1e-6, overhead_plain=13.5e-6, books=15.8e-6)

#: Numbers that move for each parameter: its gradient is set to 0 and its norm is taken, AdamW reads four and writes
#: three.
_UPDATED = 9
_BYTES = PRECISIONS["float32"][3]


@dataclass(frozen=True)
class Operations:
    """Floating point operations in the matrix products of a training step: a multiplication and an addition are two.

    Attributes:
        forward: with all weights, embeddings of patches and head included; looking up a token is none.
        backward: of their inputs' and their own gradients.
        attention: of scores and mixed values, forward and backward. By the fast path a token's masked pairs do not
            count, by the plain path they do. What attention's own backward pass computes again does not.
        again: of ``forward``, what checkpoints compute a second time.
        attention_again: of ``attention``, likewise.
    """

    forward: int
    backward: int
    attention: int
    again: int = 0
    attention_again: int = 0

    @property
    def products(self) -> int:
        """Products with weights, forward and backward, once each: what the floor takes."""
        return self.forward + self.backward


@dataclass(frozen=True)
class TimePlan:
    """Seconds by part of one training step.

    Attributes:
        path: ``"fast"`` or ``"plain"``, the one that was counted.
        operations: floating point operations of ``products``.
        products: the matrix products with weights, forward and backward, which no software can leave out.
        recomputation: all that checkpoints compute again, and their books.
        attention: scores, softmax and mixed values.
        between: norms, activations, sums, copies, and the loss: memory traffic.
        optimizer: AdamW over flat buffers.
        overhead: Python and PyTorch around each sub-layer, or around each of autograd's nodes.
    """

    path: str
    operations: int
    products: float
    recomputation: float
    attention: float
    between: float
    optimizer: float
    overhead: float

    @property
    def floor(self) -> float:
        """The matrix products alone, seconds."""
        return self.products

    @property
    def total(self) -> float:
        """The step, seconds."""
        around = self.attention + self.between + self.optimizer + self.overhead
        return self.products + self.recomputation + around

    @property
    def share(self) -> float:
        """floor/total."""
        return self.floor / self.total

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, seconds."""
        return {**asdict(self), "floor": self.floor, "total": self.total, "share": self.share}


@checked()
def training_time(
    config: ModelConfig,
    sequences: int,
    tokens: int,
    *,
    source_tokens: int = 0,
    checkpoint_every: int = 0,
    path: str = "auto",
    precision: str = "float32",
    rate: float = RATE,
    bandwidth: float = BANDWIDTH,
) -> TimePlan:
    """The time of one step of :class:`~deepnet_edu.training.TrainStep` on one thread of a CPU, with a C compiler.

    Measured were 100 to 1,000 layers, d_model 32 to 256, and 128 to 512 tokens in a batch; beyond, it is arithmetic.

    Args:
        config: any but the rules with products of their own: hyper-connections, mHC, DLCL, nGPT.
        sequences: B.
        tokens: T, of the target where there are two languages; of an image, its patches.
        source_tokens: of the source; 0 for as many.
        checkpoint_every: layers whose activations are computed again together; 0 keeps all.
        path: ``"plain"``, ``"fast"`` or ``"auto"``, see :class:`deepnet_edu.model.stack.Stack`.
        precision: ``"float32"``.
        rate: floating point operations a second of one thread in large matrix products.
        bandwidth: bytes a second of one thread.

    Returns:
        Seconds by part. Their ratios hold better on another machine than the seconds do.

    Raises:
        ValueError: as :func:`training_memory`; rate or bandwidth is not positive; or the time was not measured:
            in another precision, of such a rule, or by the fast path for sizes that its compiled functions do not know.

    Source: benchmarks/results/step_time.json.
    """
    for name, value in (("rate", rate), ("bandwidth", bandwidth)):
        if not (isinstance(value, int | float) and 0 < value < float("inf")):
            raise ValueError(f"{name}={value!r}: expected a positive number, a second.")
    counts = _count(Workload(config, sequences, tokens, source_tokens, precision), checkpoint_every, path)
    return _plan(counts, rate, LAUNCH, bandwidth, FITTED)


@checked()
def count_operations(
    config: ModelConfig,
    sequences: int,
    tokens: int,
    *,
    source_tokens: int = 0,
    checkpoint_every: int = 0,
    recompute: int | str = "all",
    keep_attention: bool = False,
    path: str = "auto",
) -> Operations:
    """Floating point operations of a training step, exactly.

    Args:
        config, sequences, tokens, source_tokens, checkpoint_every, path: as of :func:`training_time`.
        recompute, keep_attention: as of :func:`training_memory`.

    Raises:
        ValueError: as :func:`training_time`.
    """
    work = Workload(config, sequences, tokens, source_tokens)
    return _count(work, checkpoint_every, path, recompute, keep_attention).operations


@dataclass(frozen=True)
class _Counts:
    """Counts of a step: operations, products with weights, numbers that the backward pass reads, and calls (sub-layers
    of the fast path or autograd's nodes of the plain one); each once, and what is made again."""

    path: str
    parameters: int
    operations: Operations
    products: int
    products_again: int
    kept: int
    kept_again: int
    calls: int
    calls_again: int


def _plan(counts: _Counts, rate: float, launch: float, bandwidth: float, fitted: Fitted) -> TimePlan:
    """What takes how long. A forward pass is taken as a third of everything, as it is of the products."""
    fast, o = counts.path == "fast", counts.operations
    attention = (1.0 if fast else fitted.attention) / rate
    number = _BYTES * fitted.passes / bandwidth
    overhead, books = (fitted.overhead_fast, 0.0) if fast else (fitted.overhead_plain, fitted.books)
    again = (
        o.again / rate + counts.products_again * launch + o.attention_again * attention + counts.kept_again * number / 3
    )
    return TimePlan(
        path=counts.path,
        operations=o.products,
        products=o.products / rate + counts.products * launch,
        recomputation=again + counts.calls_again * (overhead / 3 + books),
        attention=o.attention * attention,
        between=counts.kept * number,
        optimizer=_BYTES * _UPDATED * counts.parameters / bandwidth,
        overhead=counts.calls * overhead,
    )


def _count(
    work: Workload, every: int, path: str, recompute: int | str = "all", keep_attention: bool = False
) -> _Counts:
    """Layer kinds times depth."""
    config, B, T, S, d = work.config, work.B, work.T, work.S, work.config.d_model
    how: dict[str, Any] = {"source_tokens": S, "checkpoint_every": every, "path": path, "precision": work.precision}
    how |= {"recompute": recompute, "keep_attention": keep_attention}
    memory = training_memory(config, B, T, **how)
    _check_measured(config, memory.path, work.precision)
    fast = memory.path == "fast"
    layers = SavedNumbers(work, fast, compiled=True)
    head, patches = end_operations(config, B, T)
    forward, backward, attention = head + patches, 2 * head + patches, 0  # no gradient of the pixels is wanted
    products, products_again = 3 + 2 * bool(config.n_classes), 0
    again = attention_again = kept_again = calls = calls_again = 0
    kept = work.embedded + 2 * work.answers
    depths: dict[StackName, int] = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    for stack, n in depths.items():
        if not n:
            continue
        own, cross = S if stack == "encoder" else T, stack == "decoder" and bool(config.encoder_layers)
        last = 2 * B * own * d * config.d_ff  # the second product of a feed-forward branch
        layer, look = layer_operations(config, stack, B, T, S, causal=fast)
        matrices = n * (7 if cross else 4)
        held = n * (layers.layer(stack, 0) + layers.layer(stack, n - 1)) // 2
        count = n * ((3 if cross else 2) if fast else _nodes_of(config)[stack])
        forward, backward, attention = forward + n * layer, backward + 2 * n * layer, attention + 3 * n * look
        products, kept, calls = products + 3 * matrices, kept + held, calls + count
        # One group of all layers is kept by the fast path, and computed again by PyTorch's checkpointing.
        low = layers_again(recompute, n)
        if every and (every < n or not fast):
            left_out = _left_out(config, stack, low, every, fast)
            again += low * layer - left_out * last
            products_again += matrices * low // n - left_out
            attention_again += 0 if keep_attention else low * look
            kept_again, calls_again = kept_again + held * low // n, calls_again + count * low // n
    operations = Operations(forward, backward, attention, again, attention_again)
    made = (products, products_again, kept, kept_again, calls, calls_again)
    return _Counts(memory.path, memory.parameters, operations, *made)


def _left_out(config: ModelConfig, stack: StackName, n: int, every: int, fast: bool) -> int:
    """Groups of layers whose last product is not computed again, since no backward pass reads its result."""
    groups = -(-n // every)
    if fast:
        return groups
    rule, sublayers = RESIDUALS.get(config.residual), len(sublayer_kinds(stack, config.encoder_layers))
    if rule is None or config.dropout or not rule.says("only_adds"):
        return 0
    tops = (sublayers * min(n, every * (group + 1)) - 1 for group in range(groups))
    places = (place_at(top, stack, config.encoder_layers, config.decoder_layers) for top in tops)
    return sum(rule.at(place).only_adds() for place in places)


def _nodes_of(config: ModelConfig) -> dict[str, int]:
    """Autograd's nodes in a layer of each stack by the plain path, whatever the sizes are."""
    sizes: dict[str, Any] = {"d_model": 4, "n_heads": 2, "d_ff": 4, "max_length": 4, "patch_size": 1}
    for name in ("vocab_size", "source_vocab_size", "n_classes"):
        sizes[name] = min(getattr(config, name), 4)
    depths = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    two: dict[str, Any] = {f"{stack}_layers": min(n, 1) * 2 for stack, n in depths.items()}
    small = replace(config, **sizes, **two)
    three: dict[str, dict[str, Any]] = {stack: {f"{stack}_layers": 3} for stack, n in depths.items() if n}
    return {stack: _nodes(replace(small, **more)) - _nodes(small) for stack, more in three.items()}


@lru_cache(maxsize=256)
def _nodes(config: ModelConfig) -> int:
    """Autograd nodes of the loss, counted in a model on PyTorch's meta device, which holds no numbers."""
    import torch  # here: planning needs it for nothing else

    from deepnet_edu.model import build_empty, random_batch

    with torch.device("meta"):
        model = build_empty(config)
    model.use_path("plain")
    with torch.enable_grad():
        loss = model.loss(random_batch(config, 1, 4).to("meta"))
    found: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [below for below, _ in node.next_functions]
    return len(found)


def _check_measured(config: ModelConfig, path: str, precision: str) -> None:
    if precision != "float32":
        raise ValueError(f"precision={precision!r}: time was measured in float32 only; use precision='float32'.")
    if has_own_products(config):
        title = RESIDUALS[config.residual].title
        raise ValueError(
            f"The time of residual={config.residual!r} was not measured: {title} has products and small operations "
            f"of its own. Choose another residual, for example {DEFAULT!r}."
        )
    head_dim = config.d_model // config.n_heads
    if path == "fast" and (known := compiled_sizes(config.d_ff, head_dim)):
        raise ValueError(
            f"d_model/n_heads={head_dim}, d_ff={config.d_ff}: the fast path was measured with its compiled functions, "
            f"which know {known}. Choose such sizes, or path='plain'."
        )
