"""The judges of lesson 11's first half: what autograd keeps, measured, by formula, and under checkpoints."""

from math import ceil, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.checks.base import Misconception, Trial
from deepnet_edu.checks.tensors import sample


class Module(nn.Module):
    """Views, and memory that is kept twice: of the input's products, of a weight and of a buffer.

    Attributes:
        outputs: of each pass.
        graded: whether gradients were on in each.
    """

    scale: Tensor
    alpha: Tensor

    def __init__(self, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d, 6 * d)
        self.norm = nn.LayerNorm(d)
        self.register_buffer("scale", torch.linspace(0.5, 2.0, d))
        self.register_buffer("alpha", torch.tensor([0.5]), persistent=False)  # as DeepNorm's α is
        self.outputs: list[Tensor] = []
        self.graded: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        """The output, (…, d) as x is."""
        query, key, *_ = self.linear(x).chunk(6, dim=-1)
        mixed = (query * key + query * query) * self.scale * self.alpha * self.scale
        y: Tensor = self.norm(nn.functional.linear(mixed, self.linear.weight[: len(self.scale)]))
        self.outputs.append(y)
        self.graded.append(torch.is_grad_enabled())
        return y


def saved_bytes(trial: Trial) -> None:
    """Run module(x) inside saved_tensors_hooks, whose first function notes data_ptr() and nbytes() of
    tensor.untyped_storage() and returns the tensor, whose second returns what it gets. Add up nbytes(), each data_ptr()
    once, without those of parameters and buffers.
    """
    for d, rows, dtype in [
        (4, 7, torch.float32),
        (4, 9, torch.float32),
        (6, 35, torch.float64),
        (5, 11, torch.float32),
    ]:
        module, x = Module(d).to(dtype), sample(rows, d, seed=d).to(dtype).requires_grad_()
        with trial.keeping(module):
            got = trial.call(module, x)
        outputs, graded = list(module.outputs), list(module.graded)
        # The input, the product, what goes into the second product and the norm; its mean and 1/σ.
        expected = x.element_size() * rows * (d + 6 * d + d + d + 2)
        wrong, y = _wrong_bytes(module, x, expected)
        if not outputs:
            nothing = "module(x) was not called: autograd keeps tensors while it runs."
        elif not any(graded):
            nothing = "Gradients were off while module(x) ran: then autograd keeps nothing."
        else:
            nothing = "Nothing was counted: the first hook is called for what is kept, the second in a backward pass."
        known = [Misconception(0, nothing), *(Misconception(value, said) for said, value in wrong)]
        trial.equal(got, expected, known, "The number of bytes is wrong.")
        trial.require(
            bool(outputs) and _same_gradient(outputs[-1], y, x),
            "Your hooks have changed what the backward pass gets: return the tensor itself, both when it is kept and "
            "when it is wanted.",
        )


def _wrong_bytes(module: Module, x: Tensor, expected: int) -> tuple[list[tuple[str, int]], Tensor]:
    """What each slip counts, after what to say to it; and the output."""
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = module(x)
    parameters, buffers = ({_place(t) for t in owned} for owned in (module.parameters(), module.buffers()))
    own = [t for t in saved if _place(t) not in parameters | buffers]
    saved_anyway = {_place(t) for t in module.state_dict().values()}
    foreign = [t for t in saved if _place(t) not in saved_anyway]
    size = x.element_size()

    def once(tensors: list[Tensor]) -> int:
        return sum({_place(t): t.untyped_storage().nbytes() for t in tensors}.values())

    def each(tensors: list[Tensor]) -> int:
        return sum(t.untyped_storage().nbytes() for t in tensors)

    views = once([t for t in saved if not isinstance(t, nn.Parameter)])
    twice = "The same memory was counted more than once: count each storage's data_ptr() once."
    view = "A view keeps the whole memory that it is a part of: its storage tells how much that is."
    wanted = "Needing a gradient does not make a tensor the module's: activations and the input need one as well."
    wrong = [
        ("These are numbers, not bytes: a storage has nbytes().", expected // size),
        (twice, each(own)),
        (
            "Memory counted twice, and a view for less than it keeps: count storages.",
            sum(t.numel() * size for t in own),
        ),
        ("Not every number has 4 bytes, and much was counted twice: ask storages.", sum(t.numel() * 4 for t in saved)),
        (view, sum({t.data_ptr(): t.numel() * size for t in own}.values())),
        ("Parameters and buffers do not count: the module owns them anyway.", once(saved)),
        ("A view of a parameter is not a Parameter, and neither is a buffer: compare data_ptr().", views),
        ("A buffer that state_dict() leaves out is the module's as well: module.buffers().", once(foreign)),
        (
            "Buffers do not count either: the module owns them anyway.",
            once([t for t in saved if _place(t) not in parameters]),
        ),
        ("Parameters do not count: the module owns them anyway.", once([t for t in saved if _place(t) not in buffers])),
        ("Parameters do not count, and the same memory counts once.", each(saved)),
        ("Not every number has 4 bytes: ask the storage for nbytes().", expected // size * 4),
        ("That is the output. What autograd keeps on the way to it is asked for.", y.numel() * size),
        (wanted, once([t for t in own if not t.requires_grad])),
        (wanted, once([t for t in saved if not t.requires_grad])),
        (wanted, once([t for t in own if not t.is_leaf])),
        ("The input is kept as well, and does not belong to the module.", expected - x.numel() * size),
    ]
    return wrong, y


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _same_gradient(one: Tensor, other: Tensor, x: Tensor) -> bool:
    """Whether both send the same gradient back to x."""
    try:
        (mine,) = torch.autograd.grad(one.sum(), x)
    except Exception as error:  # what came back need not be a tensor; a graph that was used already was in order
        return "a second time" in str(error)
    return torch.equal(mine, torch.autograd.grad(other.sum(), x)[0])


#: What to say to this number of tensors of width d_model, instead of eight.
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
    """4·sequences·tokens·(8·d_model + 2·d_ff + 4 + n_heads): for each token eight tensors of width d_model, two of
    width d_ff, two numbers for each of two norms, one a head. Each has 4 bytes.
    """
    for B, T, d, ff, h in [(3, 5, 9, 20, 7), (5, 7, 12, 50, 6), (7, 64, 16, 40, 8)]:
        got = trial.call(B, T, d, ff, h)
        rows, right = B * T, 8 * d + 2 * ff + 4 + h
        wrong = [
            Misconception(rows * right, "These are numbers: a float32 has 4 bytes."),
            Misconception(8 * rows * right, "A float32 has 4 bytes, not 8."),
            Misconception(2 * rows * right, "A float32 has 4 bytes. 2 would be half precision, as the papers count."),
            Misconception(4 * T * right, "All sequences of the batch are kept, not one."),
            Misconception(4 * right, "That is one token of one sequence: all of them are kept."),
            *[Misconception(4 * rows * (right + (n - 8) * d), said) for n, said in _WIDTHS.items()],
            Misconception(4 * rows * (right - ff), "One tensor of width d_ff is missing: before GELU or after it."),
            Misconception(4 * rows * (right + ff), "One tensor of width d_ff too many: before GELU and after it."),
            Misconception(4 * rows * (right - 4), "The norms keep two numbers a token each: mean and 1/σ."),
            Misconception(4 * rows * (right - 2), "There are two norms, each with a mean and a 1/σ a token."),
            Misconception(4 * rows * (right - h), "Attention keeps one number a head and token besides."),
            Misconception(4 * rows * (right - h - 4), "The small numbers are missing: of the norms, and of attention."),
            Misconception(4 * rows * (right - h + 1), "Attention's number is one a head, not one for all heads."),
            Misconception(4 * rows * (right - h + h * T), _NO_SCORES),
            Misconception(4 * rows * (right + h * T), _NO_SCORES),
            Misconception(4 * rows * (right + 2 * h * T), _NO_SCORES),
            Misconception(
                4 * rows * 16 * d, "16 numbers a feature is right where d_ff = 4·d_model, and without the small ones."
            ),
        ]
        trial.equal(got, 4 * rows * right, wrong, "The number of bytes of this layer is wrong.")
    for B, T, d, ff, h in [(1, 5, 9, 20, 7), (3, 1, 9, 20, 7), (3, 5, 1, 20, 7), (3, 5, 9, 1, 7), (3, 5, 9, 20, 1)]:
        trial.equal(trial.call(B, T, d, ff, h), 4 * B * T * (8 * d + 2 * ff + 4 + h))
    short, long = (float(trial.call(2, tokens, 16, 64, 4)) for tokens in (100, 200))
    said = "Sequences twice as long keep twice as much: nothing grows with T²."
    trial.require(long == 2 * short, said, f"{2 * short:g}", f"{long:g}")


_TWICE = "One stream too many: the one that enters the group at work is among the numbers of its first layer."
_ONE_AT_WORK = "Groups are at work one after the other: only one keeps all of its layers at a time."
_SMALLER = "The last group may be smaller. Then it is not the one at work when the most is kept."


def checkpointed_numbers(trial: Trial) -> None:
    """(n_layers // every - 1)·state + every·layer: one whole group is at work and keeps all its layers, and each of the
    groups before it keeps the stream at its entrance.
    """
    # A smaller last group may be counted as a whole one: that is a stream more.
    as_whole = trial.call(12, 4, 50, 7) == 214 and trial.call(10, 4, 33, 8) == 148
    for n, k, layer, state in [(10, 4, 33, 8), (12, 4, 50, 7), (11, 4, 60, 13), (1000, 30, 1032, 64), (35, 5, 29, 4)]:
        got = trial.call(n, k, layer, state)
        groups, at_work = -(-n // k), k * layer
        exact, near = (n // k - 1) * state + at_work, (groups - 1) * state + at_work
        wrong = [
            Misconception(groups * state + at_work, _TWICE),
            *([] if as_whole else [Misconception(n // k * state + at_work, _TWICE)]),
            Misconception((n / k - 1) * state + at_work, "Streams are whole, since groups are."),
            Misconception(
                (groups + 1) * state + at_work, "Two streams too many: those that wait before the group at work."
            ),
            Misconception((groups - 1) * state + layer, "While a group is at work, all its layers keep everything."),
            Misconception(groups * state + layer, "While a group is at work, all its layers keep everything, not one."),
            Misconception(groups * state, "While a group is at work, its layers keep everything: add them."),
            Misconception((groups - 1) * state, "While a group is at work, its layers keep everything, too: add them."),
            Misconception((groups - 1) * state + n * layer, _ONE_AT_WORK),
            Misconception(groups * state + n * layer, _ONE_AT_WORK),
            Misconception(groups * (state + at_work), _ONE_AT_WORK),
            Misconception(n * state + at_work, "One stream a group is kept, not one a layer."),
            Misconception((n - 1) * state + at_work, "One stream a group is kept, not one for each layer."),
            Misconception((groups - 1) * layer + k * state, "The other way round: a stream for each group that waits."),
            Misconception(groups * layer + k * state, "The other way round: streams wait, and layers are at work."),
            Misconception(at_work, "The streams at the entrances of the other groups are kept as well."),
            Misconception(at_work + state, "There is a stream for each group that waits, not one for all."),
        ]
        if n % k:
            short = (groups - 1) * state + n % k * layer
            wrong += [
                Misconception(short, _SMALLER),
                Misconception(n / k * state + at_work, "Streams are whole, since groups are."),
            ]
        trial.equal(got, near if as_whole else exact, wrong, "The most that is kept at one time is wrong.")
    for k, exact in [(5, 251), (4, 202)]:  # twelve layers, with the least stream
        trial.equal(trial.call(12, k, 50, 1), exact + (as_whole and k == 5))
    whole = float(trial.call(9, 9, 100, 7))
    said = "One group of all layers keeps what the layers keep, and no stream besides."
    trial.require(whole == 900, said, "900", f"{whole:g}")
    single = float(trial.call(8, 1, 70, 6))
    said = "Groups of one layer: while the last is at work, a stream waits for each of the others."
    trial.require(single == 112, said, "112", f"{single:g}")


#: Layers, numbers of a layer and of the stream. In each one size is best, however a smaller last group is counted.
_STACKS = [(500, 51, 26), (500, 51, 96), (145, 18, 8), (997, 193, 38), (101, 59, 29)]


#: The same and the best size. In some a number more or less of anything makes another size the best.
_SMALL = [
    (1000, 1032, 64, 8),
    (997, 1032, 64, 8),
    (12, 1032, 64, 1),
    (1, 9, 4, 1),
    (40, 5, 2, 4),
    (39, 21, 11, 5),
    (38, 7, 2, 3),
    (39, 11, 2, 3),
    (39, 3, 2, 5),
    (71, 8, 5, 6),
    (69, 20, 1, 2),
]


def best_group(trial: Trial) -> None:
    """Of all sizes from 1 to n_layers the one with the least checkpointed_numbers(n_layers, every, layer, state):
    min(range(1, n_layers + 1), key=…).
    """
    for n, layer, state in _STACKS:
        got = trial.call(n, layer, state)
        memory = [(n // k - 1) * state + k * layer for k in range(1, n + 1)]
        best = memory.index(min(memory)) + 1
        root, near = sqrt(n), sqrt(n * state / layer)
        divisors = [k for k in range(1, n + 1) if n % k == 0]
        wrong: dict[str, Any] = {
            "That is the memory. The size of the group for which it is least is asked for.": [
                min(memory),
                min((ceil(n / k) - 1) * state + k * layer for k in range(1, n + 1)),
            ],
            "A list counts from 0, groups from 1.": [best - 1],
            "That is how many groups there are, not how many layers are in one.": [n // best, ceil(n / best)],
            "√N is right only where a layer keeps no more than the stream.": [root, round(root), int(root), ceil(root)],
            "That is near it, but groups are whole: try all sizes.": [near, round(near), int(near), ceil(near)],
            "Upside down: the more a layer keeps, the smaller the groups.": [round(sqrt(n * layer / state))],
            "One group of all layers keeps everything.": [n],
            "Groups of one layer keep a stream for each layer.": [1],
            "A group need not divide the stack: the last one may be smaller.": [
                min(divisors, key=lambda k: memory[k - 1])
            ],
        }
        if len(divisors) == 2:  # then a group of one is the best of those that divide the stack
            del wrong["Groups of one layer keep a stream for each layer."]
        known = [Misconception(value, said) for said, values in wrong.items() for value in values]
        trial.equal(got, best, known, "Another size keeps less.")
    for n, layer, state, best in _SMALL:
        size = float(trial.call(n, layer, state))
        said = f"Of {n:,} such layers another size of the groups keeps the least."
        trial.require(size == best, said, str(best), f"{size:g}")
