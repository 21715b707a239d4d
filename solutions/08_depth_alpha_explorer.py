# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: Where is the edge of trainability?
#     opening: >-
#       So far somebody else chose the numbers. Now you do: six explorers put depth, α and β under your finger. Theory answers
#       while you move, real models answer when you stop, and a map of several hundred training runs shows where a
#       stack can learn and where it cannot.
#     objectives: >-
#       find by hand, by formula and by experiment which α a stack of a given depth needs; tell a stack that has lost its
#       input from one that is merely slow; and say what a bound on the update does and does not promise.
#     prerequisites: >-
#       lessons 00 and 01. (Lessons 05 and 06 derive the bound that you use here; you can meet it first, and prove it later.)
#     minutes: 50
#     paper: Section 4, where α and β are chosen.
# ---

# %% [markdown]
# Every explorer is a few dials and a picture. A slider moves in fixed steps; beside it is a field for a number of your own. With
# the keyboard: Tab goes to the next dial, the arrow keys move it.
#
# Each picture says what is theory and what was measured. Where nothing was recorded for exactly your settings, a real
# model is built and measured in the background. Your next move stops it.

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
DEPTH = 0  # layers of the stack that is measured; 0: what the profile says

# %% tags=["imports"]
from math import sqrt

import numpy as np

# %%
from deepnet_edu import build_model, probe
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
from deepnet_edu.models import random_batch

device = kit.setup(SEED, PROFILE)
depth = DEPTH or (48 if PROFILE == "smoke" else 400)
grid = load()

# %% [markdown]
# ## A signal under your finger
#
# DeepNorm is $x \leftarrow \mathrm{LN}(\alpha x + F(x))$, with the weights of $F$ drawn with gain β
# ([symbols](glossary.md)). The paper ties both to the depth. What if you take another α?
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
# Now look. Set **α and β** to "the paper's split", and move **α** until the panel "Is the input still there?" ends at one
# half. Then try two more things: the rule Post-LN at 12, 48 and 400 layers, and DeepNorm with a gain of init of 3.

# %%
SignalExplorer("deepnorm", depth=400)

# %%
guess_memory.compare("α = 2")

# %% [markdown]
# Three things to have seen:
#
# - The share of the input falls off a cliff. A little less α, and nothing is left; a little more, and nearly all is.
# - Where the input goes, the tokens become alike. What is left is what all of them share.
# - Variance says nothing here. The norm sets it to 1, alive or dead.
#
# A cliff asks for a formula.

# %% [markdown] exercise="edge_alpha" difficulty=3 importance=5 minutes=10
# ### The α that keeps the input
#
# **Objective**: say which α a stack needs to remember what it was given.
#
# DeepNorm's rule is $x \leftarrow \mathrm{LN}(\alpha x + F(x))$, 2N times in N layers. On the map there is one free
# constant: $\beta = 1/(\sqrt{2}\,\alpha)$ is tied to α.
#
# A branch is two matrices of gain β, so its variance is $f = s\beta^4$. Here s is the variance of a branch with gain 1: 1
# for a linear square one, less for a real layer.
#
# Write `edge_alpha(layers, share, s)`: the α at which the part `share` of the input's variance is left at the top of
# `layers` layers.
#
# Hint: one sub-layer keeps $\alpha^2/(\alpha^2 + f) = 1/(1 + f/\alpha^2)$ (`input_share`, lesson 01). Put $\beta = 1/(\sqrt{2}\,\alpha)$
# into f: which power of α stands below s in $f/\alpha^2$?
#
# Hint: the 2N shares multiply, so each is `share ** (1 / (2 * layers))`. Set that equal to $1/(1 + s/(4\alpha^6))$ and
# solve for α.


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
edge_alpha = kit.mine_or_reference(edge_alpha)
for layers in (10, 100, 1000):
    half, paper = edge_alpha(layers, 0.5, 0.2), (2 * layers) ** 0.25
    print(f"{layers:5,} layers keep half of the input at α = {half:.2f}, the paper takes {paper:.2f}")

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
# For many layers $1/\text{kept} - 1$ is nearly $\ln(1/\text{share})/2N$. So this α grows as $N^{1/6}$: twice the depth, 12%
# more α.
#
# The paper's $(2N)^{1/4}$ grows faster: twice the depth, 19% more. To keep the input is necessary, not sufficient. A stack
# can remember its input and still be thrown off by its own updates.

# %% [markdown]
# ### Does a real stack agree?
#
# The formula needs s, the variance of a branch with gain 1. Theory with flat attention scores has about 0.2 for this shape.
# Draw a real stack at the α that should keep half, and measure. The other way round, the measured share says what s was.


# %%
def share_of_real_stack(layers, alpha):
    """Input share at the top of a freshly drawn stack with β = 1/(√2·α)."""
    model = build_model(measured.decoder("deepnorm", layers, alpha=alpha, beta=1 / (sqrt(2) * alpha)), seed=SEED).to(
        device
    )
    batch = random_batch(model.config, 4, 16, SEED).to(device)
    return probe(model, batch).input_share[-1]


alpha = float(edge_alpha(depth, 0.5, 0.2))
found = share_of_real_stack(depth, alpha)
s = 4 * alpha**6 * (found ** (-1 / (2 * depth)) - 1)
print("the real stack keeps between a quarter and three quarters of its input:", 0.25 < found < 0.75)
print("so its s is that of theory within a factor of two:                     ", 0.1 < s < 0.4)
assert 0.25 < found < 0.75

# %% tags=["nbval-ignore-output"]
kit.record(layers=depth, alpha=alpha, input_share=found, s=s)

# %% [markdown]
# The real stack loses a little more than theory says. Real scores are not flat, so an average over tokens cancels less,
# and the branch is a little louder (one seed; the machine may change the last digits).
#
# ## Remembering is not yet learning
#
# A stack that has lost its input cannot learn from it. But does one that remembers learn? That takes training, and the
# next picture is made of several hundred runs: DeepNorm's rule with $\beta = 1/(\sqrt 2\,\alpha)$, from 8 to 1,000 layers, 16 values of α, three seeds
# each. The stack alone is trained, as in lesson 00, on the same table of 16 tokens, for 40 steps of Adam at 10⁻³ after 10 steps of warm-up.
#
# First decide how a run is judged. A rule that is made after the curves were seen is no rule.

# %% [markdown] exercise="outcome" difficulty=2 importance=4 minutes=8
# ### The verdict on a run
#
# **Objective**: turn a training curve into one word, by a rule that is written down before the run.
#
# Each cell of the map is a training run. Write `outcome(loss, similarity, chance)`. `loss` is an array (steps,), in nats per
# token, NaN where it was no number. `similarity` is the [token similarity](glossary.md) at the top before training.
# `chance` is the loss of who knows nothing.
#
# The answer is one of four words, and the first that fits counts:
#
# - `"diverged"`: a loss, at any step, is not finite;
# - `"learned"`: the mean of the last five losses is below 1.0;
# - `"lost"`: `similarity` is above 0.9, and that mean is above `chance - 0.25`;
# - `"slow"`: everything else.
#
# Hint: ask for numbers that are not finite first. NaN compares false with everything, so no later question would find it.
#
# Hint: `np.isfinite(loss).all()` is true for a run that stayed finite. `np.mean(loss[-5:])` is the mean of the last five.


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
outcome = kit.mine_or_reference(outcome)
falling, flat = np.linspace(2.8, 0.1, 40), np.full(40, np.log(16))
print("falling:", outcome(falling, 0.1, np.log(16)))
print("flat, tokens alike:", outcome(flat, 0.99, np.log(16)))
print("flat, tokens apart:", outcome(flat, 0.1, np.log(16)))
print("one NaN:", outcome(np.append(np.nan, falling), 0.1, np.log(16)))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The four examples are learned, lost, slow and diverged, in this order.
# </details>
#
# **Why it works.** A loss near chance has two causes. If the tokens arrive alike at the top, no head can tell them apart:
# the information is gone before training starts. If they arrive different, the run may only be slow, and more steps or
# another learning rate could help.
#
# Five losses are a compromise. One is a single batch, and noisy; many would mix the end of the run with its beginning.

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

# %%
guess_edge = kit.Guess(
    "Where on the map of depth and α does training fail?",
    ["Only where α is too small", "Only where α is too large", "On both sides", "Nowhere, at some learning rate"],
)
guess_edge

# %% [markdown]
# ## The map
#
# Move **depth** and **α** over the map; the third slider walks through the runs behind a cell. Look at 256 layers first,
# from the bottom to the top.

# %% tags=["headline"]
TrainabilityExplorer(depth=256, alpha=4.0)

# %%
guess_edge.compare("On both sides")

# %% [markdown]
# Two different ways to fail:
#
# - **Below**, marked ×, the tokens arrive all alike. The loss sits at $\ln 16$ and would sit there for ever. The edge is
#   sharp, and the dashed line, your formula for half of the input, runs along it.
# - **Above**, marked ·, nothing is broken. The branches are so faint that 40 steps at this learning rate are too few. Give
#   such a run more steps or a larger rate and the border moves up. It belongs to the recipe, not to the stack.
#
# The paper's curve passes through the middle of the band, at every depth. It was derived with neither of these borders in
# mind: it bounds the *update*.

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
# Hint: which rows are True throughout? `np.all` takes an axis.
#
# Hint: `alphas[np.all(learned, axis=1)]` are the αs that passed. `np.min(…, initial=np.inf)` is infinity if there are none.


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
trainable_edge = kit.mine_or_reference(trainable_edge)
print(trainable_edge(np.array([4.0, 1.0, 2.0]), np.array([[True, True], [False, False], [True, False]])))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 4.0: at α = 2 one of two seeds failed.
# </details>
#
# **Why it works.** Near an edge the seed decides. Whoever reports the best of several seeds moves the edge; whoever asks
# for all of them gives a value that the next person can rely on.
#
# It is still an estimate. The edge lies between this α and the next smaller one that was tried, and more seeds can only
# move it up.

# %% [markdown]
# The edge at each depth, and the α that keeps half of the input there:

# %%
edges = [trainable_edge(np.array(grid.alphas), learned[layers]) for layers in grid.depths]
for layers, edge in zip(grid.depths, edges, strict=True):
    print(
        f"{layers:5,} layers: all seeds learn from α = {edge:.2f} on, half of the input is left at α = {edge_alpha(layers, 0.5, 0.2):.2f}"
    )

# %% [markdown] exercise="depth_power" difficulty=2 importance=4 minutes=6
# ### How fast does the edge move?
#
# **Objective**: find the power of depth in a measurement.
#
# Suppose that $\text{value} = c \cdot \text{depth}^p$. Write `depth_power(depths, values)`: the p that fits best, as the
# least-squares slope of ln(value) on ln(depth). Both arguments are arrays (n,) of positive numbers.
#
# Hint: take the logarithm of both sides. What is p in $\ln(\text{value}) = \ln c + p \ln(\text{depth})$?
#
# Hint: `np.polyfit(x, y, 1)` fits a line. It returns the slope first, then the intercept.


# %% exercise="depth_power"
def depth_power(depths, values):
    """The power p in values ∝ depth^p, by least squares: one number."""
    ### BEGIN SOLUTION
    return float(np.polyfit(np.log(depths), np.log(values), 1)[0])
    ### END SOLUTION


# %%
check.depth_power(depth_power)

# %%
depth_power = kit.mine_or_reference(depth_power)
depths = np.array([10, 30, 100, 300, 1000])
print(f"the paper's α:           depth^{depth_power(depths, (2 * depths) ** 0.25):.3f}")
print(f"α that keeps half of it: depth^{depth_power(depths, edge_alpha(depths, 0.5, 1.0)):.3f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The paper's α gives 0.25. The α that keeps half of the input gives 0.17, a sixth.
# </details>
#
# **Why it works.** A power law is a straight line on two logarithmic axes, and its slope is the power. The factor c moves
# the line up or down and leaves the slope alone: here s does not matter, nor which share you ask for, as long as the
# stack is deep.
#
# A slope over a few depths is a weak witness. Say over which depths you measured, and draw the points beside the line.

# %%
shallow = [layers for layers in grid.depths if 16 <= layers <= 512]
near = depth_power(np.array(shallow), np.array([edges[grid.depths.index(layers)] for layers in shallow]))
memory = depth_power(np.array(grid.depths), np.array([edge_alpha(layers, 0.5, 0.2) for layers in grid.depths]))
print(f"from 16 to 512 layers the edge of training moves as depth^{near:.2f}, the edge of memory as depth^{memory:.2f}")
print(f"at 1,000 layers the edge of training is {edges[-1] / edge_alpha(1000, 0.5, 0.2):.1f} times that of memory")

# %% [markdown]
# Up to 512 layers, a stack that remembers learns. At 1,000 there is a gap: runs between the dashed line and the edge
# keep half of their input and more, and still do not learn. Go there on the map (1,000 layers, α = 2.38 and 2.83) and
# look at the curves: the loss falls, and is thrown back.
#
# So there is a second edge, and it is not about the signal. It is about what a step of training does to the output.
# (The map has steps of a quarter octave in α, three seeds, one learning rate: read powers from it with one digit.)
#
# ## The update race
#
# The paper's Theorem 4.2 bounds the *model update* $\lVert\Delta F\rVert$, how far the answers move in a step. For steps of
# fixed size, as Adam's first are, the bound is the sum of all learning rates so far times
# $2N\cdot\sqrt 2\,\beta/\alpha$, up to a constant. (Here the constant is the smallest that holds for all recorded DeepNorm runs.)

# %%
guess_race = kit.Guess(
    "100 layers, Adam at 10⁻⁴ without warm-up. Whose answers move the furthest in the first step?",
    ["DeepNorm's", "Post-LN's", "Pre-LN's", "All the same: Adam's steps have one size"],
)
guess_race

# %% [markdown]
# Set the **learning rate** to 10⁻⁴ and read the first step of each rule. Then add a **warm-up** of 100 steps, then go to
# 1,000 layers.

# %%
RaceExplorer("deepnorm", depth=100)

# %%
first = {rule: grid.race(measured.RaceSettings(rule, 100, 1e-4, 0))[1] for rule in ("deepnorm", "post_ln", "pre_ln")}
furthest = max(first, key=first.get)
guess_race.compare({"deepnorm": "DeepNorm's", "post_ln": "Post-LN's", "pre_ln": "Pre-LN's"}[furthest])
tenfold = grid.race(measured.RaceSettings("deepnorm", 1000, 1e-4, 0))[1] / first["deepnorm"]
print(f"DeepNorm, ten times as deep: the first step moves the answers {tenfold:.1f} times as far")

# %% [markdown]
# Adam's weights all move by the same amount, but what that does to the answers depends on the rule. Warm-up shrinks the
# first steps, and with them the update: it does with time what DeepNorm does with α and β.
#
# And DeepNorm's update is not flat under Adam. The paper derives its constants for SGD. With steps of fixed size the
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
# Hint: write the bound down for both stacks and set them equal. What cancels?
#
# Hint: the rate times $N\beta/\alpha$ is the same for both. Divide by the deep stack's.


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
matching_rate = kit.mine_or_reference(matching_rate)
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
# the formula, the numbers in it, and code to copy. Try 12 and 12, then 12 and 3: what happens to the encoder?

# %%
ConstantsExplorer(encoder_layers=12, decoder_layers=3)

# %% [markdown]
# The second answers what a training step takes. At 1,000 layers: which part of the memory is the largest? What do
# checkpoints every √N layers do to it, and what do they cost in time? (Lesson 11 explains each bar.)

# %%
CostExplorer(depth=1000)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Without checkpoints the activations are the largest part. Checkpoints every √N layers shrink that bar by far; the
# time for it stands in the bar "recomputation", about one more forward pass.
# </details>
#
# ## The game: keep it alive as the depth doubles
#
# Choose a rule, α, β and a learning rate, and register them. A real stack of that depth is trained, a few seconds,
# the stack alone. If its loss comes below the green line, the depth doubles. You may choose again before each round.
# Post-LN is where you begin. How far does it go? What do you change first? The ladder ends at 1,024 layers.
#
# Your deepest stack is kept with your progress.

# %%
GameExplorer()

# %% [markdown]
# <details><summary>Hints, if the ladder ends early</summary>
#
# - The first thing to leave behind is the rule: neither Post-LN nor Pre-LN has a dial for depth.
# - $\alpha\beta = 1/\sqrt 2$ leaves one number. Your formula says which α is too small.
# - The run has 25 steps. An α far above the edge is safe and slow: a larger learning rate can be the better way.
# </details>
#
# ## In three sentences
#
# 1. With $\beta = 1/(\sqrt 2\,\alpha)$ a stack forgets its input below an α that grows as $N^{1/6}$; there nothing can be learned.
# 2. Above that edge the update decides: the paper's $(2N)^{1/4}$ grows faster, and lies inside the trainable band at every depth measured here.
# 3. A map belongs to its recipe: one task, one learning rate, 40 steps; "slow" is not "dead", and the verdict is fixed before the runs.
#
# **Read next**: the paper's Section 4.3, half a page: the goal $\lVert\Delta F\rVert = \Theta(\eta)$ and the condition
# that you saw as a line.
