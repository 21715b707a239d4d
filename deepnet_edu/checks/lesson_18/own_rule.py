"""The judge of a residual rule of the learner's own, ``LambdaSkip`` (lesson 18), through the four verbs of a rule."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.trial import TYPE
from deepnet_edu.residual import Residual, places

_D = 6


class _Sublayer(NamedTuple):
    """What the written-out rule needs to know of one sub-layer."""

    attention: bool
    norm: nn.Module
    skip: Any
    first: Any
    branch: Callable[[Tensor], Tensor]


def LambdaSkip(trial: Trial) -> None:
    """At the sub-layer "self_attention" the stream x becomes skip * x + first * x0; read returns self.norm of that,
    write adds the branch to it and keeps x0, finish is self.final_norm. With t = layer / max(1, n_layers - 1), skip
    starts as 1.15 - 0.10 * t and first as 0.20 - 0.15 * t, both nn.Parameter.
    """
    said = "A rule is a class that inherits from Residual: the registry reads its title and its formula."
    trial.require(isinstance(trial.call(next(places("decoder", 0, 1)), _D), Residual), said, rung=TYPE)
    for layers, disturbed in ((3, False), (5, False), (2, False), (1, False), (4, True)):
        rules = _rules(trial, layers)
        draw = torch.Generator().manual_seed(layers)
        stack = [_sublayer(rule, layers, draw, disturbed) for rule in rules]
        x0 = torch.randn(2, 3, _D, generator=draw, dtype=torch.float64)
        ends = rules[-1].final_norm
        got = _run(trial, rules, stack, x0)
        wrong = _wrong(stack, x0, ends, layers) if not disturbed else []
        said = (
            "The stack returns a wrong value."
            if not disturbed
            else "The present values of skip and first are not used."
        )
        trial.equal(got, _right(stack, x0, ends), wrong, said)
        for rule in rules[::2]:
            for name in ("skip", "first"):
                number = isinstance(getattr(rule, name, None), nn.Parameter)
                trial.require(number, f"{name} is learned: make it an nn.Parameter of the rule.")
        leaves = {
            f"{name}, layer {i}": getattr(rules[2 * i], name) for i in (0, layers - 1) for name in ("skip", "first")
        }
        trial.gradients(
            lambda rules=rules, stack=stack, x0=x0: _run(trial, rules, stack, x0),  # type: ignore[misc]
            lambda stack=stack, x0=x0, ends=ends: _right(stack, x0, ends),  # type: ignore[misc]
            leaves,
        )
    (rule, *_) = (trial.call(place, _D) for place in places("decoder", 0, 1, "rms"))
    said = "Make norms by self.norm_layer(): the model says which kind."
    trial.require(isinstance(rule.norm, nn.RMSNorm), said, "RMSNorm", type(rule.norm).__name__)


def _rules(trial: Trial, layers: int) -> list[Any]:
    rules: list[Any] = []
    for place in places("decoder", 0, layers):
        rule = trial.call(place, _D)
        trial.require(
            isinstance(rule, nn.Module), "Let super().__init__(place, d_model) be the first line of __init__."
        )
        rules.append(rule.double())
        trial.require(isinstance(getattr(rule, "norm", None), nn.Module), "Every sub-layer needs self.norm.")
    said = "At the last place of the stack self.final_norm is a norm of its own: the norm at the end is missing."
    last = getattr(rules[-1], "final_norm", None)
    trial.require(isinstance(last, nn.Module) and last is not rules[-1].norm, said)
    for rule in rules[::2]:
        has = all(getattr(rule, name, None) is not None for name in ("skip", "first"))
        trial.require(has, "A layer's first sub-layer, self_attention, needs self.skip and self.first.")
    return rules


def _sublayer(rule: Any, layers: int, draw: torch.Generator, disturbed: bool) -> _Sublayer:
    """Norms with gains and biases that differ, and a branch; with ``disturbed``, λ and μ that differ, too."""
    weight = torch.randn(_D, _D, generator=draw, dtype=torch.float64)
    for norm in (rule.norm, getattr(rule, "final_norm", None)):
        for parameter in norm.parameters() if norm is not None else ():
            parameter.data = 1 + 0.5 * torch.randn(_D, generator=draw, dtype=torch.float64)
    attention = rule.place.sublayer == "self_attention"
    t = rule.place.layer / max(1, layers - 1)
    skip: Any = 1.15 - 0.10 * t
    first: Any = 0.20 - 0.15 * t
    if attention and disturbed:
        for name, value in (("skip", 0.7), ("first", -0.4)):
            one = getattr(rule, name)
            if isinstance(one, nn.Parameter):
                one.data = torch.full_like(one, value - rule.place.layer / 10)
        skip, first = rule.skip, rule.first
    elif attention and isinstance(rule.skip, nn.Parameter) and isinstance(rule.first, nn.Parameter):
        # The right value, with the learner's leaf in its graph for the gradient.
        skip, first = skip + rule.skip - rule.skip.detach(), first + rule.first - rule.first.detach()
    return _Sublayer(attention, rule.norm, skip, first, lambda y: (y @ weight).tanh())


def _run(trial: Trial, rules: list[Any], stack: list[_Sublayer], x0: Tensor) -> Tensor:
    """The learner's rule, verb by verb."""

    def verb(rule: Any, name: str, *given: Any) -> Any:
        try:
            found = getattr(rule, name)(*given)
        except Exception as error:
            trial.fail(f"{name} raised {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        trial.require(found is not None, f"{name} returns nothing: is there a return at its end?", rung=TYPE)
        return found

    x = x0.clone()
    state = verb(rules[0], "start", x)
    for rule, sublayer in zip(rules, stack, strict=True):
        trial.require(
            isinstance(state, tuple), "A state is a tuple of tensors, as start and write return it.", rung=TYPE
        )
        state = verb(rule, "write", state, sublayer.branch(verb(rule, "read", state)))
    found: Tensor = verb(rules[-1], "finish", state)
    trial.require(torch.equal(x, x0), "A verb changed the stack's input in place: x₀ must pass unchanged.")
    return found


def _right(stack: list[_Sublayer], x0: Tensor, final: nn.Module) -> Tensor:
    x = x0
    for one in stack:
        x = one.skip * x + one.first * x0 if one.attention else x
        x = x + one.branch(one.norm(x))
    found: Tensor = final(x)
    return found


def _mix(one: _Sublayer, x: Tensor, e: Tensor) -> Tensor:
    mixed: Tensor = one.skip * x + one.first * e
    return mixed


def _wrong(stack: list[_Sublayer], x0: Tensor, final: nn.Module, layers: int) -> list[Misconception]:
    with torch.no_grad():
        unmixed = every = behind = lost = drifted = late = clones = swapped = added = x0
        last = mixed = x0
        for i, one in enumerate(stack):
            layer = i // 2
            mix = partial(_mix, one)
            unmixed = (mix(unmixed, x0) if one.attention else unmixed) + one.branch(one.norm(unmixed))
            every = mix(every, x0)
            every = every + one.branch(one.norm(every))
            behind = behind + one.branch(one.norm(behind))
            behind = mix(behind, x0) if one.attention else behind
            lost, last = (mix(lost, last), lost) if one.attention else (lost, last)
            lost = lost + one.branch(one.norm(lost))
            drifted = mix(drifted, mixed) if one.attention else drifted
            mixed = drifted if one.attention else mixed
            drifted = drifted + one.branch(one.norm(drifted))
            t = (layer + 1) / layers
            late = (1.15 - 0.10 * t) * late + (0.20 - 0.15 * t) * x0 if one.attention else late
            late = late + one.branch(one.norm(late))
            clones = 1.15 * clones + 0.20 * x0 if one.attention else clones
            clones = clones + one.branch(one.norm(clones))
            swapped = one.first * swapped + one.skip * x0 if one.attention else swapped
            swapped = swapped + one.branch(one.norm(swapped))
            added = added + one.branch(one.norm(mix(added, x0) if one.attention else added))
        x = x0
        for one in stack:
            x = one.skip * x + one.first * x0 if one.attention else x
            x = x + one.branch(one.norm(x))
        kept = "x₀ must pass unchanged, as the state's second tensor:"
        return [
            Misconception(final(unmixed), "The branch must see the mixed stream."),
            Misconception(final(added), "The stream itself must be mixed, too, and not only what the branch reads."),
            Misconception(final(every), "Mix once per layer, in front of attention, not at each sub-layer."),
            Misconception(final(behind), "Mix in front of the branch, not after it."),
            Misconception(final(lost), f"{kept} yours is the stream before the last layer."),
            Misconception(final(drifted), f"{kept} yours is the last mixed stream."),
            Misconception(final(late), "Both ends are included: the first layer is at 0, the last one at 1."),
            Misconception(final(clones), "λ and μ differ from layer to layer."),
            Misconception(final(swapped), "skip belongs to the stream, first to the stack's input."),
            Misconception(x, "The norm at the end is missing."),
        ]
