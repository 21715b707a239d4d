# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: Where do time and memory go at 1,000 layers?
#     opening: >-
#       The stack of lesson 07 has 1,000 layers, and it is thin: all its weights together fill 0.2 GB. Training it takes
#       several times as much memory, and seconds a step. This lesson keeps two accounts, one of bytes and one of seconds. It
#       asks of each entry what it costs, what it would have to cost, and what makes it smaller.
#     objectives: >-
#       say to the byte what a layer keeps for its backward pass, choose how often to checkpoint, tell whether
#       an operation waits for arithmetic, for memory or for neither, and say how much of a machine a training run uses.
#     prerequisites: lesson 07, and what autograd's backward pass does.
#     minutes: 60
#     paper: Section 6, whose 1,000 layers it trains on machines that it does not name.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
DEPTH = 0  # layers of the model that is measured; 0: what the profile says
STEPS = 0  # training steps of each measurement, after one to warm up; 0: what the profile says

# %%
import ctypes
import re
import time
from math import sqrt
from pathlib import Path

import numpy as np

# %% tags=["imports"]
import torch

# %%
import torch._dynamo  # here, since torch.compile takes its time to load it at first use
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from deepnet_edu import ModelConfig, TrainConfig, build_model
from deepnet_edu.checks import check
from deepnet_edu.figures import Picture
from deepnet_edu.figures.style import legend_below, new_figure, series_style
from deepnet_edu.model import random_batch
from deepnet_edu.model.attention import NOTHING
from deepnet_edu.planning import count_operations, count_parameters, training_memory
from deepnet_edu.training import TrainStep, train

device = kit.setup(SEED, PROFILE)
depth = DEPTH or (48 if PROFILE == "smoke" else 1000)
steps = STEPS or (1 if PROFILE == "smoke" else 2)
B, T = 4, 64  # sequences, tokens in each
WIDTH, HEADS, D_FF = 64, 4, 256


def shape(layers):
    """A DeepNorm decoder of the course's narrow shape."""
    return ModelConfig("decoder", "lm", layers, d_model=WIDTH, n_heads=HEADS, d_ff=D_FF, vocab_size=128, max_length=T)


# %% [markdown]
# ## The first account: bytes
#
# Training with AdamW in float32 keeps four numbers for each weight: the weight, its gradient, and Adam's two running
# averages. At 4 bytes each that is **16 bytes a weight**, whatever the model does.

# %%
weights = count_parameters(shape(1000))["all"]
print(
    f"1,000 layers: {weights:,} weights, {4 * weights / 1e9:.2f} GB; with gradients and averages {16 * weights / 1e9:.2f} GB"
)

# %% [markdown]
# There is another entry. The backward pass of a product needs the product's input, and that of a GELU needs what went into
# it. So autograd keeps such tensors from the forward pass until the gradient arrives. They are called
# [activations](glossary.md). Our batch is small, 4 sequences of 64 tokens.

# %%
guess_bytes = kit.Guess(
    "1,000 layers of width 64, 256 tokens. What fills most of the memory?",
    ["the weights", "gradients and Adam's averages", "activations"],
)
guess_bytes

# %% [markdown]
# ## What does a layer keep?
#
# This can be counted. PyTorch lets you look over autograd's shoulder: under `saved_tensors_hooks(pack, unpack)` it
# calls `pack(tensor)` for every tensor that it is about to keep, keeps what `pack` returns, and calls `unpack` on it when
# the backward pass wants it. The next cell is folded. It counts in this way the most bytes that are kept at one time. It
# counts memory once, however many tensors look into it, and leaves out what the module owns anyway, its parameters and
# buffers. (You can write such a counter yourself in the first of the further rooms.)


# %% tags=["hide-input"]
class Layers(torch.nn.Module):
    """Layers of the library's plain path, from tensor to tensor; in checkpointed groups of ``every``, if that is not 0."""

    def __init__(self, n, every=0, reentrant=True):
        super().__init__()
        self.layers = build_model(shape(n), seed=SEED).stacks()["decoder"].layers
        self.every, self.reentrant = every, reentrant

    def run(self, x, layers):
        state = (x,)  # a rule's state is a tuple of streams; DeepNorm has one
        for layer in layers:
            state = layer(state)
        return state[0]

    def forward(self, x):
        if not self.every:
            return self.run(x, self.layers)
        for first in range(0, len(self.layers), self.every):
            x = checkpoint(self.run, x, self.layers[first : first + self.every], use_reentrant=self.reentrant)
        return x


def most_kept_bytes(module, x):
    """The most bytes that autograd keeps at one time while module(x) runs forward and backward: a whole number."""
    owned = {tensor.untyped_storage().data_ptr() for tensor in [*module.parameters(), *module.buffers()]}
    held, most = {}, 0  # by address: how many kept tensors look into this memory, and its bytes

    class Kept:
        """A tensor that autograd keeps; its memory counts until the last of these is gone."""

        def __init__(self, tensor):
            nonlocal most
            storage = tensor.untyped_storage()
            self.tensor, self.place = tensor, storage.data_ptr()
            held.setdefault(self.place, [0, storage.nbytes()])[0] += 1
            most = max(most, sum(size for _, size in held.values()))

        def __del__(self):
            held[self.place][0] -= 1
            if not held[self.place][0]:
                del held[self.place]

    def pack(tensor):
        return tensor if tensor.untyped_storage().data_ptr() in owned else Kept(tensor)

    def unpack(kept):
        return kept.tensor if isinstance(kept, Kept) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        module(x).sum().backward()
    return most


# %%
x = torch.randn(B, T, WIDTH, requires_grad=True)
kept = most_kept_bytes(Layers(1), x)
print(f"one layer keeps {kept:,} bytes for {B * T} tokens: {kept // (4 * B * T):,} numbers a token")

# %% [markdown]
# 1,032 numbers a token, for a stream of 64. Where do they come from? Go through the layer as lesson 07 built it, line by
# line: attention and feed-forward branch, each joined by $\mathrm{LN}(\alpha x + F(x))$. These are the rules:
#
# | operation | keeps |
# |---|---|
# | matrix product with a weight | its input |
# | attention (PyTorch's fused one) | query, key, value, its output, and one number a head and token |
# | GELU | its input |
# | norm | its input, and two numbers a token: mean and $1/\sigma$ |
# | a sum; a product with the constant α | nothing new |
#
# And what one operation puts out and the next one takes in is one tensor, not two.

# %% [markdown] exercise="activation_bytes" difficulty=3 importance=5 minutes=12
# ### What a layer keeps, by formula
#
# **Objective**: know the activation memory of a layer before it is built.
#
# Write `activation_bytes(sequences, tokens, d_model, d_ff, n_heads)`: the bytes that one decoder layer of the form
# above keeps in float32, a whole number. The stream that enters the layer counts (its first product keeps it); the one
# that leaves does not, since it is the next layer's.
#
# Hint: Write the layer down as a chain of operations, and beside each what it keeps by the table. Then strike out what is
# on the list twice. Count tensors of width d_model, tensors of width d_ff, and single numbers a token apart.
#
# Hint: Of width d_ff there are two tensors, on both sides of GELU. Of width d_model attention alone has four, and each norm
# takes in one. Which products keep an input that is not among these yet?


# %% exercise="activation_bytes"
def activation_bytes(sequences, tokens, d_model, d_ff, n_heads):
    """Bytes that a decoder layer keeps for its backward pass in float32: a whole number."""
    ### BEGIN SOLUTION
    numbers = 8 * d_model + 2 * d_ff + 4 + n_heads
    return 4 * sequences * tokens * numbers
    ### END SOLUTION


# %%
check.activation_bytes(activation_bytes)

# %%
activation_bytes = kit.mine_or_reference(activation_bytes, "activation_bytes")
LAYER, STATE = activation_bytes(1, 1, WIDTH, D_FF, HEADS) // 4, WIDTH  # numbers a token: of a layer, and of the stream
kit.finding(
    "bytes by the formula, over bytes that autograd keeps", activation_bytes(B, T, WIDTH, D_FF, HEADS) / kept, near=1
)
twice = activation_bytes(B, 2 * T, WIDTH, D_FF, HEADS) / activation_bytes(B, T, WIDTH, D_FF, HEADS)
print(f"sequences twice as long: {twice:g} times as much")
print(
    f"1,000 layers: {1000 * kept / 1e9:.2f} GB of activations, {1000 * kept / (16 * weights):.1f} times the 16 bytes a weight"
)

# %%
guess_bytes.compare("activations")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# $4BT(8d + 2d_{\mathrm{ff}} + 4 + h)$. It is linear in the number of tokens: there is no $T^2$ anywhere.
# </details>
#
# **Why it works.** With $d_{\mathrm{ff}} = 4d$ it is 16 numbers a feature and token. You will find another count in
# papers, $BTd\,(34 + 5hT/d)$ bytes a layer (Korthikanti et al., arXiv 2205.05198, Equation 1). It is the same one: they
# count 2 bytes a number, so our 16 make 32, and dropout's two masks of 1 byte make 34. Their second term is the table
# of attention's scores, $T \times T$ for each head. Fused attention (FlashAttention, and PyTorch's
# `scaled_dot_product_attention`) does not keep it. It computes the scores again on the way back. That idea, **compute
# it again instead of keeping it**, can be used on a larger scale.
#
# ## Keep little, compute twice
#
# Cut the stack of $N$ layers into groups of $k$. On the way up keep nothing but the stream at the entrance of each
# group. On the way back take the groups from the top down: run a group's forward pass once more, keep everything this
# time, send the gradient through, and throw it all away again. That is [checkpointing](glossary.md) (Chen et al., arXiv
# 1604.06174).
#
# The price is one more forward pass, for every $k$. What is the gain?

# %% [markdown] exercise="checkpointed_numbers" difficulty=2 importance=5 minutes=8
# ### Memory of a checkpointed stack
#
# **Objective**: say what checkpointing keeps, for every size of the groups.
#
# Write `checkpointed_numbers(n_layers, every, layer, state)`: the most numbers that are kept at one time. `every` layers
# form a group. A layer keeps `layer` numbers for its backward pass, and the stream that enters it is among them. The stream
# is `state` numbers. (If the last group is smaller, you may count it as a whole one. That is an upper bound, one stream
# above the exact count.)
#
# Hint: While a group is at work, all its layers keep everything. Which streams wait, and which one is counted already?
#
# Hint: Draw 12 layers in fours. At which moment is the most kept: while the top, the middle or the bottom group is at work?


# %% exercise="checkpointed_numbers"
def checkpointed_numbers(n_layers, every, layer, state):
    """The most numbers that are kept at one time: a whole number."""
    ### BEGIN SOLUTION
    groups = n_layers // every  # a smaller one at the end is not at work when the most is kept
    return (groups - 1) * state + every * layer
    ### END SOLUTION


# %%
check.checkpointed_numbers(checkpointed_numbers)

# %%
checkpointed_numbers = kit.mine_or_reference(checkpointed_numbers, "checkpointed_numbers")
for n, every in ((12, 4), (12, 1), (10, 3)):
    counted = most_kept_bytes(Layers(n, every), x) // (4 * B * T)
    formula = checkpointed_numbers(n, every, LAYER, STATE)
    print(f"{n} layers, groups of {every}: autograd keeps {counted:,} numbers a token, your formula says {formula:,}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 12 layers in fours: while the last group is at work, four layers keep everything, and two streams wait:
# 2 · 64 + 4 · 1,032 = 4,256 numbers a token, by formula and by count. (10 layers in threes: the group of one layer at the top
# goes first. The most is kept when the three layers below it are at work, and then two streams wait. A formula that counts
# it as a whole group says one stream more, 3,288.)
# </details>
#
# **Why it works.** Small groups keep many streams, large groups many layers at work. Between them is a best size. The
# rule that is quoted everywhere is $k = \sqrt N$: for 1,000 layers, 32.

# %%
guess_group = kit.Guess(
    "Our layer keeps 1,032 numbers a token, the stream is 64. Which groups of 1,000 layers need the least memory?",
    ["2 layers", "8 layers", "32 layers", "128 layers"],
)
guess_group

# %% tags=["hide-input"]
sizes = np.unique(np.geomspace(1, 1000, 60).round().astype(int))
megabytes = [4e-6 * B * T * checkpointed_numbers(1000, int(k), LAYER, STATE) for k in sizes]
best, rule = int(sizes[np.argmin(megabytes)]), round(sqrt(1000))
figure, (ax,) = new_figure(1, width=8, height=3.8)
ax.plot(sizes, megabytes, label="checkpointed", **series_style(1))
ax.axhline(4e-6 * B * T * 1000 * LAYER, color="#555555", linestyle=":", linewidth=1.5, label="all kept")
for k, said, mark, side in ((best, f"least: k = {best}", "o", "right"), (rule, f"k = √N = {rule}", "s", "left")):
    at = 4e-6 * B * T * checkpointed_numbers(1000, k, LAYER, STATE)
    ax.plot(k, at, mark, color="#D55E00", markersize=8)
    where = (-9, -6) if side == "right" else (9, -6)
    ax.annotate(f"{said}, {at:.0f} MB", (k, at), where, textcoords="offset points", fontsize=11, ha=side, va="top")
ax.set(xscale="log", yscale="log", xlabel="layers in a group, k", ylabel="activations (MB)", ylim=(8, 2000))
ax.set_xticks([1, 8, 32, 100, 1000], ["1", "8", "32", "100", "1,000"])
ax.set_yticks([10, 100, 1000], ["10", "100", "1,000"])
ax.minorticks_off()
legend_below(figure, ax)
Picture(
    figure,
    alt="Activations of 1,000 layers in megabytes against the number of layers in a checkpointed group, both logarithmic. A "
    "valley: 67 MB at groups of one, 17 MB at 8, 36 MB at 32, back to more than 1,000 MB at 1,000, where all is kept.",
)

# %%
numbers = {k: checkpointed_numbers(1000, k, LAYER, STATE) for k in (best, rule)}
print(f"least memory: groups of {best}; √N would be {rule}")
print(
    f"√N keeps {numbers[rule] / numbers[best]:.1f} times as much as the best, and {1000 * LAYER / numbers[rule]:.0f} times less than all"
)
apart = 4 * B * T * (numbers[rule] - numbers[best])
print(f"beside 16 bytes a weight, the difference is {100 * apart / (16 * weights):.1f}%")

# %%
guess_group.compare("8 layers")

# %% [markdown]
# Let a layer keep $c$ times the stream. Then $N/k$ streams and $k$ layers make $N/k + ck$ times the stream, which is least at
# $k = \sqrt{N/c}$. The rule $\sqrt N$ takes a layer for as large as the stream. In ours $c$ is 16, so the best group is
# $\sqrt{16} = 4$ times smaller. Should you care? Both are a few percent of what was kept before, and both pay the same
# forward pass. So the library's `TrainConfig(checkpoint_every="auto")` uses $\sqrt N$. With a wide model, or
# thousands of tokens, count it.
#
# ## The second account: seconds
#
# What must a training step cost? It cannot leave out the matrix products. Each weight takes part in one multiplication
# and one addition per token on the way up, the same for the gradient of its input, and the same for its own gradient:
# **6 operations a weight and token**. The time that a machine takes for these products, and nothing else, is the
# [floor](glossary.md). No program that uses the same products can be faster. Let us measure ours, with PyTorch's.

# %%
PRODUCTS = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, D_FF), (D_FF, WIDTH)]  # query, key, value; output; feed-forward
#: On the CPU the seconds of this process alone: others may be at work. A GPU is waited for.
clock = time.perf_counter if device.type == "cuda" else time.process_time


def now():
    """The clock, when all that was asked for is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock()


def least_seconds(call, repeats):
    """Of several runs after one to warm up: whatever else is at work on a machine can only make it slower."""
    seconds = []
    for _ in range(1 + repeats):
        begin = now()
        call()
        seconds.append(now() - begin)
    return min(seconds[1:])


def floor_seconds(layers, repeats):
    """The matrix products of a training step, into memory that is there already: forward, backward."""
    matrices = [[torch.randn(o, i, device=device) for i, o in PRODUCTS] for _ in range(layers)]
    gradients = [[torch.empty_like(matrix) for matrix in layer] for layer in matrices]
    streams = {width: torch.randn(B * T, width, device=device) for width in (WIDTH, 3 * WIDTH, D_FF)}
    out = {width: torch.empty_like(stream) for width, stream in streams.items()}

    def forward():
        for layer in matrices:
            for w in layer:
                torch.mm(streams[w.shape[1]], w.t(), out=out[w.shape[0]])

    def backward():
        for layer, own in zip(matrices, gradients, strict=True):
            for w, gradient in zip(layer, own, strict=True):
                torch.mm(streams[w.shape[0]], w, out=out[w.shape[1]])  # of the input
                torch.mm(streams[w.shape[0]].t(), streams[w.shape[1]], out=gradient)  # of the weight

    return [least_seconds(forward, repeats), least_seconds(backward, repeats)]


floor = floor_seconds(depth, 2 * steps)
operations = 6 * B * T * depth * sum(i * o for i, o in PRODUCTS)
head = 6 * B * T * WIDTH * 128  # the output layer's product, which is left out here
kit.finding(
    "operations here, over the library's count",
    operations / (count_operations(shape(depth), B, T).products - head),
    near=1,
)

# %% tags=["nbval-ignore-output"]
print(
    f"{depth:,} layers: forward {floor[0]:.2f} s, backward {floor[1]:.2f} s, {operations / sum(floor) / 1e9:.0f} GFLOP/s"
)

# %% [markdown]
# (GFLOP/s: billions of floating-point operations a second. The head's product is a thousandth of the whole.)
#
# ## The roof over an operation
#
# Is that rate good? And what of the rest, norms and sums, which hardly compute? A processor has two speeds: its
# arithmetic does a number of operations a second, the **peak**, and its memory moves a number of bytes a second, the
# **bandwidth**. An operation takes at least FLOP/peak seconds for its arithmetic and at least bytes/bandwidth seconds
# for its memory (FLOP are its multiplications and additions). The two overlap, so the longer one counts.
# Which one that is depends on FLOP/byte, its [arithmetic intensity](glossary.md): how much work there is for each byte.

# %% [markdown] exercise="attainable_rate" difficulty=3 importance=5 minutes=12
# ### The roofline of a product
#
# **Objective**: tell whether a matrix product waits for arithmetic or for memory.
#
# Write `attainable_rate(rows, d_in, d_out, peak, bandwidth, size)`: the operations a second that a product of (rows,
# d_in) with (d_in, d_out) can at most reach. `peak` is in FLOP/s, `bandwidth` in bytes/s, `size` is the bytes of one
# number. Both factors are read once, the result is written once.
#
# Hint: Count first: how many multiplications and additions does such a product take, and how many numbers does it move?
#
# Hint: If every byte brings work for a number of operations, how many operations a second does the bandwidth allow? The lower
# of the two roofs counts.


# %% exercise="attainable_rate"
def attainable_rate(rows, d_in, d_out, peak, bandwidth, size):
    """FLOP/s that a product of (rows, d_in) with (d_in, d_out) can at most reach: one number."""
    ### BEGIN SOLUTION
    flops = 2 * rows * d_in * d_out
    moved = size * (rows * d_in + d_in * d_out + rows * d_out)
    return min(peak, bandwidth * flops / moved)
    ### END SOLUTION


# %%
check.attainable_rate(attainable_rate)

# %%
attainable_rate = kit.mine_or_reference(attainable_rate, "attainable_rate")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A long slope and a flat roof: below an intensity of peak/bandwidth memory decides, above it arithmetic does.
# </details>
#
# **Why it works.** This is the [roofline](glossary.md) model (Williams, Waterman and Patterson, Communications of the ACM
# 52(4), 2009). It knows only two roofs. Watch for dots that are far below both: they wait for something else.
#
# The next cell, folded, measures this machine's two roofs, then the parts of a layer. Each part works through as much memory
# as two long vectors fill, so that little of it is still in the cache from last time, as in a deep stack.
# The *peak* is the best of two products, a square one and a wide one. The *bandwidth* is the best of two passes over long
# vectors, both in place, `a.add_(b)` and `a.mul_(s)`. It has to be in place: a result that goes elsewhere makes the
# processor fetch the memory that it is about to overwrite, bytes that are moved and not counted. (A norm takes about 8
# operations a number, AdamW about 14 a weight.)

# %% tags=["hide-input"]
small = PROFILE == "smoke"
long = 2_000_000 if small else 32_000_000


def each(operation, *tensors):
    """Seconds of operation(i-th of each tensor) for all i, per call. What it returns is dropped."""

    def all_of_them():
        for one in zip(*tensors, strict=True):
            operation(*one)

    return least_seconds(all_of_them, 3) / len(tensors[0])


def drawn(n, *shape):
    return torch.randn(n, *shape, device=device).unbind()


def product(d_in, d_out):
    """FLOP, bytes and seconds of a product of 256 rows."""
    rows = B * T
    moved = rows * d_in + d_in * d_out + rows * d_out
    n = max(2, 2 * long // moved)
    seconds = each(
        lambda x, w, y: torch.mm(x, w, out=y), drawn(n, rows, d_in), drawn(n, d_in, d_out), drawn(n, rows, d_out)
    )
    return 2 * rows * d_in * d_out, 4 * moved, seconds


def bandwidth_and_update():
    """Bytes a second of the better of two passes over long vectors, in place; FLOP, bytes and seconds of AdamW. They are
    taken in turn, so that what else is at work on the machine meets all of them."""
    a, b = torch.ones(2, long, device=device)
    weights = torch.nn.Parameter(torch.zeros(long // 2, device=device))
    weights.grad = torch.ones_like(weights)
    calls = [lambda: a.add_(b), lambda: a.mul_(1.0), torch.optim.AdamW([weights], fused=True).step]
    add, scale, step = np.min([[least_seconds(call, 1) for call in calls] for _ in range(10)], axis=0)
    fastest = max(12 * long / add, 8 * long / scale)  # two numbers read and one written; one read and one written
    return fastest, (14 * len(weights), 28 * len(weights), step)


square = torch.randn(2, 512 if small else 1024, 512 if small else 1024, device=device)
narrow, wide = product(WIDTH, D_FF), product(512, 2048)
peak = max(2 * square.shape[1] ** 3 / least_seconds(lambda: square[0] @ square[1], 5), wide[0] / wide[2])
bandwidth, update = bandwidth_and_update()
tokens = B * T * WIDTH
streams, branches = drawn(long // tokens, B * T, WIDTH), drawn(long // tokens, B * T, WIDTH)
gain, bias = ({width: number(width, device=device) for width in (WIDTH, 512)} for number in (torch.ones, torch.zeros))


def norm(x):
    """Layer normalisation with gain and bias, as a layer has it."""
    width = x.shape[-1]
    return F.layer_norm(x, (width,), gain[width], bias[width])


measured = {
    "product 64 → 256": narrow,
    "product 512 → 2,048": wide,
    "norm": (8 * tokens, 8 * tokens, each(norm, streams)),
    "αx + F": (2 * tokens, 12 * tokens, each(lambda x, f: torch.add(f, x, alpha=6.7, out=f), streams, branches)),
    "AdamW": update,
}
del streams, branches

# %% tags=["nbval-ignore-output"]
print(
    f"peak {peak / 1e9:.0f} GFLOP/s, bandwidth {bandwidth / 1e9:.0f} GB/s: memory decides below {peak / bandwidth:.1f} FLOP/byte"
)
reached = {
    name: flops / seconds / min(peak, bandwidth * flops / moved) for name, (flops, moved, seconds) in measured.items()
}
kit.finding("share of its roof that each reaches", reached, below=1.1, form=".0%")

# %% tags=["hide-input"]
figure, (ax,) = new_figure(1, width=8, height=4.2)
intensity = np.geomspace(0.05, 300, 100)
ax.plot(intensity, np.minimum(peak, bandwidth * intensity) / 1e9, label="the roof of this machine", **series_style(1))
for i, (name, (flops, moved, seconds)) in enumerate(measured.items()):
    look = {"marker": "os^Dv"[i], "markersize": 8, "linestyle": "none", "color": series_style(i + 2)["color"]}
    ax.plot(flops / moved, flops / seconds / 1e9, label=name, **look)
ax.set(xscale="log", yscale="log", xlabel="arithmetic intensity (FLOP/byte)", ylabel="GFLOP/s")
ax.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
ax.set_yticks([1, 10, 100], ["1", "10", "100"])
ax.minorticks_off()
legend_below(figure, ax)
Picture(
    figure,
    alt="Operations a second against arithmetic intensity, both logarithmic. A roof that rises with the bandwidth and is flat "
    "from the peak on. At the left AdamW is at the slope, a sum below it, and a norm furthest below. At the "
    "right the wide product is at the flat roof and the narrow one below it.",
)

# %% [markdown]
# Three things to see. **Products** are at the right, near the flat roof: they are what the machine is good at. **AdamW** is
# at the left, at the slope: it uses a small part of the arithmetic, waits for memory, and only moving fewer
# bytes would make it faster. **The norm** is far below both roofs: what does it wait for? The next cell takes away one
# possible cause after the other.


# %%
def norm_microseconds():
    """Of one norm over 256 tokens, with one thing after the other taken away."""
    streams = drawn(long // tokens, B * T, WIDTH)
    kept = least_seconds(lambda: [norm(x) for x in streams], 3) / len(streams)
    same, rows = [streams[0]] * 1000, [streams[0].view(-1, 512)] * 1000
    return 1e6 * np.array(
        [kept, each(norm, streams), each(norm, same), each(norm, rows), each(norm, [same[0][:1]] * 1000)]
    )


calls = norm_microseconds()
took = [
    "as in a deep stack: each on its own memory, results kept",
    "results dropped, so their memory is used again",
    "the same 256 tokens each time: they stay in the cache",
    "… as 32 rows of 512 numbers, not 256 rows of 64",
    "one row of 64: hardly more than the call itself",
]
for said, microseconds in zip(took, calls, strict=True):
    print(f"{said:57} ≈ {microseconds:.1f} µs")
print(f"{'for comparison: what the roof allows':57} ≈ {8e6 * tokens / bandwidth:.1f} µs")

# %% tags=["nbval-ignore-output"]
parts = {
    "new memory for the result": calls[0] - calls[1],
    "reading and writing memory": calls[1] - calls[2],
    "short rows": calls[2] - calls[3],
    "the call": calls[4],
    "arithmetic in the cache": calls[3] - calls[4],
}
print("of the first line: " + ", ".join(f"{name} {max(0.0, part) / calls[0]:.0%}" for name, part in parts.items()))

# %% [markdown]
# So there is no single cause, and the sizes depend on your processor. Memory that is new has to be given by the system, page
# by page; this is why a path that uses its memory again is faster. Rows of 64 numbers are short: a
# [kernel](glossary.md), the compiled function that does the work, begins again at each row, with a mean, a variance and a root.
# And each call has a price of its own in Python and PyTorch, whatever it does. A thousand layers of small operations make
# tens of thousands of calls.
#
# On a GPU the same layer is elsewhere under the roof, because a GPU's arithmetic has grown faster than its memory. Here are
# data-sheet numbers, in bfloat16 (2 bytes), with your function:

# %%
GPUS = {  # FLOP/s without sparsity (V100: fp16), bytes/s
    "V100": (125.3e12, 0.90e12),
    "A100 80 GB": (312e12, 2.039e12),
    "H100 SXM": (989e12, 3.35e12),
    "H200": (989e12, 4.8e12),
    "B200": (2250e12, 8.0e12),
}
print("share of the peak that memory allows           64 → 256        512 → 2,048      512 → 2,048")
print("                     peak/bandwidth      at 256 tokens      at 256 tokens   at 32,768 tokens")
for name, (top, moves) in GPUS.items():
    cases = [(256, 64, 256), (256, 512, 2048), (32768, 512, 2048)]
    shares = [attainable_rate(*case, top, moves, 2) / top for case in cases]
    print(f"{name:12} {top / moves:12.0f} FLOP/byte {shares[0]:18.0%} {shares[1]:18.0%} {shares[2]:18.0%}")

# %% [markdown]
# Our narrow layer can use less than a third of such a GPU's arithmetic at best, even if every call were free. Calls are
# not free, and in a single microsecond of waiting an H200 could do a billion operations. Depth without width is the worst
# case for a GPU: many small things, one after the other.
#
# ## Where does it all go?
#
# Now the whole step. The library has two paths through a stack. `plain` is the one that you have read in lesson 07:
# layer after layer, and autograd keeps what it wants. `fast` computes the same numbers, with a backward pass written by
# hand for the whole stack: it keeps only what is expensive to compute again (norms are not), adds
# gradients where they belong, and uses the same memory in each step. Each path runs with everything kept, and with
# checkpoints every $\sqrt N$ layers.

# %%
guess_time = kit.Guess(
    "Checkpoints run each forward pass twice. Counting products alone, how much longer does that make a step?",
    ["a tenth", "a third", "a half", "twice as long"],
)
guess_time

# %% [markdown]
# A step computes the loss, sends the gradient back, and lets the optimizer update the weights. The next cell, folded, takes
# the time of each of these three, and the peak of memory.


# %% tags=["hide-input"]
def peak_bytes(reset=False):
    """The most memory that was in use since the last reset; None where the system does not say."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    try:
        if reset:
            ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
            Path("/proc/self/clear_refs").write_text("5")  # Linux: count from here
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    except (OSError, AttributeError, TypeError):  # another system
        return None


def seconds_by_part(step, batch):
    """Seconds of forward pass, backward pass and update in one training step."""
    model, marks = step.model, []
    loss = model.loss

    def mark(*_):
        marks.append(now())

    def loss_then_mark(*arguments):
        value = loss(*arguments)
        mark()
        return value

    model.loss, hook = loss_then_mark, step.optimizer.register_step_pre_hook(mark)
    mark()
    step(batch)
    mark()
    hook.remove()
    del model.loss
    return np.diff(marks)


def run(path, every):
    """Least seconds of each part in some steps, and the peak of memory."""
    recipe = TrainConfig(steps=1, learning_rate=1e-5, warmup=0, checkpoint_every=every)
    with model.running(path=path), TrainStep(model, recipe) as step:
        peak_bytes(reset=True)
        rows = [seconds_by_part(step, batch) for _ in range(1 + steps)]
        return np.min(rows[1:], axis=0), peak_bytes()  # others' work can only make a part slower


before = peak_bytes(reset=True)
model = build_model(shape(depth), seed=SEED).to(device)
batch = random_batch(shape(depth), B, T).to(device)
root = round(sqrt(depth))
ARMS = {
    "fast, all kept": ("fast", 0),
    "fast, every √N": ("fast", root),
    "plain, all kept": ("plain", 0),
    "plain, every √N": ("plain", root),
}
if device.type == "cuda":  # for which the fast path is not written
    ARMS = {name: arm for name, arm in ARMS.items() if arm[0] == "plain"}
# The CPU's memory is given back to the system only now and then: the runs that need less come first. Each runs twice, and the
# least time counts, so that what else is at work on the machine meets all of them.
order = sorted(ARMS, key=lambda name: (ARMS[name][0], -ARMS[name][1]))
first, second = ({name: run(*ARMS[name]) for name in order} for _ in range(2))
found = {name: (np.minimum(first[name][0], second[name][0]), first[name][1]) for name in ARMS}
plans = {
    name: training_memory(shape(depth), B, T, path=path, checkpoint_every=every, device=device.type)
    for name, (path, every) in ARMS.items()
}

# %% tags=["headline", "hide-input"]
figure, axes = new_figure(2, width=9, height=4.9)
PARTS = {  # of memory: what a plan counts
    "weights": lambda plan: plan.weights,
    "gradients": lambda plan: plan.gradients,
    "Adam's averages": lambda plan: plan.optimizer,
    "activations, temporaries": lambda plan: plan.activations + plan.temporaries,
    "Python's objects, gaps": lambda plan: plan.objects,
}
COLORS = ["#E69F00", "#56B4E9", "#009E73", "#D55E00", "#BBBBBB"]
HATCHES = ["", "//", "", "..", ""]
names = ["floor", *ARMS]
some = plans["plain, all kept"]
left = np.zeros(len(names))
for (part, of), color, hatch in zip(PARTS.items(), COLORS, HATCHES, strict=True):
    values = [
        of(some) if part in ("weights", "gradients", "Adam's averages") else 0,
        *(of(plans[name]) for name in ARMS),
    ]
    widths = np.array(values) / 1e9
    axes[0].barh(names, widths, left=left, label=part, color=color, hatch=hatch, edgecolor="white")
    left += widths
if before is not None:
    axes[0].plot([(found[name][1] - before) / 1e9 for name in ARMS], list(ARMS), "kD", label="measured", markersize=6)
axes[0].set(xlabel="memory (GB)", title=f"{depth:,} layers: bytes by part")
times = [[*floor, 0.0, 0.0]]
for name, (path, every) in ARMS.items():
    forward, backward, updating = found[name][0]
    again = max(0.0, backward - found[f"{path}, all kept"][0][1]) if every else 0.0
    times.append([forward, backward - again, again, updating])
times = np.array(times)
left = np.zeros(len(names))
looks = zip(
    ["forward", "backward", "computed again", "update"], ["#56B4E9", "#0072B2", "#CC79A7", "#E69F00"], strict=True
)
for i, (part, color) in enumerate(looks):
    hatch = ["", "//", "..", ""][i]
    axes[1].barh(names, times[:, i], left=left, label=part, color=color, hatch=hatch, edgecolor="white")
    left += times[:, i]
axes[1].axvline(sum(floor), color="#555555", linestyle=":", linewidth=1.5)
axes[1].set(xlabel="time of a step (s)", title="seconds by part")
axes[1].set_yticks(range(len(names)), [])
for ax in axes:
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.tick_params(labelsize=11)
    ax.xaxis.label.set_size(11)
    ax.legend(fontsize=10.5, loc="upper center", bbox_to_anchor=(0.45, -0.17), ncols=2, frameon=False)
Picture(
    figure,
    alt="Two panels of stacked bars for a floor and four ways to train a deep stack. Memory: 16 bytes a weight in all of "
    "them; the plain path adds more than that in activations, the fast path fewer, checkpoints nearly none. Time: the floor "
    "is the shortest bar, the fast path takes longer, the plain path longer still; checkpoints lengthen the backward pass of "
    "both, by more in the plain path.",
)

# %%
plain, checkpointed = plans["plain, all kept"], plans["plain, every √N"]
fast = training_memory(shape(depth), B, T, path="fast")
kit.finding(
    "activations of the plain path, over 16 bytes a weight", plain.activations / (16 * plain.parameters), above=1
)
kit.finding("what checkpoints leave of them", checkpointed.activations / plain.activations, below=1 / 3, form=".0%")
kit.finding("what the fast path keeps of them", fast.activations / plain.activations, below=2 / 3, form=".0%")
own = depth * activation_bytes(B, T, WIDTH, D_FF, HEADS)
kit.finding(
    "your formula for all layers, over the plan's entry with embedding and head",
    own / plain.activations,
    above=0.95,
    below=1.0001,
)
if depth < 20:
    print(
        "A shallow stack has few groups, and embedding and head weigh more beside its layers: take DEPTH = 50 or more."
    )

# %% tags=["nbval-ignore-output"]
for name in ARMS:
    (forward, backward, updating), used = found[name]
    rise = "" if before is None else f", {(used - before) / 1e9:.2f} GB"
    print(f"{name:16} forward {forward:.2f}, backward {backward:.2f}, update {updating:.2f} s{rise}")
kit.record(
    floor_seconds=sum(floor), **{re.sub(r"\W+", "_", name.replace("√N", "root")): sum(found[name][0]) for name in ARMS}
)

# %%
guess_time.compare("a third")

# %% [markdown]
# One unit forward, two backward, and one again: 4 units where there were 3. **4/3 is the count of products.** And measured?

# %% tags=["nbval-ignore-output"]
for path in dict.fromkeys(path for path, _ in ARMS.values()):
    (forward, backward, updating), (_, longer, _) = (found[f"{path}, {kind}"][0] for kind in ("all kept", "every √N"))
    step, more = forward + backward + updating, sum(found[f"{path}, every √N"][0])
    print(
        f"{path:5} with checkpoints {more / step:.2f} times the step; the backward pass is longer by "
        f"{(longer - backward) / forward:.1f} forward passes, and a forward pass is {forward / step:.0%} of the step"
    )
arms = {
    "all kept": {},
    "checkpoints, PyTorch's default": {"reentrant": False},
    "checkpoints, PyTorch's older way": {"reentrant": True},
}
some = max(2, depth // 5)
layers = {name: Layers(some, round(sqrt(some)) if how else 0, **how) for name, how in arms.items()}
timed = {name: [] for name in arms}
for _ in range(3 + steps):  # in turn, so that what else is at work on the machine meets all of them
    for name, module in layers.items():
        begin = time.process_time()
        y = module(x).sum()
        middle = time.process_time()
        y.backward()
        timed[name].append([middle - begin, time.process_time() - middle])
least = {name: np.min(rows[1:], axis=0) for name, rows in timed.items()}
once, whole = least["all kept"][0], sum(least["all kept"])
print(f"{some} plain layers without a head: a forward pass is {once / whole:.0%} of both")
for name, (forward, backward) in least.items():
    print(f"  {name:33} {forward + backward:.3f} s, {(forward + backward - whole) / once:.1f} forward passes more")

# %% [markdown]
# The fast path paid 1.2 times a step on a machine that did nothing else (`docs/depth.md`), and up to 1.5 times on a busy one: it
# computes again only what its backward pass reads. The plain path paid 1.4 to 1.8 times a step where this was tried, for two
# reasons.
#
# - *A forward pass is more than a third of a plain step.* Products are 1 : 2, but calls and traffic are nearer to 1 : 1.
# - *Checkpoints cost more than that pass.* PyTorch's default notes in Python every tensor that it throws away, and
#   every one that comes back. Its older way (`use_reentrant=True`) notes the streams between groups alone, and adds
#   about one forward pass, as the count says. The library uses the default, which is the one that PyTorch recommends.
#
# (Bars of memory are the library's formula, `deepnet-edu plan`; diamonds were measured in this notebook, where the
# system tells, above what Python and PyTorch took before there was a model. `docs/depth.md` says how well the formula does.)
#
# In the left panel, the floor's bar is the 16 bytes a weight. Read the picture as two shopping lists.
#
# *Memory.* The plain path's largest entry is activations. The fast path keeps fewer, checkpoints hardly any. What is left is
# 16 bytes a weight, and only other means make that smaller: fewer bytes a number, or more machines (lesson 15). On a
# GPU, `TrainConfig(offload=True)` puts even the checkpoints' streams into the CPU's memory.
#
# *Time.* What is right of the dotted line is what was at the left under the roof: bytes moved, and calls. The plain path
# has more of both, and autograd's bookkeeping comes on top.
#
# The cost explorer of lesson 08 has the same entries, with these names:
#
# | bar | what it is |
# |---|---|
# | weights, gradients, optimizer | 4, 4 and 8 bytes a weight |
# | activations | what autograd, or the fast path, keeps for the backward pass |
# | temporaries | tensors that live for a moment in the backward pass, such as a branch's gradient before it is added |
# | Python, PyTorch | the two programs themselves, Python's objects for each layer, and gaps that freed tensors leave |
# | products | the floor |
# | recomputation | what checkpoints compute again, with their bookkeeping |
# | attention | scores, softmax and mixing: products without weights |
# | norms, copies | all that moves many bytes and computes little: norms, GELU, sums, copies, the loss |
# | Python (in the right panel) | the calls |
#
# ## How much of the machine works?
#
# One number is used to compare training runs of all sizes. Take the FLOP that the *model* needs for a token, times the
# tokens a second, over the peak: **model FLOPs utilisation**, MFU (Chowdhery et al., arXiv 2204.02311, Appendix B). The
# model needs 6 operations a weight, and what attention computes without weights: scores and mixing. (By convention masked
# scores count. An embedding is looked up, not multiplied: it does not count.)

# %% [markdown] exercise="model_flops_utilisation" difficulty=3 importance=5 minutes=8
# ### Model FLOPs utilisation
#
# **Objective**: compare any training run with what its machine could do.
#
# Write `model_flops_utilisation(tokens_per_second, parameters, n_layers, d_model, tokens, peak)`: a share, between 0
# and 1. `parameters` are those that are multiplied, `tokens` is the length of a sequence, `peak` is in FLOP/s. What
# checkpoints compute twice does not count: the model did not need it.
#
# Hint: Attention first, forward, one layer, one token: its query meets a key at each of `tokens` places, and as many values are
# mixed. All heads together have `d_model` features. How many multiplications and additions are that?
#
# Hint: A backward pass takes twice the operations of the forward pass, for products without weights too. When you have the
# FLOP of one token, what turns them into FLOP a second, and what into a share?


# %% exercise="model_flops_utilisation"
def model_flops_utilisation(tokens_per_second, parameters, n_layers, d_model, tokens, peak):
    """Share of the peak that a training run turns into what its model needs: one number."""
    ### BEGIN SOLUTION
    flops_per_token = 6 * parameters + 12 * n_layers * d_model * tokens
    return tokens_per_second * flops_per_token / peak
    ### END SOLUTION


# %%
check.model_flops_utilisation(model_flops_utilisation)

# %%
model_flops_utilisation = kit.mine_or_reference(model_flops_utilisation, "model_flops_utilisation")
multiplied = weights - (128 + T) * WIDTH  # without the embeddings of tokens and positions
counted = count_operations(shape(1000), B, T, path="plain")
share = model_flops_utilisation(B * T, multiplied, 1000, WIDTH, T, counted.products + counted.attention)
kit.finding("MFU of a machine that does just one step's operations in a second", share, near=1, by=0.02)

# %% tags=["nbval-ignore-output"]
own = count_parameters(shape(depth))["all"] - (128 + T) * WIDTH
for name, (path, every) in ARMS.items():
    step = sum(found[name][0])
    mfu = model_flops_utilisation(B * T / step, own, depth, WIDTH, T, peak)
    done = count_operations(shape(depth), B, T, path=path, checkpoint_every=every)
    again = (done.again + done.attention_again) / (done.products + done.attention)
    print(
        f"{name:16} {B * T / step:6.0f} tokens/s, MFU {mfu:4.0%}; with what is computed again {mfu * (1 + again):4.0%}"
    )

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Attention's products without weights take $12NdT$ operations a token, for $N$ layers, forward and backward. In the table the
# fast path with all kept has the highest share; checkpoints lower it, in both paths.
# </details>
#
# **Why it works.** A step that computes something twice is *busier*, and not better. Counting what is computed again
# gives the **hardware** FLOPs utilisation, the last column. GLM-130B, a model of 70 DeepNorm
# layers, reported both: 32.5% and 43.3% (arXiv 2210.02414). Their ratio is 4/3, exactly one forward pass more:
# everything was checkpointed. (The percent above 1 in your check is norms and biases, which the convention counts as if they
# were matrices.)
#
# And on a GPU? `docs/depth.md` has one H200, measured once: 1,000 layers of our width take 0.132 s a step, with everything
# that this library has against calls. That is more than ten times faster than one thread of a CPU. Is it good?

# %%
h200 = model_flops_utilisation(B * T / 0.132, multiplied, 1000, WIDTH, T, 779e12)  # the peak measured there, bfloat16
print(f"1,000 layers of width 64, 256 tokens, on one H200: MFU {h200:.1%}")

# %% [markdown]
# It is a thousandth of what that GPU can do. On the same page, 1,000 layers of width 512 with 32,768 tokens in a batch reach
# 29%. **Depth is cheap for a GPU only if each layer is large enough to fill it.**
#
# ## Further rooms
#
# Five rooms for those who want more, and no later lesson needs them. In JupyterLab they are folded: click on the arrow
# beside a heading.
#
# | room | minutes |
# |---|---|
# | Look over autograd's shoulder: write the counter yourself | 10 |
# | Fewer calls: compile one layer, and record a whole step | 10 |
# | The best group of checkpoints | 8 |
# | Twelve thousand small tensors | 12 |
# | Two passes less: skip, branch and norm in one kernel | 8 |

# %% [markdown] tags=["room"]
# ## Room 1: look over autograd's shoulder

# %% [markdown] exercise="saved_bytes" difficulty=2 importance=3 minutes=10
# ### What any module keeps (optional)
#
# **Objective**: measure what any module keeps for its backward pass.
#
# Write `saved_bytes(module, x)`: the bytes that autograd keeps while `module(x)` runs, a whole number. Two rules. The same
# memory counts once, however often it is kept, and a view keeps all the memory that it looks into: so count storages,
# `tensor.untyped_storage()`, which have a `data_ptr()` and `nbytes()`. And what the module owns anyway, its parameters and
# buffers, does not count. (The folded counter of this lesson has parts of it. Here nothing is freed in between, so you need no
# backward pass, and no object that notes when it is gone.)
#
# Hint: Which Python object remembers a thing once, however often you put it in? And what must be left out is known before
# `module(x)` runs.
#
# Hint: The hooks are `torch.autograd.graph.saved_tensors_hooks`, a context for a `with`. Whatever the first hook returns is what
# the backward pass gets: what should that be?


# %% exercise="saved_bytes"
def saved_bytes(module, x):
    """Bytes that autograd keeps for the backward pass of module(x): a whole number."""
    ### BEGIN SOLUTION
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
    ### END SOLUTION


# %%
check.saved_bytes(saved_bytes)

# %%
saved_bytes = kit.mine_or_reference(saved_bytes, "saved_bytes")
kit.finding("your count of one layer, over the folded counter's", saved_bytes(Layers(1), x) / kept, near=1)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card. The most popular wrong answer adds up `tensor.numel() * 4` for every call: it counts a tensor twice that
# two operations keep, and takes every number for float32.
# </details>
#
# **Why it works.** A tensor is a view of a storage. Query, key and value are three views of one product's output, so if
# one of them is kept, all three are. Only the storage tells what is really held.

# %% [markdown] tags=["room"]
# ## Room 2: fewer calls

# %% [markdown]
# What can be done about calls? `torch.compile` turns a function into a *graph*, the list of its operations and of what each
# hands to the next. Then it turns the graph into a few large *kernels*, compiled functions that do several of these operations
# in one go. Compiling takes long, so it matters what is compiled.

# %%
guess_graphs = kit.Guess(
    "A stack of N layers; each layer is handed to torch.compile on its own. How many graphs are made?",
    ["N graphs", "one graph", "no graph"],
)
guess_graphs


# %% tags=["hide-input"]
def graphs(layers, by_layer):
    """How many operations there are in each graph that torch.compile makes of a stack, and the seconds it takes."""
    sizes = []

    def count(graph, inputs):
        sizes.append(len(graph.graph.nodes))
        return graph.forward  # run as it is: what counts here is the tracing

    torch._dynamo.reset()
    stack = build_model(shape(layers), seed=SEED).stacks()["decoder"]
    x = torch.randn(1, 4, WIDTH, requires_grad=True)
    begin = time.process_time()
    if by_layer:
        state = (x,)
        for layer in [torch.compile(layer, backend=count) for layer in stack.layers]:
            state = layer(state)
    else:
        torch.compile(lambda x: stack.plain(x, NOTHING), backend=count)(x)
    return sizes, time.process_time() - begin


tried = [1, 2] if PROFILE == "smoke" else [2, 4, 8]
for by_layer in (True, False):
    graphs(1, by_layer)  # to warm up: the first time PyTorch loads what it needs
whole = {n: graphs(n, by_layer=False) for n in tried}
single = {n: graphs(n, by_layer=True) for n in tried}

# %%
growth = np.diff([whole[n][0][0] for n in tried]) / np.diff(tried)
kit.finding("whole stack: graphs, at each depth", [len(whole[n][0]) for n in tried], near=1)
kit.finding("operations that each layer adds to it", growth, says="as many at each depth", holds=np.ptp(growth) == 0)
kit.finding("layer by layer: graphs, at each depth", [len(single[n][0]) for n in tried], near=1)
alone = [single[n][0][0] for n in tried]
kit.finding("operations in that graph", alone, says="as many at each depth", holds=np.ptp(alone) == 0)

# %% tags=["nbval-ignore-output"]
for n in tried:
    print(
        f"{n} layers: whole {whole[n][0]} operations, {whole[n][1]:.2f} s; by layer {single[n][0]}, {single[n][1]:.2f} s"
    )

# %%
guess_graphs.compare("one graph")

# %% [markdown]
# Layers are equal but for their numbers, and a compiled graph takes weights as inputs. So the second layer finds the
# graph of the first. The whole stack as one graph grows with each layer, and so does the work of compiling it. One
# trap: a rule's constants must be tensors (buffers) as well. A Python number is written *into* the graph, and a layer
# with another number needs another graph. The library's way is `TrainConfig(compile="layer")`.
#
# Here only the making of the graph was timed. This is what it comes to when kernels are made as well, from an empty cache:

# %%
record = kit.Results("compile_layer")
for row in record.runs:
    print(
        f"{row['layers']:4} layers: {row['graphs']} graph, first step {row['first step compiled, s']:.0f} s, "
        f"then {row['step compiled over plain']:.2f} of a plain step"
    )
print(record.source())

# %% [markdown]
# The first step takes as long for few layers as for many, apart from the steps' own time. What a compiled layer gains
# depends on the machine; this is one thread of a CPU.
#
# A GPU has one more way to get rid of calls. A **CUDA graph** is a recording: all kernels of a training step are
# noted once, in their order, and replayed with a single call: `TrainConfig(cuda_graph=True)`. Shapes must stay the same, and
# nothing may ask the GPU for a number in between. (It shares its name with the graph above, and is another thing.) On one
# H200, in bfloat16, measured once, a step of 1,000 layers of this width took 1.23 s as it is, 0.18 s as a
# CUDA graph, and 0.13 s with one compiled layer as well; TorchScale's took 2.56 s (`benchmarks/results/gpu_depth.json`).
# Where there is a CUDA device, the next cell measures yours.


# %% tags=["nbval-ignore-output"]
class Same:
    """The same batch at every step."""

    def batch(self, generator):
        return batch


if device.type == "cuda":
    for recorded in (False, True):
        config = TrainConfig(steps=12, learning_rate=1e-5, warmup=0, cuda_graph=recorded)
        seconds = np.median(train(model, Same(), config, progress=False).seconds[6:])
        print(f"cuda_graph={recorded}: {seconds:.3f} s a step, {seconds / sum(floor):.1f} times the floor")
else:
    print("no CUDA device here: nothing to measure")

# %% [markdown] tags=["room"]
# ## Room 3: the best group

# %% [markdown] exercise="best_group" difficulty=3 importance=3 minutes=8
# ### The best group (optional)
#
# **Objective**: find the best checkpointing of any stack.
#
# Write `best_group(n_layers, layer, state)`: the whole number `every`, from 1 to `n_layers`, for which
# `checkpointed_numbers` is least.
#
# Hint: $\sqrt{N/c}$ with $c$ = layer/state is near it, but groups are whole, and the last one may be smaller.
#
# Hint: A thousand possibilities are few. You need not be clever about which of them to try.


# %% exercise="best_group"
def best_group(n_layers, layer, state):
    """Layers in a group for which checkpoints keep the least: a whole number."""
    ### BEGIN SOLUTION
    return min(range(1, n_layers + 1), key=lambda every: checkpointed_numbers(n_layers, every, layer, state))
    ### END SOLUTION


# %%
check.best_group(best_group)

# %%
best_group = kit.mine_or_reference(best_group, "best_group")
for n in (12, 100, 1000, 10_000):
    k = best_group(n, LAYER, STATE)
    print(
        f"{n:6,} layers: groups of {k:2}, {checkpointed_numbers(n, k, LAYER, STATE) / (n * LAYER):.1%} of all activations"
    )

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A group of one layer for 12, of 8 for 1,000. The share that is kept falls with the root of the depth.
# </details>
#
# **Why it works.** At the best $k$ both terms are equal, $\sqrt{cN}$ streams each. Memory of activations grows with the
# root of depth: that is what makes a thousand layers cheap to hold. Weights still grow with depth itself.

# %% [markdown] tags=["room"]
# ## Room 4: twelve thousand small tensors

# %% [markdown] exercise="flat_buffer" difficulty=3 importance=4 minutes=12
# ### One tensor for all (optional)
#
# **Objective**: give an optimizer one large tensor in place of many small ones, without the model noticing.
#
# Our 1,000 layers own 12,000 tensors. AdamW reads and writes each. Write `flat_buffer(parameters)`: one tensor of one
# dimension that holds all their numbers end to end, and of which each parameter has become a view: a change of the buffer
# changes the parameters. They stay the same objects, with the same shapes and values.
#
# Hint: Two steps. First all numbers are copied into one new tensor, in their order, without autograd. Then each parameter
# gets other memory under the same object: which attribute of a parameter can be assigned?
#
# Hint: `buffer.split([…])` cuts a tensor into views that share its memory; it wants to know their lengths. A view can be given
# another shape.


# %% exercise="flat_buffer"
def flat_buffer(parameters):
    """All numbers of the parameters in one tensor (n,), of which they become views."""
    ### BEGIN SOLUTION
    buffer = torch.cat([parameter.detach().flatten() for parameter in parameters])
    pieces = buffer.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.data = piece.view_as(parameter)
    return buffer
    ### END SOLUTION


# %%
check.flat_buffer(flat_buffer)

# %%
flat_buffer = kit.mine_or_reference(flat_buffer, "flat_buffer")
with torch.no_grad():
    parameters = [
        torch.nn.Parameter(torch.zeros_like(p))
        for layer in model.stacks()["decoder"].layers
        for p in layer.parameters()
    ]
kit.finding("tensors a layer", len(parameters) / depth, near=12)


def update_seconds(parameters):
    """Of AdamW, on gradients of 1."""
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    return least_seconds(torch.optim.AdamW(parameters, fused=True).step, 3)


many = update_seconds(parameters)
for parameter in parameters:
    parameter.grad = None
one = update_seconds([torch.nn.Parameter(flat_buffer(parameters))])

# %% tags=["nbval-ignore-output"]
by_roof = 28 * sum(p.numel() for p in parameters) / bandwidth
print(f"AdamW on {len(parameters):,} tensors {many:.3f} s, on one {one:.3f} s; the roof allows {by_roof:.3f} s")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Updating one flat tensor is several times faster; it takes about as long as moving its bytes.
# </details>
#
# **Why it works.** The numbers are the same and so are the bytes. What has gone is the start-up cost of 12,000 small
# tensors. The library trains so: `TrainStep` lays weights and gradients end to end, and hands the optimizer one of each.

# %% [markdown] tags=["room"]
# ## Room 5: two passes less

# %% [markdown] exercise="norm_bytes" difficulty=2 importance=3 minutes=8
# ### What LN(αx + f) moves (optional)
#
# **Objective**: count the bytes of an operation that hardly computes, as it is written and as one kernel.
#
# DeepNorm's sub-layer ends with $\mathrm{LN}(\alpha x + f)$: the stream $x$, the branch's output $f$ and the result are (rows, d)
# each. Written as two operations, a sum and a norm, the sum goes to memory and comes back. One kernel for both holds a
# row of it in registers.
#
# Write `norm_bytes(rows, d, size, one_kernel)`: the bytes that it moves forward. `size` is the bytes of a number. Leave
# out α, the norm's gain and bias, mean and 1/σ: they are few.
#
# Hint: How many tensors of (rows, d) does the sum read, how many does it write? And the norm?
#
# Hint: Each such pass moves rows·d numbers of `size` bytes. One kernel skips those of the sum.


# %% exercise="norm_bytes"
def norm_bytes(rows, d, size, one_kernel):
    """Bytes that LN(αx + f) reads and writes: one number."""
    ### BEGIN SOLUTION
    passes = 3 if one_kernel else 5
    return passes * rows * d * size
    ### END SOLUTION


# %%
check.norm_bytes(norm_bytes)

# %%
norm_bytes = kit.mine_or_reference(norm_bytes, "norm_bytes")
GPU_ROWS, GPU_WIDTH = 64 * 512, 512  # 1,000 layers on an H200
GPU_BANDWIDTH = 4.25e12  # of a copy that was measured there, bytes a second
for how, size in (("float32", 4), ("bfloat16", 2)):
    two, one = (1e6 * norm_bytes(GPU_ROWS, GPU_WIDTH, size, alone) / GPU_BANDWIDTH for alone in (False, True))
    print(f"{how:8}: {two:2.0f} µs as two operations, {one:2.0f} µs as one kernel, at the least")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 79 µs at the start, 47 in one kernel, 39 in half the bytes, 24 with both. Two such norms a layer, a thousand layers.
# </details>
#
# **Why it works.** Below the slope of the roofline only bytes count, so there are two cures: fewer passes and smaller
# numbers. Under autocast PyTorch's `layer_norm` returns float32, and with the norm behind the sum the whole stream is
# float32 from the first norm on. The statistics need float32, and one kernel can have them so while it reads and writes
# bfloat16. But half the bytes are for stacks whose branches are as large as their stream: a deep DeepNorm loses its own to
# rounding (lesson 10), so at 1,000 layers it takes one kernel and keeps float32: the 47 µs. These are the least that bytes
# allow, by arithmetic. The page `docs/depth.md` says what was measured.

# %% [markdown]
# ## In three sentences
#
# 1. Training in float32 takes 16 bytes a weight and $4BT(8d + 2d_{\mathrm{ff}} + 4 + h)$ bytes a layer; checkpoints bring the second
#    down to its root, for one more forward pass, which costs a third of a step by count and more by the clock.
# 2. The floor of a step is 6 operations a weight and token; what comes on top is bytes moved, and calls, of which
#    deep and narrow stacks have the most.
# 3. Utilisation counts what the model needs, not what was done, and every cure is one of three: keep less, move less, call less.
#
# **Read next**: Korthikanti et al., arXiv 2205.05198, Section 4, for the count of a layer's bytes on many GPUs; Chen et
# al., arXiv 1604.06174, Section 4, for checkpoints inside checkpoints. Then lesson 12: what are a thousand layers good for?
