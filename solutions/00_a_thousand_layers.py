# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: Can a Transformer have a thousand layers?
#     opening: >-
#       **In this lesson** you train three Transformers of 1,000 layers, live, on this machine. They differ in one line
#       of code, and in how the weights are drawn. That decides which of them learns.
#     objectives: >-
#       say what that line is, read the three instruments that the whole course uses (loss, gradient by layer, token
#       similarity by layer), and name the controls that make such a comparison honest.
#     prerequisites: to have written a small PyTorch model once.
#     minutes: 30
#     paper: Sections 2 and 3.
# ---

# %% [markdown]
# Run the cells from top to bottom with Shift+Enter, and stop once, at the question. The rest of the reading can wait until
# the first picture draws itself.

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()  # "cpu": 1,000 layers in minutes; "smoke": a few layers in seconds
SEED = 0
DEPTH = 0  # layers; 0: what the profile says
STEPS = 0  # training steps on the token map; 0: what the profile says

# %%
import torch

from deepnet_edu import ModelConfig, TrainConfig, build_model, deepnorm_constants, probe, train
from deepnet_edu.data import PreviousToken, PythonDocs, TokenMap
from deepnet_edu.figures import Picture, learning_rate_grid, recorded_curves, residual_blocks, training_race

device = kit.setup(SEED, PROFILE)
record = kit.Results("lesson_00")
depth = DEPTH or (48 if PROFILE == "smoke" else 1000)
steps = STEPS or {"smoke": 70, "gpu": 100}.get(PROFILE, 40)
rules = ["post_ln", "pre_ln", "deepnorm"]
titles = {"post_ln": "Post-LN", "pre_ln": "Pre-LN", "deepnorm": "DeepNorm"}
on_gpu = device.type == "cuda"

# %% [markdown]
# ## One line decides
#
# (Words and symbols are in the [glossary](glossary.md), here and in all lessons.)
#
# A Transformer layer has two branches: attention and feed-forward. Each branch $F$ reads the *stream* $x$, a vector of
# numbers for each token that passes through all layers, and is added back to it. Three rules for the adding:
#
# | rule | formula | since |
# |---|---|---|
# | Post-LN | $x \leftarrow \mathrm{LN}(x + F(x))$ | the first Transformer, 2017 |
# | Pre-LN | $x \leftarrow x + F(\mathrm{LN}(x))$, and one LN at the end | made common by GPT-2, 2019 |
# | **DeepNorm** | $x \leftarrow \mathrm{LN}(\alpha x + F(x))$ | DeepNet, 2022 |
#
# LN is layer normalisation: it gives each token mean 0 and variance 1. DeepNorm is Post-LN with two constants. $\alpha$
# makes the skip stronger. $\beta$ makes the branch's weights smaller when they are drawn (all but query and key), and is never used again.

# %%
Picture(
    residual_blocks(rules),
    alt="Three blocks side by side. Post-LN: skip and branch are added, then normalised. Pre-LN: the norm is in "
    "the branch. DeepNorm: as Post-LN, but the skip is multiplied by alpha and the branch's weights by beta.",
)

# %% [markdown]
# For a stack of $M$ decoder layers the paper sets $\alpha = (2M)^{1/4}$ and $\beta = (8M)^{-1/4}$. At 1,000 layers the
# skip counts almost seven times, and the branch's weights start at a tenth.

# %%
for layers in (12, 100, 1000):
    constants = deepnorm_constants(decoder_layers=layers).decoder
    print(f"{layers:5,} layers: α = {constants.alpha:.4f}, β = {constants.beta:.4f}")

# %% [markdown]
# ## A task that is easy, if anything gets through
#
# The model sees 16 random tokens and must predict $5x + 3 \bmod 16$ for each. That is a table with 16 rows. A model that
# knows nothing can do no better than 16 equal probabilities, and then has a loss of $\ln 16 = 2.77$ (in nats: the unit
# of a loss with the natural logarithm).
#
# **Only the stack is trained.** The embedding below it and the head above it stay as they were drawn. This matters:
# embedding and head can learn the table between them, past any stack that lets tokens through, even one that learns
# nothing. A demonstration that trains them too proves nothing about the stack. (Below you see how far they get alone.)
# The head is random and cannot be changed, so the first guesses are confident and wrong: losses start above $\ln 16$.

# %%
task = TokenMap(vocab_size=16, length=16, batch_size=16)
example = task.batch(torch.Generator().manual_seed(SEED))
print("input ", example.inputs[0, :8].tolist())
print("answer", example.targets[0, :8].tolist())


# %%
def config(residual, layers=depth, vocab_size=16):
    """A narrow decoder: depth is the subject, and narrow layers are quick."""
    return ModelConfig(
        architecture="decoder",
        task="lm",
        decoder_layers=layers,
        d_model=32,
        n_heads=2,
        d_ff=128,
        vocab_size=vocab_size,
        max_length=32,
        residual=residual,
    )


# %% [markdown]
# ## Before the first step
#
# All three stacks are freshly drawn with Xavier's rule (random weights, of a size that keeps signals and gradients about
# as large as they were), and nothing is trained yet. Send one batch through each
# and look at the top: can the tokens still be told apart? **[Token similarity](glossary.md)** is the mean cosine between different
# tokens of a sequence. At 1 they have all become the same, and no head can give them different outputs.


# %%
def at_init(residual):
    profile = probe(build_model(config(residual), seed=SEED).to(device), example.to(device))
    return profile.token_similarity[-1]


similarity = {residual: at_init(residual) for residual in rules}
collapsed = kit.finding("token similarity, Post-LN (collapsed)", similarity["post_ln"], above=0.99)
kit.finding("token similarity, Pre-LN (on the way there)", similarity["pre_ln"], above=0.5)
kit.finding("token similarity, DeepNorm (as different as they came)", similarity["deepnorm"], below=0.1)
if not collapsed:
    print(
        f"With {depth} layers Post-LN's tokens still differ at the top: it may learn below, and that is not a mistake."
    )

# %% [markdown]
# ## Predict
#
# Each stack gets the same few steps of Adam, with the learning rate 0.0003, reached over 20 steps. Commit to a guess
# before you run what follows it.
#
# <details><summary><b>Primer: gradient norm, Adam, warm-up</b> (open if one of the words is new)</summary>
#
# **Gradient norm.** The gradient says for each weight how the loss changes if the weight does. Its norm, the root of the
# sum of squares, is its length: one number for how loudly the loss speaks to a layer. The middle panel shows one such
# number for each sub-layer. 0 means that the layer cannot hear.
#
# **Adam.** Plain gradient descent moves each weight by learning rate × gradient. Adam divides by a running average of the
# gradient's size, so each weight moves by about the learning rate, as long as its gradient is well above ε = 10⁻⁸. A weight whose
# gradient is exactly 0 does not move, and one whose gradient is below ε hardly moves.
#
# **Warm-up.** The learning rate starts near 0 and grows to its value over the first steps; here over 20. The first steps
# of a deep model are the dangerous ones (lesson 05 shows why), so they are made small. All live runs here use it, and so
# does the paper, for 4,000 steps or more.
#
# **Clipping.** If the norm of the whole gradient is above 1, it is scaled down to 1. It keeps one bad batch from doing
# harm.
# </details>

# %% tags=["nbval-ignore-output"]
guess = kit.Guess(
    f"After {steps} steps, which stacks of {depth:,} layers have learned the table (loss below 1)?",
    ["None of them", "DeepNorm only", "DeepNorm and Pre-LN", "All three"],
)
guess

# %% [markdown]
# ## Run
#
# Three models, one after the other, 12.7 million weights each. About a minute per model on a laptop. Watch the three
# panels: the loss, the gradient that reaches each layer, and the similarity of the tokens after each layer.
#
# *The recipe*: Xavier-normal weights with gain 1; for DeepNorm with gain β, except query and key; zero biases; AdamW without
# weight decay, learning rate 3·10⁻⁴ after 20 steps of warm-up; gradient clipped to norm 1; seed 0.

# %%
# On a GPU a step is recorded once and then replayed: a thousand layers are many thousands of small kernels, and to start
# them one by one takes longer than to run them.
recipe = {"learning_rate": 3e-4, "warmup": 20, "seed": SEED, "cuda_graph": on_gpu}

# Two controls: embedding and head are trained *instead of* the stack, without any layers, and around a frozen stack.
without_layers = build_model(config("none", layers=0), seed=SEED).to(device)
alone = train(without_layers, task, TrainConfig(steps=steps, parameters="ends", **recipe), progress=False)
frozen = record.select(task="token_map", layers=1000, parameters="ends", learning_rate=3e-4)[0]
controls = {"no layers": alone.loss, "DeepNorm's stack frozen (recorded)": frozen["loss"][:steps]}

# %% tags=["headline"]
runs = {}
picture = kit.LivePicture(
    lambda: training_race(runs, chance=task.chance, chance_label="ln 16", steps=steps, layers=depth, controls=controls),
    alt="Three panels for three stacks trained alone. Loss by step: Post-LN falls to ln 16 and stays there, Pre-LN "
    "begins to fall late, DeepNorm falls from the start; two grey controls, one on the other, stay above ln 16. Gradient "
    "by layer: Post-LN's line ends on the way down, with the words that it is below 10^-12 under that; the others' reach "
    "the bottom. Token similarity by layer: Post-LN's is 1 almost everywhere, DeepNorm's stays near 0.",
)


for residual in rules:
    kit.train_live(
        picture,
        runs,
        build_model(config(residual), seed=SEED).to(device),
        task,
        TrainConfig(steps=steps, parameters="stack", profile_every=8, **recipe),
    )

# %%
final = {residual: run.final_loss() for residual, run in runs.items()}
dead = kit.finding("Post-LN's last loss, less ln 16", final["post_ln"] - task.chance, near=0, by=0.1)
learned = kit.finding("DeepNorm's last loss", final["deepnorm"], below=1.0)
if not (dead and learned):
    print(
        f"With these dials, {depth} layers and {steps} steps, it is not as the text below has it: the picture shows how."
    )

# %% tags=["nbval-ignore-output"]
for residual, loss in final.items():
    print(f"{titles[residual]:8} {loss:.2f} (mean of the last five of {steps} steps)")
kit.record(layers=depth, **{f"final_loss_{residual}": loss for residual, loss in final.items()})

# %% tags=["nbval-ignore-output"]
reached = {residual for residual in rules if final[residual] < 1.0}
options = [(set(), 0), ({"deepnorm"}, 1), ({"deepnorm", "pre_ln"}, 2), (set(rules), 3)]
guess.compare(next((guess.options[i] for which, i in options if which == reached), ", ".join(reached)))

# %% [markdown]
# ## What you saw
#
# - **Post-LN** died before it began. Its tokens are all the same, so the best that it can do is to give all of them the
#   same 16 equal probabilities: $\ln 16$. The gradient of the lower layers falls below anything that an optimizer
#   can use (the panel ends at $10^{-12}$). Its loss does fall at first, from above $\ln 16$ to $\ln 16$: the next section
#   finds out what learned that.
# - **Pre-LN** is alive, but slower; the record below has 60 steps and three seeds of it. A likely reason, which we have not measured here: its stream grows with each layer, so
#   each new layer changes less of it.
# - **DeepNorm** learns at once. All its layers receive a gradient of about the same size, and its tokens stay different.
#   It starts close to the identity: at initialisation more than 99% of its output is still its input.
#
# The two grey controls are one curve, well above: at this learning rate embedding and head alone get nowhere.

# %% [markdown]
# ## Which part of Post-LN learned?
#
# Its loss fell to $\ln 16$, so something was trained. Is it the last norm, which could make all outputs the same by
# itself? Here are runs of the same 1,000 layers, with the same batches, in which only a part of the stack is trained.
# (Recorded, one seed; the mean of three steps each.)

# %%
parts = record.select(task="token_map", residual="post_ln", learning_rate=3e-4, warmup=20, seed=0)
print(f"{'trained':34}{'step 10':>9}{'20':>7}{'40':>7}")
names = {"norms": "all norms", "matrices": "all matrices", "stack": "everything"}
for run in sorted(parts, key=lambda run: run["parameters"] == "stack"):
    name = names.get(run["parameters"], run["parameters"])
    at = [sum(run["loss"][step - 3 : step]) / 3 for step in (10, 20, 40)]
    print(f"{name:34}{at[0]:9.2f}{at[1]:7.2f}{at[2]:7.2f}")

# %% [markdown]
# The upper hundred layers' matrices alone make the same curve as everything. The lower nine hundred do nothing, with nine
# tenths of the weights: their loss is that of the last norm alone, whose 64 weights move too little. All norms together
# help a little. So Post-LN's stack is dead but for its top: **the upper layers' matrices, the only ones with a gradient
# that Adam can use, pull all outputs to the same 16 equal probabilities**. The table itself they cannot learn, because
# the tokens that reach them are all the same.
#
# One picture does not prove anything yet. So the next sections change one thing after the other.

# %% [markdown]
# ## Was it the seed?
#
# The same race with three seeds, 60 steps, beside the controls with the best of the learning rates that were tried for *them*. It is
# not run now: it comes from a record, made by a script that you can run yourself.

# %%
chosen = record.select(task="token_map", parameters="stack", learning_rate=3e-4, warmup=20)
no_layers = record.select(task="token_map", layers=0, seed=0)
best = min(no_layers, key=lambda run: run["loss"][-1])
best_frozen = min(record.select(task="token_map", layers=1000, parameters="ends"), key=lambda run: run["loss"][-1])
same = next(run for run in no_layers if run["learning_rate"] == 3e-4)

Picture(
    recorded_curves(
        chosen,
        chance={"ln 16": task.chance},
        controls={
            "no layers, same learning rate": same["loss"],
            f"no layers, learning rate {best['learning_rate']:g}": best["loss"],
            f"DeepNorm's 1,000 layers frozen, learning rate {best_frozen['learning_rate']:g}": best_frozen["loss"],
        },
    ),
    alt="Loss by step for three seeds of each rule. DeepNorm's three curves fall below 0.3, Post-LN's stay at ln 16, "
    "Pre-LN's lie between. Grey controls without a trained stack: at the same learning rate above ln 16, at a "
    "larger one far below it.",
)


# %%
def end(run):
    """The mean loss of its last five steps."""
    return sum(run["loss"][-5:]) / 5


ends = {residual: [end(run) for run in chosen if run["residual"] == residual] for residual in rules}
kit.finding("last loss of three seeds, DeepNorm", ends["deepnorm"], below=1.0)
kit.finding("last loss of three seeds, Pre-LN", ends["pre_ln"], above=max(ends["deepnorm"]), below=task.chance)
kit.finding(
    "last loss of three seeds, Post-LN, less ln 16", [loss - task.chance for loss in ends["post_ln"]], near=0, by=0.1
)
shares = {
    when: [run[when]["input_share"][-1] for run in chosen if run["residual"] == "deepnorm"]
    for when in ("at_init", "at_end")
}
kit.finding("input's share of DeepNorm's output, fresh", shares["at_init"], above=0.99, form=".2%")
kit.finding("and after 60 steps, in which its layers have moved", shares["at_end"], below=0.1, form=".1%")
print(f"recipe: learning rate {chosen[0]['learning_rate']}, warm-up {chosen[0]['warmup']} steps, as in the race")

# %% tags=["nbval-ignore-output"]
print(record.source())

# %% [markdown]
# Look at the grey curves with the larger learning rates. **Embedding and head, with no trained layer, solve this task.**
# Had we trained them too, a DeepNorm stack that learns nothing would have looked as if it learned. So we train the stack
# alone.
#
# ## Was it the recipe?
#
# "Post-LN dies" is a claim about one learning rate and one warm-up until others were tried, and so is "Pre-LN is slow".
# So here are others, each with three seeds (the largest learning rate with one).

# %%
Picture(
    learning_rate_grid(record.select(task="token_map", layers=1000, parameters="stack"), chance=task.chance),
    alt="Final loss against learning rate, and against warm-up for Post-LN and DeepNorm. Post-LN stays at or above ln 16 "
    "everywhere. Pre-LN is best at a learning rate of 0.001, where it is still above DeepNorm. At 0.003 DeepNorm's loss is "
    "high again, above Pre-LN's. All warm-ups are low for DeepNorm.",
)

# %%
grid = record.select(task="token_map", layers=1000, parameters="stack")
best_rates = {}
for residual in rules:
    runs_of = [run for run in grid if run["residual"] == residual]
    recipes = {}
    for run in runs_of:
        recipes.setdefault((run["learning_rate"], run["warmup"]), []).append(end(run))
    alive = sum(end(run) < task.chance - 0.1 for run in runs_of)
    print(f"{titles[residual]}: learned something in {alive} of {len(runs_of)} runs ({len(recipes)} recipes)")
    (rate, warmup), best_rates[residual] = min(recipes.items(), key=lambda item: sum(item[1]) / len(item[1]))
    print(f"    best at learning rate {rate:g}, warm-up {warmup}")
kit.finding(
    "best recipe of each rule, by seed",
    {titles[residual]: best_rates[residual] for residual in rules},
    says="DeepNorm's highest is below Pre-LN's lowest",
    holds=max(best_rates["deepnorm"]) < min(best_rates["pre_ln"]),
)
largest = {titles[run["residual"]]: end(run) for run in grid if run["learning_rate"] == 3e-3}
kit.finding("learning rate 0.003, one seed", largest, says="Pre-LN alone is below 2", holds=largest["Pre-LN"] < 2)

# %% [markdown]
# So the claim is: a 1,000-layer Post-LN stack dies under Xavier weights, Adam, these learning rates and warm-ups, 60 steps,
# this width. Other initialisations were not tried here, and no one can try them all. Pre-LN does better with a learning
# rate of its own, and is still slower than DeepNorm with its own: the order survives, the distance is smaller. (We did not
# vary Pre-LN's warm-up.) "DeepNorm learns" needs its recipe, too: at 0.003 (one seed) it loses again what it had learned, and Pre-LN is ahead. And do not
# read the right panel as "DeepNorm needs no warm-up": this is a toy of 60 steps, and the paper itself always warms up, for
# 4,000 steps and more. Lessons 05 and 16 continue from here.
#
# ## A task that needs attention
#
# The table can be learned token by token, without attention. A Transformer should also *look around*. New task: name the
# **previous** token. The tokens are random, so a model that cannot look back cannot do better than $\ln 16$. Again only the stack
# is trained. DeepNorm runs now; the other two, and three seeds, come from the record.

# %%
previous = PreviousToken(vocab_size=16, length=8, batch_size=32)
back_record = record.select(task="previous_token", parameters="stack")
back_alone = min(record.select(task="previous_token", layers=0, seed=0), key=lambda run: run["loss"][-1])
back_frozen = min(record.select(task="previous_token", layers=1000, parameters="ends"), key=lambda run: run["loss"][-1])
looking_back = {}

picture = kit.LivePicture(
    lambda: recorded_curves(
        back_record,
        chance={"ln 16": previous.chance},
        controls={
            "no layers, best learning rate": back_alone["loss"],
            "DeepNorm's layers frozen, best learning rate": back_frozen["loss"],
        },
        live=looking_back,
    ),
    alt="Loss by step on the previous-token task. DeepNorm's curves first fall to ln 16, rest there, and then fall "
    "below it towards 1; Pre-LN's leave it earlier but fall more slowly; Post-LN's and the control without layers stay at ln 16.",
)
run = kit.train_live(
    picture,
    looking_back,
    build_model(config("deepnorm"), seed=SEED).to(device),
    previous,
    TrainConfig(steps=56, learning_rate=2e-4, warmup=20, parameters="stack", seed=SEED, cuda_graph=on_gpu),
)

# %% tags=["nbval-ignore-output"]
kit.finding("last loss of your run, less ln 16", run.final_loss() - previous.chance, below=-0.05)

# %%
back = {
    residual: [end(run) - previous.chance for run in back_record if run["residual"] == residual] for residual in rules
}
kit.finding("last loss of three recorded seeds, less ln 16: DeepNorm", back["deepnorm"], below=-0.5)
kit.finding("Pre-LN", back["pre_ln"], below=-0.5)
kit.finding("Post-LN", back["post_ln"], near=0, by=0.05)

# %% [markdown]
# The plateau at $\ln 16$ is worth a look. For thirty steps the model has learned only that all tokens are equally likely.
# Then attention finds the previous position, and the loss falls again. A plateau is not always death: look at token
# similarity and gradient together.
#
# ## Real text
#
# Last, what people do with such models: everything is trained, embedding and head too, on the bytes of Python's own
# documentation. Text takes more steps than a table, so the stack that you train now has 100 layers. The loss has other
# yardsticks: a model that knows only how frequent each byte is reaches the *unigram entropy*; one that knows the byte
# before reaches the *bigram entropy*.

# %%
text = PythonDocs(length=32, batch_size=8)
text_layers, text_steps = (12, 40) if PROFILE == "smoke" else (100, 200)
text_record = record.select(task="text", layers=100, parameters="all")
text_alone = record.select(task="text", layers=0, seed=0)
text_best = min(text_alone, key=lambda run: sum(run["loss"][-10:]))
text_same = next(run for run in text_alone if run["learning_rate"] == 1e-3)
text_frozen = record.select(task="text", layers=100, parameters="ends", learning_rate=1e-3)[0]
reading = {}

picture = kit.LivePicture(
    lambda: recorded_curves(
        text_record,
        chance={"unigram entropy": text.unigram_entropy, "bigram entropy": text.bigram_entropy},
        controls={
            "no layers, same learning rate": text_same["loss"],
            f"no layers, learning rate {text_best['learning_rate']:g}": text_best["loss"],
            "DeepNorm's 100 layers frozen, same learning rate": text_frozen["loss"],
        },
        live=reading,
        smooth=10,
    ),
    alt="Loss by step on real text, 100 layers, everything trained. DeepNorm's curves fall below the unigram entropy, "
    "Post-LN's stay on it. Grey controls: without layers at two learning rates, and with frozen layers. A thick line, "
    "trained just now, is on a recorded curve of DeepNorm.",
)
run = kit.train_live(
    picture,
    reading,
    build_model(config("deepnorm", layers=text_layers, vocab_size=text.vocab_size), seed=SEED).to(device),
    text,
    TrainConfig(steps=text_steps, learning_rate=1e-3, warmup=20, seed=SEED, cuda_graph=on_gpu),
)

# %% tags=["nbval-ignore-output"]
kit.finding("last loss of your run, less the unigram entropy", run.final_loss(10) - text.unigram_entropy, below=0)

# %%
for residual in rules:
    last = [sum(run["loss"][-20:]) / 20 - text.unigram_entropy for run in text_record if run["residual"] == residual]
    limits = {"near": 0, "by": 0.1} if residual == "post_ln" else {"below": -0.2}
    kit.finding(f"recorded, less the unigram entropy: {titles[residual]}", last, **limits)

# %% [markdown]
# The thick line is what you just trained. Under the same Python it should be on a recorded curve (other versions come
# with another text), which is how you know that the record is not a drawing.
#
# Be strict about what this shows. At this learning rate DeepNorm beats its own frozen copy, and Pre-LN does as well at
# 100 layers; Post-LN learns no more than how frequent each letter is. It does not show that depth *pays*: the grey
# curve without layers does better in these few steps with a larger learning rate. Whether depth pays is a question of
# equal cost and tuned arms, and lesson 12 asks it.
#
# ## A shallow stack
#
# Is DeepNorm simply the better rule? Here is the race again with 6 layers, at three learning rates, three seeds each.
# (A few seconds.)


# %%
def try_it(residual="deepnorm", layers=100, learning_rate=3e-4, warmup=20, steps=40, seed=SEED):
    """The last loss of a stack that is trained alone on the token map."""
    model = build_model(config(residual, layers=layers), seed=seed).to(device)
    settings = TrainConfig(steps=steps, learning_rate=learning_rate, warmup=warmup, parameters="stack", seed=seed)
    return train(model, task, settings, progress=False).final_loss()


shallow = {
    residual: {rate: [try_it(residual, 6, rate, seed=seed) for seed in range(3)] for rate in (3e-4, 1e-3, 3e-3)}
    for residual in rules
}
for residual, rates in shallow.items():
    for rate, losses in rates.items():
        print(f"{titles[residual]}, 6 layers, learning rate {rate:g}: ≈ " + ", ".join(f"{loss:.2f}" for loss in losses))

# %%
for rate in (3e-4, 1e-3, 3e-3):
    means = {titles[residual]: sum(shallow[residual][rate]) / 3 for residual in rules}
    ahead = means["Post-LN"] < means["DeepNorm"]
    kit.finding(f"6 layers, {rate:g}, mean loss", means, says="Post-LN is ahead of DeepNorm", holds=ahead)
fresh = probe(build_model(config("post_ln", layers=6), seed=SEED).to(device), example.to(device)).token_similarity[-1]
kit.finding("token similarity at the top of 6 fresh Post-LN layers", fresh, below=0.9)

# %% [markdown]
# At 6 layers all three learn, and DeepNorm is last at every learning rate. Two reasons are likely. Post-LN's tokens are
# still different there, so its branches, which start larger, do no harm yet. And Adam moves each weight by about the
# learning rate, whatever the depth: the moves of all layers add up, and few layers make a small sum (lesson 06 has it). At
# $3 \cdot 10^{-4}$ DeepNorm's loss after 40 steps is about 2.6 with 6 layers, 1.2 with 100 and 0.6 with 1,000. With a larger
# learning rate it comes close to the others. **DeepNorm is a remedy for depth. A shallow stack does not need it.**
#
# ## Change one number
#
# A stack of 100 layers trains in seconds. Change the rule, the depth, the learning rate or the warm-up, and run the cell
# again; it keeps a list of what you have tried. Two questions:
#
# 1. Post-LN learns at 6 layers. Does it still learn at 12, at one of these three learning rates?
# 2. At which learning rate does DeepNorm with 100 layers stop learning?

# %%
tried = {}


def note(residual="deepnorm", layers=100, learning_rate=3e-4, warmup=20):
    """Train, and show all that was tried so far, the last line being the newest."""
    layers = min(layers, 12) if PROFILE == "smoke" else layers
    tried[residual, layers, learning_rate, warmup] = try_it(residual, layers, learning_rate, warmup)
    print(f"loss after 40 steps (a model that knows nothing: {task.chance:.2f})")
    for (rule, depth_, rate, steps_up), loss in tried.items():
        print(f"{rule:10}{depth_:6,} layers, learning rate {rate:g}, warm-up {steps_up}: {loss:.2f}")


# %% tags=["nbval-ignore-output"]
# Change a number here, or residual to "post_ln", "pre_ln" or "resi_dual":
note(residual="deepnorm", layers=100, learning_rate=3e-4)

# %% [markdown]
# <details><summary>What you should find</summary>
#
# 1. No. With 12 layers Post-LN stays at $\ln 16$ at all three learning rates (we tried two seeds).
# 2. It is best at $3 \cdot 10^{-3}$, where the loss is about 0.1; at $10^{-2}$ it is about 0.9, and at $3 \cdot 10^{-2}$ it
#    is above $\ln 16$: somewhere between these two it stops (one seed).
# </details>
#
# From the next lesson on there are exercises, checked at once. This line, in any lesson, says how far you are and what is
# next (`deepnet-edu progress` says it in a terminal):

# %% tags=["nbval-ignore-output"]
kit.course_progress()

# %% [markdown]
# ## In three sentences
#
# 1. A 1,000-layer Post-LN stack with Xavier weights is dead at birth: its tokens are all the same, and only its top gets a
#    gradient.
# 2. DeepNorm changes two numbers, $\alpha$ on the skip and $\beta$ in the initial weights, and the same stack learns at
#    once; in a stack of 6 layers it has no such advantage.
# 3. A claim like this needs the stack alone, several seeds and recipes for each rule, and controls without the stack.
#
# **Read next**: the paper's Section 2 (two pages: the rule, and the table of constants) and its Figure 2, then lesson 01:
# what does $x + F(x)$ do to a variance, a thousand times?
