"""Lesson 17, what it costs: parameters exactly, the bill of a run, claims about both. And ``depth_laws``."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_17.depth_laws import predict_depth
from deepnet_edu.checks.lesson_17.fewest import fewest_gpus
from deepnet_edu.checks.numbers import grows, number
from deepnet_edu.checks.trial import TYPE
from deepnet_edu.checks.values import as_array, describe, is_number

#: Vocabulary, width, layers, heads, key-value heads, feed-forward width, tied. No count is a multiple of another.
_SHAPES = [
    (10, 12, 3, 4, 2, 20, True),
    (10, 12, 3, 4, 2, 20, False),
    (37, 30, 5, 6, 3, 44, False),
    (1000, 48, 2, 8, 1, 130, True),
    (32_000, 4096, 32, 32, 8, 11_008, False),
]
#: One number at a time is 0 or 1, or there are as many groups as heads.
_EDGES = [
    (10, 12, 0, 4, 2, 20, True),
    (10, 12, 1, 4, 2, 20, True),
    (10, 12, 3, 4, 4, 20, False),
    (10, 12, 3, 1, 1, 20, True),
    (1, 12, 3, 4, 2, 20, False),
    (10, 12, 3, 4, 2, 1, True),
    (10, 12, 3, 4, 2, 0, True),
    (10, 1, 3, 1, 1, 20, False),
]


def parameters(trial: Trial) -> None:
    """Add up, for each layer, 2 * d * d for queries and output, 2 * d * (d // heads * kv_heads) for keys and values,
    3 * d * d_ff for the feed-forward branch and 2 * d for two norms; then the embedding and, unless tied, the head,
    vocab * d each; then d for the last norm.
    """
    for shape in (*_SHAPES, *_EDGES):
        got = trial.call(*shape)
        wrong = _wrong_counts(*shape) if shape in _SHAPES else []
        trial.equal(got, _built(*shape), wrong, "Some matrix or vector is missing, or counted twice.")
    one, two, three = (number(trial, 10, 480, layers, 4, 2, 2000, True) for layers in (1, 2, 3))
    grows(trial, two - one, three - one, 2, "Every layer has as many parameters as any other.")
    tied, untied = (number(trial, 91_000, 480, 2, 4, 2, 2000, tied) for tied in (True, False))
    shapes = [_built(91_000, 480, 2, 4, 2, 2000, tied) for tied in (True, False)]
    grows(trial, tied, untied, shapes[1] / shapes[0], "Untied, a model has a second matrix as large as the embedding.")


def _built(vocab: int, d: int, layers: int, heads: int, kv_heads: int, d_ff: int, tied: bool) -> int:
    """Built of PyTorch's modules on its meta device, which holds no numbers."""
    kv = d // heads * kv_heads
    shapes = [(d, d), (d, d), (d, kv), (d, kv), (d, d_ff), (d, d_ff), (d_ff, d)]
    with torch.device("meta"):
        layer = [*(nn.Linear(a, b, bias=False) for a, b in shapes if a and b), nn.RMSNorm(d), nn.RMSNorm(d)]
        ends = [nn.Embedding(vocab, d), nn.RMSNorm(d), *([] if tied else [nn.Linear(d, vocab, bias=False)])]
    in_layer, in_ends = (sum(p.numel() for part in parts for p in part.parameters()) for parts in (layer, ends))
    return layers * in_layer + in_ends


def _wrong_counts(
    vocab: int, d: int, layers: int, heads: int, kv_heads: int, d_ff: int, tied: bool
) -> list[Misconception]:
    right = _built(vocab, d, layers, heads, kv_heads, d_ff, tied)
    kv, table = d // heads * kv_heads, vocab * d
    biases = layers * (2 * d + 2 * kv + 2 * d_ff + d)
    envelope = "That is the estimate. The count has to be exact: look at each matrix by itself."
    one_norm = "A layer has two norms, one for attention and one for the feed-forward branch."
    return [
        Misconception(12 * layers * d * d + 2 * table, envelope),
        Misconception(12 * layers * d * d + (1 if tied else 2) * table, envelope),
        Misconception(
            right + layers * 2 * d * (d - kv), "Keys and values have kv_heads heads, fewer than the queries."
        ),
        Misconception(right - layers * d * (d - kv), "The output matrix reads all heads, as many as queries have."),
        Misconception(right + layers * d * (d - kv), "Both keys and values are grouped, not only one of them."),
        Misconception(right - layers * d * d_ff, "SwiGLU has three matrices: gate, up and down."),
        Misconception(right - layers * 2 * d * d_ff, "SwiGLU has three matrices: gate, up and down."),
        Misconception(right - d, "One more norm comes after the last layer."),
        Misconception(right - layers * d, one_norm),
        Misconception(right - layers * 2 * d, "The norms are missing in the layers: each has a gain."),
        Misconception(right + (2 * layers + 1) * d, "An RMSNorm has a gain and no bias."),
        Misconception(right + biases, "These models have no biases."),
        Misconception(right + biases + (2 * layers + 1) * d, "These models have no biases."),
        Misconception(right - (1 if tied else 2) * table, "Embedding and head are parameters, too."),
        Misconception(right + table, "Where they are tied the head is the embedding: one matrix, not two.")
        if tied
        else Misconception(
            right - table, "Where they are not tied the head is a second matrix, as large as the embedding."
        ),
        Misconception(right - layers * d * d, "Attention has four matrices: queries, keys, values and output."),
    ]


#: Parameters, tokens, GPUs, peak, utilisation, dollars for a GPU-hour.
_RUNS = [
    (2_939_289_600, 2.726e11, 128, 125.3e12, 0.3, 1.63),
    (2_939_289_600, 1.4e12, 100, 312e12, 0.42, 2.1),
    (7e9, 3.1e10, 26, 989e12, 0.37, 0.9),
    (5e8, 9.7e9, 3, 165e12, 0.23, 0.017),
]
_ALONE = [
    (7e9, 3.1e10, 1, 989e12, 0.37, 0.9),
    (1, 3e12, 1, 7e6, 1.0, 1.0),
    (3, 5.5, 2, 11.5, 0.5, 2.0),
    (3, 0.0, 2, 11.5, 0.5, 2.0),
]


def bill(trial: Trial) -> None:
    """hours = 6 * parameters * tokens / (gpus * peak * mfu) / 3600; then return hours / 24, and hours * gpus * price
    for all GPUs.
    """
    for run in (*_RUNS, *_ALONE):
        got = trial.call(*run)
        _two(trial, got)
        gpu_hours, price, gpus = run[1] / 3600 * run[0] * 6 / run[3] / run[4], run[5], run[2]
        days = gpu_hours / gpus / 24
        wrong = _wrong_bills(days, gpu_hours * price, run) if run in _RUNS else []
        trial.equal(got, (days, gpu_hours * price), wrong, "Days, dollars, or both are wrong.")
    few, many = (as_array(trial.call(7e9, 3.1e12, gpus, 989e12, 0.37, 0.9)) for gpus in (8, 64))
    grows(trial, many[0], few[0], 8, "Eight times as many GPUs take an eighth of the time.")
    grows(trial, many[1], few[1], 1, "More GPUs take fewer days for the same bill: the dollars must not change.")
    free = as_array(trial.call(7e9, 3.1e10, 8, 989e12, 0.37, 0.0))
    trial.require(abs(free[1]) < 1e-6, "GPUs that cost nothing make no bill.", "0", f"{free[1]:.4g}")


def _two(trial: Trial, got: Any) -> None:
    two = False
    if not isinstance(got, str | Mapping | set) and hasattr(got, "__len__"):
        try:
            two = as_array(got).shape == (2,)
        except (TypeError, ValueError):
            two = False
    trial.require(two, "The answer is two numbers: days and dollars.", got=describe(got), rung=TYPE)


def _wrong_bills(days: float, dollars: float, run: tuple[float, ...]) -> list[Misconception]:
    gpus, _, mfu, price = run[2:]
    forward = "That is the forward pass alone: the backward pass costs twice as much again."
    again = "What checkpoints compute again does not count: it lowers the utilisation instead."
    divide = "The utilisation is a share of the peak: the lower it is, the longer the run."
    hour = "The price is for an hour, and the run was counted in days (or the other way round)."
    sparse = "Twice the peak is the number for matrices that are half zeros: training has dense ones."
    return [
        Misconception((days / 3, dollars / 3), forward),
        Misconception((days * 8 / 6, dollars * 8 / 6), again),
        Misconception((days / 6, dollars / 6), "A parameter does more than one operation a token: count three passes."),
        Misconception((days * mfu * mfu, dollars * mfu * mfu), divide),
        Misconception((days * mfu, dollars * mfu), "No run reaches the peak: where is the utilisation?"),
        Misconception((days / 2, dollars / 2), sparse),
        Misconception((days, dollars / gpus), "All GPUs are paid, not one of them."),
        Misconception((days, dollars / 24), hour),
        Misconception((days * 24, dollars * 24), hour),
        Misconception((days * 24, dollars), "The first number is in days: a day has 24 hours."),
        Misconception((days * gpus, dollars), "The GPUs share the work: divide the time by their number."),
        Misconception((days * gpus, dollars * gpus), "The GPUs share the work: divide the time by their number."),
        Misconception((days * 60, dollars * 60), "An hour has 3,600 seconds."),
        Misconception((days * 86_400, dollars * 3600), "The time is still in seconds."),
        Misconception((dollars, days), "Days come first, then dollars."),
        Misconception((days, dollars / price), "Those are GPU-hours: what do they cost?"),
        Misconception((days, dollars / gpus / 24 / price), "That is one GPU's time: what do all of them cost?"),
    ]


#: The article's, then others: hardware, rent, run, scores.
_CLAIMS = [
    (
        (80_000, 8), (5_000, 128), (2_939_289_600, 260_000 * 256 * 4096, 125.3e12, 0.3),
        {"WMT": (31.9, 33.9), "OPUS": (18.4, 23.0), "TED": (18.7, 20.1), "Flores": (13.6, 18.6)},
    ),
    ((80_000, 8), (5_000, 128), (7e9, 1.1e12, 312e12, 0.41), {"a": (20.0, 19.0), "b": (11.5, 14.1), "c": (16.0, 21.3)}),
    ((147_001, 6), (930, 17), (3, 5.5, 11.5, 0.27), {"a": (30.4, 29.1), "b": (17.0, 16.8), "c": (9.0, 6.5)}),
    ((31_000, 1), (77, 1), (2e9, 3e10, 989e12, 0.35), {"only": (21.0, 24.5)}),
]  # fmt: skip
_KEYS = ("dollars a GPU", "dollars a GPU-hour", "break-even days", "days", "rent", "largest gain", "mean gain")


def seed_claims(trial: Trial) -> None:
    """Divide dollars by GPUs, and a day's rent by GPUs and 24 hours; the price of as many GPUs as are rented, over a
    day's rent, is the break-even; days come from bill with the rented GPUs, and the rent is days times a day's rent;
    a gain is ours minus theirs, then max and mean of the gains.
    """
    for i, claim in enumerate(_CLAIMS):
        got = trial.call(*claim)
        _named(trial, got)
        right, wrong = _worked_out(*claim), _wrong_claims(*claim) if i < 2 else {}
        for key in _KEYS:
            said = f'The number for "{key}" is wrong.'
            trial.equal(got[key], right[key], wrong.get(key, []), said)
    twice = trial.call((160_000, 8), *_CLAIMS[0][1:])
    once = trial.call(*_CLAIMS[0])
    said = "GPUs of twice the price break even after twice as long."
    grows(trial, float(once["break-even days"]), float(twice["break-even days"]), 2, said)


def _named(trial: Trial, got: Any) -> None:
    held = isinstance(got, Mapping)
    trial.require(held, "The answer is a dictionary: a number for each name.", got=describe(got), rung=TYPE)
    missing = [key for key in _KEYS if key not in got]
    trial.require(not missing, f"The dictionary lacks {', '.join(map(repr, missing))}.", rung=TYPE)
    for key in _KEYS:
        said = f"Under {key!r} there must be one number."
        trial.require(is_number(got[key]), said, got=describe(got[key]), rung=TYPE)


def _worked_out(hardware: Any, rent: Any, run: Any, scores: Any) -> dict[str, float]:
    (cost, bought), (a_day, rented), (n, tokens, peak, mfu) = hardware, rent, run
    days = tokens / 86_400 * n / rented * 6 / peak / mfu
    gains = [ours - theirs for theirs, ours in scores.values()]
    return {
        "dollars a GPU": cost / bought,
        "dollars a GPU-hour": a_day / 24 / rented,
        "break-even days": rented / a_day * cost / bought,
        "days": days,
        "rent": a_day * days,
        "largest gain": max(gains),
        "mean gain": sum(gains) / len(gains),
    }


def _wrong_claims(hardware: Any, rent: Any, run: Any, scores: Any) -> dict[str, list[Misconception]]:
    (cost, bought), (a_day, rented) = hardware, rent
    right = _worked_out(hardware, rent, run, scores)
    days, pairs = right["days"], list(scores.values())
    ours, theirs = [b for _, b in pairs], [a for a, _ in pairs]
    gains = [b - a for a, b in pairs]
    other = "The run uses the rented GPUs, not those that were bought."
    every = "There is a gain for each test: the largest of them is asked for."
    return {
        "dollars a GPU": [
            Misconception(cost / rented, "The price was for the GPUs that come with it."),
            Misconception(cost, "That is the price of all of them."),
        ],
        "dollars a GPU-hour": [
            Misconception(a_day / rented, "That is the price of a day, which has 24 hours."),
            Misconception(a_day / 24, "That is an hour of all of them."),
            Misconception(a_day / 24 / bought, "The rent is for the GPUs that come with it."),
        ],
        "break-even days": [
            Misconception(cost / a_day, "That compares different numbers of GPUs: buy as many as are rented."),
            Misconception(rented * cost / a_day, "That is the price of one lot for each GPU: what does one GPU cost?"),
            Misconception(cost / bought / a_day, "That buys one GPU, and rents all: take as many on both sides."),
            Misconception(24 * rented / a_day * cost / bought, "Those are hours."),
            Misconception(a_day / rented * bought / cost, "Upside down: the price over the rent of a day."),
        ],
        "days": [
            Misconception(days * rented / bought, other),
            Misconception(days * rented, "The GPUs share the work: divide the time by their number."),
            Misconception(days * 24, "Those are hours."),
        ],
        "rent": [
            Misconception(days * a_day * rented, "The rent of a day is for all GPUs already."),
            Misconception(days * a_day * 24, "The rent is for a day, not for an hour."),
            Misconception(days * a_day / 24, "The rent is for a day, and the run is counted in days."),
            Misconception(a_day, "That is the rent of one day: how long does the run take?"),
            Misconception(days * a_day / rented, "That is one GPU's share of the rent."),
        ],
        "largest gain": [
            Misconception(max(ours) - max(theirs), every),
            Misconception(max(ours), "That is a score. A gain is ours minus theirs."),
            Misconception(
                max((b - a) / a for a, b in pairs), "That is a share. The claim speaks of BLEU points: a difference."
            ),
            Misconception(
                100 * max((b - a) / a for a, b in pairs), "That is in per cent. The claim speaks of BLEU points."
            ),
            Misconception(-min(gains), "The sign is the other way round: ours minus theirs."),
            Misconception(min(gains), "That is the smallest gain."),
            Misconception(sum(gains) / len(gains), "That is the mean of the gains, not the largest."),
        ],
        "mean gain": [
            Misconception(sum(ours) / len(ours), "That is the mean score: take the mean of the gains."),
            Misconception(sum(gains), "That is the sum of the gains: divide by the number of tests."),
            Misconception(max(gains), "That is the largest gain, not the mean."),
            Misconception(-sum(gains) / len(gains), "The sign is the other way round: ours minus theirs."),
            Misconception(sorted(gains)[len(gains) // 2], "That is about the median: the mean is asked for."),
        ],
    }  # fmt: skip


JUDGES: dict[str, Judge] = {
    "parameters": parameters,
    "bill": bill,
    "seed_claims": seed_claims,
    "predict_depth": predict_depth,
    "fewest_gpus": fewest_gpus,
}
