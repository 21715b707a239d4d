# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What holds at a thousand layers, and what breaks?
#     opening: >-
#       Lesson 00 trained three stacks of 1,000 layers. This lesson asks every rule of the library, at 1,000 decoder layers and at
#       500 + 500, the depth of the paper's title: which of them start well, which of them learn, and at which learning rates?
#       Then it takes failed runs apart: you see five plots of a run without its name, and say what went wrong.
#     objectives: >-
#       read a failed run and name its cause, find the highest learning rate that a rule survives, and say whether a deep stack
#       uses its depth and whether two recipes can be compared at all.
#     prerequisites: lessons 00 and 04. Lesson 05 says why warm-up matters, lesson 10 what is in a step.
#     minutes: 80
#     paper: Section 2, Tables 1 and 2, and what others found since.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
RULE = "deepnorm"  # one row of the table: any rule of RESIDUALS
ARCHITECTURE = "decoder"  # or "encoder_decoder"
LEARNING_RATE = 3e-4
LAYERS = 0  # of both stacks together; 0: what the profile says
STEPS = 0  # at most; 0: what the profile says
SEED = 0

# %%
from dataclasses import replace

# %% tags=["imports"]
from itertools import combinations
from math import sqrt

import numpy as np
import torch

# %%
from deepnet_edu import RESIDUALS, ModelConfig, TrainConfig, build_model, probe, train
from deepnet_edu.checks import check
from deepnet_edu.data import PreviousToken, PythonDocs, SourceMap, TokenMap
from deepnet_edu.figures import Picture
from deepnet_edu.figures.stability import instruments, verdict_table
from deepnet_edu.figures.style import legend_below, line_style, new_figure, series_style
from deepnet_edu.probing import layer_harm, without_layers
from deepnet_edu.training import TrainingDiverged

device = kit.setup(SEED, PROFILE)
SMOKE, on_gpu = PROFILE == "smoke", device.type == "cuda"
depth = LAYERS or (48 if SMOKE else 1000)
at_most = STEPS or (30 if SMOKE else 100)


def recorded(name, **wanted):
    """Runs of a record; none where it has not been made yet, and then a sentence says how to make it."""
    try:
        return kit.Results(name).select(**wanted)
    except (FileNotFoundError, ValueError) as missing:
        print(missing)
        return []


# %% [markdown]
# ## Before you look
#
# Four questions. Commit to an answer now; each is answered where it comes up.

# %%
guess_similarity = kit.Guess(
    "A healthy DeepNorm stack is given random targets. Its token similarity is 0.03 at first. After 60 steps it is …",
    ["about 0.03", "about 0.5", "about 1.0"],
)
guess_similarity

# %%
guess_runs = kit.Guess(
    "A learning rate that works and one that fails are a factor of a million apart. How many runs find the edge to 10%?",
    ["about 8", "about 25", "about 90"],
)
guess_runs

# %%
guess_half = kit.Guess(
    "A random half of 48 trained layers is left out. Which of these rules loses least?",
    ["DeepNorm", "Pre-LN", "LayerNorm scaling"],
)
guess_half

# %%
guess_recipes = kit.Guess(
    "Two recipes differ in five settings. How many more runs does it take to try each of the five alone?",
    ["2", "5", "10"],
)
guess_recipes

# %% [markdown]
# ## One row of the table
#
# The table of this lesson has a row for each rule, learning rate and seed. To make a row, build the stack, send one batch through it
# and judge the result, as in lesson 04. Then train *the stack alone*: embedding and head stay as they were drawn, since they can learn small
# tasks without any stack (lesson 00). Neither task can be solved without attention:
#
# - a **decoder** names the previous token of a random sequence;
# - an **encoder-decoder** predicts $5x + 3 \bmod 16$ for each source token $x$. Its decoder reads only start tokens, so all that it knows comes
# through cross-attention.
#
# A model that knows nothing has loss $\ln 16 = 2.77$ in both. A run ends as soon as the mean of its last five losses is 5% below that: it has
# **learned**. (On the plateau at $\ln 16$ this mean moves by half a percent.) If it does not get there, it **stood still**. If its loss ends well
# above its start, or is not finite, it **broke**.

# %%
WIDTH = {"d_model": 32, "n_heads": 2, "d_ff": 128, "vocab_size": 16, "max_length": 32}
ENOUGH = 0.05  # share of the loss at chance that a run must have learned


class Learned(Exception):
    """Raised by a run that has learned enough."""


def stack_of(rule, layers, architecture="decoder", **shape):
    """A narrow decoder, or half as many layers in each of two stacks."""
    shape = {**WIDTH, **shape}
    if architecture == "decoder":
        return ModelConfig("decoder", "lm", layers, residual=rule, **shape)
    return ModelConfig("encoder_decoder", "translation", layers // 2, layers - layers // 2, residual=rule, **shape)


def task_of(architecture):
    return (PreviousToken if architecture == "decoder" else SourceMap)(vocab_size=16, length=8, batch_size=32)


def at_start(model, task, seed):
    """Verdict, token similarity, gradient of the first over the last layer, share of the input, for the worse stack."""
    batch = task.batch(torch.Generator().manual_seed(seed)).to(device)
    if batch.target_inputs is not None:  # start tokens are all the same: the probe's decoder reads others
        batch = replace(batch, target_inputs=batch.inputs.flip(0))
    profile = probe(model, batch)
    stacks = [profile.of(name) for name in dict.fromkeys(profile.stack)]
    first_last = [one.gradient_by_layer()[[0, -1]] for one in stacks]
    return {
        "verdict": profile.judge().word,
        "similarity": max(float(one.token_similarity[-1]) for one in stacks),
        "gradient_ratio": min(float(first / max(last, 1e-30)) for first, last in first_last),
        "input_share": min(float(one.input_share[-1]) for one in stacks),
    }


def table_row(rule, architecture, layers, learning_rate, seed, steps, show=lambda losses: None, **shape):
    """One row of the table: how a stack starts, and how it ends when the stack alone is trained."""
    task, losses, outcome = task_of(architecture), [], "stood still"
    model = build_model(stack_of(rule, layers, architecture, **shape), seed=seed).to(device)
    start = at_start(model, task, seed)

    def follow(history):
        losses.append(history.loss[-1])
        show(losses)
        if len(losses) >= 5 and np.mean(losses[-5:]) < (1 - ENOUGH) * task.chance:
            raise Learned

    recipe = {"learning_rate": learning_rate, "warmup": 20, "parameters": "stack", "seed": seed, "cuda_graph": on_gpu}
    try:
        train(model, task, TrainConfig(steps=steps, **recipe), on_step=follow, progress=False)
    except Learned:
        outcome = "learned"
    except TrainingDiverged:
        outcome = "broke"
    finite = [loss for loss in losses if np.isfinite(loss)] or [task.chance]
    end = float(np.mean(finite[-5:]))
    if end > finite[0] + 0.1 * task.chance:
        outcome = "broke"
    asked = {"rule": rule, "architecture": architecture, "layers": layers, "learning_rate": learning_rate, "seed": seed}
    ends = {"loss_start": finite[0], "loss_end": end, "chance": task.chance, "share_learned": 1 - end / task.chance}
    return {**asked, "steps": len(losses), **start, **ends, "outcome": outcome}


# %% tags=["nbval-ignore-output"]
live = {}  # losses by step


def follow_rows():
    figure, (ax,) = new_figure(1, width=7.5, height=3.4)
    for i, (label, losses) in enumerate(live.items()):
        ax.plot(range(1, len(losses) + 1), losses, label=label, **series_style(2 - i))
    ax.axhline(np.log(16), color="black", linewidth=0.8)
    ax.axhline((1 - ENOUGH) * np.log(16), color="black", linewidth=0.8, linestyle=":", label="learned enough")
    ax.set(xlim=(0, at_most), ylim=(2.4, 3.4), xlabel="step", ylabel="loss (nats per token)", title="line: ln 16")
    legend_below(figure, ax)
    return figure


def live_row(rule, architecture, layers, learning_rate, steps, **shape):
    """A row, with its loss drawn on the way; a rule that is not defined for this architecture says so."""
    title = f"{RESIDUALS[rule].title}, {layers:,} layers" if architecture == "decoder" else ""
    title = title or f"{RESIDUALS[rule].title}, {layers // 2} + {layers - layers // 2}"
    try:
        RESIDUALS[rule].check(architecture)
    except ValueError as refusal:
        print(refusal)
        return None
    picture = kit.LivePicture(
        follow_rows, alt=f"Loss by step of {title}. It first falls to ln 16 and stays there, then leaves it."
    )

    def show(losses):
        live[title] = losses
        picture.update()

    row = table_row(rule, architecture, layers, learning_rate, SEED, steps, show, **shape)
    picture.finish()
    print(
        f"{title}: at start {row['verdict']}, token similarity {row['similarity']:.3f}, input share {row['input_share']:.3f}"
    )
    print(f"after {row['steps']} steps {row['outcome']}: loss {row['loss_start']:.2f} → {row['loss_end']:.2f}")
    return row


row = live_row(RULE, ARCHITECTURE, depth, LEARNING_RATE, at_most)
if row:
    kit.record(**row)

# %% [markdown]
# Change `RULE`, `LEARNING_RATE` or `SEED` in the parameters cell, and this section makes another row. That is how the whole table was made,
# as a batch that resumes where it was stopped:
#
# ```
# deepnet-edu run 16 --profile smoke --set LAYERS=1000 --set STEPS=100 --sweep RULE=deepnorm,pre_ln,keel --sweep SEED=0,1,2 --out runs/rows --resume
# ```
#
# ## 500 + 500
#
# The paper's deepest model has 500 encoder and 500 decoder layers. An encoder layer has two sub-layers and a decoder layer here has three, so
# the longest path from source to output has 2,500 sub-layers. Under the profile `gpu` this cell takes the paper's width of 512
# (3.7 billion weights); here it is 32, and the depth is the paper's.

# %% tags=["nbval-ignore-output"]
other = "encoder_decoder" if ARCHITECTURE == "decoder" else "decoder"
wide = {"d_model": 512, "n_heads": 8, "d_ff": 2048} if on_gpu and other == "encoder_decoder" else {}
other_row = live_row(RULE, other, 24 if SMOKE else depth, LEARNING_RATE, 30 if SMOKE else at_most, **wide)

# %% [markdown]
# Only the stack was trained, but is the stack needed? Here are controls at 24 + 24 layers: Post-LN in place of DeepNorm, the same DeepNorm
# stack frozen while embedding and head are trained, and no layers at all.

# %% tags=["nbval-ignore-output"]
half, steps = (2, 10) if SMOKE else (24, 80)
task = SourceMap(vocab_size=16, length=8, batch_size=32)
controls = {
    "DeepNorm, stack alone": ("deepnorm", half, "stack"),
    "Post-LN, stack alone": ("post_ln", half, "stack"),
    "DeepNorm, stack frozen": ("deepnorm", half, "ends"),
    "no layers": ("none", 0, "ends"),
}
control_loss = {}
for name, (rule, n, parameters) in controls.items():
    model = build_model(stack_of(rule, 2 * n, "encoder_decoder"), seed=SEED).to(device)
    recipe = TrainConfig(steps=steps, learning_rate=1e-3, warmup=20, parameters=parameters, seed=SEED)
    control_loss[name] = train(model, task, recipe, progress=False).final_loss()
    print(f"{name:24}loss after {steps} steps {control_loss[name]:.2f}   (chance: {task.chance:.2f})")
if not SMOKE and SEED == 0:
    assert control_loss["DeepNorm, stack alone"] < 2.0
    assert min(control_loss["Post-LN, stack alone"], control_loss["no layers"]) > 2.5

# %% [markdown]
# ## Every rule
#
# Here is the table. Six decoders, and DeepNorm and Post-LN as encoder-decoders, get three learning rates and three seeds, and all other
# rules one of each: 114 runs. A missing entry has not been run yet, or is not defined: most papers define their rule for one stack.

# %% tags=["headline", "nbval-ignore-output"]
MAIN = ["post_ln", "pre_ln", "deepnorm", "admin", "layernorm_scaling", "keel"]
rows = recorded("verdict_table")
print(f"{len(rows)} runs in the record")
if not rows:
    small, few = (16, 4) if SMOKE else (24, 40)
    print(f"Until then a small one, made now: {small} layers, one seed, {few} steps.")
    for rule in MAIN:
        for rate in (1e-3,) if SMOKE else (1e-4, 1e-3, 1e-2):
            rows.append(table_row(rule, "decoder", small, rate, SEED, few))
Picture(
    verdict_table(rows, first=MAIN),
    alt="A table of rules. For decoder and encoder-decoder a column for the verdict before training and one for each learning rate. Blue cells: "
    "all runs learned; pale: some; grey: all stood still; orange: some broke. DeepNorm passes at the start, Post-LN fails.",
)


# %%
def share(chosen):
    return f"{sum(row['outcome'] == 'learned' for row in chosen)} of {len(chosen)} runs learned"


def rows_of(rule, architecture):
    return [row for row in rows if (row["rule"], row["architecture"]) == (rule, architecture)]


for rule in ("deepnorm", "post_ln"):
    said = ", ".join(sorted({row["verdict"] for row in rows_of(rule, "decoder")}))
    print(f"{RESIDUALS[rule].title}'s decoders at start: {said}")
print("Post-LN's decoders, any seed, any rate: ", end="")
print("some learned" if any(row["outcome"] == "learned" for row in rows_of("post_ln", "decoder")) else "none learned")

# %% tags=["nbval-ignore-output"]
for rule in MAIN:
    for architecture in dict.fromkeys(row["architecture"] for row in rows if row["rule"] == rule):
        mine = rows_of(rule, architecture)
        by_rate = {
            rate: [row for row in mine if row["learning_rate"] == rate]
            for rate in sorted({row["learning_rate"] for row in mine})
        }
        print(
            f"{RESIDUALS[rule].title:18}{architecture:17}"
            + "; ".join(f"{rate:g}: {share(same)}" for rate, same in by_rate.items())
        )
print()
for verdict in ("PASS", "UNSURE", "FAIL"):
    print(f"at start {verdict:8}{share([row for row in rows if row['verdict'] == verdict])}")
surprises = {
    "passed, and did not learn at any rate": lambda verdict, learned: verdict == "PASS" and not learned,
    "failed, and learned": lambda verdict, learned: verdict == "FAIL" and learned,
}
for title, fits in surprises.items():
    found = []
    for rule, architecture in dict.fromkeys((row["rule"], row["architecture"]) for row in rows):
        mine = rows_of(rule, architecture)
        if fits(mine[0]["verdict"], any(row["outcome"] == "learned" for row in mine)):
            found.append(f"{RESIDUALS[rule].title} ({architecture})")
    print(f"{title}: {', '.join(found) or 'none'}")

# %% [markdown]
# Read the table in two steps. **At start** is a statement about a signal: can tokens still be told apart at the top, and does every layer
# get a gradient? **Learned** is a statement about a recipe: this task, this rate, this many steps. Neither follows from the other, and the
# last two lines above list where they disagree.
#
# One surprise concerns the course's own rule: DeepNorm passes at the start, and at $10^{-3}$ its decoder stands still. The record of this
# lesson has that run again, with both rates and three seeds, and looks at its tokens before and after.

# %% tags=["nbval-ignore-output"]
print(f"{'rate':>7}{'seed':>6}{'loss at the end':>17}{'token similarity':>24}{'share of the input':>24}")
for run in sorted(recorded("lesson_16", part="rate"), key=lambda run: (run["learning_rate"], run["seed"])):
    pairs = (" → ".join(f"{x:.3f}" for x in run[name]) for name in ("similarity", "share"))
    print(f"{run['learning_rate']:7g}{run['seed']:6}{run['loss'][-1]:17.2f}" + "".join(f"{pair:>24}" for pair in pairs))

# %% [markdown]
# The constants protect the start, and with it the first updates. They do not protect against every rate. At $10^{-3}$ all three stacks are dead after
# 120 steps: at the top all tokens are the same vector, as in a Post-LN stack at the start, and the loss stays at $\ln 16$.
# At $3 \cdot 10^{-4}$ all three learn. In both cases little of the input is left in the stream, so this number alone tells nothing.
#
# A run that stood still for other reasons may learn later. So what is wrong with a run that stands still? The next section answers this.
#
# ## Read a failure
#
# Here are nine runs without their names: 48 layers, the token map of lesson 00, 60 steps. Two of them are healthy. Each has five instruments:
#
# - the loss, from the start to the end of the run;
# - the gradient norm in the first and in the last layer, before the first step;
# - [token similarity](glossary.md) at the top, before and after;
# - how far the *first* update moved the logits, as a root mean square;
# - how far the stack has moved, as a share of its own length.

# %%
CAUSES = [
    "healthy",
    "tokens alike from the start",
    "branches drowned",  # the stream grows so much that a branch adds almost nothing to it
    "rate too high",
    "rate too low",
    "branches asleep",  # each branch is multiplied by a factor that starts at 0
    "stack not trained",  # only embedding and head are
    "targets say nothing",  # they are random
]
runs = recorded("lesson_16", part="diagnosis")
shallow = [run for run in runs if run["layers"] == min(run["layers"] for run in runs) and run["seed"] == 0]
order = np.random.default_rng(5).permutation(len(shallow))
unknown = dict(zip("ABCDEFGHI", (shallow[i] for i in order), strict=True))
Picture(
    instruments(unknown),
    alt="Nine runs, A to I, one row each, and five panels: loss from start to end, gradient of first and last layer, token similarity from start "
    "to end, size of the first update, how far the stack moved. In each panel one or two runs differ from all others.",
)

# %%
print("run   loss           gradient first, last    similarity     1st update   moved")
for name, run in unknown.items():
    (first, last), (before, after) = run["gradient"][0], run["similarity"]
    print(
        f" {name}    {run['loss'][0]:.2f} → {run['loss'][-1]:.2f}    {first:8.1e}, {last:8.1e}     "
        f"{before:.2f} → {after:.2f}    {run['update'][0]:8.1e}   {run['moved']:.3f}"
    )

# %% [markdown] exercise="diagnose" difficulty=3 importance=5 minutes=20
# ### What went wrong?
#
# **Objective**: name the cause of a failed run from its instruments.
#
# First do it by eye: which letter is which of the eight causes? (One cause appears twice.) Then write `diagnose(run)`, which returns the cause, a text
# of `CAUSES`. `run` is a dictionary:
#
# - `loss` and `update`: lists, by step;
# - `chance`: the loss of a model that knows nothing, for this run's task;
# - `gradient`: `[[first, last], [first, last]]`, norms in the first and the last layer, before training and after it;
# - `similarity`: `[before, after]`;
# - `moved`: how far the stack moved.
#
# The check has runs of 48 and of 96 layers, with other seeds, and some on a task with a different chance level.
#
# Hint: Which numbers are impossible in a healthy run? Test for those first.
#
# Hint: Look at the start before the end. A run that learned nothing ends in much the same way, whatever the cause.


# %% exercise="diagnose"
def diagnose(run):
    """The cause, one of CAUSES: a text."""
    ### BEGIN SOLUTION
    first, last = run["gradient"][0]
    if run["moved"] == 0:
        return "stack not trained"
    if first == 0 and last == 0:
        return "branches asleep"
    if run["similarity"][0] > 0.99:
        return "tokens alike from the start"
    if last < 1e-6 * first:
        return "branches drowned"
    if run["update"][0] > 0.5:
        return "rate too high"
    if run["loss"][-1] > 0.95 * run["chance"]:
        return "rate too low" if run["moved"] < 0.01 else "targets say nothing"
    return "healthy"
    ### END SOLUTION


# %%
check.diagnose(diagnose)

# %%
diagnose = kit.mine_or_reference(diagnose, "diagnose")
for name, run in unknown.items():
    print(f"{name}: {diagnose(run):30}it was: {run['cause']}")
right = sum(diagnose(run) == run["cause"].split(" (")[0] for run in runs)
print(
    f"right in {right} of {len(runs)} recorded runs, of {' and '.join(str(n) for n in sorted({r['layers'] for r in runs}))} layers"
)
(random_targets,) = [run for run in unknown.values() if run["cause"] == "targets say nothing"]
print("random targets: token similarity {:.3f} → {:.3f}".format(*random_targets["similarity"]))
guess_similarity.compare("about 1.0")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# All runs are named. No single instrument tells all causes apart: three runs end at chance, and only token similarity at the *start* says which of
# them could never learn; the ratio of first to last gradient is near 1 in Post-LN, whose tokens are all the same; the loss falls in a run
# whose stack does not move at all.
# </details>
#
# **Why it works.** The loss says *that* something is wrong, and the others say *where*. Look at the start first: no learning rate repairs what is broken
# before the first step. Similarity at the *end* is a trap. With random targets there is nothing to tell apart, so a healthy stack learns to make its tokens equal; the cause is in the data.
#
# Two more runs, live, from another seed and at half the depth. Does your function name them?

# %% tags=["nbval-ignore-output"]
token_map = TokenMap(vocab_size=16, length=16, batch_size=16)


def watched_run(rule, learning_rate, layers, warmup=20, steps=60, seed=SEED + 7):
    """A run on the token map, everything trained, as a dictionary of what the five instruments measured."""
    model = build_model(stack_of(rule, layers), seed=seed)
    batch = token_map.batch(torch.Generator().manual_seed(seed + 1))
    drawn = [weight.detach().clone() for weight in model.group("stack")]
    logits, update = [], []

    def look():
        with torch.no_grad():
            logits.append(model.logits(batch))
        if len(logits) > 1:
            update.append((logits[-1] - logits[-2]).square().mean().sqrt().item())

    def measured():
        profile = probe(model, batch)
        return profile.gradient_by_layer()[[0, -1]].tolist(), float(profile.token_similarity[-1])

    look()
    start = measured()
    recipe = TrainConfig(steps=steps, learning_rate=learning_rate, warmup=warmup, seed=seed)
    history = train(model, token_map, recipe, on_step=lambda history: look(), progress=False)
    end = measured()
    moved = sum((new - old).square().sum() for new, old in zip(model.group("stack"), drawn, strict=True))
    moved = (moved / sum(old.square().sum() for old in drawn)).sqrt().item()
    pairs = [list(pair) for pair in zip(start, end, strict=True)]
    return {
        "loss": history.loss,
        "chance": token_map.chance,
        "gradient": pairs[0],
        "similarity": pairs[1],
        "update": update,
        "moved": moved,
    }


for rule, rate, warmup in (("deepnorm", 1e-3, 20), ("deepnorm", 3e-2, 0)):
    found = watched_run(rule, rate, 6 if SMOKE else 24, warmup, 10 if SMOKE else 60)
    print(
        f"{RESIDUALS[rule].title}, rate {rate:g}, warm-up {warmup}: {diagnose(found)}   (loss {found['loss'][0]:.2f} → {found['loss'][-1]:.2f})"
    )

# %% [markdown]
# ## How fast may it learn?
#
# The table has three learning rates, and a rule that fails at one may survive at the next. Where is the edge? A run costs the same whether it survives or
# not, so make only a few.

# %% [markdown] exercise="highest_rate" difficulty=2 importance=4 minutes=12
# ### The highest rate that survives
#
# **Objective**: find an edge on a logarithmic axis in few runs.
#
# Write `highest_rate(survives, low, high, ratio)`. `survives(rate)` trains a run and returns whether it survived. It is known that `low` survives and
# `high` does not. Return the highest rate that was *seen* to survive, once a rate that was seen to fail is at most `ratio` times as large. Make as
# few runs as possible.
#
# Hint: Rates belong on a logarithmic axis. What is the middle there?
#
# Hint: After each run you know on which side of the middle the edge is.


# %% exercise="highest_rate"
def highest_rate(survives, low, high, ratio):
    """The highest rate seen to survive: one number."""
    ### BEGIN SOLUTION
    while high / low > ratio:
        middle = sqrt(low * high)
        if survives(middle):
            low = middle
        else:
            high = middle
    return low
    ### END SOLUTION


# %%
check.highest_rate(highest_rate)

# %%
highest_rate = kit.mine_or_reference(highest_rate, "highest_rate")
tried = []


def made_up(rate):
    tried.append(rate)
    return rate <= 3.7e-3


found = float(highest_rate(made_up, 1e-6, 1.0, 1.1))
print(f"made-up edge at 3.7e-3: found {found:.4e} in {len(tried)} runs")
guess_runs.compare("about 8")

# %% [markdown]
# Now with real runs: a decoder of 24 layers, everything trained on the token map. Here a run survives if it ends below 95% of the loss at chance.

# %% tags=["nbval-ignore-output"]
for rule in ("deepnorm", "pre_ln", "keel"):
    tried = {}

    def survives(rate, rule=rule, tried=tried):
        """Whether a short run at this rate learns."""
        model = build_model(stack_of(rule, 4 if SMOKE else 24), seed=SEED)
        recipe = TrainConfig(steps=10 if SMOKE else 60, learning_rate=float(rate), warmup=10, seed=SEED)
        try:
            tried[rate] = train(model, token_map, recipe, progress=False).final_loss()
        except TrainingDiverged:
            tried[rate] = float("inf")
        return tried[rate] < 0.95 * token_map.chance

    found = float(highest_rate(survives, 1e-3, 1.0, 3.0 if SMOKE else 1.3))
    print(
        f"{RESIDUALS[rule].title:10}{found:.2g}   "
        + ", ".join(f"{rate:.1e}: {tried[rate]:.2f}" for rate in sorted(tried))
    )

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 3.6517e-03 in 8 runs for a range of a million. The arithmetic middle takes 12 runs, a grid 87. At 24 layers DeepNorm has
# the lowest edge of the three, about 0.02, and Pre-LN the highest, about 0.4. Each line ends with the losses at all rates that were tried.
# </details>
#
# **Why it works.** Each run halves what is left *on the logarithmic axis*. The search assumes that everything below the edge survives. Look at the losses
# above: is that so? If not, the search found only *an* edge, so run one more rate below it. And look at how the runs survived: Pre-LN passes at 0.4 with a loss barely below chance, while DeepNorm at its edge has learned the map. An edge belongs to a criterion, and with a stricter one
# the rules are closer together.
#
# ### A claim against DeepNorm
#
# Keel's paper (arXiv 2601.19895) measures the highest rate in a different way. It raises the rate during a single run until the run breaks, and
# counts standing still as breaking. It reports that DeepNorm tolerates 22 times less than Pre-LN at 64 sub-layers, and 13 times less at 512. That is the sharpest
# published claim against DeepNorm for decoders. It also states DeepNorm's $\beta$ as $L^{-1/4}$ for $L$ sub-layers, where DeepNet has $(4L)^{-1/4}$. Whether its runs used the stated value is not known.
#
# Here is the same protocol at this course's scale: width 32, the bytes of Python's documentation, rates raised by 3% a step from $10^{-5}$ to $10^{-1}$.
# (The paper's ramp is linear. In 300 steps a linear one passes $3 \cdot 10^{-4}$ at once and shows nothing.) A run breaks where its loss rises 0.25 nats above its
# minimum and stays there.

# %%
PAPER = {  # arXiv 2601.19895: highest rate at 64 and at 512 sub-layers
    "post_ln": (3.0e-4, 2.8e-4),
    "deepnorm": (3.5e-4, 3.5e-4),
    "pre_ln": (7.65e-3, 4.67e-3),
    "keel": (1.01e-2, 6.31e-3),
}
for sublayers, column in ((64, 0), (512, 1)):
    print(
        f"paper, {sublayers:3} sub-layers: Pre-LN over DeepNorm {PAPER['pre_ln'][column] / PAPER['deepnorm'][column]:.0f}"
    )


# %% tags=["nbval-ignore-output"]
def ramp_name(run):
    """The rule, and for DeepNorm which β."""
    title = RESIDUALS[run["rule"]].title
    if run["beta"] is None:
        return title
    return f"{title}, {'DeepNet' if run['beta'] < (2 * run['sublayers']) ** -0.25 else 'Keel'}'s β"


def ramp_end(run):
    """How a ramp ended: it broke, it reached its end, or it never learned anything."""
    if run["minimum"] > run["unigrams"] - 0.1:
        return "stood still"
    return "did not break" if run["broke_at"] is None else "broke"


def highest_rates(ramps):
    """Our highest rates and the paper's, a row for each rule; None without a record."""
    if not ramps:
        return None
    figure, axes = new_figure(2, width=10, height=3.6)
    for ax, sublayers, column in zip(axes, (64, 512), (0, 1), strict=True):
        names = list(dict.fromkeys(map(ramp_name, ramps)))
        for run in ramps:
            y = names.index(ramp_name(run))
            ax.plot(PAPER[run["rule"]][column], y + 0.3, "D", color="#E69F00", markersize=7)
            if run["sublayers"] == sublayers:
                mark = {"stood still": "x", "did not break": ">", "broke": "o"}[ramp_end(run)]
                ax.plot(run["highest_rate"], y, mark, color="#0072B2", markersize=7, mfc="none")
        ax.set_yticks(range(len(names)), names if ax is axes[0] else [""] * len(names))
        ax.set(xscale="log", xlim=(1e-4, 0.3), ylim=(len(names) - 0.4, -0.5))
        ax.set(xlabel="highest learning rate", title=f"{sublayers} sub-layers")
    for mark, label in (("o", "measured here"), (">", "did not break"), ("x", "stood still"), ("D", "the paper")):
        color = "#E69F00" if mark == "D" else "#0072B2"
        axes[0].plot([], [], mark, color=color, mfc=color if mark == "D" else "none", label=label)
    legend_below(figure, axes[0], columns=4)
    return Picture(
        figure,
        alt="Highest learning rate by rule, logarithmic, at 64 and at 512 sub-layers: for each rule one mark per seed measured here, and a diamond for "
        "the paper's number. The diamonds of DeepNorm are far to the left of those of Pre-LN.",
    )


ramps = recorded("learning_rates")
for sublayers in sorted({run["sublayers"] for run in ramps}):
    for name in dict.fromkeys(map(ramp_name, ramps)):
        same = [run for run in ramps if run["sublayers"] == sublayers and ramp_name(run) == name]
        rates = ", ".join(f"{run['highest_rate']:.1e} ({ramp_end(run)})" for run in same)
        lowest = min((run["minimum"] for run in same), default=float("nan"))
        print(f"{sublayers:3} sub-layers  {name:24}{rates}; lowest loss {lowest:.2f}")
for sublayers in sorted({run["sublayers"] for run in ramps}):
    seen = {
        rule: [r for r in ramps if (r["rule"], r["sublayers"]) == (rule, sublayers)] for rule in ("pre_ln", "deepnorm")
    }
    middle = {rule: np.median([run["highest_rate"] for run in same]) for rule, same in seen.items()}
    more = "at least " if "did not break" in map(ramp_end, seen["pre_ln"]) else ""
    print(
        f"{sublayers} sub-layers: Pre-LN over DeepNorm (medians, both β) {more}{middle['pre_ln'] / middle['deepnorm']:.0f}"
    )
highest_rates(ramps)

# %% [markdown]
# Compare the *order* of the rules, their *factor*, and the *size* of the rates.
#
# - At 64 sub-layers DeepNorm breaks first, as in the paper, with either $\beta$. Keel and Pre-LN swap: Keel breaks at about 0.05, and Pre-LN has not broken
#   where the ramp ends. A cross means stagnation: Post-LN never got more than 0.1 nats below the entropy of single bytes, and no rate is too high for a
#   stack that learns nothing.
# - At 512 sub-layers the ramp decides little. One of DeepNorm's three seeds breaks at 0.006, with either $\beta$; three of the other four runs reach the end.
#   But their lowest loss is less than 0.25 nats below the entropy of single bytes: a run can lose all that it has learned there and still not count as
#   broken. 300 steps are too few for this depth.
# - The factor between Pre-LN and DeepNorm is five or more at 64 sub-layers, and it was about 20 in the search above. So the claim's direction holds at this size.
# - The sizes do not agree: at 64 sub-layers DeepNorm tolerates 30 to 60 times more here than in the paper. A narrow model on little text tolerates more than one of
# a billion weights, and where the paper's $3.5 \cdot 10^{-4}$ for both depths comes from is open.
#
# And a higher edge is not a better model. What counts is the loss at a rule's *best* rate, and there the two are close (the section on small batches
# has both rules at three rates).
#
# ### Warm-up and rate
#
# Lesson 05 showed why the first steps are the dangerous ones. Does warm-up move the edge? The previous-token task, 48 layers, everything trained, three
# warm-ups for each rate, 75 steps.


# %% tags=["nbval-ignore-output"]
def warmups(runs, layers=48):
    """Loss at the end against the rate, a panel per rule, a line per warm-up; None without a record."""
    if not runs:
        return None
    figure, axes = new_figure(3, width=10, height=3.5)
    for ax, rule in zip(axes, ("post_ln", "pre_ln", "deepnorm"), strict=True):
        for i, warmup in enumerate(sorted({run["warmup"] for run in runs})):
            same = [run for run in runs if (run["rule"], run["layers"], run["warmup"]) == (rule, layers, warmup)]
            ends = {
                rate: [np.mean(r["loss"][-5:]) for r in same if r["learning_rate"] == rate]
                for rate in sorted({r["learning_rate"] for r in same})
            }
            ax.plot(
                list(ends),
                [np.mean(one) for one in ends.values()],
                marker="os^"[i],
                label=f"warm-up {warmup} steps",
                **series_style(i),
            )
        ax.axhline(runs[0]["chance"], color="black", linewidth=0.8)
        ax.set(xscale="log", ylim=(0, 3.4), xlabel="learning rate", title=RESIDUALS[rule].title)
    axes[0].set(ylabel="loss at the end (nats)")
    legend_below(figure, axes[0])
    return Picture(
        figure,
        alt="Three panels, Post-LN, Pre-LN and DeepNorm: loss at the end against the learning rate, a line for each warm-up, and a thin line at ln 16.",
    )


warmed = recorded("lesson_16", part="warmup")
for layers in sorted({run["layers"] for run in warmed}):
    for rule in ("post_ln", "pre_ln", "deepnorm"):
        same = [run for run in warmed if (run["rule"], run["layers"]) == (rule, layers)]
        learned = {
            w: sum(np.mean(r["loss"][-5:]) < 0.95 * r["chance"] for r in same if r["warmup"] == w)
            for w in sorted({r["warmup"] for r in same})
        }
        of = len(same) // len(learned)
        print(
            f"{layers} layers  {RESIDUALS[rule].title:9} learned: "
            + ", ".join(f"warm-up {w}: {n} of {of}" for w, n in learned.items())
        )
warmups(warmed)

# %% [markdown]
# The three rules behave differently. Post-LN stays at chance whatever the warm-up: its 48 layers have nothing that warm-up could protect. Pre-LN learns
# everywhere, only later where the warm-up is longer. For DeepNorm warm-up moves the edge: at 0.01 it stays at chance without any, and learns with ten steps. So do not say that DeepNorm needs no warm-up.
#
# ## Is depth used?
#
# A thousand layers that train are not yet a thousand layers that work. At the start a DeepNorm stack is nearly the identity, and it might stay so:
# a few layers might learn, and the rest pass on what they get. Two measurements can tell. How far has each layer moved from its initial weights? And how
# much is lost when a layer of the trained stack is left out ([ablation](glossary.md))?

# %% [markdown] exercise="working_layers" difficulty=2 importance=4 minutes=10
# ### How many layers work?
#
# **Objective**: turn the harm of leaving out each layer into one number.
#
# `harm`, an array with a number for each layer, is the rise of the loss when each layer alone is left out. Write `working_layers(harm)`: the square of the sum of all harms, over the
# sum of their squares. $n$ layers that do the same harm count as $n$, however small it is. A layer whose removal *lowers* the loss does no
# work: take its harm as 0. If no layer does any harm, the answer is 0.
#
# Hint: First make all harms zero or more.
#
# Hint: Two sums, one of them squared. What if the second is 0?


# %% exercise="working_layers"
def working_layers(harm):
    """The number of layers that share the work: one number."""
    ### BEGIN SOLUTION
    h = np.maximum(harm, 0)
    squares = (h * h).sum()
    return float(h.sum() ** 2 / squares) if squares > 0 else 0.0
    ### END SOLUTION


# %%
check.working_layers(working_layers)

# %%
working_layers = kit.mine_or_reference(working_layers, "working_layers")
for harm in ([2, 1, 1, -1, 0.5], [0.3] * 7 + [9.0]):
    print(f"{harm}: {float(working_layers(np.array(harm, float))):.4f}")

# %% [markdown]
# Now a trained stack: 48 layers, the previous-token task, 150 steps, everything trained.


# %% tags=["nbval-ignore-output"]
def used_depth(rule, layers, steps):
    """Harm of each layer, how far each has moved, and the loss without each of three random halves."""
    task = task_of("decoder")
    model = build_model(stack_of(rule, layers), seed=SEED)
    stack = model.stacks()["decoder"]
    drawn = [torch.cat([w.detach().flatten() for w in layer.parameters()]) for layer in stack.layers]
    train(model, task, TrainConfig(steps=steps, learning_rate=1e-3, warmup=20, seed=SEED), progress=False)
    trained = [torch.cat([w.detach().flatten() for w in layer.parameters()]) for layer in stack.layers]
    unseen, halves = task.batch(torch.Generator().manual_seed(SEED + 1000)), []
    with torch.no_grad():
        whole = model.loss(unseen).item()
        for draw in range(3):
            out = torch.randperm(layers, generator=torch.Generator().manual_seed(draw))[: layers // 2].tolist()
            with without_layers(stack, out):
                halves.append(model.loss(unseen).item())
    moved = [((new - old).norm() / old.norm()).item() for old, new in zip(drawn, trained, strict=True)]
    return {"rule": rule, "harm": layer_harm(model, unseen).tolist(), "moved": moved, "held_out": whole, "half": halves}


depths = [used_depth(rule, *((6, 10) if SMOKE else (48, 150))) for rule in ("deepnorm", "pre_ln")]
depths += [run for run in recorded("lesson_16", part="depth", seed=0) if run["rule"] in ("layernorm_scaling", "keel")]
print(f"{'':20}{'loss':>7}{'working layers':>16}   {'most harm':24}{'moved':16}without a random half")
for run in depths:
    worst, moved, harm = int(np.argmax(run["harm"])), run["moved"], np.array(run["harm"])
    most = f"layer {worst + 1}: +{harm[worst]:.2f}"
    print(
        f"{RESIDUALS[run['rule']].title:20}{run['held_out']:7.2f}{float(working_layers(harm)):16.1f}   {most:24}"
        f"{min(moved):.2f} to {max(moved):.2f}    " + ", ".join(f"{one:.2f}" for one in run["half"])
    )
guess_half.compare("DeepNorm")

# %% tags=["nbval-ignore-output"]
figure, (left, right) = new_figure(2, width=10, height=3.8)
for run in depths:
    style, places = line_style(run["rule"]), range(1, len(run["harm"]) + 1)
    left.plot(places, np.maximum(run["harm"], 1e-5), label=RESIDUALS[run["rule"]].title, **style)
    right.plot(places, run["moved"], **style)
left.set(
    yscale="log",
    xlabel="layer that is left out",
    ylabel="rise of the loss (nats)",
    title="how much each layer is missed",
)
right.set(ylim=(0, None), xlabel="layer", ylabel="‖Δθ‖/‖θ‖", title="how far each layer moved")
legend_below(figure, left, columns=4)
Picture(
    figure,
    alt="Left: rise of the loss when one layer is left out, logarithmic. Pre-LN's and LayerNorm scaling's peak is the first layer; DeepNorm's harms are small and "
    "even but for the last layer. Right: how far each layer moved; all layers of all rules moved, DeepNorm's twice as far as Pre-LN's.",
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 3.2400 and 1.5094 for the two lists. All layers have moved, DeepNorm's by a quarter of their length. Yet few are missed: about eight of DeepNorm's
# 48, three of Pre-LN's, one or two of LayerNorm scaling's, and a single one of Keel's. (Three seeds agree.) Three rules cannot do without their first layer,
# where DeepNorm loses little with any.
# </details>
#
# **Why it works.** If layers are similar, the others can replace one, so leaving out one at a time shows little: leave out half of them, too, with $\alpha$
# as it was. That every layer moved shows that the gradient reached it. It does not say that the layer is *needed*. This task needs one
# attention layer; a task that needs all 48 would be a different experiment.
#
# Keel is the surprise. Its first layer alone has no factor on its skip; every other multiplies the stream by 96, the number of its sub-layers, before it adds to it. So the
# first layer did all the work: without it nothing is left, and a random half that does not include it is hardly missed.
#
# ## Small batches: a counter-example
#
# The one independent replication of DeepNorm at 100 + 100 layers (microsoft/admin-torch, WMT'17 English-German) reports a success and a failure. In the recipe with
# 128 × 4,096 tokens a batch DeepNorm trained. In the one with 8 × 4,096 it did not. Original Admin did the opposite. Is the batch the cause? A small
# batch has a noisier gradient: how noisy is it?

# %% [markdown] exercise="noise_scale" difficulty=3 importance=4 minutes=15
# ### How large is the noise?
#
# **Objective**: find the batch size at which noise equals signal, from two measurements.
#
# The squared norm of a gradient over $b$ sequences has the mean $\lVert G\rVert^2 + S/b$: the signal's square and the noise of one sequence, divided by the batch
# (arXiv 1812.06162). Write `noise_scale(small, big, small_batch, big_batch)`. `small` and `big` are that mean, measured at the two batch sizes. Return
# $S/\lVert G\rVert^2$, the batch at which noise and signal are equal.
#
# Hint: Write the sentence above as an equation, twice. What is unknown?
#
# Hint: Subtract one from the other: the signal is gone. Multiply each by its batch first, and the noise is gone.


# %% exercise="noise_scale"
def noise_scale(small, big, small_batch, big_batch):
    """The batch size at which noise equals signal, in sequences: one number."""
    ### BEGIN SOLUTION
    signal = (big_batch * big - small_batch * small) / (big_batch - small_batch)
    noise = (small - big) / (1 / small_batch - 1 / big_batch)
    return noise / signal
    ### END SOLUTION


# %%
check.noise_scale(noise_scale)

# %%
noise_scale = kit.mine_or_reference(noise_scale, "noise_scale")
print(f"signal 2, noise 50, batches of 8 and 128: {float(noise_scale(2 + 50 / 8, 2 + 50 / 128, 8, 128)):.4f}")


# %% tags=["nbval-ignore-output"]
def mean_square(model, many, times):
    """Mean squared norm of the gradient over batches of real text, 32 bytes a sequence."""
    text, generator, squares = PythonDocs(length=32, batch_size=many), torch.Generator().manual_seed(SEED), []
    for _ in range(times):
        gradient = torch.autograd.grad(model.loss(text.batch(generator)), model.group("all"))
        squares.append(sum(one.square().sum().item() for one in gradient))
    return float(np.mean(squares))


for rule in ("deepnorm", "pre_ln"):
    model = build_model(stack_of(rule, 4 if SMOKE else 48, vocab_size=PythonDocs.vocab_size), seed=SEED)
    small, big = mean_square(model, 2, 4 if SMOKE else 32), mean_square(model, 32, 2 if SMOKE else 8)
    print(
        f"{RESIDUALS[rule].title:10}before training: noise scale {float(noise_scale(small, big, 2, 32)):.1f} sequences"
    )
batches = recorded("lesson_16", part="batch")
for run in batches:
    if run["noise"] and run["learning_rate"] == min(one["learning_rate"] for one in batches):
        before, after = (float(noise_scale(*one)) for one in run["noise"])
        print(
            f"{RESIDUALS[run['rule']].title:10}recorded, seed {run['seed']}: {before:.1f} before, {after:.1f} after {len(run['loss'])} steps"
        )
print()
for rule, rate in dict.fromkeys((run["rule"], run["learning_rate"]) for run in batches):
    line = f"{RESIDUALS[rule].title:10}rate {rate:<8g}held-out bits a byte: "
    for many in (2, 32):
        ends = [run for run in batches if (run["rule"], run["learning_rate"], run["batch_size"]) == (rule, rate, many)]
        line += (
            f"batch {many}: "
            + ", ".join("broke" if r["outcome"] != "trained" else f"{r['held_out'] / np.log(2):.2f}" for r in ends)
            + "   "
        )
    print(line)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 25.0000 for the made-up numbers. Before training noise and signal are equal at about two sequences of text under DeepNorm, and at six to thirteen under Pre-LN. Training
# raises the noise scale of both. (Do not trust the exact numbers after training: they are differences of noisy means, and seeds differ by a factor of four.)
# </details>
#
# **Why it works.** Two unknowns, two equations. The batch of 32 still holds $S/32$, so it is not the signal alone. Below the noise scale a gradient
# is mostly noise, and a step in its direction is mostly a random one.
#
# Did small batches break DeepNorm here? No run broke, at three learning rates. A batch of 2 ends half a bit to one bit a byte worse under both rules, but in as many steps it has also read a
# sixteenth of the text. The only exception is DeepNorm at 0.016, which is bad with *either* batch: that rate is near its edge. So the failure was not reproduced at this size, which does not
# mean that it is not real.
#
# Was it the batch at all? Here are the two recipes, as admin-torch's example folder has them.

# %%
SMALL = {"tokens a batch": 32_768, "learning rate": 1e-3, "warm-up": 8000, "weight decay": 0.0, "dropout": 0.1}
HUGE = {"tokens a batch": 524_288, "learning rate": 1.5e-3, "warm-up": 4000, "weight decay": 1e-4, "dropout": 0.4}
for name in SMALL:
    print(f"{name:16}{SMALL[name]:>12,}{HUGE[name]:>12,}")

# %% [markdown] exercise="clean_pairs" difficulty=2 importance=5 minutes=10
# ### Which runs can be compared?
#
# **Objective**: find the pairs of runs that say something about one setting.
#
# `runs` is a list of dictionaries with the same names: settings, such as the rule, the batch, the seed, and a `"result"`. Write `clean_pairs(runs, factor)`. Return
# the pairs `(i, j)`, $i < j$, of places in the list whose runs differ in the setting `factor` and in no other, as a list.
#
# Hint: What must be equal, and which two names must be left out?
#
# Hint: Take those two out of both dictionaries, and compare what is left.


# %% exercise="clean_pairs"
def clean_pairs(runs, factor):
    """Places (i, j) of runs that differ in factor alone: a list of pairs."""

    ### BEGIN SOLUTION
    def rest(run):
        return {name: value for name, value in run.items() if name not in (factor, "result")}

    pairs = []
    for i, j in combinations(range(len(runs)), 2):
        if runs[i][factor] != runs[j][factor] and rest(runs[i]) == rest(runs[j]):
            pairs.append((i, j))
    return pairs
    ### END SOLUTION


# %%
check.clean_pairs(clean_pairs)

# %%
clean_pairs = kit.mine_or_reference(clean_pairs, "clean_pairs")
published = [{**SMALL, "result": "DeepNorm fails"}, {**HUGE, "result": "DeepNorm trains"}]
for factor in SMALL:
    print(f"{factor:16}pairs among the two published runs: {clean_pairs(published, factor)}")
more = [{**SMALL, factor: HUGE[factor], "result": None} for factor in SMALL]
counts = {factor: len(clean_pairs([*published, *more], factor)) for factor in SMALL}
print(f"with {len(more)} more runs, each with one setting changed: {counts}")
guess_recipes.compare("5")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# No pair at all for the two published runs, and one for each setting once five runs are added.
# </details>
#
# **Why it works.** The two recipes differ in five settings, so any of them, or two together, may be the cause. "DeepNorm fails with small batches" is one
# of many explanations. The failure is real and worth knowing; its cause is open, and five runs of a hundred layers would tell more.
#
# ## In three sentences
#
# 1. At 1,000 layers and at 500 + 500 DeepNorm starts well and learns; Post-LN's tokens are all the same before the first step, and no rate helps.
# 2. A stack that starts well still needs a rate inside a window, and five instruments show on which side of it a failed run was.
# 3. That all layers train does not show that all are needed, and two recipes that differ in five settings show nothing about any of them.
#
# **Read next**: the paper's Tables 1 and 2, which compare rules at 100 + 100 layers and go up to 1,000; microsoft/admin-torch, `example/README.md`, for the
# counter-example. Then lesson 17: what would it cost?
