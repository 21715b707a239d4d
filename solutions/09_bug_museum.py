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
#       those shown here raises an error. This lesson is a museum of such bugs. You build the instruments that see them, mend five
#       rooms, visit eight more, and leave with a checklist for anybody's code.
#     objectives: >-
#       find a wrong α, a wrong gain and cloned layers in code that you have never seen, say which instrument sees which
#       bug, and review a model before it costs a training run.
#     prerequisites: lessons 01, 02 and 07. Lesson 06 helps with the constants.
#     minutes: 80
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
from deepnet_edu import deepnorm_constants
from deepnet_edu.checks import check
from deepnet_edu.course.references.lesson_07 import deepnorm
from deepnet_edu.figures import Picture
from deepnet_edu.figures.style import legend_below, new_figure, series_style
from deepnet_edu.probing import input_share, token_similarity
from deepnet_edu.review import review

kit.setup(SEED, PROFILE)
deeper = DEPTH or (60 if PROFILE == "smoke" else 200)

# %% [markdown]
# ## A museum where nothing crashes
#
# The bugs in these rooms were found by reading public code and running it, at the commits named. All of it was written by
# people who know the field, and much of it has taught others. So look at each room and ask: *would I have seen it?*
# The code shown is ours: a few lines each, rebuilt so that they do what the original does. Some originals may be mended by
# now.
#
# We need a stack that can be built wrong. Its parts are plain. Three things can be exchanged: how skip and branch are
# **joined**, how a matrix is **drawn**, and how **layers** are made of one another.

# %%
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


def alpha_beta(layers):
    """The paper's α and β of a single stack."""
    both = deepnorm_constants(decoder_layers=layers).decoder
    return both.alpha, both.beta


def stack(n, join=deepnorm, alpha=None, beta=None, draw_=xavier_, make=None, sub_ln=False):
    """n layers: the paper's, but for what you say. `make(layer, n, redraw_)` makes n of one."""
    torch.manual_seed(SEED)
    alpha, beta = alpha or alpha_beta(n)[0], beta or alpha_beta(n)[1]
    if make is None:
        return nn.Sequential(*(Layer(join, alpha, beta, draw_, sub_ln) for _ in range(n)))
    return nn.Sequential(*make(Layer(join, alpha, beta, draw_), n, lambda layer: layer.draw(draw_, beta)))


# %% [markdown]
# The first visitor is a famous teaching repository. Its DeepNorm departs from the paper in **three** places at once.
# α multiplies the branch. The matrices are PyTorch's default ones, multiplied by β. And all layers are copies of one. Each
# alone, and all together: what do the usual instruments say?
#
# - The **gradient ratio**: norm of the gradient in the first layer's `fc2` over that in the last layer's, for a random
#   direction of the output. Healthy: 1, within a factor of 1.6.
# - [**Token similarity**](glossary.md): the mean cosine between tokens at the top. At 1 they cannot be told apart. Healthy:
#   below 0.1.
# - [**Input share**](glossary.md): the part of the output's variance that is still the input. Healthy here: above 0.9.

# %%
guess = kit.Guess(
    "50 layers with α on the wrong term, LN(x + αF). The gradient of the first layer over that of the last, which is 1 in a "
    "healthy stack, is now",
    ["about 0.00001", "near 1", "about 100,000"],
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


def instruments(layers):
    """First/last gradient of the feed-forward, token similarity at the top, share of the input at the top."""
    y = layers(X)
    signal = torch.randn(y.shape, generator=torch.Generator().manual_seed(SEED))
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
found = {n: {name: instruments(stack(n, **bug)) for name, bug in three_bugs.items()} for n in (50, deeper)}


def patients(found):
    """A row per stack, a panel per instrument; the green band is healthy."""
    names = list(three_bugs)
    titles = ["first/last gradient", "token similarity", "share of the input left"]
    bands = [(1 / 1.6, 1.6), (-0.03, 0.1), (0.9, 1.03)]
    figure, axes = new_figure(3, width=10, height=3.4)
    for i, (ax, title, band) in enumerate(zip(axes, titles, bands, strict=True)):
        ax.axvspan(*band, color="#009E73", alpha=0.15)
        for mark, (n, rows) in zip("os", found.items(), strict=True):
            fill = {"markerfacecolor": "white"} if mark == "o" else {}
            values = [rows[name][i] for name in names]
            ax.plot(values, range(len(names)), mark, color="#0072B2", markersize=8, label=f"{n} layers", **fill)
        ax.set_yticks(range(len(names)), names if i == 0 else [])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_title(title, fontsize=11)
    axes[0].set_xscale("log")
    for ax, label in zip(axes, ["ratio of norms", "cosine between tokens", "share of variance"], strict=True):
        ax.set_xlabel(label)
    legend_below(figure, axes[0])
    return figure


Picture(
    patients(found),
    alt="Five stacks in rows, three instruments in panels, with a green band where a stack is healthy. The gradient ratio is "
    "in the band for every single bug at 50 layers; only all three together leave it. Token similarity and the input's "
    "share show copies and a misplaced alpha, and show all three together as dead. Default weights look healthy everywhere.",
)

# %%
at = found[50]
alone = list(three_bugs)[1:4]
print(
    "50 layers, gradient ratio within a factor 1.6 of 1, each bug alone:", all(1 / 1.6 < at[b][0] < 1.6 for b in alone)
)
print("                          all three together:", 1 / 1.6 < at["all three"][0] < 1.6)
print("tokens alike (above 0.1) with α on the branch:", at["α on the branch"][1] > 0.1)
print("tokens nearly the same (above 0.9) with all three:", at["all three"][1] > 0.9)
print("default weights × β seen by any of the three:", at["default weights × β"][1] > 0.1)

# %%
guess.compare("near 1")

# %% tags=["nbval-ignore-output"]
kit.record(**{f"instruments_{n}_{i}": list(rows.values())[i] for n, rows in found.items() for i in range(5)})

# %% [markdown]
# Three things to keep (one seed, at initialisation; our stack, not theirs):
#
# - **The instrument that one reaches for first is blind here.** With independent layers the gradient ratio stays near 1,
#   wherever α is.
# - Bugs that look bearable one at a time leave nothing alive together.
# - One of the three bugs is seen by *none* of these instruments. It needs another one.
#
# So a museum needs instruments first. You will build three. Each sees what the others cannot.
#
# ## Room 1: α on the wrong term
#
# **Symptom.** At 50 layers the tokens have a similarity above 0.1 where DeepNorm has less than 0.01, and half of the input
# is gone. No error, no NaN.
#
# **Code.** Under a comment with the paper's formula stood a line that does what this one does:


# %%
def published_join(x, f, norm, alpha):  # LN(αx + F(x))
    gx = f(x)
    return norm(x + alpha * gx)


# %% [markdown]
# You could find this by reading. But code may be spelled in many ways: α may hide in a buffer, a config, a fused kernel.
# Better to **ask** the code. Give it an $x$ and an $F$ of your own choice. Look at what comes out, and work out how much of
# each is in it. Lesson 07 used such an instrument. Now you build it.

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
def alpha_of(join, alpha):
    """What `join` makes of an α that it is given."""
    norm = nn.LayerNorm(WIDTH).double().requires_grad_(False)
    return effective_alpha(lambda x, fx: join(x.double(), lambda _: fx.double(), norm, alpha), WIDTH)


asked = alpha_beta(100)[0]
print(f"asked for {asked:.3f}: the published line has {alpha_of(published_join, asked):.3f}")
print(f"                 LN(x + F/α) has        {alpha_of(lambda x, f, n, a: n(x + f(x) / a), asked):.3f}")
print(f"                 LN(α(x + F)) has       {alpha_of(lambda x, f, n, a: n(a * (x + f(x))), asked):.3f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Asked for 3.761, the published line has 0.266 = 1/3.761. The second spelling, `LN(x + F/α)`, is *right*, and the
# instrument says so. It judges what code does, not how it is written.
# </details>
#
# **Why it works.** A norm hides $c$, the common factor, and it removes the mean. What it cannot hide is the direction of
# the sum, and the direction is $a : b$. Two inputs hide even that: $F = 0$, and $F$ along $x$. That is why a test with
# `F = torch.zeros(…)` would have passed the published line.

# %% [markdown] exercise="join" difficulty=1 importance=5 minutes=3
# ### Mend room 1
#
# **Objective**: mend the line without breaking its norm.
#
# Write `join(x, f, norm, alpha)`: what `published_join` was meant to be, with one call of `f`. Read the check's sentence if you
# hand in the published line first: it is worth seeing once.
#
# Hint: Which of the two terms shall α strengthen, so that the branch counts less in a deep stack?
#
# Hint: The skip is the term without `f`.


# %% exercise="join"
def join(x, f, norm, alpha):
    """A sub-layer's output for x of shape (…, d): of the same shape."""
    ### BEGIN SOLUTION
    gx = f(x)
    return norm(alpha * x + gx)
    ### END SOLUTION


# %%
check.join(join)

# %%
join = kit.mine_or_reference(join, "join")

# %%
museum = {}


def hang(number, room, instrument, asked, before, after):
    """A row of the museum's last picture: what the instrument read before and after."""
    museum[room] = f"{number}  {room}", instrument, asked, before, after
    print(f"room {number}, {room}; {instrument}: {before:.3g} before, {after:.3g} after; the paper has {asked:.3g}")


hang(1, "α on the branch", "effective α, 100 layers", asked, alpha_of(published_join, asked), alpha_of(join, asked))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 0.266 before, 3.76 after.
# </details>
#
# **Why it works.** The ratio was wrong by $\alpha^2 = \sqrt{2N}$: 14 times at 100 layers, 45 times at 1,000. The deeper the
# stack, the worse: a test with two layers would have seen a factor of 2.
#
# > **Label.** labmlai/annotated_deep_learning_paper_implementations, `labml_nn/normalization/deep_norm`, at e6b3c8a.
# > Reported in its issue 145 (2022).
#
# ## Room 2: one layer, fifty times
#
# **Symptom.** Copies alone leave the gradient ratio near 1 at 50 layers, and cost a quarter of the input. The deeper the
# stack, the more. With the other two bugs of the first picture, 2% are left.
#
# **Code.** A class is given one layer, and makes a stack of it:


# %%
def published_copies(layer, n, draw_):
    return nn.ModuleList([copy.deepcopy(layer) for _ in range(n)])


# %% [markdown]
# Each copy has parameters of its own. The count of parameters is right, the optimizer sees all of them, and no two share
# memory. Only their *values* are the same, as lesson 01 had it: branches that are equal add up in amplitude.

# %% [markdown] exercise="layers_are_independent" difficulty=3 importance=4 minutes=10
# ### Are these layers different layers?
#
# **Objective**: see copies that no count of parameters can see.
#
# Write `layers_are_independent(layers)`: `layers` is a list or `nn.ModuleList` of layers of the same make. True if no
# two **matrices** in all of the layers have the same values. Every pair of layers counts.
#
# Hint: Biases start at 0 and a norm's gain at 1 in *every* healthy layer. `p.ndim == 2` picks the matrices.
#
# Hint: No need to compare pairs. `tuple(p.flatten().tolist())` can be put into a set, and a set forgets what it has seen.


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
torchs = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 6)
print("the paper's 12 layers:            ", layers_are_independent(stack(12)))
print("12 copies of one:                 ", layers_are_independent(stack(12, make=clones)))
print("torch.nn.TransformerEncoder(…, 6):", layers_are_independent(torchs.layers))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# True, False, and **False** again: PyTorch's own `TransformerEncoder` copies the layer that it is given. Who uses it for a
# deep stack has to draw the layers afresh.
# </details>
#
# **Why it works.** Two matrices that were drawn apart never agree in all entries. It sees exact copies only. A copy times a
# factor slips through; the library's version correlates the weights instead.

# %% [markdown] exercise="fresh_copies" difficulty=2 importance=4 minutes=4
# ### Mend room 2
#
# **Objective**: make n layers from one, as such a class must, and yet n different ones.
#
# Write `fresh_copies(layer, n, draw_)`: an `nn.ModuleList` of n deep copies of `layer`. `draw_(layer)` draws all matrices
# of one layer afresh, in place, as this model's are drawn, and returns nothing. The layer that you are given belongs to the
# caller: leave it as it is.
#
# Hint: What the published line makes is a good start.
#
# Hint: Then one loop over the copies.


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


# %%
def different(layers):
    return len({tuple(layer.fc1.weight.flatten().tolist()) for layer in layers})


before, after = (stack(50, make=make) for make in (published_copies, fresh_copies))
hang(2, "copies of one layer", "different layers of 50", 50, different(before), different(after))
print("share of the input left, 50 layers: copies below 0.9:", instruments(before)[2] < 0.9)
print("                                    mended above 0.98:", instruments(after)[2] > 0.98)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 1 before, 50 after.
# </details>
#
# **Why it works.** It is lesson 01's `cloned_growth`: n equal steps go n·ε far, n independent ones √n·ε.
#
# > **Label.** The same file as room 1. With that code's own layers, and α on the right side, first/last gradient is 0.56 at
# > 50 layers, 0.068 at 200, 0.000025 at 1,000. (Ours keep a ratio near 1. What an instrument shows depends on the layers;
# > the copies are there either way.)
#
# ## Room 3: a minus and a slash
#
# **Symptom.** Two repositories, twelve layers each. In one of them the stack is nearly the identity: all of the input comes
# out again. In the other almost nothing of it does. (The 1/63 that a random direction would share with it is taken out.)

# %%
N = 12
precedence, sign = (8 * N) ** -1 / 4, (8 * N) ** 0.25
for name, beta in (("first", precedence), ("second", sign), ("the paper", alpha_beta(N)[1])):
    share = instruments(stack(N, beta=beta))[2]
    kind = "more than 99.9%" if share > 0.999 else "less than 5%" if share < 0.05 else "95% to 99.9%"
    print(f"{name:10} β = {beta:.4f}, input left: {kind}")

# %% [markdown]
# The first looks *better* than the paper. Its β is 123 times too small, and a branch is two matrices: 15,000 times too weak.
# Who says nothing does no harm. **The instruments of health do not measure strength.**
#
# **Code.** The gain β, as the two of them compute it:


# %%
def published_beta_first(layers):
    return (8 * layers) ** -1 / 4


def published_beta_second(layers):
    return (8 * layers) ** 0.25


# %% [markdown] exercise="beta_of_depth" difficulty=1 importance=5 minutes=3
# ### Mend room 3
#
# **Objective**: write an exponent that means what it says.
#
# Write `beta_of_depth(n_layers)`: DeepNorm's β for a single stack of N layers, $(8N)^{-1/4}$.
#
# Hint: In Python `**` binds before `/`.
#
# Hint: `-0.25` needs no division.


# %% exercise="beta_of_depth"
def beta_of_depth(n_layers):
    """The gain β of a single stack of n_layers layers: one number."""
    ### BEGIN SOLUTION
    return (8 * n_layers) ** -0.25
    ### END SOLUTION


# %%
check.beta_of_depth(beta_of_depth)

# %%
beta_of_depth = kit.mine_or_reference(beta_of_depth, "beta_of_depth")
hang(3, "operator precedence", "β at 12 layers", alpha_beta(12)[1], published_beta_first(12), beta_of_depth(12))
hang(3, "sign of the exponent", "β at 12 layers", alpha_beta(12)[1], published_beta_second(12), beta_of_depth(12))
print("other repairs that people try at 12 layers:")
print(f"  8 * N**-0.25 = {8 * N**-0.25:.2f}   (8 * N) ** -(1 // 4) = {(8 * N) ** -(1 // 4)}")
for n in (12, 1000):
    print(f"  α²β² = 1/2 at {n:5,} layers:", abs(alpha_beta(n)[0] ** 2 * beta_of_depth(n) ** 2 - 0.5) < 1e-4)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 0.3195 at 12 layers. The published ones: 0.0026 and 3.13.
# </details>
#
# **Why it works.** Never trust a constant that you cannot check by another road. Here is one: for a single stack
# $\alpha^2\beta^2 = \tfrac12$ at *every* depth, because $\sqrt{2N} \cdot 1/\sqrt{8N} = \tfrac12$. One line of a test
# catches an error in either. The same wrong $N$ in both passes it: compare one value with the paper's table as well.
#
# > **Labels.** MTG/omar-rq at c110659: precedence. The "DeepNorm" baseline of the research code of Mix-LN
# > (pixeli99/MixLN, ff45826) and of LayerNorm-Scaling (lmsdss/LayerNorm-Scaling, 3ac54dd): sign of the exponent, and α fixed
# > at 2.828, see below. The GPAS fork (dandingsky/GPAS, 3198068) has both right. Whether published baseline numbers came from
# > exactly this code is not known.
#
# ## Room 4: gain or variance
#
# **Symptom.** β is computed rightly, 0.334 at 10 layers. The weights that arrive have a gain of 0.578. No line is wrong by itself.
#
# **Code.** The initialiser comes from a library, and takes a `scale`:


# %%
@torch.no_grad()
def variance_scaling_(weight, scale):
    """A library's function: normal, with variance scale / (mean of the fans)."""
    return weight.normal_(0, sqrt(scale / (sum(weight.shape) / 2)))


def published_draw_(weight, gain, variance_scaling_):
    return variance_scaling_(weight, gain)


# %% [markdown]
# To see this one you have to measure the weights themselves. Xavier draws an entry of a (fan_out, fan_in) matrix with
# standard deviation $g\sqrt{2/(\text{fan\_in} + \text{fan\_out})}$ ([gain](glossary.md) $g$). You have the entries; what
# was $g$?

# %% [markdown] exercise="xavier_gain" difficulty=2 importance=5 minutes=8
# ### Which gain was this drawn with?
#
# **Objective**: read the gain off any matrix of any library.
#
# Write `xavier_gain(weight)` for a matrix of shape (fan_out, fan_in): the gain $g$ with which it was drawn, a number.
#
# Hint: Solve $\text{std} = g\sqrt{2/(\text{fan\_in} + \text{fan\_out})}$ for $g$.
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
for fan_in, fan_out in ((256, 256), (256, 1024), (1024, 256)):
    print(
        f"nn.Linear({fan_in:4}, {fan_out:4}), as PyTorch draws it: gain {xavier_gain(nn.Linear(fan_in, fan_out).weight):.2f}"
    )

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 0.58, 0.91, 0.46: PyTorch's default is not Xavier, and its gain depends on the shape. That was the bug which no instrument
# in the first picture saw.
# </details>
#
# **Why it works.** PyTorch's `nn.Linear` draws uniformly between $\pm 1/\sqrt{\text{fan\_in}}$, of standard deviation
# $1/\sqrt{3\,\text{fan\_in}}$. Times $\sqrt{(\text{fan\_in} + \text{fan\_out})/2}$ that is $1/\sqrt 3 = 0.577$ for a square
# matrix, and $\sqrt{5/6} = 0.913$ and $\sqrt{5/24} = 0.456$ for the two matrices of a feed-forward four times as wide.

# %% [markdown] exercise="draw_with_gain_" difficulty=2 importance=4 minutes=4
# ### Mend room 4
#
# **Objective**: pass a gain to a function that wants a variance.
#
# Write `draw_with_gain_(weight, gain, variance_scaling_)`: fill `weight` in place, with the library's
# `variance_scaling_(weight, scale)`, so that `xavier_gain(weight)` is `gain`.
#
# Hint: What happens to a variance when all numbers are multiplied by g?
#
# Hint: Numbers that are g times as large: how much larger is their mean square? `scale` is of that kind.


# %% exercise="draw_with_gain_"
def draw_with_gain_(weight, gain, variance_scaling_):
    """Fill weight in place with Xavier's numbers times gain."""
    ### BEGIN SOLUTION
    variance = gain**2
    variance_scaling_(weight, variance)
    ### END SOLUTION


# %%
check.draw_with_gain_(draw_with_gain_)

# %%
draw_with_gain_ = kit.mine_or_reference(draw_with_gain_, "draw_with_gain_")

# %%
beta = alpha_beta(10)[1]
weights = [nn.Parameter(torch.empty(512, 512)) for _ in range(2)]
for weight, draw_ in zip(weights, (published_draw_, draw_with_gain_), strict=True):
    draw_(weight, beta, variance_scaling_)
hang(4, "gain given as variance", "gain at 10 layers", beta, *map(xavier_gain, weights))

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 0.578 before, 0.334 after, up to noise in the third digit. (That $\sqrt\beta$ at 10 layers looks like PyTorch's default,
# $1/\sqrt3 = 0.577$ in room 7, is an accident: at 12 layers it is 0.565.)
# </details>
#
# **Why it works.** Numbers g times as large have g² times the variance. Given β as a variance, the weights come out at
# $\sqrt\beta$. Two matrices make a branch, so its output is $1/\beta$ times too large: 3 times at 10 layers.
#
# > **Label.** LeelaChessZero/lczero-training at 7c5d756. *Gain*, *scale* and *std* are easily taken for each other: read the
# > library's line, not its name.
#
# ## Room 5: a switch that does not arrive
#
# **Symptom.** Somebody asks for a decoder with `deepnorm=True`. The largest number in its stream, before any training:


# %%
def as_pre_ln(x, f, norm, alpha):
    return alpha * x + f(norm(x))


with torch.no_grad():
    for n in (6, 12, 22):
        largest = stack(n, join=as_pre_ln)(X).abs().max().item()
        print(
            f"{n:2} layers: about 10^{log(largest, 10):.0f}; with the norm on the sum below 10:",
            stack(n)(X).abs().max().item() < 10,
        )

# %% [markdown]
# Lesson 01 met this stack: α on the skip, and no norm on the sum. And here is what the instrument of room 1 says to it:

# %%
asked = alpha_beta(24)[0]
print(f"asked for {asked:.3f}, effective α is {alpha_of(as_pre_ln, asked):.3f}")

# %% [markdown]
# *Perfect.* α is where it should be. What is missing is the norm. **No detector sees everything**, which is why there will
# be a checklist.
#
# **Code.** Somewhere far from the layer, a function turns flags into settings:


# %%
def published_settings(layers, deepnorm=False, norm_first=True, sub_ln=True, **others):
    alpha = (2 * layers) ** 0.25 if deepnorm else 1.0
    return {"alpha": alpha, "norm_first": norm_first, "sub_ln": sub_ln}


print(published_settings(24, deepnorm=True))
print(published_settings(24, deep_norm=True))

# %% [markdown]
# `norm_first` is Pre-LN: the branch reads the norm. `sub_ln` is one more norm, inside the branch, which belongs to another
# method (Magneto, arXiv 2210.06423). Look at the second line too: a typo, and no complaint.

# %% [markdown] exercise="decoder_settings" difficulty=2 importance=4 minutes=5
# ### Mend room 5
#
# **Objective**: make a switch arrive everywhere, or refuse.
#
# Write `decoder_settings(layers, deepnorm=False, norm_first=True, sub_ln=True)`: a dictionary with the same three keys. With
# `deepnorm=True`, α is $(2 \cdot \text{layers})^{1/4}$, and `norm_first` and `sub_ln` are both False, whatever was asked.
# Without it, α is 1 and the other two are what was asked. An unknown keyword raises a TypeError.
#
# Hint: Two bugs are in the dictionary, one is in the signature.
#
# Hint: Who raises a TypeError for an unknown keyword, if you do not write `**others`?


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


# %%
@torch.no_grad()
def stream_of(settings, layers=6):
    """Root mean square of the stream at the top; a norm on every sum makes it 1."""
    rule = as_pre_ln if settings["norm_first"] else join
    return stack(layers, join=rule, alpha=settings["alpha"])(X).square().mean().sqrt().item()


@torch.no_grad()
def branch_of(settings, layers=100):
    """Standard deviation of what the feed-forward of one layer adds."""
    return stack(1, beta=beta_of_depth(layers), sub_ln=settings["sub_ln"])[0].feed_forward(X).std().item()


settings = [make(6, deepnorm=True) for make in (published_settings, decoder_settings)]
hang(5, "scaled skip, no norm", "stream at 6 layers", 1, *map(stream_of, settings))
branches = list(map(branch_of, settings))
hang(5, "Sub-LN's norm as well", "branch at 100 layers", branches[1], *branches)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A stream of about 1,700 at 6 layers before, 1 after. (At 24 layers it would be 10²⁰.)
# </details>
#
# **Why it works.** A method is more than its constant. When a switch stands for three changes, either all of them are made
# in one place, or sooner or later one is forgotten. And a function that swallows unknown keywords trains another model than
# the one you wrote down.
#
# > **Labels.** microsoft/torchscale at 4d1e0e8, since da3d79c: `DecoderConfig(deepnorm=True)` leaves the decoder Pre-LN. Its
# > release 0.3.0 does not have this bug; there `config.override()` can leave deepnorm and subln both on (issue 64), and
# > unknown keywords are accepted. lucidrains/x-transformers up to 1.20.0: `XTransformer(deepnorm=True)` stays Pre-LN, and
# > 100-100 layers give NaN. Its author took DeepNorm out again (issue 198).
#
# ## What overflow looks like
#
# How does room 5 end? The stream grows by α per sub-layer: by $\alpha^{2M}$ in M layers. Take $M = 50$: then
# $\alpha = 100^{1/4} = \sqrt{10}$, and every *two* sub-layers append a zero. Numbers end somewhere: fp16 at 65,504; bf16 and
# float32, which have the same exponents, at $3.4 \cdot 10^{38}$.

# %%
guess_end = kit.Guess(
    "The scaled skip without its norm, α = √10, in float32 (up to 3.4·10^38). The first number that is not finite comes after",
    ["about 9 sub-layers", "about 40 sub-layers", "about 77 sub-layers"],
)
guess_end


# %%
@torch.no_grad()
def sizes(dtype, layers=50):
    """Root mean square of the stream after each sub-layer, as long as it is finite."""
    x, found = X.to(dtype), []
    for layer in stack(layers, join=as_pre_ln).to(dtype):
        for f, norm in ((layer.self_attn, layer.self_attn_layer_norm), (layer.feed_forward, layer.final_layer_norm)):
            found.append(x.double().square().mean().sqrt().item())
            x = as_pre_ln(x, f, norm, layer.alpha)
            if not x.isfinite().all():
                return found
    return found


ends = {"fp16": sizes(torch.float16), "bf16": sizes(torch.bfloat16), "float32": sizes(torch.float32)}
figure, (ax,) = new_figure(1, width=8, height=4.4)
ax.plot(range(100), [10 ** (n / 2) for n in range(100)], "-", color="#000000", linewidth=1, label=r"$\alpha^n$, theory")
for i, (name, found_sizes) in enumerate(ends.items()):
    # Every third point, so that equal curves can be told apart.
    ax.plot(range(i, len(found_sizes), 3), found_sizes[i::3], "os^"[i], color=series_style(i)["color"], label=name)
    ax.plot(
        len(found_sizes) - 1, found_sizes[-1], "x", color=series_style(i)["color"], markersize=13, markeredgewidth=3
    )
ax.plot([], [], "x", color="#555555", markersize=9, markeredgewidth=2, label="the last finite one")
for limit, place, text in (
    (65504, 60, "65,504: fp16 ends"),
    (sqrt(3.4e38), 60, "1.8·10¹⁹: float32's square root"),
    (3.4e38, 0, "3.4·10³⁸: float32 and bf16 end"),
):
    ax.axhline(limit, color="#555555", linestyle=":", linewidth=1.5)
    ax.text(place, limit * 4, text, fontsize=10)
ax.set_yscale("log")
ax.set(xlabel="sub-layer", ylabel="size of the stream (root mean square)", ylim=(0.3, 1e50), xlim=(-2, 100))
legend_below(figure, ax, columns=5)
Picture(
    figure,
    alt="Size of the stream by sub-layer, logarithmic. A straight line rises by a factor of ten every two sub-layers. The "
    "points of fp16 lie on it and end with a cross near 10,000, after about 8 sub-layers, below the line at 65,504. Those of "
    "bf16 and float32 end together at "
    "about 10 to the 19, after about 39 sub-layers, half way to the largest number of float32.",
)

# %%
print("fp16 ends within 2 sub-layers of 9:               ", abs(len(ends["fp16"]) - 9) <= 2)
print("float32 ends within 2 sub-layers of 39, half-way: ", abs(len(ends["float32"]) - 39) <= 2)
print("bf16 ends where float32 does, within 1:           ", abs(len(ends["bf16"]) - len(ends["float32"])) <= 1)
print(f"fp16, depth by pencil: α^(2M) = (2M)^(M/2), at M = 8 it is {16**4:,}; fp16 ends at 65,504")

# %%
guess_end.compare("about 40 sub-layers")

# %% tags=["nbval-ignore-output"]
kit.record(**{f"last_finite_{name}": len(values) for name, values in ends.items()})

# %% [markdown]
# Read the three ends:
#
# - **fp16**: a number passes 65,504, becomes ∞, and the next norm makes NaN of it. Loss scaling does not help: that is for
#   small gradients, and here it is the forward pass. (The curve is the root mean square; the largest of 8,192 numbers is
#   several times that, so fp16 ends a step early.)
# - **float32**: ends at *half* of its exponents, because a norm squares its input. $1.8 \cdot 10^{19}$ squared is
#   $3.4 \cdot 10^{38}$.
# - **bf16**: where float32 ends. Its short fraction makes numbers coarse; its exponents are the same.
#
# Between "large" and "NaN" lies a quiet zone. There the variance inside the norm is ∞, one over it is 0, and the norm gives
# zeros. Here is PyTorch's norm on tokens of size $10^{18}$ and more:

# %% tags=["nbval-ignore-output"]
for power in (18, 19, 20):
    print(
        f"tokens of size 10^{power}: largest number behind the norm {F.layer_norm(X[0] * 10.0**power, (WIDTH,)).abs().max():.3g}"
    )

# %% [markdown]
# Where the norm gives zeros the loss is *exactly* ln V, for a vocabulary of V words, and every gradient below is exactly 0.
# TorchScale's decoder does that at 24 layers, and is NaN from 28 (d = 64, measured with its own code at the commit above).
# **A loss of ln V to the last digit is a symptom.**
#
# ## Rooms to visit
#
# No mending here: look, and let your instruments look.
#
# **Room 6: 1.15 for 0.87.** The encoder of an encoder-decoder has $\beta = 0.87\,(N^4M)^{-1/16}$. One library has 1.15.
#
# **Room 7: β on top of the default.** β multiplies what `nn.Linear` drew, not Xavier's numbers. For query and key, which
# should have gain 1, that leaves 0.577.
#
# **Room 8: three matrices drawn as one.** Query, key and value are [packed](glossary.md#packed-qkv) into one (3d, d) matrix, and Xavier
# is called once. Its fan_out is then 3d.
#
# **Room 9: the forgotten slice.** With QKV packed, output and feed-forward are scaled by β, and the value slice is not.

# %%
torch.manual_seed(SEED)
d, beta = 512, beta_of_depth(100)
gains = {}
encoder = deepnorm_constants(100, 100).encoder
gains["1.15 for 0.87"] = "encoder β, 100-100", encoder.beta, 1.15 / 0.87 * encoder.beta
gains["default weights × β"] = "gain of the query", 1.0, xavier_gain(nn.Linear(d, d).weight)
packed = nn.init.xavier_normal_(torch.empty(3 * d, d))
gains["packed QKV as one matrix"] = "gain of the query", 1.0, xavier_gain(packed.chunk(3)[0])
value = nn.init.xavier_normal_(torch.empty(d, d))
gains["value slice forgotten"] = "gain of the value", beta, xavier_gain(value)
for number, (room, (instrument, asked, before)) in enumerate(gains.items(), 6):
    after = asked if number == 6 else xavier_gain(nn.init.xavier_normal_(torch.empty(d, d), gain=asked))
    hang(number, room, instrument, asked, before, after)

# %% [markdown]
# > **Labels.** 6: microsoft/torchscale, `architecture/encoder.py`, all releases: 0.2727 instead of 0.2063 at 100-100
# > ($1/0.87 = 1.15$: it looks like a reciprocal taken twice). 7: the same library; Xavier stands in its `reset_parameters`,
# > for which no caller was found. 8: PyTorch issue 166378, for any packed projection. 9: xformers before its pull request 284;
# > a vision Transformer with DeepNorm went NaN at about epoch 50 (issue 219).
#
# **Room 10: a constant constant.** α is 2.828, whatever the depth. It comes from $64^{1/4}$: right at exactly one depth.

# %%
for n in (6, 12, 32, 100, 1000):
    needed = alpha_beta(n)[0]
    verdict = (
        "right" if abs(alpha_of(join, 2.828) / needed - 1) < 0.01 else f"{2.828 / needed:.2f} of what it should be"
    )
    print(f"{n:5,} layers need α = {needed:.3f}; 2.828 is {verdict}")
hang(
    10,
    "α fixed at 2.828",
    "α at 1,000 layers",
    alpha_beta(1000)[0],
    alpha_of(join, 2.828),
    alpha_of(join, alpha_beta(1000)[0]),
)

# %% [markdown]
# A test written at 32 layers passes this room for ever. So test at **two** depths. (Labels: as in room 3.)
#
# **Room 11: layers for sub-layers.** A paper on another rule compares itself with DeepNorm, and gives the constants for L
# sub-layers: $\alpha = L^{1/4}$, $\beta = L^{-1/4}$. A layer has two sub-layers, $L = 2M$. So α is DeepNorm's, and
# $\beta = (8M)^{-1/4} = (4L)^{-1/4}$ is $\sqrt2$ times smaller than the one given.

# %%
printed = {
    "as printed": lambda sublayers: sublayers**-0.25,
    "DeepNorm": lambda sublayers: beta_of_depth(sublayers // 2),
}
for name, beta_of in printed.items():
    added = 1 - instruments(stack(50, beta=beta_of(100)))[2]
    print(
        f"{name:10} at 50 layers: α²β² = {sqrt(100) * beta_of(100) ** 2:.1f}, the branches add {added:.1%} of the variance"
    )
before, after = (beta_of(512) for beta_of in printed.values())
hang(11, "layers for sub-layers", "β at 512 sub-layers", alpha_beta(256)[1], before, after)

# %% [markdown]
# Two matrices make a branch, so each branch is twice as strong, and adds four times the variance. The check of room 3,
# $\alpha^2\beta^2 = \tfrac12$, sees it at once.
#
# **Room 12: factors behind the mixer.** NormFormer gives each head a factor, which starts at 1, *before* the output matrix
# mixes the heads. One library multiplies *after* it, where a quarter of the features is a quarter of every head.


# %%
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


output = stack(1)[0].self_attn.out_proj
same = [scale(X, output, torch.ones(HEADS)) for scale in (published_factors, head_factors)]
print("the same function while all factors are 1:", torch.allclose(*same))
hang(12, "head factors after mixing", "of a head, gone", 1, switched_off(published_factors), switched_off(head_factors))

# %% [markdown]
# No test at initialisation sees this one. Turn each switch, and see what it turns.
#
# **Room 13: zeros of one layer.** ReZero is $x + \alpha_l F_l(x)$ with $\alpha_l = 0$ at first, so the stack starts as the
# identity, and looks healthy whatever its layers are. They are copies again, made by `torch.nn.TransformerEncoder`.


# %%
def rezero(x, f, norm, alpha):
    return x + alpha * f(x)


def gate_gradients(make, layers=12):
    """How many different gradients the α of so many layers get in the first step."""
    gated = stack(layers, join=rezero, beta=1.0, make=make)
    for one in gated:
        one.alpha = torch.zeros((), requires_grad=True)
    y = gated(X)
    signal = torch.randn(y.shape, generator=torch.Generator().manual_seed(SEED))
    gradients = torch.autograd.grad((y * signal).sum(), [one.alpha for one in gated])
    return len({f"{gradient.item():.4g}" for gradient in gradients})


hang(13, "zeros of one layer", "gradients of 12 α", 12, *map(gate_gradients, (published_copies, fresh_copies)))

# %% [markdown]
# All twelve α take the same first step, and twelve equal branches add up in amplitude.
#
# > **Labels.** 11: Keel (arXiv 2601.19895), which gives it for its baseline; whether its runs used this value is not known.
# > 12: facebookresearch/fairseq at 00b6434, `c_attn` in `modules/transformer_layer.py`. 13: majumderb/rezero at bfea86b,
# > `Transformer` in `rezero/transformer/rztx.py`.
#
# ## The museum in one picture
#
# Every row is a published bug, and what its instrument read, as a multiple of what the paper asks for.


# %%
def museum_wall(rows):
    figure, (ax,) = new_figure(1, width=9.5, height=6.6)
    left, right = 2e-3, 3e3
    ax.axvline(1, color="#009E73", linewidth=6, alpha=0.25)
    for i, (_, _, asked, before, after) in enumerate(rows):
        ratio = before / asked
        ax.plot([ratio, after / asked], [i, i], "-", color="#999999", linewidth=1.5, zorder=1)
        ax.plot(ratio, i, "X", color="#D55E00", markersize=10, label="as published" if i == 0 else None)
        ax.plot(after / asked, i, "o", color="#0072B2", markersize=9, label="mended" if i == 0 else None)
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
    "hundredth to more than a thousand; a dot shows the mended code. All dots lie on one vertical line at 1.",
)

# %%
off = [max(before / asked, asked / before) for _, _, asked, before, _ in museum.values()]
print(f"{len(museum)} bugs; every one off by more than a quarter: {min(off) > 1.25}")
print(
    "mended, all within 2% of what was aimed at:",
    all(abs(after / asked - 1) < 0.02 for _, _, asked, _, after in museum.values()),
)

# %% [markdown]
# The rows are ordered by their ratio, and several ratios depend on the depth of the room. It is not an order of harm: a
# factor of 0.7 in every layer may matter more than 1,700 in a config that nobody uses.
#
# ## From detectors to a review
#
# Your three detectors, on a whole stack: α from its rule, independence from its layers, gains from its matrices. The
# library's `review(model)` does the same for models that it has never seen, with hooks in place of your access to the code.
# Do they agree?


# %%
def detected(layers):
    """What your detectors say, under the names of the rows of the library's checklist."""
    # A gain that is measured on one 64 × 64 matrix is off by 1% (its standard error is 1/√(2·64²)): 10% is a bug.
    alpha, beta = alpha_beta(len(layers))
    scaled = [m for one in layers for m in (one.self_attn.v_proj, one.self_attn.out_proj, one.fc1, one.fc2)]
    plain = [m for one in layers for m in (one.self_attn.q_proj, one.self_attn.k_proj)]
    return {
        "α on the skip": abs(alpha_of(layers[0].join, layers[0].alpha) / alpha - 1) < 0.05,
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
    agree = all((checklist[row].status == "PASS") == verdict for row, verdict in mine.items())
    seen = [row.name for row in checklist.rows if row.status == "FAIL"]
    print(f"{name}: agree {agree}; fails: {', '.join(seen) or 'nothing'}")

# %% [markdown]
# Four rows of the checklist are not yours: *norm outside* asks whether the norm sees the sum, *gain of the norms* whether
# its factors start at 1, *gradient through F* whether a branch is detached, and *signal at depth* looks at tokens and
# gradients, as the first picture did. They are needed: the scaled skip without a norm fails there, and its α is perfect.
#
# ### A checklist for anybody's DeepNorm
#
# | ask | how | the rooms that fail it |
# |---|---|---|
# | 1. Is α on the skip? | fit what the norm sees as a·x + b·F, with independent x and F | 1 |
# | 2. Is α that of *this* depth and architecture? | at two depths, with N ≠ M; α²β² = ½ in a single stack | 3, 6, 10, 11 |
# | 3. Does a norm see the sum? | the largest number in the stream at 24 layers | 5 |
# | 4. Are the layers drawn apart? | compare matrices, every pair | 2, 13 |
# | 5. Do value, output, feed-forward have gain β? | measure each matrix, packed ones slice by slice | 3, 4, 6, 7, 8, 9, 11 |
# | 6. Do query and key have gain 1? | the same | 7, 8 |
# | 7. Did the switch arrive? | count what changed when it was flipped; misspell it and expect an error | 5, 12 |
# | 8. Is the signal alive at depth? | token similarity, input share; then the gradient | 1 and 2 together |
#
# Do it before training, on the deepest model that you mean to train. It takes seconds, and at 1,000 layers about a minute.
#
# ### Bring your own
#
# Put a model of your own in the next cell, as `review(model, x)` with an input that it accepts. `review` runs it and looks
# for sums of a stream and a branch, whatever the modules are called; where it finds none, its message says what to type.
# Nothing at hand? Take one of the museum's, `review(stack(8, join=wrong_side), run=run, depth=(0, 8))`. Here is a patient
# that claims nothing: PyTorch's encoder.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(SEED)
my_model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True), 12)

print(review(my_model))

# %% [markdown]
# It is Post-LN (no α), its layers are copies, and its packed QKV was drawn as one matrix: query and key have 0.71. None of
# this is a bug in 12 layers that claim no DeepNorm. All of it would be in 100 that do. (The review's limits are looser than
# the green bands of the first picture: it must not fail healthy models of other kinds.)
#
# ## Not bugs, but other choices
#
# Not every difference is a mistake. As far as papers and code tell, these were made on purpose:
#
# | model | what it does | why it is no bug |
# |---|---|---|
# | GLM-130B (arXiv 2210.02414) | α = (2N)^½ = 11.83 and gain (2N)^(-½) = 0.0845 at 70 layers; its LN at the input of the sub-layer | it trains with Adam, whose steps sum differently: lesson 06 |
# | MiniMax-Text-01 | α = (2·80)^¼ = 3.557, RMSNorm, no small initial weights | α alone makes each branch weaker by its own factor; the paper's β would weaken it further |
# | ONT bonito | the paper, with RMSNorm and SwiGLU | the cleanest small reference that we know |
#
# How to tell a choice from a bug? A choice is written down, and holds at every depth.

# %%
print(f"GLM-130B: α = {sqrt(2 * 70):.2f}, gain {1 / sqrt(2 * 70):.4f}; MiniMax-Text-01: α = {(2 * 80) ** 0.25:.4f}")
print(
    f"α·gain of GLM-130B is {sqrt(2 * 70) * (2 * 70) ** -0.5:.0f}, of the paper {alpha_beta(70)[0] * alpha_beta(70)[1]:.3f}"
)

# %% [markdown]
# One more choice is PyTorch's. Under `torch.autocast` to bfloat16 (lesson 10) only matrix products and the like are computed
# in 16 bits. αx + F is a sum of float32 and bfloat16, which is float32; and on a GPU `layer_norm` returns float32 whatever it
# reads. So a stream with a norm on every sum takes 4 bytes a number, and twice the memory traffic. Here is a norm that keeps
# what it gets, and what that costs:


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
rounding = [((y - exact).norm() / exact.norm()).item() for y in (wide, thin)]
print("rounding at 200 layers is below a hundredth of what all branches add:", [r / added < 0.01 for r in rounding])
print("                                           more than a third of it:", [r / added > 1 / 3 for r in rounding])

# %% tags=["nbval-ignore-output"]
kit.record(branches_add=added, rounding_of_float32_stream=rounding[0], rounding_of_bfloat16_stream=rounding[1])

# %% [markdown]
# A branch of DeepNorm is small beside αx, and bfloat16 keeps three digits of the sum. So at 200 layers 4% is rounding, where
# all branches together add 6%; at 1,000 layers, as much again as they add. Half the bytes are for shallow stacks. (At
# initialisation. Labels: PyTorch issues 66707 and, for RMSNorm since torch 2.12, 188955.)
#
# ## For those who want more

# %% [markdown] exercise="slice_gains" difficulty=1 importance=3 minutes=4
# ### Three gains in one matrix (optional)
#
# **Objective**: see rooms 8 and 9 in a packed matrix.
#
# Write `slice_gains(weight)` for a packed `weight` of shape (3d, d): the gains of query, key and value, a list of three
# numbers.
#
# Hint: The first d rows are the query's. `weight.chunk(3)` gives the three slices.
#
# Hint: You have a function for one matrix.


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
print(
    "torch.nn.MultiheadAttention(512, 8):",
    [round(g, 2) for g in slice_gains(nn.MultiheadAttention(512, 8).in_proj_weight)],
)

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
# Hint: Counting needs no logarithm: multiply, until the limit is passed.


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
for n in (6, 8, 12, 24, 100):
    alpha = alpha_beta(n)[0]
    ends_at = {
        name: overflow_depth(alpha, limit) for name, limit in (("fp16", 65504), ("a norm in float32", sqrt(3.4e38)))
    }
    print(
        f"{n:3} layers, {2 * n:3} sub-layers:",
        ", ".join(f"{k} {'survives' if v > 2 * n else f'ends at {v}'}" for k, v in ends_at.items()),
    )

# %% [markdown]
# <details><summary>What you should see</summary>
#
# fp16 survives 6 layers, and not 8: $(2M)^{M/2}$ at $M = 8$ is $16^4 = 65{,}536$, just above 65,504. A norm in float32 survives
# 12 layers; in 24 layers it ends at sub-layer 46 of 48.
# </details>
#
# **Why it works.** $\alpha^{2M} = (2M)^{M/2}$ grows faster than exponentially. A wider format buys
# little: a norm in float64 overflows near $10^{154}$, which is reached at about 128 layers.
#
# ## In three sentences
#
# 1. No published bug in this museum raises an error, and most pass the test that one would write first: few layers, F = 0, one
#    depth, a count of parameters.
# 2. Each instrument is blind to something: the gradient ratio to a misplaced α, the effective α to a missing norm and to every
#    gain, and all three health instruments to default weights × β.
# 3. So ask what code *does*, with a checklist, at the depth that you mean to train.
#
# **Read next**: the paper's Figure 2, with the checklist beside it; then any repository that says DeepNorm. Lesson 10 builds
# the training loop, where bugs are slower to show.
