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
#       number of operations, tune each, and see which predicts the next byte better. Then give the same task
#       to a file compressor from the nineties.
#     objectives: >-
#       state a loss in bits per byte, compare depths at equal cost with a learning rate tuned for each, say whether such a
#       comparison holds, and write text with a cache.
#     prerequisites: lessons 03, 07 and 10. Lesson 11 counts operations.
#     minutes: 75
#     paper: Section 5 compares depths in translation. It has no language model.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
STEPS = 120  # of each live run, 1,024 bytes a step

# %%
import lzma
import time
import zlib

# %% tags=["imports"]
from math import inf, log, sqrt

# %%
import numpy as np

# %% tags=["imports"]
import torch

# %%
import torch.nn.functional as F

# %%
from deepnet_edu import RESIDUALS, ModelConfig, TrainConfig, build_model, train
from deepnet_edu.checks import check
from deepnet_edu.data import BytePairs, PackedText, count_models, python_topics
from deepnet_edu.figures import Picture
from deepnet_edu.figures.style import legend_below, line_style, new_figure
from deepnet_edu.model.attention import Cache
from deepnet_edu.model.generation import greedy, sample
from deepnet_edu.planning import flops_per_token
from deepnet_edu.training import TrainingDiverged

device = kit.setup(SEED, PROFILE)
SMOKE = PROFILE == "smoke"
STEPS = 10 if SMOKE else STEPS

# %% [markdown]
# ## Before you look
#
# Three questions. The answers come one by one.

# %%
guess_depth = kit.Guess(
    "The same text, the same number of operations, each with its own learning rate: which model predicts it best?",
    ["2 wide layers", "6 layers", "24 narrow layers"],
)
guess_depth

# %%
guess_lzma = kit.Guess(
    "A compressor (lzma, of 7-Zip) has seen the same training text. Against the best of these models it needs",
    ["more bits a byte", "about as many bits a byte", "fewer bits a byte"],
)
guess_lzma

# %%
guess_overlap = kit.Guess(
    "Held-out text is cut into windows of 65 bytes. Let them overlap, so that every byte has 63 before it. The loss falls by",
    ["about 0.5 bits a byte", "about 0.2 bits a byte", "less than 0.05 bits a byte"],
)
guess_overlap

# %% [markdown]
# ## A yardstick
#
# A loss in nats per token says little by itself; in [bits per byte](glossary.md) it can be compared. A token may be a byte, or a word. With longer tokens there are fewer of them, and each is harder to
# guess. So two models with different tokenizers cannot be compared by it. But they read the same *bytes*.

# %% [markdown] exercise="bits_per_byte" difficulty=1 importance=5 minutes=8
# ### A measure that does not depend on the tokenizer
#
# **Objective**: turn the loss of any language model into bits per byte.
#
# A model read `text` as `tokens` tokens, at a mean loss of `nats_per_token`. Write `bits_per_byte(nats_per_token, tokens, text)`: the cost of each byte of the
# text, in bits. The bytes are those of its UTF-8 form, in which `ö` has two and `日` three.
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
print(f"7 tokens at 2 nats, for {'Größe ≤ 9'!r}: {float(bits_per_byte(2.0, 7, 'Größe ≤ 9')):.6f}")


def bits(nats):
    """The same for a model whose tokens are bytes."""
    return float(bits_per_byte(nats, 1, "x"))


# %% [markdown]
# <details><summary>What you should see</summary>
#
# 1.553672: 14 nats are 20.2 bits, and the text has nine letters but 13 bytes.
# </details>
#
# **Why it works.** The text as a whole costs what it costs, however it is cut into tokens. Compressors are measured in bits per byte as well: a
# model at 2 bits a byte can, with arithmetic coding, shrink a file to a quarter.
#
# Which value is good, then? Here is the text, Python's own documentation, topic by topic. Manuals quote themselves, so topics that share a passage of twelve words are kept on the same
# side of the split. And here are six ways to predict its bytes that train nothing. Four of them count which byte follows the 0, 1, 2 or 3 bytes
# before it (a context that never occurred is shortened). Two compress: by how much does the file grow if the test text is appended to the training text?
# All six have seen exactly what the model sees.

# %%
topics = python_topics()
JOINED = {name: "\n\n".join(documents) for name, documents in topics.items()}
known, asked = (JOINED[name].encode() for name in ("train", "test"))


def appended(compress):
    """Bits that each byte of the test part adds to a compressed file of the training part."""
    return 8 * (len(compress(known + asked)) - len(compress(known))) / len(asked)


ORDERS = ("bytes alone", "1 byte before", "2 bytes before", "3 bytes before")
YARDSTICKS = dict(zip(ORDERS, count_models(JOINED["train"], JOINED["test"]), strict=True))
YARDSTICKS |= {"zlib": appended(lambda data: zlib.compress(data, 9)), "lzma": appended(lzma.compress)}

# %% tags=["nbval-ignore-output"]
for name, part in topics.items():
    print(f"{name:12}{len(part):3} topics, {len(JOINED[name].encode()):8,} bytes")
print()
for name, value in {"all 256 equally likely": 8.0, **YARDSTICKS}.items():
    print(f"{name:24}{value:5.2f} bits a byte")

# %% [markdown]
# zlib looks back 32,768 bytes at most. lzma looks back through the whole training text.
#
# ## Equal what?
#
# "A deeper model is better" is easy to show: make it deeper and change nothing else. It then has more parameters and costs more operations. To ask what
# *depth* buys, something must be held equal, and that determines the width. Lesson 11 counted operations; here the count is inverted.

# %% [markdown] exercise="equal_flop_width" difficulty=3 importance=5 minutes=12
# ### Equal what?
#
# **Objective**: find the width at which a model of given depth costs as much as another model.
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
print(f"16 layers, 2e7 FLOPs, 256 tokens, 1,000 words, even: width {int(equal_flop_width(16, 2e7, 256, 1000, 2))}")


tokenizer = BytePairs()  # of no pairs: every byte is a token, numbered from 3
PARTS = {
    name: torch.tensor(tokenizer.encode(JOINED[part])) for name, part in (("tune", "validation"), ("test", "test"))
}


def shape(rule, layers, width, longest=256):
    """A decoder that reads bytes."""
    sizes = {
        "d_model": width,
        "n_heads": 2,
        "d_ff": 4 * width,
        "vocab_size": tokenizer.vocab_size,
        "max_length": longest,
    }
    return ModelConfig("decoder", "lm", layers, residual=rule, position="sinusoidal", **sizes)


def parameters(layers, width):
    """Number of parameters of such a model."""
    return sum(p.numel() for p in build_model(shape("deepnorm", layers, width), device="meta").parameters())


BUDGET = 1.68e6 if PROFILE != "gpu" else 1e9  # FLOPs for each byte
ALL_DEPTHS = (2, 6, 12, 24, 48, 100)
FLOPS_WIDTHS = {n: int(equal_flop_width(n, BUDGET, 64, tokenizer.vocab_size, 4)) for n in ALL_DEPTHS}
SIZE = parameters(6, FLOPS_WIDTHS[6])


def equal_size_width(layers):
    """The widest model that has no more parameters than the one of 6 layers."""
    width = 4
    while parameters(layers, width + 4) <= SIZE:
        width += 4
    return width


print("        equal FLOPs:                               equal parameters:")
print("layers   width  MFLOP a byte  in attention           width")
for layers, width in FLOPS_WIDTHS.items():
    total = flops_per_token(shape("deepnorm", layers, width), 64)
    attention = 6 * layers * width * 65 / total
    print(f"{layers:6}{width:8}{total / 1e6:14.2f}{attention:14.0%}{equal_size_width(layers):16}")
print("\nthe same FLOPs with 2,048 bytes of context instead of 64:", end=" ")
print(", ".join(f"{n} × {int(equal_flop_width(n, BUDGET, 2048, tokenizer.vocab_size, 4))}" for n in (2, 6, 24)))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 118 for the first one. Attention takes a few per cent of the cost of a wide, shallow model and a third of that of the narrowest. With 64 bytes of context equal
# FLOPs and equal parameters give nearly the same widths; with 2,048 they would not.
# </details>
#
# **Why it works.** Per token, weights cost $72Ld^2$ and attention $6Ld(T+1)$: the narrower the model and the longer the text, the larger the share of attention. Equal
# parameters, equal FLOPs and equal seconds are three different comparisons, and a paper should say which one it makes.
#
# At 100 layers this budget leaves a width that no one would choose. A fair comparison at 100 layers needs a larger budget: the record at the end of this lesson has one.
# The live runs have three depths.

# %% tags=["nbval-ignore-output"]
DEPTHS = (1, 3) if SMOKE else (2, 6, 24)
RATES = (3e-3, 1e-2) if SMOKE else (1e-3, 3e-3, 1e-2, 3e-2)
WINDOWS = 20 if SMOKE else 150
WIDTHS = {n: 16 if SMOKE else int(equal_flop_width(n, BUDGET, 64, tokenizer.vocab_size, 4)) for n in DEPTHS}


@torch.no_grad()
def byte_losses(model, data):
    """Losses in windows of 65 bytes side by side, nats: (windows, 64)."""
    rows = data[: WINDOWS * 65].view(-1, 65).to(device)
    return F.cross_entropy(model(rows[:, :-1]).mT, rows[:, 1:], reduction="none").cpu().double()


def run(rule, layers, rate, seed=SEED):
    """Train one arm at one rate. Returns what compare_arms reads, the model, and its test losses by window, bits."""
    model = build_model(shape(rule, layers, WIDTHS[layers]), seed=seed, device=device)
    recipe = TrainConfig(STEPS, learning_rate=rate, warmup=STEPS // 10, schedule="cosine", seed=seed)
    found = {"arm": (rule, layers), "rate": rate, "seed": seed}
    text = PackedText(topics.train, tokenizer, validation=topics.validation, length=64, batch_size=16, seed=seed)
    try:
        train(model, text, recipe, progress=False)
        losses = {name: byte_losses(model, data).mean(1).numpy() / log(2) for name, data in PARTS.items()}
    except TrainingDiverged:  # counts as equal to counted bytes
        losses = {name: np.full(WINDOWS, YARDSTICKS["bytes alone"]) for name in PARTS}
    return found | {name: float(one.mean()) for name, one in losses.items()}, model, losses["test"]


arms, runs, kept = [], [], {}


def tried(rule, layers):
    """Run an arm at every rate and print the losses on the part that chooses."""
    arms.append((rule, layers))
    line = f"{RESIDUALS[rule].title:10}{layers:4} layers × {WIDTHS[layers]:3}  "
    for rate in RATES:
        found, *rest = run(rule, layers, rate)
        runs.append(found)
        kept[rule, layers, rate] = rest
        line += f"{found['tune']:9.3f}"
    print(line)


print("bits a byte on the part that chooses, by learning rate\n" + " " * 28 + "".join(f"{rate:>9g}" for rate in RATES))
for layers in DEPTHS:
    tried("deepnorm", layers)

# %% tags=["nbval-ignore-output"]
for rule in ("pre_ln", "post_ln"):
    tried(rule, DEPTHS[-1])

# %% [markdown]
# Which rate is right? The one that is best on text that was not trained on. But then its loss on that text is a little too good, since the luckiest of several rates was taken. So
# one part of the [held-out](glossary.md) text chooses, and another one reports.

# %% [markdown] exercise="compare_arms" difficulty=2 importance=5 minutes=12
# ### Compare only what was tuned
#
# **Objective**: let each arm have its own learning rate without letting luck choose the result.
#
# `runs` is a list of dictionaries with the keys `arm` (a name), `rate`, `seed`, `tune` and `test`: the losses on two parts of the held-out text. Write
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
MADE_UP = {  # arm: rate, tune and test of two seeds each
    "wide": {0.001: ((3.0, 3.1), (3.2, 3.1)), 0.003: ((2.8, 2.9), (2.8, 2.9)), 0.01: ((2.4, 3.6), (2.5, 3.5))},
    "deep": {0.001: ((2.9, 3.0), (3.0, 3.0)), 0.003: ((3.1, 3.2), (3.1, 3.3))},
}
made_up = [
    {"arm": arm, "rate": rate, "seed": seed, "tune": tune, "test": test}
    for arm, rates in MADE_UP.items()
    for rate, both in rates.items()
    for seed, (tune, test) in enumerate(zip(*both, strict=True))
]
for arm, (rate, loss, edge) in sorted(compare_arms(made_up).items()):
    print(f"{arm}: {float(loss):.2f} at {float(rate):g}, {'at the edge' if edge else 'inside'}")


# %% tags=["nbval-ignore-output"]
def by_arm(runs):
    """The result of compare_arms, by rule and layers; it takes the arms by name."""
    names = {f"{rule} {layers}": (rule, layers) for rule, layers in (run["arm"] for run in runs)}
    named = [{**run, "arm": "{} {}".format(*run["arm"])} for run in runs]
    return {names[name]: found for name, found in compare_arms(named).items()}


compared = by_arm(runs)
spread = {}
for arm in arms:
    rate, loss, edge = compared[arm]
    _, windows = kept[(*arm, rate)]
    spread[arm] = float(windows.std(ddof=1) / np.sqrt(len(windows)))
    where = "   at the edge: not tuned" if edge else ""
    print(
        f"{RESIDUALS[arm[0]].title:10}{arm[1]:4} layers: {float(loss):.3f} ± {spread[arm]:.3f} at {float(rate):g}{where}"
    )


def against(a, b):
    """Difference of two arms on the same windows, and its standard error, bits a byte."""
    one, other = (kept[(*arm, compared[arm][0])][1] for arm in (a, b))
    return float((one - other).mean()), float((one - other).std(ddof=1) / np.sqrt(len(one)))


first, last = ("deepnorm", DEPTHS[0]), ("deepnorm", DEPTHS[-1])
print("\nthe same windows, so differences are known better than values (± one standard error)")
for a, b in (
    (("deepnorm", DEPTHS[1]), first),
    (last, first),
    (("pre_ln", DEPTHS[-1]), last),
    (("post_ln", DEPTHS[-1]), last),
):
    difference, error = against(a, b)
    print(f"{RESIDUALS[a[0]].title} {a[1]} minus {RESIDUALS[b[0]].title} {b[1]}: {difference:+.3f} ± {error:.3f}")

# %% tags=["nbval-ignore-output"]
best = min((arm for arm in arms if arm[0] == "deepnorm"), key=lambda arm: compared[arm][1])
options = dict(zip(DEPTHS, guess_depth.options, strict=False))
guess_depth.compare(options[best[1]])
for arm in arms[: len(DEPTHS)]:
    difference, error = against(arm, best)
    if arm != best and difference < 2 * error:
        print(f"but {arm[1]} layers are within two standard errors of it")
gap = float(compared[best][1]) - YARDSTICKS["lzma"]
guess_lzma.compare(
    "fewer bits a byte" if gap > 0.05 else "more bits a byte" if gap < -0.05 else "about as many bits a byte"
)
print(f"best model {float(compared[best][1]):.2f}, lzma {YARDSTICKS['lzma']:.2f} bits a byte")

# %% tags=["headline", "nbval-ignore-output"]
figure, (ax,) = new_figure(1, width=7, height=4.2)
ax.errorbar(
    DEPTHS,
    [compared["deepnorm", n][1] for n in DEPTHS],
    yerr=[2 * spread["deepnorm", n] for n in DEPTHS],
    marker="o",
    ms=8,
    mfc="none",
    capsize=3,
    label="DeepNorm, live",
    **line_style("deepnorm"),
)
for rule, marker in (("pre_ln", "s"), ("post_ln", "x")):
    arm = (rule, DEPTHS[-1])
    look = {"color": line_style(rule)["color"], "linestyle": "none"}
    ax.errorbar(
        arm[1],
        compared[arm][1],
        yerr=2 * spread[arm],
        marker=marker,
        ms=9,
        mfc="none",
        capsize=3,
        label=f"{RESIDUALS[rule].title}, live",
        **look,
    )
for i, (name, value) in enumerate(YARDSTICKS.items()):
    ax.axhline(value, color="#555555", linestyle=(0, (1, 1 + i)), linewidth=1.5)
    counted = name in ORDERS  # compressors at the other end: zlib's line covers that of three bytes
    ax.annotate(
        name, (counted, value), (-4 if counted else 4, -12 if name == ORDERS[-1] else 3), ha="right" if counted else "left",
        xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=9,
    )  # fmt: skip
ax.set(
    xscale="log",
    ylabel="bits a byte on held-out text",
    xlabel=f"layers ({BUDGET / 1e6:g} MFLOP a byte each, {STEPS * 1024:,} bytes read)",
    ylim=(0, None),
)
ax.set_xticks(DEPTHS, [f"{n} × {WIDTHS[n]}" for n in DEPTHS])
ax.minorticks_off()
legend_below(figure, ax)
Picture(
    figure,
    alt="Bits a byte against depth at equal FLOPs, all points live, one seed, with two standard errors. DeepNorm is level from 2 to 6 layers, at the line of counts with one byte "
    "before, and higher at 24. There Pre-LN is beside it, and Post-LN near the line of bytes alone. The lines of longer counts, zlib and lzma are far below all points.",
)

# %%
draws = np.random.default_rng(SEED).normal(size=(200_000, 5))
luck = -float(draws.min(1).mean())
print(f"of 5 equal rates the best looks {luck:.2f} deviations better than it is")
print(f"with 0.02 bits from seed to seed and 3 seeds a rate: {luck * 0.02 / sqrt(3):.3f} bits a byte")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The made-up arms: wide 2.85 at 0.003, deep 3.00 at 0.001, at the edge. (One wide run at 0.01 was the luckiest of all; the mean at 0.01 is not the best.) Live, with DeepNorm: 3.60 with 2 layers, 3.59
# with 6, 4.18 with 24. With 24 layers Pre-LN has 4.15, and Post-LN 4.55, not far below the 4.70 of bytes alone, with its best rate at the edge.
# </details>
#
# **Why it works.** Each arm gets the rate that it needs, after the same number of tries. A best rate at the edge means that the search ended too early: that arm is not tuned, and a table has to say so. And
# the chosen rate looks better than it is: the best of five *equal* rates looks 1.16 deviations better. That is why another part of the text is used to report.
#
# Which of these sentences may you write now? Decide before you unfold.
#
# - (a) At this budget, on this text, 2 wide layers beat 24 narrow ones.
# - (b) Depth harms language models.
# - (c) At 24 layers Pre-LN beats DeepNorm.
# - (d) The arms cost the same.
#
# <details><summary>Which of them hold</summary>
#
# Only (a): 0.58 ± 0.02 bits a byte on the same windows, with both best rates inside those tried; for one seed and 122,880 bytes read. (b) is about budgets that were not run, and 6 layers cannot even be told from 2 here
# (-0.016 ± 0.011). (c) 0.028 ± 0.016 is less than two standard errors, with one seed each. (d) Operations agree to 6%, since widths come in steps; seconds and memory were not held equal.
# </details>
#
# ## How the text is cut
#
# So far the windows were side by side, and the first bytes of each had little context. A fair test gives each byte as much context as the model can use.

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
# Hint: Keep track of the first byte that no window has scored.
#
# Hint: Entry 0 of a window's losses belongs to byte `begin + 1`. At which entry does the new part begin, also in the last window?


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


def fading(begin, end):
    """A model that errs less the more it has before it."""
    return np.array([1 + 3 / (1 + i - begin) + 0.1 * np.sin(7 * i) for i in range(begin + 1, end)])


for stride in (7, 3, 1):
    print(f"23 bytes, windows of 8, stride {stride}: {float(strided_loss(fading, 23, 8, stride)):.6f}")

# %% tags=["nbval-ignore-output"]
reader = kept[(*best, compared[best][0])][0]
PASSAGE = PARTS["test"][: 200 if SMOKE else 2000]


@torch.no_grad()
def losses(begin, end):
    """Losses of the bytes begin + 1 to end - 1 of a passage, by the best live model."""
    rows = PASSAGE[begin:end][None].to(device)
    return F.cross_entropy(reader(rows[:, :-1])[0], rows[0, 1:], reduction="none").cpu().double().numpy()


STRIDES = (64, 48, 32, 16, 8)
by_stride = {stride: bits(strided_loss(losses, len(PASSAGE), 65, stride)) for stride in STRIDES}
print("stride   bits a byte   windows read")
for stride, value in by_stride.items():
    print(f"{stride:6}{value:14.3f}{(len(PASSAGE) - 65) // stride + 2:15}")
at = byte_losses(reader, PARTS["test"]).mean(0).numpy() / log(2)
print(
    "\nbits of a byte with this many before it: "
    + ", ".join(
        f"{n}: {at[a - 1 : b].mean():.2f}"
        for n, a, b in (("1", 1, 1), ("2", 2, 2), ("3-4", 3, 4), ("5-8", 5, 8), ("9-16", 9, 16), ("17-64", 17, 64))
    )
)
gain = by_stride[64] - by_stride[8]
guess_overlap.compare(
    "less than 0.05 bits a byte" if gain < 0.05 else "about 0.2 bits a byte" if gain < 0.35 else "about 0.5 bits a byte"
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 1.782924, 1.542502, 1.501917 for the made-up model, which uses all the context that it gets. Live: 3.47 with windows side by side, 3.49 at stride 8. Overlap gains nothing.
# </details>
#
# **Why it works.** Overlap helps only as far back as a model looks. This one has barely learned to use more than four bytes (3.8 bits with one byte before, 3.5 to 3.6 from the fifth on), and few bytes of a window have fewer than that. A model that
# uses a thousand tokens gains a lot: state window and stride beside the loss, or the loss cannot be compared.
#
# ## Writing with a cache
#
# To write a text, a model predicts a byte, appends it, and reads everything again to predict the next one: $T$ passes over up to $T$ tokens. But causal attention never
# looks ahead. What a layer has computed for old tokens does not change when a new one comes, so its keys and values can be kept in a [cache](glossary.md).

# %% [markdown] exercise="cached_attention" difficulty=4 importance=5 minutes=20
# ### Attention with a cache
#
# **Objective**: read new tokens without reading the old ones again.
#
# Write `cached_attention(x, w_q, w_k, w_v, cache=None)`, one causal head. `x` has shape $(t, d)$ and holds the new tokens only; the weights have
# shape $(d, h)$. `cache` is what an earlier call returned, or `None`. Return two things: the outputs of the new tokens, $(t, h)$, and the cache for
# the next call. Reading a text chunk by chunk must give what one call for the whole text gives. Scores are divided by
# $\sqrt{h}$. Leave an old cache as it is: two continuations may begin from it.
#
# Hint: How many queries are there, and how many keys? The new tokens come last.
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
identity = torch.eye(3, dtype=torch.float64)
print(cached_attention(identity, identity, identity, identity)[0].numpy().round(4))
draw = torch.Generator().manual_seed(SEED)
tokens, *weights = (
    torch.randn(*size, generator=draw, dtype=torch.float64) for size in ((40, 16), (16, 8), (16, 8), (16, 8))
)
whole, _ = cached_attention(tokens, *weights)
for chunks in ((1,) * 40, (3, 37), (20, 1, 19)):
    cache, parts = None, []
    for chunk in tokens.split(chunks):
        y, cache = cached_attention(chunk, *weights, cache)
        parts.append(y)
    off = (torch.cat(parts) - whole).abs().max().item()
    print(f"{len(chunks):3} chunks: largest difference {'below 1e-12' if off < 1e-12 else f'{off:.0e}'}")

# %% [markdown]
# Now the whole model: its logits with a cache, byte by byte, compared with those of one pass over everything.

# %%
deep = build_model(shape("deepnorm", 12, 32), seed=SEED).double()
passage = PARTS["test"][None, :100]
with torch.no_grad():
    at_once = deep(passage)
    cache = Cache()
    one_by_one = torch.cat([deep(passage[:, i : i + 1], cache=cache) for i in range(passage.shape[1])], 1)
off = (at_once - one_by_one).abs().max().item()
print(f"100 bytes, float64: largest difference of a logit {'below 1e-10' if off < 1e-10 else f'{off:.0e}'}")
memory = 2 * deep.config.decoder_layers * 100 * 32 * 4
print(f"a cache of keys and values holds {memory:,} bytes in float32 after 100 bytes of text")


# %% tags=["nbval-ignore-output"]
@torch.no_grad()
def again(model, prompt, count):
    """Greedy writing that reads everything again for each byte."""
    for _ in range(count):
        prompt = torch.cat([prompt, model(prompt)[:, -1:].argmax(-1)], 1)
    return prompt[:, -count:]


writer = build_model(shape("deepnorm", 6, 64), seed=SEED, device=device)
prompt = PARTS["test"][None, :8].to(device)
greedy(writer, prompt, 2), again(writer, prompt, 2)  # what comes first is slower
print("bytes written   with a cache (s)   reading all again (s)   times as fast   the same bytes")
for count in (16, 32) if SMOKE else (32, 128, 512):
    seconds, wrote = [], []
    for write in (greedy, again):
        begin = time.perf_counter()
        wrote.append(write(writer, prompt, count))
        seconds.append(time.perf_counter() - begin)
    same = torch.equal(*wrote)
    print(f"{count:13}{seconds[0]:19.2f}{seconds[1]:24.2f}{seconds[1] / seconds[0]:16.1f}{'yes' if same else 'no':>17}")

# %% [markdown]
# And this is what the best live model writes.

# %% tags=["nbval-ignore-output"]
begin = torch.tensor([tokenizer.encode("The following ")], device=device)
for temperature in (0.5, 1.0):
    made = sample(reader, begin, 200, generator=torch.Generator(device).manual_seed(SEED), temperature=temperature)
    print(f"temperature {temperature}: The following {tokenizer.decode(made[0].tolist())!r}\n")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 1, 0, 0 · .3595, .6405, 0 · .2645, .2645, .4711 for the identity. Chunks of any size give the same, and so do the logits of the whole model and the bytes that it writes. Writing was about four times as fast at each length.
# </details>
#
# **Why it works.** Old tokens never look ahead, so what was computed for them does not change. A new byte costs one row of scores with a cache, and a whole pass over everything without one, so the work saved grows with the text. In this small model
# a pass consists mostly of the start-up cost of its calls, whether it reads 1 token or 500, so the factor does not grow yet. The price is memory: two vectors for each token and layer.
#
# ## From 2 to 100 layers
#
# Three depths, one seed and 122,880 bytes are only a start. The record has depths from 2 to 100 layers with a larger budget, more text and three rules: at equal FLOPs, and again at equal parameters, at which the widths
# differ where attention is expensive. It takes an hour on two cores, and is read here once it has been made.


# %% tags=["nbval-ignore-output"]
def recorded(record):
    """Both comparisons of the record: printed, and as a picture."""
    figure, axes = new_figure(2, width=10, height=4)
    for ax, (panel, title) in zip(
        axes, {"flops": "equal FLOPs", "parameters": "equal parameters"}.items(), strict=True
    ):
        widths = {int(layers): width for layers, width in record.head["widths"][panel].items()}
        rows = [
            {"arm": (one["rule"], one["layers"]), **one}
            for one in record.runs
            if widths.get(one["layers"]) == one["width"]
        ]
        table = by_arm(rows)
        print(f"\n{title}, bits a byte at the tuned rate (* at the edge of those tried)")
        for rule in record.head["rules"]:
            depths = sorted(layers for name, layers in table if name == rule)
            values = {n: float(table[rule, n][1]) for n in depths}
            ax.plot(depths, values.values(), marker="s", label=f"{RESIDUALS[rule].title}, recorded", **line_style(rule))
            edges = {n: "*" if table[rule, n][2] else "" for n in depths}
            print(
                f"   {RESIDUALS[rule].title:10}"
                + "  ".join(f"{n} × {widths[n]}: {values[n]:.3f}{edges[n]}" for n in depths)
            )
        for value in YARDSTICKS.values():
            ax.axhline(value, color="#555555", linestyle=":", linewidth=1)
        ax.set(xscale="log", xlabel="layers", title=title)
        ax.set_xticks(sorted(widths), [str(n) for n in sorted(widths)])
        ax.minorticks_off()
    axes[0].set_ylabel("bits a byte on held-out text")
    legend_below(figure, axes[0])
    return Picture(
        figure,
        alt="Bits a byte against depth from 2 to 100 layers, recorded points, a line for each rule; left at equal FLOPs, right at equal parameters. "
        "Dotted lines: single bytes, pairs of bytes, zlib, lzma.",
    )


try:
    record = kit.Results("lesson_12")
    print(record.source())
except FileNotFoundError as missing:
    record = None
    print(missing)
recorded(record) if record else None

# %% [markdown]
# ## In three sentences
#
# 1. Losses can be compared in bits per byte, and have a meaning beside counts of bytes and a compressor that have read the same text.
# 2. What depth buys depends on what is held equal, on the budget, and on a learning rate that is tuned for each arm: here 2 and 6 layers cannot be told apart, 24 are worse, and counting which byte follows three others beats them all.
# 3. Causal attention never looks ahead, so keys and values can be kept, and writing with a cache gives the same bytes in a fraction of the time.
#
# **Read next**: DeepNet, Section 5, for depth in translation; arXiv 2203.15556 for what else may be held equal.
