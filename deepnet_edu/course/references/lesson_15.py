"""Reference answers, cut from solutions/15_many_gpus.py by `make build`. Do not edit."""

import torch


def my_rows(batch_size, rank, ranks):
    """Rows of the batch that belong to this rank: whole numbers."""
    return range(rank, batch_size, ranks)


def share_loss(losses, all_answers, ranks):
    """What a rank calls backward on; its mean over the ranks is the mean over all answers: a tensor ()."""
    return losses.sum() * ranks / all_answers


def bytes_per_rank(parameters, ranks, stage):
    """Bytes of weights, gradients and averages on each rank: one number."""
    weights, gradients, averages = 4 * parameters, 4 * parameters, 8 * parameters
    if stage >= 1:
        averages /= ranks
    if stage >= 2:
        gradients /= ranks
    if stage >= 3:
        weights /= ranks
    return weights + gradients + averages


def bubble_share(ranks, microbatches, chunks=1):
    """Waiting over working: one number."""
    return (ranks - 1) / (microbatches * chunks)


def one_forward_one_backward(rank, ranks, microbatches):
    """What this rank does, in order: a list such as ["F0", "F1", "B0", "B1"]."""
    ahead = min(ranks - 1 - rank, microbatches)
    order = [f"F{i}" for i in range(ahead)]
    for i in range(microbatches - ahead):
        order += [f"F{ahead + i}", f"B{i}"]
    return order + [f"B{i}" for i in range(microbatches - ahead, microbatches)]


def most_kept(order):
    """The most micro-batches that are kept at one time: a whole number."""
    kept = most = 0
    for word in order:
        kept += 1 if word[0] == "F" else -1
        most = max(most, kept)
    return most


def ring_chunk(rank, step, ranks):
    """The piece that a rank sends to its neighbour: a whole number from 0 to ranks - 1."""
    return (rank - step) % ranks
