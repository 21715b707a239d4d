"""The stack as one node of autograd's graph: forward and backward."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from deepnet_edu.model.attention import Context
from deepnet_edu.model.fast.branches import Work, compiled, workplace
from deepnet_edu.model.fast.parts import FastNorm
from deepnet_edu.model.fast.reading import Reading, Sub


class Observer(Protocol):
    """An observer that is shown the stream on its way up."""

    def enters(self, stack: Any, x: Tensor) -> None:
        """A stack's input, (B, T, d_model)."""

    def saw(self, sublayer: nn.Module, stream: Tensor) -> None:
        """The stream behind a sub-layer, (B, T, d_model)."""

    def saw_norm(self, sublayer: nn.Module, inverse: Tensor) -> None:
        """1/σ of what a sub-layer's norm reads, by token, (B·T,) or (B·T, 1)."""


class StepBuffers:
    """What a training run keeps from step to step, so that a step asks for no memory: the tensors of a forward pass.

    It also says that gradients are added to each parameter's ``grad`` at once, instead of being handed to autograd. The
    optimizer that owns those gradients lends it to a stack for the time of a step.
    """

    def __init__(self) -> None:
        self.readings: dict[bool, Reading] = {}
        self.signature: tuple[Any, ...] = ()
        self.work: Work = {}
        self.saved: list[list[Tensor]] = []
        self.ends: Tensor | None = None
        self.scratch: list[Tensor] = []
        self.count = 0  # of the last forward pass that wrote to ``saved``


class StackRun:
    """One forward pass of a stack, and the backward pass that follows it. Streams are (B·T, d_model) here."""

    def __init__(self, stack: Any, reading: Reading, x: Tensor, memory: Tensor | None, train: bool) -> None:
        self.stack, self.reading, self.shape = stack, reading, x.shape
        self.subs, self.top, self.weights = reading.subs, reading.top, reading.weights
        # One group of all layers would be recomputed whole and save nothing.
        self.every = min(stack.checkpoint_every * reading.per_layer or len(self.subs), len(self.subs))
        # What is hung on a gradient must see it, so then it goes by way of autograd.
        owned = train and stack.step_buffers is not None and all(map(_plainly_owned, self.weights))
        self.buffers: StepBuffers | None = stack.step_buffers if owned else None
        layer = self.subs[: reading.per_layer]
        library, self.how = compiled(x, [sub.branch for sub in layer])
        for part in reading.parts:
            part.library = library
        B, T = x.shape[:2]
        S = T if memory is None else memory.shape[1]
        signature = (reading, x.shape, S, x.dtype, self.every, len(self.subs), library is None)
        self.saved: list[list[Tensor]] = []
        if self.buffers is not None and self.buffers.signature == signature:
            self.work, self.saved, self.scratch = self.buffers.work, self.buffers.saved, self.buffers.scratch
        else:
            self.scratch = [x.new_empty(B * T, x.shape[2]) for _ in range(4)] + list(x.new_empty(2, B * T))
            self.work = {sub.kind: workplace(library, sub.branch, B, T, S, x) for sub in layer}
        if self.buffers is not None:
            if self.buffers.signature != signature:
                self.buffers.signature, self.buffers.ends = signature, None
            self.buffers.scratch = self.scratch
            self.buffers.work, self.buffers.saved = self.work, self.saved
            self.buffers.count += 1
            self.count = self.buffers.count
        self.ends: Tensor | None = None if self.buffers is None else self.buffers.ends
        self.passing: dict[str, list[Tensor]] = {}
        self.states: list[Tensor] = []  # what enters each group of layers, and what leaves the last

    def bind(self, gradients: list[Tensor]) -> None:
        """Where the gradients of ``weights`` are added; nowhere any more, where there are none."""
        for i, part in enumerate(self.reading.parts):
            part.d_weight, part.d_bias = gradients[2 * i : 2 * i + 2] if gradients else (None, None)

    def allocate(self, subs: list[Sub], x: Tensor) -> None:
        """Make the tensors that a backward pass through ``subs`` reads, where they are not there yet."""
        for sub in subs[len(self.saved) :]:
            self.saved.append([x.new_empty(shape) for shape in [x.shape, *self.work[sub.kind].saved]])

    def forward(self, x: Tensor, memory: Tensor | None, train: bool) -> Tensor:
        """The stack's output; with ``train``, so that ``backward`` can follow."""
        u, m = self.flat(x), self.flat(memory)
        observer: Observer | None = self.stack.observer
        if observer is not None:
            observer.enters(self.stack, x)
        keep = train and self.every == len(self.subs)
        if keep:
            self.allocate(self.subs, u)
        elif train and self.ends is None:
            self.ends = u.new_empty(-(-len(self.subs) // self.every), *u.shape)
            if self.buffers is not None:
                self.buffers.ends = self.ends
        self.states.append(u)
        for group, first in enumerate(range(0, len(self.subs), self.every)):
            end = self.ends[group] if self.ends is not None else None
            u = self.forward_through(u, m, self.subs[first : first + self.every], keep, end, observer)
            self.states.append(u)
        y, _, inverse = self.top.forward(u)
        if observer is not None:
            self.show(observer, self.top, inverse, y, self.subs[-1].after)
        return y.view(self.shape)

    def flat(self, x: Any) -> Any:
        """(B, T, d_model) → (B·T, d_model); None stays None."""
        return None if x is None else x.reshape(-1, x.shape[-1]).contiguous()

    def show(self, observer: Observer, norm: FastNorm, inverse: Tensor, s: Tensor, after: bool) -> None:
        """A norm at work; behind the sum, it returns the stream."""
        if norm.owner is not None:
            observer.saw_norm(norm.owner, inverse)
            if after:
                self.saw(observer, norm.owner, s)

    def saw(self, observer: Observer, module: Any, s: Tensor) -> None:
        """The stream after a sub-layer, as its rule shows it."""
        observer.saw(module, module.residual.stream((s.view(self.shape),)))

    def forward_through(
        self,
        u: Tensor,
        memory: Any,
        subs: list[Sub],
        keep: bool,
        end: Tensor | None = None,
        observer: Observer | None = None,
        again: bool = False,
    ) -> Tensor:
        """Forward from the u below ``subs`` to the one above.

        Args:
            u, memory: (B·T, d_model), (B·S, d_model).
            subs: these sub-layers.
            keep: what their backward pass reads, in ``saved``.
            end: where the last u goes, if it matters.
            observer: sees the stream.
            again: for that backward pass alone, so that nothing after the last thing it reads is computed.
        """
        scratch, last = (self.scratch[0], self.scratch[4], self.scratch[5]), len(subs) - 1
        if not keep and not self.passing:
            self.passing = {kind: [u.new_empty(shape) for shape in work.saved] for kind, work in self.work.items()}
        for i, sub in enumerate(subs):
            out, saved = (self.saved[i][0], self.saved[i][1:]) if keep else (None, self.passing[sub.kind])
            if end is not None and i == last:
                out = end
            # What an observer has seen must stay as it is.
            s = u
            if sub.norm is not None:
                s, _, inverse = sub.norm.forward(u, scratch if observer is None else None)
                if observer is not None:
                    self.show(observer, sub.norm, inverse, s, sub.after)
            work = self.work[sub.kind]
            work.fill(sub, s, memory, saved)
            if again and i == last:
                break
            u = sub.add(s if sub.after else u, work.inner(saved), out)
            if observer is not None and not sub.after:
                self.saw(observer, sub.module, u)
        return u

    def backward(self, dy: Tensor, memory: Tensor | None, train: bool) -> tuple[Tensor, Tensor | None]:
        """The gradients of the input and of the memory; with ``train``, those of the weights are added to ``parts``."""
        m = self.flat(memory)
        d_memory = None if m is None else torch.zeros_like(m)
        u = self.states.pop()
        _, mean, inverse = self.top.forward(u)
        g = self.top.backward(self.flat(dy), u, mean, inverse, train, self.scratch[2])
        for first in range((len(self.states) - 1) * self.every, -1, -self.every):
            subs, u = self.subs[first : first + self.every], self.states.pop()
            if self.every < len(self.subs):
                self.allocate(subs, u)
                self.forward_through(u, m, subs, keep=True, again=True)
            g = self.backward_through(g, u, subs, m, d_memory, train)
        g = g.view(self.shape).clone()
        return g, None if memory is None or d_memory is None else d_memory.view(memory.shape)

    def backward_through(
        self, g: Tensor, u: Tensor, subs: list[Sub], memory: Any, d_memory: Any, train: bool
    ) -> Tensor:
        """Backward from the gradient of the u above ``subs`` to that of the one below, which is ``u``."""
        s, d_s, one, other, mean, inverse = self.scratch
        norm_out = (s, mean, inverse)
        for i in reversed(range(len(subs))):
            sub, work, saved = subs[i], self.work[subs[i].kind], self.saved[i][1:]
            below = self.saved[i - 1][0] if i else u
            s, mean, inverse = (below, below, below) if sub.norm is None else sub.norm.forward(below, norm_out)
            f = g if sub.scale == 1 else g * sub.scale
            torch.mm(f, sub.last.weight, out=work.d_inner)
            inner, d = work.backward(sub, saved, memory, d_memory, train)
            if train:
                sub.last.backward(f, inner)
                sub.first.backward(d, s)
            # Post-LN: the skip starts at s, so both paths pass the norm; Pre-LN: only the branch does.
            if sub.after:
                torch.addmm(g, d, sub.first.weight, beta=sub.skip, out=d_s)
            else:
                torch.mm(d, sub.first.weight, out=d_s)
            if sub.norm is None:
                return d_s
            du = sub.norm.backward(d_s, below, mean, inverse, train, out=other if g is one else one)
            g = du if sub.after else du.add_(g, alpha=sub.skip)
        return g


class Node(torch.autograd.Function):
    """The stack in autograd's graph. Inputs: a StackRun, x, the memory or None, and the weights whose gradients are
    wanted, or one of them alone where gradients go to ``grad`` at once."""

    @staticmethod
    def forward(ctx: Any, run: StackRun, x: Tensor, memory: Tensor | None, *weights: Tensor) -> Tensor:
        """The stack's output."""
        y = run.forward(x, memory, train=True)
        ctx.run, ctx.version, ctx.sizes = run, _version(run), [len(one) for one in run.saved]
        if run.buffers is None:  # autograd frees what a backward pass has used, and says so if it is wanted again
            ctx.save_for_backward(x, memory, *run.states, *(tensor for one in run.saved for tensor in one))
            ctx.states, run.states, run.saved = len(run.states), [], []
        else:
            ctx.save_for_backward(x, memory)
            ctx.states = run.states
        return y

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        """Gradients of x, the memory and the weights."""
        run: StackRun = ctx.run
        x, memory, *saved = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted: the plain path has one
            return None, *_differentiable(run, x, memory, dy[0], ctx.needs_input_grad)
        if ctx.version != _version(run) or (run.buffers is not None and run.count != run.buffers.count):
            raise RuntimeError(
                "Weights, or what a training run keeps, have changed since the forward pass: call backward() before "
                "the next one and before the optimizer's step, or choose the plain path: model.use_path('plain')."
            )
        wanted = ctx.needs_input_grad[3:]
        if run.buffers is not None:
            run.states = list(ctx.states)
            run.bind([w.grad for w in run.weights])  # type: ignore[misc]
            return None, *run.backward(dy[0], memory, train=True), None
        run.states, saved = saved[: ctx.states], iter(saved[ctx.states :])
        run.saved = [[next(saved) for _ in range(size)] for size in ctx.sizes]
        gradients: list[Tensor] = []
        with run.reading.lock:
            if any(wanted):
                sizes = [w.numel() for w in run.weights]
                pieces = x.new_zeros(sum(sizes)).split(sizes)
                gradients = [piece.view_as(w) for piece, w in zip(pieces, run.weights, strict=True)]
                run.bind(gradients)
            dx, d_memory = run.backward(dy[0], memory, train=any(wanted))
            # Autograd takes what nothing else holds, and copies the rest.
            run.saved = []
            run.bind([])
        return None, dx, d_memory, *(gradients[i] if need else None for i, need in enumerate(wanted))


def _plainly_owned(weight: nn.Parameter) -> bool:
    """Whether a gradient can be added to ``grad`` without a visible difference."""
    return weight.grad is not None and not weight._backward_hooks and not weight._post_accumulate_grad_hooks


def _version(run: StackRun) -> int:
    """Changes when a weight is changed in place."""
    return sum(w._version for w in run.weights)


def _differentiable(run: StackRun, x: Tensor, memory: Tensor | None, dy: Tensor, needed: Sequence[bool]) -> list[Any]:
    """The gradients as functions of their inputs, by the plain path."""
    inputs = [x, memory, *run.weights][: len(needed) - 1]
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # its other kernels have no second derivative
        stack = run.stack
        y = stack.finish(stack.between((x,), Context(memory=memory), 0, len(stack.layers)))
    wanted = [tensor for tensor, need in zip(inputs, needed[1:], strict=True) if need]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True, allow_unused=True))  # type: ignore[arg-type]
    return [next(found) if need else None for need in needed[1:]]
