"""Which sub-layers one kernel may join: those whose rule says so, once it was compared with the plain layer.

A rule offers itself by :meth:`~deepnet_edu.residual.Residual.signal`. It is believed when copies of the layers, one of
each kind, gave the same outputs and gradients both ways, in float64, with random weights and another α than their own.
Before each pass the stack is looked through for changes, as for the fast path, and after one it is read and compared
again. α itself is read from its buffer by the kernel, so that one that changes needs no comparison.
"""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules import module as hooks_of_all
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from deepnet_edu.model.attention import Context
from deepnet_edu.model.code import Code
from deepnet_edu.model.fused import operator
from deepnet_edu.model.fused.join import Join
from deepnet_edu.model.snapshot import Snapshot, Unknown
from deepnet_edu.model.tracing import transformed
from deepnet_edu.residual import Scheduled

#: A stack whose layers are of more kinds is not compared.
KINDS = 8
#: How far the two may be apart, relative to the largest number of a tensor, in float64.
APART = 1e-9
BATCH, TOKENS, ALPHA = 2, 5, 1.7
_HOOKS_OF_ALL = [f"_global_{when}_hooks" for when in ("forward", "forward_pre", "backward", "backward_pre")]


class Plan:
    """What was read of a stack: whether its sub-layers may be joined by a kernel, and why not. A copy reads for itself.

    Attributes:
        why_not: a clause, empty if they may.
    """

    def __init__(self, stack: Any) -> None:
        self.why_not, self.snapshot = "", Snapshot()
        # What is compared is planned here too, and nowhere else.
        for sublayer in stack.sublayers():
            sublayer.join = None
        try:
            kinds = self._read(stack)
            self.snapshot.numbers.clear()  # the kernel reads them
            self.snapshot.close(stack, Code(type(stack), ("plain", "between")))
            self.why_not = _differs(kinds)
        except Unknown as error:
            self.why_not = str(error)
        if self.why_not:
            for sublayer in stack.sublayers():
                sublayer.join = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()

    def holds(self) -> bool:
        """Whether nothing has changed. What was refused stays so until the stack is set to run in another mode."""
        return bool(self.why_not) or self.snapshot.holds(parameters=False)

    def _read(self, stack: Any) -> list[Any]:
        """Plan all sub-layers; returns one layer of each kind."""
        from deepnet_edu.model.layer import SubLayer, TransformerLayer

        kinds: dict[Any, Any] = {}
        for layer in stack.layers:
            if not isinstance(layer, TransformerLayer):  # another rank's, or another author's
                continue
            subs = [sublayer for sublayer in layer.children() if isinstance(sublayer, SubLayer)]
            for below, above in zip(subs, [*subs[1:], None], strict=True):
                below.join = _join(below.residual, None if above is None else above.residual)
            forms = [None if s.join is None else replace(s.join, norm=()) for s in subs]
            if len(subs) != len(layer._modules):
                raise Unknown(f"a {type(layer).__name__} has parts other than sub-layers")
            key = tuple(self.snapshot.add(module) for module in layer.modules())
            kinds.setdefault((key, *forms), layer)
        if not any(sub.join for layer in kinds.values() for sub in layer.children()):
            raise Unknown("its rule is neither LN(αx + F) nor Pre-LN's sum")
        if len(kinds) > KINDS:
            raise Unknown(f"its layers are of {len(kinds)} kinds, and it compares no more than {KINDS}")
        return list(kinds.values())


def _join(rule: Any, above: Any) -> Join | None:
    """How a kernel could do what ``rule`` writes and, in the same layer, the rule ``above`` reads."""
    signal = _form(rule)
    if signal is None:
        return None
    alpha = rule.on_skip if rule.on_skip and signal.skip == rule.current(rule.on_skip) else ""
    if not alpha and signal.skip != 1:
        return None
    reads = None if above is None else _form(above)
    if signal.norm_sum:
        norm = _norm(rule)
        hand_on = reads is not None and not reads.norm_read
        return None if norm is None else Join((norm,), alpha, hand_on=hand_on)
    norm = _norm(above) if reads is not None and reads.norm_read and not reads.norm_sum else None
    return None if norm is None else Join((norm,), alpha, total=True)


def _form(rule: Any) -> Any:
    """What a rule says of itself, if that is what the kernel could do."""
    if isinstance(rule, Scheduled) or not type(rule).says("signal") or rule._parameters or rule.lowest is not rule:
        return None
    signal = rule.signal()
    other = signal is None or signal.norm_branch or signal.relative or signal.branch != 1 or signal.read != 1
    return None if other else signal


def _norm(rule: Any) -> nn.Module | None:
    """The norm of a rule, if the kernel knows it."""
    norm = rule._modules.get("norm")
    known = type(norm) in (nn.LayerNorm, nn.RMSNorm) and norm.weight is not None and norm.eps is not None
    return norm if known and len(norm.normalized_shape) == 1 else None


def joining(stack: Any, x: Tensor, context: Context) -> tuple[Context, str]:
    """The context for layers that kernels may join, and an empty string; or the same context, and why they may not.

    Args:
        stack: a :class:`~deepnet_edu.model.stack.Stack` with layers.
        x: a tensor of its state.
        context: as the stack got it.

    Raises:
        ValueError: ``norm_kernel="yes"`` was asked for.
    """
    asked = stack.mode.norm_kernel
    why = "it was not asked for" if asked == "no" else operator.why_not(x) or _why_not(stack)
    if why and asked == "yes":
        raise ValueError(f"norm_kernel='yes': {why}. Use norm_kernel='auto', which then runs the plain layer.")
    if why:
        return context, why
    return replace(context, fused=replace(context, bare=True)), ""


def _why_not(stack: Any) -> str:
    if stack.observer is not None:
        return "an observer looks at each sub-layer"
    if others := transformed():
        return others
    if any(getattr(hooks_of_all, name) for name in _HOOKS_OF_ALL):
        return "there are hooks on all modules"
    if any(not isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack()):
        return "functions are being replaced by a TorchFunctionMode"
    if stack.plan is None or not stack.plan.holds():
        stack.plan = Plan(stack)
    return str(stack.plan.why_not)


def _differs(layers: list[Any]) -> str:
    """What differs between layers joined by the kernel and plain ones, a clause; empty if nothing."""
    for layer in layers:
        try:
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                saved_tensors_hooks(_same, _same),
                torch.autocast(next(layer.parameters()).device.type, enabled=False),
            ):
                found = _compared(layer)
        except Exception as error:  # whatever the layer raises, it will raise by itself, and be heard
            found = f"which ended with {type(error).__name__}"
        if found:
            return f"it was compared with the plain layer, {found}"
    return ""


def _compared(layer: Any) -> str:
    twin = copy.deepcopy(layer).double().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    device, d = next(twin.parameters()).device, twin.ffn.branch.last.weight.shape[0]

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(device)

    with torch.no_grad():
        for parameter in twin.parameters():
            spread = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.3
            parameter.copy_(spread * noise(*parameter.shape) + (parameter.dim() < 2))
    for sublayer in twin.children():
        sublayer.dropout = 0.0
        if sublayer.join is not None and sublayer.join.alpha:
            getattr(sublayer.residual, sublayer.join.alpha).fill_(ALPHA)
    x, memory, dy = (noise(BATCH, TOKENS, d) for _ in range(3))
    inputs = {"the input": x.requires_grad_(), "the memory": memory.requires_grad_(), **dict(twin.named_parameters())}
    plain = Context(memory=memory)
    ways = []
    for context in (plain, replace(plain, fused=replace(plain, bare=True))):
        (y,) = twin((x,), context)
        ways.append((y, *torch.autograd.grad(y, list(inputs.values()), dy, allow_unused=True)))
    largest = max(one.abs().max().item() for one in ways[0][1:] if one is not None)
    for name, ours, theirs in zip(["output", *(f"gradient of {key}" for key in inputs)], *ways, strict=True):
        if ours is None and theirs is None:
            continue
        a, b = (torch.zeros((), device=device) if one is None else one.detach() for one in (ours, theirs))
        apart = ((a - b).abs().max() / a.abs().max().clamp_min(0.01 * largest)).item()
        if not apart <= APART:
            return f"and the {name} differs: {apart:.1g} apart, relative"
    return ""


def _same(x: Any) -> Any:
    return x
