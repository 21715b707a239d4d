# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What is in a training step?
#     opening: >-
#       A training loop is ten lines long, and each line has a place where it belongs. A wrong order raises no error: the run
#       trains, a little worse, and the loss curve does not say why. This lesson takes the loop apart: the order, the learning
#       rate, the clip, half the bits, and a run that is killed half-way and resumes as if nothing had happened. That takes
#       about an hour; the further rooms at the end are optional.
#     objectives: >-
#       write a training step and a step with a scaled loss, say what each line guards against, and save a run so that it can
#       be killed at any moment.
#     prerequisites: lesson 00, and a training loop that you have once written. Lesson 05 helps.
#     minutes: 60
#     paper: Tables 4 to 8, the recipes of its runs.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
DEPTH = 0  # layers of the deep stack; 0: what the profile says

# %% tags=["imports"]
import os
from math import cos, isfinite, pi

import torch
from torch import nn

# %%
from deepnet_edu import ModelConfig, TrainConfig, build_model
from deepnet_edu.checks import check
from deepnet_edu.data import TokenMap
from deepnet_edu.figures import Picture
from deepnet_edu.figures.style import legend_below, new_figure, series_style
from deepnet_edu.model import Batch
from deepnet_edu.training import TrainStep

device = kit.setup(SEED, PROFILE)
smoke = PROFILE == "smoke"
depth, middle = DEPTH or (24 if smoke else 1000), 8 if smoke else 48
task = TokenMap(vocab_size=16, length=16, batch_size=16)

# %% [markdown]
# ## Six lines in order
#
# The models of this course have `model.loss(batch)`, the mean over the batch's answers. A step makes this loss a little
# smaller. It has six parts. Forget the old gradients. Run forward. Run backward. Make sure that the gradient is not too long
# (*clipping*). Tell the optimizer how large a step may be. Take it.
#
# PyTorch checks none of this. Gradients are *added* to what is in `.grad`. An optimizer steps with whatever it finds there.

# %% [markdown] exercise="training_step" difficulty=2 importance=5 minutes=10
# ### The step
#
# **Objective**: put six lines in the right order.
#
# Write `training_step(model, batch, optimizer, rate, clip)`. It takes one step with the learning rate `rate`, on the gradient
# of `model.loss(batch)`. If the 2-norm of the whole gradient is larger than `clip`, the gradient is first shortened to that. It
# returns two numbers: the loss before the update, and the gradient's norm before clipping.
#
# Hint: Calling `nn.utils.clip_grad_norm_(model.parameters(), clip)` shortens the gradients in place, and returns the norm that they
# had. Between which two lines does it belong?
#
# Hint: The rate is kept in the optimizer, in every one of `optimizer.param_groups`, under the key `"lr"`. And `.item()` makes a
# number of a tensor; a tensor would keep the whole graph in memory.


# %% exercise="training_step"
def training_step(model, batch, optimizer, rate, clip):
    """One update of the model, in place. Returns (loss, norm of the gradient before clipping), two numbers."""
    ### BEGIN SOLUTION
    optimizer.zero_grad()
    loss = model.loss(batch)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return loss.item(), norm.item()
    ### END SOLUTION


# %%
check.training_step(training_step)

# %%
training_step = kit.mine_or_reference(training_step, "training_step")


class Bowl(nn.Module):
    """Loss: batch · ‖w‖²/2, whose gradient is batch · w."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([3.0, 4.0]))

    def loss(self, batch):
        return batch * self.w.square().sum() / 2


bowl = Bowl()
loss, norm = training_step(bowl, 2.0, torch.optim.SGD(bowl.parameters(), lr=1.0), rate=0.1, clip=1.0)
moved = (bowl.w.detach() - torch.tensor([3.0, 4.0])).norm().item()
print(
    f"loss {loss:.0f}, gradient norm {norm:.0f}; clipped to 1 and times the rate of 0.1, the step has length {moved:.3f}"
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card. The check knows a dozen slips by what they do to the weights. Try some: clip after the step, or leave `zero_grad`
# out.
# </details>
#
# **Why it works.** Clipping acts on `.grad`, so it belongs between the line that fills it and the line that uses it. One
# norm over *all* parameters keeps the gradient's direction. A clip for each parameter, or for each entry, would change it.
#
# ## How large a step?
#
# The learning rate of nearly every Transformer rises first, in a straight line, and falls afterwards. The paper's runs start at
# 1e-7, rise for 4,000 steps (6,000 with 102 languages) and then fall with the inverse square root of the step. For update $n$,
# counted from 1, after a warm-up of $w$ updates, the rate is
#
# $$\text{peak}\cdot\sqrt{w/n} .$$
#
# You wrote it in lesson 05. (If you have not, the reference answer is taken.) A schedule is a function of the update's number
# alone. It remembers nothing. The number $n$ is all that it needs, and that will save us work when a run is killed.
#
# What is the warm-up for? Take 1,000 layers of DeepNorm (or as many as DEPTH says), the stack alone (embedding and head stay as they were drawn, as in
# lesson 00), Adam with the paper's β₁ = 0.9 and β₂ = 0.98, clip 1. Three runs: with warm-up to a peak of 10⁻³; without
# warm-up, at 10⁻³ from the first update on; and without warm-up at three tenths of it. The folded cell builds the stack.

# %% tags=["hide-input"]
import numpy as np

inverse_sqrt_rate = kit.earlier("learning_rate")


def built(layers, dropout=0.0):
    """A narrow DeepNorm decoder whose stack is trained alone."""
    config = ModelConfig("decoder", "lm", layers, residual="deepnorm", d_model=32, n_heads=2, d_ff=128, vocab_size=16,
                         max_length=32, dropout=dropout)  # fmt: skip
    model = build_model(config, seed=0)
    model.requires_grad_(False)
    model.stack.requires_grad_(True)
    model.named_parameters = model.stack.named_parameters  # what is trained, and nothing else
    return model


def adam(model):
    """Adam with the paper's betas, on the stack."""
    return torch.optim.AdamW(model.stack.parameters(), betas=(0.9, 0.98), weight_decay=0.0, fused=True)


def mark_chance(ax):
    """A line at ln 16, the loss of a uniform guess; its label is in the margin, where no curve is."""
    ax.axhline(task.chance, color="black", linewidth=0.8)
    ax.annotate("ln 16", (1, task.chance), (5, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=11)


def end(values):
    """Mean of the last four."""
    return float(np.mean(values[-4:]))


# %%
STEPS, WARMUP = 16, 8
PEAK = 1.7e-2 if smoke else 1e-3  # a shallower stack needs larger steps (lesson 06)
SCHEDULES = {
    "warm-up": lambda n: inverse_sqrt_rate(n, PEAK, WARMUP, 1e-7),
    "no warm-up, the same peak": lambda n: PEAK,
    "no warm-up, 0.3 × the peak": lambda n: 0.3 * PEAK,
}
options = [
    "better than that with warm-up, by more than 0.3",
    "equal to it, within 0.3",
    "worse than that, by more than 0.3",
    "NaN",
]
guess_same = kit.Guess("After 16 updates the loss of the run without warm-up, at the same peak, is", options)
guess_less = kit.Guess("And that of the run without warm-up at 0.3 × the peak?", options)

# %%
guess_same

# %%
guess_less

# %%
rates, losses = {}, {}


def schedule_picture():
    figure, (left, right) = new_figure(2, width=10, height=4)
    for i, name in enumerate(losses):
        updates = range(1, len(losses[name]) + 1)
        left.plot(updates, rates[name], label=name, **series_style(i))
        right.plot(updates, losses[name], **series_style(i))
    mark_chance(right)
    left.set(xlabel="update", ylabel="learning rate", xlim=(1, STEPS), ylim=(0, 1.1 * PEAK), title="How large a step?")
    right.set(xlabel="update", ylabel="loss (nats per token)", xlim=(1, STEPS), ylim=(0, 3.7))
    right.set_title(f"{depth:,} layers")
    legend_below(figure, left)
    return figure


picture = kit.LivePicture(
    schedule_picture,
    alt="Two panels over 16 updates. Learning rate: one schedule rises for 8 updates to the peak, then falls; one is at the peak "
    "throughout, one at 0.3 of it. Loss: all three fall from above ln 16. The run at the peak from the start falls least; the "
    "one at 0.3 of it ends where the run with warm-up ends, or lower.",
)
for name, rate in SCHEDULES.items():
    model = built(depth).to(device)
    optimizer, data = adam(model), torch.Generator().manual_seed(SEED)
    rates[name], losses[name] = [], []
    for n in range(1, STEPS + 1):
        rates[name].append(rate(n))
        losses[name].append(training_step(model, task.batch(data).to(device), optimizer, rate(n), 1.0)[0])
        picture.update()
picture.finish()
del model, optimizer  # one deep model at a time

# %%
warm, same, less = (end(losses[name]) for name in SCHEDULES)
kit.finding("loss after 16 updates, with warm-up", warm, below=task.chance)
kit.finding("without it, the same peak: behind by", same - warm, above=0.3)
kit.finding("without it, 0.3 × the peak: behind by", less - warm, above=-0.3, below=0.3)

# %% tags=["nbval-ignore-output"]
kit.record(layers=depth, **{f"loss_schedule_{i}": end(values) for i, values in enumerate(losses.values())})


# %%
def place(behind):
    """The option that is right for a run that is so far behind."""
    return options[0] if behind < -0.3 else options[1] if behind <= 0.3 else options[2] if behind > 0.3 else options[3]


guess_same.compare(place(same - warm))
guess_less.compare(place(less - warm))

# %% [markdown]
# So was it the warm-up, or only the rate? One peak for all arms cannot tell: each arm needs *its own best* rate, and more than
# one seed. Here are the same 16 updates at 1,000 layers for three seeds of the data, recorded by
# `python benchmarks/lesson_10.py`. ("Then constant" stays at the peak after the warm-up: it shows whether the decay helps.)

# %%
record = kit.Results("lesson_10")
tuned = {}
print(f"{'':24}{'peak':>8}{'seed 0':>9}{'1':>7}{'2':>7}{'mean':>9}")
for row in record.select(part="warm-up", seed=0):
    arm = {name: row[name] for name in ("part", "schedule", "rate")}
    by_seed = [end(record.select(**arm, seed=seed)[0]["loss"]) for seed in (0, 1, 2)]
    tuned.setdefault(row["schedule"], {})[row["rate"]] = np.mean(by_seed)
    print(
        f"{row['schedule']:24}{row['rate']:8g}{by_seed[0]:9.2f}{by_seed[1]:7.2f}{by_seed[2]:7.2f}{np.mean(by_seed):9.2f}"
    )
best = {schedule: min(means, key=means.get) for schedule, means in tuned.items()}
at_best = {schedule: tuned[schedule][rate] for schedule, rate in best.items()}
kit.finding("best peak with warm-up over best rate without", best["warm-up"] / best["constant"], above=1.5, below=4)
kit.finding(
    "loss at the best rate: without warm-up it is behind by", at_best["constant"] - at_best["warm-up"], near=0, by=0.1
)
kit.finding("loss at a peak of 10⁻³", {schedule: means[1e-3] for schedule, means in tuned.items()},
            says="most of the gain is the warm-up's, not the decay's",
            holds=tuned["constant"][1e-3] - tuned["warm-up, then constant"][1e-3]
            > tuned["warm-up, then constant"][1e-3] - tuned["warm-up"][1e-3])  # fmt: skip

# %% [markdown]
# **Warm-up allows a larger peak. It does not by itself give a lower loss here:** a run without it that takes
# the smaller rate ends at the same loss. A likely reason: the first steps go in directions that one batch has chosen, with
# Adam's memories still nearly empty. Warm-up makes just these steps small, and the rest may be large.
#
# (The paper does not try to do without: all of its runs warm up, for thousands of steps. And a bound on the update holds for
# *small* steps. The authors of admin-torch, the code of an earlier method for deep Post-LN stacks, report a recipe with
# small batches, and another rate, warm-up, weight decay and dropout, under which DeepNorm's 100-100 layers failed.)
#
# ## One bad batch
#
# Two of the paper's five recipes clip, at 1.0; three do not. What is clipping for, when Adam divides by the gradient's size
# anyway? For the day on which one batch is different. Here is one: at update 13 the loss is summed over the batch's 256
# tokens by mistake, where all others are means. Its gradient is 256 times as long. It points in the right direction.

# %%
guess_clip = kit.Guess(
    "Adam, no clipping, one gradient that is 256 times too long and points in the right direction. It",
    [
        "makes one step that is 256 times too long",
        "does nothing at all: Adam divides by the size",
        "makes no giant step, but slows the run for long",
    ],
)
guess_clip

# %% tags=["hide-input"]


class Louder(nn.Module):
    """A model whose loss counts ``factor`` times."""

    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor
        self.named_parameters = model.named_parameters

    def loss(self, batch):
        return self.factor * self.model.loss(batch)


def trained(clip, bad, steps=40, layers=middle, peak=1e-3 if not smoke else 3e-3):
    """Losses and norms of a run; at update ``bad`` the loss is a sum over tokens."""
    model, data, found = built(layers).to(device), torch.Generator().manual_seed(SEED), []
    optimizer = adam(model)
    for n in range(1, steps + 1):
        factor = 256 if n == bad else 1
        rate = inverse_sqrt_rate(n, peak, 10, 1e-7)
        loss, norm = training_step(Louder(model, factor), task.batch(data).to(device), optimizer, rate, clip)
        found.append((loss / factor, norm))
    return np.array(found).T


# %% [markdown]
# Four runs: with and without the clip, with and without the bad batch. So each effect has its control.

# %%
BAD, NONE = 13, float("inf")
clipping = {
    "clip 1, no bad batch": trained(1.0, None),
    "clip 1, bad batch": trained(1.0, BAD),
    "no clip, no bad batch": trained(NONE, None),
    "no clip, bad batch": trained(NONE, BAD),
}
norms = clipping["clip 1, bad batch"][1]
ends_at = {name: end(found[0]) for name, found in clipping.items()}
kit.finding("norm of the bad batch's gradient, in norms of the one before", norms[BAD - 1] / norms[BAD - 2], above=100)
kit.finding(
    "with the clip, the bad batch costs", ends_at["clip 1, bad batch"] - ends_at["clip 1, no bad batch"], below=0.1
)
kit.finding(
    "without it, the bad batch costs", ends_at["no clip, bad batch"] - ends_at["no clip, no bad batch"], above=0.3
)

# %%
guess_clip.compare("makes no giant step, but slows the run for long")

# %%
rows = record.select(part="clipping")
long = [sum(norm > 1 for norm in row["norm"]) for row in rows if row["clip"] and not row["bad"]]
print("48 layers, loss after 40 updates (the same record)")
print(f"{'':24}{'seed 0':>9}{'1':>7}{'2':>7}")
for clip in (1.0, None):
    for bad in (None, BAD):
        three = [end(row["loss"]) for row in rows if (row["clip"], row["bad"]) == (clip, bad)]
        said = f"{'clip 1' if clip else 'no clip'}, {'bad batch' if bad else 'no bad batch'}"
        print(f"{said:24}{three[0]:9.3f}{three[1]:7.3f}{three[2]:7.3f}")
print(f"of 40 norms without a bad batch, above 1 (so clipped): {', '.join(map(str, long))}")

# %% [markdown]
# Adam divides by a *memory* of the gradient's size: a running mean of its square. One gradient that is 256 times as long puts
# $256^2$ times as much into it, and with β₂ = 0.98 a fiftieth of it is left after two hundred updates. All that time Adam takes
# its gradients for tiny ones. Its other memory, of the direction, keeps repeating the bad batch for ten updates. With the clip
# the bad batch is one among many.
#
# And the clip acts on other days, too: 13 to 19 of the 40 norms are above 1 without any bad batch, and with the clip the runs end
# lower by 0.07. So compare a run with clip and bad batch to one with the clip and *without* the bad batch. A control that lacks
# both would mix two effects.
#
# ## Half the bits
#
# Two formats of 16 bits are in use. Products in them are several times faster on a GPU, and take half of the memory. What do
# they cost?

# %%
for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
    info = torch.finfo(dtype)
    digits, least = info.eps, info.tiny * info.eps
    print(f"{name}: largest {info.max:8.2g}, smallest {least:8.2g}, with full precision from {info.tiny:8.2g}, "
          f"steps of {digits:.1g} beside 1")  # fmt: skip

# %% [markdown]
# bf16 has fp32's range but barely three significant digits. fp16 has more digits, and ends on both sides: above 65,504 (lesson
# 09 was there) and below 6·10⁻⁸. **[Autocast](glossary.md)** computes products in such a format, and keeps the weights and the
# loss in fp32. On a GPU it keeps norms and softmax in fp32, too. On a CPU (torch 2.13) these give 16 bits where they read 16;
# our norms read the stream, which is fp32. Gradients come back in the format of the products. One below *half* of 6·10⁻⁸
# comes back as 0: an *[underflow](glossary.md)*.
#
# Why not keep the stream itself in bf16? Its numbers have 8 bits: a branch below 1/512 of what it is added to is rounded
# away. DeepNorm's starts with β²/α = (8N √(2N))^(-1/2) of it, 1/63 at 50 layers and 1/598 at 1,000. (Lesson 09 measures that
# in a room of its own; `docs/depth.md` has what it does to training.)
#
# How small are the gradients of a deep stack? They depend on the batch: the loss is a mean, so each token's share of it is one over their
# number. Our batch has 256 tokens. The paper's have 128 × 4,096 = 524,288, taken in pieces whose gradients are added (a
# further room below). To see the gradients of the paper's batch, we weigh our loss by 256/524,288.

# %% tags=["hide-input"]
SHARE = 256 / (128 * 4096) / (8 if smoke else 1)  # the few layers of a test have larger gradients
model = built(depth).to(device)
(SHARE * model.loss(task.batch(torch.Generator().manual_seed(SEED)).to(device))).backward()
fresh = torch.cat([p.grad.flatten() for sub in model.sublayers() for p in sub.matrices()]).abs().cpu()
del model
LEAST = torch.finfo(torch.float16).tiny * 2**-10  # the smallest number of fp16, 6e-8


def lost(values):
    """Share of numbers that are not 0 and become 0 in fp16."""
    return ((values != 0) & (values.half() == 0)).double().mean().item()


figure, (ax,) = new_figure(1, width=8, height=4.4)
edges = np.linspace(-14, 2, 97)
for i, (name, values) in enumerate({"as they are": fresh, "of a loss × 2¹⁶": fresh * 2**16}.items()):
    heights = np.histogram(np.log10(values[values > 0].numpy()), edges)[0] / len(values)
    ax.stairs(100 * heights, edges, label=name, **series_style(i))
ax.axvspan(-12, np.log10(LEAST / 2), color="#999999", alpha=0.2, label="becomes 0 in fp16")
ax.axvline(np.log10(6.1e-5), color="#555555", linestyle=":", linewidth=1.5, label="full precision to the right of it")
ax.set(
    xlabel="size of a gradient's entry (power of 10)", ylabel="share of all entries (%)", xlim=(-12, 1), ylim=(0, 18)
)
legend_below(figure, ax, columns=2)
Picture(
    figure,
    alt="Histogram of the gradients' sizes of all matrices on a logarithmic axis. As they are, the hump is around 10 to the minus "
    "7.5, and nearly half of it is left of 3 times 10 to the minus 8, where fp16 gives 0. With the loss multiplied by 2 to the "
    "16 the same hump is five powers of ten farther right, most of it where fp16 has its full precision.",
)

# %%
kit.finding("share of the entries that become 0 in fp16", lost(fresh), above=0.1, form=".0%")
kit.finding("with the loss × 65,536", lost(fresh * 2**16), below=0.001, form=".3%")
kit.finding("largest entry then", (fresh * 2**16).max(), below=65504)

# %% [markdown]
# The picture shows the remedy. Multiply the *loss* by a large number, and all gradients are multiplied by it, on their whole
# way back. Divide the *gradients* by it before they are used: by then they are in fp32, and lose nothing. A power of
# two changes no digit of a number, only its exponent.
#
# If the scale is too large, something on the way passes 65,504, and becomes ∞. Such a gradient is useless. The step is
# skipped, and the next one gets a smaller scale.

# %% [markdown] exercise="scaled_step" difficulty=3 importance=5 minutes=12
# ### A step with a scaled loss
#
# **Objective**: put two more lines into the step, each in the one place where it is right.
#
# Write `scaled_step(model, batch, optimizer, rate, clip, scale)`: your `training_step`, but the backward pass starts from `scale`
# times the loss. Clipping, update and both returned numbers are as without the scale. If the gradient's norm is not
# finite, the optimizer does not step; return the norm as it is.
#
# Hint: A parameter that is not trained has None in its `.grad`. The norm `clip` is meant for the true gradient: what must have
# happened before it is compared?
#
# Hint: Which two lines of the step read `.grad`? And `isfinite(norm.item())` is False for inf and for nan.


# %% exercise="scaled_step"
def scaled_step(model, batch, optimizer, rate, clip, scale):
    """One update, or none on an overflow. Returns (loss, norm of the gradient before clipping), without the scale."""
    ### BEGIN SOLUTION
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
    ### END SOLUTION


# %%
check.scaled_step(scaled_step)

# %%
scaled_step = kit.mine_or_reference(scaled_step, "scaled_step")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card. The most popular slip is to clip while the gradient is still scaled. Then every gradient is "too long", and is
# cut to `clip / scale`. Adam hides it, because it divides by the size: the run continues, with clipping at a
# hundred-thousandth of what was asked for.
# </details>
#
# **Why it works.** Backward is linear: what goes in 65,536 times as large comes out 65,536 times as large. In between it
# stays above the smallest number.
#
# Now four runs of the same stack, each batch with its share of 1/2,048. Adam is nearly indifferent to that share, and fp32's
# numbers reach down to 10⁻⁴⁵. What do you expect of fp16 without a scale?

# %%
guess_bits = kit.Guess(
    "fp16 without a scale loses the smallest gradients to 0. Its run",
    [
        "is like fp32's: small gradients do not matter",
        "falls behind: Adam makes large steps of small gradients",
        "becomes NaN: 0 over 0",
    ],
)
guess_bits

# %% tags=["hide-input"]


class Autocast(Louder):
    """The same, with products in another format."""

    def __init__(self, model, factor, dtype):
        super().__init__(model, factor)
        self.dtype = dtype

    def loss(self, batch):
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            return super().loss(batch)


FORMATS = {
    "fp32": (torch.float32, 1.0),
    "bf16": (torch.bfloat16, 1.0),
    "fp16, loss × 2¹⁶": (torch.float16, 2.0**16),
    "fp16": (torch.float16, 1.0),
}
LOOKS = {
    "fp32": {"color": "black", "linestyle": "-", "linewidth": 8, "alpha": 0.25},
    "bf16": {"color": "#0072B2", "linestyle": "-", "linewidth": 1.5},
    "fp16, loss × 2¹⁶": {"color": "#E69F00", "linestyle": "--", "linewidth": 2},
    "fp16": {"color": "#D55E00", "linestyle": ":", "linewidth": 2.5},
}
bits, UPDATES = {}, 10 if smoke else 24


def draw_bits(ax):
    for name, values in bits.items():
        ax.plot(range(1, len(values) + 1), values, label=name, **LOOKS[name])
    mark_chance(ax)
    ax.set(xlabel="update", ylabel="loss (nats per token)", xlim=(1, UPDATES), ylim=(0, 3.7))


def bits_picture():
    figure, (ax,) = new_figure(1, width=8, height=4.4)
    draw_bits(ax)
    legend_below(figure, ax, columns=4)
    return figure


picture = kit.LivePicture(
    bits_picture,
    alt="Loss by update. fp32 is a broad grey band; bf16 and fp16 with a scaled loss are inside it. fp16 without a scale falls more "
    "slowly.",
)
for name, (dtype, scale) in FORMATS.items():
    model, data = built(middle).to(device), torch.Generator().manual_seed(SEED)
    optimizer, bits[name] = adam(model), []
    for n in range(1, UPDATES + 1):
        rate = inverse_sqrt_rate(n, 1e-3 if not smoke else 3e-3, 10, 1e-7)
        loss, norm = scaled_step(
            Autocast(model, SHARE, dtype), task.batch(data).to(device), optimizer, rate, 1.0, scale
        )
        bits[name].append(loss / SHARE)
        picture.update()
picture.finish()

# %%
apart = {name: np.abs(np.array(bits[name]) - bits["fp32"]).max() for name in ("bf16", "fp16, loss × 2¹⁶")}
kit.finding("largest distance from fp32 at any update", apart, below=0.05)
kit.finding("fp16 without a scale ends behind fp32 by", end(bits["fp16"]) - end(bits["fp32"]), above=0.2)

# %%
guess_bits.compare("falls behind: Adam makes large steps of small gradients")

# %% [markdown]
# Adam makes a step of two thirds of the full rate out of a gradient of 2·10⁻⁸ (its ε is 10⁻⁸). It cannot make one out of 0.
# (One seed. On a CPU the short formats may well be slower than fp32: their speed is a property of GPUs.)
#
# bf16 needs no scale, which is why it has displaced fp16 where the hardware has it. Its price is the digits: the *weights* must
# stay in fp32. The next number after 1 in bf16 is 1.0078, so a step of 10⁻³ would be rounded away.
#
# ## Killed
#
# A run of days will be killed: by a full disk, a preempted machine, a cable. It must resume as if nothing had happened. How
# would you know that it does? There is a hard test: **the same numbers, bit for bit**, as the run that was not killed. "The loss
# looks about right" is a soft one, and hides all of what follows.

# %%
guess_forget = kit.Guess(
    "You resume with the right weights, but forget one other thing. Which can be forgotten without changing the run?",
    [
        "Adam's running means",
        "the count of updates",
        "the place in the data",
        "the random numbers of dropout",
        "none of these four",
    ],
)
guess_forget

# %% [markdown]
# And one thing about files. A program can be killed while it writes. Then there is half a file under the name, and the old one
# is gone. The remedy is older than deep learning: write to *another* name, then rename. Renaming is
# **[atomic](glossary.md)**: a reader sees the old file or the new one, and never half of one.

# %% [markdown] exercise="checkpoints" difficulty=4 importance=5 minutes=20
# ### Save and resume
#
# **Objective**: know everything that a run consists of, and lose none of it.
#
# Write `checkpoints(model, optimizer, data)`. It returns two functions. `save(path, step)` writes all that the rest of the run
# depends on into one file at `path` (a `pathlib.Path`), which is whole at every moment. `load(path)` puts everything back in place, into
# this model, this optimizer, this `data`, and returns the step. `data` is the `torch.Generator` that batches are drawn from. Dropout
# draws from PyTorch's own generator. Use only `os` and `torch`: another process will run it.
#
# Hint: Five things. Two of them have `state_dict()` and `load_state_dict(…)`; two are random generators, `data` with `get_state()`
# and `set_state(…)`, PyTorch's own with `torch.get_rng_state()` and `torch.set_rng_state(…)`. Which is the fifth?
#
# Hint: `torch.save` takes a dictionary. `path.with_suffix(".part")` is a name beside `path`, and `os.replace` renames. Let `torch.load`
# take tensors and numbers only (`weights_only=True`), so that it refuses programs.


# %% exercise="checkpoints"
def checkpoints(model, optimizer, data):
    """(save, load): save(path, step) writes the whole run to a file, load(path) puts it back and returns the step."""

    ### BEGIN SOLUTION
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
    ### END SOLUTION


# %%
check.checkpoints(checkpoints)

# %%
checkpoints = kit.mine_or_reference(checkpoints, "checkpoints")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card. The check has killed a small run, resumed it in a "process" with other random numbers, and compared losses bit for
# bit. It has also watched the old file through a second name while the new one was written, and has handed `load` a file with
# a program in it.
# </details>
#
# **Why it works.** A run is a function of its state. The weights are a third of it: Adam's memory is twice as large. What follows
# from a number need *not* be in the file: the schedule follows from $n$.
#
# (`weights_only=True`: a file of `torch.save` is a pickle, and a pickle can hold a program, which runs when it is opened. The library
# writes safetensors, a format that cannot hold any. After a power failure even a renamed file may be empty, if the disk was not told to
# write first; the library calls `os.fsync`.)
#
# So what does each forgotten thing cost? In the folded cell a stack with dropout is saved at update 12, and resumed five times:
# once with everything, and four times with one thing set back to its start.

# %% tags=["hide-input"]
from pathlib import Path
from tempfile import TemporaryDirectory

FORGET = {
    "nothing": lambda run: None,
    "Adam's running means": lambda run: run["optimizer"].state.clear(),
    "the count of updates": lambda run: run.update(step=0),
    "the place in the data": lambda run: run["data"].manual_seed(SEED),
    "dropout's random numbers": lambda run: torch.manual_seed(SEED),
}


def run_of(path, forget=None, stop=24, save_at=12):
    """Weights after each update of a run with dropout; from ``path`` where it is given."""
    torch.manual_seed(SEED)
    model = built(4 if smoke else 12, dropout=0.1)
    run = {"optimizer": adam(model), "data": torch.Generator().manual_seed(SEED), "step": 0}
    save, load = checkpoints(model, run["optimizer"], run["data"])
    if path.exists():
        run["step"] = int(load(path))
        forget(run)
    weights = {}
    for n in range(save_at + 1 if path.exists() else 1, stop + 1):
        run["step"] += 1
        rate = float(inverse_sqrt_rate(run["step"], 3e-3, 8, 1e-7))  # a plain number, as torch.load asks
        training_step(model, task.batch(run["data"]), run["optimizer"], rate, 1.0)
        weights[n] = torch.cat([p.detach().flatten() for p in model.stack.parameters()])
        if n == save_at:
            save(path, n)
    return weights


with TemporaryDirectory() as folder:
    path = Path(folder, "run.pt")
    uninterrupted = run_of(path)
    resumed = {name: run_of(path, forget) for name, forget in FORGET.items()}
moved = (uninterrupted[24] - uninterrupted[12]).norm().item()
distance = {
    name: [(weights[n] - uninterrupted[n]).norm().item() / moved for n in weights] for name, weights in resumed.items()
}

figure, (ax,) = new_figure(1, width=8, height=4.6)
for i, name in enumerate(FORGET):
    if name != "nothing":
        ax.plot(range(13, 25), distance[name], marker=".", label=f"forgot {name}", **series_style(i))
ax.plot(range(13, 25), distance["nothing"], marker="o", color="black", label="forgot nothing: exactly 0")
ax.set(xlabel="update", ylabel="distance from the uninterrupted run\n/ its own way since the save", xlim=(12.5, 24.5))
legend_below(figure, ax, columns=2)
Picture(
    figure,
    alt="Distance of the weights from the uninterrupted run against the update, for four resumed runs, each of which forgot one thing. All "
    "are away from the first update on and stay away. The run that forgot nothing is at exactly 0.",
)

# %%
kit.finding("forgot nothing, largest distance", max(distance["nothing"]), says="equal bit for bit",
            holds=max(distance["nothing"]) == 0)  # fmt: skip
kit.finding("distance at the end, in lengths of the way since the save",
            {name: values[-1] for name, values in distance.items() if name != "nothing"}, above=0.01)  # fmt: skip

# %%
guess_forget.compare("none of these four")

# %% [markdown]
# None of these runs fails, and their loss curves look ordinary. Only the hard test tells them apart.
#
# ### A real kill
#
# Now the deep stack, in a process of its own. It runs your functions, saves every 4 updates, and prints its loss after each.
# When it prints update 7, we send SIGKILL, which no program can catch. Then a *new* model in this notebook loads what is on
# the disk, and resumes. The run with warm-up from the beginning of the lesson is the one that was never interrupted. (All on a CPU,
# which adds in the same order every time. GPUs promise that only in a special mode.)


# %%
def long_run(path, layers, rates, say):
    """Train from the beginning, or from what is at ``path``, with one rate for each update; save every 4 updates."""
    model, data = built(layers), torch.Generator().manual_seed(0)
    optimizer = adam(model)
    save, load = checkpoints(model, optimizer, data)
    first = int(load(path)) + 1 if path.exists() else 1
    for n in range(first, len(rates) + 1):
        say(n, training_step(model, task.batch(data), optimizer, rates[n - 1], 1.0)[0])
        if n % 4 == 0:
            save(path, n)


# %% tags=["hide-input"]
import inspect
import subprocess
import sys

RATES = [float(rate) for rate in rates["warm-up"]]
PROGRAM = "\n\n\n".join(
    [
        "import os, sys\nfrom math import cos, isfinite, pi\nfrom pathlib import Path\n\nimport torch\nfrom torch import nn\n\n"
        "from deepnet_edu import ModelConfig, build_model\nfrom deepnet_edu.data import TokenMap\n\n"
        "torch.set_num_threads(1)\ntorch.set_flush_denormal(True)\ntask = TokenMap(vocab_size=16, length=16, batch_size=16)",
        *map(inspect.getsource, (built, adam, long_run)),
        *map(kit.shipped, ("training_step", "checkpoints")),
        f"long_run(Path(sys.argv[1]), {depth}, {RATES!r}, lambda n, loss: print(n, float(loss).hex(), flush=True))",
    ]
)


def until_killed(path, at):
    """Losses of the other process by update, until it is killed after update ``at``; its last words if it fails."""
    losses = {}
    with path.with_suffix(".errors").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        for line in process.stdout:
            n, loss = line.split()
            losses[int(n)] = float.fromhex(loss)
            if int(n) == at:
                process.kill()
                break
        process.stdout.close()
        process.wait()
        if at not in losses:
            errors.seek(0)
            print("The process ended by itself. The end of what it said:", errors.read().strip()[-600:], sep="\n")
    return losses


with TemporaryDirectory() as folder:
    path, after = Path(folder, "run.pt"), {}
    before = until_killed(path, 7)
    long_run(path, depth, RATES, after.__setitem__)
    whole_run = dict(enumerate(losses["warm-up"], 1))
    if device.type != "cpu" or SEED:  # the run at the beginning was on another device, or other data
        long_run(Path(folder, "another.pt"), depth, RATES, whole_run.__setitem__)

# %%
first = min(after, default=len(RATES) + 1)
kit.finding("killed after update 7; the new process begins with update", first, says="the one after a save",
            holds=first % 4 == 1 and first > 1)  # fmt: skip
for when, part in (("before the kill", before), ("after it", after)):
    equal = sum(whole_run[n] == part[n] for n in part)
    kit.finding(f"losses {when} that are the uninterrupted run's, bit for bit", equal, says="all of them",
                holds=equal == len(part))  # fmt: skip

# %% [markdown]
# The updates between the last save and the kill were computed twice, by two processes that shared nothing but a file, and came
# out equal to the last bit. Here are the four parts of the lesson in one picture:

# %% tags=["headline"]
from matplotlib.figure import Figure

figure = Figure(figsize=(10, 8.4), layout="constrained")
(top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
for i, (name, values) in enumerate(losses.items()):
    top_left.plot(range(1, STEPS + 1), values, label=name, **series_style(i))
looks = [
    {"color": "#009E73", "linestyle": "-", "linewidth": 7, "alpha": 0.4},
    {"color": "#0072B2", "linestyle": "-"},
    {"color": "black", "linestyle": ":"},
    {"color": "#D55E00", "linestyle": "--"},
]
for (name, (values, _)), look in zip(clipping.items(), looks, strict=True):
    top_right.plot(range(1, 41), values, label=name, **look)
top_right.vlines(BAD, 1.3, 3.5, color="#555555", linestyle=":", linewidth=1.5)  # not through the legend
top_right.annotate("update 13", (BAD, 3.3), (4, 0), textcoords="offset points", fontsize=11)
draw_bits(low_left)
for ax in (top_left, top_right, low_right):
    mark_chance(ax)
low_right.plot(
    list(whole_run), list(whole_run.values()), label="not interrupted", color="#009E73", linewidth=7, alpha=0.4
)
low_right.plot(list(before), list(before.values()), label="killed after 7", color="#D55E00", linestyle="-")
low_right.plot(list(before)[-1:], list(before.values())[-1:], "X", color="#D55E00", markersize=11)
low_right.plot(
    list(after), list(after.values()), label=f"resumed from {first - 1}", marker=".", color="black", linestyle=":"
)
for ax, title in (
    (top_left, f"1. Schedule ({depth:,} layers)"),
    (top_right, f"2. Clipping ({middle} layers)"),
    (low_left, f"3. Precision ({middle} layers)"),
    (low_right, f"4. Killed and resumed ({depth:,} layers)"),
):
    ax.set(ylim=(0, 3.7))
    ax.set_xlabel("update", fontsize=11)
    ax.set_ylabel("loss (nats per token)", fontsize=11)
    ax.set_title(title, fontsize=12)
    ax.legend(fontsize=11, loc="lower left", frameon=False)
Picture(
    figure,
    alt="Four panels, loss by update of DeepNorm stacks trained alone. Schedule: at the same peak the run without warm-up falls least; at "
    "0.3 of the peak it falls as far as the run with warm-up. Clipping: with the clip the run with a bad batch is on top of "
    "the run without one; without the clip it stays behind. Precision: fp32, bf16 and fp16 with a scaled loss are on top of each "
    "other, fp16 without falls more slowly. Killed and resumed: a cross at update 7, and the resumed curve is on top of that of "
    "the run that was not interrupted.",
)

# %% [markdown]
# ## Hold it against the library
#
# `TrainStep` is the library's step. It does what yours does, in the same order; what it adds is speed, and sentences for when
# something is wrong. Twelve layers in float64, five updates, with clipping and the paper's schedule:

# %%
recipe = TrainConfig(
    steps=5, learning_rate=1e-2, schedule="inverse_sqrt", warmup=2, clip=0.5, betas=(0.9, 0.98), parameters="stack"
)
ours, theirs = built(12).double(), built(12).double()
optimizer, data, differ = adam(ours), torch.Generator().manual_seed(SEED), []
with TrainStep(theirs, recipe) as step:
    for n in range(1, 6):
        batch = task.batch(data)
        loss, norm = training_step(ours, batch, optimizer, inverse_sqrt_rate(n, 1e-2, 2, 0.0), 0.5)
        result = step(batch)
        differ.append(max(abs(loss - result.loss), abs(norm - result.gradient_norm)))
apart = max((a - b).abs().max().item() for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
kit.finding("five updates, largest difference of loss and norm", max(differ), below=1e-6)
kit.finding("after them, largest difference of a weight", apart, below=1e-6)

# %% [markdown]
# **The step that you wrote is the library's.** So is the rest: `train(model, task, config, out=…)` is your loop with your schedules, and
# `resume=True` is your `load`.
#
# ## In three sentences
#
# 1. A step is zero, forward, backward, unscale, clip, rate, update: each line guards against something, and none complains if you
#    put it in the wrong place.
# 2. Warm-up lets the peak be two to three times as large, clipping makes a bad batch one among many, and a scaled loss keeps
#    gradients above fp16's smallest number.
# 3. A run is its weights, its optimizer's memory, its count, its data and its random numbers: if all five are saved, and under another
#    name first, it may be killed at any moment and still end with the same bits.
#
# **Read next**: the paper's Tables 4 to 8, now that you know what each row does; Micikevicius et al., "Mixed Precision Training"
# (arXiv 1710.03740), Sections 3 and 4, for loss scaling.
#
# ## Further rooms
#
# From here on everything is optional: a batch that does not fit, another schedule, the choice of the scale, and AdamW by hand.
#
# ### A batch that does not fit
#
# The paper's batches have 128 × 4,096 tokens. **[Accumulation](glossary.md)** takes a batch in pieces: forward and
# backward for each piece, whose gradients add up, and one update at the end. Only one piece's activations are in memory at a
# time.
#
# One trap is in it. Pieces of real text have different numbers of answers, because sentences end and the rest is padding
# (its targets are −100, which do not count). `model.loss` is a mean over a piece's answers. The mean of such means is not
# the mean over all: an answer in a short piece would count more.

# %% [markdown] exercise="accumulated_loss" difficulty=3 importance=4 minutes=12
# ### Accumulation (optional)
#
# **Objective**: get the gradient of a large batch from its pieces.
#
# Write `accumulated_loss(model, batches)`. It adds the gradient of the mean loss over *all answers of all batches* to the
# parameters' `.grad`, and returns that mean, a number. `batch.targets` has the shape (B, T); a target of −100 is not an answer. A
# batch may have no answers at all, and then its `model.loss` may be NaN; one batch at least has some. One graph at a time: each
# batch goes backward before the next goes forward. Do not zero anything, that is the step's work.
#
# Hint: The mean over all answers is $\sum_i (a_i/a)\,L_i$, with the mean $L_i$ of batch $i$, its number of answers $a_i$, and
# $a = \sum_i a_i$. A gradient is linear.
#
# Hint: Count before the first forward pass. And 0 · NaN is NaN: what should happen to a batch with a share of 0?


# %% exercise="accumulated_loss"
def accumulated_loss(model, batches):
    """Adds the gradient of the mean loss over all answers to .grad. Returns that loss, one number."""
    ### BEGIN SOLUTION
    answers = [(batch.targets != -100).sum().item() for batch in batches]
    total = 0.0
    for batch, count in zip(batches, answers, strict=True):
        if count:
            loss = model.loss(batch) * (count / sum(answers))
            loss.backward()
            total += loss.item()
    return total
    ### END SOLUTION


# %%
check.accumulated_loss(accumulated_loss)

# %%
accumulated_loss = kit.mine_or_reference(accumulated_loss, "accumulated_loss")
whole = task.batch(torch.Generator().manual_seed(SEED))
whole.targets[8:, 4:] = -100  # the second half of the batch: short sentences, and padding
pieces = [Batch(whole.inputs[i : i + 4], whole.targets[i : i + 4]) for i in range(0, 16, 4)]
small = built(4).double()


def gradient(fill):
    """All gradients that ``fill`` leaves, as one vector."""
    small.zero_grad()
    fill()
    return torch.cat([parameter.grad.flatten() for parameter in small.stack.parameters()])


large = gradient(lambda: small.loss(whole).backward())
added = gradient(lambda: accumulated_loss(small, pieces))
means = gradient(lambda: sum(small.loss(piece) for piece in pieces).div(4).backward())
kit.finding(
    "four pieces: distance from the large batch's gradient", ((added - large).norm() / large.norm()).item(), below=1e-6
)
kit.finding("the mean of four means", ((means - large).norm() / large.norm()).item(), above=0.2, form=".0%")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Your pieces agree up to rounding; the mean of means is off by a third or so. That popular wrong answer,
# `(loss / len(batches)).backward()`, is right as long as all pieces are full, which is how it
# gets through tests. It was in a widely used library until October 2024 (huggingface/transformers, pull request 34191).
# </details>
#
# **Why it works.** The gradient of a sum is the sum of the gradients, so it does not matter when they are added. Only their shares
# must be those of the whole. (Batch normalisation is an exception: its means are over the piece. LN's are not. Dropout is not an
# exception either; it only draws other masks.) The library's step does the same with `accumulate=2` in its `TrainConfig`.
#
# ### Another schedule
#
# The inverse square root never reaches an end. The cosine does: it must know `steps`.

# %% [markdown] exercise="cosine_rate" difficulty=2 importance=4 minutes=8
# ### Half a cosine (optional)
#
# **Objective**: write a schedule that fits at both seams.
#
# Write `cosine_rate(n, steps, peak, warmup, start, final)`, the learning rate of update `n`. It rises in a straight line from
# `start` at n = 0 to `peak` at n = `warmup`. From there it follows half a cosine, which is flat at both ends, down to
# `final` at n = `steps`.
#
# Hint: The number $(1 + \cos(\pi\,y))/2$ falls from 1 to 0 while $y$ goes from 0 to 1.
#
# Hint: Let $y$ be the share of the way from `warmup` to `steps` that is done. And what falls from 1 to 0 scales the difference of
# `peak` and `final`.


# %% exercise="cosine_rate"
def cosine_rate(n, steps, peak, warmup, start, final):
    """Learning rate of update n: one number."""
    ### BEGIN SOLUTION
    if n < warmup:
        return start + (peak - start) * n / warmup
    done = (n - warmup) / (steps - warmup)
    return final + (peak - final) * (1 + cos(pi * done)) / 2
    ### END SOLUTION


# %%
check.cosine_rate(cosine_rate)

# %%
cosine_rate = kit.mine_or_reference(cosine_rate, "cosine_rate")

from deepnet_edu.training import learning_rate as scheduled

for n in (50, 100, 400, 1000):
    print(
        f"update {n:5}: inverse square root {inverse_sqrt_rate(n, 1.0, 100, 0.0):.3f} of the peak,",
        f"cosine over 1,000 {cosine_rate(n, 1000, 1.0, 100, 0.0, 0.1):.3f}",
    )
recipe = TrainConfig(steps=1000, learning_rate=1.0, schedule="cosine", warmup=100, final_learning_rate=0.1)
off = max(abs(scheduled(n - 1, recipe) - cosine_rate(n, 1000, 1.0, 100, 0.0, 0.1)) for n in (50, 100, 400, 1000))
kit.finding("largest difference from the library's TrainConfig(schedule='cosine', …)", off, below=1e-9)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Both are at half of the peak in the middle of the warm-up. At update 400 the inverse square root has fallen to 0.5, the cosine
# to 0.775; at the end of a run of 1,000 to 0.316, and to the final 0.1.
# </details>
#
# **Why it works.** Half a cosine is flat at both ends, so neither the end of the warm-up nor the end of the run is a kink. For a
# run that may be prolonged, take the inverse square root: it does not depend on `steps`.

# %% [markdown] exercise="next_scale" difficulty=2 importance=3 minutes=6
# ### Who chooses the scale? (optional)
#
# **Objective**: let a run find the largest scale that it can bear.
#
# Write `next_scale(scale, good, overflow, interval)`: the pair (scale, good) for the next step. `good` counts the steps without
# overflow in a row, before this one. An overflow halves the scale, and the count begins again at 0. After `interval` good
# steps in a row the scale doubles, and the count begins again at 0.
#
# Hint: This step may be the one that completes the row.
#
# Hint: Three cases, three pairs. Which of the two rules goes first, and what is `good` after each?


# %% exercise="next_scale"
def next_scale(scale, good, overflow, interval):
    """(scale, good steps in a row) for the next step."""
    ### BEGIN SOLUTION
    if overflow:
        return scale / 2, 0
    if good + 1 == interval:
        return scale * 2, 0
    return scale, good + 1
    ### END SOLUTION


# %%
check.next_scale(next_scale)

# %%
next_scale = kit.mine_or_reference(next_scale, "next_scale")

from itertools import pairwise

model, data = built(2).to(device), torch.Generator().manual_seed(SEED)
optimizer, scale, good, scales = adam(model), 2.0**40, 0, []
for n in range(1, 41):
    batch, rate = task.batch(data).to(device), inverse_sqrt_rate(n, 1e-3, 10, 1e-7)
    _, norm = scaled_step(Autocast(model, SHARE, torch.float16), batch, optimizer, rate, 1.0, scale)
    scales.append(scale)
    scale, good = next_scale(scale, good, not isfinite(norm), interval=8)
down, up = (sum(b < a for a, b in pairwise(scales)), sum(b > a for a, b in pairwise(scales)))
kit.finding("powers of two of the scale: first, smallest, last", [np.log2(one) for one in (scales[0], min(scales), scales[-1])],
            says="it comes down", holds=min(scales) < scales[0])  # fmt: skip
kit.finding("of 39 changes: down (a step was skipped), up", [down, up], says="most steps were taken, and it probes upwards",
            holds=down < 20 and up > 0)  # fmt: skip

# %% [markdown]
# <details><summary>What you should see</summary>
#
# It comes down a factor of two at a time, one skipped step each. Then it doubles after every eight good steps, until an overflow takes it
# back. PyTorch's `GradScaler` begins at 2¹⁶ and waits for 2,000 good steps.
# </details>
#
# **Why it works.** The size of a gradient is not known beforehand, and it shrinks while the model learns. One skipped step in
# 2,000 is a small price for not having to know.

# %% [markdown] exercise="adamw_step" difficulty=3 importance=3 minutes=12
# ### AdamW by hand (optional)
#
# **Objective**: know which optimizer state a checkpoint has to save.
#
# Write `adamw_step(w, g, m, v, n, rate, betas, eps, decay)` for update `n`, counted from 1. All of `w` (weights), `g` (gradient),
# `m` and `v` (running means of $g$ and $g^2$) have the same shape. Return the new (w, m, v).
#
# $$m \leftarrow \beta_1 m + (1-\beta_1)\,g,\qquad v \leftarrow \beta_2 v + (1-\beta_2)\,g^2,\qquad
# w \leftarrow w - \eta\,\Big(\frac{m/(1-\beta_1^n)}{\sqrt{v/(1-\beta_2^n)} + \varepsilon} + \text{decay}\cdot w\Big) .$$
#
# Hint: In which order? The step uses the new means. And which of the three does the division by $1-\beta^n$ change for good?
#
# Hint: The divided $m$ and $v$ are for this step only: return them as they are kept. The decay uses the old `w`.


# %% exercise="adamw_step"
def adamw_step(w, g, m, v, n, rate, betas, eps, decay):
    """Update n, counted from 1, of AdamW: the new (w, m, v)."""
    ### BEGIN SOLUTION
    b1, b2 = betas
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    size = (v / (1 - b2**n)).sqrt() + eps
    return w - rate * (m / (1 - b1**n) / size + decay * w), m, v
    ### END SOLUTION


# %%
check.adamw_step(adamw_step)

# %%
adamw_step = kit.mine_or_reference(adamw_step, "adamw_step")
one, zero = torch.ones(1).double(), torch.zeros(1).double()
for g in (1e-6, 1.0, 1e6):
    w, _, _ = adamw_step(one, g * one, zero, zero, 1, 1e-3, (0.9, 0.98), 1e-12, 0.0)
    print(f"gradient {g:7g}: the first step is {(one - w).item():.6f}")
m, v, w = zero, zero, zero
steps_taken = []
for n in range(1, 61):
    before_step = w
    w, m, v = adamw_step(w, (256 if n == 20 else 1) * one, m, v, n, 1e-3, (0.9, 0.98), 1e-12, 0.0)
    steps_taken.append(1e3 * (before_step - w).item())
print("steps, in learning rates: " + ", ".join(f"update {n} {steps_taken[n - 1]:.2f}" for n in (19, 20, 25, 40, 60)))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The first step is the learning rate, whatever the gradient. And the bad batch of this lesson, at update 20: never a giant step, and
# forty updates later the steps are still small.
# </details>
#
# **Why it works.** At $n = 1$ the two divisions leave $g/|g|$: a [sign step](glossary.md). The bad batch's square stays in $v$
# for $1/(1-\beta_2)$ updates, and its direction in $m$ for $1/(1-\beta_1)$ only.
