"""The judges of lesson 10's two steps: what the learner's step did to a small model is compared with what each known
slip would have done to it."""

from collections.abc import Iterable, Sequence
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Misconception, Trial

Pair = tuple[Tensor, Tensor]


class _Line(nn.Module):
    """loss = factor · mean((x·w + b - y)²): small enough for a gradient by hand."""

    def __init__(self, d: int, seed: int, factor: float = 1.0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(d, generator=draw, dtype=dtype))
        self.b = nn.Parameter(torch.randn(1, generator=draw, dtype=dtype))
        self.factor = factor

    def loss(self, batch: Pair) -> Tensor:
        x, y = batch
        return self.factor * (x @ self.w + self.b - y).square().mean()


def _data(d: int, seed: int, size: float = 1.0, dtype: torch.dtype = torch.float64) -> Pair:
    draw = torch.Generator().manual_seed(seed)
    return size * torch.randn(6, d, generator=draw, dtype=dtype), torch.randn(6, generator=draw, dtype=dtype)


class Descent:
    """Descent with momentum 0.5, with the parts of PyTorch's optimizers that a loop needs.

    PyTorch's own ones import its compiler when the first of them is made: seconds, which would count as the learner's.
    """

    def __init__(self, *groups: Iterable[nn.Parameter]) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(group), "lr": 0.7} for group in groups]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self._parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """One update of whatever has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state.setdefault(parameter, {"momentum_buffer": torch.zeros_like(parameter)})
                    state["momentum_buffer"].mul_(0.5).add_(parameter.grad)
                    parameter.sub_(group["lr"] * state["momentum_buffer"])

    def state_dict(self) -> dict[str, Any]:
        """Memory and settings, laid out as PyTorch does; the tensors themselves, not copies."""
        index = {parameter: i for i, parameter in enumerate(self._parameters())}
        groups = [{**group, "params": [index[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": {index[p]: dict(state) for p, state in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over memory and rates."""
        parameters = self._parameters()
        self.state = {
            parameters[i]: {name: value.clone() for name, value in state.items()}
            for i, state in state_dict["state"].items()
        }
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group["lr"] = saved["lr"]


def _optimizer(model: _Line) -> Descent:
    """Two groups, a memory, and a learning rate that nobody asked for."""
    return Descent([model.w], [model.b])


def _values(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def pair(trial: Trial, got: Any, what: str) -> tuple[float, float]:
    """Two plain numbers."""
    trial.require(
        isinstance(got, tuple | list) and len(got) == 2,
        f"The answer is a pair, {what}.",
        "two numbers",
        type(got).__name__,
    )
    trial.require(
        not any(isinstance(value, Tensor) and value.requires_grad for value in got),
        "The loss that you return still holds the whole graph in memory: loss.item() is the number.",
    )
    for value in got:
        trial.like(value, 0.0)
    return float(got[0]), float(got[1])


#: What may go wrong in a step, and what to say. Each is tried, and compared with what the learner's step has done.
_SLIPS = {
    "no zero": "The gradients of the last step are still there: backward adds to them, so begin with zero_grad.",
    "no gradient": "Nothing moved: the optimizer found no gradient. It steps after backward, no zero_grad between.",
    "no clip": "The optimizer took a gradient that was not clipped: clip between backward and its step.",
    "clip values": "Entry by entry turns the gradient: clip the norm of the whole, so that its direction stays.",
    "always": "A gradient that is shorter than clip stays as it is: clip only shortens.",
    "each": "One norm over all parameters, not one for each: the gradient keeps its direction only so.",
    "old rate": "The optimizer stepped with another rate: set ['lr'] in each of its param_groups before it steps.",
    "one group": "Only the first group got the rate: optimizer.param_groups may have several.",
}


def _slipped(
    model: _Line, batches: Sequence[Pair], rates: Sequence[float], clip: float, slip: str, scale: float = 1.0
) -> Tensor:
    """The weights after some steps, by hand, with momentum 0.5.

    Args:
        model: before the first.
        batches: one for each.
        rates: one for each.
        clip: largest norm.
        slip: what goes wrong, a key of _SLIPS, or empty.
        scale: by which a gradient that was not zeroed is divided once more.
    """
    w, b = model.w.detach().clone(), model.b.detach().clone()
    speed = [torch.zeros_like(w), torch.zeros_like(b)]
    left = [torch.zeros_like(w), torch.zeros_like(b)]
    previous = [0.7, 0.7]
    for (x, y), rate in zip(batches, rates, strict=True):
        error = (x @ w + b - y) * 2 / len(y)
        fresh = [model.factor * x.mT @ error, model.factor * error.sum().reshape(1)]
        gradient = [a + c / scale for a, c in zip(fresh, left, strict=True)] if slip == "no zero" else fresh
        norm = torch.cat(gradient).norm().item()
        taken = gradient
        if slip == "clip values":
            taken = [g.clamp(-clip, clip) for g in gradient]
        elif slip == "each":
            taken = [g * min(1.0, clip / (g.norm().item() + 1e-6)) for g in gradient]
        elif slip != "no clip":
            taken = [g * (clip / (norm + 1e-6) if norm > clip or slip == "always" else 1.0) for g in gradient]
        if slip == "no zero":
            left = taken
        if slip == "no gradient":
            taken = [torch.zeros_like(g) for g in gradient]
        used = {"old rate": previous, "one group": [rate, 0.7]}.get(slip, [rate, rate])
        speed = [0.5 * s + g for s, g in zip(speed, taken, strict=True)]
        w, b = w - used[0] * speed[0], b - used[1] * speed[1]
        previous = [rate, rate]
    return torch.cat([w, b])


def training_step(trial: Trial) -> None:
    """Zero, forward, backward, clip, rate, step; (loss, norm before clipping)."""
    for d, clip, rates in [(3, 2.0, (0.02, 0.05, 0.01)), (5, 0.6, (0.1, 0.03, 0.07, 0.02))]:
        model = _Line(d, seed=d)
        optimizer = _optimizer(model)
        # The second batch has a gradient shorter than clip.
        batches = [_data(d, 10 * d + k, size=0.02 if k == 1 else 1.0) for k in range(len(rates))]
        x, y = batches[1]
        batches[1] = x, (x @ model.w + model.b).detach() - 0.05 * y
        start = _Line(d, seed=d)
        for k, (batch, rate) in enumerate(zip(batches, rates, strict=True)):
            before, norm = _gradient(model, batch)
            found = pair(trial, trial.call(model, batch, optimizer, rate, clip), "(loss, norm of the gradient)")
            wrong = {slip: _slipped(start, batches[: k + 1], rates[: k + 1], clip, slip) for slip in _SLIPS}
            trial.equal(
                _values(model),
                _slipped(start, batches[: k + 1], rates[: k + 1], clip, ""),
                [Misconception(values, _SLIPS[slip]) for slip, values in wrong.items()],
                f"After step {k + 1} the weights are others: zero_grad, loss, backward, clip, rate, optimizer.step.",
            )
            trial.equal(
                found[0],
                before,
                [
                    Misconception(model.loss(batch).item(), "That is the loss after the step: return that of before."),
                    Misconception(norm, "The pair is the other way round: first the loss, then the norm."),
                ],
                "The first number is the loss of the batch, before the update.",
            )
            trial.equal(
                found[1],
                norm,
                [
                    Misconception(min(norm, clip), "That is the norm after clipping: return what it was before."),
                    Misconception(norm**2, "That is the square of the norm."),
                ],
                "The second number is the 2-norm of the whole gradient, before clipping.",
                tolerance=1e-5,
            )


def _gradient(model: _Line, batch: Pair) -> tuple[float, float]:
    """Loss, and norm of its gradient, of the weights as they are."""
    loss = model.loss(batch)
    return loss.item(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, [model.w, model.b])]).norm().item()


def scaled_step(trial: Trial) -> None:
    """Backward of loss·scale, gradients / scale, clip, and no step at all where they are not finite."""
    for d, clip, scale in [(3, 0.4, 2.0**16), (4, 50.0, 2.0**9)]:
        model = _Line(d, seed=20 + d)
        optimizer, batch = _optimizer(model), _data(d, 30 + d)
        for k, rate in enumerate((0.02, 0.05)):
            start, first = _Line(d, seed=20 + d), [batch] * (k + 1)
            rates = (0.02, 0.05)[: k + 1]
            loss, norm = _gradient(model, batch)
            found = pair(trial, trial.call(model, batch, optimizer, rate, clip, scale), "(loss, norm of the gradient)")
            scaled = _Line(d, seed=20 + d, factor=scale)
            over = _slipped(scaled, first, rates, clip, "")
            wrong = [
                Misconception(_clipped_scaled(start, first, rates, clip, scale), "Unscale first, then clip: the scaled "
                              "gradient is always too long, and what is left of it is divided once more."),
                Misconception(over, "The gradient was not divided by the scale: clipping only hides it."),
                Misconception(_slipped(scaled, first, rates, inf, ""), "The step was taken with the scaled gradient."),
                *(Misconception(_slipped(start, first, rates, clip, s, scale), said) for s, said in _SLIPS.items()),
            ]  # fmt: skip
            right = _slipped(start, first, rates, clip, "")
            trial.equal(
                _values(model),
                right,
                wrong,
                "The weights after the step are others: scale, backward, unscale, clip, step.",
            )
            trial.equal(
                found[0],
                loss,
                [Misconception(loss * scale, "That is the scaled loss: the scale is nobody's business outside.")],
                "The first number is the loss, without the scale.",
            )
            trial.equal(
                found[1],
                norm,
                [
                    Misconception(norm * scale, "That is the norm of the scaled gradient: unscale first."),
                    Misconception(min(norm, clip), "That is the norm after clipping: return what it was before."),
                ],
                "The second number is the norm of the unscaled gradient, before clipping.",
                tolerance=1e-5,
            )
    _overflows(trial)


def _clipped_scaled(model: _Line, batches: Sequence[Pair], rates: Sequence[float], clip: float, scale: float) -> Tensor:
    """Clipped while scaled, and unscaled afterwards: the same as a clip of clip/scale."""
    return _slipped(model, batches, rates, clip / scale, "")


def _overflows(trial: Trial) -> None:
    """Steps in float32 whose scaled gradient is infinite, though the loss is finite, and whose loss is infinite."""
    for spoiled in (None, inf):
        model = _Line(3, seed=4, dtype=torch.float32)
        optimizer, (x, y) = _optimizer(model), _data(3, 5, dtype=torch.float32)
        trial.call(model, (x, y), optimizer, 0.01, 1.0, 8.0)
        speed = [state["momentum_buffer"].clone() for state in optimizer.state.values()]
        # The scaled loss is finite in float32, its gradient is not.
        batch = (1e10 * x, y) if spoiled is None else (x, y * spoiled)
        with torch.no_grad():
            model.w.div_(1e10 if spoiled is None else 1.0)
        before = _values(model).clone()
        found = pair(trial, trial.call(model, batch, optimizer, 0.01, 1.0, 2.0**100), "(loss, norm of the gradient)")
        trial.require(
            not isfinite(found[1]),
            "The scaled gradient overflowed; return its norm as it is, inf or nan: the caller halves the scale by it.",
            "inf or nan",
            f"{found[1]:.3g}",
        )
        now = _values(model)
        trial.require(
            bool(torch.isfinite(now).all()),
            "The gradient overflowed and the step was taken: the weights are not finite any more. Skip such a step.",
        )
        trial.require(
            torch.equal(now, before),
            "A step with an overflow must change nothing: a gradient with holes in it is not the gradient.",
        )
        trial.require(
            all(map(torch.equal, speed, [state["momentum_buffer"] for state in optimizer.state.values()])),
            "The weights stayed, but the optimizer's memory changed: do not call optimizer.step at all.",
        )
