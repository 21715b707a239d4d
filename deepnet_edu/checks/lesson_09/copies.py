"""Room 2 of lesson 09: layers that are copies of one another, seen and repaired."""

import copy
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import NotRight, Trial
from deepnet_edu.checks.tensors import Layer, is_truth, layer_of
from deepnet_edu.checks.trial import TYPE
from deepnet_edu.checks.values import describe

# --- which layers are copies


def _of_seeds(*seeds: int) -> list[Layer]:
    return [layer_of(seed) for seed in seeds]


@torch.no_grad()
def _stacks() -> list[tuple[Any, bool, str]]:
    """Layers, whether they are independent, and what to know about them."""
    one = layer_of(1)
    moved, half, turned, begun = _of_seeds(1, 1, 1), _of_seeds(1, 2, 3), _of_seeds(1, 1), _of_seeds(1, 2)
    for i, layer in enumerate(moved):
        for parameter in layer.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * i)
    half[2].matrices()[1].copy_(half[0].matrices()[1])
    for matrix in turned[1].matrices():
        matrix.copy_(matrix.flip(0))
    for ours, theirs in zip(begun[1].matrices(), begun[0].matrices(), strict=True):
        ours[0] = theirs[0]
    return [
        (_of_seeds(1, 2, 3, 4), True, "False alarm: these four layers were drawn separately."),
        (_of_seeds(1, 1, 1), False, "These are three copies of one layer."),
        ([one, one, one], False, "This is one layer, three times."),
        (_of_seeds(1, 2, 1, 2), False, "Layers A, B, A, B: there are only two different ones. Every pair counts."),
        (_of_seeds(1, 2, 3, 3), False, "The last two of these four layers are copies: every pair counts."),
        (_of_seeds(1, 1, 3, 4), False, "The first two of these four layers are copies: every pair counts."),
        (nn.ModuleList(moved), False, "These are copies whose biases and norms have moved apart since."),
        (half, False, "Only one of the two matrices is a copy here: look at each of them."),
        (nn.Sequential(*_of_seeds(5, 6)), True, "False alarm: these two layers were drawn separately."),
        (turned, True, "False alarm: these matrices have the same entries in another order, so they are different."),
        (begun, True, "False alarm: these matrices have one row in common, and all other rows differ."),
        (_of_seeds(*range(18), 4), False, "Of these nineteen layers the last one is a copy of the fifth."),
        (_of_seeds(7), True, "A single layer is not a copy."),
    ]


def _whole(layer: Layer, dimensions: Sequence[int]) -> tuple[Any, ...]:
    return tuple(n for p in layer.parameters() if p.ndim in dimensions for n in p.flatten().tolist())


def _alike(a: Layer, b: Layer) -> bool:
    return any(torch.equal(p, q) for p, q in zip(a.matrices(), b.matrices(), strict=True))


_Reading = Callable[[list[Layer]], bool]
_READINGS: list[tuple[_Reading, str]] = [
    (
        lambda layers: len(set(map(id, layers))) == len(layers),
        "Copies are different objects with equal values: compare what is in the matrices, not which object it is.",
    ),
    (
        lambda layers: not any(_alike(a, b) for a, b in pairwise(layers)),
        "Layers A, B, A, B: neighbours differ, and yet there are only two different layers. Every pair counts.",
    ),
    (
        lambda layers: len(layers) < 2 or not _alike(layers[0], layers[-1]),
        "You compare the first layer with the last one alone. Every pair counts.",
    ),
    (
        lambda layers: not any(_alike(layers[0], other) for other in layers[1:]),
        "You compare the first layer with the others, but not the others with each other. Every pair counts.",
    ),
    (
        lambda layers: (
            not any(
                torch.equal(p, q)
                for a, b in combinations(layers, 2)
                for p, q in zip(a.parameters(), b.parameters(), strict=True)
            )
        ),
        "Zero biases and unit gains are equal in every healthy model: compare the matrices alone.",
    ),
    (
        lambda layers: len({_whole(layer, (1, 2)) for layer in layers}) == len(layers),
        "Copies whose biases and norms have moved apart are still copies: compare the matrices alone.",
    ),
    (
        lambda layers: len({_whole(layer, (2,)) for layer in layers}) == len(layers),
        "Only one of the two matrices may be a copy: compare them one by one, not all of a layer's together.",
    ),
]


def layers_are_independent(trial: Trial) -> None:
    """Put the values of each matrix (`p.ndim == 2`) of each layer into a set, as tuples: the layers are independent if
    the set has as many members as there are matrices.
    """
    stacks = _stacks()
    answers = []
    for layers, *_ in stacks:
        with trial.keeping(*layers):
            got = trial.call(layers)
        trial.require(is_truth(got), "The answer is True or False.", "True or False", describe(got), TYPE)
        answers.append(bool(got))
    if answers == [right for _, right, _ in stacks]:
        return
    for reading, sentence in _READINGS:
        trial.require(answers != [reading(list(layers)) for layers, *_ in stacks], sentence)
    for said in (True, False):
        trial.require(answers != [said] * len(stacks), f"Your answer is {said} for all layers.")
    opposite = [not right for _, right, _ in stacks]
    trial.require(answers != opposite, "It is the other way round: True where no layer is a copy.")
    for got, (_, right, sentence) in zip(answers, stacks, strict=True):
        trial.require(got is right, sentence, str(right), str(got))


# --- fresh copies


class _Draw:
    """What redraws one layer, as the lesson's does: in place, from the global generator, and that make alone."""

    def __init__(self) -> None:
        self.__name__ = "draw_"
        self.drawn: list[nn.Module] = []
        self.values: list[list[Tensor]] = []

    @torch.no_grad()
    def __call__(self, layer: nn.Module) -> None:
        if not isinstance(layer, Layer):
            kind = type(layer).__name__
            raise NotRight(f"draw_ draws one whole layer, of the kind that you were given: yours got {kind}.")
        for matrix in layer.matrices():
            matrix.copy_(3 + torch.randn(matrix.shape, dtype=matrix.dtype))
        self.drawn.append(layer)
        self.values.append([matrix.clone() for matrix in layer.matrices()])


def fresh_copies(trial: Trial) -> None:
    """Make n deep copies of the layer, with copy.deepcopy, in an nn.ModuleList, and call draw_ on each of them."""
    held: list[tuple[Any, int]] = []
    for seed, n in enumerate((5, 3, 1, 0, 3)):
        layer, draw = layer_of(seed), _Draw()
        with torch.no_grad():
            layer.norm.weight.fill_(0.7)
        layer.alpha = 4.5
        layer.feed_forward[0].bias.requires_grad_(False)
        layer.eval()
        before = copy.deepcopy(layer)
        got = trial.call(layer, n, draw)
        _is_a_list_of_layers(trial, got, n)
        _are_different(trial, list(got), layer, before, draw)
        held.append((got, n))
    for got, n in held:
        trial.require(len(got) == n, "Each call makes a list of its own: an earlier one has changed.")


def _is_a_list_of_layers(trial: Trial, got: Any, n: int) -> None:
    trial.require(
        not isinstance(got, list | tuple),
        "The optimizer cannot see parameters that are not registered: put the layers into an nn.ModuleList.",
        "nn.ModuleList",
        type(got).__name__,
        TYPE,
    )
    trial.require(
        isinstance(got, nn.ModuleList | nn.Sequential),
        "The answer is an nn.ModuleList of layers.",
        "nn.ModuleList",
        type(got).__name__,
        TYPE,
    )
    trial.require(len(got) == n, "The number of layers is wrong.", f"{n} layers", f"{len(got)} layers")
    trial.require(
        not any(one is None for one in got),
        "draw_ works in place and returns nothing: put the layer into the list, not what draw_ returns.",
        rung=TYPE,
    )
    wrong = next((type(one).__name__ for one in got if not isinstance(one, Layer)), "")
    trial.require(not wrong, "You were given a layer, but your list holds something else.", "Layer", wrong, TYPE)


def _are_different(trial: Trial, layers: list[Layer], layer: Layer, before: Layer, draw: _Draw) -> None:
    n = len(layers)
    trial.require(
        len(set(map(id, layers))) == n, "One layer is there several times: all share its weights. Copy it n times."
    )
    trial.require(
        all(one is not layer for one in layers),
        "The layer that you were given is in your list: it is the caller's, so only copies of it belong there.",
    )
    places = [p.data_ptr() for one in [layer, *layers] for p in one.parameters()]
    trial.require(
        len(set(places)) == len(places),
        "A shallow copy shares its weights with the layer that it was made of: copy.deepcopy gives it its own.",
    )
    equal = n - len({tuple(one.matrices()[0].flatten().tolist()) for one in layers})
    cause = (
        "This is the room as it was published: separate parameters, equal values. Draw each copy afresh."
        if not draw.drawn
        else "You drew once and copied what you drew: first copy, then draw_ each of the copies."
        if len(draw.drawn) == 1
        else "draw_ was called on one layer again and again: it is each copy that has to be drawn."
        if len(set(map(id, draw.drawn))) == 1
        else "Some copies were never drawn: they are still as the layer that you were given."
        if sum(all(map(torch.equal, one.matrices(), before.matrices())) for one in layers) > 1
        else "You drew several layers, but some are equal: do they all begin at the same random state?"
    )
    trial.require(equal == 0, cause, f"{n} different layers", f"{n - equal}")
    trial.require(
        all(torch.equal(a, b) for a, b in zip(before.parameters(), layer.parameters(), strict=True)),
        "The layer that you were given has changed: it is the caller's. Copy it first, then draw the copy.",
    )
    trial.require(bool(draw.drawn) or n < 2, "draw_ was never called: it knows how this model's matrices are drawn.")
    # One of them may be as it was given: it is not a copy of the others.
    allowed = [*draw.values, before.matrices()]
    trial.require(
        all(any(all(map(torch.equal, one.matrices(), these)) for these in allowed) for one in layers),
        "Some matrices are not as draw_ drew them: do not change them afterwards.",
    )
    rest = [p for p in before.parameters() if p.ndim == 1]
    for one in layers:
        ours = [p for p in one.parameters() if p.ndim == 1]
        trial.require(
            all(map(torch.equal, ours, rest)) and (one.alpha, one.training) == (before.alpha, before.training),
            "What draw_ leaves alone, such as a norm's gain or α, must be as in the given layer: deep copies keep it.",
        )
        trained = [p.requires_grad for p in one.parameters()] == [p.requires_grad for p in before.parameters()]
        trial.require(
            trained and not any(p.is_inference() for p in one.parameters()),
            "These layers cannot be trained as the given one can: leave requires_grad as it is.",
        )
