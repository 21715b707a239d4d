"""Whether a signal gets through a stack, from what was predicted or measured of it, and why that may not be said.

Criteria and thresholds are from a set of models that were measured and then trained (benchmarks/verdicts.py), chosen on
half of it; docs/verdicts.md has the errors on the other half.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

#: A stack whose tokens are more similar than this can no longer tell them apart.
MAX_TOKEN_SIMILARITY = 0.99
#: From here on tokens are nearly equal: Post-LN of 12 layers has 0.94 and does not train, Pre-LN of 1,000 has 0.92 to
#: 0.98 and learns half of its task. The input's share does not part them: for both it is below the noise of a batch.
NEARLY_ALIKE = 0.9
#: An input whose tokens are more similar than this says nothing about the stack that reads it.
MAX_INPUT_SIMILARITY = 0.999
#: A stream that has more variance than this everywhere and is still its input is too loud for branches, which read it
#: normalised. One that grows on its way, by a factor on the skip, makes the branches of its first layers louder, too.
MAX_VARIANCE, STILL_INPUT = 3e4, 0.99
#: Root mean square change of the answers per unit of learning rate, for one SGD step on the matrices. Of the models
#: that train the largest is 440, and the smallest is 0: there is no lower bound (branches of 1e-8 train, by Adam).
MAX_UPDATE = 1e3
#: A sub-layer with less gradient than this part of the largest of its kind does not live before others have moved.
LIVING = 1e-6


@dataclass(frozen=True)
class Verdict:
    """PASS, FAIL or UNSURE, with what was tested and the number and threshold that decided.

    Attributes:
        passed: True where the signal gets through, forward and backward; False where it does not; None where that
            cannot be said of this model with this batch, which the reason explains. None is false in an ``if``.
        reason: one sentence.
    """

    passed: bool | None
    reason: str

    @property
    def word(self) -> str:
        """``"PASS"``, ``"FAIL"`` or ``"UNSURE"``."""
        return "UNSURE" if self.passed is None else "PASS" if self.passed else "FAIL"

    def __str__(self) -> str:
        return f"{self.word}: {self.reason}"


def worst(verdicts: list[bool | None]) -> bool | None:
    """One FAIL fails all, else one UNSURE leaves all open."""
    return False if False in verdicts else None if None in verdicts else True


@dataclass(frozen=True)
class Found:
    """What is known of one stack, behind each of its n sub-layers.

    Attributes:
        similarity: (n,) of tokens.
        gradient: (n,) 2-norm in the matrices of the branch.
        by_layer: (layers,) the same for whole layers.
        kinds: (n,) names of the sub-layers' kinds; empty where they are not known.
        share: (n,) of the input, above chance, or None.
        variance: (n,) of the stream, or None.
        entering: how similar the tokens are that enter the stack, or None.
    """

    similarity: Array
    gradient: Array
    by_layer: Array
    kinds: tuple[str, ...] = ()
    share: Array | None = None
    variance: Array | None = None
    entering: float | None = None


def judge_stack(found: Found) -> Verdict:
    """The verdict on one stack: the first of these that has something to say."""
    for look in (_input, _finite, _forward, _backward):
        verdict = look(found)
        if verdict is not None:
            return verdict
    share = "" if found.share is None else f"input share {found.share[-1]:.2g}, "
    return Verdict(
        True,
        f"token similarity {found.similarity[-1]:.3f} at the top (at most {MAX_TOKEN_SIMILARITY}), {share}"
        f"first/last layer gradient {found.by_layer[0] / found.by_layer[-1]:.2g}.",
    )


def _input(found: Found) -> Verdict | None:
    if found.entering is None or found.entering <= MAX_INPUT_SIMILARITY:
        return None
    return Verdict(
        None,
        f"the stack's input is collapsed: similarity {found.entering:.4f}, above {MAX_INPUT_SIMILARITY}, before the "
        "first sub-layer. Look at the batch's tokens and at the embedding: the stack cannot be judged by them.",
    )


def _finite(found: Found) -> Verdict | None:
    if not np.isfinite(found.similarity).all():
        first = int(np.argmin(np.isfinite(found.similarity))) + 1
        return Verdict(False, f"not finite from sub-layer {first} on: the forward pass overflows.")
    if not np.isfinite(found.gradient).all():
        broken = np.flatnonzero(~np.isfinite(found.gradient)) + 1
        return Verdict(
            False,
            f"the gradient is not finite in {len(broken)} of {len(found.gradient)} sub-layers, from {broken[-1]} down: "
            "the backward pass overflows.",
        )
    return None


def _forward(found: Found) -> Verdict | None:
    top = float(found.similarity[-1])
    if top > MAX_TOKEN_SIMILARITY:
        return Verdict(False, f"tokens collapse: similarity {top:.3f} at the top, above {MAX_TOKEN_SIMILARITY}.")
    if top > NEARLY_ALIKE:
        share = "" if found.share is None else f", input share {found.share[-1]:.2g}"
        return Verdict(
            None,
            f"tokens are nearly equal: similarity {top:.3f} at the top{share}. Above {NEARLY_ALIKE} some stacks learn "
            f"something and some nothing, above {MAX_TOKEN_SIMILARITY} none does.",
        )
    if found.share is None:
        return None
    if found.variance is not None and found.variance.min() > MAX_VARIANCE and found.share[-1] > STILL_INPUT:
        return Verdict(
            False,
            f"the input drowns the branches: the stream has variance {found.variance.min():.1e} or more, above "
            f"{MAX_VARIANCE:.0e}, and is still its input (share {found.share[-1]:.3f}). Look at the embedding's size.",
        )
    return None


def _backward(found: Found) -> Verdict | None:
    gradient = found.gradient
    if not gradient.any():
        return Verdict(
            None,
            "no matrix has a gradient: branches, a norm's gain or the head are 0 at the start. Take a step first, and "
            "judge again.",
        )
    kinds = np.array(found.kinds or (("",) * len(gradient)))
    dead = np.zeros(len(gradient), dtype=bool)
    for kind in dict.fromkeys(kinds):
        dead[kinds == kind] = gradient[kinds == kind] <= LIVING * gradient[kinds == kind].max()
    if dead.any():
        where = np.flatnonzero(dead) + 1
        return Verdict(
            None,
            f"{len(where)} of {len(gradient)} sub-layers, from {where[0]} to {where[-1]}, have next to no gradient "
            f"(below {LIVING:.0e} of the largest): the stack is as deep as the others alone. Take a step first, and "
            "judge again.",
        )
    return None


def with_update(verdict: Verdict, update: float | None) -> Verdict:
    """The verdict with what one step of training does to the answers, where that was measured. Only a very large one
    decides, and a small one nothing (docs/verdicts.md)."""
    if update is None:
        return verdict
    found = f"one SGD step on the matrices changes the answers by {update:.3g} per unit of learning rate"
    if not update <= MAX_UPDATE:  # NaN fails too
        return Verdict(False, f"{found}, above {MAX_UPDATE:g}; {verdict.reason}")
    return Verdict(verdict.passed, f"{verdict.reason.rstrip('.')}; {found} (at most {MAX_UPDATE:g}).")
