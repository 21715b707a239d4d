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
#       trouble. It is not, because a norm has a way back. This lesson writes both ways by hand, and finds where the
#       gradient of a deep stack is made larger or smaller.
#     objectives: >-
#       write layer normalisation and its backward pass from nothing, say by how much it stretches or shrinks a gradient,
#       and say what α on the skip is equivalent to, and what goes wrong with α on the branch.
#     prerequisites: lesson 01, the chain rule, and what a Jacobian is.
#     minutes: 65
#     paper: Section 3.1, where the input of LN decides how large the gradient is.
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
# (This $\beta$ is LN's bias. It has nothing to do with DeepNorm's β, the gain of weights; the two met by accident.)

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
# **Why it works.** Both means run over the last dimension, so a token never hears of its neighbours. That is why LN
# can be used while text is generated one token at a time, and batch normalisation cannot.
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
    print(f"c = {c:6g}: LN(c·x) and LN(x) agree to 5 digits: {bool(apart < 1e-5)}")

# %% [markdown]
# So it hides *how large* the stream is. It shows only the direction. That has a consequence over which a published
# implementation has stumbled (labml at e6b3c8a; lesson 09). DeepNorm's line is $\mathrm{LN}(\alpha x + F)$. Could α stand elsewhere?

# %% [markdown] exercise="equivalent_branch_scale" difficulty=1 importance=5 minutes=5
# ### Where α may stand
#
# **Objective**: say what α really scales.
#
# Write `equivalent_branch_scale(alpha)`: the number $c$ for which $\mathrm{LN}(\alpha x + F) = \mathrm{LN}(x + c F)$, for
# all $x$ and $F$ (α positive, ε = 0).
#
# Hint: LN does not see a factor on the *whole* sum.
#
# Hint: By which factor must the whole sum be multiplied so that $x$ stands alone? What becomes of $F$?


# %% exercise="equivalent_branch_scale"
def equivalent_branch_scale(alpha):
    """The factor on F that does what alpha does on x: one number."""
    ### BEGIN SOLUTION
    return 1 / alpha
    ### END SOLUTION


# %%
check.equivalent_branch_scale(equivalent_branch_scale)

# %%
equivalent_branch_scale = kit.mine_or_reference(equivalent_branch_scale, "equivalent_branch_scale")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# `equivalent_branch_scale(4)` is 0.25. A larger skip is a smaller branch: behind a norm there is no other difference.
# </details>
#
# **Why it works.** Only the *ratio* of skip and branch survives the norm. That ratio is what this course is about.

# %%
guess = kit.Guess(
    "Somebody puts DeepNorm's α for 1,000 layers, 6.69, on the branch: LN(x + α·F). By what factor is it too strong?",
    ["6.7", "45", "1,000"],
)
guess

# %%
alpha = deepnorm_constants(decoder_layers=1000).decoder.alpha
wanted = equivalent_branch_scale(alpha)
print(f"wanted: {wanted:.3f} of F; written: {alpha:.2f} of F; too strong by {alpha / wanted:.0f}")

# %%
guess.compare("45")

# %% [markdown]
# ## The way back
#
# A norm that hides the size of its input must do something to the gradient. If $x$ is twice as long, a nudge of the same
# length turns it half as far. So **the larger the input, the smaller the gradient**. How much exactly is in the Jacobian,
# the matrix of all $\partial\,\mathrm{LN}(x)_i / \partial x_j$. Its largest singular value is the most that any gradient
# is stretched. Leave γ and ε out ($\gamma = 1$, $\varepsilon = 0$).

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
# ## Predict, then measure
#
# The next cells send random gradients back through PyTorch's own LN, for inputs from tiny to huge. (A random gradient has
# only 2/256 of its squared length in the two lost directions, so it meets 0.996 of the largest gain.)

# %%
guess_size = kit.Guess(
    "You multiply the input of a norm by 100. The gradient that reaches that input becomes",
    ["100 times as large", "the same, LN is scale invariant", "100 times smaller", "10,000 times smaller"],
)
guess_size

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
Picture(
    theory_and_measurement(
        curves,
        xlabel="length of the centred input, ‖x‖ (variance 1 is 16)",
        ylabel="gradient at the norm's input / at its output",
        log=True,
        log_x=True,
    ),
    alt="Gain of layer norm on a gradient against the length of its input, both logarithmic. At length 16, variance 1, it "
    "is 1. A straight falling line: ten times the input, a tenth of the gradient. Measured points lie on it; with epsilon 1e-5 they level off at about 300 "
    "where the input is tiny.",
)

# %%
away = np.abs(curves[0].measured / curves[0].theory - 1).max()
print("measured within 2% of √d/‖x‖ at all lengths:", bool(away < 0.02))
print(f"with ε = 1e-5 the gain never exceeds 1/√ε = {1 / sqrt(1e-5):.0f}:", bool(curves[1].measured.max() < 317))

# %%
guess_size.compare("100 times smaller")

# %% [markdown]
# This line is half of DeepNet's story. The paper (Section 3.1, after Xiong et al.) writes it as
# $\lVert \partial\,\mathrm{LN}(x)/\partial x \rVert = O(\sqrt d / \lVert x \rVert)$: whoever lets the input of a norm grow
# makes the gradient below it vanish. In lesson 05 you will watch exactly that happen to a Post-LN stack in its first
# steps.
#
# Does α, which makes the norm's input longer, kill the gradient then? No. The norm divides the gradient by
# $\sqrt{\alpha^2 + f}$, and just below it the skip multiplies by α again. The next exercise puts the two together.

# %% [markdown] exercise="skip_gradient_factor" difficulty=3 importance=5 minutes=10
# ### The gradient along the skip
#
# **Objective**: say how much of a gradient survives one sub-layer, if it only takes the skip.
#
# A sub-layer is $\mathrm{LN}(\alpha x + F)$, where $x$ has variance 1 and the branch an independent variance $f$. Write
# `skip_gradient_factor(alpha, f)`: the length of a gradient at the sub-layer's input over its length at the output, along
# the skip alone, for wide $d$.
#
# Hint: On its way down it meets the norm first. What is the standard deviation of the norm's input?
#
# Hint: Then it meets the factor α.


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
# **Why it works.** Square it: $\alpha^2/(\alpha^2 + f)$, the *input share* of lesson 01. What a stack still knows of its
# input on the way up is what the input still hears of the loss on the way down. It is not the whole truth, because a
# gradient also goes through the branches; lesson 04 adds those.
#
# ## By hand
#
# The Jacobian is a (d, d) matrix for each token. Nobody builds it: the backward pass multiplies by it without writing it
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
agrees = torch.autograd.gradcheck(lambda x: MyLayerNorm.apply(x, gamma, beta, 1e-2), (small,), eps=1e-3, atol=1e-3)
print("your backward pass is the derivative of your forward pass:", agrees)

back = layer_norm_backward(drawn(1, 4, WIDTH), x, one, 0.0)
print("the gradient of x is at right angles to x:", bool((back * x).sum(-1).abs().max() < 1e-3))

# %% [markdown]
# The last line is worth a thought. If $x$ itself were stepped along its gradient, every step would make it *longer*, by
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
# Hint: Which two lines of `layer_norm` go?
#
# Hint: `x.square().mean(-1, keepdim=True)`.


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
print("the same as LN for a token of mean 0:", bool(apart < 1e-5))

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
# **Read next**: the paper's Section 3.1; Xiong et al. (arXiv 2002.04745), Lemma 3, is the headline picture's line as a
# theorem. Then lesson 03: what do attention and feed-forward do to a signal between the norms?
