"""Whether this machine can do it at all, asked before anything is built."""

import psutil

from deepnet_edu.messages import UserError
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning.flops import branch_flops_per_token
from deepnet_edu.planning.memory import training_memory
from deepnet_edu.planning.time import RATE

#: A command that takes longer is refused, seconds.
LONGEST_S = 3600
#: Seconds that a layer of any width takes at least, to be built and to be probed.
_LAYER_S = 2e-3


def refuse_beyond(what: str, memory: float, seconds: float, instead: str) -> None:
    """Refuse what the memory of this machine cannot hold, or what takes more than an hour.

    Args:
        what: begins the sentence: what was asked for.
        memory: bytes that it needs.
        seconds: that it takes at least.
        instead: ends the sentence: what to type.

    Raises:
        UserError: it is too much; the sentence has the forecast's numbers.
    """
    there = psutil.virtual_memory().total
    if memory > there:
        raise UserError(
            f"{what} needs about {memory / 1e9:,.1f} GB of memory, and this machine has {there / 1e9:,.1f}: {instead}."
        )
    if seconds > LONGEST_S:
        raise UserError(f"{what} takes about {seconds / 3600:,.1f} hours or more on this machine: {instead}.")


def probe_needs(config: ModelConfig, sequences: int, tokens: int, *, update: bool = False) -> tuple[float, float]:
    """Bytes and, at least, seconds of building and probing a model on the CPU.

    Args:
        config: of the model.
        sequences: B.
        tokens: T.
        update: whether its first update is measured, too.

    Raises:
        ValueError: a size is too large for any machine.
    """
    memory = training_memory(config, sequences, tokens, path="plain")
    # Whatever products a rule has of its own come on top.
    operations = sequences * tokens * branch_flops_per_token(config, tokens)
    layers = config.encoder_layers + config.decoder_layers
    passes = 2 if update else 1
    return memory.total - (0 if update else memory.optimizer), layers * _LAYER_S + passes * operations / RATE
