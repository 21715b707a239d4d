"""How a model is spread over ranks: copies, shards, stages."""

from dataclasses import KW_ONLY, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from deepnet_edu.fields import check_fields, check_whole, whole_number
from deepnet_edu.messages import UserError, shown, unknown
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning.pipeline import chunks_of

if TYPE_CHECKING:
    from deepnet_edu.planning.proposal import Proposal

PipelineSchedule = Literal["1f1b", "interleaved", "gpipe"]
SCHEDULES = get_args(PipelineSchedule)


@dataclass(frozen=True)
class Plan:
    """data × shard × pipeline ranks, one GPU or CPU process each. Numbers are checked on creation.

    Attributes:
        data: copies of the model, each of which sees its share of the batch (DDP).
        shard: ranks over which every layer's parameters, gradients and optimizer state are cut, and gathered layer by
            layer (FSDP2); each sees its share of the batch, too.
        pipeline: ranks of which each holds a run of layers, and hands the stream on to the next.
        schedule: of the pipeline. ``"gpipe"``: all micro-batches forward, then all backward. ``"1f1b"``: each goes
            backward as soon as it can, which holds the activations of at most ``pipeline`` micro-batches.
            ``"interleaved"``: the same with two runs of layers on each rank, which halves the bubble.
        microbatches: into how many pieces a pipeline cuts a rank's share of the batch; 0 for twice as many as ranks in
            the pipeline.

    Raises:
        ValueError: one sentence that says what was given and what is valid.
    """

    _: KW_ONLY
    data: int = 1
    shard: int = 1
    pipeline: int = 1
    schedule: PipelineSchedule = "1f1b"
    microbatches: int = 0

    def __post_init__(self) -> None:
        whole = ("data", "shard", "pipeline", "microbatches")
        check_fields(self, leave=whole)
        for name in whole:
            check_whole(name, getattr(self, name), least=0 if name == "microbatches" else 1)
        if self.schedule not in SCHEDULES:
            raise ValueError(unknown("schedule", self.schedule, SCHEDULES))
        if self.pipeline == 1:
            for name, given in (("schedule", self.schedule != "1f1b"), ("microbatches", self.microbatches)):
                if given:
                    raise ValueError(f"{name}={getattr(self, name)!r} is of a pipeline, and pipeline=1 is none.")
        if self.data > 1 and self.shard > 1:
            raise ValueError(
                f"data={self.data} and shard={self.shard}: shards see their own share of the batch already. "
                f"Use shard={self.data * self.shard}, or data={self.data * self.shard}."
            )

    @property
    def ranks(self) -> int:
        """How many processes it needs."""
        return self.data * self.shard * self.pipeline

    @property
    def shares(self) -> int:
        """Into how many shares a batch is cut, before any pipeline cuts them again."""
        return self.data * self.shard

    @property
    def stages(self) -> int:
        """Runs of layers in the pipeline."""
        return self.pipeline * chunks_of(self.schedule)

    @property
    def n_microbatches(self) -> int:
        """Micro-batches of one share."""
        return 1 if self.pipeline == 1 else self.microbatches or 2 * self.pipeline

    @property
    def title(self) -> str:
        """As it is typed: ``data=2,pipeline=2``."""
        plain = Plan()
        given = {key: value for key, value in asdict(self).items() if value != getattr(plain, key)}
        return ",".join(f"{key}={value}" for key, value in given.items()) or "data=1"

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """The plan that :attr:`title` writes.

        Raises:
            UserError: it is none.
        """
        given: dict[str, int | str] = {}
        known = [field.name for field in fields(cls) if field.name != "_"]
        for part in text.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or key not in known:
                raise UserError(f"plan {shown(text)}: {unknown('key', key, known)} Write it as data=2,pipeline=2.")
            if key in given:
                raise UserError(f"plan {shown(text)}: {key} has a value already: say it once.")
            given[key] = value if (number := whole_number(value)) is None else number
        try:
            return cls(**given)  # type: ignore[arg-type]
        except ValueError as error:
            raise UserError(f"plan {shown(text)}: {error}") from None

    @classmethod
    def auto(cls, config: ModelConfig, gpus: int, memory: float, **how: Any) -> "Proposal":
        """A plan for ``gpus`` GPUs of ``memory`` bytes each, and why: ``plan, why = Plan.auto(config, 8, 80e9)``.

        Args:
            config, gpus, memory, how: as of :func:`deepnet_edu.planning.proposal.propose`.

        Raises:
            ValueError, UserError: as it does.
        """
        from deepnet_edu.planning.proposal import propose  # here, since it knows plans

        return propose(config, gpus, memory, **how)

    def check(self, config: ModelConfig, ranks: int, batch_size: int) -> None:
        """See that the plan fits the model, the processes and the batch, before anything is built.

        Args:
            config: of the model.
            ranks: processes that there are.
            batch_size: sequences in one batch, over all ranks.

        Raises:
            UserError: it does not; the sentence says what would.
        """
        if self.ranks != ranks:
            sizes = " × ".join(f"{name}={getattr(self, name)}" for name in ("data", "shard", "pipeline"))
            raise UserError(
                f"The plan {self.title} needs {sizes} = {self.ranks} processes, and there are {ranks}: "
                f"start {self.ranks} (--gpus {self.ranks}), or change the plan."
            )
        layers = config.encoder_layers + config.decoder_layers
        if self.stages > max(layers, 1):
            raise UserError(
                f"The plan {self.title} has {self.stages} stages, and the model {layers} layers: a stage needs one "
                f"or more. Use pipeline={max(layers // (self.stages // self.pipeline), 1)} or less."
            )
        n = self.n_microbatches
        pieces = self.shares * n
        if batch_size % pieces:
            raise UserError(
                f"A batch of {batch_size} sequences cannot be cut into {self.shares} × {n} equal pieces "
                f"(shares of ranks × micro-batches): take {(batch_size // pieces + 1) * pieces}, "
                f"by --set sequences={(batch_size // pieces + 1) * pieces} for a preset."
            )
        if self.pipeline > 1 and self.schedule == "1f1b" and n < self.pipeline:
            raise UserError(
                f"microbatches={n}: schedule=1f1b keeps {self.pipeline} ranks busy with {self.pipeline} or "
                "more, or take schedule=gpipe."
            )
        if self.schedule == "interleaved" and n % self.pipeline:
            raise UserError(f"microbatches={n}: an interleaved pipeline needs a multiple of {self.pipeline}.")
