# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: How do experts get DeepNorm wrong?
#     opening: >-
#       The method is one line and two constants. Yet many published implementations differ from the paper, and none of
#       those shown here raises an error. This lesson is a museum of such bugs. You build the instruments that see them, and
#       leave with a checklist for any code. The rooms up to the three sentences take about an hour; the further rooms after
#       them are optional.
#     objectives: >-
#       find a wrong α, a wrong gain, a missing norm and cloned layers in code that you have never seen, say which
#       instrument sees which bug, and review a model before it costs a training run.
#     prerequisites: lessons 01, 02 and 07. Lesson 06 helps with the constants.
#     minutes: 60
#     paper: Figure 2; most rooms hold a repository against it.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
DEPTH = 0  # layers of the deeper stacks in the first picture; 0: what the profile says

# %% tags=["imports"]
import copy
from math import ceil, log, sqrt

import torch
import torch.nn.functional as F
from torch import nn

# %%
from deepnet_edu.checks import check
from deepnet_edu.figures import Picture
from deepnet_edu.figures.style import legend_below, new_figure
from deepnet_edu.probing import input_share, token_similarity
from deepnet_edu.review import review

kit.setup(SEED, PROFILE)
depths = sorted({50, DEPTH or (60 if PROFILE == "smoke" else 200)})
seeds = range(SEED, SEED + 4)
deepnorm = kit.earlier("deepnorm")  # LN(αx + F(x)), from lesson 07
solve_deepnorm = kit.earlier("solve_deepnorm")  # (α, β) for any split, from lesson 06


def constants_of(n):
    """(α, β) of n layers, by the paper's even split."""
    return solve_deepnorm(n, 0.25)


# %% [markdown]
# ## A museum where nothing crashes
#
# The bugs in these rooms were found by reading public code and running it, at the commits named. All of it was written by
# people who know the field, and much of it has taught others. So ask in each room: *would I have seen it?* The code shown
# is ours: a few lines that do what the original does. Some originals may have been repaired since.
#
# We need a stack that can be built wrong. Three of its parts can be exchanged: how skip and branch are **joined**, how a
# matrix is **drawn**, and how **layers** are made. The folded cell has the stack: layers of attention and feed-forward,
# 64 wide, built as the paper says unless told otherwise.

# %% tags=["hide-input"]
WIDTH, HEADS, HIDDEN = 64, 4, 256
X = torch.randn(4, 32, WIDTH, generator=torch.Generator().manual_seed(SEED + 1))  # (B, T, d): tokens that differ


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention and feed-forward; `join` puts branch and stream together, `draw_` draws a matrix with a gain."""

    def __init__(self, join, alpha, beta, draw_, sub_ln=False):
        super().__init__()
        self.join, self.alpha = join, alpha
        self.self_attn, self.fc1, self.fc2 = Attention(), nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.inner = nn.LayerNorm(HIDDEN) if sub_ln else nn.Identity()  # for room 5
        self.draw(draw_, beta)

    def draw(self, draw_, beta):
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                draw_(module, 1.0 if name.endswith(("q_proj", "k_proj")) else beta)

    def feed_forward(self, x):
        return self.fc2(self.inner(F.relu(self.fc1(x))))

    def forward(self, x):
        x = self.join(x, self.self_attn, self.self_attn_layer_norm, self.alpha)
        return self.join(x, self.feed_forward, self.final_layer_norm, self.alpha)


def xavier_(linear, gain):
    """As the paper draws: Xavier-normal, biases 0."""
    nn.init.xavier_normal_(linear.weight, gain=gain)
    nn.init.zeros_(linear.bias)


def stack(n, join=deepnorm, alpha=None, beta=None, draw_=xavier_, make=None, sub_ln=False, seed=SEED):
    """n layers: the paper's, except for what you say. `make(layer, n, redraw_)` makes n of one."""
    torch.manual_seed(seed)
    alpha, beta = alpha or constants_of(n)[0], beta or constants_of(n)[1]
    if make is None:
        return nn.Sequential(*(Layer(join, alpha, beta, draw_, sub_ln) for _ in range(n)))
    return nn.Sequential(*make(Layer(join, alpha, beta, draw_), n, lambda layer: layer.draw(draw_, beta)))


# %% [markdown]
# The first visitor is a famous teaching repository. Its DeepNorm departs from the paper in **three** places: α multiplies
# the branch, the matrices are PyTorch's default ones multiplied by β, and all layers are copies of one. What do the usual
# instruments say to each bug alone, and to all three together?
#
# - The **gradient ratio**: the norm of the gradient in the first layer's `fc2` over that in the last layer's, for a random
#   direction of the output. Healthy: 1, within a factor of 1.6.
# - [**Token similarity**](glossary.md): the mean cosine between tokens at the top. At 1 they can no longer be told apart.
#   Healthy: below 0.1.
# - [**Input share**](glossary.md): the part of the output's variance that is still the input. Healthy here: above 0.9.

# %%
guess = kit.Guess(
    "50 layers with α on the wrong term, LN(x + αF). The gradient of the first layer over that of the last, which is 1 in a "
    "healthy stack, is now",
    ["about 0.00001", "about 1", "about 100,000"],
)
guess


# %%
def wrong_side(x, f, norm, alpha):
    return norm(x + alpha * f(x))


@torch.no_grad()
def default_(linear, gain):
    """PyTorch's own numbers, times the gain: weights and biases."""
    linear.reset_parameters()
    linear.weight.mul_(gain), linear.bias.mul_(gain)


def clones(layer, n, redraw_):
    return [copy.deepcopy(layer) for _ in range(n)]


def instruments(layers, seed=SEED):
    """First/last gradient of the feed-forward, token similarity at the top, share of the input at the top."""
    y = layers(X)
    signal = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    ends = [layers[0].fc2.weight, layers[-1].fc2.weight]
    first, last = torch.autograd.grad((y * signal).sum(), ends)
    return (first.norm() / last.norm()).item(), token_similarity(y).item(), input_share(X, y).item()


three_bugs = {
    "as in the paper": {},
    "default weights × β": {"draw_": default_},
    "copies of one layer": {"make": clones},
    "α on the branch": {"join": wrong_side},
    "all three": {"join": wrong_side, "draw_": default_, "make": clones},
}
found = {
    n: {name: [instruments(stack(n, seed=seed, **bug), seed) for seed in seeds] for name, bug in three_bugs.items()}
    for n in depths
}

# %% tags=["hide-input"]
from matplotlib.lines import Line2D
from matplotlib.patches import Patch


def patients(found):
    """A row per stack, a panel per instrument, a mark per seed; the green band is healthy."""
    names = list(three_bugs)
    titles = ["first/last gradient", "token similarity", "share of the input left"]
    labels = ["ratio of norms", "cosine between tokens", "share of variance"]
    bands = [(1 / 1.6, 1.6), (-0.03, 0.1), (0.9, 1.03)]
    plain = {"linestyle": "none", "markersize": 5}
    styles = [{"marker": "o", "color": "#0072B2", "markerfacecolor": "white"}, {"marker": "s", "color": "#D55E00"}]
    styles = [plain | style for style in styles]
    figure, axes = new_figure(3, width=10, height=3.8)
    for i, (ax, title, label, band) in enumerate(zip(axes, titles, labels, bands, strict=True)):
        ax.axvspan(*band, color="#009E73", alpha=0.15)
        for k, rows in enumerate(found.values()):
            for row, name in enumerate(names):
                place = [row - 0.14 + 0.28 * k] * len(seeds)
                ax.plot([one[i] for one in rows[name]], place, **styles[k])
        ax.set_yticks(range(len(names)), names if i == 0 else [])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel(label)
    axes[0].set_xscale("log")
    marks = [Line2D([], [], label=f"{n} layers, a mark per seed", **styles[k]) for k, n in enumerate(found)]
    band = Patch(color="#009E73", alpha=0.15, label="healthy")
    figure.legend(handles=[*marks, band], loc="outside lower center", ncols=3, frameon=False)
    return figure


Picture(
    patients(found),
    alt="Five stacks in rows, three instruments in panels, four seeds each, with a green band where a stack is healthy. At 50 "
    "layers the gradient ratio of every single bug is inside the band; all three bugs together are far to its left on "
    "three seeds and inside it on the fourth. Token similarity is outside the band for a misplaced alpha and for all three. "
    "The input's share shows copies, too. Default weights look healthy in every panel. The deeper stacks show the same, "
    "further out.",
)

# %%
at = {name: list(zip(*rows, strict=True)) for name, rows in found[50].items()}  # by instrument, then by seed
alone = list(three_bugs)[1:4]
print("50 layers, four seeds")
kit.finding("gradient ratio, each bug alone", {bug: at[bug][0] for bug in alone}, above=1 / 1.6, below=1.6)
kit.finding(
    "gradient ratio, all three", at["all three"][0], says="outside that band on one seed or more",
    holds=not all(1 / 1.6 < one < 1.6 for one in at["all three"][0]),
)  # fmt: skip
inside = {bug: sum(1 / 1.6 < one < 1.6 for one in rows[0]) for bug, rows in at.items()}
print("seeds of four with a healthy gradient ratio:", "; ".join(f"{bug} ≈ {count}" for bug, count in inside.items()))
kit.finding("token similarity, α on the branch", at["α on the branch"][1], above=0.2)
kit.finding("token similarity, all three", at["all three"][1], above=0.9)
kit.finding("token similarity, copies", at["copies of one layer"][1], below=0.1)
kit.finding("share of the input, copies", at["copies of one layer"][2], above=0.7, below=0.8)
kit.finding("share of the input, default weights × β", at["default weights × β"][2], above=0.9)

# %%
guess.compare("about 1")

# %% tags=["nbval-ignore-output"]
kit.record(**{f"instruments_{n}_{i}": sum(list(rows.values())[i], ()) for n, rows in found.items() for i in range(5)})

# %% [markdown]
# Four things to keep (four seeds, at initialisation; our stack, not theirs):
#
# - **The instrument that one reaches for first is nearly blind here.** At 50 layers the gradient ratio stays near 1 wherever
#   α is. (With SEED = 3, one stack of four reads 2.2: just outside.) Even with all three bugs it is inside the healthy band on
#   one seed of four. One run with one seed proves little.
# - Token similarity sees the misplaced α. It does not see copies at 50 layers; the input's share does.
# - Bugs that look bearable one at a time leave nothing of the signal when they come together.
# - One of the three bugs is seen by *none* of these instruments. It needs another one.
#
# So a museum needs instruments first. You will build five. Each sees what the others cannot.
#
# ## Room 1: α on the wrong term
#
# **Symptom.** At 50 layers the tokens have a similarity of 0.2 to 0.3 where DeepNorm has less than 0.01, and half of the
# input is gone. No error, no NaN.
#
# **Code.** Below a comment with the paper's formula was a line that does what this one does:


# %%
def published_join(x, f, norm, alpha):  # LN(αx + F(x))
    gx = f(x)
    return norm(x + alpha * gx)


# %% [markdown]
# You could find this by reading. But code can be spelled in many ways: α may be in a buffer, a config, a fused kernel. It
# is safer to **ask** the code. Give it an $x$ and an $F$ of your own choice, and work out how much of each is in what comes
# out. Lesson 07 used such an instrument. Now you build it.

# %% [markdown] exercise="effective_alpha" difficulty=4 importance=5 minutes=15
# ### Ask a black box for its α
#
# **Objective**: measure α from outside, so that no spelling can hide it.
#
# `combine(x, fx)` joins stream and branch, tensors of shape (…, d), somehow: $c \cdot \mathrm{LN}(a\,x + b\,F)$ with unknown
# $a$, $b$, $c$, each of which may be negative. The norm may be missing, too: $a\,x + b\,F$. It knows nothing of layers. Write
# `effective_alpha(combine, d=16)`: draw `x` and `fx` yourself, with `d` features, call `combine`, and return $a/b$, the
# weight of the skip over that of the branch.
#
# Hint: A norm subtracts each token's mean and divides by each token's own length. So for one token
# $\text{out} = a'\,(x - \bar x) + b'\,(F - \bar F)$, and $a'/b' = a/b$. Two unknowns, d equations.
#
# Hint: Two random vectors are not quite at right angles, so two projections will not do: solve for both numbers at once.
# `torch.linalg.lstsq(sides, out.unsqueeze(-1)).solution` does it for many tokens, with `sides` of shape (tokens, d, 2).
#
# Hint: `sides = torch.stack([x, fx], dim=-1)`, minus its mean over the features. Take the mean off `out`, too: without a norm
# it is still there. Use float64.


# %% exercise="effective_alpha"
def effective_alpha(combine, d=16):
    """Weight of the skip over that of the branch: one number."""
    ### BEGIN SOLUTION
    x, fx = torch.randn(2, 8, d, dtype=torch.float64)
    out = combine(x, fx)
    sides = torch.stack([x, fx], dim=-1)
    sides = sides - sides.mean(dim=-2, keepdim=True)
    skip, branch = torch.linalg.lstsq(sides, out.unsqueeze(-1)).solution.squeeze(-1).unbind(-1)
    return (skip / branch).mean().item()
    ### END SOLUTION


# %%
check.effective_alpha(effective_alpha)

# %%
effective_alpha = kit.mine_or_reference(effective_alpha, "effective_alpha")


# %%
def box_of(join, alpha):
    """What `join` makes of an x, an F and an α that it is given."""
    norm = nn.LayerNorm(WIDTH).double().requires_grad_(False)
    return lambda x, fx: join(x.double(), lambda _: fx.double(), norm, alpha)


def alpha_of(join, alpha):
    return effective_alpha(box_of(join, alpha), WIDTH)


asked = constants_of(100)[0]
kit.finding("asked for α = 3.761, the published line has", alpha_of(published_join, asked), near=1 / asked, by=1e-3)
kit.finding("LN(x + F/α) has", alpha_of(lambda x, f, n, a: n(x + f(x) / a), asked), near=asked, by=1e-3)
kit.finding("LN(α(x + F)) has", alpha_of(lambda x, f, n, a: n(a * (x + f(x))), asked), near=1.0, by=1e-3)

# %%
museum = {}


def hang(number, room, instrument, asked, before, after):
    """A row of the museum's last picture: what one instrument reads on the code as published and as the paper has it."""
    museum[room] = f"{number}  {room}", instrument, asked, before, after
    readings = {"as published": before, "as the paper has it": after}
    kit.finding(f"room {number}, {room}; {instrument}", readings, says="more than 25% apart",
                holds=max(before / after, after / before) > 1.25)  # fmt: skip


hang(1, "α on the branch", "effective α, 100 layers", asked, alpha_of(published_join, asked), alpha_of(deepnorm, asked))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Asked for 3.761, the published line has 0.266 = 1/3.761. The second spelling, `LN(x + F/α)`, is *right*, and the
# instrument says so. It judges what code does, not how it is written.
# </details>
#
# **Why it works.** A norm hides $c$, the common factor, and it removes the mean. It cannot hide the direction of the sum,
# and the direction is $a : b$. Two inputs hide even that: $F = 0$, and $F$ along $x$. This is why a test with
# `F = torch.zeros(…)` would have passed the published line.
#
# The repair is your `deepnorm` of lesson 07. The ratio was wrong by $\alpha^2 = \sqrt{2N}$: 14 times at 100 layers, 45 times
# at 1,000, and only 2 times in a test with two layers.
#
# <details><summary>Label: where it was found</summary>
#
# labmlai/annotated_deep_learning_paper_implementations, `labml_nn/normalization/deep_norm`, at e6b3c8a.
# Reported in its issue 145 (2022).
# </details>
#
# ## Room 2: one layer, fifty times
#
# **Symptom.** Copies alone leave the gradient ratio near 1 at 50 layers, and cost a quarter of the input.
#
# **Code.** A class is given one layer, and makes a stack of it:


# %%
def published_copies(layer, n, draw_):
    return nn.ModuleList([copy.deepcopy(layer) for _ in range(n)])


# %% [markdown]
# Each copy has parameters of its own. The count of parameters is right, the optimizer sees all of them, and no two share
# memory. Only their *values* are the same, and equal branches add up in amplitude (lesson 01).

# %% [markdown] exercise="layers_are_independent" difficulty=3 importance=4 minutes=8
# ### Are these layers different layers?
#
# **Objective**: see copies that no count of parameters can see.
#
# Write `layers_are_independent(layers)`: `layers` is a list or `nn.ModuleList` of layers of the same make. True if no
# two **matrices** in all of the layers have the same values. Every pair of layers counts.
#
# Hint: Biases start at 0 and a norm's gain at 1 in *every* healthy layer. What tells a matrix from them?
#
# Hint: You need not compare pairs. A set holds each of its members once, and it can hold tuples of numbers.


# %% exercise="layers_are_independent"
def layers_are_independent(layers):
    """Whether every matrix of every layer has values of its own: True or False."""
    ### BEGIN SOLUTION
    matrices = [tuple(p.flatten().tolist()) for layer in layers for p in layer.parameters() if p.ndim == 2]
    return len(set(matrices)) == len(matrices)
    ### END SOLUTION


# %%
check.layers_are_independent(layers_are_independent)

# %%
layers_are_independent = kit.mine_or_reference(layers_are_independent, "layers_are_independent")


# %%
def different(layers):
    """How many different first matrices the layers have."""
    return len({tuple(layer.fc1.weight.flatten().tolist()) for layer in layers})


torchs = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 6)
for name, layers in (
    ("the paper's 12 layers", stack(12)),
    ("12 copies of one", stack(12, make=clones)),
    ("torch.nn.TransformerEncoder(…, 6)", torchs.layers),
):
    print(f"{name}: {'independent' if layers_are_independent(layers) else 'copies'}")
before, after = different(stack(50, make=published_copies)), different(stack(50))
hang(2, "copies of one layer", "different layers of 50", 50, before, after)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Independent, copies, and **copies** again: PyTorch's own `TransformerEncoder` copies the layer that it is given. To use it
# for a deep stack, draw each layer again afterwards. (An optional exercise at the end does it.)
# </details>
#
# **Why it works.** Two matrices that were drawn separately never agree in all entries. This detector sees exact copies only.
# A copy times a factor slips through; the library's version correlates the weights instead.
#
# <details><summary>Label: where it was found</summary>
#
# The same file as room 1. With that code's own layers, and α on the right side, first/last gradient is 0.56 at
# 50 layers, 0.068 at 200, 0.000025 at 1,000. Ours keep a ratio near 1: what an instrument shows depends on the layers.
# </details>
#
# ## Room 3: a constant of another depth
#
# **Symptom.** Two repositories, twelve layers each. In the first the stack is nearly the identity: all of the input comes
# out again. In the second almost nothing of it does.
#
# **Code.** The gain β, as the two of them compute it:


# %%
def published_beta_first(layers):
    return (8 * layers) ** -1 / 4


def published_beta_second(layers):
    return (8 * layers) ** 0.25


betas = {
    "first": published_beta_first(12),
    "second": published_beta_second(12),
    "the paper": constants_of(12)[1],
}
for name, beta in betas.items():
    print(f"{name:9} β = {beta:.4f}, share of the input left ≈ {instruments(stack(12, beta=beta))[2]:.4f}")

# %% [markdown]
# The first looks *better* than the paper. Its β is 123 times too small, and a branch has two matrices with gain β: it is
# 15,000 times too weak. A branch that contributes nothing cannot do any harm. **The instruments of health do not measure
# strength.** (A share can come out a little below 0, because what two random directions share by chance is subtracted.)
#
# Constants can be asked, too. α and β follow from the number of layers. So each of them says for how many layers it was
# made. (The second repository also writes α as a number, 2.828, whatever the depth. We ask that, too.)

# %% [markdown] exercise="depths_of" difficulty=2 importance=5 minutes=5
# ### For how many layers is this constant right?
#
# **Objective**: read off a constant the depth to which it belongs.
#
# In a single stack of N layers the paper has $\alpha = (2N)^{1/4}$ and $\beta = (8N)^{-1/4}$. Write `depths_of(alpha, beta)`:
# the pair of depths, the N for which `alpha` is right, and the N for which `beta` is. They need not be whole.
#
# Hint: Both are equations for N. What undoes a fourth root?
#
# Hint: The exponent of β has a sign. Which power of β is proportional to N?


# %% exercise="depths_of"
def depths_of(alpha, beta):
    """(N of α, N of β): the numbers of layers for which each constant is the paper's."""
    ### BEGIN SOLUTION
    return alpha**4 / 2, 1 / (8 * beta**4)
    ### END SOLUTION


# %%
check.depths_of(depths_of)

# %%
depths_of = kit.mine_or_reference(depths_of, "depths_of")

# %%
suspects = {
    "the paper, 12 layers": (12, *constants_of(12)),
    "first, 12 layers": (12, constants_of(12)[0], published_beta_first(12)),
    "second, 12 layers": (12, 2.828, published_beta_second(12)),
    "the same code, 1,000 layers": (1000, 2.828, published_beta_second(1000)),
    "a paper's 512 sub-layers": (256, 512**0.25, 512**-0.25),
}
print(f"{'':28}{'layers':>7}{'α is for':>10}{'β is for':>20}")
for name, (n, alpha, beta) in suspects.items():
    of_alpha, of_beta = depths_of(alpha, beta)
    print(f"{name:28}{n:7,}{of_alpha:10,.1f}{of_beta:20,.5g}")
beta = betas["the paper"]
hang(3, "operator precedence", "β at 12 layers", beta, betas["first"], beta)
hang(3, "sign of the exponent", "β at 12 layers", beta, betas["second"], beta)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The paper's pair says 12 and 12. The first repository's β is meant for 2,700,000,000 layers. The second's is for a
# thousandth of a layer, because its exponent has the wrong sign, and its α is 2.828 at *every* depth: right for 32 layers
# alone. (A test at 32 layers passes it for ever. So test at **two** depths.) The last line is the constants that a paper on
# another rule prints for DeepNorm with $L$ sub-layers, $L^{1/4}$ and $L^{-1/4}$: its α is right, and its β counts sub-layers
# where the paper counts layers.
# </details>
#
# **Why it works.** Never trust a constant that you cannot check in a second way. Here N is the second way: two depths that
# differ from each other, or from the stack's own, are a bug. (For the pair alone $\alpha^2\beta^2 = \tfrac12$ says the same
# in one line, but misses a wrong N that is in both.)
#
# <details><summary>Label: where it was found</summary>
#
# MTG/omar-rq at c110659: precedence; in Python `**` binds before `/`. The "DeepNorm" baseline of the research
# code of Mix-LN (pixeli99/MixLN, ff45826) and of LayerNorm-Scaling (lmsdss/LayerNorm-Scaling, 3ac54dd): sign of the
# exponent, and α fixed at 2.828. The GPAS fork (dandingsky/GPAS, 3198068) has both right. Whether published baseline
# numbers came from exactly this code is not known. The 512 sub-layers: room 11.
# </details>
#
# ## Room 4: gain or variance
#
# **Symptom.** No instrument so far shows anything. β is computed correctly, 0.334 at 10 layers.
#
# **Code.** The initialiser comes from a library, and takes a `scale`:


# %%
@torch.no_grad()
def variance_scaling_(weight, scale):
    """A library's function: normal, with variance scale / (mean of the fans)."""
    return weight.normal_(0, sqrt(scale / (sum(weight.shape) / 2)))


def published_draw_(weight, gain):
    return variance_scaling_(weight, gain)


# %%
guess_gain = kit.Guess(
    "Asked for a gain of 0.334, this code passes 0.334 as the library's scale. The gain of the weights that arrive is",
    ["0.112, its square", "0.167, half of it", "0.334, as asked", "0.578, its root"],
)
guess_gain

# %% [markdown]
# To find out, measure the weights themselves. Xavier draws an entry of a (fan_out, fan_in) matrix with
# standard deviation $g\sqrt{2/(\text{fan\_in} + \text{fan\_out})}$ ([gain](glossary.md) $g$). You have the entries; what
# was $g$?

# %% [markdown] exercise="xavier_gain" difficulty=2 importance=5 minutes=8
# ### Which gain was this drawn with?
#
# **Objective**: read the gain off any matrix of any library.
#
# Write `xavier_gain(weight)` for a matrix of shape (fan_out, fan_in): the gain $g$ with which it was drawn, a number.
#
# Hint: The formula above has one unknown, once you have measured the standard deviation.
#
# Hint: Weights have mean 0, so their standard deviation is the root of their mean square. `.item()` makes it a number.


# %% exercise="xavier_gain"
def xavier_gain(weight):
    """The Xavier gain of a (fan_out, fan_in) matrix: one number."""
    ### BEGIN SOLUTION
    fan_out, fan_in = weight.shape
    return weight.square().mean().sqrt().item() * sqrt((fan_in + fan_out) / 2)
    ### END SOLUTION


# %%
check.xavier_gain(xavier_gain)

# %%
xavier_gain = kit.mine_or_reference(xavier_gain, "xavier_gain")

# %%
torch.manual_seed(SEED)
beta = constants_of(10)[1]
published, repaired = torch.empty(512, 512), torch.empty(512, 512)
published_draw_(published, beta)
variance_scaling_(repaired, beta**2)  # numbers g times as large have g² times the variance
hang(4, "gain given as variance", "gain at 10 layers", beta, xavier_gain(published), xavier_gain(repaired))
for fan_in, fan_out in ((256, 256), (256, 1024), (1024, 256)):
    gain = xavier_gain(nn.Linear(fan_in, fan_out).weight)
    print(f"nn.Linear({fan_in:4}, {fan_out:4}), as PyTorch draws it: gain ≈ {gain:.2f}")

# %%
guess_gain.compare("0.578, its root")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The published line's gain is 0.578, the root of what was asked. And PyTorch's own layers have 0.58, 0.91 and 0.46: its
# default is not Xavier, and its gain depends on the shape. That was the bug which no instrument in the first picture saw.
# </details>
#
# **Why it works.** Given β as a variance, the weights come out at $\sqrt\beta$. Two matrices make a branch, so its output is
# $1/\beta$ times too large: 3 times at 10 layers. PyTorch's `nn.Linear` draws uniformly between
# $\pm 1/\sqrt{\text{fan\_in}}$, of standard deviation $1/\sqrt{3\,\text{fan\_in}}$: that is a gain of $1/\sqrt 3 = 0.577$ for
# a square matrix. (That $\sqrt\beta$ at 10 layers is as large is an accident: at 12 layers it is 0.565.)
#
# <details><summary>Label: where it was found</summary>
#
# LeelaChessZero/lczero-training at 7c5d756. *Gain*, *scale* and *std* are easily confused: read the library's
# line, not its name.
# </details>
#
# ## Room 5: a switch that does not arrive
#
# **Symptom.** A user asks for a decoder with `deepnorm=True`. The largest number in its stream, before any training:


# %%
def as_pre_ln(x, f, norm, alpha):
    return alpha * x + f(norm(x))


with torch.no_grad():
    for n in (6, 12, 22):
        largest = [stack(n, join=rule)(X).abs().max().item() for rule in (as_pre_ln, deepnorm)]
        print(f"{n:2} layers ≈ {largest[0]:.1e}; with the norm on the sum ≈ {largest[1]:.1f}")
asked = constants_of(24)[0]
kit.finding("asked for α = 2.632, effective_alpha reads", alpha_of(as_pre_ln, asked), near=asked, by=1e-3)

# %% [markdown]
# To your first instrument this stack is *perfect*. α is where it should be; the norm on the sum is missing. **No detector
# sees everything.** So here is one more question for the same black box.

# %% [markdown] exercise="stream_is_bounded" difficulty=2 importance=5 minutes=6
# ### Can the stream grow?
#
# **Objective**: see a missing norm from outside.
#
# `combine(x, fx)` is a box as in room 1, but anything may be in it: a norm on the sum, on one of the terms, on both, of any
# kind, with any gain and bias, or none. Write `stream_is_bounded(combine, d=16)`: True if what comes out stays as large as it
# is, however large `x` and `fx` are; False if it grows with them.
#
# Hint: One call tells you nothing: a norm may have a gain of 40, and a sum may happen to be small. How many do you need?
#
# Hint: A norm is blind to a factor (lesson 02). Which of the two inputs has to get it? And compare sizes, not single numbers:
# a norm's ε and rounding change the last digits.


# %% exercise="stream_is_bounded"
def stream_is_bounded(combine, d=16):
    """Whether what the box gives cannot grow with what it gets: True or False."""
    ### BEGIN SOLUTION
    x, fx = torch.randn(2, 8, d, dtype=torch.float64)
    small, large = combine(x, fx), combine(1000 * x, 1000 * fx)
    return bool(large.norm() < 10 * small.norm())
    ### END SOLUTION


# %%
check.stream_is_bounded(stream_is_bounded)

# %%
stream_is_bounded = kit.mine_or_reference(stream_is_bounded, "stream_is_bounded")

# %%
for name, rule in (
    ("DeepNorm", deepnorm),
    ("α on the branch (room 1)", published_join),
    ("scaled skip, norm inside the branch", as_pre_ln),
):
    print(f"{name}: the stream {'is bounded' if stream_is_bounded(box_of(rule, asked), WIDTH) else 'can grow'}")


def stream_size(rule, layers=6):
    """Root mean square of the stream at the top; a norm on every sum makes it 1."""
    return stack(layers, join=rule)(X).square().mean().sqrt().item()


hang(5, "scaled skip, no norm", "stream at 6 layers", 1, stream_size(as_pre_ln), stream_size(deepnorm))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Bounded, bounded, can grow. The two detectors see different bugs: `effective_alpha` sees room 1, `stream_is_bounded` room 5.
# </details>
#
# **Code.** How did it happen? Somewhere far from the layer, a function turns flags into settings:


# %%
def published_settings(layers, deepnorm=False, norm_first=True, sub_ln=True, **others):
    alpha = (2 * layers) ** 0.25 if deepnorm else 1.0
    return {"alpha": alpha, "norm_first": norm_first, "sub_ln": sub_ln}


print(published_settings(24, deepnorm=True))
print(published_settings(24, deep_norm=True))

# %% [markdown]
# `deepnorm=True` sets α, and `norm_first` (Pre-LN) stays on. So does `sub_ln`, a norm inside the branch that belongs to
# another method (Magneto, arXiv 2210.06423). The second line has a typo, and raises no complaint. When a switch means three
# changes, make all of them in one place, and let Python refuse unknown keywords: leave out `**others`. (An optional exercise
# repairs it.)
#
# <details><summary>Label: where it was found</summary>
#
# microsoft/torchscale at 4d1e0e8, since da3d79c: `DecoderConfig(deepnorm=True)` leaves the decoder Pre-LN. Its
# release 0.3.0 does not have this bug; there `config.override()` can leave deepnorm and subln both on (issue 64), and
# unknown keywords are accepted. lucidrains/x-transformers up to 1.20.0: `XTransformer(deepnorm=True)` stays Pre-LN, and
# 100-100 layers give NaN. Its author took DeepNorm out again (issue 198).
# </details>
#
# ## What overflow looks like
#
# How does room 5 end? The stream grows by α per sub-layer: by $\alpha^{2M}$ in M layers. Take $M = 50$: then
# $\alpha = 100^{1/4} = \sqrt{10}$, and every *two* sub-layers append a zero. Numbers end at 65,504 in fp16, and at
# $3.4 \cdot 10^{38}$ in bf16 and float32, which have the same exponents.
#
# The norm that the branch reads is layer norm, by two pieces of code. One is PyTorch's `F.layer_norm`. The other is its
# formula, written out:


# %%
def written_out(x, eps=1e-5):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def from_pytorch(x):
    return F.layer_norm(x, (WIDTH,))


y = 3 * X[0] + 1
kit.finding(
    "on tokens of size 3, largest difference between the two",
    (written_out(y) - from_pytorch(y)).abs().max(),
    below=1e-5,
)

# %%
guess_end = kit.Guess(
    "The scaled skip, α = √10, in float32. After how many sub-layers is the first number of the stream not finite, with "
    "F.layer_norm in the branch and with the formula written out?",
    ["40 and 40", "40 and 76", "76 and 76", "76 and 40"],
)
guess_end


# %%
@torch.no_grad()
def ends(norm, dtype, layers=50):
    """After how many sub-layers the norm gives zeros only, and after how many a number is not finite."""
    x, count, silent = X.to(dtype), 0, None
    for layer in stack(layers, join=as_pre_ln).to(dtype):
        for f in (layer.self_attn, layer.feed_forward):
            count, read = count + 1, norm(x)
            silent = count - 1 if silent is None and read.abs().max() == 0 else silent
            x = layer.alpha * x + f(read)
            if not x.isfinite().all():
                return silent or count, count
    return silent or count, count


norms = {"F.layer_norm": from_pytorch, "written out": written_out}
formats = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ended = {(form, name): ends(norm, dtype) for form, dtype in formats.items() for name, norm in norms.items()}

# %% tags=["hide-input"]
figure, (ax,) = new_figure(1, width=9, height=4.2)
for i, (silent, end) in enumerate(ended.values()):
    ax.barh(i, silent, color="#0072B2", height=0.55, label="the norm works" if not i else None)
    ax.barh(i, end - silent, left=silent, color="#E69F00", hatch="///", edgecolor="white", height=0.55,
            label="the norm gives zeros (or NaN)" if not i else None)  # fmt: skip
    ax.plot(end, i, "X", color="black", markersize=10, label="first number that is not finite" if not i else None)
    ax.text(end + 1.5, i, str(end), va="center")
ax.set_yticks(range(len(ended)), [f"{form}, {name}" for form, name in ended])
ax.set_ylim(len(ended) - 0.4, -0.6)
ax.set(xlim=(0, 84), xlabel="sub-layer", xticks=range(0, 81, 10))
above = ax.secondary_xaxis("top")
above.set_xticks(range(0, 81, 10), [f"$10^{{{n // 2}}}$" for n in range(0, 81, 10)])
above.set_xlabel("size of the stream, αⁿ")
legend_below(figure, ax)
Picture(
    figure,
    alt="Six bars, one for each number format and each code of the norm, over the sub-layers of one stack; the axis above "
    "gives the size of the stream, from 1 to 10 to the 40. In float32 and in bf16 both codes work up to sub-layer 37. Then "
    "F.layer_norm ends after 40, and the formula written out gives zeros up to 76. In fp16 both end after 9.",
)

# %%
for name, near in (("F.layer_norm", 40), ("written out", 76)):
    last = {form: ended[form, name][1] for form in ("float32", "bf16")}
    kit.finding(f"{name}, first not finite after", last, near=near, by=2)
kit.finding("fp16, first not finite after", {name: ended["fp16", name][1] for name in norms}, near=9, by=1)
kit.finding("float32, the norm gives zeros after", {name: ended["float32", name][0] for name in norms}, near=37, by=1)

# %%
guess_end.compare("40 and 76")

# %% tags=["nbval-ignore-output"]
kit.record(**{f"ends_{form}_{name}": ended[form, name] for form, name in ended})
for power in (18, 19, 20):
    large = X[0] * 10.0**power
    print(f"tokens of size 10^{power}: largest number from F.layer_norm {from_pytorch(large).abs().max():.3g}, "
          f"written out {written_out(large).abs().max():.3g}; variance {large.var(-1).max():.2g}")  # fmt: skip

# %% [markdown]
# One formula, two kernels, and the same stack ends at 40 or at 76:
#
# - **fp16**: a number of the stream passes 65,504 and becomes ∞, whatever the norm does. (The largest of 8,192 numbers is
#   several times the root mean square, so fp16 ends a step early.) Loss scaling does not help: it is for small gradients,
#   and here it is the forward pass.
# - **float32 and bf16**: a norm adds d squares. At $d = 64$ that sum passes $3.4 \cdot 10^{38}$ when tokens have a size of
#   $2 \cdot 10^{18}$, after 37 sub-layers. The variance is then ∞, one over it is 0, and the norm gives **zeros**. The branch
#   is silent; the skip still grows.
# - **Written out**, it stays like that until the stream itself passes $3.4 \cdot 10^{38}$, at 76. PyTorch's CPU kernel adds up
#   the variance in parts. From $10^{20}$ on it gives **NaN**, as ∞ − ∞ and 0 · ∞ do, and the run ends at 40. On a GPU another
#   kernel may do otherwise. This is a property of code, not of layer norm.
#
# In the quiet zone the loss is *exactly* ln V, for a vocabulary of V words, and every gradient below is exactly 0.
# TorchScale's decoder does that at 24 layers, and is NaN from 28 (d = 64, measured with its own code at the commit above).
# **A loss of ln V to the last digit is a symptom.**
#
# ## Rooms to visit
#
# Eight more, for your instruments alone. The folded cell rebuilds each in a few lines and asks one instrument. (It begins with
# the second bug of room 5: a norm inside the branch undoes the β of the matrix before it.)
#
# | room | the code | the paper, or the method meant |
# |---|---|---|
# | 6 | the encoder's β is $1.15\,(N^4M)^{-1/16}$ | $0.87\,(N^4M)^{-1/16}$ |
# | 7 | β multiplies what `nn.Linear` drew | Xavier's numbers; query and key have gain 1 |
# | 8 | query, key and value are drawn as one (3d, d) matrix ([packed](glossary.md#packed-qkv)) | three matrices, each with fans d and d |
# | 9 | output and feed-forward are scaled by β, the packed value slice is not | the value has gain β, too |
# | 10 | α is 2.828, whatever the depth | $(2N)^{1/4}$ |
# | 11 | $\beta = L^{-1/4}$ for $L$ sub-layers | $(8N)^{-1/4} = (4L)^{-1/4}$ |
# | 12 | NormFormer's factor for each head multiplies *after* the heads are mixed | before |
# | 13 | ReZero's layers, each with an α of 0, are copies of one | n different layers |

# %% tags=["hide-input"]
torch.manual_seed(SEED)
d, beta = 512, constants_of(100)[1]


def drawn(gain=1.0):
    return nn.init.xavier_normal_(torch.empty(d, d), gain=gain)


@torch.no_grad()
def branch_of(sub_ln):
    """Standard deviation of what the feed-forward of one of 100 layers adds."""
    return stack(1, beta=beta, sub_ln=sub_ln)[0].feed_forward(X).std().item()


branches = [branch_of(sub_ln) for sub_ln in (True, False)]
hang(5, "Sub-LN's norm as well", "branch at 100 layers", branches[1], *branches)
encoder = 0.87 * (100**4 * 100) ** (-1 / 16)
hang(6, "1.15 for 0.87", "encoder β, 100-100", encoder, 1.15 / 0.87 * encoder, encoder)
hang(7, "default weights × β", "gain of the query", 1.0, xavier_gain(nn.Linear(d, d).weight), xavier_gain(drawn()))
packed = nn.init.xavier_normal_(torch.empty(3 * d, d))
hang(8, "packed QKV as one matrix", "gain of the query", 1.0, xavier_gain(packed.chunk(3)[0]), xavier_gain(drawn()))
hang(9, "value slice forgotten", "gain of the value", beta, xavier_gain(drawn()), xavier_gain(drawn(beta)))
alpha = constants_of(1000)[0]
hang(10, "α fixed at 2.828", "α at 1,000 layers", alpha, alpha_of(deepnorm, 2.828), alpha_of(deepnorm, alpha))
hang(11, "layers for sub-layers", "β at 512 sub-layers", constants_of(256)[1], 512**-0.25, constants_of(256)[1])


def published_factors(mixed, output, factors):
    return (output(mixed).unflatten(-1, (HEADS, -1)) * factors[:, None]).flatten(-2)


def head_factors(mixed, output, factors):
    return output((mixed.unflatten(-1, (HEADS, -1)) * factors[:, None]).flatten(-2))


@torch.no_grad()
def switched_off(scale):
    """How much of head 0 is gone when its factor is 0: 1 for all of it."""
    output, mixed, silent, off = stack(1)[0].self_attn.out_proj, X, X.clone(), torch.ones(HEADS)
    silent[..., : WIDTH // HEADS], off[0] = 0, 0
    heard = [scale(mixed, output, factors) - scale(silent, output, factors) for factors in (torch.ones(HEADS), off)]
    return 1 - (heard[1].square().sum() / heard[0].square().sum()).item()


hang(12, "head factors after mixing", "of a head, gone", 1, switched_off(published_factors), switched_off(head_factors))


def rezero(x, f, norm, alpha):
    return x + alpha * f(x)


def gate_gradients(make, layers=12):
    """How many different gradients the α of 12 layers get in the first step."""
    gated = stack(layers, join=rezero, beta=1.0, make=make)
    for one in gated:
        one.alpha = torch.zeros((), requires_grad=True)
    y = gated(X)
    signal = torch.randn(y.shape, generator=torch.Generator().manual_seed(SEED))
    gradients = torch.autograd.grad((y * signal).sum(), [one.alpha for one in gated])
    return len({f"{gradient.item():.4g}" for gradient in gradients})


hang(13, "zeros of one layer", "gradients of 12 α", 12, *map(gate_gradients, (published_copies, None)))

# %% [markdown]
# ## The museum in one picture
#
# Every row is a published bug, and what its instrument reads, as a multiple of what the paper asks for. The cross is the code
# as published. The dot is the same instrument on code as the paper has it: it is at 1 where instrument and paper agree.

# %% tags=["hide-input"]


def museum_wall(rows):
    figure, (ax,) = new_figure(1, width=9.5, height=6.6)
    left, right = 2e-3, 3e3
    ax.axvline(1, color="#009E73", linewidth=6, alpha=0.25)
    for i, (_, _, asked, before, after) in enumerate(rows):
        ratio = before / asked
        ax.plot([ratio, after / asked], [i, i], "-", color="#999999", linewidth=1.5, zorder=1)
        ax.plot(ratio, i, "X", color="#D55E00", markersize=10, label="as published" if i == 0 else None)
        ax.plot(after / asked, i, "o", color="#0072B2", markersize=9, label="as the paper has it" if i == 0 else None)
        said = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in (before, after)]
        ax.text(right * 1.4, i, " → ".join(said), va="center", fontsize=10)
    ax.set_yticks(range(len(rows)), [f"{room}  ({instrument})" for room, instrument, *_ in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.set(xlim=(left, right), xlabel="too small  ←  what the instrument reads / what the paper asks for  →  too large")
    legend_below(figure, ax)
    return figure


order = sorted(museum.values(), key=lambda row: -abs(log(row[3] / row[2])))

# %% tags=["headline"]
Picture(
    museum_wall(order),
    alt="One row per published bug. A cross shows what its instrument read, as a multiple of what the paper asks for, from a "
    "hundredth to more than a thousand; a dot shows the same instrument on code as the paper has it. All dots are on one "
    "vertical line at 1.",
)

# %%
kit.finding(f"{len(museum)} bugs: factor by which the one that is off least is off",
            min(max(before / asked, asked / before) for _, _, asked, before, _ in museum.values()), above=1.25)  # fmt: skip
kit.finding("as the paper has it: largest distance from what it asks for",
            max(abs(after / asked - 1) for _, _, asked, _, after in museum.values()), below=0.02, form=".1%")  # fmt: skip

# %% [markdown]
# The rows are ordered by their ratio, and several ratios depend on the depth of the room. It is not an order of harm: a
# factor of 0.7 in every layer may matter more than 1,700 in a config that is never used.
#
# ## From detectors to a review
#
# Here are your detectors on a whole stack: α and the norm from its rule, independence from its layers, gains from its
# matrices. The library's `review(model)` does the same for models that it has never seen, with hooks in place of your access
# to the code. Do they agree?


# %%
def detected(layers):
    """What your detectors say, under the names of the rows of the library's checklist."""
    # A gain that is measured on one 64 × 64 matrix is off by 1% (its standard error is 1/√(2·64²)): 10% is a bug.
    alpha, beta = constants_of(len(layers))
    scaled = [m for one in layers for m in (one.self_attn.v_proj, one.self_attn.out_proj, one.fc1, one.fc2)]
    plain = [m for one in layers for m in (one.self_attn.q_proj, one.self_attn.k_proj)]
    return {
        "α on the skip": abs(alpha_of(layers[0].join, layers[0].alpha) / alpha - 1) < 0.05,
        "norm outside": stream_is_bounded(box_of(layers[0].join, layers[0].alpha), WIDTH),
        "independent layers": layers_are_independent(layers),
        "gain of value, output and FFN": all(abs(xavier_gain(m.weight) / beta - 1) < 0.1 for m in scaled),
        "gain of query and key": all(abs(xavier_gain(m.weight) - 1) < 0.1 for m in plain),
    }


def run(model):
    return model(X)


patients_8 = {
    **three_bugs,
    "β with the wrong sign": {"beta": published_beta_second(8)},
    "scaled skip, no norm": {"join": as_pre_ln},
}
for name, bug in patients_8.items():
    layers = stack(8, **bug)
    checklist = review(layers, run=run, depth=(0, 8))
    mine = detected(layers)
    agree = sum((checklist[row].status == "PASS") == bool(verdict) for row, verdict in mine.items())
    seen = [row.name for row in checklist.rows if row.status == "FAIL"]
    print(f"{name}: equal in {agree} of {len(mine)} rows; fails: {', '.join(seen) or 'nothing'}")

# %% [markdown]
# Three rows of the checklist are not yours: *gain of the norms* asks whether their factors start at 1, *gradient through F*
# whether a branch is detached, and *signal at depth* looks at tokens and gradients, as the first picture did.
#
# ### A checklist for any DeepNorm
#
# | ask | how | the rooms that fail it |
# |---|---|---|
# | 1. Is α on the skip? | fit what the norm sees as a·x + b·F, with independent x and F | 1 |
# | 2. Are α and β those of *this* depth and architecture? | the depth that each is right for; two depths, and N ≠ M | 3, 6, 10, 11 |
# | 3. Does a norm see the sum? | inputs a thousand times as large | 5 |
# | 4. Were the layers drawn separately? | compare matrices, every pair | 2, 13 |
# | 5. Do value, output, feed-forward have gain β? | measure each matrix, packed ones slice by slice | 3, 4, 6, 7, 8, 9, 11 |
# | 6. Do query and key have gain 1? | the same | 7, 8 |
# | 7. Did the switch arrive? | count what changed when it was flipped; misspell it and expect an error | 5, 12 |
# | 8. Is the signal alive at depth? | token similarity, input share, then the gradient; several seeds | 1 and 2 together |
#
# Do it before training, on the deepest model that you mean to train. It takes seconds, and at 1,000 layers about a minute.
#
# ### Bring your own
#
# Put a model of your own in the next cell, as `review(model, x)` with an input that it accepts. `review` runs it and looks
# for sums of a stream and a branch, whatever the modules are called; where it finds none, its message says what to type.
# In a terminal, `deepnet-edu review file.py:build_model` does the same for a file, and can hold the verdict in CI.
# No model at hand? Take one of the museum's, `review(stack(8, join=wrong_side), run=run, depth=(0, 8))`. Here is a patient
# that claims nothing: PyTorch's encoder.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(SEED)
my_model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True), 12)

print(review(my_model))

# %% [markdown]
# It is Post-LN (no α), its layers are copies, and its packed QKV was drawn as one matrix: query and key have 0.71. None of
# this is a bug in 12 layers that claim no DeepNorm. All of it would be one in 100 that do.
#
# ## In three sentences
#
# 1. No published bug in this museum raises an error, and most pass the test that one would write first: few layers, F = 0, one
#    depth, one seed, a count of parameters.
# 2. Each instrument is blind to something: the gradient ratio to a misplaced α, the effective α to a missing norm and to every
#    gain, and all three health instruments to default weights × β.
# 3. So ask what code *does*, with a checklist, at the depth that you mean to train.
#
# **Read next**: the paper's Figure 2, with the checklist beside it; then any repository that says DeepNorm. Lesson 10 builds
# the training loop, where bugs show more slowly.
#
# ## Further rooms
#
# From here on everything is optional: more about rooms 6 to 13, choices that are not bugs, two repairs, and two more
# instruments.
#
# **Room 6.** At 100-100 layers 0.2727 instead of 0.2063. $1/0.87 = 1.15$: it looks like a reciprocal taken twice.
# (microsoft/torchscale, `architecture/encoder.py`, all releases.)
#
# **Room 7.** The same library; Xavier is in its `reset_parameters`, for which no caller was found.
#
# **Rooms 8 and 9.** Room 8 is PyTorch issue 166378, for any packed projection. Room 9 is xformers before its pull request
# 284: a vision Transformer with DeepNorm went NaN at about epoch 50 (issue 219).
#
# **Room 10** is the code of room 3: 2.828 is $64^{1/4}$, right at exactly one depth.
#
# **Room 11** is Keel (arXiv 2601.19895), which gives these constants for its baseline; whether its runs used them is not
# known. Two matrices make a branch. So with a β that is $\sqrt2$ times too large each branch is twice as strong, and adds four
# times the variance:

# %%
added = [1 - instruments(stack(50, beta=beta))[2] for beta in (100**-0.25, constants_of(50)[1])]
kit.finding("50 layers, share of the variance that the branches add", {"as printed": added[0], "the paper": added[1]},
            says="about four times as much", holds=3 < added[0] / added[1] < 5, form=".1%")  # fmt: skip

# %% [markdown]
# **Room 12.** After mixing, a quarter of the features is a quarter of *every* head, so a factor of 0 switches no head off.
# While all factors are 1, as they start, both codes compute the same function: no test at initialisation can tell them
# apart. Flip each switch, and see what it changes. (facebookresearch/fairseq at 00b6434, `c_attn` in
# `modules/transformer_layer.py`.)
#
# **Room 13.** ReZero is $x + \alpha_l F_l(x)$ with $\alpha_l = 0$ at first, so the stack starts as the identity, and looks
# healthy whatever its layers are. With copies all twelve α take the same first step, and twelve equal branches add up in
# amplitude. (majumderb/rezero at bfea86b, `Transformer` in `rezero/transformer/rztx.py`.)
#
# ## Not bugs, but other choices
#
# Not every difference is a mistake. As far as papers and code tell, these were made on purpose:
#
# | model | what it does | why it is not a bug |
# |---|---|---|
# | GLM-130B (arXiv 2210.02414) | α = (2N)^½ = 11.83 and gain (2N)^(-½) = 0.0845 at 70 layers; its LN at the input of the sub-layer | their reason is not published. Our account: it trains with Adam, whose steps sum differently (lesson 06) |
# | MiniMax-Text-01 | α = (2·80)^¼ = 3.557, RMSNorm, no small initial weights | our account: α alone makes each branch weaker by its own factor; the paper's β would weaken it further |
# | ONT bonito | the paper's α and β, with RMSNorm and SwiGLU | the rule is the paper's; only the kind of norm and of feed-forward differ, and both are documented |
#
# How do you tell a choice from a bug? A choice is written down, and holds at every depth.

# %%
choices = {"GLM-130B, 70 layers": (sqrt(140), 1 / sqrt(140)), "MiniMax-Text-01, 80 layers": (160**0.25, 1.0)}
for name, constants in choices.items():
    of_alpha, of_beta = depths_of(*constants)
    print(f"{name}: α is DeepNorm's for {of_alpha:,.0f} layers, β for {of_beta:,.4g}")

# %% [markdown]
# One more choice is PyTorch's. Under `torch.autocast` to bfloat16 (lesson 10) only matrix products and the like are computed
# in 16 bits. αx + F is a sum of float32 and bfloat16, which is float32; and on a GPU `layer_norm` returns float32 whatever it
# reads. So a stream with a norm on every sum takes 4 bytes a number, and twice the memory traffic. Here is a norm that
# returns the format that it reads, and what that costs:


# %%
def narrow(x, f, norm, alpha):
    s = alpha * x + f(x)
    with torch.autocast(x.device.type, enabled=False):  # its sums are in float32 all the same
        return F.layer_norm(s, (WIDTH,), norm.weight.to(s.dtype), norm.bias.to(s.dtype))


@torch.no_grad()
def by_autocast(join, x, layers=200):
    with torch.autocast("cpu", torch.bfloat16):
        return stack(layers, join=join)(x)


exact = stack(200)(X).detach()
wide, thin = by_autocast(deepnorm, X), by_autocast(narrow, X.bfloat16())
added = sqrt(1 - input_share(X, exact).item())
print("bytes a number:", wide.element_size(), "by autocast alone,", thin.element_size(), "with the other norm")
rounding = [((y - exact).norm() / exact.norm()).item() / added for y in (wide, thin)]
kit.finding("200 layers, float32 stream: rounding over what all branches add", rounding[0], below=0.01, form=".2%")
kit.finding("200 layers, bfloat16 stream: rounding over what all branches add", rounding[1], above=1 / 3, form=".0%")

# %% [markdown]
# A branch of DeepNorm is small beside αx, and bfloat16 has barely three significant digits for the sum. At 200 layers
# the rounding is about two thirds of what all branches add; at 1,000 layers it is as large as what they add. Half the bytes
# are for shallow stacks. (At initialisation. Labels: PyTorch issues 66707 and, for RMSNorm since torch 2.12, 188955.)

# %% [markdown] exercise="fresh_copies" difficulty=2 importance=4 minutes=4
# ### Repair room 2 (optional)
#
# **Objective**: make n layers from one, as such a class must, and yet n different ones.
#
# Write `fresh_copies(layer, n, draw_)`: an `nn.ModuleList` of n deep copies of `layer`. `draw_(layer)` draws all matrices
# of one layer again, in place, as this model's are drawn, and returns nothing. The layer that you are given belongs to the
# caller: leave it as it is.
#
# Hint: What the published line makes is a good start.
#
# Hint: What must happen to each of the copies, and in which order?


# %% exercise="fresh_copies"
def fresh_copies(layer, n, draw_):
    """n copies of a layer with weights of their own: nn.ModuleList."""
    ### BEGIN SOLUTION
    layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(n)])
    for one in layers:
        draw_(one)
    return layers
    ### END SOLUTION


# %%
check.fresh_copies(fresh_copies)

# %%
fresh_copies = kit.mine_or_reference(fresh_copies, "fresh_copies")
before, after = (stack(50, make=make) for make in (published_copies, fresh_copies))
print(f"different layers of 50: {different(before)} before, {different(after)} after")
kit.finding("share of the input left, repaired", instruments(after)[2], above=0.98)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 1 before, 50 after.
# </details>
#
# **Why it works.** It is lesson 01's `cloned_growth`: n equal steps go n·ε far, n independent ones √n·ε.

# %% [markdown] exercise="decoder_settings" difficulty=2 importance=4 minutes=5
# ### Repair room 5 (optional)
#
# **Objective**: make a switch arrive everywhere, or refuse.
#
# Write `decoder_settings(layers, deepnorm=False, norm_first=True, sub_ln=True)`: a dictionary with the same three keys as
# `published_settings` gives. With `deepnorm=True`, α is $(2 \cdot \text{layers})^{1/4}$, and `norm_first` and `sub_ln` are both
# False, whatever was asked. Without it, α is 1 and the other two are what was asked. An unknown keyword raises a TypeError.
#
# Hint: Two bugs are in the dictionary, one is in the signature.
#
# Hint: When does Python raise this TypeError by itself?


# %% exercise="decoder_settings"
def decoder_settings(layers, deepnorm=False, norm_first=True, sub_ln=True):
    """Settings of a decoder: a dictionary with alpha, norm_first and sub_ln."""
    ### BEGIN SOLUTION
    alpha = (2 * layers) ** 0.25 if deepnorm else 1.0
    return {"alpha": alpha, "norm_first": norm_first and not deepnorm, "sub_ln": sub_ln and not deepnorm}
    ### END SOLUTION


# %%
check.decoder_settings(decoder_settings)

# %%
decoder_settings = kit.mine_or_reference(decoder_settings, "decoder_settings")
for settings in (published_settings, decoder_settings):
    chosen = settings(6, deepnorm=True)
    rule = as_pre_ln if chosen["norm_first"] else deepnorm
    print(f"{settings.__name__}: {chosen}; size of the stream at 6 layers ≈ {stream_size(rule):,.3g}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A stream of about 1,700 at 6 layers before, 1 after. (At 24 layers it would be 10²⁰.)
# </details>
#
# **Why it works.** A method is more than its constant. A function that swallows unknown keywords trains another model than
# the one you wrote down.

# %% [markdown] exercise="slice_gains" difficulty=1 importance=3 minutes=4
# ### Three gains in one matrix (optional)
#
# **Objective**: see rooms 8 and 9 in a packed matrix.
#
# Write `slice_gains(weight)` for a packed `weight` of shape (3d, d): the gains of query, key and value, a list of three
# numbers.
#
# Hint: The first d rows are the query's. How many columns has its matrix?
#
# Hint: You have a function for one matrix, and tensors have `.chunk`.


# %% exercise="slice_gains"
def slice_gains(weight):
    """Xavier gains of the slices of a packed (3d, d) matrix: three numbers."""
    ### BEGIN SOLUTION
    return [xavier_gain(part) for part in weight.chunk(3)]
    ### END SOLUTION


# %%
check.slice_gains(slice_gains)

# %%
slice_gains = kit.mine_or_reference(slice_gains, "slice_gains")
torch.manual_seed(SEED)
kit.finding("torch.nn.MultiheadAttention(512, 8), gains of its slices",
            slice_gains(nn.MultiheadAttention(512, 8).in_proj_weight), near=sqrt(1 / 2), by=0.02)  # fmt: skip

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 0.71, 0.71, 0.71: Xavier over all three at once, $\sqrt{2d/4d}$.
# </details>
#
# **Why it works.** A slice maps d features to d. Its fans are d and d, whatever it is stored with.

# %% [markdown] exercise="overflow_depth" difficulty=2 importance=3 minutes=6
# ### Where numbers end (optional)
#
# **Objective**: say at which depth room 5 dies, in any precision.
#
# Write `overflow_depth(alpha, limit)` for α > 1 and a limit above 1: the least number n of sub-layers for which a stream that
# starts at 1, and grows by α in each, is above `limit`. To be at the limit is not to be above it: `overflow_depth(10, 1000)`
# is 4.
#
# Hint: $\alpha^n > L$ means $n > \ln L/\ln\alpha$. But a computer's logarithms are rounded: what is `log(1000) / log(10)`?
#
# Hint: Which way to find n needs no logarithm?


# %% exercise="overflow_depth"
def overflow_depth(alpha, limit):
    """The least n with αⁿ > limit: a whole number."""
    ### BEGIN SOLUTION
    size = 1
    for n in range(1, ceil(log(limit) / log(alpha)) + 2):  # one more than needed: logarithms are rounded
        size *= alpha
        if size > limit:
            return n
    ### END SOLUTION


# %%
check.overflow_depth(overflow_depth)

# %%
overflow_depth = kit.mine_or_reference(overflow_depth, "overflow_depth")
limits = {"fp16": 65504, "float32, the norm": sqrt(3.4e38 / 64), "float32, the stream": 3.4e38}
print(f"{'layers':>8}{'sub-layers':>12}" + "".join(f"{name:>22}" for name in limits))
for n in (6, 8, 12, 24, 28, 100):
    reached = {name: overflow_depth(constants_of(n)[0], limit) for name, limit in limits.items()}
    shown = [f"at {at}" if at <= 2 * n else "not reached" for at in reached.values()]
    print(f"{n:8}{2 * n:12}" + "".join(f"{one:>22}" for one in shown))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# fp16 survives 6 layers, and not 8: $(2M)^{M/2}$ at $M = 8$ is $16^4 = 65{,}536$, just above 65,504. A norm of width 64 in
# float32 survives 12 layers; in 24 layers it falls silent at sub-layer 44 of 48, before any number is infinite. That is the
# depth at which TorchScale's decoder had a loss of exactly ln V.
# </details>
#
# **Why it works.** $\alpha^{2M} = (2M)^{M/2}$ grows faster than exponentially. A wider format buys
# little: a norm in float64 overflows near $10^{153}$, which is reached at about 128 layers.
