"""What each rank of a plan holds, and what it sends in a step, from the configuration alone.

Arithmetic on :func:`~deepnet_edu.planning.training_memory`, whose constants were fitted to one device.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from deepnet_edu.fields import check_whole, checked
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.model.shape import layers_together
from deepnet_edu.planning.memory import BOOKS, OBJECTS, gaps, training_memory
from deepnet_edu.planning.parameters import count_parameters, tensors_at_the_ends
from deepnet_edu.planning.pipeline import Action, chunks_of, rank_order, stage_layers
from deepnet_edu.planning.saved import SavedNumbers, saved_by
from deepnet_edu.planning.workload import PRECISIONS, Workload


@dataclass(frozen=True)
class RankMemory:
    """Bytes by part at the peak of a rank.

    Attributes:
        parameters: how many numbers of the model the rank keeps between steps.
        process: Python and PyTorch; 0 on a GPU.
        weights, gradients, optimizer: of those parameters, with AdamW.
        activations: what the backward pass reads, of all micro-batches that the rank keeps at a time.
        temporaries: what comes and goes in it. With copies, all gradients once more, in the buckets that are sent. With
            shards, the whole weights of the layer at work and the next one, of embedding and head, and their gradients;
            in a pipeline, of all layers of the rank, which stay whole from its first micro-batch to its last.
        objects: Python's, and gaps between tensors; 0 on a GPU.
    """

    parameters: int
    process: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    temporaries: int
    objects: int

    @property
    def total(self) -> int:
        """The peak, bytes."""
        return sum(asdict(self).values()) - self.parameters

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values, bytes."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class RankTraffic:
    """Bytes that a rank sends in a step.

    Attributes:
        gradients: of a ring's all-reduce, 2(D - 1)/D of their bytes, among D copies; of a reduce-scatter, (S - 1)/S,
            among S shards.
        weights: of all-gathers among shards, (S - 1)/S of their bytes: forward and once more backward, but once alone
            for embedding and head, and in a pipeline.
        stream: what crosses to other stages, and its gradient on the way down.
    """

    gradients: int
    weights: int
    stream: int

    @property
    def total(self) -> int:
        """Bytes."""
        return self.gradients + self.weights + self.stream

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values, bytes."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class _Stage:
    """Layers by stack, which ends (embeddings by stack, ``"head"``), and the parameters of its layers."""

    layers: dict[str, range]
    ends: tuple[str, ...]
    in_layers: int

    @property
    def last(self) -> bool:
        return "head" in self.ends


@checked()
def rank_memory(
    config: ModelConfig,
    sequences: int,
    tokens: int,
    *,
    data: int = 1,
    shard: int = 1,
    pipeline: int = 1,
    schedule: str = "1f1b",
    microbatches: int = 0,
    source_tokens: int = 0,
    checkpoint_every: int | str = 0,
    precision: str = "float32",
    device: str = "cpu",
) -> list[RankMemory]:
    """The peak memory of each rank of a pipeline; ranks that hold copies or shards of the same layers are equal.

    Copies hold all of what they hold. S shards divide weights, gradients and optimizer by S (ZeRO's third stage, arXiv
    1910.02054, Section 5.3); activations are those of the rank's share of the batch either way. A stage holds its
    layers alone, and the activations of as many micro-batches as its schedule lets be under way.

    Args:
        config: any.
        sequences: in a batch, over all ranks.
        tokens: T, of the target where there are two languages; of an image, its patches.
        data, shard, pipeline, schedule, microbatches: as of :class:`~deepnet_edu.planning.Plan`.
        source_tokens, checkpoint_every, precision, device: as of :func:`training_memory`.

    Raises:
        ValueError: as :func:`training_memory`; the batch cannot be cut so, or there are more stages than layers.
    """
    share, n_microbatches = _cut(sequences, data * shard, pipeline, microbatches)
    work = Workload(config, share // n_microbatches, tokens, source_tokens, precision)
    how: dict[str, Any] = {"source_tokens": source_tokens, "checkpoint_every": checkpoint_every}
    path = "auto" if shard == pipeline == 1 else "plain"  # what is cut runs layer by layer
    # With stages some micro-batches are in their forward pass while others are in their backward pass: all is added, as
    # on a CPU.
    where = device if pipeline == 1 else "cpu"
    whole = training_memory(config, work.B, tokens, **how, precision=precision, device=where, path=path)
    every, cpu = checkpoint_every, device == "cpu"
    weight, gradient, optimizer, _ = PRECISIONS[precision]
    found = []
    for own, order in _stages_by_rank(config, pipeline, schedule, n_microbatches):
        held = _held(config, own)
        gathered = gradient * held if data > 1 else 0
        if shard > 1 and pipeline > 1:
            gathered = (weight + gradient) * held
        elif shard > 1:
            ends = held - sum(stage.in_layers for stage in own)
            largest = max((stage.in_layers // max(_count(stage), 1) for stage in own), default=0)
            gathered = (2 * weight + gradient) * largest + (weight + gradient) * ends
        if pipeline == 1:
            activations, temporaries, objects = whole.activations, whole.temporaries, whole.objects
        else:
            saved = {n: _saved(work, own[i], every) for i, n in enumerate(sorted({one.stage for one in order}))}
            # One micro-batch at a time is in its backward pass, in which a group of layers is computed again.
            activations = _peak(order, saved) + max(_again(work, stage, every) for stage in own)
            temporaries = whole.temporaries - (0 if own[-1].last else work.number * work.answers)
            sublayers = sum(_sublayers(config, stage) for stage in own)
            objects = sublayers * (OBJECTS + BOOKS * bool(every)) + round(gaps(config, fast=False) * activations)
        found.append(
            RankMemory(
                parameters=-(-held // shard),
                process=whole.process if cpu else 0,
                weights=whole.weights * held // (whole.parameters * shard),
                gradients=gradient * held // shard,
                optimizer=optimizer * held // shard,
                activations=activations,
                temporaries=temporaries + gathered,
                objects=objects if cpu else 0,
            )
        )
    return found


def rank_traffic(
    config: ModelConfig,
    sequences: int,
    tokens: int,
    *,
    data: int = 1,
    shard: int = 1,
    pipeline: int = 1,
    schedule: str = "1f1b",
    microbatches: int = 0,
    source_tokens: int = 0,
    precision: str = "float32",
) -> list[RankTraffic]:
    """Bytes that each rank of a pipeline sends in a training step.

    Args:
        config, sequences, tokens, data, shard, pipeline, schedule, microbatches, source_tokens, precision: as of
            :func:`rank_memory`.

    Raises:
        ValueError: as :func:`rank_memory`.

    Source: for copies and shards arXiv 1910.02054, Section 7: 2 and 3 times the model, where D is large. How often
    weights are gathered is PyTorch's ``fully_shard`` as this library calls it.
    """
    share, n_microbatches = _cut(sequences, data * shard, pipeline, microbatches)
    work = Workload(config, share, tokens, source_tokens, precision)
    weight, gradient, _, _ = PRECISIONS[precision]
    crossing = [0] * pipeline
    if pipeline > 1:
        stages = _stages(config, pipeline * chunks_of(schedule))
        for i, below in enumerate(stages[:-1]):
            size = _crossing(work, below) * work.stream
            crossing[i % pipeline] += size  # the stream goes up
            crossing[(i + 1) % pipeline] += size  # its gradient comes down
    found = []
    for rank, (own, _) in enumerate(_stages_by_rank(config, pipeline, schedule, n_microbatches)):
        held = _held(config, own)
        reduced = 2 * (data - 1) * gradient * held // data + (shard - 1) * gradient * held // shard
        again = sum(stage.in_layers for stage in own) if pipeline == 1 else 0
        found.append(RankTraffic(reduced, (shard - 1) * weight * (held + again) // shard, crossing[rank]))
    return found


def _cut(sequences: int, shares: int, pipeline: int, microbatches: int) -> tuple[int, int]:
    """Sequences of a rank's share, and micro-batches in it."""
    for name, value, least in (
        ("sequences", sequences, 1),
        ("data × shard", shares, 1),
        ("pipeline", pipeline, 1),
        ("microbatches", microbatches, 0),
    ):
        check_whole(name, value, least)
    n = 1 if pipeline == 1 else microbatches or 2 * pipeline
    if sequences % (shares * n):
        raise ValueError(
            f"sequences={sequences}: expected a multiple of {shares} × {n} (shares of ranks × micro-batches)."
        )
    return sequences // shares, n


def _stages_by_rank(
    config: ModelConfig, pipeline: int, schedule: str, n_microbatches: int
) -> list[tuple[list[_Stage], list[Action]]]:
    """For each rank of the pipeline its stages, and what it does with them."""
    stages = _stages(config, pipeline * (chunks_of(schedule) if pipeline > 1 else 1))
    return [(stages[r::pipeline], rank_order(schedule, r, pipeline, n_microbatches)) for r in range(pipeline)]


def _stages(config: ModelConfig, n: int) -> list[_Stage]:
    """The model cut into n runs of layers, those of the encoder first."""
    depths = {stack: depth for stack in ("encoder", "decoder") if (depth := getattr(config, f"{stack}_layers"))}
    both = sum(depths.values())
    parameters = count_parameters(config)
    found: list[_Stage] = []
    for own in stage_layers(both, n) if both else [range(0)]:
        layers: dict[str, range] = {}
        begin = 0
        for stack, depth in depths.items():
            part = range(max(own.start - begin, 0), min(max(own.stop - begin, 0), depth))
            if part:
                layers[stack] = part
            begin += depth
        ends = [stack for stack, part in layers.items() if part.start == 0]
        inside = sum(
            parameters[stack] * part.stop // depths[stack] - parameters[stack] * part.start // depths[stack]
            for stack, part in layers.items()
        )
        found.append(_Stage(layers, (*ends, "head") if own.stop == both else tuple(ends), inside))
    return found


def _held(config: ModelConfig, own: list[_Stage]) -> int:
    """Parameters of a rank; what several of its stages share counts once."""
    one = {f"{stack}_layers": min(getattr(config, f"{stack}_layers"), 1) for stack in ("encoder", "decoder")}
    ends = dict(tensors_at_the_ends(replace(config, **one)))
    tensors = {name: count for stage in own for end in stage.ends for name, count in ends[end].items()}
    return sum(stage.in_layers for stage in own) + sum(tensors.values())


def _saved(work: Workload, stage: _Stage, checkpoint_every: int | str) -> int:
    """Bytes that a stage saves of one micro-batch, from its forward to its backward pass."""
    config, B, T, S = work.config, work.B, work.T, work.S
    layers = SavedNumbers(work)
    found = work.narrow * sum(
        layers.held(stack, len(part), layers_together(checkpoint_every, len(part)), first=part.start)
        for stack, part in stage.layers.items()
    )
    if not stage.last:
        found += work.stream * _crossing(work, stage)
    for stack in ("encoder", "decoder"):
        if stack in stage.ends:
            both = not (config.encoder_layers and config.decoder_layers)
            found += work.number * 2 * B * config.d_model * (T + S if both else S if stack == "encoder" else T)
    return found + stage.last * (work.narrow + work.number) * work.answers


def _again(work: Workload, stage: _Stage, checkpoint_every: int | str) -> int:
    """Bytes of a stage's largest group of layers that is computed again."""
    layers = SavedNumbers(work)
    groups = [
        layers.again(stack, len(part), layers_together(checkpoint_every, len(part)), first=part.start)
        for stack, part in stage.layers.items()
    ]
    return work.narrow * max(groups, default=0)


def _crossing(work: Workload, below: _Stage) -> int:
    """Numbers that leave a stage for the next one: the rule's state, and in a decoder the encoder's output too."""
    config, B, S = work.config, work.B, work.S
    saved = saved_by(config)
    stack = list(below.layers)[-1]
    rows = B * (work.T if stack == "decoder" else S)
    if stack == "encoder" and below.layers[stack].stop == config.encoder_layers and config.decoder_layers:
        return rows * config.d_model  # the encoder's output
    memory = B * S * config.d_model if stack == "decoder" and config.encoder_layers else 0
    return (saved.state + saved.growth * below.layers[stack].stop) * rows * config.d_model + memory


def _peak(order: list[Action], saved: dict[int, int]) -> int:
    """The most bytes of activations that a rank keeps at a time."""
    now = most = 0
    for action in order:
        now += -saved[action.stage] if action.backward else saved[action.stage]
        most = max(most, now)
    return most


def _count(stage: _Stage) -> int:
    return sum(len(part) for part in stage.layers.values())


def _sublayers(config: ModelConfig, stage: _Stage) -> int:
    of_decoder = 3 if config.encoder_layers else 2
    return sum(len(part) * (2 if stack == "encoder" else of_decoder) for stack, part in stage.layers.items())
