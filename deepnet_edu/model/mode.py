"""How a model runs, as one value. What it computes is the same in every mode; time and memory are not."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from deepnet_edu.messages import unknown
from deepnet_edu.model.shape import layers_together

PathName = Literal["auto", "plain", "fast"]
#: What is compiled: nothing, or one layer, which all layers of a stack then use.
Compile = Literal["no", "layer"]
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
        offload: what is kept between those layers is in the CPU's memory until then; on a CPU it is there anyway.
        compile: ``"layer"`` compiles one layer of each stack, which then serves all its layers, by the plain path. The
            first step takes the time of compiling, the same at any depth; ``stack.graphs`` says how many it made.
        backend: of ``torch.compile``; ``"aot_eager"`` finds the graphs and makes no kernels.
        stream: ``"half"`` keeps the state between sub-layers in autocast's precision, ``"float32"`` in the weights';
            without autocast it is in the weights' anyway. See :mod:`deepnet_edu.model.stream`.

        norm_kernel: ``"auto"`` joins branch, stream and norm by one Triton kernel where it can run and gave the plain
            layer's numbers; ``"yes"`` refuses what it cannot join. By the plain path, compiled or not; ``stack.joined``
            says why not. See :mod:`deepnet_edu.model.fused`.

    Raises:
        ValueError: there is no such path or choice, or ``offload`` without checkpoints.
    """

    path: PathName = "auto"
    checkpoint_every: int | str = 0
    offload: bool = False
    compile: Compile = "no"
    backend: str = "inductor"
    stream: StreamPrecision = "float32"
    norm_kernel: NormKernel = "auto"

    def __post_init__(self) -> None:
        if self.path not in get_args(PathName):
            raise ValueError(unknown("path", self.path, get_args(PathName)))
        if self.compile not in get_args(Compile):
            raise ValueError(unknown("compile", self.compile, get_args(Compile)))
        for name, valid in (("stream", get_args(StreamPrecision)), ("norm_kernel", get_args(NormKernel))):
            if getattr(self, name) not in valid:
                raise ValueError(unknown(name, getattr(self, name), valid))
        layers_together(self.checkpoint_every, 1)
        if self.offload and not self.checkpoint_every:
            raise ValueError(
                "offload=True moves what checkpoints keep, and there are none: checkpoint_every='auto' makes them."
            )


class FormerVerbs:
    """What set one field of a mode each, before there was one: kept for notebooks that say so.

    Each takes what its field takes, for all stacks of a model and until further notice.
    """

    def use_path(self, path: PathName) -> None:
        """``model.mode = replace(model.mode, path=path)``."""
        self._change(path=path)

    def checkpoint_every(self, layers: int | str) -> None:
        """Set ``checkpoint_every`` alone; without checkpoints nothing is offloaded."""
        self._change(checkpoint_every=layers, **({} if layers else {"offload": False}))

    def offload(self, on: bool) -> None:
        """Set ``offload`` alone."""
        self._change(offload=on)

    def use_compiled(self, what: Compile, backend: str = "inductor") -> None:
        """Set ``compile`` and ``backend`` alone."""
        self._change(compile=what, backend=backend)

    def _change(self, **changes: Any) -> None:
        raise NotImplementedError
