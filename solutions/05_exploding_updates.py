# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What explodes, if not the gradient?
#     opening: >-
#       Lesson 04 left a riddle. A stack of 6 Post-LN layers died at the largest learning rate, although its gradient
#       reached the bottom and its tokens still differed. This lesson follows that stack step by step, says what the
#       paper says about it, and then tests each link of the story with an arm that could break it.
#     objectives: >-
#       measure how far one step moves a model, tell a cause from a symptom by arms that have one without the other, and
#       bound the update of any stack by a sum over its sub-layers.
#     prerequisites: lessons 02 and 04, and what a first-order Taylor expansion is.
#     minutes: 60
#     paper: all of Section 3, and Theorem 4.2 in Section 4.2.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
DEPTH = 6  # layers of the stacks that are trained: few enough for tokens to differ at the start
STEPS = 90

# %% tags=["imports"]
from math import sqrt

import numpy as np
import torch

# %%
from matplotlib.figure import Figure
from torch.nn import functional as F

from deepnet_edu import ModelConfig, build_model, deepnorm_constants, probe
from deepnet_edu.checks import check
from deepnet_edu.data import PreviousToken
from deepnet_edu.figures import Picture
from deepnet_edu.figures.style import legend_below, line_style, new_figure, series_style
from deepnet_edu.probing import token_similarity
from deepnet_edu.theory import update_bound

device = kit.setup(SEED, PROFILE)
seeds = [SEED] if PROFILE == "smoke" else [SEED, SEED + 1, SEED + 2]
task = PreviousToken(vocab_size=16, length=8, batch_size=32)
WIDTH = 32
STYLES = {
    name: line_style(rule) for name, rule in (("Post-LN", "post_ln"), ("Pre-LN", "pre_ln"), ("DeepNorm", "deepnorm"))
}
STYLES["Post-LN-init"] = series_style(3)


def batch_of(seed):
    return task.batch(torch.Generator().manual_seed(seed)).to(device)


def built(rule, layers, seed):
    """A decoder with Xavier's weights, biases 0; DeepNorm's with its β."""
    config = ModelConfig("decoder", "lm", layers, residual=rule, d_model=WIDTH, n_heads=2, d_ff=4 * WIDTH, vocab_size=16,
                         max_length=32)  # fmt: skip
    return build_model(config, seed=seed).to(device)


# %% [markdown]
# ## The patient
#
# The stack and the task are those of lesson 04, and so is the recipe, but for Adam's β₂ (the paper's 0.98) and more steps.
#
# - *The task*: name the previous token of a random sequence of 8, out of 16 tokens. It needs attention: a model whose tokens
#   do not see each other stays at $\ln 16 = 2.77$ nats.
# - *What is trained*: the stack alone. Embedding and head stay as they were drawn, so whatever is learned, the stack has learned.
# - *The limits*: the task is small, the stacks are 32 wide, and there are three seeds. What we find holds for this recipe. The
#   paper's own runs are translations.
#
# ## Two stacks that differ in one number per layer
#
# The paper asks its question with a trick. Take a Post-LN stack with Xavier's weights. Make a second one from it: divide the
# weights of each layer by a number $k$ that is large at the bottom and 1 at the top. It is called Post-LN-init. Its top
# layer is the same. If a large gradient at the top were what kills Post-LN, it would have to kill this one too.

# %% [markdown] exercise="post_ln_init_divisor" difficulty=1 importance=4 minutes=4
# ### Post-LN-init
#
# **Objective**: build the control experiment.
#
# Write `post_ln_init_divisor(layer, n_layers)`: the number $k$ by which the weights of a layer are divided. Layers are
# counted from 1 at the bottom. The top layer is left as it is ($k = 1$); the weights of the layer below it are divided by 2,
# those of the next one by 3, and so on down.
#
# Hint: What should it give for `layer = n_layers`, and for one less?
#
# Hint: Count how many layers there are from this one up to the top, itself included.


# %% exercise="post_ln_init_divisor"
def post_ln_init_divisor(layer, n_layers):
    """What the weights of layer 1 … n_layers are divided by: one number."""
    ### BEGIN SOLUTION
    return n_layers - layer + 1
    ### END SOLUTION


# %%
check.post_ln_init_divisor(post_ln_init_divisor)

# %%
post_ln_init_divisor = kit.mine_or_reference(post_ln_init_divisor, "post_ln_init_divisor")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 18 for the first of 18 layers, 1 for the last. DS-Init, another published scheme, goes the other way and shrinks the top.
# </details>
#
# **Why it works.** In lesson 03 a branch of two matrices had a strength of $g^4$. Divided by $k$, both matrices have the gain
# $1/k$, and the branch of layer 1 of 18 has the strength $1/18^4$: it hardly exists. Layers fade in towards the top.


# %%
@torch.no_grad()
def post_ln_init(layers, seed):
    """Post-LN with every matrix of layer l divided by your number."""
    model = built("post_ln", layers, seed)
    for sublayer in model.sublayers():
        for matrix in sublayer.matrices():
            matrix /= post_ln_init_divisor(sublayer.residual.place.layer + 1, layers)
    return model


MAKERS = {
    "Post-LN": lambda layers, seed: built("post_ln", layers, seed),
    "Post-LN-init": post_ln_init,
    "Pre-LN": lambda layers, seed: built("pre_ln", layers, seed),
    "DeepNorm": lambda layers, seed: built("deepnorm", layers, seed),
}
top = {
    name: np.mean([probe(MAKERS[name](DEPTH, s), batch_of(s)).gradient_norm[-1] for s in seeds])
    for name in ("Post-LN", "Post-LN-init")
}
kit.finding(
    "gradient of the last feed-forward branch, Post-LN-init over Post-LN",
    top["Post-LN-init"] / top["Post-LN"], above=0.5, below=2,
)  # fmt: skip

# %% [markdown]
# At the top both gradients are of the same size. (In the paper's larger stacks, 18 and 18 layers on translation,
# Post-LN-init's is even *larger*, about 2.25 against 0.70, read off its Figure 3.) Further down Post-LN-init's gradients are
# smaller, because its weights are. But the top is what was accused.
#
# ## The recipe: warm-up
#
# Before the experiment we need its other ingredient. Nearly all published Transformers are trained with a learning rate that
# rises first and falls afterwards.

# %% [markdown] exercise="learning_rate" difficulty=2 importance=4 minutes=8
# ### The schedule of nearly all Transformers
#
# **Objective**: know the learning rate at any step, also where the two formulas meet.
#
# Write `learning_rate(step, peak, warmup, initial)`. It rises in a straight line from `initial` at step 0 to `peak` at step
# `warmup`. From then on it is $\text{peak}\cdot\sqrt{\text{warmup}/\text{step}}$.
#
# Hint: Where step = warmup both formulas must give the peak.
#
# Hint: A straight line through two points, (0, initial) and (warmup, peak).


# %% exercise="learning_rate"
def learning_rate(step, peak, warmup, initial=1e-7):
    """Learning rate at a step, counted from 0: one number."""
    ### BEGIN SOLUTION
    if step < warmup:
        return initial + (peak - initial) * step / warmup
    return peak * sqrt(warmup / step)
    ### END SOLUTION


# %%
check.learning_rate(learning_rate)

# %%
learning_rate = kit.mine_or_reference(learning_rate, "learning_rate")

# %%
for step in (50, 100, 200, 400):
    print(f"step {step:3}: {learning_rate(step, peak=1.0, warmup=100, initial=0.0):.3f} of the peak")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# With `warmup = 100` it is half the peak at step 50, the peak at 100, and half of it again at 400.
# </details>
#
# **Why it works.** The paper's runs start at 1e-7, rise for 4,000 to 6,000 steps, and fall with the root. All of them, by
# the way: that DeepNorm needs no warm-up is not a claim of the paper.
#
# ## How far did that step go?
#
# A gradient says how steep the loss is. It does not say where a step will land. That is another quantity, the paper's
# [model update](glossary.md): feed the model an input $x$, let one step change the weights from $\theta$ to $\theta'$, feed
# it the same input again.
#
# $$\lVert \Delta F \rVert = \lVert F(x;\, \theta') - F(x;\, \theta) \rVert$$
#
# $F$ is the model's output. First it will be the logits of a batch; further down the output of the stack, per token.

# %% [markdown] exercise="model_update" difficulty=3 importance=5 minutes=15
# ### The model update
#
# **Objective**: measure how far a step moves a model's output, and leave no trace.
#
# Write `model_update(model, x, step)`: the norm of the change of `model(x)` that `step(model)` causes, a number. `step`
# takes gradients and changes the model's parameters in place. Measure without dropout. Afterwards the model must be what it
# was: the same parameters with their old values, still trained, and the same mode (training or evaluation).
#
# Hint: Keep a *copy* of every tensor in `model.state_dict()`; the dictionary itself holds the very tensors that will change.
#
# Hint: Note `model.training` before you call `model.eval()`. Your two passes can go under `torch.no_grad()`, but not the
# step, which needs gradients. What has to be put back at the end?


# %% exercise="model_update"
def model_update(model, x, step):
    """‖F(x; θ') - F(x; θ)‖, where step(model) turns θ into θ': one number."""
    ### BEGIN SOLUTION
    before, training = {name: value.clone() for name, value in model.state_dict().items()}, model.training
    model.eval()
    with torch.no_grad():
        y = model(x)
    step(model)
    with torch.no_grad():
        change = (model(x) - y).norm().item()
    model.load_state_dict(before)
    model.train(training)
    return change
    ### END SOLUTION


# %%
check.model_update(model_update)

# %%
model_update = kit.mine_or_reference(model_update, "model_update")


# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card. The most frequent wrong answer keeps `model.state_dict()` without cloning: it restores the stepped weights.
# </details>
#
# **Why it works.** The same small step of the weights can do very different things to the function. So outputs are
# compared, not weights and not losses.
#
# Now one tiny step on the matrices of four stacks, from 6 to 24 layers: in the direction of the gradient (SGD), and in the
# direction of the gradient's signs, which is Adam's first step. One care is due. A longer gradient makes a longer SGD step,
# and we ask about the update, not about the gradient. So **all stacks get a step of the same length**
# $\lVert\theta' - \theta\rVert$, and we divide the update by it. The gradient's own length is noted as well.


# %%
LENGTH = 1e-4  # of the step, all matrices together


def one_step(batch, kind, seen):
    """A step(model) of this length on the stack's matrices; the gradient's own length is appended to `seen`."""

    def step(model):
        matrices = [matrix for sublayer in model.sublayers() for matrix in sublayer.matrices()]
        gradients = torch.autograd.grad(model.loss(batch), matrices)
        seen.append(sqrt(sum(gradient.square().sum().item() for gradient in gradients)))
        directions = gradients if kind == "SGD" else [gradient.sign() for gradient in gradients]
        total = sqrt(sum(direction.square().sum().item() for direction in directions))
        with torch.no_grad():
            for matrix, direction in zip(matrices, directions, strict=True):
                matrix -= LENGTH * direction / total

    return step


depths = [6, 12, 18, 24]
KINDS = {"SGD": "along the gradient (SGD)", "signs": "along its signs (Adam's first step)"}
per_length, gradient_length = {}, {}  # by kind and name: a value per depth
for kind in KINDS:
    for name, make in MAKERS.items():
        rows = []
        for n in depths:
            seen = []
            found = [model_update(make(n, s), batch_of(s).inputs, one_step(batch_of(s), kind, seen)) for s in seeds]
            rows.append((np.mean(found) / LENGTH, np.mean(seen)))
        per_length[kind, name], gradient_length[name] = zip(*rows, strict=True)

# %%
figure, axes = new_figure(2, width=7.4, height=3.8)
for ax, (kind, title) in zip(axes, KINDS.items(), strict=True):
    for name in MAKERS:
        ax.plot(depths, per_length[kind, name], marker="o", label=name, **STYLES[name])
    ax.set(yscale="log", ylim=(9, 2000), xlabel="layers", xticks=depths)
    ax.set_title(title, fontsize=10)
axes[0].set_ylabel("update per length of the step")
legend_below(figure, axes[0], columns=4)
Picture(
    figure,
    alt="Two panels: change of the logits per length of the step, against 6 to 24 layers, logarithmic. Along the gradient Post-LN "
    "rises from about 200 to 1,300, Pre-LN from about 120 to 240; Post-LN-init stays below 100 and DeepNorm is level at 23. Along "
    "the signs the order is the same: Post-LN rises from about 120 to 650, and DeepNorm is level at 13.",
)

# %%
longer = gradient_length["Post-LN"][2] / gradient_length["Post-LN-init"][2]
sgd, signs = (per_length[kind, "Post-LN"][2] / per_length[kind, "Post-LN-init"][2] for kind in KINDS)
print("18 layers, Post-LN over Post-LN-init")
kit.finding("  update after SGD at the same learning rate", longer * sgd, above=20)
kit.finding("  of that, length of the step (the gradient of all matrices)", longer, above=2)
kit.finding("  and update per length of the step", sgd, above=5)
kit.finding("  along the signs, where all steps are of one length", signs, above=5)
grows = {name: per_length["SGD", name][-1] / per_length["SGD", name][0] for name in MAKERS}
print("from 6 to 24 layers, update per length of an SGD step")
kit.finding("  grows", {"Post-LN": grows["Post-LN"]}, above=3)
kit.finding("  grows less", {name: grows[name] for name in MAKERS if name != "Post-LN"}, below=2.8)  # fmt: skip

# %% tags=["nbval-ignore-output"]
kit.record(**{f"per_length_{kind}_{name}".replace("-", "_"): values for (kind, name), values in per_length.items()})

# %% [markdown]
# **There it is.** The gradients at the top are of the same size. At 18 layers one SGD step of the same rate moves Post-LN's
# output dozens of times as far as Post-LN-init's. Part of that is only a longer step. What is left is a factor of about ten:
# **a step of the same length moves Post-LN's output ten times as far**, and the factor grows with depth. What explodes is the
# update. (Pre-LN is in between, and DeepNorm's update per length does not grow at all.)
#
# ## Ninety steps
#
# Now steps of the size that is used: Adam (β₁, β₂ = 0.9, 0.98), gradient clipped to norm 1, rate 0.01. *Full rate* means
# 0.01 from the first step. *Warm-up* means that it rises over 20 steps and stays at 0.01 from then on, so that nothing but
# the first 20 steps differs. After each step we look at one fixed batch: how far is the stack's output from where it began,
# how similar are its tokens, how long is what enters the norms? The gradient by sub-layer is taken at the end.

# %%
guess = kit.Guess(
    "6 layers of Post-LN at the full rate of 0.01 do not learn. Which of these changes lets them learn within 90 steps?",
    [
        "1 small first step (0.0005), then 0.01",
        "a constant rate of 0.005, without warm-up",
        "each of these 2 changes alone",
        "neither of these 2 changes",
    ],
)
guess

# %%
PEAK, WARMUP = 1e-2, 20
UNRELATED = sqrt(2 * WIDTH)  # apart: two outputs that have nothing to do with each other


def full(step):
    return PEAK


def warmed(step):
    """Your schedule up to the peak, and no fall after it."""
    return learning_rate(min(step, WARMUP), PEAK, WARMUP)


@torch.no_grad()
def look(model, inputs):
    """The stack's output, the length of each branch, and the mean length of what enters the norms."""
    entering, branches = [], []
    hooks = []
    for sublayer in model.sublayers():
        hooks += [
            sublayer.residual.norm.register_forward_pre_hook(lambda _, given: entering.append(given[0].norm(dim=-1).mean())),
            sublayer.branch.register_forward_hook(lambda _, given, made: branches.append(made.square().sum(-1).mean().sqrt())),
        ]  # fmt: skip
    with model.running(path="plain"):  # so that each norm is really called
        y = model.stack(model.embed(inputs))
    for hook in hooks:
        hook.remove()
    return y, branches, torch.stack(entering).mean().item()


@torch.no_grad()
def shorten(model, inputs, first):
    """Scale the last matrix and bias of each branch that is longer than at the start, so that it is not."""
    for sublayer, now, start in zip(model.sublayers(), look(model, inputs)[1], first, strict=True):
        last = [part for part in sublayer.branch.children() if isinstance(part, torch.nn.Linear)][-1]
        for parameter in last.parameters():
            parameter *= min(1.0, (start / now).item())


def trained(make, rate, seed, layers=DEPTH, hold=False, stack=True):
    """One run. hold: no branch gets longer than it was. stack: it alone is trained, else all but it."""
    model, fixed, generator = make(layers, seed), batch_of(seed + 100), torch.Generator().manual_seed(seed)
    inside = {parameter for sublayer in model.sublayers() for parameter in sublayer.parameters()}
    parameters = [parameter for parameter in model.parameters() if (parameter in inside) is stack]
    start, first, length = look(model, fixed.inputs)
    run = {"moved": [0.0], "length": [length], "alike": [token_similarity(start).item()], "loss": []}
    run["before"] = probe(model, fixed).gradient_norm
    optimizer = torch.optim.Adam(parameters, betas=(0.9, 0.98))
    for step in range(1, STEPS + 1):
        optimizer.param_groups[0]["lr"] = rate(step)
        loss = model.loss(task.batch(generator).to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if hold:
            shorten(model, fixed.inputs, first)
        y, _, length = look(model, fixed.inputs)
        run["moved"].append((y - start).norm(dim=-1).mean().item() / UNRELATED)
        run["length"].append(length)
        run["alike"].append(token_similarity(y).item())
        run["loss"].append(loss.item())
    run["after"] = probe(model, fixed).gradient_norm
    return run


def arm(name, rate, **options):
    """A run per seed."""
    return [trained(MAKERS[name], rate, seed, **options) for seed in seeds]


runs = {
    "Post-LN, full rate": arm("Post-LN", full),
    "Post-LN, warm-up": arm("Post-LN", warmed),
    "Pre-LN, full rate": arm("Pre-LN", full),
    "DeepNorm, full rate": arm("DeepNorm", full),
}

# %% tags=["headline", "hide-input"]
figure = Figure(figsize=(7.4, 6.4))
axes = figure.subplots(2, 2)
(left, right), (low_left, low_right) = axes
LOOKS = [
    line_style("post_ln"),
    series_style(6) | {"linestyle": (0, (6, 2))},
    line_style("pre_ln"),
    line_style("deepnorm"),
]
for (name, found), style in zip(runs.items(), LOOKS, strict=True):
    for i, run in enumerate(found):
        style = {**style, "linewidth": 1.4, "label": name if i == 0 else None}
        left.plot(run["moved"], **style)
        right.plot(np.arange(1, STEPS + 1), run["loss"], **style)
        low_left.plot(np.array(run["length"]) / run["length"][0], **style)
        low_right.plot(np.arange(1, 2 * DEPTH + 1) / 2, run["after"] / run["after"][-1], **style)
for ax, height in ((left, 1), (right, task.chance), (low_left, 1)):
    ax.axhline(height, color="#555555", linestyle=":", linewidth=1.5)
left.set(xlabel="step", ylim=(0, 1.35), title="1. Way to an unrelated output")
right.set(xlabel="step", ylim=(0, 4), ylabel="nats", title="2. Loss (dots: ln 16)")
low_left.set(xlabel="step", ylabel="times the start", title="3. Length of what enters the norms")
low_right.set(xlabel="layer", ylabel="over the top one's", yscale="log", title=f"4. Gradient after {STEPS} steps")
for ax in axes.flat:
    ax.title.set_fontsize(11)
legend_below(figure, left, columns=2)
Picture(
    figure,
    alt="Four panels, 6 layers, three seeds each. Way to an unrelated output: after one step at the full rate Post-LN and Pre-LN "
    "have gone most of it, DeepNorm a third; Post-LN with warm-up a sixth. Loss: Post-LN at the full rate stays at ln 16 for 90 "
    "steps, the other three fall to 0. Length before the norms: Post-LN at the full rate and Pre-LN grow to three to five times, "
    "the other two by less than half. Gradient by layer at the end: Post-LN at the full rate falls below a hundredth towards the "
    "bottom, the others do not.",
)

# %%
FULL, WARM, PRE, DEEP = runs


def at(name, key, step):
    return [run[key][step] for run in runs[name]]


def end(name):
    """Mean of the last five losses, by seed."""
    return [float(np.mean(run["loss"][-5:])) for run in runs[name]]


def growth(name):
    """Of what enters the norms, over the warm-up's steps."""
    return [run["length"][min(WARMUP, STEPS)] / run["length"][0] for run in runs[name]]


def bottom_over_top(name, when):
    return [run[when][0] / run[when][-1] for run in runs[name]]


print("Post-LN before the first step")
kit.finding("      token similarity", at(FULL, "alike", 0), below=0.95)
kit.finding("      gradient, first sub-layer over last", bottom_over_top(FULL, "before"), above=1 / 3)
print("(i)   the update explodes: way to an unrelated output after one step")
kit.finding("      full rate", at(FULL, "moved", 1), above=0.5, form=".0%")
kit.finding("      warm-up", at(WARM, "moved", 1), below=0.3, form=".0%")
print("(ii)  it lands where nothing is known")
kit.finding("      full rate: token similarity after one step", at(FULL, "alike", 1), above=0.9)
kit.finding("      full rate: loss at the end", end(FULL), near=task.chance, by=0.3)
kit.finding("      warm-up: loss at the end", end(WARM), below=1)
print(f"(iii) what enters the norms grows, within {min(WARMUP, STEPS)} steps")
kit.finding("      full rate: times", growth(FULL), above=1.7)
kit.finding("      warm-up: times", growth(WARM), below=1.5)
print("(iv, v) so norms shrink gradients: first sub-layer over last, at the end")
kit.finding("      full rate", bottom_over_top(FULL, "after"), below=0.05)
kit.finding("      warm-up", bottom_over_top(WARM, "after"), above=0.3)
if (DEPTH, STEPS) != (6, 90):
    print(f"The text below is about 6 layers and 90 steps. With {DEPTH} and {STEPS} the lines above say what holds.")

# %% [markdown]
# These are the claims of the paper's Section 3, each with its measurement. The paper reads them as a chain, and the two
# Post-LN arms fit it:
#
# 1. The first step throws the output away. (Outputs come from a norm and have length $\sqrt d$. Two unrelated ones are
#    $\sqrt{2d}$ apart: that is 100%.)
# 2. It lands where all tokens get the same output, and nothing is known.
# 3. What enters the norms becomes longer and longer. (In Post-LN the skip comes from a norm and always has length $\sqrt d$, so
#    what grows are the branches.)
# 4. A norm multiplies gradients by $\sqrt d$ over that length (lesson 02, the headline), and a Post-LN stack has a norm on the
#    skip of every sub-layer. At the start the branches sent back what the norms took; now they do not make up for it.
# 5. Little gradient reaches the bottom.
# 6. So the stack stays where it is: the loss is flat for 90 steps.
#
# The gradient that vanishes is the *end* of the story. Someone who looks only after 90 steps sees nothing else.
#
# ## Is it a chain?
#
# Two arms that fit the story prove little: they differ in *everything* that the first steps do. And the picture holds an
# arm that does not fit. **Pre-LN's first step goes nearly as far as Post-LN's, about three quarters of the way, and Pre-LN
# learns.** So a huge first step is not enough to kill. A claim about a cause needs arms that have the cause without the
# effect, and arms that have the effect without the cause. Here are six more, with the same stack, task and seeds:
#
# - *One small step*: 0.0005, then the full rate.
# - *Half the rate*: 0.005 from the first step.
# - *One full step*, then warm-up. *Three full steps*, then warm-up.
# - *Branches held*: the full rate, but after each step every branch whose output is longer than it was before training is
#   scaled back to that length, by its last matrix. This removes link 3 and leaves links 1 and 2.
# - *Post-LN-init* at the full rate.

# %%
runs |= {
    "Post-LN, one small step": arm("Post-LN", lambda step: warmed(1) if step == 1 else PEAK),
    "Post-LN, half the rate": arm("Post-LN", lambda step: PEAK / 2),
    "Post-LN, one full step, warm-up": arm("Post-LN", lambda step: PEAK if step <= 1 else warmed(step - 1)),
    "Post-LN, three full steps, warm-up": arm("Post-LN", lambda step: PEAK if step <= 3 else warmed(step - 3)),
    "Post-LN, full rate, branches held": arm("Post-LN", full, hold=True),
    "Post-LN-init, full rate": arm("Post-LN-init", full),
}

# %% tags=["nbval-ignore-output"]
print(f"{'median over seeds':36}{'first step':>10}{'similarity':>12}{'growth':>9}   loss at the end, by seed")
for name in runs:
    first, alike = np.median(at(name, "moved", 1)), np.median(at(name, "alike", 1))
    losses = ", ".join(f"{loss:.2f}" for loss in end(name))
    print(f"{name:36}{first:>10.0%}{alike:>12.2f}{np.median(growth(name)):>8.1f}×   {losses}")
kit.record(**{f"loss_{i}": end(name) for i, name in enumerate(runs)})

# %%
SMALL, HALF, ONE, THREE, HELD, INIT = list(runs)[4:]
print("a large first step is not enough: these learn (loss at the end), and went so far in one step")
for name in (PRE, HALF, INIT, HELD):
    kit.finding(f"  {name}: loss", end(name), below=1)
    kit.finding(f"  {name}: first step", at(name, "moved", 1), above=0.4, form=".0%")
print("and a small one does not save: median over the seeds")
kit.finding(f"  {SMALL}: loss", np.median(end(SMALL)), above=2)
kit.finding(f"  {SMALL}: first step", at(SMALL, "moved", 1), below=0.3, form=".0%")
print("what counts is how many: median over the seeds")
kit.finding(f"  {ONE}: loss", np.median(end(ONE)), below=1)
kit.finding(f"  {THREE}: loss", np.median(end(THREE)), above=2)

# %%
guess.compare("a constant rate of 0.005, without warm-up")

# %% [markdown] exercise="counterexamples" difficulty=2 importance=5 minutes=10
# ### Find the arm that the chain does not predict
#
# **Objective**: test a causal sentence against all arms at once.
#
# "Runs with a large first step do not learn" has a cause and an effect. Two kinds of arms contradict it. Write
# `counterexamples(arms, cause, effect)`: two lists of names, in the order of `arms`. The first holds the arms that have the
# cause without the effect, so that the cause is *not sufficient*. The second holds those with the effect without the cause,
# so that it is *not necessary*. `arms` is a dictionary from names to measured values; `cause` and `effect` are functions
# of one arm's values that return True or False.
#
# Hint: Four kinds of arms can exist: cause and effect, neither, and two more. Which of the four speak against the sentence?
#
# Hint: `arms.items()` gives pairs of a name and its values; ask both functions about the values.


# %% exercise="counterexamples"
def counterexamples(arms, cause, effect):
    """(names with the cause without the effect, names with the effect without the cause)."""
    ### BEGIN SOLUTION
    not_sufficient = [name for name, arm in arms.items() if cause(arm) and not effect(arm)]
    not_necessary = [name for name, arm in arms.items() if effect(arm) and not cause(arm)]
    return not_sufficient, not_necessary
    ### END SOLUTION


# %%
check.counterexamples(counterexamples)

# %%
counterexamples = kit.mine_or_reference(counterexamples, "counterexamples")

# %% tags=["nbval-ignore-output"]
arms = {
    name: {
        "first step": float(np.median(at(name, "moved", 1))),
        "similarity": float(np.median(at(name, "alike", 1))),
        "growth": float(np.median(growth(name))),
        "loss": float(np.median(end(name))),
    }
    for name in runs
}
CAUSES = {
    "the first step goes more than half the way": lambda arm: arm["first step"] > 0.5,
    "token similarity is above 0.9 after one step": lambda arm: arm["similarity"] > 0.9,
    "what enters the norms has grown more than 1.5 times": lambda arm: arm["growth"] > 1.5,
}
for cause, holds in CAUSES.items():
    one, other = counterexamples(arms, holds, lambda arm: arm["loss"] > 2)
    print(f"{cause} → it does not learn")
    print("   not sufficient:", "; ".join(one) or "no arm")
    print("   not necessary: ", "; ".join(other) or "no arm")

# %% tags=["hide-input"]
figure, axes = new_figure(2, width=7.4, height=4.0)
marks = dict(zip(runs, "osD^vPX*hd", strict=True))
for ax, key, label in (
    (axes[0], "moved", "first step, way to unrelated"),
    (axes[1], "growth", f"growth in {WARMUP} steps"),
):
    for name in runs:
        color = STYLES[name.split(",")[0]]["color"]
        where = at(name, "moved", 1) if key == "moved" else growth(name)
        ax.plot(where, end(name), marks[name], color=color, alpha=0.75, label=name, linestyle="")
    ax.axhline(task.chance, color="#555555", linestyle=":", linewidth=1.5)
    ax.set(xlabel=label, ylim=(-0.1, 3.2))
axes[0].set(ylabel="loss at the end (dots: ln 16)", xlim=(0, 1.15))
axes[1].set(xlim=(0.9, 3.4))
legend_below(figure, axes[0], columns=2)
Picture(
    figure,
    alt="Loss at the end against two candidate causes, a mark per seed, ten arms. Left, against the first step: arms that learn "
    "and arms that do not lie at both ends of the axis. Right, against the growth of what enters the norms within 20 steps: "
    "Post-LN's arms below about 1.5 learn and those above do not; only Pre-LN grows twofold and more, and learns.",
)

# %% [markdown]
# The right panel is the one to remember. What decides is not how far the first step goes, nor that tokens collapse for a
# while: they do so in arms that learn, too. **For Post-LN it is whether the branches outgrow the skip before the stack has
# learned something.** One full step does little harm, three are too many, and one small step only puts it off. Held
# branches make this an experiment and not a correlation: at the full rate, with nearly the same first step, they save the
# stack on every seed.
#
# Pre-LN is the exception that shows the mechanism. What enters its norms grows as much, and that does no harm: its norms
# are inside the branches, so the way back along the skip stays open (panel 4, and lesson 04). In DeepNorm the skip is
# multiplied by α and the branches are drawn small, and what enters its norms hardly grows.
#
# So what may be said of warm-up? At this rate Post-LN needs *many* small steps, or else a lower rate; one small first step
# only delays. Why do the branches grow? This is our reading, not a measurement: where all tokens are equal, every step
# pulls in the same direction, and lengths of equal directions add. What the paper offers is a *sufficient* condition: keep
# each update small, and no link of the chain is ever reached.
#
# ### Where this ends
#
# Two more arms, with twelve layers: warm-up, and held branches. The right panel does not predict the second. And one
# control: embedding and head trained alone, with a stack that stays as it was drawn.

# %%
limits = {
    "12 layers of Post-LN, warm-up": arm("Post-LN", warmed, layers=12),
    "12 layers of Post-LN, full rate, branches held": arm("Post-LN", full, layers=12, hold=True),
}
frozen = {name: arm(name, full, stack=False) for name in ("Post-LN", "Pre-LN", "DeepNorm")}
runs |= limits | frozen
for name in limits:
    kit.finding(f"{name}: loss at the end", np.median(end(name)), above=2)
    kit.finding("   token similarity before the first step", at(name, "alike", 0), above=0.8)
kit.finding("   growth in the arm with held branches", growth(list(limits)[1]), below=1.5)
for name in frozen:
    kit.finding(f"{DEPTH} layers of {name}, embedding and head alone: loss at the end", end(name), above=1)

# %% [markdown]
# At twelve layers neither warm-up nor held branches save Post-LN. It fails for lesson 04's reason: its tokens are nearly
# equal before the first step. (In the paper, too, 18-18 layers of Post-LN diverge with warm-up.) Embedding and head alone
# get part of the way, because attention with fresh weights lets some of the previous token through: more of it in Pre-LN
# than in DeepNorm, whose branches are small. That is why both are frozen in all other arms. With everything trained, a
# falling loss would not say which part has learned.
#
# ## What is an update made of?
#
# Now the theory. The paper derives a bound for $\lVert\Delta F\rVert$ in the simplest setting in which it can be seen. Every
# assumption is marked.
#
# **One sub-layer.** *Assume width 1*: the stream is one number $x$, and the two matrices of a branch are two numbers $v$
# and $w$, so that the branch is $v\,w\,x$. (By Lemma 4.1 only attention's value and output matrix count; a feed-forward
# branch has two matrices anyway.) *Assume that skip and branch are independent*, so that their variances add: $\alpha x + v
# w x$ has variance $\alpha^2 + v^2w^2$, and the norm divides by its root:
#
# $$f(x) = \frac{\alpha + v w}{\sqrt{\alpha^2 + v^2 w^2}}\; x .$$
#
# (In one dimension they are not independent, of course. The number stands for a wide stream, in which they are.)
#
# **Its slopes.** Write $u = vw$. By the quotient rule
#
# $$\frac{\partial f}{\partial u} = x\,\frac{(\alpha^2 + u^2) - (\alpha + u)\,u}{(\alpha^2 + u^2)^{3/2}}
# = \frac{\alpha\,(\alpha - u)}{(\alpha^2 + u^2)^{3/2}}\;x ,$$
#
# and $\partial u/\partial v = w$, $\partial u/\partial w = v$. Together, for the pair $\theta = (v, w)$,
#
# $$\Big\lVert \frac{\partial f}{\partial \theta} \Big\rVert
# = \frac{\alpha\,(\alpha - vw)}{(\alpha^2 + v^2w^2)^{3/2}}\,\sqrt{v^2 + w^2}\;|x|
# \;\le\; \frac{\sqrt{v^2 + w^2}}{\alpha}\;|x| .$$
#
# The last step *assumes $v$ and $w$ positive and below 1, and $\alpha > 1$*: then $0 < \alpha - vw \le \alpha$, and the
# denominator is at least $\alpha^3$. And $|x|$ is 1, because $x$ comes from a norm.
#
# **Along the stream** the slope is $\partial f/\partial x = (\alpha + vw)/\sqrt{\alpha^2 + v^2w^2}$. The paper counts it as
# 1. In width 1 it is about $1 + vw/\alpha$: 1.03 with DeepNorm's numbers at 18 layers, and 36 of those multiply to more
# than 3. With $\alpha = v = w = 1$ it is $\sqrt2$. In a wide network the branch points elsewhere than the skip, lengths add
# as squares, and the slope *is* 1: $\sqrt{\alpha^2 + v^2w^2}/\sqrt{\alpha^2 + v^2w^2}$.
#
# **All sub-layers.** A stack of $N$ layers has $2N$. *To first order*, the change of the output is the sum of what each
# sub-layer's step contributes, carried up by slopes of 1:
#
# $$\lVert \Delta F \rVert \;\le\; \sum_{i=1}^{2N} \frac{\sqrt{v_i^2 + w_i^2}}{\alpha}\;
# \lVert \theta_i' - \theta_i \rVert .$$
#
# This is **Theorem 4.2**. It is a sum, not a root of squares, because nothing makes the layers' contributions cancel: all
# gradients pull at the same loss. Three things are in it, and each is a way to train deep stacks: small weights $v, w$, a
# large $\alpha$, small steps.

# %%
guess_halving = kit.Guess(
    "Your budget is one halving: of 1/α, of all v and w, or of the learning rate. Which shrinks the sum most, if Adam takes the step?",
    ["halving 1/α", "halving v and w", "halving the rate", "all three do the same"],
)
guess_halving

# %% [markdown] exercise="update_factor" difficulty=3 importance=5 minutes=12
# ### Spend one halving
#
# **Objective**: read the theorem as a budget, and see that the optimizer is part of it.
#
# Write `update_factor(alpha, gain, rate, optimizer)`: by what the sum of Theorem 4.2 is multiplied if α is multiplied by
# `alpha`, every $v$ and $w$ by `gain`, and the learning rate by `rate`. `optimizer` is `"sgd"`, which steps by the rate
# times the gradient, or `"adam"`, which moves each weight by the rate whatever its gradient. Assume small $v$ and $w$ and
# $\alpha > 1$, so that the slope of a sub-layer is the bound above, and a loss that reacts to the output as before, so that
# a sub-layer's gradient is proportional to its slope.
#
# Hint: What does each of the three do to the root over α, and what to ‖θ' - θ‖?
#
# Hint: An SGD step is as long as the rate times the gradient, and the gradient of a sub-layer's pair contains its own slope.
# In which of the two optimizers does that slope come in twice?


# %% exercise="update_factor"
def update_factor(alpha, gain, rate, optimizer):
    """Factor on the theorem's sum, from factors on α, on v and w, and on the learning rate: one number."""
    ### BEGIN SOLUTION
    slope = gain / alpha
    step = rate * slope if optimizer == "sgd" else rate
    return slope * step
    ### END SOLUTION


# %%
check.update_factor(update_factor)

# %%
update_factor = kit.mine_or_reference(update_factor, "update_factor")
for optimizer in ("sgd", "adam"):
    halved = [
        update_factor(2, 1, 1, optimizer),
        update_factor(1, 0.5, 1, optimizer),
        update_factor(1, 1, 0.5, optimizer),
    ]
    print(f"{optimizer:5} half of 1/α: {halved[0]:.2f}, of v and w: {halved[1]:.2f}, of the rate: {halved[2]:.2f}")

# %%
guess_halving.compare("all three do the same")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# With SGD half of 1/α, or of v and w, leaves a quarter, half of the rate a half. With Adam every halving leaves a half.
# </details>
#
# **Why it works.** The slope $\sqrt{v^2 + w^2}/\alpha$ says how much the output feels a step. With SGD it also sets how
# long the step is; Adam divides that out. The paper chooses α and β for SGD, so with Adam they do less than it promises.
# Lesson 06 derives them and measures the difference.
#
# ## Does the bound hold in a wide network?
#
# Width 1 was an assumption. So take a wide chain, $x \leftarrow \mathrm{LN}(\alpha x + W V x)$ with random matrices of gain
# $v$ and $w$, 64 features, in float64. Move every matrix by the same small amount, first in random directions, then along
# the gradient of one and the same number, so that all layers pull together. A small amount δ is a matrix as large as a
# random one of gain δ: its Frobenius norm is $\delta\sqrt d$. A branch has two matrices, so its pair $\theta = (v, w)$
# moves by $\sqrt2\,\delta$. How does the update compare with the theorem's sum, the library's `update_bound`?


# %%
def wide_chain(layers, alpha, v, w, d=64, delta=1e-6):
    """Update over bound, for random steps and for steps that pull together."""
    generator = torch.Generator().manual_seed(SEED)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    matrices = [drawn(d, d) / sqrt(d) * gain for gain in [v] * 2 * layers + [w] * 2 * layers]
    x = F.layer_norm(drawn(16, d), (d,))

    def out(matrices):
        y = x
        for V, W in zip(matrices[: 2 * layers], matrices[2 * layers :], strict=True):
            y = F.layer_norm(alpha * y + y @ V @ W, (d,))
        return y

    leaves = [matrix.requires_grad_() for matrix in matrices]
    y = out(leaves)
    gradients = torch.autograd.grad((y * drawn(16, d)).sum(), leaves)
    bound = update_bound(np.full(2 * layers, v), np.full(2 * layers, w), alpha, np.full(2 * layers, sqrt(2) * delta))
    ratios = []
    with torch.no_grad():
        for directions in ([drawn(d, d) for _ in leaves], gradients):
            moved = [m + delta * sqrt(d) * g / g.norm() for m, g in zip(leaves, directions, strict=True)]
            ratios.append(((out(moved) - y).square().mean().sqrt() / bound).item())
    return ratios


layers_tried = [3, 6, 12, 24, 48]
constants = [deepnorm_constants(decoder_layers=n).decoder for n in layers_tried]
within = np.array([wide_chain(n, c.alpha, c.beta, c.beta) for n, c in zip(layers_tried, constants, strict=True)])
small = np.array(
    [wide_chain(n, 1.0, c.beta / c.alpha, c.beta / c.alpha) for n, c in zip(layers_tried, constants, strict=True)]
)
beyond = np.array([wide_chain(n, 1.0, 1.0, 1.0) for n in layers_tried])

# %% tags=["hide-input"]
figure, (ax,) = new_figure(1, width=7.4, height=4.4)
lines = {
    "Post-LN's numbers, α = v = w = 1, pulling together": (beyond[:, 1], 0, "o"),
    "DeepNorm's α and β, pulling together": (within[:, 1], 2, "s"),
    "α = 1, all weights smaller by α, pulling together": (small[:, 1], 3, "x"),
    "DeepNorm's α and β, random steps": (within[:, 0], 1, "o"),
}
for name, (values, i, mark) in lines.items():
    ax.plot(layers_tried, values, marker=mark, label=name, **series_style(i))
ax.axhline(1, color="#555555", linestyle=":", linewidth=1.5)
ax.annotate("the theorem's sum", (layers_tried[0], 1), (0, 4), textcoords="offset points", fontsize=9)
ax.set(xscale="log", yscale="log", xlabel="layers", ylabel="measured update / sum")
ax.set_xticks(layers_tried, layers_tried)
ax.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
ax.minorticks_off()
legend_below(figure, ax, columns=1)
Picture(
    figure,
    alt="Measured update over the theorem's sum against 3 to 48 layers, both logarithmic. With DeepNorm's numbers "
    "and steps that pull together it is flat at about 2.3, and nearly the same with α = 1 and smaller weights. With random steps "
    "it falls from 0.3 to below 0.1. With Post-LN's numbers it rises from 3 to above 12 at 24 layers, and stays there.",
)


# %%
def spread(ratios):
    return ratios.max() / ratios.min()


print("measured update over the sum, 3 to 48 layers")
kit.finding("  DeepNorm's numbers, pulling together", within[:, 1], above=1, below=4)
kit.finding("      largest over smallest", spread(within[:, 1]), below=1.15)
kit.finding("  α = 1 and smaller weights, pulling together: largest over smallest", spread(small[:, 1]), below=1.15)
kit.finding("  DeepNorm's numbers, random steps", within[:, 0], below=0.5)
kit.finding("  Post-LN's numbers: at 24 layers over that at 3", beyond[3, 1] / beyond[0, 1], above=2.5)

# %% [markdown]
# No: the sum is exceeded, about 2.3 times. (A gradient is not a random direction; it puts its whole length where it counts.)
# What holds is the *scaling*. Where weights are small and α is above 1, the update is the same multiple of the sum at every
# depth. Read ≤ as "up to a constant": that is what the paper's "=Θ" means. Random steps fall short, because they cancel. And
# for Post-LN's own numbers, $v = w = \alpha = 1$, the assumptions fail, and the truth is *worse* than the sum. (One seed.)
#
# The crosses have no α at all, and weights that are smaller by it: only the ratio of weights to α counts here. Why α exists
# nevertheless is lesson 06's question.
#
# So what does warm-up do? It keeps $\lVert\theta' - \theta\rVert$ small in the first steps. What does
# Post-LN-init do? It keeps $\sqrt{v^2 + w^2}$ small. Both shrink the same sum. There is a third factor in it that neither
# of them touches: $\alpha$. It is where DeepNorm begins.

# %% [markdown] tags=["room"]
# ## For those who want more

# %% [markdown] exercise="warmup_distance" difficulty=2 importance=3 minutes=8
# ### How far can a weight go? (optional)
#
# **Objective**: see warm-up as a leash.
#
# Adam moves each weight by about the learning rate, whatever the gradient. Write `warmup_distance(steps, peak, warmup)`: the
# farthest that a weight can get in the first `steps` steps (0, 1, …), all in the same direction, with your schedule and its
# initial rate of 1e-7.
#
# Hint: You have a function for the rate at one step.
#
# Hint: Which steps are the first `steps`, counted from 0, and what do they add up to?


# %% exercise="warmup_distance"
def warmup_distance(steps, peak, warmup):
    """Sum of the learning rates of steps 0 … steps - 1: one number."""
    ### BEGIN SOLUTION
    return sum(learning_rate(step, peak, warmup) for step in range(steps))
    ### END SOLUTION


# %%
check.warmup_distance(warmup_distance)

# %%
warmup_distance = kit.mine_or_reference(warmup_distance, "warmup_distance")
for n in (5, 20):
    print(f"in {n} steps: {n * PEAK:.3f} at the full rate, {warmup_distance(n, PEAK, WARMUP):.4f} with warm-up")
print(f"a fresh weight is about {1 / sqrt(WIDTH):.3f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# In 20 steps 0.2 at the full rate, 0.095 with warm-up, and a fresh weight of size 0.177. In the first five: 0.05 against
# 0.005.
# </details>
#
# **Why it works.** In the first steps of warm-up the distance grows with the square of the step. It is the factor
# $\lVert\theta' - \theta\rVert$ of the theorem, on a leash. Three full steps, which were too many above, are 0.03.

# %% [markdown]
# ## In three sentences
#
# 1. What explodes in a Post-LN stack is the update: at 18 layers a step of the same length moves its output ten times as far
#    as that of a stack whose gradient at the top is of the same size.
# 2. At the full rate Post-LN's first step throws its output away, and the stack does not recover. The size of that step alone
#    is not the cause: Pre-LN moves nearly as far and recovers, and one small first step does not save Post-LN. What kills is
#    that branches outgrow the skip, so that norms close the way back: where they are held, the stack learns.
# 3. Up to a constant, for small weights and $\alpha > 1$, the update is bounded by
#    $\sum \sqrt{v^2 + w^2}/\alpha \cdot \lVert\Delta\theta\rVert$: warm-up shrinks the step, small weights the root, and α is free.
#
# **Try**: `trained` takes any maker and any rate function. Find an arm of your own that contradicts the right panel, and
# see with `counterexamples` which of its two halves falls.
#
# **Read next**: the paper's Section 3 and the proof of Theorem 4.2 in its appendix. Then lesson 06: which α and β keep that
# sum constant, at any depth?
