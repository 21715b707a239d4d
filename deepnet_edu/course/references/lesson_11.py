"""Reference answers, cut from solutions/11_memory_and_speed.py by `make build`. Do not edit."""

import torch


def activation_bytes(sequences, tokens, d_model, d_ff, n_heads):
    """Bytes that a decoder layer keeps for its backward pass in float32: a whole number."""
    numbers = 8 * d_model + 2 * d_ff + 4 + n_heads
    return 4 * sequences * tokens * numbers


def checkpointed_numbers(n_layers, every, layer, state):
    """The most numbers that are kept at one time: a whole number."""
    groups = n_layers // every  # a smaller one at the end is not at work when the most is kept
    return (groups - 1) * state + every * layer


def attainable_rate(rows, d_in, d_out, peak, bandwidth, size):
    """FLOP/s that a product of (rows, d_in) with (d_in, d_out) can at most reach: one number."""
    flops = 2 * rows * d_in * d_out
    moved = size * (rows * d_in + d_in * d_out + rows * d_out)
    return min(peak, bandwidth * flops / moved)


def model_flops_utilisation(tokens_per_second, parameters, n_layers, d_model, tokens, peak):
    """Share of the peak that a training run turns into what its model needs: one number."""
    flops_per_token = 6 * parameters + 12 * n_layers * d_model * tokens
    return tokens_per_second * flops_per_token / peak


def saved_bytes(module, x):
    """Bytes that autograd keeps for the backward pass of module(x): a whole number."""
    owned = {tensor.untyped_storage().data_ptr() for tensor in [*module.parameters(), *module.buffers()]}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(x)
    return sum(kept.values())


def best_group(n_layers, layer, state):
    """Layers in a group for which checkpoints keep the least: a whole number."""
    return min(range(1, n_layers + 1), key=lambda every: checkpointed_numbers(n_layers, every, layer, state))


def flat_buffer(parameters):
    """All numbers of the parameters in one tensor (n,), of which they become views."""
    buffer = torch.cat([parameter.detach().flatten() for parameter in parameters])
    pieces = buffer.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.data = piece.view_as(parameter)
    return buffer


def norm_bytes(rows, d, size, one_kernel):
    """Bytes that LN(αx + f) reads and writes: one number."""
    passes = 3 if one_kernel else 5
    return passes * rows * d * size
