"""The stream's statistics during a forward pass, sub-layer by sub-layer, and the gradient's after it."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.fields import checked
from deepnet_edu.model import Batch, Model, evaluating
from deepnet_edu.model.compiled import unwrapped
from deepnet_edu.model.layer import SubLayer
from deepnet_edu.model.stack import Stack
from deepnet_edu.probing.refusal import check_batch, check_finite
from deepnet_edu.profiles import DepthProfile

#: What is measured at each sub-layer, in this order.
STATISTICS = ("variance", "norm", "token_similarity", "input_share", "norm_gain")
#: Stands in for a squared length of 0, whose inverse would be infinite.
TINY = 1e-24
#: Entries of the stream that wait to be measured together, about 2 MB: they are still in the processor's cache then.
TOGETHER = 2**19


def token_similarity(x: Tensor) -> Tensor:
    """Mean cosine between different tokens of the same sequence. x: (B, T, d) with T ≥ 2 → scalar tensor."""
    return _similarity(x.unsqueeze(0), torch.linalg.vecdot(x, x).unsqueeze(0))[0]


def input_share(x0: Tensor, x: Tensor) -> Tensor:
    """Share of x's variance over features along x0, token by token, then averaged. Both (B, T, d), d ≥ 3.

    Two directions that know nothing of each other share 1/(d - 1) by chance: that is taken out, so that the mean is 0
    for them, and 1 for equal ones.
    """
    cosine = F.cosine_similarity(x0 - x0.mean(-1, keepdim=True), x - x.mean(-1, keepdim=True), dim=-1)
    return _above_chance(cosine.square().mean(), x.shape[-1])


def _above_chance(share: Tensor, d: int) -> Tensor:
    """Squared cosines between vectors of d features of mean 0, without what chance gives them."""
    chance = 1 / max(2, d - 1)  # a width of 2 leaves one direction, where all is chance
    return (share - chance) / (1 - chance)


def input_similarity(x: Tensor) -> Tensor:
    """How similar a stack's input is, by what it does not tell apart: the mean cosine between the tokens of a sequence,
    or, where that is more, between sequences at the same position, where positions differ and tokens do not.
    x: (B, T, d) → scalar tensor.
    """
    ways = [way for way in (x, x.transpose(0, 1)) if way.shape[1] > 1]
    return torch.stack([token_similarity(way) for way in ways]).max()


# Below, n sub-layers are measured at once, from their states x: (n, B, T, d), with ‖x‖² as square: (n, B, T).


def _similarity(x: Tensor, square: Tensor) -> Tensor:
    """Token similarity by sub-layer, (n,)."""
    B, T = square.shape[1:]
    total = square.clamp_min(TINY).rsqrt_().unsqueeze(-2) @ x  # Σᵢ uᵢ over tokens of length 1: (n, B, 1, d)
    # |Σᵢ uᵢ|² counts every pair, and each token with itself: T ones to take away.
    return (total.square_().sum((1, 2, 3)) / B - T) / (T * (T - 1))


def _spread(x: Tensor) -> Tensor:
    """‖x - mean(x)‖², (n, B, T): d times the variance over the features, at least a tiny number."""
    centred = x - x.mean(-1, keepdim=True)
    return torch.linalg.vecdot(centred, centred).clamp_min_(TINY)


class Watch:
    """While entered, every forward pass of ``model`` leaves the stream's statistics by sub-layer here.

    Keeps five numbers a sub-layer and no activations but each stack's input, and for a moment the last few states: a
    probe looks at 2,000 sub-layers, and what it computes costs least where a few large operations serve many of them.
    The last forward pass counts.

    Args:
        model: from build_model.
        on_sublayer: called behind each sub-layer with how many were seen, and how many there are.
    """

    def __init__(self, model: Model, on_sublayer: Callable[[int, int], None] | None = None) -> None:
        self.model = model
        self._on_sublayer = on_sublayer
        self._sublayers = model.sublayers()
        self._norms = {i: norm for i, s in enumerate(self._sublayers) if (norm := getattr(s.residual, "norm", None))}
        self._index: dict[nn.Module, int] = {sublayer: i for i, sublayer in enumerate(self._sublayers)}
        self._index |= {norm: i for i, norm in self._norms.items()}
        self._rows = np.full((len(self._sublayers), len(STATISTICS)), np.nan)  # a sub-layer without norm has no gain
        self._measured: list[tuple[list[int], slice, Tensor]] = []
        self._states = _Waiting(self._measure_states)
        self._norm_inputs = _Waiting(self._measure_gains)
        self._inverses: list[tuple[int, Tensor]] = []
        self._inputs: dict[str, Tensor] = {}
        self._alike: dict[str, Tensor] = {}
        self._name: dict[Stack, str] = {stack: name for name, stack in model.own_stacks().items()}

    def __enter__(self) -> "Watch":
        self._entered = ExitStack()
        self._entered.enter_context(self.model.running(observer=self))
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._entered.close()
        self._states.flush()
        self._norm_inputs.flush()
        self._inputs.clear()

    def enters(self, stack: Stack, x: Tensor) -> None:
        """A stack's input, as the fast path calls it."""
        self._enter_stack(self._name[stack], x)

    def saw(self, sublayer: nn.Module, stream: Tensor) -> None:
        """The stream behind a sub-layer, likewise."""
        assert isinstance(sublayer, SubLayer)
        i = self._index[sublayer]
        self._states.add(i, stream, sublayer.residual.place.stack)
        if self._on_sublayer is not None:
            self._on_sublayer(i + 1, len(self._sublayers))

    def saw_norm(self, sublayer: nn.Module, inverse: Tensor) -> None:
        """1/σ of what its norm reads, likewise: the norm has computed it."""
        self._inverses.append((self._index[sublayer], inverse))

    @contextmanager
    def hooked(self, stack: nn.Module) -> Iterator[None]:
        """While a stack goes by the plain path, hooks see the same."""
        # One method for all modules, not a closure for each: 10,000 new objects cost Python a collection of all others.
        handles: list[Any] = []
        for sublayer in stack.modules():
            if not isinstance(sublayer, SubLayer):
                continue
            if sublayer.residual.place.is_first:
                handles.append(sublayer.register_forward_pre_hook(self._before))
            handles.append(sublayer.register_forward_hook(self._after))
            if norm := self._norms.get(self._index[sublayer]):
                handles.append(norm.register_forward_pre_hook(self._before_norm))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def _enter_stack(self, stack: str, x: Tensor) -> None:
        self._states.flush()  # of another pass, with another input
        self._inputs[stack] = F.normalize(x - x.mean(-1, keepdim=True), dim=-1)
        self._alike[stack] = input_similarity(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x)

    def _before(self, sublayer: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(sublayer, SubLayer)
        self._enter_stack(sublayer.residual.place.stack, sublayer.residual.stream(args[0]))

    def _before_norm(self, norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._norm_inputs.add(self._index[norm], args[0], type(norm))

    def _after(self, sublayer: nn.Module, args: tuple[Any, ...], state: tuple[Tensor, ...]) -> None:
        assert isinstance(sublayer, SubLayer)
        self.saw(sublayer, sublayer.residual.stream(state))

    def _measure_states(self, indices: list[int], x: Tensor, stack: Any) -> None:
        square = torch.linalg.vecdot(x, x)  # (n, B, T)
        share = torch.linalg.vecdot(x, self._inputs[stack].to(x.dtype)).square_().div_(_spread(x)).mean((1, 2))
        variance = square.mean((1, 2)) / x.shape[-1]
        found = (variance, square.sqrt().mean((1, 2)), _similarity(x, square), _above_chance(share, x.shape[-1]))
        self._measured.append((indices, slice(0, 4), torch.stack(found, 1)))

    def _measure_gains(self, indices: list[int], u: Tensor, kind: Any) -> None:
        square = _spread(u) if issubclass(kind, nn.LayerNorm) else torch.linalg.vecdot(u, u)
        inverse = square.rsqrt_().mean((1, 2))
        weights = [w for i in indices if isinstance(w := getattr(self._norms[i], "weight", None), Tensor)]
        # rms(γ) / σ(u) is ‖γ‖ / ‖u‖: both have d entries.
        size = torch.stack(list(torch._foreach_norm(weights))) if weights else math.sqrt(u.shape[-1])
        self._measured.append((indices, slice(4, 5), (inverse * size).unsqueeze(1)))

    def _measure_inverses(self) -> None:
        """The same where the norms have said what 1/σ is."""
        for length in {inverse.numel() for _, inverse in self._inverses}:
            chosen = [(i, inverse) for i, inverse in self._inverses if inverse.numel() == length]
            indices = [i for i, _ in chosen]
            inverse = torch.stack([inverse.view(-1) for _, inverse in chosen])
            # The norm's own has its ε inside.
            mean = inverse.pow_(-2).sub_(self._norms[indices[0]].eps).clamp_min_(TINY).rsqrt_().mean(1)
            size = torch.stack(list(torch._foreach_norm([self._norms[i].weight for i in indices])))
            width = self._norms[indices[0]].weight.numel()
            self._measured.append((indices, slice(4, 5), (mean * size / width**0.5).unsqueeze(1)))
        self._inverses.clear()

    @torch.no_grad()
    def profile(self, gradients: dict[nn.Parameter, Tensor] | None = None, factor: float = 1.0) -> DepthProfile:
        """The last forward pass as a profile; ``gradients`` by weight, if all of the sub-layers' are known.

        Before clipping they were ``factor`` times as large, and that is what counts.
        """
        label = self.model.config.title
        self._states.flush()
        self._norm_inputs.flush()
        self._measure_inverses()
        if not self._measured:
            return DepthProfile(label)
        for indices, columns, values in self._measured:
            self._rows[indices, columns] = values.double().cpu().numpy()
        self._measured.clear()
        found: dict[str, Any] = dict(zip(STATISTICS, self._rows.T.copy(), strict=True))
        if gradients is not None:
            found |= _gradient_norms(self._sublayers, gradients, factor)
        places = [sublayer.residual.place for sublayer in self._sublayers]
        return DepthProfile(
            label,
            **found,
            stack=tuple(place.stack for place in places),
            layer=tuple(place.layer for place in places),
            sublayer=tuple(place.sublayer for place in places),
            input_similarity={stack: alike.item() for stack, alike in self._alike.items()},
        )


class _Waiting:
    """Tensors of one kind and shape that are measured together, as soon as there are enough of them."""

    def __init__(self, measure: Callable[[list[int], Tensor, Any], None]) -> None:
        self.measure = measure
        self.kind: Any = None
        self.indices: list[int] = []
        self.tensors: list[Tensor] = []

    def add(self, index: int, x: Tensor, kind: Any) -> None:
        if self.tensors and (kind is not self.kind or x.shape != self.tensors[0].shape):
            self.flush()
        self.kind = kind
        self.indices.append(index)
        self.tensors.append(x)
        if len(self.tensors) * x.numel() >= TOGETHER:
            self.flush()

    @torch.no_grad()
    def flush(self) -> None:
        if not self.tensors:
            return
        x = torch.stack(self.tensors)
        indices, self.indices, self.tensors = self.indices, [], []
        # Squares of half-precision numbers overflow.
        self.measure(indices, x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, self.kind)


def _gradient_norms(sublayers: list[SubLayer], gradients: dict[nn.Parameter, Tensor], factor: float) -> dict[str, Any]:
    """2-norms by sub-layer and by role, from one call for all of them."""
    keys, tensors = [], []
    for i, sublayer in enumerate(sublayers):
        for role, gradient in sublayer.branch.weights(of=lambda weight: gradients[weight]).items():  # type: ignore[index]
            keys.append((i, role))
            tensors.append(gradient)
    sizes = factor * torch.stack(list(torch._foreach_norm(tensors))).double().cpu().numpy()
    roles = list(dict.fromkeys(role for _, role in keys))
    by_role = {role: np.full(len(sublayers), np.nan) for role in roles}
    for (i, role), size in zip(keys, sizes, strict=True):
        by_role[role][i] = size
    total = np.sqrt(np.nansum(np.square(np.stack(list(by_role.values()))), axis=0))
    broken = [i for (i, _), size in zip(keys, sizes, strict=True) if not np.isfinite(size)]
    total[broken] = np.nan  # a sum over roles must not hide one that is not finite
    return {"gradient_norm": total, "gradient_by_role": by_role}


@checked(model=unwrapped)
def probe(model: Model, batch: Batch, *, on_sublayer: Callable[[int, int], None] | None = None) -> DepthProfile:
    """Variance, length, token similarity, input share, LN's Jacobian and gradients of a model, by sub-layer.

    One forward and one backward pass on one batch, without dropout. Parameters, their gradients, frozen or not, the
    training mode and the random state are afterwards what they were. Padding counts as tokens do.

    Args:
        model: a model from build_model, trained or not; wrappers such as torch.compile's are taken off.
        batch: inputs and targets on the model's device.
        on_sublayer: called behind each sub-layer of the forward pass with how many were seen, and how many there are;
            what it raises ends the probe, and the model is as it was.

    Returns:
        The measured profile; ``.judge()`` says PASS, FAIL or UNSURE.

    Raises:
        ValueError: see :func:`~deepnet_edu.probing.refusal.check_batch` and ``check_finite`` there.
    """
    check_batch(model, batch)
    weights = [weight for sublayer in model.sublayers() for weight in sublayer.matrices()]
    with undisturbed(model), differentiable(weights), torch.enable_grad(), Watch(model, on_sublayer) as watch:
        loss = model.loss(batch.to(batch.inputs.device))
        check_finite(loss, model)
        gradients = torch.autograd.grad(loss, weights)
    return watch.profile(dict(zip(weights, gradients, strict=True)))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """While entered, the model has no dropout and takes gradients; afterwards mode and random state are as before."""
    device = next(model.parameters()).device
    with (
        torch.inference_mode(False),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        evaluating(model),
    ):
        yield


@contextmanager
def differentiable(weights: list[nn.Parameter]) -> Iterator[None]:
    """Frozen weights take a gradient for a while: a probe looks at the stack, trained or not."""
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)
