"""What would fit, for a run that does not."""

from typing import Any

from deepnet_edu.fields import check_whole, checked
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning.memory import training_memory
from deepnet_edu.planning.proposal import SHARE

_SQRT = {"checkpoint_every": "auto"}


@checked()
def settings_that_fit(
    config: ModelConfig, sequences: int, tokens: int, limit_bytes: int, *, accumulate: int = 1, **how: Any
) -> list[tuple[dict[str, Any], int]]:
    """Changes that leave the update as it is and bring the peak to ``limit_bytes``, the one to try first in front.

    In this order: the fast path, checkpoints every √n_layers, what they keep in the CPU's memory, and half the
    sequences in twice as many batches for each step, or a quarter, and so on, as few as are needed.

    Args:
        config, sequences, tokens: as of :func:`training_memory`.
        limit_bytes: the device's memory, or what of it is free.
        accumulate: batches of ``sequences`` that make a step.
        how: other settings of :func:`training_memory`, as they are now.

    Returns:
        Pairs: the settings to change, as :class:`~deepnet_edu.training.TrainConfig` has them, ``path`` of the model and
        ``sequences`` of a batch beside them; and the bytes that are then needed. Empty if nothing helps.

    Raises:
        ValueError: as :func:`training_memory`; limit_bytes or accumulate is not positive.
    """
    for name, value in (("limit_bytes", limit_bytes), ("accumulate", accumulate)):
        check_whole(name, value)

    def needs(change: dict[str, Any]) -> int:
        settings = {name: value for name, value in change.items() if name not in ("sequences", "accumulate")}
        return training_memory(config, change.get("sequences", sequences), tokens, **{**how, **settings}).total

    checkpoints = [{}] if how.get("checkpoint_every") else [{}, _SQRT]
    changes: list[dict[str, Any]] = []
    if how.get("path") == "plain" and how.get("device", "cpu") == "cpu":
        changes.append({"path": "auto"})
    changes += checkpoints[1:]
    if how.get("device") == "cuda" and not how.get("offload"):
        changes.append({**checkpoints[-1], "offload": True})
    found = [(change, needed) for change in changes if (needed := needs(change)) <= limit_bytes]
    parts = 2
    while sequences % parts == 0:
        smaller = {"sequences": sequences // parts, "accumulate": accumulate * parts}
        fitting = [(change, n) for more in checkpoints if (n := needs(change := {**smaller, **more})) <= limit_bytes]
        if fitting:
            return found + fitting[:1]
        parts *= 2
    return found


@checked()
def fewest_recomputed(config: ModelConfig, sequences: int, tokens: int, limit_bytes: int, **how: Any) -> int:
    """How many layers of each stack must be computed again, the fewest with which a step needs at most
    :data:`~deepnet_edu.planning.proposal.SHARE` of a device's memory.

    Args:
        config: any.
        sequences, tokens: of a batch.
        limit_bytes: that the device has, or what of it is free.
        how: other settings of :func:`training_memory`, ``checkpoint_every`` among them.

    Returns:
        Layers, up to those of the deepest stack where even all of them need more.

    Raises:
        ValueError: as :func:`training_memory`; there are no checkpoints, or limit_bytes is not positive.
    """
    check_whole("limit_bytes", limit_bytes)
    fewest, most = 0, max(config.encoder_layers, config.decoder_layers)
    while fewest < most:  # memory falls with each layer that is computed again
        middle = (fewest + most) // 2
        need = training_memory(config, sequences, tokens, **{**how, "recompute": middle}).total
        fewest, most = (fewest, middle) if need <= SHARE * limit_bytes else (middle + 1, most)
    return fewest


@checked()
def explain(
    config: ModelConfig, sequences: int, tokens: int, limit_bytes: int, *, accumulate: int = 1, **how: Any
) -> str:
    """The same in a few words, for a run that has come to the end of a device's memory.

    Args:
        config, sequences, tokens, limit_bytes, accumulate, how: as of :func:`settings_that_fit`.
    """
    fits = settings_that_fit(config, sequences, tokens, limit_bytes, accumulate=accumulate, **how)
    needed = training_memory(config, sequences, tokens, **how).total
    ways = [
        f"{', '.join(f'{name}={value!r}' for name, value in change.items())} needs {total / 1e9:.1f} GB"
        for change, total in fits
    ]
    advice = (
        "; ".join(ways) if ways else "No setting brings it there: take fewer layers, a smaller d_model or less text"
    )
    return f"The formula says {needed / 1e9:.1f} GB, the device has {limit_bytes / 1e9:.1f} GB. {advice}."
