"""Sizes that a machine cannot hold, and devices that it has not, are refused before anything is made."""

from typing import Any

import torch

from deepnet_edu.messages import shown
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.model.shape import check_memory, gigabytes

#: Bytes that the modules of a sub-layer take, whatever its width; deepnet_edu.planning has the whole forecast.
_MODULES = 28_000


def least_parameters(config: ModelConfig) -> int:
    """The parameters of all matrices and embeddings, which is nearly all that there are; nothing is built."""
    d = config.d_model
    attention = 2 * d * (d + config.kv_width)
    branches = attention + config.ffn_matrices * d * config.d_ff
    cross = attention * config.decoder_layers if config.encoder_layers else 0
    ends = config.vocab_size * d * (1 if config.shared_embeddings else 2) + config.n_classes * d
    ends += config.max_length * d if config.position == "learned" else 0
    return (config.encoder_layers + config.decoder_layers) * branches + cross + ends


def check_size(config: ModelConfig, device: torch.device) -> None:
    """Refuse a model that the machine cannot hold; of one on the device meta only its modules take room.

    Raises:
        ValueError: it is too large; the sentence has the numbers.
    """
    count = 0 if device.type == "meta" else least_parameters(config)
    layers = config.encoder_layers + config.decoder_layers
    sublayers = 2 * layers + (config.decoder_layers if config.encoder_layers else 0)
    weights = count * torch.get_default_dtype().itemsize
    what = f"A model of {layers:,} layers and {count:,} parameters"
    check_memory(weights + _MODULES * sublayers, what, "take fewer layers, a smaller d_model or a smaller vocabulary")
    if device.type == "cuda" and weights > (there := torch.cuda.get_device_properties(device).total_memory):
        raise ValueError(f"{what} needs {gigabytes(weights)} on {device}, which has {gigabytes(there)}.")


def as_device(given: Any) -> torch.device:
    """The device of this name, if it can be used here.

    Raises:
        ValueError: there is no such device, or not on this machine; or it is MPS, which has no float64.
    """
    try:
        device = torch.device(given)
        if device.type == "mps":
            raise ValueError("MPS has no float64, in which probes and checks add up")
        torch.empty(0, device=device)
    except Exception as error:  # each device has another one for being absent
        why = str(error).split("\n")[0][:150].rstrip(".") or type(error).__name__
        raise ValueError(
            f"device={shown(given)}: expected one that this machine has, for example 'cpu' ({why})."
        ) from None
    return device
