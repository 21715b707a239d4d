"""Reference answers, cut from solutions/10_the_training_loop.py by `make build`. Do not edit."""

import os
from math import cos, isfinite, pi

import torch
from torch import nn


def training_step(model, batch, optimizer, rate, clip):
    """One update of the model, in place. Returns (loss, norm of the gradient before clipping), two numbers."""
    optimizer.zero_grad()
    loss = model.loss(batch)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss.item(), norm.item()


def scaled_step(model, batch, optimizer, rate, clip, scale):
    """One update, or none on an overflow. Returns (loss, norm of the gradient before clipping), without the scale."""
    optimizer.zero_grad()
    loss = model.loss(batch)
    (loss * scale).backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= scale
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    if isfinite(norm.item()):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return loss.item(), norm.item()


def checkpoints(model, optimizer, data):
    """(save, load): save(path, step) writes the whole run to a file, load(path) puts it back and returns the step."""

    def save(path, step):
        run = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "data": data.get_state(),
            "dropout": torch.get_rng_state(),
            "step": step,
        }
        part = path.with_suffix(".part")
        torch.save(run, part)
        os.replace(part, path)

    def load(path):
        run = torch.load(path, weights_only=True)
        model.load_state_dict(run["model"])
        optimizer.load_state_dict(run["optimizer"])
        data.set_state(run["data"])
        torch.set_rng_state(run["dropout"])
        return run["step"]

    return save, load


def accumulated_loss(model, batches):
    """Adds the gradient of the mean loss over all answers to .grad. Returns that loss, one number."""
    answers = [(batch.targets != -100).sum().item() for batch in batches]
    total = 0.0
    for batch, count in zip(batches, answers, strict=True):
        if count:
            loss = model.loss(batch) * (count / sum(answers))
            loss.backward()
            total += loss.item()
    return total


def cosine_rate(n, steps, peak, warmup, start, final):
    """Learning rate of update n: one number."""
    if n < warmup:
        return start + (peak - start) * n / warmup
    done = (n - warmup) / (steps - warmup)
    return final + (peak - final) * (1 + cos(pi * done)) / 2


def next_scale(scale, good, overflow, interval):
    """(scale, good steps in a row) for the next step."""
    if overflow:
        return scale / 2, 0
    if good + 1 == interval:
        return scale * 2, 0
    return scale, good + 1


def adamw_step(w, g, m, v, n, rate, betas, eps, decay):
    """Update n, counted from 1, of AdamW: the new (w, m, v)."""
    b1, b2 = betas
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    size = (v / (1 - b2**n)).sqrt() + eps
    return w - rate * (m / (1 - b1**n) / size + decay * w), m, v
