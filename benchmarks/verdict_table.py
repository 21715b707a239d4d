"""The table of verdicts of lesson 16: rules at 1,000 decoder layers and at 500 + 500, before training and after.

Lesson 16 makes one row; this program works out which rows are missing, makes them by batches of

    deepnet-edu run 16 --profile smoke --set LAYERS=1000 --set STEPS=100 --set … --sweep RULE=…

and takes what they recorded into verdict_table.json of course/records. Its parts, in the order in which they are made:

main: six rules at one learning rate and seed, the decoder and, where it is defined, the encoder-decoder. ``post_ln``
    (literal Xavier, the rule that fails) and ``pre_ln`` (what most models have) are the ends between which DeepNorm
    is; ``admin`` is the Post-LN with measured constants that DeepNet's Table 1 has beside it, and fits both
    architectures; ``layernorm_scaling`` is the younger remedy for Pre-LN, ``keel`` the one for Post-LN.
rest: all other rules that are defined for a decoder or an encoder-decoder, likewise.
rates: the six decoders at three learning rates and with three seeds, and of encoder-decoders DeepNorm and Post-LN.

    python benchmarks/verdict_table.py                     # all that is missing
    python benchmarks/verdict_table.py --minutes 30        # begin no run after 30 minutes
    python benchmarks/verdict_table.py --only main         # this part alone
    python benchmarks/verdict_table.py --smoke --out t.json   # the script itself, four layers

A run has 100 steps: at 1e-4, the lowest rate, DeepNorm needs most of them until it has learned. A batch that was
interrupted resumes; its finished rows are kept in its folder, runs/verdict_table, and reach the record when it ends or
at the next call. Change nothing in the package and no record meanwhile: the batch would stop. A row that was deleted is
made again.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is not part of the package

from benchmarks.resumed import Row, lacking, options, read, rounded, save
from deepnet_edu.batch.state import Status, read_batch
from deepnet_edu.course.places import RECORDS, RUNS
from deepnet_edu.residual import RESIDUALS, Architecture

RESULTS = RECORDS / "verdict_table.json"
MAIN = ("deepnorm", "post_ln", "pre_ln", "admin", "layernorm_scaling", "keel")
#: What is claimed to train at any depth, and what is claimed not to.
CLAIM = ("deepnorm", "post_ln")
ARCHITECTURES: tuple[Architecture, ...] = ("decoder", "encoder_decoder")
PARTS = ("main", "rest", "rates")
#: What a run's row says besides its settings.
MEASURED = (
    "steps",
    "verdict",
    "similarity",
    "gradient_ratio",
    "input_share",
    "loss_start",
    "loss_end",
    "chance",
    "share_learned",
    "outcome",
)


@dataclass(frozen=True)
class Size:
    """Layers of both stacks together, most steps, learning rates and seeds; the first of each are the table's."""

    layers: int = 1000
    steps: int = 100
    rates: tuple[float, ...] = (3e-4, 1e-4, 1e-3)
    seeds: tuple[int, ...] = (0, 1, 2)
    main: tuple[str, ...] = MAIN
    rules: tuple[str, ...] = tuple(RESIDUALS)


SMOKE = Size(4, 2, (3e-4,), (0,), ("deepnorm",), ("deepnorm", "post_ln"))


def plan(part: str, size: Size) -> Iterator[Row]:
    """The settings of a part's rows."""
    one = part != "rates"
    rules = [rule for rule in size.rules if rule not in size.main] if part == "rest" else size.main
    for rate, seed in product(size.rates[:1] if one else size.rates, size.seeds[:1] if one else size.seeds):
        for architecture, rule in product(ARCHITECTURES, rules):
            wanted = one or architecture == "decoder" or rule in CLAIM
            if wanted and architecture in RESIDUALS[rule].architectures:
                settings = {"rule": rule, "architecture": architecture, "layers": size.layers}
                yield settings | {"learning_rate": rate, "seed": seed}


def command(rows: Sequence[Row], steps: int, folder: Path) -> list[str]:
    """The batch that makes these rows, which differ in their rules alone."""
    same = rows[0]
    fixed = {
        "LAYERS": same["layers"],
        "STEPS": steps,
        "ARCHITECTURE": same["architecture"],
        "LEARNING_RATE": f"{same['learning_rate']:g}",
        "SEED": same["seed"],
    }
    given = [word for name, value in fixed.items() for word in ("--set", f"{name}={value}")]
    rules = ",".join(row["rule"] for row in rows)
    where = ["--gpus", "none", "--slots", "1", "--resume", "--out", str(folder)]
    return ["deepnet-edu", "run", "16", "--profile", "smoke", *given, "--sweep", f"RULE={rules}", *where]


def row_of(run: Status) -> Row | None:
    """The row that a run has recorded; None where it did not end well."""
    names = ("rule", "architecture", "layers", "learning_rate", "seed")
    if run.state != "done" or not {*names, *MEASURED} <= run.metrics.keys():
        return None
    measured = {name: run.metrics[name] for name in MEASURED}
    short = {name: rounded([v])[0] if isinstance(v, float) else v for name, v in measured.items()}
    return {name: run.metrics[name] for name in names} | short | {"seconds": rounded([run.seconds or 0.0])[0]}


def merge(out: Path, head: Row, planned: Sequence[Row], folder: Path) -> None:
    """Take the rows that are planned, finished and not in the record yet from all batches in a folder."""
    rows = read(out)
    missing = lacking(rows, planned)
    found = [row for batch in sorted(folder.glob("*")) for run in read_batch(batch) if (row := row_of(run))]
    new = [row for settings in missing if (row := next((r for r in found if settings.items() <= r.items()), None))]
    if new:
        order = [*planned, *rows]
        rows = sorted(rows + new, key=lambda row: next(i for i, one in enumerate(order) if one.items() <= row.items()))
        save(out, head, rows)
        print(f"{len(new)} rows more, {len(rows)} in {out.name}", flush=True)


def table(out: Path, parts: Sequence[str], size: Size, folder: Path, minutes: float = float("inf")) -> list[Row]:
    """All rows of these parts that ``out`` lacks, by batches in ``folder``. Returns those that are still missing."""
    end = time.monotonic() + 60 * minutes
    everything = [settings for part in PARTS for settings in plan(part, size)]
    head = {
        "what": "Rules before training and after, the stack alone; of two stacks the worse; losses in nats per token",
        "command": "python benchmarks/verdict_table.py",
        "batch": " ".join(
            ["deepnet-edu run 16 --profile smoke", f"--set LAYERS={size.layers} --set STEPS={size.steps}"]
        ),
        "recipe": "AdamW, clipped to norm 1, linear warm-up of 20 steps, embedding and head as they were drawn",
    }
    folder.mkdir(parents=True, exist_ok=True)
    merge(out, head, everything, folder)
    wanted = [settings for part in PARTS if part in parts for settings in plan(part, size)]
    same = ("architecture", "layers", "learning_rate", "seed")
    for key, group in groupby(lacking(read(out), wanted), key=lambda row: [row[name] for name in same]):
        if time.monotonic() > end:
            print("The minutes are spent: the same command resumes here.", flush=True)
            break
        batch = folder / "-".join(map(str, key))
        words = command(list(group), size.steps, batch)
        print(*words, flush=True)
        run_until(end, [sys.executable, "-m", "deepnet_edu", *words[1:]])
        merge(out, head, everything, folder)
        for run in read_batch(batch):
            if run.state == "failed":
                print(f"{run.parameters.get('RULE')} failed: {(run.problems or ['without a word'])[0]}", flush=True)
    return lacking(read(out), wanted)


def run_until(end: float, words: list[str]) -> None:
    """Run a batch; at ``end`` let it finish what runs and begin nothing more."""
    process = subprocess.Popen(words)
    try:
        process.wait(None if end == float("inf") else max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
    except KeyboardInterrupt:  # the terminal has sent it to the batch as well
        process.wait()
        raise


def main() -> None:
    """Make what is missing."""
    given = options("Residual rules at 1,000 layers: the table of verdicts of lesson 16.", RESULTS, PARTS)
    folder = RUNS / "verdict_table" if given.out == RESULTS else given.out.with_suffix("")
    missing = table(given.out, given.only, SMOKE if given.smoke else Size(), folder, given.minutes)
    if missing:
        sys.exit(f"{len(missing)} rows are missing: the same command resumes.")


if __name__ == "__main__":
    main()
