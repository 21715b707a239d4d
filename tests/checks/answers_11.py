"""Lesson 11: right answers written differently, wrong ones that people give, and how to tell two answers apart."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks


def _see_bytes(f: Callable, g: np.random.Generator) -> Any:
    d, h, rows = (int(n) for n in g.integers(2, 9, 3))
    module = nn.Sequential(nn.Linear(d, h), nn.GELU(), nn.LayerNorm(h), nn.Linear(h, d))
    return f(module, torch.randn(rows, d))


def _see_buffer(f: Callable, g: np.random.Generator) -> Any:
    parameters = [nn.Parameter(torch.tensor(g.normal(size=g.integers(1, 4, n)))) for n in (1, 2, 3)]
    buffer = f(parameters)
    seen = [buffer.detach().clone(), *(p.detach().flatten().clone() for p in parameters)]
    with torch.no_grad():
        buffer.add_(1)
    return torch.cat([*seen, *(p.detach().flatten() for p in parameters)]).numpy()


def _group(g: np.random.Generator) -> tuple[int, int, int, int]:
    state = int(g.integers(1, 40))  # the stream that enters a layer is among the layer's numbers
    return int(g.integers(8, 40)), int(g.integers(1, 8)), state + int(g.integers(0, 60)), state


def _groups(n: int) -> list[list[int]]:
    """How many groups n layers make, by their size: without a smaller last one, and with it."""
    return [[n // k for k in range(1, n + 1)], [-(-n // k) for k in range(1, n + 1)]]


def _stack(g: np.random.Generator) -> tuple[int, int, int]:
    """One group is the best, whether a smaller last one is counted as a whole one or not. Often small: then the best
    group is a whole number of layers, of one, or more than the state has.
    """
    while True:
        state = int(g.integers(1, 10) ** g.integers(1, 3))
        n, layer = int(g.integers(1, 40)), state + int(g.integers(0, 10) ** g.integers(1, 3))
        sizes = range(1, n + 1)
        counts = [[(groups - 1) * state + k * layer for k, groups in enumerate(row, 1)] for row in _groups(n)]
        best = [[k for k, kept in zip(sizes, count, strict=True) if kept == min(count)] for count in counts]
        if best[0] == best[1] and len(best[0]) == 1:
            return n, layer, state


# What a function computes on random inputs, by exercise: two functions that agree on it everywhere are equal.
OBSERVE: dict[str, Callable[[Callable, np.random.Generator], Any]] = {
    "saved_bytes": _see_bytes,
    "activation_bytes": lambda f, g: f(*(int(n) for n in g.integers(1, 20, 5))),
    "checkpointed_numbers": lambda f, g: f(*_group(g)),
    "attainable_rate": lambda f, g: f(*(int(n) for n in g.integers(1, 50, 3)), *g.uniform(1, 99, 2), 4),
    "model_flops_utilisation": lambda f, g: f(g.uniform(1, 9), *(int(n) for n in g.integers(1, 50, 4)), 1e4),
    "best_group": lambda f, g: f(*_stack(g)),
    "flat_buffer": _see_buffer,
    "norm_bytes": lambda f, g: f(
        *(int(n) for n in g.integers(1, 50, 2)), int(2 ** g.integers(0, 4)), bool(g.integers(2))
    ),
}


def counted(count, hooks=True):
    """What saved_bytes would be if ``count`` made a number of all tensors that were kept."""

    def answer(module, x):
        kept = []

        def keep(tensor):
            kept.append(tensor)
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor), torch.set_grad_enabled(hooks):
            y = module(x)
        owned = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
        return count(kept, [t for t in kept if t.untyped_storage().data_ptr() not in owned], module, y)

    return answer


def forgetful(module, x):
    """What it keeps is right, what it gives back is not."""
    found = counted(lambda kept, own, module, y: sum(storages(own).values()))(module, x)
    with saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing):
        module(x)
    return found


def hooked(run):
    """The right count, of what run(module, x) keeps."""

    def answer(module, x):
        owned = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in owned:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            run(module, x)
        return sum(kept.values())

    return answer


def when_wanted(module, x):
    """Counts in the hook of the backward pass, which never runs."""
    kept = []

    def want(tensor):
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(lambda tensor: tensor, want):
        module(x)
    return sum(storages(kept).values())


def without_those_that_want(kept, own, module, y):
    return sum(storages([t for t in kept if not t.requires_grad]).values())


def without_parameter_objects(kept, own, module, y):
    return sum(storages([t for t in kept if not isinstance(t, nn.Parameter)]).values())


def frozen(parameters):
    buffer = torch.cat([p.detach().flatten() for p in parameters])
    for p, piece in zip(parameters, buffer.split([p.numel() for p in parameters]), strict=True):
        p.requires_grad_(False)
        p.data = piece.view_as(p)
    return buffer


def exchanged(parameters):
    """New objects in the list."""
    buffer = torch.cat([p.detach().flatten() for p in parameters])
    pieces = buffer.split([p.numel() for p in parameters])
    parameters[:] = [nn.Parameter(piece.view_as(p)) for p, piece in zip(parameters, pieces, strict=True)]
    return buffer


def narrowed(parameters):
    buffer, start = nn.utils.parameters_to_vector(parameters).detach(), 0
    for p in parameters:
        p.data = buffer.narrow(0, start, p.numel()).view(p.shape)
        start += p.numel()
    return buffer.requires_grad_()


def tied(parameters):
    buffer = torch.cat([p.flatten() for p in parameters])
    for p, piece in zip(parameters, buffer.split([p.numel() for p in parameters]), strict=True):
        p.data = piece.view_as(p)
    return buffer


def least(n, layer, state, sizes=None):
    return min(sizes or range(1, n + 1), key=lambda k: checkpointed(n, k, layer, state))


def storages(tensors):
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def without_parameters_alone(kept, own, module, y):
    owned = {p.untyped_storage().data_ptr() for p in module.parameters()}
    return sum(bytes_ for pointer, bytes_ in storages(kept).items() if pointer not in owned)


def walked(module, x, owned=lambda module: [*module.parameters(), *module.buffers()]):
    """By hooks of another kind: the storages of a list, without a dictionary."""
    seen, total = {t.untyped_storage().data_ptr() for t in owned(module)}, 0
    alive = []

    def pack(tensor):
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += len(storage)
        alive.append(tensor)
        return len(alive) - 1

    with saved_tensors_hooks(pack, alive.__getitem__):
        module(x)
    return total


def checkpointed(n, k, layer, state):
    """The most over all groups, from the first to the last."""
    sizes = [min(k, n - start) for start in range(0, n, k)]
    return max(below * state + size * layer for below, size in enumerate(sizes))


def counted_whole(n, k, layer, state):
    """A smaller last group counts as a whole one."""
    return (math.ceil(n / k) - 1) * state + k * layer


def rolled(rows, a, b, peak, bandwidth, size, flops=2, every=(1, 1, 1), lower=min):
    moved = size * (every[0] * rows * a + every[1] * a * b + every[2] * rows * b)
    return lower(peak, bandwidth * flops * rows * a * b / moved)


def pieces_one_by_one(parameters):
    buffer = torch.empty(sum(p.numel() for p in parameters), dtype=parameters[0].dtype)
    start = 0
    for p in parameters:
        piece = buffer[start : start + p.numel()]
        piece.copy_(p.detach().reshape(-1))
        p.data = piece.reshape(p.shape)
        start += p.numel()
    return buffer


def own_parameter(parameters):
    buffer = nn.Parameter(nn.utils.parameters_to_vector(parameters).detach())
    nn.utils.vector_to_parameters(buffer, parameters)
    return buffer


def backwards(parameters):
    return pieces_one_by_one(parameters[::-1])


def shapeless(parameters):
    buffer = torch.cat([p.detach().flatten() for p in parameters])
    for p, piece in zip(parameters, buffer.split([p.numel() for p in parameters]), strict=True):
        p.data = piece
    return buffer


RIGHT = [
    ("saved_bytes", counted(lambda kept, own, module, y: sum(storages(own).values()))),
    ("saved_bytes", walked),
    ("saved_bytes", hooked(lambda module, x: module.forward(x))),
    ("saved_bytes", hooked(lambda module, x: module(x).sum().backward())),
    ("activation_bytes", lambda B, T, d, ff, h: 4 * B * T * (2 * (4 * d + ff + 2) + h)),
    ("activation_bytes", lambda B, T, d, ff, h: B * T * np.sum([d, 3 * d, d, h, d, 2, d, ff, ff, d, 2]) * 4),
    ("checkpointed_numbers", checkpointed),
    ("checkpointed_numbers", counted_whole),
    ("checkpointed_numbers", lambda n, k, layer, state: len(range(k, n, k)) * state + layer * k),
    ("checkpointed_numbers", lambda n, k, layer, state: n // k * state + k * layer - state),
    (
        "best_group",
        lambda n, layer, state: 1 + int(np.argmin([checkpointed(n, k, layer, state) for k in range(1, n + 1)])),
    ),
    ("best_group", lambda n, layer, state: min((checkpointed(n, k, layer, state), k) for k in range(1, n + 1))[1]),
    ("attainable_rate", rolled),
    (
        "attainable_rate",
        lambda r, a, b, p, w, s: 2 * r * a * b / max(2 * r * a * b / p, s * (r * a + a * b + r * b) / w),
    ),
    ("model_flops_utilisation", lambda t, P, n, d, T, peak: 3 * (2 * P + 4 * n * d * T) / (peak / t)),
    ("model_flops_utilisation", lambda t, P, n, d, T, peak: min(1.0, t * (6 * P + 12 * n * d * T) / peak)),
    ("model_flops_utilisation", lambda t, P, n, d, T, peak: 6 * t * (P + 2 * n * d * T) / peak),
    ("flat_buffer", pieces_one_by_one),
    ("flat_buffer", own_parameter),
    ("flat_buffer", narrowed),
    ("norm_bytes", lambda rows, d, size, one_kernel: rows * d * size * (5 - 2 * one_kernel)),
    ("norm_bytes", lambda rows, d, size, one_kernel: size * sum(rows * d for _ in range(5) if _ < 3 or not one_kernel)),
]

WRONG = [
    ("norm_bytes", lambda rows, d, size, one_kernel: rows * d * (3 if one_kernel else 5), "each has size bytes"),
    ("norm_bytes", lambda rows, d, size, one_kernel: 3 * rows * d * size, "Here the sum is written"),
    ("norm_bytes", lambda rows, d, size, one_kernel: 5 * rows * d * size, "neither writes the sum"),
    ("norm_bytes", lambda rows, d, size, one_kernel: 2 * rows * d * size, "two tensors to read"),
    ("norm_bytes", lambda rows, d, size, one_kernel: 4 * rows * d * size, "one is missing"),
    ("norm_bytes", lambda rows, d, size, one_kernel: (4 if one_kernel else 5) * rows * d * size, "stays in registers"),
    ("norm_bytes", lambda rows, d, size, one_kernel: rows * d * size, "That is one pass"),
    ("saved_bytes", counted(lambda kept, own, m, y: sum(t.untyped_storage().nbytes() for t in own)), "more than once"),
    (
        "saved_bytes",
        counted(lambda kept, own, m, y: sum(t.numel() * 4 for t in kept)),
        "4 bytes, and much",
    ),
    ("saved_bytes", counted(lambda kept, own, m, y: sum(storages(kept).values())), "Parameters and buffers do not"),
    ("saved_bytes", counted(without_parameters_alone), "Buffers do not count either"),
    (
        "saved_bytes",
        counted(lambda kept, own, m, y: sum(n // y.element_size() for n in storages(own).values())),
        "not bytes",
    ),
    (
        "saved_bytes",
        counted(lambda kept, own, m, y: sum(storages(own).values()) * 4 // y.element_size()),
        "has 4 bytes",
    ),
    (
        "saved_bytes",
        counted(lambda kept, own, m, y: sum({t.data_ptr(): t.nbytes for t in own}.values())),
        "A view keeps",
    ),
    ("saved_bytes", counted(lambda kept, own, m, y: y.nbytes), "That is the output"),
    ("saved_bytes", counted(lambda kept, own, m, y: sum(storages(own).values()), hooks=False), "Gradients were off"),
    ("saved_bytes", lambda m, x: walked(m, x, lambda m: m.state_dict().values()), "that state_dict() leaves out"),
    ("saved_bytes", when_wanted, "the second in a backward pass"),
    ("saved_bytes", counted(without_those_that_want), "Needing a gradient"),
    ("saved_bytes", counted(without_parameter_objects), "A view of a parameter"),
    ("saved_bytes", hooked(lambda module, x: None), "module(x) was not called"),
    ("saved_bytes", hooked(lambda module, x: module.eval()(x)), "changed a module"),
    ("saved_bytes", forgetful, "what the backward pass gets"),
    ("activation_bytes", lambda B, T, d, ff, h: B * T * (8 * d + 2 * ff + 4 + h), "These are numbers"),
    ("activation_bytes", lambda B, T, d, ff, h: 2 * B * T * (8 * d + 2 * ff + 4 + h), "as the papers count"),
    ("activation_bytes", lambda B, T, d, ff, h: 4 * T * (8 * d + 2 * ff + 4 + h), "All sequences"),
    (
        "activation_bytes",
        lambda B, T, d, ff, h: 4 * B * T * (9 * d + 2 * ff + 4 + h),
        "One tensor of width d_model too",
    ),
    (
        "activation_bytes",
        lambda B, T, d, ff, h: 4 * B * T * (10 * d + 2 * ff + 4 + h),
        "Two tensors of width d_model too",
    ),
    ("activation_bytes", lambda B, T, d, ff, h: 4 * B * T * (7 * d + 2 * ff + 4 + h), "is missing"),
    ("activation_bytes", lambda B, T, d, ff, h: 4 * B * T * (6 * d + 2 * ff + 4 + h), "sums before the norms"),
    (
        "activation_bytes",
        lambda B, T, d, ff, h: 4 * B * T * (8 * d + ff + 4 + h),
        "of width d_ff is missing",
    ),
    ("activation_bytes", lambda B, T, d, ff, h: 4 * B * T * (8 * d + 2 * ff + 4 + h * T), "keeps no scores"),
    ("activation_bytes", lambda B, T, d, ff, h: 4 * B * T * (8 * d + 2 * ff + h), "mean and 1/σ"),
    ("activation_bytes", lambda B, T, d, ff, h: 64 * B * T * d, "where d_ff = 4·d_model"),
    ("checkpointed_numbers", lambda n, k, c, s: (-(-n // k) - 1) * s + (n % k or k) * c, "not the one at work"),
    ("checkpointed_numbers", lambda n, k, c, s: (n // k + 1) * s + k * c, "One group of all layers"),
    ("checkpointed_numbers", lambda n, k, c, s: (round(n / k) - 1) * s + k * c, "at one time is wrong"),
    ("checkpointed_numbers", lambda n, k, layer, state: n // k * state + k * layer, "One stream too many"),
    ("checkpointed_numbers", lambda n, k, layer, state: n / k * state + k * layer, "Streams are whole"),
    ("checkpointed_numbers", lambda n, k, layer, state: -(-n // k) * state + k * layer, "One stream too many"),
    ("checkpointed_numbers", lambda n, k, layer, state: -(-n // k) * state + layer, "not one"),
    ("checkpointed_numbers", lambda n, k, layer, state: n * state + k * layer, "not one a layer"),
    ("checkpointed_numbers", lambda n, k, layer, state: -(-n // k) * (state + k * layer), "one after the other"),
    ("checkpointed_numbers", lambda n, k, layer, state: -(-n // k) * layer + k * state, "other way round"),
    ("best_group", lambda n, c, s: least(n, c, s, [k for k in range(1, n + 1) if n % k == 0]), "need not divide"),
    ("best_group", lambda n, layer, state: least(n, layer, state) - 1, "counts from 0"),
    ("best_group", lambda n, layer, state: math.ceil(n / least(n, layer, state)), "how many groups there are"),
    ("best_group", lambda n, c, s: least(n, c, s, [2**i for i in range(10) if 2**i <= n]), "Of 39 such layers"),
    ("best_group", lambda n, layer, state: round(n**0.5), "only where a layer keeps no more"),
    ("best_group", lambda n, layer, state: math.sqrt(n * state / layer), "groups are whole"),
    ("best_group", lambda n, layer, state: round(math.sqrt(n * state / layer)), "groups are whole: try all sizes"),
    ("best_group", lambda n, layer, state: round(math.sqrt(n * layer / state)), "Upside down"),
    (
        "best_group",
        lambda n, layer, state: min(checkpointed(n, k, layer, state) for k in range(1, n + 1)),
        "the memory",
    ),
    ("attainable_rate", lambda *a: rolled(*a, lower=max), "That is the peak"),
    ("attainable_rate", lambda *a: rolled(*a, flops=1), "two operations"),
    ("attainable_rate", lambda r, a, b, p, w, s: rolled(r, a, b, p, 1e9 * w, s), "not in GB"),
    ("attainable_rate", lambda r, a, b, p, w, s: rolled(r, a, b, p, w / 1e9, s), "do not divide"),
    ("attainable_rate", lambda *a: rolled(*a, every=(1, 1, 2)), "written once"),
    ("attainable_rate", lambda *a: rolled(*a[:-1], 1), "A number has size bytes"),
    ("attainable_rate", lambda *a: rolled(*a, every=(1, 1, 0)), "it is written"),
    ("attainable_rate", lambda *a: rolled(*a, every=(1, 0, 1)), "the weights"),
    (
        "attainable_rate",
        lambda r, a, b, p, w, s: min(p, 2 * r * a * b / (s * (r * a + a * b + r * b))),
        "the intensity",
    ),
    (
        "attainable_rate",
        lambda r, a, b, p, w, s: 2 * r * a * b / (2 * r * a * b / p + s * (r * a + a * b + r * b) / w),
        "work at the same time",
    ),
    ("model_flops_utilisation", lambda t, P, n, d, T, peak: t * (2 * P + 4 * n * d * T) / peak, "forward pass alone"),
    ("model_flops_utilisation", lambda t, P, n, d, T, peak: n * t * (6 * P + 12 * n * d * T) / peak, "is wrong"),
    ("model_flops_utilisation", lambda t, P, n, d, T, peak: t * (6 * P + 12 * n * d * T) / peak / n, "is wrong"),
    (
        "model_flops_utilisation",
        lambda t, P, n, d, T, peak: round(t * (6 * P + 12 * n * d * T) / peak, 3),
        "is rounded",
    ),
    ("model_flops_utilisation", lambda t, P, n, d, T, peak: t * 6 * P / peak, "have no weights"),
    (
        "model_flops_utilisation",
        lambda t, P, n, d, T, peak: t * (8 * P + 16 * n * d * T) / peak,
        "hardware utilisation",
    ),
    (
        "model_flops_utilisation",
        lambda t, P, n, d, T, peak: t * T * (6 * P + 12 * n * d * T) / peak,
        "not in sequences",
    ),
    ("model_flops_utilisation", lambda t, P, n, d, T, peak: t * (6 * P + 12 * n * d * T * T) / peak, "so one T"),
    ("model_flops_utilisation", lambda t, P, n, d, T, peak: 100 * t * (6 * P + 12 * n * d * T) / peak, "not per cent"),
    ("flat_buffer", lambda parameters: torch.cat([p.detach().flatten() for p in parameters]), "The buffer is a copy"),
    ("flat_buffer", frozen, "is no longer trained"),
    ("flat_buffer", exchanged, "stay the same objects"),
    ("flat_buffer", tied, "tied to autograd"),
    ("flat_buffer", backwards, "in the order of the parameters"),
    ("flat_buffer", shapeless, "lost its shape"),
    ("flat_buffer", lambda parameters: parameters[0].detach().flatten(), "one dimension"),
]
