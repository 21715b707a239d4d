"""Table 1 in miniature: five rules at 4, 10, 18 and 50 encoder and as many decoder layers, on dates in four languages.

Every arm, a rule and a depth, has the same updates of the same pairs at two learning rates with the seed 0, and at a
lower one, twice at most, while the best is the lowest. Its best rate, by the loss on the validation part, runs with two
more seeds where that fits, at up to 18 + 18. What is reported is BLEU on the test part, with an interval over its
English sources, beside the most similar training sentence.

One more arm is multilingual: DeepNorm at the first depth learns the same four languages, then twenty more.

A run has diverged if its numbers are not finite, or if it ends less than 0.3 nats below the loss possible if only each
token's frequency is known.

    python benchmarks/lesson_13.py                      # all that is missing, two runs at a time
    python benchmarks/lesson_13.py --only deepnorm      # this rule alone
    python benchmarks/lesson_13.py --layers 4 18        # these depths alone
    python benchmarks/lesson_13.py --only many          # the multilingual arm alone
    python benchmarks/lesson_13.py --smoke --out t.json # the script itself, in seconds

Writes the record lesson_13.json after every run, so that what was interrupted resumes; a row that was deleted is
measured again. Lesson 13 reads it where it is there, complete or not.
"""

import argparse
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import log
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

import numpy as np
import torch

from benchmarks import tuned
from benchmarks.resumed import Row, read
from benchmarks.tuned import Arm
from deepnet_edu import ModelConfig, TrainConfig, build_model, train
from deepnet_edu.course.places import RECORDS
from deepnet_edu.data import BytePairs, Pair, Parts, Translations, most_similar, multilingual, translate
from deepnet_edu.messages import unknown
from deepnet_edu.model import IGNORED, Model
from deepnet_edu.training import TrainingDiverged

RESULTS = RECORDS / "lesson_13.json"
RULES = ("deepnorm", "post_ln", "pre_ln", "admin", "rezero")
#: The arm of all languages.
MANY = "many"
#: Nats below the loss of frequencies alone that a run must reach.
LEARNED = 0.3


@dataclass(frozen=True)
class Size:
    """What is run: languages, dates in each, depths, those that run with more seeds, rates, lower ones, seeds, updates,
    width, tokens in a batch, of the vocabulary and of a sentence; languages that are learned later, and
    their updates."""

    languages: tuple[str, ...] = ("de", "es", "fr", "it")
    dates: int = 1200
    layers: tuple[int, ...] = (4, 10, 18, 50)
    repeated: tuple[int, ...] = (4, 10, 18)
    rates: tuple[float, ...] = (3e-3, 1e-3)
    lower: tuple[float, ...] = (3e-4, 1e-4)
    seeds: tuple[int, ...] = (1, 2)
    steps: int = 400
    width: int = 48
    tokens: int = 640
    vocabulary: int = 1600
    longest: int = 64

    more: tuple[str, ...] = (
        "nl", "sv", "da", "pt", "ca", "ro", "pl", "cs", "sk", "hr",
        "fi", "hu", "tr", "id", "sl", "lt", "et", "nb", "gl", "eu",
    )  # fmt: skip
    more_steps: int = 1500

    @property
    def all_languages(self) -> tuple[str, ...]:
        """Those of the race, and those that one model learns after them."""
        return self.languages + self.more


SMOKE = Size(("de", "fr"), 60, (1, 2), (1,), (3e-3, 1e-3), (), (1,), 3, 8, 256, 300, 64, ("nl",), 3)


def apart(text: str) -> str:
    """Words, numbers and marks set apart by spaces, so that each can be a token."""
    return " " + " ".join(re.findall(r"\w+|[^\w\s]", text))


@cache
def data(size: Size) -> tuple[Parts[Pair], Parts[Pair], BytePairs]:
    """Dates in three parts that share no source, of the race and of all languages, and one vocabulary for both."""
    race, wide = (
        multilingual(languages, ["dates"], sentences=count).parts.map(
            lambda pair: Pair(apart(pair.source), apart(pair.target), pair.language)
        )
        for languages, count in ((size.languages, size.dates), (size.all_languages, size.dates // 2))
    )
    texts = [text for pair in (*race.train, *wide.train) for text in pair[:2]]
    words = [word for text in texts for word in re.findall(r" \S+", text)]
    return race, wide, BytePairs.train(words, size.vocabulary, size.all_languages)


def batches(pairs: Sequence[Pair], size: Size, seed: int = 0) -> Translations:
    """The pairs in any order."""
    tokenizer = data(size)[2]
    return Translations(pairs, tokenizer, max_tokens=size.tokens, max_length=size.longest, bucketing=False, seed=seed)


def translations(model: Model, pairs: Sequence[Pair], size: Size) -> list[str]:
    """Greedy, into each pair's language."""
    sources, languages = [pair.source for pair in pairs], [pair.language for pair in pairs]
    return [text.strip() for text in translate(model, data(size)[2], sources, languages, longest=size.longest)]


def measure(arm: Arm, rate: float, seed: int, size: Size) -> Row:
    """One run: loss on the validation part, nats a token; BLEU and chrF of the test part."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    race, _, tokenizer = data(size)
    model = build_model(shape(arm["rule"], arm["layers"], size), seed=seed)
    begin, chance = time.perf_counter(), unigram(race.train, tokenizer)
    tune, outputs = chance, [""] * len(race.test)
    try:
        train(model, batches(race.train, size, seed), _recipe(size.steps, rate, seed), progress=False)
        tune = held_out(model, batches(race.validation, size))
        outputs = translations(model, race.test, size)
    except (TrainingDiverged, ValueError):  # numbers that are not finite, while it learns or when it writes
        tune = chance
    return {
        "tune": round(tune, 5),
        "outcome": "trained" if tune < chance - LEARNED else "diverged",
        **scores(race, outputs),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def shape(rule: str, layers: int, size: Size) -> ModelConfig:
    """An encoder and a decoder of this many layers each."""
    sizes: dict[str, Any] = {"d_model": size.width, "n_heads": 4, "d_ff": 4 * size.width, "max_length": size.longest}
    words = data(size)[2].vocab_size
    return ModelConfig(
        "encoder_decoder",
        "translation",
        layers,
        layers,
        residual=rule,
        vocab_size=words,
        position="sinusoidal",
        **sizes,
    )


def _recipe(steps: int, rate: float, seed: int) -> TrainConfig:
    return TrainConfig(steps, learning_rate=rate, warmup=steps // 10, schedule="cosine", label_smoothing=0.1, seed=seed)


def measure_many(arm: Arm, rate: float, seed: int, size: Size) -> Row:
    """One model for all languages: it learns those of the race, then all of them. Scores of the test part, language by
    language (BLEU, that of the most similar sentence, share that is exact), and some of its translations."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    begin = time.perf_counter()
    model = build_model(shape(arm["rule"], arm["layers"], size), seed=seed)
    race, wide, _ = data(size)
    for pairs, steps in ((race.train, size.steps), (wide.train, size.more_steps)):
        train(model, batches(pairs, size, seed), _recipe(steps, rate, seed), progress=False)
    test = wide.test
    outputs, similar = translations(model, test, size), most_similar(wide.train, test)
    languages = {}
    for language in size.all_languages:
        mine = [i for i, pair in enumerate(test) if pair.language == language]
        part = [test[i] for i in mine]
        languages[language] = [
            round(_bleu(by_source(part, [made[i] for i in mine]).sum(0)), 1) for made in (outputs, similar)
        ] + [round(float(np.mean([outputs[i] == test[i].target.strip() for i in mine])), 3)]
    page = [
        [pair.source.strip(), pair.target.strip(), pair.language, output]
        for pair, output in list(zip(test, outputs, strict=True))[:: max(1, len(test) // 40)]
    ]
    return {
        "tune": round(held_out(model, batches(wide.validation, size)), 5),
        "outcome": "trained",
        **scores(wide, outputs),
        "by_language": languages,
        "page": page,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def unigram(pairs: Sequence[Pair], tokenizer: BytePairs) -> float:
    """The lowest loss if only each token's frequency is known, nats a token."""
    counts = Counter(token for pair in pairs for token in (*tokenizer.encode(pair.target), tokenizer.end))
    shares = np.array(list(counts.values())) / counts.total()
    return float(-(shares * np.log(shares)).sum())


@torch.no_grad()
def held_out(model: Model, task: Translations) -> float:
    """Mean loss of all tokens of a part, nats."""
    total = count = 0.0
    model.eval()
    for _ in range(task.batches_per_epoch):
        batch = task.batch()
        answers = int((batch.targets != IGNORED).sum())
        total, count = total + answers * model.loss(batch).item(), count + answers
    model.train()
    return total / count


def scores(parts: Parts[Pair], outputs: Sequence[str]) -> Row:
    """BLEU with its 95% interval, chrF, and BLEU above the most similar training sentence with its paired interval."""
    from sacrebleu.metrics import CHRF

    test = parts.test
    own, similar = by_source(test, outputs), by_source(test, most_similar(parts.train, test))
    draw = np.random.default_rng(0)
    rows = [draw.integers(len(own), size=len(own)) for _ in range(1000)]
    bleu = [_bleu(own[drawn].sum(0)) for drawn in rows]
    above = [score - _bleu(similar[drawn].sum(0)) for score, drawn in zip(bleu, rows, strict=True)]
    chrf = CHRF().corpus_score(list(outputs), [[pair.target for pair in test]]).score
    return {
        "bleu": [round(x, 2) for x in (_bleu(own.sum(0)), *np.quantile(bleu, [0.025, 0.975]).tolist())],
        "chrf": round(chrf, 2),
        "above": [
            round(float(x), 2) for x in (_bleu(own.sum(0)) - _bleu(similar.sum(0)), *np.quantile(above, [0.025, 0.975]))
        ],
    }


def by_source(pairs: Sequence[Pair], outputs: Sequence[str]) -> Any:
    """What BLEU adds up, for each English source over its languages, (sources, 10): matches of 1 to 4 words, as many
    that were written, and the words of output and reference."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    words: Callable[[str], str] = Tokenizer13a()
    rows: dict[str, Any] = {}
    for pair, output in zip(pairs, outputs, strict=True):
        h, r = words(output).split(), words(pair.target).split()
        grams = [[Counter(zip(*(x[i:] for i in range(n)), strict=False)) for x in (h, r)] for n in range(1, 5)]
        row = [(a & b).total() for a, b in grams] + [a.total() for a, _ in grams] + [len(h), len(r)]
        rows[pair.source] = rows.get(pair.source, 0) + np.array(row, float)
    return np.array(list(rows.values()))


def _bleu(sums: Any) -> float:
    matched, written, (h, r) = sums[:4], sums[4:8], sums[8:]
    if not matched.all():
        return 0.0
    return float(100 * np.exp(np.log(matched / written).mean() + min(0.0, 1 - r / h)))


def record(out: Path, rules: Sequence[str], layers: Sequence[int], size: Size, jobs: int) -> list[Row]:
    """All runs that ``out`` lacks, shallow ones first.

    Raises:
        ValueError: there is no such rule or depth.
    """
    for rule in rules:
        if rule not in (*RULES, MANY):
            raise ValueError(unknown("rule", rule, (*RULES, MANY)))
    for depth in layers:
        if depth not in size.layers:
            raise ValueError(f"--layers {depth}: expected some of {', '.join(map(str, size.layers))}.")
    run = partial(measure, size=size)
    for depth in sorted(layers):
        arms = [{"rule": rule, "layers": depth, "languages": len(size.languages)} for rule in rules if rule != MANY]
        seeds = size.seeds if depth in size.repeated else ()
        tuned.record(out, _head(size), arms, run, size.rates, size.lower, seeds, jobs)
    if MANY in rules:
        arms = [{"rule": "deepnorm", "layers": size.layers[0], "languages": len(size.all_languages)}]
        tuned.record(out, _head(size), arms, partial(measure_many, size=size), size.rates[:1], (), (), 1)
    return read(out)


def _head(size: Size) -> dict[str, Any]:
    """What the record says of itself."""
    race, _, tokenizer = data(size)
    return {
        "what": "Translating dates with encoder-decoders of several depths and rules at an equal number of updates",
        "command": "python benchmarks/lesson_13.py",
        "rules": list(RULES),
        "size": vars(size),
        "test": {"pairs": len(race.test), "sources": len({pair.source for pair in race.test})},
        "unigram": round(unigram(race.train, tokenizer), 4),
        "vocabulary": {"tokens": tokenizer.vocab_size, "nats": round(log(tokenizer.vocab_size), 4)},
        "recipe": "AdamW, cosine after a tenth of warm-up, clipped to norm 1, label smoothing 0.1, greedy decoding; "
        "every rate once, the best one with new seeds",
    }


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description="Table 1 in miniature: rules and depths of a translator.")
    parser.add_argument(
        "--only", nargs="+", metavar="RULE", default=[*RULES, MANY], help=f"these rules, or {MANY!r}, alone"
    )
    parser.add_argument("--layers", nargs="+", type=int, metavar="N", help="these depths alone, N + N layers")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a thread each")
    parser.add_argument("--smoke", action="store_true", help="tiny; needs --out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.smoke and given.out == RESULTS:
        parser.error("--smoke measures nothing that a record should hold: add --out FILE.")
    if given.jobs < 1:
        parser.error(f"--jobs {given.jobs}: expected 1 or more.")
    size = SMOKE if given.smoke else Size()
    try:
        record(given.out, given.only, given.layers or size.layers, size, given.jobs)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
