"""The sub-layers in a trace, found by their form: a sum of the stream and of what a branch made of it.

    norm(a·x + b·F(x))         branch, add, norm: Post-LN and DeepNorm
    a·x + b·F(norm(x))         norm, then branch: Pre-LN
    a·x + b·F(·) + c·G(·)      branches in parallel

A tensor that passes between modules and that no matrix or norm gave is tried as such a sum of earlier ones. Nothing is
taken from names: a sum is one where its numbers are.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, groupby

import torch
from torch import Tensor, nn

from deepnet_edu.review.trace import Activation, Call, Trace
from deepnet_edu.review.views import SubLayerView

#: Roundings up to which one tensor is a multiple or a sum of others: what is smaller than that beside it is not seen.
ROUNDINGS = 4
#: No comparison is finer than this: least squares in float64 are not.
LEAST = 1e-12
#: Roundings below which a branch is too faint beside its stream for the place of the norm to be sure.
FAINT = 16
#: So many of the latest activations of the stream's size are tried as parts of a sum: no sub-layer gives as many.
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

    @property
    def faint(self) -> bool:
        """Whether the branch is so small beside the stream that rounding blurs what it is added to."""
        if self.total is None or not self.total.size:
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


def _between_modules(trace: Trace) -> Iterator[tuple[Activation, "_Sum"]]:
    """What neither a matrix nor a norm gave and is no multiple of something earlier, beside the latest of its size."""
    earlier: dict[torch.Size, list[Activation]] = {}
    norms = set(trace.norms)
    for activation in trace.activations:
        group = earlier.setdefault(activation.value.shape, [])
        between = activation.maker is None or not (activation.maker in norms or activation.maker.matrices)
        if between and activation.size:
            tried = _Sum(activation, [one for one in group[-WINDOW:] if one.size])
            activation.same = tried.same()
            if activation.same is None:
                yield activation, tried
            else:
                activation.origin.copies.append(activation)
        if activation.same is None:
            group.append(activation)


def follow(trace: Trace, views: Sequence[SubLayerView]) -> list[SubLayer | None]:
    """The sub-layers at given modules; None for one that was not called, or not on a stream."""
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

    found: list[SubLayer | None] = []
    for view in views:
        begins, ends = next_call(view.first), next_call(view.branch)
        norm = next_call(view.norm)
        begins = begins or ends
        if begins is None or ends is None or ends.output is None or not begins.inputs:
            found.append(None)
            continue
        read, f = begins.inputs[0], ends.output
        inside = norm is not None and norm.output is not None and norm.output.origin is read.origin
        x = norm.inputs[0] if inside and norm is not None else read
        sub = SubLayer(view, x.origin, f, norm=norm, inside=inside)
        sub.window = [call for call in trace.calls if begins.start <= call.start and call.end <= ends.end]
        if norm is not None and not inside and norm.start > ends.end and norm.inputs:
            sub.outside, sub.total = True, norm.inputs[0]
        else:
            sub.total = _sum_of(sums, sub)
        found.append(sub)
    return found


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


def fit(target: Activation, parts: Sequence[Activation]) -> tuple[list[float], float]:
    """Factors of target ≈ Σ factor·part by least squares, and the part of the target that is left."""
    columns = torch.stack([part.sample for part in parts], dim=1)
    goal = target.sample
    factors = torch.linalg.lstsq(columns, goal[:, None]).solution.flatten()
    left = (goal - columns @ factors).norm() / goal.norm().clamp_min(1e-300)
    return factors.tolist(), left.item()


def reads(call: Call, activation: Activation) -> bool:
    """Whether a call was given this tensor, or a multiple of it."""
    return any(one.origin is activation.origin for one in call.inputs)


def _exact(activation: Activation) -> float:
    return max(ROUNDINGS * torch.finfo(activation.value.dtype).eps, LEAST)


class _Sum:
    """A tensor, and the earlier ones that it may be made of."""

    def __init__(self, s: Activation, group: list[Activation]) -> None:
        self.group, self.limit = group, _exact(s)
        *columns, self.goal = (one.sample / one.size for one in [*group, s])
        self.columns = torch.stack(columns) if columns else self.goal.new_zeros(0, len(self.goal))
        self.gram, self.along = self.columns @ self.columns.T, self.columns @ self.goal
        # What a multiple of each leaves: of vectors of length 1, since 1 - cos² would be rounded.
        self.alone = (self.goal - self.along[:, None] * self.columns).norm(dim=1)
        self.pairs = self._fits(2)

    def same(self) -> Activation | None:
        """What it is a multiple of, if nothing was added."""
        if self.pairs or not self.group or self.alone.min() >= self.limit:
            return None
        return self.group[int(self.alone.argmin())]

    def decompositions(self) -> list[list[Activation]]:
        """Two or three whose sum it is, with factors: first those with the latest stream and the earliest branches.

        So a scaled branch counts as the branch, and a stream that a faint branch hardly changed as what it is now.
        """
        found = sorted(self.pairs or self._fits(3), key=lambda parts: -parts[0].time)
        normed = {one: one.maker.inputs[0] for one in self.group if one.maker is not None and one.maker.inputs}
        streams = {parts[0] for parts in found}
        return [parts for parts in found if normed.get(parts[0]) not in streams] or found

    def _fits(self, parts: int) -> list[list[Activation]]:
        if len(self.group) < parts:
            return []
        index = _choices(len(self.group), parts).to(self.gram.device)
        matrices = self.gram[index[:, :, None], index[:, None, :]]
        usable = torch.linalg.det(matrices).abs() > 1e-9
        index, matrices = index[usable], matrices[usable]
        right = self.along[index]
        factors = torch.linalg.solve(matrices, right)
        left = (1 - (factors * right).sum(1)).clamp_min(0).sqrt()
        near = (left < max(self.limit, 1e-6)).nonzero().flatten()
        sums = (factors[near, :, None] * self.columns[index[near]]).sum(1)
        left[near] = (self.goal - sums).norm(dim=1)
        # Each part must explain more than rounding does, however small it is beside the others.
        fewer = self.alone.min()
        good = (left < self.limit) & (left < 0.7 * fewer) & (fewer > self.limit / ROUNDINGS)
        if parts > 2:
            good &= (factors.abs() > 5 * self.limit).all(1)
        if good.any():
            good &= left <= 2 * left[good].min() + self.limit / 20
        return [[self.group[i] for i in index[row].tolist()] for row in good.nonzero().flatten().tolist()]


@cache
def _choices(n: int, parts: int) -> Tensor:
    return torch.tensor(list(combinations(range(n), parts)))


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
            if left < _exact(s) and left < 0.7 * fit(s, [sub.x])[1]:
                return s
    return None


# --- what depends on what


def dependence(f: Activation, x: Activation, row: int | None) -> Tensor | None:
    """Gradient of f in x, (tokens, width): of one row of f, or of all; None where no gradient gets from f to x."""
    if f.edge is None or x.edge is None:
        return None
    noise = torch.randn(f.value.shape, generator=torch.Generator().manual_seed(2)).to(f.value)
    if row is not None:
        noise = noise * (torch.arange(len(noise), device=noise.device) == row)[:, None]
    if f.tensor._version == f.version:
        goal = (f.tensor * noise.reshape(f.shape)).sum()
        (found,) = torch.autograd.grad([goal], [x.edge], retain_graph=True, allow_unused=True)
    else:  # something was added to it in place; this way takes PyTorch seconds, the first time
        weight = [noise.reshape(f.shape)]
        (found,) = torch.autograd.grad([f.edge], [x.edge], weight, retain_graph=True, allow_unused=True)
    return None if found is None else found.detach().reshape(x.value.shape)


@dataclass(frozen=True)
class Layout:
    """How tokens see each other. ``axis``: the axis of time in the stream's shape, None where no token sees another;
    ``causal``: whether a token sees earlier ones only; ``clear``: whether all that could be found out."""

    axis: int | None = None
    causal: bool | None = None
    clear: bool = True


def layout(sub: SubLayer) -> Layout | None:
    """Which axis of the stream is time, and whether attention has a mask: from two tokens in the middle, by gradient.

    None where no gradient tells.
    """
    shape = sub.x.shape[:-1]
    if len(shape) > 2 or not sub.x.fits(sub.f) or (sub.x.shape != sub.f.shape and len(sub.f.shape) != 2):
        return None
    low = [(n - 1) // 2 for n in shape]
    places = [low, [min(i + 1, n - 1) for i, n in zip(low, shape, strict=True)]]
    axes: set[int] = set()
    later = stray = False
    for place in places:
        touched = _touched(sub, place)
        if touched is None:
            return None
        for other in touched:
            moved = [axis for axis in range(len(shape)) if other[axis] != place[axis]]
            axes.update(moved)
            stray |= len(moved) > 1
            later |= any(other[axis] > place[axis] for axis in moved)
    if len(shape) == 1 and axes:  # several sequences in one row, or one?
        touched = _touched(sub, [shape[0] - 1])
        stray = touched is None or [0] not in touched
    if stray or len(axes) > 1:
        return Layout(clear=False)
    return Layout(axes.pop(), not later) if axes else Layout()


def _touched(sub: SubLayer, place: list[int]) -> list[list[int]] | None:
    """The places of the stream that the branch's output at one place depends on."""
    shape = sub.x.shape[:-1]
    row = place[0] if len(shape) == 1 else place[0] * shape[1] + place[1]
    gradient = dependence(sub.f, sub.x, row)
    return None if gradient is None else (gradient != 0).any(-1).reshape(shape).nonzero().tolist()
