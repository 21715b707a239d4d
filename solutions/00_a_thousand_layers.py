# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: Can a Transformer have a thousand layers?
#     opening: >-
#       **In this lesson** you train three Transformers of 1,000 layers, live, on this machine. One dies, one crawls,
#       one learns. They differ in one line of code, and in how the weights are drawn.
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
on_gpu = device.type == "cuda"

# %% [markdown]
# ## One line decides
#
# (Words and symbols are in the [glossary](glossary.md), here and in all lessons.)
#
# A Transformer layer has two branches: attention and feed-forward. Each branch $F$ reads the stream $x$ and is added
# back to it. Three rules for the adding:
#
# | rule | formula | since |
# |---|---|---|
# | Post-LN | $x \leftarrow \mathrm{LN}(x + F(x))$ | the first Transformer, 2017 |
# | Pre-LN | $x \leftarrow x + F(\mathrm{LN}(x))$, and one LN at the end | GPT-2, 2019 |
# | **DeepNorm** | $x \leftarrow \mathrm{LN}(\alpha x + F(x))$ | DeepNet, 2022 |
#
# LN is layer normalisation: it gives each token mean 0 and variance 1. DeepNorm is Post-LN with two constants. $\alpha$
# makes the skip stronger. $\beta$ makes the branch's weights smaller when they are drawn (all but query and key), and is never used again.

# %%
Picture(
    residual_blocks(rules),
    alt="Three blocks side by side. Post-LN: skip and branch are added, then normalised. Pre-LN: the norm stands in "
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
# The model sees 16 random tokens and must answer $5x + 3 \bmod 16$ for each. That is a table with 16 rows. A model that
# knows nothing has loss $\ln 16 = 2.77$.
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
    """A narrow decoder: depth is what we look at, and narrow layers are quick."""
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
# All three stacks are freshly drawn with Xavier's rule, and nobody has trained anything. Send one batch through each
# and look at the top: can the tokens still be told apart? **[Token similarity](glossary.md)** is the mean cosine between different
# tokens of a sequence. At 1 they have all become the same, and no head can give them different answers.


# %%
def at_init(residual):
    profile = probe(build_model(config(residual), seed=SEED).to(device), example.to(device))
    return profile.token_similarity[-1]


similarity = {residual: at_init(residual) for residual in rules}
print("Post-LN's tokens have collapsed (similarity above 0.99):", similarity["post_ln"] > 0.99)
print("Pre-LN's are on the way there (above 0.5):              ", similarity["pre_ln"] > 0.5)
print("DeepNorm's are as different as they came (below 0.1):   ", similarity["deepnorm"] < 0.1)
assert similarity["post_ln"] > 0.99
assert similarity["deepnorm"] < 0.1

# %% [markdown]
# ## Predict
#
# Forty steps of Adam for each stack: learning rate 0.0003, reached over 20 steps. Commit to an answer before you run
# the next cell.
#
# <details><summary><b>Primer: gradient norm, Adam, warm-up</b> (open if one of the words is new)</summary>
#
# **Gradient norm.** The gradient says for each weight how the loss changes if the weight does. Its norm, the root of the
# sum of squares, is its length: one number for how loudly the loss speaks to a layer. The middle panel shows one such
# number for each sub-layer. 0 means that the layer cannot hear.
#
# **Adam.** Plain gradient descent moves each weight by learning rate × gradient. Adam divides by a running average of the
# gradient's size, so each weight moves by about the learning rate, as long as its gradient is well above ε = 10⁻⁸. A weight whose
# gradient is exactly 0 does not move, and a gradient below ε moves it next to nothing: this is where Post-LN's lower layers are.
#
# **Warm-up.** The learning rate starts near 0 and grows to its value over the first steps; here over 20. The first steps
# of a deep model are the dangerous ones (lesson 05 shows why), so they are made small. All live runs here use it, and so
# does the paper, for 4,000 steps or more.
#
# **Clipping.** If the norm of the whole gradient is above 1, it is scaled down to 1. It keeps one bad batch from doing
# harm.
# </details>

# %%
guess = kit.Guess(
    "After 40 steps, which 1,000-layer stacks have learned the table (loss below 1)?",
    ["None of them", "DeepNorm only", "DeepNorm and Pre-LN", "All three"],
)
guess

# %% [markdown]
# ## Run
#
# Three models, one after the other, 12.7 million weights each. About a minute per model on a laptop. Watch the three
# panels: the loss, the gradient that reaches each layer, and the similarity of the tokens after each layer.
#
# *The recipe*: Xavier-normal weights (gain β for DeepNorm, but 1 for its query and key, and 1 for the others) and zero biases; AdamW without weight
# decay, learning rate 3·10⁻⁴ after 20 steps of warm-up; gradient clipped to norm 1; seed 0.

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
    "begins to fall late, DeepNorm falls from the start; two dotted controls stay above ln 16. Gradient by layer: "
    "Post-LN's is below 10^-12 in the lower two thirds, the others' reaches the bottom. Token similarity by layer: Post-LN's is "
    "1 almost everywhere, DeepNorm's stays near 0.",
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
print("Post-LN ends within 0.1 of ln 16:", abs(final["post_ln"] - task.chance) < 0.1)
print("DeepNorm ends below 1.0:         ", final["deepnorm"] < 1.0)
assert abs(final["post_ln"] - task.chance) < 0.1
assert final["deepnorm"] < 1.0

# %% tags=["nbval-ignore-output"]
kit.record(layers=depth, **{f"final_loss_{residual}": loss for residual, loss in final.items()})

# %%
guess.compare("DeepNorm only")

# %% [markdown]
# ## What you saw
#
# - **Post-LN** died before it began. Its tokens are all alike, so the best it can do is to answer every token with the
#   same guess: $\ln 16$. Its loss does fall at first, from above $\ln 16$ to $\ln 16$; that is the last norms learning to
#   say "I do not know". The gradient of the lower layers falls below anything that an optimizer
#   can use (the panel ends at $10^{-12}$).
# - **Pre-LN** is alive, but slow. Its stream grows with each layer, so each new layer changes less of it. Forty steps
#   are few; the record below shows where it is at 60.
# - **DeepNorm** learns at once. All its layers receive a gradient of about the same size, and its tokens stay different.
#   It starts close to the identity: at initialisation more than 99% of its output is still its input.
#
# The two dotted controls lie on each other, well above: at this learning rate embedding and head alone get nowhere.
#
# One picture is no proof. Which is why the next section exists.

# %% [markdown]
# ## Was it the seed?
#
# The same race with three seeds, 60 steps, beside the controls with the best of the learning rates that were tried for *them*. This is
# not run now: it comes from a record, made by a script that you can run yourself.

# %%
chosen = record.select(task="token_map", parameters="stack", learning_rate=3e-4, warmup=20)
no_layers = record.select(task="token_map", layers=0, seed=SEED)
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
    "Pre-LN's lie between. Dotted controls without a trained stack: at the same learning rate above ln 16, at a "
    "larger one far below it.",
)

# %%
ends = {residual: [sum(run["loss"][-5:]) / 5 for run in chosen if run["residual"] == residual] for residual in rules}
print("DeepNorm below 1.0:          ", sum(loss < 1.0 for loss in ends["deepnorm"]), "of 3 seeds")
print("Post-LN within 0.1 of ln 16: ", sum(abs(loss - task.chance) < 0.1 for loss in ends["post_ln"]), "of 3 seeds")
moved = [run["at_end"]["input_share"][-1] for run in chosen if run["residual"] == "deepnorm"]
started = [run["at_init"]["input_share"][-1] for run in chosen if run["residual"] == "deepnorm"]
print("DeepNorm's output is the input to more than 99% at init:  ", min(started) > 0.99)
print("and to less than 10% after 60 steps: its layers have moved:", max(moved) < 0.1)
print("same recipe as the race:     ", all(chosen[0][name] == recipe[name] for name in ("learning_rate", "warmup")))

# %% tags=["nbval-ignore-output"]
print(record.source())

# %% [markdown]
# Look at the dotted curves with the larger learning rates. **Embedding and head, with no trained layer, solve this task.**
# Had we trained them too, a DeepNorm stack that learns nothing would have looked as if it learned. So we train the stack
# alone.
#
# ## Was it the recipe?
#
# "Post-LN dies" is a claim about one learning rate and one warm-up until others were tried. So they were: six recipes,
# three seeds each.

# %%
Picture(
    learning_rate_grid(
        [run for run in record.select(task="token_map", parameters="stack") if run["residual"] != "pre_ln"],
        chance=task.chance,
    ),
    alt="Final loss against learning rate and against warm-up, three seeds each. Post-LN stays at or above ln 16 "
    "everywhere; DeepNorm is far below it everywhere.",
)

# %%
grid = record.select(task="token_map", parameters="stack", residual="post_ln")
alive = [run for run in grid if sum(run["loss"][-5:]) / 5 < task.chance - 0.1]
recipes = {(run["learning_rate"], run["warmup"]) for run in grid}
print(f"Post-LN learned something in {len(alive)} of {len(grid)} runs ({len(recipes)} recipes, 3 seeds each)")

# %% [markdown]
# So the claim is: a 1,000-layer Post-LN stack dies under Xavier weights, Adam, these learning rates and warm-ups, 60 steps,
# this width. Other initialisations were not tried here, and nobody can try them all. And do not read the right panel as "DeepNorm needs no warm-up": this is a toy of 60 steps, and the paper itself
# always warms up, for 4,000 steps and more. Lessons 05 and 16 go on from here.
#
# ## A task that needs attention
#
# The table can be learned token by token, without attention. A Transformer should also *look around*. New task: name the
# **previous** token. The tokens are random, so who cannot look back cannot do better than $\ln 16$. Again only the stack
# is trained. DeepNorm runs now; the other two, and three seeds, come from the record.

# %%
previous = PreviousToken(vocab_size=16, length=8, batch_size=32)
back_record = record.select(task="previous_token", parameters="stack")
back_alone = min(record.select(task="previous_token", layers=0, seed=SEED), key=lambda run: run["loss"][-1])
back_frozen = min(record.select(task="previous_token", layers=1000, parameters="ends"), key=lambda run: run["loss"][-1])
looking_back = {}

picture = kit.LivePicture(
    lambda: recorded_curves(
        back_record,
        chance={"without attention: ln 16": previous.chance},
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

# %%
attended = run.final_loss() < previous.chance - 0.05
in_record = [run for run in back_record if run["residual"] == "deepnorm"]
below = sum(sum(run["loss"][-5:]) / 5 < previous.chance - 0.05 for run in in_record)
if PROFILE != "smoke":
    assert attended, "DeepNorm's stack has not learned to look back within its steps."
print(f"DeepNorm's stack looks back (loss below ln 16): {below} of {len(in_record)} recorded seeds")

# %% [markdown]
# The plateau at $\ln 16$ is worth a look. For thirty steps the model has learned only that all tokens are equally likely.
# Then attention finds the previous position, and the loss falls again. A plateau need not be death: look at token
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
text_alone = record.select(task="text", layers=0, seed=SEED)
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
    "Post-LN's stay on it. Dotted controls: without layers at two learning rates, and with frozen layers. A thick line, "
    "trained just now, lies on a recorded curve of DeepNorm.",
)
run = kit.train_live(
    picture,
    reading,
    build_model(config("deepnorm", layers=text_layers, vocab_size=text.vocab_size), seed=SEED).to(device),
    text,
    TrainConfig(steps=text_steps, learning_rate=1e-3, warmup=20, seed=SEED, cuda_graph=on_gpu),
)

# %%
read = run.final_loss(10)
assert read < run.loss[0] - 0.5
if PROFILE != "smoke":
    assert read < text.unigram_entropy
for residual in rules:
    last = [sum(run["loss"][-20:]) / 20 for run in text_record if run["residual"] == residual]
    print(
        f"{residual}: below the unigram entropy in {sum(loss < text.unigram_entropy - 0.1 for loss in last)} of 3 recorded seeds"
    )

# %% [markdown]
# The thick line is what you just trained. Under the same Python it should lie on a recorded curve (other versions come
# with another text), which is how you know that the record is not a drawing.
#
# Be strict about what this shows. At this learning rate DeepNorm beats its own frozen copy, and Pre-LN does as well at
# 100 layers; Post-LN learns no more than how frequent each letter is. It does not show that depth *pays*: the dotted
# curve without layers does better in these few steps with a larger learning rate. Whether depth pays is a question of
# equal cost and tuned arms, and lesson 12 asks it.
#
# ## Change one number
#
# A stack of 100 layers trains in seconds. Change the rule, the depth, the learning rate or the warm-up, and run the cell
# again. Where does Post-LN still learn (try 6 layers, then 12)? At which learning rate does DeepNorm stop?


# %%
def try_it(residual="deepnorm", layers=100, learning_rate=3e-4, warmup=20, steps=40):
    layers = min(layers, 12) if PROFILE == "smoke" else layers
    model = build_model(config(residual, layers=layers), seed=SEED).to(device)
    settings = TrainConfig(steps=steps, learning_rate=learning_rate, warmup=warmup, parameters="stack", seed=SEED)
    return train(model, task, settings, progress=False).final_loss()


# Change a number here, or residual to "post_ln", "pre_ln" or "resi_dual":
loss = try_it(residual="deepnorm", layers=100, learning_rate=3e-4)
print("It learned something." if loss < task.chance - 0.1 else "It learned nothing.")

# %% tags=["nbval-ignore-output"]
print(f"loss at the end {loss:.3f}, where knowing nothing is {task.chance:.3f}")

# %% [markdown]
# From the next lesson on there are exercises, checked at once. This line, in any lesson, says how far you are and what is
# next (`deepnet-edu progress` says it in a terminal):

# %% tags=["nbval-ignore-output"]
kit.course_progress()

# %% [markdown]
# ## In three sentences
#
# 1. A 1,000-layer Post-LN stack with Xavier weights is dead at birth: its tokens are all alike.
# 2. DeepNorm changes two numbers, $\alpha$ on the skip and $\beta$ in the initial weights, and the same stack learns at once.
# 3. A claim like this needs the stack alone, several seeds and recipes, and controls without the stack.
#
# **Read next**: the paper's Section 2 (two pages: the rule, and the table of constants) and its Figure 2, then lesson 01:
# what does $x + F(x)$ do to a variance, a thousand times?
