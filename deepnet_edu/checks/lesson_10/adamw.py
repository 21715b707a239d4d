"""The judge of lesson 10's AdamW, with what each known slip makes of an update."""

from collections.abc import Callable

import torch
from torch import Tensor

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.values import as_array, show


def adamw_step(trial: Trial) -> None:
    """m ← β₁·m + (1 - β₁)·g and v ← β₂·v + (1 - β₂)·g²; for this step alone m̂ = m/(1 - β₁ⁿ) and v̂ = v/(1 - β₂ⁿ);
    w ← w - rate·(m̂/(√v̂ + eps) + decay·w). Return the new (w, m, v).
    """
    for size, rate, betas, eps, decay in [(3, 0.03, (0.9, 0.98), 0.01, 0.2), (2, 0.2, (0.6, 0.95), 0.05, 0.7)]:
        draw = torch.Generator().manual_seed(size)
        w = torch.randn(size, generator=draw, dtype=torch.float64)
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        for n in (1, 2, 3, 4):
            g = 2 * torch.randn(size, generator=draw, dtype=torch.float64)
            given = (w, g, m, v, n, rate, betas, eps, decay)
            got = trial.call(*given)
            trial.require(
                isinstance(got, tuple | list) and len(got) == 3,
                "The answer is three tensors, (w, m, v).",
                "three tensors",
                type(got).__name__,
            )
            for value in got:
                trial.like(value, w)
            right, wrong = _adamw(*given), _wrong_adamw(*given)
            for name, i in (("m", 1), ("v", 2), ("w", 0)):
                known = [Misconception(three[i], said) for said, three in wrong.items()]
                trial.equal(got[i], right[i], known, f"The new {name} is wrong.")
            w, m, v = right
    still = torch.zeros_like(w)
    resting = trial.call(w, still, still, still, 1, 0.1, (0.9, 0.98), 0.01, 0.0)[0]
    numbers = show(as_array(w), as_array(resting))
    trial.require(
        torch.allclose(resting, w, rtol=1e-5), "Without a gradient and without decay nothing moves.", *numbers
    )


Three = tuple[Tensor, Tensor, Tensor]
Two = tuple[float, float]


def _adamw(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    n: int,
    rate: float,
    betas: Two,
    eps: float,
    decay: float,
    *,
    stays: Two | None = None,
    enters: Two | None = None,
    began: Two | None = None,
    size: Callable[[Tensor], Tensor] | None = None,
) -> Three:
    """The new (w, m, v). What slips change: the shares of the means that stay and of g that enters, what the means are
    divided by because they began at 0, and the size that m is divided by."""
    (a, b), (c, d) = stays or betas, enters or (1 - betas[0], 1 - betas[1])
    m, v = a * m + c * g, b * v + d * g.square()
    e, f = began or (1 - betas[0] ** n, 1 - betas[1] ** n)
    step = m / e / (size(v / f) if size else (v / f).sqrt() + eps)
    return w - rate * (step + decay * w), m, v


def _wrong_adamw(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, n: int, rate: float, betas: Two, eps: float, decay: float
) -> dict[str, Three]:
    """What each slip gives, by what to say to it."""
    given = w, g, m, v, n, rate, betas
    b1, b2 = betas
    d1, d2 = 1 - b1**n, 1 - b2**n
    new, new_m, new_v = _adamw(*given, eps, decay)
    bare, later = _adamw(*given, eps, 0.0)[0], (1 - b1 ** (n + 1), 1 - b2 ** (n + 1))
    wrong = {
        "Both means began at 0: correct for that in the step.": _adamw(*given, eps, decay, began=(1.0, 1.0)),
        "v began at 0 as m did: correct it as well.": _adamw(*given, eps, decay, began=(d1, 1.0)),
        "m began at 0 as v did: correct it as well.": _adamw(*given, eps, decay, began=(1.0, d2)),
        "Updates are counted from 1: n is the exponent as it is.": _adamw(*given, eps, decay, began=later),
        "ε is added outside the root.": _adamw(*given, eps, decay, size=lambda v: (v + eps).sqrt()),
        "ε is missing.": _adamw(*given, 0.0, decay),
        "Divide by the root of v, a size, not by a square.": _adamw(*given, eps, decay, size=lambda v: v + eps),
        "The weight decay is missing.": (bare, new_m, new_v),
        "The decay is times the rate, too.": (bare - decay * w, new_m, new_v),
        "The decay makes weights smaller: it is subtracted as well.": (bare + rate * decay * w, new_m, new_v),
        "The decay takes the weight as it was before this step.": (bare * (1 - rate * decay), new_m, new_v),
        "That is Adam with the decay in the gradient: AdamW keeps it out of both means.": _adamw(
            w, g + decay * w, m, v, n, rate, betas, eps, 0.0
        ),
        "Downhill: the step is subtracted.": (2 * w - bare - rate * decay * w, new_m, new_v),
        "The order is (w, m, v).": (new_m, new_v, new),
    }
    if n > 1:  # at first many slips are equal, since both means are 0
        wrong |= {
            "Each β is the share that stays.": _adamw(*given, eps, decay, stays=(1 - b1, 1 - b2), enters=betas),
            "What is new enters by its share: m and v are means.": _adamw(*given, eps, decay, enters=(1.0, 1.0)),
            "Return m and v as they are kept: what divides them is for this step only.": (new, new_m / d1, new_v / d2),
            "Keep v itself; the root is taken in the step.": (new, new_m, new_v.sqrt()),
            "Return the new means, not the old ones.": (new, m, v),
            "The step takes the new means, not the old ones.": (
                w - rate * (m / d1 / ((v / d2).sqrt() + eps) + decay * w), new_m, new_v
            ),
        }  # fmt: skip
    return wrong
