# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: Why did everyone move the norm?
#     opening: >-
#       The first Transformer had its norm behind the sum. Within three years nearly everybody had moved it into
#       the branch. The usual reason is a plot of gradients by layer. This lesson draws that plot, shows what it
#       does not see, and replaces it by one that does.
#     objectives: >-
#       write both rules, measure whether a stack's tokens are still different, split a gradient into what tokens share
#       and what is private, derive what attention does to each part, and say what Pre-LN costs.
#     prerequisites: lessons 01 to 03. You need that variances add, that a norm divides gradients, and what an average of tokens keeps.
#     minutes: 90
#     paper: Section 3; and Xiong et al. (arXiv 2002.04745), whose predictions are tested here.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
DEPTH = 24  # layers of the deep stacks
STEPS = 50  # of training

# %% tags=["imports"]
from math import sqrt

import numpy as np

# %%
import torch
from torch.nn import LayerNorm

from deepnet_edu import ModelConfig, TrainConfig, build_model, predict, probe, train
from deepnet_edu.checks import check
from deepnet_edu.data import PreviousToken
from deepnet_edu.figures import Picture, residual_blocks, theory_and_measurement
from deepnet_edu.figures.style import legend_below, line_style, new_figure
from deepnet_edu.model import random_batch
from deepnet_edu.profiles import Curve

device = kit.setup(SEED, PROFILE)
TITLES = {"post_ln": "Post-LN", "pre_ln": "Pre-LN"}


def verdict(claim, holds):
    print(f"{claim:<75}{bool(holds)}")


# %% [markdown]
# ## Two places for one norm

# %%
Picture(
    residual_blocks(["post_ln", "pre_ln"]),
    alt="Two blocks side by side. Post-LN: the stream and the branch are added, then normalised, so the norm lies on the "
    "way of the stream. Pre-LN: the norm stands inside the branch, and the stream passes from bottom to top untouched.",
)

# %% [markdown]
# In Post-LN the [stream](glossary.md) itself goes through every norm. In Pre-LN it goes through none: it is a free road
# from the bottom to the top, and each [branch](glossary.md) reads a normalised copy of it. That is all that was moved.

# %% [markdown] exercise="pre_ln" difficulty=1 importance=5 minutes=4
# ### Pre-LN
#
# **Objective**: know what the branch reads, and what the skip carries.
#
# Write `pre_ln(x, f, norm)`: the stream after one Pre-LN sub-layer. `x` has shape (B, T, d); `f` and `norm` are functions
# of such a tensor.
#
# Hint: Only the branch sees the norm.
#
# Hint: The skip carries the raw `x`. Do not write to the name `x` on the way.


# %% exercise="pre_ln"
def pre_ln(x, f, norm):
    """The stream after one Pre-LN sub-layer: (B, T, d)."""
    ### BEGIN SOLUTION
    return x + f(norm(x))
    ### END SOLUTION


# %%
check.pre_ln(pre_ln)

# %%
pre_ln = kit.mine_or_reference(pre_ln, "pre_ln")

# %%
x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(SEED))
after = pre_ln(x, torch.zeros_like, LayerNorm(8))
print("where the branch says nothing, the stream stays as it is:", torch.equal(after, x))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A card with a green bar. The most frequent wrong answer is `x = norm(x)` followed by `x + f(x)`: then the norm lies on
# the skip after all, and nothing was moved.
# </details>
#
# **Why it works.** The branch's input always has variance 1, so the branch adds about the same at each depth. The skip
# keeps what is there.

# %% [markdown] exercise="post_ln" difficulty=1 importance=5 minutes=4
# ### Post-LN
#
# **Objective**: have the other rule beside it.
#
# Write `post_ln(x, f, norm)`: the stream after one Post-LN sub-layer, for the same three arguments.
#
# Hint: One norm, around everything.
#
# Hint: The branch reads `x` as it is. The sub-layer below has normalised it already.


# %% exercise="post_ln"
def post_ln(x, f, norm):
    """The stream after one Post-LN sub-layer: (B, T, d)."""
    ### BEGIN SOLUTION
    return norm(x + f(x))
    ### END SOLUTION


# %%
check.post_ln(post_ln)

# %%
post_ln = kit.mine_or_reference(post_ln, "post_ln")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A second green card. `x + norm(f(x))` and `norm(x + norm(f(x)))` are published rules too, but other ones.
# </details>
#
# **Why it works.** The norm on the sum keeps the stream at variance 1 at all depths (lesson 01). So the two rules differ
# in what they hold still: Pre-LN the skip, Post-LN the size.
#
# ## Train both
#
# The task is to name the *previous* token of a random sequence. Without attention nobody can do better than
# $\ln 16 = 2.77$. As in lesson 00 only the stack is trained; embedding and head stay as they were drawn.
#
# *The recipe*: Xavier-normal weights for each projection, zero biases, width 32, AdamW without weight decay, gradient
# clipped to norm 1, 50 steps. Every rule gets every learning rate, with and without 20 steps of
# [warm-up](glossary.md).

# %%
guess = kit.Guess(
    "24 layers of Post-LN, learning rates from 0.001 to 0.01, with and without warm-up. How many of these recipes learn?",
    ["all", "those with warm-up", "those with the smallest learning rate", "none"],
)
guess

# %%
task = PreviousToken(vocab_size=16, length=8, batch_size=32)
rates, seeds = ([1e-2], [SEED]) if PROFILE == "smoke" else ([1e-3, 3e-3, 1e-2], [SEED, SEED + 1, SEED + 2])
depths, warmups = [6, DEPTH], [0, 20]
ends = {}  # loss at the end by (rule, layers, learning rate, warm-up, seed)


def small(rule, layers):
    """A narrow decoder, as in lesson 00: each token sees itself and the past."""
    shape = {"d_model": 32, "n_heads": 2, "d_ff": 128, "vocab_size": 16, "max_length": 32}
    return ModelConfig("decoder", "lm", decoder_layers=layers, residual=rule, **shape)


def draw_ends():
    figure, axes = new_figure(2, width=9, height=4)
    for ax, layers in zip(axes, depths, strict=True):
        ax.axhline(task.chance, color="black", linewidth=0.8)
        ax.text(5.5e-4, task.chance - 0.2, "ln 16: knows nothing", fontsize=8)
        for k, (rule, warmup) in enumerate((r, w) for r in TITLES for w in warmups):
            found = [
                (rate * (0.88 + 0.08 * k), loss)  # side by side
                for (r, n, rate, w, _), loss in ends.items()
                if (r, n, w) == (rule, layers, warmup)
            ]
            x, y = zip(*found, strict=True) if found else ([], [])
            color = line_style(rule)["color"]
            look = {"color": color, "mfc": color if warmup else "white", "marker": "os"[rule == "pre_ln"], "ls": ""}
            ax.plot(x, y, label=f"{TITLES[rule]}, {'20 steps of' if warmup else 'no'} warm-up", **look)
        ax.set(xscale="log", xlim=(5e-4, 2e-2), ylim=(0, 3.2), xlabel="learning rate", title=f"{layers} layers")
        ax.set_ylabel("loss at the end (nats per token)")
    legend_below(figure, axes[0], columns=2)
    return figure


picture = kit.LivePicture(
    draw_ends,
    alt="Loss at the end against learning rate, one mark per seed. Left, 6 layers: both rules learn, but Post-LN at "
    "learning rate 0.01 without warm-up stays at ln 16. Right, 24 layers: every Post-LN mark lies on ln 16, every "
    "Pre-LN mark below it, most of them far below.",
)
every = [(rule, n, rate, warmup) for rule in TITLES for n in depths for rate in rates for warmup in warmups]
for rule, layers, rate, warmup in every:
    for seed in [] if (PROFILE, layers, warmup) == ("smoke", DEPTH, 0) else seeds:
        recipe = TrainConfig(steps=STEPS, learning_rate=rate, warmup=warmup, parameters="stack", seed=seed)
        model = build_model(small(rule, layers), seed=seed).to(device)
        ends[rule, layers, rate, warmup, seed] = train(model, task, recipe, progress=False).final_loss()
    picture.update()
picture.finish()


# %%
def losses(*wanted):
    """Of the runs with these settings, in the order of the key; None: any."""
    return [loss for key, loss in ends.items() if all(w in (None, k) for w, k in zip(wanted, key, strict=False))]


verdict("24 layers, Post-LN: within 0.1 of ln 16 in every run:", min(losses("post_ln", DEPTH)) > task.chance - 0.1)
verdict("24 layers, Pre-LN, 0.01: below 1 in every run:", max(losses("pre_ln", DEPTH, 1e-2)) < 1)
verdict("6 layers, Post-LN, 0.01, with warm-up: below 1 in every run:", max(losses("post_ln", 6, 1e-2, 20)) < 1)
verdict("6 layers, Post-LN, 0.01, without warm-up: above 2.67 in every run:", min(losses("post_ln", 6, 1e-2, 0)) > 2.67)

# %% tags=["nbval-ignore-output"]
kit.record(**{f"{rule}_{n}": losses(rule, n) for rule in TITLES for n in depths})

# %%
guess.compare("none")

# %% [markdown]
# So this is what people saw. A shallow Post-LN stack trains, but at the largest learning rate only with warm-up. A deep
# one does not train at all *under this recipe*: three learning rates, two warm-ups, three seeds, 50 steps. Pre-LN trains
# at both depths, without warm-up too. Whoever had to choose moved the norm. But *why* does it help?
#
# ## What the tokens have become
#
# Start with what can be seen before any training. Lesson 00 had an instrument for it; now you build it.

# %% [markdown] exercise="token_similarity" difficulty=2 importance=5 minutes=10
# ### Token similarity
#
# **Objective**: see a stack collapse before it is trained.
#
# Write `token_similarity(x)` for `x` of shape (B, T, d): the mean cosine between *different* tokens of the *same*
# sequence, one number. The cosine of two vectors is their dot product after both were brought to length 1.
#
# Hint: `u = x / x.norm(dim=-1, keepdim=True)` has tokens of length 1, and `u @ u.transpose(1, 2)`, of shape (B, T, T),
# holds the cosines of all pairs.
#
# Hint: The T pairs of a token with itself must go. Each has cosine 1: take T from the sum, and divide by T(T - 1).


# %% exercise="token_similarity"
def token_similarity(x):
    """(B, T, d) -> one number: mean cosine of different tokens of a sequence."""
    ### BEGIN SOLUTION
    T = x.shape[1]
    u = x / x.norm(dim=-1, keepdim=True)
    cosines = u @ u.transpose(1, 2)
    return ((cosines.sum((1, 2)) - T) / (T * (T - 1))).mean()
    ### END SOLUTION


# %%
check.token_similarity(token_similarity)

# %%
token_similarity = kit.mine_or_reference(token_similarity, "token_similarity")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card. For independent random tokens the answer is near 0, for equal ones it is exactly 1.
# </details>
#
# **Why it works.** Where all tokens point the same way, no head can give them different answers. The best guess is then
# the same for all of them, and its loss is $\ln 16$: the line on which every deep Post-LN run ended.
#
# ## The usual plot
#
# Now the plot that is usually shown: the length of the loss gradient in the weights of each layer, before training.
# Commit first.

# %%
guess_ratio = kit.Guess(
    "First-layer gradient over last-layer gradient, in the untrained stacks of 24 layers. Which rule is nearer to 1?",
    ["Post-LN", "Pre-LN", "they are alike"],
)
guess_ratio

# %%
SEEDS = [SEED, SEED + 1, SEED + 2]  # every picture below: mean over three seeds
gradients, similarities = {}, {}
for rule in TITLES:
    found = []
    for seed in SEEDS:
        batch = task.batch(torch.Generator().manual_seed(seed)).to(device)
        found.append(probe(build_model(small(rule, DEPTH), seed=seed).to(device), batch))
    # Two sub-layers a layer: one value for both.
    gradients[rule] = np.mean([profile.gradient_norm.reshape(-1, 2).mean(1) for profile in found], 0)
    similarities[rule] = np.mean([profile.token_similarity for profile in found], 0)

figure, (left, right) = new_figure(2, width=9, height=3.8)
for rule, title in TITLES.items():
    left.plot(np.arange(1, DEPTH + 1), gradients[rule], label=title, **line_style(rule))
    right.plot(np.arange(1, 2 * DEPTH + 1) / 2, similarities[rule], **line_style(rule))
left.set(yscale="log", ylim=(0.03, 10), xlabel="layer", ylabel="gradient of the loss, by layer", title="The usual plot")
right.set(ylim=(0, 1.05), xlabel="layer", ylabel="cosine between tokens", title="Are tokens still different?")
legend_below(figure, left)
Picture(
    figure,
    alt="Two panels by layer, before training, 24 layers. Left, the gradient's length in each layer's weights: Post-LN "
    "dips by a third in the middle and comes back, Pre-LN falls by a factor of about four from the first layer to the last. "
    "Right, token similarity: Post-LN is at 0.97 in the middle of the stack and 1 at the top, Pre-LN just below 0.8.",
)

# %%
ratio = {rule: gradients[rule][0] / gradients[rule][-1] for rule in TITLES}
verdict("Post-LN: first over last between 0.5 and 2:", 0.5 < ratio["post_ln"] < 2)
verdict("Pre-LN:  first over last above 2:", ratio["pre_ln"] > 2)
verdict("Post-LN: tokens all alike at the top (above 0.99):", similarities["post_ln"][-1] > 0.99)

# %% tags=["nbval-ignore-output"]
kit.record(**{f"first_over_last_{rule}": value for rule, value in ratio.items()})

# %%
guess_ratio.compare("Post-LN")

# %% [markdown]
# Read it twice. **By the usual plot the dead stack is the healthier one.** Its first gradient is as long as its last;
# Pre-LN's is almost four times as long. The right panel says what is wrong, and the left one does not see it. The plot is
# not false. But a weight's gradient is a sum over tokens, and in that sum two things are added that have to be looked at
# apart.
#
# ## Two parts of a gradient
#
# Each token of a sequence has its own gradient $g_t$: a vector of $d$ numbers that says how the stream at that token
# should change. Some of it is the same for all tokens of the sequence. Call that the *shared part* $\bar g$. What is
# left is the token's *private part* $p_t$:
#
# $$g_t = \bar g + p_t, \qquad \bar g = \frac1T \sum_{t=1}^{T} g_t , \qquad \sum_t p_t = 0 .$$
#
# The shared part can say "all of you, move this way". Only the private parts can say "you there, be different from your
# neighbour". A stack that learns to tell tokens apart needs them.

# %% [markdown] exercise="split_gradient" difficulty=1 importance=4 minutes=5
# ### Shared and private
#
# **Objective**: look at the two parts of a gradient apart.
#
# Write `split_gradient(g)` for `g` of shape (B, T, d). Return two tensors: the shared part, of shape (B, 1, d), and the
# private part, of shape (B, T, d).
#
# Hint: The shared part is a mean. Over which dimension?
#
# Hint: `keepdim=True` leaves a 1 in its place, so that it can be subtracted from `g`.


# %% exercise="split_gradient"
def split_gradient(g):
    """(B, T, d) -> the shared part, (B, 1, d), and the private part, (B, T, d)."""
    ### BEGIN SOLUTION
    shared = g.mean(1, keepdim=True)
    return shared, g - shared
    ### END SOLUTION


# %%
check.split_gradient(split_gradient)

# %%
split_gradient = kit.mine_or_reference(split_gradient, "split_gradient")


# %%
def lengths(g):
    """Root mean square length of the two parts of a gradient, shared and private."""
    return [part.square().sum(-1).mean().sqrt().item() for part in split_gradient(g)]


generator = torch.Generator().manual_seed(SEED)
independent = torch.randn(64, 32, 256, generator=generator) / 16
shared_length, private_length = lengths(independent)
total = independent.square().sum(-1).mean().item()
share = shared_length**2 / total
verdict("the squares of both parts add up to the whole:", abs(share + private_length**2 / total - 1) < 1e-4)
verdict("independent gradients have 1/T of their square in the shared part:", abs(32 * share - 1) < 0.05)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card, and True twice.
# </details>
#
# **Why it works.** The private parts sum to 0, so they are at right angles to what is shared: Pythagoras again, squares
# add. The second line is the variance of a mean of T independent things, 1/T. Keep it in mind: even gradients that have
# nothing to do with each other share a little.
#
# ## What attention sends back
#
# Take one Post-LN attention sub-layer and follow a gradient through it. Four assumptions: each token looks at all T
# tokens alike (*uniform* attention); value and output projection together are a random matrix $W$ of gain 1, which
# leaves variances as they are; tokens have variance 1 and correlation $r$ with each other; $d$ is large.
#
# **Up.** Every token gets the same branch, $W\bar x$ with the mean token $\bar x = \frac1T\sum_t x_t$. Its variance (a
# number, call it $f$; not the function of exercise 4.1) is
# that of a mean of T correlated things. Of the $T^2$ pairs in $\bar x^2$, $T$ pair a token with itself (covariance 1)
# and $T(T-1)$ pair different tokens (covariance $r$):
#
# $$f = \frac{T + T(T-1)\,r}{T^2} = r + \frac{1-r}{T} .$$
#
# The branch knows nothing of the stream, so the sum has variance $1 + f$, and the norm divides by $\sqrt{1+f}$.
#
# **Down.** The norm divides the gradient by $\sqrt{1+f}$ too (lesson 02; it also takes away 2 of $d$ directions, which a
# wide stream does not notice). Then it meets the sum. Along the skip it passes as it is. Along the branch: token $i$ was
# read by all T tokens, by each with weight $1/T$. So it hears $W^\top \frac1T\sum_t g_t = W^\top \bar g$:
#
# $$g_i \;\longrightarrow\; \frac{g_i + W^\top \bar g}{\sqrt{1+f}} .$$
#
# **The mean of the gradients, and nothing else, comes back through uniform attention.** Now split:
#
# - The *private* part $p_i$ gets nothing from the branch, since the private parts sum to 0. It is divided, by
#   $\sqrt{1+f}$.
# - The *shared* part becomes $\bar g + W^\top\bar g$. A random $W^\top$ turns $\bar g$ to a right angle and keeps its
#   length. Squares add: its length is multiplied by $\sqrt 2$, then divided by $\sqrt{1+f}$.
#
# Where tokens are alike, $f = 1$. On the way up attention adds as much as the skip. On the way down it gives the private part
# nothing. So **each attention sub-layer shrinks the private part by $1/\sqrt2$**. (The feed-forward sub-layer, below, adds no
# further loss.) The shared part keeps its length.

# %% [markdown] exercise="attention_gradient_factor" difficulty=5 importance=5 minutes=20
# ### The factor of attention
#
# **Objective**: say what a Post-LN attention sub-layer does to a gradient's length, and why it depends on the tokens.
#
# Write `attention_gradient_factor(T, r, shared=False)`: the length of a gradient below the sub-layer over its length
# above, under the four assumptions. With `shared=True` the gradient is equal for all tokens. With `shared=False` it is
# independent from token to token.
#
# Hint: First `f = r + (1 - r) / T`. Then work with squares, and take the root at the end.
#
# Hint: Of the gradient's square the branch gives back everything that is shared. That is all of it if the gradient is
# equal for all tokens. If it is independent, it is 1/T (you have just measured that).


# %% exercise="attention_gradient_factor"
def attention_gradient_factor(T, r, shared=False):
    """Length of a gradient below a Post-LN attention sub-layer over that above it: one number."""
    ### BEGIN SOLUTION
    f = r + (1 - r) / T
    back = 1 if shared else 1 / T
    return sqrt((1 + back) / (1 + f))
    ### END SOLUTION


# %%
check.attention_gradient_factor(attention_gradient_factor)

# %%
attention_gradient_factor = kit.mine_or_reference(attention_gradient_factor, "attention_gradient_factor")


# %% [markdown]
# <details><summary>What you should see</summary>
#
# `attention_gradient_factor(32, 1)` is 0.718 and goes to $1/\sqrt2$ = 0.707 for more tokens;
# `attention_gradient_factor(32, 1, shared=True)` is 1.
# </details>
#
# **Why it works.** Forward, an average keeps what tokens share. Backward, it *returns* what gradients share. If tokens
# are alike but their gradients are not, the branch takes half of the sum's room and pays nothing back.
#
# The next cell builds that sub-layer and lets autograd measure.


# %%
def measured_factor(T, r, shared, d=1024):
    """Of one Post-LN sub-layer with uniform attention: gradient below over gradient above."""
    x = sqrt(r) * torch.randn(1, 1, d, generator=generator) + sqrt(1 - r) * torch.randn(1, T, d, generator=generator)
    x.requires_grad_()
    W = torch.randn(d, d, generator=generator) / sqrt(d)
    y = post_ln(x, lambda x: x.mean(1, keepdim=True).expand_as(x) @ W, LayerNorm(d))
    above = torch.randn(1, 1 if shared else T, d, generator=generator).expand(1, T, d)
    (below,) = torch.autograd.grad(y, x, above)
    return (below.norm() / above.norm()).item()


for r in (0.0, 0.5, 1.0):
    for shared in (False, True):
        theory = attention_gradient_factor(32, r, shared)
        close = abs(measured_factor(32, r, shared) / theory - 1) < 0.06
        kind = "shared     " if shared else "independent"
        print(f"r = {r:.1f}, {kind}: theory {theory:.3f}, measured within 6%: {close}")

# %% [markdown]
# ## The whole stack, in theory
#
# Two sub-layers make a layer, so the feed-forward branch needs its factor too. It works on each token alone, with a ReLU
# between two matrices. On the way up its branch adds a variance $s$ (lesson 03: $s = 2\,d\,d_{\mathrm{ff}}/(d +
# d_{\mathrm{ff}})^2$, that is 0.32 for $d_{\mathrm{ff}} = 4d$). On the way down a gradient meets the same two matrices,
# and the ReLU again lets half of the square through. So $s$ comes back, and the square of the gradient is multiplied by
# $(1+s)/(1+s) = 1$. **A Post-LN feed-forward sub-layer does not change a gradient's length.**
#
# But it can change its kind. Each token has its own pattern of open ReLUs. A shared gradient comes back through two
# *different* patterns, and what differs is private. Two tokens of correlation $r$ have a ReLU open together with
# probability $\frac12 - \frac{\arccos r}{2\pi}$, where one of them alone has it open with $\frac12$. So of $s$ only the
# share $k = 1 - \arccos(r)/\pi$ comes back equal in both. Different tokens turn shared gradient into private; for equal
# tokens ($k = 1$) nothing is turned.
#
# Pre-LN has the same branches without a norm on the sum, so the skip divides nothing. The norm *in* its branch divides
# what comes back by $\sqrt v$, where $v$ is the variance of the stream. Attention multiplies the square of the shared
# part by $1 + 1/v$, and feed-forward the whole square by $1 + s/v$: less and less as $v$ grows.
#
# The next cell is these sentences, with some bookkeeping. Let $w$ be the mean square of a token's gradient and $q$ the mean
# product of two different tokens' gradients. The shared part's square is $(w + (T-1)\,q)/T$, the private part's is $w$ minus
# that. Feed-forward multiplies $w$ by $(1+s)/(1+s)$ and $q$ by $(1+sk)/(1+s)$; attention leaves the private part half of the
# shared part's factor. $r$ and $v$ by depth come from the library's `predict`.

# %%
T = 32


def theory_of_parts(config):
    """Lengths of the shared and the private part at the input and after each sub-layer, if an independent gradient of
    length 1 arrives at the top."""
    forward, post = predict(config, tokens=T), config.residual == "post_ln"
    r, v = np.append(0.0, forward.token_similarity), np.append(1.0, forward.variance)
    s = 2 * config.d_model * config.d_ff / (config.d_model + config.d_ff) ** 2
    shared, private = [1 / T], [1 - 1 / T]  # squares
    for i in reversed(range(len(r) - 1)):  # from the top down; even: attention, odd: feed-forward
        if i % 2 == 0 and post:
            factor = attention_gradient_factor(T, r[i], shared=True)  # √2/√(1 + f)
            shared.append(shared[-1] * factor**2)
            private.append(private[-1] * factor**2 / 2)
        elif i % 2 == 0:
            shared.append(shared[-1] * (1 + 1 / v[i]))
            private.append(private[-1])
        else:
            k, back = 1 - np.arccos(min(r[i], 1)) / np.pi, s if post else s / v[i]
            norm = 1 + s if post else 1
            whole = shared[-1] + private[-1]
            pair = (T * shared[-1] - whole) / (T - 1)  # mean product of two different tokens' gradients
            whole, pair = whole * (1 + back) / norm, pair * (1 + back * k) / norm
            shared.append((whole + (T - 1) * pair) / T)
            private.append(whole - shared[-1])
    return np.sqrt(shared[::-1]), np.sqrt(private[::-1])


# %% [markdown]
# ## The whole stack, measured
#
# Now a real stack: the library's encoder, in which each token sees all others, of 24 layers, width 128, 4 heads, ReLU,
# Xavier-normal weights and zero biases. Your `pre_ln` and `post_ln` run its branches. Random tokens go in at the bottom,
# an independent random gradient of length 1 arrives at the top, and autograd carries it down. (This is not the stack that was
# trained above: that one is a decoder of width 32, which reads 8 tokens. Its tokens, too, are alike at the top, above 0.99.)


# %%
def wide(rule, layers=DEPTH, d_ff=512, heads=4):
    shape = {"d_model": 128, "n_heads": heads, "d_ff": d_ff, "vocab_size": 64, "max_length": T}
    return ModelConfig("encoder", "mlm", encoder_layers=layers, residual=rule, activation="relu", **shape)


def built(config, seed, uniform=False):
    """A fresh model; ``uniform``: with query and key weights of 0, so that all scores are equal."""
    model = build_model(config, seed=seed).to(device)
    if uniform:
        with torch.no_grad():
            for sublayer in model.sublayers():
                weights = sublayer.branch.weights()
                for role in weights.keys() & {"query", "key"}:
                    weights[role].zero_()
    return model


def streams(model, x):
    """The stream at the input and after each sub-layer, through your functions."""
    step = {"post_ln": post_ln, "pre_ln": pre_ln}[model.config.residual]
    found = [x]
    for sublayer in model.sublayers():
        found.append(step(found[-1], sublayer.branch, sublayer.residual.norm))
    return found


def measure(config, uniform=False, only=None):
    """Lengths of the shared and the private part, token similarity and variance, at the input and after each sub-layer;
    over three seeds. ``only``: of the gradient at the top send the shared part (0) or the private one (1) alone."""
    rows = []
    for seed in SEEDS:
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(4, T, config.d_model, generator=draw).to(device).requires_grad_()
        above = torch.randn(4, T, config.d_model, generator=draw).to(device) / sqrt(config.d_model)
        if only is not None:
            above = split_gradient(above)[only].expand_as(above)
        found = streams(built(config, seed, uniform), x)
        back = torch.autograd.grad(found[-1], found, above)
        states = [(token_similarity(x.detach()).item(), x.square().mean().item()) for x in found]
        rows.append([(*lengths(g), *state) for g, state in zip(back, states, strict=True)])
    shared, private, similarity, variance = np.array(rows).transpose(2, 0, 1)
    return [*(np.sqrt((part**2).mean(0)) for part in (shared, private)), similarity.mean(0), variance.mean(0)]


# %%
measured = {rule: measure(wide(rule)) for rule in TITLES}
expected = {
    rule: [*theory_of_parts(wide(rule)), np.append(0.0, predict(wide(rule), tokens=T).token_similarity)]
    for rule in TITLES
}

# %% tags=["headline"]
figure, axes = new_figure(3, width=11, height=4.2)
at = np.arange(2 * DEPTH + 1) / 2
panels = {"Part that all tokens share": axes[1], "Private part of the gradient": axes[0], "Are tokens alike?": axes[2]}
for n, (title, ax) in enumerate(panels.items()):
    for rule, name in TITLES.items():
        style = line_style(rule)
        ax.plot(at, expected[rule][n], label=f"{name}, theory", **style)
        dots = {"color": style["color"], "alpha": 0.6, "markersize": 4}
        ax.plot(at[::2], measured[rule][n][::2], "o", label=f"{name}, measured", **dots)
    ax.set(xlabel="layer", xlim=(0, DEPTH), title=title)
for ax in axes[:2]:
    ax.set(yscale="log", ylim=(0.006, 6))
axes[0].set_ylabel("length (1: the gradient at the top)")
axes[2].set(ylim=(0, 1.05), ylabel="cosine between tokens")
arrow = {"fontsize": 9, "arrowprops": {"arrowstyle": "->"}}
axes[0].annotate("÷ √2 a layer", (19.5, 0.21), (9, 0.55), **arrow)
axes[0].annotate("made of the\nshared part", (3.5, 0.06), (0.5, 0.007), **arrow)
legend_below(figure, axes[0], columns=4)
Picture(
    figure,
    alt="Three panels by layer, 24 layers, theory as lines under measured points. Private part of the gradient: Pre-LN "
    "stays near 1 and rises to 2.7 at the bottom; Post-LN falls from 1 at the top along a straight line, by the root "
    "of two a layer, to about 0.02 in the middle, and rises again to 0.4 at the bottom. Shared part: Post-LN flat at 0.2, "
    "Pre-LN rising towards the bottom. Token similarity: Post-LN is at 1 from the middle on, Pre-LN climbs slowly to 0.9.",
)

# %%
private = {rule: measured[rule][1] for rule in TITLES}
shared_part = measured["post_ln"][0]
near = {rule: np.abs(np.log(private[rule] / expected[rule][1])) for rule in TITLES}
third = 4 * DEPTH // 3  # where the upper third begins, in sub-layers
quarter = private["post_ln"][-9] / private["post_ln"][-1]
verdict("Post-LN, private: a quarter is left 4 layers below the top, within 15%:", abs(4 * quarter - 1) < 0.15)
verdict("Post-LN, private: at its shortest less than 1/30 of what arrived:", private["post_ln"].min() < 1 / 30)
verdict("Post-LN, shared: nowhere shorter than 0.8 of what arrived:", shared_part.min() > 0.8 * shared_part[-1])
verdict("Pre-LN, private: nowhere shorter than 0.9 of what arrived:", private["pre_ln"].min() > 0.9)
six = measure(wide("post_ln", layers=6))
verdict("Post-LN of 6 layers, private: nowhere shorter than 0.2:", six[1].min() > 0.2)
verdict("Post-LN of 6 layers: token similarity at the top below 0.9:", six[2][-1] < 0.9)
alike = [np.abs(measured[rule][2] - expected[rule][2]).max() < 0.05 for rule in TITLES]
verdict("theory of token similarity within 0.05, both rules, all depths:", all(alike))
verdict("theory of Pre-LN's private part within 35% at all depths:", near["pre_ln"].max() < np.log(1.35))
verdict("theory of Post-LN's private part within 20%, upper third:", near["post_ln"][third:].max() < np.log(1.2))
verdict("theory of Post-LN's private part within 20%, all depths:", near["post_ln"].max() < np.log(1.2))
from_shared, from_private = (measure(wide("post_ln"), only=part) for part in (0, 1))
print("send only one part of the gradient in at the top of Post-LN; what arrives at the bottom as private:")
verdict("    of the private part less than a hundredth:", from_private[1][0] < 0.01 * from_private[1][-1])
verdict(
    "    the shared part alone gives the curve's left end, within 10%:",
    abs(from_shared[1][0] / private["post_ln"][0] - 1) < 0.1,
)

# %% tags=["nbval-ignore-output"]
kit.record(private_post_ln=private["post_ln"][::4], private_pre_ln=private["pre_ln"][::4])

# %% [markdown]
# This is the picture to remember. Gradients travel from right to left in it. Follow the orange curve of the left panel.
#
# **Upper half.** Tokens are all alike, so attention halves the square of the private part at every layer: a straight
# line. It ends near layer 10, where little is left.
#
# **Lower half.** Tokens still differ there, so ReLUs turn shared gradient into private: the curve climbs again. But this
# private part is made of the *shared* one above, as the last two lines say: send the private part alone in at the top, and less
# than a hundredth of its length reaches the bottom. What the loss said about a single token is lost on the way. Would Adam not
# repair a short gradient? It rescales each weight's *whole* gradient. What is lost beside the shared part stays lost.
#
# **The whole.** First over last looks healthy, because the shared part carries it. One gradient norm by layer must never
# be the verdict.
#
# Pre-LN, in blue, loses nothing on the way. Its private part even grows a little towards the bottom. That is why moving
# the norm helped.
#
# ### Where theory departs, and why
#
# One line above says False. In the lower half the measured private part is up to four and a half times as long as in theory.
# The suspect is an assumption: uniform attention. As long as tokens differ, fresh queries and keys give unequal scores.
# Then attention is a little selective. It hands some of the private part back, and it turns shared gradient into private, as
# ReLUs do. The test: set queries and keys to zero
# in the *same* stacks.

# %%
flat = measure(wide("post_ln"), uniform=True)
apart = np.exp(np.abs(np.log(flat[1] / expected["post_ln"][1])).max())
verdict("as drawn: measurement and theory differ by a factor above 2:", np.exp(near["post_ln"].max()) > 2)
verdict("with queries and keys of 0: by a factor below 1.6 at all depths:", apart < 1.6)

# %% [markdown]
# That was most of it. The rest is three seeds, and tokens that are not quite as theory has them. And a decoder? With a
# causal mask early tokens are read by many and late ones by few. The sums are uneven, and the idea is the same: the
# library's `deepnet_edu.theory.attention_backward` has both cases.
#
# ## The predictions of 2020, on their own ground
#
# Xiong et al. (arXiv 2002.04745) gave the reason that everybody quotes. Their theory assumes: weights
# $\mathcal N(0, 1/d)$, queries and keys of 0, $d_{\mathrm{ff}} = d$, ReLU. For $N$ layers, $l$ counted from the bottom:
#
# 1. *Sizes* (Lemma 2). The sum before each feed-forward norm of Post-LN has variance 3/2. Pre-LN's stream after $l$
#    layers has a variance between $1 + \frac12 l$ and $1 + \frac32 l$.
# 2. *The last feed-forward gradient* (Theorem 1). For Post-LN it does not depend on depth. For Pre-LN it falls like
#    $1/\sqrt N$.
# 3. *The other layers*. Post-LN's gradient at layer $l$ has a factor $(2/3)^{(N-l)/2}$.
#
# Prediction 1 you can derive: a ReLU between square matrices of gain 1 passes half of the variance. So the
# feed-forward sum is $1 + \frac12$. Uniform attention adds $f$: about 0 as long as tokens are independent, 1 when they are
# alike. Together a layer of Pre-LN adds between 1/2 and 3/2. So build exactly that stack, and look.

# %%
square = {rule: wide(rule, d_ff=128, heads=1) for rule in TITLES}  # Xavier's 2/(d + d) is 1/d
ground = {rule: measure(config, uniform=True) for rule, config in square.items()}
layer = np.arange(DEPTH + 1)
stream = ground["pre_ln"][3][::2]
Picture(
    theory_and_measurement(
        [
            Curve("tokens all alike: 1 + 3l/2", 1 + 1.5 * layer, None),
            Curve("Pre-LN", np.append(1.0, predict(square["pre_ln"], tokens=T).variance[1::2]), stream),
            Curve("tokens independent: 1 + l/2", 1 + 0.5 * layer, None),
        ],
        xlabel="layer",
        ylabel="variance of the stream",
    ),
    alt="Variance of the Pre-LN stream by layer. Two straight lines are the bounds of Xiong et al.; measured points start "
    "along the lower one, bend upwards as tokens become alike, stay between the bounds, and end at about 33 after 24 layers; "
    "the theory line ends at 29.",
)

# %%
sums = []
with torch.no_grad():
    for seed in SEEDS:
        model = built(square["post_ln"], seed, uniform=True)
        found = streams(model, torch.randn(4, T, 128, generator=torch.Generator().manual_seed(seed)).to(device))
        pairs = list(zip(model.sublayers(), found, strict=False))[1::2]  # feed-forward, and what it reads
        sums += [(x + part.branch(x)).square().mean().item() for part, x in pairs]
low, high = 1 + 0.5 * layer[1:], 1 + 1.5 * layer[1:]
tested, slopes = [4, 8, 16], {}
for rule in TITLES:
    last = []
    for config in (wide(rule, layers=n, d_ff=128, heads=1) for n in tested):
        profiles = [
            probe(built(config, seed, uniform=True), random_batch(config, 4, T, seed).to(device)) for seed in SEEDS
        ]
        last.append(np.mean([profile.gradient_by_role["ffn_out"][-1] for profile in profiles]))
    slopes[rule] = np.polyfit(np.log(tested), np.log(last), 1)[0]
bottom = np.hypot(ground["post_ln"][0][0], ground["post_ln"][1][0])

verdict("1. Post-LN's feed-forward sums: variance 3/2 on average, within 5%:", abs(np.mean(sums) / 1.5 - 1) < 0.05)
verdict("   Pre-LN's stream between the bounds at all layers:", ((low < stream[1:]) & (stream[1:] < high)).all())
verdict("2. last gradient from 4 to 16 layers, Post-LN: power 0, within 0.15:", abs(slopes["post_ln"]) < 0.15)
verdict("   Pre-LN: power -0.5, within 0.15:", abs(slopes["pre_ln"] + 0.5) < 0.15)
print(f"3. Post-LN's factor from layer 24 down to the bottom, predicted: {(2 / 3) ** (DEPTH / 2):.3f}")
verdict("   measured above 0.2:", bottom > 0.2)

# %% tags=["nbval-ignore-output"]
kit.record(slope_post_ln=slopes["post_ln"], slope_pre_ln=slopes["pre_ln"], gradient_at_the_bottom=bottom)

# %% [markdown]
# Predictions 1 and 2 hold on their ground. (Single layers scatter about 3/2: where all tokens are alike, a layer has one
# token's 128 features to average over.) From 2 the authors explained warm-up. At its top a deep Pre-LN stack has a small
# gradient, and Post-LN a large one at any depth, so large first steps are dangerous.
#
# Prediction 3 fails, by a factor of more than 25 at the bottom. Its factor, $\sqrt{2/3}$ a layer, is the feed-forward norm
# alone, $1/\sqrt{1 + 1/2}$. The feed-forward branch sends the other $\sqrt{3/2}$ back, as you derived above. What really
# shrinks a gradient is attention: the private part, only where tokens are alike, and then *faster*, by $\sqrt{1/2}$.
# The shared part does not shrink. (The factor is right for one path, that of the norms and skips. A gradient takes all
# paths.)
#
# ## What Pre-LN costs
#
# Nothing is free. Look once more at the variance of Pre-LN's stream. It grows by about one to two a layer, at every depth,
# while a branch stays as large as it is. So each layer is a smaller part of what is there: the first a third of it, the last
# about a fourteenth. (From layer 18 on the points climb faster than our theory: width 128, three seeds.) A late layer changes
# little of what it finds.
#
# The paper's Table 1 has the price. It is in BLEU, a score of translations, more is better; on WMT-17 English-German, one
# run each; "–" diverged:
#
# | layers (encoder-decoder) | 6-6 | 18-18 | 50-50 | 100-100 |
# |---|---|---|---|---|
# | Post-LN | **28.1** | – | – | – |
# | Pre-LN | 27.0 | 28.1 | 28.0 | 27.4 |
# | DeepNorm | 27.8 | **28.8** | **29.0** | **28.9** |
#
# At 6-6, the one size at which Post-LN trains, it is 1.1 ahead of Pre-LN, and 0.3 ahead of DeepNorm. The paper's text says that
# Pre-LN falls 0.5 to 1.0 BLEU short of a Post-LN that converged. Pre-LN also gets worse from 18 to 100 layers; late layers that
# hardly count are one explanation. (Single runs: small differences mean nothing.) So moving the norm was a trade:
# trainability for some quality.
#
# ## For those who want more

# %% [markdown] exercise="pre_ln_stack" difficulty=2 importance=4 minutes=6
# ### The last norm (optional)
#
# **Objective**: avoid the one mistake that all tests of single layers miss.
#
# Write `pre_ln_stack(x, branches, norms, final_norm)`: a whole Pre-LN stack. `branches` and `norms` are lists of equal
# length; branch k reads through `norms[k]`.
#
# Hint: Your `pre_ln` in a loop: `zip(branches, norms)`.
#
# Hint: Nobody has normalised the last sum. The head expects a stream of variance 1.


# %% exercise="pre_ln_stack"
def pre_ln_stack(x, branches, norms, final_norm):
    """All sub-layers and the final norm: (B, T, d)."""
    ### BEGIN SOLUTION
    for f, norm in zip(branches, norms, strict=True):
        x = pre_ln(x, f, norm)
    return final_norm(x)
    ### END SOLUTION


# %%
check.pre_ln_stack(pre_ln_stack)

# %%
pre_ln_stack = kit.mine_or_reference(pre_ln_stack, "pre_ln_stack")
with torch.no_grad():
    model = built(wide("pre_ln"), SEED)
    parts = model.sublayers()
    x = torch.randn(2, T, 128, generator=generator).to(device)
    norms = [part.residual.norm for part in parts]
    mine = pre_ln_stack(x, [part.branch for part in parts], norms, parts[-1].residual.final_norm)
    theirs = model.stacks()["encoder"](x)
verdict("equal to the library's stack of 24 layers:", torch.allclose(mine, theirs, atol=1e-4))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card and True.
# </details>
#
# **Why it works.** Every sub-layer normalises what it *reads*, and nothing what the stack *hands on*. Without the final
# norm the head gets a stream whose size grows with depth: here logits about √30 times too large at 24 layers, and
# confident nonsense at the first step. No test of a single layer finds it.

# %% [markdown] exercise="pre_ln_share" difficulty=2 importance=3 minutes=5
# ### How much a late layer counts (optional)
#
# **Objective**: put a number on Pre-LN's price.
#
# A Pre-LN stream starts with variance 1, and each layer adds `c`. Write `pre_ln_share(layer, c)`: the part of the
# variance after this layer, counted from 1, that the layer itself has added.
#
# Hint: How large is the variance after layer l?
#
# Hint: It is $1 + c\,l$, and of it layer l has added c.


# %% exercise="pre_ln_share"
def pre_ln_share(layer, c):
    """Part of the stream's variance that this layer added: one number."""
    ### BEGIN SOLUTION
    return c / (1 + c * layer)
    ### END SOLUTION


# %%
check.pre_ln_share(pre_ln_share)

# %%
pre_ln_share = kit.mine_or_reference(pre_ln_share, "pre_ln_share")
for n in (1, 12, 100, 1000):
    print(f"layer {n:5,} adds {pre_ln_share(n, 1.0):.1%} of the stream")
variance = measured["pre_ln"][3][::2]
added = (variance[-1] - variance[-9]) / 8  # a layer, over the last eight
verdict("measured over the last 8 of 24 layers: between 2% and 8% a layer:", 0.02 < added / variance[-1] < 0.08)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Half for the first layer with c = 1, a tenth of a per cent for the thousandth.
# </details>
#
# **Why it works.** The layer's share when it is written is about $1/l$. At the top of 100 layers all have the same share, 1%.
# What falls is how much a layer changes what it finds: the first changes it by half, the hundredth by 1%. In *training*
# branches may learn to shout louder, and so make up for some of it; lesson 18 has rules that do something about it.
#
# ## In three sentences
#
# 1. In a deep Post-LN stack all tokens are alike before training, and the part of the gradient that could make them different
#    is carried down to less than a hundredth; no recipe that we tried trained it.
# 2. One gradient norm by layer does not show it, because what all tokens share does not decay.
# 3. Pre-LN keeps the private part alive, and pays: its stream grows, so late layers count less and less.
#
# And yet something does not fit. At 6 layers Post-LN's tokens still differ and its private gradient reaches the bottom,
# as you measured. Without warm-up it died all the same, at learning rate 0.01 (at
# 0.001 and 0.003 it trained). Small first steps saved it. The paper (Section 3) has a Post-LN
# variant whose gradient at the top is even larger, and it trains. **If not the gradient, what explodes?**
#
# **Read next**: Xiong et al. (arXiv 2002.04745), Sections 3.2 and 3.3; the paper's Section 3. Then lesson 05.
