"""Reference answers, cut from solutions/05_exploding_updates.py by `make build`. Do not edit."""

from math import sqrt

import numpy as np
import torch


def post_ln_init_divisor(layer, n_layers):
    """What the weights of layer 1 … n_layers are divided by: one number."""
    return n_layers - layer + 1


def learning_rate(step, peak, warmup, initial=1e-7):
    """Learning rate at a step, counted from 0: one number."""
    if step < warmup:
        return initial + (peak - initial) * step / warmup
    return peak * sqrt(warmup / step)


def model_update(model, x, step):
    """‖F(x; θ') - F(x; θ)‖, where step(model) turns θ into θ': one number."""
    before, training = {name: value.clone() for name, value in model.state_dict().items()}, model.training
    model.eval()
    with torch.no_grad():
        y = model(x)
    step(model)
    with torch.no_grad():
        change = (model(x) - y).norm().item()
    model.load_state_dict(before)
    model.train(training)
    return change


def counterexamples(arms, cause, effect):
    """(names with the cause without the effect, names with the effect without the cause)."""
    not_sufficient = [name for name, arm in arms.items() if cause(arm) and not effect(arm)]
    not_necessary = [name for name, arm in arms.items() if effect(arm) and not cause(arm)]
    return not_sufficient, not_necessary


def update_factor(alpha, gain, rate, optimizer):
    """Factor on the theorem's sum, from factors on α, on v and w, and on the learning rate: one number."""
    slope = gain / alpha
    step = rate * slope if optimizer == "sgd" else rate
    return slope * step


def warmup_distance(steps, peak, warmup):
    """Sum of the learning rates of steps 0 … steps - 1: one number."""
    return sum(learning_rate(step, peak, warmup) for step in range(steps))
