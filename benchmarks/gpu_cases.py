"""What benchmarks/gpu_depth.py measures: three shapes, who trains them, and what the device can do at most.

Everyone trains the same way: bfloat16 by autocast over float32 weights, fused AdamW, no clipping, the loss read at
every step, and between checkpoints the same number of layers.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.peers import import_torchscale
from deepnet_edu.model import Batch, ModelConfig, build_empty, random_batch
from deepnet_edu.model.initialization import initialize
from deepnet_edu.planning import flops_per_token, training_memory
from deepnet_edu.training import TrainConfig, TrainStep
from deepnet_edu.training.graph import WARM

SEED = 0
#: At 1e-4 the loss of one batch falls from step to step at 1,000 layers (tried on a CPU, shape (c), float32).
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.01
#: Sides of the square matrix products of which the fastest is the peak, and numbers of a copy.
SIDES, COPIED = (4096, 8192, 16384), 2**29
REPEATS, WINDOWS = 20, 5


@dataclass(frozen=True)
class Case:
    """One shape and its batch.

    Attributes:
        title: in words.
        config: the model.
        sequences: B; pairs where there are two languages.
        tokens: T, of the source too.
        checkpoint_every: layers that are computed again together, about √layers where memory needs it, or 0.
        steps: measured in a round.
    """

    title: str
    config: ModelConfig
    sequences: int
    tokens: int
    checkpoint_every: int
    steps: int

    @property
    def read(self) -> int:
        """Tokens that a step reads, of both languages."""
        return self.sequences * self.tokens * (2 if self.config.encoder_layers else 1)


WIDE: dict[str, Any] = {"d_model": 512, "n_heads": 8, "d_ff": 2048}
CASES = {
    "a": Case(
        "The paper's 1,000 layers: 500 + 500, 256 pairs of 64 + 64 tokens",
        ModelConfig(
            "encoder_decoder", "translation", 500, 500,
            **WIDE, vocab_size=64_000, shared_embeddings=True, activation="relu", max_length=64,
        ),
        256, 64, 22, steps=4,
    ),
    "b": Case(
        "A decoder of 1,000 layers, 64 sequences of 512 tokens",
        ModelConfig("decoder", "lm", 1000, **WIDE, vocab_size=32_000, max_length=512),
        64, 512, 32, steps=4,
    ),
    "c": Case(
        "A narrow decoder of 1,000 layers, 4 sequences of 64 tokens",
        ModelConfig("decoder", "lm", 1000, d_model=64, n_heads=4, d_ff=256, vocab_size=128, max_length=64),
        4, 64, 0, steps=8,
    ),
}  # fmt: skip
#: What sets our own contenders apart.
OURS: dict[str, dict[str, Any]] = {
    "ours, compiled, graph": {"compile": "layer", "cuda_graph": True},
    "ours, graph": {"cuda_graph": True},
    "ours": {},
    "ours, compiled": {"compile": "layer"},
}
#: In the order of a round; the last is left out first when time is short.
CONTENDERS = (
    "ours, compiled, graph", "TorchScale", "ours, graph", "ours", "TorchScale, layers compiled", "torch.nn",
    "ours, compiled", "TorchScale, compiled",
)  # fmt: skip


def smoke(case: Case) -> Case:
    """The same at a size for any CPU."""
    small: dict[str, Any] = {"d_model": 16, "n_heads": 2, "d_ff": 32, "vocab_size": 40, "max_length": 8}
    depths = {name: min(4, getattr(case.config, name)) for name in ("encoder_layers", "decoder_layers")}
    every = min(2, case.checkpoint_every)
    return replace(
        case, config=replace(case.config, **small, **depths), sequences=2, tokens=8, checkpoint_every=every, steps=2
    )


def model_flops(case: Case) -> int:
    """Of a training step, as model FLOPs utilisation has it: what the mask hides and what checkpoints compute again
    does not count."""
    each = flops_per_token(case.config, case.tokens)
    assert each is not None
    return round(each * case.read)


def formula_bytes(case: Case) -> int:
    """The peak on a GPU that planning predicts."""
    plan = training_memory(
        case.config,
        case.sequences,
        case.tokens,
        checkpoint_every=case.checkpoint_every,
        path="plain",
        precision="autocast",
        device="cuda",
    )
    return plan.total


def ours(case: Case, device: str, settings: dict[str, Any]) -> Callable[[], float]:
    """The library's own step. The weights are drawn where they stay: billions of them take long on a CPU."""
    with torch.device(device):
        model = build_empty(case.config)
    initialize(model, generator := torch.Generator(device).manual_seed(SEED))
    for weight in model.group("ends"):
        nn.init.normal_(weight, std=case.config.d_model**-0.5, generator=generator)
    config = TrainConfig(
        steps=1000,
        learning_rate=LEARNING_RATE,
        warmup=0,
        clip=0.0,
        weight_decay=WEIGHT_DECAY,
        precision="bf16",
        checkpoint_every=case.checkpoint_every,
        **settings,
    )
    step, batch = TrainStep(model, config), random_batch(case.config, case.sequences, case.tokens, SEED).to(device)
    return lambda: step(batch).loss


class Group(nn.Module):
    """Layers that are computed again together, by PyTorch's own checkpoint.

    TorchScale has fairscale's, which keeps the state of every layer and, under bfloat16 autocast, computes again in
    float16: with it the comparison would be of two checkpoints.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, *rest: Any, **named: Any) -> Any:
        """What a layer returns; of a tuple all but the stream is None."""

        def run(x: Tensor) -> Any:
            more = 0
            for layer in self.layers:
                found = layer(x, *rest, **named)
                x, more = (found[0], len(found) - 1) if isinstance(found, tuple) else (found, 0)
            return (x, *[None] * more) if more else x

        return checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)


def grouped(layers: nn.ModuleList, every: int) -> nn.ModuleList:
    """The layers themselves, or groups of them."""
    if not every:
        return layers
    return nn.ModuleList(Group(list(layers[first : first + every])) for first in range(0, len(layers), every))


class TorchStacks(nn.Module):
    """Layers of torch.nn: Post-LN, which costs what DeepNorm does but for one product with α."""

    def __init__(self, c: ModelConfig, every: int, compiled: bool = False) -> None:
        super().__init__()
        shape: dict[str, Any] = {"dropout": 0.0, "activation": c.activation, "batch_first": True}
        sizes = (c.d_model, c.n_heads, c.d_ff)
        kind = nn.TransformerDecoderLayer if c.encoder_layers else nn.TransformerEncoderLayer
        lower = (nn.TransformerEncoderLayer(*sizes, **shape) for _ in range(c.encoder_layers))
        upper = (kind(*sizes, **shape) for _ in range(c.decoder_layers))
        both = [nn.ModuleList(layers) for layers in (lower, upper)]
        for layer in (layer for layers in both for layer in layers if compiled):
            layer.compile(dynamic=False)
        self.lower, self.upper = (grouped(layers, every) for layers in both)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(c.max_length))

    def forward(self, source: tuple[Tensor, Tensor] | None, target: tuple[Tensor, Tensor]) -> Tensor:
        """(tokens, their embeddings (B, T, d_model)) of both languages, or of the one, to (B, T, d_model)."""
        x = target[1]
        if source is None:
            for layer in self.upper:
                x = layer(x, src_mask=self.mask, is_causal=True)
            return x
        memory = source[1]
        for layer in self.lower:
            memory = layer(memory)
        for layer in self.upper:
            x = layer(x, memory, tgt_mask=self.mask, tgt_is_causal=True)
        return x


class TorchScaleStacks(nn.Module):
    """TorchScale's encoder and decoder with DeepNorm."""

    def __init__(self, c: ModelConfig, every: int, compiled: bool) -> None:
        super().__init__()
        peer, both = import_torchscale(), bool(c.encoder_layers)
        settings: dict[str, Any] = {
            f"{stack}_{name}": value
            for stack in ("encoder", "decoder")
            for name, value in (("embed_dim", c.d_model), ("attention_heads", c.n_heads), ("ffn_embed_dim", c.d_ff))
        }
        settings |= {"encoder_layers": c.encoder_layers, "decoder_layers": c.decoder_layers, "vocab_size": 8}
        # subln: their default is True, and both at once is another model.
        settings |= {"deepnorm": True, "subln": False, "dropout": 0.0, "no_scale_embedding": True}
        settings |= {"activation_fn": c.activation, "no_output_layer": True}

        def made(stack: str) -> Any:
            config = getattr(peer, f"{stack}Config")(**settings)
            config.encoder_layers, config.decoder_layers = c.encoder_layers, c.decoder_layers
            module = getattr(peer, stack)(config, is_encoder_decoder=both)
            for layer in module.layers if compiled else ():
                layer.compile(dynamic=False)
            module.layers = grouped(module.layers, every)
            return module

        self.encoder: Any = made("Encoder") if both else None
        self.decoder = made("Decoder")

    def forward(self, source: tuple[Tensor, Tensor] | None, target: tuple[Tensor, Tensor]) -> Tensor:
        """As of :class:`TorchStacks`."""
        encoded = None
        if source is not None:
            encoded = self.encoder(source[0], token_embeddings=source[1], features_only=True)
        found = self.decoder(target[0], encoder_out=encoded, token_embeddings=target[1], features_only=True)
        return found[0]


class Peer(nn.Module):
    """Another library's stacks, with embedding, learned positions and head as ours."""

    def __init__(self, config: ModelConfig, stacks: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embed.weight, std=config.d_model**-0.5)
        self.position = nn.Parameter(torch.randn(config.max_length, config.d_model) * config.d_model**-0.5)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.shared_embeddings:
            self.head.weight = self.embed.weight
        self.stacks = stacks

    def forward(self, batch: Batch) -> Tensor:
        """Mean cross-entropy per token, in nats."""

        def entered(tokens: Tensor) -> tuple[Tensor, Tensor]:
            return tokens, self.embed(tokens) + self.position

        if batch.target_inputs is None:
            y = self.stacks(None, entered(batch.inputs))
        else:
            y = self.stacks(entered(batch.inputs), entered(batch.target_inputs))
        return F.cross_entropy(self.head(y).flatten(0, 1), batch.targets.flatten())


def theirs(case: Case, device: str, name: str) -> Callable[[], float]:
    """The step that others' users write: autocast, backward, fused AdamW."""
    torch.manual_seed(SEED)
    with torch.device(device):
        if name.startswith("torch.nn"):
            stacks: nn.Module = TorchStacks(case.config, case.checkpoint_every, compiled="layers" in name)
        else:
            stacks = TorchScaleStacks(case.config, case.checkpoint_every, compiled="layers" in name)
        model = Peer(case.config, stacks)
    if name == "TorchScale, compiled":
        model.compile(dynamic=False)
    batch = random_batch(case.config, case.sequences, case.tokens, SEED).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = model(batch)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def made(case: Case, contender: str, device: str) -> Callable[[], float]:
    """The training step of a contender; it returns the loss."""
    return ours(case, device, OURS[contender]) if contender in OURS else theirs(case, device, contender)


def seconds(call: Callable[[], Any], device: str) -> float:
    """Of one call: between CUDA events, or by the clock on a CPU."""
    if device == "cpu":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    call()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1000


def contend(case: Case, contender: str, device: str) -> dict[str, Any]:
    """Build, take the first step, those to warm up, then measure: seconds, the last loss, bytes at the peak."""
    begin = time.perf_counter()
    step = made(case, contender, device)
    found: dict[str, Any] = {"build": time.perf_counter() - begin}
    begin = time.perf_counter()
    step()  # reads the loss, so the device is done with it
    found["first step"] = time.perf_counter() - begin
    # A graph is recorded by the step that follows those before the recording; what is measured replays it.
    warm = WARM if OURS.get(contender, {}).get("cuda_graph") else 1
    for _ in range(warm):
        step()
    losses = []
    found["seconds"] = [seconds(lambda: losses.append(step()), device) for _ in range(case.steps)]
    if not isfinite(losses[-1]):
        return {"missing": f"the loss is {losses[-1]} after {1 + warm + case.steps} steps"}
    found["loss"] = losses[-1]
    if device == "cuda":
        found |= {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    return found


def contend_together(
    case: Case,
    asked: dict[str, Any],
    rounds: int,
    device: str,
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Contenders that are in memory at once, in turn: first the steps that each needs to be warm, then rounds.

    Args:
        case: its shape; in a round each takes ``case.steps`` steps.
        asked: by name: settings of TrainConfig for ours, None for another library's, or a sentence why it is not run.
        rounds: how many.
        device: ``"cpu"`` or ``"cuda"``.
        save: is told what there is so far, after each turn.

    Returns:
        By name ``missing``, or the first step's seconds, a list of seconds for each round, and the losses of all steps,
        as many for each.
    """
    found: dict[str, Any] = {}
    steps: dict[str, Callable[[], float]] = {}
    for name, settings in asked.items():
        if isinstance(settings, str):
            found[name] = {"missing": settings}
            continue
        try:
            begin = time.perf_counter()
            made_now = theirs(case, device, name) if settings is None else ours(case, device, settings)
            losses = [made_now()]
            first = time.perf_counter() - begin
            losses += [made_now() for _ in range(WARM)]  # as many for all, though only a graph needs them
            found[name] = {"settings": settings, "first step": first, "rounds": [], "losses": losses}
            steps[name] = made_now
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [""]
            found[name] = {"missing": f"{type(error).__name__}: {lines[0][:300]}"}
        save(found)
    for _ in range(rounds):
        for name, step in list(steps.items()):
            try:
                losses = found[name]["losses"]
                found[name]["rounds"].append(
                    [seconds(lambda step=step, losses=losses: losses.append(step()), device) for _ in range(case.steps)]  # type: ignore[misc]
                )
            except Exception as error:
                found[name]["missing"] = f"{type(error).__name__}: {str(error)[:300]}"
                del steps[name]
            save(found)
    if device == "cuda" and len(steps) == 1:  # of several no one could say whose memory it is
        (name,) = steps
        found[name] |= {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
        save(found)
    return found


def profile(case: Case, settings: dict[str, Any], device: str) -> list[dict[str, Any]]:
    """Kernels of one step of ours, by PyTorch's profiler: name, calls, milliseconds; the longest first.

    A recorded graph would hide who called them, so the step is taken as it is, warm.
    """
    step = ours(case, device, {name: value for name, value in settings.items() if name != "cuda_graph"})
    for _ in range(2):
        step()
    kinds = [torch.profiler.ProfilerActivity.CPU if device == "cpu" else torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as seen:
        step()
    name = "self_cpu_time_total" if device == "cpu" else "self_device_time_total"
    rows = [{"kernel": e.key, "calls": e.count, "ms": getattr(e, name) / 1e3} for e in seen.key_averages()]
    return sorted((row for row in rows if row["ms"] > 0), key=lambda row: -row["ms"])


@torch.no_grad()
def machine(device: str, sides: tuple[int, ...] = SIDES, copied: int = COPIED) -> dict[str, Any]:
    """What the device does at most: square bfloat16 products of random numbers (zeros need less power, and are
    faster), operations a second by side, and a copy within its memory, bytes read and written a second; the median of
    windows."""

    def often(call: Callable[[], Any]) -> float:
        def window() -> None:
            for _ in range(REPEATS):
                call()

        window()
        return statistics.median(seconds(window, device) for _ in range(WINDOWS)) / REPEATS

    products = {}
    for side in sides:
        a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
        out = torch.empty_like(a)
        products[str(side)] = 2 * side**3 / often(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))  # type: ignore[misc]
    source = torch.randn(copied, device=device)
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / often(lambda: target.copy_(source))
    found = {"peak": max(products.values()), "products": products, "bandwidth": bandwidth}
    if device == "cuda":
        found |= {"device": torch.cuda.get_device_name(), "memory": torch.cuda.get_device_properties(0).total_memory}
    return found
