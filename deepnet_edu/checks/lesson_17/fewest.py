"""The judge of ``fewest_gpus`` (lesson 17): how many GPUs hold a model under each of ZeRO's stages."""

from math import ceil, floor

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.trial import TYPE
from deepnet_edu.checks.values import describe, is_number

#: Bytes a parameter that each rank holds whole, and that are shared, by stage.
_BYTES = ((16, 0), (4, 12), (2, 14), (0, 16))
_NONE = "No number of GPUs is enough here, since what each holds whole does not fit: the answer is None."
#: Parameters, memory, activations; the last ones fit exactly, at stages 0 and 3.
_CASES = [
    (3_806_470_144, 32 * 10**9, 4 * 10**9),
    (65_285_660_672, 80 * 10**9, 10**10),
    (3_806_470_144, 80 * 10**9, 7 * 10**9),
    (7 * 10**9, 80 * 10**9, 9 * 10**9),
    (9 * 10**8, 24 * 10**9, 2 * 10**9),
    (10**9, 18 * 10**9, 2 * 10**9),
    (3 * 10**9, 18 * 10**9, 2 * 10**9),
    (3 * 10**9, 17 * 10**9, 2 * 10**9),
    (4 * 10**9, 18 * 10**9, 2 * 10**9),
    (10**9, 16 * 10**9, 0),
    (17 * 10**9, 80 * 10**9, 7 * 10**9),
    (101 * 10**9, 80 * 10**9, 7 * 10**9),
    (32_900_000_000, 80 * 10**9, 7 * 10**9),
]


def fewest_gpus(trial: Trial) -> None:
    """room = memory - activations - whole * parameters, with whole 16, 4, 2, 0 bytes at stages 0 to 3; where room is
    negative, None; else shared * parameters over room, rounded up, at least 1, with shared 0, 12, 14, 16 bytes.

    With no room left for what is shared, None, too.
    """
    for parameters, memory, activations in _CASES:
        for stage in (3, 2, 1, 0):
            right = _fewest(parameters, memory, stage, activations)
            first = not trial.results  # there the answer is a number
            got = (trial.call if first else trial.change)(parameters, memory, stage, activations)
            if right is None:
                trial.require(got is None, _NONE, "None", describe(got))
                continue
            enough = "Some number of GPUs is enough here, since what each holds whole leaves room."
            trial.require(got is not None, enough, str(right), "None")
            trial.require(is_number(got), "The answer is a whole number, or None.", got=describe(got), rung=TYPE)
            trial.equal(got, right, _wrong(parameters, memory, stage, activations), "A different number is the fewest.")


def _need(parameters: float, stage: int, gpus: int, activations: float) -> float:
    whole, shared = _BYTES[stage]
    return parameters * whole + parameters * shared / gpus + activations


def _fewest(parameters: float, memory: float, stage: int, activations: float) -> int | None:
    """The number by trying one after the other: in whole bytes, so that what fits exactly does."""
    if _BYTES[stage][0] * parameters + activations > memory:
        return None
    return next((n for n in range(1, 3000) if _need(parameters, stage, n, activations) <= memory), None)


def _wrong(parameters: float, memory: float, stage: int, activations: float) -> list[Misconception]:
    """Slips whose value is unique here: small numbers of GPUs soon coincide."""
    whole, shared = _BYTES[stage]
    right = _fewest(parameters, memory, stage, activations)
    room, more_room = memory - activations - whole * parameters, memory - whole * parameters
    if not shared or not room:
        return []
    down = "Rounded down: on that many GPUs the last bytes do not fit."
    known: dict[str, list[float]] = {
        down: [max(1, floor(shared * parameters / room))],
        "GPUs are whole: round up.": [max(1, shared * parameters / room)],
        "Only a part is shared at this stage, not all 16 bytes.": [
            ceil(16 * parameters / (memory - activations)),
            ceil(16 * parameters / memory),
        ],
        "The activations of each GPU need room, too.": [max(1, ceil(shared * parameters / more_room))],
    }
    every = [value for values in known.values() for value in {*values}]
    return [
        Misconception(float(value), said)
        for said, values in known.items()
        for value in values
        if value != right and every.count(value) == 1
    ]
