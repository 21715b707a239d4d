"""The sub-layers in a trace, found by their form: a sum of the stream and of what a branch made of it.

    norm(a·x + b·F(x))         branch, add, norm: Post-LN and DeepNorm
    a·x + b·F(norm(x))         norm, then branch: Pre-LN
    a·x + b·F(·) + c·G(·)      branches in parallel

A tensor that passes between modules and that no matrix or norm gave is tried as such a sum of earlier ones. Nothing is
taken from names: a sum is one where its numbers are.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from torch import nn

from deepnet_edu.review.sums import Sum, exact, fit
from deepnet_edu.review.trace import Activation, Call, Trace
from deepnet_edu.review.views import SubLayerView

#: Roundings below which a branch is too faint beside its stream for the place of the norm to be sure.
FAINT = 4
#: This many of the latest activations of the stream's size are tried as parts of a sum: no sub-layer gives as many.
WINDOW = 14


@dataclass(eq=False)
class SubLayer:
    """What one sub-layer did in a run.

    Attributes:
        view: the modules and matrices.
        x: the stream that the skip carries.
        f: what the branch gave; ``beside``: what other branches added to the same sum.
        total: the sum, None where none was found.
        norm: the call of the sub-layer's norm.
        inside: whether the branch reads the norm's output; ``outside``: whether the norm reads the sum.
        window: the calls that made f from x, in order.
        named: whether its modules were given, and not found.
        kind: attention, cross-attention or feed-forward, None where that is not known.
    """

    view: SubLayerView
    x: Activation
    f: Activation
    total: Activation | None = None
    beside: tuple[Activation, ...] = ()
    norm: Call | None = None
    inside: bool = False
    outside: bool = False
    kind: str | None = None
    window: list[Call] = field(default_factory=list)
    named: bool = False

    @property
    def faint(self) -> bool:
        """Whether the branch is so small beside the stream that rounding blurs what it is added to."""
        if self.named or self.total is None or not self.total.size:
            return False
        least = FAINT * torch.finfo(self.total.value.dtype).eps
        return abs(fit(self.total, [self.x, self.f, *self.beside])[0][1]) * self.f.size < least * self.total.size

    @property
    def tops(self) -> set[Activation]:
        """What the next sub-layer may take for its stream."""
        found = {self.total, self.norm.output if self.outside and self.norm is not None else None}
        return {one.origin for one in found if one is not None}

    @property
    def top(self) -> Activation | None:
        """The stream behind this sub-layer."""
        return self.norm.output if self.outside and self.norm is not None else self.total


def find(trace: Trace) -> list[SubLayer]:
    """All sub-layers of a trace, from the bottom up."""
    found: list[SubLayer] = []
    for activation, tried in _between_modules(trace):
        branches = (_sublayers(trace, activation, x, fs) for x, *fs in tried.decompositions())
        found += next((subs for subs in branches if subs), [])
    for i, sub in enumerate(found):
        _place_norm(trace, sub, next((s for s in found[i + 1 :] if s.total is not sub.total), None))
    return found


def _between_modules(trace: Trace) -> Iterator[tuple[Activation, Sum]]:
    """What neither a matrix nor a norm gave nor a factor of something earlier, beside the latest of its size."""
    earlier: dict[torch.Size, list[Activation]] = {}
    norms = set(trace.norms)
    for activation in trace.activations:
        group = earlier.setdefault(activation.value.shape, [])
        between = activation.maker is None or not (activation.maker in norms or activation.maker.matrices)
        if between and activation.size:
            tried = Sum(activation, [one for one in group[-WINDOW:] if one.size])
            activation.same = tried.same()
            if activation.same is None:
                yield activation, tried
            else:
                activation.origin.copies.append(activation)
        if activation.same is None:
            group.append(activation)


def follow(trace: Trace, views: Sequence[SubLayerView]) -> list[SubLayer]:
    """The sub-layers at given modules, without those that were not called."""
    sums = [activation for activation, _ in _between_modules(trace)]
    calls: dict[nn.Module, list[Call]] = {}
    for call in sorted(trace.calls, key=lambda call: call.start):
        calls.setdefault(call.module, []).append(call)
    turn: dict[nn.Module, int] = {}

    def next_call(module: nn.Module | None) -> Call | None:
        if module is None or len(calls.get(module, [])) <= turn.get(module, 0):
            return None
        turn[module] = turn.get(module, 0) + 1
        return calls[module][turn[module] - 1]

    found: list[SubLayer] = []
    for view in views:
        begins, ends = next_call(view.first), next_call(view.branch)
        norm = next_call(view.norm)
        begins = begins or ends
        if begins is None or ends is None or ends.output is None or not begins.inputs:
            continue
        read, f = begins.inputs[0], ends.output
        inside = norm is not None and norm.output is not None and norm.output.origin is read.origin
        x = norm.inputs[0] if inside and norm is not None else read
        sub = SubLayer(view, x.origin, f, norm=norm, inside=inside, named=True)
        sub.window = trace.between(begins.start, ends.end)
        if norm is not None and not inside and norm.start > ends.end and norm.inputs:
            sub.outside, sub.total = True, norm.inputs[0]
        else:
            sub.total = _sum_of(sums, sub)
        found.append(sub)
    return found


def carry(subs: Sequence[SubLayer], before: Trace, now: Trace) -> list[SubLayer] | None:
    """The same sub-layers in a second run, if all numbers in it are those of the first."""
    if [call.module for call in before.calls] != [call.module for call in now.calls]:
        return None
    both = list(zip(before.activations, now.activations, strict=False))
    if len(before.activations) != len(now.activations) or not all(torch.equal(a.sample, b.sample) for a, b in both):
        return None
    tensors, calls = dict(both), dict(zip(before.calls, now.calls, strict=True))
    for old, new in both:
        new.same = None if old.same is None else tensors[old.same]
    return [
        replace(
            sub,
            x=tensors[sub.x],
            f=tensors[sub.f],
            total=None if sub.total is None else tensors[sub.total],
            beside=tuple(tensors[other] for other in sub.beside),
            norm=None if sub.norm is None else calls[sub.norm],
            window=[calls[call] for call in sub.window],
        )
        for sub in subs
    ]


def pieces(subs: Sequence[SubLayer]) -> list[list[SubLayer]]:
    """Sub-layers of which each reads what the one below gave."""
    found: list[list[SubLayer]] = []
    for i, sub in enumerate(subs):
        below = subs[i - 1] if i else None
        if below is not None and (below.total is None or sub.total is below.total or sub.x.origin in below.tops):
            found[-1].append(sub)
        else:
            found.append([sub])
    return found


def missed(trace: Trace, subs: Sequence[SubLayer]) -> int:
    """How many uses of matrices belong to no sub-layer that was found: their branch may be too faint to be seen.

    Behind the last sub-layer up to two that give the stream's width are a head's.
    """
    if not subs:
        return 0
    count = 0
    for _, group in groupby(subs, key=lambda sub: sub.view.stack):
        own = list(group)
        claimed = {call for sub in own for call in sub.window}
        between = trace.between(own[0].x.time, own[-1].f.time)
        count += sum(bool(call.matrices) and call not in claimed for call in between)
    last = subs[-1].f
    after = trace.between(last.time, trace.calls[-1].end)
    wide = [call for call in after if call.matrices and call.output is not None and call.output.fits(last)]
    return count + (len(wide) if len(wide) > 2 else 0)


def reads(call: Call, activation: Activation) -> bool:
    """Whether a call was given this tensor, or a multiple of it."""
    return any(one.origin is activation.origin for one in call.inputs)


def _sublayers(trace: Trace, total: Activation, x: Activation, branches: list[Activation]) -> list[SubLayer]:
    """One sub-layer for each branch of a sum, if all of them were made from x, or from the latest copy of it."""
    for start in [copy for copy in reversed(x.copies) if copy.time < branches[0].time] + [x]:
        found: list[SubLayer] = []
        begin = start.time
        for f in branches:
            sub = _sublayer(trace, total, start, f, begin)
            if sub is None:
                break
            sub.beside = tuple(other for other in branches if other is not f)
            found.append(sub)
            begin = f.time
        else:
            return found
    return []


def _sublayer(trace: Trace, total: Activation, x: Activation, f: Activation, begin: int) -> SubLayer | None:
    if f.maker is not None and not f.maker.inputs:
        return None  # a table of positions, not a branch
    normed = [c.output for c in trace.between(x.time, f.time, norms=True) if c.output is not None and reads(c, x)]
    window = trace.between(begin, f.time)
    if not any(reads(c, one) for c in window if not trace.is_norm(c) for one in (x, *normed)):
        return None
    module = (f.maker or window[-1]).module
    matrices = [c.module for c in window if c.matrices]
    first = matrices[0] if matrices and matrices[0] is not module else None
    return SubLayer(SubLayerView(module, None, first=first), x, f, total, window=window)


def _place_norm(trace: Trace, sub: SubLayer, following: SubLayer | None) -> None:
    """The norm of a sub-layer that was found: before the branch, behind the sum, or around the branch alone."""
    assert sub.total is not None
    before = [norm for norm in trace.between(sub.x.time, sub.f.time, norms=True) if reads(norm, sub.x)]
    around = [norm for norm in trace.between(sub.f.time, sub.total.time, norms=True) if reads(norm, sub.f)]
    if sub.f.maker is not None and trace.is_norm(sub.f.maker):
        around = [sub.f.maker]
    end = trace.calls[-1].end if following is None else following.f.time
    behind = [norm for norm in trace.between(sub.total.time, end, norms=True) if reads(norm, sub.total)]
    followed = [n for n in behind if following is not None and n.output and following.x.origin is n.output.origin]
    if before:
        sub.norm, sub.inside = before[0], True
    elif followed:
        sub.norm, sub.outside = followed[0], True
    elif around:
        sub.norm = around[0]
    elif behind and (following is None or following.x.origin is not sub.total.origin):  # the last of its stack
        sub.norm, sub.outside = behind[0], True
    sub.view.norm = None if sub.norm is None else sub.norm.module


def _sum_of(sums: Sequence[Activation], sub: SubLayer) -> Activation | None:
    """The first later tensor that is a sum of the stream and this branch."""
    for s in sums[bisect_left(sums, sub.f.time, key=lambda one: one.time) :][:WINDOW]:
        if s.fits(sub.x) and s.fits(sub.f) and s is not sub.f:
            left = fit(s, [sub.x, sub.f])[1]
            if left < exact(s) and left < 0.7 * fit(s, [sub.x])[1]:
                return s
    return None
