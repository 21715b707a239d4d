# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What does x + f(x) do to a signal, a thousand times?
#     opening: >-
#       In lesson 00 one line of code decided whether 1,000 layers live or die. This lesson takes that line apart with
#       nothing but variances. You need no model and no training: a pencil would do.
#     objectives: >-
#       predict the size of a signal at any depth, say how much of a stack's output is still its input, and explain why
#       a thousand copies of one layer are not a thousand layers.
#     prerequisites: lesson 00's first picture, and to know what a variance is.
#     minutes: 45
#     paper: Section 4.2, where the same sums become α and β.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
DEPTH = 0  # sub-layers of the simulations; 0: what the profile says

# %% tags=["imports"]
import warnings
from math import comb, sqrt

import numpy as np

# %%
import torch

from deepnet_edu import ModelConfig, build_model, deepnorm_constants, predict, probe
from deepnet_edu.checks import check
from deepnet_edu.data import TokenMap
from deepnet_edu.figures import Picture, theory_and_measurement
from deepnet_edu.profiles import Curve

device = kit.setup(SEED, PROFILE)
depth = DEPTH or (40 if PROFILE == "smoke" else 200)

# %% [markdown]
# ## Two signals meet
#
# A residual connection adds two signals: the [stream](glossary.md) $x$ and the
# [branch](glossary.md) $F$. The variance of a sum is
#
# $$\operatorname{Var}(x + F) = \operatorname{Var}(x) + \operatorname{Var}(F) + 2\operatorname{Cov}(x, F).$$
#
# The variance of a signal is meant over everything that is drawn at random: tokens, features and weights. In the code it
# is `x.var()`, over all tokens and features of one draw.
#
# A freshly drawn branch knows nothing of the stream: its weights are random, so its output points in a random direction.
# In a wide stream two random directions are nearly at right angles, the covariance is nearly 0, and **variances add**.
# That one sentence carries most of this course.
#
# ## A thousand meetings
#
# Let every branch see a *normalised* input (Pre-LN does that), so that each adds the same variance $f$, whatever the size
# of the stream. And let the skip be multiplied by $\alpha$, as DeepNorm does. One sub-layer is then
# $x \leftarrow \alpha x + F(\mathrm{LN}(x))$. What happens to the variance $v$?

# %% [markdown] exercise="variance_by_depth" difficulty=1 importance=5 minutes=8
# ### Variance by depth
#
# **Objective**: predict the size of a stream at any depth.
#
# Write `variance_by_depth(n, f, alpha, var0)`: the variance of the stream after 0, 1, …, n sub-layers
# $x \leftarrow \alpha x + F(\mathrm{LN}(x))$, for an input of variance `var0` and branches that each add an independent
# variance `f`. The answer is an array of n + 1 values: depth 0, the input itself, belongs to it.
#
# Hint: What does multiplying $x$ by $\alpha$ do to its variance?
#
# Hint: Start a list with `var0`. In each sub-layer both things happen to its last value: the skip's factor, and the
# branch.


# %% exercise="variance_by_depth"
def variance_by_depth(n, f, alpha=1.0, var0=1.0):
    """Variance of the stream after 0, 1, …, n sub-layers: (n + 1,)."""
    ### BEGIN SOLUTION
    v = [var0]
    for _ in range(n):
        v.append(alpha**2 * v[-1] + f)
    return np.array(v)
    ### END SOLUTION


# %%
check.variance_by_depth(variance_by_depth)

# %%
variance_by_depth = kit.mine_or_reference(variance_by_depth, "variance_by_depth")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A card with a green bar. `variance_by_depth(3, 0.5)` is `[1, 1.5, 2, 2.5]`: with α = 1 the variance grows by f at each
# sub-layer, a straight line.
# </details>
#
# **Why it works.** The skip is a copy of $x$, $\alpha$ times as long, so its variance is $\alpha^2 v$. The branch adds
# $f$, independent of it. With $\alpha = 1$ that is a straight line: Pre-LN's stream grows, but slowly. With $\alpha > 1$ it
# is a geometric series: $v$ grows like $\alpha^{2n}$.
#
# ## Predict, then measure
#
# Now the numbers in earnest. DeepNorm's $\alpha$ for 100 layers, 200 sub-layers, is $200^{1/4} = 3.76$. Suppose that a program
# scales the skip by it and forgets the norm on the sum.

# %%
guess = kit.Guess(
    "With α as in DeepNorm but no norm on the sum, the variance after 200 sub-layers is of the order of",
    ["10", "1,000", "10^23", "10^230"],
)
guess


# %% [markdown]
# The measurement is honest but small: a stream of 256 features, 64 tokens, and at each depth a freshly drawn random
# matrix on the normalised stream.

# %%
generator = torch.Generator().manual_seed(SEED)
WIDTH = 256


def fresh_matrix():
    """Entries of variance 1/WIDTH: what goes in with variance 1 comes out with variance 1."""
    return torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64) / sqrt(WIDTH)


def normalized(x):
    return torch.nn.functional.layer_norm(x, (WIDTH,))


def measured_variance(n, f, alpha):
    x = torch.randn(64, WIDTH, generator=generator, dtype=torch.float64)
    variances = [x.var().item()]
    for _ in range(n):
        x = alpha * x + sqrt(f) * normalized(x) @ fresh_matrix()
        variances.append(x.var().item())
    return np.array(variances)


alpha = deepnorm_constants(decoder_layers=100).decoder.alpha
seen = 30  # sub-layers of the last curve, which leaves the picture after five
curves = [
    Curve("α = 1, f = 1 (Pre-LN)", variance_by_depth(depth, 1.0), measured_variance(depth, 1.0, 1.0)),
    Curve("α = 1.02, f = 1", variance_by_depth(depth, 1.0, 1.02), measured_variance(depth, 1.0, 1.02)),
    Curve("DeepNorm's α, no norm", variance_by_depth(seen, 1.0, alpha), measured_variance(seen, 1.0, alpha)),
]

# %% tags=["headline"]
Picture(
    theory_and_measurement(curves, xlabel="sub-layer", ylabel="variance of the stream", log=True, most=1e6),
    alt="Variance of the stream by sub-layer on a logarithmic axis, theory as lines under measured points. With α = 1 it "
    "grows in proportion to depth, with α = 1.02 faster and faster, with DeepNorm's α and no norm on the sum the "
    "line is almost vertical and leaves the picture, cut at a million, after five sub-layers.",
)

# %%
for curve in curves:
    ratio = curve.measured / curve.theory
    kit.finding(
        f"{curve.label}: measured / theory, at the least and the most", [ratio.min(), ratio.max()], near=1, by=0.25
    )
digits = np.log10(curves[2].theory)
digits_each = digits[-1] - digits[-2]  # a straight line on the logarithmic axis: each sub-layer adds as many
print(f"DeepNorm's α, no norm: 10^{digits[-1] + (200 - seen) * digits_each:.0f} after 200 sub-layers")

# %%
guess.compare("10^230")

# %% [markdown]
# Read the axis of the picture first: it is logarithmic. Straight growth (α = 1) bends down on it; geometric growth becomes
# a straight line. Two hundredths above 1 are enough: at 200 sub-layers the variance for α = 1.02 is hundreds of times that
# for α = 1. With DeepNorm's α = 3.76 the curve leaves the picture after five sub-layers.
#
# The scaled skip without its norm is not invented. A widely used library (microsoft/torchscale at 4d1e0e8, the newest
# that we read) leaves its decoder Pre-LN when DeepNorm is asked for, and keeps α. In our measurement, at width 64, its
# output is not a number from 28 layers on. You will repair it in the bug museum, lesson 09. So **α needs the norm on the
# sum**. That raises a question: if a norm follows every sum, the variance is always 1. What is left to watch?
#
# ## What a norm hides
#
# The norm keeps the size, but not the *content*. After $x \leftarrow \mathrm{LN}(\alpha x + F)$ the stream has variance 1
# again, but only a part of it, the [input share](glossary.md), is the old $x$; the rest is the branch. After a thousand such
# steps, how much of the output is still the input?

# %% [markdown] exercise="input_share" difficulty=2 importance=5 minutes=8
# ### The share of the input
#
# **Objective**: say how much of a stack's output is still its input.
#
# Write `input_share(n, f, alpha)`: the part of the output's variance that is still the input's, after n sub-layers
# $x \leftarrow \mathrm{LN}(\alpha x + F)$ whose branches each have an independent variance `f`, for a stream of variance 1.
#
# Hint: One sub-layer first. Before its norm the variance is $\alpha^2 + f$. Which part of it is $x$?
#
# Hint: The norm scales both parts by the same factor, so it leaves their shares as they are. The next sub-layer keeps the same part of
# what is left.


# %% exercise="input_share"
def input_share(n, f, alpha):
    """Part of the variance that is still the input's: one number from 0 to 1."""
    ### BEGIN SOLUTION
    return (alpha**2 / (alpha**2 + f)) ** n
    ### END SOLUTION


# %%
check.input_share(input_share)

# %%
input_share = kit.mine_or_reference(input_share, "input_share")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# `input_share(1, 1, 1)` is 0.5: half of the sum is the input. `input_share(24, 1, 1)` is 0.00000006.
# </details>
#
# **Why it works.** Shares multiply, as interest does. Post-LN with $f = 1$ keeps half at each sub-layer: after 24 of them
# (12 layers) $6 \cdot 10^{-8}$ of the variance is left. DeepNorm draws the branch's weights with the [gain](glossary.md)
# $\beta = (8M)^{-1/4}$ ($M$ layers, lesson 00). A square matrix with gain β multiplies a variance by $\beta^2$, and a branch
# has two, so $f = \beta^4$. Guess first.

# %%
guess_share = kit.Guess(
    "DeepNorm grows from 12 to 1,000 layers. The share of the input in its output",
    ["falls by much", "falls a little", "stays the same", "rises"],
)
guess_share

# %%
for layers in (12, 100, 1000):
    constants = deepnorm_constants(decoder_layers=layers).decoder
    ours, post = input_share(2 * layers, constants.beta**4, constants.alpha), input_share(2 * layers, 1.0, 1.0)
    post = f"{post:.0e}" if post > 1e-30 else "less than 1e-30"
    print(f"{layers:5,} layers keep: DeepNorm {ours:.1%}, Post-LN {post}")

# %%
guess_share.compare("rises")

# %% [markdown]
# DeepNorm starts close to the identity, and *closer the deeper it is*. But a real branch is not one square matrix, and $f$
# depends on its shape: a feed-forward branch four times as wide passes less, and attention averages its tokens. So the
# next cell measures real Transformers of 12 layers, and draws `predict`, the library's theory with the shapes put in (the
# same recursion; its $f$ follows from width, heads and tokens, as lesson 03 explains). They read random tokens, those of
# lesson 00's table.

# %% tags=["slide"]
batch = TokenMap(vocab_size=64, length=32, batch_size=8).batch(torch.Generator().manual_seed(SEED))
shares = []


def decoder(residual, layers=12, tokens=32):
    shape = {"d_model": 128, "n_heads": 4, "d_ff": 512, "vocab_size": 64, "max_length": tokens}
    return ModelConfig("decoder", "lm", decoder_layers=layers, residual=residual, **shape)


for residual, title in (("post_ln", "Post-LN"), ("pre_ln", "Pre-LN"), ("deepnorm", "DeepNorm")):
    profile = probe(build_model(decoder(residual), seed=SEED).to(device), batch.to(device))
    with warnings.catch_warnings(action="ignore"):  # of its gradients, which are not drawn here
        theory = predict(decoder(residual), tokens=32)
    shares.append(Curve(title, np.append(1.0, theory.input_share), np.append(1.0, profile.input_share)))
Picture(
    theory_and_measurement(shares, xlabel="sub-layer", ylabel="share of the input in the stream"),
    alt="Share of the input by sub-layer in real 12-layer stacks, theory as lines under measured points. DeepNorm stays "
    "near 1, Pre-LN falls slowly to about a tenth, Post-LN falls fast to almost nothing. Some points are a little above "
    "their line.",
)

# %%
post, pre, deepnorm = (curve.measured[-1] for curve in shares)
kit.finding("share at the top, DeepNorm", deepnorm, above=0.98, form=".1%")
kit.finding("share at the top, Pre-LN", pre, above=0.05, below=0.2, form=".1%")
kit.finding("share at the top, Post-LN", post, below=0.01, form=".1%")
apart = {curve.label: np.abs(curve.theory - curve.measured).max() for curve in shares}
kit.finding("farthest that a point is from its line", apart, below=0.1, form=".3f")

# %% [markdown]
# Points of the first sub-layers tend to be a little *above* their line. Is that chance? Fresh attention weights are not
# even, and the theory takes the strength of an uneven average from many tokens (lesson 03); here are 32. If that is the
# reason, then the gap must be larger with fewer tokens, and gone with many:

# %%
for tokens in (8, 32, 128):
    config = decoder("post_ln", layers=1, tokens=tokens)
    found = []
    for seed in range(4):
        some = TokenMap(vocab_size=64, length=tokens, batch_size=256 // tokens)
        some = some.batch(torch.Generator().manual_seed(seed)).to(device)
        found.append(probe(build_model(config, seed=seed).to(device), some).input_share[0])
    line = predict(config, tokens=tokens).input_share[0]
    print(f"{tokens:3} tokens, first sub-layer: theory {line:.2f}, measured ≈ {np.mean(found):.2f} (mean of 4 draws)")

# %% tags=["nbval-ignore-output"]
kit.record(**{f"input_share_{c.label.lower().replace('-', '_')}": c.measured[-1] for c in shares})

# %% [markdown]
# It is: the fewer the tokens, the wider the gap, and at 128 there is none.
#
# The share is measured as a squared cosine, and two unrelated vectors of 128 features have 1/127 = 0.8% by chance. `probe`
# takes that away, so that a stream without anything of its input has a share of 0, give or take the noise of a batch: a
# point may even be a little below 0.
#
# The measured 12-layer DeepNorm keeps more than the 95% of the square-matrix formula. The formula was not wrong; its
# branch was a different one. Lesson 03 puts the shapes in.
#
# ## A thousand copies of one layer
#
# Everything so far rests on one assumption: **each branch is drawn afresh**. Programmers like to build one layer and
# copy it (`copy.deepcopy`). Take the simplest branch, without a norm: $\varepsilon A x$, where $A$ is a square matrix of
# random entries of variance 1/width, and ε, a small number, is the strength of the branch. With clones all branches are the
# same $A$, and the stream after n steps is $(I + \varepsilon A)^n x$. Multiply that out: the power $A^k x$ appears in
# $\binom{n}{k}$ ways. In a wide stream each multiplication by $A$ keeps the length and gives a new random
# direction, so $x, Ax, A^2x, …$ are nearly at right angles and of equal length.

# %% [markdown] exercise="cloned_growth" difficulty=3 importance=4 minutes=15
# ### Cloned layers
#
# **Objective**: show what goes wrong when layers are copies.
#
# Write `cloned_growth(n, eps)`: $\lVert (I + \varepsilon A)^n x \rVert^2 / \lVert x \rVert^2$ for a wide random $A$ with
# entries of variance 1/d, used n times. (With a fresh $A$ each time the answer would be $(1 + \varepsilon^2)^n$.)
#
# Hint: Write out $(1 + a)^n$ by the binomial theorem. Then put $\varepsilon A$ in the place of $a$, and let each term act on
# $x$.
#
# Hint: The terms are at right angles to each other: what is the squared length of such a sum? And how long is the k-th
# term, if $A$ keeps lengths? `comb(n, k)` is the binomial coefficient.


# %% exercise="cloned_growth"
def cloned_growth(n, eps):
    """Growth of the squared length after n copies of one layer: one number."""
    ### BEGIN SOLUTION
    length = squares = 1.0
    for k in range(1, n + 1):
        length *= eps * (n - k + 1) / k  # C(n,k)·ε^k, from the term before
        squares += length * length
    return squares
    ### END SOLUTION


# %%
check.cloned_growth(cloned_growth)

# %%
cloned_growth = kit.mine_or_reference(cloned_growth, "cloned_growth")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# `cloned_growth(20, 0.1)` is 10.2, where fresh layers give 1.22.
# </details>
#
# **Why it works.** Independent branches add as squares: n steps of length ε go √n·ε far, like a drunkard. Equal branches
# add in amplitude: n steps of length ε in the *same* direction go n·ε far. Here nε = 2, so the first powers alone give
# $1 + 2^2 = 5$. The rest of the 10.2 comes from $A^2x$ (3.6), $A^3x$ (1.3) and so on: a clone meets its own output again.
# (In the code "layer" means one such branch.)


# %% tags=["slide"]
def measured_growth(n, eps, clones):
    x = torch.randn(16, WIDTH, generator=generator, dtype=torch.float64)
    start, one = x.square().sum(), fresh_matrix()
    growth = [1.0]
    for _ in range(n):
        x = x + eps * x @ (one if clones else fresh_matrix())
        growth.append((x.square().sum() / start).item())
    return np.array(growth)


steps = np.arange(21)
Picture(
    theory_and_measurement(
        [
            Curve(
                "one layer, cloned", np.array([cloned_growth(n, 0.1) for n in steps]), measured_growth(20, 0.1, True)
            ),
            Curve("fresh layers", (1 + 0.1**2) ** steps, measured_growth(20, 0.1, False)),
        ],
        xlabel="layer",
        ylabel="squared length / that of the input",
    ),
    alt="Growth of the squared length over 20 layers with ε = 0.1. Fresh layers stay near 1.2; copies of one layer reach "
    "about 10; measured points are close to both lines.",
)

# %% [markdown]
# Now DeepNorm's numbers, at 1,000 layers. Each branch has $\sqrt f = \beta^2$ and each skip α, so one sub-layer is
# $\alpha\,(I + \varepsilon A)$ with $\varepsilon = \beta^2/\alpha = 0.0017$. The norm removes every common factor, also this
# growth. It does not remove the new *direction*: of the stream's squared length the input keeps one over the growth.

# %%
constants = deepnorm_constants(decoder_layers=1000).decoder
eps = constants.beta**2 / constants.alpha


def growth_of_many(n, eps):
    """As `cloned_growth`, for thousands of layers: comb(2000, 1000) is too large for a float, and terms from k = 40 on
    are too small to matter."""
    return sum((comb(n, k) * eps**k) ** 2 for k in range(40))


fresh, one = (1 + eps**2) ** 2000, growth_of_many(2000, eps)
print(f"2,000 fresh sub-layers:           × {fresh:.3f}, so the input keeps {1 / fresh:.1%}")
print(f"one sub-layer, used 2,000 times:  × {one:.0f}, so the input keeps {1 / one:.1%}")

# %% [markdown] tags=["slide"]
# "Deep-copied layers" is a published bug (labml's annotated implementation at e6b3c8a; lesson 09 measures it in a real
# stack). But what is copied there is a *layer*, and a layer has two different branches, $A_1$ and $A_2$: the stream runs
# through $A_1, A_2, A_1, A_2, …$ What is left of the input now?

# %%
guess_layer = kit.Guess(
    "One layer of two branches, used 1,000 times in DeepNorm's strength. Of the output the input is about",
    ["0.2%", "0.8%", "5%", "50%", "99%"],
)
guess_layer


# %%
def share_left(branches, times):
    """Part of the squared length that is still the input's after `times` rounds through these branches."""
    x = start = torch.randn(64, WIDTH, generator=generator, dtype=torch.float64)
    for _ in range(times):
        for branch in branches:
            x = x + eps * x @ branch
    cosine = torch.nn.functional.cosine_similarity(x, start, dim=-1)
    return (cosine.square().mean().item() - 1 / (WIDTH - 1)) / (1 - 1 / (WIDTH - 1))  # without the part of chance


layer = [share_left([fresh_matrix(), fresh_matrix()], 1000) for _ in range(3)]
two = growth_of_many(1000, sqrt(2) * eps)
print(f"theory for two branches: × {two:.1f}, so the input keeps {1 / two:.1%}")
kit.finding("measured at width 256, three draws", layer, near=1 / two, by=0.03, form=".1%")

# %%
guess_layer.compare("5%")

# %% [markdown]
# **Why 5%.** One layer is $(I + \varepsilon A_2)(I + \varepsilon A_1) \approx I + \varepsilon (A_1 + A_2)$. Both are random, so $A_1 + A_2$ is
# a random matrix with twice the variance: $\sqrt 2$ times as strong, and used half as often. In the first power that makes
# $n\varepsilon = 1000 \cdot \sqrt 2\,\varepsilon = 2.4$ where one branch has $2000\,\varepsilon = 3.3$. So a copied layer is
# a milder bug than a copied branch, and still a bad one: 5% in place of 99%.
#
# ## For those who want more

# %% [markdown] exercise="residual_variance" difficulty=1 importance=3 minutes=5
# ### When the branch knows the stream (optional)
#
# **Objective**: put the covariance back.
#
# After some training a branch does know the stream. Write `residual_variance(var_x, var_f, corr)`: the variance of
# $x + F$ when both have the correlation `corr`.
#
# Hint: A covariance is a correlation times both standard deviations.
#
# Hint: $(a + b)^2 = a^2 + 2ab + b^2$.


# %% exercise="residual_variance"
def residual_variance(var_x, var_f, corr):
    """Variance of x + F: one number."""
    ### BEGIN SOLUTION
    return var_x + var_f + 2 * corr * sqrt(var_x * var_f)
    ### END SOLUTION


# %%
check.residual_variance(residual_variance)

# %%
residual_variance = kit.mine_or_reference(residual_variance, "residual_variance")
print(f"independent {residual_variance(1, 1, 0):.0f}, aligned {residual_variance(1, 1, 1):.0f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Two equal signals: variance 2 if they are independent, 4 if they are the same. In exercise 1.3 the two signals were the
# branches of two layers: of fresh layers in the first case, of clones in the second.
# </details>
#
# **Why it works.** Correlation is the cosine of the angle between two signals. At a right angle lengths add as Pythagoras
# has it; in the same direction they simply add.

# %% [markdown] exercise="damped_variance" difficulty=2 importance=3 minutes=8
# ### A stack that grows more slowly (optional)
#
# **Objective**: see what one division in each layer does to a thousand of them.
#
# Pre-LN's stream grows with depth. A recent remedy (LayerNorm Scaling, arXiv 2502.05795) slows that down: it divides the
# input of the branches of layer $l$ by $\sqrt l$. Assume that this divides their output by $\sqrt l$, too. (It does in a
# ReLU branch without biases; attention's values are divided by $\sqrt l$, but its scores by $l$.) Write
# `damped_variance(n, f, var0)`: the variance after 0, 1, …, n *layers*. A layer has two sub-layers, and a branch that is
# not divided has the variance `f`.
#
# Hint: Dividing a signal by $\sqrt l$ divides its variance by what?
#
# Hint: How many branches has a layer, and what does each add? The first layer is $l = 1$.


# %% exercise="damped_variance"
def damped_variance(n, f, var0=1.0):
    """Variance of the stream after 0, 1, …, n layers: (n + 1,)."""
    ### BEGIN SOLUTION
    v = [var0]
    for layer in range(1, n + 1):
        v.append(v[-1] + 2 * f / layer)
    return np.array(v)
    ### END SOLUTION


# %%
check.damped_variance(damped_variance)

# %%
damped_variance = kit.mine_or_reference(damped_variance, "damped_variance")
plain, damped = 1 + 2000 * 1.0, damped_variance(1000, 1.0)[-1]  # Pre-LN's is a straight line
print(f"after 1,000 layers with f = 1: Pre-LN {plain:,.0f}, damped {damped:.1f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 2,001 for Pre-LN, 16.0 with the division.
# </details>
#
# **Why it works.** $1 + \tfrac12 + \tfrac13 + \dots + \tfrac1n$ grows like $\ln n$: 1,000 divided layers
# add 15.0, as much as 15 undivided sub-layers do. At the start the last layer counts even less than in Pre-LN: 0.002 of 16,
# against 2 of 2,001. So this sum alone does not say why the remedy should help. What happens in training decides, and lesson
# 18 measures it.
#
# ## In three sentences
#
# 1. Independent variances add: without a norm on the sum a stream grows linearly for α = 1, and explodes for α > 1.
# 2. With a norm on the sum the size is always 1 and the input's *share* falls: $(\alpha^2/(\alpha^2 + f))^n$.
# 3. All of it needs layers that are drawn afresh: copies add in amplitude.
#
# **Read next**: the paper's Section 4.2 uses the same sums with hidden size 1. Then lesson 02: what else does a norm hide,
# and what does it do to a gradient?
