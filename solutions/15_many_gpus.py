# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   lesson:
#     question: What if it does not fit?
#     opening: >-
#       The paper's largest model has 1,000 layers and 3.8 billion weights. Lesson 11 counted 16 bytes for each of them, so it
#       takes 61 GB before the first token is read, and most GPUs have less. This lesson cuts such a model into pieces, in
#       three ways, says why a fourth does not suit it, and counts what each GPU holds, what it sends, and how long it waits.
#       No GPU is needed: two processes on your own machine play two of them.
#     objectives: >-
#       train one model in several processes and prove that it is the same model, say what each GPU holds under copies,
#       shards and stages, put the work of a pipeline in order, and choose a plan with reasons.
#     prerequisites: lesson 11, and from lesson 10 why each answer counts once.
#     minutes: 70
#     paper: Section 6, whose models were trained on many GPUs. It does not say how they were cut.
# ---

# %% tags=["parameters"]
from deepnet_edu.course import kit

PROFILE = kit.profile()
SEED = 0
DEPTH = 0  # layers of the pipeline that is measured; 0: what the profile says

# %%
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# %% tags=["imports"]
import torch

# %%
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from deepnet_edu import ModelConfig, build_model
from deepnet_edu.checks import check
from deepnet_edu.explorers import PlansExplorer
from deepnet_edu.figures import Picture
from deepnet_edu.figures.plans import memory_against_ranks, pipeline_timelines
from deepnet_edu.model import Mode
from deepnet_edu.planning import (
    SHAPES,
    Action,
    Plan,
    Slot,
    count_parameters,
    in_time,
    length,
    rank_memory,
    rank_traffic,
    timeline,
)

kit.setup(SEED, PROFILE)
smoke = PROFILE == "smoke"
depth = DEPTH or (8 if smoke else 64)

# %% [markdown]
# ## One GPU is full

# %%
PAPER = SHAPES["deepnet_1000"]  # 500 encoder and 500 decoder layers of width 512, with an inferred vocabulary
weights = count_parameters(PAPER)["all"]
print(f"{weights / 1e9:.2f} billion weights × 16 bytes = {16 * weights / 1e9:.0f} GB, and no activations yet")

# %% [markdown]
# Buy seven more GPUs. Each can do the same work, so the obvious thing is to give each a copy of the model and an eighth of the
# batch.

# %%
guess_size = kit.Guess(
    "Eight GPUs, a copy of the model on each. How much larger may the model be than on one GPU?",
    ["8 times as large", "3 times as large", "no larger"],
)
guess_size

# %% [markdown]
# ## Copies
#
# A process that drives one GPU is called a [rank](glossary.md), and ranks are numbered from 0. All of them start from the same
# weights, and each draws the same batch from the same random generator. Then each takes its own rows.

# %% [markdown] exercise="my_rows" difficulty=2 importance=4 minutes=8
# ### Whose rows are mine?
#
# **Objective**: share a batch out, so that nothing is lost and nothing is done twice.
#
# Write `my_rows(batch_size, rank, ranks)`: the numbers of the rows (from 0) that belong to this rank. Each row belongs to
# exactly one rank, and no rank has more than one row more than another. Any order will do: every third row, or one run of
# rows after the other.
#
# Hint: 10 rows on 3 ranks: one rank has to take a fourth row. With `batch_size // ranks` rows for each, one row is lost. With
# one more for each, the last rank has too few: try 9 rows on 4 ranks.
#
# Hint: How are cards dealt? Write down which of 10 rows the second of 3 players gets.


# %% exercise="my_rows"
def my_rows(batch_size, rank, ranks):
    """Rows of the batch that belong to this rank: whole numbers."""
    ### BEGIN SOLUTION
    return range(rank, batch_size, ranks)
    ### END SOLUTION


# %%
check.my_rows(my_rows)

# %%
my_rows = kit.mine_or_reference(my_rows, "my_rows")
shares = [len(my_rows(10, rank, 3)) for rank in range(3)]
print(f"10 rows on 3 ranks: {sorted(shares, reverse=True)}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 4, 3 and 3 rows. Dealt out like cards it is one line, and it comes out even without any special case.
# </details>
#
# **Why it works.** No rank asks another which rows it may have. Each computes its own share from three numbers that all of them
# know. A rule without messages cannot go wrong on the way.
#
# Each rank now runs forward and backward on its rows, and has a gradient. Before the step all ranks add their gradients up, and
# each receives the sum. This is an [all-reduce](glossary.md). PyTorch's `DistributedDataParallel`, DDP for short, hides it in
# `loss.backward()`: a gradient is sent off while the layers below are still at work on theirs. And then it divides by
# the number of ranks, so that what arrives is the **mean of the ranks' gradients**.
#
# Remember lesson 10. A mean of means is not the mean. If one rank has 3 answers and another has 30, then DDP's mean counts each
# answer of the first ten times as much. The loss has to make up for it.

# %% [markdown] exercise="share_loss" difficulty=3 importance=5 minutes=10
# ### A loss for one share
#
# **Objective**: make the mean of the ranks' gradients the gradient of the whole batch.
#
# Write `share_loss(losses, all_answers, ranks)`. `losses` is a tensor (n,), the losses of this rank's n answers. `all_answers` is
# the number of answers of all ranks together. Return a tensor without dimensions, such that the **mean** of it over the ranks is
# the mean loss of all answers. A rank may have no answer at all (n = 0); its number, too, must be computed from `losses`, since
# the other ranks wait for its backward pass.
#
# Hint: Write down what you want: all losses of all ranks added up, over `all_answers`. Which part of that sum is yours?
#
# Hint: DDP adds up, and then divides by `ranks`. What has to be done to your part, so that after this division the sum is
# still what you wanted?


# %% exercise="share_loss"
def share_loss(losses, all_answers, ranks):
    """What a rank calls backward on; its mean over the ranks is the mean over all answers: a tensor ()."""
    ### BEGIN SOLUTION
    return losses.sum() * ranks / all_answers
    ### END SOLUTION


# %%
check.share_loss(share_loss)

# %%
share_loss = kit.mine_or_reference(share_loss, "share_loss")
losses = [torch.tensor([3.0, 5.0]), torch.tensor([1.0] * 6)]
print(f"all answers: {torch.cat(losses).mean():.2f}")
print(f"mean of your two numbers: {sum(share_loss(mine, 8, 2) for mine in losses) / 2:.2f}")
print(f"mean of means: {sum(mine.mean() for mine in losses) / 2:.2f}")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 1.75 twice, and 2.50 for the mean of means.
# </details>
#
# **Why it works.** The gradient is linear: what holds for losses holds for their gradients. And an empty sum is 0, where an empty
# mean is not a number.
#
# ## Two processes
#
# Is it the same model, then? Let us train it and see. Everything below is ordinary PyTorch. `torchrun` starts a script in
# several processes and tells each its rank through environment variables. Here the script is made of the functions of this
# notebook, yours among them. The model is small, in float64, and the sequences have unequal numbers of answers. It is trained
# twice: once with your loss, and once with what many people write, `losses.mean()` on each rank.

# %%
guess_mean = kit.Guess(
    "Each rank calls backward on the mean of its own answers. What do you get?",
    ["the same model", "another model, and an error", "another model, and no error"],
)
guess_mean

# %% [markdown]
# Starting processes takes longer than what they do. So they get two more tasks on the way, which the second half
# of the lesson comes back to: they **shard** the model, and they run one as a **pipeline**. (Under the profile `gpu`, on a
# machine that has two GPUs, each process drives one.)


# %%
def small_model():
    """The same on each rank: 4 DeepNorm layers in float64."""
    config = ModelConfig("decoder", "lm", 4, d_model=16, n_heads=2, d_ff=64, vocab_size=16, max_length=16)
    model = build_model(config, seed=0).double()
    model.mode = Mode(path="plain")  # the layers one by one, as DDP and FSDP want to see them
    return model


def batch(step):
    """8 sequences of the map y = 5x + 3 mod 16, with 2 to 16 answers each; -100 where none is wanted."""
    draw = torch.Generator().manual_seed(step)
    inputs = torch.randint(16, (8, 16), generator=draw)
    answers = torch.randint(2, 17, (8, 1), generator=draw)
    return inputs, ((5 * inputs + 3) % 16).masked_fill(torch.arange(16) >= answers, -100)


def own_mean(losses, all_answers, ranks):
    """What many people write, on each rank."""
    return losses.mean()


def train_share(model, loss_of_share, rank, ranks):
    """Ten steps of AdamW on this rank's rows."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    device = next(model.parameters()).device
    for step in range(10):
        inputs, targets = (tensor.to(device) for tensor in batch(step))
        mine = [int(row) for row in my_rows(len(inputs), rank, ranks)]
        wanted = targets[mine] != -100
        losses = F.cross_entropy(model(inputs[mine])[wanted], targets[mine][wanted], reduction="none")
        loss = loss_of_share(losses, int((targets != -100).sum()), ranks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def copies_and_shards(folder, rank, ranks, device):
    """Train in three ways; rank 0 writes the weights, each rank returns how many bytes of them it holds."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (ranks,))  # the ranks as a grid, here one row: shards are dealt out along it
    held = {}
    for name, loss_of_share in (("copies", share_loss), ("own_mean", own_mean), ("shards", share_loss)):
        model = small_model().to(device)
        if name == "shards":
            for layer in model.stacks()["decoder"].layers:
                fully_shard(layer, mesh=mesh)
            parallel = fully_shard(model, mesh=mesh)
        else:
            parallel = nn.parallel.DistributedDataParallel(model)
        train_share(parallel, loss_of_share, rank, ranks)
        whole = {}
        for key, parameter in model.named_parameters():
            own = parameter.to_local() if name == "shards" else parameter
            held[name] = held.get(name, 0) + own.numel() * own.element_size()
            whole[key] = (parameter.full_tensor() if name == "shards" else parameter).detach().cpu().contiguous()
        if rank == 0:
            save_file(whole, f"{folder}/{name}.safetensors")
    return held


# %% [markdown]
# And the pipeline: rank 0 has the embedding and the lower half of the layers, rank 1 the upper half and the head.
# `PipelineStage` and `Schedule1F1B` are PyTorch's (1F1B is an order of work; you will write it below). All that is added here
# is a clock around each piece of work. The next two cells are folded: the pipeline, and how the script is put together and
# started.


# %% tags=["hide-input"]
def half(model, rank):
    """Half of a decoder: tokens to stream on rank 0, stream to logits on rank 1."""
    layers = model.stacks()["decoder"].layers
    middle = len(layers) // 2

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = model.embeddings()[0] if rank == 0 else None
            self.layers = layers[:middle] if rank == 0 else layers[middle:]
            self.head = model.head if rank == 1 else None

        def forward(self, x):
            state = (self.embedding(x, None) if self.embedding else x,)
            for layer in self.layers:
                state = layer(state)
            return self.head(state[0]) if self.head else state[0]

    return Half()


def pipeline(depth, microbatches, rank, device):
    """Steps of a pipeline of two ranks: what this rank did, in order, with the seconds when it began and ended."""
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B

    tokens = 16 if depth < 32 else 64
    config = ModelConfig("decoder", "lm", depth, d_model=64, n_heads=4, d_ff=256, vocab_size=128, max_length=tokens)
    stage = PipelineStage(half(build_model(config, seed=0), rank).to(device), rank, 2, device)
    done = []

    def now():
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.time()

    def timed(name, work):
        def run(piece, *arguments, **more):
            begin = now()
            result = work(piece, *arguments, **more)
            done.append((f"{name}{piece}", begin, now()))
            return result

        return run

    stage.forward_one_chunk = timed("F", stage.forward_one_chunk)
    stage.backward_one_chunk = timed("B", stage.backward_one_chunk)
    schedule = Schedule1F1B(stage, microbatches, loss_fn=lambda y, wanted: F.cross_entropy(y.mT, wanted))
    inputs = torch.randint(128, (4 * microbatches, tokens), generator=torch.Generator().manual_seed(0)).to(device)
    steps = []
    for _ in range(2 if depth < 32 else 10):
        dist.barrier()
        done.clear()
        schedule.step(inputs) if rank == 0 else schedule.step(target=inputs)
        steps.append(list(done))
    return steps[1:]  # the first one was for warming up


def both_tasks(folder, depth, gpus):
    """What each of the two processes does."""
    torch.set_num_threads(1)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])  # from torchrun
    device = torch.device("cuda", rank) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpus else "gloo")
    found = {"held": copies_and_shards(folder, rank, ranks, device)}
    found["pipeline"] = {m: pipeline(depth, m, rank, device) for m in (2, 4, 8)}
    Path(f"{folder}/rank{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


# %% tags=["hide-input"]
HEAD = """import json
import math
import os
import sys
import time
from math import *
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from deepnet_edu import ModelConfig, build_model
from deepnet_edu.model import Mode
"""
PARTS = [small_model, batch, own_mean, train_share, copies_and_shards, half, pipeline, both_tasks]
script = "\n\n".join(
    [
        HEAD,
        *map(kit.shipped, ("my_rows", "share_loss")),
        *map(inspect.getsource, PARTS),
        "both_tasks(sys.argv[1], int(sys.argv[2]), sys.argv[3] == 'GPUs')\n",
    ]
)
real = PROFILE in ("gpu", "record") and torch.cuda.device_count() >= 2
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "two_ranks.py")
    file.write_text(script, encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ran = subprocess.run(
        [*torchrun, str(file), folder, str(depth), "GPUs" if real else "CPU"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if ran.returncode:  # the ranks' own words; torchrun's table of which rank failed comes after them
        words = [line for line in ran.stderr.splitlines() if line.startswith("[rank")]
        raise RuntimeError("\n".join(words[-30:]) or ran.stderr[-2000:])
    ranks = [json.loads(Path(folder, f"rank{rank}.json").read_text()) for rank in range(2)]
    trained = {name: load_file(f"{folder}/{name}.safetensors") for name in ("copies", "own_mean", "shards")}

# %% [markdown]
# On a command line that is `torchrun --standalone --nproc-per-node=2 two_ranks.py FOLDER 64 CPU`; the last three words are the
# script's own. Now the same ten steps in this process, alone, with the whole batch.

# %%
alone = small_model()
train_share(alone, share_loss, rank=0, ranks=1)
apart = {
    name: max((state[key] - value).abs().max().item() for key, value in alone.named_parameters())
    for name, state in trained.items()
}
print("largest difference of any weight from one process alone, after ten steps:")
kit.finding("your loss, on two ranks", {name: apart[name] for name in ("copies", "shards")}, below=1e-10)
kit.finding("the mean of each rank's own answers, on two ranks", {"copies": apart["own_mean"]}, above=1e-6)

# %%
guess_mean.compare("another model, and no error")

# %% [markdown]
# The copies are the same model up to rounding, which depends on the order of summation. The mean
# of means is another model. It trains too, without any error or warning.
#
# ## What does a copy cost?
#
# At each step the gradient of every weight, four bytes, has to be summed over all ranks. How? If every rank sent its gradient to
# every other, $D$ ranks would send $D(D-1)$ gradients. A *ring* does better. Each rank cuts its gradient into $D$ pieces and
# talks to its right neighbour only. After $D - 1$ steps each rank has one piece that is fully summed. After $D - 1$ more, the sums
# have gone round. (You can write this ring in the second of the further rooms.) So each rank sends
#
# $$\frac{2(D-1)}{D} \times \text{the bytes of the gradient},$$
#
# nearly two gradients, for any number of ranks.

# %%
for n in (2, 8, 64):
    sent = rank_traffic(PAPER, 128, 64, data=n)[0].gradients
    print(f"{n:2} copies of the paper's model: each rank sends {sent / 1e9:.1f} GB a step")
guess_size.compare("no larger")

# %% [markdown]
# That is what it costs in time. And in memory? Every copy holds all weights, all gradients, all of Adam's averages. (DDP
# even keeps the gradients twice: once for the optimizer, and once in *buckets*, long tensors into which it copies many small
# gradients so that it sends a few large messages, not thousands of small ones.) Copies make training faster. They
# make no model possible that was not possible before.
#
# ## Shards
#
# Look at what the ranks hold twice. Adam's averages are needed once a step, by the update. Gradients are needed, summed, by the
# update. Weights are needed by a layer while it is at work, and by nothing else. So cut each into $D$ *shards*, and let
# each rank keep one. Rajbhandari et al. (arXiv 1910.02054) do so in three stages, and call it **ZeRO**, for Zero Redundancy
# Optimizer:
#
# | stage | a rank keeps its shard of |
# |---|---|
# | 0 | nothing: copies |
# | 1 | Adam's averages, 8 bytes a weight |
# | 2 | … and the gradients, 4 bytes |
# | 3 | … and the weights, 4 bytes |
#
# At stage 3 a rank has to ask for a layer's weights before it can use them: all ranks send their shards round (an *all-gather*),
# the layer runs, and the others' weights are thrown away. This happens on the way up, and again on the way down. In PyTorch
# it is `fully_shard`, known as FSDP (fully sharded data parallel).

# %% [markdown] exercise="bytes_per_rank" difficulty=2 importance=5 minutes=8
# ### What a rank keeps
#
# **Objective**: know before the run whether a model fits.
#
# Write `bytes_per_rank(parameters, ranks, stage)`: bytes of weights, gradients and Adam's two averages on each rank, in
# float32, at ZeRO's stage 0, 1, 2 or 3. It need not be a whole number: do not round. (ZeRO's paper counts 2 + 2 + 12 bytes:
# weights and gradients in 16 bits, and 12 for a float32 copy of the weights with Adam's averages. Ours are 4 + 4 + 8. Both
# make 16, and they differ from stage 1 on, which divides 12 bytes there and 8 here.)
#
# Hint: Take three terms, one for each row of the table. At stage 1 one of them is divided by `ranks`. And at stage 2?
#
# Hint: Each stage divides all that the stage before it divides, and one term more.


# %% exercise="bytes_per_rank"
def bytes_per_rank(parameters, ranks, stage):
    """Bytes of weights, gradients and averages on each rank: one number."""
    ### BEGIN SOLUTION
    weights, gradients, averages = 4 * parameters, 4 * parameters, 8 * parameters
    if stage >= 1:
        averages /= ranks
    if stage >= 2:
        gradients /= ranks
    if stage >= 3:
        weights /= ranks
    return weights + gradients + averages
    ### END SOLUTION


# %%
check.bytes_per_rank(bytes_per_rank)

# %%
bytes_per_rank = kit.mine_or_reference(bytes_per_rank, "bytes_per_rank")
for stage in range(4):
    row = [f"{bytes_per_rank(weights, n, stage) / 1e9:5.1f}" for n in (1, 8, 64)]
    print(f"the paper's model, stage {stage}: {' '.join(row)} GB on each of 1, 8, 64 ranks")
part = [rank["held"]["shards"] / rank["held"]["copies"] for rank in ranks]
kit.finding("our two processes: bytes of weights on each rank, as shards over as copies", part, near=0.5)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 60.9 GB on one rank, at each stage. On 64 ranks stage 3 leaves 1.0 GB, and stage 0 all of it.
# </details>
#
# **Why it works.** Stages 1 and 2 stop at the 8 and the 4 bytes that they do not divide. Stage 3 divides everything that lasts. Its
# price is a third transfer. An all-reduce is a *reduce-scatter* (each rank ends with its shard of the sum) and an all-gather, one
# gradient's bytes each. Stage 3 gathers weights twice and reduce-scatters gradients once: three where copies send two. (Nearly:
# PyTorch keeps embedding and head whole between the two passes, so they are gathered once.)
#
# What none of them divides are activations. Each rank keeps those of its own rows.

# %%
copies, shards = (rank_traffic(PAPER, 128, 64, **{kind: 8})[0].total for kind in ("data", "shard"))
print(f"8 GPUs: a rank sends {copies / 1e9:.1f} GB a step with copies, {shards / 1e9:.1f} GB with shards")
kit.finding("shards over copies", shards / copies, near=1.5, by=0.03)

# %% [markdown]
# ## Stages
#
# A thousand layers offer another cut. Give the first 125 layers to the first of 8 GPUs, the next 125 to the second, and so on.
# What has to be sent? Only the stream, at seven places, and its gradient on the way down; in the decoder, the encoder's output
# as well. In the paper's model that is 512 or 1,024 numbers a token, where a layer has three or four million weights.

# %%
stream = max(rank.total for rank in rank_traffic(PAPER, 128, 64, pipeline=8))
print(f"8 stages: a rank sends {stream / 1e9:.2f} GB a step, {shards / stream:,.0f} times less than a shard")

# %% [markdown]
# There is a fourth cut, through the layers: **tensor parallelism** (Shoeybi et al., arXiv 1909.08053). Each rank takes some of
# a layer's heads, and some columns of its feed-forward matrices. **Sequence parallelism** (Korthikanti et al., arXiv
# 2205.05198) goes with it: each rank takes some of the tokens where every feature of a token is needed, in norms and sums. So
# no rank has a whole layer, and very wide models are trained in this way. But the ranks of such a cut have to add up the whole
# stream after every branch, forward and backward, before the next branch can begin.

# %%
branches = 2 * PAPER.encoder_layers + 3 * PAPER.decoder_layers
stream_bytes = 4 * 128 * 64 * PAPER.d_model
inside = branches * 2 * (2 * 7 / 8) * stream_bytes  # an all-reduce forward and one backward, in a ring of 8
print(
    f"{branches:,} branches on 8 ranks: each sends {inside / 1e9:.0f} GB a step in {2 * branches:,} all-reduces,",
    end=" ",
)
print(f"{inside / shards:.1f} times as much as with shards")
print(f"each rank has {PAPER.n_heads // 8} head of width {PAPER.d_model // PAPER.n_heads} in every layer")

# %% [markdown]
# A branch computes a multiple of tokens · $d^2$ operations and sends tokens · $d$ numbers. So the narrower a model is, the more it
# sends for what it computes, and the smaller its products become (lesson 11). A deep and narrow model has much to send and
# little to cut: it gains nothing here. Its layers are small, and there are many of them: **cut between layers, not through
# them**.
#
# Here is the trouble with stages: a layer cannot start before the one below has finished. With one batch
# and four GPUs, one works and three wait.

# %%
slots = timeline("1f1b", 4, 1)
Picture(
    pipeline_timelines({"one batch, four ranks": slots}),
    alt="Timeline of four ranks and one batch. Forward boxes form a staircase down from rank 0 to rank 3, backward boxes, twice "
    "as long, a staircase back up. At each moment one rank works and three wait.",
)

# %% [markdown]
# (A backward pass has twice the products of a forward pass, so it is drawn twice as long.) The cure is to cut the batch into
# [micro-batches](glossary.md#micro-batch). As soon as the first one has left rank 0, rank 0 begins with the second. Huang et al. (arXiv
# 1811.06965) called it **GPipe**. What is left of the waiting is the [bubble](glossary.md).

# %%
guess_wait = kit.Guess(
    "4 ranks, 8 micro-batches. How much longer does the step take than if no rank ever waited?",
    ["not longer", "3/8 longer", "3/4 longer", "4 times as long"],
)
guess_wait

# %%
Picture(
    pipeline_timelines({"GPipe, 4 ranks, 8 micro-batches": timeline("gpipe", 4, 8)}),
    alt="Timeline of GPipe: each rank runs eight forward passes, one after the other, shifted by one for each rank; then all "
    "backward passes, from rank 3 up to rank 0. Rank 0 waits nine units between, rank 3 waits three at the start and six "
    "at the end.",
)

# %% [markdown] exercise="bubble_share" difficulty=2 importance=5 minutes=8
# ### The bubble
#
# **Objective**: say how long a pipeline waits, before it is built.
#
# Write `bubble_share(ranks, microbatches, chunks=1)`: the time that a rank waits, over the time that it works. Count in the
# picture first. With `chunks` = 2 each rank has two stages, of half as many layers each: then the first micro-batch
# reaches the last rank after half the time, and each wait is half as long.
#
# Hint: Rank 0 works 8 × (1 + 2) units. How long is the empty space between its forward and its backward boxes? It does not
# depend on how many micro-batches there are.
#
# Hint: The space is 3 units, forward and backward, for each of the other ranks. What do chunks change: the waiting, or the work?


# %% exercise="bubble_share"
def bubble_share(ranks, microbatches, chunks=1):
    """Waiting over working: one number."""
    ### BEGIN SOLUTION
    return (ranks - 1) / (microbatches * chunks)
    ### END SOLUTION


# %%
check.bubble_share(bubble_share)

# %%
bubble_share = kit.mine_or_reference(bubble_share, "bubble_share")
agree = []
for schedule, chunks in (("gpipe", 1), ("1f1b", 1), ("interleaved", 2)):
    for p, m in ((2, 4), (4, 8), (8, 16)):
        agree.append(length(timeline(schedule, p, m)) / (3 * m) - 1 - bubble_share(p, m, chunks))
kit.finding("nine timelines, box by box: waiting over working, minus your formula", agree, near=0, by=1e-9)
print(f"4 ranks: {', '.join(f'm = {m}: {bubble_share(4, m):.1%}' for m in (1, 4, 8, 32))}")
guess_wait.compare("3/8 longer")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# $(p-1)/m$, with $p$ ranks and $m$ micro-batches: 3/8, and 3/16 with two chunks.
# </details>
#
# **Why it works.** The pipeline fills once and drains once, however much flows through it. So take many micro-batches, at least
# four for each rank. What is against it? They become small, and small products are slow (lesson 11). And with GPipe each of them
# has to keep its activations until all have gone forward.
#
# ## One forward, one backward
#
# Look at the picture again. Rank 3 has finished micro-batch 0 at time 4, and could send it back at once. Instead it
# waits until time 11. Harlap et al. (PipeDream, arXiv 1806.03377) let it go: *one forward, one backward*, **1F1B** for short.
# Their pipeline never drains: the next batch enters while this one is on its way, so stages work with weights of several
# ages. Here every rank finishes the batch before the weights change, a *flush*. That is PipeDream-Flush (Narayanan et al.,
# arXiv 2006.09503, and arXiv 2104.04473, Section 2.2), and it computes what one GPU would.

# %%
guess_order = kit.Guess(
    "Each micro-batch goes backward as soon as it can. What gets smaller?", ["time", "memory", "both", "neither"]
)
guess_order

# %% [markdown] exercise="one_forward_one_backward" difficulty=4 importance=5 minutes=15
# ### One forward, one backward
#
# **Objective**: write the order of work that large models are trained with.
#
# Write `one_forward_one_backward(rank, ranks, microbatches)`: a list of words. `"F0"` is the forward pass of micro-batch 0 on
# this rank, `"B0"` its backward pass; both count from 0. Three parts:
#
# 1. *Fill.* As many forward passes as there are ranks after this one (the last is rank `ranks - 1`, which has the head), but
#    no more than there are micro-batches.
# 2. *Steady.* A forward pass, a backward pass, and so on in turn, until all micro-batches have gone forward. The oldest goes
#    backward first.
# 3. *Drain.* The backward passes that are left.
#
# Rank 1 of 3 with 4 micro-batches: F0, F1 B0, F2 B1, F3 B2, B3.
#
# Hint: The last rank fills with nothing: F0 B0 F1 B1 …. How many ranks come after rank `rank`?
#
# Hint: After the fill, which forward pass is next, and which backward pass? How many such pairs are there before all
# micro-batches have gone forward?


# %% exercise="one_forward_one_backward"
def one_forward_one_backward(rank, ranks, microbatches):
    """What this rank does, in order: a list such as ["F0", "F1", "B0", "B1"]."""
    ### BEGIN SOLUTION
    ahead = min(ranks - 1 - rank, microbatches)
    order = [f"F{i}" for i in range(ahead)]
    for i in range(microbatches - ahead):
        order += [f"F{ahead + i}", f"B{i}"]
    return order + [f"B{i}" for i in range(microbatches - ahead, microbatches)]
    ### END SOLUTION


# %%
check.one_forward_one_backward(one_forward_one_backward)

# %%
one_forward_one_backward = kit.mine_or_reference(one_forward_one_backward, "one_forward_one_backward")


def action(word, rank):
    """ "B3" on rank 1 → backward, stage 1, micro-batch 3."""
    return Action(word[0] == "B", rank, int(word[1:]))


mine = in_time([[action(word, rank) for word in one_forward_one_backward(rank, 4, 8)] for rank in range(4)])
panels = {
    "GPipe": timeline("gpipe", 4, 8),
    "1F1B, your order": mine,
    "Interleaved, two stages on each rank": timeline("interleaved", 4, 8),
}
Picture(
    pipeline_timelines(panels),
    alt="Three timelines of 4 ranks and 8 micro-batches on one axis of time. GPipe and 1F1B end at the same time, 33. In 1F1B "
    "backward boxes begin much earlier and alternate with forward ones. Interleaved, with boxes half as long, ends at 28.5.",
)

# %%
kit.finding("time of 1F1B over time of GPipe", length(mine) / length(panels["GPipe"]), near=1)
print("units of time:", ", ".join(f"{name.split(',')[0]} {length(slots):g}" for name, slots in panels.items()))
guess_order.compare("memory")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Rank 3: F0 B0 F1 B1 …. Rank 0 of four: F0 F1 F2, then F3 B0, F4 B1, …. Both timelines end at 33.
# </details>
#
# **Why it works.** The bubble is the time to fill and to drain, and neither has changed. But a micro-batch's activations
# are kept from its F to its B. Under GPipe all eight are kept at the worst moment. Under 1F1B rank 0 keeps four, as many as there
# are ranks, and the last rank one. So the number of micro-batches no longer costs memory, and it can be made large: *that* is
# how the bubble gets small.
#
# **Interleaved**, the third panel, is the same idea with two stages on each rank (Narayanan et al., arXiv 2104.04473). Rank 0 has
# the first eighth of the layers and the fifth. Half the bubble, about twice the messages, and again more activations.
#
# ## Measured
#
# Our two processes ran such a pipeline with PyTorch's own schedule, and wrote down what they did. Is it your order?

# %%
orders = [[[word for word, _, _ in rank["pipeline"][str(m)][0]] for rank in ranks] for m in (2, 4, 8)]
expected = [[one_forward_one_backward(rank, 2, m) for rank in range(2)] for m in (2, 4, 8)]
other = [
    sum(one != two for did, said in zip(ran, wanted, strict=True) for one, two in zip(did, said, strict=True))
    for ran, wanted in zip(orders, expected, strict=True)
]
kit.finding("passes of both ranks that are not where your list has them, for 2, 4 and 8 micro-batches", other, near=0)


# %% tags=["nbval-ignore-output"]
def measured(m):
    """The slots of both ranks in the step of median length, in milliseconds from the first one on."""
    steps = []
    for both in zip(*(rank["pipeline"][str(m)] for rank in ranks), strict=True):
        begin = min(start for done in both for _, start, _ in done)
        steps.append(
            [
                Slot(rank, action(word, rank), 1e3 * (start - begin), 1e3 * (end - begin))
                for rank, done in enumerate(both)
                for word, start, end in done
            ]
        )
    return sorted(steps, key=length)[len(steps) // 2]


Picture(
    pipeline_timelines({f"measured: {depth} layers on 2 ranks, 8 micro-batches": measured(8)}, unit="time (ms)"),
    alt="Measured timeline of two processes: rank 0 begins with two forward passes, then both ranks alternate; rank 1 waits at the "
    "start for about one forward pass, and rank 0 after its first two forward passes, a little in each turn, and at the last.",
)

# %% tags=["nbval-ignore-output"]
for m in (2, 4, 8):
    slots = measured(m)
    worked = sum(slot.end - slot.start for slot in slots)
    waited = 2 * length(slots) - worked
    print(f"m = {m}: waited {waited / worked:.0%} of the time worked, by formula {bubble_share(2, m):.1%}")
    kit.record(**{f"bubble_of_{m}": waited / worked})

# %% [markdown]
# (This is the median of nine steps. Expect it near the formula, not on it. The two stages are not equally long, since one has the
# embedding and the other the head: so one waits a little for the other at each turn, and that waiting does not shrink as $m$
# grows. Messages take time too. And both ranks share one machine's memory, so one works faster while the other waits, which
# makes the bubble look smaller. On a machine that is busy with other things the numbers can be far off.)
#
# ## What each GPU holds
#
# Here are all three in one picture: the paper's model, 128 sequences of 64 tokens in a batch, checkpoints every $\sqrt N$ layers,
# and more and more GPUs.

# %% tags=["headline"]
GPUS = [1, 2, 4, 8, 16, 32, 64]
HOW = {"checkpoint_every": "auto", "device": "cuda"}
fullest = {
    label: [max(rank.total for rank in rank_memory(PAPER, 128, 64, **{kind: n}, **HOW)) for n in GPUS]
    for label, kind in (("copies (DDP)", "data"), ("shards (FSDP)", "shard"), ("stages (pipeline, 1F1B)", "pipeline"))
}
Picture(
    memory_against_ranks(GPUS, fullest, limit=24e9),
    alt="Memory of the fullest GPU against 1 to 64 GPUs, both logarithmic. Copies take 79 GB on one GPU, 85 on two, and flatten out "
    "at 77. Shards and stages fall nearly in proportion, below 24 GB from 4 GPUs on, to 3 and 4 GB at 64.",
)

# %%
flat, falling, stages = (fullest[label] for label in fullest)
wall = bytes_per_rank(weights, 1, 0)
kit.finding("least memory of copies, over 16 bytes a weight", min(flat) / wall, above=1)
last = {"shards": falling[-1] / flat[0], "stages": stages[-1] / flat[0]}
kit.finding("what the fullest of 64 GPUs holds, over one GPU alone", last, below=0.05, form=".1%")
print(f"smallest number of these that fits 24 GB: shards {GPUS[[n < 24e9 for n in falling].index(True)]}, ", end="")
print(f"stages {GPUS[[n < 24e9 for n in stages].index(True)]}")

# %% [markdown]
# This is by formula (`rank_memory`), and it does not count what CUDA takes for itself. From one GPU to two, copies grow by DDP's
# second set of gradients. Then they fall a little, since each sees fewer sequences and keeps fewer activations (one GPU that
# takes the batch in smaller pieces, as in lesson 10, gains the same), and end at 20 bytes a weight. Shards and stages fall
# nearly in proportion up to 16 GPUs, and more slowly after that. What is left is the embedding of 250,000 rows: a shard gathers
# all of it, and its gradient, 1 GB; one stage holds all of it, at 16 bytes a weight 2 GB.
#
# So which one? A rule of thumb, from the numbers above:
#
# - **Copies** while they fit. Each rank works by itself, and there is no schedule to get wrong.
# - **Shards** when copies do not fit. Any model can be cut in this way, and no rank waits, if the network can carry three
#   times the weights at each step.
# - **Stages** when the network cannot, when even shards do not fit, or when the batch cannot be shared out evenly. They want
#   many equal layers, and many micro-batches: four for each stage means at least four times as many sequences as stages. A
#   thousand layers are the natural case.
#
# They combine: stages between machines, where the network is slow, and copies or shards inside each, where it is fast. The
# library's `Plan.auto` tries copies, then shards, then stages, takes the first that fits, and says why. It does not know your
# network.

# %%
for gpus, gigabytes, sequences in ((8, 141, 128), (8, 24, 128), (16, 80, 24)):
    plan, why = Plan.auto(PAPER, gpus, 1e9 * gigabytes, sequences=sequences, tokens=64, checkpoint_every="auto")
    print(f"{gpus} GPUs of {gigabytes} GB, {sequences} sequences: {plan.title}\n   {why}")

# %% [markdown]
# Now it is your turn. Everything is by formula, so the picture follows at once. The model is a decoder of 1,000 layers of width
# 512, a batch has 512 sequences. You have 8 GPUs of 24 GB.
#
# 1. Without checkpoints, find a plan that fits. (There is one.) What do more micro-batches do to its memory?
# 2. Change its schedule to `gpipe`, then to `interleaved`. What does each cost, and what does it gain?
# 3. With checkpoints every $\sqrt N$ layers many plans fit. Which of all plans makes a step shortest? Remember from lesson 11 what
#    checkpoints cost.

# %%
PlansExplorer(depth=1000)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 1. One copy in 8 stages, `1f1b`, with 8 micro-batches per stage: 23.5 of 24 GB, bubble 11%. With half as many micro-batches
#    it takes 40 GB: they become larger, and rank 0 keeps 8 of them, however many there are.
# 2. `gpipe` waits as long and takes 150 GB, with any number of micro-batches: it keeps the whole batch. `interleaved` halves the
#    bubble, 5%, and takes 31 GB: it does not fit.
# 3. With checkpoints 8 stages take 7 GB, `interleaved` as well, and other plans fit too: 2 shards × 4 stages even 16 GB. But
#    checkpoints add a forward pass, a third of the work by count. 11% of waiting is less than 5% and a third: by this count the
#    tight plan is the fastest. (What the count leaves out is that its micro-batches are small, 512 tokens each.)
# </details>
#
# To train by a plan, `deepnet-edu train` takes `--gpus 4 --plan data=2,pipeline=2`, with the same presets as on one device.
#
# ## Further rooms
#
# Two rooms for those who want more: how much a schedule keeps (8 minutes), and the ring of an all-reduce (12 minutes). In
# JupyterLab they are folded: click on the arrow beside a heading.

# %% [markdown] tags=["room"]
# ## Room 1: how much does a schedule keep?

# %% [markdown] exercise="most_kept" difficulty=2 importance=4 minutes=8
# ### Memory of an order (optional)
#
# **Objective**: read a schedule's memory off its order.
#
# Write `most_kept(order)`: the most micro-batches whose activations a rank keeps at one time. `order` is a list of words as above.
# A micro-batch is kept from its F on, and given back after its B.
#
# Hint: Which words make the memory grow, and which make it shrink?
#
# Hint: The most is kept somewhere on the way, not at the end: what do you have to remember while you go through the list?


# %% exercise="most_kept"
def most_kept(order):
    """The most micro-batches that are kept at one time: a whole number."""
    ### BEGIN SOLUTION
    kept = most = 0
    for word in order:
        kept += 1 if word[0] == "F" else -1
        most = max(most, kept)
    return most
    ### END SOLUTION


# %%
check.most_kept(most_kept)

# %%
most_kept = kit.mine_or_reference(most_kept, "most_kept")
for m in (8, 32):
    kept = [most_kept(one_forward_one_backward(rank, 4, m)) for rank in range(4)]
    print(f"{m} micro-batches: 1F1B keeps {kept} on ranks 0 to 3, GPipe {m} on each")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 4, 3, 2, 1 for 1F1B, with 8 micro-batches and with 32.
# </details>
#
# **Why it works.** Rank $r$ of $p$ warms up with $p - 1 - r$ forward passes and runs one more before its first backward pass. From
# then on each F is followed by a B. The first rank keeps the most: a reason to give it a layer less.

# %% [markdown] tags=["room"]
# ## Room 2: the ring

# %% [markdown] exercise="ring_chunk" difficulty=4 importance=3 minutes=12
# ### Which piece is sent? (optional)
#
# **Objective**: write the schedule of an all-reduce.
#
# Each of $D$ ranks has cut its gradient into $D$ pieces. There are $2(D-1)$ steps. In each, every rank sends one piece to the
# next rank (the last one to rank 0), all at the same time. In the first $D-1$ steps the receiver *adds* what comes to its own
# piece of the same number. In the others it *puts* it in its place. Write `ring_chunk(rank, step, ranks)`: the number
# of the piece that this rank sends, both from 0.
#
# Hint: Pass on what you have just received and added: the piece that the rank before you sent in the step before.
#
# Hint: At the first step all ranks must send different pieces: take your own number. What did the rank before you send then,
# and what do you send next? Numbers go round.


# %% exercise="ring_chunk"
def ring_chunk(rank, step, ranks):
    """The piece that a rank sends to its neighbour: a whole number from 0 to ranks - 1."""
    ### BEGIN SOLUTION
    return (rank - step) % ranks
    ### END SOLUTION


# %%
check.ring_chunk(ring_chunk)

# %%
ring_chunk = kit.mine_or_reference(ring_chunk, "ring_chunk")


def ring(pieces):
    """All-reduce of pieces[rank][piece], in place; the number of pieces that each rank has sent."""
    n = len(pieces)
    for step in range(2 * (n - 1)):
        sent = [(ring_chunk(rank, step, n), rank) for rank in range(n)]
        for (piece, rank), value in zip(sent, [pieces[rank][piece] for piece, rank in sent], strict=True):
            after = (rank + 1) % n
            pieces[after][piece] = value + pieces[after][piece] if step < n - 1 else value
    return 2 * (n - 1)


pieces = torch.randn(5, 5, dtype=torch.float64)
whole = pieces.sum(0)
sent = ring(pieces)
kit.finding(f"5 ranks, {sent} steps: largest distance from the sum", (pieces - whole).abs().max(), below=1e-12)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# 8 steps for 5 ranks. Each sends 8 pieces, of a fifth of the gradient.
# </details>
#
# **Why it works.** At each step all connections are in use, and each carries $1/D$ of the gradient. $2(D-1)$ times $1/D$ is the
# formula above. The first half alone is a reduce-scatter, the second an all-gather: shards use them one by one.

# %% [markdown]
# ## In three sentences
#
# 1. Copies divide the batch, shards divide what each weight costs too, stages divide the layers; only the last two make a larger
#    model possible, and none of them changes the model if each answer counts once.
# 2. A rank sends nearly 2 times the gradient with copies, 3 times the weights' bytes with shards, and with stages the stream alone.
# 3. Stages wait $(p-1)/m$ of the time that they work; alternating forward and backward passes keeps few activations, and so
#    allows many micro-batches.
#
# **Read next**: Rajbhandari et al., arXiv 1910.02054, Sections 5 and 7, for shards; Narayanan et al., arXiv 2104.04473, Section 2,
# for pipelines and how all of it combines on thousands of GPUs.
