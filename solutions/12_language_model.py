# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What does depth buy on real text?
#     opening: >-
#       A model of a thousand layers can be trained. Should it be? Give a shallow model and a deep one the same text and the same
#       number of operations, tune each, and see which predicts the next byte better. Then ask a file compressor from the
#       nineties to do the same.
#     objectives: >-
#       state a loss in bits per byte, compare depths at equal cost with a learning rate tuned for each, say whether such a
#       comparison stands, and write text with a cache.
#     prerequisites: lessons 03, 07 and 10. Lesson 11 counts operations.
#     minutes: 75
#     paper: Section 5 compares depths in translation. It has no language model.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0

# %% tags=["imports"]
from math import inf, log, sqrt

import torch

# %%
from deepnet_edu.checks import check

kit.setup(SEED, PROFILE)

# %% [markdown] exercise="bits_per_byte" difficulty=1 importance=5 minutes=8
# ### A yardstick that no tokenizer can bend
#
# **Objective**: turn the loss of any language model into bits per byte.
#
# A model read `text` as `tokens` tokens, at a mean loss of `nats_per_token`. Write `bits_per_byte(nats_per_token, tokens, text)`: what each byte of the
# text cost, in bits. The bytes are those of its UTF-8 form, in which `ö` has two and `日` three.
#
# Hint: What did the whole text cost?
#
# Hint: A bit is a choice among 2, a nat one among e: $1/\ln 2$ bits are one nat.


# %% exercise="bits_per_byte"
def bits_per_byte(nats_per_token, tokens, text):
    """Cost of each byte of the text's UTF-8 form: bits, one number."""
    ### BEGIN SOLUTION
    return nats_per_token * tokens / log(2) / len(text.encode("utf-8"))
    ### END SOLUTION


# %%
check.bits_per_byte(bits_per_byte)

# %%
bits_per_byte = kit.mine_or_reference(bits_per_byte, "bits_per_byte")

# %% [markdown] exercise="strided_loss" difficulty=3 importance=4 minutes=15
# ### Windows that overlap
#
# **Objective**: score every byte of a long text exactly once, with as much context as you can afford.
#
# The model reads at most `window` bytes at a time. `losses(begin, end)` runs it on the bytes `begin` to `end - 1` and returns an array: the losses of the
# bytes `begin + 1` to `end - 1`, in nats. (The first byte of a window has nothing before it.) Let windows begin at 0, `stride`, 2·`stride` and so
# on; `stride` is less than `window`. Write `strided_loss(losses, n, window, stride)`: the mean loss of the bytes 1 to `n - 1`, where each
# byte counts once, in the first window that reaches it.
#
# Hint: Carry along which byte comes next, the first one that no window has scored.
#
# Hint: Entry 0 of a window's losses belongs to byte `begin + 1`. Where does the new part begin, in the last window too?


# %% exercise="strided_loss"
def strided_loss(losses, n, window, stride):
    """Mean loss of bytes 1 to n - 1 by windows that overlap: nats, one number."""
    ### BEGIN SOLUTION
    total, scored, begin = 0.0, 1, 0
    while scored < n:
        end = min(begin + window, n)
        total = total + losses(begin, end)[scored - begin - 1 :].sum()
        scored, begin = end, begin + stride
    return total / (n - 1)
    ### END SOLUTION


# %%
check.strided_loss(strided_loss)

# %%
strided_loss = kit.mine_or_reference(strided_loss, "strided_loss")

# %% [markdown] exercise="equal_flop_width" difficulty=3 importance=5 minutes=12
# ### Equal what?
#
# **Objective**: find the width at which a model of given depth costs as much as another one.
#
# A decoder of $L$ layers and width $d$, with a feed-forward branch of width $4d$, has $12Ld^2$ weights in its layers and $Vd$ in its head. Training costs
# 6 operations for each weight and token. Attention adds $6Ld(T+1)$ for each token, since a token sees $(T+1)/2$ tokens on average. Write
# `equal_flop_width(layers, budget, tokens, vocab_size, multiple)`: the largest $d$ that is a multiple of `multiple` and costs at most `budget` operations
# a token, and 0 if there is none. `tokens` is $T$, `vocab_size` is $V$.
#
# Hint: The cost is a quadratic in $d$. Solve it, or count upwards.
#
# Hint: Round down. A cost of exactly the budget is allowed, and rounding errors must not forbid it.


# %% exercise="equal_flop_width"
def equal_flop_width(layers, budget, tokens, vocab_size, multiple):
    """Largest width, a multiple, whose training costs at most ``budget`` FLOPs a token: a whole number."""
    ### BEGIN SOLUTION
    a = 72 * layers
    b = 6 * vocab_size + 6 * layers * (tokens + 1)
    d = (sqrt(b * b + 4 * a * budget) - b) / (2 * a)
    return int(d + 1e-9) // multiple * multiple
    ### END SOLUTION


# %%
check.equal_flop_width(equal_flop_width)

# %%
equal_flop_width = kit.mine_or_reference(equal_flop_width, "equal_flop_width")

# %% [markdown] exercise="compare_arms" difficulty=2 importance=5 minutes=12
# ### Tuned, or not compared
#
# **Objective**: let each arm have its own learning rate without letting luck choose the result.
#
# `runs` is a list of dictionaries with the keys `arm`, `rate`, `seed`, `tune` and `test`: the losses on two parts of the held-out text. Write
# `compare_arms(runs)`: a dictionary that has, for each arm, a tuple of three: the rate with the least mean `tune` over its seeds; the mean
# `test` at this rate; and whether this rate is the smallest or the largest that was tried for this arm, `True` or `False`.
#
# Hint: One mean chooses, another one reports.
#
# Hint: Sort the rates of an arm, and look at both ends.


# %% exercise="compare_arms"
def compare_arms(runs):
    """For each arm: (rate, mean test loss at it, whether it is at an edge)."""
    ### BEGIN SOLUTION
    found = {}
    for arm in {run["arm"] for run in runs}:
        losses = {}
        for run in runs:
            if run["arm"] == arm:
                losses.setdefault(run["rate"], []).append((run["tune"], run["test"]))
        means = {rate: [sum(part) / len(part) for part in zip(*both, strict=True)] for rate, both in losses.items()}
        best = min(means, key=lambda rate: means[rate][0])
        found[arm] = (best, means[best][1], best in (min(means), max(means)))
    return found
    ### END SOLUTION


# %%
check.compare_arms(compare_arms)

# %%
compare_arms = kit.mine_or_reference(compare_arms, "compare_arms")

# %% [markdown] exercise="cached_attention" difficulty=4 importance=5 minutes=20
# ### Attention with a cache
#
# **Objective**: read new tokens without reading the old ones again.
#
# Write `cached_attention(x, w_q, w_k, w_v, cache=None)`, one causal head. `x` has shape $(t, d)$ and holds the new tokens only; the weights have
# shape $(d, h)$. `cache` is what an earlier call returned, or `None`. Return two things: the outputs of the new tokens, $(t, h)$, and the cache for
# the next call. Whoever reads a text chunk by chunk must get what one call for the whole text gives. Scores are divided by
# $\sqrt{h}$. Leave an old cache as it is: two continuations may begin from it.
#
# Hint: How many queries are there, and how many keys? The new tokens stand at the end.
#
# Hint: With $p$ tokens in the cache, new token $i$ may see key $j$ if $j \le p + i$.


# %% exercise="cached_attention"
def cached_attention(x, w_q, w_k, w_v, cache=None):
    """Outputs of the new tokens, (t, h), and the cache for the next call."""
    ### BEGIN SOLUTION
    q, k, v = x @ w_q, x @ w_k, x @ w_v
    if cache is not None:
        k, v = torch.cat([cache[0], k]), torch.cat([cache[1], v])
    hidden = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)
    scores = (q @ k.T / k.shape[1] ** 0.5).masked_fill(hidden, -inf)
    return scores.softmax(-1) @ v, (k, v)
    ### END SOLUTION


# %%
check.cached_attention(cached_attention)

# %%
cached_attention = kit.mine_or_reference(cached_attention, "cached_attention")
