# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What would it cost me?
#     opening: >-
#       Eight V100 for 80,000 dollars; 128 GPUs for about 5,000 dollars a day; days or weeks; 200 layers beat 48 by 5 BLEU. An
#       article about DeepNet says all of this. Is it true? You do not need a GPU to find out. This lesson counts the
#       parameters of published models exactly, turns a count into days and dollars, and then judges the article, claim by claim. At the
#       end you price a model of your own.
#     objectives: >-
#       count the parameters of a published model exactly, say how many GPUs it needs, how long a run takes and what it
#       costs, and tell a claim that holds from one that cannot be judged.
#     prerequisites: lesson 11's 6 operations per weight and token, and from lesson 15 what shards are.
#     minutes: 70
#     paper: Sections 5 and 6, Tables 2 and 3, Figure 8. It does not say on which machines its models were trained.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
GPU = "v100"  # in the first picture; deepnet-edu plan --help names others
PRICE = 0.0  # dollars for an hour of one GPU in the first picture; 0: what the article pays
ELECTRICITY = 0.10  # dollars for a kWh, an assumption: put in your own

# %%
from itertools import product

# %% tags=["imports"]
from math import ceil

import numpy as np

# %%
from deepnet_edu.checks import check
from deepnet_edu.explorers import BudgetExplorer
from deepnet_edu.figures import Picture
from deepnet_edu.figures.budget import days_and_dollars
from deepnet_edu.figures.style import legend_below, new_figure, series_style
from deepnet_edu.planning import GPUS, PUBLISHED, UTILISATIONS, find_gpu, parameters_by_part
from deepnet_edu.planning.cost import OVERHEAD
from deepnet_edu.residual import RESIDUALS

kit.setup(SEED, PROFILE)
V100 = GPUS["v100"]

# %% [markdown]
# ## The back of an envelope
#
# How many parameters does a Transformer have? A quick estimate looks at the large matrices alone. Attention has four of $d
# \times d$, a feed-forward branch of width $4d$ has two of $d \times 4d$, and embedding and head are $V \times d$ each, for a
# vocabulary of $V$ tokens. With $N$ layers that makes
#
# $$12Nd^2 + 2Vd.$$
#
# For LLaMA 65B ($N = 80$, $d = 8192$, $V = 32{,}000$) it is off by half a per cent. DeepSeek LLM 67B is a little larger and built
# in the same way: $N = 95$, $d = 8192$, $V = 102{,}400$.


# %%
def envelope(config):
    """The estimate above."""
    layers = config.encoder_layers + config.decoder_layers
    return 12 * layers * config.d_model**2 + 2 * config.vocab_size * config.d_model


llama = PUBLISHED["llama-65b"]
print(f"LLaMA 65B: {envelope(llama.config):,} for {llama.parameters:,}")
guess_envelope = kit.Guess(
    "By how much does the estimate miss the parameters of DeepSeek LLM 67B?", ["by 0.5%", "by 5%", "by 16%"]
)
guess_envelope

# %% [markdown]
# ## An exact count
#
# The models of the LLaMA family, DeepSeek's among them, differ from the block of lesson 07 in four ways. They have no biases.
# Their norms are RMSNorms (lesson 02), with a gain and nothing else: one before attention, one before the feed-forward branch,
# and one more after the last layer. Their feed-forward branch is a [SwiGLU](glossary.md): two matrices of $d \times
# d_{\mathrm{ff}}$, called gate and up, whose outputs are multiplied (the gate's after an activation), and one of
# $d_{\mathrm{ff}} \times d$ that projects back. And the large ones have [grouped queries](glossary.md): several heads of
# queries share one head of keys and values, which makes the cache for generation smaller.

# %% [markdown] exercise="parameters" difficulty=3 importance=5 minutes=15
# ### Count them
#
# **Objective**: know the size of a model from its configuration.
#
# Write `parameters(vocab, d, layers, heads, kv_heads, d_ff, tied)`: the parameters of such a model, as a whole number. A head has
# `d // heads` features. Queries have `heads` heads, keys and values have `kv_heads`. The output matrix of attention maps all
# heads back to `d`. If `tied` is true, the head is the embedding matrix itself; otherwise it is a matrix of its own.
# Positions are rotary and have no parameters.
#
# Hint: Write down the shape of each matrix: four in attention, of which two may be narrow, and three in the feed-forward branch.
#
# Hint: Two norms in each layer and one after the last, with d numbers each. Then the embedding, and the head if it is not tied.


# %% exercise="parameters"
def parameters(vocab, d, layers, heads, kv_heads, d_ff, tied):
    """Parameters of a decoder of the LLaMA family: a whole number."""
    ### BEGIN SOLUTION
    attention = 2 * d * d + 2 * d * (d // heads * kv_heads)
    layer = attention + 3 * d * d_ff + 2 * d
    return layers * layer + (1 if tied else 2) * vocab * d + d
    ### END SOLUTION


# %%
check.parameters(parameters)

# %%
parameters = kit.mine_or_reference(parameters, "parameters")


def mine(c):
    """The count by your function; None where a model is of another family."""
    if (c.architecture, c.activation, c.norm, c.bias) != ("decoder", "swiglu", "rms", False):
        return None
    return int(
        parameters(
            c.vocab_size, c.d_model, c.decoder_layers, c.n_heads, c.n_kv_heads or c.n_heads, c.d_ff, c.shared_embeddings
        )
    )


counts = {name: mine(model.config) for name, model in PUBLISHED.items()}
print(f"{'':34}{'layers':>9}{'width':>7}{'heads':>10}{'parameters':>17}  {'counted by':10}  estimate")
for name, model in PUBLISHED.items():
    c, by = model.config, "you" if counts[name] else "library"
    counts[name] = counts[name] or sum(parameters_by_part(c).values())
    layers = (
        f"{c.encoder_layers}+{c.decoder_layers}"
        if c.encoder_layers * c.decoder_layers
        else str(c.encoder_layers or c.decoder_layers)
    )
    heads = f"{c.n_heads}/{c.n_kv_heads}" if c.n_kv_heads not in (0, c.n_heads) else str(c.n_heads)
    missed = envelope(c) / counts[name] - 1
    print(f"{model.title:34}{layers:>9}{c.d_model:>7,}{heads:>10}{counts[name]:>17,}  {by:10}  {missed:+6.1%}")
right = sum(counts[name] == model.parameters for name, model in PUBLISHED.items())
print(f"{right} of {len(PUBLISHED)} agree exactly with the published numbers")

# %%
guess_envelope.compare("by 16%")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 6,738,415,616 for LLaMA 7B, 67,425,001,472 for DeepSeek LLM 67B, 405,853,388,800 for Llama 3 405B: all 11 rows of the family,
# exactly. (Heads "64/8" means 64 heads of queries and 8 of keys and values.)
# </details>
#
# **Why it works.** The estimate assumes $4d^2$ for attention and $8d^2$ for the feed-forward branch. DeepSeek LLM 67B has 8
# key-value heads for 64 heads of queries, so its attention has $2.25d^2$, and its three matrices make $8.06d^2$. LLaMA 65B has
# the same feed-forward branch and full attention, and there the estimate is right almost by accident. For Llama 3 8B it errs
# the other way: its feed-forward branch is wider, $10.5d^2$.
#
# What are the key features of each? Models that share them are on one line below. BERT, GPT-2 and GPT-3 have biases, learned
# positions and tied heads; BERT is Post-LN, the GPTs are Pre-LN. GLM-130B uses DeepNorm, with exponents of its own (lesson 06).
# M2M-100 and DeepNet have an encoder and a decoder, so each decoder layer has a second attention. DeepNet's rows rest on an
# inference and a choice, since the paper states neither vocabulary nor positions: its three sizes imply about 250,000 tokens, and learned positions are our choice. `deepnet-edu models` prints the whole table, with sources, and counts a model of your own
# from a file.

# %%
NAMES = {"gelu": "GELU", "relu": "ReLU", "swiglu": "SwiGLU", "geglu": "GEGLU"}
groups = {}
for model in PUBLISHED.values():
    c = model.config
    parts = [c.architecture.replace("_", "-"), RESIDUALS[c.residual].title, {"rms": "RMSNorm"}.get(c.norm, "LayerNorm")]
    parts += [NAMES[c.activation], f"{c.position} positions"]
    parts += ["grouped queries"] * (c.n_kv_heads not in (0, c.n_heads)) + ["tied"] * c.shared_embeddings
    groups.setdefault(", ".join(parts), []).append(model.title.split(" (")[0])
for features, titles in groups.items():
    print(f"{features}\n   {', '.join(dict.fromkeys(titles))}")

# %% [markdown]
# ## Will it fit?
#
# Lesson 15 counted 16 bytes a parameter for weights, gradients and Adam's averages in float32. Large models are trained in 16
# bits, with a copy of the weights in float32: 2 + 2 + 12 bytes, which is 16 again. The difference is in what is sharded.
# ZeRO's stage 1 divides the 12 bytes of the optimizer, stage 2 the 2 bytes of the gradients as well, stage 3 everything.

# %%
guess_fit = kit.Guess(
    "How many H100 of 80 GB hold Llama 3 405B at stage 2, which shares optimizer and gradients?",
    ["about 80", "about 800", "no number does"],
)
guess_fit

# %%
BYTES = ((16, 0), (4, 12), (2, 14), (0, 16))  # per parameter: what each GPU holds whole, and what all share
print(f"{'':30}   GB held by each of 64 GPUs, at stage")
print(f"{'':30}{'0':>10}{'1':>10}{'2':>10}{'3':>10}")
for name in ("deepnet-200", "deepnet-1000", "deepseek-67b", "gpt3-175b", "llama3-405b"):
    held = [counts[name] * (whole + shared / 64) / 1e9 for whole, shared in BYTES]
    print(f"{PUBLISHED[name].title.split(' (')[0]:30}" + "".join(f"{gigabytes:10,.1f}" for gigabytes in held))
guess_fit.compare("no number does")

# %% [markdown]
# At stage 2 every GPU still holds all weights, 2 bytes each: 812 GB for Llama 3 405B. More GPUs do not change that. Only
# stage 3, or a pipeline, divides the weights. (Activations come on top. An optional exercise at the end turns this table into a
# number of GPUs.)
#
# ## How long, how much?
#
# Each weight takes part in a multiplication and an addition for each token, and the backward pass does twice as much: 6
# operations a weight and token (lesson 11). That gives the operations of a whole run. A GPU's data sheet gives the most operations that
# it can do in a second. Take the number for [dense](glossary.md) products: the one printed in large type is often for matrices
# that are half zeros. No run reaches even the dense peak; those that were measured use 20 to 50% of it.

# %% [markdown] exercise="bill" difficulty=2 importance=5 minutes=10
# ### The bill
#
# **Objective**: turn a model and its tokens into days and dollars.
#
# Write `bill(parameters, tokens, gpus, peak, mfu, price)`. `peak` is what one GPU can do at most, in operations a second, and
# `mfu` the share of it that the run uses (the model FLOPs utilisation of lesson 11). `price` is in dollars for one hour of one
# GPU. Return two numbers: the days that the run takes, and the dollars that it costs.
#
# Hint: Operations over speed is a time in seconds. What speed do all GPUs have together?
#
# Hint: You pay for GPU-hours: the hours of the run times the number of GPUs.


# %% exercise="bill"
def bill(parameters, tokens, gpus, peak, mfu, price):
    """Days and dollars of a training run: two numbers."""
    ### BEGIN SOLUTION
    hours = 6 * parameters * tokens / (gpus * peak * mfu) / 3600
    return hours / 24, hours * gpus * price
    ### END SOLUTION


# %%
check.bill(bill)

# %%
bill = kit.mine_or_reference(bill, "bill")


def in_layers(name):
    """Weights that a token passes: all but embeddings, positions and head."""
    parts = parameters_by_part(PUBLISHED[name].config)
    return sum(parts[part] for part in ("attention", "cross_attention", "feed_forward", "norms"))


TOKENS = 260_000 * 256 * 4096  # steps × tokens in a batch of the paper's 102-language model
WEIGHTS = in_layers("deepnet-200")
A_DAY, RENTED = 5_000, 128  # the article's rent
hourly = A_DAY / RENTED / 24
print(f"{WEIGHTS:,} weights × {TOKENS / 1e9:.1f} billion tokens × 6 = {6 * WEIGHTS * TOKENS:.3g} operations")
for label, gpus, key, share in (
    ("128 V100 at 30%", 128, "v100", 0.30),
    ("8 V100 at 30%", 8, "v100", 0.30),
    ("128 A100 at 40%", 128, "a100-80gb", 0.40),
):
    days, dollars = bill(WEIGHTS, TOKENS, gpus, GPUS[key].peak, share, hourly)
    print(f"{label:16} {days:7.2f} days, ${dollars:8,.0f} at ${hourly:.3f} for a GPU-hour")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 4.81e21 operations: 11.57 days and 57,828 dollars on 128 V100, 3.48 days and 17,418 dollars on as many A100 at the same price.
# On 8 V100 it is half a year, for the same bill.
# </details>
#
# **Why it works.** GPU-hours do not depend on how many GPUs work, as long as none of them waits. So the dollars depend on the model, its tokens and the GPU; the days depend on how many you rent.
#
# Two things to know about these numbers. The paper does not name its machines, so there are rows for two kinds of GPU. And we take
# its 256 × 4,096 tokens a batch to be those of one language, each of which comes with one of the other language: then a pair passes through all weights, the encoder's and the decoder's. If both languages together are meant, halve everything.
#
# Now the same run with other models. Each of them reads 273 billion tokens, on 8, 128 and 2,048 GPUs, and each bar goes from 45%
# of the peak down to 25%.

# %% tags=["headline"]
gpu, price = find_gpu(GPU), PRICE or hourly
SHOWN = ("deepnet-200", "deepnet-1000", "deepseek-7b", "m2m100-12b", "deepseek-67b", "gpt3-175b", "llama3-405b")
COUNTS = (8, 128, 2048)
runs = {
    PUBLISHED[name].title.split(" (")[0]: {
        gpus: tuple(bill(in_layers(name), TOKENS, gpus, gpu.peak, share, price) for share in (0.45, 0.25))
        for gpus in COUNTS
    }
    for name in SHOWN
}
first, last = (next(iter(runs.values())), runs["Llama 3 405B"])
Picture(
    days_and_dollars(runs),
    alt=f"Dollars against days, both logarithmic, for seven models on 8, 128 and 2,048 {gpu.title}. Each model is a row of three short "
    f"bars at one height, its bill: from {first[8][0][1]:,.0f} to {first[8][1][1]:,.0f} dollars for DeepNet's 200 layers to "
    f"{last[8][0][1] / 1e6:.1f} to {last[8][1][1] / 1e6:.1f} million for Llama 3 405B. Sixteen times as many GPUs move a bar to the left.",
)

# %%
for name, bars in runs.items():
    (fast, cheap), (slow, dear) = bars[128]
    print(f"{name:21} on 128 GPUs: {fast:7,.1f} to {slow:8,.1f} days, ${cheap:11,.0f} to ${dear:11,.0f}")
print(f"at ${price:.2f} for an hour of one {gpu.title}")

# %% [markdown]
# Read the picture in rows: on paper, speed is free. In practice many GPUs wait for each other and send to each other
# (lesson 15), and their bars move to the right and up. Read it in columns: only small models take days.
#
# Which end of a bar is likely? These runs were measured.

# %%
for run in UTILISATIONS:
    least, most = run.share
    print(f"{least:.0%}{f' to {most:.0%}' if most > least else '':7} {run.what}")

# %% [markdown]
# Deep and narrow models have an extra cost: thousands of small products follow one another (lesson 11). For DeepNet's
# 1,000 layers the expensive end is the likelier one.
#
# ## The article's claims
#
# Now the article. It says:
#
# 1. eight V100 cost 80,000 dollars;
# 2. 128 GPUs can be rented for about 5,000 dollars a day;
# 3. racks and cooling cost up to 10,000 dollars more;
# 4. training takes days or weeks;
# 5. it takes GPUs such as the V100 with 32 GB;
# 6. 200 layers of 3.2 billion parameters beat 48 layers of 12 billion by 5 BLEU;
# 7. Post-LN is stable only to a few dozen layers.
#
# Some can be judged by a division, and some cannot be judged by any number. The sixth is about these scores, from the paper's Table 3
# (M2M-100 first, then DeepNet).

# %%
SCORES = {"WMT": (31.9, 33.9), "OPUS": (18.4, 23.0), "TED": (18.7, 20.1), "Flores": (13.6, 18.6)}
guess_gain = kit.Guess(
    '"200 layers beat 48 layers by 5 BLEU": what does the paper show?',
    ["depth gives 5 BLEU", "depth gives less than 5", "what depth gives, it cannot tell"],
)
guess_gain

# %% [markdown] exercise="seed_claims" difficulty=2 importance=5 minutes=15
# ### The claims as numbers
#
# **Objective**: turn sentences into numbers that can be compared.
#
# Write `seed_claims(hardware, rent, run, scores)`. `hardware` is a pair, dollars and the GPUs that they buy. `rent` is a pair,
# dollars a day and the GPUs that they rent. `run` holds parameters, tokens, peak and utilisation. `scores` is a dictionary: by
# test, their BLEU and ours. Return a dictionary with seven numbers, under these names:
#
# - `"dollars a GPU"`: to buy one;
# - `"dollars a GPU-hour"`: to rent one;
# - `"break-even days"`: after how many days renting has cost as much as buying **as many** GPUs;
# - `"days"` and `"rent"`: how long the run takes on the rented GPUs, and their rent for that time;
# - `"largest gain"` and `"mean gain"`: in BLEU points, over the tests.
#
# Hint: First compute both prices for one GPU. A break-even compares equal numbers of GPUs.
#
# Hint: `bill` gives days and rent, once you know the price of a GPU-hour.


# %% exercise="seed_claims"
def seed_claims(hardware, rent, run, scores):
    """The article's sentences as a dictionary of seven numbers."""
    ### BEGIN SOLUTION
    cost, bought = hardware
    a_day, rented = rent
    parameters, tokens, peak, mfu = run
    hourly = a_day / rented / 24
    days, dollars = bill(parameters, tokens, rented, peak, mfu, hourly)
    gains = [ours - theirs for theirs, ours in scores.values()]
    return {
        "dollars a GPU": cost / bought,
        "dollars a GPU-hour": hourly,
        "break-even days": cost / bought * rented / a_day,
        "days": days,
        "rent": dollars,
        "largest gain": max(gains),
        "mean gain": sum(gains) / len(gains),
    }
    ### END SOLUTION


# %%
check.seed_claims(seed_claims)

# %%
seed_claims = kit.mine_or_reference(seed_claims, "seed_claims")
found = seed_claims((80_000, 8), (A_DAY, RENTED), (WEIGHTS, TOKENS, V100.peak, 0.3), SCORES)
prices = ("dollars a GPU", "dollars a GPU-hour", "break-even days")
for name in (*prices, "days", "rent", "largest gain", "mean gain"):
    print(f"{name:20}{float(found[name]):>12,.3f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 10,000 dollars a GPU, 1.628 a GPU-hour, break-even after 256 days; a run of 11.57 days for 57,828 dollars; a largest gain of 5.0
# and a mean gain of 3.25 BLEU.
# </details>
#
# **Why it works.** A claim consists of a number and of what was held fixed when it was measured. 80,000 and 5,000 dollars cannot be
# compared, since one sum buys 8 GPUs and the other rents 128. Take the same number on both sides, and the comparison means something:
# if you train for less than 256 days in all, rent.
#
# Now each claim with its number, and a verdict that depends on it.

# %%
power = 8 * V100.power / 1000  # kW of the boards
draws = [power * overhead for overhead in OVERHEAD]
years = [10_000 / (kilowatts * 24 * 365 * ELECTRICITY) for kilowatts in draws]
eight = bill(WEIGHTS, TOKENS, 8, V100.peak, 0.3, hourly)[0]
bytes_of = {name: 16 * counts[name] / 1e9 for name in ("deepnet-200", "deepnet-1000")}
days = found["days"]
verdicts = [
    (
        "8 V100 for $80,000",
        f"${found['dollars a GPU']:,.0f} each. From memory: about $149,000 for a machine with 8 of them in it",
        "the right order for the bare cards",
    ),
    (
        "128 GPUs, $5,000 a day",
        f"${found['dollars a GPU-hour']:.2f} a GPU-hour. From memory: $3.06 for a V100 on demand",
        "holds if reserved, not on demand" if found["dollars a GPU-hour"] < 3.06 else "holds",
    ),
    (
        "racks, cooling: $10,000",
        f"8 boards draw {power:.1f} kW, with machine and cooling {draws[0]:.1f} to {draws[1]:.1f}; $10,000 are "
        f"{years[1]:.1f} to {years[0]:.1f} years of electricity at ${ELECTRICITY:.2f} a kWh. An eighth of the cards: break-even "
        f"after {found['break-even days'] * 90 / 80:.0f} days",
        "cannot be judged: no source for the purchase",
    ),
    (
        "days or weeks",
        f"{days:.1f} days on 128 V100, {eight:.0f} on the 8 that were bought",
        "holds for 128, not for 8" if days < 60 < eight else "depends on the numbers above",
    ),
    (
        "V100 with 32 GB",
        f"3.2B need {bytes_of['deepnet-200']:.0f} GB without activations, 3.8B {bytes_of['deepnet-1000']:.0f}",
        "the size is right; one does not hold it" if min(bytes_of.values()) > 32 else "fits",
    ),
    (
        "5 BLEU from depth",
        f"gains of {', '.join(f'{ours - theirs:.1f}' for theirs, ours in SCORES.values())}, mean {found['mean gain']:.2f}",
        "right as a difference; its cause cannot be told",
    ),
    (
        "Post-LN: a few dozen",
        "the paper: 12 layers train, 36 do not. BERT: 24 do. Others: 256 do, at rates up to 2.8e-4",
        "holds for that recipe, not as a law",
    ),
]
for number, (claim, evidence, said) in enumerate(verdicts, 1):
    print(f"{number}. {claim}\n   {evidence}\n   → {said}")

# %% [markdown]
# **Hardware (1, 3).** The price of the cards is of the right order; a whole machine cost nearly twice as much. We found no
# source for what racks and cooling cost to buy. What can be computed is the power that they have to handle, and its price.
# "Cannot be judged" is a verdict, too.
#
# **Rent (2, 4).** 1.63 dollars a GPU-hour is a price for those who reserve for a long time. The times agree with the article,
# but only for 128 GPUs: with the eight of the first claim the same run takes half a year. Both claims may be true, but they
# do not describe the same project.
#
# **Memory (5).** Eight V100 hold either model, if weights, gradients and averages are shared (or the layers cut into stages).
# One holds neither. And a V100 has no bfloat16: it needs fp16 with loss scaling (lesson 10).
#
# **Post-LN (7).** In the paper's Table 1 plain Post-LN trains at 6 + 6 layers and diverges at 18 + 18. BERT large trained at
# 24. A later study (arXiv 2601.19895) raised the learning rate until training failed: Post-LN tolerated 3.0e-4 at 64 sub-layers
# and 2.8e-4 at 512, which is 256 layers. So "a few dozen" describes a recipe and its learning rate. It is not a property of the
# formula.
#
# **5 BLEU (6).** This one needs a table. How do the two models differ?

# %%
theirs, ours = (PUBLISHED[name] for name in ("m2m100-12b", "deepnet-200"))
rows = [
    ("layers", *(f"{m.config.encoder_layers}+{m.config.decoder_layers}" for m in (theirs, ours))),
    ("parameters", *(f"{m.parameters / 1e9:.1f}B" for m in (theirs, ours))),
    ("width", *(f"{m.config.d_model:,}" for m in (theirs, ours))),
    ("residual rule", "Pre-LN", "DeepNorm"),
    ("training data", "its own", "12 billion pairs, 1,932 directions"),
    ("scores measured by", "its own paper (3 of 4 tests)", "DeepNet's paper"),
]
print(f"{'':20}{'M2M-100':30}DeepNet")
for label, one, other in rows:
    print(f"{label:20}{one:30}{other}")
print(f"{sum(one != other for _, one, other in rows)} things differ, so no difference of scores belongs to one of them")
guess_gain.compare("what depth gives, it cannot tell")

# %% [markdown]
# The comparison is [confounded](glossary.md): depth changed together with width, rule, data and more. It is still true,
# and remarkable, that DeepNet is better and four times smaller. But that depth is the reason is not shown there.
#
# There is a clean comparison in the same paper. On OPUS-100 (Table 2) DeepNet was trained with 200 and with 1,000 layers of one
# width on the same data: 31.1 and 32.1 BLEU. Five times the layers, 4.4 times the parameters, one point. The lesson's last part
# is about that series.
#
# ## Is depth worth it?
#
# The paper's Figure 8 has DeepNet on OPUS-100 at five depths, and says that BLEU follows
#
# $$L(d) = A \log d + B,$$
#
# where $d$ is, here alone, the depth. A straight line on a logarithmic axis never ends: ten times the layers always add $A$.
# The alternative is a curve with a ceiling, $C - K d^{-p}$. We read the five scores off the figure, so each is right to about
# 0.2.

# %%
DEPTHS, BLEU = [12, 20, 100, 200, 1000], [25.25, 26.6, 30.1, 31.1, 32.05]
guess_law = kit.Guess(
    "Fit the paper's law to the first four depths. What does it predict for 1,000 layers, where 32.05 was measured?",
    ["31.0, too little", "32.1, about right", "34.7, too much"],
)
guess_law

# %% [markdown] exercise="predict_depth" difficulty=3 importance=4 minutes=18
# ### Two laws
#
# **Objective**: fit a law of depth, and use it to predict a depth that was not part of the fit.
#
# Write `predict_depth(depths, bleu, depth, law)`: the prediction of the law at `depth`, after it was fitted by least squares to
# the points (`depths`, `bleu`). `law` is `"log"`, $A \ln d + B$, or `"power"`, $C - K d^{-p}$. For the second try each $p$ of
# 0.05, 0.10, …, 3.00, fit $C$ and $K$, and keep the $p$ with the least sum of squared errors.
#
# Hint: Both laws are straight lines, in other axes: one in the logarithm of the depth, the other in a power of it.
#
# Hint: For one $p$ it is the same fit as for the logarithm. Sixty such fits take no time.


# %% exercise="predict_depth"
def predict_depth(depths, bleu, depth, law):
    """The prediction of a law of depth, fitted to points, at another depth: one number."""
    ### BEGIN SOLUTION
    best = None
    for p in [0] if law == "log" else np.arange(1, 61) / 20:
        *x, at = np.log([*depths, depth]) if law == "log" else np.array([*depths, depth], float) ** -p
        slope, start = np.polyfit(x, bleu, 1)
        error = sum((slope * np.array(x) + start - np.array(bleu)) ** 2)
        if best is None or error < best[0]:
            best = error, slope * at + start
    return float(best[1])
    ### END SOLUTION


# %%
check.predict_depth(predict_depth)

# %%
predict_depth = kit.mine_or_reference(predict_depth, "predict_depth")
LAWS = {"log": "A log d + B", "power": "C − K / d^p"}
print("fitted to 12, 20, 100 and 200 layers, at 1,000:")
for law, formula in LAWS.items():
    value = float(predict_depth(DEPTHS[:4], BLEU[:4], 1000, law))
    print(f"   {formula:12} {value:.2f}, off by {value - BLEU[-1]:+.2f}")
slope = float(predict_depth(DEPTHS, BLEU, 100, "log")) - float(predict_depth(DEPTHS, BLEU, 10, "log"))
print(f"fitted to all five: A = {slope:.2f} BLEU for ten times the layers")
guess_law.compare("34.7, too much")

# %%
leave_out = {
    law: [
        float(predict_depth(DEPTHS[:i] + DEPTHS[i + 1 :], BLEU[:i] + BLEU[i + 1 :], DEPTHS[i], law)) - BLEU[i]
        for i in range(len(DEPTHS))
    ]
    for law in LAWS
}
residuals = {
    law: [float(predict_depth(DEPTHS, BLEU, d, law)) - y for d, y in zip(DEPTHS, BLEU, strict=True)] for law in LAWS
}
curve = [int(d) for d in np.geomspace(10, 10_000, 40)]
figure, (left, right) = new_figure(2, width=9.6, height=4.2)
for i, (law, formula) in enumerate(LAWS.items()):
    left.plot(curve, [predict_depth(DEPTHS, BLEU, d, law) for d in curve], label=formula, **series_style(i))
    right.plot(DEPTHS, residuals[law], marker="os"[i], **series_style(i))
left.errorbar(DEPTHS, BLEU, 0.2, fmt="o", color="black", ms=5, capsize=3, label="measured (read off Figure 8, ±0.2)")
right.axhspan(-0.2, 0.2, color="#999999", alpha=0.25, lw=0)
right.axhline(0, color="black", lw=1)
left.set(xscale="log", xlabel="depth (layers)", ylabel="BLEU on OPUS-100")
right.set(xscale="log", xlabel="depth (layers)", ylabel="fit − measured (BLEU)")
legend_below(figure, left)
Picture(
    figure,
    alt="Left: BLEU against depth on a logarithmic axis, 25 at 12 layers to 32 at 1,000; the paper's straight line passes above the "
    "first and the last point and below the middle ones, the curve with a ceiling passes near all five and flattens. Right: the "
    "line's residuals are positive, near zero, negative, negative, positive; the curve's stay within 0.2.",
)

# %%
for law, formula in LAWS.items():
    of_fit, out = (", ".join(f"{x:+.1f}" for x in found[law]) for found in (residuals, leave_out))
    print(f"{formula:12} residuals {of_fit}   each point left out in turn {out}")
    print(f"{'':12} at 10,000 layers {float(predict_depth(DEPTHS, BLEU, 10_000, law)):.1f}")
spread = [
    predict_depth(DEPTHS[:4], [y + 0.2 * sign for y, sign in zip(BLEU, signs, strict=False)], 1000, "power")
    for signs in product((-1, 1), repeat=4)
]
print(f"reading errors of ±0.2 alone move the curve's 1,000 layers from {min(spread):.1f} to {max(spread):.1f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# From the first four points the line predicts 34.68 for 1,000 layers, the curve 33.05; 32.05 was measured. The line's residuals
# are +0.6, +0.1, −0.8, −0.7, +0.9: they bend.
# </details>
#
# **Why it works.** Residuals tell more than a sum of squares. Random signs would mean noise. Plus, minus, plus is a shape that
# the line does not have: gains shrink with depth. From 20 to 100 layers BLEU rises by 3.5, from 200 to 1,000, again five times,
# by 0.95.
#
# Is the ceiling proven, then? No. Three numbers were fitted to five points, four in the test, each read off a figure; reading
# errors alone move the prediction by more than a point either way. The curve is better by every measure here, but no more than
# that. And a ceiling of BLEU on this data, with this width, says nothing about other tasks.
#
# ## Your model, your price
#
# Here is everything above in one place. Bars left of the dashed line fit on a GPU, before activations. Try the paper's depth first; then
# take 15 layers of width 4,096, which have about as many parameters, and compare the share of the peak that such runs reach.

# %%
BudgetExplorer(depth=1000)

# %% [markdown]
# On the command line, with checkpoints, plans, waiting and sending counted:
# `deepnet-edu plan deepnet-1000 --gpu h200 --count 8 --tokens 100e9 --price 2.50`.
#
# ## For those who want more

# %% [markdown] exercise="fewest_gpus" difficulty=2 importance=3 minutes=10
# ### The fewest GPUs (optional)
#
# **Objective**: compute how many GPUs a model needs before anything runs.
#
# Write `fewest_gpus(parameters, memory, stage, activations)`: the fewest GPUs of `memory` bytes that hold the model at ZeRO's
# stage 0, 1, 2 or 3, where each GPU needs `activations` bytes besides. Of the 16 bytes per parameter each GPU holds 16, 4, 2 or 0
# whole, and all share 0, 12, 14 or 16. Return a whole number, or `None` where no number is enough.
#
# Hint: How much memory is left on a GPU after its activations and what it holds whole?
#
# Hint: Without room for what is shared no number is enough. With room, divide, and round up.


# %% exercise="fewest_gpus"
def fewest_gpus(parameters, memory, stage, activations):
    """GPUs that hold a model: a whole number, or None where no number is enough."""
    ### BEGIN SOLUTION
    whole, shared = [(16, 0), (4, 12), (2, 14), (0, 16)][stage]
    room = memory - activations - whole * parameters
    if room < 0 or (room == 0 and shared > 0):
        return None
    return max(1, ceil(shared * parameters / room)) if shared else 1
    ### END SOLUTION


# %%
check.fewest_gpus(fewest_gpus)

# %%
fewest_gpus = kit.mine_or_reference(fewest_gpus, "fewest_gpus")
for name, gigabytes, room in (("deepnet-1000", 32, 4), ("llama-65b", 80, 10), ("llama3-405b", 141, 20)):
    needed = [fewest_gpus(counts[name], gigabytes * 1e9, stage, room * 1e9) for stage in range(4)]
    print(f"{PUBLISHED[name].title:21} on GPUs of {gigabytes:3} GB, stages 0 to 3: {', '.join(map(str, needed))}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# DeepNet's 1,000 layers on V100: None, 4, 3, 3. LLaMA 65B on GPUs of 80 GB: None, None, None, 15.
# </details>
#
# **Why it works.** What is shared shrinks with the number of GPUs, but what each holds whole does not. So there is a size of model
# beyond which a stage stops working, however many GPUs there are.
#
# ## In three sentences
#
# 1. A configuration gives the exact number of parameters, and 16 bytes for each decide how many GPUs a model needs.
# 2. Six operations per weight and token, divided by the speed that the GPUs really reach, give days; GPU-hours give dollars, and more
# GPUs change only the days.
# 3. A claim needs a number and what was held fixed: the article's prices and times hold for 128 rented GPUs, and its 5 BLEU are a
#    difference between two models that differ in far more than depth.
#
# **Read next**: Touvron et al., arXiv 2302.13971, Section 6, for the energy of a real run; then lesson 18: what came after
# DeepNet?
