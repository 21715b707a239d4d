# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: How few lines is a 1,000-layer Transformer?
#     opening: >-
#       You have seen what DeepNorm does. Now you build it: the rule, its two constants, the initial weights, the stack.
#       Four short functions, and each of them has been published wrong. With your norm from lesson 02 and your attention
#       from lesson 03 they are a whole Transformer. At the end its 1,000 layers train, and you compare them with the
#       library's, number by number.
#     objectives: >-
#       write a DeepNorm Transformer from nothing but PyTorch, give it the right α and β for all three architectures,
#       and check it, before any training, for every mistake that is named here.
#     prerequisites: >-
#       lessons 00 to 03. (Lesson 06 derives the constants that you use here; you may take them on trust.)
#     minutes: 60
#     paper: Figure 2, the whole method on half a page.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
DEPTH = 0  # layers of the deepest stack; 0: what the profile says
STEPS = 0  # training steps; 0: what the profile says

# %% tags=["imports"]
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# %%
from deepnet_edu import ModelConfig, TrainConfig, build_model, deepnorm_constants, probe, train
from deepnet_edu.checks import check
from deepnet_edu.data import TokenMap
from deepnet_edu.figures import Picture, against_depth, loss_curves, residual_blocks
from deepnet_edu.figures.style import line_style
from deepnet_edu.model.initialization import measured_gains
from deepnet_edu.probing import input_share, token_similarity

device = kit.setup(SEED, PROFILE)
deepest = DEPTH or (32 if PROFILE == "smoke" else 1000)
depths = [n for n in ([4, 8, 16] if PROFILE == "smoke" else [12, 50, 200]) if n < deepest] + [deepest]
steps = STEPS or (40 if PROFILE == "smoke" else 24)

# %% [markdown]
# ## One line
#
# A sub-layer of the first Transformer is $\mathrm{LN}(x + F(x))$ ([symbols](notation.md)). DeepNorm changes one thing in
# it: in the sum, the skip weighs α times as much against the branch as before. The branch still reads the stream as it is,
# and what leaves the sub-layer still comes straight from the norm.
#
# Where does α go? There are several places for it in that line. One of them has no effect at all, and one has the opposite
# effect.

# %% [markdown] exercise="deepnorm" difficulty=1 importance=5 minutes=5
# ### The rule
#
# **Objective**: find the place of α in the line on which everything rests.
#
# Write `deepnorm(x, f, norm, alpha)`: one sub-layer that does what is said above. `x` is the stream, (B, T, d); `f` is the
# branch, a function of a tensor; `norm` is a LayerNorm, yours or PyTorch's, so all that you may do with it is to call it;
# `alpha` is a number.
#
# Hint: A norm hides one thing about its input: $\mathrm{LN}(c\,y) = \mathrm{LN}(y)$. Which places for α does that rule out?
#
# Hint: Inside the norm is a sum of two terms. Write down how large each is in Post-LN, and how large they should be now.


# %% exercise="deepnorm"
def deepnorm(x, f, norm, alpha):
    """The stream after one DeepNorm sub-layer: (B, T, d)."""
    ### BEGIN SOLUTION
    return norm(alpha * x + f(x))
    ### END SOLUTION


# %%
check.deepnorm(deepnorm)

# %%
deepnorm = kit.mine_or_reference(deepnorm, "deepnorm")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A card with "Right", for $\mathrm{LN}(\alpha x + F(x))$, as the paper writes it, or for $\mathrm{LN}(x + F(x)/\alpha)$. If it says
# that α is on the wrong term, you are in good company: labml's annotated papers, from
# which many have learned, have had `layer_norm(x + alpha * gx)` under a comment with the right formula since 2022
# (e6b3c8a, issue 145).
# </details>
#
# **Why it works.** The norm divides by the size of the sum, so only the *ratio* of skip to branch counts. A factor on
# both terms has no effect. With α on the branch instead, the ratio is wrong by $\alpha^2$, which is $\sqrt{2N}$ for a
# single stack of $N$ layers.
#
# That is the whole forward pass. The other half of the method, β, is used once, when the weights are drawn: those of the
# branch are smaller.

# %%
Picture(
    residual_blocks(["post_ln", "deepnorm"]),
    alt="Two blocks side by side. Post-LN adds skip and branch, then normalises. DeepNorm does the same, but its skip "
    "is multiplied by alpha, and its branch's weights by beta when they are drawn.",
)

# %% [markdown]
# An instrument can measure that ratio from outside, without looking at the code. You will build it in lesson 09; here it is
# borrowed.

# %% tags=["nbval-ignore-output"]
effective_alpha = kit.earlier("effective_alpha")


# %%
def alpha_of(rule):
    """Skip over branch in what the rule makes of α = 2.5, found from outside."""
    norm = nn.LayerNorm(16).double()
    return effective_alpha(lambda x, fx: rule(x[None], lambda _: fx[None].clone(), norm, 2.5)[0])


print(f"asked for 2.5, deepnorm has             {alpha_of(deepnorm):.3f}")
print(f"α on the branch, LN(x + αF), has        {alpha_of(lambda x, f, n, a: n(x + a * f(x))):.3f}")
print(f"α on both, LN(α(x + F)), has            {alpha_of(lambda x, f, n, a: n(a * (x + f(x)))):.3f}")
for layers in (12, 1000):
    factor = deepnorm_constants(decoder_layers=layers).decoder.alpha ** 2
    print(f"α on the wrong term makes the branch of {layers:5,} layers {factor:.1f} times too strong")

# %% [markdown]
# ## Two constants
#
# How strong should the skip be, and how small the weights? Lesson 06 derives it. All of the paper's constants have one
# form. If the updates of $S$ sub-layers add up, then
#
# $$\alpha = S^{1/4}, \qquad \beta = (4S)^{-1/4} .$$
#
# What remains is to count. In a single stack, encoder or decoder alone, each sub-layer counts once. A decoder that reads an
# encoder has cross-attention in each layer, a third sub-layer. And its encoder has the odd count
#
# $$S = \Big(\frac{N^4 M}{27}\Big)^{1/4} ,$$
#
# with $N$ layers of its own under $M$ decoder layers: each decoder layer reads its output, and so passes its change on.

# %% [markdown] exercise="constants" difficulty=2 importance=5 minutes=8
# ### The constants
#
# **Objective**: get from one form to the constants of all three architectures.
#
# Write `constants(encoder_layers, decoder_layers)`: a pair, the encoder's `(alpha, beta)` and the decoder's
# `(alpha, beta)`. A stack of 0 layers does not exist: its place holds `None`.
#
# Hint: There are three architectures. Which sub-layers does one layer have, in each stack of each?
#
# Hint: A small function from S to the pair leaves you only the four counts. Check one by hand: for 8 decoder layers alone
# α is 2.


# %% exercise="constants"
def constants(encoder_layers, decoder_layers):
    """((α, β) of the encoder, (α, β) of the decoder), None for a stack that is not there."""
    ### BEGIN SOLUTION
    N, M = encoder_layers, decoder_layers

    def pair(S):
        return S**0.25, (4 * S) ** -0.25

    if M == 0:
        return pair(2 * N), None
    if N == 0:
        return None, pair(2 * M)
    return pair((N**4 * M / 27) ** 0.25), pair(3 * M)
    ### END SOLUTION


# %%
check.constants(constants)

# %%
constants = kit.mine_or_reference(constants, "constants")

# %%
for N, M in [(12, 0), (0, 1000), (12, 3), (3, 12), (100, 100)]:
    for name, pair in zip(("encoder", "decoder"), constants(N, M), strict=True):
        if pair is not None:
            print(f"({N}, {M}): {name} α = {pair[0]:.4f}, β = {pair[1]:.4f}, α·β = {pair[0] * pair[1]:.3f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# `(12, 3)`: encoder 1.6224 and 0.4358, decoder 1.7321 and 0.4082. α·β is 0.707 everywhere. The paper's Figure 2 has the
# same constants in a table:
#
# | model | encoder α | encoder β | decoder α | decoder β |
# |---|---|---|---|---|
# | encoder-only, $N$ layers | $(2N)^{1/4}$ | $(8N)^{-1/4}$ | | |
# | decoder-only, $M$ layers | | | $(2M)^{1/4}$ | $(8M)^{-1/4}$ |
# | encoder-decoder | $0.81\,(N^4M)^{1/16}$ | $0.87\,(N^4M)^{-1/16}$ | $(3M)^{1/4}$ | $(12M)^{-1/4}$ |
#
# Its digits 0.81 and 0.87 are $27^{-1/16}$ and $27^{1/16}/\sqrt 2$, rounded. Either pair is right; the library has the
# paper's.
# </details>
#
# **Why it works.** The 2, 3 and 4 come from counting: two or three sub-layers a layer, and $4 = 2 \cdot 2$ because two matrices
# share the budget of β, under a root. Test such code with
# $N \ne M$: at 6-6 or 12-12 an exchange of $N$ and $M$ cannot be seen. (TorchScale, the authors' own library, has 1.15
# where the paper has 0.87, in every release.)
#
# ## Smaller weights
#
# β is the *[gain](glossary.md)* of [Xavier's](glossary.md) initialisation: a matrix of shape (fan_out, fan_in) is drawn from a normal distribution with
# standard deviation $g\sqrt{2/(\text{fan\_in} + \text{fan\_out})}$. The gain is $g = \beta$ for the value, output and
# feed-forward projections, and $g = 1$ for query and key. The softmax averages, whatever the scores, so those two cannot
# make the output larger than the largest value (the paper's Lemma 4.1). They can make it louder: sharp scores pick one
# token and keep its variance, where flat scores average $T$ independent ones and keep $1/T$ of it.
#
# In fast code query, key and value are one *[packed](glossary.md#packed-qkv)* matrix of shape (3d, d), and that is where it goes wrong.

# %% [markdown] exercise="init_qkv_" difficulty=2 importance=5 minutes=10
# ### A packed matrix is three matrices
#
# **Objective**: initialise query, key and value as the paper has it, when they share one tensor.
#
# Write `init_qkv_(weight, beta)`: fill `weight`, (3d, d), in place. The first d rows are the query's, the next the key's,
# the last the value's. Each is Xavier-normal on its own, with gains 1, 1 and β.
#
# Hint: What would Xavier's formula take for fan_out if you gave it the whole matrix?
#
# Hint: `weight.chunk(3)` gives three views that share memory with `weight`; `nn.init.xavier_normal_(view, gain=…)` fills
# one of them. PyTorch must not record this: put it under `with torch.no_grad():`, or take `weight.data`.


# %% exercise="init_qkv_"
def init_qkv_(weight, beta):
    """Fill weight (3d, d) in place: Xavier-normal for each d×d slice, with gains 1, 1, β."""
    ### BEGIN SOLUTION
    query, key, value = weight.data.chunk(3)
    nn.init.xavier_normal_(query, gain=1.0)
    nn.init.xavier_normal_(key, gain=1.0)
    nn.init.xavier_normal_(value, gain=beta)
    ### END SOLUTION


# %%
check.init_qkv_(init_qkv_)

# %%
init_qkv_ = kit.mine_or_reference(init_qkv_, "init_qkv_")


# %%
def gains(weight):
    """Xavier's formula undone, slice by slice."""
    return [round(part.std().item() * part.shape[1] ** 0.5, 2) for part in weight.chunk(3)]


packed = torch.empty(3 * 256, 256)
nn.init.xavier_normal_(packed, generator=torch.Generator().manual_seed(SEED))
print("Xavier on the whole packed matrix gives gains  ", gains(packed))
print("PyTorch's own nn.Linear                        ", gains(nn.Linear(256, 768).weight.detach()))
init_qkv_(packed, 0.25)
print("init_qkv_ with β = 0.25                        ", gains(packed))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Gains 0.71, 0.71, 0.71 for the packed matrix: √2 too small. And 0.58 for PyTorch's default, which is not Xavier at all.
# Yours: 1, 1, 0.25.
# </details>
#
# **Why it works.** Packing is an arrangement in memory, not one matrix: each slice maps d features to d features. The
# same mistake is reported for any packed projection (PyTorch issue 166378). In xformers the packed value slice was not
# scaled by β, and a vision Transformer went NaN at about epoch 50 (issue 219).
#
# ## Layers that differ
#
# Lesson 01 ended with a warning: copies of one layer add up in amplitude. A stack needs n layers, *each drawn afresh*,
# and PyTorch has to know of them.

# %% [markdown] exercise="build_layers" difficulty=2 importance=4 minutes=5
# ### A thousand layers, not one layer a thousand times
#
# **Objective**: stack layers that are independent, and that the optimizer can see.
#
# Write `build_layers(make_layer, n)`: an `nn.ModuleList` of n layers. `make_layer()` makes one, with fresh weights.
#
# Hint: What is in the list `[layer] * 3`? And what is different, and what is not, after `copy.deepcopy(layer)`?
#
# Hint: Which of your objects is made once, and which n times? An `nn.ModuleList` takes any iterable of modules.


# %% exercise="build_layers"
def build_layers(make_layer, n):
    """n independent layers: nn.ModuleList."""
    ### BEGIN SOLUTION
    return nn.ModuleList(make_layer() for _ in range(n))
    ### END SOLUTION


# %%
check.build_layers(build_layers)

# %%
build_layers = kit.mine_or_reference(build_layers, "build_layers")


# %%
def weights_of(layers):
    """How many matrices the optimizer sees, and how many different ones there are among them."""
    matrices = [p for p in nn.ModuleList(layers).parameters() if p.ndim == 2]
    return len(matrices), len({tuple(p.flatten().tolist()) for p in matrices})


from copy import deepcopy

one = nn.Linear(8, 8)
print("build_layers, 5 layers: matrices, different ones:", weights_of(build_layers(lambda: nn.Linear(8, 8), 5)))
print("[layer] * 5:                                     ", weights_of([one] * 5))
print("deepcopy(layer), 5 times:                        ", weights_of([deepcopy(one) for _ in range(5)]))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# (5, 5) for yours; (1, 1) for one layer used five times; (5, 1) for deep copies: five sets of parameters, one set of
# values.
# </details>
#
# **Why it works.** The variance arithmetic of lesson 01, and with it α and β, holds for independent branches only. Deep
# copies look healthy in every count of parameters.
#
# ## All of it
#
# You have written two more functions before. The next cell fetches them from your copies of lessons 02 and 03; as long as
# they are not right there, it takes the reference answers.

# %% tags=["nbval-ignore-output"]
layer_norm = kit.earlier("layer_norm")
attention = kit.earlier("attention")

# %% [markdown]
# Here is the rest, and no line of it is the library's. Each matrix gets its Xavier draw with β, each sum its α. Read it
# once: this is the answer to the question of this lesson.


# %%
class Norm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))  # LN's γ and β

    def forward(self, x):
        return layer_norm(x, self.gain, self.shift, 1e-5)


class Attention(nn.Module):
    def __init__(self, d, heads, beta):
        super().__init__()
        self.heads = heads
        self.qkv, self.output = nn.Linear(d, 3 * d), nn.Linear(d, d)
        init_qkv_(self.qkv.weight, beta)
        nn.init.xavier_normal_(self.output.weight, gain=beta)
        nn.init.zeros_(self.qkv.bias), nn.init.zeros_(self.output.bias)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # (B, T, d) each
        return self.output(attention(q, k, v, self.heads, True))


class FeedForward(nn.Sequential):
    def __init__(self, d, d_ff, beta):
        super().__init__(nn.Linear(d, d_ff), nn.GELU(), nn.Linear(d_ff, d))
        for linear in (self[0], self[2]):
            nn.init.xavier_normal_(linear.weight, gain=beta)
            nn.init.zeros_(linear.bias)


class Layer(nn.Module):
    def __init__(self, d, heads, d_ff, alpha, beta):
        super().__init__()
        self.alpha = alpha
        self.attention, self.norm_1 = Attention(d, heads, beta), Norm(d)
        self.ffn, self.norm_2 = FeedForward(d, d_ff, beta), Norm(d)

    def forward(self, x):
        x = deepnorm(x, self.attention, self.norm_1, self.alpha)
        return deepnorm(x, self.ffn, self.norm_2, self.alpha)


class DeepNet(nn.Module):
    """A decoder-only stack of ``n`` layers, (B, T, d) → (B, T, d)."""

    def __init__(self, n, d=32, heads=2, d_ff=128, alpha=None, beta=None):
        super().__init__()
        paper_alpha, paper_beta = constants(0, n)[1]
        alpha, beta = alpha or paper_alpha, beta or paper_beta
        self.layers = build_layers(lambda: Layer(d, heads, d_ff, alpha, beta), n)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class LanguageModel(nn.Module):
    """Tokens (B, T) → logits (B, T, vocabulary): a stack between an embedding and a head."""

    def __init__(self, n, vocabulary=16, longest=32, d=32, **settings):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, d), nn.Embedding(longest, d)
        head = nn.Linear(d, vocabulary, bias=False)
        for table in (self.token, self.position):  # their sum has variance 1
            nn.init.normal_(table.weight, std=0.5**0.5)
        nn.init.normal_(head.weight, std=d**-0.5)
        self.stack, self.head = DeepNet(n, d, **settings), head  # both ends are drawn first: the same at every depth

    def embed(self, tokens):
        return self.token(tokens) + self.position.weight[: tokens.shape[1]]

    def forward(self, tokens):
        return self.head(self.stack(self.embed(tokens)))

    def loss(self, batch):
        return F.cross_entropy(self(batch.inputs).flatten(0, 1), batch.targets.flatten())


# %% [markdown]
# The task is that of lesson 00: a table of 16 tokens to learn by heart. As there, embedding and head are drawn once and
# frozen, so that all learning is the stack's.

# %%
task = TokenMap(vocab_size=16, length=16, batch_size=8)
batch = task.batch(torch.Generator().manual_seed(SEED)).to(device)


def my_model(layers, seed=SEED, **settings):
    """The same seed gives the same weights."""
    torch.manual_seed(seed)
    return LanguageModel(layers, **settings).to(device)


model = my_model(12)
print("output", tuple(model(batch.inputs).shape), "for input", tuple(batch.inputs.shape))
print("matrices in 12 layers:", sum(p.ndim == 2 for p in model.stack.parameters()))

# %% [markdown]
# ## Predict, then measure
#
# Before any training, three instruments tell whether a stack can work: are its **tokens** still different at the top, how
# much of the **input** is left there, and how far does the output jump at the first **update**? The last one is what the
# paper bounds: [$\lVert\Delta F\rVert$](notation.md), the change of the output for one step of gradient descent, divided by the learning
# rate. The bound covers the matrices only, so only they are updated.

# %%
guess = kit.Guess(
    "From 12 to 1,000 layers, DeepNorm's first update (SGD, matrices only) grows by a factor of about",
    ["80", "9", "1"],
)
guess


# %%
def first_update(model):
    """Root mean square change of the logits for one SGD step on the stack's matrices, per unit of learning rate.

    The step must be small, or Post-LN's logits go as far as they can and the quotient looks flat. It must not be so
    small that rounding shows. A tiny one tells how long it must be to change the logits by about 0.01.
    """
    model.double()
    matrices = [p for p in model.stack.parameters() if p.ndim == 2]
    gradients = torch.autograd.grad(model.loss(batch), matrices)
    with torch.no_grad():
        before = model(batch.inputs)
        gone, learning_rate = 0.0, 1e-7
        for _ in range(2):
            for matrix, gradient in zip(matrices, gradients, strict=True):
                matrix -= (learning_rate - gone) * gradient
            change = (model(batch.inputs) - before).square().mean().sqrt().item()
            gone, learning_rate = learning_rate, learning_rate * 0.01 / change
        return change / gone


def at_the_top(layers, **settings):
    """Token similarity and input share."""
    model = my_model(layers, **settings)
    with torch.no_grad():
        x = model.embed(batch.inputs)
        y = model.stack(x)
    return token_similarity(y).item(), input_share(x, y).item()


def updates(layers, **settings):
    """First update of three seeds: they are far apart for Post-LN."""
    return [first_update(my_model(layers, seed=seed, **settings)) for seed in (SEED, SEED + 1, SEED + 2)]


post_ln = {"alpha": 1.0, "beta": 1.0}
mine_update = [first_update(my_model(n)) for n in depths]
shallow = depths[:-1] or depths  # all but the deepest
post_updates = np.array([updates(n, **post_ln) for n in shallow])  # (depths, seeds)
tops = {"your DeepNet": {}, "the same with α = β = 1 (Post-LN)": post_ln}
tops = {kind: np.array([at_the_top(n, **settings) for n in depths]).T for kind, settings in tops.items()}
(similar, share), (post_similar, post_share) = tops.values()

# %% tags=["headline"]
mean = np.exp(np.log(post_updates).mean(1))
drawn = {
    "Are tokens still different?": {kind: values[0] for kind, values in tops.items()},
    "What is left of the input?": {kind: values[1] for kind, values in tops.items()},
    "How far does the first update jump?": {
        "your DeepNet": mine_update,
        "Post-LN": [*mean, *[np.nan] * (len(depths) - len(mean))],
    },
}
figure = against_depth(
    depths,
    drawn,
    ylabels=["cosine between tokens", "share of the output that is the input", "update / learning rate (logits)"],
    rules=["deepnorm", "post_ln"],
    log=[False, False, True],
)
color = line_style("post_ln")["color"]
figure.axes[2].fill_between(shallow, post_updates.min(1), post_updates.max(1), color=color, alpha=0.2, linewidth=0)
figure.axes[2].plot(shallow, post_updates, ".", color=color, alpha=0.6)
figure.axes[2].set_title("How far does the first update jump?\n(band and dots: three seeds of Post-LN)", fontsize=10)
Picture(
    figure,
    alt="Three panels against depth on a logarithmic axis. Token similarity at the top: DeepNet near 0 at all depths, "
    "Post-LN at 1. Share of the input: DeepNet near 1, Post-LN near 0. First update, on a logarithmic axis: DeepNet's is "
    "0.2 at all depths, a flat line; Post-LN's, up to 200 layers, is hundreds to millions of times larger, and the deeper "
    "the stack the farther apart its three seeds.",
)

# %%
kit.finding("token similarity at the top, DeepNet by depth", similar, below=0.1)
kit.finding("                             Post-LN at the deepest", post_similar[-1], above=0.95)
kit.finding("input share at the top, DeepNet by depth", share, above=0.97)
kit.finding("                        Post-LN at the deepest", post_share[-1], below=0.1)
kit.finding("first update, DeepNet by depth", mine_update, says="largest within 20% of the smallest",
            holds=max(mine_update) < 1.2 * min(mine_update))  # fmt: skip
for i, seen in enumerate(post_updates.T):
    print(f"              Post-LN by depth, seed {i}: ≈ {', '.join(f'{one:,.0f}' for one in seen)}")
kit.finding("smallest of Post-LN's over DeepNet's largest", post_updates.min() / max(mine_update), above=5)

# %%
guess.compare("1")

# %% tags=["nbval-ignore-output"]
kit.record(depths=depths, update_deepnet=mine_update, update_post_ln=mean)

# %% [markdown]
# That flat line is what the paper's constants are made for: a bound (Theorem 4.2) that does not grow with depth, met by a
# stack that you wrote. Post-LN's update is larger at every depth, and no single number describes it: at 200 layers its
# seeds differ by a factor of more than a thousand. (It is measured up to there.) Read the flat line strictly: one step of plain gradient descent, on the
# matrices, at the start. Adam's steps, biases and the norms' own parameters are another matter, and lesson 06 shows where
# the line is not flat. (DeepNet and the first two panels: one seed. The 1/31 that a random direction would share with the
# input is taken out.)
#
# ## Train it
#
# Your stack, alone, at its full depth: Adam, learning rate 6·10⁻⁴ after 10 steps of warm-up, the gradient clipped to
# length 1. (24 steps: two minutes on a laptop, and less for the library's.
# Lesson 11 shows where they go.) The loop is ten lines of PyTorch, and nothing in the cell is the library's
# but the picture and the task. (Lesson 10 takes the loop apart.)

# %%
PEAK, WARMUP = 6e-4, 10
losses = {}
picture = kit.LivePicture(
    lambda: loss_curves(losses, chance=task.chance, chance_label="ln 16, a uniform guess", steps=steps),
    alt="Loss by step. Your stack's broad band falls from above ln 16 to far below it; the library's thin dashed line "
    "is inside it all the way.",
)


model = my_model(depths[-1])
at_start = [parameter.detach().cpu().clone() for parameter in model.parameters()]
with torch.no_grad():
    logits = model(batch.inputs)


def train_stack(model, found):
    """Train the stack alone; the loss of each step is appended to ``found``."""
    weights = list(model.stack.parameters())
    optimizer = torch.optim.Adam(weights, lr=PEAK, fused=True)
    generator = torch.Generator().manual_seed(SEED)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = PEAK * min(1, (step + 1) / WARMUP)
        loss = model.loss(task.batch(generator).to(device))
        optimizer.zero_grad()
        loss.backward(inputs=weights)
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        found.append(loss.item())
        picture.update()
    picture.finish()
    return sum(found[-5:]) / 5


mine_by_step = losses["your stack"] = []
final_loss = train_stack(model, mine_by_step)

# %%
if not kit.finding(
    "your stack's loss, mean of the last five steps (ln 16 = 2.77: a uniform guess)", final_loss, below=1
):
    print(
        f"{deepest:,} layers in {steps} steps are too few here: fewer layers learn more slowly at this rate, see below."
    )

# %% [markdown]
# ## A control
#
# A stack that learns proves little if any stack would. The same recipe, from the same functions of yours, with α = β = 1:
# Post-LN. And your DeepNet again, with few layers.

# %%
few = [12] if PROFILE == "smoke" else [12, 50]
post_ln_ends = [train_stack(my_model(n, **post_ln), []) for n in few]
deepnet_ends = [train_stack(my_model(n), []) for n in few]
kit.finding("Post-LN's last losses by depth", post_ln_ends, near=2.77, by=0.15)
kit.finding("DeepNet's at the same depths", deepnet_ends, below=2.47)

# %% tags=["nbval-ignore-output"]
kit.record(few_layers=few, post_ln=post_ln_ends, deepnet=deepnet_ends)

# %% [markdown]
# DeepNet's loss falls faster the deeper it is. That does not prove that depth helps: Adam's steps add up over the layers
# (lesson 06), so a deeper stack moves farther in each step. (One seed, one recipe. Lesson 00 has the grid of recipes under
# which Post-LN does not learn.)

# %% [markdown]
# ## Compare it with the library
#
# The library's model has the same parameters in the same order, so your weights can be copied into it. Are the logits the
# same? Do your weights pass the library's measure of gains, and its probe, which asks for tokens that differ, a gradient
# that reaches the bottom and a small update? And is the loss the same, step by step?

# %%
del model  # one 1,000-layer model at a time
shape = {"d_model": 32, "n_heads": 2, "d_ff": 128, "vocab_size": 16, "max_length": 32}
twin = build_model(ModelConfig("decoder", "lm", decoder_layers=depths[-1], residual="deepnorm", **shape)).to(device)
with torch.no_grad():
    for theirs, ours in zip(twin.parameters(), at_start, strict=True):
        theirs.copy_(ours)
    difference = (twin(batch.inputs) - logits).abs().max().item()
rows = measured_gains(twin)
wrong = [row for row in rows if abs(row.measured / row.expected - 1) > 6 * row.relative_error]
kit.finding("largest difference of a logit", difference, below=1e-4)
kit.finding("matrices whose gain is not the paper's", len(wrong), below=1)
print("verdict of the library's probe:", probe(twin, batch).judge().word)


# %%
def follow(history):
    losses["the library's"] = history.loss
    picture.update()


recipe = TrainConfig(steps=steps, learning_rate=PEAK, warmup=WARMUP, clip=1.0, parameters="stack", seed=SEED)
again = train(twin, task, recipe, on_step=follow, progress=False)
picture.finish()
apart = max(abs(a - b) for a, b in zip(mine_by_step, again.loss, strict=True))
kit.finding("largest difference of a loss, over all steps", apart, below=0.05)

# %% tags=["nbval-ignore-output"]
kit.record(layers=depths[-1], final_loss=final_loss, logits_apart=difference, losses_apart=apart)

# %% [markdown]
# So that is how few lines it is: about a hundred, without the norm and the attention of lessons 02 and 03, and a
# Post-LN Transformer would have nearly as many. What makes it DeepNet is
# an α in one line, a β in three, and a table of constants. The library has the same; what it adds is other rules,
# checks, and speed.
#
# ## For those who want more: encoder and decoder (optional)
#
# A translation model has two stacks. The encoder reads the source and hands over its output, the *[memory](glossary.md)*. A decoder
# layer then has three sub-layers: self-attention, **cross-attention** (queries from the decoder's stream, keys and values
# from the memory), feed-forward. Each is a DeepNorm of its own, all with the decoder's α.

# %% [markdown] exercise="decoder_layer" difficulty=3 importance=3 minutes=12
# ### A decoder layer that looks at the encoder (optional)
#
# **Objective**: put cross-attention in its place.
#
# Write `decoder_layer(x, memory, self_attention, cross_attention, ffn, norms, alpha)`: the stream after three sub-layers.
# `self_attention(x)` and `ffn(x)` are functions of the stream, `cross_attention(x, memory)` is one of both; `norms` holds
# three LayerNorms. `x` is (B, T, d), `memory` is (B, S, d).
#
# Hint: You have a function for one sub-layer. What changes from sub-layer to sub-layer, and what does each of them read?
#
# Hint: `deepnorm` takes a branch with one argument, and cross-attention has two. How do you fix one argument of a function?


# %% exercise="decoder_layer"
def decoder_layer(x, memory, self_attention, cross_attention, ffn, norms, alpha):
    """The stream after self-attention, cross-attention and feed-forward: (B, T, d)."""
    ### BEGIN SOLUTION
    x = deepnorm(x, self_attention, norms[0], alpha)
    x = deepnorm(x, lambda y: cross_attention(y, memory), norms[1], alpha)
    return deepnorm(x, ffn, norms[2], alpha)
    ### END SOLUTION


# %%
check.decoder_layer(decoder_layer)

# %%
decoder_layer = kit.mine_or_reference(decoder_layer, "decoder_layer")

# %% [markdown]
# With α = 1 this must be PyTorch's own decoder layer, which is Post-LN. That is a test without any formula of ours:

# %%
torch.manual_seed(SEED)
theirs = nn.TransformerDecoderLayer(32, 4, 64, dropout=0.0, batch_first=True).double().eval()
x, memory = torch.randn(2, 7, 32, dtype=torch.float64), torch.randn(2, 5, 32, dtype=torch.float64)
ours = decoder_layer(
    x,
    memory,
    lambda x: theirs.self_attn(x, x, x)[0],
    lambda x, memory: theirs.multihead_attn(x, memory, memory)[0],
    lambda x: theirs.linear2(F.relu(theirs.linear1(x))),
    [theirs.norm1, theirs.norm2, theirs.norm3],
    1.0,
)
apart = (ours - theirs(x, memory)).abs().max().item()
kit.finding("largest difference from torch.nn.TransformerDecoderLayer at α = 1", apart, below=1e-5)

# %% [markdown]
# Now the constants of both stacks at work. An encoder of N layers feeds a decoder of M layers; all weights are fresh. How
# much of the decoder's own input is left at its top, with the constants of the encoder-decoder row, and with α = β = 1?


# %%
class AttentionTo(nn.Module):
    """Attention with queries from one sequence, keys and values from another; without another, from itself."""

    def __init__(self, d, heads, beta):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(d, d) for _ in range(4))
        for linear, gain in ((self.query, 1), (self.key, 1), (self.value, beta), (self.output, beta)):
            nn.init.xavier_normal_(linear.weight, gain=gain)
            nn.init.zeros_(linear.bias)

    def forward(self, x, memory=None):
        memory = x if memory is None else memory
        q, k, v = (
            linear(side).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, side in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        return self.output(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@torch.no_grad()
def share_left(N, M, paper=True, d=64):
    """Share of the decoder's input in its output, through N encoder and M decoder layers at initialisation."""
    torch.manual_seed(SEED)
    (alpha_e, beta_e), (alpha_d, beta_d) = constants(N, M) if paper else ((1.0, 1.0), (1.0, 1.0))
    memory, x = torch.randn(4, 24, d), torch.randn(4, 16, d)
    start, norm = x, nn.LayerNorm(d)
    for _ in range(N):
        memory = deepnorm(memory, AttentionTo(d, 4, beta_e), norm, alpha_e)
        memory = deepnorm(memory, FeedForward(d, 4 * d, beta_e), norm, alpha_e)
    for _ in range(M):
        own, cross, ffn = AttentionTo(d, 4, beta_d), AttentionTo(d, 4, beta_d), FeedForward(d, 4 * d, beta_d)
        x = decoder_layer(x, memory, own, cross, ffn, [norm] * 3, alpha_d)
    return input_share(start, x).item()


sizes = [(6, 6), (12, 3)] if PROFILE == "smoke" else [(6, 6), (12, 3), (100, 100)]
kit.finding(
    "share left at 6-6, 12-3 and so on, the paper's constants", [share_left(*size) for size in sizes], above=0.8
)
kit.finding("                                 α = β = 1", [share_left(*size, paper=False) for size in sizes], below=0.2)

# %% [markdown]
# **Why it works.** In the decoder each sub-layer takes a share of the stream; three a layer, M layers. Its α is set by
# that sum. (The encoder's constants hardly show in this share: its output is normalised before the decoder reads it. They
# bound the *update*.) What the memory brings in is the same for all M layers, which is why the encoder has to move less the deeper
# the decoder is: its β falls with M.

# %% [markdown] exercise="stack_parameters" difficulty=2 importance=3 minutes=8
# ### How large is it? (optional)
#
# **Objective**: know where all parameters of a stack are.
#
# Write `stack_parameters(n, d, d_ff)`: the number of parameters of n layers with self-attention and feed-forward, biases
# and both norms included.
#
# Hint: Attention has four matrices of d×d, the feed-forward branch two. Each has a bias for its outputs.
#
# Hint: A norm has a gain and a bias of d numbers each, and a layer has two norms.


# %% exercise="stack_parameters"
def stack_parameters(n, d, d_ff):
    """Parameters of n layers: a whole number."""
    ### BEGIN SOLUTION
    attention = 4 * (d * d + d)
    ffn = (d * d_ff + d_ff) + (d_ff * d + d)
    norms = 2 * 2 * d
    return n * (attention + ffn + norms)
    ### END SOLUTION


# %%
check.stack_parameters(stack_parameters)

# %%
stack_parameters = kit.mine_or_reference(stack_parameters, "stack_parameters")
counted = sum(p.numel() for p in DeepNet(3).parameters())
print(f"your stack of 3 layers has {counted:,} parameters; your formula says {stack_parameters(3, 32, 128):,}")
print(f"500 encoder layers of DeepNet's width, 512 and 2,048: {stack_parameters(500, 512, 2048) / 1e9:.2f} billion")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 1.58 billion. The paper's model of 500 and 500 layers has 3.8 billion: its decoder layers have a second attention and a
# third norm, and there is a large vocabulary.
# </details>
#
# **Why it works.** About $4d^2$ numbers are attention's and $8d^2$ the feed-forward branch's, where it is four times as
# wide. DeepNorm adds not one parameter: α is a constant, and β is forgotten after the draw.
#
# ## In three sentences
#
# 1. DeepNet is Post-LN with α on the skip and β as the gain of value, output and feed-forward weights.
# 2. Every part of it has been published wrong: α on the branch, a constant of 1.15, one Xavier for a packed matrix, copied
#    layers. None of them raises an error.
# 3. A stack can be checked before it is trained: effective α, measured gains, distinct layers; then token similarity, input
#    share, first update. No single one sees everything.
#
# **Read next**: the paper's Section 4.3 and Figure 2; then the bug museum, lesson 09, where you build the
# instrument that you used here.
