"""What of a stack the fast path knows, and the stack as the fast path sees it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.attention import Context, MultiHeadAttention
from deepnet_edu.fast import native
from deepnet_edu.fast.parts import Matrix, Norm
from deepnet_edu.residual import RESIDUALS, Residual
from deepnet_edu.transformer import SubLayer, TransformerLayer

#: The rules that the fast path knows, each exactly as it is: where the skip starts, and its constants skip and scale,
#: by name, None for 1.
RULES: dict[str, tuple[str, str | None, str | None]] = {
    "post_ln": ("after", None, None),
    "ds_init": ("after", None, None),
    "deepnorm": ("after", "alpha", None),
    "deepnorm_glm": ("after", "alpha", None),
    "pre_ln": ("before", None, None),
    "complete_p": ("before", None, "branch_scale"),
    "depth_mup": ("before", None, "branch_scale"),
    "deepscale_lm": ("before", "skip", "beta"),
}
_KNOWN: dict[type[Residual], tuple[str, str | None, str | None]] = {RESIDUALS[name]: how for name, how in RULES.items()}
#: Longer sequences are better served by PyTorch's attention, which keeps no weights.
LONGEST = native.LONGEST


class Sub:
    """A sub-layer as this file sees it; ``norm`` stands in front of its branch, wherever it comes from."""

    __slots__ = ("after", "branch", "first", "kind", "last", "memory", "module", "norm", "parts", "scale", "skip")
    memory: Matrix

    def __init__(self, module: Any, norm: Norm | None) -> None:
        branch, rule = module.branch, module.residual
        start, skip, scale = _KNOWN[type(rule)]
        self.module, self.branch, self.norm, self.kind = module, branch, norm, rule.place.sublayer
        self.after = start == "after"
        self.skip = 1.0 if skip is None else rule.constants[skip]
        self.scale = 1.0 if scale is None else rule.constants[scale]
        self.parts: list[Matrix | Norm] = [] if norm is None else [norm]
        if self.kind == "ffn":
            self.first, self.last = Matrix(branch.ffn_in), Matrix(branch.ffn_out)
        elif self.kind == "self_attention":
            self.first, self.last = Matrix(branch.qkv), Matrix(branch.output)
        else:
            self.first, self.last, self.memory = Matrix(branch.query), Matrix(branch.output), Matrix(branch.key_value)
            self.parts.append(self.memory)
        self.parts += [self.first, self.last]

    def add(self, start: Tensor, inner: Tensor, out: Tensor | None) -> Tensor:
        """u = skip·start + scale·(inner·Wᵀ + b)."""
        bias = self.last.bias if self.scale == 1 else self.last.bias * self.scale
        return torch.add(bias, start, alpha=self.skip, out=out).addmm_(inner, self.last.transposed, alpha=self.scale)


class Reading:
    """A stack's sub-layers from the bottom up, and the norm at its top.

    Attributes:
        subs, top: these.
        parts: all matrices and norms.
        weights: their parameters, weight and bias in turn.
        looks_up: whether there are cross-attentions.
        hooks: what must stay empty for the reading to hold.
        training: the mode that the stack was read in.
    """

    def __init__(self, stack: Any, subs: list[Sub], hooks: list[Any]) -> None:
        self.subs, self.hooks, self.training = subs, hooks, stack.training
        rule = subs[-1].module.residual
        self.top = Norm(rule.norm, subs[-1].module) if subs[-1].after else Norm(rule.final_norm, None)
        self.parts = [part for sub in subs for part in sub.parts] + [self.top]
        self.weights: list[nn.Parameter] = [w for part in self.parts for w in (part.weight, part.bias)]
        self.per_layer = len(subs) // len(stack.layers)
        self.looks_up = any(sub.kind == "cross_attention" for sub in subs[: self.per_layer])

    def holds(self, stack: Any) -> bool:
        """Whether the stack can be taken as read, in a training run that has not replaced its parts."""
        return self.training == stack.training and not any(self.hooks)


def transformed() -> str:
    """Who else reads the operations now: a compiler, a tracer, a transformation such as vmap, a mode that counts them.

    Returns:
        A clause, empty if nobody does. Then values may be looked at, and products may be written where they belong.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return "the model is being compiled or transformed"
    if torch.jit.is_tracing() or torch.autograd.forward_ad._current_level >= 0:
        return "the model is being traced, or differentiated forward"
    if torch._C._len_torch_dispatch_stack():
        return "operations are being counted or replaced by a TorchDispatchMode, which must see all of them"
    return ""


def why_not(stack: Any, x: Tensor, context: Context) -> str:
    """What the fast path does not know about an input or what was asked for, a clause; empty if nothing."""
    if stack.compiled is not None:
        return "a compiled layer was asked for"
    if stack.offload:
        return "what checkpoints keep was sent to the CPU's memory, and it keeps its own"
    if others := transformed():
        return others
    if x.device.type != "cpu":
        return f"it was measured on the CPU only, and x is on {x.device}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on, and it computes in the precision of x"
    if type(x) is not Tensor or x.dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 or float64, and x is {x.dtype}"
    if context.cache is not None or context.turn is not None:
        return "there is a key/value cache, or positions are rotary"
    if context.padding is not None or context.memory_padding is not None:
        return "there is padding"
    longest = max(x.shape[1], 0 if context.memory is None else context.memory.shape[1])
    if not x.numel() or longest > LONGEST:
        return f"sequences have {longest} tokens, and it knows 1 to {LONGEST}"
    return ""


def read(stack: Any, x: Tensor, memory: Tensor | None) -> Reading | str:
    """The stack, or what the fast path does not know about it."""
    subs: list[Sub] = []
    hooks: list[Any] = []
    for layer in stack.layers:
        kind = type(layer)
        if kind is not TransformerLayer:
            return f"it does not know {kind.__name__} in place of a layer"
        if not _untouched(layer, hooks):
            return "a layer has a hook, or a method of its own"
        for sublayer in layer._modules.values():
            reason = _stranger(sublayer, memory, hooks)
            if reason:
                return reason
            before = _KNOWN[type(sublayer.residual)][0] == "before"
            owner = sublayer if before else subs[-1].module if subs else None
            subs.append(Sub(sublayer, None if owner is None else Norm(owner.residual.norm, owner)))
    if subs[0].first.weight.dtype != x.dtype:
        return f"x is {x.dtype} and the weights are {subs[0].first.weight.dtype}"
    return Reading(stack, subs, hooks)


def _stranger(sublayer: Any, memory: Tensor | None, hooks: list[Any]) -> str:
    """What is unknown about a sub-layer, empty if nothing."""
    kind = type(sublayer)
    if kind is not SubLayer:
        return f"it does not know {kind.__name__} in place of a sub-layer"
    branch, rule = sublayer._modules["branch"], sublayer._modules["residual"]
    if type(rule) not in _KNOWN:
        return f"it does not know the rule {rule.title}"
    if sublayer.training and (sublayer.dropout or sublayer.drop_branch):
        return "dropout is on"
    if isinstance(branch, MultiHeadAttention):
        inside, activation = branch.inside, F.gelu
        if branch.cross and memory is None:
            return "there is no memory"
    else:
        inside, activation = branch.before or branch.after, branch.activation
        if branch.gated:
            return "it does not know SwiGLU"
    if inside is not None or activation not in (F.gelu, F.relu):
        return "a branch has a module of its own inside, or another activation"
    inner = [*branch._modules.values(), *rule._modules.values()]
    touched = [
        module for module in (sublayer, branch, rule, *inner) if module is not None and not _untouched(module, hooks)
    ]
    if touched:
        return "a sub-layer has a hook, or a method of its own"
    for module in inner:
        if type(module) is nn.LayerNorm or type(module) is nn.Linear:
            parameters = module._parameters
            if type(parameters["weight"]) is not nn.Parameter or type(parameters["bias"]) is not nn.Parameter:
                return f"the parameters of a {type(module).__name__} are no ordinary ones"
        elif module is not None:
            return f"it does not know {type(module).__name__} in this place"
    return ""


def _untouched(module: nn.Module, hooks: list[Any]) -> bool:
    """Whether nobody has hung a hook on a module, or given it a method of its own; where hooks would be goes to
    ``hooks``."""
    own = vars(module)
    where = (own["_forward_hooks"], own["_forward_pre_hooks"], own["_backward_hooks"], own["_backward_pre_hooks"])
    hooks += where
    return not any(where) and own.keys().isdisjoint(_METHODS)


_METHODS = frozenset({"forward", "start", "read", "write", "finish"})
