# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: Is it only for text?
#     opening: >-
#       Nothing in DeepNorm speaks of words. Cut an image into squares, call each square a token, and an encoder of any depth can
#       read it. This lesson trains one on real handwritten digits and holds it against a method from 1967, which has no weights
#       at all. Will 24 layers beat it?
#     objectives: >-
#       turn an image into tokens, say what a model without positions cannot see, follow a token through the skips of a deep
#       stack, and tell whether one classifier is better than another on a small test set.
#     prerequisites: lessons 03, 06 and 07.
#     minutes: 55
#     paper: Section 3.3 for the constants of an encoder. It has no images. Images as tokens come from arXiv 2010.11929.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0

# %% tags=["imports"]
from math import comb

import numpy as np

# %%
from deepnet_edu.checks import check

kit.setup(SEED, PROFILE)

# %% [markdown] exercise="patches" difficulty=2 importance=5 minutes=10
# ### An image as tokens
#
# **Objective**: cut images into squares, so that an encoder can read them.
#
# Write `patches(images, size)`. `images` is a tensor of shape $(B, C, H, W)$: images, channels, height, width. `size` divides $H$ and $W$. Return
# a tensor of shape $(B, n, C \cdot \mathtt{size}^2)$ with $n = HW/\mathtt{size}^2$ tokens. Squares go row by row, as one reads. Within a token
# all pixels of the first channel come first, row by row, then those of the second.
#
# Hint: Split both sides into (number of squares, size) with one `reshape`: six dimensions. No pixel moves yet.
#
# Hint: Then `permute`, so that both numbers of squares stand in front, and `reshape` once more.


# %% exercise="patches"
def patches(images, size):
    """Images (B, C, H, W) cut into squares: (B, n, C·size²)."""
    ### BEGIN SOLUTION
    B, C, H, W = images.shape
    squares = images.reshape(B, C, H // size, size, W // size, size)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * size * size)
    ### END SOLUTION


# %%
check.patches(patches)

# %%
patches = kit.mine_or_reference(patches, "patches")

# %% [markdown] exercise="blind_to" difficulty=2 importance=5 minutes=12
# ### What can it not see?
#
# **Objective**: know which part of the model tells it where things are.
#
# The model cuts an image into patches of `size` × `size` pixels, maps each to a token, adds a learned position if `positions` is true, and then
# comes an encoder, the mean over tokens, and a head. Every image is changed in one of these ways:
#
# - `"shuffle"`: its patches are put into another order, the same order for all images;
# - `"shuffle each"`: the same, with an order of its own for each image;
# - `"shift by a patch"`, `"shift by a pixel"`: to the right; what leaves comes in again at the left;
# - `"mirror"`: left and right are exchanged; `"transpose"`: rows become columns; `"half turn"`: by 180 degrees;
# - `"negative"`: black becomes white.
#
# Write `blind_to(size, positions)`: the set of those names that leave every output of every such model exactly as it was, whatever its weights. `size`
# may be 1, too.
#
# Hint: Attention and a mean treat tokens as a set. Which changes leave the set of tokens as it is?
#
# Hint: Look inside a patch. Which changes move pixels there, and what if a patch has one pixel?


# %% exercise="blind_to"
def blind_to(size, positions):
    """Names of the changes that no such model can see: a set."""
    ### BEGIN SOLUTION
    if positions:
        return set()
    unseen = {"shuffle", "shuffle each", "shift by a patch"}
    if size == 1:
        unseen = unseen | {"mirror", "transpose", "half turn", "shift by a pixel"}
    return unseen
    ### END SOLUTION


# %%
check.blind_to(blind_to)

# %%
blind_to = kit.mine_or_reference(blind_to, "blind_to")

# %% [markdown] exercise="rollout" difficulty=3 importance=4 minutes=12
# ### Through all layers
#
# **Objective**: follow a token from the top of the stack down to the patches it came from.
#
# Write `rollout(attentions, skips)`. `attentions` is an array of shape $(L, T, T)$, the lowest layer first: row $i$ says how token $i$ divides its
# attention, and sums to 1. `skips` has $L$ numbers from 0 to 1: the share of each layer's output that comes by its skip. Attention has the rest.
# Return an array $(T, T)$ whose row $i$ says from which patches token $i$ of the top comes. Rows sum to 1.
#
# Hint: Write down one layer as a matrix: what of token $i$ stays, and what comes from others?
#
# Hint: A matrix that acts later stands further left.


# %% exercise="rollout"
def rollout(attentions, skips):
    """Where each token at the top comes from: (T, T), rows sum to 1."""
    ### BEGIN SOLUTION
    total = np.eye(len(attentions[0]))
    for attention, skip in zip(attentions, skips, strict=True):
        total = skip * total + (1 - skip) * attention @ total
    return total
    ### END SOLUTION


# %%
check.rollout(rollout)

# %%
rollout = kit.mine_or_reference(rollout, "rollout")

# %% [markdown] exercise="same_quality" difficulty=3 importance=5 minutes=12
# ### Is it better?
#
# **Objective**: compare two classifiers that saw the same images.
#
# `right_a` and `right_b` say, image by image, which of them classifiers a and b got right: two arrays of $n$ truth values. Suppose both are equally
# good. Then, wherever exactly one of them is right, it is a or b with equal probability. Write `same_quality(right_a, right_b)`: the
# probability of a split at least as uneven as the one seen, in either direction. This is McNemar's test in its exact form. Where they never
# differ, return 1.
#
# Hint: Images on which both are right, or both wrong, say nothing. What is left is a fair coin.
#
# Hint: Add up the smaller side's tail with `math.comb`, and remember that there are two tails, and that a probability is at most 1.


# %% exercise="same_quality"
def same_quality(right_a, right_b):
    """Two-sided p-value that both are equally good: one number."""
    ### BEGIN SOLUTION
    only_a = int((right_a & ~right_b).sum())
    only_b = int((right_b & ~right_a).sum())
    n = only_a + only_b
    tail = sum(comb(n, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**n)
    ### END SOLUTION


# %%
check.same_quality(same_quality)

# %%
same_quality = kit.mine_or_reference(same_quality, "same_quality")
