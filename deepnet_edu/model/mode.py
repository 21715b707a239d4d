"""How a model runs, as one value. What it computes is the same in every mode; time and memory are not."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from deepnet_edu.messages import unknown
from deepnet_edu.model.shape import layers_again, layers_together

PathName = Literal["auto", "plain", "fast"]
#: What is compiled: nothing, or one layer, which all layers of a stack then use.
Compile = Literal["no", "layer"]
#: Who computes softmax(QKᵀ)V: whom PyTorch chooses, or who is asked first.
Backend = Literal["auto", "flash", "cudnn", "efficient", "math"]
#: Whether one kernel does what a rule's norm and sum do.
NormKernel = Literal["auto", "no", "yes"]
#: In what the state is kept between sub-layers under autocast.
StreamPrecision = Literal["float32", "half"]


@dataclass(frozen=True)
class Mode:
    """How a model runs: ``with model.running(Mode(path="plain")):``, or ``model.mode = Mode(…)`` until further notice.

    Args:
        path: ``"plain"`` runs layer after layer; ``"fast"`` is the folder ``model/fast``, the same numbers in less time
            and memory, and refuses what it does not know; ``"auto"`` takes the fast one where it can.
        checkpoint_every: the activations of this many layers are thrown away together and computed again in the
            backward pass; 0 keeps all, ``"auto"`` is √n_layers of each stack, which needs the least memory.
        recompute: how many layers of each stack, from the lowest up, have such checkpoints; those above keep their
            activations, which the backward pass frees before it comes to the first checkpoint. ``"all"`` by default;
            :func:`~deepnet_edu.planning.fewest_recomputed` says how few a device's memory asks for.
        keep_attention: a checkpoint keeps what attention gave and the log-sum-exp of its scores: one state more for
            each layer, and attention is not computed again.
        offload: what is kept between those layers is in the CPU's memory until then; on a CPU it is there anyway.
        compile: ``"layer"`` compiles one layer of each stack, which then serves all its layers, by the plain path. The
            first step takes the time of compiling, the same at any depth; ``stack.graphs`` says how many it made.
        backend: of ``torch.compile``; ``"aot_eager"`` finds the graphs and makes no kernels.
        autotune: inductor measures several kernels for each product, with what follows it (bias, GELU) computed before
            the result is written where that is faster: a longer first step.
        attention: of PyTorch's implementations the one that is asked first, the others where it cannot.
        stream: ``"half"`` keeps the state between sub-layers in autocast's precision, ``"float32"`` in the weights';
            without autocast it is in the weights' anyway. See :mod:`deepnet_edu.model.stream`.

        norm_kernel: ``"auto"`` joins branch, stream and norm by one Triton kernel where it can run and gave the plain
            layer's numbers; ``"yes"`` refuses what it cannot join. By the plain path, compiled or not; ``stack.joined``
            says why not. See :mod:`deepnet_edu.model.fused`.

    Raises:
        ValueError: there is no such path or choice; ``offload``, ``recompute`` or ``keep_attention`` without
            checkpoints; ``autotune`` without inductor.
    """

    path: PathName = "auto"
    checkpoint_every: int | str = 0
    recompute: int | str = "all"
    keep_attention: bool = False
    offload: bool = False
    compile: Compile = "no"
    backend: str = "inductor"
    autotune: bool = False
    attention: Backend = "auto"
    stream: StreamPrecision = "float32"
    norm_kernel: NormKernel = "auto"

    def __post_init__(self) -> None:
        for name, choices in (
            ("path", PathName),
            ("compile", Compile),
            ("attention", Backend),
            ("stream", StreamPrecision),
            ("norm_kernel", NormKernel),
        ):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(unknown(name, getattr(self, name), get_args(choices)))
        layers_together(self.checkpoint_every, 1)
        layers_again(self.recompute, 1)
        if not self.checkpoint_every:
            self._refuse_without_checkpoints()
        if self.autotune and self.backend != "inductor":
            raise ValueError(f"autotune=True is for the kernels that inductor makes, and backend={self.backend!r}.")

    def _refuse_without_checkpoints(self) -> None:
        what = {
            "offload=True moves what checkpoints keep": self.offload,
            f"recompute={self.recompute!r} says how many layers have checkpoints": self.recompute != "all",
            "keep_attention=True keeps more at checkpoints": self.keep_attention,
        }
        for sentence, asked in what.items():
            if asked:
                raise ValueError(f"{sentence}, and there are none: checkpoint_every='auto' makes them.")


#: What only checkpoints can be asked for, where there are none.
_NONE: dict[str, Any] = {"offload": False, "recompute": "all", "keep_attention": False}


class FormerVerbs:
    """What set one field of a mode each, before there was one: kept for notebooks that say so.

    Each takes what its field takes, for all stacks of a model and until further notice.
    """

    def use_path(self, path: PathName) -> None:
        """``model.mode = replace(model.mode, path=path)``."""
        self._change(path=path)

    def checkpoint_every(self, layers: int | str) -> None:
        """Set ``checkpoint_every`` alone; without checkpoints nothing is offloaded."""
        self._change(checkpoint_every=layers, **({} if layers else _NONE))

    def offload(self, on: bool) -> None:
        """Set ``offload`` alone."""
        self._change(offload=on)

    def use_compiled(self, what: Compile, backend: str = "inductor") -> None:
        """Set ``compile`` and ``backend`` alone."""
        self._change(compile=what, backend=backend)

    def _change(self, **changes: Any) -> None:
        raise NotImplementedError
