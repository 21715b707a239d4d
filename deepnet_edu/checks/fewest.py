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
            trial.equal(got, right, _wrong(parameters, memory, stage, activations), "Another number is the fewest.")


def _need(parameters: float, stage: int, gpus: int, activations: float) -> float:
    whole, shared = _BYTES[stage]
    return parameters * whole + parameters * shared / gpus + activations


def _fewest(parameters: float, memory: float, stage: int, activations: float) -> int | None:
    """By trying one after the other: in whole bytes, so that what fits exactly does."""
    if _BYTES[stage][0] * parameters + activations > memory:
        return None
    return next((n for n in range(1, 3000) if _need(parameters, stage, n, activations) <= memory), None)


def _wrong(parameters: float, memory: float, stage: int, activations: float) -> list[Misconception]:
    whole, shared = _BYTES[stage]
    exact = parameters * shared / (memory - activations - whole * parameters) if shared else 0.5
    right = max(1, ceil(exact))
    known = [
        (floor(exact), "Rounded down: with so many GPUs the last bytes do not fit."),
        (ceil(16 * parameters / (memory - activations)), "Only a part is shared at this stage: not all 16 bytes."),
        (ceil(16 * parameters / memory), "The activations of each GPU need room, too."),
        (exact, "GPUs are whole: round up."),
    ]
    if memory > whole * parameters:
        known.append(
            (max(1, ceil(parameters * shared / (memory - whole * parameters))), "The activations need room, too.")
        )
    return [Misconception(float(value), said) for value, said in known if value != right and value > 0]
