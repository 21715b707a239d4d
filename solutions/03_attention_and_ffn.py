# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What can one sub-layer do to a signal?
#     opening: >-
#       Lesson 01 called the strength of a branch $f$ and left it open. Two kinds of branch are all that a Transformer has:
#       attention, which averages tokens, and feed-forward, which mixes features. This lesson finds the $f$ of both. One of
#       them depends on what it is fed, and that will be the trouble.
#     objectives: >-
#       write multi-head attention, say what is left of a signal when tokens are averaged, and compute the strength of any
#       branch from its shape, its gain and its input.
#     prerequisites: lessons 01 and 02, and to have seen softmax attention once.
#     minutes: 75
#     paper: Section 4.2 with Lemma 4.1, where attention and feed-forward become one number each.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
TOKENS = 64  # tokens of a sequence in the measurements
WIDTH = 0  # features of a token there; 0: what the profile says

# %% tags=["imports"]
from math import acos, exp, pi, sqrt

import numpy as np
import torch

# %%
from torch.nn import functional as F

from deepnet_edu import ModelConfig, build_model, deepnorm_constants, probe
from deepnet_edu.checks import check
from deepnet_edu.data import TokenMap
from deepnet_edu.figures import Picture, theory_and_measurement
from deepnet_edu.profiles import Curve

device = kit.setup(SEED, PROFILE)
width = WIDTH or (256 if PROFILE == "smoke" else 512)
generator = torch.Generator().manual_seed(SEED)


def drawn(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def xavier(fan_out, fan_in, gain=1.0):
    """A matrix for x @ W.T, drawn as the paper draws it."""
    return drawn(fan_out, fan_in) * gain * sqrt(2 / (fan_in + fan_out))


def tokens_alike(r, sequences=4):
    """Tokens of variance 1 of which any two have the correlation r: (sequences, TOKENS, width)."""
    return sqrt(r) * drawn(sequences, 1, width) + sqrt(1 - r) * drawn(sequences, TOKENS, width)


# %% [markdown]
# ## Sixty-four tokens in, how much comes out?
#
# Attention gives each token a weighted average of all tokens' values. Suppose for now that the weights are all equal, 1/64.
# (Fresh ones are not quite; you will measure that.) Let 64 tokens of variance 1 go in, all independent. Guess before you run
# the next cell.

# %%
guess = kit.Guess(
    f"The even average of {TOKENS} independent tokens of variance 1 has a variance of",
    ["1", f"1/{sqrt(TOKENS):.3g}", f"1/{TOKENS}", f"1/{TOKENS**2:,}"],
)
guess

# %%
average = tokens_alike(0.0).mean(1)
kit.finding(
    f"variance of the average of {TOKENS} tokens, times {TOKENS}", TOKENS * average.var().item(), near=1, by=0.2
)

# %%
guess.compare(f"1/{TOKENS}")

# %% [markdown]
# Most of the signal is gone. That is the first thing to know about attention in a fresh network: **on independent
# tokens it hardly speaks**. But the number 64 was ours, and so was "independent". To see when attention *does* speak, we
# have to build it.

# %% [markdown] exercise="attention" difficulty=2 importance=5 minutes=15
# ### Attention, with heads and a mask
#
# **Objective**: write the one operation that lets tokens hear of each other.
#
# Write `attention(q, k, v, n_heads, causal)` for queries, keys and values of shape (B, T, d). Each of the
# h = `n_heads` heads sees d/h neighbouring features of every token and computes
# $\mathrm{softmax}(QK^\top/\sqrt{d/h})\,V$; the heads are put side by side again, (B, T, d). With `causal` a token sees
# itself and earlier ones only. No `scaled_dot_product_attention`. In lesson 07 your function is trained, so gradients must come
# back to all three.
#
# Hint: To split, `x.unflatten(-1, (n_heads, -1))` is (B, T, h, d/h). `.transpose(1, 2)` makes (B, h, T, d/h) of it, and a matrix
# product then works head by head.
#
# Hint: The mask `torch.ones(T, T).triu(1).bool()` is True where a key comes later than its query: fill these scores with
# `float("-inf")` before the softmax over the last dimension. To merge, undo the two steps in reverse order.


# %% exercise="attention"
def attention(q, k, v, n_heads, causal):
    """Queries, keys and values, (B, T, d) each -> (B, T, d)."""
    ### BEGIN SOLUTION
    Q, K, V = (x.unflatten(-1, (n_heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, h, T, d/h)
    scores = Q @ K.mT * Q.shape[-1] ** -0.5  # (B, h, T, T)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    return (scores.softmax(-1) @ V).transpose(1, 2).flatten(2)
    ### END SOLUTION


# %%
check.attention(attention)

# %%
attention = kit.mine_or_reference(attention, "attention")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A card with a green bar. Two slips are worth making on purpose: divide by $\sqrt d$ instead of $\sqrt{d/h}$, or `reshape`
# without `transpose`. Both run, and no error is raised.
# </details>
#
# **Why it works.** A score is a sum of d/h products of independent numbers of variance 1, so it has variance d/h. Divided
# by $\sqrt{d/h}$ it has variance 1, at every width.

# %%
q, k, v = drawn(3, 2, TOKENS, width).unbind()
ours, torchs = attention(q, k, v, 4, True), F.scaled_dot_product_attention(
    *(x.unflatten(-1, (4, -1)).transpose(1, 2) for x in (q, k, v)), is_causal=True
).transpose(1, 2).flatten(2)  # fmt: skip
kit.finding("largest difference from PyTorch's own", (ours - torchs).abs().max(), below=1e-5)

# %% [markdown]
# ## What an average keeps
#
# Take $T$ tokens $x_1, …, x_T$ that have something in common: $x_i = \sqrt r\,c + \sqrt{1-r}\,a_i$, with $c$ shared by all and
# $a_i$ the token's own, all of variance 1. Then any two tokens have the correlation $r$, which is lesson 00's token
# similarity. So we assume three things: each feature has variance 1; any two tokens have the same correlation
# $r$; the weights are even, $1/T$. The variance of the average is
#
# $$\operatorname{Var}\Big(\frac1T \sum_i x_i\Big) = \frac{1}{T^2} \sum_i \sum_j \operatorname{Cov}(x_i, x_j).$$
#
# There are $T^2$ pairs. In $T$ of them a token meets itself and the covariance is 1. In the other $T(T-1)$ it is $r$. So
#
# $$\frac{T + T(T-1)\,r}{T^2} = r + \frac{1 - r}{T}.$$
#
# Read it as a sentence: **what tokens share survives the average whole; what is a token's own is divided by $T$.**

# %% [markdown] exercise="averaged_variance" difficulty=3 importance=5 minutes=12
# ### The variance of an average
#
# **Objective**: say how loudly attention speaks, from what its tokens have in common.
#
# Write `averaged_variance(T, r, causal)`: the variance of an even average of unit-variance tokens with pairwise correlation
# `r`, as a mean over the $T$ positions. With `causal`, position $i$ averages the first $i$ tokens only.
#
# Hint: Without a mask all positions are equal, and the text above has the answer. Which $T$ has position $i$ with it?
#
# Hint: Write down the variance at positions 1, 2 and 3. One part of it does not depend on the position; what is the mean
# of the other one over all $T$ positions? (It is not a closed formula: a sum will do.)


# %% exercise="averaged_variance"
def averaged_variance(T, r, causal):
    """Mean over positions of the variance of an even average: one number."""
    ### BEGIN SOLUTION
    if not causal:
        return r + (1 - r) / T
    harmonic = sum(1 / i for i in range(1, T + 1))
    return r + (1 - r) * harmonic / T
    ### END SOLUTION


# %%
check.averaged_variance(averaged_variance)

# %%
averaged_variance = kit.mine_or_reference(averaged_variance, "averaged_variance")
for r in (0.0, 0.5, 0.99):
    print(
        f"64 tokens, r = {r:4}: bidirectional {averaged_variance(64, r, False):.3f}, causal {averaged_variance(64, r, True):.3f}"
    )

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 0.016 and 0.074 for independent tokens, 0.990 and 0.991 for tokens that are nearly the same. Causal attention is stronger,
# because early tokens have few others to be averaged with: with the harmonic number $H_T = 1 + 1/2 + \dots + 1/T$ it is
# $r + (1 - r)\,H_T/T$.
# </details>
#
# **Why it works.** The double sum counts pairs. Few of them are a token with itself, so for large $T$ only what is shared
# is left.
#
# ## Predict, then measure
#
# Now real attention: your function with queries, keys and values from Xavier's matrices, on tokens of every correlation.
# One assumption is open: are fresh weights even?

# %%
guess_scores = kit.Guess(
    "Fresh query and key matrices make the weights uneven. By which factor does that change the output's variance, for "
    "independent tokens and no mask?",
    ["about 0.4", "about 1", "about 2.5", "about 10"],
)
guess_scores


# %%
def measured_variance(r, causal, scored):
    """Mean square of attention's output over that of its values, for tokens of correlation r."""
    x = tokens_alike(r)
    values = x @ xavier(width, width).T
    q, k = (x @ xavier(width, width).T for _ in range(2)) if scored else (torch.zeros_like(x),) * 2
    out = attention(q, k, values, 1, causal)
    return (out.square().mean() / values.square().mean()).item()


correlations = np.geomspace(1e-3, 1, 25)
even, fresh, at, curves = {}, {}, {}, []
for causal, name in ((False, "bidirectional"), (True, "causal")):
    even[causal], fresh[causal] = (
        np.array([measured_variance(r, causal, scored) for r in correlations]) for scored in (False, True)
    )
    at[causal] = np.array([averaged_variance(TOKENS, r, causal) for r in correlations])
    curves.append(Curve(f"{name}, even weights", at[causal], even[causal], correlations))
    curves.append(Curve(f"{name}, fresh queries and keys", None, fresh[causal], correlations))

# %% tags=["headline"]
figure = theory_and_measurement(
    curves,
    xlabel="correlation r between tokens",
    ylabel="variance out / variance in, through attention",
    log=True,
    log_x=True,
)
(ax,) = figure.axes
ax.axhline(1, color="black", linewidth=0.8)
ax.annotate("Lemma 4.1's bound: 1", (correlations[0], 1), xytext=(0, -12), textcoords="offset points")
ax.plot(correlations, correlations, color="black", linewidth=0.8, linestyle=":")
ax.annotate("what the tokens share: r", (0.02, 0.02), xytext=(6, -12), textcoords="offset points")
Picture(
    figure,
    alt=f"Variance that attention lets through against the correlation r between its {TOKENS} tokens, both logarithmic. For "
    f"small r each arm is flat: even weights at 1/{TOKENS} without a mask, and higher with it; fresh queries and keys about "
    "2.5 and 1.7 times above even weights. Towards r = 1 all bend into the dotted diagonal, on which the variance is r, and meet at 1, the line of "
    "Lemma 4.1's bound. Points with even weights are on their lines.",
)

# %%
for causal, name in ((False, "bidirectional"), (True, "causal")):
    ratio = even[causal] / at[causal]
    kit.finding(f"{name}, even weights: measured / theory, least and most", [ratio.min(), ratio.max()], near=1, by=0.2)
gap = {name: (fresh[causal] / at[causal])[:5].mean() for causal, name in ((False, "no mask"), (True, "causal"))}
kit.finding("nearly independent tokens: fresh weights / even weights", gap, above=1.4, below=3.5)
similar = correlations > 0.5
kit.finding("r above 0.5: fresh weights / even weights", list((fresh[False] / at[False])[similar]), near=1, by=0.15)

# %%
guess_scores.compare("about 2.5")

# %% [markdown]
# Scores of variance 1 are not small: the weights $e^q$ differ from token to token, and an uneven average is one over fewer
# tokens. (The optional exercise `sharp_average` finds the factor for many tokens: it is $e$.) With the mask it is less, about 1.7, because
# half of the variance comes from the first six positions, which have hardly any tokens to choose from. The factor
# enlarges only the second part, $(1-r)/T$. At $r = 0.5$ that part is 0.008 of 0.508, so even a factor of $e$ is hardly
# seen. And the more similar the tokens, the more even their weights.
#
# ## What the paper says of it
#
# **Lemma 4.1**: if $x_1, …, x_n$ have mean 0 and variance 1 and $q_1, …, q_n$ are any real numbers, then
# $\mathrm{softmax}(q_1, …, q_n)\,X$ is of the *same bound of magnitude* as $x_i$ (written $\overset{\Theta}{=}$: both
# sizes have the same bound, up to a constant factor). The reason is one line. The weights $w_i$ are positive and sum to 1, and no covariance exceeds 1, so
#
# $$\operatorname{Var}\Big(\sum_i w_i x_i\Big) = \sum_i \sum_j w_i w_j \operatorname{Cov}(x_i, x_j) \le
# \Big(\sum_i w_i\Big)^2 = 1 .$$
#
# It is a bound, and your picture shows where it is loose: at the left end the truth is 1/64 of it. It is tight at the right
# end, where all tokens are the same. A theory that counts attention as 1 is prepared for the worst.
#
# **Read the small print**: the proof holds the weights *fixed*. In attention they depend on the same tokens as the values.
# At initialisation that hardly matters, because queries, keys and values are drawn independently. Fresh queries and keys
# make the output larger than an even average, as you saw, but never larger than *the values themselves*. So DeepNorm leaves
# their weights alone (gain 1). Training can break the assumption: let a token's score be its own value.

# %%
x = tokens_alike(0.3)
values = x @ xavier(width, width).T
q, k = (x @ xavier(width, width).T for _ in range(2))
size = [
    (attention(s * q, s * k, values, 1, False).square().mean() / values.square().mean()).item() for s in (0, 1, 3, 10)
]
kit.finding("mean square out / of the values, scores 0, 1, 9 and 100 times as large as fresh ones", size, below=1.05)
own = drawn(4000, TOKENS)  # one feature of variance 1, and each token's score is three times its value
picked = ((3 * own).softmax(-1) * own).sum(-1)
kit.finding(
    "a head that looks for large values: mean square of its output (that of the values is 1)",
    picked.square().mean(),
    above=2,
)
kit.finding("mean of its output (that of the values is 0)", picked.mean(), above=1.5)
kit.finding("variance of its output (that of the values is 1)", picked.var(), below=0.6)

# %% [markdown]
# No value has grown, but the head picks the large ones: what was spread around 0 is now near 2. So the *variance* falls, as
# in the Lemma, while the mean square, which is the size that the next layer sees, is four times as large. That the mean
# stays 0 is part of the small print, too.

# %% [markdown]
# ## What a matrix does: fans
#
# The other half of every branch is matrices. Let $W$ have shape (fan-out, fan-in) and independent entries of variance
# $\sigma^2$. Each output is a sum of fan-in products, so a signal of mean square 1 leaves with $\sigma^2 \cdot \text{fan-in}$. On
# the way back a gradient leaves with $\sigma^2 \cdot \text{fan-out}$. Both can be 1 only if $W$ is square.
# [Xavier's](glossary.md) rule takes the middle,
#
# $$\sigma^2 = g^2\, \frac{2}{\text{fan-in} + \text{fan-out}},$$
#
# with the gain $g$, which is 1 unless said otherwise, and β in DeepNorm's branches. Gain multiplies weights: in a variance it
# counts squared.
#
# A feed-forward branch is $W_2\,\mathrm{ReLU}(W_1 x)$, from $d$ features to $d_{\mathrm{ff}}$ and back. What is between
# the matrices matters, too. A value $z$ in front of ReLU is as often positive as negative, and only the positive half
# passes: $\mathbb{E}[\mathrm{ReLU}(z)^2] = \tfrac12 \mathbb{E}[z^2]$. (The variance is smaller than that, because ReLU's
# output has a mean. But $W_2$ multiplies the mean as well, so it is the mean square that counts.)

# %% [markdown] exercise="ffn_variance_gain" difficulty=3 importance=5 minutes=12
# ### The strength of a feed-forward branch
#
# **Objective**: know $f$ of a real branch, not of a square matrix.
#
# Write `ffn_variance_gain(d_model, d_ff, gain)`: variance of the output over the mean square of the input, for
# $W_2\,\mathrm{ReLU}(W_1 x)$ with both matrices Xavier-normal with this gain.
#
# Hint: Follow the mean square of a signal through the branch, one step after the other.
#
# Hint: There are three steps, and so three factors. For each matrix: how many products does one of its outputs add up,
# and which variance do its entries have?


# %% exercise="ffn_variance_gain"
def ffn_variance_gain(d_model, d_ff, gain):
    """Variance out over mean square in of W₂ ReLU(W₁x): one number."""
    ### BEGIN SOLUTION
    weight = gain**2 * 2 / (d_model + d_ff)
    up = d_model * weight
    return up / 2 * d_ff * weight
    ### END SOLUTION


# %%
check.ffn_variance_gain(ffn_variance_gain)

# %%
ffn_variance_gain = kit.mine_or_reference(ffn_variance_gain, "ffn_variance_gain")


# %%
def measured_ffn(d, d_ff, gain, activation=torch.relu):
    x = drawn(256, d)
    return ((activation(x @ xavier(d_ff, d, gain).T) @ xavier(d, d_ff, gain).T).var() / x.square().mean()).item()


for ratio in (1, 4):
    expected, found = ffn_variance_gain(width, ratio * width, 1.0), measured_ffn(width, ratio * width, 1.0)
    kit.finding(f"d_ff = {ratio}·d: part of the variance that passes", found, near=expected, by=0.06, form=".2f")
gelu = measured_ffn(width, 4 * width, 1.0, F.gelu)
kit.finding("GELU in place of ReLU, d_ff = 4·d", gelu, above=0.2, below=0.27)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 0.50 where both widths are the same, 0.32 where the branch is four times as wide. GELU lets a little less through, about
# 0.23 for inputs of mean square 1 (unlike ReLU's, its share depends on the input's size).
# </details>
#
# **Why it works.** Two matrices, so $g^4$. The fans give $4\,d\,d_{\mathrm{ff}}/(d + d_{\mathrm{ff}})^2$, which is at most 1.
# ReLU gives ½. The paper's proof works with one feature ($d = 1$) and sets this factor to 1: as with Lemma 4.1, it prepares
# for the worst.
#
# ## Both branches together

# %% [markdown] exercise="attention_variance_gain" difficulty=2 importance=5 minutes=6
# ### The strength of an attention branch
#
# **Objective**: put average and matrices together.
#
# An attention branch multiplies by the value matrix, averages, and multiplies by the output matrix. Both are d×d, drawn with
# the gain `gain`; query and key have gain 1. Write `attention_variance_gain(T, r, causal, gain)`: variance of the branch's
# output for tokens of variance 1 and correlation `r`, with even weights.
#
# Hint: Two of the three steps act on features, one on tokens. Does their order matter?
#
# Hint: What does one square Xavier matrix of gain $g$ do to a variance? Fan-in and fan-out are the same there. For the
# step on tokens you have a function.


# %% exercise="attention_variance_gain"
def attention_variance_gain(T, r, causal, gain):
    """Variance of an attention branch's output, for tokens of variance 1: one number."""
    ### BEGIN SOLUTION
    return gain**4 * averaged_variance(T, r, causal)
    ### END SOLUTION


# %%
check.attention_variance_gain(attention_variance_gain)

# %%
attention_variance_gain = kit.mine_or_reference(attention_variance_gain, "attention_variance_gain")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# $g^4$ times the variance of the average. Query and key do not occur in it.
# </details>
#
# **Why it works.** A square Xavier matrix multiplies the variance by $g^2$: fan-in and the mean of both fans are the same
# number. Two of them give $g^4$. The average acts on tokens, the matrices on features, so its factor is simply multiplied in.
#
# Lesson 01 promised to put the shapes in. By its exercise 1.2 every sub-layer multiplies the input's share by
# $1/(1 + f/\alpha^2)$. Here is the share of the input that 12 layers of DeepNorm keep, with the $f$ of a
# square matrix, with yours, and as measured in a real model.

# %%
layers, T = 12, 32
constants = deepnorm_constants(decoder_layers=layers).decoder
beta, alpha = constants.beta, constants.alpha
f_attention = attention_variance_gain(T, 0.0, True, beta)
f_ffn = ffn_variance_gain(128, 512, beta)
square = (1 + beta**4 / alpha**2) ** (-2 * layers)
shaped = ((1 + f_attention / alpha**2) * (1 + f_ffn / alpha**2)) ** -layers
config = ModelConfig(
    "decoder", "lm", layers, d_model=128, n_heads=4, d_ff=512, vocab_size=64, max_length=32, activation="relu",
    residual="deepnorm",
)  # fmt: skip
batch = TokenMap(vocab_size=64, length=T, batch_size=8).batch(torch.Generator().manual_seed(SEED))  # random tokens
measured = probe(build_model(config, seed=SEED).to(device), batch.to(device)).input_share[-1]
print(f"kept: with square matrices {square:.1%}, with attention and feed-forward {shaped:.1%}")
kit.finding("kept, as measured", measured, near=shaped, by=0.005, form=".1%")

# %% tags=["nbval-ignore-output"]
kit.record(share_square=square, share_shaped=shaped, share_measured=measured)

# %% [markdown]
# Lost: 5.0% by the square formula, 1.1% by yours, about 1.3% as measured. Yours is a little low, because it counts even
# weights and tokens without anything in common.
#
# ## When all tokens are the same
#
# [Cross-attention](glossary.md), which a translation model has in each decoder layer, is the same operation with keys and
# values from another sequence: it averages the encoder's $S$ tokens, and all that you have found holds with $S$ for $T$.
#
# And now the sentence to take along. The strength of a feed-forward branch is fixed by its shape. **The strength of an
# attention branch is fixed by its input**: for 64 tokens it is 1/64 while they differ, and 1 once they are the same.

# %%
for r, name in ((0.0, "all different"), (0.99, "nearly the same")):
    adds = attention_variance_gain(64, r, False, 1.0)
    print(f"tokens {name:15}: attention of gain 1 adds {adds:.3f} to a stream of variance 1")

# %% [markdown]
# An average divides what is a token's own by $T$ and keeps what is shared whole. Added to the stream, it raises what tokens
# share more than what is their own. So tokens become more similar; and the more similar they are, the more attention adds.
# That loop is the subject of lesson 04.
#
# ## For those who want more

# %% [markdown] exercise="sharp_average" difficulty=4 importance=3 minutes=15
# ### Uneven weights (optional)
#
# **Objective**: find the factor by which the measured points were above the line.
#
# Let the scores be independent normal numbers of variance `s`, and the tokens independent and many. Write
# `sharp_average(T, s)`: the variance of their softmax average, for large $T$.
#
# Hint: Write the variance as a sum over tokens. The weights are $e^{q_i}/\sum_j e^{q_j}$: what does the sum below come to,
# for many tokens?
#
# Hint: For a normal $q$ of variance $s$ the mean of $e^q$ is $e^{s/2}$. The squares of the weights need the mean of
# $e^{2q}$: $2q$ is normal, too.


# %% exercise="sharp_average"
def sharp_average(T, s):
    """Variance of a softmax average of T independent tokens, scores of variance s: one number."""
    ### BEGIN SOLUTION
    return exp(s) / T
    ### END SOLUTION


# %%
check.sharp_average(sharp_average)

# %%
sharp_average = kit.mine_or_reference(sharp_average, "sharp_average")
print(f"at s = 1 the average is {sharp_average(TOKENS, 1.0) * TOKENS:.2f} times as strong as an even one")
own_part = np.mean((fresh[False] - correlations)[:5])  # without what the tokens share
ratio = own_part / sharp_average(TOKENS, 1.0)
kit.finding("with fresh queries and keys, measured / this", ratio, near=1, by=0.3)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 2.72, the number e: fresh scores have variance 1.
# </details>
#
# **Why it works.** $T \cdot e^{2s}/(T e^{s/2})^2 = e^s/T$. An average with such weights is one over $T/e^s$ tokens: 24 of
# the 64. (With so few tokens the formula for many is a little too high.)

# %% [markdown] exercise="relu_correlation" difficulty=2 importance=3 minutes=12
# ### ReLU makes tokens more similar (optional)
#
# **Objective**: see that feed-forward branches are not innocent either.
#
# Two tokens have the correlation `r`, and so have their values before ReLU. Write `relu_correlation(r)`: the cosine
# between the two tokens after ReLU, for wide branches, where values before it are normal. From the integral (Cho and Saul, 2009), with the angle
# $\varphi = \arccos r$,
#
# $$\mathbb{E}[\mathrm{ReLU}(a)\,\mathrm{ReLU}(b)] = \frac{1}{2\pi}\big(\sin \varphi + (\pi - \varphi) \cos \varphi\big).$$
#
# Hint: The cosine of a token with itself is 1. What does the integral give for it?
#
# Hint: Which side of a right triangle is the sine of an angle whose cosine is $r$?


# %% exercise="relu_correlation"
def relu_correlation(r):
    """Cosine between two tokens after ReLU, from their correlation before: one number."""
    ### BEGIN SOLUTION
    return r + (sqrt(1 - r * r) - r * acos(r)) / pi
    ### END SOLUTION


# %%
check.relu_correlation(relu_correlation)

# %%
relu_correlation = kit.mine_or_reference(relu_correlation, "relu_correlation")
a, own = drawn(2, 200_000)
for r in (0.0, 0.5, 0.9):
    b = r * a + sqrt(1 - r * r) * own
    found = F.cosine_similarity(a.relu(), b.relu(), dim=0).item()
    kit.finding(f"r = {r}: after ReLU, measured", found, near=relu_correlation(r), by=0.01, form=".3f")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Independent tokens leave with a cosine of 0.318, which is 1/π.
# </details>
#
# **Why it works.** ReLU's outputs are all positive, so any two have something in common: their mean. A feed-forward branch
# adds that common part to all tokens, a little in each layer.
#
# ## In three sentences
#
# 1. An average of $T$ tokens keeps $r + (1-r)/T$ of the variance: all of what they share, a $T$-th of what is their own.
# 2. A branch of two Xavier matrices has a strength of $g^4$ times a factor of its shape: 0.32 for a ReLU branch four times
#    as wide, the average's variance for attention.
# 3. Lemma 4.1 counts attention as 1, its largest value, which it has only if all tokens are the same; fresh query and key
#    matrices raise it above the even average, by up to $e$, and never above the values themselves.
#
# **Read next**: the paper's Section 4.2 with Lemma 4.1; Noci et al. (arXiv 2206.03126) on tokens that become similar. Then
# lesson 04: what that does to a stack, forward and backward.
