"""A stack as the fast path sees it, and what of it the fast path does not know.

A layer is known by its parts, and what it does with them by what its rule says of itself, ``signal()``, in the numbers
that it has now. Whether that is what the layer computes is not decided here: :mod:`.proof` compares.
"""

from threading import RLock
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.model.code import Code
from deepnet_edu.model.fast.known import why_unknown
from deepnet_edu.model.fast.parts import FastNorm, Matrix
from deepnet_edu.model.snapshot import Snapshot, Unknown
from deepnet_edu.residual import Signal

#: A sub-layer by the matrices of its branch: the first, the last, and the one for the memory.
BRANCHES = {
    ("ffn_in", "ffn_out"): "ffn",
    ("qkv", "output"): "self_attention",
    ("query", "key_value", "output"): "cross_attention",
}
_ORDINARY = {"weight": nn.Parameter, "bias": nn.Parameter}
#: Up to this many kinds, one layer of each is compared; a stack of more goes by the plain path.
KINDS = 8
#: Of one kind with different numbers, this many layers are compared.
NUMBERS = 4


class Sub:
    """A sub-layer as this folder sees it; ``norm`` is the one before its branch, wherever it comes from."""

    __slots__ = ("after", "branch", "first", "kind", "last", "memory", "module", "norm", "parts", "scale", "skip")
    memory: Matrix

    def __init__(self, module: Any, kind: str, norm: FastNorm | None, signal: Signal) -> None:
        self.module, self.branch, self.norm, self.kind = module, module.branch, norm, kind
        self.after, self.skip, self.scale = signal.norm_sum, signal.skip, signal.branch
        self.parts: list[Matrix | FastNorm] = [] if norm is None else [norm]
        *lower, self.last = (Matrix(inner) for inner in self.branch._modules.values())
        self.first = lower[0]
        if len(lower) > 1:
            self.memory = lower[1]
            self.parts.append(self.memory)
        self.parts += [self.first, self.last]

    def add(self, start: Tensor, inner: Tensor, out: Tensor | None) -> Tensor:
        """u = skip·start + scale·(inner·Wᵀ + b)."""
        bias = self.last.bias if self.scale == 1 else self.last.bias * self.scale
        return torch.add(bias, start, alpha=self.skip, out=out).addmm_(inner, self.last.weight.t(), alpha=self.scale)


class Reading:
    """A stack's sub-layers from the bottom up, and the norm at its top.

    Args:
        stack: a :class:`~deepnet_edu.model.stack.Stack` with layers.
        memory: what its cross-attentions look at, or None.

    Attributes:
        subs, top: sub-layers and norm.
        parts: all matrices and norms.
        weights: their parameters, weight and bias in turn.
        per_layer: sub-layers of a layer.
        looks_up: whether there are cross-attentions.
        compared: the numbers of the layers that are compared with the plain path, some of each kind.
        snapshot: what must stay as it is for the reading to hold.
        proofs: what comparing them has shown, by what it depends on: a reason, empty where they were equal.
        lock: held by a backward pass without buffers of a training run: a part knows one place for its gradients.

    Raises:
        Unknown: there is something that the fast path does not know.
    """

    def __init__(self, stack: Any, memory: Tensor | None) -> None:
        self.subs: list[Sub] = []
        self.snapshot = Snapshot()
        self._branches: dict[str, Any] = {}
        kinds: dict[Any, dict[Any, int]] = {}  # of layers, and of each kind one with these numbers
        for index, layer in enumerate(stack.layers):
            first, numbers = len(self.subs), len(self.snapshot.numbers)
            key = self._layer(layer, memory)
            subs = self.subs[first:]
            values = (*((s.skip, s.scale) for s in subs), *(n.item() for n in self.snapshot.numbers[numbers:]))
            kinds.setdefault(key, {}).setdefault(values, index)
        self.per_layer = len(subs)
        if len({tuple(s.kind for s in self.subs[i : i + len(subs)]) for i in range(0, len(self.subs), len(subs))}) > 1:
            raise Unknown("one layer has other sub-layers than another")
        if len(kinds) > KINDS:
            raise Unknown(f"its layers are of {len(kinds)} kinds, and it compares no more than {KINDS}")
        # Of many numbers, a few from the first layer to the last.
        self.compared = sorted(
            index for one in kinds.values() for index in list(one.values())[:: -(-len(one) // NUMBERS)]
        )
        last = subs[-1]
        self.top = _norm(last.module, "norm") if last.after else _norm(last.module, "final_norm")
        self.parts = [part for sub in self.subs for part in sub.parts] + [self.top]
        self.weights: list[nn.Parameter] = [w for part in self.parts for w in (part.weight, part.bias)]
        if len(set(map(id, self.weights))) < len(self.weights):
            raise Unknown("layers share their weights")
        self.looks_up = any(sub.kind == "cross_attention" for sub in subs)
        self.dtype = last.first.weight.dtype
        self.proofs: dict[Any, str] = {}
        self.lock = RLock()
        self.snapshot.close(stack, Code(type(stack), ("plain",)))

    def _layer(self, layer: Any, memory: Tensor | None) -> tuple[Any, ...]:
        """Read one layer; returns what its code can tell it apart by from another."""
        sublayers = list(layer.children())
        if not sublayers or not all(s._modules.keys() == {"branch", "residual"} for s in sublayers):
            raise Unknown(f"it does not know {type(layer).__name__} in place of a layer")
        keys = [self._seen(layer)]
        for sublayer in sublayers:
            branch, rule = sublayer.branch, sublayer.residual
            signal = form(rule)
            if sublayer.training and sublayer.dropout:
                raise Unknown("dropout is on")
            kind = _kind(branch)
            if kind == "cross_attention" and memory is None:
                raise Unknown("there is no memory")
            inside = [self._seen(branch), *map(self._inner, branch._modules.values())]
            if self._branches.setdefault(kind, inside) != inside:
                raise Unknown(f"the {kind.replace('_', '-')} of one layer is unlike that of another")
            below = self.subs[-1] if self.subs else None
            if below is not None and below.after != signal.norm_sum:
                raise Unknown("norms are in other places in one layer than in another")
            norms = [self._inner(norm) for norm in rule._modules.values() if norm is not None]
            keys += [kind, *inside, self._seen(sublayer), self._seen(rule), *norms]
            owner = sublayer if not signal.norm_sum else None if below is None else below.module
            self.subs.append(Sub(sublayer, kind, None if owner is None else _norm(owner, "norm"), signal))
        return tuple(keys)

    def _seen(self, module: Any) -> Any:
        """What is read of a module that is neither norm nor matrix."""
        for name in module._parameters:
            raise Unknown(f"{type(module).__name__} learns {name}")
        return self.snapshot.add(module)

    def _inner(self, module: Any) -> Any:
        """What is read of a norm or a matrix."""
        if type(module) is not nn.LayerNorm and type(module) is not nn.Linear:
            raise Unknown(f"it does not know {type(module).__name__} in this place")
        if module._parameters.get("bias", module) is None:
            raise Unknown("its matrices have no biases")
        if {name: type(p) for name, p in module._parameters.items()} != _ORDINARY:
            raise Unknown(f"the parameters of a {type(module).__name__} are not ordinary ones")
        return self.snapshot.add(module)


def _kind(branch: Any) -> str:
    """The kind of a branch, by its matrices."""
    if getattr(branch, "gated", False):
        raise Unknown("it does not know a gate (SwiGLU, GEGLU)")
    if getattr(branch, "queries_per_key", 1) != 1:
        raise Unknown("it does not know grouped queries")
    kind = BRANCHES.get(tuple(branch._modules))
    if kind is None or (kind == "ffn" and branch.activation not in (F.gelu, F.relu)):
        raise Unknown("a branch has a module of its own inside, or another activation")
    return kind


def _norm(sublayer: Any, name: str) -> FastNorm:
    """A norm of a sub-layer's rule."""
    norm = sublayer.residual._modules.get(name)
    if norm is None:
        raise Unknown(f"the rule {sublayer.residual.title} has no {name}")
    return FastNorm(norm, None if name == "final_norm" else sublayer)


def form(rule: Any) -> Signal:
    """What a rule says of itself, in the numbers that it has now.

    Raises:
        Unknown: the fast path cannot compute that.
    """
    vectors = [name for name, buffer in rule._buffers.items() if buffer is not None and buffer.numel() != 1]
    signal = None if rule._parameters or vectors else rule.signal()
    if rule._parameters:
        why = f"which learns {' and '.join(rule._parameters)}"
    elif vectors:
        why = f"whose {vectors[0]} is not one number"
    else:
        why = why_unknown(rule, signal)
    if why:
        raise Unknown(f"it does not know the rule {rule.title}, {why}")
    return cast(Signal, signal)
