"""The shape of a model, checked before anything is built."""

from dataclasses import KW_ONLY, MISSING, dataclass, fields
from typing import Any, Literal, get_args

from deepnet_edu.fields import check_fields
from deepnet_edu.messages import shown, unknown
from deepnet_edu.model.shape import GATES, Activation, Position, Shape, check_heads, check_kv_heads
from deepnet_edu.residual import DEFAULT, RESIDUALS, Architecture, Norm, places

#: Of parameters: all, those of the stack or stacks, or of embeddings and head.
Group = Literal["all", "stack", "ends"]
TaskName = Literal["lm", "mlm", "classification", "translation"]
#: What each task needs: which tokens see which is part of the task.
ARCHITECTURE_OF: dict[str, Architecture] = {
    "lm": "decoder",
    "mlm": "encoder",
    "classification": "encoder",
    "translation": "encoder_decoder",
}
#: What becomes of token and position before the stack, and of the stack's output before the head.
Embedding = Literal["sum", "bert"]
Head = Literal["linear", "norm", "bert"]
#: The residual of a model without layers, the control of every experiment.
NO_RESIDUAL = "none"
_CHOICES = {
    "architecture": get_args(Architecture),
    "task": get_args(TaskName),
    "position": get_args(Position),
    "activation": get_args(Activation),
    "norm": get_args(Norm),
    "embedding": get_args(Embedding),
    "head": get_args(Head),
}
#: More than any size of a model that a machine can hold.
LARGEST = 10**9
_MAY_BE_ZERO = ("encoder_layers", "decoder_layers", "source_vocab_size", "n_kv_heads")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. Everything is checked on creation.

    Attributes:
        architecture: ``"encoder"`` (tokens see all), ``"decoder"`` (tokens see the past) or ``"encoder_decoder"``.
        task: ``"lm"`` (decoder: the next token), ``"mlm"`` (encoder: hidden tokens), ``"classification"`` (encoder: a
            class for an image) or ``"translation"`` (encoder_decoder: a sequence for a sequence).
        decoder_layers: M, layers of the decoder: two sub-layers each, three where there is an encoder.
        encoder_layers: N, layers of the encoder, two sub-layers each.
        d_model: width of the stream.
        n_heads: attention heads; divides d_model.
        n_kv_heads: heads of keys and values, each for n_heads/n_kv_heads queries; 0 for n_heads.
        d_ff: width inside the feed-forward branch; with a gate, of each of its two halves.
        vocab_size: number of tokens, of the target where there are two languages; not for classification.
        source_vocab_size: of the source; 0 for the same.
        residual: a name in ``RESIDUALS``, or ``"none"`` for a model without layers, the control of an experiment.
        position: ``"learned"``, ``"sinusoidal"`` or ``"rotary"``.
        rotary_base: of rotary positions; the slowest pair of features has the wavelength 2π·rotary_base.
        max_length: longest sequence, the number of learned positions.
        activation: ``"gelu"``, ``"relu"``, ``"swiglu"`` or ``"geglu"``.
        bias: whether the branches' matrices add one.
        norm: what LN stands for: ``"layer"`` or ``"rms"``.
        embedding: ``"sum"`` of token and position, or ``"bert"``: with one of two segments, and LN of the sum.
        head: ``"linear"``; ``"norm"`` with LN before it, whatever the rule ends with; or ``"bert"``: a matrix, GELU and
            LN before it, and a bias.
        shared_embeddings: one matrix for all embeddings and the head, instead of one each. A stack that starts near the
            identity, as DeepNorm does, then starts by repeating the token just read; what unlearns it may make all that
            leaves the encoder equal, and a translator ignores its source for long. A longer warm-up helps, and so do
            tables apart (``benchmarks/tied_embedding.py``).
        clones: all layers of a stack are the same one, run again and again: a looped stack. What a rule has at the ends
            alone is not shared.
        dropout: share of features set to 0 in training, after each branch and each embedding.
        n_classes: of classification.
        patch_size: side of the squares that an image is cut into, in pixels.
        channels: of an image.
        alpha: α by hand, only with ``not_the_paper=True``.
        beta: β by hand, only with ``not_the_paper=True``.
        not_the_paper: says that α and β given here are no longer those of the rule's paper.

    Raises:
        ValueError: one sentence that says what was given and what is valid.
    """

    architecture: str
    task: str
    decoder_layers: int = 0
    encoder_layers: int = 0
    _: KW_ONLY
    d_model: int
    n_heads: int
    d_ff: int
    n_kv_heads: int = 0
    vocab_size: int = 0
    source_vocab_size: int = 0
    residual: str = DEFAULT
    position: Position = "learned"
    rotary_base: float = 10_000.0
    max_length: int = 256
    activation: Activation = "gelu"
    bias: bool = True
    norm: Norm = "layer"
    embedding: Embedding = "sum"
    head: Head = "linear"
    shared_embeddings: bool = False
    clones: bool = False
    dropout: float = 0.0
    n_classes: int = 0
    patch_size: int = 4
    channels: int = 1
    alpha: float | None = None
    beta: float | None = None
    not_the_paper: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        for name, valid in _CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(unknown(name, getattr(self, name), valid))
        if self.residual != NO_RESIDUAL and self.residual not in RESIDUALS:
            raise ValueError(unknown("residual", self.residual, [*RESIDUALS, NO_RESIDUAL]))
        unused = "vocab_size" if self.task == "classification" else "n_classes"
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type not in (int, "int"):
                continue
            least = 0 if field.name in _MAY_BE_ZERO or field.name == unused else 1
            if not least <= value <= LARGEST:
                most = "" if value < least else f", at most {LARGEST:,}"
                raise ValueError(f"{field.name}={shown(value)}: expected a whole number, {least} or more{most}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r}: expected a share, 0 or more and less than 1.")
        check_heads(self.d_model, self.n_heads)
        check_kv_heads(self.n_heads, self.n_kv_heads)
        if not 1 < self.rotary_base < float("inf"):
            raise ValueError(f"rotary_base={self.rotary_base!r}: expected a number greater than 1, for example 10000.")
        self._check_task()
        self._check_depth()
        self._check_constants()

    def _check_task(self) -> None:
        needed = ARCHITECTURE_OF[self.task]
        if self.architecture != needed:
            raise ValueError(f"task={self.task!r} needs architecture={needed!r}, not {self.architecture!r}.")
        if self.source_vocab_size and self.task != "translation":
            raise ValueError(f"source_vocab_size={self.source_vocab_size}: only task='translation' has a source.")
        if self.shared_embeddings and self.task == "classification":
            raise ValueError("shared_embeddings=True: classification has no embedding of tokens to share.")
        for name in ("embedding", "head"):
            if getattr(self, name) == "bert" and self.task == "classification":
                raise ValueError(f"{name}='bert' is made for tokens, and task='classification' has none: leave it out.")
        if self.shared_embeddings and self.source_vocab_size not in (0, self.vocab_size):
            raise ValueError(
                f"shared_embeddings=True needs one vocabulary, not source_vocab_size={self.source_vocab_size} "
                f"and vocab_size={self.vocab_size}."
            )
        head_dim = self.d_model // self.n_heads
        if self.position == "rotary" and head_dim % 2:
            raise ValueError(
                f"position='rotary' turns features in pairs, and d_model/n_heads={head_dim} is odd: "
                "choose another n_heads, or position='sinusoidal'."
            )
        if self.position == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"position='sinusoidal' needs an even d_model, not {self.d_model}.")

    def _check_depth(self) -> None:
        for stack in ("encoder", "decoder"):
            name = f"{stack}_layers"
            layers, has = getattr(self, name), stack in self.architecture
            if layers and not has:
                raise ValueError(
                    f"{name}={layers}: architecture={self.architecture!r} has no {stack}; leave {name} out."
                )
            if layers and self.residual == NO_RESIDUAL:
                raise ValueError(f"{name}={layers} with residual='none': name a residual, for example {DEFAULT!r}.")
            if has and not layers and self.residual != NO_RESIDUAL:
                raise ValueError(
                    f"{name}=0: a stack needs at least one layer, say {name}=1 or more; "
                    "for the control without any layer, residual='none'."
                )
        if self.residual != NO_RESIDUAL:
            RESIDUALS[self.residual].check(self.architecture)  # type: ignore[arg-type]
        if self.clones and (self.residual == NO_RESIDUAL or RESIDUALS[self.residual].growing):
            raise ValueError(
                f"clones=True makes all layers one, and with residual={self.residual!r} no two can be: choose a "
                f"residual whose layers are equal, for example {DEFAULT!r}."
            )

    def _check_constants(self) -> None:
        given = self.override
        if not given:
            if self.not_the_paper:
                raise ValueError("not_the_paper=True, but neither alpha nor beta is given: leave it out.")
            return
        what = ", ".join(f"{name}={value!r}" for name, value in given.items())
        if not self.not_the_paper:
            raise ValueError(
                f"{what}: {self.residual!r} takes its constants from its paper and the depth; leave it out, "
                "or say not_the_paper=True to train a rule of your own."
            )
        if self.residual == NO_RESIDUAL:
            raise ValueError(f"{what} with residual='none': there is no layer to use it.")
        known = {name: v for name, v in self.rule_constants().items() if name in ("alpha", "beta")}
        for name, value in given.items():
            if name not in known:
                raise ValueError(
                    f"{name}={value!r}: {self.residual!r} has no {name}; it has {', '.join(known) or 'neither'}."
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"{name}={value!r}: expected a positive number.")

    @property
    def override(self) -> dict[str, float]:
        """The constants given by hand, by name."""
        return {name: value for name in ("alpha", "beta") if (value := getattr(self, name)) is not None}

    @property
    def title(self) -> str:
        """The rule as written in legends, with what is not its paper's."""
        if self.residual == NO_RESIDUAL:
            return "no layers"
        letters = {"alpha": "α", "beta": "β"}
        given = ", ".join(f"{letters[name]} = {value:g}" for name, value in self.override.items())
        return RESIDUALS[self.residual].title + (f" with {given}, not the paper's" if given else "")

    @property
    def kv_width(self) -> int:
        """Width of all keys of a token, and of all values: d_model unless queries are grouped."""
        return (self.n_kv_heads or self.n_heads) * (self.d_model // self.n_heads)

    @property
    def ffn_matrices(self) -> int:
        """Matrices of d_model × d_ff in a feed-forward branch: two, and a third with a gate."""
        return 3 if self.activation in GATES else 2

    @property
    def shape(self) -> Shape:
        """What all layers have in common."""
        return Shape(
            self.d_model,
            self.n_heads,
            self.d_ff,
            self.activation,
            self.norm,
            self.dropout,
            self.override,
            self.n_kv_heads,
            self.bias,
            self.clones,
        )

    def rule_constants(self) -> dict[str, float]:
        """The numbers of the rule at the first sub-layer of the (last) stack, by name."""
        first = next(places("decoder" if self.decoder_layers else "encoder", self.encoder_layers, self.decoder_layers))
        return RESIDUALS[self.residual].at(first).constants


#: Options of earlier versions, as files may still say them, and what is done now.
FORMER = {"stochastic_depth": 0.0}
#: What a configuration has where nothing is said, by field.
DEFAULTS: dict[str, Any] = {
    one.name: one.default for one in fields(ModelConfig) if one.default is not MISSING and one.name != "_"
}
