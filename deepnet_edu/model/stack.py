"""The stack: independent layers one above the other, by the plain path or the fast one."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepnet_edu.model import paths
from deepnet_edu.model.attention import NOTHING, Context, MultiHeadAttention
from deepnet_edu.model.compiled import CompiledLayer, unwrapped
from deepnet_edu.model.fused.plan import joining
from deepnet_edu.model.layer import FeedForward, SubLayer, TransformerLayer
from deepnet_edu.model.mode import Mode
from deepnet_edu.model.recomputation import attention_by, kept_with
from deepnet_edu.model.shape import Shape, layers_again, layers_together
from deepnet_edu.model.stream import narrowed, widened
from deepnet_edu.residual import RESIDUALS, Calibrated, Place, StackName, State, places


class Stack(nn.Module):
    """An encoder (each token sees all) or a decoder (each token sees the past): ``n_layers`` independent layers.

    The decoder of a model that has an encoder looks at its output between self-attention and feed-forward.
    With no layers a stack is the identity.

    Args:
        stack: ``"encoder"`` or ``"decoder"``.
        residual: a name in ``RESIDUALS``.
        encoder_layers: N of the whole model.
        decoder_layers: M of the whole model.
        shape: widths, heads, norm, dropout.

    Attributes:
        mode: how it runs, see :class:`~deepnet_edu.model.mode.Mode`.
        path_taken: the path of the last forward pass and, where that is the plain one, why.
        observer: looks at the stream on its way up, or None.
        step_buffers: what a training run keeps from step to step for the fast path, or None.
        readings: what the fast path has read of this stack and compared, or None.
        joined: whether one kernel joined branch, stream and norm in the last pass by the plain path, or why not.
        plan: what was read of this stack for that and compared, or None.
    """

    mode: Mode = Mode()
    path_taken: str = "none yet"
    observer: Any = None
    step_buffers: Any = None
    readings: Any = None
    joined: str = "none yet"
    plan: Any = None
    _compiled: CompiledLayer | None = None

    def __init__(
        self, stack: StackName, residual: str, *, encoder_layers: int, decoder_layers: int, shape: Shape
    ) -> None:
        super().__init__()
        rule = RESIDUALS[residual]
        n_layers = encoder_layers if stack == "encoder" else decoder_layers
        all_places = list(places(stack, encoder_layers, decoder_layers, shape.norm, shape.override))
        kinds = len(all_places) // n_layers if n_layers else 0

        def sublayer(place: Place) -> SubLayer:
            residual = rule(place, shape.d_model)
            branch: MultiHeadAttention | FeedForward
            if place.sublayer == "ffn":
                branch = FeedForward(shape.d_model, shape.d_ff, shape.activation, residual, bias=shape.bias)
            else:
                cross = place.sublayer == "cross_attention"
                causal = stack == "decoder" and not cross
                own: dict[str, Any] = {"n_kv_heads": shape.n_kv_heads, "bias": shape.bias}
                branch = MultiHeadAttention(shape.d_model, shape.n_heads, causal, cross=cross, rule=residual, **own)
            return SubLayer(branch, residual, shape.dropout)

        # Each layer is built by itself: copies of one layer would add up in amplitude, and no rule survives that.
        self.layers = nn.ModuleList(
            TransformerLayer(*map(sublayer, all_places[kinds * layer : kinds * (layer + 1)]))
            for layer in range(n_layers)
        )
        if shape.clones:
            for layer in self.layers[1:]:
                _clone(self.layers[0], layer)

    def set_mode(self, mode: Mode) -> None:
        """Run so from now on.

        Raises:
            ValueError: there is no such backend, or no two layers are equal.
        """
        if mode.compile == "layer":
            growing = [sublayer.residual.title for sublayer in self.sublayers() if sublayer.residual.growing]
            if growing:
                raise ValueError(
                    f"compile='layer' needs layers that are equal, and each layer of {growing[0]} has one more tensor "
                    "to read than the one below: use compile='no'."
                )
            how = mode.backend, mode.autotune, mode.attention
            if self._compiled is None or self._compiled.how != how:
                self._compiled = CompiledLayer(*how)
        if self.plan is not None and self.plan.why_not:
            self.plan = None
        self.mode = mode

    @contextmanager
    def running(self, mode: Mode | None = None, *, observer: Any = None, step_buffers: Any = None) -> Iterator[None]:
        """Run so for the time of a ``with``; what is not given stays.

        Raises:
            ValueError: as :meth:`set_mode` raises.
        """
        before = self.mode, self.observer, self.step_buffers
        if mode is not None:
            self.set_mode(mode)
        try:
            self.observer = self.observer if observer is None else observer
            self.step_buffers = self.step_buffers if step_buffers is None else step_buffers
            yield
        finally:
            self.mode, self.observer, self.step_buffers = before

    @property
    def checkpoint_every(self) -> int:
        """Layers that are computed again together, 0 for none."""
        return layers_together(self.mode.checkpoint_every, len(self.layers))

    @property
    def compiled(self) -> CompiledLayer | None:
        """What runs a layer by the plain path; None for the layer itself."""
        return self._compiled if self.mode.compile == "layer" else None

    @property
    def taken(self) -> str:
        """``path_taken`` by its former name."""
        return self.path_taken

    @property
    def graphs(self) -> int:
        """How many graphs have been compiled for the layers; see :class:`~deepnet_edu.model.compiled.CompiledLayer`."""
        return 0 if self.compiled is None else self.compiled.graphs

    def sublayers(self) -> list[SubLayer]:
        """All sub-layers from the bottom up."""
        layers = map(unwrapped, self.layers)
        return [module for layer in layers for module in layer.children() if isinstance(module, SubLayer)]

    def forward(
        self,
        x: Tensor,
        padding: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """(B, T, d_model) → (B, T, d_model).

        Args:
            x: (B, T, d_model).
            padding: (B, T) bool, True where a token is padding, or None.
            context: everything that branches need, padding included, where that is more.
        """
        if not self.layers:
            return x
        context = Context(padding) if context is None else context
        y, how = (None, "it was asked for") if self.mode.path == "plain" else paths.run(self, x, context)
        if y is not None:
            self.path_taken = how
            return y
        if self.mode.path == "fast":
            raise ValueError(
                f"The fast path cannot run this: {how}. Use path 'auto', which then goes by the plain one."
            )
        self.path_taken = f"plain, since {how}"
        with nullcontext() if self.observer is None else self.observer.hooked(self):
            return self.plain(x, context)

    def plain(self, x: Tensor, context: Context) -> Tensor:
        """The same, layer after layer: what lessons show, and what the fast path is held to."""
        return self.finish(self.between(self.start(x), context, 0, len(self.layers)))

    def start(self, x: Tensor) -> State:
        """The state that enters the lowest layer. x: (B, T, d_model)."""
        return cast(TransformerLayer, self.layers[0]).self_attention.residual.start(x)

    def finish(self, state: State) -> Tensor:
        """What the highest layer's rule makes of the state that leaves it: (B, T, d_model)."""
        half = self._half(state[0])
        finished = cast(TransformerLayer, self.layers[-1]).ffn.residual.finish(widened(state, half))
        return narrowed((finished,), half)[0]

    def between(self, state: State, context: Context, first: int, last: int) -> State:
        """The state after layers ``first`` … ``last - 1``, one after the other."""
        every, half = self.checkpoint_every, self._half(state[0])
        if half is not None:
            context, state = replace(context, half=half), narrowed(state, half)
        context, why = joining(self, state[0], context)
        self.joined = why or "one kernel joins branch, stream and norm"
        # An observer's hooks want to be called, and decoding makes another shape with each token.
        compiled = self.compiled if self.observer is None and context.cache is None else None
        if compiled is not None:
            compiled.ready(self.layers)
        if not (every and torch.is_grad_enabled() and context.cache is None):
            return self._run(compiled, first, last - first, context, *state)
        upto = max(first, min(last, layers_again(self.mode.recompute, len(self.layers))))
        how: dict[str, Any] = {"use_reentrant": False, **kept_with(self.mode.keep_attention)}
        with self._kept_elsewhere(state[0]):
            for group in range(first, upto, every):
                state = checkpoint(self._run, compiled, group, min(every, upto - group), context, *state, **how)
        return self._run(compiled, upto, last - upto, context, *state)

    def _half(self, x: Tensor) -> torch.dtype | None:
        """The dtype in which the state is kept now, or None: as rules make it."""
        device = x.device.type
        if self.mode.stream != "half" or not torch.is_autocast_enabled(device):
            return None
        layer = next(layer for layer in map(unwrapped, self.layers) if "ffn" in layer._modules)  # others are elsewhere
        # A growing state is read whole by each sub-layer, and backward would keep a wide copy of it for each.
        return None if layer.ffn.residual.growing else torch.get_autocast_dtype(device)

    def _run(self, compiled: CompiledLayer | None, first: int, layers: int, context: Context, *state: Tensor) -> State:
        """The state after this many layers from ``first`` on. How is given: it is the same when a checkpoint runs it
        again."""
        with attention_by(self.mode.attention):
            for layer in self.layers[first : first + layers]:
                state = layer(state, context) if compiled is None else compiled(layer, state, context)
        return state

    def _kept_elsewhere(self, x: Tensor) -> AbstractContextManager[Any]:
        """Where checkpoints keep states. They see to it that nothing within a group of layers goes there."""
        offload = self.mode.offload and x.device.type != "cpu"
        return torch.autograd.graph.save_on_cpu(pin_memory=x.is_cuda) if offload else nullcontext()


def _clone(first: nn.Module, layer: nn.Module) -> None:
    """Give ``layer`` the branches of ``first`` and what both rules learn; numbers that follow from a place stay."""
    for name, sublayer in layer.named_children():
        lowest = cast(SubLayer, first.get_submodule(name))
        sublayer.branch = lowest.branch
        ours, theirs = cast(SubLayer, sublayer).residual, lowest.residual
        for kind in ("_parameters", "_modules"):
            own = getattr(ours, kind)
            shared = {key: part for key, part in getattr(theirs, kind).items() if part is not None}
            own.update({key: shared[key] for key in own.keys() & shared.keys() if own[key] is not None})


@torch.no_grad()
def calibrate(stack: Stack, x: Tensor, context: Context = NOTHING) -> Tensor:
    """Set the constants of rules that measure them: one forward pass, each sub-layer before its own ``write``.

    Args:
        stack: its rules, if of a :class:`~deepnet_edu.residual.Calibrated` kind, are changed; others only computed.
        x: (B, T, d_model), the stack's input.
        context: padding and memory.

    Returns:
        The stack's output, (B, T, d_model).
    """
    if not stack.layers:
        return x
    below: float | None = None

    def measuring_first(rule: Calibrated) -> Callable[[State, Tensor], State]:
        write = rule.write

        def measured(state: State, branch: Tensor) -> State:
            nonlocal below
            below = rule.calibrate(state, branch, below)
            return write(state, branch)

        return measured

    rules = [sublayer.residual for sublayer in stack.sublayers() if isinstance(sublayer.residual, Calibrated)]
    own = [{name: verb for name, verb in vars(rule).items() if name == "write"} for rule in rules]
    try:
        # The layers run as they are, edited or not; only the verb is told to measure first.
        for rule in rules:
            vars(rule)["write"] = measuring_first(rule)
        state = stack.start(x)
        for layer in stack.layers:
            state = unwrapped(layer)(state, context)
        return stack.finish(state)
    finally:
        for rule, verb in zip(rules, own, strict=True):
            del vars(rule)["write"]
            vars(rule).update(verb)
