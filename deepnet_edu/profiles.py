"""Records: what theory predicts, probing measures and training logs, in one form that figures draw."""

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from deepnet_edu.messages import unknown
from deepnet_edu.verdict import MAX_TOKEN_SIMILARITY, Array, Found, Verdict, judge_stack, with_update, worst

__all__ = ["MAX_TOKEN_SIMILARITY", "Array", "Curve", "DepthMixing", "DepthProfile", "History", "Verdict"]


@dataclass(frozen=True)
class DepthMixing:
    """How much of each sub-layer's output is in what each sub-layer reads (arXiv 2603.15031, Section 6.2).

    Attributes:
        label: of the rule.
        weights: (rows, n + 1): what output i is multiplied by, column 0 being the stack's input, until row l reads it,
            norms and gates taken at the numbers that they have.
        shares: (rows, n + 1): squared, times the output's variance, over the sum of the row: its part of the variance
            that is read, as long as outputs are independent.
        rows: the sub-layer that reads, from 0; n is what leaves the stack.
    """

    label: str
    weights: Array
    shares: Array
    rows: tuple[int, ...]

    @property
    def relative(self) -> Array:
        """Weights over the largest of their row: a norm that reads the row does not notice the factor."""
        largest = np.abs(self.weights).max(1, keepdims=True)
        return np.asarray(self.weights / np.where(largest > 0, largest, 1))


@dataclass(frozen=True)
class DepthProfile:
    """What happens to a signal, sub-layer by sub-layer. Each array is (n_sublayers,), or None where it is not known.

    In a model with two stacks the encoder's sub-layers come first; :meth:`of` takes them apart.

    Attributes:
        label: what was predicted or measured, for legends.
        variance: mean square of the stream's features after each sub-layer.
        token_similarity: mean cosine between different tokens of the same sequence.
        input_share: part of the stream's variance that is still the stack's own input at that token: the cosine
            squared, without the 1/(d - 1) that chance gives, so 0 for a stream that knows nothing of it.
        gradient_norm: 2-norm of the loss gradient in the matrices of the sub-layer's branch.
        norm: mean length of the stream's tokens, ‖x‖₂.
        norm_gain: mean over tokens of rms(γ)/σ(u) at the rule's norm, u its input: the size of LN's Jacobian, √d/‖u‖
            (arXiv 2002.04745, Lemma 3); NaN where a rule has no norm.
        gradient_by_role: 2-norm of the loss gradient by role of the weight, NaN where a sub-layer has no such weight.
        stack, layer, sublayer: where each value was taken, empty where that is not known: the stack's name, the layer
            from 0, the kind of the sub-layer.
        input_similarity: by stack, how similar the tokens are that enter it
            (:func:`~deepnet_edu.probing.input_similarity`); empty where that is not known.
        known_errors: of a prediction, by quantity, what the record of measurements has it off by, in words.
    """

    label: str
    variance: Array | None = None
    token_similarity: Array | None = None
    input_share: Array | None = None
    gradient_norm: Array | None = None
    norm: Array | None = None
    norm_gain: Array | None = None
    gradient_by_role: dict[str, Array] = field(default_factory=dict)
    stack: tuple[str, ...] = ()
    layer: tuple[int, ...] = ()
    sublayer: tuple[str, ...] = ()
    input_similarity: dict[str, float] = field(default_factory=dict)
    known_errors: dict[str, str] = field(default_factory=dict)

    @property
    def depth(self) -> Array:
        """Depth in layers of its stack at which each value was taken: ½, 1, 1½, …; thirds beside cross-attention."""
        known = (self.variance, self.token_similarity, self.input_share, self.gradient_norm)
        n = next((len(values) for values in known if values is not None), 0)
        if not self.stack:
            return np.arange(1, n + 1) / 2
        seen: Counter[str] = Counter()
        depth = []
        for stack in self.stack:
            seen[stack] += 1
            depth.append(seen[stack] * self._layers(stack) / self.stack.count(stack))
        return np.array(depth)

    def _layers(self, stack: str) -> int:
        return 1 + max(layer for layer, of in zip(self.layer, self.stack, strict=True) if of == stack)

    def of(self, stack: str) -> "DepthProfile":
        """The part of one stack, ``"encoder"`` or ``"decoder"``.

        Raises:
            ValueError: the profile has no such stack.
        """
        chosen = np.array([name == stack for name in self.stack], dtype=bool)
        if not chosen.any():
            raise ValueError(unknown("stack", stack, dict.fromkeys(self.stack)))

        def part(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return value[chosen]
            if isinstance(value, dict):
                return {key: part(array) for key, array in value.items()}
            if isinstance(value, tuple):
                return tuple(one for one, keep in zip(value, chosen, strict=True) if keep)
            return value

        known = {name: part(value) for name, value in vars(self).items()}
        known["input_similarity"] = {name: value for name, value in self.input_similarity.items() if name == stack}
        return DepthProfile(**known)

    def gradient_by_layer(self) -> Array:
        """(layers,) 2-norms of the gradient in the matrices of each layer, stack by stack.

        Raises:
            ValueError: the gradient is not known.
        """
        if self.gradient_norm is None:
            raise ValueError("This profile has no gradients: probe(model, batch) measures them.")
        n = len(self.gradient_norm)
        places = list(zip(self.stack, self.layer, strict=True)) or [("", i // 2) for i in range(n)]
        first = [i for i in range(n) if i == 0 or places[i] != places[i - 1]]
        return np.asarray(np.sqrt(np.add.reduceat(np.square(self.gradient_norm), first)))

    def judge(self, update: float | None = None) -> Verdict:
        """PASS if each stack's output still tells tokens apart and the gradient reaches every layer; UNSURE if that
        cannot be said of this input, or before a step of training.

        No single ratio decides: in a Post-LN stack with Xavier weights the first and the last gradient may be
        equal while all tokens are the same. How often it errs is in docs/verdicts.md.

        Args:
            update: what :func:`~deepnet_edu.probing.model_update` measured for one SGD step on the matrices, if it was;
                a very large one fails, a small one says nothing.

        Raises:
            ValueError: token similarity or gradient is missing, or there are no sub-layers.
        """
        if self.token_similarity is None or self.gradient_norm is None or not len(self.token_similarity):
            raise ValueError(
                "judge() needs token_similarity and gradient_norm: call it on probe(model, batch), or on a prediction."
            )
        stacks = tuple(dict.fromkeys(self.stack))
        if len(stacks) > 1:
            verdicts = {stack: self.of(stack).judge() for stack in stacks}
            reason = "; ".join(f"{stack}: {verdict.reason.rstrip('.')}" for stack, verdict in verdicts.items()) + "."
            return with_update(Verdict(worst([verdict.passed for verdict in verdicts.values()]), reason), update)
        found = Found(
            self.token_similarity,
            self.gradient_norm,
            self.gradient_by_layer(),
            self.sublayer,
            self.input_share,
            self.variance,
            max(self.input_similarity.values(), default=None),
        )
        return with_update(judge_stack(found), update)

    def to_dict(self, every: int = 1) -> dict[str, Any]:
        """What is known, as plain JSON values of four digits; ``every`` thins the sub-layers, counted from the top."""

        def number(x: float) -> float | None:
            return float(f"{x:.4g}") if math.isfinite(x) else None

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(array) for key, array in value.items()}
            if isinstance(value, tuple):
                return list(value[::-every][::-1])
            if isinstance(value, float):
                return number(value)
            if not isinstance(value, np.ndarray):
                return value
            # As Python's numbers, which are formatted four times as fast as NumPy's: there are 26,000 at 1,000 layers.
            return [number(x) for x in value[::-every][::-1].tolist()]

        return {name: plain(value) for name, value in vars(self).items() if value is not None and len(value)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DepthProfile":
        """What :meth:`to_dict` made, to its four digits; what was not finite is NaN."""

        def read(name: str, value: Any) -> Any:
            if isinstance(value, dict):
                return {role: read(role, array) for role, array in value.items()}
            if not isinstance(value, list):
                return np.nan if value is None else value
            if name in ("stack", "layer", "sublayer"):
                return tuple(value)
            return np.array([np.nan if x is None else x for x in value], dtype=np.float64)

        return cls(**{name: read(name, value) for name, value in values.items()})


@dataclass(frozen=True)
class Curve:
    """One quantity by theory, by measurement, or both.

    Attributes:
        label: what it is, for legends.
        theory: (n,) predicted values, or None.
        measured: (n,) measured values for the same x, or None.
        x: (n,) where they belong; None for 0, 1, …
    """

    label: str
    theory: Array | None = None
    measured: Array | None = None
    x: Array | None = None


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
