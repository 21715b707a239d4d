"""Judges of lesson 07 on fresh weights: a packed matrix that is drawn as three, and layers that differ."""

import copy
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Misconception, NotRight, Trial
from deepnet_edu.checks.sublayers import plainly
from deepnet_edu.checks.values import same_module

_SLICES = ("query", "key", "value")


def init_qkv_(trial: Trial) -> None:
    """Under torch.no_grad(), each of the three slices of weight.chunk(3) is drawn with nn.init.xavier_normal_, with the
    gains 1, 1 and β."""
    # A Parameter and a plain tensor, as the lesson has them; β = 1 is Post-LN.
    for d, beta in [(256, 0.25), (160, 0.6), (32, 1.0)]:
        for trained in (True, False):
            _draw(trial, d, beta, trained)
    first, second = (_draw(trial, 32, 0.5, trained=True) for _ in range(2))
    trial.require(
        not torch.equal(first, second),
        "Two calls drew the same weights: with a fixed seed inside, all layers become clones.",
    )


def _draw(trial: Trial, d: int, beta: float, trained: bool) -> Tensor:
    # NaN to begin with: whatever is not filled shows.
    weight = torch.full((3 * d, d), torch.nan)
    weight = nn.Parameter(weight) if trained else weight
    place = weight.data_ptr()
    try:
        trial.change(weight, beta)
    except NotRight as wrong:
        if "in-place operation" in wrong.sentence or "modified inplace" in wrong.sentence:
            trial.fail("PyTorch must not record this change: put it under torch.no_grad(), or take weight.data.")
        raise
    slices = weight.detach().double().chunk(3)
    trial.require(
        not all(bool(part.isnan().any()) for part in slices),
        "The underscore promises a change in place: fill the weight that you were given.",
    )
    for name, part in zip(_SLICES, slices, strict=True):
        whole = bool(part.isfinite().all()) and int((part == 0).sum()) < 3
        trial.require(whole, f"The {name} slice was not drawn, or only in part.")
    _gains(trial, slices, beta)
    _distribution(trial, slices, beta)
    trial.require(
        weight.data_ptr() == place and weight.shape == (3 * d, d) and weight.dtype == torch.float32,
        "Fill the memory that you were given: you replaced it by another tensor.",
    )
    trial.require(
        weight.requires_grad == trained and weight.is_leaf,
        "Leave requires_grad as it was: a weight without a gradient is never trained.",
        f"requires_grad={trained}",
        f"requires_grad={weight.requires_grad}",
    )
    return weight.detach().clone()


def _gains(trial: Trial, slices: tuple[Tensor, ...], beta: float) -> None:
    # Xavier: std = gain·√(2/(fan_in + fan_out)), and each slice is d×d.
    d = slices[0].shape[1]
    gains = np.array([part.std(correction=0).item() * sqrt(d) for part in slices])
    noise = 5 / sqrt(2 * d * d)
    half, third = 1 / sqrt(2), 1 / sqrt(3)
    packed = (
        "Every slice comes out √2 too small: Xavier's fan_out of the packed matrix is 3d, or a gain of 1/√2 came in. "
        "Each slice maps d features to d."
    )
    order = "The order is query, key, value: β belongs to the last slice."
    default = "Gain 0.577 is PyTorch's default for nn.Linear, or 1/√(3d): the paper draws each slice with Xavier."
    kaiming = "Every slice comes out √2 too large: that is He's (Kaiming) draw. The paper draws with Xavier."
    unscaled = "These are plain normal numbers: Xavier's standard deviation falls with the width."
    root = sqrt(d)
    table: list[tuple[list[float], str]] = [
        ([half, half, half * beta], packed),
        ([half, half, half], packed),
        ([half * beta, half * beta, half * beta], packed),
        ([beta, beta, beta], "The softmax bounds what query and key can do (Lemma 4.1): their gain is 1."),
        ([1, beta, 1], order),
        ([beta, 1, 1], order),
        ([beta, beta, 1], "It is the other way round: gain 1, 1, and β for the value."),
        ([1, 1, sqrt(beta)], "Gain multiplies the weights. You scaled the variance."),
        ([1, 1, beta**2], "β came in twice: gain β is enough."),
        ([1, 1, 1], "All gains are 1, as in Post-LN. The value slice takes β."),
        ([1, 1, 1 / beta], "β makes the branch smaller: multiply by it."),
        ([third, third, third * beta], default),
        ([third, third, third], default),
        ([sqrt(2), sqrt(2), sqrt(2) * beta], kaiming),
        ([sqrt(2), sqrt(2), sqrt(2)], kaiming),
        (
            [sqrt(2 / 3), sqrt(2 / 3), beta],
            "Query and key were drawn as one matrix of shape (2d, d): fan_out is 2d there. Draw each slice by itself.",
        ),
        ([root, root, root * beta], unscaled),
        ([0.02 * root, 0.02 * root, 0.02 * root * beta], "That is GPT-2's std of 0.02: the paper draws with Xavier."),
        ([0.02 * root, 0.02 * root, 0.02 * root], "That is GPT-2's std of 0.02: the paper draws with Xavier."),
    ]
    wrong = [Misconception(np.array(value), sentence) for value, sentence in table] if beta != 1 else []
    # Half of it relative to each value and half to the largest: for gain 1 five standard errors in all.
    right = np.array([1, 1, beta])
    trial.equal(gains, right, wrong, "The slices have other gains.", tolerance=noise / 2)
    near = bool((abs(gains / right - 1) < noise).all())
    trial.require(near, "The slices have other gains.", f"{right.round(4)}", f"{gains.round(4)}")


def _distribution(trial: Trial, slices: tuple[Tensor, ...], beta: float) -> None:
    d = slices[0].shape[1]
    for name, part in zip(_SLICES, slices, strict=True):
        sigma = part.std().item()
        trial.require(
            abs(part.mean().item()) < 5 * sigma / d, f"The {name} slice is not centred on 0: its mean should be 0."
        )
        # E[w⁴]/σ⁴ is 3 for a normal distribution, 1.8 for a uniform one; its own noise is √24/d.
        tails, allowed = part.pow(4).mean().item() / sigma**4 - 3, 5 * sqrt(24) / d + 0.05
        trial.require(
            tails > -allowed,
            "The paper draws from a normal distribution; these have no tails: xavier_normal_, not _uniform_.",
        )
        trial.require(tails < allowed, f"The {name} slice is not normal: its tails are too heavy, or parts are larger.")
        # Of independent numbers the rows are nearly at right angles, and not quite.
        spread = (part @ part.mT).square().sum().item() / d / sigma**4 / d**2
        trial.require(
            abs(spread - 2) < 0.5, f"The numbers of the {name} slice depend on each other: each is drawn by itself."
        )
    for a, b, names in ((0, 1, "Query and key"), (0, 2, "Query and value"), (1, 2, "Key and value")):
        together = float(torch.corrcoef(torch.stack([slices[a].flatten(), slices[b].flatten()]))[0, 1])
        trial.require(abs(together) < 6 / d, f"{names} are not independent: draw each slice afresh.")
    sizes = (
        torch.cat([part.abs().flatten() / gain for part, gain in zip(slices, (1, 1, beta), strict=True)]).sort().values
    )
    twice = (sizes.diff() < 3e-7 * sizes[1:]).double().mean().item()
    trial.require(twice < 0.25, "The same numbers come in two places: draw each slice afresh, and all of it.")


def build_layers(trial: Trial) -> None:
    """nn.ModuleList(make_layer() for _ in range(n)): n modules, registered, each made by a call of its own."""
    matrices = [_layers(trial, n) for n in (5, 3, 5, 1)]
    trial.require(
        matrices[0] != matrices[2],
        "Two stacks came out equal: a fixed seed inside makes their layers clones of each other.",
    )
    _layers(trial, 0)


def _values(layer: nn.Module) -> list[float]:
    """A layer by its matrix."""
    values: list[float] = next(layer.parameters()).flatten().tolist()
    return values


def _layers(trial: Trial, n: int) -> list[list[float]]:
    """The matrices of the layers."""
    made: list[nn.Module] = []
    kept: list[nn.Module] = []

    def make_layer(*given: object) -> nn.Module:
        trial.require(not given, "make_layer() takes no arguments: it makes one layer with fresh weights.")
        made.append(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
        kept.append(copy.deepcopy(made[-1]))
        return made[-1]

    got = trial.call(plainly(make_layer), n)
    if not isinstance(got, nn.ModuleList | nn.Sequential):
        trial.require(
            not isinstance(got, list | tuple),
            "The optimizer cannot see parameters that are not registered: put the layers into an nn.ModuleList.",
            "nn.ModuleList",
            type(got).__name__,
        )
        trial.fail(f"The answer is an nn.ModuleList of layers, not {type(got).__name__}.")
    trial.require(len(got) == n, "The number of layers is wrong.", f"{n} layers", f"{len(got)} layers")
    layers = [layer for layer in got if isinstance(layer, nn.Sequential)]
    trial.require(len(layers) == n, "Each layer is what make_layer() returns, as it is.")
    several = len(set(map(id, layers)))
    trial.require(
        several == n, "One layer is used several times: all share its weights.", f"{n} different layers", f"{several}"
    )
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    own = len({parameter.data_ptr() for parameter in parameters})
    trial.require(
        own == len(parameters), "The layers share parameters: changing one changes all.", f"{4 * n}", f"{own}"
    )
    values = [_values(layer) for layer in layers]
    distinct, drawn = (len(set(map(tuple, one))) for one in (values, map(_values, kept)))
    trial.require(
        distinct == n,
        "Separate parameters, equal values: cloned layers, as in exercise 1.3. Draw each layer by itself."
        if drawn == len(made)
        else "make_layer() was called for each layer and drew the same numbers: there is a fixed seed inside.",
        f"{n} different matrices",
        f"{distinct}",
    )
    trial.require(all(any(layer is one for one in made) for layer in layers), "Use the layers that make_layer() made.")
    trial.require(
        all(parameter.requires_grad for parameter in parameters),
        "The optimizer cannot train these: leave requires_grad as make_layer() has it.",
    )
    at = [next(i for i, one in enumerate(made) if one is layer) for layer in layers]
    trial.require(
        all(same_module(layer, kept[i]) for layer, i in zip(layers, at, strict=True))
        and all(parameter.dtype == torch.float32 for parameter in parameters),
        "Each layer is what make_layer() returns, as it is: yours were changed afterwards.",
    )
    trial.require(len(made) == n, "make_layer was called more often than there are layers.", f"{n}", f"{len(made)}")
    return values
