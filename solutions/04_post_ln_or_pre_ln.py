# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: Why did everyone move the norm?
#     opening: >-
#       The first Transformer normalised the sum of skip and branch. GPT-2 (2019) moved the norm into the branch, and
#       most large language models since then have done the same. The usual reason is a plot of gradients by layer. This
#       lesson draws that plot, shows what it does not see, replaces it by one that does, and tests what that one says.
#     objectives: >-
#       tell three rules apart, measure whether a stack's tokens are still different, split a gradient into what tokens
#       share and what is private, derive what attention does to each part, and say what Pre-LN costs.
#     prerequisites: lessons 01 to 03. You need that variances add, that a norm divides gradients, and what an average of tokens keeps.
#     minutes: 60
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
import torch

# %%
from matplotlib.figure import Figure
from torch.nn import LayerNorm

from deepnet_edu import ModelConfig, TrainConfig, build_model, predict, probe, train
from deepnet_edu.checks import check
from deepnet_edu.data import PreviousToken
from deepnet_edu.figures import Picture, residual_blocks
from deepnet_edu.figures.style import legend_below, line_style, new_figure
from deepnet_edu.model import random_batch

device = kit.setup(SEED, PROFILE)
TITLES = {"post_ln": "Post-LN", "pre_ln": "Pre-LN"}

# %% [markdown]
# ## Two places for one norm

# %%
Picture(
    residual_blocks(["post_ln", "pre_ln"]),
    alt="Two blocks side by side. Post-LN: the stream and the branch are added, then normalised, so the norm is on the "
    "path of the stream. Pre-LN: the norm is inside the branch, and the stream passes from bottom to top untouched.",
)

# %% [markdown]
# In Post-LN the [stream](glossary.md) itself goes through every norm. In Pre-LN it goes through none: it has a free path
# from the bottom to the top, and each [branch](glossary.md) reads a normalised copy of it. That is all that was moved.
# Post-LN in code:


# %%
def post_ln(x, f, norm):
    """The stream after one Post-LN sub-layer, LN(x + F(x)): (B, T, d)."""
    return norm(x + f(x))


# %% [markdown] exercise="pre_ln" difficulty=1 importance=5 minutes=4
# ### Pre-LN
#
# **Objective**: know what the branch reads, and what the skip carries.
#
# Write `pre_ln(x, f, norm)`: the stream after one Pre-LN sub-layer. `x` has shape (B, T, d); `f` and `norm` are functions
# of such a tensor.
#
# Hint: In the right-hand block, follow the stream from bottom to top. What does it meet?
#
# Hint: The stream meets one sum. What is added to it there has met the norm and the branch, in this order.


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
print("a branch of zeros, largest change of the stream:", (after - x).abs().max().item())

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A card with a green bar. The most frequent wrong answer is `x = norm(x)` followed by `x + f(x)`: then the norm is on
# the skip after all, and nothing was moved.
# </details>
#
# **Why it works.** The branch's input always has variance 1, so the branch adds about the same at each depth. The skip
# keeps what is there. In Post-LN the norm on the sum keeps the stream at variance 1 at all depths (lesson 01). So the two
# rules differ in what they hold still: Pre-LN the skip, Post-LN the size.

# %% [markdown] exercise="rule_of" difficulty=3 importance=4 minutes=8
# ### Which rule is it?
#
# **Objective**: tell three published rules apart without reading their code.
#
# A third rule, used by some recent models, is $x + \mathrm{LN}(F(x))$. Write `rule_of(sublayer)`. You get a function
# `sublayer(x, f, norm)` that follows one of the three rules, and you may only call it, with an `x`, an `f` and a `norm` of
# your own choice: any functions of a tensor will do, they need not be a real branch or a real norm. Return `"post_ln"`,
# `"pre_ln"` or `"norm_on_branch"`.
#
# Hint: A branch of zeros gives Post-LN away. Why does it not tell the other two apart?
#
# Hint: A "norm" need not normalise. What do the three rules return if it forgets its input?


# %% exercise="rule_of"
def rule_of(sublayer):
    """Which of three rules sublayer(x, f, norm) follows: "post_ln", "pre_ln" or "norm_on_branch"."""
    ### BEGIN SOLUTION
    y = sublayer(torch.full((1, 1, 4), 2.0), torch.ones_like, torch.zeros_like).mean().item()
    return {0.0: "post_ln", 3.0: "pre_ln", 2.0: "norm_on_branch"}[y]
    ### END SOLUTION


# %%
check.rule_of(rule_of)

# %%
rule_of = kit.mine_or_reference(rule_of, "rule_of")
print("the library's rules, asked:", rule_of(post_ln), "and", rule_of(pre_ln))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card, and `post_ln and pre_ln`. One call is enough: with a norm that returns 0 and a branch that returns 1, the
# rules give 0, $x + 1$ and $x$.
# </details>
#
# **Why it works.** The norm's place decides what it can erase: everything (Post-LN), what the branch reads
# (Pre-LN), or what the branch adds. A test of a sub-layer that uses an ordinary norm and a small branch can miss all of it.
#
# ## Train both
#
# The task is to name the *previous* token of a random sequence. Without attention no model can do better than
# $\ln 16 = 2.77$. As in lesson 00 only the stack is trained; embedding and head stay as they were drawn.
#
# *The recipe*: Xavier-normal weights for each projection, zero biases, width 32, AdamW without weight decay, gradient
# clipped to norm 1, 50 steps. Every rule gets every learning rate, with and without 20 steps of
# [warm-up](glossary.md).

# %%
guess = kit.Guess(
    "24 layers of Post-LN, learning rates 0.001, 0.003 and 0.01, with and without warm-up: 6 recipes. How many learn?",
    ["all 6", "the 3 with warm-up", "the 2 with the smallest rate", "none of the 6"],
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
    figure, axes = new_figure(2, width=7.4, height=4)
    for ax, layers in zip(axes, depths, strict=True):
        ax.axhline(task.chance, color="black", linewidth=0.8)
        ax.text(5.5e-4, task.chance - 0.2, "ln 16: a uniform guess", fontsize=9)
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
        ax.set(xscale="log", xlim=(5e-4, 2e-2), ylim=(-0.12, 3.2), xlabel="learning rate (marks side by side)")
        ax.set_title(f"{layers} layers")
        ax.set_ylabel("loss at the end (nats per token)")
    legend_below(figure, axes[0], columns=2)
    return figure


picture = kit.LivePicture(
    draw_ends,
    alt="Loss at the end against learning rate, one mark per seed. Left, 6 layers: both rules learn, but Post-LN at "
    "learning rate 0.01 without warm-up stays at ln 16. Right, 24 layers: every Post-LN mark is on ln 16, every "
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


print("loss at the end, every run")
kit.finding(f"  {DEPTH} layers, Post-LN, all recipes", losses("post_ln", DEPTH), above=task.chance - 0.15)
kit.finding(f"  {DEPTH} layers, Pre-LN, rate 0.01", losses("pre_ln", DEPTH, 1e-2), below=1)
kit.finding("  6 layers, Post-LN, rate 0.01, with warm-up", losses("post_ln", 6, 1e-2, 20), below=1)
kit.finding("  6 layers, Post-LN, rate 0.01, without warm-up", losses("post_ln", 6, 1e-2, 0), above=2.6)
if (DEPTH, STEPS) != (24, 50):
    print(
        f"The text of this lesson is about 24 layers and 50 steps. With {DEPTH} and {STEPS} the findings say what holds."
    )

# %% tags=["nbval-ignore-output"]
kit.record(**{f"{rule}_{n}": losses(rule, n) for rule in TITLES for n in depths})

# %%
guess.compare("none of the 6")

# %% [markdown]
# So this is what people saw. A shallow Post-LN stack trains, but at the largest learning rate only with warm-up. A deep
# one does not train at all *under this recipe*: three learning rates, two warm-ups, three seeds, 50 steps. Pre-LN trains
# at both depths, without warm-up too. So people moved the norm. But *why* does it help?
#
# ## What the tokens have become
#
# Start with what can be seen before any training. Lesson 00 had an instrument for it. Now you build it.

# %% [markdown] exercise="token_similarity" difficulty=2 importance=5 minutes=10
# ### Token similarity
#
# **Objective**: see a stack collapse before it is trained.
#
# Write `token_similarity(x)` for `x` of shape (B, T, d): the mean cosine between *different* tokens of the *same*
# sequence, one number. The cosine of two vectors is their dot product after both were brought to length 1.
#
# Hint: Once all tokens have length 1, one matrix product per sequence holds the cosines of all pairs, (B, T, T). Which
# dimension has to be summed for a token's length?
#
# Hint: Which pairs in that matrix do not belong to two different tokens, what is the cosine of each, and how many are left?


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
# A green card. For independent random tokens the similarity is near 0, for equal ones it is exactly 1.
# </details>
#
# **Why it works.** Where all tokens point the same way, no head can give them different outputs. The best guess is then
# the same for all of them, and its loss is $\ln 16$: the line on which every deep Post-LN run ended.
#
# ## The usual plot
#
# Now the plot that is usually shown: the length of the loss gradient in the weights of each layer, before training.
# Commit first.

# %%
guess_ratio = kit.Guess(
    "First-layer gradient over last-layer gradient, in the untrained stacks of 24 layers. Which rule is nearer to 1?",
    ["Post-LN", "Pre-LN", "both are equally near"],
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

figure, (left, right) = new_figure(2, width=7.4, height=3.8)
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
print("before training, mean of three seeds")
kit.finding("  gradient, first layer over last: Post-LN", ratio["post_ln"], above=0.5, below=2)
kit.finding("  gradient, first layer over last: Pre-LN", ratio["pre_ln"], above=2)
kit.finding("  token similarity at the top: Post-LN", similarities["post_ln"][-1], above=0.99)

# %% tags=["nbval-ignore-output"]
kit.record(**{f"first_over_last_{rule}": value for rule, value in ratio.items()})

# %%
guess_ratio.compare("Post-LN")

# %% [markdown]
# Read it twice. **By the usual plot the dead stack is the healthier one.** Its first gradient is as long as its last;
# Pre-LN's is almost four times as long. The right panel says what is wrong, and the left one does not see it. The plot is
# not false. But a weight's gradient is a sum over tokens, and in that sum two things are added that must be told
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
kit.finding("squares of both parts, over that of the whole", share + private_length**2 / total, near=1, by=1e-3)
kit.finding("independent gradients: shared part of the square, times T", 32 * share, near=1, by=0.05)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card, 1, and very nearly 1.
# </details>
#
# **Why it works.** The private parts sum to 0, so they are at right angles to what is shared: Pythagoras again, squares
# add. The second line is the variance of a mean of T independent things, 1/T. Keep it in mind: even gradients that have
# nothing to do with each other share a little.
#
# ## What attention sends back
#
# Take one Post-LN attention sub-layer and follow a gradient through it. Four assumptions: each token weighs all T
# tokens equally (*uniform* attention); value and output projection together are a random matrix $W$ of gain 1, which
# leaves variances as they are; tokens have variance 1 and correlation $r$ with each other; $d$ is large.
#
# **Up.** Every token gets the same branch, $W\bar x$ with the mean token $\bar x = \frac1T\sum_t x_t$. Its variance (a
# number, call it $f$; not the function of exercise 4.1) is that of a mean of T correlated things. Of the $T^2$ pairs in
# $\bar x^2$, $T$ pair a token with itself (covariance 1) and $T(T-1)$ pair different tokens (covariance $r$):
#
# $$f = \frac{T + T(T-1)\,r}{T^2} = r + \frac{1-r}{T} .$$
#
# The branch is independent of the stream, so the sum has variance $1 + f$, and the norm divides by $\sqrt{1+f}$.
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
# Where tokens are equal, $f = 1$. On the way up attention adds as much as the skip. On the way down it gives the private part
# nothing. So **each attention sub-layer shrinks the private part by $1/\sqrt2$**. (The feed-forward sub-layer, below, adds no
# further loss.) The shared part keeps its length.

# %% [markdown] exercise="attention_gradient_factor" difficulty=3 importance=5 minutes=15
# ### The factor of attention
#
# **Objective**: say what a Post-LN attention sub-layer does to a gradient's length, and why it depends on the tokens.
#
# Write `attention_gradient_factor(T, r, shared=False)`: the length of a gradient below the sub-layer over its length
# above, under the four assumptions. With `shared=True` the gradient is equal for all tokens. With `shared=False` it is
# independent from token to token.
#
# Hint: Work with squares and take the root at the end. Which part of a gradient's square does the branch give back?
#
# Hint: How large is that part if the gradient is equal for all tokens, and how large if it is independent from token to token?
# You have just measured the second.


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
# are equal but their gradients are not, the branch takes half of the sum's room and pays nothing back.
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
    for shared, kind in ((False, "independent"), (True, "shared")):
        theory, found = attention_gradient_factor(32, r, shared), measured_factor(32, r, shared)
        close = abs(found / theory - 1) < 0.06
        kit.finding(
            f"r = {r:.1f}, {kind} gradient: theory {theory:.3f}, measured", found, says="within 6%", holds=close
        )

# %% [markdown]
# ## The whole stack
#
# Two sub-layers make a layer. A feed-forward sub-layer of Post-LN does not change a gradient's length: what its norm takes
# away, its branch sends back. But where tokens differ, it turns some shared gradient into private, because each token has
# its own pattern of open ReLUs. Pre-LN has the same branches and no norm on the sum, so nothing is divided there. The next
# cell puts these sub-layers together into a theory of the whole stack. Take its lines as given for now. The room "The
# theory's lines" at the end derives them in four formulas.

# %% tags=["hide-input"]
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
            common, back = 1 - np.arccos(min(r[i], 1)) / np.pi, s if post else s / v[i]
            norm = 1 + s if post else 1
            one = shared[-1] + private[-1]  # mean square of one token's gradient
            two = (T * shared[-1] - one) / (T - 1)  # mean product of two tokens' gradients
            one, two = one * (1 + back) / norm, two * (1 + back * common) / norm
            shared.append((one + (T - 1) * two) / T)
            private.append(one - shared[-1])
    return np.sqrt(shared[::-1]), np.sqrt(private[::-1])


# %% [markdown]
# Now a real stack: the library's encoder, in which each token sees all others, of 24 layers, width 128, 4 heads, ReLU,
# Xavier-normal weights and zero biases. `post_ln` and your `pre_ln` run its branches. Random tokens go in at the bottom, an
# independent random gradient of length 1 arrives at the top, and autograd carries it down. (This is not the stack that was
# trained above: that one is a decoder of width 32, which reads 8 tokens. Its tokens are equal at the top, too: similarity
# above 0.99.)


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


def measure(config, uniform=False, only=None, seeds=SEEDS):
    """Lengths of the shared and the private part, token similarity and variance, at the input and after each sub-layer;
    mean over the seeds. ``only``: of the gradient at the top send the shared part (0) or the private one (1) alone."""
    rows = []
    for seed in seeds:
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

# %% tags=["headline", "hide-input"]
figure = Figure(figsize=(7.4, 6.4))
grid = figure.subplots(2, 2)
at = np.arange(2 * DEPTH + 1) / 2
panels = {
    "Part that all tokens share": grid[0, 1],
    "Private part of the gradient": grid[0, 0],
    "Are tokens equal?": grid[1, 0],
}
for n, (title, ax) in enumerate(panels.items()):
    for rule, name in TITLES.items():
        style = line_style(rule)
        ax.plot(at, expected[rule][n], label=f"{name}, theory", **style)
        dots = {"color": style["color"], "alpha": 0.6, "markersize": 4}
        ax.plot(at[::2], measured[rule][n][::2], "o", label=f"{name}, measured", **dots)
    ax.set(xlabel="layer", xlim=(0, DEPTH))
    ax.set_title(title, fontsize=11)
for ax in grid[0]:
    ax.set(yscale="log", ylim=(0.006, 6))
grid[0, 0].set_ylabel("length (1: at the top)")
grid[1, 0].set(ylim=(0, 1.05), ylabel="cosine between tokens")
arrow = {"fontsize": 9, "arrowprops": {"arrowstyle": "->"}}
rows = measured["post_ln"][1]
grid[0, 0].annotate("÷ √2 a layer", (0.8 * DEPTH, rows[round(1.6 * DEPTH)]), (0.66 * DEPTH, 0.012), **arrow)
grid[0, 0].annotate(
    "made of the\nshared part", (0.17 * DEPTH, rows[round(0.34 * DEPTH)]), (0.03 * DEPTH, 0.008), **arrow
)
grid[1, 1].axis("off")
handles, labels = grid[0, 0].get_legend_handles_labels()
grid[1, 1].legend(handles, labels, loc="center", frameon=False, fontsize=10)
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
# How far theory is off, at each depth: a factor, 1 is exact.
off = {rule: np.exp(np.abs(np.log(private[rule] / expected[rule][1]))) for rule in TITLES}
third = 4 * DEPTH // 3  # where the upper third begins, in sub-layers
below_top = max(0, 2 * DEPTH - 8)  # four layers below the top
print("length, over that of what arrived at the top")
kit.finding(
    "  Post-LN, private, 4 layers below the top",
    private["post_ln"][below_top] / private["post_ln"][-1],
    near=0.25,
    by=0.05,
)
kit.finding("  Post-LN, private, where it is shortest", private["post_ln"].min() / private["post_ln"][-1], below=1 / 30)
kit.finding("  Post-LN, shared, where it is shortest", shared_part.min() / shared_part[-1], above=0.8)
kit.finding("  Pre-LN, private, where it is shortest", private["pre_ln"].min() / private["pre_ln"][-1], above=0.9)
six = measure(wide("post_ln", layers=6))
kit.finding("  Post-LN of 6 layers, private, where it is shortest", six[1].min() / six[1][-1], above=0.2)
print("how far theory is off")
similar = {TITLES[rule]: np.abs(measured[rule][2] - expected[rule][2]).max() for rule in TITLES}
kit.finding("  token similarity, largest difference", similar, below=0.05)
kit.finding("  private part of Pre-LN, by a factor of at most", off["pre_ln"].max(), below=1.35)
kit.finding("  private part of Post-LN, upper third", off["post_ln"][third:].max(), below=1.25)
kit.finding("  private part of Post-LN, all depths", off["post_ln"].max(), above=2)
from_shared, from_private = (measure(wide("post_ln"), only=part) for part in (0, 1))
print("send one part alone in at the top of Post-LN; private length at the bottom")
kit.finding("  from the private part, over what was sent", from_private[1][0] / from_private[1][-1], below=0.01)
kit.finding(
    "  from the shared part, over the curve's left end", from_shared[1][0] / private["post_ln"][0], near=1, by=0.1
)

# %% tags=["nbval-ignore-output"]
kit.record(private_post_ln=private["post_ln"][::4], private_pre_ln=private["pre_ln"][::4])

# %% [markdown]
# This is the picture to remember. Gradients travel from right to left in it. Follow the orange curve of the first panel.
#
# **Upper half.** All tokens are equal, so attention halves the square of the private part at every layer: a straight
# line. It ends near layer 10, where little is left.
#
# **Lower half.** Tokens still differ there, so ReLUs turn shared gradient into private: the curve climbs again. But this
# private part is made of the *shared* one above, as the last two lines say: send the private part alone in at the top, and
# less than a hundredth of its length reaches the bottom. What the loss said about a single token is lost on the way. Would
# Adam not repair a short gradient? It rescales each weight's *whole* gradient. It cannot bring back a private part that has
# been drowned out by the shared one.
#
# **The whole.** First over last looks healthy, because the shared part carries it. One gradient norm by layer must never
# be the verdict.
#
# Pre-LN, in blue, loses nothing on the way. Its private part even grows a little towards the bottom. (In the lower half
# theory is too low for Post-LN, by a factor of four and more. The room "Where theory departs" looks for the reason.)
#
# ## Is it the cause?
#
# "Post-LN dies because attention drowns the private part" is so far a story about two curves. If it is true, weaker
# attention must help, and a weaker feed-forward branch must not. So take the dead stack of the first section, 24 layers at
# rate 0.003 with warm-up, and multiply by ½ the two matrices of every branch of one kind: value and output of attention, or
# both matrices of feed-forward.

# %%
guess_halved = kit.Guess(
    "24 layers of Post-LN that do not train. The two matrices of which branches must be halved so that they do?",
    ["those of attention", "those of feed-forward", "those of either kind", "halving is not enough"],
)
guess_halved

# %%
KINDS = {"none": (), "attention": ("value", "output"), "feed-forward": ("ffn_in", "ffn_out")}
halved = {}  # by kind: loss at the end, and token similarity at the top before training, by seed
for kind, roles in KINDS.items():
    found = []
    for seed in seeds:
        model = build_model(small("post_ln", DEPTH), seed=seed).to(device)
        with torch.no_grad():
            for sublayer in model.sublayers():
                weights = sublayer.branch.weights()
                for role in weights.keys() & set(roles):
                    weights[role].mul_(0.5)
        batch = task.batch(torch.Generator().manual_seed(seed)).to(device)
        alike = probe(model, batch).token_similarity[-1]
        recipe = TrainConfig(steps=STEPS, learning_rate=3e-3, warmup=20, parameters="stack", seed=seed)
        found.append((train(model, task, recipe, progress=False).final_loss(), alike))
    halved[kind] = np.array(found).T

print("halved: token similarity before training, and loss at the end")
kit.finding("  attention, similarity", halved["attention"][1], below=0.9)
kit.finding("  attention, loss", halved["attention"][0], below=2.4)
kit.finding("  feed-forward, similarity", halved["feed-forward"][1], above=0.95)
kit.finding("  feed-forward, loss", halved["feed-forward"][0], above=2.6)
kit.finding("  neither, loss", halved["none"][0], above=2.6)

# %%
guess_halved.compare("those of attention")

# %% [markdown]
# One kind of branch matters, and it is the one that the derivation names. So this is *one* thing that moving the norm does:
# attention's share of the sum no longer shrinks the private part of what comes back. (One rate, one task, 50 steps. And
# half-strength attention is not a cure: the loss is still far above Pre-LN's.)
#
# ## What Pre-LN costs
#
# Nothing is free. Pre-LN's stream grows: each branch adds about the same, and no norm takes it back. Measure it in the
# setting of Xiong et al. (arXiv 2002.04745), where it can be bounded: square matrices with variance $1/d$, queries and keys
# of 0. A feed-forward branch then adds ½; attention adds almost nothing while tokens are independent, and 1 when they are
# equal. So a layer adds between ½ and 3/2.

# %%
square = {rule: wide(rule, d_ff=128, heads=1) for rule in TITLES}  # Xavier's 2/(d + d) is 1/d
layer = np.arange(DEPTH + 1)
stream = measure(square["pre_ln"], uniform=True, seeds=range(SEED, SEED + 8))[3][::2]

# %% tags=["hide-input"]
figure, (ax,) = new_figure(1, width=7.4, height=4)
ax.plot(layer, 1 + 1.5 * layer, color="#555555", linestyle="--", label="upper bound 1 + 3l/2: all tokens equal")
theory = np.append(1.0, predict(square["pre_ln"], tokens=T).variance[1::2])
ax.plot(layer, theory, label="Pre-LN, theory", **line_style("pre_ln"))
ax.plot(layer, stream, "o", color=line_style("pre_ln")["color"], alpha=0.6, label="Pre-LN, measured, mean of 8 seeds")
ax.plot(layer, 1 + 0.5 * layer, color="#555555", linestyle=":", label="lower bound 1 + l/2: independent tokens")
ax.set(xlabel="layer", ylabel="variance of the stream")
legend_below(figure, ax, columns=2)
Picture(
    figure,
    alt="Variance of the Pre-LN stream by layer, mean of eight seeds. Two straight lines are the bounds of Xiong et al.; measured "
    "points start along the lower one, bend upwards as tokens become more similar, stay between the bounds and near the theory "
    "line, and end at about 30 after 24 layers.",
)

# %%
added = np.diff(stream)
kit.finding("a layer adds: the first, the last", [added[0], added[-1]], above=0.3, below=2.5)
kit.finding("at the end, over theory", stream[-1] / theory[-1], near=1, by=0.25)
kit.finding(
    "part of the stream that a layer has just added: the first", added[0] / stream[1], above=0.2, below=0.5, form=".0%"
)
kit.finding("                                                the last", added[-1] / stream[-1], below=0.12, form=".1%")

# %% [markdown]
# The stream grows by a half at the bottom and by about 1.5 a layer at the top, while a branch stays as large as it is. So
# each layer is a smaller part of what is there: the first a third of it, the last about a twentieth. A late layer changes
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
# At 6-6, the one size at which Post-LN trains, it is 1.1 ahead of Pre-LN, and 0.3 ahead of DeepNorm. The paper's text says
# that Pre-LN falls 0.5 to 1.0 BLEU short of a Post-LN that converged. Pre-LN also gets worse from 18 to 100 layers. The
# paper's own explanation (Section 5) is that Pre-LN's gradients are larger in its first layers than in its last, which is
# what the usual plot showed above; late layers that hardly count are another. (Single runs: small differences mean
# nothing.) So moving the norm was a trade: trainability for some quality.
#
# ## In three sentences
#
# 1. In a deep Post-LN stack all tokens are equal before training, and the part of the gradient that could make them different
#    is carried down to less than a hundredth; no recipe that we tried trained it, and halving attention's matrices did.
# 2. One gradient norm by layer does not show it, because what all tokens share does not decay.
# 3. Pre-LN keeps the private part alive, and pays: its stream grows, so late layers count less and less.
#
# And yet something does not fit. At 6 layers Post-LN's tokens still differ and its private gradient reaches the bottom,
# as you measured. Without warm-up it died all the same at learning rate 0.01. The paper (Section 3) has a Post-LN
# variant whose gradient at the top is even larger, and it trains. **If not the gradient, what explodes?**
#
# **Read next**: Xiong et al. (arXiv 2002.04745), Sections 3.2 and 3.3; the paper's Section 3. Then lesson 05. The rooms below
# are for those who want more: the theory's lines, where theory departs, the predictions of 2020, and two exercises.

# %% [markdown] tags=["room"]
# ## Further room: the theory's lines

# %% [markdown]
# Up through a feed-forward sub-layer: the branch works on each token alone, with a ReLU between two matrices, and adds a
# variance $s = 2\,d\,d_{\mathrm{ff}}/(d + d_{\mathrm{ff}})^2$ (lesson 03), which is 0.32 for $d_{\mathrm{ff}} = 4d$. On the
# way down a gradient meets the same two matrices, and the ReLU again lets half of the square through: $s$ comes back.
#
# Each token has its own pattern of open ReLUs. Two tokens of correlation $r$ have a ReLU open together with probability
# $\frac12 - \frac{\arccos r}{2\pi}$, where one of them alone has it open with $\frac12$. So of $s$ only the share
# $c = 1 - \arccos(r)/\pi$ comes back equal in both.
#
# Write $\bar g^2$ and $p^2$ for the squares of the lengths of both parts, $a = \bar g^2 + p^2$ for the mean square of one
# token's gradient, and $b$ for the mean product of two different tokens' gradients. Of the $T^2$ pairs of tokens $T$ have
# $a$ and the others $b$, so $\bar g^2 = (a + (T-1)\,b)/T$. Then, in Post-LN,
#
# $$\text{attention:}\quad \bar g^2 \to \frac{2}{1+f}\,\bar g^2 , \qquad p^2 \to \frac{1}{1+f}\,p^2 ;$$
#
# $$\text{feed-forward:}\quad a \to \frac{1+s}{1+s}\,a = a , \qquad b \to \frac{1+s\,c}{1+s}\,b .$$
#
# In Pre-LN no norm is on the sum, and the one in the branch divides what comes back by $v$, the variance of the stream:
#
# $$\text{attention:}\quad \bar g^2 \to \Big(1 + \frac1v\Big)\,\bar g^2 , \qquad p^2 \to p^2 ;$$
#
# $$\text{feed-forward:}\quad a \to \Big(1 + \frac sv\Big)\,a , \qquad b \to \Big(1 + \frac{s\,c}v\Big)\,b .$$
#
# These are the lines of `theory_of_parts` above; $r$ and $v$ by depth come from the library's `predict`.

# %% [markdown] tags=["room"]
# ## Further room: where theory departs

# %% [markdown]
# In the lower half the measured private part of Post-LN is up to four and a half times as long as in theory. The suspect is
# an assumption: uniform attention. As long as tokens differ, fresh queries and keys give unequal scores, and attention is a
# little selective. Then what comes back is no longer the mean of the gradients alone, and some of it can be private. The
# test: set queries and keys to zero in the *same* stacks.

# %%
flat = measure(wide("post_ln"), uniform=True)
apart = np.exp(np.abs(np.log(flat[1] / expected["post_ln"][1])).max())
kit.finding("largest factor between measurement and theory, as drawn", off["post_ln"].max(), above=2)
kit.finding("                                               with queries and keys of 0", apart, below=1.6)

# %% [markdown]
# That was most of it. The rest is three seeds, and tokens that are not quite as theory has them. And a decoder? With a
# causal mask early tokens are read by many and late ones by few. The sums are uneven, and the idea is the same: the
# library's `deepnet_edu.theory.attention_backward` has both cases.

# %% [markdown] tags=["room"]
# ## Further room: the predictions of 2020

# %% [markdown]
# Xiong et al. (arXiv 2002.04745) gave the reason that is usually quoted. Their theory assumes: weights
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
# equal. Together a layer of Pre-LN adds between 1/2 and 3/2: the bounds of the picture above.

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
ground = measure(square["post_ln"], uniform=True)
bottom = np.hypot(ground[0][0], ground[1][0])
found = [
    probe(built(square["post_ln"], seed, uniform=True), random_batch(square["post_ln"], 4, T, seed).to(device))
    for seed in SEEDS
]
by_role = [profile.gradient_by_role["ffn_out"][1::2] for profile in found]  # of the feed-forward sub-layers
by_weight = float(np.mean([values[0] / values[-1] for values in by_role]))  # first layer over last

kit.finding("1. variance of Post-LN's feed-forward sums, mean", np.mean(sums), near=1.5, by=0.08)
inside = ((low < stream[1:]) & (stream[1:] < high)).all()
kit.finding("   Pre-LN's stream at the end", stream[-1], says="between the bounds at all layers", holds=inside)
kit.finding("2. last gradient from 4 to 16 layers, power of depth: Post-LN", slopes["post_ln"], near=0, by=0.15)
kit.finding("                                                      Pre-LN", slopes["pre_ln"], near=-0.5, by=0.15)
print(f"3. Post-LN's factor from layer {DEPTH} down to the bottom, predicted: {(2 / 3) ** (DEPTH / 2):.3f}")
kit.finding("   measured, the weights' gradient, first layer over last", by_weight, above=0.1)
kit.finding("   measured, length of the stream's gradient", bottom, above=0.2)

# %% tags=["nbval-ignore-output"]
kit.record(
    slope_post_ln=slopes["post_ln"], slope_pre_ln=slopes["pre_ln"], gradient_at_the_bottom=bottom, by_weight=by_weight
)

# %% [markdown]
# Predictions 1 and 2 hold under their own assumptions. (Single layers scatter about 3/2: where all tokens are equal, a layer
# has one token's 128 features to average over.) From 2 the authors explained warm-up. At its top a deep Pre-LN stack has a
# small gradient, and Post-LN a large one at any depth, so large first steps are dangerous.
#
# Prediction 3 is about the gradient of a layer's *weights*; beside it we give the length of the stream's gradient, which is
# what the lesson is about. It fails for both, by a factor of more than thirty. Its factor, $\sqrt{2/3}$ a layer, is the
# feed-forward norm alone, $1/\sqrt{1 + 1/2}$. The feed-forward branch sends the other $\sqrt{3/2}$ back. What really
# shrinks a gradient is attention: the private part, only where tokens are equal, and then *faster*, by $\sqrt{1/2}$. The
# shared part does not shrink. (The factor is right for one path, that of the norms and skips. A gradient takes all paths.)

# %% [markdown] tags=["room"]
# ## Further room: two exercises

# %% [markdown] exercise="pre_ln_stack" difficulty=2 importance=4 minutes=6
# ### The last norm (optional)
#
# **Objective**: avoid the one mistake that all tests of single layers miss.
#
# Write `pre_ln_stack(x, branches, norms, final_norm)`: a whole Pre-LN stack. `branches` and `norms` are lists of equal
# length; branch k reads through `norms[k]`.
#
# Hint: You have a function for one sub-layer, and each branch goes with a norm of its own.
#
# Hint: After the last sub-layer, which norm has seen the last sum? The head expects a stream of variance 1.


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
kit.finding("largest difference from the library's stack", (mine - theirs).abs().max(), below=1e-3)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card, and a difference of about one in a million.
# </details>
#
# **Why it works.** Every sub-layer normalises what it *reads*, and nothing what the stack *hands on*. Without the final
# norm the head gets a stream whose size grows with depth: here logits about √30 times too large at 24 layers, and
# confident nonsense at the first step. A test of a single layer cannot find it.

# %% [markdown] exercise="pre_ln_share" difficulty=2 importance=3 minutes=5
# ### How much a late layer counts (optional)
#
# **Objective**: put a number on Pre-LN's price.
#
# A Pre-LN stream starts with variance 1, and each layer adds `c`. Write `pre_ln_share(layer, c)`: the part of the
# variance after this layer, counted from 1, that the layer itself has added.
#
# Hint: How large is the variance after the first layer, after the second, after layer l?
#
# Hint: A share is a part over the whole. The whole here is what is there after the layer, its own part included.


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
last = min(8, DEPTH)
added = (variance[-1] - variance[-1 - last]) / last  # a layer, over the last eight
kit.finding("measured, a layer's mean share over the last 8", added / variance[-1], above=0.02, below=0.08, form=".1%")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Half for the first layer with c = 1, a tenth of a per cent for the thousandth.
# </details>
#
# **Why it works.** The layer's share when it is written is about $1/l$. At the top of 100 layers all have the same share, 1%.
# What falls is how much a layer changes what it finds: the first changes it by half, the hundredth by 1%. In *training*
# branches may learn to shout louder, and so make up for some of it; lesson 18 has rules that do something about it.
