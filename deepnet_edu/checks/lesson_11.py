"""Lesson 11, memory and speed: what autograd keeps, measured and by formula, checkpoints and their best size, the
roofline of a product, model FLOPs utilisation, and one buffer for many parameters."""

from math import sqrt

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.parts import sample


class _Packed(nn.Module):
    """Two of three views of one product, and a buffer: views, repeats and owned memory, all in one."""

    scale: Tensor

    def __init__(self, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d, 3 * d)
        self.register_buffer("scale", torch.linspace(0.5, 2.0, d))

    def forward(self, x: Tensor) -> Tensor:
        query, key, _ = self.linear(x).chunk(3, dim=-1)
        return (query * key + query * query) * self.scale


def _modules() -> list[tuple[nn.Module, Tensor, int]]:
    """A module, its input, and the numbers that autograd keeps of it."""
    one = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 6)).double()
    # The input, and what stands before and behind GELU.
    first = (one, sample(3, 5, 6, seed=1).requires_grad_(), 15 * (6 + 10 + 10))
    # The input and the whole product; the sum keeps nothing, and the scale is a buffer.
    second = (_Packed(4), sample(2, 3, 4, seed=2).float().requires_grad_(), 6 * (4 + 3 * 4))
    # The norm's input, mean and 1/σ; the product's input.
    norm = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4))
    third = (norm, sample(7, 8, seed=3).float().requires_grad_(), 7 * (8 + 2 + 8))
    return [first, second, third]


def saved_bytes(trial: Trial) -> None:
    """Bytes of all storages that autograd keeps, each once, without those of parameters and buffers."""
    for module, x, numbers in _modules():
        size = x.element_size()
        outputs: list[Tensor] = []
        hook = module.register_forward_hook(lambda _, inputs, y, outputs=outputs: outputs.append(y))
        got = trial.call(module, x)
        hook.remove()
        saved: list[Tensor] = []

        def keep(tensor: Tensor, saved: list[Tensor] = saved) -> Tensor:
            saved.append(tensor)
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = module(x)
        owned = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers()]}
        parameters = {t.untyped_storage().data_ptr() for t in module.parameters()}
        own = [t for t in saved if t.untyped_storage().data_ptr() not in owned]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}
        wrong = [
            Misconception(0, "Nothing was kept: call module(x) with gradients on, inside the hooks."),
            Misconception(numbers, "These are numbers, not bytes: a storage has nbytes()."),
            Misconception(
                sum(t.untyped_storage().nbytes() for t in own),
                "The same memory was counted more than once: count each storage's data_ptr() once.",
            ),
            Misconception(
                sum(t.numel() * size for t in own),
                "Memory counted twice, or a view for less than it keeps: count storages, each data_ptr() once.",
            ),
            Misconception(
                sum({t.data_ptr(): t.numel() * size for t in own}.values()),
                "A view keeps the whole memory that it looks into: tensor.untyped_storage().nbytes().",
            ),
            Misconception(sum(storages.values()), "Parameters and buffers do not count: the module owns them anyway."),
            Misconception(
                sum(bytes_ for pointer, bytes_ in storages.items() if pointer not in parameters),
                "Buffers do not count either: the module owns them anyway.",
            ),
            Misconception(
                sum(t.untyped_storage().nbytes() for t in saved),
                "Parameters do not count, and the same memory counts once.",
            ),
            Misconception(4 * numbers, "Not every number has 4 bytes: ask the storage for nbytes()."),
            Misconception(y.numel() * size, "That is the output. Asked is what autograd keeps on the way to it."),
        ]
        trial.equal(got, numbers * size, wrong, "Add up nbytes() of all storages that are kept, each once.")
        trial.require(
            bool(outputs) and _same_gradient(outputs[-1], y, x),
            "Your hooks have changed what the backward pass gets: return the tensor itself, both when it is kept and "
            "when it is wanted.",
        )


def _same_gradient(one: Tensor, other: Tensor, x: Tensor) -> bool:
    try:
        return all(
            torch.equal(*pair) for pair in zip(*(torch.autograd.grad(y.sum(), x) for y in (one, other)), strict=True)
        )
    except Exception:  # what came back need not be a tensor
        return False


#: What to say to who counted so many tensors of width d_model, instead of eight.
_WIDTHS = {
    5: "Query, key and value are three tensors of width d_model, all kept.",
    6: "Two tensors of width d_model are missing: the sums before the norms, or two of attention's three inputs.",
    7: "One tensor of width d_model is missing: does the first product keep the layer's input?",
    9: "One tensor of width d_model too many: what one operation puts out and the next takes in is one tensor, and the "
    "layer's output is the next layer's.",
    10: "Two tensors of width d_model too many: attention's output is what the output product takes in, and the first "
    "norm's output is what the feed-forward branch takes in.",
}
_NO_SCORES = "Fused attention keeps no scores, which are T a head and token: it computes them again."


def activation_bytes(trial: Trial) -> None:
    """4·B·T·(8d + 2d_ff + 4 + h)."""
    for B, T, d, ff, h in [(3, 5, 9, 20, 3), (2, 7, 12, 48, 3), (1, 64, 16, 40, 4)]:
        got = trial.call(B, T, d, ff, h)
        rows, right = B * T, 8 * d + 2 * ff + 4 + h
        wrong = [
            Misconception(rows * right, "These are numbers: a float32 has 4 bytes."),
            Misconception(8 * rows * right, "A float32 has 4 bytes, not 8."),
            Misconception(2 * rows * right, "A float32 has 4 bytes. 2 would be half precision, as the papers count."),
            Misconception(4 * T * right, "All sequences of the batch are kept: B·T tokens."),
            Misconception(4 * right, "That is one token: there are B·T."),
            *[Misconception(4 * rows * (right + (n - 8) * d), said) for n, said in _WIDTHS.items()],
            Misconception(4 * rows * (right - ff), "Two tensors of width d_ff: before GELU and behind it."),
            Misconception(4 * rows * (right - 4), "Each norm keeps two numbers a token, mean and 1/σ: 4 in all."),
            Misconception(4 * rows * (right - 2), "There are two norms, with two numbers a token each."),
            Misconception(4 * rows * (right - h), "Attention keeps one number a head and token besides."),
            Misconception(4 * rows * (right - h - 4), "Norms keep two numbers a token each, attention one a head."),
            Misconception(4 * rows * (right - h + h * T), _NO_SCORES),
            Misconception(4 * rows * (right + h * T), _NO_SCORES),
            Misconception(
                4 * rows * 16 * d, "16 numbers a feature is right where d_ff = 4·d_model, and without the small ones."
            ),
        ]
        trial.equal(
            got, 4 * rows * right, wrong, "It is 4 bytes for each token's eight d_model, two d_ff, 4, and one a head."
        )


_ONE_AT_WORK = "Groups are at work one after the other: only one keeps all of its layers at a time."


def checkpointed_numbers(trial: Trial) -> None:
    """⌈n/k⌉·state + k·layer."""
    for n, k, layer, state in [(12, 4, 50, 7), (10, 3, 33, 8), (1000, 32, 1032, 64), (5, 1, 9, 4), (7, 7, 20, 6)]:
        got = trial.call(n, k, layer, state)
        groups = -(-n // k)
        wrong = [
            Misconception((n // k) * state + k * layer, "The last group may be smaller, and is one too: round n/k up."),
            Misconception(n / k * state + k * layer, "There is no part of a stream: round the number of groups up."),
            Misconception((groups - 1) * state + k * layer, "The stream that enters the first group is kept as well."),
            Misconception(
                (groups + 1) * state + k * layer, "One stream a group, at its entrance; the last output is not kept."
            ),
            Misconception(groups * state + layer, "While a group is at work, all its layers keep everything, not one."),
            Misconception(groups * state, "While a group is at work, its layers keep everything: add them."),
            Misconception(groups * state + n * layer, _ONE_AT_WORK),
            Misconception(n * state + k * layer, "One stream a group is kept, not one a layer."),
            Misconception(
                groups * layer + k * state,
                "The other way round: a stream for each group, a layer's numbers for each layer at work.",
            ),
            Misconception(k * state + groups * layer, "A stream for each group, and every layers at work."),
            Misconception(groups * (state + k * layer), _ONE_AT_WORK),
            Misconception(k * layer, "The stream at the entrance of each group is kept as well."),
            Misconception(k * state + k * layer, "How many groups are there? n_layers/every, rounded up."),
        ]
        trial.equal(got, groups * state + k * layer, wrong, "One stream a group, and all layers of one group.")


def best_group(trial: Trial) -> None:
    """The k in 1 … n with the least ⌈n/k⌉·state + k·layer."""
    for n, layer, state in [(1000, 1032, 64), (110, 3, 4), (12, 100, 3), (50, 10, 90), (9, 1, 40)]:
        got = trial.call(n, layer, state)
        memory = [-(-n // k) * state + k * layer for k in range(1, n + 1)]
        best = memory.index(min(memory)) + 1
        exact = sqrt(n * state / layer)
        wrong = [
            Misconception(min(memory), "That is the memory. Asked is the group for which it is least."),
            Misconception(best - 1, "A list counts from 0, groups from 1."),
            Misconception(round(sqrt(n)), "√N is right only where a layer keeps no more than the stream."),
            Misconception(
                sqrt(n), "√N is right only where a layer keeps no more than the stream, and groups are whole."
            ),
            Misconception(exact, "Near it, but groups are whole: try them all."),
            Misconception(round(exact), "Near it, but the last group is rounded up, too: try them all."),
            Misconception(int(exact), "Near it, but the last group is rounded up, too: try them all."),
            Misconception(
                round(sqrt(n * layer / state)), "Upside down: the more a layer keeps, the smaller the groups."
            ),
            Misconception(n, "One group of all layers keeps everything."),
            Misconception(1, "Groups of one layer keep a stream for each layer."),
        ]
        trial.equal(
            got, best, wrong, "Compute checkpointed_numbers for each size from 1 to n_layers, and take the least."
        )


def attainable_rate(trial: Trial) -> None:
    """min(peak, bandwidth·FLOP/bytes)."""
    for rows, a, b, peak, bandwidth, size in [
        (30, 8, 20, 5000.0, 90.0, 4),
        (6, 10, 4, 900.0, 70.0, 2),
        (200, 90, 300, 400.0, 90.0, 4),
        (50, 40, 70, 310.0, 17.0, 8),
    ]:
        got = trial.call(rows, a, b, peak, bandwidth, size)
        flops, numbers = 2 * rows * a * b, rows * a + a * b + rows * b
        expected = min(peak, bandwidth * flops / (size * numbers))
        wrong = [
            Misconception(max(peak, bandwidth * flops / (size * numbers)), "Both roofs hold: the lower one counts."),
            Misconception(
                min(peak, bandwidth * flops / 2 / (size * numbers)),
                "A multiplication and an addition are two operations: 2·rows·d_in·d_out.",
            ),
            Misconception(
                min(peak, bandwidth * flops / numbers), "A number has size bytes: the bandwidth is in bytes."
            ),
            Misconception(
                min(peak, bandwidth * flops * size / numbers),
                "More bytes a number make it slower: size belongs to the bytes.",
            ),
            Misconception(
                min(peak, bandwidth * flops / (size * (numbers - rows * b))), "The result is moved, too: it is written."
            ),
            Misconception(
                min(peak, bandwidth * flops / (size * (numbers - a * b))),
                "The second factor, the weights, is moved as well.",
            ),
            Misconception(
                min(peak, bandwidth * flops / (size * (numbers - rows * a))), "The first factor is moved as well."
            ),
            Misconception(
                min(peak, flops / (size * numbers)),
                "That is the intensity, FLOP/byte: times the bandwidth it is FLOP/s.",
            ),
            Misconception(
                flops / (flops / peak + size * numbers / bandwidth),
                "Arithmetic and memory work at the same time: the longer time counts, not the sum.",
            ),
            Misconception(peak, "Memory may not be fast enough for it: bandwidth·FLOP/bytes."),
            Misconception(
                bandwidth * flops / (size * numbers), "No operation is faster than the peak: take the lower of both."
            ),
            Misconception(
                max(flops / peak, size * numbers / bandwidth), "That is the time. Asked is the rate, FLOP over time."
            ),
        ]
        trial.equal(got, expected, wrong, "The lower of peak and bandwidth·FLOP/bytes, with three matrices moved.")


def model_flops_utilisation(trial: Trial) -> None:
    """tokens/s·(6P + 12·N·d·T)/peak."""
    for rate, P, n, d, T, peak in [(30.0, 5000, 3, 8, 20, 4e6), (120.0, 900, 7, 12, 5, 9e5)]:
        got = trial.call(rate, P, n, d, T, peak)
        right = rate * (6 * P + 12 * n * d * T) / peak
        wrong = [
            Misconception(
                rate * (2 * P + 4 * n * d * T) / peak,
                "That is the forward pass alone. Training takes three times that.",
            ),
            Misconception(
                rate * 6 * P / peak,
                "Attention's scores and mixing have no weights, and cost too: 12·n_layers·d_model·tokens.",
            ),
            Misconception(rate * 12 * n * d * T / peak, "The products with weights are missing: 6 a parameter."),
            Misconception(
                rate * (8 * P + 16 * n * d * T) / peak,
                "What checkpoints compute again does not count: that is hardware utilisation.",
            ),
            Misconception(rate * (2 * P + 12 * n * d * T) / peak, "6 a parameter: two forward, four backward."),
            Misconception(
                rate * (6 * P + 4 * n * d * T) / peak,
                "Attention trains as well: 12·n_layers·d_model·tokens, of which 4 are the forward pass.",
            ),
            Misconception(
                rate * (6 * P + 12 * n * d * T**2) / peak, "FLOP a token: each token looks at T others, so one T."
            ),
            Misconception(rate * (6 * P + 12 * d * T) / peak, "Every layer attends: times n_layers."),
            Misconception(rate * (6 * P * n + 12 * n * d * T) / peak, "parameters are those of all layers already."),
            Misconception(
                rate * T * (6 * P + 12 * n * d * T) / peak, "The rate is in tokens a second already, not in sequences."
            ),
            Misconception(100 * right, "A share between 0 and 1, not per cent."),
            Misconception(1 / right, "Upside down: what is used over what is there."),
            Misconception(right * peak, "That is FLOP/s: divide by the peak."),
        ]
        trial.equal(got, right, wrong, "tokens_per_second·(6·parameters + 12·n_layers·d_model·tokens)/peak.")


def flat_buffer(trial: Trial) -> None:
    """One tensor (n,) with all numbers in order, of which the parameters have become views."""
    for shapes in ([(3, 2), (4,), (2, 5)], [(7,), (1, 3), (2, 2, 2)]):
        parameters = [nn.Parameter(sample(*shape, seed=i + 10 * len(shapes[0]))) for i, shape in enumerate(shapes)]
        before = [parameter.detach().clone() for parameter in parameters]
        expected = torch.cat([value.flatten() for value in before])
        got = trial.change(list(parameters))
        trial.require(got is not None, "Your function returns nothing: is there a return at its end?", got="None")
        backwards = torch.cat([value.flatten() for value in before[::-1]])
        trial.equal(
            got.detach() if isinstance(got, Tensor) else got,
            expected,
            [Misconception(backwards, "The numbers stand in the order of the parameters.")],
            "The buffer holds the numbers of all parameters, end to end, in their order.",
            shape_sentence="The buffer has one dimension, and as many numbers as all parameters together.",
        )
        for parameter, value in zip(parameters, before, strict=True):
            trial.require(
                parameter.shape == value.shape,
                "A parameter has lost its shape: piece.view_as(parameter).",
                str(tuple(value.shape)),
                str(tuple(parameter.shape)),
            )
            trial.require(
                torch.equal(parameter.detach(), value), "A parameter has other values: each gets its own piece."
            )
        with torch.no_grad():
            got.mul_(3)
        trial.require(
            all(torch.equal(p.detach(), 3 * value) for p, value in zip(parameters, before, strict=True)),
            "torch.cat makes a copy: who changes the buffer does not change the parameters yet. Give each of them its "
            "piece as memory: parameter.data = piece.view_as(parameter).",
        )
        trial.require(
            not got.requires_grad or got.is_leaf, "The buffer is tied to autograd: detach the parameters first."
        )


JUDGES: dict[str, Judge] = {
    "saved_bytes": saved_bytes,
    "activation_bytes": activation_bytes,
    "checkpointed_numbers": checkpointed_numbers,
    "attainable_rate": attainable_rate,
    "model_flops_utilisation": model_flops_utilisation,
    "best_group": best_group,
    "flat_buffer": flat_buffer,
}
