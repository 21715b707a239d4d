"""Lesson 11, memory and speed: the roofline of a product, model FLOPs utilisation, and one buffer for many parameters.
What autograd keeps is judged in :mod:`deepnet_edu.checks.lesson_11.kept`."""

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_11.kept import activation_bytes, best_group, checkpointed_numbers, saved_bytes
from deepnet_edu.checks.tensors import sample

#: Rows, widths, peak, bandwidth, bytes a number. Some peaks are out of reach, so that no wrong count of bytes or
#: operations is hidden by them.
_PRODUCTS = [
    (30, 8, 20, 1e15, 90.0, 4),
    (6, 10, 4, 1e15, 70.0, 2),
    (50, 40, 70, 1e15, 17.0, 8),
    (30, 8, 20, 500.5, 90.5, 4),
    (30, 11, 5, 150.5, 70.5, 4),
    (200, 90, 300, 400.5, 90.0, 4),
    (60, 300, 80, 130.5, 21.0, 8),
]


def attainable_rate(trial: Trial) -> None:
    """The smaller of peak and bandwidth·FLOP/bytes, with FLOP = 2·rows·d_in·d_out and
    bytes = size·(rows·d_in + d_in·d_out + rows·d_out).
    """
    for rows, a, b, peak, bandwidth, size in _PRODUCTS:
        got = trial.call(rows, a, b, peak, bandwidth, size)
        flops, numbers = 2 * rows * a * b, rows * a + a * b + rows * b
        slope = bandwidth * flops / (size * numbers)
        moved = {
            "A multiplication and an addition are two operations.": slope / 2,
            "A number has size bytes: the bandwidth is in bytes.": slope * size,
            "More bytes a number make it slower, not faster.": slope * size**2,
            "The result is moved, too: it is written.": bandwidth * flops / (size * (numbers - rows * b)),
            "The second factor, the weights, is moved as well.": bandwidth * flops / (size * (numbers - a * b)),
            "The first factor is moved as well.": bandwidth * flops / (size * (numbers - rows * a)),
            "The result is written once, and not read.": bandwidth * flops / (size * (numbers + rows * b)),
            "That is the intensity, FLOP/byte: how many bytes come in a second?": flops / (size * numbers),
            "The bandwidth is in bytes a second already, not in GB.": slope * 1e9,
            "The bandwidth is in bytes a second: do not divide.": slope / 1e9,
        }
        wrong = [Misconception(min(peak, value), said) for said, value in moved.items() if value < peak]
        wrong += [
            Misconception(1 / (1 / peak + 1 / slope), "Arithmetic and memory work at the same time, not in turn."),
            Misconception(max(flops / peak, flops / slope), "That is the time. The rate is asked for, FLOP over time."),
            Misconception(peak, "That is the peak: is memory fast enough for it here?"),
            Misconception(slope, "That is what memory allows: is arithmetic fast enough for it here?"),
        ]
        trial.equal(got, min(peak, slope), wrong, "The rate for this product is wrong.")
    trial.equal(trial.call(9, 1, 7, 1e15, 2.0, 4), 2.0 * 126 / (4 * 79))
    rate = float(trial.call(10**6, 10**3, 10**3, 7.0, 1.0, 4))
    trial.require(rate == 7.0, "A large product reaches the peak, and no more.", "7", f"{rate:.6g}")


#: Tokens a second, parameters, layers, width, tokens, peak: each uses a part of its machine.
_RUNS = [
    (30.0, 5000, 7, 8, 20, 4e6),
    (120.0, 900, 5, 12, 9, 3e6),
    (11.0, 10**6, 50, 16, 64, 9e7),
    (2.0, 900, 5, 12, 9, 3e6),
]


def model_flops_utilisation(trial: Trial) -> None:
    """tokens_per_second·(6·parameters + 12·n_layers·d_model·tokens)/peak."""
    for rate, P, n, d, T, peak in _RUNS:
        got = trial.call(rate, P, n, d, T, peak)
        right = rate * (6 * P + 12 * n * d * T) / peak
        wrong = {
            "That is the forward pass alone: training takes three times that.": rate * (2 * P + 4 * n * d * T) / peak,
            "That is the backward pass alone: the forward pass counts, too.": rate * (4 * P + 8 * n * d * T) / peak,
            "Attention's scores and mixing have no weights, but cost as well.": rate * 6 * P / peak,
            "The products with weights are missing.": rate * 12 * n * d * T / peak,
            "What checkpoints compute again does not count: that is hardware utilisation.": (
                rate * (8 * P + 16 * n * d * T) / peak
            ),
            "A parameter costs two operations forward, and four backward.": rate * (2 * P + 12 * n * d * T) / peak,
            "Attention is trained as well: that is its forward pass alone.": rate * (6 * P + 4 * n * d * T) / peak,
            "Attention has two products without weights, the scores and the mixing.": (
                rate * (6 * P + 6 * n * d * T) / peak
            ),
            "FLOP a token: each token looks at T others, so one T.": rate * (6 * P + 12 * n * d * T**2) / peak,
            "Every token looks at all tokens of its sequence: where are they?": rate * (6 * P + 12 * n * d) / peak,
            "Every layer attends.": rate * (6 * P + 12 * d * T) / peak,
            "parameters are those of all layers already.": rate * (6 * P * n + 12 * n * d * T) / peak,
            "The rate is in tokens a second already, not in sequences.": right * T,
            "The rate is in tokens a second: do not divide by their number.": right / T,
            "A share between 0 and 1, not per cent.": 100 * right,
            "Upside down: divide what is used by what is there.": 1 / right,
            "That is FLOP a second: what share of the peak is it?": right * peak,
        }
        known = [Misconception(value, said) for said, value in wrong.items()]
        trial.equal(got, right, known, "The share of the peak is wrong.")
    for rate, P, n, d, T, peak in [(2.5, 9, 1, 2, 3, 500.0), (2.5, 1, 2, 1, 4, 900.0), (1.5, 9, 2, 3, 1, 700.0)]:
        trial.equal(trial.call(rate, P, n, d, T, peak), rate * (6 * P + 12 * n * d * T) / peak)
    slow, fast = (float(trial.call(rate, 5000, 7, 8, 20, 4e6)) for rate in (20.0, 40.0))
    said = "Twice the tokens a second is twice the share of the peak."
    trial.require(abs(fast - 2 * slow) <= 0.1 * fast, said, f"{2 * slow:.6g}", f"{fast:.6g}")


def flat_buffer(trial: Trial) -> None:
    """buffer = torch.cat of all parameters, detached and flattened; buffer.split cuts it into a piece for each, and
    parameter.data = piece.view_as(parameter) makes the parameter a view of it. Return the buffer.
    """
    cases = [([(3, 2), (4,), (2, 5)], torch.float64), ([(7,), (1, 3), (2, 2, 2)], torch.float32)]
    for seed, (shapes, dtype) in enumerate(cases, 1):
        parameters = [nn.Parameter(sample(*shape, seed=i + 10 * seed).to(dtype)) for i, shape in enumerate(shapes)]
        parameters[1].requires_grad_(seed == 1)  # a part of a model may not be trained
        before = [parameter.detach().clone() for parameter in parameters]
        trained = [parameter.requires_grad for parameter in parameters]
        given = list(parameters)
        got = trial.change(given)
        trial.require(got is not None, "Your function returns nothing: is there a return at its end?", got="None")
        wrong = {
            "The numbers must be in the order of the parameters, from the first to the last.": before[::-1],
            "Each parameter's rows are in their order.": [v.mT if v.ndim > 1 else v for v in before],
        }
        trial.equal(
            got.detach() if isinstance(got, Tensor) else got,
            torch.cat([value.flatten() for value in before]),
            [Misconception(torch.cat([v.flatten() for v in values]), said) for said, values in wrong.items()],
            "The buffer has other numbers than the parameters had.",
            shape_sentence="The buffer has one dimension, and as many numbers as all parameters together.",
        )
        trial.require(
            len(given) == len(parameters) and all(a is b for a, b in zip(given, parameters, strict=True)),
            "The list holds other parameters now: they must stay the same objects, only their memory changes.",
        )
        for parameter, value, wanted in zip(parameters, before, trained, strict=True):
            trial.require(
                parameter.shape == value.shape,
                "A parameter has lost its shape.",
                str(tuple(value.shape)),
                str(tuple(parameter.shape)),
            )
            trial.require(parameter.dtype == value.dtype, "A parameter has another data type now.")
            trial.require(
                torch.equal(parameter.detach(), value), "A parameter has other values: each gets its own piece."
            )
            trial.require(
                parameter.requires_grad == wanted and parameter.is_leaf,
                "A parameter is no longer trained, or is now and was not: requires_grad stays as it was.",
                f"requires_grad {wanted}",
                f"requires_grad {parameter.requires_grad}",
            )
        trial.require(
            not got.requires_grad or got.is_leaf, "The buffer is tied to autograd: detach the parameters first."
        )
        with torch.no_grad():
            got.mul_(3)
        trial.require(
            all(torch.equal(p.detach(), 3 * value) for p, value in zip(parameters, before, strict=True)),
            "The buffer is a copy: changing it does not change the parameters yet. Each of them gets its piece as "
            "memory.",
        )
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(1)
        theirs = torch.cat([parameter.detach().flatten() for parameter in parameters])
        said = "A changed parameter does not change the buffer: it is not a view."
        trial.require(torch.equal(got.detach(), theirs), said)


def norm_bytes(trial: Trial) -> None:
    """Three tensors of rows·d numbers of size bytes in one kernel, five in two operations: the sum is written, and read
    again.
    """
    for rows, d, size in ((30, 8, 4), (9, 8, 4), (7, 12, 2), (50, 3, 8), (1, 9, 2), (11, 1, 4), (5, 7, 1)):
        for one_kernel in (False, True):
            got, tensor = trial.call(rows, d, size, one_kernel), rows * d * size
            passes = 3 if one_kernel else 5
            wrong = {
                "These are numbers, and each has size bytes.": passes * rows * d,
                "Skip and branch are two tensors to read, and the result is one to write.": 2 * tensor,
                "That is one pass: how many tensors are read, and how many are written?": tensor,
            }
            if one_kernel:
                wrong["One kernel neither writes the sum nor reads it again."] = 5 * tensor
                wrong["The sum stays in registers: of the four passes one is not needed."] = 4 * tensor
            else:
                wrong["That is one kernel. Here the sum is written, and the norm reads it again."] = 3 * tensor
                wrong["Two reads and a write for the sum, a read and a write for the norm: one is missing."] = (
                    4 * tensor
                )
            said = [Misconception(value, sentence) for sentence, value in wrong.items() if value != passes * tensor]
            trial.equal(got, passes * tensor, said, "The bytes of these operations are wrong.")


JUDGES: dict[str, Judge] = {
    "activation_bytes": activation_bytes,
    "checkpointed_numbers": checkpointed_numbers,
    "attainable_rate": attainable_rate,
    "model_flops_utilisation": model_flops_utilisation,
    "saved_bytes": saved_bytes,
    "best_group": best_group,
    "flat_buffer": flat_buffer,
    "norm_bytes": norm_bytes,
}
