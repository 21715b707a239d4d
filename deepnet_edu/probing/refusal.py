"""What cannot be probed, said before any work."""

from torch import Tensor

from deepnet_edu.model import IGNORED, Batch, Model, broken_weights, check_trainable


def check_batch(model: Model, batch: Batch) -> None:
    """Refuse what cannot be probed, before any work.

    Raises:
        ValueError: the model has no sub-layers, or weights without numbers or gradients; sequences are shorter than two
            tokens or images than two patches, no target counts, or the batch is elsewhere.
    """
    sublayers = model.sublayers()
    if not sublayers:
        raise ValueError(
            "The model has no sub-layers to probe: build it with build_model and at least one layer; "
            "for a model of another make, deepnet_edu.review.review(model)."
        )
    check_trainable(model)
    device = sublayers[0].matrices()[0].device
    if device.type == "meta":
        raise ValueError("The model is on the device meta, where weights have no numbers: build it on another.")
    for tensor in (batch.inputs, batch.targets, batch.padding, batch.target_inputs, batch.target_padding):
        if tensor is not None and tensor.device != device:
            raise ValueError(f"The batch is on {tensor.device}, the model on {device}: use batch.to('{device}').")
    for tokens in (batch.inputs, batch.target_inputs):
        if tokens is not None and tokens.ndim == 2 and tokens.shape[1] < 2:
            raise ValueError("Sequences of one token cannot be compared with each other: give two tokens or more.")
        side = model.config.patch_size
        if tokens is not None and tokens.ndim == 4 and tokens.shape[2] * tokens.shape[3] < 2 * side**2:
            raise ValueError(
                f"Images of {tokens.shape[2]} × {tokens.shape[3]} pixels are one patch, and patches are compared with "
                f"each other: give two or more of patch_size={side}."
            )
    if not (batch.targets != IGNORED).any():
        raise ValueError(f"No target of the batch counts, all are {IGNORED}: there is no loss, and no gradient of one.")


def check_finite(outputs: Tensor, model: Model) -> None:
    """Refuse weights that are not finite, seen in what the model returned: looking at all of them each time is slow.

    Raises:
        ValueError: an output is not finite because a weight is not. Finite weights that overflow are a finding.
    """
    if not outputs.isfinite().all() and (name := broken_weights(model)):
        raise ValueError(
            f"The weights of {name} are not finite: nothing that follows means anything. "
            "Load an earlier checkpoint, or build the model again."
        )
