# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: Where is the edge of trainability?
#     opening: >-
#       So far the numbers were given. Now you choose them: in six explorers you change depth, α and β interactively. Theory
#       is drawn while you move a dial, real models are measured when you stop, and a map of several hundred training runs
#       shows where a stack can learn and where it cannot.
#     objectives: >-
#       find by hand, by formula and by experiment which α a stack of a given depth needs; tell a stack that has lost its
#       input from one that is merely slow; and say what a bound on the update does and does not promise.
#     prerequisites: >-
#       lessons 00 and 01. (Lessons 05 and 06 derive the bound that you use here; you can meet it first, and prove it later.)
#     minutes: 75
#     paper: Section 4, where α and β are chosen.
# ---

# %% [markdown]
# Every explorer is a few dials and a picture. A slider moves in fixed steps; beside it is a field for a number of your own. With
# the keyboard: Tab goes to the next dial, the arrow keys move it.
#
# If you have one hour, stop after the update race: the last exercise, the constants, the cost and the game keep for
# another day.
#
# Each picture says what is theory and what was measured. Where nothing was recorded for exactly your settings, a real
# model is built and measured in the background. Your next move stops it.

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
DEPTH = 0  # layers of the stack that is measured; 0: what the profile says

# %% tags=["imports"]
from dataclasses import replace
from math import sqrt

import numpy as np

# %%
from deepnet_edu import build_model
from deepnet_edu.checks import check
from deepnet_edu.explorers import (
    ConstantsExplorer,
    CostExplorer,
    GameExplorer,
    RaceExplorer,
    SignalExplorer,
    TrainabilityExplorer,
    load,
    measured,
)
from deepnet_edu.figures import Picture
from deepnet_edu.figures.style import legend_below, new_figure, series_style
from deepnet_edu.theory import predict

device = kit.setup(SEED, PROFILE)
depth = DEPTH or (48 if PROFILE == "smoke" else 400)
grid = load()

# %% [markdown]
# ## Send a signal through a stack
#
# DeepNorm is $x \leftarrow \mathrm{LN}(\alpha x + F(x))$, with the weights of $F$ drawn with gain β
# ([symbols](notation.md)). The paper ties both to the depth:
# $\alpha = (2N)^{1/4}$ and $\beta = (8N)^{-1/4}$ for N layers. What if you take another α?
#
# In this lesson β follows α: $\beta = 1/(\sqrt 2\,\alpha)$, the split that the paper's own constants obey
# ($\alpha^2\beta^2 = \tfrac12$). So there is one number to choose.

# %%
guess_memory = kit.Guess(
    "400 layers, β = 1/(√2·α). At which α is about half of the input still there at the top?",
    ["α = 1", "α = 2", "α = 5", "α = 20"],
)
guess_memory

# %% [markdown]
# Now look. Set **α and β** to "β = 1/(√2·α), the paper's split", and move **α** until the panel "Is the input still there?"
# ends at one half.
#
# Leave α there and set **gain of init** to 3: what is left? Set **α and β** to "the rule's own" and look again. Last, set
# **gain of init** to 1 and **rule** to Post-LN, at 12, 48 and 400 layers.

# %%
SignalExplorer("deepnorm", depth=400)

# %%
guess_memory.compare("α = 2")

# %% [markdown]
# Four things to have seen:
#
# - The share of the input falls off a cliff. By the explorer's theory less than a thousandth is left at α = 1.5, two fifths
#   at 2.0, nine tenths at 2.8.
# - The paper's α has room. There a gain of 3 costs a part of the input; at α = 2 it costs everything.
# - Where the input is lost, the tokens become similar. What is left is what all of them share.
# - Variance says nothing here. The norm sets it to 1, whether the input is left or not.
#
# Where is the edge of this cliff, as a formula?

# %% [markdown] exercise="edge_alpha" difficulty=3 importance=5 minutes=10
# ### The α that keeps the input
#
# **Objective**: say which α a stack needs to remember what it was given.
#
# DeepNorm's rule is $x \leftarrow \mathrm{LN}(\alpha x + F(x))$, 2N times in N layers. (N is the depth of a single stack here.)
# Here β is tied to α by $\beta = 1/(\sqrt{2}\,\alpha)$, so one constant is free.
#
# A branch is two matrices of gain β, so its variance is $f = s\beta^4$. Here s is the variance of a branch whose weights
# have gain 1. It is 1 for two square matrices (lesson 01), and about 0.2 for the layers of this lesson, with flat attention
# scores, while tokens differ. Take s as a constant. (Near the bottom of the cliff it is none: where little of the input is
# left, tokens become similar and s grows. So your formula is for the upper edge, about half of the input and more. The
# explorer's theory follows s down; the section after this one compares the two.)
#
# Write `edge_alpha(layers, share, s)`: the α at which the part `share` of the input's variance is left at the top of
# `layers` layers.
#
# Hint: Begin with one sub-layer: which part of the variance is still the input's after it (`input_share`, lesson 01)? Then
# put β in, so that α is the only unknown.
#
# Hint: Shares multiply. If `share` is left after all sub-layers, what did each of them keep?


# %% exercise="edge_alpha"
def edge_alpha(layers, share, s):
    """The α at which `share` of the input's variance is left at the top: one number."""
    ### BEGIN SOLUTION
    kept = share ** (1 / (2 * layers))
    return (s / (4 * (1 / kept - 1))) ** (1 / 6)
    ### END SOLUTION


# %%
check.edge_alpha(edge_alpha)

# %%
edge_alpha = kit.mine_or_reference(edge_alpha, "edge_alpha")
for layers in (10, 100, 1000):
    half, paper = edge_alpha(layers, 0.5, 0.2), (2 * layers) ** 0.25
    print(f"{layers:5,} layers keep half of the input at α = {half:.2f}, the paper takes {paper:.2f}")
print(f"one layer, s = 1: α = {edge_alpha(1, 0.5, 1.0):.3f}; 1,000 layers, s = 1: α = {edge_alpha(1000, 0.5, 1.0):.2f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# `edge_alpha(1, 0.5, 1)` is 0.919. At 1,000 layers half is left at α = 2.29 if s is 0.2, and at 2.99 if s is 1. The paper's
# α is 6.69 there.
# </details>
#
# **Why it works.** α works twice. The skip carries $\alpha^2$ of the variance, and β falls as α grows, so the branch falls
# as $\alpha^{-4}$. Together that is $\alpha^6$: a little more α saves a lot of input.
#
# For many layers $s/(4\alpha^6)$, what a sub-layer adds, is nearly $\ln(1/\text{share})/(2N)$. So this α grows as
# $N^{1/6}$: twice the depth, 12% more α.
#
# The paper's $(2N)^{1/4}$ grows faster: twice the depth, 19% more. To keep the input is necessary, not sufficient. A stack
# can remember its input and still be thrown off by its own updates.

# %% [markdown]
# ### Does a real stack agree?
#
# You have met two theories. Your formula takes s = 0.2 as a constant. The explorer's theory, `predict`, follows how similar
# the tokens become, and with them s. Take the αs at which your formula keeps 3%, 25%, 50% and 90% of the input, ask the other
# theory, and draw real stacks of three seeds.


# %%
def constants_of(alpha):
    """α with the β of this lesson, by name."""
    return {"alpha": float(alpha), "beta": 1 / (sqrt(2) * float(alpha))}


def share_of_real_stack(meter, alpha, seed):
    """Input share at the top of a freshly drawn stack."""
    settings = measured.SignalSettings("deepnorm", depth, **constants_of(alpha), seed=seed)
    return float(meter(settings)["input_share"][-1])


said = (0.03, 0.25, 0.5, 0.9)
alphas = [edge_alpha(depth, share, 0.2) for share in said]
followed = [float(predict(measured.decoder("deepnorm", depth, **constants_of(a)), 16).input_share[-1]) for a in alphas]
meters = {seed: measured.SignalMeter() for seed in (SEED, SEED + 1, SEED + 2)}
real = np.array([[share_of_real_stack(meter, a, seed) for seed, meter in meters.items()] for a in alphas])
print("share of the input at the top: formula, theory that follows s, real stacks")
for one, other, stacks in zip(said, followed, real, strict=True):
    print(f"formula {one:.0%}: theory ≈ {other:.1%}, real stacks ≈ {', '.join(f'{stack:.1%}' for stack in stacks)}")

# %%
half = alphas[2]
s_of_real = 4 * half**6 * (real[2] ** (-1 / (2 * depth)) - 1)
kit.finding("where the formula keeps half, real stacks keep", real[2], above=0.25, below=0.75, form=".0%")
kit.finding(
    "so their s is", s_of_real, says="0.2 within a factor of two", holds=all(s_of_real > 0.1) and all(s_of_real < 0.4)
)
off = {"formula": np.abs(np.array(said) - real.mean(1)), "theory": np.abs(np.array(followed) - real.mean(1))}
kit.finding("distance from the mean of the real stacks", off, says="theory nearer each time",
            holds=all(off["theory"] < off["formula"]), form=".3f")  # fmt: skip

# %% tags=["nbval-ignore-output"]
kit.record(layers=depth, alpha=half, input_share=real[2], s=s_of_real)

# %% [markdown]
# Real stacks keep less than your formula says: at the upper edge a little less, at the bottom almost nothing where it says
# 3%. Two things are missing in it. Real scores are not flat, so attention's average cancels less. And as tokens become
# similar, the average cancels less and less, and the branch grows louder: s is not a constant. The theory that follows both
# is nearer each time. What the formula has instead is that you can read the power of the depth off it. (A share a little
# below 0 is noise: the part that two random directions have in common by chance is taken out.)
#
# ## Remembering is not yet learning
#
# A stack that has lost its input cannot learn from it. But does one that remembers learn? That takes training.
#
# The next picture is made of 384 runs of DeepNorm's rule with $\beta = 1/(\sqrt 2\,\alpha)$: 8 depths from 8 to 1,000
# layers, 16 values of α, three seeds. As in lesson 00 the stack alone is trained, on a table of 16 tokens: 40 steps of Adam
# at 10⁻³, the first 10 of them warm-up.
#
# First decide how a run is judged, before you see a curve.

# %% [markdown] exercise="outcome" difficulty=2 importance=4 minutes=8
# ### The verdict on a run
#
# **Objective**: turn a training curve into one word, by a rule that is written down before the run.
#
# Each cell of the map is a training run. Write `outcome(loss, similarity, chance)`. `loss` is an array (steps,), in nats per
# token, NaN where it was not a number. `similarity` is the [token similarity](glossary.md) at the top before training.
# `chance` is the loss of a uniform guess.
#
# The answer is one of four words, and the first that fits counts:
#
# - `"diverged"`: a loss, at any step, is not finite;
# - `"learned"`: the mean of the last five losses is below 1.0;
# - `"lost"`: `similarity` is above 0.9, and that mean is above `chance - 0.25`;
# - `"slow"`: everything else.
#
# Hint: Ask for numbers that are not finite first. NaN compares false with everything, so no later question would find it.
#
# Hint: `np.isfinite` answers for each step, and `loss[-5:]` are the last five. Return at the first rule that fits, in the
# order of the list.


# %% exercise="outcome"
def outcome(loss, similarity, chance):
    """The verdict on a run: "diverged", "learned", "lost" or "slow"."""
    ### BEGIN SOLUTION
    if not np.isfinite(loss).all():
        return "diverged"
    final = np.mean(loss[-5:])
    if final < 1.0:
        return "learned"
    return "lost" if similarity > 0.9 and final > chance - 0.25 else "slow"
    ### END SOLUTION


# %%
check.outcome(outcome)

# %%
outcome = kit.mine_or_reference(outcome, "outcome")
falling, flat = np.linspace(2.8, 0.1, 40), np.full(40, np.log(16))
print("falling:", outcome(falling, 0.1, np.log(16)))
print("flat, tokens similar:", outcome(flat, 0.99, np.log(16)))
print("flat, tokens apart:", outcome(flat, 0.1, np.log(16)))
print("one NaN:", outcome(np.append(np.nan, falling), 0.1, np.log(16)))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The four examples are learned, lost, slow and diverged, in this order.
# </details>
#
# **Why it works.** A loss near chance has more than one cause. If the tokens arrive nearly equal at the top, the head can
# hardly tell them apart: most of the information is gone before training starts. If they arrive different, the run may only be
# slow, and more steps or another learning rate could help. Similarity alone does not decide, so the rule asks for the loss
# too.
#
# Five losses are a compromise. One is a single batch, and noisy; many would mix the end of the run with its beginning.
# So is 1.0: any threshold is, and it has to be fixed before the runs.

# %%
guess_edge = kit.Guess(
    "Where on the map of depth and α does training fail?",
    ["only where α is too small", "only where α is too large", "on both sides of a band", "nowhere on this map"],
)
guess_edge

# %% [markdown]
# Your rule, on all recorded runs:

# %%
words = {"learned": 0, "slow": 0, "lost": 0, "diverged": 0}
learned = {}
for layers in grid.depths:
    table = []
    for a in grid.alphas:
        said = [outcome(run.loss, run.similarity, np.log(16)) for run in grid.cell(layers, a)]
        table.append([word == "learned" for word in said])
        for word in said:
            words[word] += 1
    learned[layers] = np.array(table)
print(sum(words.values()), "runs:", ", ".join(f"{count} {word}" for word, count in words.items()))

# %% tags=["nbval-ignore-output"]
print(grid.source)

# %% [markdown]
# ## The map
#
# No run diverged: the first word of your rule was written for a case that did not come.
#
# A cell's shade says how many of its three seeds learned, from none to all. Where not all did, its mark is your word for most
# of the others: lost (the tokens were similar from the start), slow (not yet learned), or diverged.
#
# Move **depth (layers)** and **α** over the map; **one run of the cell** walks through the three seeds of a cell. Stay at 256
# layers first: set **α** to its lowest stop, then go up.

# %% tags=["headline"]
TrainabilityExplorer(depth=256, alpha=4.0)

# %%
guess_edge.compare("on both sides of a band")

# %% [markdown]
# Two different ways to fail:
#
# - **Below** the band the tokens arrive nearly equal, and the loss stays at $\ln 16$ to the last step. The edge is sharp.
#   The dashed line, your formula for half of the input, runs along it up to 512 layers, a little above: a stack with a
#   tenth of its input can still learn.
# - **Above** the band the map says that a run is slow. Is something broken there, or are the branches only so faint
#   that 40 steps at this learning rate are too few? (Slow cells *below* the band, at 64 and 1,000 layers, are another
#   matter: see further down.)
#
# If the upper border belongs to the recipe, a larger learning rate moves it. Try two cells above the band, with three
# seeds each:


# %%
def trained(layers, alpha, rate):
    """The losses of a cell's three runs, at another learning rate than the map's."""
    config = measured.decoder("deepnorm", layers, **constants_of(alpha))
    recipes = [replace(measured.MAP_RECIPE, learning_rate=rate, seed=seed) for seed in range(3)]
    models = [build_model(config, seed=recipe.seed) for recipe in recipes]
    runs = zip(models, recipes, strict=True)
    return [measured.followed(model, measured.MAP_TASK, recipe, lambda done: None).loss for model, recipe in runs]


def ends(losses):
    """Mean of the last five losses of each run."""
    return [np.mean(loss[-5:]) for loss in losses]


for layers in (16, 32):
    at_map = ends(run.loss for run in grid.cell(layers, 8.0))
    kit.finding(f"{layers} layers, α = 8, last losses at 10⁻³, as on the map", at_map, above=1)
    kit.finding("                     last losses at 10⁻²", ends(trained(layers, 8.0, 1e-2)), below=1)

# %% [markdown]
# So nothing is broken in these two cells: at ten times the rate all six runs learn. (Two cells; we did not try the others.)
#
# The paper's curve is inside the band from 16 layers on. At 8 it is just above: so faint a stack is too slow for 40
# steps. It was derived with neither border in mind: it bounds the *update*.

# %% [markdown] exercise="trainable_edge" difficulty=2 importance=4 minutes=8
# ### The edge
#
# **Objective**: read the edge of trainability off a map, without being fooled by a lucky seed.
#
# At one depth you have trained several αs with several seeds. Write `trainable_edge(alphas, learned)`. `alphas` is an array
# (n,), in any order. `learned` is an array (n, seeds) of True and False, a row for each α.
#
# The answer is the smallest α at which *every* seed learned. Where there is none it is infinity, `np.inf`.
#
# Hint: Which rows are True throughout? `np.all` takes an axis.
#
# Hint: A boolean array of n entries picks rows: `alphas[mask]`. For the empty case see the argument `initial` of `np.min`.


# %% exercise="trainable_edge"
def trainable_edge(alphas, learned):
    """The smallest α at which every seed learned, infinity where there is none: one number."""
    ### BEGIN SOLUTION
    every = np.all(learned, axis=1)
    return float(np.min(alphas[every], initial=np.inf))
    ### END SOLUTION


# %%
check.trainable_edge(trainable_edge)

# %%
trainable_edge = kit.mine_or_reference(trainable_edge, "trainable_edge")
print(trainable_edge(np.array([4.0, 1.0, 2.0]), np.array([[True, True], [False, False], [True, False]])))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 4.0: at α = 2 one of two seeds failed.
# </details>
#
# **Why it works.** Near an edge the seed decides. To report the best of several seeds moves the edge; to ask
# for all of them gives a value that the next person can rely on.
#
# It is still an estimate. The edge is between this α and the next smaller one that was tried, and more seeds can only
# move it up.

# %% [markdown]
# The edge at each depth, the α that keeps half of the input there, and whether the paper's α is inside the band:

# %%
edges = [trainable_edge(np.array(grid.alphas), learned[layers]) for layers in grid.depths]
for layers, edge in zip(grid.depths, edges, strict=True):
    top = np.array(grid.alphas)[learned[layers].all(axis=1)].max()
    half, paper = edge_alpha(layers, 0.5, 0.2), (2 * layers) ** 0.25
    place = "below" if paper < edge else "above" if paper > top else "inside"
    print(f"{layers:5,} layers: from α = {edge:.2f} to {top:.2f}; half left at {half:.2f}; paper {paper:.2f}, {place}")

# %% [markdown]
# ### How fast does the edge move?
#
# Your `depth_slope` of lesson 06 reads a power of depth off a measurement. The next cell fetches it.

# %% tags=["nbval-ignore-output"]
depth_slope = kit.earlier("depth_slope")

# %%
depths = np.array([10, 30, 100, 300, 1000])
half_left = [edge_alpha(int(n), 0.5, 1.0) for n in depths]
print(f"the paper's α:           depth^{depth_slope(depths, (2 * depths) ** 0.25):.3f}")
print(f"α that keeps half of it: depth^{depth_slope(depths, half_left):.3f}")
print(f"edge on the map:         depth^{depth_slope(grid.depths, edges):.3f}")

# %% [markdown]
# A quarter, a sixth, and something between. How much of that is luck of the seed? The map's αs are a fifth apart, too coarse
# to tell. So let each seed have an edge of its own: the α at which its last losses, drawn between the map's αs as straight
# lines over ln α, cross 1.0.


# %%
def edge_of_seed(layers, seed):
    """α between two rows of the map at which this seed's last losses come down to 1.0."""
    end = np.array(ends(grid.cell(layers, a)[seed].loss for a in grid.alphas))
    k = np.argmax(end < 1.0)  # the first that learned; the one before did not
    between = (end[k - 1] - 1.0) / (end[k - 1] - end[k])
    return grid.alphas[k - 1] * (grid.alphas[k] / grid.alphas[k - 1]) ** between


inside = [layers for layers in grid.depths if layers >= 16]  # at 8 layers two seeds learn at the map's lowest α
seed_edges = np.array([[edge_of_seed(layers, seed) for layers in inside] for seed in range(3)])
for seed, row in enumerate(seed_edges):
    print(f"seed {seed}: " + ", ".join(f"{layers:,} layers {a:.2f}" for layers, a in zip(inside, row, strict=True)))

# %%
guess_interval = kit.Guess(
    "You read the power of the edge off three seeds and six depths, 16 to 512 layers. What would move it more?",
    ["one more seed", "one more depth", "both about equally"],
)
guess_interval

# %% [markdown] exercise="interval" difficulty=2 importance=4 minutes=7
# ### How sure is the power?
#
# **Objective**: say how far another seed would move a measured power, and what such a number leaves out.
#
# Each seed gives one power of depth. Write `interval(powers, t)`: the pair (low, high) of the interval for their mean, where
# `powers` is a list of numbers, one from each of $k$ seeds, at least two. It reaches $t$ standard errors to either side. The
# standard error of a mean is the standard deviation of the powers over $\sqrt k$. That deviation is itself estimated, from
# $k$ numbers around their own mean, so its squares are divided by $k - 1$.
#
# `t` comes from a table, by $k$ and the confidence that you want. For 95% it is 12.7, 4.30 and 2.78 for 2, 3 and 5 seeds,
# and 1.96 only for very many.
#
# Hint: Which three numbers do you need from `powers`? One is how many there are.
#
# Hint: NumPy and PyTorch do not divide by the same number in `std`. Try both on [1, 3].


# %% exercise="interval"
def interval(powers, t):
    """(low, high) around the mean of the powers, t standard errors to either side."""
    ### BEGIN SOLUTION
    reach = t * np.std(powers, ddof=1) / sqrt(len(powers))
    return np.mean(powers) - reach, np.mean(powers) + reach
    ### END SOLUTION


# %%
check.interval(interval)

# %%
interval = kit.mine_or_reference(interval, "interval")
for last in (256, 512, 1000):
    chosen = [i for i, layers in enumerate(inside) if layers <= last]
    powers = [float(depth_slope(np.array(inside)[chosen], row[chosen])) for row in seed_edges]
    low, high = interval(powers, 4.30)
    print(
        f"16 to {last:5,} layers: powers {', '.join(f'{p:.3f}' for p in powers)}; 95% interval {low:.3f} to {high:.3f}"
    )

# %%
guess_interval.compare("one more depth")

# %%
figure, (ax,) = new_figure(1, width=7.5, height=4)
for seed, row in enumerate(seed_edges):
    ax.plot(inside, row, "os^"[seed], color=series_style(seed)["color"], label=f"edge of training, seed {seed}")
half_left = [edge_alpha(layers, 0.5, 0.2) for layers in inside]
ax.plot(inside, half_left, **series_style(4), label="half of the input left, depth^(1/6)")
ax.plot(inside, [(2 * layers) ** 0.25 for layers in inside], **series_style(6), label="the paper's α, depth^(1/4)")
ax.set(xscale="log", yscale="log", xlabel="layers", ylabel="α, with β = 1/(√2·α)")
ax.set_xticks(inside, [f"{layers:,}" for layers in inside])
ax.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"])
ax.minorticks_off()
legend_below(figure, ax, columns=2)
Picture(
    figure,
    alt="α against the number of layers, both logarithmic. The edges of three seeds nearly coincide. Up to 512 layers they are "
    "a little below the line on which half of the input is left; at 1,000 layers they are above it. The paper's α is a "
    "steeper line, far above both.",
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Powers near 0.18 up to 256 layers, 0.19 up to 512 and 0.24 up to 1,000, each with an interval of 0.02 either side or less.
# `interval([1, 3], 12.7)` is (-10.7, 14.7): two seeds tell hardly anything.
# </details>
#
# **Why it works.** Three seeds agree to about a hundredth, and yet the three intervals do not even touch. An interval over
# seeds says how far *another seed* would move the result, and nothing else. It knows nothing of the depths that were chosen,
# the learning rate, the task. Here the depths matter more than the seeds: the edge bends upward, so it is not one power of the
# depth at all. And had you read the edges off the map's coarse αs, all three seeds would have the same edges from 16 to 512
# layers, and an interval without any width.
#
# A slope over a few depths is weak evidence. Say over which depths you measured, and draw the points, as above.

# %%
memory = depth_slope(grid.depths, [edge_alpha(layers, 0.5, 0.2) for layers in grid.depths])
print(f"the edge of memory moves as depth^{memory:.2f}")
print(f"at 1,000 layers the edge of training is {edges[-1] / edge_alpha(1000, 0.5, 0.2):.1f} times as high")

# %% [markdown]
# Up to 512 layers the edge of training is at the dashed line or just below. At 1,000 it is above. Go there on the map:
# at α = 2.38 half of the input is left, yet no seed learns; the loss falls, and in two of three runs it is thrown back. At
# 2.83 two of three seeds learn. (Neighbouring αs on the map differ by a fifth, above 4 by two fifths.)
#
# Is it the step? Then a larger learning rate should do the same to a shallow stack that learns well.


# %%
def thrown_back(losses):
    """How far each run ends above its lowest loss."""
    return [end - min(loss) for end, loss in zip(ends(losses), losses, strict=True)]


at_map = [run.loss for run in grid.cell(64, 1.6818)]
kit.finding("64 layers, α = 1.68: end above the lowest loss at 10⁻³", thrown_back(at_map), below=0.1)
kit.finding("                                              at 10⁻²", thrown_back(trained(64, 1.6818, 1e-2)), above=0.5)

# %% [markdown]
# It does, with all three seeds: the loss comes down, and is thrown back. So there is a second edge, and it is about what a
# step of training does to the output.
#
# ## The update race
#
# The paper's Theorem 4.2 bounds the *model update* $\lVert\Delta F\rVert$: how far the logits have moved since
# initialisation. For steps of fixed size, as Adam's first are, the bound is the sum of all learning rates so far times
# $2N\cdot\sqrt 2\,\beta/\alpha$, up to a constant.
#
# Here the constant is the smallest that holds for the first step of all recorded DeepNorm runs, and only matrices are
# trained, as in the theorem. For another rule the line is a comparison, not a bound: Post-LN's circles may be above it.

# %%
guess_race = kit.Guess(
    "100 layers, Adam at 10⁻⁴ without warm-up. Whose logits move the furthest in the first step?",
    ["DeepNorm's", "Post-LN's", "Pre-LN's", "all equally far"],
)
guess_race

# %% [markdown]
# The **learning rate** is 10⁻⁴. Read the first step of each rule. Then add a **warm-up** of 100 steps, then go to
# 1,000 layers.

# %%
RaceExplorer("deepnorm", depth=100)

# %%
first = {rule: grid.race(measured.RaceSettings(rule, 100, 1e-4, 0))[1] for rule in ("deepnorm", "post_ln", "pre_ln")}
furthest = max(first, key=first.get)
guess_race.compare({"deepnorm": "DeepNorm's", "post_ln": "Post-LN's", "pre_ln": "Pre-LN's"}[furthest])
print("first step by rule: " + ", ".join(f"{rule} {update:.2g}" for rule, update in first.items()))
tenfold = grid.race(measured.RaceSettings("deepnorm", 1000, 1e-4, 0))[1] / first["deepnorm"]
print(f"DeepNorm, ten times as deep: the first step moves the logits {tenfold:.1f} times as far")

# %% [markdown]
# Adam's weights all move by the same amount, but what that does to the logits depends on the rule. Warm-up shrinks the
# first steps, and with them the update: it does with time what DeepNorm does with α and β.
#
# But under Adam DeepNorm's update does grow with depth. The paper derives its constants for plain gradient descent
# (SGD). With steps of fixed size the
# sum is $\sqrt{2N}$, about three times as large for ten times the depth. The next exercise turns that into a learning rate.

# %% [markdown] exercise="matching_rate" difficulty=3 importance=3 minutes=8
# ### The same bound at another depth (for those who want more)
#
# **Objective**: carry a learning rate from a shallow stack to a deep one.
#
# With steps of fixed size, as Adam's first are, Theorem 4.2 bounds the update of N layers by
# $\text{rate} \cdot 2N \cdot \sqrt{2}\,\beta/\alpha$, up to a constant.
#
# Write `matching_rate(rate, shallow, deep)`: the learning rate at which the deep stack has the bound that the shallow one
# has at `rate`. `shallow` and `deep` are `(layers, alpha, beta)`.
#
# Hint: Which quantity is to be the same for both stacks, and which may differ?
#
# Hint: Write that quantity down for each of them, with a letter for the rate that you look for. Test your answer with two
# equal stacks: they take the same rate.


# %% exercise="matching_rate"
def matching_rate(rate, shallow, deep):
    """The learning rate at which the deep stack has the shallow one's bound: one number."""
    ### BEGIN SOLUTION
    layers, alpha, beta = shallow
    bound = rate * layers * beta / alpha
    layers, alpha, beta = deep
    return bound * alpha / (layers * beta)
    ### END SOLUTION


# %%
check.matching_rate(matching_rate)

# %%
matching_rate = kit.mine_or_reference(matching_rate, "matching_rate")
paper = [(N, (2 * N) ** 0.25, (8 * N) ** -0.25) for N in (25, 100)]
print(f"four times as deep, the paper's α and β: {matching_rate(1.0, *paper):.2f} of the rate")
same = [(N, 2.0, 0.4) for N in (25, 100)]
print(f"four times as deep, the same α and β:    {matching_rate(1.0, *same):.2f} of the rate")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# With the paper's constants half of the rate, with the same α and β at both depths a quarter.
# </details>
#
# **Why it works.** The paper's condition is made for SGD, whose step is a gradient and shrinks with the branch as well:
# there the sum is the same at every depth. A step of fixed size does not shrink, and one factor of β/α is left.
# With the paper's constants $N\beta/\alpha = \sqrt{N}/2$, so the rate falls as $1/\sqrt{N}$.
#
# It is a bound, and one of first order. It says how to carry over a rate that works, not which rate works best.

# %% [markdown]
# ## Which constants, and at what price?
#
# Two explorers to keep for your own models. The first answers "what are α and β for *my* encoder and decoder", with
# the formula, the numbers in it, and code to copy. It begins with N = 12 and M = 12. Set **M, decoder layers** to 3: what happens
# to the *encoder*?

# %%
ConstantsExplorer(encoder_layers=12, decoder_layers=12)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The encoder's α falls from 1.76 to 1.61, though the encoder is the same: each decoder layer reads its output, so with
# fewer of them its update is amplified less.
# </details>
#
# The second answers what a training step takes. At 1,000 layers: which part of the memory is the largest? What do
# checkpoints every √N layers do to it, and what do they cost in time? (Lesson 11 explains each bar.)

# %%
CostExplorer(depth=1000)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Without checkpoints the activations are the largest part. Checkpoints every √N layers shrink that bar by far; the
# time for it is the bar "recomputation": nearly every layer's forward pass is computed a second time.
# </details>
#
# ## The game: keep it alive as the depth doubles
#
# Choose a rule, α, β and a learning rate, and register them. A real stack of that depth is trained, a few seconds,
# the stack alone. If the mean of its last five losses is below the dashed green line, the depth doubles. You may choose again before each round.
# Post-LN is where you begin. How far does it go? What do you change first? The ladder ends at 1,024 layers.
#
# Your deepest stack is kept with your progress.

# %%
GameExplorer()

# %% [markdown]
# <details><summary>Hints, if the ladder ends early</summary>
#
# - From 16 layers on the first thing to change is the rule: Post-LN and Pre-LN have no α and β to set (both dials are grey).
# - $\alpha\beta = 1/\sqrt 2$ leaves one number. Your formula says which α is too small.
# - A run has 40 steps, as on the map. An α far above the edge is safe and slow: 40 steps may be too few for it.
# </details>
#
# ## In three sentences
#
# 1. With $\beta = 1/(\sqrt 2\,\alpha)$ a stack forgets its input below an α that grows as $N^{1/6}$; far below it no run left $\ln 16$.
# 2. To remember is not enough: at 1,000 layers a stack that keeps half is thrown back by its own steps. The paper's
#    $(2N)^{1/4}$ is above both edges at every depth measured here.
# 3. A map belongs to its recipe: one task, one learning rate, 40 steps; "slow" is not "dead", and the verdict is fixed before the runs.
#
# **Read next**: the paper's Section 4.3, half a page: the goal that $\lVert\Delta F\rVert$ be of the size of the learning
# rate η, whatever the depth, and the condition that you saw as a blue line under "Which constants?".
