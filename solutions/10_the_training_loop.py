# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What is in a training step?
#     opening: >-
#       A training loop is ten lines long, and each line has a place where it must stand. A wrong order raises no error. It
#       trains, a little worse, and nobody knows why. This lesson takes the loop apart: the order, the learning rate, the
#       clip, the batch that does not fit, half the bits, and a run that is killed in the middle and goes on as if nothing
#       had happened.
#     objectives: >-
#       write a training step, a schedule, accumulation and loss scaling, say what each of them protects from, and save a
#       run so that it can be killed at any moment.
#     prerequisites: lesson 00, and a training loop that you have once written. Lesson 05 helps.
#     minutes: 75
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
from deepnet_edu.figures import Picture, loss_curves
from deepnet_edu.figures.style import legend_below, new_figure, series_style
from deepnet_edu.model import Batch
from deepnet_edu.training import TrainStep
from deepnet_edu.training import learning_rate as scheduled

device = kit.setup(SEED, PROFILE)
smoke = PROFILE == "smoke"
depth, middle = DEPTH or (24 if smoke else 1000), 8 if smoke else 48
task = TokenMap(vocab_size=16, length=16, batch_size=16)


def verdict(said, holds):
    print(said, bool(holds))


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
# had. Between which two lines must it stand?
#
# Hint: The rate lives in the optimizer, in every one of `optimizer.param_groups`, under the key `"lr"`. And `.item()` makes a
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
    f"loss {loss:.0f}, gradient norm {norm:.0f}; clipped to 1 and times the rate of 0.1, the step has the length {moved:.3f}"
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card. The check knows a dozen slips by what they do to the weights. Try some: clip after the step, or leave `zero_grad`
# out.
# </details>
#
# **Why it works.** Clipping acts on `.grad`, so it must stand between the line that fills it and the line that uses it. One
# norm over *all* parameters keeps the gradient's direction. A clip for each parameter, or for each entry, would turn it.
#
# ## How large a step?
#
# The learning rate of nearly every Transformer rises first, in a straight line, and falls afterwards. The paper's runs start at
# 1e-7, rise for 4,000 steps (6,000 with 102 languages) and then fall with the inverse square root of the step. Update $n$,
# counted from 1, behind a warm-up of $w$ updates:
#
# $$\text{peak}\cdot\sqrt{w/n} .$$
#
# You wrote it in lesson 05. (If you have not, the reference answer is taken.) It has no end: a run may always go on. The other
# schedule that is in use everywhere has one.

# %% [markdown] exercise="cosine_rate" difficulty=2 importance=4 minutes=8
# ### Half a cosine
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
inverse_sqrt_rate = kit.earlier("learning_rate")
for n in (50, 100, 400, 1000):
    print(
        f"update {n:5}: inverse square root {inverse_sqrt_rate(n, 1.0, 100, 0.0):.3f} of the peak,",
        f"cosine over 1,000 {cosine_rate(n, 1000, 1.0, 100, 0.0, 0.1):.3f}",
    )
recipe = TrainConfig(steps=1000, learning_rate=1.0, schedule="cosine", warmup=100, final_learning_rate=0.1)
off = max(abs(scheduled(n - 1, recipe) - cosine_rate(n, 1000, 1.0, 100, 0.0, 0.1)) for n in (50, 100, 400, 1000))
verdict("the library's TrainConfig(schedule='cosine', …) has the same rates:", off < 1e-9)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Both are at half of the peak in the middle of the warm-up. At update 400 the inverse square root has fallen to 0.5, the cosine
# to 0.775; at the end of a run of 1,000 to 0.316, and to the final 0.1. True.
# </details>
#
# **Why it works.** A schedule is a function of the update's number, and of nothing else. It remembers nothing. Whoever knows $n$
# knows the rate, and that will save us work when a run is killed.
#
# Now 1,000 layers of DeepNorm, the stack alone (embedding and head stay as they were drawn, as in lesson 00), Adam with the paper's
# β₁ = 0.9 and β₂ = 0.98, clip 1. The peak is 10⁻³, three times what lesson 00 used. Three schedules with the same peak.

# %%
STEPS, WARMUP = 16, 8
PEAK = 2e-2 if smoke else 1e-3  # a shallower stack needs larger steps (lesson 06)
SCHEDULES = {
    "warm-up, inverse square root": lambda n: inverse_sqrt_rate(n, PEAK, WARMUP, 1e-7),
    "warm-up, cosine": lambda n: cosine_rate(n, STEPS, PEAK, WARMUP, 1e-7, PEAK / 10),
    "constant, no warm-up": lambda n: PEAK,
}
guess_warmup = kit.Guess(
    "1,000 layers, the same peak. Without warm-up the steps are larger from the first one on. After 16 steps that stack",
    ["is ahead of the others", "is about where they are", "is behind them", "has become NaN"],
)
guess_warmup


# %%
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


# %%
rates, losses = {}, {}


def schedule_picture():
    figure, (left, right) = new_figure(2, width=10, height=4)
    for i, name in enumerate(losses):
        updates = range(1, len(losses[name]) + 1)
        left.plot(updates, rates[name], label=name, **series_style((2, 1, 0)[i]))
        right.plot(updates, losses[name], **series_style((2, 1, 0)[i]))
    right.axhline(task.chance, color="black", linewidth=0.8)
    right.annotate(
        "ln 16: knows nothing", (STEPS, task.chance), (0, 3), textcoords="offset points", ha="right", fontsize=9
    )
    left.set(xlabel="update", ylabel="learning rate", xlim=(1, STEPS), ylim=(0, 1.1 * PEAK), title="How large a step?")
    right.set(xlabel="update", ylabel="loss (nats per token)", xlim=(1, STEPS), ylim=(0, 3.7))
    right.set_title(f"{depth:,} layers")
    legend_below(figure, left)
    return figure


picture = kit.LivePicture(
    schedule_picture,
    alt="Two panels over 16 updates. Learning rate: two schedules rise for 8 updates to the peak, then fall, the cosine farther; the "
    "third is at the peak throughout. Loss: all three fall from above ln 16; the one without warm-up falls least.",
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
import numpy as np


def end(values):
    """Mean of the last four."""
    return np.mean(values[-4:])


slow, fall, bold = losses
verdict("with warm-up both schedules end below ln 16:      ", max(end(losses[slow]), end(losses[fall])) < task.chance)
verdict("without warm-up the loss is behind, by 0.2 or more:", end(losses[bold]) > end(losses[slow]) + 0.2)

# %% tags=["nbval-ignore-output"]
kit.record(layers=depth, **{f"loss_schedule_{i}": end(values) for i, values in enumerate(losses.values())})

# %%
guess_warmup.compare("is behind them")

# %% [markdown]
# So DeepNorm's stack survives without warm-up here, and yet warm-up pays. The first steps are the largest that the run will
# ever make, in directions that one batch has chosen. (One seed, one peak. The paper does not try to do without: all of its runs warm up, and admin-torch found a
# recipe with small batches, and another rate, warm-up, weight decay and dropout, under which DeepNorm's 100-100 layers failed. A
# bound on the update holds for *small* steps.)
#
# ## One bad batch
#
# Clipping seems to do little. Adam divides by the size of the gradient anyway: twice the gradient, the same step. So what is it
# for? For the day on which one batch is different. (Two of the paper's five recipes clip, at 1.0; three do not.) Here is one: at update 13 somebody hands in a loss that was summed over the
# batch's 256 tokens, where all others were means. Its gradient is 256 times as long. It points in the right direction.

# %%
guess_clip = kit.Guess(
    "Adam, no clipping, one gradient that is 256 times too long and points in the right direction. It",
    [
        "makes one step that is 256 times too long",
        "does nothing, Adam divides by the size",
        "makes no giant step, but the run is slow for long after it",
    ],
)
guess_clip


# %%
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


BAD = 13
clipping = {
    "clip 1": trained(1.0, BAD),
    "no clipping": trained(float("inf"), BAD),
    "no bad batch": trained(float("inf"), None),
}
behind = end(clipping["no clipping"][0]) - end(clipping["clip 1"][0])
verdict("the bad batch's gradient is more than 100 times as long as the one before it:",
        clipping["clip 1"][1][BAD - 1] > 100 * clipping["clip 1"][1][BAD - 2])  # fmt: skip
verdict("27 updates later the run without clipping is behind, by 0.3 or more:         ", behind > 0.3)
verdict("with clipping it is where it would be without the bad batch, within 0.15:    ",
        abs(end(clipping["clip 1"][0]) - end(clipping["no bad batch"][0])) < 0.15)  # fmt: skip

# %%
guess_clip.compare("makes no giant step, but the run is slow for long after it")

# %% [markdown]
# Adam divides by a *memory* of the gradient's size: a running mean of its square. One gradient that is 256 times as long puts
# $256^2$ times as much into it, and with β₂ = 0.98 a fiftieth of it is left after two hundred updates. All that time Adam takes
# its gradients for tiny ones. Its other memory, of the direction, keeps repeating the bad batch for ten updates. With clipping
# the bad batch is one among many.
#
# ## A batch that does not fit
#
# The paper's batches have 128 × 4,096 tokens. No single GPU holds that. **[Accumulation](glossary.md)** takes a batch in pieces: forward and
# backward for each piece, whose gradients add up, and one update at the end. Only one piece's activations are alive at a
# time.
#
# One trap is in it. Pieces of real text have different numbers of answers, because sentences end and the rest is padding
# (its targets are −100, which do not count). `model.loss` is a mean over a piece's answers. The mean of such means is not
# the mean over all: an answer in a short piece would count more.

# %% [markdown] exercise="accumulated_loss" difficulty=3 importance=4 minutes=12
# ### Accumulation
#
# **Objective**: get the gradient of a large batch from its pieces.
#
# Write `accumulated_loss(model, batches)`. It adds the gradient of the mean loss over *all answers of all batches* to the
# parameters' `.grad`, and returns that mean, a number. `batch.targets` has the shape (B, T); a target of −100 is no answer, and every
# batch has at least one. One graph at a time: each batch goes backward before the next goes forward. Do not zero anything, that is
# the step's work.
#
# Hint: The mean over all answers is $\sum_i (a_i/a)\,L_i$, with the mean $L_i$ of batch $i$, its number of answers $a_i$, and
# $a = \sum_i a_i$. A gradient is linear.
#
# Hint: Count first, `(batch.targets != -100).sum()` for each. Then, batch by batch, `(share * loss).backward()`.


# %% exercise="accumulated_loss"
def accumulated_loss(model, batches):
    """Adds the gradient of the mean loss over all answers to .grad. Returns that loss, one number."""
    ### BEGIN SOLUTION
    answers = [(batch.targets != -100).sum().item() for batch in batches]
    total = 0.0
    for batch, count in zip(batches, answers, strict=True):
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
verdict("four pieces give the large batch's gradient, to 6 digits:", (added - large).norm() < 1e-6 * large.norm())
verdict("the mean of four means is off by more than 20%:          ", (means - large).norm() > 0.2 * large.norm())

# %% [markdown]
# <details><summary>What you should see</summary>
#
# True twice. The popular wrong answer, `(loss / len(batches)).backward()`, is right as long as all pieces are full, which is how it
# gets through tests. It stood in a library that very many train with until October 2024 (huggingface/transformers,
# pull request 34191).
# </details>
#
# **Why it works.** The gradient of a sum is the sum of the gradients, so it does not matter when they are added. Only their shares
# must be those of the whole. (Dropout and batch normalisation are exceptions: they do see the piece. LN does not.)
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
# bf16 has the range of fp32, and hardly three digits. fp16 has more digits, and ends on both sides: above 65,504 (lesson
# 09 was there) and below 6·10⁻⁸. **[Autocast](glossary.md)** computes products in such a format, and keeps the weights, norms, softmax
# and loss in fp32. Gradients come back in the format of the products. A gradient below half of 6·10⁻⁸ comes back as 0: an
# *[underflow](glossary.md)*.
#
# How small are the gradients of a deep stack? They depend on the batch: the loss is a mean, so each token's share of it is one over their
# number. Our batch has 256 tokens. In a batch of the paper's size, 524,288, taken in pieces, it would count
# 256/524,288 = 1/2,048. So we give its loss that weight.

# %%
SHARE = 256 / (128 * 4096) / (8 if smoke else 1)  # the few layers of a test have larger gradients
model = built(depth).to(device)
(SHARE * model.loss(task.batch(torch.Generator().manual_seed(SEED)).to(device))).backward()
fresh = torch.cat([p.grad.flatten() for sub in model.sublayers() for p in sub.matrices()]).abs().cpu()
del model


def lost(values):
    """Share of numbers that are not 0 and become 0 in fp16."""
    return ((values != 0) & (values.half() == 0)).double().mean().item()


figure, (ax,) = new_figure(1, width=8, height=4.2)
edges = np.linspace(-14, 2, 97)
for i, (name, values) in enumerate({"as they are": fresh, "of a loss × 2¹⁶": fresh * 2**16}.items()):
    heights = np.histogram(np.log10(values[values > 0].numpy()), edges)[0] / len(values)
    ax.stairs(100 * heights, edges, label=name, **series_style(i))
for least, said in (
    (torch.finfo(torch.float16).tiny * 2**-10, "smallest in fp16"),
    (6.1e-5, "full precision from here"),
):
    ax.axvline(np.log10(least), color="#555555", linestyle=":", linewidth=1.5)
    ax.annotate(said, (np.log10(least), 18), (4, -10), textcoords="offset points", fontsize=9)
ax.set(
    xlabel="size of a gradient's entry (power of 10)", ylabel="share of all entries (%)", xlim=(-12, 1), ylim=(0, 18)
)
legend_below(figure, ax)
Picture(
    figure,
    alt="Histogram of the gradients' sizes of all matrices on a logarithmic axis. As they are, the hump lies around 10 to the minus 7, and "
    "a good part of it left of fp16's smallest number. With the loss multiplied by 2 to the 16 the same hump lies five "
    "powers of ten farther right, where fp16 has its full precision.",
)

# %%
verdict("more than a tenth of the entries would be 0 in fp16:    ", lost(fresh) > 0.1)
verdict("with the loss × 65,536, fewer than one in a thousand:    ", lost(fresh * 2**16) < 0.001)
verdict("and none is too large:                                   ", (fresh * 2**16).max() < 65504)

# %% tags=["nbval-ignore-output"]
kit.record(lost=lost(fresh), lost_scaled=lost(fresh * 2**16))

# %% [markdown]
# The remedy stands in the picture. Multiply the *loss* by a large number, and all gradients are multiplied by it, on their whole
# way back. Divide the *gradients* by it before anybody uses them: then they are in fp32, and lose nothing. A power of
# two changes no digit of a number, only its exponent.
#
# If the scale is too large, something on the way passes 65,504, and becomes ∞. Such a gradient has holes. The step is
# skipped, and the next one gets a smaller scale.

# %% [markdown] exercise="scaled_step" difficulty=3 importance=5 minutes=12
# ### A step with a scaled loss
#
# **Objective**: put two more lines into the step, each in the one place where it is right.
#
# Write `scaled_step(model, batch, optimizer, rate, clip, scale)`: your `training_step`, but the backward pass starts from `scale`
# times the loss. Clipping, update and both returned numbers must not know of the scale. If the gradient's norm is not
# finite, the optimizer does not step; return the norm as it is.
#
# Hint: A parameter that is not trained has None in its `.grad`. The norm `clip` is meant for the true gradient: what must have
# happened before it is compared?
#
# Hint: Nobody may look at a `.grad` before it is divided. And `isfinite(norm.item())` knows inf and nan alike.


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
# cut to `clip / scale`. Adam hides it, because it divides by the size: the run goes on, with clipping at a
# hundred-thousandth of what was asked for.
# </details>
#
# **Why it works.** Backward is linear: what goes in 65,536 times as large comes out 65,536 times as large. In between it
# stays above the smallest number.
#
# Now four runs of the same stack, each batch with its share of 1/2,048. fp32 ends near 10⁻⁴⁵, far away, and Adam hardly cares
# about the share. What do you expect of the other three?

# %%
guess_bits = kit.Guess(
    "fp16 without a scale loses the smallest gradients to 0. Its run",
    [
        "is like fp32's: small gradients do not matter",
        "falls behind, Adam would have made large steps of them",
        "becomes NaN",
    ],
)
guess_bits


# %%
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
bits, UPDATES = {}, 10 if smoke else 24
picture = kit.LivePicture(
    lambda: loss_curves(bits, chance=task.chance, chance_label="ln 16, knows nothing", steps=UPDATES),
    alt="Loss by step. fp32 is a broad band; bf16 and fp16 with a scaled loss lie inside it. fp16 without a scale falls more slowly.",
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
apart = {name: np.abs(np.array(bits[name]) - bits["fp32"]).max() for name in ("bf16", "fp16, loss × 2¹⁶")}
verdict("bf16 and scaled fp16 are within 0.05 of fp32 at every step:", max(apart.values()) < 0.05)
verdict("fp16 without a scale ends behind, by 0.2 or more:          ", end(bits["fp16"]) > end(bits["fp32"]) + 0.2)

# %%
guess_bits.compare("falls behind, Adam would have made large steps of them")

# %% [markdown]
# Adam makes a step of two thirds of the full rate out of a gradient of 2·10⁻⁸ (its ε is 10⁻⁸). It cannot make one out of 0. (On a CPU the short formats may
# well be slower than fp32. Their speed belongs to GPUs; what they do to numbers is the same everywhere.)
#
# bf16 needs no scale, which is why it has displaced fp16 where the hardware has it. Its price is the digits: the *weights* must
# stay in fp32. The next number after 1 in bf16 is 1.0078, so a step of 10⁻³ would be rounded away.
#
# ## Killed
#
# A run of days will be killed: by a full disk, a preempted machine, a cable. It must go on as if nothing had happened. How
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
        "none of them",
    ],
)
guess_forget

# %% [markdown]
# And one thing about files. A program can be killed while it writes. Then there is half a file under the name, and the old one
# is gone. The remedy is older than deep learning: write to *another* name, then rename. Renaming is
# **[atomic](glossary.md)**: whoever looks sees the old file or the new one, and never half of one.

# %% [markdown] exercise="checkpoints" difficulty=4 importance=5 minutes=20
# ### Save, and go on
#
# **Objective**: know everything that a run consists of, and lose none of it.
#
# Write `checkpoints(model, optimizer, data)`. It returns two functions. `save(path, step)` writes all that the rest of the run
# depends on into one file at `path` (a `pathlib.Path`), which is whole at every moment. `load(path)` puts everything back in place, into
# this model, this optimizer, this `data`, and returns the step. `data` is the `torch.Generator` that batches are drawn from. Dropout
# draws from PyTorch's own generator. Use nothing but `os` and `torch`: another process will run it.
#
# Hint: Five things. Two of them have `state_dict()` and `load_state_dict(…)`; two are random generators, with
# `data.get_state()`, `data.set_state(…)`, `torch.get_rng_state()` and `torch.set_rng_state(…)`; the fifth is a number.
#
# Hint: Use `torch.save(dictionary, part)` with a name beside `path`, such as `path.with_suffix(".part")`, then `os.replace(part, path)`. And
# `torch.load(path, weights_only=True)`: it takes tensors and numbers, and refuses programs.


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
# bit. It has also looked at the old file through a second name while the new one was written, and has handed `load` a file with
# a program in it.
# </details>
#
# **Why it works.** A run is a function of its state. The weights are a third of it: Adam's memory is twice as large. What is *not* in
# the file is what follows from a number: the schedule, from $n$.
#
# (`weights_only=True`: a file of `torch.save` is a pickle, and a pickle can hold a program, which runs when it is opened. The library
# writes safetensors, a format that cannot hold any. On a power failure even a renamed file may be empty, if the disk was not told to
# write first; the library calls `os.fsync`.)
#
# So what does each forgotten thing cost? A stack with dropout is saved at update 12 and resumed five times.

# %%
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
        rate = float(cosine_rate(run["step"], 24, 3e-3, 8, 1e-7, 3e-4))  # a plain number, as torch.load asks
        training_step(model, task.batch(run["data"]), run["optimizer"], rate, 1.0)
        weights[n] = torch.cat([p.detach().flatten() for p in model.stack.parameters()])
        if n == save_at:
            save(path, n)
    return weights


with TemporaryDirectory() as folder:
    path = Path(folder, "run.pt")
    uninterrupted = run_of(path)
    resumed = {name: run_of(path, forget) for name, forget in FORGET.items()}
distance = {name: [(weights[n] - uninterrupted[n]).norm().item() for n in weights] for name, weights in resumed.items()}
moved = (uninterrupted[24] - uninterrupted[12]).norm().item()

# %%
figure, (ax,) = new_figure(1, width=8, height=4.2)
for i, name in enumerate(FORGET):
    if name != "nothing":
        ax.plot(range(13, 25), np.array(distance[name]) / moved, marker=".", label=f"forgot {name}", **series_style(i))
ax.plot(range(13, 25), distance["nothing"], marker="o", color="black", label="forgot nothing: exactly 0")
ax.set(xlabel="update", ylabel="distance from the uninterrupted run\n/ its own way since the save", xlim=(12.5, 24.5))
legend_below(figure, ax, columns=2)
Picture(
    figure,
    alt="Distance of the weights from the uninterrupted run against the update, for four resumed runs, each of which forgot one thing. All "
    "are away from the first update on and stay away. The run that forgot nothing is at exactly 0.",
)

# %%
verdict("forgot nothing: equal bit for bit:", max(distance["nothing"]) == 0)
for name in list(FORGET)[1:]:
    verdict(f"forgot {name}: another run:", distance[name][-1] > 0.01 * moved)

# %%
guess_forget.compare("none of them")

# %% [markdown]
# None of these runs fails. Their losses look as losses do. Only the hard test tells them apart. And being close is no sign of being
# right: the run that warms up a second time comes near the uninterrupted one half-way, and leaves it again.
#
# ### A real kill
#
# Now the deep stack, in a process of its own. It runs your functions, saves every 4 updates, and says after each how it
# is. When it says "7" we send SIGKILL, which no program can catch. Then a *new* model in this notebook loads what is on
# the disk, and goes on. The cosine run from the beginning of the lesson is the one that was never interrupted. (All on a CPU, which adds
# in the same order every time. GPUs promise that only in a special mode.)


# %%
import inspect
import subprocess
import sys


def long_run(path, layers, steps, peak, warmup, say):
    """Train from the beginning, or from what stands at ``path``; save every 4 updates."""
    model, data = built(layers), torch.Generator().manual_seed(0)
    optimizer = adam(model)
    save, load = checkpoints(model, optimizer, data)
    first = load(path) + 1 if path.exists() else 1
    for n in range(first, steps + 1):
        rate = float(cosine_rate(n, steps, peak, warmup, 1e-7, peak / 10))
        say(n, training_step(model, task.batch(data), optimizer, rate, 1.0)[0])
        if n % 4 == 0:
            save(path, n)


PROGRAM = "\n\n\n".join(
    [
        "import os, sys\nfrom math import cos, isfinite, pi\nfrom pathlib import Path\n\nimport torch\nfrom torch import nn\n\n"
        "from deepnet_edu import ModelConfig, build_model\nfrom deepnet_edu.data import TokenMap\n\n"
        "torch.set_num_threads(1)\ntorch.set_flush_denormal(True)\ntask = TokenMap(vocab_size=16, length=16, batch_size=16)",
        *map(inspect.getsource, (built, adam, long_run)),
        *map(kit.shipped, ("training_step", "cosine_rate", "checkpoints")),
        f"long_run(Path(sys.argv[1]), {depth}, {STEPS}, {PEAK!r}, {WARMUP}, "
        "lambda n, loss: print(n, float(loss).hex(), flush=True))",
    ]
)

# %%
before, after = {}, {}
with TemporaryDirectory() as folder:
    path = Path(folder, "run.pt")
    with Path(folder, "errors").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        for line in process.stdout:
            n, loss = line.split()
            before[int(n)] = float.fromhex(loss)
            if int(n) == 7:
                process.kill()
                break
        process.stdout.close()
        if process.wait() == 0 or 7 not in before:
            errors.seek(0)
            raise RuntimeError(f"The process ended by itself. Its last words: {errors.read().strip()[-300:]}")
    long_run(path, depth, STEPS, PEAK, WARMUP, after.__setitem__)
    whole_run = dict(enumerate(losses["warm-up, cosine"], 1))
    if device.type != "cpu":  # the run at the beginning was on another device
        long_run(Path(folder, "another.pt"), depth, STEPS, PEAK, WARMUP, whole_run.__setitem__)
verdict("it goes on behind the last save:", min(after) in (5, 9))
verdict(
    "its losses before the kill are the uninterrupted run's, bit for bit:",
    all(whole_run[n] == before[n] for n in before),
)
verdict("its losses after it are, too:", all(whole_run[n] == after[n] for n in after))

# %% [markdown]
# The updates between the last save and the kill were taken twice, by two processes that never met, and came out the same to the
# last bit. Four parts of the lesson in one picture:

# %% tags=["headline"]
from matplotlib.figure import Figure

figure = Figure(figsize=(10, 7.4))
(top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
for i, (name, values) in enumerate(losses.items()):
    top_left.plot(range(1, STEPS + 1), values, label=name, **series_style((2, 1, 0)[i]))
for i, (name, (values, _)) in enumerate(clipping.items()):
    top_right.plot(range(1, 41), values, label=name, **series_style((2, 0, 1)[i]))
top_right.axvline(BAD, color="#555555", linestyle=":", linewidth=1.5)
top_right.annotate("bad batch", (BAD, 3.4), (4, 0), textcoords="offset points", fontsize=9)
for i, (name, values) in enumerate(bits.items()):
    broad = {"linewidth": 7, "alpha": 0.4, "linestyle": "-"} if not i else {}
    low_left.plot(range(1, UPDATES + 1), values, label=name, **{**series_style((2, 1, 4, 0)[i]), **broad})
low_right.plot(
    list(whole_run),
    list(whole_run.values()),
    label="not interrupted",
    color="#009E73",
    linestyle="-",
    linewidth=7,
    alpha=0.4,
)
low_right.plot(list(before), list(before.values()), label="killed at 7", **series_style(0))
low_right.plot(7, before[7], "X", color="#D55E00", markersize=11)
low_right.plot(list(after), list(after.values()), label=f"resumed from {min(after) - 1}", marker=".", **series_style(1))
for ax, title in (
    (top_left, f"1. Schedule ({depth:,} layers)"),
    (top_right, f"2. Clipping ({middle} layers)"),
    (low_left, f"3. Precision ({middle} layers)"),
    (low_right, f"4. Killed and resumed ({depth:,} layers)"),
):
    ax.axhline(task.chance, color="black", linewidth=0.8)
    ax.set(xlabel="update", ylabel="loss (nats per token)", ylim=(0, 3.7), title=title)
    ax.legend(fontsize=8, loc="lower left")
Picture(
    figure,
    alt="Four panels, loss by update of DeepNorm stacks trained alone. Schedule: with warm-up it falls farther than without. Clipping: one "
    "bad batch, and the run without clipping stays behind. Precision: fp32, bf16 and fp16 with a scaled loss lie on each "
    "other, fp16 without falls more slowly. Killed and resumed: a cross at update 7, and the resumed curve lies on that "
    "of the run that was not interrupted.",
)

# %% [markdown]
# ## Hold it against the library
#
# `TrainStep` is the library's step. It does what yours does, in the same order; what it adds is speed, and sentences for when
# something is wrong. Twelve layers in float64, five updates in two pieces each, with clipping and the paper's schedule:

# %%
recipe = TrainConfig(
    steps=5,
    learning_rate=1e-2,
    schedule="inverse_sqrt",
    warmup=2,
    clip=0.5,
    betas=(0.9, 0.98),
    accumulate=2,
    parameters="stack",
)
ours, theirs = built(12).double(), built(12).double()
optimizer, data = adam(ours), torch.Generator().manual_seed(SEED)
with TrainStep(theirs, recipe) as step:
    for n in range(1, 6):
        two = [task.batch(data), task.batch(data)]
        two[1].targets[:, 5:] = -100
        optimizer.zero_grad()
        loss = accumulated_loss(ours, two)
        norm = nn.utils.clip_grad_norm_(ours.parameters(), 0.5)
        optimizer.param_groups[0]["lr"] = inverse_sqrt_rate(n, 1e-2, 2, 0.0)
        optimizer.step()
        result = step(*two)
        same = [abs(a - b) < 1e-6 for a, b in ((loss, result.loss), (norm.item(), result.gradient_norm))]
        print(f"update {n}: loss and norm equal to 6 digits: {all(same)}")
apart = max((a - b).abs().max().item() for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
verdict("after five updates all weights are equal to 6 digits:", apart < 1e-6)

# %% [markdown]
# **The step that you wrote is the library's.** So is the rest: `train(model, task, config, out=…)` is your loop with your schedules, and
# `resume=True` is your `load`.
#
# ## For those who want more

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
# Hint: Three cases, three pairs. Overflow first.


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
skipped = sum(b < a for a, b in pairwise(scales))
verdict("from 2⁴⁰ the scale comes down to where steps are taken:  ", min(scales) < 2.0**40)
verdict(
    "then it probes upwards, and is thrown back:               ",
    any(b > a for a, b in pairwise(scales)),
)
verdict("most of the 40 steps were taken:                          ", skipped < 20)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# It comes down a factor of two at a time, one skipped step each. Then it doubles after every eight good steps, until an overflow takes it
# back. PyTorch's `GradScaler` begins at 2¹⁶ and waits for 2,000 good steps.
# </details>
#
# **Why it works.** Nobody knows how large a gradient will be, and it shrinks while the model learns. One skipped step in
# 2,000 is a small price for not having to know.

# %% [markdown] exercise="adamw_step" difficulty=3 importance=3 minutes=12
# ### AdamW by hand (optional)
#
# **Objective**: know what stands in the memory that a checkpoint must keep.
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
#
# ## In three sentences
#
# 1. A step is zero, forward, backward, unscale, clip, rate, update: each line protects from something, and none of them complains
#    when it stands in the wrong place.
# 2. Warm-up protects from the first steps, clipping from a bad batch, accumulation with the right weights from a batch that does not fit, and
#    a scaled loss from fp16's smallest number.
# 3. A run is its weights, its optimizer's memory, its count, its data and its random numbers: if all five are saved, and under another name
#    first, it may be killed at any moment, and nobody can tell.
#
# **Read next**: the paper's Tables 4 to 8, now that you know what each row does; Micikevicius et al., "Mixed Precision Training"
# (arXiv 1710.03740), Sections 3 and 4, for loss scaling.
