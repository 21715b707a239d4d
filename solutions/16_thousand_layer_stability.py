# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: Do a thousand layers hold?
#     opening: >-
#       Lesson 00 trained three stacks of 1,000 layers. This lesson asks every rule of the library, at 1,000 decoder layers and at
#       500 + 500, the depth of the paper's title: which of them start well, which of them learn, and at which learning rates?
#       Then it takes failed runs apart: five plots of a run, no name, and you say what went wrong.
#     objectives: >-
#       read a failed run and name its cause, find the highest learning rate that a rule survives, and say whether a deep stack
#       uses its depth and whether two recipes can be compared at all.
#     prerequisites: lessons 00 and 04. Lesson 05 says why warm-up matters, lesson 10 what is in a step.
#     minutes: 70
#     paper: Sections 2 and 4, and what others found since.
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
from time import perf_counter

import numpy as np
import torch

# %%
from deepnet_edu import RESIDUALS, ModelConfig, TrainConfig, build_model, probe, train
from deepnet_edu.data import PreviousToken, SourceMap
from deepnet_edu.training import TrainingDiverged

device = kit.setup(SEED, PROFILE)
SMOKE = PROFILE == "smoke"
depth = LAYERS or (48 if SMOKE else 1000)
at_most = STEPS or (30 if SMOKE else 80)

# %% [markdown]
# ## One row of the table
#
# The table of this lesson has a row for each rule, learning rate and seed. A row is made like this. Build the stack, send one batch through it
# and judge what comes out, as in lesson 04. Then train *the stack alone*: embedding and head stay as they were drawn, since they can learn small
# tasks past any stack (lesson 00). The tasks cannot be solved without attention:
#
# - a **decoder** names the previous token of a sequence of random ones;
# - an **encoder-decoder** answers $5x + 3 \bmod 16$ for each source token $x$. Its decoder reads start tokens and nothing else, so all that it
#   knows came through cross-attention.
#
# A model that knows nothing has loss $\ln 16 = 2.77$ in both. A run ends as soon as its last five losses are 5% below that: it has **learned**.
# (On the plateau at $\ln 16$ their mean moves by 0.2%.) If it does not get there, it **stood still**; if its loss ends well above its start, or
# is not a number, it **broke**.

# %%
WIDTH = {"d_model": 32, "n_heads": 2, "d_ff": 128, "vocab_size": 16, "max_length": 32}
ENOUGH = 0.05  # share of the loss at chance that a run must have learned


class Learned(Exception):
    """Raised by a run that has learned enough."""


def stack_of(rule, layers, architecture="decoder"):
    """A narrow decoder, or half as many layers in each of two stacks."""
    if architecture == "decoder":
        return ModelConfig("decoder", "lm", layers, residual=rule, **WIDTH)
    return ModelConfig("encoder_decoder", "translation", layers // 2, layers - layers // 2, residual=rule, **WIDTH)


def task_of(architecture):
    return (PreviousToken if architecture == "decoder" else SourceMap)(vocab_size=16, length=8, batch_size=32)


def at_start(model, task, seed):
    """Verdict, token similarity, gradient of the first over the last layer, and share of the input: of the worse stack."""
    batch = task.batch(torch.Generator().manual_seed(seed)).to(device)
    if batch.target_inputs is not None:  # start tokens are all alike: to be told apart the probe's decoder reads others
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


def trained_row(rule, architecture, layers, learning_rate, seed, steps):
    """One row of the table: how a stack starts, and what becomes of it when the stack alone is trained."""
    task, losses = task_of(architecture), []
    model = build_model(stack_of(rule, layers, architecture), seed=seed).to(device)
    start = at_start(model, task, seed)

    def follow(history):
        losses.append(history.loss[-1])
        if len(losses) >= 5 and np.mean(losses[-5:]) < (1 - ENOUGH) * task.chance:
            raise Learned

    recipe = TrainConfig(steps=steps, learning_rate=learning_rate, warmup=20, parameters="stack", seed=seed)
    outcome = "stood still"
    try:
        train(model, task, recipe, on_step=follow, progress=False)
    except Learned:
        outcome = "learned"
    except TrainingDiverged:
        outcome = "broke"
    finite = [loss for loss in losses if np.isfinite(loss)]
    end = float(np.mean(finite[-5:]))
    if end > finite[0] + 0.1 * task.chance:
        outcome = "broke"
    return {
        "rule": rule,
        "architecture": architecture,
        "layers": layers,
        "learning_rate": learning_rate,
        "seed": seed,
        "steps": len(losses),
        **start,
        "loss_start": finite[0],
        "loss_end": end,
        "chance": task.chance,
        "share_learned": 1 - end / task.chance,
        "outcome": outcome,
    }


# %% tags=["nbval-ignore-output"]
begin = perf_counter()
row = trained_row(RULE, ARCHITECTURE, depth, LEARNING_RATE, SEED, at_most)
print(f"{RESIDUALS[RULE].title}, {depth:,} layers, {row['steps']} steps in {perf_counter() - begin:.0f} s")
kit.record(**row)
