"""Records: what theory predicts, probing measures and training logs, in one form that figures draw."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

#: A stack whose tokens are more alike than this has nothing left to tell them apart by.
MAX_TOKEN_SIMILARITY = 0.99
#: The gradient of the first layer may differ from that of the last by at most this factor, either way.
MAX_GRADIENT_RATIO = 1e3


@dataclass(frozen=True)
class Verdict:
    """PASS or FAIL of a profile, with the number and the threshold that decided.

    Attributes:
        passed: whether the signal gets through, forward and backward.
        reason: one sentence.
    """

    passed: bool
    reason: str

    def __str__(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}: {self.reason}"


@dataclass(frozen=True)
class DepthProfile:
    """What happens to a signal, sub-layer by sub-layer. Each array is (n_sublayers,), or None where it is not known.

    Attributes:
        label: what was predicted or measured, for legends.
        variance: mean square of the stream's features after each sub-layer.
        token_similarity: mean cosine between different tokens of the same sequence.
        input_share: part of the stream's variance that is still the stack's own input at that token (cosine squared).
        gradient_norm: 2-norm of the loss gradient in the matrices of the sub-layer's branch.
    """

    label: str
    variance: Array | None = None
    token_similarity: Array | None = None
    input_share: Array | None = None
    gradient_norm: Array | None = None

    @property
    def depth(self) -> Array:
        """Depth in layers at which each value was taken: ½, 1, 1½, …"""
        known = (self.variance, self.token_similarity, self.input_share, self.gradient_norm)
        n = next((len(values) for values in known if values is not None), 0)
        return np.arange(1, n + 1) / 2

    def judge(self) -> Verdict:
        """PASS if the stack's output still tells tokens apart and the gradient reaches the bottom.

        No single ratio decides: in a Post-LN stack with Xavier weights the first and the last gradient may be
        alike while all tokens are the same.

        Raises:
            ValueError: token similarity or gradient is missing, as in a prediction, or there are no sub-layers.
        """
        similarity, gradient = self.token_similarity, self.gradient_norm
        if similarity is None or gradient is None or not len(similarity):
            raise ValueError(
                "judge() needs measured token_similarity and gradient_norm: call it on probe(model, batch)."
            )
        if not (np.isfinite(similarity).all() and np.isfinite(gradient).all()):
            first = int(np.argmin(np.isfinite(similarity) & np.isfinite(gradient)))
            return Verdict(False, f"not finite from sub-layer {first + 1} on.")
        top = similarity[-1]
        if top > MAX_TOKEN_SIMILARITY:
            return Verdict(False, f"tokens collapse: similarity {top:.3f} at the top, above {MAX_TOKEN_SIMILARITY}.")
        low, high = gradient[:2].mean(), gradient[-2:].mean()
        ratio = low / high if high > 0 else np.inf
        if not 1 / MAX_GRADIENT_RATIO <= ratio <= MAX_GRADIENT_RATIO:
            return Verdict(False, f"first/last layer gradient {ratio:.1e}, beyond a factor {MAX_GRADIENT_RATIO:.0f}.")
        return Verdict(
            True,
            f"token similarity {top:.3f} at the top (at most {MAX_TOKEN_SIMILARITY}), "
            f"first/last layer gradient {ratio:.2g} (within a factor {MAX_GRADIENT_RATIO:.0f}).",
        )

    def to_dict(self, every: int = 1) -> dict[str, Any]:
        """Plain JSON values; ``every`` thins the sub-layers, counted from the top. Four significant digits."""

        def plain(value: Any) -> Any:
            return [float(f"{x:.4g}") for x in value[::-every][::-1]] if isinstance(value, np.ndarray) else value

        return {name: plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Curve:
    """One quantity by theory, by measurement, or both.

    Attributes:
        label: what it is, for legends.
        theory: (n,) predicted values for x = 0, 1, …, or None.
        measured: (n,) measured values for the same x, or None.
    """

    label: str
    theory: Array | None = None
    measured: Array | None = None


@dataclass
class History:
    """What a training run was, step by step.

    Attributes:
        label: name of the run, for legends.
        loss: training loss before each update, nats per token.
        learning_rate: of each update.
        gradient_norm: 2-norm over all trained parameters before clipping.
        seconds: wall time of each step.
        tokens: tokens that the run has read so far, after each step.
        profiles: the stack at some of the steps, by step.
    """

    label: str
    loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    profiles: dict[int, DepthProfile] = field(default_factory=dict)

    def final_loss(self, last: int = 5) -> float:
        """Mean loss of the last few steps, nats per token. A single step is noisy.

        Raises:
            ValueError: no step was taken.
        """
        if not self.loss:
            raise ValueError("The run has no steps yet: train it first.")
        return float(np.mean(self.loss[-last:]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values without the profiles."""
        return {name: value for name, value in asdict(self).items() if name != "profiles"}
