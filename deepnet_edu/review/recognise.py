"""Which design a model has, and which room of the museum its numbers belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from deepnet_edu.review.forms import SubLayer
from deepnet_edu.review.sums import fit

#: Relative error up to which a fitted α or a measured gain counts as this number.
TOLERANCE = 0.05


def near(value: float, number: float) -> bool:
    """Whether a measured value is this number."""
    return bool(number) and abs(value / number - 1) <= TOLERANCE


@dataclass(frozen=True)
class Design:
    """A way to join stream and branch that is not DeepNorm, and does not claim to be: its skip has no factor."""

    name: str
    formula: str


POST_LN = Design("Post-LN", "norm(x + F(x))")
PRE_LN = Design("Pre-LN", "x + F(norm(x))")
BRANCH_NORM = Design("a stack with a norm on the branch alone", "x + norm(F(x))")
PARALLEL = Design("a stack of parallel branches", "x + F(…) + G(…)")
NO_NORM = Design("a stack without a norm on the sum", "x + F(x)")


def design(subs: Sequence[SubLayer]) -> Design | None:
    """The design that all sub-layers share, None where they differ, have an α, or cannot all be seen."""
    found = {_design(sub) for sub in subs}
    return found.pop() if len(found) == 1 else None


def _design(sub: SubLayer) -> Design | None:
    total = sub.total
    if total is None or sub.faint or not (total.size and total.fits(sub.x) and total.fits(sub.f)):
        return None
    factors, left = fit(total, [sub.x, sub.f, *sub.beside])
    if left > TOLERANCE or not all(near(factor, 1.0) for factor in factors):
        return None
    if sub.beside:
        return PARALLEL
    if sub.inside:
        return PRE_LN
    if sub.outside:
        return POST_LN
    return NO_NORM if sub.norm is None else BRANCH_NORM


def room_of_alpha(ratio: float, alpha: float) -> str:
    """The room of an α on the skip, as a multiple of the branch's factor, that is not the one expected."""
    if near(ratio * alpha, 1.0):
        return "alpha-on-the-branch"
    if near(ratio, 1.0):
        return "another-design"
    if near(ratio * alpha, sqrt(0.5)):  # (8N)^(-¼)
        return "swapped-constants"
    if near(ratio, alpha**2):
        return "other-constants"
    return "constant-alpha" if near(ratio, 64**0.25) else "alpha-of-another-depth"


#: A mean gain by (stack, role).
Gains = Mapping[tuple[str, str], float]


def room_of_gains(found: Gains, default: Gains, wanted: Mapping[str, float], betas: Mapping[str, float]) -> str:
    """The room of gains of which one or more are wrong.

    Args:
        found: as measured.
        default: as nn.Linear would have drawn the same matrices.
        wanted: by stack.
        betas: DeepNorm's β by stack; for value, output and feed-forward it is what is wanted.
    """
    goal = {key: wanted[key[0]] for key in found}
    wrong = {key for key in found if not near(found[key], goal[key])}
    off = {key: 1.15 / 0.87 if key[0] == "encoder" else 1.0 for key in found}
    beta = {key: goal[key] * default[key] for key in found}
    packed = dict(default) | {key: sqrt(0.5) for key in found if key[1] == "value"}  # as torch.nn's attention draws it
    if any(_all_near(found, gains) for gains in (default, packed, beta, {key: beta[key] * off[key] for key in found})):
        return "default-weights"
    if all(near(found[key], goal[key] * sqrt(0.5)) for key in wrong) and {role for _, role in wrong} <= PACKED:
        return "packed-as-one"
    if {role for _, role in found} <= PACKED - {"value"}:
        return "query-and-key-scaled" if all(near(found[key], betas[key[0]]) for key in wrong) else "another-gain"
    if {role for _, role in wrong} == {"value"}:
        return "forgotten-slice"
    if _all_near(found, {key: goal[key] * off[key] for key in found}):
        return "encoder-constant"
    slips = {
        "gain-as-variance": {key: sqrt(gain) for key, gain in goal.items()},
        "layers-for-sublayers": {key: gain * sqrt(2) for key, gain in goal.items()},
        "other-constants": {key: 2 * gain**2 for key, gain in goal.items()},  # (2N)^(-½)
    }
    for room, gains in slips.items():
        if _all_near(found, gains):
            return room
    if any(_all_near(found, {key: slip(gain) for key, gain in goal.items()}) for slip in EXPONENTS):
        return "beta-exponent"
    if all(near(found[key], goal[key] ** -1 * sqrt(0.5)) for key in found):  # (2N)^¼
        return "swapped-constants"
    return "another-gain"


PACKED = {"query", "key", "value"}
#: (8N) ** 0.25, and (8N) ** -1 / 4, of β = (8N)^(-¼).
EXPONENTS = (lambda beta: 1 / beta, lambda beta: beta**4 / 4)


def _all_near(found: Gains, gains: Gains) -> bool:
    return all(near(found[key], gains[key]) for key in found)
