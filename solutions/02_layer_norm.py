# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What does a norm hide, and what does it do to a gradient?
#     opening: >-
#       Lesson 01 ended with a norm on the sum: the size of the stream is then always 1. That sounds like the end of all
#       trouble. It is not, because a norm has a way back. This lesson writes both ways by hand, and finds where a deep
#       stack stretches or shrinks its gradient.
#     objectives: >-
#       write layer normalisation and its backward pass from nothing, say by how much it stretches or shrinks a gradient,
#       and say what α on the skip is equivalent to, and what goes wrong with α on the branch.
#     prerequisites: lesson 01, the chain rule, and what a Jacobian is.
#     minutes: 65
#     paper: Section 3, where the input of LN decides how large the gradient is.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
WIDTH = 256  # features of a token in the measurements

# %% tags=["imports"]
from math import sqrt

import numpy as np

# %%
import torch
from torch.nn.functional import layer_norm as torchs_layer_norm

from deepnet_edu import deepnorm_constants
from deepnet_edu.checks import check
from deepnet_edu.figures import Picture, theory_and_measurement
from deepnet_edu.profiles import Curve

device = kit.setup(SEED, PROFILE)
generator = torch.Generator().manual_seed(SEED)


def drawn(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# %% [markdown]
# ## Four steps
#
# [Layer normalisation](glossary.md) works on one token at a time. Take its $d$ features. Remove their mean. Divide by
# their standard deviation. Then let two learned vectors, $\gamma$ and $\beta$, stretch and shift each feature:
#
# $$\mathrm{LN}(x) = \frac{x - \bar x}{\sqrt{\operatorname{Var}(x) + \varepsilon}} \odot \gamma + \beta .$$
#
# (This $\beta$ is LN's bias. It has nothing to do with DeepNorm's β, the gain of weights; they only share a letter.)

# %% [markdown] exercise="layer_norm" difficulty=1 importance=4 minutes=8
# ### Layer norm
#
# **Objective**: know every step of a norm, and each place where it can go wrong.
#
# Write `layer_norm(x, gamma, beta, eps)` for `x` of shape (B, T, d), `gamma` and `beta` of shape (d,), with tensor
# arithmetic alone: no `torch.nn`. In lesson 07 your function is trained, so gradients must come back through it.
#
# Hint: `x.mean(-1, keepdim=True)` is the mean of each token, of shape (B, T, 1), ready to be subtracted.
#
# Hint: The variance is the mean of the squares of what is left after that, divided by d and not by d - 1.


# %% exercise="layer_norm"
def layer_norm(x, gamma, beta, eps):
    """(B, T, d) -> (B, T, d): each token to mean 0 and variance 1, then times gamma, plus beta."""
    ### BEGIN SOLUTION
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + eps).sqrt() * gamma + beta
    ### END SOLUTION


# %%
check.layer_norm(layer_norm)

# %%
layer_norm = kit.mine_or_reference(layer_norm, "layer_norm")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A card with a green bar. `x.var(-1)` gives another answer: PyTorch divides by d - 1 there, because statisticians want
# it so. At d = 8 the variance comes out 14% too large and the output 7% too small; at d = 512 the output is off by 0.1%. A
# small test finds more bugs than a large one.
# </details>
#
# **Why it works.** Both means run over the last dimension, so a token never hears of its neighbours, in training or
# later. Batch normalisation mixes tokens in training, those of other sequences and of later positions. When text is then
# generated one token at a time, it must use averages that were kept from training. LN is the same in both.
#
# ## What it hides
#
# Multiply $x$ by 1,000. Mean and standard deviation grow a thousandfold, and the quotient is what it was. LN cannot see
# the size of its input (as long as the variance is far above ε):
#
# $$\mathrm{LN}(c\,x) = \mathrm{LN}(x) \quad\text{for all } c > 0 .$$

# %%
x, one, zero = drawn(1, 4, WIDTH), torch.ones(WIDTH).double(), torch.zeros(WIDTH).double()
for c in (0.1, 1.0, 1000.0):
    apart = (layer_norm(c * x, one, zero, 1e-12) - layer_norm(x, one, zero, 1e-12)).abs().max()
    kit.finding(f"c = {c:g}: largest difference of LN(c·x) and LN(x)", apart, below=1e-5)

# %% [markdown]
# So it hides *how large* the stream is. It shows only the direction. A published implementation overlooked what follows
# from that (labml at e6b3c8a; lesson 09). DeepNorm's line is $\mathrm{LN}(\alpha x + F)$, and it has
# $\mathrm{LN}(x + \alpha F)$. Guess first what that does:

# %%
guess = kit.Guess(
    "At 1,000 layers α is 6.69. Beside LN(α·x + F), the branch of LN(x + α·F) is too strong, against its skip, by a factor of",
    ["1", "6.7", "45", "1,000"],
)
guess

# %% tags=["nbval-ignore-output"]
input_share = kit.earlier("input_share")  # of lesson 01, for LN(αx + F)

# %% [markdown] exercise="misplaced_share" difficulty=2 importance=5 minutes=8
# ### α on the wrong side
#
# **Objective**: say what α really scales.
#
# Write `misplaced_share(n, f, alpha)`: the part of the output's variance that is still the input's, after n sub-layers
# $x \leftarrow \mathrm{LN}(x + \alpha F)$ whose branches $F$ each have an independent variance `f`, for a stream of
# variance 1. (With α on the skip it would be lesson 01's `input_share(n, f, alpha)`, which you may call.)
#
# Hint: LN does not see a factor on the *whole* sum. Which factor leaves the branch without one, as in DeepNorm's line?
#
# Hint: What is then on the skip? DeepNorm with *that* number has the share that you look for.


# %% exercise="misplaced_share"
def misplaced_share(n, f, alpha):
    """Part of the variance that is still the input's after n times LN(x + αF): one number from 0 to 1."""
    ### BEGIN SOLUTION
    return (1 / (1 + alpha**2 * f)) ** n
    ### END SOLUTION


# %%
check.misplaced_share(misplaced_share)

# %%
misplaced_share = kit.mine_or_reference(misplaced_share, "misplaced_share")
for layers in (12, 100, 1000):
    constants = deepnorm_constants(decoder_layers=layers).decoder
    alpha, f = constants.alpha, constants.beta**4  # f as in lesson 01, of square matrices
    print(
        f"{layers:5,} layers keep: α on the skip {input_share(2 * layers, f, alpha):.1%}, "
        f"α on the branch {misplaced_share(2 * layers, f, alpha):.2g}; branch too strong by {alpha**2:.1f}"
    )

# %%
guess.compare("45")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# `misplaced_share(1, 1, 2)` is 0.2. At 12 layers 30% of the input is left, at 1,000 layers a hundred-thousandth.
# </details>
#
# **Why it works.** Divide the sum by α, which the norm does not see: $\mathrm{LN}(x + \alpha F) = \mathrm{LN}(x/\alpha + F)$.
# It is DeepNorm's line with 1/α where α should be, so the branch is $\alpha^2 = \sqrt{2M}$ times too strong: the deeper the
# stack, the worse. Only the *ratio* of skip and branch survives the norm. That ratio is what this course is about.

# %% [markdown]
# ## The way back
#
# A norm that hides the size of its input must do something to the gradient. Guess what, before you compute it:

# %%
guess_size = kit.Guess(
    "You multiply the input of a norm by 100. By which factor does the gradient change that reaches this input?",
    ["100", "1", "1/100", "1/10,000"],
)
guess_size

# %% [markdown]
# How a small nudge of $x$ moves the output is in the Jacobian, the matrix $J$ of all
# $\partial\,\mathrm{LN}(x)_i / \partial x_j$. It stretches nudges of some directions more than others. Its **largest
# singular value** is the most that it does: the greatest length that $J$ gives to a nudge of length 1. On the way back
# $J$, transposed, is applied to the gradient, and the most that it stretches is the same number. Leave γ and ε out
# ($\gamma = 1$, $\varepsilon = 0$).

# %% [markdown] exercise="jacobian_gain" difficulty=3 importance=5 minutes=12
# ### The gain of a norm
#
# **Objective**: know by how much a norm stretches or shrinks a gradient.
#
# Write `jacobian_gain(x)` for one token `x` of shape (d,): the largest singular value of LN's Jacobian at $x$, a number.
#
# Hint: LN is three maps: remove the mean, divide by a length, multiply by $\sqrt d$. The first is a projection: it
# stretches nothing.
#
# Hint: A nudge at right angles to $x - \bar x$ does not change that length. It is simply divided by it.


# %% exercise="jacobian_gain"
def jacobian_gain(x):
    """The largest factor by which LN stretches a nudge of x: one number."""
    ### BEGIN SOLUTION
    return sqrt(len(x)) / (x - x.mean()).norm().item()
    ### END SOLUTION


# %%
check.jacobian_gain(jacobian_gain)

# %%
jacobian_gain = kit.mine_or_reference(jacobian_gain, "jacobian_gain")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A token of standard deviation 10 has a gain of 0.1.
# </details>
#
# **Why it works.** Nudge $x$ by $\mathrm dx$. With $c = x - \bar x$ and $\sigma^2 = \overline{c^2}$ (bars are means over
# the features) the centred part moves by $\mathrm dc = \mathrm dx - \overline{\mathrm dx}$, and σ by
# $\mathrm d\sigma = \overline{c\,\mathrm dc}/\sigma = \overline{\hat x\,\mathrm dx}$, because the mean of $\hat x$ is 0. The
# quotient rule gives $\mathrm d\hat x = (\mathrm dc - \hat x\,\mathrm d\sigma)/\sigma$. As a matrix:
#
# $$J = \frac{1}{\sigma}\Big(I - \tfrac1d \mathbf 1 \mathbf 1^\top - \tfrac1d \hat x \hat x^\top\Big), \qquad
# \hat x = \frac{x - \bar x}{\sigma} .$$
#
# Two directions go to zero. Along $\mathbf 1$: a constant added to all features is removed. Along $\hat x$: more of the
# same direction is a longer $x$, and length is hidden. **That zero is scale invariance.** In all other $d - 2$ directions
# it is a division by $\sigma$, nothing else.
#
# ## Theory, then measurement
#
# The next cells send random gradients back through PyTorch's own LN, for inputs from tiny to huge. (A random gradient has
# only $2/d$ of its squared length in the two lost directions, so at $d = 256$ it meets 0.996 of the largest gain.)

# %%
lengths = np.geomspace(1e-4, 1e3, 50) * sqrt(WIDTH)


def measured_gain(length, eps):
    """Length of a gradient at the input of PyTorch's LN over its length at the output, mean over 64 tokens."""
    x = drawn(64, WIDTH)
    x = (x - x.mean(-1, keepdim=True)).requires_grad_()
    scaled = x / x.detach().norm(dim=-1, keepdim=True) * length
    grad = drawn(64, WIDTH)
    (back,) = torch.autograd.grad(torchs_layer_norm(scaled, (WIDTH,), eps=eps), scaled, grad)
    return (back.norm(dim=-1) / grad.norm(dim=-1)).mean().item()


direction = drawn(WIDTH)
direction = (direction - direction.mean()) / (direction - direction.mean()).norm()
theory = np.array([jacobian_gain(direction * length) for length in lengths])
curves = [
    Curve("ε = 0", theory, np.array([measured_gain(length, 0.0) for length in lengths]), lengths),
    Curve("ε = 1e-5, PyTorch's default", None, np.array([measured_gain(length, 1e-5) for length in lengths]), lengths),
]

# %% tags=["headline"]
figure = theory_and_measurement(
    curves,
    xlabel="length of the centred input, ‖x‖",
    ylabel="gradient at the norm's input / at its output",
    log=True,
    log_x=True,
)
figure.axes[0].annotate(
    f"variance 1: length {sqrt(WIDTH):.3g}",
    (sqrt(WIDTH), 1.0),
    xytext=(20, 30),
    textcoords="offset points",
    arrowprops={"arrowstyle": "->"},
)
Picture(
    figure,
    alt="Gain of layer norm on a gradient against the length of its input, both logarithmic. Where the variance is 1 it "
    "is 1. A straight falling line: ten times the input, a tenth of the gradient. Measured points lie on it; with epsilon 1e-5 they level off at about 300 "
    "where the input is tiny.",
)

# %%
ratio, most = (
    curves[0].measured / curves[0].theory,
    sqrt(max(0.0, 1 - 2 / WIDTH)),
)  # two directions of a gradient are lost
kit.finding("measured / theory, at the least and the most", [ratio.min(), ratio.max()], near=most, by=0.02)
kit.finding("with ε = 1e-5 the largest gain; 1/√ε is 316", curves[1].measured.max(), below=317)

# %%
guess_size.compare("1/100")

# %% [markdown]
# **The larger the input, the smaller the gradient**: if $x$ is 100 times as long, a nudge of the same length changes its
# direction by a hundredth. This line is half of DeepNet's story. The paper (Section 3, after Xiong et al.) writes it as
# $\lVert \partial\,\mathrm{LN}(x)/\partial x \rVert = O(\sqrt d / \lVert x \rVert)$: a longer input of a norm makes the
# gradient below the norm smaller. In lesson 05 you will watch that in the first steps of a Post-LN stack.
#
# α makes the norm's input longer, too. Does it make the gradient vanish? There is a second effect, just below the norm,
# where the gradient passes the skip. The next exercise puts the two together.

# %% [markdown] exercise="skip_gradient_factor" difficulty=2 importance=5 minutes=10
# ### The gradient along the skip
#
# **Objective**: say how much of a gradient survives one sub-layer, if it only takes the skip.
#
# A sub-layer is $\mathrm{LN}(\alpha x + F)$, where $x$ has variance 1 and the branch an independent variance $f$. Write
# `skip_gradient_factor(alpha, f)`: the length of a gradient at the sub-layer's input over its length at the output, along
# the skip alone, for wide $d$.
#
# Hint: On its way down it meets the norm first. By which property of the norm's input is it divided there?
#
# Hint: The variance of a sum of independent signals is lesson 01's. And what does a skip that multiplies by α on the way
# up do to a gradient on the way down?


# %% exercise="skip_gradient_factor"
def skip_gradient_factor(alpha, f):
    """Factor on the length of a gradient along the skip of one sub-layer: one number."""
    ### BEGIN SOLUTION
    return alpha / sqrt(alpha**2 + f)
    ### END SOLUTION


# %%
check.skip_gradient_factor(skip_gradient_factor)

# %%
skip_gradient_factor = kit.mine_or_reference(skip_gradient_factor, "skip_gradient_factor")
for layers in (12, 100, 1000):
    constants = deepnorm_constants(decoder_layers=layers).decoder
    ours = skip_gradient_factor(constants.alpha, constants.beta**4) ** (2 * layers)
    post = skip_gradient_factor(1.0, 1.0) ** (2 * layers)
    shown = f"{post:.0e}" if post > 1e-30 else "less than 1e-30"
    print(f"{layers:5,} layers: along the skips DeepNorm {ours:.3f}, Post-LN with f = 1 {shown}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# For α = 1 and f = 1 it is $1/\sqrt 2$: Post-LN halves the gradient's squared length at each sub-layer.
# </details>
#
# **Why it works.** The norm divides by $\sqrt{\alpha^2 + f}$, the skip multiplies by α. Square the quotient:
# $\alpha^2/(\alpha^2 + f)$, the *input share* of lesson 01. So a longer input of the norm does no harm where it is the skip
# that made it longer. What a stack keeps of its
# input on the way up is what the input still hears of the loss on the way down. It is not the whole truth, because a
# gradient also goes through the branches; lesson 04 adds those.
#
# ## By hand
#
# The Jacobian is a (d, d) matrix for each token. No program builds it: the backward pass multiplies by it without writing it
# down. $J$ is symmetric, so the gradient of $x$ is $J g$, where $g = \partial L/\partial\hat x$ is the gradient that arrives at
# $\hat x$. Note that $\tfrac1d \mathbf 1 \mathbf 1^\top g$ is the mean of $g$, in every feature. What is
# $\tfrac1d \hat x \hat x^\top g$?

# %% [markdown] exercise="layer_norm_backward" difficulty=4 importance=5 minutes=20
# ### Layer norm, backward
#
# **Objective**: be able to check any norm's gradient, in any library.
#
# Write `layer_norm_backward(grad_y, x, gamma, eps)`: the gradient of `x` of shape (B, T, d), from the gradient of
# $y = \mathrm{LN}(x)$. No autograd.
#
# Hint: γ was the last to act on the way up, so on the way down it is the first: $g$ = `grad_y * gamma`.
#
# Hint: $J$ takes two projections away from $g$ and divides what is left, with ε inside the root as on the way up. Write
# each projection with a mean over the features, `keepdim=True`, instead of a matrix.


# %% exercise="layer_norm_backward"
def layer_norm_backward(grad_y, x, gamma, eps):
    """(B, T, d) -> (B, T, d): the gradient of x, from that of y."""
    ### BEGIN SOLUTION
    centred = x - x.mean(-1, keepdim=True)
    inverse = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    xhat = centred * inverse
    g = grad_y * gamma
    return inverse * (g - g.mean(-1, keepdim=True) - xhat * (g * xhat).mean(-1, keepdim=True))
    ### END SOLUTION


# %%
check.layer_norm_backward(layer_norm_backward)

# %%
layer_norm_backward = kit.mine_or_reference(layer_norm_backward, "layer_norm_backward")


# %% [markdown]
# <details><summary>What you should see</summary>
#
# A green card. And below, `gradcheck`: PyTorch compares your backward pass with finite differences of your forward pass.
# </details>
#
# **Why it works.** It is the Jacobian from above, and the Jacobian is symmetric: what cannot be seen on the way up (a
# constant, a longer x) cannot be said on the way down.


# %%
class MyLayerNorm(torch.autograd.Function):
    """Your two functions as one operation."""

    @staticmethod
    def forward(ctx, x, gamma, beta, eps):
        ctx.save_for_backward(x, gamma)
        ctx.eps = eps
        return layer_norm(x, gamma, beta, eps)

    @staticmethod
    def backward(ctx, grad_y):
        x, gamma = ctx.saved_tensors
        return layer_norm_backward(grad_y, x, gamma, ctx.eps), None, None, None


small = drawn(2, 3, 5).requires_grad_()
gamma, beta = 1 + 0.4 * drawn(5), drawn(5)
grad = drawn(2, 3, 5)
(theirs,) = torch.autograd.grad(layer_norm(small, gamma, beta, 1e-2), small, grad)
apart = (layer_norm_backward(grad, small.detach(), gamma, 1e-2) - theirs).abs().max()
agrees = torch.autograd.gradcheck(
    lambda x: MyLayerNorm.apply(x, gamma, beta, 1e-2), (small,), eps=1e-3, atol=1e-3, raise_exception=False
)
kit.finding(
    "your backward pass, and autograd's through your forward pass: largest difference",
    apart,
    below=1e-3,
    says="gradcheck agrees",
    holds=agrees,
)
back = layer_norm_backward(drawn(1, 4, WIDTH), x, one, 0.0)
cosine = torch.nn.functional.cosine_similarity(back, x, dim=-1).abs().max()
kit.finding("cosine of a token and its gradient, the largest of four", cosine, below=1e-4)

# %% [markdown]
# The last line is worth a thought: the gradient of $x$ is at right angles to $x$. If $x$ itself were stepped along its gradient, every step would make it *longer*, by
# Pythagoras. The same holds for a matrix whose whole output goes into a norm: its length does not matter to the loss, so
# plain gradient descent can only make it longer, and its gradients smaller.
#
# (`MyLayerNorm` gives no gradients for γ and β. They are sums over tokens, of grad_y · x̂ and of grad_y.)
#
# ## For those who want more

# %% [markdown] exercise="rms_norm" difficulty=1 importance=3 minutes=5
# ### RMSNorm (optional)
#
# **Objective**: know the norm that most language models of today use.
#
# Write `rms_norm(x, gamma, eps)`: each token is divided by the root of the *mean of its squares* plus ε, then multiplied
# by `gamma`. No mean is removed, and there is no bias.
#
# Hint: Start from your `layer_norm`. Which of its steps does the text above leave out?
#
# Hint: Without the mean removed, the mean of the squares takes the place of the variance. ε is inside the root.


# %% exercise="rms_norm"
def rms_norm(x, gamma, eps):
    """(B, T, d) -> (B, T, d): each token to mean square 1, then times gamma."""
    ### BEGIN SOLUTION
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gamma
    ### END SOLUTION


# %%
check.rms_norm(rms_norm)

# %%
rms_norm = kit.mine_or_reference(rms_norm, "rms_norm")
apart = (rms_norm(x - x.mean(-1, keepdim=True), one, 1e-5) - layer_norm(x, one, zero, 1e-5)).abs().max()
kit.finding("difference from LN for tokens of mean 0", apart, below=1e-5)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Its gain is $\sqrt d/\lVert x \rVert$: the same line as in the headline picture, without the mean.
# </details>
#
# **Why it works.** For random features the mean is about $1/\sqrt d$ of the standard deviation, 6% at $d = 256$: removing
# it changes little. What matters, hiding the length, is kept. In this library: `ModelConfig(norm="rms")`.

# %% [markdown]
# ## In three sentences
#
# 1. A norm hides the length of its input, so only the ratio of skip and branch matters; α and β set it.
# 2. On the way back it divides by the standard deviation of its input: where the stream is large the gradient is small.
# 3. Two directions of a gradient are lost at each norm: the constant one, and the one along the input.
#
# **Read next**: the paper's Section 3; Xiong et al. (arXiv 2002.04745), Lemma 3, is the headline picture's line as a
# theorem. Then lesson 03: what do attention and feed-forward do to a signal between the norms?
