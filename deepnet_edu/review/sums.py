"""Whether a tensor is a multiple or a sum of earlier ones, as far as its numbers tell."""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import torch
from torch import Tensor

from deepnet_edu.review.trace import Activation

#: Roundings up to which one tensor is a multiple or a sum of others: what is smaller than that beside it is not seen.
ROUNDINGS = 4
#: No comparison is finer than this: least squares in float64 are not.
LEAST = 1e-12


def fit(target: Activation, parts: Sequence[Activation]) -> tuple[list[float], float]:
    """Factors of target ≈ Σ factor·part by least squares, and the part of the target that is left."""
    columns = torch.stack([part.sample for part in parts], dim=1)
    goal = target.sample
    factors = torch.linalg.lstsq(columns, goal[:, None]).solution.flatten()
    left = (goal - columns @ factors).norm() / goal.norm().clamp_min(1e-300)
    return factors.tolist(), left.item()


def exact(activation: Activation) -> float:
    """Relative error up to which something is this tensor."""
    return max(ROUNDINGS * torch.finfo(activation.value.dtype).eps, LEAST)


class Sum:
    """A tensor, and the earlier ones that it may be made of."""

    def __init__(self, s: Activation, group: list[Activation]) -> None:
        self.group, self.limit = group, exact(s)
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
