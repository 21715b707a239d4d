"""The judge of lesson 12's sliding windows: every byte once, each with as much context as the stride leaves it."""

from collections.abc import Callable

import numpy as np

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.numbers import apart
from deepnet_edu.checks.trial import PROPERTY, Array

#: Bytes, window, stride. In the first ones the last window is shorter than the others, and every mistake shows.
_SIZES = [(25, 8, 3), (23, 8, 7), (31, 6, 4), (20, 9, 5)]
_EDGES = [(23, 8, 3), (23, 8, 1), (8, 8, 3), (5, 8, 3), (9, 8, 3), (2, 2, 1), (2, 8, 7), (24, 8, 4), (17, 2, 1)]
Losses = Callable[[int, int], Array]


def strided_loss(trial: Trial) -> None:
    """Let windows begin at 0, stride, 2·stride, … Carry the first byte that nothing has scored, 1 at the start; of each
    window add the losses from that byte on, [scored - begin - 1:], until byte n - 1 is scored; divide the sum by n - 1.
    """
    for n, window, stride in (*_SIZES, *_EDGES):
        right = _byte_by_byte(n, window, stride)
        wrong = apart(_wrong_losses(n, window, stride)) if (n, window, stride) in _SIZES else []
        said = f"For {n} bytes, windows of {window} and stride {stride} the mean loss is wrong."
        trial.equal(trial.call(_model(n, window), n, window, stride), right, wrong, said)
    other = float(trial.call(_model(23, 8, 2.0), 23, 8, 3))
    once = float(trial.call(_model(23, 8), 23, 8, 3))
    trial.require(abs(other - 2 * once) < 1e-3, "A model that loses twice as much has twice the mean.")
    flat = float(trial.call(lambda begin, end: np.full(end - begin - 1, 0.7), 40, 8, 5))
    said = "Where every byte costs the same, that is the mean: some byte counts twice, or not at all."
    trial.require(abs(flat - 0.7) < 1e-3, said, "0.7", f"{flat:.4g}", PROPERTY)


def _cost(i: int, context: int) -> float:
    """The loss of byte i with this many before it: more context helps, and some bytes are harder than others."""
    return 1 + 3 / (1 + context) + 0.1 * float(np.sin(7 * i))


def _model(n: int, window: int, times: float = 1.0) -> Losses:
    """The losses of a window; refused where no model could read it, or where it is asked for without end."""
    calls: list[int] = []

    def losses(begin: int, end: int) -> Array:
        calls.append(begin)
        if len(calls) > 4 * n:
            raise ValueError(f"losses was called {len(calls)} times for {n} bytes: does your loop end?")
        if not 0 <= begin < end <= n:
            raise ValueError(f"losses({begin}, {end}): there are bytes 0 to {n - 1}, so 0 ≤ begin < end ≤ {n}.")
        if end - begin > window:
            raise ValueError(f"losses({begin}, {end}): the model reads {window} bytes at most.")
        return np.array([times * _cost(i, i - begin) for i in range(begin + 1, end)])

    return losses


def _byte_by_byte(n: int, window: int, stride: int, times: float = 1.0) -> float:
    """Each byte in the first window that reaches it."""
    first = [stride * max(0, -((window - 1 - i) // stride)) for i in range(n)]
    return float(np.mean([times * _cost(i, i - first[i]) for i in range(1, n)]))


def _windows(n: int, window: int, stride: int) -> list[tuple[int, Array]]:
    """Begin and losses of each window until one reaches the end."""
    found, begin, losses = [], 0, _model(n, window)
    while True:
        end = min(begin + window, n)
        found.append((begin, losses(begin, end)))
        if end == n:
            return found
        begin += stride


def _wrong_losses(n: int, window: int, stride: int) -> list[Misconception]:
    every = _windows(n, window, stride)
    beside = [one for begin in range(0, n, window) for one in _model(n, window)(begin, min(begin + window, n))]
    overlapping = [_model(n, window)(begin, min(begin + window, n)) for begin in range(0, n - 1, window - 1)]
    new = [losses if not begin else losses[-stride:] for begin, losses in every]
    own, scored = [], 1
    for begin, losses in every:
        own.append(losses[scored - begin - 1 :])
        scored = begin + len(losses) + 1
    twice = "Bytes that two windows share count twice."
    alone = "Your windows are side by side: each begins without context, and its first byte is never predicted."
    apart = "That steps by whole windows: where is the stride?"
    late = "The last window is shorter: some of its last bytes were scored before."
    means = "A mean of means: windows score different numbers of bytes, so add up first and divide once."
    first = "The first byte has nothing before it: n - 1 bytes are scored."
    sums = float(sum(map(np.sum, own)))
    everything = np.concatenate([losses for _, losses in every])
    return [
        Misconception(everything.mean(), twice),
        Misconception(everything.sum() / (n - 1), twice),
        Misconception(np.mean(beside), alone),
        Misconception(np.sum(beside) / (n - 1), alone),
        Misconception(np.mean(np.concatenate(overlapping)), apart),
        Misconception(np.concatenate(new).mean(), late),
        Misconception(np.concatenate(new).sum() / (n - 1), late),
        Misconception(np.mean([one.mean() for one in own]), means),
        Misconception(np.mean([losses.mean() for _, losses in every]), means),
        Misconception(sums / n, first),
        Misconception(sums, "That is the sum: the mean over n - 1 bytes is asked for."),
        Misconception(
            _byte_by_byte(n, window, 1) if stride > 1 else np.inf,
            "That is stride 1: the windows step by as many bytes as the stride says.",
        ),
        Misconception(_last(n, window, stride), "A byte counts in the first window that reaches it, not in the last."),
    ]


def _last(n: int, window: int, stride: int) -> float:
    """Each byte in the last window that has it."""
    found: dict[int, float] = {}
    for begin, losses in _windows(n, window, stride):
        found |= {begin + 1 + i: float(loss) for i, loss in enumerate(losses)}
    return float(np.mean(list(found.values())))
