"""The preset laptop-1000 and its controls: does the stack of 1,000 layers learn, or do its ends?

    python benchmarks/laptop_1000.py
    python benchmarks/laptop_1000.py --below 2.7

Three arms under one recipe: all trained; embedding and head around a stack that stays as it was drawn; embedding and
head with no stack. Each arm is written to benchmarks/results/laptop_1000.json when it is done, and an interrupted
recording continues where it was; to record afresh, delete the file. The picture goes to docs/images/laptop_1000.png.

``--below`` is a proof, which ``make course`` runs: it trains the preset until its loss on held-out text is below this
many nats a byte, and fails if all steps of the preset are not enough. Nothing is recorded. Stopped by Ctrl-C, the same
command resumes it.
"""

import argparse
import io
import json
import os
import platform
import shutil
import sys
import time
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from deepnet_edu import build_model, train
from deepnet_edu.course.places import RESULTS
from deepnet_edu.data import PythonDocs
from deepnet_edu.experiment.config import Experiment, find_run
from deepnet_edu.experiment.data import make_task
from deepnet_edu.figures.style import legend_below, new_figure
from deepnet_edu.files import write_atomic
from deepnet_edu.model import Model
from deepnet_edu.profiles import History
from deepnet_edu.training import Interrupted

FILE = RESULTS / "laptop_1000.json"
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "laptop_1000.png"
ARMS = {
    "all trained": (),
    "stack frozen": ("parameters=ends",),
    "no layers": ("parameters=ends", "residual=none", "decoder_layers=0"),
}
#: Steps at the end over which the training loss is taken, and batches of the held-out part.
LAST, HELD_OUT = 20, 50
#: The proof computes the held-out loss, and saves, whenever this many steps are done.
LOOK = 20
PROOF = Path(__file__).resolve().parents[1] / "runs" / "laptop-1000-below"


@torch.no_grad()
def held_out(model: Model, task: PythonDocs) -> float:
    """Mean loss over random windows of the held-out part, the same for all arms, nats per byte."""
    generator = torch.Generator().manual_seed(0)
    return sum(model.loss(task.validation_batch(generator)).item() for _ in range(HELD_OUT)) / HELD_OUT


def perform(run: Experiment) -> dict[str, Any]:
    """Train one arm."""
    task = make_task(run.data, run.model.vocab_size, seed=run.train.seed)
    assert isinstance(task, PythonDocs)
    model = build_model(run.model, seed=run.train.seed)
    begin = time.perf_counter()
    history = train(model, task, replace(run.train, save_every=0))
    return {
        "loss": [round(loss, 4) for loss in history.loss],
        "last": round(sum(history.loss[-LAST:]) / LAST, 4),
        "held_out": round(held_out(model, task), 4),
        "unigram_entropy": round(task.unigram_entropy, 4),
        "bigram_entropy": round(task.bigram_entropy, 4),
        "minutes": round((time.perf_counter() - begin) / 60, 1),
        "device": "CPU",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "seed": run.train.seed,
        "date": date.today().isoformat(),
    }


class _BelowError(Exception):
    """The run is where it was to come."""


def reaches(limit: float, run: Experiment, folder: Path) -> bool:
    """Whether the held-out loss comes below ``limit`` within the run's steps; training ends as soon as it does.

    Args:
        limit: nats per byte.
        run: what is trained.
        folder: of its checkpoints, from which it resumes; removed once the answer is known.

    Raises:
        Interrupted: it was stopped, and is saved.
    """
    task = make_task(run.data, run.model.vocab_size, seed=run.train.seed)
    assert isinstance(task, PythonDocs)
    model = build_model(run.model, seed=run.train.seed)

    def look(history: History) -> None:
        step = len(history.loss)
        if step % LOOK and step < run.train.steps:
            return
        loss, trained = held_out(model, task), sum(history.loss[-LAST:]) / len(history.loss[-LAST:])
        minutes = sum(history.seconds) / 60
        print(f"step {step}, {minutes:.1f} min: held out {loss:.3f}, last {LAST} steps {trained:.3f}", flush=True)
        if loss < limit:
            raise _BelowError

    begun = folder.exists()
    try:
        train(model, task, replace(run.train, save_every=LOOK), out=folder, resume=begun, on_step=look, progress=False)
    except _BelowError:
        reached = True
    else:
        reached = held_out(model, task) < limit
    shutil.rmtree(folder)
    return reached


def draw(arms: dict[str, Any]) -> bytes:
    """Loss by step of the three arms, and the entropies of the text."""
    figure, (ax,) = new_figure(1, width=8, height=4.6)
    whole = arms["all trained"]
    ax.axhline(whole["unigram_entropy"], color="black", linewidth=0.8, label="unigram entropy of the text")
    looks = {
        "all trained": ("1,000 layers, all trained", {"color": "#0072B2", "linewidth": 2}),
        "stack frozen": ("1,000 layers, stack frozen", {"color": "#E69F00", "linewidth": 6, "alpha": 0.5}),
        "no layers": ("no layers", {"color": "black", "linewidth": 1.2, "linestyle": "--"}),
    }
    for name, (label, look) in looks.items():
        smooth = np.convolve(arms[name]["loss"], np.ones(5) / 5, mode="valid")
        ax.plot(np.arange(len(smooth)) + 2, smooth, label=label, **look)
    ax.set(xlabel="step", ylabel="loss (nats per byte, mean of 5 steps)", ylim=(2.4, 5.6), xlim=(0, len(whole["loss"])))
    legend_below(figure, ax)
    file = io.BytesIO()
    figure.savefig(file, dpi=110)
    return file.getvalue()


def main() -> int:
    """Record what is missing, then draw; or prove what the loss comes below. The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--below", type=float, metavar="NATS", help="prove that the held-out loss comes below this")
    limit = parser.parse_args().below
    if limit is not None:
        try:
            reached = reaches(limit, find_run("laptop-1000"), PROOF)
        except Interrupted as stopped:
            print(f"Stopped after step {stopped.step}; the same command resumes it.")
            return 128 + stopped.signal
        print(f"laptop-1000: {'below' if reached else 'NOT below'} {limit:g} nats per byte of held-out text")
        return int(not reached)
    record = json.loads(FILE.read_text()) if FILE.exists() else {"made_by": "benchmarks/laptop_1000.py", "arms": {}}
    for name, changes in ARMS.items():
        if name not in record["arms"]:
            record["arms"][name] = perform(find_run("laptop-1000", changes))
            write_atomic(FILE, json.dumps(record, indent=1) + "\n")
        arm = record["arms"][name]
        print(f"{name}: last {LAST} steps {arm['last']:.3f}, held out {arm['held_out']:.3f} nats per byte", flush=True)
    whole = record["arms"]["all trained"]
    below = "below" if whole["last"] < whole["unigram_entropy"] else "NOT below"
    print(f"all trained: {below} the unigram entropy, {whole['unigram_entropy']:.3f}")
    write_atomic(PICTURE, draw(record["arms"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
