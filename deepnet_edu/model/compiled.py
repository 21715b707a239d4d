"""One layer compiled by ``torch.compile`` and used for all layers of a stack: a thousand take as long as two.

Parameters and buffers are inputs of the compiled graph, and Python's own numbers are written into it. So layers share a
graph where they differ in tensors alone, which is what rules keep their constants as buffers for. What torch.compile
checks before it uses a graph makes this safe: a layer of another kind gets a graph of its own.
"""

from collections.abc import Callable, Iterable
from itertools import count
from types import FunctionType
from typing import Any, cast

import torch
from torch import nn

from deepnet_edu.messages import UserError, unknown
from deepnet_edu.model.attention import Context
from deepnet_edu.model.code import Code, Sources
from deepnet_edu.model.mode import Backend
from deepnet_edu.model.snapshot import hooks
from deepnet_edu.model.torch_versions import wrong
from deepnet_edu.residual import State

_numbers = count()
#: What torch.compile calls the module that it wraps.
COMPILED = "_orig_mod"


def unwrapped(module: Any) -> Any:
    """The module inside the wrappers of ``torch.compile``, DataParallel, DistributedDataParallel and averaged models.

    What they wrap has the same parameters and gives the same numbers, and here it is run by paths of its own.

    Args:
        module: anything; what is not such a wrapper is returned as it is.
    """
    while isinstance(module, nn.Module):
        inside = module._modules
        name = COMPILED if COMPILED in inside else "module"
        # Only what has no parameters but those of the wrapped module is a wrapper.
        if len(inside) != 1 or module._parameters or not isinstance(inside.get(name), nn.Module):
            break
        module = inside[name]
    return module


def trainable(module: Any) -> Any:
    """The module inside its wrappers, unless one of them shares a training among ranks, which would then drift apart.

    Raises:
        ValueError: one does.
    """
    kind = type(module).__name__
    if kind in ("DistributedDataParallel", "FullyShardedDataParallel"):
        raise ValueError(
            f"model is wrapped in {kind}, and train(…, plan=Plan(data=2)) shares the work of ranks by itself: give it "
            "the model inside, model.module."
        )
    return unwrapped(module)


def plain_name(name: str) -> str:
    """A parameter's name as it is where no module is wrapped by ``torch.compile``."""
    return ".".join(part for part in name.split(".") if part != COMPILED)


class CompiledLayer:
    """``layer(state, context)`` for the layers of one stack, compiled at the first call.

    Args:
        backend: a name in ``torch.compiler.list_backends(None)``: ``"inductor"`` makes new kernels, ``"aot_eager"``
            only what they would be made from, in less time.
        autotune: as of :class:`~deepnet_edu.model.mode.Mode`.
        attention: likewise: it is chosen when a graph is made, so another choice needs another one of these.

    Attributes:
        how: all three.
        graphs: compiled so far: one for each kind of layer, with gradients and without, in each precision and mode.
            At another batch size or length there is one more, and that serves all others.

    Raises:
        ValueError: there is no such backend.
        UserError: this version of PyTorch is known to compile what is wrong.
    """

    def __init__(self, backend: str = "inductor", autotune: bool = False, attention: Backend = "auto") -> None:
        if said := wrong(torch.__version__):
            raise UserError(f"compile='layer' with PyTorch {torch.__version__}: {said}. Use another version, or 'no'.")
        known = torch.compiler.list_backends(None)
        if backend not in known:
            raise ValueError(unknown("backend", backend, known))
        self.how = backend, autotune, attention
        self.graphs = 0
        self._functions: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._sources: Sources | None = None
        self._classes: set[type] = set()
        self._hooked: set[nn.Module] = set()

    def __call__(self, layer: nn.Module, state: State, context: Context) -> State:
        """The state after ``layer``, a :class:`~deepnet_edu.model.layer.TransformerLayer`.

        Raises:
            UserError: it cannot be compiled: no compiler, say, or layers of too many kinds.
        """
        return cast(State, layer(state, context)) if layer in self._hooked else self._do(_call, layer, state, context)

    def inside(self, layer: nn.Module, state: State, context: Context) -> State:
        """The same for a layer whose call has begun, and done what its hooks ask for: its ``forward``, compiled."""
        return self._do(_forward, layer, state, context)

    def _do(self, what: Callable[..., Any], layer: nn.Module, state: State, context: Context) -> State:
        if what not in self._functions:
            self._functions[what] = self._made(what)
        try:
            return cast(State, self._functions[what](layer, state, context))
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            raise UserError(_sentence(error, self.graphs)) from error

    def ready(self, layers: Iterable[nn.Module]) -> "CompiledLayer":
        """This, for ``layers`` as they are now: torch.compile sees neither that a class has got another method, nor a
        hook. In the one case graphs are made again, and layers with hooks run uncompiled."""
        modules = {layer: list(layer.modules()) for layer in layers}
        classes = {type(module) for inside in modules.values() for module in inside}
        self._hooked = {layer for layer, inside in modules.items() if any(map(hooks, inside))}
        if classes != self._classes or self._sources is None or not self._sources.hold():
            self._classes, self._sources, self._functions = classes, Sources(map(Code, classes)), {}
        return self

    def __reduce__(self) -> tuple[type, tuple[str, bool, Backend]]:
        """A copy compiles for itself."""
        return CompiledLayer, self.how

    def _made(self, what: Callable[..., Any]) -> Callable[..., Any]:
        backend, autotune, _ = self.how
        compile_graph = torch._dynamo.lookup_backend(backend)
        more = {"config_patches": {"max_autotune_gemm": True}} if autotune else {}

        def counted(graph: Any, inputs: Any, **settings: Any) -> Any:
            _tell_processors_apart()
            made = compile_graph(graph, inputs, **settings, **more)
            self.graphs += 1  # only now: PyTorch may have to begin again
            return made

        # PyTorch keeps graphs, and what it knows of sizes that vary, by code and its name: each stack has its own.
        code = what.__code__.replace(co_name=f"layer_{next(_numbers)}")
        own = FunctionType(code, what.__globals__, code.co_name)
        # Without fullgraph what cannot be compiled would run uncompiled without a word.
        return torch.compile(own, fullgraph=True, backend=counted)


def _call(layer: Any, state: State, context: Context) -> Any:
    return layer(state, context)


def _forward(layer: Any, state: State, context: Context) -> Any:
    return type(layer).forward(layer, state, context)


def _tell_processors_apart() -> None:
    """PyTorch keeps kernels on disk, and its key does not say for which instruction set they were made."""
    settings, capability = torch.compiler.config, torch.backends.cpu.get_cpu_capability()
    if capability not in settings.cache_key_tag:
        settings.cache_key_tag += capability


def _sentence(error: Exception, graphs: int) -> str:
    """What went wrong, and what to type."""
    if isinstance(error, torch._dynamo.exc.FailOnRecompileLimitHit):
        return (
            f"compile='layer' made {graphs} graphs for one stack, and its next layer or batch needs yet another: "
            "layers differ in more than their weights, so use compile='no'."
        )
    cause = getattr(error, "inner_exception", None) or error
    reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), "no reason given")
    mend = "change what a layer does, or use compile='no'."
    if type(cause).__name__ in ("InvalidCxxCompiler", "TritonMissing"):
        mend = "it needs a C++ compiler such as g++ on a CPU and Triton on a GPU; install that, or use compile='no'."
    elif isinstance(error, torch._dynamo.exc.ShortenTraceback):  # what makes kernels failed
        mend = "its kernels could not be made: TORCH_LOGS=inductor shows all of it; or use compile='no'."
    return f"compile='layer' failed ({type(cause).__name__}: {reason[:200].rstrip('.')}): {mend}"
