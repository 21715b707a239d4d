"""The runs that lesson 16 draws from its record: what fails and how it looks, warm-up, small batches, use of depth.

    python benchmarks/lesson_16.py                         # all that is missing
    python benchmarks/lesson_16.py --only diagnosis depth  # these parts alone
    python benchmarks/lesson_16.py --smoke --out t.json    # the script itself, in seconds

Writes deepnet_edu/course/records/lesson_16.json after every run, so that what was interrupted resumes; a row that was
deleted is measured again. Its parts:

diagnosis: nine runs of known cause. Loss by step; gradient of the first and the last layer, before training and after;
    token similarity of what leaves the stack, likewise; how far each update moved the outputs on a fixed batch (root
    mean square over logits); ‖Δθ‖/‖θ‖ of the stack.
warmup: loss by step for each warm-up and learning rate.
batch: real text with 2 and 32 sequences a step, as many steps; held-out loss, and of the larger batch the mean squared
    gradient norms at both sizes, from which the noise scale follows (arXiv 1812.06162, Appendix A).
depth: rise of the held-out loss when each layer alone is left out of a trained model, when a random half is (three
    draws), and ‖Δθ‖/‖θ‖ by layer.
rate: DeepNorm at 1,000 layers, the stack alone, at the rate of the verdict table and at a higher one: loss by step, and
    token similarity and input share before and after.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

import torch
from torch import Tensor

from benchmarks.resumed import Row, complete, options, rounded
from deepnet_edu import Batch, ModelConfig, TrainConfig, build_model, probe, train
from deepnet_edu.course.places import RECORDS
from deepnet_edu.data import PreviousToken, PythonDocs, TokenMap
from deepnet_edu.model import Model
from deepnet_edu.probing import layer_harm, without_layers
from deepnet_edu.profiles import History
from deepnet_edu.residual import State
from deepnet_edu.training import Task, TrainingDiverged

RECORD = RECORDS / "lesson_16.json"
SHAPE: dict[str, Any] = {"d_model": 32, "n_heads": 2, "d_ff": 128, "max_length": 32}
TOKEN_MAP = TokenMap(vocab_size=16, length=16, batch_size=16)
PREVIOUS = PreviousToken(vocab_size=16, length=8, batch_size=32)
#: Of the drowned branches: how much larger the skips make the stream, from bottom to top.
GROWTH = 1e16


class RandomTargets(TokenMap):
    """Targets that have nothing to do with the inputs."""

    def batch(self, generator: torch.Generator) -> Batch:
        """A fresh random batch on the CPU, (B, T)."""
        inputs = super().batch(generator).inputs
        return Batch(inputs, torch.randint(self.vocab_size, inputs.shape, generator=generator))


@dataclass(frozen=True)
class Cause:
    """One run of the diagnosis: what differs from a run of DeepNorm that trains."""

    residual: str = "deepnorm"
    learning_rate: float = 1e-3
    warmup: int = 20
    parameters: str = "all"
    task: Task = TOKEN_MAP
    drowned: bool = False


CAUSES = {
    "healthy (DeepNorm)": Cause(),
    "healthy (Pre-LN)": Cause("pre_ln"),
    "tokens alike from the start": Cause("post_ln"),
    "branches drowned": Cause("pre_ln", drowned=True),
    "rate too high": Cause(learning_rate=3e-2, warmup=0),
    "rate too low": Cause(learning_rate=3e-6),
    "branches asleep": Cause("rezero"),
    "stack not trained": Cause(learning_rate=1e-2, parameters="ends"),
    "targets say nothing": Cause(task=RandomTargets(vocab_size=16, length=16, batch_size=16)),
}


@dataclass(frozen=True)
class Size:
    """Depths, seeds and steps; ``few`` leaves one of everything, for a look at the script itself."""

    layers: int = 48
    deeper: int = 96
    shallow: int = 12
    deepest: int = 1000
    seeds: int = 3
    steps: int = 60
    longer: int = 150
    few: bool = False


SMOKE = Size(layers=3, deeper=4, shallow=2, deepest=5, seeds=1, steps=2, longer=2, few=True)


def plan(size: Size) -> Iterator[Row]:
    """The settings of all runs, part by part."""
    two = range(min(2, size.seeds))
    for layers, seed, cause in product((size.layers, size.deeper), two, CAUSES):
        yield {"part": "diagnosis", "cause": cause, "layers": layers, "seed": seed}
    for seed, rule in product(range(size.seeds), ("deepnorm", "pre_ln", "layernorm_scaling", "keel")):
        yield {"part": "depth", "rule": rule, "layers": size.layers, "learning_rate": 1e-3, "seed": seed}
    rates = (1e-3,) if size.few else (1e-3, 4e-3, 1.6e-2)
    for seed, rate, rule, many in product(two, rates, ("deepnorm", "pre_ln"), (2, 32)):
        yield {
            "part": "batch",
            "rule": rule,
            "layers": size.layers,
            "batch_size": many,
            "learning_rate": rate,
            "seed": seed,
        }
    rates, warmups = ((1e-3,), (1,)) if size.few else ((1e-3, 3e-3, 1e-2), (0, 10, 40))
    for layers, seed, rate, warmup, rule in product(
        (size.shallow, size.layers), two, rates, warmups, ("deepnorm", "pre_ln", "post_ln")
    ):
        settings = {"rule": rule, "layers": layers, "warmup": warmup, "learning_rate": rate, "seed": seed}
        yield {"part": "warmup"} | settings
    for seed, rate in product(range(size.seeds), (1e-3,) if size.few else (3e-4, 1e-3)):
        yield {"part": "rate", "rule": "deepnorm", "layers": size.deepest, "learning_rate": rate, "seed": seed}


def model_of(rule: str, settings: Row, vocab_size: int) -> Model:
    """A decoder of this rule."""
    config = ModelConfig("decoder", "lm", settings["layers"], vocab_size=vocab_size, residual=rule, **SHAPE)
    return build_model(config, seed=settings["seed"])


def batch_of(task: Task, seed: int) -> Batch:
    """A batch that training with this seed does not see."""
    return task.batch(torch.Generator().manual_seed(1000 + seed))


def trained(model: Model, task: Task, recipe: TrainConfig, on_step: Any = None) -> tuple[list[float], str]:
    """The loss of each step, up to the one that broke, and ``"trained"`` or ``"diverged"``."""
    loss: list[float] = []

    def step(history: History) -> None:
        loss.append(history.loss[-1])
        if on_step is not None:
            on_step()

    try:
        train(model, task, recipe, progress=False, on_step=step)
    except TrainingDiverged:
        return loss, "diverged"
    return loss, "trained"


# --- which failure looks how


def diagnosis(settings: Row, size: Size) -> Row:
    """One run of a known cause, seen by five instruments."""
    cause, seed = CAUSES[settings["cause"]], settings["seed"]
    model = model_of(cause.residual, settings, TOKEN_MAP.vocab_size)
    if cause.drowned:
        drown(model)
    batch = batch_of(cause.task, seed)
    before = [parameter.detach().clone() for parameter in model.group("stack")]
    update: list[float] = []

    @torch.no_grad()
    def logits() -> Tensor:
        return model.logits(batch)

    last = logits()

    def moved() -> None:
        nonlocal last
        now = logits()
        update.append((now - last).square().mean().sqrt().item())
        last = now

    start = seen(model, batch)
    recipe = TrainConfig(
        size.steps,
        learning_rate=cause.learning_rate,
        warmup=cause.warmup,
        parameters=cause.parameters,  # type: ignore[arg-type]
        seed=seed,
    )
    loss, outcome = trained(model, cause.task, recipe, moved)
    end = seen(model, batch)
    return {
        "loss": rounded(loss),
        "chance": round(TOKEN_MAP.chance, 4),
        "gradient": [start[0], end[0]],
        "similarity": [start[1], end[1]],
        "update": rounded(update),
        "moved": rounded([change(before, model.group("stack"))])[0],
        "outcome": outcome,
    }


def seen(model: Model, batch: Batch) -> tuple[list[float | None], float | None]:
    """The gradient's norm in the first and the last layer, and the token similarity of what leaves the stack."""
    profile = probe(model, batch)
    assert profile.token_similarity is not None
    by_layer = profile.gradient_by_layer()
    return rounded([by_layer[0], by_layer[-1]]), rounded([profile.token_similarity[-1]])[0]


def drown(model: Model) -> None:
    """Multiply every skip, as one does who puts DeepNorm's α on a Pre-LN stack: what branches add is soon nothing
    beside the stream."""
    rules = model.rules()
    factor = GROWTH ** (1 / len(rules))

    def write(state: State, branch: Tensor) -> State:
        return (factor * state[0] + branch,)

    for rule in rules:
        vars(rule)["write"] = write


def change(before: list[Tensor], parameters: list[Any]) -> float:
    """‖Δθ‖/‖θ‖, θ the parameters as they were."""
    moved = sum((new.detach() - old).square().sum() for new, old in zip(parameters, before, strict=True))
    return float((moved / sum(old.square().sum() for old in before)) ** 0.5)


# --- warm-up, batches, depth


def warmup(settings: Row, size: Size) -> Row:
    """The loss of one run."""
    model = model_of(settings["rule"], settings, PREVIOUS.vocab_size)
    recipe = TrainConfig(
        size.longer // 2, learning_rate=settings["learning_rate"], warmup=settings["warmup"], seed=settings["seed"]
    )
    loss, outcome = trained(model, PREVIOUS, recipe)
    return {"loss": rounded(loss), "chance": round(PREVIOUS.chance, 4), "outcome": outcome}


def batch(settings: Row, size: Size) -> Row:
    """The loss of one run on text, and how noisy its gradient was."""
    text = PythonDocs(length=32, batch_size=settings["batch_size"])
    model = model_of(settings["rule"], settings, text.vocab_size)
    measured = settings["batch_size"] > 2
    noise = [noise_of(model, size)] if measured else []
    recipe = TrainConfig(2 * size.steps, learning_rate=settings["learning_rate"], warmup=20, seed=settings["seed"])
    loss, outcome = trained(model, text, recipe)
    if measured:
        noise.append(noise_of(model, size))
    many = PythonDocs(length=32, batch_size=256)
    with torch.no_grad():
        held_out = model.loss(many.validation_batch(torch.Generator().manual_seed(1))).item()
    return {
        "loss": rounded(loss),
        "chance": round(text.chance, 4),
        "held_out": rounded([held_out])[0],
        "noise": noise,
        "outcome": outcome,
    }


def noise_of(model: Model, size: Size) -> list[float | None]:
    """Mean squared norms of the gradient at 2 and at 32 sequences, and these two numbers."""
    parameters = model.group("all")
    generator = torch.Generator().manual_seed(2)
    means = []
    for many, times in ((2, 2 if size.few else 32), (32, 2 if size.few else 16)):
        text = PythonDocs(length=32, batch_size=many)
        squares = []
        for _ in range(times):
            gradient = torch.autograd.grad(model.loss(text.batch(generator)), parameters)
            squares.append(sum(one.square().sum().item() for one in gradient))
        means.append(sum(squares) / times)
    return [*rounded(means), 2, 32]


def depth(settings: Row, size: Size) -> Row:
    """What is lost without each layer, and without half of them."""
    seed = settings["seed"]
    model = model_of(settings["rule"], settings, PREVIOUS.vocab_size)
    stack = model.stacks()["decoder"]
    before = [[p.detach().clone() for p in layer.parameters()] for layer in stack.layers]
    recipe = TrainConfig(size.longer, learning_rate=settings["learning_rate"], warmup=20, seed=seed)
    loss, outcome = trained(model, PREVIOUS, recipe)
    held_out = batch_of(PREVIOUS, seed)
    half = []
    for left_out in halves(len(stack.layers)):
        with torch.no_grad(), without_layers(stack, left_out):
            half.append(model.loss(held_out).item())
    with torch.no_grad():
        whole = model.loss(held_out).item()
    return {
        "loss": rounded(loss),
        "chance": round(PREVIOUS.chance, 4),
        "held_out": rounded([whole])[0],
        "harm": rounded(layer_harm(model, held_out)),
        "moved": rounded(
            change(old, list(layer.parameters())) for old, layer in zip(before, stack.layers, strict=True)
        ),
        "half": rounded(half),
        "outcome": outcome,
    }


def halves(layers: int) -> list[list[int]]:
    """Three random halves of the layers."""
    orders = [torch.randperm(layers, generator=torch.Generator().manual_seed(draw)).tolist() for draw in range(3)]
    return [sorted(order[: layers // 2]) for order in orders]


def rate(settings: Row, size: Size) -> Row:
    """What a rate does to the tokens of a stack that started well."""
    model, seed = model_of(settings["rule"], settings, PREVIOUS.vocab_size), settings["seed"]
    batch = batch_of(PREVIOUS, seed)
    start = at_the_top(model, batch)
    recipe = TrainConfig(
        2 * size.steps, learning_rate=settings["learning_rate"], warmup=20, parameters="stack", seed=seed
    )
    loss, outcome = trained(model, PREVIOUS, recipe)
    similarity, share = zip(start, at_the_top(model, batch), strict=True)
    return {
        "loss": rounded(loss),
        "chance": round(PREVIOUS.chance, 4),
        "similarity": rounded(similarity),
        "share": rounded(share),
        "outcome": outcome,
    }


def at_the_top(model: Model, batch: Batch) -> tuple[float, float]:
    """Token similarity of what leaves the stack, and its share of the input."""
    profile = probe(model, batch)
    assert profile.token_similarity is not None
    assert profile.input_share is not None
    return profile.token_similarity[-1], profile.input_share[-1]


PARTS = {"diagnosis": diagnosis, "depth": depth, "batch": batch, "warmup": warmup, "rate": rate}
HEAD: Row = {
    "what": "Runs of lesson 16; loss in nats per token before each update",
    "command": "python benchmarks/lesson_16.py",
    "shape": SHAPE,
    "recipe": "AdamW, weight decay 0, betas 0.9 and 0.999, gradient clipped to norm 1, linear warm-up of 20 steps "
    "where no other is given, all parameters unless the cause says otherwise (rate: the stack's); literal Xavier",
    "noise": "of batches of 32: [mean squared gradient norm at 2 sequences (32 batches), at 32 (16 batches), 2, 32], "
    "before training and after; after it the signal is small and the scale uncertain",
    "causes": {name: {**vars(cause), "task": type(cause.task).__name__} for name, cause in CAUSES.items()},
}


def record(out: Path, parts: list[str], size: Size, minutes: float = float("inf")) -> list[Row]:
    """All runs of these parts that ``out`` lacks, the first seed of all parts first."""
    wanted = sorted((one for one in plan(size) if one["part"] in parts), key=lambda one: int(one["seed"]))
    head = HEAD | {"half": [" ".join(map(str, left_out)) for left_out in halves(size.layers)]}
    return complete(out, head, wanted, lambda settings: PARTS[settings["part"]](settings, size), minutes)


def main() -> None:
    """Make what is missing."""
    given = options("The runs that lesson 16 draws from its record.", RECORD, PARTS)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    record(given.out, given.only, SMOKE if given.smoke else Size(), given.minutes)


if __name__ == "__main__":
    main()
