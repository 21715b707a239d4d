# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What came after?
#     opening: >-
#       Since 2022 dozens of papers have changed the residual rule again: new factors, more streams, learned skips. Each reports
#       a better loss. Which of them is better? This lesson puts all rules into one picture, lets you add one of your own, and then
#       runs a small tournament in which two arms are secretly the same rule. How far apart will those two finish?
#     objectives: >-
#       read a residual rule as a way to weigh depth, write a new one and have it probed and trained without touching the
#       library, and say which differences of a comparison are real and which are luck.
#     prerequisites: lessons 01, 04 and 06. Lesson 02 shows what a norm does to a sum.
#     minutes: 80
#     paper: Section 3 for DeepNorm itself. The rules after it come from the papers that the lesson names.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
STEPS = 150  # of each training run of the tournament

# %%
from itertools import combinations

# %% tags=["imports"]
from math import comb

import numpy as np
import torch
from torch import nn

# %%
from deepnet_edu import RESIDUALS, Batch, ModelConfig, TrainConfig, build_model, predict, probe, train
from deepnet_edu.checks import check
from deepnet_edu.data import PreviousToken, PythonDocs
from deepnet_edu.figures import Picture
from deepnet_edu.figures.mixing import mixing_matrices
from deepnet_edu.figures.style import legend_below, new_figure, series_style
from deepnet_edu.probing import composite_gain, depth_mixing

# %% tags=["imports"]
from deepnet_edu.residual import Residual

# %%
from deepnet_edu.residual.layer_units import LAYER_UNITS
from deepnet_edu.residual.place import places
from deepnet_edu.residual.streams import sinkhorn
from deepnet_edu.training import TrainingDiverged

kit.setup(SEED, PROFILE)
SMOKE = PROFILE == "smoke"

# %% [markdown]
# ## Before you look
#
# Three questions first. The answers come one by one.

# %%
guess_luck = kit.Guess(
    "Twelve rules that are equally good, three seeds each. How far is the first from the last, in deviations of one seed?",
    ["about 0.2", "about 0.7", "about 1.9"],
)
guess_luck

# %%
guess_identity = kit.Guess(
    "1,000 layers at initialisation: under which rule do layers 2 to 1,000 change the stream least?",
    ["DeepNorm", "Keel", "Pre-LN"],
)
guess_identity

# %%
guess_gain = kit.Guess(
    "Four streams pass 2,000 mixers, each the identity plus 0.1 times random numbers. By how much can they grow?",
    ["about 2 times", "about 200 times", "millions of times"],
)
guess_gain

# %% [markdown]
# ## What counts as a layer
#
# "A thousand layers" does not mean the same in every paper. DeepNet counts blocks: attention and feed-forward together. Others count
# residual connections, the course's sub-layers, and one counts matrices. To compare papers, use the last column, residual connections in a row.

# %%
COUNTED = {"block": "blocks", "connection": "connections", "dense": "Dense layers"}
print(f"{'':22}{'counts':14}{'its deepest':>12}{'connections':>13}")
for unit in dict.fromkeys(LAYER_UNITS.values()):
    layers, in_a_row = (f"{one:,}" if one else "?" for one in (unit.layers, unit.connections))
    print(f"{unit.paper:22}{COUNTED[unit.unit]:14}{layers:>12}{in_a_row:>13}   {unit.note}")

# %% [markdown]
# So Keel's 1,024 layers are 512 blocks of a decoder, and the 1,024 layers of a paper on reinforcement learning are 256 residual
# connections. DeepNet's 500 + 500 blocks have 2,500.
#
# ## One picture for all rules
#
# What does the stream consist of after $l$ sub-layers? It is the input and $l$ branches, each with some share. A rule decides the shares: a
# factor on the skip scales what is already there, a norm scales everything, and each branch adds something new. Write all shares into a
# matrix, a row for each sub-layer, and you can see the rule.

# %% [markdown] exercise="mixing_matrix" difficulty=4 importance=5 minutes=20
# ### A rule as a matrix
#
# **Objective**: compute what each sub-layer contributes to the stream.
#
# Write `mixing_matrix(skip, branch, norm)`. `skip` has $n$ factors on the skip, `branch` the variances of $n$ branches, which are independent of
# each other and of the input. The input has variance 1. If `norm` is true, each sum is normalised to variance 1. Return an array of shape
# $(n+1, n+1)$: entry $(l, i)$ is the share of source $i$ in the stream's variance after sub-layer $l$. Source 0 is the input, source $i$ the branch
# of sub-layer $i$, counted from 1; row 0 is the stream before any sub-layer. The lesson also calls it with 2,000 sub-layers: sum each row
# once, not once for each of its entries.
#
# Hint: What does a sub-layer do to the row above it, and which entry is new?
#
# Hint: With a norm, divide the row at once, since the next branch meets a stream of variance 1. Without one, divide at the end.


# %% exercise="mixing_matrix"
def mixing_matrix(skip, branch, norm):
    """Shares of the input and of each branch in the stream, row by row: (n + 1, n + 1)."""
    ### BEGIN SOLUTION
    n = len(skip)
    parts = np.zeros((n + 1, n + 1))
    parts[0, 0] = 1
    for row in range(1, n + 1):
        parts[row] = skip[row - 1] ** 2 * parts[row - 1]
        parts[row, row] = branch[row - 1]
        if norm:
            parts[row] = parts[row] / parts[row].sum()
    return parts / parts.sum(1, keepdims=True)
    ### END SOLUTION


# %%
check.mixing_matrix(mixing_matrix)

# %%
mixing_matrix = kit.mine_or_reference(mixing_matrix, "mixing_matrix")


def stacks(n):
    """Skips, branch variances and norm of five rules with n sub-layers; a branch without a factor has variance 1."""
    one, place = np.ones(n), np.arange(n)
    alpha, beta = (2 * (n / 2)) ** 0.25, (8 * (n / 2)) ** -0.25
    keel = np.where(place < 2, 1.0, float(n))  # the first block has no factor on its skip
    return {
        "Post-LN": (one, one, True),
        "Pre-LN": (one, one, False),
        "DeepNorm": (alpha * one, beta**4 * one, True),
        "LayerNorm Scaling": (one, 1 / (place // 2 + 1), False),
        "Keel": (keel, one, True),
    }


print("last row of 6 sub-layers, input first")
for name, stack in stacks(6).items():
    print(f"{name:18}" + "".join(f"{share:8.4f}" for share in mixing_matrix(*stack)[-1]))
print("\n2,000 sub-layers: percent of the output's variance from the input, the first ten sub-layers, the last ten")
deep = {name: mixing_matrix(*stack)[-1] for name, stack in stacks(2000).items()}
for name, last in deep.items():
    print(
        f"{name:18}" + "".join(f"{100 * float(share):9.3f}" for share in (last[0], last[1:11].sum(), last[-10:].sum()))
    )

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Six sub-layers: Post-LN ends with a half for the last branch and 1/64 for the input, Pre-LN with 1/7 for each source, DeepNorm with .9037 for
# the input. 2,000 sub-layers: 99.9% of Post-LN's output comes from the last ten, 99.4% of DeepNorm's from the input.
# </details>
#
# **Why it works.** A rule *is* a way to weigh depth. Post-LN forgets half at each sub-layer, so only the last few branches count. Pre-LN counts all branches
# equally, and the last of 2,000 hardly matters. DeepNorm keeps the input and lets each branch add a little. (Branches of
# variance 1 are an assumption of this table; in a Transformer with flat attention they are smaller, and Post-LN forgets more slowly.)

# %%
print("above the first layer: percent of the output's variance that does not come from the first layer's output")
for name in ("DeepNorm", "Keel", "Pre-LN"):
    print(f"{name:10}{100 * float(deep[name][3:].sum()):8.2f}")
guess_identity.compare("Keel")

# %% [markdown]
# Keel's first block has no factor on its skip, so with these branches it replaces three quarters of the input at once. After that each
# sub-layer multiplies the stream by 2,000 before it adds a branch, and the 999 layers above are closer to the identity than DeepNorm's.
#
# Those were formulas. Now measure: build nine rules at 12 layers, let each branch be a source, and follow how it reaches every later sub-layer.
# Each panel is such a [depth-mixing matrix](glossary.md). Its shade is the weight with which a source reaches the reader, over the largest weight in that row, so a norm does
# not affect it. Read a row from left to right: the input, then the sub-layers from the bottom up.

# %% tags=["headline"]
FAMILY = [
    "post_ln",
    "pre_ln",
    "deepnorm",
    "keel",
    "layernorm_scaling",
    "resi_dual",
    "mhc",
    "attention_residuals",
    "parcae",
]
task = PreviousToken(vocab_size=16, length=8, batch_size=32)


def small(rule, layers, width=32, vocab=16):
    """A narrow decoder, as in lesson 04."""
    shape = {"d_model": width, "n_heads": 2, "d_ff": 4 * width, "vocab_size": vocab, "max_length": 32}
    return ModelConfig("decoder", "lm", layers, residual=rule, **shape)


def measured(rule):
    """The depth-mixing matrix of 12 layers at initialisation."""
    batch = task.batch(torch.Generator().manual_seed(SEED))
    return depth_mixing(build_model(small(rule, 12), seed=SEED), batch)


family = {rule: measured(rule) for rule in FAMILY}
Picture(
    mixing_matrices(list(family.values()), "weights", columns=5),
    alt="Nine square panels, who reads from top to bottom, whose output from left to right. Post-LN and ResiDual: a dark band along the diagonal that "
    "fades to the left. Pre-LN, LayerNorm scaling, mHC and Attention residuals: an even dark triangle. DeepNorm: a dark first column beside an "
    "even triangle of half its weight. Keel: three dark columns, the rest nearly white. Parcae: a dark first column and a short band.",
)

# %%
print("share of the output's variance, 12 layers, at initialisation")
print(f"{'':24}{'input':>8}{'first 4':>9}{'last 4':>8}")
for one in family.values():
    last = one.shares[-1]
    print(f"{one.label:24}{last[0]:8.2f}{last[1:5].sum():9.2f}{last[-4:].sum():8.2f}")

# %% [markdown]
# All nine papers answer one question: what should a sub-layer read? Four panels are the same even triangle: LayerNorm scaling differs from Pre-LN only in
# how large each branch is, as its shares show, and mHC and Attention Residuals (arXiv 2603.15031) start there and *learn* where to go.
#
# ## A rule of your own
#
# A rule is a class with four verbs. `start` makes a state of the stack's input; `read` gives the branch's input; `write` takes the
# branch's output and returns the next state; `finish` returns the stack's output. A state is a tuple of tensors. The base class `Residual` has the plain sum: `start` is `(x,)`, `read` and `finish` return `state[0]`, `write` is `(state[0] + branch,)`.

# %% [markdown] exercise="LambdaSkip" difficulty=3 importance=5 minutes=20
# ### The λ-skip, in ten lines
#
# **Objective**: turn a formula from a repository into a rule that everything in the library can use.
#
# nanochat, a small open language model, adds the input again. Once in each layer, before its attention, the stream becomes
#
# $$x \leftarrow \lambda x + \mu x_0,$$
#
# where $x_0$ is the stack's input. Attention reads the norm of this mixed stream and is added to it; the feed-forward branch works as in
# Pre-LN, and the stack ends with a norm. $\lambda$ and $\mu$ are learned, a pair for each layer. They start at 1.15 and 0.20 in the first layer and
# fall evenly to 1.05 and 0.05 in the last one. (A stack of one layer has the first layer's numbers.)
#
# Complete the class. Each sub-layer has `self.norm`, the last one also `self.final_norm`, both made by `self.norm_layer()`. A sub-layer with
# `place.sublayer == "self_attention"` has `self.skip` and `self.first`, each an `nn.Parameter` of shape `(1,)`. `place.layer` counts from 0 to
# `place.n_layers - 1`, and `place.is_last` says whether the stack ends here.
#
# Hint: What must the state hold, so that the top layer can still see $x_0$?
#
# Hint: `read` and `write` both need the mixed stream: write one method for it and call it in both.


# %% exercise="LambdaSkip"
class LambdaSkip(Residual):
    """x ← λx + μx₀ before each layer, then Pre-LN."""

    title = "λ-skip"
    formula = "x ← λx + μx₀ before each layer, x ← x + F(LN(x)), LN at the end"
    source = "karpathy/nanochat, nanochat/gpt.py"

    def __init__(self, place, d_model):
        super().__init__(place, d_model)
        ### BEGIN SOLUTION
        self.norm = self.norm_layer()
        self.final_norm = self.norm_layer() if place.is_last else None
        if place.sublayer == "self_attention":
            t = place.layer / max(1, place.n_layers - 1)
            self.skip = nn.Parameter(torch.tensor([1.15 - 0.10 * t]))
            self.first = nn.Parameter(torch.tensor([0.20 - 0.15 * t]))

    def mixed(self, state):
        x, x0 = state
        return self.skip * x + self.first * x0 if self.place.sublayer == "self_attention" else x

    def start(self, x):
        return (x, x)

    def read(self, state):
        return self.norm(self.mixed(state))

    def write(self, state, branch):
        return (self.mixed(state) + branch, state[1])

    def finish(self, state):
        return self.final_norm(state[0])
        ### END SOLUTION


# %%
check.LambdaSkip(LambdaSkip)

# %%
LambdaSkip = kit.mine_or_reference(LambdaSkip, "LambdaSkip")
(place, *_) = places("decoder", 0, 1)
RESIDUALS.register("lambda_skip", replace=True)(type(LambdaSkip(place, 32)))

for name in ("pre_ln", "deepnorm", "lambda_skip"):  # the table
    rule = RESIDUALS[name]
    print(f"{name:12} {rule.title:9} {rule.formula}")
batch = task.batch(torch.Generator().manual_seed(SEED))
judged = probe(build_model(small("lambda_skip", 24), seed=SEED), batch).judge()  # the probe
print(f"\n24 layers, probed: {judged}")
try:  # the theory
    predict(small("lambda_skip", 24), tokens=8)
except ValueError as refusal:
    print(f"\npredict: {refusal}")

# %%
Picture(
    mixing_matrices([family["pre_ln"], measured("lambda_skip"), measured("deepnorm")], "weights", columns=3),
    alt="Three panels. Pre-LN: an even dark triangle. λ-skip: a dark first column, beside a triangle that gets paler from left to right. DeepNorm: a "
    "dark first column beside an even triangle of half its weight.",
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Your rule is in the table, and the probe passes it. In its picture the input outweighs all branches, as in DeepNorm's, and early branches outweigh
# late ones, because each λ above 1 multiplies them. The theory refuses the rule by name and says why.
# </details>
#
# **Why it works.** Nothing in the library knows your rule: it calls the four verbs, and the probe, the picture and the training loop are
# written for verbs. Theory needs more, a formula for variances that holds for one sum; your rule adds $x_0$ again, so theory refuses it instead of
# guessing.
#
# nanochat's log reports that these skips lowered its loss by 0.0103 bits a byte at depth 8 and by 0.0039 at depth 20: the gain shrinks with depth.
#
# ## Streams that mix
#
# Hyper-connections (HC, arXiv 2409.19606) widen the stream to four. Each sub-layer mixes them by a small matrix, $X \leftarrow H X$, before the
# branch is added, and the mixers are learned. After $n$ sub-layers the input has passed the product $H_n \cdots H_1$. What can a product do?

# %% [markdown] exercise="amax_gain" difficulty=3 importance=4 minutes=12
# ### The gain of a product of mixers
#
# **Objective**: measure how much a stack of mixers can amplify, up and down.
#
# Write `amax_gain(mixers)`. `mixers` is an array of shape $(L, n, n)$, from the lowest to the highest, and each acts as $X \leftarrow H X$. On the way
# up, a stream can gain at most the sum of a row's absolute values; on the way down, a gradient at most the sum of a column's. Return the
# largest of all these sums for the whole stack, one number. The lesson has stacks of 2,000: multiply one mixer after the other
# (`np.linalg.multi_dot` first looks for the best order, which takes it minutes).
#
# Hint: First the product, then its sums. Which mixer is on the right?
#
# Hint: NumPy knows both as norms of a matrix.


# %% exercise="amax_gain"
def amax_gain(mixers):
    """Largest row or column sum of the product's absolute values: one number."""
    ### BEGIN SOLUTION
    total = np.eye(len(mixers[0]))
    for mixer in mixers:
        total = mixer @ total
    sizes = np.abs(total)
    return float(max(sizes.sum(0).max(), sizes.sum(1).max()))
    ### END SOLUTION


# %%
check.amax_gain(amax_gain)

# %%
amax_gain = kit.mine_or_reference(amax_gain, "amax_gain")
draw = np.random.default_rng(SEED)
free = np.eye(4) + 0.1 * draw.normal(size=(2000, 4, 4))
logits = torch.tensor(4 * draw.normal(size=(2000, 4, 4)))
doubly = sinkhorn(logits).numpy()  # columns, then rows, 20 times: the order of mHC's text
for many in (1, 60, 2000):
    print(
        f"{many:5} mixers: I + 0.1·random {float(amax_gain(free[:many])):12.4g}   doubly stochastic {float(amax_gain(doubly[:many])):.4f}"
    )
rows, columns = (abs(doubly.sum(axis) - 1).max() for axis in (2, 1))
print(f"single mixers: rows off 1 by {rows:.0e} at most, columns by {columns:.2f}")
guess_gain.compare("millions of times")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# About 1.4 for one mixer, around ten for 60, and many millions for 2,000. The doubly stochastic ones stay at 1, up to a few per cent.
# </details>
#
# **Why it works.** A product of matrices near the identity still grows exponentially, slowly at first. mHC (arXiv 2512.24880) makes each mixer
# doubly stochastic: entries not negative, rows and columns summing to 1. The product of two such matrices is doubly stochastic again, so no depth
# can amplify. Sinkhorn's steps divide columns and rows in turn, and only those divided last sum to 1 exactly: rows in the paper's text,
# columns in the released kernel of a later model.
#
# The paper reports a composite gain of 3,000 for HC and 1.6 for mHC at 27 billion parameters and 60 sub-layers in a row. Here are 200 sub-layers
# in a row (100 narrow layers), trained for a few steps at a high learning rate.

# %% tags=["nbval-ignore-output"]
narrow = PreviousToken(vocab_size=16, length=8, batch_size=4)
streams, steps = (20, 4) if SMOKE else (100, 20)
gains = {}
for rule in ("hyper_connections", "mhc"):
    model = build_model(small(rule, streams, width=16), seed=SEED)
    batch = narrow.batch(torch.Generator().manual_seed(SEED))
    gains[rule, "at first"] = composite_gain(model, batch)
    train(model, narrow, TrainConfig(steps=steps, warmup=3, learning_rate=1e-2, seed=SEED), progress=False)
    gains[rule, "trained"] = composite_gain(model, batch)
figure, (ax,) = new_figure(1, width=7, height=3.8)
for i, ((rule, when), (up, down)) in enumerate(gains.items()):
    look = series_style(i)
    label = f"{RESIDUALS[rule].title}, {'at first' if when == 'at first' else f'after {steps} steps'}"
    ax.plot(np.arange(1, len(up) + 1), np.maximum(up, down), label=label, **look)
    print(
        f"{label:34} at the top: rows {up[-1]:.4g}, columns {down[-1]:.4g}; largest on the way {max(up.max(), down.max()):.4g}"
    )
ax.set(yscale="log", xlabel="sub-layers passed", ylabel="composite gain (factor)")
legend_below(figure, ax, columns=2)
Picture(
    figure,
    alt="Composite gain against sub-layers passed, logarithmic. Both rules are at 1 at first. After training, hyper-connections rise by orders "
    "of magnitude; mHC stays at 1.",
)

# %% [markdown]
# At first both are 1: all mixers are the identity, or close to it. A few steps later HC's product has left 1 and mHC's has not. So the paper's
# mechanism can be seen here. Its benchmark scores cannot: everything in this lesson is too small.
#
# ## A small tournament
#
# Five arms: Post-LN, Pre-LN, DeepNorm, your λ-skip, and one of these four a second time, under another name, with other seeds. That last
# one is a *placebo*: any difference between it and its twin is luck. The arms have letters, so that you cannot favour one.
#
# All arms get the same: 12 layers of width 32, the next byte of Python's documentation, the same number of steps, and the same number of tries
# to find its learning rate. The best rate then runs with new seeds. (They are new, since the seed that won the tuning was lucky.) What counts is
# the loss on text that no arm has seen.

# %% tags=["nbval-ignore-output"]
ARMS = {"A": "deepnorm", "B": "lambda_skip", "C": "post_ln", "D": "deepnorm", "E": "pre_ln"}
RATES = [1e-2, 3e-3] if SMOKE else [3e-2, 1e-2, 3e-3, 1e-3]
LAYERS, SEEDS = (4, 2) if SMOKE else (12, 3)
text = PythonDocs(length=32, batch_size=8)
unseen = text.validation[: 100 * 33].view(100, 33)
unseen = Batch(inputs=unseen[:, :-1], targets=unseen[:, 1:])


def final(arm, rate, seed):
    """Loss on the unseen text after training, nats a byte; a run that diverged counts as equal to single bytes."""
    seed += SEED + 100 * list(ARMS).index(arm)  # no two arms share weights or data
    model = build_model(small(ARMS[arm], LAYERS, vocab=text.vocab_size), seed=seed)
    recipe = TrainConfig(steps=10 if SMOKE else STEPS, warmup=10, learning_rate=rate, seed=seed)
    try:
        train(model, text, recipe, progress=False)
    except TrainingDiverged:
        return text.chance
    with torch.no_grad():
        return model.loss(unseen).item()


tries = {arm: [final(arm, rate, seed=0) for rate in RATES] for arm in ARMS}
best = {arm: RATES[int(np.argmin(losses))] for arm, losses in tries.items()}
ends = {arm: [final(arm, best[arm], seed) for seed in range(1, SEEDS + 1)] for arm in ARMS}
print(f"{'arm':5}" + "".join(f"{rate:>9g}" for rate in RATES) + f"{'chosen':>10}   {SEEDS} new seeds (nats a byte)")
for arm in ARMS:
    print(
        f"{arm:5}"
        + "".join(f"{loss:9.3f}" for loss in tries[arm])
        + f"{best[arm]:10g}   "
        + "  ".join(f"{x:.3f}" for x in ends[arm])
    )

# %% [markdown]
# The columns on the left are tries, one for each learning rate. A paper that tuned its own rule for a week and took the baseline's rate from another
# paper has many tries on one side and one on the other. How much does that alone give?

# %% [markdown] exercise="expected_best" difficulty=3 importance=5 minutes=12
# ### The best of k
#
# **Objective**: compute how good a rule looks after k tries.
#
# Write `expected_best(losses, k)`. `losses` are the results of all $n$ tries of a rule, in any order. With less time, only $k$ of them are made,
# and the least loss is reported. Return the mean of the reported loss, over all choices of $k$ different tries.
#
# Hint: Sort the losses. In how many of the choices is the $i$-th the least?
#
# Hint: The other $k-1$ tries must all be among the larger ones. `math.comb` counts the ways.


# %% exercise="expected_best"
def expected_best(losses, k):
    """Mean, over all choices of k tries, of the least loss: one number."""
    ### BEGIN SOLUTION
    x, n = sorted(losses), len(losses)
    return sum(x[i] * comb(n - 1 - i, k - 1) for i in range(n)) / comb(n, k)
    ### END SOLUTION


# %%
check.expected_best(expected_best)

# %%
expected_best = kit.mine_or_reference(expected_best, "expected_best")
STEADY, MOODY = [2.3, 2.0, 2.5, 2.1, 2.4, 2.2], [2.8, 1.95, 3.0, 2.6, 2.7, 2.9]
for name, losses in (("steady", STEADY), ("moody", MOODY)):
    print(f"{name:7}" + "".join(f"{float(expected_best(losses, k)):8.3f}" for k in range(1, 7)))

# %% tags=["nbval-ignore-output"]
figure, (left, right) = new_figure(2, width=9, height=3.8)
for i, (name, losses) in enumerate((("steady", STEADY), ("moody", MOODY))):
    left.plot(
        range(1, 7), [expected_best(losses, k) for k in range(1, 7)], marker="os"[i], label=name, **series_style(i)
    )
for i, (arm, losses) in enumerate(tries.items()):
    tried = range(1, len(losses) + 1)
    right.plot(tried, [expected_best(losses, k) for k in tried], marker="osv^D"[i], label=arm, **series_style(i))
left.set(xlabel="tries", ylabel="expected best loss (nats)", title="two made-up rules")
right.set(xlabel="tries (learning rates)", title="the arms")
right.set_xticks(range(1, len(RATES) + 1))
left.legend(frameon=False)
right.legend(frameon=False, ncols=2)
Picture(
    figure,
    alt="Expected best loss against the number of tries. Left: a steady rule is ahead up to five tries, a moody one at six. Right: the five arms; "
    "all curves fall with more tries, and most of the distance between the arms disappears.",
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The steady rule: 2.250, 2.133, … 2.000. The moody one: 2.658, 2.450, … 1.950. The curves cross between five and six tries.
# </details>
#
# **Why it works.** The minimum of more numbers is smaller, whatever the numbers are. So a ranking belongs to a budget: either of these two
# rules can be the better one. A comparison is fair if both sides had the same number of tries, and it says so.
#
# ## Which differences are real?
#
# Five arms make ten pairs. For each pair, a t-test asks how often two *equal* rules would differ as much as these two do: its p-value. But in ten
# tests, some small p-value appears by luck. First, simulate twelve equal rules a few thousand times.

# %%
ANGLES = np.linspace(0, np.pi / 2, 20_001)


def two_sided(t, freedom):
    """How often Student's t is farther from 0 than t: with t = √ν·tan θ its density is cos θ to the power ν - 1."""
    density = np.cos(ANGLES) ** (freedom - 1)
    inside = np.cumsum(density) / density.sum()
    return 1 - np.interp(np.arctan(np.abs(t) / np.sqrt(freedom)), ANGLES, inside)


def p_value(a, b):
    """p-value of Welch's t-test, which lets both sides have a spread of their own."""
    va, vb = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return float(two_sided((np.mean(a) - np.mean(b)) / np.sqrt(va + vb), freedom))


def luck(rules=12, seeds=3, worlds=4000):
    """Equal rules: distances of means, first to last and to second, in deviations of one seed, and the smallest p of all pairs."""
    runs = np.random.default_rng(SEED).normal(size=(worlds, rules, seeds))
    one, other = np.triu_indices(rules, 1)
    means, spread = runs.mean(2), runs.var(2, ddof=1)
    t = (means[:, one] - means[:, other]) / np.sqrt((spread[:, one] + spread[:, other]) / seeds)
    ranked = np.sort(means, 1)
    return ranked[:, -1] - ranked[:, 0], ranked[:, 1] - ranked[:, 0], two_sided(t, 2 * (seeds - 1)).min(1)


ends_apart, first_two, smallest = luck()
PAIRS = comb(12, 2)
print(
    f"twelve equal rules: first to last {ends_apart.mean():.1f} deviations of a seed, first to second {first_two.mean():.1f}"
)
print(
    f"some of the {PAIRS} pairs has p < .05 in {(smallest < 0.05).mean():.0%} of the worlds, after Holm in {(smallest * PAIRS < 0.05).mean():.0%}"
)
guess_luck.compare("about 1.9")

# %% [markdown] exercise="holm" difficulty=3 importance=5 minutes=12
# ### Many comparisons at once
#
# **Objective**: keep the chance of any false claim at 5%, however many pairs are compared.
#
# Holm's method (1979) adjusts the p-values. Of $m$ of them the smallest is multiplied by $m$, the next one by $m-1$, and so on; an adjusted value
# is never below that of a smaller p, and never above 1. Write `holm(p_values)`: the adjusted values as a list, each at the place of its p.
#
# Hint: Sort the indices, not the values, so that you know where each belongs.
#
# Hint: Keep the largest adjusted value so far.


# %% exercise="holm"
def holm(p_values):
    """Adjusted p-values, in the order given: a list."""
    ### BEGIN SOLUTION
    m = len(p_values)
    adjusted, largest = [0.0] * m, 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
    ### END SOLUTION


# %%
check.holm(holm)

# %%
holm = kit.mine_or_reference(holm, "holm")
print([round(float(p), 3) for p in holm([0.03, 0.001, 0.04, 0.5, 0.012])])


def standing(ends):
    """Pairs of arms with their p-value, raw and adjusted."""
    pairs = list(combinations(ends, 2))
    raw = [p_value(ends[a], ends[b]) for a, b in pairs]
    return {pair: (p, float(q)) for pair, p, q in zip(pairs, raw, holm(raw), strict=True)}


def groups(ends, level=0.05):
    """Arms from the lowest loss up, each with the arms that cannot be told from it."""
    found = standing(ends)
    order = sorted(ends, key=lambda arm: np.mean(ends[arm]))
    return {a: [b for b in order if b != a and found[(a, b) if (a, b) in found else (b, a)][1] >= level] for a in order}


# %% tags=["nbval-ignore-output"]
found = standing(ends)
print("pair   p         after Holm")
for (a, b), (p, q) in sorted(found.items(), key=lambda one: one[1]):
    print(f"{a}, {b}   {p:.1e}   {q:.1e}   {'real' if q < 0.05 else ''}")
print(
    f"\nbelow .05: {sum(p < 0.05 for p, _ in found.values())} of {len(found)} pairs, after Holm {sum(q < 0.05 for _, q in found.values())}"
)

# %% tags=["nbval-ignore-output"]
alone = groups(ends)
figure, (ax,) = new_figure(1, width=7, height=3.6)
for i, arm in enumerate(alone):
    mean, half = np.mean(ends[arm]), np.std(ends[arm], ddof=1) * {2: 12.71, 3: 4.30}[SEEDS] / np.sqrt(SEEDS)
    ax.errorbar(mean, i, xerr=half, fmt="s", color="black", capsize=4)
    ax.plot(ends[arm], [i + 0.22] * SEEDS, "o", mfc="none", color="#0072B2")
ax.axvline(text.chance, color="#555555", linestyle=":")
ax.set_yticks(
    range(len(alone)),
    [f"{arm} (as {', '.join(others)})" if others else f"{arm} (alone)" for arm, others in alone.items()],
)
ax.set(
    xlabel="loss on unseen text (nats a byte)",
    title="square: mean and 95% interval; circles: seeds; dotted: single bytes",
)
ax.invert_yaxis()
Picture(
    figure,
    alt="The five arms, a row each, by their mean loss with a 95% interval and one circle for each seed; beside the letter are the arms that "
    "cannot be told from it. Intervals are wide and most of them overlap; Post-LN is at the right, at the entropy of single bytes.",
)

# %%
print("the arms were: " + ", ".join(f"{arm} {RESIDUALS[rule].title}" for arm, rule in ARMS.items()))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# .09, .005, .09, .5, .048 for the five p-values. In our tournament the four pairs with Post-LN stayed below .05. One more, B and D, had p = .04, and
# .23 after Holm. A and D are the same rule, DeepNorm: the distance between them is luck, and B is not much farther from A.
# </details>
#
# **Why it works.** Holm's first step asks the smallest p to pass at $.05/m$; if all rules are equal, some of $m$ values does so in at most 5% of
# all worlds. The price is power: three seeds and ten pairs can show only large differences. "They cannot be told apart" does not mean "they are equal".
#
# This tournament is *small*: 12 narrow layers, one minute. What it shows is how to compare. The same comparison on text, eight rules at two depths,
# takes over an hour on two cores.

# %% tags=["nbval-ignore-output"]
try:
    record = kit.Results("tournament")
except FileNotFoundError as missing:
    record = None
    print(missing)
if record:
    print(record.source())
    finals = record.select(phase="final")
    for layers in sorted({run["layers"] for run in finals}):
        losses = {}
        for run in finals:
            if run["layers"] == layers:
                losses.setdefault(run["arm"], []).append(run["loss"])
        print(f"\n{layers} layers, held-out loss (nats a byte)")
        for arm, same in groups(losses).items():
            print(
                f"{arm:20}{np.mean(losses[arm]):.4f} ± {np.std(losses[arm], ddof=1):.4f}   as {', '.join(same) or 'no other'}"
            )
        if waiting := sorted({run["arm"] for run in finals} - losses.keys()):
            print(f"not run at this depth yet: {', '.join(waiting)}")

# %% [markdown]
# <details><summary>What the record says</summary>
#
# In nats a byte, mean of three new seeds, at 24 and at 96 layers: LayerNorm scaling 2.75 and 2.81, DeepNorm 2.74 and 2.85, DeepNorm again (the same rule under another name, so the distance that chance makes)
# 2.74 and 2.85, Keel 2.71 and 2.87, Pre-LN 2.83 and 2.99, ResiDual 2.97 and 3.14, Post-LN 3.36 and 3.35. Seeds differ by 0.02 to 0.03 (ResiDual at 96 layers: 0.12). Three things can be read off. Post-LN is behind at both
# depths with the best of five rates; only from ResiDual, at 96 layers, the correction cannot tell it. No rule gains by depth in 150 steps: in this time no rule has earned back what depth costs in speed. And for DeepNorm, Keel and
# LayerNorm scaling the best rate is three times lower at 96 layers than at 24, while those of Pre-LN and ResiDual stay: one common rate would have favored some of them.
# </details>
#
# ## Which claim can be tested?
#
# Here is what some of these papers claim, and where you could check it.

# %%
CLAIMS = [
    (
        "mHC, 2512.24880",
        "mixers amplify 3,000 times in HC, 1.6 times in mHC",
        "60 sub-layers there, 200 narrow ones here: HC leaves 1, mHC stays",
    ),
    ("mHC, 2512.24880", "27B, BBH: 43.8 base, 48.9 HC, 51.0 mHC", "not testable here"),
    (
        "Keel, 2601.19895",
        "its blocks start nearer to the identity than DeepNorm's",
        "tested here, by formula: true above its first block",
    ),
    (
        "Keel, 2601.19895",
        "highest rate at 64 sub-layers: DeepNorm 3.5e-4, Pre-LN 7.65e-3",
        "its own protocol is a question for lesson 16",
    ),
    (
        "nanochat, its log",
        "x₀ skips: -0.0103 bits a byte at 8 blocks, -0.0039 at 20",
        "not here: smaller than the distance of twins",
    ),
    (
        "Attention Residuals, 2603.15031",
        "528M: loss 1.719 base, 1.692 theirs",
        "not testable here; the picture is measured",
    ),
    ("SiameseNorm, 2602.08064", "1.3B: perplexity 10.84 Pre-LN, 10.43 theirs", "not testable here"),
    (
        "1000 Layer Networks, 2503.14858",
        "depth pays in reinforcement learning",
        "not testable here: 256 connections, no Transformer",
    ),
    (
        "DeepNet, 2203.00555",
        "1,000 layers train, 2,500 sub-layers in a row",
        "elsewhere in the course: 2,000 in a row in lessons 00 and 07",
    ),
    ("Stable-Transformer, lkRjnNW0gb", "1B parameters and 200 layers", "in its abstract alone, its reviewers say"),
]
for paper, claim, where in CLAIMS:
    print(f"{paper}\n    claims: {claim}\n    {where}")

# %% [markdown]
# The last row deserves a sentence. The abstract of Stable-Transformer (OpenReview lkRjnNW0gb) names models of 1 billion parameters and of 200 layers; its
# reviewers found no experiment of either kind in the paper. It has GPT-2 small, 2.848 to 2.827, GPT-2 medium, 2.579 to 2.569, and a vision model, 81.3 to
# 82.4%. Only one of its three parts, its norm, was tested alone. Read claims in the tables, not in the abstract.
#
# ## In three sentences
#
# 1. A residual rule is a way to weigh depth: write the shares of all branches into a matrix, and Post-LN, Pre-LN, DeepNorm and dozens of later rules are
#    pictures of one kind.
# 2. A rule is four verbs and ten lines, and every measurement of it needs nothing else.
# 3. A better loss means something only if both sides had the same budget, if the seeds are new, and if the difference survives a correction for the number of comparisons.
#
# **Read next**: arXiv 2603.15031, Section 6.2, for the depth-mixing matrix; then pick one of the rules in `deepnet-edu models --residuals` and run your own
# tournament.
