"""Why DeepNorm learns late to translate where embeddings and head share one table, and what undoes it.

    python benchmarks/tied_embedding.py                        # all that is missing
    python benchmarks/tied_embedding.py --only arms            # this part alone
    python benchmarks/tied_embedding.py --smoke --out t.json   # the script itself, in seconds

Dates in four languages, words as tokens. Writes deepnet_edu/course/records/tied_embedding.json after every run, so that
what was interrupted resumes; a row that was deleted is measured again. Its parts:

start: before training, by depth and width.
arms: 4 + 4 layers, each arm another explanation put to the test.
long: BLEU after more steps.
decoder: the same pairs as one text, source first, for a decoder of 8 layers.

Each row has, by step and on held-out pairs: the loss in nats a token; ``source``, by how much it rises where the source
is another sentence's; ``repeats``, the probability that a model gives to the token that it has just read; ``common``,
the share of the encoder's output, by mean square, that is the same for all tokens: at 1 there is nothing to look at.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

import torch
from torch import Tensor, nn

from benchmarks.resumed import Row, complete, options, rounded
from deepnet_edu import Batch, ModelConfig, TrainConfig, build_model, train
from deepnet_edu.course.places import RECORDS
from deepnet_edu.data import Pair, normal, split
from deepnet_edu.data.cldr import date_pairs
from deepnet_edu.model import IGNORED, Model, Translator
from deepnet_edu.model.embedding import TokenEmbedding
from deepnet_edu.model.generation import greedy
from deepnet_edu.profiles import History
from deepnet_edu.training import TrainingDiverged

RECORD = RECORDS / "tied_embedding.json"
LANGUAGES = ("de", "fr", "es", "fi")
PAD, START, END = "<pad>", "<start>", "<end>"


@dataclass(frozen=True)
class Size:
    """Layers of each stack, width, dates, held-out pairs, steps, those of the long runs, seeds, layers and widths that
    are built without training, and the steps after which a run is measured."""

    layers: int = 4
    width: int = 48
    dates: int = 1300
    held_out: int = 120
    steps: int = 160
    longer: tuple[int, ...] = (400, 800)
    seeds: int = 3
    shapes: tuple[tuple[int, int], ...] = ((4, 48), (18, 48), (100, 48), (4, 192), (4, 512), (18, 512))
    looks: tuple[int, ...] = (0, 10, 20, 40, 60, 80, 120, 160, 240, 320, 400, 800)


SMOKE = Size(
    layers=1, width=16, dates=60, held_out=8, steps=2, longer=(3,), seeds=1, shapes=((1, 16), (2, 16)), looks=(0, 2)
)


# --- words


def words(text: str) -> list[str]:
    """Numbers, words and marks."""
    return re.findall(r"\w+|[^\w\s]", text)


class Dates:
    """Pairs as batches of 64 for a translator, or as one text for a decoder; the last part is held out.

    Attributes:
        vocab_size: number of tokens.
        held_out: pairs of all languages, as a batch.
        other_source: the same with the source of the neighbour, of the same language almost always.
    """

    def __init__(self, size: Size, one_text: bool) -> None:
        pairs = list(date_pairs(LANGUAGES, size.dates))
        parts = split(pairs, lambda pair: normal(pair.source), (0.0, 0.1))
        self.train, self.one_text = parts.train, one_text
        self.test = parts.test[:: max(1, len(parts.test) // size.held_out)][: size.held_out]
        seen = sorted({word for pair in pairs for text in pair[:2] for word in words(text)})
        self.vocabulary = [PAD, START, END, *map("<{}>".format, LANGUAGES), *seen]
        self.number = {word: i for i, word in enumerate(self.vocabulary)}
        self.vocab_size = len(self.vocabulary)
        self.held_out = self.batch_of(self.test, self.test)
        self.other_source = self.batch_of([*self.test[1:], self.test[0]], self.test)

    def batch(self, generator: torch.Generator) -> Batch:
        """64 random pairs."""
        which = torch.randint(len(self.train), (64,), generator=generator).tolist()
        pairs = [self.train[i] for i in which]
        return self.batch_of(pairs, pairs)

    def batch_of(self, sources: list[Pair], targets: list[Pair]) -> Batch:
        """Sources of some pairs with the targets of others."""
        read = [[f"<{pair.language}>", *words(pair.source), END] for pair in sources]
        written = [[START, *words(pair.target), END] for pair in targets]
        if self.one_text:
            tokens = self._padded([[*a, *b] for a, b in zip(read, written, strict=True)])
            asked = self._padded([[PAD] * len(a) + b for a, b in zip(read, written, strict=True)])[:, 1:]
            # Nothing is asked inside the source; START itself, which always follows, is not a target.
            asked = asked.masked_fill((asked == 0) | (asked == self.number[START]), IGNORED)
            return Batch(tokens[:, :-1], asked)
        source, target = self._padded(read), self._padded(written)
        # A token of the target looks back only, where there is no padding: it needs no mask.
        return Batch(source, target[:, 1:].masked_fill(target[:, 1:] == 0, IGNORED), source == 0, target[:, :-1])

    def _padded(self, rows: list[list[str]]) -> Tensor:
        longest = max(map(len, rows))
        return torch.tensor([[self.number[word] for word in [*row, *[PAD] * (longest - len(row))]] for row in rows])

    def bleu(self, model: Model) -> float:
        """Of the held-out pairs, greedy."""
        from sacrebleu import corpus_bleu

        end = self.number[END]
        source = self.held_out.inputs
        out = greedy(model, source, 24, start=self.number[START], end=end, padding=self.held_out.padding).tolist()
        rows = [row[: row.index(end)] if end in row else row for row in out]
        texts = [" ".join(self.vocabulary[i] for i in row) for row in rows]
        references = [" ".join(words(pair.target)) for pair in self.test]
        return float(corpus_bleu(texts, [references], tokenize="none", force=True).score)


# --- arms


class Turned(nn.Module):
    """A fixed rotation."""

    turn: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(9))
        self.register_buffer("turn", torch.linalg.qr(drawn)[0])

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → the same."""
        return x @ self.turn


def apart(model: Model) -> None:
    """The head starts as the embedding's copy and is trained by itself."""
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())


def turned(model: Model) -> None:
    """The head reads the last state through a rotation: the table is shared, and no token speaks for itself."""
    model.before_head = Turned(model.config.d_model)


def held(model: Model) -> None:
    """The encoder stays as it is for 40 updates."""
    assert isinstance(model, Translator)
    backwards = 0

    def later(gradient: Tensor) -> Tensor:
        return gradient * (backwards > 40)

    def count(*_: Any) -> None:
        nonlocal backwards
        backwards += torch.is_grad_enabled()

    model.register_forward_pre_hook(count)
    for weight in model.encoder.parameters():
        weight.register_hook(later)


def loud(model: Model) -> None:
    """Tokens enter five times as large."""
    for one in model.embeddings():
        assert isinstance(one, TokenEmbedding)
        one.scale *= 5


@dataclass(frozen=True)
class Arm:
    """What differs from DeepNorm with one table."""

    residual: str = "deepnorm"
    shared: bool = True
    alpha: float | None = None
    change: Callable[[Model], None] | None = None
    warmup: int = 20


ARMS = {
    "one table": Arm(),
    "own tables": Arm(shared=False),
    "head apart, same start": Arm(change=apart),
    "one table, head turned": Arm(change=turned),
    "one table, encoder held": Arm(change=held),
    "one table, α = 1": Arm(alpha=1.0),
    "one table, warm-up 100": Arm(warmup=100),
    "one table, Post-LN": Arm("post_ln"),
    "one table, Pre-LN": Arm("pre_ln"),
    "one table, Pre-LN, tokens × 5": Arm("pre_ln", change=loud),
}


def build(arm: Arm, size: Size, vocabulary: int, decoder: bool, seed: int) -> Model:
    """A translator, or a decoder as deep as both its stacks."""
    shape: dict[str, Any] = {"d_model": size.width, "n_heads": 4, "d_ff": 4 * size.width, "vocab_size": vocabulary}
    shape |= {"position": "sinusoidal", "max_length": 64, "shared_embeddings": arm.shared, "residual": arm.residual}
    if arm.alpha is not None:
        shape |= {"alpha": arm.alpha, "not_the_paper": True}
    if decoder:
        config = ModelConfig("decoder", "lm", 2 * size.layers, **shape)
    else:
        config = ModelConfig("encoder_decoder", "translation", size.layers, size.layers, **shape)
    model = build_model(config, seed)
    if arm.change is not None:
        arm.change(model)
    return model


@torch.no_grad()
def look(model: Model, dates: Dates) -> list[float]:
    """Held-out loss, rise with another source, probability of the token just read, what the memory has in common."""
    batch = dates.held_out
    logits = model.logits(batch)
    loss = model.loss_of(logits, batch).item()
    read = batch.inputs if batch.target_inputs is None else batch.target_inputs
    said = logits.softmax(-1).gather(-1, read[..., None])[..., 0]
    found = [loss, model.loss(dates.other_source).item() - loss, said[batch.targets != IGNORED].mean().item()]
    if isinstance(model, Translator):
        assert batch.padding is not None
        memory = model.encode(batch.inputs, batch.padding)[~batch.padding]
        found.append((memory.mean(0).square().sum() / memory.square().sum(-1).mean()).item())
    return found


def measure(settings: Row, size: Size) -> Row:
    """One run, or one look at a model that is not trained."""
    if settings["part"] == "start":
        size = replace(size, layers=settings["layers"], width=settings["width"])
    arm, decoder = ARMS[settings["arm"]], settings["part"] == "decoder"
    dates = Dates(size, decoder)
    model = build(arm, size, dates.vocab_size, decoder, settings["seed"])
    seen = [look(model, dates)]
    steps = [0]

    def step(history: History) -> None:
        if (done := len(history.loss)) in size.looks:
            steps.append(done)
            seen.append(look(model, dates))

    outcome = "not trained"
    if settings["part"] != "start":
        outcome = run(model, dates, settings, arm.warmup, step)
    names = ("loss", "source", "repeats", "common")[: len(seen[0])]
    row: Row = {"step": steps}
    row |= {name: rounded(values) for name, values in zip(names, zip(*seen, strict=True), strict=True)}
    if settings["part"] == "long":
        row["bleu"] = round(dates.bleu(model), 1)
    return row | {"outcome": outcome}


def run(model: Model, dates: Dates, settings: Row, warmup: int, on_step: Callable[[History], None]) -> str:
    """Train; how it went."""
    rate, seed = settings["learning_rate"], settings["seed"]
    recipe = TrainConfig(settings["steps"], learning_rate=rate, warmup=warmup, seed=seed)
    try:
        train(model, dates, recipe, progress=False, on_step=on_step)
    except TrainingDiverged:
        return "diverged"
    return "trained"


def plan(size: Size) -> Iterator[Row]:
    """The settings of all runs, the first seed of everything first."""
    both = ("one table", "own tables")
    for (layers, width), arm in product(size.shapes, both):
        yield {"part": "start", "arm": arm, "layers": layers, "width": width, "seed": 0}
    for seed, (part, arms) in product(range(size.seeds), (("arms", tuple(ARMS)), ("decoder", both))):
        for arm in arms:
            yield {"part": part, "arm": arm, "steps": size.steps, "learning_rate": 3e-3, "seed": seed}
    for steps, arm in product(size.longer, both):
        yield {"part": "long", "arm": arm, "steps": steps, "learning_rate": 3e-3, "seed": 0}


HEAD: Row = {
    "what": "DeepNorm with one table for embeddings and head: dates into four languages, held out by source",
    "command": "python benchmarks/tied_embedding.py",
    "size": vars(Size()),
    "recipe": "AdamW, weight decay 0, betas 0.9 and 0.999, gradient clipped to norm 1, linear warm-up of 20 steps "
    "unless the arm has another, 64 pairs a step, sinusoidal positions",
    "columns": "by step, on held-out pairs: loss in nats a token; source: its rise with another sentence's source; "
    "repeats: probability of the token just read; common: share of the memory that is the same for all tokens",
}


def main() -> None:
    """Make what is missing."""
    parts = ("start", "arms", "decoder", "long")
    given = options("DeepNorm with one table for embeddings and head.", RECORD, parts)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    size = SMOKE if given.smoke else Size()
    wanted = [one for one in plan(size) if one["part"] in given.only]
    complete(given.out, HEAD, wanted, lambda settings: measure(settings, size), given.minutes)


if __name__ == "__main__":
    main()
